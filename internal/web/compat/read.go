package compat

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"unicode/utf8"
)

// maxBody is far above any message. WeChat refuses bodies without a length; SDKs that send those,
// in chunks, are served here.
const maxBody = 1 << 20

// read reads the body of a POST. What it is decides, not its Content-Type: there are SDKs that send
// none, and programs that send JSON as a form.
func (c *call) read(method string) error {
	switch {
	case method == http.MethodGet && c.Method != http.MethodGet:
		return refused(43001, "require GET method")
	case method == http.MethodPost && c.Method != http.MethodPost:
		return refused(43002, "require POST method")
	case method == http.MethodGet:
		return nil
	}
	if encoding := c.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return refused(40221, "invalid Content-Encoding: send the body as it is")
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, c.Body, maxBody))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return &failure{http.StatusRequestEntityTooLarge, 47001, "data format error: the body is above 1 MiB"}
	}
	if err != nil {
		return refused(47001, "data format error: the body ended early")
	}
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	if len(body) == 0 {
		return refused(44002, "empty post data")
	}
	c.body = body
	return nil
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
