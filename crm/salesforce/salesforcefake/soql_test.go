package salesforcefake

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// people makes a few records whose names tests can list.
func people(t *testing.T) (*client, map[string]string) {
	c := start(t, Options{Fields: []Field{
		{Object: "Contact", Name: "Score__c", Type: Number},
		{Object: "Contact", Name: "ns__Consent__c", Type: Picklist, Restricted: true, Values: []string{"Opted In", "Opted Out"}},
	}})
	ids := map[string]string{}
	acme := c.org.Insert("Account", map[string]any{"Name": "Acme"})
	add := func(name string, f map[string]any) {
		f["LastName"] = name
		ids[name] = c.org.Insert("Contact", f)
		c.clock.advance(time.Hour)
	}
	add("Adler", map[string]any{"MobilePhone": "(415) 555-0142", "SMS_Opt_Out__c": true, "AccountId": acme, "Birthdate": "2000-02-29"})
	add("baker", map[string]any{"MobilePhone": "415.555.0142", "Title": "100% O'Brien_x", "Score__c": 2.5})
	add("Chen", map[string]any{"Title": `back\slash`, "SMS_Opt_Out_Date__c": "2026-03-01T23:59:59Z", "ns__Consent__c": "Opted Out", "Score__c": 10})
	add("Ito", map[string]any{"Title": "100 percent"})
	c.login() // the hours were longer than a session
	return c, ids
}

func TestSOQLAnswers(t *testing.T) {
	c, ids := people(t)
	stamp := "2026-03-02T11:00:00Z" // baker's
	for where, want := range map[string]string{
		"":                                                                  "Adler baker Chen Ito",
		"WHERE LastName = 'ADLER'":                                          "Adler",
		"where lastname = 'adler'":                                          "Adler",
		"WHERE LastName != 'Adler'":                                         "baker Chen Ito",
		"WHERE Title != '100 percent'":                                      "Adler baker Chen",
		"WHERE LastName <> 'Adler'":                                         "baker Chen Ito",
		"WHERE LastName > 'B' AND LastName < 'd'":                           "baker Chen",
		"WHERE LastName >= 'Chen'":                                          "Chen Ito",
		"WHERE MobilePhone IN ('415.555.0142','x',null)":                    "baker Chen Ito",
		"WHERE MobilePhone NOT IN ('415.555.0142')":                         "Adler Chen Ito",
		"WHERE MobilePhone = null":                                          "Chen Ito",
		"WHERE MobilePhone = ''":                                            "Chen Ito",
		"WHERE MobilePhone != null":                                         "Adler baker",
		"WHERE MobilePhone LIKE '%555%0142'":                                "Adler baker",
		"WHERE Title LIKE '100\\%%'":                                        "baker",
		"WHERE Title LIKE '100_p%'":                                         "Ito",
		"WHERE Title LIKE '%\\_x'":                                          "baker",
		"WHERE Title LIKE 'back\\\\\\\\%'":                                  "",
		"WHERE Title LIKE 'back\\\\%'":                                      "Chen",
		"WHERE Title = 'back\\\\slash'":                                     "Chen",
		"WHERE Title = '100% O\\'Brien_x'":                                  "baker",
		"WHERE Title = '100% O\\u0027Brien_x'":                              "baker",
		"WHERE SMS_Opt_Out__c = true":                                       "Adler",
		"WHERE SMS_Opt_Out__c = FALSE":                                      "baker Chen Ito",
		"WHERE SMS_Opt_Out__c = null":                                       "baker Chen Ito",
		"WHERE NOT SMS_Opt_Out__c = true":                                   "baker Chen Ito",
		"WHERE (NOT LastName LIKE 'A%') AND Title != null":                  "baker Chen Ito",
		"WHERE (LastName = 'Chen' OR LastName = 'Ito') AND Title LIKE '1%'": "Ito",
		"WHERE Id = '" + ids["Chen"] + "'":                                  "Chen",
		"WHERE Id = '" + ids["Chen"][:15] + "'":                             "Chen",
		"WHERE Id IN ('" + ids["Ito"] + "','" + ids["Adler"][:15] + "','003000000000001AAA')": "Adler Ito",
		"WHERE Id > '" + ids["baker"] + "'":                                                   "Chen Ito",
		"WHERE Id >= '" + ids["baker"] + "' AND Id < '" + ids["Ito"] + "'":                    "baker Chen",
		"WHERE Id > '000000000000000AAA'":                                                     "Adler baker Chen Ito",
		"WHERE Id <= '003000000000000AAA'":                                                    "",
		"WHERE Id > '00Q000000000000EAA'":                                                     "",
		"WHERE Id != '" + ids["Chen"] + "'":                                                   "Adler baker Ito",
		"WHERE Account.Name = 'acme'":                                                         "Adler",
		"WHERE Account.Name = null":                                                           "baker Chen Ito",
		"WHERE Contact.LastName = 'Ito'":                                                      "Ito",
		"WHERE SystemModstamp = " + stamp:                                                     "baker",
		"WHERE SystemModstamp > " + stamp:                                                     "Chen Ito",
		"WHERE SystemModstamp >= 2026-03-02T12:00:00+01:00":                                   "baker Chen Ito",
		"WHERE SystemModstamp < 2026-03-02T11:00:00.500Z":                                     "Adler baker",
		"WHERE (SystemModstamp = " + stamp + " AND Id > '" + ids["baker"] + "') OR SystemModstamp > " + stamp: "Chen Ito",
		"WHERE SMS_Opt_Out_Date__c = YESTERDAY":                    "Chen",
		"WHERE SMS_Opt_Out_Date__c = TODAY":                        "",
		"WHERE SMS_Opt_Out_Date__c < TODAY":                        "Chen",
		"WHERE CreatedDate = LAST_N_DAYS:1":                        "Adler baker Chen Ito",
		"WHERE CreatedDate > TODAY":                                "",
		"WHERE Birthdate = 2000-02-29":                             "Adler",
		"WHERE Birthdate > 2000-02-28 AND Birthdate <= 2000-02-29": "Adler",
		"WHERE Score__c > 2.4 AND Score__c < 10":                   "baker",
		"WHERE Score__c IN (10, 2.5)":                              "baker Chen",
		"WHERE ns__Consent__c = 'opted out'":                       "Chen",
		"ORDER BY LastName DESC":                                   "Ito Chen baker Adler",
		"ORDER BY Title NULLS LAST, Id":                            "Ito baker Chen Adler",
		"ORDER BY MobilePhone ASC NULLS FIRST, LastName DESC":      "Ito Chen Adler baker",
		"ORDER BY Score__c DESC NULLS LAST LIMIT 2":                "Chen baker",
		"ORDER BY SystemModstamp DESC LIMIT 1":                     "Ito",
		"ORDER BY Id DESC LIMIT 2":                                 "Ito Chen",
		"ORDER BY Account.Name DESC NULLS LAST, Id LIMIT 1":        "Adler",
		"LIMIT 2":          "Adler baker",
		"LIMIT 0":          "",
		"LIMIT 2 OFFSET 1": "baker Chen",
		"ORDER BY SystemModstamp, Id LIMIT 2 OFFSET 2": "Chen Ito",
	} {
		var names []string
		got := c.query("SELECT LastName FROM Contact " + where)
		if got.status != 200 {
			t.Errorf("%s: %d %s", where, got.status, got.body)
			continue
		}
		for _, r := range got.object(t)["records"].([]any) {
			names = append(names, r.(map[string]any)["LastName"].(string))
		}
		if s := strings.Join(names, " "); s != want {
			t.Errorf("%s\n got %q\nwant %q", where, s, want)
		}
	}
}

func TestSOQLAnswerShape(t *testing.T) {
	c, ids := people(t)
	got := c.query("select id, MOBILEPHONE, account.name, Account.Owner.Name, sms_opt_out__c, createddate, score__c from contact where lastname = 'Ito'")
	want := `{"totalSize":1,"done":true,"records":[{"attributes":{"type":"Contact","url":"/services/data/v62.0/sobjects/Contact/` + ids["Ito"] +
		`"},"Id":"` + ids["Ito"] + `","MobilePhone":null,"Account":null,"SMS_Opt_Out__c":false,"CreatedDate":"2026-03-02T13:00:00.000+0000","Score__c":null}]}`
	if got.body != want {
		t.Errorf("got  %s\nwant %s", got.body, want)
	}
	if got = c.query("SELECT COUNT() FROM Contact WHERE MobilePhone != null"); got.body != `{"done":true,"records":[],"totalSize":2}` {
		t.Errorf("COUNT(): %s", got.body)
	}
	got = c.do("GET", "/services/data/v51.0/query/?q="+url.QueryEscape("SELECT Id FROM Contact LIMIT 1"), nil)
	if !strings.Contains(got.body, "/services/data/v51.0/sobjects/Contact/") {
		t.Errorf("v51.0 asked, answered %s", got.body)
	}
	if got = c.do("GET", "query?q=SELECT+Id+FROM+Contact+WHERE+MobilePhone='+1'", nil); got.object(t)["totalSize"] != 0.0 {
		t.Errorf("a + in a URL is a blank: %s", got.body)
	}
}

func TestSOQLRefusals(t *testing.T) {
	c, _ := people(t)
	for soql, want := range map[string]string{
		"":                                                                        "MALFORMED_QUERY A query string has to be specified",
		"SELECT":                                                                  "MALFORMED_QUERY unexpected token: '<EOF>'",
		"SELECT Id FORM Contact":                                                  "MALFORMED_QUERY \nSELECT Id FORM Contact\n          ^\nERROR at Row:1:Column:11\nunexpected token: 'FORM'",
		"SELECT * FROM Contact":                                                   "MALFORMED_QUERY unexpected token: '*'",
		"SELECT Id FROM Contact;":                                                 "MALFORMED_QUERY unexpected token: ';'",
		"SELECT Id FROM Contact c":                                                "MALFORMED_QUERY unexpected token: 'c'",
		"SELECT Id, FROM Contact":                                                 "MALFORMED_QUERY unexpected token: 'FROM'",
		"SELECT Nope__c FROM Contact":                                             "INVALID_FIELD \nSELECT Nope__c FROM Contact\n       ^\nERROR at Row:1:Column:8\nNo such column 'Nope__c' on entity 'Contact'. If you are attempting to use a custom field",
		"SELECT Id FROM Contact123":                                               "INVALID_TYPE ERROR at Row:1:Column:16\nsObject type 'Contact123' is not supported.",
		"SELECT Id, Id FROM Contact":                                              "INVALID_FIELD duplicate field selected: Id",
		"SELECT Boss.Name FROM Contact":                                           "INVALID_FIELD Didn't understand relationship 'Boss' in field path",
		"SELECT COUNT(Id) FROM Contact":                                           "MALFORMED_QUERY COUNT() alone",
		"SELECT FIELDS(ALL) FROM Contact LIMIT 200":                               "MALFORMED_QUERY no other functions",
		"SELECT Id FROM Contact GROUP BY Name":                                    "MALFORMED_QUERY unexpected token: 'GROUP'",
		"SELECT Id FROM Contact WITH SECURITY_ENFORCED":                           "MALFORMED_QUERY unexpected token: 'WITH'",
		"SELECT Id FROM Contact WHERE":                                            "MALFORMED_QUERY unexpected token: '<EOF>'",
		"SELECT Id FROM Contact WHERE Name":                                       "MALFORMED_QUERY unexpected token: '<EOF>'",
		"SELECT Id FROM Contact WHERE Name = 'x":                                  "MALFORMED_QUERY mismatched character '<EOF>' expecting '''",
		`SELECT Id FROM Contact WHERE Name = 'a\d'`:                               `MALFORMED_QUERY Illegal character sequence '\d' in string literal.`,
		`SELECT Id FROM Contact WHERE Name = '\u00g0'`:                            `MALFORMED_QUERY Illegal character sequence '\u'`,
		"SELECT Id FROM Contact WHERE Name = 'O'Brien'":                           "MALFORMED_QUERY unexpected token: 'Brien'",
		"SELECT Id FROM Contact WHERE Name = \"x\"":                               "MALFORMED_QUERY unexpected token: '\"'",
		"SELECT Id FROM Contact WHERE Name = :x":                                  "MALFORMED_QUERY Bind variables only allowed in Apex code",
		"SELECT Id FROM Contact WHERE Name = Title":                               "MALFORMED_QUERY Bind variables only allowed in Apex code",
		"SELECT Id FROM Contact WHERE Name IN ()":                                 "MALFORMED_QUERY unexpected token: ')'",
		"SELECT Id FROM Contact WHERE Name IN 'x'":                                "MALFORMED_QUERY unexpected token: 'x'",
		"SELECT Id FROM Contact WHERE Id IN (SELECT ContactId FROM Case)":         "MALFORMED_QUERY does not answer subqueries",
		"SELECT Id FROM Contact WHERE Name = 'a' AND Name = 'b' OR Name = 'c'":    "MALFORMED_QUERY unexpected token: 'OR'",
		"SELECT Id FROM Contact WHERE Name = 'a' AND NOT Name = 'b'":              "MALFORMED_QUERY unexpected token: 'NOT'",
		"SELECT Id FROM Contact WHERE NOT Name = 'a' AND Name = 'b'":              "MALFORMED_QUERY unexpected token: 'AND'",
		"SELECT Id FROM Contact WHERE (Name = 'a'":                                "MALFORMED_QUERY unexpected token: '<EOF>'",
		"SELECT Id FROM Contact WHERE Name = 5":                                   "INVALID_FIELD value of filter criterion for field 'Name' must be of type string and should be enclosed in quotes",
		"SELECT Id FROM Contact WHERE SMS_Opt_Out__c = 'true'":                    "INVALID_FIELD value of filter criterion for field 'SMS_Opt_Out__c' must be of type boolean and should not be enclosed in quotes",
		"SELECT Id FROM Contact WHERE SMS_Opt_Out__c > false":                     "INVALID_QUERY_FILTER_OPERATOR operator >",
		"SELECT Id FROM Contact WHERE SystemModstamp > '2026-01-01T00:00:00Z'":    "INVALID_FIELD must be of type dateTime and should not be enclosed in quotes",
		"SELECT Id FROM Contact WHERE SystemModstamp > 2026-01-01":                "INVALID_FIELD must be of type dateTime",
		"SELECT Id FROM Contact WHERE SystemModstamp > 2026-01-01T00:00:00":       "MALFORMED_QUERY Invalid datetime",
		"SELECT Id FROM Contact WHERE Birthdate = 2001-02-29":                     "MALFORMED_QUERY Invalid date",
		"SELECT Id FROM Contact WHERE Id = 'nope'":                                "INVALID_QUERY_FILTER_OPERATOR invalid ID field: nope",
		"SELECT Id FROM Contact WHERE Id > ''":                                    "INVALID_QUERY_FILTER_OPERATOR operator > is not valid",
		"SELECT Id FROM Contact WHERE Id LIKE '003%'":                             "INVALID_QUERY_FILTER_OPERATOR operator LIKE",
		"SELECT Id FROM Contact WHERE Description = 'x'":                          "INVALID_FIELD field 'Description' can not be filtered in a query call",
		"SELECT Id FROM Contact ORDER BY Description":                             "MALFORMED_QUERY field 'Description' can not be sorted in a query call",
		"SELECT Id FROM Contact ORDER BY Name ASC DESC":                           "MALFORMED_QUERY unexpected token: 'DESC'",
		"SELECT Id FROM Contact LIMIT -1":                                         "MALFORMED_QUERY unexpected token: '-1'",
		"SELECT Id FROM Contact LIMIT x":                                          "MALFORMED_QUERY unexpected token: 'x'",
		"SELECT Id FROM Contact OFFSET 2001":                                      "NUMBER_OUTSIDE_VALID_RANGE Maximum SOQL offset allowed is 2000",
		"SELECT Id FROM Contact OFFSET 1 LIMIT 1":                                 "MALFORMED_QUERY unexpected token: 'LIMIT'",
		"SELECT Id FROM Contact WHERE Name = '" + strings.Repeat("x", 4001) + "'": "MALFORMED_QUERY string literal is longer than 4000",
	} {
		res := c.query(soql)
		code, text, _ := strings.Cut(want, " ")
		if res.status != 400 {
			t.Errorf("%s: %d %s", soql, res.status, res.body)
			continue
		}
		e := res.list(t)[0]
		if e["errorCode"] != code || !strings.Contains(e["message"].(string), text) {
			t.Errorf("%s\n got %v %q\nwant %s %q", soql, e["errorCode"], e["message"], code, text)
		}
	}
}

func TestHiddenFieldsLookUnknownEverywhere(t *testing.T) {
	c, ids := people(t)
	c.org.SetAccess("Contact", "SMS_Opt_Out__c", Hidden)
	wantError(t, c.query("SELECT SMS_Opt_Out__c FROM Contact"), 400, "INVALID_FIELD", "No such column 'SMS_Opt_Out__c' on entity 'Contact'")
	wantError(t, c.do("PATCH", "sobjects/Contact/"+ids["Ito"], map[string]any{"SMS_Opt_Out__c": true}), 400, "INVALID_FIELD",
		"No such column 'SMS_Opt_Out__c' on sobject of type Contact")
	for _, path := range []string{"sobjects/Contact/describe", "sobjects/Contact/" + ids["Ito"]} {
		if res := c.do("GET", path, nil); res.status != 200 || strings.Contains(res.body, `SMS_Opt_Out__c"`) {
			t.Errorf("%s: %d, shows the hidden field", path, res.status)
		}
	}
	c.org.SetAccess("Contact", "SMS_Opt_Out__c", ReadWrite)
	knob(t, c.org, func(k *Knobs) { k.ReadOnlyFields = []string{"contact.sms_opt_out__C"} })
	res := c.do("PATCH", "sobjects/Contact/"+ids["Ito"], map[string]any{"SMS_Opt_Out__c": true})
	wantError(t, res, 400, "INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update fields: SMS_Opt_Out__c. Please check the security settings")
	if got := fmt.Sprint(res.list(t)[0]["fields"]); got != "[SMS_Opt_Out__c]" {
		t.Errorf("fields %s", got)
	}
	if res := c.query("SELECT SMS_Opt_Out__c FROM Contact"); res.status != 200 {
		t.Errorf("a read-only field cannot be read: %s", res.body)
	}
}

// TestIndexesAgreeWithScans runs queries that an index answers beside forms of them that none does.
func TestIndexesAgreeWithScans(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	o.Seed(600, 3)
	tb := o.table("Contact")
	for i, r := range tb.rows {
		if i%7 == 0 {
			c.clock.advance(time.Second)
			if err := o.Update("Contact", tb.id(r.num), map[string]any{"Title": "touched"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	mid := tb.rows[len(tb.rows)/2]
	at, id := time.UnixMilli(mid.stamp).UTC().Format(time.RFC3339), tb.id(mid.num)
	for _, pair := range [][2]string{
		{"Id > '" + id + "'", "(NOT Id <= '" + id + "')"},
		{"SystemModstamp > " + at, "(NOT SystemModstamp <= " + at + ")"},
		{"SystemModstamp <= " + at, "(NOT SystemModstamp > " + at + ")"},
		{"(SystemModstamp = " + at + " AND Id > '" + id + "') OR SystemModstamp > " + at,
			"NOT (SystemModstamp < " + at + " OR (SystemModstamp = " + at + " AND Id <= '" + id + "'))"},
		{"Id IN ('" + id + "') OR SystemModstamp < " + at, "NOT (Id != '" + id + "' AND SystemModstamp >= " + at + ")"},
		{"Id = '" + id + "' OR Id = '" + tb.id(3) + "'", "NOT (Id != '" + id + "' AND Id != '" + tb.id(3) + "')"},
	} {
		for _, order := range []string{"", " ORDER BY Id", " ORDER BY Id DESC", " ORDER BY SystemModstamp", " ORDER BY SystemModstamp, Id",
			" ORDER BY SystemModstamp DESC, Id DESC", " ORDER BY LastName, Id"} {
			for _, limit := range []string{"", " LIMIT 20", " LIMIT 5 OFFSET 3"} {
				fast, slow := c.ids("SELECT Id FROM Contact WHERE "+pair[0]+order+limit), c.ids("SELECT Id FROM Contact WHERE "+pair[1]+order+limit)
				if !slices.Equal(fast, slow) {
					t.Errorf("%s%s%s: %d rows by index, %d by scan, or another order", pair[0], order, limit, len(fast), len(slow))
				}
			}
		}
	}
}

func FuzzSOQL(f *testing.F) {
	for _, s := range []string{"SELECT Id FROM Contact", "SELECT COUNT() FROM Lead WHERE NOT (Name LIKE '%\\'x' OR Id IN ('003'))",
		"SELECT Id FROM Contact WHERE CreatedDate = LAST_N_DAYS:3 ORDER BY Id DESC NULLS LAST LIMIT 1 OFFSET 2", "SELECT Owner.Name FROM Contact WHERE a=1e9",
		"SELECT Id FROM Contact WHERE Name = '\\u00e9' AND SystemModstamp >= 2026-01-01T00:00:00+01:00", "SELECT 'é"} {
		f.Add(s)
	}
	o := New(Options{Now: newClock().now})
	o.Seed(20, 1)
	f.Fuzz(func(t *testing.T, s string) {
		q, err := parseSOQL(s)
		if (q == nil) == (err == nil) {
			t.Fatalf("%q: query %v, error %v", s, q, err)
		}
		if err != nil {
			if err.code == "" || err.message == "" || err.status != 400 {
				t.Fatalf("%q: empty error %+v", s, err)
			}
			return
		}
		if c, err := o.compile(q, everyone, true); err == nil {
			c.run()
		}
	})
}
