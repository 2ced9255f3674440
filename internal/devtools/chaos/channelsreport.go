package main

import (
	"fmt"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// channels is what a round with both channels adds to its result.
type channels struct {
	Grants     string `json:"grants"`      // what acceptances are counted by
	SentEvents bool   `json:"sent_events"` // WeChat pushes them for successes, too
	Moved      int    `json:"moved"`       // rows
	Unknown    int    `json:"unknown"`     // rows, in the mini program's queue
	Unresolved int    `json:"unresolved"`  // of those the ones that arrived
	Subscribed int    `json:"subscribed"`  // messages of the mini program
	Accepts    int    `json:"accepts"`
	SwitchOffs int    `json:"switch_offs"`
	Repeated   int    `json:"repeated"`  // pushes that were taken, and answered as if they were not
	Deadlocks  int    `json:"deadlocks"` // in the server, those of other rounds beside it included

	// Of the kills of a daemon that sends subscribe messages:
	Kills   int  `json:"kills"`
	Left    int  `json:"left"`    // attempts without an outcome, of all kills
	Claimed int  `json:"claimed"` // the most rows that were claimed at a kill
	Worst   left `json:"worst"`   // the kill that left most, with good links to the database
	Bad     left `json:"bad"`     // the same with bad links
}

// left is what a kill has left in doubt: what was posted, and what was about to be.
type left struct {
	Attempts int `json:"attempts"`
	Flying   int `json:"flying"`   // posted, and not answered
	Answered int `json:"answered"` // posted and answered, and not settled
}

// channelsTable is what rounds with both channels add to the report.
func channelsTable(results []result) []string {
	var sum channels
	rounds := 0
	for _, r := range results {
		if r.Channels == nil {
			continue
		}
		rounds++
		c := r.Channels
		for to, n := range map[*int]int{
			&sum.Moved: c.Moved, &sum.Subscribed: c.Subscribed, &sum.Accepts: c.Accepts,
			&sum.SwitchOffs: c.SwitchOffs, &sum.Repeated: c.Repeated, &sum.Unknown: c.Unknown,
			&sum.Kills: c.Kills, &sum.Left: c.Left, &sum.Deadlocks: c.Deadlocks,
		} {
			*to += n
		}
		sum.Claimed = max(sum.Claimed, c.Claimed)
		sum.Worst, sum.Bad = worse(sum.Worst, c.Worst), worse(sum.Bad, c.Bad)
	}
	if rounds == 0 {
		return nil
	}
	row := func(name, format string, args ...any) string {
		return "| " + name + " | " + fmt.Sprintf(format, args...) + " |"
	}
	return []string{
		"", "| both channels | |", "|---|--:|",
		row("rows moved to the other account", "%s", harness.Count(sum.Moved)),
		row("subscribe messages that arrived", "%s", harness.Count(sum.Subscribed)),
		row("acceptances, and switch-offs", "%s, %s", harness.Count(sum.Accepts),
			harness.Count(sum.SwitchOffs)),
		row("pushes whose answer was lost", "%s", harness.Count(sum.Repeated)),
		row("unknown rows of the mini program", "%s", harness.Count(sum.Unknown)),
		row("kills of the daemon that sends subscribe messages", "%s", harness.Count(sum.Kills)),
		row("attempts in doubt that a kill left, on average", "%.1f",
			float64(sum.Left)/float64(max(1, sum.Kills))),
		row("… at most, of these posted and unanswered, and answered", "%d, %d, %d",
			sum.Worst.Attempts, sum.Worst.Flying, sum.Worst.Answered),
		row("… the same with bad links to the database", "%d, %d, %d", sum.Bad.Attempts, sum.Bad.Flying,
			sum.Bad.Answered),
		row("rows that were claimed at a kill, at most", "%s", harness.Count(sum.Claimed)),
		row("deadlocks, by the server's own count", "%s", harness.Count(sum.Deadlocks)),
	}
}

func worse(a, b left) left {
	if b.Attempts > a.Attempts {
		return b
	}
	return a
}
