package catalog

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// subscribeLister answers at once.
type subscribeLister []wechat.SubscribeTemplate

func (l subscribeLister) SubscribeTemplates(context.Context) ([]wechat.SubscribeTemplate, error) {
	return l, nil
}

var (
	foreverID = strings.Repeat("f", 43)
	sizes     = subscribeLister{
		{ID: listedID, Content: "{{thing1.DATA}} {{enum2.DATA}} {{amount3.DATA}}",
			Enums: map[string][]string{"enum2": {"大杯", "小杯"}}},
		{ID: foreverID, Content: "{{thing1.DATA}}", LongTerm: true},
	}
)

// TestSubscribe: a mini program's templates are checked by the rules of subscribe messages, and all
// that is wrong is named at once.
func TestSubscribe(t *testing.T) {
	c := NewSubscribe(sizes, slog.New(slog.DiscardHandler), time.Now)
	t.Cleanup(c.Wait)
	for _, tt := range []struct {
		name   string
		values []keyword.Value
		why    string
		warns  string
	}{
		{"fine", []keyword.Value{good, {Key: "enum2", Value: "大杯"}, {Key: "amount3", Value: "5元"}},
			"", ""},
		{"all wrong", []keyword.Value{{Key: "enum2", Value: "XL"},
			{Key: "amount3", Value: "12345678901"}},
			"data.thing1 is missing; data.enum2 has 2 characters, enum takes one of its listed " +
				"values: 大杯, 小杯; data.amount3 has 11 characters, amount takes one currency " +
				"symbol or none, at most 10 digits, and perhaps 元", ""},
		{"keys too many", []keyword.Value{good, {Key: "enum2", Value: "大杯"},
			{Key: "amount3", Value: "5元"}, {Key: "first", Value: "x"}}, "",
			"data.first is no keyword of the template and was left out"},
	} {
		m, why := c.ask(listedID, tt.values...)
		if diff := cmp.Diff(tt.why, why.Message); diff != "" {
			t.Errorf("%s, -want +got:\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.warns, channel.Describe(m.Warnings)); diff != "" {
			t.Errorf("%s, warnings, -want +got:\n%s", tt.name, diff)
		}
	}
}

// TestLongTerm: the type of a template is read and not configured.
func TestLongTerm(t *testing.T) {
	c := NewSubscribe(sizes, slog.New(slog.DiscardHandler), time.Now)
	t.Cleanup(c.Wait)
	type kind struct{ LongTerm, Known bool }
	kindOf := func(c *Catalog, id string) (k kind) {
		k.LongTerm, k.Known = c.LongTerm(id)
		return k
	}
	if got := kindOf(c, foreverID); got != (kind{}) {
		t.Errorf("before the list is loaded: %+v", got)
	}
	c.ask(foreverID, good)
	for id, want := range map[string]kind{foreverID: {true, true}, listedID: {false, true},
		absentID: {}} {
		if got := kindOf(c, id); got != want {
			t.Errorf("%.1s…: %+v, want %+v", id, got, want)
		}
	}
	if got := kindOf(nil, foreverID); got != (kind{}) {
		t.Errorf("without a catalog: %+v", got)
	}
}

// TestSubscribeMissing: a template that the list lacks is put off, with the mini program's own
// words.
func TestSubscribeMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewSubscribe(sizes, slog.New(slog.DiscardHandler), time.Now)
		t.Cleanup(c.Wait)
		_, why := c.ask(absentID, good)
		want := channel.Rejection{Reason: channel.ReasonUnknownTemplate, After: RetryAfter,
			Message: "the mini program's list has no template " + absentID + " (console, 订阅消息, " +
				"我的模板); it is looked for again, and then WeChat is asked"}
		if diff := cmp.Diff(want, why); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		c.Invalidate(absentID)
		time.Sleep(minRefreshInterval)
		c.ask(absentID, good) // the list is read again
		synctest.Wait()
		_, why = c.ask(absentID, good)
		if why.After != 0 || !strings.HasPrefix(why.Message, "the mini program has no template") {
			t.Errorf("denied by both: %+v", why)
		}
	})
}
