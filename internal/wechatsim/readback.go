package wechatsim

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strconv"
)

// Stats are the server's counters since its start or the last [Server.Reset].
type Stats struct {
	Calls map[string]int64 `json:"calls"` // by path
	// by path, then errcode, http_412 or the kind of a fault
	Errors    map[string]map[string]int64 `json:"errors"`
	Delivered map[string]int64            `json:"delivered"` // by appid
	// by appid: sends whose client_msg_id was a repetition
	Repeats   map[string]int64 `json:"repeats"`
	Followers map[string]int   `json:"followers"`       // by appid: at present
	Taken     int64            `json:"pushes_taken"`    // events
	GivenUp   int64            `json:"pushes_given_up"` // events
}

// Stats returns all counters.
func (s *Server) Stats() Stats {
	stats := Stats{
		Calls: s.Calls(), Errors: make(map[string]map[string]int64),
		Delivered: make(map[string]int64),
		Repeats:   make(map[string]int64), Followers: make(map[string]int),
	}
	s.eachEndpoint(func(e *endpoint) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.errors) > 0 {
			stats.Errors[e.path] = maps.Clone(e.errors)
		}
	})
	for _, a := range s.order {
		stats.Delivered[a.id], stats.Repeats[a.id] = s.Delivered(a.id)
		if !a.mini {
			stats.Followers[a.id] = a.followers.size()
		}
	}
	stats.Taken, stats.GivenUp = s.Pushes()
	return stats
}

// Calls counts the calls by path, failed ones and those that a fault hit included. A path without
// calls is missing.
func (s *Server) Calls() map[string]int64 {
	calls := make(map[string]int64)
	s.eachEndpoint(func(e *endpoint) {
		if n := e.calls.Load(); n > 0 {
			calls[e.path] = n
		}
	})
	return calls
}

// Reset sets the counters to zero and forgets the delivered messages. Followers, tokens, quotas,
// faults and what client_msg_id remembers stay.
func (s *Server) Reset() {
	s.eachEndpoint(func(e *endpoint) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.calls.Store(0)
		e.errors = nil
	})
	for _, a := range s.order {
		a.store.clear()
	}
	s.pushes.taken.Store(0)
	s.pushes.failed.Store(0)
}

func (s *Server) eachEndpoint(visit func(*endpoint)) {
	for _, e := range s.endpoints {
		visit(e)
	}
	visit(s.unknown)
}

type accountInfo struct {
	AppID      string `json:"appid"`
	Kind       string `json:"kind"` // official or mini
	OriginalID string `json:"original_id"`
	Bound      bool   `json:"bound"`
	Followers  int    `json:"followers,omitempty"`
	Users      int    `json:"users,omitempty"`
}

func (s *Server) controlAccounts(w http.ResponseWriter, _ *http.Request) {
	list := make([]accountInfo, 0, len(s.order))
	for _, a := range s.order {
		info := accountInfo{AppID: a.id, Kind: "official", OriginalID: a.original,
			Bound: a.unions.Load() != nil}
		if a.mini {
			info.Kind, info.Users = "mini", a.users.count
		} else {
			info.Followers = a.followers.size()
		}
		list = append(list, info)
	}
	answer(w, list)
}

// span reads the parameters offset and limit.
func span(w http.ResponseWriter, r *http.Request) (offset, limit int, ok bool) {
	offset, ok = number(w, r, "offset", 0)
	if !ok {
		return 0, 0, false
	}
	limit, ok = number(w, r, "limit", math.MaxInt)
	return offset, limit, ok
}

func (s *Server) controlMessages(w http.ResponseWriter, r *http.Request, a *app) {
	offset, limit, ok := span(w, r)
	if !ok {
		return
	}
	entries := a.store.all()
	entries = entries[min(offset, len(entries)):]
	entries = entries[:min(limit, len(entries))]
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := bufio.NewWriter(w)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false) // the data reads as it was sent
	for _, e := range entries {
		if err := encoder.Encode(a.message(e)); err != nil {
			return // the reader is gone
		}
	}
	_ = out.Flush()
}

func (s *Server) controlMiniUsers(w http.ResponseWriter, r *http.Request, a *app) {
	offset, limit, ok := span(w, r)
	if !ok {
		return
	}
	if !a.mini {
		refuse(w, http.StatusBadRequest, a.id+" is no mini program")
		return
	}
	csv := r.URL.Query().Get("format") != "ndjson"
	out := bufio.NewWriter(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	if csv {
		w.Header().Set("Content-Type", "text/csv")
		_, _ = out.WriteString("appid,openid,unionid\n")
	}
	encoder := json.NewEncoder(out)
	for k := offset; k < a.users.count && k-offset < limit; k++ {
		user := a.identity(a.users.person(k))
		if csv {
			fmt.Fprintf(out, "%s,%s,%s\n", user.AppID, user.OpenID, user.UnionID)
			continue
		}
		_ = encoder.Encode(user)
	}
	_ = out.Flush() // an error stays in the writer: the reader is gone
}

func (s *Server) controlTruth(w http.ResponseWriter, r *http.Request, a *app) {
	query := r.URL.Query()
	var identity Identity
	var ok bool
	switch {
	case query.Get("openid") != "":
		identity, ok = s.Identify(a.id, query.Get("openid"))
	case query.Get("unionid") != "":
		identity, ok = s.IdentifyUnion(a.id, query.Get("unionid"))
	default:
		var person int
		if person, ok = number(w, r, "person", 0); !ok {
			return
		}
		identity = a.identity(person)
	}
	if !ok {
		refuse(w, http.StatusNotFound, "no such person")
		return
	}
	answer(w, identity)
}

// controlFollow and the next ones take the parameter person, or openid, which is the same.
func (s *Server) controlFollow(w http.ResponseWriter, r *http.Request, a *app) {
	person, ok := personOf(w, r, a)
	if !ok || !official(w, a) {
		return
	}
	if !r.URL.Query().Has("at") {
		answer(w, map[string]bool{"changed": s.Follow(a.id, person)})
		return
	}
	at, err := strconv.ParseFloat(r.URL.Query().Get("at"), 64)
	if err != nil {
		refuse(w, http.StatusBadRequest, "parameter at: "+err.Error())
		return
	}
	answer(w, map[string]bool{"changed": s.FollowAt(a.id, person, at)})
}

func (s *Server) controlUnfollow(w http.ResponseWriter, r *http.Request, a *app) {
	if person, ok := personOf(w, r, a); ok && official(w, a) {
		answer(w, map[string]bool{"changed": s.Unfollow(a.id, person)})
	}
}

func (s *Server) controlJoin(w http.ResponseWriter, r *http.Request, a *app) {
	if n, ok := number(w, r, "n", 1); ok && official(w, a) {
		answer(w, map[string][]int{"persons": s.Join(a.id, n)})
	}
}

func (s *Server) controlLeave(w http.ResponseWriter, r *http.Request, a *app) {
	if n, ok := number(w, r, "n", 1); ok && official(w, a) {
		answer(w, map[string][]int{"persons": s.Leave(a.id, n)})
	}
}

func (s *Server) controlPerson(w http.ResponseWriter, r *http.Request, a *app) {
	var state Person
	if person, ok := personOf(w, r, a); ok && decode(w, r, &state) {
		s.SetPerson(a.id, person, state)
		answer(w, struct{}{})
	}
}

func personOf(w http.ResponseWriter, r *http.Request, a *app) (person int, ok bool) {
	openid := r.URL.Query().Get("openid")
	if openid == "" {
		return number(w, r, "person", 0)
	}
	if person, ok = a.ids.person([]byte(openid)); !ok {
		refuse(w, http.StatusNotFound, "no such openid")
	}
	return person, ok
}
