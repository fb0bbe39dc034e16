package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/journal"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

var day = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func number(i int) phone.Number { return phone.MustParse(fmt.Sprintf("+1555%07d", i)) }

func stop(i int) ledger.Event {
	id := fmt.Sprintf("SM%032x", i)
	return ledger.Event{Kind: ledger.KindInbound, ID: "in/twilio/" + id, At: day, Number: number(i), Inbound: &ledger.Inbound{
		Account: "twilio", ProviderID: id, From: number(i).String(), To: "+15550100000", Body: "STOP", Via: ledger.ViaWebhook,
		Verdict: reply.OptOut, Rule: "exact", Keyword: "stop"}}
}

func mustOpen(t testing.TB, dir string, o local.Options) *local.Ledger {
	t.Helper()
	l, err := local.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustAppend(t testing.TB, l *local.Ledger, events ...ledger.Event) {
	t.Helper()
	if _, err := l.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, l *local.Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// store makes a data directory that holds some of everything: stops 0 to n-1 are opted out, number n is not.
func store(t testing.TB, n int, o local.Options) string {
	t.Helper()
	dir := t.TempDir()
	l := mustOpen(t, dir, o)
	for i := range n {
		mustAppend(t, l, stop(i))
	}
	allow := consent.Decision{Verdict: consent.Allow, Reason: consent.OK}
	key := crm.Key{Object: "Contact", ID: "003A"}
	for _, id := range []string{"m1", "m2"} {
		if _, _, err := l.Open(t.Context(), ledger.Message{ID: id, Key: "key/" + id, To: number(n), Body: "hello", Account: "twilio", CreatedAt: day}, allow); err != nil {
			t.Fatal(err)
		}
	}
	mustAppend(t, l,
		ledger.Event{Kind: ledger.KindOutcome, At: day, Number: number(n), Outcome: &ledger.Outcome{Message: "m1", Status: ledger.StatusSent, ProviderID: "SM1"}},
		ledger.Event{Kind: ledger.KindStatus, At: day, Number: number(n), Status: &ledger.StatusTold{Account: "twilio", ProviderID: "SM2", Delivery: "sent"}},
		ledger.Event{Kind: ledger.KindPass, At: day, Pass: &ledger.Pass{ID: "p", Kind: "nightly", StartedAt: day}},
		ledger.Event{Kind: ledger.KindCorrection, At: day, Number: number(0), Correction: &ledger.Correction{Pass: "p", CRM: "sf", Record: &key, Cause: "new", Action: "tick", Result: "pending"}},
		ledger.Event{Kind: ledger.KindQuarantine, At: day, Quarantine: &ledger.Quarantine{Account: "twilio", Raw: "?", Reason: "x"}},
		stop(0))
	if err := l.Mirror("sf").Put(t.Context(), []ledger.MirrorRecord{{Key: key, Numbers: []phone.Number{number(0)}}}); err != nil {
		t.Fatal(err)
	}
	if err := l.SetCursor(t.Context(), "crm/sf", "2026"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	return dir
}

// dump reads an index as bbolt has it.
func dump(t testing.TB, path string) (_ map[string]string, err error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	out := map[string]string{}
	var bucket func(prefix string, b *bbolt.Bucket) error
	bucket = func(prefix string, b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return bucket(prefix+string(k)+"/", b.Bucket(k))
			}
			out[prefix+string(k)] = string(v)
			return nil
		})
	}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error { return bucket(string(name)+"/", b) })
	})
	return out, err
}

// TestAFlippedByteNeverBecomesPermission damages one byte after the other, in the journal and in the index. Each time
// Verify names it, or it lay where nothing is stored; and whatever Open then does, nobody who opted out may be texted
// and nothing that was done may be done again.
func TestAFlippedByteNeverBecomesPermission(t *testing.T) {
	const stops = 150
	o := quick()
	o.Journal.SegmentBytes = 16 << 10
	good := store(t, stops, o)
	want, err := dump(t, filepath.Join(good, "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, pattern := range []string{"index.db", "journal/*.journal"} {
		names, _ := filepath.Glob(filepath.Join(good, pattern))
		files = append(files, names...)
	}
	if len(files) < 4 {
		t.Fatalf("want an index and several segments, have %q", files)
	}
	detected, harmless := 0, 0
	for _, path := range files {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(good, path)
		limit, stride := int(fi.Size()), 4001 // prime, so that every place within a record and a page has its turn
		if testing.Short() {
			stride = 19937
		}
		if name == "index.db" {
			limit, stride = used(t, path), 1021
		}
		for at := 0; at < limit; at += stride {
			dir := t.TempDir()
			copyTree(t, good, dir, "journal")
			copyIndex(t, good, dir)
			flip(t, filepath.Join(dir, name), int64(at))
			what := fmt.Sprintf("%s, byte %d", name, at)
			rep, err := local.Verify(t.Context(), dir, nil)
			switch {
			case err != nil:
				var corrupt *journal.CorruptError
				if !errors.As(err, &corrupt) && !errors.Is(err, journal.ErrVersion) {
					t.Fatalf("%s: verify: %v", what, err)
				}
				detected++
			case !rep.Sound():
				detected++
			case rep.IndexBehind > 0: // the newest meta page is damaged: the one before it is whole, and the journal has the rest
				detected++
			case name != "index.db":
				t.Fatalf("%s: verify found nothing", what)
			default:
				harmless++
				if have, err := dump(t, filepath.Join(dir, name)); err != nil || fmt.Sprint(have) != fmt.Sprint(want) {
					t.Fatalf("%s: verify found nothing, but the content differs (%v)", what, err)
				}
			}
			l, err := local.Open(dir, o)
			if err != nil {
				continue // refused, and said so
			}
			for i := range stops {
				if d := l.Decide(number(i)); d.Verdict != consent.Block {
					t.Fatalf("%s: the number that opted out as %d may be texted", what, i)
				}
			}
			if d := l.Decide(number(stops)); d.Verdict != consent.Allow {
				t.Errorf("%s: a number that did not opt out: %v", what, d)
			}
			for i := range 3 {
				r, err := l.Append(t.Context(), stop(i*stops/3))
				if err == nil && !r[0].Duplicate {
					t.Fatalf("%s: a repeat was taken for new", what)
				}
			}
			_ = l.Close()
			_ = os.RemoveAll(dir)
		}
	}
	t.Logf("%d flips detected, %d where nothing is stored", detected, harmless)
	if detected == 0 || harmless > 9*detected {
		t.Fatalf("%d flips detected, %d harmless: the flips miss the data", detected, harmless)
	}
}

func flip(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (at % 8)
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// copyIndex copies an index without its empty end: bbolt makes the file as long as its memory map.
func copyIndex(t testing.TB, from, to string) {
	t.Helper()
	src, err := os.Open(filepath.Join(from, "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(to, "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	b, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	size := int64(0)
	for {
		n, err := src.ReadAt(b, size)
		if !bytes.Equal(b[:n], zero[:n]) {
			if _, err := dst.WriteAt(b[:n], size); err != nil {
				t.Fatal(err)
			}
		}
		size += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := dst.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// used returns how many bytes of an index its pages take.
func used(t testing.TB, path string) int {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	n := 0
	err = db.View(func(tx *bbolt.Tx) error {
		n = int(tx.Size())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestADeletedIndexIsComputedAgainBitForBit(t *testing.T) {
	dir := store(t, 50, quick())
	index := filepath.Join(dir, "index.db")
	before, err := dump(t, index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, dir, quick()))
	after, err := dump(t, index)
	if err != nil {
		t.Fatal(err)
	}
	for k := range before { // caches are not in the journal
		if strings.HasPrefix(k, "mirrors/") || strings.HasPrefix(k, "cursors/") {
			delete(before, k)
		}
	}
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Fatalf("index differs:\n%q\n%q", before, after)
	}
	rep, err := local.Verify(t.Context(), dir, nil)
	if err != nil || !rep.Sound() || rep.IndexBehind != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
}

func TestATruncatedIndexIsRebuiltAndSaidSo(t *testing.T) {
	for _, size := range []int64{0, 1, 4096, 9000, 40000} {
		dir := store(t, 50, quick())
		if err := os.Truncate(filepath.Join(dir, "index.db"), size); err != nil {
			t.Fatal(err)
		}
		l := mustOpen(t, dir, quick())
		if d := l.Decide(number(49)); d.Verdict != consent.Block {
			t.Fatalf("index of %d bytes: %v", size, d)
		}
		st, err := l.Stats(t.Context())
		if err != nil || st.Inbound != 50 || st.Head != st.Applied || st.Degraded == "" {
			t.Fatalf("index of %d bytes: %+v, %v", size, st, err)
		}
		mustClose(t, l)
	}
}

func TestAnIndexAheadOfItsJournalIsRefused(t *testing.T) {
	dir := store(t, 5, quick())
	old := t.TempDir()
	copyTree(t, dir, old, "journal")
	l := mustOpen(t, dir, quick())
	mustAppend(t, l, stop(70), stop(71))
	mustClose(t, l)
	if err := os.RemoveAll(filepath.Join(dir, "journal")); err != nil {
		t.Fatal(err)
	}
	copyTree(t, old, dir, "journal") // an old backup is put back over the live data

	refused := func(differs bool) {
		t.Helper()
		l, err := local.Open(dir, quick())
		var behind *local.JournalBehindError
		if !errors.As(err, &behind) || behind.Differs != differs {
			if err == nil {
				mustClose(t, l)
			}
			t.Fatalf("open: %v", err)
		}
		rep, err := local.Verify(t.Context(), dir, nil)
		if err != nil || rep.Sound() {
			t.Fatalf("verify: %+v, %v", rep, err)
		}
	}
	refused(false)

	// The same when the old journal went on to the same length on another machine.
	fork := t.TempDir()
	copyTree(t, dir, fork, "journal")
	l = mustOpen(t, fork, quick())
	mustAppend(t, l, stop(80), stop(81), stop(82))
	mustClose(t, l)
	if err := os.RemoveAll(filepath.Join(dir, "journal")); err != nil {
		t.Fatal(err)
	}
	copyTree(t, fork, dir, "journal")
	refused(true)

	if err := local.Rebuild(dir, quick()); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir, quick())
	defer l.Close()
	if d := l.Decide(number(82)); d.Verdict != consent.Block {
		t.Fatal(d)
	}
}

func TestADirectoryInUseIsRefusedWithAReason(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, quick())
	defer l.Close()
	mustAppend(t, l, stop(1))
	if _, err := local.Open(dir, quick()); err == nil || !strings.Contains(err.Error(), "is another heed running?") {
		t.Fatalf("open: %v", err)
	}
	if err := local.Rebuild(dir, quick()); err == nil || !strings.Contains(err.Error(), "stop the running heed") {
		t.Fatalf("rebuild: %v", err)
	}
	rep, err := local.Verify(t.Context(), dir, nil) // the journal is checked all the same
	if err != nil || rep.IndexSkipped == "" || rep.Journal.Records != 1 {
		t.Fatalf("verify: %+v, %v", rep, err)
	}
	rep, err = l.Verify(t.Context(), nil)
	if err != nil || !rep.Sound() || rep.Index != 1 {
		t.Fatalf("verify from within: %+v, %v", rep, err)
	}
}

func TestAnIndexOfANewerVersionIsLeftAlone(t *testing.T) {
	dir := store(t, 1, quick())
	path := filepath.Join(dir, "index.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("format"), local.Sealed("format", []byte{99}))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	if _, err := local.Open(dir, quick()); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Fatalf("open: %v", err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Fatal("the index was changed")
	}
}

func TestABackupTakenInUseIsACompleteLedger(t *testing.T) {
	dir := store(t, 20, quick())
	l := mustOpen(t, dir, quick())
	defer l.Close()
	restored := t.TempDir()
	f, err := os.Create(filepath.Join(restored, "backup.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Backup(t.Context(), f), f.Close()); err != nil {
		t.Fatal(err)
	}
	untar(t, f.Name(), restored)
	r := mustOpen(t, restored, quick())
	defer r.Close()
	a, err := l.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Stats(t.Context())
	if err != nil || a.HeadHash != b.HeadHash || a.Inbound != b.Inbound || fmt.Sprint(a.Owed) != fmt.Sprint(b.Owed) {
		t.Fatalf("%+v\n%+v\n%v", a, b, err)
	}
}
