package database

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// secretKeySize is that of a key for HMAC-SHA-256.
const secretKeySize = 32

// SecretKey returns the random key of this database that is called name, at most 32 characters. The
// first that needs it makes it, and all others get the same.
func SecretKey(ctx context.Context, db *sqlx.DB, name string) ([]byte, error) {
	const store = `INSERT IGNORE INTO secret_key (name, value) VALUES (?, ?)`
	const read = `SELECT COALESCE(MAX(value), '') FROM secret_key WHERE name = ?`
	var text string
	err := Retry(ctx, func(ctx context.Context) error {
		err := db.GetContext(ctx, &text, read, name)
		if err != nil || text != "" {
			return err
		}
		fresh := make([]byte, secretKeySize)
		_, _ = rand.Read(fresh) // never fails
		if _, err := db.ExecContext(ctx, store, name, hex.EncodeToString(fresh)); err != nil {
			return err
		}
		return db.GetContext(ctx, &text, read, name)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", name, err)
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != secretKeySize {
		return nil, fmt.Errorf("secret_key has no usable key %s: delete that row, then the daemon "+
			"makes a new one", name)
	}
	return key, nil
}
