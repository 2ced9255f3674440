package main

import (
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// mute: statements arrive and are carried out, their answers do not: half a connection is dead.
func mute() link.Toxic { return toxic("timeout", "downstream", `"timeout": 0`, "answers lost") }

// deaf: statements do not arrive, and no error says so.
func deaf() link.Toxic { return toxic("timeout", "upstream", `"timeout": 0`, "statements lost") }

func toxic(kind, stream, attributes, what string) link.Toxic {
	return link.Toxic{Kind: kind, Stream: stream, Attributes: attributes, What: what}
}

func (c *cluster) networkToxic() link.Toxic {
	stream := []string{"upstream", "downstream"}[c.rnd.IntN(2)]
	upTo := func(format string, n int) string { return fmt.Sprintf(format, c.rnd.IntN(n)) }
	toxics := []link.Toxic{
		mute(),
		deaf(),
		toxic("reset_peer", stream, upTo(`"timeout": %d`, 100), "connection reset, "+stream),
		toxic("latency", stream, upTo(`"latency": %d, `, 800)+upTo(`"jitter": %d`, 200), "latency"),
		toxic("slicer", stream, `"average_size": 60, "size_variation": 20, "delay": 2000`,
			"packets in pieces"),
		// The connection ends in the middle of a statement or an answer.
		toxic("limit_data", stream, fmt.Sprintf(`"bytes": %d`, 200+c.rnd.IntN(30_000)), "half an exchange, "+stream),
		toxic("timeout", stream, fmt.Sprintf(`"timeout": %d`, 100+c.rnd.IntN(2000)), "silence and then the end, "+stream),
	}
	return toxics[c.rnd.IntN(len(toxics))]
}

// breakNetwork makes links to the database bad for a while: the daemons', the producers', or both.
func breakNetwork(c *cluster) {
	links := c.links
	if c.rnd.IntN(2) == 0 { // a daemon's alone
		links = []*link.Link{c.anyDaemon().link}
	}
	bad := c.networkToxic()
	cut := c.rnd.IntN(6) == 0
	for _, l := range links {
		if cut {
			l.Cut()
		} else {
			c.Check(l.Poison(bad))
		}
	}
	if cut {
		bad.What = "all connections cut"
	}
	c.did(bad.What)
	c.Sleep(c.between(100*time.Millisecond, 4*time.Second))
	for _, l := range links {
		c.Check(l.Heal())
	}
}

func breakWeChat(c *cluster) {
	share := 0.05 + 0.6*c.rnd.Float64()
	faults := []wechatsim.Fault{
		{Kind: wechatsim.FaultReset},
		{Kind: wechatsim.FaultReset, After: true},
		{Kind: wechatsim.FaultCut},
		{Kind: wechatsim.FaultTruncate},
		{Kind: wechatsim.FaultSlow, Delay: c.between(sendTimeout, 2*sendTimeout)},
		{Kind: wechatsim.FaultReset, After: true, Delay: c.between(0, sendTimeout)},
		{Kind: wechatsim.FaultErrcode, Code: -1},
		{Kind: wechatsim.FaultErrcode, Code: -1, After: true},
		{Kind: wechatsim.FaultStatus, Code: 502},
		{Kind: wechatsim.FaultStatus, Code: 502, After: true},
		{Kind: wechatsim.FaultHTML, After: true},
		{Kind: wechatsim.FaultEmpty, After: c.rnd.IntN(2) == 0},
		{Kind: wechatsim.FaultReset, Path: harness.PathToken},
		{Kind: wechatsim.FaultErrcode, Code: -1, Path: harness.PathToken},
	}
	for range 1 + c.rnd.IntN(3) {
		fault := faults[c.rnd.IntN(len(faults))]
		fault.Probability = share
		if fault.Path == harness.PathToken {
			c.platform.InvalidateTokens(harness.AppID)
		} else {
			fault.Path = harness.PathSend
		}
		when := "before"
		switch fault.Kind {
		case wechatsim.FaultCut, wechatsim.FaultTruncate, wechatsim.FaultSlow:
			when = "after"
		default:
			if fault.After {
				when = "after"
			}
		}
		c.did(fmt.Sprintf("WeChat: %s %s processing", fault.Kind, when))
		c.platform.SetFault(fault)
	}
	c.Sleep(c.between(300*time.Millisecond, 3*time.Second))
	c.platform.ClearFaults()
}
