package attempt

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
)

const (
	// receiptEarly and receiptLate bound the time between an attempt, by the database's clock, and
	// its receipt, by WeChat's.
	receiptEarly = 6 * time.Second
	receiptLate  = 30 * time.Minute
	// maxOpen bounds the attempts of one search.
	maxOpen = 10_000
)

// Resolve ends unknown rows of the account whose receipts have come, and returns which. A receipt that
// a request has by its msgid is that one's. Of the others WeChat says the person and the template:
// it belongs to an attempt if there is no other choice on either side, or if there are as many of
// one as of the other, in the order of time. While a message to the person is under way, its receipt
// may be among them, so nothing is resolved.
func (b *Book) Resolve(ctx context.Context, appid string) (resolved []queue.Resolution, err error) {
	var found []queue.Resolution
	err = b.queue.Snapshot(ctx, func(q *queue.Queue) error {
		found, err = search(ctx, q, appid)
		return err
	})
	errs := []error{err}
	for _, r := range found {
		done, err := b.resolve(ctx, r)
		if errs = append(errs, err); done {
			resolved = append(resolved, r)
		}
	}
	return resolved, errors.Join(errs...)
}

// search finds which receipts belong to which attempts. All of it must be of one moment: a message that
// begins, arrives and is told of between two looks is not among the attempts of the first, and by the
// second its receipt would be the only one of an older message, which never arrived.
func search(
	ctx context.Context, q *queue.Queue, appid string,
) (found []queue.Resolution, err error) {
	attempts, err := q.OpenAttempts(ctx, appid, maxOpen)
	if err != nil {
		return nil, err
	}
	var openids []string
	for _, a := range attempts {
		if a.Status == queue.Unknown {
			openids = append(openids, a.OpenID)
		}
	}
	openids = slices.Compact(openids)
	for part := range slices.Chunk(openids, queue.PageSize) {
		receipts, err := q.UnclaimedReceipts(ctx, appid, part, 0)
		if err != nil {
			return nil, err
		}
		if len(receipts) == 0 {
			continue
		}
		unnamed, err := q.SentUnnamed(ctx, appid, part)
		if err != nil {
			return nil, err
		}
		found = append(found, match(slices.Concat(attempts, unnamed), receipts)...)
	}
	return found, nil
}

func (b *Book) resolve(ctx context.Context, r queue.Resolution) (bool, error) {
	r.Channel = string(b.name)
	// A failure comes after WeChat had taken the message: it is used up as well.
	delivery := channel.Delivery{
		Attempt: channel.Attempt{RequestID: r.RequestID, At: r.BegunAt},
		Draft:   known(r.OpenAttempt.TemplateID), Address: channel.Address{OpenID: r.OpenAttempt.OpenID},
		Outcome: channel.Outcome{Verdict: channel.Sent},
	}
	return b.queue.Resolve(ctx, r, func(ctx context.Context, tx *sqlx.Tx) error {
		if b.settler == nil {
			return nil
		}
		return b.settler.Settle(ctx, tx, []channel.Delivery{delivery})
	})
}

// known is a message of which only the template is left.
type known string

func (k known) TemplateID() string { return string(k) }
func (k known) Warning() string    { return "" }

// grant is what a person allows: attempts and receipts of one have that alone in common.
type grant struct{ openid, template string }

// match pairs unknown attempts with receipts.
func match(attempts []queue.OpenAttempt, receipts []queue.Receipt) (pairs []queue.Resolution) {
	unknown, busy := make(map[grant][]queue.OpenAttempt), make(map[grant]bool)
	for _, a := range attempts {
		g := grant{a.OpenID, a.TemplateID}
		if a.Status == queue.Unknown {
			unknown[g] = append(unknown[g], a)
		} else {
			busy[g] = true
		}
	}
	came := make(map[grant][]queue.Receipt)
	for _, r := range receipts {
		g := grant{r.OpenID, r.TemplateID}
		came[g] = append(came[g], r)
	}
	for g, candidates := range unknown {
		if busy[g] || len(came[g]) == 0 {
			continue
		}
		slices.SortFunc(candidates, func(x, y queue.OpenAttempt) int { return x.BegunAt.Compare(y.BegunAt) })
		slices.SortFunc(came[g], func(x, y queue.Receipt) int { return x.At.Compare(y.At) })
		pairs = append(pairs, pair(candidates, came[g])...)
	}
	return pairs
}

// pair matches what one person got of one template, both in the order of time.
func pair(attempts []queue.OpenAttempt, receipts []queue.Receipt) (pairs []queue.Resolution) {
	fits := func(a queue.OpenAttempt, r queue.Receipt) bool {
		return !r.At.Before(a.BegunAt.Add(-receiptEarly)) && !r.At.After(a.BegunAt.Add(receiptLate))
	}
	inOrder := len(attempts) == len(receipts)
	for i := range min(len(attempts), len(receipts)) {
		inOrder = inOrder && fits(attempts[i], receipts[i])
	}
	for i, a := range attempts {
		var mine []queue.Receipt
		for k, r := range receipts {
			if inOrder && k == i || !inOrder && fits(a, r) && alone(attempts, r, fits) {
				mine = append(mine, r)
			}
		}
		if len(mine) != 1 {
			continue
		}
		r := queue.Resolution{OpenAttempt: a, Receipt: mine[0], Sent: delivered(mine[0])}
		// Of a message that was repeated, another attempt may have arrived.
		if r.Sent || a.Attempts <= 1 {
			pairs = append(pairs, r)
		}
	}
	return pairs
}

// alone reports whether a receipt can be of one of the attempts only.
func alone(
	attempts []queue.OpenAttempt, r queue.Receipt, fits func(queue.OpenAttempt, queue.Receipt) bool,
) bool {
	n := 0
	for _, a := range attempts {
		if fits(a, r) {
			n++
		}
	}
	return n == 1
}

func delivered(r queue.Receipt) bool { return !strings.HasPrefix(r.Status, "failed") }
