package journal

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var (
	_ encoding.BinaryMarshaler   = Position{}
	_ encoding.BinaryAppender    = Position{}
	_ encoding.BinaryUnmarshaler = (*Position)(nil)
)

func TestRecordsSurviveReopeningAndRotation(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, small)
	all := fillJournal(t, j, 1, 3, 2, 5, 1, 1, 4)
	seq, hash := j.Head()
	if _, segments := j.Size(); segments < 3 {
		t.Fatalf("%d segments, want several", segments)
	}
	shut(t, j)

	j = open(t, dir, small)
	expect(t, j, 17)
	if s, h := j.Head(); s != seq || h != hash {
		t.Error("head differs after reopening")
	}
	for i, p := range all {
		r, err := j.ReadAt(p)
		if err != nil {
			t.Fatal(err)
		}
		if r.Seq != uint64(i+1) || r.Pos != p || !bytes.Equal(r.Payload, payload(r.Seq)) {
			t.Errorf("record at %v is %d %q", p, r.Seq, r.Payload)
		}
	}
	fillJournal(t, j, 2)
	expect(t, j, 19)
	size, segments := j.Size()
	rep, err := Verify(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, hash = j.Head()
	if want := (Report{Records: 19, First: 1, Last: 19, Head: hash, Bytes: size, Segments: segments}); rep.Last != want.Last ||
		rep.Records != want.Records || rep.First != want.First || rep.Head != want.Head || rep.Bytes != want.Bytes || rep.Segments != want.Segments || rep.Unfinished != 0 || rep.Torn != nil {
		t.Errorf("report %+v, want %+v", rep, want)
	}
}

func TestBatchFieldNamesTheFirstRecordOfItsAppend(t *testing.T) {
	j := open(t, t.TempDir(), small)
	fillJournal(t, j, 1, 3, 2)
	var got []uint64
	if err := j.Replay(0, func(r Record) error { got = append(got, r.Batch); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := "[1 2 2 2 5 5]"; fmt.Sprint(got) != want {
		t.Errorf("batches %v, want %s", got, want)
	}
}

func TestReplayBeginsAndStopsWhereTold(t *testing.T) {
	j := open(t, t.TempDir(), small)
	fillJournal(t, j, 2, 2, 2, 2, 2)
	for from := uint64(0); from <= 12; from++ {
		next := max(from, 1)
		err := j.Replay(from, func(r Record) error {
			if r.Seq != next {
				return fmt.Errorf("got record %d, want %d", r.Seq, next)
			}
			next++
			return nil
		})
		if err != nil || next != max(11, max(from, 1)) {
			t.Errorf("from %d: ended before %d: %v", from, next, err)
		}
	}
	stop, seen := errors.New("stop"), 0
	if err := j.Replay(3, func(Record) error { seen++; return stop }); err != stop || seen != 1 {
		t.Errorf("replay went on after an error: %d records, %v", seen, err)
	}
}

func TestLargestPayloadIsReadBackAndLargerOnesAreRefused(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{BallastBytes: -1})
	big := bytes.Repeat([]byte("abcdefgh"), MaxPayload/8)
	at := make([]Position, 2)
	if _, err := j.Append([][]byte{big, []byte("after")}, at); err != nil {
		t.Fatal(err)
	}
	if r, err := j.ReadAt(at[0]); err != nil || !bytes.Equal(r.Payload, big) {
		t.Errorf("largest payload does not come back: %v", err)
	}
	for name, batch := range map[string][][]byte{
		"no record":     {},
		"empty payload": {[]byte("fine"), {}},
		"too large":     {[]byte("fine"), append(big, 'x')},
	} {
		if _, err := j.Append(batch, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := j.Append([][]byte{{1}, {2}}, make([]Position, 1)); err == nil {
		t.Error("too little room for positions: accepted")
	}
	if seq, _ := j.Head(); seq != 2 {
		t.Errorf("a refused append stored something: head %d", seq)
	}
	shut(t, j)
	j = open(t, dir, Options{BallastBytes: -1})
	n := 0
	if err := j.Replay(1, func(r Record) error { n += len(r.Payload); return nil }); err != nil || n != MaxPayload+5 {
		t.Errorf("replay gave %d bytes: %v", n, err)
	}
}

func TestReadAtRefusesPositionsItNeverGave(t *testing.T) {
	j := open(t, t.TempDir(), small)
	all := fillJournal(t, j, 1, 2)
	end := all[2].Offset + payloadAt + int64(len(payload(3)))
	for _, p := range []Position{{}, {Segment: 2, Offset: headerLen}, {Segment: 1, Offset: 0}, {Segment: 1, Offset: -5}, {Segment: 1, Offset: end}} {
		if _, err := j.ReadAt(p); !errors.Is(err, ErrNoRecord) {
			t.Errorf("%v: %v", p, err)
		}
	}
	var c *CorruptError
	if _, err := j.ReadAt(Position{1, headerLen + 1}); !errors.As(err, &c) {
		t.Errorf("inside a record: %v", err)
	}
	if _, err := j.ReadAt(Position{1, end - 1}); !errors.As(err, &c) {
		t.Errorf("just before the end: %v", err)
	}
}

func TestPositionsSurviveTheirEncoding(t *testing.T) {
	for _, p := range []Position{{}, {1, 80}, {123456789, 64 << 20}, {maxPosition - 1, maxPosition - 1}} {
		b, err := p.MarshalBinary()
		if err != nil || len(b) > 16 {
			t.Fatalf("%v: %d bytes, %v", p, len(b), err)
		}
		var q Position
		if err := q.UnmarshalBinary(b); err != nil || q != p {
			t.Errorf("%v came back as %v: %v", p, q, err)
		}
		for _, bad := range [][]byte{nil, b[:len(b)-1], append(b, 0)} {
			if q.UnmarshalBinary(bad) == nil {
				t.Errorf("%x accepted", bad)
			}
		}
	}
	for _, p := range []Position{{maxPosition, 0}, {0, maxPosition}, {0, -1}} {
		if b, err := p.MarshalBinary(); err == nil {
			t.Errorf("%v encoded as %x", p, b)
		}
	}
}

func TestASecondOpenIsRefusedAndNamesTheProcess(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, small)
	_, err := Open(dir, small)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) || !strings.Contains(err.Error(), "another heed") {
		t.Errorf("second open: %v", err)
	}
	shut(t, j)
	shut(t, open(t, dir, small))
}

func TestReadOnlyLooksBesideAWriterAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, Options{ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no journal: %v", err)
	}
	j := open(t, dir, small)
	fillJournal(t, j, 3, 2)
	o := small
	o.ReadOnly = true
	r := open(t, dir, o)
	fillJournal(t, j, 1)
	expect(t, r, 5)
	if _, err := r.Append([][]byte{{1}}, nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("append: %v", err)
	}
}

func TestFilesAndDirectoryAreForTheOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "journal")
	j := open(t, dir, Options{SegmentBytes: 1, BallastBytes: 4096})
	fillJournal(t, j, 1, 1)
	fi, err := os.Stat(dir)
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v", fi.Mode(), err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 4 {
		t.Errorf("%d files, want two segments, lock and reserve", len(entries))
	}
	for _, e := range entries {
		if fi, err := e.Info(); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", e.Name(), fi.Mode(), err)
		}
	}
}

func TestAClosedJournalSaysSo(t *testing.T) {
	j := open(t, t.TempDir(), small)
	at := fillJournal(t, j, 1)
	shut(t, j)
	_, err1 := j.Append([][]byte{{1}}, nil)
	_, err2 := j.ReadAt(at[0])
	err3 := j.Replay(1, func(Record) error { return nil })
	for i, err := range []error{err1, err2, err3} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestSnapshotsAtEverySequenceAreWholeJournals(t *testing.T) {
	j := open(t, t.TempDir(), small)
	fillJournal(t, j, 2, 3, 1, 2, 2, 4)
	for upTo := uint64(0); upTo <= 14; upTo++ {
		dir := t.TempDir()
		err := j.Snapshot(upTo, func(name string, r io.Reader, size int64) error {
			f, err := os.Create(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			n, err := io.Copy(f, r)
			if n != size {
				t.Errorf("%s has %d bytes, announced %d", name, n, size)
			}
			return errors.Join(err, f.Close())
		})
		if err != nil {
			t.Fatal(err)
		}
		want := upTo
		if upTo == 0 {
			want = 14
		}
		if rep, err := Verify(dir, nil); err != nil || rep.Last != want || rep.Unfinished != 0 {
			t.Fatalf("up to %d: %+v, %v", upTo, rep, err)
		}
		c := open(t, dir, small)
		fillJournal(t, c, 2) // life goes on in the copy
		shut(t, c)
		c = open(t, dir, small)
		expect(t, c, want+2)
	}
	if err := j.Snapshot(15, nil); err == nil {
		t.Error("a snapshot up to a record that does not exist")
	}
}

// Run with -race: readers, snapshots and verification go on beside the appending goroutine.
func TestReadersRunBesideAppends(t *testing.T) {
	dir := t.TempDir()
	o := small
	o.SegmentBytes = 4000
	j := open(t, dir, o)
	handed := make(chan Position, 10_000)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for p := range handed {
				r, err := j.ReadAt(p)
				if err != nil || !bytes.Equal(r.Payload, payload(r.Seq)) {
					t.Errorf("%v: %v", p, err)
				}
			}
		})
	}
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			before, _ := j.Head()
			rep, err := Verify(dir, nil)
			if err != nil || rep.Last < before {
				t.Errorf("verify: last %d, was %d: %v", rep.Last, before, err)
			}
			n := uint64(0)
			if err := j.Replay(1, func(r Record) error { n = r.Seq; return nil }); err != nil || n < before {
				t.Errorf("replay to %d, was %d: %v", n, before, err)
			}
			err = j.Snapshot(before, func(_ string, r io.Reader, size int64) error {
				if n, err := io.Copy(io.Discard, r); n != size || err != nil {
					return fmt.Errorf("%d of %d: %w", n, size, err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 150 {
		for _, p := range fillJournal(t, j, 1+i%9) {
			handed <- p
		}
	}
	close(handed)
	close(stop)
	wg.Wait()
}

func TestVerifyReportsProgressToTheEnd(t *testing.T) {
	im := build(t, small, 3, 3, 3)
	total := int64(0)
	for _, b := range im {
		total += int64(len(b))
	}
	var last int64
	_, err := Verify(im.write(t, t.TempDir()), func(done, all int64) {
		if done < last || all != total {
			t.Errorf("progress %d of %d after %d, total %d", done, all, last, total)
		}
		last = done
	})
	if err != nil || last != total {
		t.Errorf("progress ended at %d of %d: %v", last, total, err)
	}
}
