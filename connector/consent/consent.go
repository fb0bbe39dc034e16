// Package consent decides what a number's history means: whether it may be texted, and why not.
//
// It is a leaf and pure: no I/O, no clock, no knowledge of providers, CRMs or storage. What a reply means is
// package reply; here a reply has already become a [Change].
//
// # How a state comes about
//
// [Facts] keeps, for each kind of event, the latest time at which it happened. Taking the later of two times is
// commutative, associative and idempotent, so any repetition and any order of the same changes gives the same
// facts, and [Facts.State] only compares them. Ties and doubts go to the opt-out.
//
// The recipient's STOP is lifted by a later START of the recipient and by nothing else (promise 4). An opt-out that
// an admin or the CRM made is lifted by a later undo of an admin or the CRM, and by the recipient's later START.
package consent

import "time"

// State is what heed knows of a number's consent.
type State uint8

const (
	Unknown  State = iota // nothing was ever said; the default policy allows
	Pending               // a double opt-in was asked and not yet answered
	OptedIn               // the recipient's START, or consent recorded by an admin or the CRM
	Held                  // an unclear reply that may be a request to stop; blocked until a person decides
	OptedOut              // must not be texted
)

var stateNames = [...]string{"unknown", "pending", "opted_in", "held", "opted_out"}

// String returns the name used in the API, the page, the reports and the logs.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "invalid"
}

// MarshalText returns String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what String wrote. Any other text is read as OptedOut: a state that cannot be read must not
// become permission to send.
func (s *State) UnmarshalText(b []byte) error {
	*s = OptedOut
	for i, n := range stateNames {
		if n == string(b) {
			*s = State(i)
		}
	}
	return nil
}

// Source says on whose word a change rests. It decides who may undo it.
type Source string

const (
	Recipient Source = "recipient" // the phone itself: a reply, or the provider's flag for it
	Provider  Source = "provider"  // the provider's evidence of the recipient's STOP: its opt-out list, Twilio error 21610
	CRM       Source = "crm"       // somebody ticked or unticked the box in the CRM
	Admin     Source = "admin"     // a person at heed's command line or page
	API       Source = "api"       // a program with heed's key
	Deadline  Source = "deadline"  // a hold that nobody resolved in time
)

// Sticky reports whether an opt-out from this source can be lifted only by the recipient (promise 4).
func (s Source) Sticky() bool { return s == Recipient || s == Provider || s == Deadline }

// Action is what a change does.
type Action string

const (
	OptOut  Action = "opt_out"
	OptIn   Action = "opt_in"
	Hold    Action = "hold"    // block until a person decides or the deadline passes
	Release Action = "release" // a person decided that a hold was not a request to stop
	Ask     Action = "ask"     // a double opt-in was asked
	Undo    Action = "undo"    // an opt-out that was made by hand is taken back; what was before it counts again
)

// Change is one thing that happened to a number's consent.
type Change struct {
	Action Action    `json:"action"`
	Source Source    `json:"source"`
	At     time.Time `json:"at"` // when it happened, by the clock of whoever saw it first
}

// Known reports whether the action and the source are among those above. A change that is not has no effect, so it
// must not be acknowledged.
func (c Change) Known() bool {
	switch c.Action {
	case OptOut, OptIn, Hold, Release, Ask, Undo:
	default:
		return false
	}
	switch c.Source {
	case Recipient, Provider, CRM, Admin, API, Deadline:
		return true
	}
	return false
}

// Facts are the latest times of each kind of change, all that the state depends on. The zero value means nothing
// is known. Times have millisecond precision, UTC.
type Facts struct {
	StopAt    time.Time // the recipient's latest opt-out (sources Recipient, Provider, Deadline)
	StartAt   time.Time // the recipient's latest START
	OutAt     time.Time // the latest opt-out made by an admin, the API or the CRM
	InAt      time.Time // the latest consent recorded by an admin or the API, for example from a form
	HeldAt    time.Time // the latest unclear reply
	ReleaseAt time.Time // the latest release of a hold
	AskedAt   time.Time // the latest double opt-in question
	UndoneAt  time.Time // the latest undo by an admin, the API or the CRM. It is nobody's consent
	OutByCRM  bool      // OutAt was the CRM's word: the reason becomes crm_opt_out
}

// Apply folds one change into the facts and returns the result. The order of calls does not matter.
func (f Facts) Apply(c Change) Facts {
	at := c.At.UTC().Truncate(time.Millisecond)
	switch {
	case c.Action == OptOut && c.Source.Sticky():
		f.StopAt = later(f.StopAt, at)
	case c.Action == OptOut:
		// Equal times: an admin's word outranks the CRM's, whichever came first.
		if at.After(f.OutAt) {
			f.OutAt, f.OutByCRM = at, c.Source == CRM
		} else if at.Equal(f.OutAt) && c.Source != CRM {
			f.OutByCRM = false
		}
	case c.Action == OptIn && c.Source == Recipient:
		f.StartAt = later(f.StartAt, at)
	case c.Action == OptIn && !c.Source.Sticky():
		f.InAt = later(f.InAt, at)
	case c.Action == Hold:
		f.HeldAt = later(f.HeldAt, at)
	case c.Action == Release:
		f.ReleaseAt = later(f.ReleaseAt, at)
	case c.Action == Ask:
		f.AskedAt = later(f.AskedAt, at)
	case c.Action == Undo && !c.Source.Sticky():
		f.UndoneAt = later(f.UndoneAt, at)
	}
	return f
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Stopped reports whether the recipient's own STOP is in force, which only the recipient can lift.
func (f Facts) Stopped() bool { return set(f.StopAt) && !f.StartAt.After(f.StopAt) }

// ClosedByHand reports whether an opt-out by an admin, the API or the CRM is in force.
func (f Facts) ClosedByHand() bool {
	return set(f.OutAt) && !f.StartAt.After(f.OutAt) && !f.InAt.After(f.OutAt) && !f.UndoneAt.After(f.OutAt)
}

// State returns what the facts amount to.
func (f Facts) State() State {
	switch {
	case f.Stopped(), f.ClosedByHand():
		return OptedOut
	case set(f.HeldAt) && !f.ReleaseAt.After(f.HeldAt) && !f.StartAt.After(f.HeldAt):
		return Held
	case set(f.AskedAt) && f.AskedAt.After(f.StartAt) && f.AskedAt.After(f.InAt):
		return Pending
	case set(f.StartAt), set(f.InAt):
		return OptedIn
	}
	return Unknown
}

func set(t time.Time) bool { return !t.IsZero() }

// CanUndo reports whether source may lift the opt-out that is in force: always the recipient; an admin, the API or
// the CRM only where the recipient's own STOP is not in force.
func (f Facts) CanUndo(source Source) bool { return source == Recipient || !f.Stopped() }

// Verdict is the gate's word on one send.
type Verdict string

const (
	Allow Verdict = "allow"
	Block Verdict = "block"
	Queue Verdict = "hold"  // kept back for a person's decision
	Later Verdict = "later" // allowed at another time
)

// Strictness orders verdicts: of two, the one with the higher number keeps back more. A word that is no verdict is as
// strict as Block.
func (v Verdict) Strictness() int {
	switch v {
	case Allow:
		return 0
	case Later:
		return 1
	case Queue:
		return 2
	}
	return 3
}

// Reason says why. The same words appear in the API, the page, the reports and the logs.
type Reason string

const (
	OK              Reason = "ok"
	ReasonOptedOut  Reason = "opted_out"
	CRMOptOut       Reason = "crm_opt_out"
	HeldForReview   Reason = "held_for_review"
	ConsentRequired Reason = "consent_required"
	InvalidNumber   Reason = "invalid_number"
	QuietHours      Reason = "quiet_hours"
	Unavailable     Reason = "unavailable"
)

// Decision is a verdict and its reason.
type Decision struct {
	Verdict Verdict `json:"decision"`
	Reason  Reason  `json:"reason"`
}

// Policy is what the operator chose.
type Policy struct {
	RequireOptIn bool // block everything that is not OptedIn
	// Shadow decides and tells the reason, but lets everything pass that the ledger can vouch for: the verdict is always
	// Allow, and a reason other than OK says what would have been refused.
	Shadow bool
}

// Decide returns the gate's decision for a number with these facts.
func (p Policy) Decide(f Facts) Decision { return p.DecideState(f.State(), f.ByCRM()) }

// ByCRM reports whether the only opt-out in force is the CRM's, which names the reason crm_opt_out.
func (f Facts) ByCRM() bool { return !f.Stopped() && f.ClosedByHand() && f.OutByCRM }

// DecideState is Decide on the two bits that an index keeps in memory. An unknown state blocks.
func (p Policy) DecideState(s State, byCRM bool) Decision {
	return p.Apply(p.decide(s, byCRM))
}

// Apply turns a refusal into what the policy makes of it: in shadow mode an Allow that keeps its reason. What is refused
// because heed does not know, or because there is no number, stays refused.
func (p Policy) Apply(d Decision) Decision {
	if p.Shadow && d.Reason != Unavailable && d.Reason != InvalidNumber {
		d.Verdict = Allow
	}
	return d
}

func (p Policy) decide(s State, byCRM bool) Decision {
	switch s {
	case OptedOut:
		if byCRM {
			return Decision{Block, CRMOptOut}
		}
		return Decision{Block, ReasonOptedOut}
	case Held:
		return Decision{Queue, HeldForReview}
	case OptedIn:
		return Decision{Allow, OK}
	case Unknown, Pending:
		if p.RequireOptIn {
			return Decision{Block, ConsentRequired}
		}
		return Decision{Allow, OK}
	}
	return Decision{Block, Unavailable}
}
