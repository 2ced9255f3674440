package catalog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// lister answers with a list, after a while.
type lister struct {
	mu    sync.Mutex
	list  []wechat.Template
	err   error
	takes time.Duration
	calls int
}

func (l *lister) PrivateTemplates(ctx context.Context) ([]wechat.Template, error) {
	l.mu.Lock()
	l.calls++
	list, err, takes := l.list, l.err, l.takes
	l.mu.Unlock()
	select {
	case <-time.After(takes):
		return list, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *lister) set(change func(*lister)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

func (l *lister) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

var (
	listedID = strings.Repeat("a", 43)
	absentID = strings.Repeat("n", 43)
)

func standard() *lister {
	return &lister{list: []wechat.Template{{ID: listedID, Content: "{{thing1.DATA}}"}}}
}

func newCatalog(t testing.TB, l *lister) *Catalog {
	c := New(l, slog.New(slog.DiscardHandler), time.Now)
	t.Cleanup(c.Wait)
	return c
}

// ask validates a message of a template with some data.
func (c *Catalog) ask(id string, values ...keyword.Value) (*Message, channel.Rejection) {
	m := &Message{TemplateID: id, Values: values}
	if why := c.Validate(context.Background(), m); why != nil {
		return m, *why
	}
	return m, channel.Rejection{}
}

// good is data that the listed template takes.
var good = keyword.Value{Key: "thing1", Value: "x"}

// TestAge: the list is read hourly, and when WeChat contradicts it, in both cases while messages go
// on.
func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := standard()
		c := newCatalog(t, list)
		expect := func(what string, calls int) {
			t.Helper()
			for range 100 { // never per row
				if _, why := c.ask(listedID, good); why.Message != "" {
					t.Fatalf("%s: %+v", what, why)
				}
			}
			synctest.Wait()
			if n := list.count(); n != calls {
				t.Errorf("%s: %d loads, want %d", what, n, calls)
			}
		}
		expect("first", 1)
		time.Sleep(maxAge - time.Second)
		expect("not old yet", 1)
		time.Sleep(time.Second)
		list.set(func(l *lister) { l.takes = 5 * time.Second })
		begin := time.Now()
		expect("an hour old", 2)
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("messages waited %s for a list that is only old", waited)
		}
		time.Sleep(minRefreshInterval)
		expect("loaded", 2)
		c.Invalidate("of no template")
		expect("WeChat spoke of something else", 2)
		for range 100 {
			c.Invalidate(listedID)
		}
		expect("contradicted", 3)
		c.Invalidate(listedID)
		expect("contradicted again at once", 3)
		time.Sleep(minRefreshInterval)
		expect("a minute later", 4)

		time.Sleep(minRefreshInterval)
		list.set(func(l *lister) { l.err = errors.New("busy") })
		c.Invalidate(listedID)
		expect("contradicted, and the list cannot be read", 5)
		list.set(func(l *lister) { l.err = nil })
		time.Sleep(minRefreshInterval)
		expect("so it is read a minute later", 6)
		time.Sleep(minRefreshInterval)
		expect("and the doubt is gone", 6)
	})
}

// TestNoList: without a list everything is sent, after a short wait at the very first row, and one
// line says so.
func TestNoList(t *testing.T) {
	bad := keyword.Value{Key: "thing1"}
	for name, broken := range map[string]*lister{
		"slow":  {takes: time.Hour},
		"error": {err: errors.New("system error")},
		"empty": {list: []wechat.Template{}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			c := New(broken, slog.New(slog.NewTextHandler(&log, nil)), time.Now)
			begin := time.Now()
			for range 10 {
				if _, why := c.ask(listedID, bad); why.Message != "" {
					t.Errorf("%s: %+v", name, why)
				}
			}
			if waited := time.Since(begin); waited > firstLoadTimeout {
				t.Errorf("%s: rows waited %s", name, waited)
			}
			time.Sleep(loadTimeout)
			for range 5 {
				time.Sleep(minRefreshInterval)
				c.ask(listedID, bad)
				time.Sleep(loadTimeout)
			}
			if n := broken.count(); n != 6 {
				t.Errorf("%s: asked %d times in six minutes", name, n)
			}
			if n := strings.Count(log.String(), "\n"); n != 1 {
				t.Errorf("%s: %d log lines:\n%s", name, n, log.String())
			}
			broken.set(func(l *lister) { l.list, l.err, l.takes = standard().list, nil, 0 })
			time.Sleep(minRefreshInterval)
			c.ask(listedID, bad)
			synctest.Wait()
			if _, why := c.ask(listedID, bad); why.Reason != channel.ReasonBadKeyword {
				t.Errorf("%s: after the recovery %+v", name, why)
			}
		})
	}
}

// TestStop: a load ends with the context of the row that began it, and the next row begins another.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := standard()
		list.takes = time.Second
		c := newCatalog(t, list)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Millisecond)
			cancel()
		}()
		if why := c.Validate(ctx, &Message{TemplateID: listedID}); why != nil {
			t.Errorf("%+v", *why)
		}
		c.Wait()
		list.set(func(l *lister) { l.takes = 0 })
		if _, why := c.ask(listedID); why.Reason != channel.ReasonBadKeyword {
			t.Errorf("after the stop: %+v", why)
		}
	})
}

// TestUnreadable: nothing is said of data where the template's text shows no placeholder.
func TestUnreadable(t *testing.T) {
	c := newCatalog(t, &lister{list: []wechat.Template{{ID: listedID, Content: "您好"}}})
	if m, why := c.ask(listedID, good); why.Message != "" || len(m.Values) != 1 || m.Warnings != nil {
		t.Errorf("%+v, %+v", m, why)
	}
}

// TestNone: without a catalog nothing is checked or kept.
func TestNone(t *testing.T) {
	var c *Catalog
	c.Invalidate(absentID)
	c.Confirm(absentID)
	if m, why := c.ask(absentID, good); why.Message != "" || len(m.Values) != 1 {
		t.Errorf("%+v, %+v", m, why)
	}
	c.Wait()
}
