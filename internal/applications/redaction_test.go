package applications

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestNoSecretIsPrinted goes every way, well and badly, and looks for each secret in the log, in
// all errors and in the metrics.
func TestNoSecretIsPrinted(t *testing.T) {
	db := dbtest.New(t)
	secret, off, wrong := NewSecret(), NewSecret(), NewSecret()
	disabled := shop(off)
	disabled.Name, disabled.Disabled = "off", true
	limited := shop(secret)
	limited.Limit, limited.Templates = Limit{Minute: 1}, []string{"order"}
	limited.Networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f := newInstance(t, db, limited, disabled)
	var tokens []string
	call := func(appid, secret string, from netip.Addr) {
		token, err := f.Token(t.Context(), Credentials{appid, secret, from})
		f.log.add(err)
		if token != "" {
			tokens = append(tokens, token)
		}
		s, err := f.Authenticate(Credentials{appid, secret, from})
		f.log.add(err)
		f.log.add(s.AppID)
	}
	outside := netip.MustParseAddr("192.0.2.1")
	for _, one := range []string{secret, off, wrong, strings.ToUpper(secret), secret + " ", ""} {
		for _, appid := range []string{official, mini, "shop", secret, wrong, "a b", one, strings.Repeat("x", 100)} {
			call(appid, one, here())
			call(appid, one, outside)
		}
		f.clock.advance(failureWindow)
	}
	for i := range 10 {
		call(official, NewSecret(), here())
		call(official, wrong, here())
		if i == 5 {
			call(official, secret, here())
		}
	}
	f.clock.advance(failureWindow)
	token := mustToken(t, f, official, secret)
	key := f.latest.Load().key
	expired := sign(key, claims{application: "shop", appid: official, expires: 1,
		secret: fingerprint(Hash(secret))})
	tokens = append(tokens, token, expired)
	for _, text := range []string{token, expired, token[:60], token + "x", "72_" + strings.Repeat("x", 130), "", secret} {
		for _, from := range []netip.Addr{here(), outside} {
			s, err := f.Verify(t.Context(), text, from)
			f.log.add(err)
			f.log.add(f.Allow(s, TemplateSend, secret, token))
			f.log.add(f.Allow(s, TemplateSend, official, token))
			f.log.add(f.Allow(s, TemplateSend, official, secret))
			for range 2 {
				_, err = f.Reserve(t.Context(), s, 1)
				f.log.add(err)
			}
		}
	}
	if err := Revoke(t.Context(), db, "shop"); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(maxStateAge)
	f.log.add(verify(t, f, token))
	if _, err := db.Exec(`UPDATE secret_key SET value = ?`, secret); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(time.Minute)
	f.log.add(verify(t, f, token))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	call(official, secret, here())
	f.log.add(verify(t, f, token))

	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		f.log.add(family.String())
	}
	out := strings.ToLower(f.log.String())
	for _, reason := range []Reason{ReasonAppID, ReasonSecret, ReasonManySecrets, ReasonNetwork, ReasonToken,
		ReasonExpired, ReasonForbidden, ReasonMinute} {
		if !strings.Contains(out, string(reason)) {
			t.Errorf("nothing was refused as %s: the test does not go that way", reason)
		}
	}
	hash := Hash(secret)
	secrets := slices.Concat(tokens, []string{secret, off, wrong, hex.EncodeToString(hash[:]), hex.EncodeToString(key)})
	for _, token := range tokens {
		secrets = append(secrets, token[len(token)-macLength:])
	}
	for _, one := range secrets {
		if at := strings.Index(out, strings.ToLower(one)); at >= 0 {
			t.Errorf("%s was printed: …%s…", one, out[max(0, at-200):min(len(out), at+len(one)+50)])
		}
	}
}
