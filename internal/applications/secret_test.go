package applications

import (
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

func TestNewSecret(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		secret := NewSecret()
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(secret) || seen[secret] {
			t.Fatalf("%q is not of 32 new hexadecimal digits", secret)
		}
		seen[secret] = true
	}
}

// TestProve has the order of WeChat's answers: the appid comes before the secret.
func TestProve(t *testing.T) {
	secret, older, off, inside := NewSecret(), NewSecret(), NewSecret(), NewSecret()
	disabled := Application{Name: "off", SecretHashes: [][32]byte{Hash(off)}, Disabled: true,
		Accounts: map[string][]Call{official: {TemplateSend}}}
	fenced := Application{Name: "fenced", SecretHashes: [][32]byte{Hash(inside)},
		Accounts: map[string][]Call{official: {TemplateSend}},
		Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/8")}}
	f := newInstance(t, dbtest.New(t), shop(secret, older), disabled, fenced)
	for name, test := range map[string]struct {
		appid, secret, from string
		want                int
		account             string
	}{
		"a secret":                        {official, secret, "10.0.0.7", 0, official},
		"the older secret":                {mini, older, "10.0.0.7", 0, mini},
		"an unknown appid":                {"wx0c00000000000001", secret, "10.0.0.7", 40013, ""},
		"an unknown appid, no secret":     {"wx0c00000000000001", "x", "10.0.0.7", 40013, ""},
		"no appid":                        {"", secret, "10.0.0.7", 40013, ""},
		"a wrong secret":                  {official, NewSecret(), "10.0.0.8", 40125, ""},
		"no secret":                       {official, "", "10.0.0.9", 40125, ""},
		"a secret in capitals":            {official, strings.ToUpper("a" + secret[1:]), "10.0.0.10", 40125, ""},
		"another's account":               {mini, inside, "10.0.0.7", 40013, ""},
		"disabled":                        {official, off, "10.0.0.7", 40013, ""},
		"the only account, by the name":   {"fenced", inside, "10.0.0.7", 0, official},
		"one of two accounts by the name": {"shop", secret, "10.0.0.7", 40013, ""},
		"another application's name":      {"fenced", secret, "10.0.0.7", 40013, ""},
		"a network":                       {official, inside, "10.0.0.255", 0, official},
		"a network of IPv6":               {official, inside, "fd00::9", 0, official},
		"another network":                 {official, inside, "10.0.1.0", 40164, ""},
	} {
		s, err := f.Authenticate(Credentials{test.appid, test.secret, netip.MustParseAddr(test.from)})
		wantCode(t, name, err, test.want)
		if s.AppID != test.account || (s.Application != nil) != (err == nil) {
			t.Errorf("%s: %+v, want the account %q", name, s, test.account)
		}
	}
	// A token works from the application's networks alone, too.
	token := mustToken(t, f, official, inside)
	_, err := f.Verify(t.Context(), token, netip.MustParseAddr("192.0.2.1"))
	wantCode(t, "a token from elsewhere", err, 40164)
	_, err = f.Verify(t.Context(), token, netip.Addr{})
	wantCode(t, "a token from nowhere", err, 40164)
}

func TestAllow(t *testing.T) {
	f := newInstance(t, dbtest.New(t))
	a := shop()
	some := shop()
	some.Templates = []string{"order_paid", "id-of-order-paid"}
	for name, test := range map[string]struct {
		app             *Application
		call            Call
		appid, template string
		want            int
	}{
		"allowed":                {&a, TemplateSend, official, "anything", 0},
		"allowed elsewhere":      {&a, SubscribeSend, mini, "anything", 0},
		"another call":           {&a, SubscribeSend, official, "", 48001},
		"another account":        {&a, TemplateSend, "wx0c00000000000001", "", 48001},
		"no account":             {&a, TemplateSend, "", "", 48001},
		"a template by its name": {&some, TemplateSend, official, "order_paid", 0},
		"a template by its id":   {&some, TemplateSend, official, "id-of-order-paid", 0},
		"another template":       {&some, TemplateSend, official, "Order_Paid", 48001},
		"no template":            {&some, Login, mini, "", 0},
		"nobody":                 {nil, TemplateSend, official, "", 41001},
	} {
		err := f.Allow(Session{Application: test.app}, test.call, test.appid, test.template)
		wantCode(t, name, err, test.want)
	}
}

// TestGuard: five wrong secrets a minute and source, then the source is told to wait.
func TestGuard(t *testing.T) {
	secret := NewSecret()
	f := newInstance(t, dbtest.New(t), shop(secret))
	try := func(secret, from string) error {
		_, err := f.Authenticate(Credentials{official, secret, netip.MustParseAddr(from)})
		return err
	}
	wrong := NewSecret()
	for range 5 {
		wantCode(t, "a wrong secret", try(wrong, "192.0.2.1"), 40125)
	}
	wantCode(t, "the sixth", try(wrong, "192.0.2.1"), 45011)
	wantCode(t, "a neighbour's right one", try(secret, "192.0.2.1"), 0)
	wantCode(t, "another source", try(wrong, "192.0.2.2"), 40125)

	for range 5 {
		wantCode(t, "a guess", try(NewSecret(), "2001:db8::1"), 40125)
	}
	wantCode(t, "a right one after five guesses", try(secret, "2001:db8::2"), 0)
	wantCode(t, "the sixth guess, of the same network", try(NewSecret(), "2001:db8::3"), 45011)
	wantCode(t, "a right one after six guesses", try(secret, "2001:db8::4"), 45011)
	wantCode(t, "a right one from elsewhere", try(secret, "2001:db8:0:1::4"), 0)
	f.clock.advance(failureWindow)
	wantCode(t, "a right one a minute later", try(secret, "2001:db8::4"), 0)
	wantCode(t, "a wrong one a minute later", try(wrong, "192.0.2.1"), 40125)

	// Memory is bounded, whoever comes.
	addr := netip.MustParseAddr("100.64.0.0")
	for range 3 * maxSources {
		addr = addr.Next()
		f.guard.failed(addr, Hash(wrong))
	}
	if n := len(f.guard.sources); n > maxSources || f.guard.order.Len() != n {
		t.Errorf("%d sources are remembered, %d in order, want at most %d", n, f.guard.order.Len(), maxSources)
	}
	f.guard.failed(netip.Addr{}, Hash(wrong))
	f.clock.advance(failureWindow)
	f.guard.blocked(addr)
	if n := len(f.guard.sources); n != 0 {
		t.Errorf("%d sources are remembered after their minute", n)
	}
}

func TestSource(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/24"),
		netip.MustParsePrefix("::1/128")}
	for name, test := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"a peer":                             {"192.0.2.1:1234", nil, "192.0.2.1"},
		"a peer that claims to be another":   {"192.0.2.1:1234", []string{"10.9.9.9"}, "192.0.2.1"},
		"an IPv4 peer on an IPv6 listener":   {"[::ffff:192.0.2.1]:1", nil, "192.0.2.1"},
		"a proxy":                            {"127.0.0.1:1", []string{"192.0.2.1"}, "192.0.2.1"},
		"a proxy on IPv6":                    {"[::1]:1", []string{"2001:db8::1"}, "2001:db8::1"},
		"a proxy itself":                     {"127.0.0.1:1", nil, "127.0.0.1"},
		"two proxies":                        {"127.0.0.1:1", []string{"192.0.2.1, 10.0.0.9"}, "192.0.2.1"},
		"two proxies, a header each":         {"127.0.0.1:1", []string{"192.0.2.1", "10.0.0.9"}, "192.0.2.1"},
		"proxies alone":                      {"127.0.0.1:1", []string{"10.0.0.8, 10.0.0.9"}, "10.0.0.8"},
		"what the caller claims":             {"127.0.0.1:1", []string{"10.1.1.1, 192.0.2.1"}, "192.0.2.1"},
		"a claim to be our proxy":            {"127.0.0.1:1", []string{"10.1.1.1, 10.0.0.9, 192.0.2.1"}, "192.0.2.1"},
		"with ports":                         {"127.0.0.1:1", []string{"192.0.2.1:80"}, "192.0.2.1"},
		"IPv6 with a port":                   {"127.0.0.1:1", []string{"[2001:db8::1]:80"}, "2001:db8::1"},
		"IPv6 in brackets":                   {"127.0.0.1:1", []string{"[2001:db8::1]"}, "2001:db8::1"},
		"no address":                         {"127.0.0.1:1", []string{"unknown"}, ""},
		"no address before a proxy":          {"127.0.0.1:1", []string{"x, 10.0.0.9"}, ""},
		"an empty element":                   {"127.0.0.1:1", []string{"192.0.2.1,"}, ""},
		"nonsense that is not looked at":     {"127.0.0.1:1", []string{"x, 192.0.2.1"}, "192.0.2.1"},
		"no peer":                            {"@", nil, ""},
		"more proxies than anybody has":      {"127.0.0.1:1", []string{strings.Repeat("10.0.0.9,", 40) + "10.0.0.9"}, ""},
		"blanks around the caller's address": {"127.0.0.1:1", []string{" 192.0.2.1 "}, "192.0.2.1"},
	} {
		r := &http.Request{RemoteAddr: test.peer, Header: http.Header{"X-Forwarded-For": test.forwarded}}
		var want netip.Addr
		if test.want != "" {
			want = netip.MustParseAddr(test.want)
		}
		if got := Source(r, proxies); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestLogIsBounded: a stranger who calls a thousand times writes twenty lines a minute.
func TestLogIsBounded(t *testing.T) {
	f := newInstance(t, dbtest.New(t), shop())
	for range 1000 {
		wantCode(t, "an unknown appid", func() error {
			_, err := f.Authenticate(Credentials{AppID: "wx0c00000000000001", From: here()})
			return err
		}(), 40013)
	}
	if n := strings.Count(f.log.String(), "\n"); n != maxLogged {
		t.Errorf("%d lines, want %d", n, maxLogged)
	}
	f.clock.advance(time.Minute)
	_, _ = f.Authenticate(Credentials{AppID: "wx0c00000000000001", From: here()})
	if !strings.Contains(f.log.String(), `"not_logged":980`) {
		t.Error("the log does not say what it left out")
	}
	secret := NewSecret()
	busy := newInstance(t, dbtest.New(t), shop(secret))
	for range 100 {
		mustToken(t, busy, official, secret)
	}
	if n := strings.Count(busy.log.String(), "got a token"); n != maxLogged {
		t.Errorf("%d lines for 100 tokens, want %d", n, maxLogged)
	}
}
