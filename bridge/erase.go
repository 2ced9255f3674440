package bridge

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// Account is one of a person's openids. Where it says so, AppID may be "": OpenID is a unionid then.
type Account struct {
	AppID  string `db:"appid"`
	OpenID string `db:"openid"`
}

// Erase removes a person from the map, in tx: the account that is named, and all that share a
// unionid with it, or have the given one; "" is none. It remembers each, notes in the table erasure
// that the rest of them is to be erased, and returns the accounts, so that the owners of other
// tables can begin with it. It may be repeated.
func (e *Erasures) Erase(
	ctx context.Context, tx *sqlx.Tx, who Account, unionid string,
) ([]Account, error) {
	unionids, err := unionIDsOf(ctx, tx, who, unionid)
	if err != nil {
		return nil, fmt.Errorf("looking for a person's unionid: %w", database.Explain(err))
	}
	accounts, err := accountsOf(ctx, tx, who, unionids)
	if err != nil {
		return nil, fmt.Errorf("looking for a person's accounts: %w", database.Explain(err))
	}
	for _, a := range accounts {
		for _, table := range []string{"mini_user", "follower", "follower_recheck"} {
			query := `DELETE FROM ` + table + ` WHERE appid = ? AND openid = ?`
			if _, err := tx.ExecContext(ctx, query, a.AppID, a.OpenID); err != nil {
				return nil, fmt.Errorf("erasing a person's %s: %w", table, database.Explain(err))
			}
		}
	}
	ids := slices.Clone(accounts)
	for _, u := range unionids {
		ids = append(ids, Account{OpenID: u})
	}
	const note = `
		INSERT INTO erasure (appid, value) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = VALUES(value)`
	for _, id := range ids {
		if err := e.Remember(ctx, tx, id.AppID, id.OpenID); err != nil {
			return nil, err
		}
		if _, err := tx.ExecContext(ctx, note, id.AppID, id.OpenID); err != nil {
			return nil, fmt.Errorf("noting an erasure: %w", database.Explain(err))
		}
	}
	return accounts, nil
}

// unionIDsOf returns the given unionid and what the map has for the account.
func unionIDsOf(
	ctx context.Context, tx *sqlx.Tx, who Account, unionid string,
) (unionids []string, err error) {
	const query = `
		SELECT unionid FROM mini_user WHERE appid = ? AND openid = ? AND unionid IS NOT NULL
		UNION
		SELECT unionid FROM follower WHERE appid = ? AND openid = ? AND unionid IS NOT NULL`
	var known []string
	err = tx.SelectContext(ctx, &known, query, who.AppID, who.OpenID, who.AppID, who.OpenID)
	for _, u := range append(known, unionid) {
		if u = ID(u); u != "" && !slices.Contains(unionids, u) {
			unionids = append(unionids, u)
		}
	}
	return unionids, err
}

func accountsOf(
	ctx context.Context, tx *sqlx.Tx, who Account, unionids []string,
) (accounts []Account, err error) {
	if who.OpenID != "" {
		accounts = append(accounts, who)
	}
	if len(unionids) == 0 {
		return accounts, nil
	}
	found, err := database.SelectIn[Account](ctx, tx, `
		SELECT appid, openid FROM mini_user WHERE unionid IN (?)
		UNION
		SELECT appid, openid FROM follower WHERE unionid IN (?)`, unionids, unionids)
	for _, a := range found {
		if a = (Account{ID(a.AppID), ID(a.OpenID)}); a != who {
			accounts = append(accounts, a)
		}
	}
	return accounts, err
}

// Erasure is an id that is being erased, of an account or a unionid.
type Erasure struct {
	Account
	Walked bool  `db:"walked"` // all requests have been looked at
	Age    int64 `db:"age"`    // milliseconds
}

// Open returns up to limit ids that are being erased, those first whose requests are not done.
func (e *Erasures) Open(ctx context.Context, limit int) ([]Erasure, error) {
	const query = `
		SELECT appid, value AS openid, walked,
		       TIMESTAMPDIFF(MICROSECOND, begun_at, CURRENT_TIMESTAMP(3)) DIV 1000 AS age
		  FROM erasure
		 ORDER BY walked, begun_at
		 LIMIT ?`
	var open []Erasure
	if err := e.db.SelectContext(ctx, &open, query, limit); err != nil {
		return nil, fmt.Errorf("reading who is being erased: %w", database.Explain(err))
	}
	return open, nil
}

// Walked notes that no request has the ids any more.
func (e *Erasures) Walked(ctx context.Context, ids []Erasure) error {
	return e.change(ctx, `UPDATE erasure SET walked = 1 WHERE appid = ? AND value = ?`, ids)
}

// Close ends an erasure: nothing has the ids any more, and now the table has not either.
func (e *Erasures) Close(ctx context.Context, ids []Erasure) error {
	return e.change(ctx, `DELETE FROM erasure WHERE appid = ? AND value = ?`, ids)
}

func (e *Erasures) change(ctx context.Context, query string, ids []Erasure) error {
	for _, id := range ids {
		err := database.Retry(ctx, func(ctx context.Context) error {
			_, err := e.db.ExecContext(ctx, query, id.AppID, id.OpenID)
			return err
		})
		if err != nil {
			return fmt.Errorf("noting how far an erasure is: %w", err)
		}
	}
	return nil
}

// unerased returns those of the answers about followers that may be stored. A person who was erased
// and has not followed since, by WeChat's own time, does not come back. One whose openid the map did
// not know when their unionid was erased is erased here, too.
func (m *Map) unerased(
	ctx context.Context, appid string, infos []wechat.UserInfo,
) ([]wechat.UserInfo, error) {
	ids := make([]Account, 0, 2*len(infos))
	for _, u := range infos {
		ids = append(ids, Account{appid, u.OpenID})
		if u.UnionID != "" {
			ids = append(ids, Account{OpenID: u.UnionID})
		}
	}
	erased, err := m.erasures.find(ctx, m.db, ids)
	if err != nil || len(erased) == 0 {
		return infos, err
	}
	kept := make([]wechat.UserInfo, 0, len(infos))
	for _, u := range infos {
		who := Account{appid, u.OpenID}
		at, known := erased[who]
		byUnionID, related := erased[Account{OpenID: u.UnionID}]
		switch {
		case !known && !related, time.Unix(u.SubscribeTime, 0).After(later(at, byUnionID)):
			kept = append(kept, u)
		case !known:
			err := database.InTx(ctx, m.db, func(ctx context.Context, tx *sqlx.Tx) error {
				_, err := m.erasures.Erase(ctx, tx, who, "")
				return err
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return kept, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// unerasedIDs returns those of the openids whose people have not been erased.
func (m *Map) unerasedIDs(ctx context.Context, appid string, openids []string) ([]string, error) {
	erased, err := m.erasures.Find(ctx, m.db, appid, openids)
	if err != nil || len(erased) == 0 {
		return openids, err
	}
	return slices.DeleteFunc(slices.Clone(openids), func(id string) bool { return erased[id] }), nil
}

// erasedSince reports whether a person was erased at that moment of WeChat's clock or later, and is
// not in the map again.
func (m *Map) erasedSince(
	ctx context.Context, who Account, at time.Time,
) (bool, error) {
	found, err := m.erasures.find(ctx, m.db, []Account{who})
	erasedAt, erased := found[who]
	return erased && !at.After(erasedAt), err
}

// RecordWithdrawal stores that a mini-program user no longer allows the account to know something
// of them. permission is WeChat's number of what it was.
func (m *Map) RecordWithdrawal(
	ctx context.Context, who Account, permission string, at time.Time,
) error {
	const query = `
		INSERT INTO withdrawn_permission (appid, openid, permission, withdrawn_at) VALUES (?, ?, ?, ?)
		ON DUPLICATE KEY UPDATE withdrawn_at = GREATEST(withdrawn_at, VALUES(withdrawn_at))`
	err := m.write(ctx, query, who.AppID, who.OpenID, permission, database.Storable(at))
	if err != nil {
		return fmt.Errorf("storing a withdrawn permission: %w", err)
	}
	return nil
}
