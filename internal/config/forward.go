package config

import (
	"fmt"
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
