package reconcile_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/crmtest"
	"github.com/heed-sms/heed/sync/reconcile"
)

// standing returns what a pass left alone for a cause.
func standing(p ledger.Pass, cause string) ledger.Standing {
	i := slices.IndexFunc(p.Standing, func(s ledger.Standing) bool { return s.Cause == cause })
	if i < 0 {
		return ledger.Standing{}
	}
	return p.Standing[i]
}

func TestWhatStandsIsCountedEachNightAndListedInFullOnlyWhenItIsNew(t *testing.T) {
	w := newWorld(t)
	w.crm.PageSize = 40
	for i := range 60 {
		w.crm.Person("Contact", fmt.Sprintf("extension %d", i), false)
	}
	w.clock.pass(24 * time.Hour)
	first := standing(w.run(reconcile.Nightly).Pass, reconcile.NumberUnreadable)
	if first.N != 60 || len(first.Listed) != 60 || first.Before != nil {
		t.Fatalf("%d, %d listed, before %v", first.N, len(first.Listed), first.Before)
	}
	w.clock.pass(24 * time.Hour)
	late := w.crm.Person("Contact", "+1 206 55501", false)
	if r := w.run(reconcile.Incremental); len(r.Corrections) != 0 || r.Recorded {
		t.Fatalf("a number that cannot be read is worth a report of its own: %+v", r)
	}
	before, err := w.ledger.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := w.run(reconcile.Nightly)
	after, err := w.ledger.Stats(t.Context())
	if err != nil || after.Head != before.Head+2 { // that it began, and that it ended
		t.Errorf("%d events for a quiet night, %v", after.Head-before.Head, err)
	}
	got := standing(r.Pass, reconcile.NumberUnreadable)
	if got.N != 61 || got.Before == nil || *got.Before != 60 || len(got.Listed) != 10 || *got.Listed[0].Record != late {
		t.Errorf("%d after %v, %d listed, first %+v", got.N, got.Before, len(got.Listed), got.Listed[0])
	}
	if d := got.Listed[0].Detail; strings.Contains(d, "555") || !strings.Contains(d, "MobilePhone") {
		t.Errorf("detail %q", d)
	}
	if len(r.Corrections) != 0 || len(r.Pass.Causes) != 0 {
		t.Errorf("what stands is planned: %+v", r)
	}
	var out strings.Builder
	if err := reconcile.Text(&out, r.Pass, w.ledger.Corrections(t.Context(), r.Pass.ID), reconcile.TextOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0 opt-outs received = 0 applied + 0 pending + 0 parked\n", "No new differences; 61 are known and left alone", "number_unreadable: 61, after 60 in the full report before"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	w.crm.Change(late, "Ann", func(r *crm.Record) { r.Phones[0].Raw = ada })
	if got := standing(w.run(reconcile.Nightly).Pass, reconcile.NumberUnreadable); got.N != 60 || *got.Before != 61 {
		t.Errorf("%d after %d", got.N, *got.Before)
	}
}

// The first line of a report accounts for each message that asked to opt out.
func TestReceivedOptOutsAreAppliedPendingOrParked(t *testing.T) {
	w := newWorld(t)
	applied, parked := w.crm.Person("Contact", ada, false), w.crm.Person("Contact", bob, false)
	w.run(reconcile.Nightly)
	sum := func(r reconcile.Result, received, applied, pending, parked int) {
		t.Helper()
		c := r.Pass.Counts
		got := [4]int{c["opt_outs_received"], c["opt_outs_applied"], c["opt_outs_pending"], c["opt_outs_parked"]}
		if got != [4]int{received, applied, pending, parked} || uint64(received) != r.Pass.OptOuts {
			t.Fatalf("received = applied + pending + parked: %v, want %d = %d + %d + %d; %d by the ledger", got, received, applied, pending, parked, r.Pass.OptOuts)
		}
	}
	w.text(ada, "STOP")
	w.text(ada, "please stop texting me") // the same person again
	w.text("+12065550199", "STOP")        // without a record
	w.text(bob, "hello")
	no := &crm.Error{Class: crm.Park, Text: "Ask compliance first"}
	w.crm.FailWrites(parked, no, no)
	w.text(bob, "STOP")
	sum(w.run(reconcile.Manual), 4, 3, 0, 1)
	w.box(applied, true)

	// While the CRM is away a STOP is pending, and one that was applied before is not.
	w.crm.Person("Contact", eve, false)
	w.run(reconcile.Incremental)
	w.crm.Fail(&crm.Error{Class: crm.RetryLater, Status: 503})
	w.text(eve, "STOP")
	w.clock.pass(time.Minute)
	r, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Incremental})
	if err != nil || !r.Recorded { // the failure is new
		t.Fatal(r.Recorded, err)
	}
	sum(r, 5, 3, 1, 1)
	w.crm.Fail(nil)
	w.clock.pass(24 * time.Hour)
	sum(w.run(reconcile.Nightly), 5, 4, 0, 1)
	// And in the end all of them are applied, whatever became of their numbers.
	w.text(ada, "START")
	w.clock.pass(24 * time.Hour)
	sum(w.run(reconcile.Nightly), 5, 5, 0, 0)
}

func TestAnUnreadableLogOfChangesDoesNotKeepAFullReadFromPuttingThingsRight(t *testing.T) {
	w := newWorld(t)
	k := w.crm.Person("Contact", ada, false)
	w.text(ada, "STOP")
	w.run(reconcile.Nightly)
	w.crm.Tick(k, "Ann", false)
	w.clock.pass(time.Minute)
	w.runner.CRMs[0].Directory = unchanging{w.crm}
	r, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Nightly})
	if err != nil || r.Pass.Error != "" || len(r.Pass.Notes) != 1 || !strings.Contains(r.Pass.Notes[0], "imports") {
		t.Fatalf("%v %q %q", err, r.Pass.Error, r.Pass.Notes)
	}
	w.want(r, map[string]int{reconcile.Unticked: 1})
	w.box(k, true)
}

// unchanging is a CRM whose changes cannot be read.
type unchanging struct{ *crmtest.CRM }

func (unchanging) Changed(context.Context, time.Time) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) { yield(crm.Page{}, &crm.Error{Class: crm.Bug, Status: 400}) }
}
