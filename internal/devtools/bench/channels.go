package main

import (
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

const (
	// granted is how many messages WeChat takes for each person; the ledger counts fewer.
	granted = 1000
	// moveShare of the mini program's users do not follow the official account.
	moveShare = 0.25
)

// mini is how the mini program sends beside the official account.
func mini() *harness.Mini { return &harness.Mini{Grants: "reports"} }

// prepareChannels fills the map, for a daemon that sends by both channels.
func (b *bench) prepareChannels() {
	b.users = b.simulator.MiniUsers()
	b.db.InsertMiniUsers(b.users)
	b.sweep()
}

// accept adds acceptances of every user to the ledger, as pushes would, each of its own second.
func (b *bench) accept(times int) {
	for range times {
		b.accepted++
		b.db.Do(`
			INSERT INTO grant_event (appid, openid, template_id, event_key, kind, source, happened_at)
			SELECT appid, openid, ?, ?, 'accept', 'event', CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND
			  FROM mini_user
			 WHERE appid = ?`, harness.MiniTemplateID(), order("popup", b.accepted), granted-b.accepted,
			harness.MiniAppID)
		b.db.Do(`
			INSERT INTO subscription_grant (appid, openid, template_id, kind, remaining, accepted_at)
			SELECT appid, openid, ?, 'one_time', 1, CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND
			  FROM mini_user
			 WHERE appid = ?
			ON DUPLICATE KEY UPDATE remaining = remaining + 1, accepted_at = VALUES(accepted_at)`,
			harness.MiniTemplateID(), granted-b.accepted, harness.MiniAppID)
	}
}

// subscribe measures both channels in one run, one after the other: a template message costs no
// ledger, a subscribe message two entries of it and an attempt.
func (b *bench) subscribe() {
	n := b.requests / 2
	var template, subscribe []float64
	var peak int64
	var spoiled checker.Verdict
	for round := range sendRounds {
		b.Step("round %d of %d: %s template messages, then as many subscribe messages", round+1,
			sendRounds, harness.Count(n))
		b.clear()
		template = append(template, b.drain(n, concurrency).rate)
		b.clear()
		b.accept(1)
		d := b.drainFrom(n, concurrency, b.insertSubscribes)
		subscribe, peak = append(subscribe, d.rate), max(peak, d.peak)
		v := b.checkChannels(n)
		spoiled.Wrong += v.Wrong
		spoiled.Duplicates += v.Duplicates
		spoiled.Missing += v.Missing
	}
	b.record("subscribe_send", median(subscribe))
	b.record("subscribe_template", median(template))
	b.record("subscribe_ratio", median(subscribe)/median(template))
	b.recordMemory("subscribe_memory", peak)
	b.recordVerdict("subscribe", spoiled)
}

// insertSubscribes is insertRequests for the mini program.
func (b *bench) insertSubscribes(n int) {
	b.db.Insert("send_request (appid, unionid, openid, template, data)", n, func(i int) []any {
		unionid, openid := any(nil), any(b.users[i].OpenID)
		if i%2 == 1 {
			unionid, openid = b.users[i].UnionID, nil
		}
		return []any{harness.MiniAppID, unionid, openid, harness.Template, message("B", i)}
	})
}

// checkChannels is check for rows that either account may have sent.
func (b *bench) checkChannels(n int) checker.Verdict {
	messages := append(b.simulator.Messages(), b.simulator.MessagesOf(harness.MiniAppID)...)
	return checkBacklog(b.users[:n], messages, checker.ReadRows(b.database.Reader(), "send_request"))
}

// mixed measures a campaign whose rows leave the account to the alias. A part of the people does not
// follow the official account: their rows are moved to the mini program.
func (b *bench) mixed() {
	n := campaignTimes * b.requests
	b.Step("mixed: %s rows of an alias with both channels; one in %.0f people does not follow",
		harness.Count(n), 1/moveShare)
	for _, person := range b.simulator.Leave(int(moveShare * float64(b.requests))) {
		// A sweep stops where so many are gone at once.
		b.db.Do(`UPDATE follower SET subscribed = 0 WHERE appid = ? AND openid = ?`, harness.AppID,
			b.simulator.Truth(person).OpenID)
	}
	b.accept(campaignTimes)
	b.insertCrowd(dueRows(n))
	b.simulator.Reset()
	cpu := b.watchCPU()
	begin := time.Now()
	b.startDaemon(unlimited, concurrency)
	b.await(40*time.Minute, func() bool {
		return b.simulator.Delivered() >= int64(n) || b.open() == 0
	})
	took := time.Since(begin)
	cpu = cpu.and("daemon", b.daemon.Pid())
	delivered := b.simulator.Stats().Delivered
	b.Say("%s template messages, %s subscribe messages in %.0f s; processor seconds: %s",
		harness.Count(delivered[harness.AppID]), harness.Count(delivered[harness.MiniAppID]),
		took.Seconds(), cpu)
	b.record("mixed_send", float64(n)/took.Seconds())
	b.recordMemory("mixed_memory", b.daemon.PeakMemory())
	b.stopDaemon()
	b.record("mixed_moved", float64(b.db.Count(
		`SELECT COUNT(*) FROM send_request WHERE fallback_from IS NOT NULL AND status = 'sent'`)))
	b.record("mixed_missing", float64(int64(n)-b.simulator.Delivered()))
	b.record("mixed_unsent", float64(b.db.Count(
		`SELECT COUNT(*) FROM send_request WHERE status <> 'sent'`)))
}

// open is how many rows have not ended.
func (b *bench) open() int64 {
	return b.db.Count(
		`SELECT COUNT(*) FROM send_request WHERE status IN ('pending', 'waiting')`)
}
