package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/export"
	"github.com/heed-sms/heed/sync/reconcile"
)

func gateCommand(std stdio, o *options) *cobra.Command {
	c := &cobra.Command{Use: "gate", Short: "Ask the gate who may be texted",
		Example: "  heed gate check contacts.csv > allowed.csv",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(gateCheckCommand(std, o))
	return c
}

func gateCheckCommand(std stdio, o *options) *cobra.Command {
	var column, allowedPath, blockedPath string
	c := o.withJSON(&cobra.Command{
		Use:   "check FILE",
		Short: "Take out of a CSV file whoever must not be texted",
		Long: `Read a CSV file (UTF-8, with a header) of any size, write the rows that may be texted to standard output, byte for byte
and in order, and the others to FILE.blocked.csv (FILE without its .csv) with two more columns, decision and reason.
FILE may be - for standard input; say then with --blocked where the others go. Nothing is sent or recorded.

The number is in the column that --column names, else in the first one called phone, mobile, number, to, tel, cell,
msisdn or e164, else in the first whose name contains phone or mobile, then number, else in the first column; the summary
tells which. Numbers may be
spelled in any way, as in sends. Rows that are not as wide as the header, or whose quotes are wrong, are reported with
their line and blocked with the reason invalid_row. Blank lines are left out.

Cells pass as they are, also those that a spreadsheet would take for formulas: they are your own data. In shadow mode,
too, whoever heed would refuse is blocked, since this list goes past heed.

It is a forecast: people opt out after it. Send through heed, or filter right before you send. Exit code 1 means that the
files are not whole.`,
		Args: cobra.ExactArgs(1),
		Example: `  heed gate check contacts.csv > allowed.csv
  heed gate check contacts.csv --column 'Mobile Phone' --allowed ok.csv --blocked not.csv
  export-contacts | heed gate check - --blocked not.csv | send-campaign`,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if blockedPath == "" {
				if args[0] == "-" {
					return usageError{errors.New("FILE is -: say with --blocked where the blocked rows go")}
				}
				blockedPath = strings.TrimSuffix(args[0], ".csv") + ".blocked.csv"
			}
			if allowedPath == "" && (o.json || o.noPII) {
				return usageError{errors.New("standard output is for the allowed rows as they are: say with --allowed where they go")}
			}
			in, size := io.Reader(&interruptible{ctx: c.Context(), r: std.In}), int64(0)
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				info, err := f.Stat()
				if err != nil {
					return err
				}
				in, size = f, info.Size()
			}
			if err := distinct(args[0], allowedPath, blockedPath); err != nil {
				return err
			}
			client, err := o.control(c.Context(), std)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.close()) }()
			blocked, err := createWhole(blockedPath)
			if err != nil {
				return err
			}
			defer func() { err = blocked.end(err) }()
			allowed := io.Writer(std.Out)
			if allowedPath != "" {
				f, cerr := createWhole(allowedPath)
				if cerr != nil {
					return cerr
				}
				allowed = f
				defer func() { err = f.end(err) }()
			}
			update, stop := func(reconcile.Progress) {}, func() {}
			if _, busy := terminal(allowed); !busy { // a bar among the rows could not be read
				update, stop = progressBar(std.Err)
			}
			f := csvFilter{Column: column, Ask: func(ctx context.Context, numbers []string) ([]gateAnswer, error) {
				var out []gateAnswer
				err := client.post(ctx, "/decisions", numbers, &out)
				return out, err
			}, Progress: func(done int64) {
				update(reconcile.Progress{Stage: "checked", Done: int(done), Total: int(size)})
			}}
			sum, err := f.run(c.Context(), in, allowed, blocked)
			stop()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if o.json {
				return printJSON(std.Out, sum.result(blockedPath, allowedPath))
			}
			sum.print(std.Err, blockedPath)
			return nil
		},
	})
	c.Flags().StringVar(&column, "column", "", "`NAME` of the column with the number")
	c.Flags().StringVar(&allowedPath, "allowed", "", "`FILE` for the allowed rows (default: standard output)")
	c.Flags().StringVar(&blockedPath, "blocked", "", "`FILE` for the blocked rows (default: beside the input, .blocked.csv)")
	return c
}

// distinct refuses to write over what is read or written.
func distinct(paths ...string) error {
	for i, a := range paths {
		for _, b := range paths[:i] {
			if a == "" || b == "" || a == "-" || b == "-" {
				continue
			}
			ai, aerr := os.Stat(a)
			bi, berr := os.Stat(b)
			if filepath.Clean(a) == filepath.Clean(b) || aerr == nil && berr == nil && ai.Mode().IsRegular() && os.SameFile(ai, bi) {
				return usageError{fmt.Errorf("%s is named twice: the input, the allowed and the blocked rows are three files", a)}
			}
		}
	}
	return nil
}

// interruptible is standard input whose Read ends with ctx, whatever the other end of the pipe does.
type interruptible struct {
	ctx context.Context
	r   io.Reader
	buf []byte // of a read that may be left behind
}

func (i *interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	if len(i.buf) < len(p) {
		i.buf = make([]byte, len(p))
	}
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := i.r.Read(i.buf[:len(p)])
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, i.buf[:r.n]), r.err
	case <-i.ctx.Done():
		return 0, context.Cause(i.ctx)
	}
}

// wholeFile is a file whose name appears only when it is complete and on disk. A pipe or a device is written as it is.
type wholeFile struct {
	*bufio.Writer
	f    *os.File
	name string // "" for a pipe or a device
}

func createWhole(name string) (*wholeFile, error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return &wholeFile{bufio.NewWriter(f), f, ""}, nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".heed-part-*")
	if err != nil {
		return nil, asNamed(name, err)
	}
	return &wholeFile{bufio.NewWriter(f), f, name}, nil
}

// end completes the file, or removes it if there was an error, which it passes on.
func (w *wholeFile) end(err error) error {
	if w.name == "" {
		return errors.Join(err, w.Flush(), w.f.Close())
	}
	defer os.Remove(w.f.Name())
	defer w.f.Close() // again, where a step fails
	if err != nil {
		return asNamed(w.name, err)
	}
	for _, step := range []func() error{w.Flush, w.f.Sync, w.f.Close, func() error { return os.Rename(w.f.Name(), w.name) }} {
		if err := step(); err != nil {
			return asNamed(w.name, err)
		}
	}
	return nil
}

// asNamed is an error about the file that somebody asked for, not about the one that is renamed to it.
func asNamed(name string, err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path) && strings.HasPrefix(filepath.Base(path.Path), ".heed-part-"):
		return &fs.PathError{Op: path.Op, Path: name, Err: path.Err}
	case errors.As(err, &link):
		return &fs.PathError{Op: link.Op, Path: name, Err: link.Err}
	}
	return err
}

// gateAnswer is the gate's decision on one number of a list.
type gateAnswer struct {
	Decision consent.Verdict `json:"decision"`
	Reason   consent.Reason  `json:"reason"`
}

// invalidRow is the reason of rows that are not what the header says. It is this command's alone.
const invalidRow consent.Reason = "invalid_row"

const (
	checkRows  = 1000    // in a question to the gate
	checkBytes = 1 << 20 // of rows kept until they are answered
	// maxAsk is what a question can come to: the last row may begin below checkBytes, and JSON writes a byte with up to six.
	maxAsk = 6*(checkBytes+export.MaxRow) + 8*checkRows
)

// csvFilter splits a CSV stream in two by what the gate says of one column. It holds one batch in memory at a time.
type csvFilter struct {
	Column   string // "" to choose by the header
	Ask      func(ctx context.Context, numbers []string) ([]gateAnswer, error)
	Progress func(bytes int64)
}

// checkSummary is what became of a file.
type checkSummary struct {
	Column  string // the one with the numbers
	Allowed int
	Blocked map[consent.Reason]int
	Invalid []string // the first invalid rows, by line; never what is in them
}

// checkResult is checkSummary as it is printed with --json.
type checkResult struct {
	Column      string                 `json:"column"`
	Allowed     int                    `json:"allowed"`
	Blocked     map[consent.Reason]int `json:"blocked"` // by reason
	Invalid     []string               `json:"invalid"` // the first invalid rows, by line
	AllowedFile string                 `json:"allowed_file"`
	BlockedFile string                 `json:"blocked_file"`
}

func (s checkSummary) result(blocked, allowed string) checkResult {
	return checkResult{s.Column, s.Allowed, s.Blocked, append([]string{}, s.Invalid...), allowed, blocked}
}

const maxInvalid = 20 // rows that are reported one by one

func (s checkSummary) print(w io.Writer, blockedPath string) {
	for _, line := range s.Invalid {
		fmt.Fprintln(w, line)
	}
	if more := s.Blocked[invalidRow] - len(s.Invalid); more > 0 {
		fmt.Fprintf(w, "and %d more invalid rows\n", more)
	}
	var reasons []string
	n := 0
	for r, k := range s.Blocked {
		reasons = append(reasons, fmt.Sprintf("%d %s", k, r))
		n += k
	}
	slices.Sort(reasons)
	why := ""
	if n > 0 {
		why = " (" + strings.Join(reasons, ", ") + ")"
	}
	fmt.Fprintf(w, "column %q: %d rows allowed, %d blocked%s; blocked rows: %s\n", s.Column, s.Allowed, n, why, blockedPath)
}

// run filters in. An error leaves both outputs incomplete.
func (f csvFilter) run(ctx context.Context, in io.Reader, allowed, blocked io.Writer) (sum checkSummary, err error) {
	sum.Blocked = map[consent.Reason]int{}
	r := export.NewRowReader(in)
	bom, err := r.BOM()
	if err != nil {
		return sum, err
	}
	head, err := r.Next()
	switch {
	case err == io.EOF:
		return sum, errors.New("is empty: there is no header")
	case err != nil:
		return sum, err
	case head.Flaw != "":
		return sum, fmt.Errorf("line %d, the header: %s", head.Line, head.Flaw)
	}
	// The header decides how a line ends where the last row has no end of its own.
	newline := string(head.End)
	if newline == "" {
		newline = "\n"
	}
	names := head.Cells()
	// First of all, since names are shown and numbers are not.
	answers, err := f.ask(ctx, names)
	if err != nil {
		return sum, err
	}
	for i, a := range answers {
		if a.Reason != consent.InvalidNumber {
			return sum, fmt.Errorf("line %d, the header, has a telephone number in column %d: put a line with the columns' names above it", head.Line, i+1)
		}
	}
	at, _, err := export.FindColumn(names, f.Column)
	if err != nil {
		return sum, usageError{fmt.Errorf("--%w", err)}
	}
	sum.Column = names[at]
	out := batch{filter: f, sum: &sum, newline: newline, allowed: bufio.NewWriterSize(allowed, 64<<10), blocked: bufio.NewWriterSize(blocked, 64<<10)}
	_, _ = out.allowed.WriteString(bom + string(head.Raw) + newline)
	_, _ = out.blocked.WriteString(bom + string(head.Raw) + ",decision,reason" + newline)
	for {
		row, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return sum, err
		}
		if n := row.Len(); row.Flaw == "" && n != len(names) {
			row.Flaw = fmt.Sprintf("%d columns, but the header has %d", n, len(names))
		}
		out.add(row, at, len(names))
		if len(out.rows) == checkRows || len(out.bytes) >= checkBytes {
			if err := out.flush(ctx); err != nil {
				return sum, err
			}
			f.Progress(r.Bytes())
		}
	}
	if err := out.flush(ctx); err != nil {
		return sum, err
	}
	f.Progress(r.Bytes())
	return sum, errors.Join(out.allowed.Flush(), out.blocked.Flush())
}

func (f csvFilter) ask(ctx context.Context, numbers []string) ([]gateAnswer, error) {
	answers, err := f.Ask(ctx, numbers)
	if err == nil && len(answers) != len(numbers) {
		err = fmt.Errorf("the gate gave %d answers for %d numbers", len(answers), len(numbers))
	}
	return answers, err
}

// batch is the rows that wait for their answers.
type batch struct {
	filter           csvFilter
	sum              *checkSummary
	newline          string
	allowed, blocked *bufio.Writer

	bytes   []byte
	rows    []pending
	numbers []string
}

// pending is a row in batch.bytes.
type pending struct {
	raw, end int // where its text and its line end stop
	valid    bool
}

func (b *batch) add(r export.CSVRow, column, width int) {
	p := pending{valid: r.Flaw == ""}
	switch {
	case p.valid:
		b.bytes = append(b.bytes, r.Raw...)
		b.numbers = append(b.numbers, r.Cell(column))
	case r.Unquoted: // nothing could be put behind it: it becomes one cell
		b.bytes = append(b.bytes, '"')
		b.bytes = append(b.bytes, bytes.ReplaceAll(r.Raw, []byte(`"`), []byte(`""`))...)
		b.bytes = append(b.bytes, '"')
		b.bytes = append(b.bytes, strings.Repeat(",", width-1)...)
	default: // so that decision and reason stand in their columns
		b.bytes = append(b.bytes, r.Raw...)
		b.bytes = append(b.bytes, strings.Repeat(",", max(0, width-r.Len()))...)
	}
	p.raw = len(b.bytes)
	end := r.End
	if len(end) == 0 {
		end = []byte(b.newline)
	}
	b.bytes = append(b.bytes, end...)
	p.end = len(b.bytes)
	b.rows = append(b.rows, p)
	if !p.valid && len(b.sum.Invalid) < maxInvalid {
		b.sum.Invalid = append(b.sum.Invalid, fmt.Sprintf("line %d: invalid row: %s", r.Line, r.Flaw))
	}
}

func (b *batch) flush(ctx context.Context) error {
	// Whoever writes into a pipe may have been stopped together with heed: its end is then not the end of the list.
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var answers []gateAnswer
	if len(b.numbers) > 0 {
		var err error
		if answers, err = b.filter.ask(ctx, b.numbers); err != nil {
			return err
		}
	}
	from := 0
	for _, p := range b.rows {
		a := gateAnswer{consent.Block, invalidRow}
		if p.valid {
			a, answers = answers[0], answers[1:]
		}
		if a.Decision == consent.Allow && a.Reason == consent.OK {
			b.sum.Allowed++
			if _, err := b.allowed.Write(b.bytes[from:p.end]); err != nil {
				return err
			}
		} else {
			if a.Decision == consent.Allow {
				a.Decision = consent.Block // shadow mode
			}
			b.sum.Blocked[a.Reason]++
			_, _ = b.blocked.Write(b.bytes[from:p.raw])
			_, _ = b.blocked.WriteString("," + string(a.Decision) + "," + string(a.Reason))
			if _, err := b.blocked.Write(b.bytes[p.raw:p.end]); err != nil {
				return err
			}
		}
		from = p.end
	}
	clear(b.numbers)
	b.bytes, b.rows, b.numbers = b.bytes[:0], b.rows[:0], b.numbers[:0]
	return nil
}
