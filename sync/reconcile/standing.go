package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// A difference that heed leaves alone is no correction: nothing is planned for it, and the same one would be planned again
// every night. It stands. Each full read counts all that stand; a report lists those that changed since the full report
// before, and some of the others, so that neither memory nor the ledger grows with them.

// leftAlone is the result of a correction that only tells.
const leftAlone = "left"

const (
	// maxListed bounds the standing differences of one cause that a report lists.
	maxListed = 500
	// maxOld bounds how many are listed if they did not change since the full read before.
	maxOld = 10
	// slack is taken off the time of that read: clocks differ.
	slack = time.Hour
)

// leaveAlone counts the records of a page whose difference stands. Only a full read sees all that stand.
func (p *pass) leaveAlone(s *source, live []read) {
	if s.scan == nil {
		return
	}
	for i := range live {
		r := &live[i]
		cause := stands(len(r.numbers), r.bad, r.OptedOut)
		if cause == "" {
			continue
		}
		l := ledger.Left{CRM: s.Name, Record: &r.Key, By: r.ModifiedBy.String(), At: r.ModifiedAt}
		s.standing = leave(s.standing, cause, l, s.read.Add(-slack), func() string { return p.unreadable(r) })
	}
}

// unreadable says in a sentence what is wrong with a record's numbers. It carries nothing of what is in the fields: it may
// be nearly a number.
func (p *pass) unreadable(r *read) string {
	var fields []string
	for _, f := range r.Phones {
		if _, err := phone.Parse(f.Raw, p.Region); err != nil {
			why := strings.Replace(err.Error(), phone.ErrInvalid.Error(), "no telephone number", 1)
			fields = append(fields, f.Field+" is "+strings.TrimSuffix(why, ": the phone number supplied is not a number"))
		}
	}
	what := strings.Join(fields, "; ")
	switch {
	case !r.OptedOut:
		return what + "."
	case len(r.numbers) > 0:
		return "The box is ticked, and " + what + "."
	case what == "":
		return "The box is ticked, and the record has no telephone number."
	}
	return "The box is ticked, and the record has no readable number: " + what + "."
}

// leave adds a difference to those that stand. Those that changed since cut are kept in full, and a few others, the newest
// first. detail is called for them alone.
func leave(list []ledger.Standing, cause string, l ledger.Left, cut time.Time, detail func() string) []ledger.Standing {
	i := slices.IndexFunc(list, func(s ledger.Standing) bool { return s.Cause == cause })
	if i < 0 {
		i = len(list)
		list = append(list, ledger.Standing{Cause: cause})
	}
	s := &list[i]
	s.N++
	at, _ := slices.BinarySearchFunc(s.Listed, l, newestFirst)
	if at == maxListed || at >= maxOld && l.At.Before(cut) {
		return list
	}
	l.Detail = detail()
	if l.Record != nil {
		key := *l.Record // the page is not kept for it
		l.Record = &key
	}
	s.Listed = slices.Insert(s.Listed, at, l)
	fresh, _ := slices.BinarySearchFunc(s.Listed, cut, func(l ledger.Left, cut time.Time) int { return cut.Compare(l.At) })
	s.Listed = s.Listed[:min(len(s.Listed), maxListed, max(fresh, maxOld))]
	return list
}

func newestFirst(a, b ledger.Left) int {
	key := func(l ledger.Left) crm.Key {
		if l.Record == nil {
			return crm.Key{}
		}
		return *l.Record
	}
	return cmp.Or(b.At.Compare(a.At), strings.Compare(a.CRM, b.CRM), compareKeys(key(a), key(b)),
		cmp.Compare(a.Number.Uint64(), b.Number.Uint64()), strings.Compare(a.Text, b.Text))
}

// join puts together what stands in several CRMs.
func join(list, more []ledger.Standing) []ledger.Standing {
	list = slices.Clone(list)
	for _, m := range more {
		i := slices.IndexFunc(list, func(s ledger.Standing) bool { return s.Cause == m.Cause })
		if i < 0 {
			list = append(list, m)
			continue
		}
		listed := slices.Concat(list[i].Listed, m.Listed)
		slices.SortFunc(listed, newestFirst)
		list[i].N, list[i].Listed = list[i].N+m.N, listed[:min(len(listed), maxListed)]
	}
	return list
}

// stands sums up at the end of a pass what is left alone: what the CRMs were found to have, what they refuse, and in
// reports with figures the numbers that several people share.
func (p *pass) stands(ctx context.Context) error {
	before := ledger.Pass{}
	for b, err := range p.Ledger.Reports(ctx) {
		if err != nil {
			return err
		}
		if b.Full && !b.FinishedAt.IsZero() && b.Error == "" && b.ID != p.pass.ID {
			before = b
			break
		}
	}
	for o, err := range p.Ledger.Owed(ctx) {
		if err != nil {
			return err
		}
		if o.Parked == nil {
			continue
		}
		l := ledger.Left{Number: o.Number, At: o.Parked.At, Text: o.Parked.Text}
		p.pass.Standing = leave(p.pass.Standing, WriteRejected, l, before.StartedAt, func() string { return rejected(o) })
	}
	slices.SortFunc(p.pass.Standing, func(a, b ledger.Standing) int { return rankOf(a.Cause) - rankOf(b.Cause) })
	for i := range p.pass.Standing {
		s := &p.pass.Standing[i]
		if before.ID == "" || !p.pass.Full || p.pass.Error != "" || s.Cause == SharedNumber {
			continue
		}
		n := 0
		for _, b := range before.Standing {
			if b.Cause == s.Cause {
				n = b.N
			}
		}
		s.Before = &n
	}
	return nil
}

func rejected(o ledger.Owed) string {
	n := o.Number.Masked()
	switch o.Kind {
	case ledger.OweBoxes:
		return "The box of " + n + " could not be set. Sends to it are decided by the ledger all the same."
	case ledger.OweTell:
		return "The provider's own list could not be told of " + n + "."
	case ledger.OweNote:
		return "The outcome of a send could not be left on the record of " + n + "."
	}
	return "Work that is owed for " + n + " was refused."
}

// rankOf is a cause's place in a report.
func rankOf(cause string) int {
	i := slices.IndexFunc(Causes, func(c Cause) bool { return c.Name == cause })
	if i < 0 {
		return len(Causes)
	}
	return i
}

// share notices that an opt-out ticked boxes of a number that several records of one sort have. The records are those
// that the mirror knows now.
func (t *tally) share(ctx context.Context, e ledger.Event) error {
	w := e.Written
	if w == nil || !w.Want || t.shared[e.Number] || !slices.ContainsFunc(w.Results, func(r ledger.WriteResult) bool { return r.Class == "" }) {
		return nil
	}
	for _, name := range t.crms {
		records, err := t.ledger.Mirror(name).ByNumber(ctx, e.Number)
		if err != nil {
			return err
		}
		keys := make([]crm.Key, len(records))
		for i, r := range records {
			keys[i] = r.Key
		}
		what, ok := sharedBy(keys)
		if !ok {
			continue
		}
		if t.shared == nil {
			t.shared = map[phone.Number]bool{}
		}
		t.shared[e.Number] = true
		l := ledger.Left{CRM: name, Number: e.Number, At: e.At}
		t.standing = leave(t.standing, SharedNumber, l, time.Time{}, func() string {
			return fmt.Sprintf("%s is on %s. Its opt-out ticked them all.", e.Number.Masked(), what)
		})
		return nil
	}
	return nil
}

// noteHeld tells of the replies that wait for a person's decision.
func (p *pass) noteHeld(n int) {
	if n > 0 {
		p.pass.Notes = append(p.pass.Notes, fmt.Sprintf("Unclear replies that wait for a person: %d. Sends to their numbers are held meanwhile, and what nobody decides becomes an opt-out (heed holds list).", n))
	}
}
