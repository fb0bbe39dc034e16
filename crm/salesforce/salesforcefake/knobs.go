package salesforcefake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Knobs make the org misbehave. The zero value is a healthy org. Over HTTP they are GET and PUT /sandbox/knobs; a PUT
// changes the keys that it names. Rates are shares of calls from 0 to 1; the one-shot lists need no luck.
type Knobs struct {
	Seed      uint64 `json:"seed"`       // of every random choice; a change starts the sequence anew
	LatencyMS int    `json:"latency_ms"` // each answer waits this long

	ErrorRate503HTML float64 `json:"error_rate_503_html"` // data calls answered 503 with an HTML page, nothing applied
	EmptyRate        float64 `json:"empty_rate"`          // data calls answered 502 with no body, nothing applied
	RedirectRate     float64 `json:"redirect_rate"`       // data calls answered 302 to the same URL, nothing applied
	MultipleChoices  float64 `json:"multiple_choices"`    // writes of one record answered 300, nothing applied
	TruncateRate     float64 `json:"truncate_rate"`       // answers of which only half the body arrives
	LockRate         float64 `json:"lock_rate"`           // rows that fail with UNABLE_TO_LOCK_ROW
	ExpireRate       float64 `json:"expire_rate"`         // data calls that find their session ended, 401

	// LockIDs are records that somebody else holds: how many more writes fail, -1 for ever.
	LockIDs map[string]int `json:"lock_ids"`

	ExpireTokens bool `json:"expire_tokens"`  // one-shot: every session ends now; reads back false
	ExpireEveryN int  `json:"expire_every_n"` // a session ends after this many data calls; 0 never

	BudgetMax  int `json:"budget_max"`  // daily calls; at the limit 403 REQUEST_LIMIT_EXCEEDED. 0: counted, not enforced
	BudgetUsed int `json:"budget_used"` // data calls so far

	LateCommitMS int  `json:"late_commit_ms"` // writes become visible this much later, with the old SystemModstamp
	HoldCommits  bool `json:"hold_commits"`   // writes become visible when this is set back to false

	PageSize         int    `json:"page_size"`         // rows a query page, 1 to 2000, whatever was asked for; 0 by the rules
	NextURL          string `json:"next_url"`          // nextRecordsUrl is "missing", "repeat" (the same page again) or "other_version"
	ShuffleUnordered bool   `json:"shuffle_unordered"` // queries without ORDER BY answer in random order

	ValidationRules    []ValidationRule `json:"validation_rules"`
	Triggers           []Trigger        `json:"triggers"`
	TriggerFailObjects []string         `json:"trigger_fail_objects"` // writes to these objects fail in a customer's trigger
	ReadOnlyFields     []string         `json:"read_only_fields"`     // "Contact.SMS_Opt_Out__c": FLS of heed's user, read-only
	HiddenFields       []string         `json:"hidden_fields"`        // "Contact.SMS_Opt_Out__c": FLS of heed's user, invisible

	UserAccess      []UserAccess      `json:"user_access"`       // permissions of any user, for a field or an object
	HiddenRecords   []string          `json:"hidden_records"`    // ids that sharing hides from all but administrators
	ReadOnlyRecords []string          `json:"read_only_records"` // ids that all but administrators may only read
	TrackedFields   []string          `json:"tracked_fields"`    // "Contact.SMS_Opt_Out__c": history is kept; a new org keeps that of the opt-out boxes
	LeadMapping     map[string]string `json:"lead_mapping"`      // custom Lead fields to Contact fields on conversion; a new org maps the opt-out fields
	MetadataDenied  bool              `json:"metadata_denied"`   // the Metadata API refuses all but administrators
	PersonAccounts  bool              `json:"person_accounts"`   // switches person accounts on, for good

	NextWrite []string `json:"next_write"` // faults of the coming writing data calls, one each
	NextRead  []string `json:"next_read"`  // faults of the coming reading data calls
	NextToken []string `json:"next_token"` // faults of the coming token calls

	BulkPolls          int      `json:"bulk_polls"`           // looks at a bulk job that find it unfinished
	BulkMS             int      `json:"bulk_ms"`              // a bulk job takes this long by the org's clock
	BulkPageRows       int      `json:"bulk_page_rows"`       // rows of a page of bulk results at most; 0: 50,000, or what the client asks for
	BulkShuffleBatches bool     `json:"bulk_shuffle_batches"` // ingest batches run in random order
	BulkNoHeaders      bool     `json:"bulk_no_headers"`      // bulk query results without Sforce-Locator and Sforce-NumberOfRecords, as behind a bad proxy
	NextBulk           []string `json:"next_bulk"`            // how the coming bulk jobs end, one each

	Maintenance string `json:"maintenance"` // "", "read_only" (writes refused) or "down" (everything 503 HTML)
}

// ValidationRule refuses records like a rule that the org's admin made: FIELD_CUSTOM_VALIDATION_EXCEPTION.
type ValidationRule struct {
	Object       string   `json:"object"`
	Field        string   `json:"field,omitempty"`         // the rule looks at this field's new value and names it
	WhenContains string   `json:"when_contains,omitempty"` // "" is any value but null and false
	IDs          []string `json:"ids,omitempty"`           // only these records; none is all
	Message      string   `json:"message"`
}

// UserAccess is a user's permission for a field, or for an object if no field is named.
type UserAccess struct {
	User   string `json:"user"` // username or id
	Object string `json:"object"`
	Field  string `json:"field,omitempty"`
	Access string `json:"access"` // hidden or read_only
}

var accessNames = map[string]Access{"hidden": Hidden, "read_only": ReadOnly}

// Faults for next_write and next_read. The names that begin with apply carry the call out first.
var dataFaults = []string{"ok", "500", "502", "503", "busy", "401", "403", "302", "300", "lock", "reset", "hang", "readonly",
	"truncate", "apply_then_503", "apply_then_reset", "apply_then_hang"}

// Faults for next_token.
var tokenFaults = []string{"ok", "503", "reset", "hang", "invalid_grant", "invalid_client_id", "invalid_client", "inactive_user",
	"inactive_org", "rate_limit_exceeded"}

// nextJob returns what is to become of a new bulk job.
func (kn *knobs) nextJob() (fate string, polls int, takes time.Duration) {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	return pop(&kn.k.NextBulk), kn.k.BulkPolls, time.Duration(kn.k.BulkMS) * time.Millisecond
}

func (kn *knobs) bulkPageForced() int {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	return kn.k.BulkPageRows
}

func (kn *knobs) bulkPage() int {
	if n := kn.bulkPageForced(); n > 0 {
		return n
	}
	return defaultResultRows
}

func (kn *knobs) dropBulkHeaders() bool {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	return kn.k.BulkNoHeaders
}

func (kn *knobs) shuffleBatches(order []int) {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	if kn.k.BulkShuffleBatches {
		kn.rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
}

func (k *Knobs) validate(o *Org) error {
	for name, rate := range map[string]float64{"error_rate_503_html": k.ErrorRate503HTML, "empty_rate": k.EmptyRate,
		"redirect_rate": k.RedirectRate, "multiple_choices": k.MultipleChoices, "truncate_rate": k.TruncateRate, "lock_rate": k.LockRate, "expire_rate": k.ExpireRate} {
		if rate < 0 || rate > 1 {
			return fmt.Errorf("%s is %v, must be from 0 to 1", name, rate)
		}
	}
	for name, n := range map[string]int{"latency_ms": k.LatencyMS, "expire_every_n": k.ExpireEveryN, "budget_max": k.BudgetMax,
		"budget_used": k.BudgetUsed, "late_commit_ms": k.LateCommitMS, "page_size": k.PageSize, "bulk_polls": k.BulkPolls, "bulk_ms": k.BulkMS, "bulk_page_rows": k.BulkPageRows} {
		if n < 0 {
			return fmt.Errorf("%s is %d, must not be negative", name, n)
		}
	}
	if k.PageSize > maxPage {
		return fmt.Errorf("page_size is %d, must be at most %d", k.PageSize, maxPage)
	}
	if !slices.Contains([]string{"", "missing", "repeat", "other_version"}, k.NextURL) {
		return fmt.Errorf("next_url %q is unknown: use missing, repeat, other_version or nothing", k.NextURL)
	}
	if !slices.Contains([]string{"", "read_only", "down"}, k.Maintenance) {
		return fmt.Errorf("maintenance %q is unknown: use read_only, down or nothing", k.Maintenance)
	}
	for _, l := range []struct {
		name        string
		list, known []string
	}{{"next_write", k.NextWrite, dataFaults}, {"next_read", k.NextRead, dataFaults}, {"next_token", k.NextToken, tokenFaults}, {"next_bulk", k.NextBulk, bulkFaults}} {
		for _, f := range l.list {
			if !slices.Contains(l.known, f) {
				return fmt.Errorf("%s: fault %q is unknown: use %s", l.name, f, strings.Join(l.known, ", "))
			}
		}
	}
	fields := slices.Concat(k.ReadOnlyFields, k.HiddenFields, k.TrackedFields)
	for _, a := range k.UserAccess {
		t := o.table(a.Object)
		switch {
		case o.userNamed(a.User) == 0:
			return fmt.Errorf("user_access: user %q is unknown", a.User)
		case t == nil || a.Field != "" && t.field(a.Field) == nil:
			return fmt.Errorf("user_access: %s.%s is unknown", a.Object, a.Field)
		case accessNames[a.Access] == ReadWrite:
			return fmt.Errorf("user_access: access %q is unknown: use hidden or read_only", a.Access)
		}
	}
	for _, f := range k.TrackedFields {
		object, _, _ := strings.Cut(f, ".")
		if o.table(object+"History") == nil {
			return fmt.Errorf("tracked_fields: the history of %q is not kept here", object)
		}
	}
	for from, to := range k.LeadMapping {
		a, b := o.table("Lead").field(from), o.table("Contact").field(to)
		if a == nil || b == nil || a.Type != b.Type || !b.writable() {
			return fmt.Errorf("lead_mapping: %s to %s: both must be fields, of one type", from, to)
		}
	}
	for _, id := range slices.Concat(k.HiddenRecords, k.ReadOnlyRecords) {
		if _, ok := o.recordKey(id); !ok {
			return fmt.Errorf("%q is not the id of a record that can be shared", id)
		}
	}
	for _, tr := range k.Triggers {
		t := o.table(tr.Object)
		switch {
		case t == nil:
			return fmt.Errorf("triggers: object %q is unknown", tr.Object)
		case !slices.Contains(triggerEffects, tr.Effect):
			return fmt.Errorf("triggers: effect %q is unknown: use %s", tr.Effect, strings.Join(triggerEffects, ", "))
		case tr.Effect == "take_back" && (t.field(tr.Field) == nil || t.field(tr.Field).Required):
			return fmt.Errorf("triggers: take_back needs a field that may be empty")
		case tr.Rate < 0 || tr.Rate > 1:
			return fmt.Errorf("triggers: rate is %v, must be from 0 to 1", tr.Rate)
		case tr.Effect == "cpu_limit" && tr.MaxRows < 1:
			return fmt.Errorf("triggers: cpu_limit needs max_rows")
		}
		if tr.Field != "" {
			fields = append(fields, tr.Object+"."+tr.Field)
		}
	}
	if err := k.checkPersons(o); err != nil {
		return err
	}
	for _, r := range k.ValidationRules {
		if o.table(r.Object) == nil {
			return fmt.Errorf("validation_rules: object %q is unknown", r.Object)
		}
		if r.Field != "" {
			fields = append(fields, r.Object+"."+r.Field)
		}
	}
	for _, f := range fields {
		object, name, _ := strings.Cut(f, ".")
		if t := o.table(object); t == nil || t.field(name) == nil {
			return fmt.Errorf("field %q is unknown: write Object.Field", f)
		}
	}
	for _, t := range k.TriggerFailObjects {
		if o.table(t) == nil {
			return fmt.Errorf("trigger_fail_objects: object %q is unknown", t)
		}
	}
	for id := range k.LockIDs {
		if id18, ok := canonicalID(id); !ok || id18 != id {
			return fmt.Errorf("lock_ids: %q is not an 18-character id", id)
		}
	}
	return nil
}

type knobs struct {
	mu    sync.Mutex
	k     Knobs
	rand  *rand.Rand
	ready atomic.Pointer[knobSet]
}

// knobSet is what follows from the knobs, made ready for the asking of every row. It does not change.
type knobSet struct {
	fls        map[flsKey]Access
	shares     map[shareKey]Access
	objects    map[objectKey]Access
	tracked    map[*table][]*field
	validation []rule
	triggers   []rule
	failing    []*table
	mapping    map[string]string
	noMetadata bool
}

func (kn *knobs) set() *knobSet { return kn.ready.Load() }

func (k *Knobs) compile(o *Org) *knobSet {
	s := &knobSet{fls: map[flsKey]Access{}, shares: map[shareKey]Access{}, objects: map[objectKey]Access{},
		tracked: map[*table][]*field{}, mapping: maps.Clone(k.LeadMapping), noMetadata: k.MetadataDenied}
	for _, f := range k.ReadOnlyFields {
		s.fls[flsKey{integrationUser, strings.ToLower(f)}] = ReadOnly
	}
	for _, f := range k.HiddenFields {
		s.fls[flsKey{integrationUser, strings.ToLower(f)}] = Hidden
	}
	for _, a := range k.UserAccess {
		user, t := o.userNamed(a.User), o.table(a.Object)
		if a.Field == "" {
			s.objects[objectKey{user, t}] = accessNames[a.Access]
		} else {
			s.fls[flsKey{user, strings.ToLower(t.name + "." + a.Field)}] = accessNames[a.Access]
		}
	}
	for _, id := range k.ReadOnlyRecords {
		key, _ := o.recordKey(id)
		s.shares[key] = ReadOnly
	}
	for _, id := range k.HiddenRecords {
		key, _ := o.recordKey(id)
		s.shares[key] = Hidden
	}
	for _, f := range k.TrackedFields {
		object, name, _ := strings.Cut(f, ".")
		t := o.table(object)
		s.tracked[t] = append(s.tracked[t], t.field(name))
	}
	for _, v := range k.ValidationRules {
		s.validation = append(s.validation, o.newRule(v.Object, v.Field, v.WhenContains, v.IDs, v.Message))
	}
	for _, tr := range k.Triggers {
		ru := o.newRule(tr.Object, tr.Field, tr.WhenContains, tr.IDs, tr.Message)
		ru.trigger = &tr
		s.triggers = append(s.triggers, ru)
	}
	for _, object := range k.TriggerFailObjects {
		s.failing = append(s.failing, o.table(object))
	}
	return s
}

// recordKey finds the object that an id belongs to by its prefix.
func (o *Org) recordKey(id string) (shareKey, bool) {
	id18, ok := canonicalID(id)
	if !ok {
		return shareKey{}, false
	}
	for _, t := range o.tables {
		if n := t.number(id18); !t.readOnly && n != 0 {
			return shareKey{t, n}, true
		}
	}
	return shareKey{}, false
}

const knobStream = 0x6865656420

func newKnobs(seed uint64) *knobs {
	kn := &knobs{k: Knobs{Seed: seed}, rand: rand.New(rand.NewPCG(seed, knobStream))}
	kn.ready.Store(&knobSet{})
	return kn
}

// Knobs returns the knobs as they are.
func (o *Org) Knobs() Knobs {
	o.knobs.mu.Lock()
	defer o.knobs.mu.Unlock()
	return o.knobs.k.clone()
}

func (k Knobs) clone() Knobs {
	b, _ := json.Marshal(k)
	var out Knobs
	_ = json.Unmarshal(b, &out)
	return out
}

// SetKnobs changes knobs. It changes nothing and says why if the result makes no sense.
func (o *Org) SetKnobs(change func(*Knobs)) error {
	return o.setKnobs(func(k *Knobs) error { change(k); return nil })
}

func (o *Org) setKnobs(change func(*Knobs) error) error {
	enable, err := o.changeKnobs(change)
	if err != nil || !enable {
		return err
	}
	o.mu.Lock() // the new fields must be there before a knob can name them
	err = o.enablePersons()
	o.mu.Unlock()
	if err == nil {
		_, err = o.changeKnobs(change)
	}
	return err
}

// changeKnobs changes nothing and says enable if person accounts must be switched on first.
func (o *Org) changeKnobs(change func(*Knobs) error) (enable bool, _ error) {
	o.mu.RLock() // for the field names
	defer o.mu.RUnlock()
	kn := o.knobs
	kn.mu.Lock()
	defer kn.mu.Unlock()
	k := kn.k.clone()
	if err := change(&k); err != nil {
		return false, err
	}
	if k.PersonAccounts && !o.persons {
		return true, nil
	}
	if err := k.validate(o); err != nil {
		return false, err
	}
	if k.Seed != kn.k.Seed {
		kn.rand = rand.New(rand.NewPCG(k.Seed, knobStream))
	}
	if k.ExpireTokens {
		o.sessions.expireAll()
		k.ExpireTokens = false
	}
	kn.k = k
	kn.ready.Store(k.compile(o))
	return false, nil
}

func (kn *knobs) lateCommit() (hold bool, ms int64) {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	return kn.k.HoldCommits, int64(kn.k.LateCommitMS)
}

func (kn *knobs) paging() (size int, next string) {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	return kn.k.PageSize, kn.k.NextURL
}

func (kn *knobs) shuffle() bool {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	return kn.k.ShuffleUnordered
}

func (kn *knobs) shuffleRows(rows []*row) {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	kn.rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
}

func pop(list *[]string) string {
	if len(*list) == 0 {
		return ""
	}
	f := (*list)[0]
	*list = (*list)[1:]
	if f == "ok" {
		return ""
	}
	return f
}

// tokenFault returns the fault of a token call, "" for none.
func (kn *knobs) tokenFault() string {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	return pop(&kn.k.NextToken)
}

// dataFault returns the fault of a data call, "" for none. Lists come before rates.
func (kn *knobs) dataFault(write, single bool) string {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	list := &kn.k.NextRead
	if write {
		list = &kn.k.NextWrite
	}
	if len(*list) > 0 {
		return pop(list)
	}
	hit := func(rate float64) bool { return rate > 0 && kn.rand.Float64() < rate }
	switch {
	case hit(kn.k.ErrorRate503HTML):
		return "503"
	case hit(kn.k.ExpireRate):
		return "401"
	case hit(kn.k.EmptyRate):
		return "502"
	case hit(kn.k.RedirectRate):
		return "302"
	case write && single && hit(kn.k.MultipleChoices):
		return "300"
	case hit(kn.k.TruncateRate):
		return "truncate"
	case write && kn.k.Maintenance == "read_only":
		return "readonly"
	}
	return ""
}

// spend counts one data call against the budget and says whether it may go on.
func (kn *knobs) spend() (ok bool) {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	if kn.k.BudgetMax > 0 && kn.k.BudgetUsed >= kn.k.BudgetMax {
		return false
	}
	kn.k.BudgetUsed++
	return true
}

func (kn *knobs) usage(limit int) (used, maximum int) {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	if kn.k.BudgetMax > 0 {
		limit = kn.k.BudgetMax
	}
	return kn.k.BudgetUsed, limit
}

func (kn *knobs) front() (latencyMS, expireEvery int, down bool) {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	return kn.k.LatencyMS, kn.k.ExpireEveryN, kn.k.Maintenance == "down"
}

// luck is true in a share of cases; a rate of 0 leaves nothing to luck.
func (kn *knobs) luck(rate float64) bool {
	if rate == 0 {
		return true
	}
	kn.mu.Lock()
	defer kn.mu.Unlock()
	return kn.rand.Float64() < rate
}

// locked says whether somebody else holds the record at this moment.
func (kn *knobs) locked(id string) bool {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	locked := kn.k.LockRate > 0 && kn.rand.Float64() < kn.k.LockRate
	if n := kn.k.LockIDs[id]; n != 0 {
		locked = true
		if n > 0 {
			kn.k.LockIDs[id]--
		}
	}
	return locked
}

type counters struct {
	mu sync.Mutex
	c  Counters
}

// Counters say what the org has done since it began or since DELETE /sandbox/counters.
type Counters struct {
	Calls       map[string]int `json:"calls"`  // by kind: token, query, query_more, record_update, collections_update, …
	Status      map[string]int `json:"status"` // answers by HTTP status
	Faults      map[string]int `json:"faults"` // injected, by name
	TokenCalls  int            `json:"token_calls"`
	DataCalls   int            `json:"data_calls"`
	RowsWritten int            `json:"rows_written"`
	RowsFailed  int            `json:"rows_failed"`
}

func newCounters() *counters {
	c := &counters{}
	c.reset()
	return c
}

func (c *counters) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.c = Counters{Calls: map[string]int{}, Status: map[string]int{}, Faults: map[string]int{}}
}

func (c *counters) update(f func(*Counters)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.c)
}

// Counters returns a copy of the counters.
func (o *Org) Counters() Counters {
	o.counters.mu.Lock()
	defer o.counters.mu.Unlock()
	b, _ := json.Marshal(o.counters.c)
	var out Counters
	_ = json.Unmarshal(b, &out)
	return out
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.WriteHeader(status)
	_, _ = w.Write(marshal(v))
}

func marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("salesforcefake: answer cannot be written: %v", err)) // only our own types come here
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
