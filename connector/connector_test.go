package connector_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/confirm"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/crmtest"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sms/smstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const sender = "+15550100000"

var ada = phone.MustParse("+12065550142")

// rig is the live path on a real ledger, with a provider and a CRM in memory.
type rig struct {
	t        *testing.T
	ledger   *local.Ledger
	provider *smstest.Memory
	crm      *crmtest.CRM
	inbox    *connector.Inbox
	gate     *connector.Gate
	boxes    *connector.Boxes
	times    *connector.Times
	lists    *connector.Lists
	answers  *connector.Answers
	consents *connector.Consents
	holds    *connector.Holds
	server   *connector.Server
	logs     *bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	var mu sync.Mutex
	logs := &bytes.Buffer{}
	log := slog.New(slog.NewJSONHandler(lockedWriter{&mu, logs}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l, err := local.Open(t.TempDir(), local.Options{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p, c := smstest.New(), crmtest.New(time.Now)
	accounts := connector.Accounts{{Name: "main", Provider: p}}
	crms := []connector.CRM{{Name: "org", Directory: c}}
	m := connector.NewMetrics(l, "test")
	r := &rig{t: t, ledger: l, provider: p, crm: c, logs: logs,
		inbox: &connector.Inbox{Ledger: l, Accounts: accounts, Replies: reply.Default(), Metrics: m, Log: log, Now: time.Now},
		gate:  &connector.Gate{Ledger: l, Accounts: accounts, CRMs: crms, Region: "US", PublicURL: "https://sms.example.com", Metrics: m, Log: log, Now: time.Now},
		boxes: &connector.Boxes{Ledger: l, CRMs: crms, Metrics: m, Log: log, Now: time.Now},
		times: &connector.Times{Ledger: l, Accounts: accounts, Log: log, Now: time.Now},
	}
	texts, problems := confirm.New(confirm.Options{Brand: "Acme", Help: "help.example.com"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	r.lists = &connector.Lists{Ledger: l, Accounts: accounts, Log: log, Now: time.Now}
	r.answers = &connector.Answers{Ledger: l, Gate: r.gate, Texts: texts, Metrics: m, Log: log, Now: time.Now}
	r.consents = &connector.Consents{Ledger: l, Gate: r.gate, Texts: texts, Now: time.Now}
	r.holds = &connector.Holds{Ledger: l, Deadline: func(t time.Time) time.Time { return t.AddDate(0, 0, 7) }, Log: log, Now: time.Now}
	r.server = &connector.Server{Inbox: r.inbox, Gate: r.gate, Ledger: l, Metrics: m, Log: log, Now: time.Now, Public: "https://sms.example.com",
		Keys: connector.NewKeyRing(l, time.Now,
			connector.Key{Name: "workflow", SHA256: sha256.Sum256([]byte("k-send")), May: []connector.Right{connector.MaySend, connector.MayRead}},
			connector.Key{Name: "reader", SHA256: sha256.Sum256([]byte("k-read")), May: []connector.Right{connector.MayRead}},
		)}
	t.Cleanup(r.gate.Start())
	return r
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

// text delivers a phone's message as a genuine webhook.
func (r *rig) text(n phone.Number, body string) {
	r.t.Helper()
	if _, err := r.inbox.Receive(r.t.Context(), "main", r.provider.Text(n.String(), sender, body, sms.FlagNone), ""); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) send(to string) ledger.Message {
	r.t.Helper()
	m, _, err := r.gate.Send(r.t.Context(), connector.Send{To: to, Body: "hello"})
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// person is a CRM record that the mirror knows.
func (r *rig) person(object, number string, ticked bool) crm.Key {
	r.t.Helper()
	k := r.crm.Person(object, number, ticked)
	n, err := phone.Parse(number, "US")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.ledger.Mirror("org").Put(r.t.Context(), []ledger.MirrorRecord{{Key: k, Numbers: []phone.Number{n}, OptedOut: ticked}}); err != nil {
		r.t.Fatal(err)
	}
	return k
}

func (r *rig) ticked(k crm.Key) bool {
	rec, ok := r.crm.Record(k)
	return ok && rec.OptedOut
}

func (r *rig) flush() {
	r.t.Helper()
	if err := errors.Join(r.times.Flush(r.t.Context()), r.boxes.Flush(r.t.Context()), r.lists.Flush(r.t.Context()), r.answers.Flush(r.t.Context())); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) owed() (n, parked int) {
	r.t.Helper()
	for o, err := range r.ledger.Owed(r.t.Context()) {
		if err != nil {
			r.t.Fatal(err)
		}
		if o.Kind == ledger.OweBoxes {
			n++
		}
		if o.Parked != nil {
			parked++
		}
	}
	return n, parked
}

func TestAStopTicksEveryRecordOfThatNumberAndNoOther(t *testing.T) {
	r := newRig(t)
	mine := []crm.Key{r.person("Contact", "(206) 555-0142", false), r.person("Contact", "206.555.0142", false), r.person("Lead", "+1 206 555 0142", false)}
	other := r.person("Contact", "(206) 555-0143", false)
	r.text(ada, "STOP")
	r.flush()
	for _, k := range mine {
		if !r.ticked(k) {
			t.Errorf("%v is not ticked", k)
		}
	}
	if r.ticked(other) {
		t.Error("a stranger's box is ticked")
	}
	if n, _ := r.owed(); n != 0 {
		t.Errorf("%d pieces of work are still owed", n)
	}
	// The same again owes nothing and writes nothing.
	boxes := r.crm.Counts().Boxes
	r.text(ada, "STOP")
	r.flush()
	if got := r.crm.Counts().Boxes; got != boxes {
		t.Errorf("a repeated STOP wrote %d boxes", got-boxes)
	}
}

func TestAStartLiftsTheStopAndUnticksWhatNoOtherNumberKeepsTicked(t *testing.T) {
	r := newRig(t)
	eve := phone.MustParse("+12065550143")
	mine := r.person("Contact", ada.String(), false)
	both := r.crm.Put(crm.Record{Key: crm.Key{Object: "Contact"}, Phones: []crm.Phone{{Field: "Phone", Raw: ada.String()}}})
	if err := r.ledger.Mirror("org").Put(t.Context(), []ledger.MirrorRecord{{Key: both, Numbers: []phone.Number{ada, eve}}}); err != nil {
		t.Fatal(err)
	}
	r.text(ada, "STOP")
	r.text(eve, "STOP")
	r.flush()
	if !r.ticked(mine) || !r.ticked(both) {
		t.Fatal("not ticked")
	}
	r.text(ada, "START")
	if d := r.ledger.Decide(ada); d.Verdict != consent.Block {
		t.Error("a START whose time is not known yet must not lift the STOP")
	}
	r.flush() // asks the provider for the time, then unticks
	if d := r.ledger.Decide(ada); d.Verdict != consent.Allow {
		t.Errorf("after START: %+v", d)
	}
	if r.ticked(mine) {
		t.Error("the box is still ticked after START")
	}
	if !r.ticked(both) {
		t.Error("a record was unticked although its other number is opted out")
	}
}

func TestAStartThatAStopOvertookDoesNotLiftIt(t *testing.T) {
	r := newRig(t)
	start := r.provider.Text(ada.String(), sender, "START", sms.FlagNone) // sent first …
	r.text(ada, "STOP")
	if _, err := r.inbox.Receive(t.Context(), "main", start, ""); err != nil { // … delivered last
		t.Fatal(err)
	}
	r.flush()
	if d := r.ledger.Decide(ada); d.Reason != consent.ReasonOptedOut {
		t.Errorf("decision %+v", d)
	}
}

func TestFailedWritesStayOwedAndParkedOnesAreVisible(t *testing.T) {
	r := newRig(t)
	good, locked, refused := r.person("Contact", ada.String(), false), r.person("Contact", ada.String(), false), r.person("Lead", ada.String(), false)
	r.crm.FailWrites(locked, &crm.Error{Class: crm.RetryNow, Code: "UNABLE_TO_LOCK_ROW"})
	no := &crm.Error{Class: crm.Park, Code: "FIELD_CUSTOM_VALIDATION_EXCEPTION", Text: "Ask legal first"}
	r.crm.FailWrites(refused, no, no, no)
	r.text(ada, "STOP")
	r.flush()
	if !r.ticked(good) || r.ticked(locked) || r.ticked(refused) {
		t.Fatal("one refused record must not keep the others from being written")
	}
	if n, parked := r.owed(); n != 1 || parked != 0 {
		t.Fatalf("owed %d, parked %d: a lock is to be tried again first", n, parked)
	}
	// Its time comes.
	r.boxes.Now = func() time.Time { return time.Now().Add(time.Hour) }
	o, err := r.ledger.Claim(t.Context(), ledger.OweBoxes, 1)
	if err != nil || len(o) != 0 {
		t.Fatalf("claimable before its time: %v %v", o, err)
	}
	for o, err := range r.ledger.Owed(t.Context()) {
		if err != nil || o.NextAt.IsZero() || o.Note == "" {
			t.Errorf("owed work must say when it is tried again and why it failed: %+v %v", o, err)
		}
	}
}

func TestAnAwayCRMDelaysTheBoxesButNeitherLosesNorHammers(t *testing.T) {
	r := newRig(t)
	var keys []crm.Key
	for i := range 20 {
		n := phone.FromUint64(12_065_550_100 + uint64(i))
		keys = append(keys, r.person("Contact", n.String(), false))
		r.text(n, "STOP")
	}
	r.crm.Fail(&crm.Error{Class: crm.RetryLater, Status: 503, RetryAfter: time.Hour})
	r.flush()
	calls := r.crm.Counts().Writes
	r.flush()
	if got := r.crm.Counts().Writes; got != calls || calls > 1 {
		t.Errorf("%d then %d calls to a CRM that asked for an hour", calls, got)
	}
	if n, _ := r.owed(); n != 20 {
		t.Errorf("owed %d, want 20", n)
	}
	for _, k := range keys {
		if r.ticked(k) {
			t.Error("ticked without an answer?")
		}
	}
}

// busy is a Directory that tells of each write before it is made.
type busy struct {
	*crmtest.CRM
	writing func(n int, deadline time.Time)
}

func (b busy) Write(ctx context.Context, writes []crm.Write) []crm.Result {
	end, _ := ctx.Deadline()
	b.writing(len(writes), end)
	return b.CRM.Write(ctx, writes)
}

func TestABacklogIsWrittenInLargeBatchesAndAStopDoesNotWaitForThem(t *testing.T) {
	r := newRig(t)
	const backlog = 1700
	var mirror []ledger.MirrorRecord
	var stops []ledger.Event
	for i := range backlog {
		n := phone.FromUint64(12_065_550_000 + uint64(i))
		mirror = append(mirror, ledger.MirrorRecord{Key: r.crm.Person("Contact", n.String(), false), Numbers: []phone.Number{n}})
		stops = append(stops, ledger.Event{Kind: ledger.KindConsent, ID: n.String(), At: time.Now(), Number: n,
			Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: consent.Admin, At: time.Now()}, Actor: "test"}})
	}
	if err := r.ledger.Mirror("org").Put(t.Context(), mirror); err != nil {
		t.Fatal(err)
	}
	for part := range slices.Chunk(stops, 200) {
		if _, err := r.ledger.Append(t.Context(), part...); err != nil {
			t.Fatal(err)
		}
	}
	var sizes []int
	late := phone.MustParse("+12075550100")
	r.boxes.CRMs[0].Directory = busy{r.crm, func(n int, deadline time.Time) {
		sizes = append(sizes, n)
		switch len(sizes) {
		case 1: // while the large batch is under way
			if d := time.Until(deadline); n != backlog || d < 2*time.Minute || d > 5*time.Minute {
				t.Errorf("the backlog of %d makes a batch of %d with %v time", backlog, n, d)
			}
			k := r.person("Contact", late.String(), false)
			r.text(late, "STOP")
			if err := r.boxes.Flush(t.Context()); err != nil || !r.ticked(k) {
				t.Errorf("a STOP waits for the large batch: %v", err)
			}
		case 2:
			if d := time.Until(deadline); d > 2*time.Minute {
				t.Errorf("a small batch has %v", d)
			}
		}
	}}
	r.flush()
	if n, _ := r.owed(); n != 0 || fmt.Sprint(sizes) != fmt.Sprint([]int{backlog, 1}) {
		t.Errorf("batches of %v; %d owed", sizes, n)
	}
}

func TestTwoWhoWriteOneBoxDoNotOvertakeEachOther(t *testing.T) {
	r := newRig(t)
	clock := time.Now()
	r.boxes.Now = func() time.Time { return clock }
	bob := phone.MustParse("+12065550199")
	k := r.crm.Person("Contact", ada.String(), false)
	if err := r.ledger.Mirror("org").Put(t.Context(), []ledger.MirrorRecord{{Key: k, Numbers: []phone.Number{ada, bob}}}); err != nil {
		t.Fatal(err)
	}
	r.text(ada, "STOP")
	r.flush()
	calls := 0
	r.boxes.CRMs[0].Directory = busy{r.crm, func(int, time.Time) {
		if calls++; calls == 1 { // the box is about to be unticked for one number when the other one's STOP comes
			r.text(bob, "STOP")
			if err := r.boxes.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}}
	r.text(ada, "START")
	r.flush()
	if calls != 1 || r.ticked(k) {
		t.Fatalf("%d writes at a time", calls)
	}
	if n, _ := r.owed(); n != 1 {
		t.Fatalf("%d pieces are owed, want the other number's", n)
	}
	for i := 0; i < 100 && !r.ticked(k); i++ {
		clock = clock.Add(time.Minute)
		hurry(r)
		r.flush()
	}
	if !r.ticked(k) {
		t.Error("the second number's STOP is lost: the box is not ticked")
	}
}

// hurry makes delayed work due.
func hurry(r *rig) {
	r.t.Helper()
	if err := r.ledger.Hurry(r.t.Context(), ledger.OweBoxes); err != nil {
		r.t.Fatal(err)
	}
}

func TestACRMThatIsAwayIsOwedItsBoxThoughTheOtherHasIt(t *testing.T) {
	r := newRig(t)
	away := crmtest.New(time.Now)
	r.boxes.CRMs = append(r.boxes.CRMs, connector.CRM{Name: "away", Directory: away})
	for i := range 2 {
		n := phone.FromUint64(12_065_550_100 + uint64(i))
		r.person("Contact", n.String(), false)
		k := away.Person("Contact", n.String(), false)
		if err := r.ledger.Mirror("away").Put(t.Context(), []ledger.MirrorRecord{{Key: k, Numbers: []phone.Number{n}}}); err != nil {
			t.Fatal(err)
		}
		away.Fail(&crm.Error{Class: crm.RetryLater, Status: 503, RetryAfter: time.Hour})
		r.text(n, "STOP") // the second one finds that CRM paused
		r.flush()
	}
	if n, _ := r.owed(); n != 2 {
		t.Errorf("%d pieces are owed, want both of the CRM that is away", n)
	}
}

func TestWorkThatComesDuringAnOutageDoesNotProlongIt(t *testing.T) {
	r := newRig(t)
	clock := time.Now()
	r.boxes.Now = func() time.Time { return clock }
	r.crm.Fail(&crm.Error{Class: crm.RetryLater, Status: 503, RetryAfter: 10 * time.Second})
	first := r.person("Contact", "+12065550100", false)
	r.text(phone.MustParse("+12065550100"), "STOP")
	r.flush()
	r.crm.Fail(nil)
	for i := range 9 { // STOPs keep coming while heed waits
		clock = clock.Add(time.Second)
		n := phone.FromUint64(12_065_550_101 + uint64(i))
		r.person("Contact", n.String(), false)
		r.text(n, "STOP")
		r.flush()
	}
	if r.ticked(first) {
		t.Fatal("written although the CRM asked for ten seconds")
	}
	clock = clock.Add(2 * time.Second)
	last := r.person("Contact", "+12065550199", false)
	r.text(phone.MustParse("+12065550199"), "STOP")
	r.flush()
	if !r.ticked(last) {
		t.Error("still waiting after the time that the CRM asked for")
	}
}

func TestARecordThatIsGoneIsNotOwedForEver(t *testing.T) {
	r := newRig(t)
	r.text(ada, "STOP")
	r.flush()
	ghost := r.crm.Ghost("Contact")
	if _, err := r.ledger.Append(t.Context(), ledger.Event{Kind: ledger.KindCorrection, At: time.Now(), Number: ada,
		Correction: &ledger.Correction{Pass: "p", CRM: "org", Record: &ghost, Cause: "unticked", Action: "tick", Result: "pending"}}); err != nil {
		t.Fatal(err)
	}
	if n, _ := r.owed(); n != 1 {
		t.Fatalf("owed %d", n)
	}
	r.flush()
	if n, _ := r.owed(); n != 0 {
		t.Errorf("owed %d: a record that is gone has no box", n)
	}
}

func TestARecordWithoutAFullNameIsRefusedWithoutBurningTheKey(t *testing.T) {
	r := newRig(t)
	ask := connector.Send{Caller: "x", Key: "run-1", To: ada.String(), Body: "x"}
	for _, k := range []*crm.Key{{Object: "Contact"}, {ID: "003"}} {
		var in *connector.InputError
		ask.Record = k
		if _, _, err := r.gate.Send(t.Context(), ask); !errors.As(err, &in) || in.Field != "record" {
			t.Errorf("%v: %v", k, err)
		}
	}
	ask.Record = nil
	if m, existed, err := r.gate.Send(t.Context(), ask); err != nil || existed || m.Status != ledger.StatusSent {
		t.Errorf("the corrected request under the same key: %+v %v %v", m, existed, err)
	}
}

func TestAQueuedMessageIsDecidedAgainWhenItIsSent(t *testing.T) {
	r := newRig(t)
	q := &connector.Queue{Ledger: r.ledger, Gate: r.gate, Accounts: r.gate.Accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	put := func(n phone.Number, key string) ledger.Message {
		m, _, err := r.gate.Send(t.Context(), connector.Send{Caller: "x", Key: key, To: n.String(), Body: "hello", Deferred: true, SameKey: true})
		if err != nil || m.Status != ledger.StatusQueued || r.provider.Attempts() != 0 {
			t.Fatalf("%+v %v", m, err)
		}
		return m
	}
	eve := phone.MustParse("+12065550143")
	mine, hers := put(ada, "1"), put(eve, "2")
	if again, existed, err := r.gate.Send(t.Context(), connector.Send{Caller: "x", Key: "2", To: eve.String(), Body: "other words", Deferred: true, SameKey: true}); err != nil || !existed || again.ID != hers.ID {
		t.Errorf("a repetition with newer values: %+v %v %v", again, existed, err)
	}
	r.text(ada, "STOP")
	for range 2 {
		if err := q.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.ledger.Message(t.Context(), mine.ID)
	if err != nil || got.Status != ledger.StatusBlocked || got.Decision.Reason != consent.ReasonOptedOut {
		t.Errorf("%+v %v", got, err)
	}
	got, err = r.ledger.Message(t.Context(), hers.ID)
	if err != nil || got.Status != ledger.StatusSent || r.provider.Attempts() != 1 {
		t.Errorf("%+v %v, %d attempts", got, err, r.provider.Attempts())
	}
}

func TestACrashAroundAQueuedSendNeitherLosesNorRepeatsIt(t *testing.T) {
	r := newRig(t)
	q := &connector.Queue{Ledger: r.ledger, Gate: r.gate, Accounts: r.gate.Accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	waiting, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	begun, _, err := r.gate.Send(t.Context(), connector.Send{To: "+12065550143", Body: "hello", Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	// heed died here: one attempt is recorded as begun, the other one is not.
	if _, err := r.ledger.Append(t.Context(), ledger.Event{Kind: ledger.KindStarted, ID: "start/" + begun.ID, At: time.Now(), Number: begun.To,
		Started: &ledger.Started{Message: begun.ID, Of: 2}}); err != nil {
		t.Fatal(err)
	}
	if n, err := r.gate.Abandoned(t.Context(), time.Now().Add(time.Second)); err != nil || n != 1 {
		t.Fatalf("%d %v", n, err)
	}
	if err := q.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]ledger.Status{waiting.ID: ledger.StatusSent, begun.ID: ledger.StatusUnknown} {
		if m, err := r.ledger.Message(t.Context(), id); err != nil || m.Status != want {
			t.Errorf("%s, want %s (%v)", m.Status, want, err)
		}
	}
	if r.provider.Attempts() != 1 {
		t.Errorf("%d attempts", r.provider.Attempts())
	}
}

func TestABusyProviderIsAskedAgainForWhatIsQueued(t *testing.T) {
	r := newRig(t)
	q := &connector.Queue{Ledger: r.ledger, Gate: r.gate, Accounts: r.gate.Accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	var waits []time.Duration
	r.gate.Wait = func(_ context.Context, d time.Duration) bool { waits = append(waits, d); return true }
	r.provider.FailNext(&sms.Error{Class: sms.Throttled, Status: 429}, &sms.Error{Class: sms.Throttled, Status: 429, RetryAfter: time.Minute})
	m, _, err := r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hello", Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ledger.Message(t.Context(), m.ID); err != nil || got.Status != ledger.StatusSent || r.provider.Attempts() != 3 || len(waits) != 2 || waits[1] < time.Minute {
		t.Errorf("%+v %v, %d attempts, waited %v", got, err, r.provider.Attempts(), waits)
	}
}

func TestTheSameWebhookFiftyTimesAtOnceHasOneEffect(t *testing.T) {
	r := newRig(t)
	w := r.provider.Text(ada.String(), sender, "STOP", sms.FlagNone)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := r.inbox.Receive(t.Context(), "main", w, ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, err := range r.ledger.History(t.Context(), ada) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d events", n)
	}
}

// The gate's promise, raced: whatever the timing, no request to the provider begins after a STOP was acknowledged,
// unless its context is already cancelled.
func TestNoSendBeginsAfterAStopWasAcknowledged(t *testing.T) {
	r := newRig(t)
	watch := &watchedProvider{Memory: r.provider, acked: map[string]*atomic.Bool{}}
	r.gate.Accounts = connector.Accounts{{Name: "main", Provider: watch}}
	numbers := make([]phone.Number, 50)
	for i := range numbers {
		numbers[i] = phone.FromUint64(12_065_550_100 + uint64(i))
		watch.acked[numbers[i].String()] = &atomic.Bool{}
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range 16 {
		wg.Go(func() {
			for i := w; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				n := numbers[i%len(numbers)]
				acked := watch.acked[n.String()].Load()
				m, _, err := r.gate.Send(context.Background(), connector.Send{To: n.String(), Body: "hello"})
				if err != nil {
					t.Error(err)
					return
				}
				if acked && m.Status != ledger.StatusBlocked {
					t.Errorf("a send asked for after the STOP is %s", m.Status)
				}
			}
		})
	}
	for _, n := range numbers {
		r.text(n, "STOP")
		watch.acked[n.String()].Store(true)
	}
	close(stop)
	wg.Wait()
	if v := watch.violations.Load(); v > 0 {
		t.Errorf("%d sends began after an acknowledged STOP", v)
	}
	if watch.begun.Load() == 0 {
		t.Error("no send ever began: the test tests nothing")
	}
}

type watchedProvider struct {
	*smstest.Memory
	acked      map[string]*atomic.Bool
	begun      atomic.Int64
	violations atomic.Int64
}

func (w *watchedProvider) Send(ctx context.Context, m sms.Message) (sms.Receipt, error) {
	w.begun.Add(1)
	if w.acked[m.To].Load() && ctx.Err() == nil {
		w.violations.Add(1)
	}
	return w.Memory.Send(ctx, m)
}

func TestAStopWhileASendIsOnItsWayPreventsIt(t *testing.T) {
	r := newRig(t)
	hold := r.provider.HoldRequests()
	got := make(chan ledger.Message)
	go func() {
		m, _, _ := r.gate.Send(context.Background(), connector.Send{To: ada.String(), Body: "hello"})
		got <- m
	}()
	<-hold.Waiting
	r.text(ada, "STOP")
	m := <-got
	hold.Release()
	if m.Status != ledger.StatusBlocked || m.Decision.Reason != consent.ReasonOptedOut || len(r.provider.Sent()) != 0 {
		t.Errorf("%+v, provider has %d", m, len(r.provider.Sent()))
	}
}

func TestWhatBecomesOfASend(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		lose   bool
		status ledger.Status
		stops  bool
	}{
		{"taken", nil, false, ledger.StatusSent, false},
		{"refused for good", &sms.Error{Class: sms.Rejected, Status: 400, Code: "21211"}, false, ledger.StatusFailed, false},
		{"throttled: proven not taken", &sms.Error{Class: sms.Throttled, Status: 429, Code: "20429"}, false, ledger.StatusFailed, false},
		{"opted out at the provider: evidence of a STOP", &sms.Error{Class: sms.OptedOut, Status: 400, Code: "21610"}, false, ledger.StatusBlocked, true},
		{"no clear answer", &sms.Error{Class: sms.Unknown, Status: 502}, false, ledger.StatusUnknown, false},
		{"an error of no known kind", errors.New("broken"), false, ledger.StatusUnknown, false},
		{"taken, but the answer was lost", nil, true, ledger.StatusUnknown, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			if c.err != nil {
				r.provider.FailNext(c.err)
			}
			if c.lose {
				r.provider.LoseNextAnswers(1)
			}
			m := r.send(ada.String())
			stored, err := r.ledger.Message(t.Context(), m.ID)
			if m.Status != c.status || err != nil || stored.Status != c.status {
				t.Errorf("answered %s, stored %s (%v), want %s", m.Status, stored.Status, err, c.status)
			}
			if n := r.provider.Attempts(); n != 1 {
				t.Errorf("%d attempts, want exactly one", n)
			}
			if stopped := r.ledger.State(ada) == consent.OptedOut; stopped != c.stops {
				t.Errorf("opted out: %v, want %v", stopped, c.stops)
			}
			if c.stops {
				if m := r.send(ada.String()); m.Status != ledger.StatusBlocked || r.provider.Attempts() != 1 {
					t.Errorf("the next send is %s after %d attempts", m.Status, r.provider.Attempts())
				}
			}
		})
	}
}

func TestACallbackResolvesAnUnknownSend(t *testing.T) {
	r := newRig(t)
	r.provider.LoseNextAnswers(1)
	m := r.send(ada.String())
	sent := r.provider.Sent()[0]
	w := r.provider.Report(sent.ProviderID, sms.DeliveryDelivered, "", false)
	if _, err := r.inbox.Receive(t.Context(), "main", w, m.ID); err != nil {
		t.Fatal(err)
	}
	got, err := r.ledger.Message(t.Context(), m.ID)
	if err != nil || got.Status != ledger.StatusSent || got.Delivery != "delivered" || got.ProviderID != sent.ProviderID {
		t.Errorf("%+v %v", got, err)
	}
}

func TestALateOptedOutCallbackIsAMissedStop(t *testing.T) {
	r := newRig(t)
	m := r.send(ada.String())
	w := r.provider.Report(m.ProviderID, sms.DeliveryFailed, "21610", true)
	if _, err := r.inbox.Receive(t.Context(), "main", w, ""); err != nil {
		t.Fatal(err)
	}
	if got := r.send(ada.String()); got.Status != ledger.StatusBlocked {
		t.Errorf("the next send is %s", got.Status)
	}
}

func TestAnIdempotencyKeySendsOnce(t *testing.T) {
	r := newRig(t)
	ask := connector.Send{Caller: "workflow", Key: "run-1", To: ada.String(), Body: "hello"}
	var wg sync.WaitGroup
	var ids sync.Map
	for range 20 {
		wg.Go(func() {
			m, _, err := r.gate.Send(t.Context(), ask)
			if err != nil {
				t.Error(err)
			}
			ids.Store(m.ID, true)
		})
	}
	wg.Wait()
	n := 0
	ids.Range(func(any, any) bool { n++; return true })
	if n != 1 || r.provider.Attempts() != 1 {
		t.Errorf("%d messages, %d attempts", n, r.provider.Attempts())
	}
	ask.Body = "something else"
	if _, _, err := r.gate.Send(t.Context(), ask); !errors.Is(err, ledger.ErrKeyReused) {
		t.Errorf("another text under the same key: %v", err)
	}
	ask.Caller = "another program"
	if _, existed, err := r.gate.Send(t.Context(), ask); err != nil || existed {
		t.Errorf("another caller's key of the same name: %v %v", existed, err)
	}
}

func TestATickedBoxBlocksTheRecordEvenIfTheNumberIsFree(t *testing.T) {
	r := newRig(t)
	k := r.person("Contact", ada.String(), true)
	m, _, err := r.gate.Send(t.Context(), connector.Send{To: "+12065550143", Body: "hello", Record: &k})
	if err != nil || m.Status != ledger.StatusBlocked || m.Decision.Reason != consent.CRMOptOut {
		t.Errorf("%+v %v", m, err)
	}
}

func TestWhatAnAbandonedSendBecomesAtTheNextStart(t *testing.T) {
	r := newRig(t)
	m, _, err := r.ledger.Open(t.Context(), ledger.Message{ID: "msg_1", To: ada, Body: "x", Account: "main", CreatedAt: time.Now()}, consent.Decision{Verdict: consent.Allow, Reason: consent.OK})
	if err != nil || m.Status != ledger.StatusQueued {
		t.Fatal(m, err)
	}
	for want := 1; want >= 0; want-- {
		if n, err := r.gate.Abandoned(t.Context(), time.Now().Add(time.Second)); err != nil || n != want {
			t.Fatalf("%d, %v, want %d", n, err, want)
		}
	}
	if got, err := r.ledger.Message(t.Context(), "msg_1"); err != nil || got.Status != ledger.StatusUnknown {
		t.Errorf("%+v %v", got, err)
	}
}

// request plays an HTTP client against the public side.
func (r *rig) request(method, path, key, body string, header ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.server.PublicHandler().ServeHTTP(w, req)
	return w
}

func TestErrorsAreProblemsThatNameTheField(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("x", 1601)
	for _, c := range []struct {
		name, method, path, key, body string
		status                        int
		field                         string
	}{
		{"no key", "POST", "/v1/messages", "", `{}`, 401, ""},
		{"an unknown key", "POST", "/v1/messages", "wrong", `{}`, 401, ""},
		{"a key without the right", "POST", "/v1/messages", "k-read", `{}`, 403, ""},
		{"no recipient", "POST", "/v1/messages", "k-send", `{"body":"x"}`, 422, "to"},
		{"no text", "POST", "/v1/messages", "k-send", `{"to":"+12065550142"}`, 422, "body"},
		{"too long a text", "POST", "/v1/messages", "k-send", `{"to":"+12065550142","body":"` + long + `"}`, 422, "body"},
		{"a misspelt field", "POST", "/v1/messages", "k-send", `{"too":"+12065550142"}`, 422, "too"},
		{"a wrong type", "POST", "/v1/messages", "k-send", `{"to":12065550142}`, 422, "to"},
		{"an unknown account", "POST", "/v1/messages", "k-send", `{"to":"+12065550142","body":"x","account":"none"}`, 422, "account"},
		{"no JSON", "POST", "/v1/messages", "k-send", `to=1`, 422, ""},
		{"two JSON values", "POST", "/v1/messages", "k-send", `{"to":"+12065550142","body":"x"}{}`, 422, ""},
		{"too large", "POST", "/v1/messages", "k-send", `{"body":"` + strings.Repeat("x", 70<<10) + `"}`, 413, ""},
		{"no numbers", "POST", "/v1/decisions", "k-read", `{}`, 422, "numbers"},
		{"too many numbers", "POST", "/v1/decisions", "k-read", `{"numbers":["1"` + strings.Repeat(`,"1"`, 1000) + `]}`, 422, "numbers"},
		{"an unknown message", "GET", "/v1/messages/msg_0", "k-read", "", 404, ""},
		{"an unknown address", "GET", "/v2/", "", "", 404, ""},
		{"a wrong method", "DELETE", "/v1/messages", "k-send", "", 405, ""},
		{"an unknown account's webhook", "POST", "/webhooks/none", "", "", 404, ""},
		{"a forged webhook", "POST", "/webhooks/main", "", "Body=STOP&From=%2B12065550142", 403, ""},
		{"a webhook of ten megabytes", "POST", "/webhooks/main", "", strings.Repeat("x", 10<<20), 413, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := r.request(c.method, c.path, c.key, c.body)
			var p connector.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Fatalf("no problem document: HTTP %d %s %q", w.Code, w.Header().Get("Content-Type"), w.Body)
			}
			if w.Code != c.status || p.Status != c.status || p.Field != c.field {
				t.Errorf("HTTP %d, problem %+v; want %d, field %q", w.Code, p, c.status, c.field)
			}
			if strings.Contains(w.Body.String(), "2065550142") {
				t.Error("the answer repeats the number")
			}
		})
	}
	if s, err := r.ledger.Stats(t.Context()); err != nil || s.Head != 0 {
		t.Errorf("refused requests left %d events, %v", s.Head, err)
	}
	if r.provider.Attempts() != 0 {
		t.Error("a refused request reached the provider")
	}
}

func TestTheGateOverHTTP(t *testing.T) {
	r := newRig(t)
	w := r.request("POST", "/v1/messages", "k-send", `{"to":"(206) 555-0142","body":"hi","campaign":"spring","record":{"object":"Contact","id":"003"}}`, "Idempotency-Key", "k1")
	var m map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil || w.Code != 201 || m["status"] != "sent" || m["decision"] != "allow" || m["reason"] != "ok" || m["to"] != "+12065550142" || m["provider_message_id"] == nil {
		t.Fatalf("HTTP %d %s", w.Code, w.Body)
	}
	w2 := r.request("POST", "/v1/messages", "k-send", `{"to":"(206) 555-0142","body":"hi","campaign":"spring","record":{"object":"Contact","id":"003"}}`, "Idempotency-Key", "k1")
	if w2.Code != 201 || w2.Header().Get("Idempotent-Replayed") != "true" || r.provider.Attempts() != 1 {
		t.Errorf("replay: HTTP %d %s, %d attempts", w2.Code, w2.Body, r.provider.Attempts())
	}
	if w := r.request("POST", "/v1/messages", "k-send", `{"to":"(206) 555-0142","body":"other"}`, "Idempotency-Key", "k1"); w.Code != 409 {
		t.Errorf("reused key: HTTP %d", w.Code)
	}
	if w := r.request("GET", "/v1/messages/"+m["id"].(string), "k-read", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"status":"sent"`) {
		t.Errorf("read back: HTTP %d %s", w.Code, w.Body)
	}
	r.text(ada, "please stop texting me")
	w = r.request("POST", "/v1/decisions", "k-read", `{"numbers":["(206) 555-0142","206 555 0143","not a number"]}`)
	want := `{"decisions":[{"input":"(206) 555-0142","number":"+12065550142","decision":"block","reason":"opted_out"},` +
		`{"input":"206 555 0143","number":"+12065550143","decision":"allow","reason":"ok"},` +
		`{"input":"not a number","number":null,"decision":"block","reason":"invalid_number"}]}`
	if w.Code != 200 || strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("HTTP %d\n got %s\nwant %s", w.Code, w.Body, want)
	}
	w = r.request("POST", "/v1/messages", "k-send", `{"to":"12","body":"hi"}`)
	if w.Code != 201 || !strings.Contains(w.Body.String(), `"reason":"invalid_number"`) {
		t.Errorf("an unparsable number: HTTP %d %s", w.Code, w.Body)
	}
}

func TestNothingIsAcknowledgedWhenTheLedgerIsGone(t *testing.T) {
	r := newRig(t)
	hook := r.provider.Text(ada.String(), sender, "STOP", sms.FlagNone)
	if err := r.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.inbox.Receive(t.Context(), "main", hook, ""); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("webhook: %v", err)
	}
	// Over HTTP, under the name whose address the webhook is signed for: a genuine one that cannot be stored is 503.
	r.inbox.Accounts = connector.Accounts{{Name: "memory", Provider: r.provider}}
	req := httptest.NewRequest(hook.Method, "/webhooks/memory", bytes.NewReader(hook.Body))
	req.Header = hook.Header
	w := httptest.NewRecorder()
	r.server.Public = strings.TrimSuffix(smstest.WebhookURL, "/webhooks/memory")
	r.server.PublicHandler().ServeHTTP(w, req)
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("webhook: HTTP %d %s", w.Code, w.Body)
	}
	for path, body := range map[string]string{"/v1/messages": `{"to":"+12065550142","body":"x"}`, "/v1/decisions": `{"numbers":["+12065550142"]}`} {
		if w := r.request("POST", path, "k-send", body); w.Code != 503 {
			t.Errorf("%s: HTTP %d %s", path, w.Code, w.Body)
		}
	}
	if r.provider.Attempts() != 0 {
		t.Error("something was sent without a ledger")
	}
	if w := r.request("GET", "/readyz", "", ""); w.Code != 503 {
		t.Errorf("readyz: HTTP %d", w.Code)
	}
}

func TestNoNumberNoTextAndNoSecretIsLogged(t *testing.T) {
	r := newRig(t)
	const canary = "canary text 7f3a"
	r.text(ada, canary)
	r.provider.FailNext(&sms.Error{Class: sms.Rejected, Status: 400, Code: "21211"}, fmt.Errorf("broken"))
	for range 2 {
		_, _, _ = r.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: canary})
	}
	_ = r.request("POST", "/webhooks/main", "", "Body="+canary+"&From=%2B12065550142")
	_ = r.request("POST", "/v1/messages", "k-secret-canary", `{"to":"+12065550142","body":"`+canary+`"}`)
	for _, secret := range []string{canary, "2065550142", "k-secret-canary"} {
		if strings.Contains(r.logs.String(), secret) {
			t.Errorf("the log contains %q:\n%s", secret, r.logs)
		}
	}
	if !strings.Contains(r.logs.String(), "send did not succeed") {
		t.Error("nothing was logged: the test tests nothing")
	}
}

func TestMetricsHaveNoNumbersAndSeeTheStop(t *testing.T) {
	r := newRig(t)
	r.person("Contact", ada.String(), false)
	r.text(ada, "STOP")
	r.flush()
	_ = r.send(ada.String())
	w := httptest.NewRecorder()
	r.server.AdminHandler(nil).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`heed_inbound_messages_total{account="main",verdict="opt_out",via="webhook"} 1`, `heed_gate_decisions_total{decision="block",reason="opted_out"} 1`,
		`heed_numbers{state="opted_out"} 1`, `heed_crm_writes_total{crm="org",result="written"} 1`, `heed_stop_to_box_seconds_count 1`, `heed_ledger_up 1`, `heed_owed{kind="boxes"} 0`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s in\n%s", want, w.Body)
		}
	}
	if strings.Contains(w.Body.String(), "5550142") {
		t.Error("a number is in the metrics")
	}
}
