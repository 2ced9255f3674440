package retention

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// keptDays is how long send_day's counts stay.
const keptDays = 40

// firstMoment is before all that a TIMESTAMP can hold.
func firstMoment() time.Time { return time.Unix(1, 0).UTC() }

// now is the database's present moment.
func (p *Purger) now(ctx context.Context) (t time.Time, err error) {
	if err := p.cfg.DB.GetContext(ctx, &t, `SELECT CURRENT_TIMESTAMP(3)`); err != nil {
		return t, fmt.Errorf("reading the database's time: %w", database.Explain(err))
	}
	return t, nil
}

// oldRow is an entry of send_request_due. The driver reads the zero date as the zero time.
type oldRow struct {
	ID    int64     `db:"id"`
	DueAt time.Time `db:"due_at"`
}

// oldRows returns the next entries of a lane after the row at whose due_at is before a moment;
// after oldRow{}, the first. It reads the index alone. A final row's due_at is when it was due, or
// how far its claim had moved that: no later than its end, give or take a minute. Rows that ended
// before they were due, withdrawn ones, are found when that moment has aged.
func (p *Purger) oldRows(ctx context.Context, l queue.Lane, at oldRow, before time.Time) (
	[]oldRow, error,
) {
	// Two branches, as many rows may have one due_at: with OR each page would begin at the first of
	// them.
	const lane = `(
		    SELECT id, due_at
		      FROM send_request FORCE INDEX (send_request_due)
		     WHERE status = ? AND appid <=> ? AND priority = ? AND template = ?`
	same, later := `due_at = ?`, `due_at > ?`
	if at.DueAt.IsZero() {
		// Below the first moment there is the zero date only, which an INSERT IGNORE makes of an
		// invalid date. It must not be named: some servers refuse it in a comparison.
		same, later, at.DueAt = `due_at < ?`, `due_at >= ?`, firstMoment()
	}
	query := lane + ` AND ` + same + ` AND due_at < ? AND id > ? ORDER BY id LIMIT ?)
		UNION ALL ` + lane + ` AND ` + later + ` AND due_at < ? ORDER BY due_at, id LIMIT ?)
		ORDER BY due_at, id
		LIMIT ?`
	var rows []oldRow
	err := p.cfg.DB.SelectContext(ctx, &rows, query,
		l.Status, l.AppID, l.Priority, l.Template, at.DueAt, before, at.ID, maxPurge,
		l.Status, l.AppID, l.Priority, l.Template, at.DueAt, before, maxPurge, maxPurge)
	if err != nil {
		return nil, fmt.Errorf("reading finished requests: %w", database.Explain(err))
	}
	return rows, nil
}

// deleteOld deletes rows with their receipts, or moves them into the archive, and returns how many.
// A row that is no longer as old as was believed stays. So does one that another transaction holds,
// until the next run: a producer's open transaction holds up that row and not five hundred.
func (p *Purger) deleteOld(
	ctx context.Context, status queue.Status, before time.Time, ids []int64,
) (n int64, err error) {
	lock := database.Lock{Args: []any{status, before}, Query: `
		SELECT id
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id IN (?) AND status = ? AND COALESCE(finished_at, due_at) < ?
		   FOR UPDATE`}
	// A receipt is found by its request's msgid, so it goes first. Without the hints MariaDB 11.8
	// scans a small table instead, and waits for the very rows that were left out.
	const receipts = `
		DELETE s
		  FROM send_request r FORCE INDEX (PRIMARY)
		  STRAIGHT_JOIN send_receipt s FORCE INDEX (PRIMARY) ON s.appid = r.appid AND s.msgid = r.msgid
		 WHERE r.id IN (?)`
	err = database.InTx(ctx, p.cfg.DB, func(ctx context.Context, tx *sqlx.Tx) error {
		n = 0
		old, err := database.LockIn[int64](ctx, tx, lock, ids)
		if err != nil {
			return fmt.Errorf("locking rows: %w", err)
		}
		if len(old) == 0 {
			return nil
		}
		if p.cfg.Archive {
			if _, err := database.ExecIn(ctx, tx, archiveStatement, old); err != nil {
				return fmt.Errorf("copying into the archive: %w", err)
			}
		}
		if _, err := database.ExecIn(ctx, tx, receipts, old); err != nil {
			return fmt.Errorf("deleting receipts: %w", err)
		}
		// With this form of DELETE the index can be named.
		const requests = `DELETE r FROM send_request r FORCE INDEX (PRIMARY) WHERE r.id IN (?)`
		n, err = database.ExecIn(ctx, tx, requests, old)
		if err != nil {
			return err
		}
		// A row that ended without this program's knowledge may have left some behind.
		if err := queue.Unwait(ctx, tx, old); err != nil {
			return err
		}
		// One in doubt would hold a message of what its person allows for ever.
		return queue.EndAttempts(ctx, tx, old)
	})
	if err != nil {
		return 0, fmt.Errorf("deleting %d finished requests: %w", len(ids), err)
	}
	return n, nil
}

// purgeAttempts deletes attempts of requests that somebody has deleted by hand. The table has no
// others than those under way and in doubt.
func (p *Purger) purgeAttempts(ctx context.Context) error {
	// Written by the transaction of a request that exists, so a younger one is not looked at.
	const query = `
		SELECT a.request_id
		  FROM send_attempt a FORCE INDEX (PRIMARY)
		  LEFT JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = a.request_id
		 WHERE a.request_id > ? AND r.id IS NULL
		   AND a.begun_at < CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR
		 ORDER BY a.request_id
		 LIMIT ?`
	const drop = `DELETE FROM send_attempt WHERE request_id IN (?)`
	for after := int64(0); ; {
		var ids []int64
		err := p.throttled(ctx, func() error {
			err := p.cfg.DB.SelectContext(ctx, &ids, query, after, maxPurge)
			if err != nil || len(ids) == 0 {
				return err
			}
			_, err = p.exec(ctx, drop, ids)
			return err
		})
		if err != nil {
			return fmt.Errorf("deleting attempts without a request: %w", database.Explain(err))
		}
		if len(ids) < maxPurge {
			return nil
		}
		after = ids[len(ids)-1]
	}
}

// archiveStatement copies rows that its transaction has locked, each with the receipt that it has
// by now. Zero dates, which strict mode does not store again, become NULL. Of an id that the
// archive has already, as after somebody put a row back by hand, the first copy stays.
const archiveStatement = `
	INSERT INTO send_request_archive
	       (id, appid, unionid, mini_appid, mini_openid, openid, template, data, url, mini_path,
	        priority, due_at, expires_at, dedup_key, created_at, status, reason, errcode, errmsg,
	        warning, attempts, attempted_at, channel, sent_openid, msgid, finished_at, receipt_status, receipt_at,
	        wished_at, route, jump_appid, page, lang, mini_state, application, fallback_from,
	        fallback_reason, fallback_errcode)
	SELECT r.id, r.appid, r.unionid, r.mini_appid, r.mini_openid, r.openid, r.template, r.data, r.url,
	       r.mini_path, r.priority,
	       CASE WHEN r.due_at >= '1970-01-01 00:00:01' THEN r.due_at END,
	       CASE WHEN r.expires_at >= '1970-01-01 00:00:01' THEN r.expires_at END,
	       r.dedup_key, r.created_at, r.status, r.reason, r.errcode, r.errmsg, r.warning, r.attempts,
	       r.attempted_at, r.channel, r.sent_openid, r.msgid, r.finished_at, s.status, s.arrived_at,
	       r.wished_at, r.route, r.jump_appid, r.page, r.lang, r.mini_state, r.application,
	       r.fallback_from, r.fallback_reason, r.fallback_errcode
	  FROM send_request r FORCE INDEX (PRIMARY)
	  LEFT JOIN send_receipt s FORCE INDEX (PRIMARY) ON s.appid = r.appid AND s.msgid = r.msgid
	 WHERE r.id IN (?)
	    ON DUPLICATE KEY UPDATE id = VALUES(id)`

// purgeReceipts deletes old receipts that belong to no request.
func (r *run) purgeReceipts(ctx context.Context, before time.Time) error {
	const next = `
		SELECT arrived_at
		  FROM send_receipt FORCE INDEX (send_receipt_arrived)
		 WHERE arrived_at > ? AND arrived_at < ?
		 ORDER BY arrived_at
		 LIMIT ?`
	// The walk goes from moment to moment, and any number of receipts may share one: hence the
	// LIMIT and the repetition. Where MySQL takes send_request for empty, it makes a hash join with
	// all of it of NOT EXISTS, FORCE INDEX or not. LEFT JOIN it takes as it is; the hint, to others a
	// comment, makes sure of that.
	const drop = `
		DELETE s
		  FROM (SELECT /*+ NO_BNL(o, r) */ o.appid, o.msgid
		          FROM send_receipt o FORCE INDEX (send_receipt_arrived)
		          LEFT JOIN send_request r FORCE INDEX (send_request_msgid)
		                 ON r.msgid = o.msgid AND r.appid = o.appid
		         WHERE o.arrived_at > ? AND o.arrived_at <= ? AND r.id IS NULL
		         LIMIT ?) alone
		  STRAIGHT_JOIN send_receipt s FORCE INDEX (PRIMARY)
		          ON s.appid = alone.appid AND s.msgid = alone.msgid`
	for from := firstMoment(); ; {
		var arrivals []time.Time
		err := r.throttled(ctx, func() error {
			err := r.cfg.DB.SelectContext(ctx, &arrivals, next, from, before, maxPurge)
			if err != nil {
				return fmt.Errorf("reading old receipts: %w", database.Explain(err))
			}
			for len(arrivals) > 0 {
				n, err := r.exec(ctx, drop, from, arrivals[len(arrivals)-1], maxPurge)
				r.receipts += n
				if err != nil {
					return fmt.Errorf("deleting old receipts: %w", err)
				}
				if n < maxPurge {
					break
				}
			}
			return nil
		})
		if err != nil || len(arrivals) == 0 {
			return err
		}
		from = arrivals[len(arrivals)-1]
	}
}

// purgeDays deletes the counts of days long past.
func (p *Purger) purgeDays(ctx context.Context) error {
	const query = `DELETE FROM send_day WHERE day < CURRENT_DATE - INTERVAL ? DAY`
	if _, err := p.exec(ctx, query, keptDays); err != nil {
		return fmt.Errorf("deleting old days' counts: %w", err)
	}
	return nil
}

func (p *Purger) exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = database.Retry(ctx, func(ctx context.Context) (err error) {
		n, err = database.ExecIn(ctx, p.cfg.DB, query, args...)
		return err
	})
	return n, err
}
