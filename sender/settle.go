package sender

import (
	"context"
	"fmt"
	"strings"
	"time"

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
	msgid     int64
	openid    string // whom it was sent to
}

// end is a result without an attempt.
func (r request) end(s status, reason, text string) result {
	return result{id: r.ID, token: r.token, status: s, reason: reason, errmsg: text, refund: true}
}

// release gives a row back as if it had not been claimed, due again after delay.
func (r request) release(delay time.Duration) result {
	return result{id: r.ID, token: r.token, status: statusPending, refund: true, delay: delay}
}

const (
	// settleMost results go into one statement.
	settleMost = 500
	// settleLinger is how long the first result of a batch waits for others. Nobody waits for it: the
	// message has been sent.
	settleLinger = 20 * time.Millisecond
	// settleGrace is how long results may still be written after the sender was told to stop.
	settleGrace = 10 * time.Second
)

// detached runs fn with a context that outlives ctx by a bounded time, so that a stop does not lose what
// is known already.
func detached(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleGrace)
	defer cancel()
	return fn(ctx)
}

// settleAll writes results in batches until the channel is closed.
func (w *worker) settleAll(ctx context.Context, results <-chan result) {
	for first := range results {
		batch := append(make([]result, 0, settleMost), first)
		linger := time.NewTimer(settleLinger)
	collect:
		for len(batch) < settleMost {
			select {
			case r, ok := <-results:
				if !ok {
					break collect
				}
				batch = append(batch, r)
			case <-linger.C:
				break collect
			}
		}
		linger.Stop()
		w.settle(ctx, batch)
	}
}

// settle writes one batch, and tries again for as long as the database is away: what is known of a sent
// message is in no other place. Only after a stop it gives up, and says which rows it leaves.
func (w *worker) settle(ctx context.Context, batch []result) {
	var giveUp time.Time
	for try := 1; ; try++ {
		var n int64
		err := detached(ctx, func(ctx context.Context) (err error) {
			n, err = w.svc.store.settle(ctx, batch)
			return err
		})
		if err == nil {
			if missed := int64(len(batch)) - n; missed > 0 {
				w.log.Warn("settling found rows that another instance has claimed since", "rows", missed)
			}
			for _, r := range batch {
				w.svc.metrics.count(w.account.AppID, r)
			}
			return
		}
		if try == 1 {
			w.log.Error("settling requests, trying again until it works", "rows", len(batch), "err", err)
		}
		if now := w.svc.cfg.Now(); ctx.Err() != nil {
			if giveUp.IsZero() {
				giveUp = now.Add(settleGrace)
			}
			if now.After(giveUp) {
				w.log.Error("outcomes could not be written before the stop; the rows fall due again by themselves",
					"outcomes", describe(batch))
				return
			}
		}
		wait(context.WithoutCancel(ctx), backoff(try, 100*time.Millisecond, 2*time.Second))
	}
}

// describe lists a batch for the log: ids and outcomes, no personal data.
func describe(batch []result) string {
	var b strings.Builder
	for i, r := range batch {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%d:%s", r.id, r.status)
	}
	return b.String()
}

// settle writes results, each only if the row still carries the claim's token, and returns how many did.
func (s store) settle(ctx context.Context, batch []result) (int64, error) {
	// A derived table instead of CASE chains: the statement grows with the rows, not with their square.
	const head = `
		UPDATE send_request r
		  JOIN (`
	const row = `SELECT ? AS id, ? AS token, ? AS status, ? AS reason, ? AS errcode, ? AS errmsg, ? AS refund,
		             ? AS delay, ? AS uncertain, ? AS msgid, ? AS openid, ? AS channel`
	const next = ` UNION ALL SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?`
	const tail = `) s ON s.id = r.id AND s.token = r.lease
		   SET r.uncertain_at = CASE WHEN s.uncertain = 1 THEN COALESCE(r.uncertain_at, r.attempted_at)
		                             ELSE r.uncertain_at END,
		       r.status       = s.status,
		       r.reason       = s.reason,
		       r.errcode      = s.errcode,
		       r.errmsg       = s.errmsg,
		       r.attempts     = r.attempts - s.refund,
		       r.due_at       = CASE WHEN s.status NOT IN ('pending', 'waiting') THEN r.due_at
		                             WHEN r.expires_at < CURRENT_TIMESTAMP(3) + INTERVAL s.delay MICROSECOND THEN r.expires_at
		                             ELSE CURRENT_TIMESTAMP(3) + INTERVAL s.delay MICROSECOND END,
		       r.finished_at  = CASE WHEN s.status IN ('pending', 'waiting') THEN NULL ELSE CURRENT_TIMESTAMP(3) END,
		       r.msgid        = s.msgid,
		       r.sent_openid  = s.openid,
		       r.channel      = s.channel,
		       r.lease        = NULL
		 WHERE r.status = 'pending'`
	args := make([]any, 0, len(batch)*12)
	for _, r := range batch {
		args = append(args, r.id, r.token, r.status, orNull(r.reason), orNull(r.errcode), orNull(clip(r.errmsg, 1000)),
			flag(r.refund), r.delay.Microseconds(), flag(r.uncertain), orNull(r.msgid), orNull(r.openid), orNull(r.channel()))
	}
	query := head + row + strings.Repeat(next, len(batch)-1) + tail
	var n int64
	err := database.Retry(ctx, func(ctx context.Context) error {
		res, err := s.db.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
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

func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}
