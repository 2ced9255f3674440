package applications

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/netip"
	"strings"
)

// NewSecret returns a new secret of 128 random bits: 32 hexadecimal digits, the form of WeChat's
// own, which consoles and SDKs check for.
func NewSecret() string {
	bits := make([]byte, 16)
	_, _ = rand.Read(bits) // never fails
	return hex.EncodeToString(bits)
}

// Hash returns the SHA-256 of a secret as it is written. A slow hash is for passwords: nobody finds
// 128 random bits by trying.
func Hash(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

// Credentials are what a caller shows for a token.
type Credentials struct {
	// AppID is an account's, or the name of an application with one account.
	AppID  string
	Secret string
	From   netip.Addr // see [Source]
}

// Token answers cgi-bin/token and stable_token: it exchanges a secret for a token of ours, which is
// valid for [TokenLife] on every instance. Earlier tokens stay valid.
func (r *Registry) Token(ctx context.Context, c Credentials) (string, error) {
	s, hash, err := r.prove(c)
	if err != nil {
		return "", err
	}
	st, err := r.current(ctx)
	if err != nil {
		return "", err
	}
	token := sign(st.key, claims{
		application: s.Application.Name, appid: s.AppID, epoch: st.epochs[s.Application.Name],
		expires: st.at(r.now()).Add(TokenLife + tokenGrace).Unix(), secret: fingerprint(hash),
	})
	r.audit.issued(s)
	return token, nil
}

// Authenticate answers calls that come with the secret itself, such as sns/jscode2session.
func (r *Registry) Authenticate(c Credentials) (Session, error) {
	s, _, err := r.prove(c)
	return s, err
}

// Bearer answers calls that come with a credential alone: a secret, or a token of ours. Session.AppID is
// the token's account, and "" with a secret.
func (r *Registry) Bearer(ctx context.Context, credential string, from netip.Addr) (Session, error) {
	if credential == "" || strings.HasPrefix(credential, tokenPrefix) {
		return r.Verify(ctx, credential, from)
	}
	hash := Hash(credential)
	a := r.find(hash)
	s := Session{Application: a, From: from}
	var refused *Refusal
	switch {
	case a == nil && r.guard.failed(from, hash):
		refused = refusal(ReasonManySecrets, "")
	case a == nil:
		refused = refusal(ReasonSecret, "")
	case r.guard.blocked(from):
		refused = refusal(ReasonManySecrets, "")
	case a.Disabled:
		refused = refusal(ReasonSecret, "")
	case !a.allows(from):
		refused = refusal(ReasonNetwork, from.String())
	default:
		return s, nil
	}
	return Session{}, r.audit.refuse(refused, s, "by a secret alone")
}

// prove finds the application of a secret. The appid comes before the secret, as at WeChat, but the
// secret is looked at in any case: how long the answer takes does not depend on what is wrong.
func (r *Registry) prove(c Credentials) (Session, [sha256.Size]byte, error) {
	hash := Hash(c.Secret)
	a := r.find(hash)
	appid, known := r.account(a, c.AppID)
	s := Session{Application: a, AppID: appid, From: c.From}
	var refused *Refusal
	hint := ""
	switch {
	case !known:
		refused, hint = refusal(ReasonAppID, ""), "appid "+printable(c.AppID)
	case a == nil:
		refused = refusal(ReasonSecret, "")
		if r.guard.failed(c.From, hash) {
			refused = refusal(ReasonManySecrets, "")
		}
		hint = "appid " + printable(c.AppID)
	case r.guard.blocked(c.From):
		refused = refusal(ReasonManySecrets, "")
		hint = "the secret is right, but this address has tried many others"
	case a.Disabled:
		refused, hint = refusal(ReasonAppID, ""), "the application is disabled"
	case appid == "":
		refused, hint = refusal(ReasonAppID, ""), "not an account of this application: "+printable(c.AppID)
	case !a.allows(c.From):
		refused = refusal(ReasonNetwork, c.From.String())
	default:
		return s, hash, nil
	}
	return Session{}, hash, r.audit.refuse(refused, s, hint)
}

// find looks through all secrets, so that the time says nothing of which one is near.
func (r *Registry) find(hash [sha256.Size]byte) (found *Application) {
	for _, a := range r.list {
		for _, own := range a.SecretHashes {
			if subtle.ConstantTimeCompare(own[:], hash[:]) == 1 {
				found = a
			}
		}
	}
	return found
}

// account returns the account that the appid of a caller stands for, if the application has it, and
// whether anybody has it.
func (r *Registry) account(a *Application, appid string) (own string, known bool) {
	if named := r.byName[appid]; named != nil {
		if named == a && len(a.Accounts) == 1 {
			for own = range a.Accounts {
				return own, true
			}
		}
		return "", true
	}
	if a != nil && a.Accounts[appid] != nil {
		return appid, true
	}
	return "", r.appids[appid]
}
