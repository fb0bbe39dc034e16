package dropin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twilio/twilio-go/client"
	api "github.com/twilio/twilio-go/rest/api/v2010"
	"go.uber.org/goleak"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/dropin"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sms/smstest"
	"github.com/heed-sms/heed/sms/twilio"
	"github.com/heed-sms/heed/sms/twilio/twiliofake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	sid     = "AC0123456789abcdef0123456789abcdef"
	service = "MG0123456789abcdef0123456789abcdef"
	ours    = "+15550100000"
	ada     = "+12065550142"
	eve     = "+12065550143"
)

// rig is heed with a real ledger and gate behind the API.
type rig struct {
	t        *testing.T
	url      string
	ledger   *local.Ledger
	provider *smstest.Memory // nil if another one was given
	inbox    *connector.Inbox
	gate     *connector.Gate
	handler  *dropin.Handler
	accounts connector.Accounts
	now      func() time.Time
	real     atomic.Bool  // the clock is the wall's
	clock    atomic.Int64 // seconds that the gate's clock is ahead of the start
}

var start = time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)

func newRig(t *testing.T, policy consent.Policy, providers ...sms.Provider) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	l, err := local.Open(t.TempDir(), local.Options{Policy: policy, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r := &rig{t: t, ledger: l}
	if providers == nil {
		r.provider = smstest.New()
		providers = []sms.Provider{r.provider}
	}
	var accounts connector.Accounts
	var names []string
	for i, p := range providers {
		names = append(names, fmt.Sprintf("account%d", i+1))
		accounts = append(accounts, connector.Account{Name: names[i], Provider: p})
	}
	now := func() time.Time {
		if r.real.Load() {
			return r.wall()
		}
		return start.Add(time.Duration(r.clock.Load()) * time.Second)
	}
	m := connector.NewMetrics(l, "test")
	r.inbox = &connector.Inbox{Ledger: l, Accounts: accounts, Replies: reply.Default(), Metrics: m, Log: log, Now: now}
	gate := &connector.Gate{Ledger: l, Accounts: accounts, Policy: policy, Region: "US", Metrics: m, Log: log, Now: now}
	t.Cleanup(gate.Start())
	keys := map[string]connector.Key{
		"sendandread": {Name: "crm", May: []connector.Right{connector.MaySend, connector.MayRead}},
		"sendonly":    {Name: "sender", May: []connector.Right{connector.MaySend}},
		"readonly":    {Name: "reader", May: []connector.Right{connector.MayRead}},
		"admin":       {Name: "boss", May: []connector.Right{connector.MaySend, connector.MayRead}},
	}
	r.gate, r.accounts, r.now = gate, accounts, now
	h := &dropin.Handler{Gate: gate, Ledger: l, Accounts: names, Log: log, Now: now, Key: func(secret string) (connector.Key, bool) {
		k, ok := keys[secret]
		return k, ok
	}}
	r.handler = h
	mux := http.NewServeMux()
	h.Register(mux)
	ts := httptest.NewServer(mux)
	t.Cleanup(ts.Close)
	r.url = ts.URL
	return r
}

var plain = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// answer is what a call got.
type answer struct {
	status int
	header http.Header
	json   map[string]any
}

func (a answer) code() int {
	f, _ := a.json["code"].(float64)
	return int(f)
}

func (a answer) str(name string) string {
	s, _ := a.json[name].(string)
	return s
}

func call(t *testing.T, method, target, user, password, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" || password != "" {
		req.SetBasicAuth(user, password)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header}
	if err := json.Unmarshal(b, &a.json); err != nil {
		t.Fatalf("%s %s: %d is no JSON: %v", method, target, resp.StatusCode, err)
	}
	return a
}

const messages = "/2010-04-01/Accounts/" + sid + "/Messages"

func (r *rig) post(form url.Values, header ...string) answer {
	r.t.Helper()
	return call(r.t, http.MethodPost, r.url+messages+".json", sid, "sendandread", form.Encode(), header...)
}

func (r *rig) get(path string) answer {
	r.t.Helper()
	return call(r.t, http.MethodGet, r.url+path, sid, "sendandread", "")
}

func text(to string) url.Values {
	return url.Values{"To": {to}, "From": {ours}, "Body": {"hello"}}
}

// change changes a number's consent.
func (r *rig) change(number string, action consent.Action, source consent.Source) {
	r.t.Helper()
	e := ledger.Event{Kind: ledger.KindConsent, At: time.Now().UTC(), Number: phone.MustParse(number), Consent: &ledger.Consent{
		Change: consent.Change{Action: action, Source: source, At: time.Now().UTC()},
	}}
	if _, err := r.ledger.Append(r.t.Context(), e); err != nil {
		r.t.Fatal(err)
	}
}

// recorded returns how many messages the ledger has.
func (r *rig) recorded() (n int) {
	r.t.Helper()
	for _, err := range r.ledger.Messages(r.t.Context(), "") {
		if err != nil {
			r.t.Fatal(err)
		}
		n++
	}
	return n
}

// reroute is a changed base URL: Twilio's library asks api.twilio.com, and heed answers.
type reroute struct{ to *url.URL }

func (r reroute) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Host != "api.twilio.com" {
		return nil, fmt.Errorf("unexpected host %s", q.URL.Host)
	}
	q = q.Clone(q.Context())
	q.URL.Scheme, q.URL.Host = r.to.Scheme, r.to.Host
	return plain.Transport.RoundTrip(q)
}

func library(t *testing.T, base, user, password string) *api.ApiService {
	t.Helper()
	to, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	c := &client.Client{Credentials: client.NewCredentials(user, password), HTTPClient: &http.Client{Transport: reroute{to}}}
	c.SetAccountSid(sid)
	return api.NewApiService(client.NewRequestHandler(c))
}

func TestTwiliosOwnLibraryWorks(t *testing.T) {
	r := newRig(t, consent.Policy{})
	tw := library(t, r.url, sid, "sendandread")
	send := func(to, body string) (*api.ApiV2010Message, error) {
		return tw.CreateMessage((&api.CreateMessageParams{}).SetTo(to).SetFrom(ours).SetBody(body))
	}
	sent, err := send(ada, "hello")
	if err != nil || *sent.Status != "queued" || *sent.Direction != "outbound-api" || *sent.NumSegments != "1" || *sent.AccountSid != sid {
		t.Fatalf("%+v %v", sent, err)
	}
	if got := r.provider.Sent(); len(got) != 1 || got[0].To != ada || got[0].From != ours || got[0].Body != "hello" {
		t.Fatalf("the provider got %+v", got)
	}
	if d, err := time.Parse(time.RFC1123Z, *sent.DateCreated); err != nil || !d.Equal(start) {
		t.Errorf("date_created %s: %v", *sent.DateCreated, err)
	}
	got, err := tw.FetchMessage(*sent.Sid, nil)
	if err != nil || *got.Body != "hello" || *got.To != ada || *got.From != ours || *got.Uri != *sent.Uri {
		t.Errorf("%+v %v", got, err)
	}

	r.change(eve, consent.OptOut, consent.Recipient)
	var refused *client.TwilioRestError
	if _, err := send(eve, "hello"); !errors.As(err, &refused) || refused.Code != 21610 || refused.Status != 400 || refused.MoreInfo != "https://www.twilio.com/docs/errors/21610" {
		t.Errorf("send after STOP: %v", err)
	}
	if n := r.provider.Attempts(); n != 1 {
		t.Errorf("%d attempts at the provider", n)
	}
	if _, err := tw.FetchMessage("SM"+strings.Repeat("0", 32), nil); !errors.As(err, &refused) || refused.Code != 20404 {
		t.Errorf("unknown message: %v", err)
	}
	if _, err := library(t, r.url, sid, "wrong").FetchMessage(*sent.Sid, nil); !errors.As(err, &refused) || refused.Code != 20003 || refused.Status != 401 {
		t.Errorf("wrong key: %v", err)
	}
	if _, err := library(t, r.url, "SK0123456789abcdef0123456789abcdef", "readonly").FetchMessage(*sent.Sid, nil); err != nil {
		t.Errorf("login as an API key: %v", err)
	}

	for i := range 24 {
		r.clock.Add(60)
		if _, err := send(ada, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := tw.ListMessage((&api.ListMessageParams{}).SetTo(ada).SetPageSize(10).SetLimit(1000))
	if err != nil || len(list) != 25 || *list[0].Body != "23" || *list[24].Body != "hello" {
		t.Errorf("%d messages: %v", len(list), err)
	}
	list, err = tw.ListMessage((&api.ListMessageParams{}).SetDateSentAfter(start.Add(5 * time.Minute)).SetDateSentBefore(start.Add(14 * time.Minute)).SetPageSize(3))
	if err != nil || len(list) != 10 || *list[0].Body != "13" || *list[9].Body != "4" {
		t.Errorf("%d messages of ten minutes: %v", len(list), err)
	}
	if err := tw.DeleteMessage(*sent.Sid, nil); !errors.As(err, &refused) || refused.Status != 405 || refused.Code != 20004 {
		t.Errorf("delete: %v", err)
	}
	if _, err := tw.UpdateMessage(*sent.Sid, (&api.UpdateMessageParams{}).SetStatus("canceled")); !errors.As(err, &refused) || refused.Code != 30409 {
		t.Errorf("cancel: %v", err)
	}
}

// behind returns heed with its Twilio driver in front of an emulator, and that emulator.
func behind(t *testing.T) (*rig, *twiliofake.Server) {
	t.Helper()
	fake := twiliofake.New(twiliofake.Options{Seed: 7, MessagingServiceSID: service})
	t.Cleanup(fake.Close)
	ts := httptest.NewServer(fake.Handler())
	t.Cleanup(ts.Close)
	p, err := twilio.New(twilio.Config{AccountSID: fake.AccountSID(), AuthToken: fake.AuthToken(), From: ours, BaseURL: ts.URL}, plain)
	if err != nil {
		t.Fatal(err)
	}
	return newRig(t, consent.Policy{}, p), fake
}

func TestTheSameCallsGiveTheSameObjectsAsTheEmulator(t *testing.T) {
	r, inner := behind(t)
	fake := twiliofake.New(twiliofake.Options{Seed: 8, AccountSID: sid, MessagingServiceSID: service})
	t.Cleanup(fake.Close)
	ts := httptest.NewServer(fake.Handler())
	t.Cleanup(ts.Close)
	for _, f := range []*twiliofake.Server{fake, inner} {
		if _, err := f.Text(eve, ours, "STOP"); err != nil {
			t.Fatal(err)
		}
	}
	with := func(f url.Values, name string, values ...string) url.Values {
		f = maps.Clone(f)
		if f[name] = values; values == nil {
			delete(f, name)
		}
		return f
	}
	hello := text(ada)
	eleven := slices.Repeat([]string{"https://example.com/a.png"}, 11)
	for _, c := range []struct {
		name string
		form url.Values // POST …/Messages.json
		get  string     // or GET below …/Messages
		set  url.Values // or POST to the first message
	}{
		{name: "a text", form: hello},
		{name: "media", form: with(with(hello, "Body"), "MediaUrl", eleven[:2]...)},
		{name: "a long text outside GSM-7", form: with(hello, "Body", strings.Repeat("ж", 200))},
		{name: "HTML and an emoji", form: with(hello, "Body", "<b>&\u2028🙂")},
		{name: "through a service", form: with(with(hello, "From"), "MessagingServiceSid", service)},
		{name: "an unknown parameter", form: with(hello, "SmartEncoded", "true")},
		{name: "an opted-out recipient", form: with(hello, "To", eve)},
		{name: "no recipient", form: with(hello, "To")},
		{name: "no body", form: with(hello, "Body")},
		{name: "a body that is too long", form: with(hello, "Body", strings.Repeat("x", 1601))},
		{name: "no telephone number", form: with(hello, "To", "+1555")},
		{name: "another channel", form: with(hello, "To", "whatsapp:"+ada)},
		{name: "too many media", form: with(hello, "MediaUrl", eleven...)},
		{name: "a bad media URL", form: with(hello, "MediaUrl", "ftp://example.com/a")},
		{name: "a bad service", form: with(hello, "MessagingServiceSid", "MG1")},
		{name: "a sender that is none", form: with(hello, "From", "whatsapp:"+ours)},
		{name: "a sender of somebody else", form: with(hello, "From", "+15550100099")},
		{name: "a list", get: ".json"},
		{name: "a page", get: ".json?PageSize=2&To=" + url.QueryEscape(ada)},
		{name: "an empty list", get: ".json?DateSent=2001-01-01"},
		{name: "a bad page size", get: ".json?PageSize=0"},
		{name: "a page that is too large", get: ".json?PageSize=1001"},
		{name: "a bad date", get: ".json?DateSent%3E=yesterday"},
		{name: "a page without its token", get: ".json?Page=1"},
		{name: "a bad token", get: ".json?PageToken=x"},
		{name: "an unknown message", get: "/SM" + strings.Repeat("0", 32) + ".json"},
		{name: "no SID", get: "/SM1.json"},
		{name: "the first message", get: "/{first}.json"},
		{name: "cancel", set: url.Values{"Status": {"canceled"}}},
		{name: "change", set: url.Values{"Body": {"other"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ask := func(base, user, password string) answer {
				first := func() string {
					l := call(t, http.MethodGet, base+messages+".json?To="+url.QueryEscape(ada), user, password, "").json["messages"].([]any)
					return l[len(l)-1].(map[string]any)["sid"].(string)
				}
				switch {
				case c.form != nil:
					return call(t, http.MethodPost, base+messages+".json", user, password, c.form.Encode())
				case c.set != nil:
					return call(t, http.MethodPost, base+messages+"/"+first()+".json", user, password, c.set.Encode())
				case strings.Contains(c.get, "{first}"):
					return call(t, http.MethodGet, base+messages+"/"+first()+".json", user, password, "")
				}
				return call(t, http.MethodGet, base+messages+c.get, user, password, "")
			}
			got, want := ask(r.url, sid, "sendandread"), ask(ts.URL, sid, fake.AuthToken())
			if got.status != want.status {
				t.Fatalf("status %d, the emulator's is %d: %v", got.status, want.status, want.json)
			}
			compare(t, "", got.json, want.json, c.form != nil)
		})
	}
}

// compare requires the same keys everywhere, and the same values but where each side has its own: ids, times and, in a
// message that is read back, how far it has come.
func compare(t *testing.T, at string, got, want any, created bool) {
	t.Helper()
	g, isMap := got.(map[string]any)
	w, ok := want.(map[string]any)
	switch {
	case isMap && ok:
		if gk, wk := slices.Sorted(maps.Keys(g)), slices.Sorted(maps.Keys(w)); !slices.Equal(gk, wk) {
			t.Errorf("%s has the keys %v, the emulator's has %v", at, gk, wk)
		}
		for k := range w {
			compare(t, at+"/"+k, g[k], w[k], created)
		}
		return
	case isMap != ok:
		t.Errorf("%s is %T, the emulator's is %T", at, got, want)
		return
	}
	if gl, ok := got.([]any); ok {
		wl, _ := want.([]any)
		for i := range min(len(gl), len(wl)) { // the emulator also lists its answer to STOP
			compare(t, at+"[]", gl[i], wl[i], created)
		}
		return
	}
	key := at[strings.LastIndex(at, "/")+1:]
	own := []string{"sid", "uri", "media", "date_created", "date_updated", "first_page_uri", "next_page_uri", "message"}
	if !created {
		own = append(own, "status", "date_sent", "from", "num_segments", "end")
	}
	if slices.Contains(own, key) {
		if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) && created {
			t.Errorf("%s is %T, the emulator's is %T", at, got, want)
		}
		return
	}
	if got != want {
		t.Errorf("%s is %v, the emulator's is %v", at, got, want)
	}
}

func TestARefusedSendIsTheErrorThatATwilioClientKnows(t *testing.T) {
	twilios := func(class sms.Class, status int, code string) error {
		return &sms.Error{Class: class, Status: status, Code: code, Text: "the provider's words"}
	}
	for _, c := range []struct {
		name   string
		set    func(r *rig)
		to     string
		policy consent.Policy
		status int
		code   int
	}{
		{name: "the recipient opted out", set: func(r *rig) { r.change(ada, consent.OptOut, consent.Recipient) }, status: 400, code: 21610},
		{name: "the CRM's box is ticked", set: func(r *rig) { r.change(ada, consent.OptOut, consent.CRM) }, status: 400, code: 21610},
		{name: "a reply waits for review", set: func(r *rig) { r.change(ada, consent.Hold, consent.Recipient) }, status: 400, code: 21610},
		{name: "consent is required", policy: consent.Policy{RequireOptIn: true}, status: 400, code: 21610},
		{name: "the provider knows of an opt-out", set: func(r *rig) { r.provider.OptOut(ada) }, status: 400, code: 21610},
		{name: "no number", to: "+1 206", status: 400, code: 21211},
		{name: "rejected with a code", set: func(r *rig) { r.provider.FailNext(twilios(sms.Rejected, 400, "21614")) }, status: 400, code: 21614},
		{name: "rejected without a number for it", set: func(r *rig) { r.provider.FailNext(twilios(sms.Rejected, 422, "E_BAD")) }, status: 400, code: 30008},
		{name: "the provider is busy", set: func(r *rig) { r.provider.FailNext(twilios(sms.Throttled, 429, "20429")) }, status: 429, code: 20429},
		{name: "the provider refuses heed's credentials", set: func(r *rig) { r.provider.FailNext(twilios(sms.Auth, 401, "20003")) }, status: 503, code: 20503},
		{name: "the ledger is unavailable", set: func(r *rig) { _ = r.ledger.Close() }, status: 503, code: 20503},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.policy)
			if c.set != nil {
				c.set(r)
			}
			to := ada
			if c.to != "" {
				to = c.to
			}
			a := r.post(text(to))
			if a.status != c.status || a.code() != c.code || a.json["status"] != float64(c.status) ||
				a.str("more_info") != fmt.Sprintf("https://www.twilio.com/docs/errors/%d", c.code) || len(a.json) != 4 {
				t.Errorf("%d %v", a.status, a.json)
			}
			if strings.Contains(a.str("message"), to[2:]) {
				t.Errorf("the error repeats the number")
			}
			if again := a.header.Get("Retry-After") != ""; again != (c.status == 429 || c.status == 503) {
				t.Errorf("Retry-After: %v", again)
			}
			if n := len(r.provider.Sent()); n != 0 {
				t.Errorf("%d messages were sent", n)
			}
			if r.ledger.Health() == nil {
				if l := r.get(messages + ".json").json["messages"].([]any); len(l) != 0 {
					t.Errorf("a list shows it: %v", l)
				}
			} else if a := r.get(messages + ".json"); a.status != 503 || a.code() != 20503 {
				t.Errorf("a list is answered %d %v", a.status, a.json)
			}
		})
	}
}

func TestAnOutcomeThatIsNotKnownIsQueuedAndNotAnError(t *testing.T) {
	r := newRig(t, consent.Policy{})
	r.provider.LoseNextAnswers(1)
	a := r.post(text(ada))
	if a.status != 201 || a.str("status") != "queued" || a.json["error_code"] != nil {
		t.Errorf("%d %v", a.status, a.json)
	}
}

func TestShadowModeSendsWhatItWouldRefuse(t *testing.T) {
	r := newRig(t, consent.Policy{Shadow: true})
	r.change(ada, consent.OptOut, consent.Recipient)
	if a := r.post(text(ada)); a.status != 201 || len(r.provider.Sent()) != 1 {
		t.Errorf("%d %v", a.status, a.json)
	}
}

func TestAMessageShowsHowFarItCame(t *testing.T) {
	for _, c := range []struct {
		state  sms.Delivery
		code   string
		status string
		sent   bool
		error  any
	}{
		{state: sms.DeliveryQueued, status: "queued"},
		{state: sms.DeliverySent, status: "sent", sent: true},
		{state: sms.DeliveryDelivered, status: "delivered", sent: true},
		{state: sms.DeliveryFailed, code: "30003", status: "failed", error: 30003.0},
		{state: sms.DeliveryFailed, code: "handset-off", status: "failed", error: 30008.0},
		{state: sms.DeliveryFailed, code: "21610", status: "failed", error: 21610.0},
	} {
		t.Run(string(c.state)+" "+c.code, func(t *testing.T) {
			r := newRig(t, consent.Policy{})
			sent := r.post(text(ada))
			hook := r.provider.Report(r.provider.Sent()[0].ProviderID, c.state, c.code, c.code == "21610")
			if _, err := r.inbox.Receive(t.Context(), "account1", hook, ""); err != nil {
				t.Fatal(err)
			}
			a := r.get(sent.str("uri"))
			if a.status != 200 || a.str("status") != c.status || (a.json["date_sent"] != nil) != c.sent || a.json["error_code"] != c.error || (a.json["error_message"] != nil) != (c.error != nil) {
				t.Errorf("%d %v", a.status, a.json)
			}
			if l := r.get(messages + ".json").json["messages"].([]any); len(l) != 1 || l[0].(map[string]any)["status"] != c.status {
				t.Errorf("list %v", l)
			}
		})
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	r := newRig(t, consent.Policy{})
	one := r.post(text(ada)).str("uri")
	send, list := messages+".json", messages+".json"
	for _, c := range []struct {
		name, user, password, method, path string
		status, code                       int
	}{
		{"a key with the right sends", sid, "sendonly", "POST", send, 201, 0},
		{"a key with the right reads", sid, "readonly", "GET", one, 200, 0},
		{"a key with both rights does everything", sid, "admin", "POST", send, 201, 0},
		{"a reader does not send", sid, "readonly", "POST", send, 403, 20003},
		{"a reader does not cancel", sid, "readonly", "POST", one, 403, 20003},
		{"a sender does not read", sid, "sendonly", "GET", one, 403, 20003},
		{"a sender does not list", sid, "sendonly", "GET", list, 403, 20003},
		{"a reader does not delete", sid, "readonly", "DELETE", one, 403, 20003},
		{"nobody deletes", sid, "admin", "DELETE", one, 405, 20004},
		{"nobody puts", sid, "admin", "PUT", send, 405, 20004},
		{"the key as the user name", "readonly", "", "GET", list, 200, 0},
		{"an API key SID as the user name", "SK0123456789abcdef0123456789abcdef", "readonly", "GET", list, 200, 0},
		{"nobody", "", "", "GET", list, 401, 20003},
		{"a wrong key", sid, "wrong", "GET", list, 401, 20003},
		{"no key", sid, "", "GET", list, 401, 20003},
		{"another account's path", "AC" + strings.Repeat("1", 32), "admin", "GET", list, 401, 20003},
		{"no SID for a user name", "me", "admin", "GET", list, 401, 20003},
		{"a stranger at an unknown path", sid, "wrong", "GET", "/2010-04-01/Nothing.json", 401, 20003},
		{"an unknown path", sid, "admin", "GET", "/2010-04-01/Nothing.json", 404, 20404},
		{"an account itself", sid, "admin", "GET", "/2010-04-01/Accounts/" + sid + ".json", 404, 20404},
		{"another resource", sid, "admin", "GET", "/2010-04-01/Accounts/" + sid + "/Calls.json", 404, 20404},
		{"XML", sid, "admin", "GET", messages, 404, 20404},
		{"media", sid, "admin", "GET", strings.TrimSuffix(one, ".json") + "/Media.json", 404, 20404},
		{"no SID in the path", "me", "admin", "GET", "/2010-04-01/Accounts/me/Messages.json", 404, 20404},
		{"the root", "", "readonly", "GET", "/2010-04-01/", 404, 20404},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := call(t, c.method, r.url+c.path, c.user, c.password, text(ada).Encode())
			if a.status != c.status || a.code() != c.code {
				t.Errorf("%d %v", a.status, a.json)
			}
			if (a.header.Get("WWW-Authenticate") != "") != (c.status == 401) || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("header %v", a.header)
			}
		})
	}
}

func TestWhatHeedCannotDoIsRefusedAndNothingIsSent(t *testing.T) {
	r := newRig(t, consent.Policy{})
	for _, c := range []struct {
		name, extra string
		header      []string
		code        int
	}{
		{"a schedule too far ahead", "&SendAt=2030-01-01T00:00:00Z&ScheduleType=fixed", nil, 35111},
		{"a schedule in four minutes", "&SendAt=2026-03-14T09:04:59Z&ScheduleType=fixed", nil, 35111},
		{"a schedule in the past", "&SendAt=2020-01-01T00:00:00Z&ScheduleType=fixed", nil, 35111},
		{"a schedule without a time", "&ScheduleType=fixed", nil, 35114},
		{"a time without a schedule", "&SendAt=2026-03-14T10:00:00Z", nil, 35114},
		{"a time that is none", "&SendAt=tomorrow&ScheduleType=fixed", nil, 35114},
		{"a hidden schedule", "&SendAt=&SendAt=2026-03-14T10:00:00Z", nil, 20001},
		{"a callback that is no address", "&StatusCallback=status", nil, 21609},
		{"a callback on this machine", "&StatusCallback=https://localhost:9/", nil, 21609},
		{"a callback in this network", "&StatusCallback=https://10.0.0.7/", nil, 21609},
		{"a callback to the cloud's own data", "&StatusCallback=https://169.254.169.254/latest/", nil, 21609},
		{"a callback in this network, IPv6", "&StatusCallback=https://[::ffff:192.168.0.1]/", nil, 21609},
		{"a callback that everybody on the way can read", "&StatusCallback=http://example.com/", nil, 21609},
		{"two callbacks", "&StatusCallback=https://a.example/&StatusCallback=https://b.example/", nil, 20001},
		{"an application", "&ApplicationSid=AP1", nil, 21609},
		{"a template", "&ContentSid=HX1", nil, 21655},
		{"two recipients", "&To=%2B12065550143", nil, 20001},
		{"two bodies", "&Body=x", nil, 20001},
		{"a broken escape", "&X=%zz", nil, 20001},
		{"a text that is not UTF-8", "&MessagingServiceSid=&Body=%ff", nil, 20001},
		{"too large a form", "&X=" + strings.Repeat("x", 64<<10), nil, 20001},
		{"JSON", "", []string{"Content-Type", "application/json"}, 20001},
		{"a file upload", "", []string{"Content-Type", "multipart/form-data; boundary=x"}, 20001},
		{"another character set", "", []string{"Content-Type", "application/x-www-form-urlencoded; charset=latin1"}, 20001},
		{"too long a key", "", []string{"Idempotency-Key", strings.Repeat("x", 256)}, 20001},
	} {
		t.Run(c.name, func(t *testing.T) {
			form := text(ada).Encode()
			if strings.Contains(c.extra, "%ff") {
				form = "To=%2B12065550142"
			}
			a := call(t, "POST", r.url+messages+".json", sid, "sendandread", form+c.extra, c.header...)
			if a.status < 400 || a.status >= 500 || a.code() != c.code {
				t.Errorf("%d %v", a.status, a.json)
			}
		})
	}
	if n := r.recorded() + r.provider.Attempts(); n != 0 {
		t.Errorf("%d messages were recorded or sent", n)
	}
	// Parameters that are present and empty ask for nothing.
	if a := call(t, "POST", r.url+messages+".json", sid, "sendandread", text(ada).Encode()+"&StatusCallback=&SendAt=", "Content-Type", "application/x-www-form-urlencoded;charset=UTF-8"); a.status != 201 {
		t.Errorf("empty parameters: %d %v", a.status, a.json)
	}
}

func TestARepeatedRequestSendsOnce(t *testing.T) {
	for _, header := range []string{"Idempotency-Key", "I-Twilio-Idempotency-Token"} {
		t.Run(header, func(t *testing.T) {
			r := newRig(t, consent.Policy{})
			first, second := r.post(text(ada), header, "k1"), r.post(text(ada), header, "k1")
			if second.status != 201 || first.str("sid") != second.str("sid") || second.header.Get("Idempotent-Replayed") != "true" || first.header.Get("Idempotent-Replayed") != "" {
				t.Errorf("%d %v", second.status, second.json)
			}
			if a := r.post(text(eve), header, "k1"); a.status != 409 || a.code() != 20409 {
				t.Errorf("another message: %d %v", a.status, a.json)
			}
			if n := len(r.provider.Sent()); n != 1 {
				t.Errorf("%d messages were sent", n)
			}
			// A refusal is repeated too, even if the recipient has come back since.
			r.change(eve, consent.OptOut, consent.Recipient)
			r.post(text(eve), header, "k2")
			r.change(eve, consent.OptIn, consent.Recipient)
			if a := r.post(text(eve), header, "k2"); a.code() != 21610 {
				t.Errorf("a repeated refusal: %d %v", a.status, a.json)
			}
		})
	}
}

func TestPagesStayPutWhileMessagesAreSent(t *testing.T) {
	r := newRig(t, consent.Policy{})
	send := func(body string) {
		f := text(ada)
		f.Set("Body", body)
		if a := r.post(f); a.status != 201 {
			t.Fatalf("%d %v", a.status, a.json)
		}
	}
	for i := range 7 {
		send(fmt.Sprint(i))
	}
	bodies := func(a answer) (s string) {
		for _, m := range a.json["messages"].([]any) {
			s += m.(map[string]any)["body"].(string)
		}
		return s
	}
	p := r.get(messages + ".json?PageSize=3")
	pages := []string{bodies(p)}
	for p.str("next_page_uri") != "" {
		send("x")
		p = r.get(p.str("next_page_uri"))
		pages = append(pages, bodies(p))
	}
	if want := []string{"654", "321", "0"}; !slices.Equal(pages, want) {
		t.Errorf("forwards %q", pages)
	}
	if p.json["page"] != 2.0 || p.json["start"] != 6.0 || p.json["end"] != 6.0 || p.json["page_size"] != 3.0 {
		t.Errorf("last page %v", p.json)
	}
	pages = nil
	for p.str("previous_page_uri") != "" {
		p = r.get(p.str("previous_page_uri"))
		pages = append(pages, bodies(p))
	}
	if want := []string{"321", "654"}; !slices.Equal(pages, want) {
		t.Errorf("backwards %q", pages)
	}
	if got := bodies(r.get(p.str("first_page_uri"))); got != "xx6" {
		t.Errorf("the first page is now %q", got)
	}
}

func TestAListIsFiltered(t *testing.T) {
	r := newRig(t, consent.Policy{})
	for i, to := range []string{ada, eve, ada, eve} {
		r.clock.Store(int64(i) * 24 * 3600)
		f := text(to)
		if i == 3 {
			f.Set("From", "+15550100001")
		}
		f.Set("Body", fmt.Sprint(i))
		if a := r.post(f); a.status != 201 {
			t.Fatal(a.json)
		}
	}
	for query, want := range map[string]string{
		"":                                           "3210",
		"To=%2B12065550142":                          "20",
		"To=%2B12065550199":                          "",
		"From=%2B15550100001":                        "3",
		"DateSent=2026-03-15":                        "1",
		"DateSent%3E=2026-03-15":                     "321",
		"DateSent%3C=2026-03-15":                     "10",
		"DateSent%3E%3D=2026-03-15T09:00:00Z":        "321",
		"DateSent%3E=2026-03-15T09:00:01Z":           "32",
		"DateSent%3C%3D=2026-03-15T09:00:00%2B00:00": "10",
		"DateSent%3E=2026-03-15&DateSent%3C=2026-03-16&To=%2B12065550142": "2",
	} {
		got := ""
		for _, m := range r.get(messages + ".json?" + query).json["messages"].([]any) {
			got += m.(map[string]any)["body"].(string)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func TestAnAccountIsNamedByItsSID(t *testing.T) {
	one, two := smstest.New(), smstest.New()
	r := newRig(t, consent.Policy{}, one, two)
	second := dropin.AccountSID("account2")
	if second == dropin.AccountSID("account1") || len(second) != 34 {
		t.Fatal(second)
	}
	path := "/2010-04-01/Accounts/" + second + "/Messages.json"
	a := call(t, "POST", r.url+path, second, "admin", text(ada).Encode())
	if a.status != 201 || a.str("account_sid") != second || len(one.Sent()) != 0 || len(two.Sent()) != 1 {
		t.Fatalf("%d %v", a.status, a.json)
	}
	if got := call(t, "GET", r.url+a.str("uri"), second, "admin", ""); got.status != 200 {
		t.Errorf("%d %v", got.status, got.json)
	}
	// Every other SID is the first account, which has no such message.
	if got := r.get(strings.Replace(a.str("uri"), second, sid, 1)); got.status != 404 {
		t.Errorf("%d %v", got.status, got.json)
	}
	if l := r.get(messages + ".json").json["messages"].([]any); len(l) != 0 {
		t.Errorf("list %v", l)
	}
	if r.post(text(ada)); len(one.Sent()) != 1 {
		t.Error("the first account did not send")
	}
}

func TestASIDIsHeedsOwnID(t *testing.T) {
	r := newRig(t, consent.Policy{})
	a := r.post(url.Values{"To": {ada}, "MediaUrl": {"https://example.com/a.png"}})
	digits, ok := strings.CutPrefix(a.str("sid"), "MM")
	m, err := r.ledger.Message(t.Context(), "msg_"+digits)
	if !ok || err != nil || m.To.String() != ada || m.Caller != "crm" || a.json["from"] != nil {
		t.Errorf("%v: %+v %v", a.json, m, err)
	}
	if a := r.get(messages + "/SM" + digits + ".json"); a.status != 404 {
		t.Errorf("by the SID of a text: %d", a.status)
	}
}

func TestAnotherChannelsNumberIsNotTexted(t *testing.T) {
	r := newRig(t, consent.Policy{})
	for _, to := range []string{"whatsapp:" + ada, "messenger:" + ada, "rcs:" + ada, strings.Repeat(" ", 65) + ada} {
		if a := r.post(text(to)); a.code() != 21211 {
			t.Errorf("%s: %d %v", to, a.status, a.json)
		}
	}
	if n := r.recorded(); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestAClientThatAsksTooFastIsToldHowLongToWait(t *testing.T) {
	key := connector.Key{Name: "fast", May: []connector.Right{connector.MayRead, connector.MaySend}}
	h := &dropin.Handler{Accounts: []string{"main"}, Limits: connector.NewLimits(1, 0, []string{key.Name}, nil), Log: slog.New(slog.DiscardHandler),
		Key: func(string) (connector.Key, bool) { return key, true }}
	sid := dropin.AccountSID("main")
	for range 5 {
		r := httptest.NewRequest("DELETE", "/2010-04-01/Accounts/"+sid+"/Messages/SM0.json", nil) // refused before anything is looked up
		r.SetBasicAuth(sid, "k")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == http.StatusTooManyRequests {
			if !strings.Contains(w.Body.String(), "20429") || w.Header().Get("Retry-After") == "" {
				t.Errorf("%v %s", w.Header(), w.Body)
			}
			return
		}
	}
	t.Error("five requests at once passed a limit of one a second")
}
