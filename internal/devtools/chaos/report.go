package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// result is one round, as a line of the results file has it.
type result struct {
	Round       string         `json:"round"`
	Seed        uint64         `json:"seed"`
	Started     time.Time      `json:"started"`
	Seconds     float64        `json:"seconds"`
	HealSeconds float64        `json:"heal_seconds"` // from the end of the trouble to the judgement
	Kills       int            `json:"kills"`        // of daemons
	Flying      int            `json:"flying"`       // kills that hit posts without an answer
	Rows        int            `json:"rows"`
	Committed   int            `json:"committed"`   // requests whose INSERT was confirmed
	Unconfirmed int            `json:"unconfirmed"` // requests whose INSERT was not; they may be there
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
const columns = "%-10s %20s %6s %6s %6s %6s %6s %6s %6s %6s %7s %6s %5s %5s %9s %s"

func header() string {
	return fmt.Sprintf(columns, "round", "seed", "s", "kills", "rows", "sent", "failed", "expir.", "canc.", "unkn.", "repeats",
		"open", "lost", "twice", "takeover", "")
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
	n := func(v int) string { return fmt.Sprint(v) }
	return fmt.Sprintf(columns, r.Round, fmt.Sprint(r.Seed), fmt.Sprintf("%.0f", r.Seconds), n(r.Kills), n(r.Rows), n(r.Sent),
		n(r.Failed), n(r.Expired), n(r.Cancelled), n(r.Unknown), n(r.Repeats), n(r.Open), n(r.Lost), n(r.Twice), takeover, verdict)
}

// mostStories is how many violations of a round are shown with all that is known.
const mostStories = 5

// show prints a round for people.
func (r result) show(out *stage.Screen) {
	out.Line("%s", r.line())
	for i, text := range r.Violations {
		if i == mostStories {
			out.Line("  … and %d more, in the results file", len(r.Violations)-i)
			break
		}
		out.Line("  %s\n%s", text, r.stories[i])
	}
	if r.Evidence != "" {
		out.Line("  the daemons' logs are in %s", r.Evidence)
	}
}

// save appends the round to the results file.
func (r result) save(path string) error {
	if path == "" {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // figures for everybody
	if err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	_, err = file.Write(append(line, '\n'))
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}

// load reads a results file.
func load(path string) ([]result, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the results: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	var results []result
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

// sum adds rounds up.
func sum(name string, results []result) result {
	total := result{Round: name}
	for _, r := range results {
		total.Seconds += r.Seconds
		total.Kills += r.Kills
		total.Flying += r.Flying
		total.Rows += r.Rows
		total.Sent += r.Sent
		total.Failed += r.Failed
		total.Expired += r.Expired
		total.Cancelled += r.Cancelled
		total.Unknown += r.Unknown
		total.Posts += r.Posts
		total.Repeats += r.Repeats
		total.Open += r.Open
		total.Lost += r.Lost
		total.Twice += r.Twice
		total.Takeovers = append(total.Takeovers, r.Takeovers...)
		total.Violations = append(total.Violations, r.Violations...)
	}
	return total
}

// markdown prints the table of docs/reliability.md.
func markdown(results []result, out io.Writer) {
	fmt.Fprintln(out, "| trouble | rounds | kills | rows | sent | unknown | repeated posts | lost | twice | takeover, worst | violations |")
	fmt.Fprintln(out, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	line := func(what string, rounds int, t result) {
		takeover := "–"
		if len(t.Takeovers) > 0 {
			takeover = fmt.Sprintf("%.1f s of %d", slices.Max(t.Takeovers), len(t.Takeovers))
		}
		c := func(n int) string { return stage.Count(int64(n)) }
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", what, c(rounds), c(t.Kills), c(t.Rows), c(t.Sent),
			c(t.Unknown), c(t.Repeats), c(t.Lost), c(t.Twice), takeover, c(len(t.Violations)))
	}
	for _, r := range rounds() {
		var same []result
		for _, played := range results {
			if played.Round == r.name {
				same = append(same, played)
			}
		}
		if len(same) > 0 {
			line(r.name+": "+r.what, len(same), sum(r.name, same))
		}
	}
	line("**all rounds**", len(results), sum("all rounds", results))
}
