package connector

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/export"
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
	rows := export.Rows(r.Context(), s.Ledger, ledger.Query{States: []consent.State{consent.OptedOut, consent.Held}, Window: s.Window}, after)
	if strings.Contains(r.Header.Get("Accept"), "text/csv") {
		if err := s.Ledger.Health(); err != nil {
			return err
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // a long list takes as long as it takes
		w.Header().Set("Content-Type", export.CSV.ContentType())
		w.Header().Set("Cache-Control", "no-store")
		if err := export.Write(w, export.CSV, rows); err != nil {
			s.Log.Error("export of opt-outs ended early", "error", err)
			panic(http.ErrAbortHandler) // a list that looks whole and is not would be believed
		}
		return nil
	}
	limit, err := pageLimit(r)
	if err != nil {
		return err
	}
	page := struct {
		OptOuts []export.Row  `json:"optouts"`
		Next    *phone.Number `json:"next"` // pass it as after; null at the end
	}{OptOuts: []export.Row{}}
	for o, err := range rows {
		if err != nil {
			return err
		}
		if len(page.OptOuts) == limit {
			page.Next = &page.OptOuts[limit-1].Number
			break
		}
		page.OptOuts = append(page.OptOuts, o)
	}
	writeJSON(w, http.StatusOK, page)
	return nil
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
