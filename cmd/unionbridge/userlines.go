package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
)

// userColumns are a file's columns, in the order they have where no header names them.
func userColumns() []string { return []string{"appid", "openid", "unionid", "seen_at"} }

// maxUserLine is far above four ids, and bounds the memory for a file without line ends.
const maxUserLine = 64 << 10

// userLines reads mini-program users from CSV (RFC 4180) line by line: ids have no line breaks, so
// a lost quote spoils one line only, and each problem has a line number.
type userLines struct {
	in     *bufio.Reader
	minis  []string       // the configured mini programs
	number int            // of the line that was read last, from 1
	fields map[string]int // the index of each column; -1: not there
	width  int            // fields that a line must have at least
}

func newUserLines(in io.Reader, minis []string) *userLines {
	return &userLines{in: bufio.NewReaderSize(in, maxUserLine), minis: minis}
}

// badLine is a line that cannot be stored; the lines after it can be read.
type badLine struct {
	number int
	reason string
}

func (b badLine) Error() string { return fmt.Sprintf("line %d: %s", b.number, b.reason) }

// next returns the next user; io.EOF after the last one; a badLine for a line that is none.
func (l *userLines) next() (bridge.MiniUser, error) {
	for {
		line, err := l.readLine()
		if err != nil {
			return bridge.MiniUser{}, err
		}
		if line == "" {
			continue
		}
		record, err := split(line)
		if err != nil {
			return bridge.MiniUser{}, badLine{l.number, err.Error()}
		}
		if l.fields == nil {
			header, err := l.readHeader(record)
			if err != nil {
				return bridge.MiniUser{}, err
			}
			if header {
				continue
			}
		}
		return l.user(record)
	}
}

func (l *userLines) readLine() (string, error) {
	line, err := l.in.ReadSlice('\n')
	if len(line) > 0 || err == nil {
		l.number++
	}
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.in.ReadSlice('\n')
		}
		if err == nil || errors.Is(err, io.EOF) {
			return "", badLine{l.number, fmt.Sprintf("longer than %d bytes", maxUserLine)}
		}
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
		return "", err
	}
	text := strings.TrimRight(string(line), "\r\n")
	if l.number == 1 {
		text = strings.TrimPrefix(text, "\ufeff") // spreadsheets write it before UTF-8
	}
	return text, nil
}

// split takes a line apart. Most need no encoding/csv, which allocates a buffer for each.
func split(line string) ([]string, error) {
	if !strings.Contains(line, `"`) {
		return strings.Split(line, ","), nil
	}
	record, err := csv.NewReader(strings.NewReader(line)).Read()
	if parse, ok := errors.AsType[*csv.ParseError](err); ok {
		err = parse.Err // it would call every line the first one
	}
	return record, err
}

// readHeader learns the columns' order from a first line that has the word openid, and takes the
// usual order otherwise. Columns of other names are passed over.
func (l *userLines) readHeader(record []string) (header bool, err error) {
	names := make([]string, len(record))
	for i, name := range record {
		names[i] = strings.ToLower(strings.TrimSpace(name))
	}
	header = slices.Contains(names, "openid")
	if !header {
		names = userColumns()
	}
	if words := foreignSeparator(record); words != "" {
		return false, fmt.Errorf("line %d: %s", l.number, words)
	}
	l.fields = map[string]int{}
	for _, column := range userColumns() {
		i := slices.Index(names, column)
		l.fields[column] = i
		if column == "seen_at" {
			continue
		}
		if i < 0 {
			return false, fmt.Errorf("line %d: the header has no column %s: it needs appid, "+
				"openid and unionid, and may have seen_at", l.number, column)
		}
		l.width = max(l.width, i+1)
	}
	return header, nil
}

// formulaStarts are what makes a spreadsheet compute a cell instead of showing it.
const formulaStarts = "=+-@"

// sheetCell is an id as a CSV file for spreadsheets holds it. An id may begin with a hyphen, and
// whoever may write mini_user may have put anything there.
func sheetCell(id string) string {
	if id != "" && strings.Contains(formulaStarts, id[:1]) {
		id = "'" + id
	}
	return visible(id)
}

// readCell is an id or a moment of a file. Database clients write \N or NULL for what is not known;
// as a unionid, NULL would make one person of everybody who has none.
func readCell(cell string) string {
	cell = strings.TrimSpace(cell)
	if cell == `\N` || strings.EqualFold(cell, "NULL") {
		return ""
	}
	if len(cell) > 1 && cell[0] == '\'' && strings.Contains(formulaStarts, cell[1:2]) {
		return cell[1:]
	}
	return cell
}

// foreignSeparator says that a line without a comma is split by something else; "" if it is not.
func foreignSeparator(record []string) string {
	if len(record) > 1 {
		return ""
	}
	for _, s := range []struct{ mark, name string }{
		{"\t", "tabs"}, {";", "semicolons"}, {"|", "vertical bars"},
		{"；", "full-width semicolons"}, {"，", "full-width commas"},
	} {
		if strings.Contains(record[0], s.mark) {
			return "the fields are separated by " + s.name + ", and not by commas: export the " +
				"file as CSV with commas"
		}
	}
	return ""
}

func (l *userLines) user(record []string) (bridge.MiniUser, error) {
	bad := func(format string, args ...any) (bridge.MiniUser, error) {
		return bridge.MiniUser{}, badLine{l.number, fmt.Sprintf(format, args...)}
	}
	if len(record) < l.width {
		if words := foreignSeparator(record); words != "" {
			return bad("%s", words)
		}
		return bad("%d fields, and at least %d are needed", len(record), l.width)
	}
	field := func(column string) string {
		if i := l.fields[column]; i >= 0 && i < len(record) {
			return readCell(record[i])
		}
		return ""
	}
	u := bridge.MiniUser{
		AppID: field("appid"), OpenID: field("openid"), UnionID: field("unionid"),
	}
	if u.OpenID == "" {
		return bad("openid is empty")
	}
	if err := checkID("openid", u.OpenID); err != nil {
		return bad("%s", err)
	}
	if u.UnionID != "" {
		if err := checkID("unionid", u.UnionID); err != nil {
			return bad("%s", err)
		}
	}
	if !slices.Contains(l.minis, u.AppID) {
		return bad("appid %q is not among the configuration's mini_programs", u.AppID)
	}
	if seen := field("seen_at"); seen != "" {
		var err error
		if u.SeenAt, err = parseSeenAt(seen); err != nil {
			return bad("%s", err)
		}
	}
	return u, nil
}

// parseSeenAt reads RFC 3339, or what a database client prints, as UTC.
func parseSeenAt(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t, err = time.Parse(time.DateTime, s)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("seen_at %q is neither like 2026-01-02T15:04:05+08:00 "+
			"nor, in UTC, like 2026-01-02 15:04:05", s)
	}
	if !isTimestamp(t) {
		return time.Time{}, fmt.Errorf("seen_at %q is not between 1970 and 2038-01-19", s)
	}
	return t, nil
}

// isTimestamp reports whether a TIMESTAMP holds the moment on every server. Where one of them takes
// later moments, they would be lost on a move to another.
func isTimestamp(t time.Time) bool { return t.Unix() >= 1 && !t.After(database.Storable(t)) }
