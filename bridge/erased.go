package bridge

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// erasureKey is secret_key.name of the key of the hashes in erased_person.
const erasureKey = "erased_person"

// erasureDays is how long an erasure is remembered: longer than anything about the person that was
// on its way then, such as a push, a list of followers or a message.
const erasureDays = 30

// Erasures remembers for 30 days who was erased, so that nobody restores them by mistake. It keeps
// a keyed hash of the account and the openid, by which nobody can be named. It is safe for
// concurrent use.
type Erasures struct {
	db *sqlx.DB

	mu  sync.Mutex
	key []byte // nil: not read yet
}

// NewErasures returns the erasures in db.
func NewErasures(db *sqlx.DB) *Erasures { return &Erasures{db: db} }

// Remember notes an erasure in tx, where the person is erased, and forgets those of long ago.
func (e *Erasures) Remember(ctx context.Context, tx *sqlx.Tx, appid, openid string) error {
	key, err := e.load(ctx)
	if err != nil {
		return err
	}
	const forget = `
		DELETE FROM erased_person WHERE erased_at < CURRENT_TIMESTAMP(3) - INTERVAL ? DAY LIMIT 1000`
	const remember = `
		INSERT INTO erased_person (hash) VALUES (?)
		ON DUPLICATE KEY UPDATE erased_at = CURRENT_TIMESTAMP(3)`
	if _, err = tx.ExecContext(ctx, forget, erasureDays); err == nil {
		_, err = tx.ExecContext(ctx, remember, erasureHash(key, appid, openid))
	}
	if err != nil {
		return fmt.Errorf("remembering an erasure: %w", database.Explain(err))
	}
	return nil
}

// Find returns those of the people at an account who were erased in the last 30 days.
func (e *Erasures) Find(
	ctx context.Context, db sqlx.QueryerContext, appid string, openids []string,
) (map[string]bool, error) {
	if len(openids) == 0 {
		return nil, nil
	}
	key, err := e.load(ctx)
	if err != nil {
		return nil, err
	}
	people := make(map[string]string, len(openids)) // by hash
	hashes := make([]string, 0, len(openids))
	for _, openid := range openids {
		hash := erasureHash(key, appid, openid)
		if _, twice := people[hash]; !twice {
			people[hash], hashes = openid, append(hashes, hash)
		}
	}
	found, err := database.SelectIn[string](ctx, db, `
		SELECT hash
		  FROM erased_person
		 WHERE hash IN (?) AND erased_at > CURRENT_TIMESTAMP(3) - INTERVAL ? DAY`, hashes, erasureDays)
	if err != nil {
		return nil, fmt.Errorf("reading erasures: %w", database.Explain(err))
	}
	erased := make(map[string]bool, len(found))
	for _, hash := range found {
		erased[people[hash]] = true
	}
	return erased, nil
}

func erasureHash(key []byte, appid, openid string) string {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(appid + "\x00" + openid)) // a hash takes everything
	return hex.EncodeToString(mac.Sum(nil))
}

// load returns the installation's key, which the first that needs it makes.
func (e *Erasures) load(ctx context.Context) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.key != nil {
		return e.key, nil
	}
	var err error
	e.key, err = database.SecretKey(ctx, e.db, erasureKey)
	return e.key, err
}

// Account is one of a person's openids.
type Account struct {
	AppID  string `db:"appid"`
	OpenID string `db:"openid"`
}

// Erase removes a person from the map, in tx: the account that is named, and all that share its
// unionid; "" is looked up. It remembers each, and returns them, so that the owners of other tables
// can erase the same people.
func (e *Erasures) Erase(
	ctx context.Context, tx *sqlx.Tx, who Account, unionid string,
) ([]Account, error) {
	accounts, err := accountsOf(ctx, tx, who, unionid)
	if err != nil {
		return nil, fmt.Errorf("looking for a person's accounts: %w", database.Explain(err))
	}
	for _, a := range accounts {
		if err := e.Remember(ctx, tx, a.AppID, a.OpenID); err != nil {
			return nil, err
		}
		for _, table := range []string{"mini_user", "follower", "follower_recheck"} {
			query := `DELETE FROM ` + table + ` WHERE appid = ? AND openid = ?`
			if _, err := tx.ExecContext(ctx, query, a.AppID, a.OpenID); err != nil {
				return nil, fmt.Errorf("erasing a person's %s: %w", table, database.Explain(err))
			}
		}
	}
	return accounts, nil
}

func accountsOf(
	ctx context.Context, tx *sqlx.Tx, who Account, unionid string,
) ([]Account, error) {
	if unionid == "" {
		const query = `
			SELECT COALESCE(MAX(unionid), '') FROM mini_user WHERE appid = ? AND openid = ?`
		if err := tx.GetContext(ctx, &unionid, query, who.AppID, who.OpenID); err != nil {
			return nil, err
		}
	}
	var accounts []Account
	if who.OpenID != "" {
		accounts = append(accounts, who)
	}
	if unionid = ID(unionid); unionid == "" {
		return accounts, nil
	}
	const query = `
		SELECT appid, openid FROM mini_user WHERE unionid = ?
		UNION
		SELECT appid, openid FROM follower WHERE unionid = ?`
	var found []Account
	err := tx.SelectContext(ctx, &found, query, unionid, unionid)
	for _, a := range found {
		if a != who {
			accounts = append(accounts, a)
		}
	}
	return accounts, err
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
