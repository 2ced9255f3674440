package grants

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is what WeChat knows and tells of one person and template.
type world struct {
	rnd     *rand.Rand
	at      time.Time // WeChat's
	skew    func() time.Duration
	left    int
	entries []entry // what the ledger gets of it in the end
}

func start() time.Time { return time.Unix(1_700_000_000, 0).UTC() }

// play makes events with a pause between them, each of which may be pushed late.
func (w *world) play(steps int, pause func() time.Duration) {
	for n := range steps {
		w.at = w.at.Add(pause())
		pushed := w.at.Truncate(time.Second) // WeChat's times are whole seconds
		late := time.Duration(w.rnd.Int64N(int64(time.Minute)))
		ours := w.at.Add(w.skew())
		e := entry{Key: fmt.Sprint(n), HappenedAt: pushed, Source: sourceEvent}
		switch w.rnd.IntN(10) {
		case 0:
			e.Kind, w.left = kindOff, 0
		case 1, 2, 3, 4:
			e.Kind = kindAccept
			w.left++
		default:
			e.Source, e.HappenedAt, e.Kind = sourceMessage, ours, kindSent
			if w.left == 0 {
				e.Kind = kindRefused
			} else {
				w.left--
			}
		}
		e.ArrivedAt = ours.Add(late)
		w.entries = append(w.entries, e)
	}
}

// TestTallyExact: whatever the order in which pushes and outcomes come, and however often, the number
// is WeChat's, as long as moments are far enough apart for their order to be known.
func TestTallyExact(t *testing.T) {
	for seed := range uint64(2000) {
		w := world{rnd: rand.New(rand.NewPCG(seed, 1)), at: start(),
			skew: func() time.Duration { return 0 }}
		w.play(1+w.rnd.IntN(40), func() time.Duration {
			return doubt + time.Second + time.Duration(w.rnd.Int64N(int64(time.Hour)))
		})
		for range 3 {
			entries := slices.Clone(w.entries)
			w.rnd.Shuffle(len(entries), func(i, j int) {
				entries[i], entries[j] = entries[j], entries[i]
			})
			if got := tally(entries, false).Remaining; got != w.left {
				t.Fatalf("seed %d: %d left, WeChat has %d", seed, got, w.left)
			}
		}
	}
}

// TestTallyErrsUpwards: with clocks that are up to 5 s apart and events at any distance the number is
// never lower than WeChat's. A lost push of a switch-off leaves it higher, and a lost acceptance
// costs itself and no other.
func TestTallyErrsUpwards(t *testing.T) {
	higher := 0
	for seed := range uint64(4000) {
		w := world{rnd: rand.New(rand.NewPCG(seed, 2)), at: start()}
		apart := time.Duration(w.rnd.Int64N(int64(10*time.Second))) - 5*time.Second
		w.skew = func() time.Duration { return apart }
		w.play(1+w.rnd.IntN(40), func() time.Duration {
			return time.Millisecond + time.Duration(w.rnd.Int64N(int64(8*time.Second)))
		})
		got := tally(w.entries, false).Remaining
		if got < w.left {
			t.Fatalf("seed %d: %d left, WeChat has %d", seed, got, w.left)
		}
		if got > w.left {
			higher++
		}
		lost := 0
		entries := slices.DeleteFunc(slices.Clone(w.entries), func(e entry) bool {
			gone := e.Source == sourceEvent && w.rnd.IntN(4) == 0
			if gone && e.Kind == kindAccept {
				lost++
			}
			return gone
		})
		if got := tally(entries, false).Remaining; got < w.left-lost || got < 0 {
			t.Fatalf("seed %d: %d left after %d lost acceptances, WeChat has %d", seed, got, lost,
				w.left)
		}
	}
	t.Logf("%d of 4000 are higher than WeChat's", higher)
}

// TestTally: what an operator may wonder about, one by one.
func TestTally(t *testing.T) {
	at := func(seconds int) time.Time { return start().Add(time.Duration(seconds) * time.Second) }
	e := func(kind, source string, happened, arrived int) entry {
		return entry{Key: fmt.Sprint(kind, source, happened), Kind: kind, Source: source,
			HappenedAt: at(happened), ArrivedAt: at(arrived)}
	}
	event := func(s int) entry { return e(kindAccept, sourceEvent, s, s) }
	report := func(s int) entry { return e(kindAccept, sourceReport, s, s) }
	sent := func(s int) entry { return e(kindSent, sourceMessage, s, s) }
	refused := func(s int) entry { return e(kindRefused, sourceMessage, s, s) }
	off := func(s int) entry { return e(kindOff, sourceEvent, s, s) }
	for _, tt := range []struct {
		name     string
		entries  []entry
		longTerm bool
		want     int
	}{
		{"nothing", nil, false, 0},
		{"they add up", []entry{event(0), event(100), event(200), sent(300)}, false, 2},
		{"event and report of one tap", []entry{event(0), report(3)}, false, 1},
		{"the report comes first", []entry{report(0), event(3)}, false, 1},
		{"11 minutes apart are two", []entry{event(0), report(660)}, false, 2},
		{"two pairs", []entry{event(0), event(300), report(301), report(5)}, false, 2},
		{"three events, one report", []entry{event(0), event(60), event(120), report(70)}, false, 3},
		{"a pair is as old as its event", []entry{event(0), report(300), off(100)}, false, 0},
		{"accepted in the second of the switch-off", []entry{event(100), off(100)}, false, 1},
		{"accepted a second before it", []entry{event(99), off(100)}, false, 0},
		{"reported around it: more is kept", []entry{report(97), off(100)}, false, 1},
		{"reported long before it", []entry{report(90), off(100)}, false, 0},
		{"sent before the switch-off", []entry{sent(50), off(100), event(150)}, false, 1},
		{"refused", []entry{event(0), event(10), refused(100)}, false, 0},
		{"known three seconds before the refusal", []entry{event(97), refused(100)}, false, 0},
		{"pushed after it, from before it", []entry{e(kindAccept, sourceEvent, 97, 101), refused(100)},
			false, 1},
		{"pushed long after it, from before it", []entry{e(kindAccept, sourceEvent, 90, 200),
			refused(100)}, false, 0},
		{"sent three seconds before, by our clock", []entry{event(100), sent(97)}, false, 0},
		{"a lost acceptance costs no other", []entry{sent(0), event(100)}, false, 1},
		{"long-term: messages use nothing up", []entry{event(0), sent(10), sent(20)}, true, 1},
		{"long-term: switched off", []entry{event(0), off(100)}, true, 0},
		{"long-term: switched on again", []entry{event(0), off(100), e(kindOn, sourceEvent, 200, 200)},
			true, 1},
		{"one-time: switched on again", []entry{event(0), off(100), e(kindOn, sourceEvent, 200, 200)},
			false, 0},
		{"long-term: refused", []entry{event(0), refused(100)}, true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tally(tt.entries, tt.longTerm).Remaining; got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}
