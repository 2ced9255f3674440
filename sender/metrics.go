package sender

import "github.com/prometheus/client_golang/prometheus"

// metrics are the sender's figures.
type metrics struct {
	outcomes *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	paused   *prometheus.GaugeVec

	templates *prometheus.GaugeVec
	rate      *prometheus.GaugeVec
	receipts  *prometheus.CounterVec
	reserved  *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_send_outcomes_total",
			Help: "Settled attempts by the row's new status and its reason; a row may count more than once until it is final.",
		}, []string{"appid", "status", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "unionbridge_send_seconds", Help: "Time of one POST to template/send.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"appid"}),
		paused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unionbridge_send_paused", Help: "1 while the account's sending is paused; account_state says why.",
		}, []string{"appid"}),
		templates: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unionbridge_send_templates_held", Help: "Templates whose messages are held back; account_state says why.",
		}, []string{"appid"}),
		rate: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unionbridge_send_rate", Help: "Messages a second at most; below the configured rate while WeChat is busy.",
		}, []string{"appid"}),
		reserved: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "unionbridge_send_reserved",
			Help: "1 while the rest of the day's messages is kept for urgent requests (send.urgent_reserve).",
		}, []string{"appid"}),
		receipts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_receipts_total", Help: "Receipts stored, by what they say.",
		}, []string{"appid", "status"}),
	}
	reg.MustRegister(m.outcomes, m.seconds, m.paused, m.templates, m.rate, m.receipts, m.reserved)
	return m
}

// metric sets a gauge of the account.
func (a *account) metric(gauge *prometheus.GaugeVec, value float64) {
	gauge.WithLabelValues(a.cfg.AppID).Set(value)
}

// count counts a settled result. Rows given back without an attempt are not outcomes.
func (m *metrics) count(appid string, r result) {
	if r.status == statusPending && r.refund {
		return
	}
	m.outcomes.WithLabelValues(appid, string(r.final()), r.reason).Inc()
}
