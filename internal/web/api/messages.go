package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
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
	DueAt     *string         `json:"due_at"`
	ExpiresAt *string         `json:"expires_at"`
	Key       string          `json:"key"`
}

type recipient struct {
	OpenID     string `json:"openid"`
	MiniAppID  string `json:"mini_appid"`
	MiniOpenID string `json:"mini_openid"`
	UnionID    string `json:"unionid"`
}

// readMessage reads a message, whose place in the body is at.
func readMessage(text []byte, at, key string) (out intake.Message, err error) {
	var m message
	if err := decode(text, at, &m); err != nil {
		return out, err
	}
	out = intake.Message{
		AppID: m.AppID, Recipient: intake.Recipient(m.Recipient), Template: m.Template, Data: m.Data,
		URL: m.URL, MiniPath: m.MiniPath, JumpAppID: m.JumpAppID, Key: cmp.Or(m.Key, key),
		Options: intake.Options{Route: m.Route, Page: m.Page, Lang: m.Lang, MiniState: m.MiniState,
			Priority: m.Priority},
	}
	if out.DueAt, err = moment(m.DueAt, join(at, "due_at")); err != nil {
		return out, err
	}
	out.ExpiresAt, err = moment(m.ExpiresAt, join(at, "expires_at"))
	return out, err
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

// post is POST /v1/messages: one message, or {"messages": […]} with at most 500.
func (a *API) post(ctx context.Context, c *call) (answer, error) {
	if list, err := batch(c.body); err != nil || list != nil {
		if err != nil {
			return answer{}, err
		}
		return a.postBatch(ctx, c, list)
	}
	if len(c.body) > maxBody {
		return answer{}, &invalid{http.StatusRequestEntityTooLarge, "", "one message takes at most 1 MiB"}
	}
	m, err := readMessage(c.body, "", c.key())
	if err != nil {
		return answer{}, err
	}
	r := a.cfg.Messages.Accept(ctx, c.session, []intake.Message{m})[0]
	if r.Err != nil {
		return answer{}, r.Err
	}
	reply := answer{status: http.StatusCreated, body: accepted{r.ID, r.Repeated}}
	if r.Repeated {
		reply.status = http.StatusOK
	}
	reply.header("Location", location(r.ID))
	return reply, nil
}

func location(id int64) string { return "/v1/messages/" + strconv.FormatInt(id, 10) }

// batch returns the messages of a batch; nil: the body is one message, or none. A batch is read once,
// and so is a message that says nothing of messages.
func batch(body []byte) ([]json.RawMessage, error) {
	var b struct {
		Messages []json.RawMessage `json:"messages"`
	}
	if !bytes.Contains(body, []byte(`"messages"`)) {
		return nil, nil
	}
	err := json.Unmarshal(body, &b)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); err == nil && b.Messages == nil ||
		err != nil && (!ok || e.Field != "messages") {
		return nil, nil
	}
	if err := decoded(err, body, "", &b); err != nil {
		return nil, err
	}
	if n := len(b.Messages); n == 0 || n > intake.MaxBatch {
		return nil, wrong("messages", fmt.Sprintf("takes 1 to %d messages, not %d", intake.MaxBatch, n))
	}
	return b.Messages, nil
}

// postBatch answers for each message apart. A header's key counts for each with its place.
func (a *API) postBatch(ctx context.Context, c *call, list []json.RawMessage) (answer, error) {
	results := make([]result, len(list))
	messages, places := make([]intake.Message, 0, len(results)), make([]int, 0, len(results))
	for i, text := range list {
		key := c.key()
		if key != "" {
			key += "/" + strconv.Itoa(i)
		}
		m, err := readMessage(text, place(i), key)
		if err != nil {
			results[i].Error = new(a.problem(err))
			continue
		}
		messages, places = append(messages, m), append(places, i)
	}
	if len(messages) > 0 {
		for n, r := range a.cfg.Messages.Accept(ctx, c.session, messages) {
			i := places[n]
			if r.Err != nil {
				results[i].Error = a.problem(r.Err).within(place(i))
				continue
			}
			results[i] = result{ID: r.ID, Repeated: r.Repeated}
		}
	}
	if p := undecided(results); p != nil {
		return problemOf(*p), nil
	}
	return answer{status: http.StatusOK, body: struct {
		Results []result `json:"results"`
	}{results}}, nil
}

func place(i int) string { return fmt.Sprintf("messages[%d]", i) }

// undecided returns the problem of a batch of which nothing is known to be accepted, and which is
// therefore to be repeated as a whole, as every program can; nil: something is decided.
func undecided(results []result) (p *problem) {
	for _, r := range results {
		if r.Error == nil || r.Error.Status != http.StatusServiceUnavailable {
			return nil
		}
		if p == nil || r.Error.Type == typeUnknown {
			p = r.Error
		}
	}
	return p
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
		CreatedAt: utc(s.CreatedAt), DueAt: utc(s.DueAt), FinishedAt: utc(s.FinishedAt),
		ReceiptAt: utc(s.ReceiptAt), FallbackFrom: s.FallbackFrom, FallbackReason: s.FallbackReason,
	}
	if s.MsgID != 0 {
		out.MsgID = strconv.FormatInt(s.MsgID, 10)
	}
	return out
}

func final(s intake.Status) bool { return s.Status != "pending" && s.Status != "waiting" }

func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

// get is GET /v1/messages/{id}. With wait, in seconds, it answers when the message is final, or after
// that time.
func (a *API) get(ctx context.Context, c *call) (answer, error) {
	s, err := a.status(ctx, c)
	if err != nil {
		return answer{}, err
	}
	reply := answer{status: http.StatusOK}
	if c.wait > 0 && !final(s) {
		var waited bool
		if s, waited = a.waiting.outcome(ctx, c.session, s, c.wait); !waited {
			reply.header("Retry-After", retryFull) // else those who find no place ask without a pause
		}
	}
	reply.body = statusOf(s)
	return reply, nil
}

// retryFull is after how many seconds a place among those who wait may be free.
const retryFull = "5"

func (a *API) status(ctx context.Context, c *call) (s intake.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout) // ctx is longer for one who waits
	defer cancel()
	found, err := a.cfg.Messages.Statuses(ctx, c.session, []int64{c.id})
	if err == nil && len(found) == 0 {
		err = intake.ErrNotFound
	}
	if err != nil {
		return s, err
	}
	return found[0], nil
}

// cancel is POST /v1/messages/{id}/cancel. A message is never both sent and cancelled: where an attempt
// is under way, that one decides, and the answer is 202.
func (a *API) cancel(ctx context.Context, c *call) (answer, error) {
	s, err := a.cfg.Messages.Cancel(ctx, c.session, c.id)
	if err != nil {
		return answer{}, err
	}
	reply := answer{status: http.StatusOK, body: statusOf(s)}
	switch {
	case s.Status == "cancelled":
	case final(s):
		reply = problemOf(problem{Type: typeTooLate, Title: "It is too late", Status: http.StatusConflict,
			Detail: "the message is " + s.Status + " already"})
	default:
		reply.status = http.StatusAccepted
	}
	reply.header("Location", location(s.ID))
	return reply, nil
}
