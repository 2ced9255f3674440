package wechatsim

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type pushed struct {
	query map[string]string
	body  string
}

// receiver takes pushes; the first ones are refused.
func receiver(t *testing.T, refuse int) (url string, pushes <-chan pushed) {
	t.Helper()
	arrived := make(chan pushed, 1000)
	turns := make(chan struct{}, refuse)
	for range refuse {
		turns <- struct{}{}
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		query := make(map[string]string)
		for key := range r.URL.Query() {
			query[key] = r.URL.Query().Get(key)
		}
		select {
		case <-turns:
			w.WriteHeader(http.StatusInternalServerError)
		default:
			fmt.Fprint(w, "success")
		}
		arrived <- pushed{query, string(body)}
	}))
	t.Cleanup(web.Close)
	return web.URL, arrived
}

func next(t *testing.T, pushes <-chan pushed) pushed {
	t.Helper()
	select {
	case push := <-pushes:
		return push
	case <-time.After(10 * time.Second):
		t.Fatal("no push arrived")
		return pushed{}
	}
}

type event struct {
	ToUserName, FromUserName, MsgType, Event, EventKey, Status string
	CreateTime, MsgID                                          int64
}

func parseEvent(t *testing.T, body string) event {
	t.Helper()
	var e event
	if err := xml.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("push %q: %v", body, err)
	}
	return e
}

func TestReceipts(t *testing.T) {
	for _, test := range []struct {
		status   string
		callback Callback
	}{
		{"success", Callback{}},
		{"failed:user block", Callback{UserBlock: 1}},
		{"failed: system failed", Callback{SystemFailed: 1}},
		{"failed:freq limit", Callback{FreqLimit: 1}},
	} {
		t.Run(test.status, func(t *testing.T) {
			s, clock := newTest(t, nil)
			url, pushes := receiver(t, 0)
			test.callback.URL, test.callback.Token = url+"/wechat/x", "AAAAA"
			s.SetCallback(StandardAppID, &test.callback)
			sent := sendTo(t, s, 4, "id")
			push := next(t, pushes)
			sendTo(t, s, 4, "id") // a repetition has no receipt of its own
			openid, now := s.OpenID(StandardAppID, 4), clock.Now().Unix()
			want := fmt.Sprintf("<xml><ToUserName><![CDATA[%s]]></ToUserName>\n<FromUserName><![CDATA[%s]]></FromUserName>\n"+
				"<CreateTime>%d</CreateTime>\n<MsgType><![CDATA[event]]></MsgType>\n<Event><![CDATA[TEMPLATESENDJOBFINISH]]></Event>\n"+
				"<MsgID>%d</MsgID>\n<Status><![CDATA[%s]]></Status>\n</xml>",
				s.apps[StandardAppID].original, openid, now, sent.MsgID, test.status)
			if diff := cmp.Diff(want, push.body); diff != "" {
				t.Error(diff)
			}
			q := push.query
			if q["signature"] != sign("AAAAA", q["timestamp"], q["nonce"]) ||
				q["openid"] != openid {
				t.Errorf("query %v", q)
			}
			s.Close()
			select {
			case extra := <-pushes:
				t.Errorf("a further push: %s", extra.body)
			default:
			}
		})
	}
}

func TestFollowEvents(t *testing.T) {
	s, _ := newTest(t, nil)
	url, pushes := receiver(t, 0)
	s.SetCallback(StandardAppID, &Callback{URL: url})
	s.Follow(StandardAppID, 50000)
	if e := parseEvent(t, next(t, pushes).body); e.Event != "subscribe" ||
		e.FromUserName != s.OpenID(StandardAppID, 50000) {
		t.Errorf("%+v", e)
	}
	s.Unfollow(StandardAppID, 50000)
	push := next(t, pushes)
	if e := parseEvent(t, push.body); e.Event != "unsubscribe" ||
		!strings.Contains(push.body, "<EventKey><![CDATA[]]></EventKey>") {
		t.Errorf("%s", push.body)
	}
	codes := 0
	for range s.Join(StandardAppID, 60) {
		if push := next(t, pushes); strings.Contains(push.body, "[qrscene_") &&
			strings.Contains(push.body, "<Ticket>") {
			codes++
		}
	}
	if codes == 0 || codes == 60 {
		t.Errorf("%d of 60 came by a QR code", codes)
	}
}

func TestPushRetries(t *testing.T) {
	for _, test := range []struct{ refuse, attempts, deliveries, taken, failed int }{
		{2, 3, 3, 1, 0}, {3, 3, 3, 0, 1}, {3, 4, 4, 1, 0},
	} {
		s, _ := newTest(t, nil)
		url, pushes := receiver(t, test.refuse)
		s.SetCallback(StandardAppID, &Callback{URL: url, Attempts: test.attempts,
			RetryWait: time.Millisecond})
		sendTo(t, s, 1, "")
		first := next(t, pushes)
		for range test.deliveries - 1 {
			if diff := cmp.Diff(first.body, next(t, pushes).body); diff != "" {
				t.Error("retried with another body:", diff)
			}
		}
		deadline := time.Now().Add(10 * time.Second)
		for taken, failed := s.Pushes(); taken+failed == 0 && time.Now().Before(deadline); taken,
			failed = s.Pushes() {
			time.Sleep(time.Millisecond)
		}
		if taken, failed := s.Pushes(); int(taken) != test.taken || int(failed) != test.failed {
			t.Errorf("%+v: %d taken, %d given up", test, taken, failed)
		}
	}
}

func TestDuplicateAndLostPushes(t *testing.T) {
	s, _ := newTest(t, nil)
	url, pushes := receiver(t, 0)
	s.SetCallback(StandardAppID, &Callback{URL: url, Duplicate: 1})
	sendTo(t, s, 1, "")
	if a, b := next(t, pushes), next(t, pushes); a.body != b.body {
		t.Errorf("the duplicate differs: %s, %s", a.body, b.body)
	}
	s.SetCallback(StandardAppID, &Callback{URL: url, Lost: 1})
	sendTo(t, s, 2, "")
	s.SetCallback(StandardAppID, &Callback{URL: url})
	third := sendTo(t, s, 3, "")
	if e := parseEvent(t, next(t, pushes).body); e.MsgID != third.MsgID {
		t.Errorf("receipt of %d, want that of %d", e.MsgID, third.MsgID)
	}
}

func TestEncryptedPushes(t *testing.T) {
	const key = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	s, _ := newTest(t, nil)
	url, pushes := receiver(t, 0)
	for _, compatible := range []bool{false, true} {
		s.SetCallback(StandardAppID, &Callback{URL: url + "?x=1", Token: "T", AESKey: key,
			Secure: !compatible, Compatible: compatible})
		sent := sendTo(t, s, 9, "")
		push := next(t, pushes)
		var outer struct {
			Encrypt string
			Event   string
			To      string `xml:"ToUserName"`
		}
		if err := xml.Unmarshal([]byte(push.body), &outer); err != nil {
			t.Fatal(err)
		}
		q := push.query
		if q["msg_signature"] != sign("T", q["timestamp"], q["nonce"], outer.Encrypt) ||
			q["encrypt_type"] != "aes" || q["x"] != "1" {
			t.Errorf("query %v", q)
		}
		if (outer.Event != "") != compatible || outer.To == "" {
			t.Errorf("outer body %s", push.body)
		}
		if e := parseEvent(t, decrypt(t, key, outer.Encrypt)); e.MsgID != sent.MsgID {
			t.Errorf("inside: %+v", e)
		}
	}
}

// decrypt is written out here, so that a mistake in encrypt does not undo itself.
func decrypt(t *testing.T, encodingKey, text string) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(encodingKey + "=")
	if err != nil {
		t.Fatal(err)
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCDecrypter(block, key[:16]).CryptBlocks(data, data)
	data = data[:len(data)-int(data[len(data)-1])]
	size := int(data[16])<<24 | int(data[17])<<16 | int(data[18])<<8 | int(data[19])
	if appid := string(data[20+size:]); appid != StandardAppID {
		t.Errorf("appid inside: %q", appid)
	}
	return string(data[20 : 20+size])
}

// The vectors are WxJava's and the official message push page's.
func TestCryptVectors(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG=")
	if err != nil {
		t.Fatal(err)
	}
	got, err := seal(key, []byte("aaaabbbbccccdddd"), "wxb11529c136998cb6", "我是中文abcd123")
	if want := "jn1L23DB+6ELqJ+6bruv21Y6MD7KeIfP82D6gU39rmkgczbWwt5+3bnyg5K55bgVtVzd832WzZGMhkP72vVOfg=="; err != nil || got != want {
		t.Errorf("seal: %s, %v", got, err)
	}
	if got := sign("AAAAA", "1714037059",
		"486452656"); got != "899cf89e464efb63f54ddac96b0a0a235f53aa78" {
		t.Errorf("sign: %s", got)
	}
	if _, err := hex.DecodeString(sign()); err != nil {
		t.Error(err)
	}
	if _, err := encrypt("short", "a", "b", 1); err == nil {
		t.Error("a short key is accepted")
	}
}
