package wechatsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

const controlPrefix = "/_sim/"

// newControl serves what the package comment describes.
func (s *Server) newControl() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_sim/accounts", s.controlAccounts)
	mux.HandleFunc("GET /_sim/stats", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, s.Stats())
	})
	mux.HandleFunc("POST /_sim/reset", s.controlReset)
	mux.HandleFunc("GET /_sim/messages", s.withApp(s.controlMessages))
	mux.HandleFunc("GET /_sim/truth", s.withApp(s.controlTruth))
	mux.HandleFunc("POST /_sim/follow", s.withApp(s.controlFollow))
	mux.HandleFunc("POST /_sim/unfollow", s.withApp(s.controlUnfollow))
	mux.HandleFunc("POST /_sim/join", s.withApp(s.controlJoin))
	mux.HandleFunc("POST /_sim/leave", s.withApp(s.controlLeave))
	mux.HandleFunc("POST /_sim/person", s.withApp(s.controlPerson))
	mux.HandleFunc("POST /_sim/quirks", s.withApp(s.controlQuirks))
	mux.HandleFunc("POST /_sim/callback", s.withApp(s.controlCallback))
	mux.HandleFunc("POST /_sim/limit", s.withApp(s.controlLimit))
	mux.HandleFunc("POST /_sim/tokens/invalidate",
		s.withApp(func(w http.ResponseWriter, _ *http.Request, a *app) {
			s.InvalidateTokens(a.id)
			answer(w, struct{}{})
		}))
	mux.HandleFunc("POST /_sim/rebind", s.controlRebind)
	mux.HandleFunc("POST /_sim/latency", s.controlLatency)
	mux.HandleFunc("POST /_sim/fault", s.controlFault)
	mux.HandleFunc("DELETE /_sim/fault", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		answer(w, struct{}{})
	})
	s.serveMini(mux)
	return mux
}

// withApp resolves the parameter appid; without it the first account that fits is meant.
func (s *Server) withApp(next func(http.ResponseWriter, *http.Request, *app)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		appid := r.URL.Query().Get("appid")
		wantsMini := slices.Contains(miniPaths(), r.URL.Path)
		for _, a := range s.order {
			if a.id == appid || appid == "" && a.mini == wantsMini {
				next(w, r, a)
				return
			}
		}
		refuse(w, http.StatusNotFound, fmt.Sprintf("no account %q", appid))
	}
}

// official refuses what only official accounts have.
func official(w http.ResponseWriter, a *app) bool {
	if a.mini {
		refuse(w, http.StatusBadRequest, a.id+" is a mini program")
	}
	return !a.mini
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // the reader may be gone
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text})
}

// number reads a parameter that is a non-negative number; a bad one is answered and gives ok =
// false.
func number(w http.ResponseWriter, r *http.Request, name string, missing int) (value int, ok bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return missing, true
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < 0 {
		refuse(w, http.StatusBadRequest,
			fmt.Sprintf("parameter %s: %q is not a number", name, text))
		return 0, false
	}
	return value, true
}

// decode reads a JSON body; an unknown field is refused, as a misspelt switch would silently do
// nothing.
func decode(w http.ResponseWriter, r *http.Request, target any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(target); err != nil {
		refuse(w, http.StatusBadRequest, "body: "+err.Error())
		return false
	}
	return true
}

func (s *Server) controlRebind(w http.ResponseWriter, r *http.Request) {
	appids := r.URL.Query()["appid"]
	for _, appid := range appids {
		if s.apps[appid] == nil {
			refuse(w, http.StatusNotFound, fmt.Sprintf("no account %q", appid))
			return
		}
	}
	s.Rebind(appids...)
	answer(w, struct{}{})
}

func (s *Server) controlLatency(w http.ResponseWriter, r *http.Request) {
	latency, err := time.ParseDuration(r.URL.Query().Get("d"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "parameter d: "+err.Error())
		return
	}
	s.SetLatency(latency)
	answer(w, struct{}{})
}

func (s *Server) controlFault(w http.ResponseWriter, r *http.Request) {
	var fault Fault
	if !decode(w, r, &fault) {
		return
	}
	if err := fault.Validate(); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	s.SetFault(fault)
	answer(w, struct{}{})
}

func (s *Server) controlReset(w http.ResponseWriter, _ *http.Request) {
	s.Reset()
	answer(w, struct{}{})
}

func (s *Server) controlQuirks(w http.ResponseWriter, r *http.Request, a *app) {
	quirks := *a.quirks.Load() // what the body does not name stays as it is
	if official(w, a) && decode(w, r, &quirks) {
		a.quirks.Store(&quirks)
		answer(w, struct{}{})
	}
}

func (s *Server) controlCallback(w http.ResponseWriter, r *http.Request, a *app) {
	callback := new(Callback)
	if !decode(w, r, callback) {
		return
	}
	if err := callback.Format.Validate(); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if callback.URL == "" {
		callback = nil
	}
	a.callback.Store(callback)
	answer(w, struct{}{})
}

func (s *Server) controlLimit(w http.ResponseWriter, r *http.Request, a *app) {
	path := r.URL.Query().Get("path")
	if s.endpoints[path] == nil {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("parameter path: no endpoint %q", path))
		return
	}
	if limit, ok := number(w, r, "n", 0); ok {
		s.SetDailyLimit(a.id, path, int64(limit))
		answer(w, struct{}{})
	}
}
