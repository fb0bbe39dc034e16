package journal

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

const childEnv = "HEED_JOURNAL_TEST_CHILD"

// appendUntilKilled is the child: it appends and prints each sequence when it is acknowledged.
func appendUntilKilled(dir string) {
	j, err := Open(dir, Options{SegmentBytes: 64 << 10, BallastBytes: -1})
	for err == nil {
		seq, _ := j.Head()
		batch := make([][]byte, 1+seq%29)
		for i := range batch {
			batch[i] = payload(seq + 1 + uint64(i))
		}
		var first uint64
		if first, err = j.Append(batch, nil); err == nil {
			_, err = fmt.Println(first + uint64(len(batch)) - 1)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestNoAcknowledgedRecordIsMissingAfterKill(t *testing.T) {
	dir := t.TempDir()
	acked := uint64(0)
	for round := range 20 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childEnv+"="+dir)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			// Lines printed between the decision and the death of the child count as well; the last may be cut off.
			if seq, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
				acked = max(acked, seq)
			}
			if n == 10+round*3 {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // killed
		rep, err := Verify(dir, nil)
		if err != nil || rep.Last < acked {
			t.Fatalf("round %d: acknowledged %d: %+v %v", round, acked, rep, err)
		}
	}
	j := open(t, dir, Options{BallastBytes: -1, Acked: acked})
	head, _ := j.Head()
	expect(t, j, head)
	if _, segments := j.Size(); segments < 2 {
		t.Errorf("%d segments: the test does not cover rotation", segments)
	}
}
