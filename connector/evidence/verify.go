package evidence

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/chain"
)

// Limits on what is read of a packet that may be anybody's, in bytes.
const (
	maxRecord  = 16 << 20 // the ledger's own limit
	maxStep    = 1 << 10
	maxPacket  = 1 << 20
	maxAnchors = 64 << 20
)

// BadPacketError says what is wrong with a packet, and where.
type BadPacketError struct {
	File   string // in the packet; "" for the archive itself
	Record int    // line of records.jsonl, 0 if it is none in particular
	Seq    uint64 // the event, likewise
	Reason string

	unreadable bool // so it is no packet as heed writes one, whatever Reason says of syntax
}

func (e *BadPacketError) Error() string {
	if e.unreadable {
		plain := *e
		plain.unreadable = false
		return "the packet was changed: " + plain.Error()
	}
	switch {
	case e.Record > 0:
		return fmt.Sprintf("%s: record %d (event %d): %s", e.File, e.Record, e.Seq, e.Reason)
	case e.Seq > 0:
		return fmt.Sprintf("%s: event %d: %s", e.File, e.Seq, e.Reason)
	case e.File != "":
		return fmt.Sprintf("%s: %s", e.File, e.Reason)
	}
	return e.Reason
}

// Known is a hash that whoever checks a packet has from elsewhere.
type Known struct {
	Seq  uint64 // 0 if only the hash is known
	Hash Hash
}

// ParseKnown reads "SEQ:HASH" or "HASH", the anchor of a report.
func ParseKnown(s string) (Known, error) {
	var k Known
	seq, hash, ok := strings.Cut(s, ":")
	if !ok {
		seq, hash = "", s
	}
	var err error
	if ok {
		if k.Seq, err = strconv.ParseUint(seq, 10, 64); err != nil || k.Seq == 0 {
			return k, fmt.Errorf("%q is no number of an event: an anchor is SEQ:HASH, as in the anchor line of a report", seq)
		}
	}
	if err := k.Hash.UnmarshalText([]byte(hash)); err != nil {
		return k, fmt.Errorf("the anchor's hash: %w; an anchor is SEQ:HASH, as in the anchor line of a report", err)
	}
	return k, nil
}

// Report is what a check found.
type Report struct {
	Packet  Packet
	Steps   int      // links of the chain
	Anchors []Anchor // of the packet, ascending, the export's last
	Vouched []Vouch  // for each known hash
}

// Vouch says what a known hash proves.
type Vouch struct {
	Anchor  Anchor `json:"anchor"`  // Kind and Report are empty if it is none of the packet's
	Records int    `json:"records"` // how many of the packet's records it proves: the first ones
}

// Verify checks a packet of size bytes: that each record is what its digest says, that the chain leads from the first to the
// end by way of every anchor, that each of known is on it, and that every other byte of the packet is what the records
// amount to. Anything else is a *BadPacketError. It needs nothing but the packet, and little memory.
func Verify(r io.ReaderAt, size int64, known ...Known) (Report, error) {
	var rep Report
	p, err := open(r, size)
	if err != nil {
		return rep, err
	}
	if err := p.small(packetName, maxPacket, &rep.Packet); err != nil {
		return rep, err
	}
	if rep.Packet.Layout != layout {
		return rep, &BadPacketError{File: packetName, Reason: fmt.Sprintf("layout %d, this heed reads layout %d; use the heed that made the packet (%q) or a newer one", rep.Packet.Layout, layout, rep.Packet.Heed)}
	}
	if err := p.small(anchorsName, maxAnchors, &rep.Anchors); err != nil {
		return rep, err
	}
	if err := p.check(&rep, known); err != nil {
		return rep, err
	}
	return rep, p.compare(r, size, &rep)
}

// packet is an archive that is being read.
type packet struct{ files map[string]*zip.File }

func open(r io.ReaderAt, size int64) (*packet, error) {
	zr, err := zip.NewReader(r, size)
	if err != nil {
		return nil, &BadPacketError{Reason: fmt.Sprintf("the archive cannot be read: %v", err)}
	}
	p := &packet{map[string]*zip.File{}}
	var got []string
	for _, f := range zr.File {
		got = append(got, f.Name)
		p.files[f.Name] = f
		if f.Method != zip.Store { // so that nothing grows when it is read
			return nil, &BadPacketError{File: clean(f.Name), Reason: "it is compressed, which heed does not do"}
		}
	}
	if strings.Join(got, "\n") != strings.Join(names, "\n") {
		return nil, &BadPacketError{Reason: fmt.Sprintf("not an evidence packet of heed's: it must hold exactly %s", strings.Join(names, ", "))}
	}
	return p, nil
}

// clean keeps control characters of a stranger's file from the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// small reads a JSON file of bounded size.
func (p *packet) small(name string, limit int64, into any) error {
	bad := func(err error) error {
		return &BadPacketError{File: name, Reason: clean(err.Error()), unreadable: true}
	}
	f, err := p.files[name].Open()
	if err != nil {
		return bad(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("it is longer than %d bytes", limit)
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return bad(err)
	}
	return nil
}

// lines reads a file line by line.
type lines struct {
	name string
	f    io.ReadCloser
	r    *bufio.Reader
	max  int
	buf  []byte
	n    int // lines so far
}

func (p *packet) lines(name string, limit int) (*lines, error) {
	f, err := p.files[name].Open()
	if err != nil {
		return nil, &BadPacketError{File: name, Reason: clean(err.Error()), unreadable: true}
	}
	return &lines{name: name, f: f, r: bufio.NewReaderSize(f, 64<<10), max: limit}, nil
}

// next returns the next line without its end, valid until the next call, or io.EOF.
func (l *lines) next() ([]byte, error) {
	l.buf = l.buf[:0]
	l.n++
	for {
		b, err := l.r.ReadSlice('\n')
		l.buf = append(l.buf, b...)
		switch {
		case len(l.buf) > l.max+1:
			err = fmt.Errorf("line %d is longer than %d bytes", l.n, l.max)
		case err == nil:
			return l.buf[:len(l.buf)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(l.buf) == 0:
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			err = fmt.Errorf("line %d is cut off", l.n)
		}
		return nil, &BadPacketError{File: l.name, Reason: clean(err.Error()), unreadable: true}
	}
}

// walk reads proof and records side by side. payload is nil for other people's events, and valid until fn returns.
func (p *packet) walk(fn func(s step, payload []byte) error) error {
	proof, err := p.lines(proofName, maxStep)
	if err != nil {
		return err
	}
	defer proof.f.Close()
	records, err := p.lines(recordsName, maxRecord)
	if err != nil {
		return err
	}
	defer records.f.Close()
	for {
		b, err := proof.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var s step
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&s); err != nil {
			return &BadPacketError{File: proofName, Reason: fmt.Sprintf("line %d: %s", proof.n, clean(err.Error())), unreadable: true}
		}
		var payload []byte
		if s.Record != 0 {
			if s.Record != records.n+1 {
				return &BadPacketError{File: proofName, Seq: s.Seq, Reason: fmt.Sprintf("it is record %d here, and record %d is next", s.Record, records.n+1)}
			}
			if payload, err = records.next(); errors.Is(err, io.EOF) {
				return &BadPacketError{File: recordsName, Record: s.Record, Seq: s.Seq, Reason: "it is missing"}
			} else if err != nil {
				return err
			}
		}
		if err := fn(s, payload); err != nil {
			return err
		}
	}
	if _, err := records.next(); err == nil {
		return &BadPacketError{File: recordsName, Record: records.n, Reason: "the proof says nothing about it"}
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// check proves what a packet claims to prove.
func (p *packet) check(rep *Report, known []Known) error {
	var at, last uint64
	var hash chain.Hash
	records := 0
	anchors := rep.Anchors
	met, other := make([]bool, len(known)), make([]bool, len(known))
	rep.Vouched = make([]Vouch, len(known))
	err := p.walk(func(s step, payload []byte) error {
		l := s.link()
		if rep.Steps == 0 && (s.Seq == 0 || s.Seq != rep.Packet.First || payload == nil) {
			return &BadPacketError{File: proofName, Seq: s.Seq, Reason: "the proof must begin with the number's first event"}
		}
		if payload != nil {
			bad := func(reason string) error {
				return &BadPacketError{File: recordsName, Record: s.Record, Seq: s.Seq, Reason: reason}
			}
			var nonce chain.Nonce
			if n, err := hex.Decode(nonce[:], []byte(s.Nonce)[:min(len(s.Nonce), 2*len(nonce))]); err != nil || n != len(nonce) || len(s.Nonce) != 2*n {
				return &BadPacketError{File: proofName, Seq: s.Seq, Reason: "its nonce is not 32 hexadecimal digits", unreadable: true}
			}
			if chain.Digest(nonce, payload) != l.Digest {
				return bad("it is not what was recorded: its SHA-256 is not the digest in the proof")
			}
			e, err := ledger.Decode(payload)
			if err != nil {
				return bad(clean(err.Error()))
			}
			if e.Number != rep.Packet.Number {
				return bad("it concerns another number than the packet")
			}
			records, last = s.Record, s.Seq
		}
		if rep.Steps > 0 && !l.Follows(at, hash) {
			return &BadPacketError{File: proofName, Seq: s.Seq, Record: s.Record, Reason: fmt.Sprintf("the chain is broken: it does not follow event %d as that is given here", at)}
		}
		at, hash = s.Seq, l.Hash()
		rep.Steps++
		for ; len(anchors) > 0 && anchors[0].Seq == at; anchors = anchors[1:] {
			if anchors[0].Hash != Hash(hash) {
				return &BadPacketError{File: anchorsName, Seq: at, Reason: fmt.Sprintf("report %q says that its hash is %s, and what is recorded amounts to %x", anchors[0].Report, anchors[0].Hash, hash)}
			}
		}
		for i, k := range known {
			if k.Hash == Hash(hash) && (k.Seq == 0 || k.Seq == at) {
				met[i] = true
				rep.Vouched[i] = Vouch{Anchor{Seq: at, Hash: k.Hash}, records}
			} else if k.Seq == at {
				other[i] = true
			}
		}
		return nil
	})
	pk := &rep.Packet
	switch {
	case err != nil:
		return err
	case records == 0:
		return &BadPacketError{File: recordsName, Reason: "there is no record"}
	case pk.Head != at || pk.HeadHash != Hash(hash):
		return &BadPacketError{File: packetName, Reason: fmt.Sprintf("it says that the chain ends with event %d, hash %s, and the proof ends with event %d, hash %x", pk.Head, pk.HeadHash, at, hash)}
	case pk.Records != records || pk.Last != last:
		return &BadPacketError{File: packetName, Reason: fmt.Sprintf("it says that there are %d records, the last of them event %d, and there are %d, the last of them event %d", pk.Records, pk.Last, records, last)}
	case len(anchors) > 0:
		return &BadPacketError{File: anchorsName, Seq: anchors[0].Seq, Reason: "the proof does not go through it"}
	case len(rep.Anchors) == 0 || rep.Anchors[len(rep.Anchors)-1].Kind != "export":
		return &BadPacketError{File: anchorsName, Reason: "the end at the time of export is missing"}
	}
	for i, k := range known {
		if !met[i] {
			return &BadPacketError{Reason: "NOT PROVEN: " + unmet(*pk, k, other[i])}
		}
		for _, a := range rep.Anchors {
			if a.Seq == rep.Vouched[i].Anchor.Seq {
				rep.Vouched[i].Anchor = a
				break
			}
		}
	}
	return nil
}

// unmet says why a packet that is sound in itself has nothing of a known hash. Only another hash of the same event says that
// somebody changed something: a packet ends with its export, and its chain leaves most events out.
func unmet(pk Packet, k Known, other bool) string {
	const through = "a packet's chain goes through the number's own events and the anchors of nightly and manual reports only"
	switch {
	case k.Seq > pk.Head:
		return fmt.Sprintf("anchor %d is newer than this packet, which ends at %d: export a new one", k.Seq, pk.Head)
	case k.Seq != 0 && k.Seq < pk.First:
		return fmt.Sprintf("anchor %d is older than the number's first event (%d): it can prove nothing here", k.Seq, pk.First)
	case other:
		return fmt.Sprintf("event %d has another hash on this packet's chain than the anchor %d:%s: the ledger was changed after the anchor was taken, or one of the two is another ledger's", k.Seq, k.Seq, k.Hash)
	case k.Seq != 0:
		return fmt.Sprintf("event %d is no link of this packet, so the anchor says nothing about it: %s. Take the anchor line of such a report; for any other, heed verify --anchor looks at the ledger itself", k.Seq, through)
	}
	return fmt.Sprintf("no link of this packet has the hash %s: %s. Give the anchor as SEQ:HASH to learn whether it lies outside the packet, or the ledger was changed", k.Hash, through)
}

// compare writes the packet again from its proof and records and compares every byte.
func (p *packet) compare(r io.ReaderAt, size int64, rep *Report) error {
	c := &comparer{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 64<<10)}
	var part *partError
	err := assemble(c,
		func(w io.Writer) error { return p.walk(func(s step, _ []byte) error { return line(w, s) }) },
		func(w io.Writer) error {
			return p.walk(func(s step, payload []byte) error {
				if payload == nil {
					return nil
				}
				_, err := w.Write(append(payload, '\n'))
				return err
			})
		},
		func() ([]Anchor, Packet) { return rep.Anchors, rep.Packet },
		p.entries)
	switch {
	case errors.As(err, &part) && errors.Is(err, errDiffers):
		return &BadPacketError{File: part.part, Reason: fmt.Sprintf("it is not what the records amount to: byte %d of the packet was changed", c.n)}
	case err != nil:
		return err
	case c.n != size:
		return &BadPacketError{Reason: fmt.Sprintf("%d bytes follow the end of the packet", size-c.n)}
	}
	return nil
}

func (p *packet) entries() iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		err := p.walk(func(s step, payload []byte) error {
			if payload == nil {
				return nil
			}
			e, err := ledger.Decode(payload)
			if err != nil {
				return err
			}
			l := s.link()
			if !yield(entry{s.Seq, Hash(l.Hash()), e}, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(entry{}, err)
		}
	}
}

var errDiffers = errors.New("differs")

// comparer is written to and finds out whether that is what a reader holds.
type comparer struct {
	r   *bufio.Reader
	n   int64 // bytes that were equal
	buf []byte
}

func (c *comparer) Write(b []byte) (int, error) {
	if cap(c.buf) < len(b) {
		c.buf = make([]byte, len(b))
	}
	got := c.buf[:len(b)]
	n, err := io.ReadFull(c.r, got)
	for i := range n {
		if got[i] != b[i] {
			c.n += int64(i)
			return i, errDiffers
		}
	}
	c.n += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errDiffers // it ends too early
	}
	return n, err
}
