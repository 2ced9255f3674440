package wechat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// answer is where a call's body is decoded to.
type answer interface {
	// decode reads a body that carries no error. It refuses one in which something is missing that
	// absence must not be mistaken for, such as a follower page without counts: a sweep would take
	// it for the end of the list.
	decode(body []byte) error
}

// fastAnswer is an answer that can read its usual shape much faster than encoding/json. scan
// reports false, having kept nothing, for everything unusual, an errcode above all.
type fastAnswer interface {
	answer
	scan(body []byte) bool
}

// judge turns what came back into nil or a typed error.
func (a *attempt) judge(resp *http.Response, err error) *Error {
	if err != nil {
		return a.failure(verdict{a.transportReason(err), a.unanswered()}, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	a.status = resp.StatusCode
	body, err := readBounded(resp, a.request.endpoint.limit)
	resp.Body = http.NoBody
	if err != nil {
		return a.brokenAnswer(err)
	}
	if resp.StatusCode != http.StatusOK {
		return a.statusError(body)
	}
	if fast, ok := a.request.into.(fastAnswer); ok && fast.scan(body) {
		return nil
	}
	env, err := decodeEnvelope(body)
	if err != nil {
		return a.badAnswer(body, err)
	}
	if env.Code != 0 {
		return a.errcode(env)
	}
	if err := a.request.into.decode(body); err != nil {
		return a.badAnswer(body, err)
	}
	return nil
}

var errTooLarge = errors.New("answer too large")

// readBounded ignores the Content-Type: WeChat sends JSON as text/plain too.
func readBounded(resp *http.Response, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, errTooLarge
	}
	if resp.ContentLength >= 0 {
		body := make([]byte, resp.ContentLength)
		_, err := io.ReadFull(resp.Body, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = errTooLarge
	}
	return body, err
}

// envelope is what any answer may carry instead of, or besides, its content.
type envelope struct {
	Code    looseInt `json:"errcode"`
	Message string   `json:"errmsg"`
	RID     string   `json:"rid"`
}

func decodeEnvelope(body []byte) (envelope, error) {
	var env envelope
	if len(bytes.TrimSpace(body)) == 0 {
		return env, errors.New("an empty body")
	}
	return env, unmarshal(body, &env)
}

// unmarshal is json.Unmarshal with a second try: users' texts bring raw control characters into
// WeChat's strings, which encoding/json refuses. Its errors quote nothing of the body.
func unmarshal(body []byte, v any) error {
	err := json.Unmarshal(body, v)
	if err == nil {
		return nil
	}
	stripped := stripControls(body)
	if len(stripped) < len(body) {
		err = json.Unmarshal(stripped, v)
	}
	return describe(body, err)
}

// stripControls removes bytes below 0x20 inside strings and leaves those between tokens.
func stripControls(body []byte) []byte {
	out := make([]byte, 0, len(body))
	inString, escaped := false, false
	for _, b := range body {
		if inString && b < 0x20 {
			continue
		}
		out = append(out, b)
		switch {
		case escaped:
			escaped = false
		case b == '\\':
			escaped = inString
		case b == '"':
			inString = !inString
		}
	}
	return out
}

// looseInt is an integer that some answers put into quotes. All numbers of WeChat are read as one.
type looseInt int64

// UnmarshalJSON accepts 40001, "40001" and null, which changes nothing.
func (n *looseInt) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	text := bytes.Trim(data, `"`)
	v, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return fmt.Errorf("number out of shape, %d bytes", len(data))
	}
	*n = looseInt(v)
	return nil
}

// optional is a value that is not worth the rest of its answer. One of another type is zero.
type optional[T any] struct{ value T }

// UnmarshalJSON never fails.
func (o *optional[T]) UnmarshalJSON(data []byte) error {
	var value T
	if json.Unmarshal(data, &value) == nil {
		o.value = value
	}
	return nil
}

// describe rewords an error of encoding/json for an operator, who has to find out what answered
// instead of WeChat. encoding/json's own texts name a character and a Go type, and quote a number,
// which a token's answer must not. Other errors, and nil, come back as they are.
func describe(body []byte, err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return fmt.Errorf("JSON of another shape (%d bytes)", len(body))
		}
		return fmt.Errorf("JSON of another shape (%d bytes): %s is not of its type", len(body), wrong.Field)
	}
	if _, ok := errors.AsType[*json.SyntaxError](err); !ok {
		return err
	}
	switch {
	case looksLikeHTML(body):
		return fmt.Errorf("not JSON but HTML (%d bytes): a proxy's page?", len(body))
	case endsEarly(body):
		return fmt.Errorf("JSON that ends early (%d bytes)", len(body))
	}
	return fmt.Errorf("not JSON (%d bytes)", len(body))
}

// looksLikeHTML takes any markup but declared XML: pages begin with a comment or <body> too.
func looksLikeHTML(body []byte) bool {
	text := bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	return bytes.HasPrefix(text, []byte("<")) && !bytes.HasPrefix(text, []byte("<?xml")) &&
		!bytes.HasPrefix(text, []byte("<xml"))
}

// endsEarly reports whether only the end is missing. json.Unmarshal has the same error type for
// that and for nonsense, a Decoder has not.
func endsEarly(body []byte) bool {
	var whole json.RawMessage
	err := json.NewDecoder(bytes.NewReader(stripControls(body))).Decode(&whole)
	return errors.Is(err, io.ErrUnexpectedEOF)
}
