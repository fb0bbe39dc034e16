package salesforcefake

import (
	"testing"
	"time"
)

func BenchmarkSeedMillion(b *testing.B) {
	for b.Loop() {
		began := time.Now()
		o := New(Options{})
		o.Seed(1_000_000, 1)
		b.Logf("seeded 1,000,000 people in %v: %d contacts, %d leads", time.Since(began), o.Count("Contact"), o.Count("Lead"))
	}
}
