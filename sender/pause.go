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

// quotaRetry is how soon an account is tried again that has no quota in the first hour of a day.
const quotaRetry = 10 * time.Minute

// probeInterval is how often a stopped account is tried again.
const probeInterval = 5 * time.Minute

// breaker is the account's pause as this instance, its only claimer, knows it.
type breaker struct {
	mu       sync.Mutex
	until    time.Time
	halfOpen bool      // the pause is over, but not yet known to be
	probing  bool      // the probe is on its way
	failures int       // failed connections in a row
	alarmed  string    // the reason that has been logged
	row      *pauseRow // as account_state has it, or is to have it; nil: nothing
	dirty    bool      // account_state does not have it yet
}

func (b *breaker) active(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Before(b.until)
}

func (b *breaker) isHalfOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.halfOpen
}

// probeInFlight reports whether nothing may go because one message is finding out whether the account works again.
func (b *breaker) probeInFlight() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.halfOpen && b.probing
}

// acquire notes that a message goes out, and reports whether it is the probe.
func (b *breaker) acquire() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = b.probing || b.halfOpen
	return b.halfOpen
}

// probeDone records that the probe has an outcome.
func (b *breaker) probeDone() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
}

// loadState takes over the pauses that the account's last claimer stored, and forgets what this
// instance knew of the day's budget when it had the account last.
func (a *account) loadState(ctx context.Context) error {
	rows, err := a.svc.store.loadPauses(ctx, a.cfg.AppID)
	if err != nil {
		return err
	}
	a.breaker.load(a, rows)
	a.templatePauses.load(a, rows)
	a.budget.forget()
	return nil
}

func (b *breaker) load(a *account, rows []pauseRow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until, b.halfOpen, b.probing, b.alarmed, b.row, b.dirty = time.Time{}, false, false, "", nil, false
	a.metric(a.svc.metrics.paused, 0)
	for _, row := range rows {
		if row.Scope != scopeSend {
			continue
		}
		a.metric(a.svc.metrics.paused, 1)
		b.row, b.alarmed, b.halfOpen = &row, row.Reason, true
		b.until = a.svc.cfg.Now().Add(row.remaining())
	}
}

// pauseAccount stops the account and gives the row back without counting the attempt: whatever is wrong
// would have met any other message too.
func (a *account) pauseAccount(j job, r result, we *wechat.Error, kind pauseKind) result {
	a.beginPause(kind, we)
	back := j.row.release(0)
	back.reason, back.errcode, back.errmsg = r.reason, r.errcode, r.errmsg
	return back
}

func (a *account) beginPause(kind pauseKind, we *wechat.Error) {
	if stored := a.breaker.begin(a, kind, we); stored {
		a.writePause()
	}
}

// begin reports whether account_state is to have the pause.
func (b *breaker) begin(a *account, kind pauseKind, we *wechat.Error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := a.svc.cfg.Now()
	if now.Before(b.until) {
		return false // many POSTs were in flight, and each of them meets the same answer
	}
	if kind == pauseReach {
		b.failures++
	}
	// As a duration from now: a clock that is set back must not make the pause longer.
	b.until = now.Add(a.pauseEnd(kind, now, b.failures).Sub(now))
	b.halfOpen = true
	reason := string(we.Reason)
	if b.alarmed != reason {
		a.log.Error("sending is paused", "reason", reason, "until", b.until.Format(time.RFC3339), "err", we,
			"cure", wechat.Explain(we.Code))
		b.alarmed = reason
	}
	a.metric(a.svc.metrics.paused, 1)
	if kind == pauseReach {
		return false
	}
	b.row, b.dirty = newPauseRow(we), true
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
func (a *account) reportSuccess() {
	if stored := a.breaker.end(a); stored {
		a.writePause()
	}
}

// end reports whether account_state had the pause.
func (b *breaker) end(a *account) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.halfOpen || a.svc.cfg.Now().Before(b.until) {
		return false // nothing to end, or an answer to a POST that began before the pause
	}
	stored := b.row != nil
	stored = stored || b.dirty
	b.halfOpen, b.failures, b.row, b.alarmed, b.dirty = false, 0, nil, "", stored
	a.log.Info("sending goes on")
	a.metric(a.svc.metrics.paused, 0)
	return stored
}

// writePause brings account_state to what is known now. The state itself is not locked meanwhile: a row that an
// operator's transaction holds must not stop whoever looks whether the account is paused.
func (a *account) writePause() {
	a.writing.Lock()
	defer a.writing.Unlock()
	b := &a.breaker
	b.mu.Lock()
	row, until := b.row, b.until
	b.mu.Unlock()
	err := a.writeState(scopeSend, row, until)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.row == row {
		b.dirty = err != nil
	}
}

// writeState stores the row, or removes it. What cannot be written holds in memory all the same, and is tried again
// by reloadState.
func (a *account) writeState(scope string, row *pauseRow, until time.Time) error {
	err := database.Detached(context.Background(), func(ctx context.Context) error {
		if row == nil {
			return a.svc.store.clearPause(ctx, a.cfg.AppID, scope)
		}
		stored := *row
		stored.Remaining = sql.NullInt64{Int64: until.Sub(a.svc.cfg.Now()).Microseconds(), Valid: true}
		return a.svc.store.savePause(ctx, a.cfg.AppID, scope, stored)
	})
	if err != nil {
		a.log.Error("writing the account's state", "scope", scope, "err", err)
	}
	return err
}

// reloadState ends the pauses whose row somebody has deleted from account_state: an operator
// who has mended the cause, or had the quota cleared, need not wait for the next probe. What could not be written
// before is written now.
func (a *account) reloadState(ctx context.Context) error {
	stored, dirty := a.breaker.storing()
	if dirty {
		a.writePause()
	}
	for _, id := range a.templatePauses.dirty() {
		a.writeTemplatePause(id)
	}
	if !stored && !a.templatePauses.any() {
		return nil
	}
	rows, err := a.svc.store.loadPauses(ctx, a.cfg.AppID)
	if err != nil {
		return err
	}
	kept := make(map[string]bool, len(rows))
	for _, row := range rows {
		kept[row.Scope] = true
	}
	if !kept[scopeSend] {
		a.breaker.removed(a.svc.cfg.Now())
	}
	a.templatePauses.removed(kept)
	return nil
}

// storing reports whether account_state has the pause, or is to have it, and whether it lags behind.
func (b *breaker) storing() (stored, dirty bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.row != nil, b.dirty
}

// removed ends a pause whose row has been deleted: one message finds out.
func (b *breaker) removed(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.row != nil && !b.dirty && now.Before(b.until) {
		b.until = now
	}
}

// since tells how long the account has been sending without a pause, at most since begin.
func (b *breaker) since(now, begin time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.After(begin) {
		begin = b.until
	}
	return now.Sub(begin)
}

func (a *account) pauseEnd(kind pauseKind, now time.Time, failures int) time.Time {
	switch kind {
	case pauseReach:
		return now.Add(backoff(failures, time.Second, 30*time.Second))
	case pauseToken:
		return now.Add(30 * time.Second)
	case pauseMinute:
		return now.Truncate(time.Minute).Add(time.Minute + time.Second)
	case pauseDay:
		// Just after the reset the answer may be of the day before, and nobody knows when WeChat's own day begins.
		reset := wechat.QuotaReset(now.Add(-dayMargin), a.svc.cfg.QuotaResetHour)
		if late := reset.Add(-23 * time.Hour); now.Before(late) {
			return now.Add(quotaRetry)
		}
		return reset
	}
	return now.Add(probeInterval)
}
