package config

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// fileKeys returns the keys that a file may hold and, for each, whether its value may be shown.
func fileKeys() map[string]bool {
	keys := make(map[string]bool)
	collectKeys(reflect.TypeFor[Config](), keys)
	return keys
}

func collectKeys(typ reflect.Type, keys map[string]bool) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return
	}
	for _, field := range reflect.VisibleFields(typ) {
		name := yamlName(field)
		if name == "" {
			continue
		}
		shown, seen := keys[name]
		// token is a mapping in one place and a secret in another: it stays hidden in both.
		keys[name] = field.Type != reflect.TypeFor[Secret]() && (shown || !seen)
		collectKeys(field.Type, keys)
	}
}

// masker rewrites one line. It reads YAML loosely: the line is broken, or it would not be shown.
type masker struct {
	keys   map[string]bool
	rest   string
	shown  strings.Builder
	secret bool // the line gave a value to a secret's key, which may go on below
	flow   bool // inside { }
}

var (
	lineStart = regexp.MustCompile(`^(?:[ \t]|- )*`)
	keyColon  = regexp.MustCompile(`^["']?([A-Za-z0-9_.-]{1,31})["']?[ \t]*:`)
	plain     = regexp.MustCompile(`^[ \t]*["']?[^"'{}\[\],#|>&*!?@]*["']?[ \t]*`)
	flowNext  = regexp.MustCompile(`^[ \t]*(?:[},\]][ \t]*)+`)
	flowOpen  = regexp.MustCompile(`^[ \t]*[{\[][ \t]*`)
)

func (m *masker) run(hidden bool) {
	m.take(lineStart.FindString(m.rest))
	for !hidden && m.rest != "" && m.pair() {
	}
	m.mask()
}

func (m *masker) mask() {
	if strings.TrimSpace(m.rest) != "" {
		if strings.HasSuffix(m.shown.String(), ":") {
			m.shown.WriteString(" ")
		}
		m.shown.WriteString(redacted)
	}
	m.rest = ""
}

// pair takes a key with its value, or the bracket that opens it; false: mask the rest.
func (m *masker) pair() bool {
	if open := flowOpen.FindString(m.rest); open != "" {
		m.flow = true
		m.take(open)
		return true
	}
	key := keyColon.FindStringSubmatch(m.rest)
	if key == nil || looksSecret(key[1]) {
		return false
	}
	public, known := m.keys[key[1]]
	after := m.rest[len(key[0]):]
	if !known && after != "" && !strings.HasPrefix(after, " ") {
		return false // a part of a value, of a DSN for example
	}
	m.take(key[0])
	opens := flowOpen.MatchString(m.rest)
	empty := strings.TrimSpace(m.rest) == ""
	m.secret = sensitive(key[1]) || !public && !opens && !empty
	switch {
	case m.secret:
		m.mask()
		return false
	case opens || empty: // a mapping is looked at key by key, be its key unknown or an alias
		return opens
	default:
		return m.value()
	}
}

func (m *masker) value() bool {
	text := plain.FindString(m.rest)
	after := m.rest[len(text):]
	next := ""
	if m.flow {
		next = flowNext.FindString(after)
	}
	whole := after == "" || next != "" || strings.HasPrefix(after, "#") && strings.HasSuffix(text, " ")
	if !whole || strings.Contains(text, ": ") || looksSecret(strings.Trim(strings.TrimSpace(text), `"'`)) {
		return false
	}
	m.take(text + next)
	return next != ""
}

func startsWithKey(line string, keys map[string]bool) bool {
	key := keyColon.FindStringSubmatch(line[len(lineStart.FindString(line)):])
	if key == nil {
		return false
	}
	_, known := keys[key[1]]
	return known
}

func (m *masker) take(text string) {
	m.shown.WriteString(text)
	m.rest = m.rest[len(text):]
}

// sensitive reports whether a key names a secret, or would but for a typing mistake.
func sensitive(key string) bool {
	if strings.HasSuffix(key, "_file") || strings.HasSuffix(key, "_env") {
		return false
	}
	key = strings.ToLower(key)
	for _, part := range []string{"secret", "token", "key", "dsn", "pass"} {
		if strings.Contains(key, part) {
			return true
		}
	}
	return false
}

var secretShapes = regexp.MustCompile(`^[0-9a-fA-F]{32}$|^[A-Za-z0-9+/]{43}=?$|@(?:tcp|unix)?\(|:.*@`)

// looksSecret reports whether text is likely a secret in the place of something else, such as an
// AppSecret behind secret_env.
func looksSecret(text string) bool { return secretShapes.MatchString(text) }

// unquotable finds what no wrong value that is worth repeating holds: a run of twenty letters and
// digits (an appid has 18), a key with its colon, the name of a secret's key.
var unquotable = regexp.MustCompile(`[A-Za-z0-9+]{20}|[a-z_]+:(?:\s|$)|secret|token|aes_key|dsn`)

// quote quotes a wrong value in a message. One that may hold a secret is not repeated: a forgotten
// comma or quotation mark draws what follows into it.
func quote(value string) string {
	const longest = 64 // a cron line with the longest zone's name
	if len(value) > longest || looksSecret(value) || unquotable.MatchString(value) {
		return `"` + redacted + `"`
	}
	return strconv.Quote(value)
}
