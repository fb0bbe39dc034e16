// Package evidence makes and checks evidence packets: one file with everything that the ledger holds about one number, and
// what proves it to somebody who has nothing else of the ledger, offline, after years.
//
// # What is in a packet
//
// A zip archive, nothing in it compressed, with these files in this order:
//
//	README.txt      what this is, and how to check it with sha256sum, xxd and jq
//	proof.jsonl     links of the ledger's hash chain (package chain), one a line, from the number's first event to the newest
//	                event of the ledger; "record" is the line of records.jsonl whose digest it is, where it is one
//	records.jsonl   the number's events, one a line, the bytes that were recorded and hashed
//	anchors.json    the ends of the chain as the nightly and manual reports carry them, and the end at the time of export
//	packet.json     whose packet this is, who asked for it and why, and what the summary needs to be written again
//	summary.html    the same for people, without a script
//
// The same events, reports and [Options] give the same bytes.
//
// # What is proven
//
// Each event was in the ledger, with these bytes and at this place, when an anchor behind it was taken, if whoever checks
// knows that anchor's hash from elsewhere: from a report that was mailed or printed at the time. That no event was left
// out is not proven: digests of other people's events look like any other. Nor is it that what heed was told was true.
package evidence

import (
	"archive/zip"
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/chain"
	"github.com/heed-sms/heed/sms/phone"
)

// layout is the version of everything that a packet's bytes depend on: names, order, README, summary. A change of any of
// them needs a new one, because Verify writes a packet again and compares.
const layout = 1

const (
	readmeName  = "README.txt"
	proofName   = "proof.jsonl"
	recordsName = "records.jsonl"
	anchorsName = "anchors.json"
	packetName  = "packet.json"
	summaryName = "summary.html"
)

var names = []string{readmeName, proofName, recordsName, anchorsName, packetName, summaryName}

//go:embed readme.txt
var readme string

// ErrUnprovable is returned for a number all of whose events were recorded by a build before the first release, whose
// journal could prove nothing about one number.
var ErrUnprovable = errors.New("everything known about this number was recorded by a build of heed before its first release and cannot be proven")

// Ledger is what a packet is made from, a part of ledger.Ledger.
type Ledger interface {
	Prove(ctx context.Context, n phone.Number, through []uint64) iter.Seq2[ledger.Proven, error]
	History(ctx context.Context, n phone.Number) iter.Seq2[ledger.Event, error]
	Reports(ctx context.Context) iter.Seq2[ledger.Pass, error]
}

// Options for Write.
type Options struct {
	Number phone.Number
	At     time.Time      // of the export
	By     string         // who asked for it
	Why    string         // in their words
	Heed   string         // which build made it
	Zone   *time.Location // of the summary, beside UTC; nil for UTC alone
}

// Packet is packet.json.
type Packet struct {
	Layout   int          `json:"layout"`
	Number   phone.Number `json:"number"`
	Exported time.Time    `json:"exported"`
	By       string       `json:"by"`
	Why      string       `json:"why"`
	Heed     string       `json:"heed"`
	Zone     string       `json:"zone"`
	Offsets  []offset     `json:"offsets,omitempty"` // the zone's rules as far as the events need them
	Records  int          `json:"records"`
	First    uint64       `json:"first_seq"` // of the number's events
	Last     uint64       `json:"last_seq"`
	LeftOut  int          `json:"left_out,omitempty"` // events before First that cannot be proven: ErrUnprovable
	Head     uint64       `json:"head_seq"`           // newest event of the ledger at the time of export
	HeadHash Hash         `json:"head_hash"`
}

// Hash is a hash that is written as 64 hexadecimal digits.
type Hash chain.Hash

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns lower-case hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(b []byte) error {
	var x Hash
	if n, err := hex.Decode(x[:], b[:min(len(b), 2*len(x))]); err != nil || n != len(x) || len(b) != 2*len(x) {
		return fmt.Errorf("want %d hexadecimal digits, got %d characters", 2*len(x), len(b))
	}
	*h = x
	return nil
}

// Anchor is the hash of a record, of which a report says that it was the newest one.
type Anchor struct {
	Seq    uint64    `json:"seq"`
	Hash   Hash      `json:"hash"`
	Kind   string    `json:"kind"` // of the pass: nightly or manual; "export" for the end at the time of export
	Report string    `json:"report,omitempty"`
	At     time.Time `json:"at"`
}

// step is a line of proof.jsonl.
type step struct {
	Seq    uint64 `json:"seq"`
	Prev   Hash   `json:"prev"`
	Skip   Hash   `json:"skip"`
	Digest Hash   `json:"digest"`
	Nonce  string `json:"nonce,omitempty"`  // 32 hexadecimal digits
	Record int    `json:"record,omitempty"` // line of records.jsonl, from 1 on
}

func (s *step) link() chain.Link {
	return chain.Link{Seq: s.Seq, Prev: chain.Hash(s.Prev), Skip: chain.Hash(s.Skip), Digest: chain.Hash(s.Digest)}
}

// entry is an event of the number with its place in the chain.
type entry struct {
	Seq   uint64
	Hash  Hash
	Event ledger.Event
}

// Write writes the packet of a number to w. Its memory does not depend on how many events the number has: they go through a
// temporary file. Nothing is written if the number is unknown (ledger.ErrNotFound) or nothing can be proven
// (ErrUnprovable). A report whose hash is not the ledger's is an error too: one of them was changed.
func Write(ctx context.Context, w io.Writer, l Ledger, o Options) (Packet, error) {
	pk := Packet{Layout: layout, Number: o.Number, Exported: o.At.UTC(), By: o.By, Why: o.Why, Heed: o.Heed, Zone: "UTC"}
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	pk.Zone = o.Zone.String()
	known, through, err := reports(ctx, l)
	if err != nil {
		return pk, err
	}
	next, stop := iter.Pull2(l.Prove(ctx, o.Number, through))
	defer stop()
	first, err, ok := next()
	if err != nil {
		return pk, err
	}
	if pk.LeftOut, err = leftOut(ctx, l, o.Number, first.Seq, ok); err != nil {
		return pk, err
	}
	dir, err := os.MkdirTemp("", "heed-evidence-") // readable to nobody else
	if err != nil {
		return pk, err
	}
	defer os.RemoveAll(dir)
	sp, err := newSpool(dir)
	if err != nil {
		return pk, err
	}
	defer sp.close()

	var anchors []Anchor
	times := zoneTimes{zone: o.Zone}
	times.add(pk.Exported)
	proof := func(w io.Writer) error {
		var hash chain.Hash
		for p := first; ok; p, err, ok = next() {
			if err != nil {
				return err
			}
			hash = p.Hash()
			s := step{Seq: p.Seq, Prev: Hash(p.Prev), Skip: Hash(p.Skip), Digest: Hash(p.Digest)}
			if p.Own {
				e, err := ledger.Decode(p.Payload)
				if err != nil {
					return fmt.Errorf("event %d: %w", p.Seq, err)
				}
				times.add(e.At)
				pk.Records++
				pk.Last = p.Seq
				s.Nonce, s.Record = hex.EncodeToString(p.Nonce[:]), pk.Records
				if err := sp.add(p.Seq, hash, p.Payload); err != nil {
					return err
				}
			}
			for ; len(known) > 0 && known[0].Seq <= p.Seq; known = known[1:] {
				a := known[0]
				if a.Seq < p.Seq {
					continue // from before the number's first event
				}
				if a.Hash != Hash(hash) {
					return fmt.Errorf("report %s says that event %d has hash %s and the ledger has %x: one of them was changed; heed verify looks at the ledger", a.Report, a.Seq, a.Hash, hash)
				}
				anchors = append(anchors, a)
			}
			if err := line(w, s); err != nil {
				return err
			}
			pk.Head = p.Seq
		}
		pk.HeadHash = Hash(hash)
		anchors = append(anchors, Anchor{Seq: pk.Head, Hash: pk.HeadHash, Kind: "export", At: pk.Exported})
		pk.Offsets = times.offsets()
		return sp.done()
	}
	pk.First = first.Seq
	return pk, assemble(w, proof, sp.records, func() ([]Anchor, Packet) { return anchors, pk }, sp.entries)
}

// reports returns the anchors of the recorded nightly and manual passes, and their sequences, ascending. Incremental
// passes are left out: there can be hundreds a day.
func reports(ctx context.Context, l Ledger) (known []Anchor, through []uint64, err error) {
	for p, err := range l.Reports(ctx) {
		if err != nil {
			return nil, nil, err
		}
		if p.Head == "" || p.HeadSeq == 0 || p.FinishedAt.IsZero() || p.Kind == "incremental" {
			continue
		}
		a := Anchor{Seq: p.HeadSeq, Kind: p.Kind, Report: p.ID, At: p.FinishedAt.UTC()}
		if err := a.Hash.UnmarshalText([]byte(p.Head)); err != nil {
			return nil, nil, fmt.Errorf("report %s: its hash: %w", p.ID, err)
		}
		known = append(known, a)
	}
	slices.Reverse(known) // newest first until here: of two with the same end, the older one stays first
	slices.SortStableFunc(known, func(a, b Anchor) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, a := range known {
		through = append(through, a.Seq)
	}
	return known, slices.Compact(through), nil
}

// leftOut counts the number's events before the first one that can be proven.
func leftOut(ctx context.Context, l Ledger, n phone.Number, first uint64, any bool) (count int, err error) {
	for e, err := range l.History(ctx, n) {
		if err != nil {
			return 0, err
		}
		if any && e.Seq >= first {
			return count, nil
		}
		count++
	}
	switch {
	case count == 0 && !any:
		return 0, fmt.Errorf("nothing is known about this number: %w", ledger.ErrNotFound)
	case !any:
		return 0, ErrUnprovable
	}
	return count, nil
}

// assemble writes a packet from its parts. rest is called when proof and records are written.
func assemble(w io.Writer, proof, records func(io.Writer) error, rest func() ([]Anchor, Packet), entries func() iter.Seq2[entry, error]) error {
	zw := zip.NewWriter(w)
	var anchors []Anchor
	var pk Packet
	for _, part := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{readmeName, func(w io.Writer) error { _, err := io.WriteString(w, readme); return err }},
		{proofName, proof},
		{recordsName, records},
		{anchorsName, func(w io.Writer) error {
			anchors, pk = rest()
			return writeAnchors(w, anchors)
		}},
		{packetName, func(w io.Writer) error {
			b, err := json.MarshalIndent(pk, "", "  ")
			if err == nil {
				_, err = w.Write(append(b, '\n'))
			}
			return err
		}},
		{summaryName, func(w io.Writer) error { return summary(w, pk, anchors, entries) }},
	} {
		f, err := zw.CreateHeader(head(part.name))
		if err != nil {
			return &partError{part.name, err}
		}
		bw := bufio.NewWriterSize(f, 64<<10)
		if err := errors.Join(part.write(bw), bw.Flush()); err != nil {
			return &partError{part.name, err}
		}
		if err := zw.Flush(); err != nil {
			return &partError{part.name, err}
		}
	}
	if err := zw.Close(); err != nil {
		return &partError{"the table of contents", err}
	}
	return nil
}

// head is always the same for the same name, so that packets can be compared.
func head(name string) *zip.FileHeader {
	h := &zip.FileHeader{Name: name, Method: zip.Store, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)} // the first day that zip knows
	h.SetMode(0o600)
	return h
}

// partError says in which file of a packet something went wrong.
type partError struct {
	part string
	err  error
}

func (e *partError) Error() string { return e.part + ": " + e.err.Error() }
func (e *partError) Unwrap() error { return e.err }

func line(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}

// writeAnchors writes a JSON array with an anchor a line.
func writeAnchors(w io.Writer, anchors []Anchor) error {
	sep := "[\n"
	for _, a := range anchors {
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%s", sep, b); err != nil {
			return err
		}
		sep = ",\n"
	}
	_, err := io.WriteString(w, "\n]\n")
	return err
}

// spool keeps the number's events in a file until they are wanted a second and a third time.
type spool struct {
	f *os.File
	w *bufio.Writer
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "events")
	if err != nil {
		return nil, err
	}
	return &spool{f, bufio.NewWriter(f)}, nil
}

const spoolHead = 8 + 32 + 4

func (s *spool) add(seq uint64, hash chain.Hash, payload []byte) error {
	for _, c := range payload {
		if c == '\n' {
			return fmt.Errorf("event %d contains a line break, which no event of heed's does", seq)
		}
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, spoolHead), seq)
	b = binary.BigEndian.AppendUint32(append(b, hash[:]...), uint32(len(payload)))
	_, err := s.w.Write(b)
	if err == nil {
		_, err = s.w.Write(payload)
	}
	return err
}

func (s *spool) done() error { return s.w.Flush() }

// each calls fn with every event; the payload is valid until it returns.
func (s *spool) each(fn func(seq uint64, hash Hash, payload []byte) error) error {
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := bufio.NewReaderSize(s.f, 64<<10)
	var payload []byte
	for {
		var h [spoolHead]byte
		if _, err := io.ReadFull(r, h[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint32(h[40:]))
		payload = slices.Grow(payload[:0], n)[:n]
		if _, err := io.ReadFull(r, payload); err != nil {
			return err
		}
		if err := fn(binary.BigEndian.Uint64(h[:]), Hash(h[8:40]), payload); err != nil {
			return err
		}
	}
}

// records writes records.jsonl.
func (s *spool) records(w io.Writer) error {
	return s.each(func(_ uint64, _ Hash, payload []byte) error {
		_, err := w.Write(append(payload, '\n'))
		return err
	})
}

var errStop = errors.New("stop")

func (s *spool) entries() iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		err := s.each(func(seq uint64, hash Hash, payload []byte) error {
			e, err := ledger.Decode(payload)
			if err != nil {
				return err
			}
			if !yield(entry{seq, hash, e}, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(entry{}, err)
		}
	}
}

func (s *spool) close() { _ = s.f.Close() } // the directory goes with it
