package dropin_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twilio/twilio-go/client"
	api "github.com/twilio/twilio-go/rest/api/v2010"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/dropin"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// app is a client's server. It proves each callback with Twilio's own library.
type app struct {
	*httptest.Server
	t      *testing.T
	mu     sync.Mutex
	status int // what it answers
	got    []url.Values
}

func newApp(t *testing.T) *app {
	a := &app{t: t, status: 204}
	validator := client.NewRequestValidator("sendandread") // the client's heed key
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		params := map[string]string{}
		for k := range r.PostForm {
			params[k] = r.PostForm.Get(k)
		}
		if !validator.Validate(a.URL+r.URL.RequestURI(), params, r.Header.Get("X-Twilio-Signature")) {
			t.Error("Twilio's library does not take the signature")
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.got = append(a.got, r.PostForm)
		w.WriteHeader(a.status)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *app) answer(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status = status
}

// told returns the statuses that were told, with their error codes.
func (a *app) told() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, f := range a.got {
		out = append(out, strings.TrimSpace(f.Get("MessageStatus")+" "+f.Get("ErrorCode")))
	}
	return strings.Join(out, ", ")
}

func (r *rig) relays() *dropin.Relays {
	r.handler.AllowPrivate = true
	r.real.Store(true)
	c := dropin.NewClient(true)
	r.t.Cleanup(c.CloseIdleConnections)
	return &dropin.Relays{Ledger: r.ledger, Client: c, Log: slog.New(slog.DiscardHandler), Now: r.wall}
}

// wall is the time of the ledger, by which work comes due, with the rig's clock on top.
func (r *rig) wall() time.Time { return time.Now().Add(time.Duration(r.clock.Load()) * time.Second) }

func (r *rig) queue() *connector.Queue {
	return &connector.Queue{Ledger: r.ledger, Gate: r.gate, Accounts: r.accounts, Log: slog.New(slog.DiscardHandler), Now: r.wall}
}

func (r *rig) flush(fn func(context.Context) error) {
	r.t.Helper()
	if err := fn(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// delivered records what the provider told of a message later.
func (r *rig) delivered(twilioSID, delivery, code string) {
	r.t.Helper()
	id := "msg_" + twilioSID[2:]
	m, err := r.ledger.Message(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.ledger.Append(r.t.Context(), ledger.Event{Kind: ledger.KindStatus, At: time.Now(), Number: m.To,
		Status: &ledger.StatusTold{Account: m.Account, ProviderID: m.ProviderID, Message: id, Delivery: delivery, Code: code}}); err != nil {
		r.t.Fatal(err)
	}
}

func TestACallbackIsRelayedSignedWithTheClientsKey(t *testing.T) {
	r, a := newRig(t, consent.Policy{}), newApp(t)
	relays := r.relays()
	form := text(ada)
	form.Set("StatusCallback", a.URL+"/status?order=7&x=%2B1#rc=3")
	m := r.post(form)
	if m.status != 201 {
		t.Fatalf("%d %v", m.status, m.json)
	}
	r.flush(relays.Flush)
	r.delivered(m.str("sid"), "delivered", "")
	r.flush(relays.Flush)
	r.flush(relays.Flush)
	if got := a.told(); got != "queued, delivered" {
		t.Fatalf("told %q", got)
	}
	last := a.got[1]
	for name, want := range map[string]string{"MessageSid": m.str("sid"), "SmsSid": m.str("sid"), "SmsStatus": "delivered", "To": ada, "From": ours,
		"AccountSid": sid, "ApiVersion": "2010-04-01"} {
		if last.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, last.Get(name), want)
		}
	}
	// What is stored can sign, and does not hold the key.
	for e, err := range r.ledger.Events(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if b, err := e.Encode(); err != nil || strings.Contains(string(b), "sendandread") || e.Opened != nil && strings.Contains(string(e.Opened.Callback.Signer), "sendandread") {
			t.Errorf("the client's key is in event %d, %v", e.Seq, err)
		}
	}
}

func TestACallbackThatFailsIsTriedAgainForADay(t *testing.T) {
	r, a := newRig(t, consent.Policy{}), newApp(t)
	relays := r.relays()
	a.answer(503)
	form := text(ada)
	form.Set("StatusCallback", a.URL+"/s")
	m := r.post(form)
	again := func() {
		t.Helper()
		if err := r.ledger.Hurry(t.Context(), ledger.OweRelay); err != nil {
			t.Fatal(err)
		}
		r.flush(relays.Flush)
	}
	again()
	again()
	owed := func() int {
		s, err := r.ledger.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Owed[ledger.OweRelay]
	}
	if a.told() != "queued, queued" || owed() != 1 {
		t.Errorf("told %q, %d owed", a.told(), owed())
	}
	r.delivered(m.str("sid"), "delivered", "") // overtakes what could not be told
	a.answer(200)
	again()
	if a.told() != "queued, queued, delivered" || owed() != 0 {
		t.Errorf("told %q, %d owed", a.told(), owed())
	}

	a.answer(500)
	r.post(form)
	again()
	r.clock.Add(int64((25 * time.Hour).Seconds()))
	again()
	if owed() != 0 {
		t.Error("it is still owed after a day")
	}
	var last ledger.Relayed
	for e, err := range r.ledger.Events(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Relayed != nil {
			last = *e.Relayed
		}
	}
	if last.Status != "queued" || last.Failed != "the callback answered HTTP 500" {
		t.Errorf("what was given up: %+v", last)
	}
}

func TestAHostThatHangsDoesNotDelayAnother(t *testing.T) {
	r, a := newRig(t, consent.Policy{}), newApp(t)
	relays := r.relays()
	hang := make(chan struct{})
	asked := make(chan struct{}, 100)
	var here, most atomic.Int64
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		defer here.Add(-1)
		for n := here.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		asked <- struct{}{}
		<-hang
	}))
	t.Cleanup(slow.Close)
	for i := range 10 {
		form := text(phone.FromUint64(12065550150 + uint64(i)).String())
		form.Set("StatusCallback", slow.URL)
		r.post(form)
	}
	form := text(ada)
	form.Set("StatusCallback", a.URL+"/s")
	r.post(form)
	var work sync.WaitGroup
	work.Go(func() { r.flush(relays.Flush) })
	<-asked
	for a.told() == "" { // the test's deadline bounds it
	}
	close(hang)
	work.Wait()
	if a.told() != "queued" || len(asked) != 9 || most.Load() > 4 {
		t.Errorf("told %q; the slow one was asked %d times, at most %d at once", a.told(), len(asked)+1, most.Load())
	}
}

func TestAClientCannotReachThroughHeedWhatIsPrivate(t *testing.T) {
	hit := make(chan struct{}, 1)
	ts := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hit <- struct{}{} }))
	t.Cleanup(ts.Close)
	_, port, err := net.SplitHostPort(ts.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := dropin.NewClient(false)
	// The check is made on the address that a name resolved to, so that no name can hide one.
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		if _, err := c.Get("http://" + host + ":" + port); err == nil || !strings.Contains(err.Error(), "own network") {
			t.Errorf("%s: %v", host, err)
		}
	}
	select {
	case <-hit:
		t.Error("the server was reached")
	default:
	}
	redirects := httptest.NewServer(http.RedirectHandler(ts.URL, http.StatusTemporaryRedirect))
	t.Cleanup(redirects.Close)
	open := dropin.NewClient(true)
	t.Cleanup(open.CloseIdleConnections)
	resp, err := open.Get(redirects.URL)
	if err != nil || resp.StatusCode != http.StatusTemporaryRedirect {
		t.Fatalf("%v %v", resp, err)
	}
	_ = resp.Body.Close()
}

func TestAScheduledMessageIsDecidedAgainAndTold(t *testing.T) {
	r, a := newRig(t, consent.Policy{}), newApp(t)
	relays := r.relays()
	tw := library(t, r.url, sid, "sendandread")
	schedule := func(to string) *api.ApiV2010Message {
		t.Helper()
		m, err := tw.CreateMessage((&api.CreateMessageParams{}).SetTo(to).SetMessagingServiceSid(service).SetBody("hello").
			SetScheduleType("fixed").SetSendAt(r.now().Add(time.Hour)).SetStatusCallback(a.URL + "/s"))
		if err != nil || *m.Status != "scheduled" {
			t.Fatalf("%+v %v", m, err)
		}
		return m
	}
	status := func(m *api.ApiV2010Message) string {
		t.Helper()
		got, err := tw.FetchMessage(*m.Sid, nil)
		if err != nil {
			t.Fatal(err)
		}
		return *got.Status
	}
	mine, hers, third := schedule(ada), schedule(eve), schedule("+12065550144")
	r.flush(r.queue().Flush)
	if r.provider.Attempts() != 0 || status(mine) != "scheduled" {
		t.Fatalf("%d attempts, %s", r.provider.Attempts(), status(mine))
	}
	if got, err := tw.UpdateMessage(*third.Sid, (&api.UpdateMessageParams{}).SetStatus("canceled")); err != nil || *got.Status != "canceled" {
		t.Fatalf("%+v %v", got, err)
	}
	var refused *client.TwilioRestError
	if _, err := tw.UpdateMessage(*third.Sid, (&api.UpdateMessageParams{}).SetStatus("canceled")); !errors.As(err, &refused) || refused.Code != 30409 {
		t.Errorf("canceled twice: %v", err)
	}
	// A STOP ends what waits at once, and the client is told.
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	q := r.queue()
	work.Go(func() { q.Run(ctx) })
	quick := text("+12065550145")
	if _, _, err := r.gate.Send(t.Context(), connector.Send{To: quick.Get("To"), Body: "x", Deferred: true}); err != nil {
		t.Fatal(err)
	}
	for r.provider.Attempts() == 0 { // q runs now; the test's deadline bounds it
	}
	if _, err := r.inbox.Receive(t.Context(), "account1", r.provider.Text(eve, ours, "STOP", sms.FlagNone), ""); err != nil {
		t.Fatal(err)
	}
	for status(hers) == "scheduled" {
	}
	cancel()
	work.Wait()
	if status(hers) != "failed" || status(mine) != "scheduled" {
		t.Errorf("hers is %s, mine is %s", status(hers), status(mine))
	}
	r.flush(relays.Flush)
	if got := a.told(); got != "canceled, failed 21610" && got != "failed 21610, canceled" {
		t.Errorf("told %q", got)
	}
	list, err := tw.ListMessage((&api.ListMessageParams{}).SetTo(eve).SetLimit(10))
	if err != nil || len(list) != 1 || *list[0].Status != "failed" || *list[0].ErrorCode != 21610 {
		t.Errorf("list %+v %v", list, err)
	}
}
