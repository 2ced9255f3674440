package wechatsim

import "fmt"

// Identity is the truth about a person in one account, to check a map against.
type Identity struct {
	AppID     string `json:"appid"`
	OpenID    string `json:"openid"`
	UnionID   string `json:"unionid,omitempty"` // empty if the account is unbound
	Person    int    `json:"person"`
	Following bool   `json:"following"` // always false for a mini program
}

// Identify resolves an openid of an account; ok is false if the account has no such openid.
func (s *Server) Identify(appid, openid string) (identity Identity, ok bool) {
	a := s.mustApp(appid)
	person, ok := a.ids.person([]byte(openid))
	if !ok {
		return Identity{}, false
	}
	return a.identity(person), true
}

// IdentifyUnion resolves a unionid into what the person is in an account; ok is false for an
// unknown unionid.
func (s *Server) IdentifyUnion(appid, unionid string) (identity Identity, ok bool) {
	a := s.mustApp(appid)
	unions := a.unions.Load()
	if unions == nil {
		return Identity{}, false
	}
	person, ok := unions.person([]byte(unionid))
	if !ok {
		return Identity{}, false
	}
	return a.identity(person), true
}

func (a *app) identity(person int) Identity {
	return Identity{
		AppID: a.id, OpenID: a.ids.id(person), UnionID: a.unionID(person), Person: person,
		Following: !a.mini && a.followers.follows(person),
	}
}

func (a *app) unionID(person int) string {
	if unions := a.unions.Load(); unions != nil {
		return unions.id(person)
	}
	return ""
}

// OpenID is the id of a person in an account, whether they follow it or not.
func (s *Server) OpenID(appid string, person int) string { return s.mustApp(appid).ids.id(person) }

// UnionID is the id of a person in the Open Platform account that the first account is bound to at
// present; empty if it is bound to none. See [Server.Identify] for other accounts.
func (s *Server) UnionID(person int) string { return s.order[0].unionID(person) }

// IsFollower reports whether a person follows an official account.
func (s *Server) IsFollower(appid string, person int) bool {
	return s.mustAccount(appid).followers.follows(person)
}

// Rebind binds accounts, or all of them if none is named, to another Open Platform account: all
// their unionids change, no openid does, and nothing announces it.
func (s *Server) Rebind(appids ...string) {
	if len(appids) == 0 {
		for _, a := range s.order {
			appids = append(appids, a.id)
		}
	}
	number := -int(s.platforms.Add(1)) // configured numbers are positive
	for _, appid := range appids {
		s.mustApp(appid).bind(s.seed, number, false)
	}
}

// Unbind takes an account's binding away: it has no unionids from now on.
func (s *Server) Unbind(appid string) { s.mustApp(appid).bind(s.seed, 0, true) }

func (a *app) bind(seed uint64, platform int, unbound bool) {
	if unbound {
		a.unions.Store(nil)
		return
	}
	a.unions.Store(newIDCodec(seed, fmt.Sprintf("unionid%d", platform)))
}
