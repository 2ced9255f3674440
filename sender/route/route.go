// Package route says which accounts a request may use, and in which order. It holds the rules alone:
// no SQL, no call, and nothing that is remembered between two rows.
package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// Kind is a word of a route: what kind of account comes next.
type Kind string

// The kinds.
const (
	Official Kind = "official"
	Mini     Kind = "mini"
)

// Account is one that sends.
type Account struct {
	AppID   string
	Kind    Kind
	Default bool // rows without appid and without a route belong to it
}

// Config is what the rules go by.
type Config struct {
	Accounts  []Account
	Templates channel.Templates
	Aliases   map[string][]Kind // the order of an alias's accounts; without one: the default account
}

// Rules are the routes of all requests. They are safe for concurrent use.
type Rules struct {
	cfg   Config
	homes map[string]string // by alias
}

// New returns the rules.
func New(cfg Config) *Rules {
	r := &Rules{cfg, make(map[string]string, len(cfg.Templates))}
	for alias := range cfg.Templates {
		plan, _ := r.Plan(Row{Template: alias}) // only words of a row's own are rejected
		r.homes[alias] = plan.First
	}
	return r
}

// Row is what a request says of its way, as its columns have it.
type Row struct {
	Template     string
	AppID        string // "": not given
	Route        string // the row's own words; "": none
	MiniAppID    string
	FallbackFrom string // the account that it was moved from first; "": it was not
}

// Plan is a request's way.
type Plan struct {
	First string // the account that is tried first
	Next  string // the one that it may be moved to; "": none
	Words string // the route that a first claim writes into the row; "": the row's stays as it is
}

// Other returns the other account of the way; "": there is none.
func (p Plan) Other(appid string) string {
	switch appid {
	case p.First:
		return p.Next
	case p.Next:
		return p.First
	}
	return ""
}

// Kind returns the kind of an account; "": it does not send.
func (r *Rules) Kind(appid string) Kind {
	for _, a := range r.cfg.Accounts {
		if a.AppID == appid {
			return a.Kind
		}
	}
	return ""
}

// Home returns the account whose claims find the rows of a template that name no account; "": none
// sends. It passes on those whose own words say something else.
func (r *Rules) Home(template string) string {
	if home, alias := r.homes[template]; alias {
		return home
	}
	return r.fallback()
}

// Plan returns a row's way, or why its words make none.
func (r *Rules) Plan(row Row) (Plan, *channel.Rejection) {
	row = Row{bridge.ID(row.Template), bridge.ID(row.AppID), strings.TrimSpace(row.Route),
		bridge.ID(row.MiniAppID), bridge.ID(row.FallbackFrom)}
	words, rejection := parse(row.Route)
	switch {
	case rejection != nil:
		return Plan{}, rejection
	case row.FallbackFrom != "" && row.AppID != "" && row.AppID != row.FallbackFrom:
		return Plan{First: row.FallbackFrom, Next: row.AppID}, nil
	case row.FallbackFrom != "":
		return r.named(row.FallbackFrom, words, row), nil
	case row.AppID != "":
		return r.named(row.AppID, words, row), nil
	case len(words) > 0:
		return r.own(words, row)
	}
	words = r.cfg.Aliases[row.Template]
	plan := r.inOrder(words, row)
	if plan.First == "" { // the account says what is missing
		plan.First = r.fallback()
	}
	if len(words) > 1 {
		plan.Words = join(words)
	}
	return plan, nil
}

// named is the way of a row whose first account is known: the only one, unless its words name more.
func (r *Rules) named(appid string, words []Kind, row Row) Plan {
	plan, own := Plan{First: appid}, r.Kind(appid)
	for _, kind := range words {
		if kind != own && r.isAlias(row.Template) {
			plan.Next = r.choose(kind, row, true)
		}
	}
	return plan
}

// own is the way that a row's own words name.
func (r *Rules) own(words []Kind, row Row) (Plan, *channel.Rejection) {
	plan := r.inOrder(words, row)
	switch {
	case plan.First != "":
		return plan, nil
	case len(words) == 1 && words[0] == Mini:
		return plan, channel.Reject(channel.ReasonBadOption, fmt.Sprintf(
			"route is mini, and it does not say which one: set appid, or set mini_appid to a mini "+
				"program that sends template %q", channel.Clip(row.Template, 60)))
	}
	plan.First = r.fallback()
	return plan, nil
}

// inOrder is the way by kinds. A template's id belongs to one account alone, so only aliases have a
// second one.
func (r *Rules) inOrder(words []Kind, row Row) (plan Plan) {
	for _, kind := range words {
		appid := r.choose(kind, row, plan.First != "")
		switch {
		case plan.First == "":
			plan.First = appid
		case r.isAlias(row.Template):
			plan.Next = appid
		}
	}
	return plan
}

// choose returns the account of a kind that a row's template may be sent from; "": none, or it is
// not certain which. second: the row has been tried elsewhere before.
func (r *Rules) choose(kind Kind, row Row, second bool) string {
	var can []string
	for _, a := range r.cfg.Accounts {
		switch {
		case a.Kind != kind || r.cfg.Templates.Known(row.Template, a.AppID) == "":
		case kind == Official && a.Default, kind == Mini && row.MiniAppID == a.AppID:
			return a.AppID
		default:
			can = append(can, a.AppID)
		}
	}
	// Rows without appid are the default official account's; any other has to be named.
	if len(can) != 1 || kind == Mini && row.MiniAppID != "" || kind == Official && !second {
		return ""
	}
	return can[0]
}

// fallback is the account of rows that say nothing of theirs.
func (r *Rules) fallback() string {
	for _, a := range r.cfg.Accounts {
		if a.Default {
			return a.AppID
		}
	}
	return ""
}

func (r *Rules) isAlias(template string) bool {
	_, alias := r.cfg.Templates[template]
	return alias
}

// parse reads a row's words.
func parse(route string) (words []Kind, _ *channel.Rejection) {
	if route == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(route, ",") {
		kind := Kind(strings.TrimSpace(word))
		if kind != Official && kind != Mini || slices.Contains(words, kind) {
			return nil, channel.Reject(channel.ReasonBadOption, fmt.Sprintf(
				"route %q is none of official, mini, and both with a comma between them in the order "+
					"in which they are tried", channel.Clip(route, 60)))
		}
		words = append(words, kind)
	}
	return words, nil
}

func join(words []Kind) string {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = string(w)
	}
	return strings.Join(texts, ",")
}
