package wechatsim

import (
	"regexp"
	"strings"
	"sync/atomic"
)

// template is a Template with what was read out of its content.
type template struct {
	Template
	keys   []keyword
	legacy bool // a template from before the categories: its values are never refused
	banned atomic.Bool
}

// keyword is one placeholder of a template.
type keyword struct {
	name   string
	kind   string   // the name without its number: thing, time, amount, …
	listed []string // for enum and const
}

var placeholder = regexp.MustCompile(`\{ ?\{\s*(\w+)\.DATA\s*\} ?\}`)

func newTemplate(t Template) *template {
	parsed := &template{Template: t}
	parsed.banned.Store(t.Disabled)
	for _, match := range placeholder.FindAllStringSubmatch(t.Content, -1) {
		kind := strings.TrimRight(match[1], "0123456789")
		parsed.keys = append(parsed.keys, keyword{name: match[1], kind: kind, listed: t.Values[match[1]]})
		if _, known := keywordRules[kind]; !known {
			parsed.legacy = true
		}
	}
	return parsed
}

func (a *app) template(id []byte) *template {
	for _, t := range a.templates { // 25 at most
		if t.ID == string(id) {
			return t
		}
	}
	return nil
}

// BanTemplate lets sends of a template be answered 43116, or no longer.
func (s *Server) BanTemplate(appid, templateID string, banned bool) {
	if t := s.mustAccount(appid).template([]byte(templateID)); t != nil {
		t.banned.Store(banned)
	}
}

func (c *call) privateTemplates() {
	list := make([]Template, 0, len(c.app.templates))
	spaced := c.app.quirks.Load().SpacedBraces
	for _, t := range c.app.templates {
		shown := t.Template
		if spaced {
			shown.Content = strings.NewReplacer("{{", "{ {", "}}", "} }").Replace(shown.Content)
		}
		list = append(list, shown)
	}
	c.json(map[string]any{"template_list": list})
}
