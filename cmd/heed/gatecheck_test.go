package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/export"
)

// gateOf answers as the gate does: block who has opted out, hold what waits, and refuse what is no number.
func gateOf(number string) gateAnswer {
	switch {
	case strings.HasPrefix(number, "+"):
		return gateAnswer{consent.Allow, consent.OK}
	case strings.HasPrefix(number, "-"):
		return gateAnswer{consent.Block, consent.ReasonOptedOut}
	case strings.HasPrefix(number, "~"):
		return gateAnswer{consent.Queue, consent.HeldForReview}
	case strings.HasPrefix(number, "*"): // shadow mode
		return gateAnswer{consent.Allow, consent.ReasonOptedOut}
	}
	return gateAnswer{consent.Block, consent.InvalidNumber}
}

func askOf(_ context.Context, numbers []string) (out []gateAnswer, _ error) {
	for _, n := range numbers {
		out = append(out, gateOf(n))
	}
	return out, nil
}

func filter(t interface{ Context() context.Context }, in, column string) (allowed, blocked string, sum checkSummary, err error) {
	var a, b bytes.Buffer
	f := csvFilter{Column: column, Ask: askOf, Progress: func(int64) {}}
	sum, err = f.run(t.Context(), strings.NewReader(in), &a, &b)
	return a.String(), b.String(), sum, err
}

func TestAListIsSplitByWhatTheGateSays(t *testing.T) {
	for _, c := range []struct{ name, in, allowed, blocked string }{
		{"the usual", "name,phone\nAda,+1\nBob,-2\nEve,~3\nDan,x\n", "name,phone\nAda,+1\n",
			"name,phone,decision,reason\nBob,-2,block,opted_out\nEve,~3,hold,held_for_review\nDan,x,block,invalid_number\n"},
		{"what shadow mode would have refused", "phone\n*1\n", "phone\n", "phone,decision,reason\n*1,block,opted_out\n"},
		{"CR LF, a BOM and quotes", "\uFEFF\"name\",\"phone\"\r\n\"A, \"\"B\"\"\r\nC\",\"+1\"\r\nBob,\"-2\"\r\n", "\uFEFF\"name\",\"phone\"\r\n\"A, \"\"B\"\"\r\nC\",\"+1\"\r\n",
			"\uFEFF\"name\",\"phone\",decision,reason\r\nBob,\"-2\",block,opted_out\r\n"},
		{"formulas pass as they are", "x,phone\n=1+1,+1\n@x,-2\n", "x,phone\n=1+1,+1\n", "x,phone,decision,reason\n@x,-2,block,opted_out\n"},
		{"no line end at the end", "phone,x\n+1,a\n-2,b", "phone,x\n+1,a\n", "phone,x,decision,reason\n-2,b,block,opted_out\n"},
		{"blank lines", "\n\nphone\n\n+1\r\n\r\n-2\n\n", "phone\n+1\r\n", "phone,decision,reason\n-2,block,opted_out\n"},
		{"empty cells are no numbers", "name,phone\nAda,\n,\n", "name,phone\n", "name,phone,decision,reason\nAda,,block,invalid_number\n,,block,invalid_number\n"},
		{"rows too short and too long", "a,phone,c\nx,+1\nx,+1,c,d\n", "a,phone,c\n", "a,phone,c,decision,reason\nx,+1,,block,invalid_row\nx,+1,c,d,block,invalid_row\n"},
		{"text behind a quote", "a,phone\n\"x\"y,+1\n", "a,phone\n", "a,phone,decision,reason\n\"\"\"x\"\"y,+1\",,block,invalid_row\n"},
		{"a quote that is not closed", "a,phone\nx,+1\n\"x,+1\ny,+1\n", "a,phone\nx,+1\n", "a,phone,decision,reason\n\"\"\"x,+1\ny,+1\n\",,block,invalid_row\n"},
		{"a quote within a cell is a character", "a,phone\n5\" pipe,+1\n", "a,phone\n5\" pipe,+1\n", "a,phone,decision,reason\n"},
		{"a second row behind a bare CR", "a,phone\nx,+1\ry,-2\n", "a,phone\n", "a,phone,decision,reason\n\"x,+1\ry,-2\",,block,invalid_row\n"},
		{"a bare CR within quotes is a character", "a,phone\n\"x\ry\",+1\n", "a,phone\n\"x\ry\",+1\n", "a,phone,decision,reason\n"},
		{"only a header", "phone\n", "phone\n", "phone,decision,reason\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			allowed, blocked, _, err := filter(t, c.in, "")
			if err != nil || allowed != c.allowed || blocked != c.blocked {
				t.Errorf("%v\nallowed %q\n   want %q\nblocked %q\n   want %q", err, allowed, c.allowed, blocked, c.blocked)
			}
		})
	}
}

func TestAFileThatCannotBeFilteredIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ in, column, want string }{
		"nothing":                     {"", "", "is empty"},
		"only a BOM":                  {"\uFEFF\n", "", "is empty"},
		"UTF-16":                      {"\xFF\xFEp\x00", "", "UTF-16"},
		"no header":                   {"Ada,+12065550142\nBob,-2\n", "", "line 1, the header, has a telephone number in column 2"},
		"line ends of old Macs":       {"phone\r+1\r-2\r", "", "carriage return"},
		"a header that is not closed": {"\"phone\n+1\n", "", "a quote is not closed"},
		"an endless row":              {"a,phone\n+1,+1\n\"" + strings.Repeat("+1\n", export.MaxRow), "", "line 3: the row is longer"},
		"no such column":              {"a,phone\n", "fax", `["a" "phone"]`},
		"a column twice":              {"a, A\n", "a", "two columns"},
	} {
		_, _, _, err := filter(t, c.in, c.column)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "5550142") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		var usage usageError
		if errors.As(err, &usage) != (c.column != "") {
			t.Errorf("%s: %T", name, err)
		}
	}
}

func TestTheColumnIsFoundByItsName(t *testing.T) {
	for header, want := range map[string]int{
		"name,phone": 1, "Customer,Total,Mobile": 2, "order number,phone": 1, "id,Account Number": 1, "Customer,Send To": 1, "City,Photo": 0,
		"id,TO,phone number": 1, "id, Phone ": 1, "a,b,c": 0, "number,mobile phone": 0, "telephone": 0, "id,MobilePhone,Phone": 2,
	} {
		if got, _, err := export.FindColumn(strings.Split(header, ","), ""); err != nil || got != want {
			t.Errorf("%s: column %d, want %d (%v)", header, got, want, err)
		}
	}
	if got, _, err := export.FindColumn([]string{"phone", "Work Fax "}, "work fax"); err != nil || got != 1 {
		t.Error(got, err)
	}
}

func TestInvalidRowsAreReportedByLineAndNotByContent(t *testing.T) {
	in := "a,phone\n\"x\ny\",+1\nsecret\n" + strings.Repeat("secret\n", 100)
	_, _, sum, err := filter(t, in, "")
	var out strings.Builder
	sum.print(&out, "b.csv")
	if err != nil || !strings.HasPrefix(out.String(), "line 4: invalid row: 1 columns, but the header has 2\n") || strings.Contains(out.String(), "secret") ||
		!strings.Contains(out.String(), "and 81 more invalid rows\n") || strings.Count(out.String(), "\n") != maxInvalid+2 {
		t.Errorf("%v\n%s", err, &out)
	}
}

// Rows in are rows out, whatever is in their cells, and each on its side, in order, byte for byte.
func TestEveryRowComesOutOnceUnchangedAndInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		width := rapid.IntRange(1, 4).Draw(rt, "width")
		at := rapid.IntRange(0, width-1).Draw(rt, "column")
		newline := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(rt, "newline")
		bom := rapid.SampledFrom([]string{"", "\uFEFF"}).Draw(rt, "bom")
		junk := rapid.SliceOfN(rapid.SampledFrom([]byte("a+-~*=\",\r\n \x00\xFF\xEF")), 0, 6)
		quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
		var names []string
		for i := range width {
			names = append(names, fmt.Sprintf("col%d", i))
		}
		names[at] = "phone"
		header := strings.Join(names, ",")
		in := bom + header + newline
		allowed, blocked, asked := in, bom+header+",decision,reason"+newline, []string{}
		for range rapid.IntRange(0, 2500).Draw(rt, "rows") / rapid.SampledFrom([]int{1, 50, 50, 50}).Draw(rt, "of") {
			cells := make([]string, width)
			for i := range cells {
				v := string(junk.Draw(rt, "cell"))
				if i == at {
					asked = append(asked, v)
				}
				if cells[i] = v; v == "" && width == 1 || strings.ContainsAny(v, "\",\r\n") || rapid.Bool().Draw(rt, "quoted") {
					cells[i] = quote(v)
				}
			}
			row := strings.Join(cells, ",")
			in += row + newline
			if a := gateOf(asked[len(asked)-1]); a == (gateAnswer{consent.Allow, consent.OK}) {
				allowed += row + newline
			} else {
				if a.Decision == consent.Allow {
					a.Decision = consent.Block
				}
				blocked += row + "," + string(a.Decision) + "," + string(a.Reason) + newline
			}
		}
		var a, b bytes.Buffer
		var got []string
		f := csvFilter{Progress: func(int64) {}, Ask: func(ctx context.Context, numbers []string) ([]gateAnswer, error) {
			if len(numbers) > checkRows {
				rt.Fatalf("%d numbers in one question", len(numbers))
			}
			if got == nil {
				got = []string{} // the header
			} else {
				got = append(got, numbers...)
			}
			return askOf(ctx, numbers)
		}}
		if _, err := f.run(t.Context(), strings.NewReader(in), &a, &b); err != nil {
			rt.Fatal(err)
		}
		if a.String() != allowed || b.String() != blocked {
			rt.Fatalf("in      %q\nallowed %q\n   want %q\nblocked %q\n   want %q", in, a.String(), allowed, b.String(), blocked)
		}
		if !slices.Equal(got, asked) {
			rt.Fatalf("asked for %q, want %q", got, asked)
		}
	})
}

// Whatever the input, both outputs are CSV that another program reads, and nothing that is not allowed is among the allowed.
func FuzzGateCheck(f *testing.F) {
	for _, s := range []string{"phone,a\n+1,x\n-2,y\n", "\uFEFFphone\r\n\"+1\"\r\n", "phone,a\n\"+1\"x,y\n+1\r-2,x\n\"+", "a,phone\n\"\"\"\",+1\n5\",+1", "\r\r\n,\n,,\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if bytes.Contains(in, []byte("\uFEFF\uFEFF")) {
			return
		}
		allowed, blocked, sum, err := filter(t, string(in), "")
		if err != nil {
			return
		}
		again, none, _, err := filter(t, allowed, "")
		if err != nil || again != allowed || strings.Count(none, "\n") != strings.Count(strings.SplitAfterN(none, ",decision,reason", 2)[0], "\n")+1 {
			t.Fatalf("the allowed rows are not all allowed: %q gives %q and %q (%v)", allowed, again, none, err)
		}
		read := func(s string) [][]string {
			r := csv.NewReader(strings.NewReader(strings.TrimPrefix(s, "\uFEFF")))
			r.FieldsPerRecord, r.LazyQuotes = -1, true
			rows, err := r.ReadAll()
			if err != nil {
				t.Fatalf("%q: %v", s, err)
			}
			return rows
		}
		a, b := read(allowed), read(blocked)
		n := 0
		for _, k := range sum.Blocked {
			n += k
		}
		if len(a) != sum.Allowed+1 || len(b) != n+1 {
			t.Fatalf("%d allowed and %d blocked rows, counted %d and %d\n%q\n%q", len(a)-1, len(b)-1, sum.Allowed, n, allowed, blocked)
		}
		for _, row := range b[1:] {
			if len(row) < len(a[0])+2 || row[len(row)-2] != "block" && row[len(row)-2] != "hold" {
				t.Fatalf("%q", row)
			}
		}
	})
}

// generator is a CSV of many rows that exists nowhere, and tells how far it was read.
type generator struct {
	rows, made int
	rest       []byte
	read       int64
}

func (g *generator) Read(p []byte) (int, error) {
	if len(g.rest) == 0 {
		switch {
		case g.made == 0:
			g.rest = append(g.rest[:0], "name,phone\n"...)
		case g.made > g.rows:
			return 0, io.EOF
		default:
			sign := '+'
			if g.made%10 == 0 {
				sign = '-'
			}
			g.rest = fmt.Appendf(g.rest[:0], "\"Person, %d\",%c1206%07d\n", g.made, sign, g.made)
		}
		g.made++
	}
	n := copy(p, g.rest)
	g.rest = g.rest[n:]
	g.read += int64(n)
	return n, nil
}

// counter counts what it is given.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

func TestALargeFileIsNeverHeldInMemory(t *testing.T) {
	const rows = 200_000
	g := &generator{rows: rows}
	var allowed, blocked counter
	var most int64
	asked, reported := 0, int64(0)
	f := csvFilter{Progress: func(n int64) { reported = n }, Ask: func(ctx context.Context, numbers []string) ([]gateAnswer, error) {
		most = max(most, g.read-allowed.n-blocked.n)
		asked += len(numbers)
		return askOf(ctx, numbers)
	}}
	sum, err := f.run(t.Context(), g, &allowed, &blocked)
	if err != nil || sum.Allowed != rows*9/10 || sum.Blocked[consent.ReasonOptedOut] != rows/10 || asked != rows+2 || reported != g.read {
		t.Fatalf("%+v, %d asked, %d of %d bytes reported, %v", sum, asked, reported, g.read, err)
	}
	// A batch, the reader's buffer and the writers'.
	if bound := int64(checkRows*40 + 3*64<<10); most > bound {
		t.Errorf("%d bytes were read and not yet written, want at most %d of %d", most, bound, g.read)
	}
	allocs := testing.AllocsPerRun(1, func() {
		if _, err := f.run(t.Context(), &generator{rows: 20_000}, io.Discard, io.Discard); err != nil {
			t.Error(err)
		}
	})
	if perRow := allocs / 20_000; perRow > 5 { // the cell and what the test itself needs
		t.Errorf("%.1f allocations a row", perRow)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestAnErrorEndsTheCheck(t *testing.T) {
	in := "phone\n" + strings.Repeat("+1\n-2\n", 100_000)
	run := func(f csvFilter, a, b io.Writer) error {
		if f.Ask == nil {
			f.Ask = askOf
		}
		f.Progress = func(int64) {}
		_, err := f.run(t.Context(), strings.NewReader(in), a, b)
		return err
	}
	gone := errors.New("gone")
	for name, err := range map[string]error{
		"the allowed rows cannot be written": run(csvFilter{}, failing{}, io.Discard),
		"the blocked rows cannot be written": run(csvFilter{}, io.Discard, failing{}),
		"the gate is gone":                   run(csvFilter{Ask: func(context.Context, []string) ([]gateAnswer, error) { return nil, gone }}, io.Discard, io.Discard),
		"the gate answers too little": run(csvFilter{Ask: func(_ context.Context, n []string) ([]gateAnswer, error) {
			return make([]gateAnswer, len(n)-1), nil
		}}, io.Discard, io.Discard),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAnInterruptedCheckFailsEvenIfItsInputEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := csvFilter{Ask: askOf, Progress: func(int64) {}}
	r, w := io.Pipe()
	ended := make(chan error)
	go func() {
		_, err := f.run(ctx, &interruptible{ctx: ctx, r: r}, io.Discard, io.Discard)
		ended <- err
	}()
	if _, err := w.Write([]byte("phone\n+1\n")); err != nil { // taken; the next read waits for ever
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = w.Close() // what was left behind ends, too

	if _, err := f.run(ctx, strings.NewReader("phone\n"), io.Discard, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("an end that came with the interrupt: %v", err)
	}
}

func TestWhoeverOptedOutIsBlockedInEverySpelling(t *testing.T) {
	w, config := newSandbox(t, 0)
	p := startServe(t, w, config)
	if _, errOut, code := heed(t, "", "optouts", "add", "+12065550142", "--why", "called", "-c", config); code != 0 {
		t.Fatal(errOut)
	}
	dir := t.TempDir()
	list := filepath.Join(dir, "contacts.csv")
	spellings := []string{"+12065550142", "12065550142", "2065550142", "(206) 555-0142", "206.555.0142", "206-555-0142", "+1 206 555 0142", "1 (206) 555-0142", " 2065550142 "}
	in := "name,Mobile\n"
	for _, s := range spellings {
		in += "Ada," + s + "\n"
	}
	in += "Bob,(206) 555-0143\n"
	if err := os.WriteFile(list, []byte(in), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(who string) {
		out, errOut, code := heed(t, "", "gate", "check", list, "-c", config)
		if code != 0 || out != "name,Mobile\nBob,(206) 555-0143\n" || !strings.Contains(errOut, `column "Mobile": 1 rows allowed, 9 blocked (9 opted_out)`) {
			t.Errorf("%s: exit %d\n%s%s", who, code, out, errOut)
		}
		blocked, err := os.ReadFile(filepath.Join(dir, "contacts.blocked.csv"))
		if err != nil || strings.Count(string(blocked), ",block,opted_out\n") != len(spellings) {
			t.Errorf("%s: %v\n%s", who, err, blocked)
		}
	}
	check("with a daemon")
	p.stop(t)
	check("without one")

	allowed, blocked := filepath.Join(dir, "a.csv"), filepath.Join(dir, "b.csv")
	out, errOut, code := heed(t, in, "gate", "check", "-", "--column", "mobile", "--allowed", allowed, "--blocked", blocked, "-c", config)
	if code != 0 || out != "" {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	if got, err := os.ReadFile(allowed); err != nil || string(got) != "name,Mobile\nBob,(206) 555-0143\n" {
		t.Errorf("%q %v", got, err)
	}
	// Whatever fails leaves no half of a file, and what was there.
	for name, c := range map[string]struct {
		in   string
		args []string
		code int
	}{
		"standard input without --blocked": {in, []string{"-"}, 2},
		"a column that is not there":       {in, []string{"-", "--column", "fax", "--blocked", blocked, "--allowed", allowed}, 2},
		"the input as output":              {in, []string{list, "--allowed", list}, 2},
		"one output for both":              {in, []string{list, "--allowed", blocked, "--blocked", filepath.Join(dir, ".", "b.csv")}, 2},
		"no file":                          {in, []string{filepath.Join(dir, "none.csv")}, 1},
		"no header":                        {"Ada,2065550142\n", []string{"-", "--blocked", blocked, "--allowed", allowed}, 1},
		"a directory that is not there":    {in, []string{list, "--blocked", filepath.Join(dir, "no", "b.csv")}, 1},
	} {
		if _, errOut, code := heed(t, c.in, append([]string{"gate", "check", "-c", config}, c.args...)...); code != c.code {
			t.Errorf("%s: exit %d, want %d: %s", name, code, c.code, errOut)
		}
	}
	if got, err := os.ReadFile(list); err != nil || string(got) != in {
		t.Errorf("the input was changed: %q %v", got, err)
	}
	if got, err := os.ReadFile(allowed); err != nil || !strings.Contains(string(got), "Bob") {
		t.Errorf("the outputs of an earlier run: %q %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".heed-check-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
