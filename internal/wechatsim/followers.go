package wechatsim

import (
	"fmt"
	"strconv"
)

// listPage is how many openids one user/get returns at most (reference §2).
const listPage = 10000

// userGet answers the follower list: in the order of the people' numbers, which has to do with
// neither the time of following nor the order of the openids. Every page with rows names a
// next_openid; the one behind the last has no data.
func (c *call) userGet() {
	from := listStart()
	if cursor := c.query("next_openid"); cursor != "" {
		person, ok := c.app.ids.person([]byte(cursor))
		following := false
		if ok {
			from, following, ok = c.app.followers.placeOf(person)
		}
		if !ok || !following && c.app.quirks.Load().GoneCursorFails {
			c.fail(40003)
			return
		}
	}
	c.people = c.app.followers.page(c.people[:0], from, listPage)
	c.out = append(c.out, `{"total":`...)
	c.out = strconv.AppendInt(c.out, int64(c.listTotal()), 10)
	c.out = append(c.out, `,"count":`...)
	c.out = strconv.AppendInt(c.out, int64(len(c.people)), 10)
	if len(c.people) == 0 {
		c.out = append(c.out, `,"next_openid":""}`...)
		return
	}
	separator := `,"data":{"openid":["`
	for _, person := range c.people {
		c.out = append(c.out, separator...)
		c.out = c.app.ids.append(c.out, person)
		separator = `","`
	}
	c.out = append(c.out, `"]},"next_openid":"`...)
	c.out = c.app.ids.append(c.out, c.people[len(c.people)-1])
	c.out = append(c.out, `"}`...)
}

func (c *call) listTotal() int {
	total := c.app.followers.size()
	if jitter := c.app.quirks.Load().TotalJitter; jitter > 0 {
		total += int(c.s.draw()%uint64(2*jitter+1)) - jitter
	}
	return max(0, total)
}

// Follow lets a person follow an official account, and pushes the event. A person who followed
// before comes back to their old place in the list, a new one gets a random place. It reports
// whether this changed anything.
func (s *Server) Follow(appid string, person int) bool {
	return s.FollowAt(appid, person, float64(s.draw()>>11)/(1<<53))
}

// FollowAt is Follow with the place in the list: 0 is its beginning, just under 1 its end.
func (s *Server) FollowAt(appid string, person int, at float64) bool {
	a := s.mustAccount(appid)
	if !a.followers.follow(person, min(max(at, 0), 0.999999999), s.clock()) {
		return false
	}
	s.pushFollow(a, person)
	return true
}

// Unfollow lets a person leave, and pushes the event. It reports whether this changed anything.
func (s *Server) Unfollow(appid string, person int) bool {
	a := s.mustAccount(appid)
	if !a.followers.unfollow(person) {
		return false
	}
	s.pushUnfollow(a, person)
	return true
}

// Join lets n new people follow, at random places in the list, and returns their numbers.
func (s *Server) Join(appid string, n int) []int {
	a := s.mustAccount(appid)
	people := a.followers.join(n, s.clock())
	for _, person := range people {
		s.pushFollow(a, person)
	}
	return people
}

// Leave lets n followers go, drawn at random, and returns their numbers.
func (s *Server) Leave(appid string, n int) []int {
	a := s.mustAccount(appid)
	people := a.followers.leave(n)
	for _, person := range people {
		s.pushUnfollow(a, person)
	}
	return people
}

// FollowerCount is the true number of followers.
func (s *Server) FollowerCount(appid string) int { return s.mustAccount(appid).followers.size() }

// mustApp finds an account that a test names. An unknown one is the test's mistake, hence the
// panic.
func (s *Server) mustApp(appid string) *app {
	a := s.apps[appid]
	if a == nil {
		panic(fmt.Sprintf("wechatsim: no account %q", appid))
	}
	return a
}

func (s *Server) mustAccount(appid string) *app {
	a := s.mustApp(appid)
	if a.mini {
		panic(fmt.Sprintf("wechatsim: %q is a mini program and has no followers", appid))
	}
	return a
}
