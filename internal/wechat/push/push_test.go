package push

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// FuzzDecode feeds bodies that are signed, plain and encrypted: nothing may panic, both ways must
// say the same, and what comes out must fit the database.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		event("subscribe", "<EventKey><![CDATA[]]></EventKey>\n"), event("unsubscribe", ""),
		event("SCAN", ""),
		event(EventReceipt, "<MsgID>200163836</MsgID>\n<Status><![CDATA[success]]></Status>\n"),
		event(EventReceipt, "<MsgID>3557254367693750277</MsgID>\n<Status><![CDATA[failed: system "+
			"failed]]></Status>\n"),
		event(EventReceipt, "<MsgID>1</MsgID><Status>\x02\xff&#65;\u2028</Status>"),
		event("user_authorization_revoke", "<OpenID>o</OpenID>"),
		"<xml><MsgType>text</MsgType><Content><![CDATA[\x02]]></Content></xml>", secureBody("AAAA"),
		"", "<", "<a><b/></a>", "{}",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if bytes.Contains(body, []byte("Encrypt")) {
			return // as an envelope and as content that is not the same thing
		}
		plain, plainErr := newTestCallback(t, Config{}).Decode(signed(pushTime, ""), body)
		encrypt := sealWith(t, pushKey, pushAppID, string(body))
		sealed, sealedErr := newTestCallback(t,
			Config{AESKey: pushKey}).Decode(signed(pushTime, encrypt), []byte(secureBody(encrypt)))
		if (plainErr == nil) != (sealedErr == nil) {
			t.Fatalf("plain: %v, encrypted: %v", plainErr, sealedErr)
		}
		if plainErr != nil {
			return
		}
		if diff := cmp.Diff(plain, sealed); diff != "" {
			t.Error(diff)
		}
		if len(plain.Event) > maxEvent {
			t.Errorf("event %q", plain.Event)
		}
		if r := plain.Receipt; r != nil && (!openidShape.MatchString(r.OpenID) || r.MsgID <= 0 ||
			r.Status == "" || len([]rune(r.Status)) > maxStatus) {
			t.Errorf("receipt %+v", r)
		}
		if e := plain.Follow; e != nil && (!openidShape.MatchString(e.OpenID) || e.At.IsZero()) {
			t.Errorf("follow %+v", e)
		}
	})
}
