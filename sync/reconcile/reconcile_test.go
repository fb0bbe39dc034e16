package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/crmtest"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sms/smstest"
	"github.com/heed-sms/heed/sync/reconcile"
)

func TestMain(m *testing.M) {
	if os.Getenv(childDir) != "" {
		child() // never returns
	}
	goleak.VerifyTestMain(m)
}

// Boxes, Times and Inbox of the live path are what a pass works with.
var (
	_ reconcile.Flusher = (*connector.Boxes)(nil)
	_ reconcile.Flusher = (*connector.Times)(nil)
	_ reconcile.Inbox   = (*connector.Inbox)(nil)
)

// wall is a clock that the test moves.
type wall struct {
	mu sync.Mutex
	t  time.Time
}

func (w *wall) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.t
}

func (w *wall) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = w.t.Add(d)
}

// world is heed's memory and workers between a CRM and a provider in memory.
type world struct {
	testing.TB
	clock    *wall
	dir      string
	ledger   *local.Ledger
	crm      *crmtest.CRM
	provider *smstest.Memory
	inbox    *connector.Inbox
	runner   *reconcile.Runner
}

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{TB: t, clock: &wall{t: began}, dir: t.TempDir()}
	w.crm = crmtest.New(w.clock.now)
	w.provider = smstest.New()
	w.provider.Now = w.clock.now
	w.open()
	t.Cleanup(func() {
		if err := w.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// open opens the ledger and starts over, as a new process does.
func (w *world) open() {
	w.Helper()
	l, err := local.Open(w.dir, local.Options{Now: w.clock.now})
	if err != nil {
		w.Fatal(err)
	}
	w.ledger = l
	w.wire(l)
}

// wire gives the workers a ledger.
func (w *world) wire(l ledger.Ledger) {
	log := slog.New(slog.DiscardHandler)
	accounts := connector.Accounts{{Name: "acct", Provider: w.provider}}
	w.inbox = &connector.Inbox{Ledger: l, Accounts: accounts, Replies: reply.Default(), Log: log, Now: w.clock.now}
	w.runner = &reconcile.Runner{
		Ledger: l, Accounts: []reconcile.Account{{Name: "acct", Provider: w.provider}},
		CRMs: []reconcile.CRM{{Name: "sf", Directory: w.crm}}, Inbox: w.inbox,
		Boxes:  &connector.Boxes{Ledger: l, CRMs: []connector.CRM{{Name: "sf", Directory: w.crm}}, Log: log, Now: w.clock.now},
		Times:  &connector.Times{Ledger: l, Accounts: accounts, Log: log, Now: w.clock.now},
		Region: "US", Started: w.clock.now(), Log: log, Now: w.clock.now,
	}
}

func (w *world) reopen() {
	w.Helper()
	if err := w.ledger.Close(); err != nil {
		w.Fatal(err)
	}
	w.open()
}

// run makes a pass a minute later; it must succeed.
func (w *world) run(kind string) reconcile.Result {
	w.Helper()
	w.clock.pass(time.Minute)
	r, err := w.runner.Run(w.Context(), reconcile.Options{Kind: kind})
	if err != nil || r.Pass.Error != "" {
		w.Fatalf("pass: %v, %s", err, r.Pass.Error)
	}
	w.clock.pass(time.Minute)
	return r
}

// settled makes a pass and demands that it finds nothing.
func (w *world) settled(kind string) {
	w.Helper()
	if r := w.run(kind); len(r.Corrections) != 0 {
		w.Fatalf("a second pass finds %+v", r.Corrections)
	}
}

// stop is a STOP whose webhook came.
func (w *world) text(number, body string) {
	w.Helper()
	if _, err := w.inbox.Receive(w.Context(), "acct", w.provider.Text(number, "+12065550100", body, sms.FlagNone), ""); err != nil {
		w.Fatal(err)
	}
}

func (w *world) want(r reconcile.Result, causes map[string]int) {
	w.Helper()
	if !maps.Equal(r.Pass.Causes, causes) {
		w.Fatalf("causes %v, want %v: %+v", r.Pass.Causes, causes, r.Corrections)
	}
}

func (w *world) box(k crm.Key, ticked bool) {
	w.Helper()
	if r, ok := w.crm.Record(k); !ok || r.OptedOut != ticked {
		w.Fatalf("box of %v: %v", k, r.OptedOut)
	}
}

func (w *world) state(number string, s consent.State) {
	w.Helper()
	if got := w.ledger.State(phone.MustParse(number)); got != s {
		w.Fatalf("state %s, want %s", got, s)
	}
}

const (
	ada = "+12065550142"
	bob = "+12065550143"
	eve = "+12065550144"
)

func TestSomebodyUnticksAndTheNextPassTicksAgainAndNamesThem(t *testing.T) {
	w := newWorld(t)
	k := w.crm.Person("Contact", "(206) 555-0142", false)
	w.run(reconcile.Incremental)
	w.text(ada, "STOP")
	w.settled(reconcile.Incremental)
	w.box(k, true)
	w.crm.Tick(k, "Ann Lee", false)
	changed, _ := w.crm.Record(k)
	r := w.run(reconcile.Incremental)
	w.want(r, map[string]int{reconcile.Unticked: 1})
	w.box(k, true)
	w.state(ada, consent.OptedOut)
	var got []ledger.Correction
	for c, err := range w.ledger.Corrections(t.Context(), r.Pass.ID) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c)
	}
	if len(got) != 1 || got[0].By != "Ann Lee" || !got[0].ByAt.Equal(changed.ModifiedAt) || got[0].Result != "done" || *got[0].Record != k || !r.Recorded || r.Pass.FinishedAt.IsZero() {
		t.Fatalf("%+v", got)
	}
	w.settled(reconcile.Incremental)
	w.settled(reconcile.Nightly)
	// The same again is a difference again.
	w.crm.Tick(k, "Ann Lee", false)
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.Unticked: 1})
	w.box(k, true)
}

func TestAStopBeforeTheRecordExists(t *testing.T) {
	w := newWorld(t)
	w.run(reconcile.Incremental)
	w.text(ada, "STOP")
	w.settled(reconcile.Incremental)
	k := w.crm.Person("Lead", "206.555.0142", false)
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.LateRecord: 1})
	w.box(k, true)
	w.settled(reconcile.Incremental)
	contact := w.crm.Convert(k, false)
	r := w.run(reconcile.Incremental)
	if len(r.Corrections) != 1 || r.Corrections[0].Action != "tick" {
		t.Fatalf("%+v", r.Corrections)
	}
	w.box(contact, true)
	w.settled(reconcile.Nightly)
}

func TestAMergeThatLosesTheTick(t *testing.T) {
	w := newWorld(t)
	loser, survivor := w.crm.Person("Contact", ada, false), w.crm.Person("Contact", bob, false)
	w.text(ada, "STOP")
	w.run(reconcile.Nightly)
	w.crm.Change(survivor, "Ann", func(r *crm.Record) { r.Phones = append(r.Phones, crm.Phone{Field: "Phone", Raw: ada}) })
	w.crm.Merge(loser, survivor)
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.Merged: 1})
	w.box(survivor, true)
	if n, err := w.ledger.Mirror("sf").Len(t.Context()); n != 1 || err != nil {
		t.Fatalf("%d records known, %v", n, err)
	}
	w.settled(reconcile.Incremental)
}

func TestATickInTheCRMOptsOutAndCanBeUndoneThere(t *testing.T) {
	w := newWorld(t)
	a, b := w.crm.Person("Contact", ada, false), w.crm.Person("Lead", ada, false)
	w.run(reconcile.Incremental)
	w.crm.Tick(a, "Ann", true)
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.TickedInCRM: 1})
	w.box(b, true)
	if d := w.ledger.Decide(phone.MustParse(ada)); d.Reason != consent.CRMOptOut {
		t.Fatalf("decision %+v", d)
	}
	w.settled(reconcile.Incremental)
	w.settled(reconcile.Nightly)
	w.crm.Tick(b, "Bea", false)
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.UndoneInCRM: 1})
	w.state(ada, consent.Unknown)
	w.box(a, false)
	w.settled(reconcile.Incremental)
	w.settled(reconcile.Nightly)
}

func TestAStartLiftsATickThatHeedHadNotRead(t *testing.T) {
	w := newWorld(t)
	k := w.crm.Person("Contact", ada, false)
	w.run(reconcile.Incremental)
	w.crm.Tick(k, "Ann", true)
	w.clock.pass(time.Minute)
	w.text(ada, "START")
	w.clock.pass(time.Minute)
	if err := w.runner.Times.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.LiftedByStart: 1})
	w.box(k, false)
	w.settled(reconcile.Incremental)
}

func TestAPassAfterTheIndexWasLostConverges(t *testing.T) {
	w := newWorld(t)
	stopped, ticked, free := w.crm.Person("Contact", ada, false), w.crm.Person("Contact", bob, false), w.crm.Person("Contact", eve, false)
	w.run(reconcile.Nightly)
	w.text(ada, "STOP")
	w.crm.Tick(ticked, "Ann", true)
	w.run(reconcile.Incremental)
	w.crm.Tick(stopped, "Ann", false) // while the mirror is lost
	m := w.ledger.Mirror("sf")
	if err := m.Delete(t.Context(), []crm.Key{stopped, ticked, free}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"crm/sf", "inbound/acct", "outbound/acct"} {
		if err := w.ledger.SetCursor(t.Context(), c, ""); err != nil {
			t.Fatal(err)
		}
	}
	r := w.run(reconcile.Incremental)
	w.want(r, map[string]int{reconcile.LateRecord: 1})
	if !r.Pass.Full || !r.Recorded {
		t.Fatalf("%+v", r.Pass)
	}
	w.box(stopped, true)
	w.box(ticked, true)
	w.box(free, false)
	w.settled(reconcile.Nightly)
}

func TestStopsWhoseWebhookWasLostAreRecovered(t *testing.T) {
	w := newWorld(t)
	w.provider.Text(eve, "+12065550100", "stop", sms.FlagNone) // before heed
	w.clock.pass(time.Minute)
	w.reopen()
	k := w.crm.Person("Contact", ada, false)
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.BackfillCause: 1})
	w.state(eve, consent.OptedOut)

	w.provider.Text(ada, "+12065550100", "Stop.", sms.FlagNone)
	w.provider.Text(ada, "+12065550100", "nice weather", sms.FlagNone)
	w.clock.pass(time.Minute)
	young := w.provider.Text(bob, "+12065550100", "STOP", sms.FlagNone)
	r, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Incremental})
	if err != nil {
		t.Fatal(err)
	}
	w.want(r, map[string]int{reconcile.MissedWebhook: 1})
	if c := r.Corrections[0]; c.Action != "opt_out" || strings.Contains(c.Detail, "0142 ") && strings.Contains(c.Detail, "206") || strings.Contains(c.Detail, "Stop.") {
		t.Fatalf("%+v", c)
	}
	w.box(k, true)
	// The webhook of what is a moment old may still be on its way. A pass that finds it later calls it missed.
	w.clock.pass(time.Second)
	if r, err = w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Incremental}); err != nil {
		t.Fatal(err)
	}
	w.want(r, nil)
	w.state(bob, consent.Unknown)
	w.clock.pass(time.Minute)
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.MissedWebhook: 1})
	w.state(bob, consent.OptedOut)
	before, err := w.ledger.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.inbox.Receive(t.Context(), "acct", young, ""); err != nil { // its webhook comes after all
		t.Fatal(err)
	}
	if after, err := w.ledger.Stats(t.Context()); err != nil || after.Inbound != before.Inbound || after.Inbound != 4 {
		t.Fatalf("%d messages, then %d, %v", before.Inbound, after.Inbound, err)
	}
	w.settled(reconcile.Incremental)
	w.settled(reconcile.Nightly)
}

func TestALogThatFailsHalfwayKeepsItsCheckpointAndStopsNothingElse(t *testing.T) {
	w := newWorld(t)
	w.run(reconcile.Incremental)
	k := w.crm.Person("Contact", ada, true)
	at, err := w.ledger.Cursor(t.Context(), "inbound/acct")
	if err != nil || at == "" {
		t.Fatal(at, err)
	}
	w.provider.Text(bob, "+12065550100", "STOP", sms.FlagNone)
	w.clock.pass(time.Minute)
	w.provider.FailReads(errors.New("over the limit"))
	for i := range 2 {
		r, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Incremental})
		if err != nil || !strings.Contains(r.Pass.Error, "over the limit") || !strings.Contains(r.Pass.Error, "acct") {
			t.Fatalf("%v %q", err, r.Pass.Error)
		}
		if r.Recorded != (i == 0) { // a source that stays down is one report, not one a minute
			t.Fatalf("pass %d recorded: %v", i, r.Recorded)
		}
		if got, err := w.ledger.Cursor(t.Context(), "inbound/acct"); got != at || err != nil {
			t.Fatalf("checkpoint moved to %s, %v", got, err)
		}
		w.clock.pass(time.Minute)
	}
	w.state(ada, consent.OptedOut) // the CRM was compared all the same
	w.box(k, true)
	w.provider.FailReads(nil)
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.MissedWebhook: 1})
	w.state(bob, consent.OptedOut)
}

func TestACRMThatIsDownKeepsItsCheckpoint(t *testing.T) {
	w := newWorld(t)
	w.run(reconcile.Incremental)
	at, _ := w.ledger.Cursor(t.Context(), "crm/sf")
	k := w.crm.Person("Contact", ada, false)
	w.text(ada, "STOP")
	w.crm.Fail(&crm.Error{Class: crm.RetryLater, Status: 503})
	w.clock.pass(time.Minute)
	r, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Nightly})
	if err != nil || !strings.Contains(r.Pass.Error, "503") || r.Pass.FinishedAt.IsZero() {
		t.Fatalf("%v %+v", err, r.Pass)
	}
	if got, _ := w.ledger.Cursor(t.Context(), "crm/sf"); got != at {
		t.Fatalf("checkpoint moved to %s", got)
	}
	w.crm.Fail(nil)
	w.clock.pass(time.Hour)
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.LateRecord: 1})
	w.box(k, true)
}

func TestUnknownSendsGetTheirFateFromTheLogAndAreNeverRepeated(t *testing.T) {
	w := newWorld(t)
	gate := &connector.Gate{Ledger: w.ledger, Accounts: connector.Accounts{{Name: "acct", Provider: w.provider}}, Region: "US", Log: slog.New(slog.DiscardHandler), Now: w.clock.now}
	send := func(to, body string) ledger.Message {
		m, _, err := gate.Send(t.Context(), connector.Send{To: to, Body: body})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	known := send(ada, "hello")
	w.provider.LoseNextAnswers(1)
	lost := send(ada, "hello") // the same words, in the same minute
	w.provider.FailNext(&sms.Error{Class: sms.Unknown})
	never := send(ada, "hello")
	if known.Status != ledger.StatusSent || lost.Status != ledger.StatusUnknown || never.Status != ledger.StatusUnknown {
		t.Fatal(known.Status, lost.Status, never.Status)
	}
	attempts := w.provider.Attempts()
	w.clock.pass(time.Minute)
	r := w.run(reconcile.Incremental)
	if r.Pass.Counts["sends_settled"] != 1 || r.Pass.Counts["sends_still_unknown"] != 1 {
		t.Fatalf("%v", r.Pass.Counts)
	}
	// Of two equal unknown messages one went out; which one nobody can tell, and it does not matter.
	statuses := map[ledger.Status]int{}
	for _, id := range []string{known.ID, lost.ID, never.ID} {
		m, err := w.ledger.Message(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		statuses[m.Status]++
	}
	if statuses[ledger.StatusSent] != 2 || statuses[ledger.StatusUnknown] != 1 || w.provider.Attempts() != attempts {
		t.Fatalf("%v after %d attempts", statuses, w.provider.Attempts())
	}
	w.clock.pass(2 * time.Hour)
	if r := w.run(reconcile.Incremental); r.Pass.Counts["sends_still_unknown"] != 0 {
		t.Fatal("an old unknown send is looked up every minute")
	}
	if r := w.run(reconcile.Nightly); r.Pass.Counts["sends_still_unknown"] != 1 || r.Pass.Counts["sends_settled"] != 0 {
		t.Fatalf("%v", r.Pass.Counts)
	}
}

func TestARefusalThatNoCallbackBroughtBecomesAnOptOut(t *testing.T) {
	w := newWorld(t)
	k := w.crm.Person("Contact", ada, false)
	if _, err := w.provider.Send(t.Context(), sms.Message{To: ada, Body: "hello"}); err != nil {
		t.Fatal(err)
	}
	w.provider.Report(w.provider.Sent()[0].ProviderID, sms.DeliveryFailed, "21610", true) // the webhook is lost
	w.settled(reconcile.Incremental)
	w.want(w.run(reconcile.Nightly), map[string]int{reconcile.ProviderOnly: 1})
	w.state(ada, consent.OptedOut)
	w.box(k, true)
	w.settled(reconcile.Nightly)
}

func TestRecordsThatAFullReadDoesNotFindAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.crm.PageSize = 7
	var keys []crm.Key
	for i := range 40 {
		keys = append(keys, w.crm.Person("Contact", fmt.Sprintf("+1206555%04d", i), i == 3))
	}
	w.run(reconcile.Nightly)
	w.crm.Erase(keys[3])
	w.crm.Erase(keys[20])
	r := w.run(reconcile.Nightly)
	w.want(r, map[string]int{reconcile.RecordHidden: 1})
	if n, err := w.ledger.Mirror("sf").Len(t.Context()); n != 38 || err != nil || r.Pass.Counts["records_hidden"] != 2 {
		t.Fatalf("%d known, %v, %v", n, err, r.Pass.Counts)
	}
	w.settled(reconcile.Nightly)
}

func TestLosingSightOfMostRecordsForgetsNothing(t *testing.T) {
	w := newWorld(t)
	var keys []crm.Key
	for i := range 150 {
		keys = append(keys, w.crm.Person("Contact", fmt.Sprintf("+1206555%04d", i), false))
	}
	w.run(reconcile.Nightly)
	for _, k := range keys[10:] {
		w.crm.Erase(k)
	}
	r := w.run(reconcile.Nightly)
	if n, _ := w.ledger.Mirror("sf").Len(t.Context()); n != 150 || len(r.Pass.Notes) != 1 || !strings.Contains(r.Pass.Notes[0], "access") {
		t.Fatalf("%d known, notes %q", n, r.Pass.Notes)
	}
}

func TestARefusedWriteIsReportedAsWaitingForAPerson(t *testing.T) {
	w := newWorld(t)
	k := w.crm.Person("Contact", ada, false)
	w.text(ada, "STOP")
	w.crm.FailWrites(k, &crm.Error{Class: crm.Park, Code: "FIELD_CUSTOM_VALIDATION_EXCEPTION", Text: "Ask compliance first"})
	r := w.run(reconcile.Nightly)
	if !maps.Equal(r.Pass.Results, map[string]int{"parked": 1}) || r.Pass.Parked != 1 || r.Pass.Counts["numbers_parked"] != 1 || r.Pass.Counts["numbers_settled"] != 0 {
		t.Fatalf("%+v", r.Pass)
	}
	w.settled(reconcile.Incremental)
	w.clock.pass(7 * time.Hour) // parked work is tried again by and by
	if r := w.run(reconcile.Nightly); len(r.Corrections) != 0 || r.Pass.Counts["numbers_settled"] != 1 {
		t.Fatalf("%+v", r)
	}
	w.box(k, true)
}

func TestRecordsWithoutAReadableNumber(t *testing.T) {
	w := newWorld(t)
	w.crm.Person("Contact", "call the office", true)
	w.crm.Put(crm.Record{Key: crm.Key{Object: "Lead"}, OptedOut: true})
	r := w.run(reconcile.Nightly)
	c := r.Pass.Counts
	if c["phones_unreadable"] != 1 || c["records_without_number"] != 2 || c["ticked_without_number"] != 2 || len(r.Pass.Notes) != 0 || len(r.Corrections) != 0 {
		t.Fatalf("%v %q", c, r.Pass.Notes)
	}
	if s := r.Pass.Standing; len(s) != 1 || s[0].Cause != reconcile.CRMOnly || s[0].N != 2 || len(s[0].Listed) != 2 || s[0].Before != nil {
		t.Fatalf("%+v", s)
	}
}

// meddling does something right after each append and right before each change of the mirror, as the live path may.
type meddling struct {
	ledger.Ledger
	appended func()
	putting  func()
}

func (l meddling) Append(ctx context.Context, e ...ledger.Event) ([]ledger.Receipt, error) {
	r, err := l.Ledger.Append(ctx, e...)
	l.appended()
	return r, err
}
func (l meddling) Mirror(name string) ledger.Mirror {
	return meddlingMirror{l.Ledger.Mirror(name), l.putting}
}

type meddlingMirror struct {
	ledger.Mirror
	putting func()
}

func (m meddlingMirror) Put(ctx context.Context, r []ledger.MirrorRecord) error {
	m.putting()
	return m.Mirror.Put(ctx, r)
}

func TestBoxWritesThatOvertakeThePageMissNoRecord(t *testing.T) {
	w := newWorld(t)
	boxes := w.runner.Boxes
	flush := func() {
		if err := boxes.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	a, b := w.crm.Person("Contact", ada, true), w.crm.Person("Contact", ada, false) // one number, one page, one tick
	c, d := w.crm.Person("Contact", bob, false), w.crm.Person("Contact", eve, false)
	w.runner.Ledger = meddling{w.ledger, flush, sync.OnceFunc(func() {
		w.text(bob, "STOP") // after the page was planned
		flush()
	})}
	w.want(w.run(reconcile.Nightly), map[string]int{reconcile.TickedInCRM: 1, reconcile.LateRecord: 2})
	for k, ticked := range map[crm.Key]bool{a: true, b: true, c: true, d: false} {
		w.box(k, ticked)
	}
	w.settled(reconcile.Incremental)
	// The same with a record that is known and gets the number of somebody who stops in this moment.
	w.crm.Change(d, "Ann", func(r *crm.Record) { r.Phones[0].Raw = "(206) 555-0147" })
	w.runner.Ledger = meddling{w.ledger, flush, sync.OnceFunc(func() {
		w.text("+12065550147", "STOP")
		flush()
	})}
	w.want(w.run(reconcile.Incremental), map[string]int{reconcile.NumberChanged: 1})
	w.box(d, true)
	w.settled(reconcile.Nightly)
}

// slow is a Directory whose answers are old by the time they arrive.
type slow struct {
	*crmtest.CRM
	arriving func(page int)
}

func (s slow) Changed(ctx context.Context, since time.Time) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) {
		n := 0
		for page, err := range s.CRM.Changed(ctx, since) {
			n++
			s.arriving(n)
			if !yield(page, err) {
				return
			}
		}
	}
}

func TestAReadThatBeganBeforeHeedsOwnWriteIsNoDifference(t *testing.T) {
	w := newWorld(t)
	w.crm.PageSize = 1
	a, b := w.crm.Person("Contact", ada, false), w.crm.Person("Contact", bob, false)
	w.run(reconcile.Incremental)
	for _, k := range []crm.Key{a, b} {
		w.crm.Change(k, "Ann", func(*crm.Record) {})
	}
	w.runner.CRMs[0].Directory = slow{w.crm, func(page int) {
		w.clock.pass(time.Second)
		if page == 1 { // both pages show how it was when the first was asked for
			w.text(ada, "STOP")
			w.text(bob, "STOP")
			if err := w.runner.Boxes.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			w.clock.pass(time.Second)
		}
	}}
	if r := w.run(reconcile.Incremental); len(r.Corrections) != 0 {
		t.Fatalf("%+v", r.Corrections)
	}
	w.box(a, true)
	w.box(b, true)
	w.settled(reconcile.Nightly)
}

// moment is a Directory whose full reads show one moment, however often they are interrupted, as a CRM's export job does.
type moment struct {
	*crmtest.CRM
	pages *[]crm.Page
	taken func(page int)
}

func (s moment) Scan(ctx context.Context, after crm.Key) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) {
		if after == (crm.Key{}) {
			*s.pages = nil
			for page, err := range s.CRM.Scan(ctx, after) {
				if err != nil {
					yield(page, err)
					return
				}
				page.Next = crm.Key{Object: "job", ID: fmt.Sprint(len(*s.pages) + 1)}
				*s.pages = append(*s.pages, page)
			}
		}
		for i := range *s.pages {
			if i > 0 && (after == crm.Key{}) {
				s.taken(i)
			}
			if (after == crm.Key{}) || after.ID <= fmt.Sprint(i) {
				if !yield((*s.pages)[i], nil) {
					return
				}
			}
		}
	}
}

func TestAReadThatIsGoneOnWithIsAsOldAsItsBeginning(t *testing.T) {
	w := newWorld(t)
	w.crm.PageSize = 1
	a, b := w.crm.Person("Contact", ada, false), w.crm.Person("Contact", bob, false)
	w.run(reconcile.Incremental)
	ctx, interrupt := context.WithCancel(t.Context())
	w.runner.CRMs[0].Directory = moment{w.crm, new([]crm.Page), func(int) { interrupt() }}
	w.clock.pass(time.Minute)
	if _, err := w.runner.Run(ctx, reconcile.Options{Kind: reconcile.Nightly}); !errors.Is(err, context.Canceled) {
		t.Fatalf("the pass was not interrupted: %v", err)
	}
	w.text(bob, "STOP")
	if err := w.runner.Boxes.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.box(b, true)
	if r := w.run(reconcile.Nightly); len(r.Corrections) != 0 { // what is left of the snapshot shows the box before
		t.Fatalf("%+v", r.Corrections)
	}
	w.box(a, false)
	w.box(b, true)
	w.settled(reconcile.Nightly)
}

func TestAPassThatEndedIsNotGoneOnWith(t *testing.T) {
	w := newWorld(t)
	first := w.run(reconcile.Nightly).Pass
	// As if the process had died before it could remove the mark.
	mark := fmt.Sprintf(`{"id":%q,"all":true,"started":%q,"done":["sf"]}`, first.ID, first.StartedAt.Format(time.RFC3339Nano))
	for _, m := range []string{mark, "{"} {
		if err := w.ledger.SetCursor(t.Context(), "pass/nightly", m); err != nil {
			t.Fatal(err)
		}
		if r := w.run(reconcile.Nightly); r.Pass.ID == first.ID {
			t.Fatal("the same pass again")
		}
	}
}

func TestAnInterruptedPassOfYesterdayIsNotGoneOnWith(t *testing.T) {
	w := newWorld(t)
	w.crm.PageSize = 1
	w.crm.Person("Contact", ada, false)
	w.crm.Person("Contact", bob, false)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := w.runner.Run(ctx, reconcile.Options{Kind: reconcile.Nightly, Progress: func(p reconcile.Progress) {
		if p.Done == 1 {
			cancel()
		}
	}}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.clock.pass(24 * time.Hour)
	if r := w.run(reconcile.Nightly); r.Pass.Counts["records_read"] != 2 || r.Pass.FinishedAt.Sub(r.Pass.StartedAt) > time.Hour {
		t.Fatalf("%+v", r.Pass)
	}
}

func TestOnlyMessagesOfTheSameTimeSettleAnUnknownSend(t *testing.T) {
	w := newWorld(t)
	gate := &connector.Gate{Ledger: w.ledger, Accounts: connector.Accounts{{Name: "acct", Provider: w.provider}}, Region: "US", Log: slog.New(slog.DiscardHandler), Now: w.clock.now}
	unknown := func() {
		w.provider.FailNext(&sms.Error{Class: sms.Unknown})
		if m, _, err := gate.Send(t.Context(), connector.Send{To: ada, Body: "hello"}); err != nil || m.Status != ledger.StatusUnknown {
			t.Fatal(m.Status, err)
		}
	}
	other := func(body string) {
		if _, err := w.provider.Send(t.Context(), sms.Message{To: ada, Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	unknown()
	other("other words")
	w.clock.pass(3 * time.Minute)
	other("hello") // somebody else sends the same words, too late to be ours
	w.clock.pass(10 * time.Minute)
	if c := w.run(reconcile.Nightly).Pass.Counts; c["sends_settled"] != 0 || c["sends_still_unknown"] != 1 {
		t.Fatalf("%v", c)
	}
	w.clock.pass(time.Hour)
	unknown()
	unknown()
	other("hello")
	w.clock.pass(2 * time.Minute)
	for _, dry := range []bool{true, false} { // one message in the log is the fate of one send
		r, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Manual, DryRun: dry})
		if c := r.Pass.Counts; err != nil || c["sends_settled"] != 1 || c["sends_still_unknown"] != 2 {
			t.Fatalf("%v %v", c, err)
		}
	}
}

func TestAStatusThatCameBeforeAnybodyKnewItsMessageStillSettlesIt(t *testing.T) {
	w := newWorld(t)
	gate := &connector.Gate{Ledger: w.ledger, Accounts: connector.Accounts{{Name: "acct", Provider: w.provider}}, Region: "US", Log: slog.New(slog.DiscardHandler), Now: w.clock.now}
	w.provider.LoseNextAnswers(1)
	m, _, err := gate.Send(t.Context(), connector.Send{To: ada, Body: "hello"})
	if err != nil || m.Status != ledger.StatusUnknown {
		t.Fatal(m.Status, err)
	}
	// Without heed's id in its URL, a callback cannot be matched to a message whose provider id is not known.
	report := w.provider.Report(w.provider.Sent()[0].ProviderID, sms.DeliveryDelivered, "", false)
	if _, err := w.inbox.Receive(t.Context(), "acct", report, ""); err != nil {
		t.Fatal(err)
	}
	w.clock.pass(time.Minute)
	w.run(reconcile.Incremental)
	if m, err = w.ledger.Message(t.Context(), m.ID); err != nil || m.Status != ledger.StatusSent || m.Delivery != "delivered" || m.ProviderID == "" {
		t.Fatalf("%+v %v", m, err)
	}
}

func TestRecoveredRepliesDoWhatTheirWebhooksWouldHaveDone(t *testing.T) {
	w := newWorld(t)
	k := w.crm.Person("Contact", ada, false)
	w.text(ada, "STOP")
	w.run(reconcile.Incremental)
	w.box(k, true)
	w.provider.Text(ada, "+12065550100", "START", sms.FlagNone)
	w.provider.Text(bob, "+12065550100", "HELP", sms.FlagNone)
	w.provider.Text("40404", "+12065550100", "STOP", sms.FlagNone) // no telephone number, and told of all the same
	w.clock.pass(time.Minute)
	r := w.run(reconcile.Nightly)
	w.want(r, map[string]int{reconcile.MissedWebhook: 2})
	if r.Pass.Counts["inbound_recovered"] != 3 || len(r.Pass.Notes) != 1 || !strings.Contains(r.Pass.Notes[0], "webhook") {
		t.Fatalf("%v %q", r.Pass.Counts, r.Pass.Notes)
	}
	w.state(ada, consent.OptedIn)
	w.box(k, false)
	for _, c := range r.Corrections {
		if strings.Contains(c.Detail, "40404") || c.Account != "acct" || c.ByAt.IsZero() {
			t.Errorf("%+v", c)
		}
	}
	w.settled(reconcile.Nightly)
}

func TestARefusalFromBeforeAStartIsNoOptOut(t *testing.T) {
	w := newWorld(t)
	if _, err := w.provider.Send(t.Context(), sms.Message{To: ada, Body: "hello"}); err != nil {
		t.Fatal(err)
	}
	w.provider.Report(w.provider.Sent()[0].ProviderID, sms.DeliveryFailed, "21610", true)
	w.clock.pass(time.Minute)
	w.provider.Text(ada, "+12065550100", "START", sms.FlagNone)
	w.clock.pass(time.Minute)
	w.want(w.run(reconcile.Nightly), map[string]int{reconcile.MissedWebhook: 1})
	w.state(ada, consent.OptedIn)
	w.settled(reconcile.Nightly)
}

// frozen lets a dry run show that it writes nothing.
type frozen struct {
	ledger.Ledger
	t *testing.T
}

func (f frozen) Append(context.Context, ...ledger.Event) ([]ledger.Receipt, error) {
	f.t.Error("a dry run appends")
	return nil, ledger.ErrUnavailable
}
func (f frozen) SetCursor(context.Context, string, string) error {
	f.t.Error("a dry run moves a checkpoint")
	return nil
}
func (f frozen) Claim(context.Context, ledger.OwedKind, int) ([]ledger.Owed, error) {
	f.t.Error("a dry run claims work")
	return nil, nil
}
func (f frozen) Mirror(name string) ledger.Mirror { return frozenMirror{f.Ledger.Mirror(name), f.t} }

type frozenMirror struct {
	ledger.Mirror
	t *testing.T
}

func (f frozenMirror) Put(context.Context, []ledger.MirrorRecord) error {
	f.t.Error("a dry run changes the mirror")
	return nil
}
func (f frozenMirror) Delete(context.Context, []crm.Key) error {
	f.t.Error("a dry run changes the mirror")
	return nil
}

func TestADryRunPlansAndChangesNothing(t *testing.T) {
	w := newWorld(t)
	a, b := w.crm.Person("Contact", ada, false), w.crm.Person("Contact", bob, false)
	w.run(reconcile.Nightly)
	w.text(ada, "STOP")
	w.run(reconcile.Incremental)
	w.crm.Tick(a, "Ann", false)
	w.crm.Tick(b, "Ann", true)
	w.provider.Text(eve, "+12065550100", "STOP", sms.FlagNone)
	w.clock.pass(time.Minute)
	before, err := w.ledger.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	boxes := w.crm.Counts().Writes
	w.wire(frozen{w.ledger, t})
	want := map[string]int{reconcile.Unticked: 1, reconcile.TickedInCRM: 1, reconcile.MissedWebhook: 1}
	for _, o := range []reconcile.Options{{Kind: reconcile.Manual, DryRun: true}, {Kind: reconcile.Nightly, DryRun: true}, {Kind: reconcile.Incremental, DryRun: true}} {
		r, err := w.runner.Run(t.Context(), o)
		if err != nil || r.Recorded {
			t.Fatal(r.Recorded, err)
		}
		w.want(r, want)
		if !maps.Equal(r.Pass.Results, map[string]int{"planned": 3}) {
			t.Fatalf("results %v", r.Pass.Results)
		}
	}
	after, err := w.ledger.Stats(t.Context())
	if err != nil || after.Head != before.Head || w.crm.Counts().Writes != boxes {
		t.Fatalf("head %d, then %d; %v", before.Head, after.Head, err)
	}
	w.wire(w.ledger)
	w.runner.Started = began
	w.want(w.run(reconcile.Nightly), want) // and the real run does what was planned
}

func TestAnIncrementalPassWithoutFindingsLeavesNoTrace(t *testing.T) {
	w := newWorld(t)
	w.crm.Person("Contact", ada, false)
	if r := w.run(reconcile.Incremental); !r.Recorded || !r.Pass.Full {
		t.Fatalf("the first read of a CRM is worth a report: %+v", r.Pass)
	}
	before, _ := w.ledger.Stats(t.Context())
	var seen []ledger.Pass
	w.runner.OnPass = func(p ledger.Pass) { seen = append(seen, p) }
	at, _ := w.ledger.Cursor(t.Context(), "crm/sf")
	w.settled(reconcile.Incremental)
	after, _ := w.ledger.Stats(t.Context())
	if moved, _ := w.ledger.Cursor(t.Context(), "crm/sf"); after.Head != before.Head || moved == at || len(seen) != 1 || seen[0].FinishedAt.IsZero() {
		t.Fatalf("head %d → %d, checkpoint %s → %s, %d passes", before.Head, after.Head, at, moved, len(seen))
	}
}

func TestPassesRunOneAtATime(t *testing.T) {
	w := newWorld(t)
	w.crm.Person("Contact", ada, false)
	unblock := w.crm.Block()
	defer unblock()
	first := make(chan error, 1)
	go func() {
		_, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Nightly})
		first <- err
	}()
	w.crm.WaitBlocked(1)
	if _, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Incremental}); !errors.Is(err, reconcile.ErrRunning) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.runner.Run(ctx, reconcile.Options{Kind: reconcile.Manual}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := w.runner.Run(t.Context(), reconcile.Options{Kind: reconcile.Manual})
		second <- err
	}()
	unblock()
	if err := errors.Join(<-first, <-second); err != nil {
		t.Fatal(err)
	}
	if _, err := w.runner.Run(t.Context(), reconcile.Options{Kind: "weekly"}); err == nil {
		t.Fatal("an unknown kind was taken")
	}
}

// dying lets the process die: the nth operation that changes something, and all after it, do not happen. With after
// set the nth one happens and its answer is lost.
type dying struct {
	ledger.Ledger
	left  *int
	after bool
	begun func() // called when the nth one begins; may be nil
	die   func()
}

var errDead = fmt.Errorf("%w: the process died", ledger.ErrUnavailable)

func (d dying) do(op func() error) error {
	*d.left--
	if *d.left == 0 && d.begun != nil {
		d.begun()
	}
	switch {
	case *d.left > 0:
		return op()
	case *d.left == 0 && d.after:
		if err := op(); err != nil {
			return err
		}
	}
	d.die()
	return errDead
}

func (d dying) Append(ctx context.Context, e ...ledger.Event) (r []ledger.Receipt, err error) {
	err = d.do(func() (err error) { r, err = d.Ledger.Append(ctx, e...); return err })
	return r, err
}
func (d dying) SetCursor(ctx context.Context, name, value string) error {
	return d.do(func() error { return d.Ledger.SetCursor(ctx, name, value) })
}
func (d dying) Mirror(name string) ledger.Mirror { return dyingMirror{d.Ledger.Mirror(name), d} }

type dyingMirror struct {
	ledger.Mirror
	d dying
}

func (m dyingMirror) Put(ctx context.Context, r []ledger.MirrorRecord) error {
	return m.d.do(func() error { return m.Mirror.Put(ctx, r) })
}
func (m dyingMirror) Delete(ctx context.Context, k []crm.Key) error {
	return m.d.do(func() error { return m.Mirror.Delete(ctx, k) })
}
func (m dyingMirror) Wrote(ctx context.Context, k []crm.Key, out bool, at time.Time) error {
	return m.d.do(func() error { return m.Mirror.Wrote(ctx, k, out, at) })
}

// outcome is everything that a pass leaves behind, apart from ids and times.
type outcome struct {
	causes, results, counts map[string]int
	boxes                   map[crm.Key]bool
	numbers                 map[string]int
	inbound                 uint64
	passes                  int
	known                   int
}

// drifted is a world with a difference of nearly every kind, over several pages.
func drifted(t *testing.T) *world {
	w := newWorld(t)
	w.crm.PageSize = 3
	var keys []crm.Key
	for i := range 8 {
		keys = append(keys, w.crm.Person("Contact", fmt.Sprintf("+120655501%02d", i), false))
	}
	lead := w.crm.Person("Lead", "+12065550101", false)
	w.run(reconcile.Nightly)
	w.text("+12065550101", "STOP")
	w.text("+12065550106", "STOP")
	w.settled(reconcile.Incremental)
	w.crm.Tick(keys[1], "Ann", false)                                     // unticked
	w.crm.Tick(keys[4], "Ann", true)                                      // ticked in the CRM
	w.crm.Erase(keys[6])                                                  // hidden
	w.crm.Person("Lead", "+12065550101", false)                           // late
	w.crm.Change(lead, "Bea", func(r *crm.Record) { r.OptedOut = false }) // unticked as well
	w.provider.Text("+12065550107", "+12065550100", "STOP", sms.FlagNone) // its webhook is lost
	if _, err := w.provider.Send(t.Context(), sms.Message{To: "+12065550105", Body: "hello"}); err != nil {
		t.Fatal(err)
	}
	w.provider.Report(w.provider.Sent()[0].ProviderID, sms.DeliveryFailed, "21610", true)
	w.clock.pass(time.Minute)
	return w
}

func (w *world) outcome() outcome {
	w.Helper()
	o := outcome{causes: map[string]int{}, results: map[string]int{}, boxes: map[crm.Key]bool{}}
	for p, err := range w.ledger.Reports(w.Context()) {
		if err != nil {
			w.Fatal(err)
		}
		if p.FinishedAt.IsZero() {
			w.Fatalf("pass %s never ended", p.ID)
		}
		o.passes++
		if o.counts == nil { // the newest
			o.counts = map[string]int{}
			for _, name := range []string{"records_read", "pages"} {
				o.counts[name] = p.Counts[name]
			}
		}
		for c, err := range w.ledger.Corrections(w.Context(), p.ID) {
			if err != nil {
				w.Fatal(err)
			}
			o.causes[c.Cause]++
			o.results[c.Result]++
		}
	}
	for page, err := range w.crm.Scan(w.Context(), crm.Key{}) {
		if err != nil {
			w.Fatal(err)
		}
		for _, r := range page.Records {
			o.boxes[r.Key] = r.OptedOut
		}
	}
	s, err := w.ledger.Stats(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	o.numbers, o.inbound = s.Numbers, s.Inbound
	o.known, err = w.ledger.Mirror("sf").Len(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return o
}

func TestANightlyPassThatDiesAnywhereGoesOnAndEndsTheSame(t *testing.T) {
	undisturbed := drifted(t)
	undisturbed.run(reconcile.Nightly)
	want := undisturbed.outcome()
	if len(want.causes) < 6 {
		t.Fatalf("only %v", want.causes)
	}
	undisturbed.settled(reconcile.Nightly)
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			w := drifted(t)
			left := n
			ctx, die := context.WithCancel(t.Context())
			w.wire(dying{Ledger: w.ledger, left: &left, after: after, die: die})
			w.runner.Started = began
			_, err := w.runner.Run(ctx, reconcile.Options{Kind: reconcile.Nightly})
			die()
			if left > 0 {
				if err != nil || n < 20 {
					t.Fatalf("%d operations, %v", n, err)
				}
				break // it was not disturbed any more
			}
			if err == nil {
				t.Fatalf("died at operation %d without an error", n)
			}
			w.clock.pass(time.Minute)
			w.reopen()
			w.runner.Started = began
			w.run(reconcile.Nightly)
			// A process that died right after the end of the pass leaves nothing to go on with: one more pass is fine.
			got := w.outcome()
			if got.passes == want.passes+1 {
				got.passes--
				got.counts = want.counts
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("died at operation %d (after: %v):\n got %+v\nwant %+v", n, after, got, want)
			}
			w.settled(reconcile.Nightly)
		}
	}
}

func TestAnIncrementalPassThatDiesAnywhereGoesOnAndEndsTheSame(t *testing.T) {
	undisturbed := drifted(t)
	undisturbed.run(reconcile.Incremental)
	want := undisturbed.outcome()
	for n := 1; ; n++ {
		w := drifted(t)
		left := n
		ctx, die := context.WithCancel(t.Context())
		w.wire(dying{Ledger: w.ledger, left: &left, after: n%2 == 0, die: die})
		w.runner.Started = began
		_, err := w.runner.Run(ctx, reconcile.Options{Kind: reconcile.Incremental})
		die()
		if left > 0 {
			if err != nil || n < 10 {
				t.Fatalf("%d operations, %v", n, err)
			}
			break
		}
		w.clock.pass(time.Minute)
		w.reopen()
		w.runner.Started = began
		w.run(reconcile.Incremental)
		got := w.outcome()
		got.counts = want.counts // changes are read from the checkpoint again
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("died at operation %d:\n got %+v\nwant %+v", n, got, want)
		}
		w.settled(reconcile.Incremental)
	}
}

func TestAFullReadThatIsCancelledBetweenPagesGoesOnWhereItWas(t *testing.T) {
	w := newWorld(t)
	w.crm.PageSize = 2
	for i := range 9 {
		w.crm.Person("Contact", fmt.Sprintf("+1206555%04d", i), false)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var stages []string
	_, err := w.runner.Run(ctx, reconcile.Options{Kind: reconcile.Nightly, Progress: func(p reconcile.Progress) {
		if stages = append(stages, p.Stage); p.Done == 4 {
			if p.Total != 9 {
				t.Errorf("total %d", p.Total)
			}
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if !slices.Contains(stages, "reading all of sf") {
		t.Fatalf("stages %q", stages)
	}
	// An incremental pass in between neither ends nor spoils it: what was made meanwhile is not taken for gone.
	added := w.crm.Person("Contact", ada, false)
	w.clock.pass(time.Minute)
	before := w.crm.Counts()
	r := w.run(reconcile.Nightly)
	if got := w.crm.Counts(); r.Pass.Counts["records_read"] != 10 || got.Pages-before.Pages != 4 { // 6 of 10 Contacts, no Leads
		t.Fatalf("%v, %d pages", r.Pass.Counts, got.Pages-before.Pages)
	}
	if known, err := w.ledger.Mirror("sf").Get(t.Context(), []crm.Key{added}); err != nil || len(known) != 1 {
		t.Fatalf("%v %v", known, err)
	}
	var ids []string
	for p, err := range w.ledger.Reports(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.ID)
	}
	if len(ids) != 1 {
		t.Fatalf("passes %v", ids)
	}
}

func TestARecordThatAppearsDuringAnInterruptedFullReadIsNotTakenForGone(t *testing.T) {
	w := newWorld(t)
	w.crm.PageSize = 2
	for i := range 6 {
		w.crm.Person("Contact", fmt.Sprintf("+1206555%04d", i), false)
	}
	w.run(reconcile.Nightly)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.runner.Run(ctx, reconcile.Options{Kind: reconcile.Nightly, Progress: func(p reconcile.Progress) {
		if p.Done == 4 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// Undeleted: an id before the place at which the read stopped.
	back := w.crm.Put(crm.Record{Key: crm.Key{Object: "Contact", ID: "003000000000000AAA"}, Phones: []crm.Phone{{Field: "Phone", Raw: ada}}})
	w.run(reconcile.Incremental)
	w.run(reconcile.Nightly)
	if known, err := w.ledger.Mirror("sf").Get(t.Context(), []crm.Key{back}); err != nil || len(known) != 1 {
		t.Fatalf("%v %v", known, err)
	}
}

func TestReportsOfARealPass(t *testing.T) {
	w := drifted(t)
	r := w.run(reconcile.Nightly)
	for _, write := range []func(io.Writer) error{
		func(out io.Writer) error {
			return reconcile.Text(out, r.Pass, w.ledger.Corrections(t.Context(), r.Pass.ID), reconcile.TextOptions{})
		},
		func(out io.Writer) error {
			return reconcile.JSON(out, r.Pass, w.ledger.Corrections(t.Context(), r.Pass.ID))
		},
	} {
		var b strings.Builder
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		for cause := range r.Pass.Causes {
			if !strings.Contains(b.String(), cause) {
				t.Errorf("%s is missing", cause)
			}
		}
		if strings.Contains(b.String(), "206555") || strings.Contains(b.String(), "hello") {
			t.Errorf("a full number or a text in\n%s", b.String())
		}
	}
	c := r.Pass.Counts
	if c["numbers_opted_out"] != 5 || c["numbers_opted_out"] != c["numbers_settled"]+c["numbers_waiting"]+c["numbers_parked"] {
		t.Errorf("%v", c)
	}
	total := 0
	for _, n := range r.Pass.Results {
		total += n
	}
	for _, n := range r.Pass.Causes {
		total -= n
	}
	if total != 0 {
		t.Errorf("causes %v, results %v", r.Pass.Causes, r.Pass.Results)
	}
}
