// Package channeltest holds every channel to the contract, against the simulated platform over real
// HTTP. It knows no channel.
package channeltest

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// Subject is a channel under test, and what it is tested with.
type Subject struct {
	Channel channel.Channel
	Path    string           // that Deliver posts to
	Content channel.Content  // of a message that WeChat takes
	Targets []channel.Target // several; the first one can be reached, and not all can
	Secrets []string         // that no Outcome may hold, besides access tokens
}

// Setup makes a new channel that reaches the platform by its URL, with it as the transport.
type Setup func(t *testing.T, p *Platform) Subject

// Run tests a channel. setup is called for each case.
func Run(t *testing.T, setup Setup) {
	t.Run("faults", func(t *testing.T) { testFaults(t, setup) })
	t.Run("errcodes", func(t *testing.T) { testErrcodes(t, setup) })
	t.Run("wait", func(t *testing.T) { testWait(t, setup) })
	t.Run("prepare", func(t *testing.T) { testPrepare(t, setup) })
	t.Run("resolve", func(t *testing.T) { testResolve(t, setup) })
	t.Run("concurrent", func(t *testing.T) { testConcurrent(t, setup) })
}

// fixture is a subject with its platform and one message.
type fixture struct {
	*Platform
	Subject
	draft   channel.Draft
	address channel.Address
}

func start(t *testing.T, setup Setup) *fixture {
	t.Helper()
	p := newPlatform(t)
	f := &fixture{Platform: p, Subject: setup(t, p)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		f.Channel.Wait()
	})
	var why *channel.Rejection
	if f.draft, why = f.Channel.Prepare(ctx, f.Content); why != nil {
		t.Fatalf("preparing a good message: %+v", *why)
	}
	found, err := f.Channel.Resolve(ctx, f.Targets[:1])
	if err != nil || len(found) != 1 || found[0].OpenID == "" {
		t.Fatalf("resolving a person who can be reached: %+v, %v", found, err)
	}
	f.address = found[0]
	return f
}

// deliver posts the message within a short time, and checks what holds of every Outcome.
func (f *fixture) deliver(t *testing.T, posts int) channel.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	before := f.begun(f.Path)
	o := f.Channel.Deliver(ctx, f.draft, f.address)
	if n := f.begun(f.Path) - before; n != posts {
		t.Errorf("%d POSTs, want %d", n, posts)
	}
	f.checkSecrets(t, o)
	f.check(t, o)
	return o
}

// testWait: a channel serves its account again after the engine has waited for it.
func testWait(t *testing.T, setup Setup) {
	f := start(t, setup)
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		if _, why := f.Channel.Prepare(ctx, f.Content); why != nil {
			t.Fatalf("preparing a good message: %+v", *why)
		}
	}
	cancel()
	f.Channel.Wait()
	draft, why := f.Channel.Prepare(t.Context(), f.Content)
	if why != nil {
		t.Fatalf("preparing a good message after Wait: %+v", *why)
	}
	f.draft = draft
	if o := f.deliver(t, 1); o.Verdict != channel.Sent {
		t.Errorf("delivering after Wait: %+v", o)
	}
}

// testFaults: one POST, whatever happens, and in doubt exactly if bytes left without a definite
// answer.
func testFaults(t *testing.T, setup Setup) {
	type fault = wechatsim.Fault
	run := func(name string, test func(t *testing.T, f *fixture)) {
		t.Run(name, func(t *testing.T) {
			f := start(t, setup)
			f.deliver(t, 1) // there is a token now
			test(t, f)
		})
	}
	for _, c := range []struct {
		name    string
		fault   fault
		down    bool
		inDoubt bool
	}{
		{name: "no connection", down: true},
		{name: "timeout", fault: fault{Kind: wechatsim.FaultSlow, Delay: time.Minute}, inDoubt: true},
		{name: "reset", fault: fault{Kind: wechatsim.FaultReset}, inDoubt: true},
		{name: "reset after it was taken", fault: fault{Kind: wechatsim.FaultReset, After: true},
			inDoubt: true},
		{name: "502", fault: fault{Kind: wechatsim.FaultStatus}, inDoubt: true},
		{name: "412", fault: fault{Kind: wechatsim.FaultStatus, Code: http.StatusPreconditionFailed}},
		{name: "429", fault: fault{Kind: wechatsim.FaultStatus, Code: http.StatusTooManyRequests}},
		{name: "HTML", fault: fault{Kind: wechatsim.FaultHTML}, inDoubt: true},
		{name: "empty", fault: fault{Kind: wechatsim.FaultEmpty}, inDoubt: true},
		{name: "truncated", fault: fault{Kind: wechatsim.FaultTruncate}, inDoubt: true},
		{name: "cut off", fault: fault{Kind: wechatsim.FaultCut}, inDoubt: true},
	} {
		run(c.name, func(t *testing.T, f *fixture) {
			if c.down {
				f.cutOff()
			} else {
				c.fault.Path = f.Path
				f.Sim.SetFault(c.fault)
			}
			o := f.deliver(t, 1)
			if (o.Verdict == channel.InDoubt) != c.inDoubt || o.Verdict == channel.Sent {
				t.Errorf("%+v", o)
			}
		})
	}
	run("no token", func(t *testing.T, f *fixture) {
		f.Sim.InvalidateTokens(f.Channel.AppID())
		if o := f.deliver(t, 1); o.Verdict != channel.PauseAccount {
			t.Errorf("a dead token: %+v", o)
		}
		f.cutOff()
		if o := f.deliver(t, 0); o.Verdict != channel.PauseAccount {
			t.Errorf("%+v", o)
		}
	})
	run("told to stop", func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if o := f.Channel.Deliver(ctx, f.draft, f.address); o.Verdict == channel.InDoubt {
			t.Errorf("nothing has left: %+v", o)
		}
	})
	run("an answer quotes secrets", func(t *testing.T, f *fixture) {
		f.Sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: f.Path, Code: 47001,
			Message: strings.Join(append(f.tokens[:1:1], f.Secrets...), " ")})
		f.deliver(t, 1)
	})
}

//go:embed errcodes.txt
var errcodes string // all of the API reference, and those seen elsewhere

func testErrcodes(t *testing.T, setup Setup) {
	for _, field := range strings.Fields(errcodes) {
		code, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(field, func(t *testing.T) {
			f := start(t, setup)
			f.Sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Path: f.Path, Code: code})
			if o := f.deliver(t, 1); o.Code != code || o.Verdict == channel.Sent {
				t.Errorf("%+v", o)
			}
		})
	}
}

// testPrepare: it makes no call but the catalog's, and says what is wrong with a message.
func testPrepare(t *testing.T, setup Setup) {
	f := start(t, setup)
	before := f.begun("")
	for range 20 {
		d, why := f.Channel.Prepare(t.Context(), f.Content)
		if why != nil || d.TemplateID() != f.Content.TemplateID || d.Warning() != "" {
			t.Fatalf("%+v, %+v", d, why)
		}
	}
	if n := f.begun(""); before > 2 || n != before || f.begun(f.Path) != 0 {
		t.Errorf("%d calls for the first draft, %d for 20 more", before, n-before)
	}
	for _, data := range []string{`[1]`, `{}`, ``} {
		bad := f.Content
		bad.Data = data
		if _, why := f.Channel.Prepare(t.Context(), bad); why == nil || why.Message == "" ||
			!reasonPattern.MatchString(why.Reason) || why.After != 0 {
			t.Errorf("data %s: %+v", data, why)
		}
	}
}

// testResolve: the answers have the length and the order of the questions.
func testResolve(t *testing.T, setup Setup) {
	f := start(t, setup)
	resolve := func(targets []channel.Target) []channel.Address {
		found, err := f.Channel.Resolve(t.Context(), targets)
		if err != nil || len(found) != len(targets) {
			t.Fatalf("%d answers for %d targets, %v", len(found), len(targets), err)
		}
		return found
	}
	targets := append(slices.Clone(f.Targets), f.Targets...)
	found := resolve(targets)
	slices.Reverse(targets)
	turned := resolve(targets)
	slices.Reverse(turned)
	if !reflect.DeepEqual(found, turned) {
		t.Errorf("%+v in one order, %+v in the other", found, turned)
	}
	if !slices.ContainsFunc(found, func(a channel.Address) bool { return a.OpenID == "" }) {
		t.Errorf("everybody is reachable: %+v", found)
	}
	for _, a := range found {
		if f.Channel.Traits().Waits && len(a.Awaits) == 0 {
			t.Errorf("nothing can release a message to %+v", a)
		}
	}
	resolve(nil)
}

// testConcurrent is of use with -race. Each message is delivered once, and has a msgid of its own.
// Where the channel wants one message at a time to a person, it gets that, as the engine does it.
func testConcurrent(t *testing.T, setup Setup) {
	const senders, messages = 8, 10
	f := start(t, setup)
	f.Sim.SetLatency(time.Millisecond) // so that messages are under way together
	var person sync.Mutex
	deliver := func(d channel.Draft, to channel.Address) channel.Outcome {
		if f.Channel.Traits().SerialPerPerson {
			person.Lock()
			defer person.Unlock()
		}
		return f.Channel.Deliver(t.Context(), d, to)
	}
	send := func(row channel.Content) (msgid int64) {
		d, why := f.Channel.Prepare(t.Context(), row)
		found, err := f.Channel.Resolve(t.Context(), f.Targets)
		if why != nil || err != nil {
			t.Errorf("%+v, %v", why, err)
			return 0
		}
		o := deliver(d, found[0])
		f.check(t, o)
		done := []channel.Delivery{{Draft: d, Address: found[0], Outcome: o}}
		if err := f.Channel.Learn(t.Context(), done); err != nil {
			t.Error(err)
		}
		return o.MsgID
	}
	msgids := make([]int64, senders*messages)
	var running sync.WaitGroup
	for i := range senders {
		running.Go(func() {
			for k := range messages {
				row := f.Content
				row.ClientMsgID = fmt.Sprintf("%s-%d-%d", row.ClientMsgID, i, k)
				msgids[i*messages+k] = send(row)
			}
		})
	}
	running.Wait()
	slices.Sort(msgids)
	distinct := len(slices.Compact(msgids))
	if n := f.begun(f.Path); n != senders*messages || distinct != senders*messages {
		t.Errorf("%d POSTs and %d msgids of %d messages", n, distinct, senders*messages)
	}
	if err := f.Channel.Learn(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
