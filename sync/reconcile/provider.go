package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

const (
	// overlap is how far behind its checkpoint a provider's log is read again: messages appear in it late and out of
	// order, and reading one twice costs nothing.
	overlap = time.Hour
	// nightlyInbound is how much of the log a nightly or manual pass compares at the least, whatever the checkpoint says.
	nightlyInbound = 25 * time.Hour
	// onTheWay is how long a webhook may take before it counts as missed.
	onTheWay = 30 * time.Second
)

// inbound compares a provider's log of received messages with the ledger and records what is missing.
func (p *pass) inbound(ctx context.Context, a Account) error {
	log, ok := a.Provider.(sms.InboundLog)
	if !ok {
		return nil
	}
	cursor := "inbound/" + a.Name
	last, err := p.loadTime(ctx, cursor)
	if err != nil {
		return err
	}
	until := p.Now().UTC()
	since := last.Add(-overlap)
	if p.opts.Kind != Incremental {
		since = earlier(since, until.Add(-nightlyInbound))
	}
	if last.IsZero() {
		since = until.Add(-backfill(p.Runner))
	}
	if since, err = p.readingFrom(ctx, cursor, since); err != nil {
		return err
	}
	stage := "reading the message log of " + a.Name
	read := 0
	p.progress(stage, 0, 0)
	for m, err := range log.Inbound(ctx, since, until) {
		if err != nil {
			return fmt.Errorf("the messages that %s received could not be read in full, so STOPs whose webhook was lost may not be known yet: %w", a.Name, err)
		}
		read++
		p.read[a.Name]++
		p.count("inbound_read", 1)
		p.progress(stage, read, 0)
		seen, err := p.Ledger.Seen(ctx, eventID("in", a.Name, m.ProviderID))
		if err != nil {
			return err
		}
		if seen {
			continue
		}
		// A webhook that may still be on its way is given its time: the next pass reads this part of the log again.
		if !m.At.Before(until.Add(-onTheWay)) && !m.At.Before(p.Started) {
			continue
		}
		before := last.IsZero() && (p.Started.IsZero() || m.At.Before(p.Started))
		if err := p.recoverInbound(ctx, a, m, before); err != nil {
			return err
		}
	}
	return p.saveTime(ctx, cursor, later(last, until))
}

// recoverInbound records a message that no webhook brought. Should its webhook come after all, it is a repetition.
func (p *pass) recoverInbound(ctx context.Context, a Account, m sms.Inbound, before bool) error {
	means := p.Inbox.Read(m)
	action := map[reply.Verdict]string{reply.OptOut: optOut, reply.OptIn: optIn, reply.Hold: hold}[means.Verdict]
	if action != "" {
		n, _ := phone.ParseE164(m.From) // a short code has no consent, but its message is told of
		c := ledger.Correction{
			Pass: p.pass.ID, Account: a.Name, Cause: MissedWebhook, Action: action, Result: "done", ByAt: m.At,
			Detail: fmt.Sprintf("%s texted %s at %s; it was in the provider's log and no webhook had brought it.", phone.Mask(m.From), word(means), clock(m.At)),
		}
		if before {
			c.Cause = BackfillCause
			c.Detail = fmt.Sprintf("%s texted %s at %s, before heed took webhooks.", phone.Mask(m.From), word(means), clock(m.At))
		}
		// First the correction, then what it tells of: a pass that ends between the two finds the message missing again,
		// and this event, which has the message's id, already there.
		e := ledger.Event{Kind: ledger.KindCorrection, ID: eventID("fix", "in", a.Name, m.ProviderID), At: p.Now().UTC(), Number: n, Correction: &c}
		if err := p.note(ctx, finding{correction: e}); err != nil {
			return err
		}
	}
	recorded := p.opts.DryRun
	if !recorded {
		var err error
		if recorded, err = p.Inbox.Recover(ctx, a.Name, m, p.pass.ID, !before); err != nil {
			return err
		}
	}
	if recorded {
		p.learned.recover(a.Name, !before)
	}
	return nil
}

// word says what a reply means without quoting it.
func word(r reply.Result) string {
	switch {
	case r.Keyword != "":
		return r.Keyword
	case r.Verdict == reply.OptOut:
		return "a request to stop"
	case r.Verdict == reply.OptIn:
		return "a request to start again"
	}
	return "what may be a request to stop"
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.UTC().Format("2006-01-02 15:04:05 MST")
}

const (
	// unknownAfter is how old a message must be before its fate is looked up: until then the attempt may still run.
	unknownAfter = time.Minute
	// matchWindow is how far apart the gate's and the provider's time of one message may be: the attempt may take a
	// minute from the decision on, and clocks differ by as much.
	matchWindow = 2 * time.Minute
	// An unknown message is looked for in each incremental pass for an hour, then nightly for a week. One that the
	// provider's log never shows was most likely not sent, which nobody can prove; it stays unknown.
	lookOften = time.Hour
	lookAtAll = 7 * 24 * time.Hour
	// maxUnknown bounds the messages that one pass looks for.
	maxUnknown = 10_000
)

// candidate is a sent message of the provider's log that may be one whose outcome is unknown.
type candidate struct {
	unknown int // index
	off     time.Duration
	log     sms.Outbound
}

// outbound looks in a provider's log of sent messages for those whose outcome is unknown, and at night for refusals that
// tell of an opt-out which heed has not seen. It never sends anything.
func (p *pass) outbound(ctx context.Context, a Account) error {
	now := p.Now().UTC()
	log, can := a.Provider.(sms.OutboundLog)
	maxAge := lookAtAll
	if p.opts.Kind == Incremental {
		maxAge = lookOften
	}
	var unknown []ledger.Message
	since := now
	for m, err := range p.Ledger.Unsettled(ctx) {
		if err != nil {
			return err
		}
		age := now.Sub(m.CreatedAt)
		if m.Account == a.Name && m.Status == ledger.StatusUnknown && age > unknownAfter && age < maxAge && len(unknown) < maxUnknown {
			unknown = append(unknown, m)
			since = earlier(since, m.CreatedAt.Add(-matchWindow))
		}
	}
	cursor := "outbound/" + a.Name
	harvest := p.opts.Kind != Incremental
	if harvest {
		last, err := p.loadTime(ctx, cursor)
		if err != nil {
			return err
		}
		if last.IsZero() {
			last = now.Add(-backfill(p.Runner))
		}
		since = earlier(since, last.Add(-overlap))
	}
	switch {
	case !can && len(unknown) > 0:
		p.count("sends_still_unknown", len(unknown))
		p.pass.Notes = append(p.pass.Notes, fmt.Sprintf("%s does not let sent messages be read back: the outcome of %d stays unknown.", a.Name, len(unknown)))
		return nil
	case !can, len(unknown) == 0 && !harvest:
		return nil
	}
	var err error
	if since, err = p.readingFrom(ctx, cursor, since); err != nil {
		return err
	}
	byContent := map[[2]string][]int{}
	for i, m := range unknown {
		k := [2]string{m.To.String(), m.Body}
		byContent[k] = append(byContent[k], i)
	}
	stage := "reading the messages sent by " + a.Name
	p.progress(stage, 0, 0)
	var found []candidate
	read := 0
	for o, err := range log.Outbound(ctx, since, now) {
		if err != nil {
			return fmt.Errorf("the messages that %s sent could not be read in full, so the outcome of %d stays unknown: %w", a.Name, len(unknown), err)
		}
		read++
		p.count("outbound_read", 1)
		p.progress(stage, read, 0)
		for _, i := range byContent[[2]string{o.To, o.Body}] {
			if off := o.At.Sub(unknown[i].CreatedAt).Abs(); off <= matchWindow {
				found = append(found, candidate{i, off, o})
			}
		}
		if harvest && o.OptedOut {
			if err := p.refused(ctx, a, o); err != nil {
				return err
			}
		}
	}
	settled, err := p.settle(ctx, a, unknown, found)
	if err != nil {
		return err
	}
	p.learned.Settled += settled
	p.count("sends_still_unknown", len(unknown)-settled)
	if harvest {
		return p.saveTime(ctx, cursor, now)
	}
	return nil
}

// settle gives unknown messages the fate of the log's messages, the closest in time first and each of them once.
func (p *pass) settle(ctx context.Context, a Account, unknown []ledger.Message, found []candidate) (settled int, _ error) {
	slices.SortFunc(found, func(x, y candidate) int {
		return cmp.Or(cmp.Compare(x.off, y.off), cmp.Compare(x.unknown, y.unknown), cmp.Compare(x.log.ProviderID, y.log.ProviderID))
	})
	given, used := map[int]bool{}, map[string]bool{}
	for _, c := range found {
		if given[c.unknown] || used[c.log.ProviderID] {
			continue
		}
		// Another message of the same words may have gone out as well, with its outcome known.
		switch _, err := p.Ledger.MessageByProvider(ctx, a.Name, c.log.ProviderID); {
		case err == nil:
			used[c.log.ProviderID] = true
			continue
		case !errors.Is(err, ledger.ErrNotFound):
			return settled, err
		}
		given[c.unknown], used[c.log.ProviderID] = true, true
		settled++
		if p.opts.DryRun {
			continue
		}
		m := unknown[c.unknown]
		e := p.status(a, c.log, m.To)
		e.Status.Message, e.Status.Pass = m.ID, p.pass.ID
		receipts, err := p.Ledger.Append(ctx, e)
		if err == nil && receipts[0].Duplicate {
			// The provider told of it before anybody could say whose message it was.
			e.ID = eventID(e.ID, m.ID)
			_, err = p.Ledger.Append(ctx, e)
		}
		if err != nil {
			return settled, err
		}
	}
	return settled, nil
}

// refused records that the provider refused a message because its recipient had opted out, unless that is known.
func (p *pass) refused(ctx context.Context, a Account, o sms.Outbound) error {
	n, err := phone.ParseE164(o.To)
	if err != nil {
		return nil // a short code has no consent
	}
	e := p.status(a, o, n)
	if seen, err := p.Ledger.Seen(ctx, e.ID); err != nil || seen {
		return err
	}
	known, err := p.Ledger.Number(ctx, n)
	if err != nil {
		return err
	}
	after, _ := ledger.ApplyNumber(known, e)
	if known.Facts.State() == consent.OptedOut || after.Facts.State() != consent.OptedOut {
		return p.append(ctx, e)
	}
	c := ledger.Correction{
		Pass: p.pass.ID, Account: a.Name, Cause: ProviderOnly, Action: optOut, Result: "done", ByAt: o.At,
		Detail: fmt.Sprintf("The provider refused a message to %s of %s (code %s): the recipient had opted out.", n.Masked(), clock(o.At), cmp.Or(o.Code, "none")),
	}
	return p.note(ctx, finding{
		correction: ledger.Event{Kind: ledger.KindCorrection, ID: eventID("fix", "out", a.Name, o.ProviderID), At: p.Now().UTC(), Number: n, Correction: &c},
		with:       []ledger.Event{e},
	})
}

// status is the event that a status callback of the provider would have become.
func (p *pass) status(a Account, o sms.Outbound, to phone.Number) ledger.Event {
	state := cmp.Or(string(o.State), string(sms.DeliveryQueued))
	return ledger.Event{
		Kind: ledger.KindStatus, ID: eventID("st", a.Name, o.ProviderID, state, o.Code), At: p.Now().UTC(), Number: to,
		Status: &ledger.StatusTold{Account: a.Name, ProviderID: o.ProviderID, Delivery: state, Code: o.Code, OptedOut: o.OptedOut, SentAt: o.At},
	}
}
