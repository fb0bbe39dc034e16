package connector_test

import (
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
)

// A process that dies after it has set a box, and noted so in the mirror, leaves no event that tells of it. The next one
// finds the box set. It must still tell that it is, for the record and for the clocks of the reports.
func TestABoxThatADeadProcessHasSetIsToldOf(t *testing.T) {
	r := newRig(t)
	k := r.person("Contact", ada.String(), false)
	untouched := r.person("Lead", ada.String(), true) // ticked by somebody else, long before
	r.text(ada, "STOP")
	if res := r.crm.Write(t.Context(), []crm.Write{{Key: k, OptedOut: true}}); res[0].Err != nil {
		t.Fatal(res[0].Err)
	}
	if err := r.ledger.Mirror("org").Wrote(t.Context(), []crm.Key{k}, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	// heed died here.
	writes := r.crm.Counts().Writes
	r.flush()
	if n, _ := r.owed(); n != 0 || r.crm.Counts().Writes != writes {
		t.Errorf("%d owed, %d more writes", n, r.crm.Counts().Writes-writes)
	}
	var told []ledger.WriteResult
	for e, err := range r.ledger.History(t.Context(), ada) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Written != nil {
			told = append(told, e.Written.Results...)
		}
	}
	if len(told) != 1 || told[0].Key != k || told[0].Class != "" || !told[0].OptedOut {
		t.Errorf("told of %+v, want %v alone and not %v", told, k, untouched)
	}
}
