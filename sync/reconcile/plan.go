package reconcile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// Actions of a correction.
const (
	tick   = "tick"
	untick = "untick"
	optOut = "opt_out"
	optIn  = "opt_in"
	hold   = "hold"
	none   = "none"
)

// num is a number of a record with what the ledger knows of it.
type num struct {
	ledger.Number
	owed bool // box writes are waiting for it
}

func (n num) out() bool { return n.Facts.State() == consent.OptedOut }

// lifted is when an opt-out of the number was last lifted, the zero time if never.
func (n num) lifted() time.Time { return later(n.Facts.StartAt, later(n.Facts.InAt, n.Facts.UndoneAt)) }

// change is what a record's box calls for.
type change struct {
	cause  string
	action string
	// numbers: for tick and untick one number under which the write is owed; else those whose consent changes.
	numbers []phone.Number
	at      time.Time // when their consent changed
	from    string    // for Merged and Converted: the id of the record before
}

// plan compares a live record as it was just read with what heed knew of it (nil: nothing) and with its numbers'
// consent. ok is false if there is nothing to do. via says that the record is known to have taken over from another one
// by merging or converting, "" otherwise. The read began at seenAt, by heed's clock.
func plan(old *ledger.MirrorRecord, rec crm.Record, seenAt time.Time, numbers []num, via string) (_ change, ok bool) {
	if len(numbers) == 0 || old != nil && old.Stale(seenAt) {
		return change{}, false // no number to speak for; or the box may be from before heed's own write
	}
	var out []num
	for _, n := range numbers {
		if n.out() {
			out = append(out, n)
		}
	}
	switch {
	case len(out) > 0 && !rec.OptedOut:
		return planTick(old, rec, seenAt, out, via)
	case len(out) == 0 && rec.OptedOut:
		return planTicked(old, rec, seenAt, numbers)
	}
	return change{}, false
}

// planTick is for a box that should be ticked and is not.
func planTick(old *ledger.MirrorRecord, rec crm.Record, seenAt time.Time, out []num, via string) (change, bool) {
	c := change{cause: BoxNotTicked, action: tick, numbers: []phone.Number{out[0].Number.Number}}
	isNew := func(n num) bool { return !slices.Contains(old.Numbers, n.Number.Number) }
	switch {
	case old == nil:
		c.cause = LateRecord
	case old.OptedOut && rec.ModifiedBy.Kind == crm.Self:
		c.cause = UntickedByHeed
	case old.OptedOut:
		c.cause = Unticked
		// An opt-out that was made by hand can be undone by hand, if it is older than the undoing.
		at := changedAt(rec, seenAt)
		stands := func(n num) bool { return n.Facts.Stopped() || !at.After(n.Facts.OutAt) }
		if via == "" && !slices.ContainsFunc(out, stands) {
			return change{cause: UndoneInCRM, action: optIn, numbers: list(out), at: at}, true
		}
	// Waiting work that leads here from the number, and that does not think that the box is ticked already, will tick
	// it: the box is on its way. (If the mirror does not lead here yet, the work may be done without this record.)
	case slices.ContainsFunc(out, func(n num) bool { return n.owed && !isNew(n) }):
		return change{}, false
	case slices.ContainsFunc(out, isNew):
		c.cause = NumberChanged
	}
	if via != "" && c.cause != UntickedByHeed {
		c.cause = via
	}
	return c, true
}

// importSize is how many records, read together, one user must have changed within a minute for it to be called an import.
const importSize = 20

// who refines the cause of a box that somebody unticked: a person, a program, or an import. together is how many records
// the same user changed in the same minute, as far as they were read together.
func who(cause string, by crm.Actor, together int) string {
	switch {
	case cause != Unticked:
		return cause
	case together >= importSize:
		return ByImport
	case by.Kind == crm.Integration:
		return ByIntegration
	}
	return cause
}

// planTicked is for a ticked box of numbers that are not opted out. In doubt the box is right.
func planTicked(old *ledger.MirrorRecord, rec crm.Record, seenAt time.Time, numbers []num) (change, bool) {
	at := changedAt(rec, seenAt)
	if old == nil || !old.OptedOut {
		// It was ticked since heed last looked, whatever the record's own date says: imports may set that.
		if old != nil {
			at = earlier(seenAt, later(at, later(old.SeenAt, old.WroteAt))).Truncate(time.Millisecond)
		}
		return obey(TickedInCRM, numbers, at)
	}
	var added []num
	for _, n := range numbers {
		if !slices.Contains(old.Numbers, n.Number.Number) {
			added = append(added, n)
		}
	}
	switch {
	case len(added) > 0:
		return obey(NumberChanged, added, at)
	case slices.ContainsFunc(numbers, func(n num) bool { return n.owed }):
		return change{}, false // the tick is on its way out
	}
	// Box and numbers are as they were, so the tick was in order once, and what made it so was lifted.
	latest := slices.MaxFunc(numbers, func(a, b num) int { return a.lifted().Compare(b.lifted()) })
	if !latest.lifted().IsZero() {
		return release(latest), true
	}
	return obey(TickedInCRM, numbers, at)
}

// stands returns the cause of a record's difference that heed leaves alone, "" if it has none: how many of its phone fields
// are numbers, how many are not, and whether its box is ticked.
func stands(numbers, unreadable int, ticked bool) string {
	switch {
	case ticked && numbers == 0:
		return CRMOnly
	case unreadable > 0:
		return NumberUnreadable
	}
	return ""
}

// sharedBy says what the records of one number are, if several of them are of one object. heed cannot know whether they are
// one person twice; a contact and a lead most likely are.
func sharedBy(keys []crm.Key) (what string, ok bool) {
	objects := map[string]int{}
	for _, k := range keys {
		objects[k.Object]++
		ok = ok || objects[k.Object] > 1
	}
	var parts []string
	for _, object := range slices.Sorted(maps.Keys(objects)) {
		parts = append(parts, fmt.Sprintf("%d %s", objects[object], object))
	}
	return strings.Join(parts, " and ") + " records", ok
}

// obey takes a box that was ticked at a time for the word of the person on the record: those of the numbers are opted
// out that were not given free since. If all of them were, the box is out of date.
func obey(cause string, numbers []num, at time.Time) (change, bool) {
	var speak []num
	for _, n := range numbers {
		if !n.lifted().After(at) {
			speak = append(speak, n)
		}
	}
	if len(speak) == 0 {
		return release(slices.MaxFunc(numbers, func(a, b num) int { return a.lifted().Compare(b.lifted()) })), true
	}
	return change{cause: cause, action: optOut, numbers: list(speak), at: at}, true
}

func release(n num) change {
	c := change{cause: LiftedByStart, action: untick, numbers: []phone.Number{n.Number.Number}}
	if n.lifted().After(n.Facts.StartAt) {
		c.cause = LiftedByHand
	}
	return c
}

// changedAt is when the record's box was last changed, at the latest: the CRM keeps no date of the box alone. It is not
// in the future, whatever the CRM's clock says.
func changedAt(rec crm.Record, seenAt time.Time) time.Time {
	at := rec.ModifiedAt
	if at.IsZero() {
		at = rec.Stamp
	}
	if at.IsZero() {
		at = seenAt
	}
	return earlier(at, seenAt).Truncate(time.Millisecond) // as consent.Facts have it
}

func list(nums []num) []phone.Number {
	out := make([]phone.Number, len(nums))
	for i, n := range nums {
		out[i] = n.Number.Number
	}
	return out
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
