package wechat

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
)

// Session is who logged in to a mini program.
type Session struct {
	OpenID     string     `json:"openid"`  // in the mini program
	UnionID    string     `json:"unionid"` // empty: not bound to an Open Platform account
	SessionKey SessionKey `json:"session_key"`
}

// SessionKey decrypts what WeChat gives to this person's mini program. It prints as [redacted].
type SessionKey string

// Reveal returns the key itself.
func (k SessionKey) Reveal() string { return string(k) }

// String hides the key from fmt.
func (SessionKey) String() string { return redacted }

// GoString hides the key from %#v.
func (SessionKey) GoString() string { return redacted }

// LogValue hides the key from slog.
func (SessionKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the key from encoding/json and its like.
func (SessionKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Session exchanges a login code; the client is the mini program's. A code lives 5 minutes and
// works once, so after an attempt that reached WeChat the call is not repeated: the app asks the
// person's WeChat for a new code.
//
// https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/user-login/code2Session.html
func (c *Client) Session(ctx context.Context, jsCode string) (session Session, err error) {
	err = c.read(ctx, request{
		endpoint: sessionEndpoint,
		query: url.Values{
			"appid":      {c.cfg.AppID},
			"secret":     {c.cfg.Secret},
			"js_code":    {jsCode},
			"grant_type": {"authorization_code"},
		}.Encode(),
		into:    &session,
		secrets: []string{jsCode},
		single:  true,
	})
	return session, err
}

func (s *Session) decode(body []byte) error {
	var wire Session
	if err := unmarshal(body, &wire); err != nil {
		return err
	}
	if wire.OpenID == "" {
		return errors.New("openid missing")
	}
	*s = wire
	return nil
}
