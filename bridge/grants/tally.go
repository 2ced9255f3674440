package grants

import (
	"cmp"
	"database/sql"
	"slices"
	"time"
)

// What a row of grant_event says: grant_event.kind.
const (
	kindAccept  = "accept"  // +1: the person accepted
	kindOn      = "on"      // a long-term template was switched on again in the settings
	kindSent    = "sent"    // −1: WeChat took a message
	kindOff     = "off"     // =0: switched off in the settings
	kindRefused = "refused" // =0: WeChat said 43101
)

// Where it is known from: grant_event.source.
const (
	sourceEvent   = "event"   // a push, with WeChat's time in whole seconds
	sourceReport  = "report"  // the app, with its time or that of its INSERT
	sourceMessage = "message" // an attempt of ours, with our time
)

// The values of subscription_grant.kind.
const (
	kindOneTime  = "one_time"
	kindLongTerm = "long_term"
)

const (
	// doubt is how far moments of different clocks may be apart and their order still be unknown:
	// 5 s between the clocks, and the rest of WeChat's whole second.
	doubt = 6 * time.Second
	// pairing is how far the event and the report of one acceptance may be apart.
	pairing = 10 * time.Minute
	// maxAhead is how far ahead of the database's clock a moment may be. One of a nonsensical push would
	// make void for years what the person accepts.
	maxAhead = 10 * time.Minute
)

// entry is a row of grant_event.
type entry struct {
	OpenID     string        `db:"openid"`
	TemplateID string        `db:"template_id"`
	Key        string        `db:"event_key"`
	Kind       string        `db:"kind"`
	Source     string        `db:"source"`
	RequestID  sql.NullInt64 `db:"request_id"`
	HappenedAt time.Time     `db:"happened_at"`
	ArrivedAt  time.Time     `db:"arrived_at"`

	twin string // of an event: the key of the report of the same acceptance; see paired
}

func (e entry) grant() Grant { return Grant{e.OpenID, e.TemplateID} }

// total is what a grant's entries come to.
type total struct {
	Remaining int
	OffAt     time.Time // zero: never
	RefusedAt time.Time // zero: never
}

// tally computes a grant from its entries. It depends on their set alone, not on their order, so
// repeated and shuffled pushes come to the same. Where it is not known which of two came first, it
// takes the order that leaves more: an over-count costs one refused call, an under-count a message.
func tally(entries []entry, longTerm bool) total {
	var t total
	for _, e := range entries {
		switch {
		case e.Kind == kindOff && e.HappenedAt.After(t.OffAt):
			t.OffAt = e.HappenedAt
		case e.Kind == kindRefused && e.HappenedAt.After(t.RefusedAt):
			t.RefusedAt = e.HappenedAt
		}
	}
	if longTerm {
		t.Remaining = t.longTerm(entries)
	} else {
		t.Remaining = t.oneTime(entries)
	}
	return t
}

// newest returns when the newest of the acceptances happened, whether it counts or not; zero: there is
// none.
func newest(entries []entry) (at time.Time) {
	for _, e := range entries {
		if e.Kind == kindAccept && e.HappenedAt.After(at) {
			at = e.HappenedAt
		}
	}
	return at
}

// longTerm is 1 where the person still allows the template: messages use nothing up.
func (t total) longTerm(entries []entry) int {
	for _, e := range entries {
		if (e.Kind == kindAccept || e.Kind == kindOn) && t.counts(e) {
			return 1
		}
	}
	return 0
}

// step is what an entry does to the number, at its place in time.
type step struct {
	at    time.Time
	delta int
}

// oneTime adds acceptances and subtracts messages in the order of time, without going below zero: a
// message that nothing allowed shows a lost acceptance, which must not cost a later one. Each
// message stands behind the acceptances that may have been before it.
func (t total) oneTime(entries []entry) int {
	var steps []step
	for _, e := range paired(entries) {
		if t.counts(e) {
			steps = append(steps, step{e.HappenedAt.Add(-doubt), 1})
		}
	}
	for _, e := range entries {
		if e.Kind == kindSent && e.HappenedAt.After(t.RefusedAt) &&
			(t.OffAt.IsZero() || e.HappenedAt.After(t.OffAt.Add(doubt))) {
			steps = append(steps, step{e.HappenedAt, -1})
		}
	}
	slices.SortFunc(steps, func(a, b step) int {
		return cmp.Or(a.at.Compare(b.at), b.delta-a.delta)
	})
	left := 0
	for _, s := range steps {
		left = max(0, left+s.delta)
	}
	return left
}

// counts reports whether an acceptance may be newer than what set the grant to zero. Switching off
// has WeChat's clock, as pushed acceptances have. A refusal has ours: what had arrived before it is
// certainly older.
func (t total) counts(e entry) bool {
	off := t.OffAt
	if e.Source != sourceEvent && !off.IsZero() {
		off = off.Add(-doubt)
	}
	if e.HappenedAt.Before(off) {
		return false
	}
	return t.RefusedAt.IsZero() || e.ArrivedAt.After(t.RefusedAt) &&
		!e.HappenedAt.Before(t.RefusedAt.Add(-doubt))
}

// paired returns the acceptances, where an event and a report within 10 minutes are one. As both
// lists are in the order of time, taking the first partner that is near enough makes the most pairs.
func paired(entries []entry) []entry {
	var events, reports, accepts []entry
	for _, e := range entries {
		switch {
		case e.Kind != kindAccept:
		case e.Source == sourceReport:
			reports = append(reports, e)
		default:
			events = append(events, e)
		}
	}
	byTime := func(a, b entry) int {
		return cmp.Or(a.HappenedAt.Compare(b.HappenedAt), cmp.Compare(a.Key, b.Key))
	}
	slices.SortFunc(events, byTime)
	slices.SortFunc(reports, byTime)
	for len(events) > 0 && len(reports) > 0 {
		e, r := events[0], reports[0]
		switch apart := r.HappenedAt.Sub(e.HappenedAt); {
		case apart > pairing:
			accepts, events = append(accepts, e), events[1:]
		case apart < -pairing:
			accepts, reports = append(accepts, r), reports[1:]
		default:
			if r.ArrivedAt.Before(e.ArrivedAt) {
				e.ArrivedAt = r.ArrivedAt
			}
			e.twin = r.Key
			accepts, events, reports = append(accepts, e), events[1:], reports[1:]
		}
	}
	return slices.Concat(accepts, events, reports)
}
