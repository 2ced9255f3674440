package wechatsim

import (
	"bytes"
	"encoding/json"
)

// scanner reads JSON without building values. The simulator spends most of its time in three small
// requests, for which encoding/json would be the dearest step. After the first syntax error bad is
// set and every method does nothing more.
type scanner struct {
	b              []byte
	i              int
	bad            bool
	unicodeEscapes bool // a \uXXXX stood in some string
}

// peek returns the next byte that is not white space, or 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		switch char := s.b[s.i]; char {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return char
		}
	}
	return 0
}

func (s *scanner) fail() { s.bad, s.i = true, len(s.b) }

// accept steps over char if it comes next.
func (s *scanner) accept(char byte) bool {
	if s.bad || s.peek() != char {
		return false
	}
	s.i++
	return true
}

func (s *scanner) expect(char byte) {
	if !s.accept(char) {
		s.fail()
	}
}

// more reports whether the object or array that closes with end has a further element, and steps to
// it. The first call after the opening bracket passes first = true.
func (s *scanner) more(first bool, end byte) bool {
	if s.bad || s.accept(end) {
		return false
	}
	if !first {
		s.expect(',')
	}
	return !s.bad
}

// key reads an object's next key and the colon.
func (s *scanner) key() []byte {
	key := s.text()
	s.expect(':')
	return key
}

// text reads a string and resolves its escapes. The result aliases the input if it has none.
func (s *scanner) text() []byte {
	start := s.i
	raw, escaped := s.rawString()
	if !escaped || s.bad {
		return raw
	}
	var value string
	if err := json.Unmarshal(bytes.TrimLeft(s.b[start:s.i], " \t\r\n"), &value); err != nil {
		s.fail()
		return nil
	}
	return []byte(value)
}

// rawString reads a string as it stands, without its quotes.
func (s *scanner) rawString() (raw []byte, escaped bool) {
	s.expect('"')
	start := s.i
	for s.i < len(s.b) {
		switch char := s.b[s.i]; {
		case char == '"':
			s.i++
			return s.b[start : s.i-1], escaped
		case char == '\\':
			escaped = true
			s.escape()
		case char < 0x20:
			s.fail()
			return nil, false
		}
		s.i++
	}
	s.fail()
	return nil, false
}

// escape checks the escape that begins here and steps to its last byte.
func (s *scanner) escape() {
	rest := s.b[s.i+1:]
	if len(rest) >= 5 && rest[0] == 'u' && isHex(rest[1]) && isHex(rest[2]) && isHex(rest[3]) &&
		isHex(rest[4]) {
		s.unicodeEscapes = true
		s.i += 5
		return
	}
	if len(rest) == 0 || bytes.IndexByte([]byte(`"\/bfnrt`), rest[0]) < 0 {
		s.fail()
		return
	}
	s.i++
}

func isHex(char byte) bool {
	return char >= '0' && char <= '9' || char|0x20 >= 'a' && char|0x20 <= 'f'
}

// value steps over any value and returns it as it stands.
func (s *scanner) value() []byte {
	first := s.peek()
	start := s.i
	switch first {
	case '{':
		s.i++
		for first := true; s.more(first, '}'); first = false {
			s.key()
			s.value()
		}
	case '[':
		s.i++
		for first := true; s.more(first, ']'); first = false {
			s.value()
		}
	case '"':
		s.rawString()
	default:
		s.scalar()
	}
	if s.bad {
		return nil
	}
	return s.b[start:s.i]
}

// scalar steps over a number, true, false or null.
func (s *scanner) scalar() {
	start := s.i
	for s.i < len(s.b) && !bytes.ContainsRune([]byte(",]} \t\r\n"), rune(s.b[s.i])) {
		s.i++
	}
	if !json.Valid(s.b[start:s.i]) {
		s.fail()
	}
}

// stringOr reads a string; any other value is stepped over and gives nil, wrong = true.
func (s *scanner) stringOr() (text []byte, wrong bool) {
	if s.peek() != '"' {
		s.value()
		return nil, true
	}
	return s.text(), false
}

// end reports whether all of the input was well-formed JSON.
func (s *scanner) end() bool { return !s.bad && s.peek() == 0 && s.i == len(s.b) }
