package throttle

import (
	"context"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

// Permit is one message's right to go. It ends with Done or Release, once.
type Permit struct {
	account       *Account
	template      string // as the row names it
	templateID    string
	probe         bool // its answer decides whether the account's pause is over
	templateProbe bool // the same of its template's
}

// Reserve counts a message that has been claimed against the day's budget. Where the account or
// the template was paused, it makes the message the probe.
func (a *Account) Reserve(template, templateID string) *Permit {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.budget.acquire()
	return &Permit{
		account: a, template: template, templateID: templateID,
		probe: a.breaker.acquire(), templateProbe: a.templates.acquire(templateID),
	}
}

// Wait waits for the account's rate, for at most atMost, and reports whether the turn came.
func (p *Permit) Wait(ctx context.Context, atMost time.Duration) bool {
	bucket := p.account.limiter.bucket
	if bucket.Allow() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, max(atMost, 0))
	defer cancel()
	return bucket.Wait(ctx) == nil
}

// Allowed reports whether neither the account nor the template is paused. It is for the moment
// before the POST: an operator, or the answer to another message, may have begun a pause since the
// claim.
func (p *Permit) Allowed() bool {
	a := p.account
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	return !a.breaker.active(now) && a.operator.allows(p.templateID) &&
		a.templates.allows(p.templateID, p.templateProbe, now)
}

// Done takes the answer to the message. It is the only place where an answer changes the rate, the
// budget or a pause.
func (p *Permit) Done(o channel.Outcome) {
	for _, scope := range p.account.apply(p, o) {
		p.account.write(scope)
	}
	// What may have been accepted may count for WeChat.
	p.end(o.Verdict == channel.Sent || o.Verdict == channel.InDoubt)
}

// apply returns the scopes that account_state is to learn about.
func (a *Account) apply(p *Permit, o channel.Outcome) (changed []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, template := a.cfg.Now(), scopeTemplate+p.templateID
	a.limiter.observe(now, o.Overloaded)
	known, open := a.breaker.row != nil || a.dirty[scopeSend], a.breaker.open
	if o.Confirms >= channel.ScopeAccount && a.breaker.resume(now) && known {
		changed = append(changed, scopeSend)
	}
	if o.Confirms >= channel.ScopeTemplate && a.templates.resume(p.templateID, now) {
		changed = append(changed, template)
	}
	if o.Verdict == channel.PauseAccount {
		if o.Pause == channel.PauseMinute {
			a.limiter.decrease(now)
		}
		if a.breaker.pause(o, now) {
			changed = append(changed, scopeSend)
		}
	}
	if o.Verdict == channel.PauseTemplate && a.templates.pause(p, o, now) {
		changed = append(changed, template)
	}
	for _, scope := range changed {
		a.dirty[scope] = true
	}
	if len(changed) > 0 || a.breaker.open != open {
		a.showPauses()
	}
	return changed
}

// Release gives the permit back: no attempt was made.
func (p *Permit) Release() { p.end(false) }

// end comes after the pauses have changed: until then no other message may become the probe.
func (p *Permit) end(sent bool) {
	a := p.account
	a.mu.Lock()
	defer a.mu.Unlock()
	a.budget.done(sent)
	if p.probe {
		a.breaker.probing = false
	}
	if p.templateProbe {
		a.templates.probeDone(p.templateID)
	}
}
