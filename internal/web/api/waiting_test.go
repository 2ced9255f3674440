package api

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/web"
)

// outcomes is a fake whose messages are final after a while, with the time of a bubble.
func outcomes(after time.Duration) *fake {
	fk, began := new(fake), time.Now()
	fk.statuses = func(ids []int64) (found []intake.Status, err error) {
		word := "pending"
		if time.Since(began) >= after {
			word = "sent"
		}
		for _, id := range ids {
			found = append(found, intake.Status{ID: id, Status: word})
		}
		return found, nil
	}
	return fk
}

// waitFor asks for an outcome without a connection.
func waitFor(ctx context.Context, a *API, id, seconds int, credential string) (s status, h http.Header) {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet,
		"/v1/messages/"+strconv.Itoa(id)+"?wait="+strconv.Itoa(seconds), nil)
	r.Header.Set("Authorization", "Bearer "+credential)
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	_ = json.Unmarshal(w.Body.Bytes(), &s)
	return s, w.Header()
}

func newQuietAPI(f *fake) *API { return New(newConfig(f, io.Discard, prometheus.NewRegistry())) }

func TestWait(t *testing.T) {
	for name, test := range map[string]struct {
		final, least, most time.Duration // when it is, and when the answer comes
		wait               int
		word               string
	}{
		"final already":   {0, 0, 0, 30, "sent"},
		"final meanwhile": {3 * time.Second, 3 * time.Second, 3*time.Second + pollPause, 30, "sent"},
		"too late":        {time.Minute, 7 * time.Second, 7 * time.Second, 7, "pending"},
		"the longest":     {time.Hour, maxWait, maxWait, 30, "pending"},
		"not at all":      {time.Hour, 0, 0, 0, "pending"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, began := newQuietAPI(outcomes(test.final)), time.Now()
				defer a.Release()
				s, _ := waitFor(t.Context(), a, 1, test.wait, secret)
				if took := time.Since(began); s.Status != test.word || took < test.least || took > test.most {
					t.Errorf("%q after %v, want %q after %v to %v", s.Status, took, test.word, test.least, test.most)
				}
			})
		})
	}
}

// TestWaitQueries: all who wait cost one query every half second, and nobody costs none.
func TestWaitQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, seconds = 400, 10
		fk := outcomes(time.Hour)
		a := newQuietAPI(fk)
		defer a.Release()
		var all sync.WaitGroup
		for id := range callers {
			all.Go(func() { waitFor(t.Context(), a, id+1, seconds, secret) })
		}
		all.Wait()
		time.Sleep(time.Minute)
		// Each caller reads once by itself.
		if most := callers + int64(seconds*time.Second/pollPause) + 1; fk.queries.Load() > most {
			t.Errorf("%d queries, want at most %d", fk.queries.Load(), most)
		}
	})
}

// TestWaitBounds: whoever finds no place is told what is known, and no application takes all places.
func TestWaitBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fk := outcomes(time.Hour)
		var mu sync.Mutex
		apps := make(map[string]*applications.Application)
		fk.bearer = func(name string) (applications.Session, error) {
			mu.Lock()
			defer mu.Unlock()
			if apps[name] == nil {
				apps[name] = &applications.Application{Name: name}
			}
			return applications.Session{Application: apps[name]}, nil
		}
		a := newQuietAPI(fk)
		defer a.Release()
		var all sync.WaitGroup
		places := make(map[string]int)
		ask := func(name string, n int) {
			for id := range n {
				all.Go(func() {
					began := time.Now()
					_, h := waitFor(t.Context(), a, id+1, 5, name)
					mu.Lock()
					defer mu.Unlock()
					switch waited := time.Since(began) == 5*time.Second; {
					case waited && h.Get("Retry-After") == "":
						places[name]++
					case waited || h.Get("Retry-After") != retryFull:
						t.Errorf("%s: after %v with %v", name, time.Since(began), h)
					}
				})
			}
			synctest.Wait()
		}
		for _, name := range []string{"a", "b", "c", "d"} {
			ask(name, maxOfOne+1)
		}
		ask("e", 1)
		all.Wait()
		for _, name := range []string{"a", "b", "c", "d"} {
			if places[name] != maxOfOne {
				t.Errorf("%s: %d waited, want %d", name, places[name], maxOfOne)
			}
		}
		if places["e"] != 0 {
			t.Error("more than maxWaiting waited")
		}
		ask("e", 1) // the others have gone
		all.Wait()
		if places["e"] != 1 {
			t.Error("places do not become free")
		}
	})
}

// TestWaitGone: a caller who is gone leaves its place, and the looking ends.
func TestWaitGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fk := outcomes(time.Hour)
		a := newQuietAPI(fk)
		defer a.Release()
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		began := time.Now()
		waitFor(ctx, a, 1, 30, secret)
		if took := time.Since(began); took != time.Second {
			t.Errorf("the call ended after %v", took)
		}
		time.Sleep(time.Second)
		queries := fk.queries.Load()
		time.Sleep(time.Minute)
		a.Release()
		if fk.queries.Load() != queries || a.waiting.number != 0 || len(a.waiting.callers) != 0 {
			t.Errorf("%d queries for nobody, %d wait", fk.queries.Load()-queries, a.waiting.number)
		}
	})
}

// TestRelease: nobody waits any more, and the goroutine has ended.
func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newQuietAPI(outcomes(time.Hour))
		began := time.Now()
		var all sync.WaitGroup
		for id := range 10 {
			all.Go(func() { waitFor(t.Context(), a, id+1, 30, secret) })
		}
		synctest.Wait()
		time.Sleep(time.Second)
		a.Release()
		a.Release()
		all.Wait()
		waitFor(t.Context(), a, 1, 30, secret)
		if took := time.Since(began); took != time.Second {
			t.Errorf("they waited for %v", took)
		}
	})
}

// TestWaitOutlastsTimeouts: the listener's timeouts are for slow callers, and do not end a wait.
func TestWaitOutlastsTimeouts(t *testing.T) {
	const timeout = 200 * time.Millisecond // shorter than a pause between two looks
	fk := new(fake)
	fk.statuses = func(ids []int64) ([]intake.Status, error) {
		if fk.queries.Load() > 2 {
			return []intake.Status{{ID: ids[0], Status: "sent"}}, nil
		}
		return []intake.Status{{ID: ids[0], Status: "pending"}}, nil
	}
	f := newAPIOn(t, fk, &http.Server{ReadTimeout: timeout, ReadHeaderTimeout: timeout, WriteTimeout: timeout})
	var s status
	f.get(t, "/v1/messages/1?wait=20").decode(t, &s)
	if s.Status != "sent" {
		t.Errorf("%+v", s)
	}
}

// TestStopWhileWaiting: a stop of the listener does not wait for those who wait.
func TestStopWhileWaiting(t *testing.T) {
	fk := new(fake)
	looked := make(chan struct{})
	var once sync.Once
	fk.statuses = func(ids []int64) ([]intake.Status, error) {
		once.Do(func() { close(looked) })
		return []intake.Status{{ID: ids[0], Status: "pending"}}, nil
	}
	a := newQuietAPI(fk)
	server := &http.Server{Handler: a, ReadTimeout: 10 * time.Second, ReadHeaderTimeout: 10 * time.Second}
	server.RegisterOnShutdown(a.Release)
	listener := web.NewListener(web.ListenerConfig{Listen: "127.0.0.1:0", Key: "http.api_listen",
		Logger: a.cfg.Logger, Server: server})
	if err := listener.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	answered := make(chan int, 1)
	go func() {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			"http://"+listener.Addr()+"/v1/messages/1?wait=30", nil)
		if err != nil {
			t.Error(err)
			return
		}
		r.Header.Set("Authorization", "Bearer "+secret)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-looked
	began := time.Now()
	if err := listener.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if got, took := <-answered, time.Since(began); got != 200 || took > 5*time.Second {
		t.Errorf("%d after %v", got, took)
	}
	if conn, err := net.Dial("tcp", listener.Addr()); err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
}
