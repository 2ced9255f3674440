package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"
)

// forcedPerDay and forcedInterval bound forced refreshes: WeChat allows 20 a day, for all instances
// together and at least 30 s apart.
// https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken
const (
	forcedPerDay   = 18
	forcedInterval = 30 * time.Second
)

// stableProvider gets the token that all programs and instances share. A refused one goes through
// three steps, since refusals inside the validity happen for no reason: ask WeChat for the current
// token; if it is the same, try it once more; if it is refused again, force a new one.
type stableProvider struct {
	fetcher
	forced budget
}

func newStable(fetch fetcher) *stableProvider {
	return &stableProvider{fetch, budget{perDay: forcedPerDay, interval: forcedInterval}}
}

func (s *stableProvider) refused(last *token, now time.Time) decision {
	switch until := last.at.Add(forcedInterval); {
	case last.doubts < 2:
		return decision{step: stepFetch}
	case s.forced.take(now):
		return decision{step: stepForce}
	case now.Before(until):
		return decision{stepWait, until}
	}
	return decision{step: stepFetch} // the same again most likely, and perhaps WeChat takes it now
}

func (s *stableProvider) texts() providerTexts {
	return providerTexts{
		endpoint: EndpointStableToken,
		reason:   ReasonTokenRefused,
		policy:   PolicyToken,
		refused:  "WeChat refuses the token it calls current",
		contention: "another program ends this account's tokens: it fetches tokens for this appid " +
			"with force_refresh. Cure: normal mode of stable_token in every program, or token " +
			"mode url everywhere",
	}
}

// stableToken fetches the token that all instances of an account share. Normal mode returns the
// current one until the last 5 minutes of its life; forced mode invalidates it. Forced mode is not
// repeated, since each call may count.
//
// https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken
func (c *Client) stableToken(ctx context.Context, force bool) (grant, error) {
	body, err := encode(struct {
		GrantType string `json:"grant_type"`
		AppID     string `json:"appid"`
		Secret    string `json:"secret"`
		Force     bool   `json:"force_refresh,omitempty"`
	}{"client_credential", c.cfg.AppID, c.cfg.Secret, force})
	if err != nil {
		return grant{}, err
	}
	var token tokenAnswer
	err = c.read(ctx, request{endpoint: stableTokenEndpoint, body: body, into: &token, single: force})
	return token.grant(), err
}

type tokenAnswer struct {
	AccessToken string   `json:"access_token"`
	ExpiresIn   looseInt `json:"expires_in"` // seconds that are left
}

func (t *tokenAnswer) grant() grant {
	return newGrant(t.AccessToken, time.Duration(t.ExpiresIn)*time.Second)
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

// encode is json.Marshal without \u0026: some of WeChat's endpoints refuse it (40033, 47002).
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
