package wechat

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// renewBefore is how long before its end a token is renewed. WeChat swaps the stable token in the last 5 minutes of
	// its life and keeps both valid meanwhile; half a minute less allows for clocks that differ.
	renewBefore = 4*time.Minute + 30*time.Second

	// tokenFailureHold is how long a failed fetch answers for all callers: with a wrong secret a hundred goroutines would
	// otherwise make a hundred calls, each counted and each certain to fail.
	tokenFailureHold = 3 * time.Second

	// forcedPerDay and forcedInterval bound forced refreshes: WeChat allows 20 a day, for all instances together and at
	// least 30 s apart. https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken
	forcedPerDay   = 18
	forcedInterval = 30 * time.Second

	// freshFor is the age under which the death of a token is nobody's expiry but somebody's doing.
	freshFor = 10 * time.Minute
)

// issued is one answer of the token endpoint. Two answers may carry the same value; a caller hands back the very issued
// it used, so that a late refusal of the former answer is not taken for a refusal of the latter.
type issued struct {
	value   string
	at      time.Time // when this answer came
	born    time.Time // when this value first came
	expires time.Time
	renewAt time.Time

	doubts   int         // refusals in a row of this value, over several answers
	refused  bool        // guarded by tokenSource.mu
	accepted atomic.Bool // WeChat took it at least once since this answer
}

// fetchToken gets a token from WeChat; force invalidates the one it has.
type fetchToken func(ctx context.Context, force bool) (value string, lifetime time.Duration, err error)

// tokenSource holds the stable token of one account: in memory, fetched by one goroutine at a time, renewed by
// compare-and-refresh. A refused token goes through three steps, since refusals inside the validity happen for no reason:
// ask WeChat for the current token; if it is the same, try it once more; if it is refused again, force a new one.
type tokenSource struct {
	fetch fetchToken
	now   func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	current *issued
	flight  chan struct{} // closed when the fetch under way ends; nil: none
	failure error         // the last fetch's error, served until holdTil
	holdTil time.Time
	forced  []time.Time // forced refreshes of the last 24 hours
}

// get returns a token that is believed to be good, waiting for a fetch at most as long as ctx allows. The fetch runs in
// the goroutine, and under the context, of the first caller who needs it; if he goes away, a waiting one takes over.
func (s *tokenSource) get(ctx context.Context) (*issued, error) {
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
			return nil, waitError(ctx.Err())
		}
	}
}

// peek returns a token or an error to be had without a call, or a flight to wait for, or nothing: then the caller leads,
// and the flight is his.
func (s *tokenSource) peek() (*issued, chan struct{}, error) {
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

// lead renews the token for everybody.
func (s *tokenSource) lead(ctx context.Context) (*issued, error) {
	var next *issued
	var err error
	defer s.land(ctx, &next, &err)
	s.mu.Lock()
	last := s.current
	s.mu.Unlock()
	if next, err = s.renew(ctx, last); err == nil {
		return next, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.usable(s.now()) { // it was an early renewal
		s.log.Warn("renewing the access token: trying again, the old one is still good", "error", err)
		return s.current, nil
	}
	return nil, err
}

// land ends the flight, also when fetching panicked.
func (s *tokenSource) land(ctx context.Context, next **issued, err *error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.flight)
	s.flight = nil
	switch {
	case *next != nil:
		s.current, s.failure, s.holdTil = *next, nil, time.Time{}
	case *err != nil && ctx.Err() == nil: // a leader who left says nothing about WeChat
		s.failure, s.holdTil = *err, s.now().Add(tokenFailureHold)
	}
}

// renew makes at most one fetch. last may be nil, expiring, or refused.
func (s *tokenSource) renew(ctx context.Context, last *issued) (*issued, error) {
	doubted := last != nil && last.refused
	force := doubted && last.doubts >= 2
	if force && !s.takeForced() {
		// Not allowed to force: wait, and then try the same token again, for it may have been good all the time.
		if until := last.at.Add(forcedInterval); s.now().Before(until) {
			return nil, refusedError(until)
		}
		force = false
	}
	if force {
		s.log.Warn("forcing a new access token: WeChat refused the current one twice", "refusals", last.doubts)
	}
	value, lifetime, err := s.fetch(ctx, force)
	if err != nil {
		return nil, err
	}
	now := s.now()
	next := &issued{value: value, at: now, born: now, expires: now.Add(lifetime)}
	next.renewAt = now.Add(max(lifetime-renewBefore, lifetime/2))
	if lifetime > renewBefore+time.Minute {
		next.renewAt = next.expires.Add(-renewBefore)
	}
	if last != nil && last.value == value {
		next.born = last.born
		if doubted {
			next.doubts = last.doubts
		}
	}
	s.log.Debug("fetched an access token", "forced", force, "lifetime", lifetime, "same", next.born != now)
	return next, nil
}

// takeForced spends one forced refresh if the budget allows it. Only the leader calls it.
func (s *tokenSource) takeForced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for len(s.forced) > 0 && now.Sub(s.forced[0]) >= 24*time.Hour {
		s.forced = s.forced[1:]
	}
	n := len(s.forced)
	if n >= forcedPerDay || n > 0 && now.Sub(s.forced[n-1]) < forcedInterval {
		return false
	}
	s.forced = append(s.forced, now)
	return true
}

// accept notes that WeChat took the token, so that its next refusal is a first one.
func (s *tokenSource) accept(t *issued) {
	if !t.accepted.Load() { // spare the cache line ten thousand writes a second
		t.accepted.Store(true)
	}
}

// reject hands in a token that WeChat refused. Only the first caller to hand in the current one changes anything.
func (s *tokenSource) reject(t *issued) {
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
	if t.doubts == 2 && s.now().Sub(t.born) < freshFor {
		s.log.Warn("a fresh access token is refused: another program may be forcing refreshes of this account's stable token, "+
			"or the token belongs to another account", "age", s.now().Sub(t.born))
	}
}

// refusedError is what callers get while a twice refused token cannot be forced yet.
func refusedError(until time.Time) *Error {
	return &Error{
		Endpoint: EndpointStableToken,
		Message:  "WeChat refuses the token it calls current; next try at " + until.Format(time.TimeOnly),
		Reason:   ReasonTokenRefused,
		Policy:   PolicyToken,
	}
}

// waitError is what a caller gets whose context ended while another one fetched the token.
func waitError(err error) *Error {
	reason := ReasonTimeout
	if err == context.Canceled {
		reason = ReasonCancelled
	}
	return &Error{
		Endpoint: EndpointStableToken,
		Reason:   reason,
		Policy:   PolicyRetry,
		Err:      &cause{text: "waiting for the access token: " + err.Error(), is: err},
	}
}
