package keyword

import (
	"regexp"
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
// 1767337440), or numbers that no clock and no calendar shows. Eight digits may be a date. A date
// may be of a coarser grain than a day, as in the table of the official parameters.
func isMoment(value string) bool {
	m := momentReader{rest: strings.TrimSpace(closeUp(halfWidth(value)))}
	found := false
	for m.words(); m.rest != ""; m.words() {
		if !m.clock() && !m.date() {
			return false
		}
		found = true
	}
	return found
}

var (
	blankBeforeUnit  = regexp.MustCompile(`([0-9]) +([年月日号])`)
	blankBeforeMonth = regexp.MustCompile(`年 +([0-9]{1,2}月)`)
	blankBeforeDay   = regexp.MustCompile(`月 +([0-9]{1,2}[日号])`)
)

// closeUp removes the blanks within a date such as 2026 年 1 月 2 日.
func closeUp(value string) string {
	if !strings.Contains(value, " ") || !strings.ContainsAny(value, "年月") {
		return value
	}
	value = blankBeforeUnit.ReplaceAllString(value, "$1$2")
	value = blankBeforeMonth.ReplaceAllString(value, "年$1")
	return blankBeforeDay.ReplaceAllString(value, "月$1")
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

// clock reads 15:01, 15:01:30, 15时01分 or 15时, with ISO 8601's fraction and zone. 24:00 ends a day.
func (m *momentReader) clock() bool {
	was := m.rest
	hour := m.small(0, 24)
	mark := m.mark(":：时点")
	whole := *m
	if !hour || mark == 0 || !m.small(0, 59) {
		// Minutes that are there must be right; without them the hour says what it is.
		*m = whole
		if hour && (mark == '时' || mark == '点') && !m.digit() {
			return true
		}
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

// date reads 2026-01-02, 2026-01 or 01-02 with -, /, . or 年月日, also 2026年, 1月, 2日 and 20260102.
func (m *momentReader) date() bool {
	was := m.rest
	if m.compact() {
		return true
	}
	mark := rune(0)
	_, digits := m.number()
	if digits == 4 {
		mark = m.mark("-/.年")
	}
	dated := mark != 0
	if !dated { // no year
		m.rest = was
	}
	if mark == '年' && !m.digit() {
		return true
	}
	month := *m
	if !dated && m.small(1, 31) && m.mark("日号") != 0 { // the end of a range within a month
		return true
	}
	*m = month
	if !m.small(1, 12) {
		m.rest = was
		return false
	}
	mark = m.mark("-/.月")
	if !m.digit() { // without a day
		return dated || mark == '月'
	}
	if mark == 0 || !m.small(1, 31) {
		m.rest = was
		return false
	}
	m.mark("日号")
	return true
}

// compact reads a day as eight digits, with a time as twelve or fourteen.
func (m *momentReader) compact() bool {
	rest := strings.TrimLeftFunc(m.rest, isDigit)
	switch len(m.rest) - len(rest) {
	case len("20260102"), len("202601021504"), len("20260102150405"):
		m.rest = rest
		return true
	}
	return false
}

// digit reports whether a digit follows.
func (m *momentReader) digit() bool { return m.rest != "" && isDigit(rune(m.rest[0])) }
