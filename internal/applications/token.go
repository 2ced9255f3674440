package applications

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"strings"
	"time"
)

const (
	// TokenLife is what callers learn as expires_in. WeChat's own, and what SDKs expect: some
	// refuse a short one, some ask before every call when it is below half an hour.
	TokenLife = 2 * time.Hour
	// tokenGrace is how much longer a token lives: there are SDKs that use it up to the last
	// second, and clocks that differ.
	tokenGrace = 5 * time.Minute

	tokenPrefix = "ub1_"
	macLength   = 43  // of base64url of a SHA-256
	maxToken    = 512 // what SDKs store
	maxName     = 64
	maxAppID    = 64
)

// claims are what a token says, of which none is a secret.
type claims struct {
	application, appid string
	epoch, expires     int64
	secret             [8]byte // by which secret it was issued
}

// fingerprint names a secret, so that its tokens end with it, and those of the other secret do not.
func fingerprint(hash [sha256.Size]byte) (f [8]byte) {
	copy(f[:], hash[:])
	return f
}

// sign returns a token: ub1_, the claims, _ and the MAC of what is before it, all in base64url,
// which SDKs put into URLs without escaping it.
func sign(key []byte, c claims) string {
	b := make([]byte, 0, 128)
	b = append(b, byte(len(c.application)))
	b = append(b, c.application...)
	b = append(b, byte(len(c.appid)))
	b = append(b, c.appid...)
	b = binary.AppendUvarint(b, uint64(c.epoch))
	b = binary.AppendUvarint(b, uint64(c.expires))
	b = append(b, c.secret[:]...)
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
	return text + "_" + base64.RawURLEncoding.EncodeToString(mac(key, text))
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	_, _ = m.Write([]byte(text)) // a hash takes everything
	return m.Sum(nil)
}

// open returns the claims of a token that was signed with key; false for everything else.
func open(key []byte, token string) (claims, bool) {
	cut := len(token) - macLength - 1
	if len(token) > maxToken || cut < len(tokenPrefix) || token[cut] != '_' {
		return claims{}, false
	}
	text := token[:cut]
	body, prefixed := strings.CutPrefix(text, tokenPrefix)
	// Strict: each token has one spelling, and a changed last character is no other one.
	sum, err := base64.RawURLEncoding.Strict().DecodeString(token[cut+1:])
	if err != nil || !prefixed || !hmac.Equal(sum, mac(key, text)) {
		return claims{}, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return claims{}, false
	}
	return parse(b)
}

func parse(b []byte) (c claims, ok bool) {
	text := func(most int) (s string) {
		if len(b) == 0 || int(b[0]) > most || len(b) <= int(b[0]) {
			b = nil
			return ""
		}
		s, b = string(b[1:1+b[0]]), b[1+b[0]:]
		return s
	}
	number := func() int64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<62 {
			b = nil
			return -1
		}
		b = b[n:]
		return int64(v)
	}
	c.application, c.appid = text(maxName), text(maxAppID)
	c.epoch, c.expires = number(), number()
	if len(b) != len(c.secret) {
		return claims{}, false
	}
	copy(c.secret[:], b)
	return c, true
}

// Verify returns whose token it is. It is valid on every instance, also after a restart, until it
// expires, its application is revoked or disabled, or the secret that it was issued for is removed.
func (r *Registry) Verify(ctx context.Context, token string, from netip.Addr) (Session, error) {
	if token == "" {
		return Session{}, r.audit.refuse(refusal(reasonNoToken, ""), Session{From: from}, "")
	}
	st, err := r.current(ctx)
	if err != nil {
		return Session{}, err
	}
	c, ours := open(st.key, token)
	a := r.byName[c.application]
	s := Session{Application: a, AppID: c.appid, From: from}
	var refused *Refusal
	hint := ""
	switch {
	case !ours && strings.HasPrefix(token, tokenPrefix):
		refused, hint = refusal(ReasonToken, ""), "changed, or of another installation"
	case !ours:
		// Some SDKs still fetch WeChat's own when their host is changed.
		refused, hint = refusal(ReasonToken, ""), "token not issued here: does the SDK fetch it from WeChat?"
	case a == nil || a.Disabled:
		refused, hint = refusal(ReasonToken, ""), "the application is removed or disabled"
	case c.epoch != st.epochs[a.Name]:
		refused, hint = refusal(ReasonToken, ""), "the application was revoked"
	case !a.has(c.secret):
		refused, hint = refusal(ReasonToken, ""), "its secret was removed"
	case !st.at(r.now()).Before(time.Unix(c.expires, 0)):
		refused = refusal(ReasonExpired, "")
	case !a.allows(from):
		refused = refusal(ReasonNetwork, from.String())
	default:
		return s, nil
	}
	return Session{}, r.audit.refuse(refused, s, hint)
}

func (a *Application) has(secret [8]byte) bool {
	for _, hash := range a.SecretHashes {
		if fingerprint(hash) == secret {
			return true
		}
	}
	return false
}
