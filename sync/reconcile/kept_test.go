package reconcile

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
)

// A report can be read for as long as its ledger is kept. testdata/kept.jsonl is a small ledger as heed wrote it in November
// 2026, one event a line, and must never be written anew: a heed that cannot show its reports cannot show its users'
// either. How they are shown may change (go test -update).
func TestAReportOfAnOldLedgerIsStillReadable(t *testing.T) {
	stored, err := os.ReadFile("testdata/kept.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		line func([]byte) []byte
	}{
		{"kept", func(b []byte) []byte { return b }},
		// Before that reports knew neither the sum of received opt-outs nor what is left alone.
		{"kept-older", func(b []byte) []byte {
			if i := bytes.Index(b, []byte(`,"standing":`)); i >= 0 {
				b = append(bytes.Clone(b[:i]), "}}"...)
			}
			for _, count := range []string{`"opt_outs_applied":5,`, `"opt_outs_parked":1,`, `"opt_outs_pending":0,`, `"opt_outs_received":6,`} {
				b = bytes.ReplaceAll(b, []byte(count), nil)
			}
			return b
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := local.Open(t.TempDir(), local.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for i, line := range bytes.Split(bytes.TrimSpace(stored), []byte("\n")) {
				line = c.line(line)
				e, err := ledger.Decode(line)
				if err != nil {
					t.Fatalf("line %d: %v", i+1, err)
				}
				// Nothing that was written is passed over.
				if again, err := e.Encode(); err != nil || !bytes.Equal(again, line) {
					t.Fatalf("line %d is read as something else: %v\n%s\n%s", i+1, err, line, again)
				}
				if _, err := l.Append(t.Context(), e); err != nil {
					t.Fatalf("line %d: %v", i+1, err)
				}
			}
			n := 0
			for p, err := range l.Reports(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				if n++; n > 1 {
					continue // the newest has everything
				}
				if p.FinishedAt.IsZero() || len(p.Causes) < 6 || p.Results["pending"] > 0 {
					t.Errorf("%+v", p)
				}
				golden(t, c.name+".txt", func(w io.Writer) error { return Text(w, p, l.Corrections(t.Context(), p.ID), TextOptions{}) })
				golden(t, c.name+".json", func(w io.Writer) error { return JSON(w, p, l.Corrections(t.Context(), p.ID)) })
				golden(t, c.name+".html", func(w io.Writer) error { return HTML(w, p, l.Corrections(t.Context(), p.ID), TextOptions{}) })
				golden(t, c.name+".csv", func(w io.Writer) error { return CSV(w, p, l.Corrections(t.Context(), p.ID)) })
			}
			if n != 3 {
				t.Errorf("%d reports", n)
			}
		})
	}
}
