package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// instance is one place at which the real daemon runs, one process after the other, with its own
// link to the database. One goroutine at a time uses it.
type instance struct {
	*harness.Instance
	t    *harness.T
	link *link.Link
	log  *os.File

	process *harness.Process // nil: not started yet
	ended   []string         // how processes ended that were not killed
	retired bool             // it does not come back
}

func (i *instance) start() {
	if i.process != nil {
		i.t.Check(i.process.Restart())
	} else {
		c := i.Command("run")
		c.Stdout, c.Stderr = i.log, i.log
		i.process = i.t.Start(c)
	}
	_, _ = fmt.Fprintf(i.log, "---- pid %d, %s\n", i.process.Pid(),
		time.Now().Format(time.RFC3339Nano))
}

// alive reports whether the daemon runs, and notes it if it has ended although it was not killed.
func (i *instance) alive() bool {
	if i.process == nil || i.retired {
		return false
	}
	select {
	case <-i.process.Done():
	default:
		return true
	}
	i.ended = append(i.ended, fmt.Sprintf("pid %d of %s: %s", i.process.Pid(), i.Name, i.process.Ended()))
	return false
}

func (i *instance) kill() (pid int) {
	i.alive()
	i.process.Kill()
	return i.process.Pid()
}

func (i *instance) freeze() { i.process.Signal(syscall.SIGSTOP) }

func (i *instance) thaw() { i.process.Signal(syscall.SIGCONT) }

type server struct {
	t       *harness.T
	command harness.Command
	process *harness.Process
	dsn     string // without a schema
}

type serverConfig struct {
	args   []string // added to privatedb's
	env    []string
	output io.Writer
}

func findServer() error {
	switch named := os.Getenv(privatedb.Variable); {
	case strings.HasPrefix(filepath.Base(named), "tidb-server"):
		return errors.New("a private TiDB cannot be started again on its data")
	case named != "":
		return nil
	}
	for _, path := range []string{"mariadbd", "/usr/sbin/mariadbd", "mysqld", "/usr/sbin/mysqld"} {
		if _, err := exec.LookPath(path); err == nil {
			return nil
		}
	}
	return errors.New("there is no mariadbd or mysqld on this machine")
}

// startServer fills a data folder and starts a server on it. The first start is privatedb's, which
// knows how; its command line is then used again, since only a child of our own can be killed and
// started at will.
func startServer(t *harness.T, cfg serverConfig) *server {
	s := &server{t: t}
	t.Scope(func(first *harness.T) {
		running, err := privatedb.Start(t.Context(), privatedb.Config{
			Dir: t.Path("db"), BufferPool: 64 << 20, Args: cfg.args, Output: cfg.output,
		})
		first.Check(err)
		first.Cleanup(running.Stop)
		s.adopt(first, running)
	})
	s.command.Env = cfg.env
	s.process = t.Start(s.command)
	s.await()
	return s
}

func (s *server) adopt(t *harness.T, running *privatedb.Server) {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(running.Pid()) + "/cmdline")
	t.Checkf(err, "reading the server's command line, which works on Linux only")
	words := strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")
	// The init file is gone after the first start.
	words = slices.DeleteFunc(words, func(word string) bool {
		return strings.HasPrefix(word, "--init-file=")
	})
	s.command = harness.Command{Path: words[0], Args: words[1:]}
	settings := t.ParseDSN(running.DSN())
	db := t.Connect(settings)
	settings.User, settings.Passwd = "chaos", rand.Text()
	db.Do("CREATE USER 'chaos'@'127.0.0.1' IDENTIFIED BY '" + settings.Passwd + "'")
	db.Do("GRANT ALL PRIVILEGES ON *.* TO 'chaos'@'127.0.0.1' WITH GRANT OPTION")
	s.dsn = settings.FormatDSN()
}

func (s *server) await() {
	s.t.Scope(func(t *harness.T) {
		db := t.OpenReader(s.dsn)
		t.Await(harness.Wait{
			For: "the database server", Every: 50 * time.Millisecond, Most: time.Minute,
			Process: s.process,
		}, func() bool { return db.PingContext(t.Context()) == nil })
	})
}

// platform is the simulator behind listeners that note every post.
type platform struct {
	*wechatsim.Server
	inFlight atomic.Int64 // posts that have no answer yet

	mu       sync.Mutex
	posts    []checker.Post
	answered map[int]time.Time // by the post's place
}

// handler is what one daemon reaches, so that its posts can be told from the other one's.
func (p *platform) handler(daemon string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		subscribe := r.URL.Path == harness.PathSubscribe
		if r.URL.Path != harness.PathSend && !subscribe {
			p.ServeHTTP(w, r)
			return
		}
		arrived := time.Now()
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			return // killed in the middle of its request
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		post := p.note(body, checker.Post{From: daemon, At: arrived, Subscribe: subscribe})
		p.inFlight.Add(1)
		defer p.inFlight.Add(-1)
		defer p.answer(post)
		p.ServeHTTP(w, r)
	}
}

// note notes a post and returns its place.
func (p *platform) note(body []byte, post checker.Post) int {
	var m struct {
		ClientID string          `json:"client_msg_id"`
		Data     json.RawMessage `json:"data"`
	}
	_ = json.Unmarshal(body, &m) // what cannot be read is refused by the simulator
	p.mu.Lock()
	defer p.mu.Unlock()
	post.Order, post.ClientMsgID = checker.Order(m.Data), m.ClientID
	p.posts = append(p.posts, post)
	return len(p.posts) - 1
}

func (p *platform) answer(post int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answered == nil {
		p.answered = map[int]time.Time{}
	}
	p.answered[post] = time.Now()
}

// subscribing counts the posts of subscribe messages with these orders: those that had no answer at a
// moment, and those that had one.
func (p *platform) subscribing(orders map[string]bool, at time.Time) (open, answered int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, post := range p.posts {
		if !post.Subscribe || !orders[post.Order] {
			continue
		}
		if end, ok := p.answered[i]; ok && end.Before(at) {
			answered++
		} else {
			open++
		}
	}
	return open, answered
}

func (p *platform) allPosts() []checker.Post {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.posts)
}

// firstPost is when the first post after a moment arrived from one of the daemons; ok is false if
// none has.
func (p *platform) firstPost(after time.Time, from func(string) bool) (at time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The posts stand in the order of their arrival, but for a few milliseconds.
	for i := len(p.posts) - 1; i >= 0 && p.posts[i].At.After(after.Add(-time.Second)); i-- {
		if p.posts[i].At.After(after) && from(p.posts[i].From) {
			at, ok = p.posts[i].At, true
		}
	}
	return at, ok
}
