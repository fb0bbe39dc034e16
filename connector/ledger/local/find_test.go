package local_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/sms/phone"
)

// Find must say what going through all numbers says, before and after changes, page by page.
func TestFindAgreesWithGoingThroughAllNumbers(t *testing.T) {
	l := mustOpen(t, t.TempDir(), local.Options{})
	defer l.Close()
	random := rand.New(rand.NewPCG(3, 4))
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := start
	campaigns := []string{"", "spring", "summer"}
	sources := []consent.Source{consent.Recipient, consent.Provider, consent.CRM, consent.Admin, consent.API, consent.Deadline}
	change := func(rounds int) {
		t.Helper()
		for i := range rounds {
			n := phone.FromUint64(12065550000 + uint64(random.IntN(150)))
			now = now.Add(time.Duration(random.IntN(7200)) * time.Second)
			if random.IntN(2) == 0 {
				id := fmt.Sprint(now.Unix(), "-", i)
				if _, err := l.Append(t.Context(), ledger.Event{Kind: ledger.KindOpened, At: now, Number: n, Opened: &ledger.Message{ID: id, To: n, Account: "a", Body: "x",
					Campaign: campaigns[random.IntN(3)], CreatedAt: now, Decision: consent.Decision{Verdict: consent.Allow, Reason: consent.OK}}},
					ledger.Event{Kind: ledger.KindOutcome, At: now, Number: n, Outcome: &ledger.Outcome{Message: id, Status: ledger.StatusSent, ProviderID: "p" + id}}); err != nil {
					t.Fatal(err)
				}
				continue
			}
			c := consent.Change{Action: []consent.Action{consent.OptOut, consent.OptOut, consent.OptIn, consent.Hold, consent.Ask}[random.IntN(5)], Source: sources[random.IntN(len(sources))], At: now}
			if _, err := l.Append(t.Context(), ledger.Event{Kind: ledger.KindConsent, At: now, Number: n, Consent: &ledger.Consent{Change: c}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	plain := func(q ledger.Query) (out []ledger.Number) {
		t.Helper()
		for n, err := range l.Numbers(t.Context(), phone.Number{}) {
			if err != nil {
				t.Fatal(err)
			}
			s, at := n.Facts.State(), n.At()
			o, err := l.LastOptOut(t.Context(), n.Number)
			if err != nil && !errors.Is(err, ledger.ErrNotFound) {
				t.Fatal(err)
			}
			if len(q.States) == 0 && s == consent.Unknown || len(q.States) > 0 && !slices.Contains(q.States, s) || len(q.Sources) > 0 && !slices.Contains(q.Sources, n.Source) ||
				!strings.HasSuffix(n.Number.String(), q.Ends) || !q.Since.IsZero() && at.Before(q.Since) || !q.Until.IsZero() && !at.Before(q.Until) ||
				q.Campaign != "" && o.Campaign(q.Window) != q.Campaign {
				continue
			}
			out = append(out, n)
		}
		slices.SortStableFunc(out, func(a, b ledger.Number) int { return b.At().Compare(a.At()) })
		return out
	}
	for round := range 6 {
		change(200)
		for _, q := range []ledger.Query{
			{}, {Limit: 7}, {Ends: "7", Limit: 3}, {Ends: "0007"}, {States: []consent.State{consent.OptedOut}}, {States: []consent.State{consent.Held, consent.Pending, consent.Unknown}},
			{Sources: []consent.Source{consent.CRM, consent.Deadline}, Limit: 5}, {Since: start.Add(48 * time.Hour), Until: start.Add(96 * time.Hour)}, {Campaign: "spring", Window: 24 * time.Hour, Limit: 4},
			{Campaign: "summer", Window: time.Second, States: []consent.State{consent.OptedOut}}, {Campaign: "never sent", Window: time.Hour}, {Ends: "99999999"},
		} {
			want := plain(q)
			var got []ledger.Number
			page := q
			for {
				f, err := l.Find(t.Context(), page)
				if err != nil {
					t.Fatal(err)
				}
				if f.Total != len(want) {
					t.Fatalf("round %d, %+v: %d in all, want %d", round, q, f.Total, len(want))
				}
				got = append(got, f.Rows...)
				if page.After = f.Next; f.Next == "" {
					break
				}
			}
			if len(got) != len(want) {
				t.Fatalf("round %d, %+v: %d numbers, want %d", round, q, len(got), len(want))
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("round %d, %+v: row %d is %v, want %v", round, q, i, got[i], want[i])
				}
			}
		}
	}
	for _, q := range []ledger.Query{{Limit: 1001}, {Limit: -1}, {After: "x"}, {Ends: "x"}, {Ends: "1234567890123456"}} {
		if _, err := l.Find(t.Context(), q); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
