package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/heed-sms/heed/connector/ledger/chain"
)

const window = 256 << 10 // bytes read at once

// scanner reads the records of one segment in order and checks every byte of them.
type scanner struct {
	state
	h     *header
	link  chain.Link // of the record that next returned, and the nonce in it; none in version 1
	nonce chain.Nonce
	path  string
	seed  uint32
	off   int64 // of the next record
	limit int64 // nothing is read from here on
	r     *bufio.Reader
	big   []byte // for records larger than the window, reused
}

// scan returns a scanner at the first record of a segment.
func scan(r io.ReaderAt, path string, h *header, limit int64) *scanner {
	return &scanner{
		state: h.start(), h: h,
		path: path, seed: h.seed(), off: h.size(), limit: limit,
		r: bufio.NewReaderSize(io.NewSectionReader(r, h.size(), limit-h.size()), window),
	}
}

// next returns the next record and moves behind it; the payload is valid until the next call. It returns io.EOF at
// the limit. Damage is a *CorruptError and does not move the scanner; any other error is a failed read, which says
// nothing about the record.
func (s *scanner) next() (Record, error) {
	if s.off >= s.limit {
		return Record{}, io.EOF
	}
	b, err := s.read()
	if err != nil {
		return Record{}, err
	}
	if !intact(b, s.seed) {
		return Record{}, s.damage(true, "checksum does not match")
	}
	link, reason := s.follow(s.h, b)
	if reason != "" {
		return Record{}, s.damage(false, reason)
	}
	rec := Record{Seq: recordSeq(b), Batch: recordBatch(b), Pos: Position{s.h.first, s.off}, Hash: s.h.recordHash(b), Payload: s.h.payload(b)}
	s.advance(rec.Seq, rec.Batch, rec.Hash, s.off)
	if s.link = link; link.Seq > 0 {
		s.nonce = chain.Nonce(b[prefixLen:])
	}
	s.off += int64(len(b))
	return rec, nil
}

// read returns the bytes of the record at s.off and consumes them.
func (s *scanner) read() ([]byte, error) {
	left := s.limit - s.off
	if left < prefixLen {
		return nil, s.damage(true, fmt.Sprintf("only %d bytes are left, fewer than the start of a record", left))
	}
	head, err := s.r.Peek(prefixLen)
	if err != nil {
		return nil, s.readError(err)
	}
	n, ok := bodyLen(head)
	if !ok {
		return nil, s.damage(true, fmt.Sprintf("length %d is impossible", uint32(n)))
	}
	if n += prefixLen; int64(n) > left {
		return nil, s.damage(true, fmt.Sprintf("record of %d bytes is cut off after %d", n, left))
	}
	if n <= window {
		b, err := s.r.Peek(n)
		if err != nil {
			return nil, s.readError(err)
		}
		_, _ = s.r.Discard(n) // cannot fail: n bytes are buffered
		return b, nil
	}
	if cap(s.big) < n {
		s.big = make([]byte, n)
	}
	if _, err := io.ReadFull(s.r, s.big[:n]); err != nil {
		return nil, s.readError(err)
	}
	return s.big[:n], nil
}

func (s *scanner) readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.damage(true, "the file became shorter while it was read")
	}
	return fmt.Errorf("journal: read %s at byte %d: %w", s.path, s.off, err)
}

func (s *scanner) damage(unreadable bool, reason string) error {
	return &CorruptError{Segment: s.path, Offset: s.off, Seq: s.seq + 1, Reason: reason, unreadable: unreadable}
}

// finish decides about damage in the last segment. It returns nil if everything from s.off on is a batch that was
// never acknowledged, and the damage otherwise.
//
// A batch is written only after the one before it is on disk. So if a record of a batch that began after the
// damaged record is readable anywhere behind it, the damaged record had been acknowledged. The damaged record is
// number s.seq+1, and whichever batch it belonged to began no later than that.
func (s *scanner) finish(r io.ReaderAt, damage error) error {
	var c *CorruptError
	if !errors.As(damage, &c) || !c.unreadable {
		return damage
	}
	const need = 24 // up to and including the batch
	buf := make([]byte, window)
	want := s.seq + 1
	for at := s.off + 1; at+prefixLen < s.limit; {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), s.limit-at)], at)
		if n < need {
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("journal: read %s at byte %d: %w", s.path, at, err)
			}
			break
		}
		for i := 0; i+need <= n; i++ {
			b, off := buf[i:], at+int64(i)
			size, ok := bodyLen(b)
			if !ok || off+prefixLen+int64(size) > s.limit {
				continue
			}
			seq, batch := recordSeq(b), recordBatch(b)
			if batch <= want || batch > seq || seq-want > uint64(off-s.off)/(prefixLen+1) {
				continue
			}
			rec := make([]byte, prefixLen+size)
			if _, err := r.ReadAt(rec, off); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("journal: read %s at byte %d: %w", s.path, off, err)
			}
			if intact(rec, s.seed) {
				c.Reason += fmt.Sprintf("; it had been acknowledged, because record %d of the later batch %d is readable at byte %d", seq, batch, off)
				c.unreadable = false
				return c
			}
		}
		at += int64(n - need + 1)
	}
	return nil
}

// recordAt reads one record and checks its checksum. The returned slice is the caller's.
func (h *header) recordAt(r io.ReaderAt, path string, off, limit int64) ([]byte, error) {
	bad := func(reason string) error { return &CorruptError{Segment: path, Offset: off, Reason: reason} }
	if off < h.size() || limit-off < prefixLen {
		return nil, bad("no record can begin here")
	}
	failed := func(err error) error {
		if errors.Is(err, io.EOF) {
			return bad("the file is shorter than it was")
		}
		return fmt.Errorf("journal: read %s at byte %d: %w", path, off, err)
	}
	b := make([]byte, min(1024, limit-off)) // most records in one read
	if _, err := r.ReadAt(b, off); err != nil {
		return nil, failed(err)
	}
	n, ok := bodyLen(b)
	if !ok || int64(n) > limit-off-prefixLen {
		return nil, bad("no record begins here, or its length is damaged")
	}
	if n += prefixLen; n > len(b) {
		have := len(b)
		b = append(make([]byte, 0, n), b...)[:n]
		if _, err := r.ReadAt(b[have:], off+int64(have)); err != nil {
			return nil, failed(err)
		}
	}
	b = b[:n:n]
	if !intact(b, h.seed()) {
		return nil, bad("checksum does not match")
	}
	return b, nil
}
