package checkup

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func hasHan(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return unicode.Is(unicode.Han, r) }) >= 0
}

// TestCatalog: every check has a cure, Chinese text, an exit code, and a section in both runbooks; what
// it depends on comes before it.
func TestCatalog(t *testing.T) {
	pages := map[string]string{}
	for _, name := range []string{"runbooks.md", "runbooks.zh-CN.md"} {
		text, err := os.ReadFile("../../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		pages[name] = string(text)
	}
	var seen []string
	for _, c := range Checks() {
		if c.Title.EN == "" || !hasHan(c.Title.ZH) || c.Cure.EN == "" || !hasHan(c.Cure.ZH) {
			t.Errorf("%s: title %v, cure %v", c.ID, c.Title, c.Cure)
		}
		if !slices.Contains([]int{exitConfig, exitDatabase, exitWeChat}, c.exit) || c.run == nil {
			t.Errorf("%s: exit code %d", c.ID, c.exit)
		}
		for _, id := range c.needs {
			if !slices.Contains(seen, id) {
				t.Errorf("%s needs %s, which comes after it", c.ID, id)
			}
		}
		for name, text := range pages {
			if !strings.Contains(text, "\n### doctor: "+c.ID+"\n") {
				t.Errorf("docs/%s has no section doctor: %s", name, c.ID)
			}
		}
		if want := "docs/runbooks.md#doctor-" + c.ID; c.Runbook() != want {
			t.Errorf("%s: runbook %s", c.ID, c.Runbook())
		}
		seen = append(seen, c.ID)
	}
	for name, text := range pages {
		for _, m := range regexp.MustCompile(`(?m)^### doctor: (.+)$`).FindAllStringSubmatch(text, -1) {
			if !slices.Contains(seen, m[1]) {
				t.Errorf("docs/%s: there is no check %s", name, m[1])
			}
		}
	}
}

// TestCures: each is in both languages, with the same verbs.
func TestCures(t *testing.T) {
	verb := regexp.MustCompile(`%(?:\[\d+\])?[sdv]`)
	for name, c := range cures {
		en, zh := verb.FindAllString(c.EN, -1), verb.FindAllString(c.ZH, -1)
		if c.EN == "" || c.ZH == "" || fmt.Sprint(en) != fmt.Sprint(zh) {
			t.Errorf("%s: %q and %q", name, c.EN, c.ZH)
		}
		if name != "grant" && !hasHan(c.ZH) {
			t.Errorf("%s has no Chinese text", name)
		}
	}
}

// TestDistance: the template that is most alike is the one with a slip in its id.
func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"abc", "abc", 0}, {"abc", "ab", 1}, {"", "abc", 3}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) is %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestTooOld(t *testing.T) {
	for version, want := range map[string]bool{
		"10.5.8-MariaDB": true, "10.6.0-MariaDB-log": false, "10.11.19-MariaDB": false, "11.8.2-MariaDB": false,
		"5.7.44": true, "8.0.36": false, "9.7.4": false, "8.0.11-TiDB-v8.5.0": false, "odd": false,
	} {
		if got := tooOld(version); got != want {
			t.Errorf("%s: %v", version, got)
		}
	}
}

func TestHostOf(t *testing.T) {
	for holder, want := range map[string]string{"app-1-123-abcdefgh": "app-1", "x": "", "a-b": "", "": ""} {
		if got := hostOf(holder); got != want {
			t.Errorf("%s: %q", holder, got)
		}
	}
}
