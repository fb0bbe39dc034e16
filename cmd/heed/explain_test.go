package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
)

func TestEveryReasonIsExplainedWithWhatLiftsIt(t *testing.T) {
	now := time.Now()
	stopped := ledger.Number{Facts: consent.Facts{}.Apply(consent.Change{Action: consent.OptOut, Source: consent.Recipient, At: now})}
	byHand := ledger.Number{Facts: consent.Facts{}.Apply(consent.Change{Action: consent.OptOut, Source: consent.Admin, At: now})}
	in := ledger.Number{Facts: consent.Facts{}.Apply(consent.Change{Action: consent.OptIn, Source: consent.Recipient, At: now})}
	block := func(r consent.Reason) consent.Decision { return consent.Decision{Verdict: consent.Block, Reason: r} }
	for name, c := range map[string]struct {
		d          consent.Decision
		n          ledger.Number
		why, lifts string
	}{
		"stopped":     {block(consent.ReasonOptedOut), stopped, "recipient", "START from this number, and nothing else"},
		"by hand":     {block(consent.ReasonOptedOut), byHand, "by hand", "heed optouts remove"},
		"in the CRM":  {block(consent.CRMOptOut), byHand, "ticked", "unticking"},
		"held":        {consent.Decision{Verdict: consent.Queue, Reason: consent.HeldForReview}, ledger.Number{}, "unclear", "heed holds resolve"},
		"no consent":  {block(consent.ConsentRequired), ledger.Number{}, "opted in", "START"},
		"unavailable": {block(consent.Unavailable), ledger.Number{}, "vouch", "restart"},
		"shadow":      {consent.Decision{Verdict: consent.Allow, Reason: consent.ReasonOptedOut}, stopped, "Shadow", "live"},
		"opted in":    {consent.Decision{Verdict: consent.Allow, Reason: consent.OK}, in, "opted in", "STOP"},
		"unknown":     {consent.Decision{Verdict: consent.Allow, Reason: consent.OK}, ledger.Number{}, "Nothing", "STOP"},
	} {
		if why, lifts := because(c.d, c.n); !strings.Contains(why, c.why) || !strings.Contains(lifts, c.lifts) {
			t.Errorf("%s: %q, %q", name, why, lifts)
		}
	}
}

// A nightly report reaches those who want it, through the configuration.
func TestTheNightlyReportIsDelivered(t *testing.T) {
	w, path := newSandbox(t, 3)
	cfg := strings.Replace(w.config(), `nightly: "0 2 * * *"`, `nightly: "@every 1s"`, 1) + "reports: { dir: reports }\n"
	if err := os.WriteFile(path, []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startServe(t, w, path)
	defer p.stop(t)
	eventually(t, "a report is there as page and table", 20*time.Second, func() bool {
		pages, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "reports", "pass_*_nightly_*.html"))
		tables, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "reports", "pass_*_nightly_*.csv"))
		return len(pages) > 0 && len(tables) > 0
	})
	bad := strings.Replace(cfg, "reports: { dir: reports }", "reports: { mail: { host: mail.example.com, from: heed, to: [ann@example.com] }, webhook: { url: \"https://x.example\", secret: s } }", 1)
	if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errOut, code := heed(t, "", "check", "--offline", "-c", path)
	if code != 1 || !strings.Contains(out+errOut, "reports.mail") || !strings.Contains(out+errOut, "reports.webhook") {
		t.Errorf("exit %d, %s %s", code, out, errOut)
	}
}

func TestExplainSaysWhatASendWouldGet(t *testing.T) {
	w, path := newSandbox(t, 0)
	id := w.org.Insert("Contact", map[string]any{"LastName": "Says", "MobilePhone": "206-555-0142"})
	p := startServe(t, w, path)
	defer p.stop(t)
	w.firstPass(t)
	w.texted(t, "+12065550142", "STOP")
	var out string
	var code int
	eventually(t, "the box is ticked, and heed knows it", 10*time.Second, func() bool {
		out, _, code = heed(t, "", "explain", "(206) 555-0142", "-c", path)
		return w.boxTicked("Contact", id) && strings.Contains(out, "box ticked")
	})
	for _, want := range []string{"A send to +12065550142 would get: block (opted_out)", "The recipient opted out.", `recipient, "stop"`, "and nothing else", "Contact " + id + ": box ticked"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q in:\n%s", code, want, out)
		}
	}
	out, _, code = heed(t, "", "explain", "+12065550143", "--json", "-c", path)
	var x explanation
	if err := json.Unmarshal([]byte(out), &x); err != nil || code != 0 || x.Decision != "allow" || x.Event != 0 || len(x.Records) != 0 {
		t.Errorf("exit %d, %v, %s", code, err, out)
	}
	if _, errOut, code := heed(t, "", "explain", "me", "-c", path); code != 1 || errOut == "" {
		t.Errorf("no number: exit %d, %q", code, errOut)
	}
}
