package catalog

import (
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// missing is what is known of a template that the list lacks. The list alone never fails a row: its
// order in time against the calls that use a template is not documented, and a template may have
// been added a moment ago. So rows are put off, then one of them asks WeChat, and only what both
// deny does not exist.
type missing struct {
	since     time.Time // a row first met it
	tried     time.Time // a row was last let through, to ask WeChat
	refused   time.Time // WeChat refused it, the first time since it last knew it; zero: it has not
	confirmed time.Time // WeChat knew it; zero: it has not, or not since it refused it
}

// RetryAfter is when a message is tried again whose template WeChat denies, or the list lacks:
// 40037 has been seen for a valid template for eleven minutes.
const RetryAfter = 2 * time.Minute

// entry returns what is known of a template that the list lacks, or WeChat denies. The lock is
// held.
func (c *Catalog) entry(id string, now time.Time) *missing {
	if c.missing[id] == nil {
		c.missing[id] = &missing{since: now}
	}
	return c.missing[id]
}

// classify says what becomes of a row whose template a fresh list lacks, and WeChat has not
// confirmed: it fails if WeChat has denied the template too, and a list that was asked for later
// still lacks it. Otherwise it is put off, but for one in RetryAfter, which is sent to ask WeChat.
// The lock is held.
func (c *Catalog) classify(id string, now time.Time) *channel.Rejection {
	recent := func(at time.Time) bool { return now.Sub(at) < RetryAfter }
	m := c.entry(id, now)
	denied := c.denied(id)
	switch {
	case denied != nil:
		return denied
	case recent(m.since) || recent(m.tried) || recent(m.refused):
		return &channel.Rejection{After: RetryAfter, Reason: channel.ReasonUnknownTemplate,
			Message: fmt.Sprintf("the %s's list has no template %s (console, %s); it is looked for "+
				"again, and then WeChat is asked", c.source.account, id, c.source.console)}
	}
	m.tried = now
	return nil
}

// denied is the rejection of a template that both WeChat and a later list deny; nil: it is another.
// The lock is held.
func (c *Catalog) denied(id string) *channel.Rejection {
	m := c.missing[id]
	if m == nil || m.refused.IsZero() || !c.loadedAt.After(m.refused) {
		return nil
	}
	return channel.RejectField(channel.ReasonUnknownTemplate, "template", fmt.Sprintf(
		"the %s has no template %s (console, %s): its list lacks it, and WeChat refused it (40037)",
		c.source.account, id, c.source.console))
}

// forget drops, with each new list, what is not missing any more, and what is older than maxAge: an
// old word of WeChat's would leave the list alone to decide, and producers may invent any number of
// ids. The lock is held.
func (c *Catalog) forget(now time.Time) {
	old := now.Add(-maxAge)
	for id, m := range c.missing {
		recent := m.since.After(old) || m.refused.After(old) || m.confirmed.After(old)
		if c.templates[id] != nil || !recent {
			delete(c.missing, id)
		}
	}
}

// Invalidate notes that WeChat refused what the list let pass or lacks, the template or a value
// (which goes with Confirm): the list is loaded again at the next occasion, though not more often
// than once a minute.
func (c *Catalog) Invalidate(templateID string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.templates[templateID] != nil {
		c.invalidatedAt = now
	}
	m := c.entry(templateID, now)
	if m.confirmed = (time.Time{}); m.refused.IsZero() {
		m.refused = now
	}
}

// Confirm notes that WeChat knows a template: it took a message of it, or found fault with one of
// its values. Where the list lacks it, its messages are sent without a check.
func (c *Catalog) Confirm(templateID string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.templates[templateID] != nil && c.missing[templateID] == nil {
		return
	}
	now := c.now()
	m := c.entry(templateID, now)
	m.confirmed, m.refused = now, time.Time{}
}

// Learn takes from what became of a message which templates WeChat knows or denies.
func (c *Catalog) Learn(d channel.Delivery) {
	o, template := d.Outcome, d.Draft.TemplateID()
	reason := wechat.Reason(o.Reason)
	switch {
	case o.Verdict == channel.Sent:
		c.Confirm(template)
	case o.Verdict == channel.Retry && reason == wechat.ReasonInvalidTemplate:
		c.Invalidate(template)
	case o.Verdict == channel.Rejected && reason == wechat.ReasonInvalidKeyword:
		c.Invalidate(template)
		c.Confirm(template)
	}
}
