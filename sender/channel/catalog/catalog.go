// Package catalog holds the list of an account's own templates, against which messages are checked
// before a call is spent. It errs on the side of sending: without a list, for instance because
// WeChat does not give one, everything passes. It must not fail a message by the list alone: WeChat
// has to deny the template too.
package catalog

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
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

// finding is what the catalog says about a template.
type finding int

const (
	// unchecked: nothing keeps its messages. There is no list, or none that is new enough, or a
	// message is to find out.
	unchecked finding = iota
	listed
	refreshing // not in the list, but a newer one is on its way
	absent     // not in a fresh list
	gone       // not in a fresh list, and WeChat has denied it too
)

// lookup finds a template. It waits for the first list, for a short time; later ones are loaded in
// the background.
func (c *Catalog) lookup(ctx context.Context, id string) (*keyword.Set, finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.triedAt.IsZero() && c.refresh(ctx) {
		c.awaitFirst(ctx)
	}
	now := c.now()
	keywords := c.templates[id]
	switch {
	case c.templates == nil:
		c.refresh(ctx)
		return nil, unchecked
	case keywords != nil || c.isConfirmed(id):
		if c.isInvalid() || now.Sub(c.loadedAt) >= maxAge {
			c.refresh(ctx)
		}
		if keywords == nil {
			return nil, unchecked
		}
		return keywords, listed
	case now.Sub(c.loadedAt) < minRefreshInterval:
		return nil, absent
	case c.refresh(ctx):
		return nil, refreshing
	}
	return nil, unchecked // the list is old, and the attempt to load a newer one has just failed
}

// isInvalid reports whether WeChat has contradicted the list since it was asked for. The lock is
// held.
func (c *Catalog) isInvalid() bool {
	return !c.invalidatedAt.IsZero() && !c.invalidatedAt.Before(c.loadedAt)
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
	if c.busy != nil {
		return true
	}
	if !c.triedAt.IsZero() && now.Sub(c.triedAt) < minRefreshInterval {
		return false
	}
	c.triedAt = now
	done := make(chan struct{})
	c.busy = done
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

// Close waits for the load that runs. The context of the last Validate must have ended, or it takes
// as long as WeChat.
func (c *Catalog) Close() {
	if c != nil {
		c.loading.Wait()
	}
}
