package export

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// MaxRow is the length of the longest row that a RowReader takes, in bytes: longer ones come from a quote that is not
// closed.
const MaxRow = 1 << 20

// RowReader splits CSV (RFC 4180) into rows without changing a byte. encoding/csv would not do: it turns CR LF within
// quotes into LF, so that rows could not be passed on as they came, and stops at the first row with a flaw.
type RowReader struct {
	Comma byte // between cells

	r     *bufio.Reader
	bytes int64 // read
	lines int   // read
	buf   []byte
	cells []span
}

type span struct{ from, to int }

// Flaws of rows.
const (
	misplaced = "a quote is not where it belongs"
	unclosed  = "a quote is not closed"
	strayCR   = "a carriage return without a line feed"
)

// NewRowReader reads rows with commas between cells.
func NewRowReader(r io.Reader) *RowReader {
	return &RowReader{Comma: ',', r: bufio.NewReaderSize(r, 64<<10)}
}

// CSVRow is one row. It is valid until the next one is read.
type CSVRow struct {
	Raw, End []byte // its text, and what ended its line
	Line     int    // where it begins, from 1
	Flaw     string // why it is no row, "" if it is one
	Unquoted bool   // its quotes are wrong: its text cannot stand in a CSV file

	cells []span // in Raw, quotes included
}

// Len returns how many cells a row has.
func (r CSVRow) Len() int { return len(r.cells) }

// Cell returns the value of a cell of a row without a flaw.
func (r CSVRow) Cell(i int) string {
	c := r.Raw[r.cells[i].from:r.cells[i].to]
	if len(c) > 1 && c[0] == '"' {
		return strings.ReplaceAll(string(c[1:len(c)-1]), `""`, `"`)
	}
	return string(c)
}

// Cells returns the values of all cells of a row without a flaw.
func (r CSVRow) Cells() []string {
	out := make([]string, r.Len())
	for i := range out {
		out[i] = r.Cell(i)
	}
	return out
}

// Bytes returns how many bytes were read.
func (r *RowReader) Bytes() int64 { return r.bytes }

// BOM takes the byte order mark off the beginning, and returns it.
func (r *RowReader) BOM() (string, error) {
	const utf8 = "\uFEFF"
	b, _ := r.r.Peek(len(utf8))
	switch {
	case string(b) == utf8:
		_, err := r.r.Discard(len(utf8))
		return utf8, err
	case bytes.HasPrefix(b, []byte("\xFF\xFE")), bytes.HasPrefix(b, []byte("\xFE\xFF")):
		return "", errors.New("is UTF-16: save it as CSV UTF-8")
	}
	return "", nil
}

// Next returns the next row that is not blank, or io.EOF.
func (r *RowReader) Next() (CSVRow, error) {
	const (
		start  = iota // of a cell
		plain         // in a cell without quotes
		quoted        // in one with
		closed        // behind a quote in one with
	)
	for {
		row := CSVRow{Line: r.lines + 1}
		r.buf, r.cells = r.buf[:0], r.cells[:0]
		state, from, cr, ended := start, 0, false, false
		for pos := 0; !ended; {
			chunk, err := r.r.ReadSlice('\n')
			r.buf, r.bytes = append(r.buf, chunk...), r.bytes+int64(len(chunk))
			if len(r.buf) > MaxRow {
				return row, fmt.Errorf("line %d: the row is longer than %d bytes; is a quote not closed?", row.Line, MaxRow)
			}
			for ; pos < len(r.buf); pos++ {
				c := r.buf[pos]
				if cr && c != '\n' { // other programs would begin a new row there
					row.Flaw, row.Unquoted = strayCR, true
				}
				cr = false
				switch {
				case c == '\n':
					r.lines++
				case state == quoted && c == '"':
					state = closed
					continue
				}
				if state == quoted {
					continue
				}
				switch {
				case c == '\n':
					ended = true
				case c == r.Comma:
					r.cells = append(r.cells, span{from, pos})
					state, from = start, pos+1
				case c == '\r':
					cr = true
				case c == '"' && (state == start || state == closed):
					state = quoted
				case state == closed:
					row.Flaw, row.Unquoted = misplaced, true
					state = plain
				case state == start:
					state = plain
				}
			}
			if err == io.EOF {
				if len(r.buf) == 0 {
					return row, io.EOF
				}
				if !bytes.HasSuffix(r.buf, []byte{'\n'}) {
					r.lines++
				}
				if state == quoted {
					row.Flaw, row.Unquoted = unclosed, true
				} else if cr {
					row.Flaw, row.Unquoted = strayCR, true
				}
				break
			}
			if err != nil && err != bufio.ErrBufferFull {
				return row, err
			}
		}
		row.Raw = r.buf
		if ended {
			row.Raw = bytes.TrimSuffix(row.Raw[:len(row.Raw)-1], []byte{'\r'})
			row.End = r.buf[len(row.Raw):]
		}
		if len(row.Raw) == 0 {
			continue // a blank line
		}
		row.cells = append(r.cells, span{from, len(row.Raw)})
		r.cells = row.cells
		return row, nil
	}
}

// ErrColumn is returned by FindColumn for a name that is not there, or there twice.
var ErrColumn = errors.New("column")

// numberNames are what a column with telephone numbers is called.
var numberNames = []string{"phone", "mobile", "number", "to", "tel", "cell", "msisdn", "e164"}

// FindColumn returns the column with the telephone numbers: the one that is called want, else the first one called phone,
// mobile, number, to, tel, cell, msisdn or e164, else the first whose name contains phone or mobile, then number, then the
// word to. known is false where none of these fits; the column is the first one then. Case and blanks do not matter.
// Errors wrap ErrColumn.
func FindColumn(names []string, want string) (column int, known bool, _ error) {
	clean := make([]string, len(names))
	for i, n := range names {
		clean[i] = strings.ToLower(strings.TrimSpace(n))
	}
	if want != "" {
		want = strings.ToLower(strings.TrimSpace(want))
		at := slices.Index(clean, want)
		switch {
		case at < 0:
			return 0, false, fmt.Errorf("%w: there is no such column; the header has %q", ErrColumn, names)
		case slices.Contains(clean[at+1:], want):
			return 0, false, fmt.Errorf("%w: two columns have this name; rename one", ErrColumn)
		}
		return at, true, nil
	}
	contains := func(words ...string) func(string) bool {
		return func(name string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(name, w) })
		}
	}
	for _, fits := range []func(string) bool{
		func(name string) bool { return slices.Contains(numberNames, name) },
		contains("phone", "mobile"),
		contains("number"),
		// "to" as a word: customer and total have it too.
		func(name string) bool {
			return slices.Contains(strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) }), "to")
		},
	} {
		if at := slices.IndexFunc(clean, fits); at >= 0 {
			return at, true, nil
		}
	}
	return 0, false, nil
}
