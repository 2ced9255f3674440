package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/unionbridge/unionbridge/internal/web"
)

// read reads the body, of at most so many bytes. release gives its memory back.
func (a *API) read(c *call, most int) (release func(), err error) {
	if most == 0 {
		return func() {}, nil
	}
	if encoding := c.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return func() {}, &invalid{http.StatusUnsupportedMediaType, "", "send the body as it is, not compressed"}
	}
	body, release, err := a.cfg.Bodies.Read(c.Request, most)
	switch {
	case errors.Is(err, web.ErrBodyTooLarge):
		return release, &invalid{http.StatusRequestEntityTooLarge, "",
			"the body is above " + strconv.Itoa(most>>20) + " MiB"}
	case errors.Is(err, web.ErrBodiesBusy):
		return release, err
	case err != nil:
		return release, &invalid{http.StatusBadRequest, "", "the body ended early"}
	}
	c.body = bytes.TrimPrefix(body, []byte("\ufeff"))
	return release, nil
}

// decode reads an object strictly: a field that is not known is a mistake that nobody would notice.
// at is the object's own place in the body; "": it is the body. The error does not quote it.
func decode(text []byte, at string, v any) error {
	if !utf8.Valid(text) {
		return &invalid{http.StatusBadRequest, at, "the body is not UTF-8"}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return &invalid{http.StatusBadRequest, at, "something follows the JSON"}
		}
		return nil
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &invalid{http.StatusBadRequest, join(at, e.Field), "has a wrong type: it is a JSON " + e.Value}
	}
	if name, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
		if field, err := strconv.Unquote(name); err == nil && len(field) <= 64 {
			return &invalid{http.StatusBadRequest, join(at, field), "there is no such field"}
		}
		return &invalid{http.StatusBadRequest, at, "there is a field that is not known"}
	}
	if _, ok := errors.AsType[*time.ParseError](err); ok {
		return &invalid{http.StatusBadRequest, at,
			"a moment is not of the form 2026-01-02T15:04:05+08:00"}
	}
	return &invalid{http.StatusBadRequest, at, "this is not a JSON object"}
}

func join(at, field string) string {
	if at == "" || field == "" {
		return at + field
	}
	return at + "." + field
}

// wait is how long the caller wants to wait for an outcome.
func (c *call) wait() time.Duration {
	n, err := strconv.ParseUint(c.URL.Query().Get("wait"), 10, 16)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxWait)
}
