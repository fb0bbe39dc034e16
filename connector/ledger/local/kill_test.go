package local_test

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
)

// childDir in the environment makes the test binary a writer that never ends by itself: see TestMain.
const childDir = "HEED_TEST_LEDGER_DIR"

// child opens the ledger and lets several goroutines record opt-outs and messages, for ever. What was acknowledged goes to stdout,
// a line each, in one write.
func child(dir string) {
	o := quick()
	o.Journal.SegmentBytes = 64 << 10
	l, err := local.Open(dir, o)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	st, err := l.Stats(context.Background())
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	next := int(st.Head) // the last few before the kill may come again: then they are repeats
	allow := consent.Decision{Verdict: consent.Allow, Reason: consent.OK}
	for range 8 {
		go func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				var err error
				var line string
				if i%4 == 3 {
					id := fmt.Sprintf("m%d", i)
					_, _, err = l.Open(context.Background(), ledger.Message{ID: id, Key: "key/" + id, Fingerprint: "f", To: number(i), Body: "hello", Account: "twilio", CreatedAt: day}, allow)
					line = fmt.Sprintf("message %d\n", i)
				} else {
					_, err = l.Append(context.Background(), stop(i))
					line = fmt.Sprintf("stop %d\n", i)
				}
				if err != nil {
					line = fmt.Sprintln("error", err)
				}
				_, _ = os.Stdout.WriteString(line)
			}
		}()
	}
	select {}
}

func TestKilledAtAnyMomentNothingAcknowledgedIsLostOrDoubled(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	kills := 25
	if testing.Short() {
		kills = 5
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	acked := map[string]int{}
	for round := range kills {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until := 1 + random.IntN(120)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); {
			kind, id, ok := strings.Cut(lines.Text(), " ")
			if !ok || kind == "error" {
				t.Errorf("round %d: child: %s", round, lines.Text())
				break
			}
			acked[kind+" "+id]++
			if n++; n == until {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			} // what it wrote before it died is read to the end: it was acknowledged
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			return
		}
		l := mustOpen(t, dir, quick())
		there := map[string]int{}
		for e, err := range l.Events(t.Context(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case e.Inbound != nil:
				there["stop "+strings.TrimLeft(e.Number.String()[5:], "0")]++
				if l.Decide(e.Number).Verdict != consent.Block {
					t.Fatalf("round %d: event %d: the number may be texted", round, e.Seq)
				}
			case e.Opened != nil:
				there["message "+e.Opened.ID[1:]]++
			}
		}
		for id := range acked {
			key := id
			if id == "stop 0" {
				key = "stop "
			}
			if there[key] != 1 {
				t.Fatalf("round %d: %q was acknowledged and is there %d times", round, id, there[key])
			}
		}
		for id, n := range there {
			if n != 1 {
				t.Fatalf("round %d: %q is there %d times", round, id, n)
			}
		}
		st, err := l.Stats(t.Context())
		if err != nil || st.Degraded != "" || int(st.OptOuts) != st.Numbers["opted_out"] || int(st.OptOuts) != st.Owed[ledger.OweBoxes] {
			t.Fatalf("round %d: %+v, %v", round, st, err)
		}
		mustClose(t, l)
	}
	rep, err := local.Verify(t.Context(), dir, nil)
	if err != nil || !rep.Sound() || rep.IndexBehind != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	t.Logf("%d acknowledged, %d records, %d torn tails", len(acked), rep.Journal.Records, len(rep.Journal.Torn))
}

func copyTree(t testing.TB, from, to, name string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name))); err != nil {
		t.Fatal(err)
	}
}

func untar(t testing.TB, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
