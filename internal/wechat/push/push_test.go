package push

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestPushKeys(t *testing.T) {
	c := newTestCallback(t, Config{})
	key := func(body string) string {
		p, err := c.Decode(signed(pushTime, ""), []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return p.Key
	}
	bodies := []string{
		event("subscribe", ""), event("unsubscribe", ""),
		strings.Replace(event("subscribe", ""), "oA", "oB", 1),
		strings.Replace(event("subscribe", ""), fmt.Sprint(pushTime), fmt.Sprint(pushTime+1), 1),
		event(EventReceipt, "<MsgID>1</MsgID><Status>success</Status>"),
		event(EventReceipt, "<MsgID>2</MsgID><Status>success</Status>"),
	}
	seen := map[string]string{}
	for _, body := range bodies {
		k := key(body)
		if other, ok := seen[k]; ok {
			t.Errorf("one key for %s and %s", body, other)
		}
		if seen[k] = body; key(body) != k {
			t.Errorf("two keys for %s", body)
		}
	}
}

func TestEcho(t *testing.T) {
	c, err := New(Config{AppID: "wxba5fad812f8e6fb9", Token: "AAAAA",
		AESKey: strings.Repeat("A", 43)})
	if err != nil {
		t.Fatal(err)
	}
	query := func(signature, echo string) url.Values {
		return url.Values{"timestamp": {"1714036504"}, "nonce": {"1514711492"},
			"signature": {signature}, "echostr": {echo}}
	}
	const right, echo = "f464b24fc39322e44b38aa78f5edd27bd1441696", "4375120948345356249"
	if got, err := c.Echo(query(right, echo)); got != echo || err != nil {
		t.Errorf("echo %q, %v", got, err)
	}
	for name, q := range map[string]url.Values{
		"wrong signature": query(right[1:]+"0", echo), "no signature": query("", echo),
		"no echostr":   query(right, ""),
		"long echostr": query(right, strings.Repeat("x", 1000)), "nothing": {},
	} {
		if got, err := c.Echo(q); got != "" || !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
