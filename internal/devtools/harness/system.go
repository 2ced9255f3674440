package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// What is below reads Linux's /proc, and is 0 on other systems.

// peakOf returns the largest resident set that a living process has had, in bytes; 0 if it has
// gone. It is VmHWM, which the kernel resets at exec. ru_maxrss of wait4 would be there after the
// end too, but includes what the parent had when it forked.
func peakOf(pid int) int64 {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	var kib int64
	_, _ = fmt.Sscan(rest, &kib)
	return kib << 10
}

// ClockTick is the unit of /proc/PID/stat on every Linux that Go runs on.
const ClockTick = 10 * time.Millisecond

// CPUTime returns the processor time that a process has used so far.
func CPUTime(pid int) time.Duration {
	stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	// The second field, the program's name, may hold spaces and brackets; utime and stime are the
	// 14th and 15th.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * ClockTick
}
