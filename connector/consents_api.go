package connector

import (
	"context"
	"encoding/csv"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

// consentResource is a number's consent as the API shows it.
type consentResource struct {
	Number   phone.Number    `json:"number"`
	State    consent.State   `json:"state"`
	Decision consent.Verdict `json:"decision"`
	Reason   consent.Reason  `json:"reason"`
	Source   consent.Source  `json:"source,omitempty"`  // on whose word it was opted out last
	Keyword  string          `json:"keyword,omitempty"` // the word that did it
	Since    *time.Time      `json:"since"`             // when it came to be so; null if nothing ever happened
	History  []historyEntry  `json:"history,omitempty"`
	Next     *uint64         `json:"next"` // pass it as after; null at the end of the history
}

type historyEntry struct {
	Seq    uint64    `json:"seq"`
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	Action string    `json:"action,omitempty"` // what it did to the consent
	Source string    `json:"source,omitempty"`
	Actor  string    `json:"actor,omitempty"`
	Why    string    `json:"why,omitempty"`
	Text   string    `json:"text,omitempty"` // of a reply; for keys with the right admin
	Rule   string    `json:"rule,omitempty"` // by which a reply was read
	Status string    `json:"status,omitempty"`
}

// OptOut is one line of the list of opt-outs.
type OptOut struct {
	Number  phone.Number   `json:"number"`
	State   consent.State  `json:"state"` // opted_out or held
	Source  consent.Source `json:"source,omitempty"`
	Keyword string         `json:"keyword,omitempty"`
	Since   time.Time      `json:"since"`
	// Campaign is the one to which the opt-out is attributed: that of the last message that was sent to the number, if
	// it was sent within campaigns.window before. "" for none.
	Campaign string `json:"campaign,omitempty"`
}

// AsOptOut returns a number's line in the list, ok is false if it is not on it.
func AsOptOut(n ledger.Number) (OptOut, bool) {
	s := n.Facts.State()
	return OptOut{Number: n.Number, State: s, Source: n.Source, Keyword: n.Keyword, Since: changedAt(n)}, s == consent.OptedOut || s == consent.Held
}

// Attribute fills in the campaign of an opt-out.
func Attribute(ctx context.Context, l ledger.Ledger, o OptOut, window time.Duration) (OptOut, error) {
	last, err := l.LastOptOut(ctx, o.Number)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return o, nil
	case err == nil:
		o.Campaign = last.Campaign(window)
	}
	return o, err
}

func (s *Server) pathNumber(r *http.Request) (phone.Number, error) {
	n, err := phone.Parse(r.PathValue("number"), s.Gate.Region)
	if err != nil {
		return n, &InputError{"number", "is not a telephone number"}
	}
	return n, nil
}

// consent serves GET /v1/consents/{number}.
func (s *Server) consent(w http.ResponseWriter, r *http.Request, k Key, _ []byte) error {
	n, err := s.pathNumber(r)
	if err != nil {
		return err
	}
	return s.showConsent(w, r, k, n)
}

// showConsent answers with a number's consent and a page of its history. What people wrote is for those who may decide.
func (s *Server) showConsent(w http.ResponseWriter, r *http.Request, k Key, n phone.Number) error {
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	var after uint64
	if v := r.URL.Query().Get("after"); v != "" {
		if after, err = strconv.ParseUint(v, 10, 63); err != nil {
			return &InputError{"after", "is not the next of an earlier page"}
		}
	}
	known, err := s.Ledger.Number(r.Context(), n)
	if err != nil {
		return err
	}
	d := s.Ledger.Decide(n)
	out := consentResource{Number: n, State: known.Facts.State(), Decision: d.Verdict, Reason: d.Reason, Source: known.Source, Keyword: known.Keyword}
	if at := changedAt(known); !at.IsZero() {
		out.Since = &at
	}
	for e, err := range s.Ledger.History(r.Context(), n) {
		if err != nil {
			return err
		}
		if e.Seq <= after {
			continue
		}
		if len(out.History) == limit {
			out.Next = &out.History[limit-1].Seq
			break
		}
		h := entryOf(e)
		if !slices.Contains(k.May, MayAdmin) {
			h.Text = ""
		}
		out.History = append(out.History, h)
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

func entryOf(e ledger.Event) historyEntry {
	h := historyEntry{Seq: e.Seq, At: e.At, Kind: string(e.Kind)}
	if c, _, ok := ledger.Change(e); ok {
		h.Action, h.Source = string(c.Action), string(c.Source)
	}
	switch {
	case e.Inbound != nil:
		h.Text, h.Rule = e.Inbound.Body, e.Inbound.Rule
	case e.Consent != nil:
		h.Actor, h.Why = e.Consent.Actor, e.Consent.Why
	case e.Opened != nil:
		h.Actor, h.Status = e.Opened.Caller, string(ledger.InitialStatus(e.Opened.Decision))
	case e.Outcome != nil:
		h.Status = string(e.Outcome.Status)
	case e.Status != nil:
		h.Status = e.Status.Delivery
	case e.Correction != nil:
		h.Actor, h.Why = e.Correction.By, e.Correction.Cause
	}
	return h
}

// setConsent serves PUT /v1/consents/{number}.
func (s *Server) setConsent(w http.ResponseWriter, r *http.Request, k Key, body []byte) error {
	n, err := s.pathNumber(r)
	if err != nil {
		return err
	}
	var in struct {
		State   string `json:"state"`
		Why     string `json:"why"`
		Account string `json:"account"` // pending: which account asks
		Lang    string `json:"lang"`    // pending: in which language
	}
	if err := decodeJSON(body, &in); err != nil {
		return err
	}
	switch in.State {
	case consent.Pending.String():
		_, err = s.Consents.Ask(r.Context(), n, in.Account, in.Lang, consent.API, k.Name, in.Why)
	case consent.OptedOut.String():
		err = s.Consents.Set(r.Context(), n, consent.OptedOut, consent.API, k.Name, in.Why)
	case consent.OptedIn.String():
		err = s.Consents.Set(r.Context(), n, consent.OptedIn, consent.API, k.Name, in.Why)
	default:
		err = &InputError{"state", "must be opted_out, opted_in or pending"}
	}
	if err != nil {
		return err
	}
	return s.showConsent(w, r, k, n)
}

// pageLimit reads how many rows a page is to have.
func pageLimit(r *http.Request) (int, error) {
	v := r.URL.Query().Get("limit")
	if v == "" {
		return 100, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 1000 {
		return 0, &InputError{"limit", "must be a number from 1 to 1000"}
	}
	return n, nil
}

// optOuts serves GET /v1/optouts: a page of JSON, or with Accept: text/csv everything, streamed.
func (s *Server) optOuts(w http.ResponseWriter, r *http.Request, _ Key, _ []byte) error {
	var after phone.Number
	if v := r.URL.Query().Get("after"); v != "" {
		n, err := phone.Parse(strings.TrimSpace("+"+strings.TrimLeft(v, " +")), s.Gate.Region)
		if err != nil {
			return &InputError{"after", "is not a telephone number"}
		}
		after = n
	}
	if strings.Contains(r.Header.Get("Accept"), "text/csv") {
		return s.optOutsCSV(w, r, after)
	}
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	page := struct {
		OptOuts []OptOut      `json:"optouts"`
		Next    *phone.Number `json:"next"` // pass it as after; null at the end
	}{OptOuts: []OptOut{}}
	for n, err := range s.Ledger.Numbers(r.Context(), after) {
		if err != nil {
			return err
		}
		o, ok := AsOptOut(n)
		if !ok {
			continue
		}
		if len(page.OptOuts) == limit {
			page.Next = &page.OptOuts[limit-1].Number
			break
		}
		if o, err = Attribute(r.Context(), s.Ledger, o, s.Window); err != nil {
			return err
		}
		page.OptOuts = append(page.OptOuts, o)
	}
	writeJSON(w, http.StatusOK, page)
	return nil
}

func (s *Server) optOutsCSV(w http.ResponseWriter, r *http.Request, after phone.Number) error {
	if err := s.Ledger.Health(); err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // a long list takes as long as it takes
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	cw := csv.NewWriter(w)
	_ = cw.Write([]string{"number", "state", "source", "keyword", "since", "campaign"})
	for n, err := range s.Ledger.Numbers(r.Context(), after) {
		if err != nil {
			s.Log.Error("export of opt-outs ended early", "error", err)
			panic(http.ErrAbortHandler) // a list that looks whole and is not would be believed
		}
		o, ok := AsOptOut(n)
		if !ok {
			continue
		}
		if o, err = Attribute(r.Context(), s.Ledger, o, s.Window); err != nil {
			s.Log.Error("export of opt-outs ended early", "error", err)
			panic(http.ErrAbortHandler)
		}
		_ = cw.Write([]string{o.Number.String(), o.State.String(), Cell(string(o.Source)), Cell(o.Keyword), o.Since.Format(time.RFC3339), Cell(o.Campaign)})
	}
	cw.Flush()
	return nil
}

// Cell makes a text safe to open in a spreadsheet: one that begins like a formula gets an apostrophe (OWASP, CSV
// injection). Telephone numbers in E.164 form must not pass through it; they are no formulas and would be damaged.
func Cell(s string) string {
	if s == "" {
		return s
	}
	switch r := []rune(s)[0]; r {
	case '=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠':
		return "'" + s
	}
	return s
}

// holds serves GET /v1/holds, the review queue.
func (s *Server) holds(w http.ResponseWriter, r *http.Request, _ Key, _ []byte) error {
	held, err := s.Holds.List(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]any{"holds": held})
	return nil
}

// resolve serves POST /v1/holds/{number}.
func (s *Server) resolve(w http.ResponseWriter, r *http.Request, k Key, body []byte) error {
	n, err := s.pathNumber(r)
	if err != nil {
		return err
	}
	var in struct {
		As  string `json:"as"`
		Why string `json:"why"`
		Seq uint64 `json:"seq"` // as listed; 0 decides on whatever there is
	}
	if err := decodeJSON(body, &in); err != nil {
		return err
	}
	if in.As != "opt_out" && in.As != "release" {
		return &InputError{"as", "must be opt_out or release"}
	}
	if err := s.Consents.Resolve(r.Context(), n, in.As == "opt_out", in.Seq, k.Name, in.Why); err != nil {
		return err
	}
	return s.showConsent(w, r, k, n)
}
