package main

import (
	"maps"
	"slices"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/web/compat"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// doorAccounts tell the door for SDKs what the accounts are.
type doorAccounts struct {
	*bridge.Map
	kinds      map[string]compat.Kind // of accounts that send
	official   string                 // the default one
	successors map[string]string
	titles     map[string]map[string]string // aliases by account and template id
	channels   map[string]channel.Channel
}

func (p *parts) doorAccounts() doorAccounts {
	a := doorAccounts{
		Map: bridge.New(p.db), kinds: make(map[string]compat.Kind), successors: make(map[string]string),
		titles: make(map[string]map[string]string), channels: p.channels,
	}
	for _, o := range p.cfg.OfficialAccounts {
		a.kinds[o.AppID] = compat.Official
		if o.Default {
			a.official = o.AppID
		}
	}
	for _, m := range sendingMinis(p.cfg) {
		a.kinds[m.AppID] = compat.Mini
	}
	for alias, t := range p.cfg.Templates {
		for _, id := range t.Replaces {
			a.successors[id] = alias
		}
		a.name(alias, t)
	}
	return a
}

func (a doorAccounts) name(alias string, t config.Template) {
	ids := maps.Clone(t.Official.IDs)
	if ids == nil {
		ids = make(map[string]string)
	}
	if t.Mini != nil {
		maps.Copy(ids, t.Mini.IDs)
	}
	for appid, id := range ids {
		if a.titles[appid] == nil {
			a.titles[appid] = make(map[string]string)
		}
		a.titles[appid][id] = alias
	}
}

// Kind is of an account that sends.
func (a doorAccounts) Kind(appid string) compat.Kind { return a.kinds[appid] }

// Official is the default official account.
func (a doorAccounts) Official() string { return a.official }

// Successor is the alias that has taken the place of a template.
func (a doorAccounts) Successor(templateID string) string { return a.successors[templateID] }

// Templates are those that an alias names.
func (a doorAccounts) Templates(appid string) []compat.Template {
	list := make([]compat.Template, 0, len(a.titles[appid]))
	for _, id := range slices.Sorted(maps.Keys(a.titles[appid])) {
		t := compat.Template{ID: id, Title: a.titles[appid][id]}
		if c, ok := a.channels[appid].(channel.Previewer); ok {
			t.Keys = c.Keys(id)
		}
		list = append(list, t)
	}
	return list
}
