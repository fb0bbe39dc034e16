package salesforce

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heed-sms/heed/crm"
)

const (
	maxRows       = 200 // records in one call (REST API Developer Guide, "Update Multiple Records with Fewer Round-Trips")
	maxRuns       = 10  // runs of records of one type in one call, same page
	maxHalvings   = 24  // calls spent on finding the record that makes an organisation's trigger fail
	lockAttempts  = 3   // calls for records that others hold, after the first one
	maxTextLen    = 255 // the longest Text field
	extrasPause   = 10 * time.Minute
	maxRefusalLen = 300
)

// refusedExtras remembers that Salesforce refused an optional field, for Probe, and until when not to send it.
type refusedExtras struct {
	text  string
	until time.Time // zero: the value was refused and not the field
}

// job is one record to write, for one or several equal-keyed writes.
type job struct {
	obj    *object
	key    crm.Key
	write  crm.Write
	extras bool              // send the optional fields too
	notes  map[string]string // for Annotate: the fields to set instead of the box
	err    *crm.Error

	account string // of the person account through which the record is written, "" for most
}

func (j *job) locked() bool {
	return j.err != nil && j.err.Class == crm.RetryNow && lockCodes[j.err.Code]
}

// lockCodes are by what a record is refused that somebody else is writing. A trigger passes the refusal on in its own.
var lockCodes = map[string]bool{"UNABLE_TO_LOCK_ROW": true, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": true, "CANNOT_EXECUTE_FLOW_TRIGGER": true}

// unticks reports whether the job can wait for others: it opts nobody out.
func (j *job) unticks() bool { return j.notes != nil || !j.write.OptedOut }

// Write implements [crm.Directory]. Of several writes to one record only the last is sent, and all get its result.
// It sends nothing but the configured fields, at most 200 records a call; boxes to be ticked in an object go through an
// ingest job if they are more than 2,000 (see [Config.Bulk]), which takes a minute or several. Records that others are
// writing are tried a few times more. Boxes to be unticked come last.
func (o *Org) Write(ctx context.Context, writes []crm.Write) []crm.Result {
	ctx = as(ctx, writing)
	results := make([]crm.Result, len(writes))
	jobOf := make([]*job, len(writes))
	byKey := map[crm.Key]*job{}
	var jobs []*job
	for i, w := range writes {
		results[i].Key = w.Key
		_, obj := o.object(w.Object)
		id, err := id18(w.ID)
		if obj == nil || err != nil {
			results[i].Err = &crm.Error{Class: crm.Bug, Text: fmt.Sprintf("%s %q is no key of a configured object", w.Object, clip(w.ID, 20)), Err: err}
			continue
		}
		key := crm.Key{Object: obj.name, ID: id}
		j := byKey[key]
		if j == nil {
			j = &job{obj: obj, key: key}
			byKey[key] = j
			jobs = append(jobs, j)
		}
		j.write, j.extras = w, o.sendsExtras(obj)
		jobOf[i] = j
	}
	o.send(ctx, jobs)
	for i, j := range jobOf {
		if j != nil && j.err != nil {
			results[i].Err = j.err
		}
	}
	return results
}

// Annotate implements [crm.Annotator]: text fields of any object, cut to 255 characters, up to 200 records a call.
// Several notes for one field of one record leave the last.
func (o *Org) Annotate(ctx context.Context, notes []crm.Note) []crm.Result {
	ctx = as(ctx, reporting)
	results := make([]crm.Result, len(notes))
	jobOf := make([]*job, len(notes))
	byKey := map[crm.Key]*job{}
	objects := map[string]*object{}
	var jobs []*job
	for i, n := range notes {
		results[i].Key = n.Key
		id, err := id18(n.ID)
		if err != nil || !fieldName.MatchString(n.Object) || !fieldName.MatchString(n.Field) {
			results[i].Err = &crm.Error{Class: crm.Bug, Text: fmt.Sprintf("%s.%s of %q is no field of a record", clip(n.Object, 80), clip(n.Field, 80), clip(n.ID, 20)), Err: err}
			continue
		}
		name := strings.ToLower(n.Object)
		if objects[name] == nil {
			objects[name] = &object{name: n.Object}
		}
		key := crm.Key{Object: name, ID: id}
		j := byKey[key]
		if j == nil {
			j = &job{obj: objects[name], key: crm.Key{Object: n.Object, ID: id}, notes: map[string]string{}}
			byKey[key], jobs = j, append(jobs, j)
		}
		j.notes[n.Field], jobOf[i] = cut(n.Text), j
	}
	o.send(ctx, jobs)
	for i, j := range jobOf {
		if j != nil && j.err != nil {
			results[i].Err = j.err
		}
	}
	return results
}

var fieldName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,79}$`)

// send makes the calls for jobs, each job once, and sets their errors.
func (o *Org) send(ctx context.Context, jobs []*job) {
	// Equal types side by side, for Salesforce takes few changes of type in a call, and ids in order, so that calls
	// that meet on the same rows lock them in the same order.
	order := func(a, b *job) int {
		last := cmp.Compare(boolInt(a.unticks()), boolInt(b.unticks()))
		return cmp.Or(last, strings.Compare(a.obj.name, b.obj.name), strings.Compare(a.key.ID, b.key.ID))
	}
	slices.SortStableFunc(jobs, order)
	var few []*job
	for start := 0; start < len(jobs); {
		end := start
		for end < len(jobs) && jobs[end].obj == jobs[start].obj && jobs[end].unticks() == jobs[start].unticks() {
			end++
		}
		part := jobs[start:end]
		if start = end; len(part) > bulkWriteFrom && !part[0].unticks() {
			part = o.ingest(ctx, part[0].obj, part)
		}
		few = append(few, part...)
	}
	var sent sync.WaitGroup
	for _, chunk := range chunks(few) {
		select {
		case o.writing <- struct{}{}:
			sent.Go(func() {
				defer func() { <-o.writing }()
				o.writeChunk(ctx, chunk)
			})
		case <-ctx.Done():
			fail(chunk, unanswered(ctx, ctx.Err()))
		}
	}
	sent.Wait()
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// chunks cuts sorted jobs into calls.
func chunks(jobs []*job) [][]*job {
	var out [][]*job
	start, runs := 0, 0
	for i, j := range jobs {
		if i == start || j.obj != jobs[i-1].obj {
			runs++
		}
		if i-start == maxRows || runs > maxRuns {
			out = append(out, jobs[start:i])
			start, runs = i, 1
		}
	}
	if start < len(jobs) {
		out = append(out, jobs[start:])
	}
	return out
}

func fail(jobs []*job, err *crm.Error) {
	for _, j := range jobs {
		j.err = err
	}
}

// writeChunk writes jobs of one call and sets their errors. It makes more calls in four cases: records that failed for
// an optional field are written once more without; those that somebody else holds are tried again a few times; contacts of
// person accounts are written through those; and a chunk that failed altogether because of the organisation's automation,
// which runs for all of a chunk's records in one transaction, is halved.
func (o *Org) writeChunk(ctx context.Context, jobs []*job) {
	queue := [][]*job{jobs}
	if o.persons.Load() {
		var contacts []*job
		for _, j := range jobs {
			if j.err = nil; strings.EqualFold(j.obj.name, "Contact") {
				contacts = append(contacts, j)
			}
		}
		o.findPersons(ctx, contacts)
		queue = nil
		for _, person := range []bool{false, true} {
			part := slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool { return j.err != nil || (j.account != "") != person })
			if len(part) > 0 {
				queue = append(queue, part)
			}
		}
	}
	for calls := 0; len(queue) > 0; {
		part := queue[0]
		queue = queue[1:]
		o.patch(ctx, part)
		calls++
		var refused []*job
		for _, j := range part {
			if j.maybePerson() {
				refused = append(refused, j)
			}
		}
		if len(refused) > 0 {
			if persons := o.findPersons(ctx, refused); len(persons) > 0 {
				o.patch(ctx, persons)
				calls++
			}
		}
		var bare []*job
		blamed := map[*job]*crm.Error{}
		for _, j := range part {
			if j.extras && j.blamesExtras() {
				j.extras, blamed[j] = false, j.err
				bare = append(bare, j)
			}
		}
		if len(bare) > 0 {
			o.patch(ctx, bare)
			calls++
		}
		for _, j := range bare {
			if j.err == nil { // so it was an optional field indeed
				o.rememberRefusal(j.obj, blamed[j])
			}
		}
		o.patchLocked(ctx, part)
		if calls+len(queue)+2 <= maxHalvings && ctx.Err() == nil && failedTogether(part) {
			half := len(part) / 2
			queue = append(queue, part[:half], part[half:])
		}
	}
}

// patchLocked tries records again that somebody else held, for a lock is mostly over within a second. Those that stay locked
// are left to the caller.
func (o *Org) patchLocked(ctx context.Context, jobs []*job) {
	shortest, longest := retryWaits()
	for attempt := range lockAttempts {
		var locked []*job
		for _, j := range jobs {
			if j.locked() {
				locked = append(locked, j)
			}
		}
		if len(locked) == 0 || sleep(ctx, min(longest, shortest<<attempt)) != nil {
			return
		}
		o.patch(ctx, locked)
	}
}

// wholesale are the failures that one record can bring to all of a transaction.
var wholesale = map[string]bool{
	"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": true,
	"CANNOT_EXECUTE_FLOW_TRIGGER":          true,
	"APEX_ERROR":                           true,
	"APEX_FAILED":                          true,
	"LIMIT_EXCEEDED":                       true,
	"REQUEST_RUNNING_TOO_LONG":             true,
	"ALL_OR_NONE_OPERATION_ROLLED_BACK":    true,
}

func failedTogether(jobs []*job) bool {
	for _, j := range jobs {
		if j.err == nil || !wholesale[j.err.Code] {
			return false
		}
	}
	return len(jobs) > 1
}

// patch makes one call and judges each row by its own result.
func (o *Org) patch(ctx context.Context, jobs []*job) {
	records := make([]map[string]any, len(jobs))
	for i, j := range jobs {
		records[i] = j.fields()
	}
	body, err := json.Marshal(map[string]any{"allOrNone": false, "records": records})
	if err != nil {
		fail(jobs, &crm.Error{Class: crm.Bug, Err: err})
		return
	}
	a, err := o.call(ctx, http.MethodPatch, o.data("/composite/sobjects"), body)
	var rows []rowResult
	if err == nil && a.status != http.StatusOK {
		err = a.malformed(fmt.Sprintf("Salesforce answered %d, with no result for each record", a.status))
	}
	if err == nil {
		err = a.decode(&rows)
	}
	if err != nil {
		var e *crm.Error
		if !errors.As(err, &e) {
			e = &crm.Error{Class: crm.RetryLater, Err: err}
		}
		fail(jobs, e)
		return
	}
	assign(jobs, rows, a.status)
}

type rowResult struct {
	ID      string     `json:"id"`
	Success bool       `json:"success"`
	Errors  []apiError `json:"errors"`
}

// assign gives each job its result: by id where the result has one, by position where it has none and there are as many
// results as jobs. A job that is left without one has failed, whatever the call's status says.
func assign(jobs []*job, rows []rowResult, status int) {
	byID := make(map[string]*job, len(jobs))
	for _, j := range jobs {
		_, id, _ := j.target()
		byID[id] = j
	}
	done := make(map[*job]bool, len(jobs))
	for i, r := range rows {
		var j *job
		if r.ID != "" {
			id, err := id18(r.ID)
			if err != nil {
				continue
			}
			j = byID[id]
		} else if len(rows) == len(jobs) {
			j = jobs[i]
		}
		switch {
		case j == nil || done[j] && j.err != nil:
			continue
		case r.Success && len(r.Errors) == 0:
			j.err = nil
		default:
			j.err = rowError(status, r.Errors)
		}
		done[j] = true
	}
	for _, j := range jobs {
		if !done[j] {
			j.err = &crm.Error{Class: crm.RetryNow, Status: status, Text: "Salesforce's answer has no result for this record"}
		}
	}
}

// fields is the record as it is sent: the box, and the optional fields.
func (j *job) fields() map[string]any {
	object, id, name := j.target()
	m := map[string]any{"attributes": map[string]string{"type": object}, "id": id}
	if j.notes != nil {
		for field, text := range j.notes {
			m[name(field)] = text
		}
		return m
	}
	m[name(j.obj.mapping.Field)] = j.obj.mapping.write(j.write.OptedOut)
	if j.extras {
		if f := j.obj.DateField; f != "" && !j.write.At.IsZero() {
			m[name(f)] = j.write.At.UTC().Format("2006-01-02T15:04:05.000Z")
		}
		if f := j.obj.SourceField; f != "" && j.write.Source != "" {
			m[name(f)] = cut(j.write.Source)
		}
		if f := j.obj.TextField; f != "" {
			m[name(f)] = cut(j.write.Text) // also when empty: the text of an earlier change would mislead
		}
	}
	return m
}

func cut(s string) string {
	if r := []rune(s); len(r) > maxTextLen {
		return string(r[:maxTextLen])
	}
	return s
}

func (o *object) extras() []string {
	var names []string
	for _, f := range []string{o.DateField, o.SourceField, o.TextField} {
		if f != "" {
			names = append(names, f)
		}
	}
	return names
}

// fieldFaults are codes by which a record fails for one of its fields. One bad field fails the record, and may fail the
// call.
var fieldFaults = map[string]bool{
	"INVALID_FIELD":                           true,
	"INVALID_FIELD_FOR_INSERT_UPDATE":         true,
	"INVALID_TYPE_ON_FIELD_IN_RECORD":         true,
	"STRING_TOO_LONG":                         true,
	"INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": true,
	"FIELD_INTEGRITY_EXCEPTION":               true,
	"FIELD_CUSTOM_VALIDATION_EXCEPTION":       true,
	"REQUIRED_FIELD_MISSING":                  true,
	"JSON_PARSER_ERROR":                       true,
}

// blamesExtras reports whether the optional fields may be the reason of a failure: the code is one of fields, and
// Salesforce does not name the opt-out field itself.
func (j *job) blamesExtras() bool {
	if j.err == nil || !fieldFaults[j.err.Code] || len(j.obj.extras()) == 0 {
		return false
	}
	_, _, name := j.target()
	box := strings.ToLower(name(j.obj.mapping.Field))
	for _, f := range j.err.Fields {
		if strings.ToLower(f) == box {
			return false
		}
	}
	return !strings.Contains(strings.ToLower(j.err.Text), "'"+box+"'")
}

// rememberRefusal keeps what was said, and stops sending fields for a while that do not exist or may not be written,
// since each would cost every record a second call.
func (o *Org) rememberRefusal(obj *object, e *crm.Error) {
	r := &refusedExtras{text: clip(e.Code+": "+e.Text, maxRefusalLen)}
	if strings.HasPrefix(e.Code, "INVALID_FIELD") {
		r.until = o.now().Add(extrasPause)
	}
	if before := obj.refused.Swap(r); before == nil || before.text != r.text {
		o.log.Warn("salesforce: an optional field was refused; the opt-out is written without it", "object", obj.name, "code", e.Code, "fields", e.Fields)
	}
}

func (o *Org) sendsExtras(obj *object) bool {
	if len(obj.extras()) == 0 {
		return false
	}
	r := obj.refused.Load()
	return r == nil || !o.now().Before(r.until)
}
