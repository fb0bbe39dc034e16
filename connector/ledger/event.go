package ledger

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// Kind names what happened. The strings are written to disk for ever: add, never change.
type Kind string

const (
	KindInbound    Kind = "inbound"         // a phone's message, from a webhook or from the provider's log
	KindTimed      Kind = "inbound.timed"   // when an earlier inbound START was really sent
	KindQuarantine Kind = "inbound.unclear" // a proven webhook that could not be decoded, kept verbatim
	KindConsent    Kind = "consent"         // a change not made by a reply: admin, API, CRM, provider evidence, deadline
	KindOpened     Kind = "message.opened"  // a send was asked for and decided, before anything left the house
	KindStarted    Kind = "message.started" // a deferred send is about to be attempted
	KindOutcome    Kind = "message.outcome" // what the attempt to send came to
	KindStatus     Kind = "message.status"  // what the provider told later
	KindWritten    Kind = "crm.written"     // boxes were set, or could not be
	KindCorrection Kind = "pass.correction" // a pass found a difference
	KindPass       Kind = "pass"            // a pass began or ended
	KindDropped    Kind = "answer.dropped"  // an answer that was owed to a phone is not sent
	KindTold       Kind = "provider.told"   // the provider's own opt-out list was written, or could not be
	KindRelayed    Kind = "status.relayed"  // a client was told where its message stands, or could not be
	KindNoted      Kind = "crm.noted"       // the outcome of a send was left on its record, or could not be
	KindDelivered  Kind = "pass.delivered"  // a report was handed to somebody who wants it
	KindAccess     Kind = "access"          // an API key or a person's account was made, changed or taken away
	KindAct        Kind = "act"             // a person did something that changes nobody's consent
)

// Event is one thing that happened. Exactly one of the pointers matches Kind.
// An event is immutable once appended.
type Event struct {
	Seq    uint64       `json:"-"` // its place in the ledger, set by the ledger
	Hash   [32]byte     `json:"-"` // of its record: see package chain; set when read back
	Kind   Kind         `json:"kind"`
	ID     string       `json:"id,omitempty"`    // unique, at most 512 bytes; "" is never a duplicate
	At     time.Time    `json:"at"`              // when heed recorded it, UTC
	Number phone.Number `json:"number,omitzero"` // whom it concerns; none for passes and unparsable senders

	Inbound    *Inbound    `json:"inbound,omitempty"`
	Timed      *Timed      `json:"timed,omitempty"`
	Quarantine *Quarantine `json:"quarantine,omitempty"`
	Consent    *Consent    `json:"consent,omitempty"`
	Opened     *Message    `json:"opened,omitempty"`
	Outcome    *Outcome    `json:"outcome,omitempty"`
	Status     *StatusTold `json:"status,omitempty"`
	Written    *Written    `json:"written,omitempty"`
	Correction *Correction `json:"correction,omitempty"`
	Pass       *Pass       `json:"pass,omitempty"`
	Dropped    *Dropped    `json:"dropped,omitempty"`
	Told       *Told       `json:"told,omitempty"`
	Started    *Started    `json:"started,omitempty"`
	Relayed    *Relayed    `json:"relayed,omitempty"`
	Noted      *Noted      `json:"noted,omitempty"`
	Delivered  *Delivered  `json:"delivered,omitempty"`
	Access     *Access     `json:"access,omitempty"`
	Act        *Act        `json:"act,omitempty"`
}

// Via says how an inbound message reached heed.
type Via string

const (
	ViaWebhook Via = "webhook"
	ViaLog     Via = "log" // read back from the provider's log
)

// Inbound is a message from a phone and what heed took it to mean.
type Inbound struct {
	Account    string        `json:"account"`
	ProviderID string        `json:"provider_id"`
	From       string        `json:"from"` // as the provider wrote it
	To         string        `json:"to"`
	Service    string        `json:"service,omitempty"`
	Body       string        `json:"body"`
	Media      int           `json:"media,omitempty"`
	Flag       string        `json:"flag,omitempty"`
	SentAt     time.Time     `json:"sent_at,omitzero"` // by the provider's clock; zero if it did not say
	Via        Via           `json:"via"`
	Missed     bool          `json:"missed,omitempty"` // its webhook should have come and had not
	Pass       string        `json:"pass,omitempty"`   // the pass that recovered it
	Verdict    reply.Verdict `json:"verdict"`
	Rule       string        `json:"rule"`
	Keyword    string        `json:"keyword,omitempty"`
	Raw        string        `json:"raw,omitempty"` // the request body, verbatim: the evidence
	RawBase64  bool          `json:"raw_base64,omitempty"`
	Signature  string        `json:"signature,omitempty"` // what proved it
	Wait       bool          `json:"wait,omitempty"`      // a START whose time is not known yet: takes effect with its Timed event
	Answer     Answer        `json:"answer,omitempty"`    // the text that heed owes for it, if it changes anything; "" where provider or network answers
	Tell       bool          `json:"tell,omitempty"`      // the provider itself does not act on these words, so its own list must be told
}

// Answer names a text that heed itself sends.
type Answer string

const (
	AnswerStop  Answer = "stop"            // confirms an opt-out; the one message that an opted-out number gets
	AnswerStart Answer = "start"           // confirms an opt-in
	AnswerHelp  Answer = "help"            // who sends, and how to stop
	AnswerAsk   Answer = "opt_in_question" // asks for a double opt-in
)

// Timed gives an inbound START the time at which the phone sent it.
type Timed struct {
	Of     uint64    `json:"of"` // sequence of the Inbound event
	SentAt time.Time `json:"sent_at"`
	Answer Answer    `json:"answer,omitempty"` // as in the Inbound event
}

// Dropped says why an answer is not sent.
type Dropped struct {
	Of  uint64 `json:"of"` // sequence of the Inbound event that it answers
	Why string `json:"why"`
}

// Told tells what became of the providers' own lists for one number.
type Told struct {
	UpTo    uint64       `json:"up_to"` // the owed work that it settles, as in Written
	Want    bool         `json:"want"`  // opted out
	Results []ToldResult `json:"results,omitempty"`
}

// ToldResult is one provider account's answer.
type ToldResult struct {
	Account string `json:"account"`
	Class   string `json:"class,omitempty"` // "" means taken; otherwise an sms.Class
	Code    string `json:"code,omitempty"`
	Text    string `json:"text,omitempty"`
}

// Quarantine keeps a request that was proven but not understood.
type Quarantine struct {
	Account string `json:"account"`
	Raw     string `json:"raw"` // verbatim; base64 if it is not UTF-8
	Base64  bool   `json:"base64,omitempty"`
	Reason  string `json:"reason"`
}

// Consent is a change made by somebody else than the phone.
type Consent struct {
	consent.Change
	Actor   string   `json:"actor,omitempty"`   // who: a person, a key's name, the CRM user
	Why     string   `json:"why,omitempty"`     // in their words, or the evidence
	Account string   `json:"account,omitempty"` // for action ask: which account asked
	CRM     string   `json:"crm,omitempty"`     // for source crm: which CRM …
	Record  *crm.Key `json:"record,omitempty"`  // … and which record's box
	Pass    string   `json:"pass,omitempty"`    // the pass that saw it
}

// Status is where a message stands.
type Status string

const (
	StatusQueued  Status = "queued"  // allowed, not yet handed over
	StatusSent    Status = "sent"    // the provider took it
	StatusBlocked Status = "blocked" // never left the house
	StatusHeld    Status = "held"    // waits for a person
	StatusFailed  Status = "failed"  // the provider refused it, or could not deliver it
	StatusUnknown Status = "unknown" // the provider may have taken it; never repeated
)

// Message is a send that somebody asked for. As an event's Opened it is the request and the decision; read back
// with Ledger.Message it also carries what became of it.
type Message struct {
	ID          string           `json:"id"`
	Key         string           `json:"key,omitempty"`         // the caller's idempotency key, scoped by the caller's name; becomes the event's ID
	Fingerprint string           `json:"fingerprint,omitempty"` // hash of what was asked, to tell a repeated request from a reused key
	Caller      string           `json:"caller,omitempty"`      // name of the API key
	To          phone.Number     `json:"to,omitzero"`
	ToRaw       string           `json:"to_raw,omitempty"` // as asked, kept where it is no number
	From        string           `json:"from,omitempty"`
	Body        string           `json:"body"`
	MediaURLs   []string         `json:"media_urls,omitempty"`
	Account     string           `json:"account"`
	Campaign    string           `json:"campaign,omitempty"`
	Purpose     string           `json:"kind,omitempty"`
	Record      *crm.Key         `json:"record,omitempty"`
	Answers     uint64           `json:"answers,omitempty"` // sequence of the Inbound event that heed itself answers with it
	Answer      Answer           `json:"answer,omitempty"`
	Deferred    bool             `json:"deferred,omitempty"`   // sent from the queue, after its caller was answered
	SendAt      time.Time        `json:"send_at,omitzero"`     // Deferred: not to be sent before
	Callback    *Callback        `json:"callback,omitempty"`   // who wants to be told where it stands
	WriteBack   *WriteBack       `json:"write_back,omitempty"` // where its outcome is to be left on Record
	Decision    consent.Decision `json:"decision"`
	CreatedAt   time.Time        `json:"created_at"`

	// What followed, folded from Outcome and StatusTold events.
	Started    bool      `json:"started,omitempty"` // Deferred: its attempt has been recorded, or that there will be none
	Status     Status    `json:"status,omitempty"`
	ProviderID string    `json:"provider_id,omitempty"`
	Delivery   string    `json:"delivery,omitempty"`
	Code       string    `json:"code,omitempty"`
	Error      string    `json:"error,omitempty"`
	UpdatedAt  time.Time `json:"updated_at,omitzero"`
}

// Callback is a client's address for news of a message.
type Callback struct {
	URL string `json:"url"`
	As  string `json:"as,omitempty"` // how the client names the account
	// Signer signs what is sent there in the client's name: the state of HMAC-SHA1 after its key was taken in. It signs,
	// and the key cannot be computed from it.
	Signer []byte `json:"signer,omitempty"`
}

// WriteBack names a text field of a message's record.
type WriteBack struct {
	CRM   string `json:"crm"`
	Field string `json:"field"`
}

// Relayed says that a client was told where its message stands.
type Relayed struct {
	Message string `json:"message"`
	Of      uint64 `json:"of"`               // sequence of the Opened event
	UpTo    uint64 `json:"up_to"`            // the owed work that it settles, as in Written
	Status  string `json:"status"`           // in the words of the client's API
	Failed  string `json:"failed,omitempty"` // why heed gave up
}

// Noted says what became of a note on a record.
type Noted struct {
	Message string `json:"message"`
	Of      uint64 `json:"of"`
	UpTo    uint64 `json:"up_to"`
	Note    string `json:"note"`
	Class   string `json:"class,omitempty"` // "" means written; otherwise a crm.Class
	Text    string `json:"text,omitempty"`  // the CRM's words
}

// Delivered says that the report of a pass reached one of those who want it.
type Delivered struct {
	Pass string `json:"pass"`
	Of   uint64 `json:"of"` // sequence of the event that ended the pass
	To   string `json:"to"` // as in Pass.Deliver
}

// AccessSort is a sort of way in.
type AccessSort string

const (
	AccessKey  AccessSort = "key"  // an API key
	AccessUser AccessSort = "user" // a person's account
)

// Access is a way into heed. Of several events with one sort and name the newest counts.
type Access struct {
	Sort     AccessSort `json:"sort"`
	Name     string     `json:"name"`
	SHA256   string     `json:"sha256,omitempty"`   // AccessKey: hash of the key in hex
	Password string     `json:"password,omitempty"` // AccessUser: argon2id hash in PHC form; "" for one who signs in elsewhere
	May      []string   `json:"may,omitempty"`      // rights of a key, the role of a person
	Removed  bool       `json:"removed,omitempty"`
	By       string     `json:"by,omitempty"`
	Why      string     `json:"why,omitempty"`

	At  time.Time `json:"-"` // set when read back, from the event
	Seq uint64    `json:"-"`
}

// Act is something that a person did, for the record.
type Act struct {
	Who    string `json:"who"`
	Via    string `json:"via"`              // page, command line, api
	What   string `json:"what"`             // a stable word: sign_in, export, retry, bulk_opt_out, …
	Detail string `json:"detail,omitempty"` // for people, numbers masked
	Why    string `json:"why,omitempty"`    // in their words
}

// Started says that a deferred send is about to be attempted. It is recorded first, so that after a crash nobody takes
// an attempt that was made for one that was not.
type Started struct {
	Message string `json:"message"`
	Of      uint64 `json:"of"` // sequence of the Opened event
}

// Outcome is what one attempt to send came to.
type Outcome struct {
	Message    string           `json:"message"`
	Status     Status           `json:"status"`
	ProviderID string           `json:"provider_id,omitempty"`
	From       string           `json:"from,omitempty"`
	Code       string           `json:"code,omitempty"`
	Error      string           `json:"error,omitempty"`
	OptedOut   bool             `json:"opted_out,omitempty"` // the provider refused because the recipient had opted out
	Decision   consent.Decision `json:"decision,omitzero"`   // for a send prevented at the last moment: the new decision
	StartedAt  time.Time        `json:"started_at,omitzero"` // when the attempt began
	Of         uint64           `json:"of,omitempty"`        // a deferred message that will not be attempted: sequence of its Opened event
}

// StatusTold is a provider's later word on a message.
type StatusTold struct {
	Account    string    `json:"account"`
	ProviderID string    `json:"provider_id"`
	Message    string    `json:"message,omitempty"` // heed's id, where it is known
	Delivery   string    `json:"delivery"`
	Code       string    `json:"code,omitempty"`
	OptedOut   bool      `json:"opted_out,omitempty"`
	SentAt     time.Time `json:"sent_at,omitzero"`
	Pass       string    `json:"pass,omitempty"` // the pass that settled an unknown message with it
}

// Written tells what became of the boxes of one number's records.
type Written struct {
	UpTo    uint64        `json:"up_to"` // the owed work that it settles: everything owed for the number up to this sequence
	Want    bool          `json:"want"`  // the value that was to be set
	Results []WriteResult `json:"results,omitempty"`
}

// WriteResult is one record's answer.
type WriteResult struct {
	CRM string `json:"crm"`
	crm.Key
	OptedOut bool   `json:"opted_out"`       // the value written
	Class    string `json:"class,omitempty"` // "" means written; otherwise a crm.Class
	Text     string `json:"text,omitempty"`  // the CRM's words
}

// Correction is one difference that a pass found, and what became of it.
type Correction struct {
	Pass     string    `json:"pass"`
	CRM      string    `json:"crm,omitempty"`
	Account  string    `json:"account,omitempty"`
	Record   *crm.Key  `json:"record,omitempty"`
	Cause    string    `json:"cause"`  // a stable word; package reconcile lists them
	Action   string    `json:"action"` // tick, untick, opt_out, opt_in, recover, none
	Detail   string    `json:"detail"` // one sentence for people, numbers masked
	By       string    `json:"by,omitempty"`
	ByAt     time.Time `json:"by_at,omitzero"`
	Result   string    `json:"result,omitempty"` // done, pending, parked: folded from Written events; left: nothing can be done
	ResultAt time.Time `json:"result_at,omitzero"`
	Text     string    `json:"text,omitempty"` // the CRM's words where it refused

	Number phone.Number `json:"-"` // set when read back, from the event
	Seq    uint64       `json:"-"` // likewise
}

// Pass is a run of the reconciliation.
type Pass struct {
	ID         string         `json:"id"`
	Kind       string         `json:"kind"` // incremental, nightly, manual
	Full       bool           `json:"full,omitempty"`
	StartedAt  time.Time      `json:"started_at"`
	FinishedAt time.Time      `json:"finished_at,omitzero"` // zero: began, or interrupted
	Error      string         `json:"error,omitempty"`      // why it is partial
	Counts     map[string]int `json:"counts,omitempty"`     // records read, inbound read, …
	Notes      []string       `json:"notes,omitempty"`      // what could not be checked, and why
	Causes     map[string]int `json:"causes,omitempty"`     // folded: corrections by cause
	Results    map[string]int `json:"results,omitempty"`    // folded: corrections by result
	Head       string         `json:"head,omitempty"`       // hash of the journal when the pass ended: the anchor
	HeadSeq    uint64         `json:"head_seq,omitempty"`
	Owed       int            `json:"owed,omitempty"` // the conservation sum at the end
	Parked     int            `json:"parked,omitempty"`
	Inbound    uint64         `json:"inbound,omitempty"`
	OptOuts    uint64         `json:"opt_outs,omitempty"`
	Blocked    uint64         `json:"blocked,omitempty"`
	Unknown    uint64         `json:"unknown,omitempty"`
	Deliver    []string       `json:"deliver,omitempty"` // at its end: who is to get the report
	Figures    *Figures       `json:"figures,omitempty"` // of full and manual passes: what happened since the one before
	// Standing are the differences that heed knows and leaves alone, as far as the pass looked.
	Standing []Standing `json:"standing,omitempty"`
}

// Standing is a kind of difference that heed knows and leaves alone. It is no correction: it is counted in each report for
// as long as it stands.
type Standing struct {
	Cause  string `json:"cause"`            // a stable word; package reconcile lists them
	N      int    `json:"n"`                // how many there are
	Before *int   `json:"before,omitempty"` // how many there were in the full report before; nil if that did not count them
	Listed []Left `json:"listed,omitempty"` // those that changed last, newest first; bounded
}

// Left is one difference that is left alone.
type Left struct {
	CRM    string       `json:"crm,omitempty"`
	Record *crm.Key     `json:"record,omitempty"`
	Number phone.Number `json:"number,omitzero"`
	Detail string       `json:"detail"`         // one sentence for people, numbers masked
	By     string       `json:"by,omitempty"`   // who last changed the record
	At     time.Time    `json:"at,omitzero"`    // when, or since when it stands
	Text   string       `json:"text,omitempty"` // the words of whoever refused
}

// Figures sum up what happened between two reports. They are computed from the events alone, once, and kept, so that a
// report can be read after years.
type Figures struct {
	After uint64    `json:"after"` // events behind this sequence are counted …
	UpTo  uint64    `json:"up_to"` // … up to this one
	From  time.Time `json:"from,omitzero"`

	OptOuts   int            `json:"opt_outs"`            // changes to opted out
	Recovered int            `json:"recovered,omitempty"` // of them, read back from the provider's log because no webhook had brought them
	Sent      int            `json:"sent"`                // messages that a provider took
	Prevented map[string]int `json:"prevented,omitempty"` // messages that the gate did not let out, by reason
	// InFlight are the sends that had begun when their number's opt-out was recorded and that may have reached the phone.
	InFlight     []InFlight      `json:"in_flight,omitempty"`
	InFlightMore int             `json:"in_flight_more,omitempty"` // beyond those that are listed
	Clocks       []Clock         `json:"clocks,omitempty"`
	Campaigns    []CampaignCount `json:"campaigns,omitempty"`
	Window       time.Duration   `json:"window,omitempty"` // for which an opt-out is attributed to the message before it, nanoseconds
	// What one message costs, in the operator's currency, 0 if it is not configured.
	MessageCost float64 `json:"message_cost,omitempty"`
}

// InFlight is a send that an opt-out came too late for.
type InFlight struct {
	Message string       `json:"message"`
	Number  phone.Number `json:"number"`
	Started time.Time    `json:"started"` // when the attempt began
	Stop    time.Time    `json:"stop"`    // when the opt-out was recorded
	Ended   time.Time    `json:"ended"`   // when the provider's answer was recorded
	Status  Status       `json:"status"`  // sent or unknown
}

// Clock says how long opt-outs took to have an effect somewhere.
type Clock struct {
	To    string        `json:"to"` // box, provider, confirmation
	N     int           `json:"n"`
	P50   time.Duration `json:"p50"` // nanoseconds
	P95   time.Duration `json:"p95"`
	Worst time.Duration `json:"worst"`
	Limit string        `json:"limit,omitempty"` // what the law or the operator allows, for people
	Late  int           `json:"late"`            // of N, beyond the limit
}

// CampaignCount is what one campaign sent, and the opt-outs that are attributed to it.
type CampaignCount struct {
	Campaign string `json:"campaign"` // "" is no campaign
	Sent     int    `json:"sent"`
	OptOuts  int    `json:"opt_outs"`
}

// maxID bounds, in bytes, everything by which engines look things up. Provider ids, idempotency keys and names are far
// shorter.
const maxID = 512

// Encode returns the event as it is written to disk. It fails with ErrInvalid on an event that breaks the rules above.
func (e Event) Encode() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(e)
	if err != nil { // a time after the year 9999
		return nil, fmt.Errorf("%w: kind %q: %w", ErrInvalid, e.Kind, err)
	}
	return b, nil
}

func (e Event) check() error {
	n := 0
	ok := false
	for _, p := range []struct {
		kind Kind
		set  bool
	}{
		{KindInbound, e.Inbound != nil}, {KindTimed, e.Timed != nil}, {KindQuarantine, e.Quarantine != nil},
		{KindConsent, e.Consent != nil}, {KindOpened, e.Opened != nil}, {KindOutcome, e.Outcome != nil},
		{KindStatus, e.Status != nil}, {KindWritten, e.Written != nil}, {KindCorrection, e.Correction != nil},
		{KindPass, e.Pass != nil}, {KindDropped, e.Dropped != nil}, {KindTold, e.Told != nil}, {KindStarted, e.Started != nil},
		{KindRelayed, e.Relayed != nil}, {KindNoted, e.Noted != nil}, {KindDelivered, e.Delivered != nil},
		{KindAccess, e.Access != nil}, {KindAct, e.Act != nil},
	} {
		if p.set {
			n++
			ok = ok || p.kind == e.Kind
		}
	}
	switch {
	case n != 1 || !ok:
		return fmt.Errorf("%w: kind %q with %d payloads", ErrInvalid, e.Kind, n)
	case e.At.IsZero():
		return fmt.Errorf("%w: kind %q without a time", ErrInvalid, e.Kind)
	case len(e.ID) > maxID:
		return fmt.Errorf("%w: id of %d bytes, at most %d", ErrInvalid, len(e.ID), maxID)
	}
	if problem := e.checkPayload(); problem != "" {
		return fmt.Errorf("%w: kind %q: %s", ErrInvalid, e.Kind, problem)
	}
	return nil
}

// checkPayload says what is wrong with a payload, "" if nothing is. Two things matter here. What the fold would not
// understand must not be acknowledged: an opt-out with a misspelt action would have no effect. And what an engine
// could not store under its keys must not reach the journal: no index could be computed from it any more.
func (e Event) checkPayload() string {
	required, optional := []string{}, []string{}
	switch {
	case e.Inbound != nil:
		switch e.Inbound.Verdict {
		case reply.OptOut, reply.OptIn, reply.Help, reply.Hold, reply.None:
		default:
			return "unknown verdict"
		}
	case e.Timed != nil:
		if e.Timed.SentAt.IsZero() {
			return "no sent_at"
		}
	case e.Consent != nil:
		switch c := e.Consent.Change; {
		case !c.Known():
			return "unknown action or source"
		case c.At.IsZero():
			return "change without a time"
		case !e.Number.IsValid():
			return "change without a number"
		}
	case e.Opened != nil:
		required = []string{e.Opened.ID}
		optional = []string{e.Opened.Account}
	case e.Started != nil:
		required = []string{e.Started.Message}
	case e.Outcome != nil:
		switch e.Outcome.Status {
		case StatusQueued, StatusSent, StatusBlocked, StatusHeld, StatusFailed, StatusUnknown:
		default:
			return "unknown status"
		}
		required = []string{e.Outcome.Message}
		optional = []string{e.Outcome.ProviderID}
	case e.Status != nil:
		optional = []string{e.Status.Account, e.Status.ProviderID, e.Status.Message}
	case e.Written != nil:
		for _, r := range e.Written.Results {
			required = append(required, r.CRM, r.Object, r.ID)
		}
	case e.Correction != nil:
		required = []string{e.Correction.Pass}
		if r := e.Correction.Record; r != nil {
			optional = []string{e.Correction.CRM, r.Object, r.ID}
		}
	case e.Pass != nil:
		required = append([]string{e.Pass.ID}, e.Pass.Deliver...)
	case e.Relayed != nil:
		required = []string{e.Relayed.Message}
	case e.Noted != nil:
		required = []string{e.Noted.Message}
	case e.Delivered != nil:
		required = []string{e.Delivered.Pass, e.Delivered.To}
	case e.Access != nil:
		if e.Access.Sort != AccessKey && e.Access.Sort != AccessUser {
			return "unknown sort of access"
		}
		required = []string{e.Access.Name}
	case e.Act != nil:
		required = []string{e.Act.Who, e.Act.What}
	}
	for _, name := range required {
		if name == "" {
			return "a name or id is empty"
		}
	}
	for _, name := range append(required, optional...) {
		if len(name) > maxID || strings.ContainsRune(name, 0) {
			return fmt.Sprintf("a name or id is longer than %d bytes or contains a NUL", maxID)
		}
	}
	return ""
}

// Decode reads what Encode wrote. A kind that this version does not know is an error: an older heed must not fold a
// newer one's ledger and believe the result.
func Decode(b []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("decode event: %w", err)
	}
	if err := e.check(); err != nil {
		return e, fmt.Errorf("decode event: %w (written by a newer version of heed?)", err)
	}
	return e, nil
}
