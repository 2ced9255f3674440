package sync

import (
	gosync "sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the figures of finished runs.
type metrics struct {
	runs, calls, rows                   *prometheus.CounterVec
	seconds, finished, listed, unionids *prometheus.GaugeVec

	mu   gosync.Mutex
	seen map[string]bool // kinds and accounts that this process has had a good run of
}

func newMetrics(reg prometheus.Registerer) *metrics {
	factory := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return factory.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		seen: map[string]bool{},
		runs: counter("unionbridge_sync_runs_total",
			"Finished runs by their end state.", "appid", "kind", "state"),
		calls: counter("unionbridge_sync_calls_total",
			"WeChat calls made by finished runs.", "appid", "kind", "endpoint"),
		rows: counter("unionbridge_sync_rows_total",
			"Rows of the map that finished runs wrote, by change.", "appid", "change"),
		seconds: gauge("unionbridge_sync_last_duration_seconds",
			"Duration of the last run that ended well.", "appid", "kind"),
		finished: gauge("unionbridge_sync_last_success_timestamp_seconds",
			"When the last run that ended well ended.", "appid", "kind"),
		listed: gauge("unionbridge_followers_listed",
			"Followers in WeChat's list at the last sweep that ended well.", "appid"),
		unionids: gauge("unionbridge_followers_unionid",
			"Followers in the map when the last sweep began, by what is known of their unionid: "+
				"known, absent or not_asked.", "appid", "unionid"),
	}
}

func (m *metrics) observe(r Run) {
	m.runs.WithLabelValues(r.AppID, r.Kind, string(r.State)).Inc()
	for endpoint, n := range r.Calls {
		m.calls.WithLabelValues(r.AppID, r.Kind, endpoint).Add(float64(n))
	}
	m.rows.WithLabelValues(r.AppID, "added").Add(float64(r.Added))
	m.rows.WithLabelValues(r.AppID, "changed").Add(float64(r.Changed))
	m.rows.WithLabelValues(r.AppID, "gone").Add(float64(r.Gone))
	if r.State == StateDone {
		m.ended(r)
	}
}

// recall shows the last good run of an earlier process, unless this one has had one already.
func (m *metrics) recall(r Run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.seen[r.Kind+r.AppID] {
		m.show(r)
	}
}

func (m *metrics) ended(r Run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen[r.Kind+r.AppID] = true
	m.show(r)
}

func (m *metrics) show(r Run) {
	m.seconds.WithLabelValues(r.AppID, r.Kind).Set(r.Ended.Sub(r.Started).Seconds())
	m.finished.WithLabelValues(r.AppID, r.Kind).Set(float64(r.Ended.Unix()))
	if r.Kind == kindSweep {
		m.listed.WithLabelValues(r.AppID).Set(float64(r.Listed))
	}
}

func (m *metrics) people(appid string, known tally) {
	m.unionids.WithLabelValues(appid, "known").Set(float64(known.withUnionID))
	m.unionids.WithLabelValues(appid, "not_asked").Set(float64(known.notAsked))
	absent := known.subscribed - known.withUnionID - known.notAsked
	m.unionids.WithLabelValues(appid, "absent").Set(float64(absent))
}
