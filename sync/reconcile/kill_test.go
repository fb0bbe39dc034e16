package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/rpc"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

// The organisation and the provider outlive the process that makes the pass: they stay in the test's own process, and the
// child speaks with them through its standard input and output.

// outside is the side of the test.
type outside struct{ w *world }

// Answer is what a call came to. Errors of a CRM have a class that must arrive.
type Answer struct {
	Pages   []crm.Page
	Results []Refusal
	In      []sms.Inbound
	Out     []sms.Outbound
}

// Refusal is a crm.Result.
type Refusal struct {
	Key         crm.Key
	Class, Text string
}

func (o *outside) Scan(after crm.Key, a *Answer) (err error) {
	a.Pages, err = collect(o.w.crm.Scan(context.Background(), after))
	return err
}

func (o *outside) Changed(since time.Time, a *Answer) (err error) {
	a.Pages, err = collect(o.w.crm.Changed(context.Background(), since))
	return err
}

func (o *outside) Write(writes []crm.Write, a *Answer) error {
	for _, r := range o.w.crm.Write(context.Background(), writes) {
		x := Refusal{Key: r.Key}
		var ce *crm.Error
		if errors.As(r.Err, &ce) {
			x.Class, x.Text = string(ce.Class), ce.Text
		}
		a.Results = append(a.Results, x)
	}
	return nil
}

func (o *outside) Inbound(span [2]time.Time, a *Answer) (err error) {
	a.In, err = collect(o.w.provider.Inbound(context.Background(), span[0], span[1]))
	return err
}

func (o *outside) Outbound(span [2]time.Time, a *Answer) (err error) {
	a.Out, err = collect(o.w.provider.Outbound(context.Background(), span[0], span[1]))
	return err
}

func collect[T any](seq iter.Seq2[T, error]) (all []T, _ error) {
	for v, err := range seq {
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// inside is the side of the child: a CRM and a provider.
type inside struct {
	sms.Provider // nil: a pass neither sends nor takes webhooks
	c            *rpc.Client
	d            *dying
}

func (r inside) call(method string, arg any) (a Answer, err error) {
	err = r.c.Call("outside."+method, arg, &a)
	return a, err
}

func pages[T any](list []T, err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range list {
			if !yield(v, nil) {
				return
			}
		}
		if err != nil {
			var zero T
			yield(zero, err)
		}
	}
}

func (r inside) Scan(_ context.Context, after crm.Key) iter.Seq2[crm.Page, error] {
	a, err := r.call("Scan", after)
	return pages(a.Pages, err)
}

func (r inside) Changed(_ context.Context, since time.Time) iter.Seq2[crm.Page, error] {
	a, err := r.call("Changed", since)
	return pages(a.Pages, err)
}

func (r inside) Write(_ context.Context, writes []crm.Write) (results []crm.Result) {
	var a Answer
	err := r.d.do(func() (err error) { a, err = r.call("Write", writes); return err })
	for i := range writes {
		res := crm.Result{Key: writes[i].Key, Err: err}
		if err == nil && a.Results[i].Class != "" {
			res.Err = &crm.Error{Class: crm.Class(a.Results[i].Class), Text: a.Results[i].Text}
		}
		results = append(results, res)
	}
	return results
}

func (r inside) Inbound(_ context.Context, since, until time.Time) iter.Seq2[sms.Inbound, error] {
	a, err := r.call("Inbound", [2]time.Time{since, until})
	return pages(a.In, err)
}

func (r inside) Outbound(_ context.Context, since, until time.Time) iter.Seq2[sms.Outbound, error] {
	a, err := r.call("Outbound", [2]time.Time{since, until})
	return pages(a.Out, err)
}

// The child's orders.
const (
	childDir   = "HEED_TEST_PASS_DIR"   // its ledger
	childNow   = "HEED_TEST_PASS_NOW"   // its clock, which rests
	childPoint = "HEED_TEST_PASS_POINT" // at which operation that changes something it dies …
	childWhen  = "HEED_TEST_PASS_WHEN"  // … "before" it, "after" it, or that many microseconds after it began
)

type stdio struct {
	io.Reader
	io.WriteCloser
}

// child makes a nightly pass and kills itself (SIGKILL) where it is told.
func child() {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(3)
	}
	now, err := time.Parse(time.RFC3339Nano, os.Getenv(childNow))
	if err != nil {
		fail(err)
	}
	left, err := strconv.Atoi(os.Getenv(childPoint))
	if err != nil {
		fail(err)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		fail(err)
	}
	die := func() {
		_ = self.Kill()
		select {}
	}
	clock := &wall{t: now}
	l, err := local.Open(os.Getenv(childDir), local.Options{Now: clock.now})
	if err != nil {
		fail(err)
	}
	d := &dying{Ledger: l, left: &left, after: true, die: die}
	switch when := os.Getenv(childWhen); when {
	case "before":
		d.after = false
	case "after":
	default:
		us, err := strconv.Atoi(when)
		if err != nil {
			fail(err)
		}
		d.begun = func() { time.AfterFunc(time.Duration(us)*time.Microsecond, die) }
	}
	r := inside{c: rpc.NewClient(stdio{os.Stdin, os.Stdout}), d: d}
	_, err = passBy(d, r, r, clock.now).Run(context.Background(), reconcile.Options{Kind: reconcile.Nightly})
	fail(fmt.Errorf("the pass ended with %d operations to go: %w", left, err))
}

// passBy returns what makes a pass with a ledger, between a CRM and a provider.
func passBy(l ledger.Ledger, dir crm.Directory, p sms.Provider, now func() time.Time) *reconcile.Runner {
	log := slog.New(slog.DiscardHandler)
	accounts := connector.Accounts{{Name: "acct", Provider: p}}
	return &reconcile.Runner{
		Ledger: l, Accounts: []reconcile.Account{{Name: "acct", Provider: p}}, CRMs: []reconcile.CRM{{Name: "sf", Directory: dir}},
		Inbox:  &connector.Inbox{Ledger: l, Accounts: accounts, Replies: reply.Default(), Log: log, Now: now},
		Boxes:  &connector.Boxes{Ledger: l, CRMs: []connector.CRM{{Name: "sf", Directory: dir}}, Log: log, Now: now},
		Region: "US", Started: began, Log: log, Now: now,
	}
}

// tangled is a world with something for each count of a report, over many pages.
func tangled(t *testing.T) *world {
	t.Helper()
	w := drifted(t)
	gate := &connector.Gate{Ledger: w.ledger, Accounts: connector.Accounts{{Name: "acct", Provider: w.provider}}, Region: "US", Log: slog.New(slog.DiscardHandler), Now: w.clock.now}
	w.provider.LoseNextAnswers(1)
	if m, _, err := gate.Send(t.Context(), connector.Send{To: "+12065550170", Body: "hello"}); err != nil || m.Status != ledger.StatusUnknown {
		t.Fatal(m.Status, err)
	}
	w.provider.Text("+12065550171", "+12065550100", "STOP", sms.FlagNone)
	w.provider.Text("+12065550172", "+12065550100", "nice weather", sms.FlagNone)
	w.crm.Person("Contact", "+12065550171", false) // two people
	w.crm.Person("Contact", "+12065550171", false)
	w.crm.Person("Contact", "ask reception", false)
	w.crm.Person("Lead", "ask reception", true)
	refused := w.crm.Person("Contact", "+12065550173", false)
	no := &crm.Error{Class: crm.Park, Text: "Ask compliance first"}
	w.crm.FailWrites(refused, slices.Repeat([]error{no}, 20)...)
	w.provider.Text("+12065550173", "+12065550100", "STOP", sms.FlagNone)
	loser, survivor := w.crm.Person("Contact", "+12065550174", true), w.crm.Person("Contact", "+12065550175", false)
	w.run(reconcile.Incremental) // the loser's tick is known
	w.crm.Change(survivor, "Ann", func(r *crm.Record) { r.Phones = append(r.Phones, crm.Phone{Field: "Phone", Raw: "+12065550174"}) })
	w.crm.Merge(loser, survivor)
	for i := range 4 { // after the incremental pass, so that the nightly one finds them
		w.crm.Person("Lead", fmt.Sprintf("+1206555018%d", i), i%2 == 0)
	}
	w.provider.Text("+12065550181", "+12065550100", "STOP", sms.FlagNone)
	// The provider's log could not be read for three days.
	w.provider.Now = func() time.Time { return began.Add(-48 * time.Hour) }
	w.provider.Text("+12065550190", "+12065550100", "nice weather", sms.FlagNone)
	if _, err := w.provider.Send(t.Context(), sms.Message{To: "+12065550190", Body: "hello"}); err != nil {
		t.Fatal(err)
	}
	w.provider.Now = w.clock.now
	for _, cursor := range []string{"inbound/acct", "outbound/acct"} {
		if err := w.ledger.SetCursor(t.Context(), cursor, began.Add(-72*time.Hour).Format(time.RFC3339Nano)); err != nil {
			t.Fatal(err)
		}
	}
	w.clock.pass(2 * time.Minute)
	return w
}

// leavings is everything that a pass leaves behind: the boxes, the ledger, and the report to the letter, apart from ids,
// hashes and places in the ledger.
type leavings struct {
	boxes   map[crm.Key]bool
	mirror  map[crm.Key]string
	numbers map[phone.Number]consent.State
	sources map[phone.Number]consent.Source
	owed    []string
	stats   string
	report  string
}

var places = regexp.MustCompile(`pass_\S+|event \d+, SHA-256 \S+|events \d+ to \d+`)

// leavings reads what the newest pass left.
func (w *world) leavings() leavings {
	w.Helper()
	l := leavings{boxes: map[crm.Key]bool{}, mirror: map[crm.Key]string{}, numbers: map[phone.Number]consent.State{}, sources: map[phone.Number]consent.Source{}}
	ok := func(err error) {
		w.Helper()
		if err != nil {
			w.Fatal(err)
		}
	}
	for page, err := range w.crm.Scan(w.Context(), crm.Key{}) {
		ok(err)
		for _, r := range page.Records {
			l.boxes[r.Key] = r.OptedOut
		}
	}
	for r, err := range w.ledger.Mirror("sf").Between(w.Context(), crm.Key{}, crm.Key{}) {
		ok(err)
		l.mirror[r.Key] = fmt.Sprint(r.Numbers, r.Unparsed, r.OptedOut)
	}
	for n, err := range w.ledger.Numbers(w.Context(), phone.Number{}) {
		ok(err)
		l.numbers[n.Number], l.sources[n.Number] = n.Facts.State(), n.Source
	}
	for o, err := range w.ledger.Owed(w.Context()) {
		ok(err)
		l.owed = append(l.owed, fmt.Sprint(o.Kind, o.Number, o.Parked != nil))
	}
	slices.Sort(l.owed)
	s, err := w.ledger.Stats(w.Context())
	ok(err)
	l.stats = fmt.Sprint(s.Numbers, s.Inbound, s.OptOuts, s.Quarantine, s.Owed, s.Parked, s.Messages)
	p := w.newest()
	var report strings.Builder
	ok(reconcile.Text(&report, p, w.ledger.Corrections(w.Context(), p.ID), reconcile.TextOptions{Limit: -1}))
	l.report = places.ReplaceAllString(report.String(), "…")
	return l
}

// newest returns the newest pass.
func (w *world) newest() ledger.Pass {
	w.Helper()
	for p, err := range w.ledger.Reports(w.Context()) {
		if err != nil {
			w.Fatal(err)
		}
		return p
	}
	w.Fatal("no pass")
	return ledger.Pass{}
}

// A nightly pass is killed (SIGKILL) at twenty random points, and another process goes on with it. Boxes, ledger and
// report are those of a pass that nothing disturbed. HEED_KILLS=500 kills it more often (make crash).
func TestAPassThatIsKilledAtTwentyRandomPointsEndsTheSame(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	undisturbed := tangled(t)
	const plenty = 1 << 30
	left := plenty
	d := &dying{Ledger: undisturbed.ledger, left: &left, die: func() {}}
	server := serve(&outside{undisturbed})
	r := inside{c: server.client, d: d}
	if _, err := passBy(d, r, r, undisturbed.clock.now).Run(t.Context(), reconcile.Options{Kind: reconcile.Nightly}); err != nil {
		t.Fatal(err)
	}
	server.stop()
	want := undisturbed.leavings()
	p := undisturbed.newest()
	for _, count := range []string{"records_read", "records_gone", "records_hidden", "phones_unreadable", "inbound_read", "inbound_recovered", "outbound_read", "sends_settled", "numbers_parked", "opt_outs_applied", "opt_outs_parked"} {
		if p.Counts[count] == 0 {
			t.Errorf("the pass counts no %s, so that its loss would not be seen: %v", count, p.Counts)
		}
	}
	if len(p.Standing) != 4 || len(p.Causes) < 6 {
		t.Errorf("the pass has too little to lose: %v, %v", p.Standing, p.Causes)
	}
	undisturbed.settled(reconcile.Nightly)

	total := plenty - left
	seed := rand.Uint64()
	t.Logf("%d operations, seed %d", total, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var points []int
	kills := 20
	if s := os.Getenv("HEED_KILLS"); s != "" {
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		kills = 5
	}
	for i := range kills {
		if i%total == 0 {
			points = random.Perm(total)
		}
		n := points[i%total]
		when := []string{"before", "after", strconv.Itoa(random.IntN(3000))}[random.IntN(3)]
		t.Run(fmt.Sprintf("%s %d", when, n+1), func(t *testing.T) {
			w := tangled(t)
			if err := w.ledger.Close(); err != nil {
				t.Fatal(err)
			}
			w.kill(exe, n+1, when)
			w.open()
			// The process may have died between the end of the pass and its forgetting that there was one.
			if w.newest().FinishedAt.IsZero() || w.newest().Kind != reconcile.Nightly {
				if _, err := passBy(w.ledger, w.crm, w.provider, w.clock.now).Run(t.Context(), reconcile.Options{Kind: reconcile.Nightly}); err != nil {
					t.Fatal(err)
				}
			}
			got := w.leavings()
			if got.report != want.report {
				t.Errorf("the report differs:\n%s\nwithout being disturbed:\n%s", got.report, want.report)
			}
			got.report = want.report
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			w.runner.Started = began
			w.settled(reconcile.Nightly)
			if err := w.ledger.Close(); err != nil {
				t.Fatal(err)
			}
			if rep, err := local.Verify(t.Context(), w.dir, nil); err != nil || !rep.Sound() || rep.IndexBehind != 0 {
				t.Errorf("the ledger is not whole: %+v, %v", rep, err)
			}
			w.open()
		})
	}
}

// kill lets a child begin the pass and die.
func (w *world) kill(exe string, point int, when string) {
	w.Helper()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childDir+"="+w.dir, childNow+"="+w.clock.now().Format(time.RFC3339Nano), fmt.Sprintf("%s=%d", childPoint, point), childWhen+"="+when)
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		w.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	s := rpc.NewServer()
	if err := s.RegisterName("outside", &outside{w}); err != nil {
		w.Fatal(err)
	}
	s.ServeConn(stdio{out, in}) // until the child is dead
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == 3 || said.Len() > 0 {
		w.Fatalf("the child was not killed: %v %s", err, said.String())
	}
}

// served is an outside in this process.
type served struct {
	client *rpc.Client
	stop   func()
}

func serve(o *outside) served {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	s := rpc.NewServer()
	_ = s.RegisterName("outside", o)
	done := make(chan struct{})
	go func() { defer close(done); s.ServeConn(stdio{r1, w2}) }()
	c := rpc.NewClient(stdio{r2, w1})
	return served{c, func() { _ = c.Close(); <-done }}
}
