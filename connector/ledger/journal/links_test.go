package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/heed-sms/heed/connector/ledger/chain"
)

func every(seqs ...uint64) iter.Seq2[uint64, error] {
	return func(yield func(uint64, error) bool) {
		for _, s := range seqs {
			if !yield(s, nil) {
				return
			}
		}
	}
}

func TestLinksProveEveryRecordToEveryLaterOne(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, small)
	fillJournal(t, j, 1, 3, 2, 5, 1, 1, 4, 7, 2, 9, 3)
	hashes := map[uint64]chain.Hash{}
	if err := j.Replay(1, func(r Record) error { hashes[r.Seq] = r.Hash; return nil }); err != nil {
		t.Fatal(err)
	}
	last := uint64(len(hashes))
	for from := uint64(1); from <= last; from++ {
		for to := from; to <= last; to++ {
			at, h := uint64(0), chain.Hash{}
			err := j.Links(every(append([]uint64{from}, chain.Path(from, to)...)...), func(l Linked) error {
				if at > 0 && !l.Follows(at, h) {
					return fmt.Errorf("record %d does not follow %d", l.Seq, at)
				}
				if l.Digest != chain.Digest(l.Nonce, l.Payload) || !bytes.Equal(l.Payload, payload(l.Seq)) {
					return fmt.Errorf("record %d has another digest", l.Seq)
				}
				at, h = l.Seq, l.Hash()
				return nil
			})
			if err != nil || at != to || h != hashes[to] {
				t.Fatalf("%d to %d: arrived at %d: %v", from, to, at, err)
			}
		}
	}
	stop := errors.New("stop")
	if err := j.Links(every(3), func(Linked) error { return stop }); err != stop {
		t.Errorf("error of fn: %v", err)
	}
	if err := j.Links(func(y func(uint64, error) bool) { y(0, stop) }, nil); err != stop {
		t.Errorf("error of the sequence: %v", err)
	}
	for _, bad := range [][]uint64{{0}, {2, 2}, {3, 1}, {last + 1}} {
		if err := j.Links(every(bad...), func(Linked) error { return nil }); !errors.Is(err, ErrNoRecord) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// Nobody may learn from a digest which of a few possible payloads it stands for.
func TestNoNonceIsUsedTwice(t *testing.T) {
	seen := map[chain.Nonce]bool{}
	for range 2 {
		j := open(t, t.TempDir(), small)
		fillJournal(t, j, 4, 4, 4)
		if err := j.Links(every(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), func(l Linked) error {
			if seen[l.Nonce] || l.Nonce == (chain.Nonce{}) {
				t.Errorf("record %d: nonce %x again", l.Seq, l.Nonce)
			}
			seen[l.Nonce] = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// Checksums are for accidents: they can be computed again by whoever edits the file. The chain can not, without
// changing every hash from there on.
func TestAnEditWithARightChecksumBreaksTheChain(t *testing.T) {
	im := build(t, small, 4, 4, 4, 4)
	names := im.names()
	h, err := readHeader(bytes.NewReader(im[names[1]]), names[1], 5)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(name string, change func(b []byte) []byte) image {
		return im.with(name, change(slices.Clone(im[name])))
	}
	header := func(b []byte) []byte {
		le.PutUint32(b[12:], crc32.Checksum(b[16:h.size()], castagnoli))
		return b
	}
	record := func(b []byte) []byte {
		r := b[h.size():]
		n := prefixLen + int(le.Uint32(r))
		le.PutUint32(r[4:], crc32.Update(h.seed(), castagnoli, r[8:n]))
		return b
	}
	for what, c := range map[string]image{
		"a payload":         edit(names[1], func(b []byte) []byte { b[h.size()+payloadAt] ^= 1; return record(b) }),
		"a hash":            edit(names[1], func(b []byte) []byte { b[h.size()+24] ^= 1; return record(b) }),
		"a hash to skip to": edit(names[1], func(b []byte) []byte { b[headerLen] ^= 1; return header(b) }),
		"the hash before":   edit(names[1], func(b []byte) []byte { b[h.size()-1] ^= 1; return header(b) }),
		"the offset before": edit(names[1], func(b []byte) []byte { b[24] ^= 1; return header(b) }),
		"the last payload":  edit(names[3], func(b []byte) []byte { return relast(t, names[3], b) }),
		"a nonce":           edit(names[1], func(b []byte) []byte { b[h.size()+prefixLen] ^= 1; return record(b) }),
	} {
		var corrupt *CorruptError
		if _, err := Verify(c.write(t, t.TempDir()), nil); !errors.As(err, &corrupt) || corrupt.Segment == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// relast changes the last record of a segment and gives it the right checksum.
func relast(t *testing.T, name string, b []byte) []byte {
	t.Helper()
	h, err := readHeader(bytes.NewReader(b), name, 13)
	if err != nil {
		t.Fatal(err)
	}
	s := scan(bytes.NewReader(b), name, &h, int64(len(b)))
	at := int64(0)
	for {
		rec, err := s.next()
		if err != nil {
			break
		}
		at = rec.Pos.Offset
	}
	b[len(b)-1] ^= 1
	le.PutUint32(b[at+4:], crc32.Update(h.seed(), castagnoli, b[at+8:]))
	return b
}

func TestAnAnchorIsFoundOrRefused(t *testing.T) {
	im := build(t, small, 4, 4, 4, 4)
	dir := im.write(t, t.TempDir())
	j := open(t, dir, Options{ReadOnly: true})
	var all []Anchor
	if err := j.Replay(1, func(r Record) error { all = append(all, Anchor{r.Seq, r.Hash}); return nil }); err != nil {
		t.Fatal(err)
	}
	if rep, err := Verify(dir, nil, all...); err != nil || rep.Last != 16 {
		t.Fatalf("%+v %v", rep, err)
	}
	// The same contents, written again: whole, and not the same journal.
	other := build(t, small, 4, 4, 4, 4).write(t, t.TempDir())
	for _, a := range all {
		var wrong *AnchorError
		if _, err := Verify(other, nil, a); !errors.As(err, &wrong) || wrong.Seq != a.Seq || wrong.Found == a.Hash {
			t.Errorf("record %d: %v", a.Seq, err)
		}
	}
	for _, a := range []Anchor{{Seq: 17, Hash: all[15].Hash}, {Seq: 0}} {
		var wrong *AnchorError
		if _, err := Verify(dir, nil, all[0], a); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "missing") {
			t.Errorf("record %d: %v", a.Seq, err)
		}
	}
}

// v1 is a journal as the builds before format 2 wrote it: records 1 to 17 in four segments.
func v1(t *testing.T) image {
	t.Helper()
	im := load(t, "testdata/v1")
	if len(im) != 4 {
		t.Fatalf("%d segments", len(im))
	}
	return im
}

func TestAJournalOfVersion1IsReadAndGoesOnInVersion2(t *testing.T) {
	im := v1(t)
	if rep, err := Verify(im.write(t, t.TempDir()), nil); err != nil || rep.Last != 17 {
		t.Fatalf("verify: %+v %v", rep, err)
	}
	look := open(t, im.write(t, t.TempDir()), Options{ReadOnly: true})
	expect(t, look, 17)
	if first, err := look.FirstLink(); err != nil || first != 18 {
		t.Errorf("first link %d, %v", first, err)
	}

	dir := im.write(t, t.TempDir())
	j := open(t, dir, small)
	expect(t, j, 17)
	at := fillJournal(t, j, 1, 4, 4, 40)
	shut(t, j)
	for range 2 {
		j = open(t, dir, small)
		expect(t, j, 66)
		if r, err := j.ReadAt(at[0]); err != nil || r.Seq != 18 || !bytes.Equal(r.Payload, payload(18)) {
			t.Errorf("%+v %v", r, err)
		}
		shut(t, j)
	}
	rep, err := Verify(dir, nil)
	if err != nil || rep.Last != 66 {
		t.Fatalf("verify: %+v %v", rep, err)
	}
	for name, b := range im {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s was changed: %v", name, err)
		}
	}
	// What was written since can be proven, what was written before can not.
	j = open(t, dir, small)
	if first, err := j.FirstLink(); err != nil || first != 18 {
		t.Errorf("first link %d, %v", first, err)
	}
	seq, h := uint64(18), chain.Hash{}
	if err := j.Links(every(append([]uint64{18}, chain.Path(18, 66)...)...), func(l Linked) error {
		if l.Seq > 18 && !l.Follows(seq, h) {
			t.Errorf("record %d does not follow %d", l.Seq, seq)
		}
		seq, h = l.Seq, l.Hash()
		return nil
	}); err != nil || h != rep.Head {
		t.Errorf("arrived at %d: %v", seq, err)
	}
	if err := j.Links(every(17), func(Linked) error { return nil }); !errors.Is(err, ErrNoLink) {
		t.Errorf("link of a record of version 1: %v", err)
	}
}

func TestAVersion1SegmentWithoutRecordsGivesWayToOneOfVersion2(t *testing.T) {
	im := v1(t)
	name := im.last()
	// Cut down to its header, as a crash just after a rotation leaves it; and cut inside its first record.
	for _, size := range []int{headerLenV1, headerLenV1 + 10} {
		dir := im.with(name, im[name][:size]).write(t, t.TempDir())
		j := open(t, dir, small)
		expect(t, j, 13)
		fillJournal(t, j, 3, 3)
		shut(t, j)
		expect(t, open(t, dir, small), 19)
		if rep, err := Verify(dir, nil); err != nil || rep.Last != 19 || load(t, dir)[name][8] != 2 {
			t.Errorf("verify: %+v %v", rep, err)
		}
	}
}

func TestEveryFlippedByteOfAVersion1JournalIsFound(t *testing.T) {
	im := v1(t)
	root := t.TempDir()
	dir := im.write(t, filepath.Join(root, "whole"))
	from, _ := lastBatch(t, im)
	for _, name := range im.names()[1:] {
		path, whole := filepath.Join(dir, name), im[name]
		for i := range whole {
			b := slices.Clone(whole)
			b[i] ^= 1 << (i % 8)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			rep, err := Verify(dir, nil)
			if err == nil && (name != im.last() || int64(i) < from || rep.Unfinished == 0) {
				t.Fatalf("%s byte %d: not detected", name, i)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Damage in an earlier segment, which Open does not read otherwise, stops the upgrade and changes nothing.
	first := im.names()[0]
	b := slices.Clone(im[first])
	b[headerLenV1+prefixLen] ^= 1
	damaged := im.with(first, b)
	dir = damaged.write(t, filepath.Join(root, "damaged"))
	var c *CorruptError
	if _, err := Open(dir, small); !errors.As(err, &c) || c.Seq != 1 {
		t.Errorf("open: %v", err)
	}
	if got := load(t, dir); !maps.EqualFunc(got, damaged, bytes.Equal) {
		t.Error("a refused Open changed a segment")
	}
}

// The hash of a record, computed from the file by its documentation alone.
func TestTheFormatIsAsDocumented(t *testing.T) {
	im := build(t, Options{BallastBytes: -1}, 3)
	b := im[im.last()]
	salt, at := b[32:48], 48
	hashes := map[uint64][]byte{0: make([]byte, 32)}
	for seq, skip := range []uint64{1: 0, 2: 1, 3: 0} {
		if seq == 0 {
			continue
		}
		n := int(binary.LittleEndian.Uint32(b[at:]))
		big := binary.BigEndian.AppendUint64(nil, uint64(seq))
		digest := sha256.Sum256(b[at+56 : at+56+n])
		if string(b[at+72:at+56+n]) != string(payload(uint64(seq))) {
			t.Fatalf("record %d is %q", seq, b[at+72:at+56+n])
		}
		hash := sha256.Sum256(slices.Concat([]byte("heed journal 2\n"), big, hashes[uint64(seq-1)], hashes[skip], digest[:]))
		if !bytes.Equal(hash[:], b[at+24:at+56]) || crc32.Checksum(slices.Concat(salt, b[at+8:at+56+n]), castagnoli) != binary.LittleEndian.Uint32(b[at+4:]) {
			t.Fatalf("record %d at byte %d is not as documented", seq, at)
		}
		hashes[uint64(seq)], at = hash[:], at+56+n
	}
	if at != len(b) {
		t.Errorf("%d bytes, records end at %d", len(b), at)
	}
}
