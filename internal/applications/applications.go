// Package applications knows the programs that use the doors: by their secret or by a token of
// ours, what each may do, and how much. It owns the tables application and application_usage, and
// the key of the tokens. It serves no HTTP, sends nothing, and has no token or secret of WeChat's.
//
// A refusal is a [Refusal], in WeChat's own codes, which the callers' SDKs understand. Every other
// error means that the database cannot be asked: nothing was decided.
package applications

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
)

// Call is a kind of call that an application may be allowed at an account.
type Call string

// The calls.
const (
	TemplateSend  Call = "template_send"
	SubscribeSend Call = "subscribe_send"
	UniformSend   Call = "uniform_send"
	Login         Call = "login"
	Identities    Call = "identities"
	Grants        Call = "grants"
)

// Application is a program that uses the doors. It is read only.
type Application struct {
	Name         string
	SecretHashes [][sha256.Size]byte // see [Hash]; all are valid
	Accounts     map[string][]Call   // by appid
	// Templates are the names and ids that it may send; nil: all.
	Templates       []string
	Priority        int
	Limit           Limit
	Networks        []netip.Prefix // where it calls from; none: anywhere
	DuplicateWindow time.Duration
	Forward         []string // other paths of WeChat's that it may call
	Echo            bool     // it is told what became of its messages
	Disabled        bool
}

// Limit is how many requests are accepted, over all instances; 0: no limit.
type Limit struct {
	Minute int64 `db:"minute"`
	Day    int64 `db:"day"`
}

// Config is what a Registry needs.
type Config struct {
	DB           *sqlx.DB
	Applications []Application
	// Holder names this process among the instances, as its leases do.
	Holder     string
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // reads both clocks, as time.Now does
	// Day returns when the day of a moment began, for Limit.Day.
	Day func(time.Time) time.Time
}

// Registry answers who calls and what they may do. It is safe for concurrent use.
type Registry struct {
	db      *sqlx.DB
	holder  string
	now     func() time.Time
	day     func(time.Time) time.Time
	byName  map[string]*Application
	list    []*Application // by name
	appids  map[string]bool
	guard   *guard
	audit   *audit
	latest  atomic.Pointer[state]
	reading chan struct{} // held by whoever reads the state
	usage   *usage
}

// New returns a Registry. Names and secrets must be unique: a secret says who calls.
func New(cfg Config) (*Registry, error) {
	if cfg.DB == nil || cfg.Day == nil || cfg.Holder == "" {
		return nil, errors.New("applications: a database, a day and a holder's name are needed")
	}
	now := cfg.Now
	if now == nil {
		now = time.Now
	}
	r := &Registry{
		db: cfg.DB, holder: cfg.Holder, now: now, day: cfg.Day,
		byName: make(map[string]*Application), appids: make(map[string]bool), guard: newGuard(now),
		reading: make(chan struct{}, 1),
		audit:   newAudit(cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)), cfg.Registerer, now),
		usage:   newUsage(),
	}
	owners := make(map[[sha256.Size]byte]string)
	for i := range cfg.Applications {
		a := cfg.Applications[i]
		if _, twice := r.byName[a.Name]; twice || a.Name == "" || len(a.Name) > maxName {
			return nil, fmt.Errorf("applications: the name %q is empty, too long or there twice", a.Name)
		}
		for _, hash := range a.SecretHashes {
			if owner, twice := owners[hash]; twice {
				return nil, fmt.Errorf("applications: %s and %s have the same secret", owner, a.Name)
			}
			owners[hash] = a.Name
		}
		r.byName[a.Name] = &a
		r.list = append(r.list, &a)
		for appid := range a.Accounts {
			r.appids[appid] = true
		}
	}
	slices.SortFunc(r.list, func(a, b *Application) int { return cmp.Compare(a.Name, b.Name) })
	return r, nil
}

// Session is an application that has proved who it is. The zero value is nobody.
type Session struct {
	Application *Application
	// AppID is the account that its token is for; "" where it came with a secret alone.
	AppID string
	From  netip.Addr
}

// Allow checks a call at the account appid, which is not always the token's: a uniform message
// names another one. template is what the message names, an alias or an id; "": there is none.
// Rights are never a token's error: SDKs would fetch a new one and repeat the call without end.
func (r *Registry) Allow(s Session, call Call, appid, template string) error {
	a := s.Application
	switch {
	case a == nil:
		return r.audit.refuse(refusal(reasonNoToken, ""), s, "")
	case !slices.Contains(a.Accounts[appid], call):
		return r.audit.refuse(refusal(ReasonForbidden, a.Name), s, fmt.Sprintf("no %s at %s", call,
			printable(appid)))
	case !s.May(call, appid, template):
		return r.audit.refuse(refusal(ReasonForbidden, a.Name), s, "not this template: "+
			printable(template))
	}
	return nil
}

// May reports whether a call is allowed, as [Registry.Allow] does, for a caller who has not made it.
func (s Session) May(call Call, appid, template string) bool {
	a := s.Application
	return a != nil && slices.Contains(a.Accounts[appid], call) &&
		(template == "" || a.Templates == nil || slices.Contains(a.Templates, template))
}

// allows reports whether the application may call from there.
func (a *Application) allows(from netip.Addr) bool {
	if len(a.Networks) == 0 {
		return true
	}
	return slices.ContainsFunc(a.Networks, func(p netip.Prefix) bool { return p.Contains(from) })
}
