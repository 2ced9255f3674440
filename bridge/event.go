package bridge

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// RecheckFollowed is the note that WeChat has announced a follow: the person is asked about within seconds, and again
// within a minute or two while the answer lags behind. It puts nobody in doubt: sends to him go on.
const RecheckFollowed RecheckReason = "followed"

// FollowDelay is how long after a follow the first question waits: WeChat's own answer is wrong for a moment then.
const FollowDelay = 2 * time.Second

// Follow is the note of one follow, as DueFollows returns it.
type Follow struct {
	OpenID   string    `db:"openid"`
	Attempts int       `db:"attempts"` // questions asked so far that brought no complete answer
	DueAt    time.Time `db:"due_at"`   // changes with every event about the person: the fence of SettleFollow
	WaitMS   int64     `db:"wait_ms"`  // until it is due; 0 or less: now
}

// NoteFollow takes in that WeChat announced, at the given time of its own clock, that a person follows. It writes a note
// to ask about him, and ends his block: he has come back. An event that the map knows already, or knows to be
// overtaken, changes nothing. So an event may be given any number of times, in any order.
func (m *Map) NoteFollow(ctx context.Context, appid, openid string, at time.Time) error {
	known, err := m.lastFollow(ctx, appid, openid)
	if err != nil {
		return err
	}
	if known.after(at) {
		return nil
	}
	const unblock = `UPDATE follower SET blocked_until = NULL WHERE appid = ? AND openid = ? AND blocked_until IS NOT NULL`
	if known.Blocked {
		if err := m.event(ctx, unblock, appid, openid); err != nil {
			return err
		}
	}
	if known.Subscribed && known.since(at) {
		return nil
	}
	return m.askSoon(ctx, appid, openid)
}

// NoteUnfollow takes in that WeChat announced that a person left, and marks him so. An event older than his last
// follow is ignored. Where nobody can know which of two came later, he is asked about as well.
func (m *Map) NoteUnfollow(ctx context.Context, appid, openid string, at time.Time) error {
	known, err := m.lastFollow(ctx, appid, openid)
	if err != nil || known.after(at) {
		return err
	}
	// The comparison is made again in the row: a refresh may have learnt of a newer follow meanwhile.
	const gone = `
		UPDATE follower
		   SET subscribed = 0, info_at = CURRENT_TIMESTAMP(3), changed_at = CURRENT_TIMESTAMP(3)
		 WHERE appid = ? AND openid = ? AND subscribed = 1 AND (subscribe_time IS NULL OR subscribe_time <= ?)`
	if err := m.event(ctx, gone, appid, openid, at.UTC()); err != nil {
		return err
	}
	if known.since(at) { // within one second, and events are in no order
		return m.askSoon(ctx, appid, openid)
	}
	// He may be being asked about because of an earlier follow. The answer may be older than this event, and stored after
	// it; so he is asked again.
	const again = `
		UPDATE follower_recheck
		   SET attempts = 0, due_at = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		 WHERE appid = ? AND openid = ? AND reason = 'followed'`
	return m.event(ctx, again, int64(FollowDelay/time.Second), appid, openid)
}

// followState is what the map knows of somebody's last follow; the zero value: nothing.
type followState struct {
	Subscribed bool         `db:"subscribed"`
	Time       sql.NullTime `db:"subscribe_time"`
	Blocked    bool         `db:"blocked"`
}

// after tells that he followed later than at, since tells that he did at that second or later.
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

// askSoon writes the note. An older one begins anew, whatever its reason was: the question is the same, and who asks it
// finds the reason again if it still holds.
func (m *Map) askSoon(ctx context.Context, appid, openid string) error {
	const query = `
		INSERT INTO follower_recheck (appid, openid, reason, due_at)
		VALUES (?, ?, 'followed', CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND)
		ON DUPLICATE KEY UPDATE reason = VALUES(reason), attempts = 0, due_at = VALUES(due_at)`
	return m.event(ctx, query, appid, openid, int64(FollowDelay/time.Second))
}

func (m *Map) event(ctx context.Context, query string, args ...any) error {
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := m.db.ExecContext(ctx, query, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("storing a follow event: %w", err)
	}
	return nil
}

// DueFollows returns up to limit notes of follows that are due within the next two minutes, the earliest first.
func (m *Map) DueFollows(ctx context.Context, appid string, limit int) ([]Follow, error) {
	const query = `
		SELECT openid, attempts, due_at,
		       CEIL(TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), due_at) / 1000) AS wait_ms
		  FROM follower_recheck
		 WHERE appid = ? AND due_at <= CURRENT_TIMESTAMP(3) + INTERVAL 120 SECOND AND reason = 'followed'
		 ORDER BY due_at
		 LIMIT ?`
	var due []Follow
	if err := m.db.SelectContext(ctx, &due, query, appid, limit); err != nil {
		return nil, fmt.Errorf("reading follows: %w", database.Explain(err))
	}
	return due, nil
}

// SettleFollow removes a note after a complete answer, unless another event has come in since it was read.
func (m *Map) SettleFollow(ctx context.Context, appid string, f Follow) error {
	const query = `DELETE FROM follower_recheck WHERE appid = ? AND openid = ? AND reason = 'followed' AND due_at = ?`
	return m.event(ctx, query, appid, f.OpenID, f.DueAt)
}

// PostponeFollow lets a note wait after an answer that lags behind, unless another event has come in since.
func (m *Map) PostponeFollow(ctx context.Context, appid string, f Follow, wait time.Duration) error {
	const query = `
		UPDATE follower_recheck
		   SET attempts = attempts + 1, due_at = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		 WHERE appid = ? AND openid = ? AND reason = 'followed' AND due_at = ?`
	return m.event(ctx, query, int64(wait/time.Second), appid, f.OpenID, f.DueAt)
}

// EscalateFollow turns a note into the doubt that the slow refresh asks about, at once, unless another event has
// come in since.
func (m *Map) EscalateFollow(ctx context.Context, appid string, f Follow, doubt RecheckReason) error {
	const query = `
		UPDATE follower_recheck
		   SET reason = ?, attempts = 0, due_at = CURRENT_TIMESTAMP(3)
		 WHERE appid = ? AND openid = ? AND reason = 'followed' AND due_at = ?`
	return m.event(ctx, query, doubt, appid, f.OpenID, f.DueAt)
}

// DeferRecheck lets a doubt wait after a question that had no answer. Other than PostponeRecheck it counts nothing, and
// it changes nothing where an event or a new doubt has come in since.
func (m *Map) DeferRecheck(ctx context.Context, appid string, r Recheck, wait time.Duration) error {
	const query = `
		UPDATE follower_recheck
		   SET due_at = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		 WHERE appid = ? AND openid = ? AND reason = ? AND due_at <= CURRENT_TIMESTAMP(3)`
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := m.db.ExecContext(ctx, query, int64(wait/time.Second), appid, r.OpenID, r.Reason)
		return err
	})
	if err != nil {
		return fmt.Errorf("putting off a recheck: %w", err)
	}
	return nil
}
