package checkup

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
)

// table is what the server knows of one.
type table struct {
	Name  string `db:"name"`
	Rows  int64  `db:"row_count"`
	Bytes int64  `db:"byte_count"`
}

// checkSpace shows what there is, and how long the disk lasts where this machine can see it.
func checkSpace(ctx context.Context, e *exam) (found []finding) {
	const query = `
		SELECT table_name AS name, COALESCE(table_rows, 0) AS row_count,
		       COALESCE(data_length + index_length, 0) AS byte_count
		  FROM information_schema.tables
		 WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'
		 ORDER BY byte_count DESC, name`
	var tables []table
	if err := e.db.SelectContext(ctx, &tables, query); err != nil {
		return []finding{{state: Fail, seen: err.Error()}}
	}
	var words []string
	var total int64
	for i, t := range tables {
		if total += t.Bytes; i < 5 {
			words = append(words, fmt.Sprintf("%s %d rows, %d MiB", t.Name, t.Rows, t.Bytes>>20))
		}
	}
	found = append(found, ok("%d MiB: %s", total>>20, strings.Join(words, "; ")))
	if f := e.disk(ctx, total); f != nil {
		found = append(found, *f)
	}
	return append(found, e.retention(ctx))
}

// maxRetentionAge is how long ago the retention may have run: it does so every few minutes.
const maxRetentionAge = 2 * time.Hour

func (e *exam) retention(ctx context.Context) finding {
	const query = `
		SELECT TIMESTAMPDIFF(SECOND, expires_at, CURRENT_TIMESTAMP(3)) FROM lease
		 WHERE name = 'house:retention'`
	var ago []int64 // since its lease ran out; negative: it runs
	if err := e.db.SelectContext(ctx, &ago, query); err != nil {
		return finding{state: Fail, seen: err.Error()}
	}
	if len(ago) == 0 {
		return skip("the retention has not run yet")
	}
	if age := time.Duration(ago[0]) * time.Second; age > maxRetentionAge {
		return bad(Warn, fmt.Sprintf("the retention last ran %v ago", age), "retention")
	}
	return ok("the retention has run in the last two hours")
}

// minDays is how long the disk must last, and minAge over what time growth can be judged.
const (
	minDays = 14
	minAge  = 24 * time.Hour
)

// disk says how long the server's disk lasts, if it is one of this machine.
func (e *exam) disk(ctx context.Context, total int64) *finding {
	var dir string
	if err := e.db.GetContext(ctx, &dir, `SELECT @@datadir`); err != nil {
		return nil
	}
	free, known := freeBytes(dir)
	if !known {
		return nil
	}
	var first struct {
		Age int64 `db:"age"`
	}
	const query = `
		SELECT TIMESTAMPDIFF(SECOND, created_at, CURRENT_TIMESTAMP(3)) AS age
		  FROM send_request ORDER BY id LIMIT 1`
	if err := e.db.GetContext(ctx, &first, query); err != nil || time.Duration(first.Age)*time.Second < minAge {
		f := ok("%d MiB are free on the database's disk", free>>20)
		return &f
	}
	perDay := cmp.Or(total*86400/first.Age, 1)
	days := free / perDay
	f := ok("%d MiB are free on the database's disk, for %d days", free>>20, days)
	if days < minDays {
		f = bad(Fail, fmt.Sprintf("%d MiB are free on the database's disk", free>>20), "disk", dir, days)
	}
	return &f
}
