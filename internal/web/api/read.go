package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/unionbridge/unionbridge/internal/web"
)

// read reads the body, of at most so many bytes. release gives its memory back.
func (a *API) read(c *call, most int) (release func(), err error) {
	if most == 0 {
		return func() {}, nil
	}
	if err := c.checkHeaders(); err != nil {
		return func() {}, err
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

// checkHeaders leaves Content-Type out: curl says a form, and fetch says text, where nobody sets it.
func (c *call) checkHeaders() error {
	if e := c.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return &invalid{http.StatusUnsupportedMediaType, "Content-Encoding",
			"send the body as it is, not compressed"}
	}
	if keys := c.Header.Values("Idempotency-Key"); len(keys) > 1 || len(c.key()) > maxKey {
		return wrong("Idempotency-Key", fmt.Sprintf("send the header once, with at most %d bytes", maxKey))
	}
	return nil
}

// maxKey is of the header Idempotency-Key.
const maxKey = 200

func (c *call) key() string { return c.Header.Get("Idempotency-Key") }

// readWait reads how long the caller wants to wait for an outcome, and makes the connection last as
// long: the listener's timeout for writing would end it.
func (c *call) readWait(op operation) error {
	text := c.URL.Query()["wait"]
	if !op.waits || len(text) == 0 {
		return nil
	}
	n, err := strconv.ParseUint(text[0], 10, 16)
	if most := uint64(maxWait / time.Second); len(text) > 1 || err != nil || n > most {
		return wrong("wait", fmt.Sprintf("is how many seconds to wait: 0 to %d", most))
	}
	if c.wait = time.Duration(n) * time.Second; c.wait > 0 {
		// Where there is no connection there is no timeout either.
		_ = c.answer.SetWriteDeadline(time.Now().Add(c.wait + 2*answerTimeout))
	}
	return nil
}

// decode reads an object into a struct, strictly: a field that is not known is a mistake that nobody
// would notice. at is the object's own place in the body; "": it is the body. The error does not
// quote it.
func decode(text []byte, at string, v any) error {
	if !utf8.Valid(text) {
		return &invalid{http.StatusBadRequest, at, "the JSON is not UTF-8"}
	}
	if err := json.Unmarshal(text, v); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return &invalid{http.StatusBadRequest, join(at, e.Field), "has a wrong type: it is a JSON " +
				e.Value}
		}
		return &invalid{http.StatusBadRequest, at, "this is not one JSON object"}
	}
	return checkNames(text, at, reflect.TypeOf(v).Elem())
}

// checkNames refuses fields that the struct t has not, and those that are there twice.
func checkNames(text []byte, at string, t reflect.Type) (err error) {
	left := make(map[string]bool, t.NumField()) // false: it has been there
	for i := range t.NumField() {
		left[t.Field(i).Tag.Get("json")] = true
	}
	object := names(text, func(name string) {
		unseen, known := left[name]
		switch {
		case err != nil:
		case !known && len(name) > maxName:
			err = &invalid{http.StatusBadRequest, at, "there is a field that is not known"}
		case !known:
			err = &invalid{http.StatusBadRequest, join(at, name), "there is no such field"}
		case !unseen:
			err = &invalid{http.StatusBadRequest, join(at, name), "the field is there twice"}
		}
		left[name] = false
	})
	if !object {
		return &invalid{http.StatusBadRequest, at, "this is not a JSON object"}
	}
	return err
}

// maxName is how long a field's name may be to be named in an error.
const maxName = 64

// names tells visit the names of an object's own fields as they are written, which package json does
// not: to it, Template and template are one name. It reports whether text, which is valid JSON, is an
// object.
func names(text []byte, visit func(name string)) (object bool) {
	depth, name := 0, false // name: a text that comes now is one
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			if depth++; depth == 1 {
				object = text[i] == '{'
			}
			name = depth == 1 && object
		case '}', ']':
			depth--
		case ',':
			name = depth == 1 && object
		case '"':
			end := i + 1
			for ; text[end] != '"'; end++ {
				if text[end] == '\\' {
					end++
				}
			}
			if name {
				visit(unquoted(text[i : end+1]))
			}
			name, i = false, end
		}
	}
	return object
}

func unquoted(text []byte) (s string) {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text[1 : len(text)-1])
	}
	_ = json.Unmarshal(text, &s) // it is valid
	return s
}

func join(at, field string) string {
	if at == "" || field == "" {
		return at + field
	}
	return at + "." + field
}

// moment reads a moment of the form of RFC 3339; zero: none is given.
func moment(text *string, field string) (time.Time, error) {
	if text == nil {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, *text)
	if err != nil {
		return at, wrong(field, "is no moment of the form 2026-01-02T15:04:05+08:00")
	}
	return at, nil
}
