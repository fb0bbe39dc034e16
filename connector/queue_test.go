package connector_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sms/smstest"
)

func (r *rig) queue() *connector.Queue {
	return &connector.Queue{Ledger: r.ledger, Gate: r.gate, Accounts: r.gate.Accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now}
}

// later asks for a message to be sent in an hour.
func (r *rig) later(n phone.Number) ledger.Message {
	r.t.Helper()
	m, _, err := r.gate.Send(r.t.Context(), connector.Send{To: n.String(), Body: "hello", SendAt: time.Now().Add(time.Hour)})
	if err != nil || m.Status != ledger.StatusQueued || !m.Deferred {
		r.t.Fatalf("%+v %v", m, err)
	}
	return m
}

// until waits for a message to come to a status; the test's own deadline bounds it.
func (r *rig) until(id string, want ledger.Status) ledger.Message {
	r.t.Helper()
	for {
		m, err := r.ledger.Message(r.t.Context(), id)
		if err != nil {
			r.t.Fatal(err)
		}
		if m.Status == want {
			return m
		}
	}
}

func TestAScheduledMessageWaitsForItsTimeAndIsDecidedAgainThen(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	l, err := local.Open(t.TempDir(), local.Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r := newRig(t)
	r.ledger, r.gate.Ledger = l, l
	q := r.queue()
	mine, hers := r.later(ada), r.later(phone.MustParse("+12065550143"))
	flush := func(sent int) {
		t.Helper()
		if err := errors.Join(l.Hurry(t.Context(), ledger.OweSend), q.Flush(t.Context())); err != nil {
			t.Fatal(err)
		}
		if r.provider.Attempts() != sent {
			t.Fatalf("%d attempts, want %d", r.provider.Attempts(), sent)
		}
	}
	flush(0)
	if _, err := l.Append(t.Context(), ledger.Event{Kind: ledger.KindConsent, At: time.Now(), Number: mine.To,
		Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: consent.Admin, At: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = now.Add(time.Hour + time.Second)
	mu.Unlock()
	flush(1)
	if m := r.until(mine.ID, ledger.StatusBlocked); m.Decision.Reason != consent.ReasonOptedOut || !m.Started {
		t.Errorf("%+v", m)
	}
	r.until(hers.ID, ledger.StatusSent)
}

func TestAStopEndsWhatWaitsForItsNumberAtOnce(t *testing.T) {
	r := newRig(t)
	q := r.queue()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { q.Run(ctx) })
	defer func() { cancel(); work.Wait() }()
	mine, hers := r.later(ada), r.later(phone.MustParse("+12065550143"))
	// Whoever runs watches: a message that goes through shows that it does.
	sent, _, err := r.gate.Send(t.Context(), connector.Send{To: "+12065550144", Body: "hello", Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	r.until(sent.ID, ledger.StatusSent)
	r.text(ada, "STOP")
	r.until(mine.ID, ledger.StatusBlocked)
	owed, err := r.ledger.OwedOf(t.Context(), ada)
	if err != nil || len(owed) == 0 || slices.ContainsFunc(owed, func(o ledger.Owed) bool { return o.Kind == ledger.OweSend }) {
		t.Errorf("owed %+v, %v", owed, err)
	}
	if m, err := r.ledger.Message(t.Context(), hers.ID); err != nil || m.Status != ledger.StatusQueued {
		t.Errorf("somebody else's is %s, %v", m.Status, err)
	}
	if _, err := r.gate.Cancel(t.Context(), mine.ID); !errors.Is(err, connector.ErrStarted) {
		t.Errorf("taken back after it was ended: %v", err)
	}
}

func TestAMessageIsEitherTakenBackOrSent(t *testing.T) {
	r := newRig(t)
	q := r.queue()
	for i := range 30 {
		m, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Deferred: true})
		if err != nil {
			t.Fatal(err)
		}
		before := r.provider.Attempts()
		var work sync.WaitGroup
		var canceled error
		work.Go(func() { _, canceled = r.gate.Cancel(t.Context(), m.ID) })
		work.Go(func() {
			if err := q.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		})
		work.Wait()
		if err := q.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := r.ledger.Message(t.Context(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		sent := r.provider.Attempts() > before
		switch {
		case canceled == nil && (sent || got.Status != ledger.StatusFailed || got.Code != connector.CodeCanceled),
			errors.Is(canceled, connector.ErrStarted) && (!sent || got.Status != ledger.StatusSent),
			canceled != nil && !errors.Is(canceled, connector.ErrStarted):
			t.Fatalf("round %d: Cancel said %v, sent %v, and it is %s", i, canceled, sent, got.Status)
		}
	}
	if _, err := r.gate.Cancel(t.Context(), "msg_none"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("an unknown message: %v", err)
	}
}

// outcome returns the one outcome of a message, as it is in the ledger.
func (r *rig) outcome(m ledger.Message) (found ledger.Event) {
	r.t.Helper()
	for e, err := range r.ledger.History(r.t.Context(), m.To) {
		if err != nil {
			r.t.Fatal(err)
		}
		if e.Outcome != nil && e.Outcome.Message == m.ID {
			if found.Outcome != nil {
				r.t.Errorf("two outcomes of one message: %+v %+v", *found.Outcome, *e.Outcome)
			}
			found = e
		}
	}
	if found.Outcome == nil {
		r.t.Fatalf("no outcome of %s", m.ID)
	}
	return found
}

func TestEveryOutcomeSaysWhenItsAttemptBegan(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.gate.Now = func() time.Time { now = now.Add(time.Second); return now }
	for _, c := range []struct {
		name    string
		prepare func()
		want    ledger.Status
	}{
		{"sent", func() {}, ledger.StatusSent},
		{"unknown", func() { r.provider.LoseNextAnswers(1) }, ledger.StatusUnknown},
		{"failed", func() { r.provider.FailNext(&sms.Error{Class: sms.Rejected, Text: "no"}) }, ledger.StatusFailed},
		{"throttled", func() { r.provider.FailNext(&sms.Error{Class: sms.Throttled, Text: "busy"}) }, ledger.StatusFailed},
		{"refused by the provider", func() { r.provider.OptOut(ada.String()) }, ledger.StatusBlocked},
	} {
		c.prepare()
		m := r.send(ada.String())
		if e := r.outcome(m); e.Outcome.Status != c.want || e.Outcome.StartedAt.Before(m.CreatedAt) || !e.Outcome.StartedAt.Before(e.At) {
			t.Errorf("%s: opened %s, %+v at %s", c.name, m.CreatedAt, *e.Outcome, e.At)
		}
	}
	// Somebody killed heed in the middle: nobody knows more than when it was about to begin.
	lost, _, err := r.ledger.Open(t.Context(), ledger.Message{ID: "msg_lost", To: phone.MustParse("+12065550143"), Body: "x", Account: "main", CreatedAt: r.gate.Now().UTC()},
		consent.Decision{Verdict: consent.Allow, Reason: consent.OK})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.gate.Abandoned(t.Context(), r.gate.Now()); err != nil {
		t.Fatal(err)
	}
	if e := r.outcome(lost); e.Outcome.Status != ledger.StatusUnknown || !e.Outcome.StartedAt.Equal(lost.CreatedAt) || !e.Outcome.StartedAt.Before(e.At) {
		t.Errorf("lost: opened %s, %+v at %s", lost.CreatedAt, *e.Outcome, e.At)
	}
}

// The rule in the package's documentation, on a send whose bytes had left and on one whose bytes had not.
func TestASendInFlightAtAStopCanBeToldFromTheEvents(t *testing.T) {
	for _, c := range []struct {
		name string
		hold func(*smstest.Memory) *smstest.Hold
		// A provider in memory has no headers to write: its requests are cut short, and what it had taken is unknown.
		want ledger.Status
	}{
		{"left", (*smstest.Memory).HoldAnswers, ledger.StatusUnknown},
		{"prevented", (*smstest.Memory).HoldRequests, ledger.StatusBlocked},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			h := c.hold(r.provider)
			defer h.Release()
			sent := make(chan ledger.Message, 1)
			go func() {
				m, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello"})
				if err != nil {
					t.Error(err)
				}
				sent <- m
			}()
			<-h.Waiting
			r.text(ada, "STOP")
			e := r.outcome(<-sent)
			var stop time.Time
			for e, err := range r.ledger.History(t.Context(), ada) {
				if err != nil {
					t.Fatal(err)
				}
				if e.Inbound != nil {
					stop = e.At
				}
			}
			if e.Outcome.Status != c.want || e.Outcome.StartedAt.After(stop) || e.At.Before(stop) {
				t.Errorf("started %s, stopped %s, %s at %s", e.Outcome.StartedAt, stop, e.Outcome.Status, e.At)
			}
		})
	}
}

// hanging is an account that does not answer until it is let go.
type hanging struct {
	*smstest.Memory
	asked, release chan struct{}
}

func (h *hanging) Send(ctx context.Context, m sms.Message) (sms.Receipt, error) {
	h.asked <- struct{}{}
	<-h.release
	return h.Memory.Send(ctx, m)
}

func TestAnAccountThatHangsDoesNotDelayAnother(t *testing.T) {
	r := newRig(t)
	h := &hanging{smstest.New(), make(chan struct{}, 100), make(chan struct{})}
	r.gate.Accounts = append(r.gate.Accounts, connector.Account{Name: "slow", Provider: h})
	q := r.queue()
	for i := range 40 {
		n := phone.FromUint64(12065550100 + uint64(i))
		if _, _, err := r.gate.Send(t.Context(), connector.Send{To: n.String(), Body: "hello", Account: "slow", Deferred: true}); err != nil {
			t.Fatal(err)
		}
	}
	m, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		if err := q.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
	<-h.asked
	r.until(m.ID, ledger.StatusSent) // while the other account hangs
	// What comes meanwhile goes through as well.
	m, _, err = r.gate.Send(t.Context(), connector.Send{To: "+12065550199", Body: "hello", Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	r.until(m.ID, ledger.StatusSent)
	close(h.release)
	work.Wait()
	if h.Attempts() != 40 {
		t.Errorf("%d of 40 sent by the slow one", h.Attempts())
	}
}

func TestACrewOfManyAccountsStaysWithinItsBound(t *testing.T) {
	r := newRig(t)
	for i := range 20 {
		n := phone.FromUint64(12065550100 + uint64(i))
		if _, _, err := r.gate.Send(t.Context(), connector.Send{To: n.String(), Body: "hello", Deferred: true}); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	running, most, done := 0, 0, 0
	add := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		running += n
		most = max(most, running)
		if n < 0 {
			done++
		}
	}
	asked, release := make(chan struct{}, 20), make(chan struct{})
	crew := connector.Crew{Ledger: r.ledger, Kind: ledger.OweSend, PerAccount: 1, Most: 3, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Prepare: func(_ context.Context, o ledger.Owed) (string, func(context.Context) error, error) {
			return o.Number.String(), func(ctx context.Context) error { // each has an account of its own
				add(1)
				defer add(-1)
				asked <- struct{}{}
				<-release
				_, err := r.ledger.Append(ctx, ledger.Event{Kind: ledger.KindStarted, At: time.Now(), Number: o.Number, Started: &ledger.Started{Message: "m", Of: o.Of}})
				return err
			}, nil
		}}
	var work sync.WaitGroup
	work.Go(func() {
		if err := crew.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
	for range 3 {
		<-asked
	}
	for range 1000 { // others would begin now
		runtime.Gosched()
	}
	close(release)
	work.Wait()
	if most != 3 || done != 20 {
		t.Errorf("%d done, at most %d at once", done, most)
	}
}

// A restart forgets no time: what is scheduled waits on, and is sent once when it is due.
func TestAScheduledMessageOutlivesARestart(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	clock := func() time.Time { return now }
	open := func() *local.Ledger {
		t.Helper()
		l, err := local.Open(dir, local.Options{Now: clock})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	r := newRig(t)
	var id string
	for life, c := range []struct {
		wait time.Duration
		sent int
	}{{0, 0}, {59 * time.Minute, 0}, {2 * time.Minute, 1}, {time.Hour, 1}} {
		l := open()
		r.ledger, r.gate.Ledger = l, l
		if life == 0 {
			id = r.later(ada).ID
		}
		if n, err := r.gate.Abandoned(t.Context(), time.Now().Add(24*time.Hour)); err != nil || n != 0 {
			t.Fatalf("life %d: %d abandoned, %v", life, n, err)
		}
		now = now.Add(c.wait)
		if err := r.queue().Flush(t.Context()); err != nil || r.provider.Attempts() != c.sent {
			t.Fatalf("life %d: %d sent, want %d: %v", life, r.provider.Attempts(), c.sent, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := open()
	defer func() { _ = l.Close() }()
	if m, err := l.Message(t.Context(), id); err != nil || m.Status != ledger.StatusSent {
		t.Errorf("%+v %v", m, err)
	}
}
