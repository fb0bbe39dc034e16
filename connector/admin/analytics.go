package admin

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"time"
)

const (
	analyticsDays = 30
	// A rate says little about few messages, so no alarm is raised below this many.
	leastSent = 50
	// A day stands out if it is this many robust deviations above the median (median absolute deviation, scaled to the
	// standard deviation of a normal distribution by 1.4826).
	spikeAt    = 3.5
	madToSigma = 1.4826
)

// day is one bar of the chart.
type day struct {
	Date    string
	OptOuts int
	Spike   bool
}

// rate is the opt-outs of a campaign or a sender among what it sent.
type rate struct {
	Name                   string
	Sent, Blocked, OptOuts int
	Percent                string
	Alarm                  string // "", warn from 5 %, bad from 10 %
}

func (h *Handler) analytics(w http.ResponseWriter, r *http.Request) error {
	today := h.Now().In(h.Zone)
	first := time.Date(today.Year(), today.Month(), today.Day()-analyticsDays+1, 0, 0, 0, 0, h.Zone)
	perDay := map[string]int{}
	campaigns, senders := map[string]*rate{}, map[string]*rate{}
	of := func(m map[string]*rate, name string) *rate {
		if m[name] == nil {
			m[name] = &rate{Name: name}
		}
		return m[name]
	}
	for o, err := range h.Ledger.OptOuts(r.Context(), first) {
		if err != nil {
			return err
		}
		perDay[o.At.In(h.Zone).Format(time.DateOnly)]++
		of(campaigns, o.Campaign(h.Window)).OptOuts++
		if o.Last != nil && o.At.Sub(o.Last.At) <= h.Window {
			of(senders, o.Last.From).OptOuts++
		}
	}
	for t, err := range h.Ledger.Traffic(r.Context(), first) {
		if err != nil {
			return err
		}
		for _, x := range []*rate{of(campaigns, t.Campaign), of(senders, t.From)} {
			x.Sent += t.Sent
			x.Blocked += t.Blocked
		}
	}
	data := struct {
		Days      []day
		Most      int
		Campaigns []rate
		Senders   []rate
		Window    string
		LeastSent int
		Span      int
		Spikes    []string
	}{Campaigns: rates(campaigns), Senders: rates(senders), Window: duration(h.Window), LeastSent: leastSent, Span: analyticsDays}
	for d := first; !d.After(today); d = d.AddDate(0, 0, 1) {
		date := d.Format(time.DateOnly)
		data.Days = append(data.Days, day{Date: date, OptOuts: perDay[date]})
		data.Most = max(data.Most, perDay[date])
	}
	for i, spike := range spikes(data.Days) {
		if spike {
			data.Days[i].Spike = true
			data.Spikes = append(data.Spikes, fmt.Sprintf("%s (%d)", data.Days[i].Date, data.Days[i].OptOuts))
		}
	}
	return h.show(w, r, http.StatusOK, "analytics", "Analytics", data)
}

func rates(m map[string]*rate) []rate {
	var out []rate
	for _, x := range slices.SortedFunc(maps.Values(m), func(a, b *rate) int { return cmp.Or(b.OptOuts-a.OptOuts, b.Sent-a.Sent, cmp.Compare(a.Name, b.Name)) }) {
		x.Percent = "–"
		if x.Sent > 0 {
			p := 100 * float64(x.OptOuts) / float64(x.Sent)
			x.Percent = fmt.Sprintf("%.1f %%", p)
			switch {
			case x.Sent < leastSent:
			case p >= 10:
				x.Alarm = "bad"
			case p >= 5:
				x.Alarm = "warn"
			}
		}
		out = append(out, *x)
	}
	return out
}

// spikes says which days stand out from the others.
func spikes(days []day) []bool {
	counts := make([]float64, len(days))
	for i, d := range days {
		counts[i] = float64(d.OptOuts)
	}
	mid := median(counts)
	off := make([]float64, len(counts))
	for i, c := range counts {
		off[i] = math.Abs(c - mid)
	}
	sigma := max(1, madToSigma*median(off)) // where most days are alike, one or two more are no spike
	out := make([]bool, len(days))
	for i, c := range counts {
		out[i] = (c-mid)/sigma > spikeAt
	}
	return out
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
