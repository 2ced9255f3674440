package sync

import "github.com/prometheus/client_golang/prometheus"

// metrics are the figures of finished runs.
type metrics struct {
	runs     *prometheus.CounterVec
	calls    *prometheus.CounterVec
	rows     *prometheus.CounterVec
	seconds  *prometheus.GaugeVec
	finished *prometheus.GaugeVec
	listed   *prometheus.GaugeVec
	unionids *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_sync_runs_total", Help: "Finished runs by their end state.",
		}, []string{"appid", "kind", "state"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_sync_calls_total", Help: "WeChat calls made by finished runs.",
		}, []string{"appid", "kind", "endpoint"}),
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_sync_rows_total", Help: "Rows of the map that finished runs wrote, by change.",
		}, []string{"appid", "change"}),
		seconds: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unionbridge_sync_last_duration_seconds", Help: "Duration of the last run that ended well.",
		}, []string{"appid", "kind"}),
		finished: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unionbridge_sync_last_success_timestamp_seconds", Help: "When the last run that ended well ended.",
		}, []string{"appid", "kind"}),
		listed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unionbridge_followers_listed", Help: "Followers in WeChat's list at the last sweep that ended well.",
		}, []string{"appid"}),
	}
	m.unionids = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "unionbridge_followers_unionid",
		Help: "Followers in the map when the last sweep began, by what is known of their unionid: known, absent or not_asked.",
	}, []string{"appid", "unionid"})
	reg.MustRegister(m.runs, m.calls, m.rows, m.seconds, m.finished, m.listed, m.unionids)
	return m
}

func (m *metrics) observe(r Run) {
	m.runs.WithLabelValues(r.AppID, r.Kind, string(r.State)).Inc()
	for endpoint, n := range r.Calls {
		m.calls.WithLabelValues(r.AppID, r.Kind, endpoint).Add(float64(n))
	}
	m.rows.WithLabelValues(r.AppID, "added").Add(float64(r.Added))
	m.rows.WithLabelValues(r.AppID, "changed").Add(float64(r.Changed))
	m.rows.WithLabelValues(r.AppID, "gone").Add(float64(r.Gone))
	if r.State != StateDone {
		return
	}
	m.seconds.WithLabelValues(r.AppID, r.Kind).Set(r.Ended.Sub(r.Started).Seconds())
	m.finished.WithLabelValues(r.AppID, r.Kind).Set(float64(r.Ended.Unix()))
	if r.Kind == kindSweep {
		m.listed.WithLabelValues(r.AppID).Set(float64(r.Listed))
	}
}

func (m *metrics) people(appid string, known tally) {
	m.unionids.WithLabelValues(appid, "known").Set(float64(known.withUnionID))
	m.unionids.WithLabelValues(appid, "not_asked").Set(float64(known.notAsked))
	m.unionids.WithLabelValues(appid, "absent").Set(float64(known.subscribed - known.withUnionID - known.notAsked))
}
