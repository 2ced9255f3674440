package sender

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/settle"
)

const (
	// receiptEarly and receiptLate bound the time between an attempt, by the database's clock, and
	// its receipt, by WeChat's. Receipts of a large campaign are minutes late.
	receiptEarly = time.Minute
	receiptLate  = 30 * time.Minute
	// reconcileEvery is the pace of the search; maxUnknown bounds the rows of one.
	reconcileEvery = time.Minute
	maxUnknown     = 20_000
)

// reconciler finds the receipts of requests whose outcome is unknown.
type reconciler struct {
	*account
	last time.Time // when they were looked for last
}

// minReceiptAge is how old a receipt must be before it may belong to an attempt whose outcome is
// unknown. By then every other attempt of its time has been repeated to its end: it has its own
// msgid, which claims its receipt, or has become unknown, and is a candidate as well.
func (r *reconciler) minReceiptAge() time.Duration {
	return r.ResendWindow + queue.Visibility + 2*settle.Grace
}

// reconcile looks for the receipts of attempts whose outcome is unknown. A receipt carries no
// client_msg_id: it belongs to such a request if it went to the same person at that time, no
// request has its msgid, and no other request or receipt is a candidate. What is ambiguous stays
// unknown.
func (r *reconciler) reconcile(ctx context.Context, lanes []queue.Lane) error {
	if r.attempts != nil {
		return r.reconcileAttempts(ctx)
	}
	now := r.Now()
	begin := r.since.Load()
	switch {
	case !r.channel.Traits().Receipts || now.Sub(r.last) < reconcileEvery:
		return nil
	case begin != nil && r.throttle.SendingFor(*begin) < r.minReceiptAge():
		// After a pause or a takeover attempts are still repeated that are older than that.
		return nil
	}
	r.last = now
	rows, err := r.unknown(ctx, lanes)
	if err != nil {
		return err
	}
	if len(rows) == maxUnknown {
		r.log.Warn("too many requests with an unknown outcome to find their receipts", "rows", len(rows))
		return nil
	}
	if err := r.resolveMissing(ctx, rows); err != nil {
		return err
	}
	byOpenID := make(map[string][]*queue.UnknownRequest)
	for i := range rows {
		if id := rows[i].SentOpenID.String; id != "" {
			byOpenID[id] = append(byOpenID[id], &rows[i])
		}
	}
	var receipts []queue.Receipt
	for openids := range slices.Chunk(slices.Collect(maps.Keys(byOpenID)), queue.PageSize) {
		more, err := r.queue.UnclaimedReceipts(ctx, r.AppID, openids, r.minReceiptAge())
		if err != nil {
			return err
		}
		receipts = append(receipts, more...)
	}
	var errs []error
	for row, receipt := range pair(byOpenID, receipts) {
		found, err := r.queue.ResolveByReceipt(ctx, *row, receipt, string(r.channel.Name()))
		if found {
			r.log.Info("a receipt told an unknown outcome", "request", row.ID,
				"msgid", receipt.MsgID, "status", receipt.Status)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *reconciler) unknown(
	ctx context.Context, lanes []queue.Lane,
) (rows []queue.UnknownRequest, err error) {
	for _, l := range lanes {
		if l.Status != queue.Unknown || l.Account() != r.AppID {
			continue
		}
		more, err := r.queue.UnknownIn(ctx, l, maxUnknown-len(rows))
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// pair matches rows and receipts where there is no other choice on either side.
func pair(
	byOpenID map[string][]*queue.UnknownRequest, receipts []queue.Receipt,
) map[*queue.UnknownRequest]queue.Receipt {
	choices := make(map[*queue.UnknownRequest][]queue.Receipt)
	claims := make(map[int64]int)
	for _, r := range receipts {
		for _, row := range byOpenID[r.OpenID] {
			if !r.At.Before(row.First.Add(-receiptEarly)) && !r.At.After(row.Last.Add(receiptLate)) {
				choices[row] = append(choices[row], r)
				claims[r.MsgID]++
			}
		}
	}
	pairs := make(map[*queue.UnknownRequest]queue.Receipt)
	for row, possible := range choices {
		if len(possible) == 1 && claims[possible[0].MsgID] == 1 {
			pairs[row] = possible[0]
		}
	}
	return pairs
}

// resolveMissing fills in whom rows were sent to whose instance died before it could write that.
func (r *reconciler) resolveMissing(ctx context.Context, rows []queue.UnknownRequest) error {
	var lost []*queue.UnknownRequest
	var targets []channel.Target
	for i := range rows {
		recipient, rejection := r.recipient(rows[i].Request)
		if !rows[i].SentOpenID.Valid && rejection == nil {
			lost, targets = append(lost, &rows[i]), append(targets, channel.Target{Recipient: recipient})
		}
	}
	for len(lost) > 0 {
		n := min(len(lost), queue.PageSize)
		found, err := r.channel.Resolve(ctx, targets[:n])
		if err != nil {
			return err
		}
		for i, row := range lost[:n] {
			row.SentOpenID.String = found[i].OpenID
		}
		lost, targets = lost[n:], targets[n:]
	}
	return nil
}

// reconcileAttempts is reconcile where attempts are written down.
func (r *reconciler) reconcileAttempts(ctx context.Context) error {
	resolved, err := r.attempts.Resolve(ctx, r.AppID)
	for _, found := range resolved {
		r.log.Info("a receipt told an unknown outcome", "request", found.RequestID,
			"msgid", found.MsgID, "status", found.Receipt.Status)
	}
	return err
}
