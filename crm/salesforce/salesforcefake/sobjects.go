package salesforcefake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// sobjects answers /sobjects and all below it.
func (c *call) sobjects(path []string) *response {
	if len(path) == 0 {
		if res := c.only("describe_global", "GET"); res != nil {
			return res
		}
		return c.describeGlobal()
	}
	t := c.o.table(path[0])
	if t == nil || c.o.objectAccess(c.user, t) == Hidden {
		return restError("not_found", errNotFound())
	}
	switch {
	case len(path) == 1 && c.method == http.MethodPost:
		return c.create(t)
	case len(path) == 1:
		if res := c.only("sobject", "GET", "POST"); res != nil {
			return res
		}
		return jsonResponse("sobject", 200, map[string]any{"objectDescribe": c.brief(t), "recentItems": []any{}})
	case len(path) == 2 && path[1] == "describe":
		if res := c.only("describe", "GET"); res != nil {
			return res
		}
		return c.describe(t)
	case len(path) == 2 && (path[1] == "updated" || path[1] == "deleted"):
		if res := c.only(path[1], "GET"); res != nil {
			return res
		}
		return c.replication(t, path[1])
	case len(path) == 2:
		return c.record(t, path[1])
	case len(path) == 3:
		return c.byField(t, path[1], path[2])
	}
	return restError("not_found", errNotFound())
}

type rowError struct {
	StatusCode string   `json:"statusCode"`
	Message    string   `json:"message"`
	Fields     []string `json:"fields"`
}

type saveResult struct {
	ID      string     `json:"id,omitempty"`
	Success bool       `json:"success"`
	Errors  []rowError `json:"errors"`
	Created *bool      `json:"created,omitempty"` // upserts only
}

func saved(id string) saveResult { return saveResult{ID: id, Success: true, Errors: []rowError{}} }

func notSaved(e *apiError) saveResult {
	fields := e.fields
	if fields == nil {
		fields = []string{}
	}
	return saveResult{Errors: []rowError{{e.code, e.message, fields}}}
}

// tally keeps the row counters.
func (c *call) tally(written, failed int) {
	c.o.counters.update(func(n *Counters) { n.RowsWritten += written; n.RowsFailed += failed })
}

// attempt carries a write of one record out and takes it back if it fails.
func (c *call) attempt(f func() *apiError) *apiError {
	sp := c.x.savepoint()
	err := f()
	if err != nil {
		c.x.rollback(sp)
		c.tally(0, 1)
		return err
	}
	c.tally(1, 0)
	return nil
}

func (c *call) create(t *table) *response {
	const kind = "record_insert"
	var in map[string]any
	if err := c.object(&in); err != nil {
		return restError(kind, err)
	}
	var num uint32
	err := c.attempt(func() (err *apiError) {
		num, err = c.insert(t, in)
		return err
	})
	if err != nil {
		return restError(kind, c.located(err))
	}
	id := t.id(num)
	res := jsonResponse(kind, 201, saved(id))
	res.header = map[string]string{"Location": c.recordURL(t, id)}
	return res
}

func (c *call) insert(t *table, in map[string]any) (uint32, *apiError) {
	if t.readOnly {
		return 0, refuse("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "entity type cannot be inserted: %s", t.label)
	}
	if c.o.objectAccess(c.user, t) != ReadWrite {
		return 0, refuse("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id")
	}
	if idKey(in) != "" {
		return 0, refuse("INVALID_FIELD", "cannot specify Id in an insert call").on("Id")
	}
	as, err := c.o.decode(c.user, t, in)
	if err != nil {
		return 0, err
	}
	return c.x.insert(t, as, c.author())
}

func (c *call) update(t *table, num uint32, in map[string]any) *apiError {
	if err := c.mayWrite(t, num); err != nil {
		return err
	}
	as, err := c.o.decode(c.user, t, in)
	if err != nil {
		return err
	}
	return c.x.update(t, num, as, c.author())
}

func idKey(in map[string]any) string {
	for k := range in {
		if strings.EqualFold(k, "id") {
			return k
		}
	}
	return ""
}

func (c *call) recordURL(t *table, id string) string {
	return c.prefix() + "/sobjects/" + t.name + "/" + id
}

// locate reads the id of a record path. What is no id of this object is looked for as an external id, in vain.
func (c *call) locate(t *table, id string) (uint32, *apiError) {
	id18, ok := canonicalID(id)
	if !ok || !strings.HasPrefix(id18, t.prefix) {
		return 0, errExternalID(id)
	}
	num := t.number(id18)
	if r := c.o.newest(t, num); r == nil || c.method != http.MethodPatch && c.method != http.MethodDelete && c.o.recordAccess(c.user, t, num) == Hidden {
		return 0, errNotFound()
	} else if r.deleted {
		return 0, errDeleted
	}
	return num, nil
}

func (c *call) record(t *table, id string) *response {
	kind := map[string]string{"GET": "record_get", "HEAD": "record_get", "PATCH": "record_update", "DELETE": "record_delete"}[c.method]
	if res := c.only("record", "GET", "PATCH", "DELETE"); res != nil {
		return res
	}
	num, err := c.locate(t, id)
	if err != nil {
		return restError(kind, err)
	}
	return c.one(kind, t, num)
}

// one reads, updates or deletes a record that exists.
func (c *call) one(kind string, t *table, num uint32) *response {
	var err *apiError
	switch c.method {
	case http.MethodPatch:
		var in map[string]any
		if err = c.object(&in); err != nil {
			break
		}
		if idKey(in) != "" {
			err = refuse("INVALID_FIELD", "The Id field should not be specified in the sobject data.").on("Id")
			break
		}
		err = c.located(c.attempt(func() *apiError { return c.update(t, num, in) }))
	case http.MethodDelete:
		err = c.attempt(func() *apiError { return c.delete(t, num) })
	default:
		return c.show(kind, t, num)
	}
	if err != nil {
		return restError(kind, err)
	}
	return &response{kind: kind, status: http.StatusNoContent}
}

func (c *call) delete(t *table, num uint32) *apiError {
	if err := c.mayWrite(t, num); err != nil {
		return err
	}
	return c.x.remove(t, num, c.author())
}

func (c *call) show(kind string, t *table, num uint32) *response {
	r := t.row(num)
	if r == nil { // written, but not committed yet
		return restError(kind, errNotFound())
	}
	pr, err := c.columns(t, c.query["fields"])
	if err != nil {
		return restError(kind, err)
	}
	var b bytes.Buffer
	c.render(&b, pr, r)
	return &response{kind: kind, status: 200, ctype: contentTypeJSON, body: b.Bytes()}
}

// columns turns a fields parameter into a projection; without one it is every visible field.
func (c *call) columns(t *table, lists []string) (*projection, *apiError) {
	cq := &compiled{o: c.o, user: c.user, t: t, proj: &projection{t: t}}
	q := &soql{text: strings.Join(lists, ",")}
	pos := 0
	for name := range strings.SplitSeq(q.text, ",") {
		if n := strings.TrimSpace(name); n != "" {
			if err := cq.project(q, path{strings.Split(n, "."), pos}); err != nil && !strings.Contains(err.message, "duplicate field") {
				return nil, err
			}
		}
		pos += len(name) + 1
	}
	if len(cq.proj.nodes) == 0 {
		for _, f := range t.fields {
			if c.o.access(c.user, t, f) != Hidden {
				cq.proj.nodes = append(cq.proj.nodes, projected{name: f.Name, f: f})
			}
		}
	}
	return cq.proj, nil
}

// byField answers /sobjects/X/{external id field}/{value}.
func (c *call) byField(t *table, name, val string) *response {
	if res := c.only("record", "GET", "PATCH", "DELETE"); res != nil {
		return res
	}
	f := c.o.visible(c.user, t, name)
	if f != nil && f.sys == sysID {
		return c.record(t, val)
	}
	if f == nil || !f.ExternalID {
		return restError("record_upsert", errExternalID(name))
	}
	v, err := externalValue(f, val)
	if err != nil {
		return restError("record_upsert", err)
	}
	found := c.o.findAll(t, f, v)
	if len(found) > 1 {
		var urls []string
		for _, n := range found {
			urls = append(urls, c.recordURL(t, t.id(n)))
		}
		return jsonResponse("record_upsert", http.StatusMultipleChoices, urls)
	}
	if c.method != http.MethodPatch {
		if len(found) == 0 {
			return restError("record_get", errNotFound())
		}
		kind := "record_get"
		if c.method == http.MethodDelete {
			kind = "record_delete"
		}
		return c.one(kind, t, found[0])
	}
	var in map[string]any
	if err := c.object(&in); err != nil {
		return restError("record_upsert", err)
	}
	for k := range in {
		if strings.EqualFold(k, f.Name) || strings.EqualFold(k, "id") {
			return restError("record_upsert", refuse("INVALID_FIELD", "The %s field should not be specified in the sobject data.", f.Name).on(f.Name))
		}
	}
	id, created, err := c.upsert(t, f, v, found, in)
	if err != nil {
		return restError("record_upsert", c.located(err))
	}
	out, status := saved(id), http.StatusOK
	out.Created = &created
	if created {
		status = http.StatusCreated
	}
	return jsonResponse("record_upsert", status, out)
}

func externalValue(f *field, val string) (value, *apiError) {
	if f.Type == Number {
		n, err := strconv.ParseFloat(val, 64)
		if err != nil {
			return value{}, errExternalID(val)
		}
		return value{kind: kindNumber, f: n}, nil
	}
	v, err := convert(f, val)
	if err == nil && v.kind == kindNull {
		err = errExternalID(f.Name)
	}
	return v, err
}

func (o *Org) findAll(t *table, f *field, v value) []uint32 {
	var out []uint32
	for _, r := range t.rows {
		if r != nil && !r.deleted {
			if w := o.get(t, r, f); w.kind == v.kind && compare(w, v) == 0 {
				out = append(out, r.num)
			}
		}
	}
	return out
}

func (c *call) upsert(t *table, f *field, v value, found []uint32, in map[string]any) (id string, created bool, err *apiError) {
	err = c.attempt(func() *apiError {
		if len(found) == 1 {
			id = t.id(found[0])
			return c.update(t, found[0], in)
		}
		created = true
		as, err := c.o.decode(c.user, t, in)
		if err != nil {
			return err
		}
		num, err := c.x.insert(t, append(as, assign{f, v}), c.author())
		id = t.id(num)
		return err
	})
	return id, created, err
}

// replication answers …/updated and …/deleted.
func (c *call) replication(t *table, which string) *response {
	now := c.o.now()
	bad := func(format string, args ...any) *response {
		return restError(which, refuse("INVALID_REPLICATION_DATE", format, args...))
	}
	var span [2]time.Time
	for i, name := range []string{"start", "end"} {
		s := c.query.Get(name)
		if s == "" {
			return restError(which, refuse("MISSING_ARGUMENT", "%s date is required", name))
		}
		at, err := parseTime(s)
		if err != nil {
			return restError(which, refuse("MALFORMED_QUERY", "Invalid datetime for %s: %s (a + in a URL must be written %%2B)", name, s))
		}
		span[i] = at.Truncate(time.Minute) // the vendor ignores the seconds
	}
	days := 30
	if which == "deleted" {
		days = 15
	}
	switch {
	case !span[0].Before(span[1]):
		return bad("startDate must be before endDate, by at least a minute")
	case span[0].Before(now.AddDate(0, 0, -days)):
		return bad("startDate cannot be more than %d days ago", days)
	}
	covered := span[1]
	if m := now.Truncate(time.Minute); covered.After(m) {
		covered = m
	}
	for _, p := range c.o.pending { // a transaction in flight holds the date back
		if at := time.UnixMilli(p.r.stamp).UTC(); p.t == t && at.Before(covered) {
			covered = at
		}
	}
	var rows []*row
	hidden := c.o.hider(c.user, t)
	t.stamped(span[0].UnixMilli(), span[1].UnixMilli()-1, false, func(r *row) bool {
		if r.deleted == (which == "deleted") && (hidden == nil || !hidden(r)) {
			rows = append(rows, r)
		}
		return true
	})
	if which == "deleted" {
		type deletedRecord struct {
			ID   string `json:"id"`
			Date string `json:"deletedDate"`
		}
		out := []deletedRecord{}
		for _, r := range rows {
			out = append(out, deletedRecord{t.id(r.num), formatTime(r.stamp)})
		}
		return jsonResponse(which, 200, map[string]any{"deletedRecords": out,
			"earliestDateAvailable": formatTime(now.AddDate(0, 0, -15).UnixMilli()), "latestDateCovered": formatTime(covered.UnixMilli())})
	}
	if len(rows) > 600_000 {
		return restError(which, refuse("EXCEEDED_ID_LIMIT", "more than 600000 records changed, choose a shorter span"))
	}
	ids := make([]string, len(rows))
	for i, r := range rows {
		ids[i] = t.id(r.num)
	}
	slices.Sort(ids)
	return jsonResponse(which, 200, map[string]any{"ids": ids, "latestDateCovered": formatTime(covered.UnixMilli())})
}

// render writes a record as the API shows it: attributes first, then the fields in the order asked for.
func (c *call) render(b *bytes.Buffer, pr *projection, r *row) {
	id := pr.t.id(r.num)
	b.WriteString(`{"attributes":{"type":"`)
	b.WriteString(pr.t.name)
	b.WriteString(`","url":"`)
	b.WriteString(c.recordURL(pr.t, id))
	b.WriteString(`"}`)
	for _, n := range pr.nodes {
		b.WriteString(`,"`)
		b.WriteString(n.name)
		b.WriteString(`":`)
		if n.f != nil {
			writeValue(b, c.o.get(pr.t, r, n.f))
			continue
		}
		parent := c.o.parent(hop{pr.t, n.ref, n.child.t}, r)
		if parent == nil {
			b.WriteString("null")
			continue
		}
		c.render(b, n.child, parent)
	}
	b.WriteByte('}')
}

func writeValue(b *bytes.Buffer, v value) {
	switch v.kind {
	case kindNull:
		b.WriteString("null")
	case kindBool:
		b.WriteString(strconv.FormatBool(v.n != 0))
	case kindTime:
		b.WriteByte('"')
		b.WriteString(formatTime(v.n))
		b.WriteByte('"')
	case kindNumber:
		n, _ := json.Marshal(v.f)
		b.Write(n)
		if v.f == float64(int64(v.f)) && !bytes.ContainsAny(n, ".e") {
			b.WriteString(".0")
		}
	default:
		for i := range len(v.s) {
			if ch := v.s[i]; ch < 0x20 || ch == '"' || ch == '\\' || ch >= utf8.RuneSelf {
				b.Write(marshal(v.s))
				return
			}
		}
		b.WriteByte('"')
		b.WriteString(v.s)
		b.WriteByte('"')
	}
}

const (
	maxPage    = 2000
	minPage    = 200
	maxCursors = 10 // open at a time by one user; the oldest gives way
	cursorLife = 48 * time.Hour
)

// cursor is what is left of a query. It holds row versions, so its pages show one moment.
type cursor struct {
	rows []*row
	proj *projection
	used time.Time
	size int
	seq  int
}

type cursors struct {
	mu   sync.Mutex
	next uint32
	m    map[string]*cursor // by 18-character locator
}

func newCursors() *cursors { return &cursors{m: map[string]*cursor{}} }

func (cs *cursors) add(cu *cursor) string {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.next++
	cu.seq = int(cs.next)
	if len(cs.m) >= maxCursors {
		keys := make([]string, 0, len(cs.m))
		for k := range cs.m {
			keys = append(keys, k)
		}
		sort.Slice(keys, func(i, j int) bool { return cs.m[keys[i]].seq < cs.m[keys[j]].seq })
		delete(cs.m, keys[0])
	}
	id := ID18(makeID15("01g", cs.next))
	cs.m[id] = cu
	return id
}

func (cs *cursors) get(id string, now time.Time) *cursor {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cu := cs.m[id]
	if cu == nil {
		return nil
	}
	if now.Sub(cu.used) > cursorLife {
		delete(cs.m, id)
		return nil
	}
	cu.used = now
	return cu
}

var (
	locator   = regexp.MustCompile(`^(01g\w{15})-(\d{1,9})$`)
	batchSize = regexp.MustCompile(`(?i)batchSize\s*=\s*(\d+)`)
)

// pageSize is the rows of a page: 2,000, or what Sforce-Query-Options asks for within the vendor's limits.
func (c *call) pageSize(forced int) int {
	if forced > 0 {
		return forced
	}
	if m := batchSize.FindStringSubmatch(c.header.Get("Sforce-Query-Options")); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			n = maxPage
		}
		return min(max(n, minPage), maxPage)
	}
	return maxPage
}

func (c *call) queryResource() *response {
	if res := c.only("query", "GET"); res != nil {
		return res
	}
	forced, _ := c.o.knobs.paging()
	switch len(c.path) {
	case 1:
		q, err := parseSOQL(c.query.Get("q"))
		if err != nil {
			return restError("query", err)
		}
		cq, err := c.o.compile(q, c.user, c.path[0] == "queryAll")
		if err != nil {
			return restError("query", err)
		}
		rows := cq.run()
		if cq.count {
			return jsonResponse("query", 200, map[string]any{"totalSize": len(rows), "done": true, "records": []any{}})
		}
		cu := &cursor{rows: rows, proj: cq.proj, used: c.o.now(), size: c.pageSize(forced)}
		id := ""
		if len(rows) > cu.size {
			id = c.o.cursors.add(cu)
		}
		return c.page("query", cu, id, 0)
	case 2:
		if m := locator.FindStringSubmatch(c.path[1]); m != nil {
			from, err := strconv.Atoi(m[2])
			if cu := c.o.cursors.get(m[1], c.o.now()); cu != nil && err == nil && from <= len(cu.rows) {
				return c.page("query_more", cu, m[1], from)
			}
		}
		return restError("query_more", refuse("INVALID_QUERY_LOCATOR", "invalid query locator"))
	}
	return restError("not_found", errNotFound())
}

func (c *call) page(kind string, cu *cursor, id string, from int) *response {
	_, nextURL := c.o.knobs.paging()
	to := min(from+cu.size, len(cu.rows))
	var b bytes.Buffer
	b.Grow(64 + (to-from)*256)
	done := to == len(cu.rows)
	fmt.Fprintf(&b, `{"totalSize":%d,"done":%t,`, len(cu.rows), done)
	if !done && nextURL != "missing" {
		version, next := c.prefix(), to
		switch nextURL {
		case "repeat":
			next = from
		case "other_version":
			version = "/services/data/v" + strconv.Itoa(lastVersion) + ".0"
			if c.version == "v"+strconv.Itoa(lastVersion)+".0" {
				version = "/services/data/v" + strconv.Itoa(lastVersion-1) + ".0"
			}
		}
		fmt.Fprintf(&b, `"nextRecordsUrl":"%s/query/%s-%d",`, version, id, next)
	}
	b.WriteString(`"records":[`)
	for i, r := range cu.rows[from:to] {
		if i > 0 {
			b.WriteByte(',')
		}
		c.render(&b, cu.proj, r)
	}
	b.WriteString("]}")
	return &response{kind: kind, status: 200, ctype: contentTypeJSON, body: b.Bytes()}
}
