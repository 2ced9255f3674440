package main

import (
	_ "embed"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// account is one account with a schema, a simulator and a configuration of its own. They end with
// its scenarios, so that no scenario works beside what another one left in the server's buffer
// pool, and the disk is that of one account at the most.
type account struct {
	followers int
	miniUsers int
	batchgets int           // in flight
	mini      *harness.Mini // nil: it does not send
	granted   int           // messages that each user of it allows
	before    int64         // the schema is as before this migration; 0: the present one
	// prepare fills what its scenarios begin with.
	prepare   func(*bench)
	scenarios []scenario
}

type scenario struct {
	name string // what -only matches
	run  func(*bench)
}

func (o *options) scenarioNames() (names []string) {
	for _, a := range o.accounts() {
		for _, s := range a.scenarios {
			names = append(names, s.name)
		}
	}
	return names
}

const (
	// batchgets is how many batchgets are in flight unless a figure says otherwise: the default of
	// official_accounts[].sync.concurrency.
	batchgets = 8

	slowLatency   = 50 * time.Millisecond
	slowBatchgets = 20

	// changeShare of the followers are new, and as many have gone.
	changeShare = 0.01

	largeTimes = 10
)

// accounts are all that is measured, in this order. Where nobody measures sweeps, the first account
// need have no more followers than requests.
func (o *options) accounts() []account {
	size := o.followers
	if o.only != nil && !o.wants("sweep") {
		size = o.requests
	}
	return []account{
		{
			followers: size, miniUsers: o.requests, batchgets: batchgets,
			prepare: (*bench).prepareSender,
			scenarios: []scenario{
				{"sweep", (*bench).sweeps}, {"send", (*bench).send}, {"far", (*bench).far},
				{"producers", (*bench).produce}, {"idle", (*bench).idle},
				{"lanes", (*bench).lanes}, {"invented", (*bench).invented},
				{"latency", (*bench).latency}, {"memory", (*bench).memory},
				{"waiting", (*bench).waiting},
				{"takeover", (*bench).takeover}, {"urgent", (*bench).urgent}, {"fair", (*bench).fair},
				{"door", (*bench).door},
				{"future", (*bench).future}, {"finished", (*bench).finished},
			},
		},
		{
			followers: o.requests, miniUsers: o.requests, batchgets: batchgets, mini: mini(),
			granted: granted, prepare: (*bench).prepareChannels,
			scenarios: []scenario{{"subscribe", (*bench).subscribe}, {"mixed", (*bench).mixed}},
		},
		{followers: lostPeople, miniUsers: lostPeople, batchgets: batchgets,
			scenarios: []scenario{{"lost", (*bench).lost}}},
		{followers: o.followers, batchgets: slowBatchgets, prepare: (*bench).prepareChange,
			scenarios: []scenario{{"slow", (*bench).slow}, {"change", (*bench).change}}},
		{followers: o.killFollowers, batchgets: batchgets,
			scenarios: []scenario{{"kill", (*bench).killSweeps}}},
		{followers: largeTimes * o.followers, batchgets: batchgets,
			scenarios: []scenario{{"large", (*bench).large}}},
		{followers: o.requests, miniUsers: o.requests, batchgets: batchgets, before: migrationVersion,
			prepare:   (*bench).prepareUsers,
			scenarios: []scenario{{"migration", (*bench).migration}}},
	}
}

//go:embed figures.txt
var figuresText string

type figure struct {
	name   string // one word, for programs
	unit   string // one word
	target target
	what   string // for people
}

func (o *options) figures() (list []figure) {
	changed := int(changeShare * float64(o.followers))
	pages := harness.Pages(o.followers)
	var text strings.Builder
	_ = template.Must(template.New("figures").Parse(figuresText)).Execute(&text, map[string]any{
		"Requests": harness.Count(o.requests), "Half": harness.Count(o.requests / 2),
		"Campaign":    harness.Count(campaignTimes * o.requests),
		"LanesOthers": lanesOthers, "Good": harness.Count(o.requests / 200),
		"Junk":     harness.Count(o.requests / 5),
		"Future":   harness.Count(futureTimes * o.requests),
		"Finished": harness.Count(finishedTimes * o.requests), "Migration": migrationVersion,
		"Far": harness.Count(o.farRequests()), "FarLatency": farLatency,
		"FarConcurrency": farConcurrency, "Producers": producers, "DoorClients": doorClients, "DoorProducers": doorProducers, "Takeovers": takeovers,
		"MovedIn": int(1 / moveShare),
		"Urgent":  urgentRows, "DefaultRate": defaultRate, "Fair": fairRows, "FairRate": fairRate,
		"Waiting": harness.Count(waitingTimes * o.requests), "Pushes": pushedFollows,
		"Pages": pages, "LargePages": harness.Pages(largeTimes * o.followers),
		"SlowLatency": slowLatency, "SlowBatchgets": slowBatchgets,
		"ChangeCalls": int(1.05 * float64(pages+2*harness.Batches(changed))), "ChangeRows": 2 * changed,
		"Kill": harness.Count(o.killFollowers), "KillPages": harness.Pages(o.killFollowers),
	}) // a builder takes everything, and the tests read all fields
	for line := range strings.Lines(text.String()) {
		if words := strings.Fields(line); len(words) > 3 && words[0] != "#" {
			what := strings.Join(words[3:], " ")
			list = append(list, figure{words[0], words[1], target(words[2]), what})
		}
	}
	return list
}

// target is what a figure has to reach, such as <=48; "-": nothing.
type target string

func (t target) parts() (relation string, value float64) {
	relation = strings.TrimRight(string(t), "0123456789.")
	value, _ = strconv.ParseFloat(string(t[len(relation):]), 64) // 0 for "-"
	return relation, value
}

func (t target) verdict(v float64) string {
	relation, goal := t.parts()
	if relation == ">=" && v < goal || relation == "<=" && v > goal || relation == "=" && v != goal {
		return "short"
	}
	return "ok"
}

func (b *bench) record(name string, value float64) { b.values[name] = value }

// recordKnown notes a figure that is 0 where it cannot be known on this system, and is left out
// then.
func (b *bench) recordKnown(name string, value float64) {
	if value > 0 {
		b.record(name, value)
	}
}

func (b *bench) recordMemory(name string, bytes int64) { b.recordKnown(name, mebibytes(bytes)) }

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

func number(v float64) string {
	digits := 2
	switch {
	case v == math.Trunc(v) || math.Abs(v) >= 100:
		digits = 0
	case math.Abs(v) >= 10:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

func forPeople(v float64) string {
	if math.Abs(v) >= 1000 {
		return harness.Count(int64(v))
	}
	return number(v)
}

func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

func (b *bench) report() {
	if len(b.values) == 0 {
		return
	}
	b.Heading("Figures")
	b.Line("  %s\n", b.machine())
	var lines []string
	for _, f := range b.figures() {
		value, ok := b.values[f.name]
		if !ok {
			continue
		}
		goal, verdict := "", f.target.verdict(value)
		if relation, v := f.target.parts(); relation != "-" {
			goal = fmt.Sprintf("%s %s  %s", relation, forPeople(v), verdict)
		}
		b.Line("  %-66s %12s %-12s %s", f.what, forPeople(value), f.unit, goal)
		lines = append(lines,
			fmt.Sprintf("%s %s %s %s %s", f.name, number(value), f.unit, f.target, verdict))
	}
	b.Line("")
	for _, line := range lines {
		b.Line("%s", line)
	}
}
