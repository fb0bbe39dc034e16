package local_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/journal"
	"github.com/heed-sms/heed/connector/ledger/local"
)

// TestOnAFullDiskNothingIsAcknowledgedThatIsNotKept fills a small file system to the end, and frees space again.
func TestOnAFullDiskNothingIsAcknowledgedThatIsNotKept(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a small file system needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	o := local.Options{}
	o.Journal.BallastBytes = 256 << 10
	dir := filepath.Join(disk, "data")
	l := mustOpen(t, dir, o)
	junk := filepath.Join(disk, "junk")
	acked := 0
	var err error
	for i := range 100_000 {
		e := stop(i)
		e.Inbound.Raw = strings.Repeat("x", 400)
		if i == 1000 { // somebody else takes the rest of the disk
			fill(t, junk)
		}
		if _, err = l.Append(t.Context(), e); err != nil {
			break
		}
		acked++
	}
	t.Logf("%d acknowledged: %v", acked, err)
	if !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, journal.ErrFull) || acked < 1020 {
		t.Fatalf("%d acknowledged, then %v: the journal's reserve was not used up", acked, err)
	}
	if err := l.Health(); err != nil { // full is not broken: the gate still decides
		t.Fatal(err)
	}
	for i := range acked {
		if d := l.Decide(number(i)); d.Verdict != consent.Block {
			t.Fatalf("number %d: %v", i, d)
		}
	}
	if err := os.Remove(junk); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, stop(200_000)) // goes on without a restart
	mustClose(t, l)
	l = mustOpen(t, dir, o)
	defer l.Close()
	n := 0
	for e, err := range l.Events(context.Background(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; l.Decide(e.Number).Verdict != consent.Block {
			t.Fatal(fmt.Sprint("event ", e.Seq))
		}
	}
	if n != acked+1 {
		t.Fatalf("%d acknowledged, %d events", acked+1, n)
	}
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
