package wechatsim

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// firstStranger is the number of the first person that Join makes up; nobody configured has one so
// high.
const firstStranger = 1 << 30

// roster knows who follows an official account. The followers of the start are not held, only
// counted: people first … first+base-1. Only what changed since is stored.
type roster struct {
	seed        uint64
	first, base int

	mu      sync.RWMutex
	changed map[int]member
	// people beyond the first ones, by place; those who left stay, as their openids may be cursors
	inserted  []slot
	total     int
	draws     uint64
	strangers int
}

// member is a person whose state is not that of the start.
type member struct {
	following bool
	since     time.Time // of the last follow
	place     place
}

// place is a position in the follower list: behind the after-th of the first followers (which has
// order 0 itself).
type place struct {
	after int
	order uint64
}

type slot struct {
	place
	person int
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.after, b.after), cmp.Compare(a.order, b.order))
}

func newRoster(first, base int, seed uint64) *roster {
	return &roster{seed: seed, first: first, base: base, total: base, changed: make(map[int]member)}
}

// look returns a person's state; since is zero for one who has followed from the start. It wants mu
// held.
func (r *roster) look(person int) (following bool, since time.Time) {
	if len(r.changed) > 0 {
		if m, ok := r.changed[person]; ok {
			return m.following, m.since
		}
	}
	return person >= r.first && person < r.first+r.base, time.Time{}
}

func (r *roster) follows(person int) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	following, _ := r.look(person)
	return following
}

func (r *roster) size() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.total
}

// follow adds a person. A person who followed before comes back to their old place, a new one is
// put where at (0 ≤ at < 1) says.
func (r *roster) follow(person int, at float64, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.followLocked(person, at, now)
}

func (r *roster) followLocked(person int, at float64, now time.Time) bool {
	if following, _ := r.look(person); following {
		return false
	}
	m, known := r.changed[person]
	if !known { // one of the first followers cannot come here: they would follow
		r.draws++
		m.place = place{after: int(at*float64(r.base+1)) - 1, order: mix(r.seed^r.draws) | 1}
		at, _ := slices.BinarySearchFunc(r.inserted, m.place, func(s slot, p place) int {
			return comparePlaces(s.place, p)
		})
		r.inserted = slices.Insert(r.inserted, at, slot{m.place, person})
	}
	m.following, m.since = true, now
	r.changed[person] = m
	r.total++
	return true
}

func (r *roster) unfollow(person int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unfollowLocked(person)
}

func (r *roster) unfollowLocked(person int) bool {
	if following, _ := r.look(person); !following {
		return false
	}
	m, known := r.changed[person]
	if !known {
		m.place = place{after: person - r.first}
	}
	m.following = false
	r.changed[person] = m
	r.total--
	return true
}

// join lets n people follow whom nobody knew, at random places.
func (r *roster) join(n int, now time.Time) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	people := make([]int, 0, n)
	for range n {
		r.draws++
		person := firstStranger + r.strangers
		r.strangers++
		r.followLocked(person, float64(mix(r.seed+r.draws)>>11)/(1<<53), now)
		people = append(people, person)
	}
	return people
}

// leave lets n followers go who are drawn at random, fewer if there are not so many.
func (r *roster) leave(n int) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	people := make([]int, 0, n)
	everybody := r.base + len(r.inserted)
	for len(people) < n && r.total > 0 {
		r.draws++
		at := int(mix(r.seed+r.draws) % uint64(everybody))
		for !r.unfollowLocked(r.nth(at)) {
			at = (at + 1) % everybody
		}
		people = append(people, r.nth(at))
	}
	return people
}

// nth numbers everybody who ever followed: the first followers, then the others.
func (r *roster) nth(i int) int {
	if i < r.base {
		return r.first + i
	}
	return r.inserted[i-r.base].person
}

// placeOf finds a person's position in the list; ok is false for one who never followed.
func (r *roster) placeOf(person int) (at place, following, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if m, ok := r.changed[person]; ok {
		return m.place, m.following, true
	}
	following, _ = r.look(person)
	return place{after: person - r.first}, following, following
}

// listStart lies before everybody: -1 is where those stand who joined before the first of the first
// followers.
func listStart() place { return place{after: -1} }

// page appends up to limit followers behind a place.
func (r *roster) page(people []int, behind place, limit int) []int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	at, found := slices.BinarySearchFunc(r.inserted, behind, func(s slot, p place) int {
		return comparePlaces(s.place, p)
	})
	if found {
		at++
	}
	index := behind.after // the last of the first followers that is done
	for len(people) < limit {
		for at < len(r.inserted) && r.inserted[at].after <= index && len(people) < limit {
			people = r.appendIfFollowing(people, r.inserted[at].person)
			at++
		}
		if len(people) == limit {
			break
		}
		if index++; index >= r.base {
			break
		}
		people = r.appendIfFollowing(people, r.first+index)
	}
	return people
}

func (r *roster) appendIfFollowing(people []int, person int) []int {
	if following, _ := r.look(person); following {
		people = append(people, person)
	}
	return people
}
