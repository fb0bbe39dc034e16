package ledgertest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// A plain is a ledger as one would write it first: maps, one goroutine, nothing kept. It uses the same fold rules as
// every engine, so a difference is the engine's.
type plain struct {
	policy   consent.Policy
	seen     map[string]uint64
	events   []ledger.Event
	numbers  map[phone.Number]ledger.Number
	owed     map[string]ledger.Owed
	messages map[string]ledger.Message
	provider map[string]string            // provider's id → heed's
	orphans  map[string]ledger.StatusTold // provider's id → the furthest callback that came too early
}

func newPlain(p consent.Policy) *plain {
	return &plain{policy: p, seen: map[string]uint64{}, numbers: map[phone.Number]ledger.Number{}, owed: map[string]ledger.Owed{},
		messages: map[string]ledger.Message{}, provider: map[string]string{}, orphans: map[string]ledger.StatusTold{}}
}

func (p *plain) decide(n phone.Number) consent.Decision { return p.policy.Decide(p.numbers[n].Facts) }

func (p *plain) append(e ledger.Event) ledger.Receipt {
	if seq, ok := p.seen[e.ID]; ok && e.ID != "" {
		return ledger.Receipt{Seq: seq, Duplicate: true}
	}
	e.Seq = uint64(len(p.events) + 1)
	p.seen[e.ID] = e.Seq
	p.events = append(p.events, e)
	before := p.numbers[e.Number]
	after, changed := ledger.ApplyNumber(before, e)
	if changed {
		p.numbers[e.Number] = after
	}
	for _, o := range ledger.Owes(before, after, e) {
		if old, ok := p.owed[o.Key]; ok {
			o = ledger.MergeOwed(&old, o)
		}
		p.owed[o.Key] = o
	}
	for _, key := range ledger.Settles(before, after, e) {
		if o, ok := p.owed[key]; ok {
			if next, done := ledger.Settle(o, e); done {
				delete(p.owed, key)
			} else {
				p.owed[key] = next
			}
		}
	}
	switch {
	case e.Opened != nil:
		m := *e.Opened
		m.Status, m.UpdatedAt = ledger.InitialStatus(m.Decision), e.At
		p.messages[m.ID] = m
	case e.Started != nil:
		p.progress(e.Started.Message, e)
	case e.Outcome != nil:
		p.progress(e.Outcome.Message, e)
	case e.Status != nil:
		p.progress(p.provider[e.Status.ProviderID], e)
	}
	return ledger.Receipt{Seq: e.Seq}
}

func (p *plain) progress(id string, e ledger.Event) {
	m, ok := p.messages[id]
	if !ok {
		if s := e.Status; s != nil {
			old, had := p.orphans[s.ProviderID]
			before := ledger.ApplyMessage(ledger.Message{}, ledger.Event{Status: &old})
			if !had || ledger.ApplyMessage(before, e).Delivery != before.Delivery {
				p.orphans[s.ProviderID] = *s
			}
		}
		return
	}
	m = ledger.ApplyMessage(m, e)
	if m.ProviderID != "" {
		p.provider[m.ProviderID] = id
		if early, ok := p.orphans[m.ProviderID]; ok {
			delete(p.orphans, m.ProviderID)
			m = ledger.ApplyMessage(m, ledger.Event{At: e.At, Status: &early})
		}
	}
	p.messages[id] = m
}

// model runs random histories, with repeats, late provider times and restarts, against an engine and a plain ledger,
// and compares all that can be seen. In the end it tells the same changes to a fresh ledger in another order: every
// number must have the same consent.
func model(t *testing.T, s *suite) {
	rapid.Check(t, func(rt *rapid.T) {
		policy := consent.Policy{RequireOptIn: rapid.Bool().Draw(rt, "require opt-in")}
		l, want := s.start(t, policy), newPlain(policy)
		o := s.o
		serial := 0
		draw := func() ledger.Event {
			serial++
			n := number(rapid.IntRange(0, 3).Draw(rt, "number"))
			recorded := s.clock.advance(time.Second)
			at := recorded.Add(-time.Duration(rapid.IntRange(0, 5).Draw(rt, "late")) * time.Minute).Truncate(time.Minute)
			id := fmt.Sprint(serial)
			switch rapid.IntRange(0, 5).Draw(rt, "kind") {
			case 0, 1:
				e := inbound(id, n, rapid.SampledFrom([]reply.Verdict{reply.OptOut, reply.OptIn, reply.Hold, reply.Help, reply.None}).Draw(rt, "verdict"), at)
				e.At = recorded
				if e.Inbound.Verdict == reply.OptIn && rapid.Bool().Draw(rt, "wait") {
					e.Inbound.SentAt, e.Inbound.Wait = time.Time{}, true
				}
				return e
			case 2:
				e := change(id, n, rapid.SampledFrom([]consent.Action{consent.OptOut, consent.OptIn, consent.Release, consent.Ask, consent.Undo}).Draw(rt, "action"),
					rapid.SampledFrom([]consent.Source{consent.Admin, consent.CRM, consent.API, consent.Provider, consent.Deadline}).Draw(rt, "source"), at)
				return e
			case 3:
				m := ledger.Message{ID: fmt.Sprint("m", rapid.IntRange(0, serial).Draw(rt, "message")), To: n}
				return outcome(id, m, rapid.SampledFrom([]ledger.Status{ledger.StatusSent, ledger.StatusFailed, ledger.StatusUnknown}).Draw(rt, "status"), "SM"+m.ID, at)
			case 4:
				m := ledger.Message{ID: fmt.Sprint("m", rapid.IntRange(0, serial).Draw(rt, "message")), To: n}
				e := told(id, m, "SM"+m.ID, rapid.SampledFrom([]string{"queued", "sent", "delivered", "failed"}).Draw(rt, "delivery"), at)
				e.Status.OptedOut = rapid.IntRange(0, 9).Draw(rt, "opted out") == 0
				return e
			default:
				upTo := uint64(rapid.IntRange(0, len(want.events)).Draw(rt, "up to"))
				return written(id, n, upTo, at, wrote("003", rapid.SampledFrom([]crm.Class{"", "", crm.Park, crm.RetryLater}).Draw(rt, "class"), "no"))
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				var batch []ledger.Event
				for range rapid.IntRange(1, 4).Draw(rt, "events") {
					batch = append(batch, draw())
				}
				for i, r := range add(t, l, batch...) {
					if w := want.append(batch[i]); r != w {
						rt.Fatalf("receipt %+v, want %+v", r, w)
					}
				}
			},
			"repeat": func(rt *rapid.T) {
				if len(want.events) == 0 {
					rt.Skip("nothing to repeat")
				}
				e := rapid.SampledFrom(want.events).Draw(rt, "event")
				if r, w := add(t, l, e)[0], want.append(e); r != w {
					rt.Fatalf("receipt %+v, want %+v", r, w)
				}
			},
			"open": func(rt *rapid.T) {
				serial++
				m := message(fmt.Sprint("m", serial), number(rapid.IntRange(0, 3).Draw(rt, "number")), s.clock.advance(time.Second))
				m.Decision = want.decide(m.To)
				got := get2(l.Open(t.Context(), m, allow))(t)
				if got.Decision != m.Decision {
					rt.Fatalf("decision %+v, want %+v", got.Decision, m.Decision)
				}
				want.append(ledger.Event{Kind: ledger.KindOpened, ID: m.Key, At: m.CreatedAt, Number: m.To, Opened: &m})
			},
			"settle": func(rt *rapid.T) {
				for _, kind := range []ledger.OwedKind{ledger.OweBoxes, ledger.OweTime} {
					for _, c := range get(l.Claim(t.Context(), kind, 2))(t) {
						serial++
						e := written(fmt.Sprint(serial), c.Number, c.Seq, s.clock.Now())
						if kind == ledger.OweTime {
							e = ledger.Event{Kind: ledger.KindTimed, ID: e.ID, At: e.At, Number: c.Number,
								Timed: &ledger.Timed{Of: c.Seq, SentAt: s.clock.Now().Add(-time.Duration(rapid.IntRange(0, 5).Draw(rt, "late")) * time.Minute)}}
						}
						if r, w := add(t, l, e)[0], want.append(e); r != w {
							rt.Fatalf("receipt %+v, want %+v", r, w)
						}
					}
				}
			},
			"restart": func(rt *rapid.T) { l = o.Reopen(t) },
			"":        func(rt *rapid.T) { compare(t, rt, l, want) },
		})
		other := s.start(t, policy)
		changes := want.events
		if len(changes) > 0 {
			changes = rapid.Permutation(changes).Draw(rt, "other order")
		}
		for i, e := range changes {
			add(t, other, e)
			if i == len(changes)/2 {
				other = s.o.Reopen(t)
			}
		}
		for n, w := range want.numbers {
			got := get(other.Number(t.Context(), n))(t)
			if got.Facts != w.Facts || got.Source != w.Source || got.Keyword != w.Keyword || other.Decide(n) != want.decide(n) {
				rt.Fatalf("told in another order: %+v, want %+v", got, w)
			}
		}
		for _, l := range []ledger.Ledger{l, other} { // there may be a hundred of them
			if err := l.Close(); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

func compare(t *testing.T, rt *rapid.T, l ledger.Ledger, want *plain) {
	for i := range 4 {
		n := number(i)
		if got, w := l.Decide(n), want.decide(n); got != w {
			rt.Fatalf("decision of %d: %+v, want %+v", i, got, w)
		}
		got, w := get(l.Number(t.Context(), n))(t), want.numbers[n]
		if got.Facts != w.Facts || got.Seq != w.Seq || got.Source != w.Source || got.Keyword != w.Keyword || l.State(n) != w.Facts.State() {
			rt.Fatalf("number %d: %+v, want %+v", i, got, w)
		}
	}
	owed := map[string]ledger.Owed{}
	for _, o := range list(t, l.Owed(t.Context())) {
		owed[o.Key] = o
	}
	if !slices.Equal(slices.Sorted(maps.Keys(owed)), slices.Sorted(maps.Keys(want.owed))) {
		rt.Fatalf("owed %v, want %v", owed, want.owed)
	}
	parked := 0
	for k, w := range want.owed {
		o := owed[k]
		if o.Seq != w.Seq || !o.Since.Equal(w.Since) || (o.Parked == nil) != (w.Parked == nil) {
			rt.Fatalf("owed %+v, want %+v", o, w)
		}
		if w.Parked != nil {
			parked++
		}
	}
	counts := map[ledger.Status]uint64{}
	open := 0
	for id, w := range want.messages {
		m := get(l.Message(t.Context(), id))(t)
		if m.Status != w.Status || m.Delivery != w.Delivery || m.ProviderID != w.ProviderID || m.Code != w.Code || m.Error != w.Error || !m.UpdatedAt.Equal(w.UpdatedAt) {
			rt.Fatalf("message %+v, want %+v", m, w)
		}
		counts[w.Status]++
		if !w.Settled() {
			open++
		}
	}
	if got := len(list(t, l.Unsettled(t.Context()))); got != open {
		rt.Fatalf("%d messages are open, want %d", got, open)
	}
	st := get(l.Stats(t.Context()))(t)
	var inbound, optOuts uint64
	for _, e := range want.events {
		if e.Inbound != nil {
			inbound++
			if e.Inbound.Verdict == reply.OptOut {
				optOuts++
			}
		}
	}
	for s, n := range st.Messages {
		if n != counts[s] {
			rt.Fatalf("%d messages %s, want %d", n, s, counts[s])
		}
	}
	states := map[string]int{}
	for _, n := range want.numbers {
		if s := n.Facts.State(); s != consent.Unknown {
			states[s.String()]++
		}
	}
	if int(st.Head) != len(want.events) || st.Applied != st.Head || st.Inbound != inbound || st.OptOuts != optOuts || st.Parked != parked || !maps.Equal(st.Numbers, states) {
		rt.Fatalf("stats %+v, want head %d, inbound %d, opt-outs %d, parked %d, numbers %v", st, len(want.events), inbound, optOuts, parked, states)
	}
}
