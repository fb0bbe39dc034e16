package admin

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/reply"
)

// describe says in words what an event is.
func describe(e ledger.Event) entry {
	x := entry{At: e.At, Steps: []step{stepOf(e)}}
	note := func(format string, args ...any) { x.Notes = append(x.Notes, fmt.Sprintf(format, args...)) }
	if e.Number.IsValid() && e.Consent != nil {
		note("number %s", e.Number)
	}
	switch {
	case e.Inbound != nil:
		in := e.Inbound
		x.What = map[reply.Verdict]string{reply.OptOut: "Texted a request to stop", reply.OptIn: "Texted a request to start again", reply.Help: "Asked for help",
			reply.Hold: "Texted something that may be a request to stop", reply.None: "Texted something else"}[in.Verdict]
		x.Body = in.Body
		x.Tone = map[reply.Verdict]string{reply.OptOut: "bad", reply.OptIn: "ok", reply.Hold: "warn"}[in.Verdict]
		x.Raw, x.Proof = in.Raw, in.Signature
		note("to %s, through %s by %s", in.To, in.Account, map[ledger.Via]string{ledger.ViaWebhook: "webhook", ledger.ViaLog: "the provider's log"}[in.Via])
		note("read as: %s%s", words(in.Rule), prefixed(", keyword ", in.Keyword))
		if in.Missed {
			note("its webhook never came; recovered by pass %s", in.Pass)
		}
		if in.Media > 0 {
			note("with %d pictures or other media", in.Media)
		}
	case e.Timed != nil:
		x.What = "The provider said when the START was sent"
		note("sent %s", e.Timed.SentAt.UTC().Format("2006-01-02 15:04:05 UTC"))
	case e.Consent != nil:
		c := e.Consent
		x.What = map[consent.Action]string{consent.OptOut: "Opted out", consent.OptIn: "Opted in", consent.Hold: "Held for review", consent.Release: "Released: it was no request to stop", consent.Ask: "Asked whether messages are wanted"}[c.Action]
		x.What += map[consent.Source]string{consent.Provider: " on the provider's word", consent.CRM: " in the CRM", consent.Admin: " by hand", consent.API: " by a program", consent.Deadline: " because nobody decided in time"}[c.Source]
		x.Tone = map[consent.Action]string{consent.OptOut: "bad", consent.OptIn: "ok", consent.Hold: "warn", consent.Release: "ok"}[c.Action]
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
		note("%s", strings.TrimSpace(m.ID+prefixed(" · by ", m.Caller)+prefixed(" · campaign ", m.Campaign)+prefixed(" · from ", m.From)))
		if !m.SendAt.IsZero() {
			note("to be sent %s", m.SendAt.UTC().Format("2006-01-02 15:04 UTC"))
		}
		x.title()
	case e.Started != nil:
		x.What = "The queued message is being sent"
	case e.Outcome != nil:
		x.What = "The message is " + words(e.Outcome.Status)
		note("%s%s", e.Outcome.Message, prefixed(" · ", e.Outcome.Error))
	case e.Status != nil:
		x.What = "The provider says: " + words(e.Status.Delivery) + prefixed(", code ", e.Status.Code)
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
			note("%s %s %s%s", r.CRM, r.Object, r.ID, prefixed(": ", strings.TrimSpace(words(r.Class)+" "+r.Text)))
		}
		switch {
		case len(e.Written.Results) == 0:
			x.What = "No record has this number; no box to set"
		case failed > 0:
			x.Tone = "warn"
			x.What = fmt.Sprintf("%d of %d boxes could not be set", failed, len(e.Written.Results))
		}
	case e.Correction != nil:
		x.What = "A reconciliation found a difference: " + words(e.Correction.Cause)
		x.Tone = "warn"
		x.Body = e.Correction.Detail
		note("%s, %s%s", e.Correction.Pass, words(e.Correction.Action), prefixed(", last changed by ", e.Correction.By))
	case e.Dropped != nil:
		x.What = "No confirmation was sent"
		x.Body = e.Dropped.Why
	case e.Told != nil:
		x.What = "The provider's own list was told"
		for _, r := range e.Told.Results {
			note("%s%s", r.Account, prefixed(": ", strings.TrimSpace(words(r.Class)+" "+r.Text)))
		}
	case e.Relayed != nil:
		x.What = "The client was told: " + words(e.Relayed.Status)
		if e.Relayed.Failed != "" {
			x.What = "The client could not be told: " + e.Relayed.Failed
		}
	case e.Noted != nil:
		x.What = "The outcome was left on the record: " + e.Noted.Note
		if e.Noted.Class != "" {
			x.What = "The outcome could not be left on the record"
			x.Body = e.Noted.Text
		}
	case e.Access != nil:
		a := e.Access
		x.What = fmt.Sprintf("%s %s: %s", map[ledger.AccessSort]string{ledger.AccessKey: "API key", ledger.AccessUser: "Account"}[a.Sort], a.Name, strings.Join(a.May, ", "))
		if a.Removed {
			x.What = fmt.Sprintf("%s %s was taken away", map[ledger.AccessSort]string{ledger.AccessKey: "API key", ledger.AccessUser: "Account"}[a.Sort], a.Name)
		}
		note("by %s", a.By)
		x.Body = a.Why
	case e.Act != nil:
		x.What = words(e.Act.What) + prefixed(": ", e.Act.Detail)
		note("by %s, %s", e.Act.Who, words(e.Act.Via))
		x.Body = e.Act.Why
	default:
		x.What = string(e.Kind)
	}
	return x
}

// stepOf is an event's place in the journal.
func stepOf(e ledger.Event) step {
	s := step{At: e.At, Seq: e.Seq, Hash: hex.EncodeToString(e.Hash[:])}
	switch {
	case e.Opened != nil:
		s.What = "asked for and decided: " + words(e.Opened.Decision.Verdict)
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
	what, tone := "Message", ""
	if m.Answers > 0 {
		what = "heed's own answer (" + words(m.Answer) + ")"
	}
	switch m.Status {
	case ledger.StatusSent:
		what += " sent" + prefixed(", ", m.Delivery)
	case ledger.StatusBlocked:
		what, tone = what+" not sent: "+words(m.Decision.Reason), "warn"
	case ledger.StatusHeld:
		what, tone = what+" kept back: "+words(m.Decision.Reason), "warn"
	case ledger.StatusFailed:
		what, tone = what+" failed"+prefixed(", ", m.Code), "warn"
	case ledger.StatusUnknown:
		what, tone = what+": outcome unknown, never repeated", "warn"
	default:
		what += " " + words(m.Status)
	}
	x.What, x.Tone = what+prefixed(": ", m.Error), tone
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

func words[T ~string](s T) string { return strings.ReplaceAll(string(s), "_", " ") }

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
