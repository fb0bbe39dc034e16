package salesforcefake

import (
	"fmt"
	"strings"
	"testing"
)

// as returns a client that is logged in as another user by the username-password flow.
func (c *client) as(username string) *client {
	c.t.Helper()
	other := *c
	res := c.form("password", "client_id", "heed-sandbox-client", "client_secret", "heed-sandbox-secret", "username", username, "password", "heed-sandbox-password")
	if res.status != 200 {
		c.t.Fatalf("login as %s: %d %s", username, res.status, res.body)
	}
	other.token = res.object(c.t)["access_token"].(string)
	return &other
}

func (c *client) describedField(object, name string) map[string]any {
	c.t.Helper()
	for _, f := range c.do("GET", "sobjects/"+object+"/describe", nil).object(c.t)["fields"].([]any) {
		if m := f.(map[string]any); m["name"] == name {
			return m
		}
	}
	return nil
}

func TestUsersActAsThemselves(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	id := o.Insert("Contact", map[string]any{"LastName": "A"})
	for username, want := range map[string]string{"heed@sandbox.example": o.UserID(), "admin@sandbox.example": o.AdminID(),
		"import@sandbox.example": o.ImporterID(), "sync@sandbox.example": o.SyncID()} {
		if res := c.as(username).do("PATCH", "sobjects/Contact/"+id, map[string]any{"Title": username}); res.status != 204 {
			t.Fatalf("%s: %d %s", username, res.status, res.body)
		}
		if r, _ := o.Get("Contact", id); r["LastModifiedById"] != want {
			t.Errorf("%s: LastModifiedById is %v, want %s", username, r["LastModifiedById"], want)
		}
	}
	res := c.query("SELECT Name, UserType, IsActive, Profile.Name, Profile.UserLicense.Name FROM User ORDER BY Id")
	var got []string
	for _, r := range res.object(t)["records"].([]any) {
		m := r.(map[string]any)
		profile, license := "-", "-"
		if p, ok := m["Profile"].(map[string]any); ok {
			profile, license = p["Name"].(string), p["UserLicense"].(map[string]any)["Name"].(string)
		}
		got = append(got, fmt.Sprint(m["Name"], "/", m["UserType"], "/", m["IsActive"], "/", profile, "/", license))
	}
	want := []string{"Heed Integration/Standard/true/Minimum Access - API Only Integrations/Salesforce Integration",
		"Grace Admin/Standard/true/System Administrator/Salesforce", "Ivo Import/Standard/true/Standard User/Salesforce",
		"Marketing Sync/Standard/true/Minimum Access - API Only Integrations/Salesforce Integration", "Automated Process/AutomatedProcess/true/-/-"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("users\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	gone := o.AddUser("gone@sandbox.example", "Gone", "User")
	if err := o.Update("User", gone, map[string]any{"IsActive": false}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range [][3]string{{"nobody@x", "heed-sandbox-password", "invalid_grant"}, {"admin@sandbox.example", "wrong", "invalid_grant"}, {"gone@sandbox.example", "heed-sandbox-password", "inactive_user"}} {
		if res := c.form("password", "client_id", "heed-sandbox-client", "client_secret", "heed-sandbox-secret", "username", tc[0], "password", tc[1]); res.status != 400 || res.object(t)["error"] != tc[2] {
			t.Errorf("%s: %d %s", tc[0], res.status, res.body)
		}
	}
}

func TestPermissionsGoByUser(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	id := o.Insert("Contact", map[string]any{"LastName": "A"})
	o.SetUserAccess(o.SyncID(), "Contact", "SMS_Opt_Out__c", Hidden)
	knob(t, o, func(k *Knobs) {
		k.UserAccess = []UserAccess{{User: "import@sandbox.example", Object: "contact", Field: "sms_opt_out__c", Access: "read_only"},
			{User: o.SyncID(), Object: "Lead", Access: "hidden"}, {User: o.ImporterID(), Object: "Lead", Access: "read_only"}}
	})
	const soql = "SELECT Id FROM Contact WHERE SMS_Opt_Out__c = false"
	tick := map[string]any{"SMS_Opt_Out__c": true}
	sync, imp := c.as("sync@sandbox.example"), c.as("import@sandbox.example")
	wantError(t, sync.query(soql), 400, "INVALID_FIELD", "No such column 'SMS_Opt_Out__c' on entity 'Contact'")
	wantError(t, sync.do("POST", "jobs/query", map[string]any{"operation": "query", "query": soql}), 400, "INVALID_FIELD", "No such column")
	wantError(t, sync.do("PATCH", "sobjects/Contact/"+id, tick), 400, "INVALID_FIELD", "No such column")
	if f := sync.describedField("Contact", "SMS_Opt_Out__c"); f != nil {
		t.Errorf("describe shows a hidden field: %v", f)
	}
	if strings.Contains(sync.do("GET", "sobjects/Contact/"+id, nil).body, "SMS_Opt_Out__c") {
		t.Error("a record shows a hidden field")
	}
	if len(imp.ids(soql)) != 1 {
		t.Error("a read-only field cannot be read")
	}
	wantError(t, imp.do("PATCH", "sobjects/Contact/"+id, tick), 400, "INVALID_FIELD_FOR_INSERT_UPDATE", "SMS_Opt_Out__c")
	if f := imp.describedField("Contact", "SMS_Opt_Out__c"); f["updateable"] != false || f["createable"] != false {
		t.Errorf("describe of a read-only field: %v", f)
	}
	if res := c.do("PATCH", "sobjects/Contact/"+id, tick); res.status != 204 {
		t.Errorf("the rights of others bind heed's user: %s", res.body)
	}
	lead := o.Insert("Lead", map[string]any{"LastName": "L", "Company": "C"})
	wantError(t, sync.query("SELECT Id FROM Lead"), 400, "INVALID_TYPE", "sObject type 'Lead' is not supported")
	wantError(t, sync.do("GET", "sobjects/Lead/describe", nil), 404, "NOT_FOUND", "")
	wantError(t, sync.do("POST", "jobs/ingest", map[string]any{"object": "Lead", "operation": "update"}), 400, "INVALIDENTITY", "Lead")
	if strings.Contains(sync.do("GET", "sobjects", nil).body, `"Lead"`) {
		t.Error("describe global shows a hidden object")
	}
	wantError(t, imp.do("PATCH", "sobjects/Lead/"+lead, map[string]any{"Title": "x"}), 400, "INSUFFICIENT_ACCESS_OR_READONLY", "")
	wantError(t, imp.do("POST", "sobjects/Lead", map[string]any{"LastName": "x", "Company": "y"}), 400, "INSUFFICIENT_ACCESS_OR_READONLY", "")
	if d := imp.do("GET", "sobjects/Lead/describe", nil).object(t); d["updateable"] != false || d["queryable"] != true {
		t.Errorf("describe of a read-only object: updateable %v", d["updateable"])
	}
}

func TestSharingHidesRecords(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	var ids []string
	for _, n := range []string{"Open", "Hidden", "ReadOnly", "HiddenByKnob"} {
		ids = append(ids, o.Insert("Contact", map[string]any{"LastName": n}))
	}
	if err := o.SetRecordAccess("Contact", ids[1], Hidden); err != nil {
		t.Fatal(err)
	}
	if err := o.SetRecordAccess("Contact", "003Ho0000zzzzzz", Hidden); err == nil {
		t.Error("a record that is not there can be hidden")
	}
	knob(t, o, func(k *Knobs) { k.ReadOnlyRecords, k.HiddenRecords = []string{ids[2]}, []string{ids[3][:15]} })
	if got := c.ids("SELECT Id FROM Contact ORDER BY Id"); fmt.Sprint(got) != fmt.Sprint([]string{ids[0], ids[2]}) {
		t.Errorf("a query shows %v", got)
	}
	if res := c.query("SELECT COUNT() FROM Contact"); res.object(t)["totalSize"] != 2.0 {
		t.Errorf("COUNT() %s", res.body)
	}
	if got := c.as("admin@sandbox.example").ids("SELECT Id FROM Contact"); len(got) != 4 {
		t.Errorf("the administrator sees %v", got)
	}
	wantError(t, c.do("GET", "sobjects/Contact/"+ids[1], nil), 404, "NOT_FOUND", "")
	wantError(t, c.do("PATCH", "sobjects/Contact/"+ids[3], map[string]any{"Title": "x"}), 400, "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY", "")
	wantError(t, c.do("PATCH", "sobjects/Contact/"+ids[2], map[string]any{"Title": "x"}), 400, "INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id")
	wantError(t, c.do("DELETE", "sobjects/Contact/"+ids[2], nil), 400, "INSUFFICIENT_ACCESS_OR_READONLY", "")
	res := c.do("PATCH", "composite/sobjects", map[string]any{"records": []any{map[string]any{"attributes": map[string]any{"type": "Contact"}, "id": ids[1], "Title": "x"}}})
	if !strings.Contains(res.body, "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY") {
		t.Errorf("collection: %s", res.body)
	}
	if res := c.do("GET", "composite/sobjects/Contact?ids="+strings.Join(ids, ",")+"&fields=Id", nil); strings.Count(res.body, "null") != 2 {
		t.Errorf("collection read: %s", res.body)
	}
	job := c.bulk("SELECT Id FROM Contact")
	c.jobState("query", job)
	if body := c.do("GET", "jobs/query/"+job+"/results", nil).body; strings.Contains(body, ids[1]) || !strings.Contains(body, ids[2]) {
		t.Errorf("bulk: %s", body)
	}
}

func TestHistoryNamesWhoChangedTheBox(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	id := o.Insert("Contact", map[string]any{"LastName": "A"})
	for i, username := range []string{"heed@sandbox.example", "import@sandbox.example"} {
		c.clock.advance(60e9)
		if res := c.as(username).do("PATCH", "sobjects/Contact/"+id, map[string]any{"SMS_Opt_Out__c": i == 0, "Title": "not tracked"}); res.status != 204 {
			t.Fatal(res.body)
		}
	}
	if res := c.do("PATCH", "composite/sobjects", `{"allOrNone":true,"records":[{"attributes":{"type":"Contact"},"id":"`+id+`","SMS_Opt_Out__c":true},{"attributes":{"type":"Contact"},"id":"x"}]}`); res.status != 200 {
		t.Fatal(res.body) // rolled back, with its history
	}
	const soql = "SELECT ContactId, Field, OldValue, NewValue, CreatedBy.Name, CreatedDate FROM ContactHistory WHERE ContactId = '%s' ORDER BY CreatedDate, Id"
	var got []string
	for _, r := range c.query(fmt.Sprintf(soql, id)).object(t)["records"].([]any) {
		m := r.(map[string]any)
		got = append(got, fmt.Sprint(m["Field"], " ", m["OldValue"], "→", m["NewValue"], " ", m["CreatedBy"].(map[string]any)["Name"], " ", m["CreatedDate"]))
	}
	want := []string{"created <nil>→<nil> Grace Admin 2026-03-02T10:00:00.000+0000", "SMS_Opt_Out__c false→true Heed Integration 2026-03-02T10:01:00.000+0000",
		"SMS_Opt_Out__c true→false Ivo Import 2026-03-02T10:02:00.000+0000"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("history\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	wantError(t, c.query("SELECT Id FROM ContactHistory WHERE NewValue = 'x'"), 400, "INVALID_FIELD", "can not be filtered")
	knob(t, o, func(k *Knobs) { k.HiddenFields = []string{"Contact.SMS_Opt_Out__c"} })
	if got := c.ids("SELECT Id FROM ContactHistory"); len(got) != 1 {
		t.Errorf("history of a hidden field shows: %v", got)
	}
	knob(t, o, func(k *Knobs) { k.HiddenFields, k.TrackedFields = nil, []string{"Lead.MobilePhone"} })
	lead := o.Insert("Lead", map[string]any{"LastName": "L", "Company": "C", "MobilePhone": "1"})
	if err := o.UpdateAs(o.SyncID(), "Lead", lead, map[string]any{"MobilePhone": "2", "SMS_Opt_Out__c": true}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Convert(lead, true); err != nil {
		t.Fatal(err)
	}
	res := c.query("SELECT Field, OldValue, NewValue FROM LeadHistory WHERE LeadId = '" + lead + "'")
	if !strings.Contains(res.body, `"Field":"MobilePhone","OldValue":"1","NewValue":"2"`) || !strings.Contains(res.body, "leadConverted") || strings.Contains(res.body, "SMS_Opt_Out__c") {
		t.Errorf("lead history: %s", res.body)
	}
	a, b := o.Insert("Lead", map[string]any{"LastName": "M", "Company": "C"}), o.Insert("Lead", map[string]any{"LastName": "M", "Company": "C"})
	if err := o.MergeAs(o.ImporterID(), "Lead", a, []string{b}, nil); err != nil {
		t.Fatal(err)
	}
	if res := c.query("SELECT CreatedById FROM LeadHistory WHERE Field = 'leadMerged' AND LeadId = '" + a + "'"); !strings.Contains(res.body, o.ImporterID()) {
		t.Errorf("merge: %s", res.body)
	}
}

func TestPersonAccounts(t *testing.T) {
	c := start(t, Options{PersonAccounts: true})
	o := c.org
	if err := o.AddField(Field{Object: "Contact", Name: "Nick__c", Type: Text}); err != nil {
		t.Fatal(err)
	}
	res := c.do("POST", "sobjects/Account", map[string]any{"FirstName": "Ada", "LastName": "Example", "PersonMobilePhone": "(415) 555-0142", "Phone": "1", "SMS_Opt_Out__pc": true, "Nick__pc": "Ace"})
	if res.status != 201 {
		t.Fatal(res.body)
	}
	id := res.object(t)["id"].(string)
	a, _ := o.Get("Account", id)
	shadow, _ := a["PersonContactId"].(string)
	k, _ := o.Get("Contact", shadow)
	if a["Name"] != "Ada Example" || a["IsPersonAccount"] != true || k["IsPersonAccount"] != true || k["AccountId"] != id || k["MobilePhone"] != "(415) 555-0142" ||
		k["SMS_Opt_Out__c"] != true || k["Nick__c"] != "Ace" || k["Name"] != "Ada Example" || k["Phone"] != "1" {
		t.Errorf("account %v\ncontact %v", a, k)
	}
	c.clock.advance(60e9)
	if res := c.do("PATCH", "sobjects/Account/"+id, map[string]any{"SMS_Opt_Out__pc": false, "PersonHomePhone": "2"}); res.status != 204 {
		t.Fatal(res.body)
	}
	k, _ = o.Get("Contact", shadow)
	if k["SMS_Opt_Out__c"] != false || k["HomePhone"] != "2" || k["MobilePhone"] != "(415) 555-0142" || k["SystemModstamp"] != "2026-03-02T10:01:00.000+0000" {
		t.Errorf("after a write through the account the contact is %v", k)
	}
	if got := c.ids("SELECT Id FROM Contact WHERE IsPersonAccount = true"); len(got) != 1 || got[0] != shadow {
		t.Errorf("shadow contacts: %v", got)
	}
	wantError(t, c.do("PATCH", "sobjects/Contact/"+shadow, map[string]any{"SMS_Opt_Out__c": true}), 400, "INVALID_FIELD_FOR_INSERT_UPDATE",
		"Contact: bad field names on insert/update call: SMS_Opt_Out__c")
	wantError(t, c.do("DELETE", "sobjects/Contact/"+shadow, nil), 400, "INVALID_PERSON_ACCOUNT_OPERATION", "")
	wantError(t, c.do("PATCH", "sobjects/Account/"+id, map[string]any{"Name": "x"}), 400, "INVALID_FIELD_FOR_INSERT_UPDATE", "Account: bad field names on insert/update call: Name")
	wantError(t, c.do("PATCH", "sobjects/Account/"+id, map[string]any{"LastName": nil}), 400, "REQUIRED_FIELD_MISSING", "[LastName]")
	wantError(t, c.do("PATCH", "sobjects/Account/"+id, map[string]any{"PersonContactId": nil}), 400, "INVALID_FIELD_FOR_INSERT_UPDATE", "PersonContactId")
	firm := c.do("POST", "sobjects/Account", map[string]any{"Name": "Firm", "Phone": "3"}).object(t)["id"].(string)
	wantError(t, c.do("PATCH", "sobjects/Account/"+firm, map[string]any{"PersonMobilePhone": "1"}), 400, "INVALID_FIELD_FOR_INSERT_UPDATE", "PersonMobilePhone")
	if f, _ := o.Get("Account", firm); f["IsPersonAccount"] != false || f["PersonContactId"] != nil {
		t.Errorf("a firm is a person: %v", f)
	}
	if f := c.describedField("Account", "SMS_Opt_Out__pc"); f["type"] != "boolean" || f["custom"] != true || f["updateable"] != true {
		t.Errorf("describe: %v", f)
	}
	knob(t, o, func(k *Knobs) { k.HiddenFields = []string{"Contact.SMS_Opt_Out__c"} })
	wantError(t, c.query("SELECT SMS_Opt_Out__pc FROM Account"), 400, "INVALID_FIELD", "SMS_Opt_Out__pc")
	other := o.Insert("Account", map[string]any{"LastName": "Twin"})
	if err := o.Merge("Account", id, []string{firm}, nil); err == nil {
		t.Error("a firm was merged into a person")
	}
	if err := o.Merge("Account", id, []string{other}, nil); err != nil {
		t.Fatal(err)
	}
	w, _ := o.Get("Account", other)
	lost, _ := o.Get("Contact", w["PersonContactId"].(string))
	if lost["IsDeleted"] != true || lost["MasterRecordId"] != shadow {
		t.Errorf("the loser's contact: %v", lost)
	}
	if res := c.do("DELETE", "sobjects/Account/"+id, nil); res.status != 204 {
		t.Fatal(res.body)
	}
	if k, _ := o.Get("Contact", shadow); k["IsDeleted"] != true {
		t.Errorf("the contact outlives its account: %v", k)
	}
	if err := o.Undelete("Account", id); err != nil {
		t.Fatal(err)
	}
	if k, _ := o.Get("Contact", shadow); k["IsDeleted"] != false {
		t.Errorf("undeleted: %v", k)
	}
	if err := o.SetKnobs(func(k *Knobs) { k.PersonAccounts = false }); err == nil {
		t.Error("person accounts can be switched off")
	}
	plain := start(t, Options{})
	wantError(t, plain.query("SELECT IsPersonAccount FROM Contact"), 400, "INVALID_FIELD", "IsPersonAccount")
	knob(t, plain.org, func(k *Knobs) { k.PersonAccounts = true })
	if res := plain.query("SELECT PersonMobilePhone FROM Account"); res.status != 200 {
		t.Errorf("switched on by knob: %s", res.body)
	}
}

func TestTriggersFailRecordsOrRuns(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	var ids []string
	for i := range 6 {
		ids = append(ids, o.Insert("Contact", map[string]any{"LastName": fmt.Sprint("C", i)}))
	}
	tick := func(which ...string) string {
		var recs []any
		for _, id := range which {
			recs = append(recs, map[string]any{"attributes": map[string]any{"type": "Contact"}, "id": id, "SMS_Opt_Out__c": true})
		}
		var out []string
		for _, r := range c.do("PATCH", "composite/sobjects", map[string]any{"records": recs}).list(t) {
			if r["success"] == true {
				out = append(out, "ok")
			} else {
				out = append(out, r["errors"].([]any)[0].(map[string]any)["statusCode"].(string))
			}
		}
		return strings.Join(out, " ")
	}
	reset := func() {
		for _, id := range ids {
			if err := o.Update("Contact", id, map[string]any{"SMS_Opt_Out__c": false}); err != nil {
				t.Fatal(err)
			}
		}
	}
	ticked := func() (n int) { return len(c.ids("SELECT Id FROM Contact WHERE SMS_Opt_Out__c = true")) }
	const thrown = "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY"
	for _, tc := range []struct {
		trigger Trigger
		ids     []string
		want    string
		ticked  int
	}{
		{Trigger{Effect: "fail_record", IDs: ids[:1], Message: "no"}, ids[:3], "FIELD_CUSTOM_VALIDATION_EXCEPTION ok ok", 2},
		{Trigger{Effect: "fail_chunk", IDs: ids[1:2]}, []string{ids[0], ids[1], "bad", ids[2]}, thrown + " " + thrown + " MALFORMED_ID " + thrown, 0},
		{Trigger{Effect: "fail_chunk", IDs: ids[1:2]}, []string{ids[0], ids[2]}, "ok ok", 2},
		{Trigger{Effect: "cpu_limit", MaxRows: 2}, ids[:3], thrown + " " + thrown + " " + thrown, 0},
		{Trigger{Effect: "cpu_limit", MaxRows: 3}, ids[:3], "ok ok ok", 3},
		{Trigger{Effect: "take_back", Field: "SMS_Opt_Out__c", IDs: ids[:2]}, ids[:3], "ok ok ok", 1},
	} {
		reset()
		tc.trigger.Object = "Contact"
		knob(t, o, func(k *Knobs) { k.Triggers = []Trigger{tc.trigger} })
		if got := tick(tc.ids...); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.trigger, got, tc.want)
		}
		if got := ticked(); got != tc.ticked {
			t.Errorf("%+v: %d boxes ticked, want %d", tc.trigger, got, tc.ticked)
		}
	}
	reset()
	knob(t, o, func(k *Knobs) { k.Triggers = []Trigger{{Object: "Contact", Effect: "cpu_limit", MaxRows: 199}} })
	lucky := func(seed uint64) string {
		reset()
		knob(t, o, func(k *Knobs) {
			k.Seed, k.Triggers = seed, []Trigger{{Object: "Contact", Effect: "fail_record", Rate: 0.5}}
		})
		return tick(ids...)
	}
	first := lucky(8)
	if again := lucky(9) + lucky(8); !strings.HasSuffix(again, first) || strings.HasPrefix(again, first) || !strings.Contains(first, "ok") || !strings.Contains(first, "FIELD") {
		t.Errorf("a rate follows its seed: %s, then %s", first, again)
	}
	big := start(t, Options{})
	big.org.Seed(1000, 1)
	knob(t, big.org, func(k *Knobs) { k.Triggers = []Trigger{{Object: "Contact", Effect: "cpu_limit", MaxRows: 199}} })
	data := "Id,SMS_Opt_Out__c\n"
	for i := range 450 {
		data += big.org.table("Contact").id(uint32(i+1)) + ",true\n"
	}
	job := big.ingest(map[string]any{"object": "Contact", "operation": "update"}, data)
	if info := big.do("GET", "jobs/ingest/"+job, nil).object(t); info["numberRecordsFailed"] != 400.0 {
		t.Errorf("runs of 200 fail, the last one of 50 passes: %v", info)
	}
	for _, bad := range []string{`[{"object":"X","effect":"fail_record"}]`, `[{"object":"Lead","effect":"x"}]`, `[{"object":"Lead","effect":"take_back"}]`, `[{"object":"Lead","effect":"cpu_limit"}]`} {
		if res := c.do("PUT", "/sandbox/knobs", `{"triggers":`+bad+`}`); res.status != 400 {
			t.Errorf("%s: %d", bad, res.status)
		}
	}
}

func TestLeadMappingIsInTheMetadataAPI(t *testing.T) {
	c := start(t, Options{})
	read := func(session, what string) result {
		return c.do("POST", "/services/Soap/m/62.0", `<?xml version="1.0"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header><SessionHeader xmlns="`+metadataNS+
			`"><sessionId>`+session+`</sessionId></SessionHeader></e:Header><e:Body><readMetadata xmlns="`+metadataNS+`"><type>`+what+`</type><fullNames>`+what+`</fullNames></readMetadata></e:Body></e:Envelope>`, "Content-Type", "text/xml", "SOAPAction", `""`)
	}
	knob(t, c.org, func(k *Knobs) { k.LeadMapping = map[string]string{"SMS_Opt_Out__c": "SMS_Opt_Out__c"} })
	res := read(c.token, "LeadConvertSettings")
	if res.status != 200 || !strings.Contains(res.body, "<objectMapping><inputObject>Lead</inputObject><mappingFields><inputField>SMS_Opt_Out__c</inputField><outputField>SMS_Opt_Out__c</outputField></mappingFields><outputObject>Contact</outputObject></objectMapping>") {
		t.Errorf("mapped: %d %s", res.status, res.body)
	}
	knob(t, c.org, func(k *Knobs) { k.LeadMapping = nil })
	if res := read(c.token, "LeadConvertSettings"); res.status != 200 || strings.Contains(res.body, "objectMapping") {
		t.Errorf("unmapped: %s", res.body)
	}
	knob(t, c.org, func(k *Knobs) { k.MetadataDenied = true })
	for want, res := range map[string]result{"sf:INVALID_SESSION_ID": read("nope", "LeadConvertSettings"), "sf:INSUFFICIENT_ACCESS": read(c.token, "LeadConvertSettings"),
		"sf:INVALID_TYPE": read(c.as("admin@sandbox.example").token, "Layout"), "soapenv:Client": c.do("POST", "/services/Soap/m/62.0", "<x/>")} {
		if res.status != 500 || !strings.Contains(res.body, "<faultcode>"+want+"</faultcode>") {
			t.Errorf("%s: %d %s", want, res.status, res.body)
		}
	}
	for _, bad := range []string{`{"lead_mapping":{"SMS_Opt_Out__c":"MobilePhone"}}`, `{"lead_mapping":{"Nope__c":"Title"}}`, `{"user_access":[{"user":"x","object":"Lead","access":"hidden"}]}`,
		`{"user_access":[{"user":"heed@sandbox.example","object":"Lead","access":"all"}]}`, `{"tracked_fields":["Account.Name"]}`, `{"hidden_records":["x"]}`, `{"next_bulk":["x"]}`} {
		if res := c.do("PUT", "/sandbox/knobs", bad); res.status != 400 {
			t.Errorf("%s: %d %s", bad, res.status, res.body)
		}
	}
}
