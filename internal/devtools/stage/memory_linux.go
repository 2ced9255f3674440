package stage

import (
	"bytes"
	"os"
	"strconv"
)

// peakOf returns the largest resident set that a living process has had, in bytes; 0 if it has gone.
// It is VmHWM, which the kernel starts anew at exec. ru_maxrss of wait4 would be there after the end
// too, but takes over what the parent had when it forked.
func peakOf(pid int) int64 {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte("VmHWM:"))
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
		if err != nil {
			return 0
		}
		return kib << 10
	}
	return 0
}
