package wechat

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// usualUser is a follower's record as answered today.
func usualUser(n int) string {
	return fmt.Sprintf(`{"subscribe":1,"openid":"oSYN%023d-","nickname":"","sex":0,"language":"zh_CN","city":"","province":"",`+
		`"country":"","headimgurl":"","subscribe_time":%d,"unionid":"oUNI%023d-","remark":"","groupid":0,"tagid_list":[2,134],`+
		`"subscribe_scene":"ADD_SCENE_SEARCH","qr_scene":98765,"qr_scene_str":""}`, n, 1641364601+n,
		n)
}

func usualBatch(n int) []byte {
	users := make([]string, n)
	for i := range users {
		users[i] = usualUser(i)
	}
	return []byte(`{"user_info_list":[` + strings.Join(users, ",") + `]}`)
}

func usualPage(n int) []byte {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("oSYN%023d-", i)
	}
	list, _ := json.Marshal(ids)
	return fmt.Appendf(nil, `{"total":1000000,"count":%d,"data":{"openid":%s},"next_openid":%q}`, n,
		list, ids[n-1])
}

// TestScanTakesTheUsual: the fallback would make a scanner that refuses everything look right.
func TestScanTakesTheUsual(t *testing.T) {
	if !new(usersAnswer).scan(usualBatch(100)) {
		t.Error("batch of 100 refused")
	}
	if !new(usersAnswer).scan([]byte(`{"user_info_list":[{"subscribe":0,"openid":"o","remark":"信","tagid_list":[]}]}`)) {
		t.Error("UTF-8 refused")
	}
	if !new(FollowerPage).scan(usualPage(10000)) {
		t.Error("page of 10,000 refused")
	}
	if !new(FollowerPage).scan([]byte(`{"total":770270,"count":0,"next_openid":""}`)) {
		t.Error("the last page refused")
	}
	var sent sendAnswer
	if !sent.scan([]byte(`{"errcode":0,"errmsg":"ok","msgid":2841345375939657729}`)) ||
		sent != 2841345375939657729 {
		t.Error("usual send refused or wrong", sent)
	}
}

func TestScanInteger(t *testing.T) {
	tests := map[string]struct {
		want int64
		ok   bool
	}{
		"0": {0, true}, "-7": {-7, true}, "9223372036854775807": {math.MaxInt64, true},
		"9223372036854775808": {}, "99999999999999999999": {}, "18446744073709551617": {}, "01": {},
		"": {}, "-": {}, "x": {},
	}
	for text, want := range tests {
		var got int64
		ok := (&scanner{text: text}).integer(&got)
		if got != want.want || ok != want.ok {
			t.Errorf("%q: %d %v, want %d %v", text, got, ok, want.want, want.ok)
		}
	}
}

// same fails if the scanner takes a body that encoding/json refuses, or reads another thing from
// it.
func same[T any](t *testing.T, body []byte, fast, slow fastAnswer, content func(fastAnswer) T) {
	t.Helper()
	if !fast.scan(body) {
		return
	}
	if env, err := decodeEnvelope(body); err != nil || env.Code != 0 {
		t.Fatalf("scanned a body with envelope %+v, %v", env, err)
	}
	if err := slow.decode(body); err != nil {
		t.Fatalf("scanned what encoding/json refuses: %v", err)
	}
	if diff := cmp.Diff(content(slow), content(fast)); diff != "" {
		t.Fatalf("scanner differs (-encoding/json +scanner):\n%s", diff)
	}
}

// seeds are bodies at the edge between usual and unusual.
var seeds = []string{
	`{}`, `null`, `[]`, `{"errcode":40001,"errmsg":"x"}`, `{"errcode":0}`,
	` { "total" : 1 , "count":0,"next_openid":""} `,
	`{"total":1,"count":1,"data":{"openid":["a"]},"next_openid":"a"}`,
	`{"total":1,"count":2,"data":{"openid":["","a"]},"next_openid":"a"}`,
	`{"total":1,"count":1,"data":{"openid":["a"],"openid":["b"]},"next_openid":"a"}`,
	`{"total":1,"count":1,"data":{"openid":["a"]},"data":{}}`,
	`{"total":1e2,"count":0}`, `{"total":01,"count":0}`, `{"total":-0,"count":0}`,
	`{"total":1,"count":0}x`, `{"Total":1,"count":0}`,
	`{"total":1,"count":1,"data":{"openid":["\u0061"]}}`,
	"{\"total\":1,\"count\":1,\"data\":{\"openid\":[\"\x02\"]}}",
	"{\"total\":1,\"count\":1,\"data\":{\"openid\":[\"\xff\"]}}",
	`{"total":1,"count":1,"data":{"openid":[null]}}`, `{"total":null,"count":0}`,
	`{"user_info_list":[]}`, `{"user_info_list":null}`,
	`{"user_info_list":[{"subscribe":1,"openid":"o"},{"subscribe":0,"openid":"p"}]}`,
	`{"user_info_list":[{"subscribe":1,"openid":"o","tagid_list":[1],"tagid_list":[2]}]}`,
	`{"user_info_list":[{"openid":"o"}]}`,
	`{"user_info_list":[{"subscribe":1,"openid":"o","subscribe":0,"tagid_list":[]}]}`,
	`{"user_info_list":[{"subscribe":1,"openid":"o"}],"user_info_list":[{}]}`,
	`{"errcode":0,"errmsg":"ok","msgid":2841345375939657729}`,
	`{"errcode":0,"errmsg":"ok","msgid":"2841345375939657729"}`,
}

func FuzzScanFollowers(f *testing.F) {
	addSeeds(f, usualPage(3))
	f.Fuzz(func(t *testing.T, body []byte) {
		same(t, body, new(FollowerPage), new(FollowerPage), func(a fastAnswer) FollowerPage {
			return *a.(*FollowerPage)
		})
	})
}

func FuzzScanUsers(f *testing.F) {
	addSeeds(f, usualBatch(2))
	f.Fuzz(func(t *testing.T, body []byte) {
		same(t, body, new(usersAnswer), new(usersAnswer), func(a fastAnswer) []UserInfo {
			return *a.(*usersAnswer)
		})
	})
}

func FuzzScanSend(f *testing.F) {
	addSeeds(f, nil)
	f.Fuzz(func(t *testing.T, body []byte) {
		same(t, body, new(sendAnswer), new(sendAnswer), func(a fastAnswer) int64 {
			return int64(*a.(*sendAnswer))
		})
	})
}

func FuzzScanSubscribe(f *testing.F) {
	addSeeds(f, []byte(`{"errcode":0,"errmsg":"ok","msgid":-1864323726461255680}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		same(t, body, new(subscribeAnswer), new(subscribeAnswer), func(a fastAnswer) int64 {
			return int64(*a.(*subscribeAnswer))
		})
	})
}

func addSeeds(f *testing.F, more []byte) {
	f.Add(more)
	for _, s := range seeds {
		f.Add([]byte(s))
	}
}

// FuzzAppendString: what is written is what encoding/json reads back, short of control characters
// and broken UTF-8.
func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "订单 <a&b> \u2028", "\"\\\n\r\t\b\x00", "a\xffb\xe4\xbd",
		"\xed\xa0\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := appendString(nil, s)
		var got string
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		want := strings.Map(func(r rune) rune {
			if r < 0x20 && r != '\n' && r != '\r' && r != '\t' {
				return -1
			}
			return r // ranging over a string yields U+FFFD for each broken byte
		}, s)
		if got != want {
			t.Errorf("%q became %q, want %q", s, got, want)
		}
		if strings.Contains(string(text), `\u`) && !strings.Contains(s, `\u`) {
			t.Errorf("\\u escape in %q", text)
		}
	})
}

func BenchmarkDecodeBatch(b *testing.B) {
	body := usualBatch(100)
	b.Run("scan", func(b *testing.B) {
		decodeBench(b, body, func() bool {
			return new(usersAnswer).scan(body)
		})
	})
	b.Run("encoding_json", func(b *testing.B) {
		decodeBench(b, body, func() bool { return new(usersAnswer).decode(body) == nil })
	})
}

func BenchmarkDecodePage(b *testing.B) {
	body := usualPage(10000)
	b.Run("scan", func(b *testing.B) {
		decodeBench(b, body, func() bool {
			return new(FollowerPage).scan(body)
		})
	})
	b.Run("encoding_json", func(b *testing.B) {
		decodeBench(b, body, func() bool { return new(FollowerPage).decode(body) == nil })
	})
}

func decodeBench(b *testing.B, body []byte, decode func() bool) {
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if !decode() {
			b.Fatal("refused")
		}
	}
}
