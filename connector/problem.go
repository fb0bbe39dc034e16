package connector

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms"
)

// Problem is an error answer: an RFC 9457 problem document. It never carries a number or a text.
type Problem struct {
	Type   string `json:"type"` // "about:blank", or a stable word of heed's own
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Field  string `json:"field,omitempty"` // the field of the request that is at fault
	Hint   string `json:"hint,omitempty"`  // what to do next

	retryAfter int // seconds, of a 429
}

func (p Problem) Error() string { return p.Title + ": " + p.Detail }

// problems is the one table from error to HTTP answer. The first match counts; anything else is 500 without detail.
var problems = []struct {
	err     error
	problem Problem
}{
	{ledger.ErrUnavailable, Problem{Type: "unavailable", Title: "The ledger is unavailable", Status: 503, Detail: "Nothing was stored and nothing was sent.", Hint: "Try again; the operator finds the cause at /readyz."}},
	{ledger.ErrKeyReused, Problem{Type: "key-reused", Title: "Idempotency key reused", Status: 409, Field: "Idempotency-Key", Detail: "This key was used before, for a different message. Nothing was sent.", Hint: "Use a new key for each message."}},
	{ledger.ErrNotFound, Problem{Type: "not-found", Title: "Not found", Status: 404}},
	{ErrSticky, Problem{Type: "sticky", Title: "Only the recipient can lift this", Status: 409, Field: "state", Detail: "The recipient opted out. Only START from that number lifts it.", Hint: "Ask the person to text START to your number."}},
	{ErrHeld, Problem{Type: "held", Title: "Held for review", Status: 409, Field: "state", Detail: "An unclear reply from this number waits for a decision, and blocks until then.", Hint: "Decide with POST /v1/holds/NUMBER; as: release says that it was no request to stop."}},
	{ErrNotHeld, Problem{Type: "not-held", Title: "Not held for review", Status: 409, Detail: "The number does not wait for a decision; somebody may have decided already.", Hint: "GET /v1/consents/NUMBER shows its state."}},
	{ErrNotSeen, Problem{Type: "not-seen", Title: "Another reply has come", Status: 409, Field: "seq", Detail: "Another unclear reply came after the one that was decided on.", Hint: "GET /v1/holds shows it; decide again."}},
	{errNoAccount, Problem{Type: "not-found", Title: "Not found", Status: 404, Detail: "No account of this name is configured.", Hint: "The path is /webhooks/ and the name under sms: in the configuration."}},
	{sms.ErrSignature, Problem{Type: "signature", Title: "Forbidden", Status: 403, Detail: "The request does not prove that the provider sent it.",
		Hint: "Check that public.url is the address that the provider calls, and that the auth token is the account's own."}},
}

// problemOf returns the answer for an error.
func problemOf(err error) Problem {
	var p Problem
	var in *InputError
	var tooMany *TooManyError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &in):
		return Problem{Type: "invalid", Title: "Invalid request", Status: 422, Field: in.Field, Detail: in.Reason}
	case errors.As(err, &tooMany):
		return tooMany.problem()
	case errors.As(err, &tooLarge):
		return Problem{Type: "too-large", Title: "Request too large", Status: 413, Detail: "The body is larger than this address takes."}
	}
	for _, row := range problems {
		if errors.Is(err, row.err) {
			return row.problem
		}
	}
	return Problem{Type: "about:blank", Title: "Internal error", Status: 500, Hint: "The operator finds the cause in heed's log."}
}

func writeProblem(w http.ResponseWriter, p Problem) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	switch p.Status {
	case 401:
		h.Set("WWW-Authenticate", `Bearer realm="heed"`)
	case 429:
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	case 503:
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}
