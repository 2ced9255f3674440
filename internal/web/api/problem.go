package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/web"
)

// The types of problems, which programs may go by.
const (
	typeInvalid     = "urn:unionbridge:problem:invalid"     // the request is wrong: correct it
	typeMethod      = "urn:unionbridge:problem:method"      // another method is needed
	typeCredentials = "urn:unionbridge:problem:credentials" // who calls is not known
	typeForbidden   = "urn:unionbridge:problem:forbidden"   // the application may not do this
	typeNotFound    = "urn:unionbridge:problem:not-found"   // there is none, or it is not the caller's
	typeLimit       = "urn:unionbridge:problem:limit"       // a limit of the application is used up
	typeUnavailable = "urn:unionbridge:problem:unavailable" // nothing was accepted: repeat it later
	typeUnknown     = "urn:unionbridge:problem:unknown"     // it may have been accepted: repeat it with its key
)

// problem is an error as RFC 9457 has it.
type problem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail,omitempty"`
	Errors []fieldError `json:"errors,omitempty"`
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
	waited  time.Duration // for an outcome
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
	switch p.Type {
	case typeCredentials:
		a.header("WWW-Authenticate", `Bearer realm="unionbridge"`)
	case typeLimit:
		a.header("Retry-After", "60")
	case typeUnavailable:
		a.header("Retry-After", "1")
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

// failed is the answer for an error.
func (a *API) failed(err error) answer { return problemOf(a.problem(err)) }

// problem says what an error is to the caller. Our own are logged, and not told.
func (a *API) problem(err error) problem {
	if e, ok := errors.AsType[*invalid](err); ok {
		p := problem{Type: typeInvalid, Title: "The request is wrong", Status: e.status, Detail: e.message}
		if e.field != "" {
			p.Errors = []fieldError{{Field: e.field, Message: e.message}}
		}
		return p
	}
	if e, ok := errors.AsType[*intake.Rejection](err); ok {
		p := problem{Type: typeInvalid, Title: "The message is wrong",
			Status: http.StatusUnprocessableEntity, Detail: e.Message,
			Errors: []fieldError{{e.Field, e.Message, e.Code}}}
		if e.Code == codeForbidden {
			p.Type, p.Title, p.Status = typeForbidden, "Not allowed", http.StatusForbidden
		}
		return p
	}
	if e, ok := errors.AsType[*applications.Refusal](err); ok {
		return refused(e)
	}
	switch {
	case errors.Is(err, intake.ErrNotFound):
		return problem{Type: typeNotFound, Title: "There is no such message", Status: http.StatusNotFound,
			Detail: "no message of this application has this id"}
	case errors.Is(err, intake.ErrUnknown):
		return problem{Type: typeUnknown, Title: "The outcome is unknown",
			Status: http.StatusServiceUnavailable, Detail: "repeat it with the same key"}
	case errors.Is(err, errLoginAgain):
		return problem{Type: typeUnknown, Title: "The person has to log in again",
			Status: http.StatusServiceUnavailable,
			Detail: "call wx.login for a new code: this one may be used up"}
	case !errors.Is(err, web.ErrBodiesBusy):
		a.cfg.Logger.Warn("the native door cannot answer", "err", err)
	}
	return problem{Type: typeUnavailable, Title: "Nothing was accepted",
		Status: http.StatusServiceUnavailable, Detail: "the service cannot do this now: repeat it later"}
}

// codeForbidden is WeChat's for a call that is not allowed.
const codeForbidden = 48001

func refused(e *applications.Refusal) problem {
	p := problem{Type: typeCredentials, Title: "Who calls is not known",
		Status: http.StatusUnauthorized, Detail: e.Message}
	switch e.Reason {
	case applications.ReasonForbidden, applications.ReasonNetwork:
		p.Type, p.Title, p.Status = typeForbidden, "Not allowed", http.StatusForbidden
	case applications.ReasonMinute, applications.ReasonDay, applications.ReasonManySecrets:
		p.Type, p.Title, p.Status = typeLimit, "A limit is used up", http.StatusTooManyRequests
	}
	return p
}
