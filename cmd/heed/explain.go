package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// explanation says what a send to a number would get now, and why. Keys may be added; these stay.
type explanation struct {
	Number   phone.Number  `json:"number"`
	Decision string        `json:"decision"`
	Reason   string        `json:"reason"`
	Because  string        `json:"because"`                  // one sentence
	Event    uint64        `json:"event,omitempty"`          // the newest that changed the consent
	Since    time.Time     `json:"since,omitzero"`           // when the state began
	Word     string        `json:"on_the_word_of,omitempty"` // of the opt-out
	Keyword  string        `json:"keyword,omitempty"`
	Actor    string        `json:"actor,omitempty"`  // who entered or decided it: a person, an API key, the CRM user
	Why      string        `json:"why,omitempty"`    // in their words, or the evidence
	CRM      string        `json:"crm,omitempty"`    // where a box was ticked …
	Record   *crm.Key      `json:"record,omitempty"` // … and on which record
	Lifts    string        `json:"lifts"`            // what would change it
	Records  []recordState `json:"records"`
	Owed     []string      `json:"owed"` // work for the number that is not done
}

func (h *house) explain(ctx context.Context, input string) (explanation, error) {
	n, err := phone.Parse(input, h.cfg.Consent.DefaultRegion)
	if err != nil {
		return explanation{}, err
	}
	known, err := h.ledger.Number(ctx, n)
	if err != nil {
		return explanation{}, err
	}
	d := h.ledger.Decide(n)
	x := explanation{Number: n, Decision: string(d.Verdict), Reason: string(d.Reason), Event: known.Seq, Since: known.At(), Records: []recordState{}, Owed: []string{}}
	if known.Facts.State() == consent.OptedOut {
		x.Word, x.Keyword = string(known.Source), known.Keyword
		c, err := h.optOutBy(ctx, n, known.Source)
		if err != nil {
			return x, err
		}
		x.Actor, x.Why, x.CRM, x.Record = c.Actor, c.Why, c.CRM, c.Record
	}
	x.Because, x.Lifts = because(d, known)
	for _, c := range h.crms {
		records, err := h.ledger.Mirror(c.Name).ByNumber(ctx, n)
		if err != nil {
			return x, err
		}
		for _, r := range records {
			x.Records = append(x.Records, recordState{c.Name, r.Object, r.ID, r.OptedOut})
			if r.OptedOut && d.Verdict == consent.Allow && h.cfg.Mode == "live" {
				x.Because += fmt.Sprintf(" But a send that names the record %s %s is blocked: its box is ticked.", r.Object, r.ID)
			}
		}
	}
	owed, err := h.ledger.OwedOf(ctx, n)
	for _, o := range owed {
		line := string(o.Kind)
		if o.Parked != nil {
			line += ", waits for a person: " + o.Parked.Text
		}
		x.Owed = append(x.Owed, line)
	}
	return x, err
}

// optOutBy returns the newest opt-out on the word of a source, as somebody entered it: who, why and where. It is empty
// where a reply said it, which has its keyword.
func (h *house) optOutBy(ctx context.Context, n phone.Number, source consent.Source) (newest ledger.Consent, err error) {
	for e, err := range h.ledger.History(ctx, n) {
		switch {
		case err != nil:
			return newest, err
		case e.Inbound != nil && e.Inbound.Verdict == reply.OptOut && source == consent.Recipient:
			newest = ledger.Consent{}
		case e.Consent != nil && e.Consent.Action == consent.OptOut && e.Consent.Source == source && !e.Consent.At.Before(newest.At):
			newest = *e.Consent
		}
	}
	return newest, nil
}

// because explains a decision, and says what would lift it.
func because(d consent.Decision, n ledger.Number) (why, lifts string) {
	switch {
	case d.Verdict == consent.Allow && d.Reason != consent.OK:
		return "Shadow mode lets it pass; live, it would be refused: " + string(d.Reason) + ".", "mode: live refuses it"
	case d.Reason == consent.ReasonOptedOut && n.Facts.Stopped():
		return "The recipient opted out.", "START from this number, and nothing else"
	case d.Reason == consent.ReasonOptedOut:
		return "The number was opted out by hand.", "heed optouts remove, or START from this number"
	case d.Reason == consent.CRMOptOut:
		return "The box was ticked in the CRM.", "unticking it there, heed optouts remove, or START from this number"
	case d.Reason == consent.HeldForReview:
		return "An unclear reply waits for a decision.", "heed holds resolve; at its deadline it becomes an opt-out"
	case d.Reason == consent.ConsentRequired:
		return "Only numbers that opted in are texted, and this one has not.", "START from this number, or consent recorded with PUT /v1/consents"
	case d.Reason == consent.Unavailable:
		return "The ledger cannot vouch for its state.", "a restart, which verifies the ledger"
	case d.Verdict == consent.Allow && n.Facts.State() == consent.OptedIn:
		return "The number opted in.", "STOP from this number, an opt-out by hand or in the CRM"
	}
	return "Nothing stands against it.", "STOP from this number, an opt-out by hand or in the CRM"
}

func explainCommand(std stdio, o *options) *cobra.Command {
	return o.withJSON(&cobra.Command{
		Use:   "explain NUMBER",
		Short: "Say what a send to a number would get now, and why",
		Long: `Say what a send to a number would get now, why, since when, and what would change it. Nothing is sent or recorded. The exit
code is 0 whatever the decision is.`,
		Args:    cobra.ExactArgs(1),
		Example: "  heed explain +14155550142\n  heed explain '(415) 555-0142' --json | jq -r .decision",
		RunE: func(c *cobra.Command, args []string) (err error) {
			client, err := o.control(c.Context(), std)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.close()) }()
			var x explanation
			if err := client.get(c.Context(), "/explain/"+url.PathEscape(args[0]), &x); err != nil {
				return err
			}
			return o.print(std, x, func() error { return printExplanation(std.Out, x) })
		},
	})
}

// wordOf says on whose word a number is opted out, by whom it was entered, and why.
func (x explanation) wordOf() string {
	word, actor := "the "+x.Word, printable([]string{x.Actor})[0]
	switch {
	case x.Record != nil: // what the pass noted for the reason says the same at more length
		parts := []string{x.Record.Object + " " + x.Record.ID}
		if actor != "" {
			parts = append([]string{actor}, parts...)
		}
		return word + ": " + strings.Join(parts, ", ")
	case x.Keyword != "":
		return fmt.Sprintf("%s, %q", word, x.Keyword)
	case actor != "" && x.Word == string(consent.Recipient): // an unclear reply
		word += ", as " + actor + " decided"
	case actor != "":
		word += " " + actor
	}
	if x.Why != "" {
		word += fmt.Sprintf(": %q", x.Why)
	}
	return word
}

func printExplanation(w io.Writer, x explanation) error {
	fmt.Fprintf(w, "A send to %s would get: %s (%s)\n%s\n", x.Number, x.Decision, x.Reason, x.Because)
	if !x.Since.IsZero() {
		fmt.Fprintf(w, "Since     %s, event %d\n", x.Since.Format(time.RFC3339), x.Event)
	}
	if x.Word != "" {
		fmt.Fprintf(w, "Word of   %s\n", x.wordOf())
	}
	fmt.Fprintf(w, "Changes   %s\n", x.Lifts)
	for _, r := range x.Records {
		box := "box not ticked"
		if r.OptedOut {
			box = "box ticked"
		}
		fmt.Fprintf(w, "Record    %s %s %s: %s\n", r.CRM, r.Object, r.ID, box)
	}
	for _, line := range x.Owed {
		fmt.Fprintf(w, "Owed      %s\n", line)
	}
	return nil
}

func (h *house) explainRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /explain/{number}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) { return h.explain(r.Context(), r.PathValue("number")) })
	})
}
