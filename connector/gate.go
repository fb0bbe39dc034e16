package connector

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// Gate is the one way out: every message that a CRM wants to send is decided here. It is safe for concurrent use.
//
// The decision is recorded before anything leaves, and is looked at again in the instant in which the request to
// the provider begins. An opt-out that is acknowledged before that instant prevents the send; one that comes later
// finds the request begun, and cancels it if its bytes have not left.
type Gate struct {
	Ledger    ledger.Ledger
	Accounts  Accounts
	CRMs      []CRM
	Policy    consent.Policy // as the ledger's
	Region    string         // for numbers without a country code, ISO 3166-1 alpha-2
	Limits    *Limits        // how fast accounts send, nil for as fast as they can
	PublicURL string         // base of the status callback URL, "" for no callbacks
	Metrics   *Metrics
	Log       *slog.Logger
	Now       func() time.Time
	// Wait waits for an account's turn and before a busy provider is asked again, and reports whether ctx let it; nil waits in real time.
	Wait func(ctx context.Context, d time.Duration) bool

	lanes lanes
}

// Send is a request to send one message.
type Send struct {
	Caller    string   // the API key's name
	Key       string   // the caller's idempotency key, "" for none
	To        string   // as the CRM has it
	From      string   // "" for the account's sender
	Body      string   // at most MaxBody characters
	MediaURLs []string // for MMS
	Account   string   // "" for the first
	Campaign  string
	Purpose   string
	Record    *crm.Key // the CRM record that the message is for
	Ticked    bool     // the caller says that the record's box is ticked
	// Deferred answers the caller once the decision is on disk, and sends afterwards. The decision is taken again then.
	Deferred bool
	// SendAt puts a send off: it is Deferred and not attempted before. Zero for now.
	SendAt time.Time
	// Callback is whom to tell where the message stands, once it was taken on; nil for nobody.
	Callback *ledger.Callback
	// WriteBack is where to leave the outcome on Record; nil for nowhere.
	WriteBack *ledger.WriteBack
	// SameKey says that the key alone names the message: a repetition may carry other words for the same thing.
	SameKey bool
}

// MaxBody is the longest text, in characters, that a provider takes as one message (Twilio's limit).
const MaxBody = 1600

// InputError is a request that cannot be understood. Nothing was recorded.
type InputError struct {
	Field  string // name of the JSON field
	Reason string
}

func (e *InputError) Error() string { return e.Field + ": " + e.Reason }

// Start makes the gate follow the ledger: requests that are under way are stopped where their number's decision
// changes. The returned function ends it.
func (g *Gate) Start() (stop func()) {
	return g.Ledger.Watch(func(n phone.Number, d consent.Decision) {
		if d.Verdict != consent.Allow {
			g.lanes.stop(n)
		}
	})
}

// Send decides on a message and, if it is allowed, hands it to the provider. The returned message says what became
// of it: a blocked message is an answer, not an error. existed is set when the same idempotency key was answered
// before; nothing is sent then.
//
// Errors: *InputError; *TooManyError, which means that nothing was recorded; ledger.ErrKeyReused; or
// ledger.ErrUnavailable, which means that nothing was sent.
func (g *Gate) Send(ctx context.Context, s Send) (m ledger.Message, existed bool, _ error) {
	a, ok := g.Accounts.Find(s.Account)
	switch {
	case !ok:
		return ledger.Message{}, false, &InputError{"account", "no such account is configured"}
	case s.To == "":
		return ledger.Message{}, false, &InputError{"to", "is missing"}
	case s.Body == "" && len(s.MediaURLs) == 0:
		return ledger.Message{}, false, &InputError{"body", "is missing"}
	case strings.TrimSpace(s.Body) == "" && len(s.MediaURLs) == 0:
		return ledger.Message{}, false, &InputError{"body", "is only white space"}
	case utf8.RuneCountInString(s.Body) > MaxBody:
		return ledger.Message{}, false, &InputError{"body", fmt.Sprintf("is longer than %d characters", MaxBody)}
	case len(s.Key) > 255:
		return ledger.Message{}, false, &InputError{"Idempotency-Key", "is longer than 255 characters"}
	}
	m = ledger.Message{
		ID: newID("msg"), Caller: s.Caller, ToRaw: s.To, From: s.From, Body: s.Body, MediaURLs: s.MediaURLs,
		Account: a.Name, Campaign: s.Campaign, Purpose: s.Purpose, Record: s.Record, CreatedAt: g.Now().UTC(),
	}
	s.Deferred = s.Deferred || !s.SendAt.IsZero()
	m.Fingerprint, m.Deferred, m.SendAt, m.Callback, m.WriteBack = fingerprint(s), s.Deferred, s.SendAt, s.Callback, s.WriteBack
	if s.Key != "" {
		m.Key = eventID("key", s.Caller, hashHex(s.Key))
		if s.SameKey {
			m.Fingerprint = m.Key
		}
	}
	floor, err := g.floor(ctx, &m)
	if err != nil {
		return ledger.Message{}, false, err
	}
	if s.Ticked && floor.Verdict == consent.Allow {
		floor = g.Policy.Apply(consent.Decision{Verdict: consent.Block, Reason: consent.CRMOptOut})
	}
	// What is refused needs no turn, and what is deferred waits for one later.
	if !s.Deferred && floor.Verdict == consent.Allow && g.Ledger.Decide(m.To).Verdict == consent.Allow {
		if err := g.firstTurn(ctx, a.Name, m.Key); err != nil {
			return ledger.Message{}, false, err
		}
	}
	// Once it is asked for, a decision is recorded even if the caller hangs up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	m, existed, err = g.Ledger.Open(ctx, m, floor)
	if err != nil || existed {
		return m, existed, err
	}
	g.Metrics.decided(m.Decision)
	if m.Status != ledger.StatusQueued || m.Deferred {
		return m, false, nil
	}
	return g.dispatch(ctx, a, m), false, nil
}

// sendTimeout bounds one send from decision to recorded outcome. It is longer than any provider client's own timeout,
// so that the provider's answer, not ours, ends the wait.
const sendTimeout = 60 * time.Second

// floor is what the gate knows beside the number's state: whether it is a number, and whether the named record's box
// is ticked.
//
// A record that the mirror does not have says nothing: it may be too new for it, and its number decides.
func (g *Gate) floor(ctx context.Context, m *ledger.Message) (consent.Decision, error) {
	allow := consent.Decision{Verdict: consent.Allow, Reason: consent.OK}
	ticked := false
	if m.Record != nil {
		var err error
		if ticked, err = g.ticked(ctx, *m.Record); err != nil {
			return allow, err
		}
	}
	n, err := phone.Parse(m.ToRaw, g.Region)
	if err != nil {
		return consent.Decision{Verdict: consent.Block, Reason: consent.InvalidNumber}, nil
	}
	m.To, m.ToRaw = n, ""
	if ticked {
		return g.Policy.Apply(consent.Decision{Verdict: consent.Block, Reason: consent.CRMOptOut}), nil
	}
	return allow, nil
}

// ticked reports whether a record's box is ticked, as far as the mirror knows. It fails with *InputError on a key that no
// CRM can read, and with ledger.ErrUnavailable.
func (g *Gate) ticked(ctx context.Context, k crm.Key) (bool, error) {
	if k.Object == "" || k.ID == "" {
		return false, &InputError{"record", "needs object and id"}
	}
	var unread error
	readable := len(g.CRMs) == 0
	for _, c := range g.CRMs {
		key := k
		if canon, ok := c.Directory.(crm.Canonicalizer); ok {
			var err error
			if key, err = canon.Canonical(k); err != nil {
				unread = err
				continue
			}
		}
		readable = true
		records, err := g.Ledger.Mirror(c.Name).Get(ctx, []crm.Key{key})
		if err != nil {
			return false, fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
		}
		if len(records) > 0 && records[0].OptedOut {
			return true, nil
		}
	}
	if !readable {
		return false, &InputError{"record", unread.Error()}
	}
	return false, nil
}

// dispatch makes the one attempt to hand an allowed message to the provider, and records what came of it. Where the
// provider proved that it did not take a deferred message because it was busy, it is asked again.
func (g *Gate) dispatch(ctx context.Context, a Account, m ledger.Message) ledger.Message {
	record := ctx // what became of it is recorded even if the shutdown ended the waiting
	ctx, cancel := g.lanes.until(ctx)
	defer cancel()
	for try := 1; ; try++ {
		out, again := g.attempt(ctx, a, m)
		if !m.Deferred && m.Answer == "" || again == 0 || try == maxTries || !g.wait(ctx, max(again, Backoff(try))) || g.turn(ctx, a.Name, queueTimeout) != nil {
			return g.settle(record, m, out)
		}
	}
}

// maxTries bounds how often a busy provider is asked to take one deferred message.
const maxTries = 6

// attempt asks the provider once. again is not 0 if the provider was busy and proved that it took nothing: how long it
// wants to be left alone, at least a moment.
func (g *Gate) attempt(ctx context.Context, a Account, m ledger.Message) (_ ledger.Outcome, again time.Duration) {
	began := g.Now().UTC()
	out := ledger.Outcome{Message: m.ID, StartedAt: began}
	lane, leave := g.lanes.enter(ctx, m.To)
	// From here on a change of the decision finds this request. So either the next line sees the change, or the
	// change comes after the request has begun.
	if d := ledger.Exempt(m, g.Ledger.Decide(m.To)); d.Verdict != consent.Allow {
		leave()
		out.Status, out.Decision = ledger.InitialStatus(d), d
		return out, 0
	}
	if m.Deferred && m.Record != nil && g.Policy.Apply(consent.Decision{Verdict: consent.Block, Reason: consent.CRMOptOut}).Verdict != consent.Allow {
		// Its box may have been ticked while it waited.
		if ticked, err := g.ticked(ctx, *m.Record); err != nil || ticked {
			leave()
			out.Status, out.Decision = ledger.StatusBlocked, consent.Decision{Verdict: consent.Block, Reason: consent.CRMOptOut}
			if err != nil {
				out.Decision.Reason = consent.Unavailable
			}
			return out, 0
		}
	}
	msg := sms.Message{To: m.To.String(), From: m.From, Body: m.Body, MediaURLs: m.MediaURLs}
	if g.PublicURL != "" {
		msg.StatusURL = g.PublicURL + "/webhooks/" + url.PathEscape(a.Name) + "/status?message=" + url.QueryEscape(m.ID)
	}
	receipt, err := a.Provider.Send(lane, msg)
	stopped := errors.Is(context.Cause(lane), errStopped)
	leave()
	var pe *sms.Error
	errors.As(err, &pe)
	switch class := sms.ClassOf(err); {
	case err == nil:
		out.Status, out.ProviderID, out.From = ledger.StatusSent, receipt.ProviderID, receipt.From
	case class == sms.OptedOut:
		// The provider knows of a STOP that heed has not seen. It is one, from now on.
		out.Status, out.OptedOut, out.Code = ledger.StatusBlocked, true, pe.Code
		out.Decision = consent.Decision{Verdict: consent.Block, Reason: consent.ReasonOptedOut}
		out.Error = "the provider refused it: the recipient had opted out"
	case stopped && class == sms.Throttled: // proven: it never left
		d := g.Ledger.Decide(m.To)
		out.Status, out.Decision = ledger.InitialStatus(d), d
		if d.Verdict == consent.Allow { // the opt-out was lifted again meanwhile; the send is still refused, not repeated
			out.Status, out.Error = ledger.StatusFailed, "stopped by an opt-out while it was being sent"
		}
	case class == sms.Unknown:
		out.Status, out.Error = ledger.StatusUnknown, "the provider gave no clear answer; it may have been sent"
	case class == sms.Throttled:
		out.Status, out.Error = ledger.StatusFailed, err.Error()
		again = time.Millisecond
		if pe != nil {
			again = max(again, pe.RetryAfter)
		}
	default:
		out.Status, out.Error = ledger.StatusFailed, err.Error()
	}
	if pe != nil {
		out.Code = pe.Code
	}
	if err != nil {
		g.Log.Warn("send did not succeed", "message", m.ID, "to", m.To, "status", out.Status, "error", err)
	}
	return out, again
}

// settle records an outcome. If that fails the message stays open in the ledger, and becomes unknown at the next
// start; the caller is told unknown at once.
func (g *Gate) settle(ctx context.Context, m ledger.Message, out ledger.Outcome) ledger.Message {
	e := ledger.Event{Kind: ledger.KindOutcome, ID: "out/" + m.ID, At: g.Now().UTC(), Number: m.To, Outcome: &out}
	if _, err := g.Ledger.Append(ctx, e); err != nil {
		g.Log.Error("outcome of a send could not be recorded", "message", m.ID, "status", out.Status, "error", err)
		if out.Status == ledger.StatusSent || out.Status == ledger.StatusUnknown {
			out = ledger.Outcome{Message: m.ID, Status: ledger.StatusUnknown, ProviderID: out.ProviderID, Error: "its outcome could not be recorded"}
			e.Outcome = &out
		}
	}
	m = ledger.ApplyMessage(m, e)
	g.Metrics.sent(m)
	return m
}

// Abandoned turns every message that was allowed but has no outcome into an unknown one. It runs once at the start,
// before the gate opens: whoever was sending them is gone, and nobody knows how far they got.
//
// While the daemon runs it is called again for messages of some age, whose outcome could not be recorded.
func (g *Gate) Abandoned(ctx context.Context, before time.Time) (int, error) {
	n := 0
	for m, err := range g.Ledger.Unsettled(ctx) {
		if err != nil {
			return n, err
		}
		if m.Status != ledger.StatusQueued || m.Deferred && !m.Started || m.CreatedAt.After(before) || m.UpdatedAt.After(before) {
			continue // known to be unknown, or still waiting in the queue
		}
		// An id of its own: should the outcome become known after all, it must not be taken for a repetition of this.
		e := ledger.Event{Kind: ledger.KindOutcome, ID: "lost/" + m.ID, At: g.Now().UTC(), Number: m.To, Outcome: &ledger.Outcome{
			Message: m.ID, Status: ledger.StatusUnknown, Error: "heed stopped while it was being sent; it may have been sent",
			StartedAt: m.UpdatedAt, // when it was recorded that it would be attempted: no attempt was earlier
		}}
		if _, err := g.Ledger.Append(ctx, e); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// ErrStarted says that a message is not waiting any more, or never did.
var ErrStarted = errors.New("the message does not wait to be sent")

// CodeCanceled is the Code of a message that its caller took back before it was sent. Its Status is failed.
const CodeCanceled = "canceled"

// Cancel takes back a message that waits to be sent. Errors: ledger.ErrNotFound; ErrStarted if its attempt has begun or
// it waits no more; ledger.ErrUnavailable.
func (g *Gate) Cancel(ctx context.Context, id string) (ledger.Message, error) {
	m, err := g.Ledger.Message(ctx, id)
	if err != nil {
		return m, err
	}
	owed, err := g.Ledger.OwedOf(ctx, m.To)
	if err != nil {
		return m, err
	}
	for _, o := range owed {
		if o.Kind != ledger.OweSend {
			continue
		}
		e, err := g.Ledger.Event(ctx, m.To, o.Of)
		if err != nil {
			return m, err
		}
		if e.Opened != nil && e.Opened.ID == id {
			return g.endWaiting(ctx, m, o, ledger.Outcome{Status: ledger.StatusFailed, Code: CodeCanceled, Error: "taken back before it was sent"})
		}
	}
	return m, ErrStarted
}

// endWaiting records that a message that waits will not be attempted. The event has the id that the beginning of an
// attempt has, so that of the two only one can be.
func (g *Gate) endWaiting(ctx context.Context, m ledger.Message, o ledger.Owed, out ledger.Outcome) (ledger.Message, error) {
	out.Message, out.Of = m.ID, o.Of
	e := ledger.Event{Kind: ledger.KindOutcome, ID: startID(m.ID), At: g.Now().UTC(), Number: m.To, Outcome: &out}
	r, err := g.Ledger.Append(context.WithoutCancel(ctx), e)
	switch {
	case err != nil:
		return m, err
	case r[0].Duplicate:
		return m, ErrStarted
	}
	m = ledger.ApplyMessage(m, e)
	g.Metrics.sent(m)
	return m, nil
}

func startID(message string) string { return "start/" + message }

// Decision is the gate's answer about one number, without a send.
type Decision struct {
	Input  string       `json:"input"`
	Number phone.Number `json:"number"` // null in JSON where the input is no number
	consent.Decision
}

// MarshalJSON writes the number as null where there is none.
func (d Decision) MarshalJSON() ([]byte, error) {
	var n *string
	if d.Number.IsValid() {
		s := d.Number.String()
		n = &s
	}
	return json.Marshal(struct {
		Input    string          `json:"input"`
		Number   *string         `json:"number"`
		Decision consent.Verdict `json:"decision"`
		Reason   consent.Reason  `json:"reason"`
	}{d.Input, n, d.Decision.Verdict, d.Decision.Reason})
}

// Decide answers for a number as the CRM has it.
func (g *Gate) Decide(input string) Decision {
	n, err := phone.Parse(input, g.Region)
	if err != nil {
		return Decision{Input: input, Decision: consent.Decision{Verdict: consent.Block, Reason: consent.InvalidNumber}}
	}
	return Decision{Input: input, Number: n, Decision: g.Ledger.Decide(n)}
}

// Abort ends the waiting for providers' answers, for a shutdown that cannot wait. What was on its way becomes unknown.
func (g *Gate) Abort() { g.lanes.abort() }

// lanes know which requests to providers are under way, by number.
type lanes struct {
	mu      sync.Mutex
	open    map[phone.Number][]*lane
	aborted bool
	waiting map[int]context.CancelFunc // ends the waits of sends that are under way
	next    int
}

type lane struct {
	stop    context.CancelCauseFunc
	written bool // the request's header has left for the provider: cancelling now would only lose its answer
}

var errStopped = errors.New("the recipient opted out")

// enter registers a request for a number and returns the context to make it with.
func (ls *lanes) enter(ctx context.Context, n phone.Number) (_ context.Context, leave func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &lane{stop: cancel}
	ls.mu.Lock()
	if ls.open == nil {
		ls.open = map[phone.Number][]*lane{}
	}
	ls.open[n] = append(ls.open[n], l)
	ls.mu.Unlock()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		l.written = true
	}})
	return ctx, func() {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		rest := ls.open[n][:0]
		for _, o := range ls.open[n] {
			if o != l {
				rest = append(rest, o)
			}
		}
		if ls.open[n] = rest; len(rest) == 0 {
			delete(ls.open, n)
		}
		cancel(nil)
	}
}

// stop cancels the number's requests whose bytes have not left.
func (ls *lanes) stop(n phone.Number) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.open[n] {
		if !l.written {
			l.stop(errStopped)
		}
	}
}

// until returns a context that also ends with abort.
func (ls *lanes) until(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.aborted {
		cancel()
		return ctx, cancel
	}
	if ls.waiting == nil {
		ls.waiting = map[int]context.CancelFunc{}
	}
	id := ls.next
	ls.next++
	ls.waiting[id] = cancel
	return ctx, func() {
		cancel()
		ls.mu.Lock()
		defer ls.mu.Unlock()
		delete(ls.waiting, id)
	}
}

// abort cancels every request, whatever has left, and every wait, now and from now on.
func (ls *lanes) abort() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.aborted = true
	for _, cancel := range ls.waiting {
		cancel()
	}
	for _, open := range ls.open {
		for _, l := range open {
			l.stop(context.Canceled)
		}
	}
}

// newID returns an id that sorts by time: a prefix, 48 bits of milliseconds and 80 random bits.
func newID(prefix string) string {
	var b [16]byte
	ms := uint64(time.Now().UnixMilli())
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	_, _ = rand.Read(b[6:]) // never fails (crypto/rand)
	return prefix + "_" + hex.EncodeToString(b[:])
}

func hashHex(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:16])
}

// fingerprint tells a repeated request from another one under the same key.
func fingerprint(s Send) string {
	record := ""
	if s.Record != nil {
		record = s.Record.Object + "/" + s.Record.ID
	}
	parts := append([]string{s.To, s.From, s.Body, s.Account, s.Campaign, s.Purpose, record}, s.MediaURLs...)
	if !s.SendAt.IsZero() {
		parts = append(parts, "at "+s.SendAt.UTC().Format(time.RFC3339Nano))
	}
	if s.Callback != nil {
		parts = append(parts, "callback "+s.Callback.URL)
	}
	b, _ := json.Marshal(parts)
	return hashHex(strings.ToValidUTF8(string(b), "?"))
}
