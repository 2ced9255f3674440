package sender

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestDatabaseGoesAway: the database is cut off in the middle of the work, twice. Every request
// ends sent and everybody gets one message, also those whose outcome could not be written at
// first.
func TestDatabaseGoesAway(t *testing.T) {
	f := newFixture(t)
	proxy := dbtest.NewProxy(t, dbtest.DSN(t, f.db))
	direct := f.db
	const rows = 3000
	for i := range rows {
		f.insert(t, columns{"unionid": f.unionid(i % 100)})
	}
	// The sender goes through the proxy, the test itself does not.
	f.db = dbtest.Open(t, proxy.DSN())
	f.config.DB, f.channel.Identities = f.db, bridge.New(f.db)
	f.start(t, "one")
	f.db = direct
	for _, share := range []int{10, 3} {
		eventually(t, "a part", func() bool { return len(f.sim.Messages(appid)) > rows/share })
		proxy.Cut()
		time.Sleep(500 * time.Millisecond)
		proxy.Restore()
	}
	deadline := time.Now().Add(60 * time.Second)
	for f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) < rows {
		// What a lost answer to a claim left behind falls due after the claim's time; the test does
		// not wait for that. It reads all rows, and so meets the settles in any order.
		err := database.Retry(t.Context(), func(ctx context.Context) error {
			_, err := f.db.ExecContext(ctx, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3)
				WHERE status = 'pending' AND attempted_at < CURRENT_TIMESTAMP(3) - INTERVAL 5 SECOND`)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d of %d rows were sent", f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`), rows)
		}
		time.Sleep(50 * time.Millisecond)
	}
	ids := map[string]bool{}
	for _, m := range f.sim.Messages(appid) {
		ids[m.ClientMsgID] = true
	}
	if n := len(f.sim.Messages(appid)); n != rows || len(ids) != rows {
		t.Errorf("%d messages with %d client_msg_ids, want %d", n, len(ids), rows)
	}
}

// TestMissingGrant: the log names the grant that is missing, and the rows are as they were.
func TestMissingGrant(t *testing.T) {
	f := newFixture(t)
	id := f.insert(t, columns{"unionid": f.unionid(1)})
	user := "ub_" + strings.ToLower(t.Name())[:12]
	var schema string
	if err := f.db.GetContext(t.Context(), &schema, `SELECT DATABASE()`); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `CREATE USER '`+user+`'@'%' IDENTIFIED BY 'pass-1'`)
	t.Cleanup(func() { _, _ = f.db.Exec(`DROP USER '` + user + `'@'%'`) })
	f.exec(t, `GRANT SELECT ON `+schema+`.* TO '`+user+`'@'%'`)
	f.exec(t, `GRANT INSERT, UPDATE ON `+schema+`.lease TO '`+user+`'@'%'`)
	var log lockedBuffer
	admin := f.db
	f.db = dbtest.Open(t, dbtest.DSNAs(t, admin, user, "pass-1"))
	f.config.DB, f.channel.Identities = f.db, bridge.New(f.db)
	f.config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	stop := f.start(t, "one")
	f.db = admin
	eventually(t, "the complaint", func() bool { return strings.Contains(log.String(), "GRANT UPDATE ON") })
	stop()
	if r := f.row(t, id); r.Status != "pending" || r.Attempts != 0 {
		t.Errorf("the row says %+v", r)
	}
	if strings.Contains(log.String(), "pass-1") {
		t.Error("the log shows the password")
	}
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
