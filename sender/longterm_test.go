package sender

import (
	"testing"

	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestLongTermWithoutPreflight: messages of a long-term template use nothing up, also where they are
// not checked against the mini program's templates first.
func TestLongTermWithoutPreflight(t *testing.T) {
	f := newMiniFixture(t, grants.Events)
	for _, preflight := range []bool{false, true} {
		f.mini.Preflight = preflight
		f.rebuild()
		for _, template := range wechatsim.StandardSubscribeTemplates() {
			if template.LongTerm {
				f.templateID = template.ID
			}
		}
		user := 1
		if preflight {
			user = 2
		}
		f.grant(t, user, 1)
		stop := f.start(t, "a")
		for range 3 {
			f.await(t, f.insert(t, columns{"openid": f.openid(user), "template": f.templateID,
				"data": `{"thing1":"水费","amount2":"12元"}`}), queue.Sent)
		}
		stop()
	}
}
