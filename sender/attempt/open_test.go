package attempt

import (
	"context"
	"testing"
	"testing/synctest"
)

func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOpen(1)
		for id := range int64(openPerSender) {
			if !o.Begin(t.Context(), id) {
				t.Fatalf("no room for attempt %d of %d", id+1, openPerSender)
			}
		}
		third := make(chan bool, 1)
		go func() { third <- o.Begin(t.Context(), 10) }()
		synctest.Wait()
		if len(third) != 0 {
			t.Fatalf("there was room for more than %d", openPerSender)
		}
		o.Settled(99) // was never begun
		synctest.Wait()
		if len(third) != 0 {
			t.Fatal("an unknown request made room")
		}
		o.Settled(0, 0)
		if !<-third {
			t.Error("a settled attempt made no room")
		}

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if o.Begin(ctx, 11) {
			t.Error("there was room beyond the bound")
		}
		// A request that is claimed again takes no second place.
		o.Settled(1)
		if !o.Begin(t.Context(), 10) {
			t.Error("no room for a request that has some")
		}
		o.Settled(10)
		for id := range int64(openPerSender) {
			if !o.Begin(t.Context(), 20+id) {
				t.Errorf("place %d was not given back", id)
			}
		}
	})
}
