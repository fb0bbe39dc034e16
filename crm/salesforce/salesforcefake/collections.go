package salesforcefake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

const (
	maxCollection = 200
	maxChunks     = 10
	maxComposite  = 25
)

// collections answers /composite/sobjects and, for reads and upserts, /composite/sobjects/X[/field].
func (c *call) collections(path []string) *response {
	switch {
	case len(path) == 0 && c.method == http.MethodPost:
		return c.saveAll("collections_insert", nil, nil)
	case len(path) == 0 && c.method == http.MethodPatch:
		return c.saveAll("collections_update", nil, nil)
	case len(path) == 0:
		if res := c.only("collections", "POST", "PATCH", "DELETE"); res != nil {
			return res
		}
		return c.deleteAll()
	}
	t := c.o.table(path[0])
	if t == nil || len(path) > 2 || c.o.objectAccess(c.user, t) == Hidden {
		return restError("not_found", errNotFound())
	}
	if len(path) == 1 {
		if res := c.only("collections_get", "GET", "POST"); res != nil {
			return res
		}
		return c.getAll(t)
	}
	if res := c.only("collections_upsert", "PATCH"); res != nil {
		return res
	}
	f := c.o.visible(c.user, t, path[1])
	if f == nil || f.sys != sysID && !f.ExternalID {
		return restError("collections_upsert", errExternalID(path[1]))
	}
	return c.saveAll("collections_upsert", t, f)
}

func tooMany(n int) *apiError {
	if n <= maxCollection {
		return nil
	}
	return refuse("EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than %d records into this call", maxCollection)
}

var rolledBack = &apiError{status: 400, code: "ALL_OR_NONE_OPERATION_ROLLED_BACK",
	message: "Record rolled back because not all records were valid and the request was using AllOrNone header"}

// saveAll inserts, updates or upserts up to 200 records and answers one result a record, in order.
func (c *call) saveAll(kind string, only *table, by *field) *response {
	var in struct {
		AllOrNone bool              `json:"allOrNone"`
		Records   []json.RawMessage `json:"records"`
	}
	if err := c.object(&in); err != nil {
		return restError(kind, err)
	}
	if err := tooMany(len(in.Records)); err != nil {
		return restError(kind, err)
	}
	if in.Records == nil {
		return restError(kind, refuse("INVALID_INPUT", "records is required"))
	}
	tables, records := make([]*table, len(in.Records)), make([]map[string]any, len(in.Records))
	chunks, last := 0, (*table)(nil)
	for i, raw := range in.Records {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if d.Decode(&records[i]) != nil || records[i] == nil {
			return restError(kind, refuse("JSON_PARSER_ERROR", "record %d is not a JSON object", i))
		}
		at, _ := records[i]["attributes"].(map[string]any)
		typ, _ := at["type"].(string)
		if typ == "" {
			return restError(kind, refuse("INVALID_INPUT", "record %d: attributes.type, the object's API name, is required in each record", i))
		}
		tables[i] = c.o.table(typ)
		if tables[i] == nil || c.o.objectAccess(c.user, tables[i]) == Hidden {
			return restError(kind, refuse("INVALID_TYPE", "sObject type '%s' is not supported.", typ))
		}
		if only != nil && tables[i] != only {
			return restError(kind, refuse("INVALID_INPUT", "record %d: attributes.type is %s, the URL says %s", i, typ, only.name))
		}
		if tables[i] != last {
			chunks, last = chunks+1, tables[i]
		}
		// A value of the wrong JSON type spoils the whole request, not its row.
		if _, err := c.o.decode(c.user, tables[i], withoutID(records[i])); err != nil && err.code == "JSON_PARSER_ERROR" {
			return restError(kind, c.located(err))
		}
	}
	if chunks > maxChunks {
		return restError(kind, refuse("LIMIT_EXCEEDED",
			"Cannot have more than %d chunks in a single operation. Please rearrange the data to reduce chunking.", maxChunks))
	}
	seen := map[string]bool{}
	return c.rows(kind, chunkSizes(tables), in.AllOrNone, func(i int) (saveResult, *apiError) {
		t, rec := tables[i], records[i]
		switch kind {
		case "collections_insert":
			num, err := c.insert(t, rec)
			return saved(t.id(num)), err
		case "collections_update":
			num, err := c.recordID(t, rec, seen)
			if err != nil {
				return saveResult{}, err
			}
			return saved(t.id(num)), c.update(t, num, withoutID(rec))
		}
		return c.upsertRow(t, by, rec, seen)
	})
}

// chunkSizes are the lengths of the runs of one object: the platform saves each run by itself.
func chunkSizes(tables []*table) []int {
	var out []int
	for i, t := range tables {
		if i == 0 || t != tables[i-1] {
			out = append(out, 0)
		}
		out[len(out)-1]++
	}
	return out
}

// rows runs a write for each row, with its own rollback or, under allOrNone, one for all.
func (c *call) rows(kind string, chunks []int, allOrNone bool, do func(int) (saveResult, *apiError)) *response {
	whole := c.x.savepoint()
	n, failed := 0, 0
	for _, size := range chunks {
		n += size
	}
	out := make([]saveResult, n)
	from := 0
	for _, size := range chunks {
		failed += c.saveChunk(out[from:from+size], func(i int) (saveResult, *apiError) { return do(from + i) })
		from += size
	}
	if allOrNone && failed > 0 {
		c.x.rollback(whole)
		for i := range out {
			if out[i].Success {
				out[i] = notSaved(rolledBack)
			}
		}
		failed = n
	}
	c.tally(n-failed, failed)
	return jsonResponse(kind, 200, out)
}

// saveChunk saves up to 200 records of one object, which share one run of the customer's triggers: one that throws takes
// all records that reached it along. It returns how many failed.
func (c *call) saveChunk(out []saveResult, do func(int) (saveResult, *apiError)) (failed int) {
	c.chunk = len(out)
	defer func() { c.chunk = 0 }()
	whole := c.x.savepoint()
	var thrown *apiError
	for i := range out {
		sp := c.x.savepoint()
		res, err := do(i)
		switch {
		case err != nil && err.chunk:
			c.x.rollback(sp)
			thrown, res = err, saveResult{Success: true} // with the others, below
		case err != nil:
			c.x.rollback(sp)
			res.Errors, res.Success, res.ID, res.Created = notSaved(err).Errors, false, "", nil
			failed++
		}
		out[i] = res
	}
	if thrown == nil {
		return failed
	}
	c.x.rollback(whole)
	for i := range out {
		if out[i].Success {
			out[i] = notSaved(thrown)
			failed++
		}
	}
	return failed
}

func withoutID(rec map[string]any) map[string]any {
	out := make(map[string]any, len(rec))
	for k, v := range rec {
		if !strings.EqualFold(k, "id") {
			out[k] = v
		}
	}
	return out
}

// recordID reads the id of a record of a collection.
func (c *call) recordID(t *table, rec map[string]any, seen map[string]bool) (uint32, *apiError) {
	raw, _ := rec[idKey(rec)].(string)
	if raw == "" {
		return 0, refuse("MISSING_ARGUMENT", "Id not specified in an update call").on("Id")
	}
	return c.rowID(t, raw, seen)
}

func (c *call) rowID(t *table, raw string, seen map[string]bool) (uint32, *apiError) {
	id, ok := canonicalID(raw)
	if !ok || !strings.HasPrefix(id, t.prefix) {
		return 0, refuse("MALFORMED_ID", "%s ID: id value of incorrect type: %s", t.label, raw).on("Id")
	}
	if seen[id] {
		return 0, refuse("DUPLICATE_VALUE", "Duplicate id specified: %s", id)
	}
	seen[id] = true
	num := t.number(id)
	if c.o.newest(t, num) == nil {
		return 0, refuse("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
	}
	return num, nil
}

func (c *call) upsertRow(t *table, by *field, rec map[string]any, seen map[string]bool) (saveResult, *apiError) {
	var id string
	created := false
	if by.sys == sysID {
		if idKey(rec) == "" {
			num, err := c.insert(t, rec)
			if err != nil {
				return saveResult{}, err
			}
			id, created = t.id(num), true
		} else {
			num, err := c.recordID(t, rec, seen)
			if err != nil {
				return saveResult{}, err
			}
			if err := c.update(t, num, withoutID(rec)); err != nil {
				return saveResult{}, err
			}
			id = t.id(num)
		}
	} else {
		rest, val := map[string]any{}, any(nil)
		for k, v := range withoutID(rec) {
			if strings.EqualFold(k, by.Name) {
				val = v
			} else {
				rest[k] = v
			}
		}
		v, err := convert(by, val)
		switch {
		case err != nil:
			return saveResult{}, err
		case v.kind == kindNull:
			return saveResult{}, refuse("MISSING_ARGUMENT", "%s not specified", by.Name)
		}
		key := fmt.Sprint(plain(v))
		if seen[strings.ToLower(key)] {
			return saveResult{}, refuse("DUPLICATE_VALUE", "Duplicate external id specified: %s", key)
		}
		seen[strings.ToLower(key)] = true
		found := c.o.findAll(t, by, v)
		switch len(found) {
		case 0:
			as, err := c.o.decode(c.user, t, rest)
			if err != nil {
				return saveResult{}, err
			}
			num, err := c.x.insert(t, append(as, assign{by, v}), c.author())
			if err != nil {
				return saveResult{}, err
			}
			id, created = t.id(num), true
		case 1:
			if err := c.update(t, found[0], rest); err != nil {
				return saveResult{}, err
			}
			id = t.id(found[0])
		default:
			return saveResult{}, refuse("DUPLICATE_EXTERNAL_ID", "%s: more than one record found for external id field: %s",
				by.Label, key).on(by.Name)
		}
	}
	res := saved(id)
	res.Created = &created
	return res, nil
}

func (c *call) deleteAll() *response {
	const kind = "collections_delete"
	ids := strings.Split(c.query.Get("ids"), ",")
	if c.query.Get("ids") == "" {
		return restError(kind, refuse("MISSING_ARGUMENT", "ids is required"))
	}
	if err := tooMany(len(ids)); err != nil {
		return restError(kind, err)
	}
	seen := map[string]bool{}
	return c.rows(kind, []int{len(ids)}, strings.EqualFold(c.query.Get("allOrNone"), "true"), func(i int) (saveResult, *apiError) {
		for _, t := range c.o.tables {
			if !strings.HasPrefix(ids[i], t.prefix) {
				continue
			}
			num, err := c.rowID(t, ids[i], seen)
			if err != nil {
				return saveResult{}, err
			}
			return saved(t.id(num)), c.delete(t, num)
		}
		return saveResult{}, refuse("MALFORMED_ID", "malformed id %s", ids[i])
	})
}

// getAll answers GET …?ids=&fields= and POST {"ids":[],"fields":[]}: the records in order, null for what is not there.
func (c *call) getAll(t *table) *response {
	const kind = "collections_get"
	var in struct {
		IDs    []string `json:"ids"`
		Fields []string `json:"fields"`
	}
	if c.method == http.MethodPost {
		if err := c.object(&in); err != nil {
			return restError(kind, err)
		}
		if len(in.IDs) > maxPage {
			return restError(kind, refuse("EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than %d records into this call", maxPage))
		}
	} else {
		in.IDs = split(c.query.Get("ids"))
		in.Fields = split(c.query.Get("fields"))
	}
	if len(in.IDs) == 0 || len(in.Fields) == 0 {
		return restError(kind, refuse("MISSING_ARGUMENT", "ids and fields are required"))
	}
	pr, err := c.columns(t, in.Fields)
	if err != nil {
		return restError(kind, err)
	}
	var b bytes.Buffer
	b.WriteByte('[')
	for i, raw := range in.IDs {
		if i > 0 {
			b.WriteByte(',')
		}
		var r *row
		if id, ok := canonicalID(raw); ok {
			r = t.row(t.number(id))
		}
		if r == nil || r.deleted || c.o.recordAccess(c.user, t, r.num) == Hidden {
			b.WriteString("null")
			continue
		}
		c.render(&b, pr, r)
	}
	b.WriteByte(']')
	return &response{kind: kind, status: 200, ctype: contentTypeJSON, body: b.Bytes()}
}

func split(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(s string) bool { return strings.TrimSpace(s) == "" })
}
