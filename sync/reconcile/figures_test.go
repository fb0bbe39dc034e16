package reconcile_test

import (
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

// The figures come from the events alone, so events are what this test writes, at times of its own.
func TestTheFiguresTellWhatHappenedSinceTheReportBefore(t *testing.T) {
	w := newWorld(t)
	w.runner.Window, w.runner.Cost = 72*time.Hour, 0.01
	at := func(d time.Duration) time.Time { return began.Add(d) }
	n := func(i uint64) phone.Number { return phone.FromUint64(12065550100 + i) }
	put := func(e ledger.Event, when time.Duration) uint64 {
		t.Helper()
		e.At = at(when)
		r, err := w.ledger.Append(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		return r[0].Seq
	}
	allow := consent.Decision{Verdict: consent.Allow, Reason: consent.OK}
	open := func(id string, num phone.Number, campaign string, d consent.Decision, when time.Duration) {
		put(ledger.Event{Kind: ledger.KindOpened, Number: num, Opened: &ledger.Message{ID: id, To: num, Account: "acct", Campaign: campaign, Body: "x", Decision: d, CreatedAt: at(when)}}, when)
	}
	outcome := func(id string, num phone.Number, status ledger.Status, started, ended time.Duration) {
		put(ledger.Event{Kind: ledger.KindOutcome, Number: num, Outcome: &ledger.Outcome{Message: id, Status: status, StartedAt: at(started), ProviderID: "p" + id}}, ended)
	}
	optOut := func(num phone.Number, when time.Duration) uint64 {
		return put(ledger.Event{Kind: ledger.KindConsent, Number: num, Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: consent.Admin, At: at(when)}}}, when)
	}
	s := time.Second

	// One send before its opt-out, one under way when it comes, one begun after it that is prevented.
	open("m1", n(1), "spring", allow, 1*s)
	outcome("m1", n(1), ledger.StatusSent, 1*s, 2*s)
	open("m2", n(1), "spring", allow, 9*s)
	stop := optOut(n(1), 10*s)
	outcome("m2", n(1), ledger.StatusSent, 9*s, 11*s)
	open("m3", n(1), "spring", consent.Decision{Verdict: consent.Block, Reason: consent.ReasonOptedOut}, 12*s)
	// One that was ended while it waited is not in flight, and one whose answer never came is.
	open("m4", n(2), "", allow, 20*s)
	open("m5", n(2), "", allow, 20*s)
	second := optOut(n(2), 21*s)
	put(ledger.Event{Kind: ledger.KindOutcome, Number: n(2), Outcome: &ledger.Outcome{Message: "m4", Status: ledger.StatusBlocked, Decision: consent.Decision{Verdict: consent.Block, Reason: consent.ReasonOptedOut}, StartedAt: at(22 * s)}}, 22*s)
	outcome("m5", n(2), ledger.StatusUnknown, 20*s, 50*s)
	// The boxes: at once; first refused and then set an hour later; and set again, which counts once.
	key := func(num phone.Number, upTo uint64, class string, when time.Duration) {
		put(ledger.Event{Kind: ledger.KindWritten, Number: num, Written: &ledger.Written{UpTo: upTo, Want: true, Results: []ledger.WriteResult{{CRM: "sf", Class: class, Key: crm.Key{Object: "Contact", ID: "003A"}}}}}, when)
	}
	key(n(1), stop, "", 10*s+400*time.Millisecond)
	key(n(2), second, "park", 60*s)
	key(n(2), second, "", 21*s+time.Hour)
	key(n(1), stop, "", 2*time.Hour)
	w.clock.pass(3 * time.Hour)

	first := w.run(reconcile.Nightly).Pass.Figures
	if first == nil || first.After != 0 || first.OptOuts != 2 || first.Sent != 2 || first.Prevented["opted_out"] != 2 || first.MessageCost != 0.01 {
		t.Fatalf("figures %+v", first)
	}
	if len(first.InFlight) != 2 || first.InFlight[0].Message != "m2" || !first.InFlight[0].Started.Equal(at(9*s)) || !first.InFlight[0].Stop.Equal(at(10*s)) ||
		first.InFlight[1].Message != "m5" || first.InFlight[1].Status != ledger.StatusUnknown {
		t.Errorf("in flight %+v", first.InFlight)
	}
	if len(first.Clocks) != 1 || first.Clocks[0] != (ledger.Clock{To: "box", N: 2, P50: 400 * time.Millisecond, P95: time.Hour, Worst: time.Hour, Limit: "10 business days"}) {
		t.Errorf("clocks %+v", first.Clocks)
	}
	if len(first.Campaigns) != 2 || first.Campaigns[1] != (ledger.CampaignCount{Campaign: "spring", Sent: 2, OptOuts: 1}) {
		t.Errorf("campaigns %+v", first.Campaigns)
	}

	// The next report goes on where this one ended, and finds the beginning of what ends in its time. A box that somebody
	// unticked meanwhile and that is ticked again was reached before.
	key(n(1), stop, "", 5*time.Hour)
	key(n(3), optOut(n(3), 4*time.Hour), "", 30*24*time.Hour)
	w.clock.pass(31 * 24 * time.Hour)
	again := w.run(reconcile.Nightly).Pass.Figures
	if again.After != first.UpTo || again.OptOuts != 1 || again.Sent != 0 || len(again.InFlight) != 0 || len(again.Clocks) != 1 || again.Clocks[0].Late != 1 || again.Clocks[0].N != 1 {
		t.Errorf("figures %+v", again)
	}
	third := w.run(reconcile.Nightly).Pass.Figures
	if third.OptOuts != 0 || len(third.Clocks) != 0 || third.After != again.UpTo {
		t.Errorf("figures %+v", third)
	}
	kept, err := w.ledger.Report(t.Context(), w.run(reconcile.Manual).Pass.ID)
	if err != nil || kept.Figures == nil {
		t.Errorf("the figures are not kept: %+v, %v", kept, err)
	}
}

// heed's own confirmation is not a send that came too late; it stops the third clock.
func TestAConfirmationStopsItsClockAndIsNotInFlight(t *testing.T) {
	w := newWorld(t)
	num := phone.MustParse("+12065550142")
	put := func(e ledger.Event, when time.Duration) uint64 {
		t.Helper()
		e.At, e.Number = began.Add(when), num
		r, err := w.ledger.Append(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		return r[0].Seq
	}
	stop := put(ledger.Event{Kind: ledger.KindInbound, ID: "in/1", Inbound: &ledger.Inbound{Account: "acct", ProviderID: "1", From: num.String(), Body: "STOP", Via: ledger.ViaLog, Missed: true, Verdict: "opt_out", Rule: "exact", Keyword: "stop"}}, 0)
	put(ledger.Event{Kind: ledger.KindOpened, Opened: &ledger.Message{ID: "a1", To: num, Account: "acct", Answers: stop, Answer: ledger.AnswerStop, Body: "bye",
		Decision: consent.Decision{Verdict: consent.Allow, Reason: consent.OK}, CreatedAt: began}}, 6*time.Minute)
	put(ledger.Event{Kind: ledger.KindOutcome, Outcome: &ledger.Outcome{Message: "a1", Status: ledger.StatusSent, StartedAt: began.Add(6 * time.Minute), ProviderID: "pa1"}}, 6*time.Minute+time.Second)
	put(ledger.Event{Kind: ledger.KindTold, Told: &ledger.Told{UpTo: stop, Want: true, Results: []ledger.ToldResult{{Account: "acct"}}}}, 2*time.Second)
	w.clock.pass(time.Hour)
	f := w.run(reconcile.Nightly).Pass.Figures
	if f.Recovered != 1 || len(f.InFlight) != 0 || len(f.Clocks) != 2 || f.Clocks[0].To != "provider" || f.Clocks[0].Worst != 2*time.Second ||
		f.Clocks[1].To != "confirmation" || f.Clocks[1].Late != 1 || len(f.Campaigns) != 1 || f.Campaigns[0].OptOuts != 1 || f.Campaigns[0].Sent != 0 {
		t.Errorf("figures %+v", f)
	}
}
