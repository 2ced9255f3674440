// Package catalog holds the list of the templates of an official account or a mini program, against
// which messages are checked before a call is spent. It errs on the side of sending: without a
// list, for instance because WeChat does not give one, everything passes. It must not fail a
// message by the list alone: WeChat has to deny the template too.
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

// Lister is what the catalog of an official account asks WeChat.
type Lister interface {
	PrivateTemplates(ctx context.Context) ([]wechat.Template, error)
}

// SubscribeLister is what the catalog of a mini program asks WeChat.
type SubscribeLister interface {
	SubscribeTemplates(ctx context.Context) ([]wechat.SubscribeTemplate, error)
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
	source  source
	log     *slog.Logger
	now     func() time.Time
	loading sync.WaitGroup

	mu            sync.Mutex
	templates     map[string]*template // by id; nil: never loaded
	loadedAt      time.Time            // when that list was asked for
	triedAt       time.Time            // when the last load began; zero: never
	busy          chan struct{}        // closed at the end of the load that runs; nil: none
	invalidatedAt time.Time            // when WeChat last contradicted a list; zero: never
	missing       map[string]*missing  // templates that the list lacks, by id
	failing       bool                 // the last load failed, and it has been logged
}

// source is where the list comes from, and what differs between kinds of accounts.
type source struct {
	read    func(ctx context.Context) (map[string]*template, error)
	account string // "official account"
	console string // where its list stands in the console
	legacy  bool   // there are templates with a first line and a remark
}

type template struct {
	keywords *keyword.Set
	longTerm bool
}

// New returns the catalog of an official account. It loads its list when the first message is
// validated.
func New(lister Lister, log *slog.Logger, now func() time.Time) *Catalog {
	return newFrom(source{account: "official account", console: "模板消息, 我的模板", legacy: true,
		read: func(ctx context.Context) (map[string]*template, error) {
			list, err := lister.PrivateTemplates(ctx)
			templates := make(map[string]*template, len(list))
			for _, t := range list {
				templates[t.ID] = &template{keywords: keyword.Parse(t.Content)}
			}
			return templates, err
		}}, log, now)
}

// NewSubscribe returns the catalog of a mini program, which works alike.
func NewSubscribe(lister SubscribeLister, log *slog.Logger, now func() time.Time) *Catalog {
	return newFrom(source{account: "mini program", console: "订阅消息, 我的模板",
		read: func(ctx context.Context) (map[string]*template, error) {
			list, err := lister.SubscribeTemplates(ctx)
			templates := make(map[string]*template, len(list))
			for _, t := range list {
				templates[t.ID] = &template{longTerm: t.LongTerm,
					keywords: keyword.ParseSubscribe(t.Content, t.Enums)}
			}
			return templates, err
		}}, log, now)
}

func newFrom(from source, log *slog.Logger, now func() time.Time) *Catalog {
	return &Catalog{source: from, log: log, now: now, missing: make(map[string]*missing)}
}

// LongTerm reports whether one acceptance of a mini program's template allows any number of
// messages, as far as the list that was loaded last says; known is false where it says nothing.
func (c *Catalog) LongTerm(templateID string) (longTerm, known bool) {
	if c == nil {
		return false, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.templates[templateID]
	return t != nil && t.longTerm, t != nil
}

// Load sees to it that LongTerm knows the templates of the account, where no message is validated. It
// waits for the first list as Validate does.
func (c *Catalog) Load(ctx context.Context) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.triedAt.IsZero()
	if c.templates != nil && c.now().Sub(c.loadedAt) < maxAge {
		return
	}
	if c.refresh(ctx) && first {
		c.awaitFirst(ctx)
	}
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
	if why := c.check(m, keywords); why != nil {
		rejection = why
	}
	if m.Redelivery {
		return nil
	}
	return rejection
}

// Keys returns the keys of a template, as far as its list has been read.
func (c *Catalog) Keys(templateID string) []string {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.templates[templateID]; t != nil {
		return t.keywords.Names()
	}
	return nil
}

// check holds a message against its template's keywords; nil: they are not known.
func (c *Catalog) check(m *Message, keywords *keyword.Set) *channel.Rejection {
	if keywords == nil || keywords.Empty() {
		return nil
	}
	m.leaveOut(keywords, c.source.legacy)
	m.Warn(keywords.Doubts(m.Values)...)
	problems := keywords.Check(m.Values)
	if len(problems) == 0 {
		return nil
	}
	return channel.RejectField(channel.ReasonBadKeyword, "data."+problems[0].Key,
		channel.Describe(problems))
}

// Peek is Validate by what is known already: a list that is too old is read in the background.
func (c *Catalog) Peek(m *Message) *channel.Rejection {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.templates == nil || c.now().Sub(c.loadedAt) >= maxAge {
		c.refresh(context.Background()) // nobody waits for it
	}
	if t := c.templates[m.TemplateID]; t != nil {
		return c.check(m, t.keywords)
	}
	return c.denied(m.TemplateID)
}

// leaveOut drops the values that the template has no place for: nobody would see them, and whether
// WeChat ignores or refuses them is not known.
func (m *Message) leaveOut(keywords *keyword.Set, legacy bool) {
	m.Values = slices.DeleteFunc(m.Values, func(v keyword.Value) bool {
		switch {
		case keywords.Has(v.Key):
			return false
		case legacy && (v.Key == "first" || v.Key == "remark"):
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
	var keywords *keyword.Set
	if t := c.templates[m.TemplateID]; t != nil {
		keywords = t.keywords
	}
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
	templates, err := c.source.read(calling)
	if err == nil && len(templates) == 0 {
		// WeChat says the same to every message then, if it is true.
		err = errors.New("the list is empty")
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
