package main

import (
	_ "embed"
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
	batchgets int // in flight
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
		{size, o.requests, batchgets, (*bench).prepareSender, []scenario{
			{"sweep", (*bench).sweeps}, {"send", (*bench).send}, {"far", (*bench).far},
			{"producers", (*bench).produce}, {"idle", (*bench).idle},
			{"latency", (*bench).latency}, {"memory", (*bench).memory},
			{"takeover", (*bench).takeover}, {"urgent", (*bench).urgent}, {"fair", (*bench).fair},
			{"future", (*bench).future}, {"finished", (*bench).finished},
		}},
		{o.followers, 0, slowBatchgets, (*bench).prepareChange,
			[]scenario{{"slow", (*bench).slow}, {"change", (*bench).change}}},
		{o.killFollowers, 0, batchgets, nil, []scenario{{"kill", (*bench).killSweeps}}},
		{largeTimes * o.followers, 0, batchgets, nil, []scenario{{"large", (*bench).large}}},
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
		"Campaign": harness.Count(campaignTimes * o.requests),
		"Future":   harness.Count(futureTimes * o.requests),
		"Finished": harness.Count(finishedTimes * o.requests),
		"Far":      harness.Count(o.farRequests()), "FarLatency": farLatency,
		"FarConcurrency": farConcurrency, "Producers": producers, "Takeovers": takeovers,
		"Urgent": urgentRows, "DefaultRate": defaultRate, "Fair": fairRows, "FairRate": fairRate,
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
