package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
)

const (
	// maxPeek is as much of an answer as is looked at for an errcode. WeChat's are 200 bytes.
	maxPeek = 16 << 10
	// maxForwarded bounds an answer that is passed on: a QR code is 100 KB.
	maxForwarded = 8 << 20
	// forwardTries: with the token in hand, and with another one.
	forwardTries = 2
)

// Forwarded is a call of another program, which does not know the account's token.
type Forwarded struct {
	Method      string
	Path        string     // which the caller has found harmless
	Query       url.Values // an access_token in it is replaced
	ContentType string
	Body        []byte
}

// ForwardedAnswer is what WeChat answered. Close Body.
type ForwardedAnswer struct {
	Status      int
	ContentType string
	Body        io.ReadCloser
}

// Forward makes a call with the account's token, and once more with a new one where the token was
// refused. A refusal of both is an *Error: it speaks of a token that the other program does not know.
// Redirects are not followed: the token would travel along.
func (c *Client) Forward(ctx context.Context, f Forwarded) (*ForwardedAnswer, error) {
	var refused error
	for range forwardTries {
		token, err := c.tokens.get(ctx)
		if err != nil {
			return nil, err
		}
		answer, err := c.forward(ctx, f, token.value)
		if !c.settleToken(token, err) {
			return answer, err
		}
		refused = err
	}
	return nil, refused
}

func (c *Client) forward(ctx context.Context, f Forwarded, token string) (*ForwardedAnswer, error) {
	a := &attempt{client: c, request: request{
		endpoint: endpoint{method: f.Method, path: f.Path, kind: kindToken}, token: token,
	}}
	query := url.Values{}
	for name, values := range f.Query {
		query[name] = values
	}
	query.Set("access_token", token)
	var body io.Reader = unreplayable{}
	if f.Body != nil {
		body = bytes.NewReader(f.Body)
	}
	h, err := http.NewRequestWithContext(a.traced(ctx), f.Method, c.cfg.BaseURL+f.Path+"?"+query.Encode(), body)
	if err != nil {
		return nil, a.failure(verdict{"bad_address", PolicyConfig}, err)
	}
	if f.ContentType != "" && f.Body != nil {
		h.Header.Set("Content-Type", f.ContentType)
	}
	a.begin()
	resp, err := c.reads.Do(h)
	if err != nil {
		a.finish(nil, err)
		return nil, a.result()
	}
	return c.forwarded(a, resp)
}

// forwarded looks whether an answer speaks of the token.
func (c *Client) forwarded(a *attempt, resp *http.Response) (*ForwardedAnswer, error) {
	start, err := io.ReadAll(io.LimitReader(resp.Body, maxPeek))
	if err != nil {
		_ = resp.Body.Close()
		a.finish(nil, err)
		return nil, a.result()
	}
	var wire struct {
		Code    int    `json:"errcode"`
		Message string `json:"errmsg"`
	}
	if len(start) < maxPeek && json.Unmarshal(start, &wire) == nil && slices.Contains(tokenCodes(), wire.Code) {
		_ = resp.Body.Close()
		a.err = &Error{Endpoint: a.request.endpoint.path, Code: wire.Code, Message: "the token was refused",
			HTTPStatus: resp.StatusCode, Reason: ReasonTokenRefused, Policy: PolicyToken, method: a.request.endpoint.method}
		a.observe()
		return nil, a.result()
	}
	a.observe()
	if resp.StatusCode >= http.StatusMultipleChoices && resp.StatusCode < http.StatusBadRequest {
		_ = resp.Body.Close()
		return nil, &Error{Endpoint: a.request.endpoint.path, HTTPStatus: resp.StatusCode, Reason: ReasonBadAnswer,
			Policy: PolicyConfig, Err: errors.New("WeChat sent the call elsewhere")}
	}
	rest := io.MultiReader(bytes.NewReader(start), io.LimitReader(resp.Body, maxForwarded-int64(len(start))))
	return &ForwardedAnswer{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"),
		Body: struct {
			io.Reader
			io.Closer
		}{rest, resp.Body}}, nil
}

// tokenCodes are WeChat's for a token that is not valid any more.
func tokenCodes() []int { return []int{40001, 40014, 42001} }
