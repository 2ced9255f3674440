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

// loadState takes over the pause and the gates that the account's last claimer stored.
func (w *worker) loadState(ctx context.Context) {
	rows, err := w.svc.store.loadPauses(ctx, w.account.AppID)
	if err != nil {
		w.log.Error("reading the account's state", "err", err)
		return
	}
	w.pause.load(w, rows)
	w.gates.load(w, rows)
}

func (p *pauseState) load(w *worker, rows []pauseRow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until, p.probe, p.reason, p.alarmed = time.Time{}, false, "", ""
	paused := w.svc.metrics.paused.WithLabelValues(w.account.AppID)
	paused.Set(0)
	for _, row := range rows {
		if row.Scope != scopeSend {
			continue
		}
		paused.Set(1)
		p.reason, p.alarmed, p.probe = row.Reason, row.Reason, true
		p.until = w.svc.cfg.Now().Add(row.remaining())
	}
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
	// As a duration from now: a clock that is set back must not make the pause longer.
	p.until = now.Add(w.pauseEnd(kind, now, p.misses).Sub(now))
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
	row := newPauseRow(we, p.until.Sub(now))
	w.store("saving the account's pause", func(ctx context.Context) error {
		return w.svc.store.savePause(ctx, w.account.AppID, scopeSend, row)
	})
}

func newPauseRow(we *wechat.Error, d time.Duration) pauseRow {
	return pauseRow{
		Reason:    string(we.Reason),
		ErrCode:   sql.NullInt64{Int64: int64(boundCode(we.Code)), Valid: we.Code != 0},
		ErrMsg:    sql.NullString{String: clip(we.Message, 1000), Valid: we.Message != ""},
		Remaining: sql.NullInt64{Int64: d.Microseconds(), Valid: true},
	}
}

// heedState ends the pause, and opens the gates, whose row somebody has deleted from account_state: an operator
// who has mended the cause, or had the quota cleared, need not wait for the next probe.
func (w *worker) heedState(ctx context.Context) error {
	if !w.pause.stored() && !w.gates.any() {
		return nil
	}
	rows, err := w.svc.store.loadPauses(ctx, w.account.AppID)
	if err != nil {
		return err
	}
	kept := make(map[string]bool, len(rows))
	for _, row := range rows {
		kept[row.Scope] = true
	}
	if now := w.svc.cfg.Now(); !kept[scopeSend] {
		w.pause.endIfStored(now)
	}
	w.gates.keep(kept)
	return nil
}

func (p *pauseState) stored() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reason != ""
}

// since tells how long the account has been sending without a pause, at most since begin.
func (p *pauseState) since(now, begin time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until.After(begin) {
		begin = p.until
	}
	return now.Sub(begin)
}

func (p *pauseState) endIfStored(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason != "" && now.Before(p.until) {
		p.until = now
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
	w.store("clearing the account's pause", func(ctx context.Context) error {
		return w.svc.store.clearPause(ctx, w.account.AppID, scopeSend)
	})
}

func (w *worker) pauseEnd(kind pauseKind, now time.Time, misses int) time.Time {
	switch kind {
	case pauseReach:
		return now.Add(backoff(misses, time.Second, 30*time.Second))
	case pauseToken:
		return now.Add(30 * time.Second)
	case pauseMinute:
		return now.Truncate(time.Minute).Add(time.Minute + time.Second)
	case pauseDay:
		return wechat.QuotaReset(now, w.svc.cfg.QuotaResetHour)
	}
	return now.Add(probeEvery)
}
