package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/heed-sms/heed/connector/openapi"
	"github.com/heed-sms/heed/crm/salesforce/salesforcefake"
)

// The package for Salesforce admins is text that nothing here runs. These tests hold it together: its files with each
// other, with heed's API, and with the names in configurations and in the emulated org. The element names themselves are
// the vendor's (Metadata API Developer Guide); whether an org takes the package, only a deployment can tell.

const (
	salesforcePackage  = "../../deploy/salesforce"
	metadataNamespace  = "http://soap.sforce.com/2006/04/metadata"
	salesforceRegister = "sending/main/default/externalServiceRegistrations/heed.externalServiceRegistration-meta.xml"
)

// element is an XML element, with the names and texts that metadata is made of. It has no attributes.
type element struct {
	name     string
	text     string
	children []*element
}

// all returns the elements at a path of names below e.
func (e *element) all(names ...string) []*element {
	if len(names) == 0 {
		return []*element{e}
	}
	var out []*element
	for _, c := range e.children {
		if c.name == names[0] {
			out = append(out, c.all(names[1:]...)...)
		}
	}
	return out
}

// get returns the text of the one element at a path, "" if there is none.
func (e *element) get(names ...string) string {
	if found := e.all(names...); len(found) == 1 {
		return found[0].text
	}
	return ""
}

// texts returns the texts of all elements of a name, however deep.
func (e *element) texts(name string) []string {
	var out []string
	for _, c := range e.children {
		if c.name == name {
			out = append(out, c.text)
		}
		out = append(out, c.texts(name)...)
	}
	return out
}

func parseMetadata(b []byte) (*element, error) {
	dec := xml.NewDecoder(bytes.NewReader(b))
	root := &element{}
	open := []*element{root}
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		top := open[len(open)-1]
		switch tok := tok.(type) {
		case xml.StartElement:
			if tok.Name.Space != metadataNamespace {
				return nil, fmt.Errorf("<%s> is in the namespace %q", tok.Name.Local, tok.Name.Space)
			}
			e := &element{name: tok.Name.Local}
			// The deserialiser of the Metadata API wants elements of one name side by side.
			if n := len(top.children); n > 0 && top.children[n-1].name != e.name && len(top.all(e.name)) > 0 {
				return nil, fmt.Errorf("<%s> in <%s> does not stand with the other ones", e.name, top.name)
			}
			top.children = append(top.children, e)
			open = append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			top.text += string(tok)
		case xml.Directive:
			return nil, errors.New("has a document type")
		}
	}
	if len(root.children) != 1 {
		return nil, fmt.Errorf("has %d root elements", len(root.children))
	}
	return root.children[0], nil
}

// component is one metadata file.
type component struct {
	path     string // from the package's root
	name     string // full name: heed_Send, Contact.SMS_Opt_Out__c
	metadata *element
}

// metadataTypes maps the ending of a file's name to its root element and folder (Salesforce DX Developer Guide,
// "Salesforce DX Project Structure and Source Format").
var metadataTypes = map[string]struct{ root, folder string }{
	"field":                       {"CustomField", "fields"},
	"permissionset":               {"PermissionSet", "permissionsets"},
	"externalCredential":          {"ExternalCredential", "externalCredentials"},
	"namedCredential":             {"NamedCredential", "namedCredentials"},
	"externalServiceRegistration": {"ExternalServiceRegistration", "externalServiceRegistrations"},
	"flow":                        {"Flow", "flows"},
	"workflow":                    {"Workflow", "workflows"},
}

type salesforceOrg map[string][]component // by root element

func (o salesforceOrg) find(root, name string) *component {
	for i, c := range o[root] {
		if c.name == name {
			return &o[root][i]
		}
	}
	return nil
}

// fields returns the custom fields of an object, by name.
func (o salesforceOrg) fields(object string) map[string]*element {
	out := map[string]*element{}
	for _, c := range o["CustomField"] {
		if of, name, _ := strings.Cut(c.name, "."); of == object {
			out[name] = c.metadata
		}
	}
	return out
}

// written returns the fields that heed writes: those of the first package that no formula computes.
func (o salesforceOrg) written(object string) map[string]*element {
	out := map[string]*element{}
	for _, c := range o["CustomField"] {
		if of, name, _ := strings.Cut(c.name, "."); of == object && strings.HasPrefix(c.path, "force-app/") && c.metadata.get("formula") == "" {
			out[name] = c.metadata
		}
	}
	return out
}

// flowReferences are the elements whose text refers to something else in the flow or in the org.
var flowReferences = []string{"elementReference", "leftValueReference", "assignToReference", "targetReference", "outputReference", "inputReference"}

func readSalesforcePackage(t *testing.T) (salesforceOrg, []string) {
	t.Helper()
	org := salesforceOrg{}
	var files []string
	root := os.DirFS(salesforcePackage)
	var project struct {
		PackageDirectories []struct{ Path string }
	}
	b, err := fs.ReadFile(root, "sfdx-project.json")
	if err == nil {
		err = json.Unmarshal(b, &project)
	}
	if err != nil {
		t.Fatal("sfdx-project.json: ", err)
	}
	var dirs []string
	for _, d := range project.PackageDirectories {
		dirs = append(dirs, d.Path)
	}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == ".sf" || name == ".sfdx" { // what the tool leaves behind
				return fs.SkipDir
			}
			return nil
		}
		files = append(files, name)
		if !strings.HasSuffix(name, ".xml") {
			return nil
		}
		if dir, _, _ := strings.Cut(name, "/"); !slices.Contains(dirs, dir) {
			t.Errorf("%s is in no package directory of sfdx-project.json: %v", name, dirs)
		}
		b, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		m, err := parseMetadata(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return nil
		}
		full, ending, _ := strings.Cut(path.Base(name), ".")
		typ, known := metadataTypes[strings.TrimSuffix(ending, "-meta.xml")]
		if !known || !strings.HasSuffix(ending, "-meta.xml") {
			t.Errorf("%s: no metadata type has files called .%s", name, ending)
			return nil
		}
		if m.name != typ.root || path.Base(path.Dir(name)) != typ.folder {
			t.Errorf("%s holds a <%s>; it should hold a <%s> in the folder %s", name, m.name, typ.root, typ.folder)
		}
		if typ.root == "CustomField" {
			if got := m.get("fullName"); got != full {
				t.Errorf("%s is called %q inside", name, got)
			}
			full = path.Base(path.Dir(path.Dir(name))) + "." + full
		}
		org[typ.root] = append(org[typ.root], component{name, full, m})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return org, files
}

func TestSalesforcePackage(t *testing.T) {
	org, files := readSalesforcePackage(t)
	for typ, want := range map[string]int{"CustomField": 12, "PermissionSet": 3, "ExternalCredential": 1, "NamedCredential": 1, "Flow": 3, "Workflow": 1, "ExternalServiceRegistration": 1} {
		if len(org[typ]) < want {
			t.Fatalf("found %d files of type %s, want %d at least: the walk is wrong", len(org[typ]), typ, want)
		}
	}
	t.Run("every field says what it is for", func(t *testing.T) { testFieldsAreExplained(t, org) })
	t.Run("a lead's fields can be mapped to a contact's", func(t *testing.T) { testLeadMatchesContact(t, org) })
	t.Run("the emulated org has the same fields", func(t *testing.T) { testEmulatorHasFields(t, org) })
	t.Run("configurations name fields that exist", func(t *testing.T) { testConfigurationsNameFields(t, org) })
	t.Run("the permission sets grant what is needed and no more", func(t *testing.T) { testPermissionSets(t, org) })
	t.Run("the credential has no secret and is heed's to reach", func(t *testing.T) { testCredential(t, org) })
	t.Run("the external service is heed's API as it is now", func(t *testing.T) { testRegistration(t, org) })
	t.Run("the flows refer to what exists", func(t *testing.T) { testFlows(t, org) })
	t.Run("the outbound message asks for no session", func(t *testing.T) { testOutboundMessage(t, org) })
	t.Run("what differs between orgs is replaced when deploying", func(t *testing.T) { testReplacements(t) })
	t.Run("no file holds a secret", func(t *testing.T) { testNoSecrets(t, files) })
}

func testFieldsAreExplained(t *testing.T, org salesforceOrg) {
	for _, c := range org["CustomField"] {
		m := c.metadata
		for tag, limit := range map[string]int{"label": 40, "description": 1000, "inlineHelpText": 510} {
			if n := len(m.get(tag)); n == 0 || n > limit {
				t.Errorf("%s: its %s has %d characters, want 1 to %d", c.path, tag, n, limit)
			}
		}
		switch typ := m.get("type"); {
		case typ == "Checkbox" && m.get("defaultValue") != "false":
			t.Errorf("%s: a checkbox needs a default, and this one must not begin ticked", c.path)
		case typ == "Text" && m.get("formula") == "" && m.get("length") == "":
			t.Errorf("%s: a text field needs a length", c.path)
		}
	}
	for _, object := range []string{"Contact", "Lead"} {
		for name, m := range org.written(object) {
			if m.get("trackHistory") != "true" {
				t.Errorf("%s.%s: its history is not tracked, so nobody could see who changed it", object, name)
			}
			for _, tag := range []string{"description", "inlineHelpText"} {
				if s := m.get(tag); !strings.Contains(s, "heed sets this; ") || !strings.Contains(s, "by hand does not re-open a recipient's STOP") {
					t.Errorf("%s.%s: its %s does not warn whoever would change it by hand", object, name, tag)
				}
			}
		}
	}
}

func testLeadMatchesContact(t *testing.T, org salesforceOrg) {
	contact, lead := org.written("Contact"), org.written("Lead")
	if len(contact) != 4 {
		t.Errorf("heed writes %d fields, want 4", len(contact))
	}
	// Map Lead Fields offers fields of the same type, and of no smaller length.
	for name, m := range lead {
		of, found := contact[name]
		if !found {
			t.Errorf("Lead.%s has no counterpart, and would be lost when a lead is converted", name)
			continue
		}
		for _, tag := range []string{"label", "type", "length"} {
			if m.get(tag) != of.get(tag) {
				t.Errorf("Lead.%s and Contact.%s have different %s: %q and %q", name, name, tag, m.get(tag), of.get(tag))
			}
		}
	}
	if len(lead) != len(contact) {
		t.Errorf("%d fields on Lead, %d on Contact", len(lead), len(contact))
	}
}

func testEmulatorHasFields(t *testing.T, org salesforceOrg) {
	fake := salesforcefake.New(salesforcefake.Options{})
	defer fake.Close()
	fake.SetURL("https://acme.my.salesforce.com")
	call := func(method, target, token, body string, into any) {
		t.Helper()
		r := httptest.NewRequest(method, "https://acme.my.salesforce.com"+target, strings.NewReader(body))
		if body != "" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		fake.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%s %s answers %d: %s", method, target, w.Code, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatal(err)
		}
	}
	var session struct {
		Token string `json:"access_token"`
	}
	call("POST", "/services/oauth2/token", "", url.Values{"grant_type": {"client_credentials"},
		"client_id": {"heed-sandbox-client"}, "client_secret": {"heed-sandbox-secret"}}.Encode(), &session)
	soapType := map[string]string{"Checkbox": "boolean", "DateTime": "datetime", "Text": "string"}
	for _, object := range []string{"Contact", "Lead"} {
		var described struct {
			Fields []struct {
				Name, Type string
				Length     int
			}
		}
		call("GET", "/services/data/v62.0/sobjects/"+object+"/describe", session.Token, "", &described)
		want := map[string]string{}
		for name, m := range org.written(object) {
			want[name] = soapType[m.get("type")] + m.get("length")
		}
		got := map[string]string{}
		for _, f := range described.Fields {
			if strings.HasSuffix(f.Name, "__c") {
				got[f.Name] = f.Type
				if f.Type == "string" {
					got[f.Name] += fmt.Sprint(f.Length)
				}
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s:\n the emulated org has %v,\n the package makes      %v", object, got, want)
		}
	}
}

func testConfigurationsNameFields(t *testing.T, org salesforceOrg) {
	setting := regexp.MustCompile(`\b(opt_out|date_field|source_field|text_field|body|to): *([A-Za-z_]+__c)\b`)
	for file, least := range map[string]int{"../../config/example.yaml": 3, "sandbox.go": 5, salesforcePackage + "/README.md": 8} {
		b, err := os.ReadFile(filepath.FromSlash(file))
		if err != nil {
			t.Error(err)
			continue
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			object := "Contact"
			if strings.Contains(line, "object: Lead") {
				object = "Lead"
			}
			for _, m := range setting.FindAllStringSubmatch(line, -1) {
				n++
				if org.fields(object)[m[2]] == nil {
					t.Errorf("%s: %s is %s, which the package does not make on %s", file, m[1], m[2], object)
				}
			}
		}
		if n < least {
			t.Errorf("%s: found %d names of fields, want %d at least: the pattern is wrong", file, n, least)
		}
	}
}

func testPermissionSets(t *testing.T, org salesforceOrg) {
	type grant struct{ read, edit bool }
	grants := map[string]map[string]grant{}
	for _, c := range org["PermissionSet"] {
		grants[c.name] = map[string]grant{}
		for _, p := range c.metadata.all("fieldPermissions") {
			field, g := p.get("field"), grant{p.get("readable") == "true", p.get("editable") == "true"}
			if g.edit && !g.read {
				t.Errorf("%s: %s is editable and not readable", c.name, field)
			}
			if _, twice := grants[c.name][field]; twice {
				t.Errorf("%s: %s is listed twice", c.name, field)
			}
			grants[c.name][field] = g
			object, name, _ := strings.Cut(field, ".")
			m := org.fields(object)[name]
			if strings.HasSuffix(name, "__c") && m == nil {
				t.Errorf("%s grants %s, which is not in the package", c.name, field)
			}
			if m != nil && m.get("formula") != "" && g.edit {
				t.Errorf("%s: %s is a formula and cannot be edited", c.name, field)
			}
		}
		for _, p := range c.metadata.all("objectPermissions") {
			object := p.get("object")
			for _, never := range []string{"allowCreate", "allowDelete", "modifyAllRecords"} {
				if p.get(never) != "false" {
					t.Errorf("%s: %s of %s is not false", c.name, never, object)
				}
			}
			if p.get("allowRead") != "true" || p.get("allowEdit") == "" || p.get("viewAllRecords") == "" {
				t.Errorf("%s: the permissions for %s are incomplete", c.name, object)
			}
			edits := c.name == "heed_Integration" && (object == "Contact" || object == "Lead")
			if got := p.get("allowEdit") == "true"; got != edits {
				t.Errorf("%s: edit %s is %v, want %v", c.name, object, got, edits)
			}
			if got := p.get("viewAllRecords") == "true"; got != edits {
				t.Errorf("%s: view all of %s is %v, want %v", c.name, object, got, edits)
			}
		}
		for _, p := range c.metadata.all("userPermissions") {
			if c.name != "heed_Integration" || p.get("name") != "ApiEnabled" || p.get("enabled") != "true" {
				t.Errorf("%s: grants the system permission %s", c.name, p.get("name"))
			}
		}
	}
	integration := org.find("PermissionSet", "heed_Integration")
	if integration == nil || len(integration.metadata.all("userPermissions")) != 1 {
		t.Fatal("heed_Integration does not enable the API")
	}
	for _, object := range []string{"Contact", "Lead"} {
		for name := range org.written(object) {
			if got := grants["heed_Integration"][object+"."+name]; got != (grant{true, true}) {
				t.Errorf("heed_Integration: %s.%s is %+v, and heed writes it", object, name, got)
			}
		}
		for name := range org.fields(object) {
			field := object + "." + name
			for _, set := range []string{"heed_View", "heed_Send"} {
				if strings.HasPrefix(name, "SMS_Opt_Out") || name == "SMS_Status__c" {
					if got := grants[set][field]; got != (grant{true, false}) {
						t.Errorf("%s: %s is %+v, want readable only", set, field, got)
					}
				}
			}
		}
	}
	for field, want := range map[string]grant{"Contact.SMS_Body__c": {true, true}, "Contact.SMS_Send_Result__c": {true, false}} {
		if got := grants["heed_Send"][field]; got != want {
			t.Errorf("heed_Send: %s is %+v, want %+v", field, got, want)
		}
	}
	// heed reads the phones that the configurations name, and writes none.
	phones := map[string][]string{"Contact": {"MobilePhone", "Phone", "HomePhone", "OtherPhone", "AssistantPhone"}, "Lead": {"MobilePhone", "Phone"}}
	allowed := len(org.written("Contact")) + len(org.written("Lead"))
	for object, names := range phones {
		allowed += len(names)
		for _, name := range names {
			if got := grants["heed_Integration"][object+"."+name]; got != (grant{true, false}) {
				t.Errorf("heed_Integration: %s.%s is %+v, want readable only", object, name, got)
			}
		}
	}
	if got := len(grants["heed_Integration"]); got != allowed {
		t.Errorf("heed_Integration grants %d fields, want the %d that heed uses", got, allowed)
	}
}

func testCredential(t *testing.T, org salesforceOrg) {
	ec := org["ExternalCredential"][0]
	if got := ec.metadata.get("authenticationProtocol"); got != "Custom" {
		t.Errorf("the external credential's protocol is %s", got)
	}
	var principal, header string
	for _, p := range ec.metadata.all("externalCredentialParameters") {
		switch p.get("parameterType") {
		case "NamedPrincipal":
			principal = p.get("parameterName")
			if p.get("parameterValue") != "" {
				t.Error("the principal has a value in the file; the key is entered in Setup")
			}
		case "AuthHeader":
			header = p.get("parameterName") + ": " + p.get("parameterValue")
		default:
			t.Errorf("unexpected parameter %s of type %s", p.get("parameterName"), p.get("parameterType"))
		}
	}
	if want := "Authorization: {!'Bearer ' & $Credential." + ec.name + ".ApiKey}"; header != want {
		t.Errorf("the header is\n %s, want\n %s", header, want)
	}
	granted := org.find("PermissionSet", "heed_Send").metadata
	if got, want := granted.get("externalCredentialPrincipalAccesses", "externalCredentialPrincipal"), ec.name+"-"+principal; got != want {
		t.Errorf("heed_Send grants the principal %q, want %q", got, want)
	}
	if !slices.Contains(granted.texts("object"), "UserExternalCredential") {
		t.Error("heed_Send lets nobody read the stored credentials, without which a callout has none")
	}
	nc := org["NamedCredential"][0].metadata
	params := map[string]string{}
	for _, p := range nc.all("namedCredentialParameters") {
		params[p.get("parameterType")] = p.get("parameterValue") + p.get("externalCredential")
	}
	if want := map[string]string{"Url": "https://sms.example.com", "Authentication": ec.name}; !maps.Equal(params, want) {
		t.Errorf("the named credential has %v, want %v", params, want)
	}
	for tag, want := range map[string]string{"namedCredentialType": "SecuredEndpoint", "generateAuthorizationHeader": "false", "allowMergeFieldsInHeader": "true", "calloutStatus": "Enabled"} {
		if got := nc.get(tag); got != want {
			t.Errorf("the named credential's %s is %q, want %q: the external credential makes the header", tag, got, want)
		}
	}
}

// apiOperation is what the flows need to know of an operation of heed's API.
type apiOperation struct {
	request string                     // name of the body's schema
	answers map[string]map[string]bool // by status: the properties of the answer
	fields  map[string]bool            // the properties of the request
}

func readAPI(t *testing.T, document []byte) (doc map[string]any, operations map[string]apiOperation) {
	t.Helper()
	if err := yaml.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	at := func(v any, keys ...string) any {
		for _, k := range keys {
			m, _ := v.(map[string]any)
			v = m[k]
		}
		return v
	}
	resolve := func(v any) (name string, into any) {
		ref, _ := at(v, "$ref").(string)
		if ref == "" {
			return "", v
		}
		return path.Base(ref), at(doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	properties := func(schema any) map[string]bool {
		out := map[string]bool{}
		m, _ := at(schema, "properties").(map[string]any)
		for p := range m {
			out[p] = true
		}
		return out
	}
	operations = map[string]apiOperation{}
	paths, _ := doc["paths"].(map[string]any)
	for _, item := range paths {
		methods, _ := item.(map[string]any)
		for _, op := range methods {
			id, _ := at(op, "operationId").(string)
			if id == "" {
				continue
			}
			o := apiOperation{answers: map[string]map[string]bool{}}
			name, schema := resolve(at(op, "requestBody", "content", "application/json", "schema"))
			o.request, o.fields = name, properties(schema)
			responses, _ := at(op, "responses").(map[string]any)
			for status, r := range responses {
				_, r = resolve(r)
				_, schema := resolve(at(r, "content", "application/json", "schema"))
				o.answers[status] = properties(schema)
			}
			operations[id] = o
		}
	}
	return doc, operations
}

func testRegistration(t *testing.T, org salesforceOrg) {
	m := org.find("ExternalServiceRegistration", "heed").metadata
	if org.find("NamedCredential", m.get("namedCredentialReference")) == nil {
		t.Errorf("the named credential %q is not in the package", m.get("namedCredentialReference"))
	}
	for tag, want := range map[string]string{"schemaType": "OpenApi3", "status": "Complete", "registrationProviderType": "Custom"} {
		if got := m.get(tag); got != want {
			t.Errorf("%s is %q, want %q", tag, got, want)
		}
	}
	// The copy calls the two media types that External Services does not take by those that it does.
	document := string(openapi.Document())
	for from, to := range map[string]string{"application/problem+json:\n": "application/json:\n", "text/csv:\n": "text/plain:\n"} {
		document = strings.ReplaceAll(document, " "+from, " "+to)
	}
	want, operations := readAPI(t, []byte(document))
	got, _ := readAPI(t, []byte(m.get("schema")))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is not connector/openapi/openapi.yaml as it is now; run deploy/salesforce/build.sh and commit what it writes", salesforceRegister)
	}
	if len(operations) < 5 {
		t.Errorf("the API has %d operations: the reader is wrong", len(operations))
	}
	if version, _ := want["openapi"].(string); !strings.HasPrefix(version, "3.0.") {
		t.Errorf("the API is described in OpenAPI %s; External Services takes 3.0", version)
	}
	var media func(v any)
	media = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			content, _ := v["content"].(map[string]any)
			for typ := range content {
				if typ != "application/json" && typ != "text/plain" {
					t.Errorf("the media type %s would make the registration invalid; teach build.sh and this test", typ)
				}
			}
			for _, x := range v {
				media(x)
			}
		case []any:
			for _, x := range v {
				media(x)
			}
		}
	}
	media(map[string]any(want))
}

// standardFields are the fields of Salesforce's own that the flows use.
var standardFields = map[string][]string{
	"Contact": {"Id", "OwnerId", "MobilePhone"},
	"Task":    {"Description", "OwnerId", "Subject", "WhoId"},
}

func testFlows(t *testing.T, org salesforceOrg) {
	_, operations := readAPI(t, openapi.Document())
	exists := func(object, field string) bool {
		return slices.Contains(standardFields[object], field) || org.fields(object)[field] != nil
	}
	for _, c := range org["Flow"] {
		m := c.metadata
		if m.get("status") != "Draft" {
			t.Errorf("%s: is %s; an example begins as a draft", c.name, m.get("status"))
		}
		if m.get("description") == "" {
			t.Errorf("%s: has no description", c.name)
		}
		object := m.get("start", "object")
		names := map[string]*element{}
		for _, e := range m.children {
			if name := e.get("name"); name != "" {
				if names[name] != nil {
					t.Errorf("%s: two elements are called %s", c.name, name)
				}
				names[name] = e
			}
		}
		reached := map[string]bool{}
		for _, target := range m.texts("targetReference") {
			reached[target] = true
			if names[target] == nil {
				t.Errorf("%s: leads to %s, which does not exist", c.name, target)
			}
		}
		for name, e := range names {
			if e.name != "variables" && !reached[name] {
				t.Errorf("%s: nothing leads to %s", c.name, name)
			}
		}
		// A variable's fields, by what it holds.
		operationOf := func(class string) (apiOperation, bool) {
			for _, o := range operations {
				if class == "ExternalService__heed_"+o.request && o.request != "" {
					return o, true
				}
			}
			return apiOperation{}, false
		}
		check := func(ref string) error {
			head, rest, _ := strings.Cut(ref, ".")
			e := names[head]
			switch {
			case head == "$GlobalConstant" && rest == "EmptyString":
				return nil
			case head == "$Record":
				if object == "" || rest != "" && !exists(object, rest) {
					return fmt.Errorf("%q has no field %s", object, rest)
				}
				return nil
			case e == nil:
				return errors.New("there is no such element")
			case rest == "":
				return nil
			case e.name == "variables" && e.get("objectType") != "":
				if !exists(e.get("objectType"), rest) {
					return fmt.Errorf("%s has no field %s", e.get("objectType"), rest)
				}
				return nil
			case e.name == "variables" && e.get("apexClass") != "":
				o, known := operationOf(e.get("apexClass"))
				if !known || !o.fields[rest] {
					return fmt.Errorf("%s has no %s", e.get("apexClass"), rest)
				}
				return nil
			case e.name == "actionCalls" && e.get("actionType") == "externalService":
				// Salesforce Help, "Operation Output Parameters": responseCode, and one output for each status.
				o := operations[strings.TrimPrefix(e.get("actionName"), "heed.")]
				status, property, _ := strings.Cut(rest, ".")
				if rest != "responseCode" && !o.answers[status][property] {
					return fmt.Errorf("%s answers no %s", e.get("actionName"), rest)
				}
				return nil
			}
			return errors.New("there is no such thing")
		}
		for _, tag := range flowReferences {
			for _, ref := range m.texts(tag) {
				if err := check(ref); err != nil {
					t.Errorf("%s: %s %s: %v", c.name, tag, ref, err)
				}
			}
		}
		for _, e := range append(m.all("start"), append(m.all("recordLookups"), append(m.all("recordCreates"), m.all("recordUpdates")...)...)...) {
			of := e.get("object")
			if of == "" && e.get("inputReference") == "$Record" {
				of = object
			}
			for _, field := range append(e.texts("field"), e.texts("queriedFields")...) {
				if !exists(of, field) {
					t.Errorf("%s: %s uses the field %s, which %s does not have", c.name, e.get("name"), field, of)
				}
			}
		}
		for _, v := range m.all("variables") {
			if class := v.get("apexClass"); class != "" {
				if _, known := operationOf(class); !known {
					t.Errorf("%s: %s is no request of heed's API", c.name, class)
				}
			}
		}
		for _, a := range m.all("actionCalls") {
			name := a.get("actionName")
			switch a.get("actionType") {
			case "externalService":
				service, operation, _ := strings.Cut(name, ".")
				if _, known := operations[operation]; !known || org.find("ExternalServiceRegistration", service) == nil {
					t.Errorf("%s: calls %s, which is no operation of heed's API", c.name, name)
				}
				if a.get("faultConnector", "targetReference") == "" {
					t.Errorf("%s: %s has no path for a failure", c.name, a.get("name"))
				}
				// A record that is being saved has uncommitted work, and may not call out.
				if object != "" && (m.get("start", "connector", "targetReference") != "" || m.get("start", "scheduledPaths", "pathType") != "AsyncAfterCommit") {
					t.Errorf("%s: calls out of the save itself; it must be the asynchronous path", c.name)
				}
			case "outboundMessage":
				of, message, _ := strings.Cut(name, ".")
				w := org.find("Workflow", of)
				if w == nil || !slices.Contains(w.metadata.texts("fullName"), message) {
					t.Errorf("%s: sends %s, which is not in the package", c.name, name)
				}
			default:
				t.Errorf("%s: does a %s", c.name, a.get("actionType"))
			}
		}
	}
	if send := org.find("Flow", "heed_Send_SMS"); send == nil || !slices.Contains(send.metadata.texts("stringValue"), "blocked") {
		t.Error("heed_Send_SMS does not ask whether heed blocked the message")
	}
	guard := org.find("Flow", "heed_May_Text")
	if guard == nil || guard.metadata.get("runInMode") != "SystemModeWithoutSharing" {
		t.Fatal("heed_May_Text does not run as the system: who may not see the box would read it as unticked")
	}
	for _, v := range guard.metadata.all("variables") {
		if v.get("isOutput") == "true" && v.get("value", "booleanValue") != "false" {
			t.Error("heed_May_Text does not begin with a no")
		}
	}
}

func testOutboundMessage(t *testing.T, org salesforceOrg) {
	w := org.find("Workflow", "Contact")
	for _, m := range w.metadata.all("outboundMessages") {
		if m.get("includeSessionId") != "false" || m.get("useDeadLetterQueue") != "true" {
			t.Errorf("%s: includeSessionId %s, useDeadLetterQueue %s", m.get("fullName"), m.get("includeSessionId"), m.get("useDeadLetterQueue"))
		}
		if u := m.get("endpointUrl"); !strings.HasPrefix(u, "https://sms.example.com/salesforce/outbound-messages/") {
			t.Errorf("%s: goes to %s", m.get("fullName"), u)
		}
		var fields []string
		for _, f := range m.all("fields") {
			fields = append(fields, f.text)
			if !slices.Contains(standardFields["Contact"], f.text) && org.fields("Contact")[f.text] == nil {
				t.Errorf("%s: carries %s, which Contact does not have", m.get("fullName"), f.text)
			}
		}
		// config/example.yaml: to and body of outbound_messages.
		for _, needed := range []string{"MobilePhone", "SMS_Body__c"} {
			if !slices.Contains(fields, needed) {
				t.Errorf("%s does not carry %s", m.get("fullName"), needed)
			}
		}
	}
	if len(w.metadata.all("rules")) > 0 {
		t.Error("the workflow has rules; new ones cannot be made any more, a flow sends the message")
	}
}

func testReplacements(t *testing.T) {
	var project struct {
		Replacements []struct{ Filename, StringToReplace, ReplaceWithEnv string }
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(salesforcePackage, filepath.FromSlash(name)))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	if err := json.Unmarshal([]byte(read("sfdx-project.json")), &project); err != nil {
		t.Fatal(err)
	}
	readme := read("README.md")
	replaced := map[string]string{}
	for _, r := range project.Replacements {
		if replaced[r.Filename] == "" {
			replaced[r.Filename] = read(r.Filename)
		}
		if !strings.Contains(replaced[r.Filename], r.StringToReplace) {
			t.Errorf("%s does not hold %q, which is to be replaced", r.Filename, r.StringToReplace)
		}
		replaced[r.Filename] = strings.ReplaceAll(replaced[r.Filename], r.StringToReplace, "")
		if !strings.Contains(readme, r.ReplaceWithEnv+"=") {
			t.Errorf("README.md does not say to set %s", r.ReplaceWithEnv)
		}
	}
	if len(project.Replacements) != 3 {
		t.Errorf("%d replacements, want 3", len(project.Replacements))
	}
	for name, rest := range replaced {
		if strings.Contains(rest, "example.com") {
			t.Errorf("%s: a placeholder would be deployed", name)
		}
	}
}

func testNoSecrets(t *testing.T, files []string) {
	secrets := regexp.MustCompile(`(?i)(?:[0-9a-f]{24,}|00D[0-9a-z]{12,15}!\S+|3MVG9\w{20,}|AC[0-9a-f]{32}|Bearer [0-9a-z._-]{16,}|BEGIN [A-Z ]*PRIVATE KEY|(?:password|secret|token|apikey) *[:=>] *['"]?[0-9a-z_/+-]{12,})`)
	msg := regexp.MustCompile(`msg_[0-9a-f]{32}|SM0{30}\d\d`) // names of messages, in the API's examples
	for _, sample := range []string{"api_token: abcdefghijklmnop", "Bearer 0123456789abcdef0123", strings.Repeat("0f", 16), "<password>correcthorsebattery</password>"} {
		if !secrets.MatchString(sample) {
			t.Fatalf("%q does not look like a secret: the pattern is wrong", sample)
		}
	}
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(salesforcePackage, filepath.FromSlash(name)))
		if err != nil {
			t.Error(err)
			continue
		}
		if found := secrets.Find(msg.ReplaceAll(b, nil)); found != nil {
			t.Errorf("%s: %.6q… looks like a secret", name, found)
		}
	}
}
