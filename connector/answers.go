package connector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/heed-sms/heed/connector/confirm"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/sms/phone"
)

// Answers sends the texts that heed itself owes: the confirmation of an opt-out or opt-in and the answer to HELP, on
// accounts whose replies are heed's. Who owes one is decided when the reply is recorded ([Inbox]); here it is sent, at
// most once: the attempt is recorded before it is made, under a key that no second attempt can use. A crash between
// the two loses the text, which no law asks for, rather than send a second, which the law forbids.
type Answers struct {
	Ledger  ledger.Ledger
	Gate    *Gate
	Texts   *confirm.Set
	Within  time.Duration // a confirmation that is later than this is not sent; 0 means ConfirmWithin
	Metrics *Metrics
	Log     *slog.Logger
	Now     func() time.Time
}

// ConfirmWithin is how long after an opt-out its one confirmation may be sent without having to justify the delay:
// 47 CFR 64.1200(a)(12).
const ConfirmWithin = 5 * time.Minute

// Run sends what is owed as it comes, until ctx ends.
func (a *Answers) Run(ctx context.Context) {
	Every(ctx, time.Second, a.Ledger.OwedSignal(ledger.OweAnswer), a.Log, "texts that heed owes could not be sent", a.Flush)
}

// Flush sends every text that may be sent now. An account that hangs does not delay another's.
func (a *Answers) Flush(ctx context.Context) error {
	return Crew{
		Ledger: a.Ledger, Kind: ledger.OweAnswer, PerAccount: 8, Trouble: "a text that heed owes could not be sent yet", Log: a.Log, Now: a.Now,
		Prepare: func(ctx context.Context, o ledger.Owed) (string, func(context.Context) error, error) {
			e, err := a.Ledger.Event(ctx, o.Number, o.Of)
			if err == nil && e.Inbound == nil {
				err = fmt.Errorf("event %d is no reply", o.Of)
			}
			if err != nil {
				return "", nil, err
			}
			return e.Inbound.Account, func(ctx context.Context) error { return a.answer(ctx, o, e) }, nil
		},
	}.Flush(ctx)
}

func (a *Answers) answer(ctx context.Context, o ledger.Owed, e ledger.Event) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	in := e.Inbound
	drop := func(why string) error {
		_, err := a.Ledger.Append(ctx, ledger.Event{Kind: ledger.KindDropped, At: a.Now().UTC(), Number: o.Number, Dropped: &ledger.Dropped{Of: o.Of, Why: why}})
		return err
	}
	within := a.Within
	if within == 0 {
		within = ConfirmWithin
	}
	said := in.SentAt
	if said.IsZero() {
		said = e.At
	}
	switch age := a.Now().Sub(said); {
	case age > within:
		return drop(fmt.Sprintf("it would be %s late; a confirmation must come within %s", age.Round(time.Second), within))
	case a.Texts == nil:
		return drop("no texts are configured")
	case in.Answer == ledger.AnswerStop && a.Ledger.State(o.Number) != consent.OptedOut:
		return drop("the opt-out has been lifted meanwhile")
	}
	m, err := a.Gate.sendOwn(ctx, ledger.Message{
		Key: fmt.Sprintf("answer/%d", o.Of), To: o.Number, From: in.To, Account: in.Account, Answers: o.Of, Answer: in.Answer,
		Body: a.Texts.Text(confirm.Kind(in.Answer), confirm.Language(in.Keyword, in.Body)),
	})
	if err != nil {
		return err
	}
	if m.Status == ledger.StatusSent {
		a.Metrics.answered(string(in.Answer), a.Now().Sub(said))
	}
	return nil
}

// sendOwn sends one of heed's own texts. m.Key makes it the only one for what it answers.
func (g *Gate) sendOwn(ctx context.Context, m ledger.Message) (ledger.Message, error) {
	acc, ok := g.Accounts.Find(m.Account)
	if !ok {
		return m, fmt.Errorf("%w: %q", errNoAccount, m.Account)
	}
	m.ID, m.Caller, m.Purpose, m.CreatedAt = newID("msg"), "heed", "service", g.Now().UTC()
	m.Fingerprint = m.Key
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	m, existed, err := g.Ledger.Open(ctx, m, consent.Decision{Verdict: consent.Allow, Reason: consent.OK})
	if err != nil || existed || m.Status != ledger.StatusQueued {
		return m, err
	}
	g.Limits.passing(acc.Name, g.Now()) // a confirmation goes before what others send
	return g.dispatch(ctx, acc, m), nil
}

// Every runs fn when there is a signal and at least once in each interval, for what comes due without one, until ctx ends.
func Every(ctx context.Context, interval time.Duration, signal <-chan struct{}, log *slog.Logger, trouble string, fn func(context.Context) error) {
	for {
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			log.Error(trouble, "error", err)
		}
		t := time.NewTimer(interval)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-signal:
		case <-t.C:
		}
		t.Stop()
	}
}

// Consents are the changes that people and programs make by hand, and their answers to the review queue.
type Consents struct {
	Ledger ledger.Ledger
	Gate   *Gate
	Texts  *confirm.Set
	Now    func() time.Time
}

// ErrSticky is returned for a change that would lift the recipient's own opt-out: only the recipient can (promise 4).
var ErrSticky = errors.New("the recipient opted out; only the recipient can lift that, by texting START")

// ErrHeld is returned for consent that is recorded while an unclear reply waits for a decision: that goes first.
var ErrHeld = errors.New("the number is held for review")

// ErrNotHeld is returned for a decision on a number that does not wait for one.
var ErrNotHeld = errors.New("the number is not held for review")

// ErrNotSeen is returned for a release that was decided before the newest unclear reply came.
var ErrNotSeen = errors.New("another unclear reply has come since")

// Set records that a number is opted out or opted in, on the word of source. who and why are kept.
func (c *Consents) Set(ctx context.Context, n phone.Number, state consent.State, source consent.Source, who, why string) error {
	known, err := c.Ledger.Number(ctx, n)
	if err != nil {
		return err
	}
	change := consent.Change{Source: source, At: c.Now().UTC()}
	switch state {
	case consent.OptedOut:
		change.Action = consent.OptOut
	case consent.OptedIn:
		if err := undoable(known, source); err != nil {
			return err
		}
		change.Action = consent.OptIn
	default:
		return &InputError{"state", "must be opted_out, opted_in or pending"}
	}
	return c.append(ctx, n, change, who, why, "")
}

// Undo takes an opt-out back that was made by hand or in the CRM, so that what was before it counts again. It is no consent: a
// number of which nothing else is known is unknown afterwards. A number that is not opted out stays as it is.
func (c *Consents) Undo(ctx context.Context, n phone.Number, source consent.Source, who, why string) error {
	known, err := c.Ledger.Number(ctx, n)
	if err != nil {
		return err
	}
	if err := undoable(known, source); err != nil {
		return err
	}
	if known.Facts.State() != consent.OptedOut {
		return nil
	}
	return c.append(ctx, n, consent.Change{Action: consent.Undo, Source: source, At: c.Now().UTC()}, who, why, "")
}

// undoable says whether source may undo a number's opt-out, or record its consent: nil, ErrSticky or ErrHeld.
func undoable(known ledger.Number, source consent.Source) error {
	switch {
	case !known.Facts.CanUndo(source):
		return ErrSticky
	case known.Facts.State() == consent.Held:
		return ErrHeld
	}
	return nil
}

// Ask asks a number for a double opt-in and sends the question. The number is pending until it answers YES or NO.
func (c *Consents) Ask(ctx context.Context, n phone.Number, account, lang string, source consent.Source, who, why string) (ledger.Message, error) {
	if err := c.Ledger.Health(); err != nil {
		return ledger.Message{}, err
	}
	acc, ok := c.Gate.Accounts.Find(account)
	if !ok {
		return ledger.Message{}, &InputError{"account", "no such account is configured"}
	}
	if c.Gate.Policy.Shadow {
		return ledger.Message{}, &InputError{"state", "pending asks the person by text, which mode: shadow does not do"}
	}
	switch c.Ledger.State(n) {
	case consent.OptedOut:
		return ledger.Message{}, ErrSticky
	case consent.Held:
		return ledger.Message{}, &InputError{"state", "the number is held for review; decide that first"}
	}
	if c.Texts == nil {
		return ledger.Message{}, &InputError{"state", "pending needs the texts under confirmations: in the configuration"}
	}
	if why == "" {
		return ledger.Message{}, &InputError{"why", "is missing: say where the person asked for messages; a text may not be the first question"}
	}
	id := newID("ask")
	if c.Ledger.State(n) == consent.Pending {
		return ledger.Message{}, nil // asked already; asking again would be nagging
	}
	change := consent.Change{Action: consent.Ask, Source: source, At: c.Now().UTC()}
	if _, err := c.Ledger.Append(ctx, ledger.Event{Kind: ledger.KindConsent, ID: id, At: change.At, Number: n,
		Consent: &ledger.Consent{Change: change, Account: acc.Name, Actor: who, Why: why}}); err != nil {
		return ledger.Message{}, err
	}
	return c.Gate.sendOwn(ctx, ledger.Message{Key: id + "/question", To: n, Account: acc.Name, Answer: ledger.AnswerAsk,
		Body: c.Texts.Text(confirm.OptInQuestion, lang)})
}

// Resolve answers a held reply: it was a request to stop (stop), or it was not.
//
// seen is the Held.Seq that the decision was made on; if another unclear reply came since, it is ErrNotSeen. 0 decides on
// whatever there is.
func (c *Consents) Resolve(ctx context.Context, n phone.Number, stop bool, seen uint64, who, why string) error {
	known, err := c.Ledger.Number(ctx, n)
	if err != nil {
		return err
	}
	if known.Facts.State() != consent.Held {
		return ErrNotHeld
	}
	if seen != 0 && !stop {
		for e, err := range c.Ledger.History(ctx, n) {
			if err != nil {
				return err
			}
			if e.Seq > seen && e.Inbound != nil && e.Inbound.Verdict == reply.Hold {
				return ErrNotSeen
			}
		}
	}
	change := consent.Change{Action: consent.Release, Source: consent.Admin, At: c.Now().UTC()}
	if stop {
		// It was the recipient's wish all along, so only the recipient lifts it again.
		change = consent.Change{Action: consent.OptOut, Source: consent.Recipient, At: change.At}
	}
	// A decision comes after what it decides, whatever the clock says. (A tie would go to the hold.)
	if after := known.Facts.HeldAt.Add(time.Millisecond); change.At.Before(after) {
		change.At = after
	}
	return c.append(ctx, n, change, who, why, "")
}

func (c *Consents) append(ctx context.Context, n phone.Number, change consent.Change, who, why, id string) error {
	_, err := c.Ledger.Append(ctx, ledger.Event{Kind: ledger.KindConsent, ID: id, At: change.At, Number: n,
		Consent: &ledger.Consent{Change: change, Actor: who, Why: why}})
	return err
}

// Held is one entry of the review queue.
type Held struct {
	Number     phone.Number `json:"number"`
	Seq        uint64       `json:"seq"`  // of the newest unclear reply; names what a decision was made on
	Text       string       `json:"text"` // all unclear replies since, oldest first, a line each
	Rule       string       `json:"rule"`
	Account    string       `json:"account"`
	Since      time.Time    `json:"since"`
	Deadline   time.Time    `json:"deadline"`   // it becomes an opt-out by itself then
	Suggestion string       `json:"suggestion"` // opt_out or release
}

// Holds watches the review queue: what nobody decides becomes an opt-out at its deadline.
type Holds struct {
	Ledger   ledger.Ledger
	Deadline func(since time.Time) time.Time // when a hold that began then ends
	Log      *slog.Logger
	Now      func() time.Time
}

// List returns the review queue, oldest first.
func (h *Holds) List(ctx context.Context) ([]Held, error) {
	out := []Held{}
	for o, err := range h.Ledger.Owed(ctx) {
		if err != nil {
			return nil, err
		}
		if o.Kind != ledger.OweHold {
			continue
		}
		item := Held{Number: o.Number, Seq: o.Seq, Since: o.Since, Deadline: h.Deadline(o.Since)}
		var texts []string
		for e, err := range h.Ledger.History(ctx, o.Number) {
			if err != nil {
				return nil, err
			}
			if e.Inbound == nil || e.Inbound.Verdict != reply.Hold || e.At.Before(o.Since) {
				continue
			}
			item.Rule, item.Account = e.Inbound.Rule, e.Inbound.Account
			if e.Inbound.Body != "" {
				texts = append(texts, e.Inbound.Body)
			}
		}
		// Pictures and voice notes alone: nothing speaks for an opt-out but the silence.
		item.Text, item.Suggestion = strings.Join(texts, "\n"), "opt_out"
		if len(texts) == 0 {
			item.Suggestion = "release"
		}
		out = append(out, item)
	}
	slices.SortFunc(out, func(a, b Held) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Number.Uint64(), b.Number.Uint64()))
	})
	return out, nil
}

// Flush turns every hold whose deadline has passed into an opt-out.
func (h *Holds) Flush(ctx context.Context) error {
	now := h.Now().UTC()
	var events []ledger.Event
	for o, err := range h.Ledger.Owed(ctx) {
		if err != nil {
			return err
		}
		if o.Kind == ledger.OweHold && !now.Before(h.Deadline(o.Since)) {
			events = append(events, ledger.Event{Kind: ledger.KindConsent, ID: fmt.Sprintf("deadline/%d/%d", o.Number.Uint64(), o.Seq), At: now, Number: o.Number,
				Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: consent.Deadline, At: now},
					Why: "nobody decided on an unclear reply before its deadline"}})
		}
	}
	if len(events) == 0 {
		return nil
	}
	h.Log.Info("unclear replies became opt-outs at their deadline", "numbers", len(events))
	_, err := h.Ledger.Append(ctx, events...)
	return err
}

// Run looks at the deadlines until ctx ends.
func (h *Holds) Run(ctx context.Context) {
	Every(ctx, 30*time.Second, nil, h.Log, "the review queue could not be looked at", h.Flush)
}

// doubleOptIn reads the answer to the question of a double opt-in, which means something only while it is open.
func doubleOptIn(means reply.Result, body string) reply.Result {
	if means.Verdict != reply.None || strings.Contains(body, "?") {
		return means
	}
	word := strings.ToLower(strings.TrimFunc(body, func(r rune) bool { return !unicode.IsLetter(r) }))
	switch word {
	case "yes", "y", "si", "sí", "oui", "sim", "ja":
		return reply.Result{Verdict: reply.OptIn, Rule: "double_opt_in", Keyword: word}
	case "no", "n", "non", "não", "nao", "nein":
		return reply.Result{Verdict: reply.OptOut, Rule: "double_opt_in", Keyword: word}
	}
	return means
}
