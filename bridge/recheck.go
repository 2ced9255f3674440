package bridge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// RecheckReason says why a person must be looked up again: follower_recheck.reason.
type RecheckReason string

// The reasons. The first four come from reading, the send ones from a refused message: nothing is
// sent to a person under one of those until WeChat has answered. RecheckFollowed, the announcement
// of a follow, holds no message back.
const (
	RecheckNoUnionID     RecheckReason = "no_unionid"     // others have one, this answer had none
	RecheckNotSubscribed RecheckReason = "not_subscribed" // listed, but user/info said subscribe: 0
	RecheckUnknownOpenID RecheckReason = "unknown_openid" // listed, but user/info said 40003
	RecheckUnionIDTwice  RecheckReason = "unionid_twice"  // two followers of an account have it
	RecheckSendRefused   RecheckReason = "send_refused"   // template/send said 43004: no follower
	RecheckSendInvalid   RecheckReason = "send_invalid"   // template/send said 40003: no openid
	RecheckFollowed      RecheckReason = "followed"       // WeChat announced a follow
)

// FollowDelay is how long the first question waits after a follow: WeChat's own answer is wrong for
// a moment then.
const FollowDelay = time.Second

// Recheck is one person about whom WeChat must be asked, as it was read. DueAt and InfoAt are the
// fence of SettleRecheck: every newer fact about the person changes one of them.
type Recheck struct {
	OpenID   string        `db:"openid"`
	Reason   RecheckReason `db:"reason"`
	Attempts int           `db:"attempts"` // answers so far that settled nothing
	DueAt    time.Time     `db:"due_at"`
	InfoAt   sql.NullTime  `db:"info_at"` // of the follower; NULL also if there is no row
	WaitMS   int64         `db:"wait_ms"` // until it is due; 0 or less: now
}

// Due chooses rechecks.
type Due struct {
	Reason RecheckReason // "": any
	Within time.Duration // from now on; 0: due now
	Limit  int
}

// DueRechecks returns the rechecks of an account that are due, the earliest first.
func (m *Map) DueRechecks(ctx context.Context, appid string, d Due) ([]Recheck, error) {
	const query = `
		SELECT r.openid, r.reason, r.attempts, r.due_at, f.info_at,
		       CEIL(TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), r.due_at) / 1000) AS wait_ms
		  FROM follower_recheck r
		  LEFT JOIN follower f ON f.appid = r.appid AND f.openid = r.openid
		 WHERE r.appid = ? AND r.due_at <= CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		   AND (? = '' OR r.reason = ?)
		 ORDER BY r.due_at
		 LIMIT ?`
	var due []Recheck
	args := []any{appid, int64(d.Within / time.Second), d.Reason, d.Reason, d.Limit}
	if err := m.db.SelectContext(ctx, &due, query, args...); err != nil {
		return nil, fmt.Errorf("reading due rechecks: %w", database.Explain(err))
	}
	return due, nil
}

// RequestRecheck has people looked up at once. Somebody who waits for the same reason
// keeps their turn, and a new reason restarts the recheck. Two exceptions:
//
//   - An announced follow is checked within seconds anyway, so reading does not replace it with a
//     reason that waits for the next refresh. The check finds the reason if it still applies.
//   - A refused message is newer than an answer that is under way, so it moves a due recheck.
func (m *Map) RequestRecheck(
	ctx context.Context, appid string, openids []string, reason RecheckReason,
) error {
	openids, err := m.unerasedIDs(ctx, appid, openids)
	if err != nil || len(openids) == 0 {
		return err
	}
	keep, keepTurn := `reason IN (VALUES(reason), 'followed')`, ``
	if reason == RecheckSendRefused || reason == RecheckSendInvalid {
		keep, keepTurn = `reason = VALUES(reason)`, ` AND due_at > CURRENT_TIMESTAMP(3)`
	}
	args := make([]any, 0, len(openids)*3)
	for _, id := range openids {
		args = append(args, appid, id, reason)
	}
	// reason comes last: the assignments before it compare with the old one.
	query := `INSERT INTO follower_recheck (appid, openid, reason) VALUES ` +
		repeat(`(?, ?, ?)`, len(openids)) + `
		ON DUPLICATE KEY UPDATE
		    due_at   = CASE WHEN ` + keep + keepTurn + ` THEN due_at ELSE CURRENT_TIMESTAMP(3) END,
		    attempts = CASE WHEN ` + keep + ` THEN attempts ELSE 0 END,
		    reason   = CASE WHEN ` + keep + ` THEN reason ELSE VALUES(reason) END`
	if err := m.write(ctx, query, args...); err != nil {
		return fmt.Errorf("requesting %d rechecks: %w", len(openids), err)
	}
	return nil
}

// Settlement is what an answer about a person means. The zero value ends the recheck and changes
// nothing else.
type Settlement struct {
	Store *wechat.UserInfo // the answer about a follower, for the map
	Gone  bool             // the person does not follow

	Next     RecheckReason // "": settled; else why WeChat is asked again,
	Attempts int           // after this many answers that settled nothing,
	Wait     time.Duration // and when
}

// SettleRecheck writes an answer about a person, unless anything newer than r is known: an event, a
// refused message, another answer. Those leave a recheck of their own where one is needed. It
// returns the number of followers it wrote, 0 or 1.
func (m *Map) SettleRecheck(
	ctx context.Context, appid string, r Recheck, s Settlement,
) (wrote int64, err error) {
	if s.Store != nil {
		kept, err := m.unerased(ctx, appid, []wechat.UserInfo{*s.Store})
		if err != nil {
			return 0, err
		}
		if len(kept) == 0 {
			s = Settlement{}
		}
	}
	st := statement{appid, since(r.InfoAt.Time)}
	err = database.InTx(ctx, m.db, func(ctx context.Context, tx *sqlx.Tx) error {
		wrote = 0
		// The recheck comes first: its row is locked then until the answer is in the map, and an
		// event, which begins with it too, comes wholly before or wholly after.
		held, err := s.end(ctx, tx, appid, r)
		if err != nil || !held {
			return err
		}
		switch {
		case s.Store != nil:
			wrote = 1
			return st.upsert(ctx, tx, []wechat.UserInfo{*s.Store})
		case s.Gone:
			wrote, err = st.markGone(ctx, tx, []string{r.OpenID})
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("settling a recheck: %w", err)
	}
	switch {
	case wrote > 0 && s.Store != nil:
		m.tell(ctx, appid, changesOf([]wechat.UserInfo{*s.Store}))
	case wrote > 0:
		m.tellGone(ctx, appid, r.OpenID)
	}
	return wrote, nil
}

// end ends or moves a recheck, and reports whether it was still the one that was read.
func (s Settlement) end(ctx context.Context, tx *sqlx.Tx, appid string, r Recheck) (bool, error) {
	const settled = `DELETE FROM follower_recheck`
	const moved = `
		UPDATE follower_recheck
		   SET reason = ?, attempts = ?, due_at = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND`
	const fence = ` WHERE appid = ? AND openid = ? AND reason = ? AND due_at = ?`
	query, args := settled, []any{}
	if s.Next != "" {
		query, args = moved, []any{s.Next, s.Attempts, int64(s.Wait / time.Second)}
	}
	args = append(args, appid, r.OpenID, r.Reason, r.DueAt)
	res, err := tx.ExecContext(ctx, query+fence, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// NoteFollow stores WeChat's announcement that a person follows since the given time of WeChat's
// clock: it requests a recheck and ends their block. An event that the map knows already, or knows
// to be outdated, changes nothing; so events may come repeatedly and in any order.
func (m *Map) NoteFollow(ctx context.Context, appid, openid string, at time.Time) error {
	known, err := m.lastFollow(ctx, appid, openid)
	if err != nil {
		return err
	}
	if known.after(at) {
		return nil
	}
	if erased, err := m.erasedSince(ctx, Account{appid, openid}, at); err != nil || erased {
		return err
	}
	const unblock = `
		UPDATE follower
		   SET blocked_until = NULL
		 WHERE appid = ? AND openid = ? AND blocked_until IS NOT NULL`
	if known.Blocked {
		if err := m.storeEvent(ctx, unblock, appid, openid); err != nil {
			return err
		}
	}
	if known.Subscribed && known.since(at) {
		return nil
	}
	return m.scheduleCheck(ctx, appid, openid)
}

// NoteUnfollow stores WeChat's announcement that a person left. An event older than their last
// follow is ignored. If nobody can know which came later, WeChat is asked as well.
func (m *Map) NoteUnfollow(ctx context.Context, appid, openid string, at time.Time) error {
	known, err := m.lastFollow(ctx, appid, openid)
	if err != nil || known.after(at) {
		return err
	}
	if left, err := m.unerasedIDs(ctx, appid, []string{openid}); err != nil || len(left) == 0 {
		return err
	}
	// An answer that is under way may be older than this event. So its recheck moves, before the
	// follower is marked: SettleRecheck then either precedes the mark or finds its fence broken.
	const move = `
		UPDATE follower_recheck
		   SET attempts = CASE WHEN reason = 'followed' THEN 0 ELSE attempts END,
		       due_at   = CURRENT_TIMESTAMP(3) +
		                  INTERVAL CASE WHEN reason = 'followed' THEN ? ELSE 0 END SECOND
		 WHERE appid = ? AND openid = ? AND (reason = 'followed' OR due_at <= CURRENT_TIMESTAMP(3))`
	if known.since(at) { // within one second, and events are in no order
		err = m.scheduleCheck(ctx, appid, openid)
	} else {
		err = m.storeEvent(ctx, move, int64(FollowDelay/time.Second), appid, openid)
	}
	if err != nil {
		return err
	}
	// The times are compared again in the row: a refresh may have stored a newer follow meanwhile.
	// info_at moves also where the person was known to have left, and somebody new gets a row: a
	// sweep may hold an older answer, which only a row can refuse. subscribed comes last, because
	// the others compare with the old one.
	const gone = `
		INSERT INTO follower (appid, openid, subscribed, info_at)
		VALUES (?, ?, 0, CURRENT_TIMESTAMP(3))
		ON DUPLICATE KEY UPDATE
		    changed_at = IF(subscribed = 1 AND COALESCE(subscribe_time <= ?, 1),
		                    CURRENT_TIMESTAMP(3), changed_at),
		    info_at    = IF(COALESCE(subscribe_time <= ?, 1), CURRENT_TIMESTAMP(3), info_at),
		    subscribed = IF(COALESCE(subscribe_time <= ?, 1), 0, subscribed)`
	at = at.UTC()
	if err := m.storeEvent(ctx, gone, appid, openid, at, at, at); err != nil {
		return err
	}
	m.tellGone(ctx, appid, openid)
	return nil
}

// followState is what the map knows of a person's last follow; the zero value: nothing.
type followState struct {
	Subscribed bool         `db:"subscribed"`
	Time       sql.NullTime `db:"subscribe_time"`
	Blocked    bool         `db:"blocked"`
}

// after reports whether the last follow is later than at, since whether it is in that second or
// later.
func (s followState) after(at time.Time) bool { return s.Time.Valid && s.Time.Time.After(at) }
func (s followState) since(at time.Time) bool { return s.Time.Valid && !s.Time.Time.Before(at) }

func (m *Map) lastFollow(ctx context.Context, appid, openid string) (followState, error) {
	const query = `
		SELECT subscribed, subscribe_time, blocked_until IS NOT NULL AS blocked
		  FROM follower
		 WHERE appid = ? AND openid = ?`
	var s followState
	err := m.db.GetContext(ctx, &s, query, appid, openid)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return s, fmt.Errorf("reading a follower: %w", database.Explain(err))
	}
	return s, nil
}

// scheduleCheck inserts or restarts the recheck. Overwriting another reason is safe: the check
// finds it again if it still applies.
func (m *Map) scheduleCheck(ctx context.Context, appid, openid string) error {
	const query = `
		INSERT INTO follower_recheck (appid, openid, reason, due_at)
		VALUES (?, ?, 'followed', CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND)
		ON DUPLICATE KEY UPDATE reason = VALUES(reason), attempts = 0, due_at = VALUES(due_at)`
	return m.storeEvent(ctx, query, appid, openid, int64(FollowDelay/time.Second))
}

func (m *Map) storeEvent(ctx context.Context, query string, args ...any) error {
	if err := m.write(ctx, query, args...); err != nil {
		return fmt.Errorf("storing a follow event: %w", err)
	}
	return nil
}

// write runs one statement, again where it lost against another transaction.
func (m *Map) write(ctx context.Context, query string, args ...any) error {
	return database.Retry(ctx, func(ctx context.Context) error {
		_, err := m.db.ExecContext(ctx, query, args...)
		return err
	})
}
