package main

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/crm/salesforce/outbound"
)

// An admin changes one address, and what the CRM already has sends through the gate: a Twilio client, a Salesforce
// outbound message, a plain HTTP call. A STOP stops all three.
func TestEachWayInIsStoppedByAStop(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	p := startServe(t, w, cfg)
	number := "+12065550150"
	call := func(req *http.Request, err error) (int, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	asTwilio := func(body string) (int, string) {
		form := url.Values{"To": {number}, "From": {w.from}, "Body": {body}}
		req, err := http.NewRequestWithContext(t.Context(), "POST", w.publicURL()+"/2010-04-01/Accounts/"+w.twilio.AccountSID()+"/Messages.json", strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth(w.twilio.AccountSID(), w.apiKey)
		return call(req, err)
	}
	asSalesforce := func(id, body string) (int, string) {
		m := outbound.Message{OrganizationID: w.org.OrgID(), ActionID: "04k000000000001AAA", Notifications: []outbound.Notification{{
			ID: id, Object: "Contact", RecordID: "003000000000001AAA", Fields: map[string]string{"MobilePhone": "(206) 555-0150", "SMS_Body__c": body}}}}
		req, err := http.NewRequestWithContext(t.Context(), "POST", w.ready(cfg).Heed.OutboundMessageURL, strings.NewReader(string(outbound.Render(m))))
		req.Header.Set("Content-Type", "text/xml; charset=utf-8")
		return call(req, err)
	}
	got := func(body string) (n int) {
		for _, x := range w.twilio.Inbox(number) {
			if x.To == number && x.Body == body {
				n++
			}
		}
		return n
	}

	if code, body := asTwilio("from twilio's client"); code != 201 || !strings.Contains(body, `"status"`) || got("from twilio's client") != 1 {
		t.Errorf("Twilio client: HTTP %d %s", code, body)
	}
	if code, body := asSalesforce("04l000000000001AAA", "from a workflow"); code != 200 || !strings.Contains(body, "true") {
		t.Errorf("outbound message: HTTP %d %s", code, body)
	}
	eventually(t, "the queued message is sent", 10*time.Second, func() bool { return got("from a workflow") == 1 })

	if d, err := w.twilio.Deliver(number, w.from, "please stop texting me"); err != nil || d.Status != 200 {
		t.Fatal(d, err)
	}
	if code, body := asTwilio("again"); code != 400 || !strings.Contains(body, "21610") {
		t.Errorf("Twilio client after STOP: HTTP %d %s", code, body)
	}
	if code, body := asSalesforce("04l000000000002AAA", "again"); code != 200 || !strings.Contains(body, "true") {
		t.Errorf("outbound message after STOP: HTTP %d %s", code, body)
	}
	if code, m := w.post(t, w.publicURL()+"/v1/messages", w.apiKey, map[string]any{"to": number, "body": "again"}); code != 201 || m["status"] != "blocked" {
		t.Errorf("HTTP call after STOP: HTTP %d %v", code, m)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.publicURL()+"/openapi.yaml", nil)
	if code, body := call(req, err); code != 200 || !strings.Contains(body, "openapi: 3.0") {
		t.Errorf("openapi.yaml: HTTP %d", code)
	}
	p.stop(t)
	if n := got("again"); n != 0 {
		t.Errorf("%d texts after the STOP", n)
	}
}
