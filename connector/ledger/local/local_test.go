package local_test

import (
	"testing"
	"time"

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
