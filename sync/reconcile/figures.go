package reconcile

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/sms/phone"
)

// maxInFlight bounds the sends in flight that a report lists; the others are counted.
const maxInFlight = 100

// The clocks, with what is allowed. One business day at least lies within each day and a half that is not a weekend, so
// ten of them are two weeks.
const (
	toBox          = "box"
	toProvider     = "provider"
	toConfirmation = "confirmation"

	boxLimit          = 14 * 24 * time.Hour // 47 CFR 64.1200(a)(10): ten business days
	confirmationLimit = 5 * time.Minute     // 47 CFR 64.1200(a)(12)
)

// figures sums up what happened since the report before, up to a sequence.
func (p *pass) figures(ctx context.Context, upTo uint64) (*ledger.Figures, error) {
	f := &ledger.Figures{UpTo: upTo, Window: p.Window, MessageCost: p.Cost}
	for before, err := range p.Ledger.Reports(ctx) {
		if err != nil {
			return nil, err
		}
		if before.Figures != nil && before.ID != p.pass.ID {
			f.After, f.From = before.Figures.UpTo, before.FinishedAt
			break
		}
	}
	t := tally{Figures: f, ledger: p.Ledger, out: map[phone.Number]*optedOut{}, answers: map[string]bool{}, campaigns: map[string]*ledger.CampaignCount{},
		campaignOf: map[string]string{}, took: map[string][]time.Duration{}}
	for _, c := range p.CRMs {
		t.crms = append(t.crms, c.Name)
	}
	for e, err := range p.Ledger.Events(ctx, f.After+1) {
		if err != nil {
			return nil, err
		}
		if e.Seq > upTo {
			break
		}
		if err := t.add(ctx, e); err != nil {
			return nil, err
		}
	}
	t.sum()
	p.pass.Standing = join(p.pass.Standing, t.standing)
	return f, nil
}

// tally counts events. It keeps something for each number that opted out in the time of the report, and for each message
// that is being sent.
type tally struct {
	*ledger.Figures
	ledger     ledger.Ledger
	out        map[phone.Number]*optedOut
	answers    map[string]bool   // heed's own confirmations of opt-outs, by message
	campaignOf map[string]string // of messages without an outcome yet
	campaigns  map[string]*ledger.CampaignCount
	took       map[string][]time.Duration // by clock

	crms     []string
	shared   map[phone.Number]bool // numbers that several records have
	standing []ledger.Standing
}

// optedOut is a number's newest opt-out, and which clocks have run for it.
type optedOut struct {
	ledger.OptOut
	known   bool // false: the number was never opted out
	stopped map[string]bool
}

func (t *tally) add(ctx context.Context, e ledger.Event) error {
	switch {
	case e.Opened != nil:
		if e.Opened.Decision.Verdict != consent.Allow {
			t.prevent(e.Opened.Decision)
		} else if e.Opened.Answer == ledger.AnswerStop && e.Opened.Answers > 0 {
			t.answers[e.Opened.ID] = true
		} else if e.Opened.Answers == 0 {
			t.campaignOf[e.Opened.ID] = e.Opened.Campaign
		}
		return nil
	case e.Outcome != nil:
		return t.outcome(ctx, e)
	}
	if err := t.share(ctx, e); err != nil {
		return err
	}
	if clock, upTo, ok := reached(e); ok {
		return t.stop(ctx, clock, e, upTo)
	}
	if _, _, ok := ledger.Change(e); !ok || !e.Number.IsValid() {
		return nil
	}
	return t.changed(ctx, e)
}

// reached returns the clock that an event stops: every box is ticked, or the provider's list has the number. upTo is the
// opt-out that it settles, and those before it.
func reached(e ledger.Event) (clock string, upTo uint64, ok bool) {
	switch {
	case e.Written != nil && e.Written.Want && len(e.Written.Results) > 0:
		return toBox, e.Written.UpTo, !slices.ContainsFunc(e.Written.Results, func(r ledger.WriteResult) bool { return r.Class != "" })
	case e.Told != nil && e.Told.Want && len(e.Told.Results) > 0:
		return toProvider, e.Told.UpTo, !slices.ContainsFunc(e.Told.Results, func(r ledger.ToldResult) bool { return r.Class != "" })
	}
	return "", 0, false
}

// changed notices opt-outs.
func (t *tally) changed(ctx context.Context, e ledger.Event) error {
	delete(t.out, e.Number) // what was known of the number is older
	o, err := t.optOut(ctx, e.Number, e.Seq)
	if err != nil || !o.known || o.Seq != e.Seq {
		return err
	}
	t.OptOuts++
	t.campaign(o.Campaign(t.Window)).OptOuts++
	if e.Inbound != nil && e.Inbound.Missed && e.Inbound.Verdict == reply.OptOut {
		t.Recovered++
	}
	return nil
}

// optOut returns the newest opt-out of a number at or before a sequence, as far as the ledger still tells: one that was
// followed by another one is not needed.
func (t *tally) optOut(ctx context.Context, n phone.Number, upTo uint64) (*optedOut, error) {
	if o := t.out[n]; o != nil && o.Seq <= upTo {
		return o, nil
	}
	last, err := t.ledger.LastOptOut(ctx, n)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return &optedOut{}, nil
	case err != nil:
		return nil, err
	case last.Seq > upTo:
		// There is a newer one. Look for this one by itself.
		for o, err := range t.ledger.OptOuts(ctx, time.Time{}) {
			if err != nil {
				return nil, err
			}
			if o.Number == n && o.Seq <= upTo {
				last = o
				break
			}
		}
		if last.Seq > upTo {
			return &optedOut{}, nil
		}
	}
	o := &optedOut{OptOut: last, known: true, stopped: map[string]bool{}}
	t.out[n] = o
	return o, nil
}

// stop stops a clock of the number's opt-out, once: a box that somebody unticked and heed ticks again had been reached
// before.
func (t *tally) stop(ctx context.Context, clock string, e ledger.Event, upTo uint64) error {
	o, err := t.optOut(ctx, e.Number, e.Seq)
	if err != nil || !o.known || o.stopped[clock] || upTo > 0 && o.Seq > upTo {
		return err
	}
	o.stopped[clock] = true
	if o.Seq <= t.After {
		before, err := t.earlier(ctx, clock, o)
		if err != nil || before {
			return err
		}
	}
	t.took[clock] = append(t.took[clock], e.At.Sub(o.At))
	return nil
}

// earlier reports whether a clock stopped in the time of an earlier report.
func (t *tally) earlier(ctx context.Context, clock string, o *optedOut) (bool, error) {
	for e, err := range t.ledger.History(ctx, o.Number) {
		if err != nil || e.Seq > t.After {
			return false, err
		}
		if c, upTo, ok := reached(e); ok && c == clock && e.Seq > o.Seq && (upTo == 0 || o.Seq <= upTo) {
			return true, nil
		}
	}
	return false, nil
}

func (t *tally) outcome(ctx context.Context, e ledger.Event) error {
	out := e.Outcome
	campaign, counted := t.campaignOf[out.Message]
	delete(t.campaignOf, out.Message)
	answer := t.answers[out.Message]
	delete(t.answers, out.Message)
	switch out.Status {
	case ledger.StatusBlocked, ledger.StatusHeld:
		t.prevent(out.Decision)
		return nil
	case ledger.StatusSent:
		t.Sent++
		if counted {
			t.campaign(campaign).Sent++
		}
		if answer {
			return t.stop(ctx, toConfirmation, e, 0)
		}
	case ledger.StatusUnknown:
	default:
		return nil
	}
	if answer || out.StartedAt.IsZero() || !e.Number.IsValid() {
		return nil
	}
	o, err := t.optOut(ctx, e.Number, e.Seq)
	if err != nil || !o.known || out.StartedAt.After(o.At) || !e.At.After(o.At) {
		return err
	}
	if len(t.InFlight) == maxInFlight {
		t.InFlightMore++
		return nil
	}
	t.InFlight = append(t.InFlight, ledger.InFlight{Message: out.Message, Number: e.Number, Started: out.StartedAt, Stop: o.At, Ended: e.At, Status: out.Status})
	return nil
}

func (t *tally) prevent(d consent.Decision) {
	if t.Prevented == nil {
		t.Prevented = map[string]int{}
	}
	t.Prevented[string(d.Reason)]++
}

func (t *tally) campaign(name string) *ledger.CampaignCount {
	if t.campaigns[name] == nil {
		t.campaigns[name] = &ledger.CampaignCount{Campaign: name}
	}
	return t.campaigns[name]
}

func (t *tally) sum() {
	for _, name := range slices.Sorted(maps.Keys(t.campaigns)) {
		t.Campaigns = append(t.Campaigns, *t.campaigns[name])
	}
	for _, c := range []struct {
		to, limit string
		most      time.Duration
	}{{toBox, "10 business days", boxLimit}, {toProvider, "", 0}, {toConfirmation, "5 minutes", confirmationLimit}} {
		took := t.took[c.to]
		if len(took) == 0 {
			continue
		}
		slices.Sort(took)
		clock := ledger.Clock{To: c.to, N: len(took), P50: rank(took, 50), P95: rank(took, 95), Worst: took[len(took)-1], Limit: c.limit}
		for _, d := range took {
			if c.most > 0 && d > c.most {
				clock.Late++
			}
		}
		t.Clocks = append(t.Clocks, clock)
	}
}

// rank is the nearest-rank percentile of sorted durations.
func rank(sorted []time.Duration, percent int) time.Duration {
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

// notSent is how many messages the gate did not let out.
func notSent(f *ledger.Figures) (n int) {
	for _, v := range f.Prevented {
		n += v
	}
	return n
}

// byCount orders reasons by how often they were given.
func byCount(m map[string]int) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(m[b]-m[a], cmp.Compare(a, b)) })
}
