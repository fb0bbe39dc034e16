package openapi_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/smstest"
)

func TestTheGeneratedClientIsOfThisDescription(t *testing.T) {
	b, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if h := sha256.Sum256(b); hex.EncodeToString(h[:]) != madeFrom {
		t.Error("openapi.yaml has changed since the client was made from it: run connector/openapi/generate.sh")
	}
}

// A client that a public generator made from the description, and nobody wrote by hand, does an integration's day.
func TestAGeneratedClientDrivesTheAPI(t *testing.T) {
	l, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	log, now := slog.New(slog.DiscardHandler), time.Now
	provider := smstest.New()
	accounts := connector.Accounts{{Name: "main", Provider: provider}}
	gate := &connector.Gate{Ledger: l, Accounts: accounts, Region: "US", Log: log, Now: now}
	t.Cleanup(gate.Start())
	const key = "heedkey"
	server := &connector.Server{Gate: gate, Ledger: l, Log: log, Now: now, Window: time.Hour,
		Inbox:    &connector.Inbox{Ledger: l, Accounts: accounts, Replies: reply.Default(), Log: log, Now: now},
		Consents: &connector.Consents{Ledger: l, Gate: gate, Now: now},
		Holds:    &connector.Holds{Ledger: l, Deadline: func(t time.Time) time.Time { return t.AddDate(0, 0, 7) }, Log: log, Now: now},
		Keys: connector.NewKeyRing(l, now, connector.Key{Name: "integration", SHA256: sha256.Sum256([]byte(key)),
			May: []connector.Right{connector.MaySend, connector.MayRead, connector.MayAdmin}}),
	}
	ts := httptest.NewServer(server.PublicHandler())
	t.Cleanup(ts.Close)
	transport := &http.Transport{DisableKeepAlives: true}
	c, err := NewClientWithResponses(ts.URL, WithHTTPClient(&http.Client{Transport: transport}),
		WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+key)
			return nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	const ada = "+12065550142"
	text, campaign, id := "hello", "spring", "order-7"
	send := func() *SendMessageResponse {
		t.Helper()
		r, err := c.SendMessageWithResponse(t.Context(), &SendMessageParams{IdempotencyKey: &id}, SendMessageJSONRequestBody{To: ada, Body: &text, Campaign: &campaign})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first, again := send(), send()
	if first.JSON201 == nil || first.JSON201.Status != MessageStatusSent || first.JSON201.ProviderMessageId == nil || again.JSON201 == nil || again.JSON201.Id != first.JSON201.Id {
		t.Fatalf("%s\n%s", first.Body, again.Body)
	}
	got, err := c.GetMessageWithResponse(t.Context(), first.JSON201.Id)
	if err != nil || got.JSON200 == nil || *got.JSON200.Campaign != campaign {
		t.Errorf("%v %s", err, got.Body)
	}
	if _, err := server.Inbox.Receive(t.Context(), "main", provider.Text(ada, "+15550100000", "STOP", sms.FlagNone), ""); err != nil {
		t.Fatal(err)
	}
	id = "order-8"
	if blocked := send(); blocked.JSON201 == nil || blocked.JSON201.Status != MessageStatusBlocked || blocked.JSON201.Reason != MessageReasonOptedOut {
		t.Errorf("%s", blocked.Body)
	}
	decisions, err := c.DecideNumbersWithResponse(t.Context(), DecideNumbersJSONRequestBody{Numbers: []string{"(206) 555-0142", "me"}})
	if err != nil || decisions.JSON200 == nil || len(decisions.JSON200.Decisions) != 2 || decisions.JSON200.Decisions[0].Reason != "opted_out" || decisions.JSON200.Decisions[1].Number != nil {
		t.Errorf("%v %s", err, decisions.Body)
	}
	limit := int32(10)
	list, err := c.ListOptOutsWithResponse(t.Context(), &ListOptOutsParams{Limit: &limit})
	if err != nil || list.JSON200 == nil || len(list.JSON200.Optouts) != 1 || list.JSON200.Optouts[0].Campaign == nil || *list.JSON200.Optouts[0].Campaign != campaign {
		t.Errorf("%v %s", err, list.Body)
	}
	history, err := c.GetConsentWithResponse(t.Context(), ada, &GetConsentParams{Limit: &limit})
	if err != nil || history.JSON200 == nil || history.JSON200.State != ConsentStateOptedOut || len(*history.JSON200.History) < 3 {
		t.Errorf("%v %s", err, history.Body)
	}
	lifted, err := c.SetConsentWithResponse(t.Context(), ada, SetConsentJSONRequestBody{State: "opted_in"})
	if err != nil || lifted.ApplicationproblemJSON409 == nil || *lifted.ApplicationproblemJSON409.Hint == "" {
		t.Errorf("%v %s", err, lifted.Body)
	}
}
