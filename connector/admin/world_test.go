package admin_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

// noon is when the world below stands: a Wednesday.
var noon = time.Date(2026, 3, 18, 16, 4, 0, 0, time.UTC)

var newYork = must(time.LoadLocation("America/New_York"))

// person returns the i-th telephone number of the world: 800 that nobody has (555-01xx, in eight area codes).
func person(i int) phone.Number {
	area := []int{212, 312, 415, 206, 617, 305, 512, 602}[i/100%8]
	return must(phone.Parse(fmt.Sprintf("+1%d55501%02d", area, i%100), ""))
}

// newWorld is a house two months after heed was installed in a shop: sends of four campaigns, opt-outs of every kind, three
// replies to review, a record that the CRM refuses, a nightly report that found something. It is the same each time.
func newWorld(t testing.TB) *house {
	t.Helper()
	h := newHouseAt(t, func() time.Time { return noon }, newYork)
	random := rand.New(rand.NewPCG(6, 18))
	var events []ledger.Event
	add := func(e ledger.Event) { events = append(events, e) }
	serial := 0
	send := func(at time.Time, n phone.Number, campaign, from, body string) {
		serial++
		id := fmt.Sprintf("msg_%06d", serial)
		add(ledger.Event{Kind: ledger.KindOpened, At: at, Number: n, Opened: &ledger.Message{ID: id, To: n, From: from, Account: "main", Campaign: campaign, Caller: "workflow", Body: body,
			CreatedAt: at, Decision: consent.Decision{Verdict: consent.Allow, Reason: consent.OK}}})
		add(ledger.Event{Kind: ledger.KindOutcome, At: at.Add(90 * time.Millisecond), Number: n, Outcome: &ledger.Outcome{Message: id, Status: ledger.StatusSent, ProviderID: fmt.Sprintf("SM%030d", serial), From: from, StartedAt: at}})
		add(ledger.Event{Kind: ledger.KindStatus, At: at.Add(3 * time.Second), Number: n, Status: &ledger.StatusTold{Account: "main", ProviderID: fmt.Sprintf("SM%030d", serial), Message: id, Delivery: "delivered"}})
	}
	refuse := func(at time.Time, n phone.Number, campaign, body string, reason consent.Reason) {
		serial++
		status, verdict := ledger.StatusBlocked, consent.Block
		if reason == consent.HeldForReview {
			status, verdict = ledger.StatusHeld, consent.Queue
		}
		add(ledger.Event{Kind: ledger.KindOpened, At: at, Number: n, Opened: &ledger.Message{ID: fmt.Sprintf("msg_%06d", serial), To: n, From: sender, Account: "main", Campaign: campaign, Caller: "workflow", Body: body,
			CreatedAt: at, Decision: consent.Decision{Verdict: verdict, Reason: reason}, Status: status}})
	}
	texted := func(at time.Time, n phone.Number, body string, verdict reply.Verdict, rule, keyword string) {
		serial++
		sid := fmt.Sprintf("SM%030d", serial)
		add(ledger.Event{Kind: ledger.KindInbound, ID: "in/main/" + sid, At: at, Number: n, Inbound: &ledger.Inbound{Account: "main", ProviderID: sid, From: n.String(), To: sender, Body: body,
			Via: ledger.ViaWebhook, Verdict: verdict, Rule: rule, Keyword: keyword, Raw: "From=" + n.String() + "&Body=" + body, Signature: "k3n0t"}})
	}
	changed := func(at time.Time, n phone.Number, action consent.Action, source consent.Source, actor, why string, record *crm.Key) {
		c := &ledger.Consent{Change: consent.Change{Action: action, Source: source, At: at}, Actor: actor, Why: why, Record: record}
		if source == consent.CRM {
			c.CRM = "salesforce"
		}
		add(ledger.Event{Kind: ledger.KindConsent, At: at, Number: n, Consent: c})
		add(ledger.Event{Kind: ledger.KindTold, At: at.Add(400 * time.Millisecond), Number: n, Told: &ledger.Told{UpTo: 1 << 40, Want: action == consent.OptOut, Results: []ledger.ToldResult{{Account: "main"}}}})
	}
	record := func(i, k int) crm.Key {
		if k == 0 {
			return crm.Key{Object: "Contact", ID: fmt.Sprintf("0035g00000%05dAAA", 20000+i)}
		}
		return crm.Key{Object: "Lead", ID: fmt.Sprintf("00Q5g00000%05dAAA", 40000+i)}
	}
	records := func(i int) int { return 1 + i%7/5 }
	ticked := map[int]bool{}
	wrote := func(at time.Time, i int, class, text string) {
		w := &ledger.Written{UpTo: 1 << 40, Want: true}
		for k := range records(i) {
			w.Results = append(w.Results, ledger.WriteResult{CRM: "salesforce", Key: record(i, k), OptedOut: true, Class: class, Text: text})
		}
		ticked[i] = class == ""
		add(ledger.Event{Kind: ledger.KindWritten, At: at, Number: person(i), Written: w})
	}

	stops := []struct{ body, rule, keyword string }{
		{"STOP", "opt_out_word", "STOP"}, {"Stop", "opt_out_word", "STOP"}, {"STOP", "opt_out_word", "STOP"}, {"stop", "opt_out_word", "STOP"}, {"UNSUBSCRIBE", "opt_out_word", "UNSUBSCRIBE"},
		{"pls stop texting me 🙏", "request", "stop texting"}, {"ARRET", "opt_out_word", "ARRET"}, {"Remove me from your list", "request", "remove me"}, {"stpo", "typo", "STOP"},
		{"No more messages please", "request", "no more messages"}, {"Cancel", "opt_out_word", "CANCEL"}, {"Baja", "opt_out_word", "BAJA"},
	}
	campaigns := []struct {
		name, from, body string
		perDay, people   int
		leave            float64 // of those who got it, by the way
	}{
		{"spring-sale", sender, "Acme: 20 % off spring jackets until Sunday. acme.example/spring Reply STOP to opt out", 24, 500, .058},
		{"loyalty-march", "+15550100001", "Acme Rewards: you have 340 points. Reply STOP to opt out", 19, 400, .012},
		{"appointment-reminders", "+15550100001", "Acme: see you tomorrow at 10:30. Reply C to confirm, STOP to opt out", 14, 300, .003},
		{"winback-2025", sender, "We miss you! Here is $10 for your next order. Reply STOP to opt out", 6, 200, .15},
	}
	out := map[int]time.Time{}
	left := 0
	for d := 58; d >= 0; d-- {
		day := time.Date(2026, 3, 18, 13, 0, 0, 0, time.UTC).AddDate(0, 0, -d)
		weekend := day.Weekday() == time.Saturday || day.Weekday() == time.Sunday
		for _, c := range campaigns {
			n := c.perDay
			if weekend {
				n /= 4
			}
			spike := d == 5 && c.name == "spring-sale" // somebody sent it twice
			if spike {
				n *= 7
			}
			for range n {
				i := random.IntN(c.people)
				at := day.Add(time.Duration(random.IntN(3*3600)) * time.Second)
				if d == 0 && at.After(noon) {
					at = noon.Add(-time.Duration(600+random.IntN(3000)) * time.Second)
				}
				if since, gone := out[i]; gone {
					if at.After(since) && random.IntN(3) == 0 {
						refuse(at, person(i), c.name, c.body, consent.ReasonOptedOut)
					}
					continue
				}
				send(at, person(i), c.name, c.from, c.body)
				leave := c.leave
				if spike {
					leave *= 3
				}
				if random.Float64() < leave && d > 0 {
					stop := stops[left%len(stops)]
					left++
					at = at.Add(time.Duration(40+random.IntN(4000)) * time.Second)
					out[i] = at
					texted(at, person(i), stop.body, reply.OptOut, stop.rule, stop.keyword)
					wrote(at.Add(time.Second), i, "", "")
				}
			}
		}
	}
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	const day = 24 * time.Hour
	for i, why := range []string{"asked by e-mail", "complaint by telephone, ticket 4711", "letter of 12 February", "asked in the shop"} {
		changed(ago(time.Duration(9+i)*day), person(700+i), consent.OptOut, consent.Admin, "maya.ortiz@acme.example", why, nil)
		wrote(ago(time.Duration(9+i)*day-2*time.Second), 700+i, "", "")
	}
	for i := range 6 {
		k := record(710+i, 0)
		changed(ago(time.Duration(3+4*i)*day), person(710+i), consent.OptOut, consent.CRM, "Sam Lee", "", &k)
		wrote(ago(time.Duration(3+4*i)*day-time.Second), 710+i, "", "")
	}
	changed(ago(6*day), person(720), consent.OptOut, consent.Provider, "", "error 21610: the recipient had opted out", nil)
	wrote(ago(6*day), 720, "", "")
	texted(ago(26*day), person(721), "Is this still Dana's number?", reply.Hold, "unclear", "")
	changed(ago(19*day), person(721), consent.OptOut, consent.Deadline, "", "", nil)
	wrote(ago(19*day), 721, "", "")
	// Somebody who came back.
	texted(ago(8*day), person(722), "STOP", reply.OptOut, "opt_out_word", "STOP")
	wrote(ago(8*day), 722, "", "")
	texted(ago(2*day), person(722), "START", reply.OptIn, "opt_in_word", "START")
	wrote(ago(2*day), 722, "", "")

	// The one whose story the page of a number shows.
	ada := 542
	send(ago(50*day), person(ada), "loyalty-march", "+15550100001", "Acme Rewards: you have 120 points. Reply STOP to opt out")
	send(ago(3*day+2*time.Hour), person(ada), "spring-sale", sender, "Acme: 20 % off spring jackets until Sunday. acme.example/spring Reply STOP to opt out")
	texted(ago(3*day+time.Hour), person(ada), "pls stop texting me 🙏", reply.OptOut, "request", "stop texting")
	wrote(ago(3*day+time.Hour-1300*time.Millisecond), ada, "", "")
	refuse(ago(2*day), person(ada), "spring-sale", "Acme: last chance! 20 % off spring jackets. Reply STOP to opt out", consent.ReasonOptedOut)
	k := record(ada, 0)
	add(ledger.Event{Kind: ledger.KindCorrection, At: ago(14 * time.Hour), Number: person(ada), Correction: &ledger.Correction{Pass: "rec_20260318T060000", CRM: "salesforce", Record: &k, Cause: reconcile.Unticked,
		Action: "tick", Detail: "the box of a Contact of " + person(ada).Masked() + " was empty although its owner had opted out", By: "Max Admin", ByAt: ago(17 * time.Hour)}})
	wrote(ago(14*time.Hour-2*time.Second), ada, "", "")

	// What waits for a person.
	texted(ago(26*time.Hour), person(730), "wrong number", reply.Hold, "wrong_number", "")
	texted(ago(5*time.Hour), person(731), "Who is this?? How did you get my number", reply.Hold, "who_is_this", "")
	refuse(ago(4*time.Hour), person(731), "loyalty-march", "Acme Rewards: you have 80 points. Reply STOP to opt out", consent.HeldForReview)
	texted(ago(50*time.Minute), person(732), "I think I already said no to this", reply.Hold, "unclear", "")
	texted(ago(95*time.Minute), person(733), "STOP", reply.OptOut, "opt_out_word", "STOP")
	wrote(ago(95*time.Minute-2*time.Second), 733, string(crm.Park), "FIELD_CUSTOM_VALIDATION_EXCEPTION: Mobile Phone must have 10 digits")
	texted(ago(20*time.Second), person(734), "Stop", reply.OptOut, "opt_out_word", "STOP")

	// The passes.
	for d := 6; d >= 0; d-- {
		begin := time.Date(2026, 3, 18-d, 6, 0, 0, 0, time.UTC)
		id := "rec_" + begin.Format("20060102T150405")
		p := ledger.Pass{ID: id, Kind: "nightly", Full: true, StartedAt: begin}
		add(ledger.Event{Kind: ledger.KindPass, At: begin, Pass: &p})
		if d == 3 {
			for i := range 2 {
				k := record(710+i, 0)
				add(ledger.Event{Kind: ledger.KindCorrection, At: begin.Add(time.Minute), Number: person(710 + i), Correction: &ledger.Correction{Pass: id, CRM: "salesforce", Record: &k, Cause: reconcile.LateRecord,
					Action: "tick", Detail: "a Contact of " + person(710+i).Masked() + " was created after its owner had opted out", By: "Data Import", ByAt: begin.Add(-9 * time.Hour)}})
				wrote(begin.Add(time.Minute+time.Second), 710+i, "", "")
			}
		}
		end := p
		end.FinishedAt = begin.Add(94 * time.Second)
		n := left + 13 - 4*d
		end.Counts = map[string]int{"numbers_opted_out": n, "numbers_settled": n, "numbers_waiting": 0, "numbers_parked": 0, "records_read": 48211 + 31*(6-d), "pages": 25, "inbound_read": 212 - d, "phones_unreadable": 14}
		if d == 5 {
			end.Error = "salesforce: the daily limit of API calls was used up after 31,200 records; the rest is read in the next pass"
		}
		end.Head, end.HeadSeq = strings.Repeat("8f3a61c0", 8), uint64(4000+50*(6-d))
		end.Figures = &ledger.Figures{After: uint64(3950 + 50*(6-d)), UpTo: end.HeadSeq, From: begin.AddDate(0, 0, -1), OptOuts: 4 + d%3, Recovered: d % 2, Sent: 61 + d, Prevented: map[string]int{"opted_out": 9 - d, "held_for_review": 1}, Window: 72 * time.Hour,
			Clocks:    []ledger.Clock{{To: "box", N: 4, P50: 900 * time.Millisecond, P95: 2 * time.Second, Worst: 2 * time.Second, Limit: "10 business days"}},
			Campaigns: []ledger.CampaignCount{{Campaign: "spring-sale", Sent: 24, OptOuts: 2}, {Campaign: "loyalty-march", Sent: 19, OptOuts: 1}}}
		add(ledger.Event{Kind: ledger.KindPass, At: end.FinishedAt, Pass: &end})
	}
	add(ledger.Event{Kind: ledger.KindAct, At: ago(30 * time.Hour), Act: &ledger.Act{Who: "maya.ortiz@acme.example", Via: "page", What: "export", Detail: "the list of numbers as csv, 1 filter"}})
	add(ledger.Event{Kind: ledger.KindAct, At: ago(29 * time.Hour), Act: &ledger.Act{Who: "jon.bell@acme.example", Via: "page", What: "retry", Detail: "all owed work", Why: "the validation rule was changed"}})

	slices.SortStableFunc(events, func(a, b ledger.Event) int { return a.At.Compare(b.At) })
	for part := range slices.Chunk(events, 500) {
		if _, err := h.l.Append(t.Context(), part...); err != nil {
			t.Fatal(err)
		}
	}
	var mirror []ledger.MirrorRecord
	for i := range 800 {
		for k := range records(i) {
			mirror = append(mirror, ledger.MirrorRecord{Key: record(i, k), Numbers: []phone.Number{person(i)}, OptedOut: ticked[i], SeenAt: ago(time.Minute), Stamp: ago(time.Hour)})
		}
	}
	if err := h.l.Mirror("salesforce").Put(t.Context(), mirror); err != nil {
		t.Fatal(err)
	}
	return h
}
