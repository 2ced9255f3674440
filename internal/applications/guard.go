package applications

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// maxFailures is how many wrong secrets a source may show a minute.
	maxFailures   = 5
	failureWindow = time.Minute
	// maxSources bounds the memory, about a megabyte. Beyond it the oldest is forgotten: whoever
	// has so many addresses is not held up by counting each.
	maxSources = 8192
)

// guard counts wrong secrets by source, for this instance. It bounds the noise, since nobody finds
// 128 bits by trying.
type guard struct {
	now func() time.Time

	mu      sync.Mutex
	sources map[netip.Prefix]*list.Element
	order   *list.List // of *failures, the oldest first
}

type failures struct {
	source netip.Prefix
	since  time.Time
	count  int
	tried  []uint64 // different secrets, at most maxFailures and one more
}

func newGuard(now func() time.Time) *guard {
	return &guard{now: now, sources: make(map[netip.Prefix]*list.Element), order: list.New()}
}

// failed notes a wrong secret, and reports whether the source has shown more than it may.
func (g *guard) failed(from netip.Addr, hash [sha256.Size]byte) (limited bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.find(from)
	if f == nil {
		f = &failures{source: sourceOf(from), since: g.now()}
		g.sources[f.source] = g.order.PushBack(f)
		if g.order.Len() > maxSources {
			g.forget(g.order.Front())
		}
	}
	f.count++
	tried := binary.BigEndian.Uint64(hash[:])
	if len(f.tried) <= maxFailures && !slices.Contains(f.tried, tried) {
		f.tried = append(f.tried, tried)
	}
	return f.count > maxFailures
}

// blocked reports whether the source has tried so many different secrets that a right one is
// refused too, for what is left of the minute. A program with one wrong secret, however often it
// shows it, does not shut out its neighbours behind the same address.
func (g *guard) blocked(from netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.find(from)
	return f != nil && len(f.tried) > maxFailures
}

// find drops those whose minute is over, which are the oldest.
func (g *guard) find(from netip.Addr) *failures {
	now := g.now()
	for e := g.order.Front(); e != nil; e = g.order.Front() {
		age := now.Sub(e.Value.(*failures).since)
		if age >= 0 && age < failureWindow {
			break
		}
		g.forget(e)
	}
	if e := g.sources[sourceOf(from)]; e != nil {
		return e.Value.(*failures)
	}
	return nil
}

func (g *guard) forget(e *list.Element) {
	f := g.order.Remove(e).(*failures)
	delete(g.sources, f.source)
}

// sourceOf is what counts as one source: of IPv6 a /64, which everybody has.
func sourceOf(from netip.Addr) netip.Prefix {
	bits := 32
	if from.Is6() {
		bits = 64
	}
	p, err := from.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // of unknown address: all of them together
	}
	return p
}
