package openapi

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheDocumentIsValidAndSalesforceCanImportIt(t *testing.T) {
	for _, complaint := range lint(t, document) {
		t.Error(complaint)
	}
}

// Each rule is broken once, to see that it is one.
func TestEachRuleIsEnforced(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"a newer OpenAPI", "openapi: 3.0.3", "openapi: 3.1.0", "openapi is 3.1.0"},
		{"not OpenAPI at all", "operationId: sendMessage", "operation: sendMessage", "not valid OpenAPI"},
		{"an example that its schema refuses", "reason: invalid_number\n        '400'", "reason: because\n        '400'", "not valid OpenAPI"},
		{"a keyword of 3.1", "maxLength: 255\n", "maxLength: 255\n            const: a\n", "const"},
		{"a composition", "      type: object\n      description: Names a record in the CRM.", "      allOf: [{type: object}]\n      description: Names a record in the CRM.", "allOf"},
		{"an operation without a name", "      operationId: sendMessage\n", "", `operationId ""`},
		{"an underscore in an operation's name", "operationId: sendMessage", "operationId: send_message", `operationId "send_message"`},
		{"an operation named with an Apex word", "operationId: sendMessage", "operationId: Insert", `operationId "Insert"`},
		{"two operations of one name", "operationId: getMessage", "operationId: sendmessage", "twice"},
		{"a property without a type", "          type: string\n          description: The provider's error code.", "          description: The provider's error code.", "Message.code has no type"},
		{"a fraction, which a Flow's number is not", "          type: integer\n          format: int64", "          type: number\n          format: double", "Consent.next"},
		{"an anonymous object", "          type: string\n          description: The provider's error code.", "          type: object\n          description: The provider's error code.", "Message.code is an object without a name"},
		{"a list of lists", "          items:\n            type: string\n        account", "          items:\n            type: array\n            items:\n              type: string\n        account", "MessageRequest.media_urls is a list of lists"},
		{"a deep tree", "          items:\n            $ref: '#/components/schemas/Decision'", "          items:\n            $ref: '#/components/schemas/Deep'\n    Deep:\n      type: object\n      description: x\n      properties:\n        a:\n          $ref: '#/components/schemas/Message'\n", "levels"},
		{"another letter case", "        media_urls:\n", "        mediaURLs:\n", "MessageRequest.mediaURLs"},
		{"an undescribed property", "\n          description: The provider's error code.", "", "Message.code has no description"},
		{"a description that would be cut", "description: The provider's error code.", "description: " + strings.Repeat("x", 1334), "1334 characters"},
		{"a response header", "          description: The message.\n", "          description: The message.\n          headers:\n            Location:\n              schema:\n                type: string\n", "response headers"},
		{"an unknown media type", "            application/json:\n              schema:\n                $ref: '#/components/schemas/OptOuts'", "            application/xml:\n              schema:\n                $ref: '#/components/schemas/OptOuts'", "application/xml"},
		{"a GET with a body", "      operationId: listHolds\n", "      operationId: listHolds\n      requestBody:\n        content:\n          application/json:\n            schema:\n              $ref: '#/components/schemas/HoldDecision'\n", "GET /v1/holds has a body"},
		{"an operation that anybody may call", "      operationId: listHolds\n", "      operationId: listHolds\n      security: []\n", "GET /v1/holds"},
		{"somebody's number", "+12065550142", "+12065551142", "+12065551142 is not reserved"},
		{"an answer without an example", "              example:\n                status: ok\n", "", "example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(string(document), c.old) {
				t.Fatalf("the document no longer contains %q", c.old)
			}
			changed := bytes.Replace(document, []byte(c.old), []byte(c.new), 1)
			if got := strings.Join(lint(t, changed), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("want a complaint with %q, got:\n%s", c.want, got)
			}
		})
	}
}

// mapped are the media types that an administrator maps while registering, and what they are mapped to.
// The comment at the top of the document says so.
var mapped = map[string]string{"application/problem+json": "application/json", "text/csv": "text/plain"}

var (
	apexName   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,39}$`)
	schemaName = regexp.MustCompile(`^([A-Z]+[a-z0-9]*)+$`)
	fieldName  = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	headerName = regexp.MustCompile(`^[A-Z][a-z]*(-[A-Z][a-z]*)*$`)
	anyNumber  = regexp.MustCompile(`\+\d{7,15}|\(\d{3}\) ?\d{3}-\d{4}|\b\d{3}[.-]\d{3}[.-]\d{4}\b`)
	reserved   = regexp.MustCompile(`^1?\d{3}55501\d\d$`) // NANP: 555-0100 to 555-0199, in any area code
	notDigit   = regexp.MustCompile(`\D`)
)

// notIn30 are schema keywords that OpenAPI 3.1 took from JSON Schema, and notFlat those that compose: a Flow has no
// value of such a type.
var (
	notIn30 = []string{"const", "$defs", "$id", "$anchor", "$comment", "prefixItems", "if", "then", "else", "patternProperties", "propertyNames",
		"unevaluatedProperties", "unevaluatedItems", "contentEncoding", "contentMediaType", "contains", "dependentSchemas", "dependentRequired",
		"examples", "webhooks", "jsonSchemaDialect", "pathItems"}
	notFlat = []string{"oneOf", "anyOf", "allOf", "not", "discriminator", "additionalProperties", "callbacks", "links"}
)

// apexWords are the words of Apex (Apex Developer Guide, "Reserved Keywords") that look like the name of an operation.
var apexWords = strings.Fields(`abstract activate and any array as asc begin blob boolean break bulk by byte case cast catch char class collect
	commit const continue currency date datetime decimal default delete desc do double else end enum exception exit export extends false final
	finally float for from global goto group having hint if implements import in inner insert instanceof int integer interface into join like
	limit list long loop map merge new not null nulls number object of on or outer override package parallel pragma private protected public
	retrieve return rollback select set short sobject sort static string super switch synchronized system testmethod then this throw time
	transaction trigger true try undelete update upsert using virtual void webservice when where while`)

// lint returns what is wrong with a document: what OpenAPI does not allow, and what Salesforce External Services do not.
func lint(t *testing.T, data []byte) (complaints []string) {
	t.Helper()
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	var raw map[string]any
	if err := yaml.Unmarshal(data, &raw); err != nil {
		t.Fatal(err)
	}
	if raw["openapi"] != "3.0.3" {
		complain("openapi is %v, want 3.0.3: External Services read 2.0 and 3.0", raw["openapi"])
	}
	walk("", raw, false, func(at, key string, value any) {
		if slices.Contains(notIn30, key) {
			complain("%s: %s is not a keyword of OpenAPI 3.0", at, key)
		}
		if slices.Contains(notFlat, key) {
			complain("%s: %s makes no flat object", at, key)
		}
		if s, ok := value.(string); ok && key == "description" && utf8.RuneCountInString(s) > 1333 {
			complain("%s: a description of %d characters is cut at 1333", at, utf8.RuneCountInString(s))
		}
	})
	for _, n := range anyNumber.FindAllString(string(data), -1) {
		if !reserved.MatchString(notDigit.ReplaceAllString(n, "")) {
			complain("%s is not reserved for fiction", n)
		}
	}
	for from, to := range mapped {
		if !strings.Contains(strings.Join(strings.Fields(strings.ReplaceAll(string(data), "#", "")), " "), from+" is "+to) {
			complain("the document does not say that %s is to be mapped to %s", from, to)
		}
	}
	doc, err := openapi3.NewLoader().LoadFromData(data)
	if err == nil {
		err = doc.Validate(t.Context(), openapi3.EnableSchemaFormatValidation())
	}
	if err != nil {
		complain("not valid OpenAPI: %v", err)
		return complaints
	}
	return append(complaints, slices.Concat(lintFrame(doc), lintOperations(doc), lintSchemas(doc))...)
}

// walk visits every keyword of a document. Below properties, and the like, keys are names and no keywords; examples
// are nobody's business.
func walk(at string, node any, names bool, visit func(at, key string, value any)) {
	switch n := node.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(n)) {
			if !names {
				visit(at, k, n[k])
			}
			if names || k != "example" && k != "enum" && k != "default" {
				below := !names && slices.Contains([]string{"properties", "schemas", "responses", "parameters", "paths", "variables", "securitySchemes"}, k)
				walk(at+"/"+k, n[k], below, visit)
			}
		}
	case []any:
		for i := range n {
			walk(fmt.Sprintf("%s/%d", at, i), n[i], false, visit)
		}
	}
}

func lintFrame(doc *openapi3.T) (complaints []string) {
	if len(doc.Servers) != 1 || len(doc.Servers[0].Variables) == 0 || !strings.HasPrefix(doc.Servers[0].URL, "https://{") {
		complaints = append(complaints, "servers: want one https address with a variable for the host")
	}
	bearer := 0
	for _, s := range doc.Components.SecuritySchemes {
		if s.Value.Type == "http" && s.Value.Scheme == "bearer" {
			bearer++
		}
	}
	if bearer != 1 || len(doc.Components.SecuritySchemes) != 1 || len(doc.Security) != 1 {
		complaints = append(complaints, "want one security scheme, bearer, for everything")
	}
	return complaints
}

func lintOperations(doc *openapi3.T) (complaints []string) {
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	seen := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			at := method + " " + path
			id := strings.ToLower(op.OperationID)
			if !apexName.MatchString(op.OperationID) || slices.Contains(apexWords, id) {
				complain("%s: operationId %q is no Apex identifier", at, op.OperationID)
			}
			if seen[id] { // Apex does not tell letter cases apart
				complain("%s: operationId %q is there twice", at, op.OperationID)
			}
			seen[id] = true
			if op.Summary == "" || op.Description == "" {
				complain("%s: no summary or no description", at)
			}
			if open := op.Security != nil && len(*op.Security) == 0; open == strings.HasPrefix(path, "/v1/") {
				complain("%s: an address below /v1/ needs a key, and no other", at)
			}
			for _, p := range op.Parameters {
				complaints = append(complaints, lintParameter(at, p.Value)...)
			}
			switch body := op.RequestBody; {
			case method == http.MethodGet && body != nil:
				complain("%s has a body", at)
			case method != http.MethodGet && (body == nil || !body.Value.Required || len(body.Value.Content) != 1 || body.Value.Content["application/json"] == nil):
				complain("%s: want a required JSON body and no other", at)
			case body != nil:
				complaints = append(complaints, lintContent(at+" request", body.Value.Content)...)
			}
			fine, wrong := 0, 0
			for status, r := range op.Responses.Map() {
				at := at + " " + status
				switch {
				case status == "200" || status == "201":
					fine++
				case regexp.MustCompile(`^[45]\d\d$`).MatchString(status):
					wrong++
				default:
					complain("%s: a Flow wants statuses one by one", at)
				}
				if len(r.Value.Headers) > 0 {
					complain("%s: response headers are not supported", at)
				}
				if len(r.Value.Content) == 0 {
					complain("%s: no content", at)
				}
				complaints = append(complaints, lintContent(at, r.Value.Content)...)
			}
			if fine != 1 || wrong == 0 && path != "/healthz" { // which cannot fail and answer
				complain("%s: want one good answer and what goes wrong, have %d and %d", at, fine, wrong)
			}
		}
	}
	return complaints
}

func lintParameter(at string, p *openapi3.Parameter) (complaints []string) {
	at += " " + p.Name
	names := map[string]*regexp.Regexp{"path": fieldName, "query": fieldName, "header": headerName}[p.In]
	if names == nil || !names.MatchString(p.Name) {
		complaints = append(complaints, at+": a parameter is in path or query and in_small_letters, or in header and Like-This")
	}
	if p.Description == "" || p.Example == nil || p.Schema == nil || p.Style != "" || p.Explode != nil {
		complaints = append(complaints, at+": want a description, an example, a schema and no style")
	}
	if p.Schema != nil && !primitive(p.Schema.Value) {
		complaints = append(complaints, at+": is no plain value")
	}
	return complaints
}

func lintContent(at string, content openapi3.Content) (complaints []string) {
	for name, media := range content {
		if name != "application/json" && mapped[name] == "" {
			complaints = append(complaints, at+": External Services do not read "+name)
		}
		if media.Example == nil {
			complaints = append(complaints, at+": no example")
		}
		switch {
		case media.Schema == nil:
			complaints = append(complaints, at+": no schema")
		case name == "text/csv":
		case !strings.HasPrefix(media.Schema.Ref, "#/components/schemas/") || !media.Schema.Value.Type.Is("object"):
			complaints = append(complaints, at+": want an object with a name")
		}
	}
	return complaints
}

// primitive reports whether a Flow has a type for these values: text, number, boolean, date and time.
func primitive(s *openapi3.Schema) bool {
	switch {
	case s.Type.Is("string"):
		return s.Format == "" || s.Format == "date-time"
	case s.Type.Is("integer"):
		return s.Format == "int32" || s.Format == "int64"
	}
	return s.Type.Is("boolean")
}

func lintSchemas(doc *openapi3.T) (complaints []string) {
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	seen := map[string]bool{}
	for name, ref := range doc.Components.Schemas {
		if low := strings.ToLower(name); !schemaName.MatchString(name) || seen[low] {
			complain("schema %s: want UnderscorelessWords, and only once", name)
		} else {
			seen[low] = true
		}
		if !ref.Value.Type.Is("object") || len(ref.Value.Properties) == 0 || ref.Value.Description == "" {
			complain("schema %s: want an object with properties and a description", name)
		}
		if n := levels(ref.Value, nil); n > 2 {
			complain("schema %s: %d levels of objects; a Flow that reaches below the second needs assignments for each", name, n)
		}
		for field, p := range ref.Value.Properties {
			at := name + "." + field
			if !fieldName.MatchString(field) {
				complain("%s: want in_small_letters", at)
			}
			if p.Value.Description == "" {
				complain("%s has no description", at)
			}
			item := p
			if p.Value.Type.Is("array") {
				item = p.Value.Items
			}
			switch {
			case item == nil || item.Value.Type == nil:
				complain("%s has no type", at)
			case item.Value.Type.Is("array"):
				complain("%s is a list of lists", at)
			case item.Value.Type.Is("object"):
				if !strings.HasPrefix(item.Ref, "#/components/schemas/") {
					complain("%s is an object without a name", at)
				}
			case !primitive(item.Value):
				complain("%s: a Flow has no %v of format %q", at, *item.Value.Type, item.Value.Format)
			}
		}
	}
	return complaints
}

// levels counts objects within objects; a type within itself is endless.
func levels(s *openapi3.Schema, above []*openapi3.Schema) int {
	if slices.Contains(above, s) {
		return 1000
	}
	deepest := 0
	for _, p := range s.Properties {
		v := p.Value
		if v.Type.Is("array") && v.Items != nil {
			v = v.Items.Value
		}
		if v.Type.Is("object") {
			deepest = max(deepest, levels(v, append(slices.Clone(above), s)))
		}
	}
	return deepest + 1
}

func TestTheHandlerServesTheDocument(t *testing.T) {
	ask := func(method string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/openapi.yaml", nil)
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, r)
		return w
	}
	w := ask("GET")
	tag := w.Header().Get("ETag")
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/yaml" || !bytes.Equal(w.Body.Bytes(), Document()) || tag == "" ||
		w.Header().Get("Cache-Control") != "public, max-age=3600" {
		t.Errorf("GET: HTTP %d %v, %d bytes", w.Code, w.Header(), w.Body.Len())
	}
	if w := ask("GET", "If-None-Match", tag); w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("the same document again: HTTP %d, %d bytes", w.Code, w.Body.Len())
	}
	if w := ask("GET", "If-None-Match", `"another"`); w.Code != 200 {
		t.Errorf("another document: HTTP %d", w.Code)
	}
	if w := ask("HEAD"); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("ETag") != tag {
		t.Errorf("HEAD: HTTP %d, %d bytes", w.Code, w.Body.Len())
	}
	if w := ask("POST"); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: HTTP %d %v", w.Code, w.Header())
	}
	copied := Document()
	copied[0] ^= 1
	if bytes.Equal(copied, Document()) {
		t.Error("a caller can change the document")
	}
}
