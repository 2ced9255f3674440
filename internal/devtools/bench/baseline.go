package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// baseline sends as a good engineer's own program does after an afternoon, with none of the
// promises: 500 rows are claimed by one UPDATE, their recipients found by one IN lookup, the
// messages POSTed over connections that are kept, and the results settled by one UPDATE. It knows
// that nobody else claims, so it walks along the primary key; a row that it leaves behind stays
// behind.
type baseline struct {
	*bench
	script *script
}

const (
	baselineBatch    = 500
	baselineInFlight = 64
)

// baselineRow is a claimed row on its way.
type baselineRow struct {
	id              int64
	unionid, openid sql.NullString // of the recipient: one of the two
	data            map[string]string
	touser          string // the openid in the official account
	msgid           int64
}

func (b *bench) newBaseline() *baseline {
	cfg := b.ParseDSN(b.database.DSN())
	cfg.InterpolateParams = true // one round trip a statement
	inner := *b
	shared := *b.setUp
	inner.setUp, shared.db = &shared, b.Connect(cfg)
	return &baseline{&inner, b.newScript(baselineInFlight)}
}

func (b *baseline) round(how string, run func()) float64 {
	b.db.Do("DROP TABLE IF EXISTS hand_request")
	b.db.Do("CREATE TABLE hand_request LIKE send_request")
	b.insertRequests("hand_request", b.requests)
	b.simulator.Reset()
	cpu := b.watchCPU()
	begin := time.Now()
	run()
	took := time.Since(begin).Seconds()
	rate := float64(b.requests) / took
	b.Say("%s in %.1f s, %s/s; processor seconds: %s", how, took, harness.Count(int64(rate)), cpu)
	// It has to be as right as the daemon where nothing goes wrong.
	if wrong := b.check("hand_request", b.requests).Violations; len(wrong) > 0 {
		b.Fatalf("the baseline is wrong %d times: %s\n%s", len(wrong), wrong[0], wrong[0].Story)
	}
	b.db.Do("DROP TABLE hand_request")
	return rate
}

func (b *baseline) loop() {
	for last := int64(0); ; {
		rows := b.claim(b.Context(), last)
		if len(rows) == 0 {
			return
		}
		last = rows[len(rows)-1].id
		posting := b.Group(baselineInFlight)
		for _, row := range rows {
			posting.Go(func(ctx context.Context) { b.postRow(ctx, row) })
		}
		posting.Wait()
		b.settle(b.Context(), rows)
	}
}

func (b *baseline) pipeline() {
	claimed := make(chan *baselineRow, 2*baselineBatch)
	sent := make(chan *baselineRow, 2*baselineBatch)
	group := b.Group(3)
	group.Go(func(ctx context.Context) {
		defer close(claimed)
		b.claimAll(ctx, claimed)
	})
	group.Go(func(context.Context) {
		defer close(sent)
		posting := b.Group(baselineInFlight)
		for range baselineInFlight {
			posting.Go(func(ctx context.Context) { b.postAll(ctx, claimed, sent) })
		}
		posting.Wait()
	})
	group.Go(func(ctx context.Context) { b.settleAll(ctx, sent) })
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

func (b *baseline) claimAll(ctx context.Context, out chan<- *baselineRow) {
	for last := int64(0); ; {
		rows := b.claim(ctx, last)
		if len(rows) == 0 {
			return
		}
		last = rows[len(rows)-1].id
		for _, row := range rows {
			if !pass(ctx, out, row) {
				return
			}
		}
	}
}

func (b *baseline) claim(ctx context.Context, last int64) []*baselineRow {
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
	_, err := b.db.ExecContext(ctx, claim, last, baselineBatch)
	b.Checkf(err, "the baseline claims")
	found, err := b.db.QueryContext(ctx, read, last, baselineBatch)
	b.Checkf(err, "the baseline reads")
	defer func() { _ = found.Close() }()
	rows := make([]*baselineRow, 0, baselineBatch)
	var data []byte
	for found.Next() {
		row := &baselineRow{}
		err := found.Scan(&row.id, &row.unionid, &row.openid, &data)
		if err == nil {
			err = json.Unmarshal(data, &row.data)
		}
		b.Checkf(err, "the baseline reads")
		rows = append(rows, row)
	}
	b.Checkf(found.Err(), "the baseline reads")
	if len(rows) > 0 {
		b.lookUp(ctx, rows)
	}
	return rows
}

func (b *baseline) lookUp(ctx context.Context, rows []*baselineRow) {
	const query = `
		SELECT f.unionid, f.openid
		  FROM follower f
		 WHERE f.appid = ? AND f.subscribed = 1 AND f.unionid IN (%s)
		 UNION ALL
		SELECT m.openid, f.openid
		  FROM mini_user m
		  JOIN follower f ON f.unionid = m.unionid AND f.appid = ? AND f.subscribed = 1
		 WHERE m.appid = ? AND m.openid IN (%s)`
	byUnionID := []any{harness.AppID, ""}
	byOpenID := []any{harness.AppID, harness.MiniAppID, ""}
	for _, row := range rows {
		if row.unionid.Valid {
			byUnionID = append(byUnionID, row.unionid.String)
		} else {
			byOpenID = append(byOpenID, row.openid.String)
		}
	}
	marks := func(n int) string { return "?" + strings.Repeat(",?", n-1) } // of one "" at least
	found, err := b.db.QueryContext(ctx,
		fmt.Sprintf(query, marks(len(byUnionID)-1), marks(len(byOpenID)-2)),
		append(byUnionID, byOpenID...)...)
	b.Checkf(err, "the baseline looks up")
	defer func() { _ = found.Close() }()
	openids := make(map[string]string, len(rows))
	var key, openid string
	for found.Next() {
		b.Checkf(found.Scan(&key, &openid), "the baseline looks up")
		openids[key] = openid
	}
	b.Checkf(found.Err(), "the baseline looks up")
	for _, row := range rows {
		row.touser = openids[row.unionid.String+row.openid.String]
	}
}

func (b *baseline) postAll(ctx context.Context, in <-chan *baselineRow, out chan<- *baselineRow) {
	for row := range in {
		b.postRow(ctx, row)
		if !pass(ctx, out, row) {
			return
		}
	}
}

// baselineValue and baselineMessage are what WeChat takes.
type baselineValue struct {
	Value string `json:"value"`
}

type baselineMessage struct {
	ToUser     string                   `json:"touser"`
	TemplateID string                   `json:"template_id"`
	Data       map[string]baselineValue `json:"data"`
}

func (b *baseline) postRow(ctx context.Context, row *baselineRow) {
	message := baselineMessage{
		row.touser, harness.TemplateID(), make(map[string]baselineValue, len(row.data)),
	}
	for key, value := range row.data {
		message.Data[key] = baselineValue{value}
	}
	request := b.script.postRequest(ctx, harness.PathSend, encode(message))
	response, err := b.script.client.Do(request)
	if err != nil {
		b.Fatal(errors.New("the baseline got no answer")) // err quotes the token
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Code  int    `json:"errcode"`
		Text  string `json:"errmsg"`
		MsgID int64  `json:"msgid"`
	}
	text, err := io.ReadAll(response.Body) // to its end: only then is the connection used again
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err == nil && answer.Code != 0 {
		err = fmt.Errorf("%d %s", answer.Code, answer.Text)
	}
	b.Checkf(err, "the baseline sends")
	row.msgid = answer.MsgID
}

func (b *baseline) settleAll(ctx context.Context, in <-chan *baselineRow) {
	batch := make([]*baselineRow, 0, baselineBatch)
	for row := range in {
		if batch = append(batch, row); len(batch) == baselineBatch {
			b.settle(ctx, batch)
			batch = batch[:0]
		}
	}
	if len(batch) > 0 && ctx.Err() == nil {
		b.settle(ctx, batch)
	}
}

func (b *baseline) settle(ctx context.Context, rows []*baselineRow) {
	const first, next = `SELECT ? AS id, ? AS msgid, ? AS openid`, ` UNION ALL SELECT ?, ?, ?`
	args := make([]any, 0, 3*len(rows))
	for _, row := range rows {
		args = append(args, row.id, row.msgid, row.touser)
	}
	query := `
		UPDATE hand_request r
		  JOIN (` + first + strings.Repeat(next, len(rows)-1) + `) s ON s.id = r.id
		   SET r.status = 'sent', r.msgid = s.msgid, r.sent_openid = s.openid,
		       r.finished_at = CURRENT_TIMESTAMP(3)`
	_, err := b.db.ExecContext(ctx, query, args...)
	b.Checkf(err, "the baseline settles")
}
