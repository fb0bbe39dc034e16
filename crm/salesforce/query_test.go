package salesforce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/heed-sms/heed/crm"
)

func TestAScanTranslatesRecords(t *testing.T) {
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, soql string) {
		const want = "SELECT Id, MobilePhone, Phone, SMS_Opt_Out__c, SystemModstamp, LastModifiedDate, LastModifiedById, LastModifiedBy.Name, CreatedDate FROM Contact ORDER BY Id LIMIT 2000"
		if soql != want {
			t.Errorf("query %q\nwant  %q", soql, want)
		}
		if h := r.Header.Get("Sforce-Query-Options"); h != "batchSize=2000" {
			t.Errorf("Sforce-Query-Options %q", h)
		}
		if h := r.Header.Get("Sforce-Call-Options"); h != "client=heed" {
			t.Errorf("Sforce-Call-Options %q", h)
		}
		w.Header().Set("Date", "Sun, 01 Mar 2026 13:00:00 GMT")
		io.WriteString(w, result("",
			contact(1, "SMS_Opt_Out__c", true, "Phone", "+1 555 555 0101 x22", "LastModifiedById", testUser, "LastModifiedBy", nil),
			contact(2, "MobilePhone", nil, "Phone", "  ")))
	}))
	records, pages, err := scanAll(t, s.open(t), crm.Key{})
	if err != nil || len(records) != 2 || len(pages) != 1 {
		t.Fatalf("%d records in %d pages, %v", len(records), len(pages), err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := records[0]
	if r.Key != (crm.Key{Object: "Contact", ID: contactID(1)}) || !r.OptedOut || r.ModifiedBy.Kind != crm.Self || r.ModifiedBy.String() != testUser ||
		!r.Stamp.Equal(at) || !r.ModifiedAt.Equal(at) || !r.CreatedAt.Equal(at) || len(r.Phones) != 2 || r.Phones[1] != (crm.Phone{Field: "Phone", Raw: "+1 555 555 0101 x22"}) {
		t.Errorf("first record %+v", r)
	}
	if r := records[1]; r.OptedOut || r.ModifiedBy.Kind == crm.Self || r.ModifiedBy.String() != "Ada Admin" || len(r.Phones) != 0 {
		t.Errorf("second record %+v", r)
	}
	if p := pages[0]; p.Total != 5 || !p.AsOf.Equal(time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)) || p.Next != records[1].Key {
		t.Errorf("page %+v", p)
	}
}

func TestTrap20And21PagesOfAnotherVersionAreFollowedAsGiven(t *testing.T) {
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, soql string) {
		switch r.URL.RequestURI() {
		case "/services/data/v64.0/query/01g000-200?x=%2B1":
			io.WriteString(w, result("/services/data/v64.0/query/01g000-400", contact(2)))
		case "/services/data/v64.0/query/01g000-400":
			io.WriteString(w, result("", contact(3)))
		default:
			io.WriteString(w, result("/services/data/v64.0/query/01g000-200?x=%2B1", contact(1)))
		}
	}))
	records, pages, err := scanAll(t, s.open(t), crm.Key{})
	if err != nil || len(records) != 3 || len(pages) != 3 {
		t.Errorf("%d records in %d pages, %v", len(records), len(pages), err)
	}
}

func TestTrap20TheVersionIsConfigurable(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/services/data/v65.0/query") {
			t.Errorf("path %s", r.URL.Path)
		}
		io.WriteString(w, result(""))
	})
	if _, _, err := scanAll(t, s.open(t, func(c *Config) { c.APIVersion = "65.0" }), crm.Key{}); err != nil {
		t.Error(err)
	}
}

func TestTrap21PagingAlwaysEnds(t *testing.T) {
	for _, c := range []struct{ name, next, again, text string }{
		{"no nextRecordsUrl", "-", "", "no nextRecordsUrl"},
		{"the same nextRecordsUrl again", "/services/data/v62.0/query/01g-1", "/services/data/v62.0/query/01g-1", "leads back"},
		{"another host", "https://evil.example/services/data/v62.0/query/01g-1", "", "out of the API"},
		{"another host without scheme", "//evil.example/services/data/v62.0/query/01g-1", "", "out of the API"},
		{"another part of the host", "/services/apexrest/x", "", "out of the API"},
		{"a way out of the API", "/services/data/v62.0/../../apexrest/x", "", "out of the API"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := play(t, queries(func(w http.ResponseWriter, r *http.Request, soql string) {
				next := c.next
				if soql == "" {
					next = c.again
				}
				body := result(next, contact(1))
				if next == "-" {
					body = strings.Replace(body, `"nextRecordsUrl":"-",`, "", 1)
				}
				io.WriteString(w, body)
			}))
			_, _, err := scanAll(t, s.open(t), crm.Key{})
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want one with %q", err, c.text)
			}
			if s.calls.Load() > 4 {
				t.Errorf("%d calls", s.calls.Load())
			}
		})
	}
}

func TestTrap21EndlessFreshLocatorsAndExcessRecordsEnd(t *testing.T) {
	var n atomic.Int64
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, soql string) {
		io.WriteString(w, result(fmt.Sprintf("/services/data/v62.0/query/01g-%d", n.Add(1)), contact(int(n.Load()))))
	}))
	_, _, err := scanAll(t, s.open(t, func(c *Config) { c.PageSize = 3 }), crm.Key{})
	if err == nil || !strings.Contains(err.Error(), "more than the 3 records") || n.Load() != 4 {
		t.Errorf("%v after %d answers", err, n.Load())
	}
}

func TestTraps22To24ARowThatCannotBeReadFailsTheScan(t *testing.T) {
	for name, row := range map[string]map[string]any{
		"the opt-out field is missing":  contact(2, "SMS_Opt_Out__c", dropField),
		"the opt-out field is null":     contact(2, "SMS_Opt_Out__c", nil),
		"the opt-out field is a text":   contact(2, "SMS_Opt_Out__c", "true"),
		"the opt-out field is a number": contact(2, "SMS_Opt_Out__c", 1),
		"a phone is missing":            contact(2, "Phone", dropField),
		"a phone is a number":           contact(2, "Phone", 15555550100),
		"the id is damaged":             contact(2, "Id", strings.ToLower(id("003", 2)[:15])+"BBB"),
		"there is no id":                contact(2, "Id", nil),
		"the stamp is missing":          contact(2, "SystemModstamp", dropField),
		"the stamp is no time":          contact(2, "SystemModstamp", "yesterday"),
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, queries(func(w http.ResponseWriter, r *http.Request, _ string) { io.WriteString(w, result("", contact(1), row)) }))
			records, _, err := scanAll(t, s.open(t), crm.Key{})
			if err == nil || len(records) != 0 || asError(t, err).Code != "UNREADABLE_RECORD" {
				t.Errorf("%d records, %v", len(records), err)
			}
			if err != nil && strings.Contains(err.Error(), "5550100") {
				t.Errorf("the error shows a number: %v", err)
			}
		})
	}
}

func TestTrap23FieldNamesInAnyCaseFindTheirValue(t *testing.T) {
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, _ string) {
		io.WriteString(w, result("", contact(1, "SMS_Opt_Out__c", true)))
	}))
	records, _, err := scanAll(t, s.open(t, func(c *Config) {
		c.Objects[0].OptOut.Field = "sms_opt_out__c"
		c.Objects[0].Phones = []string{"mobilephone"}
	}), crm.Key{})
	if err != nil || len(records) != 1 || !records[0].OptedOut || len(records[0].Phones) != 1 {
		t.Errorf("%+v, %v", records, err)
	}
}

func TestTraps40To42QueriesQuoteAndAnEmptyListAsksNothing(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.RequestURI()) > 8000 {
			t.Errorf("a URL of %d bytes", len(r.URL.RequestURI()))
		}
		io.WriteString(w, result(""))
	})
	o := s.open(t)
	if _, err := o.Get(t.Context(), nil); err != nil || s.calls.Load() != 0 {
		t.Errorf("no keys: %d calls, %v", s.calls.Load(), err)
	}
	for _, bad := range []string{"", "x' OR Name LIKE '%", "003000000000001AAB", "00300000000000\x00"} {
		if _, err := o.Get(t.Context(), []crm.Key{{Object: "Contact", ID: bad}}); err == nil || asError(t, err).Class != crm.Bug {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if s.calls.Load() != 0 {
		t.Error("a malformed id was sent")
	}
	var keys []crm.Key
	for i := range 450 {
		keys = append(keys, crm.Key{Object: "Contact", ID: contactID(i + 1)}, crm.Key{Object: "Contact", ID: contactID(i + 1)[:15]})
	}
	if _, err := o.Get(t.Context(), keys); err != nil || s.calls.Load() != 3 {
		t.Errorf("450 records in %d calls, want 3; %v", s.calls.Load(), err)
	}
}

func TestAnotherObjectsQueryIsUnambiguous(t *testing.T) {
	o := newObject(Object{Object: "ns__Person__c", Phones: []string{"ns__Cell__c"}, OptOut: OptOut{Field: "ns__Out__c"}})
	if strings.Contains(o.history, "MasterRecordId") || strings.Contains(o.history, "IsConverted") || !strings.Contains(o.history, "ns__Out__c") {
		t.Errorf("fields %s", o.history)
	}
	if q := o.scanQuery("003'", 5); !strings.HasSuffix(q, `FROM ns__Person__c WHERE Id > '003\'' ORDER BY Id LIMIT 5`) {
		t.Errorf("query %s", q)
	}
}

func TestAScanGoesThroughItsObjectsAndResumesBehindAKey(t *testing.T) {
	var asked []string
	from := regexp.MustCompile(`FROM .*`)
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, soql string) {
		asked = append(asked, from.FindString(soql))
		switch {
		case strings.Contains(soql, "FROM Lead"):
			row := contact(0, "Id", id("00Q", 1), "IsConverted", false, "ConvertedContactId", nil)
			io.WriteString(w, result("", row))
		case strings.Contains(soql, contactID(7)):
			io.WriteString(w, result("", contact(8), contact(9)))
		case strings.Contains(soql, contactID(9)):
			io.WriteString(w, result(""))
		default:
			t.Errorf("unexpected %s", soql)
		}
	}))
	o := s.open(t, func(c *Config) {
		c.PageSize = 2
		c.Objects = append(c.Objects, Object{Object: "Lead", Phones: []string{"Phone"}, OptOut: OptOut{Field: "SMS_Opt_Out__c"}})
	})
	records, pages, err := scanAll(t, o, crm.Key{Object: "Contact", ID: contactID(7)})
	if err != nil || len(records) != 3 || pages[0].Total != 10 {
		t.Errorf("%d records, %v", len(records), err)
	}
	want := []string{
		"FROM Contact WHERE Id > '" + contactID(7) + "' ORDER BY Id LIMIT 2",
		"FROM Contact WHERE Id > '" + contactID(9) + "' ORDER BY Id LIMIT 2",
		"FROM Lead WHERE IsConverted = false ORDER BY Id LIMIT 2",
	}
	if strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
}

func TestAnExpiredLocatorAndASlowQueryAreAskedAnew(t *testing.T) {
	var queriesSent []string
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, soql string) {
		switch {
		case soql == "":
			w.WriteHeader(400)
			io.WriteString(w, `[{"errorCode":"INVALID_QUERY_LOCATOR","message":"invalid query locator"}]`)
			return
		case strings.HasSuffix(soql, "LIMIT 1000"):
			w.WriteHeader(400)
			io.WriteString(w, `[{"errorCode":"QUERY_TIMEOUT","message":"Your query request was running for too long."}]`)
		case strings.Contains(soql, "Id >"):
			io.WriteString(w, result("", contact(2)))
		default:
			io.WriteString(w, result("/services/data/v62.0/query/01g-1", contact(1)))
		}
		queriesSent = append(queriesSent, soql[strings.Index(soql, "FROM"):])
	}))
	records, _, err := scanAll(t, s.open(t, func(c *Config) { c.PageSize = 1000 }), crm.Key{})
	if err != nil || len(records) != 2 || len(queriesSent) != 3 {
		t.Errorf("%d records, %v, queries %q", len(records), err, queriesSent)
	}
}

func TestAServerThatRepeatsRecordsDoesNotTrapTheScan(t *testing.T) {
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, _ string) { io.WriteString(w, result("", contact(1))) }))
	_, _, err := scanAll(t, s.open(t, func(c *Config) { c.PageSize = 1 }), crm.Key{})
	if err == nil || asError(t, err).Class != crm.Bug {
		t.Errorf("error %v", err)
	}
}

func changes(t *testing.T, o *Org, since time.Time) ([]crm.Record, []crm.Page, error) {
	t.Helper()
	var rs []crm.Record
	var ps []crm.Page
	for p, err := range o.Changed(t.Context(), since) {
		if err != nil {
			return rs, ps, err
		}
		rs, ps = append(rs, p.Records...), append(ps, p)
	}
	return rs, ps, nil
}

func TestChangesLookBackForLateCommitsAndDoNotSkipEqualStamps(t *testing.T) {
	var asked []string
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/queryAll") {
			t.Errorf("path %s does not include deleted records", r.URL.Path)
		}
		soql := r.URL.Query().Get("q")
		asked = append(asked, soql[strings.Index(soql, "WHERE"):])
		w.Header().Set("Date", fmt.Sprintf("Sun, 01 Mar 2026 13:00:0%d GMT", len(asked)))
		switch len(asked) {
		case 1:
			io.WriteString(w, result("", contact(1), contact(2)))
		case 2: // the third of the same second
			io.WriteString(w, result("", contact(3), contact(4, "SystemModstamp", "2026-03-01T12:00:01.250+0000")))
		default:
			io.WriteString(w, result(""))
		}
	})
	since := time.Date(2026, 3, 1, 12, 1, 0, 900_000_000, time.UTC)
	rs, ps, err := changes(t, s.open(t, func(c *Config) { c.PageSize = 2 }), since)
	if err != nil || len(rs) != 4 {
		t.Fatalf("%d records, %v", len(rs), err)
	}
	want := []string{
		"WHERE SystemModstamp >= 2026-03-01T11:59:00Z ORDER BY SystemModstamp, Id LIMIT 2",
		"WHERE ((SystemModstamp = 2026-03-01T12:00:00Z AND Id > '" + contactID(2) + "') OR SystemModstamp > 2026-03-01T12:00:00Z) ORDER BY SystemModstamp, Id LIMIT 2",
		"WHERE ((SystemModstamp = 2026-03-01T12:00:01.250Z AND Id > '" + contactID(4) + "') OR SystemModstamp > 2026-03-01T12:00:01.250Z) ORDER BY SystemModstamp, Id LIMIT 2",
	}
	if strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
	for _, p := range ps {
		if !p.AsOf.Equal(time.Date(2026, 3, 1, 13, 0, 1, 0, time.UTC)) {
			t.Errorf("as of %s, want the time of the first answer", p.AsOf)
		}
	}
}

func TestWithoutADateTheCheckpointDoesNotMove(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		io.WriteString(w, result(""))
	})
	since := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	_, ps, err := changes(t, s.open(t), since)
	if err != nil || len(ps) != 1 || !ps[0].AsOf.Equal(since) {
		t.Errorf("%+v, %v", ps, err)
	}
}

func TestChangesTellDeletedMergedAndConvertedRecords(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Query().Get("q"), "FROM Lead") {
			io.WriteString(w, result("",
				contact(0, "Id", id("00Q", 1), "IsConverted", true, "ConvertedContactId", contactID(5)),
				contact(0, "Id", id("00Q", 2), "IsConverted", true, "ConvertedContactId", nil),
				contact(0, "Id", id("00Q", 3), "IsConverted", false, "ConvertedContactId", nil)))
			return
		}
		io.WriteString(w, result("",
			contact(1, "IsDeleted", true),
			contact(2, "IsDeleted", true, "MasterRecordId", contactID(3)),
			contact(3)))
	})
	o := s.open(t, func(c *Config) {
		c.Objects = append(c.Objects, Object{Object: "Lead", Phones: []string{"Phone"}, OptOut: OptOut{Field: "SMS_Opt_Out__c"}})
	})
	rs, _, err := changes(t, o, time.Time{})
	if err != nil || len(rs) != 6 {
		t.Fatalf("%d records, %v", len(rs), err)
	}
	if !rs[0].Deleted || rs[0].MergedInto != "" || !rs[1].Deleted || rs[1].MergedInto != contactID(3) || rs[2].Deleted {
		t.Errorf("contacts %+v", rs[:3])
	}
	if *rs[3].Converted != (crm.Key{Object: "Contact", ID: contactID(5)}) || *rs[4].Converted != (crm.Key{Object: "Contact"}) || rs[5].Converted != nil {
		t.Errorf("leads %+v", rs[3:])
	}
}

func TestChangesWithoutTheDeletionMarkAreAnError(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, result("", contact(1, "IsDeleted", dropField)))
	})
	if _, _, err := changes(t, s.open(t), time.Time{}); err == nil {
		t.Error("a record of unknown existence passed for a live one")
	}
}

func TestAHiddenFieldStopsTheScanWithItsName(t *testing.T) {
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, _ string) {
		w.WriteHeader(400)
		io.WriteString(w, `[{"message":"\nSELECT Id, SMS_Opt_Out__c FROM Contact\n           ^\nERROR at Row:1:Column:12\nNo such column 'SMS_Opt_Out__c' on entity 'Contact'.","errorCode":"INVALID_FIELD"}]`)
	}))
	_, _, err := scanAll(t, s.open(t), crm.Key{})
	if e := asError(t, err); e.Class != crm.Park || !strings.Contains(e.Text, "SMS_Opt_Out__c") {
		t.Errorf("%+v", e)
	}
}

func TestAPageRunSurvivesTheEndOfItsSession(t *testing.T) {
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, soql string) {
		if soql == "" && strings.HasSuffix(r.Header.Get("Authorization"), "!token1") {
			w.WriteHeader(401)
			io.WriteString(w, sessionOver)
		} else if soql == "" {
			io.WriteString(w, result("", contact(2)))
		} else {
			io.WriteString(w, result("/services/data/v62.0/query/01g-1", contact(1)))
		}
	}))
	records, _, err := scanAll(t, s.open(t), crm.Key{})
	if err != nil || len(records) != 2 || s.tokens.Load() != 2 {
		t.Errorf("%d records, %v, %d logins", len(records), err, s.tokens.Load())
	}
}

func TestMappingsOfOptOutFields(t *testing.T) {
	picklist := OptOut{Field: "F__c", Out: "Opted Out", In: "Opted In"}
	for _, c := range []struct {
		m     OptOut
		json  string
		want  bool
		fails bool
	}{
		{OptOut{Field: "F__c"}, "true", true, false},
		{OptOut{Field: "F__c"}, "false", false, false},
		{OptOut{Field: "F__c", Inverted: true}, "true", false, false},
		{OptOut{Field: "F__c", Inverted: true}, "false", true, false},
		{OptOut{Field: "F__c", Inverted: true}, "null", false, true},
		{picklist, `"Opted Out"`, true, false},
		{picklist, `"opted out "`, true, false},
		{picklist, `"Opted In"`, false, false},
		{picklist, `"Something else"`, false, false},
		{picklist, `null`, false, false},
		{picklist, `true`, false, true},
	} {
		got, err := c.m.read(row{"F__c": []byte(c.json)})
		if (err != nil) != c.fails || !c.fails && got != c.want {
			t.Errorf("%+v reads %s as %v, %v", c.m, c.json, got, err)
		}
	}
	for _, c := range []struct {
		m    OptOut
		out  bool
		want any
	}{
		{OptOut{}, true, true}, {OptOut{}, false, false}, {OptOut{Inverted: true}, true, false}, {OptOut{Inverted: true}, false, true},
		{picklist, true, "Opted Out"}, {picklist, false, "Opted In"},
	} {
		if got := c.m.write(c.out); got != c.want {
			t.Errorf("%+v writes %v as %v", c.m, c.out, got)
		}
	}
}

func TestIdsAreCheckedByTheirCheckCharacters(t *testing.T) {
	for in, want := range map[string]string{
		"003000000000001":    "003000000000001AAA",
		"003000000000001AAA": "003000000000001AAA",
		"003000000000001aaa": "003000000000001AAA",
		"00D000000000001":    "00D000000000001EAA",
		"00Q000000000001":    "00Q000000000001EAA",
		"00D000000000001AAA": "", "00d000000000001EAA": "", "003": "", "": "", "00300000000000'": "", "0030000000000011": "",
	} {
		got, err := id18(in)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q becomes %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestTimesAreReadAndWrittenInSalesforcesForms(t *testing.T) {
	for _, in := range []string{"2024-01-31T12:00:00.000+0000", "2024-01-31T13:00:00.000+0100", "2024-01-31T12:00:00Z"} {
		if got, err := parseStamp(in); err != nil || literal(got) != "2024-01-31T12:00:00Z" {
			t.Errorf("%s reads as %s, %v", in, literal(got), err)
		}
	}
	if got := literal(time.Time{}); got != "1970-01-01T00:00:00Z" {
		t.Errorf("the zero time is written %s", got)
	}
}

// unquote reads a SOQL string literal by the rules of the SOQL reference, so that a test can see what Salesforce sees.
func unquote(s string) (string, error) {
	if len(s) < 2 || s[0] != '\'' || s[len(s)-1] != '\'' {
		return "", errors.New("no literal")
	}
	var b strings.Builder
	for body := s[1 : len(s)-1]; body != ""; {
		c := body[0]
		body = body[1:]
		switch {
		case c == '\'':
			return "", errors.New("the literal ends early")
		case c != '\\':
			b.WriteByte(c)
		case body == "" || !strings.Contains(`'\`, body[:1]):
			return "", errors.New("illegal escape")
		default:
			b.WriteByte(body[0])
			body = body[1:]
		}
	}
	return b.String(), nil
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "O'Neil", `\`, `\'`, "' OR Name LIKE '%", "+15555550100", "a\x00b\nc", "\u2028", "\xff", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := unquote(quote(s))
		if err != nil {
			t.Fatalf("%q becomes %q: %v", s, quote(s), err)
		}
		want := strings.Map(func(r rune) rune {
			if r < 0x20 || r >= 0x7f && r <= 0x9f || r == '\u2028' || r == '\u2029' {
				return -1
			}
			return r
		}, s)
		if got != want {
			t.Fatalf("%q arrives as %q", s, got)
		}
		if back, err := url.QueryUnescape(url.QueryEscape(quote(s))); err != nil || back != quote(s) {
			t.Fatalf("%q does not survive a URL", s)
		}
	})
}

func TestACancelledScanSaysSo(t *testing.T) {
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, _ string) { io.WriteString(w, result("")) }))
	o := s.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range o.Scan(ctx, crm.Key{}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	}
}

func TestAStampIsReadAsTheLayoutsReadIt(t *testing.T) {
	same := func(t rapid.TB, s string) {
		t.Helper()
		want, err := time.Parse(stampLayout, s)
		if err != nil {
			want, err = time.Parse(time.RFC3339, s)
		}
		got, gotErr := parseStamp(s)
		if (gotErr == nil) != (err == nil) || err == nil && (!got.Equal(want) || got.Location() != time.UTC) {
			t.Fatalf("%q is read as %v, %v; the layouts say %v, %v", s, got, gotErr, want, err)
		}
	}
	for _, s := range []string{"2024-02-29T23:59:59.999Z", "2023-02-29T00:00:00.000Z", "2024-13-01T00:00:00.000Z", "2024-00-10T00:00:00.000+0000", "2024-01-31T24:00:00.000Z",
		"2024-01-31T23:60:00.000Z", "2024-01-31T12:00:60.000Z", "2024-01-31T12:00:00.000+0100", "2024-01-31T12:00:00Z", "2024-01-31 12:00:00.000Z", "", "2024-01-31T12:00:00.000",
		"0000-01-01T00:00:00.000Z", "2024-01-31T12:00:00.0000Z", "２024-01-31T12:00:00.000Z", "2024-01-3aT12:00:00.000Z"} {
		same(t, s)
	}
	rapid.Check(t, func(t *rapid.T) {
		same(t, rapid.StringMatching(`[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\.[0-9]{3}(Z|\+0000|\+0130|)`).Draw(t, "stamp"))
	})
}
