package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// ForwardPaths are the only elements of applications[].forward: codes, links and checks of content.
// None yields a token, a ticket or a telephone number, sends, or touches quotas or people's ids.
func ForwardPaths() []string {
	return []string{
		"/cgi-bin/qrcode/create",
		"/cgi-bin/shorten/fetch",
		"/cgi-bin/shorten/gen",
		"/cgi-bin/wxaapp/createwxaqrcode",
		"/wxa/generate_urllink",
		"/wxa/generatescheme",
		"/wxa/genwxashortlink",
		"/wxa/getwxacode",
		"/wxa/getwxacodeunlimit",
		"/wxa/img_sec_check",
		"/wxa/media_check_async",
		"/wxa/msg_sec_check",
		"/wxa/query_urllink",
		"/wxa/queryscheme",
	}
}

func validateForward(path string, paths []string, ps *problems) {
	for i, p := range paths {
		at := fmt.Sprintf("%s.forward[%d]", path, i)
		switch {
		case !slices.Contains(ForwardPaths(), p):
			ps.add(at, "%s is not forwarded; the paths that may be are %s", quote(p),
				strings.Join(ForwardPaths(), ", "))
		case slices.Contains(paths[:i], p):
			ps.add(at, "%s stands there twice", p)
		}
	}
}

// validateEcho: what is told has no name and no text in it, but says who gets messages. So it leaves the
// company's own network by TLS only.
func validateEcho(path string, e *Echo, ps *problems) {
	if e == nil {
		return
	}
	u, err := url.Parse(e.URL)
	switch {
	case e.URL == "":
		ps.add(path+".url", "missing; name where the application is told, such as https://shop.example.com/wechat")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		ps.add(path+".url", "is no whole address that begins with https:// or http://")
	case u.User != nil:
		ps.add(path+".url", "has a user in it; the signature by token says who we are")
	case u.Scheme == "http" && !inside(u.Hostname()):
		ps.add(path+".url", "http:// is for this machine and private addresses; use https://")
	}
}

// inside reports whether a host is this machine, or an address of a private network.
func inside(host string) bool {
	addr, err := netip.ParseAddr(host)
	return loopback(host) || err == nil && (addr.Unmap().IsPrivate() || addr.Unmap().IsLoopback())
}
