// Package crmtest holds what tests of heed need of a CRM: [Run], the conformance suite that every [crm.Directory] must
// pass, and [CRM], a Directory in memory that tests can script.
//
// It is for tests only. It speaks no CRM's protocol; the emulators of real CRMs are beside their drivers.
package crmtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/heed-sms/heed/crm"
)

// World is a CRM under test, with the means to change it behind the Directory's back.
type World interface {
	Directory() crm.Directory
	// Objects names the configured objects, at least one, in configured order.
	Objects() []string
	// PhoneFields names an object's phone fields, at least one, in configured order.
	PhoneFields(object string) []string
	// Create makes a live record and returns its key.
	Create(t testing.TB, object string, phones []crm.Phone, optedOut bool) crm.Key
	// Tick sets a record's box as a user of the CRM does.
	Tick(t testing.TB, key crm.Key, optedOut bool)
	// OptedOut reads a record's box, not through the Directory.
	OptedOut(t testing.TB, key crm.Key) bool
	// Delete deletes a record as a user does.
	Delete(t testing.TB, key crm.Key)
	// Ghost returns a well-formed key that no record ever had.
	Ghost(object string) crm.Key
}

// Merger is implemented by worlds whose CRM merges records.
type Merger interface {
	Merge(t testing.TB, loser, survivor crm.Key)
}

// Run tests the contract of [crm.Directory] and, where implemented, [crm.Getter] and [crm.Prober]. newWorld returns an
// empty world each time. A small page size in the world makes the paging tests say more.
func Run(t *testing.T, newWorld func(t *testing.T) World) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, World)
	}{
		{"an empty CRM scans without error", scanEmpty},
		{"a scan yields every live record once with its phones and box", scanAll},
		{"a scan resumes after any page", scanResumes},
		{"a scan leaves out deleted records", scanSkipsDeleted},
		{"a scan stops when its reader does", scanStops},
		{"a scan of a cancelled context fails", scanCancelled},
		{"a scan refuses to resume after an object that is not configured", scanForeignKey},
		{"changes carry a time for the checkpoint even if there are none", changedEmpty},
		{"changes since the checkpoint include what happened after it", changedFinds},
		{"changes are in the order of their stamps within an object", changedOrdered},
		{"changes include deleted records", changedDeleted},
		{"changes include merged records with their survivor", changedMerged},
		{"a write sets the box and a second write clears it", writeSets},
		{"a write of the value that is there already succeeds", writeIdempotent},
		{"results come one for each write, in order, whatever fails", writeResults},
		{"several writes to one record leave the last value", writeRepeated},
		{"more writes than fit in a call all arrive", writeMany},
		{"no writes give no results", writeNone},
		{"writes of a cancelled context all fail", writeCancelled},
		{"a write to a deleted record is Gone", writeGone},
		{"the directory's own writes are marked as its own", writeBySelf},
		{"a user's change is not marked as the directory's own", tickNotBySelf},
		{"get returns existing records and leaves out unknown ones", get},
		{"probe returns findings with hints for what is wrong", probe},
		{"a directory is safe for concurrent use", concurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newWorld(t)) })
	}
}

func numbers(w World, object string, n int) []crm.Phone {
	digits := []byte("+15555550100")
	for i := len(digits) - 1; n > 0; i-- {
		digits[i] = '0' + byte(n%10)
		n /= 10
	}
	return []crm.Phone{{Field: w.PhoneFields(object)[0], Raw: string(digits)}}
}

func scan(t testing.TB, d crm.Directory, after crm.Key) ([]crm.Record, []crm.Page) {
	t.Helper()
	var all []crm.Record
	var pages []crm.Page
	for p, err := range d.Scan(t.Context(), after) {
		if err != nil {
			t.Fatalf("Scan after %v: %v", after, err)
		}
		pages = append(pages, p)
		all = append(all, p.Records...)
	}
	return all, pages
}

func changed(t testing.TB, d crm.Directory, since time.Time) (map[crm.Key]crm.Record, time.Time) {
	t.Helper()
	all := map[crm.Key]crm.Record{}
	var asOf time.Time
	for p, err := range d.Changed(t.Context(), since) {
		if err != nil {
			t.Fatalf("Changed since %v: %v", since, err)
		}
		if asOf.IsZero() {
			asOf = p.AsOf
		}
		for _, r := range p.Records {
			all[r.Key] = r
		}
	}
	if asOf.IsZero() {
		t.Fatal("Changed yielded no page with a time, so no checkpoint could ever be taken")
	}
	return all, asOf
}

func write(t testing.TB, d crm.Directory, writes ...crm.Write) []crm.Result {
	t.Helper()
	results := d.Write(t.Context(), writes)
	if len(results) != len(writes) {
		t.Fatalf("%d results for %d writes", len(results), len(writes))
	}
	for i, r := range results {
		if r.Key != writes[i].Key {
			t.Fatalf("result %d is for %v, want %v", i, r.Key, writes[i].Key)
		}
		var e *crm.Error
		if r.Err != nil && !errors.As(r.Err, &e) {
			t.Fatalf("result %d has an error of type %T, want *crm.Error", i, r.Err)
		}
	}
	return results
}

func optOut(k crm.Key, out bool) crm.Write {
	return crm.Write{Key: k, OptedOut: out, At: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Source: "sms_reply", Text: "STOP"}
}

func scanEmpty(t *testing.T, w World) {
	if all, _ := scan(t, w.Directory(), crm.Key{}); len(all) != 0 {
		t.Errorf("%d records in an empty CRM", len(all))
	}
}

func scanAll(t *testing.T, w World) {
	want := map[crm.Key]crm.Record{}
	for _, object := range w.Objects() {
		for i := range 7 {
			phones := numbers(w, object, i+1)
			for j, f := range w.PhoneFields(object)[1:] {
				if i%2 == 0 {
					phones = append(phones, crm.Phone{Field: f, Raw: numbers(w, object, 100*(j+1)+i)[0].Raw})
				}
			}
			if i == 3 {
				phones = nil
			}
			k := w.Create(t, object, phones, i%3 == 0)
			want[k] = crm.Record{Key: k, Phones: phones, OptedOut: i%3 == 0}
		}
	}
	all, pages := scan(t, w.Directory(), crm.Key{})
	seen := map[crm.Key]bool{}
	for _, r := range all {
		expect, known := want[r.Key]
		if !known || seen[r.Key] {
			t.Errorf("record %v is foreign or repeated", r.Key)
			continue
		}
		seen[r.Key] = true
		if r.OptedOut != expect.OptedOut {
			t.Errorf("%v: opted out %v, want %v", r.Key, r.OptedOut, expect.OptedOut)
		}
		if len(r.Phones) != len(expect.Phones) {
			t.Errorf("%v: %d phones, want %d", r.Key, len(r.Phones), len(expect.Phones))
		}
		for i := range min(len(r.Phones), len(expect.Phones)) {
			if r.Phones[i] != expect.Phones[i] {
				t.Errorf("%v: phone %d is in field %s, want %s with the same text", r.Key, i, r.Phones[i].Field, expect.Phones[i].Field)
			}
		}
		if r.Deleted || r.Converted != nil || r.Stamp.IsZero() || r.ModifiedAt.IsZero() {
			t.Errorf("%v is not described as a live record with its times", r.Key)
		}
	}
	if len(seen) != len(want) {
		t.Errorf("%d records, want %d", len(seen), len(want))
	}
	objects := w.Objects()
	at := 0
	for _, r := range all { // objects in configured order, ids unique within
		for at < len(objects) && objects[at] != r.Object {
			at++
		}
	}
	if at == len(objects) {
		t.Error("the objects are not in configured order")
	}
	marks := map[crm.Key]bool{}
	for _, p := range pages {
		if p.AsOf.IsZero() {
			t.Error("a page does not say as of when it is")
		}
		if p.Total != 0 && p.Total != len(want) {
			t.Errorf("the total is %d, want %d or 0", p.Total, len(want))
		}
		if len(p.Records) > 0 && (p.Next == crm.Key{} || marks[p.Next]) {
			t.Errorf("Next is %v: it does not say where this page ends", p.Next)
		}
		marks[p.Next] = true
	}
}

func scanResumes(t *testing.T, w World) {
	for _, object := range w.Objects() {
		for i := range 5 {
			w.Create(t, object, numbers(w, object, i+1), false)
		}
	}
	all, pages := scan(t, w.Directory(), crm.Key{})
	before := 0
	for i, p := range pages {
		before += len(p.Records)
		// The scan must be one that was broken off: a driver may forget one that came to its end.
		at, n := crm.Key{}, 0
		for p, err := range w.Directory().Scan(t.Context(), crm.Key{}) {
			if err != nil {
				t.Fatal(err)
			}
			at = p.Next
			if n++; n > i {
				break
			}
		}
		rest, _ := scan(t, w.Directory(), at)
		if len(rest) != len(all)-before {
			t.Fatalf("resuming after %v gives %d records, want %d", at, len(rest), len(all)-before)
		}
		for i, r := range rest {
			if r.Key != all[before+i].Key {
				t.Fatalf("resuming after %v: record %d is %v, want %v", at, i, r.Key, all[before+i].Key)
			}
		}
	}
}

func scanSkipsDeleted(t *testing.T, w World) {
	object := w.Objects()[0]
	keep := w.Create(t, object, numbers(w, object, 1), false)
	gone := w.Create(t, object, numbers(w, object, 2), false)
	w.Delete(t, gone)
	all, _ := scan(t, w.Directory(), crm.Key{})
	if len(all) != 1 || all[0].Key != keep {
		t.Errorf("got %d records, want only the one that was not deleted", len(all))
	}
}

func scanStops(t *testing.T, w World) {
	for _, object := range w.Objects() {
		w.Create(t, object, numbers(w, object, 1), false)
	}
	for range w.Directory().Scan(t.Context(), crm.Key{}) {
		break // an iterator that yields on panics here
	}
}

func scanCancelled(t *testing.T, w World) {
	w.Create(t, w.Objects()[0], nil, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	failed := false
	for _, err := range w.Directory().Scan(ctx, crm.Key{}) {
		failed = failed || errors.Is(err, context.Canceled)
	}
	if !failed {
		t.Error("the scan ended without context.Canceled and would pass for complete")
	}
}

func scanForeignKey(t *testing.T, w World) {
	failed := false
	for _, err := range w.Directory().Scan(t.Context(), crm.Key{Object: "NoSuchObject__c", ID: "x"}) {
		failed = failed || err != nil
	}
	if !failed {
		t.Error("the scan ended without error and would pass for complete")
	}
}

func changedEmpty(t *testing.T, w World) {
	if all, _ := changed(t, w.Directory(), time.Time{}); len(all) != 0 {
		t.Errorf("%d changes in an empty CRM", len(all))
	}
}

func changedFinds(t *testing.T, w World) {
	d := w.Directory()
	object := w.Objects()[0]
	a := w.Create(t, object, numbers(w, object, 1), false)
	all, checkpoint := changed(t, d, time.Time{})
	if _, ok := all[a]; !ok {
		t.Fatal("a new record is not among the changes")
	}
	b := w.Create(t, object, numbers(w, object, 2), false)
	w.Tick(t, a, true)
	all, _ = changed(t, d, checkpoint)
	if r, ok := all[a]; !ok || !r.OptedOut {
		t.Errorf("a box ticked after the checkpoint is not among the changes (found %v)", ok)
	}
	if _, ok := all[b]; !ok {
		t.Error("a record created after the checkpoint is not among the changes")
	}
}

func changedOrdered(t *testing.T, w World) {
	object := w.Objects()[0]
	var keys []crm.Key
	for i := range 6 {
		keys = append(keys, w.Create(t, object, numbers(w, object, i+1), false))
	}
	w.Tick(t, keys[2], true)
	w.Tick(t, keys[0], true)
	last := map[string]time.Time{}
	seen := map[crm.Key]bool{}
	for p, err := range w.Directory().Changed(t.Context(), time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Records {
			seen[r.Key] = true
			if r.Stamp.Before(last[r.Object]) {
				t.Errorf("%v comes after a record with a later stamp", r.Key)
			}
			last[r.Object] = r.Stamp
		}
	}
	if len(seen) != len(keys) {
		t.Errorf("%d records, want %d", len(seen), len(keys))
	}
}

func changedDeleted(t *testing.T, w World) {
	object := w.Objects()[0]
	k := w.Create(t, object, numbers(w, object, 1), true)
	_, checkpoint := changed(t, w.Directory(), time.Time{})
	w.Delete(t, k)
	all, _ := changed(t, w.Directory(), checkpoint)
	if r, ok := all[k]; !ok || !r.Deleted {
		t.Errorf("the deleted record: found %v, deleted %v", ok, r.Deleted)
	}
}

func changedMerged(t *testing.T, w World) {
	m, ok := w.(Merger)
	if !ok {
		t.Skip("this CRM does not merge records")
	}
	object := w.Objects()[0]
	loser := w.Create(t, object, numbers(w, object, 1), true)
	survivor := w.Create(t, object, numbers(w, object, 1), false)
	_, checkpoint := changed(t, w.Directory(), time.Time{})
	m.Merge(t, loser, survivor)
	all, _ := changed(t, w.Directory(), checkpoint)
	if r := all[loser]; !r.Deleted || r.MergedInto != survivor.ID {
		t.Errorf("the loser: deleted %v, merged into %q, want %q", r.Deleted, r.MergedInto, survivor.ID)
	}
	if r, ok := all[survivor]; !ok || r.Deleted {
		t.Errorf("the survivor: found %v, deleted %v", ok, r.Deleted)
	}
}

func writeSets(t *testing.T, w World) {
	for _, object := range w.Objects() {
		k := w.Create(t, object, numbers(w, object, 1), false)
		for _, out := range []bool{true, false, true} {
			if r := write(t, w.Directory(), optOut(k, out)); r[0].Err != nil {
				t.Fatalf("%s: %v", object, r[0].Err)
			}
			if got := w.OptedOut(t, k); got != out {
				t.Fatalf("%s: the box says %v after a write of %v", object, got, out)
			}
		}
	}
}

func writeIdempotent(t *testing.T, w World) {
	object := w.Objects()[0]
	k := w.Create(t, object, numbers(w, object, 1), true)
	for range 2 {
		if r := write(t, w.Directory(), optOut(k, true)); r[0].Err != nil || !w.OptedOut(t, k) {
			t.Fatalf("error %v, box %v", r[0].Err, w.OptedOut(t, k))
		}
	}
}

func writeResults(t *testing.T, w World) {
	var writes []crm.Write
	bad := map[int]bool{}
	for _, object := range w.Objects() {
		writes = append(writes, optOut(w.Create(t, object, nil, false), true))
		bad[len(writes)] = true
		writes = append(writes, optOut(w.Ghost(object), true))
	}
	bad[len(writes)] = true
	writes = append(writes, optOut(crm.Key{Object: "NoSuchObject__c", ID: "x"}, true))
	writes = append(writes, optOut(w.Create(t, w.Objects()[0], nil, false), true))
	for i, r := range write(t, w.Directory(), writes...) {
		if (r.Err != nil) != bad[i] {
			t.Errorf("result %d (%v): %v", i, r.Key, r.Err)
		}
		if !bad[i] && !w.OptedOut(t, r.Key) {
			t.Errorf("write %d was reported as done and is not", i)
		}
	}
}

func writeRepeated(t *testing.T, w World) {
	object := w.Objects()[0]
	k := w.Create(t, object, nil, false)
	for _, r := range write(t, w.Directory(), optOut(k, false), optOut(k, true)) {
		if r.Err != nil {
			t.Error(r.Err)
		}
	}
	if !w.OptedOut(t, k) {
		t.Error("the box has the first value")
	}
}

func writeMany(t *testing.T, w World) {
	var writes []crm.Write
	for i := range 203 {
		writes = append(writes, optOut(w.Create(t, w.Objects()[i%len(w.Objects())], nil, false), true))
	}
	for i, r := range write(t, w.Directory(), writes...) {
		if r.Err != nil || !w.OptedOut(t, r.Key) {
			t.Fatalf("write %d: %v, box %v", i, r.Err, w.OptedOut(t, r.Key))
		}
	}
}

func writeNone(t *testing.T, w World) { write(t, w.Directory()) }

func writeCancelled(t *testing.T, w World) {
	k := w.Create(t, w.Objects()[0], nil, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := w.Directory().Write(ctx, []crm.Write{optOut(k, true)})
	if len(r) != 1 || !errors.Is(r[0].Err, context.Canceled) {
		t.Errorf("results %v, want one with context.Canceled", r)
	}
}

func writeGone(t *testing.T, w World) {
	k := w.Create(t, w.Objects()[0], nil, false)
	w.Delete(t, k)
	if r := write(t, w.Directory(), optOut(k, true)); crm.ClassOf(r[0].Err) != crm.Gone || r[0].Err == nil {
		t.Errorf("the error is %v, want one of class %s", r[0].Err, crm.Gone)
	}
}

func writeBySelf(t *testing.T, w World) {
	k := w.Create(t, w.Objects()[0], nil, false)
	write(t, w.Directory(), optOut(k, true))
	all, _ := scan(t, w.Directory(), crm.Key{})
	if len(all) != 1 || all[0].ModifiedBy.Kind != crm.Self || !all[0].OptedOut {
		t.Errorf("the records are %+v, want one changed by the directory itself", all)
	}
}

func tickNotBySelf(t *testing.T, w World) {
	k := w.Create(t, w.Objects()[0], nil, false)
	write(t, w.Directory(), optOut(k, true))
	w.Tick(t, k, false)
	all, _ := scan(t, w.Directory(), crm.Key{})
	if len(all) != 1 || all[0].ModifiedBy.Kind == crm.Self || all[0].OptedOut || all[0].ModifiedBy.String() == "" {
		t.Errorf("the records are %+v, want one changed by a named somebody else", all)
	}
}

func get(t *testing.T, w World) {
	g, ok := w.Directory().(crm.Getter)
	if !ok {
		t.Skip("no crm.Getter")
	}
	var keys []crm.Key
	want := map[crm.Key]bool{}
	for i, object := range w.Objects() {
		k := w.Create(t, object, numbers(w, object, 1), i == 0)
		keys = append(keys, k, w.Ghost(object), k)
		want[k] = i == 0
	}
	found, err := g.Get(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range found {
		if out, ok := want[r.Key]; !ok || out != r.OptedOut || len(r.Phones) != 1 {
			t.Errorf("unexpected or repeated record %+v", r.Key)
		}
		delete(want, r.Key)
	}
	if len(want) != 0 {
		t.Errorf("%d records are missing", len(want))
	}
	if found, err := g.Get(t.Context(), nil); err != nil || len(found) != 0 {
		t.Errorf("no keys give %d records, %v", len(found), err)
	}
}

func probe(t *testing.T, w World) {
	p, ok := w.Directory().(crm.Prober)
	if !ok {
		t.Skip("no crm.Prober")
	}
	w.Create(t, w.Objects()[0], nil, false)
	fs := p.Probe(t.Context())
	if len(fs) == 0 {
		t.Error("no findings")
	}
	for _, f := range fs {
		if f.What == "" || f.OK != (f.Hint == "") {
			t.Errorf("finding %+v: want a sentence, and a hint exactly if something is wrong", f)
		}
	}
}

func concurrent(t *testing.T, w World) {
	d := w.Directory()
	object := w.Objects()[0]
	var keys []crm.Key
	for range 8 {
		keys = append(keys, w.Create(t, object, nil, false))
	}
	done := make(chan error)
	for _, k := range keys {
		go func() { done <- d.Write(context.WithoutCancel(t.Context()), []crm.Write{optOut(k, true)})[0].Err }()
		go func() {
			var err error
			for _, e := range d.Scan(context.WithoutCancel(t.Context()), crm.Key{}) {
				err = errors.Join(err, e)
			}
			done <- err
		}()
	}
	for range 2 * len(keys) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for _, k := range keys {
		if !w.OptedOut(t, k) {
			t.Errorf("%v was not written", k)
		}
	}
}
