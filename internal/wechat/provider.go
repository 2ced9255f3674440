package wechat

import (
	"context"
	"time"
)

// TokenMode says where an account's access tokens come from.
type TokenMode string

// The modes. In TokenStable any number of programs and instances may fetch; in TokenClassic one
// may, since every fetch ends the token before it; in the others a program of the company's own
// fetches.
const (
	TokenStable  TokenMode = "stable"
	TokenClassic TokenMode = "classic"
	TokenURL     TokenMode = "url"
	TokenCommand TokenMode = "command"
)

// TokenConfig is where tokens come from; the zero value is [TokenStable].
//
// A token server and a command answer in one of two forms. WeChat's own:
// {"access_token":"…","expires_in":7200}, where expires_in is what is left, in seconds, may be left
// out, and counts for 7,200 at most; an errcode other than 0 is an error of the same meaning as
// WeChat's. Or the bare token: 32 to 1024 letters, digits and _-.~+/=, blanks around it ignored. At
// most 64 KB, HTTP 200 or exit status 0.
type TokenConfig struct {
	Mode TokenMode

	// URL is asked with GET in mode url. It is a secret as a whole: a query may carry a key.
	URL string
	// Header goes along with it. The values are secrets.
	Header map[string]string

	// Command is the program (an absolute path) and its arguments in mode command. No shell is
	// involved. The program has 10 s, no standard input, / as its folder, and an environment of
	// PATH (/usr/local/sbin:/usr/local/bin:/usr/sbin: /usr/bin:/sbin:/bin), HOME, LANG=C.UTF-8 and
	// UNIONBRIDGE_APPID alone; /usr/bin/env in front of it adds to that.
	Command []string
}

const maxTokenLife = 2 * time.Hour

type grant struct {
	value    string
	lifetime time.Duration // as far as the provider knows
	renew    time.Duration // after this time it is asked again, though the token is still good
}

// newGrant renews shortly before the end.
func newGrant(value string, lifetime time.Duration) grant {
	g := grant{value, lifetime, lifetime - renewBefore}
	if lifetime <= renewBefore+time.Minute {
		// in normal mode this is what is left, which may be seconds: no fetch for every call
		g.renew = lifetime / 2
	}
	return g
}

// tokenProvider is one way to get tokens. A tokenSource calls it from one goroutine at a time.
type tokenProvider interface {
	fetch(ctx context.Context, force bool) (grant, error)
	// refused decides what to do about a token that WeChat refused.
	refused(last *token, now time.Time) decision
	// texts are what errors and the alarm say in this mode.
	texts() providerTexts
}

// fetcher gets a token. With force it makes WeChat end the current one.
type fetcher func(ctx context.Context, force bool) (grant, error)

func (f fetcher) fetch(ctx context.Context, force bool) (grant, error) { return f(ctx, force) }

type providerTexts struct {
	endpoint string // stands in errors where there was no token to make the call with
	// of what callers get while the token is refused and nothing can be done about it yet
	reason     Reason
	policy     Policy
	refused    string
	contention string // who kills tokens, and the cure
}

type decision struct {
	step  step
	until time.Time // with stepWait: when there will be another decision
}

type step uint8

const (
	stepFetch step = iota
	stepForce      // fetch with force
	stepReuse      // try the same token again: it may have been good
	stepWait
)

// budget bounds how often something is done: per 24 hours, and from one time to the next.
type budget struct {
	perDay   int // 0: no bound
	interval time.Duration
	taken    []time.Time // of the last 24 hours; only the last one if perDay is 0
}

func (b *budget) take(now time.Time) bool {
	for len(b.taken) > 0 && now.Sub(b.taken[0]) >= 24*time.Hour {
		b.taken = b.taken[1:]
	}
	n := len(b.taken)
	if b.perDay > 0 && n >= b.perDay || n > 0 && now.Sub(b.taken[n-1]) < b.interval {
		return false
	}
	if b.perDay == 0 {
		b.taken = b.taken[:0]
	}
	b.taken = append(b.taken, now)
	return true
}

func (c *Client) newTokenProvider() tokenProvider {
	switch t := c.cfg.Token; t.Mode {
	case TokenClassic:
		return newClassic(c.classicToken)
	case TokenURL:
		return newExternal(EndpointTokenServer, c.serverToken)
	case TokenCommand:
		return newExternal(EndpointTokenCommand, c.commandToken)
	case TokenStable, "":
		return newStable(c.stableToken)
	default:
		return newExternal("token", func(context.Context) (grant, error) {
			return grant{}, &Error{
				Endpoint: "token", Message: "unknown token mode; known: stable, classic, url, command",
				Reason: ReasonTokenSupply, Policy: PolicyConfig,
			}
		})
	}
}
