package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// text is the i-th request's text; its number is what the read-back is matched by.
func text(kind string, i int) map[string]string {
	return checker.Text("热拿铁 & 可颂", "28.00元", order(kind, i))
}

func message(kind string, i int) string { return checker.Data(text(kind, i), true) }

func order(kind string, i int) string { return fmt.Sprintf("%s-%07d", kind, i) }

// insertRequests puts one row for each of the first n mini-program users into a table of
// send_request's shape; every other one is named by unionid.
func (b *bench) insertRequests(table string, n int) {
	b.db.Insert(table+" (unionid, mini_openid, template, data)", n, func(i int) []any {
		unionid, openid := any(nil), any(b.users[i].OpenID)
		if i%2 == 1 {
			unionid, openid = b.users[i].UnionID, nil
		}
		return []any{unionid, openid, harness.Template, message("B", i)}
	})
}

// check compares what the simulator delivered and what the table's rows say with the n requests of
// insertRequests.
func (b *bench) check(table string, n int) checker.Verdict {
	return checkBacklog(b.users[:n], b.simulator.Messages(),
		checker.ReadRows(b.database.Reader(), table))
}

func checkBacklog(
	users []wechatsim.Identity, messages []wechatsim.Message, rows []checker.Row,
) checker.Verdict {
	h := checker.History{
		Undisturbed: true, Rows: rows, Messages: messages, Requests: map[string]checker.Request{},
		Templates: map[string]string{
			harness.AppID: harness.TemplateID(), harness.MiniAppID: harness.MiniTemplateID(),
		},
	}
	for i, user := range users {
		h.Requests[order("B", i)] = checker.Request{
			Order: order("B", i), Text: text("B", i), Committed: true,
			Recipient: wechatsim.Identity{Person: user.Person, UnionID: user.UnionID},
		}
	}
	return checker.Check(h)
}

// crowd is a mass of rows that the server makes, for the mini program's users over and over.
type crowd struct {
	n       int
	columns string // besides template and data
	values  string // as SQL over mini_user m; MOMENT is ten rows a second until now
	// template, where given, is not the usual one, but SQL over mini_user m.
	template string
}

func (b *bench) insertCrowd(c crowd) {
	// More rows in one statement would be a transaction that no server likes.
	const most = 200_000
	template := cmp.Or(c.template, "'"+harness.Template+"'")
	for left := c.n; left > 0; {
		b.Status("%s rows to go", harness.Count(left))
		moment := fmt.Sprintf("CURRENT_TIMESTAMP(3) - INTERVAL %d SECOND", left/10)
		result := b.db.Do(`
			INSERT INTO send_request (template, data, `+c.columns+`)
			SELECT `+template+`, ?, `+strings.ReplaceAll(c.values, "MOMENT", moment)+`
			  FROM mini_user m
			 WHERE m.appid = ?
			 LIMIT ?`, message("C", 0), harness.MiniAppID, min(left, most))
		n, err := result.RowsAffected()
		b.Check(err)
		if n == 0 {
			b.Fatalf("inserting many requests: the server says it made none")
		}
		left -= int(n)
	}
}

func bulkRows(n int) crowd {
	return crowd{n: n, columns: "unionid, priority", values: "m.unionid, 2"}
}

func dueRows(n int) crowd { return crowd{n: n, columns: "unionid", values: "m.unionid"} }

func tomorrowRows(n int) crowd { return laterRows(n, 1) }

func futureRows(n int) crowd { return laterRows(n, 7) }

// laterRows are due within one day, so many days from now.
func laterRows(n, days int) crowd {
	return crowd{n: n, columns: "unionid, due_at", values: fmt.Sprintf("m.unionid, "+
		"CURRENT_TIMESTAMP(3) + INTERVAL %d * 86400 + FLOOR(RAND() * 86400) SECOND", days)}
}

func waitingRows(n int) crowd {
	return crowd{n: n, columns: "appid, unionid, status, reason, attempts, due_at", values: "'" +
		harness.AppID + "', CONCAT('x', m.unionid), 'waiting', 'no_follower', 1, " +
		"CURRENT_TIMESTAMP(3) + INTERVAL 3 DAY"}
}

// finishedRows were sent fewer days ago than the retention keeps.
func finishedRows(n int) crowd {
	return crowd{n: n, columns: "appid, unionid, status, channel, attempts, sent_openid, msgid, " +
		"due_at, created_at, attempted_at, finished_at", values: "'" + harness.AppID +
		"', m.unionid, 'sent', 'template', 1, m.openid, CAST(UUID_SHORT() AS SIGNED), " +
		"MOMENT, MOMENT, MOMENT, MOMENT"}
}

func (b *bench) await(most time.Duration, done func() bool) {
	b.Await(harness.Wait{
		For: "the requests", Every: 20 * time.Millisecond, Most: most, Process: b.daemon,
		Log: b.instance.LogTail,
	}, done)
}

// awaitDone waits until none of the rows with a larger id than after is pending. Before so many
// messages are delivered it does not ask the database but where nothing is delivered any more: the
// query walks over all the rows that are done.
func (b *bench) awaitDone(after, delivered int64) {
	var before, still int64
	b.await(5*time.Minute, func() bool {
		now := b.simulator.Delivered()
		still++
		if now != before {
			before, still = now, 0
		}
		if now < delivered && still%50 != 49 {
			return false
		}
		return b.done(after)
	})
}

func (b *bench) awaitDelivered(n int) {
	b.await(time.Minute, func() bool { return b.simulator.Delivered() >= int64(n) })
}

// done looks backwards, since the last rows are done last. By the other index it would read what is
// due next week.
func (b *bench) done(after int64) bool {
	return b.db.Count(`
		SELECT COUNT(*)
		  FROM (SELECT id
		          FROM send_request FORCE INDEX (PRIMARY)
		         WHERE id > ? AND status = 'pending'
		         ORDER BY id DESC
		         LIMIT 1) one`, after) == 0
}

const insertQuery = `INSERT INTO send_request (mini_openid, template, data) VALUES (?, ?, ?)`

// latencies inserts single rows at random moments and returns, sorted, the times from just before
// the INSERT to the moment when the simulator has read the request; both clocks are this machine's.
func (b *bench) latencies(kind string, n, priority int) []time.Duration {
	insert := b.db.Prepared(
		`INSERT INTO send_request (mini_openid, template, data, priority) VALUES (?, ?, ?, ?)`)
	last := b.lastID()
	begun := make(map[string]time.Time, n)
	for i := range n {
		b.Sleep(20*time.Millisecond + rand.N(180*time.Millisecond))
		begun[order(kind, i)] = time.Now()
		insert(b.users[i%len(b.users)].OpenID, harness.Template, message(kind, i), priority)
	}
	b.awaitDone(last, 0)
	var latencies []time.Duration
	for _, m := range b.simulator.Messages() {
		if begin, ok := begun[checker.Order(m.Data)]; ok {
			latencies = append(latencies, m.Time.Sub(begin))
		}
	}
	if len(latencies) != n {
		b.Fatalf("%d of %d single messages were delivered", len(latencies), n)
	}
	slices.Sort(latencies)
	return latencies
}

func (b *bench) recordMillis(name string, sorted []time.Duration, q float64) {
	b.record(name, float64(harness.Quantile(sorted, q).Microseconds())/1000)
}
