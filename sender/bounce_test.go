package sender

import (
	"fmt"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestNoBounceAfterWrongOpenID: that WeChat does not know an openid uses nothing up of what the person
// allows. It opens the mini program to the row as little as 43101 does; what is accepted later does.
func TestNoBounceAfterWrongOpenID(t *testing.T) {
	for name, order := range map[string]func(*miniFixture){
		"official first": func(*miniFixture) {}, "mini first": miniFirst,
	} {
		for _, code := range []int{40003, 43101, 46004} {
			t.Run(fmt.Sprint(name, ", ", code), func(t *testing.T) {
				p := newDuo(t, grants.Events, order)
				p.sim.Unfollow(appid, p.person(1)) // the map takes them for a follower
				p.grant(t, 1, 3)
				p.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: code,
					Path: wechat.EndpointSendSubscribe})
				id := p.insert(t, columns{"unionid": p.unionidOf(1)})
				round := func() {
					p.official.attempt(t)
					p.mini.attempt(t)
					p.official.look(t)
				}
				for range 5 {
					round()
				}
				if n := p.sim.Calls()[wechat.EndpointSendSubscribe]; n != 1 {
					t.Errorf("%d messages were posted: %+v", n, p.way(t, id))
				}
				p.sim.ClearFaults()
				p.accepts(t, 1, time.Now().Add(time.Minute))
				round()
				round()
				p.wantMessages(t, 1, 0, 1)
			})
		}
	}
}
