package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// network is what stands between the programs and the database server: one link for each of them, so that
// one can be cut off alone.
type network struct {
	server *toxiproxy.ApiServer // holds the links' settings; its own listener is never started

	mu    sync.Mutex
	links []*link
}

func newNetwork() *network {
	return &network{server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
}

// link is a loopback port that leads to the server.
type link struct {
	proxy *toxiproxy.Proxy
	addr  string
}

// add opens a link to upstream, host:port.
func (n *network) add(name, upstream string) (*link, error) {
	proxy := toxiproxy.NewProxy(n.server, name, "127.0.0.1:0", upstream)
	if err := proxy.Start(); err != nil {
		return nil, fmt.Errorf("opening a link to %s: %w", upstream, err)
	}
	l := &link{proxy: proxy, addr: proxy.Listen}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links = append(n.links, l)
	return l, nil
}

// healAll makes all links good ones again.
func (n *network) healAll() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var failures []error
	for _, l := range n.links {
		failures = append(failures, l.heal())
	}
	return errors.Join(failures...)
}

func (n *network) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.proxy.Stop()
	}
	return nil
}

// toxic is a way in which a link is bad, in the words of toxiproxy.
type toxic struct {
	kind string
	// stream is upstream for what goes to the server, downstream for its answers.
	stream string
	// attributes is the rest of toxiproxy's JSON, without braces.
	attributes string
	what       string
}

// poison makes the link bad until heal; several toxics add up.
func (l *link) poison(t toxic) error {
	_, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(
		fmt.Sprintf(`{"type": %q, "stream": %q, "attributes": {%s}}`, t.kind, t.stream, t.attributes)))
	if err != nil && !errors.Is(err, toxiproxy.ErrToxicAlreadyExists) {
		return fmt.Errorf("poisoning a link with %s: %w", t.kind, err)
	}
	return nil
}

// cut ends all connections and refuses new ones until heal.
func (l *link) cut() { l.proxy.Stop() }

// healPatience is how long a toxic may take to leave a connection that is stuck.
const healPatience = 2 * time.Second

// heal makes the link a good one. Connections live on, unless a toxic does not let go of one that is stuck:
// then all are ended.
func (l *link) heal() error {
	healed := make(chan struct{})
	go func() {
		defer close(healed)
		l.proxy.Toxics.ResetToxics(context.Background())
	}()
	timer := time.NewTimer(healPatience)
	defer timer.Stop()
	select {
	case <-healed:
	case <-timer.C:
		l.proxy.Stop()
		<-healed
	}
	if err := l.proxy.Start(); err != nil && !errors.Is(err, toxiproxy.ErrProxyAlreadyStarted) {
		return fmt.Errorf("opening a link again: %w", err)
	}
	return nil
}
