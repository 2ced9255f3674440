package push

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	pushAppID = "wxb11529c136998cb6"
	pushToken = "pamtest"
	// its last character holds spare bits
	pushKey    = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	oldPushKey = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
	pushTime   = 1_727_187_000
)

func newTestCallback(t testing.TB, cfg Config) *Callback {
	t.Helper()
	cfg.AppID, cfg.Token = pushAppID, pushToken
	if cfg.Now == nil {
		cfg.Now = func() time.Time { return time.Unix(pushTime+5, 0) }
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sealWith is written out here and does not use the code under test.
func sealWith(t testing.TB, encodingKey, appid, message string) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(encodingKey + "=")
	if err != nil {
		t.Fatal(err)
	}
	data := append([]byte("aaaabbbbccccdddd"),
		binary.BigEndian.AppendUint32(nil, uint32(len(message)))...)
	data = append(append(data, message...), appid...)
	pad := 32 - len(data)%32
	data = append(data, bytes.Repeat([]byte{byte(pad)}, pad)...)
	return base64.StdEncoding.EncodeToString(encryptBlocks(t, key, data))
}

func encryptBlocks(t testing.TB, key, data []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, len(data))
	cipher.NewCBCEncrypter(block, key[:16]).CryptBlocks(out, data)
	return out
}

// signed is the query of a push; encrypt "": a plaintext one.
func signed(timestamp int64, encrypt string) url.Values {
	stamp := fmt.Sprint(timestamp)
	q := url.Values{"timestamp": {stamp}, "nonce": {"n"},
		"signature": {signature([]string{pushToken, stamp, "n"})}}
	if encrypt != "" {
		q.Set("encrypt_type", "aes")
		q.Set("msg_signature", signature([]string{pushToken, stamp, "n", encrypt}))
	}
	return q
}

func event(name, rest string) string {
	return fmt.Sprintf("<xml><ToUserName><![CDATA[gh_123456789abc]]></ToUserName>\n<FromUserName><![CDATA[oA_1-b]]></FromUserName>\n"+
		"<CreateTime>%d</CreateTime>\n<MsgType><![CDATA[event]]></MsgType>\n<Event><![CDATA[%s]]></Event>\n%s</xml>", pushTime, name, rest)
}

func secureBody(encrypt string) string {
	return "<xml><ToUserName><![CDATA[gh_123456789abc]]></ToUserName>\n<Encrypt><![CDATA[" +
		encrypt + "]]></Encrypt>\n</xml>"
}

func at(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }

// TestOfficialVectors: the signatures and the ciphertext are those of the official message push
// page, the second ciphertext is WxJava's.
func TestOfficialVectors(t *testing.T) {
	for want, parts := range map[string][]string{
		"f464b24fc39322e44b38aa78f5edd27bd1441696": {"AAAAA", "1714036504", "1514711492"},
		"899cf89e464efb63f54ddac96b0a0a235f53aa78": {"AAAAA", "1714037059", "486452656"},
		"6c5c811b55cc85e0e1b54100749188c20beb3f5d": {"AAAAA", "1714112445", "415670741"},
		"046e02f8204d34f8ba5fa3b1db94908f3df2e9b3": {"AAAAA", "1714112445", "415670741",
			officialEncrypt},
	} {
		if got := signature(parts); got != want {
			t.Errorf("signature %s, want %s", got, want)
		}
	}
	for _, v := range []struct{ key, appid, encrypt, want string }{
		{strings.Repeat("A", 43), "wxba5fad812f8e6fb9", officialEncrypt,
			`{"ToUserName":"gh_97417a04a28d","FromUserName":"o9AgO5Kd5ggOC-bXrbNODIiE3bGY","CreateTime":1714112445,` +
				`"MsgType":"event","Event":"debug_demo","debug_str":"hello world"}`},
		{pushKey, pushAppID, "jn1L23DB+6ELqJ+6bruv21Y6MD7KeIfP82D6gU39rmkgczbWwt5+3bnyg5K55bgVtVzd832WzZGMhkP72vVOfg==", "我是中文abcd123"},
	} {
		key, err := decodeAESKey(v.key)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := unseal(key, v.appid, v.encrypt); !ok || string(got) != v.want {
			t.Errorf("decrypted %q, %v; want %q", got, ok, v.want)
		}
	}
}

const officialEncrypt = "+qdx1OKCy+5JPCBFWw70tm0fJGb2Jmeia4FCB7kao+/Q5c/ohsOzQHi8khUOb05JCpj0JB4RvQMkUyus8TPxLKJGQqcvZqzDpVzazhZv6JsXUnnR8XGT740X" +
	"gXZUXQ7vJVnAG+tE8NUd4yFyjPy7GgiaviNrlCTj+l5kdfMuFUPpRSrfMZuMcp3Fn2Pede2IuQrKEYwKSqFIZoNqJ4M8EajAsjLY2km32IIjdf8YL/P50F7mStwntrA2" +
	"cPDrM1kb6mOcfBgRtWygb3VIYnSeOBrebufAlr7F9mFUPAJGj04="

func TestReadPushes(t *testing.T) {
	receipt := func(status string) *Receipt {
		return &Receipt{OpenID: "oA_1-b", MsgID: 3487542469355618313, Status: status,
			At: at(pushTime)}
	}
	const msgid = "<MsgID>3487542469355618313</MsgID>\n"
	status := func(s string) string {
		return event(EventReceipt, msgid+"<Status><![CDATA["+s+"]]></Status>\n")
	}
	long := "failed:" + strings.Repeat("长", 100)
	for name, test := range map[string]struct {
		body string
		want Message
	}{
		"success": {status("success"),
			Message{Event: EventReceipt, OpenID: "oA_1-b", Receipt: receipt(ReceiptSuccess)}},
		"user block": {status("failed:user block"),
			Message{Event: EventReceipt, OpenID: "oA_1-b", Receipt: receipt(ReceiptUserBlock)}},
		"system failed": {status("failed: system failed"),
			Message{Event: EventReceipt, OpenID: "oA_1-b", Receipt: receipt(ReceiptSystemFailed)}},
		"freq limit": {status(" failed :  freq\tlimit "),
			Message{Event: EventReceipt, OpenID: "oA_1-b", Receipt: receipt(ReceiptFreqLimit)}},
		"unknown status": {status("failed:martians"),
			Message{Event: EventReceipt, OpenID: "oA_1-b", Receipt: receipt("failed:martians")}},
		"long status": {status(long), Message{Event: EventReceipt, OpenID: "oA_1-b",
			Receipt: receipt(string([]rune(long)[:64]))}},
		"MsgId": {event(EventReceipt, "<MsgId>3487542469355618313</MsgId><Status>success</Status>"),
			Message{Event: EventReceipt, OpenID: "oA_1-b", Receipt: receipt(ReceiptSuccess)}},
		"control characters": {event(EventReceipt,
			msgid+"<Status><![CDATA[suc\x02cess\x00]]></Status>\n<X>\x1b\xff\ufffe</X>"),
			Message{Event: EventReceipt, OpenID: "oA_1-b", Receipt: receipt(ReceiptSuccess)}},
		"subscribe": {event("subscribe",
			"<EventKey><![CDATA[qrscene_123]]></EventKey>\n<Ticket><![CDATA[T]]></Ticket>\n"),
			Message{Event: "subscribe", OpenID: "oA_1-b",
				Follow: &FollowEvent{OpenID: "oA_1-b", Followed: true, At: at(pushTime)}}},
		"unsubscribe": {event("unsubscribe", "<EventKey><![CDATA[]]></EventKey>\n"),
			Message{Event: "unsubscribe", OpenID: "oA_1-b",
				Follow: &FollowEvent{OpenID: "oA_1-b", At: at(pushTime)}}},
		"SCAN": {event("SCAN", ""), Message{Event: "SCAN", OpenID: "oA_1-b"}},
		"authorisation": {event("user_authorization_cancellation",
			"<OpenID><![CDATA[oTheUser]]></OpenID>"),
			Message{Event: "user_authorization_cancellation", OpenID: "oTheUser",
				Authorization: &Authorization{OpenID: "oTheUser", At: at(pushTime)}}},
		"user_info_modified without OpenID": {event("user_info_modified", ""),
			Message{Event: "user_info_modified"}},
		"message": {"<xml><FromUserName>oA_1-b</FromUserName><MsgType>text</MsgType><Content>subscribe</Content><MsgId>12</MsgId></xml>",
			Message{OpenID: "oA_1-b"}},
	} {
		t.Run(name, func(t *testing.T) {
			encrypt := sealWith(t, pushKey, pushAppID, test.body)
			compatible := strings.TrimSuffix(test.body, "</xml>") + "<Encrypt>" + encrypt +
				"</Encrypt></xml>"
			for mode, push := range map[string]struct {
				query url.Values
				body  string
			}{
				"plaintext":  {signed(pushTime, ""), test.body},
				"compatible": {signed(pushTime, encrypt), compatible},
				"secure":     {signed(pushTime, encrypt), secureBody(encrypt)},
			} {
				got, err := newTestCallback(t, Config{AESKey: pushKey}).Decode(push.query,
					[]byte(push.body))
				if err != nil {
					t.Errorf("%s: %v", mode, err)
				}
				got.Key = "" // TestPushKeys
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", mode, diff)
				}
			}
		})
	}
}

func TestUnreadable(t *testing.T) {
	for name, body := range map[string]string{
		"receipt without MsgID": event(EventReceipt, "<Status>success</Status>"),
		"receipt with MsgID 0": event(EventReceipt,
			"<MsgID>0</MsgID><Status>success</Status>"),
		"MsgID beyond int64": event(EventReceipt,
			"<MsgID>9223372036854775808</MsgID><Status>success</Status>"),
		"receipt without status": event(EventReceipt, "<MsgID>1</MsgID><Status> </Status>"),
		"subscribe without time": strings.Replace(event("subscribe", ""), fmt.Sprint(pushTime),
			"", 1),
		"subscribe after 2038": strings.Replace(event("subscribe", ""), fmt.Sprint(pushTime),
			"4102444800", 1),
		"subscribe of an odd name": strings.Replace(event("subscribe", ""), "oA_1-b", "o'; DROP",
			1),
		"subscribe without a name": strings.Replace(event("subscribe", ""), "oA_1-b", "", 1),
		"subscribe by a long name": strings.Replace(event("subscribe", ""), "oA_1-b",
			strings.Repeat("o", 65), 1),
		"content of another form":    "MsgType=event",
		"content that is an array":   `[{"MsgType":"event"}]`,
		"JSON that ends too soon":    `{"MsgType":"event"`,
		"content that ends too soon": "<xml><Event>subscribe",
	} {
		encrypt := sealWith(t, pushKey, pushAppID, body)
		_, err := newTestCallback(t, Config{AESKey: pushKey}).Decode(signed(pushTime, encrypt),
			[]byte(secureBody(encrypt)))
		if !errors.Is(err, ErrUnreadable) || errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, want ErrUnreadable", name, err)
		}
	}
}

func TestRefused(t *testing.T) {
	body := event("subscribe", "")
	encrypt := sealWith(t, pushKey, pushAppID, body)
	change := func(q url.Values, key, value string) url.Values {
		q.Set(key, value)
		return q
	}
	key, err := decodeAESKey(pushKey)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(data string) string {
		return base64.StdEncoding.EncodeToString(encryptBlocks(t, key, []byte(data)))
	}
	zeros := strings.Repeat("\x00", 31)
	const object = `{"ToUserName":"gh_1","MsgType":"event"}`
	for name, test := range map[string]struct {
		query url.Values
		body  string
	}{
		"nothing signed": {url.Values{}, body},
		"signature of another token": {change(signed(pushTime, ""), "signature",
			signature([]string{"x", fmt.Sprint(pushTime), "n"})), body},
		"another nonce":     {change(signed(pushTime, ""), "nonce", "m"), body},
		"another timestamp": {change(signed(pushTime, ""), "timestamp", "1"), body},
		"secure, no msg_signature": {change(signed(pushTime, encrypt), "msg_signature", ""),
			secureBody(encrypt)},
		"secure, plain signature twice": {change(signed(pushTime, encrypt), "msg_signature",
			signed(pushTime, "").Get("signature")), secureBody(encrypt)},
		"secure, another content": {signed(pushTime, encrypt),
			secureBody(sealWith(t, pushKey, pushAppID, body+" "))},
		"signature in capitals": {change(signed(pushTime, ""), "signature",
			strings.ToUpper(signed(pushTime, "").Get("signature"))), body},
		"Encrypt taken out":            {signed(pushTime, encrypt), body},
		"not XML":                      {signed(pushTime, ""), "signature=1"},
		"empty":                        {signed(pushTime, ""), ""},
		"a JSON array":                 {signed(pushTime, ""), "[" + object + "]"},
		"JSON and more":                {signed(pushTime, ""), object + "{}"},
		"JSON of yesterday":            {signed(pushTime-86400, ""), object},
		"JSON, called encrypted":       {signed(pushTime, encrypt), object},
		"JSON, another content":        {signed(pushTime, encrypt), `{"Encrypt":"AAAA"}`},
		"plaintext of yesterday":       {signed(pushTime-86400, ""), body},
		"plaintext of tomorrow":        {signed(pushTime+86400, ""), body},
		"plaintext of the end of time": {signed(9223372036854775807, ""), body},
		"plaintext from before time":   {signed(-9223372036854775808, ""), body},
		"another account's": sealedQuery(sealWith(t, pushKey, "wxb11529c136998cb7",
			body)),
		"another key": sealedQuery(sealWith(t, oldPushKey, pushAppID, body)),
		"not base64":  sealedQuery("!!!"),
		"half a block": sealedQuery(base64.StdEncoding.EncodeToString(make([]byte,
			16))),
		"padding 0":             sealedQuery(raw(zeros + "\x00")),
		"padding 33":            sealedQuery(raw(strings.Repeat("\x21", 64))),
		"uneven padding":        sealedQuery(raw(zeros + "\x02")),
		"shorter than its head": sealedQuery(raw(strings.Repeat("\x20", 32))),
		"length beyond its end": sealedQuery(raw("aaaabbbbccccdddd\xff\xff\xff\xff" +
			strings.Repeat("\x0c", 12))),
	} {
		_, err := newTestCallback(t, Config{AESKey: pushKey}).Decode(test.query, []byte(test.body))
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, want ErrRefused", name, err)
			continue
		}
		if strings.Contains(err.Error(), "neither XML nor JSON") != (name == "not XML" ||
			name == "a JSON array" || name == "JSON and more" || name == "empty") {
			t.Errorf("%s: %v, which names the format or should", name, err)
		}
		for _, secret := range []string{pushToken, pushKey, "oA_1-b"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error tells %q: %v", name, secret, err)
			}
		}
	}
}

// sealedQuery is a push with a right signature over whatever it encloses.
func sealedQuery(encrypt string) struct {
	query url.Values
	body  string
} {
	return struct {
		query url.Values
		body  string
	}{signed(pushTime, encrypt), secureBody(encrypt)}
}

// TestReplay: what is signed whole is believed whenever it comes, plaintext for ten minutes.
func TestReplay(t *testing.T) {
	now := at(pushTime)
	clock := func() time.Time { return now }
	body := event("subscribe", "")
	encrypt := sealWith(t, pushKey, pushAppID, body)
	c := newTestCallback(t, Config{AESKey: pushKey, Now: clock})
	plain := func() error { _, err := c.Decode(signed(pushTime, ""), []byte(body)); return err }
	secure := func() error {
		_, err := c.Decode(signed(pushTime, encrypt),
			[]byte(secureBody(encrypt)))
		return err
	}
	for range 3 {
		if err := plain(); err != nil {
			t.Errorf("plaintext at once: %v", err)
		}
	}
	now = now.Add(11 * time.Minute)
	if err := plain(); !errors.Is(err, ErrRefused) {
		t.Errorf("plaintext after 11 minutes: %v", err)
	}
	now = now.Add(365 * 24 * time.Hour)
	if err := secure(); err != nil {
		t.Errorf("encrypted, a year old: %v", err)
	}
	now = at(pushTime)
	if err := plain(); !errors.Is(err, ErrRefused) {
		t.Errorf("plaintext to an account in secure mode: %v", err)
	}
	if err := secure(); err != nil {
		t.Errorf("encrypted again: %v", err)
	}
}

func TestKeys(t *testing.T) {
	body := event("subscribe", "")
	for _, test := range []struct {
		current, previous, used string
		plainToo, ok            bool // plainToo: compatible mode
	}{
		{current: pushKey, used: pushKey, ok: true},
		{current: pushKey, previous: oldPushKey, used: oldPushKey, ok: true},
		{current: pushKey, previous: oldPushKey, used: pushKey, ok: true},
		{previous: oldPushKey, used: oldPushKey, ok: true},
		{current: pushKey, used: oldPushKey},
		// the plaintext beside it is not signed
		{current: pushKey, used: oldPushKey, plainToo: true},
		{used: pushKey},
		// without a key compatible mode is plaintext mode
		{used: pushKey, plainToo: true, ok: true},
	} {
		encrypt := sealWith(t, test.used, pushAppID, body)
		outer := secureBody(encrypt)
		if test.plainToo {
			outer = strings.TrimSuffix(body, "</xml>") + "<Encrypt>" + encrypt + "</Encrypt></xml>"
		}
		c := newTestCallback(t, Config{AESKey: test.current, PreviousAESKey: test.previous})
		if _, err := c.Decode(signed(pushTime, encrypt), []byte(outer)); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
	// In compatible mode the encrypted form counts, whatever somebody has put beside it.
	encrypt := sealWith(t, pushKey, pushAppID, body)
	outer := strings.TrimSuffix(event("unsubscribe", ""), "</xml>") + "<Encrypt>" + encrypt +
		"</Encrypt></xml>"
	p, err := newTestCallback(t, Config{AESKey: pushKey}).Decode(signed(pushTime, encrypt),
		[]byte(outer))
	if err != nil || p.Event != "subscribe" {
		t.Errorf("compatible mode: %+v, %v; want the event that is encrypted", p, err)
	}
	for _, bad := range []Config{{}, {Token: "t", AESKey: "short"},
		{Token: "t", PreviousAESKey: pushKey + "A"}} {
		if _, err := New(bad); err == nil || strings.Contains(err.Error(), pushKey) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
