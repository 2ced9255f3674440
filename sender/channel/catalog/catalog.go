// Package catalog holds the list of an account's own templates, against which messages are checked
// before a call is spent. It errs on the side of sending: without a list, for instance because
// WeChat does not give one, everything passes. It must not fail a message by the list alone: WeChat
// has to deny the template too.
package catalog

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// Lister is what the catalog asks WeChat.
type Lister interface {
	PrivateTemplates(ctx context.Context) ([]wechat.Template, error)
}

const (
	// maxAge is how old the list may become. WeChat does not say how often it may be read; a
	// template's text never changes under its id, so that only deleted ones are noticed late.
	maxAge = time.Hour
	// minRefreshInterval is the shortest time between two loads, also after a failed one. A list
	// that is younger is fresh.
	minRefreshInterval = time.Minute
	// loadTimeout bounds one load, firstLoadTimeout how long the first rows wait for the first one.
	loadTimeout      = 10 * time.Second
	firstLoadTimeout = 3 * time.Second
	// refreshWait is when a row with an unknown template is looked at again while the list is
	// loaded.
	refreshWait = 3 * time.Second
)

// Catalog is the list. It is safe for concurrent use. A nil Catalog lets everything pass.
type Catalog struct {
	lister  Lister
	log     *slog.Logger
	now     func() time.Time
	loading sync.WaitGroup

	mu            sync.Mutex
	templates     map[string]*keyword.Set // by id; nil: never loaded
	loadedAt      time.Time               // when that list was asked for
	triedAt       time.Time               // when the last load began; zero: never
	busy          chan struct{}           // closed at the end of the load that runs; nil: none
	invalidatedAt time.Time               // when WeChat last contradicted a list; zero: never
	missing       map[string]*missing     // templates that the list lacks, by id
	failing       bool                    // the last load failed, and it has been logged
}

// New returns a catalog that loads its list when the first message is validated.
func New(lister Lister, log *slog.Logger, now func() time.Time) *Catalog {
	return &Catalog{lister: lister, log: log, now: now, missing: make(map[string]*missing)}
}

// Message is the part of a message that the catalog looks at and may change.
type Message struct {
	TemplateID string
	Values     []keyword.Value
	Warnings   []keyword.Problem // what was changed of it, or is doubtful about it
	// Redelivery: an earlier attempt may have delivered it. What may be under way is sent again as
	// it is, and never rejected here.
	Redelivery bool
}

// Warn adds to the warnings.
func (m *Message) Warn(problems ...keyword.Problem) { m.Warnings = append(m.Warnings, problems...) }

// Validate checks a message against its template. It leaves out the keys that the template does not
// have.
func (c *Catalog) Validate(ctx context.Context, m *Message) *channel.Rejection {
	if c == nil {
		return nil
	}
	keywords, rejection := c.lookup(ctx, m)
	if keywords != nil && !keywords.Empty() {
		m.leaveOut(keywords)
		m.Warn(keywords.Doubts(m.Values)...)
		if problems := keywords.Check(m.Values); len(problems) > 0 {
			rejection = channel.Reject(channel.ReasonBadKeyword, channel.Describe(problems))
		}
	}
	if m.Redelivery {
		return nil
	}
	return rejection
}

// leaveOut drops the values that the template has no place for: nobody would see them, and whether
// WeChat ignores or refuses them is not known.
func (m *Message) leaveOut(keywords *keyword.Set) {
	m.Values = slices.DeleteFunc(m.Values, func(v keyword.Value) bool {
		switch {
		case keywords.Has(v.Key):
			return false
		case v.Key == "first" || v.Key == "remark":
			m.Warn(keyword.NotShown(v.Key))
		default:
			m.Warn(keyword.Problem{Key: v.Key, Rule: "is no keyword of the template and was left out"})
		}
		return true
	})
}

// lookup finds the keywords of a message's template; nil: it is not checked. The rejection is of a
// message that must not go unchecked either. lookup waits for the first list, for a short time;
// later ones are loaded in the background.
func (c *Catalog) lookup(ctx context.Context, m *Message) (*keyword.Set, *channel.Rejection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.triedAt.IsZero() && c.refresh(ctx) {
		c.awaitFirst(ctx)
	}
	now := c.now()
	keywords := c.templates[m.TemplateID]
	missing := c.missing[m.TemplateID]
	switch {
	case c.templates == nil:
		c.refresh(ctx)
	case keywords != nil || missing != nil && !missing.confirmed.IsZero():
		if !c.invalidatedAt.Before(c.loadedAt) || now.Sub(c.loadedAt) >= maxAge {
			c.refresh(ctx)
		}
	case m.Redelivery: // it goes as it is
		c.refresh(ctx)
	case now.Sub(c.loadedAt) < minRefreshInterval:
		return nil, c.classify(m.TemplateID, now)
	case c.refresh(ctx):
		return nil, &channel.Rejection{After: refreshWait,
			Message: "the account's templates are being read again, to look for this one"}
	}
	return keywords, nil // nil: WeChat knows better, or no list is new enough
}

// awaitFirst waits for the load that runs, with the lock released.
func (c *Catalog) awaitFirst(ctx context.Context) {
	busy := c.busy
	c.mu.Unlock()
	defer c.mu.Lock()
	ctx, cancel := context.WithTimeout(ctx, firstLoadTimeout)
	defer cancel()
	select {
	case <-busy:
	case <-ctx.Done():
	}
}

// refresh begins to load the list unless that has just been tried, and reports whether a load is
// running. The lock is held.
func (c *Catalog) refresh(ctx context.Context) bool {
	now := c.now()
	if c.busy != nil || now.Sub(c.triedAt) < minRefreshInterval {
		return c.busy != nil
	}
	done := make(chan struct{})
	c.busy, c.triedAt = done, now
	c.loading.Go(func() {
		defer close(done)
		c.load(ctx, now)
	})
	return true
}

func (c *Catalog) load(ctx context.Context, begin time.Time) {
	calling, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	list, err := c.lister.PrivateTemplates(calling)
	if err == nil && len(list) == 0 {
		// WeChat says the same to every message then, if it is true.
		err = errors.New("the list is empty")
	}
	templates := make(map[string]*keyword.Set, len(list))
	for _, t := range list {
		templates[t.ID] = keyword.Parse(t.Content)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = nil
	switch {
	case err != nil && ctx.Err() != nil:
		c.triedAt = time.Time{} // stopped; the next owner of the account's lease need not wait
	case err != nil && !c.failing:
		c.failing = true
		c.log.Warn("reading the account's templates: messages are sent without a check, "+
			"or by an older list", "err", err)
	case err == nil:
		c.templates, c.loadedAt, c.failing = templates, begin, false
		c.forget(begin)
	}
}

// Wait waits for the load that runs. The context of the last Validate must have ended, or it takes
// as long as WeChat.
func (c *Catalog) Wait() {
	if c != nil {
		c.loading.Wait()
	}
}
