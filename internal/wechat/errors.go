package wechat

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// Error is the error of a call to WeChat. It holds no secret, in any field or format. Treat it as
// read-only: one failed token fetch hands the same Error to all who waited.
type Error struct {
	// the path that failed; that of the token's fetch if there was no token to make the call with
	Endpoint string
	Code     int // errcode, 0 if there was none
	// errmsg without its rid, or a short printable excerpt of an answer that is not WeChat's JSON
	Message    string
	RID        string // WeChat's request id, for its rid/get and its support; 7 days valid
	HTTPStatus int    // 0 if no answer came
	Reason     Reason
	Policy     Policy
	// Uncertain: a send that may have been accepted nevertheless. False also where nothing was
	// written yet, or WeChat refused explicitly.
	Uncertain bool
	// Err is the cause of an error without errcode. It matches (errors.Is) the context's errors,
	// io.EOF, io.ErrUnexpectedEOF and the usual syscall errors; the original's text may quote
	// secrets.
	Err error

	method string
}

// Error is one line such as
//
//	POST /cgi-bin/message/template/send: 43004 require subscribe (not_follower), rid 6188b812-3aeef59a-72d5fb8c
func (e *Error) Error() string {
	var b strings.Builder
	if e.method != "" {
		b.WriteString(e.method + " ")
	}
	b.WriteString(e.Endpoint + ":")
	switch {
	case e.Code != 0:
		b.WriteString(" " + strconv.Itoa(e.Code))
	case e.HTTPStatus != 0 && e.HTTPStatus != http.StatusOK:
		b.WriteString(" HTTP " + strconv.Itoa(e.HTTPStatus))
	}
	if e.Message != "" {
		b.WriteString(" " + e.Message)
	}
	b.WriteString(" (" + string(e.Reason) + ")")
	if e.RID != "" {
		b.WriteString(", rid " + e.RID)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// cause stands for an error of net/http: its text without secrets, and the sentinel it matches.
type cause struct {
	text string
	is   error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.is }

// newCause strips the *url.Error, which prints the URL; net/http quotes parts of odd answers.
func (a *attempt) newCause(err error) *cause {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	c := &cause{text: a.clean(err.Error(), maxMessage)}
	for _, s := range []error{
		context.Canceled, context.DeadlineExceeded, os.ErrDeadlineExceeded, io.ErrUnexpectedEOF,
		io.EOF, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed,
	} {
		if errors.Is(err, s) {
			c.is = s
			break
		}
	}
	return c
}

// newError is an error of this attempt. A send without a definite answer may hide an accepted
// message as soon as bytes of the request may have left; its verdict says so.
func (a *attempt) newError(v verdict) *Error {
	return &Error{
		Endpoint:   a.request.endpoint.path,
		HTTPStatus: a.status,
		Reason:     v.reason,
		Policy:     v.policy,
		Uncertain:  v.policy == PolicyUncertain,
		method:     a.request.endpoint.method,
	}
}

func (a *attempt) failure(v verdict, err error) *Error {
	e := a.newError(v)
	e.Err = a.newCause(err)
	return e
}

func (a *attempt) interrupted(ctxErr error) *Error {
	e := *a.err
	e.Err = &cause{text: "waiting to try again: " + ctxErr.Error(), is: ctxErr}
	return &e
}

// unanswered is the policy of a failure that leaves the outcome in doubt.
func (a *attempt) unanswered() Policy {
	if a.request.endpoint.kind == kindSend && a.wrote.Load() {
		return PolicyUncertain
	}
	return PolicyRetry
}

func (a *attempt) transportReason(err error) Reason {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	switch {
	case errors.Is(err, context.Canceled):
		return ReasonCancelled
	case ok && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return ReasonTimeout
	case !a.wrote.Load():
		return ReasonUnreachable
	}
	return ReasonConnectionLost
}

func (a *attempt) brokenAnswer(err error) *Error {
	reason := a.transportReason(err)
	if errors.Is(err, errTooLarge) || errors.Is(err, io.ErrUnexpectedEOF) {
		reason = ReasonBadAnswer
	}
	return a.failure(verdict{reason, a.unanswered()}, err)
}

func (a *attempt) badAnswer(body []byte, err error) *Error {
	e := a.failure(verdict{ReasonBadAnswer, a.unanswered()}, err)
	e.Message = a.excerpt(body)
	return e
}

// statusError judges an answer other than HTTP 200. WeChat itself answers 200 even to errors, so
// this is a proxy, a load balancer or a wrong address, unless the body is WeChat's JSON.
func (a *attempt) statusError(body []byte) *Error {
	if env, err := decodeEnvelope(body); err == nil && env.Code != 0 {
		return a.errcode(env)
	}
	e := a.newError(a.statusVerdict(a.status))
	e.Message = a.excerpt(body)
	return e
}

// statusVerdict: a 3xx or 4xx says that the request was not carried out. Only what asks to be tried
// again is transient; "not here", "not you" and "not this way" come from the address or a proxy in
// between, and concern every call alike.
func (a *attempt) statusVerdict(status int) verdict {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return verdict{"http_busy", PolicyRetry}
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusProxyAuthRequired:
		return verdict{"http_refused", PolicyConfig}
	}
	switch {
	case status >= 500:
		return verdict{ReasonServerError, a.unanswered()}
	case status >= 400 && a.request.endpoint.kind == kindToken:
		return verdict{"http_refused", PolicyConfig}
	case status >= 400: // 412 above all: WeChat's answer to a chunked body
		return verdict{"http_refused", PolicyRequest}
	case status >= 300:
		return verdict{"redirected", PolicyConfig}
	}
	return verdict{ReasonBadAnswer, a.unanswered()}
}

func (a *attempt) errcode(env envelope) *Error {
	e := a.newError(classify(a.request.endpoint, int(env.Code)))
	e.Code = int(env.Code)
	message, rid := splitRID(env.Message)
	if rid == "" {
		_, rid = splitRID("rid: " + env.RID)
	}
	e.Message, e.RID = a.clean(message, maxMessage), rid
	a.advise(e)
	return e
}

func (a *attempt) advise(e *Error) {
	switch {
	case e.Endpoint == EndpointToken && e.Code == 45009:
		e.Message += adviseStable
	case e.Policy == PolicyToken && a.client.tokens.contended():
		e.Reason = ReasonTokenFight
		e.Message += "; " + a.client.tokens.provider.texts().contention
	}
}

// ridPattern is the suffix of most errmsg: with a comma before it on /sns, without on /cgi-bin.
var ridPattern = regexp.MustCompile(`,? ?\brid: ([0-9a-f]{6,8}-[0-9a-f]{6,8}-[0-9a-f]{6,8})$`)

func splitRID(errmsg string) (message, rid string) {
	m := ridPattern.FindStringSubmatchIndex(errmsg)
	if m == nil {
		return errmsg, ""
	}
	return strings.TrimSpace(errmsg[:m[0]]), errmsg[m[2]:m[3]]
}
