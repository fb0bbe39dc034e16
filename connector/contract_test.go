package connector_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/openapi"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// undocumented are the routes that the document leaves out on purpose.
var undocumented = map[string]string{
	"/webhooks/{account}":        "each provider's own protocol, described by the provider",
	"/webhooks/{account}/status": "likewise",
	"/openapi.yaml":              "the document itself",
}

// contract is the document, read so strictly that a field which it does not mention is an error.
func contract(t *testing.T) (*openapi3.T, routers.Router) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openapi.Document())
	if err != nil {
		t.Fatal(err)
	}
	none := false
	for _, s := range doc.Components.Schemas {
		s.Value.AdditionalProperties = openapi3.AdditionalProperties{Has: &none}
	}
	doc.Servers = nil // any host
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return doc, router
}

// exchange is one request and the answer that the document promises for it.
type exchange struct {
	name   string
	op     string // operationId
	method string
	path   string
	key    string
	body   string
	header []string    // name, value, …
	given  func(*rig)  // what happened before
	refuse bool        // the document, too, says that the request is wrong
	cut    bool        // the body ends before its announced length
	status int         // promised
	media  string      // of the answer; application/json or problem+json if empty
	check  func(*body) // what a schema cannot say
}

// body is an answer's JSON, or its text.
type body struct {
	t      *testing.T
	header http.Header
	text   string
	json   map[string]any
}

func (b *body) want(field string, value any) {
	b.t.Helper()
	if b.json[field] != value {
		b.t.Errorf("%s is %v, want %v", field, b.json[field], value)
	}
}

const (
	sendKey, readKey, adminKey = "k-only-send", "k-only-read", "k-only-admin"
	hello                      = `{"to":"(206) 555-0142","body":"hello"}`
)

// public is newRig with the whole public side and one key for each right.
func public(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.server.Consents, r.server.Holds = r.consents, r.holds
	r.consents.Now = func() time.Time { return time.Now().Add(time.Second) } // a person takes longer than a millisecond
	var keys []connector.Key
	for key, right := range map[string]connector.Right{sendKey: connector.MaySend, readKey: connector.MayRead, adminKey: connector.MayAdmin} {
		keys = append(keys, connector.Key{Name: key, SHA256: sha256.Sum256([]byte(key)), May: []connector.Right{right}})
	}
	keys = append(keys, connector.Key{Name: "both", SHA256: sha256.Sum256([]byte("k-only-admin-and-read")), May: []connector.Right{connector.MayRead, connector.MayAdmin}})
	r.server.Keys = connector.NewKeyRing(r.ledger, time.Now, keys...)
	return r
}

func exchanges() []exchange {
	const messages, decisions, ada, optouts, holds, hold = "/v1/messages", "/v1/decisions", "/v1/consents/+12065550142", "/v1/optouts", "/v1/holds", "/v1/holds/+12065550142"
	stop := func(r *rig) { r.text(phone.MustParse("+12065550142"), "STOP") }
	unclear := func(r *rig) { r.text(phone.MustParse("+12065550142"), "STOP 12345") }
	all := []exchange{
		{name: "a message with everything", op: "sendMessage", method: "POST", path: messages, key: sendKey, header: []string{"Idempotency-Key", "run 1"},
			body: `{"to":"(206) 555-0142","from":"+15550100000","body":"hello","media_urls":["https://example.com/a.png"],"account":"main",
			"campaign":"spring","kind":"marketing","record":{"object":"Contact","id":"003"}}`, status: 201,
			check: func(b *body) {
				b.want("status", "sent")
				if !strings.HasPrefix(b.header.Get("Location"), "/v1/messages/msg_") {
					b.t.Errorf("Location: %q", b.header.Get("Location"))
				}
			}},
		{name: "a message that is refused", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: hello, given: stop, status: 201,
			check: func(b *body) { b.want("status", "blocked"); b.want("provider_message_id", nil) }},
		{name: "a message that is kept back", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: hello, given: unclear, status: 201,
			check: func(b *body) { b.want("status", "held"); b.want("decision", "hold") }},
		{name: "a message that the provider refuses", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: hello, status: 201,
			given: func(r *rig) { r.provider.FailNext(&sms.Error{Class: sms.Rejected, Status: 400, Code: "21211"}) },
			check: func(b *body) { b.want("status", "failed"); b.want("code", "21211") }},
		{name: "a message that may have been sent", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: hello, status: 201,
			given: func(r *rig) { r.provider.LoseNextAnswers(1) }, check: func(b *body) { b.want("status", "unknown") }},
		{name: "no telephone number", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: `{"to":"call me","body":"hello"}`, status: 201,
			check: func(b *body) { b.want("reason", "invalid_number"); b.want("to", "call me") }},
		{name: "a repeated key", op: "sendMessage", method: "POST", path: messages, key: sendKey, header: []string{"Idempotency-Key", "k"}, body: hello, status: 201,
			given: func(r *rig) { r.request("POST", messages, sendKey, hello, "Idempotency-Key", "k") },
			check: func(b *body) {
				if b.header.Get("Idempotent-Replayed") != "true" {
					b.t.Error("not marked as a replay")
				}
			}},
		{name: "a key used for another message", op: "sendMessage", method: "POST", path: messages, key: sendKey, header: []string{"Idempotency-Key", "k"}, body: hello, status: 409,
			given: func(r *rig) {
				r.request("POST", messages, sendKey, `{"to":"2065550142","body":"other"}`, "Idempotency-Key", "k")
			},
			check: func(b *body) { b.want("type", "key-reused") }},
		{name: "too long a key", op: "sendMessage", method: "POST", path: messages, key: sendKey, header: []string{"Idempotency-Key", strings.Repeat("k", 256)}, body: hello, refuse: true, status: 422},
		{name: "no recipient", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: `{"body":"hello"}`, refuse: true, status: 422, check: func(b *body) { b.want("field", "to") }},
		{name: "an empty recipient", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: `{"to":"","body":"hello"}`, refuse: true, status: 422},
		{name: "no text", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: `{"to":"2065550142"}`, status: 422, check: func(b *body) { b.want("field", "body") }},
		{name: "a text of 1,600 characters", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: `{"to":"2065550142","body":"` + strings.Repeat("é", connector.MaxBody) + `"}`, status: 201},
		{name: "too long a text", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: `{"to":"2065550142","body":"` + strings.Repeat("é", connector.MaxBody+1) + `"}`, refuse: true, status: 422},
		{name: "a field of the wrong type", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: `{"to":2065550142,"body":"hello"}`, refuse: true, status: 422},
		{name: "a field that is not known", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: `{"to":"2065550142","body":"hello","media":[]}`, refuse: true, status: 422},
		{name: "an account that is not configured", op: "sendMessage", method: "POST", path: messages, key: sendKey, body: `{"to":"2065550142","body":"hello","account":"none"}`, status: 422},

		{name: "a message that was sent", op: "getMessage", method: "GET", path: messages + "/{sent}", key: readKey, status: 200, check: func(b *body) { b.want("delivery", "delivered") }},
		{name: "no such message", op: "getMessage", method: "GET", path: messages + "/msg_0", key: readKey, status: 404, check: func(b *body) { b.want("type", "not-found") }},
		{name: "an id that could not be one", op: "getMessage", method: "GET", path: messages + "/%00" + strings.Repeat("x", 1000), key: readKey, status: 404},

		{name: "numbers of every kind", op: "decideNumbers", method: "POST", path: decisions, key: readKey, body: `{"numbers":["(206) 555-0142","206.555.0143","call me",""]}`, given: stop, status: 200},
		{name: "a number that is held", op: "decideNumbers", method: "POST", path: decisions, key: readKey, body: `{"numbers":["(206) 555-0142"]}`, given: unclear, status: 200},
		{name: "no numbers", op: "decideNumbers", method: "POST", path: decisions, key: readKey, body: `{"numbers":[]}`, refuse: true, status: 422},
		{name: "a thousand numbers", op: "decideNumbers", method: "POST", path: decisions, key: readKey, body: `{"numbers":["1"` + strings.Repeat(`,"1"`, 999) + `]}`, status: 200},
		{name: "more than a thousand", op: "decideNumbers", method: "POST", path: decisions, key: readKey, body: `{"numbers":["1"` + strings.Repeat(`,"1"`, 1000) + `]}`, refuse: true, status: 422},

		{name: "a number with a past", op: "getConsent", method: "GET", path: ada, key: readKey, status: 200, given: func(r *rig) {
			r.request("POST", messages, sendKey, hello)
			r.request("PUT", ada, adminKey, `{"state":"pending","why":"signed up at example.com"}`)
			r.person("Contact", "+12065550142", false)
			r.text(phone.MustParse("+12065550142"), "HELP")
			stop(r)
			r.flush()
			r.text(phone.MustParse("+12065550142"), "START")
			r.flush()
			r.request("PUT", ada, adminKey, `{"state":"opted_out","why":"called"}`)
			unclear(r)
		}, check: func(b *body) {
			if h, _ := b.json["history"].([]any); len(h) < 10 {
				b.t.Errorf("%d events, the case is to show many kinds", len(h))
			}
		}},
		{name: "a number never heard of", op: "getConsent", method: "GET", path: "/v1/consents/206-555-0143", key: readKey, status: 200, check: func(b *body) { b.want("state", "unknown"); b.want("since", nil) }},
		{name: "a page of the history", op: "getConsent", method: "GET", path: ada + "?limit=1&after=1", key: readKey, status: 200,
			given: func(r *rig) { stop(r); stop(r); stop(r) }, check: func(b *body) {
				if h, _ := b.json["history"].([]any); len(h) != 1 || h[0].(map[string]any)["seq"] != 2.0 || h[0].(map[string]any)["text"] != nil {
					b.t.Errorf("%v", b.json)
				}
				b.want("next", 2.0)
			}},
		{name: "what was written, for an admin", op: "getConsent", method: "GET", path: ada, key: "k-only-admin-and-read", status: 200,
			given: func(r *rig) { stop(r) }, check: func(b *body) {
				if h, _ := b.json["history"].([]any); len(h) != 1 || h[0].(map[string]any)["text"] != "STOP" {
					b.t.Errorf("%v", b.json)
				}
			}},
		{name: "a page behind nothing", op: "getConsent", method: "GET", path: ada + "?after=x", key: readKey, refuse: true, status: 422, check: func(b *body) { b.want("field", "after") }},
		{name: "no number", op: "getConsent", method: "GET", path: "/v1/consents/me", key: readKey, status: 422},

		{name: "an opt-out by hand", op: "setConsent", method: "PUT", path: ada, key: adminKey, body: `{"state":"opted_out","why":"called"}`, status: 200, check: func(b *body) { b.want("source", "api") }},
		{name: "consent given elsewhere", op: "setConsent", method: "PUT", path: ada, key: adminKey, body: `{"state":"opted_in","why":"a form"}`, status: 200, check: func(b *body) { b.want("state", "opted_in") }},
		{name: "a double opt-in", op: "setConsent", method: "PUT", path: ada, key: adminKey, body: `{"state":"pending","why":"a form","account":"main","lang":"es"}`, status: 200, check: func(b *body) { b.want("state", "pending") }},
		{name: "a double opt-in out of the blue", op: "setConsent", method: "PUT", path: ada, key: adminKey, body: `{"state":"pending"}`, status: 422, check: func(b *body) { b.want("field", "why") }},
		{name: "lifting the recipient's STOP", op: "setConsent", method: "PUT", path: ada, key: adminKey, body: `{"state":"opted_in"}`, given: stop, status: 409, check: func(b *body) { b.want("type", "sticky") }},
		{name: "consent while a reply is held", op: "setConsent", method: "PUT", path: ada, key: adminKey, body: `{"state":"opted_in"}`, given: unclear, status: 409, check: func(b *body) { b.want("type", "held") }},
		{name: "a state that nobody can set", op: "setConsent", method: "PUT", path: ada, key: adminKey, body: `{"state":"held"}`, refuse: true, status: 422},

		{name: "nobody opted out", op: "listOptOuts", method: "GET", path: optouts, key: readKey, status: 200, check: func(b *body) { b.want("next", nil) }},
		{name: "a page", op: "listOptOuts", method: "GET", path: optouts + "?limit=1&after=%2B12065550100", key: readKey, status: 200,
			given: func(r *rig) { stop(r); r.text(phone.MustParse("+12065550143"), "STOP 12345") }, check: func(b *body) { b.want("next", "+12065550142") }},
		{name: "a file", op: "listOptOuts", method: "GET", path: optouts, key: readKey, header: []string{"Accept", "text/csv"}, given: stop, status: 200, media: "text/csv",
			check: func(b *body) {
				if !strings.HasPrefix(b.text, "number,state,source,keyword,since,campaign\n+12065550142,opted_out,recipient,stop,20") {
					b.t.Errorf("%q", b.text)
				}
			}},
		{name: "a page of nothing", op: "listOptOuts", method: "GET", path: optouts + "?limit=0", key: readKey, refuse: true, status: 422, check: func(b *body) { b.want("field", "limit") }},
		{name: "a page behind no number", op: "listOptOuts", method: "GET", path: optouts + "?after=me", key: readKey, status: 422, check: func(b *body) { b.want("field", "after") }},

		{name: "nothing unclear", op: "listHolds", method: "GET", path: holds, key: adminKey, status: 200},
		{name: "something unclear", op: "listHolds", method: "GET", path: holds, key: adminKey, given: unclear, status: 200, check: func(b *body) {
			if h, _ := b.json["holds"].([]any); len(h) != 1 {
				b.t.Errorf("%v", b.json)
			}
		}},

		{name: "it was a request to stop", op: "resolveHold", method: "POST", path: hold, key: adminKey, body: `{"as":"opt_out","why":"it is"}`, given: unclear, status: 200, check: func(b *body) { b.want("state", "opted_out") }},
		{name: "it was not", op: "resolveHold", method: "POST", path: hold, key: adminKey, body: `{"as":"release"}`, given: unclear, status: 200, check: func(b *body) { b.want("decision", "allow") }},
		{name: "nobody asked", op: "resolveHold", method: "POST", path: hold, key: adminKey, body: `{"as":"release"}`, status: 409, check: func(b *body) { b.want("type", "not-held") }},
		{name: "no decision", op: "resolveHold", method: "POST", path: hold, key: adminKey, body: `{"as":"maybe"}`, given: unclear, refuse: true, status: 422, check: func(b *body) { b.want("field", "as") }},

		{name: "alive", op: "getHealth", method: "GET", path: "/healthz", status: 200},
		{name: "ready", op: "getReadiness", method: "GET", path: "/readyz", status: 200},
		{name: "not ready: the ledger is gone", op: "getReadiness", method: "GET", path: "/readyz", status: 503, media: "application/json", given: func(r *rig) { _ = r.ledger.Close() }},
		{name: "not ready for another reason", op: "getReadiness", method: "GET", path: "/readyz", status: 503, media: "application/json",
			given: func(r *rig) { r.server.Ready = func() error { return errors.New("still reading the ledger") } }},
		{name: "broken", op: "getReadiness", method: "GET", path: "/readyz", status: 500, given: broken},
	}
	// What every operation with a key answers alike.
	for _, o := range []struct{ op, method, path, key, other, body string }{
		{"sendMessage", "POST", messages, sendKey, readKey, hello},
		{"getMessage", "GET", messages + "/msg_0", readKey, sendKey, ""},
		{"decideNumbers", "POST", decisions, readKey, sendKey, `{"numbers":["2065550142"]}`},
		{"getConsent", "GET", ada, readKey, sendKey, ""},
		{"setConsent", "PUT", ada, adminKey, readKey, `{"state":"opted_out"}`},
		{"listOptOuts", "GET", optouts, readKey, sendKey, ""},
		{"listHolds", "GET", holds, adminKey, readKey, ""},
		{"resolveHold", "POST", hold, adminKey, readKey, `{"as":"opt_out"}`},
	} {
		e := exchange{op: o.op, method: o.method, path: o.path, key: o.key, body: o.body}
		with := func(name string, status int, change func(*exchange)) {
			e := e
			e.name, e.status = o.op+" "+name, status
			change(&e)
			all = append(all, e)
		}
		with("without a key", 401, func(e *exchange) { e.key, e.refuse = "", true })
		with("with an unknown key", 401, func(e *exchange) { e.key = "k-unknown" })
		with("without the right", 403, func(e *exchange) { e.key = o.other })
		with("too often", 429, func(e *exchange) {
			e.given = func(r *rig) {
				r.server.Now = func() time.Time { return time.Unix(1, 0) }
				r.server.Limits = connector.NewLimits(1, 0, r.server.Keys.Names(), nil)
				for range 2 {
					r.request(o.method, o.path, o.key, o.body)
				}
			}
		})
		with("when heed is broken", 500, func(e *exchange) { e.given = broken })
		with("when the ledger is gone", 503, func(e *exchange) {
			e.given = func(r *rig) { _ = r.ledger.Close() }
			if o.op == "resolveHold" { // decides on what it can read
				e.given = func(r *rig) {
					unclear(r)
					r.consents.Ledger = full{r.ledger}
				}
			}
		})
		if o.body == "" {
			continue
		}
		with("cut short", 400, func(e *exchange) { e.cut = true })
		with("as a form", 415, func(e *exchange) {
			e.header, e.refuse = []string{"Content-Type", "application/x-www-form-urlencoded"}, true
		})
		with("too large", 413, func(e *exchange) { e.body = o.body + strings.Repeat(" ", 1<<20) })
		with("with no JSON", 422, func(e *exchange) { e.body, e.refuse = "hello", true })
		with("with nothing", 422, func(e *exchange) { e.body, e.refuse = "", true })
	}
	return all
}

// full is a ledger whose disk is.
type full struct{ ledger.Ledger }

func (full) Append(context.Context, ...ledger.Event) ([]ledger.Receipt, error) {
	return nil, fmt.Errorf("%w: no space left on device", ledger.ErrUnavailable)
}

// broken makes every handler panic.
func broken(r *rig) {
	r.server.Ledger, r.server.Gate, r.server.Consents, r.server.Holds = nil, nil, nil, nil
}

func TestTheServerKeepsTheContract(t *testing.T) {
	doc, router := contract(t)
	problemWords := doc.Components.Schemas["Problem"].Value.Properties["type"].Value.Description
	seen := map[string]bool{}
	all, ran := exchanges(), 0
	untouched := public(t) // for requests that are refused, which leave nothing behind
	for _, e := range all {
		t.Run(e.name, func(t *testing.T) {
			ran++
			r := untouched
			if e.given != nil || e.status < 400 {
				r = public(t)
			}
			path := e.path
			if strings.Contains(path, "{sent}") {
				m := r.send("+12065550142")
				if _, err := r.inbox.Receive(t.Context(), "main", r.provider.Report(m.ProviderID, sms.DeliveryDelivered, "", false), m.ID); err != nil {
					t.Fatal(err)
				}
				path = strings.ReplaceAll(path, "{sent}", m.ID)
			}
			if e.given != nil {
				e.given(r)
			}
			request := func() *http.Request {
				var in io.Reader
				if e.body != "" {
					in = strings.NewReader(e.body)
				}
				if e.cut {
					in = io.MultiReader(strings.NewReader(e.body[:4]), iotest.ErrReader(io.ErrUnexpectedEOF))
				}
				req := httptest.NewRequest(e.method, path, in)
				if e.method != "GET" {
					req.Header.Set("Content-Type", "application/json")
				}
				if e.key != "" {
					req.Header.Set("Authorization", "Bearer "+e.key)
				}
				for i := 0; i+1 < len(e.header); i += 2 {
					req.Header.Set(e.header[i], e.header[i+1])
				}
				return req
			}
			w := httptest.NewRecorder()
			r.server.PublicHandler().ServeHTTP(w, request())

			req := request()
			route, params, err := router.FindRoute(req)
			if err != nil {
				t.Fatal(err)
			}
			if route.Operation.OperationID != e.op {
				t.Fatalf("this is %s", route.Operation.OperationID)
			}
			asked := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route, Options: &openapi3filter.Options{
				AuthenticationFunc: hasKey, IncludeResponseStatus: true, RejectWhenRequestBodyNotSpecified: true, SkipSettingDefaults: true, MultiError: true,
			}}
			if !e.cut {
				if err := openapi3filter.ValidateRequest(t.Context(), asked); (err != nil) != e.refuse {
					t.Errorf("the document's word on the request: %v; that it is wrong: %v", err, e.refuse)
				}
			}
			if w.Code != e.status {
				t.Fatalf("HTTP %d, want %d: %s", w.Code, e.status, w.Body)
			}
			answer := &openapi3filter.ResponseValidationInput{RequestValidationInput: asked, Status: w.Code, Header: w.Header(), Options: asked.Options}
			answer.SetBodyBytes(w.Body.Bytes())
			if err := openapi3filter.ValidateResponse(t.Context(), answer); err != nil {
				t.Errorf("the answer is not as documented: %v\n%s", err, w.Body)
			}
			media, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
			want := e.media
			if want == "" && e.status < 400 {
				want = "application/json"
			} else if want == "" {
				want = "application/problem+json"
			}
			if media != want {
				t.Errorf("the answer is %s, want %s", media, want)
			}
			seen[e.op+" "+strconv.Itoa(w.Code)+" "+media] = true

			b := &body{t: t, header: w.Header(), text: w.Body.String()}
			if media != "text/csv" {
				if err := json.Unmarshal(w.Body.Bytes(), &b.json); err != nil {
					t.Fatal(err)
				}
			}
			if media == "application/problem+json" {
				b.want("status", float64(w.Code))
				if !strings.Contains(problemWords, "`"+b.json["type"].(string)+"`") {
					t.Errorf("the document does not know problems of type %v", b.json["type"])
				}
				if strings.Contains(b.text, "5550142") || strings.Contains(b.text, "hello") {
					t.Errorf("the problem repeats what was sent: %s", b.text)
				}
				for status, name := range map[int]string{401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"} {
					if w.Code == status && w.Header().Get(name) == "" {
						t.Errorf("no %s", name)
					}
				}
			}
			if e.check != nil {
				e.check(b)
			}
		})
	}
	if s, err := untouched.ledger.Stats(t.Context()); err != nil || s.Head != 0 || untouched.provider.Attempts() != 0 {
		t.Errorf("refused requests left %d events and %d texts, %v", s.Head, untouched.provider.Attempts(), err)
	}
	if ran < len(all) {
		return // only some were asked for
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			for status, answer := range op.Responses.Map() {
				for media := range answer.Value.Content {
					if !seen[op.OperationID+" "+status+" "+media] {
						t.Errorf("never seen: %s %s (%s) answers %s with %s", method, path, op.OperationID, status, media)
					}
				}
			}
		}
	}
}

func hasKey(_ context.Context, in *openapi3filter.AuthenticationInput) error {
	if in.SecurityScheme.Scheme == "bearer" && strings.HasPrefix(in.RequestValidationInput.Request.Header.Get("Authorization"), "Bearer ") {
		return nil
	}
	return in.NewError(nil)
}

func TestEveryPublicRouteIsDocumentedAndEveryDocumentedRouteIsThere(t *testing.T) {
	doc, _ := contract(t)
	routes := publicRoutes(t)
	if len(routes) < 10 {
		t.Fatalf("found only %v: the test looks in the wrong place", routes)
	}
	for _, route := range routes {
		method, path, ok := strings.Cut(route, " ")
		if !ok {
			t.Errorf("%q takes every method; name one", route)
			continue
		}
		if undocumented[path] != "" {
			continue
		}
		if item := doc.Paths.Value(path); item == nil || item.GetOperation(method) == nil {
			t.Errorf("%s is not documented", route)
		}
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if !slices.Contains(routes, method+" "+path) {
				t.Errorf("%s %s is documented and not served", method, path)
			}
		}
	}
}

// publicRoutes reads the patterns off the source of PublicHandler, because a ServeMux does not list them.
func publicRoutes(t *testing.T) (routes []string) {
	t.Helper()
	for _, file := range sources(t, ".") {
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "PublicHandler" {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || sel.Sel.Name != "Handle" && sel.Sel.Name != "HandleFunc" {
					return true
				}
				lit, ok := call.Args[0].(*ast.BasicLit)
				if !ok {
					t.Errorf("a pattern is not a literal, so this test cannot read it")
					return true
				}
				route, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				routes = append(routes, route)
				return true
			})
		}
	}
	return routes
}

// sources parses the Go files of a package, tests apart.
func sources(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatal(err, names)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// words returns the string constants of a type.
func words(t *testing.T, dir, typ string) (out []string) {
	t.Helper()
	for _, file := range sources(t, dir) {
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				if id, ok := v.Type.(*ast.Ident); !ok || id.Name != typ {
					continue
				}
				for _, x := range v.Values {
					if lit, ok := x.(*ast.BasicLit); ok && lit.Kind == token.STRING {
						w, err := strconv.Unquote(lit.Value)
						if err != nil {
							t.Fatal(err)
						}
						out = append(out, w)
					}
				}
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("no constants of type %s in %s", typ, dir)
	}
	return out
}

func TestTheDocumentsWordsAreTheProgramsWords(t *testing.T) {
	doc, _ := contract(t)
	var states []string
	for s := consent.Unknown; s.String() != "invalid"; s++ {
		states = append(states, s.String())
	}
	reasons, verdicts := words(t, "consent", "Reason"), words(t, "consent", "Verdict")
	origins := words(t, "consent", "Source")
	for field, want := range map[string][]string{
		"Message.status": words(t, "ledger", "Status"), "Message.decision": verdicts, "Message.reason": reasons,
		"Decision.decision": verdicts, "Decision.reason": reasons,
		"Consent.state": states, "Consent.decision": verdicts, "Consent.reason": reasons, "Consent.source": origins,
		"ConsentEvent.kind": words(t, "ledger", "Kind"), "ConsentEvent.action": words(t, "consent", "Action"), "ConsentEvent.source": origins,
		"OptOut.source": origins,
	} {
		schema, name, _ := strings.Cut(field, ".")
		documented := map[string]bool{}
		for _, v := range doc.Components.Schemas[schema].Value.Properties[name].Value.Enum {
			documented[v.(string)] = true
		}
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(documented)); !slices.Equal(got, want) {
			t.Errorf("%s: the document has %v, the program %v", field, got, want)
		}
	}
	if n := doc.Components.Schemas["MessageRequest"].Value.Properties["body"].Value.MaxLength; n == nil || *n != connector.MaxBody {
		t.Errorf("the longest text is not %d characters", connector.MaxBody)
	}
	if bytes.Contains(openapi.Document(), []byte("\t")) {
		t.Error("YAML does not take tabs")
	}
}
