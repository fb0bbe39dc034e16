package export

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/xuri/excelize/v2"

	"github.com/heed-sms/heed/sms/phone"
)

// list reads a list and writes each row as its number or as its problem, in the order of the file.
func list(o Reader, in io.Reader) (Layout, []string, error) {
	if o.Region == "" {
		o.Region = "US"
	}
	var got []string
	layout, err := o.Read(in, func(e Entry) error {
		switch {
		case e.Problem != "":
			got = append(got, e.Where+": "+e.Problem)
		case e.Number.IsValid():
			got = append(got, e.Number.String())
		default:
			got = append(got, "")
		}
		return nil
	})
	return layout, got, err
}

const (
	first  = "+14155550101"
	second = "+14155550102"
)

func TestListsAreReadAsPeopleBringThem(t *testing.T) {
	utf16le := []byte{0xFF, 0xFE}
	for _, u := range utf16.Encode([]rune("Name\tMobile\r\nZoë\t(415) 555-0101\r\nAda\t4155550102\r\n")) {
		utf16le = append(utf16le, byte(u), byte(u>>8))
	}
	for name, c := range map[string]struct {
		text, column string // column: the one that is found
		o            Reader
	}{
		"a number a line":            {"(415) 555-0101\n415.555.0102\n", "column 1", Reader{}},
		"CR LF and a blank line":     {"4155550101\r\n\r\n4155550102\r\n", "column 1", Reader{}},
		"no end of the last line":    {"4155550101\n4155550102", "column 1", Reader{}},
		"a byte order mark":          {"\ufeffphone\n4155550101\n4155550102\n", "phone", Reader{}},
		"UTF-16, tabs":               {string(utf16le), "Mobile", Reader{}},
		"a header by name":           {"id,Mobile Phone,name\n1,4155550101,Ada\n2,4155550102,Bob\n", "Mobile Phone", Reader{}},
		"semicolons":                 {"id;number\n1;4155550101\n2;4155550102\n", "number", Reader{}},
		"an unknown header":          {"who\n4155550101\n4155550102\n", "who", Reader{}},
		"no header, several columns": {"Ada,4155550101\nBob,4155550102\n", "column 2", Reader{}},
		"a column by name":           {"phone,second\n1,4155550101\n2,4155550102\n", "second", Reader{Column: "SECOND"}},
		"a column by its place":      {"4155550111,4155550101\n4155550112,4155550102\n", "column 2", Reader{Column: "2"}},
		"a place, below a header":    {"phone,second\n1,4155550101\n2,4155550102\n", "second", Reader{Column: "2"}},
		"guarded by a spreadsheet":   {"phone\n'+14155550101\n'4155550102\n", "phone", Reader{}},
		"floating-point numbers":     {"phone\n14155550101.0\n1.4155550102E10\n", "phone", Reader{}},
		"quotes and line ends":       {"note,phone\n\"says \"\"no\"\"\nand no\",4155550101\nx,\"4155550102\"\n", "phone", Reader{}},
		"another region":             {"tel\n+1 415 555 0101\n001 415 555 0102\n", "tel", Reader{Region: "DE"}},
	} {
		layout, got, err := list(c.o, strings.NewReader(c.text))
		if err != nil || layout.Column != c.column || !slices.Equal(got, []string{first, second}) {
			t.Errorf("%s: column %q, %q, %v", name, layout.Column, got, err)
		}
	}
}

func TestEveryRowThatIsNoNumberIsReportedWithItsPlaceAndWithoutItsText(t *testing.T) {
	text := "name,phone\nAda,4155550101\nBob,\nCy,415-555\nDi,1.41556E+10\nEd,\"a\"b\nFay\n\"Gus\nin two lines\",4155550102\nHal,4155550102,x\nIda,555123456789012345678\n"
	_, got, err := list(Reader{}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{first, "", "line 4: ", "line 5: a spreadsheet has rounded", "line 6: a quote is not where", "", "", second, "line 11: "} {
		if i == 6 {
			want = second // two lines, and as wide as the header
		}
		if i >= len(got) || !strings.HasPrefix(got[i], want) || want == "" && got[i] != "" {
			t.Fatalf("row %d of %q: want %q", i+1, got, want)
		}
	}
	for _, line := range got {
		if strings.Contains(line, "555123456789") || strings.Contains(line, "1.41556") {
			t.Errorf("%q shows the cell", line)
		}
	}
	_, got, err = list(Reader{}, strings.NewReader("a,b,phone\n1,2,4155550101\n\"1,2\n3,4155550103\"\n4,5,4155550102\n"))
	if err != nil || len(got) != 3 || !strings.Contains(got[1], "is a quote missing?") {
		t.Errorf("a row that swallowed another is %q, %v", got, err)
	}
}

func TestAListInWhichRowsMayBeMissedIsAnError(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an open quote":             {"phone\n4155550101\n\"4155550102\n4155550103\n", "line 3"},
		"two columns of numbers":    {"4155550101,4155550102\n", "say which column"},
		"an unknown header":         {"who,where\nAda,4155550101\n", "say which column"},
		"digits but no number":      {"id 1,555\n", "say which column"},
		"an old workbook":           {"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1....", ".xls"},
		"a broken workbook":         {"PK\x03\x04 and nothing behind it", "workbook"},
		"a PDF":                     {"%PDF-1.4 4155550101", "PDF"},
		"a row that is much longer": {"phone\n" + strings.Repeat("4155550101 ", MaxRow/10), "longer than"},
	} {
		if _, got, err := list(Reader{}, strings.NewReader(c.text)); !errors.Is(err, ErrList) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, column := range []string{"fax", "0", "3", "-1"} {
		if _, _, err := list(Reader{Column: column}, strings.NewReader("phone,name\n4155550101,Ada\n")); !errors.Is(err, ErrColumn) {
			t.Errorf("column %q: %v", column, err)
		}
		if _, _, err := list(Reader{Column: column}, strings.NewReader("4155550101,Ada\n")); !errors.Is(err, ErrList) || strings.Contains(err.Error(), "4155550101") {
			t.Errorf("column %q without a header: %v", column, err)
		}
	}
	stop := errors.New("stop")
	if _, err := (Reader{Region: "US"}).Read(strings.NewReader("4155550101\n"), func(Entry) error { return stop }); !errors.Is(err, stop) || errors.Is(err, ErrList) {
		t.Errorf("the callback's error came back as %v", err)
	}
}

// In a list of heed's own, only numbers that were opted out are read: all of them can be exported.
func TestHeedsOwnListSaysWhoWasOptedOut(t *testing.T) {
	text := strings.Join(Columns, ",") + "\n+14155550101,opted_out,,,,\n+14155550103,opted_in,,,,\n+14155550102,held,,,,\n"
	_, got, err := list(Reader{}, strings.NewReader(text))
	if err != nil || len(got) != 3 || got[0] != first || got[2] != second || !strings.Contains(got[1], `"opted_in"`) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWorkbooksOfPeopleAreRead(t *testing.T) {
	book := excelize.NewFile()
	defer book.Close()
	put := func(sheet, at string, v any) {
		t.Helper()
		if err := book.SetCellValue(sheet, at, v); err != nil {
			t.Fatal(err)
		}
	}
	put("Sheet1", "A1", "Name")
	put("Sheet1", "C1", "Mobile")
	put("Sheet1", "A2", "Ada")
	put("Sheet1", "C2", 14155550101) // a number, as spreadsheets make of it
	put("Sheet1", "A4", "Bob")
	put("Sheet1", "C4", "(415) 555-0102")
	put("Sheet1", "A5", "Cy")
	put("Sheet1", "C6", "none")
	for _, s := range []string{"Notes", "More"} {
		if _, err := book.NewSheet(s); err != nil {
			t.Fatal(err)
		}
	}
	put("Notes", "A1", "Made by")
	put("Notes", "B1", "Ada")
	put("More", "B2", "415 555 0103")
	var b bytes.Buffer
	if err := book.Write(&b); err != nil {
		t.Fatal(err)
	}
	layout, got, err := list(Reader{}, bytes.NewReader(b.Bytes()))
	if want := []string{first, second, "", "Sheet1, line 6: ", "+14155550103"}; err != nil || len(got) != len(want) ||
		!slices.EqualFunc(got, want, func(g, w string) bool { return g == w || w != "" && strings.HasPrefix(g, w) }) {
		t.Errorf("read %q, %v", got, err)
	}
	if layout.Format != XLSX || layout.Column != "Mobile" || !slices.Equal(layout.Ignored, []string{"Notes"}) {
		t.Errorf("the layout is %+v", layout)
	}
	if _, _, err := list(Reader{Column: "Fax"}, bytes.NewReader(b.Bytes())); !errors.Is(err, ErrList) {
		t.Errorf("a column that no sheet has: %v", err)
	}
	if _, _, err := list(Reader{}, bytes.NewReader(b.Bytes()[:b.Len()/2])); !errors.Is(err, ErrList) {
		t.Errorf("half a workbook: %v", err)
	}
}

// A small file that unpacks to a large one is refused before it is unpacked.
func TestAWorkbookThatExplodesIsRefused(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("xl/worksheets/sheet1.xml")
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for range minUnpacked>>20 + 1 {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, got, err := list(Reader{}, &b); !errors.Is(err, ErrList) || !strings.Contains(err.Error(), "unzip size exceeds") || len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRoundedNumbersAreNotGuessed(t *testing.T) {
	for in, want := range map[string]string{
		"14155550142": "14155550142", "1.4155550142E10": "14155550142", "1.4155550142e+10": "14155550142", "+14155550142.00": "+14155550142",
		"1.41556E+10": "1.41556E+10", "415.555": "415.555", "415.0": "415.0", "1E400": "1E400", "-1.5E3": "-1.5E3", "": "", "abc": "abc", "1.23456789012345678E17": "1.23456789012345678E17",
	} {
		if got := integer(in); got != want {
			t.Errorf("integer(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("phone\n4155550101\n"))
	f.Add([]byte("\xff\xfea\x00\n\x00"))
	f.Add([]byte("a;b\n\"1\n2\";4155550101\r\n"))
	f.Add([]byte("PK\x03\x04"))
	var book bytes.Buffer
	if err := Write(&book, XLSX, rowsOf(Row{Number: phone.MustParse(first)})); err != nil {
		f.Fatal(err)
	}
	f.Add(book.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := Reader{Region: "US"}.Read(bytes.NewReader(b), func(e Entry) error {
			if e.Problem != "" && e.Number.IsValid() {
				t.Errorf("%v is a number and a problem", e)
			}
			if e.Where == "" {
				t.Errorf("%v is nowhere", e)
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrList) {
			t.Errorf("%v does not say that it is the list", fmt.Sprint(err))
		}
	})
}
