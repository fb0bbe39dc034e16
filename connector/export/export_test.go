package export

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xuri/excelize/v2"
	"pgregory.net/rapid"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "heed-export-test-")
	if err != nil {
		panic(err)
	}
	_ = os.Setenv("TMPDIR", dir)
	code := m.Run()
	left, _ := filepath.Glob(filepath.Join(dir, "excelize-*"))
	if len(left) > 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "%d temporary files are left behind\n", len(left))
		code = 1
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// hostile generates what people and attackers put into a text: formulas in every spelling, quotes, line ends, the guard's
// own apostrophe, telephone numbers, control characters.
var hostile = rapid.OneOf(
	rapid.StringMatching(`'{0,3}[=+\-@＝＋－＠\t\r\n ]{0,2}'?[a-z0-9"',;()|!\r\n\t]{0,8}`),
	rapid.StringMatching(`'{0,2}\+[0-9]{5,17}`),
	rapid.SampledFrom([]string{"", "'", "''", "=HYPERLINK(\"http://x\";\"y\")", "+14155550142", "'+14155550142", "+0123456789", "-1+2", "\ufeff=1", "\u200b@x", "\u00a0=1", " \t=1", "_x0041_", "\u202e=1"}),
	rapid.String(),
)

func rowsOf(rows ...Row) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func anyRow(t *rapid.T) Row {
	return Row{
		Number: phone.FromUint64(rapid.Uint64Range(1_000_000, 999_999_999_999_999).Draw(t, "number")), State: consent.OptedOut,
		Source: consent.Source(hostile.Draw(t, "source")), Keyword: hostile.Draw(t, "keyword"), Campaign: hostile.Draw(t, "campaign"),
		Since: time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "since")).UTC().Truncate(time.Second),
	}
}

// startsDangerous is the rule of OWASP, written down a second time: what a spreadsheet may take for a formula.
func startsDangerous(cell string) bool {
	if _, err := phone.ParseE164(cell); err == nil || cell == "" {
		return false
	}
	return strings.ContainsRune("=+-@\t\r\n＝＋－＠", []rune(cell)[0])
}

// readBack reads the cells of an export as a spreadsheet would, guard and all.
func readBack(t interface{ Fatal(...any) }, f Format, b []byte) (rows [][]string) {
	if f == XLSX {
		err := workbook(bytes.NewReader(b), func(_ string, _ int, cells []string) error {
			for len(cells) < len(Columns) { // the library leaves out empty cells at the end
				cells = append(cells, "")
			}
			rows = append(rows, cells)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	r := NewRowReader(bytes.NewReader(b))
	for {
		row, err := r.Next()
		if err == io.EOF {
			return rows
		}
		if err != nil || row.Flaw != "" {
			t.Fatal(err, row.Flaw)
		}
		rows = append(rows, row.Cells())
	}
}

func TestWhatIsExportedIsReadBackAndNoCellIsAFormula(t *testing.T) {
	for _, f := range []Format{CSV, XLSX} {
		t.Run(string(f), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				want := rapid.SliceOfN(rapid.Custom(anyRow), 0, 5).Draw(t, "rows")
				var b bytes.Buffer
				if err := Write(&b, f, rowsOf(want...)); err != nil {
					t.Fatal(err)
				}
				got := readBack(t, f, b.Bytes())
				if len(got) != len(want)+1 || !slices.Equal(got[0], Columns) {
					t.Fatalf("%d rows became %q", len(want), got)
				}
				for i, r := range want {
					fields := []string{r.Number.String(), r.State.String(), string(r.Source), r.Keyword, r.Since.Format(time.RFC3339), r.Campaign}
					for j, cell := range got[i+1] {
						if startsDangerous(cell) {
							t.Errorf("cell %q begins like a formula", cell)
						}
						if f == XLSX {
							fields[j] = printable(fields[j])
						}
						if Text(cell) != fields[j] {
							t.Errorf("%q was exported as %q and read back as %q", fields[j], cell, Text(cell))
						}
					}
				}
			})
		})
	}
}

// A list that was exported and is read again opts out the same numbers.
func TestAnExportIsReadAsAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfN(rapid.Custom(anyRow), 1, 5).Draw(t, "rows")
		for i := range rows {
			rows[i].Number = phone.FromUint64(14155550100 + uint64(i))
		}
		for _, f := range []Format{CSV, XLSX} {
			var b bytes.Buffer
			if err := Write(&b, f, rowsOf(rows...)); err != nil {
				t.Fatal(err)
			}
			var got []phone.Number
			if _, err := (Reader{Region: "US"}).Read(&b, func(e Entry) error {
				if e.Problem != "" {
					t.Errorf("%s: %s: %s", f, e.Where, e.Problem)
				}
				got = append(got, e.Number)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			for i, r := range rows {
				if i >= len(got) || got[i] != r.Number {
					t.Fatalf("%s: %v became %v", f, rows, got)
				}
			}
		}
	})
}

func TestTheGuardIsUndoneExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := hostile.Draw(t, "text")
		if got := Text(Cell(s)); got != s {
			t.Errorf("%q became %q by way of %q", s, got, Cell(s))
		}
		if startsDangerous(Cell(s)) {
			t.Errorf("%q is guarded as %q", s, Cell(s))
		}
	})
	for in, want := range map[string]string{"+14155550142": "+14155550142", "+1•••0142": "'+1•••0142", "STOP": "STOP", "it's": "it's", "'tis": "'tis", "＝1": "'＝1", " =1": "' =1", "+0123": "'+0123"} {
		if got := Cell(in); got != want {
			t.Errorf("Cell(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestAnExportThatFailsHalfwayIsAnError(t *testing.T) {
	broken := errors.New("the disk is gone")
	for _, f := range Formats {
		rows := func(yield func(Row, error) bool) {
			if yield(Row{Number: phone.MustParse("+14155550142")}, nil) {
				yield(Row{}, broken)
			}
		}
		if err := Write(io.Discard, f, rows); !errors.Is(err, broken) {
			t.Errorf("%s: the export ended with %v", f, err)
		}
		many := func(yield func(Row, error) bool) {
			for i := range uint64(5000) {
				if !yield(Row{Number: phone.FromUint64(14155550000 + i), Keyword: fmt.Sprint(i * i)}, nil) {
					return
				}
			}
		}
		if err := Write(full{}, f, many); !errors.Is(err, errFull) {
			t.Errorf("%s: a full disk ended the export with %v", f, err)
		}
	}
	if err := Write(io.Discard, "ods", rowsOf()); err == nil {
		t.Error("a format that does not exist is written")
	}
}

var errFull = errors.New("no space left")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestTheFormatsSayTheSame(t *testing.T) {
	row := Row{Number: phone.MustParse("+14155550142"), State: consent.OptedOut, Source: consent.Recipient, Keyword: "STOP", Since: time.Date(2026, 11, 29, 1, 2, 3, 0, time.UTC), Campaign: "=spring"}
	var b bytes.Buffer
	if err := Write(&b, CSV, rowsOf(row)); err != nil {
		t.Fatal(err)
	}
	if want := "number,state,source,keyword,since,campaign\n+14155550142,opted_out,recipient,STOP,2026-11-29T01:02:03Z,'=spring\n"; b.String() != want {
		t.Errorf("CSV is %q, want %q", b.String(), want)
	}
	if rows, err := csv.NewReader(&b).ReadAll(); err != nil || len(rows) != 2 {
		t.Errorf("the standard library reads %v, %v", rows, err)
	}
	b.Reset()
	if err := Write(&b, JSON, rowsOf(row)); err != nil {
		t.Fatal(err)
	}
	if want := `{"number":"+14155550142","state":"opted_out","source":"recipient","keyword":"STOP","since":"2026-11-29T01:02:03Z","campaign":"=spring"}` + "\n"; b.String() != want {
		t.Errorf("JSON is %s, want %s", b.String(), want)
	}
	var back Row
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back != row {
		t.Errorf("JSON is read as %+v, %v", back, err)
	}
	b.Reset()
	if err := Write(&b, XLSX, rowsOf(row)); err != nil {
		t.Fatal(err)
	}
	book, err := excelize.OpenReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	for i := range Columns {
		at, _ := excelize.CoordinatesToCellName(i+1, 2)
		if kind, err := book.GetCellType(sheetName, at); err != nil || kind != excelize.CellTypeInlineString {
			t.Errorf("cell %s is no text but of type %d, %v", at, kind, err)
		}
	}
}

func TestALongListGoesOnInTheNextSheet(t *testing.T) {
	defer func(n int) { sheetRows = n }(sheetRows)
	sheetRows = 3
	var rows []Row
	for i := range uint64(5) {
		rows = append(rows, Row{Number: phone.FromUint64(14155550100 + i), State: consent.OptedOut})
	}
	var b bytes.Buffer
	if err := Write(&b, XLSX, rowsOf(rows...)); err != nil {
		t.Fatal(err)
	}
	book, err := excelize.OpenReader(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	if got := book.GetSheetList(); !slices.Equal(got, []string{"Numbers", "Numbers 2", "Numbers 3"}) {
		t.Errorf("the sheets are %q", got)
	}
	n := 0
	if _, err := (Reader{Region: "US"}).Read(&b, func(e Entry) error {
		if e.Number != rows[n].Number {
			t.Errorf("%s is %v", e.Where, e)
		}
		n++
		return nil
	}); err != nil || n != len(rows) {
		t.Errorf("%d of %d rows are read back: %v", n, len(rows), err)
	}
}

// known is a ledger of a few numbers.
type known []ledger.Number

func (k known) Numbers(_ context.Context, after phone.Number) iter.Seq2[ledger.Number, error] {
	return func(yield func(ledger.Number, error) bool) {
		for _, n := range k {
			if n.Number.Uint64() > after.Uint64() && !yield(n, nil) {
				return
			}
		}
	}
}

func (k known) LastOptOut(_ context.Context, n phone.Number) (ledger.OptOut, error) {
	if n.Uint64()%2 == 0 {
		return ledger.OptOut{}, ledger.ErrNotFound
	}
	at := time.UnixMilli(int64(n.Uint64()))
	return ledger.OptOut{Number: n, At: at, Last: &ledger.LastSend{Campaign: fmt.Sprint("c", n.Uint64()%3), At: at.Add(-time.Hour)}}, nil
}

func TestRowsAreWhatTheFilterSelects(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 11, day, 0, 0, 0, 0, time.UTC) }
	l := known{
		{Number: phone.MustParse("+14155550101"), Seq: 1, Source: consent.Recipient, Facts: consent.Facts{StopAt: at(1)}},
		{Number: phone.MustParse("+14155550102"), Seq: 2, Source: consent.Admin, Facts: consent.Facts{OutAt: at(2)}},
		{Number: phone.MustParse("+14155550103"), Seq: 3, Source: consent.Admin, Facts: consent.Facts{OutAt: at(3)}},
		{Number: phone.MustParse("+14155550111"), Seq: 4, Facts: consent.Facts{HeldAt: at(4)}},
		{Number: phone.MustParse("+14155550105"), Seq: 5, Facts: consent.Facts{StartAt: at(5)}},
		{Number: phone.MustParse("+14155550106"), Seq: 6},
	}
	for name, c := range map[string]struct {
		q    ledger.Query
		want string
	}{
		"everything":  {ledger.Query{}, "01 02 03 11 05"},
		"a state":     {ledger.Query{States: []consent.State{consent.OptedOut}}, "01 02 03"},
		"two states":  {ledger.Query{States: []consent.State{consent.Held, consent.OptedIn}}, "11 05"},
		"a source":    {ledger.Query{Sources: []consent.Source{consent.Admin}}, "02 03"},
		"an end":      {ledger.Query{Ends: "0111"}, "11"},
		"since":       {ledger.Query{Since: at(3)}, "03 11 05"},
		"until":       {ledger.Query{Until: at(3)}, "01 02"},
		"a campaign":  {ledger.Query{Campaign: "c0", Window: time.Hour}, "03"},
		"no campaign": {ledger.Query{Campaign: "c0", Window: time.Minute}, ""},
	} {
		got := []string{}
		for r, err := range Rows(t.Context(), l, c.q, phone.Number{}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r.Number.String()[10:])
		}
		slices.Sort(got)
		want := strings.Fields(c.want)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s selects %v, want %v", name, got, want)
		}
	}
}
