package wechat

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// renewBefore is how long before its end a token is renewed. WeChat swaps the stable token in
	// the last 5 minutes of its life and keeps both valid; half a minute is for clocks that differ.
	renewBefore = 4*time.Minute + 30*time.Second

	// renewRetry is the pause after a renewal that failed while the old token is still good.
	renewRetry = 30 * time.Second

	// earlyRenewTimeout bounds an early renewal: the caller has a token, and a token server that
	// hangs must not delay the call. Half of a send's default timeout, so that the send may follow.
	earlyRenewTimeout = 5 * time.Second

	// tokenFailureHold is how long a failed fetch answers for all callers: with a wrong secret a
	// hundred goroutines would make a hundred calls, each counted, all in vain.
	tokenFailureHold = 3 * time.Second
)

// token is one answer of the token endpoint. Two answers may carry the same value; callers report
// on the answer they used, so that a late refusal of the former is not taken for one of the latter.
type token struct {
	value   string
	at      time.Time // when this answer came
	born    time.Time // when this value first came
	expires time.Time
	renewAt time.Time

	doubts   int         // refusals in a row of this value, over several answers
	refused  bool        // guarded by tokenSource.mu
	accepted atomic.Bool // WeChat took it at least once since this answer
}

func (t *token) again(now time.Time) *token {
	return &token{value: t.value, at: now, born: t.born, expires: t.expires, renewAt: t.renewAt,
		doubts: t.doubts}
}

// tokenSource holds the token of one account: in memory, fetched by one goroutine at a time,
// renewed by compare-and-refresh. Its provider knows the source, and what follows a refusal.
type tokenSource struct {
	provider tokenProvider // called by the leader of a flight only
	now      func() time.Time
	log      *slog.Logger

	mu         sync.Mutex
	current    *token
	flight     chan struct{} // closed when the fetch under way ends; nil: none
	failure    error         // the last fetch's error, served until holdTil
	holdTil    time.Time
	contention contention
}

// get returns a token that is believed to be good, waiting for a fetch at most as long as ctx
// allows. The fetch runs in the goroutine, and under the context, of the first caller who needs it;
// if that caller leaves, a waiting one takes over.
func (s *tokenSource) get(ctx context.Context) (*token, error) {
	for {
		token, flight, err := s.peek()
		if token != nil || err != nil {
			return token, err
		}
		if flight == nil {
			return s.lead(ctx)
		}
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, s.waitError(ctx.Err())
		}
	}
}

// peek returns a token or an error without a call, or a flight to wait for, or nothing: then the
// caller owns the flight and leads.
func (s *tokenSource) peek() (*token, chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	held := now.Before(s.holdTil)
	usable := s.usable(now)
	switch {
	case usable && (now.Before(s.current.renewAt) || s.flight != nil || held):
		return s.current, nil, nil
	case held:
		return nil, nil, s.failure
	case s.flight != nil:
		return nil, s.flight, nil
	}
	s.flight = make(chan struct{})
	return nil, nil, nil
}

// usable needs mu held.
func (s *tokenSource) usable(now time.Time) bool {
	return s.current != nil && !s.current.refused && now.Before(s.current.expires)
}

func (s *tokenSource) lead(ctx context.Context) (*token, error) {
	var next *token
	var err error
	defer s.land(ctx, &next, &err)
	s.mu.Lock()
	last, early := s.current, s.usable(s.now())
	s.mu.Unlock()
	fetching := ctx
	if early {
		var cancel context.CancelFunc
		fetching, cancel = context.WithTimeout(ctx, earlyRenewTimeout)
		defer cancel()
	}
	if next, err = s.renew(fetching, last); err == nil {
		return next, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); s.usable(now) { // it was an early renewal
		if !errors.Is(ctx.Err(), context.Canceled) {
			s.current.renewAt = now.Add(renewRetry)
			s.log.Warn("renewing the access token: trying again, the old one is still good", "error", err)
		}
		return s.current, nil
	}
	return nil, err
}

// land ends the flight, also after a panic.
func (s *tokenSource) land(ctx context.Context, next **token, err *error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.flight)
	s.flight = nil
	switch {
	case *next != nil:
		s.current, s.failure, s.holdTil = *next, nil, time.Time{}
	case *err != nil && ctx.Err() == nil: // an interrupted leader says nothing about WeChat
		s.failure, s.holdTil = *err, s.now().Add(tokenFailureHold)
	}
}

// renew makes at most one fetch. last may be nil, expiring, or refused.
func (s *tokenSource) renew(ctx context.Context, last *token) (*token, error) {
	doubted := last != nil && last.refused
	var todo decision
	if doubted {
		todo = s.provider.refused(last, s.now())
	}
	switch todo.step {
	case stepWait:
		return nil, s.refusedError(todo.until)
	case stepReuse:
		return last.again(s.now()), nil
	case stepForce:
		s.log.Warn("forcing a new access token: WeChat refused the current one twice", "refusals",
			last.doubts)
	case stepFetch:
	}
	got, err := s.provider.fetch(ctx, todo.step == stepForce)
	if err != nil {
		return nil, err
	}
	now := s.now()
	next := &token{value: got.value, at: now, born: now, expires: now.Add(got.lifetime),
		renewAt: now.Add(got.renew)}
	same := last != nil && last.value == got.value
	if same {
		next.born = last.born
	}
	switch {
	case doubted && same:
		next.doubts = last.doubts
	case doubted:
		s.recordLoss(last)
	}
	s.log.Debug("fetched an access token", "forced", todo.step == stepForce, "lifetime",
		got.lifetime, "same", same)
	return next, nil
}

func (s *tokenSource) recordLoss(t *token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.contention.recordLoss(t, now)
	if s.contention.alarm(now) {
		s.log.Error("access tokens end soon after they were fetched, one after the other: "+s.provider.texts().contention,
			"reason", ReasonTokenFight, "tokens", contentionLosses, "within",
			now.Sub(s.contention.losses[0]).Round(time.Second))
	}
}

func (s *tokenSource) contended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contention.active(s.now())
}

// accept records that WeChat took the token, so that its next refusal is a first one.
func (s *tokenSource) accept(t *token) {
	if !t.accepted.Load() { // spare the cache line ten thousand writes a second
		t.accepted.Store(true)
	}
}

// reject records that WeChat refused a token. Only the first report about the current one counts.
func (s *tokenSource) reject(t *token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != t || t.refused {
		return
	}
	t.refused = true
	if t.accepted.Load() {
		t.doubts = 0
	}
	t.doubts++
}

func (s *tokenSource) refusedError(until time.Time) *Error {
	w := s.provider.texts()
	e := &Error{
		Endpoint: w.endpoint,
		Message:  w.refused + "; next try at " + until.Format(time.TimeOnly),
		Reason:   w.reason,
		Policy:   w.policy,
	}
	if s.contended() {
		e.Reason = ReasonTokenFight
		e.Message += "; " + w.contention
	}
	return e
}

func (s *tokenSource) waitError(err error) *Error {
	reason := ReasonTimeout
	if errors.Is(err, context.Canceled) {
		reason = ReasonCancelled
	}
	return &Error{
		Endpoint: s.provider.texts().endpoint,
		Reason:   reason,
		Policy:   PolicyRetry,
		Err:      &cause{text: "waiting for the access token: " + err.Error(), is: err},
	}
}
