package channeltest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/sender/channel"
)

var reasonPattern = regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)

// check holds an Outcome against what its fields and the channel's traits promise.
func (f *fixture) check(t *testing.T, o channel.Outcome) {
	t.Helper()
	sent, receipts := o.Verdict == channel.Sent, f.Channel.Traits().Receipts
	pauses := o.Verdict == channel.PauseAccount || o.Verdict == channel.PauseTemplate
	for _, rule := range []struct {
		holds bool
		says  string
	}{
		{o.Verdict >= channel.Sent && o.Verdict <= channel.PauseTemplate, "a verdict"},
		{sent == (o.Reason == ""), "a reason, unless sent"},
		{!sent || o.Message == "", "no message if sent"},
		{sent == (o.Err == nil), "the answer in full, unless sent"},
		{sent || reasonPattern.MatchString(o.Reason), "a reason in snake_case"},
		{sent || o.MsgID == 0, "a msgid only if sent"},
		{!sent || !receipts || o.MsgID != 0, "a msgid if sent, where receipts name it"},
		{!sent || o.Code == 0, "no errcode if sent"},
		{(o.Verdict == channel.Retry) == (o.After > 0), "a backoff only for a retry"},
		{(o.Verdict == channel.PauseAccount) == (o.Pause != 0), "a pause only for a paused account"},
		{!pauses || o.Confirms == channel.ScopeNone, "a pause confirms nothing"},
		{o.Verdict != channel.InDoubt || o.Confirms == channel.ScopeNone, "a doubt confirms nothing"},
		{!sent || o.Confirms == channel.ScopeTemplate, "a message that was taken confirms its template"},
	} {
		if !rule.holds {
			t.Errorf("%+v breaks the rule: %s", o, rule.says)
		}
	}
}

// checkSecrets looks for secrets in all that an Outcome can be printed as.
func (f *fixture) checkSecrets(t *testing.T, o channel.Outcome) {
	t.Helper()
	text := fmt.Sprintf("%+v %#v", o, o)
	for err := o.Err; err != nil; err = errors.Unwrap(err) {
		text += fmt.Sprintf(" %s %+v %#v", err, err, err)
	}
	f.mu.Lock()
	secrets := append(slices.Clone(f.Secrets), f.tokens...)
	f.mu.Unlock()
	for _, s := range append(secrets, "access_token=") {
		if strings.Contains(text, s) {
			t.Errorf("an Outcome holds the secret %.8s…: %.300s", s, text)
		}
	}
}
