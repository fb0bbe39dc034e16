// Package sms is what heed asks of an SMS provider: prove and decode its webhooks, send one message once, and,
// where the provider can, read back what it has seen.
//
// A driver (one folder below this one) translates and nothing else. Retrying, deduplicating, deciding, masking and
// recording happen once, in package connector. Differences between providers show as capabilities: small optional
// interfaces that a driver implements or not, and that `heed check` reports before traffic finds out.
//
// # Adding a provider
//
//  1. Copy the nearest folder. Inside it the names are always the same: <name>.go (Config, New), webhook.go
//     (authenticate, decode), client.go (calls), testdata/ (vendor payloads with their source), <name>fake/ (the emulator).
//  2. Write the signature check first, against vectors that the vendor published, then the decoder.
//  3. Write the emulator from the vendor's documentation; it must not import the driver.
//  4. Run smstest.Run from the driver's test: it says what is missing.
//  5. Add one line to cmd/heed/drivers.go.
package sms

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"
)

// Provider is one account at an SMS service. Implementations are safe for concurrent use.
type Provider interface {
	// Webhook authenticates a request that the provider is said to have sent, and only then decodes it.
	// Errors: ErrSignature when the sender is not proven (nothing of the request may be used), ErrMalformed when
	// the sender is proven but the content cannot be understood (the caller keeps the raw request).
	Webhook(r Webhook) ([]Event, error)
	// Ack is the answer that tells the provider "received, say nothing to the phone".
	Ack() Response
	// Send hands one message to the provider, in exactly one attempt: no retry, no redirect. The error is an
	// *Error whenever the provider answered, and its Class says what is known about the message; any other
	// error counts as Unknown.
	Send(ctx context.Context, m Message) (Receipt, error)
}

// InboundLog is implemented by providers whose inbound messages can be read back with their text, which is how
// the pass recovers a STOP whose webhook was lost.
type InboundLog interface {
	// Inbound yields the messages received in [since, until), in no particular order, at least once each.
	// It stops at the first error; a caller must not advance its checkpoint past since then.
	Inbound(ctx context.Context, since, until time.Time) iter.Seq2[Inbound, error]
}

// OutboundLog is implemented by providers whose sent messages can be read back. It resolves sends whose outcome is
// unknown, and finds the "recipient opted out" errors that no callback brought.
type OutboundLog interface {
	// Outbound yields the messages created in [since, until), in no particular order, at least once each.
	Outbound(ctx context.Context, since, until time.Time) iter.Seq2[Outbound, error]
}

// Finder is implemented by providers that can look up one message by their id. It gives an inbound START the time
// that its webhook lacks, so that a START which was overtaken by a later STOP does not lift it.
type Finder interface {
	// FindInbound returns the inbound message with the provider's id, or an *Error of class Rejected if there is none.
	FindInbound(ctx context.Context, providerID string) (Inbound, error)
}

// KeywordActor is implemented by providers that act on certain words by themselves, without a flag on the webhook that
// would say so. What they acted on need not be told to their list.
type KeywordActor interface {
	// ActsOn reports whether the provider, by its default rules, blocks or unblocks the sender of this message.
	ActsOn(m Inbound) bool
}

// OptOutSetter is implemented by providers that keep an opt-out list of their own which heed may write. An opt-out that
// the provider did not see or did not understand (plain words, a ticked box, a person's decision) then also stops what
// others send through the account.
type OptOutSetter interface {
	// SetOptOuts tells the provider the changes and returns one result for each, in their order: nil where the
	// provider took it, else an *Error. Any number of changes may be given, the empty number too; where a number
	// comes twice for a sender, the later change counts.
	//
	// Setting is idempotent. So, unlike a send, a change of class Throttled or Unknown may be repeated, by the driver
	// and by the caller, with the same ID and as long as it is still the latest word on its number. Rejected will not
	// work again later; with ErrNoList no other change will either.
	SetOptOuts(ctx context.Context, changes []Consent) []error
}

// Consent is one change to a provider's opt-out list.
type Consent struct {
	Number   string    // the phone, E.164
	Sender   string    // our number, short code or messaging service whose messages it is about; "" lets the driver use its configured sender
	OptedOut bool      // true blocks; false lifts the block, where the provider lets the sender's side do that
	At       time.Time // when the recipient's mind was known; zero if it is not known
	ID       string    // names the change: 1 to 32 letters and digits, the same for every repetition
}

// Prober is implemented by providers that `heed check` can ask about themselves, read-only.
type Prober interface {
	// Probe returns what it found, one finding a line of output. An unreachable provider is a finding, not an error.
	Probe(ctx context.Context) []Finding
}

// Finding is one line of `heed check`.
type Finding struct {
	OK   bool
	What string // what was looked at and what was found, one sentence, no secrets, no full numbers
	Hint string // what to do next; empty when OK
}

// Webhook is an HTTP request as heed received it, with its body read in full.
type Webhook struct {
	Method string      // GET or POST
	URL    string      // the public URL that the provider called, built from heed's configuration, with path and query as received
	Header http.Header // as received; never trusted for the scheme or host
	Body   []byte      // as received; the callee must not keep or change it
}

// Response is a literal HTTP response, status 200.
type Response struct {
	ContentType string
	Body        string
}

// Event is something a provider tells: an [Inbound] or a [Status].
type Event interface{ event() }

// Inbound is a message that a phone sent to one of our numbers.
type Inbound struct {
	ProviderID string    // the provider's message id; deduplication rests on it
	From       string    // the phone, as the provider writes it: E.164, or a short code in digits
	To         string    // our number or short code
	Service    string    // the provider's grouping of our numbers (Twilio: messaging service SID), or ""
	Body       string    // the text; may be any Unicode, or empty for media
	Media      int       // how many pictures or other media came along
	Flag       Flag      // the provider's own reading, FlagNone where it gives none
	At         time.Time // when the provider received it; zero if the provider does not say
}

// Flag is a provider's own reading of a reply (Twilio OptOutType, Plivo MessageIntent, …).
type Flag string

const (
	FlagNone  Flag = ""
	FlagStop  Flag = "stop"
	FlagStart Flag = "start"
	FlagHelp  Flag = "help"
)

// Status is what a provider tells later about a message that we sent.
type Status struct {
	ProviderID string
	State      Delivery
	Code       string    // the provider's error code, "" if none
	OptedOut   bool      // the code means: the recipient had opted out. Evidence of a STOP that heed did not see
	To         string    // the recipient, as the provider writes it
	At         time.Time // zero if the provider does not say
}

// Delivery is how far a sent message got, in the order in which it goes.
type Delivery string

const (
	DeliveryQueued    Delivery = "queued" // accepted by the provider, in any of its early states
	DeliverySent      Delivery = "sent"   // handed to the network
	DeliveryDelivered Delivery = "delivered"
	DeliveryFailed    Delivery = "failed" // will not arrive
)

func (Inbound) event() {}
func (Status) event()  {}

// Message is one message to hand to the provider.
type Message struct {
	To        string   // E.164
	From      string   // our number, short code or messaging service; "" lets the driver use its configured sender
	Body      string   // text, at most 1,600 characters
	MediaURLs []string // for MMS
	StatusURL string   // where the provider reports progress; "" for none
}

// Receipt is the provider's word that it took a message.
type Receipt struct {
	ProviderID string
	State      Delivery
	From       string // the sender the provider chose, "" if it does not say yet
}

// Outbound is a sent message read back from the provider's log.
type Outbound struct {
	ProviderID string
	From, To   string
	Body       string
	At         time.Time // when the provider took it
	State      Delivery
	Code       string
	OptedOut   bool
}

// ErrSignature means that a request is not proven to come from the provider. The HTTP answer is 403.
var ErrSignature = errors.New("webhook signature does not match")

// ErrMalformed means that a proven request could not be decoded.
var ErrMalformed = errors.New("webhook content not understood")

// ErrNoList means that the provider keeps no opt-out list which this account may write, whatever its documentation says.
// Nothing but a change at the provider or in the configuration helps.
var ErrNoList = errors.New("the provider's opt-out list is not open to this account")

// Class says what a failed call means for the message.
type Class string

const (
	Rejected  Class = "rejected"  // not accepted, and asking again would not help (bad number, no permission)
	OptedOut  Class = "opted_out" // not accepted: the recipient had opted out. Evidence of a STOP that heed did not see
	Throttled Class = "throttled" // not accepted, proven; may be tried again after RetryAfter
	Auth      Class = "auth"      // not accepted: credentials; nothing will work until somebody acts
	Unknown   Class = "unknown"   // may or may not have been accepted; must never be repeated automatically
)

// Error is a provider's refusal, or its failure to give a clear answer.
type Error struct {
	Class      Class
	Status     int           // HTTP status, 0 if there was no answer
	Code       string        // the provider's own code
	Text       string        // the provider's own text; drivers make sure that it carries no number and no body
	RetryAfter time.Duration // 0 if the provider did not say
	Err        error         // the cause, for a call that got no answer
}

func (e *Error) Error() string {
	s := fmt.Sprintf("provider: %s", e.Class)
	if e.Status != 0 {
		s += fmt.Sprintf(" (HTTP %d)", e.Status)
	}
	if e.Code != "" {
		s += " code " + e.Code
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of an error from a Provider; anything that is no *Error is Unknown.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return Unknown
}
