package wechat

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// KeywordValue is one entry of a template message's data.
type KeywordValue struct{ Key, Value string }

// KeywordProblem says what is wrong, or was changed, about one entry of a message's data. It never holds the value itself,
// which is personal: it is made for logs, columns and pages.
type KeywordProblem struct {
	Key    string // thing1
	Rule   string // "thing takes at most 20", "is missing"
	Length int    // of the value as it was given, in characters; 0 where the rule speaks for itself
}

// String is such as "data.thing1 has 25 characters, thing takes at most 20".
func (p KeywordProblem) String() string {
	if p.Length == 0 {
		return "data." + p.Key + " " + p.Rule
	}
	return fmt.Sprintf("data.%s has %d characters, %s", p.Key, p.Length, p.Rule)
}

// Keywords is what a template's data must carry, read out of the template's text once.
type Keywords struct {
	keys   []keyword
	legacy bool
}

type keyword struct {
	name string
	kind string       // the name without its number: thing, time, …
	rule *keywordRule // nil: of a kind that is not documented
}

// Keywords reads the placeholders of the template's text.
func (t Template) Keywords() *Keywords {
	k := &Keywords{}
	for _, name := range t.Keys() {
		kind := kindOf(name)
		k.keys = append(k.keys, keyword{name, kind, ruleOf(kind)})
		// The templates from before the categories named their keys as they liked (first, keyword1, orderSum, remark, and
		// name and number too); those of the categories are a kind and a number.
		k.legacy = k.legacy || kind == name || kind == "keyword" || kind == "first" || kind == "remark"
	}
	return k
}

// Legacy reports whether the template is one from before 2023-05-04, with first, remark or keyword1. WeChat refuses no value
// of such a template: it strips and truncates.
func (k *Keywords) Legacy() bool { return k.legacy }

// Empty reports whether the template's text has no placeholder that could be read; nothing can be said of its data then.
func (k *Keywords) Empty() bool { return len(k.keys) == 0 }

// Has reports whether the template has the key.
func (k *Keywords) Has(key string) bool { return k.find(key) != nil }

func (k *Keywords) find(key string) *keyword {
	for i := range k.keys { // a dozen at most
		if k.keys[i].name == key {
			return &k.keys[i]
		}
	}
	return nil
}

// Check returns what WeChat would answer with 47003, in the order of the template's text; nil if nothing, as always for
// legacy templates. It refuses only what breaks a documented rule for certain: a refusal here loses a message that WeChat might
// have taken, while a pass costs a call whose answer names the key too. So a value whose kind is not documented only has to
// be there, and so do the listed values of enum and const, which only the console shows.
//
// https://developers.weixin.qq.com/doc/service/guide/product/template_message/Template_Message_Interface.html
func (k *Keywords) Check(values []KeywordValue) []KeywordProblem {
	if k.legacy {
		return nil
	}
	var found []KeywordProblem
	for i := range k.keys {
		key := &k.keys[i]
		value, ok := lookUp(values, key.name)
		if !ok {
			found = append(found, KeywordProblem{Key: key.name, Rule: "is missing"})
			continue
		}
		if broken := key.check(value); broken != "" {
			found = append(found, KeywordProblem{Key: key.name, Rule: broken, Length: utf8.RuneCountInString(value)})
		}
	}
	return found
}

// check returns the rule that a value breaks.
func (k *keyword) check(value string) string {
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

// Doubts returns what WeChat will not show of a legacy template's data; nil for other templates. Keys that the template does
// not have are not looked at.
//
// https://developers.weixin.qq.com/community/develop/doc/000a2ae286cdc0f41a8face4c51801
func (k *Keywords) Doubts(values []KeywordValue) []KeywordProblem {
	if !k.legacy {
		return nil
	}
	var found []KeywordProblem
	for i := range k.keys {
		name := k.keys[i].name
		value, ok := lookUp(values, name)
		switch {
		case name == "first" || name == "remark":
			if ok && value != "" {
				found = append(found, NotShown(name))
			}
		case !ok:
			found = append(found, KeywordProblem{Key: name, Rule: "is missing"})
		case longer(value, legacyShown):
			found = append(found, KeywordProblem{name,
				fmt.Sprintf("of which WeChat shows %d", legacyShown), utf8.RuneCountInString(value)})
		case strings.ContainsAny(value, "\r\n"):
			found = append(found, KeywordProblem{name, "and a line break, at which WeChat cuts or which it removes",
				utf8.RuneCountInString(value)})
		}
	}
	return found
}

// NotShown is the doubt about a first line or a tail, which WeChat shows of no message any more.
func NotShown(key string) KeywordProblem {
	return KeywordProblem{Key: key, Rule: "is not shown any more, since 2023-05-04"}
}

// Fit shortens, in place, the values of kind thing that WeChat would refuse for their length, and makes blanks of their line
// breaks. It returns what it changed, with the length from before. Other kinds are left alone: half a number, id, date, amount
// or name says something else than the whole. The key alone tells the kind, so that no template needs to be known; legacy
// templates have no such keys.
func Fit(values []KeywordValue) []KeywordProblem {
	var changed []KeywordProblem
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
			done = strings.TrimPrefix(done+fmt.Sprintf(", shortened to %d", utf8.RuneCountInString(value)), ", ")
		}
		if value != was {
			values[i].Value = value
			changed = append(changed, KeywordProblem{key, done, utf8.RuneCountInString(was)})
		}
	}
	return changed
}

// kindOf is a key without its number: thing of thing1.
func kindOf(key string) string { return strings.TrimRight(key, "0123456789") }

func lookUp(values []KeywordValue, key string) (string, bool) {
	for i := range values {
		if values[i].Key == key {
			return values[i].Value, true
		}
	}
	return "", false
}
