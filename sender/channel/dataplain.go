package channel

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

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
		switch {
		case key == "value":
			value, found = text, found+1
		case strings.EqualFold(key, "value"):
			return false // encoding/json takes Value for value
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

// number reads digits with or without a fraction. An exponent is left to encoding/json, and so is a
// needless 0 in front, which it refuses.
func (p *plain) number() (string, bool) {
	text := p.rest[:len(p.rest)-len(strings.TrimLeft(p.rest, "-.0123456789"))]
	whole, fraction, dotted := strings.Cut(strings.TrimPrefix(text, "-"), ".")
	if !areDigits(whole) || len(whole) > 1 && whole[0] == '0' || dotted && !areDigits(fraction) {
		return "", false
	}
	p.rest = p.rest[len(text):]
	return text, true
}

func areDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
