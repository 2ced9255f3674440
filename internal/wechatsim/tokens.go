package wechatsim

import (
	"net"
	"slices"
	"sync"
	"time"
)

// The rules of reference §1.
const (
	tokenLife       = 2 * time.Hour
	tokenOverlap    = 5 * time.Minute
	forcedPerDay    = 20
	forcedInterval  = 30 * time.Second
	grantCredential = "client_credential"
)

// token is an issued access token. dead is guarded by tokenTable.mu.
type token struct {
	app     *app
	value   string
	expires time.Time
	dead    time.Time // from then on 40001; zero: not superseded
}

// tokenTable finds a token's account. Old tokens stay in it: an expired one is told apart from an
// unknown one.
type tokenTable struct {
	mu    sync.RWMutex
	table map[string]*token
}

// check returns the token, or the errcode it is answered with.
func (t *tokenTable) check(value string, now time.Time) (*token, int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	found := t.table[value]
	switch {
	case found == nil:
		return nil, 40001
	case !found.dead.IsZero() && !now.Before(found.dead):
		return nil, 40001
	case !now.Before(found.expires):
		return nil, 42001
	}
	return found, 0
}

func (t *tokenTable) add(issued *token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.table == nil {
		t.table = make(map[string]*token)
	}
	t.table[issued.value] = issued
}

// kill lets a token end at a moment, unless it ends sooner.
func (t *tokenTable) kill(old *token, at time.Time) {
	if old == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old.dead.IsZero() || at.Before(old.dead) {
		old.dead = at
	}
}

// tokens is the token state of one account. The classic and the stable token live apart: neither
// ends the other.
type tokens struct {
	mu              sync.Mutex
	classic, stable *token
	forcedAt        time.Time
	forcedDay       int64
	forced          int
}

type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	ExpiresIn   int64  `json:"expires_in"`
}

func (c *call) classicToken() {
	if !c.credentials(c.query("appid"), c.query("secret")) {
		return
	}
	if c.query("grant_type") != grantCredential {
		c.fail(40002)
		return
	}
	if code := c.app.quota.charge(c.ep.index, c.now); code != 0 {
		c.failText(code, c.s.texts[code]+stableHint)
		return
	}
	state := &c.app.tokens
	state.mu.Lock()
	defer state.mu.Unlock()
	c.s.tokens.kill(state.classic, c.now.Add(tokenOverlap))
	state.classic = c.issue()
	c.json(tokenAnswer{state.classic.value, int64(tokenLife / time.Second)})
}

func (c *call) stableToken() {
	var request struct {
		GrantType    string `json:"grant_type"`
		AppID        string `json:"appid"`
		Secret       string `json:"secret"`
		ForceRefresh bool   `json:"force_refresh"`
	}
	if !c.bind(&request) || !c.credentials(request.AppID, request.Secret) {
		return
	}
	if request.GrantType != grantCredential {
		c.fail(40002)
		return
	}
	if !c.charge() {
		return
	}
	state := &c.app.tokens
	state.mu.Lock()
	defer state.mu.Unlock()
	if request.ForceRefresh && !c.force(state) {
		return
	}
	if state.stable == nil || state.stable.expires.Sub(c.now) <= tokenOverlap {
		state.stable = c.issue()
	}
	c.json(tokenAnswer{state.stable.value, int64(state.stable.expires.Sub(c.now) / time.Second)})
}

// force ends the stable token if the account may do so now: at most 20 times a day, which is
// answered with 45009 (not documented what is), and 30 seconds apart, within which the current
// token comes back.
func (c *call) force(state *tokens) bool {
	if !state.forcedAt.IsZero() && c.now.Sub(state.forcedAt) < forcedInterval {
		return true
	}
	if today := quotaDay(c.now); state.forcedDay != today {
		state.forcedDay, state.forced = today, 0
	}
	if state.forced >= forcedPerDay {
		c.fail(45009)
		return false
	}
	state.forced++
	state.forcedAt = c.now
	end := c.now
	if c.app.quirks.Load().ForcedOverlap {
		end = end.Add(tokenOverlap)
	}
	c.s.tokens.kill(state.stable, end)
	state.stable = nil
	return true
}

// credentials checks what the token APIs are given, in the platform's order: address, appid,
// secret.
func (c *call) credentials(appid, secret string) bool {
	c.app = c.s.apps[appid]
	code := 0
	switch {
	case appid == "":
		code = 41002
	case c.app == nil:
		code = 40013
	case secret == "":
		code = 41004
	case secret != c.app.secret:
		code = 40125
	}
	if c.app != nil && !c.app.admits(c.remoteIP()) {
		ip := c.remoteIP()
		c.failText(40164, "invalid ip "+ip+" ipv6 ::ffff:"+ip+", not in whitelist")
		return false
	}
	if code != 0 {
		c.fail(code)
	}
	return code == 0
}

func (a *app) admits(ip string) bool {
	list := *a.whitelist.Load()
	return list == nil || slices.Contains(list, ip)
}

func (c *call) remoteIP() string {
	host, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		return c.r.RemoteAddr
	}
	return host
}

// issue makes a token of the length and shape that real ones have.
func (c *call) issue() *token {
	value := append(make([]byte, 0, 160), "103_"...)
	for len(value) < 156 {
		random := c.s.draw()
		for range 8 {
			value = append(value, idAlphabet[random&63])
			random >>= 8
		}
	}
	issued := &token{app: c.app, value: string(value), expires: c.now.Add(tokenLife)}
	c.s.tokens.add(issued)
	return issued
}

// InvalidateTokens ends every token of an account at once, as a forced refresh by another program
// does. The next token request gets a new one.
func (s *Server) InvalidateTokens(appid string) {
	state := &s.mustApp(appid).tokens
	state.mu.Lock()
	defer state.mu.Unlock()
	s.tokens.kill(state.classic, s.clock())
	s.tokens.kill(state.stable, s.clock())
	state.classic, state.stable = nil, nil
}

// SetWhitelist restricts the addresses that may fetch an account's tokens; nil admits all.
func (s *Server) SetWhitelist(appid string, addresses []string) {
	s.mustApp(appid).whitelist.Store(&addresses)
}
