package sender

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/oatemplate"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// serial is a channel that takes one message at a time to a person, and counts those that come
// together.
type serial struct {
	channel.Channel
	person   string
	under    atomic.Int32
	together atomic.Int32
}

func (c *serial) Traits() channel.Traits {
	traits := c.Channel.Traits()
	traits.SerialPerPerson = true
	return traits
}

func (c *serial) Deliver(
	ctx context.Context, d channel.Draft, to channel.Address,
) channel.Outcome {
	if to.OpenID == c.person {
		if c.under.Add(1) > 1 {
			c.together.Add(1)
		}
		defer c.under.Add(-1)
	}
	return c.Channel.Deliver(ctx, d, to)
}

// TestSendOneAtATime: the senders of an account keep to what its channel says of people.
func TestSendOneAtATime(t *testing.T) {
	f := newFixture(t)
	c := &serial{Channel: oatemplate.New(f.channel), person: f.sim.OpenID(appid, 1)}
	f.config.Accounts[0].Channels = []channel.Channel{c}
	var ids []int64
	for range 40 {
		ids = append(ids, f.insert(t, columns{"unionid": f.unionid(1)}))
	}
	f.start(t, "a")
	for _, id := range ids {
		f.await(t, id, queue.Sent)
	}
	if n := c.together.Load(); n > 0 || len(f.messagesTo(1)) != len(ids) {
		t.Errorf("%d of %d messages came together with another", n, len(f.messagesTo(1)))
	}
}

// TestOneAtATimeToAPerson: messages to a person go one after the other, urgent ones first, and keep
// nobody else's waiting.
func TestOneAtATimeToAPerson(t *testing.T) {
	to := func(openid string, priority int) *job {
		return &job{address: bridge.Resolution{OpenID: openid}, row: queue.Request{State: queue.State{Priority: priority}}}
	}
	first, second, third := to("a", 5), to("a", 5), to("a", 5)
	urgent, other := to("a", priorityUrgent), to("b", 5)
	var p people
	for _, j := range []*job{first, other} {
		if !p.enter(j) {
			t.Errorf("a message to %s waits, and none is under way", j.address.OpenID)
		}
	}
	for _, j := range []*job{second, third, urgent} {
		if p.enter(j) {
			t.Error("two messages to one person are under way together")
		}
	}
	if p.waiting() != 3 {
		t.Errorf("%d messages wait, want 3", p.waiting())
	}
	if p.leave(other) != nil {
		t.Error("somebody else's message came behind another person's")
	}
	for i, want := range []*job{urgent, second, third, nil} {
		if got := p.leave(first); got != want {
			t.Errorf("the wrong message is number %d", i)
		}
	}
	if !p.enter(second) || len(p.behind) != 1 || p.waiting() != 0 {
		t.Error("something is left of messages that are through")
	}
}
