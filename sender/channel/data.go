package channel

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// ParseData returns the keys and values of send_request.data, in the order of the keys. Producers
// may write {"thing1":"x"} or {"thing1":{"value":"x"}}, and numbers for strings.
func ParseData(text string) ([]keyword.Value, *Rejection) {
	var why *Rejection
	values, ok := parsePlain(text)
	if !ok {
		values, why = parseAny(text)
	}
	if why == nil && len(values) == 0 {
		why = RejectField(ReasonBadData, "data", "data is empty: give a value for each keyword of the template")
	}
	return values, why
}

// parseAny reads what encoding/json takes, and says what is wrong with the rest.
func parseAny(text string) ([]keyword.Value, *Rejection) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &fields); err != nil || fields == nil {
		return nil, RejectField(ReasonBadData, "data",
			`data must be a JSON object such as {"thing1":"text"}, not `+kindOf(text))
	}
	values := make([]keyword.Value, 0, len(fields))
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		value, ok := fieldValue(fields[key])
		if !ok {
			return nil, RejectField(ReasonBadData, "data."+Clip(key, 60), fmt.Sprintf(
				`data.%s must be a string, a number or {"value":"…"}, not %s`,
				Clip(key, 60), kindOf(string(fields[key]))))
		}
		values = append(values, keyword.Value{Key: key, Value: visible(value)})
	}
	return values, nil
}

// fieldValue reads "x", 12.50 or {"value": "x"}; a number keeps its digits as they were written.
func fieldValue(raw json.RawMessage) (value string, ok bool) {
	if raw[0] == '{' {
		var object struct {
			Value json.RawMessage `json:"value"`
		}
		if json.Unmarshal(raw, &object) != nil || object.Value == nil {
			return "", false
		}
		raw = object.Value
	}
	if raw[0] == '"' {
		err := json.Unmarshal(raw, &value)
		return value, err == nil
	}
	return string(raw), raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9'
}

// visible leaves out the control characters that package wechat does not write either, so that what
// is checked is what goes out.
func visible(value string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' && r != '\r' && r != '\t' {
			return -1
		}
		return r
	}, value)
}

func kindOf(text string) string {
	switch text = strings.TrimSpace(text); {
	case text == "null":
		return "null"
	case text == "true", text == "false":
		return "a boolean"
	case strings.HasPrefix(text, "["):
		return "an array"
	case strings.HasPrefix(text, `"`):
		return "a string"
	case strings.HasPrefix(text, "{"):
		return "an object"
	}
	return "a number"
}

// parsePlain reads the data that programs usually write, in a fifth of the time of encoding/json.
// It gives up on everything out of the ordinary, correct or not; parseAny then decides. What it
// reads, parseAny reads alike.
func parsePlain(text string) ([]keyword.Value, bool) {
	if !utf8.ValidString(text) {
		return nil, false
	}
	in := plain{rest: text}
	values := make([]keyword.Value, 0, 8)
	ok := in.object(func(key string) bool {
		value, ok := in.value()
		values = append(values, keyword.Value{Key: key, Value: value})
		return ok
	})
	if in.peek(); !ok || in.rest != "" {
		return nil, false
	}
	slices.SortFunc(values, func(a, b keyword.Value) int { return strings.Compare(a.Key, b.Key) })
	for i := 1; i < len(values); i++ {
		if values[i].Key == values[i-1].Key {
			return nil, false
		}
	}
	return values, true
}

// plain consumes JSON from the front of rest.
type plain struct{ rest string }

// peek skips blanks and returns the next byte, 0 at the end. A 0 in the text itself is always
// wrong.
func (p *plain) peek() byte {
	for i := range len(p.rest) {
		if c := p.rest[i]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			p.rest = p.rest[i:]
			return c
		}
	}
	p.rest = ""
	return 0
}

func (p *plain) token(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// object calls member after each key and its colon.
func (p *plain) object(member func(key string) bool) bool {
	if !p.token('{') {
		return false
	}
	for {
		key, ok := p.str()
		if !ok || !p.token(':') || !member(key) {
			return false
		}
		if p.token('}') {
			return true
		}
		if !p.token(',') {
			return false
		}
	}
}

// value reads "x", 12.50 or {"value": "x", "color": "#173177"}.
func (p *plain) value() (value string, ok bool) {
	if p.peek() != '{' {
		return p.scalar()
	}
	found := 0
	ok = p.object(func(key string) bool {
		text, ok := p.scalar()
		if strings.EqualFold(key, "value") { // encoding/json takes Value for value
			value, found = text, found+1
		}
		return ok
	})
	return value, ok && found == 1
}

func (p *plain) scalar() (string, bool) {
	if p.peek() == '"' {
		return p.str()
	}
	return p.number()
}

// str reads a string; escapes are left to encoding/json.
func (p *plain) str() (string, bool) {
	if !p.token('"') {
		return "", false
	}
	escaped := false
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			text := p.rest[:i]
			p.rest = p.rest[i+1:]
			if escaped {
				return unescape(text)
			}
			return text, true
		case c == '\\':
			escaped = true
			i++
		case c < 0x20:
			return "", false
		}
	}
	return "", false
}

func unescape(text string) (string, bool) {
	var out string
	err := json.Unmarshal([]byte(`"`+text+`"`), &out)
	return out, err == nil && visible(out) == out
}

func (p *plain) number() (string, bool) {
	text := p.rest[:len(p.rest)-len(strings.TrimLeft(p.rest, "+-.0123456789eE"))]
	p.rest = p.rest[len(text):]
	return text, json.Valid([]byte(text))
}

// maxProblems are named one by one.
const maxProblems = 20

// Describe makes one text of problems, for a column; "" of none. It holds keys, never values.
func Describe(problems []keyword.Problem) string {
	var texts []string
	for i, p := range problems {
		if i == maxProblems {
			texts = append(texts, fmt.Sprintf("and %d more", len(problems)-i))
			break
		}
		p.Key = Clip(p.Key, 60) // a row may carry any key
		texts = append(texts, p.String())
	}
	return Clip(strings.Join(texts, "; "), 1000)
}

// Clip shortens a text for people.
func Clip(s string, runes int) string {
	r := []rune(s)
	if len(r) <= runes {
		return s
	}
	return string(r[:runes]) + "…"
}
