package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The encoding is described byte for byte in doc.go; a change here needs a new version and a change there.
const (
	magic      = "HEEDJRNL"
	version    = 1
	headerLen  = 80
	prefixLen  = 56 // the fixed part of a record, before its payload
	suffix     = ".journal"
	tornMark   = ".torn-"
	lockName   = "LOCK"
	ballast    = "ballast"
	tmpSuffix  = ".tmp"
	nameDigits = 20

	// MaxPayload is the largest payload in bytes. A length above it is damage, so damage cannot ask for gigabytes.
	MaxPayload = 16 << 20
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// header is the start of a segment.
type header struct {
	first    uint64            // sequence of the first record
	prevLast int64             // offset of the last record in the segment before; 0 in the first segment
	hash     [sha256.Size]byte // SHA-256 of that record; zero in the first segment
	salt     [16]byte          // random, goes into every checksum of the segment
}

func (h *header) encode() []byte {
	b := make([]byte, headerLen)
	copy(b, magic)
	le.PutUint32(b[8:], version)
	le.PutUint64(b[16:], h.first)
	le.PutUint64(b[24:], uint64(h.prevLast))
	copy(b[32:], h.hash[:])
	copy(b[64:], h.salt[:])
	le.PutUint32(b[12:], crc32.Checksum(b[16:], castagnoli))
	return b
}

// seed is the CRC-32C of the salt. Records continue from it, so that bytes which merely look like a record (a
// payload that quotes one) do not pass for one when the tail is searched.
func (h *header) seed() uint32 { return crc32.Checksum(h.salt[:], castagnoli) }

// readHeader reads the header of the segment at path and checks it against the file's name.
func readHeader(r io.ReaderAt, path string, first uint64) (header, error) {
	var h header
	b := make([]byte, headerLen)
	bad := func(reason string) (header, error) {
		return h, &CorruptError{Segment: path, Seq: first, Reason: "segment header: " + reason}
	}
	if _, err := r.ReadAt(b, 0); errors.Is(err, io.EOF) {
		return bad("file is shorter than a header")
	} else if err != nil {
		return h, fmt.Errorf("journal: read header of %s: %w", path, err)
	}
	if string(b[:8]) != magic {
		return bad("not a heed journal (wrong magic)")
	}
	if v := le.Uint32(b[8:]); v != version {
		return h, fmt.Errorf("journal: %s: %w: version %d, this program reads version %d; use the heed that wrote it, or a newer one", path, ErrVersion, v, version)
	}
	if crc32.Checksum(b[16:], castagnoli) != le.Uint32(b[12:]) {
		return bad("checksum does not match")
	}
	h.first = le.Uint64(b[16:])
	h.prevLast = int64(le.Uint64(b[24:]))
	copy(h.hash[:], b[32:])
	copy(h.salt[:], b[64:])
	if h.first != first {
		return bad(fmt.Sprintf("first sequence is %d, the file name says %d", h.first, first))
	}
	return h, nil
}

func appendRecord(b []byte, seed uint32, seq, batch uint64, prev *[sha256.Size]byte, payload []byte) []byte {
	start := len(b)
	b = le.AppendUint32(b, uint32(len(payload)))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, seq)
	b = le.AppendUint64(b, batch)
	b = append(b, prev[:]...)
	b = append(b, payload...)
	le.PutUint32(b[start+4:], crc32.Update(seed, castagnoli, b[start+8:]))
	return b
}

// payloadLen returns the length a record claims, and whether a record may have it.
func payloadLen(b []byte) (int, bool) {
	n := le.Uint32(b)
	return int(n), n > 0 && n <= MaxPayload
}

// intact reports whether the whole record in b has the right checksum.
func intact(b []byte, seed uint32) bool {
	return crc32.Update(seed, castagnoli, b[8:]) == le.Uint32(b[4:])
}

func recordSeq(b []byte) uint64   { return le.Uint64(b[8:]) }
func recordBatch(b []byte) uint64 { return le.Uint64(b[16:]) }

// chain is where a journal stands after its last record, all that the next record must fit.
type chain struct {
	seq   uint64 // of the last record, 0 before the first
	batch uint64
	hash  [sha256.Size]byte
	last  int64 // offset of the last record in its segment
}

// follow checks that the intact record b continues the chain.
func (c *chain) follow(b []byte) (reason string) {
	switch seq, batch := recordSeq(b), recordBatch(b); {
	case seq != c.seq+1:
		return fmt.Sprintf("sequence is %d, expected %d", seq, c.seq+1)
	case batch != seq && batch != c.batch:
		return fmt.Sprintf("batch is %d, expected %d or %d", batch, c.batch, seq)
	case [sha256.Size]byte(b[24:prefixLen]) != c.hash:
		return "hash chain is broken: the record before is not the one this record was written after"
	}
	return ""
}

func (c *chain) advance(b []byte, off int64) {
	c.seq, c.batch, c.hash, c.last = recordSeq(b), recordBatch(b), sha256.Sum256(b), off
}

// segmentName returns the file name of the segment whose first record is first.
func segmentName(first uint64) string { return fmt.Sprintf("%0*d%s", nameDigits, first, suffix) }

// listing is what a journal directory holds.
type listing struct {
	first []uint64 // first sequence of each segment, ascending
	torn  []string // names of tails cut off earlier
	tmp   []string // names of segments that were being created when the program ended
}

func list(dir string) (listing, error) {
	var l listing
	entries, err := os.ReadDir(dir)
	if err != nil {
		return l, fmt.Errorf("journal: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.Contains(name, suffix+tornMark):
			l.torn = append(l.torn, name)
		case strings.HasSuffix(name, suffix+tmpSuffix):
			l.tmp = append(l.tmp, name)
		case strings.HasSuffix(name, suffix):
			n, err := strconv.ParseUint(strings.TrimSuffix(name, suffix), 10, 64)
			if err != nil || segmentName(n) != name {
				return l, &CorruptError{Segment: filepath.Join(dir, name), Reason: "extra file: the name is not a sequence of 20 digits"}
			}
			l.first = append(l.first, n)
		}
	}
	slices.Sort(l.first)
	if len(l.first) > 0 && l.first[0] != 1 {
		return l, &CorruptError{Segment: filepath.Join(dir, segmentName(1)), Seq: 1,
			Reason: fmt.Sprintf("missing segment: records 1 to %d are gone", l.first[0]-1)}
	}
	return l, nil
}
