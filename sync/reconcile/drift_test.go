package reconcile_test

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

// Drifts of every kind are planted into an organisation, and one pass finds each, names the planted cause and repairs
// what it may. A dry run before it changes nothing, and a pass after it plans nothing.
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
	each := records / 1000 // drifts of each of ten kinds
	w := newWorld(t)
	w.crm.PageSize = 2_000
	w.crm.KeepHistory()
	next := uint64(12_060_000_000)
	number := func() phone.Number {
		next++
		return phone.FromUint64(next)
	}
	person := func(n phone.Number, ticked bool) crm.Key {
		return w.crm.Put(crm.Record{Key: crm.Key{Object: "Contact"}, Phones: []crm.Phone{{Field: "MobilePhone", Raw: n.String()}}, OptedOut: ticked})
	}
	stop := func(n phone.Number) {
		w.Helper()
		if _, err := w.ledger.Append(t.Context(), ledger.Event{Kind: ledger.KindConsent, At: w.clock.now(), Number: n,
			Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: consent.Provider, At: w.clock.now()}}}); err != nil {
			t.Fatal(err)
		}
	}
	// People who opted out, each with a record whose box is ticked; and the crowd, which did not.
	opted := func() (phone.Number, crm.Key) {
		n := number()
		stop(n)
		return n, person(n, true)
	}
	type planted struct {
		cause string
		key   crm.Key
	}
	var drifts []planted
	var later []func()
	plant := func(cause string, k crm.Key, fn func()) {
		drifts = append(drifts, planted{cause, k})
		later = append(later, fn)
	}
	untick := func(k crm.Key, by crm.Actor) func() {
		return func() { w.crm.ChangeAs(k, by, func(r *crm.Record) { r.OptedOut = false }) }
	}
	var free []crm.Key
	for range records - 12*each {
		free = append(free, person(number(), false))
	}
	var imported []func()
	for i := range each {
		_, k := opted()
		plant(reconcile.Unticked, k, untick(k, crm.Actor{ID: fmt.Sprintf("005%d", i), Name: fmt.Sprintf("Person %d", i), Kind: crm.Person}))
		_, k = opted()
		plant(reconcile.ByIntegration, k, untick(k, crm.Actor{ID: "005M", Name: fmt.Sprintf("Marketing %d", i), Kind: crm.Integration}))
		_, k = opted()
		plant(reconcile.UntickedByHeed, k, untick(k, crm.Actor{ID: "005H", Name: fmt.Sprintf("heed %d", i), Kind: crm.Self}))
		_, k = opted()
		drifts = append(drifts, planted{reconcile.ByImport, k})
		imported = append(imported, untick(k, crm.Actor{ID: "005L", Name: "Data Loader", Kind: crm.Person}))
		n := number()
		stop(n)
		drifts = append(drifts, planted{cause: reconcile.LateRecord})
		at := len(drifts) - 1
		later = append(later, func() { drifts[at].key = person(n, false) })
		moved, _ := opted()
		heir := free[i]
		plant(reconcile.NumberChanged, heir, func() {
			w.crm.Change(heir, "Ann", func(r *crm.Record) { r.Phones = []crm.Phone{{Field: "MobilePhone", Raw: moved.String()}} })
		})
		shared, loser := opted()
		survivor := free[each+i]
		plant(reconcile.Merged, survivor, func() {
			w.crm.Change(survivor, "Ann", func(r *crm.Record) { r.Phones = append(r.Phones, crm.Phone{Field: "Phone", Raw: shared.String()}) })
			w.crm.Merge(loser, survivor)
		})
		led := number()
		stop(led)
		lead := w.crm.Put(crm.Record{Key: crm.Key{Object: "Lead"}, Phones: []crm.Phone{{Field: "MobilePhone", Raw: led.String()}}, OptedOut: true})
		drifts = append(drifts, planted{cause: reconcile.Converted})
		contact := len(drifts) - 1
		later = append(later, func() { drifts[contact].key = w.crm.Convert(lead, false) })
		ticked := free[2*each+i]
		plant(reconcile.TickedInCRM, ticked, func() { w.crm.Tick(ticked, "Bea", true) })
	}
	w.run(reconcile.Nightly)
	w.settled(reconcile.Nightly)
	for i, fn := range later {
		if i%5 == 0 {
			w.clock.pass(2 * time.Minute) // so that nobody else looks like an import
		}
		fn()
	}
	w.clock.pass(2 * time.Minute)
	for _, fn := range imported {
		fn()
	}
	// A reply whose webhook never came.
	for range each {
		n := number()
		w.provider.Text(n.String(), "+15550100000", "STOP", sms.FlagNone)
		drifts = append(drifts, planted{cause: reconcile.MissedWebhook})
	}
	want := map[string]int{}
	for _, d := range drifts {
		want[d.cause]++
	}
	before, err := w.ledger.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.clock.pass(time.Hour)
	dry, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Manual, DryRun: true})
	if err != nil || dry.Recorded {
		t.Fatalf("dry run: %v", err)
	}
	if after, err := w.ledger.Stats(t.Context()); err != nil || after.Head != before.Head {
		t.Fatalf("a dry run wrote %d events, %v", after.Head-before.Head, err)
	}

	got := w.run(reconcile.Incremental)
	if !maps.Equal(got.Pass.Causes, want) {
		t.Errorf("causes %v\nplanted %v", got.Pass.Causes, want)
	}
	named := map[crm.Key]string{}
	for c, err := range w.ledger.Corrections(t.Context(), got.Pass.ID) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Record != nil {
			named[*c.Record] = c.Cause
		}
	}
	right, keyed := 0, 0
	for _, d := range drifts {
		if d.key == (crm.Key{}) {
			continue
		}
		keyed++
		if named[d.key] == d.cause {
			right++
		}
		if rec, _ := w.crm.Record(d.key); !rec.OptedOut {
			t.Errorf("%s of %v is not repaired", d.cause, d.key)
		}
	}
	if float64(right) < 0.99*float64(keyed) {
		t.Errorf("the cause of %d of %d drifts is named", right, keyed)
	}
	w.settled(reconcile.Incremental)
	w.settled(reconcile.Nightly)
	t.Logf("%d records, %d drifts of %d kinds, the cause of %d of %d with a record named, in %s", records, len(drifts), len(want), right, keyed, got.Pass.FinishedAt.Sub(got.Pass.StartedAt))
}
