package harness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// The simulator's accounts.
const (
	AppID     = wechatsim.StandardAppID
	Secret    = wechatsim.StandardSecret
	MiniAppID = wechatsim.StandardMiniAppID
)

// The paths of WeChat's API.
const (
	PathList  = "/cgi-bin/user/get"
	PathInfo  = "/cgi-bin/user/info"
	PathBatch = "/cgi-bin/user/info/batchget"
	PathSend  = "/cgi-bin/message/template/send"
	PathToken = "/cgi-bin/stable_token"
)

// Pages is the number of calls that the list of so many followers takes, the empty last page
// included.
func Pages(followers int) int { return (followers+9_999)/10_000 + 1 }

// Batches is the number of batchgets that so many people take.
func Batches(people int) int { return (people + 99) / 100 }

// TemplateID is that of the simulator's template with the keywords thing1, time2, amount3 and
// character_string4.
func TemplateID() string { return wechatsim.StandardTemplates()[0].ID }

// Serve serves HTTP on a loopback port of its own until the run ends. A simulator in this process
// is reached by it.
func (t *T) Serve(handler http.Handler) (url string) {
	var lc net.ListenConfig
	listener, err := lc.Listen(t.ctx, "tcp", "127.0.0.1:0")
	t.Checkf(err, "starting the simulator")
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // ends with Close
	t.Cleanup(func() error {
		err := server.Close()
		serving.Wait()
		return err
	})
	return "http://" + listener.Addr().String()
}

// SimulatorConfig says who exists.
type SimulatorConfig struct {
	Path         string // the program
	Followers    int
	MiniUsers    int
	NotFollowing float64 // share of the mini-program users who do not follow
	NoLimits     bool    // without WeChat's daily limits: a benchmark exceeds them
}

// Simulator is the simulator in a process of its own, and the client of its control interface.
type Simulator struct {
	*Process
	URL    string
	t      *T
	client *http.Client
}

// StartSimulator starts the simulator on a free loopback port and waits until it says its address.
func (t *T) StartSimulator(cfg SimulatorConfig) *Simulator {
	log := t.Log("wechatsim.log")
	said := &firstLine{next: log, line: make(chan string, 1)}
	s := t.Simulator("")
	s.Process = t.Start(Command{
		Path: cfg.Path,
		Args: []string{
			"-listen", "127.0.0.1:0",
			"-followers", strconv.Itoa(cfg.Followers),
			"-mini-users", strconv.Itoa(cfg.MiniUsers),
			"-not-following", strconv.FormatFloat(cfg.NotFollowing, 'f', -1, 64),
			"-limits=" + strconv.FormatBool(!cfg.NoLimits),
		},
		Stdout: said,
		Stderr: log,
	})
	t.Await(Wait{
		For: "the simulator's address", Every: 5 * time.Millisecond, Most: 20 * time.Second,
		Process: s.Process, Log: func() string { return t.LogTail("wechatsim.log") },
	}, func() bool {
		select {
		case s.URL = <-said.line:
			return true
		default:
			return false
		}
	})
	if !strings.HasPrefix(s.URL, "http://") {
		t.Fatalf("the simulator said %q instead of its address", s.URL)
	}
	return s
}

// Simulator is a client of the control interface at url.
func (t *T) Simulator(url string) *Simulator {
	return &Simulator{URL: url, t: t, client: &http.Client{Transport: &http.Transport{}}}
}

// firstLine passes a program's output on and reports the first line of it.
type firstLine struct {
	next io.Writer
	line chan string // holds one

	mu   sync.Mutex
	head []byte
	done bool
}

func (f *firstLine) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.done {
		f.head = append(f.head, b...)
		// Not before the line's end: what a pipe cuts off would look whole.
		if line, _, whole := bytes.Cut(f.head, []byte("\n")); whole {
			f.line <- string(bytes.TrimSpace(line))
			f.done, f.head = true, nil
		}
	}
	return f.next.Write(b)
}

// Messages returns what the official account delivered, in the order of the msgids.
func (s *Simulator) Messages() []wechatsim.Message {
	return readLines[wechatsim.Message](s, "messages", url.Values{"appid": {AppID}})
}

// MiniUsers returns the users of the mini program; Following is not known there.
func (s *Simulator) MiniUsers() []wechatsim.Identity {
	query := url.Values{"appid": {MiniAppID}, "format": {"ndjson"}}
	return readLines[wechatsim.Identity](s, "mini-users", query)
}

// Truth returns who a person is in the official account, and whether they follow it.
func (s *Simulator) Truth(person int) (truth wechatsim.Identity) {
	query := url.Values{"appid": {AppID}, "person": {strconv.Itoa(person)}}
	s.call(http.MethodGet, "truth", query, decode(&truth))
	return truth
}

// Stats returns the simulator's counters since its start or the last Reset.
func (s *Simulator) Stats() (stats wechatsim.Stats) {
	s.call(http.MethodGet, "stats", nil, decode(&stats))
	return stats
}

// Delivered is the number of messages of the official account since the last Reset.
func (s *Simulator) Delivered() int64 { return s.Stats().Delivered[AppID] }

// Follow lets a person follow the official account.
func (s *Simulator) Follow(person int) {
	s.post("follow", url.Values{"appid": {AppID}, "person": {strconv.Itoa(person)}})
}

// Join lets n unknown persons follow, at random places in the list, and returns their numbers.
func (s *Simulator) Join(n int) []int { return s.draw("join", n) }

// Leave lets n followers go, drawn at random, and returns their numbers.
func (s *Simulator) Leave(n int) []int { return s.draw("leave", n) }

func (s *Simulator) draw(command string, n int) []int {
	var drawn struct {
		Persons []int `json:"persons"`
	}
	query := url.Values{"appid": {AppID}, "n": {strconv.Itoa(n)}}
	s.call(http.MethodPost, command, query, decode(&drawn))
	return drawn.Persons
}

// SetLatency adds d to every answer from now on, instead of what was added before.
func (s *Simulator) SetLatency(d time.Duration) {
	s.post("latency", url.Values{"d": {d.String()}})
}

// Reset sets the counters to zero and forgets the delivered messages.
func (s *Simulator) Reset() { s.post("reset", nil) }

func (s *Simulator) post(command string, query url.Values) {
	s.call(http.MethodPost, command, query, func(io.Reader) error { return nil })
}

func decode(value any) func(io.Reader) error {
	return func(body io.Reader) error { return json.NewDecoder(body).Decode(value) }
}

// readLines reads an answer of one JSON value a line.
func readLines[T any](s *Simulator, command string, query url.Values) (values []T) {
	s.call(http.MethodGet, command, query, func(body io.Reader) error {
		decoder := json.NewDecoder(bufio.NewReaderSize(body, 1<<16))
		for {
			var value T
			if err := decoder.Decode(&value); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			values = append(values, value)
		}
	})
	return values
}

// call makes one call of the control interface and hands its answer to take.
func (s *Simulator) call(method, command string, query url.Values, take func(io.Reader) error) {
	s.t.Checkf(s.try(method, command, query, take), "asking the simulator for %s", command)
}

func (s *Simulator) try(
	method, command string, query url.Values, take func(io.Reader) error,
) error {
	address := s.URL + "/_sim/" + command + "?" + query.Encode()
	request, err := http.NewRequestWithContext(s.t.ctx, method, address, nil)
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	err = take(response.Body)
	_, _ = io.Copy(io.Discard, response.Body) // so that the connection is used again
	return err
}

// InsertMiniUsers fills mini_user as the apps do after wx.login.
func (d DB) InsertMiniUsers(users []wechatsim.Identity) {
	d.Insert("mini_user (appid, openid, unionid)", len(users), func(i int) []any {
		return []any{users[i].AppID, users[i].OpenID, users[i].UnionID}
	})
}
