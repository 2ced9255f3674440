package wechat

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// externalEvery is how often a company's own token server is asked though the token is good.
	// When it fetches a new token the old one lives on for 5 minutes, so asking every 4 never meets
	// a dead one. What it says of expires_in does not help here: many servers repeat the 7200 of
	// the day the token was fetched.
	externalEvery = 4 * time.Minute

	// externalPace bounds how often it is asked because WeChat refused its token.
	externalPace = 5 * time.Second
)

// externalProvider asks a token server or a command of the company's own, which alone renews the
// token. A refused one is asked for again, since there may be a newer one by now, and never forced.
type externalProvider struct {
	endpoint string
	ask      func(ctx context.Context) (grant, error)
	asks     budget // because of refusals
}

func newExternal(endpoint string, ask func(ctx context.Context) (grant, error)) *externalProvider {
	return &externalProvider{endpoint: endpoint, ask: ask, asks: budget{interval: externalPace}}
}

func (s *externalProvider) fetch(ctx context.Context, _ bool) (grant, error) {
	g, err := s.ask(ctx)
	g.renew = min(g.renew, externalEvery)
	return g, err
}

func (s *externalProvider) refused(last *token, now time.Time) decision {
	switch {
	case s.asks.take(now):
		return decision{step: stepFetch}
	case last.doubts < 2 && now.Before(last.expires):
		return decision{step: stepReuse}
	}
	return decision{stepWait, s.asks.taken[0].Add(externalPace)}
}

func (s *externalProvider) texts() providerTexts {
	who := "the token server"
	if s.endpoint == EndpointTokenCommand {
		who = "the token command"
	}
	return providerTexts{
		endpoint: s.endpoint,
		reason:   ReasonTokenSupply,
		policy:   PolicyConfig,
		refused:  who + " hands out a dead token: WeChat refuses it, and asking again brought the same",
		contention: "another program fetches classic tokens for this appid beside " + who + ". " +
			"Cure: let every program get its token there, or use token mode stable " +
			"(stable_token) in every program",
	}
}

func (c *Client) serverToken(ctx context.Context) (grant, error) {
	var token externalAnswer
	err := c.read(ctx, request{
		endpoint: tokenServerEndpoint,
		address:  c.cfg.Token.URL,
		header:   c.cfg.Token.Header,
		into:     &token,
		secrets:  addressSecrets(c.cfg.Token),
	})
	return grant(token), err
}

// shortestSecret keeps the "1" of a v=1 from being redacted everywhere.
const shortestSecret = 4

// addressSecrets are the parts of URL and header that no text may contain: the path and query as a
// whole, each value, and of a header such as "Bearer x" the x too.
func addressSecrets(t TokenConfig) []string {
	var all []string
	if u, err := url.Parse(t.URL); err == nil {
		password, _ := u.User.Password()
		all = append(all, u.RequestURI(), u.RawQuery, u.EscapedPath(), password)
		for _, pair := range strings.Split(u.RawQuery, "&") {
			_, value, _ := strings.Cut(pair, "=")
			all = append(all, value)
		}
		for _, values := range u.Query() {
			all = append(all, values...)
		}
	}
	for _, value := range t.Header {
		all = append(all, value)
		all = append(all, strings.Fields(value)...)
	}
	return longestFirst(all, shortestSecret)
}

// longestFirst drops what is too short, and sorts the rest so that no part is redacted inside a
// longer one, which would then no longer be recognised.
func longestFirst(secrets []string, shortest int) []string {
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < shortest })
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	return secrets
}

func setHeader(h *http.Request, header map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if http.CanonicalHeaderKey(name) == "Host" {
			h.Host = header[name]
			continue
		}
		h.Header.Set(name, header[name])
	}
}

// externalAnswer is an answer in one of the two forms of [TokenConfig]. It is a fastAnswer because
// a bare token is no JSON: scan sees the body before the search for an errcode.
type externalAnswer grant

func (e *externalAnswer) scan(body []byte) bool {
	g, err := parseExternal(body)
	if err == nil {
		*e = externalAnswer(g)
	}
	return err == nil
}

func (e *externalAnswer) decode(body []byte) error {
	_, err := parseExternal(body)
	return err
}

// longestToken: tokens have 136 to 180 characters today, and WeChat says to make room for 512.
const longestToken = 1024

// bareToken refuses an error page, a word such as "unauthorized" and a JSON string.
var bareToken = regexp.MustCompile(`^[A-Za-z0-9_.~+/=-]{32,}$`)

// parseExternal reads either form. Its errors quote nothing.
func parseExternal(body []byte) (grant, error) {
	body = bytes.TrimSpace(body)
	if !bytes.HasPrefix(body, []byte("{")) {
		if len(body) > longestToken || !bareToken.Match(body) {
			return grant{}, errors.New(`neither {"access_token":"…","expires_in":7200} nor a ` +
				`bare token of 32 to 1024 characters`)
		}
		return newGrant(string(body), maxTokenLife), nil
	}
	var wire struct {
		Code        looseInt  `json:"errcode"`
		AccessToken string    `json:"access_token"`
		ExpiresIn   *looseInt `json:"expires_in"`
	}
	if err := unmarshal(body, &wire); err != nil {
		return grant{}, err
	}
	life := looseInt(maxTokenLife / time.Second)
	if wire.ExpiresIn != nil {
		life = min(life, *wire.ExpiresIn)
	}
	switch {
	case wire.Code != 0:
		return grant{}, errors.New("an errcode")
	case wire.AccessToken == "":
		return grant{}, errors.New("access_token missing; it must stand at the top level of the JSON")
	case life <= 0:
		return grant{}, errors.New("expires_in is not above zero: the token has ended")
	}
	return newGrant(wire.AccessToken, time.Duration(life)*time.Second), nil
}
