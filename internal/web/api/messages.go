package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/unionbridge/unionbridge/internal/intake"
)

// message is a message as callers send it. The names are those of send_request's columns.
type message struct {
	AppID     string          `json:"appid"`
	Recipient recipient       `json:"recipient"`
	Template  string          `json:"template"`
	Data      json.RawMessage `json:"data"`
	URL       string          `json:"url"`
	MiniPath  string          `json:"mini_path"`
	JumpAppID string          `json:"jump_appid"`
	Page      string          `json:"page"`
	Lang      string          `json:"lang"`
	MiniState string          `json:"mini_state"`
	Route     string          `json:"route"`
	Priority  *int            `json:"priority"`
	DueAt     time.Time       `json:"due_at"`
	ExpiresAt time.Time       `json:"expires_at"`
	Key       string          `json:"key"`
}

type recipient struct {
	OpenID     string `json:"openid"`
	MiniAppID  string `json:"mini_appid"`
	MiniOpenID string `json:"mini_openid"`
	UnionID    string `json:"unionid"`
}

func (m message) intake() intake.Message {
	return intake.Message{
		AppID: m.AppID, Recipient: intake.Recipient(m.Recipient), Template: m.Template, Data: m.Data,
		URL: m.URL, MiniPath: m.MiniPath, JumpAppID: m.JumpAppID, Key: m.Key,
		Options: intake.Options{Route: m.Route, Page: m.Page, Lang: m.Lang, MiniState: m.MiniState,
			Priority: m.Priority, DueAt: m.DueAt, ExpiresAt: m.ExpiresAt},
	}
}

// accepted is the answer to a message whose row is committed.
type accepted struct {
	ID       int64 `json:"id"`
	Repeated bool  `json:"repeated"`
}

// result is the answer to one message of a batch: ID, or Error.
type result struct {
	ID       int64    `json:"id,omitempty"`
	Repeated bool     `json:"repeated,omitempty"`
	Error    *problem `json:"error,omitempty"`
}

// maxKey is of the header Idempotency-Key.
const maxKey = 200

// post is POST /v1/messages: one message, or {"messages": […]} with at most 500.
func (a *API) post(ctx context.Context, c *call) (answer, error) {
	key := c.Header.Get("Idempotency-Key")
	if len(key) > maxKey {
		return answer{}, wrong("Idempotency-Key", fmt.Sprintf("the header takes at most %d bytes", maxKey))
	}
	if list, err := batch(c.body); err != nil || list != nil {
		if err != nil {
			return answer{}, err
		}
		return a.postBatch(ctx, c, list, key)
	}
	if len(c.body) > maxBody {
		return answer{}, &invalid{http.StatusRequestEntityTooLarge, "", "one message takes at most 1 MiB"}
	}
	var m message
	if err := decode(c.body, "", &m); err != nil {
		return answer{}, err
	}
	if m.Key == "" {
		m.Key = key
	}
	r := a.cfg.Messages.Accept(ctx, c.session, []intake.Message{m.intake()})[0]
	if r.Err != nil {
		return answer{}, r.Err
	}
	reply := answer{status: http.StatusCreated, body: accepted{r.ID, r.Repeated}}
	if r.Repeated {
		reply.status = http.StatusOK
	}
	reply.header("Location", "/v1/messages/"+strconv.FormatInt(r.ID, 10))
	return reply, nil
}

// batch returns the elements of {"messages": […]}; nil: the body is another one.
func batch(body []byte) ([]json.RawMessage, error) {
	if !bytes.Contains(body, []byte(`"messages"`)) {
		return nil, nil
	}
	var fields map[string]json.RawMessage
	// What is no JSON is told about as one message.
	readable := json.Unmarshal(body, &fields) == nil
	if !readable || fields["messages"] == nil {
		return nil, nil
	}
	for field := range fields {
		if field != "messages" {
			return nil, &invalid{http.StatusBadRequest, "", "beside messages there is no other field"}
		}
	}
	list := []json.RawMessage{}
	err := decode(fields["messages"], "messages", &list)
	return list, err
}

// postBatch answers for each message apart. A header's key counts for each with its place.
func (a *API) postBatch(
	ctx context.Context, c *call, list []json.RawMessage, key string,
) (answer, error) {
	if n := len(list); n == 0 || n > intake.MaxBatch {
		return answer{}, wrong("messages", fmt.Sprintf("takes 1 to %d messages, not %d", intake.MaxBatch, n))
	}
	results := make([]result, len(list))
	messages, places := make([]intake.Message, 0, len(list)), make([]int, 0, len(list))
	for i, text := range list {
		var m message
		if err := decode(text, fmt.Sprintf("messages[%d]", i), &m); err != nil {
			results[i].Error = new(a.problem(err))
			continue
		}
		if m.Key == "" && key != "" {
			m.Key = key + "/" + strconv.Itoa(i)
		}
		messages, places = append(messages, m.intake()), append(places, i)
	}
	if len(messages) > 0 {
		for i, r := range a.cfg.Messages.Accept(ctx, c.session, messages) {
			if r.Err != nil {
				results[places[i]].Error = new(a.problem(r.Err))
				continue
			}
			results[places[i]] = result{ID: r.ID, Repeated: r.Repeated}
		}
	}
	return answer{status: http.StatusOK, body: struct {
		Results []result `json:"results"`
	}{results}}, nil
}

// status is what a caller learns of its own message. Moments are in UTC.
type status struct {
	ID             int64      `json:"id"`
	Status         string     `json:"status"`
	Final          bool       `json:"final"` // nothing changes any more, but for a receipt
	Reason         string     `json:"reason,omitempty"`
	ErrCode        int        `json:"errcode,omitempty"`
	ErrMsg         string     `json:"errmsg,omitempty"`
	Warning        string     `json:"warning,omitempty"`
	Attempts       int        `json:"attempts"`
	AppID          string     `json:"appid,omitempty"`
	Channel        string     `json:"channel,omitempty"`
	MsgID          string     `json:"msgid,omitempty"` // WeChat's: above 2^53 at times, so a string
	Receipt        string     `json:"receipt,omitempty"`
	CreatedAt      *time.Time `json:"created_at,omitempty"`
	DueAt          *time.Time `json:"due_at,omitempty"`
	FinishedAt     *time.Time `json:"finished_at,omitempty"`
	ReceiptAt      *time.Time `json:"receipt_at,omitempty"`
	FallbackFrom   string     `json:"fallback_from,omitempty"`
	FallbackReason string     `json:"fallback_reason,omitempty"`
}

func statusOf(s intake.Status) status {
	out := status{
		ID: s.ID, Status: s.Status, Final: final(s), Reason: s.Reason, ErrCode: s.ErrCode, ErrMsg: s.ErrMsg,
		Warning: s.Warning, Attempts: s.Attempts, AppID: s.AppID, Channel: s.Channel, Receipt: s.Receipt,
		CreatedAt: moment(s.CreatedAt), DueAt: moment(s.DueAt), FinishedAt: moment(s.FinishedAt),
		ReceiptAt: moment(s.ReceiptAt), FallbackFrom: s.FallbackFrom, FallbackReason: s.FallbackReason,
	}
	if s.MsgID != 0 {
		out.MsgID = strconv.FormatInt(s.MsgID, 10)
	}
	return out
}

func final(s intake.Status) bool { return s.Status != "pending" && s.Status != "waiting" }

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// get is GET /v1/messages/{id}. With wait, in seconds, it answers when the message is final, or after
// that time.
func (a *API) get(ctx context.Context, c *call) (answer, error) {
	found, err := a.cfg.Messages.Statuses(ctx, c.session, []int64{c.id})
	if err == nil && len(found) == 0 {
		err = intake.ErrNotFound
	}
	if err != nil {
		return answer{}, err
	}
	s, wait := found[0], c.wait()
	if wait > 0 && !final(s) {
		s = a.waiting.outcome(ctx, c.session, s, wait)
	}
	return answer{status: http.StatusOK, body: statusOf(s), waited: wait}, nil
}

// cancel is POST /v1/messages/{id}/cancel.
func (a *API) cancel(ctx context.Context, c *call) (answer, error) {
	s, err := a.cfg.Messages.Cancel(ctx, c.session, c.id)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: statusOf(s)}, nil
}
