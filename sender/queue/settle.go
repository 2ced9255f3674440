package queue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// MaxSettle results go into one statement.
const MaxSettle = 800

// Result is what one claim of a row came to.
type Result struct {
	ID     int64
	Token  string // of the claim
	Status Status
	Note
	Refund         bool          // no attempt was made: it is not counted
	Delay          time.Duration // pending: until the next attempt; waiting: until the wait ends
	InDoubt        bool          // the attempt may have delivered the message
	EarlierInDoubt bool          // an earlier attempt may have
	MsgID          int64
	OpenID         string // whom it was sent to, or may have been
	Channel        string // written where the message was sent
	Waits          *Waits // waiting: what may release it; a pointer, as results are compared
	Move           *Move  // nil: the row stays in its account's queue, and waits for nothing else
	// With is the caller's, for the Hook; a pointer, or nil.
	With any
	// ClaimedAt is when the row was claimed; zero: the caller does not know.
	ClaimedAt time.Time
}

// Note is what a row says about its state; zero values: nothing.
type Note struct {
	Reason  string
	ErrCode int
	ErrMsg  string
	Warning string // what was changed of the message, or is doubtful about it
}

// End is a result without an attempt.
func (r Request) End(s Status, reason, message string) Result {
	return Result{
		ID: r.ID, Token: r.Token, Status: s, Note: Note{Reason: reason, ErrMsg: message},
		Refund: true, EarlierInDoubt: r.InDoubtFor.Valid,
	}
}

// Release gives a row back as if it had not been claimed, due again at once.
func (r Request) Release() Result { return r.End(Pending, "", "") }

// Final is the status that is written: what may have been delivered is never called failed or
// expired, as its producer would send it again.
func (r Result) Final() Status {
	if r.EarlierInDoubt && (r.Status == Failed || r.Status == Expired) {
		return Unknown
	}
	return r.Status
}

// Posted reports whether a POST was made that counts for the day's budget, or may.
func (r Result) Posted() bool { return r.Status == Sent || r.InDoubt }

// Settled is what became of a batch.
type Settled struct {
	Written   []Result
	Locked    []Result // rows that somebody else's transaction holds: to be tried again
	Overtaken int64    // rows that another claimer has taken since
	Refused   []Result // results that the server does not store, because of what is in them
	Cause     error    // why it refused the last of those
}

func (s Settled) and(t Settled) Settled {
	return Settled{
		Written: append(s.Written, t.Written...), Locked: append(s.Locked, t.Locked...),
		Overtaken: s.Overtaken + t.Overtaken,
		Refused:   append(s.Refused, t.Refused...), Cause: cmp.Or(t.Cause, s.Cause),
	}
}

// Settle writes results. What is returned with an error has been written nevertheless.
//
// What rows wait for is written in the transaction that makes them wait.
func (q *Queue) Settle(
	ctx context.Context, batch []Result, o SettleOrder,
) (done Settled, err error) {
	var simple, waiting, moved, others []Result
	for _, r := range batch {
		switch {
		case r.Move != nil:
			moved = append(moved, r)
		case r.isSimpleSent() && (len(simple) == 0 || r.Channel == simple[0].Channel):
			simple = append(simple, r)
		case r.Status == Waiting:
			waiting = append(waiting, r)
		default:
			others = append(others, r)
		}
	}
	parts := []settling{
		{part: simple, sql: simpleSentSQL}, {part: waiting, sql: settleSQL},
		{part: moved, sql: moveSQL},
		{part: others, sql: settleSQL},
	}
	for _, p := range parts {
		var part Settled
		p.hook, p.appid = o.Hook, o.AppID
		part, err = q.settlePart(ctx, p, o.SkipLocked)
		if done = done.and(part); err != nil {
			break
		}
	}
	return done, err
}

// settling is results of a batch that one kind of statement writes.
type settling struct {
	part  []Result
	sql   func(appid string, batch []Result) (query string, args []any)
	hook  Hook
	appid string
}

// statement writes those of the results that are of the ids.
func (s settling) statement(ids []int64) (string, []any) {
	return s.sql(s.appid, slices.DeleteFunc(slices.Clone(s.part), func(r Result) bool {
		_, found := slices.BinarySearch(ids, r.ID)
		return !found
	}))
}

// await stores what the rows wait for that have been made to wait.
func (s settling) await(ctx context.Context, tx *sqlx.Tx, ids []int64) error {
	const query = `
		SELECT id FROM send_request FORCE INDEX (PRIMARY) WHERE id IN (?) AND status = 'waiting'`
	waiting, err := database.SelectIn[int64](ctx, tx, query, ids)
	if err != nil {
		return fmt.Errorf("reading back who waits: %w", err)
	}
	return addWaits(ctx, tx, waiting, func(id int64) Waits {
		i := slices.IndexFunc(s.part, func(r Result) bool { return r.ID == id })
		if s.part[i].Waits == nil {
			return nil
		}
		return *s.part[i].Waits
	})
}

// settlePart writes results by one kind of statement.
func (q *Queue) settlePart(
	ctx context.Context, s settling, skipLocked bool,
) (done Settled, err error) {
	part := s.part
	if len(part) == 0 {
		return Settled{}, nil
	}
	// The statement locks its rows in the order in which it names them.
	slices.SortFunc(part, func(a, b Result) int { return cmp.Compare(a.ID, b.ID) })
	c := change{do: s.statement}
	if part[0].Status == Waiting || part[0].Move != nil {
		c.then = s.await
	}
	u, err := q.settleHooked(ctx, s, c, skipLocked)
	for _, r := range part {
		switch {
		case slices.Contains(u.refused, r.ID):
			done.Refused = append(done.Refused, r)
		case slices.Contains(u.locked, r.ID):
			done.Locked = append(done.Locked, r)
		case err == nil || slices.Contains(u.tried, r.ID):
			done.Written = append(done.Written, r)
		}
	}
	done.Overtaken, done.Cause = int64(len(done.Written))-u.n, u.cause
	return done, err
}

// ended returns the rows whose way is over: what a release kept of what they waited for goes.
func ended(taken []Settling) (ids []int64) {
	for _, s := range taken {
		if final := s.Final(); final != Pending && final != Waiting {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// isSimpleSent reports whether a result is the usual one, for which a shorter statement does: with
// others of its channel.
func (r Result) isSimpleSent() bool {
	return r.Status == Sent && r.Note == (Note{}) && r.MsgID != 0 && r.OpenID != ""
}

// simpleSentSQL is settleSQL for messages that an account sent, without anything to be said about them.
// The server reads a third of the text, which is a tenth of a message's cost there.
func simpleSentSQL(appid string, batch []Result) (query string, args []any) {
	args = make([]any, 0, len(batch)*3+2)
	for _, r := range batch {
		args = append(args, r.ID, r.MsgID, r.OpenID)
	}
	const first, next = `SELECT ? AS id, ? AS msgid, ? AS openid`, ` UNION ALL SELECT ?, ?, ?`
	return `
		UPDATE (` + first + strings.Repeat(next, len(batch)-1) + `) s
		  STRAIGHT_JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = s.id
		   SET r.status       = 'sent',
		       r.reason       = NULL,
		       r.errcode      = NULL,
		       r.errmsg       = NULL,
		       r.finished_at  = CURRENT_TIMESTAMP(3),
		       r.msgid        = s.msgid,
		       r.sent_openid  = s.openid,
		       r.channel      = ?,
		       r.appid        = ?,
		       r.lease        = NULL
		 WHERE r.status IN ('pending', 'waiting', 'unknown')`, append(args, batch[0].Channel, appid)
}

// settleSQL writes a result only where the row still carries the claim's token; but that a message
// was sent is true whoever has claimed its row since, in whichever account's queue it stands by now.
// It becomes the sender's: receipts name the account.
func settleSQL(appid string, batch []Result) (query string, args []any) {
	args = make([]any, 0, len(batch)*13+2)
	for _, r := range batch {
		channel := r.Channel
		if r.Status != Sent {
			channel = ""
		}
		args = append(args, r.ID, r.Token, r.Final(),
			database.Null(r.Reason), database.Null(r.ErrCode), database.Null(clip(r.ErrMsg)),
			r.Refund, r.Delay.Microseconds(), r.InDoubt,
			database.Null(r.MsgID), database.Null(r.OpenID), database.Null(channel),
			database.Null(clip(r.Warning)))
	}
	// A derived table instead of CASE chains: the statement grows with the rows, not with their
	// square. It leads the join, so that no row is locked, or waited for, but those of the batch.
	// TiDB folds the table of one row into constants, whose collation it does not convert.
	const first = `SELECT ? AS id, ? AS token, ? AS status, ? AS reason, ? AS errcode, ? AS errmsg,
		             ? AS refund, ? AS delay, ? AS uncertain, ? AS msgid, ? AS openid, ? AS channel,
		             ? AS warning`
	const next = ` UNION ALL SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?`
	return `
		UPDATE (` + first + strings.Repeat(next, len(batch)-1) + `) s
		  STRAIGHT_JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = s.id
		   SET r.uncertain_at = CASE WHEN s.uncertain = 1 THEN COALESCE(r.uncertain_at, r.attempted_at)
		                             ELSE r.uncertain_at END,
		       r.status       = s.status,
		       r.reason       = s.reason,
		       r.errcode      = s.errcode,
		       r.errmsg       = s.errmsg,
		       r.warning      = CASE WHEN r.warning LIKE '` + SQLSentAgain + `%'
		                               OR r.warning LIKE '` + SQLSentWithdrawn + `%' THEN r.warning
		                             ELSE COALESCE(s.warning, r.warning) END,
		       r.attempts     = r.attempts - s.refund,
		       r.due_at       = CASE WHEN s.status NOT IN ('pending', 'waiting') THEN r.due_at
		                             WHEN r.expires_at < CURRENT_TIMESTAMP(3) + INTERVAL s.delay MICROSECOND
		                             THEN r.expires_at
		                             ELSE LEAST(CURRENT_TIMESTAMP(3) + INTERVAL s.delay MICROSECOND,
		                                        ` + database.SQLLastMoment + `) END,
		       r.finished_at  = CASE WHEN s.status IN ('pending', 'waiting') THEN NULL
		                             ELSE CURRENT_TIMESTAMP(3) END,
		       r.msgid        = s.msgid,
		       r.sent_openid  = COALESCE(CONVERT(s.openid USING ascii), r.sent_openid),
		       r.channel      = s.channel,
		       r.appid        = CASE WHEN s.status = 'sent' THEN ? ELSE r.appid END,
		       r.lease        = NULL
		 WHERE (r.status = 'pending' AND r.lease = CONVERT(s.token USING ascii) AND r.appid = ?)
		    OR (s.status = 'sent' AND r.status IN ('pending', 'waiting', 'unknown'))`,
		append(args, appid, appid)
}

// ScopeSettle is account_state.scope of an account whose outcomes cannot be stored.
const ScopeSettle = "settle"

// NoteUnsettled lets account_state say since when outcomes of an account cannot be stored, and why;
// "": they can.
func (q *Queue) NoteUnsettled(ctx context.Context, appid, why string) error {
	const remove = `DELETE FROM account_state WHERE appid = ? AND scope = ?`
	const add = `
		INSERT INTO account_state (appid, scope, reason, errmsg) VALUES (?, ?, 'unsettled', ?)
		ON DUPLICATE KEY UPDATE errmsg = VALUES(errmsg)`
	query, args := remove, []any{appid, ScopeSettle}
	if why != "" {
		query, args = add, append(args, clip(why))
	}
	return database.Retry(ctx, func(ctx context.Context) error {
		_, err := q.db.ExecContext(ctx, query, args...)
		return err
	})
}

// clip shortens a text to what its column takes.
func clip(s string) string {
	const maxRunes = 1000
	if r := []rune(s); len(r) > maxRunes {
		return string(r[:maxRunes]) + "…"
	}
	return s
}
