package export

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"
	"unicode"

	"github.com/xuri/excelize/v2"
)

const (
	// MaxWorkbook is the size of the largest XLSX file that is read, in bytes: it is kept in memory. A million numbers take
	// about a quarter of it. A larger list can be brought as CSV, which has no limit.
	MaxWorkbook = 128 << 20

	// All parts of a workbook together may be unpackRatio times as large as the file, and minUnpacked bytes at any rate. Real
	// ones are some twenty times as large. Sheets above 16 MiB are unpacked to a temporary file.
	unpackRatio = 100
	minUnpacked = 64 << 20

	sheetName = "Numbers"
)

// sheetRows is how many rows a sheet has (Excel's limit). A test makes it smaller.
var sheetRows = excelize.TotalRows

// writeXLSX writes rows through temporary files, which are removed at the end.
func writeXLSX(w io.Writer, rows iter.Seq2[Row, error]) (err error) {
	f := excelize.NewFile()
	var sheet *excelize.StreamWriter
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.SetSheetName("Sheet1", sheetName); err != nil {
		return err
	}
	sheets, next := 0, 1
	line := make([]any, len(Columns))
	put := func(cells []string) error {
		for i, c := range cells {
			line[i] = Cell(printable(Text(c))) // guarded as what it becomes, so that it reads back as that
		}
		next++
		return sheet.SetRow("A"+strconv.Itoa(next-1), line)
	}
	begin := func() error {
		name := sheetName
		if sheets++; sheets > 1 {
			name = fmt.Sprintf("%s %d", sheetName, sheets)
			if _, err := f.NewSheet(name); err != nil {
				return err
			}
		}
		if sheet, err = f.NewStreamWriter(name); err != nil {
			return err
		}
		next = 1
		return errors.Join(sheet.SetColWidth(1, len(Columns), 22), put(Columns))
	}
	if err := begin(); err != nil {
		return err
	}
	for r, err := range rows {
		if err != nil {
			return err
		}
		if next > sheetRows {
			if err := errors.Join(sheet.Flush(), begin()); err != nil {
				return err
			}
		}
		if err := put(r.cells()); err != nil {
			return err
		}
	}
	if err := sheet.Flush(); err != nil {
		return err
	}
	// The library would pack the whole file in memory first.
	f.SetZipWriter(func(io.Writer) excelize.ZipWriter { return zip.NewWriter(w) })
	return f.Write(io.Discard)
}

// printable replaces what XML cannot hold.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && r != '\n' && r != '\r' && unicode.Is(unicode.Cc, r) || r == '\uFFFE' || r == '\uFFFF' {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
}

// isXLSX and isXLS look at a file's beginning.
func isXLSX(head []byte) bool { return bytes.HasPrefix(head, []byte("PK\x03\x04")) }
func isXLS(head []byte) bool  { return bytes.HasPrefix(head, []byte("\xD0\xCF\x11\xE0")) }

// workbook yields the rows of all sheets, one after the other.
func workbook(r io.Reader, fn func(sheet string, line int, cells []string) error) (err error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxWorkbook+1))
	if err != nil {
		return err
	}
	if len(b) > MaxWorkbook {
		return fmt.Errorf("%w: the workbook is larger than %d MB: save the list as CSV", ErrList, MaxWorkbook>>20)
	}
	f, err := excelize.OpenReader(bytes.NewReader(b), excelize.Options{RawCellValue: true, UnzipSizeLimit: max(minUnpacked, unpackRatio*int64(len(b))), UnzipXMLSizeLimit: excelize.StreamChunkSize})
	if err != nil {
		return fmt.Errorf("%w: not a whole workbook, or one with a password: %w", ErrList, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := wholeSheets(b); err != nil {
		return err
	}
	for _, sheet := range f.GetSheetList() {
		rows, err := f.Rows(sheet)
		if err != nil {
			return fmt.Errorf("%w: sheet %q: %w", ErrList, sheet, err)
		}
		err = func() (err error) {
			defer func() { err = errors.Join(err, rows.Close()) }()
			for line := 1; rows.Next(); line++ {
				cells, err := rows.Columns()
				if err != nil {
					return fmt.Errorf("%w: sheet %q, line %d: %w", ErrList, sheet, line, err)
				}
				if len(cells) == 0 {
					continue
				}
				if err := fn(sheet, line, cells); err != nil {
					return err
				}
			}
			return nil
		}()
		if err != nil {
			return err
		}
	}
	return nil
}

// wholeSheets reads the XML of each sheet to its end. The library takes damage in it for the end of the sheet, and half a list
// must not be taken for one.
func wholeSheets(b []byte) error {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return fmt.Errorf("%w: not a whole workbook: %w", ErrList, err)
	}
	for _, part := range z.File {
		if !strings.HasPrefix(part.Name, "xl/worksheets/") || !strings.HasSuffix(part.Name, ".xml") {
			continue
		}
		r, err := part.Open()
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrList, part.Name, err)
		}
		d := xml.NewDecoder(bufio.NewReader(r))
		for err == nil {
			_, err = d.Token()
		}
		if err = errors.Join(notEOF(err), r.Close()); err != nil {
			return fmt.Errorf("%w: the workbook is damaged at line %d of %s: save it again, or as CSV", ErrList, lineOf(d), part.Name)
		}
	}
	return nil
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func lineOf(d *xml.Decoder) int {
	line, _ := d.InputPos()
	return line
}

// integer writes a number that a spreadsheet keeps as a floating-point one the way people write numbers: without an
// exponent and without ".0". One whose last digits may have been rounded away stays as it is, and is no number then.
func integer(s string) string {
	mantissa, exponent, ok := strings.Cut(strings.ToUpper(s), "E")
	digits, fraction, dotted := strings.Cut(mantissa, ".")
	if !allDigits(strings.TrimPrefix(digits, "+")) || !ok && !dotted {
		return s
	}
	if !ok {
		if fraction != "" && strings.Trim(fraction, "0") == "" && len(digits) >= 7 {
			return digits
		}
		return s
	}
	e, err := strconv.Atoi(exponent)
	v, ferr := strconv.ParseFloat(s, 64)
	if err != nil || ferr != nil || e < 0 || len(digits)+len(fraction) < len(digits)+e || v != math.Trunc(v) || v >= 1<<53 {
		return s
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

func allDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
