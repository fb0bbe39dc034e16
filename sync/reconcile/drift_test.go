package reconcile_test

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sms/smstest"
	"github.com/heed-sms/heed/sync/reconcile"
)

// drift is a planted difference: of a record, or of a number where it is not a record that differs.
type drift struct {
	cause  string
	key    crm.Key
	number phone.Number
}

// garden is a world into which drifts are planted. What must be so before the drift comes about is done at once; the drift
// itself when it comes to the change that makes it.
type garden struct {
	*world
	next   uint64
	drifts []drift
	latent []func() // what makes them
}

func (g *garden) number() phone.Number {
	g.next++
	return phone.FromUint64(g.next)
}

func (g *garden) contact(n phone.Number, ticked bool) crm.Key {
	return g.crm.Person("Contact", n.String(), ticked)
}

func (g *garden) consent(n phone.Number, a consent.Action, s consent.Source) {
	g.Helper()
	if _, err := g.ledger.Append(g.Context(), ledger.Event{Kind: ledger.KindConsent, At: g.clock.now(), Number: n,
		Consent: &ledger.Consent{Change: consent.Change{Action: a, Source: s, At: g.clock.now()}}}); err != nil {
		g.Fatal(err)
	}
}

// opted is somebody who opted out, and whose box is ticked.
func (g *garden) opted(s consent.Source) (phone.Number, crm.Key) {
	n := g.number()
	g.consent(n, consent.OptOut, s)
	return n, g.contact(n, true)
}

// free is somebody of the crowd.
func (g *garden) free() (phone.Number, crm.Key) {
	n := g.number()
	return n, g.contact(n, false)
}

// plant lets do make the drift later.
func (g *garden) plant(d drift, do func()) {
	g.drifts = append(g.drifts, d)
	g.latent = append(g.latent, do)
}

func (g *garden) untick(k crm.Key, by crm.Actor) {
	g.crm.ChangeAs(k, by, func(r *crm.Record) { r.OptedOut = false })
}

func (g *garden) phones(k crm.Key, raw ...string) {
	g.crm.Change(k, "Ann", func(r *crm.Record) {
		r.Phones = nil
		for i, s := range raw {
			r.Phones = append(r.Phones, crm.Phone{Field: []string{"MobilePhone", "Phone"}[i], Raw: s})
		}
	})
}

// tickedBefore lets somebody tick a box, and lift end that opt-out a moment later, before heed has read the tick.
func (g *garden) tickedBefore(cause string, lift func(phone.Number)) {
	n, k := g.free()
	g.plant(drift{cause: cause, key: k}, func() {
		g.crm.Tick(k, "Bea", true)
		g.clock.pass(time.Second)
		lift(n)
	})
}

// kinds plants one drift of each cause. i tells the drifts of a kind apart.
var kinds = map[string]func(g *garden, i int){
	reconcile.Unticked: func(g *garden, i int) {
		_, k := g.opted(consent.Provider)
		g.plant(drift{cause: reconcile.Unticked, key: k}, func() {
			g.untick(k, crm.Actor{ID: fmt.Sprintf("005%d", i), Name: fmt.Sprintf("Person %d", i), Kind: crm.Person})
		})
	},
	reconcile.ByIntegration: func(g *garden, i int) {
		_, k := g.opted(consent.Provider)
		g.plant(drift{cause: reconcile.ByIntegration, key: k}, func() {
			g.untick(k, crm.Actor{ID: "005M", Name: fmt.Sprintf("Marketing %d", i), Kind: crm.Integration})
		})
	},
	reconcile.UntickedByHeed: func(g *garden, i int) {
		_, k := g.opted(consent.Provider)
		g.plant(drift{cause: reconcile.UntickedByHeed, key: k}, func() {
			g.untick(k, crm.Actor{ID: "005H", Name: fmt.Sprintf("heed %d", i), Kind: crm.Self})
		})
	},
	reconcile.ByImport: func(g *garden, _ int) {
		_, k := g.opted(consent.Provider)
		g.plant(drift{cause: reconcile.ByImport, key: k}, func() { g.untick(k, crm.Actor{ID: "005L", Name: "Data Loader", Kind: crm.Person}) })
	},
	reconcile.LateRecord: func(g *garden, _ int) {
		n := g.number()
		g.consent(n, consent.OptOut, consent.Provider)
		g.plant(drift{cause: reconcile.LateRecord, number: n}, func() { g.contact(n, false) })
	},
	reconcile.NumberChanged: func(g *garden, _ int) {
		moved, _ := g.opted(consent.Provider)
		_, heir := g.free()
		g.plant(drift{cause: reconcile.NumberChanged, key: heir}, func() { g.phones(heir, moved.String()) })
		// Now two contacts have it, and the opt-out ticks the second one.
		g.drifts = append(g.drifts, drift{cause: reconcile.SharedNumber, number: moved})
	},
	reconcile.Merged: func(g *garden, _ int) {
		n, loser := g.opted(consent.Provider)
		own, survivor := g.free()
		g.plant(drift{cause: reconcile.Merged, key: survivor}, func() {
			g.phones(survivor, own.String(), n.String())
			g.crm.Merge(loser, survivor)
		})
	},
	reconcile.Converted: func(g *garden, _ int) {
		n := g.number()
		g.consent(n, consent.OptOut, consent.Provider)
		lead := g.crm.Person("Lead", n.String(), true)
		g.plant(drift{cause: reconcile.Converted, number: n}, func() { g.crm.Convert(lead, false) })
	},
	reconcile.TickedInCRM: func(g *garden, _ int) {
		_, k := g.free()
		g.plant(drift{cause: reconcile.TickedInCRM, key: k}, func() { g.crm.Tick(k, "Bea", true) })
	},
	reconcile.UndoneInCRM: func(g *garden, _ int) {
		_, k := g.opted(consent.Admin)
		g.plant(drift{cause: reconcile.UndoneInCRM, key: k}, func() { g.untick(k, crm.Actor{Name: "Ann", Kind: crm.Person}) })
	},
	reconcile.LiftedByStart: func(g *garden, _ int) {
		g.tickedBefore(reconcile.LiftedByStart, func(n phone.Number) { g.consent(n, consent.OptIn, consent.Recipient) })
	},
	reconcile.LiftedByHand: func(g *garden, _ int) {
		g.tickedBefore(reconcile.LiftedByHand, func(n phone.Number) { g.consent(n, consent.OptIn, consent.Admin) })
	},
	// The CRM was not configured when the opt-out came, and nothing is owed any more.
	reconcile.BoxNotTicked: func(g *garden, _ int) {
		n, k := g.free()
		g.plant(drift{cause: reconcile.BoxNotTicked, key: k}, func() {
			g.consent(n, consent.OptOut, consent.Provider)
			boxes := connector.Boxes{Ledger: g.ledger, Log: g.runner.Log, Now: g.clock.now}
			if err := boxes.Flush(g.Context()); err != nil {
				g.Fatal(err)
			}
		})
	},
	reconcile.MissedWebhook: func(g *garden, _ int) {
		n := g.number()
		g.plant(drift{cause: reconcile.MissedWebhook, number: n}, func() { g.provider.Text(n.String(), "+15550100000", "STOP", sms.FlagNone) })
	},
	reconcile.ProviderOnly: func(g *garden, _ int) {
		n := g.number()
		g.plant(drift{cause: reconcile.ProviderOnly, number: n}, func() {
			sent, err := g.provider.Send(g.Context(), sms.Message{To: n.String(), Body: "hello"})
			if err != nil {
				g.Fatal(err)
			}
			g.provider.Report(sent.ProviderID, sms.DeliveryFailed, "21610", true) // and no webhook tells
		})
	},
	// An account is added to the configuration, and its log has a reply from before.
	reconcile.BackfillCause: func(g *garden, _ int) {
		n := g.number()
		g.plant(drift{cause: reconcile.BackfillCause, number: n}, func() {
			if len(g.runner.Accounts) == 1 {
				old := smstest.New()
				old.Now = func() time.Time { return began.Add(-time.Hour) }
				g.runner.Accounts = append(g.runner.Accounts, reconcile.Account{Name: "added", Provider: old})
				g.inbox.Accounts = append(g.inbox.Accounts, connector.Account{Name: "added", Provider: old})
			}
			g.runner.Accounts[1].Provider.(*smstest.Memory).Text(n.String(), "+15550100001", "STOP", sms.FlagNone)
		})
	},
	reconcile.RecordHidden: func(g *garden, _ int) {
		_, k := g.opted(consent.Provider)
		g.plant(drift{cause: reconcile.RecordHidden, key: k}, func() { g.crm.Erase(k) })
	},
	reconcile.WriteRejected: func(g *garden, _ int) {
		n, k := g.free()
		no := &crm.Error{Class: crm.Park, Code: "FIELD_CUSTOM_VALIDATION_EXCEPTION", Text: "Ask compliance first"}
		g.plant(drift{cause: reconcile.WriteRejected, number: n}, func() {
			g.crm.FailWrites(k, no, no, no, no, no, no)
			g.consent(n, consent.OptOut, consent.Provider)
		})
	},
	reconcile.CRMOnly: func(g *garden, i int) {
		_, k := g.free()
		g.plant(drift{cause: reconcile.CRMOnly, key: k}, func() {
			g.phones(k, []string{"call me", "555"}[:i%3]...)
			g.crm.Tick(k, "Ann", true)
		})
	},
	reconcile.NumberUnreadable: func(g *garden, i int) {
		n, k := g.free()
		g.plant(drift{cause: reconcile.NumberUnreadable, key: k}, func() { g.phones(k, []string{"ask reception", n.String()}[:1+i%2]...) })
	},
	reconcile.SharedNumber: func(g *garden, _ int) {
		n, _ := g.free()
		g.contact(n, false)
		g.plant(drift{cause: reconcile.SharedNumber, number: n}, func() { g.consent(n, consent.OptOut, consent.Provider) })
	},
}

// Drifts of every cause are planted into an organisation, and one nightly pass finds each, names the planted cause and
// repairs what it may. A dry run before it changes nothing, and the passes after it plan nothing.
//
// HEED_DRIFT=200000 plants 2,000 drifts among 200,000 records (make scale).
func TestOnePassFindsEveryDriftAndNamesItsCause(t *testing.T) {
	records := 20_000
	if s := os.Getenv("HEED_DRIFT"); s != "" {
		var err error
		if records, err = strconv.Atoi(s); err != nil || records < 20_000 {
			t.Fatalf("HEED_DRIFT=%q: want a number of records from 20000", s)
		}
	}
	g := &garden{world: newWorld(t), next: 12_060_000_000}
	g.crm.PageSize = 2_000
	g.crm.KeepHistory()
	// The order matters twice: an import's changes stand together, and what is owed must not be settled by the kind that
	// needs nothing to be owed.
	order := []string{reconcile.BoxNotTicked, reconcile.ByImport}
	for _, c := range reconcile.Causes {
		if c.Name != order[0] && c.Name != order[1] {
			order = append(order, c.Name)
		}
	}
	for _, cause := range order {
		each := records / 100 / len(reconcile.Causes)
		if cause == reconcile.ByImport {
			each = max(each, 20) // fewer are none
		}
		if kinds[cause] == nil {
			t.Fatalf("nobody plants %q", cause)
		}
		for i := range each {
			kinds[cause](g, i)
		}
	}
	for g.next < 12_060_000_000+uint64(records) {
		g.free()
	}
	g.run(reconcile.Nightly)
	g.settled(reconcile.Nightly)
	for _, do := range g.latent {
		do()
	}
	g.clock.pass(time.Hour)

	recorded, standing := map[string]int{}, map[string]int{}
	for _, d := range g.drifts {
		switch d.cause {
		case reconcile.WriteRejected, reconcile.CRMOnly, reconcile.NumberUnreadable, reconcile.SharedNumber:
			standing[d.cause]++
		default:
			recorded[d.cause]++
		}
	}
	before := g.trace()
	dry, err := g.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Nightly, DryRun: true})
	if err != nil || dry.Recorded {
		t.Fatalf("dry run: %v", err)
	}
	if after := g.trace(); after != before {
		t.Fatalf("a dry run changed %+v to %+v", before, after)
	}
	planned := maps.Clone(recorded)
	delete(planned, reconcile.RecordHidden) // which needs marks in the mirror
	if !maps.Equal(dry.Pass.Causes, planned) {
		t.Errorf("the dry run plans %v, planted are %v", dry.Pass.Causes, planned)
	}

	got := g.run(reconcile.Nightly)
	if !maps.Equal(got.Pass.Causes, recorded) {
		t.Errorf("causes %v\nplanted %v", got.Pass.Causes, recorded)
	}
	named := map[string]string{} // by record and by number
	name := func(cause string, record *crm.Key, n phone.Number) {
		if record != nil {
			named[record.ID] = cause
		}
		if n.IsValid() {
			named[cause+n.String()] = cause // a number may be in two entries
		}
	}
	for c, err := range g.ledger.Corrections(t.Context(), got.Pass.ID) {
		if err != nil {
			t.Fatal(err)
		}
		name(c.Cause, c.Record, c.Number)
	}
	counted := map[string]int{}
	for _, s := range got.Pass.Standing {
		counted[s.Cause] = s.N
		for _, l := range s.Listed {
			name(s.Cause, l.Record, l.Number)
		}
	}
	if !maps.Equal(counted, standing) {
		t.Errorf("left alone %v\nplanted %v", counted, standing)
	}
	right := 0
	for _, d := range g.drifts {
		key := d.key.ID
		if key == "" {
			key = d.cause + d.number.String()
		}
		// Of a cause that is only listed in part, the rest is counted, which was compared above.
		if named[key] == d.cause {
			right++
		} else if len(g.drifts) < 1000 {
			t.Errorf("%s is called %q", d.cause, named[key])
		}
	}
	if float64(right) < 0.99*float64(len(g.drifts)) {
		t.Errorf("the cause of %d of %d drifts is named", right, len(g.drifts))
	}
	g.repaired()
	g.settled(reconcile.Incremental)
	g.settled(reconcile.Nightly)
	t.Logf("%d records, %d drifts of %d kinds, the cause of %d named", records, len(g.drifts), len(recorded)+len(standing), right)
}

// repaired demands that each planted drift is put right, or left as it was where heed must not touch it.
func (g *garden) repaired() {
	g.Helper()
	for _, d := range g.drifts {
		want := true
		switch d.cause {
		case reconcile.UndoneInCRM, reconcile.LiftedByStart, reconcile.LiftedByHand, reconcile.NumberUnreadable:
			want = false
		case reconcile.RecordHidden:
			continue
		}
		if d.key != (crm.Key{}) {
			g.box(d.key, want)
			continue
		}
		g.state(d.number.String(), consent.OptedOut)
		if d.cause == reconcile.WriteRejected {
			continue
		}
		records, err := g.ledger.Mirror("sf").ByNumber(g.Context(), d.number)
		if err != nil {
			g.Fatal(err)
		}
		for _, r := range records {
			g.box(r.Key, true)
		}
	}
}

// trace is what a dry run must not change.
type trace struct {
	head           uint64
	written, known int
	cursors        string
}

func (g *garden) trace() (out trace) {
	g.Helper()
	s, err := g.ledger.Stats(g.Context())
	if err != nil {
		g.Fatal(err)
	}
	out.head, out.written = s.Head, g.crm.Counts().Boxes
	if out.known, err = g.ledger.Mirror("sf").Len(g.Context()); err != nil {
		g.Fatal(err)
	}
	for _, name := range []string{"crm/sf", "full/sf", "scan/sf", "inbound/acct", "inbound/added", "outbound/acct", "pass/nightly"} {
		v, err := g.ledger.Cursor(g.Context(), name)
		if err != nil {
			g.Fatal(err)
		}
		out.cursors += v + "\n"
	}
	return out
}
