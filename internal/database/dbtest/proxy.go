package dbtest

import (
	"testing"

	"github.com/unionbridge/unionbridge/internal/devtools/link"
)

// Proxy stands between a program and the test server and can take the server away.
type Proxy struct {
	t    testing.TB
	link *link.Link
	dsn  string
}

// NewProxy returns a proxy to the server of dsn, which ends with the test.
func NewProxy(t testing.TB, dsn string) *Proxy {
	t.Helper()
	l, through, err := link.OpenDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &Proxy{t, l, through}
}

// DSN leads through the proxy.
func (p *Proxy) DSN() string { return p.dsn }

// Cut ends all connections at once and refuses new ones until Restore.
func (p *Proxy) Cut() { p.link.Cut() }

// Restore lets connections through again.
func (p *Proxy) Restore() {
	if err := p.link.Heal(); err != nil {
		p.t.Error(err)
	}
}
