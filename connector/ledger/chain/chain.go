// Package chain is the hash chain over a ledger's records: what the hash of a record covers, and which hashes prove that
// a record is part of a ledger without showing anybody else's. It does no I/O; every engine uses it, and so does
// whoever checks a proof.
//
// # The hash of a record
//
//	hash(n) = SHA-256("heed journal 2\n" || n || hash(n-1) || hash(skip(n)) || digest(n))
//	digest(n) = SHA-256(nonce(n) || payload)
//
// n is the record's sequence as 8 bytes, big endian; hash(0) is 32 zero bytes; a nonce is 16 bytes that nobody can guess.
// So the hash of a record covers every record before it, and digests can be shown without giving their payloads away:
// without the nonce nobody can tell by trying whose record it may have been.
//
// # The skip
//
// Take the largest number of the form 2^i-1 that fits away from n, and again from what is left, until nothing is. The
// last one taken is how far back skip(n) lies: skip(1)=0, skip(2)=1, skip(3)=0, skip(4)=3, skip(5)=4, skip(6)=3, skip(7)=0.
// From record n, any earlier one is reached over at most three links for each binary digit of n, and over fewer where it is
// near, by always taking the skip unless it leads too far. (E. W. Myers, "An applicative random-access stack", 1983.)
// Who appends keeps one hash per number taken: see [Tip].
package chain

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"
)

// Hash is a SHA-256.
type Hash = [sha256.Size]byte

// Nonce makes a digest unguessable.
type Nonce = [16]byte

const tag = "heed journal 2\n" // with it, what is hashed for a link is 119 bytes: the most that two blocks of SHA-256 take

// Digest returns the digest of a record's payload.
func Digest(nonce Nonce, payload []byte) (d Hash) {
	var b [1024]byte // one run over memory that is no garbage: nearly every payload fits, and every append takes a digest
	if len(nonce)+len(payload) <= len(b) {
		n := copy(b[:], nonce[:])
		return sha256.Sum256(b[:n+copy(b[n:], payload)])
	}
	h := sha256.New()
	h.Write(nonce[:])
	h.Write(payload)
	h.Sum(d[:0])
	return d
}

// Link is what a record's hash is computed from.
type Link struct {
	Seq    uint64
	Prev   Hash // of record Seq-1
	Skip   Hash // of record Skip(Seq)
	Digest Hash
}

// Hash returns the hash of the record.
func (l *Link) Hash() Hash {
	var b [len(tag) + 8 + 3*sha256.Size]byte
	at := copy(b[:], tag)
	binary.BigEndian.PutUint64(b[at:], l.Seq)
	at += 8
	at += copy(b[at:], l.Prev[:])
	at += copy(b[at:], l.Skip[:])
	copy(b[at:], l.Digest[:])
	return sha256.Sum256(b[:])
}

// Follows reports whether the link rests on the record seq with hash h, directly or over its skip.
func (l *Link) Follows(seq uint64, h Hash) bool {
	return l.Seq == seq+1 && l.Prev == h || l.Seq > seq && Skip(l.Seq) == seq && l.Skip == h
}

// Skip returns the sequence to which record n skips, 0 for the beginning.
func Skip(n uint64) uint64 {
	for left := n; left > 0; {
		span := largest(left)
		if span == left {
			return n - span
		}
		left -= span
	}
	return 0
}

// largest returns the largest number of the form 2^i-1 that is not above n > 0.
func largest(n uint64) uint64 {
	if n == 1<<bits.Len64(n)-1 {
		return n
	}
	return 1<<(bits.Len64(n)-1) - 1
}

// Path returns the records by which a proof goes from one to a later one: ascending, without from and with to.
func Path(from, to uint64) []uint64 {
	var back []uint64
	for n := to; n > from; {
		back = append(back, n)
		if s := Skip(n); s >= from {
			n = s
		} else {
			n--
		}
	}
	slices.Reverse(back)
	return back
}

// Tip is the end of a chain: the hashes that a later record can still rest on, at most 65. The zero value is the
// beginning. It is not safe for concurrent use.
type Tip struct {
	seqs   []uint64
	hashes []Hash
}

// TipSize returns how many hashes the tip of a chain of n records has.
func TipSize(n uint64) (size int) {
	for ; n > 0; size++ {
		n -= largest(n)
	}
	return size
}

// NewTip returns the tip of a chain of n records from its Hashes, of which there are TipSize(n).
func NewTip(n uint64, hashes []Hash) Tip {
	t := Tip{hashes: slices.Clone(hashes)}
	at := uint64(0)
	for left := n; left > 0; left = n - at {
		at += largest(left)
		t.seqs = append(t.seqs, at)
	}
	if len(t.seqs) != len(hashes) {
		panic("chain: wrong number of hashes for a tip")
	}
	return t
}

// Hashes returns the hashes, the one of the newest record last. The slice is the tip's.
func (t *Tip) Hashes() []Hash { return t.hashes }

// Clone returns an independent copy.
func (t *Tip) Clone() Tip { return Tip{slices.Clone(t.seqs), slices.Clone(t.hashes)} }

// Seq returns the newest record, 0 if there is none.
func (t *Tip) Seq() uint64 { return t.at(0) }

// Hash returns the hash of the newest record, zeros if there is none.
func (t *Tip) Hash() Hash { return t.hash(0) }

// at and hash count from the newest.
func (t *Tip) at(i int) uint64 {
	if i < len(t.seqs) {
		return t.seqs[len(t.seqs)-1-i]
	}
	return 0
}

func (t *Tip) hash(i int) Hash {
	if i < len(t.hashes) {
		return t.hashes[len(t.hashes)-1-i]
	}
	return Hash{}
}

// joins reports whether the next record skips over the two newest spans, because they are equally long.
func (t *Tip) joins() bool {
	return len(t.seqs) > 1 && t.at(0)-t.at(1) == t.at(1)-t.at(2)
}

// Next returns the link of a next record.
func (t *Tip) Next(digest Hash) Link {
	l := Link{Seq: t.Seq() + 1, Prev: t.hash(0), Skip: t.hash(0), Digest: digest}
	if t.joins() {
		l.Skip = t.hash(2)
	}
	return l
}

// Add moves the tip to the next record, which has hash h.
func (t *Tip) Add(h Hash) {
	next := t.Seq() + 1
	if t.joins() {
		t.seqs, t.hashes = t.seqs[:len(t.seqs)-2], t.hashes[:len(t.hashes)-2]
	}
	t.seqs, t.hashes = append(t.seqs, next), append(t.hashes, h)
}
