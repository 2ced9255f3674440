package sync

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// failing answers user/info about some people, or about all under the key "", with an error.
type failing struct {
	API
	errs map[string]error
}

func (f failing) UserInfo(ctx context.Context, openid string) (wechat.UserInfo, error) {
	for _, key := range []string{"", openid} {
		if err := f.errs[key]; err != nil {
			return wechat.UserInfo{}, err
		}
	}
	return f.API.UserInfo(ctx, openid)
}

func infoError(code int, reason wechat.Reason, policy wechat.Policy) error {
	return &wechat.Error{Endpoint: wechat.EndpointUserInfo, Code: code, Reason: reason,
		Policy: policy}
}

var (
	errUnknownUser = infoError(46004, "user_unknown", wechat.PolicyRecipient)
	errDead        = infoError(0, wechat.ReasonUnreachable, wechat.PolicyRetry)
)

// TestAboutOnePerson: which of WeChat's real answers concern one person.
func TestAboutOnePerson(t *testing.T) {
	const info, token = wechat.EndpointUserInfo, wechat.EndpointStableToken
	for name, test := range map[string]struct {
		fault           wechatsim.Fault
		person, unknown bool
	}{
		"40003": {fault: wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: info,
			Code: 40003}, person: true, unknown: true},
		"-41000": {fault: wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: info,
			Code: -41000}, person: true, unknown: true},
		"46004": {fault: wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: info,
			Code: 46004}, person: true},
		"40013": {fault: wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: info,
			Code: 40013}},
		"never seen": {fault: wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: info,
			Code: 98765}, person: true},
		"quota of the day": {fault: wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: info,
			Code: 45009}},
		"quota of a minute": {fault: wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: info,
			Code: 45011}},
		"no permission": {fault: wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: info,
			Code: 48001}},
		"token's secret": {fault: wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: token,
			Code: 40125}},
		"token's answer": {fault: wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: token,
			Code: -1}},
		"a proxy": {fault: wechatsim.Fault{Kind: wechatsim.FaultStatus, Path: info,
			Code: 502}},
		"half an answer": {fault: wechatsim.Fault{Kind: wechatsim.FaultTruncate, Path: info},
			person: true},
		"reset": {fault: wechatsim.Fault{Kind: wechatsim.FaultReset, Path: info}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t, wechatsim.Standard(1, 0, 0))
			b.sim.SetFault(test.fault)
			_, err := b.api.API.UserInfo(t.Context(), b.sim.OpenID(appid, 0))
			if err == nil {
				t.Fatal("the call went well")
			}
			err = fmt.Errorf("asking: %w", err)
			if got := aboutOnePerson(err); got != test.person {
				t.Errorf("about one person: %v, want %v: %v", got, test.person, err)
			}
			if got := isInvalidOpenID(err); got != test.unknown {
				t.Errorf("an invalid openid: %v, want %v: %v", got, test.unknown, err)
			}
		})
	}
	if aboutOnePerson(nil) || aboutOnePerson(errors.New("the database is away")) || aboutOnePerson(errDead) {
		t.Error("no error of WeChat's answer is about one person")
	}
}

// TestFollowErrorOfOnePerson: this person waits, longer each time, and everybody else is stored in
// the same pass.
func TestFollowErrorOfOnePerson(t *testing.T) {
	t.Parallel()
	const others = 3 * followBatch / 2
	b := newFixture(t, wechatsim.Standard(others, 0, 0))
	const bad = "oWeChatDoesNotAnswerAbout"
	b.api.API = failing{b.api.API, map[string]error{bad: errUnknownUser}}
	e := NewEvents(b.Service)
	follows(t, e, bad, true)
	for i := range others {
		follows(t, e, b.sim.OpenID(appid, i), true)
	}
	b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
	b.exec(t, `UPDATE follower_recheck SET due_at = due_at - INTERVAL 1 HOUR WHERE openid = ?`, bad)
	for asked := 1; asked <= 8; asked++ {
		if _, err := e.pass(t.Context(), appid); err != nil {
			t.Fatal(err)
		}
		if n := len(b.subscribed(t)); n != others {
			t.Fatalf("%d of %d are in the map", n, others)
		}
		// A pass that takes long asks more than once.
		asked = max(asked, b.count(t, `SELECT MAX(attempts) FROM follower_recheck`))
		most := afterError(bridge.Recheck{Reason: bridge.RecheckFollowed, Attempts: asked - 1}).Wait
		n := b.count(t, `SELECT COUNT(*) FROM follower_recheck WHERE reason = 'followed' AND attempts = ?
			AND due_at BETWEEN CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND AND CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND`,
			asked, int(most/time.Second)/2, int(most/time.Second))
		if n != 1 || b.notes(t) != 1 {
			t.Errorf("after answer %d the note does not wait for up to %v; %d notes", asked, most,
				b.notes(t))
		}
		b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
	}
	b.api.API = b.api.API.(failing).API // no more errors, and nobody knows the openid
	if _, err := b.Refresh(t.Context(), appid); err != nil {
		t.Fatal(err)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM follower_recheck WHERE reason = ? AND attempts = 1`, bridge.RecheckUnknownOpenID); n != 1 {
		t.Error("the first answer counts as more than one")
	}
}

// TestDoubtErrorOfOnePerson: this person waits, no error counts as an answer, and everybody else is
// settled in the same refresh.
func TestDoubtErrorOfOnePerson(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(60, 0, 0))
	b.sweepOnce(t)
	bad, api := b.sim.OpenID(appid, 7), b.api.API
	for i := range 50 {
		if err := b.identities.RequestRecheck(t.Context(), appid, []string{b.sim.OpenID(appid, i)}, bridge.RecheckSendInvalid); err != nil {
			t.Fatal(err)
		}
	}
	b.api.API = failing{api, map[string]error{bad: errUnknownUser}}
	b.exec(t, `UPDATE follower_recheck SET due_at = due_at - INTERVAL 1 HOUR WHERE openid = ?`, bad)
	for range 4 {
		if _, err := b.Refresh(t.Context(), appid); err != nil {
			t.Fatal(err)
		}
		n := b.count(t, `SELECT COUNT(*) FROM follower_recheck WHERE openid = ? AND attempts = 0 AND reason = 'send_invalid'
			AND due_at BETWEEN CURRENT_TIMESTAMP(3) + INTERVAL 10 MINUTE AND CURRENT_TIMESTAMP(3) + INTERVAL 15 MINUTE`, bad)
		if n != 1 || b.notes(t) != 1 {
			t.Fatalf("%d notes are left, the one in question deferred uncounted: %v", b.notes(t), n == 1)
		}
		b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
	}
	// The other code of an unknown openid: that is an answer, and the third one ends the doubt.
	b.api.API = failing{api,
		map[string]error{bad: infoError(-41000, wechat.ReasonInvalidOpenID,
			wechat.PolicyRecipient)}}
	for asked := 1; asked <= unknownTries; asked++ {
		if n := len(b.subscribed(t)); n != 60 {
			t.Errorf("%d of 60 follow before answer %d", n, asked)
		}
		if _, err := b.Refresh(t.Context(), appid); err != nil {
			t.Fatal(err)
		}
		b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
	}
	if n := len(b.subscribed(t)); n != 59 || b.notes(t) != 0 {
		t.Errorf("%d of 60 follow, %d notes; want one person gone", n, b.notes(t))
	}
}

// TestNobodyIsAnsweredAbout: an error about everybody is not per person, so the caller gets it and
// waits. A network error ends the pass and leaves the rechecks as they are.
func TestNobodyIsAnsweredAbout(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		putOff int
	}{
		"an errcode":  {infoError(40097, "invalid_argument", wechat.PolicyRequest), minUnanswered},
		"the network": {errDead, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t, wechatsim.Standard(minUnanswered, 0, 0))
			b.api.API = failing{b.api.API, map[string]error{"": test.err}}
			e := NewEvents(b.Service)
			for i := range minUnanswered {
				follows(t, e, b.sim.OpenID(appid, i), true)
			}
			b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
			if _, err := e.pass(t.Context(), appid); !errors.Is(err, test.err) {
				t.Errorf("the pass gives %v", err)
			}
			putOff := func() int {
				return b.count(t,
					`SELECT COUNT(*) FROM follower_recheck WHERE due_at > CURRENT_TIMESTAMP(3)`)
			}
			if n := putOff(); n != test.putOff {
				t.Errorf("%d follows are put off, want %d", n, test.putOff)
			}
			b.exec(t,
				`UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3), reason = 'no_unionid'`)
			if run, err := b.Refresh(t.Context(), appid); !errors.Is(err, test.err) || run.State != StateFailed {
				t.Errorf("the refresh gives %v, %s", err, run.State)
			}
			if n := putOff(); n != test.putOff {
				t.Errorf("%d doubts are put off, want %d", n, test.putOff)
			}
		})
	}
}

// TestSweepErrorOfOnePerson: a sweep that asks one by one leaves this person to the refresh.
func TestSweepErrorOfOnePerson(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(50, 0, 0))
	bad := b.sim.OpenID(appid, 7)
	b.api.API = failing{b.api.API, map[string]error{bad: errUnknownUser}}
	b.api.batch = func(context.Context, API, []string) ([]wechat.UserInfo,
		error) { // so that it asks one by one
		return nil, infoError(40003, wechat.ReasonInvalidOpenID, wechat.PolicyRecipient)
	}
	b.sweepOnce(t)
	if n := len(b.subscribed(t)); n != 49 {
		t.Errorf("%d are in the map, want 49", n)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM follower_recheck WHERE openid = ? AND reason = ?`, bad, bridge.RecheckUnknownOpenID); n != 1 || b.notes(t) != 1 {
		t.Errorf("this person is not in doubt, or others are: %d notes", b.notes(t))
	}
}
