package ledger

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// The functions in this file are the fold: what each event changes. They are pure, and every engine uses them, so
// that state computed again from the events is the same state.

// Number is what is known of a telephone number.
type Number struct {
	Number  phone.Number   `json:"number"`
	Facts   consent.Facts  `json:"-"`
	Seq     uint64         `json:"seq"`              // the newest event that changed the facts
	Source  consent.Source `json:"source,omitempty"` // of the newest opt-out
	Keyword string         `json:"keyword,omitempty"`
}

// At is when the number's present state began, by the clock that its facts have it from.
func (n Number) At() time.Time {
	f := n.Facts
	switch f.State() {
	case consent.OptedOut:
		return latestOut(f)
	case consent.Held:
		return f.HeldAt
	case consent.OptedIn:
		return laterOf(laterOf(f.StartAt, f.InAt), f.UndoneAt)
	case consent.Pending:
		return f.AskedAt
	}
	return laterOf(laterOf(f.ReleaseAt, f.StartAt), laterOf(f.InAt, f.UndoneAt))
}

// ByPerson reports whether an event is something that a person did: what the audit lists.
func ByPerson(e Event) bool {
	return e.Access != nil || e.Act != nil || e.Consent != nil && e.Consent.Source == consent.Admin
}

// NewOptOut returns the record of a change to opted out; ok is false for an event that is none.
func NewOptOut(before, after Number, e Event, last *LastSend) (_ OptOut, ok bool) {
	if !e.Number.IsValid() || before.Facts.State() == consent.OptedOut || after.Facts.State() != consent.OptedOut {
		return OptOut{}, false
	}
	o := OptOut{Seq: e.Seq, Number: e.Number, At: e.At, Source: after.Source, Keyword: after.Keyword, Last: last}
	if e.Inbound != nil {
		o.Account, o.Sender = e.Inbound.Account, e.Inbound.To
	}
	return o, true
}

// NewLastSend returns what to remember of a message for later opt-outs; ok is false unless the event made it sent.
// heed's own answers are nobody's campaign.
func NewLastSend(before, after Message, e Event) (_ LastSend, ok bool) {
	if before.Status == StatusSent || after.Status != StatusSent || after.Answers > 0 {
		return LastSend{}, false
	}
	return LastSend{Message: after.ID, Campaign: after.Campaign, Account: after.Account, From: after.From, At: e.At}, true
}

// Add counts n messages with a status.
func (t *Traffic) Add(s Status, n int) {
	switch s {
	case StatusSent:
		t.Sent += n
	case StatusBlocked:
		t.Blocked += n
	default:
		t.Other += n
	}
}

// Change returns the change of consent that an event amounts to, and the word that caused it; ok is false for events
// that change nobody's consent.
func Change(e Event) (c consent.Change, keyword string, ok bool) {
	switch {
	case e.Inbound != nil:
		c = consent.Change{Source: consent.Recipient, At: orTime(e.Inbound.SentAt, e.At)}
		switch e.Inbound.Verdict {
		case reply.OptOut:
			c.Action, c.At = consent.OptOut, notAfter(c.At, e.At)
		case reply.Hold:
			// From when it was known: a decision on the replies that were known before does not cover it.
			c.Action, c.At = consent.Hold, e.At
		case reply.OptIn:
			if e.Inbound.Wait {
				return c, "", false
			}
			c.Action, c.At = consent.OptIn, notAfter(c.At, e.At)
		default:
			return c, "", false
		}
		return c, e.Inbound.Keyword, true
	case e.Timed != nil:
		return consent.Change{Action: consent.OptIn, Source: consent.Recipient, At: notAfter(e.Timed.SentAt, e.At)}, "", true
	case e.Consent != nil:
		c = e.Consent.Change
		c.At = notAfter(c.At, e.At)
		return c, "", true
	case e.Outcome != nil && e.Outcome.OptedOut:
		return consent.Change{Action: consent.OptOut, Source: consent.Provider, At: e.At}, "", true
	case e.Status != nil && e.Status.OptedOut:
		return consent.Change{Action: consent.OptOut, Source: consent.Provider, At: orTime(e.Status.SentAt, e.At)}, "", true
	}
	return c, "", false
}

// notAfter keeps a change from being dated in the future, where it would outweigh everything that comes before then.
func notAfter(t, limit time.Time) time.Time {
	if t.After(limit) {
		return limit
	}
	return t
}

func laterOf(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func orTime(t, or time.Time) time.Time {
	if t.IsZero() {
		return or
	}
	return t
}

// ApplyNumber folds an event into what is known of its number. changed is false if the event says nothing new.
func ApplyNumber(n Number, e Event) (_ Number, changed bool) {
	c, keyword, ok := Change(e)
	if !ok || !e.Number.IsValid() {
		return n, false
	}
	old := n
	n.Facts = n.Facts.Apply(c)
	// Keyword and source describe the opt-out with the latest time, and of several with that time always the same
	// one, so that they do not depend on the order of arrival.
	if at := c.At.UTC().Truncate(time.Millisecond); c.Action == consent.OptOut && at.Equal(latestOut(n.Facts)) &&
		(at.After(latestOut(old.Facts)) || outranks(c.Source, keyword, old)) {
		n.Source, n.Keyword = c.Source, keyword
	}
	if n == old {
		return old, false
	}
	n.Number, n.Seq = e.Number, e.Seq
	return n, true
}

// outranks reports whether an opt-out describes a number better than another one of the same moment does: the
// recipient's own before all others, and one with a keyword before one without.
func outranks(source consent.Source, keyword string, n Number) bool {
	if source.Sticky() != n.Source.Sticky() {
		return source.Sticky()
	}
	return cmp.Or(cmp.Compare(source, n.Source), cmp.Compare(keyword, n.Keyword)) > 0
}

func latestOut(f consent.Facts) time.Time { return laterOf(f.StopAt, f.OutAt) }

// OwedKind names a sort of owed work.
type OwedKind string

const (
	// OweBoxes: the boxes of all records of a number are to be brought to what its consent says.
	OweBoxes OwedKind = "boxes"
	// OweTime: the provider is to be asked when an inbound START was sent.
	OweTime OwedKind = "time"
	// OweAnswer: a text that heed itself answers a reply with. At most one is ever sent: the work is done when the
	// attempt is recorded, before it is made.
	OweAnswer OwedKind = "answer"
	// OweHold: a person is to decide what an unclear reply meant. The review queue.
	OweHold OwedKind = "hold"
	// OweTell: the provider's own opt-out list is to be told, because the provider did not see or understand it.
	OweTell OwedKind = "tell"
	// OweSend: a deferred message is to be handed to its provider. Done when the attempt is recorded, like an answer.
	OweSend OwedKind = "send"
	// OweRelay: a client is to be told where its message stands.
	OweRelay OwedKind = "relay"
	// OweNote: the outcome of a send is to be left on the CRM record that it was for.
	OweNote OwedKind = "note"
	// OweReport: a report is to be delivered.
	OweReport OwedKind = "report"
)

// OwedKinds are all kinds.
var OwedKinds = []OwedKind{OweBoxes, OweTime, OweAnswer, OweHold, OweTell, OweSend, OweRelay, OweNote, OweReport}

// Owed is work that follows from an event and has not been done.
type Owed struct {
	Key    string       `json:"key"`
	Kind   OwedKind     `json:"kind"`
	Number phone.Number `json:"number"`
	Seq    uint64       `json:"seq"`            // the newest event that made it owed
	Of     uint64       `json:"of,omitempty"`   // OweAnswer: the Inbound event to answer; OweSend, OweRelay, OweNote: the Opened event; OweReport: the Pass event
	Pass   string       `json:"pass,omitempty"` // OweReport: whose report
	To     string       `json:"to,omitempty"`   // OweReport: one of Pass.Deliver
	After  time.Time    `json:"after,omitzero"` // OweSend: not due before, Message.SendAt
	Since  time.Time    `json:"since"`          // when the oldest unsettled one was recorded
	Parked *Parked      `json:"parked,omitempty"`
	// Records are those that a correction named. They are written even if the mirror does not lead to them from the
	// number, or thinks that they have the value already.
	Records []OwedRecord `json:"records,omitempty"`

	Attempts int       `json:"-"` // so far in this process
	NextAt   time.Time `json:"-"` // not to be tried before
	Note     string    `json:"-"` // why the last attempt failed
}

// OwedRecord is a CRM's record.
type OwedRecord struct {
	CRM string `json:"crm"`
	crm.Key
}

// Parked says that a person must act before owed work can succeed.
type Parked struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"` // whose refusal, in their words
}

// OwedKey returns the key under which an event's owed work is kept: one piece per event for times, answers, sends and
// what follows from sends, one per number for everything else.
func OwedKey(kind OwedKind, n phone.Number, seq uint64) string {
	switch kind {
	case OweTime, OweAnswer, OweSend, OweRelay, OweNote:
		return fmt.Sprintf("%s/%015d/%020d", kind, n.Uint64(), seq)
	}
	return fmt.Sprintf("%s/%015d", kind, n.Uint64())
}

func reportKey(of uint64, to string) string { return fmt.Sprintf("%s/%020d/%s", OweReport, of, to) }

// Owes returns the work that an event creates. before and after are its number's record around it.
func Owes(before, after Number, e Event) []Owed {
	if e.Pass != nil && !e.Pass.FinishedAt.IsZero() {
		var out []Owed
		for _, to := range e.Pass.Deliver {
			out = append(out, Owed{Key: reportKey(e.Seq, to), Kind: OweReport, Seq: e.Seq, Of: e.Seq, To: to, Pass: e.Pass.ID, Since: e.At})
		}
		return out
	}
	if !e.Number.IsValid() {
		return nil
	}
	var out []Owed
	owe := func(kind OwedKind) *Owed {
		out = append(out, Owed{Key: OwedKey(kind, e.Number, e.Seq), Kind: kind, Number: e.Number, Seq: e.Seq, Since: e.At})
		return &out[len(out)-1]
	}
	was, is := before.Facts.State(), after.Facts.State()
	flipped := (was == consent.OptedOut) != (is == consent.OptedOut)
	corrected := e.Correction != nil && (e.Correction.Action == "tick" || e.Correction.Action == "untick")
	if flipped || corrected {
		o := owe(OweBoxes)
		if corrected && e.Correction.Record != nil {
			o.Records = []OwedRecord{{e.Correction.CRM, *e.Correction.Record}}
		}
	}
	if e.Inbound != nil && e.Inbound.Wait {
		owe(OweTime)
	}
	if of, ok := answers(was, is, e); ok {
		o := owe(OweAnswer)
		o.Key, o.Of = OwedKey(OweAnswer, e.Number, of), of
	}
	if is == consent.Held && (was != consent.Held || e.Inbound != nil && e.Inbound.Verdict == reply.Hold) {
		owe(OweHold)
	}
	if e.Opened != nil && e.Opened.Deferred && e.Opened.Decision.Verdict == consent.Allow {
		o := owe(OweSend)
		o.Of, o.After = e.Seq, e.Opened.SendAt
	}
	if flipped && !providerKnows(e) {
		owe(OweTell)
	}
	return out
}

// OwesMessage returns the work that an event creates by changing a message. before and after are the message around it
// (before is zero where the event opened it), opened is the sequence of its Opened event.
func OwesMessage(before, after Message, opened uint64, e Event) []Owed {
	if before.Status == after.Status && before.Delivery == after.Delivery {
		return nil
	}
	var out []Owed
	owe := func(kind OwedKind) {
		out = append(out, Owed{Key: OwedKey(kind, after.To, opened), Kind: kind, Number: after.To, Seq: e.Seq, Of: opened, Since: e.At})
	}
	if after.Callback != nil && e.Opened == nil { // who opens a message is told by the answer
		owe(OweRelay)
	}
	if after.WriteBack != nil && after.Record != nil {
		owe(OweNote)
	}
	return out
}

// answers returns the Inbound event for which heed owes the phone a text, if the event makes it owe one: a STOP or a
// START that changed something, and each call for help.
func answers(was, is consent.State, e Event) (of uint64, ok bool) {
	var a Answer
	switch {
	case e.Inbound != nil && !e.Inbound.Wait:
		a, of = e.Inbound.Answer, e.Seq
	case e.Timed != nil:
		a, of = e.Timed.Answer, e.Timed.Of
	}
	switch a {
	case AnswerStop:
		return of, was != consent.OptedOut && is == consent.OptedOut
	case AnswerStart:
		return of, was != consent.OptedIn && is == consent.OptedIn
	case AnswerHelp:
		return of, true
	}
	return 0, false
}

// providerKnows reports whether the provider's own list has the change already: it acted on the word itself, or it is
// the provider who told.
func providerKnows(e Event) bool {
	switch {
	case e.Inbound != nil:
		return !e.Inbound.Tell
	case e.Consent != nil:
		return e.Consent.Source == consent.Provider
	}
	return true // a START whose time came later was a word of the provider's; a refusal is the provider's own
}

// MergeOwed joins newly owed work with what was owed under the same key.
func MergeOwed(old *Owed, new Owed) Owed {
	if old == nil {
		return new
	}
	new.Since = old.Since
	records := slices.Clone(old.Records)
	for _, r := range new.Records {
		if !slices.Contains(records, r) {
			records = append(records, r)
		}
	}
	new.Records = records
	return new
}

// Settles returns the keys of the owed work that an event answers. before and after are its number's record around it.
func Settles(before, after Number, e Event) []string {
	var keys []string
	switch {
	case e.Written != nil:
		keys = append(keys, OwedKey(OweBoxes, e.Number, 0))
	case e.Timed != nil:
		keys = append(keys, OwedKey(OweTime, e.Number, e.Timed.Of))
	case e.Opened != nil && e.Opened.Answers > 0:
		keys = append(keys, OwedKey(OweAnswer, e.Number, e.Opened.Answers))
	case e.Started != nil:
		keys = append(keys, OwedKey(OweSend, e.Number, e.Started.Of))
	case e.Dropped != nil:
		keys = append(keys, OwedKey(OweAnswer, e.Number, e.Dropped.Of))
	case e.Told != nil:
		keys = append(keys, OwedKey(OweTell, e.Number, 0))
	case e.Outcome != nil && e.Outcome.Of > 0:
		keys = append(keys, OwedKey(OweSend, e.Number, e.Outcome.Of))
	case e.Relayed != nil:
		keys = append(keys, OwedKey(OweRelay, e.Number, e.Relayed.Of))
	case e.Noted != nil:
		keys = append(keys, OwedKey(OweNote, e.Number, e.Noted.Of))
	case e.Delivered != nil:
		keys = append(keys, reportKey(e.Delivered.Of, e.Delivered.To))
	}
	if before.Facts.State() == consent.Held && after.Facts.State() != consent.Held {
		keys = append(keys, OwedKey(OweHold, e.Number, 0)) // decided, by whoever
	}
	return keys
}

// Settle folds the answer into the owed work: done if nothing of it remains.
func Settle(o Owed, e Event) (_ Owed, done bool) {
	refused, other, upTo := "", false, uint64(0)
	switch {
	case o.Kind == OweBoxes && e.Written != nil:
		upTo = e.Written.UpTo
		for _, r := range e.Written.Results {
			switch crm.Class(r.Class) {
			case "", crm.Gone: // a record that is gone has no box; who took over is found by the pass
			case crm.Park, crm.Bug:
				refused = r.CRM + " " + r.Object + " " + r.ID + ": " + r.Text
			default:
				other = true
			}
		}
	case o.Kind == OweTell && e.Told != nil:
		upTo = e.Told.UpTo
		for _, r := range e.Told.Results {
			switch sms.Class(r.Class) {
			case "":
			case sms.Rejected:
				refused = r.Account + ": " + r.Code + " " + r.Text
			default:
				other = true
			}
		}
	case o.Kind == OweRelay && e.Relayed != nil:
		upTo = e.Relayed.UpTo
	case o.Kind == OweNote && e.Noted != nil:
		upTo = e.Noted.UpTo
		switch crm.Class(e.Noted.Class) {
		case "", crm.Gone:
		case crm.Park, crm.Bug:
			refused = e.Noted.Text
		default:
			other = true
		}
	default:
		return o, true
	}
	switch {
	case refused != "" && !other:
		o.Parked = &Parked{At: e.At, Text: refused}
	case refused == "" && !other && o.Seq <= upTo:
		return o, true
	default:
		o.Parked = nil
	}
	return o, false
}

// Exempt returns the decision on one of heed's own texts: the confirmation of an opt-out is the one message that its
// recipient may still get (47 CFR 64.1200(a)(12)), and the question for consent needs none yet. Everything else, and
// everything that a caller sent, keeps its decision.
func Exempt(m Message, d consent.Decision) consent.Decision {
	switch {
	case m.Answer == AnswerStop && m.Answers > 0 && (d.Reason == consent.ReasonOptedOut || d.Reason == consent.CRMOptOut),
		m.Answer == AnswerAsk && d.Reason == consent.ConsentRequired:
		return consent.Decision{Verdict: consent.Allow, Reason: consent.OK}
	}
	return d
}

// rank orders the stages of delivery, so that callbacks may come in any order.
func rank(delivery string) int {
	switch delivery {
	case "queued":
		return 1
	case "sent":
		return 2
	case "failed":
		return 3
	case "delivered":
		return 4
	}
	return 0
}

// ApplyMessage folds an Outcome or a StatusTold event into a message.
func ApplyMessage(m Message, e Event) Message {
	switch {
	case e.Started != nil:
		m.Started = true
	case e.Outcome != nil:
		o := e.Outcome
		if o.ProviderID != "" {
			m.ProviderID = o.ProviderID
		}
		if o.From != "" {
			m.From = o.From
		}
		// A callback that overtook the answer to our own request has already said more than the outcome can.
		if rank(m.Delivery) == 0 {
			m.Status, m.Code, m.Error = o.Status, o.Code, o.Error
		}
		if o.Decision.Verdict != "" {
			m.Decision = o.Decision
		}
		m.Started = m.Started || o.Of > 0 // its waiting is over
	case e.Status != nil:
		s := e.Status
		if s.ProviderID != "" {
			m.ProviderID = s.ProviderID
		}
		if rank(s.Delivery) <= rank(m.Delivery) {
			return m
		}
		m.Delivery, m.Code = s.Delivery, s.Code
		m.Status = StatusSent
		m.Error = ""
		if s.Delivery == "failed" {
			m.Status, m.Error = StatusFailed, "the provider could not deliver it"
		}
	}
	m.UpdatedAt = e.At
	return m
}

// Settled reports whether nothing more is expected of a message's sending: it never left, was refused, or the provider took it.
func (m Message) Settled() bool { return m.Status != StatusQueued && m.Status != StatusUnknown }

// InitialStatus is a message's status by its decision alone.
func InitialStatus(d consent.Decision) Status {
	switch d.Verdict {
	case consent.Allow:
		return StatusQueued
	case consent.Queue, consent.Later:
		return StatusHeld
	}
	return StatusBlocked
}

// ApplyPass folds a pass's end, and its corrections and their results, into the pass.
func ApplyPass(p Pass, e Event) Pass {
	switch {
	case e.Pass != nil:
		causes, results := p.Causes, p.Results
		p = *e.Pass
		p.Causes, p.Results = causes, results
	case e.Correction != nil:
		p.Causes = count(p.Causes, e.Correction.Cause, 1)
		p.Results = count(p.Results, e.Correction.Result, 1)
	}
	return p
}

// ApplyResult moves a correction to a new result within its pass.
func ApplyResult(p Pass, c Correction, r WriteResult, at time.Time) (Pass, Correction) {
	old := c.Result
	c.Result, c.ResultAt, c.Text = "done", at, ""
	switch crm.Class(r.Class) {
	case "":
	case crm.Gone:
		c.Text = r.Text
	case crm.Park, crm.Bug:
		c.Result, c.Text = "parked", r.Text
	default:
		c.Result, c.Text = "pending", r.Text
	}
	if old != c.Result {
		p.Results = count(count(p.Results, old, -1), c.Result, 1)
	}
	return p, c
}

func count(m map[string]int, key string, n int) map[string]int {
	if key == "" {
		return m
	}
	out := make(map[string]int, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	if out[key] += n; out[key] == 0 {
		delete(out, key)
	}
	return out
}

const numberFixed = 8 + 8*8 + 1 // seq, eight times, flags

// AppendBinary appends the compact form of a number's record, without the number itself, which is its key.
func (n Number) AppendBinary(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, n.Seq)
	f := n.Facts
	for _, t := range []time.Time{f.StopAt, f.StartAt, f.OutAt, f.InAt, f.HeldAt, f.ReleaseAt, f.AskedAt, f.UndoneAt} {
		ms := int64(0)
		if !t.IsZero() {
			ms = t.UnixMilli()
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(ms))
	}
	flags := byte(0)
	if f.OutByCRM {
		flags = 1
	}
	b = append(b, flags, byte(len(n.Source)))
	b = append(b, n.Source...)
	return append(b, n.Keyword...)
}

// DecodeNumber reads what AppendBinary wrote.
func DecodeNumber(n phone.Number, b []byte) (Number, error) {
	if len(b) < numberFixed+1 || len(b) < numberFixed+1+int(b[numberFixed]) {
		return Number{}, fmt.Errorf("number record of %d bytes", len(b))
	}
	out := Number{Number: n, Seq: binary.LittleEndian.Uint64(b)}
	f := &out.Facts
	for i, t := range []*time.Time{&f.StopAt, &f.StartAt, &f.OutAt, &f.InAt, &f.HeldAt, &f.ReleaseAt, &f.AskedAt, &f.UndoneAt} {
		if ms := int64(binary.LittleEndian.Uint64(b[8+8*i:])); ms != 0 {
			*t = time.UnixMilli(ms).UTC()
		}
	}
	f.OutByCRM = b[numberFixed-1]&1 != 0
	src := b[numberFixed+1:]
	out.Source = consent.Source(src[:b[numberFixed]])
	out.Keyword = string(src[b[numberFixed]:])
	return out, nil
}
