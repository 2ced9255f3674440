package sender

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
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

// quotaAgain is how soon an account is tried again that has no quota in the first hour of a day.
const quotaAgain = 10 * time.Minute

// probeEvery is how often a stopped account is tried again.
const probeEvery = 5 * time.Minute

// pauseState is the account's pause as this instance, its only claimer, knows it.
type pauseState struct {
	mu      sync.Mutex
	until   time.Time
	probe   bool      // the pause is over, but not yet known to be
	out     bool      // the one message that finds it out is on its way
	misses  int       // failed connections in a row
	alarmed string    // the reason that has been logged
	row     *pauseRow // as account_state has it, or is to have it; nil: nothing
	unsaved bool      // account_state does not have it yet
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

// probeOut tells whether nothing may go because one message is finding out whether the account works again.
func (p *pauseState) probeOut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.probe && p.out
}

// launch notes that a message goes out, and tells whether it is the one that finds out.
func (p *pauseState) launch() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = p.out || p.probe
	return p.probe
}

// landed notes that the message that was to find out has come to something.
func (p *pauseState) landed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = false
}

// loadState takes over the pause and the gates that the account's last claimer stored, and forgets what this
// instance knew of the day's budget when it had the account last.
func (w *worker) loadState(ctx context.Context) error {
	rows, err := w.svc.store.loadPauses(ctx, w.account.AppID)
	if err != nil {
		return err
	}
	w.pause.load(w, rows)
	w.gates.load(w, rows)
	w.budget.forget()
	return nil
}

func (p *pauseState) load(w *worker, rows []pauseRow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until, p.probe, p.out, p.alarmed, p.row, p.unsaved = time.Time{}, false, false, "", nil, false
	w.metric(w.svc.metrics.paused, 0)
	for _, row := range rows {
		if row.Scope != scopeSend {
			continue
		}
		w.metric(w.svc.metrics.paused, 1)
		p.row, p.alarmed, p.probe = &row, row.Reason, true
		p.until = w.svc.cfg.Now().Add(row.remaining())
	}
}

// pauseAccount stops the account and gives the row back without counting the attempt: whatever is wrong
// would have met any other message too.
func (w *worker) pauseAccount(j job, r result, we *wechat.Error, kind pauseKind) result {
	w.beginPause(kind, we)
	back := j.row.release(0)
	back.reason, back.errcode, back.errmsg = r.reason, r.errcode, r.errmsg
	return back
}

func (w *worker) beginPause(kind pauseKind, we *wechat.Error) {
	if stored := w.pause.begin(w, kind, we); stored {
		w.writePause()
	}
}

// begin tells whether account_state is to have the pause.
func (p *pauseState) begin(w *worker, kind pauseKind, we *wechat.Error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := w.svc.cfg.Now()
	if now.Before(p.until) {
		return false // many POSTs were in flight, and each of them meets the same answer
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
	w.metric(w.svc.metrics.paused, 1)
	if kind == pauseReach {
		return false
	}
	p.row, p.unsaved = newPauseRow(we), true
	return true
}

func newPauseRow(we *wechat.Error) *pauseRow {
	return &pauseRow{
		Reason:  string(we.Reason),
		ErrCode: sql.NullInt64{Int64: int64(boundCode(we.Code)), Valid: we.Code != 0},
		ErrMsg:  sql.NullString{String: clip(we.Message, 1000), Valid: we.Message != ""},
	}
}

// reportSuccess ends a pause: WeChat took a message, or refused one for a reason of its own.
func (w *worker) reportSuccess() {
	if stored := w.pause.end(w); stored {
		w.writePause()
	}
}

// end tells whether account_state had the pause.
func (p *pauseState) end(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.probe || w.svc.cfg.Now().Before(p.until) {
		return false // nothing to end, or an answer to a POST that began before the pause
	}
	stored := p.row != nil
	stored = stored || p.unsaved
	p.probe, p.misses, p.row, p.alarmed, p.unsaved = false, 0, nil, "", stored
	w.log.Info("sending goes on")
	w.metric(w.svc.metrics.paused, 0)
	return stored
}

// writePause brings account_state to what is known now. The state itself is not locked meanwhile: a row that an
// operator's transaction holds must not stop whoever looks whether the account is paused.
func (w *worker) writePause() {
	w.writing.Lock()
	defer w.writing.Unlock()
	p := &w.pause
	p.mu.Lock()
	row, until := p.row, p.until
	p.mu.Unlock()
	err := w.writeState(scopeSend, row, until)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.row == row {
		p.unsaved = err != nil
	}
}

// writeState stores the row, or removes it. What cannot be written holds in memory all the same, and is tried again
// by heedState.
func (w *worker) writeState(scope string, row *pauseRow, until time.Time) error {
	err := database.Detached(context.Background(), func(ctx context.Context) error {
		if row == nil {
			return w.svc.store.clearPause(ctx, w.account.AppID, scope)
		}
		stored := *row
		stored.Remaining = sql.NullInt64{Int64: until.Sub(w.svc.cfg.Now()).Microseconds(), Valid: true}
		return w.svc.store.savePause(ctx, w.account.AppID, scope, stored)
	})
	if err != nil {
		w.log.Error("writing the account's state", "scope", scope, "err", err)
	}
	return err
}

// heedState ends the pause, and opens the gates, whose row somebody has deleted from account_state: an operator
// who has mended the cause, or had the quota cleared, need not wait for the next probe. What could not be written
// before is written now.
func (w *worker) heedState(ctx context.Context) error {
	stored, unsaved := w.pause.storing()
	if unsaved {
		w.writePause()
	}
	for _, id := range w.gates.unsaved() {
		w.writeGate(id)
	}
	if !stored && !w.gates.any() {
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
	if !kept[scopeSend] {
		w.pause.removed(w.svc.cfg.Now())
	}
	w.gates.removed(kept)
	return nil
}

// storing tells whether account_state has the pause, or is to have it, and whether it lags behind.
func (p *pauseState) storing() (stored, unsaved bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.row != nil, p.unsaved
}

// removed ends a pause whose row has been deleted: one message finds out.
func (p *pauseState) removed(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.row != nil && !p.unsaved && now.Before(p.until) {
		p.until = now
	}
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

func (w *worker) pauseEnd(kind pauseKind, now time.Time, misses int) time.Time {
	switch kind {
	case pauseReach:
		return now.Add(backoff(misses, time.Second, 30*time.Second))
	case pauseToken:
		return now.Add(30 * time.Second)
	case pauseMinute:
		return now.Truncate(time.Minute).Add(time.Minute + time.Second)
	case pauseDay:
		// Just after the reset the answer may be of the day before, and nobody knows when WeChat's own day begins.
		reset := wechat.QuotaReset(now.Add(-dayMargin), w.svc.cfg.QuotaResetHour)
		if late := reset.Add(-23 * time.Hour); now.Before(late) {
			return now.Add(quotaAgain)
		}
		return reset
	}
	return now.Add(probeEvery)
}
