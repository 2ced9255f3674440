package attempt

import (
	"context"
	"sync"
)

// Open bounds how many attempts of an account nobody has settled, and so how many messages a sudden
// end leaves in doubt. It is safe for concurrent use.
type Open struct {
	room chan struct{} // holds one token for each

	mu  sync.Mutex
	ids map[int64]bool // of requests
}

// openPerSender: each sender has a message on its way to WeChat, and the one before it on its way to
// the database. With one alone, no message would be posted while a transaction settles others.
const openPerSender = 2

// NewOpen returns the bound of an account that has so many senders.
func NewOpen(senders int) *Open {
	return &Open{room: make(chan struct{}, openPerSender*senders), ids: make(map[int64]bool)}
}

// Begin waits for room for a request's attempt. It reports whether there was some before the end of
// ctx; then Settled must follow.
func (o *Open) Begin(ctx context.Context, id int64) bool {
	select {
	case o.room <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ids[id] { // claimed again while an outcome was set aside, which has no room any more
		<-o.room
	}
	o.ids[id] = true
	return true
}

// Settled makes room again: the attempts were written, not made, or set aside because the database
// does not take their outcomes now. Requests without an attempt change nothing.
func (o *Open) Settled(ids ...int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		if o.ids[id] {
			delete(o.ids, id)
			<-o.room
		}
	}
}
