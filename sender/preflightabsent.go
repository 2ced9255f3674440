package sender

import (
	"fmt"
	"time"
)

// absence is what is known of a template that the list lacks. The list alone never fails a row: its order in time against the
// calls that use a template is not documented, and a template may have been added a moment ago. So rows are put off, then one
// of them asks WeChat, and only what both deny does not exist.
type absence struct {
	since   time.Time // a row first met it
	asked   time.Time // a row was last let through, to ask WeChat
	refused time.Time // WeChat refused it (40037), the first time since it last knew it; zero: it has not
	known   time.Time // WeChat knew it; zero: it has not, or not since it refused it
}

// missed returns what is known of a template that the list lacks, or WeChat denies. The lock is held.
func (l *library) missed(id string, now time.Time) *absence {
	a := l.absences[id]
	if a == nil {
		a = &absence{since: now}
		if l.absences == nil {
			l.absences = make(map[string]*absence)
		}
		l.absences[id] = a
	}
	return a
}

// isKnown reports whether WeChat knew a template, whatever the list says. The lock is held.
func (l *library) isKnown(id string) bool {
	a := l.absences[id]
	return a != nil && !a.known.IsZero()
}

// judge says what becomes of one row whose template a fresh list lacks: absent, it is put off; unchecked, it is the one that asks
// WeChat, of all rows of the template within retryTemplate; gone, WeChat has denied it too, and a list that was asked for
// later still lacks it.
func (l *library) judge(id string) finding {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	a := l.missed(id, now)
	switch {
	case l.isKnown(id):
		return unchecked
	case !a.refused.IsZero() && l.readAt.After(a.refused):
		return gone
	case now.Sub(a.since) < retryTemplate || now.Sub(a.asked) < retryTemplate || now.Sub(a.refused) < retryTemplate:
		return absent
	}
	a.asked = now
	return unchecked
}

// forget drops, with each new list, what is not absent any more, and what is older than libraryAge: an old word of WeChat's would
// leave the list alone to decide, and producers may invent any number of ids. The lock is held.
func (l *library) forget(now time.Time) {
	old := now.Add(-libraryAge)
	for id, a := range l.absences {
		recent := a.since.After(old) || a.refused.After(old) || a.known.After(old)
		if l.templates[id] != nil || !recent {
			delete(l.absences, id)
		}
	}
}

// distrust tells that WeChat refused what the list let pass or lacks, the template (40037) or a value (47003, which goes with
// known): the list is read again at the next occasion, though not more often than once a minute.
func (l *library) distrust(templateID string) {
	if l.lister == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.templates[templateID] != nil {
		l.doubted = now
	}
	a := l.missed(templateID, now)
	if a.known = (time.Time{}); a.refused.IsZero() {
		a.refused = now
	}
}

// known tells that WeChat knows a template: it took a message of it, or found fault with one of its values. If the list lacks
// it all the same, its messages are sent without a check.
func (l *library) known(templateID string) {
	if l.lister == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.templates[templateID] != nil && l.absences[templateID] == nil {
		return
	}
	now := l.now()
	a := l.missed(templateID, now)
	a.known, a.refused = now, time.Time{}
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
