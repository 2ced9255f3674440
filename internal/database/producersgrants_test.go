package database_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// producerInserts are the columns of send_request that a producer may set in an INSERT.
func producerInserts() []string {
	return []string{"appid", "unionid", "mini_appid", "mini_openid", "openid", "template", "data",
		"url", "mini_path", "priority", "due_at", "expires_at", "dedup_key",
		"route", "jump_appid", "page", "lang", "mini_state"}
}

// TestProducerRights tries each kind of statement on each column of each table and view, whatever
// tables there are when it runs: a producer has the intake and nothing else.
func TestProducerRights(t *testing.T) {
	owner := dbtest.New(t)
	producer := newGrants(t, owner).connect(t, "producer")
	var columns []struct {
		Table  string `db:"t"`
		Column string `db:"c"`
	}
	err := owner.SelectContext(t.Context(), &columns, `
		SELECT table_name AS t, column_name AS c
		  FROM information_schema.columns
		 WHERE table_schema = DATABASE()
		 ORDER BY table_name, ordinal_position`)
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string][]string{}, map[string][]string{}
	byColumn := rightsOnColumns(t, owner)
	if byColumn {
		want["SELECT"] = []string{"send_request.id", "send_request.dedup_key"}
		want["UPDATE"] = []string{"send_request.cancel"}
	}
	tables := map[string]bool{}
	for _, c := range columns {
		if c.Table == "send_request" && (!byColumn || slices.Contains(producerInserts(), c.Column)) {
			want["INSERT"] = append(want["INSERT"], c.Table+"."+c.Column)
		}
		if c.Table == "v_send_status" { // all of it, with the columns that later versions add
			want["SELECT"] = append(want["SELECT"], c.Table+"."+c.Column)
		}
		// No condition holds, so nothing is written; rights are checked before rows are looked for.
		for verb, stmt := range map[string]string{
			"SELECT": "SELECT " + c.Column + " FROM " + c.Table + " WHERE 1 = 0",
			"INSERT": "INSERT INTO " + c.Table + " (" + c.Column +
				") SELECT NULL FROM DUAL WHERE 1 = 0",
			"UPDATE": "UPDATE " + c.Table + " SET " + c.Column + " = NULL WHERE 1 = 0",
		} {
			if mayRun(t, producer, stmt) {
				got[verb] = append(got[verb], c.Table+"."+c.Column)
			}
		}
		if !tables[c.Table] && mayRun(t, producer, "DELETE FROM "+c.Table+" WHERE 1 = 0") {
			got["DELETE"] = append(got["DELETE"], c.Table)
		}
		tables[c.Table] = true
	}
	if len(tables) < 14 {
		t.Errorf("%d tables and views were tried, want all", len(tables))
	}
	for _, list := range []map[string][]string{want, got} {
		for _, names := range list {
			slices.Sort(names)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what a producer may do (-want +got):\n%s", diff)
	}
}

// mayRun reports whether stmt got past the server's check of rights.
func mayRun(t *testing.T, db *sqlx.DB, stmt string) bool {
	t.Helper()
	_, err := db.ExecContext(t.Context(), stmt)
	me, ok := errors.AsType[*mysql.MySQLError](err)
	switch {
	case err == nil, ok && me.Number == 1364: // a column without a default was left out
		return true
	case !isDenied(err):
		t.Errorf("%s: %v, which does not say whether it is allowed", stmt, err)
	}
	return false
}

// TestProducerDenied: everything that is not a plain SELECT, INSERT, UPDATE or DELETE of a column.
func TestProducerDenied(t *testing.T) {
	g := newGrants(t, dbtest.New(t))
	db := g.connect(t, "producer")
	allow(t, db, `INSERT INTO send_request (unionid, template, data, dedup_key) VALUES ('o1', `+
		`'t', '{}', 'k1')`)
	forge := deny
	if !rightsOnColumns(t, g.db) {
		forge = allow
	}
	forge(t, db,
		`INSERT INTO send_request SET unionid = 'o1', template = 't', data = '{}', attempts = 7`,
		`INSERT INTO send_request (unionid, template, data, cancel) VALUES ('o1', 't', '{}', 1)`,
		`INSERT INTO send_request (unionid, template, data, created_at) VALUES ('o1', 't', '{}', `+
			`NOW())`,
		`INSERT INTO send_request (unionid, template, data, status) VALUES ('o1', 't', '{}', `+
			`DEFAULT)`,
		`INSERT INTO send_request (unionid, template, data, lease) VALUES ('o1', 't', '{}', 'x')`,
	)
	deny(t, db,
		// Other people's messages, by ways round.
		`SELECT id FROM send_request WHERE data LIKE '%secret%'`,
		`SELECT id FROM send_request ORDER BY unionid`,
		`SELECT COUNT(*) FROM send_request GROUP BY openid`,
		`SELECT s.id FROM v_send_status s JOIN send_request r ON r.id = s.id WHERE r.url IS NOT `+
			`NULL`,
		`INSERT INTO send_request (unionid, template, data) SELECT 'o1', 't', data FROM `+
			`send_request`,
		`UPDATE send_request SET cancel = 1 WHERE data LIKE '%secret%'`,
		`SELECT r.id FROM send_request r JOIN follower f ON f.unionid = r.dedup_key`,
		// Writing an outcome, by ways round.
		`INSERT INTO send_request (unionid, template, data, dedup_key) VALUES ('o1', 't', '{}', 'k1')
		     ON DUPLICATE KEY UPDATE status = 'pending'`,
		`INSERT INTO send_request (unionid, template, data, dedup_key) VALUES ('o1', 't', '{}', 'k1')
		     ON DUPLICATE KEY UPDATE data = VALUES(data)`,
		`REPLACE INTO send_request (unionid, template, data, dedup_key) VALUES ('o1', 't', '{}', `+
			`'k1')`,
		`UPDATE send_request SET cancel = 1, priority = 0 WHERE id = 1`,
		`UPDATE send_request SET cancel = attempts WHERE id = 1`,
		`UPDATE v_send_status SET status = 'pending' WHERE id = 1`,
		`DELETE FROM v_send_status WHERE id = 1`,
		`DELETE r FROM send_request r WHERE r.id = 1`,
		`TRUNCATE TABLE send_request`,
		// The schema.
		`ALTER TABLE send_request ADD x INT`,
		`CREATE INDEX x ON send_request (priority)`,
		`DROP INDEX send_request_dedup ON send_request`,
		`RENAME TABLE send_request TO mine`,
		`CREATE TABLE mine AS SELECT id FROM send_request`,
		`CREATE VIEW mine AS SELECT id FROM send_request`,
		`DROP VIEW v_send_status`,
		`CREATE TRIGGER mine BEFORE INSERT ON send_request FOR EACH ROW SET NEW.priority = 0`,
		`DROP TABLE lease`,
		`DROP DATABASE `+schema(t, g.db),
		`LOCK TABLES send_request WRITE`,
		`GRANT SELECT ON send_request TO '`+g.prefix+`producer_u'@'%'`,
	)
	// Rights over the whole server, refused with codes of their own.
	for _, stmt := range []string{
		`CREATE USER mine`, `SET GLOBAL max_connections = 10`, `FLUSH TABLES`, `SET ROLE ` +
			g.prefix + `daemon`,
		`SELECT id FROM v_send_status INTO OUTFILE '/tmp/unionbridge-mine'`,
		`LOAD DATA INFILE '/etc/hostname' INTO TABLE send_request (unionid)`,
	} {
		if _, err := db.ExecContext(t.Context(), stmt); err == nil {
			t.Errorf("%s\n\t= nil, want it denied", stmt)
		}
	}
}

func schema(t *testing.T, db *sqlx.DB) (name string) {
	t.Helper()
	if err := db.GetContext(t.Context(), &name, `SELECT DATABASE()`); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestProducerTableRights holds what rights on columns cannot keep out: for HANDLER, OPTIMIZE and
// the like MariaDB asks whether the user has the right on any column of the table. MySQL refuses
// to read by HANDLER. sql/grants.sql and docs/producers.md warn of it; if this test fails, because a
// server or the grants got stricter, the warnings can go.
func TestProducerTableRights(t *testing.T) {
	owner := dbtest.New(t)
	db := newGrants(t, owner).connect(t, "producer")
	if !rightsOnColumns(t, owner) {
		deny(t, db, `HANDLER send_request OPEN`, `ANALYZE TABLE send_request`)
		return
	}
	allow(t, owner, `INSERT INTO send_request (unionid, template, data) VALUES ('o1', 't', `+
		`'{"thing1":"another one''s"}')`)
	conn, err := db.Connx(t.Context()) // HANDLER belongs to its session
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, stmt := range []string{`HANDLER send_request OPEN`, `OPTIMIZE TABLE send_request`,
		`ANALYZE TABLE send_request`} {
		if _, err := conn.ExecContext(t.Context(), stmt); err != nil {
			t.Errorf("%s: %v", stmt, err)
		}
	}
	// OPTIMIZE has closed it
	if _, err := conn.ExecContext(t.Context(), `HANDLER send_request OPEN`); err != nil {
		t.Fatal(err)
	}
	const read = `HANDLER send_request READ FIRST`
	if dbtest.ServerOf(t, owner).Name != "MariaDB" {
		if _, err := conn.ExecContext(t.Context(), read); !isDenied(err) {
			t.Errorf("HANDLER reads with rights on some columns: %v", err)
		}
		return
	}
	rows := answer(t, conn, read)
	if len(rows) != 1 || rows[0]["data"] != `{"thing1":"another one's"}` {
		t.Errorf("HANDLER reads %v, want the whole row", rows)
	}
	if _, err := conn.ExecContext(context.WithoutCancel(t.Context()),
		`HANDLER send_request CLOSE`); err != nil {
		t.Error(err)
	}
}
