package bridge

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Recipient names a person in one of three ways; exactly one of them is set: UnionID, MiniAppID
// with MiniOpenID, or OpenID.
type Recipient struct {
	UnionID    string
	MiniAppID  string
	MiniOpenID string
	OpenID     string
	// OfficialAppID is the account that OpenID is of where it is not the one that is asked: the person
	// is then found by the unionid that they have there. "": of that one.
	OfficialAppID string
}

// foreign reports whether a recipient is named by their openid at another official account.
func (r Recipient) foreign(appid string) bool {
	return r.OpenID != "" && r.OfficialAppID != "" && r.OfficialAppID != appid
}

// ID is an id as a row holds it, by the program's one rule for all of them: blanks at its end say
// nothing, as in every comparison in SQL, and an empty one is not given, as NULL is.
func ID(column string) string { return strings.TrimRight(column, " ") }

// Reachability says what the map knows of a recipient at an official account.
type Reachability string

// The values of Reachability. Only Reachable and Blocked come with an openid.
const (
	Reachable    Reachability = "reachable"
	UnknownUser  Reachability = "unknown_user"  // nobody with this id is in the map
	NoUnionID    Reachability = "no_unionid"    // the mini-program user is known, not the unionid
	NotFollowing Reachability = "not_following" // does not follow the account (any more)
	InDoubt      Reachability = "in_doubt"      // the last message was refused: a recheck is open
	Ambiguous    Reachability = "ambiguous"     // two followers have this unionid: one is wrong
	Blocked      Reachability = "blocked"       // refuses the account's messages: see RecordBlock

	// Refused: the person has refused this message, and nothing has happened since that opens the
	// account to it again. The map does not know that; a channel does.
	Refused Reachability = "refused_by_user"
)

// Resolution is the answer for one Recipient.
type Resolution struct {
	Reachability Reachability
	OpenID       string // at the official account
	Unlisted     bool   // an openid that is not in the map: only WeChat knows whether it is right
	// FollowedAt is when a follower followed last, as WeChat says; zero: not known.
	FollowedAt time.Time
	// Awaits is what may change all that: what the map must learn about the recipient before a
	// message that cannot reach them is worth another try.
	Awaits []Key
}

// Resolve finds the openids that recipients have at the official account appid, in one or two
// queries for each 190 of them. The result has the same length and order. A recipient given by
// OpenID is Reachable unless they are in doubt or known as a former follower.
func (m *Map) Resolve(ctx context.Context, appid string, people []Recipient) ([]Resolution, error) {
	r := resolver{
		m: m, appid: appid, unionIDs: map[[2]string]string{},
		byUnionID: map[string]Resolution{}, byOpenID: map[string]Resolution{},
		holders: map[string][]string{},
	}
	if err := r.loadMiniUsers(ctx, people); err != nil {
		return nil, fmt.Errorf("resolving mini-program users: %w", database.Explain(err))
	}
	if err := r.loadUnionIDs(ctx, people); err != nil {
		return nil, fmt.Errorf("resolving unionids: %w", database.Explain(err))
	}
	if err := r.loadOpenIDs(ctx, people); err != nil {
		return nil, fmt.Errorf("resolving openids: %w", database.Explain(err))
	}
	out := make([]Resolution, len(people))
	for i, rec := range people {
		out[i] = r.resolve(rec)
	}
	return out, nil
}

type resolver struct {
	m         *Map
	appid     string
	unionIDs  map[[2]string]string // (mini appid, mini openid) → unionid, "": not known
	byUnionID map[string]Resolution
	byOpenID  map[string]Resolution
	holders   map[string][]string // unionid → its openids, where several subscribed ones have it
}

func (r *resolver) resolve(rec Recipient) (res Resolution) {
	unionid := rec.UnionID
	switch {
	case rec.OpenID != "":
		res, ok := r.byOpenID[rec.OpenID]
		if !ok {
			// The map may not have them yet. Sending shows whether the openid is right.
			res = Resolution{Reachability: Reachable, OpenID: rec.OpenID, Unlisted: true}
		}
		res.Awaits = []Key{{KeyOpenID, r.appid, rec.OpenID}}
		return res
	case rec.MiniOpenID != "":
		u, ok := r.unionIDs[[2]string{rec.MiniAppID, rec.MiniOpenID}]
		login := []Key{{KeyOpenID, rec.MiniAppID, rec.MiniOpenID}}
		if !ok {
			return Resolution{Reachability: UnknownUser, Awaits: login}
		}
		if u == "" {
			return Resolution{Reachability: NoUnionID, Awaits: login}
		}
		unionid = u
	}
	res, ok := r.byUnionID[unionid]
	if !ok {
		res = Resolution{Reachability: NotFollowing}
	}
	res.Awaits = []Key{{KeyUnionID, r.appid, unionid}}
	// The unionid may leave one of those who share it without being told to anybody.
	for _, holder := range r.holders[unionid] {
		res.Awaits = append(res.Awaits, Key{KeyOpenID, r.appid, holder})
	}
	return res
}

func (r *resolver) loadMiniUsers(ctx context.Context, recipients []Recipient) error {
	byApp := map[string][]string{}
	for _, rec := range recipients {
		if rec.OpenID == "" && rec.MiniOpenID != "" {
			byApp[rec.MiniAppID] = append(byApp[rec.MiniAppID], rec.MiniOpenID)
		}
	}
	for miniAppID, openids := range byApp {
		const query = `
			SELECT openid, COALESCE(unionid, '') AS unionid
			  FROM mini_user WHERE appid = ? AND openid IN (?)`
		var users []pair
		if err := r.m.selectIn(ctx, &users, query, miniAppID, openids); err != nil {
			return err
		}
		for _, u := range users {
			r.unionIDs[[2]string{miniAppID, ID(u.OpenID)}] = ID(u.UnionID)
		}
	}
	return nil
}

// reachRow is a follower and what limits sending to them.
type reachRow struct {
	OpenID     string         `db:"openid"`
	UnionID    sql.NullString `db:"unionid"`
	Subscribed bool           `db:"subscribed"`
	InDoubt    bool           `db:"in_doubt"`
	Blocked    bool           `db:"blocked"`
	FollowedAt sql.NullTime   `db:"subscribe_time"`
}

func (s reachRow) resolution() Resolution {
	switch {
	case s.InDoubt:
		return Resolution{Reachability: InDoubt}
	case !s.Subscribed:
		return Resolution{Reachability: NotFollowing}
	case s.Blocked:
		return Resolution{Reachability: Blocked, OpenID: s.OpenID}
	}
	return Resolution{Reachability: Reachable, OpenID: s.OpenID, FollowedAt: s.FollowedAt.Time}
}

const reachColumns = `
		SELECT f.openid, f.unionid, f.subscribed, f.subscribe_time, d.openid IS NOT NULL AS in_doubt,
		       COALESCE(f.blocked_until > CURRENT_TIMESTAMP(3), 0) AS blocked
		  FROM follower f
		  LEFT JOIN follower_recheck d ON d.appid = f.appid AND d.openid = f.openid
		       AND d.reason IN ('send_refused', 'send_invalid')`

func (r *resolver) loadUnionIDs(ctx context.Context, recipients []Recipient) error {
	var unionids []string
	for _, rec := range recipients {
		if rec.OpenID == "" && rec.UnionID != "" {
			unionids = append(unionids, rec.UnionID)
		}
	}
	for _, u := range r.unionIDs {
		if u != "" {
			unionids = append(unionids, u)
		}
	}
	rows, err := r.load(ctx, ` WHERE f.appid = ? AND f.unionid IN (?) AND f.subscribed = 1`, unionids)
	openids := make(map[string]string, len(rows)) // of the first one with a unionid
	for _, row := range rows {
		res, unionid := row.resolution(), row.UnionID.String
		if first, twice := openids[unionid]; twice {
			res = Resolution{Reachability: Ambiguous}
			if r.holders[unionid] == nil {
				r.holders[unionid] = []string{first}
			}
			r.holders[unionid] = append(r.holders[unionid], row.OpenID)
		}
		openids[unionid], r.byUnionID[unionid] = row.OpenID, res
	}
	return err
}

func (r *resolver) loadOpenIDs(ctx context.Context, recipients []Recipient) error {
	var openids []string
	for _, rec := range recipients {
		if rec.OpenID != "" {
			openids = append(openids, rec.OpenID)
		}
	}
	rows, err := r.load(ctx, ` WHERE f.appid = ? AND f.openid IN (?)`, openids)
	for _, row := range rows {
		r.byOpenID[row.OpenID] = row.resolution()
	}
	return err
}

func (r *resolver) load(ctx context.Context, where string, ids []string) ([]reachRow, error) {
	slices.Sort(ids)
	var all []reachRow
	for part := range slices.Chunk(slices.Compact(ids), database.MaxRanges) {
		var rows []reachRow
		if err := r.m.selectIn(ctx, &rows, reachColumns+where, r.appid, part); err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	return all, nil
}

// Lookup returns what is known of the person behind id, which may be a unionid or an openid at any
// account: one Identity for each pair of their accounts. Nobody: an empty slice and no error.
func (m *Map) Lookup(ctx context.Context, id string) ([]Identity, error) {
	id = ID(id)
	if id == "" || strings.ContainsFunc(id, func(r rune) bool { return r > unicode.MaxASCII }) {
		return nil, nil // ids are ASCII, and servers compare an ascii column with nothing else
	}
	// First every unionid that the id stands for, then v_identity by it. People without a unionid
	// are found by their openid alone. Each branch is a dive into one index.
	const unionids = `
		SELECT unionid FROM follower WHERE unionid = ?
		UNION
		SELECT unionid FROM mini_user WHERE unionid = ?
		UNION
		SELECT unionid FROM follower WHERE unionid <> '' AND appid IN (?) AND openid = ?
		UNION
		SELECT unionid FROM mini_user WHERE unionid <> '' AND appid IN (?) AND openid = ?`
	oas, minis, err := m.appids(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking %q up: %w", id, database.Explain(err))
	}
	var found []string
	if err := m.selectIn(ctx, &found, unionids, id, id, oas, id, minis, id); err != nil {
		return nil, fmt.Errorf("looking %q up: %w", id, database.Explain(err))
	}
	identities := []Identity{}
	if len(found) > 0 {
		err = m.selectIn(ctx, &identities, identitiesByUnionID, found)
	} else {
		err = m.selectIn(ctx, &identities, identitiesByOpenID, oas, id, minis, id)
	}
	if err != nil {
		return nil, fmt.Errorf("looking %q up: %w", id, database.Explain(err))
	}
	return identities, nil
}

// A side that is not known is NULL in the view, and empty here. TiDB unites NULL with an ascii
// column, and refuses to unite an empty text with one (1271).
const (
	identityColumns = `
		SELECT COALESCE(unionid, '') AS unionid,
		       COALESCE(oa_appid, '') AS oa_appid, COALESCE(oa_openid, '') AS oa_openid,
		       COALESCE(subscribed, 0) AS subscribed,
		       COALESCE(mini_appid, '') AS mini_appid, COALESCE(mini_openid, '') AS mini_openid`
	identitiesByUnionID = identityColumns + `
		  FROM v_identity v
		 WHERE unionid IN (?)
		 ORDER BY v.unionid, v.oa_appid, v.mini_appid`
	identitiesByOpenID = identityColumns + `
		  FROM (SELECT unionid, appid AS oa_appid, openid AS oa_openid, subscribed,
		               NULL AS mini_appid, NULL AS mini_openid
		          FROM follower WHERE appid IN (?) AND openid = ?
		        UNION ALL
		        SELECT unionid, NULL, NULL, 0, appid, openid
		          FROM mini_user WHERE appid IN (?) AND openid = ?) v`
)

// appids returns the accounts that occur in the map, so that an openid alone is found by the
// primary keys, which begin with the appid. Both lists have at least one, possibly empty, element
// for IN.
func (m *Map) appids(ctx context.Context) (oas, minis []string, err error) {
	if err := m.db.SelectContext(ctx, &oas, `SELECT DISTINCT appid FROM follower`); err != nil {
		return nil, nil, err
	}
	if err := m.db.SelectContext(ctx, &minis, `SELECT DISTINCT appid FROM mini_user`); err != nil {
		return nil, nil, err
	}
	return append(oas, ""), append(minis, ""), nil
}
