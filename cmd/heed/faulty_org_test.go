package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/salesforce"
	"github.com/heed-sms/heed/crm/salesforce/salesforcefake"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

// An organisation on a bad day: one row in a hundred is locked, one answer in a hundred is a page of HTML, sessions end in
// the middle, and nine tenths of its API calls are used up. The real driver, ledger, workers and reconciliation must tick
// every box all the same, opt-outs before anything else, and must not once believe a write that was not made.
func TestABadDayOfAnOrganisation(t *testing.T) {
	const stops = 2600 // enough for a bulk job
	clock := &shiftedClock{}
	org := salesforcefake.New(salesforcefake.Options{ClientID: "client", ClientSecret: "secret", Seed: 11})
	srv := httptest.NewServer(org.Handler())
	salesforce.InstallTransport(nil)
	t.Cleanup(func() {
		org.Close()
		http.DefaultClient.CloseIdleConnections()
		srv.Close()
	})
	logs := &syncBuffer{}
	log := slog.New(slog.NewTextHandler(logs, nil))
	box := salesforce.OptOut{Field: "SMS_Opt_Out__c"}
	driver, err := salesforce.New(salesforce.Config{Domain: srv.URL, ClientID: "client", ClientSecret: "secret", Objects: []salesforce.Object{
		{Object: "Contact", Phones: []string{"MobilePhone", "Phone"}, OptOut: box, TextField: "SMS_Opt_Out_Text__c"},
		{Object: "Lead", Phones: []string{"MobilePhone", "Phone"}, OptOut: box},
	}}, log)
	if err != nil {
		t.Fatal(err)
	}
	l, err := local.Open(t.TempDir(), local.Options{Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	boxes := &connector.Boxes{Ledger: l, CRMs: []connector.CRM{{Name: "sf", Directory: driver}}, Log: log, Now: clock.now}
	passes := &reconcile.Runner{Ledger: l, CRMs: []reconcile.CRM{{Name: "sf", Directory: driver}}, Boxes: boxes, Region: "US",
		Started: clock.now(), Log: log, Now: clock.now}
	knob := func(set func(*salesforcefake.Knobs)) {
		t.Helper()
		if err := org.SetKnobs(set); err != nil {
			t.Fatal(err)
		}
	}
	pass := func() ledger.Pass {
		t.Helper()
		clock.move(time.Minute)
		r, err := passes.Run(t.Context(), reconcile.Options{Kind: reconcile.Nightly})
		if err != nil {
			t.Fatal(err)
		}
		return r.Pass
	}

	org.Seed(13_000, 5)
	number := func(i int) phone.Number { return phone.FromUint64(12_065_550_000 + uint64(i)) }
	var keys []crm.Key
	for i := range stops {
		object, fields := "Contact", map[string]any{"LastName": fmt.Sprint("Example ", i), "MobilePhone": number(i).String()}
		if i%20 == 0 {
			object, fields["Company"] = "Lead", "Example"
		}
		keys = append(keys, crm.Key{Object: object, ID: org.Insert(object, fields)})
	}
	if p := pass(); p.Error != "" || org.Counters().Calls["bulk_query_create"] == 0 {
		t.Fatalf("a good day: %s; calls %v", p.Error, org.Counters().Calls)
	}
	ticked := func() (n int) {
		for _, k := range keys {
			if r, _ := org.Get(k.Object, k.ID); r["SMS_Opt_Out__c"] == true {
				n++
			}
		}
		return n
	}
	stop := func(from, to int) {
		t.Helper()
		var events []ledger.Event
		for i := from; i < to; i++ {
			events = append(events, ledger.Event{Kind: ledger.KindConsent, ID: fmt.Sprint("stop/", i), At: clock.now(), Number: number(i),
				Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: consent.Provider, At: clock.now()}}})
		}
		for part := range slices.Chunk(events, 200) {
			if _, err := l.Append(t.Context(), part...); err != nil {
				t.Fatal(err)
			}
		}
	}

	// The bad day begins. Somebody unticks boxes too.
	knob(func(k *salesforcefake.Knobs) {
		k.Seed, k.LockRate, k.ErrorRate503HTML, k.ExpireRate = 3, 0.01, 0.01, 0.01
		k.NextWrite = []string{"ok", "401"} // a session that ends in the middle of a batch
		k.BudgetMax, k.BudgetUsed, k.BulkPolls, k.BulkPageRows = 10_000, 9_000, 2, 400
	})
	stop(0, stops-1)
	before := org.Counters()
	if err := boxes.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, used := ticked(), org.Counters().DataCalls-before.DataCalls; n < stops/2 || used > stops/20 {
		t.Errorf("on a bad day %d of %d boxes are ticked by %d calls", n, stops, used)
	}
	reads := func() int {
		c := org.Counters().Calls
		return c["query"] + c["query_more"] + c["bulk_query_create"] + c["bulk_query_results"]
	}
	atBudget := reads()
	p := pass()
	if !strings.Contains(p.Error, "could not be read in full") || !strings.Contains(p.Error, "api_budget") || reads() != atBudget {
		t.Errorf("with calls left for opt-outs alone %d reads are made; the report says %q", reads()-atBudget, p.Error)
	}
	for i := 0; i < 20 && ticked() < stops-1; i++ { // what was locked is tried again
		clock.move(10 * time.Minute)
		if err := boxes.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := ticked(); n != stops-1 || reads() != atBudget {
		t.Fatalf("%d of %d boxes are ticked, with %d reads", n, stops-1, reads()-atBudget)
	}

	// Calls come back, which the answer to the next STOP's write says. Nothing else gets better.
	for i := range 25 {
		if err := org.Update(keys[i*7].Object, keys[i*7].ID, map[string]any{"SMS_Opt_Out__c": false}); err != nil {
			t.Fatal(err)
		}
	}
	knob(func(k *salesforcefake.Knobs) {
		k.BudgetUsed, k.NextRead = 100, []string{"ok", "ok", "503", "ok", "401"}
	})
	stop(stops-1, stops)
	clean := false
	for i := 0; i < 12 && !clean; i++ {
		clock.move(20 * time.Minute)
		if err := boxes.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		p := pass()
		clean = p.Error == "" && len(p.Causes) == 0 && p.Counts["numbers_waiting"]+p.Counts["numbers_parked"] == 0
	}
	if !clean || ticked() != stops {
		t.Fatalf("after all passes %d of %d boxes are ticked; a pass found nothing: %v; log\n%s", ticked(), stops, clean, logs)
	}

	// What the ledger says was written is what the org has.
	byKey := map[string]bool{}
	for e, err := range l.Events(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Written == nil {
			continue
		}
		for _, r := range e.Written.Results {
			if r.Class == "" {
				byKey[r.ID] = r.OptedOut
			}
		}
	}
	for _, k := range keys {
		r, _ := org.Get(k.Object, k.ID)
		if said, known := byKey[k.ID]; !known || r["SMS_Opt_Out__c"] != said || r["LastModifiedById"] != org.UserID() {
			t.Errorf("%v: the ledger says %v, %v; the org has %v", k, said, known, r["SMS_Opt_Out__c"])
		}
	}
	c := org.Counters()
	if c.RowsFailed == 0 || c.Status["503"] == 0 || c.TokenCalls < 3 || c.Calls["bulk_ingest_create"] == 0 {
		t.Errorf("the day was not that bad: %+v", c)
	}
	t.Logf("%d data calls, %d logins, %d rows written, %d refused", c.DataCalls, c.TokenCalls, c.RowsWritten, c.RowsFailed)
}

// shiftedClock is the real clock, put forward.
type shiftedClock struct {
	mu sync.Mutex
	by time.Duration
}

func (c *shiftedClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.by)
}

func (c *shiftedClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by += d
}
