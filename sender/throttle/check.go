package throttle

import "github.com/unionbridge/unionbridge/sender/channel"

// CheckDue reports whether Checked should be told whether the account's credentials work, and
// counts as asking for that: once after Load, as the configuration may be another one than the last
// claimer's, and then as often as a probe, while the account is paused for want of them. A probe
// alone would not do: without messages the pause would stay.
func (a *Account) CheckDue() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	age := now.Sub(a.checkedAt)
	again := a.wantsCredentials() && !a.breaker.active(now) && (age < 0 || age >= probeInterval)
	if a.readAt.IsZero() || !a.checkedAt.IsZero() && !again {
		return false
	}
	a.checkedAt = now
	return true
}

// wantsCredentials reports whether the account is paused, and a check that goes well ends that.
func (a *Account) wantsCredentials() bool {
	b := &a.breaker
	return b.open && (b.checked ||
		b.row != nil && a.cfg.Credentials != nil && a.cfg.Credentials(b.row.Reason))
}

// Checked takes what a call other than a message says of the account. That WeChat took the token
// ends a pause for want of credentials, however long it was to last. That a person must act begins
// one, before a message meets it.
func (a *Account) Checked(o channel.Outcome) {
	if a.check(o) {
		a.write(scopeSend)
	}
}

// check reports whether account_state is to learn about it.
func (a *Account) check(o channel.Outcome) (changed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case o.Confirms >= channel.ScopeToken && a.wantsCredentials():
		a.breaker.close(a.cfg.Now())
		changed = true
	case o.Verdict == channel.PauseAccount && o.Pause == channel.PauseConfig && !a.breaker.open:
		changed = a.breaker.pause(o, a.cfg.Now())
		a.breaker.checked = true
	}
	if changed {
		a.dirty[scopeSend] = true
		a.showPauses()
	}
	return changed
}
