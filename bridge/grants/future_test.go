package grants

import (
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

// TestEventsFromTheFuture: a push whose time is nonsense counts as of now. Else a template that it
// switches off would stay off for years, whatever the person accepts.
func TestEventsFromTheFuture(t *testing.T) {
	l, _, db := newLedger(t, Events)
	far := time.Now().AddDate(10, 0, 0).Truncate(time.Second)
	for range 2 {
		if err := l.Change(t.Context(), mini, []push.Choice{choice(person, "reject", far)}); err != nil {
			t.Fatal(err)
		}
	}
	l.wantLeft(t, "off", 0)
	l.mustPopup(t, choice(person, "accept", time.Now().Add(time.Hour)))
	l.wantLeft(t, "accepted since", 1)
	l.mustPopup(t, choice(person, "accept", far))
	l.mustPopup(t, choice(person, "accept", far))
	l.wantLeft(t, "accepted in the future, told twice", 2)
	db.MustExec(`UPDATE grant_event SET happened_at = happened_at - INTERVAL 15 MINUTE`) // as time goes by
	if err := l.Change(t.Context(), mini, []push.Choice{choice(person, "reject", time.Now())}); err != nil {
		t.Fatal(err)
	}
	l.wantLeft(t, "switched off later", 0)
}
