package main

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What a lawyer asks for: the STOP, a report that somebody kept, the packet, and whether it can be trusted.
func TestAPacketProvesAStopToWhoeverKeptAReport(t *testing.T) {
	w, cfg := newSandbox(t, 20)
	number, other := "+12065550199", "+12065550177"
	contact := w.org.Insert("Contact", map[string]any{"LastName": "Story", "MobilePhone": "206-555-0199"})
	p := startServe(t, w, cfg)
	w.firstPass(t)
	w.texted(t, other, "CANARY what is this about")
	if status, reason, _ := w.sends(t, number, "Sale today"); status != "sent" {
		t.Fatalf("first send: %s %s", status, reason)
	}
	w.texted(t, number, "pls stop texting me")
	eventually(t, "the box is ticked, and recorded", 10*time.Second, func() bool {
		out, _, _ := heed(t, "", "history", number, "-c", cfg)
		return w.boxTicked("Contact", contact) && strings.Contains(out, "Contact "+contact+" ticked")
	})
	if status, reason, _ := w.sends(t, number, "Sale tomorrow"); status != "blocked" {
		t.Fatalf("send after the STOP: %s %s", status, reason)
	}
	if out, errOut, code := heed(t, "", "reconcile", "-c", cfg); code != exitOK {
		t.Fatalf("reconcile: %s%s", out, errOut)
	}
	kept, _, _ := heed(t, "", "reports", "show", "-c", cfg)
	m := regexp.MustCompile(`Anchor +event (\d+), SHA-256 ([0-9a-f]{64})`).FindStringSubmatch(kept)
	if m == nil {
		t.Fatalf("the report has no anchor:\n%s", kept)
	}
	anchor := m[1] + ":" + m[2]

	dir := t.TempDir()
	file := filepath.Join(dir, "case-12.zip")
	export := func(args ...string) (string, int) {
		t.Helper()
		out, errOut, code := heed(t, "", append([]string{"history", "(206) 555-0199", "-c", cfg, "--log-level", "error", "--evidence", file}, args...)...)
		return out + errOut, code
	}
	if out, code := export("--why", "case 12"); code != exitOK || !strings.Contains(out, "records") || strings.Contains(out, number) {
		t.Fatalf("export: %d %s", code, out)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("packet: %v %v", fi.Mode(), err)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out, code := export(); code != exitFailed || !strings.Contains(out, "--overwrite") {
		t.Errorf("over an existing file: %d %s", code, out)
	}
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, first) {
		t.Errorf("the file was changed: %v", err)
	}
	if bytes.Contains(first, []byte("CANARY")) || bytes.Contains(first, []byte(other)) {
		t.Error("the packet holds what somebody else wrote")
	}
	if s := summaryOf(t, first); !strings.Contains(s, "pls stop texting me") || !strings.Contains(s, "Contact "+contact) || !strings.Contains(s, "case 12") || !strings.Contains(s, "opted out") {
		t.Errorf("summary:\n%s", s)
	}

	// Somebody else checks it, with no configuration and nothing of heed's but the program.
	check := func(args ...string) (string, int) {
		t.Helper()
		out, errOut, code := heed(t, "", append([]string{"verify", "-c", filepath.Join(dir, "none.yaml"), "--evidence", file}, args...)...)
		return out + errOut, code
	}
	if out, code := check(); code != exitOK || !strings.Contains(out, "not proven:  that these records are what heed recorded at the time") || !strings.Contains(out, "no record of the number was left out") {
		t.Errorf("without an anchor: %d %s", code, out)
	}
	if out, code := check("--anchor", anchor); code != exitOK || !strings.Contains(out, "ok  anchor:  "+anchor) || strings.Contains(out, "at the time: for that") {
		t.Errorf("with the anchor: %d %s", code, out)
	}
	if out, code := check("--anchor", m[2], "--json"); code != exitOK || !strings.Contains(out, `"ok": true`) {
		t.Errorf("as JSON: %d %s", code, out)
	}
	if out, code := check("--anchor", m[1]+":"+strings.Repeat("0", 64)); code != exitFailed || !strings.Contains(out, "NOT PROVEN: event "+m[1]+" has another hash") {
		t.Errorf("with another anchor: %d %s", code, out)
	}
	flipped := bytes.Clone(first)
	flipped[bytes.Index(flipped, []byte("pls stop"))] ^= 1
	if err := os.WriteFile(file, flipped, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := check("--anchor", anchor); code != exitFailed || !regexp.MustCompile(`REFUSED .*records\.jsonl: record \d+ \(event \d+\): it is not what was recorded`).MatchString(out) {
		t.Errorf("a flipped byte: %d %s", code, out)
	}

	// The export is an event itself, and the daemon is not needed for one.
	if out, _, _ := heed(t, "", "history", number, "-c", cfg); !strings.Contains(out, "evidence by "+whoami()) {
		t.Errorf("history does not tell of the export:\n%s", out)
	}
	p.stop(t)
	if out, code := export("--overwrite"); code != exitOK {
		t.Fatalf("without a daemon: %d %s", code, out)
	}
	if out, code := check("--anchor", anchor); code != exitOK {
		t.Errorf("without a daemon: %d %s", code, out)
	}

	none := filepath.Join(dir, "none.zip")
	if out, errOut, code := heed(t, "", "history", "+12065550111", "-c", cfg, "--log-level", "error", "--evidence", none); code != exitFailed || !strings.Contains(errOut, "nothing is known about this number") || strings.Contains(errOut, "50111") {
		t.Errorf("an unknown number: %d %s%s", code, out, errOut)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if out, _, _ := heed(t, "", "history", "+12065550111", "-c", cfg, "--log-level", "error"); strings.Contains(out, "evidence by") {
		t.Errorf("asking made an unknown number known:\n%s", out)
	}

	// The report proves the whole ledger's past, too.
	if out, errOut, code := heed(t, "", "verify", "-c", cfg, "--anchor", anchor); code != exitOK || !strings.Contains(out, "ok  anchor:  "+anchor) {
		t.Errorf("ledger: %d %s%s", code, out, errOut)
	}
	wrong := m[1] + ":" + strings.Repeat("0", 64)
	if out, errOut, code := heed(t, "", "verify", "-c", cfg, "--anchor", anchor, "--anchor", wrong); code != exitFailed || !strings.Contains(out, "record "+m[1]+" has hash "+m[2]) {
		t.Errorf("ledger with another anchor: %d %s%s", code, out, errOut)
	}
}

func TestAPacketThatCannotBeMadeLeavesNothingBehind(t *testing.T) {
	_, cfg := newSandbox(t, 5)
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"history", "+12065550111", "-c", cfg, "--evidence", filepath.Join(dir, "a.zip")}, exitFailed, ""},
		{[]string{"history", "hello", "-c", cfg, "--evidence", filepath.Join(dir, "a.zip")}, exitFailed, ""},
		{[]string{"history", "+12065550188", "-c", cfg, "--evidence", filepath.Join(dir, "no", "a.zip")}, exitFailed, "no such file"},
		{[]string{"history", "+12065550188", "-c", cfg, "--evidence", ""}, exitUsage, "name of a file"},
		{[]string{"history", "+12065550188", "-c", cfg, "--why", "x"}, exitUsage, "--evidence FILE"},
		{[]string{"history", "+12065550188", "-c", cfg, "--json", "--evidence", filepath.Join(dir, "a.zip")}, exitUsage, "one of them"},
		{[]string{"verify", "-c", cfg, "--anchor", strings.Repeat("0", 64)}, exitUsage, "SEQ:HASH"},
		{[]string{"verify", "-c", cfg, "--anchor", "5:xyz"}, exitUsage, "hexadecimal"},
		{[]string{"verify", "--evidence", filepath.Join(dir, "none.zip")}, exitFailed, "no such file"},
		{[]string{"verify", "--evidence", dir}, exitFailed, "not a file"},
		{[]string{"verify", "--evidence", cfg}, exitFailed, "REFUSED"},
		{[]string{"verify", "--evidence", cfg, "--rebuild"}, exitUsage, "one of them"},
	} {
		out, errOut, code := heed(t, "", c.args...)
		if code != c.code || !strings.Contains(out+errOut, c.says) || strings.Contains(errOut, "+12065550111") {
			t.Errorf("%v: %d, want %d and %q: %s%s", c.args, code, c.code, c.says, out, errOut)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestAFileThatAppearedMeanwhileIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	tmp, path := filepath.Join(dir, "tmp"), filepath.Join(dir, "packet.zip")
	for f, content := range map[string]string{tmp: "new", path: "old"} {
		if err := os.WriteFile(f, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := name(tmp, path, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("without being told: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "old" {
		t.Errorf("%q %v", b, err)
	}
	if err := name(tmp, path, true); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "new" {
		t.Errorf("%q %v", b, err)
	}
}

func summaryOf(t *testing.T, b []byte) string {
	t.Helper()
	zr, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := zr.Open("summary.html")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(s)
}
