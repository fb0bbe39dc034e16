package local_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/journal"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// The speed of a disk does not hold from one second to the next, so rounds of the things compared alternate, and
// every ratio is taken within one round. See the median and the worst; never compare figures of different runs.

// realistic returns a STOP as the webhook of a large provider brings it: about 450 bytes of form data.
func realistic(i int) ledger.Event {
	e := stop(i)
	id := e.Inbound.ProviderID
	e.Inbound.Raw = "ToCountry=US&ToState=WA&SmsMessageSid=" + id + "&NumMedia=0&ToCity=SEATTLE&SmsSid=" + id +
		"&OptOutType=STOP&SmsStatus=received&Body=STOP&MessagingServiceSid=MG0123456789abcdef&NumSegments=1&MessageSid=" + id + "&AccountSid=AC0123456789abcdef"
	e.Inbound.Signature = "0123456789012345678901234567"
	return e
}

const writers, perRound = 256, 80 * 256

// drive lets the writers call do for n numbers each, from base on, and returns calls per second.
func drive(b *testing.B, base int, do func(i int) error) float64 {
	b.Helper()
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	start := time.Now()
	for w := range writers {
		wg.Go(func() {
			for k := range perRound / writers {
				if err := do(base + k*writers + w); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	return perRound / time.Since(start).Seconds()
}

// grouped returns a call that hands its payload to one committing goroutine and waits: the group commit of the
// engine, with another commit in its place.
func grouped(b *testing.B, commit func([][]byte) error) func([]byte) error {
	type request struct {
		payload []byte
		done    chan error
	}
	requests := make(chan request, 1024)
	b.Cleanup(func() { close(requests) })
	go func() {
		for r := range requests {
			batch, waiting := [][]byte{r.payload}, []chan error{r.done}
			for idle := 0; idle <= 4; {
				select {
				case r, ok := <-requests:
					if ok {
						batch, waiting, idle = append(batch, r.payload), append(waiting, r.done), 0
						continue
					}
				default:
				}
				idle++
				runtime.Gosched()
			}
			err := commit(batch)
			for _, w := range waiting {
				w <- err
			}
		}
	}()
	return func(p []byte) error {
		done := make(chan error, 1)
		requests <- request{p, done}
		return <-done
	}
}

// BenchmarkAppend compares a recorded opt-out (encoded, journalled, deduplicated, decided, indexed behind) with the
// journal alone and with the least that could be durable: the same bytes, grouped, written and synced.
//
//	go test -run - -bench Append -benchtime 7x ./connector/ledger/local
func BenchmarkAppend(b *testing.B) {
	dir := b.TempDir()
	l := mustOpen(b, filepath.Join(dir, "full"), quick())
	defer l.Close()
	j, err := journal.Open(filepath.Join(dir, "journal"), journal.Options{BallastBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	flat, err := os.Create(filepath.Join(dir, "flat"))
	if err != nil {
		b.Fatal(err)
	}
	defer flat.Close()
	bare := grouped(b, func(batch [][]byte) error {
		var buf []byte
		for _, p := range batch {
			buf = append(buf, p...)
		}
		if _, err := flat.Write(buf); err != nil {
			return err
		}
		return unix.Fdatasync(int(flat.Fd()))
	})
	at := make([]journal.Position, 0, 4096)
	alone := grouped(b, func(batch [][]byte) error {
		at = slices.Grow(at[:0], len(batch))[:len(batch)]
		_, err := j.Append(batch, at)
		return err
	})
	payload, err := realistic(1).Encode()
	if err != nil {
		b.Fatal(err)
	}
	contenders := []func(base int) float64{
		func(base int) float64 {
			return drive(b, base, func(i int) error {
				_, err := l.Append(context.Background(), realistic(i))
				return err
			})
		},
		func(base int) float64 { return drive(b, base, func(int) error { return alone(payload) }) },
		func(base int) float64 { return drive(b, base, func(int) error { return bare(payload) }) },
	}
	var rates, ofJournal, ofBare []float64
	for round := 0; b.Loop(); round++ {
		var rate [3]float64
		for k := range contenders { // each goes first in turn
			k = (k + round) % len(contenders)
			rate[k] = contenders[k](round * perRound)
			if k == 0 { // the index catches up on nobody else's time
				b.StopTimer()
				if _, err := l.Stats(context.Background()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		}
		rates, ofJournal, ofBare = append(rates, rate[0]), append(ofJournal, rate[0]/rate[1]), append(ofBare, rate[0]/rate[2])
	}
	for _, s := range [][]float64{rates, ofJournal, ofBare} {
		slices.Sort(s)
	}
	b.ReportMetric(rates[len(rates)/2], "records/s")
	b.ReportMetric(ofBare[len(ofBare)/2], "of-bare-median")
	b.ReportMetric(ofBare[0], "of-bare-worst")
	b.ReportMetric(ofJournal[len(ofJournal)/2], "of-journal-median")
	b.ReportMetric(ofJournal[0], "of-journal-worst")
	b.ReportMetric(float64(len(payload)), "B/event")
	b.ReportMetric(0, "ns/op")
}

// million returns a data directory with a million opted-out numbers.
func million(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	j, err := journal.Open(filepath.Join(dir, "journal"), journal.Options{BallastBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	var batch [][]byte
	for i := range n {
		p, err := realistic(i).Encode()
		if err != nil {
			b.Fatal(err)
		}
		if batch = append(batch, p); len(batch) == 4096 || i == n-1 {
			if _, err := j.Append(batch, nil); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkMillion measures what depends on the number of numbers: computing the index, starting with it, deciding.
//
//	go test -run - -bench Million -benchtime 1x ./connector/ledger/local
func BenchmarkMillion(b *testing.B) {
	const n = 1_000_000
	dir := million(b, n)
	b.Run("rebuild", func(b *testing.B) {
		for b.Loop() {
			_ = os.Remove(filepath.Join(dir, "index.db"))
			mustClose(b, mustOpen(b, dir, quick()))
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			mustClose(b, mustOpen(b, dir, quick()))
		}
		b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/start")
	})
	l := mustOpen(b, dir, quick())
	defer l.Close()
	find := func(name string, q ledger.Query) {
		b.Run("find/"+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := l.Find(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/page")
		})
	}
	find("first time", ledger.Query{}) // makes the table
	find("newest", ledger.Query{})
	find("last digits", ledger.Query{Ends: "4711"})
	find("state, source and dates", ledger.Query{States: []consent.State{consent.OptedOut}, Sources: []consent.Source{consent.Admin}, Since: time.Now().Add(-time.Hour)})
	find("campaign", ledger.Query{Campaign: "spring", Window: time.Hour})
	b.Run("decide", func(b *testing.B) {
		b.ReportAllocs()
		if d := l.Decide(number(n - 1)); d.Verdict != consent.Block {
			b.Fatal(d)
		}
		random := rand.New(rand.NewPCG(1, 2))
		probes := make([]phone.Number, 1<<16) // half of them unknown numbers
		for i := range probes {
			probes[i] = number(random.IntN(2 * n))
		}
		for i := 0; b.Loop(); i++ {
			l.Decide(probes[i&(1<<16-1)])
		}
	})
}

// BenchmarkMirrorAfterPurge compares storing records in a mirror of which half was deleted with storing them in a fresh one of
// the same number of records. A store that pays for its free pages at every commit gets slower here.
//
//	go test -run - -bench MirrorAfterPurge -benchtime 5x ./connector/ledger/local
func BenchmarkMirrorAfterPurge(b *testing.B) {
	const n, page = 1_000_000, 2000
	records := func(from int) []ledger.MirrorRecord {
		out := make([]ledger.MirrorRecord, page)
		for i := range out {
			out[i] = ledger.MirrorRecord{Key: crm.Key{Object: "Contact", ID: fmt.Sprintf("003%012dAAA", from+i)}, Numbers: []phone.Number{number(from + i)},
				Stamp: time.Unix(1_790_000_000, 0), SeenAt: time.Unix(1_790_000_000, 0)}
		}
		return out
	}
	ctx := b.Context()
	fill := func(name string, n int) ledger.Mirror {
		l := mustOpen(b, filepath.Join(b.TempDir(), name), quick())
		b.Cleanup(func() { mustClose(b, l) })
		m := l.Mirror("sf")
		for from := 0; from < n; from += page {
			if err := m.Put(ctx, records(from)); err != nil {
				b.Fatal(err)
			}
		}
		return m
	}
	fresh, purged := fill("fresh", n/2), fill("purged", n)
	for from := 0; from < n; from += 2 * page { // every other page, so that free pages lie between used ones
		var keys []crm.Key
		for _, r := range records(from) {
			keys = append(keys, r.Key)
		}
		if err := purged.Delete(ctx, keys); err != nil {
			b.Fatal(err)
		}
	}
	const batches = 25
	rate := func(m ledger.Mirror, round int) float64 {
		began := time.Now()
		for i := range batches {
			if err := m.Put(ctx, records(2*n+(round*batches+i)*page)); err != nil {
				b.Fatal(err)
			}
		}
		return batches * page / time.Since(began).Seconds()
	}
	var ratios []float64
	for round := 0; b.Loop(); round++ {
		var f, p float64
		if round%2 == 0 {
			f = rate(fresh, round)
			p = rate(purged, round)
		} else {
			p = rate(purged, round)
			f = rate(fresh, round)
		}
		ratios = append(ratios, p/f)
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "of-fresh-median")
	b.ReportMetric(ratios[0], "of-fresh-worst")
	b.ReportMetric(0, "ns/op")
}
