package salesforcefake

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// BenchmarkSeedMillion seeds a million people and prints how long it takes and how much memory the org then holds, and how
// much was taken from the system for it.
func BenchmarkSeedMillion(b *testing.B) {
	for b.Loop() {
		o := New(Options{})
		o.Seed(1_000_000, 1)
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		debug.FreeOSMemory()
		var after runtime.MemStats
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc)/(1<<20), "MB-held")
		b.ReportMetric(float64(before.Sys)/(1<<20), "MB-peak")
		if n := o.Count("Contact") + o.Count("Lead"); n < 1_000_000 {
			b.Fatalf("%d people", n)
		}
		o.Close()
	}
}
