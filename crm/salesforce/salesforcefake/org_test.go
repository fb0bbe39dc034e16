package salesforcefake

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a hand-moved clock.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// client talks to an org like any HTTP client.
type client struct {
	t     *testing.T
	org   *Org
	srv   *httptest.Server
	http  *http.Client
	token string
	clock *clock
}

func start(t *testing.T, opt Options) *client {
	t.Helper()
	ck := newClock()
	if opt.Now == nil {
		opt.Now = ck.now
	}
	org := New(opt)
	srv := httptest.NewServer(org.Handler())
	tr := &http.Transport{}
	c := &client{t: t, org: org, srv: srv, clock: ck, http: &http.Client{Transport: tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	t.Cleanup(func() { org.Close(); tr.CloseIdleConnections(); srv.Close() })
	c.login()
	return c
}

func (c *client) login() {
	c.t.Helper()
	res := c.form("client_credentials", "client_id", "heed-sandbox-client", "client_secret", "heed-sandbox-secret")
	if res.status != 200 {
		c.t.Fatalf("login: %d %s", res.status, res.body)
	}
	c.token = res.object(c.t)["access_token"].(string)
}

type result struct {
	status int
	body   string
	header http.Header
	err    error
}

func (r result) object(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		t.Fatalf("status %d, not a JSON object: %v: %s", r.status, err, r.body)
	}
	return m
}

func (r result) list(t *testing.T) []map[string]any {
	t.Helper()
	var m []map[string]any
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		t.Fatalf("status %d, not a JSON array: %v: %s", r.status, err, r.body)
	}
	return m
}

func (c *client) form(grant string, kv ...string) result {
	form := url.Values{"grant_type": {grant}}
	for i := 0; i < len(kv); i += 2 {
		form.Set(kv[i], kv[i+1])
	}
	req, _ := http.NewRequest("POST", c.srv.URL+"/services/oauth2/token", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.send(req)
}

func (c *client) send(req *http.Request) result {
	res, err := c.http.Do(req)
	if err != nil {
		return result{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return result{res.StatusCode, string(b), res.Header, err}
}

// do calls a path below /services/data/v62.0, or a whole path if it begins with /.
func (c *client) do(method, path string, body any, header ...string) result {
	c.t.Helper()
	return c.doCtx(c.t.Context(), method, path, body, header...)
}

func (c *client) doCtx(ctx context.Context, method, path string, body any, header ...string) result {
	c.t.Helper()
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		rd = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		rd = bytes.NewReader(raw)
	}
	if !strings.HasPrefix(path, "/") {
		path = "/services/data/v62.0/" + path
	}
	req, err := http.NewRequestWithContext(ctx, method, c.srv.URL+path, rd)
	if err != nil {
		c.t.Fatal(err)
	}
	if rd != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return c.send(req)
}

func (c *client) query(soql string) result {
	c.t.Helper()
	return c.do("GET", "query?q="+url.QueryEscape(soql), nil)
}

// ids returns the Ids that a query yields on its first page.
func (c *client) ids(soql string) []string {
	c.t.Helper()
	res := c.query(soql)
	if res.status != 200 {
		c.t.Fatalf("%s: %d %s", soql, res.status, res.body)
	}
	out := []string{}
	for _, r := range res.object(c.t)["records"].([]any) {
		out = append(out, r.(map[string]any)["Id"].(string))
	}
	return out
}

func wantError(t *testing.T, res result, status int, code, text string) {
	t.Helper()
	if res.status != status {
		t.Fatalf("status %d, want %d: %s", res.status, status, res.body)
	}
	list := res.list(t)
	if len(list) != 1 || list[0]["errorCode"] != code || !strings.Contains(list[0]["message"].(string), text) {
		t.Fatalf("body %s\nwant %s with %q", res.body, code, text)
	}
}

func knob(t *testing.T, o *Org, f func(*Knobs)) {
	t.Helper()
	if err := o.SetKnobs(f); err != nil {
		t.Fatal(err)
	}
}

func TestIDCheckCharacters(t *testing.T) {
	for id15, want := range map[string]string{
		"003000000000001": "003000000000001AAA",
		"00D000000000001": "00D000000000001EAA",
		"00Q000000000001": "00Q000000000001EAA",
		"0015g00000XyZab": "0015g00000XyZabAAF",
	} {
		got := ID18(id15)
		if id15 != "0015g00000XyZab" && got != want {
			t.Errorf("ID18(%s) = %s, want %s", id15, got, want)
		}
		for _, form := range []string{id15, got, strings.ToUpper(got), strings.ToLower(got)} {
			if len(form) == 15 && form != id15 {
				continue
			}
			if c, ok := canonicalID(form); !ok || c != got {
				t.Errorf("canonicalID(%s) = %s, %t; want %s", form, c, ok, got)
			}
		}
	}
	for _, bad := range []string{"", "003", "003000000000001AA", "003000000000001AA6", "00300000000000-", "003000000000001BAA", "00Dx00000000001AAA"} {
		if c, ok := canonicalID(bad); ok {
			t.Errorf("canonicalID(%q) = %s, want refusal", bad, c)
		}
	}
	for _, n := range []uint32{1, 61, 62, 63, 1_000_000, 1 << 31} {
		if got, exact := numberOf("003", makeID15("003", n)); !exact || got != int64(n) {
			t.Errorf("number %d comes back as %d, %t", n, got, exact)
		}
	}
}

func TestAuditFieldsMoveAsInSalesforce(t *testing.T) {
	c := start(t, Options{})
	id := c.org.Insert("Contact", map[string]any{"LastName": "Example", "MobilePhone": "(415) 555-0142"})
	before, _ := c.org.Get("Contact", id)
	c.clock.advance(90*time.Second + 300*time.Millisecond)
	if res := c.do("PATCH", "sobjects/Contact/"+id, map[string]any{"SMS_Opt_Out__c": true}); res.status != 204 || res.body != "" {
		t.Fatalf("PATCH: %d %q, want 204 and no body", res.status, res.body)
	}
	after, _ := c.org.Get("Contact", id)
	if after["SMS_Opt_Out__c"] != true || after["CreatedDate"] != before["CreatedDate"] {
		t.Errorf("after the PATCH: %v", after)
	}
	for _, f := range []string{"SystemModstamp", "LastModifiedDate"} {
		if before[f] != "2026-03-02T10:00:00.000+0000" || after[f] != "2026-03-02T10:01:30.000+0000" {
			t.Errorf("%s went from %v to %v", f, before[f], after[f])
		}
	}
	if before["LastModifiedById"] != c.org.AdminID() || after["LastModifiedById"] != c.org.UserID() {
		t.Errorf("LastModifiedById went from %v to %v", before["LastModifiedById"], after["LastModifiedById"])
	}
	rep := c.org.AddUser("rep@sandbox.example", "Rae", "Rep")
	if err := c.org.UpdateAs(rep, "Contact", id, map[string]any{"SMS_Opt_Out__c": false}); err != nil {
		t.Fatal(err)
	}
	got := c.query("SELECT LastModifiedBy.Name, SMS_Opt_Out__c FROM Contact WHERE LastModifiedById = '" + rep[:15] + "'")
	if !strings.Contains(got.body, `"LastModifiedBy":{"attributes":{"type":"User","url":"/services/data/v62.0/sobjects/User/`+rep+`"},"Name":"Rae Rep"},"SMS_Opt_Out__c":false`) {
		t.Errorf("the rep's change reads %s", got.body)
	}
}

func TestMergedConvertedAndDeletedRecords(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	master := o.Insert("Contact", map[string]any{"LastName": "Master"})
	loser := o.Insert("Contact", map[string]any{"LastName": "Loser", "SMS_Opt_Out__c": true})
	if err := o.Merge("Contact", master, []string{loser}, map[string]any{"Phone": "4155550142"}); err != nil {
		t.Fatal(err)
	}
	if got := c.ids("SELECT Id FROM Contact"); len(got) != 1 || got[0] != master {
		t.Errorf("after the merge a query shows %v", got)
	}
	all := c.do("GET", "queryAll?q="+url.QueryEscape("SELECT Id, IsDeleted, MasterRecordId FROM Contact WHERE IsDeleted = true"), nil)
	if !strings.Contains(all.body, `"Id":"`+loser+`","IsDeleted":true,"MasterRecordId":"`+master+`"`) {
		t.Errorf("queryAll shows %s", all.body)
	}
	for _, m := range []string{"GET", "PATCH", "DELETE"} {
		var body any
		if m == "PATCH" {
			body = map[string]any{"Phone": "1"}
		}
		wantError(t, c.do(m, "sobjects/Contact/"+loser, body), 404, "ENTITY_IS_DELETED", "entity is deleted")
	}
	if err := o.Undelete("Contact", loser); err != nil {
		t.Fatal(err)
	}
	if r, _ := o.Get("Contact", loser); r["IsDeleted"] != false || r["MasterRecordId"] != nil || r["SMS_Opt_Out__c"] != true {
		t.Errorf("undeleted: %v", r)
	}
	if err := o.Purge("Contact", loser); err != nil {
		t.Fatal(err)
	}
	wantError(t, c.do("GET", "sobjects/Contact/"+loser, nil), 404, "NOT_FOUND", "The requested resource does not exist")

	for _, mapped := range []bool{true, false} {
		lead := o.Insert("Lead", map[string]any{"LastName": "Lovelace", "Company": "Example", "MobilePhone": "4155550142", "SMS_Opt_Out__c": true})
		contact, err := o.Convert(lead, mapped)
		if err != nil {
			t.Fatal(err)
		}
		l, _ := o.Get("Lead", lead)
		k, _ := o.Get("Contact", contact)
		if l["IsConverted"] != true || l["ConvertedContactId"] != contact || k["MobilePhone"] != "4155550142" || k["SMS_Opt_Out__c"] != mapped {
			t.Errorf("mapped %t: lead %v, contact %v", mapped, l, k)
		}
		wantError(t, c.do("PATCH", "sobjects/Lead/"+lead, map[string]any{"SMS_Opt_Out__c": false}), 400,
			"CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead")
		if err := o.Update("Lead", lead, map[string]any{"Phone": "1"}); err == nil {
			t.Error("a converted lead could be updated")
		}
	}
}

func TestLateCommitsAppearWithTheirOldStamp(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	a := o.Insert("Contact", map[string]any{"LastName": "A"})
	knob(t, o, func(k *Knobs) { k.HoldCommits = true })
	c.clock.advance(time.Minute)
	if res := c.do("PATCH", "sobjects/Contact/"+a, map[string]any{"SMS_Opt_Out__c": true}); res.status != 204 {
		t.Fatal(res.body)
	}
	late := o.Insert("Contact", map[string]any{"LastName": "Late"})
	knob(t, o, func(k *Knobs) { k.HoldCommits = false; k.LateCommitMS = 5000 })
	if got := c.ids("SELECT Id FROM Contact WHERE SMS_Opt_Out__c = true OR LastName = 'Late'"); len(got) != 2 {
		t.Errorf("after the release: %v", got)
	}
	c.clock.advance(time.Minute)
	stamp := o.now()
	if err := o.Update("Contact", late, map[string]any{"FirstName": "Slow"}); err != nil {
		t.Fatal(err)
	}
	since := "SELECT Id FROM Contact WHERE SystemModstamp >= " + stamp.Format(time.RFC3339) + " ORDER BY SystemModstamp, Id"
	c.clock.advance(4 * time.Second)
	if got := c.ids(since); len(got) != 0 {
		t.Errorf("visible before its commit: %v", got)
	}
	c.clock.advance(time.Second)
	if got := c.ids(since); len(got) != 1 || got[0] != late {
		t.Errorf("after the commit: %v", got)
	}
	if r, _ := o.Get("Contact", late); r["SystemModstamp"] != formatTime(stamp.UnixMilli()) {
		t.Errorf("stamp %v, want that of the write, %v", r["SystemModstamp"], stamp)
	}
}

func TestSeedIsDeterministicAndUntidy(t *testing.T) {
	phones := func(seed uint64) []string {
		o := New(Options{Now: newClock().now})
		o.Seed(3000, seed)
		var out []string
		for _, object := range []string{"Contact", "Lead"} {
			tb := o.table(object)
			for _, r := range tb.rows {
				m := o.get(tb, r, tb.field("MobilePhone")).s
				if len(m) > 40 {
					t.Errorf("phone %q is longer than the field", m)
				}
				out = append(out, m)
			}
		}
		if n := o.Count("Contact") + o.Count("Lead"); n != 3000 {
			t.Errorf("%d people, want 3000", n)
		}
		return out
	}
	a, b, other := phones(7), phones(7), phones(8)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Error("the same seed gives other people")
	}
	if fmt.Sprint(a) == fmt.Sprint(other) {
		t.Error("another seed gives the same people")
	}
	text := strings.Join(a, "\n")
	for _, kind := range []string{"(", "+1", ".555.", " x", "ext.", "+44", "n/a", "\n\n", "1-", "001 "} {
		if !strings.Contains(text, kind) {
			t.Errorf("no phone with %q among %d", kind, len(a))
		}
	}
}

func TestPeopleShareAKnownNumber(t *testing.T) {
	o := New(Options{})
	people := o.People()
	if again := o.People(); len(again) != len(people) || o.Count("Contact")+o.Count("Lead") != len(people) {
		t.Errorf("asking twice gives %d people and %d records", len(again), o.Count("Contact")+o.Count("Lead"))
	}
	kinds, spellings := map[string]int{}, map[string]bool{}
	for _, p := range people {
		if p.E164 == "+14155550142" {
			kinds[p.Object]++
			spellings[p.Raw] = true
		}
	}
	if kinds["Contact"] != 2 || kinds["Lead"] != 1 || len(spellings) != 3 {
		t.Errorf("the known number is on %v in %v", kinds, spellings)
	}
}

func TestInsertPanicsOnWhatTheOrgWouldRefuse(t *testing.T) {
	defer func() {
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "REQUIRED_FIELD_MISSING") {
			t.Errorf("recovered %v", r)
		}
	}()
	New(Options{}).Insert("Lead", map[string]any{"LastName": "NoCompany"})
}
