package main

import (
	"context"
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

// noSmallDisk says why there can be no small disk.
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
		return fmt.Errorf("taking the small disk away: %w", err)
	}
	return findServer()
}

func mountSmall(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+smallDiskSize+",mode=0777"); err != nil {
		return fmt.Errorf("mounting a small disk: %w", err)
	}
	return nil
}

// smallDisk gives the server a temporary folder that is soon full, and has it use it for every sort and
// temporary table.
func smallDisk(w *world) (serverConfig, error) {
	dir := w.stage.Path("small")
	if err := os.Mkdir(dir, 0o777); err != nil {
		return serverConfig{}, fmt.Errorf("making the small disk's folder: %w", err)
	}
	if err := mountSmall(dir); err != nil {
		return serverConfig{}, err
	}
	w.stage.OnClose(func() error { return syscall.Unmount(dir, syscall.MNT_DETACH) })
	return serverConfig{args: []string{"--tmpdir=" + dir, "--tmp-table-size=1024", "--max-heap-table-size=16384", "--sort-buffer-size=1024"}}, nil
}

// fillDisk leaves no room in the server's temporary folder for a while.
func fillDisk(ctx context.Context, w *world) (err error) {
	w.outcome.did("temporary folder full")
	name := filepath.Join(w.stage.Path("small"), "filler")
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("filling the small disk: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(name)) }()
	page := make([]byte, 4096)
	for err == nil {
		_, err = file.Write(page)
	}
	if err = errors.Join(ignore(err, syscall.ENOSPC), file.Close()); err != nil {
		return fmt.Errorf("filling the small disk: %w", err)
	}
	if !sleep(ctx, w.between(500*time.Millisecond, 5*time.Second)) {
		return ctx.Err()
	}
	return nil
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// noFakeTime says why the server's clock cannot be changed.
func noFakeTime() error {
	if libFakeTime() == "" {
		return errors.New("libfaketime is not installed (Debian: package libfaketime)")
	}
	return findServer()
}

// libFakeTime finds the library for programs with threads; "" if it is not there.
func libFakeTime() string {
	for _, pattern := range []string{"/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// clockBegin is how far the server's clock is behind at first: it only has to come to the right time in the
// end, so that no request lies in the future for hours.
const clockBegin = -3 * time.Hour

// fakeTime has the server's clock follow a file. Its monotonic clock goes on undisturbed, as it does on a
// machine whose clock is set.
func fakeTime(w *world) (serverConfig, error) {
	if err := setClock(w, clockBegin); err != nil {
		return serverConfig{}, err
	}
	return serverConfig{env: []string{
		"LD_PRELOAD=" + libFakeTime(), "FAKETIME_TIMESTAMP_FILE=" + w.stage.Path("clock"), "FAKETIME_NO_CACHE=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_RESET=1",
	}}, nil
}

func setClock(w *world, offset time.Duration) error {
	text := strconv.FormatFloat(offset.Seconds(), 'f', 0, 64)
	if offset >= 0 {
		text = "+" + text
	}
	// The server must not read half a number.
	name := w.stage.Path("clock")
	if err := os.WriteFile(name+".new", []byte(text+"\n"), 0o644); err != nil { //nolint:gosec // the server may be another user
		return fmt.Errorf("setting the server's clock: %w", err)
	}
	return os.Rename(name+".new", name)
}

// jumpClock sets the server's clock again and again: forth by up to an hour, back by up to twenty seconds,
// and right at the end.
func jumpClock(ctx context.Context, w *world) error {
	w.platform.SetLatency(20 * time.Millisecond)
	offset := clockBegin
	for end := time.Now().Add(w.length); time.Now().Before(end); {
		if !sleep(ctx, w.between(500*time.Millisecond, 4*time.Second)) {
			return ctx.Err()
		}
		switch w.rnd.IntN(4) {
		case 0:
			offset -= w.between(time.Second, 20*time.Second)
			w.outcome.did("clock back by seconds")
		case 1:
			offset = min(offset+w.between(5*time.Minute, time.Hour), 0)
			w.outcome.did("clock forth by minutes")
		default:
			offset = min(offset+w.between(time.Second, 90*time.Second), 0)
			w.outcome.did("clock forth by seconds")
		}
		if err := setClock(w, offset); err != nil {
			return err
		}
	}
	w.outcome.did("clock set right")
	return setClock(w, 0)
}
