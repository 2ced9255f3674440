package intake

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/database"
)

// statusRow is what the view and the archive say of a message.
type statusRow struct {
	ID             int64        `db:"id"`
	Status         string       `db:"status"`
	Reason         string       `db:"reason"`
	ErrCode        int          `db:"errcode"`
	ErrMsg         string       `db:"errmsg"`
	Warning        string       `db:"warning"`
	Attempts       int          `db:"attempts"`
	AppID          string       `db:"appid"`
	Channel        string       `db:"channel"`
	MsgID          int64        `db:"msgid"`
	Receipt        string       `db:"receipt_status"`
	CreatedAt      sql.NullTime `db:"created_at"`
	DueAt          sql.NullTime `db:"due_at"`
	FinishedAt     sql.NullTime `db:"finished_at"`
	ReceiptAt      sql.NullTime `db:"receipt_at"`
	FallbackFrom   string       `db:"fallback_from"`
	FallbackReason string       `db:"fallback_reason"`
}

const statusColumns = `
		SELECT id, status, COALESCE(reason, '') AS reason, COALESCE(errcode, 0) AS errcode,
		       COALESCE(errmsg, '') AS errmsg, COALESCE(warning, '') AS warning, attempts,
		       COALESCE(appid, '') AS appid, COALESCE(channel, '') AS channel, COALESCE(msgid, 0) AS msgid,
		       COALESCE(receipt_status, '') AS receipt_status, created_at, due_at, finished_at, receipt_at,
		       COALESCE(fallback_from, '') AS fallback_from,
		       COALESCE(fallback_reason, '') AS fallback_reason`

func (r statusRow) public() Status {
	return Status{
		ID: r.ID, Status: r.Status, Reason: r.Reason, ErrCode: r.ErrCode, ErrMsg: r.ErrMsg,
		Warning: r.Warning, Attempts: r.Attempts, AppID: r.AppID, Channel: r.Channel, MsgID: r.MsgID,
		Receipt: r.Receipt, CreatedAt: r.CreatedAt.Time, DueAt: r.DueAt.Time, FinishedAt: r.FinishedAt.Time,
		ReceiptAt: r.ReceiptAt.Time, FallbackFrom: r.FallbackFrom, FallbackReason: r.FallbackReason,
	}
}

// Status returns what has become of a message so far. Of messages that are not the application's own
// it says ErrNotFound, whether there are any or not.
func (in *Intake) Status(ctx context.Context, s applications.Session, id int64) (Status, error) {
	found, err := in.Statuses(ctx, s, []int64{id})
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Status{}, err
	}
	return found[0], nil
}

// Statuses is Status for several messages, at most MaxBatch. It leaves out those that are not the
// application's own, and keeps to no order.
func (in *Intake) Statuses(
	ctx context.Context, s applications.Session, ids []int64,
) (found []Status, err error) {
	if s.Application == nil || len(ids) > MaxBatch {
		return nil, ErrNotFound
	}
	left := make(map[int64]bool, len(ids))
	for _, id := range ids {
		left[id] = true
	}
	for _, table := range []string{"v_send_status", "send_request_archive"} {
		if len(left) == 0 {
			break
		}
		wanted := make([]int64, 0, len(left))
		for id := range left {
			wanted = append(wanted, id)
		}
		rows, err := database.SelectIn[statusRow](ctx, in.cfg.DB, statusColumns+`
		  FROM `+table+`
		 WHERE id IN (?) AND application = ?`, wanted, s.Application.Name)
		if err != nil {
			return nil, unavailable(fmt.Errorf("reading the status of messages: %w", database.Explain(err)))
		}
		for _, r := range rows {
			found = append(found, r.public())
			delete(left, r.ID)
		}
	}
	return found, nil
}

// Cancel withdraws a message of the application, and returns its status: "cancelled" if it will never
// be sent, else what it was too late for. An attempt that is under way decides: then the status is
// still "pending", and one of the two follows.
func (in *Intake) Cancel(ctx context.Context, s applications.Session, id int64) (Status, error) {
	if s.Application == nil {
		return Status{}, ErrNotFound
	}
	const query = `UPDATE send_request SET cancel = 1 WHERE id = ? AND application = ? AND cancel = 0`
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := in.cfg.DB.ExecContext(ctx, query, id, s.Application.Name)
		return err
	})
	if err != nil {
		// Marked or not: it may be repeated.
		return Status{}, errors.Join(ErrUnknown, fmt.Errorf("withdrawing a message: %w", err))
	}
	return in.Status(ctx, s, id)
}
