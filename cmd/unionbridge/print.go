package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// printTable prints rows of cells as aligned columns. A cell stays on its line and in its column,
// whatever it holds.
func printTable(w io.Writer, rows [][]string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				_, _ = io.WriteString(table, "\t") // Flush reports
			}
			_, _ = io.WriteString(table, visible(cell))
		}
		_, _ = io.WriteString(table, "\n")
	}
	return table.Flush()
}

// printLine prints a sentence that may quote what others wrote. It stays on one line.
func printLine(w io.Writer, sentence string) error {
	_, err := fmt.Fprintln(w, visible(sentence))
	return err
}

// printJSON prints v on one line, or on several with an indent. People read it too, so <, > and &
// stay as they are; what a terminal would obey stands as \u001b, which is the same JSON.
func printJSON(w io.Writer, v any, indent string) error {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, visibleLines(out.String()))
	return err
}

// visible shows what a terminal would obey instead of showing it: escape sequences, line breaks,
// characters that turn the direction of a text or have no width. Producers and WeChat write texts
// that stand beside ours, and none of them may forge a line or move the cursor.
func visible(text string) string { return escape(text, unicode.IsGraphic) }

// visibleLines is visible for a text whose line breaks are ours.
func visibleLines(text string) string {
	return escape(text, func(r rune) bool { return r == '\n' || unicode.IsGraphic(r) })
}

// visibleWriter is visibleLines for a JSON log, which leaves U+202E and U+009B as they are; the text
// format quotes them.
type visibleWriter struct{ io.Writer }

// Write expects whole lines, as log/slog writes them.
func (w visibleWriter) Write(lines []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, visibleLines(string(lines))); err != nil {
		return 0, err
	}
	return len(lines), nil
}

// escape writes everything but the shown characters as JSON does: \n, \t, \u202e.
func escape(text string, shown func(rune) bool) string {
	hidden := func(r rune) bool { return !shown(r) }
	if utf8.ValidString(text) && !strings.ContainsFunc(text, hidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case shown(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		default:
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		}
	}
	return b.String()
}

// jsonTime is a moment in UTC with milliseconds, as the database has them; always 24 characters.
func jsonTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func jsonMoment(t *time.Time) *string {
	if t == nil || t.IsZero() {
		return nil
	}
	return new(jsonTime(*t))
}

func localMoment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

// orNull is nil for what is empty in Go and null in JSON and the database.
func orNull[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}

// orZero is what p points to; the zero value for nil.
func orZero[T any](p *T) T {
	if p == nil {
		return *new(T)
	}
	return *p
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
