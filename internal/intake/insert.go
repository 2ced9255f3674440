package intake

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/database"
)

// attempt is one attempt to write entries. Its locks are taken in the order of the tables
// door_duplicate, send_request, door_echo and application_usage, the first by its key.
type attempt struct {
	in  *Intake
	all []*entry
	// careful: keys are looked for before anything is inserted. Nearly always they are new, and the
	// unique key says where they are not.
	careful bool
	first   map[string]*entry // of those that are the same, by dedup_key or content
	fresh   []*entry          // to be inserted
	// committing: nothing is left to do but the COMMIT.
	committing atomic.Bool
}

// run writes the entries. It returns at the end of ctx, though a COMMIT knows no context, and waits
// as long as the connection does.
func (t *attempt) run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() {
		if t.alone() {
			ended <- t.insertAlone(ctx)
		} else {
			ended <- t.transact(ctx)
		}
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(commitGrace):
		return context.Cause(ctx)
	}
}

// commitGrace is what a statement takes to notice the end of its context.
const commitGrace = 100 * time.Millisecond

// alone reports whether one INSERT does it: nothing is counted, and nothing compared.
func (t *attempt) alone() bool {
	return !t.careful && !slices.ContainsFunc(t.all, func(e *entry) bool {
		return e.content != "" || e.reservation.Counted() || e.keyed && t.in.cfg.Archive || e.echo()
	})
}

// insertAlone inserts without a transaction, which would cost two answers of the server more.
func (t *attempt) insertAlone(ctx context.Context) error {
	err := database.Retry(ctx, func(ctx context.Context) error {
		t.reset()
		t.committing.Store(true)
		err := t.insert(ctx, t.in.cfg.DB)
		if database.IsAnswer(err) {
			t.committing.Store(false)
		}
		return err
	})
	if err != nil {
		return err
	}
	return t.readIDs(ctx, t.in.cfg.DB)
}

func (t *attempt) transact(ctx context.Context) error {
	return database.InTx(ctx, t.in.cfg.DB, func(ctx context.Context, tx *sqlx.Tx) error {
		t.reset()
		if err := t.findKeys(ctx, tx); err != nil {
			return err
		}
		if err := t.holdContent(ctx, tx); err != nil {
			return err
		}
		if err := t.insert(ctx, tx); err != nil {
			return err
		}
		if err := t.readIDs(ctx, tx); err != nil {
			return err
		}
		if err := t.keepContent(ctx, tx); err != nil {
			return err
		}
		if err := t.askEcho(ctx, tx); err != nil {
			return err
		}
		if err := t.spend(ctx, tx); err != nil {
			return err
		}
		t.committing.Store(true)
		return nil
	})
}

// reset takes of entries that are the same the first one alone.
func (t *attempt) reset() {
	t.committing.Store(false)
	t.first, t.fresh = make(map[string]*entry, len(t.all)), t.fresh[:0]
	for _, e := range t.all {
		e.result = Result{}
		if t.first[e.same()] == nil {
			t.first[e.same()] = e
			t.fresh = append(t.fresh, e)
		}
	}
}

// same names what repetitions of a message have in common.
func (e *entry) same() string {
	if e.content != "" {
		return e.content
	}
	return e.row.DedupKey
}

// finish gives repetitions within the group the first one's result, and back what was not spent.
func (t *attempt) finish() {
	for _, e := range t.all {
		if first := t.first[e.same()]; first != e {
			t.in.compare(e, first.row)
			e.result = Result{ID: first.result.ID, Repeated: true}
		}
		if e.result.Repeated {
			t.in.cfg.Registry.Cancel(e.reservation)
		}
	}
}

// stored is a row that has an entry's dedup_key.
type stored struct {
	ID int64 `db:"id"`
	row
}

// findKeys finds the messages that were accepted before, by their keys: as long as the row is kept.
func (t *attempt) findKeys(ctx context.Context, db sqlx.QueryerContext) error {
	byKey := make(map[string]*entry)
	for _, e := range t.fresh {
		if e.keyed {
			byKey[e.row.DedupKey] = e
		}
	}
	var tables []string
	if t.careful {
		tables = append(tables, "send_request")
	}
	if t.in.cfg.Archive {
		tables = append(tables, "send_request_archive")
	}
	for _, table := range tables {
		if len(byKey) == 0 {
			break
		}
		rows, err := database.SelectIn[stored](ctx, db, `
			SELECT id, dedup_key, template, data, COALESCE(application, '') AS application
			  FROM `+table+`
			 WHERE dedup_key IN (?)`, keysOf(byKey))
		if err != nil {
			return fmt.Errorf("looking for repetitions: %w", err)
		}
		for _, r := range rows {
			e := byKey[r.DedupKey]
			if e == nil || r.Application != e.row.Application {
				continue // never: the key is a hash of the application too
			}
			t.in.compare(e, r.row)
			e.result = Result{ID: r.ID, Repeated: true}
			delete(byKey, r.DedupKey)
		}
	}
	t.drop()
	return nil
}

func keysOf(byKey map[string]*entry) []string {
	keys := make([]string, 0, len(byKey))
	for key := range byKey {
		keys = append(keys, key)
	}
	return keys
}

// drop takes those out of the fresh ones that turned out to be repetitions.
func (t *attempt) drop() {
	kept := t.fresh[:0]
	for _, e := range t.fresh {
		if !e.result.Repeated {
			kept = append(kept, e)
		}
	}
	t.fresh = kept
}

// compare tells the log where an application used a key for another message: it is not sent.
func (in *Intake) compare(e *entry, was row) {
	var a, b any
	if was.Data != e.row.Data && (json.Unmarshal([]byte(was.Data), &a) != nil ||
		json.Unmarshal([]byte(e.row.Data), &b) != nil || !reflect.DeepEqual(a, b)) ||
		was.Template != e.row.Template {
		in.cfg.Logger.Warn("an application used the key of one message for another, which is not sent",
			"application", e.row.Application, "template", e.row.Template)
	}
}

// insert inserts the fresh entries. It names the columns alone that one of them has: most have few, and
// the server reads every value.
func (t *attempt) insert(ctx context.Context, db sqlx.ExecerContext) error {
	if len(t.fresh) == 0 {
		return nil
	}
	var names, marks []string
	var used []column
	for _, c := range columns() {
		if slices.ContainsFunc(t.fresh, func(e *entry) bool { return c.value(&e.row) != nil }) {
			names, marks, used = append(names, c.name), append(marks, cmp.Or(c.mark, "?")), append(used, c)
		}
	}
	args := make([]any, 0, len(used)*len(t.fresh))
	for _, e := range t.fresh {
		for _, c := range used {
			args = append(args, c.value(&e.row))
		}
	}
	values := "(" + strings.Join(marks, ", ") + ")"
	query := `INSERT INTO send_request (` + strings.Join(names, ", ") + `) VALUES ` + values +
		strings.Repeat(`, `+values, len(t.fresh)-1)
	if _, err := db.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("inserting messages: %w", err)
	}
	return nil
}

// readIDs reads the ids of the fresh entries, by their keys: servers of a cluster count in steps of
// their own. It is an error if one is missing.
func (t *attempt) readIDs(ctx context.Context, db sqlx.QueryerContext) error {
	if len(t.fresh) == 0 {
		return nil
	}
	byKey := make(map[string]*entry, len(t.fresh))
	for _, e := range t.fresh {
		byKey[e.row.DedupKey] = e
	}
	rows, err := database.SelectIn[stored](ctx, db,
		`SELECT id, dedup_key FROM send_request WHERE dedup_key IN (?)`, keysOf(byKey))
	if err != nil {
		return fmt.Errorf("reading ids: %w", err)
	}
	for _, r := range rows {
		if e := byKey[r.DedupKey]; e != nil {
			e.result = Result{ID: r.ID}
			delete(byKey, r.DedupKey)
		}
	}
	if len(byKey) > 0 {
		return fmt.Errorf("reading ids: %d of %d rows are missing", len(byKey), len(t.fresh))
	}
	return nil
}

// echo reports whether the application wants to be told what becomes of its messages.
func (e *entry) echo() bool { return e.session.Application.Echo }

// askEcho writes down who wants to be told, for package echo.
func (t *attempt) askEcho(ctx context.Context, tx *sqlx.Tx) error {
	var args []any
	for _, e := range t.fresh {
		if e.echo() {
			args = append(args, e.result.ID, e.row.Application)
		}
	}
	if len(args) == 0 {
		return nil
	}
	query := `INSERT INTO door_echo (request_id, application) VALUES (?, ?)` +
		strings.Repeat(`, (?, ?)`, len(args)/2-1)
	if _, err := tx.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("writing down who is to be told: %w", err)
	}
	return nil
}

// spend counts what is inserted. It comes last, see [applications.Registry.Spend].
func (t *attempt) spend(ctx context.Context, tx *sqlx.Tx) error {
	reservations := make([]applications.Reservation, len(t.fresh))
	for i, e := range t.fresh {
		reservations[i] = e.reservation
	}
	return t.in.cfg.Registry.Spend(ctx, tx, reservations...)
}
