package dropin

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/confirm"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
)

func failure(status, code int, message string) *apiError {
	return &apiError{code, message, "https://www.twilio.com/docs/errors/" + strconv.Itoa(code), status}
}

func badRequest(code int, message string) *apiError {
	return failure(http.StatusBadRequest, code, message)
}

// Twilio's texts where it has one that names no number.
var (
	errUnauthorized = failure(http.StatusUnauthorized, 20003, "Authenticate")
	errNotFound     = failure(http.StatusNotFound, 20404, "The requested resource was not found")
	errUnavailable  = failure(http.StatusServiceUnavailable, 20503, "Service unavailable: nothing was sent; try again")
	errAccount      = failure(http.StatusServiceUnavailable, 20503, "Service unavailable: the provider refuses heed's own credentials; nothing was sent")
	errBusy         = failure(http.StatusTooManyRequests, 20429, "Too Many Requests: the provider took nothing; try again")
	errOptedOut     = badRequest(21610, "Attempt to send to unsubscribed recipient")
	errInvalidTo    = badRequest(21211, "Invalid 'To' Phone Number")
	errNotNow       = badRequest(21612, "Message cannot be sent to this recipient at present")
)

const codeUnknown = 30008 // "Unknown error", for a failure that the provider gave no number of its own

// accepted reports whether a message's sender was answered that it would be sent later. Whatever became of it then, it
// is a message.
func accepted(m ledger.Message) bool { return m.Deferred && m.Started }

// refusal returns the answer to a send that came to nothing, nil if there is a message.
func refusal(m ledger.Message) *apiError {
	switch m.Status {
	case ledger.StatusBlocked, ledger.StatusHeld:
		switch m.Decision.Reason {
		case consent.ReasonOptedOut, consent.CRMOptOut, consent.HeldForReview, consent.ConsentRequired:
			return errOptedOut
		case consent.InvalidNumber:
			return errInvalidTo
		case consent.Unavailable:
			return errUnavailable
		}
		return errNotNow
	case ledger.StatusFailed:
		switch {
		case m.Delivery != "": // the provider took it first
			return nil
		// The ledger keeps a refusal's class as the beginning of its text, see sms.Error.
		case strings.HasPrefix(m.Error, "provider: throttled"):
			return errBusy
		case strings.HasPrefix(m.Error, "provider: auth"):
			return errAccount
		}
		return badRequest(errorCode(m), "The message was not sent. "+m.Error)
	}
	return nil
}

var numeric = regexp.MustCompile(`^[1-9][0-9]{2,5}$`)

// errorCode returns the provider's code of a failed message as a Twilio client can read it.
func errorCode(m ledger.Message) int {
	if !numeric.MatchString(m.Code) {
		return codeUnknown
	}
	n, _ := strconv.Atoi(m.Code)
	return n
}

// messageJSON is the Message resource, https://www.twilio.com/docs/messaging/api/message-resource#message-properties.
type messageJSON struct {
	Body            string            `json:"body"`
	NumSegments     string            `json:"num_segments"`
	Direction       string            `json:"direction"`
	From            *string           `json:"from"`
	DateUpdated     *string           `json:"date_updated"`
	Price           *string           `json:"price"`
	ErrorMessage    *string           `json:"error_message"`
	URI             string            `json:"uri"`
	AccountSID      string            `json:"account_sid"`
	NumMedia        string            `json:"num_media"`
	To              string            `json:"to"`
	DateCreated     *string           `json:"date_created"`
	Status          string            `json:"status"`
	SID             string            `json:"sid"`
	DateSent        *string           `json:"date_sent"`
	ServiceSID      *string           `json:"messaging_service_sid"`
	ErrorCode       *int              `json:"error_code"`
	PriceUnit       string            `json:"price_unit"`
	APIVersion      string            `json:"api_version"`
	SubresourceURIs map[string]string `json:"subresource_uris"`
}

// render returns a message as the resource of an account.
func render(m ledger.Message, accountSID string) messageJSON {
	uri := messagesURI(accountSID) + "/" + messageSID(m)
	j := messageJSON{
		Body: m.Body, NumSegments: strconv.Itoa(max(1, confirm.Segments(m.Body))), Direction: "outbound-api",
		From: orNull(m.From), DateUpdated: date(m.UpdatedAt), URI: uri + ".json", AccountSID: accountSID,
		NumMedia: strconv.Itoa(len(m.MediaURLs)), To: m.To.String(), DateCreated: date(m.CreatedAt), SID: messageSID(m),
		PriceUnit: "USD", APIVersion: apiVersion, SubresourceURIs: map[string]string{"media": uri + "/Media.json"},
	}
	if m.UpdatedAt.IsZero() {
		j.DateUpdated = j.DateCreated
	}
	if !m.To.IsValid() {
		j.To = m.ToRaw
	}
	if m.Answers > 0 {
		j.Direction = "outbound-reply"
	}
	j.Status = "queued" // with heed or the provider; also where nobody knows
	switch {
	case m.Code == connector.CodeCanceled:
		j.Status = "canceled"
	case m.Status == ledger.StatusQueued && !m.Started && !m.SendAt.IsZero():
		j.Status = "scheduled"
	case refusal(m) != nil:
		e := refusal(m)
		j.Status, j.ErrorCode, j.ErrorMessage = "failed", &e.Code, &e.Message
	case m.Status == ledger.StatusFailed:
		code, text := errorCode(m), m.Error
		if code == errOptedOut.Code {
			text = errOptedOut.Message
		}
		j.Status, j.ErrorCode, j.ErrorMessage = "failed", &code, &text
	case m.Delivery == "sent", m.Delivery == "delivered":
		j.Status, j.DateSent = m.Delivery, date(m.CreatedAt) // the gate sends at once
		if m.Deferred {
			j.DateSent = date(m.UpdatedAt)
		}
	}
	if isSID(m.From, "MG") { // the service has not said yet which number it chose
		j.From, j.ServiceSID, j.NumSegments = nil, orNull(m.From), "0"
		if j.Status == "queued" {
			j.Status = "accepted"
		}
	}
	return j
}

// messageSID returns a message's SID: Twilio's prefix, which tells a text from one with media, and the hex digits of
// heed's own id.
func messageSID(m ledger.Message) string {
	prefix := "SM"
	if len(m.MediaURLs) > 0 {
		prefix = "MM"
	}
	return prefix + strings.TrimPrefix(m.ID, "msg_")
}

// messageID is the inverse of messageSID.
func messageID(sid string) (id string, ok bool) {
	if !isSID(sid, "SM") && !isSID(sid, "MM") {
		return "", false
	}
	return "msg_" + sid[2:], true
}

// messagesURI is the path of an account's messages, without ".json".
func messagesURI(accountSID string) string { return root + "Accounts/" + accountSID + "/Messages" }

// date is RFC 2822 in GMT, or null.
func date(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC1123Z)
	return &s
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
