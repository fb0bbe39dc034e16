package salesforce

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/crm"
)

// hours is a clock that the test moves.
type hours struct{ t time.Time }

func (h *hours) now() time.Time { return h.t }

// spent plays an organisation of whose 1000 calls a share is used; it counts reads and writes.
func spent(t *testing.T, used *int, reads, writes *int) *script {
	return play(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Sforce-Limit-Info", fmt.Sprintf("api-usage=%d/1000", *used))
		if *used >= 1000 {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `[{"errorCode":"REQUEST_LIMIT_EXCEEDED","message":"TotalRequests Limit exceeded."}]`)
			return
		}
		if r.Method == http.MethodPatch {
			*writes++
			_, ids := readPatch(t, r)
			io.WriteString(w, array([]string{rowOK(ids[0])}))
			return
		}
		*reads++
		io.WriteString(w, result(""))
	})
}

func TestOptOutsAreWrittenAfterReadsAndReportsHaveGivenUp(t *testing.T) {
	var used, reads, writes int
	s := spent(t, &used, &reads, &writes)
	clock := &hours{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	o := s.open(t)
	o.now = clock.now
	for _, step := range []struct {
		used                  int
		reads, reports, write bool // are made
	}{
		{100, true, true, true}, {799, true, true, true}, {800, true, false, true}, {899, true, false, true},
		{900, false, false, true}, {999, false, false, true}, {100, true, true, true},
	} {
		used = step.used
		if r := writeContacts(t, o, 1); (r[0].Err == nil) != step.write { // and its answer says how much is used
			t.Errorf("%d used: the write: %v", used, r[0].Err)
		}
		before := reads
		_, _, err := scanAll(t, o, crm.Key{})
		if step.reads != (err == nil) || step.reads != (reads > before) || err != nil && (asError(t, err).Code != BudgetCode || crm.ClassOf(err) != crm.RetryLater) {
			t.Errorf("%d used: reading: %v", used, err)
		}
		before = reads
		_, err = o.BoxChanges(t.Context(), []crm.Key{{Object: "Contact", ID: contactID(1)}})
		if step.reports != (err == nil) || step.reports != (reads > before) {
			t.Errorf("%d used: the history: %v", used, err)
		}
	}
}

func TestACountOfTheBudgetIsNotBelievedForEver(t *testing.T) {
	used, reads, writes := 950, 0, 0
	s := spent(t, &used, &reads, &writes)
	clock := &hours{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	o := s.open(t)
	o.now = clock.now
	writeContacts(t, o, 1)
	_, _, err := scanAll(t, o, crm.Key{})
	e := asError(t, err)
	if e.Code != BudgetCode || e.RetryAfter != usageLife || !strings.Contains(e.Text, "of the organisation's 1000 API calls of 24 hours more than 90 % are used") || !strings.Contains(s.logged(), "only boxes are written") {
		t.Fatalf("%+v; log %s", e, s.logged())
	}
	used = 951
	writeContacts(t, o, 1)
	if _, _, err := scanAll(t, o, crm.Key{}); asError(t, err).Text != e.Text {
		t.Errorf("a report that is made each minute would change each minute: %v", err)
	}
	clock.t = clock.t.Add(e.RetryAfter)
	used = 300
	if _, _, err := scanAll(t, o, crm.Key{}); err != nil {
		t.Errorf("later: %v", err)
	}
	used = 950
	writeContacts(t, o, 1)
	fs := o.Probe(t.Context())
	if said := fmt.Sprint(fs); !strings.Contains(said, "reads nothing") || reads == 0 {
		t.Errorf("heed check does not say it: %v", said)
	}
	o2 := s.open(t, func(c *Config) { c.APIBudget = 100 })
	writeContacts(t, o2, 1)
	if _, _, err := scanAll(t, o2, crm.Key{}); err != nil {
		t.Errorf("api_budget: 100: %v", err)
	}
}

func TestAtTheLimitOnlyAWriteLooksNowAndThenWhetherItIsOver(t *testing.T) {
	used, reads, writes := 1000, 0, 0
	s := spent(t, &used, &reads, &writes)
	clock := &hours{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	o := s.open(t)
	o.now = clock.now
	try := func(what string, calls int64, wait time.Duration, err error, before int64) {
		t.Helper()
		if made := s.calls.Load() - before; made != calls {
			t.Errorf("%s: %d calls, want %d", what, made, calls)
		}
		if e := asError(t, err); e.Code != "REQUEST_LIMIT_EXCEEDED" || e.RetryAfter != wait || e.Class != crm.RetryLater {
			t.Errorf("%s: %+v", what, e)
		}
	}
	n := s.calls.Load()
	try("the first write", 1, time.Minute, writeContacts(t, o, 1)[0].Err, n)
	n = s.calls.Load()
	try("the next", 0, time.Minute, writeContacts(t, o, 1)[0].Err, n)
	n = s.calls.Load()
	_, _, err := scanAll(t, o, crm.Key{})
	try("a read", 0, 15*time.Minute, err, n)
	clock.t = clock.t.Add(time.Minute)
	n = s.calls.Load()
	_, _, err = scanAll(t, o, crm.Key{})
	try("a read a minute later", 0, 14*time.Minute, err, n)
	try("a write a minute later", 1, time.Minute, writeContacts(t, o, 1)[0].Err, n)
	used = 999
	clock.t = clock.t.Add(time.Minute)
	if r := writeContacts(t, o, 1); r[0].Err != nil || writes != 1 {
		t.Errorf("with calls to spare: %v", r[0].Err)
	}
	if r := writeContacts(t, o, 1); r[0].Err != nil {
		t.Errorf("and at once: %v", r[0].Err)
	}
}
