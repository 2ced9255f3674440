package keyword

import (
	"strings"
	"unicode/utf8"
)

// isMoments takes what may stand for time and for date: one moment, or two with a half-width ~
// between them; the full-width one is refused. Both kinds are documented as a date and a time of
// which one may be left out. Template authors do not always follow which one, so each kind takes
// either, and WeChat decides.
func isMoments(value string) bool {
	from, to, ranged := strings.Cut(value, "~")
	return !strings.Contains(to, "~") && !strings.Contains(value, "～") && isMoment(from) &&
		(!ranged || isMoment(to))
}

// isMoment: dates and 24-hour times, with any words before, between and after them, such as a day
// of the week. The documentation shows 2019年10月1日 15:01; which other notations WeChat knows is
// not said, so common ones pass. Refused is what has neither a date nor a time in it (tomorrow,
// 1767337440), or numbers that no clock and no calendar shows. Eight digits may be a date.
func isMoment(value string) bool {
	m := momentReader{rest: strings.TrimSpace(value)}
	if len(m.rest) == len("20260102") && none(m.rest, notDigit) {
		return true
	}
	found := false
	for m.words(); m.rest != ""; m.words() {
		if !m.clock() && !m.date() {
			return false
		}
		found = true
	}
	return found
}

// momentReader reads a moment from the front of rest; what does not match leaves rest as it was.
type momentReader struct{ rest string }

func (m *momentReader) words() {
	m.rest = strings.TrimLeftFunc(m.rest, notDigit)
}

func (m *momentReader) number() (n, digits int) {
	for digits < len(m.rest) && digits < 4 && isDigit(rune(m.rest[digits])) {
		n = n*10 + int(m.rest[digits]-'0')
		digits++
	}
	m.rest = m.rest[digits:]
	return n, digits
}

func (m *momentReader) mark(of string) rune {
	r, size := utf8.DecodeRuneInString(m.rest)
	if size == 0 || !strings.ContainsRune(of, r) {
		return 0
	}
	m.rest = m.rest[size:]
	return r
}

func (m *momentReader) small(least, most int) bool {
	n, digits := m.number()
	return digits >= 1 && digits <= 2 && n >= least && n <= most
}

// clock reads 15:01, 15:01:30 or 15时01分, with ISO 8601's fraction and zone. 24:00 ends a day.
func (m *momentReader) clock() bool {
	was := m.rest
	ok := m.small(0, 24) && m.mark(":：时点") != 0 && m.small(0, 59)
	if !ok {
		m.rest = was
		return false
	}
	switch m.mark(":：分") {
	case '分', 0:
	default:
		if !m.small(0, 60) { // a leap second
			m.rest = was
			return false
		}
	}
	m.rest = strings.TrimLeft(m.rest, "秒.:+-0123456789Z ")
	return true
}

// date reads 2026-01-02 with -, /, . or 年月日, the year left out or not.
func (m *momentReader) date() bool {
	was := m.rest
	_, digits := m.number()
	if digits != 4 { // no year
		m.rest = was
	} else if m.mark("-/.年") == 0 {
		m.rest = was
		return false
	}
	ok := m.small(1, 12) && m.mark("-/.月") != 0 && m.small(1, 31)
	if !ok {
		m.rest = was
		return false
	}
	m.mark("日号")
	return true
}
