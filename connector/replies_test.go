package connector_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/confirm"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sms/smstest"
)

// answering makes heed the one that answers on the account.
func (r *rig) answering(owner confirm.Owner) {
	as := connector.Accounts{{Name: "main", Provider: r.provider, Replies: owner}}
	r.inbox.Accounts, r.gate.Accounts, r.times.Accounts, r.lists.Accounts = as, as, as, as
}

func (r *rig) flagged(n phone.Number, to, body string, flag sms.Flag) {
	r.t.Helper()
	if _, err := r.inbox.Receive(r.t.Context(), "main", r.provider.Text(n.String(), to, body, flag), ""); err != nil {
		r.t.Fatal(err)
	}
}

func TestExactlyOneConfirmationFromWhoeverOwnsIt(t *testing.T) {
	for _, c := range []struct {
		name  string
		owner confirm.Owner
		to    string
		flag  sms.Flag
		want  int
	}{
		{"heed's sender", confirm.ByHeed, sender, sms.FlagNone, 1},
		{"the provider's sender", confirm.ByProvider, sender, sms.FlagNone, 0},
		{"the network's sender", confirm.ByNetwork, sender, sms.FlagNone, 0},
		{"nobody configured: the provider's", "", sender, sms.FlagNone, 0},
		{"toll-free is the network's whatever is configured", confirm.ByHeed, "+18005550100", sms.FlagNone, 0},
		{"the provider's flag says that it has answered", confirm.ByHeed, sender, sms.FlagStop, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.answering(c.owner)
			for range 3 { // the person insists; a second confirmation would be one too many
				r.flagged(ada, c.to, "STOP", c.flag)
				r.flush()
				r.flush()
			}
			sent := r.provider.Sent()
			if len(sent) != c.want {
				t.Fatalf("%d texts, want %d", len(sent), c.want)
			}
			if c.want == 1 && (sent[0].From != sender || sent[0].To != ada.String() || !strings.Contains(sent[0].Body, "Acme")) {
				t.Errorf("%+v", sent[0].Message)
			}
			if m := r.send(ada.String()); m.Status != ledger.StatusBlocked {
				t.Errorf("the confirmation opened the gate for others: %s", m.Status)
			}
		})
	}
}

func TestAConfirmationIsNeverSentTwiceWhateverCrashed(t *testing.T) {
	t.Run("after the attempt was recorded", func(t *testing.T) {
		r := newRig(t)
		r.answering(confirm.ByHeed)
		r.text(ada, "STOP")
		// heed dies here, with the attempt in the ledger and nobody knowing whether it was made.
		if _, _, err := r.ledger.Open(t.Context(), ledger.Message{ID: "msg_x", Key: "answer/1", To: ada, Body: "x", Account: "main", Answers: 1, Answer: ledger.AnswerStop,
			CreatedAt: time.Now()}, consent.Decision{Verdict: consent.Allow, Reason: consent.OK}); err != nil {
			t.Fatal(err)
		}
		r.flush()
		if n := r.provider.Attempts(); n != 0 {
			t.Errorf("%d attempts", n)
		}
	})
	t.Run("the answer was lost", func(t *testing.T) {
		r := newRig(t)
		r.answering(confirm.ByHeed)
		r.provider.LoseNextAnswers(1)
		r.text(ada, "STOP")
		r.flush()
		r.flush()
		if n := r.provider.Attempts(); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
	t.Run("the webhook came again", func(t *testing.T) {
		r := newRig(t)
		r.answering(confirm.ByHeed)
		w := r.provider.Text(ada.String(), sender, "STOP", sms.FlagNone)
		for range 5 {
			if _, err := r.inbox.Receive(t.Context(), "main", w, ""); err != nil {
				t.Fatal(err)
			}
			r.flush()
		}
		if n := r.provider.Attempts(); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

func TestALateConfirmationIsNotSent(t *testing.T) {
	r := newRig(t)
	r.answering(confirm.ByHeed)
	r.text(ada, "STOP")
	r.answers.Now = func() time.Time { return time.Now().Add(6 * time.Minute) }
	r.flush()
	if n := r.provider.Attempts(); n != 0 {
		t.Errorf("%d attempts", n)
	}
	for o, err := range r.ledger.Owed(t.Context()) {
		if err != nil || o.Kind == ledger.OweAnswer {
			t.Errorf("still owed: %+v %v", o, err)
		}
	}
}

func TestHelpAndStartAreAnsweredWhereTheProviderDoesNot(t *testing.T) {
	r := newRig(t)
	r.answering(confirm.ByHeed)
	r.text(ada, "HELP")
	r.text(ada, "start")
	r.flush()
	r.flush()
	var bodies []string
	for _, s := range r.provider.Sent() {
		bodies = append(bodies, s.Body)
	}
	if len(bodies) != 2 || !strings.Contains(bodies[0], "help.example.com") || !strings.Contains(bodies[1], "STOP") {
		t.Errorf("%q", bodies)
	}
	// After a STOP its confirmation is the last text: HELP is not answered any more.
	r.text(ada, "STOP")
	r.flush()
	r.text(ada, "HELP")
	r.flush()
	if n := len(r.provider.Sent()); n != 3 {
		t.Errorf("%d texts, want 3", n)
	}
}

func TestConfirmationsSpeakTheLanguageOfTheReply(t *testing.T) {
	for body, want := range map[string]string{"BAJA": "Baja", "ARRET": "Désabonnement", "ABMELDEN": "abgemeldet", "SAIR": "Cancelamento", "STOP": "unsubscribed"} {
		r := newRig(t)
		r.answering(confirm.ByHeed)
		r.text(ada, body)
		r.flush()
		if sent := r.provider.Sent(); len(sent) != 1 || !strings.Contains(sent[0].Body, want) {
			t.Errorf("%s: %+v", body, sent)
		}
	}
}

func TestAnUnclearReplyIsHeldUntilAPersonDecidesOrTheDeadlinePasses(t *testing.T) {
	const unclear = "STOP 12345"
	hold := func(t *testing.T) *rig {
		r := newRig(t)
		r.text(ada, unclear)
		if m := r.send(ada.String()); m.Status != ledger.StatusHeld || m.Decision.Reason != consent.HeldForReview || r.provider.Attempts() != 0 {
			t.Fatalf("%+v", m)
		}
		held, err := r.holds.List(t.Context())
		if err != nil || len(held) != 1 || held[0].Text != unclear || held[0].Deadline.Sub(held[0].Since) < 5*24*time.Hour {
			t.Fatalf("%+v %v", held, err)
		}
		return r
	}
	t.Run("a request to stop", func(t *testing.T) {
		r := hold(t)
		if err := r.consents.Resolve(t.Context(), ada, true, 0, "max", "it is one"); err != nil {
			t.Fatal(err)
		}
		if r.ledger.State(ada) != consent.OptedOut {
			t.Error("not opted out")
		}
		if err := r.consents.Set(t.Context(), ada, consent.OptedIn, consent.Admin, "max", "oops"); !errors.Is(err, connector.ErrSticky) {
			t.Errorf("it was the recipient's wish: %v", err)
		}
	})
	t.Run("not a request", func(t *testing.T) {
		r := hold(t)
		if err := r.consents.Resolve(t.Context(), ada, false, 0, "max", "an order number"); err != nil {
			t.Fatal(err)
		}
		if m := r.send(ada.String()); m.Status != ledger.StatusSent {
			t.Errorf("%+v", m)
		}
		if err := r.consents.Resolve(t.Context(), ada, false, 0, "max", ""); !errors.Is(err, connector.ErrNotHeld) {
			t.Errorf("a second decision: %v", err)
		}
	})
	t.Run("nobody decides", func(t *testing.T) {
		r := hold(t)
		if err := r.holds.Flush(t.Context()); err != nil || r.ledger.State(ada) != consent.Held {
			t.Fatal("too early", err)
		}
		r.holds.Now = func() time.Time { return time.Now().AddDate(0, 0, 8) }
		for range 2 {
			if err := r.holds.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if r.ledger.State(ada) != consent.OptedOut {
			t.Error("the deadline passed and it is no opt-out")
		}
		if held, err := r.holds.List(t.Context()); err != nil || len(held) != 0 {
			t.Errorf("still in the queue: %v %v", held, err)
		}
	})
	t.Run("a clear STOP decides", func(t *testing.T) {
		r := hold(t)
		r.text(ada, "STOP")
		if held, err := r.holds.List(t.Context()); err != nil || len(held) != 0 || r.ledger.State(ada) != consent.OptedOut {
			t.Errorf("%v %v", held, err)
		}
	})
}

func TestOnlyTheRecipientLiftsTheRecipientsStop(t *testing.T) {
	r := newRig(t)
	r.text(ada, "STOP")
	for _, s := range []consent.Source{consent.Admin, consent.API, consent.CRM} {
		if err := r.consents.Set(t.Context(), ada, consent.OptedIn, s, "x", "y"); !errors.Is(err, connector.ErrSticky) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if _, err := r.consents.Ask(t.Context(), ada, "", "en", consent.API, "x", "web form"); !errors.Is(err, connector.ErrSticky) {
		t.Errorf("asking: %v", err)
	}
	eve := phone.MustParse("+12065550143")
	clock := time.Now() // two changes in one millisecond are a tie, and ties go to the opt-out
	r.consents.Now = func() time.Time { clock = clock.Add(time.Second); return clock }
	if err := errors.Join(r.consents.Set(t.Context(), eve, consent.OptedOut, consent.Admin, "max", "called"), r.consents.Set(t.Context(), eve, consent.OptedIn, consent.Admin, "max", "called again")); err != nil {
		t.Errorf("what an admin made, an admin undoes: %v", err)
	}
	if r.ledger.State(eve) != consent.OptedIn {
		t.Error(r.ledger.State(eve))
	}
}

func TestYesCountsOnlyWhileADoubleOptInIsOpen(t *testing.T) {
	r := newRig(t)
	r.text(ada, "YES")
	if s := r.ledger.State(ada); s != consent.Unknown {
		t.Fatalf("a bare YES: %s", s)
	}
	m, err := r.consents.Ask(t.Context(), ada, "", "en", consent.API, "form", "signed up at example.com")
	if err != nil || m.Status != ledger.StatusSent || r.ledger.State(ada) != consent.Pending || !strings.Contains(r.provider.Sent()[0].Body, "YES") {
		t.Fatalf("%+v %v %s", m, err, r.ledger.State(ada))
	}
	r.text(ada, "Yes!")
	r.flush()
	if s := r.ledger.State(ada); s != consent.OptedIn {
		t.Errorf("YES to the question: %s", s)
	}
	r.text(ada, "STOP")
	r.text(ada, "YES")
	r.flush()
	if s := r.ledger.State(ada); s != consent.OptedOut {
		t.Errorf("YES after STOP: %s", s)
	}
	eve := phone.MustParse("+12065550143")
	if _, err := r.consents.Ask(t.Context(), eve, "", "en", consent.API, "form", "signed up"); err != nil {
		t.Fatal(err)
	}
	r.text(eve, "No")
	if s := r.ledger.State(eve); s != consent.OptedOut {
		t.Errorf("NO to the question: %s", s)
	}
}

// acting is a provider that acts on STOP by itself.
type acting struct{ *smstest.Memory }

func (acting) ActsOn(m sms.Inbound) bool { return m.Body == "STOP" }

func TestTheProvidersOwnListIsToldWhatTheProviderDidNotUnderstand(t *testing.T) {
	r := newRig(t)
	as := connector.Accounts{{Name: "main", Provider: acting{r.provider}}}
	r.inbox.Accounts, r.lists.Accounts = as, as
	r.text(ada, "STOP")
	r.flush()
	if got := r.provider.Consents(); len(got) != 0 {
		t.Errorf("told what it did itself: %v", got)
	}
	eve, kim := phone.MustParse("+12065550143"), phone.MustParse("+12065550144")
	r.text(eve, "please stop texting me")
	if err := r.consents.Set(t.Context(), kim, consent.OptedOut, consent.Admin, "max", "called"); err != nil {
		t.Fatal(err)
	}
	r.flush()
	r.flush()
	if got := r.provider.Consents(); len(got) != 2 || !got[0].OptedOut || !got[1].OptedOut {
		t.Errorf("told %v", got)
	}
	// A refusal is parked, where a person sees it.
	bob := phone.MustParse("+12065550145")
	r.provider.RefuseConsents(bob.String(), &sms.Error{Class: sms.Rejected, Code: "30646"})
	r.text(bob, "take me off your list")
	r.flush()
	if _, parked := r.owed(); parked != 1 {
		t.Errorf("%d pieces of work are parked, want the one that the provider refused", parked)
	}
}

func TestShadowModeDecidesAndRecordsButLetsEverythingPass(t *testing.T) {
	r := newRig(t)
	policy := consent.Policy{Shadow: true}
	l, err := local.Open(t.TempDir(), local.Options{Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r.inbox.Ledger, r.gate.Ledger, r.gate.Policy = l, l, policy
	k := crm.Key{Object: "Contact", ID: "1"}
	if err := l.Mirror("org").Put(t.Context(), []ledger.MirrorRecord{{Key: k, Numbers: []phone.Number{ada}, OptedOut: true}}); err != nil {
		t.Fatal(err)
	}
	r.text(ada, "STOP")
	m := r.send(ada.String())
	if m.Status != ledger.StatusSent || m.Decision != (consent.Decision{Verdict: consent.Allow, Reason: consent.ReasonOptedOut}) {
		t.Errorf("%+v", m)
	}
	m, _, err = r.gate.Send(t.Context(), connector.Send{To: "+12065550143", Body: "x", Record: &k})
	if err != nil || m.Status != ledger.StatusSent || m.Decision.Reason != consent.CRMOptOut {
		t.Errorf("%+v %v", m, err)
	}
	if m := r.send("12"); m.Status != ledger.StatusBlocked {
		t.Errorf("no number: %+v", m)
	}
	if s, err := l.Stats(t.Context()); err != nil || s.WouldBlock != 2 || s.Numbers["opted_out"] != 1 {
		t.Errorf("%+v %v", s, err)
	}
}

func TestAReleaseCoversOnlyTheRepliesThatWereSeen(t *testing.T) {
	r := newRig(t)
	r.text(ada, "STOP 12345")
	held, err := r.holds.List(t.Context())
	if err != nil || len(held) != 1 {
		t.Fatal(held, err)
	}
	r.text(ada, "STOP 777")
	if err := r.consents.Resolve(t.Context(), ada, false, held[0].Seq, "max", "an order number"); !errors.Is(err, connector.ErrNotSeen) {
		t.Fatalf("released what nobody has seen: %v", err)
	}
	if held, err = r.holds.List(t.Context()); err != nil || len(held) != 1 || held[0].Text != "STOP 12345\nSTOP 777" {
		t.Fatalf("%+v %v", held, err)
	}
	// A picture behind them does not hide them, nor does it make a release the suggestion.
	if _, err := r.inbox.Receive(t.Context(), "main", r.provider.Sign(sms.Inbound{ProviderID: "MMS1", From: ada.String(), To: sender, Media: 1}), ""); err != nil {
		t.Fatal(err)
	}
	if held, err = r.holds.List(t.Context()); err != nil || held[0].Suggestion != "opt_out" || !strings.Contains(held[0].Text, "12345") {
		t.Fatalf("%+v %v", held, err)
	}
	if err := r.consents.Resolve(t.Context(), ada, false, held[0].Seq, "max", "order numbers"); err != nil {
		t.Fatal(err)
	}
	// One that was sent before the decision and is found in the log after it holds again.
	r.inbox.Now = func() time.Time { return time.Now().Add(time.Second) } // people are not as fast as this test
	late := sms.Inbound{ProviderID: "late", From: ada.String(), To: sender, Body: "STOP 99999", At: time.Now().Add(-time.Hour)}
	if _, err := r.inbox.Recover(t.Context(), "main", late, "p", true); err != nil {
		t.Fatal(err)
	}
	if s := r.ledger.State(ada); s != consent.Held {
		t.Errorf("a reply that nobody decided on: %s", s)
	}
}

func TestATimeInTheFutureNeitherHoldsNorLiftsForEver(t *testing.T) {
	r := newRig(t)
	future := time.Now().AddDate(1, 0, 0)
	for id, body := range map[string]string{"f1": "STOP 12345", "f2": "STOP"} {
		if _, err := r.inbox.Recover(t.Context(), "main", sms.Inbound{ProviderID: id, From: ada.String(), To: sender, Body: body, At: future}, "p", true); err != nil {
			t.Fatal(err)
		}
	}
	r.inbox.Now = func() time.Time { return time.Now().Add(time.Minute) }
	if _, err := r.inbox.Recover(t.Context(), "main", sms.Inbound{ProviderID: "f3", From: ada.String(), To: sender, Body: "START", At: time.Now().Add(30 * time.Second)}, "p", true); err != nil {
		t.Fatal(err)
	}
	if s := r.ledger.State(ada); s != consent.OptedIn {
		t.Errorf("after a later START: %s", s)
	}
}

func TestAnUndoByHandDoesNotLiftWhatOnlyTheProviderKnows(t *testing.T) {
	r := newRig(t)
	clock := time.Now()
	r.consents.Now = func() time.Time { clock = clock.Add(time.Second); return clock }
	if err := r.consents.Set(t.Context(), ada, consent.OptedOut, consent.API, "x", ""); err != nil {
		t.Fatal(err)
	}
	r.flush()
	if err := r.consents.Set(t.Context(), ada, consent.OptedIn, consent.API, "x", ""); err != nil {
		t.Fatal(err)
	}
	r.flush()
	for _, c := range r.provider.Consents() {
		if !c.OptedOut {
			t.Error("an undo by hand took the number off the provider's list, which may hold the recipient's own STOP")
		}
	}
	for o, err := range r.ledger.Owed(t.Context()) {
		if err != nil || o.Kind == ledger.OweTell {
			t.Errorf("still owed: %+v %v", o, err)
		}
	}
}

func TestYesToAnotherAccountOrBeforeTheQuestionIsNoAnswer(t *testing.T) {
	r := newRig(t)
	if _, err := r.consents.Ask(t.Context(), ada, "", "en", consent.API, "form", "signed up"); err != nil {
		t.Fatal(err)
	}
	if m, err := r.consents.Ask(t.Context(), ada, "", "en", consent.API, "form", "signed up"); err != nil || m.ID != "" || r.provider.Attempts() != 1 {
		t.Errorf("asked twice: %+v %v, %d texts", m, err, r.provider.Attempts())
	}
	r.inbox.Accounts = append(r.inbox.Accounts, connector.Account{Name: "other", Provider: r.provider})
	if _, err := r.inbox.Receive(t.Context(), "other", r.provider.Text(ada.String(), sender, "YES", sms.FlagNone), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := r.inbox.Recover(t.Context(), "main", sms.Inbound{ProviderID: "old", From: ada.String(), To: sender, Body: "NO", At: time.Now().Add(-time.Hour)}, "p", true); err != nil {
		t.Fatal(err)
	}
	r.text(ada, "yes?")
	r.flush()
	if s := r.ledger.State(ada); s != consent.Pending {
		t.Fatalf("%s, want the question still open", s)
	}
	r.text(ada, "Yes!")
	r.flush()
	if s := r.ledger.State(ada); s != consent.OptedIn {
		t.Errorf("%s", s)
	}
}

func TestTheListWaitsUntilTheConfirmationIsOut(t *testing.T) {
	r := newRig(t)
	r.answering(confirm.ByHeed)
	hold := r.provider.HoldRequests()
	r.text(ada, "please stop texting me")
	done := make(chan error)
	go func() { done <- r.answers.Flush(t.Context()) }()
	<-hold.Waiting // the attempt is recorded and on its way
	if err := r.lists.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(r.provider.Consents()); n != 0 {
		t.Errorf("the provider was told %d changes before the confirmation was out", n)
	}
	hold.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(r.provider.Sent()) != 1 {
		t.Errorf("%d confirmations", len(r.provider.Sent()))
	}
	for o, err := range r.ledger.Owed(t.Context()) { // put off for a moment, not forgotten
		if err != nil || o.Kind != ledger.OweTell && o.Kind != ledger.OweBoxes {
			t.Errorf("%+v %v", o, err)
		}
		if o.Kind == ledger.OweTell && o.NextAt.IsZero() {
			t.Error("the list is owed with no time to try it")
		}
	}
	if s, err := r.ledger.Stats(t.Context()); err != nil || s.Owed[ledger.OweTell] != 1 {
		t.Errorf("telling the provider is owed %d times, %v", s.Owed[ledger.OweTell], err)
	}
}

func TestAShutdownDoesNotWaitForABusyProvider(t *testing.T) {
	r := newRig(t)
	r.provider.FailNext(&sms.Error{Class: sms.Throttled, Status: 429, RetryAfter: time.Hour})
	waiting := make(chan struct{})
	r.gate.Wait = func(ctx context.Context, _ time.Duration) bool {
		close(waiting)
		<-ctx.Done()
		return false
	}
	q := &connector.Queue{Ledger: r.ledger, Gate: r.gate, Accounts: r.gate.Accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	m, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- q.Flush(t.Context()) }()
	<-waiting
	r.gate.Abort()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, err := r.ledger.Message(t.Context(), m.ID); err != nil || got.Status != ledger.StatusFailed {
		t.Errorf("proven not taken, but %s (%v)", got.Status, err)
	}
}

func TestABoxThatIsTickedWhileAMessageWaitsBlocksIt(t *testing.T) {
	r := newRig(t)
	k := r.person("Contact", "+12065550143", false)
	m, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Record: &k, Deferred: true})
	if err != nil || m.Status != ledger.StatusQueued {
		t.Fatal(m, err)
	}
	if err := r.ledger.Mirror("org").Wrote(t.Context(), []crm.Key{k}, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	q := &connector.Queue{Ledger: r.ledger, Gate: r.gate, Accounts: r.gate.Accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	if err := q.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ledger.Message(t.Context(), m.ID); err != nil || got.Status != ledger.StatusBlocked || r.provider.Attempts() != 0 {
		t.Errorf("%+v %v", got, err)
	}
}

// A refusal that nobody has mended stays one entry in the ledger, however often heed tries on.
func TestARefusalThatStaysIsRecordedOnce(t *testing.T) {
	for name, c := range map[string]struct {
		kind   ledger.OwedKind
		refuse func(r *rig)
		mend   func(r *rig)
	}{
		"a record": {ledger.OweBoxes, func(r *rig) {
			no := &crm.Error{Class: crm.Park, Code: "FIELD_CUSTOM_VALIDATION_EXCEPTION", Text: "Ask legal first"}
			r.crm.FailWrites(r.person("Contact", ada.String(), false), no, no, no, no)
		}, func(*rig) {}},
		"the provider's list": {ledger.OweTell, func(r *rig) {
			r.provider.RefuseConsents(ada.String(), &sms.Error{Class: sms.Rejected, Status: 400, Code: "70002"})
		}, func(r *rig) { r.provider.RefuseConsents(ada.String(), nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c.refuse(r)
			r.text(ada, "please take me off your list") // words that the provider itself does not act on
			try := func() uint64 {
				t.Helper()
				if err := r.ledger.Hurry(t.Context(), c.kind); err != nil {
					t.Fatal(err)
				}
				r.flush()
				s, err := r.ledger.Stats(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return s.Head
			}
			owed := func() (n, parked int) {
				t.Helper()
				for o, err := range r.ledger.Owed(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					if n++; o.Parked != nil {
						parked++
					}
				}
				return n, parked
			}
			first := try()
			if n, parked := owed(); n != 1 || parked != 1 {
				t.Fatalf("owed %d, parked %d", n, parked)
			}
			for range 2 {
				if now := try(); now != first {
					t.Errorf("the same refusal grew the ledger from %d to %d events", first, now)
				}
			}
			c.mend(r)
			for range 2 { // the record has one refusal left
				try()
			}
			if n, _ := owed(); n != 0 {
				t.Errorf("%d still owed", n)
			}
		})
	}
}
