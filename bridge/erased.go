package bridge

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

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
	fresh := make([]byte, sha256.Size)
	_, _ = rand.Read(fresh) // never fails
	const store = `INSERT IGNORE INTO secret_key (name, value) VALUES (?, ?)`
	const read = `SELECT value FROM secret_key WHERE name = ?`
	var text string
	err := database.Retry(ctx, func(ctx context.Context) error {
		if _, err := e.db.ExecContext(ctx, store, erasureKey, hex.EncodeToString(fresh)); err != nil {
			return err
		}
		return e.db.GetContext(ctx, &text, read, erasureKey)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the key of erasures: %w", err)
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != sha256.Size {
		return nil, errors.New("secret_key has no usable key erased_person: delete that row, then " +
			"the daemon makes a new one")
	}
	e.key = key
	return key, nil
}
