package wechatsim

import (
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
)

// users are a mini program's: number k is a person, computed, not stored. Of the first official
// account's followers as many as there are users that follow; the others are people just beyond its
// followers.
type users struct {
	count, outsiders int
	first, followers int // of the official account
	// prime to followers: spreads the users over the follower list without meeting one twice
	stride int
}

// usedCodes are the login codes that had their one call.
type usedCodes struct {
	mu   sync.Mutex
	used map[string]bool
}

func newUsers(count int, notFollowing float64, first, followers int) users {
	u := users{count: count, first: first, followers: followers,
		outsiders: int(float64(count)*notFollowing + 0.5)}
	u.stride = int(float64(followers)*0.618) | 1
	for gcd(u.stride, followers) > 1 {
		u.stride += 2
	}
	return u
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// person returns who user k is.
func (u *users) person(k int) int {
	rank := k * u.outsiders / max(1, u.count) // outsiders among the first k
	if (k+1)*u.outsiders/max(1, u.count) > rank {
		return u.first + u.followers + rank
	}
	if follower := k - rank; follower < u.followers {
		return u.first + follower*u.stride%u.followers
	}
	return u.first + u.followers + u.outsiders + k - rank - u.followers
}

// MiniUser returns which person the k-th user of a mini program is.
func (s *Server) MiniUser(appid string, k int) int { return s.mustApp(appid).users.person(k) }

// MiniUsers returns users of a mini program, from the offset-th on.
func (s *Server) MiniUsers(appid string, offset, limit int) []Identity {
	a := s.mustApp(appid)
	var list []Identity
	for k := max(0, offset); k < a.users.count && len(list) < limit; k++ {
		list = append(list, a.identity(a.users.person(k)))
	}
	return list
}

type sessionAnswer struct {
	SessionKey string `json:"session_key"`
	OpenID     string `json:"openid"`
	UnionID    string `json:"unionid,omitempty"`
}

// codeToSession takes codes of the form mini-<k>-<anything>: the login of the k-th user. Each is
// good for one call.
func (c *call) codeToSession() {
	if !c.credentials(c.query("appid"), c.query("secret")) {
		return
	}
	code := c.query("js_code")
	switch {
	case !c.app.mini:
		c.fail(40013)
		return
	case c.query("grant_type") != "authorization_code":
		c.fail(40002)
		return
	case code == "":
		c.fail(41008)
		return
	}
	if !c.charge() {
		return
	}
	k, ok := codeUser(code)
	if !ok || k >= c.app.users.count {
		c.fail(40029)
		return
	}
	person := c.app.users.person(k)
	if c.app.people.of(person).Risky {
		c.fail(40226)
		return
	}
	if !c.app.codes.use(code) {
		c.fail(40163)
		return
	}
	var key [16]byte
	binary.BigEndian.PutUint64(key[:], c.s.draw())
	binary.BigEndian.PutUint64(key[8:], c.s.draw())
	c.json(sessionAnswer{base64.StdEncoding.EncodeToString(key[:]), c.app.ids.id(person),
		c.app.unionID(person)})
}

func codeUser(code string) (k int, ok bool) {
	number, _, ok := strings.Cut(strings.TrimPrefix(code, "mini-"), "-")
	k, err := strconv.Atoi(number)
	return k, ok && err == nil && k >= 0 && strings.HasPrefix(code, "mini-")
}

func (u *usedCodes) use(code string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.used == nil {
		u.used = make(map[string]bool)
	}
	if u.used[code] {
		return false
	}
	u.used[code] = true
	return true
}
