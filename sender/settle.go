package sender

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// result is what one claim of a row came to.
type result struct {
	id        int64
	token     string
	status    status
	reason    string        // "": none
	errcode   int           // 0: none
	errmsg    string        // "": none
	refund    bool          // no attempt was made: it is not counted
	delay     time.Duration // pending: until the next attempt; waiting: until the wait ends
	uncertain bool          // the attempt may have delivered the message
	doubtful  bool          // an earlier attempt may have
	posted    bool          // a POST was made that counts for the day's budget, or may
	msgid     int64
	openid    string // whom it was sent to, or may have been
	warning   string // what was changed of the message, or is doubtful about it
}

// end is a result without an attempt.
func (r request) end(s status, reason, text string) result {
	return result{id: r.ID, token: r.token, status: s, reason: reason, errmsg: text, refund: true, doubtful: r.UncertainAge.Valid}
}

// final is the status that is written: what may have been delivered is never called failed or expired, as its
// producer would send it again.
func (r result) final() status {
	if r.doubtful && (r.status == statusFailed || r.status == statusExpired) {
		return statusUnknown
	}
	return r.status
}

// release gives a row back as if it had not been claimed, due again after delay.
func (r request) release(delay time.Duration) result {
	return result{id: r.ID, token: r.token, status: statusPending, refund: true, delay: delay, doubtful: r.UncertainAge.Valid}
}

const (
	// settleMost results go into one statement.
	settleMost = 800
	// settleLinger is how long the first result of a batch waits for others. Nobody waits for it: the
	// message has been sent.
	settleLinger = 20 * time.Millisecond
	// settleGrace is how long results may still be written after the sender was told to stop.
	settleGrace = 10 * time.Second
)

// settler writes the results of one account in batches. What it knows of a sent message is in no other place, so
// it tries for as long as the database is away, and gives up only a while after the service was told to stop.
type settler struct {
	w        *worker
	open     []result // not written yet
	held     []result // the same, of rows that somebody else's transaction holds
	heldAt   time.Time
	failures int
	locked   bool      // the last batch had to leave such rows
	giveUp   time.Time // zero: not told to stop
}

// settleRetry is how soon what could not be written is tried again.
const settleRetry = 200 * time.Millisecond

// run settles until the channel is closed and everything is written. ctx is the service's: the end of the
// account's lease is no reason to forget outcomes, since each is fenced by its row.
func (s *settler) run(ctx context.Context, results <-chan result) {
	for more := true; more || len(s.open)+len(s.held) > 0; {
		if more {
			more = s.collect(results)
		} else {
			wait(context.WithoutCancel(ctx), settleRetry)
		}
		s.flush(ctx)
		if len(s.open)+len(s.held) > 0 && s.hopeless(ctx) {
			s.w.log.Error("outcomes could not be written before the stop; the rows fall due again by themselves",
				"outcomes", describe(append(s.open, s.held...)))
			s.open, s.held = nil, nil
			for range results { // whatever still comes is lost alike: the senders must not hang
			}
			return
		}
	}
}

// collect adds results to those that are open, until there is a batch or for a short while. It tells whether
// the channel is still open.
func (s *settler) collect(results <-chan result) bool {
	linger := settleLinger
	switch {
	case s.failures > 0 || len(s.open) >= settleMost:
		// The senders wait meanwhile: nothing new is sent whose outcome could not be written either.
		wait(context.Background(), settleRetry)
		return true
	case len(s.open)+len(s.held) > 0:
		linger = settleRetry
	default:
		first, ok := <-results
		if !ok {
			return false
		}
		s.open = append(s.open, first)
	}
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for len(s.open) < settleMost {
		select {
		case r, ok := <-results:
			if !ok {
				return false
			}
			s.open = append(s.open, r)
		case <-timer.C:
			return true
		}
	}
	return true
}

// flush writes what is open and keeps what could not be written.
func (s *settler) flush(ctx context.Context) {
	s.flushHeld(ctx)
	batch := s.open[:min(len(s.open), settleMost)]
	if len(batch) == 0 {
		return
	}
	var done settled
	err := database.Detached(ctx, func(ctx context.Context) (err error) {
		done, err = s.w.svc.store.settle(ctx, batch, s.locked)
		return err
	})
	s.written(done)
	if err != nil {
		if s.failures++; s.failures == 1 {
			s.w.log.Error("settling requests, trying again until it works", "rows", len(batch), "err", err)
		}
		// A part of the batch may have been written.
		s.open = slices.DeleteFunc(s.open, func(r result) bool { return slices.Contains(done.written, r) })
		return
	}
	s.failures, s.locked = 0, len(done.locked) > 0
	s.open, s.held = s.open[len(batch):], append(s.held, done.locked...)
}

// heldEvery is how often the results of rows are tried that somebody else's transaction holds.
const heldEvery = time.Second

// flushHeld tries some of those: they must not keep the others waiting.
func (s *settler) flushHeld(ctx context.Context) {
	now := s.w.svc.cfg.Now()
	if since := now.Sub(s.heldAt); len(s.held) == 0 || since >= 0 && since < heldEvery {
		return
	}
	s.heldAt = now
	batch := s.held[:min(len(s.held), settleMost)]
	var done settled
	err := database.Detached(ctx, func(ctx context.Context) (err error) {
		done, err = s.w.svc.store.settle(ctx, batch, true)
		return err
	})
	s.written(done)
	left := slices.DeleteFunc(slices.Clone(batch), func(r result) bool { return slices.Contains(done.written, r) })
	s.held = append(s.held[len(batch):], left...)
	if err != nil && s.failures == 0 {
		s.w.log.Warn("settling requests that another transaction held", "rows", len(left), "err", err)
	}
}

// written counts results that have been written.
func (s *settler) written(done settled) {
	if done.overtaken > 0 {
		s.w.log.Warn("settling found rows that another instance has claimed since", "rows", done.overtaken)
	}
	posted := 0
	for _, r := range done.written {
		s.w.svc.metrics.count(s.w.account.AppID, r)
		posted += flag(r.posted)
		if r.status == statusPending && (r.uncertain || r.doubtful) {
			s.w.again.add(r.id, s.w.svc.cfg.Now().Add(r.delay))
		}
	}
	s.w.countDay(posted)
}

func (s *settler) hopeless(ctx context.Context) bool {
	now := s.w.svc.cfg.Now()
	if ctx.Err() == nil {
		return false
	}
	if s.giveUp.IsZero() {
		s.giveUp = now.Add(settleGrace)
	}
	return now.After(s.giveUp)
}

// describe lists a batch for the log: ids and outcomes, no personal data.
func describe(batch []result) string {
	var b strings.Builder
	for i, r := range batch {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%d:%s", r.id, r.final())
	}
	return b.String()
}

// settled is what became of a batch.
type settled struct {
	written   []result
	locked    []result // rows that somebody else's transaction holds: to be tried again
	overtaken int64    // rows that another claimer has taken since
}

// settle writes results. careful leaves out the rows that another transaction holds, as it turns out to be needed
// by itself where the plain statement has to wait for one. What is returned with an error has been written all the
// same.
func (s store) settle(ctx context.Context, batch []result, careful bool) (settled, error) {
	var plain, others []result
	for _, r := range batch {
		if r.plainlySent() {
			plain = append(plain, r)
		} else {
			others = append(others, r)
		}
	}
	done, err := s.settlePart(ctx, plain, careful)
	if err != nil {
		return done, err
	}
	rest, err := s.settlePart(ctx, others, careful)
	return settled{
		written: append(done.written, rest.written...), locked: append(done.locked, rest.locked...),
		overtaken: done.overtaken + rest.overtaken,
	}, err
}

// settlePart writes results that are all plainly sent, or none of which is.
func (s store) settlePart(ctx context.Context, part []result, careful bool) (done settled, err error) {
	if len(part) == 0 {
		return settled{}, nil
	}
	byID := make(map[int64]result, len(part))
	ids := make([]int64, len(part))
	for i, r := range part {
		ids[i], byID[r.id] = r.id, r
	}
	locked, err := s.onFree(ctx, ids, careful, func(ctx context.Context, db sqlx.ExecerContext, ids []int64) error {
		rows := make([]result, len(ids))
		for i, id := range ids {
			rows[i] = byID[id]
		}
		query, args := settleStatement(len(rows)), settleArgs(rows)
		if rows[0].plainlySent() {
			query, args = sentStatement(len(rows)), sentArgs(rows)
		}
		n, err := s.tryExec(ctx, db, query, args...)
		if err == nil {
			done = settled{written: rows, overtaken: int64(len(rows)) - n}
		}
		return err
	})
	if err != nil {
		return settled{}, err
	}
	for _, id := range locked {
		done.locked = append(done.locked, byID[id])
	}
	return done, nil
}

// plainlySent tells whether a result is the usual one, for which a shorter statement does.
func (r result) plainlySent() bool {
	return r.status == statusSent && r.warning == "" && r.reason == "" && r.msgid != 0 && r.openid != ""
}

// sentStatement is settleStatement for messages that were sent, without anything to be said about them. The server
// reads a third of the text, which is a tenth of a message's cost there.
func sentStatement(rows int) string {
	const first, next = `SELECT ? AS id, ? AS msgid, ? AS openid`, ` UNION ALL SELECT ?, ?, ?`
	return `
		UPDATE (` + first + strings.Repeat(next, rows-1) + `) s
		  STRAIGHT_JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = s.id
		   SET r.status       = 'sent',
		       r.reason       = NULL,
		       r.errcode      = NULL,
		       r.errmsg       = NULL,
		       r.finished_at  = CURRENT_TIMESTAMP(3),
		       r.msgid        = s.msgid,
		       r.sent_openid  = s.openid,
		       r.channel      = '` + channelTemplate + `',
		       r.lease        = NULL
		 WHERE r.status IN ('pending', 'waiting', 'unknown')`
}

func sentArgs(batch []result) []any {
	args := make([]any, 0, len(batch)*3)
	for _, r := range batch {
		args = append(args, r.id, r.msgid, r.openid)
	}
	return args
}

// settleStatement writes a result only where the row still carries the claim's token; but that a message was sent
// is true whoever has claimed its row since.
func settleStatement(rows int) string {
	// A derived table instead of CASE chains: the statement grows with the rows, not with their square. It leads
	// the join, so that no row is locked, or waited for, but those of the batch.
	const head = `
		UPDATE (`
	const row = `SELECT ? AS id, ? AS token, ? AS status, ? AS reason, ? AS errcode, ? AS errmsg, ? AS refund,
		             ? AS delay, ? AS uncertain, ? AS msgid, ? AS openid, ? AS channel, ? AS warning`
	const next = ` UNION ALL SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?`
	const tail = `) s
		  STRAIGHT_JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = s.id
		   SET r.uncertain_at = CASE WHEN s.uncertain = 1 THEN COALESCE(r.uncertain_at, r.attempted_at)
		                             ELSE r.uncertain_at END,
		       r.status       = s.status,
		       r.reason       = s.reason,
		       r.errcode      = s.errcode,
		       r.errmsg       = s.errmsg,
		       r.warning      = CASE WHEN r.warning LIKE '` + sqlSentAgain + `%' OR r.warning LIKE '` + sqlSentWithdrawn + `%' THEN r.warning
		                             ELSE COALESCE(s.warning, r.warning) END,
		       r.attempts     = r.attempts - s.refund,
		       r.due_at       = CASE WHEN s.status NOT IN ('pending', 'waiting') THEN r.due_at
		                             WHEN r.expires_at < CURRENT_TIMESTAMP(3) + INTERVAL s.delay MICROSECOND THEN r.expires_at
		                             ELSE CURRENT_TIMESTAMP(3) + INTERVAL s.delay MICROSECOND END,
		       r.finished_at  = CASE WHEN s.status IN ('pending', 'waiting') THEN NULL ELSE CURRENT_TIMESTAMP(3) END,
		       r.msgid        = s.msgid,
		       r.sent_openid  = COALESCE(s.openid, r.sent_openid),
		       r.channel      = s.channel,
		       r.lease        = NULL
		 WHERE (r.status = 'pending' AND r.lease = s.token)
		    OR (s.status = 'sent' AND r.status IN ('pending', 'waiting', 'unknown'))`
	return head + row + strings.Repeat(next, rows-1) + tail
}

func settleArgs(batch []result) []any {
	args := make([]any, 0, len(batch)*13)
	for _, r := range batch {
		args = append(args, r.id, r.token, r.final(), database.Null(r.reason), database.Null(r.errcode), database.Null(clip(r.errmsg, 1000)),
			flag(r.refund), r.delay.Microseconds(), flag(r.uncertain), database.Null(r.msgid), database.Null(r.openid), database.Null(r.channel()),
			database.Null(clip(r.warning, 1000)))
	}
	return args
}

// channelTemplate is send_request.channel of a message that went out as the official account's template
// message.
const channelTemplate = "oa_template"

func (r result) channel() string {
	if r.status == statusSent {
		return channelTemplate
	}
	return ""
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
