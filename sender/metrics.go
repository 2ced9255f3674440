package sender

import "github.com/prometheus/client_golang/prometheus"

// metrics are the engine's figures; the throttle has its own.
type metrics struct {
	outcomes *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	receipts *prometheus.CounterVec
	moves    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_send_outcomes_total",
			Help: "Settled attempts by the row's new status and its reason; a row may count more than " +
				"once until it is final.",
		}, []string{"appid", "status", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "unionbridge_send_seconds", Help: "Time of one POST of a message.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"appid"}),
		receipts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_receipts_total", Help: "Receipts stored, by what they say.",
		}, []string{"appid", "status"}),
		moves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_send_moves_total",
			Help: "Requests that went from one account of their route to the other, by the reason of that.",
		}, []string{"from", "to", "reason"}),
	}
	reg.MustRegister(m.outcomes, m.seconds, m.receipts, m.moves)
	return m
}

// moved counts requests that went from one account to another.
func (m *metrics) moved(from, to, reason string, n int) {
	m.moves.WithLabelValues(from, to, reason).Add(float64(n))
}

// receiptLabel keeps the metric's labels few whatever WeChat may say one day.
func receiptLabel(status string) string {
	switch status {
	case "success", "failed:user block", "failed:system failed", "failed:freq limit":
		return status
	}
	return "other"
}
