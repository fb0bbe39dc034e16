package salesforce_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/crmtest"
	"github.com/heed-sms/heed/crm/salesforce"
	"github.com/heed-sms/heed/crm/salesforce/salesforcefake"
)

// world is the emulator, which was written from the vendor's documentation and not from the driver.
type world struct {
	org    *salesforcefake.Org
	driver *salesforce.Org
	ghosts int
	log    lines
	config salesforce.Config
}

func newWorld(t testing.TB, edits ...func(*salesforce.Config)) *world {
	t.Helper()
	return newWorldBehind(t, nil, edits...)
}

// newWorldBehind puts what proxy makes of it in front of the emulator.
func newWorldBehind(t testing.TB, proxy func(http.Handler) http.Handler, edits ...func(*salesforce.Config)) *world {
	t.Helper()
	fake := salesforcefake.New(salesforcefake.Options{ClientID: "client", ClientSecret: "secret"})
	w := &world{org: fake}
	handler := fake.Handler()
	if proxy != nil {
		handler = proxy(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		fake.Close()
		http.DefaultClient.CloseIdleConnections()
		server.Close()
	})
	c := salesforce.Config{Domain: server.URL, ClientID: "client", ClientSecret: "secret", PageSize: 3, Objects: []salesforce.Object{
		{Object: "Contact", Phones: []string{"MobilePhone", "Phone"}, OptOut: salesforce.OptOut{Field: "SMS_Opt_Out__c"}},
		{Object: "Lead", Phones: []string{"MobilePhone", "Phone"}, OptOut: salesforce.OptOut{Field: "SMS_Opt_Out__c"}},
	}}
	w.config = c
	w.driver = w.open(t, edits...)
	return w
}

// open returns a new driver for the org, as a new process has.
func (w *world) open(t testing.TB, edits ...func(*salesforce.Config)) *salesforce.Org {
	t.Helper()
	c := w.config
	c.Objects = slices.Clone(c.Objects)
	for _, edit := range edits {
		edit(&c)
	}
	o, err := salesforce.New(c, slog.New(slog.NewTextHandler(&w.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// lines is a log that may be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func (w *world) Directory() crm.Directory    { return w.driver }
func (w *world) Objects() []string           { return []string{"Contact", "Lead"} }
func (w *world) PhoneFields(string) []string { return []string{"MobilePhone", "Phone"} }

func (w *world) Create(_ testing.TB, object string, phones []crm.Phone, out bool) crm.Key {
	fields := map[string]any{"LastName": "Example", "SMS_Opt_Out__c": out}
	if object == "Lead" {
		fields["Company"] = "Example"
	}
	for _, p := range phones {
		fields[p.Field] = p.Raw
	}
	return crm.Key{Object: object, ID: w.org.Insert(object, fields)}
}

func (w *world) Tick(t testing.TB, k crm.Key, out bool) {
	if err := w.org.Update(k.Object, k.ID, map[string]any{"SMS_Opt_Out__c": out}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) OptedOut(t testing.TB, k crm.Key) bool {
	r, ok := w.org.Get(k.Object, k.ID)
	if !ok {
		t.Fatalf("no record %v", k)
	}
	return r["SMS_Opt_Out__c"].(bool)
}

func (w *world) Delete(t testing.TB, k crm.Key) {
	if err := w.org.Delete(k.Object, k.ID); err != nil {
		t.Fatal(err)
	}
}

func (w *world) Merge(t testing.TB, loser, survivor crm.Key) {
	if err := w.org.Merge(loser.Object, survivor.ID, []string{loser.ID}, nil); err != nil {
		t.Fatal(err)
	}
}

func (w *world) Ghost(object string) crm.Key {
	w.ghosts++
	prefix := map[string]string{"Contact": "003", "Lead": "00Q"}[object]
	return crm.Key{Object: object, ID: salesforcefake.ID18(prefix + "00000zzzzz" + string(rune('a'+w.ghosts)) + "z")}
}

func TestTheDriverKeepsTheContractAgainstTheEmulator(t *testing.T) {
	crmtest.Run(t, func(t *testing.T) crmtest.World { return newWorld(t) })
}

func TestTheDriverKeepsTheContractWithBulkJobs(t *testing.T) {
	crmtest.Run(t, func(t *testing.T) crmtest.World { return newWorld(t, bulkAlways) })
}

func TestTheEmulatorsProbeIsAllGreen(t *testing.T) {
	w := newWorld(t)
	w.Create(t, "Contact", nil, false)
	w.Create(t, "Lead", nil, false)
	for _, f := range w.driver.Probe(t.Context()) {
		if !f.OK {
			t.Errorf("%s: %s", f.What, f.Hint)
		}
	}
	w.org.SetAccess("Contact", "SMS_Opt_Out__c", salesforcefake.ReadOnly)
	if !slices.ContainsFunc(w.driver.Probe(t.Context()), func(f crm.Finding) bool { return !f.OK && f.Hint != "" }) {
		t.Error("the probe does not notice a read-only box")
	}
}

func TestTheProbeTellsOfBulkJobsAndPersonAccounts(t *testing.T) {
	w := newWorld(t)
	w.Create(t, "Contact", nil, false)
	w.Create(t, "Lead", nil, false)
	said := func(ok bool) string {
		out := ""
		for _, f := range w.driver.Probe(t.Context()) {
			if f.OK == ok {
				out += f.What + "\n"
			}
		}
		return out
	}
	if got := said(true); !strings.Contains(got, "Bulk API 2.0 answers") || strings.Contains(got, "person accounts") {
		t.Errorf("a plain org: %s", got)
	}
	w.knob(t, func(k *salesforcefake.Knobs) { k.PersonAccounts, k.NextBulk = true, []string{"disabled"} })
	if got := said(true); !strings.Contains(got, "their boxes are written as Account.SMS_Opt_Out__pc") || said(false) != "" {
		t.Errorf("with person accounts: %s; %s", got, said(false))
	}
	w.org.SetAccess("Contact", "SMS_Opt_Out__c", salesforcefake.ReadOnly)
	if got := said(false); !strings.Contains(got, "may not write Account.SMS_Opt_Out__pc") {
		t.Errorf("a read-only field of the account: %s", got)
	}
	w.org.SetAccess("Contact", "SMS_Opt_Out__c", salesforcefake.Hidden)
	if got := said(false); !strings.Contains(got, "no field SMS_Opt_Out__pc") {
		t.Errorf("a hidden field of the account: %s", got)
	}
	w.org.SetAccess("Contact", "SMS_Opt_Out__c", salesforcefake.ReadWrite)
	w.driver.Write(t.Context(), w.many(t, many)) // which a bulk job would do
	if got := said(false); !strings.Contains(got, "Bulk API 2.0 cannot be used") || !strings.Contains(got, "Async API not enabled") {
		t.Errorf("after a refusal: %s", got)
	}
	w.driver = w.open(t, func(c *salesforce.Config) { c.Bulk = salesforce.BulkNever })
	if got := said(true); !strings.Contains(got, "Bulk API 2.0 is switched off") {
		t.Errorf("switched off: %s", got)
	}
}

func TestASessionThatEndsInTheMiddleAndLockedRowsAreSurvived(t *testing.T) {
	w := newWorld(t)
	var writes []crm.Write
	for range 10 {
		writes = append(writes, crm.Write{Key: w.Create(t, "Contact", nil, false), OptedOut: true})
	}
	if err := w.org.SetKnobs(func(k *salesforcefake.Knobs) {
		k.ExpireEveryN = 2
		k.LockIDs = map[string]int{writes[3].ID: -1, writes[4].ID: 3}
	}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for p, err := range w.driver.Scan(t.Context(), crm.Key{}) {
		if err != nil {
			t.Fatal(err)
		}
		n += len(p.Records)
	}
	if n != 10 {
		t.Errorf("%d records, want 10", n)
	}
	for i, r := range w.driver.Write(t.Context(), writes) {
		if (r.Err != nil) != (i == 3) || i == 3 && crm.ClassOf(r.Err) != crm.RetryNow {
			t.Errorf("write %d: %v", i, r.Err)
		}
	}
}

func TestNotesAreLeftOnRecordsOfAnyObject(t *testing.T) {
	w := newWorld(t)
	a, b := w.Create(t, "Contact", nil, false), w.Create(t, "Lead", nil, false)
	long := strings.Repeat("ä", 300) // of which 255 are sent, and the field takes fewer
	got := w.driver.Annotate(t.Context(), []crm.Note{
		{Key: a, Field: "SMS_Opt_Out_Source__c", Text: "first"}, {Key: w.Ghost("Contact"), Field: "SMS_Opt_Out_Source__c", Text: "x"},
		{Key: b, Field: "SMS_Opt_Out_Source__c", Text: long}, {Key: a, Field: "No_Such_Field__c", Text: "x"}, {Key: a, Field: "a'b", Text: "x"},
	})
	want := []crm.Class{crm.Park, crm.Gone, crm.Park, crm.Park, crm.Bug} // one bad field fails its whole record
	for i, r := range got {
		if (r.Err == nil) != (want[i] == "") || r.Err != nil && crm.ClassOf(r.Err) != want[i] {
			t.Errorf("note %d: %v, want %q", i, r.Err, want[i])
		}
	}
	for _, r := range w.driver.Annotate(t.Context(), []crm.Note{{Key: a, Field: "SMS_Opt_Out_Source__c", Text: "second"}, {Key: b, Field: "SMS_Opt_Out_Source__c", Text: "third"}}) {
		if r.Err != nil {
			t.Error(r.Err)
		}
	}
	source := func(k crm.Key) string {
		rec, _ := w.org.Get(k.Object, k.ID)
		return fmt.Sprint(rec["SMS_Opt_Out_Source__c"])
	}
	if source(a) != "second" || source(b) != "third" {
		t.Errorf("the fields hold %q and %q", source(a), source(b))
	}
}
