package main

import (
	"context"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// mute: statements arrive and are carried out, their answers do not: half a connection is dead.
func mute() toxic { return toxic{"timeout", "downstream", `"timeout": 0`, "answers lost"} }

// deaf: statements do not arrive, and nobody says so.
func deaf() toxic { return toxic{"timeout", "upstream", `"timeout": 0`, "statements lost"} }

// networkToxics draws one of the ways in which a network fails.
func (w *world) networkToxic() toxic {
	stream := []string{"upstream", "downstream"}[w.rnd.IntN(2)]
	switch w.rnd.IntN(7) {
	case 0:
		return mute()
	case 1:
		return deaf()
	case 2:
		return toxic{"reset_peer", stream, fmt.Sprintf(`"timeout": %d`, w.rnd.IntN(100)), "connection reset, " + stream}
	case 3:
		return toxic{"latency", stream, fmt.Sprintf(`"latency": %d, "jitter": %d`, w.rnd.IntN(800), w.rnd.IntN(200)), "latency"}
	case 4:
		return toxic{"slicer", stream, `"average_size": 60, "size_variation": 20, "delay": 2000`, "packets in pieces"}
	case 5:
		// The connection ends in the middle of a statement or an answer.
		return toxic{"limit_data", stream, fmt.Sprintf(`"bytes": %d`, 200+w.rnd.IntN(30_000)), "half an exchange, " + stream}
	default:
		return toxic{"timeout", stream, fmt.Sprintf(`"timeout": %d`, 100+w.rnd.IntN(2000)), "silence and then the end, " + stream}
	}
}

// breakNetwork makes links to the database bad for a while: the daemons', the producers', or both.
func breakNetwork(ctx context.Context, w *world) error {
	links := []*link{w.entrance}
	for _, d := range w.daemons {
		links = append(links, d.link)
	}
	if w.rnd.IntN(2) == 0 { // a daemon's alone
		links = []*link{w.daemons[w.rnd.IntN(len(w.daemons))].link}
	}
	t := w.networkToxic()
	cut := w.rnd.IntN(6) == 0
	for _, l := range links {
		if cut {
			l.cut()
		} else if err := l.poison(t); err != nil {
			return err
		}
	}
	if cut {
		t.what = "all connections cut"
	}
	w.outcome.did(t.what)
	ok := sleep(ctx, w.between(100*time.Millisecond, 4*time.Second))
	for _, l := range links {
		if err := l.heal(); err != nil {
			return err
		}
	}
	if !ok {
		return ctx.Err()
	}
	return nil
}

// breakWeChat makes a share of the calls go wrong for a while.
func breakWeChat(ctx context.Context, w *world) error {
	const pathToken = "/cgi-bin/stable_token"
	share := 0.05 + 0.6*w.rnd.Float64()
	faults := []wechatsim.Fault{
		{Kind: wechatsim.FaultReset},
		{Kind: wechatsim.FaultReset, After: true},
		{Kind: wechatsim.FaultCut},
		{Kind: wechatsim.FaultTruncate},
		{Kind: wechatsim.FaultSlow, Delay: w.between(sendTimeout, 2*sendTimeout)},
		{Kind: wechatsim.FaultReset, After: true, Delay: w.between(0, sendTimeout)},
		{Kind: wechatsim.FaultErrcode, Code: -1},
		{Kind: wechatsim.FaultErrcode, Code: -1, After: true},
		{Kind: wechatsim.FaultStatus, Code: 502},
		{Kind: wechatsim.FaultStatus, Code: 502, After: true},
		{Kind: wechatsim.FaultHTML, After: true},
		{Kind: wechatsim.FaultEmpty, After: w.rnd.IntN(2) == 0},
		{Kind: wechatsim.FaultReset, Path: pathToken},
		{Kind: wechatsim.FaultErrcode, Code: -1, Path: pathToken},
	}
	for range 1 + w.rnd.IntN(3) {
		fault := faults[w.rnd.IntN(len(faults))]
		fault.Probability = share
		if fault.Path == pathToken {
			w.platform.InvalidateTokens(wechatsim.StandardAppID)
		} else {
			fault.Path = pathSend
		}
		when := "before"
		if fault.After || fault.Kind == wechatsim.FaultCut || fault.Kind == wechatsim.FaultTruncate || fault.Kind == wechatsim.FaultSlow {
			when = "after"
		}
		w.outcome.did(fmt.Sprintf("WeChat: %s %s processing", fault.Kind, when))
		w.platform.SetFault(fault)
	}
	ok := sleep(ctx, w.between(300*time.Millisecond, 3*time.Second))
	w.platform.ClearFaults()
	if !ok {
		return ctx.Err()
	}
	return nil
}
