package twiliofake

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// sandbox calls a control route with a JSON body.
func (r *rig) sandbox(method, path, body string) (int, string) {
	r.t.Helper()
	req, _ := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	res, err := r.hc.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	if ct := res.Header.Get("Content-Type"); ct != "application/json" {
		r.t.Errorf("%s %s answered %s", method, path, ct)
	}
	return res.StatusCode, string(b)
}

func TestSandboxTexts(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	})
	status, body := r.sandbox("POST", "/sandbox/texts", `{"from":"`+phone+`","to":"`+ourLong+`","body":"hi","media":["https://example.com/a.png"]}`)
	sid := r.Inbox(phone)[0].SID
	equal(t, "answer", []any{status, body}, []any{201, `{"sid":"` + sid + `","webhook":{"attempts":1,"status":200,"error":""}}`})
	for _, query := range []string{"?phone=+15555550101", "?phone=%2B15555550101", "?phone=%2015555550101"} {
		status, body = r.sandbox("GET", "/sandbox/texts"+query, "")
		equal(t, query, []any{status, body}, []any{200,
			`[{"sid":"` + sid + `","from":"` + phone + `","to":"` + ourLong + `","body":"hi","at":"2026-01-02T03:04:05Z"}]`})
	}
	if _, body = r.sandbox("GET", "/sandbox/texts?phone=%2B15555550999", ""); body != "[]" {
		t.Errorf("an unknown phone has %s", body)
	}
	for _, bad := range []string{"", "{", `{"from":"x"}`, `[]`, `{"from":"` + phone + `","to":"` + ourLong + `","body":"hi","extra":1}`,
		`{"from":"` + phone + `","to":"+15555550102","body":"hi"}`, `{"from":"` + phone + `","to":"` + ourLong + `","body":"hi"} {}`,
		`{"from":"` + phone + `","to":"` + ourLong + `","opt_out_type":"MAYBE"}`,
		`{"from":"` + phone + `","to":"` + ourLong + `","body":"` + strings.Repeat("x", 1601) + `"}`, `"` + strings.Repeat("x", maxBody) + `"`} {
		if status, body := r.sandbox("POST", "/sandbox/texts", bad); status != 400 || !strings.Contains(body, `"error"`) {
			t.Errorf("%.80s: %d %s", bad, status, body)
		}
	}
	if status, _ := r.sandbox("GET", "/sandbox/texts", ""); status != 400 {
		t.Errorf("no phone: %d", status)
	}
	if status, _ := r.sandbox("DELETE", "/sandbox/texts", ""); status != 404 {
		t.Errorf("no such method: %d", status)
	}
	if status, body := r.sandbox("GET", "/sandbox", ""); status != 200 || !strings.Contains(body, "PUT /sandbox/knobs") {
		t.Errorf("index: %d %s", status, body)
	}
	equal(t, "nothing stored by bad requests", len(r.Inbox(phone)), 1)
}

func TestKnobsAreMergedAndChecked(t *testing.T) {
	r := newRig(t)
	r.sandbox("PUT", "/sandbox/knobs", `{"latency_ms":1,"next_send":["ok","429"],"consent_item_errors":{"`+phone+`":"INVALID_STATUS"}}`)
	status, body := r.sandbox("PUT", "/sandbox/knobs", `{"webhook_reorder":true,"next_send":"500"}`)
	var k Knobs
	if err := json.Unmarshal([]byte(body), &k); status != 200 || err != nil || k.LatencyMS != 1 || k.WebhookReorder != 2 || !slices.Equal(k.NextSend, []string{"500"}) {
		t.Errorf("%d %s %v", status, body, err)
	}
	for _, bad := range []string{`{"latency":1}`, `{"throttle_rate":2}`, `{"throttle_rate":-0.1}`, `{"latency_ms":60001}`, `{"webhook_reorder":101}`,
		`{"consent_api_disabled":401}`, `{"consent_item_errors":{"` + phone + `":"NO"}}`, `{"consent_item_errors":{"5":"INVALID_STATUS"}}`,
		`{"next_send":["maybe"]}`, `{"next_send":5}`, `{"latency_ms":5,"nope":1}`, `{"latency_ms":"5"}`, `{} {}`, `nonsense`, ``} {
		if status, body := r.sandbox("PUT", "/sandbox/knobs", bad); status != 400 || !strings.Contains(body, `"error"`) {
			t.Errorf("%s: %d %s", bad, status, body)
		}
	}
	if _, after := r.sandbox("GET", "/sandbox/knobs", ""); after != body {
		t.Errorf("a refused change left traces:\n%s\n%s", body, after)
	}
	if _, body = r.sandbox("PUT", "/sandbox/knobs", `{"webhook_reorder":false,"latency_ms":0,"next_send":[],"consent_item_errors":{}}`); !strings.Contains(body, `"next_send":[]`) {
		t.Error(body)
	}
	want, _ := json.Marshal(Knobs{})
	equal(t, "all off again", body, string(want))
}

func TestSendsFailWithoutBeingAccepted(t *testing.T) {
	for name, c := range map[string]struct {
		knobs  Knobs
		status int
	}{
		"rate 500":  {Knobs{SendErrorRate: 1}, 500},
		"next 500":  {Knobs{NextSend: Outcomes{"500"}}, 500},
		"throttled": {Knobs{ThrottleRate: 1}, 429},
		"next 429":  {Knobs{NextSend: Outcomes{"429"}}, 429},
		"next 307":  {Knobs{NextSend: Outcomes{"307"}}, 307},
		"expired":   {Knobs{ExpireAuth: true}, 401},
	} {
		r := newRig(t)
		r.knob(c.knobs)
		status, body, err := r.try(t.Context(), "POST", "/Messages.json", msg(phone))
		if err != nil || status != c.status || len(r.Inbox(phone)) != 0 {
			t.Errorf("%s: %d %s %v, %d texts", name, status, body, err, len(r.Inbox(phone)))
		}
		if (status == 500) != strings.HasPrefix(string(body), "<html>") || status == 429 && !strings.Contains(string(body), "20429") ||
			status == 401 && !strings.Contains(string(body), "20003") {
			t.Errorf("%s: body %s", name, body)
		}
		r.knob(Knobs{})
		if status, e := r.send(msg(phone)); status != 201 {
			t.Errorf("%s: after it %d %v", name, status, e)
		}
	}
	r := newRig(t)
	r.knob(Knobs{NextSend: Outcomes{"reset", "ok"}, SendErrorRate: 1})
	if status, _, err := r.try(t.Context(), "POST", "/Messages.json", msg(phone)); err == nil || len(r.Inbox(phone)) != 0 {
		t.Errorf("reset answered %d", status)
	}
	if status, e := r.send(msg(phone)); status != 201 { // "ok" goes before the rate
		t.Errorf("%d %v", status, e)
	}
	if len(r.Knobs().NextSend) != 0 {
		t.Error("next_send was not used up")
	}
	if status, _, _ := r.try(t.Context(), "POST", "/Messages.json", msg(phone)); status != 500 {
		t.Error("the rate is forgotten")
	}
}

func TestSendsAreAcceptedWithoutAnAnswer(t *testing.T) {
	accepted := make(chan struct{}, 16)
	r := newRig(t, func(o *Options) { o.Logger = slog.New(signal{message: "message accepted", seen: accepted}) })
	for _, k := range []Knobs{{NextSend: Outcomes{"timeout_after_accept"}}, {SendTimeoutAfterAcceptRate: 1}} {
		r.knob(k)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, _, err := r.try(ctx, "POST", "/Messages.json", msg(phone))
			done <- err
		}()
		<-accepted
		cancel() // the client gives up
		if err := <-done; err == nil {
			t.Error("there was an answer")
		}
	}
	r.knob(Knobs{NextSend: Outcomes{"reset_after_accept", "500_after_accept", "bad_json", "timeout_after_accept"}})
	if _, _, err := r.try(t.Context(), "POST", "/Messages.json", msg(phone)); err == nil {
		t.Error("reset_after_accept answered")
	}
	if status, body, _ := r.try(t.Context(), "POST", "/Messages.json", msg(phone)); status != 500 {
		t.Errorf("500_after_accept: %d %s", status, body)
	}
	if status, body, _ := r.try(t.Context(), "POST", "/Messages.json", msg(phone)); status != 201 || json.Valid(body) {
		t.Errorf("bad_json: %d %s", status, body)
	}
	for range 3 {
		<-accepted
	}
	done := make(chan error)
	go func() {
		_, _, err := r.try(context.Background(), "POST", "/Messages.json", msg(phone))
		done <- err
	}()
	<-accepted
	r.Close() // ends what hangs
	if err := <-done; err == nil {
		t.Error("there was an answer")
	}
	equal(t, "texts on the phone", len(r.Inbox(phone)), 6)
}

func TestBadJSONRateCutsEveryAnswer(t *testing.T) {
	r := newRig(t)
	r.knob(Knobs{BadJSONRate: 1})
	for _, path := range []string{"/Messages.json", "/IncomingPhoneNumbers.json", ".json"} {
		if status, body, err := r.try(t.Context(), "GET", path, nil); status != 200 || err != nil || json.Valid(body) {
			t.Errorf("%s: %d %s %v", path, status, body, err)
		}
	}
}

func TestLatencyDelaysTheAPI(t *testing.T) {
	r := newRig(t)
	r.knob(Knobs{LatencyMS: 30})
	start := time.Now()
	if status, _ := r.send(msg(phone)); status != 201 || time.Since(start) < 30*time.Millisecond {
		t.Errorf("%d after %v", status, time.Since(start))
	}
	r.knob(Knobs{LatencyMS: 60_000})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := r.try(ctx, "POST", "/Messages.json", msg(phone)); err == nil {
		t.Error("no latency")
	}
	equal(t, "a client that gave up early sent nothing", len(r.Inbox(phone)), 1)
}

func TestWebhooksAreDroppedAndDoubled(t *testing.T) {
	r := newRig(t)
	r.knob(Knobs{WebhookDropRate: 1})
	if d, err := r.Deliver(phone, ourLong, "STOP"); err != nil || d.Attempts != 0 || !strings.Contains(d.Error, "webhook_drop_rate") {
		t.Errorf("%+v %v", d, err)
	}
	equal(t, "webhooks", len(r.seen("Body")), 0)
	if _, list := r.call("GET", "/Messages.json", nil); len(list["messages"].([]any)) != 2 || !r.OptedOut(ourLong, phone) {
		t.Error("the log must have the text and its confirmation, and the block must stand")
	}
	r.knob(Knobs{WebhookDuplicateRate: 1})
	if d, err := r.Deliver(phone, ourLong, "hi"); err != nil || d.Attempts != 2 || d.Error != "" {
		t.Errorf("%+v %v", d, err)
	}
	sids := r.seen("MessageSid")
	if len(sids) != 2 || sids[0] != sids[1] {
		t.Errorf("%v", sids)
	}
}

func TestWebhooksAreReordered(t *testing.T) {
	r := newRig(t)
	r.knob(Knobs{WebhookReorder: 3})
	for _, body := range []string{"1", "2"} {
		if d, err := r.Deliver(phone, ourLong, body); err != nil || d.Attempts != 0 || !strings.Contains(d.Error, "webhook_reorder") {
			t.Errorf("%+v %v", d, err)
		}
	}
	if d, err := r.Deliver(phone, ourLong, "3"); err != nil || d.Attempts != 1 || d.Error != "" {
		t.Errorf("%+v %v", d, err)
	}
	equal(t, "full window", r.seen("Body"), []string{"3", "2", "1"})
	_, _ = r.Deliver(phone, ourLong, "4")
	r.knob(Knobs{})
	equal(t, "turned off", r.seen("Body"), []string{"3", "2", "1", "4"})
	equal(t, "the phone knows the true order", bodies(r.Inbox(phone)), []string{"1", "2", "3", "4"})
}

// noted answers every request and remembers the texts.
type noted struct{ bodies []string }

func (n *noted) RoundTrip(r *http.Request) (*http.Response, error) {
	_ = r.ParseForm()
	n.bodies = append(n.bodies, r.PostForm.Get("Body"))
	return &http.Response{StatusCode: 204, Header: http.Header{}, Body: http.NoBody}, nil
}

func TestHeldWebhooksAreNotHeldForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &noted{}
		s := New(Options{Seed: 1, WebhookURL: "http://app.example/", Client: &http.Client{Transport: n}})
		defer s.Close()
		if err := s.SetKnobs(Knobs{WebhookReorder: 5}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, _ = s.Deliver(phone, ourLong, "1")
		_, _ = s.Deliver(phone, ourLong, "2")
		s.Wait()
		equal(t, "sent", n.bodies, []string{"2", "1"})
		equal(t, "after", time.Since(start), reorderHold)
	})
}

func TestCallbacksAreDroppedAndShuffled(t *testing.T) {
	r := newRig(t)
	f := msg(phone, "StatusCallback", r.app.URL)
	r.knob(Knobs{CallbackDropRate: 1})
	_, m := r.send(f)
	r.Wait()
	equal(t, "dropped", r.seen("MessageStatus"), []string{})
	_, m = r.call("GET", "/Messages/"+m["sid"].(string)+".json", nil)
	equal(t, "in the log", m["status"], any("delivered"))
	r.knob(Knobs{CallbackShuffle: true})
	for range 10 {
		before := len(r.seen("MessageStatus"))
		r.send(f)
		r.Wait()
		got := r.seen("MessageStatus")[before:]
		if slices.Equal(got, []string{"queued", "sent", "delivered"}) || len(got) != 3 {
			t.Errorf("not shuffled: %v", got)
		}
	}
}

func TestOptOutErrorsCanComeLate(t *testing.T) {
	r := newRig(t)
	r.mustText(phone, ourLong, "STOP")
	r.knob(Knobs{Async21610: true})
	status, m := r.send(msg(phone, "StatusCallback", r.app.URL))
	equal(t, "answer", []any{status, m["status"], m["error_code"]}, []any{201, "queued", nil})
	r.Wait()
	equal(t, "callbacks", r.seen("MessageStatus")[1:], []string{"queued", "failed"})
	equal(t, "codes", r.seen("ErrorCode")[1:], []string{"", "21610"})
	_, m = r.call("GET", "/Messages/"+m["sid"].(string)+".json", nil)
	equal(t, "log", []any{m["status"], m["error_code"], m["error_message"], m["date_sent"]}, []any{"failed", 21610, errOptedOut.Message, nil})
	equal(t, "phone", bodies(r.Inbox(phone)), []string{"STOP", stopReply})
}

func TestAdvancedOptOutFlagsKeywords(t *testing.T) {
	r := newRig(t)
	r.knob(Knobs{AdvancedOptOut: true})
	for _, body := range []string{"Stop", "HELP", "hi", "yes"} {
		r.mustText(phone, ourLong, body)
	}
	equal(t, "flags", r.seen("OptOutType"), []string{"STOP", "HELP", "", "START"})
	equal(t, "service", slices.Compact(r.seen("MessagingServiceSid")), []string{r.MessagingServiceSID()})
	r.knob(Knobs{})
	r.mustText(phone, ourLong, "basta", WithOptOutType("stop")) // a keyword of the account's own
	equal(t, "flag", r.seen("OptOutType")[4], "STOP")
	if status, e := r.send(msg(phone)); status != 400 || e["code"] != 21610.0 {
		t.Errorf("%d %v", status, e)
	}
}

func TestRedactedBodiesAreOnlyInWebhooks(t *testing.T) {
	r := newRig(t)
	r.knob(Knobs{RedactBodies: true})
	r.mustText(phone, ourLong, "STOP")
	r.send(msg("+15555550102"))
	_, list := r.call("GET", "/Messages.json", nil)
	for _, m := range list["messages"].([]any) {
		if m.(map[string]any)["body"] != "" {
			t.Errorf("%v", m)
		}
	}
	equal(t, "webhook", r.seen("Body"), []string{"STOP"})
	equal(t, "phone", bodies(r.Inbox(phone)), []string{"STOP", stopReply})
}

func TestRatesAreRolledFromTheSeed(t *testing.T) {
	run := func() (out []int) {
		r := newRig(t)
		r.knob(Knobs{ThrottleRate: 0.5})
		for range 40 {
			status, _, _ := r.try(t.Context(), "POST", "/Messages.json", url.Values{})
			out = append(out, status)
		}
		return out
	}
	a := run()
	equal(t, "two runs", a, run())
	if !slices.Contains(a, 429) || !slices.Contains(a, 400) {
		t.Errorf("a rate of one half gave %v", a)
	}
}
