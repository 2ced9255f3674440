package requests

import "testing"

// TestRetryErased: nothing brings back a request whose recipient was erased.
func TestRetryErased(t *testing.T) {
	f := newFixture(t)
	id := f.insert(t, columns{"status": "cancelled", "reason": "erased"})
	all := RetryOptions{Force: true, Withdrawn: true, IgnoreExpiry: true, Now: true}
	changes, err := f.store.Retry(t.Context(), []int64{id}, all)
	if err != nil || len(changes) != 1 || changes[0].Refused != refusedErased {
		t.Errorf("%+v (%v)", changes, err)
	}
}
