package bridge

import (
	"context"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Key is one thing that the map can learn about a person at an account. A message that cannot reach
// its recipient waits for one of theirs.
type Key struct {
	Kind  KeyKind
	AppID string // the official account; of an openid also the mini program
	Value string
}

// KeyKind says what a Key's value is.
type KeyKind string

// The kinds.
const (
	KeyUnionID KeyKind = "unionid" // the person may follow the account under it
	KeyOpenID  KeyKind = "openid"  // their own at the account
	// KeyGrant is what they allow the account to send: GrantKey. The map does not learn that; who
	// counts it tells the watcher.
	KeyGrant KeyKind = "grant"
)

// GrantKey is the Key of a template that a person allows an account to send.
func GrantKey(appid, openid, templateID string) Key {
	return Key{KeyGrant, appid, openid + " " + templateID} // no id has a blank
}

// Watcher is told of each change of the map after it has been committed: of everybody whom it may
// have made reachable. It has no error to give back, since the change stands.
type Watcher interface {
	Changed(ctx context.Context, keys []Key)
}

// Watched returns the same map, whose changes through it w is told of.
func (m *Map) Watched(w Watcher) *Map {
	return &Map{db: m.db, erasures: m.erasures, watcher: w}
}

// change is what was written of one person; UnionID is "" where the answer had none.
type change = pair

// tell tells the watcher about followers of an account. A unionid that an answer lacked may be
// known from an earlier one, and messages may wait for it.
func (m *Map) tell(ctx context.Context, appid string, changes []change) {
	if m.watcher == nil || len(changes) == 0 {
		return
	}
	keys := make([]Key, 0, 2*len(changes))
	var unknown []string
	for _, c := range changes {
		keys = append(keys, Key{KeyOpenID, appid, c.OpenID})
		if c.UnionID == "" {
			unknown = append(unknown, c.OpenID)
		} else {
			keys = append(keys, Key{KeyUnionID, appid, c.UnionID})
		}
	}
	const query = `
		SELECT openid, unionid
		  FROM follower
		 WHERE appid = ? AND openid IN (?) AND subscribed = 1 AND unionid IS NOT NULL`
	if len(unknown) > 0 {
		var known []pair
		// Without an answer their openids alone are told: the slow round over all that waits finds
		// the rest.
		if err := m.selectIn(ctx, &known, query, appid, unknown); err == nil {
			for _, k := range known {
				keys = append(keys, Key{KeyUnionID, appid, k.UnionID})
			}
		}
	}
	m.watcher.Changed(ctx, keys)
}

// tellGone tells the watcher about followers who have left. That reaches those who share a unionid
// with one of them: their messages wait for each holder's openid.
func (m *Map) tellGone(ctx context.Context, appid string, openids ...string) {
	if m.watcher == nil {
		return
	}
	keys := make([]Key, len(openids))
	for i, openid := range openids {
		keys[i] = Key{KeyOpenID, appid, openid}
	}
	m.watcher.Changed(ctx, keys)
}

// tellUsers tells the watcher about mini-program users.
func (m *Map) tellUsers(ctx context.Context, users ...MiniUser) {
	if m.watcher == nil {
		return
	}
	var keys []Key
	for _, u := range users {
		if u.UnionID != "" {
			keys = append(keys, Key{KeyOpenID, u.AppID, ID(u.OpenID)},
				Key{KeyUnionID, u.AppID, ID(u.UnionID)})
		}
	}
	m.watcher.Changed(ctx, keys)
}

// UserKeys returns what a message may wait for that is to reach users of a mini program: their
// openids, and the unionids that the map has of them.
func (m *Map) UserKeys(ctx context.Context, appid string, openids []string) ([]Key, error) {
	const query = `
		SELECT openid, unionid
		  FROM mini_user
		 WHERE appid = ? AND openid IN (?) AND unionid <> ''`
	var known []pair
	if err := m.selectIn(ctx, &known, query, appid, openids); err != nil {
		return nil, fmt.Errorf("looking up mini-program users: %w", database.Explain(err))
	}
	keys := make([]Key, 0, len(openids)+len(known))
	for _, openid := range openids {
		keys = append(keys, Key{KeyOpenID, appid, ID(openid)})
	}
	for _, u := range known {
		keys = append(keys, Key{KeyUnionID, appid, ID(u.UnionID)})
	}
	return keys, nil
}

// Login is a mini-program user whom a program has stored, and when they used it last.
type Login struct {
	AppID   string    `db:"appid"`
	OpenID  string    `db:"openid"`
	UnionID string    `db:"unionid"` // "": not known
	SeenAt  time.Time `db:"seen_at"`
}

// Keys are what a message may wait for that is to reach this user.
func (l Login) Keys() []Key {
	keys := []Key{{KeyOpenID, l.AppID, ID(l.OpenID)}}
	if l.UnionID != "" {
		keys = append(keys, Key{KeyUnionID, l.AppID, ID(l.UnionID)})
	}
	return keys
}

// Logins returns up to limit users who were seen after the user last, and not later than until, in
// the order of (SeenAt, AppID, OpenID). Apps store them by SQL and call nobody: this is how their
// logins are noticed. A unionid that an app adds without a new seen_at is not.
func (m *Map) Logins(
	ctx context.Context, last Login, until time.Time, limit int,
) ([]Login, error) {
	// Three branches, as many users may share one moment: with OR each page would begin at the
	// first of them. They read the index alone; the unionids come by the primary key, for the page.
	const users = `(
		    SELECT seen_at, appid, openid
		      FROM mini_user FORCE INDEX (mini_user_seen)
		     WHERE seen_at `
	const order = ` ORDER BY seen_at, appid, openid LIMIT ?)`
	const page = users + `= ? AND appid = ? AND openid > ?` + order + `
		UNION ALL ` + users + `= ? AND appid > ?` + order + `
		UNION ALL ` + users + `> ? AND seen_at <= ?` + order + `
		ORDER BY seen_at, appid, openid
		LIMIT ?`
	const query = `
		SELECT p.seen_at, p.appid, p.openid, COALESCE(u.unionid, '') AS unionid
		  FROM (` + page + `) AS p
		  LEFT JOIN mini_user u FORCE INDEX (PRIMARY) ON u.appid = p.appid AND u.openid = p.openid
		 ORDER BY p.seen_at, p.appid, p.openid`
	from := since(last.SeenAt)
	var logins []Login
	err := m.db.SelectContext(ctx, &logins, query, from, last.AppID, last.OpenID, limit,
		from, last.AppID, limit, from, until.UTC(), limit, limit)
	if err != nil {
		return nil, fmt.Errorf("reading logins: %w", database.Explain(err))
	}
	return logins, nil
}
