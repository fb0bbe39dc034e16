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
	// A day is compared with the same weekday of the weeks before it: people text less on Sundays.
	weeksBefore = 8
	leastWeeks  = 4 // fewer say nothing
	// A rate says little about few messages, so no alarm is raised below this many.
	leastSent = 50
	// A day stands out if it is this many robust deviations above the median of its weekday (median absolute deviation,
	// scaled to the standard deviation of a normal distribution by 1.4826; Iglewicz and Hoaglin 1993).
	spikeAt    = 3.5
	madToSigma = 1.4826
)

// day is one bar of the chart.
type day struct {
	At      time.Time // its midnight
	OptOuts int
	Usual   string // the median of its weekday before, "" if that is not known
	Spike   bool
}

// Date names the day for people and for programs.
func (d day) Date() string { return d.At.Format(time.DateOnly) }

// Weekday is its short name.
func (d day) Weekday() string { return d.At.Format("Mon") }

// rate is the opt-outs of a campaign or a sender among what it sent.
type rate struct {
	Name                   string
	Sent, Blocked, OptOuts int
	Percent                string
	Alarm                  string // "", warn from 5 %, bad from 10 %
}

func (h *Handler) analytics(w http.ResponseWriter, r *http.Request) error {
	today := h.Now().In(h.Zone)
	midnight := func(daysAgo int) time.Time {
		return time.Date(today.Year(), today.Month(), today.Day()-daysAgo, 0, 0, 0, 0, h.Zone)
	}
	first := midnight(analyticsDays - 1)
	begin := midnight(analyticsDays - 1 + 7*weeksBefore)
	perDay := map[string]int{}
	oldest := today // since when there is anything to compare with
	campaigns, senders := map[string]*rate{}, map[string]*rate{}
	of := func(m map[string]*rate, name string) *rate {
		if m[name] == nil {
			m[name] = &rate{Name: name}
		}
		return m[name]
	}
	for o, err := range h.Ledger.OptOuts(r.Context(), begin) {
		if err != nil {
			return err
		}
		perDay[o.At.In(h.Zone).Format(time.DateOnly)]++
		oldest = o.At
		if o.At.Before(first) {
			continue
		}
		of(campaigns, o.Campaign(h.Window)).OptOuts++
		if o.Last != nil && o.At.Sub(o.Last.At) <= h.Window {
			of(senders, o.Last.From).OptOuts++
		}
	}
	for t, err := range h.Ledger.Traffic(r.Context(), begin) {
		if err != nil {
			return err
		}
		if t.Hour.Before(oldest) {
			oldest = t.Hour
		}
		if t.Hour.Before(first) {
			continue
		}
		for _, x := range []*rate{of(campaigns, t.Campaign), of(senders, t.From)} {
			x.Sent += t.Sent
			x.Blocked += t.Blocked
		}
	}
	data := struct {
		Chart             chart
		Days              []day // newest first
		Total             int
		Campaigns         []rate
		Senders           []rate
		Window            string
		LeastSent         int
		Span, Weeks       int
		Spikes            []day
		Alarms            []rate
		Opted, Sent, Kept int
	}{Campaigns: rates(campaigns), Senders: rates(senders), Window: duration(h.Window), LeastSent: leastSent, Span: analyticsDays, Weeks: weeksBefore}
	for i := range analyticsDays {
		ago := analyticsDays - 1 - i
		d := day{At: midnight(ago)}
		d.OptOuts = perDay[d.Date()]
		var before []float64
		for week := 1; week <= weeksBefore; week++ {
			if m := midnight(ago + 7*week); !m.Before(oldest) {
				before = append(before, float64(perDay[m.Format(time.DateOnly)]))
			}
		}
		d.Spike = spike(float64(d.OptOuts), before)
		if len(before) >= leastWeeks {
			d.Usual = fmt.Sprint(median(before))
		}
		if d.Spike {
			data.Spikes = append(data.Spikes, d)
		}
		data.Total += d.OptOuts
		data.Days = append(data.Days, d)
	}
	for _, c := range data.Campaigns {
		if c.Alarm != "" {
			data.Alarms = append(data.Alarms, c)
		}
		data.Sent, data.Kept = data.Sent+c.Sent, data.Kept+c.Blocked
	}
	data.Chart = newChart(data.Days)
	slices.Reverse(data.Days)
	return h.show(w, r, http.StatusOK, "analytics", "Analytics", data)
}

func rates(m map[string]*rate) []rate {
	var out []rate
	for _, x := range slices.SortedFunc(maps.Values(m), func(a, b *rate) int { return cmp.Or(b.OptOuts-a.OptOuts, b.Sent-a.Sent, cmp.Compare(a.Name, b.Name)) }) {
		x.Percent = "–"
		if x.Sent > 0 && x.Name != "" { // what was sent without a name is not what people opted out of
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

// spike says whether a count stands out from those of the same weekday before it.
func spike(count float64, before []float64) bool {
	if len(before) < leastWeeks {
		return false
	}
	// Counts scatter the more the higher they are; their square roots scatter by one, whatever they are (Anscombe 1948).
	root := func(count float64) float64 { return 2 * math.Sqrt(count+3.0/8) }
	roots := make([]float64, len(before))
	for i, c := range before {
		roots[i] = root(c)
	}
	mid := median(roots)
	off := make([]float64, len(before))
	for i, r := range roots {
		off[i] = math.Abs(r - mid)
	}
	sigma := max(1, madToSigma*median(off)) // a few weeks may happen to be alike
	return (root(count)-mid)/sigma > spikeAt
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

// chart is a picture of bars in units of its own.
type chart struct {
	Width, Height, Left, Right, Base int // Base is where the bars stand
	Bars                             []bar
	Lines                            []mark // of the scale
	Dates                            []mark
}

type bar struct {
	day
	X, Y, W, H, Middle, Above int
}

type mark struct {
	At   int
	Text string
}

func newChart(days []day) chart {
	const left, slot, width, top, base = 34, 22, 16, 26, 200
	c := chart{Width: left + slot*len(days) + 4, Height: 228, Left: left, Right: left + slot*len(days), Base: base}
	most := 0
	for _, d := range days {
		most = max(most, d.OptOuts)
	}
	step := scaleStep(most)
	highest := max(step, (most+step-1)/step*step)
	for v := 0; v <= highest; v += step {
		c.Lines = append(c.Lines, mark{base - (base-top)*v/highest, grouped(v)})
	}
	for i, d := range days {
		x := left + slot*i + (slot-width)/2
		height := (base - top) * d.OptOuts / highest
		if d.OptOuts > 0 {
			height = max(height, 2)
		}
		c.Bars = append(c.Bars, bar{d, x, base - height, width, height, x + width/2, base - height - 5})
		if d.At.Weekday() == time.Monday {
			c.Dates = append(c.Dates, mark{x + width/2, d.At.Format("2 Jan")})
		}
	}
	return c
}

// scaleStep is 1, 2 or 5 times a power of ten, so that three to five steps reach the highest value.
func scaleStep(most int) int {
	for step := 1; ; step *= 10 {
		for _, f := range []int{1, 2, 5} {
			if most <= 4*f*step {
				return f * step
			}
		}
	}
}
