package wechatsim

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMiniUsers(t *testing.T) {
	for _, test := range []struct {
		followers, users int
		notFollowing     float64
		want             int // users who do not follow
	}{{50000, 20000, 1.0 / 3, 6667}, {10, 20, 0.5, 10}, {10, 20, 0, 10}, {0, 5, 0, 5}, {7, 7, 0, 0},
		{7, 7, 1, 7}} {
		s := NewStandard(test.followers, test.users, test.notFollowing)
		seen := make(map[int]bool)
		strangers, early := 0, 0
		for k, user := range s.MiniUsers(StandardMiniAppID, 0, test.users+1) {
			if seen[user.Person] || user.Person != s.MiniUser(StandardMiniAppID, k) {
				t.Fatalf("%+v: user %d is person %d again", test, k, user.Person)
			}
			seen[user.Person] = true
			if s.IsFollower(StandardAppID, user.Person) {
				continue
			}
			strangers++
			if k < test.users/2 {
				early++
			}
		}
		if strangers != test.want || len(seen) != test.users {
			t.Errorf("%+v: %d users, %d do not follow", test, len(seen), strangers)
		}
		if test.users > 100 && (early < test.want/2-1 || early > test.want/2+1) {
			t.Errorf("%+v: %d of those who do not follow are in the first half", test, early)
		}
	}
}

func TestCodeToSession(t *testing.T) {
	s, _ := newTest(t, nil)
	login := func(code, change string) string {
		target := "/sns/jscode2session?appid=" + StandardMiniAppID + "&secret=" +
			StandardMiniSecret + "&grant_type=authorization_code&js_code=" + code
		for pair := range strings.SplitSeq(change, ",") {
			if from, to, ok := strings.Cut(pair, ">"); ok {
				target = strings.Replace(target, from, to, 1)
			}
		}
		return ask(t, s, target, "")
	}
	user := s.MiniUsers(StandardMiniAppID, 3, 1)[0]
	got := decodeJSON[sessionAnswer](t, login("mini-3-a", ""))
	if len(got.SessionKey) != 24 || got.OpenID != user.OpenID || got.UnionID != user.UnionID ||
		got.UnionID != s.UnionID(user.Person) {
		t.Errorf("%+v, want %+v", got, user)
	}
	for _, test := range []struct{ name, code, change, want string }{
		{"used", "mini-3-a", "", fails(40163, "code been used,")},
		{"unknown", "x", "", fails(40029, "invalid code,")},
		{"no such user", "mini-30-a", "", fails(40029, "invalid code,")},
		{"missing", "", "", fails(41008, "missing code,")},
		{"secret", "mini-3-b", StandardMiniSecret + ">x", fails(40125, "invalid appsecret,")},
		{"appid", "mini-3-b", StandardMiniAppID + ">wx1", fails(40013, "invalid appid,")},
		{"official account", "mini-3-b", StandardMiniAppID + ">" + StandardAppID + "," +
			StandardMiniSecret + ">" + StandardSecret, fails(40013, "invalid appid,")},
		{"grant type", "mini-3-b", "authorization_code>x", fails(40002, "invalid grant_type,")},
	} {
		if diff := cmp.Diff(test.want, login(test.code, test.change)); diff != "" {
			t.Error(test.name, diff)
		}
	}
	s.SetPerson(StandardMiniAppID, user.Person, Person{Risky: true})
	if diff := cmp.Diff(fails(40226, "code blocked,"), login("mini-3-d", "")); diff != "" {
		t.Error("risky", diff)
	}
	s.SetPerson(StandardMiniAppID, user.Person, Person{})
	s.Unbind(StandardMiniAppID)
	if body := login("mini-3-c", ""); strings.Contains(body, "unionid") {
		t.Errorf("unbound: %s", body)
	}
}
