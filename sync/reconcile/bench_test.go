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
					Stamp:  b.now(), ModifiedAt: b.now(),
				})
			}
			p.Next = p.Records[len(p.Records)-1].Key
			if !yield(p, nil) {
				return
			}
		}
	}
}

// BenchmarkFullPass reads 20,000 records in pages of 2,000, the second time against a filled mirror.
func BenchmarkFullPass(b *testing.B) {
	w := &world{TB: b, clock: &wall{t: began}, dir: b.TempDir(), crm: crmtest.New(nil), provider: smstest.New()}
	w.open()
	defer w.ledger.Close()
	w.runner.CRMs[0].Directory = big{w.crm, 20_000, 2_000, w.clock.now}
	w.run(reconcile.Nightly)
	b.ReportAllocs()
	for b.Loop() {
		w.run(reconcile.Nightly)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/20_000, "ns/record")
}
