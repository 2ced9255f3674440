package sender

import (
	"fmt"
	"time"
)

// missing is what is known of a template that the list lacks. The list alone never fails a row: its order in time against the
// calls that use a template is not documented, and a template may have been added a moment ago. So rows are put off, then one
// of them asks WeChat, and only what both deny does not exist.
type missing struct {
	since     time.Time // a row first met it
	asked     time.Time // a row was last let through, to ask WeChat
	refused   time.Time // WeChat refused it (40037), the first time since it last knew it; zero: it has not
	confirmed time.Time // WeChat knew it; zero: it has not, or not since it refused it
}

// missingEntry returns what is known of a template that the list lacks, or WeChat denies. The lock is held.
func (c *catalog) missingEntry(id string, now time.Time) *missing {
	m := c.missing[id]
	if m == nil {
		m = &missing{since: now}
		if c.missing == nil {
			c.missing = make(map[string]*missing)
		}
		c.missing[id] = m
	}
	return m
}

// isConfirmed reports whether WeChat knew a template, whatever the list says. The lock is held.
func (c *catalog) isConfirmed(id string) bool {
	m := c.missing[id]
	return m != nil && !m.confirmed.IsZero()
}

// classify says what becomes of one row whose template a fresh list lacks: absent, it is put off; unchecked, it is the one that asks
// WeChat, of all rows of the template within retryTemplate; gone, WeChat has denied it too, and a list that was asked for
// later still lacks it.
func (c *catalog) classify(id string) finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	m := c.missingEntry(id, now)
	switch {
	case c.isConfirmed(id):
		return unchecked
	case !m.refused.IsZero() && c.readAt.After(m.refused):
		return gone
	case now.Sub(m.since) < retryTemplate || now.Sub(m.asked) < retryTemplate || now.Sub(m.refused) < retryTemplate:
		return absent
	}
	m.asked = now
	return unchecked
}

// forget drops, with each new list, what is not absent any more, and what is older than maxCatalogAge: an old word of WeChat's would
// leave the list alone to decide, and producers may invent any number of ids. The lock is held.
func (c *catalog) forget(now time.Time) {
	old := now.Add(-maxCatalogAge)
	for id, m := range c.missing {
		recent := m.since.After(old) || m.refused.After(old) || m.confirmed.After(old)
		if c.templates[id] != nil || !recent {
			delete(c.missing, id)
		}
	}
}

// invalidate notes that WeChat refused what the list let pass or lacks, the template (40037) or a value (47003, which goes with
// confirm): the list is read again at the next occasion, though not more often than once a minute.
func (c *catalog) invalidate(templateID string) {
	if c.lister == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.templates[templateID] != nil {
		c.doubted = now
	}
	m := c.missingEntry(templateID, now)
	if m.confirmed = (time.Time{}); m.refused.IsZero() {
		m.refused = now
	}
}

// confirm notes that WeChat knows a template: it took a message of it, or found fault with one of its values. If the list lacks
// it all the same, its messages are sent without a check.
func (c *catalog) confirm(templateID string) {
	if c.lister == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.templates[templateID] != nil && c.missing[templateID] == nil {
		return
	}
	now := c.now()
	m := c.missingEntry(templateID, now)
	m.confirmed, m.refused = now, time.Time{}
}

// templateAbsent puts off a row whose template the list lacks.
func (r request) templateAbsent(id string) *result {
	v := r.end(statusPending, reasonUnknownTemplate, fmt.Sprintf(
		"the official account's list has no template %s (console, 模板消息, 我的模板); it is looked for again, and then WeChat is asked", id))
	v.delay = retryTemplate
	return &v
}

// templateGone ends a row whose template does not exist.
func (r request) templateGone(id string) *result {
	v := r.end(statusFailed, reasonUnknownTemplate, fmt.Sprintf(
		"the official account has no template %s (console, 模板消息, 我的模板): its list lacks it, and WeChat refused it (40037)", id))
	return &v
}
