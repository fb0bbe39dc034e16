package twiliofake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twilio/twilio-go/client"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	phone    = "+15555550101"
	ourLong  = "+15550100000"
	ourOther = "+15550100001"
	ourFree  = "+18335550100"
)

// rig is an emulator behind a real HTTP server, and an application that receives its webhooks.
type rig struct {
	*Server
	t       *testing.T
	url     string
	app     *httptest.Server
	hc      *http.Client
	mu      sync.Mutex
	reached []*http.Request // to the application, forms parsed
	respond func(n int, w http.ResponseWriter, r *http.Request)
}

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t}
	r.app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		req.Body = io.NopCloser(bytes.NewReader(body))
		_ = req.ParseForm()
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.mu.Lock()
		r.reached = append(r.reached, req)
		n, respond := len(r.reached), r.respond
		r.mu.Unlock()
		if respond != nil {
			respond(n, w, req)
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(w, "<Response/>")
	}))
	tr := &http.Transport{}
	r.hc = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	o := Options{Seed: 7, Numbers: []string{ourLong, ourOther, ourFree}, WebhookURL: r.app.URL + "/hooks/twilio?x=1"}
	for _, c := range change {
		c(&o)
	}
	r.Server = New(o)
	ts := httptest.NewServer(r.Handler())
	r.url = ts.URL
	t.Cleanup(func() { r.Close(); tr.CloseIdleConnections(); ts.Close(); r.app.Close() })
	return r
}

// seen returns what the application received so far, with the given form key's value.
func (r *rig) seen(key string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []string{}
	for _, q := range r.reached {
		out = append(out, q.PostForm.Get(key))
	}
	return out
}

func (r *rig) answer(f func(n int, w http.ResponseWriter, r *http.Request)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.respond = f
}

// call makes an authenticated request and decodes its JSON.
func (r *rig) call(method, path string, form url.Values) (int, map[string]any) {
	r.t.Helper()
	status, body, err := r.try(r.t.Context(), method, path, form)
	if err != nil {
		r.t.Fatal(err)
	}
	v := map[string]any{}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &v); err != nil {
			r.t.Fatalf("%s %s: %v in %q", method, path, err, body)
		}
	}
	return status, v
}

func (r *rig) try(ctx context.Context, method, path string, form url.Values) (int, []byte, error) {
	if strings.HasPrefix(path, "/Messages") || strings.HasPrefix(path, "/Incoming") || path == ".json" {
		path = "/2010-04-01/Accounts/" + r.AccountSID() + path
	}
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.SetBasicAuth(r.AccountSID(), r.AuthToken())
	res, err := r.hc.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

func msg(to string, more ...string) url.Values {
	f := url.Values{"To": {to}, "From": {ourLong}, "Body": {"hello"}}
	for i := 0; i < len(more); i += 2 {
		f.Del(more[i])
		if more[i+1] != "" {
			f.Set(more[i], more[i+1])
		}
	}
	return f
}

func (r *rig) send(f url.Values) (int, map[string]any) { return r.call("POST", "/Messages.json", f) }

func (r *rig) mustText(from, to, body string, o ...TextOption) string {
	r.t.Helper()
	sid, err := r.Text(from, to, body, o...)
	if err != nil {
		r.t.Fatal(err)
	}
	return sid
}

func (r *rig) knob(k Knobs) {
	r.t.Helper()
	if err := r.SetKnobs(k); err != nil {
		r.t.Fatal(err)
	}
}

func bodies(ts []Text) []string {
	out := []string{}
	for _, t := range ts {
		out = append(out, t.Body)
	}
	return out
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if !bytes.Equal(g, w) {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// Vectors published by Twilio: the example of its security page and the tests of its Python library.
func TestSignatureMatchesPublishedVectors(t *testing.T) {
	const u = "https://mycompany.com/myapp.php?foo=1&bar=2"
	equal(t, "simple", sign("12345", u, url.Values{"CallSid": {"CA1234567890ABCDE"}, "Digits": {"1234"},
		"From": {"+14158675309"}, "To": {"+18005551212"}, "Caller": {"+14158675309"}}), "RSOYDt4T1cUTdK1PDd93/VVr8B8=")
	equal(t, "repeated key", sign("12345", u, url.Values{"Sid": {"CA123"}, "SidAccount": {"AC123"},
		"Digits": {"5678", "1234", "1234"}}), "IK+Dwps556ElfBT0I3Rgjkr1wJU=")
}

func TestSegmentsAreCountedAsTheNetworkCountsThem(t *testing.T) {
	for _, c := range []struct {
		text string
		want int
	}{
		{"", 1}, {strings.Repeat("a", 160), 1}, {strings.Repeat("a", 161), 2}, {strings.Repeat("a", 306), 2},
		{strings.Repeat("a", 307), 3}, {strings.Repeat("€", 80), 1}, {strings.Repeat("€", 81), 2},
		{strings.Repeat("a", 152) + "€" + strings.Repeat("a", 152), 3}, // the € does not fit into the first segment
		{strings.Repeat("ж", 70), 1}, {strings.Repeat("ж", 71), 2}, {strings.Repeat("ж", 135), 3},
		{strings.Repeat("😀", 35), 1}, {strings.Repeat("😀", 36), 2}, {strings.Repeat("😀", 67), 3},
		{"don’t", 1}, {strings.Repeat("a", 100) + "’", 2},
	} {
		if got := segments(c.text); got != c.want {
			t.Errorf("segments(%d characters, %.4q…) = %d, want %d", len([]rune(c.text)), c.text, got, c.want)
		}
	}
}

func TestSendAnswersWithTheWholeMessageResource(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 5e8, time.UTC)
	r := newRig(t, func(o *Options) { o.Now = func() time.Time { return now } })
	status, m := r.send(msg(phone))
	if status != 201 {
		t.Fatalf("status %d: %v", status, m)
	}
	sid := m["sid"].(string)
	if len(sid) != 34 || !strings.HasPrefix(sid, "SM") {
		t.Errorf("sid %q", sid)
	}
	base := "/2010-04-01/Accounts/" + r.AccountSID() + "/Messages/" + sid
	equal(t, "resource", m, map[string]any{
		"body": "hello", "num_segments": "1", "direction": "outbound-api", "from": ourLong, "to": phone,
		"date_created": "Sat, 31 Jan 2026 12:00:00 +0000", "date_updated": "Sat, 31 Jan 2026 12:00:00 +0000", "date_sent": nil,
		"price": nil, "price_unit": "USD", "error_code": nil, "error_message": nil, "uri": base + ".json",
		"account_sid": r.AccountSID(), "num_media": "0", "status": "queued", "sid": sid, "messaging_service_sid": nil,
		"api_version": "2010-04-01", "subresource_uris": map[string]any{"media": base + "/Media.json"},
	})
	_, got := r.call("GET", "/Messages/"+sid+".json", nil)
	equal(t, "status later", fmt.Sprint(got["status"], got["date_sent"]), "deliveredSat, 31 Jan 2026 12:00:00 +0000")
	equal(t, "inbox", bodies(r.Inbox(phone)), []string{"hello"})
}

func TestSameSeedGivesTheSameSIDs(t *testing.T) {
	a, b, c := New(Options{Seed: 1}), New(Options{Seed: 1, AuthToken: "given"}), New(Options{})
	defer a.Close()
	defer b.Close()
	defer c.Close()
	sidA, _ := a.Text(phone, ourLong, "x")
	sidB, _ := b.Text(phone, ourLong, "x")
	if sidA != sidB || a.AccountSID() != b.AccountSID() || a.AccountSID() == c.AccountSID() || b.AuthToken() != "given" || len(a.AuthToken()) != 32 {
		t.Errorf("seed 1 gave %s and %s; accounts %s %s %s", sidA, sidB, a.AccountSID(), b.AccountSID(), c.AccountSID())
	}
}

func TestSendRefusesWhatTwilioRefuses(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		name         string
		form         url.Values
		status, code int
	}{
		{"no To", msg(""), 400, 21604},
		{"no From", msg(phone, "From", ""), 400, 21603},
		{"no body", msg(phone, "Body", ""), 400, 21602},
		{"To without plus", msg("15555550101"), 400, 21211},
		{"To too short for +1", msg("+1555555010"), 400, 21211},
		{"To with spaces", msg("+1 555 555 0101"), 400, 21211},
		{"From not a number", msg(phone, "From", "HEED"), 400, 21212},
		{"From not ours", msg(phone, "From", "+15555550199"), 400, 21659},
		{"to itself", msg(ourLong), 400, 21266},
		{"1601 characters", msg(phone, "Body", strings.Repeat("é", 1601)), 400, 21617},
		{"callback is no URL", msg(phone, "StatusCallback", "status"), 400, 21609},
		{"callback host with underscore", msg(phone, "StatusCallback", "http://a_b.example.com/"), 400, 21609},
		{"media is no URL", msg(phone, "MediaUrl", "cat.jpg"), 400, 21620},
		{"another account's service", msg(phone, "From", "", "MessagingServiceSid", "MG00000000000000000000000000000000"), 400, 21705},
		{"magic invalid To", msg("+15005550001"), 400, 21211},
		{"magic unroutable To", msg("+15005550002"), 400, 21612},
		{"magic region To", msg("+15005550003"), 400, 21408},
		{"magic opted-out To", msg("+15005550004"), 400, 21610},
		{"magic landline To", msg("+15005550009"), 400, 21614},
		{"magic invalid From", msg(phone, "From", "+15005550001"), 400, 21212},
		{"magic foreign From", msg(phone, "From", "+15005550007"), 400, 21606},
		{"magic full From", msg(phone, "From", "+15005550008"), 400, 21611},
		{"scheduled without a service", msg(phone, "SendAt", "2030-01-01T00:00:00Z", "ScheduleType", "fixed"), 400, 35118},
	} {
		status, e := r.send(c.form)
		more := fmt.Sprintf("https://www.twilio.com/docs/errors/%d", c.code)
		if status != c.status || e["code"] != float64(c.code) || e["status"] != float64(c.status) || e["more_info"] != more || e["message"] == "" {
			t.Errorf("%s: %d %v, want code %d", c.name, status, e, c.code)
		}
	}
	if n := len(r.Inbox(phone)); n != 0 {
		t.Errorf("%d refused messages arrived", n)
	}
	for _, good := range []url.Values{msg(phone, "Body", strings.Repeat("é", 1600)), msg(phone, "From", "+15005550006"),
		msg(phone, "Body", "", "MediaUrl", "https://example.com/cat.jpg")} {
		if status, e := r.send(good); status != 201 {
			t.Errorf("%d %v", status, e)
		}
	}
	if _, list := r.call("GET", "/Messages.json", nil); !strings.HasPrefix(list["messages"].([]any)[0].(map[string]any)["sid"].(string), "MM") {
		t.Error("a message with media does not have an MM SID")
	}
}

func TestCredentialsAccountAndMethod(t *testing.T) {
	r := newRig(t)
	key, secret := r.APIKey()
	path := "/2010-04-01/Accounts/" + r.AccountSID()
	for _, c := range []struct {
		method, path, user, password string
		status, code                 int
	}{
		{"GET", path + ".json", r.AccountSID(), r.AuthToken(), 200, 0},
		{"GET", path + ".json", key, secret, 200, 0},
		{"GET", path + ".json", r.AccountSID(), secret, 401, 20003},
		{"GET", path + ".json", "", "", 401, 20003},
		{"GET", "/2010-04-01/Accounts/AC00000000000000000000000000000000/Messages.json", r.AccountSID(), r.AuthToken(), 404, 20404},
		{"GET", path + "/Messages/SM00000000000000000000000000000000.json", key, secret, 404, 20404},
		{"GET", path + "/Messages", key, secret, 404, 20404},
		{"PUT", path + "/Messages.json", key, secret, 405, 20004},
		{"GET", "/v1/Services", key, secret, 404, 20404},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), c.method, r.url+c.path, nil)
		if c.user != "" {
			req.SetBasicAuth(c.user, c.password)
		}
		res, err := r.hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ Code int }
		err = json.NewDecoder(res.Body).Decode(&e)
		res.Body.Close()
		if err != nil || res.StatusCode != c.status || e.Code != c.code {
			t.Errorf("%s %s as %.4q: %d %+v %v, want %d %d", c.method, c.path, c.user, res.StatusCode, e, err, c.status, c.code)
		}
	}
}

func TestJSONBodiesAreNotAForm(t *testing.T) {
	r := newRig(t)
	req, _ := http.NewRequestWithContext(t.Context(), "POST", r.url+"/2010-04-01/Accounts/"+r.AccountSID()+"/Messages.json",
		strings.NewReader(`{"To":"`+phone+`"}`))
	req.SetBasicAuth(r.AccountSID(), r.AuthToken())
	req.Header.Set("Content-Type", "application/json")
	res, err := r.hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var e apiError
	if _ = json.NewDecoder(res.Body).Decode(&e); e.Code != 21604 {
		t.Errorf("%+v", e)
	}
	if status, v := r.send(msg(phone, "Body", strings.Repeat("x", maxBody))); status != 400 || v["code"] != 20001.0 {
		t.Errorf("a huge body: %d %v", status, v)
	}
}

func TestInboundWebhookIsSignedAndComplete(t *testing.T) {
	r := newRig(t)
	sid := r.mustText(phone, ourLong, "Hi & bye=1 é😀\n", WithMedia("https://example.com/a.png", "https://example.com/b"))
	q := r.reached[0]
	body, _ := io.ReadAll(q.Body)
	v := client.NewRequestValidator(r.AuthToken())
	if !v.ValidateBody(r.app.URL+"/hooks/twilio?x=1", body, q.Header.Get("X-Twilio-Signature")) {
		t.Error("Twilio's own validator refuses the signature")
	}
	if v.ValidateBody(r.app.URL+"/hooks/twilio?x=2", body, q.Header.Get("X-Twilio-Signature")) {
		t.Error("the signature does not cover the query")
	}
	if len(q.Header.Get("I-Twilio-Idempotency-Token")) != 36 || q.Header.Get("Content-Type") != "application/x-www-form-urlencoded; charset=UTF-8" {
		t.Errorf("header %v", q.Header)
	}
	equal(t, "form", q.PostForm, url.Values{
		"MessageSid": {sid}, "SmsSid": {sid}, "SmsMessageSid": {sid}, "AccountSid": {r.AccountSID()}, "ApiVersion": {"2010-04-01"},
		"From": {phone}, "To": {ourLong}, "Body": {"Hi & bye=1 é😀\n"}, "SmsStatus": {"received"}, "NumSegments": {"1"}, "NumMedia": {"2"},
		"MediaUrl0": {"https://example.com/a.png"}, "MediaContentType0": {"image/png"},
		"MediaUrl1": {"https://example.com/b"}, "MediaContentType1": {"image/jpeg"},
		"FromCity": {""}, "FromState": {""}, "FromZip": {""}, "FromCountry": {"US"},
		"ToCity": {"SAN FRANCISCO"}, "ToState": {"CA"}, "ToZip": {""}, "ToCountry": {"US"},
	})
	_, m := r.call("GET", "/Messages/"+sid+".json", nil)
	equal(t, "log", fmt.Sprint(m["direction"], m["status"], m["num_media"]), "inboundreceived2")
}

func TestStopBlocksThePairConfirmsOnceAndIsForwarded(t *testing.T) {
	for _, word := range []string{"STOP", " stop\n", "StopAll", "unsubscribe", "CANCEL", "end", "Quit", "revoke", "OPTOUT"} {
		r := newRig(t)
		r.mustText(phone, ourLong, word)
		r.mustText(phone, ourLong, "STOP")
		r.mustText(phone, ourLong, "HELP") // an opted-out phone gets no help
		equal(t, word+": inbox", bodies(r.Inbox(phone)), []string{word, stopReply, "STOP", "HELP"})
		equal(t, word+": webhook", r.seen("Body"), []string{word, "STOP", "HELP"})
		equal(t, word+": flags", r.seen("OptOutType"), []string{"", "", ""})
		if status, e := r.send(msg(phone)); status != 400 || e["code"] != 21610.0 || e["message"] != "Attempt to send to unsubscribed recipient" {
			t.Errorf("%q: send answered %d %v", word, status, e)
		}
		if status, e := r.send(msg(phone, "From", ourOther)); status != 201 {
			t.Errorf("%q: a STOP to one number blocked another: %v", word, e)
		}
		if status, _ := r.send(msg("+15555550102")); status != 201 {
			t.Errorf("%q: a STOP of one phone blocked another", word)
		}
	}
	r := newRig(t)
	for _, word := range []string{"stop please", "please stop", "stop.", "unsub", "start me", "no", ""} {
		r.mustText(phone, ourLong, word)
		if r.OptedOut(ourLong, phone) {
			t.Errorf("%q blocked", word)
		}
	}
	if n := len(r.Inbox(phone)); n != 7 {
		t.Errorf("%d texts: Twilio replied to what is no keyword", n)
	}
}

func TestStartLiftsTheBlock(t *testing.T) {
	for _, word := range []string{"START", "yes", " Unstop "} {
		r := newRig(t)
		r.mustText(phone, ourLong, word) // nothing to lift, nothing to confirm
		r.mustText(phone, ourLong, "STOP")
		r.mustText(phone, ourLong, word)
		r.mustText(phone, ourLong, "info")
		equal(t, word, bodies(r.Inbox(phone)), []string{word, "STOP", stopReply, word, startReply, "info", helpReply})
		if status, e := r.send(msg(phone)); status != 201 {
			t.Errorf("%q did not lift the block: %v", word, e)
		}
	}
	r := newRig(t)
	r.mustText(phone, ourLong, "STOP")
	_, list := r.call("GET", "/Messages.json?To="+url.QueryEscape(phone), nil)
	m := list["messages"].([]any)[0].(map[string]any)
	equal(t, "confirmation", []any{m["body"], m["direction"], m["from"], m["status"]}, []any{stopReply, "outbound-reply", ourLong, "delivered"})
}

func TestTollFreeNumbersAreHandledByTheNetwork(t *testing.T) {
	r := newRig(t)
	for _, word := range []string{"CANCEL", "stop", "YES", "start", "help"} {
		r.mustText(phone, ourFree, word)
	}
	equal(t, "inbox", bodies(r.Inbox(phone)), []string{"CANCEL", "stop",
		`NETWORK MSG: You replied with the word "stop" which blocks all texts sent from this number. Text back "unstop" to receive messages again.`,
		"YES", "start", `NETWORK MSG: You have replied "start" and will begin receiving messages again from this number.`, "help", helpReply})
	_, list := r.call("GET", "/Messages.json?From="+url.QueryEscape(ourFree), nil)
	if n := len(list["messages"].([]any)); n != 1 {
		t.Errorf("%d messages from the toll-free number in the log, want only Twilio's own answer to HELP", n)
	}
	r.mustText(phone, ourFree, "STOP")
	if status, e := r.send(msg(phone, "From", ourFree)); status != 400 || e["code"] != 21610.0 {
		t.Errorf("%d %v", status, e)
	}
}

func TestMessagingServiceIsBlockedAsAWhole(t *testing.T) {
	const service = "MG0123456789abcdef0123456789abcdef"
	r := newRig(t, func(o *Options) { o.MessagingServiceSID = service })
	f := msg(phone, "From", "", "MessagingServiceSid", service)
	status, m := r.send(f)
	equal(t, "answer", []any{status, m["status"], m["from"], m["num_segments"], m["messaging_service_sid"]}, []any{201, "accepted", nil, "0", service})
	_, m = r.call("GET", "/Messages/"+m["sid"].(string)+".json", nil)
	equal(t, "later", []any{m["status"], m["from"], m["num_segments"]}, []any{"delivered", ourLong, "1"})
	r.mustText(phone, ourOther, "STOP")
	equal(t, "webhook", r.seen("MessagingServiceSid"), []string{service})
	if status, e := r.send(f); status != 400 || e["code"] != 21610.0 {
		t.Errorf("a STOP to one sender of the service did not block the service: %d %v", status, e)
	}
	r.mustText(phone, ourOther, "START")
	if status, _ := r.send(f); status != 201 {
		t.Error("START did not unblock the service")
	}
}

func TestScheduledMessagesGoWhenDueOrAreCanceled(t *testing.T) {
	var mu sync.Mutex
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRig(t, func(o *Options) {
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	f := msg(phone, "From", "", "MessagingServiceSid", r.MessagingServiceSID(), "SendAt", "2026-01-01T01:00:00Z", "ScheduleType", "fixed")
	_, a := r.send(f)
	_, b := r.send(f)
	equal(t, "status", []any{a["status"], b["status"]}, []any{"scheduled", "scheduled"})
	path := "/Messages/" + a["sid"].(string) + ".json"
	if status, e := r.call("DELETE", path, nil); status != 400 || e["code"] != 20009.0 {
		t.Errorf("a scheduled message could be deleted: %d %v", status, e)
	}
	if _, m := r.call("POST", path, url.Values{"Status": {"canceled"}}); m["status"] != "canceled" {
		t.Errorf("%v", m)
	}
	if status, e := r.call("POST", path, url.Values{"Status": {"canceled"}}); status != 400 || e["code"] != 30409.0 {
		t.Errorf("canceled twice: %d %v", status, e)
	}
	f.Set("SendAt", "2026-01-01T00:01:00Z")
	if status, e := r.send(f); status != 400 || e["code"] != 35111.0 {
		t.Errorf("one minute ahead: %d %v", status, e)
	}
	mu.Lock()
	now = now.Add(time.Hour)
	mu.Unlock()
	_, m := r.call("GET", "/Messages/"+b["sid"].(string)+".json", nil)
	equal(t, "when due", []any{m["status"], m["date_sent"]}, []any{"delivered", "Thu, 01 Jan 2026 01:00:00 +0000"})
	equal(t, "inbox", len(r.Inbox(phone)), 1)
}

func TestDeletedAndRedactedMessages(t *testing.T) {
	r := newRig(t)
	_, m := r.send(msg(phone))
	path := "/Messages/" + m["sid"].(string) + ".json"
	if _, m = r.call("POST", path, url.Values{"Body": {""}}); m["body"] != "" {
		t.Errorf("not redacted: %v", m)
	}
	if status, _ := r.call("POST", path, url.Values{"Body": {"other"}}); status != 400 {
		t.Error("a body could be rewritten")
	}
	if status, _ := r.call("DELETE", path, nil); status != 204 {
		t.Errorf("delete: %d", status)
	}
	if status, _ := r.call("GET", path, nil); status != 404 {
		t.Errorf("deleted message: %d", status)
	}
	if _, list := r.call("GET", "/Messages.json", nil); len(list["messages"].([]any)) != 0 {
		t.Error("a deleted message is listed")
	}
	equal(t, "the phone still has it", bodies(r.Inbox(phone)), []string{"hello"})
}

func TestStatusCallbacksTellTheWholeStory(t *testing.T) {
	r := newRig(t)
	f := msg(phone, "StatusCallback", r.app.URL+"/status#rc=2")
	_, m := r.send(f)
	r.Wait()
	equal(t, "statuses", r.seen("MessageStatus"), []string{"queued", "sent", "delivered"})
	v := client.NewRequestValidator(r.AuthToken())
	for i, q := range r.reached {
		body, _ := io.ReadAll(q.Body)
		if !v.ValidateBody(r.app.URL+"/status", body, q.Header.Get("X-Twilio-Signature")) {
			t.Error("callback signature refused")
		}
		p := q.PostForm
		if p.Get("MessageSid") != m["sid"] || p.Get("SmsSid") != m["sid"] || p.Get("SmsStatus") != p.Get("MessageStatus") || p.Get("To") != phone ||
			p.Get("From") != ourLong || p.Get("AccountSid") != r.AccountSID() || p.Get("ApiVersion") != "2010-04-01" || p.Has("ErrorCode") || p.Has("RawDlrDoneDate") != (i == 2) {
			t.Errorf("callback %d: %v", i, p)
		}
	}
	if m := r.mustText(phone, ourLong, "hi"); m == "" { // inbound messages have no status callbacks
		t.Fatal()
	}
	r.Wait()
	equal(t, "callbacks", len(r.seen("MessageStatus")), 4)
}

func TestTwiMLAnswersReachThePhone(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		kind, body, err string
		replies         []string
	}{
		{"text/xml", `<?xml version="1.0"?><Response><Message>one &amp; two</Message><Message><Body>three</Body></Message></Response>`, "", []string{"one & two", "three"}},
		{"application/xml; charset=utf-8", "<Response/>", "", nil},
		{"text/plain", "plain reply", "", []string{"plain reply"}},
		{"text/xml", "<Response><Message to=\"+15555550177\">elsewhere</Message></Response>", "", nil},
		{"text/xml", "<Response><Dial/></Response>", "12200", nil},
		{"text/xml", "<Nothing/>", "12200", nil},
		{"text/xml", "<Response>", "12100", nil},
		{"text/xml", "<Response><Message/></Response>", "14103", nil},
		{"text/xml", `<Response><Message from="+15555550199">x</Message></Response>`, "14101", nil},
		{"application/json", "{}", "12300", nil},
	} {
		before := len(r.Inbox(phone))
		r.answer(func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			_, _ = io.WriteString(w, c.body)
		})
		d, err := r.Deliver(phone, ourLong, "hi")
		if err != nil || d.Status != 200 || !strings.HasPrefix(d.Error, c.err) || (c.err == "") != (d.Error == "") {
			t.Errorf("%s: %+v %v, want error %q", c.body, d, err, c.err)
		}
		equal(t, c.body, bodies(r.Inbox(phone)[before+1:]), append([]string{}, c.replies...))
	}
	equal(t, "other phone", bodies(r.Inbox("+15555550177")), []string{"elsewhere"})
	r.answer(func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(w, "<Response><Message>You are out.</Message></Response>")
	})
	r.mustText(phone, ourLong, "STOP")
	texts := r.Inbox(phone)
	equal(t, "after STOP", texts[len(texts)-1].Body, stopReply)
	_, list := r.call("GET", "/Messages.json?PageSize=1", nil)
	m := list["messages"].([]any)[0].(map[string]any)
	equal(t, "a reply to STOP fails", []any{m["body"], m["status"], m["error_code"], m["direction"]}, []any{"You are out.", "failed", 21610, "outbound-reply"})
}

func TestWebhookAnswersMustBeGood(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		answer        func(http.ResponseWriter)
		status        int
		wantErrorCode string
	}{
		{func(w http.ResponseWriter) { w.WriteHeader(204) }, 204, ""},
		{func(w http.ResponseWriter) { w.WriteHeader(200) }, 200, "12300"},
		{func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/xml"); w.WriteHeader(201) }, 201, ""},
		{func(w http.ResponseWriter) { http.Error(w, "no", http.StatusForbidden) }, 403, "11200"},
		{func(w http.ResponseWriter) { http.Error(w, "no", http.StatusServiceUnavailable) }, 503, "11200"},
		{func(w http.ResponseWriter) { w.Header().Set("Location", "/other"); w.WriteHeader(307) }, 307, "11200"},
		{func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/xml")
			_, _ = w.Write(make([]byte, maxBody+1))
		}, 200, "11200"},
	} {
		r.answer(func(_ int, w http.ResponseWriter, _ *http.Request) { c.answer(w) })
		d, err := r.Deliver(phone, ourLong, "hi")
		if err != nil || d.Attempts != 1 || d.Status != c.status || !strings.HasPrefix(d.Error, c.wantErrorCode) || (d.Error == "") != (c.wantErrorCode == "") {
			t.Errorf("%+v %v, want status %d error %q", d, err, c.status, c.wantErrorCode)
		}
	}
	var werr *WebhookError
	r.answer(func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	if sid, err := r.Text(phone, ourLong, "hi"); sid == "" || !errors.As(err, &werr) || werr.Delivery.Status != 500 {
		t.Errorf("%q %v", sid, err)
	}
}

func TestConnectionOverrides(t *testing.T) {
	drop := func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }
	code := func(n int) func(http.ResponseWriter) { return func(w http.ResponseWriter) { w.WriteHeader(n) } }
	for _, c := range []struct {
		fragment string
		fail     func(http.ResponseWriter)
		attempts int
	}{
		{"", code(500), 1}, {"", drop, 1}, {"#rc=3", code(500), 1}, {"#rp=5xx", code(500), 2}, {"#rc=3&rp=all", code(500), 4},
		{"#rc=3&rp=4xx,rt", code(404), 4}, {"#rc=3&rp=4xx,rt", code(500), 1}, {"#rc=2&rp=rt", drop, 3}, {"#rc=99&rp=5xx", code(502), 6},
		{"#rc=0&rp=all", code(500), 1}, {"#rp=sometimes", code(500), 0}, {"#rc=x", code(500), 0},
	} {
		r := newRig(t)
		r.SetWebhook(r.app.URL + "/in" + c.fragment)
		r.answer(func(_ int, w http.ResponseWriter, _ *http.Request) { c.fail(w) })
		d, err := r.Deliver(phone, ourLong, "hi")
		if err != nil || d.Attempts != c.attempts || d.Error == "" {
			t.Errorf("%s: %+v %v, want %d attempts", c.fragment, d, err, c.attempts)
		}
		sids, tokens := r.seen("MessageSid"), []string{}
		for _, q := range r.reached {
			tokens = append(tokens, q.Header.Get("I-Twilio-Idempotency-Token"))
		}
		if len(sids) != c.attempts || len(slices.Compact(sids)) > 1 || len(slices.Compact(tokens)) > 1 {
			t.Errorf("%s: retries use other SIDs %v or tokens %v", c.fragment, sids, tokens)
		}
	}
	r := newRig(t)
	gone := httptest.NewServer(nil)
	gone.Close()
	r.SetWebhook(gone.URL)
	if d, _ := r.Deliver(phone, ourLong, "hi"); d.Attempts != 2 || d.Status != 0 || !strings.HasPrefix(d.Error, "11205") {
		t.Errorf("nobody listening: %+v, want one retry", d)
	}
	r.answer(func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(204)
	})
	r.SetWebhook(r.app.URL + "#rp=rt")
	if d, _ := r.Deliver(phone, ourLong, "hi"); d.Attempts != 2 || d.Status != 204 || d.Error != "" {
		t.Errorf("second attempt good: %+v", d)
	}
	for _, bad := range []string{"ftp://example.com/", "/path", "http://[::1"} {
		r.SetWebhook(bad)
		if d, _ := r.Deliver(phone, ourLong, "hi"); d.Attempts != 0 || !strings.HasPrefix(d.Error, "11100") {
			t.Errorf("%s: %+v", bad, d)
		}
	}
	r.SetWebhook("")
	if d, _ := r.Deliver(phone, ourLong, "hi"); d.Attempts != 0 || d.Error != "" {
		t.Errorf("no webhook is no error: %+v", d)
	}
}

// hung never answers; it fails when the request's context ends, as a connected but silent server does.
type hung struct{ calls int }

func (h *hung) RoundTrip(r *http.Request) (*http.Response, error) {
	h.calls++
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestWebhooksTimeOut(t *testing.T) {
	for _, c := range []struct {
		fragment string
		calls    int
		want     time.Duration
	}{
		{"", 2, 10 * time.Second},                 // two connection attempts of 5 s each
		{"#ct=10000", 2, 15 * time.Second},        // the total ends the second one
		{"#ct=1&rc=5", 6, 600 * time.Millisecond}, // brought up to 100 ms
		{"#tt=300", 1, 300 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &hung{}
			s := New(Options{Seed: 1, WebhookURL: "http://app.example/" + c.fragment, Client: &http.Client{Transport: h}})
			defer s.Close()
			start := time.Now()
			d, err := s.Deliver(phone, ourLong, "hi")
			if took := time.Since(start); err != nil || took != c.want || h.calls != c.calls || d.Attempts != c.calls || d.Error == "" {
				t.Errorf("%q: %+v %v after %v and %d calls, want %v and %d", c.fragment, d, err, took, h.calls, c.want, c.calls)
			}
		})
	}
}

func TestListFiltersByNumberAndDate(t *testing.T) {
	var mu sync.Mutex
	now := time.Date(2026, 1, 30, 23, 59, 59, 0, time.UTC)
	r := newRig(t, func(o *Options) {
		o.WebhookURL = ""
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	for i := range 4 { // one just before midnight of the 31st, then 12 hours apart
		r.mustText(phone, ourLong, fmt.Sprint(i))
		mu.Lock()
		now = now.Add(12 * time.Hour)
		mu.Unlock()
	}
	r.mustText("+15555550102", ourOther, "other") // 2026-02-01 23:59:59
	for _, c := range []struct {
		query string
		want  []string
	}{
		{"", []string{"other", "3", "2", "1", "0"}},
		{"To=%2B15550100001", []string{"other"}},
		{"From=%2B15555550101", []string{"3", "2", "1", "0"}},
		{"From=%2B15555550101&To=%2B15550100001", []string{}},
		{"DateSent=2026-01-31", []string{"2", "1"}},
		{"DateSent%3C=2026-01-31", []string{"2", "1", "0"}},
		{"DateSent%3E=2026-01-31", []string{"other", "3", "2", "1"}},
		{"DateSent>=2026-01-31&DateSent<=2026-01-31", []string{"2", "1"}},
		{"DateSent%3E%3D=2026-02-01", []string{"other", "3"}},
		{"DateSent%3E=2026-01-31T11:59:59Z", []string{"other", "3", "2", "1"}},
		{"DateSent%3E=2026-01-31T12:00:00Z", []string{"other", "3", "2"}},
		{"DateSent%3C=2026-01-31T11:59:59Z", []string{"1", "0"}},
		{"DateSent%3E=2026-01-31T14:00:00%2B02:00&DateSent%3C=2026-02-01", []string{"other", "3", "2"}},
	} {
		_, list := r.call("GET", "/Messages.json?"+c.query, nil)
		got := []string{}
		for _, m := range list["messages"].([]any) {
			got = append(got, m.(map[string]any)["body"].(string))
		}
		equal(t, c.query, got, c.want)
	}
	for query, code := range map[string]float64{"DateSent=yesterday": 20001, "PageSize=1001": 20007, "PageSize=0": 20001, "Page=x": 20001,
		"Page=1": 20001, "PageToken=PASM1": 20001, "PageToken=x": 20001} {
		if status, e := r.call("GET", "/Messages.json?"+query, nil); status != 400 || e["code"] != code {
			t.Errorf("%s: %d %v", query, status, e)
		}
	}
}

func TestPagesAreJoinedByToken(t *testing.T) {
	r := newRig(t, func(o *Options) { o.WebhookURL = "" })
	for i := range 7 {
		r.mustText(phone, ourLong, fmt.Sprint(i))
	}
	read := func(path string) (map[string]any, []string) {
		_, p := r.call("GET", path, nil)
		got := []string{}
		for _, m := range p["messages"].([]any) {
			got = append(got, m.(map[string]any)["body"].(string))
		}
		return p, got
	}
	first, got := read("/Messages.json?PageSize=3&To=" + url.QueryEscape(ourLong))
	equal(t, "first", got, []string{"6", "5", "4"})
	equal(t, "envelope", []any{first["page"], first["page_size"], first["start"], first["end"], first["previous_page_uri"]}, []any{0, 3, 0, 2, nil})
	r.mustText(phone, ourLong, "new") // shifts nothing
	r.send(msg(phone))
	second, got := read(first["next_page_uri"].(string))
	equal(t, "second", got, []string{"3", "2", "1"})
	equal(t, "envelope", []any{second["page"], second["start"], second["end"]}, []any{1, 3, 5})
	third, got := read(second["next_page_uri"].(string))
	equal(t, "third", got, []string{"0"})
	equal(t, "end", third["next_page_uri"], any(nil))
	back, got := read(third["previous_page_uri"].(string))
	equal(t, "back", got, []string{"3", "2", "1"})
	_, got = read(back["next_page_uri"].(string))
	equal(t, "and on", got, []string{"0"})
	_, got = read(third["first_page_uri"].(string))
	equal(t, "first again", got, []string{"new", "6", "5"})
	_, got = read(second["uri"].(string))
	equal(t, "itself", got, []string{"3", "2", "1"})
}

func TestListingALongLogIsFast(t *testing.T) {
	s := New(Options{Seed: 1})
	defer s.Close()
	for i := range 100_000 {
		if _, err := s.Text(fmt.Sprintf("+1555%07d", i), ourLong, "hi"); err != nil {
			t.Fatal(err)
		}
	}
	start, n, q := time.Now(), 0, url.Values{"PageSize": {"1000"}, "To": {ourLong}}
	for {
		_, v, e := s.listMessages(q)
		if e != nil {
			t.Fatal(e)
		}
		p := v.(map[string]any)
		n += len(p["messages"].([]messageJSON))
		next, _ := p["next_page_uri"].(*string)
		if next == nil {
			break
		}
		u, _ := url.Parse(*next)
		q = u.Query()
	}
	if took := time.Since(start); n != 100_000 || took > 10*time.Second { // some 0.3 s; the limit only finds quadratic work
		t.Errorf("%d messages in %v", n, took)
	}
}

func TestNumbersAreListedWithTheirWebhook(t *testing.T) {
	r := newRig(t)
	_, p := r.call("GET", "/IncomingPhoneNumbers.json?PhoneNumber="+url.QueryEscape(ourFree), nil)
	list := p["incoming_phone_numbers"].([]any)
	n := list[0].(map[string]any)
	equal(t, "number", []any{len(list), n["phone_number"], n["sms_url"], n["sms_method"], len(n["sid"].(string))},
		[]any{1, ourFree, r.app.URL + "/hooks/twilio?x=1", "POST", 34})
	_, p = r.call("GET", "/IncomingPhoneNumbers.json?PageSize=2", nil)
	_, p = r.call("GET", p["next_page_uri"].(string), nil)
	equal(t, "second page", []any{len(p["incoming_phone_numbers"].([]any)), p["next_page_uri"]}, []any{1, nil})
}

func TestAFullStoreRefusesAndDropsNothing(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxMessages, o.WebhookURL = 3, "" })
	r.mustText(phone, ourLong, "STOP") // and its confirmation
	if _, err := r.Text(phone, ourLong, "hi"); !errors.Is(err, errFull) {
		t.Errorf("text: %v", err) // it might need an answer, and there is room for one only
	}
	if status, e := r.send(msg("+15555550102")); status != 201 {
		t.Errorf("%d %v", status, e)
	}
	if status, e := r.send(msg("+15555550102")); status != 507 || e["code"] != 20500.0 {
		t.Errorf("%d %v", status, e)
	}
	equal(t, "kept", len(r.Inbox(phone)), 2)
}

func TestNothingIsAcceptedAfterClose(t *testing.T) {
	r := newRig(t)
	r.Close()
	if _, err := r.Text(phone, ourLong, "hi"); !errors.Is(err, errClosed) {
		t.Error(err)
	}
	if status, _ := r.send(msg(phone)); status != 503 {
		t.Error(status)
	}
	r.Close() // twice is fine
}

func TestManyAtOnce(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			p := fmt.Sprintf("+1555555020%d", i)
			for range 5 {
				_, _ = r.Text(p, ourLong, "STOP")
				_, _, _ = r.try(t.Context(), "POST", "/Messages.json", msg(p, "StatusCallback", r.app.URL))
				_, _, _ = r.try(t.Context(), "GET", "/Messages.json", nil)
				_, _ = r.Text(p, ourLong, "START")
				_, _, _ = r.try(t.Context(), "POST", "/Messages.json", msg(p, "StatusCallback", r.app.URL))
			}
		})
	}
	wg.Wait()
	r.Wait()
	for i := range 8 {
		if n := len(r.Inbox(fmt.Sprintf("+1555555020%d", i))); n != 25 { // 5 × (STOP, reply, START, reply, message)
			t.Errorf("phone %d has %d texts", i, n)
		}
	}
}

// signal is a slog handler that tells when a message was logged.
type signal struct {
	slog.Handler
	message string
	seen    chan struct{}
}

func (s signal) Enabled(context.Context, slog.Level) bool { return true }
func (s signal) Handle(_ context.Context, r slog.Record) error {
	if r.Message == s.message {
		s.seen <- struct{}{}
	}
	return nil
}
