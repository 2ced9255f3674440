package grants

import (
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// TestPageLedger: the ledger that docs/subscribe.md explains comes to the numbers that it shows, row
// by row.
func TestPageLedger(t *testing.T) {
	text, err := os.ReadFile("../../docs/subscribe.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| (\\d\\d:\\d\\d:\\d\\d) \\| `(\\w+)` \\| `(\\w+)` \\| (\\d+) \\|")
	var entries []entry
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		at, err := time.Parse(time.DateTime, "2026-12-01 "+m[1])
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{Key: m[1], Kind: m[2], Source: m[3], HappenedAt: at,
			ArrivedAt: at})
		if got := tally(entries, false).Remaining; strconv.Itoa(got) != m[4] {
			t.Errorf("after %s it is %d, the page says %s", m[1], got, m[4])
		}
	}
	if len(entries) < 8 {
		t.Errorf("the page's ledger has %d rows", len(entries))
	}
}
