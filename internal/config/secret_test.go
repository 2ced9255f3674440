package config

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const hush = "hush-5e9f0a1b2c3d"

// wrapped holds a Config where fmt cannot call its methods.
type wrapped struct{ cfg Config }

func TestSecretNeverPrints(t *testing.T) {
	cfg := Config{
		Database: Database{DSN: NewSecret(hush)},
		OfficialAccounts: []OfficialAccount{{
			Secret: NewSecret(hush), Callback: &Callback{Token: NewSecret(hush),
				AESKey: NewSecret(hush)},
			Token: Token{URL: NewSecret(hush),
				Header: map[string]HeaderValue{"Authorization": {Value: NewSecret(hush)}}},
		}},
		MiniPrograms: []MiniProgram{{Secret: NewSecret(hush)}},
	}
	secret := cfg.Database.DSN
	for what, value := range map[string]any{
		"secret": secret, "pointer": &secret, "config": cfg, "config pointer": &cfg,
		"unexported": wrapped{cfg},
		"list":       []Secret{secret}, "key": map[Secret]Secret{secret: secret},
	} {
		t.Run(what, func(t *testing.T) {
			for verb, printed := range prints(value) {
				if leaks(printed) {
					t.Errorf("%s prints the secret: %s", verb, printed)
				}
			}
		})
	}
	if got, want := fmt.Sprintf("%s|%v|%+v|%#v|%q|%x|%d", secret, secret, secret, secret, secret,
		secret, secret),
		strings.TrimSuffix(strings.Repeat(redacted+"|", 7), "|"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if secret.Reveal() != hush {
		t.Errorf("Reveal() = %q", secret.Reveal())
	}
}

// prints renders value by every way that a program has of printing one.
func prints(value any) map[string]string {
	all := make(map[string]string)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t",
		"%e", "%c", "%U", "%p", "%w", "%20.3v"} {
		all[verb] = fmt.Sprintf(verb, value)
	}
	all["print"] = fmt.Sprint(value)
	all["error"] = fmt.Errorf("using %v: %w", value, errors.ErrUnsupported).Error()
	for name, marshal := range map[string]func(any) ([]byte, error){"json": json.Marshal,
		"yaml": yaml.Marshal, "xml": xml.Marshal} {
		data, err := marshal(value)
		all[name] = fmt.Sprintf("%s %v", data, err)
	}
	var text, object bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "value", value,
		slog.Group("g", "value", value))
	slog.New(slog.NewJSONHandler(&object, nil)).Info("m", "value", value)
	all["slog text"], all["slog json"] = text.String(), object.String()
	return all
}

// leaks looks for the secret as it is and in hexadecimal.
func leaks(printed string) bool {
	plain := strings.ToLower(strings.ReplaceAll(printed, " ", ""))
	return strings.Contains(plain, hush) || strings.Contains(plain, fmt.Sprintf("%x", hush))
}

func TestSecretEqual(t *testing.T) {
	for _, test := range []struct {
		a, b Secret
		want bool
	}{
		{NewSecret("a"), NewSecret("a"), true},
		{NewSecret("a"), NewSecret("b"), false},
		{Secret{}, Secret{}, true},
		{Secret{}, NewSecret(""), false},
	} {
		if got := test.a.Equal(test.b); got != test.want {
			t.Errorf("%q.Equal(%q) = %t", test.a.Reveal(), test.b.Reveal(), got)
		}
	}
}

// leakFile spreads secrets over the ways to write one. Every ten characters of them are searched
// for.
const leakFile = `database:
  dsn: "Qzdsn4711user:Qzdsn0815pass@tcp(127.0.0.1:3306)/unionbridge"
official_accounts:
  - appid: wx0123456789abcdef
    secret: 9f8e7d6c5b4a39281706f5e4d3c2b1a0
    callback: {token: QzTokenQzTokenQzToken, aes_key: "QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUiOpAsDfGhJ"}
    sync:
      sweep: "17 3 * * *"
      refresh: "@every 5m"
    name: 服务号
  - {appid: wx0123456789abcde0, secret: '0a1b2c3d4e5f60718293a4b5c6d7e8f9', name: zwei}
  - appid: wx0123456789abcde1
    secret:
      1122334455667788990011223344556677
    callback:
      token: |
        QzBlockQzBlockQzBlock
      aes_key: >-
        ZxCvBnMaSdFgHjKlQwErTyUiOpZxCvBnMaSdFgHjKlQ
  - appid: wx0123456789abcde2
    token:
      mode: url
      url: "https://tokens.example/QzPathQzPathQzPathQzP?key=QzQueryQzQueryQzQuery&app=7"
      header:
        Authorization: {value: "Bearer QzHeaderQzHeaderQzHea"}
        X-Key:
          value: QzOtherQzOtherQzOther
http: {listen: 127.0.0.1:8080}
`

var leakSecrets = regexp.MustCompile(`Qzdsn\w+|[0-9a-f]{32,}|Qz\w{19,}|\w{43}`)

// TestErrorsShowNoSecret makes every slip of one character that a hand can make in a file, removing
// each character and inserting each of those that mean something to YAML, loses each line, shifts
// each line, and reads the errors.
func TestErrorsShowNoSecret(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	var pieces []string
	for _, secret := range leakSecrets.FindAllString(leakFile, -1) {
		for i := 0; i+10 <= len(secret); i += 3 {
			pieces = append(pieces, secret[i:i+10])
		}
	}
	if len(pieces) < 60 {
		t.Fatalf("only %d pieces of secrets: the expression misses some", len(pieces))
	}
	failed := 0
	check := func(file string) {
		_, _, err := decode([]byte(file), "/nonexistent", "f.yaml")
		if err == nil {
			return
		}
		failed++
		for _, piece := range pieces {
			if strings.Contains(err.Error(), piece) {
				t.Errorf("%q is shown by:\n%v\nof the file\n%s", piece, err, file)
				return
			}
		}
	}
	for i := range len(leakFile) {
		check(leakFile[:i] + leakFile[i+1:])
		for _, slip := range []string{"\n", "\t", " ", ":", ": ", "\"", "'", "{", "}", "[", "#",
			",", "- ", "*", "&", "!", "|", ">", "@", "%", "\x00", "x"} {
			check(leakFile[:i] + slip + leakFile[i:])
		}
		if t.Failed() {
			return
		}
	}
	lines := strings.SplitAfter(leakFile, "\n")
	for i, line := range lines {
		before, after := strings.Join(lines[:i], ""), strings.Join(lines[i+1:], "")
		check(before + after)
		check(before + "  " + line + after)
		check(before + strings.TrimPrefix(line, "  ") + after)
		check(before + strings.TrimLeft(line, " ") + after)
		check(before + "templates:\n" + line + after)
	}
	if failed < 1000 {
		t.Errorf("only %d of the slips were errors: the test looks at too little", failed)
	}
}

// TestFileKeys keeps the list of what an excerpt may show honest.
func TestFileKeys(t *testing.T) {
	keys := fileKeys()
	for key, want := range map[string]bool{
		"secret": false, "token": false, "aes_key": false, "dsn": false,
		"appid": true, "secret_file": true, "max_gone": true, "page": true, "url": false,
		"value": false, "value_file": true,
	} {
		if got, known := keys[key]; !known || got != want {
			t.Errorf("%s may be shown: %t, known: %t", key, got, known)
		}
	}
}
