package salesforcefake

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gosf "github.com/k-capehart/go-salesforce/v2"
)

func TestClientCredentials(t *testing.T) {
	c := start(t, Options{})
	ok := c.form("client_credentials", "client_id", "heed-sandbox-client", "client_secret", "heed-sandbox-secret").object(t)
	base := c.srv.URL
	if ok["instance_url"] != base || ok["token_type"] != "Bearer" || ok["id"] != base+"/id/"+c.org.OrgID()+"/"+c.org.UserID() ||
		ok["issued_at"] != fmt.Sprint(c.clock.now().UnixMilli()) || !strings.HasPrefix(ok["access_token"].(string), c.org.OrgID()[:15]+"!") || ok["expires_in"] != nil {
		t.Errorf("token answer %v", ok)
	}
	c.org.SetURL("https://acme.my.salesforce.com/")
	if ok = c.form("client_credentials", "client_id", "heed-sandbox-client", "client_secret", "heed-sandbox-secret").object(t); ok["instance_url"] != "https://acme.my.salesforce.com" {
		t.Errorf("instance_url %v after SetURL", ok["instance_url"])
	}
	req, _ := http.NewRequest("POST", base+"/services/oauth2/token", strings.NewReader("grant_type=client_credentials"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("heed-sandbox-client", "heed-sandbox-secret")
	if res := c.send(req); res.status != 200 {
		t.Errorf("by Basic: %d %s", res.status, res.body)
	}
	for want, res := range map[string]result{
		`{"error":"invalid_client_id","error_description":"client identifier invalid"}`:     c.form("client_credentials", "client_id", "x", "client_secret", "y"),
		`{"error":"invalid_client","error_description":"invalid client credentials"}`:       c.form("client_credentials", "client_id", "heed-sandbox-client", "client_secret", "y"),
		`{"error":"unsupported_grant_type","error_description":"grant type not supported"}`: c.form("magic"),
		`{"error":"invalid_grant","error_description":"authentication failure"}`:            c.form("password", "client_id", "heed-sandbox-client", "client_secret", "heed-sandbox-secret", "username", "admin@sandbox.example", "password", "p"),
		`{"error":"invalid_request","error_description":"must use HTTP POST"}`:              c.do("GET", "/services/oauth2/token", nil),
	} {
		if res.status != 400 || res.body != want {
			t.Errorf("got %d %s, want %s", res.status, res.body, want)
		}
	}
}

func TestJWTBearer(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, Options{JWTPublicKey: &key.PublicKey, Username: "int@example.com"})
	sign := func(head string, claims map[string]any) string {
		body, _ := json.Marshal(claims)
		text := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString(body)
		sum := sha256.Sum256([]byte(text))
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + base64.RawURLEncoding.EncodeToString(sig)
	}
	exp := c.clock.now().Add(3 * time.Minute).Unix()
	for name, tc := range map[string]struct {
		change map[string]any
		head   string
		want   string
	}{
		"numeric exp":      {nil, "", ""},
		"string exp":       {map[string]any{"exp": fmt.Sprint(exp)}, "", ""},
		"test audience":    {map[string]any{"aud": []string{"https://test.salesforce.com/services/oauth2/token"}}, "", ""},
		"own URL audience": {map[string]any{"aud": c.srv.URL}, "", ""},
		"wrong audience":   {map[string]any{"aud": "https://example.com"}, "", "audience is invalid"},
		"expired":          {map[string]any{"exp": exp - 600}, "", "expired authorization code"},
		"wrong user":       {map[string]any{"sub": "x@example.com"}, "", "user hasn't approved this consumer"},
		"wrong client":     {map[string]any{"iss": "x"}, "", "client identifier invalid"},
		"algorithm none":   {nil, `{"alg":"none"}`, "invalid assertion"},
	} {
		claims := map[string]any{"iss": "heed-sandbox-client", "sub": "int@example.com", "aud": "https://login.salesforce.com", "exp": exp}
		for k, v := range tc.change {
			claims[k] = v
		}
		if tc.head == "" {
			tc.head = `{"alg":"RS256"}`
		}
		res := c.form("urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion", sign(tc.head, claims))
		if tc.want == "" && res.status != 200 || tc.want != "" && (res.status != 400 || res.object(t)["error_description"] != tc.want) {
			t.Errorf("%s: %d %s", name, res.status, res.body)
		}
	}
	good := sign(`{"alg":"RS256"}`, map[string]any{"iss": "heed-sandbox-client", "sub": "int@example.com", "aud": "https://login.salesforce.com", "exp": exp})
	if res := c.form("urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion", good[:len(good)-8]+"AAAAAAAA"); res.status != 400 {
		t.Errorf("a forged signature is taken: %s", res.body)
	}
}

func TestSessionsEnd(t *testing.T) {
	c := start(t, Options{})
	expired := func(why string) {
		t.Helper()
		wantError(t, c.do("GET", "limits", nil), 401, "INVALID_SESSION_ID", "Session expired or invalid")
		if res := c.do("GET", "/services/oauth2/userinfo", nil); res.status != 403 || res.body != "Bad_OAuth_Token" {
			t.Errorf("%s: userinfo says %d %q", why, res.status, res.body)
		}
		c.login()
	}
	c.clock.advance(90 * time.Minute)
	if res := c.do("GET", "/services/oauth2/userinfo", nil); res.object(t)["organization_id"] != c.org.OrgID() {
		t.Errorf("userinfo: %s", res.body)
	}
	c.clock.advance(90 * time.Minute) // the call renewed it
	if res := c.do("GET", "limits", nil); res.status != 200 {
		t.Errorf("the session did not slide: %d", res.status)
	}
	c.clock.advance(2*time.Hour + time.Second)
	expired("after two idle hours")
	knob(t, c.org, func(k *Knobs) { k.ExpireTokens = true })
	expired("expire_tokens")
	if c.org.Knobs().ExpireTokens {
		t.Error("expire_tokens is one-shot but reads back true")
	}
	knob(t, c.org, func(k *Knobs) { k.ExpireEveryN = 2 })
	for range 2 {
		if res := c.do("GET", "limits", nil); res.status != 200 {
			t.Errorf("expire_every_n ended the session early: %d", res.status)
		}
	}
	expired("expire_every_n")
	wantError(t, c.do("GET", "limits", nil, "Authorization", "Basic eA=="), 401, "INVALID_AUTH_HEADER", "INVALID_AUTH_HEADER")
}

func TestRecordRoutes(t *testing.T) {
	c := start(t, Options{Fields: []Field{
		{Object: "Contact", Name: "Ext__c", Type: Text, Length: 20, ExternalID: true},
		{Object: "Contact", Name: "Digits__c", Type: Text, Formula: func(get func(string) any) any {
			s, _ := get("MobilePhone").(string)
			return strings.Map(func(r rune) rune {
				if r >= '0' && r <= '9' {
					return r
				}
				return -1
			}, s)
		}},
		{Object: "Contact", Name: "Consent__c", Label: "Consent", Type: Picklist, Restricted: true, Values: []string{"In", "Out"}},
		{Object: "Contact", Name: "Badge__c", Type: Text, Unique: true},
	}})
	res := c.do("POST", "sobjects/Contact/", map[string]any{"attributes": map[string]any{"type": "Contact"}, "LastName": " Example ", "MobilePhone": "(415) 555-0142", "Badge__c": "b1"})
	if res.status != 201 || res.object(t)["success"] != true {
		t.Fatalf("POST: %d %s", res.status, res.body)
	}
	id := res.object(t)["id"].(string)
	url62 := "/services/data/v62.0/sobjects/Contact/" + id
	if res.header.Get("Location") != url62 || res.header.Get("Sforce-Limit-Info") != "api-usage=1/100000" || res.header.Get("Date") != "Mon, 02 Mar 2026 10:00:00 GMT" {
		t.Errorf("headers %v", res.header)
	}
	got := c.do("GET", "sobjects/contact/"+id[:15]+"/?fields=lastname,Digits__c,Owner.Name,Title", nil)
	want := `{"attributes":{"type":"Contact","url":"` + url62 + `"},"LastName":"Example","Digits__c":"4155550142","Owner":{"attributes":{"type":"User","url":"/services/data/v62.0/sobjects/User/` +
		c.org.UserID() + `"},"Name":"Heed Integration"},"Title":null}`
	if got.body != want {
		t.Errorf("GET\n got %s\nwant %s", got.body, want)
	}
	other := c.org.Insert("Contact", map[string]any{"LastName": "Other", "Ext__c": "twin"})
	c.org.Insert("Contact", map[string]any{"LastName": "Twin", "Ext__c": "TWIN"})
	patch := func(body any) result { return c.do("PATCH", "sobjects/Contact/"+id, body) }
	for _, tc := range []struct {
		res        result
		status     int
		code, text string
	}{
		{c.do("POST", "sobjects/Contact", map[string]any{}), 400, "REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]"},
		{c.do("POST", "sobjects/Contact", map[string]any{"LastName": "x", "Id": id}), 400, "INVALID_FIELD", "cannot specify Id in an insert call"},
		{c.do("POST", "sobjects/Nope__c", map[string]any{}), 404, "NOT_FOUND", "The requested resource does not exist"},
		{c.do("POST", "sobjects/User", map[string]any{"LastName": "x"}), 400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "cannot be inserted"},
		{patch(map[string]any{"LastName": nil}), 400, "REQUIRED_FIELD_MISSING", "[LastName]"},
		{patch(map[string]any{"Id": id}), 400, "INVALID_FIELD", "The Id field should not be specified in the sobject data."},
		{patch(map[string]any{"Nope__c": 1}), 400, "INVALID_FIELD", "No such column 'Nope__c' on sobject of type Contact"},
		{patch(map[string]any{"SystemModstamp": "2026-01-01T00:00:00Z"}), 400, "INVALID_FIELD_FOR_INSERT_UPDATE", "SystemModstamp"},
		{patch(map[string]any{"Digits__c": "1"}), 400, "INVALID_FIELD_FOR_INSERT_UPDATE", "Digits__c"},
		{patch(map[string]any{"FirstName": strings.Repeat("x", 41)}), 400, "STRING_TOO_LONG", "First Name: data value too large"},
		{patch(map[string]any{"Consent__c": "Maybe"}), 400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "Consent: bad value for restricted picklist field: Maybe"},
		{patch(map[string]any{"Email": "nope"}), 400, "INVALID_EMAIL_ADDRESS", "invalid email address: nope"},
		{patch(map[string]any{"SMS_Opt_Out__c": nil}), 400, "INVALID_TYPE_ON_FIELD_IN_RECORD", "value not of required type"},
		{patch(`{"SMS_Opt_Out__c":"yes"}`), 400, "JSON_PARSER_ERROR", "Cannot deserialize instance of boolean from VALUE_STRING value yes or request may be missing a required field at [line:1, column:"},
		{patch(`{"Phone":4155550142}`), 400, "JSON_PARSER_ERROR", "Cannot deserialize instance of phone from VALUE_NUMBER_INT value 4155550142"},
		{patch(`{"SMS_Opt_Out_Date__c":"2026-01-01"}`), 400, "JSON_PARSER_ERROR", "instance of datetime"},
		{patch(`{"LastName":`), 400, "JSON_PARSER_ERROR", "Unexpected end-of-input"},
		{patch(`{"LastName" "x"}`), 400, "JSON_PARSER_ERROR", "Unexpected character ('\"' (code 34)) at [line:1, column:13]"},
		{patch(``), 400, "JSON_PARSER_ERROR", "The HTTP entity body is required"},
		{patch(map[string]any{"AccountId": "00Q000000000001EAA"}), 400, "MALFORMED_ID", "id value of incorrect type"},
		{patch(map[string]any{"AccountId": "001Ho0000000009"}), 400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"},
		{c.do("PATCH", "sobjects/Contact/"+other, map[string]any{"Badge__c": "B1"}), 400, "DUPLICATE_VALUE", "duplicates value on record with id: " + id[:15]},
		{c.do("PATCH", "sobjects/Contact/"+id, `{}`, "Content-Type", "text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE", "application/json"},
		{c.do("PUT", "sobjects/Contact/"+id, `{}`), 405, "METHOD_NOT_ALLOWED", "HTTP Method 'PUT' not allowed. Allowed are GET,PATCH,DELETE"},
		{c.do("GET", "sobjects/Contact/nope", nil), 404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible: nope"},
		{c.do("GET", "sobjects/Contact/003Ho0000009999", nil), 404, "NOT_FOUND", "The requested resource does not exist"},
		{c.do("GET", "sobjects/Contact/"+id+"?fields=Nope__c", nil), 400, "INVALID_FIELD", "No such column 'Nope__c' on entity 'Contact'"},
		{c.do("GET", "sobjects/Contact/Title/x", nil), 404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible: Title"},
		{c.do("GET", "/services/data/v19.0/sobjects", nil), 404, "NOT_FOUND", "The requested resource does not exist"},
		{c.do("GET", "search", nil), 404, "NOT_FOUND", "The requested resource does not exist"},
	} {
		wantError(t, tc.res, tc.status, tc.code, tc.text)
	}
	if res := c.do("PATCH", "sobjects/Contact/Ext__c/a%2Fb%23", map[string]any{"LastName": "New"}); res.status != 201 || res.object(t)["created"] != true {
		t.Errorf("upsert of a new one: %d %s", res.status, res.body)
	}
	if res := c.do("PATCH", "sobjects/Contact/Ext__c/A%2Fb%23", map[string]any{"FirstName": "Newer"}); res.status != 200 || res.object(t)["created"] != false {
		t.Errorf("upsert of a known one: %d %s", res.status, res.body)
	}
	for _, m := range []string{"GET", "PATCH"} {
		res := c.do(m, "sobjects/Contact/Ext__c/twin", `{"FirstName":"x"}`)
		var urls []string
		if json.Unmarshal([]byte(res.body), &urls); res.status != 300 || len(urls) != 2 || !strings.HasSuffix(urls[0], other) {
			t.Errorf("%s of twins: %d %s", m, res.status, res.body)
		}
	}
	if res := c.do("DELETE", "sobjects/Contact/"+id, nil); res.status != 204 || res.body != "" {
		t.Errorf("DELETE: %d %s", res.status, res.body)
	}
	if res := c.do("GET", "query?q="+strings.Repeat("x", 17000), nil); res.status != 414 || strings.Contains(res.body, "errorCode") {
		t.Errorf("a long URI: %d", res.status)
	}
	if res := c.do("GET", "limits", nil, "X-Long", strings.Repeat("x", 17000)); res.status != 431 {
		t.Errorf("long headers: %d", res.status)
	}
}

func TestDescribeAndLists(t *testing.T) {
	c := start(t, Options{})
	d := c.do("GET", "sobjects/Lead/describe", nil).object(t)
	byName := map[string]map[string]any{}
	for _, f := range d["fields"].([]any) {
		byName[f.(map[string]any)["name"].(string)] = f.(map[string]any)
	}
	for name, want := range map[string]map[string]any{
		"SMS_Opt_Out__c": {"type": "boolean", "custom": true, "updateable": true, "nillable": false, "defaultValue": false, "soapType": "xsd:boolean"},
		"Company":        {"type": "string", "length": 255.0, "nillable": false, "createable": true},
		"MobilePhone":    {"type": "phone", "length": 40.0, "filterable": true},
		"SystemModstamp": {"type": "datetime", "updateable": false, "soapType": "xsd:dateTime"},
		"OwnerId":        {"type": "reference", "relationshipName": "Owner"},
		"Description":    {"filterable": false, "sortable": false},
	} {
		for k, v := range want {
			if byName[name][k] != v {
				t.Errorf("%s.%s = %v, want %v", name, k, byName[name][k], v)
			}
		}
	}
	if g := c.do("GET", "sobjects", nil).object(t); len(g["sobjects"].([]any)) != 9 {
		t.Errorf("describe global: %v", g["sobjects"])
	}
	versions := c.do("GET", "/services/data/", nil).list(t)
	if last := versions[len(versions)-1]; last["label"] != "Summer '26" || last["url"] != "/services/data/v67.0" {
		t.Errorf("last version %v", last)
	}
	if r := c.do("GET", "/services/data/v60.0", nil).object(t); r["query"] != "/services/data/v60.0/query" {
		t.Errorf("resources %v", r)
	}
	c.org.Insert("Contact", map[string]any{"LastName": "A"})
	if res := c.do("GET", "limits/recordCount?sObjects=contact,Lead", nil); res.body != `{"sObjects":[{"count":1,"name":"Contact"},{"count":0,"name":"Lead"}]}` {
		t.Errorf("recordCount %s", res.body)
	}
	l := c.do("GET", "limits", nil).object(t)["DailyApiRequests"].(map[string]any)
	if l["Max"] != 100000.0 || l["Remaining"].(float64) >= 100000 {
		t.Errorf("limits %v", l)
	}
}

func TestUpdatedAndDeleted(t *testing.T) {
	c := start(t, Options{})
	a := c.org.Insert("Contact", map[string]any{"LastName": "A"})
	b := c.org.Insert("Contact", map[string]any{"LastName": "B"})
	c.clock.advance(10 * time.Minute)
	if err := c.org.Delete("Contact", b); err != nil {
		t.Fatal(err)
	}
	c.clock.advance(10 * time.Minute)
	span := func(from, to time.Duration) string {
		f := func(d time.Duration) string {
			return url.QueryEscape(c.clock.now().Add(d).Format("2006-01-02T15:04:05-07:00"))
		}
		return "/?start=" + f(from) + "&end=" + f(to)
	}
	up := c.do("GET", "sobjects/Contact/updated"+span(-time.Hour, 0), nil).object(t)
	if fmt.Sprint(up["ids"]) != "["+a+"]" || up["latestDateCovered"] != "2026-03-02T10:20:00.000+0000" {
		t.Errorf("updated %v", up)
	}
	del := c.do("GET", "sobjects/Contact/deleted"+span(-time.Hour, time.Hour), nil).object(t)
	if fmt.Sprint(del["deletedRecords"]) != "[map[deletedDate:2026-03-02T10:10:00.000+0000 id:"+b+"]]" || del["latestDateCovered"] != "2026-03-02T10:20:00.000+0000" {
		t.Errorf("deleted %v", del)
	}
	wantError(t, c.do("GET", "sobjects/Contact/updated"+span(0, 0), nil), 400, "INVALID_REPLICATION_DATE", "startDate must be before endDate")
	wantError(t, c.do("GET", "sobjects/Contact/updated"+span(-31*24*time.Hour, 0), nil), 400, "INVALID_REPLICATION_DATE", "30 days")
	wantError(t, c.do("GET", "sobjects/Contact/deleted"+span(-16*24*time.Hour, 0), nil), 400, "INVALID_REPLICATION_DATE", "15 days")
}

func TestCollections(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	a, b := o.Insert("Contact", map[string]any{"LastName": "A"}), o.Insert("Contact", map[string]any{"LastName": "B"})
	lead := o.Insert("Lead", map[string]any{"LastName": "L", "Company": "C"})
	gone := o.Insert("Contact", map[string]any{"LastName": "Gone"})
	if err := o.Delete("Contact", gone); err != nil {
		t.Fatal(err)
	}
	rec := func(typ, id string, kv ...any) map[string]any {
		m := map[string]any{"attributes": map[string]any{"type": typ}, "id": id}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	patch := func(allOrNone bool, recs ...map[string]any) result {
		return c.do("PATCH", "composite/sobjects", map[string]any{"allOrNone": allOrNone, "records": recs})
	}
	codes := func(res result) string {
		var out []string
		for _, r := range res.list(t) {
			if r["success"] == true {
				out = append(out, "ok")
				continue
			}
			if _, has := r["id"]; has {
				t.Errorf("a failed row has an id: %v", r)
			}
			out = append(out, r["errors"].([]any)[0].(map[string]any)["statusCode"].(string))
		}
		return strings.Join(out, " ")
	}
	knob(t, o, func(k *Knobs) {
		k.ValidationRules = []ValidationRule{{Object: "Contact", Field: "SMS_Opt_Out__c", IDs: []string{b}, Message: "VIPs stay in"}}
	})
	res := patch(false, rec("Contact", a, "SMS_Opt_Out__c", true), rec("Contact", b, "SMS_Opt_Out__c", true), rec("Contact", gone, "Title", "x"),
		rec("Contact", a[:15], "Title", "x"), rec("Contact", "003Ho0000009999", "Title", "x"), rec("Contact", lead, "Title", "x"),
		rec("Contact", "", "Title", "x"), rec("Lead", lead, "Nope__c", 1), rec("Lead", lead, "SMS_Opt_Out__c", true))
	if got := codes(res); res.status != 200 || got != "ok FIELD_CUSTOM_VALIDATION_EXCEPTION ENTITY_IS_DELETED DUPLICATE_VALUE INVALID_CROSS_REFERENCE_KEY MALFORMED_ID MISSING_ARGUMENT INVALID_FIELD DUPLICATE_VALUE" {
		t.Errorf("%d %s", res.status, got)
	}
	if !strings.Contains(res.body, `{"success":false,"errors":[{"statusCode":"FIELD_CUSTOM_VALIDATION_EXCEPTION","message":"VIPs stay in","fields":["SMS_Opt_Out__c"]}]}`) {
		t.Errorf("row error reads %s", res.body)
	}
	if got := codes(patch(true, rec("Contact", a, "SMS_Opt_Out__c", false, "Title", "new"), rec("Contact", b, "SMS_Opt_Out__c", true))); got != "ALL_OR_NONE_OPERATION_ROLLED_BACK FIELD_CUSTOM_VALIDATION_EXCEPTION" {
		t.Error(got)
	}
	if r, _ := o.Get("Contact", a); r["SMS_Opt_Out__c"] != true || r["Title"] != nil {
		t.Errorf("allOrNone left %v", r)
	}
	if got := c.ids("SELECT Id FROM Contact WHERE SystemModstamp > 2026-01-01T00:00:00Z ORDER BY SystemModstamp"); !slices.Equal(got, []string{a, b}) {
		t.Errorf("after the rollback the index finds %v", got)
	}
	many := make([]map[string]any, 201)
	for i := range many {
		many[i] = rec("Contact", a)
	}
	wantError(t, patch(false, many...), 400, "EXCEEDED_ID_LIMIT", "cannot submit more than 200 records into this call")
	mixed := []map[string]any{}
	for i := range 11 {
		mixed = append(mixed, rec([]string{"Contact", "Lead"}[i%2], []string{a, lead}[i%2]))
	}
	wantError(t, patch(false, mixed...), 400, "LIMIT_EXCEEDED", "Cannot have more than 10 chunks in a single operation")
	wantError(t, patch(false, map[string]any{"id": a}), 400, "INVALID_INPUT", "attributes.type")
	wantError(t, patch(false, rec("Contact", a, "SMS_Opt_Out__c", "maybe"), rec("Contact", b)), 400, "JSON_PARSER_ERROR", "instance of boolean")
	res = c.do("POST", "composite/sobjects", map[string]any{"records": []any{
		map[string]any{"attributes": map[string]any{"type": "Contact"}, "LastName": "New"}, map[string]any{"attributes": map[string]any{"type": "Contact"}}}})
	if got := codes(res); got != "ok REQUIRED_FIELD_MISSING" {
		t.Error(got)
	}
	res = c.do("GET", "composite/sobjects/Contact?ids="+a+","+gone+",x&fields=LastName", nil)
	if l := strings.Count(res.body, "null"); l != 2 || !strings.Contains(res.body, `"LastName":"A"`) {
		t.Errorf("GET collection %s", res.body)
	}
	res = c.do("PATCH", "composite/sobjects/Contact/Id", map[string]any{"records": []any{rec("Contact", a, "Title", "t"), map[string]any{"attributes": map[string]any{"type": "Contact"}, "LastName": "Upserted"}}})
	if got := codes(res); got != "ok ok" || !strings.Contains(res.body, `"created":true`) {
		t.Errorf("upsert by Id: %s", res.body)
	}
	if got := codes(c.do("DELETE", "composite/sobjects?ids="+a+","+gone+","+lead+",x&allOrNone=false", nil)); got != "ok ENTITY_IS_DELETED ok MALFORMED_ID" {
		t.Error(got)
	}
	n := o.Counters()
	if n.Calls["collections_update"] == 0 || n.RowsWritten == 0 || n.RowsFailed == 0 || n.TokenCalls != 1 {
		t.Errorf("counters %+v", n)
	}
}

func TestComposite(t *testing.T) {
	c := start(t, Options{})
	body := `{"allOrNone":%t,"compositeRequest":[
		{"method":"POST","url":"/services/data/v62.0/sobjects/Contact","referenceId":"new","body":{"LastName":"One"}},
		{"method":"PATCH","url":"/services/data/v62.0/sobjects/Contact/@{new.id}","referenceId":"upd","body":{"Title":"Ms"}},
		{"method":"GET","url":"/services/data/v62.0/query?q=SELECT+Title+FROM+Contact","referenceId":"q"},
		{"method":"POST","url":"/services/data/v62.0/sobjects/Lead","referenceId":"bad","body":{"LastName":"x"}}]}`
	parts := func(res result) string {
		var s []string
		for _, p := range res.object(t)["compositeResponse"].([]any) {
			s = append(s, fmt.Sprint(p.(map[string]any)["httpStatusCode"]))
		}
		return strings.Join(s, " ")
	}
	if got := parts(c.do("POST", "composite", fmt.Sprintf(body, true))); got != "400 400 400 400" || c.org.Count("Contact") != 0 {
		t.Errorf("allOrNone: %s, %d contacts", got, c.org.Count("Contact"))
	}
	if res := c.do("POST", "composite", fmt.Sprintf(body, false)); parts(res) != "201 204 200 400" || !strings.Contains(res.body, `"Title":"Ms"`) {
		t.Errorf("composite: %s", res.body)
	}
}

func TestPagingUnderConcurrentWrites(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	o.Seed(1500, 1)
	contacts := o.table("Contact")
	want := o.Count("Contact")
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				_ = o.Update("Contact", contacts.id(uint32(1+(i*7+w)%want)), map[string]any{"Title": "busy"})
				o.Insert("Contact", map[string]any{"LastName": "Newcomer"})
			}
		})
	}
	seen, pages := map[string]bool{}, 0
	res := c.do("GET", "query?q="+url.QueryEscape("SELECT Id FROM Contact WHERE LastName != 'Newcomer'"), nil, "Sforce-Query-Options", "batchSize=200")
	for {
		page := res.object(t)
		pages++
		if page["totalSize"] != float64(want) {
			t.Fatalf("totalSize %v, want %d", page["totalSize"], want)
		}
		for _, r := range page["records"].([]any) {
			id := r.(map[string]any)["Id"].(string)
			if seen[id] {
				t.Errorf("%s twice", id)
			}
			seen[id] = true
		}
		next, _ := page["nextRecordsUrl"].(string)
		if page["done"] == true {
			if next != "" {
				t.Error("the last page has a nextRecordsUrl")
			}
			break
		}
		if !locator.MatchString(next[strings.LastIndexByte(next, '/')+1:]) {
			t.Fatalf("nextRecordsUrl %s", next)
		}
		res = c.do("GET", next, nil)
	}
	wg.Wait()
	if len(seen) != want || pages != (want+199)/200 {
		t.Errorf("%d records on %d pages, want %d on %d", len(seen), pages, want, (want+199)/200)
	}
	wantError(t, c.do("GET", "query/01gHo0000000099AAA-2000", nil), 400, "INVALID_QUERY_LOCATOR", "invalid query locator")
	knob(t, o, func(k *Knobs) { k.PageSize = 3; k.NextURL = "missing" })
	if p := c.query("SELECT Id FROM Contact").object(t); len(p["records"].([]any)) != 3 || p["nextRecordsUrl"] != nil || p["done"] != false {
		t.Errorf("page_size 3, next_url missing: %v", p)
	}
	knob(t, o, func(k *Knobs) { k.NextURL = "other_version" })
	if p := c.query("SELECT Id FROM Contact").object(t); !strings.HasPrefix(p["nextRecordsUrl"].(string), "/services/data/v67.0/query/01g") {
		t.Errorf("next_url other_version: %v", p["nextRecordsUrl"])
	}
	knob(t, o, func(k *Knobs) { k.NextURL = "repeat" })
	if p := c.query("SELECT Id FROM Contact").object(t); !strings.HasSuffix(p["nextRecordsUrl"].(string), "-0") {
		t.Errorf("next_url repeat: %v", p["nextRecordsUrl"])
	}
	knob(t, o, func(k *Knobs) { k.ShuffleUnordered = true; k.PageSize = 0; k.NextURL = "" })
	if ids := c.ids("SELECT Id FROM Contact LIMIT 200"); slices.IsSorted(ids) {
		t.Error("shuffle_unordered answers in order of Id")
	}
}

func TestKnobs(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	id := o.Insert("Contact", map[string]any{"LastName": "A"})
	path := "sobjects/Contact/" + id
	put := func(body string) result { return c.do("PUT", "/sandbox/knobs", body) }
	for _, bad := range []string{`{"nope":1}`, `{"lock_rate":2}`, `{"latency_ms":-1}`, `{"next_write":["explode"]}`, `{"next_url":"x"}`, `{"maintenance":"x"}`,
		`{"hidden_fields":["Contact.Nope"]}`, `{"trigger_fail_objects":["X"]}`, `{"validation_rules":[{"object":"X"}]}`, `{"lock_ids":{"x":1}}`, `{"page_size":2001}`, `{`, `[]`, `{} {}`} {
		if res := put(bad); res.status != 400 || res.object(t)["error"] == "" {
			t.Errorf("PUT %s: %d %s", bad, res.status, res.body)
		}
	}
	if res := put(`{"page_size":7}`); res.status != 200 || res.object(t)["page_size"] != 7.0 {
		t.Errorf("PUT: %d %s", res.status, res.body)
	}
	if res := put(`{"lock_rate":0.5}`); res.object(t)["page_size"] != 7.0 {
		t.Errorf("a PUT forgets what it does not name: %s", res.body)
	}
	knob(t, o, func(k *Knobs) { *k = Knobs{} })

	title := func() any { r, _ := o.Get("Contact", id); return r["Title"] }
	for _, tc := range []struct {
		fault   string
		status  int // 0: no answer
		code    string
		applied bool
	}{
		{"503", 503, "<html", false}, {"502", 502, "", false}, {"500", 500, "UNKNOWN_EXCEPTION", false}, {"busy", 503, "SERVER_UNAVAILABLE", false},
		{"403", 403, "REQUEST_LIMIT_EXCEEDED", false}, {"302", 302, "", false}, {"300", 300, "/sobjects/Contact/003", false},
		{"lock", 400, "UNABLE_TO_LOCK_ROW", false}, {"readonly", 400, "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", false},
		{"reset", 0, "", false}, {"ok", 204, "", true}, {"apply_then_503", 503, "<html", true}, {"apply_then_reset", 0, "", true}, {"401", 401, "INVALID_SESSION_ID", false},
	} {
		if err := o.Update("Contact", id, map[string]any{"Title": nil}); err != nil {
			t.Fatal(err)
		}
		knob(t, o, func(k *Knobs) { k.NextWrite = []string{tc.fault} })
		if res := c.do("GET", path, nil); res.status != 200 {
			t.Errorf("%s hit a read: %d", tc.fault, res.status)
		}
		res := c.do("PATCH", path, map[string]any{"Title": "new"})
		if res.status != tc.status || (tc.status == 0) != (res.err != nil) || !strings.Contains(res.body, tc.code) {
			t.Errorf("%s: %d %s %v", tc.fault, res.status, res.body, res.err)
		}
		if got := title() == "new"; got != tc.applied {
			t.Errorf("%s: applied %t, want %t", tc.fault, got, tc.applied)
		}
		if left := o.Knobs().NextWrite; len(left) != 0 {
			t.Errorf("%s: still in the list: %v", tc.fault, left)
		}
	}
	c.login()
	knob(t, o, func(k *Knobs) { k.NextRead = []string{"truncate"} })
	if res := c.do("GET", path, nil); res.err == nil {
		t.Errorf("truncate: all arrived: %s", res.body)
	}
	knob(t, o, func(k *Knobs) { k.NextToken = []string{"inactive_user", "503"} })
	creds := []string{"client_id", "heed-sandbox-client", "client_secret", "heed-sandbox-secret"}
	if res := c.form("client_credentials", creds...); res.status != 400 || res.object(t)["error"] != "inactive_user" {
		t.Errorf("next_token: %d %s", res.status, res.body)
	}
	if res := c.form("client_credentials", creds...); res.status != 503 {
		t.Errorf("next_token: %d %s", res.status, res.body)
	}
	for name, tc := range map[string]struct {
		set    func(*Knobs)
		method string
		status int
		text   string
	}{
		"error_rate_503_html":  {func(k *Knobs) { k.ErrorRate503HTML = 1 }, "GET", 503, "<html"},
		"empty_rate":           {func(k *Knobs) { k.EmptyRate = 1 }, "GET", 502, ""},
		"redirect_rate":        {func(k *Knobs) { k.RedirectRate = 1 }, "PATCH", 302, ""},
		"multiple_choices":     {func(k *Knobs) { k.MultipleChoices = 1 }, "PATCH", 300, "003"},
		"lock_rate":            {func(k *Knobs) { k.LockRate = 1 }, "PATCH", 400, "unable to obtain exclusive access to this record or 1 records: " + id},
		"lock_ids":             {func(k *Knobs) { k.LockIDs = map[string]int{id: -1} }, "DELETE", 400, "UNABLE_TO_LOCK_ROW"},
		"trigger_fail_objects": {func(k *Knobs) { k.TriggerFailObjects = []string{"Contact"} }, "PATCH", 400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY"},
		"validation_rules": {func(k *Knobs) {
			k.ValidationRules = []ValidationRule{{Object: "Contact", Field: "Title", WhenContains: "new", Message: "no titles"}}
		}, "PATCH", 400, `"message":"no titles","errorCode":"FIELD_CUSTOM_VALIDATION_EXCEPTION","fields":["Title"]`},
		"expire_rate":           {func(k *Knobs) { k.ExpireRate = 1 }, "GET", 401, "INVALID_SESSION_ID"},
		"maintenance read_only": {func(k *Knobs) { k.Maintenance = "read_only" }, "PATCH", 400, "DURING_MAINTENANCE"},
		"maintenance down":      {func(k *Knobs) { k.Maintenance = "down" }, "GET", 503, "<html"},
		"budget_max":            {func(k *Knobs) { k.BudgetMax = 1; k.BudgetUsed = 1 }, "GET", 403, "TotalRequests Limit exceeded."},
		"latency_ms":            {func(k *Knobs) { k.LatencyMS = 1 }, "GET", 200, "LastName"},
	} {
		knob(t, o, func(k *Knobs) { *k = Knobs{}; tc.set(k) })
		var body any
		if tc.method == "PATCH" {
			body = map[string]any{"Title": "new"}
		}
		if res := c.do(tc.method, path, body); res.status != tc.status || !strings.Contains(res.body, tc.text) {
			t.Errorf("%s: %d %s", name, res.status, res.body)
		}
		if name == "expire_rate" {
			c.login()
		}
	}
	knob(t, o, func(k *Knobs) { *k = Knobs{LockIDs: map[string]int{id: 1}} })
	wantError(t, c.do("PATCH", path, `{}`), 400, "UNABLE_TO_LOCK_ROW", id)
	if res := c.do("PATCH", path, `{}`); res.status != 204 {
		t.Errorf("locked once, refused twice: %s", res.body)
	}
}

func TestAppliedButNeverAnswered(t *testing.T) {
	c := start(t, Options{})
	id := c.org.Insert("Contact", map[string]any{"LastName": "A"})
	knob(t, c.org, func(k *Knobs) { k.NextWrite = []string{"apply_then_hang"} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan result)
	go func() { done <- c.doCtx(ctx, "PATCH", "sobjects/Contact/"+id, map[string]any{"SMS_Opt_Out__c": true}) }()
	for {
		if r, _ := c.org.Get("Contact", id); r["SMS_Opt_Out__c"] == true {
			break
		}
		select {
		case res := <-done:
			t.Fatalf("answered: %d %v", res.status, res.err)
		default:
		}
	}
	cancel()
	if res := <-done; res.err == nil {
		t.Errorf("answered: %d", res.status)
	}
}

func TestSandboxActions(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	a, b := o.Insert("Contact", map[string]any{"LastName": "A"}), o.Insert("Contact", map[string]any{"LastName": "B"})
	gone := o.Insert("Contact", map[string]any{"LastName": "Gone"})
	mapped, unmapped, bare := o.Insert("Lead", map[string]any{"LastName": "L", "Company": "C", "SMS_Opt_Out__c": true}),
		o.Insert("Lead", map[string]any{"LastName": "L", "Company": "C", "SMS_Opt_Out__c": true}), o.Insert("Lead", map[string]any{"LastName": "L", "Company": "C", "SMS_Opt_Out__c": true})
	post := func(what, body string) result { return c.do("POST", "/sandbox/"+what, body) }
	for _, tc := range [][2]string{
		{"update", `{"object":"Contact","id":"` + a + `","fields":{"SMS_Opt_Out__c":true},"user":"import@sandbox.example"}`},
		{"merge", `{"object":"Contact","survivor":"` + a + `","losers":["` + b + `"],"keep":{"SMS_Opt_Out__c":false}}`},
		{"undelete", `{"object":"Contact","id":"` + b + `"}`},
		{"delete", `{"object":"Contact","id":"` + b + `"}`},
		{"erase", `{"object":"Contact","id":"` + gone + `"}`},
	} {
		if res := post(tc[0], tc[1]); res.status != 204 {
			t.Errorf("%s %s: %d %s", tc[0], tc[1], res.status, res.body)
		}
	}
	if _, there := o.Get("Contact", gone); there || o.Count("Contact") != 1 {
		t.Errorf("erased %t, %d contacts", !there, o.Count("Contact"))
	}
	if r, _ := o.Get("Contact", b); r["IsDeleted"] != true {
		t.Errorf("deleted: %v", r)
	}
	ticked := func(res result) any {
		r, _ := o.Get("Contact", res.object(t)["contact"].(string))
		return r["SMS_Opt_Out__c"]
	}
	if ticked(post("convert", `{"lead":"`+mapped+`"}`)) != true {
		t.Error("lead_mapping of a new org does not map the box")
	}
	if ticked(post("convert", `{"lead":"`+unmapped+`","mapped":false}`)) != false {
		t.Error("mapped: false keeps the box")
	}
	knob(t, o, func(k *Knobs) { k.LeadMapping = nil })
	if ticked(post("convert", `{"lead":"`+bare+`"}`)) != false {
		t.Error("an empty lead_mapping keeps the box")
	}
	for _, tc := range [][2]string{{"explode", "{}"}, {"merge", `{"object":"Contact","survivor":"` + a + `"}`}, {"convert", `{"lead":"` + bare + `"}`},
		{"convert", `{"lead":"` + bare + `","nope":1}`}, {"update", `{"object":"Contact","id":"` + a + `","user":"nobody"}`}, {"delete", `{"object":"Contact","id":"` + a + `","user":"x"}`}, {"erase", `{"object":"X"}`}} {
		if res := post(tc[0], tc[1]); res.status < 400 || res.object(t)["error"] == "" {
			t.Errorf("%s %s: %d %s", tc[0], tc[1], res.status, res.body)
		}
	}
	if res := c.do("GET", "/sandbox/counters", nil); res.status != 200 || res.object(t)["calls"] == nil {
		t.Errorf("counters: %s", res.body)
	}
	if res := c.do("DELETE", "/sandbox/counters", nil); res.status != 204 || len(c.org.Counters().Calls) != 0 {
		t.Errorf("counters are not reset")
	}
}

// TestGoSalesforce runs somebody else's client. It uses http.DefaultClient, so no other test may run beside it.
func TestGoSalesforce(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, Options{JWTPublicKey: &key.PublicKey, Now: time.Now})
	c.org.Seed(3500, 2)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	sf, err := gosf.Init(gosf.Creds{Domain: c.srv.URL, ConsumerKey: "heed-sandbox-client", ConsumerSecret: "heed-sandbox-secret"})
	if err != nil {
		t.Fatal(err)
	}
	var all []struct{ Id, LastName string }
	if err := sf.Query("SELECT Id, LastName FROM Contact", &all); err != nil {
		t.Fatal(err)
	}
	if n := c.org.Count("Contact"); len(all) != n || n <= 2000 {
		t.Errorf("the client paged through %d of %d contacts", len(all), n)
	}
	c.org.ExpireSessions() // it logs in again by itself
	recs := []map[string]any{{"Id": all[0].Id, "SMS_Opt_Out__c": true}, {"Id": "003Ho0000zzzzzz", "SMS_Opt_Out__c": true}, {"Id": all[1].Id, "SMS_Opt_Out__c": true}}
	got, err := sf.UpdateCollection("Contact", recs, 200)
	if err != nil || len(got.Results) != 3 || !got.Results[0].Success || got.Results[1].Success || !got.Results[2].Success || !got.HasSalesforceErrors {
		t.Errorf("collection: %+v, %v", got, err)
	}
	one, err := sf.InsertOne("Lead", map[string]any{"LastName": "Client", "Company": "Other"})
	if err != nil || !one.Success {
		t.Fatalf("insert: %+v, %v", one, err)
	}
	if err := sf.UpdateOne("Lead", map[string]any{"Id": one.Id, "Phone": "1"}); err != nil {
		t.Error(err)
	}
	if err := sf.DeleteOne("Lead", map[string]any{"Id": one.Id}); err != nil {
		t.Error(err)
	}
	if err := sf.UpdateOne("Lead", map[string]any{"Id": one.Id, "Phone": "2"}); err == nil || !strings.Contains(err.Error(), "ENTITY_IS_DELETED") {
		t.Errorf("update of a deleted lead: %v", err)
	}
	pemKey := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	sf, err = gosf.Init(gosf.Creds{Domain: c.srv.URL, Username: "heed@sandbox.example", ConsumerKey: "heed-sandbox-client", ConsumerRSAPem: pemKey})
	if err != nil {
		t.Fatalf("JWT with its string exp: %v", err)
	}
	if sf.GetAccessToken() == "" {
		t.Error("no token")
	}
}

// BenchmarkMillion shows what a big org costs: seeding and its memory, a page by key, a page by stamp, a whole scan, and
// a whole bulk result.
func BenchmarkMillion(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	o := New(Options{})
	o.Seed(1_000_000, 1)
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	most := after.HeapSys
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Logf("seeded 1,000,000 people in %v: %d contacts, %d leads, %d accounts; %d bytes a person, heap at most %d MiB", took, o.Count("Contact"),
		o.Count("Lead"), o.Count("Account"), (after.HeapAlloc-before.HeapAlloc)/1_000_000, most>>20)
	mid := o.table("Contact").id(300_000)
	compile := func(b *testing.B, soql string) *compiled {
		q, err := parseSOQL(soql)
		if err != nil {
			b.Fatal(err)
		}
		c, err := o.compile(q, integrationUser, false)
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	for name, soql := range map[string]string{
		"page by id":    "SELECT Id FROM Contact WHERE Id > '" + mid + "' ORDER BY Id LIMIT 2000",
		"page by stamp": "SELECT Id FROM Contact WHERE (SystemModstamp = 2026-01-01T00:00:00Z AND Id > '" + mid + "') OR SystemModstamp > 2026-01-01T00:00:00Z ORDER BY SystemModstamp, Id LIMIT 2000",
		"scan":          "SELECT Id FROM Contact WHERE MobilePhone = '+14155550142'",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				compile(b, soql).run()
			}
		})
	}
	b.Run("bulk result", func(b *testing.B) {
		c := compile(b, "SELECT Id, Phone, MobilePhone, SMS_Opt_Out__c, SystemModstamp, LastModifiedBy.Name FROM Contact")
		rows, n := c.run(), 0
		var columns []column
		for _, p := range []string{"Id", "Phone", "MobilePhone", "SMS_Opt_Out__c", "SystemModstamp", "LastModifiedBy.Name"} {
			acc, err := o.resolve(integrationUser, c.t, "", path{parts: strings.Split(p, ".")})
			if err != nil {
				b.Fatal(err)
			}
			columns = append(columns, column{p, acc})
		}
		for b.Loop() {
			var out sizeWriter
			if err := o.streamRows(&out, csvForm(&job{delimiter: "COMMA"}), columns, rows); err != nil {
				b.Fatal(err)
			}
			n = out.total
		}
		b.ReportMetric(float64(len(rows)), "rows")
		b.ReportMetric(float64(n)/float64(len(rows)), "bytes/row")
	})
}
