package sender

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// templateLister is what the pre-flight asks WeChat.
type templateLister interface {
	PrivateTemplates(ctx context.Context) ([]wechat.Template, error)
}

const (
	// maxCatalogAge is how old the list of templates may become. WeChat does not say how often it may be asked for; a template's text
	// never changes under its id, so that only deleted ones are noticed late.
	maxCatalogAge = time.Hour
	// minRefreshInterval is the shortest time between two readings, also after a failed one. A list that is younger is fresh.
	minRefreshInterval = time.Minute
	// refreshTimeout bounds one reading, firstLoadTimeout how long the first rows wait for the first one.
	refreshTimeout   = 10 * time.Second
	firstLoadTimeout = 3 * time.Second
	// refreshingRetry is when a row with an unknown template is looked at again while the list is being read.
	refreshingRetry = 3 * time.Second
)

// catalog is the list of an account's own templates, against which messages are checked before a call is spent (the
// pre-flight). It errs on the side of sending: without a list, for instance because WeChat does not give one, everything
// passes. The zero value never has a list.
type catalog struct {
	lister    templateLister // nil: no pre-flight
	log       *slog.Logger
	now       func() time.Time
	refreshes sync.WaitGroup

	mu        sync.Mutex
	templates map[string]*keyword.Set // by id; nil: never read
	readAt    time.Time               // when that list was asked for
	triedAt   time.Time               // when the last reading began; zero: never
	busy      chan struct{}           // closed at the end of the reading that runs; nil: none
	doubted   time.Time               // when WeChat last contradicted a list; zero: never
	missing   map[string]*missing     // of templates that the list lacks, by id
	failing   bool                    // the last reading failed, and it has been logged
}

// open makes the catalog read its list from now on.
func (c *catalog) open(lister templateLister, log *slog.Logger, now func() time.Time) {
	c.lister, c.log, c.now = lister, log, now
}

// draft is the part of a message that the pre-flight looks at and may change.
type draft struct {
	templateID string
	values     []keyword.Value
	warnings   []keyword.Problem
}

func (d *draft) warn(problems ...keyword.Problem) { d.warnings = append(d.warnings, problems...) }

func (d *draft) warning() string { return describeProblems(d.warnings) }

// maxProblems are named one by one.
const maxProblems = 20

// describeProblems makes one text of them, for a column; "" of none. It holds keys, never values.
func describeProblems(problems []keyword.Problem) string {
	if len(problems) == 0 {
		return ""
	}
	var texts []string
	for i, p := range problems {
		if i == maxProblems {
			texts = append(texts, fmt.Sprintf("and %d more", len(problems)-i))
			break
		}
		p.Key = clip(p.Key, 60) // a row may carry any key
		texts = append(texts, p.String())
	}
	return clip(strings.Join(texts, "; "), 1000)
}

// validate checks a draft against its template. It leaves out the keys that the template does not have, and returns a verdict for
// a row that is not to be sent, or not yet.
func (c *catalog) validate(ctx context.Context, row request, d *draft) *result {
	if c.lister == nil {
		return nil
	}
	keywords, found := c.lookup(ctx, d.templateID)
	// What may be under way already is repeated as it is, or given up by the rules of its outcome.
	repeated := row.InDoubtAge.Valid
	if found == absent && !repeated {
		found = c.classify(d.templateID)
	}
	switch {
	case found == unchecked || repeated && found != listed:
		return nil
	case found == refreshing:
		r := row.release(refreshingRetry)
		r.reason, r.errmsg = row.Reason.String, "the account's templates are being read again, to look for this one"
		return &r
	case found == absent:
		return row.templateAbsent(d.templateID)
	case found == gone:
		return row.templateGone(d.templateID)
	case keywords.Empty():
		return nil
	}
	d.leaveOut(keywords)
	d.warn(keywords.Doubts(d.values)...)
	problems := keywords.Check(d.values)
	if len(problems) == 0 || repeated {
		return nil
	}
	r := row.end(statusFailed, reasonBadKeyword, describeProblems(problems))
	return &r
}

// leaveOut drops the values that the template has no place for: nobody would see them, and whether WeChat ignores or refuses
// them is not known.
func (d *draft) leaveOut(keywords *keyword.Set) {
	d.values = slices.DeleteFunc(d.values, func(v keyword.Value) bool {
		switch {
		case keywords.Has(v.Key):
			return false
		case v.Key == "first" || v.Key == "remark":
			d.warn(keyword.NotShown(v.Key))
		default:
			d.warn(keyword.Problem{Key: v.Key, Rule: "is no keyword of the template and was left out"})
		}
		return true
	})
}

// finding is what the catalog says about a template.
type finding int

const (
	unchecked finding = iota // nothing that keeps its messages: there is no list, or none that is new enough, or WeChat is asked
	listed
	refreshing // not in the list, but a newer one is on its way
	absent     // not in a fresh list
	gone       // not in a fresh list, and WeChat has denied it too
)

// lookup finds a template. It waits for the first list, for a short time; later ones are read in the background.
func (c *catalog) lookup(ctx context.Context, id string) (*keyword.Set, finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.triedAt.IsZero() && c.refresh(ctx) {
		c.await(ctx)
	}
	now := c.now()
	keywords := c.templates[id]
	switch {
	case c.templates == nil:
		c.refresh(ctx)
		return nil, unchecked
	case keywords != nil || c.isConfirmed(id):
		if c.doubtful() || now.Sub(c.readAt) >= maxCatalogAge {
			c.refresh(ctx)
		}
		if keywords == nil {
			return nil, unchecked
		}
		return keywords, listed
	case now.Sub(c.readAt) < minRefreshInterval:
		return nil, absent
	case c.refresh(ctx):
		return nil, refreshing
	}
	return nil, unchecked // the list is old, and the attempt to read a newer one has just failed
}

// doubtful reports whether WeChat has contradicted the list since it was asked for. The lock is held.
func (c *catalog) doubtful() bool { return !c.doubted.IsZero() && !c.doubted.Before(c.readAt) }

// await waits for the reading that runs, with the lock released.
func (c *catalog) await(ctx context.Context) {
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

// refresh begins to read the list unless that has just been tried, and reports whether a reading is running. The lock is held.
func (c *catalog) refresh(ctx context.Context) bool {
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
	c.refreshes.Go(func() {
		defer close(done)
		c.store(ctx, now)
	})
	return true
}

// store reads the list and puts it into the catalog.
func (c *catalog) store(ctx context.Context, begin time.Time) {
	reading, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	list, err := c.lister.PrivateTemplates(reading)
	if err == nil && len(list) == 0 {
		// WeChat says the same to every message then, if it is true.
		err = fmt.Errorf("the list is empty")
	}
	templates := make(map[string]*keyword.Set, len(list))
	for _, t := range list {
		templates[t.ID] = keyword.Parse(t.Content)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = nil
	switch {
	case err != nil && ctx.Err() != nil: // stopped; the next owner of the account's lease need not wait
		c.triedAt = time.Time{}
	case err != nil && !c.failing:
		c.failing = true
		c.log.Warn("reading the account's templates: messages are sent without a check, or by an older list", "err", err)
	case err == nil:
		c.templates, c.readAt, c.failing = templates, begin, false
		c.forget(begin)
	}
}

// wait returns when no reading runs any more. The context of the last lookup must have ended, or it takes as long as WeChat.
func (c *catalog) wait() {
	c.refreshes.Wait()
}
