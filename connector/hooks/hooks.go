// Package hooks takes Salesforce outbound messages and hands what they ask for to the gate: the way to send through heed
// that an admin sets up by entering one address.
//
// One acknowledgement stands for all notifications of a message, so it is given only when each of them is on disk. They
// are sent afterwards, each decided again at that moment. Salesforce repeats what it is not sure about, for a day and out
// of order; a notification's id makes a repetition the same send.
//
// Reading the SOAP document is package crm/salesforce/outbound's, deciding and sending is package connector's. Nothing in
// an outbound message is signed: whoever knows the secret part of the address may call, and the organisation must be the
// configured one.
package hooks

import (
	"cmp"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/salesforce/outbound"
)

// Hook is one configured address.
type Hook struct {
	Secret string // the last part of the path
	CRM    string
	OrgID  string // 18 characters
	To     string // the field with the recipient's number
	Body   string // the field with the text; "" with a Template
	// Template is a text with {{Field}} for the values of fields of the message, in place of Body.
	Template string
	// Campaign is the field with the campaign's name; Name where it is "" or empty.
	Campaign string
	// Status is a text field of the record in which the outcome of the send is left, "" for none.
	Status  string
	OptOut  string // the field with the opt-out box, "" if the message does not carry it: a ticked box blocks at once
	Account string // "" for the first
	From    string
	Name    string // campaign, "" for none
}

// Handler serves POST /salesforce/outbound-messages/{hook}.
type Handler struct {
	Hooks  []Hook
	Gate   *connector.Gate
	Ledger ledger.Ledger
	Log    *slog.Logger
	Now    func() time.Time
}

const maxBody = 1 << 20 // bytes; 100 notifications of a few fields are a tenth of it

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hook, ok := h.find(r.PathValue("hook"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	status, answer := h.take(hook, w, r)
	w.Header().Set("Content-Type", outbound.ContentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

// find compares the secret with each hook's, in the same time whether it is nearly right or not.
func (h *Handler) find(secret string) (Hook, bool) {
	found := -1
	for i := range h.Hooks {
		if subtle.ConstantTimeCompare([]byte(h.Hooks[i].Secret), []byte(secret)) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Hook{}, false
	}
	return h.Hooks[found], true
}

// take reads a message and puts every notification on disk. Anything but 200 with Ack true makes Salesforce send it again.
func (h *Handler) take(hook Hook, w http.ResponseWriter, r *http.Request) (status int, answer []byte) {
	refuse := func(code, text string, err error) (int, []byte) {
		h.Log.Warn("outbound message refused; Salesforce sends it again for a day", "crm", hook.CRM, "why", text, "error", err)
		return http.StatusInternalServerError, outbound.Fault(code, text)
	}
	if r.Header.Get("Content-Encoding") != "" {
		return refuse("Client", "content encoding not supported", nil)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return refuse("Client", "the body is too large or ended early", err)
	}
	m, err := outbound.Parse(body, outbound.Limits{})
	if err != nil {
		var oe *outbound.Error
		if errors.As(err, &oe) {
			return refuse(oe.FaultCode(), string(oe.Reason), err)
		}
		return refuse("Client", "not understood", err)
	}
	if m.OrganizationID != hook.OrgID {
		return refuse("Client.Authentication", "unknown organization", nil)
	}
	for _, n := range m.Notifications {
		if err := h.accept(r, hook, m, n); err != nil {
			return refuse("Server", "try again later", err)
		}
	}
	return http.StatusOK, outbound.Ack(true)
}

// accept puts one notification on disk: as a message that is decided and will be sent, or, if it says nothing that could
// be sent, as what it is, for people to see. Refusing the latter would only bring it back for a day.
func (h *Handler) accept(r *http.Request, hook Hook, m outbound.Message, n outbound.Notification) error {
	s := connector.Send{
		Caller: "outbound message", Key: m.OrganizationID + "/" + n.ID, SameKey: true, Deferred: true,
		To: n.Fields[hook.To], Body: n.Fields[hook.Body], From: hook.From, Account: hook.Account, Campaign: cmp.Or(n.Fields[hook.Campaign], hook.Name),
		Ticked: hook.OptOut != "" && strings.EqualFold(n.Fields[hook.OptOut], "true"),
	}
	if n.RecordID != "" {
		s.Record = &crm.Key{Object: n.Object, ID: n.RecordID}
		if hook.Status != "" {
			s.WriteBack = &ledger.WriteBack{CRM: hook.CRM, Field: hook.Status}
		}
	}
	var err error
	if hook.Template != "" {
		s.Body, err = Fill(hook.Template, n.Fields)
	}
	if err == nil {
		_, _, err = h.Gate.Send(r.Context(), s)
	}
	var in *connector.InputError
	if !errors.As(err, &in) {
		return err
	}
	h.Log.Warn("a notification cannot be sent; kept for review", "crm", hook.CRM, "object", n.Object, "record", n.RecordID, "why", err)
	_, err = h.Ledger.Append(r.Context(), ledger.Event{
		Kind: ledger.KindQuarantine, ID: "som/" + m.OrganizationID + "/" + n.ID, At: h.Now().UTC(),
		Quarantine: &ledger.Quarantine{Account: hook.CRM, Raw: string(outbound.Render(outbound.Message{
			OrganizationID: m.OrganizationID, ActionID: m.ActionID, Notifications: []outbound.Notification{n}})), Reason: in.Error()},
	})
	return err
}
