package database_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// grants runs sql/grants.sql on db, with role names of the test's own: roles belong to the whole
// server and would outlive the schema.
type grants struct {
	db     *sqlx.DB
	prefix string
}

// Commented grants of the files: what an operator may take in.
const (
	grantMigrations   = "GRANT CREATE"
	grantWithdrawals  = "GRANT SELECT, UPDATE ON send_request" // TiDB only
	grantMessageTexts = "GRANT SELECT ON send_request"         // TiDB only
)

func newGrants(t *testing.T, db *sqlx.DB, takenIn ...string) grants {
	t.Helper()
	files := []string{"sql/grants.sql"}
	if !rightsOnColumns(t, db) {
		files = append(files, "sql/grants-tidb.sql")
	}
	g := grants{db: db, prefix: "ub" + strings.ToLower(rand.Text()[:8]) + "_"}
	for _, file := range files {
		text, err := unionbridge.SQL.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, stmt := range statements(string(text), takenIn) {
			g.exec(t, strings.ReplaceAll(stmt, "unionbridge_", g.prefix))
		}
	}
	t.Cleanup(func() {
		for _, role := range []string{"producer", "login", "reader", "daemon"} {
			// the test's own has ended
			if _, err := db.ExecContext(context.Background(),
				"DROP ROLE IF EXISTS "+g.prefix+role); err != nil {
				t.Errorf("dropping role: %v", err)
			}
		}
	})
	return g
}

// rightsOnColumns reports whether the server honours them.
func rightsOnColumns(t *testing.T, db *sqlx.DB) bool {
	t.Helper()
	return dbtest.ServerOf(t, db).Name != "TiDB"
}

// statements splits the file.
func statements(text string, takenIn []string) []string {
	for _, grant := range takenIn {
		text = strings.ReplaceAll(text, "-- "+grant, grant)
	}
	var code strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "--") {
			code.WriteString(line)
		}
	}
	var list []string
	for stmt := range strings.SplitSeq(code.String(), ";") {
		if stmt = strings.TrimSpace(stmt); stmt != "" {
			list = append(list, stmt)
		}
	}
	return list
}

func (g grants) exec(t *testing.T, stmt string) {
	t.Helper()
	if _, err := g.db.ExecContext(t.Context(), stmt); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

// connect makes a user with the role and returns its connection.
func (g grants) connect(t *testing.T, role string) *sqlx.DB {
	t.Helper()
	role = g.prefix + role
	user := role + "_u"
	preposition := "TO"
	if dbtest.ServerOf(t, g.db).Name == "MariaDB" {
		preposition = "FOR"
	}
	g.exec(t, fmt.Sprintf(`CREATE USER '%s'@'%%' IDENTIFIED BY 'pw'`, user))
	t.Cleanup(func() {
		// the test's own has ended
		if _, err := g.db.ExecContext(context.Background(),
			fmt.Sprintf(`DROP USER '%s'@'%%'`, user)); err != nil {
			t.Errorf("dropping user: %v", err)
		}
	})
	g.exec(t, fmt.Sprintf(`GRANT %s TO '%s'@'%%'`, role, user))
	g.exec(t, fmt.Sprintf(`SET DEFAULT ROLE %s %s '%s'@'%%'`, role, preposition, user))
	return dbtest.Open(t, dbtest.DSNAs(t, g.db, user, "pw"))
}

// isDenied: also 1419, a trigger where the server keeps a binary log, and what TiDB says of
// statements that nobody can run there, on views and triggers.
func isDenied(err error) bool {
	me, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return false
	}
	switch me.Number {
	case 1064:
		return strings.Contains(me.Message, "your TiDB version")
	case 1105, 1288, 1419:
		return true
	}
	return database.IsDenied(err)
}

func allow(t *testing.T, db *sqlx.DB, stmts ...string) {
	t.Helper()
	for _, stmt := range stmts {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Errorf("%s\n\t%v, want it allowed", stmt, err)
		}
	}
}

func deny(t *testing.T, db *sqlx.DB, stmts ...string) {
	t.Helper()
	for _, stmt := range stmts {
		if _, err := db.ExecContext(t.Context(), stmt); !isDenied(err) {
			t.Errorf("%s\n\t= %v, want it denied", stmt, err)
		}
	}
}

// requestOf returns the id of a request: not every server begins with 1.
func requestOf(t *testing.T, db *sqlx.DB, where string) (id int64) {
	t.Helper()
	err := db.GetContext(t.Context(), &id, `SELECT id FROM send_request WHERE `+where)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestGrantsProducer(t *testing.T) {
	g := newGrants(t, dbtest.New(t))
	db := g.connect(t, "producer")
	allow(t, db,
		`INSERT INTO send_request (unionid, template, data) VALUES ('o1', 'order_paid', `+
			`'{"thing1":"x"}')`,
		`INSERT INTO send_request (appid, unionid, mini_appid, mini_openid, openid, template, data, url, mini_path,
		                           priority, due_at, expires_at, dedup_key)
		 VALUES ('wx1', NULL, NULL, NULL, 'o2', 't', '{}', 'https://x', 'p', 0, NOW(), NOW() + INTERVAL 1 DAY, 'k1')`,
		`INSERT IGNORE INTO send_request (openid, template, data, dedup_key) VALUES ('o2', 't', `+
			`'{}', 'k1')`,
		`INSERT INTO send_request (openid, template, data, dedup_key, route, jump_appid, page, lang, mini_state)
		 VALUES ('o2', 't', '{}', 'k2', 'official,mini', 'wxm', 'pages/a', 'en_US', 'formal')`,
		`SELECT status, reason, msgid FROM v_send_status WHERE id = 1`,
		`SELECT status FROM v_send_status WHERE dedup_key = 'k1'`,
	)
	first := requestOf(t, g.db, `unionid = 'o1'`)
	withdraw, wantCancelled, forge := allow, 2, deny
	if !rightsOnColumns(t, g.db) {
		withdraw, wantCancelled, forge = deny, 0, allow
	}
	withdraw(t, db,
		fmt.Sprint(`UPDATE send_request SET cancel = 1 WHERE id = `, first),
		`UPDATE send_request SET cancel = 1 WHERE dedup_key = 'k1'`,
		`SELECT id, dedup_key FROM send_request`,
	)
	var cancelled int
	if err := g.db.GetContext(t.Context(), &cancelled,
		`SELECT COUNT(*) FROM v_send_status WHERE status = 'cancelled'`); err != nil ||
		cancelled != wantCancelled {
		t.Errorf("%d requests are cancelled (%v), want %d", cancelled, err, wantCancelled)
	}
	forge(t, db,
		`INSERT INTO send_request (unionid, template, data, status) VALUES ('o1', 't', '{}', `+
			`'sent')`,
		`INSERT INTO send_request (unionid, template, data, msgid) VALUES ('o1', 't', '{}', 1)`,
		`INSERT INTO send_request (id, unionid, template, data) VALUES (9, 'o1', 't', '{}')`,
		`INSERT INTO send_request (unionid, template, data, application) VALUES ('o1', 't', '{}', 'shop')`,
		`INSERT INTO send_request (unionid, template, data, fallback_from) VALUES ('o1', 't', '{}', 'wx1')`,
	)
	deny(t, db,
		`UPDATE send_request SET route = 'mini' WHERE id = 1`,
		`INSERT INTO subscription_report (appid, openid, template_id, result, report_key)
		 VALUES ('wxm', 'm1', 't', 'accept', 'k')`,
		`UPDATE send_request SET status = 'pending' WHERE id = 1`,
		`UPDATE send_request SET due_at = NOW() WHERE id = 1`,
		`UPDATE send_request SET data = '{}' WHERE id = 1`,
		`UPDATE send_request SET cancel = 1 WHERE unionid = 'o1'`,
		`DELETE FROM send_request WHERE id = 1`,
		`SELECT data FROM send_request`,
		`SELECT unionid FROM send_request`,
		`INSERT INTO mini_user (appid, openid, unionid) VALUES ('wxm', 'm1', 'o1')`,
		`INSERT INTO mini_user (appid, openid, unionid) VALUES ('wxm', 'm1', 'o1')
		     ON DUPLICATE KEY UPDATE unionid = VALUES(unionid), seen_at = CURRENT_TIMESTAMP(3)`,
		`REPLACE INTO mini_user (appid, openid, unionid) VALUES ('wxm', 'm1', 'o1')`,
		`UPDATE mini_user SET unionid = 'o2'`,
		`UPDATE mini_user SET seen_at = NOW(3)`,
		`SELECT openid FROM mini_user`,
		`SELECT unionid FROM mini_user`,
		`DELETE FROM mini_user`,
		`SELECT openid FROM follower`,
		`SELECT unionid FROM v_identity`,
		`SELECT appid FROM v_coverage`,
		`SELECT id FROM sync_run`,
		`SELECT id FROM installation`,
		`SELECT name FROM lease`,
		`INSERT INTO follower (appid, openid) VALUES ('wx1', 'o1')`,
		`INSERT INTO send_receipt (appid, msgid, openid, status) VALUES ('wx1', 1, 'o1', 'success')`,
		`UPDATE account_state SET reason = ''`,
		`CREATE TABLE mine (id INT)`,
		`DROP TABLE send_request`,
	)
}

func TestGrantsLogin(t *testing.T) {
	g := newGrants(t, dbtest.New(t))
	db := g.connect(t, "login")
	allow(t, db,
		`INSERT INTO mini_user (appid, openid, unionid) VALUES ('wxm', 'm1', 'o1')`,
		`INSERT INTO mini_user (appid, openid, unionid) VALUES ('wxm', 'm1', 'o1')
		     ON DUPLICATE KEY UPDATE unionid = VALUES(unionid), seen_at = CURRENT_TIMESTAMP(3)`,
		`INSERT INTO mini_user (appid, openid, unionid, seen_at) VALUES ('wxm', 'm1', 'o3', NOW(3))
		     ON DUPLICATE KEY UPDATE unionid = VALUES(unionid), seen_at = VALUES(seen_at)`,
		`INSERT INTO subscription_report (appid, openid, template_id, result, report_key)
		 VALUES ('wxm', 'm1', 't', 'accept', 'k1')`,
		`INSERT IGNORE INTO subscription_report (appid, openid, template_id, result, report_key, accepted_at)
		 VALUES ('wxm', 'm1', 't', 'accept', 'k1', NOW(3))`,
	)
	var unionid string
	if err := g.db.GetContext(t.Context(), &unionid,
		`SELECT unionid FROM mini_user WHERE appid = 'wxm' AND openid = 'm1'`); err != nil ||
		unionid != "o3" {
		t.Errorf("m1 belongs to %q (%v), want o3", unionid, err)
	}
	whole := deny
	if !rightsOnColumns(t, g.db) {
		whole = allow
	}
	whole(t, db,
		`SELECT openid FROM mini_user`,
		`UPDATE mini_user SET unionid = 'o2' WHERE openid = 'm1'`,
		`UPDATE mini_user SET created_at = NOW()`,
		`INSERT INTO subscription_report (appid, openid, template_id, result, report_key, created_at)
		 VALUES ('wxm', 'm1', 't', 'accept', 'k2', NOW(3))`,
	)
	deny(t, db,
		`REPLACE INTO mini_user (appid, openid, unionid) VALUES ('wxm', 'm1', 'o1')`,
		`DELETE FROM mini_user`,
		`INSERT INTO send_request (unionid, template, data) VALUES ('o1', 't', '{}')`,
		`UPDATE send_request SET cancel = 1`,
		`SELECT id FROM send_request`,
		`SELECT id FROM v_send_status`,
		`SELECT unionid FROM v_identity`,
		`SELECT openid FROM follower`,
		`INSERT INTO follower (appid, openid) VALUES ('wx1', 'o1')`,
		`SELECT name FROM lease`,
		`DROP TABLE mini_user`,
		`UPDATE subscription_report SET result = 'accept'`,
		`DELETE FROM subscription_report`,
		`INSERT INTO grant_event (appid, openid, template_id, event_key, kind, source)
		 VALUES ('wxm', 'm1', 't', 'k', 'accept', 'event')`,
		`UPDATE subscription_grant SET remaining = 9`,
		`SELECT value FROM secret_key`,
	)
}

func TestGrantsReader(t *testing.T) {
	g := newGrants(t, dbtest.New(t))
	db := g.connect(t, "reader")
	allow(t, db,
		`SELECT unionid FROM v_identity`,
		`SELECT appid FROM v_coverage`,
		`SELECT id FROM v_send_status`,
		`SELECT openid FROM follower`,
		`SELECT openid FROM mini_user`,
		`SELECT id FROM sync_run`,
		`SELECT appid FROM account_state`,
		`SELECT name FROM lease`,
		`SELECT openid FROM follower_recheck`,
		`SELECT route, application, fallback_from, fallback_reason, fallback_errcode FROM v_send_status`,
		`SELECT remaining, kind FROM subscription_grant`,
		`SELECT event_key FROM grant_event`,
		`SELECT report_key FROM subscription_report`,
		`SELECT request_id FROM send_attempt`,
		`SELECT feature_level FROM instance`,
		`SELECT permission FROM withdrawn_permission`,
	)
	some := allow
	if !rightsOnColumns(t, g.db) {
		some = deny
	}
	some(t, db, `SELECT id, status FROM send_request WHERE status = 'waiting'`,
		`SELECT wished_at, route, fallback_from, fallback_reason FROM send_request WHERE id = 1`,
		`SELECT wished_at, route, fallback_from, fallback_reason FROM send_request_archive WHERE id = 1`)
	deny(t, db,
		`SELECT data FROM send_request`,
		`SELECT unionid FROM send_request`,
		`SELECT openid FROM send_request`,
		`SELECT url FROM send_request`,
		`SELECT page FROM send_request`,
		`SELECT value FROM secret_key`,
		`SELECT hash FROM erased_person`,
		`SELECT value FROM erasure`,
		`SELECT epoch FROM application`,
		`SELECT used FROM application_usage`,
		`SELECT value FROM send_wait`,
		`INSERT INTO send_request (unionid, template, data) VALUES ('o1', 't', '{}')`,
		`UPDATE follower SET subscribed = 0`,
		`DELETE FROM mini_user`,
		`UPDATE lease SET holder = 'me'`,
		`DELETE FROM sync_run`,
	)
}

func TestGrantsDaemon(t *testing.T) {
	owner := dbtest.New(t)
	g := newGrants(t, owner)
	db := g.connect(t, "daemon")
	if err := database.CheckSchema(t.Context(), db); err != nil {
		t.Errorf("CheckSchema: %v", err)
	}
	if err := database.CheckGrants(t.Context(), db); err != nil {
		t.Errorf("CheckGrants: %v", err)
	}
	deny(t, db, `CREATE TABLE mine (id INT)`, `DROP TABLE lease`, `ALTER TABLE lease ADD x INT`)

	g.exec(t, `DELETE FROM goose_db_version WHERE version_id >= 2`)
	_, err := database.Migrate(t.Context(), db, quiet)
	if !isDenied(err) || !strings.Contains(err.Error(), "missing: GRANT CREATE VIEW") {
		t.Errorf("Migrate without the grants = %v, want it to name CREATE VIEW", err)
	}
}

func TestGrantsDaemonMigrates(t *testing.T) {
	g := newGrants(t, dbtest.New(t), grantMigrations)
	db := g.connect(t, "daemon")
	for _, stmt := range []string{`DROP VIEW v_identity`, `DROP TABLE lease`,
		`DELETE FROM goose_db_version WHERE version_id > 0`} {
		g.exec(t, stmt)
	}
	if _, err := database.Migrate(t.Context(), db, quiet); err != nil {
		t.Fatal(err)
	}
	if err := database.CheckSchema(t.Context(), db); err != nil {
		t.Error(err)
	}
}

func TestCheckGrantsNamesWhatIsMissing(t *testing.T) {
	g := newGrants(t, dbtest.New(t))
	err := database.CheckGrants(t.Context(), g.connect(t, "reader"))
	if !isDenied(err) {
		t.Fatalf("CheckGrants of a reader = %v, want it denied", err)
	}
	for _, want := range []string{"missing: GRANT INSERT ON ", "follower", "sql/grants.sql"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("CheckGrants = %v, want it to say %q", err, want)
		}
	}
}
