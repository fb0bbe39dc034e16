package export

import (
	"errors"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
)

func TestFiltersMeanWhatPeopleWrote(t *testing.T) {
	zone := time.FixedZone("east", -5*3600)
	f := ReadFilter(url.Values{"state": {"held"}, "source": {"crm"}, "ends": {"(0)1 42"}, "from": {"2026-11-01"}, "to": {"2026-11-30"}, "campaign": {" spring "}, "page": {"2"}})
	q, err := f.Query(zone, time.Hour)
	want := ledger.Query{States: []consent.State{consent.Held}, Sources: []consent.Source{consent.CRM}, Ends: "0142", Campaign: "spring", Window: time.Hour,
		Since: time.Date(2026, 11, 1, 0, 0, 0, 0, zone), Until: time.Date(2026, 12, 1, 0, 0, 0, 0, zone)}
	if err != nil || !reflect.DeepEqual(q, want) {
		t.Errorf("the query is %+v, %v", q, err)
	}
	if back := ReadFilter(f.Values()); back != f {
		t.Errorf("%+v became %+v", f, back)
	}
	if q, err := (Filter{}).Query(zone, 0); err != nil || !reflect.DeepEqual(q.States, []consent.State{consent.OptedOut, consent.Held}) {
		t.Errorf("no filter is %+v, %v", q, err)
	}
	if q, err := (Filter{State: "all"}).Query(zone, 0); err != nil || q.States != nil {
		t.Errorf("all states are %+v, %v", q, err)
	}
	for field, bad := range map[string]Filter{
		"state": {State: "unknown"}, "source": {Source: "me"}, "ends": {Ends: "12x"}, "from": {From: "1.11.2026"}, "to": {To: "2026-13-01"},
	} {
		var e *FilterError
		if _, err := bad.Query(zone, 0); !errors.As(err, &e) || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
