package connector_test

import (
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/export"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// An opt-out counts for the campaign of the last message that was really sent before it, within the window.
func TestAnOptOutIsAttributedToTheLastCampaignThatWasSent(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.gate.Now, r.inbox.Now = func() time.Time { return now }, func() time.Time { return now }
	send := func(n phone.Number, campaign string) {
		t.Helper()
		if _, _, err := r.gate.Send(t.Context(), connector.Send{To: n.String(), Body: "hello", Campaign: campaign}); err != nil {
			t.Fatal(err)
		}
	}
	attributed := func(n phone.Number, window time.Duration) string {
		t.Helper()
		o, err := export.RowOf(t.Context(), r.ledger, ledger.Number{Number: n}, window)
		if err != nil {
			t.Fatal(err)
		}
		return o.Campaign
	}
	bob, eve, max := phone.MustParse("+12065550143"), phone.MustParse("+12065550144"), phone.MustParse("+12065550145")

	send(ada, "winter")
	now = now.Add(time.Hour)
	send(ada, "spring")
	now = now.Add(time.Hour)
	r.provider.FailNext(&sms.Error{Class: sms.Rejected, Status: 400, Code: "30003"})
	send(ada, "summer") // never sent
	now = now.Add(time.Hour)
	r.text(ada, "STOP")
	send(ada, "autumn") // blocked
	r.text(ada, "STOP") // says it again, which changes nothing
	if got := attributed(ada, 3*time.Hour); got != "spring" {
		t.Errorf("attributed to %q", got)
	}
	if got := attributed(ada, 2*time.Hour-time.Second); got != "" {
		t.Errorf("beyond the window it is attributed to %q", got)
	}

	send(bob, "") // a message of no campaign comes between
	r.text(bob, "STOP")
	r.text(eve, "STOP") // never sent anything
	if a, b := attributed(bob, time.Hour), attributed(eve, time.Hour); a != "" || b != "" {
		t.Errorf("attributed to %q and %q", a, b)
	}
	if got := attributed(max, time.Hour); got != "" {
		t.Errorf("somebody who never opted out: %q", got)
	}

	var out []ledger.OptOut
	for o, err := range r.ledger.OptOuts(t.Context(), time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, o)
	}
	if len(out) != 3 || out[0].Number != eve || out[2].Number != ada || out[2].Keyword != "stop" || out[2].Account != "main" || out[2].Last == nil || out[0].Last != nil {
		t.Errorf("opt-outs %+v", out)
	}
	sent, blocked, other := map[string]int{}, map[string]int{}, map[string]int{}
	for tr, err := range r.ledger.Traffic(t.Context(), now.Add(-24*time.Hour)) {
		if err != nil {
			t.Fatal(err)
		}
		sent[tr.Campaign] += tr.Sent
		blocked[tr.Campaign] += tr.Blocked
		other[tr.Campaign] += tr.Other
	}
	if sent["spring"] != 1 || sent["winter"] != 1 || blocked["autumn"] != 1 || other["summer"] != 1 || sent["summer"] != 0 || other["autumn"] != 0 {
		t.Errorf("sent %v, blocked %v, other %v", sent, blocked, other)
	}
}
