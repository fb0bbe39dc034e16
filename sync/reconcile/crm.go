package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// source is a CRM that is being read.
type source struct {
	CRM
	mirror ledger.Mirror
	sweep  uint64          // number of the full read in progress, 0 if none is
	counts map[string]int  // what was counted while reading it
	via    map[string]took // by id: records that took over from others
	pages  int

	// Pages with one AsOf are parts of one answer, and as old as the first of them.
	asOf   time.Time
	seenAt time.Time
}

// took says how a record took over from another one: Merged or Converted.
type took struct{ how, from string }

// scan is the checkpoint of a full read that has not ended.
type scan struct {
	Pass    string         `json:"pass"`
	Sweep   uint64         `json:"sweep"`
	After   crm.Key        `json:"after"`
	AsOf    time.Time      `json:"as_of"`   // of its first page: where the reading of changes goes on afterwards
	Started time.Time      `json:"started"` // by heed's clock
	PageOf  time.Time      `json:"page_of"` // the latest page's AsOf, and since when, by heed's clock, it is as old as that:
	SeenAt  time.Time      `json:"seen_at"` // what is left of a CRM's answer does not become newer by an interruption
	Seen    int            `json:"seen"`    // records so far
	Counts  map[string]int `json:"counts,omitempty"`
}

// maxVia bounds how many merges and conversions are remembered within a pass, to name them as the cause.
const maxVia = 10_000

// crm compares a CRM with the ledger: what changed since the checkpoint, or everything.
func (p *pass) crm(ctx context.Context, c CRM) error {
	if slices.Contains(p.done, c.Name) {
		return nil // read in full before this pass was interrupted
	}
	s := &source{CRM: c, mirror: p.Ledger.Mirror(c.Name), counts: map[string]int{}, via: map[string]took{}}
	defer func() {
		for name, n := range s.counts {
			p.count(name, n)
		}
		if n := s.counts["ticked_without_number"]; n > 0 {
			p.pass.Notes = append(p.pass.Notes, fmt.Sprintf("%s: %d of the records read have the box ticked but no phone number that can be read. There is nothing to refuse sends to.", c.Name, n))
		}
	}()
	since, err := p.loadTime(ctx, "crm/"+c.Name)
	if err != nil {
		return err
	}
	if p.all || since.IsZero() {
		return p.everything(ctx, s)
	}
	var unfinished scan
	if _, err := p.load(ctx, "scan/"+c.Name, &unfinished); err != nil {
		return err
	}
	s.sweep = unfinished.Sweep // a record that is alive now must not be removed when that read is gone on with
	return p.changes(ctx, s, since)
}

// changes reads what changed since the checkpoint.
func (p *pass) changes(ctx context.Context, s *source, since time.Time) error {
	stage := "reading changes in " + s.Name
	p.progress(stage, 0, 0)
	asked := p.Now().UTC()
	var asOf time.Time
	for page, err := range s.Directory.Changed(ctx, since) {
		if err != nil {
			return fmt.Errorf("what changed in %s since %s could not be read in full: %w", s.Name, since.Format(time.RFC3339), err)
		}
		if s.pages == 0 {
			asOf = page.AsOf
		}
		if err := p.page(ctx, s, page, asked); err != nil {
			return err
		}
		p.progress(stage, s.counts["records_read"], page.Total)
		asked = p.Now().UTC()
	}
	if asOf.After(since) {
		return p.saveTime(ctx, "crm/"+s.Name, asOf)
	}
	return nil
}

// everything reads the whole CRM, or the rest of it if an earlier read was interrupted, and then removes from the mirror
// what was not there any more.
func (p *pass) everything(ctx context.Context, s *source) error {
	p.pass.Full = true
	cursor := "scan/" + s.Name
	var at scan
	resumed, err := p.load(ctx, cursor, &at)
	if err != nil {
		return err
	}
	now := p.Now().UTC()
	resumed = resumed && !p.opts.DryRun && now.Sub(at.Started).Abs() <= goOn
	switch {
	case !resumed:
		at = scan{Pass: p.pass.ID, Sweep: max(uint64(max(now.UnixMilli(), 0)), at.Sweep+1), Started: now}
	case at.Pass == p.pass.ID:
		maps.Copy(s.counts, at.Counts)
	}
	at.Pass, s.sweep = p.pass.ID, at.Sweep
	s.asOf, s.seenAt = at.PageOf, at.SeenAt
	// That a CRM is read in full is worth a report, even if everything is in order.
	if err := p.record(ctx); err != nil {
		return err
	}
	stage := "reading all of " + s.Name
	p.progress(stage, s.counts["records_read"], 0)
	asked := now
	for page, err := range s.Directory.Scan(ctx, at.After) {
		if err != nil {
			if resumed && s.pages == 0 && crm.ClassOf(err) == crm.Bug && ctx.Err() == nil {
				// The configuration changed meanwhile. The next full read starts from the beginning.
				err = errors.Join(err, p.Ledger.SetCursor(ctx, cursor, ""))
			}
			return fmt.Errorf("%s could not be read in full (%d records were): %w", s.Name, s.counts["records_read"], err)
		}
		if at.AsOf.IsZero() {
			at.AsOf = page.AsOf
		}
		if err := p.page(ctx, s, page, asked); err != nil {
			return err
		}
		p.progress(stage, s.counts["records_read"], page.Total)
		at.After, at.Counts, at.Seen = page.Next, s.counts, at.Seen+len(page.Records)
		at.PageOf, at.SeenAt = s.asOf, s.seenAt
		if err := p.save(ctx, cursor, at); err != nil {
			return err
		}
		asked = p.Now().UTC()
	}
	if err := p.removeUnseen(ctx, s, at.Seen); err != nil {
		return err
	}
	if at.AsOf.IsZero() {
		// The CRM did not tell its time. An hour makes up for any difference of clocks that a login survives.
		at.AsOf = at.Started.Add(-time.Hour)
	}
	if p.opts.DryRun {
		return nil
	}
	if err := p.saveTime(ctx, "crm/"+s.Name, at.AsOf); err != nil {
		return err
	}
	p.done = append(p.done, s.Name)
	before := p.pass.Counts
	p.pass.Counts = maps.Clone(before)
	for name, n := range s.counts {
		p.count(name, n)
	}
	err = p.mark(ctx)
	p.pass.Counts = before
	if err != nil {
		return err
	}
	return p.Ledger.SetCursor(ctx, cursor, "")
}

// read is a record of a page, with its numbers.
type read struct {
	crm.Record
	numbers []phone.Number
	bad     int // phone fields that are no number
}

// page plans a page's corrections and applies them: first the ledger, then the mirror. Should it end between the two,
// the same page is planned again from the same mirror, and finds its corrections recorded and their work owed or done.
//
// Before it asks the ledger, the mirror must lead from each number to each record of the page: an opt-out that comes
// later then finds the record by itself, and one that came before is seen by the plan. So no opt-out falls between.
func (p *pass) page(ctx context.Context, s *source, page crm.Page, asked time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.pages++
	if page.AsOf.IsZero() || !page.AsOf.Equal(s.asOf) {
		s.asOf, s.seenAt = page.AsOf, asked
	}
	if len(page.Records) > 0 { // what is left after an interruption may be an empty page
		s.counts["pages"]++
		s.counts["records_read"] += len(page.Records)
	}

	// The last of several versions of a record counts.
	last := make(map[crm.Key]int, len(page.Records))
	for i, rec := range page.Records {
		last[rec.Key] = i
		if len(s.via) < maxVia {
			if rec.MergedInto != "" {
				s.via[rec.MergedInto] = took{Merged, rec.ID}
			}
			if rec.Converted != nil && rec.Converted.ID != "" {
				s.via[rec.Converted.ID] = took{Converted, rec.ID}
			}
		}
	}
	var gone []crm.Key
	var live []read
	keys := make([]crm.Key, 0, len(last))
	for i, rec := range page.Records {
		switch {
		case last[rec.Key] != i:
		case rec.Deleted || rec.Converted != nil:
			gone = append(gone, rec.Key) // who took over is read by its own stamp
		default:
			live = append(live, p.parse(s, rec))
			keys = append(keys, rec.Key)
		}
	}
	known, err := s.mirror.Get(ctx, keys)
	if err != nil {
		return err
	}
	olds := make(map[crm.Key]*ledger.MirrorRecord, len(known))
	for i := range known {
		if !known[i].Stamp.IsZero() { // else a page that was interrupted has only announced it
			olds[known[i].Key] = &known[i]
		}
	}
	if err := p.announce(ctx, s, live, olds); err != nil {
		return err
	}
	findings, err := p.compare(ctx, s, live, olds)
	if err != nil {
		return err
	}
	if err := p.note(ctx, findings...); err != nil {
		return err
	}
	if p.opts.DryRun {
		return nil
	}
	puts := make([]ledger.MirrorRecord, len(live))
	for i, r := range live {
		puts[i] = ledger.MirrorRecord{Key: r.Key, Numbers: r.numbers, Unparsed: r.bad, OptedOut: r.OptedOut, Stamp: r.Stamp, SeenAt: s.seenAt, Sweep: s.sweep}
		// A full read that is gone on with later must know which records it has seen; one that has not begun must not
		// take an earlier one's number for its own.
		if old := olds[r.Key]; s.sweep == 0 && old != nil {
			puts[i].Sweep = old.Sweep
		}
	}
	if err := s.mirror.Put(ctx, puts); err != nil {
		return err
	}
	if len(gone) > 0 {
		s.counts["records_gone"] += len(gone)
		if err := s.mirror.Delete(ctx, gone); err != nil {
			return err
		}
	}
	// Consent may have changed since the page was planned, by a reply or by another record of this very page, and the
	// box writes that followed may be done already, without records to which the mirror did not lead from that number.
	// From here on it does; so what agreed before is looked at once more.
	planned := map[crm.Key]bool{}
	for _, f := range findings {
		planned[*f.correction.Correction.Record] = true
	}
	var unled []read
	for _, r := range live {
		old := olds[r.Key]
		led := old != nil && !slices.ContainsFunc(r.numbers, func(n phone.Number) bool { return !slices.Contains(old.Numbers, n) })
		if !led && !planned[r.Key] {
			unled = append(unled, r)
		}
	}
	if findings, err = p.compare(ctx, s, unled, olds); err != nil {
		return err
	}
	return p.note(ctx, findings...)
}

// announce makes the mirror lead to the page's records from numbers from which it does not yet, and leaves everything
// else that is known of them as it is. A record without a stamp is one that was announced and not yet compared.
func (p *pass) announce(ctx context.Context, s *source, live []read, olds map[crm.Key]*ledger.MirrorRecord) error {
	if p.opts.DryRun {
		return nil
	}
	var puts []ledger.MirrorRecord
	for _, r := range live {
		old := olds[r.Key]
		if old == nil {
			puts = append(puts, ledger.MirrorRecord{Key: r.Key, Numbers: r.numbers, Unparsed: r.bad, OptedOut: r.OptedOut, SeenAt: s.seenAt})
			continue
		}
		with := *old
		for _, n := range r.numbers {
			if !slices.Contains(with.Numbers, n) {
				with.Numbers = append(slices.Clip(with.Numbers), n)
			}
		}
		if len(with.Numbers) > len(old.Numbers) {
			puts = append(puts, with)
		}
	}
	return s.mirror.Put(ctx, puts)
}

func (p *pass) parse(s *source, rec crm.Record) read {
	r := read{Record: rec}
	for _, f := range rec.Phones {
		n, err := phone.Parse(f.Raw, p.Region)
		switch {
		case err != nil:
			r.bad++
		case !slices.Contains(r.numbers, n):
			r.numbers = append(r.numbers, n)
		}
	}
	if r.bad > 0 {
		s.counts["phones_unreadable"] += r.bad
	}
	if len(r.numbers) == 0 {
		s.counts["records_without_number"]++
		if rec.OptedOut {
			s.counts["ticked_without_number"]++
		}
	}
	return r
}

// compare plans the page. Nearly all records agree with the ledger, which memory tells; the others are looked up.
func (p *pass) compare(ctx context.Context, s *source, live []read, olds map[crm.Key]*ledger.MirrorRecord) ([]finding, error) {
	var differ []read
	waiting := map[phone.Number]bool{}
	for _, r := range live {
		out := slices.ContainsFunc(r.numbers, func(n phone.Number) bool { return p.Ledger.State(n) == consent.OptedOut })
		if len(r.numbers) > 0 && out != r.OptedOut {
			differ = append(differ, r)
			for _, n := range r.numbers {
				waiting[n] = false
			}
		}
	}
	if len(differ) == 0 {
		return nil, nil
	}
	for n := range waiting {
		owed, err := p.Ledger.OwedOf(ctx, n)
		if err != nil {
			return nil, err
		}
		waiting[n] = slices.ContainsFunc(owed, func(o ledger.Owed) bool { return o.Kind == ledger.OweBoxes })
	}
	p.askWho(ctx, s, differ, olds)
	together := map[burst]int{}
	for _, r := range live {
		together[burstOf(r.Record)]++
	}
	// Two records of one page can change the same number's consent; the second one sees what the first one did.
	facts := map[phone.Number]ledger.Number{}
	var findings []finding
	for _, r := range differ {
		numbers := make([]num, len(r.numbers))
		for i, n := range r.numbers {
			k, ok := facts[n]
			if !ok {
				var err error
				if k, err = p.Ledger.Number(ctx, n); err != nil {
					return nil, err
				}
				k.Number = n
				facts[n] = k
			}
			numbers[i] = num{k, waiting[n]}
		}
		from := s.via[r.ID]
		c, ok := plan(olds[r.Key], r.Record, s.seenAt, numbers, from.how)
		if !ok {
			continue
		}
		c.cause = who(c.cause, r.ModifiedBy, together[burstOf(r.Record)])
		if c.cause == from.how {
			c.from = from.from
		}
		f := p.finding(s, r, c, numbers)
		findings = append(findings, f)
		for _, e := range f.with {
			before := facts[e.Number]
			after, _ := ledger.ApplyNumber(before, e)
			after.Number = e.Number
			facts[e.Number] = after
			waiting[e.Number] = waiting[e.Number] || len(ledger.Owes(before, after, e)) > 0
		}
	}
	return findings, nil
}

// burst is a user's changes of one minute.
type burst struct {
	by     string
	minute int64
}

func burstOf(r crm.Record) burst {
	return burst{r.ModifiedBy.ID + "/" + r.ModifiedBy.Name, r.ModifiedAt.Unix() / 60}
}

// askWho finds out who changed the boxes that were unticked, where the CRM keeps a history of the field: whoever changed
// the record last may have changed something else. What it cannot find out stays as the record says.
func (p *pass) askWho(ctx context.Context, s *source, differ []read, olds map[crm.Key]*ledger.MirrorRecord) {
	h, ok := s.Directory.(crm.Historian)
	if !ok {
		return
	}
	var keys []crm.Key
	for _, r := range differ {
		if old := olds[r.Key]; old != nil && old.OptedOut && !r.OptedOut {
			keys = append(keys, r.Key)
		}
	}
	if len(keys) == 0 {
		return
	}
	changes, err := h.BoxChanges(ctx, keys)
	if err != nil {
		p.Log.Warn("the history of the box could not be read; the report names who last changed the record", "crm", s.Name, "error", err)
		return
	}
	for i := range differ {
		if c, ok := changes[differ[i].Key]; ok && !c.OptedOut {
			differ[i].ModifiedBy, differ[i].ModifiedAt = c.Actor, c.At
		}
	}
}

// finding turns a planned change into events. Their ids are the same when the same page is planned again by the same
// pass, and others in the next pass: a difference that is there again is put right again.
func (p *pass) finding(s *source, r read, c change, numbers []num) finding {
	id := eventID("fix", p.pass.ID, s.Name, r.Object, r.ID, fmt.Sprint(r.Stamp.UnixMilli()), c.cause)
	key := r.Key
	corr := ledger.Correction{
		Pass: p.pass.ID, CRM: s.Name, Record: &key, Cause: c.cause, Action: c.action, Result: "pending",
		Detail: detail(r, c, numbers), By: r.ModifiedBy.String(), ByAt: r.ModifiedAt,
	}
	f := finding{correction: ledger.Event{Kind: ledger.KindCorrection, ID: id, At: p.Now().UTC(), Number: c.numbers[0], Correction: &corr}}
	action := map[string]consent.Action{optOut: consent.OptOut, optIn: consent.OptIn}[c.action]
	if action == "" {
		return f // the box is to be written, which the correction makes owed
	}
	corr.Result = "done"
	for _, n := range c.numbers {
		f.with = append(f.with, ledger.Event{
			Kind: ledger.KindConsent, ID: eventID(id, n.String()), At: p.Now().UTC(), Number: n,
			Consent: &ledger.Consent{
				Change: consent.Change{Action: action, Source: consent.CRM, At: c.at},
				Actor:  r.ModifiedBy.String(), Why: corr.Detail, CRM: s.Name, Record: &key, Pass: p.pass.ID,
			},
		})
	}
	return f
}

// detail says in a sentence what was found. It carries no full number.
func detail(r read, c change, numbers []num) string {
	n := c.numbers[0].Masked()
	if more := len(c.numbers) - 1; more > 0 {
		n += fmt.Sprintf(" and %d more", more)
	}
	why := "opted out"
	for _, x := range numbers {
		if x.Number.Number != c.numbers[0] {
			continue
		}
		switch f := x.Facts; {
		case f.Stopped() && x.Keyword != "":
			why = "opted out by texting " + x.Keyword + " at " + clock(f.StopAt)
		case f.Stopped():
			why = "opted out at " + clock(f.StopAt)
		case f.ClosedByHand():
			why = "opted out by hand at " + clock(f.OutAt)
		case f.StartAt.After(f.InAt):
			why = "texted START at " + clock(f.StartAt)
		case !f.InAt.IsZero():
			why = "was opted in by hand at " + clock(f.InAt)
		}
	}
	switch c.action {
	case tick:
		if c.from != "" {
			return fmt.Sprintf("The box was not ticked, although %s %s. The record took over from %s.", n, why, c.from)
		}
		return fmt.Sprintf("The box was not ticked, although %s %s.", n, why)
	case untick:
		return fmt.Sprintf("The box was still ticked, although %s %s.", n, why)
	case optIn:
		return fmt.Sprintf("The box of %s was unticked; the opt-out had been made by hand, so this lifts it.", n)
	}
	if c.cause == NumberChanged {
		return fmt.Sprintf("%s was put on a record whose box is ticked.", n)
	}
	return fmt.Sprintf("The box of %s was ticked in the CRM.", n)
}

const (
	sweepBatch = 500
	// maxHidden bounds the corrections about records that one full read did not find.
	maxHidden = 1000
	// vanished: from this many records on, heed doubts itself rather than the CRM if more than half are gone at once.
	vanished = 100
)

// removeUnseen forgets the records that a full read did not come across: they were erased, or heed's user may not see
// them any more. Those of opted-out numbers are reported, because their boxes are out of reach.
func (p *pass) removeUnseen(ctx context.Context, s *source, seen int) error {
	if p.opts.DryRun {
		return nil // nothing was marked as seen
	}
	total, err := s.mirror.Len(ctx)
	if err != nil {
		return err
	}
	if total > vanished && seen < total/2 {
		p.pass.Notes = append(p.pass.Notes, fmt.Sprintf("%s showed %d records; %d were known. Has heed's user lost its access? Nothing was forgotten.",
			s.Name, seen, total))
		return nil
	}
	stage := "looking for records that are gone from " + s.Name
	looked, hidden := 0, 0
	var after crm.Key
	for more := true; more; {
		more = false
		var unseen []crm.Key
		var findings []finding
		for r, err := range s.mirror.All(ctx, after) {
			if err != nil {
				return err
			}
			looked++
			after = r.Key
			if r.Sweep != s.sweep {
				unseen = append(unseen, r.Key)
				i := slices.IndexFunc(r.Numbers, func(n phone.Number) bool { return p.Ledger.State(n) == consent.OptedOut })
				if i >= 0 {
					if hidden++; hidden <= maxHidden {
						findings = append(findings, p.hidden(s, r.Key, r.Numbers[i]))
					}
				}
			}
			if len(unseen) == sweepBatch {
				more = true
				break
			}
		}
		p.progress(stage, looked, total)
		if err := p.note(ctx, findings...); err != nil {
			return err
		}
		if err := s.mirror.Delete(ctx, unseen); err != nil {
			return err
		}
		s.counts["records_hidden"] += len(unseen)
	}
	if hidden > maxHidden {
		p.pass.Notes = append(p.pass.Notes, fmt.Sprintf("%s: %d records of opted-out numbers are gone; the report names the first %d.", s.Name, hidden, maxHidden))
	}
	return nil
}

func (p *pass) hidden(s *source, key crm.Key, n phone.Number) finding {
	return finding{correction: ledger.Event{
		Kind: ledger.KindCorrection, ID: eventID("fix", p.pass.ID, s.Name, key.Object, key.ID, RecordHidden), At: p.Now().UTC(), Number: n,
		Correction: &ledger.Correction{
			Pass: p.pass.ID, CRM: s.Name, Record: &key, Cause: RecordHidden, Action: none, Result: "done",
			Detail: fmt.Sprintf("The CRM no longer shows the record of %s. The number stays opted out.", n.Masked()),
		},
	}}
}
