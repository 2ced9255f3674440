package wechat

import (
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxExcerpt = 120 // bytes quoted of an answer that is not WeChat's JSON
	maxMessage = 300 // bytes kept of an errmsg or of a network error's text

	redacted = "[redacted]"
)

// Words that no message needs and a token or session key may be. Tokens have 130 characters and
// more, an openid has 28, a template id 43. The narrow pattern serves the calls whose answers are
// secrets: a session key has 24 characters.
var (
	longWord  = regexp.MustCompile(`[A-Za-z0-9_-]{64,}`)
	shortWord = regexp.MustCompile(`[A-Za-z0-9+/=_-]{24,}`)
	// net/http quotes a proxy's address that it cannot parse, password included.
	userinfo = regexp.MustCompile(`[^\s/:@"]+:[^\s/@"]+@`)
	// Named secrets that are not ours to know, such as those of another call in a proxy's page.
	named = regexp.MustCompile(`(?i)(session_key|access_token|refresh_token|secret|js_code)(["'\s]*[:=]["'\s]*)[^"'\s&,}]+`)
)

// clean makes a foreign text fit for logs: no secret of this call, one line, printable, bounded.
func (a *attempt) clean(text string, limit int) string {
	for _, s := range append([]string{a.client.cfg.Secret, a.request.token}, a.request.secrets...) {
		text = withoutSecret(text, s)
		if escaped := url.QueryEscape(s); escaped != s {
			text = withoutSecret(text, escaped)
		}
	}
	text = named.ReplaceAllString(text, "${1}${2}"+redacted)
	word := longWord
	if !a.request.endpoint.kind.quotable() {
		word = shortWord
	}
	text = word.ReplaceAllLiteralString(text, redacted)
	text = userinfo.ReplaceAllLiteralString(text, redacted+"@")
	return shorten(printable(text), limit)
}

// excerpt is what may be shown of an undecipherable body: nothing where it may hold a secret.
func (a *attempt) excerpt(body []byte) string {
	if !a.request.endpoint.kind.quotable() {
		return ""
	}
	// Cut before cleaning, so that a megabyte of HTML is not searched.
	return a.clean(string(body[:min(len(body), 4<<10)]), maxExcerpt)
}

// withoutSecret removes a secret, and what a cut body may have left of it: its first eight
// characters and what follows of it.
func withoutSecret(text, secret string) string {
	if secret == "" {
		return text
	}
	text = strings.ReplaceAll(text, secret, redacted)
	if len(secret) < 16 {
		return text
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, secret[:8])
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString(redacted)
		text = rest[commonPrefix(rest, secret[8:]):]
	}
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func printable(text string) string {
	blank := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) || unicode.IsSpace(r) }
	return strings.Join(strings.FieldsFunc(text, blank), " ")
}

func shorten(text string, limit int) string {
	const mark = "…"
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len(mark)], "") + mark
}
