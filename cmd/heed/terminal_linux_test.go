package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal returns a terminal, and the side on which a person sits at it.
func openTerminal(t *testing.T) (tty, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 120})
	}
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return tty, person
}

// atTerminal runs heed in a process at a terminal. Whoever sits there answers with say once they see prompt. What is seen is
// returned, with the exit code.
func atTerminal(t *testing.T, env []string, prompt, say string, args ...string) (seen string, code int) {
	t.Helper()
	tty, person := openTerminal(t)
	c := asHeed(t, args...)
	c.Env = append(c.Env, append([]string{"TERM=xterm-256color"}, env...)...)
	c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = tty.Close() // the process has it: its end is the end of what is seen
	done := make(chan string)
	go func() {
		var b bytes.Buffer
		buf := make([]byte, 4096)
		for answered := prompt == ""; ; {
			n, err := person.Read(buf)
			b.Write(buf[:n])
			if !answered && strings.Contains(b.String(), prompt) {
				answered = true
				_, _ = io.WriteString(person, say)
			}
			if err != nil {
				done <- b.String()
				return
			}
		}
	}()
	timer := time.AfterFunc(30*time.Second, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	_ = c.Wait()
	return <-done, c.ProcessState.ExitCode()
}

func TestATerminalGetsQuestionsTablesAndBars(t *testing.T) {
	w, cfg := newSandbox(t, 0)
	contact := w.org.Insert("Contact", map[string]any{"LastName": "List", "MobilePhone": "206-555-0161"})
	p := startServe(t, w, cfg)
	w.firstPass(t)
	p.stop(t) // the commands open the ledger themselves from here on
	list := filepath.Join(t.TempDir(), "list.csv")
	if err := os.WriteFile(list, []byte("phone\n2065550161\n2065550162\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := []string{"optouts", "import", list, "--why", "x", "-c", cfg, "--log-level", "error"}
	for _, answer := range []string{"1\n", "yes\n", "\n"} {
		if seen, code := atTerminal(t, nil, "Type 2 to go on: ", answer, ask...); code != exitFailed || !strings.Contains(seen, "nothing was changed") {
			t.Fatalf("answered %q: exit %d\n%s", answer, code, seen)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(list), "*.undo-*")); len(files) != 0 {
		t.Errorf("nothing was changed, and there is %v", files)
	}
	seen, code := atTerminal(t, nil, "Opt out 2 numbers? Type 2 to go on: ", "2\n", ask...)
	if code != exitOK || !strings.Contains(seen, "on 1 CRM record\r\n") || !strings.Contains(seen, "2 numbers opted out") || !strings.Contains(seen, "looked up") || !strings.Contains(seen, "recorded") {
		t.Errorf("exit %d\n%s", code, seen)
	}
	if !w.boxTicked("Contact", contact) {
		t.Error("no daemon runs, and the box is not ticked")
	}
	if seen, code := atTerminal(t, nil, "", "", "optouts", "list", "-c", cfg, "--log-level", "error"); code != exitOK || !strings.Contains(seen, "┌") || !strings.Contains(seen, "│ +12065550161 │") {
		t.Errorf("exit %d, no table:\n%s", code, seen)
	}
	if out, _, code := heed(t, "", "optouts", "list", "-c", cfg, "--log-level", "error"); code != exitOK || !strings.Contains(out, "NUMBER\tSTATE\t") || strings.Contains(out, "┌") {
		t.Errorf("in a pipe: %s", out)
	}
	if seen, code := atTerminal(t, nil, "", "", "optouts", "list", "-c", cfg, "--no-pii", "--log-level", "error"); code != exitOK || !strings.Contains(seen, "│ +1••••••0161 │") || strings.Contains(seen, "2065550161") {
		t.Errorf("exit %d, no masked table:\n%s", code, seen)
	}
	if seen, code := atTerminal(t, nil, "", "", "optouts", "export", "--format", "xlsx", "-c", cfg); code != exitUsage || !strings.Contains(seen, "--output") {
		t.Errorf("a workbook on a terminal: exit %d\n%s", code, seen)
	}
	for command, bar := range map[string]string{"reconcile": "reading the message log of twilio ...", "verify": "journal ...", "backup " + filepath.Join(t.TempDir(), "b.tar"): "copied ..."} {
		if seen, code := atTerminal(t, nil, "", "", append(strings.Fields(command), "-c", cfg, "--log-level", "error")...); code != exitOK || !strings.Contains(seen, bar+" ") {
			t.Errorf("%s: exit %d, no bar:\n%q", command, code, seen)
		}
	}
	// Colours go where they are not wanted, and stay where they are.
	check := []string{"check", "--offline", "-c", cfg, "--log-level", "error"}
	if seen, _ := atTerminal(t, nil, "", "", check...); !strings.Contains(seen, "\x1b[") {
		t.Errorf("no colour on a terminal:\n%q", seen)
	}
	for _, env := range []string{"NO_COLOR=1", "TERM=dumb"} {
		if seen, _ := atTerminal(t, []string{env}, "", "", check...); strings.Contains(seen, "\x1b[") || !strings.Contains(seen, "ok ") {
			t.Errorf("%s and colour:\n%q", env, seen)
		}
	}
}

// Whoever reads the first lines only does not make heed complain or go on for nobody.
func TestAPipeThatIsClosedEndsTheCommandQuietly(t *testing.T) {
	c := asHeed(t, "classify")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for {
			if _, err := io.WriteString(in, strings.Repeat("STOP\n", 1000)); err != nil {
				return
			}
		}
	}()
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	_ = c.Wait()
	<-fed
	if s, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() || s.Signal() != syscall.SIGPIPE || said.Len() > 0 {
		t.Errorf("it ended with %s and said %q", c.ProcessState, said.String())
	}
}
