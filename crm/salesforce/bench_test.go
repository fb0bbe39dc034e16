package salesforce_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/salesforce"
)

// BenchmarkScanMillion reads a million people, both ways, from an emulator in the same process. It prints the API calls, and
// the most heap in use above what the org itself holds: what a full read costs in memory, whatever the number of records.
func BenchmarkScanMillion(b *testing.B) {
	w := newWorld(b)
	w.org.Seed(1_000_000, 1)
	for _, mode := range []salesforce.Bulk{salesforce.BulkAlways, salesforce.BulkNever} {
		b.Run(string(mode), func(b *testing.B) {
			for b.Loop() {
				w.driver = w.open(b, func(c *salesforce.Config) { c.Bulk, c.PageSize = mode, 0 })
				began, before := time.Now(), w.org.Counters().DataCalls
				runtime.GC()
				var held, now runtime.MemStats
				runtime.ReadMemStats(&held)
				most := held.HeapAlloc
				records, pages := 0, 0
				for p, err := range w.driver.Scan(b.Context(), crm.Key{}) {
					if err != nil {
						b.Fatal(err)
					}
					records += len(p.Records)
					if pages++; pages%50 == 0 {
						runtime.GC() // what is live, not what waits to be collected
						runtime.ReadMemStats(&now)
						most = max(most, now.HeapAlloc)
					}
				}
				b.ReportMetric(float64(w.org.Counters().DataCalls-before), "calls")
				b.ReportMetric(float64(records)/time.Since(began).Seconds(), "records/s")
				b.ReportMetric(float64(most-held.HeapAlloc)/(1<<20), "MB-above")
			}
		})
	}
}
