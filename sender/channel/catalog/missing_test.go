package catalog

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// absentRow is a test of rows whose template the list lacks.
type absentRow struct {
	*Catalog
	list *lister
}

// verdict is what becomes of a row. What is sent without a check keeps the key that no template
// has.
type verdict struct {
	Reason string
	After  time.Duration
	Final  bool
	Sent   int    // values
	Warns  string // the keys of the warnings
}

var (
	putOff    = verdict{Reason: "unknown_template", After: RetryAfter}
	isRead    = verdict{After: refreshWait}
	isGone    = verdict{Reason: "unknown_template", Final: true}
	isSent    = verdict{Sent: 2}
	isChecked = verdict{Sent: 1, Warns: "note"}
)

func newAbsentRow(t *testing.T) *absentRow {
	list := standard()
	return &absentRow{Catalog: newCatalog(t, list), list: list}
}

// add puts the template into WeChat's list.
func (a *absentRow) add() {
	a.list.set(func(l *lister) {
		l.list = append(l.list, wechat.Template{ID: absentID, Content: "{{thing1.DATA}}"})
	})
}

func (a *absentRow) look() (verdict, channel.Rejection) {
	m, why := a.ask(absentID, keyword.Value{Key: "note", Value: "y"}, good)
	if why.Message != "" {
		return verdict{Reason: why.Reason, After: why.After, Final: why.After == 0}, why
	}
	v := verdict{Sent: len(m.Values)}
	for _, w := range m.Warnings {
		v.Warns += w.Key
	}
	return v, why
}

// step looks at a row, and wants the list to have been loaded so many times then.
func (a *absentRow) step(t *testing.T, what string, want verdict, calls int) {
	t.Helper()
	got, why := a.look()
	if named := strings.Contains(why.Message, absentID); named != (got.Reason != "") ||
		strings.Contains(why.Message, "40037") != got.Final {
		t.Errorf("%s: %s", what, why.Message)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s, -want +got:\n%s", what, diff)
	}
	synctest.Wait()
	if n := a.list.count(); n != calls {
		t.Errorf("%s: %d loads of the list, want %d", what, n, calls)
	}
}

// probe goes as far as the row that asks WeChat.
func (a *absentRow) probe(t *testing.T) {
	t.Helper()
	a.step(t, "not in a fresh list", putOff, 1)
	time.Sleep(RetryAfter)
	a.step(t, "not in an old list", isRead, 2)
	time.Sleep(refreshWait)
	a.step(t, "still not in a fresh one: WeChat is asked", isSent, 2)
}

// TestMissing: a template fails its rows when the list lacks it and WeChat has refused it; one row
// asks WeChat.
func TestMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.step(t, "not in a fresh list", putOff, 1)
		a.step(t, "and hastened by an operator", putOff, 1)
		time.Sleep(RetryAfter - time.Second)
		a.step(t, "hastened again", isRead, 2)
		a.step(t, "before two minutes have passed", putOff, 2)
		time.Sleep(time.Second)
		m := &Message{TemplateID: absentID, Values: []keyword.Value{good}, Redelivery: true}
		if why := a.Validate(t.Context(), m); why != nil {
			t.Errorf("what may be under way is sent again, and asks nothing: %+v", *why)
		}
		a.step(t, "WeChat is asked", isSent, 2)
		a.step(t, "by one row", putOff, 2)

		a.Invalidate(absentID)
		a.step(t, "refused, but the list is from before", putOff, 2)
		time.Sleep(minRefreshInterval)
		a.step(t, "the list is read", isRead, 3)
		a.step(t, "both deny it", isGone, 3)
		a.step(t, "so new rows fail at once", isGone, 3)

		a.add()
		time.Sleep(minRefreshInterval)
		a.step(t, "added", isRead, 4)
		a.step(t, "and seen", isChecked, 4)
		if n := len(a.missing); n != 0 {
			t.Errorf("%d missing templates are kept", n)
		}
	})
}

// TestMissingProbes: as long as WeChat gives no answer about the template, one row in two minutes
// asks for it.
func TestMissingProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.probe(t)
		sent := 0
		for range 10 * 60 {
			time.Sleep(time.Second)
			for range 3 {
				if got, _ := a.look(); got == isSent {
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
		a.Invalidate(absentID) // as for a wrong value (47003), of a template that WeChat knows
		a.Confirm(absentID)
		for range 3 {
			a.step(t, "it is sent without a check", isSent, 2)
		}
		time.Sleep(maxAge / 2)
		a.Confirm(absentID)
		time.Sleep(maxAge / 2)
		a.step(t, "and the list is read as often as any", isSent, 3)
		a.step(t, "which changes nothing", isSent, 3)
		a.Invalidate(absentID)
		a.step(t, "until WeChat refuses it", putOff, 3)
		time.Sleep(RetryAfter)
		a.step(t, "and a newer list", isRead, 4)
		a.step(t, "lacks it still", isGone, 4)
	})
}

// TestOldRefusal: what WeChat said long ago does not fail a row; it is asked again.
func TestOldRefusal(t *testing.T) {
	for name, every := range map[string]time.Duration{
		"rows all the time": time.Minute, "none for an hour": maxAge,
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newAbsentRow(t)
			a.probe(t)
			a.Invalidate(absentID)
			for end := time.Now().Add(maxAge); time.Now().Before(end); {
				time.Sleep(every)
				a.look()
				synctest.Wait()
			}
			sent := 0
			for range 6 { // minutes
				time.Sleep(time.Minute)
				a.look()
				synctest.Wait()
				switch got, _ := a.look(); {
				case got == isSent:
					sent++
				case got.Final:
					t.Errorf("%s: failed by an old word of WeChat's", name)
				}
			}
			if sent == 0 {
				t.Errorf("%s: WeChat is not asked again", name)
			}
		})
	}
}

// TestDeletedTemplate: WeChat refuses what the list has, and a newer list lacks it: that is both.
func TestDeletedTemplate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.add()
		a.step(t, "listed", isChecked, 1)
		a.list.set(func(l *lister) { l.list = standard().list })
		time.Sleep(minRefreshInterval)
		a.Invalidate(absentID)
		time.Sleep(time.Second)
		a.step(t, "refused; the list is read meanwhile", isChecked, 2)
		a.step(t, "deleted", isGone, 2)
	})
}

// TestMissingUnread: where the list cannot be read again, WeChat decides.
func TestMissingUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.step(t, "not in a fresh list", putOff, 1)
		a.list.set(func(l *lister) { l.err = errors.New("busy") })
		time.Sleep(minRefreshInterval)
		a.step(t, "the list is read", isRead, 2)
		a.step(t, "in vain", isSent, 2)
	})
}

// TestMissingForgotten: producers may invent any number of ids.
func TestMissingForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAbsentRow(t)
		a.look()
		time.Sleep(maxAge)
		a.ask(listedID, good)
		synctest.Wait()
		if n := len(a.missing); n != 0 {
			t.Errorf("%d missing templates are kept", n)
		}
	})
}
