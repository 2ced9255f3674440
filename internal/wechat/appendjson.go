package wechat

import (
	"encoding/json"
	"unicode/utf8"

	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

// AppendString appends s as a JSON string in raw UTF-8. It writes no \u escape, which some
// endpoints refuse (40033, 47002): invalid UTF-8 becomes U+FFFD, and control characters without a
// short escape are left out; WeChat refuses both anyway.
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

// TemplateData returns the data of a message as WeChat takes it: {"thing1":{"value":"x"}}.
func TemplateData(values []keyword.Value) json.RawMessage {
	size := 2
	for _, v := range values {
		size += len(v.Key) + len(v.Value) + len(`"":{"value":""},`)
	}
	out := append(make([]byte, 0, size), '{')
	for i, v := range values {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(AppendString(out, v.Key), `:{"value":`...)
		out = append(AppendString(out, v.Value), '}')
	}
	return append(out, '}')
}
