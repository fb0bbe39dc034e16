package salesforcefake

import (
	"encoding/csv"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

func (c *client) bulk(soql string) string {
	c.t.Helper()
	res := c.do("POST", "jobs/query", map[string]any{"operation": "query", "query": soql})
	if res.status != 200 {
		c.t.Fatalf("create: %d %s", res.status, res.body)
	}
	return res.object(c.t)["id"].(string)
}

func (c *client) jobState(kind, id string) string {
	c.t.Helper()
	return fmt.Sprint(c.do("GET", "jobs/"+kind+"/"+id, nil).object(c.t)["state"])
}

func records(t *testing.T, body string) [][]string {
	t.Helper()
	all, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return all
}

func TestBulkQueryShowsWhatAQueryShows(t *testing.T) {
	c := start(t, Options{})
	c.org.Seed(3000, 4)
	c.org.Insert("Contact", map[string]any{"LastName": `O"Hara, "Quoted"`, "Title": "two\nlines"})
	const soql = "SELECT Id, LastName, Title, SMS_Opt_Out__c, SystemModstamp, LastModifiedBy.Name FROM Contact"
	res := c.do("POST", "jobs/query", map[string]any{"operation": "query", "query": soql, "contentType": "CSV"})
	job := res.object(t)
	id := job["id"].(string)
	for k, want := range map[string]any{"operation": "query", "object": "Contact", "createdById": c.org.UserID(), "state": "UploadComplete",
		"concurrencyMode": "Parallel", "contentType": "CSV", "apiVersion": 62.0, "lineEnding": "LF", "columnDelimiter": "COMMA", "createdDate": "2026-03-02T10:00:00.000+0000"} {
		if job[k] != want {
			t.Errorf("%s is %v, want %v", k, job[k], want)
		}
	}
	want := map[string][]string{}
	res = c.query(soql)
	for {
		page := res.object(t)
		for _, r := range page["records"].([]any) {
			m := r.(map[string]any)
			title, _ := m["Title"].(string)
			want[m["Id"].(string)] = []string{m["LastName"].(string), title, fmt.Sprint(m["SMS_Opt_Out__c"]),
				strings.Replace(m["SystemModstamp"].(string), "+0000", "Z", 1), m["LastModifiedBy"].(map[string]any)["Name"].(string)}
		}
		next, _ := page["nextRecordsUrl"].(string)
		if next == "" {
			break
		}
		res = c.do("GET", next, nil)
	}
	info := c.do("GET", "jobs/query/"+id, nil).object(t)
	if info["state"] != "JobComplete" || info["numberRecordsProcessed"] != float64(len(want)) || info["jobType"] != "V2Query" {
		t.Errorf("info %v, want %d records", info, len(want))
	}
	locator, got, pages := "", 0, 0
	for locator != "null" {
		path := "jobs/query/" + id + "/results?maxRecords=700"
		if pages > 0 { // some clients put a slash before the question mark
			path = "jobs/query/" + id + "/results/?maxRecords=700&locator=" + url.QueryEscape(locator)
		}
		res := c.do("GET", path, nil, "Accept", "text/csv")
		if res.status != 200 || res.header.Get("Content-Type") != "text/csv;charset=UTF-8" || res.header.Get("Sforce-Limit-Info") == "" {
			t.Fatalf("%s: %d %v %s", path, res.status, res.header, res.body)
		}
		if !strings.HasPrefix(res.body, "\"Id\",\"LastName\",\"Title\",\"SMS_Opt_Out__c\",\"SystemModstamp\",\"LastModifiedBy.Name\"\n\"003") {
			t.Fatalf("a page begins with %.120q", res.body)
		}
		rows := records(t, res.body)[1:]
		if n := res.header.Get("Sforce-NumberOfRecords"); n != fmt.Sprint(len(rows)) {
			t.Errorf("Sforce-NumberOfRecords %s, %d rows", n, len(rows))
		}
		for _, r := range rows {
			if !slices.Equal(r[1:], want[r[0]]) {
				t.Fatalf("bulk %q\nrest %q", r, want[r[0]])
			}
		}
		locator = res.header.Get("Sforce-Locator")
		got, pages = got+len(rows), pages+1
	}
	if got != len(want) || pages != (got+699)/700 {
		t.Errorf("%d rows on %d pages, want %d", got, pages, len(want))
	}
	empty := c.bulk("SELECT Id FROM Lead WHERE LastName = 'Nobody at all'")
	if res := c.do("GET", "jobs/query/"+empty+"/results", nil); res.body != "\"Id\"\n" || res.header.Get("Sforce-Locator") != "null" || res.header.Get("Sforce-NumberOfRecords") != "0" {
		t.Errorf("no rows: %q %v", res.body, res.header)
	}
	wantError(t, c.do("GET", "jobs/query/"+id+"/results?locator=eHh4", nil), 400, "INVALID_QUERY_LOCATOR", "invalid query locator")
	if res := c.do("GET", "/services/data/v60.0/jobs/query/"+id+"/results", nil); res.status != 409 {
		t.Errorf("results by another API version: %d", res.status)
	}
	old := c.do("POST", "/services/data/v49.0/jobs/query", map[string]any{"operation": "query", "query": "SELECT LastName, Id FROM Contact LIMIT 1"}).object(t)["id"].(string)
	if res := c.do("GET", "/services/data/v49.0/jobs/query/"+old+"/results", nil); !strings.HasPrefix(res.body, `"Id","LastName"`) {
		t.Errorf("before v50 columns are in the order of their names: %.60q", res.body)
	}
}

func TestBulkQueryRefusals(t *testing.T) {
	c := start(t, Options{})
	knob(t, c.org, func(k *Knobs) { k.HiddenFields = []string{"Contact.Title"} })
	for soql, want := range map[string][2]string{
		"SELECT COUNT() FROM Contact":                              {"FUNCTIONALITY_NOT_ENABLED", "Aggregate function COUNT"},
		"SELECT MAX(CreatedDate) FROM Contact":                     {"FUNCTIONALITY_NOT_ENABLED", "Aggregate function MAX"},
		"SELECT LastName FROM Contact GROUP BY LastName":           {"FUNCTIONALITY_NOT_ENABLED", "GROUP BY clause"},
		"SELECT Id FROM Contact LIMIT 5 OFFSET 5":                  {"FUNCTIONALITY_NOT_ENABLED", "OFFSET clause"},
		"SELECT Id, (SELECT Id FROM Contacts) FROM Account":        {"FUNCTIONALITY_NOT_ENABLED", "Aggregate Relationships not supported in Bulk Query"},
		"SELECT TYPEOF What WHEN Account THEN Phone END FROM Lead": {"FUNCTIONALITY_NOT_ENABLED", "TYPEOF clause"},
		"SELECT MailingAddress FROM Contact":                       {"FUNCTIONALITY_NOT_ENABLED", "Selecting compound data not supported in Bulk Query"},
		"SELECT Nope__c FROM Contact":                              {"INVALID_FIELD", "No such column 'Nope__c'"},
		"SELECT Title FROM Contact":                                {"INVALID_FIELD", "No such column 'Title'"},
		"SELECT Id FROM Nope__c":                                   {"INVALID_TYPE", "sObject type 'Nope__c' is not supported"},
		"SELECT":                                                   {"MALFORMED_QUERY", "unexpected token"},
	} {
		res := c.do("POST", "jobs/query", map[string]any{"operation": "query", "query": soql})
		wantError(t, res, 400, want[0], want[1])
	}
	for _, in := range []map[string]any{{"operation": "insert", "query": "SELECT Id FROM Contact"}, {"operation": "query", "query": "SELECT Id FROM Contact", "contentType": "JSON"},
		{"operation": "query", "query": "SELECT Id FROM Contact", "lineEnding": "CR"}, {"operation": "query", "query": "SELECT Id FROM Contact", "columnDelimiter": ";"}} {
		wantError(t, c.do("POST", "jobs/query", in), 400, "INVALIDJOB", "")
	}
	wantError(t, c.do("GET", "jobs/query/750Ho0000000099AAA", nil), 404, "NOT_FOUND", "")
	wantError(t, c.do("GET", "jobs/query/nope/results", nil), 404, "NOT_FOUND", "")
}

func TestBulkJobsTakeTimeAndEnd(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	o.Insert("Contact", map[string]any{"LastName": "A"})
	const soql = "SELECT Id FROM Contact"
	states := func(id string, n int) string {
		var out []string
		for range n {
			out = append(out, c.jobState("query", id))
		}
		return strings.Join(out, " ")
	}
	knob(t, o, func(k *Knobs) { k.BulkPolls = 2 })
	slow := c.bulk(soql)
	wantError(t, c.do("GET", "jobs/query/"+slow+"/results", nil), 400, "INVALIDJOBSTATE", slow)
	if got := states(slow, 4); got != "UploadComplete InProgress JobComplete JobComplete" {
		t.Errorf("by polls: %s", got)
	}
	knob(t, o, func(k *Knobs) { k.BulkPolls, k.BulkMS = 0, 10_000 })
	timed := c.bulk(soql)
	got := states(timed, 1)
	for range 3 {
		c.clock.advance(5 * time.Second)
		got += " " + states(timed, 1)
	}
	if got != "UploadComplete InProgress JobComplete JobComplete" {
		t.Errorf("by the clock: %s", got)
	}
	abort := c.bulk(soql)
	if res := c.do("PATCH", "jobs/query/"+abort, `{"state":"Aborted"}`); res.object(t)["state"] != "Aborted" {
		t.Errorf("abort: %s", res.body)
	}
	wantError(t, c.do("PATCH", "jobs/query/"+abort, `{"state":"Aborted"}`), 400, "INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
	wantError(t, c.do("PATCH", "jobs/query/"+abort, `{"state":"UploadComplete"}`), 400, "INVALIDJOB", "Invalid state")
	if res := c.do("DELETE", "jobs/query/"+abort, nil); res.status != 204 {
		t.Errorf("delete: %d %s", res.status, res.body)
	}
	wantError(t, c.do("GET", "jobs/query/"+abort, nil), 404, "NOT_FOUND", "")
	running := c.bulk(soql)
	c.clock.advance(5 * time.Second)
	if got := states(running, 1); got != "InProgress" {
		t.Errorf("half way: %s", got)
	}
	wantError(t, c.do("DELETE", "jobs/query/"+running, nil), 400, "INVALIDJOBSTATE", "InProgress")

	knob(t, o, func(k *Knobs) {
		k.BulkMS = 0
		k.NextBulk = []string{"fail", "abort", "stuck", "expire", "disabled", "limit", "ok"}
	})
	failed := c.bulk(soql)
	if info := c.do("GET", "jobs/query/"+failed, nil).object(t); info["state"] != "Failed" || !strings.Contains(info["errorMessage"].(string), "retried more than 15 times") {
		t.Errorf("fail: %v", info)
	}
	if got := states(c.bulk(soql), 1); got != "Aborted" {
		t.Errorf("abort: %s", got)
	}
	if got := states(c.bulk(soql), 5); got != "InProgress InProgress InProgress InProgress InProgress" {
		t.Errorf("stuck: %s", got)
	}
	expiring := c.bulk(soql)
	if res := c.do("GET", "jobs/query/"+expiring+"/results", nil); res.status != 200 {
		t.Errorf("the first page of an expiring job: %d", res.status)
	}
	wantError(t, c.do("GET", "jobs/query/"+expiring+"/results", nil), 404, "NOT_FOUND", "")
	create := func() result { return c.do("POST", "jobs/query", map[string]any{"operation": "query", "query": soql}) }
	wantError(t, create(), 403, "FEATURENOTENABLED", "Async API not enabled")
	wantError(t, create(), 400, "LIMIT_EXCEEDED", "Max bulk v2 query jobs (10000) per 24 hrs has been reached (10000)")
	kept := c.bulk(soql)
	if got := states(kept, 1); got != "JobComplete" {
		t.Errorf("ok: %s", got)
	}
	list := c.do("GET", "jobs/query", nil).object(t)
	if n := len(list["records"].([]any)); list["done"] != true || n != 7 {
		t.Errorf("%d jobs are listed, want 7: %v", n, list)
	}
	c.clock.advance(7*24*time.Hour - time.Second)
	c.login()
	if got := states(kept, 1); got != "JobComplete" {
		t.Errorf("before its week is over: %s", got)
	}
	c.clock.advance(time.Second)
	wantError(t, c.do("GET", "jobs/query/"+kept, nil), 404, "NOT_FOUND", "")
}

func TestBulkResultsAreAMomentAndAreStreamed(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	o.Seed(60_000, 1)
	id := c.bulk("SELECT Id, LastName, MobilePhone FROM Contact")
	c.jobState("query", id)
	first := o.table("Contact").id(1)
	if err := o.Update("Contact", first, map[string]any{"LastName": "Later"}); err != nil {
		t.Fatal(err)
	}
	if res := c.do("GET", "jobs/query/"+id+"/results?maxRecords=1", nil); strings.Contains(res.body, "Later") || !strings.Contains(res.body, first) {
		t.Errorf("a change after the job shows in its results: %s", res.body)
	}
	j := o.jobs.list[0]
	var sizes sizeWriter
	if err := o.streamRows(&sizes, csvForm(j), j.query.columns, j.query.rows); err != nil {
		t.Fatal(err)
	}
	if sizes.total < 1<<20 || sizes.most > 64<<10 {
		t.Errorf("%d bytes came in pieces of up to %d", sizes.total, sizes.most)
	}
	knob(t, o, func(k *Knobs) { k.NextRead = []string{"truncate"} })
	if res := c.do("GET", "jobs/query/"+id+"/results", nil); res.err == nil {
		t.Errorf("a truncated result arrived whole: %d bytes", len(res.body))
	}
	knob(t, o, func(k *Knobs) { k.BulkPageRows, k.BulkNoHeaders = 7, true })
	res := c.do("GET", "jobs/query/"+id+"/results?maxRecords=100", nil)
	if _, has := res.header["Sforce-Locator"]; has || len(records(t, res.body)) != 8 {
		t.Errorf("bulk_no_headers, bulk_page_rows: %v, %d lines", res.header, strings.Count(res.body, "\n"))
	}
}

type sizeWriter struct{ most, total int }

func (s *sizeWriter) Write(p []byte) (int, error) {
	s.most, s.total = max(s.most, len(p)), s.total+len(p)
	return len(p), nil
}

var _ io.Writer = (*sizeWriter)(nil)

// ingest runs a job to its end and returns its id.
func (c *client) ingest(in map[string]any, data string) string {
	c.t.Helper()
	id := c.openIngest(in, data)
	if res := c.do("PATCH", "jobs/ingest/"+id, `{"state":"UploadComplete"}`); res.status != 200 || res.object(c.t)["state"] != "UploadComplete" {
		c.t.Fatalf("close: %d %s", res.status, res.body)
	}
	c.jobState("ingest", id)
	return id
}

func (c *client) openIngest(in map[string]any, data string) string {
	c.t.Helper()
	res := c.do("POST", "jobs/ingest", in)
	if res.status != 200 {
		c.t.Fatalf("create: %d %s", res.status, res.body)
	}
	job := res.object(c.t)
	id := job["id"].(string)
	if job["state"] != "Open" || job["contentUrl"] != "services/data/v62.0/jobs/ingest/"+id+"/batches" {
		c.t.Errorf("new job %v", job)
	}
	if res := c.do("PUT", job["contentUrl"].(string)[len("services/data/v62.0/"):], data, "Content-Type", "text/csv"); res.status != 201 || res.body != "" {
		c.t.Fatalf("upload: %d %s", res.status, res.body)
	}
	return id
}

func (c *client) outcome(id, which string) [][]string {
	c.t.Helper()
	res := c.do("GET", "jobs/ingest/"+id+"/"+which, nil)
	if res.status != 200 {
		c.t.Fatalf("%s: %d %s", which, res.status, res.body)
	}
	return records(c.t, res.body)
}

func TestBulkIngestUpdates(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	var ids []string
	for _, name := range []string{"Plain", "Nulled", "Locked", "Refused", "Gone"} {
		ids = append(ids, o.Insert("Contact", map[string]any{"LastName": name, "Title": "kept", "SMS_Opt_Out__c": name == "Nulled"}))
	}
	if err := o.Delete("Contact", ids[4]); err != nil {
		t.Fatal(err)
	}
	knob(t, o, func(k *Knobs) {
		k.LockIDs = map[string]int{ids[2]: 1}
		k.ValidationRules = []ValidationRule{{Object: "Contact", Field: "SMS_Opt_Out__c", IDs: []string{ids[3]}, Message: `no, "never"`}}
	})
	data := "Id,SMS_Opt_Out__c,Title\n" + ids[0] + ",true,\n" + ids[1][:15] + ",false,#N/A\n" + ids[2] + ",true,\n" + ids[3] + ",1,x\n" + ids[4] + ",true,\n" +
		"nonsense,true,\n,true,\n" + ids[0] + ",true,again\n003Ho0000zzzzzz,true,\n" + ids[1] + "x,maybe,\n"
	id := c.ingest(map[string]any{"object": "Contact", "operation": "update", "contentType": "CSV", "lineEnding": "LF"}, data)
	info := c.do("GET", "jobs/ingest/"+id, nil).object(t)
	for k, want := range map[string]any{"state": "JobComplete", "jobType": "V2Ingest", "numberRecordsProcessed": 10.0, "numberRecordsFailed": 8.0, "contentUrl": nil, "apexProcessingTime": 0.0} {
		if info[k] != want {
			t.Errorf("%s is %v, want %v", k, info[k], want)
		}
	}
	good := c.outcome(id, "successfulResults")
	if want := [][]string{{"sf__Id", "sf__Created", "Id", "SMS_Opt_Out__c", "Title"}, {ids[0], "false", ids[0], "true", ""}, {ids[1], "false", ids[1][:15], "false", "#N/A"}}; fmt.Sprint(good) != fmt.Sprint(want) {
		t.Errorf("successful\n got %q\nwant %q", good, want)
	}
	bad := c.outcome(id, "failedResults")
	want := []string{"UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record or 1 records: " + ids[2] + ":--",
		`FIELD_CUSTOM_VALIDATION_EXCEPTION:no, "never":SMS_Opt_Out__c --`, "ENTITY_IS_DELETED:entity is deleted:--",
		"MALFORMED_ID:Contact ID: id value of incorrect type: nonsense:Id --", "MISSING_ARGUMENT:Id not specified in an update call:Id --",
		"DUPLICATE_VALUE:Duplicate id specified: " + ids[0] + ":--", "INVALID_CROSS_REFERENCE_KEY:invalid cross reference id:--",
		"INVALID_TYPE_ON_FIELD_IN_RECORD:SMS Opt Out: value not of required type: maybe:SMS_Opt_Out__c --"}
	if len(bad) != len(want)+1 {
		t.Fatalf("%d failed rows, want %d: %q", len(bad)-1, len(want), bad)
	}
	for i, w := range want {
		if bad[i+1][1] != w {
			t.Errorf("row %d: %q, want %q", i, bad[i+1][1], w)
		}
	}
	if bad[1][0] != ids[2] || bad[4][0] != "" {
		t.Errorf("sf__Id of failed rows: %q, %q", bad[1][0], bad[4][0])
	}
	if got := c.outcome(id, "unprocessedrecords"); len(got) != 1 {
		t.Errorf("unprocessed: %q", got)
	}
	a, _ := o.Get("Contact", ids[0])
	b, _ := o.Get("Contact", ids[1])
	if a["SMS_Opt_Out__c"] != true || a["Title"] != "kept" || a["LastModifiedById"] != o.UserID() || b["SMS_Opt_Out__c"] != false || b["Title"] != nil {
		t.Errorf("an empty cell leaves alone, #N/A clears: %v, %v", a, b)
	}
}

func TestBulkIngestOperations(t *testing.T) {
	c := start(t, Options{Fields: []Field{{Object: "Contact", Name: "Ext__c", Type: Text, ExternalID: true}}})
	o := c.org
	id := c.ingest(map[string]any{"object": "Contact", "operation": "insert", "lineEnding": "CRLF", "columnDelimiter": "PIPE"},
		"LastName|Ext__c\r\nOne|1\r\n\"Two \"\"2\"\"\"|2\r\n#N/A|3\r\n")
	res := c.do("GET", "jobs/ingest/"+id+"/successfulResults", nil)
	if !strings.HasPrefix(res.body, "\"sf__Id\"|\"sf__Created\"|\"LastName\"|\"Ext__c\"\r\n\"003") || !strings.HasSuffix(res.body, "|\"true\"|\"Two \"\"2\"\"\"|\"2\"\r\n") {
		t.Errorf("inserted: %q", res.body)
	}
	if res := c.do("GET", "jobs/ingest/"+id+"/failedResults", nil); !strings.Contains(res.body, "REQUIRED_FIELD_MISSING:Required fields are missing: [LastName]:LastName --") {
		t.Errorf("not inserted: %q", res.body)
	}
	id = c.ingest(map[string]any{"object": "Contact", "operation": "upsert", "externalIdFieldName": "ext__c"}, "Ext__c,LastName\n2,Second\n9,Ninth\n")
	if got := c.outcome(id, "successfulResults"); len(got) != 3 || got[1][1] != "false" || got[2][1] != "true" {
		t.Errorf("upserted: %q", got)
	}
	two := c.ids("SELECT Id FROM Contact WHERE Ext__c = '2' AND LastName = 'Second'")
	if len(two) != 1 {
		t.Fatalf("the upsert updated %v", two)
	}
	id = c.ingest(map[string]any{"object": "Contact", "operation": "delete"}, "Id\n"+two[0]+"\n")
	if got := c.outcome(id, "successfulResults"); len(got) != 2 || len(c.ids("SELECT Id FROM Contact WHERE Ext__c = '2'")) != 0 {
		t.Errorf("deleted: %q", got)
	}
	if r, ok := o.Get("Contact", two[0]); !ok || r["IsDeleted"] != true {
		t.Errorf("a delete is soft: %v", r)
	}
	for _, tc := range []struct {
		in         map[string]any
		data, want string
	}{
		{map[string]any{"object": "Contact", "operation": "insert"}, "LastName\r\nOne\r\n", "ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is LF"},
		{map[string]any{"object": "Contact", "operation": "insert"}, "LastName,Nope__c\nOne,2\n", "InvalidBatch : Field name not found : Nope__c"},
		{map[string]any{"object": "Contact", "operation": "insert"}, "LastName,Title\nOne\n", "InvalidBatch : Failed to parse CSV"},
		{map[string]any{"object": "Contact", "operation": "insert"}, "", "Unable to find any data"},
		{map[string]any{"object": "Contact", "operation": "delete"}, "Id,Title\nx,y\n", "Field name not allowed for delete : Title"},
	} {
		id := c.ingest(tc.in, tc.data)
		info := c.do("GET", "jobs/ingest/"+id, nil).object(t)
		if info["state"] != "Failed" || !strings.Contains(fmt.Sprint(info["errorMessage"]), tc.want) {
			t.Errorf("%q: %v", tc.data, info)
		}
		if res := c.do("GET", "jobs/ingest/"+id+"/unprocessedrecords", nil); res.body != tc.data {
			t.Errorf("%q: unprocessed %q", tc.data, res.body)
		}
	}
	for _, in := range []map[string]any{{"object": "Nope", "operation": "insert"}, {"object": "User", "operation": "update"}} {
		wantError(t, c.do("POST", "jobs/ingest", in), 400, "INVALIDENTITY", "")
	}
	for _, in := range []map[string]any{{"object": "Contact", "operation": "explode"}, {"object": "Contact", "operation": "upsert"}, {"object": "Contact", "operation": "upsert", "externalIdFieldName": "Title"}} {
		wantError(t, c.do("POST", "jobs/ingest", in), 400, "INVALIDJOB", "")
	}
	wantError(t, c.do("POST", "jobs/ingest", map[string]any{"object": "Contact", "operation": "hardDelete"}), 403, "FEATURENOTENABLED", "hardDelete operation requires special user profile permission")
	hard := c.as("admin@sandbox.example").ingest(map[string]any{"object": "Contact", "operation": "hardDelete"}, "Id\n"+c.ids("SELECT Id FROM Contact WHERE Ext__c = '9'")[0]+"\n")
	if got := c.outcome(hard, "successfulResults"); len(got) != 2 {
		t.Fatalf("hard delete: %q", got)
	} else if _, there := o.Get("Contact", got[1][0]); there {
		t.Error("a hard delete leaves the record in the bin")
	}
	open := c.openIngest(map[string]any{"object": "Contact", "operation": "insert"}, "LastName\nA\n")
	wantError(t, c.do("PUT", "jobs/ingest/"+open+"/batches", "LastName\nB\n", "Content-Type", "text/csv"), 400, "CLIENTINPUTERROR", "only do 'PUT' once")
	wantError(t, c.do("DELETE", "jobs/ingest/"+open, nil), 400, "INVALIDJOBSTATE", "Open")
	if got := c.jobState("ingest", open); got != "Open" {
		t.Errorf("a job that nobody closed is %s", got)
	}
	if res := c.do("PATCH", "jobs/ingest/"+open, `{"state":"Aborted"}`); res.status != 200 {
		t.Errorf("abort: %s", res.body)
	}
	wantError(t, c.do("PATCH", "jobs/ingest/"+open, `{"state":"UploadComplete"}`), 400, "INVALIDJOBSTATE", "Closing already Completed Job not allowed")
	wantError(t, c.do("PUT", "jobs/ingest/"+open+"/batches", "LastName\nB\n", "Content-Type", "text/csv"), 400, "INVALIDJOBSTATE", "Aborted")
}

func TestBulkIngestRunsInBatchesAndMayStopHalfWay(t *testing.T) {
	c := start(t, Options{Seed: 5})
	o := c.org
	o.Seed(40_000, 1)
	t1 := o.table("Contact")
	var data strings.Builder
	data.WriteString("Id,Title\n")
	const rows = 25_000
	for i := range rows {
		fmt.Fprintf(&data, "%s,t%d\n", t1.id(uint32(i+1)), i)
	}
	in := map[string]any{"object": "Contact", "operation": "update"}
	knob(t, o, func(k *Knobs) { k.BulkMS = 3000; k.BulkShuffleBatches = true })
	id := c.ingest(in, data.String())
	c.clock.advance(time.Second)
	info := c.do("GET", "jobs/ingest/"+id, nil).object(t)
	if info["state"] != "InProgress" || info["numberRecordsProcessed"].(float64) == 0 || info["numberRecordsProcessed"].(float64) >= rows {
		t.Fatalf("after a third of the time: %v", info)
	}
	wantError(t, c.do("GET", "jobs/ingest/"+id+"/successfulResults", nil), 400, "INVALIDJOBSTATE", "InProgress")
	if res := c.do("PATCH", "jobs/ingest/"+id, `{"state":"Aborted"}`); res.status != 200 {
		t.Fatal(res.body)
	}
	done, left := c.outcome(id, "successfulResults"), c.outcome(id, "unprocessedrecords")
	if len(done)-1 != int(info["numberRecordsProcessed"].(float64)) || len(done)+len(left)-2 != rows {
		t.Errorf("%d done and %d left of %d", len(done)-1, len(left)-1, rows)
	}
	if fmt.Sprint(left[0]) != "[Id Title]" {
		t.Errorf("unprocessed begins with %q", left[0])
	}
	if got := len(c.ids("SELECT Id FROM Contact WHERE Title LIKE 't%' LIMIT 2000")); got != 2000 {
		t.Errorf("what was done before the abort stays: %d", got)
	}
	knob(t, o, func(k *Knobs) { k.BulkMS = 0; k.NextBulk = []string{"fail", "ok"} })
	id = c.ingest(in, data.String())
	if info := c.do("GET", "jobs/ingest/"+id, nil).object(t); info["state"] != "Failed" || info["errorMessage"] == nil || info["numberRecordsProcessed"] == 0.0 {
		t.Errorf("fail: %v", info)
	}
	if n := len(c.outcome(id, "successfulResults")) + len(c.outcome(id, "unprocessedrecords")); n != rows+2 {
		t.Errorf("fail: %d of %d rows are accounted for", n-2, rows)
	}
	id = c.ingest(in, data.String())
	all := c.outcome(id, "successfulResults")[1:]
	if len(all) != rows {
		t.Fatalf("%d rows", len(all))
	}
	descents := 0 // where a batch follows that stands before the one just read
	for i := 1; i < rows; i++ {
		if all[i][0] < all[i-1][0] {
			descents++
		}
	}
	if descents == 0 || descents > 2 {
		t.Errorf("three shuffled batches step back %d times, want 1 or 2", descents)
	}
}
