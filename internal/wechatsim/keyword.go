package wechatsim

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// keywordRule is the limit of reference §4.4 for a kind of keyword, nil for an unknown kind, as
// legacy templates have. Lengths count characters, not bytes.
func keywordRule(kind string) func(value string) bool {
	switch kind {
	case "thing", "const", "short_thing": // the limit of the last is not documented
		return func(v string) bool { return atMost(v, 20) && all(v, printable) }
	case "enum":
		return func(v string) bool { return all(v, printable) }
	case "number":
		return func(v string) bool { return atMost(v, 32) && isDecimal(strings.TrimPrefix(v, "-")) }
	case "letter":
		return func(v string) bool { return atMost(v, 32) && all(v, isLetter) }
	case "symbol":
		return func(v string) bool { return atMost(v, 5) && all(v, isSymbol) }
	case "character_string":
		return func(v string) bool { return atMost(v, 32) && all(v, isVisibleASCII) }
	case "time":
		return func(v string) bool { return isRange(v, isTime) }
	case "date":
		return func(v string) bool { return isRange(v, isDate) }
	case "amount":
		return func(v string) bool { return isAmount(v, 12) }
	case "phone_number":
		return func(v string) bool {
			return atMost(v, 17) && all(v, isVisibleASCII) && !anyOf(v, isLetter)
		}
	case "car_number":
		return func(v string) bool { return atMost(v, 8) && all(v, printable) }
	case "name":
		return isName
	case "phrase":
		return func(v string) bool { return atMost(v, 5) && all(v, isHan) }
	}
	return nil
}

// accepts reports whether a value may stand for a keyword of a category template.
func (k keyword) accepts(value string) bool {
	if k.listed != nil && !slices.Contains(k.listed, value) {
		return false
	}
	return k.rule(value)
}

// isBlank reports whether the platform calls a value empty: nothing, white space, or only symbols
// that it cannot show (reference §4.2, the note on 47003 names ①).
func isBlank(value []byte) bool {
	for _, char := range string(value) {
		unsupported := char >= 0x2460 && char <= 0x24ff || char >= 0x1f000 && char <= 0x1faff
		if !unicode.IsSpace(char) && !unsupported {
			return false
		}
	}
	return true
}

func atMost(value string, characters int) bool {
	return len(value) <= characters || utf8.RuneCountInString(value) <= characters
}

func all(value string, rule func(rune) bool) bool {
	for _, char := range value {
		if !rule(char) {
			return false
		}
	}
	return true
}

func anyOf(value string, rule func(rune) bool) bool { return strings.IndexFunc(value, rule) >= 0 }

func printable(r rune) bool      { return r >= 0x20 && r != 0x7f && r != 0x2028 && r != 0x2029 }
func isVisibleASCII(r rune) bool { return r >= 0x20 && r < 0x7f }
func isDigit(r rune) bool        { return r >= '0' && r <= '9' }
func isLetter(r rune) bool       { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
func isHan(r rune) bool          { return unicode.Is(unicode.Han, r) }
func isSymbol(r rune) bool       { return unicode.IsPunct(r) || unicode.IsSymbol(r) }

func isDecimal(value string) bool {
	whole, fraction, dotted := strings.Cut(value, ".")
	return whole != "" && all(whole, isDigit) && all(fraction, isDigit) &&
		(!dotted || fraction != "")
}

// isAmount: one currency symbol at most, so many digits, maybe 元.
func isAmount(value string, digits int) bool {
	if r, size := utf8.DecodeRuneInString(value); unicode.Is(unicode.Sc, r) || r == '￥' {
		value = value[size:]
	}
	value = strings.TrimSuffix(value, "元")
	return len(strings.Replace(value, ".", "", 1)) <= digits && isDecimal(value)
}

// isName: 10 Chinese characters, or 20 letters and symbols.
func isName(value string) bool {
	if anyOf(value, isHan) {
		return atMost(value, 10) && all(value, printable)
	}
	return atMost(value, 20) && all(value, printable)
}

// isRange takes one moment, or two with a half-width ~ between them; the full-width one is refused.
func isRange(value string, rule func(string) bool) bool {
	from, to, ranged := strings.Cut(value, "~")
	return rule(strings.TrimSpace(from)) && (!ranged || rule(strings.TrimSpace(to)))
}

// isTime: a 24-hour time, alone or behind a date.
func isTime(value string) bool {
	if at := strings.LastIndexByte(value, ' '); at >= 0 {
		return isDay(value[:at]) && isClock(value[at+1:])
	}
	return isClock(value)
}

// isDate: a date, alone or before a 24-hour time; year and month, or month and day.
func isDate(value string) bool {
	return isDay(value) || isPartOfDay(value) || isTime(value) && strings.ContainsRune(value, ' ')
}

// isClock: 15:04 or 15:04:05.
func isClock(value string) bool {
	parts := strings.Count(value, ":")
	hours, rest, _ := strings.Cut(value, ":")
	minutes, seconds, _ := strings.Cut(rest, ":")
	return (parts == 1 || parts == 2) && inRange(hours, 0, 23) && inRange(minutes, 0, 59) &&
		(parts == 1 || inRange(seconds, 0, 59))
}

// isDay: 2026-01-02, 2026/01/02, 2026.01.02 or 2026年1月2日.
func isDay(value string) bool {
	for _, form := range [...][3]string{{"-", "-", ""}, {"年", "月", "日"}, {"/", "/", ""},
		{".", ".", ""}} {
		year, rest, ok := strings.Cut(value, form[0])
		if !ok {
			continue
		}
		month, day, _ := strings.Cut(rest, form[1])
		day, _ = strings.CutSuffix(day, form[2])
		return len(year) == 4 && inRange(year, 0, 9999) && inRange(month, 1, 12) &&
			inRange(day, 1, 31)
	}
	return false
}

// isPartOfDay: 2026-01 or 2026年1月, 01-02 or 1月2日, with the separators of isDay.
func isPartOfDay(value string) bool {
	if month, day, ok := strings.Cut(value, "月"); ok && strings.HasSuffix(day, "日") {
		return inRange(month, 1, 12) && inRange(strings.TrimSuffix(day, "日"), 1, 31)
	}
	for _, form := range [...][2]string{{"-", ""}, {"年", "月"}, {"/", ""}, {".", ""}} {
		first, second, ok := strings.Cut(value, form[0])
		if !ok {
			continue
		}
		second, ended := strings.CutSuffix(second, form[1])
		if len(first) == 4 {
			return ended && inRange(first, 0, 9999) && inRange(second, 1, 12)
		}
		return form[1] == "" && inRange(first, 1, 12) && inRange(second, 1, 31)
	}
	return false
}

// inRange reads a short number without strconv, whose errors allocate.
func inRange(digits string, low, high int) bool {
	if digits == "" || len(digits) > 4 || !all(digits, isDigit) {
		return false
	}
	number := 0
	for i := range len(digits) {
		number = number*10 + int(digits[i]-'0')
	}
	return number >= low && number <= high
}
