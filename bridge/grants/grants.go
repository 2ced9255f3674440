// Package grants is the ledger of what people allow a mini program to send them. It is the only
// writer of the tables subscription_grant and grant_event, and takes in subscription_report.
//
// WeChat has no query for it: what is not counted is lost. So every cause is one row of grant_event,
// and what is left is computed from those rows alone, in any order and however often they come. The
// result is a hint: WeChat decides, and a refusal sets it to zero. The package must not call WeChat,
// and it does not know the queue: requests are numbers here.
//
// A transaction takes its locks in the order of the tables send_request, grant_event and
// subscription_grant, each by its primary key. One exception is cheaper than its cure: where spend
// changes only some of its grants, the others are locked after them. A deadlock is repeated, as the
// database may always find one.
package grants

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
)

// Grant names what a person allows: messages of one template.
type Grant struct {
	OpenID     string `db:"openid"`
	TemplateID string `db:"template_id"`
}

func (g Grant) compare(o Grant) int {
	return cmp.Or(cmp.Compare(g.OpenID, o.OpenID), cmp.Compare(g.TemplateID, o.TemplateID))
}

// Source is what a mini program's acceptances are counted by.
type Source string

// The sources. Switching off and refusals count with each of them but None.
const (
	Events  Source = "events"  // WeChat's pushes; reports are ignored
	Reports Source = "reports" // what the apps INSERT; pushed acceptances are ignored
	Both    Source = "both"    // whichever of the two comes; a pair within 10 minutes is one
	None    Source = "none"    // nothing is counted, WeChat alone decides
)

// Unlimited is what a long-term grant allows.
const Unlimited = math.MaxInt32

// Watcher is told of acceptances, after they have been stored. It may be told of one again, and of
// one that leaves nothing to send, so it asks Available.
type Watcher interface {
	Granted(ctx context.Context, appid string, grants []Grant)
}

// Config is what a Ledger needs.
type Config struct {
	DB      *sqlx.DB
	Sources map[string]Source // by appid; of another account nothing is counted
	// LongTerm reports whether a template's acceptances are not used up, and whether that is known.
	// nil: it is learnt from the messages that are sent.
	LongTerm func(appid, templateID string) (longTerm, known bool)
	Watcher  Watcher // nil: nobody waits
	Logger   *slog.Logger
}

// Ledger counts what people allow. It is safe for concurrent use, in any number of instances.
type Ledger struct {
	cfg    Config
	erased *bridge.Erasures
}

// New returns the ledger in cfg.DB, whose schema must be migrated.
func New(cfg Config) *Ledger {
	if cfg.LongTerm == nil {
		cfg.LongTerm = func(string, string) (bool, bool) { return false, false }
	}
	return &Ledger{cfg: cfg, erased: bridge.NewErasures(cfg.DB)}
}

// Counts reports whether anything of this account is counted.
func (l *Ledger) Counts(appid string) bool {
	source, known := l.cfg.Sources[appid]
	return known && source != None
}

func (l *Ledger) takes(appid string, source Source) bool {
	of := l.cfg.Sources[appid]
	return of == source || of == Both
}

func (l *Ledger) tell(ctx context.Context, appid string, granted []Grant) {
	if l.cfg.Watcher == nil || len(granted) == 0 {
		return
	}
	slices.SortFunc(granted, Grant.compare)
	l.cfg.Watcher.Granted(ctx, appid, slices.Compact(granted))
}
