package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/export"
	"github.com/heed-sms/heed/sms/phone"
)

// Opting out in bulk is done in two steps: a preview that changes nothing, and a confirmation that carries the numbers and
// how many there are, typed by the person. Undoing is the same with what the first one left behind.

const (
	maxUpload  = 2 << 20 // bytes
	maxNumbers = 20_000
	bulkTime   = 10 * time.Minute
	maxShown   = 20 // numbers that the preview lists
)

// preview is what an upload would do.
type preview struct {
	Undo      bool
	Column    string   // from which the numbers are
	Ignored   []string // sheets of a workbook that were left out
	Rows      int
	Change    []phone.Number // what would be changed, each once
	Already   int            // nothing to do
	Refused   int            // undo: the recipient's own opt-outs
	Duplicate int
	Bad       []string // what is no number, the first few rows
	BadMore   int
	Numbers   string      // Change, a line each, to be confirmed
	Sample    []sampleRow // the first of Change
	Records   int         // known CRM records of Change, whose boxes follow
}

// sampleRow shows what would become of a number.
type sampleRow struct {
	Number  phone.Number
	Now     consent.State
	Records int
}

func (h *Handler) bulk(w http.ResponseWriter, r *http.Request) error {
	return h.show(w, r, http.StatusOK, "bulk", "Bulk opt-out", nil)
}

func (h *Handler) bulkUpload(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxUpload)
	if err := r.ParseMultipartForm(maxUpload); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return invalid(fmt.Sprintf("The file is larger than %d MB. Split it.", maxUpload>>20))
		}
		return invalid("The file could not be read.")
	}
	list := io.Reader(strings.NewReader(r.FormValue("numbers")))
	if f, info, err := r.FormFile("file"); err == nil && info.Size > 0 {
		defer f.Close()
		if strings.TrimSpace(r.FormValue("numbers")) != "" {
			return invalid("There is a file and there are numbers. Give one of them.")
		}
		list = f
	}
	p := preview{Undo: r.FormValue("action") == "undo"}
	if err := h.read(r.Context(), &p, list); err != nil {
		return err
	}
	if p.Rows == 0 {
		return invalid("There is no number in it.")
	}
	lines := make([]string, len(p.Change))
	for i, n := range p.Change {
		lines[i] = n.String()
	}
	p.Numbers = strings.Join(lines, "\n")
	for _, n := range p.Change[:min(maxShown, len(p.Change))] {
		x := sampleRow{Number: n, Now: h.Ledger.State(n)}
		for _, c := range h.CRMs {
			known, err := h.Ledger.Mirror(c.Name).ByNumber(r.Context(), n)
			if err != nil {
				return err
			}
			x.Records += len(known)
		}
		p.Sample = append(p.Sample, x)
	}
	return h.show(w, r, http.StatusOK, "bulkpreview", "Bulk opt-out: preview", p)
}

// BadCount is how many rows are no number.
func (p preview) BadCount() int { return len(p.Bad) + p.BadMore }

// More is how many numbers the sample leaves out.
func (p preview) More() int { return len(p.Change) - len(p.Sample) }

// read says what a list would do.
func (h *Handler) read(ctx context.Context, p *preview, list io.Reader) error {
	b, err := h.changes().Plan(ctx, list, "", p.Undo, maxNumbers)
	switch {
	case errors.Is(err, connector.ErrTooMany):
		return invalid(fmt.Sprintf("There are more than %d numbers. Split the list, or use heed optouts import at the command line.", maxNumbers))
	case errors.Is(err, export.ErrList):
		return invalid(err.Error())
	}
	p.Rows, p.Change, p.Already, p.Refused, p.Duplicate = b.Rows, b.Change, b.Already, b.Refused, b.Duplicates
	p.Bad, p.BadMore, p.Records = b.Problems, b.Unreadable-len(b.Problems), b.Records
	p.Column, p.Ignored = b.Column, b.Ignored
	return err
}

func (h *Handler) changes() *connector.Bulk {
	return &connector.Bulk{Ledger: h.Ledger, CRMs: h.CRMs, Region: h.Region, Now: h.Now}
}

// applied is what was done.
type applied struct {
	Undo    bool
	Done    []phone.Number
	Failed  int
	Numbers string
}

func (h *Handler) bulkApply(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxUpload)
	if err := r.ParseForm(); err != nil {
		return invalid("The form could not be read.")
	}
	undo, why := r.PostForm.Get("action") == "undo", strings.TrimSpace(r.PostForm.Get("why"))
	var numbers []phone.Number
	for _, f := range strings.Fields(r.PostForm.Get("numbers")) {
		n, err := phone.Parse(f, h.Region)
		if err != nil {
			return invalid("The list was changed after the preview.")
		}
		numbers = append(numbers, n)
	}
	switch {
	case len(numbers) == 0 || len(numbers) > maxNumbers:
		return invalid("There is nothing to change.")
	case strings.TrimSpace(r.PostForm.Get("count")) != strconv.Itoa(len(numbers)):
		return invalid(fmt.Sprintf("To confirm, type the number of changes: %d.", len(numbers)))
	case why == "" || len(why) > 500:
		return invalid("Say why, in at most 500 characters: it is kept with your name.")
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(bulkTime)) // of the network, which knows no clock but this
	out, err := h.changes().Apply(r.Context(), numbers, undo, connector.By{Who: who(r.Context()), Via: "page", Why: why}, func(int) {})
	done := applied{Undo: undo, Done: out.Changed, Failed: out.Refused}
	lines := make([]string, len(done.Done))
	for i, n := range done.Done {
		lines[i] = n.String()
	}
	if err != nil { // what was done stands; the page says how far it came
		h.Log.Error("bulk change ended early", "done", len(done.Done), "of", len(numbers), "error", err)
		done.Failed = len(numbers) - len(done.Done) - out.Already
		done.Numbers = strings.Join(lines, "\n")
		return h.show(w, r, http.StatusInternalServerError, "bulkdone", "Bulk opt-out: interrupted", done)
	}
	done.Numbers = strings.Join(lines, "\n")
	return h.show(w, r, http.StatusOK, "bulkdone", "Bulk opt-out: done", done)
}

// bulkFile gives a list of numbers back as a file, so that what was done can be undone on another day. It changes nothing.
func (h *Handler) bulkFile(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxUpload)
	if err := r.ParseForm(); err != nil {
		return invalid("The form could not be read.")
	}
	list := []string{"number"}
	for _, f := range strings.Fields(r.PostForm.Get("numbers")) {
		n, err := phone.ParseE164(f)
		if err != nil {
			return invalid("The list was changed.")
		}
		list = append(list, n.String())
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="heed-undo-`+h.Now().In(h.Zone).Format("20060102-150405")+`.csv"`)
	_, err := io.WriteString(w, strings.Join(list, "\r\n")+"\r\n")
	return err
}
