package wechat

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDescribe: what came instead of JSON is named for a person.
func TestDescribe(t *testing.T) {
	var wire struct {
		Code  looseInt `json:"errcode"`
		Count int      `json:"count"`
	}
	for body, want := range map[string]string{
		"<html>busy</html>":              "not JSON but HTML (17 bytes): a proxy's page?",
		"\ufeff\r\n <!DOCTYPE html><p>":  "not JSON but HTML (24 bytes): a proxy's page?",
		"<?xml version='1.0'?><xml/>":    "not JSON (27 bytes)",
		"unauthorized":                   "not JSON (12 bytes)",
		`{"errcode":0}}`:                 "not JSON (14 bytes)",
		`{"errcode":0,"errm`:             "JSON that ends early (18 bytes)",
		"{\"errmsg\":\"raw \x01 control": "JSON that ends early (24 bytes)",
		`{"count":12345678901234567890}`: "JSON of another shape (30 bytes): count is not of its " +
			"type",
		`["errcode"]`:        "JSON of another shape (11 bytes)",
		`{"errcode":"busy"}`: "number out of shape, 6 bytes",
	} {
		err := unmarshal([]byte(body), &wire)
		if err == nil {
			t.Errorf("%q: no error", body)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", body, diff)
		}
	}
	if err := unmarshal([]byte("{\"errmsg\":\"a\x01b\"}"), &wire); err != nil {
		t.Errorf("a raw control character: %v", err)
	}
	other := errors.New("other")
	if got := describe(nil, other); !errors.Is(got, other) {
		t.Errorf("describe made %v of an error that is not encoding/json's", got)
	}
}

// TestTokenAnswerIsNoJSON: all modes of fetching over HTTP say what came instead of a token, and
// quote nothing of it.
func TestTokenAnswerIsNoJSON(t *testing.T) {
	for _, mode := range tokenModes() {
		if mode.Mode == TokenCommand {
			continue // its words are about standard output; see TestCommandFails
		}
		for body, want := range map[string]string{
			"<html>" + testToken(1):            "not JSON but HTML (",
			"":                                 "an empty body",
			`{"access_token":"` + testToken(1): "JSON that ends early (",
			"7200 " + testToken(1):             "not JSON (",
		} {
			t.Run(fmt.Sprintf("%s/%.8q", mode.endpoint, body), func(t *testing.T) {
				fake := newFake(t, nil)
				fake.onToken(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
				_, err := fake.client(t, mode.set(fake)).Followers(t.Context(), "")
				e := mustError(t, err)
				if e.Reason != ReasonBadAnswer || e.Endpoint != mode.endpoint || e.Message != "" {
					t.Errorf("got %+v, want a bad answer of %s without a message", e, mode.endpoint)
				}
				if text := err.Error(); !strings.Contains(text, want) ||
					strings.Contains(text, testTokenHead) {
					t.Errorf("got %q, want %q and nothing of the token", text, want)
				}
			})
		}
	}
}
