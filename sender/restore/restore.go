// Package restore makes a restored copy of a database an installation of its own. The copy has the
// open requests of the moment of its backup, which the live one has sent since, and would send them
// again.
package restore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
)

// ErrAlive means that an instance works on the database: it is no copy at rest.
var ErrAlive = errors.New("an instance works on this database")

const (
	// reason is send_request.reason of what is discarded, and the operator's words at a pause.
	reason = "restored"
	// words are what status shows of a paused account.
	words = reason + ": this database is a copy. Look at its open requests, then resume"
	// maxDiscard rows are cancelled in one statement.
	maxDiscard = 1000
	// idSize is that of installation.id.
	idSize = 12
)

// Options say what becomes of the open requests.
type Options struct {
	AppIDs  []string // the accounts of the configuration
	Discard bool     // cancel open requests; else all accounts are paused
}

// Result is what was done.
type Result struct {
	Installation string   // the new id
	Paused       []string // accounts
	Discarded    int64    // requests
}

// Check returns ErrAlive while anybody holds a lease.
func Check(ctx context.Context, db *sqlx.DB) error {
	held, err := database.HeldLeases(ctx, db)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		return fmt.Errorf("%w: %s holds %s", ErrAlive, held[0].Holder, held[0].Name)
	}
	return nil
}

// Run does it. It may be repeated: it pauses, or discards, before anything else changes, so that an
// interrupted run leaves nothing that a daemon would send.
func Run(ctx context.Context, db *sqlx.DB, o Options) (r Result, err error) {
	if err := Check(ctx, db); err != nil {
		return r, err
	}
	accounts, err := allAccounts(ctx, db, o.AppIDs)
	if err != nil {
		return r, err
	}
	if o.Discard {
		if r.Discarded, err = discard(ctx, db); err != nil {
			return r, err
		}
	} else {
		for _, appid := range accounts {
			if _, err := (requests.Store{DB: db}).Pause(ctx, requests.Pausable{AppID: appid}, words); err != nil {
				return r, err
			}
			r.Paused = append(r.Paused, appid)
		}
	}
	r.Installation, err = renew(ctx, db)
	return r, err
}

// allAccounts are the given ones, and those that an instance with another configuration has sent for.
func allAccounts(ctx context.Context, db *sqlx.DB, appids []string) ([]string, error) {
	var names []string
	prefix := queue.LeaseName("")
	err := db.SelectContext(ctx, &names, `SELECT name FROM lease WHERE name LIKE ?`, prefix+"%")
	if err != nil {
		return nil, fmt.Errorf("reading for which accounts was sent: %w", database.Explain(err))
	}
	all := slices.Clone(appids)
	for _, name := range names {
		all = append(all, strings.TrimPrefix(name, prefix))
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// renew gives the copy an id of its own, which is part of each client_msg_id, makes the tokens that
// applications have from the live one void here, and forgets its instances.
func renew(ctx context.Context, db *sqlx.DB) (id string, err error) {
	id = strings.ToLower(rand.Text()[:idSize])
	err = database.InTx(ctx, db, func(ctx context.Context, tx *sqlx.Tx) error {
		for _, statement := range []struct {
			query string
			args  []any
		}{
			{`UPDATE installation SET id = ?, created_at = CURRENT_TIMESTAMP(3) WHERE singleton = 1`, []any{id}},
			// erased_person is keyed by another one, and must still be found.
			{`DELETE FROM secret_key WHERE name = 'application_token'`, nil},
			{`UPDATE lease SET holder = '' WHERE holder <> ''`, nil},
			{`DELETE FROM instance`, nil},
		} {
			if _, err := tx.ExecContext(ctx, statement.query, statement.args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("renewing the installation: %w", database.Explain(err))
	}
	return id, nil
}

// discard cancels what is open. Rows whose outcome is not known stay: somebody may look at them.
func discard(ctx context.Context, db *sqlx.DB) (sum int64, err error) {
	const cancel = `
		UPDATE send_request
		   SET status = 'cancelled', reason = '` + reason + `', lease = NULL, uncertain_at = NULL,
		       finished_at = CURRENT_TIMESTAMP(3)
		 WHERE status = ?
		 LIMIT ?`
	for _, status := range []queue.Status{queue.Pending, queue.Waiting} {
		for n := int64(maxDiscard); n == maxDiscard; sum += n {
			if n, err = exec(ctx, db, cancel, status, maxDiscard); err != nil {
				return sum, err
			}
		}
	}
	for _, table := range []string{"send_wait", "send_attempt"} { // of requests that were open
		for n := int64(maxDiscard); n == maxDiscard; {
			query := `DELETE FROM ` + table + ` WHERE request_id IN (SELECT id FROM send_request
			           WHERE status = 'cancelled' AND reason = '` + reason + `') LIMIT ?`
			if n, err = exec(ctx, db, query, maxDiscard); err != nil {
				return sum, err
			}
		}
	}
	return sum, nil
}

func exec(ctx context.Context, db *sqlx.DB, query string, args ...any) (n int64, err error) {
	err = database.Retry(ctx, func(ctx context.Context) error {
		res, err := db.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("discarding open requests: %w", database.Explain(err))
	}
	return n, nil
}
