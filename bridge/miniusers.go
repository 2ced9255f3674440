package bridge

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// MiniUser is one mini-program user, as files carry them in and out.
type MiniUser struct {
	AppID   string    `db:"appid"`   // the mini program
	OpenID  string    `db:"openid"`  // theirs there
	UnionID string    `db:"unionid"` // "": not known
	SeenAt  time.Time `db:"seen_at"` // when they last used the mini program; zero: not known
}

// Contradiction is a user of an import whose unionid is not the one that the map knows.
type Contradiction struct {
	Index int    // in the slice that was imported
	Known string // the map's unionid, or that of an earlier user in the slice with the same openid
}

// ImportMaxUsers is the most that one ImportMiniUsers takes: what a statement holds, see maxUpsert.
const ImportMaxUsers = maxUpsert

// ImportMiniUsers stores up to ImportMaxUsers users. An empty unionid never wipes a known one, and
// SeenAt never moves back. A new user without SeenAt counts as seen now. Repeating an import
// changes nothing more.
//
// A unionid that differs from the known one is written only if overwrite is set. Otherwise the
// known one stays and the user is returned as a contradiction. A concurrent write of another
// program is respected too, but not reported.
//
// Users who were erased are left out, unless SeenAt is later than that.
func (m *Map) ImportMiniUsers(
	ctx context.Context, users []MiniUser, overwrite bool,
) ([]Contradiction, error) {
	if len(users) > ImportMaxUsers {
		return nil, fmt.Errorf("importing %d mini-program users at once: at most %d",
			len(users), ImportMaxUsers)
	}
	var contradictions []Contradiction
	erased, err := m.erasedUsers(ctx, users)
	if err != nil {
		return nil, err
	}
	if !overwrite {
		if contradictions, err = m.contradictions(ctx, users); err != nil {
			return nil, fmt.Errorf("reading known mini-program users: %w", database.Explain(err))
		}
	}
	// Two statements: an INSERT without seen_at takes the column's default, and leaves a known one
	// alone.
	var seen, unseen []MiniUser
	for _, u := range users {
		if at, gone := erased[Account{u.AppID, u.OpenID}]; gone && !u.SeenAt.After(at) {
			continue
		}
		if u.SeenAt.IsZero() {
			unseen = append(unseen, u)
		} else {
			seen = append(seen, u)
		}
	}
	for _, part := range [][]MiniUser{seen, unseen} {
		if err := m.upsertMiniUsers(ctx, part, overwrite); err != nil {
			return nil, fmt.Errorf("storing %d mini-program users: %w", len(part), err)
		}
	}
	m.tellUsers(ctx, users...)
	return contradictions, nil
}

// erasedUsers returns when users were erased, of those who were and are not in the map again.
func (m *Map) erasedUsers(
	ctx context.Context, users []MiniUser,
) (map[Account]time.Time, error) {
	byApp := make(map[string][]Account)
	for _, u := range users {
		byApp[u.AppID] = append(byApp[u.AppID], Account{u.AppID, u.OpenID})
	}
	erased := make(map[Account]time.Time)
	for _, accounts := range byApp {
		found, err := m.erasures.find(ctx, m.db, accounts)
		if err != nil {
			return nil, err
		}
		maps.Copy(erased, found)
	}
	return erased, nil
}

// UpsertMiniUser stores a mini-program user and, where it is known, their unionid. An empty unionid
// never wipes a known one. It is for what a person does, such as a login: somebody who was erased
// is in the map again, so the caller leaves out what is late.
func (m *Map) UpsertMiniUser(ctx context.Context, appid, openid, unionid string) error {
	const query = `
		INSERT INTO mini_user (appid, openid, unionid) VALUES (?, ?, ?)
		ON DUPLICATE KEY UPDATE
		    unionid = COALESCE(VALUES(unionid), unionid),
		    seen_at = CURRENT_TIMESTAMP(3)`
	if err := m.write(ctx, query, appid, openid, database.Null(unionid)); err != nil {
		return fmt.Errorf("storing a mini-program user: %w", err)
	}
	m.tellUsers(ctx, MiniUser{AppID: appid, OpenID: openid, UnionID: unionid})
	return nil
}

// upsertMiniUsers stores users who all have SeenAt, or all have not.
func (m *Map) upsertMiniUsers(ctx context.Context, users []MiniUser, overwrite bool) error {
	if len(users) == 0 {
		return nil
	}
	withSeen := !users[0].SeenAt.IsZero()
	columns, row := `appid, openid, unionid`, `(?, ?, ?)`
	update := `unionid = COALESCE(NULLIF(unionid, ''), VALUES(unionid))`
	if overwrite {
		update = `unionid = COALESCE(VALUES(unionid), unionid)`
	}
	if withSeen {
		columns, row = columns+`, seen_at`, `(?, ?, ?, ?)`
		update += `, seen_at = GREATEST(seen_at, VALUES(seen_at))`
	}
	args := make([]any, 0, 4*len(users))
	for _, u := range users {
		args = append(args, u.AppID, u.OpenID, database.Null(u.UnionID))
		if withSeen {
			args = append(args, u.SeenAt.UTC())
		}
	}
	query := `INSERT INTO mini_user (` + columns + `) VALUES ` + repeat(row, len(users)) +
		` ON DUPLICATE KEY UPDATE ` + update
	return m.write(ctx, query, args...)
}

func (m *Map) contradictions(ctx context.Context, users []MiniUser) ([]Contradiction, error) {
	byApp := map[string][]string{}
	for _, u := range users {
		if u.UnionID != "" {
			byApp[u.AppID] = append(byApp[u.AppID], u.OpenID)
		}
	}
	known := make(map[[2]string]string, len(users))
	for appid, openids := range byApp {
		if err := m.knownUnionIDs(ctx, appid, openids, known); err != nil {
			return nil, err
		}
	}
	var found []Contradiction
	for i, u := range users {
		if u.UnionID == "" {
			continue
		}
		key := [2]string{u.AppID, u.OpenID}
		if unionid, ok := known[key]; !ok {
			known[key] = u.UnionID
		} else if unionid != u.UnionID {
			found = append(found, Contradiction{Index: i, Known: unionid})
		}
	}
	return found, nil
}

// knownUnionIDs adds what the map has to known, which maps (appid, openid) to unionid.
func (m *Map) knownUnionIDs(
	ctx context.Context, appid string, openids []string, known map[[2]string]string,
) error {
	const query = `
		SELECT openid, unionid
		  FROM mini_user
		 WHERE appid = ? AND openid IN (?) AND unionid <> ''`
	var rows []pair
	if err := m.selectIn(ctx, &rows, query, appid, openids); err != nil {
		return err
	}
	for _, r := range rows {
		known[[2]string{appid, ID(r.OpenID)}] = ID(r.UnionID)
	}
	return nil
}

const exportPage = 5000

// ExportMiniUsers calls each with the users of one mini program, or of all where appid is "",
// ordered by (appid, openid). It holds one page in memory and no transaction: users who appear
// meanwhile may be missing. An error of each ends it and is returned as it is.
func (m *Map) ExportMiniUsers(ctx context.Context, appid string, each func(MiniUser) error) error {
	appids := []string{appid}
	if appid == "" {
		appids = nil
		// A loose scan of the primary key: one dive a mini program.
		const query = `SELECT appid FROM mini_user GROUP BY appid ORDER BY appid`
		if err := m.db.SelectContext(ctx, &appids, query); err != nil {
			return fmt.Errorf("reading which mini programs have users: %w", database.Explain(err))
		}
	}
	for _, appid := range appids {
		for after := ""; ; {
			page, err := m.miniUsers(ctx, appid, after)
			if err != nil {
				return fmt.Errorf("reading mini-program users: %w", database.Explain(err))
			}
			for _, u := range page {
				if err := each(u); err != nil {
					return err
				}
			}
			if len(page) < exportPage {
				break
			}
			after = page[len(page)-1].OpenID
		}
	}
	return nil
}

func (m *Map) miniUsers(ctx context.Context, appid, after string) ([]MiniUser, error) {
	const query = `
		SELECT appid, openid, COALESCE(unionid, '') AS unionid, seen_at
		  FROM mini_user
		 WHERE appid = ? AND openid > ?
		 ORDER BY openid
		 LIMIT ?`
	page := make([]MiniUser, 0, exportPage)
	err := m.db.SelectContext(ctx, &page, query, appid, after, exportPage)
	return page, err
}

// IsUser reports whether a mini program's user is known.
func (m *Map) IsUser(ctx context.Context, appid, openid string) (bool, error) {
	return m.has(ctx, `SELECT COUNT(*) FROM mini_user WHERE appid = ? AND openid = ?`, appid, openid)
}

// IsFollower reports whether somebody follows an official account, or has done so.
func (m *Map) IsFollower(ctx context.Context, appid, openid string) (bool, error) {
	return m.has(ctx, `SELECT COUNT(*) FROM follower WHERE appid = ? AND openid = ?`, appid, openid)
}

func (m *Map) has(ctx context.Context, query, appid, openid string) (bool, error) {
	var n int
	if err := m.db.GetContext(ctx, &n, query, appid, openid); err != nil {
		return false, fmt.Errorf("looking an openid up: %w", database.Explain(err))
	}
	return n > 0, nil
}

// HasUnionIDs reports whether a user of a mini program has a unionid, so that each ought to: it is bound
// to an Open Platform account. It looks at those with the first openids, which are anybody.
func (m *Map) HasUnionIDs(ctx context.Context, appid string) (bool, error) {
	const query = `
		SELECT COUNT(unionid)
		  FROM (SELECT unionid FROM mini_user WHERE appid = ? ORDER BY appid, openid LIMIT 50) some`
	var n int
	if err := m.db.GetContext(ctx, &n, query, appid); err != nil {
		return false, fmt.Errorf("looking whether users have unionids: %w", database.Explain(err))
	}
	return n > 0, nil
}
