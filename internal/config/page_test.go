package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const keysHeader = "| key | default | meaning |"

// pageKey is a row of a page's table of keys.
type pageKey struct {
	Key     string // names in angle brackets left out, since each language has its own
	Secret  bool   // marked ¹
	Default string
}

// TestPageKeys compares the tables of docs/configuration.md and its Chinese page with the structs:
// each key once, secrets marked, and in the order of the other language's table.
func TestPageKeys(t *testing.T) {
	english := pageKeys(t, "../../docs/configuration.md", keysHeader)
	chinese := pageKeys(t, "../../docs/configuration.zh-CN.md", "| 键 | 默认值 | 含义 |")

	var want, got []string
	readableKeys(reflect.TypeFor[Config](), "", &want)
	for _, row := range english {
		got = append(got, row.mark())
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/configuration.md has other keys than the code (-code +table):\n%s", diff)
	}

	words := strings.NewReplacer("必填，或写 ", "required, or ", "必填", "required",
		"无", "none", "关闭", "off",
		"同 appid", "the appid", "第一个账号", "the first account",
		"systemd 的 `StateDirectory=`，否则用户缓存目录",
		"systemd's `StateDirectory=`, else the user's cache folder")
	for i := range chinese {
		chinese[i].Default = words.Replace(chinese[i].Default)
	}
	if diff := cmp.Diff(english, chinese); diff != "" {
		t.Errorf("the two pages differ (-configuration.md +configuration.zh-CN.md):\n%s", diff)
	}
}

// TestPageDefaults compares the defaults of the table with what the code does without the key.
func TestPageDefaults(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/unionbridge")
	smallest := string(readTestdata(t, "good/smallest.yaml")) + "applications:\n- {name: shop, secret_hashes: [" +
		hashOne + "], accounts: {wx0123456789abcdef: [template_send]}}\n"
	cfg, _, err := decode([]byte(smallest), "/", "smallest.yaml")
	if err != nil {
		t.Fatal(err)
	}
	code := make(map[string]string)
	flatten(reflect.ValueOf(*cfg), "", code)
	value := regexp.MustCompile("^`([^`]+)`$")
	for _, row := range pageKeys(t, "../../docs/configuration.md", keysHeader) {
		path := strings.ReplaceAll(row.Key, "[]", "[0]")
		set, stated := code[path], value.FindStringSubmatch(row.Default)
		switch {
		case stated != nil && stated[1] != set && (set != "" || !zero(stated[1])):
			t.Errorf("docs/configuration.md states %s as the default of %s, the code has %q",
				stated[1], row.Key, set)
		case stated == nil && set != "" && (row.Default == "none" || row.Default == "off" || row.Default == ""):
			t.Errorf("docs/configuration.md states no default of %s, the code has %s", row.Key, set)
		}
	}
}

func (k pageKey) mark() string {
	if k.Secret {
		return k.Key + " ¹"
	}
	return k.Key
}

// pageKeys reads the table under header.
func pageKeys(t *testing.T, file, header string) []pageKey {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "\n"+header+"\n|---|---|---|\n")
	if !ok {
		t.Fatalf("%s has no table of keys", file)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	line := regexp.MustCompile("^\\| `([^`]+)`( ¹)? \\| ([^|]*?) ?\\| ")
	name := regexp.MustCompile(`<[^>]+>`)
	var rows []pageKey
	for row := range strings.SplitSeq(table, "\n") {
		m := line.FindStringSubmatch(row)
		if m == nil {
			t.Errorf("%s: not one key, its default and its meaning: %s", file, row)
			continue
		}
		key := name.ReplaceAllString(m[1], "<>")
		rows = append(rows, pageKey{Key: key, Secret: m[2] != "", Default: m[3]})
	}
	return rows
}

// readableKeys appends the paths of all keys below typ as the table writes them. The three ways of
// giving a secret are one key there.
func readableKeys(typ reflect.Type, path string, keys *[]string) {
	for i := range typ.NumField() {
		name := yamlName(typ.Field(i))
		if name == "" || isSecretSource(typ, name) {
			continue
		}
		key := strings.TrimPrefix(path+"."+name, ".")
		field := typ.Field(i).Type
		if field == reflect.TypeFor[Secret]() {
			*keys = append(*keys, key+" ¹")
			continue
		}
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		below, suffix := field, ""
		switch field.Kind() {
		case reflect.Slice:
			below, suffix = field.Elem(), "[]"
		case reflect.Map:
			below, suffix = field.Elem(), ".<>"
		}
		if below.Kind() == reflect.Struct {
			readableKeys(below, key+suffix, keys)
			continue
		}
		*keys = append(*keys, key)
	}
}

// isSecretSource reports whether name says where the secret beside it is found: dsn_file beside dsn.
func isSecretSource(typ reflect.Type, name string) bool {
	base, ok := strings.CutSuffix(name, "_file")
	if !ok {
		base, ok = strings.CutSuffix(name, "_env")
	}
	if !ok {
		return false
	}
	for i := range typ.NumField() {
		if yamlName(typ.Field(i)) == base {
			return typ.Field(i).Type == reflect.TypeFor[Secret]()
		}
	}
	return false
}
