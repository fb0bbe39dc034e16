package crmtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/heed-sms/heed/crm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type memoryWorld struct{ *CRM }

func (w memoryWorld) Directory() crm.Directory       { return w.CRM }
func (w memoryWorld) Objects() []string              { return w.CRM.Objects }
func (w memoryWorld) PhoneFields(string) []string    { return []string{"MobilePhone", "Phone"} }
func (w memoryWorld) Delete(_ testing.TB, k crm.Key) { w.CRM.Delete(k) }
func (w memoryWorld) Tick(_ testing.TB, k crm.Key, out bool) {
	w.CRM.Tick(k, "Ada Admin", out)
}
func (w memoryWorld) Merge(_ testing.TB, loser, survivor crm.Key) { w.CRM.Merge(loser, survivor) }
func (w memoryWorld) Create(_ testing.TB, object string, phones []crm.Phone, out bool) crm.Key {
	return w.Put(crm.Record{Key: crm.Key{Object: object}, Phones: phones, OptedOut: out})
}
func (w memoryWorld) OptedOut(t testing.TB, k crm.Key) bool {
	r, ok := w.Record(k)
	if !ok {
		t.Fatalf("no record %v", k)
	}
	return r.OptedOut
}

func TestTheCRMInMemoryKeepsTheContract(t *testing.T) {
	for name, now := range map[string]func() time.Time{
		"with the wall clock":     nil,
		"with a clock that rests": func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
	} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(*testing.T) World {
				c := New(now)
				c.PageSize = 2
				return memoryWorld{c}
			})
		})
	}
}

func TestWritesFailAsScripted(t *testing.T) {
	c := New(nil)
	k := c.Person("Contact", "+15555550100", false)
	locked := &crm.Error{Class: crm.RetryNow, Code: "UNABLE_TO_LOCK_ROW"}
	c.FailWrites(k, locked, locked)
	for i, want := range []error{locked, locked, nil} {
		if got := c.Write(t.Context(), []crm.Write{{Key: k, OptedOut: true}})[0].Err; got != want {
			t.Errorf("write %d: %v, want %v", i, got, want)
		}
	}
	if n := c.Counts(); n.Writes != 3 || n.Boxes != 1 {
		t.Errorf("counts %+v", n)
	}
	if w := c.Written(); len(w) != 1 || w[0].Key != k {
		t.Errorf("written %v", w)
	}
}

func TestAFailingCRMFailsEveryCall(t *testing.T) {
	c := New(nil)
	k := c.Person("Lead", "+15555550100", false)
	down := &crm.Error{Class: crm.RetryLater, Status: 503}
	c.Fail(down)
	if err := c.Write(t.Context(), []crm.Write{{Key: k}})[0].Err; err != down {
		t.Errorf("write: %v", err)
	}
	if _, err := c.Get(t.Context(), []crm.Key{k}); err != down {
		t.Errorf("get: %v", err)
	}
	if f := c.Probe(t.Context()); f[0].OK {
		t.Errorf("probe: %v", f)
	}
	c.Fail(nil)
	if err := c.Write(t.Context(), []crm.Write{{Key: k, OptedOut: true}})[0].Err; err != nil {
		t.Errorf("write after recovery: %v", err)
	}
}

func TestABlockedCallWaitsForUnblockOrItsContext(t *testing.T) {
	c := New(nil)
	k := c.Person("Contact", "+15555550100", false)
	unblock := c.Block()
	ctx, cancel := context.WithCancel(t.Context())
	impatient, patient := make(chan error, 1), make(chan error, 1)
	go func() { impatient <- c.Write(ctx, []crm.Write{{Key: k, OptedOut: true}})[0].Err }()
	go func() { patient <- c.Write(context.Background(), []crm.Write{{Key: k, OptedOut: true}})[0].Err }()
	c.WaitBlocked(2)
	cancel()
	if err := <-impatient; !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled write: %v", err)
	}
	unblock()
	unblock()
	if err := <-patient; err != nil {
		t.Errorf("the patient write: %v", err)
	}
	if n := c.Counts().Boxes; n != 1 {
		t.Errorf("%d boxes written, want 1", n)
	}
}

func TestAConvertedLeadPointsToItsContact(t *testing.T) {
	c := New(nil)
	lead := c.Person("Lead", "+15555550100", true)
	contact := c.Convert(lead, false)
	r, _ := c.Record(lead)
	if r.Converted == nil || *r.Converted != contact {
		t.Errorf("converted to %v, want %v", r.Converted, contact)
	}
	if err := c.Write(t.Context(), []crm.Write{{Key: lead, OptedOut: true}})[0].Err; crm.ClassOf(err) != crm.Gone {
		t.Errorf("writing the lead: %v", err)
	}
	c.Erase(contact)
	if _, ok := c.Record(contact); ok {
		t.Error("the erased record is still there")
	}
}
