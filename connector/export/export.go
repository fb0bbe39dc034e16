// Package export writes the list of numbers as a file and reads the lists that people bring: CSV, XLSX, JSON lines and
// plain lists. Every export of heed is written here, so that there is one shape, one order and one guard against cells
// that a spreadsheet would take for formulas ([Cell], [Text]).
//
// An export is complete or it fails: it goes through the ledger in the order of the numbers, so that a number whose state
// changes meanwhile is neither left out nor written twice, and an error on the way is an error of the export.
//
// Files are read and written in bounded memory, but for XLSX that is read, which is refused above [MaxWorkbook].
package export

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

// Row is a number as the list shows it. Fields may be added; these stay.
type Row struct {
	Number  phone.Number   `json:"number"`
	State   consent.State  `json:"state"`
	Source  consent.Source `json:"source,omitempty"` // of the newest opt-out
	Keyword string         `json:"keyword,omitempty"`
	Since   time.Time      `json:"since"` // when the state began
	// Campaign is the one to which the newest opt-out is attributed: that of the last message that was sent to the number,
	// if it was sent within campaigns.window before. "" for none.
	Campaign string `json:"campaign,omitempty"`
}

// Ledger is what an export reads.
type Ledger interface {
	Numbers(ctx context.Context, after phone.Number) iter.Seq2[ledger.Number, error]
	LastOptOut(ctx context.Context, n phone.Number) (ledger.OptOut, error)
}

// RowOf returns a number's row. window is how long after a campaign's message an opt-out is attributed to it.
func RowOf(ctx context.Context, l Ledger, n ledger.Number, window time.Duration) (Row, error) {
	r := Row{Number: n.Number, State: n.Facts.State(), Source: n.Source, Keyword: n.Keyword, Since: n.At()}
	last, err := l.LastOptOut(ctx, n.Number)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return r, nil
	case err == nil:
		r.Campaign = last.Campaign(window)
	}
	return r, err
}

// Rows yields every number that q selects, in numerical order, after the number after (the zero Number is before all).
// Of q it leaves After and Limit aside. An error ends it.
func Rows(ctx context.Context, l Ledger, q ledger.Query, after phone.Number) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for n, err := range l.Numbers(ctx, after) {
			if err != nil {
				yield(Row{}, err)
				return
			}
			if !selects(q, n) {
				continue
			}
			r, err := RowOf(ctx, l, n, q.Window)
			if err == nil && q.Campaign != "" && r.Campaign != q.Campaign {
				continue
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// selects is what ledger.Query means, but for the campaign.
func selects(q ledger.Query, n ledger.Number) bool {
	s, at := n.Facts.State(), n.At()
	switch {
	case len(q.States) == 0 && s == consent.Unknown,
		len(q.States) > 0 && !slices.Contains(q.States, s),
		len(q.Sources) > 0 && !slices.Contains(q.Sources, n.Source),
		!strings.HasSuffix(n.Number.String(), q.Ends),
		!q.Since.IsZero() && at.Before(q.Since),
		!q.Until.IsZero() && !at.Before(q.Until):
		return false
	}
	return true
}

// Format is how an export is written.
type Format string

const (
	CSV  Format = "csv"  // RFC 4180, UTF-8, with a header
	JSON Format = "json" // a Row a line
	XLSX Format = "xlsx" // every cell a text; beyond the 1,048,576 rows of a sheet it goes on in the next
)

// Formats are all of them.
var Formats = []Format{CSV, JSON, XLSX}

// ParseFormat reads the name of a format.
func ParseFormat(s string) (Format, error) {
	if f := Format(s); slices.Contains(Formats, f) {
		return f, nil
	}
	return "", fmt.Errorf("%.20q is no format of the list: want csv, json or xlsx", s)
}

// ContentType is the format's media type.
func (f Format) ContentType() string {
	switch f {
	case CSV:
		return "text/csv; charset=utf-8"
	case XLSX:
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	}
	return "application/x-ndjson"
}

// Columns are the columns of CSV and XLSX, in order.
var Columns = []string{"number", "state", "source", "keyword", "since", "campaign"}

// cells returns a row's guarded cells.
func (r Row) cells() []string {
	c := []string{r.Number.String(), r.State.String(), string(r.Source), r.Keyword, r.Since.UTC().Format(time.RFC3339), r.Campaign}
	for i := range c {
		c[i] = Cell(c[i])
	}
	return c
}

// Write writes rows as they come. After an error, which may be one of rows, what was written is incomplete and must not be
// taken for the list.
func Write(w io.Writer, f Format, rows iter.Seq2[Row, error]) error {
	b := bufio.NewWriterSize(w, 64<<10)
	var err error
	switch f {
	case CSV:
		err = writeCSV(b, rows)
	case JSON:
		err = writeJSON(b, rows)
	case XLSX:
		err = writeXLSX(b, rows)
	default:
		_, err = ParseFormat(string(f))
	}
	if err != nil {
		return err // what is buffered is not written: it would look whole
	}
	return b.Flush()
}

func writeCSV(w io.Writer, rows iter.Seq2[Row, error]) error {
	c := csv.NewWriter(w)
	_ = c.Write(Columns) // an error is kept until Error
	for r, err := range rows {
		if err != nil {
			return err
		}
		if err := c.Write(r.cells()); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

func writeJSON(w io.Writer, rows iter.Seq2[Row, error]) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for r, err := range rows {
		if err != nil {
			return err
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return nil
}
