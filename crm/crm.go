// Package crm is what heed asks of a CRM: read the people with their phone numbers and opt-out box, find what
// changed, and set boxes in batches with one result a record.
//
// A driver (one folder below this one) translates and nothing else: it maps whatever field an organisation uses
// (a checkbox, an inverted one, a picklist) to one boolean, and the CRM's errors to four classes. Which records to
// write, when to try again and what to report is decided elsewhere.
package crm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Directory is one CRM organisation. Implementations are safe for concurrent use.
type Directory interface {
	// Scan yields every live record of every configured object in pages, each record at least once; the zero Key
	// starts at the beginning. A page's Next is where to resume: the driver's own mark in the form of a key, to be
	// handed back as it is. A mark that the driver can no longer use (another configuration, an expired job) is an
	// error of class Bug. It stops at the first error.
	Scan(ctx context.Context, after Key) iter.Seq2[Page, error]
	// Changed yields the records that changed at or after since by the CRM's clock, deleted and converted ones
	// included, oldest first, each at least once. The driver looks back further than since by itself, for
	// changes that were committed late, so records repeat.
	Changed(ctx context.Context, since time.Time) iter.Seq2[Page, error]
	// Write sets boxes. It returns one result for each write, in order, whatever happened: a call that failed as
	// a whole is a result with that error for each of its writes. Writing the value a record already has is fine.
	Write(ctx context.Context, writes []Write) []Result
}

// Getter is implemented by CRMs that can read single records afresh.
type Getter interface {
	// Get returns the records that exist among keys, in no particular order.
	Get(ctx context.Context, keys []Key) ([]Record, error)
}

// Annotator is implemented by CRMs in which a text can be left on a record.
type Annotator interface {
	// Annotate sets text fields, such as the outcome of a send on the record that asked for it. It returns one result
	// for each note, in order, like Directory.Write.
	Annotate(ctx context.Context, notes []Note) []Result
}

// Note is one text to leave on a record.
type Note struct {
	Key
	Field string // API name
	Text  string // a driver may cut it to what fields of the CRM can take at the most
}

// Historian is implemented by CRMs that can tell who changed a box.
type Historian interface {
	// BoxChanges returns, for each key of which the CRM knows, the newest change of its opt-out field. Keys without a
	// tracked change, and objects whose history cannot be read, are left out; that is no error.
	BoxChanges(ctx context.Context, keys []Key) (map[Key]BoxChange, error)
}

// BoxChange is a change of an opt-out field, as the CRM recorded it.
type BoxChange struct {
	OptedOut bool      // the value after it, mapped to one meaning
	At       time.Time // by the CRM's clock
	Actor    Actor
}

// Actor is who changed something in the CRM.
type Actor struct {
	ID   string    `json:"id,omitempty"`
	Name string    `json:"name,omitempty"` // "" if not readable
	Kind ActorKind `json:"kind,omitempty"`
}

// String returns the actor's name, or id where that is not readable.
func (a Actor) String() string {
	if a.Name != "" {
		return a.Name
	}
	return a.ID
}

// ActorKind is what sort of user an actor is, as far as the CRM tells.
type ActorKind string

// Kinds of actor. "" is one of which the CRM does not tell.
const (
	Person      ActorKind = "person"
	Integration ActorKind = "integration" // a user that only programs use
	Self        ActorKind = "self"        // heed's own user
)

// Canonicalizer is implemented by CRMs whose record names can be written in several ways.
type Canonicalizer interface {
	// Canonical returns the key as the driver itself writes it, or an error that says what is wrong with it.
	Canonical(k Key) (Key, error)
}

// Prober is implemented by CRMs that `heed check` can ask about themselves, read-only.
type Prober interface {
	// Probe returns one finding for each thing it looked at; an unreachable CRM is a finding, not an error.
	Probe(ctx context.Context) []Finding
}

// Finding is one line of `heed check`.
type Finding struct {
	OK   bool
	What string
	Hint string // what to do next; empty when OK
}

// Key names a record within a CRM.
type Key struct {
	Object string `json:"object"` // API name: Contact, Lead, …
	ID     string `json:"id"`     // Salesforce: 18 characters
}

// Record is a person as the CRM has them, reduced to what consent needs.
type Record struct {
	Key
	Phones     []Phone   `json:"phones,omitempty"` // non-empty phone fields, in configured order
	OptedOut   bool      `json:"opted_out"`        // the configured field, mapped to one meaning
	Deleted    bool      `json:"deleted,omitempty"`
	MergedInto string    `json:"merged_into,omitempty"`  // id of the survivor, if the CRM says
	Converted  *Key      `json:"converted_to,omitempty"` // a lead that became a contact: that contact (ID "" if unreadable)
	Stamp      time.Time `json:"stamp"`                  // when the CRM last changed it in any way (SystemModstamp)
	ModifiedAt time.Time `json:"modified_at"`            // when a user last changed it
	ModifiedBy Actor     `json:"modified_by,omitzero"`   // who
	CreatedAt  time.Time `json:"created_at,omitzero"`
}

// Phone is one phone field of a record, as stored.
type Phone struct {
	Field string `json:"field"`
	Raw   string `json:"raw"`
}

// Page is a run of records.
type Page struct {
	Records []Record
	Next    Key       // Scan: resume after this
	AsOf    time.Time // the CRM's clock when what the page shows was asked for; a checkpoint is taken from it, never from ours
	Total   int       // how many records there are in all, if the CRM said; 0 otherwise. For progress bars
}

// Write is one box to set.
type Write struct {
	Key
	OptedOut bool
	At       time.Time // when the consent changed, for organisations that keep a date field
	Source   string    // one word, for a source field: "sms_reply", "crm", "admin", …
	Text     string    // the keyword or reply that caused it, for a text field; "" if none
}

// Result is what became of one write.
type Result struct {
	Key
	Err error // nil: the CRM says that it is written. Otherwise an *Error
}

// Class says what a failure means for owed work.
type Class string

const (
	RetryNow   Class = "retry_now"   // a lock or a lost connection: try this record again soon
	RetryLater Class = "retry_later" // the whole CRM is unavailable, over its limit or in maintenance: stop for a while
	Park       Class = "park"        // the organisation refuses this record (validation rule, missing right): a person must act
	Gone       Class = "gone"        // the record was deleted, merged or converted: find its successor
	Bug        Class = "bug"         // heed asked for something malformed
)

// Error is a CRM's refusal, or its failure to answer.
type Error struct {
	Class      Class
	Status     int           // HTTP status, 0 if there was no answer
	Code       string        // the CRM's own code (Salesforce errorCode)
	Text       string        // the organisation's own text, to be shown to its admin
	Fields     []string      // the fields the CRM named
	RetryAfter time.Duration // 0 if the CRM did not say
	Err        error         // the cause, where there was no answer
}

func (e *Error) Error() string {
	s := fmt.Sprintf("crm: %s", e.Class)
	if e.Status != 0 {
		s += fmt.Sprintf(" (HTTP %d)", e.Status)
	}
	if e.Code != "" {
		s += " " + e.Code
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

// ClassOf returns the class of an error from a Directory; anything that is no *Error is RetryLater.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return RetryLater
}
