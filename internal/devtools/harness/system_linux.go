package harness

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// attributes: the child gets SIGTERM when its parent dies, however it dies, and has a process group
// of its own: a terminal's Ctrl-C reaches the harness alone, which then ends its children in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}

// FreeDisk returns the bytes that this process may still write to the file system of a path; ok is
// false where that is not known.
func FreeDisk(path string) (free int64, ok bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return 0, false
	}
	return int64(fs.Bavail) * fs.Bsize, true //nolint:gosec // no file system has 2^63 blocks
}

// peakOf returns the largest resident set that a living process has had, in bytes; 0 if it has
// gone. It is VmHWM, which the kernel resets at exec. ru_maxrss of wait4 would be there after the
// end too, but includes what the parent had when it forked.
func peakOf(pid int) int64 {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(status, []byte("\nVmHWM:"))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// ClockTick is the unit of /proc/PID/stat on every Linux that Go runs on.
const ClockTick = 10 * time.Millisecond

// CPUTime returns the processor time that a process has used so far; 0 where it is not known.
func CPUTime(pid int) time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The second field, the program's name, may hold spaces and brackets; utime and stime are the
	// 14th and 15th.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	var sum time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0
		}
		sum += time.Duration(n) * ClockTick
	}
	return sum
}
