package sender

import (
	"strings"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

// templatePauses hold the messages of single templates that WeChat has banned or disabled. The rows of such a template are
// not claimed: they stay as they are and burn no attempt. Every probeInterval one message finds out whether the cause
// is gone. account_state shows each pause under scopeTemplate and the template's id.
type templatePauses struct {
	mu      sync.Mutex
	paused  map[string]*templatePause // by template id
	resumed map[string]time.Time      // whose row is still to be removed from account_state
}

type templatePause struct {
	until   time.Time
	row     *pauseRow
	probing bool // the probe is on its way
	dirty   bool // account_state does not have it yet
}

// scopeTemplate is followed by the template's id in account_state.scope.
const scopeTemplate = "template:"

// allowance returns how many of limit messages of a template may be claimed now.
func (t *templatePauses) allowance(templateID string, now time.Time, limit int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
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
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.paused[templateID]
	if p == nil || p.probing {
		return false
	}
	p.probing = true
	return true
}

// probeDone records that the probe has an outcome.
func (t *templatePauses) probeDone(templateID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.paused[templateID]; p != nil {
		p.probing = false
	}
}

// allows reports whether a message of the template may go now: those that were claimed before the pause may
// not.
func (t *templatePauses) allows(templateID string, probe bool, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.paused[templateID]
	return p == nil || probe && !now.Before(p.until)
}

// pauseTemplate pauses a message's template, and gives the row back without counting the attempt.
func (a *account) pauseTemplate(j job, r result, we *wechat.Error) result {
	id := j.message.TemplateID
	if news := a.templatePauses.pause(a, j, we); news {
		a.writeTemplatePause(id)
	}
	back := j.row.release(0)
	back.reason, back.errcode, back.errmsg = r.reason, r.errcode, r.errmsg
	return back
}

// pause reports whether this call paused the template; it was not paused already by a concurrent message.
func (t *templatePauses) pause(a *account, j job, we *wechat.Error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, now := j.message.TemplateID, a.svc.cfg.Now()
	old := t.paused[id]
	if old != nil && now.Before(old.until) {
		return false
	}
	delete(t.resumed, id)
	t.paused[id] = &templatePause{until: now.Add(probeInterval), row: newPauseRow(we), dirty: true}
	if old == nil || old.row.Reason != string(we.Reason) {
		a.log.Error("the messages of a template are held back", "template", j.row.Template, "template_id", id,
			"reason", we.Reason, "err", we, "cure", wechat.Explain(we.Code))
	}
	a.metric(a.svc.metrics.templates, float64(len(t.paused)))
	return true
}

// resumeTemplate ends a pause: a message of the template went through.
func (a *account) resumeTemplate(templateID string) {
	t := &a.templatePauses
	t.mu.Lock()
	p := t.paused[templateID]
	if p == nil || a.svc.cfg.Now().Before(p.until) {
		t.mu.Unlock()
		return // nothing to end, or an answer to a POST that began before the pause
	}
	delete(t.paused, templateID)
	t.resumed[templateID] = a.svc.cfg.Now()
	a.metric(a.svc.metrics.templates, float64(len(t.paused)))
	t.mu.Unlock()
	a.log.Info("the messages of a template go on", "template_id", templateID)
	a.writeTemplatePause(templateID)
}

// writeTemplatePause brings account_state to what is known now of a template; see writePause.
func (a *account) writeTemplatePause(templateID string) {
	a.writing.Lock()
	defer a.writing.Unlock()
	t := &a.templatePauses
	t.mu.Lock()
	p := t.paused[templateID]
	var row *pauseRow
	var until time.Time
	if p != nil {
		row, until = p.row, p.until
	}
	t.mu.Unlock()
	err := a.writeState(scopeTemplate+templateID, row, until)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil:
	case p != nil:
		p.dirty = false
	default:
		delete(t.resumed, templateID)
	}
}

// dirty returns the templates of which account_state does not say what is known.
func (t *templatePauses) dirty() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []string
	for id, p := range t.paused {
		if p.dirty {
			ids = append(ids, id)
		}
	}
	for id := range t.resumed {
		ids = append(ids, id)
	}
	return ids
}

func (t *templatePauses) any() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.paused) > 0
}

// removed makes those templates probe at once whose scope is not in account_state any more.
func (t *templatePauses) removed(kept map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, p := range t.paused {
		if !kept[scopeTemplate+id] && !p.dirty {
			p.until = time.Time{}
		}
	}
}

// load takes over the template pauses that the account's last claimer stored.
func (t *templatePauses) load(a *account, rows []pauseRow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := a.svc.cfg.Now()
	t.paused, t.resumed = make(map[string]*templatePause), make(map[string]time.Time)
	for _, row := range rows {
		if id, ok := strings.CutPrefix(row.Scope, scopeTemplate); ok {
			t.paused[id] = &templatePause{until: now.Add(row.remaining()), row: &row}
		}
	}
	a.metric(a.svc.metrics.templates, float64(len(t.paused)))
}
