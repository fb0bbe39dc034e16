package salesforcefake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Knobs make the org misbehave. The zero value is a healthy org. Over HTTP they are GET and PUT /sandbox/knobs; a PUT
// changes the keys that it names. Rates are shares of calls from 0 to 1; the one-shot lists need no luck.
type Knobs struct {
	LatencyMS int `json:"latency_ms"` // each answer waits this long

	ErrorRate503HTML float64 `json:"error_rate_503_html"` // data calls answered 503 with an HTML page, nothing applied
	EmptyRate        float64 `json:"empty_rate"`          // data calls answered 502 with no body, nothing applied
	RedirectRate     float64 `json:"redirect_rate"`       // data calls answered 302 to the same URL, nothing applied
	MultipleChoices  float64 `json:"multiple_choices"`    // writes of one record answered 300, nothing applied
	TruncateRate     float64 `json:"truncate_rate"`       // answers of which only half the body arrives
	LockRate         float64 `json:"lock_rate"`           // rows that fail with UNABLE_TO_LOCK_ROW

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
	TriggerFailObjects []string         `json:"trigger_fail_objects"` // writes to these objects fail in a customer's trigger
	ReadOnlyFields     []string         `json:"read_only_fields"`     // "Contact.SMS_Opt_Out__c": FLS, read-only
	HiddenFields       []string         `json:"hidden_fields"`        // "Contact.SMS_Opt_Out__c": FLS, invisible

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
		"redirect_rate": k.RedirectRate, "multiple_choices": k.MultipleChoices, "truncate_rate": k.TruncateRate, "lock_rate": k.LockRate} {
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
	fields := slices.Concat(k.ReadOnlyFields, k.HiddenFields)
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
	mu   sync.Mutex
	k    Knobs
	fls  map[flsKey]Access
	rand *rand.Rand
}

func newKnobs(seed uint64) *knobs {
	return &knobs{rand: rand.New(rand.NewPCG(seed, 0x6865656420))}
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
	o.mu.RLock() // for the field names
	defer o.mu.RUnlock()
	kn := o.knobs
	kn.mu.Lock()
	defer kn.mu.Unlock()
	k := kn.k.clone()
	if err := change(&k); err != nil {
		return err
	}
	if err := k.validate(o); err != nil {
		return err
	}
	if k.ExpireTokens {
		o.sessions.expireAll()
		k.ExpireTokens = false
	}
	fls := map[flsKey]Access{}
	for _, f := range k.ReadOnlyFields {
		fls[flsKey{integrationUser, strings.ToLower(f)}] = ReadOnly
	}
	for _, f := range k.HiddenFields {
		fls[flsKey{integrationUser, strings.ToLower(f)}] = Hidden
	}
	kn.k, kn.fls = k, fls
	return nil
}

func (kn *knobs) access(key flsKey) Access {
	kn.mu.Lock()
	defer kn.mu.Unlock()
	return kn.fls[key]
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

// injectedRefusal answers for the customer's own automation and for locks: what can refuse a well-formed row.
func (o *Org) injectedRefusal(t *table, r *row, by author) *apiError {
	kn := o.knobs
	kn.mu.Lock()
	defer kn.mu.Unlock()
	id := ""
	if r.num != 0 {
		id = t.id(r.num)
		locked := by.lockAll || kn.k.LockRate > 0 && kn.rand.Float64() < kn.k.LockRate
		if n := kn.k.LockIDs[id]; n != 0 {
			locked = true
			if n > 0 {
				kn.k.LockIDs[id]--
			}
		}
		if locked {
			return refuse("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records: %s", id)
		}
	}
	for _, object := range kn.k.TriggerFailObjects {
		if strings.EqualFold(object, t.name) {
			event := "BeforeUpdate"
			if r.num == 0 {
				event = "BeforeInsert"
			}
			return refuse("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "%sTrigger: execution of %s\n\ncaused by: "+
				"System.NullPointerException: Attempt to de-reference a null object\n\nTrigger.%sTrigger: line 3, column 1", t.name, event, t.name)
		}
	}
	for _, v := range kn.k.ValidationRules {
		if !strings.EqualFold(v.Object, t.name) || len(v.IDs) > 0 && !slices.ContainsFunc(v.IDs, func(i string) bool {
			c, ok := canonicalID(i)
			return ok && c == id
		}) {
			continue
		}
		e := refuse("FIELD_CUSTOM_VALIDATION_EXCEPTION", "%s", v.Message)
		if v.Field != "" {
			f := t.field(v.Field)
			got := o.get(t, r, f)
			if got.kind == kindNull || got.kind == kindBool && got.n == 0 || !strings.Contains(fmt.Sprint(plain(got)), v.WhenContains) {
				continue
			}
			e.fields = []string{f.Name}
		}
		return e
	}
	return nil
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

// sandbox answers /sandbox/: the emulator's own controls, without authentication.
func (o *Org) sandbox(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, err error) {
		writeJSON(w, status, map[string]string{"error": err.Error()})
	}
	switch what := strings.Trim(strings.TrimPrefix(r.URL.Path, "/sandbox"), "/"); what + " " + r.Method {
	case "knobs GET":
		writeJSON(w, http.StatusOK, o.Knobs())
	case "knobs PUT":
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			fail(http.StatusBadRequest, err)
			return
		}
		err = o.setKnobs(func(k *Knobs) error {
			d := json.NewDecoder(bytes.NewReader(body))
			d.DisallowUnknownFields()
			if err := d.Decode(k); err != nil {
				return err
			}
			if d.More() {
				return fmt.Errorf("one JSON object is expected")
			}
			return nil
		})
		if err != nil {
			fail(http.StatusBadRequest, fmt.Errorf("knobs: %w", err))
			return
		}
		writeJSON(w, http.StatusOK, o.Knobs())
	case "counters GET":
		writeJSON(w, http.StatusOK, o.Counters())
	case "counters DELETE":
		o.counters.reset()
		w.WriteHeader(http.StatusNoContent)
	case "actions POST":
		if err := o.action(http.MaxBytesReader(w, r.Body, 1<<20)); err != nil {
			fail(http.StatusBadRequest, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(http.StatusNotFound, fmt.Errorf("the sandbox has GET|PUT /sandbox/knobs, GET|DELETE /sandbox/counters and POST /sandbox/actions"))
	}
}

// action does what an admin does in the browser and the REST API has no call for.
func (o *Org) action(body io.Reader) error {
	var a struct {
		Action    string         `json:"action"` // merge, convert, undelete, purge, update_as
		Object    string         `json:"object"`
		ID        string         `json:"id"`
		Losers    []string       `json:"losers"`
		Fields    map[string]any `json:"fields"`
		User      string         `json:"user"` // id; "" is the administrator
		MapOptOut bool           `json:"map_opt_out"`
	}
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return err
	}
	switch a.Action {
	case "merge":
		return o.Merge(a.Object, a.ID, a.Losers, a.Fields)
	case "convert":
		_, err := o.Convert(a.ID, a.MapOptOut)
		return err
	case "undelete":
		return o.Undelete(a.Object, a.ID)
	case "purge":
		return o.Purge(a.Object, a.ID)
	case "update_as":
		if a.User == "" {
			a.User = o.AdminID()
		}
		return o.UpdateAs(a.User, a.Object, a.ID, a.Fields)
	}
	return fmt.Errorf("action %q is unknown: use merge, convert, undelete, purge or update_as", a.Action)
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
