package connector

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/heed-sms/heed/connector/confirm"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// Inbox takes what providers tell and puts it into the ledger. It is safe for concurrent use.
type Inbox struct {
	Ledger   ledger.Ledger
	Accounts Accounts
	Replies  *reply.Classifier
	Metrics  *Metrics
	Log      *slog.Logger
	Now      func() time.Time
}

// Receive authenticates a provider's request, records what it tells and returns the answer that the provider expects.
// When it returns without error, everything is on disk.
//
// Errors: errNoAccount; sms.ErrSignature, with nothing recorded; or the ledger's, which must become 503 so that the
// provider tries again. A request that is proven but not understood is kept verbatim and is no error.
//
// message is heed's id of the message that a status callback is about, "" where the URL did not carry it.
func (in *Inbox) Receive(ctx context.Context, account string, r sms.Webhook, message string) (sms.Response, error) {
	a, ok := in.Accounts.Find(account)
	if !ok || account == "" {
		return sms.Response{}, fmt.Errorf("%w: %q", errNoAccount, account)
	}
	told, err := a.Provider.Webhook(r)
	var events []ledger.Event
	switch {
	case errors.Is(err, sms.ErrMalformed):
		in.Log.Warn("webhook is genuine but was not understood; kept for review", "account", account, "error", err)
		events = append(events, in.quarantine(account, r, err))
	case err != nil:
		return sms.Response{}, err
	}
	for _, t := range told {
		switch t := t.(type) {
		case sms.Inbound:
			e := in.inbound(ctx, a, t)
			e.Inbound.Via = ledger.ViaWebhook
			e.Inbound.Raw, e.Inbound.RawBase64 = verbatim(r.Body)
			e.Inbound.Signature = proof(r.Header)
			events = append(events, e)
		case sms.Status:
			events = append(events, in.status(account, t, message))
		}
	}
	if len(events) > 0 {
		receipts, err := in.Ledger.Append(ctx, events...)
		if err != nil {
			return sms.Response{}, err
		}
		in.Metrics.received(account, events, receipts)
	}
	return a.Provider.Ack(), nil
}

// Recover records a message that was found in the provider's log, unless its webhook came after all. missed says that
// the webhook should have come by now; pass is the pass that found it.
func (in *Inbox) Recover(ctx context.Context, account string, m sms.Inbound, pass string, missed bool) (recorded bool, err error) {
	a, ok := in.Accounts.Find(account)
	if !ok {
		return false, fmt.Errorf("%w: %q", errNoAccount, account)
	}
	e := in.inbound(ctx, a, m)
	e.Inbound.Via, e.Inbound.Pass, e.Inbound.Missed = ledger.ViaLog, pass, missed
	// The log does not carry the provider's flag, so it cannot say whether the provider has answered already. One
	// confirmation too few is lawful, one too many is not.
	e.Inbound.Answer = ""
	receipts, err := in.Ledger.Append(ctx, e)
	if err != nil {
		return false, err
	}
	in.Metrics.received(account, []ledger.Event{e}, receipts)
	return !receipts[0].Duplicate, nil
}

// InboundID returns the id under which a provider's inbound message is recorded, whichever way it comes.
func InboundID(account, providerID string) string { return eventID("in", account, providerID) }

// Read returns what a message means, as Receive would record it.
func (in *Inbox) Read(m sms.Inbound) reply.Result {
	return in.Replies.ClassifyInbound(m.Body, m.Media, string(m.Flag))
}

func (in *Inbox) inbound(ctx context.Context, a Account, m sms.Inbound) ledger.Event {
	// A sender that is no telephone number (a short code, a name) is recorded all the same: there is nothing to
	// block, but nothing of it may be lost.
	n, _ := phone.ParseE164(m.From)
	means := in.Read(m)
	if n.IsValid() && in.Ledger.State(n) == consent.Pending && in.answersQuestion(ctx, a, n, m) {
		means = doubleOptIn(means, m.Body)
	}
	_, canAsk := a.Provider.(sms.Finder)
	acts, canAct := a.Provider.(sms.KeywordActor)
	e := ledger.Event{
		Kind: ledger.KindInbound, ID: InboundID(a.Name, m.ProviderID), At: in.Now().UTC(), Number: n,
		Inbound: &ledger.Inbound{
			Account: a.Name, ProviderID: m.ProviderID, From: m.From, To: m.To, Service: m.Service, Body: m.Body,
			Media: m.Media, Flag: string(m.Flag), SentAt: m.At,
			Verdict: means.Verdict, Rule: means.Rule, Keyword: means.Keyword,
			Wait: means.Verdict == reply.OptIn && m.At.IsZero() && canAsk,
			// What the provider acted on itself is on its list already.
			Tell: m.Flag == sms.FlagNone && !(canAct && acts.ActsOn(m)),
		},
	}
	e.Inbound.Answer = in.answer(a, m, means.Verdict)
	return e
}

// questionOpen is how long the question of a double opt-in can be answered. A YES weeks later answers something else.
const questionOpen = 7 * 24 * time.Hour

// answersQuestion reports whether a reply can be an answer to the number's double opt-in: it came to the account that
// asked, after the question, and in time.
func (in *Inbox) answersQuestion(ctx context.Context, a Account, n phone.Number, m sms.Inbound) bool {
	var asked *ledger.Event
	for e, err := range in.Ledger.History(ctx, n) {
		if err != nil {
			return false
		}
		if e.Consent != nil && e.Consent.Action == consent.Ask {
			asked = &e
		}
	}
	if asked == nil || asked.Consent.Account != a.Name {
		return false
	}
	said := m.At
	if said.IsZero() {
		said = in.Now()
	}
	// Providers tell the time in whole seconds.
	return !said.Before(asked.Consent.At.Truncate(time.Second)) && said.Sub(asked.Consent.At) < questionOpen
}

// answer returns the text that heed owes for a reply, "" where somebody else answers it. A reply that carries the
// provider's flag was answered by the provider, whatever is configured: two confirmations are one too many.
func (in *Inbox) answer(a Account, m sms.Inbound, v reply.Verdict) ledger.Answer {
	kind, ok := map[reply.Verdict]ledger.Answer{reply.OptOut: ledger.AnswerStop, reply.OptIn: ledger.AnswerStart, reply.Help: ledger.AnswerHelp}[v]
	if !ok || m.Flag != sms.FlagNone || confirm.OwnerFor(confirm.Kind(kind), a.Replies, m.To) != confirm.ByHeed {
		return ""
	}
	return kind
}

func (in *Inbox) status(account string, s sms.Status, message string) ledger.Event {
	n, _ := phone.ParseE164(s.To)
	return ledger.Event{
		Kind: ledger.KindStatus, ID: eventID("st", account, s.ProviderID, string(s.State), s.Code), At: in.Now().UTC(), Number: n,
		Status: &ledger.StatusTold{
			Account: account, ProviderID: s.ProviderID, Message: message, Delivery: string(s.State), Code: s.Code,
			OptedOut: s.OptedOut, SentAt: s.At,
		},
	}
}

func (in *Inbox) quarantine(account string, r sms.Webhook, why error) ledger.Event {
	raw, enc := verbatim(r.Body)
	return ledger.Event{
		Kind: ledger.KindQuarantine, At: in.Now().UTC(),
		Quarantine: &ledger.Quarantine{Account: account, Raw: raw, Base64: enc, Reason: strings.ToValidUTF8(why.Error(), "?")},
	}
}

// proof returns the headers that carry a provider's signature, as evidence.
func proof(h http.Header) string {
	var out []string
	for name, values := range h {
		if strings.Contains(strings.ToLower(name), "signature") {
			out = append(out, name+": "+strings.Join(values, ", "))
		}
	}
	slices.Sort(out)
	return strings.ToValidUTF8(strings.Join(out, "\n"), "?")
}

// verbatim returns a body so that it survives JSON unchanged.
func verbatim(b []byte) (text string, isBase64 bool) {
	if utf8.Valid(b) {
		return string(b), false
	}
	return base64.StdEncoding.EncodeToString(b), true
}
