package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
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
		Last, LastFull    *ledger.Pass
		Blocked, Unknown  uint64
		OldestOwed        time.Duration
		Lag               uint64
		Pending, NeedsYou bool
		Heard             time.Time
		HeardFrom         uint64 // the oldest event that was looked at for Heard
	}{Stats: s, Healthy: h.Ledger.Health(), Out: s.Numbers[consent.OptedOut.String()], Held: s.Numbers[consent.Held.String()],
		Blocked: s.Messages[ledger.StatusBlocked], Unknown: s.Messages[ledger.StatusUnknown], Lag: s.Head - min(s.Head, s.Applied)}
	if data.Heard, data.HeardFrom, err = h.heard.last(r.Context(), h.Ledger, s.Head); err != nil {
		return err
	}
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

// heard remembers when the last webhook came. It reads the journal's end, once, and then only what is new.
type heard struct {
	mu         sync.Mutex
	from, upTo uint64 // events that were looked at
	at         time.Time
}

// heardWithin bounds the events that are looked at for the last webhook.
const heardWithin = 5000

func (x *heard) last(ctx context.Context, l ledger.Ledger, head uint64) (at time.Time, from uint64, _ error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if head > x.upTo {
		begin := x.upTo + 1
		if head-x.upTo > heardWithin {
			begin = head - heardWithin + 1
		}
		if x.from == 0 || begin > x.upTo+1 && x.at.IsZero() {
			x.from = begin
		}
		for e, err := range l.Events(ctx, begin) {
			if err != nil {
				return x.at, x.from, err
			}
			if e.Inbound != nil && e.Inbound.Via == ledger.ViaWebhook || e.Status != nil || e.Quarantine != nil {
				x.at = e.At
			}
			x.upTo = e.Seq
		}
	}
	return x.at, x.from, nil
}

var digits = regexp.MustCompile(`^[0-9]{1,15}$`)

// recordID is a record's id as people paste it.
var recordID = regexp.MustCompile(`^[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?$`)

// isRecord reports whether somebody means a record, and no number.
func isRecord(s string) bool { return recordID.MatchString(s) && !digits.MatchString(s) }

// query reads what the list of numbers is narrowed to. The id of a record stands in the place of the last digits; the
// query knows nothing of it.
func (h *Handler) query(v url.Values) (export.Filter, ledger.Query, error) {
	f := export.ReadFilter(v)
	known := f
	if isRecord(f.Ends) {
		known.Ends = ""
	}
	q, err := known.Query(h.Zone, h.Window)
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

// find returns a page of what a filter selects. The numbers of a record are all listed, whatever their state.
func (h *Handler) find(ctx context.Context, f export.Filter, q ledger.Query) (found ledger.Found, err error) {
	if !isRecord(f.Ends) {
		return h.Ledger.Find(ctx, q)
	}
	numbers, err := h.numbersOf(ctx, f.Ends)
	if err != nil {
		return found, err
	}
	for _, n := range numbers {
		known, err := h.Ledger.Number(ctx, n)
		if err != nil {
			return found, err
		}
		known.Number = n
		found.Rows = append(found.Rows, known)
	}
	found.Total = len(found.Rows)
	return found, nil
}

// optOuts is the list of numbers, newest first.
func (h *Handler) optOuts(w http.ResponseWriter, r *http.Request) error {
	f, q, err := h.query(r.URL.Query())
	if err != nil {
		return err
	}
	found, err := h.find(r.Context(), f, q)
	if err != nil {
		return err
	}
	data := struct {
		Filter  export.Filter
		Rows    []row
		Total   int
		Next    template.URL // the next page, as the query of an address
		First   bool         // this is the first page
		Export  template.URL // the filter, as the query of an address
		Any     bool         // something is filtered
		Record  bool         // these are the numbers of a record
		Sources []consent.Source
		States  []string
		Window  string
	}{Filter: f, Total: found.Total, Export: template.URL(f.Values().Encode()), Sources: export.Sources, Window: duration(h.Window), First: q.After == "", Any: len(f.Values()) > 0, Record: isRecord(f.Ends)}
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
		data.Next = template.URL(v.Encode())
	}
	return h.show(w, r, http.StatusOK, "optouts", "Opt-outs", data)
}

// export streams everything that the filter selects, and says in the audit that it did.
func (h *Handler) export(w http.ResponseWriter, r *http.Request) error {
	f, q, err := h.query(r.URL.Query())
	if err != nil {
		return err
	}
	if isRecord(f.Ends) {
		return invalid("The numbers of one record are on its page; there is no file of them.")
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
	if n, err := phone.Parse(in, h.Region); err == nil && !isRecord(in) {
		http.Redirect(w, r, "/numbers/"+url.PathEscape(n.String()), http.StatusSeeOther)
		return nil
	}
	if isRecord(in) {
		numbers, err := h.numbersOf(r.Context(), in)
		switch {
		case err != nil:
			return err
		case len(numbers) == 0:
			return &mistake{http.StatusNotFound, "No such record", "No record with this id is known to have a telephone number. A record is known after the pass that read it."}
		case len(numbers) == 1:
			http.Redirect(w, r, "/numbers/"+url.PathEscape(numbers[0].String()), http.StatusSeeOther)
		default:
			http.Redirect(w, r, "/optouts?ends="+url.QueryEscape(in), http.StatusSeeOther)
		}
		return nil
	}
	if d := strings.TrimLeft(in, "+ "); digits.MatchString(d) {
		http.Redirect(w, r, "/optouts?state=all&ends="+url.QueryEscape(d), http.StatusSeeOther)
		return nil
	}
	return invalid("Enter a telephone number, its last digits, or the id of a CRM record.")
}

// numbersOf returns the numbers of a record, whatever its object and its CRM are.
func (h *Handler) numbersOf(ctx context.Context, id string) ([]phone.Number, error) {
	for _, c := range h.CRMs {
		canon, ok := c.Directory.(crm.Canonicalizer)
		objects, err := h.objects(ctx, c)
		if err != nil {
			return nil, err
		}
		for _, object := range objects {
			k := crm.Key{Object: object, ID: id}
			if ok {
				if k, err = canon.Canonical(k); err != nil {
					continue // no id of this CRM
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
	}
	return nil, nil
}

// objects returns the objects of a CRM of which records are known.
func (h *Handler) objects(ctx context.Context, c connector.CRM) (out []string, _ error) {
	after := crm.Key{}
	for more := true; more; {
		more = false
		for r, err := range h.Ledger.Mirror(c.Name).Between(ctx, after, crm.Key{}) {
			if err != nil {
				return nil, err
			}
			out, more = append(out, r.Object), true
			after = crm.Key{Object: r.Object, ID: "~"} // behind every id of this object
			break
		}
	}
	return out, nil
}

// entry is one thing that happened, in words: an event, or a message with all that followed from it.
type entry struct {
	At    time.Time
	What  template.HTML
	Tone  string // "", ok, warn, bad
	Body  string // somebody's own words
	Notes []template.HTML
	Steps []step // its events, oldest first
	Raw   string // the provider's request, verbatim
	Proof string // what proved it

	message *ledger.Message
}

// step is an event's place in the journal.
type step struct {
	At   time.Time
	What template.HTML
	Seq  uint64
	Hash string
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
	data := numberPage{Decision: d, Because: because(d, known), Sticky: known.Facts.Stopped(), Window: duration(h.Window)}
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
	messages := map[string]*entry{}
	for e, err := range h.Ledger.History(ctx, n) {
		switch {
		case err != nil:
			return err
		case join(messages, e):
			continue
		case e.Inbound != nil:
			data.Received++
		}
		x := describe(e)
		if e.Written != nil && len(e.Written.Results) == 0 && len(data.Records) > 0 {
			x.What = "Every box was already as it should be"
		}
		if x.message != nil {
			messages[x.message.ID] = &x
		}
		data.Events = append(data.Events, &x)
		if len(data.Events) > 2*maxTimeline {
			data.More += maxTimeline
			data.Events = slices.Delete(data.Events, 0, maxTimeline)
		}
	}
	counted := map[*entry]bool{} // a message is there under heed's id and under the provider's
	for _, x := range messages {
		switch {
		case counted[x]:
		case x.message.Status == ledger.StatusSent:
			data.Sent++
		case x.message.Status == ledger.StatusBlocked, x.message.Status == ledger.StatusHeld:
			data.NotSent++
		}
		counted[x] = true
	}
	slices.Reverse(data.Events)
	return h.show(w, r, http.StatusOK, "number", n.Spaced(), data)
}

// numberPage is what the page of a number shows.
type numberPage struct {
	row
	Decision                consent.Decision
	Because                 string
	Records                 []recordRow
	Owed                    []ledger.Owed
	Events                  []*entry // newest first
	More                    int      // older ones
	Sticky                  bool
	Window                  string
	Sent, NotSent, Received int // messages
}

// evidence sends the packet that proves what happened to a number. That somebody took it is recorded.
func (h *Handler) evidence(w http.ResponseWriter, r *http.Request) error {
	n, err := h.pathNumber(r)
	if err != nil {
		return err
	}
	why := strings.TrimSpace(r.FormValue("why"))
	if why == "" || len(why) > 500 {
		return invalid("Say why, in at most 500 characters: it is kept with your name.")
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	file := &attachment{ResponseWriter: w, kind: "application/zip", name: "heed-evidence-" + strings.TrimPrefix(n.String(), "+") + "-" + h.Now().In(h.Zone).Format("20060102-150405") + ".zip"}
	if err := h.Evidence(r.Context(), file, n, who(r.Context()), why); err != nil {
		if file.begun {
			h.Log.Error("evidence packet ended early", "error", err)
			panic(http.ErrAbortHandler) // half a packet must not look like one
		}
		return err
	}
	return nil
}

// attachment is an answer that becomes a file with its first byte. Until then it can be another page.
type attachment struct {
	http.ResponseWriter
	kind, name string
	begun      bool
}

func (a *attachment) Write(p []byte) (int, error) {
	if !a.begun {
		a.begun = true
		a.Header().Set("Content-Type", a.kind)
		a.Header().Set("Content-Disposition", `attachment; filename="`+a.name+`"`)
	}
	return a.ResponseWriter.Write(p)
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

// setConsent opts a number out by hand, or takes that back.
func (h *Handler) setConsent(w http.ResponseWriter, r *http.Request) error {
	n, err := h.pathNumber(r)
	if err != nil {
		return err
	}
	why := strings.TrimSpace(r.FormValue("why"))
	action := r.FormValue("action")
	switch {
	case action != "opt_out" && action != "undo":
		return invalid("Say whether to opt the number out or to undo that.")
	case why == "" || len(why) > 500:
		return invalid("Say why, in at most 500 characters: it is kept with your name.")
	}
	if action == "undo" {
		err = h.Consents.Undo(r.Context(), n, consent.Admin, who(r.Context()), why)
	} else {
		err = h.Consents.Set(r.Context(), n, consent.OptedOut, consent.Admin, who(r.Context()), why)
	}
	if err != nil {
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
		Retried         bool
	}{Retried: r.URL.Query().Has("retried")}
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
	http.Redirect(w, r, "/work?retried", http.StatusSeeOther)
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
	format := "page"
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

// deed is something that a person did.
type deed struct {
	Who    string
	Number phone.Number
	entry
}

func (h *Handler) audit(w http.ResponseWriter, r *http.Request) error {
	data := struct {
		Rows []deed
		More bool
	}{}
	for e, err := range h.Ledger.Audit(r.Context()) {
		if err != nil {
			return err
		}
		if len(data.Rows) == 2*pageRows {
			data.More = true
			break
		}
		d := deed{Number: e.Number, entry: describe(e)}
		switch {
		case e.Act != nil:
			d.Who = e.Act.Who
		case e.Access != nil:
			d.Who = e.Access.By
		case e.Consent != nil:
			d.Who = e.Consent.Actor
		}
		data.Rows = append(data.Rows, d)
	}
	return h.show(w, r, http.StatusOK, "audit", "Audit", data)
}

// settings shows the configuration, each part that begins in the first column of its YAML by itself.
func (h *Handler) settings(w http.ResponseWriter, r *http.Request) error {
	var parts []Setting
	for _, s := range h.Settings {
		for line := range strings.Lines(s.Value) {
			name, _, key := strings.Cut(line, ":")
			if key && s.Name == "" && strings.TrimLeft(line, " -#") == line {
				parts = append(parts, Setting{Name: name})
			}
			if len(parts) == 0 || s.Name != "" && parts[len(parts)-1].Name != s.Name {
				parts = append(parts, Setting{Name: s.Name})
			}
			parts[len(parts)-1].Value += line
		}
	}
	return h.show(w, r, http.StatusOK, "settings", "Settings", parts)
}
