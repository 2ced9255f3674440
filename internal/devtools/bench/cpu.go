package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/PID/stat on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// cpuOf returns the processor time that a process has used so far, from Linux's /proc; 0 where it is not
// known.
func cpuOf(pid int) time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The second field, the program's name, may hold spaces and brackets; utime and stime are the 14th and 15th.
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
		sum += time.Duration(n) * tick
	}
	return sum
}

// watched are the processes that share the machine, and what they had used when the watch began.
type watched []watchedProcess

type watchedProcess struct {
	name   string
	pid    int
	before time.Duration
}

// watchCPU begins to watch the database server, the simulator and this program.
func (b *bench) watchCPU(ctx context.Context) watched {
	var w watched
	for _, p := range []struct {
		name string
		pid  int
	}{{"database", b.serverPid(ctx)}, {"simulator", b.simulator.Pid()}, {"bench", os.Getpid()}} {
		w = append(w, watchedProcess{p.name, p.pid, cpuOf(p.pid)})
	}
	return w
}

// and watches a process too that has begun since.
func (w watched) and(name string, pid int) watched {
	return append(w, watchedProcess{name: name, pid: pid})
}

// used is the processor time of one of the processes since the watch began.
func (w watched) used(name string) time.Duration {
	for _, p := range w {
		if p.name == name {
			return cpuOf(p.pid) - p.before
		}
	}
	return 0
}

// String says how many seconds of processor time each has used.
func (w watched) String() string {
	var parts []string
	for _, p := range w {
		parts = append(parts, fmt.Sprintf("%s %.1f", p.name, w.used(p.name).Seconds()))
	}
	return strings.Join(parts, ", ")
}

// serverPid is the database server's process id; 0 where it runs elsewhere or does not say.
func (b *bench) serverPid(ctx context.Context) int {
	var path string
	if err := b.host.Admin().QueryRowContext(ctx, "SELECT @@pid_file").Scan(&path); err != nil {
		return 0
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}
