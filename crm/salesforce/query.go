package salesforce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/heed-sms/heed/crm"
)

const (
	minPageSize   = 200  // to which a query that timed out is reduced, and the least batchSize that Salesforce takes
	maxIDs        = 200  // ids in an IN list: the URL and headers together may have about 16,000 bytes
	maxPartial    = 2000 // answers that make up one query of at most 2000 records
	locatorPrefix = "/services/data/v"
)

// object is a configured record type.
type object struct {
	Object
	name    string
	fields  string // the SELECT list of a scan
	history string // and of what includes deleted records
	mapping OptOut
	refused atomic.Pointer[refusedExtras]
}

func newObject(c Object) *object {
	o := &object{Object: c, name: c.Object, mapping: c.OptOut}
	var fields []string
	add := func(names ...string) {
		for _, n := range names {
			if !slices.ContainsFunc(fields, func(f string) bool { return strings.EqualFold(f, n) }) {
				fields = append(fields, n) // a field named twice is a malformed query
			}
		}
	}
	add("Id")
	add(c.Phones...)
	add(c.OptOut.Field, "SystemModstamp", "LastModifiedDate", "LastModifiedById", "LastModifiedBy.Name", "CreatedDate")
	if o.isLead() {
		add("IsConverted", "ConvertedContactId")
	}
	o.fields = strings.Join(fields, ", ")
	add("IsDeleted")
	if o.merges() {
		add("MasterRecordId")
	}
	o.history = strings.Join(fields, ", ")
	return o
}

func (o *object) isLead() bool { return strings.EqualFold(o.name, "Lead") }

// merges reports whether records of the type can be merged, and so have a MasterRecordId (Object Reference).
func (o *object) merges() bool {
	return o.isLead() || strings.EqualFold(o.name, "Contact") || strings.EqualFold(o.name, "Account")
}

// live is the condition for records that can be written.
func (o *object) live() []string {
	if o.isLead() {
		return []string{"IsConverted = false"}
	}
	return nil
}

func where(conditions []string) string {
	if len(conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}

func (o *object) scanQuery(afterID string, limit int) string {
	conditions := o.live()
	if afterID != "" {
		conditions = append([]string{"Id > " + quote(afterID)}, conditions...)
	}
	return "SELECT " + o.fields + " FROM " + o.name + where(conditions) + " ORDER BY Id LIMIT " + strconv.Itoa(limit)
}

// changesQuery asks for what changed at or after stamp or, with an id, what follows that record in the order of (stamp,
// id). Comparing the stamp alone would skip records that share it, as all of one bulk load do.
func (o *object) changesQuery(stamp time.Time, afterID string, limit int) string {
	s := literal(stamp)
	condition := "SystemModstamp >= " + s
	if afterID != "" {
		condition = fmt.Sprintf("((SystemModstamp = %s AND Id > %s) OR SystemModstamp > %s)", s, quote(afterID), s)
	}
	return "SELECT " + o.history + " FROM " + o.name + " WHERE " + condition + " ORDER BY SystemModstamp, Id LIMIT " + strconv.Itoa(limit)
}

func (o *object) countQuery() string { return "SELECT COUNT() FROM " + o.name + where(o.live()) }

// Scan implements [crm.Directory]. Converted leads are left out, since they cannot be written any more. Objects with many
// records are read through a bulk job (see [Config.Bulk]), the others in query pages. A page's AsOf is when its query was
// answered, or when its job was created. Where Salesforce could not count the records, Total is 0.
func (o *Org) Scan(ctx context.Context, after crm.Key) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) {
		first, err := o.resume(after)
		if err != nil {
			yield(crm.Page{}, &crm.Error{Class: crm.Bug, Text: fmt.Sprintf("cannot resume in object %q", clip(after.Object, 80)), Err: err})
			return
		}
		counts, total := o.count(ctx)
		at := after.ID
		for i, obj := range o.objects[first:] {
			for page, err := range o.scanObject(ctx, obj, at, counts[first+i]) {
				if err != nil {
					yield(crm.Page{}, err)
					return
				}
				page.Total = total
				if !yield(page, nil) {
					return
				}
			}
			at = ""
		}
	}
}

// resume returns the place of the object in which a scan goes on, or why it cannot.
func (o *Org) resume(after crm.Key) (first int, err error) {
	if after.Object == "" {
		return 0, nil
	}
	first, obj := o.object(after.Object)
	if obj == nil {
		return 0, errors.New("it is not configured")
	}
	m, bulk, err := parseMark(after.ID)
	switch {
	case err != nil || bulk && m.end:
	case bulk && o.bulkMode() == BulkNever:
		err = errors.New("bulk jobs are switched off")
	case bulk && m.query != o.querySum(obj):
		err = errors.New("the bulk job asked for other fields than are configured")
	case !bulk && after.ID != "":
		_, err = id18(after.ID)
	}
	return first, err
}

// scanObject yields the live records of one object behind a mark of either kind.
func (o *Org) scanObject(ctx context.Context, obj *object, after string, records int) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) {
		at, marked, _ := parseMark(after)
		if at.end {
			return
		}
		if marked || after == "" && o.bulkMode() != BulkNever && (o.bulkMode() == BulkAlways || records >= bulkReadFrom) {
			for attempt := 0; ; attempt++ {
				var failed error
				yielded := false
				for page, err := range o.bulkPages(ctx, obj, at) {
					if err != nil {
						failed = err
						break
					}
					yielded = true
					if !yield(page, nil) {
						return
					}
				}
				if failed == nil {
					return
				}
				if isUnusable(failed) && marked && !yielded {
					failed = &crm.Error{Class: crm.Bug, Text: "cannot resume in object " + obj.name, Err: failed}
				} else if isUnusable(failed) && yielded && attempt == 0 {
					// From the object's beginning: a job has no order in which another could go on.
					o.log.Warn("salesforce: a bulk job was lost while it was read; starting another", "object", obj.name, "error", failed)
					at, marked = mark{}, false
					continue
				} else if isUnusable(failed) && o.bulkMode() == BulkAuto {
					o.log.Warn("salesforce: no bulk job for this object; reading it in query pages", "object", obj.name, "records", records, "error", failed, "hint", bulkHint)
					o.bulkRefused(failed)
					break
				}
				yield(crm.Page{}, driverError(failed))
				return
			}
			after = ""
		}
		last := ""
		if after != "" {
			last, _ = id18(after) // resume has looked at it
		}
		for b, err := range o.keyset(ctx, "/query", func(limit int) string { return obj.scanQuery(last, limit) }) {
			if err != nil {
				yield(crm.Page{}, err)
				return
			}
			page := crm.Page{AsOf: b.asOf}
			if page.Records, err = o.records(obj, b.rows, false); err != nil {
				yield(crm.Page{}, err)
				return
			}
			if n := len(page.Records); n > 0 {
				last = page.Records[n-1].ID
			}
			page.Next = crm.Key{Object: obj.name, ID: last}
			if !yield(page, nil) {
				return
			}
		}
	}
}

// Changed implements [crm.Directory]: object by object, within each by SystemModstamp, with deleted, merged and
// converted records. It yields at least one page. AsOf is the same in all pages, Salesforce's clock at the first query;
// it is since if Salesforce did not tell its time, so that a checkpoint never passes what was read.
//
// A formula field that changes with another record does not touch SystemModstamp, and a record erased from the recycle
// bin leaves no trace: both are found by Scan only.
func (o *Org) Changed(ctx context.Context, since time.Time) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) {
		lookback := o.config.Lookback
		if lookback == 0 {
			lookback = defaultLookback
		}
		from := since.Add(-lookback).Truncate(time.Second)
		if since.Before(epoch) {
			from = epoch
		}
		var asOf time.Time
		for _, obj := range o.objects {
			stamp, last := from, ""
			for b, err := range o.keyset(ctx, "/queryAll", func(limit int) string { return obj.changesQuery(stamp, last, limit) }) {
				if err != nil {
					yield(crm.Page{}, err)
					return
				}
				if asOf.IsZero() {
					if asOf = b.asOf; asOf.IsZero() {
						asOf = since
					}
				}
				page := crm.Page{AsOf: asOf}
				if page.Records, err = o.records(obj, b.rows, true); err != nil {
					yield(crm.Page{}, err)
					return
				}
				if n := len(page.Records); n > 0 {
					stamp, last = page.Records[n-1].Stamp, page.Records[n-1].ID
				}
				if !yield(page, nil) {
					return
				}
			}
		}
	}
}

// Get implements [crm.Getter]. Records in the recycle bin are returned with Deleted set, and with their survivor if they
// lost in a merge; converted leads too.
func (o *Org) Get(ctx context.Context, keys []crm.Key) ([]crm.Record, error) {
	wanted := map[*object][]string{}
	for _, k := range keys {
		_, obj := o.object(k.Object)
		id, err := id18(k.ID)
		if obj == nil || err != nil {
			return nil, &crm.Error{Class: crm.Bug, Text: fmt.Sprintf("%s %q is no key of a configured object", k.Object, clip(k.ID, 20)), Err: err}
		}
		wanted[obj] = append(wanted[obj], id)
	}
	var found []crm.Record
	for _, obj := range o.objects {
		ids := wanted[obj]
		slices.Sort(ids)
		for chunk := range slices.Chunk(slices.Compact(ids), maxIDs) {
			soql := "SELECT " + obj.history + " FROM " + obj.name + " WHERE Id IN (" + quoted(chunk) + ")"
			for b, err := range o.query(ctx, "/queryAll", soql, maxIDs) {
				if err != nil {
					return nil, err
				}
				records, err := o.records(obj, b.rows, true)
				if err != nil {
					return nil, err
				}
				found = append(found, records...)
			}
		}
	}
	return found, nil
}

// count returns how many live records each object has, and all together. It serves progress bars and the choice of the
// way to read: what it cannot find out it leaves at 0, and lets the queries that follow say why. An object that takes too
// long to count is a large one.
func (o *Org) count(ctx context.Context) (counts []int, total int) {
	counts = make([]int, len(o.objects))
	complete := true
	for i, obj := range o.objects {
		var n struct {
			TotalSize *int `json:"totalSize"`
		}
		a, err := o.call(ctx, http.MethodGet, o.data("/query?q="+url.QueryEscape(obj.countQuery())), nil)
		switch code := codeOf(err); {
		case code == "QUERY_TIMEOUT" || code == "REQUEST_RUNNING_TOO_LONG":
			counts[i], complete = bulkReadFrom, false
		case err != nil || a.decode(&n) != nil || n.TotalSize == nil:
			return counts, 0
		default:
			counts[i] = *n.TotalSize
			total += counts[i]
		}
	}
	if !complete {
		total = 0
	}
	return counts, total
}

func (o *Org) pageSize() int {
	if o.config.PageSize == 0 {
		return maxPageSize
	}
	return o.config.PageSize
}

// fields are the values of one record, in whatever form they came.
type fields interface {
	// text returns a text field, "" for null. A field that is not there is an error.
	text(name string) (string, error)
	bool(name string) (bool, error)
	// modifier returns who changed the record last, "" where the integration user may not see that user.
	modifier() string
}

// row is a record of a query's answer.
type row map[string]json.RawMessage

// batch is one answer of a query.
type batch struct {
	rows []row
	asOf time.Time // the server's clock when the query was answered
}

// keyset runs queries until one brings fewer records than it asked for. next builds each from where the one before
// ended, so no cursor has to outlive a query: an expired one, or a query that runs too long, costs a new query.
func (o *Org) keyset(ctx context.Context, resource string, next func(limit int) string) iter.Seq2[batch, error] {
	return func(yield func(batch, error) bool) {
		limit := o.pageSize()
		before := ""
	queries:
		for {
			soql, got := next(limit), 0
			if soql == before {
				yield(batch{}, &crm.Error{Class: crm.Bug, Text: "Salesforce answered a query with the records of the one before"})
				return
			}
			before = soql
			for b, err := range o.query(ctx, resource, soql, limit) {
				switch code := codeOf(err); {
				case code == "QUERY_TIMEOUT" && limit > minPageSize:
					limit = max(limit/2, minPageSize)
					continue queries
				case code == "INVALID_QUERY_LOCATOR" && got > 0:
					continue queries
				case err != nil:
					yield(batch{}, err)
					return
				}
				got += len(b.rows)
				if !yield(b, nil) {
					return
				}
			}
			if got < limit {
				return
			}
		}
	}
}

// query runs one query of at most limit records and yields its answers. Salesforce may cut them smaller than asked, so
// nextRecordsUrl is followed as it was given, whatever API version it names, but only on this host and to an end.
func (o *Org) query(ctx context.Context, resource, soql string, limit int) iter.Seq2[batch, error] {
	return func(yield func(batch, error) bool) {
		var header []string
		if limit >= minPageSize {
			header = []string{"Sforce-Query-Options", "batchSize=" + strconv.Itoa(min(limit, maxPageSize))}
		}
		target := o.data(resource + "?q=" + url.QueryEscape(soql))
		visited := map[string]bool{}
		var asOf time.Time
		for got := 0; ; {
			a, err := o.call(ctx, http.MethodGet, target, nil, header...)
			if err != nil {
				yield(batch{}, err)
				return
			}
			var answer struct {
				Done    *bool  `json:"done"`
				Next    string `json:"nextRecordsUrl"`
				Records *[]row `json:"records"`
			}
			if err := a.decode(&answer); err != nil {
				yield(batch{}, err)
				return
			}
			bad := func(text string) { yield(batch{}, a.malformed(text)) }
			if answer.Done == nil || answer.Records == nil {
				bad("the answer is no query result")
				return
			}
			if asOf.IsZero() {
				asOf = a.date()
			}
			if got += len(*answer.Records); got > limit {
				bad(fmt.Sprintf("the answer has more than the %d records that were asked for", limit))
				return
			}
			if !yield(batch{*answer.Records, asOf}, nil) || *answer.Done {
				return
			}
			switch {
			case answer.Next == "":
				bad("the answer says that there is more and not where (no nextRecordsUrl)")
				return
			case !strings.HasPrefix(answer.Next, locatorPrefix) || len(answer.Next) > 1000 || strings.Contains(answer.Next, "/../"):
				bad("the answer's nextRecordsUrl leads out of the API")
				return
			case visited[answer.Next]:
				bad("the answer's nextRecordsUrl leads back to an earlier answer")
				return
			case len(visited) >= maxPartial:
				bad("the answer is cut into too many parts")
				return
			}
			visited[answer.Next] = true
			target = answer.Next
		}
	}
}

// records translates rows. One row that lacks something fails them all: a record whose opt-out cannot be read must not
// pass for one that is not opted out.
func (o *Org) records(obj *object, rows []row, history bool) ([]crm.Record, error) {
	self := o.selfID()
	records := make([]crm.Record, len(rows))
	for i, r := range rows {
		var err error
		if records[i], err = obj.record(r, self, history); err != nil {
			return nil, unreadableRecord(obj, err)
		}
	}
	return records, nil
}

func unreadableRecord(obj *object, err error) *crm.Error {
	return &crm.Error{Class: crm.Park, Code: "UNREADABLE_RECORD", Text: fmt.Sprintf("a %s record cannot be read: %v", obj.name, err)}
}

// selfID is heed's own user, "" before the first login.
func (o *Org) selfID() string {
	if s := o.current.Load(); s != nil {
		return s.userID
	}
	return ""
}

var null = []byte("null")

// get returns a field's JSON. Salesforce answers with canonical field names, whatever case was asked for.
func (r row) get(name string) (json.RawMessage, error) {
	if v, ok := r[name]; ok {
		return v, nil
	}
	for k, v := range r {
		if strings.EqualFold(k, name) {
			return v, nil
		}
	}
	return nil, fmt.Errorf("the answer lacks the field %s", name)
}

// text returns a text field, "" for null.
func (r row) text(name string) (string, error) {
	v, err := r.get(name)
	if err != nil || bytes.Equal(v, null) {
		return "", err
	}
	var s string
	if json.Unmarshal(v, &s) != nil {
		return "", fmt.Errorf("the field %s is no text", name)
	}
	return s, nil
}

func (r row) bool(name string) (bool, error) {
	v, err := r.get(name)
	if err != nil {
		return false, err
	}
	switch string(v) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("the field %s is neither true nor false: is it a checkbox?", name)
}

func (r row) modifier() string {
	var by struct{ Name string }
	if v, err := r.get("LastModifiedBy"); err == nil && json.Unmarshal(v, &by) == nil {
		return by.Name
	}
	return ""
}

func stampOf(r fields, name string) (time.Time, error) {
	s, err := r.text(name)
	if err != nil {
		return time.Time{}, err
	}
	t, err := parseStamp(s)
	if err != nil {
		return t, fmt.Errorf("the field %s is no date-time", name)
	}
	return t, nil
}

// idOf returns an id field, "" for null.
func idOf(r fields, name string) (string, error) {
	s, err := r.text(name)
	if err != nil || s == "" {
		return "", err
	}
	if s, err = id18(s); err != nil {
		return "", fmt.Errorf("the field %s: %w", name, err)
	}
	return s, nil
}

func (obj *object) record(r fields, self string, history bool) (crm.Record, error) {
	var errs []error
	keep := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	rec := crm.Record{Key: crm.Key{Object: obj.name}}
	var err error
	rec.ID, err = idOf(r, "Id")
	if err == nil && rec.ID == "" {
		err = errors.New("it has no id")
	}
	keep(err)
	for _, field := range obj.Phones {
		raw, err := r.text(field)
		keep(err)
		if strings.TrimSpace(raw) != "" {
			rec.Phones = append(rec.Phones, crm.Phone{Field: field, Raw: raw})
		}
	}
	rec.OptedOut, err = obj.mapping.read(r)
	keep(err)
	rec.Stamp, err = stampOf(r, "SystemModstamp")
	keep(err)
	rec.ModifiedAt, err = stampOf(r, "LastModifiedDate")
	keep(err)
	rec.CreatedAt, err = stampOf(r, "CreatedDate")
	keep(err)
	by, err := idOf(r, "LastModifiedById")
	keep(err)
	rec.ModifiedBy.ID = by
	if by != "" && by == self {
		rec.ModifiedBy.Kind = crm.Self
	}
	rec.ModifiedBy.Name = r.modifier()
	if history {
		rec.Deleted, err = r.bool("IsDeleted")
		keep(err)
		if obj.merges() {
			rec.MergedInto, err = idOf(r, "MasterRecordId")
			keep(err)
		}
	}
	if obj.isLead() {
		converted, err := r.bool("IsConverted")
		keep(err)
		if converted {
			id, err := idOf(r, "ConvertedContactId")
			keep(err)
			rec.Converted = &crm.Key{Object: "Contact", ID: id}
		}
	}
	return rec, errors.Join(errs...)
}

// read returns whether the field says "opted out".
func (m OptOut) read(r fields) (bool, error) {
	if m.picklist() {
		s, err := r.text(m.Field)
		return strings.EqualFold(strings.TrimSpace(s), strings.TrimSpace(m.Out)), err
	}
	v, err := r.bool(m.Field)
	return v != m.Inverted, err
}

// write returns the field's value for a box.
func (m OptOut) write(optedOut bool) any {
	switch {
	case !m.picklist():
		return optedOut != m.Inverted
	case optedOut:
		return m.Out
	}
	return m.In
}
