package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/export"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// status answers the first question: is everything well, and if not, where to look.
func (h *Handler) status(w http.ResponseWriter, r *http.Request) error {
	s, err := h.Ledger.Stats(r.Context())
	if err != nil {
		return err
	}
	data := struct {
		Stats             ledger.Stats
		Healthy           error
		Out, Held, Owed   int
		Settled           int
		Last, LastFull    *ledger.Pass
		Blocked, Unknown  uint64
		OldestOwed        time.Duration
		Lag               uint64
		Pending, NeedsYou bool
	}{Stats: s, Healthy: h.Ledger.Health(), Out: s.Numbers[consent.OptedOut.String()], Held: s.Numbers[consent.Held.String()],
		Blocked: s.Messages[ledger.StatusBlocked], Unknown: s.Messages[ledger.StatusUnknown], Lag: s.Head - s.Applied}
	for kind, n := range s.Owed {
		if kind != ledger.OweHold && kind != ledger.OweSend {
			data.Owed += n
		}
	}
	if !s.OldestOwed.IsZero() {
		data.OldestOwed = h.Now().Sub(s.OldestOwed)
	}
	for p, err := range h.Ledger.Reports(r.Context()) {
		if err != nil {
			return err
		}
		if p.FinishedAt.IsZero() {
			continue
		}
		if data.Last == nil {
			data.Last = &p
		}
		if p.Full {
			data.LastFull = &p
			break
		}
	}
	data.Pending = data.Owed > 0
	data.NeedsYou = data.Held > 0 || s.Parked > 0
	return h.show(w, r, http.StatusOK, "status", "Status", data)
}

var digits = regexp.MustCompile(`^[0-9]{1,15}$`)

// recordID is a record's id as people paste it.
var recordID = regexp.MustCompile(`^[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?$`)

// query reads what the list of numbers is narrowed to.
func (h *Handler) query(v url.Values) (export.Filter, ledger.Query, error) {
	f := export.ReadFilter(v)
	q, err := f.Query(h.Zone, h.Window)
	if bad := (*export.FilterError)(nil); errors.As(err, &bad) {
		err = invalid(bad.Text)
	}
	q.After = v.Get("after")
	return f, q, err
}

// row is a number in the list.
type row struct {
	ledger.Number
	State    consent.State
	Since    time.Time
	Campaign string
}

func (h *Handler) row(ctx context.Context, n ledger.Number) (row, error) {
	r, err := export.RowOf(ctx, h.Ledger, n, h.Window)
	return row{n, r.State, r.Since, r.Campaign}, err
}

// optOuts is the list of numbers, newest first.
func (h *Handler) optOuts(w http.ResponseWriter, r *http.Request) error {
	f, q, err := h.query(r.URL.Query())
	if err != nil {
		return err
	}
	found, err := h.Ledger.Find(r.Context(), q)
	if err != nil {
		return err
	}
	data := struct {
		Filter  export.Filter
		Rows    []row
		Total   int
		Next    string
		Export  string
		Sources []consent.Source
		States  []string
		Window  string
	}{Filter: f, Total: found.Total, Export: f.Values().Encode(), Sources: export.Sources, Window: duration(h.Window)}
	for _, s := range export.States {
		data.States = append(data.States, s.String())
	}
	for _, n := range found.Rows {
		x, err := h.row(r.Context(), n)
		if err != nil {
			return err
		}
		data.Rows = append(data.Rows, x)
	}
	if found.Next != "" {
		v := f.Values()
		v.Set("after", found.Next)
		data.Next = v.Encode()
	}
	return h.show(w, r, http.StatusOK, "optouts", "Opt-outs", data)
}

// export streams everything that the filter selects, and says in the audit that it did.
func (h *Handler) export(w http.ResponseWriter, r *http.Request) error {
	f, q, err := h.query(r.URL.Query())
	if err != nil {
		return err
	}
	format, err := export.ParseFormat(r.URL.Query().Get("format"))
	if err != nil {
		return invalid("The list can be exported as csv, json or xlsx.")
	}
	if err := h.People.Act(r.Context(), "export", fmt.Sprintf("the list of numbers as %s, %d filters", format, len(f.Values())), ""); err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // a long list takes as long as it takes
	name := "heed-numbers-" + h.Now().In(h.Zone).Format("20060102-150405") + "." + string(format)
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	w.Header().Set("Content-Type", format.ContentType())
	if err := export.Write(w, format, export.Rows(r.Context(), h.Ledger, q, phone.Number{})); err != nil {
		h.Log.Error("export ended early", "error", err)
		panic(http.ErrAbortHandler) // a list that looks whole and is not would be believed
	}
	return nil
}

// findNumber sends a person on to a number's page: by the number, as people write it, or by a record's id.
func (h *Handler) findNumber(w http.ResponseWriter, r *http.Request) error {
	in := strings.TrimSpace(r.URL.Query().Get("q"))
	if n, err := phone.Parse(in, h.Region); err == nil && !recordID.MatchString(in) {
		http.Redirect(w, r, "/numbers/"+url.PathEscape(n.String()), http.StatusSeeOther)
		return nil
	}
	if recordID.MatchString(in) {
		for _, c := range h.CRMs {
			numbers, err := h.numbersOf(r.Context(), c, in)
			if err != nil {
				return err
			}
			if len(numbers) > 0 {
				http.Redirect(w, r, "/numbers/"+url.PathEscape(numbers[0].String()), http.StatusSeeOther)
				return nil
			}
		}
		return &mistake{http.StatusNotFound, "No such record", "No record with this id is known to have a telephone number. A record is known after the pass that read it."}
	}
	if d := strings.TrimLeft(in, "+ "); digits.MatchString(d) {
		http.Redirect(w, r, "/optouts?state=all&ends="+url.QueryEscape(d), http.StatusSeeOther)
		return nil
	}
	return invalid("Enter a telephone number, its last digits, or the id of a CRM record.")
}

// numbersOf returns the numbers of a record, whatever its object is.
func (h *Handler) numbersOf(ctx context.Context, c connector.CRM, id string) ([]phone.Number, error) {
	canon, ok := c.Directory.(crm.Canonicalizer)
	for _, object := range []string{"Contact", "Lead", "Account"} {
		k := crm.Key{Object: object, ID: id}
		if ok {
			var err error
			if k, err = canon.Canonical(k); err != nil {
				return nil, nil // no id of this CRM
			}
		}
		records, err := h.Ledger.Mirror(c.Name).Get(ctx, []crm.Key{k})
		if err != nil {
			return nil, err
		}
		if len(records) > 0 {
			return records[0].Numbers, nil
		}
	}
	return nil, nil
}

// entry is one thing that happened to a number, in words.
type entry struct {
	At    time.Time
	Seq   uint64
	Hash  string
	What  string
	Body  string // somebody's own words
	Notes []string
}

// recordRow is a CRM record of a number.
type recordRow struct {
	CRM string
	ledger.MirrorRecord
}

// maxTimeline bounds the events of one page; the newest are shown.
const maxTimeline = 500

// number is everything about one number.
func (h *Handler) number(w http.ResponseWriter, r *http.Request) error {
	n, err := h.pathNumber(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	known, err := h.Ledger.Number(ctx, n)
	if err != nil {
		return err
	}
	known.Number = n
	d := h.Ledger.Decide(n)
	data := struct {
		row
		Decision consent.Decision
		Because  string
		Records  []recordRow
		Owed     []ledger.Owed
		Events   []entry
		More     int
		Sticky   bool
		Window   string
	}{Decision: d, Because: because(d, known), Sticky: known.Facts.Stopped(), Window: duration(h.Window)}
	if data.row, err = h.row(ctx, known); err != nil {
		return err
	}
	for _, c := range h.CRMs {
		records, err := h.Ledger.Mirror(c.Name).ByNumber(ctx, n)
		if err != nil {
			return err
		}
		for _, x := range records {
			data.Records = append(data.Records, recordRow{c.Name, x})
		}
	}
	if data.Owed, err = h.Ledger.OwedOf(ctx, n); err != nil {
		return err
	}
	for e, err := range h.Ledger.History(ctx, n) {
		if err != nil {
			return err
		}
		data.Events = append(data.Events, describe(e))
		if len(data.Events) > 2*maxTimeline {
			data.More += maxTimeline
			data.Events = slices.Delete(data.Events, 0, maxTimeline)
		}
	}
	slices.Reverse(data.Events)
	return h.show(w, r, http.StatusOK, "number", n.String(), data)
}

// because explains a decision in a sentence.
func because(d consent.Decision, n ledger.Number) string {
	switch d.Reason {
	case consent.OK:
		return "Nothing stands against it."
	case consent.ReasonOptedOut:
		if n.Facts.Stopped() {
			return "The recipient opted out. Only START from this number lifts that."
		}
		return "The number was opted out by hand. It can be undone by hand."
	case consent.CRMOptOut:
		return "The box was ticked in the CRM. Unticking it there, or here by hand, undoes that."
	case consent.HeldForReview:
		return "An unclear reply waits for a decision in the review queue."
	case consent.ConsentRequired:
		return "Only numbers that opted in are texted (consent.require_opt_in), and this one has not."
	case consent.Unavailable:
		return "The ledger cannot vouch for its state."
	}
	return ""
}

// setConsent opts a number out or in by hand.
func (h *Handler) setConsent(w http.ResponseWriter, r *http.Request) error {
	n, err := h.pathNumber(r)
	if err != nil {
		return err
	}
	why := strings.TrimSpace(r.FormValue("why"))
	state := map[string]consent.State{"opt_out": consent.OptedOut, "opt_in": consent.OptedIn}[r.FormValue("action")]
	switch {
	case state == consent.Unknown:
		return invalid("Say whether to opt the number out or in.")
	case why == "" || len(why) > 500:
		return invalid("Say why, in at most 500 characters: it is kept with your name.")
	}
	if err := h.Consents.Set(r.Context(), n, state, consent.Admin, who(r.Context()), why); err != nil {
		return err
	}
	http.Redirect(w, r, "/numbers/"+url.PathEscape(n.String()), http.StatusSeeOther)
	return nil
}

func (h *Handler) holds(w http.ResponseWriter, r *http.Request) error {
	held, err := h.Holds.List(r.Context())
	if err != nil {
		return err
	}
	return h.show(w, r, http.StatusOK, "holds", "Review queue", held)
}

func (h *Handler) resolve(w http.ResponseWriter, r *http.Request) error {
	n, err := h.pathNumber(r)
	if err != nil {
		return err
	}
	as := r.FormValue("as")
	var seq uint64
	if _, err := fmt.Sscan(r.FormValue("seq"), &seq); err != nil || as != "opt_out" && as != "release" {
		return invalid("Say whether it was a request to stop.")
	}
	if err := h.Consents.Resolve(r.Context(), n, as == "opt_out", seq, who(r.Context()), strings.TrimSpace(r.FormValue("why"))); err != nil {
		return err
	}
	http.Redirect(w, r, "/holds", http.StatusSeeOther)
	return nil
}

// pageRows is how many messages, reports and audit entries one page shows.
const pageRows = 100

var statuses = []ledger.Status{ledger.StatusBlocked, ledger.StatusHeld, ledger.StatusQueued, ledger.StatusUnknown, ledger.StatusFailed, ledger.StatusSent}

func (h *Handler) messages(w http.ResponseWriter, r *http.Request) error {
	status := cmp.Or(ledger.Status(r.URL.Query().Get("status")), ledger.StatusBlocked)
	if !slices.Contains(statuses, status) {
		return invalid("There is no such status.")
	}
	data := struct {
		Status   ledger.Status
		Statuses []ledger.Status
		Rows     []ledger.Message
		More     bool
	}{Status: status, Statuses: statuses}
	for m, err := range h.Ledger.Messages(r.Context(), status) {
		if err != nil {
			return err
		}
		if len(data.Rows) == pageRows {
			data.More = true
			break
		}
		data.Rows = append(data.Rows, m)
	}
	return h.show(w, r, http.StatusOK, "messages", "Messages", data)
}

// work is what is owed: what waits for a person first.
func (h *Handler) work(w http.ResponseWriter, r *http.Request) error {
	data := struct {
		Parked, Waiting []ledger.Owed
		More            int
	}{}
	for o, err := range h.Ledger.Owed(r.Context()) {
		switch {
		case err != nil:
			return err
		case o.Kind == ledger.OweHold:
		case o.Parked != nil && len(data.Parked) < pageRows:
			data.Parked = append(data.Parked, o)
		case o.Parked == nil && len(data.Waiting) < pageRows:
			data.Waiting = append(data.Waiting, o)
		default:
			data.More++
		}
	}
	return h.show(w, r, http.StatusOK, "work", "Owed work", data)
}

func (h *Handler) retry(w http.ResponseWriter, r *http.Request) error {
	if err := h.People.Act(r.Context(), "retry", "all owed work", strings.TrimSpace(r.FormValue("why"))); err != nil {
		return err
	}
	for _, kind := range ledger.OwedKinds {
		if kind == ledger.OweHold {
			continue
		}
		if err := h.Ledger.Hurry(r.Context(), kind); err != nil {
			return err
		}
	}
	http.Redirect(w, r, "/work", http.StatusSeeOther)
	return nil
}

func (h *Handler) reports(w http.ResponseWriter, r *http.Request) error {
	all := r.URL.Query().Get("all") != ""
	data := struct {
		Rows      []ledger.Pass
		All, More bool
	}{All: all}
	for p, err := range h.Ledger.Reports(r.Context()) {
		if err != nil {
			return err
		}
		if !all && !p.Full && p.Kind == "incremental" {
			continue
		}
		if len(data.Rows) == pageRows {
			data.More = true
			break
		}
		data.Rows = append(data.Rows, p)
	}
	return h.show(w, r, http.StatusOK, "reports", "Reports", data)
}

// report is a report as the nightly mail would have it: a page of its own, without a script and with its style inside.
func (h *Handler) report(w http.ResponseWriter, r *http.Request) error {
	p, err := h.Ledger.Report(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	format := "html"
	if r.URL.Query().Get("format") == "csv" {
		format = "csv"
		w.Header().Set("Content-Disposition", `attachment; filename="heed-report.csv"`)
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	} else {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
	}
	if err := h.Report(w, p, h.Ledger.Corrections(r.Context(), p.ID), format); err != nil {
		h.Log.Error("report ended early", "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (h *Handler) audit(w http.ResponseWriter, r *http.Request) error {
	var rows []entry
	for e, err := range h.Ledger.Audit(r.Context()) {
		if err != nil {
			return err
		}
		if len(rows) == 2*pageRows {
			break
		}
		rows = append(rows, describe(e))
	}
	return h.show(w, r, http.StatusOK, "audit", "Audit", rows)
}

func (h *Handler) settings(w http.ResponseWriter, r *http.Request) error {
	return h.show(w, r, http.StatusOK, "settings", "Settings", h.Settings)
}
