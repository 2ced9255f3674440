package stage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// TemplateID is that of the simulator's template with the keywords thing1, time2, amount3 and
// character_string4.
func TemplateID() string { return wechatsim.StandardTemplates()[0].ID }

// SimulatorConfig says who exists.
type SimulatorConfig struct {
	Path         string // the program
	Followers    int
	MiniUsers    int
	NotFollowing float64 // share of the mini-program users who do not follow
	NoLimits     bool    // without WeChat's daily limits: a benchmark spends several days' worth
	Log          io.Writer
}

// Simulator is the simulator in a process of its own, and the client of its control interface.
type Simulator struct {
	*Process
	URL    string
	client *http.Client
}

// StartSimulator starts the simulator on a free loopback port and waits until it says its address.
func StartSimulator(ctx context.Context, cfg SimulatorConfig) (*Simulator, error) {
	said := &firstLine{next: cfg.Log, line: make(chan string, 1)}
	process, err := Start(Command{
		Path: cfg.Path,
		Args: []string{
			"-listen", "127.0.0.1:0",
			"-followers", strconv.Itoa(cfg.Followers),
			"-mini-users", strconv.Itoa(cfg.MiniUsers),
			"-not-following", strconv.FormatFloat(cfg.NotFollowing, 'f', -1, 64),
			"-limits=" + strconv.FormatBool(!cfg.NoLimits),
		},
		Stdout: said,
		Stderr: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	s := &Simulator{Process: process, client: &http.Client{Transport: &http.Transport{}}}
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	select {
	case s.URL = <-said.line:
		if !strings.HasPrefix(s.URL, "http://") {
			return nil, errors.Join(fmt.Errorf("the simulator said %q instead of its address", s.URL), process.Stop())
		}
		return s, nil
	case <-process.Done():
		return nil, fmt.Errorf("the simulator ended while starting: %s", process.Ended())
	case <-timer.C:
		return nil, errors.Join(errors.New("the simulator did not say its address within 20 s"), process.Stop())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), process.Stop())
	}
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
	if f.next == nil {
		return len(b), nil
	}
	return f.next.Write(b)
}

// Messages returns what the official account delivered, in the order in which the msgids were given out.
func (s *Simulator) Messages(ctx context.Context) ([]wechatsim.Message, error) {
	return readLines[wechatsim.Message](ctx, s, "messages", url.Values{"appid": {AppID}})
}

// MiniUsers returns the users of the mini program; Following is not known there.
func (s *Simulator) MiniUsers(ctx context.Context) ([]wechatsim.Identity, error) {
	return readLines[wechatsim.Identity](ctx, s, "mini-users", url.Values{"appid": {MiniAppID}, "format": {"ndjson"}})
}

// Truth returns who a person is in the official account, and whether he follows it.
func (s *Simulator) Truth(ctx context.Context, person int) (truth wechatsim.Identity, err error) {
	err = s.get(ctx, "truth", url.Values{"appid": {AppID}, "person": {strconv.Itoa(person)}},
		func(body io.Reader) error { return json.NewDecoder(body).Decode(&truth) })
	return truth, err
}

// Stats returns the simulator's counters since its start or the last Reset.
func (s *Simulator) Stats(ctx context.Context) (stats wechatsim.Stats, err error) {
	err = s.get(ctx, "stats", nil, func(body io.Reader) error {
		return json.NewDecoder(body).Decode(&stats)
	})
	return stats, err
}

// Follow lets a person follow the official account.
func (s *Simulator) Follow(ctx context.Context, person int) error {
	return s.post(ctx, "follow", url.Values{"appid": {AppID}, "person": {strconv.Itoa(person)}})
}

// Join lets n persons follow whom nobody knew, at random places in the list, and returns their numbers.
func (s *Simulator) Join(ctx context.Context, n int) ([]int, error) { return s.draw(ctx, "join", n) }

// Leave lets n followers go, drawn at random, and returns their numbers.
func (s *Simulator) Leave(ctx context.Context, n int) ([]int, error) { return s.draw(ctx, "leave", n) }

func (s *Simulator) draw(ctx context.Context, command string, n int) ([]int, error) {
	request, err := s.request(ctx, http.MethodPost, command, url.Values{"appid": {AppID}, "n": {strconv.Itoa(n)}})
	if err != nil {
		return nil, err
	}
	var drawn struct {
		Persons []int `json:"persons"`
	}
	err = s.do(request, func(body io.Reader) error { return json.NewDecoder(body).Decode(&drawn) })
	return drawn.Persons, err
}

// SetLatency adds d to every answer from now on, instead of what was added before.
func (s *Simulator) SetLatency(ctx context.Context, d time.Duration) error {
	return s.post(ctx, "latency", url.Values{"d": {d.String()}})
}

// Reset sets the counters to zero and forgets the delivered messages.
func (s *Simulator) Reset(ctx context.Context) error { return s.post(ctx, "reset", nil) }

func (s *Simulator) post(ctx context.Context, command string, query url.Values) error {
	request, err := s.request(ctx, http.MethodPost, command, query)
	if err != nil {
		return err
	}
	return s.do(request, func(io.Reader) error { return nil })
}

func (s *Simulator) get(ctx context.Context, command string, query url.Values, take func(io.Reader) error) error {
	request, err := s.request(ctx, http.MethodGet, command, query)
	if err != nil {
		return err
	}
	return s.do(request, take)
}

// readLines reads an answer of one JSON value a line.
func readLines[T any](ctx context.Context, s *Simulator, command string, query url.Values) (values []T, err error) {
	err = s.get(ctx, command, query, func(body io.Reader) error {
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
	return values, err
}

func (s *Simulator) request(ctx context.Context, method, command string, query url.Values) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.URL+"/_sim/"+command+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("asking the simulator: %w", err)
	}
	return request, nil
}

// do makes one call of the control interface and hands its answer to take.
func (s *Simulator) do(request *http.Request, take func(io.Reader) error) error {
	response, err := s.client.Do(request)
	if err != nil {
		return fmt.Errorf("asking the simulator: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		return fmt.Errorf("asking the simulator for %s: %s: %s", request.URL.Path, response.Status, text)
	}
	if err := take(response.Body); err != nil {
		return fmt.Errorf("reading the simulator's answer to %s: %w", request.URL.Path, err)
	}
	_, _ = io.Copy(io.Discard, response.Body) // so that the connection is used again
	return nil
}
