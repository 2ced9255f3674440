package wechat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

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
