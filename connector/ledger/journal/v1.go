package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/heed-sms/heed/connector/ledger/chain"
)

// Version 1 is read, and never written: builds before the first release wrote it. A journal that ends in it is read once
// as a whole when it is opened for appending, because the tip of the chain has to be computed, and goes on in a segment
// of version 2. Its records stand in the chain with the hashes that they have, but nothing can be proven about one of
// them without showing all that follow.
//
// The header is that of version 2 up to byte 31, then:
//
//	32  32  SHA-256 of the last record in the segment before, all its bytes; zeros in the first segment
//	64  16  salt
//
// A record's bytes 24 to 55 are the SHA-256 of the record before, all its bytes.

const headerLenV1 = 80

func readHeaderV1(r io.ReaderAt, path string, first uint64, bad func(string) (header, error)) (header, error) {
	h := header{version: 1}
	b := make([]byte, headerLenV1)
	if _, err := r.ReadAt(b, 0); errors.Is(err, io.EOF) {
		return bad("file is shorter than a header")
	} else if err != nil {
		return h, fmt.Errorf("journal: read header of %s: %w", path, err)
	}
	if crc32.Checksum(b[16:], castagnoli) != le.Uint32(b[12:]) {
		return bad("checksum does not match")
	}
	h.first, h.prevLast = le.Uint64(b[16:]), int64(le.Uint64(b[24:]))
	h.hashes = []chain.Hash{chain.Hash(b[32:64])}
	copy(h.salt[:], b[64:])
	if h.first != first {
		return bad(fmt.Sprintf("first sequence is %d, the file name says %d", h.first, first))
	}
	return h, nil
}

// upgrade lets a journal whose last segment is of version 1 go on in a segment of version 2.
func (j *Journal) upgrade() error {
	var tip chain.Tip
	if err := j.Replay(1, func(r Record) error { tip.Add(r.Hash); return nil }); err != nil {
		return err
	}
	j.tail.tip = tip
	old, oldFile := j.segs[len(j.segs)-1], j.f
	h := header{version: version, first: j.tail.seq + 1, prevLast: j.tail.last, hashes: tip.Hashes()}
	empty := h.first == old.first // then the new segment takes its place
	if empty {
		h.prevLast = old.prevLast
		j.segs = j.segs[:len(j.segs)-1]
	}
	if err := j.addSegment(h); err != nil {
		if empty {
			j.segs = append(j.segs, old) // Close closes it
		}
		return err
	}
	if empty {
		if err := old.r.Close(); err != nil {
			return err
		}
	}
	return oldFile.Close()
}
