package salesforcefake

import (
	"fmt"
	"slices"
	"strings"
)

// Trigger is a piece of the customer's own automation.
type Trigger struct {
	Object       string   `json:"object"`
	Field        string   `json:"field,omitempty"`         // it acts where this field's new value is neither null nor false
	WhenContains string   `json:"when_contains,omitempty"` // and contains this
	IDs          []string `json:"ids,omitempty"`           // only these records; none is all
	Effect       string   `json:"effect"`                  // fail_record, fail_chunk, take_back or cpu_limit
	Rate         float64  `json:"rate,omitempty"`          // in this share of the cases; 0 is always
	MaxRows      int      `json:"max_rows,omitempty"`      // cpu_limit: so many records of one run still pass
	Message      string   `json:"message,omitempty"`
}

var triggerEffects = []string{"fail_record", "fail_chunk", "take_back", "cpu_limit"}

// rule is a condition of a validation rule or trigger, made ready.
type rule struct {
	t        *table
	field    *field
	contains string
	ids      map[uint32]bool // nil is all
	message  string
	trigger  *Trigger // nil for validation rules
}

func (o *Org) newRule(object, fieldName, contains string, ids []string, message string) rule {
	t := o.table(object)
	r := rule{t: t, contains: contains, message: message}
	if fieldName != "" {
		r.field = t.field(fieldName)
	}
	if len(ids) > 0 {
		r.ids = map[uint32]bool{}
		for _, id := range ids {
			if id18, ok := canonicalID(id); ok {
				r.ids[t.number(id18)] = true
			}
		}
	}
	return r
}

func (ru *rule) matches(o *Org, t *table, r *row) bool {
	if ru.t != t || ru.ids != nil && !ru.ids[r.num] {
		return false
	}
	if ru.field == nil {
		return true
	}
	v := o.get(t, r, ru.field)
	empty := v.kind == kindNull || v.kind == kindBool && v.n == 0
	return !empty && strings.Contains(fmt.Sprint(plain(v)), ru.contains)
}

// customerCode does what the customer's automation and other people's locks do to a row that is about to be saved: locks,
// triggers, then validation rules, in Salesforce's order.
func (o *Org) customerCode(t *table, r *row, by author) *apiError {
	id := ""
	if r.num != 0 {
		id = t.id(r.num)
		if by.lockAll || o.knobs.locked(id) {
			return refuse("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records: %s", id)
		}
	}
	set := o.knobs.set()
	event := "BeforeUpdate"
	if r.num == 0 {
		event = "BeforeInsert"
	}
	thrown := func(what string) *apiError {
		return refuse("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "%sTrigger: %s", t.name, what)
	}
	null := fmt.Sprintf("execution of %s\n\ncaused by: System.NullPointerException: Attempt to de-reference a null object\n\nTrigger.%sTrigger: line 3, column 1", event, t.name)
	if slices.Contains(set.failing, t) {
		return thrown(null)
	}
	for i := range set.triggers {
		ru := &set.triggers[i]
		if !ru.matches(o, t, r) || !o.knobs.luck(ru.trigger.Rate) {
			continue
		}
		switch ru.trigger.Effect {
		case "fail_record": // addError
			e := refuse("FIELD_CUSTOM_VALIDATION_EXCEPTION", "%s", ru.message)
			if ru.field != nil {
				e.fields = []string{ru.field.Name}
			}
			return e
		case "fail_chunk":
			what := null
			if ru.message != "" {
				what = fmt.Sprintf("execution of %s\n\ncaused by: %s", event, ru.message)
			}
			e := thrown(what)
			e.chunk = true
			return e
		case "cpu_limit":
			if by.chunk > ru.trigger.MaxRows {
				e := thrown("System.LimitException: Apex CPU time limit exceeded")
				e.chunk = true
				return e
			}
		case "take_back":
			r.data = withField(r.data, ru.field.slot, "")
		}
	}
	for i := range set.validation {
		if ru := &set.validation[i]; ru.matches(o, t, r) {
			e := refuse("FIELD_CUSTOM_VALIDATION_EXCEPTION", "%s", ru.message)
			if ru.field != nil {
				e.fields = []string{ru.field.Name}
			}
			return e
		}
	}
	return nil
}
