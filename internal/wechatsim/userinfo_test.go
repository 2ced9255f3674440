package wechatsim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type userAnswer struct {
	Subscribe     int     `json:"subscribe"`
	OpenID        string  `json:"openid"`
	UnionID       *string `json:"unionid"`
	SubscribeTime int64   `json:"subscribe_time"`
}

func infoOf(t testing.TB, s *Server, openid string) userAnswer {
	t.Helper()
	return decodeJSON[userAnswer](t, ask(t, s, pathUserInfo+"?access_token=TOKEN&openid="+openid,
		""))
}

func batchOf(t testing.TB, s *Server, openids ...string) []userAnswer {
	t.Helper()
	answer := decodeJSON[struct {
		List []userAnswer `json:"user_info_list"`
	}](t, ask(t, s, batchTarget, batchBody(openids...)))
	return answer.List
}

func batchBody(openids ...string) string {
	var items []string
	for _, openid := range openids {
		items = append(items, fmt.Sprintf(`{"openid":%q,"lang":"zh_CN"}`, openid))
	}
	return `{"user_list":[` + strings.Join(items, ",") + `]}`
}

// The key order and the keys are those of the recorded answers of 2022, 2025 and before 2021.
func TestUserInfoShapes(t *testing.T) {
	const profile = `"nickname":"","sex":0,"language":"zh_CN","city":"","province":"","country":"","headimgurl":""`
	s, clock := newTest(t, nil)
	s.Follow(StandardAppID, 50000)
	follower, stranger := s.OpenID(StandardAppID, 50000), s.OpenID(StandardAppID, 50001)
	hash := s.apps[StandardAppID].personHash(50000)
	tags := ""
	if hash>>40&7 == 0 {
		tags = fmt.Sprint(100 + hash>>48&15)
	}
	union := func(person int) string { return fmt.Sprintf(`"unionid":%q`, s.UnionID(person)) }
	followerBody := func(unionKey string) string {
		return fmt.Sprintf(`{"subscribe":1,"openid":"%s",%s,"subscribe_time":%d,%s"remark":"","groupid":0,"tagid_list":[%s],"subscribe_scene":"%s","qr_scene":%d,"qr_scene_str":""}`,
			follower, profile, clock.Now().Unix(), unionKey, tags, scene(hash), qrScene(hash))
	}
	for _, test := range []struct {
		name   string
		quirks Quirks
		unbind bool
		openid string
		want   string
	}{
		{"follower", Quirks{}, false, follower, followerBody(union(50000) + ",")},
		{"non-follower today", Quirks{}, false, stranger, `{"subscribe":0,"openid":"` + stranger +
			`",` + profile + `,"tagid_list":[]}`},
		{"non-follower before 2021", Quirks{OldNonFollower: true, NonFollowerUnion: true}, false,
			stranger,
			`{"subscribe":0,"openid":"` + stranger + `",` + union(50001) + `,"tagid_list":[]}`},
		{"unbound, follower", Quirks{}, true, follower, followerBody("")},
		{"unbound, non-follower before 2021", Quirks{OldNonFollower: true, NonFollowerUnion: true},
			true, stranger,
			`{"subscribe":0,"openid":"` + stranger + `","tagid_list":[]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.SetQuirks(StandardAppID, test.quirks)
			if test.unbind {
				s.Unbind(StandardAppID)
			}
			if diff := cmp.Diff(test.want,
				ask(t, s, pathUserInfo+"?access_token=TOKEN&openid="+test.openid, "")); diff != "" {
				t.Error("user/info:", diff)
			}
			want := `{"user_info_list":[` + test.want + `]}`
			if diff := cmp.Diff(want, ask(t, s, batchTarget, batchBody(test.openid))); diff != "" {
				t.Error("batchget:", diff)
			}
		})
	}
}

func TestUserInfoErrors(t *testing.T) {
	s, _ := newTest(t, nil)
	good := s.OpenID(StandardAppID, 1)
	many := make([]string, 101)
	for i := range many {
		many[i] = s.OpenID(StandardAppID, i)
	}
	mini := s.OpenID(StandardMiniAppID, 1)
	for _, test := range []struct{ name, target, body, want string }{
		{"openid of the mini program", pathUserInfo + "?access_token=TOKEN&openid=" + mini, "",
			fails(40003, "invalid openid")},
		{"case folded", pathUserInfo + "?access_token=TOKEN&openid=" + strings.ToLower(good), "",
			fails(40003, "invalid openid")},
		{"malformed", pathUserInfo + "?access_token=TOKEN&openid=x", "",
			fails(40003, "invalid openid")},
		{"no openid", pathUserInfo + "?access_token=TOKEN", "", fails(41009, "missing openid")},
		{"101 openids", batchTarget, batchBody(many...), fails(40032, "invalid openid list size")},
		{"no openids", batchTarget, batchBody(), fails(40032, "invalid openid list size")},
		{"no list", batchTarget, `{}`, fails(40032, "invalid openid list size")},
		{"malformed in the list", batchTarget, batchBody(good, "x"),
			fails(40003, "invalid openid")},
		{"form", batchTarget, "openid=" + good, fails(47001, "data format error")},
		{"cut JSON", batchTarget, batchBody(good)[:40], fails(47001, "data format error")},
		{"mini program's token", pathBatchInfo + "?access_token=MINITOKEN", batchBody(good),
			fails(48001, "api unauthorized")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, ask(t, s, test.target, test.body)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := batchOf(t, s, many[:100]...); len(got) != 100 || got[99].OpenID != many[99] ||
		*got[99].UnionID != s.UnionID(99) {
		t.Errorf("a batch of 100 answers %d records", len(got))
	}
}

func TestInfoLag(t *testing.T) {
	s, clock := newTest(t, nil)
	s.SetQuirks(StandardAppID, Quirks{InfoLag: 3 * time.Second, LagUnknown: true})
	s.Follow(StandardAppID, 60000)
	openid := s.OpenID(StandardAppID, 60000)
	if got := ask(t, s, pathUserInfo+"?access_token=TOKEN&openid="+openid, ""); got != fails(40003,
		"invalid openid") {
		t.Errorf("user/info just after a follow: %s", got)
	}
	if got := batchOf(t, s, openid)[0]; got.Subscribe != 0 || got.UnionID != nil {
		t.Errorf("batchget just after a follow: %+v", got)
	}
	s.SetQuirks(StandardAppID, Quirks{InfoLag: 3 * time.Second})
	if got := infoOf(t, s, openid); got.Subscribe != 0 {
		t.Errorf("user/info just after a follow: %+v", got)
	}
	clock.advance(3 * time.Second)
	if got := infoOf(t, s, openid); got.Subscribe != 1 || got.UnionID == nil {
		t.Errorf("after the lag: %+v", got)
	}
}

func TestMisalignedBatch(t *testing.T) {
	s, _ := newTest(t, nil)
	unknown := "o" + strings.Repeat("Z", 27)
	batch := func() (unions []string) {
		for _, user := range batchOf(t, s, s.OpenID(StandardAppID, 1), unknown,
			s.OpenID(StandardAppID, 2), s.OpenID(StandardAppID, 3)) {
			if user.UnionID == nil {
				unions = append(unions, "")
				continue
			}
			unions = append(unions, *user.UnionID)
		}
		return unions
	}
	if diff := cmp.Diff([]string{s.UnionID(1), "", s.UnionID(2), s.UnionID(3)},
		batch()); diff != "" {
		t.Error("well-behaved:", diff)
	}
	s.SetQuirks(StandardAppID, Quirks{Misalign: true})
	if diff := cmp.Diff([]string{s.UnionID(1), s.UnionID(2), s.UnionID(3), ""},
		batch()); diff != "" {
		t.Error("misaligned:", diff)
	}
}

func TestFalseAnswers(t *testing.T) {
	s, _ := newTest(t, nil)
	s.SetQuirks(StandardAppID, Quirks{FalseZero: 0.1, ListedUnknown: 0.1})
	zero, unknown := 0, 0
	for person := range 2000 {
		openid := s.OpenID(StandardAppID, person)
		first, second := batchOf(t, s, openid)[0].Subscribe, batchOf(t, s, openid)[0].Subscribe
		if first != second {
			t.Fatalf("person %d is answered %d, then %d", person, first, second)
		}
		zero += 1 - first
		if strings.Contains(ask(t, s, pathUserInfo+"?access_token=TOKEN&openid="+openid, ""),
			"40003") {
			unknown++
		}
	}
	for name, got := range map[string]int{"subscribe 0": zero, "40003": unknown} {
		if got < 140 || got > 260 {
			t.Errorf("%d of 2000 answered %s, want about 200", got, name)
		}
	}
}

func TestRebinding(t *testing.T) {
	s, _ := newTest(t, nil)
	openid, before := s.OpenID(StandardAppID, 7), s.UnionID(7)
	mini, _ := s.Identify(StandardMiniAppID, s.OpenID(StandardMiniAppID, 7))
	if mini.UnionID != before {
		t.Fatalf("unionid %s in the mini program, %s in the official account", mini.UnionID, before)
	}
	s.Rebind(StandardAppID)
	after := *infoOf(t, s, openid).UnionID
	if after == before || after != s.UnionID(7) {
		t.Errorf("unionid after rebinding: %s, before %s", after, before)
	}
	if _, ok := s.IdentifyUnion(StandardAppID, before); ok {
		t.Error("the old unionid still resolves")
	}
	if mini, _ := s.Identify(StandardMiniAppID,
		s.OpenID(StandardMiniAppID, 7)); mini.UnionID != before {
		t.Error("rebinding one account changed the other")
	}
	s.Rebind()
	if mini, _ := s.Identify(StandardMiniAppID,
		s.OpenID(StandardMiniAppID, 7)); mini.UnionID != s.UnionID(7) {
		t.Error("rebinding all leaves different unionids")
	}
	if got := s.OpenID(StandardAppID, 7); got != openid {
		t.Error("rebinding changed the openid")
	}
}
