// Package figures shows the one report of how things stand to those who ask often: a cache for pages
// and scrapes, and metrics made from it. They show the same as "unionbridge status".
package figures

import (
	"context"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/status"
)

const (
	// minFresh is how long a report serves all who ask.
	minFresh = 10 * time.Second
	// costShare bounds the time that reading takes: a database on which it takes long is asked less
	// often.
	costShare = 20
	// readTimeout bounds one read: a scrape gives up after ten seconds.
	readTimeout = 8 * time.Second
)

// Cache serves one report to all who ask, and reads it at most once at a time. It is safe for
// concurrent use.
type Cache struct {
	read func(ctx context.Context) (status.Report, error)
	now  func() time.Time

	mu     sync.Mutex
	report status.Report
	err    error
	until  time.Time     // the report, or the error, is fresh
	under  chan struct{} // closed when the read under way has ended; nil: there is none
}

// NewCache returns a Cache of what read reads.
func NewCache(
	read func(ctx context.Context) (status.Report, error), now func() time.Time,
) *Cache {
	return &Cache{read: read, now: now}
}

// Report returns a report of the last seconds, or why there is none: the report is the last good one
// then, whose At says how old it is. A read goes on when whoever began it gives up.
func (c *Cache) Report(ctx context.Context) (status.Report, error) {
	for {
		c.mu.Lock()
		if c.now().Before(c.until) {
			defer c.mu.Unlock()
			return c.report, c.err
		}
		if c.under == nil {
			c.under = make(chan struct{})
			go c.refresh(context.WithoutCancel(ctx), c.under)
		}
		under := c.under
		c.mu.Unlock()
		select {
		case <-under:
		case <-ctx.Done():
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.report, ctx.Err()
		}
	}
}

func (c *Cache) refresh(ctx context.Context, ended chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	start := c.now()
	report, err := c.read(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	end := c.now()
	fresh := minFresh // a database that comes back is seen soon, however long the failure took
	if c.err = err; err == nil {
		c.report, fresh = report, max(minFresh, costShare*end.Sub(start))
	}
	c.until = end.Add(fresh)
	c.under = nil
	close(ended)
}
