package hooks_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/hooks"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/crmtest"
	"github.com/heed-sms/heed/crm/salesforce/outbound"
	"github.com/heed-sms/heed/sms"
)

func TestATemplateIsFilledOrNotSent(t *testing.T) {
	fields := map[string]string{"FirstName": "Ann {{LastName}}", "Time__c": "5 pm", "Empty": " ", "Owner.Name": "Bob"}
	for template, want := range map[string]string{
		"Hi {{FirstName}}, see you at {{ Time__c }}!": "Hi Ann {{LastName}}, see you at 5 pm!", // a value is no template
		"{{Owner.Name}}": "Bob", "no placeholder": "no placeholder", "{one} brace": "{one} brace",
	} {
		if problem := hooks.CheckTemplate(template); problem != "" {
			t.Errorf("%q %s", template, problem)
		}
		if got, err := hooks.Fill(template, fields); err != nil || got != want {
			t.Errorf("%q gave %q, %v", template, got, err)
		}
	}
	for _, template := range []string{"Hi {{Missing}}", "Hi {{Empty}}"} {
		var in *connector.InputError
		if _, err := hooks.Fill(template, fields); !errors.As(err, &in) || strings.Contains(err.Error(), "Ann") {
			t.Errorf("%q: %v", template, err)
		}
	}
	for _, template := range []string{"", "  ", "{{}}", "{{First Name}}", "{{ FirstName }", "{{{FirstName}}}", "{{1}}"} {
		if hooks.CheckTemplate(template) == "" && template != "{{{FirstName}}}" {
			t.Errorf("template %q is taken", template)
		}
	}
}

func TestANotificationIsSentByTemplateAndItsOutcomeIsLeftOnTheRecord(t *testing.T) {
	r := newRig(t)
	org := crmtest.New(time.Now)
	ann, bob, eve := org.Person("Contact", "+12065550100", false), org.Person("Contact", "+12065550101", false), org.Person("Contact", "+12065550102", false)
	gone := org.Ghost("Contact")
	r.hook(hooks.Hook{Secret: secret, CRM: "sf", OrgID: orgID, To: "MobilePhone", Template: "Hi {{FirstName}}", Campaign: "Campaign__c", Name: "default", Status: "SMS_Status__c"})
	notes := &connector.Notes{Ledger: r.ledger, CRMs: []connector.CRM{{Name: "sf", Directory: org}}, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	keys := []crm.Key{ann, bob, eve, gone}
	m := message(5, func(i int, f map[string]string) {
		delete(f, "SMS_Body__c")
		f["FirstName"] = []string{"Ann", "Bob", "Eve", "Max", ""}[i]
		if i == 1 {
			f["Campaign__c"] = "spring"
		}
		if i == 3 { // on a record that is gone, and to Eve, so that two sends reach the provider
			f["MobilePhone"] = "(206) 555-0102"
		}
	})
	for i, k := range keys {
		m.Notifications[i].RecordID = k.ID
	}
	if _, err := r.inbox.Receive(t.Context(), "main", r.provider.Text("+12065550102", "+15550100000", "STOP", sms.FlagNone), ""); err != nil {
		t.Fatal(err)
	}
	if w := r.post(secret, outbound.Render(m)); w.Code != 200 {
		t.Fatalf("HTTP %d %s", w.Code, w.Body)
	}
	r.provider.FailNext(nil, &sms.Error{Class: sms.Rejected, Status: 400, Code: "30003"})
	flush := func() {
		t.Helper()
		if err := errors.Join(r.queue.Flush(t.Context()), notes.Flush(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	note := func(k crm.Key) string { return org.Note(k, "SMS_Status__c") }
	both := note(ann) + note(bob)
	if !strings.Contains(both, "sent 20") || !strings.Contains(both, "failed: 30003 20") {
		t.Errorf("left on the records: %q and %q", note(ann), note(bob))
	}
	if !strings.HasPrefix(note(eve), "blocked: opted_out 20") || !strings.HasSuffix(note(eve), " UTC") {
		t.Errorf("left on the opted-out record: %q", note(eve))
	}
	s, err := r.ledger.Stats(t.Context())
	if err != nil || s.Owed[ledger.OweNote] != 0 || s.Quarantine != 1 { // the one without a name
		t.Errorf("%d notes owed, %d in quarantine, %v", s.Owed[ledger.OweNote], s.Quarantine, err)
	}
	campaigns := map[string]int{}
	texts := map[string]bool{}
	for m, err := range r.ledger.Messages(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		campaigns[m.Campaign]++
		texts[m.Body] = true
	}
	if campaigns["spring"] != 1 || campaigns["default"] != 3 || !texts["Hi Ann"] || !texts["Hi Eve"] {
		t.Errorf("campaigns %v, texts %v", campaigns, texts)
	}
	// What the provider says later is left there too.
	for m, err := range r.ledger.Messages(t.Context(), ledger.StatusSent) {
		if err != nil {
			t.Fatal(err)
		}
		if *m.Record != ann && *m.Record != bob {
			continue
		}
		if _, err := r.ledger.Append(t.Context(), ledger.Event{Kind: ledger.KindStatus, At: time.Now(), Number: m.To,
			Status: &ledger.StatusTold{Account: m.Account, ProviderID: m.ProviderID, Message: m.ID, Delivery: "delivered"}}); err != nil {
			t.Fatal(err)
		}
		flush()
		if !strings.HasPrefix(note(*m.Record), "delivered 20") {
			t.Errorf("left after delivery: %q", note(*m.Record))
		}
	}
}

func TestANoteThatTheCRMRefusesIsParkedAndOneThatItCannotTakeNowIsTriedAgain(t *testing.T) {
	r := newRig(t)
	org := crmtest.New(time.Now)
	ann, bob := org.Person("Contact", "+12065550100", false), org.Person("Contact", "+12065550101", false)
	org.FailWrites(ann, &crm.Error{Class: crm.Park, Text: "Ask Legal first"}, &crm.Error{Class: crm.Park, Text: "Ask Legal first"})
	org.FailWrites(bob, &crm.Error{Class: crm.RetryNow, Text: "locked"})
	r.hook(hooks.Hook{Secret: secret, CRM: "sf", OrgID: orgID, To: "MobilePhone", Body: "SMS_Body__c", Status: "SMS_Status__c"})
	notes := &connector.Notes{Ledger: r.ledger, CRMs: []connector.CRM{{Name: "sf", Directory: org}}, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	m := message(2, nil)
	m.Notifications[0].RecordID, m.Notifications[1].RecordID = ann.ID, bob.ID
	if w := r.post(secret, outbound.Render(m)); w.Code != 200 {
		t.Fatalf("HTTP %d %s", w.Code, w.Body)
	}
	if err := errors.Join(r.queue.Flush(t.Context()), notes.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	before := r.head()
	for range 2 { // asked again, refused again: nothing new to record
		if err := errors.Join(r.ledger.Hurry(t.Context(), ledger.OweNote), notes.Flush(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.HasPrefix(org.Note(bob, "SMS_Status__c"), "sent 20") {
		t.Errorf("bob has %q", org.Note(bob, "SMS_Status__c"))
	}
	if !strings.HasPrefix(org.Note(ann, "SMS_Status__c"), "sent 20") { // the third time it was taken
		t.Errorf("ann has %q", org.Note(ann, "SMS_Status__c"))
	}
	if n := r.head() - before; n != 2 {
		t.Errorf("%d events, want one for each note that was left", n)
	}
}
