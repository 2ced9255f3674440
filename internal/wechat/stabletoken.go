package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"
)

// stableToken fetches the token that all instances of an account share. Normal mode returns the current one until the last
// 5 minutes of its life; forced mode invalidates it. Forced mode is not repeated, since each call may count.
//
// https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken
func (c *Client) stableToken(ctx context.Context, force bool) (string, time.Duration, error) {
	body, err := encode(struct {
		GrantType string `json:"grant_type"`
		AppID     string `json:"appid"`
		Secret    string `json:"secret"`
		Force     bool   `json:"force_refresh,omitempty"`
	}{"client_credential", c.cfg.AppID, c.cfg.Secret, force})
	if err != nil {
		return "", 0, err
	}
	var token tokenAnswer
	r := request{endpoint: epStableToken(), body: body, into: &token, single: force}
	if err := c.read(ctx, r); err != nil {
		return "", 0, err
	}
	return token.AccessToken, time.Duration(token.ExpiresIn) * time.Second, nil
}

type tokenAnswer struct {
	AccessToken string   `json:"access_token"`
	ExpiresIn   looseInt `json:"expires_in"` // seconds that are left
}

func (t *tokenAnswer) decode(body []byte) error {
	if err := unmarshal(body, t); err != nil {
		return err
	}
	if t.AccessToken == "" || t.ExpiresIn <= 0 {
		return errors.New("access_token or expires_in missing")
	}
	return nil
}

// encode is json.Marshal without \u0026 and its like: some of WeChat's endpoints refuse \u escapes (40033, 47002).
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
