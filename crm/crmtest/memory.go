package crmtest

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heed-sms/heed/crm"
)

// Self is who a CRM's records say they were modified by after a Write.
const Self = "heed integration"

// CRM is a [crm.Directory], [crm.Getter] and [crm.Prober] in memory. Its zero value is not ready: use [New]. All methods
// are safe for concurrent use.
type CRM struct {
	// PageSize is the number of records in a page; Objects the order of objects in a scan. Set them before use.
	PageSize int
	Objects  []string

	mu      sync.Mutex
	now     func() time.Time
	last    time.Time
	serial  int
	records map[crm.Key]crm.Record
	ids     map[string][]string // of each object, sorted; nil: to be made anew
	fails   map[crm.Key][]error
	notes   map[string]string         // by record and field
	history map[crm.Key]crm.BoxChange // nil: not kept
	down    error
	blocked chan struct{}
	waiting int
	arrived *sync.Cond
	written []crm.Write
	counts  Counts
}

// Counts says how often the Directory was used.
type Counts struct {
	Scans, Pages, Changes, Gets int
	Writes                      int // calls of Write
	Boxes                       int // records written with success
}

var (
	_ crm.Directory = (*CRM)(nil)
	_ crm.Getter    = (*CRM)(nil)
	_ crm.Prober    = (*CRM)(nil)
	_ crm.Annotator = (*CRM)(nil)
	_ crm.Historian = (*CRM)(nil)
)

// New returns an empty CRM with the objects Contact and Lead and pages of 100. now is its clock; nil means time.Now.
// Each change gets a stamp later than the one before, by at least a microsecond, even if the clock stands still.
func New(now func() time.Time) *CRM {
	if now == nil {
		now = time.Now
	}
	c := &CRM{PageSize: 100, Objects: []string{"Contact", "Lead"}, now: now, records: map[crm.Key]crm.Record{}, fails: map[crm.Key][]error{}, notes: map[string]string{}}
	c.arrived = sync.NewCond(&c.mu)
	return c
}

// stamp returns the time of a change. The caller holds c.mu.
func (c *CRM) stamp() time.Time {
	t := c.now().UTC()
	if !t.After(c.last) {
		t = c.last.Add(time.Microsecond)
	}
	c.last = t
	return t
}

// Put stores a record as a user named r.ModifiedBy ("user" if empty) made it, and returns its key. An empty ID gets a
// new one; zero times are filled in.
func (c *CRM) Put(r crm.Record) crm.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.ID == "" {
		r.Key = c.newKey(r.Object)
	}
	at := c.stamp()
	for _, t := range []*time.Time{&r.Stamp, &r.ModifiedAt, &r.CreatedAt} {
		if t.IsZero() {
			*t = at
		}
	}
	if r.ModifiedBy == (crm.Actor{}) {
		r.ModifiedBy = crm.Actor{Name: "user"}
	}
	if _, known := c.records[r.Key]; !known {
		c.ids = nil
	}
	c.records[r.Key] = clone(r)
	return r.Key
}

func (c *CRM) newKey(object string) crm.Key {
	c.serial++
	prefix := map[string]string{"Contact": "003", "Lead": "00Q", "Account": "001"}[object]
	if prefix == "" {
		prefix = "a00"
	}
	return crm.Key{Object: object, ID: fmt.Sprintf("%s%012dAAA", prefix, c.serial)}
}

// Person stores a record with one phone number in MobilePhone and returns its key.
func (c *CRM) Person(object, number string, optedOut bool) crm.Key {
	return c.Put(crm.Record{Key: crm.Key{Object: object}, Phones: []crm.Phone{{Field: "MobilePhone", Raw: number}}, OptedOut: optedOut})
}

// Ghost returns a key that no record has.
func (c *CRM) Ghost(object string) crm.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.newKey(object)
}

// Record returns a record as it is now, deleted ones included.
func (c *CRM) Record(k crm.Key) (crm.Record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.records[k]
	return clone(r), ok
}

// Change lets edit change a record, as done by a user named by; the record must exist.
func (c *CRM) Change(k crm.Key, by string, edit func(*crm.Record)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.records[k]
	if !ok {
		panic(fmt.Sprintf("crmtest: no record %v", k))
	}
	r = clone(r)
	edit(&r)
	r.Key = k
	r.Stamp = c.stamp()
	r.ModifiedAt, r.ModifiedBy = r.Stamp, crm.Actor{Name: by}
	c.records[k] = r
}

// Tick sets a record's box as a user named by does.
func (c *CRM) Tick(k crm.Key, by string, optedOut bool) {
	c.Change(k, by, func(r *crm.Record) { r.OptedOut = optedOut })
}

// Delete puts a record into the recycle bin.
func (c *CRM) Delete(k crm.Key) { c.Change(k, "user", func(r *crm.Record) { r.Deleted = true }) }

// Erase removes a record without a trace, which only a scan can notice.
func (c *CRM) Erase(k crm.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.records, k)
	c.ids = nil
}

// Merge deletes loser in favour of survivor, whose box stays as it is: this is how a merge loses an opt-out.
func (c *CRM) Merge(loser, survivor crm.Key) {
	c.Change(loser, "user", func(r *crm.Record) { r.Deleted, r.MergedInto = true, survivor.ID })
	c.Change(survivor, "user", func(*crm.Record) {})
}

// Convert makes lead a converted one and returns the contact with the same phones. The contact's box is optedOut, for
// an organisation maps the field or does not.
func (c *CRM) Convert(lead crm.Key, optedOut bool) crm.Key {
	r, _ := c.Record(lead)
	contact := c.Put(crm.Record{Key: crm.Key{Object: "Contact"}, Phones: r.Phones, OptedOut: optedOut})
	c.Change(lead, "user", func(r *crm.Record) { r.Converted = &contact })
	return contact
}

// FailWrites lets the next writes to a record fail, one error each, in this order.
func (c *CRM) FailWrites(k crm.Key, errs ...error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fails[k] = append(c.fails[k], errs...)
}

// Fail lets every call fail with err until Fail(nil).
func (c *CRM) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = err
}

// Block holds every call back until unblock is called or the call's context ends. unblock may be called repeatedly.
func (c *CRM) Block() (unblock func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gate := make(chan struct{})
	c.blocked = gate
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		close(gate)
		if c.blocked == gate {
			c.blocked = nil
		}
	})
}

// WaitBlocked returns when at least n calls are held back by Block.
func (c *CRM) WaitBlocked(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting < n {
		c.arrived.Wait()
	}
}

// Written returns the writes that succeeded, in order.
func (c *CRM) Written() []crm.Write {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.written)
}

// Counts returns how often the Directory was used.
func (c *CRM) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// enter waits for Block and reports Fail.
func (c *CRM) enter(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return &crm.Error{Class: crm.RetryNow, Err: err}
	}
	if gate := c.blocked; gate != nil {
		c.waiting++
		c.arrived.Broadcast()
		c.mu.Unlock()
		var err error
		select {
		case <-gate:
		case <-ctx.Done():
			err = &crm.Error{Class: crm.RetryNow, Err: ctx.Err()}
		}
		c.mu.Lock()
		c.waiting--
		if err != nil {
			return err
		}
	}
	return c.down
}

// Scan implements [crm.Directory].
func (c *CRM) Scan(ctx context.Context, after crm.Key) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) {
		c.mu.Lock()
		c.counts.Scans++
		first := slices.Index(c.Objects, after.Object)
		c.mu.Unlock()
		if after == (crm.Key{}) {
			first = 0
		} else if first < 0 {
			yield(crm.Page{}, &crm.Error{Class: crm.Bug, Text: "cannot resume after object " + after.Object})
			return
		}
		last := after.ID
		for _, object := range c.Objects[first:] {
			for more := true; more; {
				if err := c.enter(ctx); err != nil {
					yield(crm.Page{}, err)
					return
				}
				page := crm.Page{AsOf: c.asOf()}
				page.Records, more, page.Total = c.live(object, last)
				if n := len(page.Records); n > 0 {
					last = page.Records[n-1].ID
				}
				page.Next = crm.Key{Object: object, ID: last}
				if !yield(page, nil) {
					return
				}
			}
			last = ""
		}
	}
}

// Changed implements [crm.Directory]. It looks back no further than since.
func (c *CRM) Changed(ctx context.Context, since time.Time) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) {
		c.mu.Lock()
		c.counts.Changes++
		c.mu.Unlock()
		if err := c.enter(ctx); err != nil {
			yield(crm.Page{}, err)
			return
		}
		asOf := c.asOf()
		all := c.find(func(r crm.Record) bool { return slices.Contains(c.Objects, r.Object) && !r.Stamp.Before(since) }, byStamp)
		for {
			page := crm.Page{Records: all[:min(len(all), c.PageSize)], AsOf: asOf}
			all = all[len(page.Records):]
			if !yield(page, nil) || len(all) == 0 {
				return
			}
			if err := c.enter(ctx); err != nil {
				yield(crm.Page{}, err)
				return
			}
		}
	}
}

// Get implements [crm.Getter]; deleted records are returned as such.
func (c *CRM) Get(ctx context.Context, keys []crm.Key) ([]crm.Record, error) {
	c.mu.Lock()
	c.counts.Gets++
	c.mu.Unlock()
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	return c.find(func(r crm.Record) bool { return slices.Contains(keys, r.Key) }, byID), nil
}

// Write implements [crm.Directory].
func (c *CRM) Write(ctx context.Context, writes []crm.Write) []crm.Result {
	down := c.enter(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Writes++
	results := make([]crm.Result, len(writes))
	for i, w := range writes {
		results[i].Key = w.Key
		if down != nil {
			results[i].Err = down
			continue
		}
		results[i].Err = c.write(w)
	}
	return results
}

func (c *CRM) write(w crm.Write) error {
	r, ok := c.records[w.Key]
	switch fails := c.fails[w.Key]; {
	case !slices.Contains(c.Objects, w.Object):
		return &crm.Error{Class: crm.Bug, Text: w.Object + " is not configured"}
	case len(fails) > 0:
		c.fails[w.Key] = fails[1:]
		if fails[0] != nil {
			return fails[0]
		}
	}
	switch {
	case !ok:
		return &crm.Error{Class: crm.Gone, Status: 200, Code: "INVALID_CROSS_REFERENCE_KEY", Text: "invalid cross reference id"}
	case r.Deleted:
		return &crm.Error{Class: crm.Gone, Status: 200, Code: "ENTITY_IS_DELETED", Text: "entity is deleted"}
	case r.Converted != nil:
		return &crm.Error{Class: crm.Gone, Status: 200, Code: "CANNOT_UPDATE_CONVERTED_LEAD", Text: "cannot reference converted lead"}
	}
	r = clone(r)
	r.OptedOut = w.OptedOut
	r.Stamp = c.stamp()
	r.ModifiedAt, r.ModifiedBy = r.Stamp, crm.Actor{Name: Self, Kind: crm.Self}
	c.records[w.Key] = r
	c.written = append(c.written, w)
	c.counts.Boxes++
	return nil
}

// Annotate implements [crm.Annotator]. Note returns what was left.
func (c *CRM) Annotate(ctx context.Context, notes []crm.Note) []crm.Result {
	results := make([]crm.Result, len(notes))
	err := c.enter(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, n := range notes {
		results[i].Key = n.Key
		switch r, ok := c.records[n.Key]; {
		case err != nil:
			results[i].Err = err
		case !ok || r.Deleted:
			results[i].Err = &crm.Error{Class: crm.Gone, Status: 200, Code: "ENTITY_IS_DELETED", Text: "entity is deleted"}
		case len(c.fails[n.Key]) > 0:
			results[i].Err = c.fails[n.Key][0]
			c.fails[n.Key] = c.fails[n.Key][1:]
		default:
			c.notes[n.Key.ID+" "+n.Field] = n.Text
		}
	}
	return results
}

// BoxChanges implements [crm.Historian]. KeepHistory turns it on.
func (c *CRM) BoxChanges(ctx context.Context, keys []crm.Key) (map[crm.Key]crm.BoxChange, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[crm.Key]crm.BoxChange{}
	for _, k := range keys {
		if ch, ok := c.history[k]; ok {
			found[k] = ch
		}
	}
	return found, nil
}

// KeepHistory makes the CRM remember who changed a box, from now on.
func (c *CRM) KeepHistory() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history = map[crm.Key]crm.BoxChange{}
}

// ChangeAs is Change by an actor of a kind.
func (c *CRM) ChangeAs(k crm.Key, by crm.Actor, edit func(*crm.Record)) {
	before, _ := c.Record(k)
	c.Change(k, by.Name, edit)
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records[k]
	r.ModifiedBy = by
	c.records[k] = r
	if c.history != nil && r.OptedOut != before.OptedOut {
		c.history[k] = crm.BoxChange{OptedOut: r.OptedOut, At: r.ModifiedAt, Actor: by}
	}
}

// Note returns the text that was left in a field of a record last.
func (c *CRM) Note(k crm.Key, field string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.notes[k.ID+" "+field]
}

// Probe implements [crm.Prober].
func (c *CRM) Probe(ctx context.Context) []crm.Finding {
	if err := c.enter(ctx); err != nil {
		return []crm.Finding{{What: err.Error(), Hint: "call Fail(nil)"}}
	}
	return []crm.Finding{{OK: true, What: "the CRM in memory is ready"}}
}

// asOf is a time before any later change: one of the same instant has a later stamp.
func (c *CRM) asOf() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Pages++
	t := c.now().UTC()
	if t.Before(c.last) {
		t = c.last
	}
	return t
}

// live returns a page of an object's live records behind an id, whether there are more, and how many there are of all objects.
func (c *CRM) live(object, last string) (page []crm.Record, more bool, total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids == nil {
		c.ids = map[string][]string{}
		for k := range c.records {
			c.ids[k.Object] = append(c.ids[k.Object], k.ID)
		}
		for _, ids := range c.ids {
			slices.Sort(ids)
		}
	}
	lives := func(r crm.Record) bool { return !r.Deleted && r.Converted == nil }
	for k, r := range c.records {
		if lives(r) && slices.Contains(c.Objects, k.Object) {
			total++
		}
	}
	ids := c.ids[object]
	at, _ := slices.BinarySearch(ids, last+"\x00")
	for _, id := range ids[at:] {
		switch r := c.records[crm.Key{Object: object, ID: id}]; {
		case !lives(r):
		case len(page) == c.PageSize:
			return page, true, total
		default:
			page = append(page, clone(r))
		}
	}
	return page, false, total
}

func byID(a, b crm.Record) int    { return strings.Compare(a.ID, b.ID) }
func byStamp(a, b crm.Record) int { return a.Stamp.Compare(b.Stamp) }

func (c *CRM) find(want func(crm.Record) bool, order func(a, b crm.Record) int) []crm.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []crm.Record
	for r := range maps.Values(c.records) {
		if want(r) {
			found = append(found, clone(r))
		}
	}
	slices.SortFunc(found, order)
	return found
}

func clone(r crm.Record) crm.Record {
	r.Phones = slices.Clone(r.Phones)
	if r.Converted != nil {
		k := *r.Converted
		r.Converted = &k
	}
	return r
}
