package throttle

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// scopeOperator is account_state.scope of an account that an operator has paused;
	// scopeOperatorTemplate is followed by the id of a template that they have. Package requests
	// writes these rows. They stand beside those of WeChat's pauses: neither ends the other.
	scopeOperator         = "operator"
	scopeOperatorTemplate = "operator:"

	// stateAge is how old what is known of account_state may be when a claim is made. An idle
	// account reads it with the first claim, so that idleness costs no query.
	stateAge = time.Second
	// idleStateAge is how often Reload reads it where nothing is paused: only a gauge depends on
	// it.
	idleStateAge = time.Minute
)

// operatorPauses are what operators have paused. Only they end it.
type operatorPauses struct {
	log     *slog.Logger
	scopes  map[string]string // what they said, by scope
	endedAt time.Time         // when the account's own pause was seen to have ended; zero: never
}

func newOperatorPauses(log *slog.Logger) operatorPauses {
	return operatorPauses{log: log, scopes: make(map[string]string)}
}

// account reports whether the whole account is paused.
func (o *operatorPauses) account() bool {
	_, paused := o.scopes[scopeOperator]
	return paused
}

// allows reports whether messages of a template may go.
func (o *operatorPauses) allows(templateID string) bool {
	_, paused := o.scopes[scopeOperatorTemplate+templateID]
	return !paused && !o.account()
}

// load takes over what account_state says.
func (o *operatorPauses) load(rows []stateRow, now time.Time) {
	found := make(map[string]string)
	for _, row := range rows {
		if row.Scope == scopeOperator || strings.HasPrefix(row.Scope, scopeOperatorTemplate) {
			found[row.Scope] = row.ErrMsg
		}
	}
	for _, scope := range slices.Sorted(maps.Keys(found)) {
		if _, known := o.scopes[scope]; !known {
			o.log.Warn("an operator has paused sending", "scope", scope, "reason", found[scope])
		}
	}
	for _, scope := range slices.Sorted(maps.Keys(o.scopes)) {
		if _, there := found[scope]; !there {
			o.log.Info("an operator has ended their pause", "scope", scope)
		}
	}
	if _, there := found[scopeOperator]; o.account() && !there {
		o.endedAt = now
	}
	o.scopes = found
}

// Refresh reads what operators have changed in account_state, unless that has been read a moment
// ago. It is for the moment before a claim.
func (a *Account) Refresh(ctx context.Context) error {
	a.mu.Lock()
	age := a.cfg.Now().Sub(a.readAt)
	a.mu.Unlock()
	if age >= 0 && age < stateAge {
		return nil
	}
	return a.read(ctx)
}

// Held reports whether anything of the account is paused, so that somebody may end it.
func (a *Account) Held() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.breaker.row != nil || len(a.templates.paused) > 0 || len(a.operator.scopes) > 0
}

// read reads account_state. It ends the pauses whose row somebody has deleted: an operator who has
// fixed the cause, or had the quota cleared, need not wait for the next probe.
func (a *Account) read(ctx context.Context) error {
	a.mu.Lock()
	writes := a.writes
	a.mu.Unlock()
	rows, err := a.store.load(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.readAt = a.cfg.Now()
	a.operator.load(rows, a.readAt)
	a.showPauses()
	if a.writes != writes {
		return nil // a row that was written meanwhile may be missing
	}
	kept := maps.Clone(a.dirty) // those have not been there yet
	for _, row := range rows {
		kept[row.Scope] = true
	}
	if !kept[scopeSend] {
		a.breaker.removed(a.readAt)
	}
	a.templates.removed(kept)
	return nil
}

// showPauses sets the gauges. An instance that only waits for the lease does not: it must not
// report an account that another one may have paused as working. The lock is held.
func (a *Account) showPauses() {
	paused := 0.0
	if a.breaker.open || a.operator.account() {
		paused = 1
	}
	held := len(a.templates.paused)
	for scope := range a.operator.scopes {
		id, template := strings.CutPrefix(scope, scopeOperatorTemplate)
		if template && a.templates.paused[id] == nil {
			held++
		}
	}
	a.cfg.Metrics.paused.WithLabelValues(a.cfg.AppID).Set(paused)
	a.cfg.Metrics.templates.WithLabelValues(a.cfg.AppID).Set(float64(held))
}
