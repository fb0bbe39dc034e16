package connector_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms"
)

// clock is a time that only tests move.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *clock) Pass(d time.Duration)    { c.nanos.Add(int64(d)) }
func (c *clock) waits() *waits           { return &waits{clock: c} }
func (w *waits) all() []time.Duration    { w.mu.Lock(); defer w.mu.Unlock(); return w.list }
func seconds(n float64) time.Duration    { return time.Duration(n * float64(time.Second)) }
func about(got, want time.Duration) bool { return got >= want && got <= want+time.Microsecond }

// waits stands in for waiting: it moves the clock.
type waits struct {
	clock *clock
	mu    sync.Mutex
	list  []time.Duration
}

func (w *waits) wait(ctx context.Context, d time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, d)
	w.clock.Pass(d)
	return ctx.Err() == nil
}

// slowRig is a rig whose one account sends two a second, four at once.
func slowRig(t *testing.T) (*rig, *clock, *waits) {
	r, c := newRig(t), newClock()
	w := c.waits()
	r.gate.Now, r.gate.Wait = c.Now, w.wait
	r.gate.Limits = connector.NewLimits(0, 2, nil, r.gate.Accounts)
	return r, c, w
}

func head(t *testing.T, r *rig) uint64 {
	t.Helper()
	s, err := r.ledger.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Head
}

func TestAKeyIsAnsweredTwiceItsRateAtOnceAndThenAtItsRate(t *testing.T) {
	c := newClock()
	l := connector.NewLimits(10, 0, []string{"a", "b"}, nil)
	ask := func() (n int, last *connector.TooManyError) {
		for range 1000 {
			err := l.Ask("a", c.Now())
			if err == nil {
				n++
			} else if !errors.As(err, &last) {
				t.Fatal(err)
			}
		}
		return n, last
	}
	for _, step := range []struct {
		pass time.Duration
		want int
	}{{0, 20}, {0, 0}, {seconds(0.05), 0}, {seconds(0.05), 1}, {seconds(1), 10}, {seconds(3600), 20}} {
		c.Pass(step.pass)
		n, refused := ask()
		if n != step.want {
			t.Errorf("after %s: %d requests pass, want %d", step.pass, n, step.want)
		}
		if refused.RetryAfter <= 0 || refused.RetryAfter > seconds(0.1)+1 || refused.PerSecond != 10 || refused.What != `API key "a"` {
			t.Errorf("after %s: %+v", step.pass, refused)
		}
	}
	_, refused := ask()
	c.Pass(refused.RetryAfter)
	if n, _ := ask(); n != 1 {
		t.Errorf("whoever comes back when told gets %d requests through, want 1", n)
	}
	if err := l.Ask("b", c.Now()); err != nil {
		t.Errorf("another key is refused: %v", err)
	}
}

func TestARefusedCrowdDoesNotUseUpWhatOthersMay(t *testing.T) {
	c := newClock()
	l := connector.NewLimits(5, 0, []string{"a"}, nil)
	var passed atomic.Int64
	for range 10 {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					if l.Ask("a", c.Now()) == nil {
						passed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		c.Pass(time.Second)
	}
	if n := passed.Load(); n != 10+9*5 {
		t.Errorf("%d requests passed, want 55", n)
	}
}

func TestNoLimitsAndStrangersAreNotCounted(t *testing.T) {
	for name, l := range map[string]*connector.Limits{
		"no limits": nil, "a limit of 0": connector.NewLimits(0, 0, []string{"a"}, nil), "an unknown name": connector.NewLimits(1, 1, nil, nil),
	} {
		for i := range 1000 {
			if err := l.Ask("a", time.Unix(0, 0)); err != nil {
				t.Fatalf("%s: request %d: %v", name, i, err)
			}
		}
		if n := testing.AllocsPerRun(100, func() { _ = l.Ask(strings.Repeat("x", 3), time.Unix(0, 0)) }); n > 1 {
			t.Errorf("%s: %v allocations a request: something is kept", name, n)
		}
	}
}

func TestRetryAfterIsInWholeSecondsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int{0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Second: 90} {
		if got := (&connector.TooManyError{RetryAfter: d}).RetryAfterSeconds(); got != want {
			t.Errorf("%s: %d, want %d", d, got, want)
		}
	}
}

func TestARequestBeyondTheKeysLimitIsAnswered429WithRetryAfter(t *testing.T) {
	r, c := newRig(t), newClock()
	r.server.Now = c.Now
	r.server.Limits = connector.NewLimits(1, 0, r.server.Keys.Names(), nil)
	for i, want := range []int{200, 200, 429} {
		if w := r.request("POST", "/v1/decisions", "k-read", `{"numbers":["1"]}`); w.Code != want {
			t.Fatalf("request %d: HTTP %d %s", i, w.Code, w.Body)
		} else if want == 429 && (w.Header().Get("Retry-After") != "1" || w.Header().Get("Content-Type") != "application/problem+json" ||
			!strings.Contains(w.Body.String(), `"type":"too-many"`) || !strings.Contains(w.Body.String(), `\"reader\"`)) {
			t.Errorf("%v %s", w.Header(), w.Body)
		}
	}
	// A stranger is refused as before, and uses up nobody's limit.
	if w := r.request("POST", "/v1/decisions", "k-unknown", `{"numbers":["1"]}`); w.Code != http.StatusUnauthorized {
		t.Errorf("HTTP %d", w.Code)
	}
	if w := r.request("POST", "/v1/decisions", "k-send", `{"numbers":["1"]}`); w.Code != http.StatusOK {
		t.Errorf("another key: HTTP %d", w.Code)
	}
	c.Pass(time.Second)
	if w := r.request("POST", "/v1/decisions", "k-read", `{"numbers":["1"]}`); w.Code != http.StatusOK {
		t.Errorf("a second later: HTTP %d", w.Code)
	}
	r.throttled("key", 1)
}

// throttled checks how many 429s the metrics count.
func (r *rig) throttled(by string, want int) {
	r.t.Helper()
	scrape := httptest.NewRecorder()
	r.server.AdminHandler(nil).ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(scrape.Body.String(), fmt.Sprintf("heed_throttled_total{by=%q} %d\n", by, want)) {
		r.t.Errorf("the metrics do not count %d refusals by %s", want, by)
	}
}

func TestASendWaitsASecondForItsTurnAndIsThenRefusedBeforeAnythingIsRecorded(t *testing.T) {
	r, c, w := slowRig(t)
	for i := range 4 {
		if m := r.send(ada.String()); m.Status != ledger.StatusSent || len(w.all()) != 0 {
			t.Fatalf("send %d of the first four: %s, waited %v", i, m.Status, w.all())
		}
	}
	if m := r.send(ada.String()); m.Status != ledger.StatusSent || len(w.all()) != 1 || !about(w.all()[0], seconds(0.5)) {
		t.Fatalf("the fifth: %s, waited %v, want half a second", m.Status, w.all())
	}
	// Two others wait already, without time passing: the turns of the next second are taken.
	release := make(chan struct{})
	queued := make(chan time.Duration)
	r.gate.Wait = func(_ context.Context, d time.Duration) bool { queued <- d; <-release; return true }
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { _, _, _ = r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello"}) })
		<-queued
	}
	before, attempts := head(t, r), r.provider.Attempts()
	_, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Key: "k"})
	var tooMany *connector.TooManyError
	if !errors.As(err, &tooMany) || !about(tooMany.RetryAfter, seconds(1.5)) || tooMany.What != `account "main"` {
		t.Fatalf("%v, want to be refused for a second and a half", err)
	}
	if w := r.request("POST", "/v1/messages", "k-send", `{"to":"2065550142","body":"hello"}`); w.Code != 429 || w.Header().Get("Retry-After") != "2" {
		t.Errorf("HTTP %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	r.throttled("account", 1)
	if head(t, r) != before || r.provider.Attempts() != attempts {
		t.Error("a refused send left something behind")
	}
	close(release)
	wg.Wait()
	// The key was not used up: the same request goes through when there is room.
	c.Pass(tooMany.RetryAfter)
	r.gate.Wait = w.wait
	if m, existed, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Key: "k"}); err != nil || existed || m.Status != ledger.StatusSent {
		t.Errorf("%s %v %v", m.Status, existed, err)
	}
}

func TestWhatSendsNothingNeedsNoTurn(t *testing.T) {
	r, _, _ := slowRig(t)
	send := func(key string) (ledger.Message, bool, error) {
		return r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Key: key})
	}
	if _, _, err := send("k"); err != nil {
		t.Fatal(err)
	}
	r.gate.Wait = func(context.Context, time.Duration) bool { t.Error("waited"); return true }
	for i := range 3 {
		r.send(fmt.Sprintf("+1206555015%d", i))
	}
	if m, existed, err := send("k"); err != nil || !existed || m.Status != ledger.StatusSent {
		t.Errorf("a repetition: %s %v %v", m.Status, existed, err)
	}
	if m := r.send("call me"); m.Status != ledger.StatusBlocked {
		t.Errorf("no number: %s", m.Status)
	}
	r.text(ada, "STOP")
	if m := r.send(ada.String()); m.Status != ledger.StatusBlocked {
		t.Errorf("an opted-out number: %s", m.Status)
	}
}

func TestAStopWhileASendWaitsForItsTurnBlocksIt(t *testing.T) {
	r, _, _ := slowRig(t)
	for range 4 {
		r.send("+12065550150")
	}
	attempts := r.provider.Attempts()
	r.gate.Wait = func(context.Context, time.Duration) bool { r.text(ada, "STOP"); return true }
	if m := r.send(ada.String()); m.Status != ledger.StatusBlocked || r.provider.Attempts() != attempts {
		t.Errorf("%s, %d attempts more", m.Status, r.provider.Attempts()-attempts)
	}
}

func TestACallerWhoHangsUpWhileWaitingLeavesItsTurnToOthers(t *testing.T) {
	r, _, w := slowRig(t)
	for range 4 {
		r.send(ada.String())
	}
	before := head(t, r)
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		r.gate.Wait = func(context.Context, time.Duration) bool { cancel(); return false }
		if _, _, err := r.gate.Send(ctx, connector.Send{To: ada.String(), Body: "hello"}); !errors.Is(err, ledger.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if head(t, r) != before {
		t.Error("something was recorded for whom nobody waits")
	}
	r.gate.Wait = w.wait
	if m := r.send(ada.String()); m.Status != ledger.StatusSent || !about(w.all()[0], seconds(0.5)) {
		t.Errorf("%s, waited %v", m.Status, w.all())
	}
}

func TestQueuedMessagesGoAtTheAccountsRate(t *testing.T) {
	r, c, w := slowRig(t)
	q := &connector.Queue{Ledger: r.ledger, Gate: r.gate, Accounts: r.gate.Accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	const n = 10
	for i := range n { // one number: one after the other
		if m, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: fmt.Sprint(i), Deferred: true}); err != nil || m.Status != ledger.StatusQueued {
			t.Fatal(m.Status, err)
		}
	}
	if len(w.all()) != 0 {
		t.Fatal("accepting waited")
	}
	began := c.Now()
	if err := q.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.Now().Sub(began); r.provider.Attempts() != n || got < seconds(3) || got > seconds(3.001) {
		t.Errorf("%d of %d messages in %s, want 4 at once and 2 a second then: 3s", r.provider.Attempts(), n, got)
	}
}

func TestAQueuedMessageThatWaitsWhenHeedStopsIsSentLater(t *testing.T) {
	r, c, w := slowRig(t)
	q := &connector.Queue{Ledger: r.ledger, Gate: r.gate, Accounts: r.gate.Accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	for range 4 {
		r.send("+12065550150")
	}
	m, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.gate.Wait = func(context.Context, time.Duration) bool { cancel(); return false }
	_ = q.Flush(ctx)
	if _, err := r.gate.Abandoned(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ledger.Message(t.Context(), m.ID); err != nil || got.Status != ledger.StatusQueued {
		t.Fatalf("after a stop it is %s (%v), want queued: its attempt had not begun", got.Status, err)
	}
	c.Pass(time.Hour)
	r.gate.Wait = w.wait
	q.Now = func() time.Time { return time.Now().Add(time.Hour) }
	if err := errors.Join(r.ledger.Hurry(t.Context(), ledger.OweSend), q.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ledger.Message(t.Context(), m.ID); err != nil || got.Status != ledger.StatusSent {
		t.Errorf("%s %v", got.Status, err)
	}
}

func TestARepeatedAttemptTakesATurnToo(t *testing.T) {
	r, _, w := slowRig(t)
	q := &connector.Queue{Ledger: r.ledger, Gate: r.gate, Accounts: r.gate.Accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	r.gate.Limits = connector.NewLimits(0, 1, nil, r.gate.Accounts)
	fixed := newClock()
	r.gate.Now = fixed.Now // does not move with waits: every turn beyond the first two is waited for
	busy := &sms.Error{Class: sms.Throttled, Status: 429}
	r.provider.FailNext(busy, busy)
	if _, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Deferred: true}); err != nil {
		t.Fatal(err)
	}
	if err := q.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Three attempts, with two waits for the provider between them, the third with one for its turn.
	if got := w.all(); r.provider.Attempts() != 3 || len(got) != 3 || !about(got[2], time.Second) {
		t.Errorf("%d attempts, waited %v", r.provider.Attempts(), got)
	}
}

func TestHeedsOwnTextsDoNotWaitBehindOthers(t *testing.T) {
	r, _, w := slowRig(t)
	for range 4 {
		r.send("+12065550150")
	}
	r.gate.Wait = func(context.Context, time.Duration) bool { t.Error("waited"); return true }
	m, err := r.consents.Ask(t.Context(), ada, "main", "en", consent.API, "tests", "a form")
	if err != nil || m.Status != ledger.StatusSent {
		t.Fatalf("%s %v", m.Status, err)
	}
	// Nor do they put the others off without bounds.
	r.gate.Wait = w.wait
	if m := r.send("+12065550150"); m.Status != ledger.StatusSent || len(w.all()) != 1 || !about(w.all()[0], seconds(0.5)) {
		t.Errorf("%s, waited %v", m.Status, w.all())
	}
}
