package main

import (
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const (
	// waitingTimes the requests wait for people who never appear.
	waitingTimes = 5
	// pushedFollows appear one after the other, sweptFollows in one sweep.
	pushedFollows = 50
	sweptFollows  = 1000
)

// sleepingRows wait for as many people, of whom every tenth must log in first.
func sleepingRows(n int) crowd {
	const person = `LEFT(SHA2(CONCAT(m.openid, RAND()), 256), 40)`
	const login = `CRC32(m.openid) % 10 = 0`
	return crowd{n: n, columns: "appid, mini_appid, mini_openid, unionid, status, reason, attempts, due_at",
		values: "'" + harness.AppID + "', CASE WHEN " + login + " THEN m.appid END, " +
			"CASE WHEN " + login + " THEN " + person + " END, " +
			"CASE WHEN " + login + " THEN NULL ELSE " + person + " END, " +
			"'waiting', 'not_following', 1, CURRENT_TIMESTAMP(3) + INTERVAL 3 DAY"}
}

// waiting measures what rows cost that wait while nobody appears, and how soon a row goes whose
// recipient does.
func (b *bench) waiting() {
	n := waitingTimes * b.requests
	b.Step("waiting: %s rows that wait for people who do not appear", harness.Count(n))
	b.insertCrowd(sleepingRows(n))
	settings := b.instance.Settings
	defer func() { b.instance.Settings = settings }()
	b.instance.Settings.Callback = b.FreeAddr()
	last, begin := b.lastID(), time.Now()
	b.startDaemon(unlimited, concurrency)
	// They are as an older version left them. The last one of the first walk is the last one.
	b.await(20*time.Minute, func() bool {
		return b.db.Count(`SELECT COUNT(*) FROM send_wait WHERE request_id = ?`, last) > 0
	})
	b.record("waiting_first_walk_seconds", time.Since(begin).Seconds())
	b.idleBesideWaiting()
	b.pushes()
	b.sweepOfWaiting()
}

// idleBesideWaiting measures what an idle daemon asks the server, and how many entries of indexes
// and tables that reads. The time holds six rounds of maintenance, each of which looks at one page of
// what waits: the slow walk is in the figures, and so is the reading of logins.
func (b *bench) idleBesideWaiting() {
	const watch = 2 * time.Minute
	b.Step("what the server reads in %s while nobody appears", watch)
	b.Sleep(5 * time.Second) // what the first walk began
	firstQueries, firstEntries := b.serverCounters()
	queries, entries := b.serverCounters()
	ownQueries, ownEntries := queries-firstQueries, entries-firstEntries // what a reading takes
	begin := time.Now()
	b.Sleep(watch)
	took := time.Since(begin).Seconds()
	queriesAfter, entriesAfter := b.serverCounters()
	b.record("waiting_queries", float64(queriesAfter-queries-ownQueries)/took)
	b.record("waiting_entries", float64(entriesAfter-entries-ownEntries)/took)
}

// absent lets n followers go, makes the map forget them, and inserts a row for each, which waits.
func (b *bench) absent(n int) (persons []int, after int64) {
	persons, after = b.simulator.Leave(n), b.lastID()
	people := make([]wechatsim.Identity, n)
	for i, person := range persons {
		people[i] = b.simulator.Truth(person)
		b.db.Do(`DELETE FROM follower WHERE appid = ? AND openid = ?`,
			harness.AppID, people[i].OpenID)
	}
	b.db.Insert("send_request (unionid, template, data)", n, func(i int) []any {
		return []any{people[i].UnionID, harness.Template, message("W", int(after)+i)}
	})
	b.await(time.Minute, func() bool { return b.stillWaiting(after) == int64(n) })
	return persons, after
}

func (b *bench) stillWaiting(after int64) int64 {
	return b.db.Count(`
		SELECT COUNT(*)
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id > ? AND status = 'waiting'`, after)
}

func (b *bench) pushes() {
	b.Step("%d people follow, which WeChat pushes", pushedFollows)
	persons, after := b.absent(pushedFollows)
	b.simulator.SetCallback(&wechatsim.Callback{
		URL:   "http://" + b.instance.Settings.Callback + "/wechat/" + harness.AppID,
		Token: harness.CallbackToken, AESKey: harness.CallbackKey, Secure: true,
	})
	var took []time.Duration
	for i, person := range persons {
		begin := time.Now()
		b.simulator.Follow(person)
		b.await(time.Minute, func() bool {
			return b.stillWaiting(after) == int64(len(persons)-i-1)
		})
		took = append(took, time.Since(begin))
	}
	b.simulator.SetCallback(&wechatsim.Callback{})
	slices.Sort(took)
	b.record("waiting_push_p50", harness.Quantile(took, 0.5).Seconds())
	b.record("waiting_push_max", took[len(took)-1].Seconds())
}

func (b *bench) sweepOfWaiting() {
	n := min(sweptFollows, b.requests/10)
	b.Step("%d people follow, whom a sweep finds", n)
	persons, after := b.absent(n)
	for _, person := range persons {
		b.simulator.Follow(person)
	}
	b.instance.Run("sync")
	b.await(time.Minute, func() bool { return b.stillWaiting(after) == 0 && b.done(after) })
	// From the moment that their page was stored to the claim, by the database's clock.
	worst := b.db.Count(`
		SELECT MAX(TIMESTAMPDIFF(MICROSECOND, f.info_at, r.attempted_at))
		  FROM send_request r
		  JOIN follower f ON f.appid = ? AND f.openid = r.sent_openid
		 WHERE r.id > ? AND r.status = 'sent'`, harness.AppID, after)
	sent := b.db.Count(`SELECT COUNT(*) FROM send_request WHERE id > ? AND status = 'sent'`, after)
	if sent != int64(n) {
		b.Fatalf("%d of %d released messages were sent", sent, n)
	}
	b.record("waiting_sweep_max", float64(worst)/1e6)
}
