package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// result is one round, as a line of the results file has it.
type result struct {
	Round       string         `json:"round"`
	Seed        uint64         `json:"seed"`
	Started     time.Time      `json:"started"`
	Seconds     float64        `json:"seconds"`
	HealSeconds float64        `json:"heal_seconds"` // from the end of the faults to the verdict
	Kills       int            `json:"kills"`        // of daemons
	Flying      int            `json:"flying"`       // kills that hit posts without an answer
	Rows        int            `json:"rows"`
	Committed   int            `json:"committed"`   // requests whose INSERT was confirmed
	Unconfirmed int            `json:"unconfirmed"` // others; they may exist
	Sent        int            `json:"sent"`
	Failed      int            `json:"failed"`
	Expired     int            `json:"expired"`
	Cancelled   int            `json:"cancelled"`
	Unknown     int            `json:"unknown"`
	Open        int            `json:"open"`
	Posts       int            `json:"posts"`
	Repeats     int            `json:"repeats"` // posts of a request beyond its first
	Lost        int            `json:"lost"`
	Twice       int            `json:"twice"`
	Takeovers   []float64      `json:"takeovers,omitempty"` // seconds
	Window      string         `json:"window"`
	Repeat      string         `json:"repeat"`
	Slowest     string         `json:"slowest"` // the request that took longest
	Acts        map[string]int `json:"acts"`
	Violations  []string       `json:"violations,omitempty"`
	Evidence    string         `json:"evidence,omitempty"` // folder with the daemons' logs

	stories []string
}

// columns are those of the table for people.
const columns = "%-10s %20v %6v %6v %6v %6v %6v %6v %6v %6v %7v %6v %5v %5v %9s %s"

func header() string {
	return fmt.Sprintf(columns, "round", "seed", "s", "kills", "rows", "sent", "failed", "expir.",
		"canc.", "unkn.", "repeats", "open", "lost", "twice", "takeover", "")
}

func (r result) line() string {
	verdict := "ok"
	if len(r.Violations) > 0 {
		verdict = fmt.Sprintf("WRONG, %d violations", len(r.Violations))
	}
	takeover := "-"
	if len(r.Takeovers) > 0 {
		takeover = fmt.Sprintf("%.1f s", slices.Max(r.Takeovers))
	}
	return fmt.Sprintf(columns, r.Round, r.Seed, fmt.Sprintf("%.0f", r.Seconds), r.Kills, r.Rows,
		r.Sent, r.Failed, r.Expired, r.Cancelled, r.Unknown, r.Repeats, r.Open, r.Lost, r.Twice,
		takeover, verdict)
}

// maxStories is how many violations of a round are shown with all that is known.
const maxStories = 5

func (r result) show(out *harness.Screen) {
	out.Line("%s", r.line())
	for i, text := range r.Violations {
		if i == maxStories {
			out.Line("  … and %d more, in the results file", len(r.Violations)-i)
			break
		}
		out.Line("  %s\n%s", text, r.stories[i])
	}
	if r.Evidence != "" {
		out.Line("  the daemons' logs are in %s", r.Evidence)
	}
}

func (r result) save(path string) error {
	if path == "" {
		return nil
	}
	//nolint:gosec // figures for everybody
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	err = json.NewEncoder(file).Encode(r)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}

func load(path string) (results []result, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the results: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	decoder := json.NewDecoder(bufio.NewReader(file))
	for {
		var r result
		if err := decoder.Decode(&r); errors.Is(err, io.EOF) {
			return results, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading the results: %w", err)
		}
		results = append(results, r)
	}
}

func sum(name string, results []result) result {
	total := result{Round: name}
	for _, r := range results {
		total.Seconds += r.Seconds
		total.Kills += r.Kills
		total.Rows += r.Rows
		total.Sent += r.Sent
		total.Failed += r.Failed
		total.Expired += r.Expired
		total.Cancelled += r.Cancelled
		total.Unknown += r.Unknown
		total.Repeats += r.Repeats
		total.Open += r.Open
		total.Lost += r.Lost
		total.Twice += r.Twice
		total.Takeovers = append(total.Takeovers, r.Takeovers...)
		total.Violations = append(total.Violations, r.Violations...)
	}
	return total
}

func markdown(results []result) string {
	lines := []string{
		"| trouble | rounds | kills | rows | sent | unknown | repeated posts | lost | twice |" +
			" takeover, worst | violations |",
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
	}
	add := func(what string, rounds []result) {
		t := sum(what, rounds)
		takeover := "–"
		if len(t.Takeovers) > 0 {
			takeover = fmt.Sprintf("%.1f s of %d", slices.Max(t.Takeovers), len(t.Takeovers))
		}
		cells := []string{what}
		for _, n := range []int{
			len(rounds), t.Kills, t.Rows, t.Sent, t.Unknown, t.Repeats, t.Lost, t.Twice,
		} {
			cells = append(cells, harness.Count(n))
		}
		cells = append(cells, takeover, harness.Count(len(t.Violations)))
		lines = append(lines, "| "+strings.Join(cells, " | ")+" |")
	}
	for _, k := range kinds() {
		var same []result
		for _, played := range results {
			if played.Round == k.name {
				same = append(same, played)
			}
		}
		if len(same) > 0 {
			add(k.name+": "+k.what, same)
		}
	}
	add("**all rounds**", results)
	return strings.Join(lines, "\n")
}
