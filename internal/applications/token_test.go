package applications

import (
	"bytes"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

var tokenShape = regexp.MustCompile(`^ub1_[A-Za-z0-9_-]{43,508}$`)

func TestTokens(t *testing.T) {
	db := dbtest.New(t)
	secret, older := NewSecret(), NewSecret()
	one := newInstance(t, db, shop(secret, older))
	first, second := mustToken(t, one, official, secret), mustToken(t, one, mini, older)
	one.clock.advance(time.Second)
	third := mustToken(t, one, official, secret)
	for _, token := range []string{first, second, third} {
		if !tokenShape.MatchString(token) {
			t.Errorf("%s is not of the shape %s", token, tokenShape)
		}
		wantCode(t, "an instance's token", verify(t, one, token), 0)
		// Another instance, and this one after a restart.
		wantCode(t, "another instance's token", verify(t, newInstance(t, db, shop(secret, older)), token), 0)
	}
	s, err := one.Verify(t.Context(), second, here())
	if err != nil || s.Application.Name != "shop" || s.AppID != mini || s.From != here() {
		t.Errorf("the second token is of %+v, %v", s, err)
	}

	// Without the older secret its tokens end, and no others.
	changed := newInstance(t, db, shop(secret))
	wantCode(t, "a removed secret's token", verify(t, changed, second), 40001)
	wantCode(t, "the other secret's token", verify(t, changed, first), 0)
	off := shop(secret, older)
	off.Disabled = true
	wantCode(t, "a disabled application's token", verify(t, newInstance(t, db, off), first), 40001)
	wantCode(t, "a removed application's token", verify(t, newInstance(t, db), first), 40001)

	// A revocation ends them on every instance, and the application gets new ones.
	two := newInstance(t, db, shop(secret, older))
	wantCode(t, "a token before the revocation", verify(t, two, first), 0)
	for range 2 {
		if err := Revoke(t.Context(), db, "shop"); err != nil {
			t.Fatal(err)
		}
		for _, f := range []fixture{one, two} {
			f.clock.advance(maxStateAge)
			for _, token := range []string{first, second, third} {
				wantCode(t, "a revoked token", verify(t, f, token), 40001)
			}
		}
		third = mustToken(t, one, official, secret)
		wantCode(t, "a token after the revocation", verify(t, two, third), 0)
	}

	elsewhere := newInstance(t, dbtest.New(t), shop(secret, older))
	wantCode(t, "a token of another installation", verify(t, elsewhere, third), 40001)
	// What "restored" will do.
	if _, err := db.Exec(`DELETE FROM secret_key WHERE name = ?`, tokenKey); err != nil {
		t.Fatal(err)
	}
	one.clock.advance(maxStateAge)
	wantCode(t, "a token of an earlier key", verify(t, one, third), 40001)
}

func TestTokenExpires(t *testing.T) {
	db := dbtest.New(t)
	secret := NewSecret()
	f := newInstance(t, db, shop(secret))
	token := mustToken(t, f, official, secret)
	st := f.latest.Load()
	c, ok := open(st.key, token)
	if !ok {
		t.Fatal("our own token is none")
	}
	if life := time.Unix(c.expires, 0).Sub(st.moment); life < 7499*time.Second || life > 7501*time.Second {
		t.Errorf("the token lives for %s, want 7200 s and 300 s of grace", life)
	}
	c.expires = st.moment.Unix() + 60
	wantCode(t, "a token with a minute left", verify(t, f, sign(st.key, c)), 0)
	c.expires = st.moment.Unix() - 1
	wantCode(t, "an expired token", verify(t, f, sign(st.key, c)), 42001)
	wantCode(t, "no token", verify(t, f, ""), 41001)
	// Whoever changes the moment has no key.
	wantCode(t, "a token of another key", verify(t, f, sign(make([]byte, 32), c)), 40001)
}

// TestTokenChanged: no token that differs in a bit or a character from one of ours is ours.
func TestTokenChanged(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	random := rand.New(rand.NewPCG(1, 2))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=. "
	for range 200 {
		c := claims{
			application: strings.Repeat("a", random.IntN(maxName+1)), appid: strings.Repeat("x", random.IntN(maxAppID+1)),
			epoch: random.Int64N(1 << 40), expires: random.Int64N(1 << 40),
		}
		token := sign(key, c)
		if got, ok := open(key, token); !ok || got != c {
			t.Fatalf("open(sign(%+v)) = %+v, %t", c, got, ok)
		}
		if !tokenShape.MatchString(token) || len(token) > maxToken {
			t.Fatalf("%s is not of the shape %s", token, tokenShape)
		}
		for i := range token {
			changed := []byte(token)
			changed[i] = alphabet[random.IntN(len(alphabet))]
			if _, ok := open(key, string(changed)); ok && string(changed) != token {
				t.Fatalf("character %d of %s was changed, and it is still ours:\n%s", i, token, changed)
			}
			if _, ok := open(key, token[:i]); ok {
				t.Fatalf("%s is ours without its end", token[:i])
			}
			if _, ok := open(key, token[i:]); ok && i > 0 {
				t.Fatalf("%s is ours without its beginning", token[i:])
			}
		}
		for _, more := range []string{token + "A", token + "=", token + " ", " " + token, token + token, "ub1_" + token} {
			if _, ok := open(key, more); ok {
				t.Fatalf("%q is ours", more)
			}
		}
	}
}

// FuzzToken: whatever arrives, nothing panics, and only what sign returned is ours.
func FuzzToken(f *testing.F) {
	key := bytes.Repeat([]byte{7}, 32)
	token := sign(key, claims{application: "shop", appid: official, epoch: 3, expires: 1 << 33})
	for _, seed := range []string{"", "ub1_", "ub1__", token, token[:len(token)-1], strings.Repeat("_", 600),
		"ub1_" + strings.Repeat("A", 48)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, ok := open(key, text)
		if ok && sign(key, c) != text {
			t.Errorf("%q is ours, and has another spelling: %q", text, sign(key, c))
		}
		_, _ = parse([]byte(text))
	})
}
