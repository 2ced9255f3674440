package wechat

import "unicode/utf8"

// AppendString appends s as a JSON string in raw UTF-8. It writes no \u escape, which some endpoints refuse (40033, 47002):
// invalid UTF-8 becomes U+FFFD, and control characters without a short escape are left out; WeChat refuses both anyway.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(append(b, s[start:i]...), escape(c)...)
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

func escape(c byte) string {
	switch c {
	case '"':
		return `\"`
	case '\\':
		return `\\`
	case '\n':
		return `\n`
	case '\r':
		return `\r`
	case '\t':
		return `\t`
	}
	return ""
}
