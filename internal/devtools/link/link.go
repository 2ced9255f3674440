// Package link puts a proxy between a program and its database server: a link that can be cut,
// slowed down and led elsewhere. It is a thin layer over toxiproxy.
package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/go-sql-driver/mysql"
	"github.com/rs/zerolog"
)

// Link is a loopback port that leads to a server.
type Link struct {
	proxy    *toxiproxy.Proxy
	addr     string
	upstream atomic.Value
}

// Open opens a link to upstream, host:port.
func Open(upstream string) (*Link, error) {
	// The API server only holds settings; its own listener is never started.
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxy := toxiproxy.NewProxy(api, upstream, "127.0.0.1:0", upstream)
	if err := proxy.Start(); err != nil {
		return nil, fmt.Errorf("opening a link to %s: %w", upstream, err)
	}
	l := &Link{proxy: proxy, addr: proxy.Listen}
	l.upstream.Store(upstream)
	return l, nil
}

// OpenDSN opens a link to the server of a DSN, and returns the DSN that leads through it.
func OpenDSN(dsn string) (l *Link, through string, err error) {
	settings, err := parseTCP(dsn)
	if err != nil {
		return nil, "", err
	}
	l, err = Open(settings.Addr)
	if err != nil {
		return nil, "", err
	}
	settings.Addr = l.addr
	return l, settings.FormatDSN(), nil
}

func parseTCP(dsn string) (*mysql.Config, error) {
	settings, err := mysql.ParseDSN(dsn)
	if err != nil {
		// The driver's error may quote the DSN, which holds a password.
		return nil, errors.New("the DSN of the database server cannot be read")
	}
	if settings.Net != "tcp" {
		return nil, fmt.Errorf("the database server listens on %s; a link needs tcp(host:port)",
			settings.Addr)
	}
	return settings, nil
}

// Addr is the link's host:port.
func (l *Link) Addr() string { return l.addr }

// Upstream is where the link leads.
func (l *Link) Upstream() string { return l.upstream.Load().(string) }

// Close ends the link and all its connections. It may be called twice.
func (l *Link) Close() error {
	l.proxy.Stop()
	return nil
}

// Cut ends all connections and refuses new ones until Heal.
func (l *Link) Cut() { l.proxy.Stop() }

func (l *Link) lead(upstream string) error {
	update := &toxiproxy.Proxy{Listen: l.addr, Upstream: upstream, Enabled: true}
	if err := l.proxy.Update(update); err != nil {
		return fmt.Errorf("leading a link to %s: %w", upstream, err)
	}
	l.upstream.Store(upstream)
	return nil
}

// Failover leads the link to the next server as soon as the present one accepts no connections,
// until ctx ends. It does not go back: all connections lead to one server at a time.
func (l *Link) Failover(ctx context.Context, servers []string) {
	dialer := net.Dialer{Timeout: time.Second}
	accepts := func(server string) bool {
		conn, err := dialer.DialContext(ctx, "tcp", server)
		return err == nil && conn.Close() == nil
	}
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if accepts(l.Upstream()) {
			continue
		}
		for _, server := range servers {
			// What cannot be led there is led in the next turn.
			if ctx.Err() == nil && accepts(server) && l.lead(server) == nil {
				break
			}
		}
	}
}

// Toxic is a way in which a link is bad, in the words of toxiproxy.
type Toxic struct {
	Kind string
	// Stream is upstream for what goes to the server, downstream for its answers.
	Stream string
	// Attributes is the rest of toxiproxy's JSON, without braces.
	Attributes string
	What       string // for people
}

// Poison makes the link bad until Heal; several toxics add up.
func (l *Link) Poison(t Toxic) error {
	_, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
		`{"type": %q, "stream": %q, "attributes": {%s}}`, t.Kind, t.Stream, t.Attributes)))
	if err != nil && !errors.Is(err, toxiproxy.ErrToxicAlreadyExists) {
		return fmt.Errorf("poisoning a link with %s: %w", t.Kind, err)
	}
	return nil
}

// Heal makes the link a good one. Connections live on, unless a toxic does not let go of one that
// is stuck: then all are ended.
func (l *Link) Heal() error {
	stopped := make(chan struct{})
	stuck := time.AfterFunc(2*time.Second, func() { l.proxy.Stop(); close(stopped) })
	l.proxy.Toxics.ResetToxics(context.Background())
	if !stuck.Stop() {
		<-stopped
	}
	err := l.proxy.Start()
	if err != nil && !errors.Is(err, toxiproxy.ErrProxyAlreadyStarted) {
		return fmt.Errorf("opening a link again: %w", err)
	}
	return nil
}
