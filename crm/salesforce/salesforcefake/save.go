package salesforcefake

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// apiError is one refusal, in the vendor's words. It becomes an element of the REST error array, or of a SaveResult.
type apiError struct {
	status  int
	code    string
	message string
	fields  []string
	place   string // the JSON key at fault, for the position in the message
	chunk   bool   // the failure of a trigger, which takes all records of its run along
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func refuse(code, format string, args ...any) *apiError {
	return &apiError{status: 400, code: code, message: fmt.Sprintf(format, args...)}
}

func (e *apiError) on(fields ...string) *apiError {
	e.fields = fields
	return e
}

var errDeleted = &apiError{status: 404, code: "ENTITY_IS_DELETED", message: "entity is deleted"}

func errNotFound() *apiError {
	return &apiError{status: 404, code: "NOT_FOUND", message: "The requested resource does not exist"}
}

func errExternalID(what string) *apiError {
	return &apiError{status: 404, code: "NOT_FOUND",
		message: "Provided external ID field does not exist or is not accessible: " + what}
}

// assign is one field of a write, checked for its type.
type assign struct {
	f *field
	v value
}

const timeFormat = "2006-01-02T15:04:05.000-0700"

func formatTime(ms int64) string { return time.UnixMilli(ms).UTC().Format(timeFormat) }

// parseTime reads the date-time forms that the vendor documents: seconds with or without fraction, zone Z, +hh:mm or
// +hhmm.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999-0700", "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date-time with seconds and zone", s)
}

// convert reads a JSON (or Go) value as a field's type.
func convert(f *field, in any) (value, *apiError) {
	wrong := func() (value, *apiError) {
		e := refuse("JSON_PARSER_ERROR", "Cannot deserialize instance of %s from %s value %v or request may be "+
			"missing a required field", jsonTypeName(f.Type), tokenName(in), shown(in))
		e.place = f.Name
		return value{}, e
	}
	switch in.(type) {
	case map[string]any, []any:
		return wrong()
	}
	if in == nil {
		if f.Type == Checkbox {
			return value{}, refuse("INVALID_TYPE_ON_FIELD_IN_RECORD", "%s: value not of required type: ", f.Label).on(f.Name)
		}
		return value{}, nil
	}
	switch f.Type {
	case Checkbox:
		switch v := in.(type) {
		case bool:
			return boolValue(v), nil
		case string:
			if b, err := strconv.ParseBool(v); err == nil && len(v) > 1 {
				return boolValue(b), nil
			}
		}
		return wrong()
	case Number:
		switch v := in.(type) {
		case json.Number:
			if n, err := v.Float64(); err == nil {
				return value{kind: kindNumber, f: n}, nil
			}
		case float64:
			return value{kind: kindNumber, f: v}, nil
		case int:
			return value{kind: kindNumber, f: float64(v)}, nil
		}
		return wrong()
	case DateTime:
		switch v := in.(type) {
		case time.Time:
			return value{kind: kindTime, n: v.Truncate(time.Second).UnixMilli()}, nil
		case string:
			if v == "" {
				return value{}, nil
			}
			if at, err := parseTime(v); err == nil {
				return value{kind: kindTime, n: at.Truncate(time.Second).UnixMilli()}, nil
			}
		}
		return wrong()
	case Date:
		if v, ok := in.(string); ok {
			if v == "" {
				return value{}, nil
			}
			if _, err := time.Parse(time.DateOnly, v); err == nil {
				return value{kind: kindDate, s: v}, nil
			}
		}
		return wrong()
	}
	s, ok := in.(string)
	if !ok {
		return wrong()
	}
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return value{}, nil
	case f.Type == typeID || f.Type == Reference:
		id, ok := canonicalID(s)
		if !ok {
			return value{}, refuse("MALFORMED_ID", "%s: id value of incorrect type: %s", f.Label, s).on(f.Name)
		}
		return stringValue(id), nil
	case f.Length > 0 && utf8.RuneCountInString(s) > f.Length:
		return value{}, refuse("STRING_TOO_LONG", "%s: data value too large: %s (max length=%d)", f.Label, s, f.Length).on(f.Name)
	case f.Type == Picklist && f.Restricted:
		i := slices.IndexFunc(f.Values, func(v string) bool { return strings.EqualFold(v, s) })
		if i < 0 {
			return value{}, refuse("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
				"%s: bad value for restricted picklist field: %s", f.Label, s).on(f.Name)
		}
		s = f.Values[i]
	case f.Type == Email && !plausibleEmail(s):
		return value{}, refuse("INVALID_EMAIL_ADDRESS", "%s: invalid email address: %s", f.Label, s).on(f.Name)
	}
	return stringValue(s), nil
}

func plausibleEmail(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && local != "" && strings.Contains(domain, ".") && !strings.ContainsAny(s, " ,;<>()") &&
		!strings.Contains(domain, "@") && !strings.HasPrefix(domain, ".") && !strings.HasSuffix(domain, ".")
}

func jsonTypeName(t Type) string {
	switch t {
	case typeID, Reference:
		return "reference"
	}
	return string(t)
}

func tokenName(v any) string {
	switch v := v.(type) {
	case string:
		return "VALUE_STRING"
	case bool:
		if v {
			return "VALUE_TRUE"
		}
		return "VALUE_FALSE"
	case json.Number:
		if strings.ContainsAny(string(v), ".eE") {
			return "VALUE_NUMBER_FLOAT"
		}
		return "VALUE_NUMBER_INT"
	case map[string]any:
		return "START_OBJECT"
	case []any:
		return "START_ARRAY"
	}
	return fmt.Sprintf("VALUE_%T", v)
}

func shown(v any) any {
	switch v.(type) {
	case map[string]any:
		return "{"
	case []any:
		return "["
	}
	return v
}

// decode reads the fields of one record that the user writes. The key "attributes" is skipped; ids are the caller's
// affair.
func (o *Org) decode(user uint32, t *table, in map[string]any) ([]assign, *apiError) {
	var out []assign
	var locked []string
	for _, name := range sortedKeys(in) {
		if name == "attributes" {
			continue
		}
		f := t.field(name)
		if f == nil || o.access(user, t, f) == Hidden {
			return nil, refuse("INVALID_FIELD", "No such column '%s' on sobject of type %s", name, t.name)
		}
		if !f.writable() || o.access(user, t, f) == ReadOnly {
			locked = append(locked, f.Name)
			continue
		}
		v, err := convert(f, in[name])
		if err != nil {
			return nil, err
		}
		out = append(out, assign{f, v})
	}
	if len(locked) > 0 {
		return nil, refuse("INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update fields: %s. Please check the security "+
			"settings of this field and verify that it is read/write for your profile or permission set.",
			strings.Join(locked, ", ")).on(locked...)
	}
	return out, nil
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// author is who writes.
type author struct {
	user    uint32
	admin   bool // a Go helper: no field-level security, no injected refusals
	lockAll bool // injected: every row of this call is locked by somebody else
	chunk   int  // records in the same run of the triggers
}

// insert makes a new record.
func (x *tx) insert(t *table, as []assign, by author) (uint32, *apiError) {
	as, person, err := x.o.personFields(t, nil, as)
	if err != nil {
		return 0, err
	}
	set := map[*field]bool{}
	for _, a := range as {
		set[a.f] = a.v.kind != kindNull
	}
	var missing []string
	for _, f := range t.fields {
		if !set[f] && f.Default != nil {
			if v, err := convert(f, f.Default); err == nil {
				as = append(as, assign{f, v})
				set[f] = true
			}
		}
		if f.Required && !set[f] {
			missing = append(missing, f.Name)
		}
	}
	if len(missing) > 0 {
		return 0, refuse("REQUIRED_FIELD_MISSING", "Required fields are missing: [%s]", strings.Join(missing, ", ")).on(missing...)
	}
	now := x.now()
	r := row{created: now, modified: now, stamp: now, createdBy: by.user, modifiedBy: by.user}
	if t.byName["ownerid"] != nil {
		r.owner = by.user
	}
	if err := x.fill(t, &r, as, by); err != nil {
		return 0, err
	}
	r.num = x.allocate(t)
	if person {
		x.putPerson(&r, nil, by)
	} else {
		x.put(t, &r)
	}
	x.note(t, r.num, "created", value{}, value{}, by.user)
	return r.num, nil
}

// update changes a record.
func (x *tx) update(t *table, num uint32, as []assign, by author) *apiError {
	old, err := x.writableRow(t, num)
	if err != nil {
		return err
	}
	as, person, err := x.o.personFields(t, old, as)
	if err != nil {
		return err
	}
	var missing []string
	for _, a := range as {
		if a.f.Required && a.v.kind == kindNull {
			missing = append(missing, a.f.Name)
		}
	}
	if len(missing) > 0 {
		return refuse("REQUIRED_FIELD_MISSING", "Required fields are missing: [%s]", strings.Join(missing, ", ")).on(missing...)
	}
	r := *old
	if err := x.fill(t, &r, as, by); err != nil {
		return err
	}
	x.touch(&r, by)
	if person {
		x.putPerson(&r, old, by)
	} else {
		x.put(t, &r)
	}
	x.track(t, old, &r, by.user)
	return nil
}

// writableRow finds a record that may be changed.
func (x *tx) writableRow(t *table, num uint32) (*row, *apiError) {
	r := x.current(t, num)
	switch {
	case r == nil:
		return nil, errNotFound()
	case r.deleted:
		return nil, errDeleted
	}
	if f := t.field("IsConverted"); f != nil && x.o.get(t, r, f).n != 0 {
		return nil, refuse("CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead")
	}
	return r, nil
}

// touch moves what Salesforce moves on each save, also when no value changed.
func (x *tx) touch(r *row, by author) {
	now := x.now()
	r.modified, r.stamp, r.modifiedBy = now, now, by.user
}

// fill applies assignments to a new version of a row, with the checks that need the whole record.
func (x *tx) fill(t *table, r *row, as []assign, by author) *apiError {
	o := x.o
	for _, a := range as {
		if a.f.Type == Reference && a.v.kind == kindString {
			if err := o.checkReference(a); err != nil {
				return err
			}
		}
		if a.f.sys == sysOwner {
			if a.v.kind == kindNull {
				return refuse("INVALID_CROSS_REFERENCE_KEY", "Owner ID: owner cannot be blank").on(a.f.Name)
			}
			r.owner = o.users.number(a.v.s)
			continue
		}
		if a.f.Unique && a.v.kind != kindNull {
			if other := o.findEqual(t, a.f, a.v, r.num); other != 0 {
				return refuse("DUPLICATE_VALUE", "duplicate value found: %s duplicates value on record with id: %s",
					a.f.Name, t.id(other)[:15])
			}
		}
		r.data = withField(r.data, a.f.slot, a.v.encode())
	}
	if by.admin {
		return nil
	}
	return o.customerCode(t, r, by)
}

func (o *Org) checkReference(a assign) *apiError {
	to := o.table(a.f.refTo)
	n := to.number(a.v.s)
	if !strings.HasPrefix(a.v.s, to.prefix) {
		return refuse("MALFORMED_ID", "%s: id value of incorrect type: %s", a.f.Label, a.v.s).on(a.f.Name)
	}
	target := o.newest(to, n)
	switch {
	case target == nil:
		return refuse("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
	case target.deleted:
		return refuse("ENTITY_IS_DELETED", "entity is deleted")
	}
	return nil
}

// newest returns a record's newest version, visible or not.
func (o *Org) newest(t *table, num uint32) *row {
	for i := len(o.pending) - 1; i >= 0; i-- {
		if p := o.pending[i]; p.t == t && p.r.num == num {
			return p.r
		}
	}
	return t.row(num)
}

// findEqual returns a live record other than not whose field equals v, 0 if there is none.
func (o *Org) findEqual(t *table, f *field, v value, not uint32) uint32 {
	for _, r := range t.rows {
		if r != nil && !r.deleted && r.num != not {
			if w := o.get(t, r, f); w.kind == v.kind && compare(w, v) == 0 {
				return r.num
			}
		}
	}
	return 0
}

// remove deletes a record softly.
func (x *tx) remove(t *table, num uint32, by author) *apiError {
	old := x.current(t, num)
	switch {
	case old == nil:
		return errNotFound()
	case old.deleted:
		return errDeleted
	}
	r := *old
	if !by.admin {
		if err := x.o.customerCode(t, &r, by); err != nil {
			return err
		}
	}
	if x.o.isPerson(t, old) && t.name == "Contact" {
		return errPersonOperation
	}
	r.deleted = true
	x.touch(&r, by)
	x.put(t, &r)
	x.withShadow(t, &r, func(shadow *row) { shadow.deleted = true }, by)
	return nil
}
