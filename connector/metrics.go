package connector

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
)

// Metrics are what Prometheus sees. Labels are names from the configuration and fixed words, never a number or a text.
// A nil *Metrics counts nothing.
type Metrics struct {
	registry  *prometheus.Registry
	webhooks  *prometheus.CounterVec
	ackTime   prometheus.Histogram
	inbound   *prometheus.CounterVec
	decisions *prometheus.CounterVec
	sends     *prometheus.CounterVec
	writes    *prometheus.CounterVec
	stopToBox prometheus.Histogram
	toAnswer  *prometheus.HistogramVec
	throttled *prometheus.CounterVec
	passes    *prometheus.CounterVec
	lastPass  *prometheus.GaugeVec
}

// NewMetrics returns the metrics of one daemon, on a registry of their own. l feeds the gauges at each scrape.
func NewMetrics(l ledger.Ledger, version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		webhooks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "heed_webhooks_total", Help: "Provider requests, by what was answered: stored, forbidden, unavailable, rejected."}, []string{"account", "result"}),
		ackTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "heed_webhook_durable_seconds", Help: "From a provider's request to its event on disk.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 1.5}}),
		inbound:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "heed_inbound_messages_total", Help: "Messages from phones, by verdict and by the way they came (webhook or log). Duplicates are not counted."}, []string{"account", "verdict", "via"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "heed_gate_decisions_total", Help: "Sends asked for, by decision and reason."}, []string{"decision", "reason"}),
		sends:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "heed_sends_total", Help: "Attempts to hand a message to a provider, by what came of it."}, []string{"account", "status"}),
		writes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "heed_crm_writes_total", Help: "Boxes written, by result: written, or the class of the failure."}, []string{"crm", "result"}),
		stopToBox: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "heed_stop_to_box_seconds", Help: "From an opt-out on disk to the boxes of all its records set.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 15, 60, 300, 3600, 86400}}),
		toAnswer: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "heed_answer_seconds", Help: "From a reply to heed's own text for it, by kind: stop, start, help. A confirmation has five minutes.",
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 15, 60, 300}}, []string{"kind"}),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "heed_throttled_total", Help: "Requests answered 429, by whose limit was used up: key or account."}, []string{"by"}),
		passes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "heed_passes_total", Help: "Reconciliation passes, by kind and result: ok or partial."}, []string{"kind", "result"}),
		lastPass:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "heed_last_pass_timestamp_seconds", Help: "When the last complete pass of a kind ended."}, []string{"kind"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "heed_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.registry.MustRegister(m.webhooks, m.ackTime, m.inbound, m.decisions, m.sends, m.writes, m.stopToBox, m.toAnswer, m.throttled, m.passes, m.lastPass, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), ledgerCollector{l})
	return m
}

func (m *Metrics) webhook(account, result string, took time.Duration) {
	if m == nil {
		return
	}
	m.webhooks.WithLabelValues(account, result).Inc()
	if result == "stored" {
		m.ackTime.Observe(took.Seconds())
	}
}

func (m *Metrics) received(account string, events []ledger.Event, receipts []ledger.Receipt) {
	if m == nil {
		return
	}
	for i, e := range events {
		if e.Inbound != nil && !receipts[i].Duplicate {
			m.inbound.WithLabelValues(account, string(e.Inbound.Verdict), string(e.Inbound.Via)).Inc()
		}
	}
}

func (m *Metrics) decided(d consent.Decision) {
	if m != nil {
		m.decisions.WithLabelValues(string(d.Verdict), string(d.Reason)).Inc()
	}
}

func (m *Metrics) sent(msg ledger.Message) {
	if m != nil {
		m.sends.WithLabelValues(msg.Account, string(msg.Status)).Inc()
	}
}

func (m *Metrics) wrote(crmName, class string) {
	if m != nil {
		if class == "" {
			class = "written"
		}
		m.writes.WithLabelValues(crmName, class).Inc()
	}
}

func (m *Metrics) settled(o ledger.Owed, results []ledger.WriteResult, now time.Time) {
	if m == nil || len(results) == 0 {
		return
	}
	for _, r := range results {
		if crm.Class(r.Class) != "" {
			return
		}
	}
	m.stopToBox.Observe(now.Sub(o.Since).Seconds())
}

func (m *Metrics) answered(kind string, took time.Duration) {
	if m != nil {
		m.toAnswer.WithLabelValues(kind).Observe(took.Seconds())
	}
}

// Throttled counts a request that is refused with 429.
func (m *Metrics) Throttled(e *TooManyError) {
	if m == nil {
		return
	}
	by := "key"
	if strings.HasPrefix(e.What, "account") {
		by = "account"
	}
	m.throttled.WithLabelValues(by).Inc()
}

// PassEnded counts a reconciliation pass.
func (m *Metrics) PassEnded(p ledger.Pass) {
	if m == nil {
		return
	}
	result := "ok"
	if p.Error != "" {
		result = "partial"
	} else {
		m.lastPass.WithLabelValues(p.Kind).Set(float64(p.FinishedAt.UnixMilli()) / 1000)
	}
	m.passes.WithLabelValues(p.Kind, result).Inc()
}

// PassedBefore seeds the time of the last complete pass of a kind from an earlier run's report, so that an alarm on its
// age works from the start.
func (m *Metrics) PassedBefore(kind string, at time.Time) {
	if m != nil && !at.IsZero() {
		m.lastPass.WithLabelValues(kind).Set(float64(at.UnixMilli()) / 1000)
	}
}

// ledgerCollector reads the ledger's counts at each scrape.
type ledgerCollector struct{ l ledger.Ledger }

var (
	dUp       = prometheus.NewDesc("heed_ledger_up", "1 if the ledger can be relied on; 0 means that the gate refuses everything.", nil, nil)
	dDegraded = prometheus.NewDesc("heed_ledger_degraded", "1 if an operator must look: spare disk space used up, or the index was rebuilt.", nil, nil)
	dHead     = prometheus.NewDesc("heed_ledger_events_total", "Events in the journal.", nil, nil)
	dLag      = prometheus.NewDesc("heed_ledger_index_lag_events", "Events that the index has not folded yet.", nil, nil)
	dBytes    = prometheus.NewDesc("heed_ledger_journal_bytes", "Size of the journal.", nil, nil)
	dNumbers  = prometheus.NewDesc("heed_numbers", "Telephone numbers, by state of consent.", []string{"state"}, nil)
	dOwed     = prometheus.NewDesc("heed_owed", "Work that follows from events and is not done, by kind.", []string{"kind"}, nil)
	dParked   = prometheus.NewDesc("heed_owed_parked", "Owed work that a person must act on.", nil, nil)
	dOldest   = prometheus.NewDesc("heed_owed_oldest_seconds", "Age of the oldest owed work that is not parked.", nil, nil)
	dMessages = prometheus.NewDesc("heed_messages", "Messages, by status.", []string{"status"}, nil)
	dShadow   = prometheus.NewDesc("heed_shadow_sends_total", "Sends that mode: live would have refused, and mode: shadow let pass.", nil, nil)
	dUnclear  = prometheus.NewDesc("heed_quarantined_total", "Genuine provider requests that were not understood.", nil, nil)
)

func (c ledgerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{dUp, dDegraded, dHead, dLag, dBytes, dNumbers, dOwed, dParked, dOldest, dMessages, dUnclear, dShadow} {
		ch <- d
	}
}

func (c ledgerCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s, err := c.l.Stats(ctx)
	if err != nil || c.l.Health() != nil {
		gauge(dUp, 0)
		return
	}
	gauge(dUp, 1)
	if s.Degraded != "" {
		gauge(dDegraded, 1)
	} else {
		gauge(dDegraded, 0)
	}
	ch <- prometheus.MustNewConstMetric(dHead, prometheus.CounterValue, float64(s.Head))
	ch <- prometheus.MustNewConstMetric(dUnclear, prometheus.CounterValue, float64(s.Quarantine))
	ch <- prometheus.MustNewConstMetric(dShadow, prometheus.CounterValue, float64(s.WouldBlock))
	gauge(dLag, float64(s.Head-min(s.Applied, s.Head)))
	gauge(dBytes, float64(s.Bytes))
	for state, n := range s.Numbers {
		gauge(dNumbers, float64(n), state)
	}
	for _, kind := range ledger.OwedKinds {
		gauge(dOwed, float64(s.Owed[kind]), string(kind))
	}
	gauge(dParked, float64(s.Parked))
	oldest := 0.0
	if !s.OldestOwed.IsZero() {
		oldest = max(time.Since(s.OldestOwed).Seconds(), 0)
	}
	gauge(dOldest, oldest)
	for status, n := range s.Messages {
		gauge(dMessages, float64(n), string(status))
	}
}
