package requests

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestOverviewIsBounded: of many open requests some are counted, and it says so; the table is not
// read. FIGURES_ROWS=1000000 measures with more.
func TestOverviewIsBounded(t *testing.T) {
	f := newFixture(t)
	f.db.SetMaxOpenConns(1) // the counters are the connection's
	rows := 80_000
	if n, err := strconv.Atoi(os.Getenv("FIGURES_ROWS")); err == nil {
		rows = n
	}
	const other = "wx00000000000000bb"
	values := strings.TrimSuffix(strings.Repeat(
		`('`+appid+`', 'u', 'order', '{}', CURRENT_TIMESTAMP(3) + INTERVAL 1 DAY), `, 1000), ", ")
	for range rows / 1000 {
		f.db.MustExecContext(t.Context(),
			`INSERT INTO send_request (appid, unionid, template, data, due_at) VALUES `+values)
	}
	f.db.MustExecContext(t.Context(), `INSERT INTO send_request (appid, unionid, template, data)
		VALUES ('`+other+`', 'u', 'order', '{}'), ('wxstray', 'u', 'order', '{}'), (NULL, 'u', 'order', '{}')`)
	before, start := f.reads(t), time.Now()
	o, err := f.store.Overview(t.Context(), []string{appid, other})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.store.Ages(t.Context(), 15*time.Minute); err != nil {
		t.Fatal(err)
	}
	took, reads := time.Since(start), f.reads(t)-before
	t.Logf("%d rows: %v, %d reads", rows, took, reads)
	// The cap and the newest rows, each of them also from the server's temporary tables.
	if reads > 4*maxOpen+2*maxSample+2*maxLaneSample {
		t.Errorf("%d rows and index entries were read", reads)
	}
	for _, c := range o.Open {
		capped := c.AppID == appid
		if c.Capped != capped || !capped && c.Requests != 1 || capped && c.Requests != maxOpen {
			t.Errorf("%+v", c)
		}
	}
	if len(o.Open) != 4 {
		t.Errorf("%d accounts are counted, want 4", len(o.Open))
	}
}

// reads is how many rows and index entries this connection has read.
func (f *fixture) reads(t *testing.T) (sum int) {
	t.Helper()
	var counters []struct {
		Name  string `db:"Variable_name"`
		Value int    `db:"Value"`
	}
	err := f.db.SelectContext(t.Context(), &counters, `SHOW SESSION STATUS LIKE 'Handler_read%'`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counters {
		sum += c.Value
	}
	return sum
}
