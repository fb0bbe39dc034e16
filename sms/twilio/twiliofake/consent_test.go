package twiliofake

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

const correlation = "ad388b5a46b33b874b0d41f7226db2ef"

// item is an opt-out of phone for ourLong, with fields changed, or left out where the value is "-".
func item(changes ...string) string {
	m := map[string]string{"contact_id": phone, "correlation_id": correlation, "sender_id": ourLong, "status": "opt-out", "source": "others"}
	for i := 0; i < len(changes); i += 2 {
		if m[changes[i]] = changes[i+1]; changes[i+1] == "-" {
			delete(m, changes[i])
		}
	}
	b, _ := json.Marshal(m)
	return string(b)
}

func (r *rig) consents(items ...string) (int, map[string]any) {
	return r.call("POST", "/v1/Consents/Bulk", url.Values{"Items": items})
}

func TestConsentsBlockAndLift(t *testing.T) {
	r := newRig(t)
	through := msg(phone, "From", "", "MessagingServiceSid", r.MessagingServiceSID())
	for _, c := range []struct {
		name, items      string
		number, services int // what a send from the number, and one through the service, is answered
	}{
		{"an opt-out of the number", item(), 400, 201},
		{"the same again", item(), 400, 201},
		{"an opt-out of the service", item("sender_id", r.MessagingServiceSID()), 400, 400},
		{"an opt-in for the number", item("status", "opt-in"), 201, 400},
		{"an opt-in for the service", item("status", "opt-in", "sender_id", r.MessagingServiceSID(), "date_of_consent", "2025-02-28T10:05:27Z"), 201, 201},
	} {
		status, body := r.consents(c.items)
		equal(t, c.name, []any{status, body["items"]}, []any{201, []any{map[string]any{"correlation_id": correlation, "error_code": 0, "error_messages": []any{}}}})
		if status, e := r.send(msg(phone)); status != c.number || status == 400 && e["code"] != 21610.0 {
			t.Errorf("after %s: a send from the number: %d %v", c.name, status, e["code"])
		}
		if status, e := r.send(through); status != c.services || status == 400 && e["code"] != 21610.0 {
			t.Errorf("after %s: a send through the service: %d %v", c.name, status, e["code"])
		}
	}
	r.mustText(phone, ourLong, "STOP")
	if r.consents(item("status", "opt-in")); r.OptedOut(ourLong, phone) {
		t.Error("an opt-in does not lift a STOP")
	}
}

func TestConsentsDoNotLiftTheNetworksBlock(t *testing.T) {
	r := newRig(t)
	in := item("status", "opt-in", "sender_id", ourFree)
	r.consents(item("sender_id", ourFree))
	if r.consents(in); r.OptedOut(ourFree, phone) {
		t.Error("an opt-in does not lift an opt-out of the API")
	}
	r.mustText(phone, ourFree, "STOP")
	if r.consents(in); !r.OptedOut(ourFree, phone) {
		t.Error("an opt-in lifts a STOP to a toll-free number")
	}
	if r.mustText(phone, ourFree, "UNSTOP"); r.OptedOut(ourFree, phone) {
		t.Error("UNSTOP does not")
	}
}

func TestConsentsAreRefusedOneByOne(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := newRig(t, func(o *Options) { o.Now = func() time.Time { return now } })
	other := "+15555550102"
	r.knob(Knobs{ConsentItemErrors: Refusals{other: "INTERNAL_SERVER_ERROR"}})
	for _, c := range []struct{ item, want string }{
		{item(), ""},
		{item("date_of_consent", "2026-01-02T03:04:05Z"), ""},
		{item("correlation_id", "short"), "INVALID_CORRELATION_ID"},
		{item("correlation_id", "-"), "INVALID_CORRELATION_ID"},
		{item("sender_id", "+15555550199"), "INVALID_SENDER_ID"},
		{item("sender_id", "MG00000000000000000000000000000000"), "INVALID_SENDER_ID"},
		{item("contact_id", "5555550101"), "INVALID_CONTACT_ID"},
		{item("contact_id", "+19"), "INVALID_CONTACT_ID"},
		{item("status", "stop"), "INVALID_STATUS"},
		{item("source", "-"), "INVALID_SOURCE"},
		{item("date_of_consent", "2025-03-25"), "INVALID_DATE_OF_CONSENT"},
		{item("date_of_consent", "2026-01-02T03:04:06Z"), "INVALID_DATE_OF_CONSENT"},
		{item("contact_id", other), "INTERNAL_SERVER_ERROR"},
		{item("contact_id", "", "source", ""), "INVALID_CONTACT_ID INVALID_SOURCE"},
	} {
		status, body := r.consents(c.item)
		got := body["items"].([]any)[0].(map[string]any)
		code := 0.0
		if c.want != "" {
			code = 30646
		}
		equal(t, c.item, []any{status, got["error_code"], fmt.Sprint(got["error_messages"])}, []any{201, code, "[" + c.want + "]"})
	}
	status, body := r.consents(item("contact_id", "+15555550103"), item("contact_id", "+15555550104"), item("contact_id", other, "correlation_id", strings.Repeat("1", 32)))
	var codes []any
	for _, i := range body["items"].([]any) {
		codes = append(codes, i.(map[string]any)["error_code"])
	}
	equal(t, "a call in which one ID comes twice", []any{status, codes}, []any{201, []any{0, 30646, 30646}})
	equal(t, "who is blocked", []bool{r.OptedOut(ourLong, "+15555550103"), r.OptedOut(ourLong, "+15555550104"), r.OptedOut(ourLong, other)}, []bool{true, false, false})
}

func TestConsentCallsAreRefusedAsAWhole(t *testing.T) {
	many := make([]string, 26)
	for i := range many {
		many[i] = item("correlation_id", fmt.Sprintf("%032x", i))
	}
	for _, c := range []struct {
		name         string
		knobs        Knobs
		method       string
		items        []string
		status, code int
	}{
		{"25 items", Knobs{}, "POST", many[:25], 201, 0},
		{"26 items", Knobs{}, "POST", many, 400, 20001},
		{"no items", Knobs{}, "POST", nil, 400, 20001},
		{"no JSON", Knobs{}, "POST", []string{"contact_id"}, 400, 20001},
		{"a list", Knobs{}, "POST", []string{"[" + item() + "]"}, 400, 20001},
		{"an unknown field", Knobs{}, "POST", []string{item("number", phone)}, 400, 20001},
		{"something after the item", Knobs{}, "POST", []string{item() + item()}, 400, 20001},
		{"another method", Knobs{}, "PUT", many[:1], 405, 20004},
		{"an account without the API", Knobs{ConsentAPIDisabled: 403}, "POST", many[:1], 403, 20403},
		{"an account that does not see the API", Knobs{ConsentAPIDisabled: 404}, "POST", many[:1], 404, 20404},
		{"too many calls", Knobs{ThrottleRate: 1}, "POST", many[:1], 429, 20429},
		{"expired credentials", Knobs{ExpireAuth: true}, "POST", many[:1], 401, 20003},
	} {
		r := newRig(t)
		r.knob(c.knobs)
		status, body := r.call(c.method, "/v1/Consents/Bulk", url.Values{"Items": c.items})
		if code, _ := body["code"].(float64); status != c.status || int(code) != c.code {
			t.Errorf("%s: %d %v, want %d %d", c.name, status, body, c.status, c.code)
		}
		if r.OptedOut(ourLong, phone) != (c.status == 201) {
			t.Errorf("%s: blocked: %v", c.name, r.OptedOut(ourLong, phone))
		}
	}
}

func TestALostAnswerToConsentsLosesNoConsent(t *testing.T) {
	r := newRig(t)
	r.knob(Knobs{BadJSONRate: 1})
	status, body, err := r.try(t.Context(), "POST", "/v1/Consents/Bulk", url.Values{"Items": {item()}})
	if status != 201 || err != nil || json.Valid(body) || !r.OptedOut(ourLong, phone) {
		t.Errorf("%d %q %v, blocked: %v", status, body, err, r.OptedOut(ourLong, phone))
	}
}
