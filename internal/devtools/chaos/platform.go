package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// platform is the simulator behind listeners that note every post.
type platform struct {
	*wechatsim.Server
	inFlight atomic.Int64 // posts that have no answer yet

	mu    sync.Mutex
	posts []checker.Post
}

// handler is what one daemon reaches, so that its posts can be told from the other one's.
func (p *platform) handler(daemon string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != harness.PathSend {
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
		p.inFlight.Add(1)
		defer p.inFlight.Add(-1)
		p.ServeHTTP(w, r)
	}
}

func (p *platform) note(body []byte, daemon string, at time.Time) {
	var m struct {
		ClientID string          `json:"client_msg_id"`
		Data     json.RawMessage `json:"data"`
	}
	_ = json.Unmarshal(body, &m) // what cannot be read is refused by the simulator
	p.mu.Lock()
	defer p.mu.Unlock()
	p.posts = append(p.posts, checker.Post{
		Order: checker.Order(m.Data), ClientMsgID: m.ClientID, From: daemon, At: at,
	})
}

func (p *platform) allPosts() []checker.Post {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.posts)
}

// firstPost is when the first post after a moment arrived from one of the daemons; ok is false if
// none has.
func (p *platform) firstPost(
	after time.Time, from func(daemon string) bool,
) (at time.Time, ok bool) {
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
