package intake

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"sync"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// keyName is secret_key.name of the key that makes dedup_keys: producers, who share the column, can
// neither guess nor read one.
const keyName = "door_dedup"

// keys reads the installation's key once.
type keys struct {
	db    *sqlx.DB
	mu    sync.Mutex
	value []byte
}

func (k *keys) secret(ctx context.Context) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.value != nil {
		return k.value, nil
	}
	value, err := database.SecretKey(ctx, k.db, keyName)
	if err == nil {
		k.value = value
	}
	return value, err
}

// What a hash is of; the same words hash differently for each.
const (
	ofKey     = "key"     // a message with a key of the application's
	ofNothing = "none"    // one without: nobody else has the same
	ofContent = "content" // what is compared within a duplicate_window
)

// hash is the HMAC of words, each with its length before it, in the characters of an URL.
func hash(secret []byte, words ...string) string {
	m := hmac.New(sha256.New, secret)
	var length [8]byte
	for _, word := range words {
		binary.BigEndian.PutUint64(length[:], uint64(len(word)))
		_, _ = m.Write(length[:]) // a hash takes everything
		_, _ = m.Write([]byte(word))
	}
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// identify sets what a repetition is recognised by. account is the first that may send it.
func (e *entry) identify(m *Message, account string, secret []byte) {
	a := e.session.Application
	to := []string{a.Name, account, m.OpenID, m.MiniAppID, m.MiniOpenID, m.UnionID}
	if m.Key != "" {
		e.keyed = true
		e.row.DedupKey = "door:" + hash(secret, append([]string{ofKey, m.Key}, to...)...)
		return
	}
	// Every row has one: it is read back by it, also where the answer to a COMMIT was lost.
	e.row.DedupKey = "door:" + hash(secret, ofNothing, rand.Text())
	if a.DuplicateWindow > 0 {
		e.window = a.DuplicateWindow
		content := []string{ofContent, m.Template, string(m.Data), m.URL, m.JumpAppID, m.MiniPath, m.Page,
			m.Lang, m.MiniState, m.Route, text(m.DueAt), text(m.ExpiresAt)}
		e.content = hash(secret, append(content, to...)...)
	}
}
