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

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// hand sends as a good engineer's own program does after an afternoon, with none of the promises: 500 rows are
// claimed by one UPDATE, their recipients found by one IN lookup, the messages POSTed over connections that are
// kept, and the results settled by one UPDATE. It knows that nobody else claims, so it walks along the primary
// key; a row that it leaves behind stays behind.
type hand struct {
	bench  *bench
	db     *sql.DB
	script *script
}

const (
	handBatch    = 500
	handInFlight = 64
)

// handRow is a claimed row on its way.
type handRow struct {
	id              int64
	unionid, openid sql.NullString // of the recipient: one of the two
	data            map[string]string
	touser          string // the openid in the official account
	msgid           int64
}

func (b *bench) newHand(ctx context.Context) (*hand, error) {
	cfg, err := mysql.ParseDSN(b.database.DSN())
	if err != nil {
		return nil, err
	}
	cfg.InterpolateParams = true // one round trip a statement
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	h := &hand{bench: b, db: sql.OpenDB(connector)}
	b.stage.OnClose(h.db.Close)
	h.script, err = b.newScript(ctx, handInFlight)
	return h, err
}

// round sends all requests by loop or by pipeline and returns sends a second.
func (h *hand) round(ctx context.Context, how string, run func(context.Context) error) (rate float64, err error) {
	b := h.bench
	if err := b.execAll(ctx, "DROP TABLE IF EXISTS hand_request", "CREATE TABLE hand_request LIKE send_request"); err != nil {
		return 0, err
	}
	if err := b.insertRequests(ctx, "hand_request", b.requests); err != nil {
		return 0, err
	}
	if err := b.simulator.Reset(ctx); err != nil {
		return 0, err
	}
	cpu := b.watchCPU(ctx)
	begin := time.Now()
	if err := run(ctx); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	rate = float64(b.requests) / took.Seconds()
	b.screen.Say("%s in %.1f s, %s/s; processor seconds: %s", how, took.Seconds(), stage.Count(int64(rate)), cpu)
	// It has to be as right as the daemon where nothing goes wrong.
	v, err := b.readBack(ctx, "hand_request", b.requests)
	if err == nil && v != (verdict{}) {
		err = fmt.Errorf("the hand loop went wrong: %+v", v)
	}
	return rate, errors.Join(err, b.execAll(ctx, "DROP TABLE hand_request"))
}

// loop takes one batch after the other.
func (h *hand) loop(ctx context.Context) error {
	for last := int64(0); ; {
		rows, err := h.claim(ctx, last)
		if err != nil || len(rows) == 0 {
			return err
		}
		last = rows[len(rows)-1].id
		if err := h.lookUp(ctx, rows); err != nil {
			return err
		}
		posting, postCtx := errgroup.WithContext(ctx)
		posting.SetLimit(handInFlight)
		for _, row := range rows {
			posting.Go(func() error { return h.post(postCtx, row) })
		}
		if err := posting.Wait(); err != nil {
			return err
		}
		if err := h.settle(ctx, rows); err != nil {
			return err
		}
	}
}

// pipeline has the steps work at the same time, each on another batch.
func (h *hand) pipeline(ctx context.Context) error {
	claimed := make(chan *handRow, 2*handBatch)
	sent := make(chan *handRow, 2*handBatch)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(claimed)
		return h.claimAll(ctx, claimed)
	})
	group.Go(func() error {
		defer close(sent)
		posting, ctx := errgroup.WithContext(ctx)
		for range handInFlight {
			posting.Go(func() error { return h.postAll(ctx, claimed, sent) })
		}
		return posting.Wait()
	})
	group.Go(func() error { return h.settleAll(ctx, sent) })
	return group.Wait()
}

func (h *hand) claimAll(ctx context.Context, out chan<- *handRow) error {
	for last := int64(0); ; {
		rows, err := h.claim(ctx, last)
		if err != nil || len(rows) == 0 {
			return err
		}
		last = rows[len(rows)-1].id
		if err := h.lookUp(ctx, rows); err != nil {
			return err
		}
		for _, row := range rows {
			select {
			case out <- row:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func (h *hand) claim(ctx context.Context, last int64) ([]*handRow, error) {
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
	if _, err := h.db.ExecContext(ctx, claim, last, handBatch); err != nil {
		return nil, fmt.Errorf("the hand loop claims: %w", err)
	}
	found, err := h.db.QueryContext(ctx, read, last, handBatch)
	if err != nil {
		return nil, fmt.Errorf("the hand loop reads: %w", err)
	}
	defer func() { _ = found.Close() }()
	rows := make([]*handRow, 0, handBatch)
	var data []byte
	for found.Next() {
		row := &handRow{}
		if err := found.Scan(&row.id, &row.unionid, &row.openid, &data); err != nil {
			return nil, fmt.Errorf("the hand loop reads: %w", err)
		}
		if err := json.Unmarshal(data, &row.data); err != nil {
			return nil, fmt.Errorf("the hand loop reads: %w", err)
		}
		rows = append(rows, row)
	}
	return rows, found.Err()
}

// lookUp finds the recipients.
func (h *hand) lookUp(ctx context.Context, rows []*handRow) error {
	const query = `
		SELECT f.unionid, f.openid
		  FROM follower f
		 WHERE f.appid = ? AND f.subscribed = 1 AND f.unionid IN (%s)
		 UNION ALL
		SELECT m.openid, f.openid
		  FROM mini_user m
		  JOIN follower f ON f.unionid = m.unionid AND f.appid = ? AND f.subscribed = 1
		 WHERE m.appid = ? AND m.openid IN (%s)`
	byUnionID, byOpenID := []any{stage.AppID, ""}, []any{stage.AppID, stage.MiniAppID, ""}
	for _, row := range rows {
		if row.unionid.Valid {
			byUnionID = append(byUnionID, row.unionid.String)
		} else {
			byOpenID = append(byOpenID, row.openid.String)
		}
	}
	marks := func(n int) string { return "?" + strings.Repeat(",?", n-1) } // of one "" at the least
	found, err := h.db.QueryContext(ctx, fmt.Sprintf(query, marks(len(byUnionID)-1), marks(len(byOpenID)-2)), append(byUnionID, byOpenID...)...)
	if err != nil {
		return fmt.Errorf("the hand loop looks up: %w", err)
	}
	defer func() { _ = found.Close() }()
	openids := make(map[string]string, len(rows))
	var key, openid string
	for found.Next() {
		if err := found.Scan(&key, &openid); err != nil {
			return fmt.Errorf("the hand loop looks up: %w", err)
		}
		openids[key] = openid
	}
	for _, row := range rows {
		row.touser = openids[row.unionid.String+row.openid.String]
	}
	return found.Err()
}

func (h *hand) postAll(ctx context.Context, in <-chan *handRow, out chan<- *handRow) error {
	for row := range in {
		if err := h.post(ctx, row); err != nil {
			return err
		}
		select {
		case out <- row:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// handValue and handMessage are what WeChat takes.
type handValue struct {
	Value string `json:"value"`
}

type handMessage struct {
	ToUser     string               `json:"touser"`
	TemplateID string               `json:"template_id"`
	Data       map[string]handValue `json:"data"`
}

func (h *hand) post(ctx context.Context, row *handRow) error {
	message := handMessage{row.touser, stage.TemplateID(), make(map[string]handValue, len(row.data))}
	for key, value := range row.data {
		message.Data[key] = handValue{value}
	}
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("the hand loop writes a message: %w", err)
	}
	request, err := h.script.postRequest(ctx, pathSend, string(body))
	if err != nil {
		return err
	}
	response, err := h.script.client.Do(request)
	if err != nil {
		return errors.New("the hand loop got no answer")
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
	if err != nil {
		return fmt.Errorf("the hand loop sends: %w", err)
	}
	row.msgid = answer.MsgID
	return nil
}

func (h *hand) settleAll(ctx context.Context, in <-chan *handRow) error {
	batch := make([]*handRow, 0, handBatch)
	for row := range in {
		if batch = append(batch, row); len(batch) < handBatch {
			continue
		}
		if err := h.settle(ctx, batch); err != nil {
			return err
		}
		batch = batch[:0]
	}
	if len(batch) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	return h.settle(ctx, batch)
}

func (h *hand) settle(ctx context.Context, rows []*handRow) error {
	const first, next = `SELECT ? AS id, ? AS msgid, ? AS openid`, ` UNION ALL SELECT ?, ?, ?`
	args := make([]any, 0, 3*len(rows))
	for _, row := range rows {
		args = append(args, row.id, row.msgid, row.touser)
	}
	query := `
		UPDATE hand_request r
		  JOIN (` + first + strings.Repeat(next, len(rows)-1) + `) s ON s.id = r.id
		   SET r.status = 'sent', r.msgid = s.msgid, r.sent_openid = s.openid, r.finished_at = CURRENT_TIMESTAMP(3)`
	if _, err := h.db.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("the hand loop settles: %w", err)
	}
	return nil
}
