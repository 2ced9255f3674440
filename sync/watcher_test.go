package sync

import (
	"context"
	gosync "sync"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// told is a watcher, which sees whether what it is told of is in the map.
type told struct {
	identities *bridge.Map
	t          *testing.T

	mu   gosync.Mutex
	keys map[bridge.Key]bool // a message to them could be sent
}

func (w *told) Changed(ctx context.Context, keys []bridge.Key) {
	for _, key := range keys {
		if key.Kind != bridge.KeyUnionID {
			continue
		}
		found, err := w.identities.Resolve(ctx, key.AppID, []bridge.Recipient{{UnionID: key.Value}})
		if err != nil {
			w.t.Error(err)
			return
		}
		w.mu.Lock()
		w.keys[key] = found[0].Reachability == bridge.Reachable
		w.mu.Unlock()
	}
}

func (w *told) of(unionid string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keys[bridge.Key{Kind: bridge.KeyUnionID, AppID: appid, Value: unionid}]
}

// TestWatcher: a sweep, a refresh and a push tell of each new follower, when the map has them.
func TestWatcher(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(20, 0, 0))
	w := &told{identities: b.identities, t: t, keys: map[bridge.Key]bool{}}
	b.identities = b.identities.Watched(w)
	b.sweepOnce(t)
	for person := range 20 {
		if !w.of(b.union(person)) {
			t.Errorf("a sweep does not tell of follower %d", person)
		}
	}
	const refreshed, pushed = 500, 501
	for _, person := range []int{refreshed, pushed} {
		b.sim.Follow(appid, person)
	}
	err := b.identities.RequestRecheck(t.Context(), appid, []string{b.sim.OpenID(appid, refreshed)},
		bridge.RecheckUnknownOpenID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Refresh(t.Context(), appid); err != nil {
		t.Fatal(err)
	}
	if !w.of(b.union(refreshed)) {
		t.Error("a refresh does not tell of a new follower")
	}
	follows(t, startEvents(t, b.Service), b.sim.OpenID(appid, pushed), true)
	eventually(t, 20*time.Second, "the push's follower is told of", func() bool {
		return w.of(b.union(pushed))
	})
}
