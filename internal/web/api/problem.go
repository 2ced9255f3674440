package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
)

// The types of problems, which programs may go by.
const (
	typeInvalid     = "urn:unionbridge:problem:invalid"     // the request is wrong: correct it
	typeMethod      = "urn:unionbridge:problem:method"      // another method is needed
	typeCredentials = "urn:unionbridge:problem:credentials" // who calls is not known
	typeForbidden   = "urn:unionbridge:problem:forbidden"   // the application may not do this
	typeNotFound    = "urn:unionbridge:problem:not-found"   // there is none, or it is not the caller's
	typeTooLate     = "urn:unionbridge:problem:too-late"    // it is final, and not as the caller wants
	typeLimit       = "urn:unionbridge:problem:limit"       // a limit of the application is used up
	typeUnavailable = "urn:unionbridge:problem:unavailable" // nothing was accepted: repeat it later
	// typeUnknown: it may have been accepted: repeat it with its key.
	typeUnknown = "urn:unionbridge:problem:unknown"
)

// problem is an error as RFC 9457 has it.
type problem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail,omitempty"`
	Errors []fieldError `json:"errors,omitempty"`

	retryAfter int // seconds; 0: nobody knows
}

// fieldError says what is wrong with one field.
type fieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
	Code    int    `json:"code,omitempty"` // WeChat's errcode for it
}

// answer is what a caller gets.
type answer struct {
	status  int
	body    any
	headers http.Header
}

func (a *answer) header(name, value string) {
	if a.headers == nil {
		a.headers = make(http.Header)
	}
	a.headers.Set(name, value)
}

func (a *answer) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if _, ok := a.body.(problem); ok {
		h.Set("Content-Type", "application/problem+json")
	}
	for name, values := range a.headers {
		h[name] = values
	}
	text, raw := a.body.([]byte)
	if !raw {
		text, _ = json.Marshal(a.body) // plain structs
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(a.status)
	_, _ = w.Write(text) // the caller may be gone
}

func problemOf(p problem) answer {
	a := answer{status: p.Status, body: p}
	if p.Status == http.StatusUnauthorized {
		a.header("WWW-Authenticate", `Bearer realm="unionbridge"`)
	}
	if p.retryAfter > 0 {
		a.header("Retry-After", strconv.Itoa(p.retryAfter))
	}
	return a
}

// invalid is an error of the caller's, about one field; "": about the whole body.
type invalid struct {
	status         int
	field, message string
}

func (e *invalid) Error() string { return e.message }

func wrong(field, message string) error {
	return &invalid{http.StatusUnprocessableEntity, field, message}
}

// failure is an error that is a problem already.
type failure struct{ problem }

func (f *failure) Error() string { return f.Title }

// problem says what an error is to the caller. Our own are logged, and not told.
func (a *API) problem(err error) problem {
	if e, ok := errors.AsType[*failure](err); ok {
		return e.problem
	}
	if e, ok := errors.AsType[*invalid](err); ok {
		p := problem{Type: typeInvalid, Title: "The request is wrong", Status: e.status, Detail: e.message}
		if e.field != "" {
			p.Errors = []fieldError{{Field: e.field, Message: e.message}}
		}
		return p
	}
	if e, ok := errors.AsType[*intake.Rejection](err); ok {
		return rejected(e)
	}
	if e, ok := errors.AsType[*applications.Refusal](err); ok {
		return refused(e)
	}
	if errors.Is(err, intake.ErrNotFound) {
		return problem{Type: typeNotFound, Title: "There is no such message", Status: http.StatusNotFound,
			Detail: "no message of this application has this id"}
	}
	a.warn(err)
	if errors.Is(err, intake.ErrUnknown) {
		return outcomeUnknown("repeat it with the same key")
	}
	return problem{Type: typeUnavailable, Title: "Nothing was accepted", retryAfter: retrySoon,
		Status: http.StatusServiceUnavailable, Detail: "the service cannot do this now: repeat it later"}
}

// outcomeUnknown is a problem after which cure helps.
func outcomeUnknown(cure string) problem {
	return problem{Type: typeUnknown, Title: "Whether it was accepted is unknown",
		Status: http.StatusServiceUnavailable, Detail: cure, retryAfter: retrySoon}
}

// warn logs an error of ours. While the database is away, every request has one.
func (a *API) warn(err error) {
	now, last := a.cfg.Now().UnixNano(), a.warned.Load()
	if age := now - last; last != 0 && age >= 0 && age < int64(warnPause) {
		return
	}
	if a.warned.CompareAndSwap(last, now) {
		a.cfg.Logger.Warn("the native door cannot answer", "err", err)
	}
}

// WeChat's codes that mean something else than a wrong message.
const (
	codeForbidden = 48001
	codeMinute    = 45011
	codeDay       = 45009
)

// How many seconds later a repetition may succeed.
const (
	retrySoon   = 1
	retryMinute = 60
	retryDay    = 3600
)

func rejected(e *intake.Rejection) problem {
	p := problem{Type: typeInvalid, Title: "The message is wrong", Status: http.StatusUnprocessableEntity,
		Detail: e.Message, Errors: []fieldError{{e.Field, e.Message, e.Code}}}
	p.reconsider(e.Code)
	return p
}

func refused(e *applications.Refusal) problem {
	p := problem{Type: typeCredentials, Title: "Who calls is not known",
		Status: http.StatusUnauthorized, Detail: e.Message}
	if e.Reason == applications.ReasonNetwork {
		p.Type, p.Title, p.Status = typeForbidden, "Not allowed", http.StatusForbidden
	}
	p.reconsider(e.Code)
	return p
}

// reconsider changes what a problem is by WeChat's code for it.
func (p *problem) reconsider(code int) {
	switch code {
	case codeForbidden:
		p.Type, p.Title, p.Status = typeForbidden, "Not allowed", http.StatusForbidden
	case codeMinute, codeDay:
		p.Type, p.Title, p.Status = typeLimit, "A limit is used up", http.StatusTooManyRequests
		p.retryAfter = retryMinute
		if code == codeDay {
			p.retryAfter = retryDay
		}
	}
}

// within says where a problem's fields are, where it is about a part of the body.
func (p problem) within(at string) *problem {
	p.Errors = slices.Clone(p.Errors)
	for i, e := range p.Errors {
		if !strings.HasPrefix(e.Field, at) {
			p.Errors[i].Field = join(at, e.Field)
		}
	}
	return &p
}
