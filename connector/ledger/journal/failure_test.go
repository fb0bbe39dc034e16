package journal

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// faults decides about every call on the files of a journal that are written to. A nil function lets all pass.
type faults struct {
	write    func(b []byte) (keep int, err error) // keep bytes reach the file
	sync     func() error
	truncate func() error
	syncs    int
}

type faultyFile struct {
	file
	*faults
}

func (f faultyFile) WriteAt(b []byte, off int64) (int, error) {
	if f.write == nil {
		return f.file.WriteAt(b, off)
	}
	keep, failure := f.write(b)
	n, err := f.file.WriteAt(b[:keep], off)
	return n, errors.Join(err, failure)
}

func (f faultyFile) Sync() error {
	f.syncs++
	if f.sync != nil {
		if err := f.sync(); err != nil {
			return err
		}
	}
	return f.file.Sync()
}

func (f faultyFile) Truncate(size int64) error {
	if f.truncate != nil {
		if err := f.truncate(); err != nil {
			return err
		}
	}
	return f.file.Truncate(size)
}

func (f *faults) into(o Options) Options {
	o.wrap = func(inner file) file { return faultyFile{inner, f} }
	return o
}

func TestAFailedWriteOrSyncStopsTheJournalForGood(t *testing.T) {
	half := func(b []byte) (int, error) { return len(b) / 2, nil }
	for what, f := range map[string]faults{
		"write fails":              {write: func([]byte) (int, error) { return 0, unix.EIO }},
		"write fails half way":     {write: func(b []byte) (int, error) { return len(b) / 2, unix.EIO }},
		"write is short":           {write: half},
		"sync fails":               {sync: func() error { return unix.EIO }},
		"sync finds the disk full": {sync: func() error { return unix.ENOSPC }},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			var now faults
			j := open(t, dir, now.into(Options{BallastBytes: 4096}))
			fillJournal(t, j, 2, 1)
			now = f
			_, err := j.Append([][]byte{payload(4), payload(5)}, nil)
			if !errors.Is(err, ErrFailed) || errors.Is(err, ErrFull) {
				t.Fatalf("append: %v", err)
			}
			if seq, _ := j.Head(); seq != 3 {
				t.Errorf("head moved to %d", seq)
			}
			now = faults{}
			if _, again := j.Append([][]byte{payload(4)}, nil); !errors.Is(again, ErrFailed) || again.Error() != err.Error() {
				t.Errorf("second append: %v, want the first cause", again)
			}
			if now.syncs != 0 {
				t.Error("the sync was tried again")
			}
			expect(t, j, 3) // reading goes on
			shut(t, j)
			j = open(t, dir, Options{BallastBytes: 4096, Acked: 3})
			seq, _ := j.Head()
			expect(t, j, seq)
		})
	}
}

func TestAFailedSyncOfANewSegmentStopsTheJournal(t *testing.T) {
	var now faults
	dir := t.TempDir()
	j := open(t, dir, now.into(small))
	fillJournal(t, j, 5)
	now.sync = func() error { return unix.EIO }
	if _, err := j.Append([][]byte{payload(6)}, nil); !errors.Is(err, ErrFailed) {
		t.Fatalf("append: %v", err)
	}
	now.sync = nil
	shut(t, j)
	expect(t, open(t, dir, small), 5)
}

func TestNoRoomForANewSegmentLetsTheOldOneGoOn(t *testing.T) {
	var now faults
	dir := t.TempDir()
	j := open(t, dir, now.into(small))
	fillJournal(t, j, 5)
	now.write = func(b []byte) (int, error) {
		if string(b[:len(magic)]) == magic {
			return 10, unix.ENOSPC
		}
		return len(b), nil
	}
	fillJournal(t, j, 5, 1)
	if _, n := j.Size(); n != 1 {
		t.Errorf("%d segments", n)
	}
	now.write = nil
	fillJournal(t, j, 1)
	if _, n := j.Size(); n != 2 {
		t.Errorf("%d segments after there was room again", n)
	}
	expect(t, j, 12)
	if rep, err := Verify(dir, nil); err != nil || rep.Last != 12 {
		t.Errorf("%+v %v", rep, err)
	}
}

func TestAFullDiskSpendsTheReserveAndThenRefusesWithoutFailing(t *testing.T) {
	dir := t.TempDir()
	var now faults
	j := open(t, dir, now.into(Options{BallastBytes: 4096}))
	fillJournal(t, j, 2)
	reserve := filepath.Join(dir, ballast)
	// The disk has room exactly when the reserve is gone.
	now.write = func(b []byte) (int, error) {
		if _, err := os.Stat(reserve); err == nil {
			return len(b) / 3, unix.ENOSPC
		}
		return len(b), nil
	}
	if j.BallastSpent() {
		t.Fatal("spent too early")
	}
	fillJournal(t, j, 2)
	if !j.BallastSpent() {
		t.Error("nobody is told that the reserve is spent")
	}
	// Now not even that helps.
	now.write = func(b []byte) (int, error) { return len(b) / 3, unix.ENOSPC }
	_, err := j.Append([][]byte{payload(5)}, nil)
	if !errors.Is(err, ErrFull) || !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrFailed) {
		t.Fatalf("append: %v", err)
	}
	if rep, err := Verify(dir, nil); err != nil || rep.Last != 4 || rep.Unfinished != 0 {
		t.Errorf("something of the refused batch is left: %+v %v", rep, err)
	}
	now.write = nil // space was freed
	fillJournal(t, j, 1)
	expect(t, j, 5)
	shut(t, j)
	j = open(t, dir, Options{BallastBytes: 4096})
	if _, err := os.Stat(reserve); err != nil || j.BallastSpent() {
		t.Errorf("the reserve was not made again: %v", err)
	}
	expect(t, j, 5)
}

func TestAPartialBatchThatCannotBeTakenBackStopsTheJournal(t *testing.T) {
	for what, f := range map[string]faults{
		"truncate fails": {truncate: func() error { return unix.EIO }},
		"sync fails":     {sync: func() error { return unix.EIO }},
	} {
		var now faults
		dir := t.TempDir()
		j := open(t, dir, now.into(Options{BallastBytes: 4096}))
		fillJournal(t, j, 2)
		now = f
		now.write = func(b []byte) (int, error) { return len(b) / 2, unix.ENOSPC }
		if _, err := j.Append([][]byte{payload(3)}, nil); !errors.Is(err, ErrFailed) || errors.Is(err, ErrFull) {
			t.Errorf("%s: %v", what, err)
		}
		shut(t, j)
		expect(t, open(t, dir, Options{BallastBytes: 4096}), 2)
	}
}

func TestOpenWritesTheLastBatchAgainBeforeItIsTrusted(t *testing.T) {
	im := build(t, Options{BallastBytes: -1}, 2, 1, 3)
	name := im.last()
	from, _ := lastBatch(t, im)
	dir := im.write(t, t.TempDir())
	var now faults
	var written []byte
	now.write = func(b []byte) (int, error) { written = append(written, b...); return len(b), nil }
	j := open(t, dir, now.into(Options{BallastBytes: -1}))
	if !slices.Equal(written, im[name][from:]) || now.syncs == 0 {
		t.Errorf("wrote %d bytes and synced %d times, want the %d bytes of the last batch", len(written), now.syncs, len(im[name])-int(from))
	}
	expect(t, j, 6)
	shut(t, j)
	now.sync = func() error { return unix.EIO }
	if _, err := Open(dir, now.into(Options{BallastBytes: -1})); !errors.Is(err, unix.EIO) {
		t.Errorf("opened although the last batch may not be on disk: %v", err)
	}
}
