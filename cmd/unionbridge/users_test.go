package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestImportInterrupted: a signal in the middle of an import costs at most the lines that were not
// yet stored, says where to go on, and going on there leaves nobody out.
func TestImportInterrupted(t *testing.T) {
	db := dbtest.New(t)
	w := newWorld(t, dbtest.DSN(t, db))
	path := w.writeConfig(t, w.dir)
	var lines []string
	for i := range 5000 {
		lines = append(lines, fmt.Sprintf("%s,o%04d,u%04d\n", wechatsim.StandardMiniAppID, i, i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdin := io.MultiReader(strings.NewReader(strings.Join(lines[:2500], "")),
		readerFunc(func([]byte) (int, error) { cancel(); return 0, io.EOF }),
		strings.NewReader(strings.Join(lines[2500:], "")))
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"-c", path, "import-users", "-"}, stdin, &stdout, &stderr)
	if code != exitInterrupted || !strings.Contains(stderr.String(),
		"interrupted: resume with --from-line 2001\n") ||
		!strings.HasPrefix(stdout.String(), "2000 users stored, 0 lines skipped") {
		t.Fatalf("exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
	count := func() (n int) {
		t.Helper()
		if err := db.Get(&n, `SELECT COUNT(*) FROM mini_user WHERE unionid IS NOT NULL`); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 2000 {
		t.Errorf("%d users are in the table, want 2000", n)
	}
	again := do(t.Context(), strings.Join(lines, ""), "-c", path, "import-users", "--from-line",
		"2001", "-")
	if again.code != exitOK || !strings.HasPrefix(again.stdout, "3000 users stored") ||
		count() != 5000 {
		t.Errorf("going on: %+v, %d users", again, count())
	}
}

// TestImportDatabaseGone: an error of the database says where to go on too, with its exit code.
func TestImportDatabaseGone(t *testing.T) {
	db := dbtest.New(t)
	w := newWorld(t, dbtest.DSN(t, db))
	path := w.writeConfig(t, w.dir)
	if _, err := db.Exec(`ALTER TABLE mini_user DROP COLUMN unionid`); err != nil {
		t.Fatal(err)
	}
	got := do(t.Context(), wechatsim.StandardMiniAppID+",o1,u1\n", "-c", path, "import-users", "-")
	if got.code != exitDatabase || !strings.Contains(got.stderr,
		"all lines before 1 are dealt with: resume with --from-line 1") {
		t.Errorf("%+v", got)
	}
}
