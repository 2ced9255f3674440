package database_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// The promises of docs/producers.md that no statement of the page shows.

// newProducer returns a fresh schema's owner and the pool of a producer, connected as strangers do:
// with the driver's defaults and not with database.Open. params are DSN parameters of the
// producer's.
func newProducer(t *testing.T, params ...string) (owner, producer *sqlx.DB) {
	t.Helper()
	owner = dbtest.New(t)
	g := newGrants(t, owner, grantWithdrawals)
	g.connect(t, "producer")
	return owner, outsider(t, dbtest.DSNAs(t, owner, g.prefix+"producer_u", "pw"), params...)
}

func outsider(t *testing.T, dsn string, params ...string) *sqlx.DB {
	t.Helper()
	for i, p := range params {
		dsn += string("?&"[min(i, 1)]) + p
	}
	db, err := sqlx.ConnectContext(t.Context(), "mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// errNumber is the server's number of an error, 0 for none.
func errNumber(t *testing.T, err error) uint16 {
	t.Helper()
	if err == nil {
		return 0
	}
	me, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		t.Fatalf("%v, want an error of the server's", err)
	}
	return me.Number
}

const insertKey = `INSERT INTO send_request (unionid, template, data, dedup_key) VALUES ('o1', 't', '{"thing1":"x"}', ?)`

// TestProducerDedupRace: of eight who insert one key at the same moment exactly one succeeds, and
// the others can tell that it was the key.
func TestProducerDedupRace(t *testing.T) {
	const producers, keys = 8, 40
	for _, insert := range []string{insertKey,
		strings.Replace(insertKey, "INSERT", "INSERT IGNORE", 1)} {
		owner, db := newProducer(t)
		var inserted [keys]int
		var mu sync.Mutex
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range producers {
			wg.Go(func() {
				<-start
				for key := range keys {
					res, err := db.ExecContext(t.Context(), insert, fmt.Sprint("order-", key))
					me, refused := errors.AsType[*mysql.MySQLError](err)
					if refused && me.Number == 1062 &&
						strings.Contains(me.Message, "send_request_dedup") {
						continue
					}
					if err != nil {
						t.Errorf("%s: %v", insert, err)
						return
					}
					n, err := res.RowsAffected()
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					inserted[key] += int(n)
					mu.Unlock()
				}
			})
		}
		close(start)
		wg.Wait()
		for key, n := range inserted {
			if n != 1 {
				t.Errorf("%s: order-%d was inserted %d times, want once", insert, key, n)
			}
		}
		var rows int
		if err := owner.GetContext(t.Context(), &rows,
			`SELECT COUNT(*) FROM send_request`); err != nil || rows != keys {
			t.Errorf("%d rows (%v), want %d", rows, err, keys)
		}
	}
}

// TestProducerDedupWaits: a key that another open transaction holds is decided by that
// transaction's end.
func TestProducerDedupWaits(t *testing.T) {
	owner, db := newProducer(t)
	for _, end := range []struct {
		name string
		how  func(*sqlx.Tx) error
		want uint16
	}{{"rollback", (*sqlx.Tx).Rollback, 0}, {"commit", (*sqlx.Tx).Commit, 1062}} {
		first, err := db.BeginTxx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := first.ExecContext(t.Context(), insertKey, end.name); err != nil {
			t.Fatal(err)
		}
		second := make(chan error, 1)
		go func() {
			_, err := db.ExecContext(t.Context(), insertKey, end.name)
			second <- err
		}()
		waitForLock(t, owner, db)
		if err := end.how(first); err != nil {
			t.Fatal(err)
		}
		if got := errNumber(t, <-second); got != end.want {
			t.Errorf("after the first one's %s the second gets %d, want %d", end.name, got,
				end.want)
		}
	}
}

// waitForLock returns when a statement of producer's user waits for a lock. TiDB shows no wait of a
// single statement: it has begun there.
func waitForLock(t *testing.T, owner, producer *sqlx.DB) {
	t.Helper()
	var user string
	if err := producer.GetContext(t.Context(), &user,
		`SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)`); err != nil {
		t.Fatal(err)
	}
	query := `
		SELECT COUNT(*)
		  FROM information_schema.innodb_trx trx
		  JOIN information_schema.processlist p ON p.id = trx.trx_mysql_thread_id
		 WHERE trx.trx_state = 'LOCK WAIT' AND p.user = ?`
	if dbtest.ServerOf(t, owner).Name == "TiDB" {
		query = `SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'INSERT%' AND user = ?`
	}
	deadline := time.Now().Add(20 * time.Second)
	for waiting := 0; waiting == 0; {
		// The server shows this table as it was, as long as somebody reads it more often than every
		// 100 ms.
		time.Sleep(150 * time.Millisecond)
		err := owner.GetContext(t.Context(), &waiting, query, user)
		if err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("no statement waits for a lock")
		}
	}
}

// TestProducerRefusalInTransaction: 1062 undoes its statement only, and keeps the row that was
// there from being withdrawn by its key until the end (on TiDB not even that), but not from being
// settled.
func TestProducerRefusalInTransaction(t *testing.T) {
	owner, db := newProducer(t)
	if _, err := db.ExecContext(t.Context(), insertKey, "k1"); err != nil {
		t.Fatal(err)
	}
	k1 := requestOf(t, owner, `dedup_key = 'k1'`)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), insertKey, "k2"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), insertKey, "k1"); errNumber(t, err) != 1062 {
		t.Errorf("the second k1 = %v, want 1062", err)
	}
	impatient := outsider(t, dbtest.DSN(t, owner), "innodb_lock_wait_timeout=1")
	held := uint16(1205)
	if dbtest.ServerOf(t, owner).Name == "TiDB" {
		held = 0
	}
	if _, err := impatient.ExecContext(t.Context(),
		`UPDATE send_request SET cancel = 1 WHERE dedup_key = 'k1'`); errNumber(t, err) != held {
		t.Errorf("withdrawing k1 by its key meanwhile = %v, want %d", err, held)
	}
	res, err := impatient.ExecContext(t.Context(),
		`UPDATE send_request SET status = 'sent' WHERE id = ? AND status = 'pending'`, k1)
	if err != nil {
		t.Errorf("settling k1 meanwhile: %v", err)
	} else if n, _ := res.RowsAffected(); n != 1 {
		t.Errorf("settling k1 meanwhile wrote %d rows", n)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	var keys []string
	if err := owner.SelectContext(t.Context(), &keys,
		`SELECT dedup_key FROM send_request ORDER BY id`); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"k1", "k2"}, keys); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// wrongCharacters is the error for a parameter of a prepared statement whose characters the column,
// or the connection's character set, cannot hold. In a statement's text it is 1366 everywhere.
func wrongCharacters(t *testing.T, db *sqlx.DB) uint16 {
	t.Helper()
	if dbtest.ServerOf(t, db).Name == "MySQL" {
		return 3988
	}
	return 1366
}

// TestProducerKeys: what counts as the same key.
func TestProducerKeys(t *testing.T) {
	owner, db := newProducer(t)
	for _, k := range []struct {
		key  any
		want uint16
	}{
		{"k1", 0}, {"K1", 0}, {"k1 ", 1062}, {"k1", 1062}, {"", 0}, {"", 1062}, {nil, 0}, {nil, 0},
		{strings.Repeat("k", 128), 0}, {strings.Repeat("k", 129), 1406},
		{"订单-1", wrongCharacters(t, owner)},
	} {
		if _, err := db.ExecContext(t.Context(), insertKey, k.key); errNumber(t, err) != k.want {
			t.Errorf("key %q = %v, want %d", k.key, err, k.want)
		}
	}
	// A multi-row INSERT is all or nothing, IGNORE is row by row.
	const three = ` INTO send_request (unionid, template, data, dedup_key)
		VALUES ('o1', 't', '{}', 'm1'), ('o1', 't', '{}', 'k1'), ('o1', 't', '{}', 'm2')`
	if _, err := db.ExecContext(t.Context(), "INSERT"+three); errNumber(t, err) != 1062 {
		t.Errorf("three rows with one duplicate = %v, want 1062", err)
	}
	res, err := db.ExecContext(t.Context(), "INSERT IGNORE"+three)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 2 {
		t.Errorf("IGNORE inserted %d of three (%v), want 2", n, err)
	}
}

// TestProducerIgnoreTrap is the table "INSERT IGNORE stores" of docs/producers.md: what the plain
// INSERT refuses, IGNORE changes.
func TestProducerIgnoreTrap(t *testing.T) {
	owner, producer := newProducer(t)
	server := dbtest.ServerOf(t, owner)
	noJSON, storedNoJSON := uint16(3140), "no row"
	switch server.Name {
	case "MariaDB":
		noJSON = 4025
	case "TiDB":
		storedNoJSON = "null"
	}
	const zero = "0000-00-00 00:00:00.000"
	in2099, stored2099 := uint16(1292), zero
	if server.Since("MariaDB", 11, 5) { // its TIMESTAMP ends in 2106
		in2099, stored2099 = 0, "2099-01-01 00:00:00.000"
	}
	for _, c := range []struct {
		name, column, value string
		refused             uint16
		stored              string
	}{
		{"long key", "dedup_key", `'` + strings.Repeat("k", 140) + `'`, 1406,
			strings.Repeat("k", 128)},
		{"long key that begins alike", "dedup_key", `'` + strings.Repeat("k", 139) + `x'`, 1406,
			"no row"},
		{"Chinese key", "dedup_key", `'订单-1'`, 1366, "??-1"},
		{"another Chinese key", "dedup_key", `'付款-1'`, 1366, "no row"},
		{"long recipient", "openid", `'` + strings.Repeat("o", 70) + `'`, 1406,
			strings.Repeat("o", 64)},
		{"priority in words", "priority", `'high'`, 1366, "0"},
		{"priority NULL", "priority", `NULL`, 1048, "0"},
		{"priority 900", "priority", `900`, 1264, "127"},
		{"expires_at in words", "expires_at", `'tomorrow'`, 1292, zero},
		{"expires_at in 2199", "expires_at", `'2199-01-01'`, 1292, zero},
		{"expires_at in 2099", "expires_at", `'2099-01-01'`, in2099, stored2099},
		{"due_at", "due_at", `'2026-13-41'`, 1292, zero},
		{"template NULL", "template", `NULL`, 1048, ""},
		{"long url", "url", `'` + strings.Repeat("u", 3000) + `'`, 1406, strings.Repeat("u", 2048)},
		{"no JSON", "data", `'热拿铁'`, noJSON, storedNoJSON},
	} {
		t.Run(c.name, func(t *testing.T) {
			columns := map[string]string{"unionid": `'o1'`, "template": `'t'`, "data": `'{}'`}
			columns[c.column] = c.value
			var names, values []string
			for name, value := range columns {
				names, values = append(names, name), append(values, value)
			}
			stmt := " INTO send_request (" + strings.Join(names, ", ") + ") VALUES (" +
				strings.Join(values, ", ") + ")"
			if _, err := producer.ExecContext(t.Context(), "INSERT"+stmt); errNumber(t,
				err) != c.refused {
				t.Errorf("INSERT = %v, want %d", err, c.refused)
			}
			stored := "no row"
			res, err := producer.ExecContext(t.Context(), "INSERT IGNORE"+stmt)
			if err != nil && errNumber(t, err) != noJSON {
				t.Fatal(err)
			}
			if err == nil {
				if n, _ := res.RowsAffected(); n == 1 {
					row := answer(t, owner, "SELECT CONCAT("+c.column+", '') AS v FROM "+
						"send_request ORDER BY id DESC LIMIT 1")
					stored = row[0]["v"]
				}
			}
			if diff := cmp.Diff(c.stored, stored); diff != "" {
				t.Errorf("INSERT IGNORE stores (-want +got):\n%s", diff)
			}
		})
	}
}

// TestProducerMoments: computed moments are right in every session's time zone, literals are read
// in it.
func TestProducerMoments(t *testing.T) {
	owner, db := newProducer(t)
	for _, zone := range []string{"+00:00", "+08:00", "-05:30"} {
		conn, err := db.Connx(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, stmt := range []string{
			`SET time_zone = '` + zone + `'`,
			`INSERT INTO send_request (openid, template, data, expires_at) VALUES ('computed', ` +
				`'t', '{}', CURRENT_TIMESTAMP(3) + INTERVAL 2 HOUR)`,
			`INSERT INTO send_request (openid, template, data, expires_at) VALUES ('literal', ` +
				`'t', '{}', '2030-12-24 18:00:00')`,
		} {
			if _, err := conn.ExecContext(t.Context(), stmt); err != nil {
				t.Fatalf("%s: %v", stmt, err)
			}
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := owner.SelectContext(t.Context(), &got, `
		SELECT CASE openid WHEN 'literal' THEN DATE_FORMAT(expires_at, '%Y-%m-%d %H:%i')
		            ELSE CONCAT('in ', ROUND(TIMESTAMPDIFF(SECOND, CURRENT_TIMESTAMP(3), expires_at) / 60), ' min') END
		  FROM send_request ORDER BY openid, id`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"in 120 min", "in 120 min", "in 120 min", "2030-12-24 18:00",
		"2030-12-24 10:00", "2030-12-24 23:30"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("expires_at in UTC (-want +got):\n%s", diff)
	}
}

// TestProducerCharset: what another character set than utf8mb4 does to a text. TiDB takes the bytes
// for utf8mb4 whatever the client says.
func TestProducerCharset(t *testing.T) {
	const text = `热拿铁😀`
	for _, c := range []struct {
		charset string
		refused bool
		whole   bool
	}{{"utf8mb4", false, true}, {"utf8", true, false}, {"latin1", false, false}} {
		owner, db := newProducer(t, "charset="+c.charset)
		if dbtest.ServerOf(t, owner).Name == "TiDB" {
			c.refused, c.whole = false, true
		}
		want := uint16(0)
		if c.refused {
			want = wrongCharacters(t, owner)
		}
		_, err := db.ExecContext(t.Context(),
			`INSERT INTO send_request (openid, template, data) VALUES ('o1', 't', ?)`,
			`{"thing1":"`+text+`"}`)
		if got := errNumber(t, err); got != want {
			t.Errorf("%s = %v, want %d", c.charset, err, want)
		}
		var stored []string
		if err := owner.SelectContext(t.Context(), &stored,
			`SELECT JSON_UNQUOTE(JSON_EXTRACT(data, '$.thing1')) FROM send_request`); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(stored, text) != c.whole {
			t.Errorf("%s stores %s", c.charset, stored)
		}
	}
}

// TestProducerCancel: what the view says of a withdrawn row in each state, and that withdrawing
// changes nothing else.
func TestProducerCancel(t *testing.T) {
	owner, db := newProducer(t)
	for i, c := range []struct{ set, want string }{
		{`status = 'pending'`, "cancelled"},
		{`status = 'pending', reason = 'recipient_later', attempts = 1`, "cancelled"},
		{`status = 'waiting', reason = 'not_following'`, "cancelled"},
		{`status = 'pending', lease = 'l1', attempts = 1`, "pending"},
		{`status = 'pending', reason = 'timeout', uncertain_at = CURRENT_TIMESTAMP(3), attempts = 1`, "pending"},
		{`status = 'waiting', uncertain_at = CURRENT_TIMESTAMP(3), attempts = 1`, "waiting"},
		{`status = 'sent', msgid = 1`, "sent"},
		{`status = 'failed', reason = 'refused_by_user'`, "failed"},
		{`status = 'expired', reason = 'expired'`, "expired"},
		{`status = 'unknown', reason = 'outcome_unknown'`, "unknown"},
	} {
		key := fmt.Sprint("k", i)
		allow(t, db, `INSERT INTO send_request (unionid, template, data, dedup_key) VALUES `+
			`('o1', 't', '{}', '`+key+`')`)
		allow(t, owner, `UPDATE send_request SET `+c.set+` WHERE dedup_key = '`+key+`'`)
		const row = `SELECT CONCAT_WS(',', status, reason, attempts, lease, uncertain_at, msgid, due_at, finished_at) FROM send_request WHERE dedup_key = ?`
		before, after, status := "", "", ""
		get := func(from *sqlx.DB, dst *string, query string) {
			t.Helper()
			if err := from.GetContext(t.Context(), dst, query, key); err != nil {
				t.Fatal(err)
			}
		}
		get(owner, &before, row)
		for n := int64(1); n >= 0; n-- {
			res, err := db.ExecContext(t.Context(),
				`UPDATE send_request SET cancel = 1 WHERE dedup_key = ?`, key)
			if err != nil {
				t.Fatal(err)
			}
			if changed, err := res.RowsAffected(); err != nil || changed != n {
				t.Errorf("%s: withdrawing changed %d rows (%v), want %d", c.set, changed, err, n)
			}
		}
		get(owner, &after, row)
		get(db, &status, `SELECT status FROM v_send_status WHERE dedup_key = ?`)
		if status != c.want {
			t.Errorf("%s, withdrawn: the view says %s, want %s", c.set, status, c.want)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%s: withdrawing changed the outcome (-before +after):\n%s", c.set, diff)
		}
	}
}
