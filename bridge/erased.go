package bridge

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
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

// Erasures erases people from the map, and remembers for 30 days who it was, so that nobody restores
// them by mistake. It keeps a keyed hash of the account and the openid, and one of the unionid, by
// which nobody can be named. It is safe for concurrent use.
type Erasures struct {
	db *sqlx.DB

	mu  sync.Mutex
	key []byte // nil: not read yet

	copied copied
}

// NewErasures returns the erasures in db.
func NewErasures(db *sqlx.DB) *Erasures { return &Erasures{db: db} }

// Remember notes an erasure in tx, where the person is erased. appid "" is of a unionid.
func (e *Erasures) Remember(ctx context.Context, tx *sqlx.Tx, appid, id string) error {
	key, err := e.load(ctx)
	if err != nil {
		return err
	}
	const remember = `
		INSERT INTO erased_person (hash) VALUES (?)
		ON DUPLICATE KEY UPDATE erased_at = CURRENT_TIMESTAMP(3)`
	if _, err = tx.ExecContext(ctx, remember, newHasher(key).text(Account{appid, id})); err != nil {
		return fmt.Errorf("remembering an erasure: %w", database.Explain(err))
	}
	return nil
}

// Expire forgets the erasures of more than 30 days ago, a piece at a time by pace.
func (e *Erasures) Expire(
	ctx context.Context, pace func(ctx context.Context, piece func() error) error,
) error {
	const maxExpired = 1000
	const query = `
		DELETE FROM erased_person
		 WHERE erased_at < CURRENT_TIMESTAMP(3) - INTERVAL ? DAY
		 LIMIT ?`
	for more := true; more; {
		err := pace(ctx, func() error {
			return database.Retry(ctx, func(ctx context.Context) error {
				n, err := database.ExecIn(ctx, e.db, query, erasureDays, maxExpired)
				more = n == maxExpired
				return err
			})
		})
		if err != nil {
			return fmt.Errorf("forgetting old erasures: %w", err)
		}
	}
	return nil
}

// Find returns those of the people at an account who were erased in the last 30 days, and have not
// come back: whoever is in the map again has logged in or followed since.
func (e *Erasures) Find(
	ctx context.Context, db sqlx.QueryerContext, appid string, openids []string,
) (map[string]bool, error) {
	accounts := make([]Account, len(openids))
	for i, openid := range openids {
		accounts[i] = Account{appid, openid}
	}
	found, err := e.find(ctx, db, accounts)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	erased := make(map[string]bool, len(found))
	for a := range found {
		erased[a.OpenID] = true
	}
	return erased, nil
}

// fewIDs are looked up in the table. More, as a sweep has, are compared with a copy of it.
const fewIDs = 20

// find returns when those of the accounts were erased that Find is about. All but unionids, whose
// AppID is "", are of one appid.
func (e *Erasures) find(
	ctx context.Context, db sqlx.QueryerContext, accounts []Account,
) (map[Account]time.Time, error) {
	if len(accounts) == 0 {
		return nil, nil
	}
	some, err := e.copied.refresh(ctx, db, len(accounts) > fewIDs)
	if err != nil || !some {
		return nil, err
	}
	key, err := e.load(ctx)
	if err != nil {
		return nil, err
	}
	hashes := newHasher(key)
	if len(accounts) > fewIDs {
		if erased, complete := e.copied.find(hashes, accounts); complete {
			return erased, returned(ctx, db, erased)
		}
	}
	erased, err := lookUp(ctx, db, hashes, accounts)
	if err != nil {
		return nil, err
	}
	return erased, returned(ctx, db, erased)
}

// maxHashes go into one query. MariaDB copies longer lists into a table, from which it reads them
// (in_predicate_conversion_threshold is 1,000).
const maxHashes = 500

type erasedRow struct {
	Hash string    `db:"hash"`
	At   time.Time `db:"erased_at"`
}

// lookUp returns when those of the accounts were erased whom the table has.
func lookUp(
	ctx context.Context, db sqlx.QueryerContext, hashes *hasher, accounts []Account,
) (map[Account]time.Time, error) {
	byHash := make(map[string]Account, len(accounts))
	for _, a := range accounts {
		byHash[hashes.text(a)] = a
	}
	const query = `
		SELECT hash, erased_at
		  FROM erased_person
		 WHERE hash IN (?) AND erased_at > CURRENT_TIMESTAMP(3) - INTERVAL ? DAY`
	erased := make(map[Account]time.Time)
	for part := range slices.Chunk(slices.Collect(maps.Keys(byHash)), maxHashes) {
		found, err := database.SelectIn[erasedRow](ctx, db, query, part, erasureDays)
		if err != nil {
			return nil, fmt.Errorf("reading erasures: %w", database.Explain(err))
		}
		for _, row := range found {
			erased[byHash[row.Hash]] = row.At
		}
	}
	return erased, nil
}

// returned takes those out of erased whom the map has again.
func returned(
	ctx context.Context, db sqlx.QueryerContext, erased map[Account]time.Time,
) error {
	ids := make(map[string][]string) // by appid
	for a := range erased {
		ids[a.AppID] = append(ids[a.AppID], a.OpenID)
	}
	const byOpenID = `
		SELECT openid FROM mini_user WHERE appid = ? AND openid IN (?)
		UNION ALL
		SELECT openid FROM follower WHERE appid = ? AND openid IN (?)`
	const byUnionID = `
		SELECT unionid FROM mini_user WHERE unionid IN (?)
		UNION ALL
		SELECT unionid FROM follower WHERE unionid IN (?)`
	for appid, some := range ids {
		for part := range slices.Chunk(some, database.MaxRanges) {
			query, args := byOpenID, []any{appid, part, appid, part}
			if appid == "" {
				query, args = byUnionID, []any{part, part}
			}
			back, err := database.SelectIn[string](ctx, db, query, args...)
			if err != nil {
				return fmt.Errorf("reading who has come back: %w", database.Explain(err))
			}
			for _, id := range back {
				delete(erased, Account{appid, ID(id)})
			}
		}
	}
	return nil
}

// digest is a keyed hash of an account or a unionid.
type digest [sha256.Size]byte

// hasher makes the keyed hashes of erased_person. It is for one goroutine.
type hasher struct {
	mac    hash.Hash
	buffer []byte
}

func newHasher(key []byte) *hasher { return &hasher{mac: hmac.New(sha256.New, key)} }

func (h *hasher) sum(a Account) (d digest) {
	h.buffer = append(append(append(h.buffer[:0], a.AppID...), 0), a.OpenID...)
	h.mac.Reset()
	_, _ = h.mac.Write(h.buffer) // a hash takes everything
	h.mac.Sum(d[:0])
	return d
}

// text is the hash as the table has it.
func (h *hasher) text(a Account) string {
	d := h.sum(a)
	return hex.EncodeToString(d[:])
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
