package twiliofake

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The Consent Management API, messaging/features/consent-api: one call, which at Twilio is on accounts.twilio.com.
const (
	consentsPath = "/v1/Consents/Bulk"
	maxConsents  = 25
)

// consentReasons are the texts of error 30646, the only one that a consent can have (api/errors/30646).
var consentReasons = []string{"INVALID_CORRELATION_ID", "INVALID_SENDER_ID", "INVALID_CONTACT_ID", "INVALID_STATUS",
	"INVALID_SOURCE", "INVALID_DATE_OF_CONSENT", "INTERNAL_SERVER_ERROR"}

var correlationID = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)

// consent is one item of a call.
type consent struct {
	Contact     string `json:"contact_id"`
	Correlation string `json:"correlation_id"`
	Sender      string `json:"sender_id"`
	Status      string `json:"status"`
	Source      string `json:"source"`
	Date        string `json:"date_of_consent"`
}

type consentResult struct {
	Correlation string   `json:"correlation_id"`
	Code        int      `json:"error_code"`
	Reasons     []string `json:"error_messages"`
}

// setConsents is POST Consents/Bulk. It answers 201 whatever becomes of the single items.
func (s *Server) setConsents(r *http.Request) (int, any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch disabled := s.knobs.ConsentAPIDisabled; {
	case disabled == http.StatusForbidden:
		return 0, nil, failure(disabled, 20403, "The Consent Management API is not enabled for this account")
	case disabled != 0:
		return 0, nil, notFound(r)
	case r.Method != http.MethodPost:
		return 0, nil, failure(http.StatusMethodNotAllowed, 20004, "Method not allowed")
	}
	items := make([]consent, len(r.PostForm["Items"]))
	for i, text := range r.PostForm["Items"] {
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		err := d.Decode(&items[i])
		if _, end := d.Token(); err != nil || end != io.EOF {
			return 0, nil, failure(http.StatusBadRequest, 20001, "Items[%d] is not a JSON object of a consent's fields", i)
		}
	}
	if n := len(items); n == 0 || n > maxConsents {
		return 0, nil, failure(http.StatusBadRequest, 20001, "Items: want 1 to %d, got %d", maxConsents, n)
	}
	results := make([]consentResult, len(items))
	seen := map[string]bool{}
	for i, c := range items {
		id := strings.ToLower(c.Correlation)
		results[i] = consentResult{c.Correlation, 0, s.faults(c, seen[id])}
		seen[id] = true
		if len(results[i].Reasons) > 0 {
			results[i].Code = 30646
			continue
		}
		switch p := (pair{c.Sender, c.Contact}); {
		case c.Status == "opt-out":
			s.blocked[p] = true
		case !s.network[p]: // a STOP to a toll-free number is the network's, and Twilio cannot lift it
			delete(s.blocked, p)
		}
	}
	return http.StatusCreated, map[string]any{"items": results}, nil
}

// faults are all reasons against an item. The caller holds the lock.
func (s *Server) faults(c consent, repeated bool) []string {
	found := []string{}
	check := func(ok bool, reason string) {
		if !ok {
			found = append(found, reason)
		}
	}
	check(correlationID.MatchString(c.Correlation) && !repeated, "INVALID_CORRELATION_ID")
	check(c.Sender == s.service || s.ours(c.Sender), "INVALID_SENDER_ID")
	check(e164.MatchString(c.Contact) && (!strings.HasPrefix(c.Contact, "+1") || len(c.Contact) == 12), "INVALID_CONTACT_ID")
	check(c.Status == "opt-in" || c.Status == "opt-out", "INVALID_STATUS")
	check(slices.Contains([]string{"website", "offline", "opt-in-message", "opt-out-message", "others"}, c.Source), "INVALID_SOURCE")
	if c.Date != "" {
		at, err := time.Parse(time.RFC3339, c.Date)
		check(err == nil && !at.After(s.now()), "INVALID_DATE_OF_CONSENT")
	}
	if reason := s.knobs.ConsentItemErrors[c.Contact]; reason != "" && !slices.Contains(found, reason) {
		found = append(found, reason)
	}
	return found
}
