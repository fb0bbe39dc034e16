package salesforcefake

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxURI          = 16 << 10 // bytes of the URI, and of URI and headers together
	maxBody         = 6 << 20  // of all but an upload of bulk data
	firstVersion    = 20
	lastVersion     = 67
	contentTypeJSON = "application/json;charset=UTF-8"
	unavailablePage = "<html><head><title>Service Unavailable</title></head><body><h1>We are down for maintenance.</h1></body></html>"
	requestTooLarge = "<html><head><title>414 Request-URI Too Large</title></head><body><h1>414 Request-URI Too Large</h1></body></html>"
	headersTooLarge = "<html><head><title>431 Request Header Fields Too Large</title></head><body><h1>431</h1></body></html>"
	gzipWorthwhile  = 256
)

// response is an answer before it is written: faults may still spoil it.
type response struct {
	kind   string // for the counters
	status int
	ctype  string
	body   []byte
	header map[string]string

	// stream writes the body piece by piece, instead of body. It is called without the org's lock.
	stream func(io.Writer) error
}

func jsonResponse(kind string, status int, v any) *response {
	return &response{kind: kind, status: status, ctype: contentTypeJSON, body: marshal(v)}
}

type restErrorBody struct {
	Message string   `json:"message"`
	Code    string   `json:"errorCode"`
	Fields  []string `json:"fields,omitempty"`
}

func restError(kind string, e *apiError) *response {
	body := restErrorBody{e.message, e.code, e.fields}
	if e.fields == nil && rowCodes[e.code] {
		return jsonResponse(kind, e.status, []any{struct {
			Message string   `json:"message"`
			Code    string   `json:"errorCode"`
			Fields  []string `json:"fields"`
		}{e.message, e.code, []string{}}})
	}
	return jsonResponse(kind, e.status, []restErrorBody{body})
}

// rowCodes are refusals of a row by the database: their REST errors carry fields, even if empty.
var rowCodes = map[string]bool{"FIELD_CUSTOM_VALIDATION_EXCEPTION": true, "UNABLE_TO_LOCK_ROW": true,
	"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": true, "CANNOT_UPDATE_CONVERTED_LEAD": true, "DUPLICATE_VALUE": true,
	"ENTITY_IS_DELETED": true, "INVALID_CROSS_REFERENCE_KEY": true}

func methodNotAllowed(method, allowed string) *apiError {
	return &apiError{status: 405, code: "METHOD_NOT_ALLOWED",
		message: fmt.Sprintf("HTTP Method '%s' not allowed. Allowed are %s", method, allowed)}
}

func (o *Org) serve(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	if strings.HasPrefix(r.URL.Path, "/sandbox/") {
		o.sandbox(w, r)
		return
	}
	latency, _, down := o.knobs.front()
	if latency > 0 && !o.wait(r, time.Duration(latency)*time.Millisecond) {
		return
	}
	var res *response
	fault := ""
	switch {
	case len(r.RequestURI) > maxURI:
		res = &response{kind: "too_long", status: http.StatusRequestURITooLong, ctype: "text/html", body: []byte(requestTooLarge)}
	case len(r.RequestURI)+headerSize(r.Header) > maxURI:
		res = &response{kind: "too_long", status: http.StatusRequestHeaderFieldsTooLarge, ctype: "text/html", body: []byte(headersTooLarge)}
	case down:
		res = htmlUnavailable()
	default:
		res, fault = o.answer(r)
	}
	if res == nil { // the fault leaves the caller without an answer
		o.count("unanswered", 0, fault)
		if strings.HasSuffix(fault, "hang") {
			o.wait(r, math.MaxInt64)
		}
		panic(http.ErrAbortHandler)
	}
	o.count(res.kind, res.status, fault)
	o.opt.Logger.Debug("salesforce call", "method", r.Method, "path", r.URL.Path, "kind", res.kind, "status", res.status,
		"fault", fault, "took", time.Since(began))
	o.write(w, r, res, fault == "truncate")
}

// wait waits until the time is over (true), the caller is gone or the org is closed.
func (o *Org) wait(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
	case <-o.closed:
	}
	return false
}

func headerSize(h http.Header) int {
	n := 0
	for k, vs := range h {
		for _, v := range vs {
			n += len(k) + len(v) + 4
		}
	}
	return n
}

func (o *Org) count(kind string, status int, fault string) {
	o.counters.update(func(c *Counters) {
		c.Calls[kind]++
		if status != 0 {
			c.Status[strconv.Itoa(status)]++
		}
		if fault != "" {
			c.Faults[fault]++
		}
	})
}

func htmlUnavailable() *response {
	return &response{kind: "unavailable", status: 503, ctype: "text/html;charset=UTF-8", body: []byte(unavailablePage)}
}

func (o *Org) write(w http.ResponseWriter, r *http.Request, res *response, truncate bool) {
	h := w.Header()
	h.Set("Date", o.now().Format(http.TimeFormat))
	if res.ctype != "" {
		h.Set("Content-Type", res.ctype)
	}
	for k, v := range res.header {
		h.Set(k, v)
	}
	if res.stream != nil {
		o.writeStream(w, r, res, truncate)
		return
	}
	body := res.body
	if len(body) >= gzipWorthwhile && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is valid
		_, _ = z.Write(body)
		_ = z.Close()
		body = b.Bytes()
		h.Set("Content-Encoding", "gzip")
		h.Set("Vary", "Accept-Encoding")
	}
	if len(body) > 0 || res.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(res.status)
	if r.Method == http.MethodHead {
		return
	}
	if truncate && len(body) > 1 {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

func (o *Org) writeStream(w http.ResponseWriter, r *http.Request, res *response, truncate bool) {
	var out io.Writer = w
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Vary", "Accept-Encoding")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is valid
		defer z.Close()
		out = z
	}
	w.WriteHeader(res.status)
	if r.Method == http.MethodHead {
		return
	}
	if truncate {
		out = cutter{w}
	}
	if err := res.stream(out); err != nil {
		panic(http.ErrAbortHandler) // the caller has gone
	}
}

// cutter writes half of the first piece and hangs up.
type cutter struct{ w http.ResponseWriter }

func (c cutter) Write(p []byte) (int, error) {
	_, _ = c.w.Write(p[:len(p)/2])
	_ = http.NewResponseController(c.w).Flush()
	panic(http.ErrAbortHandler)
}

var (
	versionPath  = regexp.MustCompile(`^/services/data/v(\d{1,3})\.0(/.*)?$`)
	metadataPath = regexp.MustCompile(`^/services/Soap/m/\d{2,3}\.0(/00D\w+)?$`)
)

// answer routes a request. A nil response is a fault that leaves no answer.
func (o *Org) answer(r *http.Request) (*response, string) {
	p := strings.TrimRight(r.URL.EscapedPath(), "/")
	switch {
	case p == "/services/oauth2/token":
		return o.answerToken(r)
	case p == "/services/oauth2/userinfo":
		return o.userinfo(r, false), ""
	case strings.HasPrefix(p, "/id/"):
		return o.userinfo(r, true), ""
	case p == "/services/oauth2/revoke":
		token := r.FormValue("token")
		if _, ok := o.sessions.use(token, o.now(), 0, false); !ok {
			return oauthError(400, "unsupported_token_type", "this token type is not supported"), ""
		}
		o.sessions.end(token)
		return &response{kind: "revoke", status: 200}, ""
	case p == "/services/data":
		return o.versions(), ""
	case metadataPath.MatchString(p):
		return o.metadata(r), ""
	}
	m := versionPath.FindStringSubmatch(p)
	if m == nil {
		return restError("not_found", errNotFound()), ""
	}
	if v, _ := strconv.Atoi(m[1]); v < firstVersion || v > lastVersion {
		return restError("not_found", errNotFound()), ""
	}
	return o.answerData(r, "v"+m[1]+".0", m[2])
}

func (o *Org) answerToken(r *http.Request) (*response, string) {
	o.counters.update(func(c *Counters) { c.TokenCalls++ })
	fault := o.knobs.tokenFault()
	switch fault {
	case "":
		return o.token(r), ""
	case "503":
		return htmlUnavailable(), fault
	case "reset", "hang":
		return nil, fault
	}
	return oauthError(400, fault, map[string]string{"invalid_grant": "user hasn't approved this consumer",
		"invalid_client_id": "client identifier invalid", "invalid_client": "invalid client credentials",
		"inactive_user": "user is inactive", "inactive_org": "organization is inactive",
		"rate_limit_exceeded": "login rate exceeded"}[fault]), fault
}

// call is one authenticated data request, or one part of a composite request.
type call struct {
	o       *Org
	x       *tx
	method  string
	path    []string // after the version, unescaped
	query   url.Values
	header  http.Header
	body    []byte
	version string // v62.0
	user    uint32
	lockAll bool
	nested  bool
	chunk   int // records that are saved together with the one at hand
}

func (c *call) author() author {
	return author{user: c.user, lockAll: c.lockAll, chunk: max(c.chunk, 1)}
}

func (c *call) prefix() string { return "/services/data/" + c.version }

// answerData authenticates, counts, injects faults, and carries a data call out under the right lock.
func (o *Org) answerData(r *http.Request, version, rest string) (*response, string) {
	_, every, _ := o.knobs.front()
	token, wellFormed := bearer(r)
	if !wellFormed {
		return unauthorized("INVALID_AUTH_HEADER", "INVALID_AUTH_HEADER"), ""
	}
	user, ok := o.sessions.use(token, o.now(), every, true)
	if !ok {
		return unauthorized("Session expired or invalid", "INVALID_SESSION_ID"), ""
	}
	o.counters.update(func(c *Counters) { c.DataCalls++ })
	if !o.knobs.spend() {
		return o.metered(restError("limit", &apiError{status: 403, code: "REQUEST_LIMIT_EXCEEDED", message: "TotalRequests Limit exceeded."})), ""
	}
	c := &call{o: o, method: r.Method, query: r.URL.Query(), header: r.Header, version: version, user: user}
	if m := c.query.Get("_HttpMethod"); m != "" && r.Method == http.MethodPost {
		c.method = strings.ToUpper(m)
	}
	for s := range strings.SplitSeq(strings.Trim(rest, "/"), "/") {
		u, err := url.PathUnescape(s)
		if err != nil {
			return o.metered(restError("not_found", errNotFound())), ""
		}
		c.path = append(c.path, u)
	}
	var err *apiError
	if c.body, err = readBody(r, bodyLimit(c.path)); err != nil {
		return o.metered(restError("bad_body", err)), ""
	}
	write := c.method != http.MethodGet && c.method != http.MethodHead
	fault := o.knobs.dataFault(write, c.path[0] == "sobjects")
	switch fault {
	case "":
	case "500":
		return o.metered(restError("fault", &apiError{status: 500, code: "UNKNOWN_EXCEPTION",
			message: "An unexpected error occurred. Please include this ErrorId if you contact support: 1234567890-12345 (-1234567890)"})), fault
	case "502":
		return &response{kind: "fault", status: 502}, fault
	case "503":
		return htmlUnavailable(), fault
	case "busy":
		res := restError("fault", &apiError{status: 503, code: "SERVER_UNAVAILABLE", message: "Server too busy"})
		res.header = map[string]string{"Retry-After": "1"}
		return res, fault
	case "401":
		o.sessions.end(token)
		return unauthorized("Session expired or invalid", "INVALID_SESSION_ID"), fault
	case "403":
		return o.metered(restError("limit", &apiError{status: 403, code: "REQUEST_LIMIT_EXCEEDED", message: "TotalRequests Limit exceeded."})), fault
	case "302":
		return &response{kind: "fault", status: 302, header: map[string]string{"Location": o.base(r) + r.URL.RequestURI()}}, fault
	case "300":
		return jsonResponse("fault", 300, []string{c.prefix() + "/sobjects/Contact/" + ID18(makeID15("003", 1)),
			c.prefix() + "/sobjects/Contact/" + ID18(makeID15("003", 2))}), fault
	case "readonly":
		return o.metered(restError("fault", &apiError{status: 400, code: "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE",
			message: "Insert, update, and delete are not allowed during maintenance"})), fault
	case "reset", "hang":
		return nil, fault
	case "lock":
		c.lockAll = true
	}
	res := o.metered(o.execute(c))
	switch fault {
	case "apply_then_503":
		return htmlUnavailable(), fault
	case "apply_then_reset", "apply_then_hang":
		return nil, fault
	}
	return res, fault
}

func bodyLimit(path []string) int64 {
	if path[0] == "jobs" {
		return maxUpload
	}
	return maxBody
}

func readBody(r *http.Request, limit int64) ([]byte, *apiError) {
	var src io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" && r.ContentLength != 0 {
		z, err := gzip.NewReader(r.Body)
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, refuse("JSON_PARSER_ERROR", "the request body is not gzip, as Content-Encoding says")
		}
		src = z
	}
	b, err := io.ReadAll(io.LimitReader(src, limit+1))
	switch {
	case err != nil:
		return nil, refuse("JSON_PARSER_ERROR", "the request body could not be read")
	case int64(len(b)) > limit:
		return nil, &apiError{status: 413, code: "REQUEST_ENTITY_TOO_LARGE", message: "The request body is too large"}
	}
	return b, nil
}

func unauthorized(message, code string) *response {
	res := restError("unauthorized", &apiError{status: 401, code: code, message: message})
	res.header = map[string]string{"WWW-Authenticate": "Token"}
	return res
}

// metered adds the header that each data answer carries.
func (o *Org) metered(res *response) *response {
	used, limit := o.knobs.usage(o.opt.APILimit)
	if res.header == nil {
		res.header = map[string]string{}
	}
	res.header["Sforce-Limit-Info"] = fmt.Sprintf("api-usage=%d/%d", used, limit)
	return res
}

func (o *Org) execute(c *call) *response {
	o.settle()
	jobs := c.path[0] == "jobs"
	if !jobs && o.jobs.working.Load() > 0 {
		o.mu.Lock()
		o.advanceJobs()
		o.mu.Unlock()
	}
	if !jobs && (c.method == http.MethodGet || c.method == http.MethodHead) {
		o.mu.RLock()
		defer o.mu.RUnlock()
	} else {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, t := range o.tables {
			t.tidy()
		}
	}
	c.x = &tx{o: o}
	return c.route()
}

// route finds the resource. Search is not offered.
func (c *call) route() *response {
	switch c.path[0] {
	case "":
		return c.resources()
	case "sobjects":
		return c.sobjects(c.path[1:])
	case "query", "queryAll":
		return c.queryResource()
	case "jobs":
		return c.jobsResource(c.path[1:])
	case "limits":
		switch {
		case len(c.path) == 1:
			return c.limits()
		case len(c.path) == 2 && c.path[1] == "recordCount":
			return c.recordCount()
		}
	case "composite":
		switch {
		case len(c.path) == 1:
			return c.composite()
		case c.path[1] == "sobjects":
			return c.collections(c.path[2:])
		}
	}
	return restError("not_found", errNotFound())
}

// only refuses methods outside the list, nil if the method is one of them.
func (c *call) only(kind string, allowed ...string) *response {
	for _, m := range allowed {
		if c.method == m || c.method == http.MethodHead && m == http.MethodGet {
			return nil
		}
	}
	return restError(kind, methodNotAllowed(c.method, strings.Join(allowed, ",")))
}

// object reads the body as one JSON object.
func (c *call) object(into any) *apiError {
	if ct := c.header.Get("Content-Type"); !c.nested && !strings.HasPrefix(strings.ToLower(ct), "application/json") {
		return &apiError{status: 415, code: "UNSUPPORTED_MEDIA_TYPE", message: "Content type of the request must be application/json"}
	}
	if len(bytes.TrimSpace(c.body)) == 0 {
		return refuse("JSON_PARSER_ERROR", "The HTTP entity body is required, but this request has no entity body.")
	}
	d := json.NewDecoder(bytes.NewReader(c.body))
	d.UseNumber()
	err := d.Decode(into)
	if err == nil && d.More() {
		return refuse("JSON_PARSER_ERROR", "Unexpected content after the JSON value at %s", place(c.body, int(d.InputOffset())))
	}
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax) && syntax.Offset > 0 && int(syntax.Offset) <= len(c.body):
		ch := c.body[syntax.Offset-1]
		return refuse("JSON_PARSER_ERROR", "Unexpected character ('%c' (code %d)) at %s", ch, ch, place(c.body, int(syntax.Offset)-1))
	case errors.As(err, &typ):
		return refuse("JSON_PARSER_ERROR", "Cannot deserialize request from %s at %s", typ.Value, place(c.body, int(typ.Offset)))
	}
	return refuse("JSON_PARSER_ERROR", "Unexpected end-of-input at %s", place(c.body, len(c.body)))
}

func place(body []byte, offset int) string {
	offset = min(max(offset, 0), len(body))
	line := 1 + bytes.Count(body[:offset], []byte("\n"))
	return fmt.Sprintf("[line:%d, column:%d]", line, offset-bytes.LastIndexByte(body[:offset], '\n'))
}

// located adds where in the body a JSON_PARSER_ERROR arose.
func (c *call) located(e *apiError) *apiError {
	if e == nil || e.place == "" {
		return e
	}
	at := bytes.Index(bytes.ToLower(c.body), []byte(`"`+strings.ToLower(e.place)+`"`))
	located := *e
	located.message += " at " + place(c.body, at+len(e.place)+3)
	located.place = ""
	return &located
}

func (o *Org) versions() *response {
	type version struct {
		Label   string `json:"label"`
		URL     string `json:"url"`
		Version string `json:"version"`
	}
	var out []version
	for v := firstVersion; v <= lastVersion; v++ {
		season := [...]string{"Winter", "Spring", "Summer"}[(v-20)%3]
		out = append(out, version{fmt.Sprintf("%s '%02d", season, 11+(v-20)/3), fmt.Sprintf("/services/data/v%d.0", v), fmt.Sprintf("%d.0", v)})
	}
	return jsonResponse("versions", 200, out)
}

func (c *call) resources() *response {
	if res := c.only("resources", "GET"); res != nil {
		return res
	}
	out := map[string]string{}
	for _, name := range []string{"sobjects", "query", "queryAll", "limits", "composite", "jobs"} {
		out[name] = c.prefix() + "/" + name
	}
	return jsonResponse("resources", 200, out)
}

// recordCount answers /limits/recordCount: how many records objects have, about, without a query.
func (c *call) recordCount() *response {
	if res := c.only("record_count", "GET"); res != nil {
		return res
	}
	type count struct {
		Count int    `json:"count"`
		Name  string `json:"name"`
	}
	out := []count{}
	for _, name := range slices.Sorted(maps.Keys(c.o.tables)) {
		t := c.o.tables[name]
		asked := slices.ContainsFunc(split(c.query.Get("sObjects")), func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), name) })
		if (c.query.Get("sObjects") == "" || asked) && c.o.objectAccess(c.user, t) != Hidden {
			out = append(out, count{t.live(), t.name})
		}
	}
	return jsonResponse("record_count", 200, map[string]any{"sObjects": out})
}

func (c *call) limits() *response {
	if res := c.only("limits", "GET"); res != nil {
		return res
	}
	used, limit := c.o.knobs.usage(c.o.opt.APILimit)
	type pair struct{ Max, Remaining int }
	return jsonResponse("limits", 200, map[string]pair{
		"DailyApiRequests":                  {limit, max(0, limit-used)},
		"DailyAsyncApexExecutions":          {250000, 250000},
		"DailyBulkApiBatches":               {15000, 15000},
		"DailyBulkV2QueryJobs":              {maxBulkQuery, maxBulkQuery - len(c.o.jobs.queries)},
		"DailyBulkV2QueryFileStorageMB":     {976562, 976562},
		"HourlyPublishedPlatformEvents":     {50000, 50000},
		"DailyDeliveredPlatformEvents":      {10000, 10000},
		"ConcurrentAsyncGetReportInstances": {200, 200},
		"DataStorageMB":                     {1024, 1024},
		"FileStorageMB":                     {1024, 1024},
	})
}
