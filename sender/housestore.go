package sender

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/unionbridge/unionbridge/internal/database"
)

// waiting returns the next waiting rows of an account after an id.
func (s store) waiting(ctx context.Context, appid string, after int64, limit int) ([]request, error) {
	// The index narrows to the account's waiting rows; they are few beside the finished ones.
	const query = `
		SELECT id, unionid, mini_appid, mini_openid, openid, cancel
		  FROM send_request
		 WHERE status = 'waiting' AND appid = ? AND id > ?
		 ORDER BY id
		 LIMIT ?`
	var rows []request
	if err := s.db.SelectContext(ctx, &rows, query, appid, after, limit); err != nil {
		return nil, fmt.Errorf("reading waiting requests: %w", database.Explain(err))
	}
	return rows, nil
}

// release makes waiting rows due now.
func (s store) release(ctx context.Context, ids []int64) error {
	const query = `
		UPDATE send_request
		   SET status = 'pending', reason = NULL, errmsg = NULL, errcode = NULL, due_at = CURRENT_TIMESTAMP(3)
		 WHERE id IN (?) AND status = 'waiting' AND cancel = 0`
	if len(ids) == 0 {
		return nil
	}
	if _, err := s.exec(ctx, query, ids); err != nil {
		return fmt.Errorf("releasing %d waiting requests: %w", len(ids), err)
	}
	return nil
}

// endWaits ends the rows whose recipient did not appear in time. Of a waiting row, due_at is the end of
// the wait or expires_at, whichever comes first.
func (s store) endWaits(ctx context.Context, appid string) error {
	const query = `
		UPDATE send_request
		   SET reason = CASE WHEN uncertain_at IS NOT NULL THEN 'outcome_unknown'
		                     WHEN expires_at <= CURRENT_TIMESTAMP(3) THEN 'expired' ELSE '` + reasonNoFollower + `' END,
		       status = CASE WHEN uncertain_at IS NOT NULL THEN 'unknown'
		                     WHEN expires_at <= CURRENT_TIMESTAMP(3) THEN 'expired' ELSE 'failed' END,
		       finished_at = CURRENT_TIMESTAMP(3)
		 WHERE status = 'waiting' AND appid = ? AND priority IN (0, 1, 2) AND due_at <= CURRENT_TIMESTAMP(3)
		 LIMIT ?`
	for {
		n, err := s.exec(ctx, query, appid, housePage)
		if err != nil {
			return fmt.Errorf("ending waits: %w", err)
		}
		if n < housePage {
			return nil
		}
	}
}

// lane is one pair under which open rows stand in the index.
type lane struct {
	AppID    sql.NullString `db:"appid"`
	Priority int            `db:"priority"`
}

// endStrays fails open rows that no claimer sees: those of an account that is not configured, and those
// with a priority that does not exist.
func (s *Service) endStrays(ctx context.Context) error {
	var appids []string
	defaulted := false
	for _, w := range s.workers {
		appids = append(appids, w.account.AppID)
		defaulted = defaulted || w.account.Default
	}
	for _, open := range []status{statusPending, statusWaiting} {
		lanes, err := s.store.lanes(ctx, open)
		if err != nil {
			return err
		}
		for _, l := range lanes {
			known := slices.Contains(appids, l.AppID.String) || (!l.AppID.Valid && defaulted)
			var w *wrong
			switch {
			case !known:
				w = &wrong{reasonUnknownAccount, fmt.Sprintf(
					"appid %q is not configured under official_accounts", l.AppID.String)}
			case l.Priority < 0 || l.Priority > 2:
				w = &wrong{reasonBadPriority, fmt.Sprintf(
					"priority is %d: it must be 0 (urgent), 1 (normal) or 2 (bulk)", l.Priority)}
			default:
				continue
			}
			n, err := s.store.failLane(ctx, open, l, *w)
			if err != nil {
				return err
			}
			s.cfg.Logger.Warn("requests that no account can send have failed", "rows", n, "reason", w.reason,
				"errmsg", w.text)
		}
	}
	return nil
}

// lanes returns the pairs of appid and priority that occur among the rows of a status.
func (s store) lanes(ctx context.Context, open status) ([]lane, error) {
	// A loose scan of send_request_due: one dive a pair, whatever the number of rows.
	const query = `SELECT appid, priority FROM send_request WHERE status = ? GROUP BY appid, priority`
	var lanes []lane
	if err := s.db.SelectContext(ctx, &lanes, query, open); err != nil {
		return nil, fmt.Errorf("reading the accounts of open requests: %w", database.Explain(err))
	}
	return lanes, nil
}

// failLane fails the rows of one pair. A row with a lease is left to whoever holds it: it may be another
// instance, with another configuration.
func (s store) failLane(ctx context.Context, open status, l lane, w wrong) (int64, error) {
	const query = `
		UPDATE send_request
		   SET status = 'failed', reason = ?, errmsg = ?, finished_at = CURRENT_TIMESTAMP(3)
		 WHERE status = ? AND (appid = ? OR (appid IS NULL AND ? IS NULL)) AND priority = ? AND lease IS NULL
		 LIMIT ?`
	var total int64
	for {
		n, err := s.exec(ctx, query, w.reason, w.text, open, l.AppID, l.AppID, l.Priority, housePage)
		total += n
		if err != nil {
			return total, fmt.Errorf("failing requests that nobody claims: %w", err)
		}
		if n < housePage {
			return total, nil
		}
	}
}
