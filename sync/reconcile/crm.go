package reconcile

import (
	"cmp"
	"context"
	"errors"
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

// source is a CRM that is being read.
type source struct {
	CRM
	mirror ledger.Mirror
	scan   *scan           // the full read in progress, nil while changes are read
	read   time.Time       // by heed's clock: when the last full read that ended began
	counts map[string]int  // what was counted while reading it
	via    map[string]took // by id: records that took over from others
	pages  int

	standing []ledger.Standing // found in the full read
	notes    []string
	planned  map[crm.Key]bool // by the dry run of a full read that reads the changes first

	// Pages with one AsOf are parts of one answer, and as old as the first of them.
	asOf   time.Time
	seenAt time.Time
}

// took says how a record took over from another one: Merged or Converted.
type took struct{ how, from string }

// scan is the checkpoint of a full read that has not ended.
type scan struct {
	Pass    string         `json:"pass"`
	Number  uint64         `json:"sweep"` // of this full read: it marks what it goes past without seeing it
	After   crm.Key        `json:"after"`
	AsOf    time.Time      `json:"as_of"`   // of its first page: where the reading of changes goes on afterwards
	Started time.Time      `json:"started"` // by heed's clock
	Counts  map[string]int `json:"counts,omitempty"`

	Standing []ledger.Standing `json:"standing,omitempty"`
	// Gone are the records that were not seen, of all that were known. They are counted once, before they are forgotten.
	Gone  *int `json:"gone,omitempty"`
	Known int  `json:"known,omitempty"`

	// Walked holds, for each object, the greatest id so far: up to there, each known record was seen or marked. Missed says
	// that one was marked.
	Walked map[string]string `json:"walked,omitempty"`
	Missed bool              `json:"missed,omitempty"`

	// The answer that its last page was part of, see source.asOf.
	PageAsOf time.Time `json:"page_as_of,omitzero"`
	PageSeen time.Time `json:"page_seen,omitzero"`
}

// Overlap is how far before the checkpoint changes are read again. A write of boxes is noted when all of its batch has been
// answered, and until then a record that somebody changed behind heed's write cannot be told from one that heed's write has
// not reached. So the records of the longest batch (connector.LongestWrite) are read once more after it.
const Overlap = 6 * time.Minute

// maxVia bounds how many merges and conversions are remembered within a pass, to name them as the cause.
const maxVia = 10_000

// crm compares a CRM with the ledger: what changed since the checkpoint, or everything.
func (p *pass) crm(ctx context.Context, c CRM) error {
	if slices.Contains(p.kept.Done, c.Name) {
		return nil // read in full before this pass was interrupted
	}
	s := &source{CRM: c, mirror: p.Ledger.Mirror(c.Name), counts: map[string]int{}, via: map[string]took{}}
	defer func() {
		for name, n := range s.counts {
			p.count(name, n)
		}
		p.pass.Notes = append(p.pass.Notes, s.notes...)
		p.pass.Standing = join(p.pass.Standing, s.standing)
	}()
	since, err := p.loadTime(ctx, "crm/"+c.Name)
	if err != nil {
		return err
	}
	if s.read, err = p.loadTime(ctx, "full/"+c.Name); err != nil {
		return err
	}
	if p.all || since.IsZero() {
		return p.everything(ctx, s, since)
	}
	asOf, err := p.changes(ctx, s, since)
	if err != nil || !asOf.After(since) {
		return err
	}
	return p.saveTime(ctx, "crm/"+s.Name, asOf)
}

// changes reads what changed since the checkpoint. It returns up to when, by the CRM's clock.
func (p *pass) changes(ctx context.Context, s *source, since time.Time) (asOf time.Time, err error) {
	if since, err = p.readingFrom(ctx, "crm/"+s.Name, since); err != nil {
		return asOf, err
	}
	stage := "reading changes in " + s.Name
	p.progress(stage, 0, 0)
	asked := p.Now().UTC()
	for page, err := range s.Directory.Changed(ctx, since.Add(-Overlap)) {
		if err != nil {
			return asOf, fmt.Errorf("what changed in %s since %s could not be read in full: %w", s.Name, since.Format(time.RFC3339), err)
		}
		if s.pages == 0 {
			asOf = page.AsOf
		}
		if err := p.page(ctx, s, page, asked); err != nil {
			return asOf, err
		}
		p.progress(stage, s.counts["records_read"], page.Total)
		asked = p.Now().UTC()
	}
	return asOf, nil
}

// everything reads the whole CRM, or the rest of it if an earlier read was interrupted, and then removes from the mirror
// what was not there any more.
//
// What changed since the checkpoint is read first, if there is one: only there does a CRM say which records were merged or
// converted into which, and only there do the records of one import come together.
func (p *pass) everything(ctx context.Context, s *source, since time.Time) error {
	p.pass.Full = true
	cursor := "scan/" + s.Name
	var at scan
	resumed, err := p.load(ctx, cursor, &at)
	if err != nil {
		return err
	}
	now := p.Now().UTC()
	// Not one that began later than now: the clock was set back, and what was read since cannot be told from what was before.
	resumed = resumed && !p.opts.DryRun && !now.Before(at.Started) && now.Sub(at.Started) <= goOn
	switch {
	case !resumed:
		at = scan{Pass: p.pass.ID, Number: max(uint64(max(now.UnixMilli(), 0)), at.Number+1), Started: now}
	case at.Pass == p.pass.ID:
		maps.Copy(s.counts, at.Counts)
	}
	s.standing = at.Standing
	if at.Walked == nil {
		at.Walked = map[string]string{}
	}
	at.Pass = p.pass.ID
	// That a CRM is read in full is worth a report, even if everything is in order.
	if err := p.record(ctx); err != nil {
		return err
	}
	if !resumed && !since.IsZero() {
		if err := p.changesFirst(ctx, s, since); err != nil {
			return err
		}
		now = p.Now().UTC()
		at.Started = now
	}
	s.scan, s.asOf, s.seenAt, s.pages = &at, at.PageAsOf, at.PageSeen, 0
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
		at.After, at.Counts, at.Standing, at.PageAsOf, at.PageSeen = page.Next, s.counts, s.standing, s.asOf, s.seenAt
		if err := p.save(ctx, cursor, at); err != nil {
			return err
		}
		asked = p.Now().UTC()
	}
	whole, err := p.removeUnseen(ctx, s)
	if err != nil {
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
	if whole {
		if err := p.saveTime(ctx, "full/"+s.Name, at.Started); err != nil {
			return err
		}
	}
	p.kept.Done = append(p.kept.Done, s.Name)
	counts := maps.Clone(p.kept.Counts)
	if counts == nil {
		counts = map[string]int{}
	}
	for name, n := range s.counts {
		counts[name] += n
	}
	p.kept.Counts, p.kept.Notes, p.kept.Standing = counts, append(p.kept.Notes, s.notes...), join(p.kept.Standing, s.standing)
	if err := p.mark(ctx); err != nil {
		return err
	}
	return p.Ledger.SetCursor(ctx, cursor, "")
}

// changesFirst reads the changes of a CRM that is then read in full, which puts right what this could not read.
func (p *pass) changesFirst(ctx context.Context, s *source, since time.Time) error {
	if p.opts.DryRun {
		s.planned = map[crm.Key]bool{}
	}
	_, err := p.changes(ctx, s, since)
	if err == nil || ctx.Err() != nil || errors.Is(err, ledger.ErrUnavailable) {
		return err
	}
	p.Log.Warn("the changes could not be read before the full read", "crm", s.Name, "error", err)
	s.notes = append(s.notes, "Merges, conversions and imports may go by another name here: "+err.Error())
	return nil
}

// read is a record of a page, with its numbers and with what the mirror knew of it before the page, nil for nothing.
type read struct {
	*crm.Record
	old     *ledger.MirrorRecord
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
	p.rememberVia(s, page.Records)
	records := inOrder(page.Records)
	known, err := p.known(ctx, s, records)
	if err != nil {
		return err
	}
	var gone []crm.Key
	live := make([]read, 0, len(records))
	numbers := make([]phone.Number, 0, len(records)+len(records)/2) // of all records, one after the other
	for i := range records {
		rec, old := &records[i], known[i]
		switch {
		case rec.Deleted || rec.Converted != nil:
			gone = append(gone, rec.Key) // who took over is read by its own stamp
		case old != nil && old.SeenAt.After(s.seenAt) && old.Stamp.After(rec.Stamp):
			// A newer version was read since this answer was given.
		default:
			r := read{Record: rec}
			if old != nil && !old.Stamp.IsZero() { // else a page that was interrupted has only announced it
				if old.SeenAt.Before(s.read) {
					old.SeenAt = s.read
				}
				r.old = old
			}
			numbers = p.parse(s, &r, numbers)
			live = append(live, r)
		}
	}
	p.leaveAlone(s, live)
	if err := p.announce(ctx, s, live); err != nil {
		return err
	}
	findings, err := p.compare(ctx, s, live)
	if err != nil {
		return err
	}
	if err := p.note(ctx, findings...); err != nil {
		return err
	}
	if p.opts.DryRun {
		for _, f := range findings {
			if s.planned != nil && s.scan == nil {
				s.planned[*f.correction.Correction.Record] = true
			}
		}
		return nil
	}
	var puts []ledger.MirrorRecord
	for _, r := range live {
		m := ledger.MirrorRecord{Key: r.Key, Numbers: r.numbers, Unparsed: r.bad, OptedOut: r.OptedOut, Stamp: r.Stamp, SeenAt: s.seenAt}
		// In a night nearly every record is as it was, and that it was seen again is known from the read as a whole. Between
		// full reads it is kept, so that a full read which is gone on with does not miss what it had no chance to see.
		if s.scan != nil && r.old != nil && r.old.Missing == 0 && same(*r.old, ledger.MergeMirror(*r.old, m)) {
			continue
		}
		puts = append(puts, m)
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
		led := r.old != nil && !slices.ContainsFunc(r.numbers, func(n phone.Number) bool { return !slices.Contains(r.old.Numbers, n) })
		if !led && !planned[r.Key] {
			unled = append(unled, r)
		}
	}
	if findings, err = p.compare(ctx, s, unled); err != nil {
		return err
	}
	return p.note(ctx, findings...)
}

// rememberVia keeps which records of the page took over from others.
func (p *pass) rememberVia(s *source, records []crm.Record) {
	for i := range records {
		rec := &records[i]
		if rec.MergedInto == "" && rec.Converted == nil || len(s.via) >= maxVia {
			continue
		}
		if rec.MergedInto != "" {
			s.via[rec.MergedInto] = took{Merged, rec.ID}
		}
		if rec.Converted != nil && rec.Converted.ID != "" {
			s.via[rec.Converted.ID] = took{Converted, rec.ID}
		}
	}
}

// inOrder returns a page's records in the mirror's order. Of several versions of a record the last one counts.
func inOrder(records []crm.Record) []crm.Record {
	ordered := true
	for i := 1; i < len(records) && ordered; i++ {
		ordered = compareKeys(records[i-1].Key, records[i].Key) < 0
	}
	if ordered {
		return records
	}
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b crm.Record) int { return compareKeys(a.Key, b.Key) })
	kept := records[:0]
	for i := range records {
		if i+1 == len(records) || records[i+1].Key != records[i].Key {
			kept = append(kept, records[i])
		}
	}
	return kept
}

func compareKeys(a, b crm.Key) int {
	return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(a.ID, b.ID))
}

// same reports whether there is nothing to store.
func same(old, new ledger.MirrorRecord) bool {
	return old.OptedOut == new.OptedOut && old.Unparsed == new.Unparsed && old.Stamp.Equal(new.Stamp) && slices.Equal(old.Numbers, new.Numbers)
}

// known returns what the mirror knows of each record of a page, nil for nothing. records are in the mirror's order.
//
// A full read goes through the mirror beside the CRM: it takes the known records from the page before up to this one in
// one walk, and marks those that the page does not have. That is right in whatever order the records come: what is marked
// and comes later is unmarked then. It is quick if they come in the mirror's order, as they do from Salesforce.
func (p *pass) known(ctx context.Context, s *source, records []crm.Record) ([]*ledger.MirrorRecord, error) {
	out := make([]*ledger.MirrorRecord, len(records))
	at := func(k crm.Key) (int, bool) {
		return slices.BinarySearchFunc(records, k, func(r crm.Record, k crm.Key) int { return compareKeys(r.Key, k) })
	}
	var apart []crm.Key
	for from := 0; from < len(records); {
		object, to := records[from].Object, from
		for to < len(records) && records[to].Object == object {
			to++
		}
		walked, last := "", ""
		if s.scan != nil {
			walked, last = s.scan.Walked[object], records[to-1].ID
		}
		next := from
		for ; next < to && (s.scan == nil || records[next].ID <= walked); next++ {
			apart = append(apart, records[next].Key)
		}
		if next < to {
			err := p.walk(ctx, s, crm.Key{Object: object, ID: walked}, crm.Key{Object: object, ID: last}, func(r *ledger.MirrorRecord) bool {
				for next < to && records[next].ID < r.ID {
					next++
				}
				if next == to || records[next].ID != r.ID {
					return false
				}
				out[next] = r
				return true
			})
			if err != nil {
				return nil, err
			}
			s.scan.Walked[object] = last
		}
		from = to
	}
	if len(apart) == 0 {
		return out, nil
	}
	found, err := s.mirror.Get(ctx, apart)
	for i := range found {
		if j, ok := at(found[i].Key); ok {
			out[j] = &found[i]
		}
	}
	return out, err
}

// walk hands the known records between two keys to seen, in order, and marks those of which it does not say that this
// full read saw them. One that was read since the full read began is alive, and only newer than what that read shows.
func (p *pass) walk(ctx context.Context, s *source, after, upTo crm.Key, seen func(*ledger.MirrorRecord) bool) error {
	var marks []ledger.MirrorRecord
	flush := func() error {
		if len(marks) == 0 || p.opts.DryRun {
			return nil
		}
		s.scan.Missed = true
		err := s.mirror.Put(ctx, marks)
		marks = marks[:0]
		return err
	}
	for r, err := range s.mirror.Between(ctx, after, upTo) {
		if err != nil {
			return err
		}
		if seen(&r) || !r.SeenAt.Before(s.scan.Started) {
			continue
		}
		r.Missing = s.scan.Number
		if marks = append(marks, r); len(marks) == sweepBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// announce makes the mirror lead to the page's records from numbers from which it does not yet, and leaves everything
// else that is known of them as it is. A record without a stamp is one that was announced and not yet compared.
func (p *pass) announce(ctx context.Context, s *source, live []read) error {
	if p.opts.DryRun {
		return nil
	}
	var puts []ledger.MirrorRecord
	for _, r := range live {
		old := r.old
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

// parse reads a record's numbers, which are appended to those of the records before it.
func (p *pass) parse(s *source, r *read, numbers []phone.Number) []phone.Number {
	from := len(numbers)
	for _, f := range r.Phones {
		n, err := phone.Parse(f.Raw, p.Region)
		switch {
		case err != nil:
			r.bad++
		case !slices.Contains(numbers[from:], n):
			numbers = append(numbers, n)
		}
	}
	r.numbers = slices.Clip(numbers[from:])
	if r.bad > 0 {
		s.counts["phones_unreadable"] += r.bad
	}
	if len(r.numbers) == 0 {
		s.counts["records_without_number"]++
		if r.OptedOut {
			s.counts["ticked_without_number"]++
		}
	}
	return numbers
}

// compare plans the page. Nearly all records agree with the ledger, which memory tells; the others are looked up.
func (p *pass) compare(ctx context.Context, s *source, live []read) ([]finding, error) {
	var differ []read
	waiting := map[phone.Number]bool{}
	for _, r := range live {
		out := slices.ContainsFunc(r.numbers, func(n phone.Number) bool { return p.Ledger.State(n) == consent.OptedOut })
		if len(r.numbers) > 0 && out != r.OptedOut && !s.planned[r.Key] {
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
	p.askWho(ctx, s, differ)
	together := map[burst]int{}
	for _, r := range live {
		together[burstOf(*r.Record)]++
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
		c, ok := plan(r.old, *r.Record, s.seenAt, numbers, from.how)
		if !ok {
			continue
		}
		c.cause = who(c.cause, r.ModifiedBy, together[burstOf(*r.Record)])
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
func (p *pass) askWho(ctx context.Context, s *source, differ []read) {
	h, ok := s.Directory.(crm.Historian)
	if !ok {
		return
	}
	var keys []crm.Key
	for _, r := range differ {
		if r.old != nil && r.old.OptedOut && !r.OptedOut {
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
	action := map[string]consent.Action{optOut: consent.OptOut, optIn: consent.Undo}[c.action]
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
		case f.UndoneAt.After(f.StartAt) && f.UndoneAt.After(f.InAt):
			why = "had its opt-out undone at " + clock(f.UndoneAt)
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
// them any more. Those of opted-out numbers are reported, because their boxes are out of reach. It returns false if so
// many are missing that the reading is doubted rather than the records.
func (p *pass) removeUnseen(ctx context.Context, s *source) (whole bool, _ error) {
	if p.opts.DryRun {
		return false, nil // nothing was marked
	}
	// What lies behind the last record of each object, and objects that are not read any more, were not gone through yet.
	none := func(*ledger.MirrorRecord) bool { return false }
	for after := (crm.Key{}); ; {
		first, ok, err := p.first(ctx, s, after)
		if err != nil {
			return false, err
		}
		if !ok {
			break
		}
		end := crm.Key{Object: first.Object, ID: "\xff"} // behind every id
		if err := p.walk(ctx, s, crm.Key{Object: first.Object, ID: s.scan.Walked[first.Object]}, end, none); err != nil {
			return false, err
		}
		after = end
	}
	if !s.scan.Missed {
		return true, nil
	}
	if s.scan.Gone == nil {
		total, missing := 0, 0
		for r, err := range s.mirror.Between(ctx, crm.Key{}, crm.Key{}) {
			if err != nil {
				return false, err
			}
			total++
			if r.Missing == s.scan.Number {
				missing++
			}
		}
		s.scan.Gone, s.scan.Known = &missing, total
		if err := p.save(ctx, "scan/"+s.Name, s.scan); err != nil {
			return false, err
		}
	}
	total, missing := s.scan.Known, *s.scan.Gone
	if total > vanished && missing > total/2 {
		s.notes = append(s.notes, fmt.Sprintf("%s showed %d records; %d were known. Has heed's user lost its access? Nothing was forgotten.",
			s.Name, total-missing, total))
		return false, nil
	}
	stage := "looking for records that are gone from " + s.Name
	looked, hidden := 0, 0
	var after crm.Key
	for more := true; more; {
		more = false
		var unseen []crm.Key
		var findings []finding
		for r, err := range s.mirror.Between(ctx, after, crm.Key{}) {
			if err != nil {
				return false, err
			}
			looked++
			after = r.Key
			if r.Missing != s.scan.Number {
				continue
			}
			unseen = append(unseen, r.Key)
			i := slices.IndexFunc(r.Numbers, func(n phone.Number) bool { return p.Ledger.State(n) == consent.OptedOut })
			if i >= 0 {
				if hidden++; hidden <= maxHidden {
					findings = append(findings, p.hidden(s, r.Key, r.Numbers[i]))
				}
			}
			if len(unseen) == sweepBatch {
				more = true
				break
			}
		}
		p.progress(stage, looked, total)
		if err := p.note(ctx, findings...); err != nil {
			return false, err
		}
		if err := s.mirror.Delete(ctx, unseen); err != nil {
			return false, err
		}
	}
	if missing > 0 {
		s.counts["records_hidden"] = missing
	}
	if hidden > maxHidden {
		s.notes = append(s.notes, fmt.Sprintf("%s: %d records of opted-out numbers are gone; the report names the first %d.", s.Name, hidden, maxHidden))
	}
	return true, nil
}

// first returns the first known record after a key.
func (p *pass) first(ctx context.Context, s *source, after crm.Key) (ledger.MirrorRecord, bool, error) {
	for r, err := range s.mirror.Between(ctx, after, crm.Key{}) {
		return r, err == nil, err
	}
	return ledger.MirrorRecord{}, false, nil
}

func (p *pass) hidden(s *source, key crm.Key, n phone.Number) finding {
	return finding{correction: ledger.Event{
		Kind: ledger.KindCorrection, ID: eventID("fix", p.pass.ID, s.Name, key.Object, key.ID, RecordHidden), At: p.Now().UTC(), Number: n,
		Correction: &ledger.Correction{
			Pass: p.pass.ID, CRM: s.Name, Record: &key, Cause: RecordHidden, Action: none, Result: leftAlone,
			Detail: fmt.Sprintf("The CRM no longer shows the record of %s. The number stays opted out.", n.Masked()),
		},
	}}
}
