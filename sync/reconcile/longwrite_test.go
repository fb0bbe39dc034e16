package reconcile_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/crmtest"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

// tardy is a CRM whose writes are answered a while after the records are saved, as a bulk job's are. during happens in between.
type tardy struct {
	*crmtest.CRM
	during func()
}

func (s *tardy) Write(ctx context.Context, writes []crm.Write) []crm.Result {
	r := s.CRM.Write(ctx, writes)
	if f := s.during; f != nil {
		s.during = nil
		f()
	}
	return r
}

func tardyWorld(t *testing.T) (w *world, s *tardy, boxes *connector.Boxes, step func(time.Duration)) {
	w = newWorld(t)
	s = &tardy{CRM: w.crm}
	boxes = &connector.Boxes{Ledger: w.ledger, CRMs: []connector.CRM{{Name: "sf", Directory: s}}, Log: slog.New(slog.DiscardHandler), Now: w.clock.now}
	w.runner.CRMs[0].Directory, w.runner.Boxes = s, boxes
	return w, s, boxes, func(d time.Duration) {
		t.Helper()
		w.clock.pass(d)
		if r, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Incremental}); err != nil || r.Pass.Error != "" {
			t.Fatal(err, r.Pass.Error)
		}
	}
}

func TestChangesAreReadAgainForAsLongAsAWriteTakes(t *testing.T) {
	if reconcile.Overlap <= connector.LongestWrite {
		t.Fatalf("changes of the last %s are read again, and a write may take %s", reconcile.Overlap, connector.LongestWrite)
	}
}

// A person changes a box behind heed's write, and passes read it before heed has noted its own.
func TestABoxChangedDuringALongWriteIsSeen(t *testing.T) {
	const people = 600 // more than are claimed at a time, so that the batch may take its longest
	number := func(i int) string { return fmt.Sprintf("+1206555%04d", i) }
	t.Run("unticked again", func(t *testing.T) {
		w, s, boxes, step := tardyWorld(t)
		var keys []crm.Key
		for i := range people {
			keys = append(keys, w.crm.Person("Contact", number(i), false))
		}
		w.run(reconcile.Nightly)
		for i := range people {
			w.text(number(i), "STOP")
		}
		s.during = func() {
			w.clock.pass(20 * time.Second)
			w.crm.Tick(keys[0], "Ann", false)
			for range 4 {
				step(time.Minute)
			}
		}
		if err := boxes.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		step(time.Minute)
		w.box(keys[0], true)
		w.settled(reconcile.Incremental)
		w.settled(reconcile.Nightly)
	})
	t.Run("ticked again", func(t *testing.T) {
		w, s, boxes, step := tardyWorld(t)
		var keys []crm.Key
		for i := range people {
			keys = append(keys, w.crm.Person("Contact", number(i), true))
		}
		w.run(reconcile.Nightly) // obeys the ticks
		for i := range people {
			e := ledger.Event{Kind: ledger.KindConsent, At: w.clock.now(), Number: phone.MustParse(number(i)),
				Consent: &ledger.Consent{Change: consent.Change{Action: consent.Undo, Source: consent.Admin, At: w.clock.now()}}}
			if _, err := w.ledger.Append(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		s.during = func() {
			w.clock.pass(20 * time.Second)
			w.crm.Tick(keys[0], "Ann", true)
			for range 4 {
				step(time.Minute)
			}
		}
		if err := boxes.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		step(time.Minute)
		w.state(number(0), consent.OptedOut)
		w.box(keys[0], true)
		w.state(number(1), consent.Unknown)
		w.box(keys[1], false)
		w.settled(reconcile.Nightly)
	})
	t.Run("taken out of the recycle bin", func(t *testing.T) {
		w, s, boxes, step := tardyWorld(t)
		k := w.crm.Person("Contact", number(0), false)
		w.run(reconcile.Nightly)
		w.text(number(0), "STOP")
		w.crm.FailWrites(k, &crm.Error{Class: crm.Gone, Text: "entity is deleted"})
		s.during = func() {
			w.clock.pass(5 * time.Second)
			w.crm.Change(k, "Ann", func(*crm.Record) {})
			for range 4 {
				step(time.Minute)
			}
		}
		if err := boxes.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		step(time.Minute)
		w.box(k, true)
		w.settled(reconcile.Nightly)
	})
}
