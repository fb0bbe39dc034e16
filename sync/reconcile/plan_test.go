package reconcile

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

var (
	ada = phone.MustParse("+12065550142")
	bob = phone.MustParse("+12065550143")
	t0  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// minute is a time that many minutes after t0.
func minute(n int) time.Time { return t0.Add(time.Duration(n) * time.Minute) }

type told = consent.Change

func stop(at int) told {
	return told{Action: consent.OptOut, Source: consent.Recipient, At: minute(at)}
}
func start(at int) told {
	return told{Action: consent.OptIn, Source: consent.Recipient, At: minute(at)}
}
func out(s consent.Source, at int) told {
	return told{Action: consent.OptOut, Source: s, At: minute(at)}
}
func in(s consent.Source, at int) told {
	return told{Action: consent.OptIn, Source: s, At: minute(at)}
}

func number(n phone.Number, changes ...told) num {
	var x num
	x.Number.Number = n
	for _, c := range changes {
		x.Facts = x.Facts.Apply(c)
	}
	return x
}

func owed(n num) num { n.owed = true; return n }

// was is what the mirror knows, read at minute 5.
func was(ticked bool, numbers ...phone.Number) *ledger.MirrorRecord {
	return &ledger.MirrorRecord{Key: crm.Key{Object: "Contact", ID: "1"}, Numbers: numbers, OptedOut: ticked, SeenAt: minute(5)}
}

func wroteAt(m *ledger.MirrorRecord, at int) *ledger.MirrorRecord { m.WroteAt = minute(at); return m }

// is is the record now; it was changed at a minute and read at minute 20.
func is(ticked bool, at int) crm.Record {
	return crm.Record{Key: crm.Key{Object: "Contact", ID: "1"}, OptedOut: ticked, Stamp: minute(at), ModifiedAt: minute(at), ModifiedBy: crm.Actor{Name: "Ann"}}
}

func bySelf(r crm.Record) crm.Record { r.ModifiedBy.Kind = crm.Self; return r }

func TestPlan(t *testing.T) {
	type want struct {
		cause, action string
		numbers       []phone.Number
		at            time.Time
	}
	do := func(cause, action string, numbers ...phone.Number) want {
		return want{cause: cause, action: action, numbers: numbers}
	}
	obeyed := func(cause, action string, at int, numbers ...phone.Number) want {
		return want{cause, action, numbers, minute(at)}
	}
	nothing := want{}
	for _, c := range []struct {
		name    string
		old     *ledger.MirrorRecord
		rec     crm.Record
		numbers []num
		via     string
		want    want
	}{
		{name: "box and consent agree: not out", old: was(false, ada), rec: is(false, 10), numbers: []num{number(ada)}},
		{name: "box and consent agree: out", old: was(true, ada), rec: is(true, 10), numbers: []num{number(ada, stop(1))}},
		{name: "one number out of two is enough", old: was(true, ada, bob), rec: is(true, 10), numbers: []num{number(ada), number(bob, stop(1))}},
		{name: "a record without numbers says nothing", rec: is(true, 10)},
		{name: "unticked while nobody is opted out", old: was(true, ada), rec: is(false, 10), numbers: []num{number(ada)}},

		{name: "a record that is seen first after the opt-out", rec: is(false, 10), numbers: []num{number(ada, stop(1))}, want: do(LateRecord, tick, ada)},
		{name: "waiting work does not know a record that is seen first", rec: is(false, 10), numbers: []num{owed(number(ada, stop(1)))}, want: do(LateRecord, tick, ada)},
		{name: "an opt-out whose write is waiting", old: was(false, ada), rec: is(false, 10), numbers: []num{owed(number(ada, stop(1)))}},
		{name: "waiting work of another number that is not out", old: was(false, ada, bob), rec: is(false, 10),
			numbers: []num{number(ada, stop(1)), owed(number(bob, start(1)))}, want: do(BoxNotTicked, tick, ada)},
		{name: "a box that is not ticked for no known reason", old: was(false, ada), rec: is(false, 10), numbers: []num{number(ada, stop(1))}, want: do(BoxNotTicked, tick, ada)},
		{name: "an opted-out number was typed into the record", old: was(false, bob), rec: is(false, 10), numbers: []num{number(ada, stop(1))}, want: do(NumberChanged, tick, ada)},
		{name: "waiting work does not lead to a record that just got the number", old: was(false, bob), rec: is(false, 10), numbers: []num{owed(number(ada, stop(1)))}, want: do(NumberChanged, tick, ada)},

		{name: "somebody unticks a recipient's STOP", old: was(true, ada), rec: is(false, 10), numbers: []num{number(ada, stop(1))}, want: do(Unticked, tick, ada)},
		{name: "somebody unticks while other writes of the number wait", old: was(true, ada), rec: is(false, 10), numbers: []num{owed(number(ada, stop(1)))}, want: do(Unticked, tick, ada)},
		{name: "somebody with heed's own user unticks", old: was(true, ada), rec: bySelf(is(false, 10)), numbers: []num{number(ada, stop(1))}, want: do(UntickedByHeed, tick, ada)},
		{name: "the provider's evidence cannot be unticked", old: was(true, ada), rec: is(false, 10), numbers: []num{number(ada, out(consent.Provider, 1))}, want: do(Unticked, tick, ada)},
		{name: "a decided hold cannot be unticked", old: was(true, ada), rec: is(false, 10), numbers: []num{number(ada, out(consent.Deadline, 1))}, want: do(Unticked, tick, ada)},
		{name: "a merge loses the tick", old: was(true, ada), rec: is(false, 10), numbers: []num{number(ada, stop(1))}, via: Merged, want: do(Merged, tick, ada)},
		{name: "a merge does not undo an opt-out by hand", old: was(true, ada), rec: is(false, 10), numbers: []num{number(ada, out(consent.CRM, 1))}, via: Merged, want: do(Merged, tick, ada)},
		{name: "a conversion loses the tick", rec: is(false, 10), numbers: []num{number(ada, stop(1))}, via: Converted, want: do(Converted, tick, ada)},

		{name: "somebody undoes the CRM's own opt-out", old: was(true, ada), rec: is(false, 10), numbers: []num{number(ada, out(consent.CRM, 1))}, want: obeyed(UndoneInCRM, optIn, 10, ada)},
		{name: "somebody undoes an admin's opt-out", old: was(true, ada), rec: is(false, 10), numbers: []num{number(ada, out(consent.Admin, 1))}, want: obeyed(UndoneInCRM, optIn, 10, ada)},
		{name: "undoing covers all opted-out numbers of the record", old: was(true, ada, bob), rec: is(false, 10),
			numbers: []num{number(ada, out(consent.CRM, 1)), number(bob, out(consent.API, 2))}, want: obeyed(UndoneInCRM, optIn, 10, ada, bob)},
		{name: "one recipient's STOP keeps the whole record", old: was(true, ada, bob), rec: is(false, 10),
			numbers: []num{number(ada, out(consent.CRM, 1)), number(bob, stop(2))}, want: do(Unticked, tick, ada)},
		{name: "an opt-out by hand that is newer than the undoing stands", old: was(true, ada), rec: is(false, 10), numbers: []num{number(ada, out(consent.API, 12))}, want: do(Unticked, tick, ada)},
		{name: "of the same moment the opt-out stands", old: was(true, ada), rec: is(false, 10), numbers: []num{number(ada, out(consent.API, 10))}, want: do(Unticked, tick, ada)},
		{name: "heed's own user undoes nothing", old: was(true, ada), rec: bySelf(is(false, 10)), numbers: []num{number(ada, out(consent.CRM, 1))}, want: do(UntickedByHeed, tick, ada)},
		{name: "a record that is seen first undoes nothing", rec: is(false, 10), numbers: []num{number(ada, out(consent.CRM, 1))}, want: do(LateRecord, tick, ada)},

		{name: "somebody ticks", old: was(false, ada), rec: is(true, 10), numbers: []num{number(ada)}, want: obeyed(TickedInCRM, optOut, 10, ada)},
		{name: "somebody ticks a record with two numbers", old: was(false, ada, bob), rec: is(true, 10), numbers: []num{number(ada), number(bob)}, want: obeyed(TickedInCRM, optOut, 10, ada, bob)},
		{name: "a record that comes with a tick", rec: is(true, 10), numbers: []num{number(ada)}, want: obeyed(TickedInCRM, optOut, 10, ada)},
		{name: "a tick outlives a START before it", old: was(false, ada), rec: is(true, 10), numbers: []num{number(ada, stop(1), start(2))}, want: obeyed(TickedInCRM, optOut, 10, ada)},
		{name: "of the same moment the tick stands", old: was(false, ada), rec: is(true, 10), numbers: []num{number(ada, start(10))}, want: obeyed(TickedInCRM, optOut, 10, ada)},
		{name: "a tick while an untick of the number waits", old: was(false, ada), rec: is(true, 10), numbers: []num{owed(number(ada, stop(1), start(2)))}, want: obeyed(TickedInCRM, optOut, 10, ada)},
		{name: "a START after the tick", old: was(false, ada), rec: is(true, 10), numbers: []num{number(ada, start(11))}, want: do(LiftedByStart, untick, ada)},
		{name: "consent recorded after the tick", rec: is(true, 10), numbers: []num{number(ada, in(consent.Admin, 11))}, want: do(LiftedByHand, untick, ada)},
		{name: "a START of one number after the tick", old: was(false, ada, bob), rec: is(true, 10), numbers: []num{number(ada, start(11)), number(bob)}, want: obeyed(TickedInCRM, optOut, 10, bob)},
		{name: "an import that dates a tick back does not date it before heed saw the box empty", old: was(false, ada), rec: is(true, -9), numbers: []num{number(ada, start(3))}, want: obeyed(TickedInCRM, optOut, 5, ada)},
		{name: "nor before heed emptied it", old: wroteAt(was(false, ada), 7), rec: is(true, -9), numbers: []num{number(ada, start(6))}, want: obeyed(TickedInCRM, optOut, 7, ada)},
		{name: "a CRM whose clock runs ahead", old: was(false, ada), rec: is(true, 500), numbers: []num{number(ada)}, want: obeyed(TickedInCRM, optOut, 20, ada)},
		{name: "no date at all", rec: crm.Record{OptedOut: true}, numbers: []num{number(ada)}, want: obeyed(TickedInCRM, optOut, 20, ada)},

		{name: "a ticked record gets a new number", old: was(true, ada), rec: is(true, 10), numbers: []num{number(bob)}, want: obeyed(NumberChanged, optOut, 10, bob)},
		{name: "only the new number is opted out", old: was(true, ada), rec: is(true, 10), numbers: []num{number(ada, stop(1), start(2)), number(bob)}, want: obeyed(NumberChanged, optOut, 10, bob)},
		{name: "the new number texted START since", old: was(true, ada), rec: is(true, 10), numbers: []num{number(bob, start(11))}, want: do(LiftedByStart, untick, bob)},
		{name: "a START whose untick is waiting", old: was(true, ada), rec: is(true, 1), numbers: []num{owed(number(ada, stop(1), start(2)))}},
		{name: "a START whose untick was lost", old: was(true, ada), rec: is(true, 1), numbers: []num{number(ada, stop(1), start(2))}, want: do(LiftedByStart, untick, ada)},
		{name: "an undoing in heed whose untick was lost", old: was(true, ada), rec: is(true, 1), numbers: []num{number(ada, out(consent.Admin, 1), in(consent.Admin, 2))}, want: do(LiftedByHand, untick, ada)},
		{name: "a known tick without any reason counts as an opt-out", old: was(true, ada), rec: is(true, 10), numbers: []num{number(ada)}, want: obeyed(TickedInCRM, optOut, 10, ada)},

		{name: "a read that began before heed's own write says nothing of an empty box", old: wroteAt(was(true, ada), 20), rec: is(false, 10), numbers: []num{number(ada, stop(1))}},
		{name: "nor of a ticked one", old: wroteAt(was(false, ada), 25), rec: is(true, 10), numbers: []num{number(ada, start(15))}},
		{name: "a read that began after it does", old: wroteAt(was(true, ada), 19), rec: is(false, 10), numbers: []num{number(ada, stop(1))}, want: do(Unticked, tick, ada)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := plan(c.old, c.rec, minute(20), c.numbers, c.via)
			if ok != (c.want.action != nothing.action) {
				t.Fatalf("plan %+v, %v", got, ok)
			}
			if got.cause != c.want.cause || got.action != c.want.action || !slices.Equal(got.numbers, c.want.numbers) || !got.at.Equal(c.want.at) {
				t.Fatalf("plan %+v, want %+v", got, c.want)
			}
			if !ok {
				return
			}
			if !slices.ContainsFunc(Causes, func(x Cause) bool { return x.Name == got.cause }) {
				t.Errorf("cause %q is not documented", got.cause)
			}
			if s := detail(read{Record: &c.rec}, got, c.numbers); strings.Contains(s, "555014") || strings.Contains(s, "  ") {
				t.Errorf("sentence %q", s)
			}
			// Applied, the plan leaves nothing to plan.
			after, old := slices.Clone(c.numbers), was(c.rec.OptedOut)
			for i := range after {
				old.Numbers = append(old.Numbers, after[i].Number.Number)
				after[i].owed = got.action == tick || got.action == untick
				if slices.Contains(got.numbers, after[i].Number.Number) && got.action == optOut {
					after[i].Facts = after[i].Facts.Apply(consent.Change{Action: consent.OptOut, Source: consent.CRM, At: got.at})
				}
				if slices.Contains(got.numbers, after[i].Number.Number) && got.action == optIn {
					after[i].Facts = after[i].Facts.Apply(consent.Change{Action: consent.OptIn, Source: consent.CRM, At: got.at})
				}
			}
			if again, ok := plan(old, c.rec, minute(21), after, ""); ok {
				t.Errorf("after %+v the plan is %+v", got, again)
			}
		})
	}
}

func TestWhatStands(t *testing.T) {
	for _, c := range []struct {
		name                string
		numbers, unreadable int
		ticked              bool
		want                string
	}{
		{name: "a record with a number"},
		{name: "a record with a number and the box ticked", numbers: 1, ticked: true},
		{name: "a record without any number", ticked: false},
		{name: "a field that is no number", unreadable: 1, want: NumberUnreadable},
		{name: "one number of two", numbers: 1, unreadable: 1, want: NumberUnreadable},
		{name: "one number of two, and the box ticked", numbers: 1, unreadable: 1, ticked: true, want: NumberUnreadable},
		{name: "ticked, without any number", ticked: true, want: CRMOnly},
		{name: "ticked, and its number cannot be read", unreadable: 1, ticked: true, want: CRMOnly},
	} {
		if got := stands(c.numbers, c.unreadable, c.ticked); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSharedBy(t *testing.T) {
	k := func(object string) crm.Key { return crm.Key{Object: object} }
	for _, c := range []struct {
		keys []crm.Key
		what string
		ok   bool
	}{
		{[]crm.Key{k("Contact")}, "1 Contact records", false},
		{[]crm.Key{k("Contact"), k("Lead")}, "1 Contact and 1 Lead records", false}, // a lead that became a contact, most likely
		{[]crm.Key{k("Contact"), k("Lead"), k("Contact")}, "2 Contact and 1 Lead records", true},
		{[]crm.Key{k("Lead"), k("Lead"), k("Lead")}, "3 Lead records", true},
	} {
		if what, ok := sharedBy(c.keys); what != c.what || ok != c.ok {
			t.Errorf("%v: %q %v", c.keys, what, ok)
		}
	}
}

func TestCausesAreDocumentedOnceAndInFull(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Causes {
		if seen[c.Name] || c.Name == "" || c.Means == "" || c.Example == "" || c.Did == "" {
			t.Errorf("cause %+v", c)
		}
		seen[c.Name] = true
	}
	if len(seen) != 21 {
		t.Errorf("%d causes", len(seen))
	}
}
