package export

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/sms/phone"
)

// Entry is a row of a list that somebody brought.
type Entry struct {
	Where   string       // "line 12", or "Sheet2, line 12" in a workbook with several sheets
	Number  phone.Number // the zero value if there is none
	Problem string       // why there is none, for people; it never contains the cell. "" for an empty cell too
}

// Reader reads lists of numbers: CSV with commas, semicolons or tabs, XLSX, or one number a line; UTF-8, or UTF-16 with a
// byte order mark. What a file is shows in its content, never in its name.
//
// The first row is a header if no cell of it is a telephone number and either the name of a column says that it holds
// numbers (see [FindColumn]) or there is no digit in it. A list without one has its numbers in the first column that holds
// one in the first row.
type Reader struct {
	Column string // the column with the numbers, by its name or counted from 1; "" to find it
	Region string // of numbers without a country code, see phone.Parse
}

// Layout says how a list was understood.
type Layout struct {
	Format  Format   // CSV or XLSX; a plain list is a CSV of one column
	Column  string   // the name of the column with the numbers, or "column 1" where there is no header
	Ignored []string // sheets of a workbook in which nothing looks like a telephone number
}

// ErrList is wrapped by what Read says of a list that cannot be read on.
var ErrList = errors.New("the list cannot be read")

// Read calls fn for each row, in order, and returns how it understood the list. It ends with the first error of fn. A list
// that is damaged so that rows may be missed is an error, wrapping ErrList: half a list must not be taken for one.
func (o Reader) Read(in io.Reader, fn func(Entry) error) (Layout, error) {
	r := bufio.NewReaderSize(in, 64<<10)
	head, err := r.Peek(8)
	if err != nil && err != io.EOF {
		return Layout{}, err
	}
	switch {
	case isXLSX(head):
		return o.workbook(r, fn)
	case isXLS(head):
		return Layout{}, fmt.Errorf("%w: this is an old .xls workbook, or one with a password; save it as .xlsx or CSV", ErrList)
	case bytes.HasPrefix(head, []byte("%PDF")):
		return Layout{}, fmt.Errorf("%w: this is a PDF; bring CSV or XLSX", ErrList)
	}
	return o.text(r, fn)
}

func (o Reader) text(in io.Reader, fn func(Entry) error) (layout Layout, _ error) {
	layout.Format = CSV
	rows := NewRowReader(transform.NewReader(in, unicode.BOMOverride(transform.Nop)))
	rows.Comma = rows.guessComma()
	var t *table
	for {
		row, err := rows.Next()
		switch {
		case err == io.EOF:
			return layout, nil
		case err != nil:
			return layout, fmt.Errorf("%w: %w", ErrList, err)
		case row.Flaw == unclosed:
			return layout, fmt.Errorf("%w: line %d: %s; the rows behind it cannot be told apart", ErrList, row.Line, row.Flaw)
		}
		e := Entry{Where: fmt.Sprintf("line %d", row.Line)}
		switch {
		case row.Flaw != "":
			e.Problem = row.Flaw
		case t == nil:
			var header bool
			if t, header, err = o.begin(row.Cells()); err != nil {
				return layout, fmt.Errorf("%w: line %d: %w", ErrList, row.Line, err)
			}
			if layout.Column = t.name; header {
				continue
			}
			t.entry(&e, row.Cells())
		case row.Len() != t.width && bytes.IndexByte(row.Raw, '\n') >= 0:
			e.Problem = fmt.Sprintf("%d columns over several lines, but the first row has %d; is a quote missing?", row.Len(), t.width)
		default:
			t.entry(&e, row.Cells())
		}
		if err := fn(e); err != nil {
			return layout, err
		}
	}
}

// guessComma returns what stands between the cells of the first line.
func (r *RowReader) guessComma() byte {
	line, _ := r.r.Peek(r.r.Size())
	line, _, _ = bytes.Cut(line, []byte{'\n'})
	comma, most := byte(','), bytes.Count(line, []byte{','})
	for _, c := range []byte{';', '\t'} {
		if n := bytes.Count(line, []byte{c}); n > most {
			comma, most = c, n
		}
	}
	return comma
}

func (o Reader) workbook(in io.Reader, fn func(Entry) error) (layout Layout, _ error) {
	layout.Format = XLSX
	var t *table // of the sheet; nil if it has no numbers
	current, column := "", false
	err := workbook(in, func(sheet string, line int, cells []string) error {
		for i := range cells {
			cells[i] = integer(cells[i])
		}
		header := false
		if sheet != current {
			current = sheet
			var err error
			if t, header, err = o.begin(cells); err != nil {
				layout.Ignored = append(layout.Ignored, sheet)
			} else if !column {
				layout.Column, column = t.name, true
			}
		}
		if header || t == nil {
			return nil
		}
		e := Entry{Where: fmt.Sprintf("%s, line %d", sheet, line)}
		t.entry(&e, cells)
		return fn(e)
	})
	if err == nil && !column {
		err = fmt.Errorf("%w: no sheet has a column with telephone numbers; say which it is, by its name or counted from 1", ErrList)
	}
	return layout, err
}

// table is what the first row said of the others.
type table struct {
	o      Reader
	column int
	name   string
	width  int // cells of the first row
	state  int // the column with the state in a list of heed's own, else -1
}

// begin looks at the first row, which may be a header.
func (o Reader) begin(cells []string) (_ *table, header bool, _ error) {
	t := &table{o: o, width: len(cells), state: -1}
	names := make([]string, len(cells))
	var numbers []int
	for i, c := range cells {
		names[i] = strings.TrimSpace(Text(c))
		if n, _ := o.number(c); n.IsValid() {
			numbers = append(numbers, i)
		}
	}
	at, known, err := FindColumn(names, "")
	header = len(numbers) == 0 && (known || !strings.ContainsAny(strings.Join(names, ""), "0123456789"))
	choose := func(column int) {
		t.column, t.name = column, fmt.Sprintf("column %d", column+1)
		if header && names[column] != "" {
			t.name = names[column]
		}
	}
	const say = "say which column holds the telephone numbers, by its name or counted from 1"
	switch {
	case o.Column != "":
		if len(numbers) == 0 {
			if at, known, err = FindColumn(names, o.Column); known {
				header = true
				choose(at)
				break
			}
		}
		n, aerr := strconv.Atoi(o.Column)
		switch {
		case aerr == nil && n >= 1 && n <= len(cells):
			choose(n - 1)
		case err != nil:
			return nil, false, err
		default:
			return nil, false, errors.New("there is no header, so no column is called that: count the columns from 1")
		}
	case len(numbers) > 1:
		return nil, false, fmt.Errorf("there is no header, and %d columns look like telephone numbers: %s", len(numbers), say)
	case len(numbers) == 1:
		choose(numbers[0])
	case known:
		choose(at)
	case len(cells) == 1:
		choose(0)
	case header:
		return nil, false, fmt.Errorf("the header has %.60q, and none of them is known to hold telephone numbers: %s", names, say)
	default:
		return nil, false, fmt.Errorf("there is no header and no telephone number: %s", say)
	}
	if header && slices.Equal(names, Columns) {
		t.state = slices.Index(Columns, "state")
	}
	return t, header, nil
}

// entry reads the number of a row.
func (t *table) entry(e *Entry, cells []string) {
	if t.column >= len(cells) {
		return
	}
	if t.state >= 0 && t.state < len(cells) {
		if s := cells[t.state]; s != consent.OptedOut.String() && s != consent.Held.String() {
			e.Problem = fmt.Sprintf("this is heed's own list, and the number's state is %.20q: only opted_out and held are read", s)
			return
		}
	}
	e.Number, e.Problem = t.o.number(cells[t.column])
}

// number reads a cell. Both results are zero for an empty one.
func (o Reader) number(cell string) (_ phone.Number, problem string) {
	s := strings.TrimLeft(strings.TrimSpace(Text(cell)), "'") // an apostrophe makes a cell text, in a spreadsheet
	if s == "" {
		return phone.Number{}, ""
	}
	s = integer(s)
	if _, err := strconv.ParseFloat(s, 64); err == nil && strings.ContainsAny(s, "eE") {
		return phone.Number{}, "a spreadsheet has rounded it; format the column as text and export again"
	}
	n, err := phone.Parse(s, o.Region)
	if err != nil {
		return phone.Number{}, strings.TrimPrefix(err.Error(), phone.ErrInvalid.Error()+": ")
	}
	return n, ""
}
