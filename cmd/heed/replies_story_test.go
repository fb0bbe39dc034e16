package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// Everything that people write when they want it to stop, as signed webhooks to a running daemon: it reaches the box,
// and the phone gets exactly one confirmation overall where heed owns it, and only the provider's where it does not.
func TestEachWayToSayStopReachesTheBoxWithOneConfirmation(t *testing.T) {
	says := []struct {
		text   string
		twilio bool // Twilio acts on it by itself, and confirms
	}{
		{"STOP", true}, {"stop ", true}, {"Unsubscribe", true}, {"REVOKE", true},
		{"Stop.", false}, {"ＳＴＯＰ", false}, {"S T O P", false}, {"st\u200dop", false}, {"stopp", false}, {"STOP ALL", false}, {"opt-out", false},
		{"ARRÊT", false}, {"BAJA", false}, {"SAIR", false}, {"ABMELDEN", false}, {"ОСТАНОВИТЬ", false},
		{"pls stop texting me 🙏", false}, {"take me off your list", false}, {"no me manden más mensajes", false},
		{"ne m'envoyez plus de messages", false}, {"não quero mais receber mensagens", false}, {"bitte keine SMS mehr", false},
	}
	for _, owner := range []string{"provider", "network", "heed"} {
		t.Run("replies: "+owner, func(t *testing.T) {
			w, path := newSandbox(t, 0)
			cfg := strings.Replace(w.config(), "    provider: twilio\n", "    provider: twilio\n    replies: "+owner+"\n", 1) + "confirmations: { brand: Acme, help: help.acme.example }\n"
			if err := os.WriteFile(path, []byte(cfg), 0o600); err != nil {
				t.Fatal(err)
			}
			ids := make([]string, len(says))
			number := func(i int) string { return fmt.Sprintf("+120655501%02d", i) }
			for i := range says {
				ids[i] = w.org.Insert("Contact", map[string]any{"LastName": "Says", "MobilePhone": number(i)})
			}
			p := startServe(t, w, path)
			eventually(t, "the first pass has read the org", 20*time.Second, func() bool {
				return strings.Contains(metrics(t, w), `heed_passes_total{kind="incremental",result="ok"}`)
			})
			for i, s := range says {
				for range 2 { // people insist
					if d, err := w.twilio.Deliver(number(i), w.from, s.text); err != nil || d.Status != http.StatusOK {
						t.Fatalf("%q: %+v %v", s.text, d, err)
					}
				}
			}
			for i, s := range says {
				eventually(t, fmt.Sprintf("%q ticks the box", s.text), 10*time.Second, func() bool { return w.boxTicked("Contact", ids[i]) })
			}
			eventually(t, "nothing is owed any more", 20*time.Second, func() bool {
				m := metrics(t, w)
				return strings.Contains(m, `heed_owed{kind="answer"} 0`) && strings.Contains(m, `heed_owed{kind="boxes"} 0`) && strings.Contains(m, `heed_owed{kind="tell"} 0`)
			})
			p.stop(t)
			for i, s := range says {
				got := 0
				for _, x := range w.twilio.Inbox(number(i)) {
					if x.To == number(i) {
						got++
					}
				}
				want := 0
				if s.twilio || owner == "heed" {
					want = 1
				}
				if got != want {
					t.Errorf("%q: %d confirmations, want %d", s.text, got, want)
				}
			}
		})
	}
}

// Shadow mode, until the admin trusts heed: it decides, records and reports, and blocks, writes and texts nothing.
// Switched to live, what it kept owed is done.
func TestShadowModeChangesNothingUntilItIsLive(t *testing.T) {
	w, path := newSandbox(t, 0)
	number := "+12065550101"
	id := w.org.Insert("Contact", map[string]any{"LastName": "Shadow", "MobilePhone": number})
	live := strings.Replace(w.config(), "    provider: twilio\n", "    provider: twilio\n    replies: heed\n", 1) + "confirmations: { brand: Acme, help: help.acme.example }\n"
	if err := os.WriteFile(path, []byte("mode: shadow\n"+live), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startServe(t, w, path)
	eventually(t, "the first pass has read the org", 20*time.Second, func() bool {
		return strings.Contains(metrics(t, w), `heed_passes_total{kind="incremental",result="ok"}`)
	})
	if d, err := w.twilio.Deliver(number, w.from, "take me off your list"); err != nil || d.Status != http.StatusOK {
		t.Fatal(d, err)
	}
	code, m := w.post(t, w.publicURL()+"/v1/messages", w.apiKey, map[string]any{"to": number, "body": "hello"})
	if code != 201 || m["status"] != "sent" || m["decision"] != "allow" || m["reason"] != "opted_out" {
		t.Errorf("shadow mode must let it pass and say what it would have been: %d %v", code, m)
	}
	if !strings.Contains(metrics(t, w), "heed_shadow_sends_total 1") {
		t.Error("the send is not counted")
	}
	p.stop(t)
	if out, errOut, code := heed(t, "", "reconcile", "-c", path, "--log-level", "error"); code != exitOK || !strings.Contains(out, "mode: shadow") {
		t.Errorf("reconcile: %d\n%s%s", code, out, errOut)
	}
	if w.boxTicked("Contact", id) || len(w.twilio.Inbox(number)) != 2 { // their text, and the send
		t.Error("shadow mode changed something")
	}

	if err := os.WriteFile(path, []byte(live), 0o600); err != nil {
		t.Fatal(err)
	}
	p = startServe(t, w, path)
	eventually(t, "the box is ticked", 10*time.Second, func() bool { return w.boxTicked("Contact", id) })
	if code, m := w.post(t, w.publicURL()+"/v1/messages", w.apiKey, map[string]any{"to": number, "body": "hello"}); code != 201 || m["status"] != "blocked" {
		t.Errorf("live: %d %v", code, m)
	}
	p.stop(t)
}

func TestPeopleWorkTheReviewQueueAndTheListFromTheCommandLine(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	p := startServe(t, w, cfg)
	held, stopped, byHand := "+12065550101", "+12065550102", "+12065550103"
	for number, text := range map[string]string{held: "STOP 12345", stopped: "STOP"} {
		if d, err := w.twilio.Deliver(number, w.from, text); err != nil || d.Status != http.StatusOK {
			t.Fatal(d, err)
		}
	}
	try := func(wantCode int, wantOut string, args ...string) {
		t.Helper()
		out, errOut, code := heed(t, "", append(args, "-c", cfg, "--log-level", "error")...)
		if code != wantCode || !strings.Contains(out+errOut, wantOut) {
			t.Errorf("heed %s: exit code %d, want %d with %q\n%s%s", strings.Join(args, " "), code, wantCode, wantOut, out, errOut)
		}
	}
	for _, running := range []bool{true, false} { // the same with the daemon and without
		if !running {
			p.stop(t)
		}
		try(exitOK, held, "holds", "list")
		try(exitOK, "\"state\":\"held\"", "optouts", "list", "--json")
		try(exitUsage, "either", "holds", "resolve", held)
		try(exitFailed, "not held", "holds", "resolve", stopped, "--release")
		try(exitFailed, "START", "optouts", "remove", stopped)
		try(exitOK, "opted_out", "optouts", "add", byHand, "--why", "asked on the phone")
		try(exitOK, "unknown", "optouts", "remove", byHand, "--why", "asked again")
		try(exitOK, "number,state,source,keyword,since,campaign", "optouts", "export")
	}
	try(exitOK, "allow", "holds", "resolve", held, "--release", "--why", "an order number")
	try(exitOK, "release by admin", "history", held)
}
