package sender

import (
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestRefusedClaim: a request that the database refuses to change stops no other, and is sent when
// it can be: one to be claimed, one that is withdrawn, and one that waits.
func TestRefusedClaim(t *testing.T) {
	f := newFixture(t)
	clock := &movedClock{}
	f.setClock(clock.now)
	end := f.trigger(t, `NEW.unionid IN ('`+f.unionid(7)+`', '`+f.unionid(8)+`', '`+f.unionid(9)+`')`,
		`SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one';`)
	early := time.Now().UTC().Add(-time.Minute)
	claimed := f.insert(t, columns{"unionid": f.unionid(7), "due_at": early})
	withdrawn := f.insert(t, columns{"unionid": f.unionid(8), "due_at": early, "cancel": 1})
	waiting := columns{"appid": appid, "status": "waiting", "due_at": time.Now().UTC().Add(time.Hour)}
	wait := func(person int) int64 {
		waiting["unionid"] = f.unionid(person)
		return f.insert(t, waiting)
	}
	refused := wait(9)
	good := []int64{wait(10), wait(11)}
	for i := range 30 {
		good = append(good, f.insert(t, columns{"unionid": f.unionid(20 + i)}))
	}
	good = append(good, f.insert(t, columns{"unionid": f.unionid(50), "cancel": 1}))
	f.start(t, "one")
	for _, id := range good[:len(good)-1] {
		f.await(t, id, queue.Sent)
	}
	f.await(t, good[len(good)-1], queue.Cancelled)
	for _, id := range []int64{claimed, withdrawn, refused} {
		if r := f.row(t, id); r.Attempts != 0 || r.Status == "sent" {
			t.Errorf("a refused row is %+v", r)
		}
	}
	end()
	clock.move(refusedFor + time.Second)
	f.await(t, claimed, queue.Sent)
	f.await(t, withdrawn, queue.Cancelled)
	f.await(t, refused, queue.Sent)
}

// TestAllClaimsRefused: a claim that gets nothing, because the database refuses it, is an error, after
// which the next one waits; one that gets something is none.
func TestAllClaimsRefused(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	s.claims.dispatch, s.claims.results = newDispatch(2*maxClaim), make(chan queue.Result, 100)
	f.trigger(t, `NEW.unionid = '`+f.unionid(1)+`'`, `SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one';`)
	f.bulk(t, 5, "order", 1)
	if got, err := s.claims.claim(t.Context()); err == nil || !strings.Contains(err.Error(), "not this one") {
		t.Errorf("%+v, %v", got, err)
	}
	clear(s.claims.deferred)
	f.insert(t, columns{"unionid": f.unionid(2)})
	s.lookAgain(t)
	if got, err := s.claims.claim(t.Context()); err != nil || got.sending != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}
