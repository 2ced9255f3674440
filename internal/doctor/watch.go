package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

const (
	// checkTimeout bounds the calls of one check, with their repetitions.
	checkTimeout = time.Minute
	// problemInterval is how often an account is checked again that has a problem; unknownInterval
	// one that WeChat did not answer for.
	problemInterval = 5 * time.Minute
	unknownInterval = 30 * time.Second
	// freshFor is how long a result stands for another check: the daemon's and the sender's first
	// ones come together.
	freshFor = 10 * time.Second
)

// Watch checks accounts when it begins, and again while they have problems. What breaks later shows
// in the account's own work. It is safe for concurrent use.
type Watch struct {
	accounts []*watched
	log      *slog.Logger
	now      func() time.Time
	// keep stores what a check found, for whoever does not run this one.
	keep func(ctx context.Context, appid string, found []Problem)
}

type watched struct {
	Account
	turn chan struct{} // whoever holds its token checks
	// answered holds one token: WeChat has carried out a call of the account.
	answered chan struct{}

	mu     sync.Mutex
	result Result
	at     time.Time // of the result; zero: there is none
}

// NewWatch returns a Watch that makes no call yet.
func NewWatch(accounts []Account, log *slog.Logger, now func() time.Time) *Watch {
	w := &Watch{log: log, now: now, keep: func(context.Context, string, []Problem) {}}
	for _, a := range accounts {
		w.accounts = append(w.accounts, &watched{
			Account: a, turn: make(chan struct{}, 1), answered: make(chan struct{}, 1),
		})
	}
	return w
}

// Keep names what stores the problems that each check leaves. Call it before Run.
func (w *Watch) Keep(keep func(ctx context.Context, appid string, found []Problem)) { w.keep = keep }

// Run checks until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for _, a := range w.accounts {
		running.Go(func() { w.follow(ctx, a) })
	}
}

func (w *Watch) follow(ctx context.Context, a *watched) {
	for ctx.Err() == nil {
		var again <-chan time.Time // never
		var answered <-chan struct{}
		switch r := w.check(ctx, a); {
		case r.Err != nil:
			again = time.After(unknownInterval)
		case len(r.Problems) > 0 || wechat.Transient(r.ListErr):
			again, answered = time.After(problemInterval), a.answered
		}
		select {
		case <-again:
		case <-answered:
			sleep(ctx, freshFor) // or the last result would stand
		case <-ctx.Done():
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Check checks one account, or returns what has just been found.
func (w *Watch) Check(ctx context.Context, appid string) Result {
	for _, a := range w.accounts {
		if a.AppID == appid {
			return w.check(ctx, a)
		}
	}
	return Result{Err: fmt.Errorf("no account %s is watched", appid)}
}

// Answered says that WeChat has carried out a call of the account: its problems may be gone. It
// returns at once.
func (w *Watch) Answered(appid string) {
	for _, a := range w.accounts {
		if a.AppID == appid {
			select {
			case a.answered <- struct{}{}:
			default:
			}
		}
	}
}

// Problems returns what the last checks found.
func (w *Watch) Problems() (all []Problem) {
	for _, a := range w.accounts {
		a.mu.Lock()
		all = append(all, a.result.Problems...)
		a.mu.Unlock()
	}
	return all
}

func (w *Watch) check(ctx context.Context, a *watched) Result {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return Result{Err: ctx.Err()}
	}
	a.mu.Lock()
	last, age := a.result, w.now().Sub(a.at)
	a.mu.Unlock()
	if age >= 0 && age < freshFor {
		return last
	}
	calling, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	r := Check(calling, a.Account)
	if ctx.Err() != nil {
		return Result{Err: ctx.Err()} // it says nothing about the account
	}
	r.keep(last.Problems)
	w.report(a.AppID, last, r)
	w.keep(ctx, a.AppID, r.Problems)
	a.mu.Lock()
	a.result, a.at = r, w.now()
	a.mu.Unlock()
	return r
}

// keep keeps the problems of which nobody has said that they are gone.
func (r *Result) keep(old []Problem) {
	for _, p := range old {
		if r.Err != nil || r.ListErr != nil && p.Err == nil {
			r.Problems = append(r.Problems, p)
		}
	}
}

// report logs what has changed.
func (w *Watch) report(appid string, last, r Result) {
	log := w.log.With("appid", appid)
	same := func(p, q Problem) bool {
		return p.Reason == q.Reason && (p.Err != nil || p.Text == q.Text)
	}
	for _, p := range r.Problems {
		if !slices.ContainsFunc(last.Problems, func(q Problem) bool { return same(p, q) }) {
			log.Error("the account cannot work as it is configured",
				"reason", p.Reason, "err", p.Text, "cure", p.Cure)
		}
	}
	switch {
	case len(last.Problems) > 0 && len(r.Problems) == 0:
		log.Info("the account works as it is configured")
	case r.Err != nil && last.Err == nil:
		log.Warn("WeChat did not say whether the account works: it is asked again", "err", r.Err)
	case r.ListErr != nil && last.ListErr == nil:
		log.Warn("the account's templates could not be compared with the configuration",
			"err", r.ListErr)
	}
}
