package sender

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

// pauseKind is why an account stands still.
type pauseKind int

const (
	pauseReach  pauseKind = iota // WeChat cannot be reached: seconds, in memory only
	pauseToken                   // a renewed token was refused too: half a minute, it has been seen to pass
	pauseMinute                  // 45011: until the next minute
	pauseDay                     // 45009: until the quota of the day resets
	pauseConfig                  // a person has to act: looked at again every few minutes, with one message
)

// probeEvery is how often a stopped account is tried again.
const probeEvery = 5 * time.Minute

// pauseState is the account's pause as this instance, its only claimer, knows it.
type pauseState struct {
	mu      sync.Mutex
	until   time.Time
	reason  string // of the stored pause; "": none is stored
	probe   bool   // the pause is over, but not yet known to be
	misses  int    // failed connections in a row
	alarmed string // the reason that has been logged
}

func (p *pauseState) active(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.until)
}

func (p *pauseState) probing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.probe
}

// loadPause takes over the pause that the account's last claimer stored.
func (w *worker) loadPause(ctx context.Context) {
	row, err := w.svc.store.loadPause(ctx, w.account.AppID)
	if err != nil {
		w.log.Error("reading the account's pause", "err", err)
		return
	}
	p := &w.pause
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until, p.probe, p.reason, p.alarmed = time.Time{}, false, "", ""
	paused := w.svc.metrics.paused.WithLabelValues(w.account.AppID)
	if row == nil {
		paused.Set(0)
		return
	}
	paused.Set(1)
	p.reason, p.alarmed, p.probe = row.Reason, row.Reason, true
	p.until = w.svc.cfg.Now().Add(time.Duration(row.Remaining.Int64) * time.Microsecond)
}

// pauseAccount stops the account and gives the row back without counting the attempt: whatever is wrong
// would have met any other message too.
func (w *worker) pauseAccount(j job, r result, we *wechat.Error, kind pauseKind) result {
	w.pause.begin(w, kind, we)
	back := j.row.release(0)
	back.reason, back.errcode, back.errmsg = r.reason, r.errcode, r.errmsg
	return back
}

func (p *pauseState) begin(w *worker, kind pauseKind, we *wechat.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := w.svc.cfg.Now()
	if now.Before(p.until) {
		return // many POSTs were in flight, and each of them meets the same answer
	}
	if kind == pauseReach {
		p.misses++
	}
	p.until = pauseEnd(kind, now, p.misses)
	p.probe = true
	reason := string(we.Reason)
	if p.alarmed != reason {
		w.log.Error("sending is paused", "reason", reason, "until", p.until.Format(time.RFC3339), "err", we,
			"cure", wechat.Explain(we.Code))
		p.alarmed = reason
	}
	w.svc.metrics.paused.WithLabelValues(w.account.AppID).Set(1)
	if kind == pauseReach {
		return
	}
	p.reason = reason
	row := pauseRow{
		Reason:    reason,
		ErrCode:   sql.NullInt64{Int64: int64(we.Code), Valid: we.Code != 0},
		ErrMsg:    sql.NullString{String: clip(we.Message, 1000), Valid: we.Message != ""},
		Remaining: sql.NullInt64{Int64: p.until.Sub(now).Microseconds(), Valid: true},
	}
	err := detached(context.Background(), func(ctx context.Context) error {
		return w.svc.store.savePause(ctx, w.account.AppID, row)
	})
	if err != nil {
		w.log.Error("saving the account's pause", "err", err)
	}
}

// reportSuccess ends a pause: a message went through.
func (p *pauseState) reportSuccess(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.probe {
		return
	}
	stored, now := p.reason != "", w.svc.cfg.Now()
	if now.Before(p.until) {
		return // an answer to a POST that began before the pause
	}
	p.probe, p.misses, p.reason, p.alarmed = false, 0, "", ""
	w.log.Info("sending goes on")
	w.svc.metrics.paused.WithLabelValues(w.account.AppID).Set(0)
	if !stored {
		return
	}
	err := detached(context.Background(), func(ctx context.Context) error {
		return w.svc.store.clearPause(ctx, w.account.AppID)
	})
	if err != nil {
		w.log.Error("clearing the account's pause", "err", err)
	}
}

func pauseEnd(kind pauseKind, now time.Time, misses int) time.Time {
	switch kind {
	case pauseReach:
		return now.Add(backoff(misses, time.Second, 30*time.Second))
	case pauseToken:
		return now.Add(30 * time.Second)
	case pauseMinute:
		return now.Truncate(time.Minute).Add(time.Minute + time.Second)
	case pauseDay:
		return wechat.QuotaReset(now)
	}
	return now.Add(probeEvery)
}
