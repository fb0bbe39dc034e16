package journal

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/heed-sms/heed/connector/ledger/chain"
)

// ErrNoLink is wrapped when a link of a record is asked for that has none: builds before the first release wrote
// records whose hash covers their payload itself, so that nothing can be proven about one without showing the others.
var ErrNoLink = errors.New("record of format version 1 has no link")

// Linked is a record's link in the chain, and what its digest was made of.
type Linked struct {
	chain.Link
	Nonce   chain.Nonce
	Payload []byte // valid until fn returns
}

// FirstLink returns the sequence of the first record that has a link; all behind it have one.
func (j *Journal) FirstLink() (uint64, error) {
	segs, head, err := j.view()
	if err != nil {
		return 0, err
	}
	for i := range segs {
		if segs[i].version != 1 {
			return segs[i].first, nil
		}
	}
	return head + 1, nil // only while it is opened for reading
}

// Links calls fn with the links of the given records, whose sequences must ascend. It reads, and checks, the segments
// that hold them, each up to the last one asked for. An error of seqs or fn ends it and is returned as it is.
func (j *Journal) Links(seqs iter.Seq2[uint64, error], fn func(Linked) error) error {
	segs, head, err := j.view()
	if err != nil {
		return err
	}
	var s *scanner
	last := uint64(0)
	for seq, err := range seqs {
		switch {
		case err != nil:
			return err
		case seq <= last || seq > head:
			return fmt.Errorf("journal: link of record %d: %w: the one before was %d, the last one is %d", seq, ErrNoRecord, last, head)
		}
		last = seq
		i, ok := find(segs, seq)
		if !ok {
			i--
		}
		switch {
		case segs[i].version == 1:
			return fmt.Errorf("journal: record %d: %w", seq, ErrNoLink)
		case s == nil || s.h.first != segs[i].first:
			s = scan(segs[i].r, segs[i].path, &segs[i].header, segs[i].size)
		}
		var rec Record
		for rec.Seq < seq {
			if rec, err = s.next(); errors.Is(err, io.EOF) {
				return s.damage(false, "the segment ends before the next one begins")
			} else if err != nil {
				return err
			}
		}
		if err := fn(Linked{s.link, s.nonce, rec.Payload}); err != nil {
			return err
		}
	}
	return nil
}
