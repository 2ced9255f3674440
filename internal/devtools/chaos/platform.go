package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const pathSend = "/cgi-bin/message/template/send"

// post is one message that arrived at WeChat, whatever was answered. What the simulator delivers shows
// whether somebody got a message twice; only the posts show whether a message was repeated when that was
// no longer safe.
type post struct {
	order    string
	clientID string
	from     string // the daemon's name
	at       time.Time
}

// platform is the simulator behind listeners that note every post.
type platform struct {
	*wechatsim.Server
	stage  *stage.Stage
	flying atomic.Int64 // posts that have no answer yet

	mu    sync.Mutex
	posts []post
}

// newPlatform makes a simulator that nobody can reach yet.
func newPlatform(s *stage.Stage, options wechatsim.Options) *platform {
	p := &platform{Server: wechatsim.New(options), stage: s}
	s.OnClose(func() error { p.Close(); return nil })
	return p
}

// listen opens a door on loopback for one daemon, so that its posts can be told from the other one's.
func (p *platform) listen(ctx context.Context, daemon string) (url string, err error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("starting the simulator: %w", err)
	}
	web := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, daemon) }),
		ReadHeaderTimeout: time.Minute,
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = web.Serve(listener) }) // ends with Close
	p.stage.OnClose(func() error {
		err := web.Close()
		serving.Wait()
		return err
	})
	return "http://" + listener.Addr().String(), nil
}

func (p *platform) serve(w http.ResponseWriter, r *http.Request, daemon string) {
	if r.URL.Path != pathSend {
		p.ServeHTTP(w, r)
		return
	}
	arrived := time.Now()
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // killed in the middle of its request
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	p.note(body, daemon, arrived)
	p.flying.Add(1)
	defer p.flying.Add(-1)
	p.ServeHTTP(w, r)
}

func (p *platform) note(body []byte, daemon string, at time.Time) {
	var m struct {
		ClientID string          `json:"client_msg_id"`
		Data     json.RawMessage `json:"data"`
	}
	_ = json.Unmarshal(body, &m) // what cannot be read is refused by the simulator
	p.mu.Lock()
	defer p.mu.Unlock()
	p.posts = append(p.posts, post{order: texts(m.Data)[keyOrder], clientID: m.ClientID, from: daemon, at: at})
}

// allPosts returns what has arrived so far.
func (p *platform) allPosts() []post {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]post(nil), p.posts...)
}

// texts reads the values out of a message's or a request's data: {"thing1": {"value": "x"}} or
// {"thing1": "x"}.
func texts(data []byte) map[string]string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		return nil
	}
	values := make(map[string]string, len(fields))
	for key, field := range fields {
		var long struct {
			Value string `json:"value"`
		}
		var short string
		if json.Unmarshal(field, &short) != nil && json.Unmarshal(field, &long) == nil {
			short = long.Value
		}
		values[key] = short
	}
	return values
}

// firstPost is when the first post after a moment arrived from one of the daemons; ok is false if none has.
func (p *platform) firstPost(after time.Time, from func(daemon string) bool) (at time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The posts stand in the order of their arrival, but for a few milliseconds.
	for i := len(p.posts) - 1; i >= 0 && p.posts[i].at.After(after.Add(-time.Second)); i-- {
		if p.posts[i].at.After(after) && from(p.posts[i].from) {
			at, ok = p.posts[i].at, true
		}
	}
	return at, ok
}
