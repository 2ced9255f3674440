package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// script is a client of WeChat's API as a simple script has it.
type script struct {
	t      *harness.T
	base   string
	token  string
	client *http.Client
	read   atomic.Int64 // bytes of answers
}

// refusal is what any answer may say.
type refusal struct {
	Code int    `json:"errcode"`
	Text string `json:"errmsg"`
}

func (r *refusal) refused() *refusal { return r }

type answer interface{ refused() *refusal }

type followerPage struct {
	refusal
	Data struct {
		OpenID []string `json:"openid"`
	} `json:"data"`
	Next string `json:"next_openid"`
}

type followerInfo struct {
	refusal
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

func (b *bench) newScript(connections int) *script {
	s := &script{t: b.T, base: b.simulator.URL, client: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: connections, DisableCompression: true, // as unionbridge's client
	}}}
	var login struct {
		refusal
		AccessToken string `json:"access_token"`
	}
	s.post(b.Context(), harness.PathToken, s.encode(map[string]string{
		"grant_type": "client_credential", "appid": harness.AppID, "secret": harness.Secret,
	}), &login)
	s.token = url.QueryEscape(login.AccessToken)
	return s
}

func (s *script) encode(body any) string {
	encoded, err := json.Marshal(body)
	s.t.Check(err)
	return string(encoded)
}

func (s *script) get(path, query string, to answer) {
	address := s.base + path + "?access_token=" + s.token + "&" + query
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, address, nil)
	s.t.Check(err)
	s.do(request, to)
}

func (s *script) post(ctx context.Context, path, body string, to answer) {
	address := s.base + path + "?access_token=" + s.token
	text := strings.NewReader(body)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, text)
	s.t.Check(err)
	s.do(request, to)
}

// do makes a call; where to is nil, what comes is thrown away.
func (s *script) do(request *http.Request, to answer) {
	response, err := s.client.Do(request)
	if err != nil {
		s.t.Fatalf("the script got no answer") // err quotes the token
	}
	defer func() { _ = response.Body.Close() }()
	var body bytes.Buffer
	sink := io.Writer(&body)
	if to == nil {
		sink = io.Discard
	}
	n, err := io.Copy(sink, response.Body)
	s.read.Add(n)
	s.t.Checkf(err, "the script reads an answer")
	if to == nil {
		return
	}
	s.t.Checkf(json.Unmarshal(body.Bytes(), to), "the script reads an answer")
	if r := to.refused(); r.Code != 0 {
		s.t.Fatalf("the script was refused: %d %s", r.Code, r.Text)
	}
}

// send sends the data of a request, in the form {"thing1":"x"}, and returns the msgid.
func (s *script) send(ctx context.Context, openid string, data []byte) int64 {
	var plain map[string]string
	s.t.Checkf(json.Unmarshal(data, &plain), "the script reads a row")
	type value struct {
		Value string `json:"value"`
	}
	body := struct {
		ToUser     string           `json:"touser"`
		TemplateID string           `json:"template_id"`
		Data       map[string]value `json:"data"`
	}{openid, harness.TemplateID(), make(map[string]value, len(plain))}
	for key, text := range plain {
		body.Data[key] = value{text}
	}
	var sent struct {
		refusal
		MsgID int64 `json:"msgid"`
	}
	s.post(ctx, harness.PathSend, s.encode(body), &sent)
	return sent.MsgID
}

// baselineFollowers and baselineRequests are enough for a steady rate: every one costs the same.
const (
	baselineFollowers = 5000
	baselineRequests  = 3000
)

// baselineSweep does the job one thing after the other: it pages, looks each follower up with a
// call and upserts each with a statement. again is the same a second time, when nothing has
// changed. Both are followers a second.
func (b *bench) baselineSweep() (first, again float64) {
	n := min(baselineFollowers, b.size)
	b.Step("the same by a simple script: user/info and an upsert for each of %s followers, twice", harness.Count(n))
	b.db.Do("CREATE TABLE naive_follower LIKE follower")
	s := b.newScript(batchgets)
	pass := func() float64 {
		begin := time.Now()
		var page followerPage
		s.get(harness.PathList, "", &page)
		for _, openid := range page.Data.OpenID[:n] {
			b.baselineFollower(s, openid)
		}
		return float64(n) / time.Since(begin).Seconds()
	}
	first, again = pass(), pass()
	b.Say("%s and %s followers/s", number(first), number(again))
	b.db.Do("DROP TABLE naive_follower")
	return first, again
}

func (b *bench) baselineFollower(s *script, openid string) {
	var info followerInfo
	s.get(harness.PathInfo, "openid="+openid, &info)
	b.db.Do(`
		INSERT INTO naive_follower (appid, openid, unionid, subscribed, subscribe_time,
		                            subscribe_scene, qr_scene, qr_scene_str, remark, groupid,
		                            tagid_list, language, info_at)
		VALUES (?, ?, ?, ?, FROM_UNIXTIME(?), ?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP(3))
		ON DUPLICATE KEY UPDATE unionid = VALUES(unionid), subscribed = VALUES(subscribed),
		                        info_at = VALUES(info_at)`,
		harness.AppID, info.OpenID, info.UnionID, info.Subscribe, info.Time, info.Scene,
		info.QRScene, info.QRStr, info.Remark, info.Group, string(info.Tags), info.Language)
}

func (b *bench) baselineSend() float64 {
	n := min(baselineRequests, b.requests)
	b.Step("sending by a simple script: one SELECT, one POST, one UPDATE for each of %s messages", harness.Count(n))
	b.db.Do("CREATE TABLE naive_request LIKE send_request")
	b.insertRequests("naive_request", n)
	s := b.newScript(batchgets)
	begin := time.Now()
	var last int64
	for range n {
		last = b.baselineMessage(s, last)
	}
	rate := float64(n) / time.Since(begin).Seconds()
	b.Say("%s sends/s", number(rate))
	b.db.Do("DROP TABLE naive_request")
	return rate
}

// baselineMessage sends the next row after the last one: no search among the rows that are done,
// which would make the script slower with each row.
func (b *bench) baselineMessage(s *script, last int64) (id int64) {
	const next = `
		SELECT r.id, f.openid, r.data
		  FROM naive_request r
		  LEFT JOIN mini_user m ON m.appid = ? AND m.openid = r.mini_openid
		  JOIN follower f ON f.unionid = COALESCE(r.unionid, m.unionid) AND f.appid = ?
		 WHERE r.status = 'pending' AND r.id > ?
		 ORDER BY r.id
		 LIMIT 1`
	var row struct {
		ID     int64
		OpenID string
		Data   []byte
	}
	b.db.Fetch(&row, next, harness.MiniAppID, harness.AppID, last)
	msgid := s.send(b.Context(), row.OpenID, row.Data)
	b.db.Do(`UPDATE naive_request SET status = 'sent', msgid = ?, sent_openid = ? WHERE id = ?`,
		msgid, row.OpenID, row.ID)
	return row.ID
}

// bareSend POSTs the daemon's bodies, written beforehand, and throws the answers away: what the
// machine and the simulator allow when there is no database. It returns sends a second.
func (b *bench) bareSend(round int) float64 {
	var openids []string
	b.db.FetchAll(&openids,
		`SELECT openid FROM follower WHERE appid = ? AND subscribed = 1 LIMIT ?`,
		harness.AppID, b.requests)
	bodies := make(chan string, len(openids))
	for i, openid := range openids {
		bodies <- fmt.Sprintf(`{"touser":%q,"template_id":%q,"client_msg_id":"bare-%d-%d","data":%s}`,
			openid, harness.TemplateID(), round, i, checker.Data(text("F", i), false))
	}
	close(bodies)
	s := b.newScript(baselineInFlight)
	rate := b.timed("bare POSTs", len(openids), func() {
		group := b.Group(baselineInFlight)
		for range baselineInFlight {
			group.Go(func(ctx context.Context) {
				for body := range bodies {
					s.post(ctx, harness.PathSend, body, nil)
				}
			})
		}
		group.Wait()
	})
	if delivered := b.simulator.Delivered(); delivered != int64(len(openids)) {
		b.Fatalf("%d of %d bare messages were delivered", delivered, len(openids))
	}
	return rate
}
