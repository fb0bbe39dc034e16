package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/crm/salesforce/salesforcefake"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sms/twilio/twiliofake"
)

// These tests are the bad days of an operator: what breaks around heed, and what must hold all the same.

// firstPass waits until the daemon has read the org once.
func (w *world) firstPass(t *testing.T) {
	t.Helper()
	eventually(t, "the first pass has read the org", 20*time.Second, func() bool {
		return strings.Contains(metrics(t, w), `heed_passes_total{kind="incremental",result="ok"}`)
	})
}

// texted delivers a text and requires that heed has acknowledged it.
func (w *world) texted(t *testing.T, number, body string) {
	t.Helper()
	if d, err := w.twilio.Deliver(number, w.from, body); err != nil || d.Status != http.StatusOK {
		t.Fatalf("%q was not acknowledged: %+v %v", body, d, err)
	}
}

// sends asks the gate and returns the status and the reason of the answer, with the message's address.
func (w *world) sends(t *testing.T, number, body string) (status, reason, id string) {
	t.Helper()
	code, m := w.post(t, w.publicURL()+"/v1/messages", w.apiKey, map[string]any{"to": number, "body": body})
	if code != http.StatusCreated {
		t.Fatalf("send: HTTP %d: %v", code, m)
	}
	return m["status"].(string), m["reason"].(string), m["id"].(string)
}

// request makes any request, with the API key if asked for, and returns the status, the content type and the body.
func (w *world) request(t *testing.T, method, path string, withKey bool, body []byte) (status int, contentType, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.publicURL()+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if withKey {
		req.Header.Set("Authorization", "Bearer "+w.apiKey)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
}

func knob(t *testing.T, w *world, change func(*twiliofake.Knobs)) {
	t.Helper()
	k := w.twilio.Knobs()
	change(&k)
	if err := w.twilio.SetKnobs(k); err != nil {
		t.Fatal(err)
	}
}

func orgKnob(t *testing.T, w *world, change func(*salesforcefake.Knobs)) {
	t.Helper()
	if err := w.org.SetKnobs(change); err != nil {
		t.Fatal(err)
	}
}

// A service manager stops heed in the middle of a wave of STOPs: heed ends with 0, and what it had acknowledged is kept.
func TestTerminatedUnderLoadEveryAcknowledgedStopIsKept(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	p := startServe(t, w, cfg)
	const people = 100
	var acked [people]atomic.Bool
	var answered atomic.Int32
	half := make(chan struct{})
	var wg sync.WaitGroup
	for i := range people {
		wg.Go(func() {
			d, err := w.twilio.Deliver(fmt.Sprintf("+120655501%02d", i), w.from, "STOP")
			acked[i].Store(err == nil && d.Status == http.StatusOK)
			if answered.Add(1) == people/4 {
				close(half)
			}
		})
	}
	<-half
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("heed did not end with 0: %v\n%s", err, p.logs)
	}
	wg.Wait()

	l, err := local.Open(filepath.Join(filepath.Dir(cfg), w.dataDir), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	kept := 0
	for i := range people {
		if !acked[i].Load() {
			continue
		}
		kept++
		if s := l.State(phone.MustParse(fmt.Sprintf("+120655501%02d", i))); s != consent.OptedOut {
			t.Errorf("an acknowledged STOP is lost: the state of number %d is %s", i, s)
		}
	}
	if kept == 0 {
		t.Error("no STOP was acknowledged before the end")
	}
}

// While the CRM is away an opt-out is acknowledged and refuses sends at once; the box follows when the CRM is back.
func TestACRMThatIsAwayDelaysTheBoxAndNothingElse(t *testing.T) {
	w, cfg := newSandbox(t, 20)
	faults := []func(*salesforcefake.Knobs){
		func(k *salesforcefake.Knobs) { k.Maintenance = "read_only" },
		func(k *salesforcefake.Knobs) { k.ExpireTokens, k.NextToken = true, []string{"503", "reset"} },
		func(k *salesforcefake.Knobs) { k.NextWrite = []string{"lock", "busy", "302", "apply_then_reset"} },
	}
	contacts := make([]string, len(faults))
	number := func(i int) string { return fmt.Sprintf("+1206555018%d", i) }
	for i := range faults {
		contacts[i] = w.org.Insert("Contact", map[string]any{"LastName": "Away", "MobilePhone": number(i)})
	}
	startServe(t, w, cfg)
	w.firstPass(t)
	for i, fault := range faults {
		orgKnob(t, w, fault)
		w.texted(t, number(i), "STOP")
		if status, reason, _ := w.sends(t, number(i), "hello"); status != "blocked" || reason != "opted_out" {
			t.Fatalf("a send after STOP: %s (%s)", status, reason)
		}
		orgKnob(t, w, func(k *salesforcefake.Knobs) { k.Maintenance = "" })
		eventually(t, fmt.Sprintf("the box is ticked in spite of fault %d", i), 30*time.Second, func() bool { return w.boxTicked("Contact", contacts[i]) })
	}
}

// The provider takes a message and its answer is lost: heed says that it does not know, never sends it twice, and learns
// from the callback what became of it.
func TestALostAnswerIsUnknownUntilTheProviderTells(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	startServe(t, w, cfg)
	const number = "+12065550152"
	for _, outcome := range []string{twiliofake.OutcomeResetAfterAccept, twiliofake.Outcome500AfterAccept, twiliofake.OutcomeBadJSON} {
		knob(t, w, func(k *twiliofake.Knobs) { k.NextSend = twiliofake.Outcomes{outcome} })
		status, _, id := w.sends(t, number, outcome)
		if status != "unknown" && status != "sent" { // "sent" if the callback was faster
			t.Errorf("%s: the answer is %s", outcome, status)
		}
		eventually(t, outcome+": the callback settles it", 10*time.Second, func() bool {
			_, _, m := w.request(t, http.MethodGet, "/v1/messages/"+id, true, nil)
			return strings.Contains(m, `"status":"sent"`) && strings.Contains(m, `"delivery":"delivered"`)
		})
	}
	for _, outcome := range []string{twiliofake.Outcome500, twiliofake.OutcomeReset, twiliofake.Outcome307} {
		knob(t, w, func(k *twiliofake.Knobs) { k.NextSend = twiliofake.Outcomes{outcome} })
		if status, _, _ := w.sends(t, number, outcome); status != "unknown" {
			t.Errorf("%s: the answer is %s", outcome, status)
		}
	}
	knob(t, w, func(k *twiliofake.Knobs) { k.NextSend = twiliofake.Outcomes{twiliofake.Outcome429} })
	if status, _, _ := w.sends(t, number, "429"); status != "failed" {
		t.Errorf("a refusal that proves that nothing was sent: %s", status)
	}
	got := map[string]int{}
	for _, text := range w.twilio.Inbox(number) {
		got[text.Body]++
	}
	for _, outcome := range []string{twiliofake.OutcomeResetAfterAccept, twiliofake.Outcome500AfterAccept, twiliofake.OutcomeBadJSON} {
		if got[outcome] != 1 {
			t.Errorf("%s: the phone got it %d times", outcome, got[outcome])
		}
	}
	if len(got) != 3 {
		t.Errorf("the phone got %v", got)
	}
}

// People tidy up their CRM: a converted lead and a merged contact keep the opt-out, on the records that are left.
func TestAnOptOutSurvivesConversionAndMerge(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	lead := w.org.Insert("Lead", map[string]any{"LastName": "Convert", "Company": "Example", "MobilePhone": "(206) 555-0153"})
	loser := w.org.Insert("Contact", map[string]any{"LastName": "Merge", "MobilePhone": "(206) 555-0154"})
	master := w.org.Insert("Contact", map[string]any{"LastName": "Merge", "Email": "merge@example.com"})
	startServe(t, w, cfg)
	w.firstPass(t)
	w.texted(t, "+12065550153", "STOP")
	w.texted(t, "+12065550154", "STOP")
	eventually(t, "both boxes are ticked", 10*time.Second, func() bool { return w.boxTicked("Lead", lead) && w.boxTicked("Contact", loser) })

	contact, err := w.org.Convert(lead, false) // the admin has not mapped the box
	if err != nil {
		t.Fatal(err)
	}
	if w.boxTicked("Contact", contact) {
		t.Fatal("the emulator carried the box over, so this shows nothing")
	}
	if err := w.org.Merge("Contact", master, []string{loser}, map[string]any{"MobilePhone": "(206) 555-0154", "SMS_Opt_Out__c": false}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the passes tick what is left", 20*time.Second, func() bool {
		return w.boxTicked("Contact", contact) && w.boxTicked("Contact", master)
	})
}

// Strangers send whatever they like: each answer is a problem document of the client's kind, and nothing is recorded.
func TestGarbageGetsProblemDocumentsAndLeavesNothing(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	p := startServe(t, w, cfg)
	w.firstPass(t)
	events := func() string {
		for line := range strings.Lines(metrics(t, w)) {
			if strings.HasPrefix(line, "heed_ledger_events_total ") {
				return line
			}
		}
		return ""
	}
	before := events()
	big := bytes.Repeat([]byte("A"), 10<<20)
	for _, c := range []struct {
		method, path string
		key          bool
		body         []byte
		want         int
	}{
		{"GET", "/", false, nil, 404},
		{"GET", "/metrics", false, nil, 404},
		{"PUT", "/readyz", false, nil, 405},
		{"DELETE", "/v1/messages/x", true, nil, 405},
		{"GET", "/v1/messages/x", false, nil, 401},
		{"GET", "/v1/messages/x", true, nil, 404},
		{"POST", "/v1/messages", false, big, 401},
		{"POST", "/v1/messages", true, big, 413},
		{"POST", "/v1/messages", true, nil, 422},
		{"POST", "/v1/messages", true, []byte("\x00\xff{"), 422},
		{"POST", "/v1/messages", true, []byte(`{"to":5}`), 422},
		{"POST", "/v1/messages", true, []byte(`{"to":"+12065550155","body":"x","bodi":"y"}`), 422},
		{"POST", "/v1/messages", true, []byte(`{"to":"+12065550155","body":"x"} {}`), 422},
		{"POST", "/v1/decisions", true, []byte(`{"numbers":[]}`), 422},
		{"POST", "/webhooks/nobody", false, []byte("Body=STOP"), 404},
		{"POST", "/webhooks/twilio", false, []byte("From=%2B12065550155&Body=STOP"), 403},
		{"POST", "/webhooks/twilio", false, big, 413},
		{"GET", "/webhooks/twilio?Body=STOP", false, nil, 403},
		{"POST", "/webhooks/twilio/status?message=x", false, []byte("\xff\xfe"), 403},
	} {
		status, contentType, body := w.request(t, c.method, c.path, c.key, c.body)
		if status != c.want || contentType != "application/problem+json" {
			t.Errorf("%s %s: HTTP %d %s: %s, want %d", c.method, c.path, status, contentType, body, c.want)
		}
		if strings.Contains(body, w.apiKey) || strings.Contains(body, "2065550155") {
			t.Errorf("%s %s: the answer repeats what it should not: %s", c.method, c.path, body)
		}
	}
	if after := events(); before == "" || after != before {
		t.Errorf("garbage was recorded: %q, then %q", before, after)
	}
	if strings.Contains(p.logs.String(), "2065550155") || strings.Contains(p.logs.String(), w.apiKey) {
		t.Error("a number or a key is in the log")
	}
}

// Two daemons must never share a ledger, and a taken port is named; both end at once, with 1.
func TestASecondDaemonIsRefusedAndSaysWhy(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	startServe(t, w, cfg)
	other, otherCfg := newSandbox(t, 0)
	text, err := os.ReadFile(otherCfg)
	if err != nil {
		t.Fatal(err)
	}
	shared := strings.Replace(string(text), "data_dir: "+other.dataDir, "data_dir: "+filepath.Join(filepath.Dir(cfg), w.dataDir), 1)
	taken := strings.Replace(string(text), other.heedPublic, w.heedPublic, 1)
	for _, c := range []struct{ config, want string }{{shared, "locked"}, {taken, "another heed running on this address"}} {
		if c.config == string(text) {
			t.Fatal("the configuration of the sandbox has changed; this test must follow")
		}
		path := filepath.Join(t.TempDir(), "heed.yaml")
		if err := os.WriteFile(path, []byte(c.config), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errOut, code := heed(t, "", "serve", "-c", path, "--log-level", "error"); code != exitFailed || !strings.Contains(errOut, c.want) {
			t.Errorf("want exit code 1 and %q, got %d and %s", c.want, code, errOut)
		}
	}
	if status, _, _ := w.request(t, http.MethodGet, "/readyz", false, nil); status != http.StatusOK {
		t.Errorf("the first daemon is not ready any more: HTTP %d", status)
	}
}

// A backup is taken from a running daemon, and unpacked elsewhere it knows who opted out.
func TestABackupOfARunningDaemonRestores(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	startServe(t, w, cfg)
	w.texted(t, "+12065550156", "please stop texting me")
	file := filepath.Join(t.TempDir(), "heed.tar")
	if _, errOut, code := heed(t, "", "backup", "-c", cfg, file, "--log-level", "error"); code != exitOK {
		t.Fatalf("backup: %d\n%s", code, errOut)
	}
	// What is there is kept, unless it is said otherwise; and an error names the file that was asked for.
	if err := os.WriteFile(file+".old", []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := func() string {
		b, err := os.ReadFile(file + ".old")
		return fmt.Sprint(string(b[:min(5, len(b))]), err)
	}
	if _, errOut, code := heed(t, "", "backup", "-c", cfg, file+".old", "--log-level", "error"); code != exitFailed || !strings.Contains(errOut, "--overwrite") || old() != "older<nil>" {
		t.Errorf("over an older one: exit %d, %s, %q", code, errOut, old())
	}
	if _, errOut, code := heed(t, "", "backup", "-c", cfg, file+".old", "--overwrite", "--log-level", "error"); code != exitOK || old() == "older<nil>" {
		t.Errorf("--overwrite: exit %d, %s, %q", code, errOut, old())
	}
	nowhere := filepath.Join(filepath.Dir(file), "nowhere", "heed.tar")
	if _, errOut, code := heed(t, "", "backup", "-c", cfg, nowhere, "--log-level", "error"); code != exitFailed || !strings.Contains(errOut, nowhere) || strings.Contains(errOut, "heed-part") {
		t.Errorf("into no directory: exit %d, %s", code, errOut)
	}
	restored := filepath.Join(t.TempDir(), "restored")
	untar(t, file, restored)
	l, err := local.Open(restored, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if s := l.State(phone.MustParse("+12065550156")); s != consent.OptedOut {
		t.Errorf("the restored ledger says %s", s)
	}
}

// untar unpacks the regular files of an archive below dir.
func untar(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := 0
	for r := tar.NewReader(f); ; files++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if files == 0 {
		t.Fatal("the archive is empty")
	}
}
