package route_test

import (
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/route"
)

const (
	oa, otherOA     = "wxOA", "wxOtherOA"
	mini, otherMini = "wxMini", "wxOtherMini"
)

var rawID = strings.Repeat("r", 43)

func rules() *route.Rules {
	return route.New(route.Config{
		Accounts: []route.Account{
			{AppID: oa, Kind: route.Official, Default: true}, {AppID: otherOA, Kind: route.Official},
			{AppID: mini, Kind: route.Mini}, {AppID: otherMini, Kind: route.Mini},
		},
		Templates: channel.Templates{
			"both": {oa: "t", mini: "t"}, "miniFirst": {oa: "t", mini: "t"},
			"minis": {oa: "t", mini: "t", otherMini: "t"}, "miniOnly": {mini: "t"},
			"officialOnly": {oa: "t"}, "elsewhere": {otherOA: "t", mini: "t"},
			"anyMini": {mini: "t", otherMini: "t"},
		},
		Aliases: map[string][]route.Kind{
			"both": {route.Official, route.Mini}, "miniFirst": {route.Mini, route.Official},
			"minis": {route.Official, route.Mini}, "miniOnly": {route.Mini},
			"officialOnly": {route.Official}, "elsewhere": {route.Mini, route.Official},
			"anyMini": {route.Mini},
		},
	})
}

// TestPlan has a case for each sentence of the design's paragraph on routes.
func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		row  route.Row
		want route.Plan
	}{
		"an alias may name both, its route is the order": {
			route.Row{Template: "both"}, route.Plan{oa, mini, "official,mini"}},
		"the other order": {
			route.Row{Template: "miniFirst"}, route.Plan{mini, oa, "mini,official"}},
		"an alias of one kind has one channel, and nothing to write out": {
			route.Row{Template: "miniOnly"}, route.Plan{mini, "", ""}},
		"an appid is the first and only channel": {
			route.Row{Template: "both", AppID: oa}, route.Plan{oa, "", ""}},
		"of a mini program, too": {
			route.Row{Template: "both", AppID: mini}, route.Plan{mini, "", ""}},
		"unless the row's own route names more": {
			route.Row{Template: "both", AppID: oa, Route: "official,mini"}, route.Plan{oa, mini, ""}},
		"the appid is first whatever the order": {
			route.Row{Template: "both", AppID: oa, Route: "mini,official"}, route.Plan{oa, mini, ""}},
		"the row's own route without an appid": {
			route.Row{Template: "both", Route: " mini , official "}, route.Plan{mini, oa, ""}},
		"one word of its own": {
			route.Row{Template: "both", Route: "mini"}, route.Plan{mini, "", ""}},
		"a raw template id has no second channel": {
			route.Row{Template: rawID, AppID: oa, Route: "official,mini"}, route.Plan{oa, "", ""}},
		"nor has it without an appid": {
			route.Row{Template: rawID, Route: "official,mini"}, route.Plan{oa, "", ""}},
		"a raw template id goes by the default account": {
			route.Row{Template: rawID}, route.Plan{oa, "", ""}},
		"the row's mini_appid is the target": {
			route.Row{Template: "minis", MiniAppID: otherMini}, route.Plan{oa, otherMini, "official,mini"}},
		"else the alias's only mini program": {
			route.Row{Template: "both"}, route.Plan{oa, mini, "official,mini"}},
		"else none": {
			route.Row{Template: "minis"}, route.Plan{oa, "", "official,mini"}},
		"a mini_appid that does not send the template is no target": {
			route.Row{Template: "both", MiniAppID: otherMini}, route.Plan{oa, "", "official,mini"}},
		"a first channel that is none is left out": {
			route.Row{Template: "miniFirst", MiniAppID: otherMini}, route.Plan{oa, "", "mini,official"}},
		"the only official account of the alias": {
			route.Row{Template: "elsewhere"}, route.Plan{mini, otherOA, "mini,official"}},
		"a moved row": {
			route.Row{Template: "both", AppID: mini, FallbackFrom: oa, Route: "official,mini"},
			route.Plan{oa, mini, ""}},
		"back in the first": {
			route.Row{Template: "both", AppID: oa, FallbackFrom: oa, Route: "official,mini"},
			route.Plan{oa, mini, ""}},
		"written out by the first claim": {
			route.Row{Template: "both", AppID: mini, Route: "mini,official"}, route.Plan{mini, oa, ""}},
		"an unknown template is the default account's": {
			route.Row{Template: "nosuch"}, route.Plan{oa, "", ""}},
		"blanks say nothing": {
			route.Row{Template: "both  ", AppID: "  ", MiniAppID: " "}, route.Plan{oa, mini, "official,mini"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, rejection := rules().Plan(c.row)
			if got != c.want || rejection != nil {
				t.Errorf("%+v: %+v, %+v; want %+v", c.row, got, rejection, c.want)
			}
		})
	}
}

// TestBadWords: words that make no way end the row with what is wrong.
func TestBadWords(t *testing.T) {
	for _, row := range []route.Row{
		{Template: "both", Route: "sms"}, {Template: "both", Route: "official,sms"},
		{Template: "both", Route: "official,official"}, {Template: "both", Route: "official,"},
		{Template: "both", AppID: oa, Route: "Mini"}, {Template: "anyMini", Route: "mini"},
	} {
		_, rejection := rules().Plan(row)
		if rejection == nil || rejection.Reason != channel.ReasonBadOption || rejection.After != 0 {
			t.Errorf("%+v: %+v", row, rejection)
		}
	}
}

// TestHome: the account that claims a template's rows without appid is the first of its route.
func TestHome(t *testing.T) {
	for template, want := range map[string]string{
		"both": oa, "miniFirst": mini, "miniOnly": mini, "anyMini": oa, "nosuch": oa, rawID: oa,
	} {
		if got := rules().Home(template); got != want {
			t.Errorf("%s: %s, want %s", template, got, want)
		}
	}
}
