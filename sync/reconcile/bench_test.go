package reconcile_test

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/crmtest"
	"github.com/heed-sms/heed/sms/smstest"
	"github.com/heed-sms/heed/sync/reconcile"
)

// big is a CRM of many records that are made up as they are read.
type big struct {
	crm.Directory
	n    int
	page int
	now  func() time.Time
}

func (b big) Scan(_ context.Context, after crm.Key) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) {
		for i := 0; i < b.n; i += b.page {
			p := crm.Page{AsOf: b.now(), Total: b.n}
			for j := i; j < min(i+b.page, b.n); j++ {
				p.Records = append(p.Records, crm.Record{
					Key:    crm.Key{Object: "Contact", ID: fmt.Sprintf("003%012dAAA", j)},
					Phones: []crm.Phone{{Field: "MobilePhone", Raw: fmt.Sprintf("(%03d) 555-%04d", 206+j/10_000%700, j%10_000)}},
					Stamp:  began, ModifiedAt: began,
				})
			}
			p.Next = p.Records[len(p.Records)-1].Key
			if !yield(p, nil) {
				return
			}
		}
	}
}

// BenchmarkFullPass reads 200,000 records in pages of 2,000: the first time into an empty mirror, then against a filled one in
// which nothing has changed, which is what a night is like.
func BenchmarkFullPass(b *testing.B) {
	const records = 200_000
	open := func(b *testing.B) *world {
		w := &world{TB: b, clock: &wall{t: began}, dir: b.TempDir(), crm: crmtest.New(nil), provider: smstest.New()}
		w.open()
		w.runner.CRMs[0].Directory = big{w.crm, records, 2_000, w.clock.now}
		return w
	}
	report := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			w := open(b)
			b.StartTimer()
			w.run(reconcile.Nightly)
			b.StopTimer()
			w.ledger.Close()
			b.StartTimer()
		}
		report(b)
	})
	b.Run("unchanged", func(b *testing.B) {
		w := open(b)
		defer w.ledger.Close()
		w.run(reconcile.Nightly)
		b.ReportAllocs()
		for b.Loop() {
			w.run(reconcile.Nightly)
		}
		report(b)
	})
}
