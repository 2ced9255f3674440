package database_test

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// pageQuery is a query of docs/sql.md and what the page says about its plan.
type pageQuery struct {
	title, sql string
	keys       []string // that the plan uses
	elsewhere  []serverKeys
	reads      []string // tables that it reads as a whole
}

// serverKeys are the keys that the plan uses from a version of a server on.
type serverKeys struct {
	since dbtest.Server
	keys  []string
}

// TestSQLPage runs the queries of docs/sql.md as a reader, on tables large enough for a plan to
// matter: each one answers, uses the keys that the page names, and reads few rows or, where the
// page says so, a whole table. Rows are counted by the server while it works; EXPLAIN only
// estimates them.
func TestSQLPage(t *testing.T) {
	queries := pageQueries(t)
	db := dbtest.New(t)
	server := dbtest.ServerOf(t, db)
	rows := 100_000
	if more := os.Getenv("UNIONBRIDGE_SQL_ROWS"); more != "" {
		var err error
		if rows, err = strconv.Atoi(more); err != nil {
			t.Fatalf("UNIONBRIDGE_SQL_ROWS: %v", err)
		}
	}
	seedPage(t, db, rows)
	reader := newGrants(t, db, grantMessageTexts).connect(t, "reader")
	for _, q := range queries {
		t.Run(q.title, func(t *testing.T) {
			if n := len(answer(t, reader, q.sql)); n == 0 {
				t.Error("the query answers nothing")
			}
			keys := planKeys(t, db, q.sql)
			want := q.keys
			for _, other := range q.elsewhere {
				if s := other.since; server.Since(s.Name, s.Major, s.Minor) {
					want = other.keys
				}
			}
			for _, key := range want {
				if !slices.Contains(keys, key) {
					t.Errorf("the plan uses the keys %v, the page says %s", keys, key)
				}
			}
			read := rowsRead(t, db, q.sql)
			t.Logf("%d rows read, keys %v", read, keys)
			// 10,000 requests are read, sorted and counted by the largest of the small ones.
			if few := 50_000 + rows/50; len(q.reads) == 0 && read > few {
				t.Errorf("%d rows were read, want at most %d: the page promises an index", read,
					few)
			}
			// Of a whole table TiDB's embedded store counts what its own filter lets through.
			if most := rows * 9 / 10; len(q.reads) > 0 && read < most*len(q.reads) && server.Name != "TiDB" {
				t.Errorf("%d rows were read: the page warns of all of %v in vain", read, q.reads)
			}
		})
	}
}

// pageQueries reads the page's queries: a heading, a block of SQL, a line that begins with "Plan:".
func pageQueries(t *testing.T) []pageQuery {
	t.Helper()
	page, err := os.ReadFile("../../docs/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), "\n## Queries\n")
	if !ok {
		t.Fatal("docs/sql.md has no section Queries")
	}
	query := regexp.MustCompile("(?s)^(.*?)\n.*```sql\n(.*?);\n```\n\nPlan: (by|reads all of|a " +
		"few rows)(.*?)\\.\\s")
	elsewhere := regexp.MustCompile(`^(\w+)(?: (\d+)\.(\d+) and later)? by (.*)`)
	name := regexp.MustCompile("`(\\w+)`")
	names := func(text string) (list []string) {
		for _, n := range name.FindAllStringSubmatch(text, -1) {
			list = append(list, n[1])
		}
		return list
	}
	var queries []pageQuery
	for _, section := range strings.Split(text, "\n### ")[1:] {
		m := query.FindStringSubmatch(section)
		if m == nil {
			t.Fatalf("docs/sql.md: this section has no query, or no plan:\n%s", section)
		}
		q := pageQuery{title: m[1], sql: m[2]}
		plan, others, _ := strings.Cut(m[4], "; on ")
		for _, other := range strings.Split(others, "; on ") {
			if o := elsewhere.FindStringSubmatch(other); o != nil {
				major, _ := strconv.Atoi(o[2]) // "" is any version
				minor, _ := strconv.Atoi(o[3])
				q.elsewhere = append(q.elsewhere, serverKeys{dbtest.Server{Name: o[1], Major: major, Minor: minor}, names(o[4])})
			}
		}
		if m[3] == "by" {
			q.keys = names(plan)
		} else {
			q.reads = names(plan)
		}
		queries = append(queries, q)
	}
	if len(queries) < 10 {
		t.Fatalf("docs/sql.md has %d queries, want at least 10", len(queries))
	}
	return queries
}

// seedPage fills the tables, a hundred thousand rows a statement.
func seedPage(t *testing.T, db *sqlx.DB, rows int) {
	t.Helper()
	exec := func(stmt string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), stmt, args...); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
	const digit = `(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4
		UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)`
	const numbers = ` FROM (SELECT ? + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS n
		FROM ` + digit + ` a, ` + digit + ` b, ` + digit + ` c, ` + digit + ` e, ` + digit + ` f) numbers WHERE n < ?`
	// Every mini-program user n is the person 2n: half of them follow or followed. One follower in
	// twenty has left, one in fifty has no unionid, one in a hundred came back; two requests in a
	// hundred are open.
	for from := 0; from < rows; from += 100_000 {
		exec(`INSERT INTO follower (appid, openid, unionid, subscribed, subscribe_time, info_at, created_at)
			SELECT 'wx0a00000000000001', CONCAT('oFollower', LPAD(n, 19, '0')),
			       CASE WHEN MOD(n, 50) <> 7 THEN CONCAT('oY8XavuwipZjxfn2FLtY', LPAD(n, 8, '0')) END, MOD(n, 20) <> 4,
			       CURRENT_TIMESTAMP(3) - INTERVAL n MINUTE, CURRENT_TIMESTAMP(3),
			       CURRENT_TIMESTAMP(3) - INTERVAL CASE WHEN MOD(n, 100) = 1 THEN n + 120 ELSE n END MINUTE`+numbers, from, rows)
		exec(`INSERT INTO mini_user (appid, openid, unionid)
			SELECT 'wx0b00000000000001', CONCAT('oMiniUser', LPAD(n, 19, '0')),
			       CASE WHEN MOD(n, 50) <> 7 THEN CONCAT('oY8XavuwipZjxfn2FLtY', LPAD(2 * n, 8, '0')) END`+numbers, from, rows)
		exec(`INSERT INTO send_request (appid, unionid, template, data, status, reason, due_at, created_at)
			SELECT 'wx0a00000000000001', CONCAT('oY8XavuwipZjxfn2FLtY', LPAD(n, 8, '0')), 'order_paid', '{"thing1":"x"}',
			       CASE MOD(n, 100) WHEN 1 THEN 'pending' WHEN 2 THEN 'waiting' WHEN 3 THEN 'failed' ELSE 'sent' END,
			       CASE MOD(n, 100) WHEN 2 THEN 'not_following' WHEN 3 THEN 'refused_by_user' END,
			       CURRENT_TIMESTAMP(3), CURRENT_TIMESTAMP(3)`+numbers, from, rows)
		exec(`INSERT INTO grant_event (appid, openid, template_id, event_key, kind, source)
			SELECT 'wx0b00000000000001', CONCAT('oMiniUser', LPAD(n DIV 2, 19, '0')), 'Z9y8X7w6V5u4T3s2R1q0P9o8N7m6L5k4J3i2H1g0F_-',
			       CONCAT('popup:', n), 'accept', 'event'`+numbers, from, rows)
	}
	// Runs of ten accounts, so that this one's are the fewer.
	exec(`INSERT INTO sync_run (kind, appid, state, holder, ended_at)
		SELECT CASE MOD(n, 2) WHEN 0 THEN 'sweep' ELSE 'refresh' END, CONCAT('wx0a0000000000', LPAD(MOD(n DIV 2, 10) + 1, 4, '0')),
		       'done', 'x', CURRENT_TIMESTAMP(3)`+numbers, 0, 2000)
	exec(`INSERT INTO follower_recheck (appid, openid, reason)
		SELECT CONCAT('wx0a0000000000', LPAD(MOD(n, 100) + 1, 4, '0')), CONCAT('oFollower', LPAD(n, 19, '0')), 'no_unionid'`+numbers, 0, rows)
	exec(`INSERT INTO lease (name, holder, epoch, expires_at)
		VALUES ('send:wx0a00000000000001', 'x', 1, CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR)`)
	answer(t, db, `ANALYZE TABLE follower, mini_user, send_request, sync_run, follower_recheck, grant_event`)
}

// answer returns the rows of a query, as texts by column.
func answer(t *testing.T, db sqlx.QueryerContext, query string) []map[string]string {
	t.Helper()
	rows, err := db.QueryxContext(t.Context(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer func() { _ = rows.Close() }()
	var list []map[string]string
	for rows.Next() {
		row, texts := map[string]any{}, map[string]string{}
		if err := rows.MapScan(row); err != nil {
			t.Fatal(err)
		}
		for column, value := range row {
			if text, ok := value.([]byte); ok {
				texts[strings.ToLower(column)] = string(text)
			}
		}
		list = append(list, texts)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// planKeys returns the keys that a plan uses. MySQL's default format has none. TiDB's only format
// names an index in the object that a step reads, and the primary key, by which its tables are
// stored, in the kind of the step.
func planKeys(t *testing.T, db *sqlx.DB, query string) (keys []string) {
	t.Helper()
	index := regexp.MustCompile(`index:(\w+)\(`)
	for _, step := range answer(t, db, "EXPLAIN FORMAT=TRADITIONAL "+query) {
		key := step["key"]
		if m := index.FindStringSubmatch(step["access object"]); m != nil {
			key = m[1]
		} else if tidbReads(step) && (!strings.Contains(step["id"], "FullScan") ||
			strings.Contains(step["operator info"], "keep order:true")) {
			key = "PRIMARY"
		}
		if key != "" && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// tidbReads reports whether the step of TiDB's plan reads a table or an index.
func tidbReads(step map[string]string) bool {
	return strings.Contains(step["id"], "Scan") || strings.Contains(step["id"], "Point_Get")
}

// rowsRead returns how many rows, or entries of an index, the server reads for a query, those of
// its own temporary tables among them. TiDB has no counters; it runs the plan and says what each
// step read.
func rowsRead(t *testing.T, db *sqlx.DB, query string) int {
	t.Helper()
	if dbtest.ServerOf(t, db).Name == "TiDB" {
		sum := 0
		for _, step := range answer(t, db, "EXPLAIN ANALYZE "+query) {
			if tidbReads(step) {
				sum += number(t, step["actrows"])
			}
		}
		return sum
	}
	conn, err := db.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	count := func() int {
		sum := 0
		for _, counter := range answer(t, conn, `SHOW SESSION STATUS LIKE 'Handler_read%'`) {
			sum += number(t, counter["value"])
		}
		return sum
	}
	before := count()
	answer(t, conn, query)
	return count() - before
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSQLPageIsComplete: the page names each view and each table of the schema, and each of its
// columns where it says that all may be relied on.
func TestSQLPageIsComplete(t *testing.T) {
	page, err := os.ReadFile("../../docs/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	db := dbtest.New(t)
	var columns []struct {
		Table  string `db:"t"`
		Column string `db:"c"`
	}
	err = db.SelectContext(t.Context(), &columns, `
		SELECT table_name AS t, column_name AS c
		  FROM information_schema.columns
		 WHERE table_schema = DATABASE() AND table_name NOT LIKE 'goose%'
		 ORDER BY table_name, ordinal_position`)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for line := range strings.Lines(string(page)) {
		if m := regexp.MustCompile("^\\| `(\\w+)` \\|").FindStringSubmatch(line); m != nil {
			lines[m[1]] = line
		}
	}
	// producers.md and states.md describe the requests; next_openid is the sweep's own.
	except := []string{"send_request", "installation", "sync_run.next_openid"}
	var missing []string
	for _, c := range columns {
		if lines[c.Table] == "" {
			missing = append(missing, c.Table)
			continue
		}
		if !slices.Contains(except, c.Table) && !slices.Contains(except, c.Table+"."+c.Column) &&
			!strings.Contains(lines[c.Table], "`"+c.Column+"`") {
			missing = append(missing, c.Table+"."+c.Column)
		}
	}
	if diff := cmp.Diff([]string(nil), missing); diff != "" {
		t.Errorf("docs/sql.md lacks (-want +got):\n%s", diff)
	}
}
