package twilio

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// withList is a Provider whose account has the Consent Management API. It is a type of its own because an account
// without it must not claim the capability.
type withList struct{ *Provider }

const (
	maxConsents = 25 // changes in one call
	// A date in the future is refused, and by Twilio's clock "now" can be just that.
	clockCatchesUp = time.Minute
)

// consentItem is one change as https://www.twilio.com/docs/messaging/features/consent-api describes it.
type consentItem struct {
	Contact     string `json:"contact_id"`
	Correlation string `json:"correlation_id"`
	Sender      string `json:"sender_id"`
	Status      string `json:"status"`
	Source      string `json:"source"`
	Date        string `json:"date_of_consent,omitempty"` // ISO 8601
	index       int    // in the caller's list
}

// SetOptOuts writes changes to Twilio's own list, 25 a call. A call is repeated on connection errors, 429 and 5xx for
// about a minute; Twilio allows 100 calls a minute and ends each after three seconds. Without c.Sender the configured
// service or number is meant. A call that fails for a reason that is not about its changes is the last one.
//
// Twilio does not let an opt-in lift a STOP that was sent to an American toll-free number: the network keeps that one.
func (p withList) SetOptOuts(ctx context.Context, changes []sms.Consent) []error {
	results := make([]error, len(changes))
	todo := make([]consentItem, 0, len(changes))
	for i, c := range changes {
		item, err := p.consentItem(c)
		if err != nil {
			results[i] = err
			continue
		}
		item.index = i
		todo = append(todo, item)
	}
	for len(todo) > 0 {
		done := todo[:batch(todo)]
		answers, err := p.postConsents(ctx, done)
		if err != nil && (sms.ClassOf(err) != sms.Rejected || errors.Is(err, sms.ErrNoList)) {
			done = todo
		}
		for _, item := range done {
			if results[item.index] = err; err == nil {
				results[item.index] = answers.result(item)
			}
		}
		todo = todo[len(done):]
	}
	return results
}

func (p withList) consentItem(c sms.Consent) (consentItem, error) {
	item := consentItem{Contact: c.Number, Correlation: c.ID, Status: "opt-in", Source: "others",
		Sender: cmp.Or(c.Sender, p.cfg.MessagingServiceSID, p.cfg.From)}
	_, notNumber := phone.ParseE164(c.Number)
	switch {
	case notNumber != nil:
		return item, &sms.Error{Class: sms.Rejected, Text: "the opt-out list takes numbers in E.164 only"}
	case !isSID(item.Sender, "MG") && !isSender(item.Sender):
		return item, &sms.Error{Class: sms.Rejected, Text: "the sender is neither a number nor a messaging service"}
	case !isAlphanumeric(c.ID):
		return item, &sms.Error{Class: sms.Rejected, Text: "the change has no ID of letters and digits"}
	}
	if _, err := hex.DecodeString(c.ID); err != nil || len(c.ID) != 32 { // Twilio takes nothing else
		h := sha256.Sum256([]byte(c.ID))
		item.Correlation = hex.EncodeToString(h[:16])
	}
	if c.OptedOut {
		item.Status = "opt-out"
	}
	if !c.At.IsZero() && !c.At.After(p.now()) {
		item.Date = c.At.UTC().Format(time.RFC3339)
	}
	return item, nil
}

// batch returns how many of items fit into one call. A call has each phone and each ID once: Twilio does not say in
// which order it works on a call's items.
func batch(items []consentItem) int {
	type pair struct{ contact, sender string }
	seen, ids := map[pair]bool{}, map[string]bool{}
	for n, item := range items {
		to := pair{item.Contact, item.Sender}
		if n == maxConsents || seen[to] || ids[item.Correlation] {
			return n
		}
		seen[to], ids[item.Correlation] = true, true
	}
	return len(items)
}

// consentAnswers is the answer to one call. It comes with status 201 even if every change in it was refused.
type consentAnswers struct {
	Items []struct {
		Correlation string   `json:"correlation_id"`
		Code        code     `json:"error_code"`
		Reasons     []string `json:"error_messages"`
	} `json:"items"`
}

func (p withList) postConsents(ctx context.Context, items []consentItem) (consentAnswers, error) {
	var answers consentAnswers
	form := url.Values{}
	for _, item := range items {
		b, err := json.Marshal(item)
		if err != nil {
			return answers, &sms.Error{Class: sms.Rejected, Text: "the request could not be built", Err: err}
		}
		form.Add("Items", string(b))
	}
	u := p.accounts.JoinPath("v1", "Consents", "Bulk").String()
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, u, []byte(form.Encode()))
	if err != nil {
		return answers, &sms.Error{Class: sms.Rejected, Text: "the request could not be built", Err: quiet(err, scrubber())}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	p.authenticate(req.Request)
	resp, err := p.repeats.Do(req)
	err = p.understand(resp, err, &answers)
	var e *sms.Error
	if errors.As(err, &e) && e.Class == sms.Rejected && (e.Status == http.StatusForbidden || e.Status == http.StatusNotFound) {
		e.Err = sms.ErrNoList
	}
	return answers, err
}

// result is what the answer says about one change. The reasons are in https://www.twilio.com/docs/api/errors/30646.
func (a consentAnswers) result(item consentItem) error {
	unclear := &sms.Error{Class: sms.Unknown, Status: http.StatusCreated, Text: "the answer does not mention the change"}
	for _, answer := range a.Items {
		if !strings.EqualFold(answer.Correlation, item.Correlation) {
			continue
		}
		switch {
		case answer.Code == "0":
			return nil
		case !isAlphanumeric(string(answer.Code)):
			return unclear
		}
		e := &sms.Error{Class: sms.Rejected, Status: http.StatusCreated, Code: string(answer.Code),
			Text: scrubber(item.Contact, item.Sender)(strings.Join(answer.Reasons, ", "))}
		switch {
		case slices.Contains(answer.Reasons, "INTERNAL_SERVER_ERROR"):
			e.Class = sms.Unknown
		case slices.Equal(answer.Reasons, []string{"INVALID_DATE_OF_CONSENT"}):
			e.Class, e.RetryAfter = sms.Throttled, clockCatchesUp
		}
		return e
	}
	return unclear
}
