package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

// What a report leaves alone names people: who changed a record, in whose words a write was refused, whose number it is.
func TestWhatIsLeftAloneNamesNobodyInListsAndBehindMasks(t *testing.T) {
	n := phone.MustParse("+12065550142")
	p := ledger.Pass{ID: "p", Standing: []ledger.Standing{{Cause: "write_rejected", N: 7, Listed: []ledger.Left{{Number: n, By: "Ann Lee", Text: "Ask Bob", Detail: "x"}}}},
		Figures: &ledger.Figures{InFlight: []ledger.InFlight{{Message: "m", Number: n}}, InFlightMore: 2}}
	listed, err := json.Marshal(brief(p))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"2065550142", "Ann", "Bob"} {
		if strings.Contains(string(listed), secret) {
			t.Errorf("a list of reports holds %q: %s", secret, listed)
		}
	}
	if b := brief(p); b.Standing[0].N != 7 || b.Figures.InFlightMore != 3 {
		t.Errorf("a list of reports miscounts: %s", listed)
	}
	masked := fmt.Sprint(maskStanding(p).Standing)
	if strings.Contains(masked, "Ann") || strings.Contains(masked, "Bob") || !strings.Contains(masked, "write_rejected") {
		t.Errorf("masked: %s", masked)
	}
	if l := p.Standing[0].Listed; len(l) != 1 || l[0].By != "Ann Lee" || len(p.Figures.InFlight) != 1 {
		t.Errorf("the pass itself was changed: %+v", p)
	}
}
