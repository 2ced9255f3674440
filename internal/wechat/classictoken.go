package wechat

import (
	"context"
	"net/url"
	"time"
)

// classicPerDay and classicInterval bound fetches because of a refusal; those at a token's end come
// on top, a dozen a day. WeChat allows 2,000 a day for all programs together. A new token ends the
// one before it after 5 minutes, so that even in contention with another program no more than 288 a
// day are of use, and those of the first seconds of none.
// https://developers.weixin.qq.com/doc/service/api/base/api_getaccesstoken
const (
	classicPerDay   = 300
	classicInterval = 30 * time.Second
)

// classicProvider fetches tokens of its own. Unlike in stable mode there is no asking what is
// current: a fetch is always a new token and ends everybody else's. So it answers a refusal at once
// (the old one lives on for 5 minutes, should the refusal have been spurious), and only a token
// that is seconds old is tried a second time first.
type classicProvider struct {
	fetcher
	renewals budget
}

func newClassic(fetch fetcher) *classicProvider {
	return &classicProvider{fetch, budget{perDay: classicPerDay, interval: classicInterval}}
}

func (s *classicProvider) refused(last *token, now time.Time) decision {
	expired := !now.Before(last.expires)
	until := last.at.Add(classicInterval)
	switch {
	case expired || s.renewals.take(now):
		return decision{step: stepFetch}
	case last.doubts >= 2 && now.Before(until):
		return decision{stepWait, until}
	}
	return decision{step: stepReuse}
}

func (s *classicProvider) texts() providerTexts {
	return providerTexts{
		endpoint: EndpointToken,
		reason:   ReasonTokenRefused,
		policy:   PolicyToken,
		refused:  "WeChat refuses a token that it has just issued",
		contention: "another program fetches classic tokens for this appid (/cgi-bin/token), and " +
			"each fetch ends the token before it; a second instance in token mode classic is such " +
			"a program too. Cure: token mode stable (stable_token) in every program, or token mode " +
			"url with one token server for all",
	}
}

// classicToken fetches a new token and thereby ends the one before it, after 5 minutes. It may be
// repeated after a busy or broken answer: a lost token has ended the others anyway.
//
// https://developers.weixin.qq.com/doc/service/api/base/api_getaccesstoken
func (c *Client) classicToken(ctx context.Context, _ bool) (grant, error) {
	var token tokenAnswer
	err := c.read(ctx, request{
		endpoint: classicTokenEndpoint,
		query: url.Values{
			"grant_type": {"client_credential"},
			"appid":      {c.cfg.AppID},
			"secret":     {c.cfg.Secret},
		}.Encode(),
		into: &token,
	})
	return token.grant(), err
}

// adviseStable is what WeChat's own text, which stands before it, recommends too.
const adviseStable = "; the 2,000 token fetches of the day are used up: set token mode stable, " +
	"which has 500,000 and ends nobody's token"
