package twilio

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/jarcoal/httpmock"
	"go.uber.org/goleak"

	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/smstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The documents below follow https://www.twilio.com/docs/messaging/api/message-resource and
// https://www.twilio.com/docs/usage/twilios-response.
const (
	accepted = `{"sid":"SMa0000000000000000000000000000009","status":"accepted","from":null,"to":"+15125550142","body":"hello","error_code":null,` +
		`"error_message":null,"direction":"outbound-api","num_media":"0","date_created":"Mon, 02 Mar 2026 11:30:00 +0000","date_sent":null}`
	optedOut     = `{"code":21610,"message":"Attempt to send to unsubscribed recipient +15125550142","more_info":"https://www.twilio.com/docs/errors/21610","status":400}`
	tooMany      = `{"code":20429,"message":"Too Many Requests","more_info":"https://www.twilio.com/docs/errors/20429","status":429}`
	unauthorized = `{"code":20003,"message":"Authenticate","more_info":"https://www.twilio.com/docs/errors/20003","status":401}`
	badNumber    = `{"code":21211,"message":"The 'To' number +15125550142 is not a valid phone number.","more_info":"https://www.twilio.com/docs/errors/21211","status":400}`
	notFound     = `{"code":20404,"message":"The requested resource was not found","more_info":"https://www.twilio.com/docs/errors/20404","status":404}`
)

func open(t testing.TB, base string, client *http.Client, change ...func(*Config)) *Provider {
	t.Helper()
	c := Config{AccountSID: account, AuthToken: token, From: "+15125550100", BaseURL: base, WebhookURL: hookURL}
	for _, f := range change {
		f(&c)
	}
	p, err := newProvider(c, client)
	if err != nil {
		t.Fatal(err)
	}
	p.repeats.RetryWaitMin, p.repeats.RetryWaitMax = time.Microsecond, time.Microsecond
	p.maxPages = 50
	return p
}

func TestConformance(t *testing.T) {
	answers := smstest.Answers{
		Accepted:     smstest.Answer{Status: 201, Body: accepted},
		OptedOut:     smstest.Answer{Status: 400, Body: optedOut},
		Throttled:    smstest.Answer{Status: 429, Body: tooMany},
		Unauthorized: smstest.Answer{Status: 401, Body: unauthorized},
		Rejected:     smstest.Answer{Status: 400, Body: badNumber},
		WithoutID:    smstest.Answer{Status: 201, Body: strings.Replace(accepted, `"sid"`, `"id"`, 1)},
		LogPage: func(r *http.Request) smstest.Answer {
			return smstest.Answer{Body: fmt.Sprintf(`{"messages":[],"next_page_uri":%q}`, r.URL.RequestURI())}
		},
		Consents: answerConsents,
		NoList:   smstest.Answer{Status: 403, Body: noConsentAPI},
	}
	smstest.Run(t, smstest.Harness{
		Open: func(t *testing.T, s smstest.Scenario) smstest.Service {
			w := smstest.Serve(t, s, answers)
			return w.Service(withList{open(t, w.URL, w.Client)})
		},
		Inbound: func(in sms.Inbound) sms.Webhook {
			return signed(reply("MessageSid", in.ProviderID, "From", in.From, "To", in.To, "Body", in.Body,
				"NumMedia", fmt.Sprint(in.Media), "OptOutType", strings.ToUpper(string(in.Flag))))
		},
		Status: func(st sms.Status) sms.Webhook {
			status := map[sms.Delivery]string{sms.DeliveryQueued: "queued", sms.DeliverySent: "sent", sms.DeliveryDelivered: "delivered", sms.DeliveryFailed: "undelivered"}[st.State]
			code := "-"
			if st.OptedOut {
				code = "21610"
			}
			return signed(reply("Body", "-", "MessageSid", st.ProviderID, "To", st.To, "MessageStatus", status, "SmsStatus", status, "ErrorCode", code))
		},
		Secrets: []string{token},
	})
}

func TestSendPostsTheForm(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config func(*Config)
		m      sms.Message
		want   url.Values
		user   string
	}{
		{"with the configured number", func(*Config) {}, sms.Message{To: "+15125550142", Body: "a+b&c=é"},
			url.Values{"To": {"+15125550142"}, "From": {"+15125550100"}, "Body": {"a+b&c=é"}}, account},
		{"with its own number", func(c *Config) { c.MessagingServiceSID = "MGb0000000000000000000000000000001" },
			sms.Message{To: "+15125550142", From: "55555", Body: "hi"},
			url.Values{"To": {"+15125550142"}, "From": {"55555"}, "Body": {"hi"}}, account},
		{"with the configured service", func(c *Config) { c.MessagingServiceSID = "MGb0000000000000000000000000000001" },
			sms.Message{To: "+15125550142", Body: "hi", StatusURL: "https://sms.example.com/s"},
			url.Values{"To": {"+15125550142"}, "MessagingServiceSid": {"MGb0000000000000000000000000000001"}, "Body": {"hi"}, "StatusCallback": {"https://sms.example.com/s"}}, account},
		{"with its own service and pictures", func(c *Config) {
			c.APIKeySID, c.APIKeySecret = "SKd0000000000000000000000000000001", "the-secret-of-the-key"
		},
			sms.Message{To: "+15125550142", From: "MGb0000000000000000000000000000002", MediaURLs: []string{"https://x/1", "https://x/2"}},
			url.Values{"To": {"+15125550142"}, "MessagingServiceSid": {"MGb0000000000000000000000000000002"}, "MediaUrl": {"https://x/1", "https://x/2"}}, "SKd0000000000000000000000000000001"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mock := httpmock.NewMockTransport()
			mock.RegisterResponder("POST", "https://api.twilio.com/2010-04-01/Accounts/"+account+"/Messages.json",
				func(r *http.Request) (*http.Response, error) {
					if err := r.ParseForm(); err != nil {
						return nil, err
					}
					if diff := cmp.Diff(tt.want, r.PostForm); diff != "" {
						t.Error(diff)
					}
					if user, password, _ := r.BasicAuth(); user != tt.user || password == "" {
						t.Errorf("called as %q", user)
					}
					if r.GetBody != nil {
						t.Error("the transport could send the body again")
					}
					for name := range r.Header {
						if strings.Contains(name, "Idempotency-Key") {
							t.Errorf("%s makes package http repeat the request", name)
						}
					}
					return httpmock.NewStringResponse(201, accepted), nil
				})
			p := open(t, "", &http.Client{Transport: mock}, tt.config)
			got, err := p.Send(t.Context(), tt.m)
			if want := (sms.Receipt{ProviderID: "SMa0000000000000000000000000000009", State: sms.DeliveryQueued}); err != nil || got != want {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
			if n := mock.GetTotalCallCount(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestSendClassesAnswers(t *testing.T) {
	doc := func(code int, text string) string {
		return fmt.Sprintf(`{"code":%d,"message":%q,"status":400}`, code, text)
	}
	for _, tt := range []struct {
		name   string
		status int
		header string // Retry-After
		body   string
		want   sms.Error
	}{
		{"opted out", 400, "", optedOut, sms.Error{Class: sms.OptedOut, Code: "21610", Text: "Attempt to send to unsubscribed recipient [hidden]"}},
		{"the code counts, not the status", 403, "", optedOut, sms.Error{Class: sms.OptedOut, Code: "21610", Text: "Attempt to send to unsubscribed recipient [hidden]"}},
		{"but not in a server error", 500, "", optedOut, sms.Error{Class: sms.Unknown, Code: "21610", Text: "Attempt to send to unsubscribed recipient [hidden]"}},
		{"throttled for seconds", 429, "7", tooMany, sms.Error{Class: sms.Throttled, Code: "20429", Text: "Too Many Requests", RetryAfter: 7 * time.Second}},
		{"throttled until a date", 429, "Mon, 02 Mar 2026 12:00:30 GMT", tooMany, sms.Error{Class: sms.Throttled, Code: "20429", Text: "Too Many Requests", RetryAfter: 30 * time.Second}},
		{"throttled until a date that has passed", 429, "Mon, 02 Mar 2026 11:00:00 GMT", tooMany, sms.Error{Class: sms.Throttled, Code: "20429", Text: "Too Many Requests"}},
		{"throttled without a document", 429, "-5", "", sms.Error{Class: sms.Throttled}},
		{"the sender's queue is full", 400, "", doc(21611, "full"), sms.Error{Class: sms.Throttled, Code: "21611", Text: "full"}},
		{"bad credentials", 401, "", unauthorized, sms.Error{Class: sms.Auth, Code: "20003", Text: "Authenticate"}},
		{"bad credentials without a document", 401, "", "", sms.Error{Class: sms.Auth}},
		{"a suspended account", 403, "", doc(20005, "inactive"), sms.Error{Class: sms.Auth, Code: "20005", Text: "inactive"}},
		{"a bad number, quoted in another spelling", 400, "", doc(21211, "'+1 (512) 555-0142' or 1-512-555-0142 or ٥١٢٥٥٥٠١٤٢\nis bad"),
			sms.Error{Class: sms.Rejected, Code: "21211", Text: "'[number]' or [number] or [number] is bad"}},
		{"a text that is quoted", 400, "", doc(21617, "The text 'my private words' is too long"), sms.Error{Class: sms.Rejected, Code: "21617", Text: "The text '[hidden]' is too long"}},
		{"an endless text", 400, "", doc(21617, strings.Repeat("é", 1000)), sms.Error{Class: sms.Rejected, Code: "21617", Text: strings.Repeat("é", 200) + "…"}},
		{"a 404 of Twilio", 404, "", notFound, sms.Error{Class: sms.Rejected, Code: "20404", Text: "The requested resource was not found"}},
		{"a 404 of somebody else", 404, "", "<html>", sms.Error{Class: sms.Unknown, Text: "the error page is not Twilio's; something between heed and Twilio answered"}},
		{"JSON of somebody else", 400, "", `{"error":"+15125550142"}`, sms.Error{Class: sms.Unknown, Text: "the error page is not Twilio's; something between heed and Twilio answered"}},
		{"a code that is no code", 400, "", `{"code":"+15125550142"}`, sms.Error{Class: sms.Unknown, Text: "the error page is not Twilio's; something between heed and Twilio answered"}},
		{"202", 202, "", accepted, sms.Error{Class: sms.Unknown, Text: "no clear answer"}},
		{"204", 204, "", "", sms.Error{Class: sms.Unknown, Text: "no clear answer"}},
		{"taken and refused at once", 201, "", `{"sid":"SM1","status":"failed","error_code":21610}`, sms.Error{Class: sms.OptedOut, Code: "21610", Text: "taken and failed at once"}},
		{"taken and failed at once", 201, "", `{"sid":"SM1","status":"failed","error_code":"30006"}`, sms.Error{Class: sms.Rejected, Code: "30006", Text: "taken and failed at once"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mock := httpmock.NewMockTransport()
			resp := httpmock.NewStringResponse(tt.status, tt.body)
			if tt.header != "" {
				resp.Header.Set("Retry-After", tt.header)
			}
			mock.RegisterNoResponder(httpmock.ResponderFromResponse(resp))
			p := open(t, "", &http.Client{Transport: mock})
			p.now = func() time.Time { return time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC) }
			_, err := p.Send(t.Context(), sms.Message{To: "+15125550142", Body: "my private words"})
			var got *sms.Error
			if !errors.As(err, &got) {
				t.Fatalf("got %v", err)
			}
			tt.want.Status = tt.status
			if diff := cmp.Diff(tt.want, *got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestOnlyALackOfConnectionProvesThatNothingWasSent holds the line between Throttled (may be repeated) and Unknown.
func TestOnlyALackOfConnectionProvesThatNothingWasSent(t *testing.T) {
	message := sms.Message{To: "+15125550142", Body: "my private words"}
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("reached") }))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it would report the refused handshake
	secure.StartTLS()
	defer secure.Close()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()

	dialError := func(err error) *http.Client {
		return &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, err }}}
	}
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		base   string
		client *http.Client
		want   sms.Class
	}{
		{"connection refused", t.Context(), "http://127.0.0.1:1", dialError(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}), sms.Throttled},
		{"no such host", t.Context(), "", dialError(&net.DNSError{Err: "no such host", Name: "api.twilio.com", IsNotFound: true}), sms.Throttled},
		{"a certificate that nobody vouches for", t.Context(), secure.URL, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{}}}, sms.Throttled},
		{"a caller who has already given up", cancelled, "", dialError(errors.New("must not be called")), sms.Throttled},
		{"a transport that gives no account of connections", t.Context(), "", &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("to +15125550142: my private words")
		})}, sms.Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer tt.client.CloseIdleConnections()
			_, err := open(t, tt.base, tt.client).Send(tt.ctx, message)
			if got := sms.ClassOf(err); err == nil || got != tt.want {
				t.Errorf("class %s, want %s: %v", got, tt.want, err)
			}
			for _, private := range []string{"+15125550142", "my private words", "Messages.json"} {
				if err != nil && strings.Contains(err.Error(), private) {
					t.Errorf("the error shows %q: %v", private, err)
				}
			}
		})
	}
}

// TestAReusedConnectionDoesNotRepeatASend closes a kept connection under the second send. Package http repeats
// requests that it deems safe in just this case.
func TestAReusedConnectionDoesNotRepeatASend(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var posts atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(c)
			for range 2 {
				req, err := http.ReadRequest(r)
				if err != nil {
					break
				}
				io.Copy(io.Discard, req.Body)
				if posts.Add(1) == 1 {
					fmt.Fprintf(c, "HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s", len(accepted), accepted)
				}
			}
			c.Close() // after the second request, unanswered
		}
	}()
	defer func() { l.Close(); <-done }()

	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	p := open(t, "http://"+l.Addr().String(), client)
	if _, err := p.Send(t.Context(), sms.Message{To: "+15125550142", Body: "one"}); err != nil {
		t.Fatal(err)
	}
	_, err = p.Send(t.Context(), sms.Message{To: "+15125550142", Body: "two"})
	if sms.ClassOf(err) != sms.Unknown || err == nil {
		t.Errorf("got %v, want Unknown", err)
	}
	if n := posts.Load(); n != 2 {
		t.Errorf("%d requests for two messages", n)
	}
}

// logServer is a message log in pages, as Twilio serves it.
type logServer struct {
	pages    [][]message
	queries  []url.Values // of the first pages
	failures int          // answers of 503 before each page
	failed   int
}

func (s *logServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.failed < s.failures {
		s.failed++
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(503)
		return
	}
	s.failed = 0
	n := 0
	if q := r.URL.Query(); q.Has("PageToken") {
		fmt.Sscan(q.Get("Page"), &n)
	} else {
		s.queries = append(s.queries, q)
	}
	next := "null"
	if n+1 < len(s.pages) {
		next = fmt.Sprintf(`"%s?Page=%d&PageToken=PASM%d"`, r.URL.Path, n+1, n)
	}
	items, _ := json.Marshal(s.pages[n])
	fmt.Fprintf(w, `{"messages":%s,"next_page_uri":%s,"page_size":1000}`, items, next)
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func entry(n int, direction string, created time.Time) message {
	return message{SID: fmt.Sprintf("SM%032x", n), Direction: direction, From: "+15125550142", To: "+15125550100", Body: "Stop",
		Status: "received", NumMedia: "0", DateCreated: created.Format(time.RFC1123Z), DateSent: created.Add(time.Second).Format(time.RFC1123Z)}
}

func sids(t *testing.T, p *Provider, since, until time.Time) []string {
	t.Helper()
	var got []string
	for in, err := range p.Inbound(t.Context(), since, until) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, in.ProviderID[len(in.ProviderID)-2:])
	}
	return got
}

func TestInboundReadsAllPagesOfTheSpan(t *testing.T) {
	undated := entry(9, "inbound", noon)
	undated.DateCreated, undated.DateSent = "", "soon"
	log := &logServer{failures: 2, pages: [][]message{
		{entry(1, "inbound", noon.Add(-time.Hour)), entry(2, "outbound-api", noon.Add(-time.Minute)), entry(3, "inbound", noon.Add(-time.Second))},
		{},
		{entry(4, "inbound", noon), entry(5, "inbound", noon.Add(-time.Hour-time.Second)), undated},
	}}
	srv := httptest.NewServer(log)
	defer srv.Close()
	p := open(t, srv.URL, srv.Client())

	// A fraction of a second in since must not hide a message of that second.
	got := sids(t, p, noon.Add(-time.Hour+time.Millisecond), noon)
	if diff := cmp.Diff([]string{"01", "03", "09"}, got); diff != "" {
		t.Error(diff)
	}
	want := url.Values{"PageSize": {"1000"}, "DateSent>": {"2026-03-02"}, "DateSent<": {"2026-03-03"}}
	if diff := cmp.Diff([]url.Values{want}, log.queries); diff != "" {
		t.Error(diff)
	}
	for range p.Inbound(t.Context(), noon, noon) {
		t.Error("an empty span has an entry")
	}
	for range p.Inbound(t.Context(), noon.Add(-time.Hour), noon) {
		break // stopping early must not panic
	}
}

func TestInboundAsksInUTCDays(t *testing.T) {
	log := &logServer{pages: [][]message{{}}}
	srv := httptest.NewServer(log)
	defer srv.Close()
	zone := time.FixedZone("", -8*3600)
	sids(t, open(t, srv.URL, srv.Client()), time.Date(2026, 3, 1, 20, 0, 0, 0, zone), time.Date(2026, 3, 1, 21, 0, 0, 0, zone))
	if q := log.queries[0]; q.Get("DateSent>") != "2026-03-02" || q.Get("DateSent<") != "2026-03-03" {
		t.Errorf("asked for %v", q)
	}
}

func TestInboundAsksForEachOfOurNumbers(t *testing.T) {
	log := &logServer{pages: [][]message{{entry(1, "inbound", noon)}}}
	srv := httptest.NewServer(log)
	defer srv.Close()
	p := open(t, srv.URL, srv.Client(), func(c *Config) { c.InboundNumbers = []string{"+15125550101", "55555", "+15125550101"} })
	sids(t, p, noon, noon.Add(time.Second))
	var asked []string
	for _, q := range log.queries {
		asked = append(asked, q.Get("To"))
	}
	if diff := cmp.Diff([]string{"+15125550101", "55555"}, asked); diff != "" {
		t.Error(diff)
	}
}

func TestOutboundReadsWhatBecameOfSends(t *testing.T) {
	sent := entry(1, "outbound-api", noon)
	sent.Status, sent.From, sent.To = "delivered", sent.To, sent.From
	refused := entry(2, "outbound-reply", noon)
	refused.Status, refused.ErrorCode = "failed", "21610"
	log := &logServer{pages: [][]message{{sent, refused, entry(3, "inbound", noon)}}}
	srv := httptest.NewServer(log)
	defer srv.Close()
	var got []sms.Outbound
	for o, err := range open(t, srv.URL, srv.Client()).Outbound(t.Context(), noon, noon.Add(time.Second)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o)
	}
	want := []sms.Outbound{
		{ProviderID: sent.SID, From: sent.From, To: sent.To, Body: "Stop", At: noon, State: sms.DeliveryDelivered},
		{ProviderID: refused.SID, From: refused.From, To: refused.To, Body: "Stop", At: noon, State: sms.DeliveryFailed, Code: "21610", OptedOut: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestABadLogIsAnErrorAndNeverAnEnd(t *testing.T) {
	page := func(next string) string { return fmt.Sprintf(`{"messages":[],"next_page_uri":%q}`, next) }
	log := "/2010-04-01/Accounts/" + account + "/Messages.json"
	for _, tt := range []struct{ name, body, want string }{
		{"a page that names itself", page(log + "?Page=1"), "earlier page"},
		{"a log on another host", page("https://evil.example.com" + log), "outside of the log"},
		{"a log with credentials of somebody", page("//u:p@api.twilio.com" + log), "outside of the log"},
		{"a log in clear", page("http://api.twilio.com" + log), "outside of the log"},
		{"another resource", page("/2010-04-01/Accounts/" + account + "/Calls.json"), "outside of the log"},
		{"a page that is no address", page("http://[::1"), "outside of the log"},
		{"half a document", page("")[:10], "cut off"},
		{"a document without messages", `{}`, "no list"},
		{"messages that are null", `{"messages":null}`, "no list"},
		{"a message without id", `{"messages":[{"direction":"inbound"}]}`, "no sid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mock := httpmock.NewMockTransport()
			mock.RegisterNoResponder(httpmock.NewStringResponder(200, tt.body))
			p := open(t, "", &http.Client{Transport: mock})
			var got error
			for _, err := range p.Inbound(t.Context(), noon, noon.Add(time.Hour)) {
				got = err
			}
			if got == nil || !strings.Contains(got.Error(), tt.want) {
				t.Errorf("got %v, want ...%s...", got, tt.want)
			}
			if n := mock.GetTotalCallCount(); n > 2 {
				t.Errorf("%d requests", n)
			}
		})
	}
	t.Run("pages without end", func(t *testing.T) {
		mock := httpmock.NewMockTransport()
		mock.RegisterNoResponder(func(*http.Request) (*http.Response, error) {
			return httpmock.NewStringResponse(200, page(fmt.Sprint(log, "?Page=", mock.GetTotalCallCount()))), nil
		})
		var got error
		for _, err := range open(t, "", &http.Client{Transport: mock}).Inbound(t.Context(), noon, noon.Add(time.Hour)) {
			got = err
		}
		if got == nil || !strings.Contains(got.Error(), "more than 50 pages") || mock.GetTotalCallCount() != 50 {
			t.Errorf("got %v after %d requests", got, mock.GetTotalCallCount())
		}
	})
}

func TestReadsAreRetriedWithinBounds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func() (*http.Response, error)
		calls  int
		want   sms.Class
	}{
		{"503", func() (*http.Response, error) { return httpmock.NewStringResponse(503, ""), nil }, 6, sms.Unknown},
		{"429", func() (*http.Response, error) { return httpmock.NewStringResponse(429, tooMany), nil }, 6, sms.Throttled},
		{"a lost connection", func() (*http.Response, error) { return nil, errors.New("reset while asking for +15125550142") }, 6, sms.Unknown},
		{"a wait that is too long", func() (*http.Response, error) {
			r := httpmock.NewStringResponse(429, tooMany)
			r.Header.Set("Retry-After", "3600")
			return r, nil
		}, 1, sms.Throttled},
		{"401", func() (*http.Response, error) { return httpmock.NewStringResponse(401, unauthorized), nil }, 1, sms.Auth},
		{"307", func() (*http.Response, error) {
			r := httpmock.NewStringResponse(307, "")
			r.Header.Set("Location", "https://evil.example.com/")
			return r, nil
		}, 1, sms.Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mock := httpmock.NewMockTransport()
			mock.RegisterNoResponder(func(*http.Request) (*http.Response, error) { return tt.answer() })
			p := open(t, "", &http.Client{Transport: mock}, func(c *Config) { c.InboundNumbers = []string{"+15125550142"} })
			var got error
			for _, err := range p.Inbound(t.Context(), noon, noon.Add(time.Hour)) {
				got = err
			}
			if got == nil || sms.ClassOf(got) != tt.want || strings.Contains(got.Error(), "5125550142") {
				t.Errorf("got %v, want class %s and no number", got, tt.want)
			}
			if n := mock.GetTotalCallCount(); n != tt.calls {
				t.Errorf("%d requests, want %d", n, tt.calls)
			}
		})
	}
}

func TestFindInbound(t *testing.T) {
	in := entry(1, "inbound", noon)
	in.NumMedia = "1"
	out := entry(2, "outbound-api", noon)
	mock := httpmock.NewMockTransport()
	for _, m := range []message{in, out} {
		mock.RegisterResponder("GET", "https://api.twilio.com/2010-04-01/Accounts/"+account+"/Messages/"+m.SID+".json", httpmock.NewJsonResponderOrPanic(200, m))
	}
	mock.RegisterNoResponder(httpmock.NewStringResponder(404, notFound))
	p := open(t, "", &http.Client{Transport: mock})
	got, err := p.FindInbound(t.Context(), in.SID)
	want := sms.Inbound{ProviderID: in.SID, From: in.From, To: in.To, Body: "Stop", Media: 1, At: noon}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for name, id := range map[string]string{
		"a sent message": out.SID, "no message": "SM" + strings.Repeat("f", 32), "an empty id": "", "a path": "../Calls/CA1",
	} {
		if _, err := p.FindInbound(t.Context(), id); sms.ClassOf(err) != sms.Rejected || err == nil {
			t.Errorf("%s: got %v, want Rejected", name, err)
		}
	}
}

func TestConfigProblemsAreAllFound(t *testing.T) {
	valid := Config{AccountSID: account, AuthToken: token, From: "+15125550100"}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"nothing wrong", func(*Config) {}, nil},
		{"a short code, a service, a key and an emulator", func(c *Config) {
			c.From, c.MessagingServiceSID, c.BaseURL = "55555", "MGb0000000000000000000000000000001", "http://127.0.0.1:7002/"
			c.APIKeySID, c.APIKeySecret, c.AuthTokenPrevious = "SKd0000000000000000000000000000001", "s", "o"
		}, nil},
		{"a service alone", func(c *Config) { c.From, c.MessagingServiceSID = "", "MGb0000000000000000000000000000001" }, nil},
		{"nothing at all", func(c *Config) { *c = Config{} }, []string{"account_sid", "auth_token", "from"}},
		{"an empty token", func(c *Config) { c.AuthToken = "" }, []string{"auth_token"}},
		{"an unresolved token", func(c *Config) { c.AuthToken = "${TWILIO_AUTH_TOKEN}" }, []string{"auth_token"}},
		{"a blank previous token", func(c *Config) { c.AuthTokenPrevious = " " }, []string{"auth_token_previous"}},
		{"half a key", func(c *Config) { c.APIKeySecret = "s" }, []string{"api_key_sid"}},
		{"a secret in place of the key", func(c *Config) { c.APIKeySID, c.APIKeySecret = "s", "s" }, []string{"api_key_sid"}},
		{"a sender name", func(c *Config) { c.From = "ACME" }, []string{"from"}},
		{"national numbers", func(c *Config) { c.From, c.InboundNumbers = "5125550100", []string{"+15125550100", "(512) 555-0100"} }, []string{"from", "inbound_numbers[1]"}},
		{"a number in place of a service", func(c *Config) { c.MessagingServiceSID = "+15125550100" }, []string{"messaging_service_sid"}},
		{"a base in clear", func(c *Config) { c.BaseURL = "http://api.twilio.com" }, []string{"base_url"}},
		{"a base with a path", func(c *Config) { c.BaseURL = "https://api.twilio.com/2010-04-01" }, []string{"base_url"}},
		{"a host for the list, in clear", func(c *Config) { c.AccountsURL = "http://accounts.twilio.com" }, []string{"accounts_url"}},
		{"a list on an emulator", func(c *Config) { c.ConsentAPI, c.AccountsURL = true, "http://127.0.0.1:7002/" }, nil},
		{"a base that is no address", func(c *Config) { c.BaseURL = "https://[::1" }, []string{"base_url"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := valid
			tt.change(&c)
			var got []string
			for _, p := range c.Validate() {
				got = append(got, p.Field)
				if p.Reason == "" || p.Hint == "" {
					t.Errorf("%+v is not explained", p)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if _, err := New(c, &http.Client{}); (err == nil) != (len(tt.want) == 0) {
				t.Errorf("New: %v", err)
			}
		})
	}
}

func TestClientsThatRepeatAreRefused(t *testing.T) {
	c := Config{AccountSID: account, AuthToken: token, From: "+15125550100"}
	if _, err := New(c, retryablehttp.NewClient().StandardClient()); err == nil {
		t.Error("a client that repeats sends was taken")
	}
	if _, err := New(c, nil); err == nil {
		t.Error("no client was taken")
	}
}

func TestPrintingShowsNoSecret(t *testing.T) {
	c := Config{AccountSID: account, AuthToken: token, AuthTokenPrevious: "previous-token", APIKeySID: "SKd0000000000000000000000000000001",
		APIKeySecret: "secret-of-the-key", From: "+15125550100"}
	p, err := New(c, &http.Client{})
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%v %+v %#v %s %q %v %+v %#v %v %s", c, c, c, c, c, p, p, p, struct{ C Config }{c}, document)
	for _, secret := range []string{token, "previous-token", "secret-of-the-key"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q shows: %s", secret, text)
		}
	}
	if !strings.Contains(text, account) {
		t.Errorf("the account is missing: %s", text)
	}
}

func TestProbe(t *testing.T) {
	const service = "MGb0000000000000000000000000000001"
	base := "https://api.twilio.com/2010-04-01/Accounts/" + account
	numbers := func(change string) string {
		return `{"incoming_phone_numbers":[{"phone_number":"+15125550100","sms_url":"` + hookURL + `","sms_method":"POST","sms_fallback_url":"https://x","capabilities":{"sms":true}` + change + `}]}`
	}
	healthy := map[string]string{
		base + ".json":                                        `{"sid":"` + account + `","status":"active","type":"Full"}`,
		base + "/Messages.json":                               `{"messages":[]}`,
		base + "/IncomingPhoneNumbers.json":                   numbers(""),
		"https://messaging.twilio.com/v1/Services/" + service: `{"sid":"` + service + `","inbound_request_url":"` + hookURL + `#rc=5","inbound_method":"POST","fallback_url":"https://x"}`,
	}
	for _, tt := range []struct {
		name    string
		config  func(*Config)
		answers map[string]string // in place of the healthy ones
		clock   time.Duration
		want    string // in the one finding that is not OK; "" for none
	}{
		{"all is well", nil, nil, 0, ""},
		{"a service that decides", func(c *Config) { c.MessagingServiceSID = service }, nil, 0, ""},
		{"an opt-out list, which cannot be asked about", func(c *Config) { c.ConsentAPI = true }, nil, 0, ""},
		{"a retry setting", nil, map[string]string{base + "/IncomingPhoneNumbers.json": numbers(`,"sms_url":"` + hookURL + `#rc=5&rp=all"`)}, 0, ""},
		{"a trial account", nil, map[string]string{base + ".json": `{"sid":"` + account + `","status":"active","type":"Trial"}`}, 0, ""},
		{"a short code", func(c *Config) { c.From = "55555" }, map[string]string{
			base + "/SMS/ShortCodes.json": `{"short_codes":[{"short_code":"55555","sms_url":"` + hookURL + `","sms_method":"POST","sms_fallback_url":"https://x"}]}`}, 0, ""},
		{"a service that leaves it to the numbers, one of which is wrong", func(c *Config) { c.MessagingServiceSID = service }, map[string]string{
			"https://messaging.twilio.com/v1/Services/" + service: `{"sid":"` + service + `","use_inbound_webhook_on_number":true}`,
			base + "/IncomingPhoneNumbers.json":                   numbers(`,"sms_url":"https://old.example.com"`)}, 0, "another URL"},
		{"a service that cannot be read", func(c *Config) { c.MessagingServiceSID = service }, map[string]string{
			"https://messaging.twilio.com/v1/Services/" + service: ""}, 0, "messaging service"},
		{"a suspended account", nil, map[string]string{base + ".json": `{"sid":"` + account + `","status":"suspended"}`}, 0, "not active"},
		{"another API", nil, map[string]string{base + ".json": `{}`}, 0, "not Twilio's account API"},
		{"a log that is closed", nil, map[string]string{base + "/Messages.json": ""}, 0, "message log"},
		{"a number of somebody else", nil, map[string]string{base + "/IncomingPhoneNumbers.json": `{"incoming_phone_numbers":[]}`}, 0, "does not belong"},
		{"no webhook", nil, map[string]string{base + "/IncomingPhoneNumbers.json": numbers(`,"sms_url":""`)}, 0, "nowhere"},
		{"another webhook", nil, map[string]string{base + "/IncomingPhoneNumbers.json": numbers(`,"sms_url":"https://old.example.com"`)}, 0, "another URL"},
		{"GET", nil, map[string]string{base + "/IncomingPhoneNumbers.json": numbers(`,"sms_method":"GET"`)}, 0, "GET"},
		{"an application", nil, map[string]string{base + "/IncomingPhoneNumbers.json": numbers(`,"sms_application_sid":"AP1"`)}, 0, "TwiML app"},
		{"a number for calls", nil, map[string]string{base + "/IncomingPhoneNumbers.json": numbers(`,"capabilities":{"sms":false}`)}, 0, "cannot send or receive"},
		{"a clock ten minutes ahead", nil, nil, 10 * time.Minute, "clock differs from Twilio's by 10m0s"},
		{"a clock ten minutes behind", nil, nil, -10 * time.Minute, "clock differs from Twilio's by -10m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers := maps.Clone(healthy)
			maps.Copy(answers, tt.answers)
			mock := httpmock.NewMockTransport()
			mock.RegisterNoResponder(func(r *http.Request) (*http.Response, error) {
				if r.Method != "GET" {
					t.Errorf("the probe calls with %s", r.Method)
				}
				u := *r.URL
				u.RawQuery = ""
				resp := httpmock.NewStringResponse(200, answers[u.String()])
				if answers[u.String()] == "" {
					resp = httpmock.NewStringResponse(404, notFound)
				}
				resp.Header.Set("Date", noon.Format(http.TimeFormat))
				return resp, nil
			})
			p := open(t, "", &http.Client{Transport: mock}, func(c *Config) {
				if tt.config != nil {
					tt.config(c)
				}
			})
			p.now = func() time.Time { return noon.Add(tt.clock) }
			var bad []string
			for _, f := range p.Probe(t.Context()) {
				if !f.OK {
					bad = append(bad, f.What)
				}
				if f.OK != (f.Hint == "") || strings.Contains(f.What+f.Hint, "5125550100") || strings.Contains(f.What+f.Hint, token) {
					t.Errorf("finding %+v", f)
				}
			}
			switch {
			case tt.want == "" && len(bad) > 0:
				t.Errorf("found fault: %q", bad)
			case tt.want != "" && (len(bad) != 1 || !strings.Contains(bad[0], tt.want)):
				t.Errorf("found %q, want one finding with %q", bad, tt.want)
			}
		})
	}
}

func TestProbeChecksTheTokenAndTheKeyApart(t *testing.T) {
	mock := httpmock.NewMockTransport()
	var users []string
	mock.RegisterNoResponder(func(r *http.Request) (*http.Response, error) {
		user, _, _ := r.BasicAuth()
		users = append(users, user)
		if strings.HasSuffix(r.URL.Path, "/"+account+".json") {
			return httpmock.NewStringResponse(200, `{"sid":"`+account+`","status":"active"}`), nil
		}
		return httpmock.NewStringResponse(401, unauthorized), nil
	})
	p := open(t, "", &http.Client{Transport: mock}, func(c *Config) {
		c.APIKeySID, c.APIKeySecret = "SKd0000000000000000000000000000001", "s"
	})
	findings := p.Probe(t.Context())
	if !slices.ContainsFunc(findings, func(f sms.Finding) bool { return !f.OK && strings.Contains(f.Hint, "API key") }) {
		t.Errorf("the key's lack of permission was not found: %+v", findings)
	}
	if users[0] != account || slices.Contains(users[1:], account) {
		t.Errorf("asked as %q", users)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The caller gives up when the transport has its connection and has not written yet: net/http would write all the same.
func TestASendThatIsGivenUpOnceItHasAConnectionDoesNotLeave(t *testing.T) {
	var arrived atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil && len(b) > 0 {
			arrived.Add(1)
		}
		w.WriteHeader(http.StatusCreated)
	}))
	defer srv.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	p, err := New(Config{AccountSID: account, AuthToken: token, From: "+15125550100", BaseURL: srv.URL}, &http.Client{Timeout: 5 * time.Second, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		ctx, cancel := context.WithCancel(t.Context())
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { cancel() }})
		_, err := p.Send(ctx, sms.Message{To: "+15125550142", Body: "x"})
		cancel()
		if c := sms.ClassOf(err); c != sms.Throttled && c != sms.Unknown {
			t.Fatalf("class %s: %v", c, err)
		}
	}
	if n := arrived.Load(); n != 0 {
		t.Errorf("%d of 300 messages left after they were given up", n)
	}
}
