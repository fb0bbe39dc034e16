// Package outbound reads Salesforce outbound messages and writes the answers to them.
//
// An outbound message is what an org posts to a URL of the customer's choice when a flow or an old workflow rule says
// so: a SOAP 1.1 document with up to 100 notifications, each carrying one record reduced to the fields that an admin
// ticked. [Parse] turns the bytes of one into a [Message], [Ack] and [Fault] are the answers, and [Render] writes a
// message as Salesforce would, for tests and emulators.
//
// The package is pure: no server, no storage, no log. It does not know who sent the bytes. Nothing in an outbound
// message is signed, so the receiver proves the sender by other means (client certificate, address list, a secret in
// the URL) and compares [Message.OrganizationID] with its own org.
//
// # What the sender promises, and what not
//
// One acknowledgement stands for all notifications of a message. Whatever else the receiver answers, or fails to
// answer, the message is sent again, at growing intervals, for 24 hours, and then dropped. It may come twice, late and
// out of order, and it always holds the values of the moment of sending, not those of the change: a value that was
// changed and changed back is never seen. So a notification is a reason to look at a record, a receiver keeps
// [Notification.ID] to notice repetitions, and something else has to cover the gaps.
//
// Sources, all at developer.salesforce.com, SOAP API Developer Guide, chapter Outbound Messaging: "Understanding
// Outbound Messaging", "Understanding the Outbound Messaging WSDL" and "Building a Listener"
// (sforce_api_om_outboundmessaging_understanding, _wsdl, _listener); for the envelope, SOAP 1.1 (w3.org/TR/SOAP).
package outbound

import (
	"fmt"
	"log/slog"
)

// The namespaces of an outbound message. Prefixes are the sender's choice and mean nothing.
const (
	nsSOAP       = "http://schemas.xmlsoap.org/soap/envelope/"
	nsOutbound   = "http://soap.sforce.com/2005/09/outbound"
	nsObject     = "urn:sobject.enterprise.soap.sforce.com"
	nsEnterprise = "urn:enterprise.soap.sforce.com" // the types of compound fields
	nsSchema     = "http://www.w3.org/2001/XMLSchema"
	nsInstance   = "http://www.w3.org/2001/XMLSchema-instance"
)

// Message is one outbound message. It is a plain value; reading it from several goroutines is safe.
type Message struct {
	OrganizationID string // the sending org, 18 characters, check characters verified; a claim, not a proof
	ActionID       string // the outbound message action that fired, 18 characters
	// EnterpriseURL and PartnerURL are where the sender says its API is. They are unauthenticated input: heed shows
	// them at most, and calls the domain it was configured with. The session id that used to come with them is
	// empty since February 2026, and is never kept.
	EnterpriseURL, PartnerURL string
	Notifications             []Notification // 1 to 100, in the order of the message, no two with the same ID
}

// LogValue tells which message it is, without the values of any field.
func (m Message) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("org", m.OrganizationID),
		slog.String("action", m.ActionID),
		slog.Int("notifications", len(m.Notifications)),
	)
}

// Notification is one record in a message.
type Notification struct {
	ID       string // of the notification, 18 characters; the same in every repetition of it
	Object   string // API name of the record's object: Contact, Lead, My_Object__c
	RecordID string // 18 characters, check characters verified
	// Fields holds the chosen fields by API name, as text in XML Schema's notation (true, 2026-02-23T10:00:00.000Z),
	// without Id, which is RecordID. A null field is absent, and so is one that the admin did not choose: the message
	// does not tell which. Parts of a compound field have two names: MailingAddress.city.
	Fields map[string]string
}

// String tells which record it is about, without the values of any field.
func (n Notification) String() string {
	return fmt.Sprintf("notification %s about %s %s, %d fields", n.ID, n.Object, n.RecordID, len(n.Fields))
}

// LogValue is String.
func (n Notification) LogValue() slog.Value { return slog.StringValue(n.String()) }

// Limits bounds what Parse accepts. A value that is not positive means the default.
type Limits struct {
	Bytes         int // size of the body; 1 MiB. The caller must bound what it reads into memory by itself.
	Depth         int // open elements; 64
	Notifications int // notifications in one message; 100, which is also Salesforce's own limit
}

func (l Limits) orDefault() Limits {
	if l.Bytes <= 0 {
		l.Bytes = 1 << 20
	}
	if l.Depth <= 0 {
		l.Depth = 64
	}
	if l.Notifications <= 0 {
		l.Notifications = 100
	}
	return l
}

// Reason says in a few fixed words why a body was refused. It contains nothing of the body, so it may be logged,
// counted by, and sent back.
type Reason string

// The reasons of an [Error].
const (
	TooLarge       Reason = "body too large"
	Empty          Reason = "empty body"
	NotUTF8        Reason = "not UTF-8"
	Malformed      Reason = "malformed XML"
	Directive      Reason = "document type or processing instruction"
	TooDeep        Reason = "elements nested too deep"
	NotSOAP        Reason = "not a SOAP envelope"
	NotSOAP11      Reason = "not SOAP 1.1"
	MustUnderstand Reason = "SOAP header that must be understood"
	WrongNamespace Reason = "wrong namespace"
	Unexpected     Reason = "unexpected element"
	Missing        Reason = "missing element"
	Duplicate      Reason = "element or id occurs twice"
	StrayText      Reason = "text between elements"
	Nested         Reason = "elements inside a value"
	WrongNil       Reason = "xsi:nil where it is not allowed, or with content"
	WrongType      Reason = "xsi:type missing or of another namespace"
	WrongName      Reason = "not the name of a field"
	WrongID        Reason = "not an id, or its check characters are wrong"
	WrongOrg       Reason = "not the id of an organization"
	TooMany        Reason = "too many notifications"
	Trailing       Reason = "content after the envelope"
)

// Error says why Parse refused a body. It holds nothing of the body but a position.
type Error struct {
	Reason  Reason
	Element string // the documented element that was read or missing; empty outside of the message proper
	Offset  int64  // where in the body, in bytes, about
}

// Error names the reason, the element and the position.
func (e *Error) Error() string {
	if e.Element == "" {
		return fmt.Sprintf("outbound message refused at byte %d: %s", e.Offset, e.Reason)
	}
	return fmt.Sprintf("outbound message refused at byte %d, %s: %s", e.Offset, e.Element, e.Reason)
}

// FaultCode returns the SOAP 1.1 fault code for e, to be given to [Fault]: VersionMismatch, MustUnderstand or Client
// (SOAP 1.1, section 4.4.1).
func (e *Error) FaultCode() string {
	switch e.Reason {
	case NotSOAP11:
		return "VersionMismatch"
	case MustUnderstand:
		return "MustUnderstand"
	}
	return "Client"
}
