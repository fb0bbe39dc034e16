// Package reconcile finds what has come apart between the CRM, the SMS provider and the ledger, puts it right and
// reports what it found, with the cause.
//
// A pass reads the providers' logs for replies and refusals that no webhook brought, looks for the outcome of sends that
// is not known, and compares CRM records with the ledger: those that changed since the last pass, or all of them. What
// it finds becomes a plan (pure: plan.go has every rule) and then events in the ledger; from those the owed box writes
// follow, which connector.Boxes does. [Causes] lists the kinds of difference; report.go renders a pass for people.
//
// # What holds
//
//   - A second pass right after the first one plans nothing.
//   - A checkpoint advances only when what it stands for was read to the end and is in the ledger. A pass that was
//     interrupted, at whatever point, goes on where it was and ends with the same corrections.
//   - A source that cannot be read is named in the report and does not stop the others.
//   - A dry run reads and prints; it writes nothing anywhere, checkpoints included.
//   - Memory does not grow with the CRM: nothing of a record is kept beyond its page.
//
// # What it is not
//
// It does not decide what a reply means (package reply) or whether a number may be texted (package consent), does not
// write to the CRM itself, never sends or repeats a message, and does not know when it is to run (package schedule).
package reconcile

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// Inbox records replies that were found in a provider's log; connector.Inbox does.
type Inbox interface {
	// Recover records a message unless it is recorded already. missed says that its webhook should have come by now.
	Recover(ctx context.Context, account string, m sms.Inbound, pass string, missed bool) (recorded bool, err error)
	// Read returns what a message means.
	Read(m sms.Inbound) reply.Result
}

// Flusher does the owed work of one kind that may be done now; connector.Boxes and connector.Times do.
type Flusher interface {
	Flush(ctx context.Context) error
}

// Account is a configured account at an SMS provider.
type Account struct {
	Name     string
	Provider sms.Provider
}

// CRM is a configured CRM.
type CRM struct {
	Name      string
	Directory crm.Directory
}

// The kinds of pass.
const (
	Incremental = "incremental" // what changed since the last pass
	Nightly     = "nightly"     // everything
	Manual      = "manual"      // asked for by a person: what changed, or everything with Options.Full
)

// Runner runs passes. Set its fields before first use; it is then safe for concurrent use.
type Runner struct {
	Ledger   ledger.Ledger
	Accounts []Account
	CRMs     []CRM
	Inbox    Inbox
	Boxes    Flusher       // OweBoxes
	Times    Flusher       // OweTime; may be nil
	Region   string        // for phone numbers without a country code, ISO 3166-1 alpha-2
	Started  time.Time     // when this process began to take webhooks
	Backfill time.Duration // how far the first pass looks back in a provider's log; 7 days if 0
	Log      *slog.Logger
	Now      func() time.Time
	Deliver  []string          // who is to get the reports of full passes, see ledger.Pass.Deliver
	Window   time.Duration     // for which an opt-out is attributed to the message before it
	Cost     float64           // of one message, for the report; 0 if not known
	Shadow   bool              // mode: shadow; boxes stay owed, and the report says so
	OnPass   func(ledger.Pass) // called after each pass that came to its end, recorded or not; may be nil

	once    sync.Once
	turn    chan struct{} // holds a value while a pass runs
	failing string        // what went wrong in the incremental pass before; belongs to whose turn it is
}

// Options say what a pass is to do.
type Options struct {
	Kind   string // Incremental, Nightly or Manual
	Full   bool   // read every CRM record; a nightly pass always does, and so does the first one of a CRM
	DryRun bool   // plan only
	// Progress is called often, from the goroutine of the pass. It may be nil.
	Progress func(Progress)
}

// Progress says how far a pass is.
type Progress struct {
	Stage string // a few words: which source is being read
	Done  int
	Total int // 0 if not known
}

// Result is what a pass came to.
type Result struct {
	Pass ledger.Pass // with Causes and Results counted
	// Corrections are the first [MaxCorrections] differences, for printing. A recorded pass has them all in the ledger.
	Corrections []ledger.Correction
	Recorded    bool // the pass is in the ledger
}

// MaxCorrections bounds Result.Corrections.
const MaxCorrections = 1000

// ErrRunning is returned for an incremental pass while another pass runs: there is nothing to wait for, the next one
// reads the same changes.
var ErrRunning = errors.New("another pass is running")

// goOn is how old an interrupted pass may be to be gone on with. An older one would report a CRM as it was.
const goOn = 6 * time.Hour

// Run makes a pass. Passes run one at a time: a nightly or manual one waits for its turn, an incremental one does not.
//
// A source that cannot be read makes the pass partial, which Result.Pass.Error tells, and is no error here. Errors:
// ErrRunning; ctx's, with the pass left to be gone on with; or the ledger's, without which nothing can be done.
func (r *Runner) Run(ctx context.Context, o Options) (Result, error) {
	switch o.Kind {
	case Incremental, Nightly, Manual:
	default:
		return Result{}, fmt.Errorf("reconcile: unknown kind of pass %q", o.Kind)
	}
	r.once.Do(func() { r.turn = make(chan struct{}, 1) })
	select {
	case r.turn <- struct{}{}:
	default:
		if o.Kind == Incremental {
			return Result{}, ErrRunning
		}
		select {
		case r.turn <- struct{}{}:
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
	defer func() { <-r.turn }()
	p := &pass{Runner: r, opts: o}
	err := p.run(ctx)
	return Result{Pass: p.pass, Corrections: p.corrections, Recorded: p.recorded}, err
}

// pass is one run.
type pass struct {
	*Runner
	opts        Options
	all         bool // every CRM is to be read in full
	pass        ledger.Pass
	recorded    bool   // its beginning is in the ledger …
	from        uint64 // … at this sequence
	kept        kept
	read        map[string]int // received messages read, by account
	learned     learned
	corrections []ledger.Correction
	problems    []string
}

// mark is the checkpoint of a recorded pass that has not ended.
type mark struct {
	ID      string    `json:"id"`
	All     bool      `json:"all,omitempty"`
	Started time.Time `json:"started"`
	kept
}

// kept is what a pass that goes on after an interruption must not find out again.
type kept struct {
	Done     []string             `json:"done,omitempty"` // CRMs that were read in full …
	Counts   map[string]int       `json:"counts,omitempty"`
	Notes    []string             `json:"notes,omitempty"`
	Standing []ledger.Standing    `json:"standing,omitempty"` // … and what was found in them
	Since    map[string]time.Time `json:"since,omitempty"`    // by checkpoint: from where it read on, so that it counts the same again
	Learned  learned              `json:"learned,omitzero"`   // before its beginning was recorded
}

func (p *pass) run(ctx context.Context) error {
	if err := p.Ledger.Health(); err != nil {
		return err
	}
	if err := p.begin(ctx); err != nil {
		return err
	}
	if p.opts.Kind != Incremental {
		if err := p.record(ctx); err != nil {
			return err
		}
	}
	steps := []func(context.Context) error{}
	for _, a := range p.Accounts {
		steps = append(steps,
			func(ctx context.Context) error { return p.inbound(ctx, a) },
			func(ctx context.Context) error { return p.outbound(ctx, a) })
	}
	for _, c := range p.CRMs {
		steps = append(steps, func(ctx context.Context) error { return p.crm(ctx, c) })
	}
	if !p.opts.DryRun {
		steps = append(steps, p.flush)
	}
	for _, step := range steps {
		switch err := step(ctx); {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ledger.ErrUnavailable):
			return err
		default:
			p.count("errors", 1)
			p.problems = append(p.problems, err.Error())
			p.Log.Error("reconciliation is partial", "pass", p.pass.ID, "error", err)
		}
	}
	return p.end(ctx)
}

// begin names the pass, or takes up one of its kind that was interrupted.
func (p *pass) begin(ctx context.Context) error {
	now := p.Now().UTC()
	var suffix [2]byte
	_, _ = rand.Read(suffix[:]) // never fails (crypto/rand)
	p.read = map[string]int{}
	p.pass = ledger.Pass{
		ID:   fmt.Sprintf("pass_%s_%s_%s", now.Format("20060102T150405Z"), p.opts.Kind, hex.EncodeToString(suffix[:])),
		Kind: p.opts.Kind, StartedAt: now, Counts: map[string]int{},
	}
	p.all = p.opts.Full || p.opts.Kind == Nightly
	p.pass.Full = p.all
	if p.opts.DryRun {
		return nil
	}
	var m mark
	ok, err := p.load(ctx, p.markCursor(), &m)
	if err != nil || !ok || now.Sub(m.Started).Abs() > goOn || m.All != p.all {
		return err
	}
	// The end may have been recorded and only the mark left.
	if known, err := p.Ledger.Report(ctx, m.ID); err == nil && !known.FinishedAt.IsZero() {
		return nil
	} else if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	p.pass.ID, p.pass.StartedAt, p.pass.Full, p.kept = m.ID, m.Started, p.all || len(m.Done) > 0, m.kept
	maps.Copy(p.pass.Counts, m.Counts)
	p.pass.Notes, p.pass.Standing = slices.Clone(m.Notes), slices.Clone(m.Standing)
	return p.record(ctx)
}

func (p *pass) markCursor() string { return "pass/" + p.opts.Kind }

// record puts the beginning of the pass into the ledger. An incremental pass does so only when it has something to tell.
func (p *pass) record(ctx context.Context) error {
	if p.recorded || p.opts.DryRun {
		return nil
	}
	if p.learned.Recovered+p.learned.Settled > 0 {
		p.kept.Learned = p.learned
	}
	// The mark comes first: should the process end between the two, the next pass takes up this one.
	if err := p.mark(ctx); err != nil {
		return err
	}
	receipts, err := p.Ledger.Append(ctx, p.event("start", p.pass))
	if err != nil {
		return err
	}
	p.recorded, p.from = true, receipts[0].Seq // of the first start, if it was interrupted
	return nil
}

func (p *pass) mark(ctx context.Context) error {
	return p.save(ctx, p.markCursor(), mark{ID: p.pass.ID, All: p.all, Started: p.pass.StartedAt, kept: p.kept})
}

// readingFrom returns from where a source is to be read on: as far back as before it was interrupted, or from since.
func (p *pass) readingFrom(ctx context.Context, cursor string, since time.Time) (time.Time, error) {
	if before, ok := p.kept.Since[cursor]; ok {
		return earlier(before, since), nil
	}
	if p.kept.Since == nil {
		p.kept.Since = map[string]time.Time{}
	}
	p.kept.Since[cursor] = since
	if !p.recorded {
		return since, nil // its mark comes with its beginning
	}
	return since, p.mark(ctx)
}

func (p *pass) event(what string, content ledger.Pass) ledger.Event {
	content.Causes, content.Results = nil, nil // the ledger counts them from the corrections
	// The ledger may read an event after Append has returned, and the pass counts on.
	content.Counts, content.Notes, content.Standing = maps.Clone(content.Counts), slices.Clone(content.Notes), slices.Clone(content.Standing)
	return ledger.Event{Kind: ledger.KindPass, ID: "pass/" + content.ID + "/" + what, At: p.Now().UTC(), Pass: &content}
}

// finding is a difference, and the events beside the correction that put it right.
type finding struct {
	correction ledger.Event
	with       []ledger.Event
}

// maxAppend bounds the events of one append.
const maxAppend = 256

// note records findings. All events of one finding become durable together.
func (p *pass) note(ctx context.Context, findings ...finding) error {
	if len(findings) == 0 {
		return nil
	}
	if err := p.record(ctx); err != nil {
		return err
	}
	for len(findings) > 0 {
		var batch []ledger.Event
		n := 0
		for n < len(findings) && (n == 0 || len(batch)+len(findings[n].with) < maxAppend) {
			batch = append(append(batch, findings[n].with...), findings[n].correction)
			n++
		}
		findings = findings[n:]
		var receipts []ledger.Receipt
		if !p.opts.DryRun {
			var err error
			if receipts, err = p.Ledger.Append(ctx, batch...); err != nil {
				return err
			}
		}
		for i, e := range batch {
			if e.Correction == nil || receipts != nil && receipts[i].Duplicate {
				continue
			}
			c := *e.Correction
			c.Number = e.Number
			if p.opts.DryRun {
				c.Result = "planned"
			}
			p.pass = ledger.ApplyPass(p.pass, ledger.Event{Correction: &c})
			if len(p.corrections) < MaxCorrections {
				p.corrections = append(p.corrections, c)
			}
		}
	}
	return nil
}

func (p *pass) append(ctx context.Context, events ...ledger.Event) error {
	if p.opts.DryRun || len(events) == 0 {
		return nil
	}
	_, err := p.Ledger.Append(ctx, events...)
	return err
}

// flush does the owed work, so that the report can tell what came of it.
func (p *pass) flush(ctx context.Context) error {
	p.progress("writing boxes", 0, 0)
	var err error
	if p.opts.Kind != Incremental { // what was refused may have been put right meanwhile
		err = p.Ledger.Hurry(ctx, ledger.OweBoxes)
	}
	if p.Times != nil {
		if e := p.Times.Flush(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("the times of START replies could not be asked for: %w", e))
		}
	}
	if e := p.Boxes.Flush(ctx); e != nil {
		err = errors.Join(err, fmt.Errorf("owed box writes could not be worked on: %w", e))
	}
	return err
}

// end sums up and records the end of the pass.
func (p *pass) end(ctx context.Context) error {
	p.pass.Error = strings.Join(p.problems, "\n")
	// A source that is down would fill the ledger with a report a minute: the same failure is recorded once.
	if p.opts.Kind == Incremental && !p.opts.DryRun {
		if p.pass.Error != "" && p.pass.Error != p.failing {
			if err := p.record(ctx); err != nil {
				return err
			}
		}
		p.failing = p.pass.Error
	}
	s, err := p.sums(ctx)
	if err != nil {
		return err
	}
	if err := p.recount(ctx); err != nil {
		return err
	}
	p.pass.FinishedAt = p.Now().UTC()
	p.pass.Head, p.pass.HeadSeq = hex.EncodeToString(s.HeadHash[:]), s.Head
	for _, n := range s.Owed {
		p.pass.Owed += n
	}
	p.pass.Parked, p.pass.Inbound, p.pass.OptOuts = s.Parked, s.Inbound, s.OptOuts
	p.noteHeld(s.Owed[ledger.OweHold])
	if p.Shadow {
		p.pass.Notes = append(p.pass.Notes, fmt.Sprintf("mode: shadow. No box was set and no send refused; %d sends would have been, since the beginning.", s.WouldBlock))
	}
	p.pass.Blocked, p.pass.Unknown = s.Messages[ledger.StatusBlocked], s.Messages[ledger.StatusUnknown]
	if s.Degraded != "" {
		p.pass.Notes = append(p.pass.Notes, "The ledger: "+s.Degraded)
	}
	if s.Quarantine > 0 {
		p.pass.Notes = append(p.pass.Notes, fmt.Sprintf("Webhooks that were genuine but could not be understood, since the beginning: %d.", s.Quarantine))
	}
	if p.opts.Kind != Incremental {
		if p.pass.Figures, err = p.figures(ctx, s.Head); err != nil {
			return err
		}
	}
	if len(p.pass.Standing) > 0 || s.Parked > 0 {
		if err := p.stands(ctx); err != nil {
			return err
		}
	}
	if p.opts.Kind == Nightly {
		p.pass.Deliver = slices.Clone(p.Deliver)
	}
	if !p.opts.DryRun {
		if p.recorded {
			if err := p.append(ctx, p.event("end", p.pass)); err != nil {
				return err
			}
			if err := p.Ledger.SetCursor(ctx, p.markCursor(), ""); err != nil {
				return err
			}
			if p.pass, err = p.Ledger.Report(ctx, p.pass.ID); err != nil {
				return err
			}
		}
	}
	if p.OnPass != nil && !p.opts.DryRun {
		p.OnPass(p.pass)
	}
	return nil
}

// sums counts what the report's first lines add up: each received opt-out, and each opted-out number, is settled, waits for
// its boxes, or waits for a person. Both sides are taken from the same moment, as far as the traffic allows.
func (p *pass) sums(ctx context.Context) (ledger.Stats, error) {
	// Whose messages wait must be read from each number's history. While a CRM is down those are many, so the passes that
	// come every minute and leave no report do not look.
	report := p.recorded || p.opts.Kind != Incremental || p.opts.DryRun
	for attempt := 0; ; attempt++ {
		s, err := p.Ledger.Stats(ctx)
		if err != nil {
			return s, err
		}
		var numbers, messages struct{ waiting, parked int }
		for o, err := range p.Ledger.Owed(ctx) {
			if err != nil {
				return s, err
			}
			if o.Kind != ledger.OweBoxes || p.Ledger.State(o.Number) != consent.OptedOut {
				continue
			}
			asked := 0
			if report {
				if asked, err = p.asked(ctx, o.Number); err != nil {
					return s, err
				}
			}
			switch {
			case o.Parked != nil:
				numbers.parked++
				messages.parked += asked
			default:
				numbers.waiting++
				messages.waiting += asked
			}
		}
		after, err := p.Ledger.Stats(ctx)
		if err != nil {
			return s, err
		}
		out, received := s.Numbers[consent.OptedOut.String()], int(s.OptOuts)
		if after.Head != s.Head && attempt < 3 || numbers.waiting+numbers.parked > out || messages.waiting+messages.parked > received {
			if attempt < 10 {
				continue
			}
			numbers.waiting = min(numbers.waiting, out)
			numbers.parked = min(numbers.parked, out-numbers.waiting)
			messages.waiting = min(messages.waiting, received)
			messages.parked = min(messages.parked, received-messages.waiting)
		}
		c := p.pass.Counts
		c[numbersOut], c[numbersWaiting], c[numbersParked] = out, numbers.waiting, numbers.parked
		c[numbersSettled] = out - numbers.waiting - numbers.parked
		if report {
			c[optOutsReceived], c[optOutsPending], c[optOutsParked] = received, messages.waiting, messages.parked
			c[optOutsApplied] = received - messages.waiting - messages.parked
		}
		return s, nil
	}
}

// asked counts the messages of a number that asked to opt out.
func (p *pass) asked(ctx context.Context, n phone.Number) (asked int, _ error) {
	for e, err := range p.Ledger.History(ctx, n) {
		if err != nil {
			return 0, err
		}
		if e.Inbound != nil && e.Inbound.Verdict == reply.OptOut {
			asked++
		}
	}
	return asked, nil
}

// The counts of a pass. Those of numbers and of opt-outs are states at its end; all others count what the pass did.
const (
	numbersOut     = "numbers_opted_out"
	numbersSettled = "numbers_settled" // of them, nothing is owed
	numbersWaiting = "numbers_waiting" // of them, boxes are still to be set
	numbersParked  = "numbers_parked"  // of them, a person must act first

	optOutsReceived = "opt_outs_received" // messages that asked to opt out, since the beginning
	optOutsApplied  = "opt_outs_applied"  // of them, nothing is owed for the number any more
	optOutsPending  = "opt_outs_pending"  // of them, boxes of the number are still to be set
	optOutsParked   = "opt_outs_parked"   // of them, a person must act first
)

func (p *pass) count(name string, n int) {
	if n != 0 {
		p.pass.Counts[name] += n
	}
}

func (p *pass) progress(stage string, done, total int) {
	if p.opts.Progress != nil {
		p.opts.Progress(Progress{stage, done, total})
	}
}

// load reads a checkpoint that holds JSON. One that cannot be read counts as none: it only costs work.
func (p *pass) load(ctx context.Context, name string, into any) (bool, error) {
	v, err := p.Ledger.Cursor(ctx, name)
	if v == "" || err != nil {
		return false, err
	}
	if err := json.Unmarshal([]byte(v), into); err != nil {
		p.Log.Error("checkpoint is damaged; starting anew", "checkpoint", name, "error", err)
		return false, nil
	}
	return true, nil
}

func (p *pass) save(ctx context.Context, name string, v any) error {
	if p.opts.DryRun {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return p.Ledger.SetCursor(ctx, name, string(b))
}

// loadTime reads a checkpoint that holds a time; the zero time if there is none.
func (p *pass) loadTime(ctx context.Context, name string) (time.Time, error) {
	v, err := p.Ledger.Cursor(ctx, name)
	if v == "" || err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		p.Log.Error("checkpoint is damaged; starting anew", "checkpoint", name, "error", err)
		return time.Time{}, nil
	}
	return t, nil
}

func (p *pass) saveTime(ctx context.Context, name string, t time.Time) error {
	if p.opts.DryRun {
		return nil
	}
	return p.Ledger.SetCursor(ctx, name, t.UTC().Format(time.RFC3339Nano))
}

// eventID joins the parts of an event's ID. Ledgers refuse more than 512 bytes.
func eventID(parts ...string) string { return strings.Join(parts, "/") }

func backfill(r *Runner) time.Duration { return cmp.Or(r.Backfill, 7*24*time.Hour) }
