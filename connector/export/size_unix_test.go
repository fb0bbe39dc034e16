//go:build unix

package export

import (
	"io"
	"iter"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/sms/phone"
)

// A long list is written in memory that does not grow with it. HEED_EXPORT_ROWS makes it longer: `make export`.
func TestALongListIsWrittenInBoundedMemory(t *testing.T) {
	rows := 20_000
	if s := os.Getenv("HEED_EXPORT_ROWS"); s != "" {
		var err error
		if rows, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range Formats {
		var most, written uint64
		runtime.GC()
		began := time.Now()
		err := Write(counter{&written}, f, sampled(rows, &most))
		if err != nil {
			t.Fatal(err)
		}
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		t.Logf("%s: %d rows, %d bytes in %s, heap in use at most %d MB, the process had at most %d MB", f, rows, written, time.Since(began).Round(time.Millisecond), most>>20, u.Maxrss>>10)
		if most > 96<<20 {
			t.Errorf("%s: %d MB of memory", f, most>>20)
		}
	}
}

type counter struct{ n *uint64 }

func (c counter) Write(p []byte) (int, error) { *c.n += uint64(len(p)); return io.Discard.Write(p) }

// sampled yields rows and looks at the memory now and then.
func sampled(n int, most *uint64) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		var m runtime.MemStats
		since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for i := range n {
			if i%5000 == 0 {
				runtime.ReadMemStats(&m)
				*most = max(*most, m.HeapInuse)
			}
			r := Row{Number: phone.FromUint64(12000000000 + uint64(i)*791), State: consent.OptedOut, Source: consent.Recipient, Keyword: "stop", Since: since.Add(time.Duration(i) * time.Second), Campaign: "spring"}
			if !yield(r, nil) {
				return
			}
		}
	}
}
