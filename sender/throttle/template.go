package throttle

import (
	"log/slog"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

// templatePauses hold back the messages of single templates that WeChat has banned or disabled.
// Their rows are not claimed: they stay as they are and burn no attempt. Every probeInterval one
// message, the probe, finds out whether the cause is gone.
type templatePauses struct {
	log    *slog.Logger
	paused map[string]*templatePause // by template id
}

type templatePause struct {
	until   time.Time
	row     *stateRow
	probing bool // the probe is on its way
}

func newTemplatePauses(log *slog.Logger) templatePauses {
	return templatePauses{log: log, paused: make(map[string]*templatePause)}
}

// allowance returns how many of limit messages of a template may be claimed now.
func (t *templatePauses) allowance(templateID string, now time.Time, limit int) int {
	switch p := t.paused[templateID]; {
	case p == nil:
		return limit
	case p.probing || now.Before(p.until):
		return 0
	}
	return 1 // the probe
}

// acquire notes that a message goes out, and reports whether it is the probe of its template.
func (t *templatePauses) acquire(templateID string) bool {
	p := t.paused[templateID]
	if p == nil || p.probing {
		return false
	}
	p.probing = true
	return true
}

// probeDone records that the probe has an outcome.
func (t *templatePauses) probeDone(templateID string) {
	if p := t.paused[templateID]; p != nil {
		p.probing = false
	}
}

// allows reports whether a message of the template may go now. One that was claimed before the
// pause may not.
func (t *templatePauses) allows(templateID string, probe bool, now time.Time) bool {
	p := t.paused[templateID]
	return p == nil || probe && !now.Before(p.until)
}

// pause reports whether this call paused the template; it was not paused already by a concurrent
// message.
func (t *templatePauses) pause(m *Permit, o channel.Outcome, now time.Time) bool {
	id := m.templateID
	old := t.paused[id]
	if old != nil && now.Before(old.until) {
		return false
	}
	t.paused[id] = &templatePause{until: now.Add(probeInterval), row: newStateRow(o)}
	if old == nil || old.row.Reason != o.Reason {
		t.log.Error("the messages of a template are paused", "template", m.template,
			"template_id", id, "reason", o.Reason, "err", o.Err, "cure", o.Cure)
	}
	return true
}

// resume ends a pause, and reports whether there was one that may end.
func (t *templatePauses) resume(templateID string, now time.Time) bool {
	p := t.paused[templateID]
	if p == nil || now.Before(p.until) {
		return false // nothing to end, or an answer to a POST that began before the pause
	}
	delete(t.paused, templateID)
	t.log.Info("the messages of a template resume", "template_id", templateID)
	return true
}

// removed makes those templates probe at once whose scope is not in account_state any more.
func (t *templatePauses) removed(kept map[string]bool) {
	for id, p := range t.paused {
		if !kept[scopeTemplate+id] {
			p.until = time.Time{}
		}
	}
}

func (t *templatePauses) load(rows []stateRow, now time.Time) {
	*t = newTemplatePauses(t.log)
	for _, row := range rows {
		if id, ok := strings.CutPrefix(row.Scope, scopeTemplate); ok {
			t.paused[id] = &templatePause{until: now.Add(row.remaining()), row: &row}
		}
	}
}
