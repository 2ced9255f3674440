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
)

// Resolve ends unknown rows of the account whose receipts have come, and returns which. A receipt that
// a request has by its msgid is that one's. Of the others WeChat says the person and the template:
// it belongs to an attempt if there is no other choice on either side, or if there are as many of
// one as of the other, in the order of time. While a message to the person is under way, its receipt
// may be among them, so nothing is resolved.
func (b *Book) Resolve(ctx context.Context, appid string) (resolved []queue.Resolution, err error) {
	var errs []error
	for last := ""; ; {
		openids, err := b.queue.InDoubtAfter(ctx, appid, last)
		if err != nil {
			return resolved, err
		}
		var pairs []queue.Resolution
		err = b.queue.Snapshot(ctx, func(q *queue.Queue) error {
			pairs, err = b.pairs(ctx, q, appid, openids)
			return err
		})
		if err != nil {
			return resolved, err
		}
		for _, r := range pairs {
			done, err := b.resolve(ctx, r)
			if errs = append(errs, err); done {
				resolved = append(resolved, r)
			}
		}
		if len(openids) < queue.PageSize {
			return resolved, errors.Join(errs...)
		}
		last = openids[len(openids)-1]
	}
}

// pairs are the attempts to some people with the receipts that tell what became of them. All of it must
// be of one moment: else a message that begins, arrives, is told of and is settled meanwhile is not among
// the attempts, and by the order of time its receipt makes another one sent, which never arrived.
func (b *Book) pairs(
	ctx context.Context, q *queue.Queue, appid string, openids []string,
) ([]queue.Resolution, error) {
	if len(openids) == 0 {
		return nil, nil
	}
	receipts, err := q.UnclaimedReceipts(ctx, appid, openids, 0)
	if err != nil || len(receipts) == 0 {
		return nil, err
	}
	attempts, err := q.OpenAttempts(ctx, appid, openids)
	if err != nil {
		return nil, err
	}
	unnamed, err := q.SentUnnamed(ctx, appid, openids)
	if err != nil {
		return nil, err
	}
	return b.certain(ctx, q, appid, match(slices.Concat(attempts, unnamed), receipts))
}

// certain leaves out the pairs whose receipt may be of a message that was sent, where no ledger says
// which those are.
func (b *Book) certain(
	ctx context.Context, q *queue.Queue, appid string, pairs []queue.Resolution,
) ([]queue.Resolution, error) {
	if b.ledger || len(pairs) == 0 {
		return pairs, nil
	}
	openids, since := make([]string, len(pairs)), pairs[0].At
	for i, p := range pairs {
		openids[i] = p.OpenAttempt.OpenID
		if p.At.Before(since) {
			since = p.At
		}
	}
	others, err := q.SentWithoutMsgID(ctx, appid, openids, since.Add(-receiptLate))
	return slices.DeleteFunc(pairs, func(p queue.Resolution) bool {
		return slices.Contains(others, p.OpenAttempt.OpenID)
	}), err
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
