package bridge

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// MaxPeople is how many ids People takes.
const MaxPeople = 100

// Person is what some accounts know of somebody.
type Person struct {
	ID       string // as it was asked for
	UnionID  string // "": not known
	Accounts []PersonAccount
}

// PersonAccount is somebody at one account.
type PersonAccount struct {
	AppID      string `db:"appid"`
	OpenID     string `db:"openid"`
	UnionID    string `db:"unionid"`
	Mini       bool   `db:"mini"`       // a mini program's user; else somebody who follows or followed
	Subscribed bool   `db:"subscribed"` // follows the official account
}

const (
	peopleFollowers = `
		SELECT appid, openid, COALESCE(unionid, '') AS unionid, 0 AS mini, subscribed
		  FROM follower
		 WHERE appid IN (?) AND `
	peopleUsers = `
		SELECT appid, openid, COALESCE(unionid, '') AS unionid, 1 AS mini, 0 AS subscribed
		  FROM mini_user
		 WHERE appid IN (?) AND `
)

// People returns who is behind ids, each a unionid or an openid at one of the accounts, in the order of
// the ids; it leaves out those whom none of the accounts knows. Nothing that other accounts know is
// used or told: the openid of one of those is as unknown as one that does not exist.
func (m *Map) People(ctx context.Context, appids, ids []string) ([]Person, error) {
	if len(appids) == 0 || len(ids) == 0 {
		return nil, nil
	}
	if len(ids) > MaxPeople {
		return nil, fmt.Errorf("looking people up: %d ids, at most %d are taken", len(ids), MaxPeople)
	}
	byOpenID, err := m.peopleBy(ctx, "openid", appids, ids)
	if err != nil {
		return nil, err
	}
	unionIDs := append(make([]string, 0, 2*len(ids)), ids...)
	for _, a := range byOpenID {
		if a.UnionID != "" {
			unionIDs = append(unionIDs, a.UnionID)
		}
	}
	byUnionID, err := m.peopleBy(ctx, "unionid", appids, unionIDs)
	if err != nil {
		return nil, err
	}
	of := make(map[string][]PersonAccount)
	for _, a := range byUnionID {
		of[a.UnionID] = append(of[a.UnionID], a)
	}
	alone := make(map[string][]PersonAccount)
	for _, a := range byOpenID {
		alone[a.OpenID] = append(alone[a.OpenID], a)
	}
	var people []Person
	for _, id := range ids {
		p := Person{ID: id, UnionID: id, Accounts: of[id]}
		if len(p.Accounts) == 0 && len(alone[id]) > 0 {
			p.Accounts, p.UnionID = alone[id], alone[id][0].UnionID
			if p.UnionID != "" {
				p.Accounts = of[p.UnionID]
			}
		}
		if len(p.Accounts) > 0 {
			people = append(people, p)
		}
	}
	return people, nil
}

func (m *Map) peopleBy(
	ctx context.Context, column string, appids, ids []string,
) (all []PersonAccount, err error) {
	for _, query := range []string{peopleFollowers, peopleUsers} {
		for part := range slices.Chunk(ids, max(1, database.MaxRanges/len(appids))) {
			expanded, args, err := sqlx.In(query+column+` IN (?) ORDER BY appid, openid`, appids, part)
			if err != nil {
				return nil, err
			}
			var rows []PersonAccount
			if err := m.db.SelectContext(ctx, &rows, expanded, args...); err != nil {
				return nil, fmt.Errorf("looking people up: %w", database.Explain(err))
			}
			all = append(all, rows...)
		}
	}
	return all, nil
}
