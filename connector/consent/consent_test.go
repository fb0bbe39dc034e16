package consent

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func at(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }

var (
	actions = []Action{OptOut, OptIn, Hold, Release, Ask, Undo}
	sources = []Source{Recipient, Provider, CRM, Admin, API, Deadline}
)

// changes draws few distinct times, so that ties are common.
func changes() *rapid.Generator[[]Change] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Change {
		return Change{
			Action: rapid.SampledFrom(actions).Draw(t, "action"),
			Source: rapid.SampledFrom(sources).Draw(t, "source"),
			At:     at(rapid.IntRange(0, 4).Draw(t, "minute")).Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "µs")) * time.Microsecond),
		}
	}), 0, 12)
}

func fold(f Facts, changes ...Change) Facts {
	for _, c := range changes {
		f = f.Apply(c)
	}
	return f
}

func TestAnyOrderAndRepetitionOfTheSameChangesGivesTheSameFacts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cs := changes().Draw(t, "changes")
		want := fold(Facts{}, cs...)
		again := rapid.Permutation(append(cs, cs...)).Draw(t, "order")
		got := fold(Facts{}, again...)
		if got != want || got.State() != want.State() || got.ByCRM() != want.ByCRM() {
			t.Fatalf("in order %v: %+v, want %+v", again, got, want)
		}
	})
}

// TestOnlyTheRecipientsStartLiftsTheRecipientsStop is promise 4 as a property: whatever anybody else does and
// whenever, a STOP without a later START of the recipient blocks, under every policy.
func TestOnlyTheRecipientsStartLiftsTheRecipientsStop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cs := changes().Draw(t, "changes")
		f := fold(Facts{}, cs...)
		var stop, start time.Time
		for _, c := range cs {
			switch {
			case c.Action == OptOut && c.Source.Sticky():
				stop = later(stop, c.At.Truncate(time.Millisecond))
			case c.Action == OptIn && c.Source == Recipient:
				start = later(start, c.At.Truncate(time.Millisecond))
			}
		}
		inForce := !stop.IsZero() && !start.After(stop)
		if f.Stopped() != inForce {
			t.Fatalf("stopped %v, want %v: %+v", f.Stopped(), inForce, f)
		}
		for _, p := range []Policy{{}, {RequireOptIn: true}} {
			if d := p.Decide(f); inForce && (d.Verdict != Block || d.Reason != ReasonOptedOut) {
				t.Fatalf("decision %+v in spite of the recipient's STOP: %+v", d, f)
			}
		}
		if inForce && (f.State() != OptedOut || f.CanUndo(Admin) || f.CanUndo(CRM) || f.CanUndo(API) || !f.CanUndo(Recipient)) {
			t.Fatalf("somebody but the recipient could lift it: %+v", f)
		}
	})
}

func TestAnOptOutNeverMakesAnythingMorePermissive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := fold(Facts{}, changes().Draw(t, "changes")...)
		p := Policy{RequireOptIn: rapid.Bool().Draw(t, "require opt-in")}
		before := p.Decide(f)
		c := Change{OptOut, rapid.SampledFrom(sources).Draw(t, "source"), at(rapid.IntRange(0, 9).Draw(t, "minute"))}
		if after := p.Decide(f.Apply(c)); after.Verdict.Strictness() < before.Verdict.Strictness() {
			t.Fatalf("%+v turned %+v into %+v", c, before, after)
		}
	})
}

func TestWhoMayUndoWhat(t *testing.T) {
	for _, c := range []struct {
		name string
		do   []Change
		want State
		by   Reason
	}{
		{"nothing was ever said", nil, Unknown, OK},
		{"recipient stops", []Change{{OptOut, Recipient, at(1)}}, OptedOut, ReasonOptedOut},
		{"recipient stops and starts", []Change{{OptOut, Recipient, at(1)}, {OptIn, Recipient, at(2)}}, OptedIn, OK},
		{"recipient starts, then stops", []Change{{OptIn, Recipient, at(1)}, {OptOut, Recipient, at(2)}}, OptedOut, ReasonOptedOut},
		{"STOP and START at the same moment: the STOP", []Change{{OptIn, Recipient, at(1)}, {OptOut, Recipient, at(1)}}, OptedOut, ReasonOptedOut},
		{"within the same millisecond: the STOP", []Change{{OptOut, Recipient, noon}, {OptIn, Recipient, noon.Add(time.Microsecond)}}, OptedOut, ReasonOptedOut},
		{"admin cannot lift a STOP", []Change{{OptOut, Recipient, at(1)}, {OptIn, Admin, at(2)}}, OptedOut, ReasonOptedOut},
		{"the CRM cannot lift a STOP", []Change{{OptOut, Recipient, at(1)}, {OptIn, CRM, at(2)}}, OptedOut, ReasonOptedOut},
		{"a program cannot lift a STOP", []Change{{OptOut, Recipient, at(1)}, {OptIn, API, at(2)}}, OptedOut, ReasonOptedOut},
		{"a release cannot lift a STOP", []Change{{OptOut, Recipient, at(1)}, {Release, Admin, at(2)}}, OptedOut, ReasonOptedOut},
		{"a question cannot lift a STOP", []Change{{OptOut, Recipient, at(1)}, {Ask, API, at(2)}}, OptedOut, ReasonOptedOut},
		{"nor evidence from the provider", []Change{{OptOut, Provider, at(1)}, {OptIn, Admin, at(2)}}, OptedOut, ReasonOptedOut},
		{"nor a hold that ran out", []Change{{OptOut, Deadline, at(1)}, {OptIn, Admin, at(2)}}, OptedOut, ReasonOptedOut},
		{"the provider's word is no START", []Change{{OptOut, Recipient, at(1)}, {OptIn, Provider, at(2)}}, OptedOut, ReasonOptedOut},
		{"the recipient lifts the provider's evidence", []Change{{OptOut, Provider, at(1)}, {OptIn, Recipient, at(2)}}, OptedIn, OK},
		{"an admin undoes an admin", []Change{{OptOut, Admin, at(1)}, {OptIn, Admin, at(2)}}, OptedIn, OK},
		{"the CRM undoes an admin", []Change{{OptOut, Admin, at(1)}, {OptIn, CRM, at(2)}}, OptedIn, OK},
		{"an admin undoes the CRM", []Change{{OptOut, CRM, at(1)}, {OptIn, Admin, at(2)}}, OptedIn, OK},
		{"an undo is nobody's consent", []Change{{OptOut, Admin, at(1)}, {Undo, Admin, at(2)}}, Unknown, OK},
		{"an undo brings back what was before", []Change{{OptIn, API, at(1)}, {OptOut, CRM, at(2)}, {Undo, CRM, at(3)}}, OptedIn, OK},
		{"an undo leaves the question open", []Change{{Hold, Recipient, at(1)}, {OptOut, Admin, at(2)}, {Undo, Admin, at(3)}}, Held, HeldForReview},
		{"an undo does not lift the recipient's STOP", []Change{{OptOut, Recipient, at(1)}, {OptOut, Admin, at(2)}, {Undo, Admin, at(3)}}, OptedOut, ReasonOptedOut},
		{"nor the provider's evidence", []Change{{OptOut, Provider, at(1)}, {Undo, API, at(2)}}, OptedOut, ReasonOptedOut},
		{"nobody undoes in the recipient's name", []Change{{OptOut, Admin, at(1)}, {Undo, Recipient, at(2)}}, OptedOut, ReasonOptedOut},
		{"an undo of the same moment loses", []Change{{OptOut, Admin, at(1)}, {Undo, Admin, at(1)}}, OptedOut, ReasonOptedOut},
		{"at the same moment the opt-out wins", []Change{{OptOut, CRM, at(1)}, {OptIn, CRM, at(1)}}, OptedOut, CRMOptOut},
		{"the recipient's later START lifts an admin's", []Change{{OptOut, Admin, at(1)}, {OptIn, Recipient, at(2)}}, OptedIn, OK},
		{"the CRM's is named so", []Change{{OptOut, CRM, at(1)}}, OptedOut, CRMOptOut},
		{"the CRM's and an admin's of the same moment", []Change{{OptOut, CRM, at(1)}, {OptOut, Admin, at(1)}}, OptedOut, ReasonOptedOut},
		{"the recipient's outranks the CRM's", []Change{{OptOut, CRM, at(2)}, {OptOut, Recipient, at(1)}}, OptedOut, ReasonOptedOut},
		{"an undo does not lift a STOP that hides behind it", []Change{{OptOut, Recipient, at(1)}, {OptOut, CRM, at(2)}, {OptIn, CRM, at(3)}}, OptedOut, ReasonOptedOut},
		{"an unclear reply holds", []Change{{Hold, Recipient, at(1)}}, Held, HeldForReview},
		{"a person releases it", []Change{{Hold, Recipient, at(1)}, {Release, Admin, at(2)}}, Unknown, OK},
		{"released at the same moment it holds", []Change{{Hold, Recipient, at(1)}, {Release, Admin, at(1)}}, Held, HeldForReview},
		{"the next unclear reply holds again", []Change{{Hold, Recipient, at(1)}, {Release, Admin, at(2)}, {Hold, Recipient, at(3)}}, Held, HeldForReview},
		{"a recorded consent does not release", []Change{{Hold, Recipient, at(1)}, {OptIn, Admin, at(2)}}, Held, HeldForReview},
		{"a START releases", []Change{{Hold, Recipient, at(1)}, {OptIn, Recipient, at(2)}}, OptedIn, OK},
		{"a question is pending", []Change{{Ask, API, at(1)}}, Pending, OK},
		{"and answered", []Change{{Ask, API, at(1)}, {OptIn, Recipient, at(2)}}, OptedIn, OK},
	} {
		f := fold(Facts{}, c.do...)
		if f.State() != c.want {
			t.Errorf("%s: state %v, want %v", c.name, f.State(), c.want)
		}
		if d := (Policy{}).Decide(f); d.Reason != c.by {
			t.Errorf("%s: reason %q, want %q", c.name, d.Reason, c.by)
		}
	}
}

func TestConsentCanBeRequired(t *testing.T) {
	for s, want := range map[State]Decision{
		Unknown:   {Block, ConsentRequired},
		Pending:   {Block, ConsentRequired},
		OptedIn:   {Allow, OK},
		Held:      {Queue, HeldForReview},
		OptedOut:  {Block, ReasonOptedOut},
		State(99): {Block, Unavailable},
	} {
		if got := (Policy{RequireOptIn: true}).DecideState(s, false); got != want {
			t.Errorf("%v: %+v, want %+v", s, got, want)
		}
	}
	if got := (Policy{}).DecideState(State(99), false); got.Verdict != Block {
		t.Errorf("a state that nobody knows: %+v", got)
	}
}

func TestAStateThatCannotBeReadIsAnOptOut(t *testing.T) {
	for s := Unknown; s <= OptedOut; s++ {
		b, _ := s.MarshalText()
		got := State(99)
		if err := got.UnmarshalText(b); err != nil || got != s {
			t.Errorf("%v reads back as %v, %v", s, got, err)
		}
	}
	for _, text := range []string{"", "invalid", "OPTED_IN", "opted_in "} {
		s := OptedIn
		if err := s.UnmarshalText([]byte(text)); err != nil || s != OptedOut {
			t.Errorf("%q reads as %v, %v", text, s, err)
		}
	}
}

func TestStrictness(t *testing.T) {
	order := []Verdict{Allow, Later, Queue, Block}
	for i, v := range order[1:] {
		if v.Strictness() <= order[i].Strictness() {
			t.Errorf("%q is not stricter than %q", v, order[i])
		}
	}
	if Verdict("").Strictness() < Block.Strictness() {
		t.Error("no verdict counts as permission")
	}
}

func TestUnknownWordsAreTold(t *testing.T) {
	for _, a := range actions {
		for _, s := range sources {
			if !(Change{a, s, noon}).Known() {
				t.Errorf("%s by %s is not known", a, s)
			}
		}
	}
	for _, c := range []Change{{"optout", Admin, noon}, {OptOut, "nobody", noon}, {}} {
		if c.Known() {
			t.Errorf("%+v is known", c)
		}
	}
}

func ExampleFacts_Apply() {
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	var f Facts
	f = f.Apply(Change{OptOut, Recipient, noon})
	f = f.Apply(Change{OptIn, Admin, noon.Add(time.Hour)}) // not the admin's to lift
	fmt.Println(f.State(), Policy{}.Decide(f).Reason)
	f = f.Apply(Change{OptIn, Recipient, noon.Add(2 * time.Hour)})
	fmt.Println(f.State(), Policy{}.Decide(f).Reason)
	// Output:
	// opted_out opted_out
	// opted_in ok
}
