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
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// doorClient is an application that sends through the doors of all daemons, one of them at a time.
type doorClient struct {
	addresses []string
	http      *http.Client
	tokens    map[string]string // of the official account, by address
}

// errUnanswered means that nobody knows whether a message was accepted.
var errUnanswered = errors.New("no answer")

func newDoorClient(addresses []string) *doorClient {
	return &doorClient{addresses: addresses, tokens: map[string]string{}, http: &http.Client{
		Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: producers},
	}}
}

// postAll is insert by a door. With keys it is repeated, at any daemon, until each message has an
// answer; without them one try must do.
func (p *producer) postAll(batch []*record) {
	for _, r := range batch {
		// A repetition would name other moments.
		r.Due, r.expires = 0, 0
	}
	p.records = append(p.records, batch...)
	left := batch
	for {
		ids, err := p.post(left)
		var unanswered []*record
		for i, r := range left {
			switch {
			case err == nil && ids[i] > 0:
				r.Committed = true
				p.cancelSome(r, ids[i])
			case err != nil || ids[i] == 0:
				unanswered = append(unanswered, r)
			}
		}
		if err != nil && !errors.Is(err, errUnanswered) {
			p.refusals.Store(err.Error(), true)
			return
		}
		left = unanswered
		if len(left) == 0 || left[0].key == "" || !sleep(p.giveUp, 200*time.Millisecond) {
			return
		}
	}
}

// post posts messages once, and returns the ids of those that were accepted; 0: nobody knows. An error
// is of all of them.
func (p *producer) post(batch []*record) (ids []int64, err error) {
	address := p.door.addresses[p.rnd.IntN(len(p.door.addresses))]
	if r := batch[0]; len(batch) == 1 && r.recipient == "openid" && r.priority == 1 {
		id, err := p.postTemplate(address, r)
		return []int64{id}, err
	}
	var body any
	messages := make([]map[string]any, len(batch))
	for i, r := range batch {
		messages[i] = p.message(r)
	}
	if body = map[string]any{"messages": messages}; len(batch) == 1 {
		body = messages[0]
	}
	var answer struct {
		ID      int64 `json:"id"`
		Results []struct {
			ID    int64 `json:"id"`
			Error *struct {
				Status int    `json:"status"`
				Detail string `json:"detail"`
			} `json:"error"`
		} `json:"results"`
	}
	if err := p.door.call(p.giveUp, "http://"+address+"/v1/messages", body, &answer); err != nil {
		return nil, err
	}
	if answer.ID > 0 {
		return []int64{answer.ID}, nil
	}
	for _, r := range answer.Results {
		if r.Error != nil && r.Error.Status != http.StatusServiceUnavailable {
			return nil, fmt.Errorf("a message was refused: %d %s", r.Error.Status, r.Error.Detail)
		}
		ids = append(ids, r.ID)
	}
	if len(ids) != len(batch) {
		return nil, fmt.Errorf("%d answers to %d messages", len(ids), len(batch))
	}
	return ids, nil
}

// message is a record for the native door.
func (p *producer) message(r *record) map[string]any {
	to := map[string]string{}
	switch r.recipient {
	case "unionid":
		to["unionid"] = r.Recipient.UnionID
	case "openid":
		to["openid"] = p.platform.OpenID(harness.AppID, r.Recipient.Person)
	default:
		to["mini_appid"] = harness.MiniAppID
		to["mini_openid"] = p.platform.OpenID(harness.MiniAppID, r.Recipient.Person)
	}
	m := map[string]any{"recipient": to, "template": harness.Template, "priority": r.priority,
		"data": json.RawMessage(checker.Data(r.Text, r.short))}
	if r.key != "" {
		m["key"] = r.key
	}
	return m
}

// postTemplate posts a message as an SDK does, with a token, whose end it notices.
func (p *producer) postTemplate(address string, r *record) (int64, error) {
	var answer struct {
		ErrCode int    `json:"errcode"`
		ErrMsg  string `json:"errmsg"`
		MsgID   int64  `json:"msgid"`
		Token   string `json:"access_token"`
	}
	base := "http://" + address + "/cgi-bin/"
	if p.door.tokens[address] == "" {
		credentials := map[string]string{"grant_type": "client_credential", "appid": harness.AppID,
			"secret": harness.DoorSecret}
		if err := p.door.call(p.giveUp, base+"stable_token", credentials, &answer); err != nil {
			return 0, err
		}
		p.door.tokens[address] = answer.Token
	}
	body := map[string]any{"touser": p.platform.OpenID(harness.AppID, r.Recipient.Person),
		"template_id": harness.TemplateID(), "data": json.RawMessage(checker.Data(r.Text, r.short))}
	if r.key != "" {
		body["client_msg_id"] = r.key
	}
	err := p.door.call(p.giveUp, base+"message/template/send?access_token="+
		url.QueryEscape(p.door.tokens[address]), body, &answer)
	if err == nil && answer.ErrCode != 0 {
		err = fmt.Errorf("a message was refused: %d %s", answer.ErrCode, answer.ErrMsg)
	}
	return answer.MsgID, err
}

// call makes a POST. An error other than errUnanswered is the door's last word.
func (d *doorClient) call(ctx context.Context, address string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	req.GetBody = nil // the transport must not repeat it: its outcome is what this is about
	req.Header.Set("Authorization", "Bearer "+harness.DoorSecret)
	resp, err := d.http.Do(req)
	if err != nil {
		return errUnanswered
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil || resp.StatusCode == http.StatusServiceUnavailable:
		return errUnanswered
	case resp.StatusCode > http.StatusCreated:
		return fmt.Errorf("the door answered %d: %s", resp.StatusCode, got)
	}
	if err := json.Unmarshal(got, answer); err != nil {
		return fmt.Errorf("the door's answer %q: %w", got, err)
	}
	return nil
}

// cancelSome withdraws some of the messages. What the door calls cancelled must never be sent.
func (p *producer) cancelSome(r *record, id int64) {
	if p.rnd.Float64() > 0.12 {
		return
	}
	after := time.Duration(p.rnd.IntN(300)) * time.Millisecond
	address := p.door.addresses[p.rnd.IntN(len(p.door.addresses))]
	p.cancels.Go(func() {
		if !sleep(p.giveUp, after) {
			return
		}
		var answer struct {
			Status string `json:"status"`
		}
		err := p.door.call(p.giveUp, fmt.Sprintf("http://%s/v1/messages/%d/cancel", address, id), nil, &answer)
		if err == nil && answer.Status == "cancelled" {
			r.Withdrawn = true
		}
	})
}

// breakDoors kills daemons while messages come in by their doors, and the database server now and then.
func breakDoors(c *cluster) {
	c.platform.SetLatency(20 * time.Millisecond)
	for n := 1; n <= c.kills; n++ {
		c.Sleep(c.between(100*time.Millisecond, 900*time.Millisecond))
		if n%8 == 0 {
			crashServer(c)
			continue
		}
		c.restart(c.anyDaemon(), c.rnd.Float64() < 0.95)
	}
}
