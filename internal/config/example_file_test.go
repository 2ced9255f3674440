package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/parser"

	"github.com/unionbridge/unionbridge"
)

// exampleSecrets are the files that config.example.yaml names.
func exampleSecrets(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range map[string]string{
		"database.dsn":        "u:p@tcp(h)/d",
		"oa.secret":           "s",
		"oa.callback-token":   "t",
		"oa.callback-aes-key": aesKey,
		"mini.secret":         "s",
	} {
		writeFile(t, filepath.Join(dir, name), content, 0o600)
	}
	return dir
}

func TestExampleDecodes(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/unionbridge")
	cfg, _, err := decode(unionbridge.ExampleConfig, exampleSecrets(t), "config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(otherWarnings(cfg)) != 0 {
		t.Errorf("warnings: %q", cfg.Warnings)
	}
	if cfg.OfficialAccounts[0].Callback == nil || cfg.Templates["order_paid"].Mini == nil {
		t.Error("the example leaves a block out")
	}
}

// TestExampleComments decodes the example with what its comments offer instead of what stands
// there.
func TestExampleComments(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "")
	text := string(unionbridge.ExampleConfig)
	text = regexp.MustCompile(`(?m)^ *(dsn_file|secret_file|token_file|aes_key_file|id): .*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`(?m)^( *)# ((?:dsn|secret|token_env|aes_key_env|state_dir|ids|  `+
		`wx[0-9a-f]{16}):)`).ReplaceAllString(text, "$1$2")
	t.Setenv("UNIONBRIDGE_OA_CALLBACK_TOKEN", "t")
	t.Setenv("UNIONBRIDGE_OA_CALLBACK_AES_KEY", aesKey)
	cfg, _, err := decode([]byte(text), "/nonexistent", "config.example.yaml")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if cfg.StateDir != "/var/lib/unionbridge" ||
		len(cfg.Templates["order_paid"].Official.IDs) != 1 ||
		len(cfg.Templates["order_paid"].Mini.IDs) != 1 {
		t.Errorf("not all comments were taken in: %+v", cfg)
	}
}

// TestExampleTokenModes decodes what the comments offer for the other token modes.
func TestExampleTokenModes(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/unionbridge")
	dir := exampleSecrets(t)
	writeFile(t, filepath.Join(dir, "oa.token-key"), "Bearer k", 0o600)
	for mode, keys := range map[string]string{"url": "url|header|  Authorization|    value_file",
		"command": "command"} {
		text := regexp.MustCompile(`(?m)^(      )# ((?:`+keys+`):)`).ReplaceAllString(string(unionbridge.ExampleConfig), "$1$2")
		text = strings.Replace(text, "mode: stable #", "mode: "+mode+" #", 1) // the mini program's stays
		text = strings.NewReplacer("secret_file: oa.secret", "", "/usr/local/bin/wx-token",
			"/bin/sh").Replace(text)
		cfg, _, err := decode([]byte(text), dir, "config.example.yaml")
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		token := cfg.OfficialAccounts[0].Token
		switch {
		case mode == "url" && token.Header["Authorization"].Value.Reveal() == "Bearer k" &&
			token.URL.IsSet():
		case mode == "command" && len(token.Command) == 2:
		default:
			t.Errorf("%s: not all comments were taken in: %+v", mode, token)
		}
	}
}

// TestExampleIsComplete finds keys that the example does not mention.
func TestExampleIsComplete(t *testing.T) {
	for key := range fileKeys() {
		if !regexp.MustCompile(`(?m)^[ -]*(#[ #]*)?` + key + `:`).Match(unionbridge.ExampleConfig) {
			t.Errorf("config.example.yaml lacks %s", key)
		}
	}
}

// TestExampleStatesDefaults compares each "# default: x" with what the code does without the key,
// and finds defaults of the code that the example does not state.
func TestExampleStatesDefaults(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/unionbridge")
	cfg, _, err := decode(readTestdata(t, "good/smallest.yaml"), "/", "smallest.yaml")
	if err != nil {
		t.Fatal(err)
	}
	code := make(map[string]string)
	flatten(reflect.ValueOf(*cfg), "", code)
	for _, path := range []string{ // required, or derived from what is
		"database.dsn", "official_accounts[0].appid", "official_accounts[0].name",
		"official_accounts[0].default",
		"official_accounts[0].secret", "mini_programs[0].appid", "mini_programs[0].name",
		"state_dir",
	} {
		if _, ok := code[path]; !ok {
			t.Errorf("%s is not set by the smallest file", path)
		}
		delete(code, path)
	}
	stated := statedDefaults(t)
	for path, want := range stated {
		if got := code[path]; got != want && (got != "" || !zero(want)) {
			t.Errorf("config.example.yaml states %s as the default of %s, the code has %q", want,
				path, got)
		}
	}
	for path, value := range code {
		if _, ok := stated[path]; !ok {
			t.Errorf("config.example.yaml does not state the default of %s: %s", path, value)
		}
	}
}

// statedDefaults reads the example's "# default: x" comments by the path of the key beside them.
func statedDefaults(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseBytes(unionbridge.ExampleConfig, 0)
	if err != nil {
		t.Fatal(err)
	}
	ps := &problems{at: make(map[string]position)}
	ps.walk(file.Docs[0].Body, reflect.TypeFor[Config](), "")
	comment := regexp.MustCompile(`^ *\w+: (.*) # default: (.*)$`)
	defaults := make(map[string]string)
	lines := strings.Split(string(unionbridge.ExampleConfig), "\n")
	for path, pos := range ps.at {
		match := comment.FindStringSubmatch(lines[pos.line-1])
		if match == nil {
			continue
		}
		value := strings.Trim(match[2], `"`)
		if shown := strings.Trim(match[1], `"`); shown != value && path != "http.callback_listen" {
			t.Errorf("%s is shown as %s and its default stated as %s", path, shown, value)
		}
		defaults[path] = value
	}
	return defaults
}

// flatten writes value's leaves that are not zero into leaves, by path, as the file writes them.
func flatten(value reflect.Value, path string, leaves map[string]string) {
	switch v := value.Interface().(type) {
	case Duration:
		leaves[path] = shortDuration(v)
		return
	case Secret, Percent:
		if !value.IsZero() {
			leaves[path] = fmt.Sprint(v)
		}
		return
	}
	switch value.Kind() {
	case reflect.Struct:
		for i := range value.NumField() {
			if name := yamlName(value.Type().Field(i)); name != "" {
				flatten(value.Field(i), strings.TrimPrefix(path+"."+name, "."), leaves)
			}
		}
	case reflect.Slice:
		for i := range value.Len() {
			flatten(value.Index(i), fmt.Sprintf("%s[%d]", path, i), leaves)
		}
	default:
		if !value.IsZero() {
			leaves[path] = fmt.Sprint(value.Interface())
		}
	}
}

// zero reports whether a stated default is what Go gives a field that nobody sets: flatten leaves
// those out.
func zero(stated string) bool { return stated == "0" || stated == "false" }

// shortDuration writes 72h0m0s as 72h.
func shortDuration(d Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// TestExampleApplications decodes what the comments offer for the doors.
func TestExampleApplications(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/unionbridge")
	dir := exampleSecrets(t)
	writeFile(t, filepath.Join(dir, "shop.hash"), hashOne, 0o644)
	writeFile(t, filepath.Join(dir, "shop.echo"), "token", 0o600)
	before, block, ok := strings.Cut(string(unionbridge.ExampleConfig), "# applications:\n")
	if !ok {
		t.Fatal("the example has no applications")
	}
	block = regexp.MustCompile(`(?m)^# ?`).ReplaceAllString(block, "")
	before = regexp.MustCompile(`(?m)^  # (api_(?:listen|plain|proxy_from):)`).ReplaceAllString(before, "  $1")
	cfg, _, err := decode([]byte(before+"applications:\n"+block), dir, "config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Applications) != 1 || len(cfg.Applications[0].Accounts) != 2 ||
		cfg.Applications[0].Limit.Day == 0 || cfg.HTTP.APIListen == "" || len(cfg.HTTP.APIProxyFrom) != 1 {
		t.Errorf("not all comments were taken in: %+v", cfg)
	}
	if len(otherWarnings(cfg)) != 0 {
		t.Errorf("warnings: %q", cfg.Warnings)
	}
}

// TestAPITLS accepts a certificate with its key, and makes their paths absolute.
func TestAPITLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t)
	writeFile(t, filepath.Join(dir, "api.crt"), cert, 0o644)
	writeFile(t, filepath.Join(dir, "api.key"), key, 0o644)
	text := string(readTestdata(t, "good/smallest.yaml")) +
		"\nhttp: {api_listen: \":443\", api_tls: {cert_file: api.crt, key_file: api.key}}\n"
	cfg, _, err := decode([]byte(text), dir, "f.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if want := (APITLS{filepath.Join(dir, "api.crt"), filepath.Join(dir, "api.key")}); cfg.HTTP.APITLS != want {
		t.Errorf("api_tls = %+v, want %+v", cfg.HTTP.APITLS, want)
	}
	if warnings := strings.Join(cfg.Warnings, "\n"); !strings.Contains(warnings, "http.api_tls.key_file: every user") {
		t.Errorf("no warning of a key that everybody can read: %s", warnings)
	}
}

// TestHashFile finds the file that is still to be made, in a configuration that is wrong without it.
func TestHashFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	writeFile(t, path, "applications:\n- {name: shop, secret_hash_file: shop.hash}\n- {name: till}\n", 0o600)
	if got, err := HashFile(path, "shop"); err != nil || got != filepath.Join(dir, "shop.hash") {
		t.Errorf("HashFile = %q, %v", got, err)
	}
	for name, words := range map[string]string{"till": "secret_hash_file: missing", "other": `none is called "other"`} {
		if _, err := HashFile(path, name); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("HashFile(%s) = %v, want it to say %q", name, err, words)
		}
	}
}

// certificate returns a new certificate and its key, in PEM.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, data []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", encoded)
}
