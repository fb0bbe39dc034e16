package salesforce

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/crm"
)

func TestProbeSaysWhatIsWrongAndWhatToClick(t *testing.T) {
	const phones = `{"name":"MobilePhone","type":"phone"},{"name":"Phone","type":"phone"},{"name":"SystemModstamp","type":"datetime","filterable":true}`
	for _, c := range []struct {
		name, fields, what, hint string
		status                   int
		noBulk                   bool
		edit                     func(*Config)
	}{
		{name: "hidden field", fields: phones, what: "no field SMS_Opt_Out__c", hint: "Read Access"},
		{name: "read-only", fields: phones + `,{"name":"SMS_Opt_Out__c","type":"boolean"}`, what: "may not write", hint: "Edit Access"},
		{name: "formula", fields: phones + `,{"name":"SMS_Opt_Out__c","type":"boolean","calculated":true}`, what: "formula", hint: "can be written"},
		{name: "other type", fields: phones + `,{"name":"SMS_Opt_Out__c","type":"picklist","updateable":true}`, what: "not a checkbox", hint: "out:"},
		{name: "picklist value", fields: phones + `,{"name":"C__c","type":"picklist","updateable":true,"picklistValues":[{"value":"Out","active":true},{"value":"In","active":false}]}`,
			what: `no active value "In"`, hint: "Fields & Relationships", edit: func(c *Config) { c.Objects[0].OptOut = OptOut{Field: "C__c", Out: "Out", In: "In"} }},
		{name: "optional field of another type", fields: phones + `,{"name":"SMS_Opt_Out__c","type":"boolean","updateable":true},{"name":"D__c","type":"date","updateable":true}`,
			what: "date_field Contact.D__c is a date field", hint: "datetime", edit: func(c *Config) { c.Objects[0].DateField = "D__c" }},
		{name: "no bulk jobs", fields: phones + `,{"name":"SMS_Opt_Out__c","type":"boolean","updateable":true}`, noBulk: true, what: "API_DISABLED_FOR_ORG", hint: "bulk: never"},
		{name: "no object", status: 404, what: "does not exist", hint: "Object Manager"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := play(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
				switch {
				case isCount(r):
					io.WriteString(w, `{"totalSize":3,"done":true,"records":[]}`)
				case strings.HasSuffix(r.URL.Path, "/describe") && c.status != 0:
					w.WriteHeader(c.status)
					io.WriteString(w, `[{"errorCode":"NOT_FOUND","message":"The requested resource does not exist"}]`)
				case strings.HasSuffix(r.URL.Path, "/describe"):
					fmt.Fprintf(w, `{"name":"Contact","queryable":true,"updateable":true,"fields":[%s]}`, c.fields)
				case strings.Contains(r.URL.Path, "userinfo"):
					io.WriteString(w, `{"preferred_username":"heed@acme.example"}`)
				case strings.HasSuffix(r.URL.Path, "/jobs/query") && c.noBulk:
					w.WriteHeader(http.StatusForbidden)
					io.WriteString(w, `[{"errorCode":"API_DISABLED_FOR_ORG","message":"not enabled"}]`)
				default:
					io.WriteString(w, `{"totalSize":1,"done":true,"records":[{"Name":"Acme","IsSandbox":true}]}`)
				}
			})
			edit := c.edit
			if edit == nil {
				edit = func(*Config) {}
			}
			var bad []crm.Finding
			for _, f := range s.open(t, edit).Probe(t.Context()) {
				if !f.OK {
					bad = append(bad, f)
				}
			}
			if len(bad) != 1 || !strings.Contains(bad[0].What, c.what) || !strings.Contains(bad[0].Hint, c.hint) {
				t.Errorf("findings %+v, want one with %q and the hint %q", bad, c.what, c.hint)
			}
		})
	}
}

func TestProbeSaysWhetherEveryRecordIsToBeSeen(t *testing.T) {
	for answer, want := range map[string]string{
		result("", map[string]any{"Id": "110000000000001AAA"}): "it has View All Records",
		result(""): "no View All Records there",
		`[{"errorCode":"INVALID_TYPE","message":"sObject type 'ObjectPermissions' is not supported."}]`: "if there are more, View All Records is missing",
	} {
		s := play(t, queries(func(w http.ResponseWriter, r *http.Request, soql string) {
			switch {
			case strings.Contains(soql, "FROM ObjectPermissions"):
				if !strings.Contains(soql, "SobjectType = 'Contact'") || !strings.Contains(soql, "AssigneeId = '"+testUser+"'") {
					t.Errorf("asks %s", soql)
				}
				if answer[0] == '[' {
					w.WriteHeader(http.StatusBadRequest)
				}
				io.WriteString(w, answer)
			case strings.HasSuffix(r.URL.Path, "/describe"):
				io.WriteString(w, `{"name":"Contact","queryable":true,"updateable":true,"fields":[]}`)
			default:
				io.WriteString(w, "{}")
			}
		}))
		if got := fmt.Sprint(s.open(t).Probe(t.Context())); !strings.Contains(got, want) {
			t.Errorf("%s: %s", answer, got)
		}
	}
}

func TestProbeReportsARefusedLoginAndAWrongClock(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Sforce-Limit-Info", "api-usage=4990/5000")
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		io.WriteString(w, "{}")
	})
	var all string
	for _, f := range s.open(t).Probe(t.Context()) {
		if !f.OK {
			all += f.What + "\n"
		}
	}
	if !strings.Contains(all, "off Salesforce's") || !strings.Contains(all, "4990 of 5000") {
		t.Errorf("findings %s", all)
	}
	s.token = func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		io.WriteString(w, `{"error":"invalid_grant","error_description":"user hasn't approved this consumer"}`)
	}
	fs := s.open(t).Probe(t.Context())
	if len(fs) != 1 || fs[0].OK || !strings.Contains(fs[0].What, "invalid_grant") || fs[0].Hint == "" {
		t.Errorf("findings %+v", fs)
	}
}

// Where nobody answers, the credentials are not what is wrong.
func TestProbeTellsAnUnreachableSalesforceFromARefusedLogin(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") })
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, domain := range map[string]string{"refused": gone.URL, "no TLS there": strings.Replace(s.URL, "http://", "https://", 1)} {
		fs := s.open(t, func(c *Config) { c.Domain = domain }).Probe(t.Context())
		if len(fs) != 1 || fs[0].OK || !strings.Contains(fs[0].What, "cannot be reached at "+domain) || !strings.Contains(fs[0].Hint, "firewall") || strings.Contains(fs[0].Hint, "client_id") {
			t.Errorf("%s: findings %+v", name, fs)
		}
	}
}
