package main

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

// newRegistry holds what every Go program shows, and the build. The packages add their own.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo().collector())
	return reg
}

type callMetrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newCallMetrics(reg prometheus.Registerer) callMetrics {
	m := callMetrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_wechat_calls_total",
			Help: `HTTP calls to WeChat by endpoint and reason of failure; reason "ok" is success.`,
		}, []string{"appid", "endpoint", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "unionbridge_wechat_call_seconds",
			Help:    "Time of one HTTP call to WeChat, until its answer was decoded.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"endpoint"}),
	}
	reg.MustRegister(m.calls, m.seconds)
	return m
}

func (m callMetrics) observe(appid string) func(wechat.Call) {
	return func(call wechat.Call) {
		reason := "ok"
		if we, ok := errors.AsType[*wechat.Error](call.Err); ok {
			reason = string(we.Reason)
		}
		m.calls.WithLabelValues(appid, call.Endpoint, reason).Inc()
		m.seconds.WithLabelValues(call.Endpoint).Observe(call.Duration.Seconds())
	}
}
