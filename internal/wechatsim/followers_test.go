package wechatsim

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type listAnswer struct {
	Total int `json:"total"`
	Count int `json:"count"`
	Data  *struct {
		OpenID []string `json:"openid"`
	} `json:"data"`
	Next string `json:"next_openid"`
}

func listPageOf(t testing.TB, s *Server, cursor string) listAnswer {
	t.Helper()
	return decodeJSON[listAnswer](t, ask(t, s,
		pathUserGet+"?access_token=TOKEN&next_openid="+cursor, ""))
}

// scan reads the whole list as a client does, and calls between after each page with its number.
func scan(t testing.TB, s *Server, between func(page int)) (openids []string, pages int) {
	t.Helper()
	for cursor := ""; ; pages++ {
		page := listPageOf(t, s, cursor)
		if page.Data == nil {
			if page.Count != 0 || page.Next != "" {
				t.Fatalf("last page: %+v", page)
			}
			return openids, pages
		}
		if page.Count != len(page.Data.OpenID) || page.Next != page.Data.OpenID[page.Count-1] {
			t.Fatalf("page of %d says count %d, next_openid %q", len(page.Data.OpenID), page.Count,
				page.Next)
		}
		openids = append(openids, page.Data.OpenID...)
		cursor = page.Next
		if between != nil {
			between(pages)
		}
	}
}

func TestUserGetPages(t *testing.T) {
	for _, followers := range []int{0, 1, 9999, 10000, 10001, 25000} {
		t.Run(fmt.Sprint(followers), func(t *testing.T) {
			s, _ := newTest(t, func(o *Options) { o.Accounts[0].Followers = followers })
			openids, pages := scan(t, s, nil)
			if want := (followers + listPage - 1) / listPage; len(openids) != followers ||
				pages != want {
				t.Fatalf("%d openids on %d pages, want %d on %d", len(openids), pages, followers,
					want)
			}
			if slices.Sort(openids); len(slices.Compact(openids)) != followers {
				t.Error("an openid came twice")
			}
		})
	}
}

func TestUserGetBodies(t *testing.T) {
	s, _ := newTest(t, func(o *Options) { o.Accounts[0].Followers = 1 })
	openid := s.OpenID(StandardAppID, 0)
	for _, test := range []struct{ name, target, want string }{
		{"single follower", pathUserGet + "?access_token=TOKEN",
			`{"total":1,"count":1,"data":{"openid":["` + openid + `"]},"next_openid":"` + openid +
				`"}`},
		{"behind the last", pathUserGet + "?access_token=TOKEN&next_openid=" + openid,
			`{"total":1,"count":0,"next_openid":""}`},
		{"garbage cursor", pathUserGet + "?access_token=TOKEN&next_openid=nonsense",
			fails(40003, "invalid openid")},
		{"cursor who never followed", pathUserGet + "?access_token=TOKEN&next_openid=" +
			s.OpenID(StandardAppID, 77), fails(40003, "invalid openid")},
		{"mini program's token", pathUserGet + "?access_token=MINITOKEN",
			fails(48001, "api unauthorized")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, ask(t, s, test.target, "")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The order of the list tells neither the time of following nor the order of the openids.
func TestListOrderMeansNothing(t *testing.T) {
	s, _ := newTest(t, nil)
	openids, _ := scan(t, s, nil)
	if slices.IsSorted(openids) {
		t.Error("the list is sorted by openid")
	}
	ascending := 0
	var last int64
	for _, openid := range openids[:1000] {
		user := infoOf(t, s, openid)
		if user.SubscribeTime > last {
			ascending++
		}
		last = user.SubscribeTime
	}
	if ascending < 400 || ascending > 600 {
		t.Errorf("%d of 1000 followed later than their predecessor; a random order has about 500",
			ascending)
	}
}

func TestScanWhileTheListMoves(t *testing.T) {
	s, _ := newTest(t, nil)
	before := s.OpenID(StandardAppID, 40000)
	behind := s.OpenID(StandardAppID, 40001)
	gone := s.OpenID(StandardAppID, 24999)
	openids, _ := scan(t, s, func(page int) {
		if page == 0 {
			s.FollowAt(StandardAppID, 40000, 0)
			s.FollowAt(StandardAppID, 40001, 0.99)
			s.Unfollow(StandardAppID, 24999)
		}
	})
	if slices.Contains(openids, before) {
		t.Error("one who joined before the cursor was seen")
	}
	if !slices.Contains(openids, behind) {
		t.Error("one who joined behind the cursor was missed")
	}
	if slices.Contains(openids, gone) {
		t.Error("a follower who left before their page came was seen")
	}
	again, _ := scan(t, s, nil)
	if len(again) != 25001 || s.FollowerCount(StandardAppID) != 25001 || again[0] != before {
		t.Errorf("%d in the list, %d followers, want 25001; first %s, want %s", len(again),
			s.FollowerCount(StandardAppID), again[0], before)
	}
}

func TestCursorWhoLeft(t *testing.T) {
	s, _ := newTest(t, nil)
	joined := 40000
	s.FollowAt(StandardAppID, joined, 0.5)
	for _, person := range []int{9999, joined} {
		cursor := s.OpenID(StandardAppID, person)
		want := listPageOf(t, s, cursor).Data.OpenID[0]
		s.Unfollow(StandardAppID, person)
		if got := listPageOf(t, s, cursor).Data.OpenID[0]; got != want {
			t.Errorf("page behind person %d who left begins with %s, want %s", person, got, want)
		}
		s.SetQuirks(StandardAppID, Quirks{GoneCursorFails: true})
		if got := ask(t, s, pathUserGet+"?access_token=TOKEN&next_openid="+cursor,
			""); got != fails(40003, "invalid openid") {
			t.Errorf("with GoneCursorFails: %.100s", got)
		}
		s.SetQuirks(StandardAppID, Quirks{})
	}
}

func TestLeaveAndReturn(t *testing.T) {
	s, clock := newTest(t, nil)
	at := clock.Now().Unix()
	left := s.Leave(StandardAppID, 500)
	joined := s.Join(StandardAppID, 300)
	slices.Sort(left)
	if len(slices.Compact(left)) != 500 || len(joined) != 300 {
		t.Fatalf("%d left, %d joined", len(left), len(joined))
	}
	openids, _ := scan(t, s, nil)
	if len(openids) != 24800 {
		t.Errorf("%d in the list, want 24800", len(openids))
	}
	person := left[0]
	if user := infoOf(t, s, s.OpenID(StandardAppID, person)); user.Subscribe != 0 {
		t.Error("one who left still follows")
	}
	if !s.Follow(StandardAppID, person) || s.Follow(StandardAppID, person) {
		t.Error("Follow does not report whether it changed something")
	}
	if user := infoOf(t, s, s.OpenID(StandardAppID, person)); user.Subscribe != 1 ||
		user.SubscribeTime != at {
		t.Errorf("one who came back: %+v, want subscribe_time %d", user, at)
	}
	for range 3 {
		s.Leave(StandardAppID, 10000)
	}
	if got := s.FollowerCount(StandardAppID); got != 0 {
		t.Errorf("%d followers after all left", got)
	}
}

func TestTotalMoves(t *testing.T) {
	s, _ := newTest(t, nil)
	s.SetQuirks(StandardAppID, Quirks{TotalJitter: 50})
	seen := make(map[int]bool)
	for range 20 {
		total := listPageOf(t, s, "").Total
		if total < 24950 || total > 25050 {
			t.Fatalf("total %d is off by more than 50", total)
		}
		seen[total] = true
	}
	if len(seen) < 5 {
		t.Errorf("total took %d values in 20 calls", len(seen))
	}
}
