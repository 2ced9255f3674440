package wechat

import (
	"net"
	"net/http"
	"time"
)

// newTransport is the connection handling towards WeChat, each option with its reason.
func newTransport(connections int) *http.Transport {
	// HTTP/1.1 only: the rules for replaying a request are known and tested (a POST of which a byte
	// was written is never replayed), and a hundred sends spread over connections.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		// Many companies let servers out through a proxy only.
		Proxy: http.ProxyFromEnvironment,
		// A dial that takes 5 s will not succeed, and after a dial error nothing was sent.
		DialContext: (&net.Dialer{Timeout: 5 * time.Second,
			KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		Protocols:           protocols,
		// All calls go to one host: the default of 2 idle connections would re-dial on every burst.
		MaxIdleConns:        connections,
		MaxIdleConnsPerHost: connections,
		// No MaxConnsPerHost: callers bound their concurrency; a token must not queue behind sends.

		// Well below the usual 60 to 75 s of web servers. A server that closes an idle connection
		// as a send is written leaves that send in doubt, so we close first.
		IdleConnTimeout: 30 * time.Second,
		// Answers to sends are 60 bytes; inflating 30 KB a hundred times a second costs the sweep
		// more than a data-centre line saves. And the bytes read are the bytes bounded.
		DisableCompression: true,
	}
}

// newHTTPClient does not follow redirects: the token and the secret stand in the URL and would
// travel along. WeChat redirects only plain http.
func newHTTPClient(transport http.RoundTripper, timeout time.Duration) *http.Client {
	return &http.Client{
		Transport:     transport,
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
