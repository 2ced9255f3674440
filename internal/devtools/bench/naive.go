package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// script does the job as a simple script does it: one thing after the other.
type script struct {
	base   string
	token  string
	client *http.Client
	read   atomic.Int64 // bytes of answers
}

// followerPage is a page of the list.
type followerPage struct {
	Data struct {
		OpenID []string `json:"openid"`
	} `json:"data"`
	Next string `json:"next_openid"`
}

// followerInfo is what WeChat says about a follower.
type followerInfo struct {
	OpenID    string          `json:"openid"`
	UnionID   string          `json:"unionid"`
	Subscribe int             `json:"subscribe"`
	Time      int64           `json:"subscribe_time"`
	Scene     string          `json:"subscribe_scene"`
	QRScene   int64           `json:"qr_scene"`
	QRStr     string          `json:"qr_scene_str"`
	Remark    string          `json:"remark"`
	Group     int64           `json:"groupid"`
	Tags      json.RawMessage `json:"tagid_list"`
	Language  string          `json:"language"`
}

// newScript logs in; it keeps so many connections open.
func (b *bench) newScript(ctx context.Context, connections int) (*script, error) {
	s := &script{base: b.simulator.URL, client: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: connections, DisableCompression: true, // as unionbridge's client
	}}}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	login := map[string]string{"grant_type": "client_credential", "appid": stage.AppID, "secret": stage.Secret}
	if err := s.post(ctx, "/cgi-bin/stable_token", login, &answer); err != nil {
		return nil, err
	}
	s.token = answer.AccessToken
	return s, nil
}

func (s *script) get(ctx context.Context, path string, query url.Values, answer any) error {
	query.Set("access_token", s.token)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	return s.do(request, answer)
}

func (s *script) post(ctx context.Context, path string, body, answer any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return s.postText(ctx, path, string(encoded), answer)
}

func (s *script) postText(ctx context.Context, path, body string, answer any) error {
	request, err := s.postRequest(ctx, path, body)
	if err != nil {
		return err
	}
	return s.do(request, answer)
}

func (s *script) postRequest(ctx context.Context, path, body string) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, http.MethodPost, s.base+path+"?access_token="+url.QueryEscape(s.token), strings.NewReader(body))
}

// do makes a call; where answer is nil, what comes is thrown away.
func (s *script) do(request *http.Request, answer any) error {
	response, err := s.client.Do(request)
	if err != nil {
		return errors.New("the script got no answer")
	}
	defer func() { _ = response.Body.Close() }()
	if answer == nil {
		n, err := io.Copy(io.Discard, response.Body)
		s.read.Add(n)
		return err
	}
	body, err := io.ReadAll(response.Body)
	s.read.Add(int64(len(body)))
	if err != nil {
		return fmt.Errorf("the script reads an answer: %w", err)
	}
	var failure struct {
		Code int    `json:"errcode"`
		Text string `json:"errmsg"`
	}
	if err := errors.Join(json.Unmarshal(body, &failure), json.Unmarshal(body, answer)); err != nil {
		return fmt.Errorf("the script reads an answer: %w", err)
	}
	if failure.Code != 0 {
		return fmt.Errorf("the script was refused: %d %s", failure.Code, failure.Text)
	}
	return nil
}

// naiveFollowers and naiveRequests are enough for a steady rate: every one costs the same.
const (
	naiveFollowers = 5000
	naiveRequests  = 3000
)

// naiveSweep pages, asks about each follower with a call of his own and upserts him with a statement of
// his own; again is the same a second time, when nothing has changed. Both are followers a second.
func (b *bench) naiveSweep(ctx context.Context) (first, again float64, err error) {
	n := min(naiveFollowers, b.size)
	b.screen.Step("the same by a simple script: user/info and an upsert for each of %s followers, twice", stage.Count(int64(n)))
	if _, err := b.db.ExecContext(ctx, "CREATE TABLE naive_follower LIKE follower"); err != nil {
		return 0, 0, fmt.Errorf("making the script's table: %w", err)
	}
	s, err := b.newScript(ctx, sweepQuestions)
	if err != nil {
		return 0, 0, err
	}
	if first, err = b.naivePass(ctx, s, n); err != nil {
		return 0, 0, err
	}
	if again, err = b.naivePass(ctx, s, n); err != nil {
		return 0, 0, err
	}
	b.screen.Say("%s and %s followers/s", number(first), number(again))
	if _, err := b.db.ExecContext(ctx, "DROP TABLE naive_follower"); err != nil {
		return 0, 0, fmt.Errorf("dropping the script's table: %w", err)
	}
	return first, again, nil
}

func (b *bench) naivePass(ctx context.Context, s *script, n int) (rate float64, err error) {
	begin := time.Now()
	var page followerPage
	if err := s.get(ctx, pathList, url.Values{}, &page); err != nil {
		return 0, err
	}
	for _, openid := range page.Data.OpenID[:n] {
		if err := b.naiveFollower(ctx, s, openid); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

func (b *bench) naiveFollower(ctx context.Context, s *script, openid string) error {
	var info followerInfo
	if err := s.get(ctx, pathInfo, url.Values{"openid": {openid}}, &info); err != nil {
		return err
	}
	const upsert = `
		INSERT INTO naive_follower (appid, openid, unionid, subscribed, subscribe_time, subscribe_scene, qr_scene,
		                            qr_scene_str, remark, groupid, tagid_list, language, info_at)
		VALUES (?, ?, ?, ?, FROM_UNIXTIME(?), ?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP(3))
		ON DUPLICATE KEY UPDATE unionid = VALUES(unionid), subscribed = VALUES(subscribed), info_at = VALUES(info_at)`
	_, err := b.db.ExecContext(ctx, upsert, stage.AppID, info.OpenID, info.UnionID, info.Subscribe, info.Time, info.Scene,
		info.QRScene, info.QRStr, info.Remark, info.Group, string(info.Tags), info.Language)
	if err != nil {
		return fmt.Errorf("the script stores a follower: %w", err)
	}
	return nil
}

// naiveSend takes one row, sends it and marks it, and then the next. It returns sends a second.
func (b *bench) naiveSend(ctx context.Context) (rate float64, err error) {
	n := min(naiveRequests, b.requests)
	b.screen.Step("sending by a simple script: one SELECT, one POST, one UPDATE for each of %s messages", stage.Count(int64(n)))
	if _, err := b.db.ExecContext(ctx, "CREATE TABLE naive_request LIKE send_request"); err != nil {
		return 0, fmt.Errorf("making the script's table: %w", err)
	}
	if err := b.insertRequests(ctx, "naive_request", n); err != nil {
		return 0, err
	}
	s, err := b.newScript(ctx, sweepQuestions)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	var last int64
	for range n {
		if last, err = b.naiveMessage(ctx, s, last); err != nil {
			return 0, err
		}
	}
	rate = float64(n) / time.Since(begin).Seconds()
	b.screen.Say("%s sends/s", number(rate))
	if _, err := b.db.ExecContext(ctx, "DROP TABLE naive_request"); err != nil {
		return 0, fmt.Errorf("dropping the script's table: %w", err)
	}
	return rate, nil
}

// naiveMessage sends the next row after the last one: no search among the rows that are done, which
// would make the script slower with each row.
func (b *bench) naiveMessage(ctx context.Context, s *script, last int64) (id int64, err error) {
	const next = `
		SELECT r.id, f.openid, r.data
		  FROM naive_request r
		  LEFT JOIN mini_user m ON m.appid = ? AND m.openid = r.mini_openid
		  JOIN follower f ON f.unionid = COALESCE(r.unionid, m.unionid) AND f.appid = ?
		 WHERE r.status = 'pending' AND r.id > ?
		 ORDER BY r.id
		 LIMIT 1`
	var openid, data string
	if err := b.db.QueryRowContext(ctx, next, stage.MiniAppID, stage.AppID, last).Scan(&id, &openid, &data); err != nil {
		return 0, fmt.Errorf("the script takes a row: %w", err)
	}
	var plain map[string]string
	if err := json.Unmarshal([]byte(data), &plain); err != nil {
		return 0, fmt.Errorf("the script reads a row: %w", err)
	}
	fields := make(map[string]map[string]string, len(plain))
	for key, value := range plain {
		fields[key] = map[string]string{"value": value}
	}
	var answer struct {
		MsgID int64 `json:"msgid"`
	}
	message := map[string]any{"touser": openid, "template_id": stage.TemplateID(), "data": fields}
	if err := s.post(ctx, pathSend, message, &answer); err != nil {
		return 0, err
	}
	_, err = b.db.ExecContext(ctx, `UPDATE naive_request SET status = 'sent', msgid = ?, sent_openid = ? WHERE id = ?`,
		answer.MsgID, openid, id)
	if err != nil {
		return 0, fmt.Errorf("the script marks a row: %w", err)
	}
	return id, nil
}
