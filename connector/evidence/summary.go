package evidence

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
)

//go:embed summary.html.tmpl
var summaryText string

var page = template.Must(template.New("summary").Parse(summaryText))

// when is a time as the summary shows it.
type when struct{ At, UTC string }

const utcFormat = "2006-01-02 15:04:05 UTC"

func (pk *Packet) when(t time.Time) when {
	utc := t.UTC().Format(utcFormat)
	if s, ok := localTime(pk.Offsets, t); ok {
		return when{s, utc}
	}
	return when{At: utc}
}

func (w when) String() string {
	if w.UTC == "" {
		return w.At
	}
	return w.At + " (" + w.UTC + ")"
}

// summary writes summary.html. It goes through the events once for each table, so that none has to be kept.
func summary(w io.Writer, pk Packet, anchors []Anchor, entries func() iter.Seq2[entry, error]) error {
	var n ledger.Number
	var cause ledger.Event
	for e, err := range entries() {
		if err != nil {
			return err
		}
		e.Event.Seq = e.Seq
		var changed bool
		if n, changed = ledger.ApplyNumber(n, e.Event); changed {
			cause = e.Event
		}
	}
	top := struct {
		Packet                      Packet
		State, Since, Why, Exported string
		WhySeq                      uint64
	}{Packet: pk, State: states[n.Facts.State()], Exported: pk.when(pk.Exported).String()}
	if at := n.At(); !at.IsZero() {
		top.Since = pk.when(at).String()
		d := describe(cause)
		top.Why, top.WhySeq = d.What+".", cause.Seq
		if cause.Inbound != nil {
			top.Why = fmt.Sprintf("%s: “%s”.", d.What, cause.Inbound.Body)
		}
	}
	if err := page.ExecuteTemplate(w, "top", top); err != nil {
		return err
	}
	table := func(name, row string, rows func(e entry, add func(any) error) error) error {
		if err := page.ExecuteTemplate(w, name, nil); err != nil {
			return err
		}
		none := true
		for e, err := range entries() {
			if err == nil {
				e.Event.Seq = e.Seq
				err = rows(e, func(v any) error { none = false; return page.ExecuteTemplate(w, row, v) })
			}
			if err != nil {
				return err
			}
		}
		if none {
			if err := page.ExecuteTemplate(w, "none", nil); err != nil {
				return err
			}
		}
		return page.ExecuteTemplate(w, "end", nil)
	}
	if err := table("records", "record", func(e entry, add func(any) error) error {
		if e.Event.Written == nil {
			return nil
		}
		for _, r := range e.Event.Written.Results {
			if err := add(struct {
				when
				Record, What string
				Seq          uint64
			}{pk.when(e.Event.At), r.CRM + " " + r.Object + " " + r.ID, boxed(r), e.Seq}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := table("messages", "message", func(e entry, add func(any) error) error {
		id := ""
		switch o := e.Event; {
		case o.Opened != nil && o.Opened.Decision.Verdict != consent.Allow:
			id = o.Opened.ID
		case o.Outcome != nil:
			id = o.Outcome.Message
		default:
			return nil
		}
		return add(struct {
			when
			What, Message string
			Seq           uint64
		}{pk.when(e.Event.At), describe(e.Event).What, id, e.Seq})
	}); err != nil {
		return err
	}
	if err := table("timeline", "event", func(e entry, add func(any) error) error {
		return add(struct {
			when
			described
			Seq  uint64
			Hash Hash
		}{pk.when(e.Event.At), describe(e.Event), e.Seq, e.Hash})
	}); err != nil {
		return err
	}
	return page.ExecuteTemplate(w, "bottom", shown(pk, anchors, cause.Seq))
}

type anchorRow struct {
	when
	Name string
	Seq  uint64
	Hash Hash
}

// shown picks the anchors for the page: the first report behind what the state rests on, the first behind everything, the
// newest, and the export's own.
func shown(pk Packet, anchors []Anchor, cause uint64) (rows []anchorRow) {
	add := func(a Anchor, name string) {
		for i := range rows {
			if rows[i].Seq == a.Seq && rows[i].Hash == a.Hash && a.Kind != "export" {
				return
			}
		}
		rows = append(rows, anchorRow{pk.when(a.At), name, a.Seq, a.Hash})
	}
	reported := anchors[:len(anchors)-1]
	for _, from := range []uint64{cause, pk.Last} {
		for _, a := range reported {
			if a.Seq >= from {
				add(a, fmt.Sprintf("%s report %s", a.Kind, a.Report))
				break
			}
		}
	}
	if len(reported) > 0 {
		a := reported[len(reported)-1]
		add(a, fmt.Sprintf("%s report %s", a.Kind, a.Report))
	}
	add(anchors[len(anchors)-1], "at the time of export")
	return rows
}

var states = map[consent.State]string{
	consent.Unknown: "Nothing stands for or against messages", consent.Pending: "Was asked whether messages are wanted, and has not answered",
	consent.OptedIn: "Opted in", consent.Held: "Held for review after an unclear reply", consent.OptedOut: "Opted out",
}

// described is an event in words.
type described struct {
	What  string
	Body  string // verbatim
	Notes []string
}

func boxed(r ledger.WriteResult) string {
	verb := "unticked"
	if r.OptedOut {
		verb = "ticked"
	}
	if r.Class != "" {
		return "could not be " + verb + ": " + strings.TrimSpace(r.Class+" "+r.Text)
	}
	return verb
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// or returns the word for a key, or the key: a packet must be readable even where a word is missing here.
func or[K ~string](words map[K]string, k K) string {
	if w, ok := words[k]; ok {
		return w
	}
	return strings.ReplaceAll(string(k), "_", " ")
}

var (
	verdicts = map[string]string{"opt_out": "The phone texted a request to stop", "opt_in": "The phone texted a request to start",
		"help": "The phone asked for help", "hold": "The phone texted something that may be a request to stop", "none": "The phone texted something else"}
	actions = map[consent.Action]string{consent.OptOut: "Opted out", consent.OptIn: "Opted in", consent.Hold: "Held for review",
		consent.Release: "Released from review: it was no request to stop", consent.Ask: "Asked whether messages are wanted",
		consent.Undo: "The opt-out was undone"}
	sources = map[consent.Source]string{consent.Recipient: "on the recipient's word", consent.Provider: "on the provider's word", consent.CRM: "in the CRM",
		consent.Admin: "by hand", consent.API: "by a program", consent.Deadline: "because nobody decided in time"}
	outcomes = map[ledger.Status]string{ledger.StatusSent: "Sent: the provider took the message", ledger.StatusBlocked: "Not sent: refused at the last moment",
		ledger.StatusHeld: "Not sent: held back", ledger.StatusFailed: "Not sent: the provider refused the message",
		ledger.StatusUnknown: "May have been sent: the provider's answer did not come", ledger.StatusQueued: "Waits to be sent"}
)

func describe(e ledger.Event) (x described) {
	note := func(format string, args ...any) { x.Notes = append(x.Notes, fmt.Sprintf(format, args...)) }
	switch {
	case e.Inbound != nil:
		in := e.Inbound
		x.What, x.Body = or(verdicts, string(in.Verdict)), in.Body
		note("to %s, account %s, message %s, by %s", in.To, in.Account, in.ProviderID, map[ledger.Via]string{ledger.ViaWebhook: "webhook", ledger.ViaLog: "the provider's log"}[in.Via])
		note("read by rule %s%s", in.Rule, prefixed(", keyword ", in.Keyword))
		if !in.SentAt.IsZero() {
			note("sent %s by the provider's clock", in.SentAt.UTC().Format(utcFormat))
		}
		if in.Missed {
			note("its webhook did not come; recovered by pass %s", in.Pass)
		}
		if in.Media > 0 {
			note("with %d pictures or other media", in.Media)
		}
	case e.Timed != nil:
		x.What = fmt.Sprintf("The provider said that the text of event %d was sent %s", e.Timed.Of, e.Timed.SentAt.UTC().Format(utcFormat))
	case e.Quarantine != nil:
		x.What = "A request of the provider could not be understood and was kept"
		note("%s", e.Quarantine.Reason)
	case e.Consent != nil:
		c := e.Consent
		x.What, x.Body = or(actions, c.Action)+" "+or(sources, c.Source), c.Why
		if c.Actor != "" {
			note("by %s", c.Actor)
		}
		if c.Record != nil {
			note("record %s %s %s", c.CRM, c.Record.Object, c.Record.ID)
		}
	case e.Opened != nil:
		m := e.Opened
		x.Body = m.Body
		switch {
		case m.Answers > 0:
			x.What = fmt.Sprintf("heed answered event %d", m.Answers)
		case m.Decision.Verdict == consent.Allow:
			x.What = "A message was asked for and allowed"
		default:
			x.What = "Not sent: a message was asked for and refused, " + or(map[consent.Reason]string{}, m.Decision.Reason)
		}
		note("message %s%s%s%s", m.ID, prefixed(", asked for by ", m.Caller), prefixed(", campaign ", m.Campaign), prefixed(", account ", m.Account))
	case e.Started != nil:
		x.What = "The queued message is being sent"
		note("message %s", e.Started.Message)
	case e.Outcome != nil:
		o := e.Outcome
		x.What = or(outcomes, o.Status)
		if o.Decision.Reason != "" && o.Decision.Verdict != consent.Allow {
			x.What += ", " + or(map[consent.Reason]string{}, o.Decision.Reason)
		}
		if o.OptedOut {
			x.What += ", because the recipient had opted out there"
		}
		note("message %s%s%s%s%s", o.Message, prefixed(", the provider's id ", o.ProviderID), prefixed(", from ", o.From), prefixed(", code ", o.Code), prefixed(": ", o.Error))
	case e.Status != nil:
		s := e.Status
		x.What = "The provider said later: " + s.Delivery + prefixed(", code ", s.Code)
		note("message %s%s", s.Message, prefixed(", the provider's id ", s.ProviderID))
	case e.Written != nil:
		x.What = "The CRM's boxes were to be unticked"
		if e.Written.Want {
			x.What = "The CRM's boxes were to be ticked"
		}
		for _, r := range e.Written.Results {
			note("%s %s %s %s", r.CRM, r.Object, r.ID, boxed(r))
		}
		if len(e.Written.Results) == 0 {
			note("nothing was left to change")
		}
	case e.Correction != nil:
		c := e.Correction
		x.What = "A pass found a difference"
		note("%s", c.Detail)
		note("cause %s, pass %s%s", c.Cause, c.Pass, prefixed(", made by ", c.By))
	case e.Dropped != nil:
		x.What = fmt.Sprintf("The answer to event %d was not sent", e.Dropped.Of)
		note("%s", e.Dropped.Why)
	case e.Told != nil:
		failed := 0
		for _, r := range e.Told.Results {
			if r.Class != "" {
				failed++
			}
			note("%s: %s", r.Account, strings.TrimSpace(orDone(r.Class)+" "+r.Text))
		}
		switch {
		case len(e.Told.Results) == 0:
			x.What = "No list of the provider's was told"
			if e.Told.Want {
				note("no account has one that heed may write")
			} else { // an undo by hand does not take a number off a list
				note("no account has one that heed may write, or only the recipient's START takes the number off it")
			}
		case failed == len(e.Told.Results):
			x.What = "The provider's own list could not be told"
		case failed > 0:
			x.What = "Not every list of the provider's could be told"
		default:
			x.What = "The provider's own list was told"
		}
	case e.Relayed != nil:
		x.What = "A client was told where its message stands: " + e.Relayed.Status
		note("message %s%s", e.Relayed.Message, prefixed(", could not be told: ", e.Relayed.Failed))
	case e.Noted != nil:
		x.What = "The outcome of a send was left on its record"
		note("message %s: %s", e.Noted.Message, strings.TrimSpace(e.Noted.Note+" "+orDone(e.Noted.Class)+" "+e.Noted.Text))
	case e.Act != nil:
		x.What = e.Act.Who + " " + or(map[string]string{"evidence": "asked for the evidence of this number"}, e.Act.What)
		x.Body = e.Act.Why
		note("%s%s", e.Act.Via, prefixed(", ", e.Act.Detail))
	default:
		x.What = string(e.Kind)
	}
	return x
}

func orDone(class string) string {
	if class == "" {
		return "done"
	}
	return class
}
