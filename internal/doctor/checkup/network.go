package checkup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// callTimeout bounds one question to a listener or a server.
const callTimeout = 5 * time.Second

// checkPorts tries each address. That it is taken is right where our own daemon has it.
func checkPorts(ctx context.Context, e *exam) (found []finding) {
	daemon := 0 // the pid of ours
	for _, l := range e.Listens {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", l.Address)
		if err == nil {
			_ = listener.Close() // nothing was accepted
			found = append(found, ok("%s: %s is free", l.Key, l.Address))
			continue
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			found = append(found, bad(Fail, fmt.Sprintf("%s: %v", l.Key, err), "address", l.Key))
			continue
		}
		holder := holderOf(e.Root, l.Address)
		if l.Health {
			if version, pid, ours := health(ctx, l.Address); ours {
				e.ours, daemon = true, pid
				found = append(found, ok("%s: %s is held by our daemon, version %s, pid %d", l.Key,
					l.Address, version, pid))
				continue
			}
		}
		if daemon != 0 && (holder.pid == daemon || holder.pid == 0) {
			found = append(found, ok("%s: %s is held by our daemon, pid %d", l.Key, l.Address, daemon))
			continue
		}
		found = append(found, bad(Fail, fmt.Sprintf("%s: %s is held by %s", l.Key, l.Address, holder),
			"taken", l.Address, l.Key))
	}
	return found
}

// The headers by which the daemon's /healthz says who answers.
const (
	versionHeader = "Unionbridge-Version"
	pidHeader     = "Unionbridge-Pid"
)

// health asks who listens at an address. A daemon says its version and its pid.
func health(ctx context.Context, address string) (version string, pid int, ours bool) {
	resp, err := get(ctx, "http://"+reachable(address)+"/healthz")
	if err != nil {
		return "", 0, false
	}
	version = resp.header.Get(versionHeader)
	pid, err = strconv.Atoi(resp.header.Get(pidHeader))
	return version, pid, err == nil && version != ""
}

// reachable replaces the address that means every one of this machine.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

type answer struct {
	status int
	header http.Header
	body   string
}

// maxBody is enough for an echo, and for the beginning of what another program says.
const maxBody = 4096

func get(ctx context.Context, url string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, fmt.Errorf("asking %s: %w", url, err)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}

// process is one that listens; the zero value is not known.
type process struct {
	pid  int
	name string
}

func (p process) String() string {
	if p.pid == 0 {
		return "another program"
	}
	return fmt.Sprintf("%s, pid %d", p.name, p.pid)
}

// tcpListen is a listening socket's state in /proc/net/tcp.
const tcpListen = "0A"

// holderOf finds in /proc who listens on the port of an address. It sees the processes that this
// user may see.
func holderOf(root, address string) process {
	_, text, err := net.SplitHostPort(address)
	port, err2 := strconv.Atoi(text)
	if err != nil || err2 != nil {
		return process{}
	}
	sockets := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(root, "proc/net", table))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) > 9 && fields[3] == tcpListen &&
				strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				sockets["socket:["+fields[9]+"]"] = true
			}
		}
		_ = f.Close() // only read
	}
	links, _ := filepath.Glob(filepath.Join(root, "proc/[0-9]*/fd/*"))
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !sockets[target] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		pid, _ := strconv.Atoi(filepath.Base(dir))
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		return process{pid, strings.TrimSpace(string(name))}
	}
	return process{}
}

func checkListen(_ context.Context, e *exam) (found []finding) {
	for _, l := range e.Listens {
		host, _, err := net.SplitHostPort(l.Address)
		ip := net.ParseIP(host)
		if err != nil || !l.Open || host == "localhost" || ip != nil && ip.IsLoopback() {
			continue
		}
		found = append(found, finding{state: Warn, seen: fmt.Sprintf(
			"%s: %s serves figures to everybody who reaches it, without a password", l.Key, l.Address)})
	}
	if found == nil {
		return []finding{ok("figures are for this machine alone")}
	}
	return found
}

// maxSkew is how far clocks may be apart.
const maxSkew = 30 * time.Second

// checkClock compares this machine's clock with the database's and WeChat's. WeChat is asked for a
// page that costs no call.
func checkClock(ctx context.Context, e *exam) (found []finding) {
	compare := func(whose, zh string, theirs, before time.Time) {
		after := e.Now()
		skew := theirs.Sub(before.Add(after.Sub(before) / 2)).Round(time.Second)
		if skew.Abs() > maxSkew {
			f := bad(Fail, fmt.Sprintf("the clock of %s is %v ahead of this machine's", whose, skew), "clock", whose)
			f.cure.ZH = fmt.Sprintf(cures["clock"].ZH, zh)
			found = append(found, f)
			return
		}
		found = append(found, ok("%s: %v", whose, skew))
	}
	if db, err := e.database(ctx); err == nil {
		var seconds float64
		before := e.Now()
		if err := db.GetContext(ctx, &seconds, `SELECT UNIX_TIMESTAMP(CURRENT_TIMESTAMP(3))`); err == nil {
			compare("the database", "数据库", time.UnixMilli(int64(seconds*1000)), before)
		}
	}
	before := e.Now()
	if resp, err := get(ctx, e.BaseURL+"/"); err == nil {
		if theirs, err := http.ParseTime(resp.header.Get("Date")); err == nil {
			compare("WeChat", "微信", theirs, before)
		}
	}
	if found == nil {
		return []finding{skip("neither the database nor WeChat answers")}
	}
	return found
}
