// Package keyword knows what the values of a message's data may be: the documented types and limits
// of WeChat's keywords, for template messages and for subscribe messages. It makes no calls.
package keyword

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Value is one entry of a template message's data.
type Value struct{ Key, Value string }

// Problem says what is wrong, or was changed, about one entry of a message's data. It never holds
// the value, which is personal: problems go to logs, columns and pages.
type Problem struct {
	Key    string // thing1
	Rule   string // "thing takes at most 20", "is missing"
	Length int    // of the value as it was given, in characters; 0 where the rule speaks for itself
}

// String is such as "data.thing1 has 25 characters, thing takes at most 20".
func (p Problem) String() string {
	if p.Length == 0 {
		return "data." + p.Key + " " + p.Rule
	}
	return fmt.Sprintf("data.%s has %d characters, %s", p.Key, p.Length, p.Rule)
}

// Set is the keywords that a template's data must carry.
type Set struct {
	keys   []key
	legacy bool
}

type key struct {
	name string
	kind string // the name without its number: thing, time, …
	rule *rule  // nil: of a kind that is not documented
}

// The documentation's copies of the list show { {…} } where the guide shows {{…}}.
var placeholder = regexp.MustCompile(`\{\s*\{\s*([A-Za-z0-9_]+)\s*\.\s*DATA\s*\}\s*\}`)

// Parse reads the placeholders of a template message's template, such as {{thing1.DATA}}.
func Parse(content string) *Set {
	s := parse(content)
	for i := range s.keys {
		k := &s.keys[i]
		k.rule = ruleOf(k.kind)
		// A template from before 2023-05-04 named its keys as it liked (first, keyword1, orderSum,
		// remark, and name and number too); those of the categories are a kind and a number.
		// WeChat refuses no value of such a template: it strips and truncates.
		s.legacy = s.legacy || k.kind == k.name ||
			k.kind == "keyword" || k.kind == "first" || k.kind == "remark"
	}
	return s
}

func parse(content string) *Set {
	s := &Set{}
	for _, m := range placeholder.FindAllStringSubmatch(content, -1) {
		if name := m[1]; !s.Has(name) {
			s.keys = append(s.keys, key{name: name, kind: kindOf(name)})
		}
	}
	return s
}

// Names lists the keywords in the order of their first place in the text.
func (s *Set) Names() []string {
	var names []string
	for _, k := range s.keys {
		names = append(names, k.name)
	}
	return names
}

// Empty reports whether the text has no readable placeholder; data cannot be checked then.
func (s *Set) Empty() bool { return len(s.keys) == 0 }

// Has reports whether the template has the key.
func (s *Set) Has(key string) bool { return s.find(key) != nil }

func (s *Set) find(key string) *key {
	for i := range s.keys { // a dozen at most
		if s.keys[i].name == key {
			return &s.keys[i]
		}
	}
	return nil
}

// Check returns what WeChat would answer with 47003, in the order of the template's text; nil if
// nothing, as always for legacy templates. It refuses only what breaks a documented rule for
// certain: a refusal here loses a message that WeChat might have taken, while a pass costs a call
// whose answer names the key too. So a value whose kind is not documented only has to be there, and
// so do the listed values of enum and const, which only the console shows.
//
// https://developers.weixin.qq.com/doc/service/guide/product/template_message/Template_Message_Interface.html
func (s *Set) Check(values []Value) []Problem {
	if s.legacy {
		return nil
	}
	var found []Problem
	for i := range s.keys {
		k := &s.keys[i]
		value, ok := lookUp(values, k.name)
		if !ok {
			found = append(found, Problem{Key: k.name, Rule: "is missing"})
			continue
		}
		if broken := k.check(value); broken != "" {
			found = append(found, Problem{Key: k.name, Rule: broken, Length: utf8.RuneCountInString(value)})
		}
	}
	return found
}

func (k *key) check(value string) string {
	switch {
	case value == "":
		return "is empty"
	case isBlank(value):
		return "only blanks or symbols that WeChat does not show, which it calls empty"
	case k.rule == nil:
		return ""
	case k.rule.most > 0 && longer(value, k.rule.most):
		return fmt.Sprintf("%s takes at most %d", k.kind, k.rule.most)
	case hasControl(value):
		return k.kind + " takes no line breaks or control characters"
	case k.rule.fits != nil && !k.rule.fits(value):
		return k.kind + " takes " + k.rule.says
	}
	return ""
}

// legacyShown is how many characters of a legacy template's value WeChat shows since 2023-05-04.
const legacyShown = 20

// Doubts returns what WeChat will not show of a legacy template's data; nil for other templates.
// Keys that the template does not have are ignored.
//
// https://developers.weixin.qq.com/community/develop/doc/000a2ae286cdc0f41a8face4c51801
func (s *Set) Doubts(values []Value) []Problem {
	if !s.legacy {
		return nil
	}
	var found []Problem
	for i := range s.keys {
		name := s.keys[i].name
		value, ok := lookUp(values, name)
		switch {
		case name == "first" || name == "remark":
			if ok && value != "" {
				found = append(found, NotShown(name))
			}
		case !ok:
			found = append(found, Problem{Key: name, Rule: "is missing"})
		case longer(value, legacyShown):
			found = append(found, Problem{name,
				fmt.Sprintf("of which WeChat shows %d", legacyShown), utf8.RuneCountInString(value)})
		case strings.ContainsAny(value, "\r\n"):
			found = append(found, Problem{name,
				"and a line break, at which WeChat cuts or which it removes",
				utf8.RuneCountInString(value)})
		}
	}
	return found
}

// NotShown is the problem of a first line or a tail, which WeChat no longer shows.
func NotShown(key string) Problem {
	return Problem{Key: key, Rule: "is not shown any more, since 2023-05-04"}
}

// Fit shortens, in place, the values of kind thing that WeChat would refuse for their length, and
// makes blanks of their line breaks. It returns what it changed, with the length from before. Other
// kinds are left alone: half a number, id, date, amount or name means something else. The key alone
// shows the kind, so no template needs to be known; legacy templates have no such keys.
func Fit(values []Value) []Problem {
	var changed []Problem
	for i := range values {
		key, was := values[i].Key, values[i].Value
		if kind := kindOf(key); kind != "thing" || kind == key {
			continue
		}
		value, done := was, ""
		if hasControl(value) {
			value, done = flatten(value), "line breaks and control characters replaced by blanks"
		}
		if longer(value, mostThing) {
			value = abbreviate(value, mostThing)
			done = strings.TrimPrefix(done+fmt.Sprintf(", shortened to %d",
				utf8.RuneCountInString(value)), ", ")
		}
		if value != was {
			values[i].Value = value
			changed = append(changed, Problem{key, done, utf8.RuneCountInString(was)})
		}
	}
	return changed
}

func kindOf(key string) string { return strings.TrimRight(key, "0123456789") }

func lookUp(values []Value, key string) (string, bool) {
	for i := range values {
		if values[i].Key == key {
			return values[i].Value, true
		}
	}
	return "", false
}
