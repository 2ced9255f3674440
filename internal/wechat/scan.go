package wechat

import (
	"math"
	"unicode/utf8"
)

// scanner reads plain JSON several times faster than encoding/json, which is worth having on the
// two answers a sweep consists of. Its methods report false for everything out of the ordinary
// (escapes, null, fractions, invalid UTF-8, syntax errors); the caller then starts over with
// encoding/json. Where it reports true, encoding/json reads the same: a fuzz test compares them.
// Strings share the text's memory.
type scanner struct {
	text string
	pos  int
}

// token consumes one byte of punctuation and the blanks before it.
func (s *scanner) token(c byte) bool {
	s.blanks()
	if s.pos < len(s.text) && s.text[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) blanks() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) end() bool {
	s.blanks()
	return s.pos == len(s.text)
}

func (s *scanner) object(field func(key string) bool) bool {
	if !s.token('{') {
		return false
	}
	if s.token('}') {
		return true
	}
	for {
		var key string
		if !s.str(&key) || !s.token(':') || !field(key) {
			return false
		}
		if !s.token(',') {
			return s.token('}')
		}
	}
}

func (s *scanner) array(item func() bool) bool {
	if !s.token('[') {
		return false
	}
	if s.token(']') {
		return true
	}
	for {
		if !item() {
			return false
		}
		if !s.token(',') {
			return s.token(']')
		}
	}
}

func (s *scanner) strings(to *[]string) bool {
	return s.array(func() bool {
		var v string
		ok := s.str(&v)
		*to = append(*to, v)
		return ok
	})
}

func (s *scanner) str(to *string) bool {
	if !s.token('"') {
		return false
	}
	plain := true
	for i := s.pos; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			*to = s.text[s.pos:i]
			s.pos = i + 1
			return plain || utf8.ValidString(*to)
		case c == '\\' || c < 0x20:
			return false
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	return false
}

// integer reads an int64 in decimal. msgids have 19 digits, so the bound needs a check.
func (s *scanner) integer(to *int64) bool {
	s.blanks()
	negative := s.pos < len(s.text) && s.text[s.pos] == '-'
	if negative {
		s.pos++
	}
	first := s.pos
	var v uint64
	for s.pos < len(s.text) && s.text[s.pos]-'0' <= 9 {
		v = v*10 + uint64(s.text[s.pos]-'0')
		s.pos++
	}
	digits := s.pos - first
	if digits == 0 || digits > 19 || v > math.MaxInt64 || digits > 1 && s.text[first] == '0' {
		return false
	}
	*to = int64(v)
	if negative {
		*to = -*to
	}
	return true
}
