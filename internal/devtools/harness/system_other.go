//go:build unix && !linux

package harness

import (
	"syscall"
	"time"
)

// attributes: a process group of its own: a terminal's Ctrl-C reaches the harness alone, which then
// ends its children in order. These systems cannot tie a child's life to its parent's.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// The figures below are known on Linux only and left out elsewhere.

// ClockTick is the precision of CPUTime.
const ClockTick = 10 * time.Millisecond

// FreeDisk is known on Linux only.
func FreeDisk(string) (free int64, ok bool) { return 0, false }

// CPUTime is known on Linux only.
func CPUTime(int) time.Duration { return 0 }

func peakOf(int) int64 { return 0 }
