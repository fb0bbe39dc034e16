package twiliofake_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/twilio/twilio-go/client"
	accounts "github.com/twilio/twilio-go/rest/accounts/v1"
	api "github.com/twilio/twilio-go/rest/api/v2010"

	"github.com/heed-sms/heed/sms/twilio/twiliofake"
)

// reroute sends the calls of Twilio's own Go library to the emulator instead of twilio.com.
type reroute struct{ to *url.URL }

func (r reroute) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Host != "api.twilio.com" && q.URL.Host != "accounts.twilio.com" {
		return nil, fmt.Errorf("unexpected host %s", q.URL.Host)
	}
	q = q.Clone(q.Context())
	q.URL.Scheme, q.URL.Host = r.to.Scheme, r.to.Host
	return http.DefaultTransport.RoundTrip(q)
}

func TestTwiliosOwnLibraryWorks(t *testing.T) {
	const phone, ours = "+15555550101", "+15550100000"
	fake := twiliofake.New(twiliofake.Options{Seed: 3})
	defer fake.Close()
	ts := httptest.NewServer(fake.Handler())
	defer ts.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	to, _ := url.Parse(ts.URL)

	login := func(user, password string) *api.ApiService {
		c := &client.Client{Credentials: client.NewCredentials(user, password), HTTPClient: &http.Client{Transport: reroute{to}}}
		c.SetAccountSid(fake.AccountSID())
		return api.NewApiService(client.NewRequestHandler(c))
	}
	tw := login(fake.AccountSID(), fake.AuthToken())
	send := func(to string) (*api.ApiV2010Message, error) {
		return tw.CreateMessage((&api.CreateMessageParams{}).SetTo(to).SetFrom(ours).SetBody("hello"))
	}

	sent, err := send(phone)
	if err != nil || *sent.Status != "queued" || *sent.Direction != "outbound-api" || *sent.NumSegments != "1" {
		t.Fatalf("%+v %v", sent, err)
	}
	if got, err := tw.FetchMessage(*sent.Sid, nil); err != nil || *got.Status != "delivered" || *got.Body != "hello" {
		t.Errorf("%+v %v", got, err)
	}
	if d, err := time.Parse(time.RFC1123Z, *sent.DateCreated); err != nil || time.Since(d) > time.Hour {
		t.Errorf("date_created %s: %v", *sent.DateCreated, err)
	}

	if _, err := fake.Text(phone, ours, "Stop"); err != nil {
		t.Fatal(err)
	}
	var refused *client.TwilioRestError
	if _, err := send(phone); !errors.As(err, &refused) || refused.Code != 21610 || refused.Status != 400 {
		t.Errorf("send after STOP: %v", err)
	}
	if _, err := login(fake.AccountSID(), "wrong").FetchAccount(fake.AccountSID()); !errors.As(err, &refused) || refused.Code != 20003 {
		t.Errorf("wrong token: %v", err)
	}
	if a, err := login(fake.APIKey()).FetchAccount(fake.AccountSID()); err != nil || *a.Sid != fake.AccountSID() || *a.Status != "active" {
		t.Errorf("account by API key: %+v %v", a, err)
	}

	for i := range 25 {
		if _, err := fake.Text(fmt.Sprintf("+155555502%02d", i), ours, "hi"); err != nil {
			t.Fatal(err)
		}
	}
	list, err := tw.ListMessage((&api.ListMessageParams{}).SetTo(ours).SetPageSize(10).SetLimit(1000).
		SetDateSentAfter(time.Now().Add(-time.Hour)).SetDateSentBefore(time.Now().Add(time.Hour)))
	if err != nil || len(list) != 26 || *list[25].Body != "Stop" || *list[0].Direction != "inbound" {
		t.Errorf("%d messages: %v", len(list), err)
	}
	if list, err = tw.ListMessage((&api.ListMessageParams{}).SetDateSentBefore(time.Now().AddDate(0, 0, -2))); err != nil || len(list) != 0 {
		t.Errorf("%d messages before yesterday: %v", len(list), err)
	}
	numbers, err := tw.ListIncomingPhoneNumber((&api.ListIncomingPhoneNumberParams{}).SetPhoneNumber(ours))
	if err != nil || len(numbers) != 1 || *numbers[0].PhoneNumber != ours || *numbers[0].SmsMethod != "POST" {
		t.Errorf("%+v %v", numbers, err)
	}
	consent := map[string]any{"contact_id": phone, "correlation_id": "ad388b5a46b33b874b0d41f7226db2ef", "sender_id": ours, "status": "opt-in", "source": "website"}
	bulk, err := accounts.NewApiService(tw.RequestHandler()).CreateBulkConsents((&accounts.CreateBulkConsentsParams{}).SetItems([]any{consent}))
	if err != nil || bulk.Items == nil || fmt.Sprint(*bulk.Items) != "[map[correlation_id:ad388b5a46b33b874b0d41f7226db2ef error_code:0 error_messages:[]]]" {
		t.Errorf("consents: %+v %v", bulk, err)
	}
	if _, err := send(phone); err != nil {
		t.Errorf("send after the opt-in: %v", err)
	}
	if err := tw.DeleteMessage(*sent.Sid, nil); err != nil {
		t.Error(err)
	}
	if _, err := tw.FetchMessage(*sent.Sid, nil); !errors.As(err, &refused) || refused.Code != 20404 {
		t.Errorf("deleted message: %v", err)
	}
}
