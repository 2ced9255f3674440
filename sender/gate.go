package sender

import (
	"strings"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

// gates hold the messages of single templates that WeChat has banned or disabled. The rows of such a template are
// not claimed: they stay as they are and burn no attempt. Every probeEvery one message finds out whether the cause
// is gone. account_state shows each gate under scopeTemplate and the template's id.
type gates struct {
	mu     sync.Mutex
	shut   map[string]*gate     // by template id
	opened map[string]time.Time // whose row is still to be removed from account_state
}

type gate struct {
	until   time.Time
	row     *pauseRow
	out     bool // the one message that finds out is on its way
	unsaved bool // account_state does not have it yet
}

// scopeTemplate is followed by the template's id in account_state.scope.
const scopeTemplate = "template:"

// most tells how many of limit messages of a template may be claimed now.
func (g *gates) most(templateID string, now time.Time, limit int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch shut := g.shut[templateID]; {
	case shut == nil:
		return limit
	case shut.out || now.Before(shut.until):
		return 0
	}
	return 1 // the probe
}

// launch notes that a message goes out, and tells whether it is the one that finds out about its template.
func (g *gates) launch(templateID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := g.shut[templateID]
	if shut == nil || shut.out {
		return false
	}
	shut.out = true
	return true
}

// landed notes that the message that was to find out has come to something.
func (g *gates) landed(templateID string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if shut := g.shut[templateID]; shut != nil {
		shut.out = false
	}
}

// passes tells whether a message of the template may go now: those that were claimed before the gate was shut may
// not.
func (g *gates) passes(templateID string, probe bool, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := g.shut[templateID]
	return shut == nil || probe && !now.Before(shut.until)
}

// shutTemplate closes the gate of a message's template, and gives the row back without counting the attempt.
func (a *account) shutTemplate(j job, r result, we *wechat.Error) result {
	id := j.message.TemplateID
	if news := a.gates.close(a, j, we); news {
		a.writeGate(id)
	}
	back := j.row.release(0)
	back.reason, back.errcode, back.errmsg = r.reason, r.errcode, r.errmsg
	return back
}

// close tells whether the gate was not shut already by a message that was on its way beside this one.
func (g *gates) close(a *account, j job, we *wechat.Error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	id, now := j.message.TemplateID, a.svc.cfg.Now()
	old := g.shut[id]
	if old != nil && now.Before(old.until) {
		return false
	}
	delete(g.opened, id)
	g.shut[id] = &gate{until: now.Add(probeEvery), row: newPauseRow(we), unsaved: true}
	if old == nil || old.row.Reason != string(we.Reason) {
		a.log.Error("the messages of a template are held back", "template", j.row.Template, "template_id", id,
			"reason", we.Reason, "err", we, "cure", wechat.Explain(we.Code))
	}
	a.metric(a.svc.metrics.templates, float64(len(g.shut)))
	return true
}

// openTemplate ends a gate: a message of the template went through.
func (a *account) openTemplate(templateID string) {
	g := &a.gates
	g.mu.Lock()
	shut := g.shut[templateID]
	if shut == nil || a.svc.cfg.Now().Before(shut.until) {
		g.mu.Unlock()
		return // nothing to open, or an answer to a POST that began before it was shut
	}
	delete(g.shut, templateID)
	g.opened[templateID] = a.svc.cfg.Now()
	a.metric(a.svc.metrics.templates, float64(len(g.shut)))
	g.mu.Unlock()
	a.log.Info("the messages of a template go on", "template_id", templateID)
	a.writeGate(templateID)
}

// writeGate brings account_state to what is known now of a template; see writePause.
func (a *account) writeGate(templateID string) {
	a.writing.Lock()
	defer a.writing.Unlock()
	g := &a.gates
	g.mu.Lock()
	shut := g.shut[templateID]
	var row *pauseRow
	var until time.Time
	if shut != nil {
		row, until = shut.row, shut.until
	}
	g.mu.Unlock()
	err := a.writeState(scopeTemplate+templateID, row, until)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err != nil:
	case shut != nil:
		shut.unsaved = false
	default:
		delete(g.opened, templateID)
	}
}

// unsaved returns the templates of which account_state does not say what is known.
func (g *gates) unsaved() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []string
	for id, shut := range g.shut {
		if shut.unsaved {
			ids = append(ids, id)
		}
	}
	for id := range g.opened {
		ids = append(ids, id)
	}
	return ids
}

func (g *gates) any() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.shut) > 0
}

// removed makes those gates probe at once whose scope is not in account_state any more.
func (g *gates) removed(kept map[string]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, shut := range g.shut {
		if !kept[scopeTemplate+id] && !shut.unsaved {
			shut.until = time.Time{}
		}
	}
}

// load takes over the gates that the account's last claimer stored.
func (g *gates) load(a *account, rows []pauseRow) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := a.svc.cfg.Now()
	g.shut, g.opened = make(map[string]*gate), make(map[string]time.Time)
	for _, row := range rows {
		if id, ok := strings.CutPrefix(row.Scope, scopeTemplate); ok {
			g.shut[id] = &gate{until: now.Add(row.remaining()), row: &row}
		}
	}
	a.metric(a.svc.metrics.templates, float64(len(g.shut)))
}
