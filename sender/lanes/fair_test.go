package lanes

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestInventedIDs: the same of templates that look like ids, which WeChat alone could refuse.
func TestInventedIDs(t *testing.T) {
	configured := func(l queue.Lane) bool { return l.Template == "order" || l.Template == "refund" }
	divide := Divider{Named: configured}
	seen := map[string]bool{}
	const invented, limit, claims = 1000, 800, 1000 / (MaxLanes - 2)
	for range claims + 1 {
		var lanes []queue.Share
		for i := range invented {
			lanes = append(lanes, queue.Share{Lane: queue.Lane{Template: fmt.Sprint(i), Priority: 1}, Quantum: limit})
		}
		for _, name := range []string{"order", "refund"} {
			lanes = append(lanes, queue.Share{Lane: queue.Lane{Template: name, Priority: 1}, Quantum: limit})
		}
		lanes = append(lanes, queue.Share{Lane: queue.Lane{Template: "bulk", Priority: 2}, Quantum: limit})
		shares, left := divide.Shares(lanes, limit)
		if len(shares) != MaxLanes || !left {
			t.Fatalf("%d lanes, left %t", len(shares), left)
		}
		for _, s := range shares {
			seen[s.Template] = true
			if want := 267; configured(s.Lane) && s.Quantum != want {
				t.Errorf("the quantum of %s is %d, want %d", s.Template, s.Quantum, want)
			}
		}
	}
	if len(seen) != invented+2 {
		t.Errorf("%d lanes had their turn in %d claims, want %d", len(seen), claims+1, invented+2)
	}
}

// TestFairWindow: few lanes share alike, and more than a claim looks at take turns, those of an
// alias before those that somebody may have invented.
func TestFairWindow(t *testing.T) {
	configured := func(l queue.Lane) bool { return l.Template[0] == 'a' }
	lanes := func(priority int, prefix string, n int) (lanes []queue.Share) {
		for i := range n {
			l := queue.Lane{Template: fmt.Sprint(prefix, i), Priority: priority}
			lanes = append(lanes, queue.Share{Lane: l, Quantum: 1000})
		}
		return lanes
	}
	for _, tc := range []struct {
		name  string
		lanes []queue.Share
		want  map[string]int // lanes by priority and first letter
		left  bool
	}{
		{"none", nil, map[string]int{}, false},
		{"all", lanes(1, "x", 35), map[string]int{"1x": 35}, false},
		{"exactly", append(lanes(1, "x", 35), lanes(2, "a", 5)...), map[string]int{"1x": 35, "2a": 5}, false},
		{"strangers", lanes(1, "x", 41), map[string]int{"1x": 40}, true},
		{"both", append(lanes(1, "x", 99), lanes(1, "a", 30)...), map[string]int{"1x": 10, "1a": 30}, true},
		{"many aliases", append(lanes(1, "x", 99), lanes(1, "a", 50)...), map[string]int{"1x": 8, "1a": 32}, true},
		{"one place", append(append(lanes(0, "x", 39), lanes(1, "x", 9)...), lanes(1, "a", 3)...),
			map[string]int{"0x": 39, "1a": 1}, true},
		{"few places", append(append(lanes(0, "x", 38), lanes(1, "x", 9)...), lanes(1, "a", 3)...),
			map[string]int{"0x": 38, "1a": 2}, true},
		{"no place", append(lanes(0, "x", 40), lanes(1, "a", 3)...), map[string]int{"0x": 40}, true},
	} {
		divide := Divider{Named: configured}
		shares, left := divide.Shares(tc.lanes, 800)
		got := map[string]int{}
		for _, s := range shares {
			got[fmt.Sprint(s.Priority, s.Template[:1])]++
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || left != tc.left {
			t.Errorf("%s: left %t, lanes differ (-want +got):\n%s", tc.name, left, diff)
		}
	}
}

// TestStrangersBehindUrgent: where lanes of a higher priority leave less room than a share of it,
// templates that are named by their ids have their turn nevertheless.
func TestStrangersBehindUrgent(t *testing.T) {
	divide := Divider{Named: func(l queue.Lane) bool { return l.Template != "id" }}
	var claims int
	for range 2 * strangerShare {
		var lanes []queue.Share
		for i := range MaxLanes - 1 {
			lanes = append(lanes, queue.Share{Lane: queue.Lane{Template: fmt.Sprint(i)}, Quantum: 9})
		}
		for _, name := range []string{"id", "order"} {
			lanes = append(lanes, queue.Share{Lane: queue.Lane{Template: name, Priority: 1}, Quantum: 9})
		}
		shares, _ := divide.Shares(lanes, 800)
		if shares[MaxLanes-1].Template == "id" {
			claims++
		}
	}
	if claims != 2 {
		t.Errorf("the template without an alias has a place in %d of %d claims", claims, 2*strangerShare)
	}
}

// TestStrangersTakeTurns: there all of them have their turn, also where it comes every fifth claim
// and five divides their number.
func TestStrangersTakeTurns(t *testing.T) {
	divide := Divider{Named: func(l queue.Lane) bool { return l.Template[0] == 'a' }}
	const strangers = 10
	got := map[string]bool{} // templates without an alias
	for range strangers * strangerShare {
		var lanes []queue.Share
		for i := range MaxLanes + strangers {
			l := queue.Lane{Template: fmt.Sprint("a", i)}
			if i >= MaxLanes-3 {
				l.Priority = 1
			}
			if i >= MaxLanes {
				l.Template = fmt.Sprint("x", i)
			}
			lanes = append(lanes, queue.Share{Lane: l, Quantum: 9})
		}
		shares, _ := divide.Shares(lanes, 800)
		for _, s := range shares {
			if s.Template[0] == 'x' {
				got[s.Template] = true
			}
		}
	}
	if len(got) != strangers {
		t.Errorf("%d of %d templates without an alias had a place", len(got), strangers)
	}
}
