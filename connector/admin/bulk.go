package admin

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/sms/phone"
)

// Opting out in bulk is done in two steps: a preview that changes nothing, and a confirmation that carries the numbers and
// how many there are, typed by the person. Undoing is the same with what the first one left behind.

const (
	maxUpload  = 2 << 20 // bytes
	maxNumbers = 20_000
	bulkTime   = 10 * time.Minute
	maxShown   = 20 // numbers, and rows with a problem, that the preview lists
)

// preview is what an upload would do.
type preview struct {
	Undo      bool
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
	text := r.FormValue("numbers")
	if f, _, err := r.FormFile("file"); err == nil {
		b, err := io.ReadAll(f)
		_ = f.Close()
		if err != nil {
			return invalid("The file could not be read.")
		}
		text += "\n" + string(b)
	}
	p := preview{Undo: r.FormValue("action") == "undo"}
	if err := h.read(r.Context(), &p, text); err != nil {
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
	for i, n := range p.Change {
		records := 0
		for _, c := range h.CRMs {
			known, err := h.Ledger.Mirror(c.Name).ByNumber(r.Context(), n)
			if err != nil {
				return err
			}
			records += len(known)
		}
		p.Records += records
		if i < maxShown {
			p.Sample = append(p.Sample, sampleRow{n, h.Ledger.State(n), records})
		}
	}
	return h.show(w, r, http.StatusOK, "bulkpreview", "Bulk opt-out: preview", p)
}

// BadCount is how many rows are no number.
func (p preview) BadCount() int { return len(p.Bad) + p.BadMore }

// More is how many numbers the sample leaves out.
func (p preview) More() int { return len(p.Change) - len(p.Sample) }

// read finds the numbers in a list: one a line, or a CSV with the numbers in a column called number or phone, or else in
// the first column.
func (h *Handler) read(ctx context.Context, p *preview, text string) error {
	text = strings.TrimPrefix(strings.TrimSpace(text), "\ufeff")
	line, _, _ := strings.Cut(text, "\n")
	table := csv.NewReader(bufio.NewReader(strings.NewReader(text)))
	table.FieldsPerRecord, table.LazyQuotes, table.TrimLeadingSpace = -1, true, true
	for _, d := range []rune{';', '\t'} {
		if strings.ContainsRune(line, d) && !strings.ContainsRune(line, ',') {
			table.Comma = d
		}
	}
	column := 0
	seen := map[phone.Number]bool{}
	for n := 1; ; n++ {
		rec, err := table.Read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return invalid(fmt.Sprintf("Row %d is no CSV.", n))
		}
		if n == 1 {
			if i, header := headerColumn(rec); header {
				column = i
				continue
			}
		}
		if column >= len(rec) || strings.TrimSpace(rec[column]) == "" {
			continue
		}
		if p.Rows++; p.Rows > maxNumbers {
			return invalid(fmt.Sprintf("There are more than %d numbers. Split the list, or use heed optouts at the command line.", maxNumbers))
		}
		cell := strings.TrimPrefix(strings.TrimSpace(rec[column]), "'") // a spreadsheet's guard against formulas
		num, err := phone.Parse(cell, h.Region)
		switch {
		case err != nil:
			if len(p.Bad) < maxShown {
				p.Bad = append(p.Bad, fmt.Sprintf("row %d: %.40q%s", n, cell, hint(cell)))
			} else {
				p.BadMore++
			}
		case seen[num]:
			p.Duplicate++
		default:
			seen[num] = true
			if err := h.plan(ctx, p, num); err != nil {
				return err
			}
		}
	}
}

// hint explains what spreadsheets do to numbers.
func hint(cell string) string {
	if _, err := strconv.ParseFloat(cell, 64); err == nil && strings.ContainsAny(cell, "eE") {
		return " – a spreadsheet has rounded it; format the column as text and export again"
	}
	return ""
}

func headerColumn(rec []string) (column int, header bool) {
	for i, c := range rec {
		switch strings.ToLower(strings.TrimSpace(c)) {
		case "number", "phone", "phone number", "mobile", "mobilephone", "mobile phone", "e164", "msisdn", "to":
			return i, true
		}
	}
	// A first row without a digit is a heading all the same.
	return 0, !strings.ContainsAny(strings.Join(rec, ""), "0123456789")
}

func (h *Handler) plan(ctx context.Context, p *preview, n phone.Number) error {
	out := h.Ledger.State(n) == consent.OptedOut
	switch {
	case !p.Undo && out, p.Undo && !out:
		p.Already++
	case p.Undo:
		known, err := h.Ledger.Number(ctx, n)
		if err != nil {
			return err
		}
		if known.Facts.Stopped() {
			p.Refused++
		} else {
			p.Change = append(p.Change, n)
		}
	default:
		p.Change = append(p.Change, n)
	}
	return nil
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
	what := "bulk_opt_out"
	state := consent.OptedOut
	if undo {
		what, state = "bulk_undo", consent.OptedIn
	}
	if err := h.People.Act(r.Context(), what, fmt.Sprintf("%d numbers", len(numbers)), why); err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetWriteDeadline(h.Now().Add(bulkTime))
	done := applied{Undo: undo}
	lines := []string{}
	for _, n := range numbers {
		err := h.Consents.Set(r.Context(), n, state, consent.Admin, who(r.Context()), why)
		switch {
		case err == nil:
			done.Done = append(done.Done, n)
			lines = append(lines, n.String())
		case errors.Is(err, connector.ErrSticky), errors.Is(err, connector.ErrHeld):
			done.Failed++
		default: // what was done stands; the page says how far it came
			h.Log.Error("bulk change ended early", "done", len(done.Done), "of", len(numbers), "error", err)
			done.Failed = len(numbers) - len(done.Done)
			done.Numbers = strings.Join(lines, "\n")
			return h.show(w, r, http.StatusInternalServerError, "bulkdone", "Bulk opt-out: interrupted", done)
		}
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
