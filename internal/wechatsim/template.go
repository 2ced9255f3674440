package wechatsim

import (
	"regexp"
	"strings"
	"sync/atomic"
)

// template is one of an official account or of a mini program, with what was read out of its
// content.
type template struct {
	Template
	keys     []keyword
	legacy   bool // a template from before the categories: its values are never refused
	longTerm bool // of a mini program: one acceptance is for all messages
	banned   atomic.Bool
}

// keyword is one placeholder of a template.
type keyword struct {
	name   string
	rule   func(value string) bool // nil: of no known kind
	listed []string                // for enum and const
}

// newKeyword reads the kind out of the name, which is the kind and a number: thing1, time2,
// amount3.
func newKeyword(name string, listed []string) keyword {
	return keyword{name: name, rule: keywordRule(strings.TrimRight(name, "0123456789")),
		listed: listed}
}

var placeholder = regexp.MustCompile(`\{ ?\{\s*(\w+)\.DATA\s*\} ?\}`)

func newTemplate(t Template) *template {
	parsed := &template{Template: t}
	parsed.banned.Store(t.Disabled)
	for _, match := range placeholder.FindAllStringSubmatch(t.Content, -1) {
		key := newKeyword(match[1], t.Values[match[1]])
		parsed.keys = append(parsed.keys, key)
		parsed.legacy = parsed.legacy || key.rule == nil
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
	if t := s.mustApp(appid).template([]byte(templateID)); t != nil {
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
