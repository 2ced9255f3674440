package harness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// The simulator's accounts.
const (
	AppID      = wechatsim.StandardAppID
	Secret     = wechatsim.StandardSecret
	MiniAppID  = wechatsim.StandardMiniAppID
	MiniSecret = wechatsim.StandardMiniSecret
)

// The paths of WeChat's API.
const (
	PathList      = "/cgi-bin/user/get"
	PathInfo      = "/cgi-bin/user/info"
	PathBatch     = "/cgi-bin/user/info/batchget"
	PathSend      = "/cgi-bin/message/template/send"
	PathSubscribe = "/cgi-bin/message/subscribe/send"
	PathToken     = "/cgi-bin/stable_token"
)

// Pages is how many calls list so many followers, the empty last page included.
func Pages(followers int) int { return (followers+9_999)/10_000 + 1 }

// Batches is the number of batchgets that so many people take.
func Batches(people int) int { return (people + 99) / 100 }

// TemplateID is that of the simulator's first template.
func TemplateID() string { return wechatsim.StandardTemplates()[0].ID }

// MiniTemplateID is that of the first template of the mini program, which is used up by messages.
// It has the same keys as the first one of the official account.
func MiniTemplateID() string { return wechatsim.StandardSubscribeTemplates()[0].ID }

// Serve serves HTTP on a loopback port until the run ends.
func (t *T) Serve(handler http.Handler) (url string) {
	server := httptest.NewServer(handler)
	t.Cleanup(func() error { server.Close(); return nil })
	return server.URL
}

// SimulatorConfig says who exists.
type SimulatorConfig struct {
	Path         string // the program
	Followers    int
	MiniUsers    int
	NotFollowing float64 // share of the mini-program users who do not follow
	NoOfficial   bool    // there is no official account
	Granted      int     // messages of each template that each mini-program user allows
	NoLimits     bool    // without WeChat's daily limits: a benchmark exceeds them
}

// Simulator is the simulator in a process of its own, and the client of its control interface.
type Simulator struct {
	*Process
	URL string
	t   *T
}

// StartSimulator starts the simulator on a free loopback port and waits until it says its address.
func (t *T) StartSimulator(cfg SimulatorConfig) *Simulator {
	const out, log = "wechatsim.out", "wechatsim.log"
	s := t.Simulator("")
	accounts := 1
	if cfg.NoOfficial {
		accounts = 0
	}
	s.Process = t.Start(Command{
		Path: cfg.Path,
		Args: []string{
			"-listen", "127.0.0.1:0",
			"-accounts", strconv.Itoa(accounts),
			"-granted", strconv.Itoa(cfg.Granted),
			"-followers", strconv.Itoa(cfg.Followers),
			"-mini-users", strconv.Itoa(cfg.MiniUsers),
			"-not-following", strconv.FormatFloat(cfg.NotFollowing, 'f', -1, 64),
			"-limits=" + strconv.FormatBool(!cfg.NoLimits),
		},
		Stdout: t.Log(out),
		Stderr: t.Log(log),
	})
	t.Await(Wait{
		For: "the simulator's address", Every: 5 * time.Millisecond, Most: 20 * time.Second,
		Process: s.Process, Log: func() string { return t.LogTail(log) },
	}, func() bool {
		said, _ := os.ReadFile(t.Path(out))
		// Not before the line's end: half an address would look whole.
		line, _, whole := strings.Cut(string(said), "\n")
		s.URL = line
		return whole
	})
	return s
}

// Simulator is a client of the control interface at url.
func (t *T) Simulator(url string) *Simulator { return &Simulator{URL: url, t: t} }

// Messages returns what the official account delivered, in the order of the msgids.
func (s *Simulator) Messages() []wechatsim.Message { return s.MessagesOf(AppID) }

// MessagesOf returns what an account delivered, in the order of the msgids.
func (s *Simulator) MessagesOf(appid string) []wechatsim.Message {
	return call[wechatsim.Message](s, http.MethodGet, "messages?appid="+appid)
}

// MiniUsers returns the users of the mini program; Following is not known there.
func (s *Simulator) MiniUsers() []wechatsim.Identity {
	query := "mini-users?format=ndjson&appid=" + MiniAppID
	return call[wechatsim.Identity](s, http.MethodGet, query)
}

// Truth returns who a person is in the official account, and whether they follow it.
func (s *Simulator) Truth(person int) wechatsim.Identity {
	query := fmt.Sprintf("truth?appid=%s&person=%d", AppID, person)
	return call[wechatsim.Identity](s, http.MethodGet, query)[0]
}

// Stats returns the simulator's counters since its start or the last Reset.
func (s *Simulator) Stats() wechatsim.Stats {
	return call[wechatsim.Stats](s, http.MethodGet, "stats")[0]
}

// Delivered is the number of messages of all accounts since the last Reset.
func (s *Simulator) Delivered() (n int64) {
	for _, messages := range s.Stats().Delivered {
		n += messages
	}
	return n
}

// Follow lets a person follow the official account.
func (s *Simulator) Follow(person int) {
	s.post(fmt.Sprintf("follow?appid=%s&person=%d", AppID, person))
}

// Join lets n unknown persons follow, at random places in the list, and returns their numbers.
func (s *Simulator) Join(n int) []int { return s.draw("join", n) }

// SetCallback has WeChat push the official account's events to an address; an empty URL: nowhere.
func (s *Simulator) SetCallback(c *wechatsim.Callback) { s.SetCallbackOf(AppID, c) }

// SetCallbackOf is SetCallback for any account.
func (s *Simulator) SetCallbackOf(appid string, c *wechatsim.Callback) {
	s.postJSON("callback?appid="+appid, c)
}

// SetFault makes calls go wrong.
func (s *Simulator) SetFault(f wechatsim.Fault) { s.postJSON("fault", f) }

func (s *Simulator) postJSON(query string, value any) {
	body, err := json.Marshal(value)
	s.t.Check(err)
	callWith[json.RawMessage](s, http.MethodPost, query, bytes.NewReader(body))
}

// Tap lets a mini-program user accept one message of [MiniTemplateID], which WeChat pushes.
func (s *Simulator) Tap(person int) { s.accept("subscribe", person, "") }

// Grant is a Tap whose push never comes. It may be for several messages.
func (s *Simulator) Grant(person, messages int) {
	s.accept("grant", person, "&n="+strconv.Itoa(messages))
}

func (s *Simulator) accept(how string, person int, more string) {
	s.post(fmt.Sprintf("%s?appid=%s&template=%s&person=%d%s", how, MiniAppID, MiniTemplateID(),
		person, more))
}

// Grants returns what people really allow the mini program.
func (s *Simulator) Grants() []wechatsim.GrantState {
	return call[[]wechatsim.GrantState](s, http.MethodGet, "grants?appid="+MiniAppID)[0]
}

// Leave lets n followers go, drawn at random, and returns their numbers.
func (s *Simulator) Leave(n int) []int { return s.draw("leave", n) }

func (s *Simulator) draw(command string, n int) []int {
	type drawn struct{ Persons []int }
	query := fmt.Sprintf("%s?appid=%s&n=%d", command, AppID, n)
	return call[drawn](s, http.MethodPost, query)[0].Persons
}

// SetLatency adds d to every answer from now on, instead of what was added before.
func (s *Simulator) SetLatency(d time.Duration) { s.post("latency?d=" + d.String()) }

// Reset sets the counters to zero and forgets the delivered messages.
func (s *Simulator) Reset() { s.post("reset") }

func (s *Simulator) post(query string) { call[json.RawMessage](s, http.MethodPost, query) }

// call makes one call of the control interface, whose answer is one JSON value or several.
func call[T any](s *Simulator, method, query string) (values []T) {
	return callWith[T](s, method, query, nil)
}

func callWith[T any](s *Simulator, method, query string, body io.Reader) (values []T) {
	request, err := http.NewRequestWithContext(s.t.ctx, method, s.URL+"/_sim/"+query, body)
	s.t.Check(err)
	response, err := http.DefaultClient.Do(request)
	s.t.Checkf(err, "asking the simulator")
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		s.t.Fatalf("asking the simulator for %s: %s: %s", query, response.Status, text)
	}
	decoder := json.NewDecoder(bufio.NewReaderSize(response.Body, 1<<16))
	for {
		var value T
		if err := decoder.Decode(&value); errors.Is(err, io.EOF) {
			return values
		} else if err != nil {
			s.t.Fatalf("reading the simulator's answer to %s: %w", query, err)
		}
		values = append(values, value)
	}
}

// InsertMiniUsers fills mini_user as the apps do after wx.login.
func (d DB) InsertMiniUsers(users []wechatsim.Identity) {
	d.Insert("mini_user (appid, openid, unionid)", len(users), func(i int) []any {
		return []any{users[i].AppID, users[i].OpenID, users[i].UnionID}
	})
}
