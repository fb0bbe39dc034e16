package admin_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/people"
	"github.com/heed-sms/heed/sms/phone"
)

// optOuts appends n opt-outs of several sources, over five years up to now; to each fifth number a campaign was sent
// before. What they made owed is done.
func (h *house) optOuts(n int) {
	h.t.Helper()
	sources := []consent.Source{consent.Provider, consent.Provider, consent.Provider, consent.Provider, consent.CRM, consent.API}
	begin := h.now().UTC().AddDate(-5, 0, 0)
	gap := h.now().UTC().Sub(begin) / time.Duration(n)
	var events []ledger.Event
	for i := range n {
		num, at := phone.FromUint64(12000000000+uint64(i)*791), begin.Add(time.Duration(i)*gap)
		if i%5 == 0 {
			id := "msg_" + strconv.Itoa(i)
			events = append(events, ledger.Event{Kind: ledger.KindOpened, At: at.Add(-time.Hour), Number: num, Opened: &ledger.Message{ID: id, To: num, Body: "hi", Account: "main", Campaign: "campaign-" + strconv.Itoa(i%97), CreatedAt: at.Add(-time.Hour), Decision: consent.Decision{Verdict: consent.Allow, Reason: consent.OK}}},
				ledger.Event{Kind: ledger.KindOutcome, At: at.Add(-time.Hour), Number: num, Outcome: &ledger.Outcome{Message: id, Status: ledger.StatusSent, ProviderID: "SM" + strconv.Itoa(i), From: sender}})
		}
		source := sources[i%len(sources)]
		events = append(events, ledger.Event{Kind: ledger.KindConsent, At: at, Number: num, Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: source, At: at}}},
			ledger.Event{Kind: ledger.KindWritten, At: at, Number: num, Written: &ledger.Written{UpTo: 1 << 40, Want: true}})
		if source != consent.Provider {
			events = append(events, ledger.Event{Kind: ledger.KindTold, At: at, Number: num, Told: &ledger.Told{UpTo: 1 << 40, Want: true}})
		}
		if len(events) > 2000 || i == n-1 {
			if _, err := h.l.Append(h.t.Context(), events...); err != nil {
				h.t.Fatal(err)
			}
			events = events[:0]
		}
	}
}

// serve has the page answer without a network in between, and returns how long it took.
func (b browser) serve(path string, w http.ResponseWriter) time.Duration {
	b.h.t.Helper()
	r := httptest.NewRequestWithContext(b.h.t.Context(), "GET", path, nil)
	r.Header.Set("Accept", "text/html")
	for _, c := range b.c.Jar.Cookies(must(url.Parse(b.h.srv.URL))) {
		r.AddCookie(c)
	}
	began := time.Now()
	b.h.page.ServeHTTP(w, r)
	return time.Since(began)
}

// sink counts what is written.
type sink struct {
	head   http.Header
	n      int
	status int
}

func (s *sink) Header() http.Header              { return s.head }
func (s *sink) WriteHeader(status int)           { s.status = status }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) Write(p []byte) (int, error)      { s.n += len(p); return len(p), nil }

// most watches the memory while do does something, and returns by how much it grew: what is alive, and what the process
// has.
func most(do func()) (live, size uint64) {
	runtime.GC()
	look := func() (uint64, uint64) {
		m := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(m)
		return m[0].Value.Uint64(), resident()
	}
	live0, size0 := look()
	end, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for {
			l, s := look()
			live, size = max(live, l), max(size, s)
			select {
			case <-end:
				return
			case <-again.C:
			}
		}
	}()
	do()
	close(end)
	<-ended
	return max(live, live0) - live0, max(size, size0) - size0
}

// resident returns how much memory the process has, 0 where that cannot be read.
func resident() uint64 {
	b, _ := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(f[1], 10, 64)
	return pages * uint64(os.Getpagesize())
}

// An export must not keep what it has written: twice the rows, and no more memory.
func TestAnExportAllocatesLittleForEachRow(t *testing.T) {
	const rows = 10_000
	h := newHouse(t)
	h.optOuts(rows)
	b := h.person("oda", people.Operator)
	for _, format := range []string{"csv", "json", "xlsx"} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := &sink{head: http.Header{}}
		b.serve("/optouts/export?format="+format, s)
		runtime.ReadMemStats(&after)
		perRow := (after.TotalAlloc - before.TotalAlloc) / rows
		runtime.GC()
		runtime.ReadMemStats(&after)
		left := int64(after.HeapInuse) - int64(before.HeapInuse)
		t.Logf("%s: %d bytes, %d bytes allocated for each row, %d KB left", format, s.n, perRow, left>>10)
		if s.n < rows*20 && format != "xlsx" || perRow > 12<<10 || left > 8<<20 {
			t.Errorf("%s: %d bytes, %d bytes allocated for each row, %d KB left", format, s.n, perRow, left>>10)
		}
	}
}

// With HEED_OPTOUTS numbers (make bench has a million): each page that people wait for within 100 ms, and exports in
// memory that does not grow with the list.
func TestAMillionOptOuts(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("HEED_OPTOUTS"))
	if n == 0 {
		t.Skip("set HEED_OPTOUTS=1000000 to measure the page with a million opt-outs (make bench)")
	}
	h := newHouse(t)
	began := time.Now()
	h.optOuts(n)
	t.Logf("%d opt-outs recorded in %s", n, time.Since(began).Round(time.Second))
	b := h.person("oda", people.Operator)
	ask := func(path string) time.Duration {
		t.Helper()
		w := httptest.NewRecorder()
		took := b.serve(path, w)
		if w.Code != 200 {
			t.Fatalf("%s: HTTP %d", path, w.Code)
		}
		return took
	}
	t.Logf("%-70s %8s", "the list, the first time since the start", ask("/optouts").Round(100*time.Microsecond))
	known := phone.FromUint64(12000000000 + uint64(n/2/5*5)*791)
	day := h.now().AddDate(0, 0, -40).Format(time.DateOnly)
	for _, path := range []string{"/optouts", "/optouts?ends=4711", "/optouts?ends=1", "/optouts?state=opted_out&source=crm", "/optouts?from=" + day + "&to=" + day, "/optouts?campaign=campaign-35", "/optouts?source=api&campaign=campaign-0&ends=5",
		"/numbers/" + known.String(), "/", "/analytics", "/messages?status=sent", "/work"} {
		var took []time.Duration
		for range 15 {
			took = append(took, ask(path))
		}
		slices.Sort(took)
		t.Logf("%-70s median %8s  worst %8s", path, took[7].Round(100*time.Microsecond), took[14].Round(100*time.Microsecond))
		if took[7] > 100*time.Millisecond && path != "/analytics" { // which goes through three months of opt-outs

			t.Errorf("%s takes %s", path, took[7])
		}
	}
	// One that changes between two requests, as in real life.
	h.text(known, "STOP")
	t.Logf("%-70s %8s", "the list, after a change", ask("/optouts").Round(100*time.Microsecond))
	for _, format := range []string{"csv", "json", "xlsx"} {
		s := &sink{head: http.Header{}}
		var took time.Duration
		live, size := most(func() { took = b.serve("/optouts/export?format="+format, s) })
		t.Logf("export as %-4s %4d MB in %6s; more than before, at most: alive %s, resident %s", format, s.n>>20, took.Round(100*time.Millisecond), megabytes(live), megabytes(size))
		if live > 32<<20 || size > 256<<20 {
			t.Errorf("%s: alive %s, resident %s", format, megabytes(live), megabytes(size))
		}
	}
}

func megabytes(b uint64) string { return fmt.Sprintf("%d MB", b>>20) }
