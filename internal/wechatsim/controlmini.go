package wechatsim

import (
	"fmt"
	"net/http"
	"slices"
)

// miniPaths are the parts of the control interface that mean a mini program where no appid is
// given.
func miniPaths() []string {
	return []string{"/_sim/mini-users", "/_sim/grant", "/_sim/grants", "/_sim/subscribe",
		"/_sim/switch-off", "/_sim/switch-on", "/_sim/authorize", "/_sim/punish"}
}

// serveMini adds what only mini programs have.
func (s *Server) serveMini(mux *http.ServeMux) {
	mux.HandleFunc("GET /_sim/mini-users", s.withApp(s.controlMiniUsers))
	mux.HandleFunc("GET /_sim/grants", s.withApp(s.controlGrants))
	mux.HandleFunc("POST /_sim/grant", s.withApp(s.controlGrant))
	mux.HandleFunc("POST /_sim/subscribe", s.withApp(s.controlSubscribe))
	mux.HandleFunc("POST /_sim/switch-off", s.withApp(s.controlSwitch(s.SwitchOff)))
	mux.HandleFunc("POST /_sim/switch-on", s.withApp(s.controlSwitch(s.SwitchOn)))
	mux.HandleFunc("POST /_sim/authorize", s.withApp(s.controlAuthorize))
	mux.HandleFunc("POST /_sim/punish", s.withApp(s.controlPunish))
}

// asked reads the parameters template, repeatable, and who is meant. Each template must exist.
func asked(w http.ResponseWriter, r *http.Request, a *app) (person int, ids []string, ok bool) {
	if person, ok = personOf(w, r, a); !ok {
		return 0, nil, false
	}
	ids = r.URL.Query()["template"]
	for _, id := range ids {
		if !a.mini || a.template([]byte(id)) == nil {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("parameter template: no template %q", id))
			return 0, nil, false
		}
	}
	return person, ids, true
}

func (s *Server) controlGrant(w http.ResponseWriter, r *http.Request, a *app) {
	person, ids, ok := asked(w, r, a)
	if !ok {
		return
	}
	n, ok := number(w, r, "n", 1)
	if !ok {
		return
	}
	for _, id := range ids {
		s.Grant(a.id, person, id, n)
	}
	answer(w, struct{}{})
}

func (s *Server) controlGrants(w http.ResponseWriter, r *http.Request, a *app) {
	list := s.Grants(a.id)
	if query := r.URL.Query(); query.Has("person") || query.Has("openid") {
		person, ok := personOf(w, r, a)
		if !ok {
			return
		}
		list = slices.DeleteFunc(list, func(g GrantState) bool { return g.Person != person })
	}
	answer(w, list)
}

func (s *Server) controlSubscribe(w http.ResponseWriter, r *http.Request, a *app) {
	person, ids, ok := asked(w, r, a)
	if !ok {
		return
	}
	scene, ok := number(w, r, "scene", 0)
	if !ok {
		return
	}
	query := r.URL.Query()
	results, err := s.Subscribe(a.id, person, Tap{Templates: ids, Answer: query.Get("answer"),
		Keep: query.Get("keep") != "", Scene: scene})
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	answer(w, results)
}

func (s *Server) controlSwitch(
	flip func(appid string, person int, templateIDs ...string),
) func(http.ResponseWriter, *http.Request, *app) {
	return func(w http.ResponseWriter, r *http.Request, a *app) {
		if person, ids, ok := asked(w, r, a); ok {
			flip(a.id, person, ids...)
			answer(w, struct{}{})
		}
	}
}

func (s *Server) controlAuthorize(w http.ResponseWriter, r *http.Request, a *app) {
	if person, ok := personOf(w, r, a); ok {
		query := r.URL.Query()
		s.Authorize(a.id, person, query.Get("event"), query.Get("revoked"))
		answer(w, struct{}{})
	}
}

func (s *Server) controlPunish(w http.ResponseWriter, r *http.Request, a *app) {
	if kind, ok := number(w, r, "type", 2); ok {
		s.Punish(a.id, kind, r.URL.Query()["function"]...)
		answer(w, struct{}{})
	}
}
