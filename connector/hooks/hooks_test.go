package hooks_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/hooks"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm/salesforce/outbound"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/smstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	orgID  = "00D000000000001EAA"
	secret = "an-unguessable-path-part"
	path   = "/salesforce/outbound-messages/"
)

type rig struct {
	t        *testing.T
	ledger   *local.Ledger
	provider *smstest.Memory
	queue    *connector.Queue
	inbox    *connector.Inbox
	mux      *http.ServeMux
	handler  *hooks.Handler
}

func newRig(t *testing.T) *rig {
	l, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	log := slog.New(slog.DiscardHandler)
	p := smstest.New()
	as := connector.Accounts{{Name: "main", Provider: p}}
	g := &connector.Gate{Ledger: l, Accounts: as, Region: "US", Log: log, Now: time.Now}
	t.Cleanup(g.Start())
	r := &rig{t: t, ledger: l, provider: p, mux: http.NewServeMux(),
		queue: &connector.Queue{Ledger: l, Gate: g, Accounts: as, Log: log, Now: time.Now},
		inbox: &connector.Inbox{Ledger: l, Accounts: as, Replies: reply.Default(), Log: log, Now: time.Now}}
	r.handler = &hooks.Handler{Gate: g, Ledger: l, Log: log, Now: time.Now}
	r.mux.Handle("POST "+path+"{hook}", r.handler)
	r.hook(hooks.Hook{Secret: secret, CRM: "sf", OrgID: orgID, To: "MobilePhone", Body: "SMS_Body__c", OptOut: "SMS_Opt_Out__c"})
	return r
}

// hook sets the one configured hook.
func (r *rig) hook(h hooks.Hook) { r.handler.Hooks = []hooks.Hook{h} }

func message(n int, change func(i int, f map[string]string)) outbound.Message {
	m := outbound.Message{OrganizationID: orgID, ActionID: "04k000000000001AAA"}
	for i := range n {
		f := map[string]string{"MobilePhone": fmt.Sprintf("(206) 555-01%02d", i), "SMS_Body__c": "hello"}
		if change != nil {
			change(i, f)
		}
		m.Notifications = append(m.Notifications, outbound.Notification{ID: id18(fmt.Sprintf("04l000000000%03d", i)), Object: "Contact", RecordID: id18(fmt.Sprintf("003000000000%03d", i)), Fields: f})
	}
	return m
}

// id18 completes an id without capitals after its prefix.
func id18(id15 string) string { return id15 + "AAA" }

func (r *rig) post(secret string, body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(r.t.Context(), "POST", path+secret, strings.NewReader(string(body)))
	req.Header.Set("Content-Type", "text/xml; charset=utf-8")
	r.mux.ServeHTTP(w, req)
	return w
}

func (r *rig) head() uint64 {
	s, err := r.ledger.Stats(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return s.Head
}

func TestAHundredNotificationsAreOnDiskBeforeTheAckAndSentOnce(t *testing.T) {
	r := newRig(t)
	body := outbound.Render(message(100, nil))
	for range 3 { // Salesforce repeats what it is not sure about
		if w := r.post(secret, body); w.Code != 200 || !strings.Contains(w.Body.String(), "true") {
			t.Fatalf("HTTP %d %s", w.Code, w.Body)
		}
	}
	if n := r.head(); n != 100 {
		t.Errorf("%d events, want 100", n)
	}
	if r.provider.Attempts() != 0 {
		t.Error("sent before the answer")
	}
	if err := r.queue.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(r.provider.Sent()); n != 100 {
		t.Errorf("%d sent", n)
	}
}

func TestOptedOutAndTickedAreBlockedAndAckedAllTheSame(t *testing.T) {
	r := newRig(t)
	if _, err := r.inbox.Receive(context.Background(), "main", r.provider.Text("+12065550100", "+15550100000", "STOP", sms.FlagNone), ""); err != nil {
		t.Fatal(err)
	}
	w := r.post(secret, outbound.Render(message(3, func(i int, f map[string]string) {
		if i == 1 {
			f["SMS_Opt_Out__c"] = "true"
		}
	})))
	if w.Code != 200 {
		t.Fatalf("HTTP %d %s", w.Code, w.Body)
	}
	if err := r.queue.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := r.provider.Sent(); len(s) != 1 || s[0].To != "+12065550102" {
		t.Errorf("%+v", s)
	}
}

func TestWhatCannotBeSentIsKeptForPeopleAndNotSentBackForADay(t *testing.T) {
	r := newRig(t)
	w := r.post(secret, outbound.Render(message(2, func(i int, f map[string]string) { delete(f, []string{"MobilePhone", "SMS_Body__c"}[i]) })))
	s, err := r.ledger.Stats(t.Context())
	if w.Code != 200 || err != nil || s.Quarantine != 2 {
		t.Errorf("HTTP %d, %d kept, %v", w.Code, s.Quarantine, err)
	}
}

func TestStrangersAndNonsenseAreRefusedAndNothingIsStored(t *testing.T) {
	r := newRig(t)
	good := string(outbound.Render(message(1, nil)))
	other := message(1, nil)
	other.OrganizationID = "00D000000000002EAA"
	for name, c := range map[string]struct {
		secret, body string
		status       int
	}{
		"a wrong path":         {"another-unguessable-part", good, 404},
		"another organisation": {secret, string(outbound.Render(other)), 500},
		"101 notifications":    {secret, string(outbound.Render(message(101, nil))), 500},
		"an external entity":   {secret, `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>` + good, 500},
		"two roots":            {secret, good + good, 500},
		"nesting without end":  {secret, strings.Repeat("<a>", 200_000), 500},
		"two megabytes":        {secret, strings.Repeat(" ", 2<<20) + good, 500},
		"nothing":              {secret, "", 500},
		"JSON":                 {secret, `{"to":"+12065550100"}`, 500},
		"the wrong namespace":  {secret, strings.ReplaceAll(good, "2005/09/outbound", "2005/09/inbound"), 500},
	} {
		t.Run(name, func(t *testing.T) {
			w := r.post(c.secret, []byte(c.body))
			if w.Code != c.status || strings.Contains(w.Body.String(), ">true<") {
				t.Errorf("HTTP %d %.200s", w.Code, w.Body)
			}
		})
	}
	if n := r.head(); n != 0 || r.provider.Attempts() != 0 {
		t.Errorf("%d events, %d sends", n, r.provider.Attempts())
	}
}

func TestNothingIsAckedWithoutALedger(t *testing.T) {
	r := newRig(t)
	if err := r.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	if w := r.post(secret, outbound.Render(message(1, nil))); w.Code != 500 || strings.Contains(w.Body.String(), ">true<") {
		t.Errorf("HTTP %d %s", w.Code, w.Body)
	}
}
