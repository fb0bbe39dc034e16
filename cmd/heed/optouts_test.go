package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/sms/phone"
)

// asHeed is a command that runs heed in a process of its own.
func asHeed(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, args...)
	c.Env = append(os.Environ(), mainEnv+"=1")
	return c
}

// From a list of the old provider's to boxes that are ticked, back again, and once more through a workbook.
func TestAListIsImportedUndoneAndBroughtBackAsAWorkbook(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	contact := w.org.Insert("Contact", map[string]any{"LastName": "List", "MobilePhone": "206-555-0161"})
	lead := w.org.Insert("Lead", map[string]any{"LastName": "List", "Company": "List", "Phone": "(206) 555-0161"})
	p := startServe(t, w, cfg)
	defer p.stop(t)
	w.firstPass(t)
	w.texted(t, "+12065550163", "STOP")
	dir := t.TempDir()
	list := filepath.Join(dir, "old.csv")
	if err := os.WriteFile(list, []byte("\ufeffname;Mobile Phone\nAda;206.555.0161\nBob;+1 206 555 0162\nBob;2065550162\nCy;2065550163\nDi;1.20656E+10\nEd;\nFay;206555016\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	state := func(n string) string {
		t.Helper()
		out, _, code := heed(t, "", "explain", n, "--json", "-c", cfg)
		var x explanation
		if err := json.Unmarshal([]byte(out), &x); err != nil || code != 0 {
			t.Fatalf("exit %d, %v, %s", code, err, out)
		}
		return x.Reason
	}
	imported := func(code int, args ...string) (r bulkResult, errOut string) {
		t.Helper()
		out, errOut, got := heed(t, "", append([]string{"optouts", "import", "--json", "-c", cfg}, args...)...)
		if got != code {
			t.Fatalf("exit %d, want %d: %s%s", got, code, out, errOut)
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err, out)
		}
		if strings.Contains(out+errOut, "2065550") || strings.Contains(out+errOut, "206.555") || strings.Contains(out+errOut, "555016") {
			t.Errorf("a number is shown: %s%s", out, errOut)
		}
		return r, errOut
	}
	// Looking changes nothing, leaves no file, and needs no reason.
	if r, _ := imported(1, list, "--dry-run"); !r.DryRun || r.Rows != 6 || r.Change != 2 || r.Already != 1 || r.Duplicates != 1 || r.Unreadable != 2 || r.Empty != 1 || r.Records != 2 || r.Changed != 0 || r.UndoFile != "" ||
		len(r.Problems) != 2 || !strings.HasPrefix(r.Problems[0], "line 6: a spreadsheet") || !strings.HasPrefix(r.Problems[1], "line 8: ") || r.Column != "Mobile Phone" {
		t.Errorf("dry run: %+v", r)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 1 || state("+12065550161") != "ok" {
		t.Fatalf("a dry run left %v, and Ada would get %s", files, state("+12065550161"))
	}
	for _, args := range [][]string{{list, "--yes"}, {list, "--why", "x"}, {"-", "--why", "x"}, {list, "--yes", "--why", "x", "--column", "fax"}, {list, "--yes", "--why", " "}} {
		if out, errOut, code := heed(t, "2065550161\n", append([]string{"optouts", "import", "-c", cfg}, args...)...); code != exitUsage || out != "" || state("+12065550161") != "ok" {
			t.Errorf("%q: exit %d, %s%s", args, code, out, errOut)
		}
	}
	first, _ := imported(1, list, "--yes", "--why", "list of the old provider")
	if first.Changed != 2 || state("+12065550161") != "opted_out" || state("+12065550162") != "opted_out" {
		t.Errorf("import: %+v", first)
	}
	eventually(t, "both boxes are ticked", 10*time.Second, func() bool { return w.boxTicked("Contact", contact) && w.boxTicked("Lead", lead) })
	if b, err := os.ReadFile(first.UndoFile); err != nil || string(b) != "number\n+12065550161\n+12065550162\n" {
		t.Errorf("the undo file is %q, %v", b, err)
	}
	if again, _ := imported(1, list, "--yes", "--why", "list of the old provider"); again.Change != 0 || again.Changed != 0 || again.Already != 3 || again.UndoFile != "" {
		t.Errorf("again: %+v", again)
	}
	if out, _, code := heed(t, "", "history", "+12065550162", "-c", cfg, "--json"); code != 0 || strings.Count(out, `"source": "admin"`) != 1 || !strings.Contains(out, `"why": "list of the old provider"`) || !strings.Contains(out, `"actor": "`+whoami()+`"`) {
		t.Errorf("who did it, and why: %s", out)
	}
	// The list goes out as a workbook …
	book := filepath.Join(dir, "list.xlsx")
	if out, errOut, code := heed(t, "", "optouts", "export", "--format", "xlsx", "--output", book, "-c", cfg); code != 0 || out+errOut != "" {
		t.Fatalf("export: exit %d, %s%s", code, out, errOut)
	}
	// … Bob texts STOP himself, everything that was done by hand is undone, and neither his nor Cy's STOP with it.
	w.texted(t, "+12065550162", "STOP")
	if r, _ := imported(0, "--undo", first.UndoFile, "--yes", "--why", "the wrong list"); r.Changed != 1 || r.Refused != 1 {
		t.Errorf("undo: %+v", r)
	}
	if a, b, c := state("+12065550161"), state("+12065550162"), state("+12065550163"); a != "ok" || b != "opted_out" || c != "opted_out" {
		t.Errorf("after the undo: %s, %s, %s", a, b, c)
	}
	if r, _ := imported(0, book, "--yes", "--why", "the right list after all"); r.Format != "xlsx" || r.Changed != 1 || r.Already != 2 || state("+12065550161") != "opted_out" {
		t.Errorf("the workbook: %+v", r)
	}
	// A list from standard input, and numbers on the command line.
	if out, errOut, code := heed(t, "2065550164\n", "optouts", "import", "-", "--yes", "--why", "x", "-c", cfg); code != 0 || !strings.Contains(out, "1 number opted out\n") || state("+12065550164") != "opted_out" {
		t.Errorf("standard input: exit %d, %s%s", code, out, errOut)
	}
	if out, errOut, code := heed(t, "", "optouts", "add", "2065550165", "2065550166", "--yes", "--why", "x", "-c", cfg); code != 0 || !strings.Contains(out, "2 numbers opted out\n") || state("+12065550166") != "opted_out" {
		t.Errorf("two numbers: exit %d, %s%s", code, out, errOut)
	}
	if out, errOut, code := heed(t, "", "optouts", "remove", "2065550163", "-c", cfg); code != 1 || !strings.Contains(errOut, "START") {
		t.Errorf("lifting a STOP: exit %d, %s%s", code, out, errOut)
	}
	if out, _, code := heed(t, "", "optouts", "remove", "2065550163", "2065550166", "--yes", "--why", "x", "-c", cfg); code != 0 || state("+12065550163") != "opted_out" || state("+12065550166") != "ok" {
		t.Errorf("lifting one of two: exit %d, %s", code, out)
	}
	// The filters of the page.
	for filter, want := range map[string]int{"--source=recipient": 2, "--source=admin": 3, "--ends=0161": 1, "--ends=(555) 0161": 1, "--ends=555-0161": 1, "--state=opted_in": 0, "--state=all": 5,
		"--since=2020-01-01": 5, "--until=2020-01-01": 0, "--campaign=none": 0} {
		out, errOut, code := heed(t, "", "optouts", "list", filter, "-c", cfg)
		if got := strings.Count(out, "\n") - 1; code != 0 || got != want {
			t.Errorf("%s: %d rows, want %d\n%s%s", filter, got, want, out, errOut)
		}
		if csv, _, _ := heed(t, "", "optouts", "export", filter, "-c", cfg); strings.Count(csv, "\n") != strings.Count(out, "\n") {
			t.Errorf("%s: list and export differ:\n%s%s", filter, out, csv)
		}
	}
	for _, bad := range []string{"--state=maybe", "--source=me", "--since=today", "--until=1", "--ends=x"} {
		if out, errOut, code := heed(t, "", "optouts", "list", bad, "-c", cfg); code != exitUsage || out != "" || !strings.Contains(errOut, bad[:strings.Index(bad, "=")]) {
			t.Errorf("%s: exit %d, %s%s", bad, code, out, errOut)
		}
	}
	if out, errOut, code := heed(t, "", "optouts", "export", "--format", "ods", "-c", cfg); code != exitUsage || out != "" || !strings.Contains(errOut, "xlsx") {
		t.Errorf("exit %d, %s%s", code, out, errOut)
	}
}

// The daemon is killed somewhere in an import: the same command does the rest, each number is opted out once, and what takes
// it back was on disk before the first of them.
func TestAnImportSurvivesTheDeathOfTheDaemon(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	p := startServe(t, w, cfg)
	const people = 20_000
	var list strings.Builder
	for i := range people {
		fmt.Fprintf(&list, "+120655%05d\n", 50000+i)
	}
	dir := t.TempDir()
	file, undo := filepath.Join(dir, "list.txt"), filepath.Join(dir, "undo.csv")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := asHeed(t, "optouts", "import", file, "--why", "x", "--yes", "--undo-file", undo, "-c", cfg)
	said, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the import is under way", 30*time.Second, func() bool {
		var events float64
		for line := range strings.Lines(metrics(t, w)) {
			_, _ = fmt.Sscanf(line, "heed_ledger_events_total %g", &events)
		}
		return events > 1000
	})
	p.kill(t)
	interrupted := cmd.Wait() != nil // it may have been faster
	b, _ := os.ReadFile(said.Name())
	if interrupted && !strings.Contains(string(b), "the same command goes on with the rest") {
		t.Errorf("it does not say how to go on: %s", b)
	}
	if u, err := os.ReadFile(undo); err != nil || strings.Count(string(u), "\n") != people+1 {
		t.Errorf("the undo file has %d lines, %v", strings.Count(string(u), "\n"), err)
	}
	p = startServe(t, w, cfg)
	out, errOut, code := heed(t, "", "optouts", "import", file, "--why", "x", "--yes", "--json", "-c", cfg)
	var r bulkResult
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Changed+r.Already != people {
		t.Fatalf("exit %d, %+v, %s", code, r, errOut)
	}
	t.Logf("killed after %d of %d", r.Already, people)
	p.stop(t)
	l, err := local.Open(filepath.Join(filepath.Dir(cfg), w.dataDir), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	times := map[phone.Number]int{}
	for e, err := range l.Events(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Consent != nil {
			times[e.Number]++
		}
	}
	for n, k := range times {
		if k != 1 || l.State(n) != consent.OptedOut {
			t.Fatalf("%v was opted out %d times and is %s", n, k, l.State(n))
		}
	}
	if len(times) != people {
		t.Errorf("%d numbers are opted out", len(times))
	}
}

func TestAReportIsFoundByTheBeginningOfItsName(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	p := startServe(t, w, cfg)
	w.firstPass(t)
	defer p.stop(t)
	for range 2 {
		if _, errOut, code := heed(t, "", "reconcile", "-c", cfg); code != 0 {
			t.Fatal(errOut)
		}
	}
	out, _, _ := heed(t, "", "reports", "list", "-c", cfg)
	ids := regexp.MustCompile(`(?m)^pass_\S+`).FindAllString(out, -1)
	if len(ids) < 2 {
		t.Fatalf("reports %q", out)
	}
	for _, format := range reportFormats {
		whole, _, code := heed(t, "", "reports", "show", ids[1], "--format", format, "-c", cfg)
		begun, _, code2 := heed(t, "", "reports", "show", ids[1][:len(ids[1])-1], "--format", format, "-c", cfg)
		if code != 0 || code2 != 0 || whole == "" || whole != begun {
			t.Errorf("%s: exit %d and %d, %d and %d bytes", format, code, code2, len(whole), len(begun))
		}
	}
	for id, want := range map[string]string{"pass_": "write more of the name", "yesterday": ids[0], "../x": "not in the ledger", "a b": "not in the ledger"} {
		if out, errOut, code := heed(t, "", "reports", "show", id, "-c", cfg); code != exitFailed || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("%s: exit %d, %q, want %q", id, code, errOut, want)
		}
	}
	if _, errOut, code := heed(t, "", "reports", "show", "--format", "pdf", "-c", cfg); code != exitUsage || !strings.Contains(errOut, "csv") {
		t.Errorf("exit %d, %s", code, errOut)
	}
	if _, errOut, code := heed(t, "", "reports", "show", "--format", "csv", "--json", "-c", cfg); code != exitUsage {
		t.Errorf("exit %d, %s", code, errOut)
	}
	// Completion offers what there is.
	if out, _, code := heed(t, "", "__complete", "reports", "show", "-c", cfg, ""); code != 0 || !strings.Contains(out, ids[0]+"\t") {
		t.Errorf("completion: %s", out)
	}
	heed(t, "", "keys", "add", "nightly-job", "--may", "read", "-c", cfg)
	if out, _, _ := heed(t, "", "__complete", "keys", "revoke", "-c", cfg, ""); !strings.Contains(out, "nightly-job") || strings.Contains(out, "workflow") {
		t.Errorf("completion of keys: %s", out)
	}
}

func TestMistypedCommandsAndFlagsAreRecognised(t *testing.T) {
	for line, want := range map[string]string{
		"verfy": "did you mean verify?", "optouts lst": "did you mean list?", "reports sho": "did you mean show?", "optouts list --sinse 2026-01-01": "did you mean --since?",
		"backup x --jsn": "did you mean --json?", "something-else": "unknown command", "verify --q": "unknown flag", "verify now": "unknown command",
	} {
		if out, errOut, code := heed(t, "", strings.Fields(line)...); code != exitUsage || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("heed %s: exit %d, %q", line, code, errOut)
		}
	}
}

// Each command explains itself, completes in four shells, and has a manual page.
func TestEachCommandIsDocumented(t *testing.T) {
	for _, c := range allCommands(newRoot(stdio{In: strings.NewReader("")}, &options{})) {
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s: description %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		if c.Runnable() && !c.HasSubCommands() && c.ValidArgsFunction == nil && c.Args == nil {
			t.Errorf("%s takes anything", c.CommandPath())
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out, errOut, code := heed(t, "", "completion", shell); code != 0 || !strings.Contains(out, "heed") || errOut != "" {
			t.Errorf("completion %s: exit %d, %d bytes, %s", shell, code, len(out), errOut)
		}
	}
	dir := filepath.Join(t.TempDir(), "man1")
	t.Setenv("SOURCE_DATE_EPOCH", "1795910400")
	if _, errOut, code := heed(t, "", "man", dir); code != 0 {
		t.Fatal(errOut)
	}
	for _, page := range []string{"heed.1", "heed-optouts-import.1", "heed-verify.1"} {
		b, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !strings.Contains(string(b), ".TH") || !strings.Contains(string(b), "SYNOPSIS") || strings.Contains(string(b), "Auto generated") {
			t.Errorf("%s: %v\n%.300s", page, err, b)
		}
	}
}

func TestAnEmptyListIsAnError(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	p := startServe(t, w, cfg)
	defer p.stop(t)
	for name, text := range map[string]string{"nothing": "", "a header alone": "name,phone\n", "empty lines": "\n\n"} {
		file := filepath.Join(t.TempDir(), "list.csv")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, flag := range []string{"--dry-run", "--yes"} {
			if _, errOut, code := heed(t, "", "optouts", "import", file, flag, "--why", "x", "-c", cfg); code != exitFailed || !strings.Contains(errOut, "list.csv: the list is empty") {
				t.Errorf("%s, %s: exit %d, %s", name, flag, code, errOut)
			}
		}
	}
}
