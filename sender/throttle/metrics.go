package throttle

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the figures of all accounts.
type Metrics struct {
	paused, templates, rate, reserved *prometheus.GaugeVec
}

// NewMetrics registers the metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"appid"})
		reg.MustRegister(g)
		return g
	}
	return &Metrics{
		paused: gauge("unionbridge_send_paused",
			"1 while the account's sending is paused; account_state says why."),
		templates: gauge("unionbridge_send_templates_held",
			"Templates whose messages are held back; account_state says why."),
		rate: gauge("unionbridge_send_rate",
			"Messages a second at most; below the configured rate while WeChat is busy."),
		reserved: gauge("unionbridge_send_reserved",
			"1 while the rest of the day's messages is kept for urgent requests (send.urgent_reserve)."),
	}
}
