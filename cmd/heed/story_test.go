package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/sms/phone"
)

// These tests run heed as its users do: whole commands, real listeners, the emulators as the outside world.

// heed runs one command line and returns its output and exit code.
func heed(t *testing.T, stdin string, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, stdio{In: strings.NewReader(stdin), Out: &o, Err: &e})
	return o.String(), e.String(), code
}

// process is a heed that runs in a process of its own, so that it can be killed.
type process struct {
	cmd  *exec.Cmd
	logs *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}
func (b *syncBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

// startServe starts `heed serve` and returns when it is ready.
func startServe(t *testing.T, w *world, config string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe, "serve", "-c", config, "--log-format", "json"), logs: &syncBuffer{}}
	p.cmd.Env = append(os.Environ(), mainEnv+"=1")
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = wr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = wr.Close()
	serving := make(chan struct{})
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer r.Close()
		sc := bufio.NewScanner(r)
		for once := false; sc.Scan(); {
			_, _ = p.logs.Write(append(sc.Bytes(), '\n'))
			if !once && strings.Contains(sc.Text(), "heed is serving") {
				once = true
				close(serving)
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		<-drained
	})
	select {
	case <-serving:
	case <-drained:
		t.Fatalf("heed serve ended:\n%s", p.logs)
	case <-time.After(30 * time.Second):
		t.Fatalf("heed serve is not ready:\n%s", p.logs)
	}
	return p
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // "signal: killed"
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("heed serve did not end cleanly: %v\n%s", err, p.logs)
	}
}

// newSandbox starts the emulators and writes a configuration for them.
func newSandbox(t *testing.T, records int) (*world, string) {
	t.Helper()
	w, err := newWorld(worldOptions{salesforce: "127.0.0.1:0", twilio: "127.0.0.1:0", heed: "127.0.0.1:0", records: records, seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	path := filepath.Join(t.TempDir(), "heed.yaml")
	if err := os.WriteFile(path, []byte(w.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return w, path
}

// eventually polls until a condition holds; the emulators have no way to call back.
func eventually(t *testing.T, what string, within time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-tick.C
	}
}

func (w *world) boxTicked(object, id string) bool {
	fields, ok := w.org.Get(object, id)
	ticked, _ := fields["SMS_Opt_Out__c"].(bool)
	return ok && ticked
}

func (w *world) post(t *testing.T, url, key string, body any) (int, map[string]any) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := map[string]any{}
	raw, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("%s: HTTP %d: %s", url, resp.StatusCode, raw)
	}
	return resp.StatusCode, out
}

func TestTheDemoPlaysItsStoryAndExitsWithZero(t *testing.T) {
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	out, errOut, code := heed(t, "", "demo", "--exit", "--records", "50")
	if code != exitOK || strings.Count(out, "ok   ") < 9 || !strings.Contains(out, "every step held") {
		t.Fatalf("exit code %d\n%s\n%s", code, out, errOut)
	}
}

func TestAStopReachesEveryRecordAndAMissedOneIsRecovered(t *testing.T) {
	w, cfg := newSandbox(t, 100)
	number := "+12065550199"
	contact := w.org.Insert("Contact", map[string]any{"LastName": "Story", "MobilePhone": "206-555-0199"})
	lead := w.org.Insert("Lead", map[string]any{"LastName": "Story", "Company": "Story", "Phone": "(206) 555-0199"})
	p := startServe(t, w, cfg)
	eventually(t, "the first pass has read the org", 20*time.Second, func() bool {
		code, m := w.post(t, w.publicURL()+"/v1/decisions", w.apiKey, map[string]any{"numbers": []string{number}})
		return code == 200 && m["decisions"] != nil && strings.Contains(metrics(t, w), `heed_passes_total{kind="incremental",result="ok"}`)
	})

	if code, m := w.post(t, w.publicURL()+"/v1/messages", w.apiKey, map[string]any{"to": "(206) 555-0199", "body": "hello"}); code != 201 || m["status"] != "sent" {
		t.Fatalf("first send: %d %v", code, m)
	}
	if code, m := w.post(t, w.twilioURL+"/sandbox/texts", "", map[string]any{"from": number, "to": w.from, "body": "Stop."}); code != 201 || m["webhook"].(map[string]any)["status"] != float64(200) {
		t.Fatalf("STOP: %d %v", code, m)
	}
	if code, m := w.post(t, w.publicURL()+"/v1/messages", w.apiKey, map[string]any{"to": number, "body": "again"}); code != 201 || m["status"] != "blocked" || m["reason"] != "opted_out" {
		t.Fatalf("send after STOP: %d %v", code, m)
	}
	eventually(t, "both boxes are ticked", time.Second*5, func() bool { return w.boxTicked("Contact", contact) && w.boxTicked("Lead", lead) })

	// A record that is created later with the number is ticked by the next pass.
	late := w.org.Insert("Contact", map[string]any{"LastName": "Later", "HomePhone": "1 (206) 555 0199"})
	eventually(t, "the late record is ticked", 20*time.Second, func() bool { return w.boxTicked("Contact", late) })

	// heed is down while somebody texts STOP: Twilio gives up, and only its log knows.
	p.stop(t)
	missed := "+12065550177"
	other := w.org.Insert("Contact", map[string]any{"LastName": "Missed", "MobilePhone": "(206) 555-0177"})
	if _, m := w.post(t, w.twilioURL+"/sandbox/texts", "", map[string]any{"from": missed, "to": w.from, "body": "STOP"}); m["webhook"].(map[string]any)["status"] == float64(200) {
		t.Fatalf("the webhook should have failed: %v", m)
	}
	out, errOut, code := heed(t, "", "reconcile", "-c", cfg, "--json", "--log-level", "error")
	if code != exitOK {
		t.Fatalf("reconcile: %d\n%s\n%s", code, out, errOut)
	}
	if !w.boxTicked("Contact", other) || !strings.Contains(out, "missed_webhook") {
		t.Fatalf("the pass did not recover the STOP:\n%s", out)
	}
	if strings.Contains(out, missed) || strings.Contains(p.logs.String(), number) {
		t.Error("a full number is in the report or in the log")
	}
	out, _, code = heed(t, "", "reconcile", "-c", cfg, "--full", "--log-level", "error")
	if code != exitOK || !strings.Contains(out, "No new differences; ") || !strings.Contains(out, "number_unreadable: ") { // the org has some
		t.Fatalf("a second pass found something: %d\n%s", code, out)
	}
	out, _, code = heed(t, "", "history", "-c", cfg, missed, "--log-level", "error")
	if code != exitOK || !strings.Contains(out, "opted_out") || !strings.Contains(out, "by log") {
		t.Fatalf("history: %d\n%s", code, out)
	}
	if out, _, code = heed(t, "", "reports", "show", "-c", cfg, "--log-level", "error"); code != exitOK || out == "" {
		t.Fatalf("reports show: %d\n%s", code, out)
	}
	if out, _, code = heed(t, "", "verify", "-c", cfg); code != exitOK || !strings.Contains(out, "unbroken") {
		t.Fatalf("verify: %d\n%s", code, out)
	}
}

func metrics(t *testing.T, w *world) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.heedAdmin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// Killed between the acknowledgement and the CRM write, again and again: every acknowledged STOP is in the ledger
// once, and in the org.
func TestKilledAtAnyMomentNoAcknowledgedStopIsLost(t *testing.T) {
	cycles := 50
	if testing.Short() {
		cycles = 5
	}
	w, cfg := newSandbox(t, 0)
	type person struct {
		number, id string
		acked      bool
	}
	people := make([]*person, cycles)
	for i := range people {
		n := fmt.Sprintf("+120655501%02d", i)
		people[i] = &person{number: n, id: w.org.Insert("Contact", map[string]any{"LastName": "Crash", "MobilePhone": n})}
	}
	for i, who := range people {
		p := startServe(t, w, cfg)
		d, err := w.twilio.Deliver(who.number, w.from, "STOP")
		who.acked = err == nil && d.Status == http.StatusOK
		if !who.acked {
			t.Errorf("cycle %d: STOP not acknowledged: %+v %v", i, d, err)
		}
		p.kill(t) // at once: the write to the CRM is on its way, or not yet
	}
	p := startServe(t, w, cfg)
	eventually(t, "every box is ticked", 60*time.Second, func() bool {
		for _, who := range people {
			if who.acked && !w.boxTicked("Contact", who.id) {
				return false
			}
		}
		return true
	})
	p.stop(t)
	dir := filepath.Join(filepath.Dir(cfg), w.dataDir)
	rep, err := local.Verify(t.Context(), dir, nil)
	if err != nil || !rep.Sound() {
		t.Fatalf("the ledger is not sound: %v %v", rep.Differences, err)
	}
	l, err := local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, who := range people {
		stops := 0
		for e, err := range l.History(t.Context(), phone.MustParse(who.number)) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Inbound != nil {
				stops++
			}
		}
		if who.acked && stops != 1 {
			t.Errorf("%s: the acknowledged STOP is in the ledger %d times", who.id, stops)
		}
	}
}

func TestAFlippedByteInJournalOrIndexIsFoundAndNamed(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	p := startServe(t, w, cfg)
	for i := range 20 {
		if _, err := w.twilio.Text(fmt.Sprintf("+120655501%02d", i), w.from, "STOP"); err != nil {
			t.Fatal(err)
		}
	}
	p.stop(t)
	dir := filepath.Join(filepath.Dir(cfg), w.dataDir)
	segments, err := filepath.Glob(filepath.Join(dir, "journal", "*.journal"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	flip := func(path string, at int64) (restore func()) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		old := b[0]
		b[0] ^= 0x10
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
		return func() {
			b[0] = old
			_, err := f.WriteAt(b, at)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	restore := flip(segments[0], 1500)
	out, _, code := heed(t, "", "verify", "-c", cfg)
	if code != exitFailed || !strings.Contains(out, "DAMAGED") || !strings.Contains(out, filepath.Base(segments[0])) {
		t.Errorf("journal: exit code %d\n%s", code, out)
	}
	restore()
	// In the index: the value of a number's record, wherever it stands; older copies in free pages do not count.
	index := filepath.Join(dir, "index.db")
	raw, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	var undo []func()
	for at := 0; ; {
		i := bytes.Index(raw[at:], []byte("recipient"))
		if i < 0 {
			break
		}
		undo = append(undo, flip(index, int64(at+i)))
		at += i + 1
	}
	if len(undo) == 0 {
		t.Fatal("no number record in the index")
	}
	out, _, code = heed(t, "", "verify", "-c", cfg)
	if code != exitFailed || !strings.Contains(out, "bucket numbers") {
		t.Errorf("index: exit code %d\n%s", code, out)
	}
	for _, restore := range undo {
		restore()
	}
	if out, _, code = heed(t, "", "verify", "-c", cfg); code != exitOK {
		t.Errorf("restored: exit code %d\n%s", code, out)
	}
	// The index can be deleted: it is computed again.
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	if out, errOut, code := heed(t, "", "verify", "-c", cfg, "--rebuild", "--log-level", "error"); code != exitOK || !strings.Contains(out, "index:   what the journal amounts to") {
		t.Errorf("rebuild: exit code %d\n%s%s", code, out, errOut)
	}
}

func TestCommandsKeepUnixHabits(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("data_dir: ./d\npublic: { listen: \":8080\", url: https://sms.example.com }\nsms:\n  - { name: t, provider: twillio }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, stdin string
		args        []string
		code        int
		out, err    string
	}{
		{"help is not an error", "", []string{"--help"}, exitOK, "heed demo", ""},
		{"an unknown command is wrong usage", "", []string{"stop-it"}, exitUsage, "", "unknown command"},
		{"an unknown flag is wrong usage", "", []string{"verify", "--fast"}, exitUsage, "", "unknown flag"},
		{"a missing argument is wrong usage", "", []string{"history"}, exitUsage, "", "say the NUMBER"},
		{"and which one is missing", "", []string{"users", "role", "ann"}, exitUsage, "", "say the ROLE"},
		{"a number in pieces is wrong usage", "", []string{"explain", "(415)", "555-0142"}, exitUsage, "", "quotation marks"},
		{"an unknown shell is wrong usage", "", []string{"completion", "tcsh"}, exitUsage, "", "tcsh"},
		{"completion alone is help", "", []string{"completion"}, exitOK, "bash", ""},
		{"an opt-out needs a reason", "", []string{"optouts", "add", "+14155550142"}, exitUsage, "", "say --why"},
		{"a missing configuration names the file", "", []string{"serve", "-c", filepath.Join(dir, "none.yaml")}, exitFailed, "", "none.yaml"},
		{"check reports a wrong provider with its line", "", []string{"check", "--offline", "-c", bad}, exitFailed, "bad.yaml:4:", ""},
		{"classify speaks JSON lines", "STOP\nsee you at 5\n", []string{"classify"}, exitOK, `{"text":"STOP","verdict":"opt_out"`, ""},
		{"version names itself", "", []string{"version"}, exitOK, "heed ", ""},
		{"each command has an example", "", []string{"reconcile", "--help"}, exitOK, "Examples:", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errOut, code := heed(t, c.stdin, c.args...)
			if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errOut, c.err) {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", code, c.code, out, errOut)
			}
		})
	}
	for _, c := range allCommands(newRoot(stdio{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}, &options{})) {
		if c.HasParent() && c.Short == "" {
			t.Errorf("%s has no description", c.CommandPath())
		}
	}
}

func TestCheckFindsTheEmulatedWorldInOrder(t *testing.T) {
	w, cfg := newSandbox(t, 10)
	_ = w
	if out, _, code := heed(t, "", "check", "--offline", "-c", cfg); code != exitOK {
		t.Errorf("offline: exit code %d\n%s", code, out)
	}
	if out, _, code := heed(t, "", "check", "-c", cfg); code != exitOK {
		t.Errorf("online: exit code %d\n%s", code, out)
	}
}

type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestADemoThatNobodyReadsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	code := run(t.Context(), []string{"demo", "--records", "1"}, stdio{In: strings.NewReader(""), Out: closedPipe{}, Err: io.Discard})
	if left, err := os.ReadDir(dir); code != exitFailed || err != nil || len(left) != 0 {
		t.Errorf("exit %d, %v left, %v", code, left, err)
	}
}
