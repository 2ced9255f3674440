package sender

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/catalog"
	"github.com/unionbridge/unionbridge/sender/channel/oatemplate"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
)

// lister answers with a list, after a while.
type lister struct {
	mu    sync.Mutex
	list  []wechat.Template
	err   error
	takes time.Duration
}

func (l *lister) PrivateTemplates(ctx context.Context) ([]wechat.Template, error) {
	l.mu.Lock()
	list, err, takes := l.list, l.err, l.takes
	l.mu.Unlock()
	if takes > 0 {
		sleep(ctx, takes)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return list, err
}

func (l *lister) set(change func(*lister)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

func standardLister() *lister {
	l := &lister{}
	for _, t := range wechatsim.StandardTemplates() {
		l.list = append(l.list, wechat.Template{ID: t.ID, Content: t.Content})
	}
	return l
}

// TestPreflightOfRows: what WeChat would refuse ends without a POST, what is doubtful goes out with
// a warning.
func TestPreflightOfRows(t *testing.T) {
	f := newFixture(t)
	f.channel.Preflight = true
	legacy := wechatsim.StandardTemplates()[2].ID
	long := strings.Repeat("啡", 21)
	bad := f.insert(t, columns{"openid": f.sim.OpenID(appid, 1), "template": f.otherTemplate, "data": `{"thing1":"` + long + `"}`})
	gone := f.insert(t, columns{"openid": f.sim.OpenID(appid, 2), "template": strings.Repeat("x", 43)})
	extra := f.insert(t, columns{"openid": f.sim.OpenID(appid, 3), "template": f.otherTemplate, "data": `{"thing1":"x","note":"y"}`})
	old := f.insert(t, columns{"openid": f.sim.OpenID(appid, 4), "template": legacy, "data": `{"first":"a","keyword1":"b","keyword2":"c"}`})
	good := f.insert(t, columns{"openid": f.sim.OpenID(appid, 5)})
	f.start(t, "a")

	r := f.await(t, bad, queue.Failed)
	if r.reason() != "bad_keyword" || *r.ErrMsg != "data.thing1 has 21 characters, thing takes at most 20" || r.Attempts != 0 {
		t.Errorf("a bad value: %s, %v, %d attempts", r.reason(), *r.ErrMsg, r.Attempts)
	}
	warnings := map[int64]string{
		good: "", extra: "data.note is no keyword of the template and was left out",
		old: "data.first is not shown any more, since 2023-05-04",
	}
	for id, want := range warnings {
		f.await(t, id, queue.Sent)
		var got sql.NullString
		if err := f.db.GetContext(t.Context(), &got, `SELECT warning FROM send_request WHERE id = ?`, id); err != nil {
			t.Fatal(err)
		}
		if got.String != want {
			t.Errorf("request %d: warning %q, want %q", id, got.String, want)
		}
	}
	eventually(t, "the row of no template is put off", func() bool { return f.row(t, gone).reason() == channel.ReasonUnknownTemplate })
	if r := f.row(t, gone); r.Status != string(queue.Pending) || r.Attempts != 0 {
		t.Errorf("no such template: %s, %d attempts", r.Status, r.Attempts)
	}
	calls := f.sim.Calls()
	if sends, lists := calls[wechat.EndpointSendTemplate], calls[wechat.EndpointTemplates]; sends != 3 || lists != 1 {
		t.Errorf("%d sends and %d readings of the templates, want 3 and 1", sends, lists)
	}
}

type listedAPI struct {
	oatemplate.API
	list *lister
}

func (a listedAPI) PrivateTemplates(ctx context.Context) ([]wechat.Template, error) {
	return a.list.PrivateTemplates(ctx)
}

// clockStepper is a stepper with a pre-flight by another list, and with a clock that can be put
// forward.
type clockStepper struct {
	*stepper
	ahead atomic.Int64
}

func newClockStepper(t *testing.T, list *lister) *clockStepper {
	c := &clockStepper{}
	f := newFixture(t)
	f.setClock(func() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) })
	f.channel.Preflight = true
	f.channel.API = listedAPI{f.channel.API, list}
	c.stepper = newStepper(t, f)
	return c
}

// later makes all pending rows due a while later, and attempts them.
func (c *clockStepper) later(t *testing.T, d time.Duration) {
	t.Helper()
	c.ahead.Add(int64(d))
	c.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) WHERE status = 'pending'`)
	c.attempt(t)
	c.account.channel.Wait()
}

// TestLyingListOfRows: WeChat's list lacks a valid template for a quarter of an hour. No row fails
// of it.
func TestLyingListOfRows(t *testing.T) {
	list := standardLister()
	all := list.list
	list.list = all[1:]
	c := newClockStepper(t, list)
	for i := range 20 {
		c.insert(t, columns{"unionid": c.unionid(i)})
	}
	for range 8 {
		c.later(t, catalog.RetryAfter+time.Second)
		c.later(t, 3*time.Second)
	}
	if n := c.count(t, `SELECT COUNT(*) FROM send_request WHERE status NOT IN ('pending', 'sent')`); n > 0 {
		t.Errorf("%d valid messages have failed, because the list lied", n)
	}
	if n := c.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`); n < 4 {
		t.Errorf("%d messages have gone out in a quarter of an hour", n)
	}
	list.set(func(l *lister) { l.list = all })
	c.later(t, time.Hour)
	c.later(t, 3*time.Second)
	if n := c.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`); n != 20 {
		t.Errorf("%d of 20 are sent when the list is right again", n)
	}
}

// TestUnknownTemplateOfRows: a mistyped id costs one call, and fails all rows.
func TestUnknownTemplateOfRows(t *testing.T) {
	c := newClockStepper(t, standardLister())
	for i := range 20 {
		c.insert(t, columns{"unionid": c.unionid(i), "template": strings.Repeat("x", 43)})
	}
	c.attempt(t)
	for range 3 {
		c.later(t, catalog.RetryAfter+time.Second)
		c.later(t, 3*time.Second)
	}
	if n := c.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'failed' AND reason = 'unknown_template'`); n != 20 {
		t.Errorf("%d of 20 rows have failed", n)
	}
	if n := c.sim.Calls()[wechat.EndpointSendTemplate]; n != 1 {
		t.Errorf("%d calls", n)
	}
}

// TestHastenedTemplate: the operator adds the template, and hastens the row before the list shows
// it.
func TestHastenedTemplate(t *testing.T) {
	list := standardLister()
	all := list.list
	list.list = all[1:]
	c := newClockStepper(t, list)
	id := c.insert(t, columns{"unionid": c.unionid(1)})
	c.attempt(t)
	list.set(func(l *lister) { l.list = all })
	changes, err := c.requests().Retry(t.Context(), []int64{id}, requests.RetryOptions{Now: true})
	if err != nil {
		t.Fatal(changes, err)
	}
	c.attempt(t)
	if r := c.row(t, id); r.Status != string(queue.Pending) || r.reason() != channel.ReasonUnknownTemplate {
		t.Errorf("hastened: %s, %s", r.Status, r.reason())
	}
	c.later(t, catalog.RetryAfter)
	c.later(t, 3*time.Second)
	if r := c.row(t, id); r.Status != string(queue.Sent) {
		t.Errorf("two minutes later: %s, %s", r.Status, r.reason())
	}
}
