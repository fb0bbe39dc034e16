package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/crmtest"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

// snapshot is a CRM whose full reads are answered as an export job's are: from a copy of when the job began, in any order, and
// gone on with by place. fail ends a read before that page.
type snapshot struct {
	*crmtest.CRM
	size    int
	shuffle *rand.Rand // nil: in order
	fail    int        // -1: never

	records []crm.Record
	asOf    time.Time
}

var errEnded = errors.New("the process ended")

func (s *snapshot) Scan(ctx context.Context, after crm.Key) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) {
		from := 0
		if after.ID == "" {
			s.records = nil
			for page, err := range s.CRM.Scan(ctx, crm.Key{}) {
				if err != nil {
					yield(crm.Page{}, err)
					return
				}
				s.asOf = page.AsOf
				s.records = append(s.records, page.Records...)
			}
			if s.shuffle != nil {
				s.shuffle.Shuffle(len(s.records), func(i, j int) { s.records[i], s.records[j] = s.records[j], s.records[i] })
			}
		} else if _, err := fmt.Sscan(after.ID, &from); err != nil {
			yield(crm.Page{}, err)
			return
		}
		for n := from / s.size; from < len(s.records); n++ {
			if n == s.fail {
				yield(crm.Page{}, errEnded)
				return
			}
			to := min(from+s.size, len(s.records))
			// As from a driver: nothing of a page is shared with another.
			p := crm.Page{Records: append([]crm.Record(nil), s.records[from:to]...), AsOf: s.asOf, Total: len(s.records), Next: crm.Key{Object: "job", ID: fmt.Sprint(to)}}
			if !yield(p, nil) {
				return
			}
			from = to
		}
	}
}

func snapshotWorld(t *testing.T, shuffle *rand.Rand) (*world, *snapshot, []crm.Key) {
	w := newWorld(t)
	s := &snapshot{CRM: w.crm, size: 7, shuffle: shuffle, fail: -1}
	w.runner.CRMs[0].Directory = s
	var keys []crm.Key
	for i := range 60 {
		keys = append(keys, w.crm.Person([]string{"Contact", "Lead", "Contact"}[i%3], fmt.Sprintf("+1206555%04d", i), i%10 == 3))
	}
	w.run(reconcile.Nightly)
	w.settled(reconcile.Nightly)
	return w, s, keys
}

// A full read finds what is gone, and nothing else, in whatever order the records come, and wherever it is interrupted.
func TestTheOrderOfAFullReadDoesNotMatter(t *testing.T) {
	for seed := range uint64(6) {
		for _, fail := range []int{-1, 0, 1, 4, 8} {
			t.Run(fmt.Sprint(seed, fail), func(t *testing.T) {
				var shuffle *rand.Rand
				if seed > 0 {
					shuffle = rand.New(rand.NewPCG(seed, 1))
				}
				w, s, keys := snapshotWorld(t, shuffle)
				w.crm.Erase(keys[3]) // opted out
				w.crm.Erase(keys[20])
				w.crm.Erase(keys[59])
				if s.fail = fail; fail >= 0 {
					w.clock.pass(time.Minute)
					if r, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Nightly}); err != nil || r.Pass.Error == "" {
						t.Fatalf("%v, %q", err, r.Pass.Error)
					}
					w.reopen()
					w.runner.CRMs[0].Directory, s.fail = s, -1
					// Somebody is added while the read is interrupted: it is not in the copy, and not gone.
					k := w.crm.Person("Contact", "+12065559999", true)
					w.clock.pass(time.Minute)
					w.want(w.run(reconcile.Incremental), map[string]int{reconcile.TickedInCRM: 1})
					keys = append(keys, k)
				}
				r := w.run(reconcile.Nightly)
				w.want(r, map[string]int{reconcile.RecordHidden: 1})
				if n, err := w.ledger.Mirror("sf").Len(t.Context()); n != len(keys)-3 || err != nil || r.Pass.Counts["records_hidden"] != 3 {
					t.Fatalf("%d known of %d, %v, %v", n, len(keys)-3, err, r.Pass.Counts)
				}
				w.settled(reconcile.Incremental)
				w.settled(reconcile.Nightly)
			})
		}
	}
}

// What a copy shows of a box that heed has set since, or of a record that was read since, is not news.
func TestAnOldCopyDoesNotSpeakAgainstWhatWasReadSince(t *testing.T) {
	w, s, keys := snapshotWorld(t, nil)
	s.fail = 0
	w.clock.pass(time.Minute)
	if r, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Nightly}); err != nil || r.Pass.Error == "" {
		t.Fatalf("%v, %q", err, r.Pass.Error)
	}
	s.fail = 1 // the copy is made now; its first page is read, and the others later
	w.clock.pass(time.Minute)
	if r, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Nightly}); err != nil || r.Pass.Error == "" {
		t.Fatalf("%v, %q", err, r.Pass.Error)
	}
	late := keys[len(keys)-1]
	rec, _ := w.crm.Record(late)
	w.clock.pass(time.Minute)
	w.provider.Text(rec.Phones[0].Raw, "+15550100000", "STOP", sms.FlagNone)
	w.clock.pass(time.Minute)
	w.run(reconcile.Incremental) // recovers the reply and ticks the box
	w.box(late, true)
	other := keys[len(keys)-4]
	rec, _ = w.crm.Record(other)
	w.crm.Change(other, "Ann", func(r *crm.Record) { r.Phones[0].Raw = "+12065558888" })
	w.run(reconcile.Incremental)
	s.fail = -1
	r := w.run(reconcile.Nightly)
	w.want(r, map[string]int{})
	w.box(late, true)
	if records, err := w.ledger.Mirror("sf").ByNumber(t.Context(), phone.MustParse("+12065558888")); err != nil || len(records) != 1 {
		t.Fatalf("the number that was read since leads to %v, %v", records, err)
	}
	w.state(rec.Phones[0].Raw, consent.Unknown)
	w.settled(reconcile.Nightly)
}

// An import that ticks boxes may date the change back. heed then knows that the box was not ticked when it last read the
// record, also where that reading found nothing to write down.
func TestABackdatedTickIsFromAfterTheLastFullRead(t *testing.T) {
	w := newWorld(t)
	const ada = "+12065550142"
	k := w.crm.Person("Contact", ada, false)
	w.run(reconcile.Nightly)
	w.clock.pass(time.Hour)
	if _, err := w.ledger.Append(t.Context(), ledger.Event{Kind: ledger.KindConsent, At: w.clock.now(), Number: phone.MustParse(ada),
		Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptIn, Source: consent.Admin, At: w.clock.now()}}}); err != nil {
		t.Fatal(err)
	}
	w.clock.pass(time.Hour)
	w.settled(reconcile.Nightly) // reads the record again, box not ticked: whoever ticks it does so after the opt-in
	w.clock.pass(time.Hour)
	rec, _ := w.crm.Record(k)
	rec.OptedOut, rec.Stamp, rec.ModifiedAt = true, time.Time{}, began
	w.crm.Put(rec)
	w.want(w.run(reconcile.Nightly), map[string]int{reconcile.TickedInCRM: 1})
	w.state(ada, consent.OptedOut)
	w.box(k, true)
	w.settled(reconcile.Nightly)
}
