package bridge

import (
	"context"
	"fmt"
	"slices"

	"github.com/unionbridge/unionbridge/internal/database"
)

// ResolveMini finds the openids that recipients have in the mini program appid, in at most three
// queries for each 190 of them. The result has the same length and order. OpenID is one of this
// mini program; so is MiniOpenID where MiniAppID is appid. A user of another mini program is found
// by the unionid.
func (m *Map) ResolveMini(
	ctx context.Context, appid string, people []Recipient,
) ([]Resolution, error) {
	r := miniResolver{m: m, appid: appid, unionIDs: make(map[[2]string]string),
		byUnionID: make(map[string]Resolution), followers: make(map[[2]string]string)}
	for _, load := range []func(context.Context, []Recipient) error{
		r.loadUnionIDs, r.loadFollowers, r.loadUsers,
	} {
		if err := load(ctx, people); err != nil {
			return nil, fmt.Errorf("resolving mini-program users: %w", database.Explain(err))
		}
	}
	out := make([]Resolution, len(people))
	for i, rec := range people {
		out[i] = r.resolve(rec)
	}
	return out, nil
}

type miniResolver struct {
	m         *Map
	appid     string
	unionIDs  map[[2]string]string // (mini appid, mini openid) of others → unionid, "": not known
	followers map[[2]string]string // (official appid, openid) → unionid; absent: not known
	byUnionID map[string]Resolution
}

// openID is the recipient's openid in this mini program, as the row names it; "": it does not.
func (r *miniResolver) openID(rec Recipient) string {
	switch {
	case rec.OpenID != "" && !rec.foreign(r.appid):
		return rec.OpenID
	case rec.MiniAppID == r.appid:
		return rec.MiniOpenID
	}
	return ""
}

func (r *miniResolver) resolve(rec Recipient) Resolution {
	if openid := r.openID(rec); openid != "" {
		// The map may not have them yet. Sending shows whether the openid is right (40003): nobody waits
		// for the map to know it.
		return Resolution{Reachability: Reachable, OpenID: openid,
			Awaits: []Key{{KeyOpenID, r.appid, openid}}}
	}
	unionid := rec.UnionID
	if rec.foreign(r.appid) {
		unionid = r.followers[[2]string{rec.OfficialAppID, rec.OpenID}]
		if unionid == "" {
			return Resolution{Reachability: NoUnionID,
				Awaits: []Key{{KeyOpenID, rec.OfficialAppID, rec.OpenID}}}
		}
	}
	if rec.MiniOpenID != "" {
		unionid = r.unionIDs[[2]string{rec.MiniAppID, rec.MiniOpenID}]
		if unionid == "" {
			res := Resolution{Reachability: UnknownUser,
				Awaits: []Key{{KeyOpenID, rec.MiniAppID, rec.MiniOpenID}}}
			if _, known := r.unionIDs[[2]string{rec.MiniAppID, rec.MiniOpenID}]; known {
				res.Reachability = NoUnionID
			}
			return res
		}
	}
	res, ok := r.byUnionID[unionid]
	if !ok {
		res.Reachability = UnknownUser
	}
	res.Awaits = []Key{{KeyUnionID, r.appid, unionid}}
	return res
}

// loadUnionIDs reads the unionids of the users of other mini programs.
func (r *miniResolver) loadUnionIDs(ctx context.Context, people []Recipient) error {
	byApp := make(map[string][]string)
	for _, rec := range people {
		if rec.MiniOpenID != "" && r.openID(rec) == "" {
			byApp[rec.MiniAppID] = append(byApp[rec.MiniAppID], rec.MiniOpenID)
		}
	}
	const query = `
		SELECT openid, COALESCE(unionid, '') AS unionid
		  FROM mini_user WHERE appid = ? AND openid IN (?)`
	for appid, openids := range byApp {
		var users []pair
		if err := r.m.selectIn(ctx, &users, query, appid, openids); err != nil {
			return err
		}
		for _, u := range users {
			r.unionIDs[[2]string{appid, ID(u.OpenID)}] = ID(u.UnionID)
		}
	}
	return nil
}

// loadFollowers reads the unionids of people who are named by their openid at an official account.
func (r *miniResolver) loadFollowers(ctx context.Context, people []Recipient) error {
	byApp := make(map[string][]string)
	for _, rec := range people {
		if rec.foreign(r.appid) {
			byApp[rec.OfficialAppID] = append(byApp[rec.OfficialAppID], rec.OpenID)
		}
	}
	const query = `
		SELECT openid, unionid
		  FROM follower WHERE appid = ? AND openid IN (?) AND unionid IS NOT NULL`
	for appid, openids := range byApp {
		var found []pair
		if err := r.m.selectIn(ctx, &found, query, appid, openids); err != nil {
			return err
		}
		for _, f := range found {
			r.followers[[2]string{appid, f.OpenID}] = ID(f.UnionID)
		}
	}
	return nil
}

// loadUsers reads the users of this mini program whom a unionid names.
func (r *miniResolver) loadUsers(ctx context.Context, people []Recipient) error {
	var unionids []string
	for _, rec := range people {
		if rec.UnionID != "" && r.openID(rec) == "" {
			unionids = append(unionids, rec.UnionID)
		}
	}
	for _, known := range []map[[2]string]string{r.unionIDs, r.followers} {
		for _, unionid := range known {
			if unionid != "" {
				unionids = append(unionids, unionid)
			}
		}
	}
	const query = `
		SELECT openid, unionid
		  FROM mini_user FORCE INDEX (mini_user_unionid) WHERE unionid IN (?) AND appid = ?`
	slices.Sort(unionids)
	for part := range slices.Chunk(slices.Compact(unionids), database.MaxRanges) {
		var users []pair
		if err := r.m.selectIn(ctx, &users, query, part, r.appid); err != nil {
			return err
		}
		for _, u := range users {
			res := Resolution{Reachability: Reachable, OpenID: ID(u.OpenID)}
			if _, twice := r.byUnionID[ID(u.UnionID)]; twice {
				res = Resolution{Reachability: Ambiguous}
			}
			r.byUnionID[ID(u.UnionID)] = res
		}
	}
	return nil
}
