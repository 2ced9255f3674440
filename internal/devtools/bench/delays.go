package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// idleness is what an idle daemon costs the database server.
type idleness struct {
	queries float64 // statements a second
	entries float64 // rows and index entries that the server read a second
	cpu     float64 // of one processor, in percent
}

func (b *bench) measureIdle() idleness {
	b.startDaemon(unlimited, concurrency)
	b.Sleep(3 * time.Second) // what belongs to the daemon's start
	i := b.watchIdle()
	b.stopDaemon()
	return i
}

// watchIdle measures beside a daemon that has nothing to do.
func (b *bench) watchIdle() (i idleness) {
	// Two rounds of the maintenance, the rarest of the regular statements: in a shorter time it
	// would be a matter of luck how many are seen.
	const idleTime = 40 * time.Second
	b.Step("idle daemon for %s", idleTime)
	cpu := b.watchCPU() // asks the server too
	queries, entries := b.serverCounters()
	begin := time.Now()
	b.Sleep(idleTime)
	used := cpu.used("database")
	queriesAfter, entriesAfter := b.serverCounters()
	took := time.Since(begin).Seconds()
	i.queries = float64(queriesAfter-queries-1) / took // the second reading counts itself
	i.entries = float64(entriesAfter-entries) / took
	i.cpu = 100 * used.Seconds() / took
	b.Say("%s queries/s, %s entries/s, %s %% of a processor in the database server",
		number(i.queries), number(i.entries), number(i.cpu))
	return i
}

// serverCounters returns how many statements the server has carried out, and how many rows and
// index entries it has read for them.
func (b *bench) serverCounters() (queries, entries int64) {
	var counters []struct {
		Name  string `db:"Variable_name"`
		Value int64  `db:"Value"`
	}
	b.database.Admin.FetchAll(&counters, `SHOW GLOBAL STATUS
		WHERE Variable_name = 'Questions' OR Variable_name LIKE 'Handler_read%'`)
	for _, c := range counters {
		if c.Name == "Questions" {
			queries = c.Value
		} else {
			entries += c.Value
		}
	}
	return queries, entries
}

func (b *bench) idle() { b.record("idle_queries", b.measureIdle().queries) }

// lanes inserts rows that are due tomorrow while a daemon runs: a million of one template, and a
// fifth of that of fifty others. Nobody brings the server's statistics up to date.
func (b *bench) lanes() {
	b.startDaemon(unlimited, concurrency)
	b.Step("inserting rows of tomorrow in %d lanes", 1+lanesOthers)
	b.insertCrowd(tomorrowRows(campaignTimes * b.requests))
	for i := range lanesOthers {
		c := tomorrowRows(b.requests / lanesOthers)
		c.template = fmt.Sprintf("'other-%d'", i)
		b.insertCrowd(c)
	}
	b.Sleep(3 * time.Second)
	i := b.watchIdle()
	b.record("idle_lanes_queries", i.queries)
	b.record("idle_lanes_entries", i.entries)
}

const lanesOthers = 50

// invented sends good rows alone and beside many of invented templates, by turns.
func (b *bench) invented() {
	const rounds = 5
	good, junk := b.requests/200, b.requests/5
	b.Step("%d times %d rows, alone and beside %s of invented templates",
		rounds, good, harness.Count(junk))
	b.startDaemon(unlimited, concurrency)
	b.drainSome(good) // warms up
	var alone, beside, ends []float64
	for range rounds {
		alone = append(alone, b.drainSome(good))
		last, begin := b.lastID(), time.Now()
		c := dueRows(junk)
		c.template = "CONCAT('invented-', m.openid)"
		b.insertCrowd(c)
		beside = append(beside, b.drainSome(good))
		b.awaitDone(last, 0)
		ends = append(ends, time.Since(begin).Seconds())
	}
	b.record("invented_alone", median(alone))
	b.record("invented_send", median(beside))
	b.record("invented_ratio", median(beside)/median(alone))
	b.record("invented_seconds", median(ends))
}

// drainSome inserts rows and returns how many a second were delivered.
func (b *bench) drainSome(n int) float64 {
	b.simulator.Reset()
	begin := time.Now()
	b.insertRequests("send_request", n)
	b.awaitDelivered(n)
	return float64(n) / time.Since(begin).Seconds()
}

func (b *bench) latency() {
	const singles = 200
	b.Step("latency: %d single rows at random moments", singles)
	b.startDaemon(unlimited, concurrency)
	latencies := b.latencies("L", singles, 1)
	b.recordMillis("latency_p50", latencies, 0.5)
	b.recordMillis("latency_p99", latencies, 0.99)
}

func (b *bench) memory() {
	// It includes a round of the maintenance, which looks through the waiting rows.
	const memoryTime = 30 * time.Second
	others := campaignTimes * b.requests / 5
	due := campaignTimes*b.requests - 2*others
	b.Step("memory: %s rows due, %s waiting, %s of next week; sending for %s",
		harness.Count(due), harness.Count(others), harness.Count(others), memoryTime)
	for _, c := range []crowd{dueRows(due), waitingRows(others), futureRows(others)} {
		b.insertCrowd(c)
	}
	b.startDaemon(unlimited, concurrency)
	b.Sleep(memoryTime)
	delivered := b.simulator.Delivered()
	if delivered == 0 {
		b.Fatalf("the daemon sent nothing\n%s", b.instance.LogTail())
	}
	b.Say("%s messages in the meantime", harness.Count(delivered))
	b.recordMemory("pending_memory", b.daemon.PeakMemory())
}

// takeover kills the instance that sends, while rows keep coming, and takes the time until the
// other one sends; the dead one comes back and is next.
func (b *bench) takeover() {
	b.Step("takeover: two daemons, kill -9 of the one that sends, %d times", takeovers)
	settings := b.instance.Settings
	settings.Rate = defaultRate
	leader := b.NewInstance(b.binary, "one", settings)
	other := b.NewInstance(b.binary, "two", settings)
	b.daemon = leader.Start()
	var begun sync.Map // when the INSERT of a row began, by its order number
	trickle := b.Group(1)
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	trickle.Go(func(context.Context) {
		for i := 0; ctx.Err() == nil; i++ {
			begun.Store(order("T", i), time.Now())
			b.db.Do(insertQuery, b.users[i%len(b.users)].OpenID, harness.Template, message("T", i))
			time.Sleep(20 * time.Millisecond)
		}
	})
	b.awaitDelivered(1)
	var slowest time.Duration
	for range takeovers {
		dead := b.daemon
		b.daemon = other.Start()
		b.Sleep(2 * time.Second) // until it stands by
		b.simulator.Reset()
		dead.Kill()
		took := b.awaitSuccessor(&begun, time.Now())
		b.Say("%.1f s", took.Seconds())
		slowest = max(slowest, took)
		leader, other = other, leader
	}
	stop()
	trickle.Wait()
	b.record("takeover_seconds", slowest.Seconds())
}

func (b *bench) awaitSuccessor(begun *sync.Map, killed time.Time) (took time.Duration) {
	b.await(time.Minute, func() bool {
		for _, m := range b.simulator.Messages() {
			// What the dead one had in flight may still arrive, but nothing inserted later.
			at, ok := begun.Load(checker.Order(m.Data))
			if ok && at.(time.Time).After(killed) {
				took = m.Time.Sub(killed)
				return true
			}
		}
		return false
	})
	return took
}

// urgent inserts rows while a campaign is sent as fast as the machine can, and then at the default
// rate, where what has been claimed already delays urgent rows for longer.
func (b *bench) urgent() {
	b.urgentIn("urgent", "U", unlimited)
	b.urgentIn("urgent_default_rate", "V", defaultRate)
}

func (b *bench) urgentIn(name, kind string, rate int) {
	n := campaignTimes * b.requests
	b.Step("urgent: %d rows while a campaign of %s is being sent, at %s/s at the most",
		urgentRows, harness.Count(n), harness.Count(rate))
	b.stopDaemon()
	b.clear()
	b.insertCrowd(bulkRows(n))
	b.startDaemon(rate, concurrency)
	b.awaitDelivered(min(1000, n/4))
	begin, before := time.Now(), b.simulator.Delivered()
	latencies := b.latencies(kind, urgentRows, 0)
	sent := float64(b.simulator.Delivered() - before)
	b.Say("the campaign continues with %s messages/s", number(sent/time.Since(begin).Seconds()))
	if b.done(0) {
		b.Say("the campaign was over before the urgent rows were: this figure says nothing")
	}
	b.recordMillis(name+"_p50", latencies, 0.5)
	b.recordMillis(name+"_max", latencies, 1)
}

const (
	takeovers  = 3
	urgentRows = 100

	// How many times the usual backlog are there.
	campaignTimes = 5
	futureTimes   = 25
	finishedTimes = 50

	fairRate = 1000 // a second: the others take a minute and more
	fairRows = 100
)

func (b *bench) fair() {
	many := b.requests / 2
	template := wechatsim.StandardTemplates()[1].ID // which the configuration does not name
	b.Step("fair: %s rows of a template at %d/s, then %d of another one", harness.Count(many), fairRate, fairRows)
	b.insertCrowd(dueRows(many))
	b.startDaemon(fairRate, concurrency)
	b.awaitDelivered(min(2*fairRate, many/4))
	last := b.lastID()
	begin := time.Now()
	b.db.Insert("send_request (mini_openid, template, data)", fairRows, func(i int) []any {
		return []any{b.users[i%len(b.users)].OpenID, template, `{"thing1":"已完成"}`}
	})
	b.awaitDone(last, 0)
	var took time.Duration
	got := 0
	for _, m := range b.simulator.Messages() {
		if m.TemplateID == template {
			took, got = max(took, m.Time.Sub(begin)), got+1
		}
	}
	if got != fairRows {
		b.Fatalf("%d of %d messages of the other template were delivered", got, fairRows)
	}
	b.record("fair_seconds", took.Seconds())
}

// weight is what the sender does and costs beside the rows that are in the table.
type weight struct {
	queries, cpu float64 // see measureIdle
	rate         float64 // messages a second
	cost         float64 // microseconds of processor time a message
}

// weigh sends half the usual backlog several times; the median counts.
func (b *bench) weigh() (w weight) {
	const rounds = 3
	idle := b.measureIdle()
	w.queries, w.cpu = idle.queries, idle.cpu
	b.Step("%d times %s requests", rounds, harness.Count(b.requests/2))
	var rates, costs []float64
	for range rounds {
		d := b.drain(b.requests/2, concurrency)
		rates = append(rates, d.rate)
		costs = append(costs, float64(d.cost)/float64(time.Microsecond))
	}
	w.rate, w.cost = median(rates), median(costs)
	return w
}

func (b *bench) future() { b.beside("future", "due next week", futureRows(futureTimes*b.requests)) }

func (b *bench) finished() {
	b.beside("finished", "finished", finishedRows(finishedTimes*b.requests))
}

// beside compares the sender beside a crowd with the sender alone, which is weighed once in a run.
func (b *bench) beside(name, what string, c crowd) {
	if b.light == nil {
		b.Step("for comparison: a table with nothing else in it")
		b.light = new(b.weigh())
		b.record("light_send", b.light.rate)
		b.recordKnown("light_cpu", b.light.cost)
		b.recordKnown("light_idle_cpu", b.light.cpu)
		b.clear()
	}
	b.Step("inserting %s rows that are %s", harness.Count(c.n), what)
	b.insertCrowd(c)
	b.writeOut()
	w := b.weigh()
	b.record(name+"_send", w.rate)
	b.record(name+"_ratio", w.rate/b.light.rate)
	b.recordKnown(name+"_cpu", w.cost)
	b.record(name+"_idle_queries", w.queries)
	b.recordKnown(name+"_idle_cpu", w.cpu)
}

// writeOut has the server write the table's changed pages to the disk. It would do so while the
// figures are taken otherwise: many rows came at once that come in days elsewhere.
func (b *bench) writeOut() {
	one := b.database.Client() // the lock belongs to a connection
	one.SetMaxOpenConns(1)
	one.Do("FLUSH TABLES send_request FOR EXPORT")
	one.Do("UNLOCK TABLES")
}
