package keyword

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// rule is what is documented of a kind. No kind takes line breaks or control characters.
type rule struct {
	most int                     // characters; 0: no limit of the length alone
	fits func(value string) bool // of a value that is neither blank nor too long; nil: anything
	says string                  // what fits asks for
}

// ruleOf returns the rule of a kind, nil for one that is not documented (short_thing exists, its
// limit is not known). Where the documentation leaves a detail open (whether the point of a number
// counts, whether a name may be mixed), the wider reading applies.
func ruleOf(kind string) *rule {
	switch kind {
	case "thing", "const":
		return &rule{most: mostThing}
	case "enum":
		return &rule{}
	case "number":
		return &rule{fits: func(v string) bool { return isNumber(v, 32) },
			says: "at most 32 digits, with or without decimals"}
	case "letter":
		return &rule{most: 32, fits: func(v string) bool { return none(v, notLetter) },
			says: "letters only"}
	case "symbol":
		return &rule{most: 5, fits: func(v string) bool { return none(v, isWord) }, says: "symbols only"}
	case "character_string":
		return &rule{most: 32, fits: func(v string) bool { return none(v, isHan) },
			says: "digits, letters and symbols, no Chinese characters"}
	case "time":
		return &rule{fits: isMoments, says: "a 24-hour time such as 15:01 or 2026-01-02 15:01, a " +
			"range with a half-width ~"}
	case "date":
		return &rule{fits: isMoments, says: "a date such as 2026-01-02, with or without a time, " +
			"a range with a half-width ~"}
	case "amount":
		return amountRule(12)
	case "phone_number":
		return &rule{most: 17}
	case "car_number":
		return &rule{most: 8}
	case "name":
		return &rule{most: 20, fits: func(v string) bool { return count(v, isHan) <= 10 },
			says: "at most 10 Chinese characters or 20 letters and symbols"}
	case "phrase":
		return &rule{most: 5, fits: func(v string) bool { return none(v, isLatin) },
			says: "Chinese characters only"}
	}
	return nil
}

const mostThing = 20

// isBlank reports whether WeChat calls a value empty: white space, emoji, which it removes, and the
// enclosed numbers ① … ⓿, which it cannot show.
func isBlank(value string) bool {
	return none(value, func(r rune) bool {
		enclosed := r >= 0x2460 && r <= 0x24ff
		emoji := r >= 0x1f000 && r <= 0x1faff
		return !enclosed && !emoji && !unicode.IsSpace(r)
	})
}

// longer reports whether a value has more than so many characters. WeChat counts characters, not
// bytes; its examples do not contradict that it counts code points, also outside the basic plane.
func longer(value string, characters int) bool {
	return len(value) > characters && utf8.RuneCountInString(value) > characters
}

func hasControl(value string) bool { return strings.ContainsFunc(value, isControl) }

// isControl includes the separators of lines and paragraphs, which Unicode counts elsewhere.
func isControl(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029
}

func none(value string, is func(rune) bool) bool { return !strings.ContainsFunc(value, is) }

func count(value string, is func(rune) bool) (n int) {
	for _, r := range value {
		if is(r) {
			n++
		}
	}
	return n
}

func isASCIILetter(r rune) bool { return r|0x20 >= 'a' && r|0x20 <= 'z' }
func isDigit(r rune) bool       { return r >= '0' && r <= '9' }
func notDigit(r rune) bool      { return !isDigit(r) }
func isLatin(r rune) bool       { return isASCIILetter(r) || isDigit(r) }

// The tables of package unicode are slow; no ASCII character needs them.
func isHan(r rune) bool { return r >= 0x2e80 && unicode.Is(unicode.Han, r) }
func isWord(r rune) bool {
	return isLatin(r) || r >= 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r))
}
func notLetter(r rune) bool {
	return !isASCIILetter(r) && (r < 0x80 || !unicode.IsLetter(r) || isHan(r))
}

// halfWidth writes the full-width digits of a Chinese keyboard as the usual ones: nothing says that
// WeChat refuses them.
func halfWidth(value string) string {
	return strings.Map(func(r rune) rune {
		if r >= '０' && r <= '９' {
			return r - '０' + '0'
		}
		return r
	}, value)
}

// isNumber: digits, maybe a sign, maybe one point. The sign and the point are not counted, and nor
// are blanks around it.
func isNumber(value string, most int) bool {
	value = strings.TrimSpace(halfWidth(value))
	if value != "" && (value[0] == '-' || value[0] == '+') {
		value = value[1:]
	}
	digits, points := 0, 0
	for _, r := range value {
		switch {
		case isDigit(r):
			digits++
		case r == '.':
			points++
		default:
			return false
		}
	}
	return digits > 0 && digits <= most && points <= 1
}

func amountRule(digits int) *rule {
	return &rule{fits: func(v string) bool { return isAmount(v, digits) },
		says: fmt.Sprintf("one currency symbol or none, at most %d digits, and perhaps 元", digits)}
}

// isAmount: one currency symbol, or none, before a number of so many digits. Whether decimals are
// among them is not said, so they are not counted.
func isAmount(value string, digits int) bool {
	value = strings.TrimLeft(strings.TrimSpace(value), "+-")
	if r, size := utf8.DecodeRuneInString(value); r >= utf8.RuneSelf && unicode.Is(unicode.Sc, r) ||
		r == '$' {
		value = value[size:]
	}
	value = strings.TrimSpace(strings.TrimSuffix(value, "元"))
	whole, _, _ := strings.Cut(value, ".")
	return isNumber(value, len(value)) && len(strings.TrimLeft(whole, "+-")) <= digits
}

func flatten(value string) string {
	return strings.Join(strings.FieldsFunc(value, isControl), " ")
}

// abbreviate keeps the beginning and ends it with an ellipsis, at most so many characters in all.
// It splits no sign from its mark, and no compound emoji.
func abbreviate(value string, most int) string {
	runes := []rune(value)
	end := most - 1
	for end > 0 && (isJoined(runes[end]) || runes[end-1] == zeroWidthJoiner) {
		end--
	}
	return strings.TrimRight(string(runes[:end]), " ") + "…"
}

const zeroWidthJoiner = 0x200d

// isJoined reports whether a character belongs to the one before it: combining marks, variation
// selectors, joiners, skin tones.
func isJoined(r rune) bool {
	return r >= 0x300 && (unicode.Is(unicode.M, r) || r == zeroWidthJoiner || r >= 0x1f3fb && r <= 0x1f3ff)
}
