// Package attempt writes down that a message is about to be posted, before it is, where WeChat drops
// no second one, and ends that in the transaction which settles the outcome. What is written down
// and not ended is in doubt; nothing else is. It must not post, and it decides about no row.
package attempt

import (
	"context"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// Book is where the attempts of an account are written down. It is safe for concurrent use.
type Book struct {
	queue   *queue.Queue
	channel channel.Attempter
	settler channel.Settler // nil: the channel has none
	ledger  bool            // it has every message that was sent
	name    channel.Name

	turn chan struct{} // of whoever writes for all who wait; holds one token

	mu      sync.Mutex
	waiting []*call
}

// call is an attempt that waits to be written down.
type call struct {
	channel.Reservation
	done chan Answer // takes one
}

// Answer is what became of a Reserve. The message may be posted if Written; else its row is given
// back, or, if its address is not reachable any more, waits.
type Answer struct {
	Written   bool
	ClaimedAt time.Time // of its row; with the row's id it names the attempt
	Address   channel.Address
	Err       error
}

// New returns the book of a channel, or nil if it needs none.
func New(q *queue.Queue, c channel.Channel) *Book {
	attempter, ok := c.(channel.Attempter)
	if !ok {
		return nil
	}
	settler, _ := c.(channel.Settler)
	return &Book{
		queue: q, channel: attempter, settler: settler, ledger: c.Traits().Ledger, name: c.Name(),
		turn: make(chan struct{}, 1),
	}
}

// Reserve writes an attempt down. One transaction serves all who call meanwhile, which are never
// more than there are senders.
func (b *Book) Reserve(ctx context.Context, r channel.Reservation) Answer {
	c := &call{r, make(chan Answer, 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, c)
	b.mu.Unlock()
	select {
	case answer := <-c.done:
		return answer
	case b.turn <- struct{}{}:
	}
	b.mu.Lock()
	batch := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	b.write(ctx, batch)
	<-b.turn
	return <-c.done
}

// write writes attempts down and answers all of them.
func (b *Book) write(ctx context.Context, batch []*call) {
	if len(batch) == 0 {
		return
	}
	postings := make([]queue.Posting, len(batch))
	for i, c := range batch {
		postings[i] = queue.Posting{ID: c.RequestID, Token: c.Lease}
	}
	var answers map[int64]Answer
	err := b.queue.BeforePost(ctx, postings, func(
		ctx context.Context, tx *sqlx.Tx, rows []queue.Held,
	) error {
		answers = make(map[int64]Answer, len(rows)) // of this try
		for _, r := range rows {
			answers[r.ID] = Answer{ClaimedAt: r.ClaimedAt}
		}
		var attempts []channel.Reservation
		for _, c := range batch {
			if _, held := answers[c.RequestID]; held {
				attempts = append(attempts, c.Reservation)
			}
		}
		if len(attempts) == 0 {
			return nil
		}
		addresses, err := b.channel.Reserve(ctx, tx, attempts)
		if err != nil {
			return err
		}
		for i, a := range attempts {
			answer := answers[a.RequestID]
			answer.Address = addresses[i]
			answer.Written = addresses[i].Reachability == a.Address.Reachability
			answers[a.RequestID] = answer
		}
		return nil
	})
	for _, c := range batch {
		answer, known := answers[c.RequestID]
		switch {
		case err != nil:
			answer = Answer{Address: c.Address, Err: err}
		case !known: // withdrawn, or another transaction holds the row
			answer = Answer{Address: c.Address}
		}
		c.done <- answer
	}
}

// Settle is the queue's Hook: it writes what the outcomes use up, and ends the attempts. Those of
// rows that end in doubt stay.
func (b *Book) Settle(ctx context.Context, tx *sqlx.Tx, done []queue.Settling) error {
	var deliveries []channel.Delivery
	ended := make([]int64, 0, len(done))
	for _, s := range done {
		if s.Final() == queue.Unknown {
			continue
		}
		ended = append(ended, s.ID)
		if d, ok := s.With.(*channel.Delivery); ok && !s.InDoubt {
			delivery := *d
			delivery.Attempt = channel.Attempt{RequestID: s.ID, At: s.AttemptedAt}
			deliveries = append(deliveries, delivery)
		}
	}
	if b.settler != nil && len(deliveries) > 0 {
		if err := b.settler.Settle(ctx, tx, deliveries); err != nil {
			return err
		}
	}
	return queue.EndAttempts(ctx, tx, ended)
}
