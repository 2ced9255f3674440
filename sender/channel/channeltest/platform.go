package channeltest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// Platform is WeChat as the channel under test meets it.
type Platform struct {
	Sim       *wechatsim.Server
	URL       string
	Transport http.RoundTripper // counts, and can be cut off

	transport *http.Transport
	down      atomic.Bool // no connection
	mu        sync.Mutex
	trips     map[string]int // calls that were begun, by path
	tokens    []string       // access tokens that were seen
}

func newPlatform(t *testing.T) *Platform {
	p := &Platform{Sim: wechatsim.NewStandard(100, 100, 0.5), trips: make(map[string]int)}
	server := httptest.NewServer(p.Sim)
	p.URL, p.transport = server.URL, &http.Transport{DialContext: p.dial}
	p.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		p.note(r)
		return p.transport.RoundTrip(r)
	})
	t.Cleanup(func() {
		p.transport.CloseIdleConnections()
		server.Close()
		p.Sim.Close()
	})
	return p
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (p *Platform) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if p.down.Load() {
		return nil, errors.New("connection refused")
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

func (p *Platform) note(r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trips[r.URL.Path]++
	if token := r.URL.Query().Get("access_token"); token != "" {
		p.tokens = append(p.tokens, token)
	}
}

// begun is how many calls were begun; path "": of all.
func (p *Platform) begun(path string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, trips := range p.trips {
		if path == "" || at == path {
			n += trips
		}
	}
	return n
}

// cutOff ends all connections and lets none begin.
func (p *Platform) cutOff() {
	p.down.Store(true)
	p.transport.CloseIdleConnections()
}
