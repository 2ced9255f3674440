package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// printTable prints rows of cells as aligned columns.
func printTable(w io.Writer, rows [][]string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		_, _ = fmt.Fprintln(table, strings.Join(row, "\t")) // Flush reports
	}
	return table.Flush()
}

// printJSON prints v on one line, or on several with an indent. People read it too, so <, > and &
// stay as they are.
func printJSON(w io.Writer, v any, indent string) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	return encoder.Encode(v)
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
