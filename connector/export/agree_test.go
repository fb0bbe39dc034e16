package export

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/sms/phone"
)

// What the page lists under a filter is what an export with the same filter has: the ledger's Find and Rows agree.
func TestAnExportHasWhatTheFilterFinds(t *testing.T) {
	l, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := rand.New(rand.NewPCG(1, 2))
	day := func(n int) time.Time { return time.Date(2026, 11, 1+n, 0, 0, 0, 0, time.UTC) }
	actions := []consent.Action{consent.OptOut, consent.OptOut, consent.OptIn, consent.Hold, consent.Ask, consent.Release}
	for i := range 400 {
		n := phone.FromUint64(14155550000 + uint64(r.IntN(150)))
		at := day(r.IntN(20))
		if i%4 == 0 {
			m := ledger.Message{ID: fmt.Sprint("m", i), To: n, Body: "x", Account: "main", Campaign: []string{"spring", "autumn", ""}[r.IntN(3)], Decision: consent.Decision{Verdict: consent.Allow, Reason: consent.OK}, CreatedAt: at}
			if _, _, err := l.Open(t.Context(), m, m.Decision); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Append(t.Context(), ledger.Event{Kind: ledger.KindOutcome, At: at, Number: n, Outcome: &ledger.Outcome{Message: m.ID, Status: ledger.StatusSent, ProviderID: m.ID, StartedAt: at}}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		c := consent.Change{Action: actions[r.IntN(len(actions))], Source: Sources[r.IntN(len(Sources))], At: at}
		if _, err := l.Append(t.Context(), ledger.Event{Kind: ledger.KindConsent, At: at, Number: n, Consent: &ledger.Consent{Change: c}}); err != nil {
			t.Fatal(err)
		}
	}
	filled, attributed := 0, 0
	for range 300 {
		q := ledger.Query{Window: time.Duration(r.IntN(10)) * 24 * time.Hour}
		if r.IntN(2) == 0 {
			q.States = States[r.IntN(len(States)):]
		}
		if r.IntN(3) == 0 {
			q.Sources = Sources[r.IntN(len(Sources)):]
		}
		if r.IntN(3) == 0 {
			q.Ends = fmt.Sprint(r.IntN(10))
		}
		if r.IntN(3) == 0 {
			q.Since = day(r.IntN(20))
		}
		if r.IntN(3) == 0 {
			q.Until = day(r.IntN(20))
		}
		if r.IntN(3) == 0 {
			q.Campaign = []string{"spring", "autumn", "never"}[r.IntN(3)]
		}
		var found, exported []string
		page := q
		page.Limit = 40
		for {
			f, err := l.Find(t.Context(), page)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range f.Rows {
				found = append(found, n.Number.String())
			}
			if page.After = f.Next; f.Next == "" {
				break
			}
		}
		for row, err := range Rows(t.Context(), l, q, phone.Number{}) {
			if err != nil {
				t.Fatal(err)
			}
			exported = append(exported, row.Number.String())
		}
		if !slices.IsSorted(exported) {
			t.Fatalf("%+v: not in order", q)
		}
		if slices.Sort(found); !slices.Equal(found, exported) {
			t.Fatalf("%+v:\nfound    %v\nexported %v", q, found, exported)
		}
		if len(found) > 0 {
			filled++
			if q.Campaign != "" {
				attributed++
			}
		}
	}
	if filled < 50 || attributed < 5 {
		t.Errorf("only %d filters selected anything, %d with a campaign", filled, attributed)
	}
}
