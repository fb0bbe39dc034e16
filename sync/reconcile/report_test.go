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
		Counts: map[string]int{numbersOut: 3, numbersSettled: 3, numbersWaiting: 0, numbersParked: 0, "records_read": 1200, "pages": 6, "inbound_read": 41},
		Head:   head, HeadSeq: 512, Inbound: 400, OptOuts: 3, Blocked: 17,
	}
	busy := quiet
	busy.ID, busy.FinishedAt = "pass_20260303T070000Z_nightly_3c4d", minute(3)
	busy.Counts = map[string]int{numbersOut: 9, numbersSettled: 6, numbersWaiting: 2, numbersParked: 1, "records_read": 1201, "phones_unreadable": 4, "inbound_recovered": 1, "errors": 1, "of_a_newer_heed": 2}
	busy.Causes = map[string]int{Unticked: 3, MissedWebhook: 1, "of_a_newer_heed": 1}
	busy.Results = map[string]int{"done": 3, "pending": 1, "parked": 1}
	busy.Owed, busy.Parked, busy.Unknown = 3, 1, 2
	busy.Error = "the messages that twilio sent could not be read in full: provider: throttled (HTTP 429)\nanother source"
	busy.Notes = []string{"salesforce: 1 of the records read have the box ticked but no phone number that can be read."}
	key := func(id string) *crm.Key { return &crm.Key{Object: "Contact", ID: id} }
	found := []ledger.Correction{
		{Cause: Unticked, Action: tick, CRM: "salesforce", Record: key("003A"), Number: ada, By: "Ann Lee", ByAt: minute(-5), Result: "done", ResultAt: minute(2), Seq: 500, Detail: "The box was not ticked, although " + ada.Masked() + " opted out by texting STOP."},
		{Cause: MissedWebhook, Action: optOut, Account: "twilio", Number: bob, ByAt: minute(-90), Result: "done", Seq: 501, Detail: bob.Masked() + " texted STOP."},
		{Cause: Unticked, Action: tick, CRM: "salesforce", Record: key("003B"), Number: bob, By: "Mal\x1b[31mory\n\u202eeve", ByAt: minute(-4), Result: "parked", Text: "Ask compliance first", Seq: 502, Detail: "The box was not ticked."},
		{Cause: Unticked, Action: tick, CRM: "salesforce", Record: key("003C"), Number: bob, Seq: 503, Detail: "The box was not ticked."},
		{Cause: "of_a_newer_heed", Action: none, Result: "done", Seq: 504, Detail: "Something else."},
	}
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
		"planned": {planned, []ledger.Correction{{Cause: Unticked, Result: "planned", Detail: "The box was not ticked."}}, TextOptions{Limit: -1}},
		"running": {running, nil, TextOptions{}},
		"failed":  {failed, nil, TextOptions{}},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".txt", func(w io.Writer) error { return Text(w, c.pass, each(c.found), c.o) })
			golden(t, name+".json", func(w io.Writer) error { return JSON(w, c.pass, each(c.found)) })
		})
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
	if s := plain(strings.Repeat("é", 10), 3); s != "ééé…" {
		t.Error(s)
	}
}
