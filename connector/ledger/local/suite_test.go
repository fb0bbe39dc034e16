package local_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/journal"
	"github.com/heed-sms/heed/connector/ledger/ledgertest"
	"github.com/heed-sms/heed/connector/ledger/local"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir) // does not return
	}
	goleak.VerifyTestMain(m)
}

// quick are options for tests: the reserve for a full disk takes time to make and is tested in package journal.
func quick() local.Options {
	return local.Options{Journal: journal.Options{BallastBytes: -1}}
}

func TestTheEngineKeepsTheLedgersContract(t *testing.T) {
	ledgertest.Run(t, func(t testing.TB, o ledgertest.Options) ledgertest.Opened {
		opts := quick()
		opts.Policy, opts.Now = o.Policy, o.Now
		dir := t.TempDir()
		open := func(t testing.TB) *local.Ledger {
			t.Helper()
			l, err := local.Open(dir, opts)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := open(t)
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		return ledgertest.Opened{
			Ledger: l,
			Reopen: func(t testing.TB) ledger.Ledger {
				t.Helper()
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = open(t)
				return l
			},
			// The files as the kernel has them are what a killed process leaves behind. The index is copied first, so
			// that it is never ahead of the journal.
			Kill: func(t testing.TB) ledger.Ledger {
				t.Helper()
				next := t.TempDir()
				if _, err := l.Stats(t.Context()); err != nil { // the index has caught up: nobody writes to it now
					t.Fatal(err)
				}
				copyIndex(t, dir, next)
				copyTree(t, dir, next, "journal")
				old := l
				t.Cleanup(func() { _ = old.Close() })
				dir = next
				l = open(t)
				return l
			},
		}
	})
}
