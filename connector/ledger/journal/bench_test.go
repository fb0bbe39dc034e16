package journal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// group is the group commit as the ledger does it: take one, drain, yield at most four times while nothing is
// waiting, commit, wake everybody. No timer.
func group(requests <-chan request, commit func(batch [][]byte) error) error {
	var batch [][]byte
	var waiting []chan<- error
	for first := range requests {
		batch, waiting = append(batch[:0], first.payload), append(waiting[:0], first.done)
		for yields := 0; yields <= 4 && len(batch) < 1024; {
			select {
			case r, ok := <-requests:
				if ok {
					batch, waiting = append(batch, r.payload), append(waiting, r.done)
					continue
				}
				yields = 5
			default:
				runtime.Gosched()
				yields++
			}
		}
		err := commit(batch)
		for _, w := range waiting {
			w <- err
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type request struct {
	payload []byte
	done    chan<- error
}

// drive lets w goroutines submit n payloads in all, each waiting for its commit, and returns records per second.
func drive(b *testing.B, w, n, size int, commit func([][]byte) error) float64 {
	b.Helper()
	requests := make(chan request, w)
	failed := make(chan error, 1)
	go func() { failed <- group(requests, commit) }()
	var wg sync.WaitGroup
	start := time.Now()
	for range w {
		wg.Go(func() {
			payload, done := bytes.Repeat([]byte("s"), size), make(chan error, 1)
			for range n / w {
				requests <- request{payload, done}
				if <-done != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	rate := float64(n/w*w) / time.Since(start).Seconds()
	close(requests)
	if err := <-failed; err != nil {
		b.Fatal(err)
	}
	return rate
}

// BenchmarkGroupCommit compares the journal with the least that could be durable: the same bytes, in the same group
// commit, written to a flat file and synced. Rounds alternate; each ratio is taken within one round, because the
// speed of a disk does not hold from one second to the next.
//
//	go test -run - -bench GroupCommit -benchtime 7x
func BenchmarkGroupCommit(b *testing.B) {
	for _, w := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("writers=%d", w), func(b *testing.B) {
			const size = 450
			n := 80 * max(w, 10)
			dir := b.TempDir()
			j, err := Open(filepath.Join(dir, "journal"), Options{BallastBytes: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			flat, err := os.Create(filepath.Join(dir, "flat"))
			if err != nil {
				b.Fatal(err)
			}
			defer flat.Close()
			var buf []byte
			prefix := make([]byte, payloadAt)
			bare := func(batch [][]byte) error {
				buf = buf[:0]
				for _, p := range batch {
					buf = append(append(buf, prefix...), p...)
				}
				if _, err := flat.Write(buf); err != nil {
					return err
				}
				return datasync(flat)
			}
			var at []Position
			ours := func(batch [][]byte) error {
				at = slices.Grow(at[:0], len(batch))[:len(batch)]
				_, err := j.Append(batch, at)
				return err
			}
			var ratios, rates []float64
			for i := 0; b.Loop(); i++ {
				var x, y float64
				if i%2 == 0 { // neither always goes first
					x, y = drive(b, w, n, size, ours), 0
					y = drive(b, w, n, size, bare)
				} else {
					y = drive(b, w, n, size, bare)
					x = drive(b, w, n, size, ours)
				}
				ratios, rates = append(ratios, x/y), append(rates, x)
			}
			slices.Sort(ratios)
			slices.Sort(rates)
			b.ReportMetric(rates[len(rates)/2], "records/s")
			b.ReportMetric(ratios[len(ratios)/2], "of-bare-median")
			b.ReportMetric(ratios[0], "of-bare-worst")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkReplay measures the rebuild of an index from records of 450 bytes.
func BenchmarkReplay(b *testing.B) {
	j, err := Open(b.TempDir(), Options{BallastBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	const n = 20_000
	batch := slices.Repeat([][]byte{bytes.Repeat([]byte("s"), 450)}, 1000)
	for range n / len(batch) {
		if _, err := j.Append(batch, nil); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		seen := 0
		if err := j.Replay(1, func(Record) error { seen++; return nil }); err != nil || seen != n {
			b.Fatal(seen, err)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkAppend measures what an append costs the processor: batches of 256 records of 450 bytes. With TMPDIR on a
// file system in memory nothing else is in it.
func BenchmarkAppend(b *testing.B) {
	j, err := Open(b.TempDir(), Options{BallastBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	batch := slices.Repeat([][]byte{bytes.Repeat([]byte("s"), 450)}, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := j.Append(batch, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/record")
}
