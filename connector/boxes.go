package connector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// Boxes brings the opt-out boxes of a number's CRM records to what its consent says: the work that every opt-out
// and every lifted opt-out owes. Run and Flush may be used together, from several goroutines.
//
// What a box must be is looked up when it is written, not when the work was created, so that the order in which
// pieces of work are done does not matter, and doing one twice is harmless.
type Boxes struct {
	Ledger  ledger.Ledger
	CRMs    []CRM
	Metrics *Metrics
	Log     *slog.Logger
	Now     func() time.Time

	mu     sync.Mutex
	paused map[string]time.Time // CRMs that said "not now", and until when

	backlog sync.Mutex       // held by whoever works on a large batch
	busy    map[busyBox]bool // boxes that are being written, under mu
}

// busyBox names a box.
type busyBox struct {
	crm string
	key crm.Key
}

const (
	claimSize  = 500 // numbers taken at a time: a few full CRM calls
	parkedWait = 6 * time.Hour
	// writeTimeout bounds one batch, so that a CRM that hangs does not keep the others' boxes waiting. A write that was
	// made all the same is made again, which is harmless.
	writeTimeout = 90 * time.Second

	// Who waits behind a full batch waits for those before him in any case, for the oldest come first. So then a batch is
	// made as large as is worth a bulk job, which costs the CRM a tenth of the calls and may take minutes. One at a time:
	// while it is under way, Run's other lane takes small batches, and a STOP that comes now is not kept waiting by it.
	backlogSize    = 5000
	backlogTimeout = 4 * time.Minute

	// LongestWrite is how long it takes at the most from a box that is set until the mirror knows it: a batch, and a minute
	// in which its driver may end what it began.
	LongestWrite = backlogTimeout + time.Minute
)

// Run does owed work as it comes, until ctx ends.
func (b *Boxes) Run(ctx context.Context) {
	var lanes sync.WaitGroup
	for range 2 {
		lanes.Go(func() { b.run(ctx) })
	}
	lanes.Wait()
}

func (b *Boxes) run(ctx context.Context) {
	for {
		n, err := b.work(ctx)
		if err != nil && ctx.Err() == nil {
			b.Log.Error("owed CRM writes could not be worked on", "error", err)
		}
		if n > 0 && err == nil {
			continue
		}
		// Delayed work comes due without a signal, hence the timer.
		t := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-b.Ledger.OwedSignal(ledger.OweBoxes):
		case <-t.C:
		}
		t.Stop()
	}
}

// Flush does all the owed work that may be tried now. What fails stays owed.
func (b *Boxes) Flush(ctx context.Context) error {
	for {
		n, err := b.work(ctx)
		if err != nil || n == 0 {
			return err
		}
	}
}

// intent is what one piece of owed work wants written.
type intent struct {
	owed    ledger.Owed
	want    bool // the number is opted out
	results []ledger.WriteResult
	retry   bool          // something is to be tried again soon
	after   time.Duration // not before
	note    string
}

// failed notes a write that is to be tried again.
func (it *intent) failed(r ledger.WriteResult, after time.Duration) {
	it.results = append(it.results, r)
	it.retry, it.after, it.note = true, max(it.after, after), r.Text
}

// hold makes the box the batch's alone, until release. It is false if another batch has it.
func (b *Boxes) hold(held map[busyBox]bool, box busyBox) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case held[box]:
		return true
	case b.busy[box]:
		return false
	case b.busy == nil:
		b.busy = map[busyBox]bool{}
	}
	b.busy[box], held[box] = true, true
	return true
}

func (b *Boxes) release(held map[busyBox]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for box := range held {
		delete(b.busy, box)
	}
}

// work claims a batch, writes it and records what came of it. It returns how many pieces it claimed.
func (b *Boxes) work(ctx context.Context) (int, error) {
	claimed, err := b.Ledger.Claim(ctx, ledger.OweBoxes, claimSize)
	if err != nil || len(claimed) == 0 {
		return 0, err
	}
	timeout := writeTimeout
	if len(claimed) == claimSize && b.backlog.TryLock() {
		defer b.backlog.Unlock()
		more, err := b.Ledger.Claim(ctx, ledger.OweBoxes, backlogSize-claimSize)
		if err != nil {
			b.Log.Warn("more owed CRM writes could not be claimed", "error", err) // what was claimed is worked on
		}
		claimed, timeout = append(claimed, more...), backlogTimeout
	}
	intents := make([]*intent, len(claimed))
	giveBack := func(err error) error {
		for _, o := range claimed {
			err = errors.Join(err, b.Ledger.Return(ctx, o, b.Now().Add(time.Second), "interrupted"))
		}
		return err
	}
	writes := map[string]map[crm.Key]crm.Write{} // by CRM; two numbers may lead to the same record
	needs := map[string]map[crm.Key][]*intent{}
	held := map[busyBox]bool{}
	defer b.release(held)
	for i, o := range claimed {
		it := &intent{owed: o}
		intents[i] = it
		records := make([][]ledger.MirrorRecord, len(b.CRMs))
		for at, c := range b.CRMs {
			found, err := b.records(ctx, c, o)
			if err != nil {
				return 0, giveBack(err)
			}
			for _, r := range found {
				if !b.hold(held, busyBox{c.Name, r.Key}) {
					// Somebody else is writing the box, by what was right when he looked. His write may arrive after ours.
					it.failed(ledger.WriteResult{CRM: c.Name, Key: r.Key, Class: string(crm.RetryNow), Text: "the box is being written"}, 0)
				}
			}
			// What is right, and what is there, is looked up when nobody else writes the boxes any more.
			if found, err = b.records(ctx, c, o); err != nil {
				return 0, giveBack(err)
			}
			records[at] = slices.DeleteFunc(found, func(r ledger.MirrorRecord) bool { return !held[busyBox{c.Name, r.Key}] })
		}
		n, err := b.Ledger.Number(ctx, o.Number)
		if err != nil {
			return 0, giveBack(err)
		}
		it.want = n.Facts.State() == consent.OptedOut
		for at, c := range b.CRMs {
			for _, r := range records[at] {
				want := it.want || b.otherOut(r, o.Number)
				named := slices.Contains(o.Records, ledger.OwedRecord{CRM: c.Name, Key: r.Key})
				if r.OptedOut == want && !named {
					// heed has set it since the work is owed, and its process may have ended before it could say so: it says so
					// now, or nobody could tell when the opt-out reached this record.
					if o.Parked == nil && o.Attempts <= 1 && !r.WroteAt.IsZero() && !r.WroteAt.Before(o.Since) {
						it.results = append(it.results, ledger.WriteResult{CRM: c.Name, Key: r.Key, OptedOut: want})
					}
					continue
				}
				if writes[c.Name] == nil {
					writes[c.Name], needs[c.Name] = map[crm.Key]crm.Write{}, map[crm.Key][]*intent{}
				}
				writes[c.Name][r.Key] = crm.Write{Key: r.Key, OptedOut: want, At: changedAt(n), Source: sourceWord(n), Text: n.Keyword}
				needs[c.Name][r.Key] = append(needs[c.Name][r.Key], it)
			}
		}
	}
	for _, c := range b.CRMs {
		if len(writes[c.Name]) > 0 {
			b.write(ctx, c, writes[c.Name], needs[c.Name], timeout)
		}
	}
	return len(claimed), b.finish(ctx, intents)
}

// records returns the number's records in a CRM, those that a correction named included.
func (b *Boxes) records(ctx context.Context, c CRM, o ledger.Owed) ([]ledger.MirrorRecord, error) {
	m := b.Ledger.Mirror(c.Name)
	records, err := m.ByNumber(ctx, o.Number)
	if err != nil {
		return nil, err
	}
	for _, r := range o.Records {
		known := slices.ContainsFunc(records, func(k ledger.MirrorRecord) bool { return k.Key == r.Key })
		if r.CRM == c.Name && !known {
			records = append(records, ledger.MirrorRecord{Key: r.Key, Numbers: []phone.Number{o.Number}})
		}
	}
	return records, nil
}

// otherOut reports whether another number of the record is opted out, which keeps the box ticked.
func (b *Boxes) otherOut(r ledger.MirrorRecord, n phone.Number) bool {
	return slices.ContainsFunc(r.Numbers, func(o phone.Number) bool {
		return o != n && b.Ledger.State(o) == consent.OptedOut
	})
}

// write sets the boxes of one CRM and hands each result to the work that wanted it.
func (b *Boxes) write(ctx context.Context, c CRM, writes map[crm.Key]crm.Write, needs map[crm.Key][]*intent, timeout time.Duration) {
	list := make([]crm.Write, 0, len(writes))
	for _, w := range writes {
		list = append(list, w)
	}
	// A fixed order: neighbouring records share their locks in the CRM.
	slices.SortFunc(list, func(x, y crm.Write) int { return compareKeys(x.Key, y.Key) })
	if until := b.pausedUntil(c.Name); until > 0 {
		for _, w := range list {
			for _, it := range needs[w.Key] {
				it.failed(ledger.WriteResult{CRM: c.Name, Key: w.Key, OptedOut: w.OptedOut, Class: string(crm.RetryLater), Text: "waiting for the CRM to be available again"}, until)
			}
		}
		return
	}
	wctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	results := c.Directory.Write(wctx, list)
	written := map[bool][]crm.Key{}
	var gone []crm.Key
	for i, r := range results {
		w := list[i]
		res := ledger.WriteResult{CRM: c.Name, Key: w.Key, OptedOut: w.OptedOut}
		var ce *crm.Error
		var after time.Duration
		if r.Err == nil {
			written[w.OptedOut] = append(written[w.OptedOut], w.Key)
		} else {
			class := crm.ClassOf(r.Err)
			res.Class, res.Text = string(class), r.Err.Error()
			if errors.As(r.Err, &ce) {
				after = ce.RetryAfter
				if ce.Text != "" {
					res.Text = strings.TrimPrefix(ce.Code+": "+ce.Text, ": ") // the code is what the documentation lists
				}
			}
			switch class {
			case crm.RetryLater:
				b.pause(c.Name, after)
			case crm.Gone:
				gone = append(gone, w.Key)
			}
		}
		b.Metrics.wrote(c.Name, res.Class)
		for _, it := range needs[w.Key] {
			if res.Class == string(crm.RetryNow) || res.Class == string(crm.RetryLater) {
				it.failed(res, after)
			} else {
				it.results = append(it.results, res)
			}
		}
	}
	now := b.Now().UTC()
	m := b.Ledger.Mirror(c.Name)
	for out, keys := range written {
		if err := m.Wrote(ctx, keys, out, now); err != nil {
			b.Log.Error("mirror could not be updated", "crm", c.Name, "error", err)
		}
	}
	// A record that was deleted, merged or converted is forgotten; its successor comes with the next pass.
	if len(gone) > 0 {
		if err := m.Delete(ctx, gone); err != nil {
			b.Log.Error("mirror could not be updated", "crm", c.Name, "error", err)
		}
	}
}

// finish records results and gives back what is not done.
func (b *Boxes) finish(ctx context.Context, intents []*intent) error {
	var events []ledger.Event
	now := b.Now().UTC()
	for _, it := range intents {
		progress := slices.ContainsFunc(it.results, func(r ledger.WriteResult) bool {
			return r.Class != string(crm.RetryNow) && r.Class != string(crm.RetryLater)
		})
		if it.retry && !progress {
			continue // nothing to record: it is tried again
		}
		e := ledger.Event{Kind: ledger.KindWritten, At: now, Number: it.owed.Number,
			Written: &ledger.Written{UpTo: it.owed.Seq, Want: it.want, Results: it.results}}
		wrote := slices.ContainsFunc(it.results, func(r ledger.WriteResult) bool { return r.Class == "" })
		if wrote || !refusedAgain(it.owed, e) {
			events = append(events, e)
		}
	}
	var err error
	if len(events) > 0 {
		// Results that are known must not be lost with the caller's context: the boxes are set.
		_, err = b.Ledger.Append(context.WithoutCancel(ctx), events...)
	}
	for _, it := range intents {
		wait := parkedWait
		if it.retry || err != nil {
			wait = max(it.after, Backoff(it.owed.Attempts))
		}
		// For work that the event above has settled this does nothing.
		err = errors.Join(err, b.Ledger.Return(ctx, it.owed, now.Add(wait), it.note))
		if err == nil && !it.retry {
			b.Metrics.settled(it.owed, it.results, now)
		}
	}
	return err
}

// refusedAgain reports whether an answer only repeats the refusal with which the work waits for a person. It is tried on in
// case the person has acted, a few times a day and perhaps for years: the ledger keeps the first refusal.
func refusedAgain(o ledger.Owed, e ledger.Event) bool {
	after, done := ledger.Settle(o, e)
	return !done && o.Parked != nil && after.Parked != nil && after.Parked.Text == o.Parked.Text
}

// Backoff returns how long to wait after the given number of attempts: 1 s doubled to 5 min, with half of it random.
func Backoff(attempts int) time.Duration {
	d := min(time.Second<<min(max(attempts-1, 0), 9), 5*time.Minute)
	return d/2 + rand.N(d/2+1)
}

func (b *Boxes) pause(crmName string, d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.paused == nil {
		b.paused = map[string]time.Time{}
	}
	b.paused[crmName] = b.Now().Add(max(d, time.Second))
}

func (b *Boxes) pausedUntil(crmName string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.paused[crmName].Sub(b.Now())
}

func compareKeys(a, b crm.Key) int {
	return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.ID, b.ID))
}

// changedAt is when the consent came to be as it is, for a date field in the CRM.
func changedAt(n ledger.Number) time.Time {
	f := n.Facts
	switch {
	case f.Stopped():
		return f.StopAt
	case f.ClosedByHand():
		return f.OutAt
	}
	switch f.State() {
	case consent.Held:
		return f.HeldAt
	case consent.Pending:
		return f.AskedAt
	}
	return slices.MaxFunc([]time.Time{f.StartAt, f.InAt, f.UndoneAt}, time.Time.Compare)
}

// sourceWord says in one word what the opt-out rests on, for a source field in the CRM.
func sourceWord(n ledger.Number) string {
	switch {
	case n.Facts.State() != consent.OptedOut && n.Facts.StartAt.After(n.Facts.InAt) && n.Facts.StartAt.After(n.Facts.UndoneAt):
		return "sms_reply"
	case n.Facts.State() != consent.OptedOut:
		return "by_hand"
	case n.Source == consent.Recipient:
		return "sms_reply"
	}
	return string(n.Source)
}

// Times asks providers when an inbound START was sent, where its webhook did not say. Until the answer is there the
// START has no effect.
type Times struct {
	Ledger   ledger.Ledger
	Accounts Accounts
	Log      *slog.Logger
	Now      func() time.Time
}

// Run does the work as it comes, until ctx ends.
func (t *Times) Run(ctx context.Context) {
	for {
		if err := t.Flush(ctx); err != nil && ctx.Err() == nil {
			t.Log.Error("the time of a START could not be asked for", "error", err)
		}
		if !sleep(ctx, timesEvery) {
			return
		}
	}
}

// timesEvery is how often owed times are looked for. A START is rare and nobody waits for it at a screen.
const timesEvery = 500 * time.Millisecond

// timesGiveUp is after how long a START whose time nobody knows stops being asked for. It then has no effect.
const timesGiveUp = 24 * time.Hour

// Flush asks for every time that may be asked for now.
func (t *Times) Flush(ctx context.Context) error {
	for {
		owed, err := t.Ledger.Claim(ctx, ledger.OweTime, 50)
		if err != nil || len(owed) == 0 {
			return err
		}
		for _, o := range owed {
			if err := t.ask(ctx, o); err != nil {
				t.Log.Warn("the provider did not say when a START was sent; asking again", "number", o.Number, "error", err)
				if err := t.Ledger.Return(ctx, o, t.Now().Add(Backoff(o.Attempts)), err.Error()); err != nil {
					return err
				}
			}
		}
	}
}

func (t *Times) ask(ctx context.Context, o ledger.Owed) error {
	start, err := t.Ledger.Event(ctx, o.Number, o.Seq)
	if err == nil && start.Inbound == nil {
		err = fmt.Errorf("event %d is no reply", o.Seq)
	}
	if err != nil {
		return err
	}
	sent := start.At.Add(-timesGiveUp * 365) // unknown: so old that it lifts nothing
	a, ok := t.Accounts.Find(start.Inbound.Account)
	f, can := a.Provider.(sms.Finder)
	if ok && can {
		m, err := f.FindInbound(ctx, start.Inbound.ProviderID)
		if err == nil && m.At.IsZero() {
			err = errors.New("the provider's answer has no time")
		}
		switch {
		case err == nil:
			sent = m.At
		case t.Now().Sub(o.Since) < timesGiveUp:
			return err
		}
	}
	e := ledger.Event{Kind: ledger.KindTimed, ID: fmt.Sprintf("timed/%d", o.Seq), At: t.Now().UTC(), Number: o.Number,
		Timed: &ledger.Timed{Of: o.Seq, SentAt: sent, Answer: start.Inbound.Answer}}
	_, err = t.Ledger.Append(ctx, e)
	return err
}
