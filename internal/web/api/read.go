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
	return decoded(json.Unmarshal(text, v), text, at, v)
}

// decoded is what decode says once package json has read text into v.
func decoded(err error, text []byte, at string, v any) error {
	if !utf8.Valid(text) {
		return &invalid{http.StatusBadRequest, at, "the JSON is not UTF-8"}
	}
	if err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return &invalid{http.StatusBadRequest, join(at, e.Field), "has a wrong type: it is a JSON " +
				e.Value}
		}
		return &invalid{http.StatusBadRequest, at, "this is not one JSON object"}
	}
	return checkNames(text, at, reflect.TypeOf(v).Elem())
}

// checkNames refuses fields that the struct t has not, and those that are there twice. Where one of
// its fields is a struct, it looks into that too.
func checkNames(text []byte, at string, t reflect.Type) (err error) {
	var seen uint64 // by the field's number
	object := names(text, func(name string, value []byte) {
		if err != nil {
			return
		}
		n := field(t, name)
		switch {
		case n < 0 && len(name) > maxName:
			err = &invalid{http.StatusBadRequest, at, "there is a field that is not known"}
		case n < 0:
			err = &invalid{http.StatusBadRequest, join(at, name), "there is no such field"}
		case seen&(1<<n) != 0:
			err = &invalid{http.StatusBadRequest, join(at, name), "the field is there twice"}
		case t.Field(n).Type.Kind() == reflect.Struct && bytes.HasPrefix(value, []byte("{")):
			err = checkNames(value, join(at, name), t.Field(n).Type)
		}
		seen |= 1 << max(n, 0)
	})
	if !object {
		return &invalid{http.StatusBadRequest, at, "this is not a JSON object"}
	}
	return err
}

// maxName is how long a field's name may be to be named in an error.
const maxName = 64

// field is the number of the field with a name in JSON; −1: there is none.
func field(t reflect.Type, name string) int {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("json") == name {
			return i
		}
	}
	return -1
}

// names tells visit the names of an object's own fields as they are written, which package json does
// not: to it, Template and template are one name. value begins with the field's value. names reports
// whether text, which begins with valid JSON, is an object.
func names(text []byte, visit func(name string, value []byte)) (object bool) {
	text = bytes.TrimLeft(text, blanks)
	if !bytes.HasPrefix(text, []byte("{")) {
		return false
	}
	depth, name := 0, false // name: a text that comes now is one
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			depth++
			name = depth == 1
		case '}', ']':
			if depth--; depth == 0 {
				return true
			}
		case ',':
			name = depth == 1
		case '"':
			end := closing(text, i)
			if name {
				value := bytes.TrimLeft(text[end+1:], blanks)
				visit(unquoted(text[i:end+1]), bytes.TrimLeft(value[1:], blanks)) // behind the colon
			}
			name, i = false, end
		}
	}
	return true
}

const blanks = " \t\r\n"

// closing is where the text ends that begins at i.
func closing(text []byte, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i
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
