package checkup

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // WeChat's signature
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// checkCallback does what the console does when somebody enters the URL: it signs an echo.
func checkCallback(ctx context.Context, e *exam) (found []finding) {
	for _, a := range e.Accounts {
		if a.CallbackToken == "" {
			continue
		}
		base := e.CallbackURL
		if base == "" {
			at := slices.IndexFunc(e.Listens, func(l Listen) bool { return l.Key == "http.callback_listen" })
			if at < 0 {
				found = append(found, bad(Fail, "http.callback_listen is not set", "nocallback", a.AppID).of(a.AppID))
				continue
			}
			if !e.ours {
				found = append(found, skip("no daemon runs on this machine").of(a.AppID))
				continue
			}
			base = "http://" + reachable(e.Listens[at].Address)
		}
		found = append(found, e.echo(ctx, a, strings.TrimSuffix(base, "/")+"/wechat/"+a.AppID).of(a.AppID))
	}
	if found == nil {
		return []finding{skip("no account has a callback")}
	}
	return found
}

func (e *exam) echo(ctx context.Context, a Account, target string) finding {
	echo, nonce := rand.Text(), rand.Text()
	at := strconv.FormatInt(e.Now().Unix(), 10)
	query := url.Values{"signature": {sign(a.CallbackToken, at, nonce)}, "timestamp": {at},
		"nonce": {nonce}, "echostr": {echo}}
	resp, err := get(ctx, target+"?"+query.Encode())
	switch {
	case err != nil:
		return bad(Fail, target+" does not answer", "nocallback", a.AppID)
	case resp.status == http.StatusForbidden || resp.status == http.StatusUnauthorized:
		return bad(Fail, fmt.Sprintf("%s answers %d: it does not take the signature", target, resp.status),
			"callbacktoken", a.CallbackKey)
	case resp.status != http.StatusOK:
		return bad(Fail, fmt.Sprintf("%s answers %d", target, resp.status), "nocallback", a.AppID)
	case resp.body != echo:
		return bad(Fail, target+" answers 200, and not with the echo: something else listens there",
			"nocallback", a.AppID)
	}
	return ok("%s answers a signed echo", target)
}

// sign is the platform's signature of a push.
func sign(parts ...string) string {
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, ""))) //nolint:gosec // WeChat's signature
	return hex.EncodeToString(sum[:])
}
