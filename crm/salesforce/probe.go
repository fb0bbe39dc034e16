package salesforce

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/heed-sms/heed/crm"
)

const (
	clockTolerance = time.Minute
	budgetWarning  = 80 // per cent of the API calls of 24 hours
)

// describe is what heed reads of an object's description (REST API Developer Guide, "sObject Describe").
type describe struct {
	Name       string          `json:"name"`
	Queryable  bool            `json:"queryable"`
	Updateable bool            `json:"updateable"`
	Fields     []describeField `json:"fields"`
}

type describeField struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	Length     int    `json:"length"`
	Updateable bool   `json:"updateable"`
	Calculated bool   `json:"calculated"`
	Filterable bool   `json:"filterable"`
	Values     []struct {
		Value  string `json:"value"`
		Active bool   `json:"active"`
	} `json:"picklistValues"`
}

func (d *describe) field(name string) *describeField {
	for i := range d.Fields {
		if strings.EqualFold(d.Fields[i].Name, name) {
			return &d.Fields[i]
		}
	}
	return nil
}

// Probe implements [crm.Prober]. It writes nothing. It spends about three API calls for each object, and four
// more.
func (o *Org) Probe(ctx context.Context) []crm.Finding {
	ctx = as(ctx, probing)
	var fs []crm.Finding
	ok := func(format string, args ...any) {
		fs = append(fs, crm.Finding{OK: true, What: fmt.Sprintf(format, args...)})
	}
	bad := func(hint, format string, args ...any) {
		fs = append(fs, crm.Finding{What: fmt.Sprintf(format, args...), Hint: hint})
	}

	s, err := o.session(ctx, nil)
	var e *crm.Error
	if errors.As(err, &e) && e.Status == 0 && e.Err != nil { // nobody answered: name, connection or certificate
		bad("check domain, and from this machine DNS, the firewall and the proxy (HTTPS_PROXY)", "Salesforce cannot be reached at %s: %v", o.config.Domain, err)
		return fs
	}
	if err != nil {
		bad("check domain, client_id and the credentials; in Setup, External Client App Manager, open the app and look at its policies; Setup, Login History shows why a login was refused",
			"Salesforce does not let heed log in at %s: %v", o.config.Domain, err)
		return fs
	}
	asked := o.now()
	var who struct {
		Name string `json:"preferred_username"`
	}
	name := s.userID
	if a, err := o.call(ctx, http.MethodGet, "/services/oauth2/userinfo", nil); err == nil && a.decode(&who) == nil && who.Name != "" {
		name = who.Name
	}
	ok("logged in to organisation %s at %s as %s", s.orgID, s.host, name)

	a, err := o.call(ctx, http.MethodGet, o.data("/query?q="+url.QueryEscape("SELECT Name, IsSandbox FROM Organization LIMIT 1")), nil)
	switch {
	case err != nil && ctx.Err() != nil:
		bad("try again", "Salesforce did not answer in time")
		return fs
	case err != nil:
		bad("give the integration user the permission API Enabled (permission set, System Permissions)", "the REST API refuses a simple query: %v", err)
	default:
		o.probeAnswer(a, asked, ok, bad)
	}
	for _, obj := range o.objects {
		o.probeObject(ctx, obj, ok, bad)
	}
	o.probeLeadMapping(ctx, ok, bad)
	o.probeBulk(ctx, ok, bad)
	if used, max := o.APIUsage(); max > 0 {
		switch {
		case used*100 >= max*o.budget():
			bad("find the integration that spends them in Setup, Company Information, API Requests, or buy more; boxes are written as long as Salesforce takes calls",
				"%d of %d API calls of the last 24 hours are used: heed reads nothing from %d %% on (api_budget), so what drifts is not found", used, max, o.budget())
		case used*100 >= max*budgetWarning:
			bad("find the integration that spends them in Setup, Company Information, API Requests; heed waits when the allocation is used up",
				"%d of %d API calls of the last 24 hours are used", used, max)
		default:
			ok("%d of %d API calls of the last 24 hours are used", used, max)
		}
	}
	return fs
}

func (o *Org) probeAnswer(a *answer, asked time.Time, ok func(string, ...any), bad func(string, string, ...any)) {
	var org struct {
		Records []struct {
			Name      string
			IsSandbox bool
		} `json:"records"`
	}
	if a.decode(&org) == nil && len(org.Records) == 1 {
		kind := "a production organisation"
		if org.Records[0].IsSandbox {
			kind = "a sandbox"
		}
		ok("%q is %s", org.Records[0].Name, kind)
	}
	date := a.date()
	if date.IsZero() {
		bad("let the proxy between heed and Salesforce pass the Date header on", "the answers carry no Date, so heed cannot tell Salesforce's clock and will read changes repeatedly")
		return
	}
	if off := asked.Sub(date).Round(time.Second); off.Abs() > clockTolerance {
		bad("synchronise this machine's clock (NTP); the order of a STOP and a change in the CRM is judged by both clocks", "this machine's clock is %s off Salesforce's", off)
	} else {
		ok("this machine's clock agrees with Salesforce's")
	}
}

func (o *Org) probeObject(ctx context.Context, obj *object, ok func(string, ...any), bad func(string, string, ...any)) {
	grantObject := fmt.Sprintf("in Setup, Permission Sets, the set of the integration user, Object Settings, %s: tick Read, Edit and View All Records", obj.name)
	a, err := o.call(ctx, http.MethodGet, o.data("/sobjects/"+obj.name+"/describe"), nil)
	var d describe
	if err == nil {
		err = a.decode(&d)
	}
	if err != nil {
		if e := codeOf(err); e == "NOT_FOUND" || e == "INVALID_TYPE" {
			bad("check the API name in Setup, Object Manager; or "+grantObject, "%s does not exist, or the integration user may not see it", obj.name)
		} else {
			bad("try again; if it stays, "+grantObject, "%s cannot be described: %v", obj.name, err)
		}
		return
	}
	if !d.Queryable || !d.Updateable {
		bad(grantObject, "the integration user may not read and edit %s", obj.name)
	}
	missing := func(field string) {
		bad(fmt.Sprintf("check the API name in Setup, Object Manager, %s, Fields & Relationships; if it is right, open the integration user's permission set, Object Settings, %s, and tick Read Access for the field (Salesforce does not tell a hidden field from a missing one)", obj.name, obj.name),
			"%s has no field %s that the integration user can see", obj.name, field)
	}
	editable := func(f *describeField, role string) bool {
		switch {
		case f.Calculated:
			bad("configure a field that can be written", "%s %s.%s is a formula: it cannot be written", role, obj.name, f.Name)
		case !f.Updateable:
			bad(fmt.Sprintf("in Setup, Permission Sets, the set of the integration user, Object Settings, %s, Field Permissions: tick Edit Access for %s", obj.name, f.Name),
				"the integration user may not write %s %s.%s", role, obj.name, f.Name)
		default:
			return true
		}
		return false
	}
	if d.field("IsPersonAccount") != nil && strings.EqualFold(obj.name, "Contact") {
		o.probePersons(ctx, obj, ok, bad)
	}
	for _, p := range obj.Phones {
		switch f := d.field(p); {
		case f == nil:
			missing(p)
		case f.Type != "phone" && f.Type != "string":
			bad("configure a Phone or Text field", "%s.%s is a %s field, not a phone number", obj.name, f.Name, f.Type)
		default:
			ok("phone field %s.%s is readable", obj.name, f.Name)
		}
	}
	o.probeBox(obj, d.field(obj.mapping.Field), missing, editable, ok, bad)
	for _, x := range []struct {
		role, name string
		types      []string
	}{
		{"date_field", obj.DateField, []string{"datetime"}},
		{"source_field", obj.SourceField, []string{"string", "textarea", "picklist"}},
		{"text_field", obj.TextField, []string{"string", "textarea"}},
	} {
		if x.name == "" {
			continue
		}
		switch f := d.field(x.name); {
		case f == nil:
			missing(x.name)
		case !slices.Contains(x.types, f.Type):
			bad("configure a field of type "+strings.Join(x.types, " or ")+", or remove "+x.role, "%s %s.%s is a %s field", x.role, obj.name, f.Name, f.Type)
		case editable(f, x.role):
			ok("%s %s.%s is writable", x.role, obj.name, f.Name)
		}
	}
	if f := d.field("SystemModstamp"); f == nil || !f.Filterable {
		bad("configure another object; changes of this one are found by the nightly full pass only", "%s cannot be filtered by SystemModstamp", obj.name)
	}
	if r := obj.refused.Load(); r != nil {
		bad("grant Edit Access to the optional field, or remove it from the configuration; the opt-out itself is written", "%s refused an optional field: %s", obj.name, r.text)
	}
	if a, err := o.call(ctx, http.MethodGet, o.data("/query?q="+url.QueryEscape(obj.countQuery())), nil); err == nil {
		var n struct {
			TotalSize int `json:"totalSize"`
		}
		if a.decode(&n) == nil && n.TotalSize > 0 {
			ok("heed can see %d %s records; %s", n.TotalSize, obj.name, o.viewsAll(ctx, obj))
		} else {
			bad(grantObject, "heed can see no %s records at all", obj.name)
		}
	}
}

func (o *Org) probeBox(obj *object, f *describeField, missing func(string), editable func(*describeField, string) bool, ok func(string, ...any), bad func(string, string, ...any)) {
	m := obj.mapping
	if f == nil {
		missing(m.Field)
		return
	}
	if !m.picklist() {
		if f.Type != "boolean" {
			bad("if it is a picklist, write opt_out: { field: "+f.Name+", out: \"…\", in: \"…\" } with its API values; else create a checkbox", "%s.%s is a %s field, not a checkbox", obj.name, f.Name, f.Type)
		} else if editable(f, "opt-out field") {
			meaning := "ticked means opted out"
			if m.Inverted {
				meaning = "ticked means may be texted"
			}
			ok("opt-out checkbox %s.%s is writable; %s", obj.name, f.Name, meaning)
		}
		return
	}
	if f.Type != "picklist" {
		bad("write opt_out: "+f.Name+" for a checkbox, or configure a picklist (single choice)", "%s.%s is a %s field, not a picklist", obj.name, f.Name, f.Type)
		return
	}
	var active []string
	for _, v := range f.Values {
		if v.Active {
			active = append(active, v.Value)
		}
	}
	for _, want := range []string{m.Out, m.In} {
		if !slices.Contains(active, want) {
			bad(fmt.Sprintf("use one of %q, or add the value in Setup, Object Manager, %s, Fields & Relationships, %s", active, obj.name, f.Name),
				"picklist %s.%s has no active value %q", obj.name, f.Name, want)
			return
		}
	}
	if editable(f, "opt-out field") {
		ok("opt-out picklist %s.%s is writable; %q means opted out", obj.name, f.Name, m.Out)
	}
}

// viewsAll says whether heed's user sees every record of an object, as far as Salesforce tells: by the permission sets that
// the user has, the profile's among them (Object Reference, "ObjectPermissions"). Without the permission an organisation may
// still share everything with everybody, which is not to be seen from here.
func (o *Org) viewsAll(ctx context.Context, obj *object) string {
	soql := "SELECT Id FROM ObjectPermissions WHERE SobjectType = " + quote(obj.name) + " AND PermissionsViewAllRecords = true AND ParentId IN " +
		"(SELECT PermissionSetId FROM PermissionSetAssignment WHERE AssigneeId = " + quote(o.selfID()) + ") LIMIT 1"
	seen := -1
	for b, err := range o.query(ctx, "/query", soql, 1) {
		if err != nil {
			break
		}
		seen = len(b.rows)
	}
	switch seen {
	case 0:
		return "it has no View All Records there, so it sees what is shared with it, and boxes of other records are not set"
	case 1:
		return "it has View All Records"
	}
	return "if there are more, View All Records is missing"
}

// probePersons looks at the field of the account through which a person account's box is written.
func (o *Org) probePersons(ctx context.Context, obj *object, ok func(string, ...any), bad func(string, string, ...any)) {
	field := personField(obj.mapping.Field)
	grant := fmt.Sprintf("in Setup, Permission Sets, the set of the integration user, Object Settings: tick Read, Edit and View All Records for Accounts, and Edit Access for the Contact's field %s, whose permission Account.%s shares", obj.mapping.Field, field)
	a, err := o.call(ctx, http.MethodGet, o.data("/sobjects/Account/describe"), nil)
	var d describe
	if err == nil {
		err = a.decode(&d)
	}
	switch f := d.field(field); {
	case err != nil:
		bad(grant, "the organisation has person accounts, whose boxes are written through Account, and Account cannot be described: %v", err)
	case f == nil:
		bad(grant, "the organisation has person accounts, and Account has no field %s that the integration user can see: their boxes cannot be written", field)
	case !f.Updateable || !d.Updateable:
		bad(grant, "the organisation has person accounts, and the integration user may not write Account.%s: their boxes cannot be written", f.Name)
	default:
		ok("the organisation has person accounts; their boxes are written as Account.%s", f.Name)
	}
}

// probeBulk asks for the list of query jobs: it takes the same rights as making one, and makes none.
func (o *Org) probeBulk(ctx context.Context, ok func(string, ...any), bad func(string, string, ...any)) {
	if o.bulkMode() == BulkNever {
		ok("Bulk API 2.0 is switched off: each 2,000 records read and each 200 boxes written cost an API call")
		return
	}
	_, err := o.call(ctx, http.MethodGet, o.data("/jobs/query?jobType=V2Query"), nil)
	if off := o.bulkOff.Load(); err == nil && off != nil && o.now().Before(off.until) {
		err = off.err
	}
	if err != nil {
		bad(bulkHint, "Bulk API 2.0 cannot be used, so each 2,000 records read and each 200 boxes written cost an API call: %v", err)
		return
	}
	ok("Bulk API 2.0 answers: objects of more than %d records are read through it", bulkReadFrom)
}
