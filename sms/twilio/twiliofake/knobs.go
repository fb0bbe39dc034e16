package twiliofake

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

// Knobs are the ways to misbehave. The zero value behaves well. Rates are probabilities from 0 to 1, rolled with dice
// that Options.Seed sets; for tests that must not depend on dice there are rates of 1 and the list NextSend.
type Knobs struct {
	// SendErrorRate: a send is answered 500 with an HTML page and is not accepted.
	SendErrorRate float64 `json:"send_error_rate"`
	// SendTimeoutAfterAcceptRate: a send is accepted and goes out, but is never answered: the request hangs until the
	// client gives up, or the connection is dropped after a minute.
	SendTimeoutAfterAcceptRate float64 `json:"send_timeout_after_accept_rate"`
	// ThrottleRate: a call of the API is answered 429, code 20429, and nothing is processed.
	ThrottleRate float64 `json:"throttle_rate"`
	// LatencyMS delays every call of the API, milliseconds, at most 60,000.
	LatencyMS int `json:"latency_ms"`
	// BadJSONRate: the JSON of a successful answer is cut in the middle. What was asked for has happened.
	BadJSONRate float64 `json:"bad_json_rate"`
	// ExpireAuth: every credential is refused with 401, code 20003.
	ExpireAuth bool `json:"expire_auth"`

	// WebhookDropRate: an inbound message's webhook is never sent. The message is in the log.
	WebhookDropRate float64 `json:"webhook_drop_rate"`
	// WebhookDuplicateRate: a webhook is sent a second time after the first, with the same MessageSid.
	WebhookDuplicateRate float64 `json:"webhook_duplicate_rate"`
	// WebhookReorder holds webhooks back until that many wait (at most 100, or two seconds have passed), then sends
	// them newest first. true means 2; 0, 1 and false turn it off and send what is held.
	WebhookReorder Window `json:"webhook_reorder"`
	// CallbackDropRate: a single status callback is not sent.
	CallbackDropRate float64 `json:"callback_drop_rate"`
	// CallbackShuffle sends a message's status callbacks in another order than they happened.
	CallbackShuffle bool `json:"callback_shuffle"`

	// Async21610: a send to an opted-out phone is accepted, and fails later with ErrorCode 21610 in its callback and
	// in the log.
	Async21610 bool `json:"async_21610"`
	// AdvancedOptOut: the numbers are in a messaging service with Advanced Opt-Out, so inbound webhooks carry
	// MessagingServiceSid, and OptOutType if the text is a keyword.
	AdvancedOptOut bool `json:"advanced_opt_out"`
	// RedactBodies: bodies of new messages are not in the log, as with ContentRetention=discard. Webhooks have them.
	RedactBodies bool `json:"redact_bodies"`

	// ConsentAPIDisabled is the status, 403 or 404, with which an account without the Consent Management API is told so;
	// 0 means that the account has it. Twilio documents neither answer.
	ConsentAPIDisabled int `json:"consent_api_disabled"`
	// ConsentItemErrors refuses the consents of phones: number to reason, with code 30646 and status 201. The reasons
	// are INVALID_CORRELATION_ID, INVALID_SENDER_ID, INVALID_CONTACT_ID, INVALID_STATUS, INVALID_SOURCE,
	// INVALID_DATE_OF_CONSENT and INTERNAL_SERVER_ERROR, which a repetition may overcome.
	ConsentItemErrors Refusals `json:"consent_item_errors"`

	// NextSend are the outcomes of the next sends, one each, before any rate is rolled: see the Outcome constants.
	NextSend Outcomes `json:"next_send"`
}

// Outcomes of a send that Knobs.NextSend can ask for.
const (
	OutcomeOK                 = "ok"                   // as if no knob were set
	Outcome500                = "500"                  // an HTML error page; not accepted
	Outcome429                = "429"                  // code 20429; not accepted
	Outcome307                = "307"                  // a redirect to the same URL; not accepted, and following it sends
	OutcomeReset              = "reset"                // connection dropped without an answer; not accepted
	OutcomeTimeoutAfterAccept = "timeout_after_accept" // accepted; hangs
	OutcomeResetAfterAccept   = "reset_after_accept"   // accepted; connection dropped without an answer
	Outcome500AfterAccept     = "500_after_accept"     // accepted; an HTML error page
	OutcomeBadJSON            = "bad_json"             // accepted; 201 with half of the JSON
)

var outcomes = []string{OutcomeOK, Outcome500, Outcome429, Outcome307, OutcomeReset, OutcomeTimeoutAfterAccept,
	OutcomeResetAfterAccept, Outcome500AfterAccept, OutcomeBadJSON}

// Window is a number that JSON may also write as a boolean: true is 2.
type Window int

// UnmarshalJSON reads a number or a boolean.
func (w *Window) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true":
		*w = 2
		return nil
	case "false":
		*w = 0
		return nil
	}
	return json.Unmarshal(b, (*int)(w))
}

// Outcomes is a list that JSON may also write as a single string.
type Outcomes []string

// UnmarshalJSON reads a string or a list of strings.
func (o *Outcomes) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		err := json.Unmarshal(b, &one)
		*o = Outcomes{one}
		return err
	}
	var list []string
	err := json.Unmarshal(b, &list)
	*o = list
	return err
}

// MarshalJSON writes an empty list as [].
func (o Outcomes) MarshalJSON() ([]byte, error) {
	return json.Marshal(append([]string{}, o...))
}

// Refusals are reasons by phone. JSON replaces the whole of them.
type Refusals map[string]string

// UnmarshalJSON reads an object.
func (r *Refusals) UnmarshalJSON(b []byte) error {
	var all map[string]string
	err := json.Unmarshal(b, &all)
	*r = all
	return err
}

// MarshalJSON writes nothing as {}.
func (r Refusals) MarshalJSON() ([]byte, error) {
	if r == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string]string(r))
}

func (k Knobs) clone() Knobs {
	k.NextSend = slices.Clone(k.NextSend)
	k.ConsentItemErrors = maps.Clone(k.ConsentItemErrors)
	return k
}

func (k Knobs) validate() error {
	for name, rate := range map[string]float64{
		"send_error_rate": k.SendErrorRate, "send_timeout_after_accept_rate": k.SendTimeoutAfterAcceptRate,
		"throttle_rate": k.ThrottleRate, "bad_json_rate": k.BadJSONRate, "webhook_drop_rate": k.WebhookDropRate,
		"webhook_duplicate_rate": k.WebhookDuplicateRate, "callback_drop_rate": k.CallbackDropRate,
	} {
		if !(rate >= 0 && rate <= 1) {
			return fmt.Errorf("%s: want a probability from 0 to 1", name)
		}
	}
	if k.LatencyMS < 0 || k.LatencyMS > 60_000 {
		return fmt.Errorf("latency_ms: want 0 to 60000")
	}
	if k.WebhookReorder < 0 || k.WebhookReorder > 100 {
		return fmt.Errorf("webhook_reorder: want true, false or 0 to 100")
	}
	if k.ConsentAPIDisabled != 0 && k.ConsentAPIDisabled != http.StatusForbidden && k.ConsentAPIDisabled != http.StatusNotFound {
		return fmt.Errorf("consent_api_disabled: want 0, 403 or 404")
	}
	for number, reason := range k.ConsentItemErrors {
		if !e164.MatchString(number) || !slices.Contains(consentReasons, reason) {
			return fmt.Errorf("consent_item_errors: want numbers in E.164 with one of %q", consentReasons)
		}
	}
	if len(k.NextSend) > 1000 {
		return fmt.Errorf("next_send: at most 1000 outcomes")
	}
	for _, o := range k.NextSend {
		if !slices.Contains(outcomes, o) {
			return fmt.Errorf("next_send: unknown outcome %q, want one of %q", o, outcomes)
		}
	}
	return nil
}
