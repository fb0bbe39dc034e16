package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"github.com/heed-sms/heed/connector/evidence"
)

// From an invitation at the command line to "I can see who opted out and why", as a person does it.
func TestAPersonIsInvitedAndSeesWhoOptedOutAndWhy(t *testing.T) {
	w, path := newSandbox(t, 5)
	if out, errOut, code := heed(t, "", "users", "invite", "ann", "--role", "viewer", "-c", path); code != 1 || out != "" || !strings.Contains(errOut, "heed serve") {
		t.Errorf("without a daemon: exit %d, %q, %q", code, out, errOut)
	}
	p := startServe(t, w, path)
	defer p.stop(t)
	w.firstPass(t)
	w.texted(t, "+12065550142", "pls stop texting me 🙏")
	jar, _ := cookiejar.New(nil)
	c := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	admin, accept := "http://"+w.heedAdmin, "text/html"
	do := func(method, to string, form url.Values) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, to, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		if form != nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if _, page := do("GET", admin+"/", nil); !strings.Contains(page, "heed users invite") {
		t.Error("the sign-in does not say how to get an account")
	}
	out, errOut, code := heed(t, "", "users", "invite", "ann", "--role", "operator", "-c", path)
	link := strings.TrimSpace(out)
	if code != 0 || !strings.HasPrefix(link, admin+"/setup?token=") || !strings.Contains(errOut, "once") {
		t.Fatalf("exit %d, %q, %q", code, out, errOut)
	}
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	const password = "a few words in a row"
	status, page := do("POST", admin+"/setup", url.Values{"token": {u.Query().Get("token")}, "password": {password}, "again": {password}})
	if status != 200 || !strings.Contains(page, "signed in as <bdi>ann</bdi> (operator)") || !strings.Contains(page, "numbers opted out") {
		t.Fatalf("HTTP %d %s", status, page)
	}
	if status, page = do("GET", admin+"/numbers?q=(206)+555-0142", nil); status != 200 || !strings.Contains(page, "pls stop texting me 🙏") || !strings.Contains(page, "Only START from this number lifts that") {
		t.Errorf("HTTP %d %s", status, page)
	}
	if status, page = do("GET", admin+"/no/such/address", nil); status != http.StatusNotFound || !strings.Contains(page, "There is nothing under this address") {
		t.Errorf("an unknown address in a browser: HTTP %d %s", status, page)
	}
	accept = "application/json"
	if status, page = do("GET", admin+"/no/such/address", nil); status != http.StatusNotFound || !strings.Contains(page, `"type":"about:blank"`) {
		t.Errorf("an unknown address for a program: HTTP %d %s", status, page)
	}
	accept = "text/html"
	if status, _ = do("POST", admin+"/numbers/+12065550142/evidence", url.Values{"why": {" "}}); status != http.StatusUnprocessableEntity {
		t.Errorf("evidence without a reason: HTTP %d", status)
	}
	if status, page = do("POST", admin+"/numbers/+12065550199/evidence", url.Values{"why": {"x"}}); status != http.StatusNotFound || !strings.Contains(page, "Not found") {
		t.Errorf("evidence of a number that nobody knows: HTTP %d", status)
	}
	if status, page = do("POST", admin+"/numbers/+12065550142/evidence", url.Values{"why": {"asked by the court"}}); status != 200 {
		t.Errorf("evidence: HTTP %d", status)
	} else if rep, err := evidence.Verify(strings.NewReader(page), int64(len(page))); err != nil || rep.Packet.By != "ann" || rep.Packet.Why != "asked by the court" {
		t.Errorf("the packet of the page: %+v, %v", rep.Packet, err)
	}
	if _, page = do("GET", admin+"/audit", nil); !strings.Contains(page, "asked by the court") {
		t.Error("nobody sees who took the evidence")
	}
	if status, _ = do("POST", admin+"/numbers/+12065550142", url.Values{"action": {"undo"}, "why": {"oops"}}); status != http.StatusConflict {
		t.Errorf("undoing the recipient's own opt-out: HTTP %d", status)
	}
	if status, _ = do("GET", admin+"/bulk", nil); status != http.StatusForbidden {
		t.Errorf("bulk for an operator: HTTP %d", status)
	}
	if status, _ = do("GET", admin+"/metrics", nil); status != 200 {
		t.Errorf("metrics: HTTP %d", status)
	}
	if out, _, code := heed(t, "", "users", "list", "--json", "-c", path); code != 0 || !strings.Contains(out, `"role": "operator"`) && !strings.Contains(out, `"role":"operator"`) {
		t.Errorf("exit %d, %s", code, out)
	}
	if _, _, code := heed(t, "", "users", "remove", "ann", "--why", "left", "-c", path); code != 0 {
		t.Errorf("remove: exit %d", code)
	}
	if _, page = do("GET", admin+"/", nil); strings.Contains(page, "signed in as") {
		t.Error("a removed person is still signed in")
	}
}

func TestANewPersonNeedsARole(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	p := startServe(t, w, cfg)
	defer p.stop(t)
	if out, errOut, code := heed(t, "", "users", "invite", "ann", "-c", cfg); code != exitUsage || out != "" || !strings.Contains(errOut, "say --role for a new person") {
		t.Errorf("exit %d, %q, %s", code, out, errOut)
	}
	link, errOut, code := heed(t, "", "users", "invite", "ann", "--role", "viewer", "-c", cfg)
	if code != exitOK {
		t.Fatalf("exit %d, %s", code, errOut)
	}
	accept(t, strings.TrimSpace(link))
	if _, errOut, code := heed(t, "", "users", "invite", "Ann", "-c", cfg); code != exitOK {
		t.Errorf("who has forgotten the password: exit %d, %s", code, errOut)
	}
}
