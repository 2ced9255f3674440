package applications

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// maxHops bounds what is read of X-Forwarded-For.
const maxHops = 32

// Source returns who sent a request. That is the peer, or, where the peer is one of the proxies,
// whom X-Forwarded-For names: each proxy appends the one that it was called by, so the last one
// that is no proxy of ours is the caller, and what stands before it is only their word. The zero
// Addr is nobody: the header makes no sense.
func Source(r *http.Request, proxies []netip.Prefix) netip.Addr {
	peer, ok := hop(r.RemoteAddr)
	if !ok || !trusted(peer, proxies) {
		return peer
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	from := peer
	for i, text := range slices.Backward(hops) {
		text = strings.TrimSpace(text)
		if text == "" && len(hops) == 1 {
			return peer // the proxy itself calls
		}
		if from, ok = hop(text); !ok || len(hops)-i > maxHops {
			return netip.Addr{}
		}
		if !trusted(from, proxies) {
			return from
		}
	}
	return from
}

func trusted(addr netip.Addr, proxies []netip.Prefix) bool {
	return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// hop reads an address with or without a port.
func hop(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		var port netip.AddrPort
		if port, err = netip.ParseAddrPort(text); err != nil {
			return netip.Addr{}, false
		}
		addr = port.Addr()
	}
	return addr.Unmap().WithZone(""), true
}
