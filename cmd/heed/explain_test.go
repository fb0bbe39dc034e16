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

// Who said that a number is opted out, and why, is what a person at the command line asks next.
func TestExplainAndHistorySayWhoAndWhy(t *testing.T) {
	w, path := newSandbox(t, 0)
	grace := w.org.AddUser("grace@example.com", "Grace", "Admin")
	id := w.org.Insert("Contact", map[string]any{"LastName": "Ticked", "MobilePhone": "206-555-0146"})
	p := startServe(t, w, path)
	defer p.stop(t)
	w.firstPass(t)
	say := func(args ...string) string {
		t.Helper()
		out, errOut, code := heed(t, "", append(args, "-c", path)...)
		if code != 0 {
			t.Fatalf("heed %v: exit %d, %s", args, code, errOut)
		}
		return out
	}
	has := func(out string, want ...string) {
		t.Helper()
		for _, s := range want {
			if !strings.Contains(out, s) {
				t.Errorf("no %q in:\n%s", s, out)
			}
		}
		for line := range strings.Lines(out) {
			if line = strings.TrimSuffix(line, "\n"); strings.TrimRight(line, " ") != line {
				t.Errorf("a blank at the end of %q", line)
			}
		}
	}
	me := whoami()
	w.sends(t, "+12065550147", "Hello, your parcel")
	say("optouts", "add", "+12065550147", "--why", "called, wants out")
	has(say("explain", "+12065550147"), "Word of   the admin "+me+": \"called, wants out\"\n")
	has(say("history", "+12065550147"), "opt_out by admin ("+me+"): \"called, wants out\"\n", ": \"Hello, your parcel\"\n")

	for number, decision := range map[string]string{"+12065550148": "--opt-out", "+12065550149": "--release"} {
		w.texted(t, number, "who gave you this number? I never signed up.")
		say("holds", "resolve", number, decision, "--why", "spoke to them")
	}
	has(say("explain", "+12065550148"), "Word of   the recipient, as "+me+" decided: \"spoke to them\"\n")
	has(say("history", "+12065550148"), "opt_out by recipient ("+me+"): \"spoke to them\"\n")
	has(say("history", "+12065550149"), "release by admin ("+me+"): \"spoke to them\"\n")
	// A STOP of their own says it now, and nobody decided that.
	w.texted(t, "+12065550148", "STOP")
	has(say("explain", "+12065550148"), "Word of   the recipient, \"stop\"\n")

	if err := w.org.UpdateAs(grace, "Contact", id, map[string]any{"SMS_Opt_Out__c": true}); err != nil {
		t.Fatal(err)
	}
	say("reconcile")
	has(say("explain", "+12065550146"), "Word of   the crm: Grace Admin, Contact "+id+"\n")
	has(say("history", "+12065550146"), "opt_out by crm (Grace Admin), Contact "+id+": \"")
	var x explanation
	if err := json.Unmarshal([]byte(say("explain", "+12065550146", "--json")), &x); err != nil || x.Actor != "Grace Admin" || x.Why == "" || x.CRM != "salesforce" || x.Record == nil || x.Record.ID != id {
		t.Errorf("%v, %+v", err, x)
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
