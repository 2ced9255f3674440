package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// smallDiskSize is what the server's temporary folder holds.
const smallDiskSize = "512k"

func noSmallDisk() error {
	if os.Geteuid() != 0 {
		return errors.New("a small disk can be mounted by root only")
	}
	dir, err := os.MkdirTemp("", "ub-chaos-disk-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(dir) }()
	if err := mountSmall(dir); err != nil {
		return err
	}
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting the small disk: %w", err)
	}
	return findServer()
}

func mountSmall(dir string) error {
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+smallDiskSize+",mode=0777")
	if err != nil {
		return fmt.Errorf("mounting a small disk: %w", err)
	}
	return nil
}

// smallDisk gives the server a temporary folder that is soon full, and has it use it for every sort
// and temporary table.
func smallDisk(c *cluster) serverConfig {
	dir := c.Path("small")
	c.Check(os.Mkdir(dir, 0o777))
	c.Check(mountSmall(dir))
	c.Cleanup(func() error { return syscall.Unmount(dir, syscall.MNT_DETACH) })
	return serverConfig{args: []string{
		"--tmpdir=" + dir, "--tmp-table-size=1024", "--max-heap-table-size=16384",
		"--sort-buffer-size=1024",
	}}
}

func fillDisk(c *cluster) {
	c.did("temporary folder full")
	name := filepath.Join(c.Path("small"), "filler")
	file, err := os.Create(name)
	c.Checkf(err, "filling the small disk")
	for page := make([]byte, 4096); err == nil; {
		_, err = file.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		c.Checkf(err, "filling the small disk")
	}
	_ = file.Close()
	c.Sleep(c.between(500*time.Millisecond, 5*time.Second))
	c.Check(os.Remove(name))
}

func noFakeTime() error {
	if libFakeTime() == "" {
		return errors.New("libfaketime is not installed (Debian: package libfaketime)")
	}
	return findServer()
}

// libFakeTime finds the library for programs with threads; "" if it is not there.
func libFakeTime() string {
	const library = "/faketime/libfaketimeMT.so.1"
	for _, pattern := range []string{"/usr/lib/*" + library, "/usr/lib*" + library} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// clockBegin is how far the server's clock is behind at first: it only has to come to the right
// time in the end, so that no request lies in the future for hours.
const clockBegin = -3 * time.Hour

// fakeTime has the server's clock follow a file. Its monotonic clock is undisturbed, as it is on a
// machine whose clock is set.
func fakeTime(c *cluster) serverConfig {
	c.setClock(clockBegin)
	return serverConfig{env: []string{
		"LD_PRELOAD=" + libFakeTime(), "FAKETIME_TIMESTAMP_FILE=" + c.Path("clock"),
		"FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1",
	}}
}

func (c *cluster) setClock(offset time.Duration) {
	text := strconv.FormatFloat(offset.Seconds(), 'f', 0, 64)
	if offset >= 0 {
		text = "+" + text
	}
	// The server must not read half a number.
	name := c.Path("clock")
	//nolint:gosec // the server may be another user
	c.Check(os.WriteFile(name+".new", []byte(text+"\n"), 0o644))
	c.Check(os.Rename(name+".new", name))
}

// jumpClock sets the server's clock again and again: forth by up to an hour, back by up to twenty
// seconds, and right at the end.
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
