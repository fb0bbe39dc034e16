package chain

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// build returns the hashes and links of a chain by its definition alone, with all hashes at hand.
func build(n uint64) (hashes []Hash, links []Link) {
	hashes, links = make([]Hash, n+1), make([]Link, n+1)
	for seq := uint64(1); seq <= n; seq++ {
		l := Link{Seq: seq, Prev: hashes[seq-1], Skip: hashes[Skip(seq)], Digest: Digest(Nonce{byte(seq)}, []byte("x"))}
		b := []byte("heed journal 2\n")
		b = binary.BigEndian.AppendUint64(b, seq)
		b = append(append(append(b, l.Prev[:]...), l.Skip[:]...), l.Digest[:]...)
		hashes[seq], links[seq] = sha256.Sum256(b), l
	}
	return hashes, links
}

func TestATipKnowsEveryHashThatALaterRecordRestsOn(t *testing.T) {
	hashes, links := build(3000)
	var tip Tip
	for seq := uint64(1); seq < uint64(len(hashes)); seq++ {
		l := tip.Next(links[seq].Digest)
		if l != links[seq] {
			t.Fatalf("record %d rests on %x and %x, want %x and %x", seq, l.Prev, l.Skip, links[seq].Prev, links[seq].Skip)
		}
		if l.Hash() != hashes[seq] {
			t.Fatalf("record %d: another hash than the definition's", seq)
		}
		before := tip.Clone()
		tip.Add(l.Hash())
		if before.Seq() != seq-1 || tip.Seq() != seq || tip.Hash() != hashes[seq] {
			t.Fatalf("tip at %d, want %d", tip.Seq(), seq)
		}
		if len(tip.Hashes()) != TipSize(seq) || TipSize(seq) > bits.Len64(seq)+1 {
			t.Fatalf("tip of %d records has %d hashes, TipSize says %d", seq, len(tip.Hashes()), TipSize(seq))
		}
		tip = NewTip(seq, tip.Hashes()) // as if read from a header
	}
}

func TestEveryRecordIsReachedFromEveryLaterOneInFewSteps(t *testing.T) {
	hashes, links := build(600)
	walk := func(from, to uint64) {
		seq, h := from, hashes[from]
		for _, next := range Path(from, to) {
			l := links[next]
			if !l.Follows(seq, h) {
				t.Fatalf("%d to %d: record %d does not rest on %d", from, to, next, seq)
			}
			seq, h = next, l.Hash()
		}
		if seq != to || h != hashes[to] {
			t.Fatalf("%d to %d: arrived at %d", from, to, seq)
		}
	}
	for to := uint64(1); to < uint64(len(hashes)); to++ {
		for from := uint64(0); from <= to; from++ {
			walk(from, to)
		}
	}
	if p := Path(7, 7); len(p) != 0 {
		t.Errorf("a path from a record to itself: %v", p)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		to := 1 + rng.Uint64N(1<<(1+rng.IntN(50)))
		from := rng.Uint64N(to)
		if steps, limit := len(Path(from, to)), 3*bits.Len64(to); steps > limit {
			t.Fatalf("%d to %d: %d steps, more than %d", from, to, steps, limit)
		}
	}
}

func TestALinkRestsOnNothingElse(t *testing.T) {
	hashes, links := build(100)
	for seq := uint64(1); seq <= 100; seq++ {
		for other := range hashes {
			want := uint64(other) == seq-1 || uint64(other) == Skip(seq)
			if got := links[seq].Follows(uint64(other), hashes[other]); got != want {
				t.Errorf("record %d follows %d: %v", seq, other, got)
			}
			if links[seq].Follows(uint64(other), Hash{1}) {
				t.Errorf("record %d follows another hash", seq)
			}
		}
	}
	if links[7].Follows(7, hashes[7]) {
		t.Error("a record follows itself")
	}
}

func TestEveryPartOfALinkCounts(t *testing.T) {
	_, links := build(9)
	l := links[6]
	h := l.Hash()
	for name, change := range map[string]func(*Link){
		"seq": func(l *Link) { l.Seq++ }, "prev": func(l *Link) { l.Prev[31] ^= 1 },
		"skip": func(l *Link) { l.Skip[0] ^= 1 }, "digest": func(l *Link) { l.Digest[9] ^= 1 },
	} {
		c := l
		change(&c)
		if c.Hash() == h {
			t.Errorf("%s does not change the hash", name)
		}
	}
	if Digest(Nonce{1}, []byte("a")) == Digest(Nonce{2}, []byte("a")) || Digest(Nonce{}, []byte("a")) == Digest(Nonce{}, []byte("b")) {
		t.Error("nonce or payload does not change the digest")
	}
}

func TestADigestIsOfNonceAndPayload(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for length := range 2100 {
		payload := make([]byte, length)
		for i := range payload {
			payload[i] = byte(rng.Uint32())
		}
		nonce := Nonce{1, byte(length)}
		if want := sha256.Sum256(append(slices.Clone(nonce[:]), payload...)); Digest(nonce, payload) != want {
			t.Fatalf("digest of %d bytes is another one", length)
		}
	}
}

func TestSkipsAreAsDocumented(t *testing.T) {
	var got []uint64
	for n := range uint64(16) {
		got = append(got, Skip(n))
	}
	if want := []uint64{0, 0, 1, 0, 3, 4, 3, 0, 7, 8, 7, 10, 11, 10, 7, 0}; !slices.Equal(got, want) {
		t.Errorf("skips %v, want %v", got, want)
	}
	if s := fmt.Sprint(Skip(1<<64-1), Skip(1<<64-2), TipSize(1<<64-1), TipSize(1<<64-2)); s != fmt.Sprintf("0 %d 1 2", uint64(1<<63-1)) {
		t.Errorf("at the end of the numbers: %s", s)
	}
}

func BenchmarkLink(b *testing.B) {
	var tip Tip
	payload := make([]byte, 450)
	for b.Loop() {
		l := tip.Next(Digest(Nonce{1}, payload))
		tip.Add(l.Hash())
	}
}
