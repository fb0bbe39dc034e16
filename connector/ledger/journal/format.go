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

	"github.com/heed-sms/heed/connector/ledger/chain"
)

// The encoding is described byte for byte in doc.go; a change here needs a new version and a change there.
const (
	magic      = "HEEDJRNL"
	version    = 2
	headerLen  = 48                   // the fixed part of a header, before the hashes
	prefixLen  = 56                   // the fixed part of a record, before its body
	nonceLen   = 16                   // the body is a nonce …
	payloadAt  = prefixLen + nonceLen // … and the payload
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
	version  uint32
	first    uint64       // sequence of the first record
	prevLast int64        // offset of the last record in the segment before; 0 in the first segment
	salt     [16]byte     // random, goes into every checksum of the segment
	hashes   []chain.Hash // the tip of the chain before the first record; in version 1 only its last hash
}

// size returns the length of the header in the file.
func (h *header) size() int64 {
	if h.version == 1 {
		return headerLenV1
	}
	return headerLen + int64(len(h.hashes))*sha256.Size
}

// hash returns the hash of the last record in the segment before; zeros in the first segment.
func (h *header) hash() chain.Hash {
	if len(h.hashes) == 0 {
		return chain.Hash{}
	}
	return h.hashes[len(h.hashes)-1]
}

func (h *header) encode() []byte {
	b := make([]byte, headerLen, h.size())
	copy(b, magic)
	le.PutUint32(b[8:], version)
	le.PutUint64(b[16:], h.first)
	le.PutUint64(b[24:], uint64(h.prevLast))
	copy(b[32:], h.salt[:])
	for i := range h.hashes {
		b = append(b, h.hashes[i][:]...)
	}
	le.PutUint32(b[12:], crc32.Checksum(b[16:], castagnoli))
	return b
}

// seed is the CRC-32C of the salt. Records continue from it, so that bytes which merely look like a record (a
// payload that quotes one) do not pass for one when the tail is searched.
func (h *header) seed() uint32 { return crc32.Checksum(h.salt[:], castagnoli) }

// start returns where the journal stood before the segment.
func (h *header) start() state {
	s := state{seq: h.first - 1, hash: h.hash()}
	if h.version != 1 {
		s.tip = chain.NewTip(s.seq, h.hashes)
	}
	return s
}

// readHeader reads the header of the segment at path and checks it against the file's name.
func readHeader(r io.ReaderAt, path string, first uint64) (header, error) {
	h := header{version: version}
	b := make([]byte, headerLen+chain.TipSize(first-1)*sha256.Size)
	bad := func(reason string) (header, error) {
		return h, &CorruptError{Segment: path, Seq: first, Reason: "segment header: " + reason}
	}
	n, err := r.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return h, fmt.Errorf("journal: read header of %s: %w", path, err)
	}
	if n < headerLen {
		return bad("file is shorter than a header")
	}
	if string(b[:8]) != magic {
		return bad("not a heed journal (wrong magic)")
	}
	switch v := le.Uint32(b[8:]); {
	case v == 1:
		return readHeaderV1(r, path, first, bad)
	case v != version:
		return h, fmt.Errorf("journal: %s: %w: version %d, this program reads versions 1 and %d; use the heed that wrote it, or a newer one", path, ErrVersion, v, version)
	case n < len(b):
		return bad("file is shorter than a header")
	}
	if crc32.Checksum(b[16:], castagnoli) != le.Uint32(b[12:]) {
		return bad("checksum does not match")
	}
	h.first = le.Uint64(b[16:])
	h.prevLast = int64(le.Uint64(b[24:]))
	copy(h.salt[:], b[32:])
	for b := range slices.Chunk(b[headerLen:], sha256.Size) {
		h.hashes = append(h.hashes, chain.Hash(b))
	}
	if h.first != first {
		return bad(fmt.Sprintf("first sequence is %d, the file name says %d", h.first, first))
	}
	return h, nil
}

func appendRecord(b []byte, seed uint32, seq, batch uint64, hash *chain.Hash, nonce *chain.Nonce, payload []byte) []byte {
	start := len(b)
	b = le.AppendUint32(b, uint32(nonceLen+len(payload)))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, seq)
	b = le.AppendUint64(b, batch)
	b = append(b, hash[:]...)
	b = append(b, nonce[:]...)
	b = append(b, payload...)
	le.PutUint32(b[start+4:], crc32.Update(seed, castagnoli, b[start+8:]))
	return b
}

// bodyLen returns the length of the body that a record claims, and whether a record may have it.
func bodyLen(b []byte) (int, bool) {
	n := le.Uint32(b)
	return int(n), n > 0 && n <= nonceLen+MaxPayload
}

// intact reports whether the whole record in b has the right checksum.
func intact(b []byte, seed uint32) bool {
	return crc32.Update(seed, castagnoli, b[8:]) == le.Uint32(b[4:])
}

func recordSeq(b []byte) uint64   { return le.Uint64(b[8:]) }
func recordBatch(b []byte) uint64 { return le.Uint64(b[16:]) }

// recordHash returns the hash of the intact record b.
func (h *header) recordHash(b []byte) chain.Hash {
	if h.version == 1 {
		return sha256.Sum256(b)
	}
	return chain.Hash(b[24:prefixLen])
}

// payload returns the payload of the intact record b.
func (h *header) payload(b []byte) []byte {
	if h.version == 1 {
		return b[prefixLen:]
	}
	return b[min(payloadAt, len(b)):]
}

// state is where a journal stands after its last record, all that the next record must fit.
type state struct {
	seq   uint64 // of the last record, 0 before the first
	batch uint64
	hash  chain.Hash
	last  int64     // offset of the last record in its segment
	tip   chain.Tip // not known within a segment of version 1 that was not read from the first one on
}

func (c *state) clone() state {
	d := *c
	d.tip = c.tip.Clone()
	return d
}

// follow checks that the intact record b continues the chain and returns its link, which version 1 has not.
func (c *state) follow(h *header, b []byte) (l chain.Link, reason string) {
	switch seq, batch := recordSeq(b), recordBatch(b); {
	case seq != c.seq+1:
		return l, fmt.Sprintf("sequence is %d, expected %d", seq, c.seq+1)
	case batch != seq && batch != c.batch:
		return l, fmt.Sprintf("batch is %d, expected %d or %d", batch, c.batch, seq)
	case h.version == 1:
		if chain.Hash(b[24:prefixLen]) != c.hash {
			return l, brokenChain
		}
	case len(b) <= payloadAt:
		return l, "the record has no payload"
	default:
		if l = c.tip.Next(chain.Digest(chain.Nonce(b[prefixLen:]), b[payloadAt:])); chain.Hash(b[24:prefixLen]) != l.Hash() {
			return l, brokenChain
		}
	}
	return l, ""
}

const brokenChain = "hash chain is broken: this record was not written after the ones before it"

func (c *state) advance(seq, batch uint64, hash chain.Hash, off int64) {
	c.seq, c.batch, c.hash, c.last = seq, batch, hash, off
	c.tip.Add(hash)
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
