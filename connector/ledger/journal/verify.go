package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/heed-sms/heed/connector/ledger/chain"
)

// Report is the result of Verify.
type Report struct {
	Records     uint64
	First, Last uint64 // sequences, 0 if there are no records
	Head        chain.Hash
	Bytes       int64 // that were checked
	Segments    int
	Unfinished  int64    // bytes behind the last record: a batch being written now, or cut off by a crash; never acknowledged
	Torn        []string // names of tails that earlier Opens cut off
}

// Anchor is a record's hash as somebody knows it from elsewhere, for example from an old report.
type Anchor struct {
	Seq  uint64 // from 1 on
	Hash chain.Hash
}

// AnchorError says that the journal is not the one that an anchor was taken from.
type AnchorError struct {
	Anchor
	Found chain.Hash // what record Seq has instead; zeros if there is no such record
	Last  uint64     // the journal's last record
}

func (e *AnchorError) Error() string {
	if e.Seq == 0 || e.Seq > e.Last {
		return fmt.Sprintf("the anchor names record %d and the journal ends with record %d: records that were there are missing, or the anchor is another journal's", e.Seq, e.Last)
	}
	return fmt.Sprintf("record %d has hash %x and the anchor says %x: something up to this record was changed after the anchor was taken, or the anchor is another journal's", e.Seq, e.Found, e.Hash)
}

// Verify reads every byte of the journal in dir: lengths, checksums, sequences, the hash chain, and that no segment
// is missing, extra or overlapping. It takes no lock and changes nothing, so it may run beside the daemon; it then
// checks what was there when it began. Damage is a *CorruptError, with the report up to there. If progress is not
// nil it is called now and then with the bytes done and in all.
//
// Verify cannot know about records that are missing cleanly at the end, or about a journal that was written anew with
// other contents. Anchors can: if a record's hash is not what one says, the error is an *AnchorError.
func Verify(dir string, progress func(done, total int64), anchors ...Anchor) (Report, error) {
	var rep Report
	l, err := list(dir)
	if err != nil {
		return rep, err
	}
	rep.Torn = l.torn
	if len(l.first) == 0 {
		return rep, &CorruptError{Segment: filepath.Join(dir, segmentName(1)), Seq: 1, Reason: "missing segment: the directory holds none"}
	}
	// Sizes are taken before anything is read. Behind the size of the last segment, and only there, batches may
	// appear that are later than one which is being written now.
	sizes, total := make([]int64, len(l.first)), int64(0)
	for i, first := range l.first {
		fi, err := os.Stat(filepath.Join(dir, segmentName(first)))
		if err != nil {
			return rep, fmt.Errorf("journal: %w", err)
		}
		sizes[i] = fi.Size()
		total += sizes[i]
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	known := map[uint64][]Anchor{}
	for _, a := range anchors {
		known[a.Seq] = append(known[a.Seq], a)
	}
	check := func(r Record) error {
		for _, a := range known[r.Seq] {
			if a.Hash != r.Hash {
				return &AnchorError{Anchor: a, Found: r.Hash, Last: r.Seq}
			}
		}
		return nil
	}
	var end state // of the segments so far
	for i, first := range l.first {
		done := rep.Bytes
		err := verifySegment(filepath.Join(dir, segmentName(first)), first, sizes[i], &end, i == len(l.first)-1, &rep,
			func(off int64) { progress(done+off, total) }, check)
		if err != nil {
			return rep, err
		}
	}
	for _, a := range anchors {
		if a.Seq == 0 || a.Seq > rep.Last {
			return rep, &AnchorError{Anchor: a, Last: rep.Last}
		}
	}
	return rep, nil
}

func verifySegment(path string, first uint64, size int64, end *state, last bool, rep *Report, progress func(int64), check func(Record) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	bad := func(format string, args ...any) error {
		return &CorruptError{Segment: path, Seq: end.seq + 1, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case first > end.seq+1:
		return bad("missing segment: records %d to %d are gone", end.seq+1, first-1)
	case first < end.seq+1:
		return bad("overlapping segment: it begins with record %d, the one before ended with %d", first, end.seq)
	}
	h, err := readHeader(f, path, first)
	if err != nil {
		return err
	}
	if h.hash() != end.hash || h.prevLast != end.last || h.version != 1 && !slices.Equal(h.hashes, end.tip.Hashes()) {
		return bad("hash chain is broken: the segment was not written after the one before")
	}
	s := scan(f, path, &h, size)
	s.last = end.last // an empty segment ends where the one before did
	s.tip = end.tip   // a header of version 1 does not have it
	rep.Segments++
	note := func() {
		*end = s.state
		rep.Head, rep.Last, rep.Records = s.hash, s.seq, s.seq
		rep.First = min(1, s.seq)
		rep.Bytes += s.off
	}
	for next := int64(0); ; {
		if s.off >= next {
			progress(s.off)
			next = s.off + 1<<20
		}
		var rec Record
		if rec, err = s.next(); err == nil {
			err = check(rec)
		}
		if err != nil {
			break
		}
	}
	note()
	progress(s.off)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if last {
		err = s.finish(f, err)
		rep.Unfinished = size - s.off
	}
	return err
}
