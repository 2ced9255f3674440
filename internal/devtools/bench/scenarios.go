package main

import (
	"fmt"
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

// scenario is what is measured in one go.
type scenario struct {
	name    string // what -only matches
	run     func(*bench)
	figures []figure
}

// figure is one value that is measured.
type figure struct {
	name   string // one word, for programs
	unit   string // one word
	target target
	what   string // for people
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

	// largeTimes is how much larger the large account is than the usual one.
	largeTimes = 10

	// The most memory that a sweep may take, by the size of the account.
	millionMemory    = 48 // MiB
	tenMillionMemory = 64 // MiB
)

// accounts are all that is measured, in this order. Where nobody measures sweeps, the first account
// need have no more followers than requests.
func (o *options) accounts() []account {
	size := o.followers
	if o.only != nil && !o.wants("sweep") {
		size = o.requests
	}
	return []account{
		{size, o.requests, batchgets, (*bench).prepareSender,
			append([]scenario{{"sweep", (*bench).sweeps, o.sweepFigures()}}, o.senderScenarios()...)},
		{o.followers, 0, slowBatchgets, (*bench).prepareChange, []scenario{
			{"slow", (*bench).slow, slowFigures()},
			{"change", (*bench).change, o.changeFigures()},
		}},
		{o.killFollowers, 0, batchgets, nil, []scenario{
			{"kill", (*bench).killSweeps, o.killFigures()},
		}},
		{largeTimes * o.followers, 0, batchgets, nil, []scenario{
			{"large", (*bench).large, o.largeFigures()},
		}},
	}
}

func (o *options) sweepFigures() []figure {
	return append([]figure{
		{"first_sweep", "followers/s", atLeast(50_000), "first sweep, nobody known"},
		memory("first_sweep", millionMemory),
		{"first_sweep_floor", "followers/s", target{}, "the machine's floor: download, then INSERT, nothing else"},
		{"first_sweep_share_of_floor", "%", atLeast(65), "first sweep, of that floor"},
		{"first_sweep_naive", "followers/s", target{}, "the same by user/info and upserts one by one"},
		{"first_sweep_ratio", "x", target{}, "first sweep against that"},
		{"second_sweep", "followers/s", atLeast(250_000), "second sweep, nothing changed"},
		{"second_sweep_naive", "followers/s", target{},
			"the simple script once more: the calls and upserts of the first time"},
		{"second_sweep_ratio", "x", target{}, "second sweep against that"},
	}, unchangedFigures("second_sweep", o.followers, 3, millionMemory)...)
}

func memory(sweep string, most float64) figure {
	return figure{sweep + "_memory", "MiB", atMost(most), "peak memory of unionbridge in it"}
}

func unchangedFigures(name string, followers int, seconds, mib float64) []figure {
	return []figure{
		{name + "_seconds", "s", atMost(seconds), "its time, from the start of the process to its end"},
		{name + "_list_calls", "calls", exactly(float64(harness.Pages(followers))), "user/get calls in it"},
		{name + "_other_calls", "calls", exactly(0), "batchget and user/info calls in it"},
		{name + "_rows_written", "rows", exactly(0), "rows of the map written in it, by the server's own count"},
		memory(name, mib),
	}
}

func slowFigures() []figure {
	return []figure{
		{"slow_first_sweep_seconds", "s", atMost(35), fmt.Sprintf(
			"first sweep with %s latency a call, %d batchgets in flight", slowLatency, slowBatchgets)},
		{"slow_first_sweep_waiting", "s", target{}, "of them nothing but latency, were all calls made without a pause"},
		memory("slow_first_sweep", millionMemory),
	}
}

// changeShare of the followers are new, and as many have gone.
const changeShare = 0.01

func (o *options) changeFigures() []figure {
	n := int(changeShare * float64(o.followers))
	pages := harness.Pages(o.followers)
	return []figure{
		{"change_seconds", "s", target{}, "sweep with 1 % new and 1 % gone"},
		{"change_calls", "calls", atMost(1.05 * float64(pages+2*harness.Batches(n))),
			"calls in it, those for the token and the quotas included"},
		{"change_calls_naive", "calls", target{}, "calls of a script that looks everybody up, one by one"},
		{"change_rows_written", "rows", exactly(float64(2 * n)),
			"rows of the map written in it, by the server's own count"},
		{"change_wrong", "rows", exactly(0), "rows that are not the truth afterwards, all compared"},
		memory("change", millionMemory),
	}
}

// What a kill may cost. Of the list, one reading: the spool is lost at the worst. Of the batchgets,
// those in flight, as many whose answers stand in the queue behind them, and what waits to be
// written: the thousand people that are being collected, and a thousand in each of the two writers.
const (
	killWriters      = 2
	killStoreBatch   = 1000
	maxKillBatchgets = batchgets + batchgets + (1+killWriters)*killStoreBatch/100
)

func (o *options) killFigures() []figure {
	return []figure{
		{"kill_moments", "kills", target{}, fmt.Sprintf(
			"kill -9 in a sweep of %s, and a restart", harness.Count(o.killFollowers))},
		{"kill_wrong", "rows", exactly(0), "rows that are not the truth afterwards, all compared, all kills"},
		{"kill_runs_lost", "runs", exactly(0), "restarts that did not resume the run"},
		{"kill_list_repeated", "calls", atMost(float64(harness.Pages(o.killFollowers))),
			"user/get calls repeated, at the worst kill: one list"},
		{"kill_batchgets_repeated", "calls", atMost(maxKillBatchgets), fmt.Sprintf(
			"batchgets repeated, at the worst kill: %d + %d + 3 × 10", batchgets, batchgets)},
		{"kill_other_calls", "calls", target{}, "user/info calls, at the worst kill: the sample of a resumed run"},
		{"kill_rows_rewritten", "rows", atMost(killWriters * killStoreBatch),
			"rows written again, at the worst kill: what the server still did for the dead"},
	}
}

func (o *options) largeFigures() []figure {
	return append([]figure{
		{"large_first_sweep", "followers/s", target{}, "first sweep of ten times as many, more than the buffer pool holds"},
		memory("large_first_sweep", tenMillionMemory),
	}, unchangedFigures("large_second_sweep", largeTimes*o.followers, 30, tenMillionMemory)...)
}

func (o *options) senderScenarios() []scenario {
	n, campaign := harness.Count(o.requests), harness.Count(campaignTimes*o.requests)
	half := harness.Count(o.requests / 2)
	return []scenario{
		{"send", (*bench).send, append([]figure{
			{"send_200k", "sends/s", atLeast(10_000), n + " pending requests to the end"},
			{"send_memory", "MiB", target{}, "peak memory of the daemon in it"},
			{"send_hand", "sends/s", target{}, "the same by a plain loop with none of the promises"},
			{"send_of_hand", "x", atLeast(1), "daemon against that"},
			{"send_hand_pipeline", "sends/s", target{}, "that loop with its four steps at the same time"},
			{"send_floor", "sends/s", target{}, "the bare POSTs, without a database"},
			{"send_of_floor", "%", atLeast(30), "daemon, of that floor"},
			{"send_naive", "sends/s", target{}, "the same by one SELECT, one POST, one UPDATE each"},
			{"send_ratio", "x", target{}, "daemon against that"},
		}, verdictFigures("send")...)},
		{"far", (*bench).far, append([]figure{
			{"send_slow", "sends/s", atLeast(2200), fmt.Sprintf(
				"%s pending requests, %s latency a call, %d in flight",
				harness.Count(o.farRequests()), farLatency, farConcurrency)},
			{"send_slow_most", "sends/s", target{}, "all that this latency and concurrency allow"},
		}, verdictFigures("send_slow")...)},
		{"producers", (*bench).produce, []figure{
			{"producers", "rows/s", atLeast(2500), fmt.Sprintf(
				"%d producers, single-row INSERTs, while the daemon sends", producers)},
			{"send_with_producers", "sends/s", atLeast(2500), "the daemon in the same time"},
			{"send_after_producers", "s", target{}, "until the rest of it was sent"},
			{"send_with_producers_missing", "messages", exactly(0), "rows inserted in it but not delivered"},
		}},
		{"idle", (*bench).idle, []figure{{"idle_queries", "queries/s", atMost(5), "queries of the idle daemon"}}},
		{"latency", (*bench).latency, []figure{
			{"latency_p50", "ms", atMost(120), "INSERT to delivery in an idle system, median"},
			{"latency_p99", "ms", atMost(250), "INSERT to delivery in an idle system, p99"},
		}},
		{"memory", (*bench).memory, []figure{
			{"pending_memory", "MiB", atMost(64),
				"peak memory of the daemon with " + campaign + " open rows, while it sends"},
		}},
		{"takeover", (*bench).takeover, []figure{
			{"takeover_seconds", "s", atMost(15), fmt.Sprintf("from the kill -9 of the leader "+
				"to the other one's first send, the longest of %d", takeovers)},
		}},
		{"urgent", (*bench).urgent, urgentFigures()},
		{"fair", (*bench).fair, []figure{
			{"fair_seconds", "s", atMost(5), fmt.Sprintf("%d rows of another template behind %s "+
				"of the same priority, at %d/s", fairRows, half, fairRate)},
		}},
		{"future", (*bench).future, append(lightFigures(half),
			besideFigures("future", "due next week", futureTimes*o.requests)...)},
		{"finished", (*bench).finished, besideFigures("finished", "finished", finishedTimes*o.requests)},
	}
}

func verdictFigures(name string) []figure {
	return []figure{
		{name + "_wrong", "messages", exactly(0), "to another person or with another text, or a row that says so"},
		{name + "_duplicates", "messages", exactly(0), "delivered twice"},
		{name + "_missing", "messages", exactly(0), "not delivered"},
	}
}

func urgentFigures() (figures []figure) {
	for _, c := range campaigns() {
		figures = append(figures, figure{c.name + "_p50", "ms", target{},
			"INSERT to delivery of an urgent row in a campaign " + c.what + ", median"},
			figure{c.name + "_max", "ms", atMost(1000),
				fmt.Sprintf("the slowest of %d of them", urgentRows)})
	}
	return figures
}

// Of the processes' time and of the database's alone.
const (
	whatCPU     = "processor time of the database server and the daemon in it"
	whatIdleCPU = "of a processor, in the database server while the daemon is idle"
)

func lightFigures(half string) []figure {
	return []figure{
		{"light_send", "sends/s", target{}, half + " pending requests and nothing else"},
		{"light_cpu", "us/message", target{}, whatCPU},
		{"light_idle_cpu", "%", target{}, whatIdleCPU},
	}
}

func besideFigures(name, what string, rows int) []figure {
	return []figure{
		{name + "_send", "sends/s", target{}, "the same beside " + harness.Count(rows) + " rows that are " + what},
		{name + "_ratio", "x", atLeast(0.9), "against the table without them"},
		{name + "_cpu", "us/message", target{}, whatCPU},
		{name + "_idle_queries", "queries/s", atMost(5), "queries of the idle daemon beside them"},
		{name + "_idle_cpu", "%", target{}, whatIdleCPU},
	}
}
