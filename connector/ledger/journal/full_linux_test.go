package journal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tmpfs mounts a small file system.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("a small file system cannot be mounted here (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestOnASmallFileSystemAppendsGoOnIntoTheReserveAndAfterSpaceIsFreed(t *testing.T) {
	fs := tmpfs(t, "size=1m")
	if err := os.WriteFile(filepath.Join(fs, "other"), make([]byte, 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(fs, "journal")
	j := open(t, dir, Options{BallastBytes: 256 << 10, SegmentBytes: 100 << 10})
	big := []byte(strings.Repeat("x", 9_000))
	n, inReserve := uint64(0), 0
	appendOne := func() error {
		_, err := j.Append([][]byte{big}, nil)
		if err == nil {
			n++
		}
		return err
	}
	var err error
	for err == nil && n < 1000 {
		if err = appendOne(); err == nil && j.BallastSpent() {
			inReserve++
		}
	}
	if !errors.Is(err, ErrFull) || inReserve < 20 {
		t.Fatalf("after %d records, %d of them in the reserve: %v", n, inReserve, err)
	}
	if err := appendOne(); !errors.Is(err, ErrFull) {
		t.Errorf("still full: %v", err)
	}
	if rep, err := Verify(dir, nil); err != nil || rep.Last != n || rep.Unfinished != 0 {
		t.Errorf("want %d records: %+v %v", n, rep, err)
	}
	shut(t, j)
	j = open(t, dir, Options{BallastBytes: 256 << 10, SegmentBytes: 100 << 10, Acked: n}) // a full disk does not keep heed from starting
	if !j.BallastSpent() {
		t.Error("no room for the reserve, and nobody is told")
	}
	if err := os.Remove(filepath.Join(fs, "other")); err != nil {
		t.Fatal(err)
	}
	if err := appendOne(); err != nil {
		t.Errorf("space was freed: %v", err)
	}
	if rep, err := Verify(dir, nil); err != nil || rep.Last != n {
		t.Errorf("want %d records: %+v %v", n, rep, err)
	}
	shut(t, j)
}

func TestWithoutInodesTheOldSegmentGoesOn(t *testing.T) {
	dir := tmpfs(t, "size=1m,nr_inodes=4") // the root, lock, reserve and one segment
	j := open(t, dir, Options{BallastBytes: 4096, SegmentBytes: 300})
	fillJournal(t, j, 5, 5, 5)
	expect(t, j, 15)
	if _, n := j.Size(); n != 1 {
		t.Errorf("%d segments", n)
	}
	shut(t, j)
}
