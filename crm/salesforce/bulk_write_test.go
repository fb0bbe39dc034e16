package salesforce_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/salesforce"
	"github.com/heed-sms/heed/crm/salesforce/salesforcefake"
)

const many = 2100 // more than collections are for

func (w *world) many(t *testing.T, n int) []crm.Write {
	t.Helper()
	writes := make([]crm.Write, n)
	for i := range writes {
		writes[i] = crm.Write{Key: w.Create(t, "Contact", nil, false), OptedOut: true, At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Source: "sms_reply", Text: `STOP, "now"`}
	}
	return writes
}

// honest demands that each result says of its record what is in the org, and returns how many were written and the classes of
// the others.
func (w *world) honest(t *testing.T, writes []crm.Write, results []crm.Result) (written int, classes map[crm.Class]int) {
	t.Helper()
	classes = map[crm.Class]int{}
	for i, r := range results {
		if r.Key != writes[i].Key {
			t.Fatalf("result %d is of %v, not %v", i, r.Key, writes[i].Key)
		}
		if r.Err != nil {
			classes[crm.ClassOf(r.Err)]++
			continue
		}
		written++
		if rec, ok := w.org.Get(r.Object, r.ID); !ok || rec["SMS_Opt_Out__c"] != writes[i].OptedOut {
			t.Fatalf("%v is reported as written and is %v", r.Key, rec["SMS_Opt_Out__c"])
		}
	}
	return written, classes
}

func withExtras(c *salesforce.Config) {
	o := &c.Objects[0]
	o.DateField, o.SourceField, o.TextField = "SMS_Opt_Out_Date__c", "SMS_Opt_Out_Source__c", "SMS_Opt_Out_Text__c"
}

func TestManyBoxesGoThroughAnIngestJobAndEachHasItsOwnResult(t *testing.T) {
	w := newWorld(t, withExtras)
	writes := w.many(t, many)
	locked, patient, ruled, gone := writes[10], writes[11], writes[12], writes[13]
	writes[15].Text = "" // which empties the field
	if err := w.org.Update("Contact", writes[15].ID, map[string]any{"SMS_Opt_Out_Text__c": "of another time"}); err != nil {
		t.Fatal(err)
	}
	w.Delete(t, gone.Key)
	w.knob(t, func(k *salesforcefake.Knobs) {
		k.BulkPolls = 2
		k.LockIDs = map[string]int{locked.ID: -1, patient.ID: 2}
		k.ValidationRules = []salesforcefake.ValidationRule{{Object: "Contact", Field: "SMS_Opt_Out__c", IDs: []string{ruled.ID}, Message: "Ask Legal: first, please"}}
	})
	results := w.driver.Write(t.Context(), writes)
	written, classes := w.honest(t, writes, results)
	if written != many-3 || classes[crm.RetryNow] != 1 || classes[crm.Park] != 1 || classes[crm.Gone] != 1 {
		t.Errorf("%d written, %v", written, classes)
	}
	e, _ := results[12].Err.(*crm.Error)
	if e == nil || e.Code != "FIELD_CUSTOM_VALIDATION_EXCEPTION" || e.Text != "Ask Legal: first, please" || !slices.Equal(e.Fields, []string{"SMS_Opt_Out__c"}) {
		t.Errorf("the rule's refusal is %+v", e)
	}
	if n := calls(w); n["bulk_ingest_create"] != 1 || n["bulk_ingest_delete"] != 1 || n["collections_update"] > 8 {
		t.Errorf("calls %v", n)
	}
	for i, want := range map[int]any{14: `STOP, "now"`, 15: nil} {
		if rec, _ := w.org.Get("Contact", writes[i].ID); rec["SMS_Opt_Out_Text__c"] != want || rec["SMS_Opt_Out_Source__c"] != "sms_reply" || rec["SMS_Opt_Out_Date__c"] != "2026-03-01T12:00:00.000+0000" {
			t.Errorf("%d: %v", i, rec)
		}
	}
}

func TestOnlyManyTicksOfOneObjectMakeAJob(t *testing.T) {
	w := newWorld(t)
	writes := w.many(t, many)
	for i := range writes[200:] {
		writes[200+i].OptedOut = false
	}
	if written, _ := w.honest(t, writes, w.driver.Write(t.Context(), writes)); written != many {
		t.Errorf("%d written", written)
	}
	for i := range writes {
		writes[i].OptedOut = true
	}
	w.driver = w.open(t, func(c *salesforce.Config) { c.Bulk = salesforce.BulkNever })
	if written, _ := w.honest(t, writes, w.driver.Write(t.Context(), writes)); written != many {
		t.Errorf("%d written", written)
	}
	if n := calls(w); n["bulk_ingest_create"] != 0 {
		t.Errorf("calls %v", n)
	}
}

func TestAnIngestJobThatEndsBadlyLosesNothing(t *testing.T) {
	for _, c := range []struct {
		name       string
		knobs      func(*salesforcefake.Knobs)
		edit       func(*salesforce.Config)
		all        bool // is written all the same
		jobs       int
		collection bool
	}{
		{name: "it fails half way", knobs: func(k *salesforcefake.Knobs) { k.NextBulk = []string{"fail"} }, all: true, jobs: 1, collection: true},
		{name: "somebody aborts it", knobs: func(k *salesforcefake.Knobs) { k.NextBulk = []string{"abort"} }, jobs: 1},
		{name: "the feature is off", knobs: func(k *salesforcefake.Knobs) { k.NextBulk = []string{"disabled"} }, all: true, jobs: 1, collection: true},
		{name: "a lost creation", knobs: func(k *salesforcefake.Knobs) { k.NextWrite = []string{"apply_then_503"} }, all: true, jobs: 1},
		{name: "a lost upload", knobs: func(k *salesforcefake.Knobs) { k.NextWrite = []string{"ok", "apply_then_503"} }, all: true, jobs: 2},
		{name: "uploads that are refused", knobs: func(k *salesforcefake.Knobs) { k.NextWrite = []string{"ok", "503", "ok", "ok", "ok", "503"} }, all: true, jobs: 2, collection: true},
		{name: "a lost beginning", knobs: func(k *salesforcefake.Knobs) { k.NextWrite = []string{"ok", "ok", "apply_then_503"} }, all: true, jobs: 1},
		{name: "an optional field is hidden", knobs: func(k *salesforcefake.Knobs) { k.HiddenFields = []string{"Contact.SMS_Opt_Out_Text__c"} }, edit: withExtras, all: true, jobs: 1, collection: true},
		{name: "an optional field is read-only", knobs: func(k *salesforcefake.Knobs) { k.ReadOnlyFields = []string{"Contact.SMS_Opt_Out_Text__c"} }, edit: withExtras, all: true, jobs: 1, collection: true},
		{name: "half of the rows is locked", knobs: func(k *salesforcefake.Knobs) { k.LockRate, k.Seed = 0.5, 3 }, jobs: 1, collection: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			edits := []func(*salesforce.Config){}
			if c.edit != nil {
				edits = append(edits, c.edit)
			}
			w := newWorld(t, edits...)
			writes := w.many(t, many)
			w.knob(t, c.knobs)
			results := w.driver.Write(t.Context(), writes)
			written, classes := w.honest(t, writes, results)
			if c.all != (written == many) || written+classes[crm.RetryNow] != many {
				t.Errorf("%d written, %v; %v; log %s", written, classes, results[0].Err, w.log.String())
			}
			if n := calls(w); n["bulk_ingest_create"] != c.jobs || c.collection != (n["collections_update"] > 0) {
				t.Errorf("calls %v", n)
			}
			if c.name == "the feature is off" {
				w.driver.Write(t.Context(), writes)
				if n := calls(w); n["bulk_ingest_create"] != 1 {
					t.Errorf("it is asked for again at once: %v", n)
				}
			}
			w.knob(t, func(k *salesforcefake.Knobs) { k.LockRate = 0 })
			if written, classes := w.honest(t, writes, w.driver.Write(t.Context(), writes)); written != many {
				t.Errorf("the second time %d are written, %v", written, classes)
			}
		})
	}
}

func TestAnIngestJobThatTakesTooLongIsEndedAndTellsWhatItDid(t *testing.T) {
	w := newWorld(t)
	writes := w.many(t, many)
	w.knob(t, func(k *salesforcefake.Knobs) { k.NextBulk = []string{"stuck"} })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // less than what is kept for ending the job
	defer cancel()
	written, classes := w.honest(t, writes, w.driver.Write(ctx, writes))
	if n := calls(w); written+classes[crm.RetryNow] != many || n["bulk_ingest_patch"] != 2 || n["bulk_ingest_delete"] != 1 {
		t.Errorf("%d written, %v; calls %v", written, classes, n)
	}
	if written, _ := w.honest(t, writes, w.driver.Write(t.Context(), writes)); written != many {
		t.Errorf("then %d", written)
	}
	if n := calls(w); n["bulk_ingest_create"] != 1 {
		t.Errorf("the next job would wait as long, and is made: %v", n)
	}
}

// forget drops every third row of the results on their way.
func forget(which string) func(http.Handler) http.Handler {
	inner := meddle(func(_ int, _ http.Header, lines []string) []string {
		out := lines[:1:1]
		for i, l := range lines[1:] {
			if i%3 != 0 {
				out = append(out, l)
			}
		}
		return out
	}, which)
	return inner
}

func TestARowWithoutAResultIsNeverASuccess(t *testing.T) {
	w := newWorldBehind(t, forget("/successfulResults"))
	writes := w.many(t, many)
	written, classes := w.honest(t, writes, w.driver.Write(t.Context(), writes))
	if written != many*2/3 || classes[crm.RetryNow] != many/3 {
		t.Errorf("%d written, %v", written, classes)
	}
	w = newWorldBehind(t, forget("/failedResults"))
	writes = w.many(t, many)
	locks := map[string]int{}
	for _, x := range writes[:30] {
		locks[x.ID] = -1
	}
	w.knob(t, func(k *salesforcefake.Knobs) { k.LockIDs = locks })
	if written, classes := w.honest(t, writes, w.driver.Write(t.Context(), writes)); written != many-30 || classes[crm.RetryNow] != 30 {
		t.Errorf("%d written, %v", written, classes)
	}
}

func TestContactsOfPersonAccountsAreWrittenThroughTheirAccounts(t *testing.T) {
	for name, n := range map[string]int{"few": 5, "many": many} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, withExtras)
			w.knob(t, func(k *salesforcefake.Knobs) { k.PersonAccounts = true })
			writes := w.many(t, n)
			var persons []crm.Key
			for i := range 3 {
				account := w.org.Insert("Account", map[string]any{"LastName": fmt.Sprint("Person", i), "PersonMobilePhone": "4155550111"})
				rec, _ := w.org.Get("Account", account)
				k := crm.Key{Object: "Contact", ID: rec["PersonContactId"].(string)}
				persons = append(persons, k)
				writes = append(writes, crm.Write{Key: k, OptedOut: true, Source: "sms_reply", Text: "STOP"})
			}
			if err := w.org.UpdateAs(w.org.UserID(), "Contact", persons[0].ID, map[string]any{"SMS_Opt_Out__c": true}); err == nil {
				t.Fatal("the org lets a person's contact be written directly")
			}
			all, _, err := w.scan(t, crm.Key{})
			if r := all[persons[1]]; err != nil || len(r.Phones) != 1 || r.OptedOut {
				t.Errorf("a person is read as %+v, %v", r, err)
			}
			for round := range 2 {
				if written, classes := w.honest(t, writes, w.driver.Write(t.Context(), writes)); written != len(writes) {
					t.Errorf("round %d: %d of %d written, %v", round, written, len(writes), classes)
				}
			}
			rec, _ := w.org.Get("Contact", persons[2].ID)
			if rec["SMS_Opt_Out__c"] != true || rec["SMS_Opt_Out_Text__c"] != "STOP" {
				t.Errorf("%v", rec)
			}
			if n == 5 {
				if c := calls(w); c["collections_update"] != 2+2 { // refused and then through the accounts; the second time at once
					t.Errorf("calls %v", c)
				}
			}
			if r := w.driver.Annotate(t.Context(), []crm.Note{{Key: persons[0], Field: "SMS_Opt_Out_Source__c", Text: "sent"}}); r[0].Err != nil {
				t.Error(r[0].Err)
			}
			if rec, _ := w.org.Get("Contact", persons[0].ID); rec["SMS_Opt_Out_Source__c"] != "sent" {
				t.Errorf("%v", rec)
			}
			w.knob(t, func(k *salesforcefake.Knobs) {
				k.ReadOnlyFields = []string{"Account.SMS_Opt_Out__pc", "Contact.SMS_Opt_Out__c"}
			})
			one := writes[len(writes)-1:]
			if r := w.driver.Write(t.Context(), one); crm.ClassOf(r[0].Err) != crm.Park || !strings.Contains(r[0].Err.Error(), "INVALID_FIELD") {
				t.Errorf("read-only: %v", r[0].Err)
			}
		})
	}
}
