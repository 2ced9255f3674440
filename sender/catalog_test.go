package sender

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
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

func (l *lister) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

func standardLister() *lister {
	l := &lister{}
	for _, t := range wechatsim.StandardTemplates() {
		l.list = append(l.list, wechat.Template{ID: t.ID, Title: t.Title, Content: t.Content})
	}
	return l
}

// withCatalog is a preparer with a pre-flight.
func withCatalog(t testing.TB, l *lister) *account {
	a := preparer()
	a.catalog.open(l, slog.New(slog.DiscardHandler), time.Now)
	t.Cleanup(a.catalog.wait)
	return a
}

// verdictOf is what a test wants to know of one row.
type verdictOf struct {
	Status  status // "": it is sent
	Reason  string
	Text    string
	Delay   time.Duration
	Refund  bool
	Data    string
	Warning string
}

func (a *account) verdictOf(row request) verdictOf {
	_, j, v := a.prepare(context.Background(), row)
	if v != nil {
		return verdictOf{Status: v.final(), Reason: v.reason, Text: v.errmsg, Delay: v.delay, Refund: v.refund}
	}
	return verdictOf{Data: string(j.message.Data), Warning: j.warning}
}

func TestPreflight(t *testing.T) {
	a := withCatalog(t, standardLister())
	legacy := wechatsim.StandardTemplates()[2].ID
	long := strings.Repeat("啡", 25)
	for _, c := range []struct {
		name, template, data string
		uncertain            bool
		want                 verdictOf
	}{
		{name: "fine", template: "order", data: orderRow().Data.String, want: verdictOf{
			Data: `{"amount3":{"value":"39.80元"},"character_string4":{"value":"A-1024"},"thing1":{"value":"咖啡 & 茶"},"time2":{"value":"2026-01-02 15:04"}}`}},
		{name: "wrong values", template: "order", data: `{"thing1":"` + long + `","time2":"机密","character_string4":"A-1024"}`, want: verdictOf{
			Status: statusFailed, Reason: "bad_keyword", Refund: true, Text: "data.thing1 has 25 characters, thing takes at most 20; " +
				"data.time2 has 2 characters, time takes a 24-hour time such as 15:01 or 2026-01-02 15:01, a range with a half-width ~; " +
				"data.amount3 is missing"}},
		{name: "a key too many", template: wechatsim.StandardTemplates()[1].ID, data: `{"thing1":"x","thing2":"y","first":"z"}`, want: verdictOf{
			Data:    `{"thing1":{"value":"x"}}`,
			Warning: "data.first is not shown any more, since 2023-05-04; data.thing2 is no keyword of the template and was left out"}},
		{name: "legacy", template: legacy, data: `{"first":"您好","keyword1":"` + long + `","keyword2":"x"}`, want: verdictOf{
			Data: `{"first":{"value":"您好"},"keyword1":{"value":"` + long + `"},"keyword2":{"value":"x"}}`,
			Warning: "data.first is not shown any more, since 2023-05-04; " +
				"data.keyword1 has 25 characters, of which WeChat shows 20"}},
		{name: "a repetition of what may be under way", template: "order", data: `{"thing1":"` + long + `"}`, uncertain: true,
			want: verdictOf{Data: `{"thing1":{"value":"` + long + `"}}`}},
		{name: "a repetition with a template that is gone", template: strings.Repeat("x", 43), data: `{"thing1":"x"}`, uncertain: true,
			want: verdictOf{Data: `{"thing1":{"value":"x"}}`}},
	} {
		row := orderRow()
		row.Template, row.Data = c.template, text(c.data)
		row.InDoubtAge = sql.NullInt64{Int64: 1000, Valid: c.uncertain}
		if diff := cmp.Diff(c.want, a.verdictOf(row)); diff != "" {
			t.Errorf("%s, -want +got:\n%s", c.name, diff)
		}
	}
}

// TestManyProblems: whatever a row carries, the text fits its column.
func TestManyProblems(t *testing.T) {
	var data []string
	for i := range 500 {
		data = append(data, `"`+strings.Repeat("k", 20+i)+`":"x"`)
	}
	row := orderRow()
	row.Template, row.Data = wechatsim.StandardTemplates()[1].ID, text(`{"thing1":"x",`+strings.Join(data, ",")+`}`)
	got := withCatalog(t, standardLister()).verdictOf(row)
	if n := len([]rune(got.Warning)); n > 1024 || n < 900 {
		t.Errorf("a warning of %d characters: %s", n, got.Warning)
	}
}

// TestCatalogAge: the list is read hourly, and when WeChat contradicts it, in both cases while messages go on.
func TestCatalogAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := standardLister()
		a := withCatalog(t, list)
		expect := func(what string, calls int) {
			t.Helper()
			for range 100 { // never per row
				if got := a.verdictOf(orderRow()); got.Status != "" {
					t.Fatalf("%s: %+v", what, got)
				}
			}
			synctest.Wait()
			if n := list.count(); n != calls {
				t.Errorf("%s: %d readings, want %d", what, n, calls)
			}
		}
		expect("first", 1)
		time.Sleep(maxCatalogAge - time.Second)
		expect("not old yet", 1)
		time.Sleep(time.Second)
		list.set(func(l *lister) { l.takes = 5 * time.Second })
		begin := time.Now()
		expect("an hour old", 2)
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("messages waited %s for a list that is only old", waited)
		}
		time.Sleep(minRefreshInterval)
		expect("read", 2)
		a.catalog.invalidate("of no template")
		expect("WeChat spoke of something else", 2)
		for range 100 {
			a.catalog.invalidate(wechatsim.StandardTemplates()[0].ID)
		}
		expect("contradicted", 3)
		a.catalog.invalidate(wechatsim.StandardTemplates()[0].ID)
		expect("contradicted again at once", 3)
		time.Sleep(minRefreshInterval)
		expect("a minute later", 4)

		time.Sleep(minRefreshInterval)
		list.set(func(l *lister) { l.err = errors.New("busy") })
		a.catalog.invalidate(wechatsim.StandardTemplates()[0].ID)
		expect("contradicted, and the list cannot be read", 5)
		list.set(func(l *lister) { l.err = nil })
		time.Sleep(minRefreshInterval)
		expect("so it is read a minute later", 6)
		time.Sleep(minRefreshInterval)
		expect("and the doubt is gone", 6)
	})
}

// TestNoCatalog: without a list everything is sent, after a short wait at the very first row, and one line says so.
func TestNoCatalog(t *testing.T) {
	for name, broken := range map[string]*lister{
		"slow":  {takes: time.Hour},
		"error": {err: errors.New("system error")},
		"empty": {list: []wechat.Template{}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			a := preparer()
			a.catalog.open(broken, slog.New(slog.NewTextHandler(&log, nil)), time.Now)
			row := orderRow()
			row.Data = text(`{"thing1":""}`)
			begin := time.Now()
			for range 10 {
				if got := a.verdictOf(row); got.Data != `{"thing1":{"value":""}}` {
					t.Errorf("%s: %+v", name, got)
				}
			}
			if waited := time.Since(begin); waited > firstLoadTimeout {
				t.Errorf("%s: rows waited %s", name, waited)
			}
			time.Sleep(refreshTimeout)
			for range 5 {
				time.Sleep(minRefreshInterval)
				a.verdictOf(row)
				time.Sleep(refreshTimeout)
			}
			if n := broken.count(); n != 6 {
				t.Errorf("%s: asked %d times in six minutes", name, n)
			}
			if n := strings.Count(log.String(), "\n"); n != 1 {
				t.Errorf("%s: %d log lines:\n%s", name, n, log.String())
			}
			broken.set(func(l *lister) { l.list, l.err, l.takes = standardLister().list, nil, 0 })
			time.Sleep(minRefreshInterval)
			a.verdictOf(row)
			synctest.Wait()
			if got := a.verdictOf(row); got.Reason != reasonBadKeyword {
				t.Errorf("%s: after the recovery %+v", name, got)
			}
		})
	}
}

// TestPreflightStops: a reading ends with the context of the row that began it, and the next row begins anew.
func TestPreflightStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := standardLister()
		list.takes = time.Second
		a := withCatalog(t, list)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Millisecond)
			cancel()
		}()
		if _, _, v := a.prepare(ctx, orderRow()); v != nil {
			t.Errorf("%+v", *v)
		}
		a.catalog.wait()
		list.set(func(l *lister) { l.takes = 0 })
		row := orderRow()
		row.Data = text(`{"thing1":""}`)
		if got := a.verdictOf(row); got.Reason != reasonBadKeyword {
			t.Errorf("after the stop: %+v", got)
		}
	})
}

// TestPreflightOfRows: what WeChat would refuse ends without a POST, what is doubtful goes out with a warning.
func TestPreflightOfRows(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Preflight = true
	legacy := wechatsim.StandardTemplates()[2].ID
	long := strings.Repeat("啡", 21)
	bad := f.insert(t, columns{"openid": f.sim.OpenID(appid, 1), "template": f.otherTemplate, "data": `{"thing1":"` + long + `"}`})
	gone := f.insert(t, columns{"openid": f.sim.OpenID(appid, 2), "template": strings.Repeat("x", 43)})
	extra := f.insert(t, columns{"openid": f.sim.OpenID(appid, 3), "template": f.otherTemplate, "data": `{"thing1":"x","note":"y"}`})
	old := f.insert(t, columns{"openid": f.sim.OpenID(appid, 4), "template": legacy, "data": `{"first":"a","keyword1":"b","keyword2":"c"}`})
	good := f.insert(t, columns{"openid": f.sim.OpenID(appid, 5)})
	f.start(t, "a")

	r := f.await(t, bad, statusFailed)
	if r.reason() != "bad_keyword" || *r.ErrMsg != "data.thing1 has 21 characters, thing takes at most 20" || r.Attempts != 0 {
		t.Errorf("a bad value: %s, %v, %d attempts", r.reason(), *r.ErrMsg, r.Attempts)
	}
	warnings := map[int64]string{
		good: "", extra: "data.note is no keyword of the template and was left out",
		old: "data.first is not shown any more, since 2023-05-04",
	}
	for id, want := range warnings {
		f.await(t, id, statusSent)
		var got sql.NullString
		if err := f.db.GetContext(t.Context(), &got, `SELECT warning FROM send_request WHERE id = ?`, id); err != nil {
			t.Fatal(err)
		}
		if got.String != want {
			t.Errorf("request %d: warning %q, want %q", id, got.String, want)
		}
	}
	eventually(t, "the row of no template is put off", func() bool { return f.row(t, gone).reason() == reasonUnknownTemplate })
	if r := f.row(t, gone); r.Status != string(statusPending) || r.Attempts != 0 {
		t.Errorf("no such template: %s, %d attempts", r.Status, r.Attempts)
	}
	calls := f.sim.Calls()
	if sends, lists := calls[wechat.EndpointSendTemplate], calls[wechat.EndpointTemplates]; sends != 3 || lists != 1 {
		t.Errorf("%d sends and %d readings of the templates, want 3 and 1", sends, lists)
	}
}
