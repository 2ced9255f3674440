package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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

// breakNetwork makes links to the database bad for a while.
func breakNetwork(c *cluster) {
	links := c.poison()
	c.Sleep(c.between(100*time.Millisecond, 4*time.Second))
	for _, l := range links {
		c.Check(l.Heal())
	}
}

// poison makes links to the database bad: the daemons', the producers', or both.
func (c *cluster) poison() []*link.Link {
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
	return links
}

func breakWeChat(c *cluster) {
	c.setFaults()
	c.Sleep(c.between(300*time.Millisecond, 3*time.Second))
	c.platform.ClearFaults()
}

func (c *cluster) setFaults() {
	always := []wechatsim.FaultKind{wechatsim.FaultCut, wechatsim.FaultTruncate, wechatsim.FaultSlow}
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
		if c.mini != nil && c.rnd.IntN(2) == 0 {
			fault.Path = strings.Replace(fault.Path, harness.PathSend, harness.PathSubscribe, 1)
		}
		when := "before"
		if fault.After || slices.Contains(always, fault.Kind) {
			when = "after"
		}
		c.did(fmt.Sprintf("WeChat: %s %s processing", fault.Kind, when))
		c.platform.SetFault(fault)
	}
}

func noSmallDisk(t *harness.T) error {
	if os.Geteuid() != 0 {
		return errors.New("a small disk can be mounted by root only")
	}
	return harness.Try(t.Context(), t.Screen, func(t *harness.T) { mountSmall(t) })
}

func mountSmall(t *harness.T) (dir string) {
	dir = t.Path("small")
	t.Check(os.Mkdir(dir, 0o777))
	_, err := t.Output(harness.Command{
		Path: "mount", Args: []string{"-t", "tmpfs", "-o", "size=512k,mode=0777", "tmpfs", dir},
	})
	t.Check(err)
	t.Cleanup(func() error {
		return exec.Command("umount", "-l", dir).Run() //nolint:noctx // after an interrupt too
	})
	return dir
}

// smallDisk gives the server a temporary folder that is soon full, and has it use it for every sort
// and temporary table.
func smallDisk(c *cluster) serverConfig {
	return serverConfig{args: []string{
		"--tmpdir=" + mountSmall(c.T), "--tmp-table-size=1024", "--max-heap-table-size=16384",
		"--sort-buffer-size=1024",
	}}
}

func fillDisk(c *cluster) {
	c.did("temporary folder full")
	name := filepath.Join(c.Path("small"), "filler")
	err := os.WriteFile(name, make([]byte, 1<<20), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		c.Fatalf("filling the small disk: %w", err)
	}
	c.Sleep(c.between(500*time.Millisecond, 5*time.Second))
	c.Check(os.Remove(name))
}

func noFakeTime(*harness.T) error {
	if libFakeTime() == "" {
		return errors.New("libfaketime is not installed (Debian: package libfaketime)")
	}
	return nil
}

func libFakeTime() string {
	const library = "/faketime/libfaketimeMT.so.1"
	for _, folder := range []string{"/usr/lib/*", "/usr/lib*"} {
		if found, _ := filepath.Glob(folder + library); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// clockBegin is how far the server's clock is behind at first: it only has to come to the right
// time in the end, so that no request lies in the future for hours.
const clockBegin = -3 * time.Hour

// fakeTime leaves the monotonic clock alone, as it is on a machine whose clock is set.
func fakeTime(c *cluster) serverConfig {
	c.setClock(clockBegin)
	return serverConfig{env: []string{
		"LD_PRELOAD=" + libFakeTime(), "FAKETIME_TIMESTAMP_FILE=" + c.Path("clock"),
		"FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1",
	}}
}

func (c *cluster) setClock(offset time.Duration) {
	text := fmt.Sprintf("%+.0f\n", offset.Seconds())
	// The server must not read half a number.
	name := c.Path("clock")
	//nolint:gosec // the server may be another user
	c.Check(os.WriteFile(name+".new", []byte(text), 0o644))
	c.Check(os.Rename(name+".new", name))
}

func jumpClock(c *cluster) {
	c.platform.SetLatency(20 * time.Millisecond)
	offset := clockBegin
	for end := time.Now().Add(c.length); time.Now().Before(end); {
		c.Sleep(c.between(500*time.Millisecond, 4*time.Second))
		switch c.rnd.IntN(4) {
		case 0:
			offset -= c.between(time.Second, 20*time.Second)
			c.did("clock back by seconds")
		case 1:
			offset = min(offset+c.between(5*time.Minute, time.Hour), 0)
			c.did("clock forth by minutes")
		default:
			offset = min(offset+c.between(time.Second, 90*time.Second), 0)
			c.did("clock forth by seconds")
		}
		c.setClock(offset)
	}
	c.did("clock set right")
	c.setClock(0)
}
