package ledger

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

var (
	noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	ada  = phone.MustParse("+15550100001")
)

func minute(m int) time.Time { return noon.Add(time.Duration(m) * time.Minute) }

func inbound(v reply.Verdict, keyword string, at time.Time) Event {
	return Event{Kind: KindInbound, At: at, Number: ada, Inbound: &Inbound{Account: "a", Body: keyword, Via: ViaWebhook, Verdict: v, Keyword: keyword}}
}

func changed(a consent.Action, src consent.Source, at time.Time) Event {
	return Event{Kind: KindConsent, At: at, Number: ada, Consent: &Consent{Change: consent.Change{Action: a, Source: src, At: at}}}
}

func TestTheRecordOfANumberDoesNotDependOnTheOrderOfEvents(t *testing.T) {
	event := rapid.Custom(func(t *rapid.T) Event {
		at := minute(rapid.IntRange(0, 3).Draw(t, "minute"))
		if rapid.Bool().Draw(t, "inbound") {
			return inbound(rapid.SampledFrom([]reply.Verdict{reply.OptOut, reply.OptIn, reply.Hold, reply.None}).Draw(t, "verdict"),
				rapid.SampledFrom([]string{"", "stop", "quit"}).Draw(t, "keyword"), at)
		}
		return changed(rapid.SampledFrom([]consent.Action{consent.OptOut, consent.OptIn, consent.Release}).Draw(t, "action"),
			rapid.SampledFrom([]consent.Source{consent.Admin, consent.CRM, consent.API, consent.Provider, consent.Deadline}).Draw(t, "source"), at)
	})
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(event, 1, 10).Draw(t, "events")
		fold := func(events []Event) (n Number) {
			for i, e := range events {
				e.Seq = uint64(i + 1)
				before := n
				var said bool
				if n, said = ApplyNumber(n, e); !said && n != before {
					t.Fatalf("event %+v changed %+v to %+v and did not say so", e, before, n)
				}
			}
			n.Seq = 0 // which event changed it last does depend on the order
			return n
		}
		want := fold(events)
		if got := fold(rapid.Permutation(append(events, events...)).Draw(t, "order")); got != want {
			t.Fatalf("%+v, in another order %+v", want, got)
		}
	})
}

func TestANumbersRecordSurvivesItsCompactForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		when := rapid.Custom(func(t *rapid.T) time.Time {
			if rapid.Bool().Draw(t, "unset") {
				return time.Time{}
			}
			return time.UnixMilli(rapid.Int64Range(-1<<40, 1<<45).Filter(func(v int64) bool { return v != 0 }).Draw(t, "ms")).UTC()
		})
		n := Number{Number: ada, Seq: rapid.Uint64().Draw(t, "seq"), Source: consent.Admin, Keyword: rapid.String().Draw(t, "keyword"),
			Facts: consent.Facts{StopAt: when.Draw(t, "stop"), StartAt: when.Draw(t, "start"), OutAt: when.Draw(t, "out"), InAt: when.Draw(t, "in"),
				HeldAt: when.Draw(t, "held"), ReleaseAt: when.Draw(t, "release"), AskedAt: when.Draw(t, "asked"), OutByCRM: rapid.Bool().Draw(t, "by crm")}}
		b := n.AppendBinary(nil)
		if back, err := DecodeNumber(ada, b); err != nil || back != n {
			t.Fatalf("%+v, %v; want %+v", back, err, n)
		}
		cut := rapid.IntRange(0, numberFixed).Draw(t, "cut")
		if _, err := DecodeNumber(ada, b[:cut]); err == nil {
			t.Fatalf("a record cut to %d bytes was read", cut)
		}
	})
}

func TestAnEventReadsBackAsItWasWritten(t *testing.T) {
	e := inbound(reply.OptOut, "stop", noon)
	e.ID, e.Inbound.Raw, e.Inbound.Body = "in/1", "Body=%F0%9F%9B%91&a=<b>\u2028\x00", "🛑 ＳＴＯＰ"
	for _, want := range []Event{
		e,
		changed(consent.OptOut, consent.CRM, noon.Add(time.Nanosecond)),
		{Kind: KindWritten, At: noon, Number: ada, Written: &Written{UpTo: 7, Want: true, Results: []WriteResult{{CRM: "sf", Key: crm.Key{Object: "Lead", ID: "00Q"}, OptedOut: true, Class: "park", Text: "no"}}}},
	} {
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decode(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
}

func TestWhatANewerVersionWroteIsNotFolded(t *testing.T) {
	for _, text := range []string{
		`{}`, `not JSON`, `{"kind":"gossip","at":"2026-03-02T12:00:00Z"}`,
		`{"kind":"inbound","at":"2026-03-02T12:00:00Z","inbound":{"account":"a","verdict":"opt_out_partly"}}`,
		`{"kind":"consent","at":"2026-03-02T12:00:00Z","number":"+15550100001","consent":{"action":"pause","source":"admin","at":"2026-03-02T12:00:00Z"}}`,
		`{"kind":"inbound","at":"2026-03-02T12:00:00Z","inbound":{"verdict":"none"},"pass":{"id":"p"}}`,
	} {
		if e, err := Decode([]byte(text)); err == nil {
			t.Errorf("%s was read as %+v", text, e)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := inbound(reply.OptOut, "stop", noon).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("%s was read, but what it writes is not: %v", b, err)
		}
		n, _ := ApplyNumber(Number{}, e) // must not panic
		Owes(Number{}, n, e)
	})
}

func TestWorkIsSettledOnlyByAnAnswerThatIsNewEnough(t *testing.T) {
	written := func(upTo uint64, classes ...crm.Class) Event {
		e := Event{Kind: KindWritten, At: noon, Number: ada, Written: &Written{UpTo: upTo}}
		for _, c := range classes {
			e.Written.Results = append(e.Written.Results, WriteResult{CRM: "sf", Key: crm.Key{Object: "Contact", ID: "003"}, Class: string(c), Text: "why"})
		}
		return e
	}
	for _, c := range []struct {
		name         string
		e            Event
		done, parked bool
	}{
		{"no records", written(5), true, false},
		{"all written", written(5, "", ""), true, false},
		{"answers older work", written(4, ""), false, false},
		{"refused", written(5, "", crm.Park), false, true},
		{"malformed", written(5, crm.Bug), false, true},
		{"to be tried again", written(5, "", crm.RetryLater), false, false},
		{"refused, and another to be tried again", written(5, crm.Park, crm.RetryNow), false, false},
		{"gone: there is no box to write", written(5, "", crm.Gone), true, false},
	} {
		o, done := Settle(Owed{Kind: OweBoxes, Seq: 5, Parked: &Parked{}}, c.e)
		if done != c.done || !done && (o.Parked != nil) != c.parked {
			t.Errorf("%s: done %v, parked %+v", c.name, done, o.Parked)
		}
	}
}
