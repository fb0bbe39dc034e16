package salesforce

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/heed-sms/heed/crm"
)

func TestMain(m *testing.M) {
	install(nil, time.Millisecond, 4*time.Millisecond)
	goleak.VerifyTestMain(m)
}

const (
	testOrg  = "00D000000000001EAA"
	testUser = "005000000000001AAA"
	adminID  = "005000000000002AAA"
	secret   = "s3cr&t/+value"
)

// script is a server that plays an organisation as a test needs it: the token endpoint, and one handler for the rest.
type script struct {
	*httptest.Server
	tokens atomic.Int64     // token requests
	calls  atomic.Int64     // other requests
	token  http.HandlerFunc // instead of a good token
	mu     sync.Mutex
	log    bytes.Buffer
}

func play(t *testing.T, data http.HandlerFunc) *script {
	t.Helper()
	s := &script{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == tokenPath {
			n := s.tokens.Add(1)
			if s.token != nil {
				s.token(w, r)
				return
			}
			s.grant(w, n)
			return
		}
		s.calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Sforce-Limit-Info", "api-bursts=1/750; api-usage=18/5000")
		data(w, r)
	}))
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		s.Close()
	})
	return s
}

func (s *script) grant(w http.ResponseWriter, n int64) {
	fmt.Fprintf(w, `{"access_token":"00D000000000001!token%d","signature":"x","scope":"api","instance_url":%q,"id":"https://login.salesforce.com/id/%s/%s","token_type":"Bearer","issued_at":"1700000000000"}`,
		n, s.URL, testOrg, testUser)
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *script) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

func config(domain string) Config {
	return Config{Domain: domain, ClientID: "client", ClientSecret: secret, Objects: []Object{
		{Object: "Contact", Phones: []string{"MobilePhone", "Phone"}, OptOut: OptOut{Field: "SMS_Opt_Out__c"}},
	}}
}

func (s *script) open(t *testing.T, edit ...func(*Config)) *Org {
	t.Helper()
	c := config(s.URL)
	for _, e := range edit {
		e(&c)
	}
	o, err := New(c, slog.New(slog.NewTextHandler(s, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func id(prefix string, n int) string {
	s, err := id18(fmt.Sprintf("%s%012d", prefix, n))
	if err != nil {
		panic(err)
	}
	return s
}

func contactID(n int) string { return id("003", n) }

const someStamp = "2026-03-01T12:00:00.000+0000"

// contact is a row as a query answers it; extra holds fields to set or, with nil values as dropField, to leave out.
func contact(n int, extra ...any) map[string]any {
	m := map[string]any{
		"attributes": map[string]any{"type": "Contact", "url": "/services/data/v62.0/sobjects/Contact/" + contactID(n)},
		"Id":         contactID(n), "MobilePhone": "(555) 555-0100", "Phone": nil, "SMS_Opt_Out__c": false,
		"SystemModstamp": someStamp, "LastModifiedDate": someStamp, "CreatedDate": someStamp,
		"LastModifiedById": adminID, "LastModifiedBy": map[string]any{"Name": "Ada Admin"},
		"IsDeleted": false, "MasterRecordId": nil,
	}
	for i := 0; i+1 < len(extra); i += 2 {
		if extra[i+1] == dropField {
			delete(m, extra[i].(string))
		} else {
			m[extra[i].(string)] = extra[i+1]
		}
	}
	return m
}

var dropField = new(int)

func result(next string, rows ...map[string]any) string {
	if rows == nil {
		rows = []map[string]any{}
	}
	m := map[string]any{"totalSize": len(rows), "done": next == "", "records": rows}
	if next != "" {
		m["nextRecordsUrl"] = next
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func isCount(r *http.Request) bool { return strings.Contains(r.URL.Query().Get("q"), "COUNT()") }

// queries answers counts and passes other queries on.
func queries(answer func(w http.ResponseWriter, r *http.Request, soql string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if isCount(r) {
			io.WriteString(w, `{"totalSize":5,"done":true,"records":[]}`)
			return
		}
		answer(w, r, r.URL.Query().Get("q"))
	}
}

func scanAll(t *testing.T, o *Org, after crm.Key) ([]crm.Record, []crm.Page, error) {
	t.Helper()
	var records []crm.Record
	var pages []crm.Page
	for p, err := range o.Scan(t.Context(), after) {
		if err != nil {
			return records, pages, err
		}
		pages = append(pages, p)
		records = append(records, p.Records...)
	}
	return records, pages, nil
}

// writeContacts writes true to n contacts.
func writeContacts(t *testing.T, o *Org, n int) []crm.Result {
	t.Helper()
	var ws []crm.Write
	for i := range n {
		ws = append(ws, crm.Write{Key: crm.Key{Object: "Contact", ID: contactID(i + 1)}, OptedOut: true,
			At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Source: "sms_reply", Text: "STOP"})
	}
	return o.Write(t.Context(), ws)
}

type patchBody struct {
	AllOrNone *bool                        `json:"allOrNone"`
	Records   []map[string]json.RawMessage `json:"records"`
}

func readPatch(t *testing.T, r *http.Request) (patchBody, []string) {
	var b patchBody
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
		t.Errorf("the body of %s %s: %v", r.Method, r.URL.Path, err)
	}
	if r.Method != http.MethodPatch || !strings.HasSuffix(r.URL.Path, "/composite/sobjects") || b.AllOrNone == nil || *b.AllOrNone {
		t.Errorf("%s %s allOrNone=%v is no collection update that lets good rows pass", r.Method, r.URL.Path, b.AllOrNone)
	}
	ids := make([]string, len(b.Records))
	for i, rec := range b.Records {
		_ = json.Unmarshal(rec["id"], &ids[i])
	}
	return b, ids
}

func rowOK(id string) string { return fmt.Sprintf(`{"id":%q,"success":true,"errors":[]}`, id) }

func rowFail(code, message string, fields ...string) string {
	f, _ := json.Marshal(fields)
	if fields == nil {
		f = []byte("[]")
	}
	m, _ := json.Marshal(message)
	return fmt.Sprintf(`{"id":null,"success":false,"errors":[{"statusCode":%q,"message":%s,"fields":%s}]}`, code, m, f)
}

func array(rows []string) string { return "[" + strings.Join(rows, ",") + "]" }

func asError(t *testing.T, err error) *crm.Error {
	t.Helper()
	e, ok := err.(*crm.Error)
	if !ok {
		t.Fatalf("the error is %T %v, want a *crm.Error", err, err)
	}
	return e
}

func TestARecordIsTheSameRecordHoweverItsNameIsWritten(t *testing.T) {
	o := &Org{config: Config{Objects: []Object{{Object: "Contact"}}}}
	want := crm.Key{Object: "Contact", ID: "003000000000001AAA"}
	for _, k := range []crm.Key{want, {Object: "Contact", ID: "003000000000001"}, {Object: "contact", ID: "003000000000001AAA"}, {Object: "CONTACT", ID: "003000000000001aaa"}} {
		if got, err := o.Canonical(k); err != nil || got != want {
			t.Errorf("%v: %v %v", k, got, err)
		}
	}
	for _, id := range []string{"", "003", "003000000000001AAB", "003-00000000001", "nonsense"} {
		if got, err := o.Canonical(crm.Key{Object: "Contact", ID: id}); err == nil {
			t.Errorf("%q is taken for %v", id, got)
		}
	}
}
