package compat

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"unicode/utf8"

	"github.com/unionbridge/unionbridge/internal/web"
)

// maxBody is far above any message. WeChat refuses bodies without a length; SDKs that send those,
// in chunks, are served here.
const maxBody = 1 << 20

func (c *call) checkMethod(method string) error {
	switch {
	case method == http.MethodGet && c.Method != http.MethodGet:
		return refused(43001, "require GET method")
	case method == http.MethodPost && c.Method != http.MethodPost:
		return refused(43002, "require POST method")
	}
	return nil
}

// read reads the body of a POST. What it is decides, not its Content-Type: there are SDKs that send
// none, and programs that send JSON as a form. release gives its memory back.
func (c *call) read(method string, bodies *web.Bodies) (release func(), err error) {
	if method != http.MethodPost {
		return func() {}, nil
	}
	if encoding := c.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return func() {}, refused(40221, "invalid Content-Encoding: send the body as it is")
	}
	body, release, err := bodies.Read(c.Request, maxBody)
	switch {
	case errors.Is(err, web.ErrBodyTooLarge):
		return release, &failure{http.StatusRequestEntityTooLarge, 47001,
			"data format error: the body is above 1 MiB"}
	case errors.Is(err, web.ErrBodiesBusy):
		return release, err
	case err != nil:
		return release, refused(47001, "data format error: the body ended early")
	}
	c.raw = body
	if c.body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff"))); len(c.body) == 0 {
		return release, refused(44002, "empty post data")
	}
	return release, nil
}

// decode reads the body as JSON. The error does not quote it.
func (c *call) decode(v any) error {
	switch err := json.Unmarshal(c.body, v); {
	case !utf8.Valid(c.body):
		return refused(47001, "data format error: not UTF-8")
	case err == nil:
		return nil
	default:
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
			return refused(47001, "data format error: "+wrong.Field+" has a wrong type")
		}
		return refused(47001, "data format error: not a JSON object")
	}
}
