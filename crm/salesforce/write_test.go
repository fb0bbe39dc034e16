package salesforce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heed-sms/heed/crm"
)

func extras(c *Config) {
	c.Objects[0].DateField, c.Objects[0].SourceField, c.Objects[0].TextField = "Out_At__c", "Out_By__c", "Out_Text__c"
}

func TestTrap25OnlyTheConfiguredFieldsAreSent(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Config)
		want string
	}{
		"a checkbox":            {func(*Config) {}, `SMS_Opt_Out__c=true attributes={"type":"Contact"}`},
		"an inverted checkbox":  {func(c *Config) { c.Objects[0].OptOut.Inverted = true }, `SMS_Opt_Out__c=false attributes={"type":"Contact"}`},
		"a picklist":            {func(c *Config) { c.Objects[0].OptOut = OptOut{Field: "C__c", Out: "Out", In: "In"} }, `C__c="Out" attributes={"type":"Contact"}`},
		"a namespaced field":    {func(c *Config) { c.Objects[0].OptOut.Field = "ns__SMSOptOut__c" }, `attributes={"type":"Contact"} ns__SMSOptOut__c=true`},
		"with optional fields ": {extras, `Out_At__c="2026-03-01T12:00:00.000Z" Out_By__c="sms_reply" Out_Text__c="STOP" SMS_Opt_Out__c=true attributes={"type":"Contact"}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, func(w http.ResponseWriter, r *http.Request) {
				b, ids := readPatch(t, r)
				var fields []string
				for k, v := range b.Records[0] {
					if k != "id" {
						fields = append(fields, k+"="+string(v))
					}
				}
				slices.Sort(fields)
				if got := strings.Join(fields, " "); got != c.want {
					t.Errorf("sent %s\nwant %s", got, c.want)
				}
				io.WriteString(w, array([]string{rowOK(ids[0])}))
			})
			if r := writeContacts(t, s.open(t, c.edit), 1); r[0].Err != nil {
				t.Error(r[0].Err)
			}
		})
	}
}

func TestTrap30EachRowIsJudgedByItself(t *testing.T) {
	ok := func(n int) string { return rowOK(contactID(n)) }
	for _, c := range []struct {
		name   string
		answer string
		want   [3]crm.Class // "" is success
	}{
		{"all good", array([]string{ok(1), ok(2), ok(3)}), [3]crm.Class{}},
		{"one locked", array([]string{ok(1), rowFail("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record"), ok(3)}), [3]crm.Class{"", crm.RetryNow, ""}},
		{"a rule, a deleted and a converted one", array([]string{rowFail("FIELD_CUSTOM_VALIDATION_EXCEPTION", "Ask Legal first"), rowFail("ENTITY_IS_DELETED", "entity is deleted"), rowFail("CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead")}), [3]crm.Class{crm.Park, crm.Gone, crm.Gone}},
		{"another order", array([]string{ok(3), ok(1), ok(2)}), [3]crm.Class{}},
		{"a shorter answer", array([]string{ok(1), ok(3)}), [3]crm.Class{"", crm.RetryNow, ""}},
		{"an empty answer", "[]", [3]crm.Class{crm.RetryNow, crm.RetryNow, crm.RetryNow}},
		{"a foreign record", array([]string{ok(1), ok(9), ok(3)}), [3]crm.Class{"", crm.RetryNow, ""}},
		{"no word of success", `[{"id":"` + contactID(1) + `"},{"id":"` + contactID(2) + `","success":false},{"id":"` + contactID(3) + `","success":true,"errors":[{"statusCode":"UNKNOWN_EXCEPTION"}]}]`, [3]crm.Class{crm.Park, crm.Park, crm.RetryLater}},
		{"an unknown code", array([]string{rowFail("NEVER_HEARD_OF", "x"), ok(2), ok(3)}), [3]crm.Class{crm.Park, "", ""}},
		{"an object instead of rows", `{"results":[]}`, [3]crm.Class{crm.RetryLater, crm.RetryLater, crm.RetryLater}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := play(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, c.answer) })
			for i, r := range writeContacts(t, s.open(t), 3) {
				if got := crm.ClassOf(r.Err); (r.Err == nil) != (c.want[i] == "") || r.Err != nil && got != c.want[i] {
					t.Errorf("row %d: %v, want %q", i, r.Err, c.want[i])
				}
			}
		})
	}
}

func TestRowsThatFailForAnOptionalFieldAreWrittenWithoutIt(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		b, ids := readPatch(t, r)
		rows := make([]string, len(ids))
		for i, rec := range b.Records {
			if rows[i] = rowOK(ids[i]); rec["Out_Text__c"] != nil {
				rows[i] = rowFail("INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update fields: Out_Text__c.", "Out_Text__c")
			}
		}
		io.WriteString(w, array(rows))
	})
	o := s.open(t, extras)
	for round, calls := range []int64{2, 3} { // the second round does not try the field again
		for i, r := range writeContacts(t, o, 3) {
			if r.Err != nil {
				t.Errorf("row %d: %v", i, r.Err)
			}
		}
		if s.calls.Load() != calls {
			t.Errorf("%d calls after round %d, want %d", s.calls.Load(), round, calls)
		}
	}
	if r := o.objects[0].refused.Load(); r == nil || !strings.Contains(r.text, "Out_Text__c") {
		t.Errorf("the refusal is not remembered: %+v", r)
	}
	o.now = func() time.Time { return time.Now().Add(extrasPause + time.Second) }
	writeContacts(t, o, 1)
	if s.calls.Load() != 5 {
		t.Errorf("after the pause the field is not tried again: %d calls", s.calls.Load())
	}
}

func TestACallThatFailsForAnOptionalFieldIsMadeWithoutIt(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		b, ids := readPatch(t, r)
		if b.Records[0]["Out_At__c"] != nil {
			w.WriteHeader(400)
			io.WriteString(w, `[{"errorCode":"INVALID_FIELD","message":"No such column 'Out_At__c' on sobject of type Contact"}]`)
			return
		}
		io.WriteString(w, array([]string{rowOK(ids[0]), rowOK(ids[1])}))
	})
	for _, r := range writeContacts(t, s.open(t, extras), 2) {
		if r.Err != nil {
			t.Error(r.Err)
		}
	}
}

func TestAFailureOfTheBoxItselfIsNotBlamedOnOptionalFields(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet { // is it a person account's?
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `[{"errorCode":"INVALID_FIELD","message":"No such column 'IsPersonAccount' on entity 'Contact'"}]`)
			return
		}
		io.WriteString(w, array([]string{rowFail("INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update fields", "SMS_Opt_Out__c")}))
	})
	o := s.open(t, extras)
	for _, calls := range []int64{2, 3} { // which is asked once
		if e := asError(t, writeContacts(t, o, 1)[0].Err); e.Class != crm.Park || !slices.Contains(e.Fields, "SMS_Opt_Out__c") {
			t.Errorf("%+v", e)
		}
		if s.calls.Load() != calls || o.objects[0].refused.Load() != nil {
			t.Errorf("%d calls, want %d; refusal %v", s.calls.Load(), calls, o.objects[0].refused.Load())
		}
	}
}

func TestATriggerThatFailsAWholeChunkIsHalvedToTheCulprit(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		_, ids := readPatch(t, r)
		rows := make([]string, len(ids))
		for i := range ids {
			if rows[i] = rowOK(ids[i]); slices.Contains(ids, contactID(150)) {
				rows[i] = rowFail("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "SlowTrigger: execution of BeforeUpdate")
			}
		}
		io.WriteString(w, array(rows))
	})
	failed := 0
	for i, r := range writeContacts(t, s.open(t), 200) {
		if r.Err != nil {
			failed++
			if i != 149 {
				t.Errorf("row %d: %v", i, r.Err)
			}
		}
	}
	if failed != 1 || s.calls.Load() > maxHalvings {
		t.Errorf("%d rows failed after %d calls", failed, s.calls.Load())
	}
}

func TestATriggerThatAlwaysFailsIsGivenUp(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		_, ids := readPatch(t, r)
		io.WriteString(w, array(slices.Repeat([]string{rowFail("CANNOT_EXECUTE_FLOW_TRIGGER", "flow failed")}, len(ids))))
	})
	for i, r := range writeContacts(t, s.open(t), 200) {
		if crm.ClassOf(r.Err) != crm.Park || r.Err == nil {
			t.Fatalf("row %d: %v", i, r.Err)
		}
	}
	if n := s.calls.Load(); n > maxHalvings {
		t.Errorf("%d calls, want at most %d", n, maxHalvings)
	}
}

func TestCallsHaveAtMost200RowsInTenRunsOfAType(t *testing.T) {
	var jobs []*job
	for i := range 12 {
		obj := newObject(Object{Object: fmt.Sprintf("O%d__c", i)})
		for range 30 {
			jobs = append(jobs, &job{obj: obj})
		}
	}
	total := 0
	for _, c := range chunks(jobs) {
		runs := 1
		for i := 1; i < len(c); i++ {
			if c[i].obj != c[i-1].obj {
				runs++
			}
		}
		if len(c) > maxRows || runs > maxRuns || len(c) == 0 {
			t.Errorf("a call of %d rows in %d runs", len(c), runs)
		}
		total += len(c)
	}
	if total != len(jobs) {
		t.Errorf("%d rows in all, want %d", total, len(jobs))
	}
}

func TestWritesAreSentByFewAtATime(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		_, ids := readPatch(t, r)
		rows := make([]string, len(ids))
		for i := range ids {
			rows[i] = rowOK(ids[i])
		}
		io.WriteString(w, array(rows))
		mu.Lock()
		running--
		mu.Unlock()
	})
	for i, r := range writeContacts(t, s.open(t), 1500) {
		if r.Err != nil {
			t.Fatalf("row %d: %v", i, r.Err)
		}
	}
	if most > maxWriters || s.calls.Load() != 8 {
		t.Errorf("%d at once in %d calls", most, s.calls.Load())
	}
}

func TestMalformedAndCancelledWritesAreNotSent(t *testing.T) {
	s := play(t, func(http.ResponseWriter, *http.Request) { t.Error("a call was made") })
	o := s.open(t)
	for _, k := range []crm.Key{{Object: "Contact", ID: "003' OR"}, {Object: "Account", ID: contactID(1)}, {}} {
		if r := o.Write(t.Context(), []crm.Write{{Key: k}}); r[0].Err == nil || crm.ClassOf(r[0].Err) != crm.Bug || r[0].Key != k {
			t.Errorf("%v: %+v", k, r)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := o.Write(ctx, []crm.Write{{Key: crm.Key{Object: "Contact", ID: contactID(1)}}}); !errors.Is(r[0].Err, context.Canceled) {
		t.Errorf("%+v", r)
	}
}

func TestEveryCodeHasAClassThatIsOneOfFive(t *testing.T) {
	known := []crm.Class{crm.RetryNow, crm.RetryLater, crm.Park, crm.Gone, crm.Bug}
	for code, class := range classes {
		if !slices.Contains(known, class) {
			t.Errorf("%s is %q", code, class)
		}
		if got := rowError(200, []apiError{{StatusCode: code, Message: "m", Fields: []string{"F"}}}); got.Class != class || got.Code != code || got.Text != "m" || len(got.Fields) != 1 {
			t.Errorf("%s as a row: %+v", code, got)
		}
	}
}

func TestUsageIsReadByItsKey(t *testing.T) {
	for in, want := range map[string]struct{ used, max int }{
		"api-usage=10018/100000":                                 {10018, 100000},
		"api-bursts=1/750; api-usage=5/10":                       {5, 10},
		"per-app-api-usage=17/250(appName=x); api-usage=18/5000": {18, 5000},
		"per-app-api-usage=17/250(appName=x)":                    {},
		"api-usage=x/5":                                          {}, "": {}, "api-usage=5": {}, "api-usage=5/0": {},
	} {
		used, max, ok := parseUsage(in)
		if used != want.used || max != want.max || ok != (max > 0) {
			t.Errorf("%q reads as %d/%d", in, used, max)
		}
	}
}
