package queue

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Where WeChat drops no second message, a claim says too little about whether one was sent: the
// table send_attempt says it. The token of such a claim begins with attemptsMark, so that a row says
// itself by what its doubt goes, whoever looks at it.
const attemptsMark = "-"

// SQLInDoubt is the condition that a row of send_request may have been sent without anybody knowing:
// by an earlier attempt, or by the one that holds it.
const SQLInDoubt = `(uncertain_at IS NOT NULL OR lease IS NOT NULL
		          AND (lease NOT LIKE '` + attemptsMark + `%' OR EXISTS (
		              SELECT 1 FROM send_attempt a WHERE a.request_id = send_request.id)))`

// Posting is a claimed row that is about to be posted.
type Posting struct {
	ID    int64
	Token string // of the claim
}

// Held is such a row, under lock.
type Held struct {
	ID        int64     `db:"id"`
	ClaimedAt time.Time `db:"attempted_at"`
}

const (
	// postMargin is how far off the end of a claim must be when an attempt is written down.
	postMargin = 5 * time.Second
	// postTimeout bounds the transaction that does it: no claim may come between the look at the row
	// and its end.
	postTimeout = 4 * time.Second
)

// BeforePost runs fn in a transaction that holds the rows which may still be posted, with those: their
// claim is valid, and they are not withdrawn. Rows that somebody else's transaction holds are
// left out. After an error nothing may be posted, although fn may have been committed.
func (q *Queue) BeforePost(
	ctx context.Context, postings []Posting,
	fn func(ctx context.Context, tx *sqlx.Tx, rows []Held) error,
) error {
	const query = `
		SELECT id, attempted_at
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id IN (?) AND lease IN (?) AND status = 'pending' AND cancel = 0
		   AND due_at > CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND
		   FOR UPDATE`
	ids, tokens := make([]int64, len(postings)), make([]string, len(postings))
	for i, p := range postings {
		ids[i], tokens[i] = p.ID, p.Token
	}
	slices.Sort(ids)
	slices.Sort(tokens)
	lock := database.Lock{
		Query: query, Args: []any{slices.Compact(tokens), postMargin.Microseconds()},
		Server: q.server,
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), postTimeout)
	defer cancel()
	err := database.InTx(ctx, q.db, func(ctx context.Context, tx *sqlx.Tx) error {
		held, err := database.LockIn[Held](ctx, tx, lock, ids)
		if err != nil {
			return err
		}
		return fn(ctx, tx, held)
	})
	if err != nil {
		return fmt.Errorf("writing down %d attempts: %w", len(postings), err)
	}
	return nil
}

// attempted marks the rows whose last attempt nobody has settled. It comes after the claim: who
// wrote an attempt down held the row, so nothing can be added any more.
func (q *Queue) attempted(ctx context.Context, rows []Request) error {
	// Mostly there are but a few between the rows, which costs less than one look for each of them.
	const most = `SELECT request_id FROM send_attempt WHERE request_id BETWEEN ? AND ? LIMIT ?`
	const query = `SELECT request_id FROM send_attempt WHERE request_id IN (?)`
	if len(rows) == 0 {
		return nil
	}
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	found, err := find[int64](ctx, q, lookup{"reading attempts", most}, slices.Min(ids),
		slices.Max(ids), PageSize)
	if err == nil && len(found) == PageSize {
		found, err = find[int64](ctx, q, lookup{"reading attempts", query}, ids)
	}
	if err != nil {
		return err
	}
	slices.Sort(found)
	for i := range rows {
		_, rows[i].Attempted = slices.BinarySearch(found, rows[i].ID)
	}
	return nil
}

// Doubt ends the attempts of claimed rows that are to be repeated: from now on the rows themselves
// say that they may have been sent. It returns the rows that it could do that with.
func (q *Queue) Doubt(ctx context.Context, postings []Posting) (done []int64, err error) {
	const mark = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET uncertain_at = COALESCE(uncertain_at, attempted_at)
		 WHERE id IN (?)`
	err = q.BeforePost(ctx, postings, func(
		ctx context.Context, tx *sqlx.Tx, rows []Held,
	) error {
		done = nil
		for _, r := range rows {
			done = append(done, r.ID)
		}
		if len(done) == 0 {
			return nil
		}
		if _, err := database.ExecIn(ctx, tx, mark, done); err != nil {
			return err
		}
		return EndAttempts(ctx, tx, done)
	})
	return done, err
}

// EndAttempts deletes the attempts of rows, in the transaction that holds them and decides about
// their doubt.
func EndAttempts(ctx context.Context, tx *sqlx.Tx, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	const query = `DELETE FROM send_attempt WHERE request_id IN (?)`
	if _, err := database.ExecIn(ctx, tx, query, ids); err != nil {
		return fmt.Errorf("ending attempts: %w", err)
	}
	return nil
}

// Abandoned returns up to limit claimed rows of an account with an attempt that nobody has settled,
// after the id last, with their token. At a takeover nobody will: whoever made them is gone.
func (q *Queue) Abandoned(
	ctx context.Context, appid string, last int64, limit int,
) ([]Request, error) {
	const query = `
		SELECT r.id, r.template, r.lease AS token
		  FROM send_attempt a FORCE INDEX (send_attempt_grant)
		  JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = a.request_id
		 WHERE a.appid = ? AND a.request_id > ? AND r.status = 'pending' AND r.lease IS NOT NULL
		 ORDER BY a.request_id
		 LIMIT ?`
	type row struct {
		ID       int64  `db:"id"`
		Template string `db:"template"`
		Token    string `db:"token"`
	}
	found, err := find[row](ctx, q, lookup{"reading attempts that were left", query}, appid, last, limit)
	rows := make([]Request, len(found))
	for i, r := range found {
		rows[i] = Request{ID: r.ID, Token: r.Token, Attempted: true,
			Message: Message{Template: r.Template}}
	}
	return rows, err
}
