package echo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// row is a message whose application wants to know. Ages are in seconds, by the database's clock.
type row struct {
	ID          int64  `db:"id"`
	Application string `db:"application"`
	Tries       int    `db:"tries"`
	Age         int64  `db:"age"`      // since it was accepted
	NewsAge     *int64 `db:"news_age"` // since there was news first; nil: there was none
	Finished    *int64 `db:"finished"` // since its end; nil: not yet
	Gone        bool   `db:"gone"`     // the message was deleted
	Status      string `db:"status"`
	Reason      string `db:"reason"`
	Receipt     string `db:"receipt"`
	AppID       string `db:"appid"`
	OpenID      string `db:"openid"`
}

// due returns rows whose moment has come, the oldest first.
func (e *Echo) due(ctx context.Context) (rows []row, err error) {
	const query = `
		SELECT e.request_id AS id, e.application, e.tries,
		       TIMESTAMPDIFF(SECOND, e.created_at, CURRENT_TIMESTAMP(3)) AS age,
		       TIMESTAMPDIFF(SECOND, e.news_at, CURRENT_TIMESTAMP(3)) AS news_age,
		       TIMESTAMPDIFF(SECOND, s.finished_at, CURRENT_TIMESTAMP(3)) AS finished,
		       s.id IS NULL AS gone, COALESCE(s.status, '') AS status, COALESCE(s.reason, '') AS reason,
		       COALESCE(s.receipt_status, '') AS receipt, COALESCE(s.appid, '') AS appid,
		       COALESCE(s.sent_openid, '') AS openid
		  FROM (SELECT request_id, application, tries, created_at, news_at, due_at
		          FROM door_echo FORCE INDEX (door_echo_due)
		         WHERE due_at <= CURRENT_TIMESTAMP(3)
		         ORDER BY due_at
		         LIMIT ?) e
		  LEFT JOIN v_send_status s ON s.id = e.request_id
		 ORDER BY e.due_at`
	if err := e.cfg.DB.SelectContext(ctx, &rows, query, batch); err != nil {
		return nil, fmt.Errorf("reading what applications are to be told: %w", database.Explain(err))
	}
	return rows, nil
}

// news is the Status of what is to be told; false: there is nothing yet.
func (r row) news() (status string, news bool) {
	switch {
	case r.Receipt != "":
		return r.Receipt, true
	case r.Status == "failed", r.Status == "expired", r.Status == "cancelled":
		why := r.Reason
		if why == "" {
			why = r.Status
		}
		return "failed: " + strings.ReplaceAll(why, "_", " "), true
	}
	return "", false
}

// silent reports whether nothing will come any more: WeChat sent no receipt.
func (r row) silent() bool {
	return r.Finished != nil && time.Duration(*r.Finished)*time.Second >= awaitReceipt
}

func (r row) newsAge() time.Duration {
	if r.NewsAge == nil {
		return 0
	}
	return time.Duration(*r.NewsAge) * time.Second
}

// lookAgain is how soon there may be news: most come within seconds, and some after days.
func (r row) lookAgain() time.Duration {
	age := time.Duration(r.Age) * time.Second
	if r.Finished != nil {
		age = time.Duration(*r.Finished) * time.Second
	}
	return min(max(2*time.Second, age/4), 5*time.Minute)
}

// again is the pause after the n-th try that failed: ten seconds, then longer, within the day.
func again(tries int) time.Duration {
	return min(10*time.Second<<min(tries, 10), time.Hour)
}

func (e *Echo) later(ctx context.Context, r row, in time.Duration) error {
	return e.write(ctx, `
		UPDATE door_echo SET due_at = CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND WHERE request_id = ?`,
		in.Microseconds(), r.ID)
}

func (e *Echo) failed(ctx context.Context, r row) error {
	return e.write(ctx, `
		UPDATE door_echo
		   SET tries = tries + 1, news_at = COALESCE(news_at, CURRENT_TIMESTAMP(3)),
		       due_at = CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND
		 WHERE request_id = ?`, again(r.Tries).Microseconds(), r.ID)
}

func (e *Echo) forget(ctx context.Context, r row) error {
	return e.write(ctx, `DELETE FROM door_echo WHERE request_id = ?`, r.ID)
}

// write is done also where ctx has just ended: what was told must not be told again.
func (e *Echo) write(ctx context.Context, query string, args ...any) error {
	return database.Detached(ctx, func(ctx context.Context) error {
		return database.Retry(ctx, func(ctx context.Context) error {
			_, err := e.cfg.DB.ExecContext(ctx, query, args...)
			return err
		})
	})
}
