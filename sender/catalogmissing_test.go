package sender

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/requests"
)

// absentRow is a test of one row whose template the list lacks.
type absentRow struct {
	*account
	lister *lister
	row    request
}

const absentData = `{"thing1":"x","note":"y"}`

// What may become of it. What is sent without a check keeps the key that no template has.
var (
	absentID  = strings.Repeat("n", 43)
	putOff    = verdictOf{Status: statusPending, Reason: "unknown_template", Delay: retryTemplate, Refund: true}
	isRead    = verdictOf{Status: statusPending, Delay: refreshingRetry, Refund: true}
	isGone    = verdictOf{Status: statusFailed, Reason: "unknown_template", Refund: true}
	isSent    = verdictOf{Data: `{"note":{"value":"y"},"thing1":{"value":"x"}}`}
	isChecked = verdictOf{Data: `{"thing1":{"value":"x"}}`, Warning: "data.note is no keyword of the template and was left out"}
)

func newAbsentRow(t *testing.T) *absentRow {
	list := standardLister()
	a := &absentRow{account: withCatalog(t, list), lister: list, row: orderRow()}
	a.row.Template, a.row.Data = absentID, text(absentData)
	return a
}

// add puts the template into WeChat's list.
func (a *absentRow) add() {
	a.lister.set(func(l *lister) { l.list = append(l.list, wechat.Template{ID: absentID, Content: "{{thing1.DATA}}"}) })
}

// step looks at the row, and wants the list to have been read so many times then.
func (a *absentRow) step(t *testing.T, what string, want verdictOf, calls int) {
	t.Helper()
	got := a.verdictOf(a.row)
	if got.Status == statusFailed || got.Delay == retryTemplate {
		if !strings.Contains(got.Text, absentID) || strings.Contains(got.Text, "40037") != (got.Status == statusFailed) {
			t.Errorf("%s: %s", what, got.Text)
		}
	}
	got.Text = ""
	if want.Delay == refreshingRetry {
		want.Reason = a.row.Reason.String // as it was
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s, -want +got:\n%s", what, diff)
	}
	a.row.Reason = sql.NullString{String: got.Reason, Valid: got.Reason != ""}
	synctest.Wait()
	if n := a.lister.count(); n != calls {
		t.Errorf("%s: %d readings of the list, want %d", what, n, calls)
	}
}

// probe goes as far as the row that asks WeChat.
func (a *absentRow) probe(t *testing.T) {
	t.Helper()
	a.step(t, "not in a fresh list", putOff, 1)
	time.Sleep(retryTemplate)
	a.step(t, "not in an old list", isRead, 2)
	time.Sleep(refreshingRetry)
	a.step(t, "still not in a fresh one: WeChat is asked", isSent, 2)
}

// TestUnknownTemplate: a template fails its rows when the list lacks it and WeChat has refused it; one row asks WeChat.
func TestUnknownTemplate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.step(t, "not in a fresh list", putOff, 1)
		a.step(t, "and hastened by an operator", putOff, 1)
		time.Sleep(retryTemplate - time.Second)
		a.step(t, "hastened again", isRead, 2)
		a.step(t, "before two minutes have passed", putOff, 2)
		time.Sleep(time.Second)
		repeated := *a
		repeated.row.InDoubtAge = sql.NullInt64{Int64: 1000, Valid: true}
		repeated.step(t, "what may be under way is repeated, and asks nothing", isSent, 2)
		a.step(t, "WeChat is asked", isSent, 2)
		a.step(t, "by one row", putOff, 2)

		a.catalog.invalidate(absentID)
		a.step(t, "refused, but the list is from before", putOff, 2)
		time.Sleep(minRefreshInterval)
		a.step(t, "the list is read", isRead, 3)
		a.step(t, "both deny it", isGone, 3)
		a.row.Reason = sql.NullString{}
		a.step(t, "so new rows fail at once", isGone, 3)

		a.row.Reason = sql.NullString{}
		a.add()
		time.Sleep(minRefreshInterval)
		a.step(t, "added", isRead, 4)
		a.step(t, "and seen", isChecked, 4)
		if n := len(a.catalog.missing); n != 0 {
			t.Errorf("%d absences are kept", n)
		}
	})
}

// TestUnknownTemplateAsked: as long as WeChat gives no answer about the template, one row in two minutes asks for it.
func TestUnknownTemplateAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.probe(t)
		sent := 0
		for range 10 * 60 {
			time.Sleep(time.Second)
			for range 3 {
				if a.verdictOf(a.row).Status == "" {
					sent++
				}
			}
		}
		if sent < 4 || sent > 5 {
			t.Errorf("%d rows asked WeChat in ten minutes", sent)
		}
	})
}

// TestLyingList: WeChat takes what its list lacks.
func TestLyingList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.probe(t)
		a.catalog.invalidate(absentID) // as for a wrong value (47003), of a template that WeChat knows
		a.catalog.confirm(absentID)
		for range 3 {
			a.step(t, "it is sent without a check", isSent, 2)
		}
		time.Sleep(maxCatalogAge / 2)
		a.catalog.confirm(absentID)
		time.Sleep(maxCatalogAge / 2)
		a.step(t, "and the list is read as often as any", isSent, 3)
		a.step(t, "which changes nothing", isSent, 3)
		a.catalog.invalidate(absentID)
		a.step(t, "until WeChat refuses it", putOff, 3)
		time.Sleep(retryTemplate)
		a.step(t, "and a newer list", isRead, 4)
		a.step(t, "lacks it still", isGone, 4)
	})
}

// TestOldRefusal: what WeChat said long ago does not fail a row; it is asked again.
func TestOldRefusal(t *testing.T) {
	for name, keep := range map[string]time.Duration{"rows all the time": time.Minute, "none for an hour": maxCatalogAge} {
		synctest.Test(t, func(t *testing.T) {
			a := newAbsentRow(t)
			a.probe(t)
			a.catalog.invalidate(absentID)
			for end := time.Now().Add(maxCatalogAge); time.Now().Before(end); {
				time.Sleep(keep)
				a.verdictOf(a.row)
				synctest.Wait()
			}
			sent := 0
			for range 6 { // minutes
				time.Sleep(time.Minute)
				a.verdictOf(a.row)
				synctest.Wait()
				switch got := a.verdictOf(a.row); got.Status {
				case "":
					sent++
				case statusFailed:
					t.Errorf("%s: failed by an old word of WeChat's", name)
				}
			}
			if sent == 0 {
				t.Errorf("%s: WeChat is not asked again", name)
			}
		})
	}
}

// TestDeletedTemplate: WeChat refuses what the list has, and a newer list lacks it: that is both of them.
func TestDeletedTemplate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.add()
		a.step(t, "listed", isChecked, 1)
		a.lister.set(func(l *lister) { l.list = standardLister().list })
		time.Sleep(minRefreshInterval)
		a.catalog.invalidate(absentID)
		time.Sleep(time.Second)
		a.step(t, "refused; the list is read meanwhile", isChecked, 2)
		a.step(t, "deleted", isGone, 2)
	})
}

// TestUnknownTemplateUnread: where the list cannot be read again, WeChat decides.
func TestUnknownTemplateUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.step(t, "not in a fresh list", putOff, 1)
		a.lister.set(func(l *lister) { l.err = errors.New("busy") })
		time.Sleep(minRefreshInterval)
		a.row.Reason = sql.NullString{}
		a.step(t, "the list is read", isRead, 2)
		a.step(t, "in vain", isSent, 2)
	})
}

// TestAbsencesAreForgotten: producers may invent any number of ids.
func TestAbsencesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.verdictOf(a.row)
		time.Sleep(maxCatalogAge)
		a.verdictOf(orderRow())
		synctest.Wait()
		if n := len(a.catalog.missing); n != 0 {
			t.Errorf("%d absences are kept", n)
		}
	})
}

// TestNoPreflight: without a pre-flight nothing is kept of what WeChat says.
func TestNoPreflight(t *testing.T) {
	a := preparer()
	a.catalog.invalidate(absentID)
	a.catalog.confirm(absentID)
	if a.catalog.missing != nil {
		t.Error("it is")
	}
}

// listedAPI is WeChat with another list of templates.
type listedAPI struct {
	API
	list *lister
}

func (a listedAPI) PrivateTemplates(ctx context.Context) ([]wechat.Template, error) {
	return a.list.PrivateTemplates(ctx)
}

// clockStepper is a stepper with a pre-flight by another list, and with a clock that can be put forward.
type clockStepper struct {
	*stepper
	ahead atomic.Int64
}

func newClockStepper(t *testing.T, list *lister) *clockStepper {
	c := &clockStepper{}
	f := newFixture(t)
	f.config.Now = func() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }
	f.config.Accounts[0].Preflight = true
	f.config.Accounts[0].API = listedAPI{f.config.Accounts[0].API, list}
	c.stepper = newStepper(t, f)
	return c
}

// later makes all pending rows due a while later, and attempts them.
func (c *clockStepper) later(t *testing.T, d time.Duration) {
	t.Helper()
	c.ahead.Add(int64(d))
	c.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) WHERE status = 'pending'`)
	c.attempt(t)
	c.account.catalog.wait()
}

// TestLyingListOfRows: WeChat's list lacks a valid template for a quarter of an hour. No row fails of it.
func TestLyingListOfRows(t *testing.T) {
	list := standardLister()
	all := list.list
	list.list = all[1:]
	c := newClockStepper(t, list)
	for i := range 20 {
		c.insert(t, columns{"unionid": c.unionid(i)})
	}
	for range 8 {
		c.later(t, retryTemplate+time.Second)
		c.later(t, refreshingRetry)
	}
	if n := c.count(t, `SELECT COUNT(*) FROM send_request WHERE status NOT IN ('pending', 'sent')`); n > 0 {
		t.Errorf("%d valid messages have failed, because the list lied", n)
	}
	if n := c.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`); n < 4 {
		t.Errorf("%d messages have gone out in a quarter of an hour", n)
	}
	list.set(func(l *lister) { l.list = all })
	c.later(t, time.Hour)
	c.later(t, refreshingRetry)
	if n := c.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`); n != 20 {
		t.Errorf("%d of 20 are sent when the list is right again", n)
	}
}

// TestUnknownTemplateOfRows: a mistyped id costs one call, and fails all rows.
func TestUnknownTemplateOfRows(t *testing.T) {
	c := newClockStepper(t, standardLister())
	for i := range 20 {
		c.insert(t, columns{"unionid": c.unionid(i), "template": absentID})
	}
	c.attempt(t)
	for range 3 {
		c.later(t, retryTemplate+time.Second)
		c.later(t, refreshingRetry)
	}
	if n := c.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'failed' AND reason = 'unknown_template'`); n != 20 {
		t.Errorf("%d of 20 rows have failed", n)
	}
	if n := c.sim.Calls()[wechat.EndpointSendTemplate]; n != 1 {
		t.Errorf("%d calls", n)
	}
}

// TestHastenedTemplate: the operator adds the template, and hastens the row before the list shows it.
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
	if r := c.row(t, id); r.Status != string(statusPending) || r.reason() != reasonUnknownTemplate {
		t.Errorf("hastened: %s, %s", r.Status, r.reason())
	}
	c.later(t, retryTemplate)
	c.later(t, refreshingRetry)
	if r := c.row(t, id); r.Status != string(statusSent) {
		t.Errorf("two minutes later: %s, %s", r.Status, r.reason())
	}
}
