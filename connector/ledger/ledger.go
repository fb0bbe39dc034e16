// Package ledger is heed's memory: what happened, and what is known and owed because of it.
//
// This package is the contract: the events, the rules by which they fold into state, and the [Ledger] interface
// that everything else in heed talks to. It does no I/O. An engine lives in a folder of its own ([local] is the
// embedded one, a journal and a bbolt index) and must pass the suite in ledgertest. No caller sees a file, a
// transaction or an engine's type, and none may assume that it is the only process that writes.
//
// # What an engine owes
//
//   - Append returns only when its events are durable. It may be killed at any moment: an event whose Append
//     returned is there, exactly once; one whose Append did not return is there whole or not at all.
//   - An event's ID is unique: appending it again changes nothing and says so.
//   - State is a pure fold of the events in sequence ([Fold] and the Apply functions here), so it can be thrown away
//     and computed again. Mirror and cursors are caches of other systems and are not part of the fold.
//   - Decide sees an opt-out before the Append that recorded it returns (promise 2), and answers
//     consent.Unavailable when the engine cannot vouch for its state (promise 3).
package ledger

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger/chain"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// Proven is a step of a proof.
type Proven struct {
	chain.Link
	Own     bool        // it is an event of the number; else Nonce and Payload are empty
	Nonce   chain.Nonce // with the payload it amounts to the link's digest
	Payload []byte      // the event as Encode returned it; valid until the next step
}

// Ledger is an engine. All methods are safe for concurrent use.
type Ledger interface {
	// Append records events, all of them or none, and returns when they are durable. (Killed in the middle, it may leave
	// the first few, which nobody has acknowledged.) An event whose ID is already
	// known is not recorded again; its receipt says Duplicate and carries the first one's sequence.
	// The durable write is not tied to ctx: a cancelled context stops the waiting, not the writing.
	// Errors: ErrUnavailable when the ledger cannot write (disk full, sync failed); then nothing may be acknowledged.
	Append(ctx context.Context, events ...Event) ([]Receipt, error)

	// Open decides on a message and records it with the decision, in one step with respect to every other event:
	// no opt-out can fall between. floor is what the caller knows better than the number's state (an unparsable
	// number, a ticked box on the named record); the stricter of the two wins. If the message's Key was used
	// before, the earlier message is returned with existed set, or ErrKeyReused if it was another message.
	Open(ctx context.Context, m Message, floor consent.Decision) (_ Message, existed bool, _ error)

	// Decide returns the gate's decision for a number now. It is a memory lookup, and fails closed.
	Decide(n phone.Number) consent.Decision

	// State returns a number's state now, from memory; consent.OptedOut when the engine cannot vouch for it.
	State(n phone.Number) consent.State

	// Watch registers fn to be called for every change of a number's decision, before the Append that made it
	// returns. fn must be quick and must not call the ledger. The returned function ends the watch.
	Watch(fn func(n phone.Number, d consent.Decision)) (stop func())

	// The reads below see everything whose Append returned before they were called.

	// Number returns what is known of a number; a number never heard of is a zero record without error.
	Number(ctx context.Context, n phone.Number) (Number, error)
	// Numbers yields the known numbers after the given one, in numerical order.
	Numbers(ctx context.Context, after phone.Number) iter.Seq2[Number, error]
	// Find returns a page of the numbers that match a query, newest change first.
	Find(ctx context.Context, q Query) (Found, error)
	// OptOuts yields the changes to opted out at or after since, newest first.
	OptOuts(ctx context.Context, since time.Time) iter.Seq2[OptOut, error]
	// LastOptOut returns a number's newest change to opted out, or ErrNotFound.
	LastOptOut(ctx context.Context, n phone.Number) (OptOut, error)
	// Traffic yields what was sent and refused at or after since, by hour, sender and campaign, oldest first.
	Traffic(ctx context.Context, since time.Time) iter.Seq2[Traffic, error]
	// History yields every event that concerns a number, oldest first.
	History(ctx context.Context, n phone.Number) iter.Seq2[Event, error]
	// Prove yields what proves a number's events to whoever knows the hash of a later one: links of the hash chain, by
	// ascending sequence, each following the one before it (chain.Link.Follows), from the number's first event to the
	// newest event of the ledger, by way of all of the number's events and of the given sequences, which ascend; those
	// that do not lie in between are left out. Only the number's own events come with payload and nonce. Events that an
	// engine cannot prove, because an early build recorded them, are left out at the beginning. A number without events
	// yields nothing.
	Prove(ctx context.Context, n phone.Number, through []uint64) iter.Seq2[Proven, error]
	// Events yields the whole ledger from a sequence on, oldest first.
	Events(ctx context.Context, from uint64) iter.Seq2[Event, error]
	// Event returns one event of a number, or ErrNotFound.
	Event(ctx context.Context, n phone.Number, seq uint64) (Event, error)
	// Audit yields what people did (ByPerson), newest first.
	Audit(ctx context.Context) iter.Seq2[Event, error]
	// Access yields the newest Access of each sort and name, removed ones included, by sort and name.
	Access(ctx context.Context) iter.Seq2[Access, error]
	// Seen reports whether an event with this ID was recorded.
	Seen(ctx context.Context, id string) (bool, error)
	// Message returns a message by heed's id, or ErrNotFound.
	Message(ctx context.Context, id string) (Message, error)
	// MessageByProvider returns a message by the provider's id, or ErrNotFound.
	MessageByProvider(ctx context.Context, account, providerID string) (Message, error)
	// Messages yields messages, newest first; with a status only those that have it now.
	Messages(ctx context.Context, status Status) iter.Seq2[Message, error]
	// MessagesBefore yields the messages that were asked for before the one with this id, newest first; ErrNotFound if there
	// is none with it. What is newer costs nothing.
	MessagesBefore(ctx context.Context, id string) iter.Seq2[Message, error]
	// Unsettled yields the messages whose outcome is still open: allowed but without an outcome, or unknown.
	Unsettled(ctx context.Context) iter.Seq2[Message, error]

	// Claim takes up to limit pieces of owed work of a kind whose time has come. A claimed piece is not handed out
	// again until it is settled by the event that records its completion, given back with Return, or its
	// process dies.
	Claim(ctx context.Context, kind OwedKind, limit int) ([]Owed, error)
	// Return gives a claimed piece back, not to be handed out before until. note says why, for people.
	Return(ctx context.Context, o Owed, until time.Time, note string) error
	// Hurry makes the delayed and the parked work of a kind due now.
	Hurry(ctx context.Context, kind OwedKind) error
	// Owed yields all owed work, parked or not.
	Owed(ctx context.Context) iter.Seq2[Owed, error]
	// OwedOf returns all owed work of one number, by key.
	OwedOf(ctx context.Context, n phone.Number) ([]Owed, error)
	// OwedSignal receives a value when work of a kind may have become claimable. Spurious and merged signals are normal.
	OwedSignal(kind OwedKind) <-chan struct{}

	// Reports yields the finished and unfinished passes, newest first.
	Reports(ctx context.Context) iter.Seq2[Pass, error]
	// Report returns a pass, or ErrNotFound.
	Report(ctx context.Context, id string) (Pass, error)
	// Corrections yields a pass's corrections in the order in which they were made.
	Corrections(ctx context.Context, pass string) iter.Seq2[Correction, error]

	// Mirror is the cache of a CRM's records.
	Mirror(crmName string) Mirror
	// Cursor returns a named checkpoint, "" if there is none.
	Cursor(ctx context.Context, name string) (string, error)
	// SetCursor stores a named checkpoint.
	SetCursor(ctx context.Context, name, value string) error

	// Stats returns counts for metrics, the readiness check and the conservation sum.
	Stats(ctx context.Context) (Stats, error)
	// Health returns nil, or why the ledger cannot be relied on (wrapping ErrUnavailable).
	Health() error
	// Backup writes a consistent copy of everything that cannot be computed again, while the ledger is in use.
	Backup(ctx context.Context, w io.Writer) error
	// Close makes everything durable and releases the ledger.
	Close() error
}

// Errors. Engines wrap them with the circumstances.
var (
	ErrUnavailable = errors.New("ledger unavailable")
	ErrNotFound    = errors.New("not in the ledger")
	ErrKeyReused   = errors.New("idempotency key was used for a different message")
	ErrInvalid     = errors.New("invalid event")
)

// Receipt is the ledger's word on one appended event.
type Receipt struct {
	Seq       uint64 // the event's place in the ledger
	Duplicate bool   // it was there before
}

// Stats are counts. They are exact for the moment at which they were taken.
type Stats struct {
	Head       uint64            // sequence of the newest event
	HeadHash   [32]byte          // hash of the newest record: publish it, and it proves everything before
	Applied    uint64            // sequence that the index stands for
	Bytes      int64             // size of the durable log
	Numbers    map[string]int    // by state
	Inbound    uint64            // inbound messages recorded
	OptOuts    uint64            // inbound messages that asked for an opt-out
	WouldBlock uint64            // sends that shadow mode let pass
	Quarantine uint64            // proven requests that could not be understood
	Owed       map[OwedKind]int  // waiting, parked included
	Parked     int               // of them waiting for a person
	OldestOwed time.Time         // since when the oldest piece waits that is neither parked nor put off until later; zero if none
	Messages   map[Status]uint64 // by status
	Degraded   string            // what an operator must know (spare space used up, index was rebuilt), "" if nothing
}

// Query selects numbers. An empty field selects all.
type Query struct {
	States   []consent.State  // none: all but unknown
	Sources  []consent.Source // of the newest opt-out
	Ends     string           // the number's last digits, ASCII
	Since    time.Time        // the state began at or after
	Until    time.Time        // the state began before
	Campaign string           // the newest opt-out is attributed to it
	Window   time.Duration    // how long after a campaign's message an opt-out is attributed to it
	After    string           // Found.Next of the page before
	Limit    int              // rows of a page, 50 if 0, at most 1000
}

// Found is a page of numbers.
type Found struct {
	Rows  []Number
	Total int    // rows on all pages
	Next  string // Query.After of the next page, "" on the last one
}

// OptOut is a number's change to opted out, with what came before it.
type OptOut struct {
	Seq     uint64         `json:"seq"`
	Number  phone.Number   `json:"number"`
	At      time.Time      `json:"at"` // when heed recorded it
	Source  consent.Source `json:"source"`
	Keyword string         `json:"keyword,omitempty"`
	Account string         `json:"account,omitempty"` // a reply's
	Sender  string         `json:"sender,omitempty"`  // to whom it was sent
	Last    *LastSend      `json:"last,omitempty"`    // the newest message before it that a provider took
}

// Campaign returns the campaign to which the opt-out is attributed, "" for none: the one of the last message that was
// sent to the number, if that is no older than window. heed states this method wherever it shows the figure.
func (o OptOut) Campaign(window time.Duration) string {
	if o.Last == nil || o.At.Sub(o.Last.At) > window {
		return ""
	}
	return o.Last.Campaign
}

// LastSend is the newest message to a number that a provider took.
type LastSend struct {
	Message  string    `json:"message"`
	Campaign string    `json:"campaign,omitempty"`
	Account  string    `json:"account"`
	From     string    `json:"from,omitempty"`
	At       time.Time `json:"at"`
}

// Traffic counts the messages of one hour, sender and campaign, by when they were asked for.
type Traffic struct {
	Hour     time.Time `json:"hour"` // its beginning, UTC
	Account  string    `json:"account"`
	From     string    `json:"from,omitempty"` // as the provider told, before that as asked for; "" is the account's sender
	Campaign string    `json:"campaign,omitempty"`
	Sent     int       `json:"sent"`    // taken by the provider, delivered or not
	Blocked  int       `json:"blocked"` // refused by the gate
	Other    int       `json:"other"`   // queued, held, failed, unknown
}

// Mirror is what heed last saw of a CRM's records, by key and by number. It is a cache: a full pass refills it.
type Mirror interface {
	// ByNumber returns the live records that carry a number in any configured phone field.
	ByNumber(ctx context.Context, n phone.Number) ([]MirrorRecord, error)
	// Get returns the known ones among keys, in no particular order.
	Get(ctx context.Context, keys []crm.Key) ([]MirrorRecord, error)
	// Put stores records as they were read, joined with what was known of them by MergeMirror.
	Put(ctx context.Context, records []MirrorRecord) error
	// Wrote notes boxes that heed has set; records that are not known are left alone.
	Wrote(ctx context.Context, keys []crm.Key, optedOut bool, at time.Time) error
	// Delete forgets records.
	Delete(ctx context.Context, keys []crm.Key) error
	// Between yields the records after a key up to and including another (the zero Key: to the end), in the order of
	// (object, id), both compared byte by byte. The caller may write while it reads.
	Between(ctx context.Context, after, upTo crm.Key) iter.Seq2[MirrorRecord, error]
	// Len returns how many records are known.
	Len(ctx context.Context) (int, error)
}

// MirrorRecord is one CRM record as heed last saw or wrote it.
type MirrorRecord struct {
	crm.Key
	Numbers  []phone.Number // each once, in field order
	Unparsed int            // non-empty phone fields that are no number
	OptedOut bool
	Stamp    time.Time // the CRM's stamp of the version that heed read
	SeenAt   time.Time // by heed's clock: when the read began that brought this version
	WroteAt  time.Time // by heed's clock: when heed's latest write of the box ended
	Missing  uint64    // number of the full pass that went past it without seeing it; 0 if none did
}

// MergeMirror returns what to keep of a record that was just read, given what was known. A read that began before
// heed's own latest write ended says nothing about the box: it may show the value from before.
func MergeMirror(known, read MirrorRecord) MirrorRecord {
	read.WroteAt = known.WroteAt
	if known.Stale(read.SeenAt) {
		read.OptedOut = known.OptedOut
	}
	return read
}

// Stale reports whether a read that began at the given time may show the box as it was before heed's latest write.
func (r MirrorRecord) Stale(seenAt time.Time) bool {
	return !r.WroteAt.IsZero() && !seenAt.After(r.WroteAt)
}
