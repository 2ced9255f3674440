package figures

import (
	"context"
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/status"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sync"
)

// Collector makes metrics of the report. Register it once.
type Collector struct {
	cache  *Cache
	holder string // this instance, as leases name it
	up, requests, capped, oldest, stuck, alarm, lease,
	pause, quota, asked *prometheus.Desc
}

// NewCollector returns a Collector for the instance holder.
func NewCollector(cache *Cache, holder string) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &Collector{
		cache: cache, holder: holder,
		up: desc("unionbridge_status_up",
			"1 if the figures of the queue, of alarms, leases, pauses and quotas could be read; else "+
				"they are missing."),
		requests: desc("unionbridge_queue_requests",
			"Open requests, of each account and status at most 10,000, the most urgent ones.",
			"appid", "status", "priority"),
		capped: desc("unionbridge_queue_capped",
			"1 where there are more open requests than were counted.", "appid", "status"),
		oldest: desc("unionbridge_queue_oldest_seconds",
			"How long the oldest open request could have gone, at least.", "appid", "status"),
		stuck: desc("unionbridge_queue_stuck",
			"Pending requests that one reason has put off for over 15 minutes, at least.",
			"appid", "reason"),
		alarm: desc("unionbridge_alarm", "1 for each alarm of unionbridge status.", "code", "appid"),
		lease: desc("unionbridge_lease_held", "1 if this instance holds the lease of the job.",
			"job", "appid"),
		pause: desc("unionbridge_pause_until_timestamp_seconds",
			"When a paused account or template is tried again; +Inf: when somebody has fixed it.",
			"appid", "scope", "reason"),
		quota: desc("unionbridge_quota_remaining",
			"Calls that are left today, as WeChat last answered.", "appid", "endpoint"),
		asked: desc("unionbridge_quota_asked_timestamp_seconds",
			"When WeChat last answered that.", "appid", "endpoint"),
	}
}

// Describe is prometheus.Collector's.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.requests, c.capped, c.oldest, c.stuck, c.alarm,
		c.lease, c.pause, c.quota, c.asked} {
		descs <- d
	}
}

// Collect is prometheus.Collector's. Old figures would look like new ones, so without a fresh report
// there are none but one that says so.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	report, err := c.cache.Report(context.Background())
	up := 0.0
	if err == nil {
		up = 1
	}
	send := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	if send(c.up, up); err != nil {
		return
	}
	names := accountNames(report)
	c.collectQueue(send, report.Queue, names)
	c.collectLeases(send, report)
	seen := map[[2]string]bool{}
	for _, a := range report.Alarms {
		labels := [2]string{a.Code, names.label(a.AppID)}
		if !seen[labels] { // of two paused templates there is one
			send(c.alarm, 1, labels[:]...)
		}
		seen[labels] = true
	}
	for _, p := range report.Pauses {
		until := math.Inf(1)
		if p.Until != nil {
			until = seconds(*p.Until)
		}
		send(c.pause, until, p.AppID, p.Scope, p.Reason)
	}
	for _, q := range report.Quotas {
		send(c.quota, float64(q.Remaining), q.AppID, q.Endpoint)
		send(c.asked, seconds(q.AskedAt), q.AppID, q.Endpoint)
	}
}

type sendFunc func(desc *prometheus.Desc, value float64, labels ...string)

// accounts are those that the configuration has. Producers may write any appid, and each would be a
// series of its own.
type accounts map[string]bool

func accountNames(report status.Report) accounts {
	names := accounts{}
	for _, a := range report.Accounts {
		names[a.AppID] = true
	}
	return names
}

// label is "" for the default account's that nobody has claimed yet.
func (a accounts) label(appid *string) string {
	switch {
	case appid == nil:
		return ""
	case a[*appid]:
		return *appid
	}
	return "other"
}

func (c *Collector) collectQueue(send sendFunc, q status.Queue, names accounts) {
	requests, oldest, capped := sums{}, sums{}, sums{}
	for _, o := range q.Open {
		of := series{names.label(o.AppID), o.Status}
		for _, p := range o.ByPriority {
			requests[series{of[0], of[1], strconv.Itoa(p.Priority)}] += float64(p.Requests)
		}
		if o.OldestSeconds != nil {
			oldest[of] = max(oldest[of], float64(*o.OldestSeconds))
		}
		capped[of] = max(capped[of], 0)
		if o.Capped {
			capped[of] = 1
		}
	}
	stuck := sums{}
	for _, s := range q.Stuck {
		stuck[series{names.label(s.AppID), s.Reason}] += float64(s.Requests)
	}
	for labels, n := range requests {
		send(c.requests, n, labels[:]...)
	}
	oldest.send(send, c.oldest)
	capped.send(send, c.capped)
	stuck.send(send, c.stuck)
}

// series are the labels of one figure, and sums the figures of one metric.
type (
	series [3]string
	sums   map[series]float64
)

// send is for metrics with two labels.
func (s sums) send(send sendFunc, desc *prometheus.Desc) {
	for labels, n := range s {
		send(desc, n, labels[:2]...)
	}
}

// collectLeases says of each job of the accounts whether this instance has it: a rule that nobody
// sends needs the 0 too. Others, which all instances share, it says where it has them.
func (c *Collector) collectLeases(send sendFunc, report status.Report) {
	held := map[string]bool{}
	for _, l := range report.Leases {
		held[l.Name] = l.Holder == c.holder
	}
	say := func(name string) {
		value := 0.0
		if held[name] {
			value = 1
		}
		job, appid, _ := strings.Cut(name, ":")
		if job == "house" {
			job, appid = appid, ""
		}
		send(c.lease, value, job, appid)
		delete(held, name)
	}
	for _, a := range report.Accounts {
		say(queue.LeaseName(a.AppID))
		if a.Kind == status.KindOfficial {
			say(sync.LeaseName("sweep", a.AppID))
			say(sync.LeaseName("refresh", a.AppID))
		}
	}
	for name, ours := range held {
		if ours {
			say(name)
		}
	}
}

func seconds(t status.Time) float64 { return float64(t.UnixMilli()) / 1000 }
