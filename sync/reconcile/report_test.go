package reconcile

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, write func(io.Writer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", path, b.String())
	}
}

func each(list []ledger.Correction) iter.Seq2[ledger.Correction, error] {
	return Result{Corrections: list}.All()
}

func TestReports(t *testing.T) {
	const head = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	quiet := ledger.Pass{
		ID: "pass_20260302T070000Z_nightly_1a2b", Kind: Nightly, Full: true, StartedAt: minute(0), FinishedAt: minute(1),
		Counts: map[string]int{numbersOut: 3, numbersSettled: 3, numbersWaiting: 0, numbersParked: 0, optOutsReceived: 3, optOutsApplied: 3, optOutsPending: 0, optOutsParked: 0, "records_read": 1200, "pages": 6, "inbound_read": 41},
		Head:   head, HeadSeq: 512, Inbound: 400, OptOuts: 3, Blocked: 17,
	}
	busy := quiet
	busy.ID, busy.FinishedAt = "pass_20260303T070000Z_nightly_3c4d", minute(3)
	busy.Counts = map[string]int{numbersOut: 9, numbersSettled: 6, numbersWaiting: 2, numbersParked: 1, optOutsReceived: 12, optOutsApplied: 8, optOutsPending: 3, optOutsParked: 1, "records_read": 1201, "phones_unreadable": 4, "inbound_recovered": 1, "errors": 1, "of_a_newer_heed": 2}
	busy.Causes = map[string]int{Unticked: 3, MissedWebhook: 1, "of_a_newer_heed": 1}
	busy.Results = map[string]int{"done": 2, "pending": 1, "parked": 1, leftAlone: 1}
	busy.Owed, busy.Parked, busy.Unknown = 3, 1, 2
	busy.Error = "the messages that twilio sent could not be read in full: provider: throttled (HTTP 429)\nanother source"
	busy.Notes = []string{"twilio: 1 of the 400 messages read came by no webhook."}
	key := func(id string) *crm.Key { return &crm.Key{Object: "Contact", ID: id} }
	three, never := 3, 0
	busy.Standing = []ledger.Standing{
		{Cause: WriteRejected, N: 1, Before: &never, Listed: []ledger.Left{{Number: bob, At: minute(-60), Detail: "The box of " + bob.Masked() + " could not be set.", Text: "salesforce Contact 003B: =HYPERLINK(\"http://evil.example\")\x1b Ask <script>alert(1)</script>"}}},
		{Cause: NumberUnreadable, N: 1204, Before: &three, Listed: []ledger.Left{
			{CRM: "salesforce", Record: key("003D"), By: "\u202eeve", At: minute(-3), Detail: "MobilePhone is no telephone number: 12 characters."},
			{CRM: "salesforce", Record: key("003E"), By: "Ann", At: minute(-4), Detail: "The box is ticked, and Phone is no telephone number: 3 characters."},
			{CRM: "salesforce", Record: key("003F"), Detail: "Phone is no telephone number: 3 characters."}}},
		{Cause: SharedNumber, N: 1, Listed: []ledger.Left{{CRM: "salesforce", Number: ada, At: minute(-9), Detail: ada.Masked() + " is on 2 Contact records. Its opt-out ticked them all."}}},
		{Cause: "stands_in_a_newer_heed", N: 2},
	}
	busy.Figures = &ledger.Figures{After: 400, UpTo: 512, From: minute(-1440), OptOuts: 7, Recovered: 1, Sent: 420, Window: 72 * time.Hour, MessageCost: 0.0079,
		Prevented: map[string]int{"opted_out": 31, "held_for_review": 2, "crm_opt_out": 2},
		InFlight:  []ledger.InFlight{{Message: "msg_1", Number: ada, Started: minute(-30), Stop: minute(-30).Add(20 * time.Millisecond), Ended: minute(-30).Add(time.Second), Status: ledger.StatusSent}}, InFlightMore: 2,
		Clocks: []ledger.Clock{{To: toBox, N: 6, P50: 400 * time.Millisecond, P95: 2500 * time.Millisecond, Worst: 15 * 24 * time.Hour, Limit: "10 business days", Late: 1},
			{To: toProvider, N: 1, P50: 90 * time.Second, P95: 90 * time.Second, Worst: 90 * time.Second}, {To: toConfirmation, N: 5, P50: time.Second, P95: 3 * time.Minute, Worst: 3 * time.Minute, Limit: "5 minutes"}},
		Campaigns: []ledger.CampaignCount{{Campaign: "", Sent: 20, OptOuts: 2}, {Campaign: "=spring<script>", Sent: 400, OptOuts: 5}}}
	found := []ledger.Correction{
		{Cause: Unticked, Action: tick, CRM: "salesforce", Record: key("003A"), Number: ada, By: "Ann Lee", ByAt: minute(-5), Result: "done", ResultAt: minute(2), Seq: 500, Detail: "The box was not ticked, although " + ada.Masked() + " opted out by texting STOP."},
		{Cause: MissedWebhook, Action: optOut, Account: "twilio", Number: bob, ByAt: minute(-90), Result: "done", Seq: 501, Detail: bob.Masked() + " texted STOP."},
		{Cause: Unticked, Action: tick, CRM: "salesforce", Record: key("003B"), Number: bob, By: "Mal\x1b[31mory\n\u202eeve<script>alert(1)</script>", ByAt: minute(-4), Result: "parked", Text: "=HYPERLINK(\"http://evil.example\") Ask compliance first", Seq: 502, Detail: "The box was not ticked."},
		{Cause: Unticked, Action: tick, CRM: "salesforce", Record: key("003C"), Number: bob, Seq: 503, Detail: "The box was not ticked."},
		{Cause: "of_a_newer_heed", Action: none, Result: leftAlone, Seq: 504, Detail: "Something else."},
	}
	stands := quiet // nothing new, and something old
	stands.Standing = []ledger.Standing{{Cause: CRMOnly, N: 3, Before: &three, Listed: []ledger.Left{
		{CRM: "salesforce", Record: key("003A"), By: "Ann", At: minute(-90000), Detail: "The box is ticked, and the record has no telephone number."}}}}
	planned := ledger.Pass{ID: "pass_x", Kind: Manual, StartedAt: minute(0), FinishedAt: minute(1), Causes: map[string]int{Unticked: 1}, Results: map[string]int{"planned": 1}}
	running := ledger.Pass{ID: "pass_y", Kind: Nightly, Full: true, StartedAt: minute(0)}
	failed := ledger.Pass{ID: "pass_z", Kind: Incremental, StartedAt: minute(0), FinishedAt: minute(1), Error: "salesforce could not be read"}
	zone := time.FixedZone("EST", -5*3600)
	for name, c := range map[string]struct {
		pass  ledger.Pass
		found []ledger.Correction
		o     TextOptions
	}{
		"quiet":   {quiet, nil, TextOptions{}},
		"busy":    {busy, found, TextOptions{Zone: zone, Limit: 2}},
		"stands":  {stands, nil, TextOptions{}},
		"planned": {planned, []ledger.Correction{{Cause: Unticked, Result: "planned", Detail: "The box was not ticked."}}, TextOptions{Limit: -1}},
		"running": {running, nil, TextOptions{}},
		"failed":  {failed, nil, TextOptions{}},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".txt", func(w io.Writer) error { return Text(w, c.pass, each(c.found), c.o) })
			golden(t, name+".json", func(w io.Writer) error { return JSON(w, c.pass, each(c.found)) })
			golden(t, name+".html", func(w io.Writer) error { return HTML(w, c.pass, each(c.found), c.o) })
			golden(t, name+".csv", func(w io.Writer) error { return CSV(w, c.pass, each(c.found)) })
		})
	}
}

// A report says "1 opt-out", and has no rate where nothing relates the opt-outs to what was sent.
func TestOfOneThereIsASingularAndOfNoCampaignNoRate(t *testing.T) {
	p := ledger.Pass{ID: "pass_1", Kind: Manual, StartedAt: minute(0), FinishedAt: minute(1), Causes: map[string]int{Unticked: 1}, Results: map[string]int{"done": 1},
		Counts: map[string]int{optOutsReceived: 1, optOutsApplied: 1, numbersOut: 1, numbersSettled: 1}, Standing: []ledger.Standing{{Cause: CRMOnly, N: 1}},
		Figures: &ledger.Figures{OptOuts: 1, Sent: 1, Prevented: map[string]int{"opted_out": 1}, Clocks: []ledger.Clock{{To: toBox, N: 1}}, InFlight: []ledger.InFlight{{Message: "msg_1", Number: ada}},
			Campaigns: []ledger.CampaignCount{{Sent: 1, OptOuts: 15}, {Campaign: "spring", Sent: 1, OptOuts: 1}}}}
	var text, page strings.Builder
	if err := errors.Join(Text(&text, p, each(nil), TextOptions{}), HTML(&page, p, each(nil), TextOptions{})); err != nil {
		t.Fatal(err)
	}
	for _, many := range []string{"1 opt-outs", "1  opt-outs", "1 numbers", "1 differences", "1  messages", "1 messages", "1  sends", "1500", "15  of"} {
		if strings.Contains(text.String(), many) || strings.Contains(strings.NewReplacer("<strong>", "", "</strong>", "").Replace(page.String()), many) {
			t.Errorf("%q is in:\n%s\n%s", many, text.String(), page.String())
		}
	}
	for _, want := range []string{"1 opt-out received = ", "1 difference found", "15  (no campaign)\n", "1  of 1 message: spring"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
}

// Other people's texts are in these files. They must neither run, nor reorder a line, nor be a formula.
func TestHostileTextsAreHarmlessInEachFormat(t *testing.T) {
	for _, name := range []string{"busy.html", "busy.csv", "busy.txt", "busy.json"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"\x1b", "\u202e", "\n=", ",=", "+1206555", "<script>alert"} {
			if strings.Contains(string(b), bad) && !(strings.HasSuffix(name, ".txt") && bad == "<script>alert") && !(strings.HasSuffix(name, ".csv") && bad == "<script>alert") && !(strings.HasSuffix(name, ".json") && bad == "\u202e") {
				t.Errorf("%s holds %q", name, bad)
			}
		}
	}
	b, err := os.ReadFile(filepath.Join("testdata", "busy.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, outside := range []string{"src=", "href=", "url(", "@import", "<script", "<link"} {
		if strings.Contains(string(b), outside) {
			t.Errorf("the page is not self-contained: %q", outside)
		}
	}
}

func TestAReportWhoseCorrectionsCannotBeReadFails(t *testing.T) {
	broken := func(yield func(ledger.Correction, error) bool) { yield(ledger.Correction{}, errors.New("damaged")) }
	p := ledger.Pass{Causes: map[string]int{Unticked: 1}}
	if err := Text(io.Discard, p, broken, TextOptions{}); err == nil {
		t.Error("text")
	}
	if err := JSON(io.Discard, p, broken); err == nil {
		t.Error("json")
	}
	if err := HTML(io.Discard, p, broken, TextOptions{}); err == nil {
		t.Error("html")
	}
	if err := CSV(io.Discard, p, broken); err == nil {
		t.Error("csv")
	}
	if s := plain(strings.Repeat("é", 10), 3); s != "ééé…" {
		t.Error(s)
	}
}
