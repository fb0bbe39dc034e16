package local_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/sms/phone"
)

var _ ledger.Ledger = (*local.Ledger)(nil)

func TestAStopBlocksBeforeItsAppendReturnsAndSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	l, err := local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ada := phone.MustParse("+12065550142")
	stop := ledger.Event{Kind: ledger.KindInbound, ID: "in/twilio/SM1", At: time.Now(), Number: ada,
		Inbound: &ledger.Inbound{Account: "twilio", ProviderID: "SM1", From: ada.String(), Body: "STOP", Verdict: reply.OptOut, Rule: "exact"}}
	for i := range 2 {
		r, err := l.Append(t.Context(), stop)
		if err != nil || r[0].Seq != 1 || r[0].Duplicate != (i == 1) {
			t.Fatalf("append %d: %+v, %v", i, r, err)
		}
		if d := l.Decide(ada); d.Reason != consent.ReasonOptedOut {
			t.Fatalf("decision %+v", d)
		}
	}
	m, existed, err := l.Open(t.Context(), ledger.Message{ID: "m1", Key: "k1", To: ada, Body: "x", Account: "twilio", CreatedAt: time.Now()}, consent.Decision{Verdict: consent.Allow, Reason: consent.OK})
	if err != nil || existed || m.Status != ledger.StatusBlocked {
		t.Fatalf("%+v %v %v", m, existed, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	rep, err := local.Verify(t.Context(), dir, nil)
	if err != nil || !rep.Sound() || rep.Index != 2 {
		t.Fatalf("%+v %v", rep, err)
	}
	l, err = local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if d := l.Decide(ada); d.Reason != consent.ReasonOptedOut {
		t.Fatalf("decision %+v", d)
	}
	n := 0
	for e, err := range l.History(t.Context(), ada) {
		if err != nil || e.Seq == 0 {
			t.Fatal(e, err)
		}
		n++
	}
	owed, err := l.Claim(t.Context(), ledger.OweBoxes, 10)
	if n != 2 || err != nil || len(owed) != 1 {
		t.Fatalf("%d events, owed %+v %v", n, owed, err)
	}
}

// An index of an earlier heed lacks what later ones keep. It is computed again, and nothing is called damaged.
func TestAnOlderIndexIsComputedAgain(t *testing.T) {
	dir := t.TempDir()
	l, err := local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ada := phone.MustParse("+12065550142")
	if _, err := l.Append(t.Context(), ledger.Event{Kind: ledger.KindConsent, At: time.Now(), Number: ada,
		Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: consent.Admin, At: time.Now()}, Actor: "max"}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Open(t.Context(), ledger.Message{ID: "m1", To: ada, Body: "x", Account: "twilio", CreatedAt: time.Now()}, consent.Decision{Verdict: consent.Allow, Reason: consent.OK}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(dir, "index.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range []string{"bystatus", "optouts", "traffic"} {
			if err := tx.DeleteBucket([]byte(b)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte("meta")).Put([]byte("format"), local.Sealed("format", []byte{1}))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	l, err = local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	blocked, out := 0, 0
	for _, err := range l.Messages(t.Context(), ledger.StatusBlocked) {
		if err != nil {
			t.Fatal(err)
		}
		blocked++
	}
	for _, err := range l.OptOuts(t.Context(), time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		out++
	}
	s, err := l.Stats(t.Context())
	if err != nil || blocked != 1 || out != 1 || s.Degraded != "" || l.Decide(ada).Verdict != consent.Block {
		t.Errorf("%d blocked, %d opt-outs, degraded %q, %v", blocked, out, s.Degraded, err)
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "index.db.before-*")); len(kept) != 1 {
		t.Errorf("the older index is kept as %q", kept)
	}
}
