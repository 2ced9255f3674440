package sender

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

// gates hold the messages of single templates that WeChat has banned or disabled. The rows of such a template are
// not claimed: they stay as they are and burn no attempt. Every probeEvery one message finds out whether the cause
// is gone. account_state shows each gate under scopeTemplate and the template's id.
type gates struct {
	mu   sync.Mutex
	shut map[string]*gate // by template id
}

type gate struct {
	until  time.Time
	reason string
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
	case now.Before(shut.until):
		return 0
	}
	return 1 // the probe
}

// passes tells whether a message of the template may go now: while a gate is being probed, others that were
// claimed before it was shut may not.
func (g *gates) passes(templateID string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := g.shut[templateID]
	return shut == nil || !now.Before(shut.until)
}

// shutTemplate closes the gate of a message's template, and gives the row back without counting the attempt.
func (w *worker) shutTemplate(j job, r result, we *wechat.Error) result {
	back := j.row.release(0)
	back.reason, back.errcode, back.errmsg = r.reason, r.errcode, r.errmsg
	g := &w.gates
	g.mu.Lock()
	defer g.mu.Unlock()
	id, now := j.message.TemplateID, w.svc.cfg.Now()
	old := g.shut[id]
	if old != nil && now.Before(old.until) {
		return back // others were on their way
	}
	g.shut[id] = &gate{until: now.Add(probeEvery), reason: r.reason}
	if old == nil || old.reason != r.reason {
		w.log.Error("the messages of a template are held back", "template", j.row.Template, "template_id", id,
			"reason", r.reason, "err", we, "cure", wechat.Explain(we.Code))
	}
	w.svc.metrics.templates.WithLabelValues(w.account.AppID).Set(float64(len(g.shut)))
	row := newPauseRow(we, probeEvery)
	w.store("saving a template's state", func(ctx context.Context) error {
		return w.svc.store.savePause(ctx, w.account.AppID, scopeTemplate+id, row)
	})
	return back
}

// openTemplate ends a gate: a message of the template went through.
func (w *worker) openTemplate(templateID string) {
	g := &w.gates
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := g.shut[templateID]
	if shut == nil || w.svc.cfg.Now().Before(shut.until) {
		return // nothing to open, or an answer to a POST that began before it was shut
	}
	delete(g.shut, templateID)
	w.svc.metrics.templates.WithLabelValues(w.account.AppID).Set(float64(len(g.shut)))
	w.log.Info("the messages of a template go on", "template_id", templateID)
	w.store("clearing a template's state", func(ctx context.Context) error {
		return w.svc.store.clearPause(ctx, w.account.AppID, scopeTemplate+templateID)
	})
}

func (g *gates) any() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.shut) > 0
}

// keep makes those gates probe at once whose scope is not in account_state any more.
func (g *gates) keep(scopes map[string]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, shut := range g.shut {
		if !scopes[scopeTemplate+id] {
			shut.until = time.Time{}
		}
	}
}

// load takes over the gates that the account's last claimer stored.
func (g *gates) load(w *worker, rows []pauseRow) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := w.svc.cfg.Now()
	g.shut = make(map[string]*gate)
	for _, row := range rows {
		if id, ok := strings.CutPrefix(row.Scope, scopeTemplate); ok {
			g.shut[id] = &gate{until: now.Add(row.remaining()), reason: row.Reason}
		}
	}
	w.svc.metrics.templates.WithLabelValues(w.account.AppID).Set(float64(len(g.shut)))
}

// store writes the account's state, also while the service stops; the log says what could not be written, and the
// state in memory holds all the same.
func (w *worker) store(what string, fn func(context.Context) error) {
	if err := detached(context.Background(), fn); err != nil {
		w.log.Error(what, "err", err)
	}
}
