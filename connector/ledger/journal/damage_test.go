package journal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/heed-sms/heed/connector/ledger/chain"
)

// lastBatch returns where the last batch begins in the last segment, and its first sequence.
func lastBatch(t *testing.T, im image) (offset int64, seq uint64) {
	t.Helper()
	j := open(t, im.write(t, t.TempDir()), Options{ReadOnly: true})
	if err := j.Replay(1, func(r Record) error {
		if r.Seq == r.Batch {
			offset, seq = r.Pos.Offset, r.Seq
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return offset, seq
}

func TestAJournalCutAtAnyByteOfTheLastBatchKeepsEverythingBefore(t *testing.T) {
	im := build(t, Options{BallastBytes: -1}, 2, 1, 3)
	name := im.last()
	whole := im[name]
	from, seq := lastBatch(t, im)
	root := t.TempDir()
	for cut := from; cut < int64(len(whole)); cut++ {
		dir := im.with(name, whole[:cut]).write(t, filepath.Join(root, fmt.Sprint(cut)))
		rep, err := Verify(dir, nil)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if rep.Last < seq-1 || rep.Bytes+rep.Unfinished != cut {
			t.Fatalf("cut at %d: %+v", cut, rep)
		}
		var log bytes.Buffer
		j := open(t, dir, Options{BallastBytes: -1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		expect(t, j, rep.Last)
		fillJournal(t, j, 1)
		shut(t, j)
		after, err := Verify(dir, nil)
		if err != nil || after.Last != rep.Last+1 {
			t.Fatalf("cut at %d, then appended: %+v %v", cut, after, err)
		}
		if rep.Unfinished == 0 {
			continue
		}
		torn := fmt.Sprintf("%s.torn-%d", name, rep.Bytes)
		if len(after.Torn) != 1 || after.Torn[0] != torn || !strings.Contains(log.String(), "never acknowledged") {
			t.Fatalf("cut at %d: torn %v, log %q", cut, after.Torn, log.String())
		}
		if kept, err := os.ReadFile(filepath.Join(dir, torn)); err != nil || !bytes.Equal(kept, whole[rep.Bytes:cut]) {
			t.Fatalf("cut at %d: the tail was not kept: %v", cut, err)
		}
	}
}

func TestEveryFlippedByteIsDetectedOrWasNeverFollowedByAnotherBatch(t *testing.T) {
	im := build(t, small, 2, 3, 1, 2, 2, 3, 1, 3)
	from, seq := lastBatch(t, im)
	last := im.last()
	dir := im.write(t, t.TempDir())
	head := uint64(17)
	for _, name := range im.names() {
		path, whole := filepath.Join(dir, name), im[name]
		for i := range whole {
			bit := byte(1) << (i % 8)
			if i%5 == 0 {
				bit = 0xff
			}
			damaged := slices.Clone(whole)
			damaged[i] ^= bit
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			rep, err := Verify(dir, nil)
			inLastBatch := name == last && int64(i) >= from
			switch {
			case err == nil && !inLastBatch:
				t.Fatalf("%s byte %d: not detected", name, i)
			case err == nil && (rep.Unfinished == 0 || rep.Last < seq-1):
				t.Fatalf("%s byte %d: %+v", name, i, rep)
			case err != nil && rep.Last > 0:
				var c *CorruptError
				if errors.As(err, &c) && (c.Segment == "" || c.Reason == "") {
					t.Fatalf("%s byte %d: %v does not say where", name, i, err)
				}
			}
			if name != last {
				continue
			}
			// Who remembers the head is never told that a journal without it is fine.
			if j, err := Open(dir, Options{BallastBytes: -1, Acked: head}); err == nil {
				_ = j.Close()
				t.Fatalf("%s byte %d: opened although record %d is not readable", name, i, head)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, damaged) {
				t.Fatalf("%s byte %d: a refused Open changed the segment: %v", name, i, err)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, open(t, dir, Options{BallastBytes: -1, Acked: head}), head)
}

// A power cut may keep any of the sectors of the batch that was being written and lose the others.
func TestAPowerCutThatKeepsAnySectorsOfTheLastBatchLosesNothingBefore(t *testing.T) {
	im := build(t, Options{BallastBytes: -1}, 2, 1, 40)
	name := im.last()
	from, _ := lastBatch(t, im)
	rng := rand.New(rand.NewPCG(1, 2))
	root := t.TempDir()
	for round := range 60 {
		b := slices.Clone(im[name])
		for sector := from / 512 * 512; sector < int64(len(b)); sector += 512 {
			if rng.IntN(3) == 0 {
				clear(b[max(sector, from):min(sector+512, int64(len(b)))])
			}
		}
		if rng.IntN(2) == 0 {
			b = b[:from+rng.Int64N(int64(len(b))-from)]
		}
		dir := im.with(name, b).write(t, filepath.Join(root, fmt.Sprint(round)))
		j := open(t, dir, Options{BallastBytes: -1, Acked: 3})
		seq, _ := j.Head()
		expect(t, j, seq)
		fillJournal(t, j, 2)
		shut(t, j)
		if rep, err := Verify(dir, nil); err != nil || rep.Last != seq+2 {
			t.Fatalf("round %d: %+v %v", round, rep, err)
		}
	}
}

func TestDamageBeforeALaterBatchIsRefused(t *testing.T) {
	im := build(t, Options{BallastBytes: -1}, 1, 3, 1)
	name := im.last()
	j := open(t, im.write(t, t.TempDir()), Options{ReadOnly: true})
	var pos []Position
	if err := j.Replay(1, func(r Record) error { pos = append(pos, r.Pos); return nil }); err != nil {
		t.Fatal(err)
	}
	later := int(pos[4].Offset)
	for name2, damage := range map[string]func(b []byte) []byte{
		"one bit of a payload":           func(b []byte) []byte { b[pos[1].Offset+payloadAt] ^= 1; return b },
		"a length":                       func(b []byte) []byte { b[pos[2].Offset] ^= 1; return b },
		"a huge length":                  func(b []byte) []byte { b[pos[2].Offset+3] = 0xff; return b },
		"a zeroed batch":                 func(b []byte) []byte { clear(b[pos[1].Offset:later]); return b },
		"the last record of a batch":     func(b []byte) []byte { b[later-1] ^= 0x40; return b },
		"bytes gone from the middle":     func(b []byte) []byte { return slices.Delete(b, int(pos[1].Offset)+9, int(pos[1].Offset)+20) },
		"bytes inserted into the middle": func(b []byte) []byte { return slices.Insert(b, int(pos[3].Offset), 1, 2, 3) },
	} {
		dir := im.with(name, damage(slices.Clone(im[name]))).write(t, t.TempDir())
		before := load(t, dir)
		_, err := Open(dir, Options{BallastBytes: -1})
		var c *CorruptError
		if !errors.As(err, &c) || !strings.Contains(c.Reason, "later batch") || c.Seq < 2 || c.Offset < pos[1].Offset {
			t.Errorf("%s: open: %v", name2, err)
		}
		if _, err := Verify(dir, nil); !errors.As(err, &c) {
			t.Errorf("%s: verify: %v", name2, err)
		}
		if after := load(t, dir); !bytes.Equal(after[name], before[name]) {
			t.Errorf("%s: a refused Open changed the segment", name2)
		}
	}
}

func TestAPayloadThatLooksLikeALaterRecordDoesNotBlockTheStart(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{BallastBytes: -1})
	fillJournal(t, j, 2)
	// Whoever writes such a message does not know the segment's salt.
	forged := appendRecord(nil, 0, 9, 9, new([sha256.Size]byte), new(chain.Nonce), []byte("forged"))
	if _, err := j.Append([][]byte{append([]byte("quote: "), forged...)}, nil); err != nil {
		t.Fatal(err)
	}
	shut(t, j)
	im := load(t, dir)
	from, _ := lastBatch(t, im)
	b := slices.Clone(im[im.last()])
	b[from] ^= 1
	j = open(t, im.with(im.last(), b).write(t, t.TempDir()), Options{BallastBytes: -1})
	expect(t, j, 2)
}

func TestRecordsThatAreReadableButDoNotFollowAreNeverCutOff(t *testing.T) {
	im := build(t, Options{BallastBytes: -1}, 1, 1, 1)
	name := im.last()
	h, err := readHeader(bytes.NewReader(im[name]), name, 1)
	if err != nil {
		t.Fatal(err)
	}
	from, _ := lastBatch(t, im)
	last := im[name][from:]
	prev := [sha256.Size]byte(last[24:prefixLen]) // its own hash
	nonce := chain.Nonce(last[prefixLen:])
	for what, rec := range map[string][]byte{
		"a repeated sequence": appendRecord(nil, h.seed(), 2, 2, &prev, &nonce, last[payloadAt:]),
		"a skipped sequence":  appendRecord(nil, h.seed(), 4, 4, &prev, &nonce, last[payloadAt:]),
		"an impossible batch": appendRecord(nil, h.seed(), 3, 1, &prev, &nonce, last[payloadAt:]),
		"another hash":        appendRecord(nil, h.seed(), 3, 3, new([sha256.Size]byte), &nonce, last[payloadAt:]),
		"another payload":     appendRecord(nil, h.seed(), 3, 3, &prev, &nonce, append([]byte("X"), last[payloadAt+1:]...)),
		"another nonce":       appendRecord(nil, h.seed(), 3, 3, &prev, new(chain.Nonce), last[payloadAt:]),
		"no payload":          appendRecord(nil, h.seed(), 3, 3, &prev, &nonce, nil),
	} {
		dir := im.with(name, append(slices.Clone(im[name][:from]), rec...)).write(t, t.TempDir())
		var c *CorruptError
		if _, err := Open(dir, Options{BallastBytes: -1}); !errors.As(err, &c) || c.Offset != from || c.Seq != 3 {
			t.Errorf("%s: open: %v", what, err)
		}
		if _, err := Verify(dir, nil); !errors.As(err, &c) {
			t.Errorf("%s: verify: %v", what, err)
		}
	}
}

func TestSegmentsThatAreMissingExtraOrMixedUpAreRefused(t *testing.T) {
	im := build(t, small, 4, 4, 4, 4)
	other := build(t, small, 4, 4, 4, 4) // the same records with other salts
	names := im.names()
	if len(names) != 4 {
		t.Fatal(names)
	}
	without := func(name string) image { c := im.with(name, nil); delete(c, name); return c }
	for what, c := range map[string]image{
		"the first is gone":          without(names[0]),
		"one in the middle is gone":  without(names[1]),
		"an extra copy":              im.with(segmentName(6), im[names[1]]),
		"an extra name":              im.with("old.journal", im[names[1]]),
		"two swapped":                im.with(names[1], im[names[2]]).with(names[2], im[names[1]]),
		"one of another journal":     im.with(names[1], other[names[1]]),
		"an earlier one cut":         im.with(names[1], im[names[1]][:len(im[names[1]])-1]),
		"an earlier one longer":      im.with(names[1], append(slices.Clone(im[names[1]]), 0)),
		"an earlier one empty":       im.with(names[1], nil),
		"the last without a header":  im.with(names[3], im[names[3]][:headerLen-1]),
		"the last of another length": im.with(names[3], im[names[2]]),
	} {
		dir := c.write(t, t.TempDir())
		var v, o *CorruptError
		if _, err := Verify(dir, nil); !errors.As(err, &v) {
			t.Errorf("%s: verify: %v", what, err)
		}
		if _, err := Open(dir, small); !errors.As(err, &o) {
			t.Errorf("%s: open: %v", what, err)
		}
	}

	// A missing end leaves no trace in the journal; who remembers the head notices.
	dir := without(names[3]).write(t, t.TempDir())
	o := small
	o.Acked = 16
	var c *CorruptError
	if _, err := Open(dir, o); !errors.As(err, &c) {
		t.Errorf("last segment gone: %v", err)
	}
	o.Acked = 12
	expect(t, open(t, dir, o), 12)
}

func TestAJournalWhoseSegmentsAreAllGoneIsNotStartedAnew(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{BallastBytes: 4096})
	fillJournal(t, j, 1)
	shut(t, j)
	if err := os.Remove(filepath.Join(dir, segmentName(1))); err != nil {
		t.Fatal(err)
	}
	var c *CorruptError
	if _, err := Open(dir, Options{}); !errors.As(err, &c) {
		t.Errorf("open: %v", err)
	}
	if _, err := Open(t.TempDir(), Options{Acked: 1}); !errors.As(err, &c) {
		t.Errorf("open of an empty directory by who remembers records: %v", err)
	}
	if _, err := Verify(dir, nil); !errors.As(err, &c) {
		t.Errorf("verify: %v", err)
	}
}

func TestAnUnknownVersionIsRefusedWithoutAChange(t *testing.T) {
	im := build(t, small, 1)
	b := slices.Clone(im[im.last()])
	b[8] = 3
	dir := im.with(im.last(), b).write(t, t.TempDir())
	if _, err := Open(dir, small); !errors.Is(err, ErrVersion) {
		t.Errorf("open: %v", err)
	}
	if got := load(t, dir)[im.last()]; !bytes.Equal(got, b) {
		t.Error("the segment was changed")
	}
}

func TestASegmentThatWasNeverFinishedIsRemoved(t *testing.T) {
	im := build(t, small, 2)
	dir := im.write(t, t.TempDir())
	tmp := filepath.Join(dir, segmentName(3)+tmpSuffix)
	if err := os.WriteFile(tmp, []byte("HEED"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, open(t, dir, small), 2)
	if _, err := os.Stat(tmp); !errors.Is(err, os.ErrNotExist) {
		t.Error("leftover is still there")
	}
}

func TestReplayStopsAtDamageAndNamesIt(t *testing.T) {
	im := build(t, small, 4, 4, 4)
	name := im.names()[0]
	b := slices.Clone(im[name])
	b[headerLen+prefixLen] ^= 1
	j := open(t, im.with(name, b).write(t, t.TempDir()), small) // only seams of earlier segments are checked here
	var c *CorruptError
	if err := j.Replay(1, func(Record) error { return errors.New("reached") }); !errors.As(err, &c) || c.Seq != 1 || c.Offset != headerLen {
		t.Errorf("replay: %v", err)
	}
	if _, err := j.ReadAt(Position{1, headerLen}); !errors.As(err, &c) {
		t.Errorf("read: %v", err)
	}
}

func FuzzSegment(f *testing.F) {
	h := header{version: version, first: 1}
	var valid []byte
	c := state{}
	for seq := uint64(1); seq <= 4; seq++ {
		nonce := chain.Nonce{byte(seq)}
		link := c.tip.Next(chain.Digest(nonce, payload(seq)))
		hash := link.Hash()
		valid = appendRecord(valid, h.seed(), seq, min(seq, 2), &hash, &nonce, payload(seq))
		c.advance(seq, min(seq, 2), hash, 0)
	}
	f.Add(valid, uint16(0), byte(0))
	f.Add(valid, uint16(200), byte(1))
	f.Add(valid[:len(valid)-3], uint16(70), byte(0))
	f.Add(append(slices.Clone(valid), make([]byte, 100)...), uint16(3), byte(8))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip byte) {
		b = append(h.encode(), b...)
		if i := headerLen + int(at); i < len(b) {
			b[i] ^= flip
		}
		r := bytes.NewReader(b)
		s := scan(r, "fuzz", &h, int64(len(b)))
		for {
			before := s.off
			rec, err := s.next()
			if err == nil {
				again, rerr := h.recordAt(r, "fuzz", rec.Pos.Offset, int64(len(b)))
				if rerr != nil || s.off != before+int64(len(again)) || !bytes.Equal(h.payload(again), rec.Payload) {
					t.Fatalf("record %d is not read the same twice: %v", rec.Seq, rerr)
				}
				continue
			}
			if s.off != before {
				t.Fatal("moved over damage")
			}
			if f := s.finish(r, err); f == nil && s.off == int64(len(b)) {
				t.Fatal("nothing to finish")
			}
			return
		}
	})
}
