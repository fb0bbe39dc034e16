package twilio

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jarcoal/httpmock"

	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/smstest"
	"github.com/heed-sms/heed/sms/twilio/twiliofake"
)

// noConsentAPI is made up: Twilio does not document what an account without the API gets.
const noConsentAPI = `{"code":20403,"message":"Not enabled for the sender of +15125550142","more_info":"https://www.twilio.com/docs/errors/20403","status":403}`

// answerConsents answers as https://www.twilio.com/docs/messaging/features/consent-api describes it.
func answerConsents(r *http.Request, body []byte, refused func(string) bool) (smstest.Answer, bool) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/Consents/Bulk" {
		return smstest.Answer{}, false
	}
	form, _ := url.ParseQuery(string(body))
	var answers []string
	for _, item := range form["Items"] {
		var c consentItem
		_ = json.Unmarshal([]byte(item), &c)
		code, reasons := 0, `[]`
		if refused(c.Contact) {
			code, reasons = 30646, `["INVALID_CONTACT_ID","`+c.Contact+`"]`
		}
		answers = append(answers, fmt.Sprintf(`{"correlation_id":%q,"error_code":%d,"error_messages":%s}`, c.Correlation, code, reasons))
	}
	slices.Reverse(answers) // the ids say which is which, not the order
	return smstest.Answer{Status: 201, Body: `{"items":[` + strings.Join(answers, ",") + `]}`}, true
}

// consentCalls takes the calls to the list and keeps their items. answer may give another answer than Twilio's good one.
func consentCalls(t *testing.T, endpoint string, answer func(call int) *http.Response) (*httpmock.MockTransport, *[][]string) {
	mock, calls := httpmock.NewMockTransport(), &[][]string{}
	mock.RegisterResponder("POST", endpoint, func(r *http.Request) (*http.Response, error) {
		if err := r.ParseForm(); err != nil {
			return nil, err
		}
		if user, password, _ := r.BasicAuth(); user != account || password != token {
			t.Errorf("called as %q", user)
		}
		*calls = append(*calls, r.PostForm["Items"])
		if answer != nil {
			if resp := answer(len(*calls)); resp != nil {
				return resp, nil
			}
		}
		a, _ := answerConsents(r, []byte(r.PostForm.Encode()), func(string) bool { return false })
		return httpmock.NewStringResponse(a.Status, a.Body), nil
	})
	return mock, calls
}

const consentsURL = "https://accounts.twilio.com/v1/Consents/Bulk"

func TestOnlyAnAccountWithTheAPIHasAList(t *testing.T) {
	c := Config{AccountSID: account, AuthToken: token, From: "+15125550100"}
	for _, on := range []bool{false, true} {
		c.ConsentAPI = on
		p, err := New(c, &http.Client{})
		if err != nil {
			t.Fatal(err)
		}
		if _, can := p.(sms.OptOutSetter); can != on {
			t.Errorf("consent_api %v: can set opt-outs: %v", on, can)
		}
		if _, can := p.(sms.InboundLog); !can {
			t.Errorf("consent_api %v: the other capabilities are gone", on)
		}
	}
}

func TestSetOptOutsPostsTheForm(t *testing.T) {
	const service = "MGb0000000000000000000000000000001"
	for _, tt := range []struct {
		name     string
		config   func(*Config)
		endpoint string
		c        sms.Consent
		want     string
	}{
		{"an opt-out with the configured number", func(*Config) {}, consentsURL,
			sms.Consent{Number: "+15125550142", OptedOut: true, At: time.Date(2026, 3, 2, 5, 59, 59, 5, time.FixedZone("", -6*3600)), ID: "ad388b5a46b33b874b0d41f7226db2ef"},
			`{"contact_id":"+15125550142","correlation_id":"ad388b5a46b33b874b0d41f7226db2ef","sender_id":"+15125550100","status":"opt-out","source":"others","date_of_consent":"2026-03-02T11:59:59Z"}`},
		{"an opt-in with the configured service, without a date", func(c *Config) { c.MessagingServiceSID = service }, consentsURL,
			sms.Consent{Number: "+15125550142", ID: "ad388b5a46b33b874b0d41f7226db2ef"},
			`{"contact_id":"+15125550142","correlation_id":"ad388b5a46b33b874b0d41f7226db2ef","sender_id":"` + service + `","status":"opt-in","source":"others"}`},
		{"its own sender, a date that is still to come, an ID that Twilio would not take", func(c *Config) { c.MessagingServiceSID = service }, consentsURL,
			sms.Consent{Number: "+15125550142", Sender: "55555", OptedOut: true, At: time.Date(2026, 3, 2, 12, 0, 1, 0, time.UTC), ID: "job1"},
			`{"contact_id":"+15125550142","correlation_id":"cc5ebc646150889d82afa36a0f8ebcf0","sender_id":"55555","status":"opt-out","source":"others"}`},
		{"an emulator of everything", func(c *Config) { c.BaseURL = "http://127.0.0.1:7002/" }, "http://127.0.0.1:7002/v1/Consents/Bulk",
			sms.Consent{Number: "+15125550142", ID: "ad388b5a46b33b874b0d41f7226db2ef"},
			`{"contact_id":"+15125550142","correlation_id":"ad388b5a46b33b874b0d41f7226db2ef","sender_id":"+15125550100","status":"opt-in","source":"others"}`},
		{"another host for the list", func(c *Config) { c.BaseURL, c.AccountsURL = "http://127.0.0.1:7002", "http://127.0.0.1:7003" }, "http://127.0.0.1:7003/v1/Consents/Bulk",
			sms.Consent{Number: "+15125550142", ID: "ad388b5a46b33b874b0d41f7226db2ef"},
			`{"contact_id":"+15125550142","correlation_id":"ad388b5a46b33b874b0d41f7226db2ef","sender_id":"+15125550100","status":"opt-in","source":"others"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mock, calls := consentCalls(t, tt.endpoint, nil)
			p := withList{open(t, "", &http.Client{Transport: mock}, tt.config)}
			p.now = func() time.Time { return noon }
			if err := p.SetOptOuts(t.Context(), []sms.Consent{tt.c})[0]; err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff([][]string{{tt.want}}, *calls); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func consents(n int) []sms.Consent {
	cs := make([]sms.Consent, n)
	for i := range cs {
		cs[i] = sms.Consent{Number: fmt.Sprintf("+1512555%04d", i), OptedOut: true, ID: fmt.Sprintf("%032x", i)}
	}
	return cs
}

func TestChangesAreSplitIntoCalls(t *testing.T) {
	again := append(consents(3), consents(2)...)
	again[3].ID, again[4].ID, again[3].OptedOut = "other1", "other2", false
	sameID := consents(2)
	sameID[1].ID = sameID[0].ID
	twoSenders := append(consents(1), consents(1)...)
	twoSenders[1].ID, twoSenders[1].Sender = "other", "55555"
	for _, tt := range []struct {
		name    string
		changes []sms.Consent
		want    []int // items in each call
	}{
		{"none", nil, nil},
		{"a full call", consents(25), []int{25}},
		{"one more", consents(26), []int{25, 1}},
		{"many", consents(60), []int{25, 25, 10}},
		{"a number that changes its mind", again, []int{3, 2}},
		{"an ID that comes twice", sameID, []int{1, 1}},
		{"a number and two senders", twoSenders, []int{2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mock, calls := consentCalls(t, consentsURL, nil)
			p := withList{open(t, "", &http.Client{Transport: mock})}
			if err := errors.Join(p.SetOptOuts(t.Context(), tt.changes)...); err != nil {
				t.Error(err)
			}
			var got []int
			for _, items := range *calls {
				got = append(got, len(items))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestARepeatedCallIsTheSameCall(t *testing.T) {
	mock, calls := consentCalls(t, consentsURL, func(call int) *http.Response {
		return map[int]*http.Response{1: httpmock.NewStringResponse(503, ""), 2: httpmock.NewStringResponse(429, tooMany)}[call]
	})
	p := withList{open(t, "", &http.Client{Transport: mock})}
	if err := errors.Join(p.SetOptOuts(t.Context(), consents(2))...); err != nil {
		t.Error(err)
	}
	if got := *calls; len(got) != 3 || len(got[0]) != 2 || !cmp.Equal(got[0], got[1]) || !cmp.Equal(got[1], got[2]) {
		t.Errorf("calls: %q", got)
	}
}

func TestSetOptOutsClassesAnswers(t *testing.T) {
	one := func(code, reasons string) string {
		return `{"items":[{"correlation_id":"` + strings.Repeat("0", 32) + `","error_code":` + code + `,"error_messages":` + reasons + `}]}`
	}
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   *sms.Error
	}{
		{"taken", 201, one("0", "[]"), nil},
		{"taken, with the code as a text and no reasons", 201, one(`"0"`, "null"), nil},
		{"a bad item", 201, one("30646", `["INVALID_CONTACT_ID","INVALID_DATE_OF_CONSENT"]`),
			&sms.Error{Class: sms.Rejected, Status: 201, Code: "30646", Text: "INVALID_CONTACT_ID, INVALID_DATE_OF_CONSENT"}},
		{"a new code", 201, one("30999", `["no: +15125550000 and +15125550100\n"]`),
			&sms.Error{Class: sms.Rejected, Status: 201, Code: "30999", Text: "no: [hidden] and [hidden] "}},
		{"a failure inside Twilio", 201, one("30646", `["INTERNAL_SERVER_ERROR"]`),
			&sms.Error{Class: sms.Unknown, Status: 201, Code: "30646", Text: "INTERNAL_SERVER_ERROR"}},
		{"a clock that is behind ours", 201, one("30646", `["INVALID_DATE_OF_CONSENT"]`),
			&sms.Error{Class: sms.Throttled, Status: 201, Code: "30646", Text: "INVALID_DATE_OF_CONSENT", RetryAfter: time.Minute}},
		{"no code", 201, one("null", "[]"), &sms.Error{Class: sms.Unknown, Status: 201, Text: "the answer does not mention the change"}},
		{"no items", 201, `{}`, &sms.Error{Class: sms.Unknown, Status: 201, Text: "the answer does not mention the change"}},
		{"another change", 201, strings.Replace(one("0", "[]"), "00", "ff", 1), &sms.Error{Class: sms.Unknown, Status: 201, Text: "the answer does not mention the change"}},
		{"not enabled", 403, noConsentAPI, &sms.Error{Class: sms.Rejected, Status: 403, Code: "20403", Text: "Not enabled for the sender of [number]", Err: sms.ErrNoList}},
		{"not there", 404, notFound, &sms.Error{Class: sms.Rejected, Status: 404, Code: "20404", Text: "The requested resource was not found", Err: sms.ErrNoList}},
		{"a suspended account", 403, `{"code":20005,"message":"inactive"}`, &sms.Error{Class: sms.Auth, Status: 403, Code: "20005", Text: "inactive"}},
		{"a 404 of somebody else", 404, "<html>", &sms.Error{Class: sms.Unknown, Status: 404, Text: "the error page is not Twilio's; something between heed and Twilio answered"}},
		{"a request that is refused", 400, `{"code":20001,"message":"bad"}`, &sms.Error{Class: sms.Rejected, Status: 400, Code: "20001", Text: "bad"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mock := httpmock.NewMockTransport()
			mock.RegisterNoResponder(httpmock.NewStringResponder(tt.status, tt.body))
			p := withList{open(t, "", &http.Client{Transport: mock})}
			err := p.SetOptOuts(t.Context(), consents(1))[0]
			if tt.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var got *sms.Error
			if !errors.As(err, &got) || !errors.Is(err, tt.want.Err) && tt.want.Err != nil {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			want := *tt.want
			want.Err = got.Err
			if diff := cmp.Diff(&want, got, cmp.Comparer(func(a, b *sms.Error) bool { return *a == *b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestACallThatFailedForAllIsTheLast(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		calls  int
		failed int // of 60
	}{
		{"no such API", 404, notFound, 1, 60},
		{"credentials", 401, unauthorized, 1, 60},
		{"too many", 429, tooMany, 6, 60},
		{"no answer", 503, "", 6, 60},
		{"one call's content", 400, `{"code":20001,"message":"bad"}`, 3, 25},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mock, calls := consentCalls(t, consentsURL, func(call int) *http.Response {
				if tt.failed < 60 && call > 1 {
					return nil
				}
				return httpmock.NewStringResponse(tt.status, tt.body)
			})
			p := withList{open(t, "", &http.Client{Transport: mock})}
			failed := 0
			for _, err := range p.SetOptOuts(t.Context(), consents(60)) {
				if err != nil {
					failed++
				}
			}
			if failed != tt.failed || len(*calls) != tt.calls {
				t.Errorf("%d changes failed after %d calls, want %d after %d", failed, len(*calls), tt.failed, tt.calls)
			}
		})
	}
}

// TestTheEmulatorKeepsTheList has the driver and the emulator, which share no code, agree on the protocol.
func TestTheEmulatorKeepsTheList(t *testing.T) {
	fake := twiliofake.New(twiliofake.Options{Seed: 5})
	defer fake.Close()
	srv := httptest.NewServer(fake.Handler())
	defer srv.Close()
	p := withList{open(t, srv.URL, srv.Client(), func(c *Config) {
		c.AccountSID, c.AuthToken, c.From = fake.AccountSID(), fake.AuthToken(), fake.Numbers()[0]
	})}
	changes := consents(60)
	bad := changes[40].Number
	for i := range changes {
		changes[i].At = time.Now().Add(-time.Minute)
	}
	set := func(want ...int) {
		t.Helper()
		var failed []int
		for i, err := range p.SetOptOuts(t.Context(), changes) {
			if err != nil {
				failed = append(failed, i)
				if strings.Contains(err.Error(), "512555") {
					t.Errorf("the error shows a number: %v", err)
				}
			}
		}
		if !slices.Equal(failed, want) {
			t.Errorf("changes %v failed, want %v", failed, want)
		}
	}
	knobs := func(k twiliofake.Knobs) {
		t.Helper()
		if err := fake.SetKnobs(k); err != nil {
			t.Fatal(err)
		}
	}
	knobs(twiliofake.Knobs{ConsentItemErrors: map[string]string{bad: "INVALID_CONTACT_ID"}})
	set(40)
	set(40) // a repetition changes nothing
	for i, c := range changes {
		_, err := p.Send(t.Context(), sms.Message{To: c.Number, Body: "hello"})
		if refused := sms.ClassOf(err) == sms.OptedOut; refused != (i != 40) {
			t.Errorf("after the opt-outs: change %d: %v", i, err)
		}
	}
	for i := range changes {
		changes[i].OptedOut, changes[i].ID = false, fmt.Sprintf("in%d", i)
	}
	knobs(twiliofake.Knobs{ConsentAPIDisabled: 403})
	for _, err := range p.SetOptOuts(t.Context(), changes) {
		if !errors.Is(err, sms.ErrNoList) {
			t.Fatalf("got %v, want ErrNoList", err)
		}
	}
	knobs(twiliofake.Knobs{})
	set()
	for _, c := range changes {
		if _, err := p.Send(t.Context(), sms.Message{To: c.Number, Body: "hello"}); err != nil {
			t.Fatalf("after the opt-ins: %v", err)
		}
	}
}
