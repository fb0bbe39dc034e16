package salesforce_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/salesforce"
	"github.com/heed-sms/heed/crm/salesforce/salesforcefake"
)

func bulkAlways(c *salesforce.Config) { c.Bulk = salesforce.BulkAlways }

func (w *world) knob(t *testing.T, set func(*salesforcefake.Knobs)) {
	t.Helper()
	if err := w.org.SetKnobs(set); err != nil {
		t.Fatal(err)
	}
}

// scan reads everything behind a key and returns each record once, with how many pages there were.
func (w *world) scan(t *testing.T, after crm.Key) (map[crm.Key]crm.Record, []crm.Page, error) {
	t.Helper()
	all := map[crm.Key]crm.Record{}
	var pages []crm.Page
	for p, err := range w.driver.Scan(t.Context(), after) {
		if err != nil {
			return all, pages, err
		}
		for _, r := range p.Records {
			all[r.Key] = r
		}
		pages = append(pages, p)
	}
	return all, pages, nil
}

func calls(w *world) map[string]int { return w.org.Counters().Calls }

// untidy fills an org with what the two ways of reading could take differently.
func untidy(t *testing.T, w *world, people int) {
	t.Helper()
	w.knob(t, func(k *salesforcefake.Knobs) { k.PersonAccounts = true })
	w.org.Seed(people, 7)
	w.org.Insert("Account", map[string]any{"LastName": "Person", "PersonMobilePhone": "(415) 555-0111", "SMS_Opt_Out__pc": true})
	for i, raw := range []string{`+1 (415) 555-0101 x "9", ask`, "415,555,0102", "#N/A", "null", "  415 555 0103", `"`, "４１５-555-0104"} {
		w.org.Insert("Contact", map[string]any{"LastName": fmt.Sprint("Odd", i), "MobilePhone": raw, "Phone": raw, "SMS_Opt_Out__c": i%2 == 0})
	}
	lead := w.org.Insert("Lead", map[string]any{"LastName": "Converted", "Company": "X", "MobilePhone": "4155550105", "SMS_Opt_Out__c": true})
	if _, err := w.org.Convert(lead, true); err != nil {
		t.Fatal(err)
	}
	a, b := w.org.Insert("Contact", map[string]any{"LastName": "Loser"}), w.org.Insert("Contact", map[string]any{"LastName": "Winner", "Phone": "4155550106"})
	if err := w.org.Merge("Contact", b, []string{a}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestBothWaysOfReadingGiveTheSameRecords(t *testing.T) {
	bulk := newWorld(t, bulkAlways, func(c *salesforce.Config) { c.PageSize = 0 })
	untidy(t, bulk, 4_000)
	got, pages, err := bulk.scan(t, crm.Key{})
	if err != nil {
		t.Fatal(err)
	}
	bulk.driver = bulk.open(t, func(c *salesforce.Config) { c.Bulk, c.PageSize = salesforce.BulkNever, 0 })
	want, _, err := bulk.scan(t, crm.Key{})
	if err != nil {
		t.Fatal(err)
	}
	n := calls(bulk)
	if len(want) < 4_000 || len(got) != len(want) || n["bulk_query_create"] != 2 || n["bulk_query_delete"] != 2 {
		t.Fatalf("%d records by bulk jobs and %d by queries; calls %v", len(got), len(want), n)
	}
	for k, r := range want {
		if g := got[k]; !reflect.DeepEqual(g, r) {
			t.Fatalf("%v\nby a bulk job %+v\nby a query    %+v", k, g, r)
		}
	}
	for _, p := range pages {
		if len(p.Records) > 2000 || p.Total != len(want) {
			t.Errorf("a page has %d records of %d", len(p.Records), p.Total)
		}
	}
}

func TestOnlyLargeObjectsAreReadThroughBulkJobs(t *testing.T) {
	w := newWorld(t, func(c *salesforce.Config) { c.PageSize = 0 })
	w.org.Seed(16_000, 7)
	contacts, leads := w.org.Count("Contact"), w.org.Count("Lead")
	if contacts < 10_000 || leads < 1000 || leads >= 10_000 {
		t.Fatalf("%d contacts and %d leads do not show it", contacts, leads)
	}
	all, pages, err := w.scan(t, crm.Key{})
	n := calls(w)
	if err != nil || len(all) != contacts+leads || n["bulk_query_create"] != 1 {
		t.Fatalf("%d records, %v, calls %v", len(all), err, n)
	}
	w.knob(t, func(k *salesforcefake.Knobs) { k.BulkPolls = 3 })
	before := time.Now().Add(-time.Minute)
	if again, more, err := w.scan(t, crm.Key{}); err != nil || len(again) != len(all) || len(more) != len(pages) || !more[0].AsOf.After(before) {
		t.Errorf("a job that takes its time: %d records in %d pages, as of %v: %v", len(again), len(more), more[0].AsOf, err)
	}
}

func TestAnInterruptedScanGoesOnInTheSameJob(t *testing.T) {
	w := newWorld(t, bulkAlways)
	for i := range 20 {
		w.Create(t, "Contact", []crm.Phone{{Field: "Phone", Raw: fmt.Sprint("41555501", 10+i)}}, false)
	}
	w.Create(t, "Lead", nil, true)
	w.knob(t, func(k *salesforcefake.Knobs) { k.BulkPageRows = 7 })
	seen := map[crm.Key]bool{}
	at, first := crm.Key{}, time.Time{}
	for range 100 {
		stopped := false
		for p, err := range w.driver.Scan(t.Context(), at) {
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range p.Records {
				if seen[r.Key] {
					t.Errorf("%v came twice", r.Key)
				}
				seen[r.Key] = true
			}
			if first.IsZero() {
				first = p.AsOf
			}
			if at.Object == "Contact" && p.Next.Object == "Contact" && !p.AsOf.Equal(first) {
				t.Errorf("a page of the same job is as of %v, not %v", p.AsOf, first)
			}
			at, stopped = p.Next, true
			break // the process ends here; a new one goes on
		}
		w.driver = w.open(t, bulkAlways, func(c *salesforce.Config) { c.PageSize = 3 })
		if !stopped {
			break
		}
	}
	n := calls(w)
	if len(seen) != 21 || n["bulk_query_create"] != 2 {
		t.Errorf("%d records came from %d jobs", len(seen), n["bulk_query_create"])
	}
}

func TestAMarkThatIsOfNoUseAnyMoreIsABug(t *testing.T) {
	w := newWorld(t, bulkAlways)
	for range 8 {
		w.Create(t, "Contact", nil, false)
	}
	mark := func() crm.Key {
		for p, err := range w.driver.Scan(t.Context(), crm.Key{}) {
			if err != nil {
				t.Fatal(err)
			}
			return p.Next
		}
		return crm.Key{}
	}
	at := mark()
	edit := map[string]func(*salesforce.Config){
		"another configuration": func(c *salesforce.Config) { c.Objects[0].Phones = []string{"Phone"} },
		"another API version":   func(c *salesforce.Config) { c.APIVersion = "63.0" },
		"jobs switched off":     func(c *salesforce.Config) { c.Bulk = salesforce.BulkNever },
	}
	for name, e := range edit {
		w.driver = w.open(t, bulkAlways, e)
		if _, _, err := w.scan(t, at); crm.ClassOf(err) != crm.Bug {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.driver = w.open(t, bulkAlways)
	for _, broken := range []string{"bulk", "bulk x", at.ID[:12], strings.Replace(at.ID, " 0 ", " -1 ", 1), strings.Replace(at.ID, "750", "751", 1)} {
		if _, _, err := w.scan(t, crm.Key{Object: "Contact", ID: broken}); crm.ClassOf(err) != crm.Bug {
			t.Errorf("%q: %v", broken, err)
		}
	}
	w.knob(t, func(k *salesforcefake.Knobs) { k.NextBulk = []string{"expire"} })
	at = mark()
	if _, _, err := w.scan(t, at); crm.ClassOf(err) != crm.Bug || !strings.Contains(err.Error(), "7 days") {
		t.Errorf("an expired job: %v", err)
	}
}

func TestAJobThatIsLostWhileItIsReadIsStartedAnew(t *testing.T) {
	w := newWorld(t, bulkAlways)
	for range 20 {
		w.Create(t, "Contact", nil, false)
	}
	w.knob(t, func(k *salesforcefake.Knobs) { k.NextBulk, k.BulkPageRows = []string{"expire"}, 7 })
	all, _, err := w.scan(t, crm.Key{})
	if n := calls(w); err != nil || len(all) != 20 || n["bulk_query_create"] != 3 || !strings.Contains(w.log.String(), "starting another") {
		t.Errorf("%d records, %v, calls %v", len(all), err, n)
	}
}

func TestWhereBulkJobsAreRefusedQueriesDoTheWork(t *testing.T) {
	w := newWorld(t)
	w.org.Seed(16_000, 7)
	for _, fault := range []string{"disabled", "limit", "fail", "abort"} {
		w.driver = w.open(t, bulkAlways)
		w.knob(t, func(k *salesforcefake.Knobs) { k.NextBulk = []string{fault} })
		if all, _, err := w.scan(t, crm.Key{}); err == nil || len(all) > 0 {
			t.Errorf("%s, with jobs alone: %d records", fault, len(all))
		}
		if fault == "limit" || fault == "abort" {
			continue // the way on is the same
		}
		w.log.Reset()
		w.driver = w.open(t, func(c *salesforce.Config) { c.PageSize = 0 })
		w.knob(t, func(k *salesforcefake.Knobs) { k.NextBulk = []string{fault} })
		all, _, err := w.scan(t, crm.Key{})
		if err != nil || len(all) != w.org.Count("Contact")+w.org.Count("Lead") || !strings.Contains(w.log.String(), "reading it in query pages") {
			t.Errorf("%s: %d records, %v; log %s", fault, len(all), err, w.log.String())
		}
	}
}

// meddle changes bodies and headers of results on their way.
func meddle(change func(n int, header http.Header, lines []string) []string, which string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		n := 0
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, which) {
				next.ServeHTTP(w, r)
				return
			}
			r.Header.Del("Accept-Encoding")
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			n++
			maps.Copy(w.Header(), rec.Header())
			w.Header().Del("Content-Length")
			body := rec.Body.String()
			if rec.Code == http.StatusOK {
				body = strings.Join(change(n, w.Header(), strings.SplitAfter(body, "\n")), "")
			}
			w.WriteHeader(rec.Code)
			_, _ = w.Write([]byte(body))
		})
	}
}

func TestResultsThatAreNotWholeAreAnErrorAndNeverASmallerOrg(t *testing.T) {
	var first []string
	for name, change := range map[string]func(n int, h http.Header, l []string) []string{
		"a line less": func(n int, h http.Header, l []string) []string { return append(l[:2:2], l[3:]...) },
		"a line less, and the count says so": func(n int, h http.Header, l []string) []string {
			c, _ := strconv.Atoi(h.Get("Sforce-NumberOfRecords"))
			h.Set("Sforce-NumberOfRecords", strconv.Itoa(c-1))
			return append(l[:2:2], l[3:]...)
		},
		"half a line":    func(n int, h http.Header, l []string) []string { return append(l[:2:2], l[2][:10]) },
		"no header line": func(n int, h http.Header, l []string) []string { return l[1:] },
		"a column less":  func(n int, h http.Header, l []string) []string { return cutColumn(l) },
		"no counts":      func(n int, h http.Header, l []string) []string { h.Del("Sforce-NumberOfRecords"); return l },
		"no locator":     func(n int, h http.Header, l []string) []string { h.Del("Sforce-Locator"); return l },
		"an early end":   func(n int, h http.Header, l []string) []string { h.Set("Sforce-Locator", "null"); return l },
		"a page of HTML": func(n int, h http.Header, l []string) []string { return []string{"<html>", "sorry</html>"} },
		"nothing":        func(n int, h http.Header, l []string) []string { return nil },
		"no end":         func(n int, h http.Header, l []string) []string { h.Set("Sforce-Locator", "Nw"); return l },
		"the first page twice": func(n int, h http.Header, l []string) []string {
			if n == 1 {
				first = l
			} else if len(l) == len(first) {
				return first
			}
			return l
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldBehind(t, meddle(change, "/results"), bulkAlways)
			for range 21 {
				w.Create(t, "Contact", []crm.Phone{{Field: "Phone", Raw: "4155550100"}}, false)
			}
			w.knob(t, func(k *salesforcefake.Knobs) { k.BulkPageRows = 7 })
			all, _, err := w.scan(t, crm.Key{})
			if err == nil {
				t.Fatalf("passes for an org of %d records", len(all))
			}
			w.driver = w.open(t, func(c *salesforce.Config) { c.Bulk = salesforce.BulkNever })
			if all, _, err := w.scan(t, crm.Key{}); err != nil || len(all) != 21 {
				t.Errorf("by queries: %d, %v", len(all), err)
			}
		})
	}
}

func cutColumn(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		if at := strings.LastIndexByte(l, ','); at >= 0 {
			out[i] = l[:at] + "\n"
		}
	}
	return out
}

func TestColumnsInAnotherOrderAreTheSameRecords(t *testing.T) {
	turn := func(_ int, _ http.Header, lines []string) []string {
		for i, l := range lines {
			if cells := strings.Split(strings.TrimSuffix(l, "\n"), ","); len(cells) > 1 {
				lines[i] = strings.Join(append(cells[1:], cells[0]), ",") + "\n"
			}
		}
		return lines
	}
	w := newWorldBehind(t, meddle(turn, "/results"), bulkAlways)
	k := w.Create(t, "Contact", []crm.Phone{{Field: "Phone", Raw: "4155550100"}}, true)
	all, _, err := w.scan(t, crm.Key{})
	if r := all[k]; err != nil || !r.OptedOut || len(r.Phones) != 1 || r.Phones[0].Raw != "4155550100" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestAScanThatIsStoppedBeforeItsFirstPageLeavesNoJob(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	polls := 0
	w := newWorldBehind(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/jobs/query/") {
				if polls++; polls == 3 {
					cancel()
				}
			}
			next.ServeHTTP(w, r)
		})
	}, bulkAlways)
	w.Create(t, "Contact", nil, false)
	w.knob(t, func(k *salesforcefake.Knobs) { k.NextBulk = []string{"stuck"} })
	for _, err := range w.driver.Scan(ctx, crm.Key{}) {
		if err == nil {
			t.Fatal("a stuck job has results")
		}
	}
	if n := calls(w); n["bulk_query_patch"] != 1 || n["bulk_query_delete"] != 1 {
		t.Errorf("calls %v", n)
	}
}

// A copy whose age nobody knows could be taken for fresh hours later, when its reading is gone on with.
func TestAJobThatDoesNotSayHowOldItIsIsNotRead(t *testing.T) {
	created := regexp.MustCompile(`"createdDate":"[^"]*"`)
	ageless := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "/jobs/query") || strings.HasSuffix(r.URL.Path, "/results") {
				next.ServeHTTP(w, r)
				return
			}
			r.Header.Del("Accept-Encoding")
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			maps.Copy(w.Header(), rec.Header())
			w.Header().Del("Content-Length")
			w.WriteHeader(rec.Code)
			_, _ = w.Write(created.ReplaceAll(rec.Body.Bytes(), []byte(`"createdDate":null`)))
		})
	}
	w := newWorldBehind(t, ageless, bulkAlways)
	w.Create(t, "Contact", []crm.Phone{{Field: "Phone", Raw: "4155550100"}}, true)
	if all, _, err := w.scan(t, crm.Key{}); err == nil || !strings.Contains(err.Error(), "when the job was created") {
		t.Errorf("%d records, %v", len(all), err)
	}
}
