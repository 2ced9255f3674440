package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

var (
	templateID    = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
	templateAlias = regexp.MustCompile(`^[a-z0-9_.-]{1,64}$`) // 64: the column's width
	templateKey   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
)

// The versions of a mini program that a message may open, but the published one for testers alone.
const (
	stateFormal    = "formal"
	stateTrial     = "trial"
	stateDeveloper = "developer"
)

func validateTemplates(cfg *Config, ps *problems) {
	validateReplaces(cfg, ps)
	for alias, t := range cfg.Templates {
		path := "templates." + alias
		switch {
		case templateID.MatchString(alias):
			ps.add(path, "an alias of 43 characters reads as WeChat's own template id; choose a "+
				"shorter name")
		case !templateAlias.MatchString(alias):
			ps.add(path, "an alias is 1 to 64 of a-z, 0-9, underscore, dot and hyphen")
		}
		if t.Mini == nil || t.Official.ID != "" || len(t.Official.IDs) > 0 {
			validateOfficialTemplate(cfg, path+".official", t.Official, ps)
		}
		if t.Mini != nil {
			validateMiniTemplate(cfg, path+".mini", t.Mini, ps)
		}
		validateRoute(path+".route", t, ps)
		uncertain := []string{"", UncertainUnknown, UncertainRepeat}
		if !slices.Contains(uncertain, t.Uncertain) {
			ps.add(path+".uncertain", "%s is neither unknown nor repeat", quote(t.Uncertain))
		}
	}
}

// validateReplaces: an id that two aliases replace would leave it to chance which one is sent.
func validateReplaces(cfg *Config, ps *problems) {
	by := make(map[string]string)
	for _, alias := range slices.Sorted(maps.Keys(cfg.Templates)) {
		for i, id := range cfg.Templates[alias].Replaces {
			path := fmt.Sprintf("templates.%s.replaces[%d]", alias, i)
			first, twice := by[id]
			switch {
			case id == "" || len(id) > 64:
				ps.add(path, "is not the id of a template: 1 to 64 characters")
			case twice:
				ps.add(path, "%s replaces it already; keep one of them", first)
			default:
				by[id] = "templates." + alias
			}
		}
	}
}

func validateOfficialTemplate(cfg *Config, path string, t OfficialTemplate, ps *problems) {
	if t.ID == "" && len(t.IDs) == 0 {
		ps.add(path, "has no template id; give id, or ids with one for each account's appid")
	}
	if t.ID != "" {
		validateTemplateID(path+".id", t.ID, ps)
	}
	if t.ID != "" && len(cfg.OfficialAccounts) == 0 {
		ps.add(path+".id", "there is no official account; add one, or give the template as mini")
	}
	for appid, id := range t.IDs {
		at := path + ".ids." + appid
		validateTemplateID(at, id, ps)
		named := func(a OfficialAccount) bool { return a.AppID == appid }
		switch i := slices.IndexFunc(cfg.OfficialAccounts, named); {
		case i < 0:
			ps.add(at, "no official account has this appid; add it or remove this line")
		case i == defaultIndex(cfg) && t.ID != "" && t.ID != id:
			ps.add(at, "differs from id, which is the default account's too; keep one of them")
		}
	}
}

func validateMiniTemplate(cfg *Config, path string, t *MiniTemplate, ps *problems) {
	if t.ID != "" || len(t.IDs) == 0 {
		validateTemplateID(path+".id", t.ID, ps)
	}
	for appid, id := range t.IDs {
		at := path + ".ids." + appid
		validateTemplateID(at, id, ps)
		named := func(m MiniProgram) bool { return m.AppID == appid }
		switch i := slices.IndexFunc(cfg.MiniPrograms, named); {
		case i < 0:
			ps.add(at, "no mini program has this appid; add it or remove this line")
		case i == 0 && t.ID != "" && t.ID != id:
			ps.add(at, "differs from id, which is the first mini program's too; keep one of them")
		}
	}
	if strings.Contains(t.Page, "://") {
		ps.add(path+".page", "must be a path in the mini program such as pages/order, without a host")
	}
	if !slices.Contains([]string{"", stateFormal, stateTrial, stateDeveloper}, t.State) {
		ps.add(path+".state", "%s is none of formal, trial, developer", quote(t.State))
	}
	if !slices.Contains([]string{"", "zh_CN", "en_US", "zh_HK", "zh_TW"}, t.Lang) {
		ps.add(path+".lang", "%s is none of zh_CN, en_US, zh_HK, zh_TW", quote(t.Lang))
	}
	validateKeys(path+".keys", t.Keys, ps)
}

// validateKeys: two names for one key of the template would leave it to chance which one is sent.
func validateKeys(path string, keys map[string]string, ps *problems) {
	from := make(map[string]string, len(keys))
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		key := keys[name]
		switch first, twice := from[key]; {
		case !templateKey.MatchString(name):
			ps.add(path, "a name is 1 to 64 letters, digits and underscores, such as thing1")
		case !templateKey.MatchString(key):
			ps.add(path+"."+name, "%s is not a key of a template, such as thing1", quote(key))
		case twice:
			ps.add(path+"."+name, "%s is %s already; each key has one name", key, first)
		}
		from[key] = name
	}
}

func validateRoute(path string, t Template, ps *problems) {
	has := map[string]bool{RouteMini: t.Mini != nil,
		RouteOfficial: t.Official.ID != "" || len(t.Official.IDs) > 0}
	for i, channel := range t.Route {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch given, known := has[channel]; {
		case !known:
			ps.add(at, "%s is neither official nor mini", quote(channel))
		case !given:
			ps.add(at, "the alias has no %s; give it there, or remove this element", channel)
		case slices.Contains(t.Route[:i], channel):
			ps.add(at, "%s stands there twice", channel)
		}
	}
}

func validateTemplateID(path, id string, ps *problems) {
	if !templateID.MatchString(id) {
		ps.add(path, "%s is not a template id: 43 letters, digits, hyphens and underscores, as "+
			"the platform's console shows it", quote(id))
	}
}

// templateWarnings are about templates that work, and not as somebody expects.
func templateWarnings(cfg *Config) (list []string) {
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, alias := range slices.Sorted(maps.Keys(cfg.Templates)) {
		t := cfg.Templates[alias].Mini
		if t == nil {
			continue
		}
		path := "templates." + alias + ".mini"
		if t.State == stateTrial || t.State == stateDeveloper {
			warn("%s.state: %s: only the mini program's testers can open the messages' page; use "+
				"formal for everybody else", path, t.State)
		}
		if t.ID != "" && len(cfg.MiniPrograms) > 1 {
			warn("%s.id: it is of the first mini program, %s; give ids with one for each appid",
				path, cfg.MiniPrograms[0].AppID)
		}
		if t.ID != "" && len(cfg.MiniPrograms) == 0 {
			warn("%s.id: there is no mini program to send it; add one under mini_programs", path)
		}
		for _, m := range cfg.MiniPrograms {
			if t.IDs[m.AppID] != "" && !m.Sends {
				warn("%s: %s has no secret, so it cannot send; give it secret_file", path, m.AppID)
			}
		}
	}
	return list
}
