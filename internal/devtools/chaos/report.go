package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

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
	Channels    *channels      `json:"channels,omitempty"`
	Violations  []string       `json:"violations,omitempty"`
	Evidence    string         `json:"evidence,omitempty"` // folder with the daemons' logs

	stories []string
}

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
	cells := []any{r.Round, r.Seed, fmt.Sprintf("%.0f", r.Seconds)}
	for _, n := range r.counts() {
		cells = append(cells, *n)
	}
	return fmt.Sprintf(columns, append(cells, takeover, verdict)...)
}

func (r result) show(out *harness.Screen) {
	out.Line("%s", r.line())
	const most = 5
	for i, text := range r.Violations {
		if i == most {
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
		return err
	}
	return errors.Join(json.NewEncoder(file).Encode(r), file.Close())
}

func load(path string) (results []result, err error) {
	text, err := os.ReadFile(path)
	for line := range bytes.Lines(text) {
		var r result
		err = errors.Join(err, json.Unmarshal(line, &r))
		results = append(results, r)
	}
	return results, err
}

func sum(name string, results []result) result {
	total := result{Round: name}
	for _, r := range results {
		total.Seconds += r.Seconds
		more := r.counts()
		for i, n := range total.counts() {
			*n += *more[i]
		}
		total.Takeovers = append(total.Takeovers, r.Takeovers...)
		total.Violations = append(total.Violations, r.Violations...)
	}
	return total
}

// counts are what the tables add up.
func (r *result) counts() []*int {
	return []*int{&r.Kills, &r.Rows, &r.Sent, &r.Failed, &r.Expired, &r.Cancelled, &r.Unknown,
		&r.Repeats, &r.Open, &r.Lost, &r.Twice}
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
		other := func(r result) bool { return r.Round != k.name }
		if same := slices.DeleteFunc(slices.Clone(results), other); len(same) > 0 {
			add(k.name+": "+k.what, same)
		}
	}
	add("**all rounds**", results)
	lines = append(lines, channelsTable(results)...)
	return strings.Join(lines, "\n")
}
