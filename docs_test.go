package unionbridge_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// The READMEs are the short way in. What does not fit is on a page of docs.
const maxReadmeLines = 150

// page is a Markdown file without its fenced blocks, in which # and [x](y) mean something else.
type page struct {
	lines   int
	prose   string
	anchors map[string]bool
}

// TestLinks follows every relative link of every page, and every anchor behind one.
func TestLinks(t *testing.T) {
	pages := readPages(t)
	link := regexp.MustCompile(`\]\(([^()\s]+)\)`)
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		for _, m := range link.FindAllStringSubmatch(pages[name].prose, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			file := name
			if target != "" {
				file = path.Join(path.Dir(name), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: the link %s leads nowhere", name, m[1])
			} else if anchor != "" && !pages[file].anchors[anchor] {
				t.Errorf("%s: %s has no heading #%s", name, file, anchor)
			}
		}
	}
}

// TestReadmeLength keeps the READMEs short, and their links complete: each leads to every page of
// its language.
func TestReadmeLength(t *testing.T) {
	pages := readPages(t)
	for _, name := range []string{"README.md", "README.zh-CN.md"} {
		if n := pages[name].lines; n > maxReadmeLines {
			t.Errorf("%s has %d lines, want at most %d", name, n, maxReadmeLines)
		}
	}
	for name := range pages {
		readme := "README.md"
		if strings.HasSuffix(name, ".zh-CN.md") {
			readme = "README.zh-CN.md"
		}
		if path.Dir(name) == "docs" && !strings.Contains(pages[readme].prose, "]("+name) {
			t.Errorf("%s has no link to %s", readme, name)
		}
	}
}

// TestMetricPages compares the tables of docs/monitoring.md and its Chinese page with the code.
func TestMetricPages(t *testing.T) {
	pages := readPages(t)
	var want []string
	declared := regexp.MustCompile(`"(unionbridge_[a-z_]*[a-z])"`)
	walk(t, ".go", func(name string, text []byte) {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "internal/devtools/") {
			return
		}
		for _, m := range declared.FindAllSubmatch(text, -1) {
			want = append(want, string(m[1]))
		}
	})
	slices.Sort(want)
	row := regexp.MustCompile("(?m)^\\| `(unionbridge_\\w+)` \\|")
	for _, name := range []string{"docs/monitoring.md", "docs/monitoring.zh-CN.md"} {
		var got []string
		for _, m := range row.FindAllStringSubmatch(pages[name].prose, -1) {
			got = append(got, m[1])
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("metrics of %s (-code +page):\n%s", name, diff)
		}
	}
}

// TestChinesePages compares each Chinese page with the English one: the same SQL, which people copy,
// and the same names in code spans, so that neither lacks a key, a reason or a column.
func TestChinesePages(t *testing.T) {
	for _, name := range []string{
		"producers", "subscribe", "states", "configuration", "monitoring", "cli",
	} {
		english, chinese := readFile(t, "docs/"+name+".md"), readFile(t, "docs/"+name+".zh-CN.md")
		// The example programs are on the English page only, the flags of each command as well.
		english, _, _ = strings.Cut(english, "\n## Examples\n")
		if start, flags, ok := strings.Cut(english, "\n## Flags\n"); ok {
			_, end, _ := strings.Cut(flags, "\n## ")
			english = start + end
		}
		chinese, _, _ = strings.Cut(chinese, "\n## 示例\n")
		wantBlocks, wantNames := copied(english)
		blocks, names := copied(chinese)
		if diff := cmp.Diff(wantBlocks, blocks); diff != "" {
			t.Errorf("SQL of docs/%s.md (-English +Chinese):\n%s", name, diff)
		}
		if diff := cmp.Diff(wantNames, names); diff != "" {
			t.Errorf("names of docs/%s.md (-English +Chinese):\n%s", name, diff)
		}
	}
}

// copied returns a page's blocks of SQL, and the names in its code spans.
func copied(text string) (blocks, names []string) {
	blocks = regexp.MustCompile("(?s)```sql.*?```").FindAllString(text, -1)
	span := regexp.MustCompile("`([a-z_]+(?:[.\\[\\]][a-z_.]+)*)`")
	for _, m := range span.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return blocks, slices.Compact(names)
}

// TestGlossary: one word for one thing, 25 of them, in alphabetical order.
func TestGlossary(t *testing.T) {
	prose := readPages(t)["docs/glossary.md"].prose
	var words []string
	row := regexp.MustCompile(`(?m)^\| \*\*([^*]+)\*\* \|`)
	for _, m := range row.FindAllStringSubmatch(prose, -1) {
		words = append(words, m[1])
	}
	if len(words) != 25 || !slices.IsSorted(words) {
		t.Errorf("docs/glossary.md has %d words, want 25, sorted: %v", len(words), words)
	}
}

func readPages(t *testing.T) map[string]page {
	t.Helper()
	pages := map[string]page{}
	walk(t, ".md", func(name string, text []byte) { pages[name] = parsePage(string(text)) })
	if len(pages) < 10 {
		t.Fatalf("%d pages were found: is this the repository's root?", len(pages))
	}
	return pages
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// walk calls visit for the repository's files that end with suffix, by their path with slashes.
func walk(t *testing.T, suffix string, visit func(name string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		skip := name != "." && strings.HasPrefix(entry.Name(), ".") || name == "bin" ||
			entry.Name() == "node_modules"
		switch {
		case err != nil:
			return err
		case entry.IsDir() && skip:
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, suffix):
			return nil
		}
		text, err := os.ReadFile(name)
		if err == nil {
			visit(filepath.ToSlash(name), text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// parsePage finds the anchors as GitHub makes them: of headings, and of <a id="…">.
func parsePage(text string) page {
	p := page{anchors: map[string]bool{}}
	var prose strings.Builder
	fenced := false
	seen := map[string]int{}
	for line := range strings.Lines(text) {
		p.lines++
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			continue
		}
		prose.WriteString(line)
		if heading := regexp.MustCompile(`^#+ (.+)`).FindStringSubmatch(line); heading != nil {
			anchor := slug(strings.TrimSpace(heading[1]))
			if n := seen[anchor]; n > 0 {
				p.anchors[fmt.Sprintf("%s-%d", anchor, n)] = true
			}
			seen[anchor]++
			p.anchors[anchor] = true
		}
	}
	p.prose = prose.String()
	for _, m := range regexp.MustCompile(`<a id="([^"]+)">`).FindAllStringSubmatch(p.prose, -1) {
		p.anchors[m[1]] = true
	}
	return p
}

// slug is a heading's anchor: lower case, hyphens for spaces, no other punctuation.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ' || r == '-':
			return '-'
		case r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}
