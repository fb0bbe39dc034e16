package admin

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"html/template"
	"strings"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
)

// describe says in words what an event is.
func describe(e ledger.Event) entry {
	x := entry{At: e.At, Steps: []step{stepOf(e)}}
	note := func(format string, args ...any) { x.Notes = append(x.Notes, say(format, args...)) }
	if e.Number.IsValid() && e.Consent != nil {
		note("number %s", e.Number)
	}
	switch {
	case e.Inbound != nil:
		in := e.Inbound
		x.What = map[reply.Verdict]template.HTML{reply.OptOut: "Texted a request to stop", reply.OptIn: "Texted a request to start again", reply.Help: "Asked for help",
			reply.Hold: "Texted something that may be a request to stop", reply.None: "Texted something else"}[in.Verdict]
		x.Body = in.Body
		x.Tone = map[reply.Verdict]string{reply.OptOut: "bad", reply.OptIn: "ok", reply.Hold: "warn"}[in.Verdict]
		x.Raw, x.Proof = in.Raw, in.Signature
		note("to %s, through %s by %s", in.To, in.Account, map[ledger.Via]template.HTML{ledger.ViaWebhook: "webhook", ledger.ViaLog: "the provider's log"}[in.Via])
		note("read as: %s%s", words(in.Rule), prefixed(", keyword ", in.Keyword))
		if in.Missed {
			note("its webhook never came; recovered by pass %s", in.Pass)
		}
		if in.Media > 0 {
			note("with %s pictures or other media", fmt.Sprint(in.Media))
		}
	case e.Timed != nil:
		x.What = "The provider said when the START was sent"
		note("sent %s", e.Timed.SentAt.UTC().Format("2006-01-02 15:04:05 UTC"))
	case e.Consent != nil:
		c := e.Consent
		x.What = map[consent.Action]template.HTML{consent.OptOut: "Opted out", consent.OptIn: "Opted in", consent.Undo: "The opt-out was undone", consent.Hold: "Held for review", consent.Release: "Released: it was no request to stop", consent.Ask: "Asked whether messages are wanted"}[c.Action]
		x.What += map[consent.Source]template.HTML{consent.Provider: " on the provider's word", consent.CRM: " in the CRM", consent.Admin: " by hand", consent.API: " by a program", consent.Deadline: " because nobody decided in time"}[c.Source]
		x.Tone = map[consent.Action]string{consent.OptOut: "bad", consent.OptIn: "ok", consent.Undo: "ok", consent.Hold: "warn", consent.Release: "ok"}[c.Action]
		if c.Actor != "" {
			note("by %s", c.Actor)
		}
		if c.Record != nil {
			note("record %s %s %s", c.CRM, c.Record.Object, c.Record.ID)
		}
		x.Body = c.Why
	case e.Opened != nil:
		m := *e.Opened
		m.Status = cmp.Or(m.Status, map[consent.Verdict]ledger.Status{consent.Allow: ledger.StatusQueued, consent.Later: ledger.StatusQueued, consent.Queue: ledger.StatusHeld}[m.Decision.Verdict], ledger.StatusBlocked)
		x.message = &m
		x.Body = m.Body
		note("%s%s%s%s", m.ID, prefixed(" · by ", m.Caller), prefixed(" · campaign ", m.Campaign), prefixed(" · from ", m.From))
		if !m.SendAt.IsZero() {
			note("to be sent %s", m.SendAt.UTC().Format("2006-01-02 15:04 UTC"))
		}
		x.title()
	case e.Started != nil:
		x.What = "The queued message is being sent"
	case e.Outcome != nil:
		x.What = say("The message is %s", words(e.Outcome.Status))
		note("%s%s", e.Outcome.Message, prefixed(" · ", e.Outcome.Error))
	case e.Status != nil:
		x.What = say("The provider says: %s%s", words(e.Status.Delivery), prefixed(", code ", e.Status.Code))
	case e.Written != nil:
		x.What = "Boxes were unticked"
		if e.Written.Want {
			x.What = "Boxes were ticked"
		}
		failed := 0
		for _, r := range e.Written.Results {
			if r.Class != "" {
				failed++
			}
			note("%s %s %s%s", r.CRM, r.Object, r.ID, prefixed(": ", strings.TrimSpace(failure(crm.Class(r.Class))+" "+r.Text)))
		}
		switch {
		case len(e.Written.Results) == 0:
			x.What = "No record has this number; no box to set"
		case failed > 0:
			x.Tone = "warn"
			x.What = say("%s of %s could not be set", fmt.Sprint(failed), count(len(e.Written.Results), "box", "boxes"))
		}
	case e.Correction != nil:
		x.What = say("A reconciliation found a difference: %s", words(e.Correction.Cause))
		x.Tone = "warn"
		x.Body = e.Correction.Detail
		note("%s, %s%s", e.Correction.Pass, words(e.Correction.Action), prefixed(", last changed by ", e.Correction.By))
	case e.Dropped != nil:
		x.What = "No confirmation was sent"
		x.Body = e.Dropped.Why
	case e.Told != nil:
		failed := 0
		for _, r := range e.Told.Results {
			if r.Class != "" {
				failed++
			}
			note("%s%s", r.Account, prefixed(": ", strings.TrimSpace(plainWords(r.Class)+" "+r.Text)))
		}
		switch {
		case len(e.Told.Results) == 0: // no account has one that heed may write, or only a START takes the number off it
			x.What = "No list of the provider's was told"
		case failed == len(e.Told.Results):
			x.What, x.Tone = "The provider's own list could not be told", "warn"
		case failed > 0:
			x.What, x.Tone = "Not every list of the provider's could be told", "warn"
		default:
			x.What = "The provider's own list was told"
		}
	case e.Relayed != nil:
		x.What = say("The client was told: %s", words(e.Relayed.Status))
		if e.Relayed.Failed != "" {
			x.What = say("The client could not be told: %s", e.Relayed.Failed)
		}
	case e.Noted != nil:
		x.What = say("The outcome was left on the record: %s", e.Noted.Note)
		if e.Noted.Class != "" {
			x.What = "The outcome could not be left on the record"
			x.Body = e.Noted.Text
		}
	case e.Access != nil:
		a := e.Access
		sort := map[ledger.AccessSort]template.HTML{ledger.AccessKey: "API key", ledger.AccessUser: "Account"}[a.Sort]
		x.What = say("%s %s: %s", sort, a.Name, strings.Join(a.May, ", "))
		if a.Removed {
			x.What = say("%s %s was taken away", sort, a.Name)
		}
		note("by %s", a.By)
		x.Body = a.Why
	case e.Act != nil:
		x.What = say("%s%s", words(e.Act.What), prefixed(": ", e.Act.Detail))
		note("by %s, %s", e.Act.Who, words(e.Act.Via))
		x.Body = e.Act.Why
	default:
		x.What = words(e.Kind)
	}
	return x
}

// failure says what a CRM's class of failure means.
func failure(c crm.Class) string {
	switch c {
	case "":
		return ""
	case crm.Park, crm.Bug:
		return "refused:"
	case crm.Gone:
		return "the record is gone."
	}
	return "to be tried again:"
}

// stepOf is an event's place in the journal.
func stepOf(e ledger.Event) step {
	s := step{At: e.At, Seq: e.Seq, Hash: hex.EncodeToString(e.Hash[:])}
	switch {
	case e.Opened != nil:
		s.What = say("asked for and decided: %s", words(e.Opened.Decision.Verdict))
	case e.Started != nil:
		s.What = "begun"
	case e.Outcome != nil:
		s.What = words(e.Outcome.Status)
	case e.Status != nil:
		s.What = words(e.Status.Delivery)
	}
	return s
}

// title says what became of a message.
func (x *entry) title() {
	m := x.message
	what := template.HTML("Message")
	if m.Answers > 0 {
		what = say("heed's own answer (%s)", words(m.Answer))
	}
	x.Tone = "warn"
	switch m.Status {
	case ledger.StatusSent:
		x.Tone = ""
		what += say(" sent%s", prefixed(", ", m.Delivery))
	case ledger.StatusBlocked:
		what += say(" not sent: %s", words(m.Decision.Reason))
	case ledger.StatusHeld:
		what += say(" kept back: %s", words(m.Decision.Reason))
	case ledger.StatusFailed:
		what += say(" failed%s", prefixed(", ", m.Code))
	case ledger.StatusUnknown:
		what += ": outcome unknown, never repeated"
	default:
		x.Tone = ""
		what += say(" %s", words(m.Status))
	}
	x.What = what + prefixed(": ", m.Error)
}

// join adds what followed to the message that it belongs to. ok is false for an event of no message among them.
func join(messages map[string]*entry, e ledger.Event) (ok bool) {
	id := ""
	switch {
	case e.Started != nil:
		id = e.Started.Message
	case e.Outcome != nil:
		id = e.Outcome.Message
	case e.Status != nil:
		id = cmp.Or(e.Status.Message, "provider "+e.Status.ProviderID)
	}
	x := messages[id]
	if x == nil {
		return false
	}
	*x.message = ledger.ApplyMessage(*x.message, e)
	if x.message.ProviderID != "" {
		messages["provider "+x.message.ProviderID] = x
	}
	x.Steps = append(x.Steps, stepOf(e))
	x.title()
	return true
}

// words shows an identifier such as opted_out as words.
func words[T ~string](s T) template.HTML { return isolated(plainWords(s)) }

func plainWords[T ~string](s T) string { return strings.ReplaceAll(string(s), "_", " ") }

// say writes a sentence around other people's words. The format and every template.HTML are ours; each other argument is
// isolated, so that words that run from right to left do not reorder what stands beside them.
func say(format string, args ...any) template.HTML {
	for i, a := range args {
		if _, ours := a.(template.HTML); !ours {
			args[i] = isolated(fmt.Sprint(a))
		}
	}
	for i, a := range args {
		args[i] = string(a.(template.HTML))
	}
	return template.HTML(fmt.Sprintf(format, args...))
}

// count is a number of things in words.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// isolated shows other people's words, and nothing around them notices.
func isolated(s string) template.HTML {
	return template.HTML("<bdi>" + template.HTMLEscapeString(visible(s)) + "</bdi>")
}

// prefixed is nothing if s is "", or else s behind a prefix of ours.
func prefixed(prefix string, s string) template.HTML {
	if s == "" {
		return ""
	}
	return template.HTML(prefix) + isolated(s)
}
