// Package ledgertest is the suite that every ledger engine must pass: what package ledger promises, as sentences.
//
// It knows nothing of files, transactions or processes; what is peculiar to an engine (damage, locks, a full disk) is
// tested beside the engine. Call [Run] from the engine's test.
package ledgertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/chain"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// Options are how the suite wants a ledger opened.
type Options struct {
	Policy consent.Policy
	Now    func() time.Time // the engine's wall clock, by which Claim judges whether work is due
}

// Opened is a ledger over a store of its own, empty at first.
type Opened struct {
	Ledger ledger.Ledger
	// Reopen closes the ledger that is open, opens the same store again and returns the new one.
	Reopen func(t testing.TB) ledger.Ledger
	// Kill does the same without closing, as if the process had died; nil if the engine cannot.
	Kill func(t testing.TB) ledger.Ledger
}

// Run runs the suite. open must give each call an empty store, and clean up after the test.
func Run(t *testing.T, open func(t testing.TB, o Options) Opened) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"an event has its place in the ledger and keeps it over a restart", receipts},
		{"an event is there exactly once after its process died", killed},
		{"the same event appended fifty times at once is one event with one effect", fiftyAtOnce},
		{"an append with one invalid event records none of them", allOrNothing},
		{"what the fold would not understand is refused", refused},
		{"a decision knows the opt-out before its append returns", decides},
		{"watchers are told before the append returns", watches},
		{"no message is allowed once an opt-out's append has returned", opensAgainstStops},
		{"the stricter of the caller's and the number's decision wins", floors},
		{"a repeated idempotency key gives the first message, and a reused one an error", keys},
		{"a number's history is verbatim and in order", history},
		{"a proof leads from a number's events to the newest one and shows nobody else's", proves},
		{"only the recipient lifts the recipient's opt-out, in any order of arrival", lifting},
		{"box work is owed when a number flips, merged, and handed out once", owedOnce},
		{"work that became owed while it was being done stays owed", owedNewer},
		{"work that was given back waits for its time", owedReturn},
		{"refused work is parked until something changes", owedParked},
		{"a START without a time waits for it", owedTime},
		{"owed work survives a restart and is handed out again", owedRestart},
		{"a message ends the same whatever the order of its outcome and callbacks", progressOrder},
		{"an unknown outcome stays open until the provider tells", unsettled},
		{"messages are listed newest first, across pages", messages},
		{"a pass counts its corrections and follows their results", passes},
		{"the mirror leads from a number to its records", mirrors},
		{"a stale read does not undo what was written to the mirror", mirrorStale},
		{"the mirror is walked in order, from any key", mirrorBetween},
		{"checkpoints are kept by name", cursors},
		{"the counts add up", stats},
		{"work that is put off until later has not waited before", oldestOwed},
		{"a cancelled caller stops waiting, and the event is there whole or not at all", cancelled},
		{"after Close every call says that the ledger is unavailable", closed},
		{"any run of events amounts to what the fold says, over restarts", model},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &suite{open: open, clock: newClock()}
			test.run(t, s)
		})
	}
}

type suite struct {
	open  func(t testing.TB, o Options) Opened
	clock *clock
	o     Opened
}

func (s *suite) start(t testing.TB, p consent.Policy) ledger.Ledger {
	s.o = s.open(t, Options{Policy: p, Now: s.clock.Now})
	return s.o.Ledger
}

// clock stands still until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

// The day is arbitrary; nothing may depend on it.
func newClock() *clock { return &clock{t: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
	return c.t
}

func number(i int) phone.Number { return phone.MustParse(fmt.Sprintf("+1555010%04d", i)) }

const account = "acme"

func inbound(id string, n phone.Number, verdict reply.Verdict, at time.Time) ledger.Event {
	return ledger.Event{Kind: ledger.KindInbound, ID: "in/" + id, At: at, Number: n, Inbound: &ledger.Inbound{
		Account: account, ProviderID: id, From: n.String(), To: "+15550100000", Body: string(verdict), SentAt: at,
		Via: ledger.ViaWebhook, Verdict: verdict, Rule: "exact", Keyword: string(verdict),
	}}
}

func stop(id string, n phone.Number, at time.Time) ledger.Event {
	return inbound(id, n, reply.OptOut, at)
}
func start(id string, n phone.Number, at time.Time) ledger.Event {
	return inbound(id, n, reply.OptIn, at)
}

func change(id string, n phone.Number, a consent.Action, src consent.Source, at time.Time) ledger.Event {
	return ledger.Event{Kind: ledger.KindConsent, ID: id, At: at, Number: n,
		Consent: &ledger.Consent{Change: consent.Change{Action: a, Source: src, At: at}, Actor: "eve"}}
}

func message(id string, n phone.Number, at time.Time) ledger.Message {
	return ledger.Message{ID: id, Key: "key/" + id, Fingerprint: "print/" + id, Caller: "workflow", To: n, Body: "hello", Account: account, CreatedAt: at}
}

func outcome(id string, m ledger.Message, st ledger.Status, providerID string, at time.Time) ledger.Event {
	return ledger.Event{Kind: ledger.KindOutcome, ID: id, At: at, Number: m.To,
		Outcome: &ledger.Outcome{Message: m.ID, Status: st, ProviderID: providerID, StartedAt: at}}
}

func told(id string, m ledger.Message, providerID, delivery string, at time.Time) ledger.Event {
	return ledger.Event{Kind: ledger.KindStatus, ID: id, At: at, Number: m.To,
		Status: &ledger.StatusTold{Account: account, ProviderID: providerID, Delivery: delivery, SentAt: at}}
}

func written(id string, n phone.Number, upTo uint64, at time.Time, results ...ledger.WriteResult) ledger.Event {
	return ledger.Event{Kind: ledger.KindWritten, ID: id, At: at, Number: n,
		Written: &ledger.Written{UpTo: upTo, Want: true, Results: results}}
}

func wrote(id string, class crm.Class, text string) ledger.WriteResult {
	return ledger.WriteResult{CRM: "sf", Key: crm.Key{Object: "Contact", ID: id}, OptedOut: true, Class: string(class), Text: text}
}

var allow = consent.Decision{Verdict: consent.Allow, Reason: consent.OK}

func add(t testing.TB, l ledger.Ledger, events ...ledger.Event) []ledger.Receipt {
	t.Helper()
	r, err := l.Append(t.Context(), events...)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	if len(r) != len(events) {
		t.Fatalf("append of %d events gave %d receipts", len(events), len(r))
	}
	return r
}

func get[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func list[T any](t testing.TB, seq iter.Seq2[T, error]) []T {
	t.Helper()
	var out []T
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// boxes returns the box work that is owed.
func boxes(t testing.TB, l ledger.Ledger) []ledger.Owed {
	t.Helper()
	return slices.DeleteFunc(list(t, l.Owed(context.WithoutCancel(t.Context()))), func(o ledger.Owed) bool { return o.Kind != ledger.OweBoxes })
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func receipts(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	r := add(t, l, stop("1", number(1), now), stop("2", number(2), now))
	equal(t, "first sequence", r[0], ledger.Receipt{Seq: 1})
	equal(t, "second sequence", r[1], ledger.Receipt{Seq: 2})
	l = s.o.Reopen(t)
	r = add(t, l, stop("2", number(2), now), stop("3", number(3), now), stop("3", number(3), now), stop("1", number(1), now))
	equal(t, "a repeat", r[0], ledger.Receipt{Seq: 2, Duplicate: true})
	equal(t, "a new event", r[1], ledger.Receipt{Seq: 3})
	equal(t, "a repeat within the append", r[2], ledger.Receipt{Seq: 3, Duplicate: true})
	equal(t, "the first again", r[3], ledger.Receipt{Seq: 1, Duplicate: true})
	all := list(t, l.Events(t.Context(), 0))
	equal(t, "events", len(all), 3)
	for i, e := range all {
		equal(t, "sequence", e.Seq, uint64(i+1))
	}
	equal(t, "events from 3 on", len(list(t, l.Events(t.Context(), 3))), 1)
	equal(t, "events from beyond the end", len(list(t, l.Events(t.Context(), 4))), 0)
	equal(t, "seen", get(l.Seen(t.Context(), "in/3"))(t), true)
	equal(t, "not seen", get(l.Seen(t.Context(), "in/4"))(t), false)
	for range l.Events(t.Context(), 0) { // stopping early is allowed
		break
	}
	r = add(t, l, ledger.Event{Kind: ledger.KindQuarantine, At: now, Quarantine: &ledger.Quarantine{Account: account, Raw: "?", Reason: "x"}})
	r2 := add(t, l, ledger.Event{Kind: ledger.KindQuarantine, At: now, Quarantine: &ledger.Quarantine{Account: account, Raw: "?", Reason: "x"}})
	if r2[0].Duplicate || r2[0].Seq == r[0].Seq {
		t.Fatalf("events without an id are never duplicates: %+v, %+v", r, r2)
	}
	if err := l.Health(); err != nil {
		t.Fatal(err)
	}
}

func killed(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	if s.o.Kill == nil {
		t.Skip("the engine cannot be killed from within a test")
	}
	for i := range 5 {
		add(t, l, stop(fmt.Sprint(i), number(i), s.clock.advance(time.Minute)))
		l = s.o.Kill(t)
		equal(t, "events", len(list(t, l.Events(t.Context(), 0))), i+1)
		equal(t, "repeat", add(t, l, stop(fmt.Sprint(i), number(i), s.clock.Now()))[0], ledger.Receipt{Seq: uint64(i + 1), Duplicate: true})
		for k := range i + 1 {
			equal(t, "decision", l.Decide(number(k)).Verdict, consent.Block)
		}
	}
}

func fiftyAtOnce(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	e := stop("1", number(1), s.clock.Now())
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := 0
	for range 50 {
		wg.Go(func() {
			r, err := l.Append(context.WithoutCancel(t.Context()), e)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || len(r) != 1 || r[0].Seq != 1 {
				t.Errorf("append: %+v, %v", r, err)
				return
			}
			if !r[0].Duplicate {
				fresh++
			}
		})
	}
	wg.Wait()
	equal(t, "appends that were the first", fresh, 1)
	equal(t, "events", len(list(t, l.History(t.Context(), number(1)))), 1)
	st := get(l.Stats(t.Context()))(t)
	equal(t, "inbound", st.Inbound, 1)
	equal(t, "opt-outs", st.OptOuts, 1)
	equal(t, "owed", st.Owed[ledger.OweBoxes], 1)
}

func allOrNothing(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	add(t, l, stop("0", number(9), now))
	bad := stop("2", number(2), now)
	bad.Kind = ledger.KindPass
	for i, events := range [][]ledger.Event{
		{stop("1", number(1), now), bad},
		{bad, stop("1", number(1), now)},
		{stop("1", number(1), now), start("9", number(9), now.Add(time.Hour)), bad, stop("3", number(3), now)},
	} {
		if r, err := l.Append(t.Context(), events...); !errors.Is(err, ledger.ErrInvalid) || r != nil {
			t.Fatalf("append %d: %+v, %v", i, r, err)
		}
	}
	equal(t, "decision", l.Decide(number(1)), allow)
	equal(t, "decision", l.Decide(number(9)).Verdict, consent.Block)
	equal(t, "events", len(list(t, l.Events(t.Context(), 0))), 1)
	equal(t, "seen", get(l.Seen(t.Context(), "in/1"))(t), false)
	// Nothing of them lingers: what follows folds on the state before.
	add(t, l, change("c", number(9), consent.OptIn, consent.Admin, now.Add(2*time.Hour)))
	equal(t, "decision", l.Decide(number(9)).Verdict, consent.Block)
	equal(t, "the id is free", add(t, l, stop("1", number(1), now))[0].Duplicate, false)
}

func refused(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	long := string(make([]byte, 600))
	for name, e := range map[string]ledger.Event{
		"no payload":            {Kind: ledger.KindInbound, At: now},
		"unknown kind":          {Kind: "gossip", At: now, Inbound: stop("1", number(1), now).Inbound},
		"no time":               {Kind: ledger.KindInbound, Inbound: stop("1", number(1), now).Inbound},
		"unknown verdict":       inbound("1", number(1), "optout", now),
		"unknown action":        change("1", number(1), "stop", consent.Admin, now),
		"unknown source":        change("1", number(1), consent.OptOut, "gossip", now),
		"change without a time": change("1", number(1), consent.OptOut, consent.Admin, time.Time{}),
		"change of nobody":      change("1", phone.Number{}, consent.OptOut, consent.Admin, now),
		"time beyond years":     stop("1", number(1), time.Date(10001, 1, 1, 0, 0, 0, 0, time.UTC)),
		"long id":               stop(long, number(1), now),
		"message without id":    {Kind: ledger.KindOpened, At: now, Number: number(1), Opened: &ledger.Message{Account: account}},
		"long provider id":      told("1", message("m", number(1), now), long, "sent", now),
		"pass without id":       {Kind: ledger.KindPass, At: now, Pass: &ledger.Pass{}},
		"correction of no pass": {Kind: ledger.KindCorrection, At: now, Correction: &ledger.Correction{Cause: "new"}},
		"unknown status":        outcome("1", message("m", number(1), now), "lost", "", now),
		"zero timed":            {Kind: ledger.KindTimed, At: now, Number: number(1), Timed: &ledger.Timed{Of: 1}},
	} {
		if _, err := l.Append(t.Context(), e); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := l.Open(t.Context(), ledger.Message{To: number(1), CreatedAt: now}, allow); !errors.Is(err, ledger.ErrInvalid) {
		t.Errorf("message without id: %v", err)
	}
	equal(t, "events", len(list(t, l.Events(t.Context(), 0))), 0)
	if err := l.Health(); err != nil {
		t.Fatal(err)
	}
	add(t, l, stop("1", number(1), now))
}

func decides(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	equal(t, "unknown number", l.Decide(number(1)), allow)
	equal(t, "no number", l.Decide(phone.Number{}), consent.Decision{Verdict: consent.Block, Reason: consent.InvalidNumber})
	for i, step := range []struct {
		e      ledger.Event
		want   consent.Decision
		state  consent.State
		reason string
	}{
		{e: stop("1", number(1), now), want: consent.Decision{Verdict: consent.Block, Reason: consent.ReasonOptedOut}, state: consent.OptedOut},
		{e: start("2", number(1), now.Add(time.Second)), want: allow, state: consent.OptedIn},
		{e: change("3", number(1), consent.OptOut, consent.CRM, now.Add(2*time.Second)), want: consent.Decision{Verdict: consent.Block, Reason: consent.CRMOptOut}, state: consent.OptedOut},
		{e: change("4", number(1), consent.OptIn, consent.Admin, now.Add(3*time.Second)), want: allow, state: consent.OptedIn},
		{e: inbound("5", number(1), reply.Hold, now.Add(4*time.Second)), want: consent.Decision{Verdict: consent.Queue, Reason: consent.HeldForReview}, state: consent.Held},
		{e: change("6", number(1), consent.Release, consent.Admin, now.Add(5*time.Second)), want: allow, state: consent.OptedIn},
		{e: change("7", number(1), consent.OptOut, consent.Provider, now.Add(6*time.Second)), want: consent.Decision{Verdict: consent.Block, Reason: consent.ReasonOptedOut}, state: consent.OptedOut},
	} {
		add(t, l, step.e)
		equal(t, fmt.Sprint("decision after step ", i+1), l.Decide(number(1)), step.want)
		equal(t, fmt.Sprint("state after step ", i+1), l.State(number(1)), step.state)
		equal(t, "recorded state", get(l.Number(t.Context(), number(1)))(t).Facts.State(), step.state)
	}
	l = s.o.Reopen(t)
	equal(t, "after a restart", l.State(number(1)), consent.OptedOut)
	equal(t, "unknown number", get(l.Number(t.Context(), number(7)))(t).Facts, consent.Facts{})
	l = s.start(t, consent.Policy{RequireOptIn: true})
	equal(t, "unknown number, consent required", l.Decide(number(1)), consent.Decision{Verdict: consent.Block, Reason: consent.ConsentRequired})
	add(t, l, start("1", number(1), now))
	equal(t, "opted in, consent required", l.Decide(number(1)), allow)
	// Every evidence of an opt-out counts, also the provider's refusal of a message.
	m := get2(l.Open(t.Context(), message("m", number(1), now), allow))(t)
	e := outcome("o", m, ledger.StatusFailed, "", now.Add(time.Hour))
	e.Outcome.OptedOut = true
	add(t, l, e)
	equal(t, "refused by the provider", l.State(number(1)), consent.OptedOut)
	e = told("s", m, "SM1", "failed", now)
	e.Number, e.Status.OptedOut = number(2), true
	add(t, l, e)
	equal(t, "refused by the provider later", l.State(number(2)), consent.OptedOut)
}

func get2[T any](v T, existed bool, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil || existed {
			t.Fatalf("existed %v, error %v", existed, err)
		}
		return v
	}
}

func watches(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	var mu sync.Mutex
	var heard []string
	hear := func(n phone.Number, d consent.Decision) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, n.String()+" "+string(d.Verdict))
	}
	told := func(want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(heard, want) {
			t.Fatalf("heard %q, want %q", heard, want)
		}
		heard = nil
	}
	end := l.Watch(hear)
	add(t, l, stop("1", number(1), now))
	told(number(1).String() + " block")
	add(t, l, stop("2", number(1), now.Add(time.Second))) // nothing new for the decision
	told()
	add(t, l, start("3", number(1), now.Add(time.Minute)))
	told(number(1).String() + " allow")
	add(t, l, inbound("4", number(2), reply.None, now))
	told()
	end()
	add(t, l, stop("5", number(1), now.Add(time.Hour)))
	told()
}

// opensAgainstStops races STOPs against sends: in the ledger's own order no message of a number may be allowed after
// its STOP, and a send that begins after the STOP's append returned must see it.
func opensAgainstStops(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	ctx := context.WithoutCancel(t.Context())
	const numbers, senders, sends = 8, 4, 20
	var wg sync.WaitGroup
	for n := range numbers {
		stopped := make(chan struct{})
		half := make(chan struct{}, senders) // each sender is half way: the STOP comes in the middle
		wg.Go(func() {
			defer close(stopped)
			<-half
			if _, err := l.Append(ctx, stop(fmt.Sprint(n), number(n), now)); err != nil {
				t.Error(err)
			}
		})
		for k := range senders {
			wg.Go(func() {
				for i := range sends {
					if i == sends/2 {
						half <- struct{}{}
					}
					if i == sends-2 {
						<-stopped
					}
					after := false
					select {
					case <-stopped:
						after = true
					default:
					}
					m, _, err := l.Open(ctx, message(fmt.Sprintf("%d/%d/%d", n, k, i), number(n), now), allow)
					if err != nil {
						t.Error(err)
					}
					if after && (m.Decision.Verdict == consent.Allow || m.Status != ledger.StatusBlocked) {
						t.Errorf("a message was opened after the opt-out and is %q", m.Status)
					}
				}
			})
		}
	}
	wg.Wait()
	out := map[phone.Number]bool{}
	allowed, blocked := 0, 0
	for _, e := range list(t, l.Events(ctx, 0)) {
		switch {
		case e.Inbound != nil:
			out[e.Number] = true
		case out[e.Number] == (e.Opened.Decision.Verdict == consent.Allow):
			t.Fatalf("event %d: opted out %v, decided %q", e.Seq, out[e.Number], e.Opened.Decision.Verdict)
		case out[e.Number]:
			blocked++
		default:
			allowed++
		}
	}
	equal(t, "messages", allowed+blocked, numbers*senders*sends)
	if blocked < 2*numbers*senders {
		t.Fatalf("only %d blocked: the race was none", blocked)
	}
}

func floors(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	add(t, l, stop("1", number(1), now), inbound("2", number(2), reply.Hold, now))
	block := consent.Decision{Verdict: consent.Block, Reason: consent.CRMOptOut}
	later := consent.Decision{Verdict: consent.Later, Reason: consent.QuietHours}
	for i, c := range []struct {
		n      int
		floor  consent.Decision
		reason consent.Reason
		status ledger.Status
	}{
		{0, allow, consent.OK, ledger.StatusQueued},
		{0, block, consent.CRMOptOut, ledger.StatusBlocked},
		{0, later, consent.QuietHours, ledger.StatusHeld},
		{0, consent.Decision{}, "", ledger.StatusBlocked}, // no decision is no permission
		{1, allow, consent.ReasonOptedOut, ledger.StatusBlocked},
		{1, later, consent.ReasonOptedOut, ledger.StatusBlocked},
		{2, later, consent.HeldForReview, ledger.StatusHeld},
		{2, block, consent.CRMOptOut, ledger.StatusBlocked},
	} {
		m := get2(l.Open(t.Context(), message(fmt.Sprint(i), number(c.n), now), c.floor))(t)
		equal(t, fmt.Sprint("reason of ", i), m.Decision.Reason, c.reason)
		equal(t, fmt.Sprint("status of ", i), m.Status, c.status)
		equal(t, "status read back", get(l.Message(t.Context(), m.ID))(t).Status, c.status)
	}
	m := message("raw", phone.Number{}, now)
	m.ToRaw = "12345"
	m = get2(l.Open(t.Context(), m, consent.Decision{Verdict: consent.Block, Reason: consent.InvalidNumber}))(t)
	equal(t, "no number", m.Status, ledger.StatusBlocked)
	m = message("raw2", phone.Number{}, now)
	m = get2(l.Open(t.Context(), m, allow))(t)
	equal(t, "no number, though the caller allows it", m.Status, ledger.StatusBlocked)
}

func keys(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	m := message("m1", number(1), now)
	var wg sync.WaitGroup
	var mu sync.Mutex
	first, opened := 0, ""
	for i := range 20 {
		wg.Go(func() {
			again := m
			again.ID = fmt.Sprint("try-", i)
			got, existed, err := l.Open(context.WithoutCancel(t.Context()), again, allow)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || got.Body != "hello" {
				t.Errorf("open: %+v, %v", got, err)
			}
			if !existed {
				first++
				opened = got.ID
			}
		})
	}
	wg.Wait()
	equal(t, "opened", first, 1)
	m.ID = opened
	add(t, l, outcome("o", m, ledger.StatusSent, "SM1", now), stop("1", number(1), now))
	for range 2 {
		again := m
		again.ID = "other"
		got, existed, err := l.Open(t.Context(), again, allow)
		if err != nil || !existed || got.ID != m.ID || got.Status != ledger.StatusSent || got.ProviderID != "SM1" {
			t.Fatalf("repeat: %+v, %v, %v", got, existed, err)
		}
		again.Fingerprint = "something else"
		if _, existed, err := l.Open(t.Context(), again, allow); !existed || !errors.Is(err, ledger.ErrKeyReused) {
			t.Fatalf("reuse: %v, %v", existed, err)
		}
		l = s.o.Reopen(t)
	}
	equal(t, "messages", len(list(t, l.Messages(t.Context(), ""))), 1)
	for i := range 2 { // without a key every request is its own
		m := message(fmt.Sprint("free", i), number(2), now)
		m.Key = ""
		get2(l.Open(t.Context(), m, allow))(t)
	}
}

func history(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	odd := "Stop\u200b \"now\" <b>&amp;</b> \u2028 ＳＴＯＰ 🛑\x00\x1f\\ é́"
	var want []string
	for i := range 30 {
		e := stop(fmt.Sprint(i), number(i%3), now.Add(-time.Duration(i)*time.Hour)) // provider times run backwards
		e.Inbound.Body = odd + fmt.Sprint(i)
		e.Inbound.Raw = "Body=" + odd
		if i%3 == 1 {
			want = append(want, e.Inbound.Body)
		}
		add(t, l, e)
	}
	for range 2 {
		got := list(t, l.History(t.Context(), number(1)))
		equal(t, "events", len(got), len(want))
		for i, e := range got {
			equal(t, "text", e.Inbound.Body, want[i])
			equal(t, "raw", e.Inbound.Raw, "Body="+odd)
			equal(t, "sequence", e.Seq, uint64(3*i+2))
			equal(t, "id", e.ID, fmt.Sprint("in/", 3*i+1))
			if e.Hash == ([32]byte{}) || !e.At.Equal(now.Add(-time.Duration(3*i+1)*time.Hour)) {
				t.Fatalf("event %d: hash %x, time %v", e.Seq, e.Hash, e.At)
			}
		}
		equal(t, "events of a stranger", len(list(t, l.History(t.Context(), number(77)))), 0)
		numbers := list(t, l.Numbers(t.Context(), phone.Number{}))
		equal(t, "numbers", len(numbers), 3)
		equal(t, "numbers after the first", len(list(t, l.Numbers(t.Context(), number(0)))), 2)
		equal(t, "order", numbers[0].Number, number(0))
		l = s.o.Reopen(t)
	}
}

func proves(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	const each = 260
	for i := range each {
		// One number writes now and then, one every time, and one once.
		batch := []ledger.Event{stop(fmt.Sprint("o", i), number(2), now)}
		batch[0].Inbound.Body = "canary"
		if i == 3 {
			batch = append(batch, stop("once", number(3), now))
		}
		if i%20 == 7 || i == 8 {
			batch = append(batch, stop(fmt.Sprint("n", i), number(1), now))
		}
		add(t, l, batch...)
	}
	for range 2 {
		hashes := [][32]byte{{}}
		for _, e := range list(t, l.Events(t.Context(), 1)) {
			hashes = append(hashes, e.Hash)
		}
		head := uint64(len(hashes) - 1)
		for _, n := range []phone.Number{number(1), number(2), number(3)} {
			events := list(t, l.History(t.Context(), n))
			through := []uint64{1, events[0].Seq + 1, 40, 41, 200, head - 1, head, head + 5}
			met := map[uint64]bool{}
			at := uint64(0)
			for p, err := range l.Prove(t.Context(), n, through) {
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case p.Seq > head || p.Hash() != hashes[p.Seq]:
					t.Fatalf("link %d has another hash than the event", p.Seq)
				case at == 0 && p.Seq != events[0].Seq:
					t.Fatalf("begins with event %d, the number's first is %d", p.Seq, events[0].Seq)
				case at > 0 && !p.Follows(at, hashes[at]):
					t.Fatalf("link %d does not follow %d", p.Seq, at)
				case p.Own != (len(events) > 0 && events[0].Seq == p.Seq):
					t.Fatalf("link %d: own %v", p.Seq, p.Own)
				case !p.Own && (p.Payload != nil || p.Nonce != chain.Nonce{}):
					t.Fatalf("link %d shows what somebody else did", p.Seq)
				case p.Own:
					if chain.Digest(p.Nonce, p.Payload) != p.Digest {
						t.Fatalf("event %d is not what its digest says", p.Seq)
					}
					e, err := ledger.Decode(p.Payload)
					if err != nil || e.ID != events[0].ID || e.Number != n {
						t.Fatalf("event %d comes with %+v, %v", p.Seq, e, err)
					}
					events = events[1:]
				}
				at, met[p.Seq] = p.Seq, true
			}
			if at != head || len(events) > 0 {
				t.Fatalf("ends with event %d of %d, %d of the number's are missing", at, head, len(events))
			}
			for _, seq := range through[2:7] {
				if !met[seq] {
					t.Errorf("the proof does not go through %d", seq)
				}
			}
			if n == number(3) && len(met) > 60 {
				t.Errorf("%d links for one event among %d", len(met), head)
			}
		}
		for p, err := range l.Prove(t.Context(), number(77), []uint64{5}) {
			t.Errorf("a stranger's proof: %+v, %v", p, err)
		}
		last := uint64(0)
		for p, err := range l.Prove(t.Context(), number(3), nil) {
			if err != nil {
				t.Fatal(err)
			}
			last = p.Seq
		}
		equal(t, "the end of a proof through nothing", last, head)
		for _, err := range l.Prove(t.Context(), number(2), nil) { // a caller may stop anywhere
			if err != nil {
				t.Error(err)
			}
			break
		}
		l = s.o.Reopen(t)
	}
}

func lifting(t *testing.T, s *suite) {
	now := s.clock.Now()
	at := func(m int) time.Time { return now.Add(time.Duration(m) * time.Minute) }
	for _, c := range []struct {
		name   string
		events []ledger.Event
		want   consent.State
	}{
		{"STOP, then START", []ledger.Event{stop("1", number(1), at(1)), start("2", number(1), at(2))}, consent.OptedIn},
		{"START, then STOP", []ledger.Event{stop("1", number(1), at(2)), start("2", number(1), at(1))}, consent.OptedOut},
		{"both at once", []ledger.Event{stop("1", number(1), at(1)), start("2", number(1), at(1))}, consent.OptedOut},
		{"an admin after STOP", []ledger.Event{stop("1", number(1), at(1)), change("2", number(1), consent.OptIn, consent.Admin, at(2)),
			change("3", number(1), consent.OptIn, consent.CRM, at(3)), change("4", number(1), consent.OptIn, consent.API, at(4))}, consent.OptedOut},
		{"the CRM's own", []ledger.Event{change("1", number(1), consent.OptOut, consent.CRM, at(1)), change("2", number(1), consent.OptIn, consent.Admin, at(2))}, consent.OptedIn},
	} {
		for range 2 {
			l := s.start(t, consent.Policy{})
			for _, e := range c.events {
				add(t, l, e)
			}
			equal(t, c.name, l.State(number(1)), c.want)
			l = s.o.Reopen(t)
			equal(t, c.name+", after a restart", l.State(number(1)), c.want)
			slices.Reverse(c.events)
		}
	}
}

func owedOnce(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	ctx := context.WithoutCancel(t.Context())
	now := s.clock.Now()
	add(t, l, inbound("0", number(1), reply.None, now), inbound("00", number(1), reply.Hold, now))
	equal(t, "owed before", len(boxes(t, l)), 0)
	add(t, l, stop("1", number(1), now), stop("2", number(1), now.Add(time.Second)), stop("3", number(2), now))
	add(t, l, ledger.Event{Kind: ledger.KindPass, At: now, Pass: &ledger.Pass{ID: "p", Kind: "nightly", StartedAt: now}})
	later := s.clock.advance(time.Hour)
	key := crm.Key{Object: "Contact", ID: "003A"}
	r := add(t, l, ledger.Event{Kind: ledger.KindCorrection, At: later, Number: number(1),
		Correction: &ledger.Correction{Pass: "p", CRM: "sf", Record: &key, Cause: "unticked", Action: "tick", Result: "pending"}})
	owed := boxes(t, l)
	equal(t, "owed", len(owed), 2)
	equal(t, "number", owed[0].Number, number(1))
	equal(t, "newest event", owed[0].Seq, r[0].Seq)
	if !owed[0].Since.Equal(now) || !slices.Equal(owed[0].Records, []ledger.OwedRecord{{CRM: "sf", Key: key}}) {
		t.Fatalf("merged: %+v", owed[0])
	}
	select {
	case <-l.OwedSignal(ledger.OweBoxes):
	default:
		t.Fatal("no signal although work is owed")
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var claimed []ledger.Owed
	for range 20 {
		wg.Go(func() {
			got, err := l.Claim(ctx, ledger.OweBoxes, 1)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			claimed = append(claimed, got...)
		})
	}
	wg.Wait()
	equal(t, "claimed by twenty", len(claimed), 2)
	equal(t, "claimed of another kind", len(get(l.Claim(ctx, ledger.OweTime, 9))(t)), 0)
	for _, o := range claimed {
		equal(t, "attempts", o.Attempts, 1)
		add(t, l, written("w"+o.Key, o.Number, o.Seq, later, wrote("003A", "", "")))
	}
	equal(t, "owed after", len(boxes(t, l)), 0)
	equal(t, "claimable after", len(get(l.Claim(ctx, ledger.OweBoxes, 9))(t)), 0)
	add(t, l, start("5", number(1), later.Add(time.Hour))) // back again: the boxes are to be cleared
	equal(t, "owed after the flip back", len(get(l.Claim(ctx, ledger.OweBoxes, 9))(t)), 1)
}

func owedNewer(t *testing.T, s *suite) {
	for _, giveBack := range []bool{false, true} {
		l := s.start(t, consent.Policy{})
		now := s.clock.Now()
		add(t, l, stop("1", number(1), now))
		o := get(l.Claim(t.Context(), ledger.OweBoxes, 9))(t)[0]
		add(t, l, start("2", number(1), now.Add(time.Minute)))
		equal(t, "claimable while claimed", len(get(l.Claim(t.Context(), ledger.OweBoxes, 9))(t)), 0)
		add(t, l, written("w", number(1), o.Seq, now, wrote("003A", "", "")))
		if giveBack { // harmless, and not needed
			if err := l.Return(t.Context(), o, now.Add(time.Hour), "busy"); err != nil {
				t.Fatal(err)
			}
		}
		again := get(l.Claim(t.Context(), ledger.OweBoxes, 9))(t)
		equal(t, "claimable when the older work is done", len(again), 1)
		equal(t, "newer", again[0].Seq, 2)
		if err := l.Return(t.Context(), o, now, "late"); err != nil { // of a claim that is over
			t.Fatal(err)
		}
		equal(t, "handed out twice", len(get(l.Claim(t.Context(), ledger.OweBoxes, 9))(t)), 0)
		add(t, l, written("w2", number(1), again[0].Seq, now, wrote("003A", "", "")))
		equal(t, "owed", len(boxes(t, l)), 0)
	}
}

func owedReturn(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	add(t, l, stop("1", number(1), now), stop("2", number(2), now))
	both := get(l.Claim(t.Context(), ledger.OweBoxes, 9))(t)
	equal(t, "claimed", len(both), 2)
	for _, o := range both {
		if err := l.Return(t.Context(), o, now.Add(time.Duration(o.Seq)*time.Minute), "the CRM is down"); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "claimable at once", len(get(l.Claim(t.Context(), ledger.OweBoxes, 9))(t)), 0)
	equal(t, "note", boxes(t, l)[0].Note, "the CRM is down")
	s.clock.advance(time.Minute)
	due := get(l.Claim(t.Context(), ledger.OweBoxes, 9))(t)
	equal(t, "claimable after a minute", len(due), 1)
	equal(t, "number", due[0].Number, number(1))
	equal(t, "attempts", due[0].Attempts, 2)
	add(t, l, start("3", number(2), now.Add(time.Hour))) // newer work does not wait for the older one's time
	due = get(l.Claim(t.Context(), ledger.OweBoxes, 9))(t)
	equal(t, "claimable after the flip", len(due), 1)
	equal(t, "number", due[0].Number, number(2))
}

func owedParked(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	add(t, l, stop("1", number(1), now))
	o := get(l.Claim(t.Context(), ledger.OweBoxes, 9))(t)[0]
	add(t, l, written("w1", number(1), o.Seq, now, wrote("003A", "", ""), wrote("003B", crm.Park, "e-mail is required")))
	for range 2 {
		owed := boxes(t, l)
		equal(t, "owed", len(owed), 1)
		if owed[0].Parked == nil || owed[0].Parked.Text == "" || !owed[0].Parked.At.Equal(now) {
			t.Fatalf("parked: %+v", owed[0].Parked)
		}
		equal(t, "parked", get(l.Stats(t.Context()))(t).Parked, 1)
		l = s.o.Reopen(t)
	}
	o = get(l.Claim(t.Context(), ledger.OweBoxes, 9))(t)[0]
	add(t, l, written("w2", number(1), o.Seq, now, wrote("003B", crm.RetryLater, "down")))
	if p := boxes(t, l)[0].Parked; p != nil {
		t.Fatalf("still parked: %+v", p)
	}
	add(t, l, written("w3", number(1), o.Seq, now, wrote("003A", "", ""), wrote("003B", "", "")))
	equal(t, "owed", len(boxes(t, l)), 0)
	st := get(l.Stats(t.Context()))(t)
	equal(t, "parked", st.Parked, 0)
}

func owedTime(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	add(t, l, stop("1", number(1), now))
	e := start("2", number(1), now.Add(time.Hour))
	e.Inbound.SentAt, e.Inbound.Wait = time.Time{}, true
	r := add(t, l, e)
	equal(t, "state while its time is not known", l.State(number(1)), consent.OptedOut)
	o := get(l.Claim(t.Context(), ledger.OweTime, 9))(t)
	equal(t, "times owed", len(o), 1)
	equal(t, "of", o[0].Seq, r[0].Seq)
	timed := ledger.Event{Kind: ledger.KindTimed, ID: "t", At: now.Add(2 * time.Hour), Number: number(1), Timed: &ledger.Timed{Of: r[0].Seq, SentAt: now.Add(time.Minute)}}
	add(t, l, timed)
	equal(t, "state", l.State(number(1)), consent.OptedIn)
	equal(t, "times owed", len(get(l.Claim(t.Context(), ledger.OweTime, 9))(t)), 0)
	st := get(l.Stats(t.Context()))(t)
	equal(t, "times owed", st.Owed[ledger.OweTime], 0)
	l = s.o.Reopen(t)
	equal(t, "state after a restart", l.State(number(1)), consent.OptedIn)
}

func owedRestart(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	for i := range 10 {
		add(t, l, stop(fmt.Sprint(i), number(i), now))
	}
	claimed := get(l.Claim(t.Context(), ledger.OweBoxes, 6))(t)
	equal(t, "claimed", len(claimed), 6)
	add(t, l, written("w", claimed[0].Number, claimed[0].Seq, now))
	l = s.o.Reopen(t)
	equal(t, "claimable after a restart", len(get(l.Claim(t.Context(), ledger.OweBoxes, 99))(t)), 9)
}

func progressOrder(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	n := 0
	for _, c := range []struct {
		name     string
		status   ledger.Status
		told     []string
		want     ledger.Status
		delivery string
	}{
		{"delivered", ledger.StatusSent, []string{"queued", "sent", "delivered"}, ledger.StatusSent, "delivered"},
		{"failed", ledger.StatusSent, []string{"queued", "failed"}, ledger.StatusFailed, "failed"},
		{"unknown, then told", ledger.StatusUnknown, []string{"queued", "sent"}, ledger.StatusSent, "sent"},
	} {
		permute(len(c.told)+1, func(order []int) {
			for _, direct := range []bool{false, true} { // callbacks that name heed's own id, or only the provider's
				n++
				m := get2(l.Open(t.Context(), message(fmt.Sprint("m", n), number(n), now), allow))(t)
				pid := fmt.Sprint("SM", n)
				for _, k := range order {
					if k == len(c.told) {
						add(t, l, outcome(fmt.Sprint(n, "o"), m, c.status, pid, now))
						continue
					}
					e := told(fmt.Sprint(n, "s", k), m, pid, c.told[k], now)
					if direct {
						e.Status.Message = m.ID
					}
					add(t, l, e)
				}
				got := get(l.MessageByProvider(t.Context(), account, pid))(t)
				what := fmt.Sprintf("%s, order %v, direct %v", c.name, order, direct)
				equal(t, what+": id", got.ID, m.ID)
				equal(t, what+": status", got.Status, c.want)
				equal(t, what+": delivery", got.Delivery, c.delivery)
			}
		})
	}
	before := get(l.Stats(t.Context()))(t).Messages
	equal(t, "open", len(list(t, l.Unsettled(t.Context()))), 0)
	l = s.o.Reopen(t)
	after := get(l.Stats(t.Context()))(t).Messages
	equal(t, "sent", after[ledger.StatusSent], before[ledger.StatusSent])
	equal(t, "sum", after[ledger.StatusSent]+after[ledger.StatusFailed], uint64(n))
}

func permute(n int, fn func([]int)) {
	var rec func(head, rest []int)
	rec = func(head, rest []int) {
		if len(rest) == 0 {
			fn(head)
			return
		}
		for i := range rest {
			rec(append(slices.Clone(head), rest[i]), slices.Delete(slices.Clone(rest), i, i+1))
		}
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	rec(nil, all)
}

func unsettled(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	add(t, l, stop("1", number(9), now))
	ids := func() (out []string) {
		for _, m := range list(t, l.Unsettled(t.Context())) {
			out = append(out, m.ID)
		}
		return out
	}
	expect := func(want ...string) {
		t.Helper()
		if got := ids(); !slices.Equal(got, want) {
			t.Fatalf("open messages %q, want %q", got, want)
		}
	}
	a := get2(l.Open(t.Context(), message("a", number(1), now), allow))(t)
	b := get2(l.Open(t.Context(), message("b", number(2), now), allow))(t)
	get2(l.Open(t.Context(), message("c", number(9), now), allow))(t) // blocked: nothing is open
	expect("a", "b")
	add(t, l, outcome("oa", a, ledger.StatusUnknown, "", now), outcome("ob", b, ledger.StatusFailed, "", now))
	expect("a")
	l = s.o.Reopen(t)
	expect("a")
	e := told("sa", a, "SM1", "delivered", now)
	e.Status.Message = a.ID
	add(t, l, e)
	expect()
	equal(t, "status", get(l.MessageByProvider(t.Context(), account, "SM1"))(t).Status, ledger.StatusSent)
	for _, id := range []string{"nobody", ""} {
		if _, err := l.Message(t.Context(), id); !errors.Is(err, ledger.ErrNotFound) {
			t.Fatalf("message %q: %v", id, err)
		}
		if _, err := l.MessageByProvider(t.Context(), account, id); !errors.Is(err, ledger.ErrNotFound) {
			t.Fatalf("message by provider %q: %v", id, err)
		}
	}
	if _, err := l.MessageByProvider(t.Context(), "another account", "SM1"); !errors.Is(err, ledger.ErrNotFound) {
		t.Fatal("a message of another account:", err)
	}
	// Word of a message that nobody opened is kept and harms nothing.
	add(t, l, outcome("ox", message("x", number(1), now), ledger.StatusSent, "SM9", now), told("sx", b, "SM8", "sent", now))
	expect()
}

func messages(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	const n = 1100
	events := make([]ledger.Event, n)
	for i := range events {
		m := message(fmt.Sprintf("m%04d", i), number(i), s.clock.Now())
		m.Decision = allow
		events[i] = ledger.Event{Kind: ledger.KindOpened, ID: m.Key, At: m.CreatedAt, Number: m.To, Opened: &m}
	}
	add(t, l, events...)
	i := n
	for _, m := range list(t, l.Messages(t.Context(), "")) {
		i--
		equal(t, "message", m.ID, fmt.Sprintf("m%04d", i))
	}
	equal(t, "messages left out", i, 0)
	for _, before := range []int{0, 1, 600, n - 1} {
		i := before
		for _, m := range list(t, l.MessagesBefore(t.Context(), fmt.Sprintf("m%04d", before))) {
			i--
			equal(t, "message before", m.ID, fmt.Sprintf("m%04d", i))
		}
		equal(t, "messages before left out", i, 0)
	}
	for _, err := range l.MessagesBefore(t.Context(), "m9999") {
		if !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("messages before none: %v", err)
		}
	}
	equal(t, "open", len(list(t, l.Unsettled(t.Context()))), n)
	seen := 0
	for m, err := range l.Unsettled(t.Context()) { // the caller may write while it reads
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen%100 == 0 {
			add(t, l, outcome("o"+m.ID, m, ledger.StatusSent, "SM"+m.ID, s.clock.Now()))
		}
	}
	equal(t, "open messages seen", seen, n)
}

func passes(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	pass := func(id string, end bool) ledger.Event {
		p := ledger.Pass{ID: id, Kind: "nightly", StartedAt: now}
		e := ledger.Event{Kind: ledger.KindPass, ID: "begin/" + id, At: now, Pass: &p}
		if end {
			e.ID, p.FinishedAt, p.Counts = "end/"+id, now.Add(time.Minute), map[string]int{"records": 7}
		}
		return e
	}
	correction := func(pass, cause, record string, n int) ledger.Event {
		e := ledger.Event{Kind: ledger.KindCorrection, ID: pass + cause + record, At: now, Number: number(n),
			Correction: &ledger.Correction{Pass: pass, CRM: "sf", Cause: cause, Action: "none", Detail: "x"}}
		if record != "" {
			e.Correction.Record, e.Correction.Action, e.Correction.Result = &crm.Key{Object: "Contact", ID: record}, "tick", "pending"
		}
		return e
	}
	add(t, l, pass("p", false), correction("p", "unticked", "003A", 1), correction("p", "new", "003B", 2),
		correction("p", "new", "003C", 3), correction("p", "unparsed", "", 4), pass("p", true),
		pass("pp", false), correction("pp", "new", "003D", 5))
	results := func(want map[string]int) {
		t.Helper()
		p := get(l.Report(t.Context(), "p"))(t)
		if fmt.Sprint(p.Results) != fmt.Sprint(want) || p.Causes["new"] != 2 || p.Causes["unticked"] != 1 || p.Counts["records"] != 7 || p.FinishedAt.IsZero() {
			t.Fatalf("pass %+v, want results %v", p, want)
		}
	}
	results(map[string]int{"pending": 3})
	add(t, l, written("w1", number(1), 99, now, wrote("003A", "", "")),
		written("w2", number(2), 99, now, wrote("003B", crm.Park, "e-mail is required")),
		written("w3", number(3), 99, now, wrote("003C", crm.RetryLater, "down")))
	results(map[string]int{"done": 1, "parked": 1, "pending": 1})
	l = s.o.Reopen(t)
	results(map[string]int{"done": 1, "parked": 1, "pending": 1})
	add(t, l, written("w4", number(2), 99, now, wrote("003B", "", "")), written("w5", number(3), 99, now, wrote("003C", "", "")))
	results(map[string]int{"done": 3})
	add(t, l, written("w6", number(3), 99, now, wrote("003C", crm.Park, "later refusal"))) // of other work
	results(map[string]int{"done": 3})
	got := list(t, l.Corrections(t.Context(), "p"))
	equal(t, "corrections", len(got), 4)
	for i, c := range got {
		equal(t, "number", c.Number, number(i+1))
		equal(t, "sequence", c.Seq, uint64(i+2))
	}
	equal(t, "result", got[1].Result, "done")
	equal(t, "corrections of the other pass", len(list(t, l.Corrections(t.Context(), "pp"))), 1)
	equal(t, "corrections of no pass", len(list(t, l.Corrections(t.Context(), "x"))), 0)
	reports := list(t, l.Reports(t.Context()))
	if len(reports) != 2 || reports[0].ID != "pp" || !reports[0].FinishedAt.IsZero() {
		t.Fatalf("reports %+v", reports)
	}
	if _, err := l.Report(t.Context(), "x"); !errors.Is(err, ledger.ErrNotFound) {
		t.Fatal(err)
	}
}

func record(object, id string, numbers ...phone.Number) ledger.MirrorRecord {
	return ledger.MirrorRecord{Key: crm.Key{Object: object, ID: id}, Numbers: numbers}
}

func ids(records []ledger.MirrorRecord) (out []string) {
	for _, r := range records {
		out = append(out, r.ID)
	}
	slices.Sort(out)
	return out
}

func mirrors(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	m, other := l.Mirror("sf"), l.Mirror("other")
	byNumber := func(m ledger.Mirror, n phone.Number, want ...string) {
		t.Helper()
		if got := ids(get(m.ByNumber(t.Context(), n))(t)); !slices.Equal(got, want) {
			t.Fatalf("records of %v: %q, want %q", n.Masked(), got, want)
		}
	}
	put := func(m ledger.Mirror, r ...ledger.MirrorRecord) {
		t.Helper()
		if err := m.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	byNumber(m, number(1))
	equal(t, "records at first", get(m.Len(t.Context()))(t), 0)
	equal(t, "known at first", len(get(m.Get(t.Context(), []crm.Key{{Object: "Contact", ID: "a"}}))(t)), 0)
	if err := m.Delete(t.Context(), []crm.Key{{Object: "Contact", ID: "a"}}); err != nil {
		t.Fatal(err)
	}
	now := s.clock.Now()
	a := record("Contact", "a", number(1), number(2))
	a.OptedOut, a.Stamp, a.SeenAt, a.Unparsed, a.Missing = true, now, now, 3, 4
	put(m, a, record("Contact", "b", number(2)), record("Lead", "c", number(2)), record("Lead", "none"))
	put(other, record("Contact", "z", number(1)))
	put(m)
	byNumber(m, number(1), "a")
	byNumber(m, number(2), "a", "b", "c")
	byNumber(other, number(1), "z")
	put(m, record("Contact", "a", number(3), number(2))) // moved from 1 to 3
	byNumber(m, number(1))
	byNumber(m, number(2), "a", "b", "c")
	byNumber(m, number(3), "a")
	put(m, a)
	equal(t, "records", get(m.Len(t.Context()))(t), 4)
	if err := m.Delete(t.Context(), []crm.Key{{Object: "Contact", ID: "b"}, {Object: "Contact", ID: "unknown"}, {Object: "Contact", ID: "b"}}); err != nil {
		t.Fatal(err)
	}
	l = s.o.Reopen(t)
	m = l.Mirror("sf")
	byNumber(m, number(1), "a")
	byNumber(m, number(2), "a", "c")
	byNumber(m, number(3))
	equal(t, "records", get(m.Len(t.Context()))(t), 3)
	equal(t, "records of the other", get(l.Mirror("other").Len(t.Context()))(t), 1)
	got := get(m.Get(t.Context(), []crm.Key{{Object: "Contact", ID: "a"}, {Object: "Contact", ID: "b"}}))(t)
	if len(got) != 1 || got[0].Key != a.Key || !got[0].OptedOut || !got[0].Stamp.Equal(now) || got[0].Unparsed != 3 || got[0].Missing != 4 || !slices.Equal(got[0].Numbers, a.Numbers) {
		t.Fatalf("read back %+v", got)
	}
}

func mirrorStale(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	m := l.Mirror("sf")
	now := s.clock.Now()
	r := record("Contact", "a", number(1))
	r.SeenAt = now
	read := func(at time.Time, optedOut bool) ledger.MirrorRecord {
		r.SeenAt, r.OptedOut = at, optedOut
		if err := m.Put(t.Context(), []ledger.MirrorRecord{r}); err != nil {
			t.Fatal(err)
		}
		return get(m.Get(t.Context(), []crm.Key{r.Key}))(t)[0]
	}
	read(now, false)
	if err := m.Wrote(t.Context(), []crm.Key{r.Key, {Object: "Contact", ID: "unknown"}}, true, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	equal(t, "records", get(m.Len(t.Context()))(t), 1)
	equal(t, "box", get(m.Get(t.Context(), []crm.Key{r.Key}))(t)[0].OptedOut, true)
	equal(t, "box after a read that began before the write ended", read(now.Add(30*time.Second), false).OptedOut, true)
	equal(t, "box after a later read", read(now.Add(2*time.Minute), false).OptedOut, false)
	equal(t, "by number", len(get(m.ByNumber(t.Context(), number(1)))(t)), 1)
}

func mirrorBetween(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	m := l.Mirror("sf")
	equal(t, "records of an empty mirror", len(list(t, m.Between(t.Context(), crm.Key{}, crm.Key{}))), 0)
	var all []ledger.MirrorRecord
	for i := range 1100 {
		all = append(all, record([]string{"Contact", "Lead"}[i%2], fmt.Sprintf("%04d", i), number(i%9)))
	}
	if err := m.Put(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b ledger.MirrorRecord) int {
		if a.Object != b.Object {
			return map[bool]int{true: -1, false: 1}[a.Object < b.Object]
		}
		return map[bool]int{true: -1, false: 1}[a.ID < b.ID]
	})
	for _, from := range []int{0, 1, 511, 512, 550, 1099} {
		after := crm.Key{}
		if from > 0 {
			after = all[from-1].Key
		}
		for _, to := range []int{1100, 1099, 1024, 700, 512, from + 1, from} {
			upTo := crm.Key{} // to the end
			if to < len(all) {
				upTo = crm.Key{Object: all[to].Object, ID: all[to].ID[:3] + "/"} // a key that is not there, just before or after
				to, _ = slices.BinarySearchFunc(all, upTo, func(r ledger.MirrorRecord, k crm.Key) int {
					return cmp.Or(cmp.Compare(r.Object, k.Object), cmp.Compare(r.ID, k.ID))
				})
			}
			got := list(t, m.Between(t.Context(), after, upTo))
			equal(t, "records", len(got), max(to-from, 0))
			for i, r := range got {
				equal(t, "record", r.Key, all[from+i].Key)
				equal(t, "number", r.Numbers[0], all[from+i].Numbers[0])
			}
		}
		if from > 0 {
			equal(t, "records up to and including itself", len(list(t, m.Between(t.Context(), crm.Key{}, after))), from)
		}
	}
	n := 0
	for r, err := range m.Between(t.Context(), crm.Key{}, crm.Key{}) { // the caller may write while it reads
		if err != nil {
			t.Fatal(err)
		}
		if n++; n%100 == 0 {
			if err := m.Delete(t.Context(), []crm.Key{r.Key}); err != nil {
				t.Fatal(err)
			}
		}
	}
	equal(t, "records seen", n, 1100)
	equal(t, "records left", get(m.Len(t.Context()))(t), 1089)
}

func cursors(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	equal(t, "at first", get(l.Cursor(t.Context(), "crm/sf"))(t), "")
	for _, v := range []string{"1", "2026-03-02T09:00:00Z", ""} {
		if err := l.SetCursor(t.Context(), "crm/sf", v); err != nil {
			t.Fatal(err)
		}
		if err := l.SetCursor(t.Context(), "other", v+"x"); err != nil {
			t.Fatal(err)
		}
		l = s.o.Reopen(t)
		equal(t, "cursor", get(l.Cursor(t.Context(), "crm/sf"))(t), v)
		equal(t, "the other", get(l.Cursor(t.Context(), "other"))(t), v+"x")
	}
}

func stats(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	equal(t, "head of nothing", get(l.Stats(t.Context()))(t).Head, 0)
	add(t, l, stop("1", number(1), now), stop("2", number(2), now), start("3", number(2), now.Add(time.Hour)),
		inbound("4", number(3), reply.Hold, now), inbound("5", number(4), reply.None, now),
		stop("6", phone.Number{}, now), // from a sender that is no number
		ledger.Event{Kind: ledger.KindQuarantine, At: now, Quarantine: &ledger.Quarantine{Account: account, Raw: "?", Reason: "x"}})
	for i := range 6 {
		m := get2(l.Open(t.Context(), message(fmt.Sprint(i), number(1+i%3*5), now), allow))(t)
		if i >= 3 && m.Status == ledger.StatusQueued {
			add(t, l, outcome(fmt.Sprint("o", i), m, ledger.StatusSent, fmt.Sprint("SM", i), now))
		}
	}
	for range 2 {
		st := get(l.Stats(t.Context()))(t)
		equal(t, "head", st.Head, 15)
		equal(t, "applied", st.Applied, 15)
		equal(t, "inbound", st.Inbound, 6)
		equal(t, "opt-outs", st.OptOuts, 3)
		equal(t, "quarantine", st.Quarantine, 1)
		equal(t, "opted out", st.Numbers["opted_out"], 1)
		equal(t, "opted in", st.Numbers["opted_in"], 1)
		equal(t, "held", st.Numbers["held"], 1)
		equal(t, "owed", st.Owed[ledger.OweBoxes], 2)
		equal(t, "blocked", st.Messages[ledger.StatusBlocked], 2)
		equal(t, "queued", st.Messages[ledger.StatusQueued], 2)
		equal(t, "sent", st.Messages[ledger.StatusSent], 2)
		equal(t, "degraded", st.Degraded, "")
		if st.Bytes <= 0 || st.HeadHash == ([32]byte{}) || !st.OldestOwed.Equal(now) {
			t.Fatalf("stats %+v", st)
		}
		all := list(t, l.Events(t.Context(), st.Head))
		equal(t, "hash of the newest event", all[0].Hash, st.HeadHash)
		l = s.o.Reopen(t)
	}
}

// oldestOwed: an alarm hangs on how long the oldest work has waited. What is to be sent on Friday does not wait on Monday.
func oldestOwed(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	later := message("later", number(1), now)
	later.Deferred, later.SendAt = true, now.Add(48*time.Hour)
	get2(l.Open(t.Context(), later, allow))(t)
	waitsSince := func(what string, want time.Time) {
		t.Helper()
		if got := get(l.Stats(t.Context()))(t).OldestOwed; !got.Equal(want) {
			t.Fatalf("%s: the oldest work waits since %v, want %v", what, got, want)
		}
	}
	waitsSince("put off", time.Time{})
	queued := message("queued", number(2), s.clock.advance(time.Hour))
	queued.Deferred = true
	get2(l.Open(t.Context(), queued, allow))(t)
	waitsSince("another that is not put off", now.Add(time.Hour))
	l = s.o.Reopen(t)
	sent := outcome("o", queued, ledger.StatusSent, "SM1", s.clock.Now())
	sent.Outcome.Of = 2 // the event with which it was asked for
	add(t, l, sent)
	waitsSince("that one is sent", time.Time{})
	s.clock.advance(50 * time.Hour)
	waitsSince("its time has come", now.Add(48*time.Hour))
}

func cancelled(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	now := s.clock.Now()
	for i := range 20 {
		_, err := l.Append(ctx, stop(fmt.Sprint(i, "a"), number(i), now), stop(fmt.Sprint(i, "b"), number(i+100), now))
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	add(t, l, stop("last", number(999), now)) // what was under way before is decided now
	for i := range 20 {
		a, b := get(l.Seen(t.Context(), fmt.Sprint("in/", i, "a")))(t), get(l.Seen(t.Context(), fmt.Sprint("in/", i, "b")))(t)
		equal(t, "both or none", a, b)
		equal(t, "decision", l.Decide(number(i)).Verdict == consent.Block, a)
	}
	if _, _, err := l.Open(ctx, message("m", number(1), now), allow); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, err := range l.Events(ctx, 0) {
		if !errors.Is(err, context.Canceled) {
			t.Fatal("events of a cancelled caller:", err)
		}
	}
	for _, err := range l.Messages(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Fatal("messages of a cancelled caller:", err)
		}
	}
	if err := l.Health(); err != nil {
		t.Fatal(err)
	}
}

func closed(t *testing.T, s *suite) {
	l := s.start(t, consent.Policy{})
	now := s.clock.Now()
	add(t, l, stop("1", number(1), now))
	if err := l.Mirror("sf").Put(t.Context(), []ledger.MirrorRecord{record("Contact", "a", number(1))}); err != nil {
		t.Fatal(err)
	}
	o := get(l.Claim(t.Context(), ledger.OweBoxes, 1))(t)[0]
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	key := []crm.Key{{Object: "Contact", ID: "a"}}
	for name, call := range map[string]func() error{
		"Append":            func() error { _, err := l.Append(ctx, stop("2", number(2), now)); return err },
		"Open":              func() error { _, _, err := l.Open(ctx, message("m", number(2), now), allow); return err },
		"Number":            func() error { _, err := l.Number(ctx, number(1)); return err },
		"Numbers":           func() error { return first(l.Numbers(ctx, phone.Number{})) },
		"History":           func() error { return first(l.History(ctx, number(1))) },
		"Prove":             func() error { return first(l.Prove(ctx, number(1), nil)) },
		"Events":            func() error { return first(l.Events(ctx, 0)) },
		"Seen":              func() error { _, err := l.Seen(ctx, "in/1"); return err },
		"Message":           func() error { _, err := l.Message(ctx, "m"); return err },
		"MessageByProvider": func() error { _, err := l.MessageByProvider(ctx, account, "m"); return err },
		"Messages":          func() error { return first(l.Messages(ctx, "")) },
		"MessagesBefore":    func() error { return first(l.MessagesBefore(ctx, "m")) },
		"Unsettled":         func() error { return first(l.Unsettled(ctx)) },
		"Claim":             func() error { _, err := l.Claim(ctx, ledger.OweBoxes, 1); return err },
		"Return":            func() error { return l.Return(ctx, o, now, "") },
		"Owed":              func() error { return first(l.Owed(ctx)) },
		"Reports":           func() error { return first(l.Reports(ctx)) },
		"Report":            func() error { _, err := l.Report(ctx, "p"); return err },
		"Corrections":       func() error { return first(l.Corrections(ctx, "p")) },
		"Cursor":            func() error { _, err := l.Cursor(ctx, "c"); return err },
		"SetCursor":         func() error { return l.SetCursor(ctx, "c", "1") },
		"Stats":             func() error { _, err := l.Stats(ctx); return err },
		"Health":            func() error { return l.Health() },
		"Mirror.ByNumber":   func() error { _, err := l.Mirror("sf").ByNumber(ctx, number(1)); return err },
		"Mirror.Get":        func() error { _, err := l.Mirror("sf").Get(ctx, key); return err },
		"Mirror.Put":        func() error { return l.Mirror("sf").Put(ctx, []ledger.MirrorRecord{record("Contact", "a")}) },
		"Mirror.Wrote":      func() error { return l.Mirror("sf").Wrote(ctx, key, true, now) },
		"Mirror.Delete":     func() error { return l.Mirror("sf").Delete(ctx, key) },
		"Mirror.Between":    func() error { return first(l.Mirror("sf").Between(ctx, crm.Key{}, crm.Key{})) },
		"Mirror.Len":        func() error { _, err := l.Mirror("sf").Len(ctx); return err },
	} {
		if err := call(); !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []phone.Number{number(1), number(2)} {
		equal(t, "decision", l.Decide(n), consent.Decision{Verdict: consent.Block, Reason: consent.Unavailable})
		equal(t, "state", l.State(n), consent.OptedOut)
	}
}

// first returns the first error of a sequence, nil if there is none.
func first[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}
