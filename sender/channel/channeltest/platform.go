package channeltest

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// Platform is WeChat as the channel under test meets it. It is an http.RoundTripper that counts.
type Platform struct {
	Sim *wechatsim.Server
	URL string

	server    *httptest.Server
	transport *http.Transport
	mu        sync.Mutex
	trips     map[string]int // calls that were begun, by path
	tokens    []string       // access tokens that were seen
}

func newPlatform(t *testing.T) *Platform {
	sim := wechatsim.NewStandard(100, 100, 0.5)
	server := httptest.NewServer(sim)
	p := &Platform{Sim: sim, URL: server.URL, server: server, transport: &http.Transport{},
		trips: make(map[string]int)}
	t.Cleanup(func() {
		p.cutOff()
		p.Sim.Close()
	})
	return p
}

// RoundTrip counts a call and makes it.
func (p *Platform) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.trips[r.URL.Path]++
	if token := r.URL.Query().Get("access_token"); token != "" {
		p.tokens = append(p.tokens, token)
	}
	p.mu.Unlock()
	return p.transport.RoundTrip(r)
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
	p.transport.CloseIdleConnections()
	p.server.Close()
}
