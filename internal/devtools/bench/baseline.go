package main

import (
	"context"
	"database/sql"
	"strings"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// baseline sends as a good engineer's own program does after an afternoon, with none of the
// promises: 500 rows are claimed by one UPDATE, their recipients found by one IN lookup, the
// messages POSTed over connections that are kept, and the results settled by one UPDATE. It knows
// that nobody else claims, so it walks along the primary key; a row that it leaves behind stays
// behind.
type baseline struct {
	*bench
	db     harness.DB // one round trip a statement
	script *script
}

const (
	baselineBatch    = 500
	baselineInFlight = 64
)

type baselineRow struct {
	ID         int64
	UnionID    sql.NullString // of the recipient: one of the two
	MiniOpenID sql.NullString `db:"mini_openid"`
	Data       []byte
	touser     string // the openid in the official account
	msgid      int64
}

func (b *bench) newBaseline() *baseline {
	cfg := b.ParseDSN(b.database.DSN)
	cfg.InterpolateParams = true
	return &baseline{b, b.Connect(cfg), b.newScript(baselineInFlight)}
}

func (b *baseline) round(how string, run func()) float64 {
	b.db.Do("DROP TABLE IF EXISTS hand_request")
	b.db.Do("CREATE TABLE hand_request LIKE send_request")
	b.insertRequests("hand_request", b.requests)
	rate := b.timed(how, b.requests, run)
	b.nameAccount()
	// It has to be as right as the daemon where nothing goes wrong.
	if wrong := b.check("hand_request", b.requests).Violations; len(wrong) > 0 {
		b.Fatalf("the baseline is wrong %d times: %s\n%s", len(wrong), wrong[0], wrong[0].Story)
	}
	b.db.Do("DROP TABLE hand_request")
	return rate
}

// nameAccount says which account sent, for the check: a loop with one account need not note it.
func (b *baseline) nameAccount() { b.db.Do("UPDATE hand_request SET appid = ?", harness.AppID) }

func (b *baseline) loop() {
	for rows := range b.claims {
		posting := b.Group(baselineInFlight)
		for _, row := range rows {
			posting.Go(func(ctx context.Context) { row.msgid = b.script.send(ctx, row.touser, row.Data) })
		}
		posting.Wait()
		b.settle(rows)
	}
}

func (b *baseline) pipeline() {
	claimed := make(chan *baselineRow, 2*baselineBatch)
	sent := make(chan *baselineRow, 2*baselineBatch)
	group := b.Group(3)
	group.Go(func(ctx context.Context) {
		defer close(claimed)
		for rows := range b.claims {
			for _, row := range rows {
				if !pass(ctx, claimed, row) {
					return
				}
			}
		}
	})
	group.Go(func(context.Context) {
		defer close(sent)
		posting := b.Group(baselineInFlight)
		for range baselineInFlight {
			posting.Go(func(ctx context.Context) { b.postAll(ctx, claimed, sent) })
		}
		posting.Wait()
	})
	group.Go(func(context.Context) {
		var batch []*baselineRow
		for row := range sent {
			if batch = append(batch, row); len(batch) == baselineBatch {
				b.settle(batch)
				batch = nil
			}
		}
		if len(batch) > 0 {
			b.settle(batch)
		}
	})
	group.Wait()
}

// pass passes a row on, unless others have failed.
func pass(ctx context.Context, out chan<- *baselineRow, row *baselineRow) bool {
	select {
	case out <- row:
		return true
	case <-ctx.Done():
		return false
	}
}

func (b *baseline) claims(yield func([]*baselineRow) bool) {
	const claim = `
		UPDATE hand_request FORCE INDEX (PRIMARY)
		   SET status = 'sending', attempts = attempts + 1, attempted_at = CURRENT_TIMESTAMP(3)
		 WHERE id > ? AND status = 'pending'
		 ORDER BY id
		 LIMIT ?`
	const read = `
		SELECT id, unionid, mini_openid, data
		  FROM hand_request FORCE INDEX (PRIMARY)
		 WHERE id > ? AND status = 'sending'
		 ORDER BY id
		 LIMIT ?`
	for last := int64(0); ; {
		b.db.Do(claim, last, baselineBatch)
		rows := make([]*baselineRow, 0, baselineBatch)
		b.db.FetchAll(&rows, read, last, baselineBatch)
		if len(rows) == 0 {
			return
		}
		last = rows[len(rows)-1].ID
		b.lookUp(rows)
		if !yield(rows) {
			return
		}
	}
}

func (b *baseline) lookUp(rows []*baselineRow) {
	unionids, openids := []string{""}, []string{""} // IN needs one at least
	for _, row := range rows {
		if row.UnionID.Valid {
			unionids = append(unionids, row.UnionID.String)
		} else {
			openids = append(openids, row.MiniOpenID.String)
		}
	}
	query, args, err := sqlx.In(`
		SELECT f.unionid AS person, f.openid
		  FROM follower f
		 WHERE f.appid = ? AND f.subscribed = 1 AND f.unionid IN (?)
		 UNION ALL
		SELECT m.openid, f.openid
		  FROM mini_user m
		  JOIN follower f ON f.unionid = m.unionid AND f.appid = ? AND f.subscribed = 1
		 WHERE m.appid = ? AND m.openid IN (?)`,
		harness.AppID, unionids, harness.AppID, harness.MiniAppID, openids)
	b.Check(err)
	var found []struct{ Person, OpenID string }
	b.db.FetchAll(&found, query, args...)
	tousers := make(map[string]string, len(rows))
	for _, f := range found {
		tousers[f.Person] = f.OpenID
	}
	for _, row := range rows {
		row.touser = tousers[row.UnionID.String+row.MiniOpenID.String]
	}
}

func (b *baseline) postAll(ctx context.Context, in <-chan *baselineRow, out chan<- *baselineRow) {
	for row := range in {
		row.msgid = b.script.send(ctx, row.touser, row.Data)
		if !pass(ctx, out, row) {
			return
		}
	}
}

func (b *baseline) settle(rows []*baselineRow) {
	const first, next = `SELECT ? AS id, ? AS msgid, ? AS openid`, ` UNION ALL SELECT ?, ?, ?`
	args := make([]any, 0, 3*len(rows))
	for _, row := range rows {
		args = append(args, row.ID, row.msgid, row.touser)
	}
	b.db.Do(`
		UPDATE hand_request r
		  JOIN (`+first+strings.Repeat(next, len(rows)-1)+`) s ON s.id = r.id
		   SET r.status = 'sent', r.msgid = s.msgid, r.sent_openid = s.openid,
		       r.finished_at = CURRENT_TIMESTAMP(3)`, args...)
}
