package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

// stdio is where a command reads and writes. Data goes to Out, everything else to Err.
type stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// file returns the file behind a stream, nil if there is none.
func file(stream any) *os.File {
	if m, ok := stream.(*masker); ok {
		stream = m.w
	}
	f, _ := stream.(*os.File)
	return f
}

// terminal reports whether a stream is one, and how wide. Only a terminal gets tables, colours, questions and progress bars.
func terminal(stream any) (width int, ok bool) {
	f := file(stream)
	if f == nil || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	return width, true
}

// withJSON gives a command the flag --json. What it prints then is a contract: docs/json-output.md.
func (o *options) withJSON(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&o.json, "json", false, "print JSON (docs/json-output.md)")
	return c
}

// print prints a result: as JSON if asked to, else as human does.
func (o *options) print(std stdio, v any, human func() error) error {
	if o.json {
		return printJSON(std.Out, v)
	}
	return human()
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printRows prints a table on a terminal and tab-separated lines, as they come, in a pipe. An error among rows ends it.
func printRows(w io.Writer, heading []string, rows iter.Seq2[[]string, error]) error {
	if _, ok := terminal(w); !ok {
		if _, err := fmt.Fprintln(w, strings.Join(heading, "\t")); err != nil {
			return err
		}
		for r, err := range rows {
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(w, strings.Join(printable(r), "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(asRow(heading))
	for r, err := range rows {
		if err != nil {
			return err
		}
		t.AppendRow(asRow(printable(r)))
	}
	t.Render()
	return nil
}

func asRow(cells []string) (out table.Row) {
	for _, c := range cells {
		out = append(out, c)
	}
	return out
}

// each makes rows of a list.
func each[T any](list []T, row func(T) []string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		for _, x := range list {
			if !yield(row(x), nil) {
				return
			}
		}
	}
}

// printable keeps other people's texts from steering the terminal and from looking like two cells: control characters and
// those that turn the direction of writing become a mark.
func printable(cells []string) []string {
	for i := range cells {
		cells[i] = strings.Map(func(r rune) rune {
			if unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
				return unicode.ReplacementChar
			}
			return r
		}, cells[i])
	}
	return cells
}

// progressBar shows the progress of something long on a terminal, and nothing elsewhere.
func progressBar(w io.Writer) (update func(reconcile.Progress), stop func()) {
	width, ok := terminal(w)
	if !ok {
		return func(reconcile.Progress) {}, func() {}
	}
	pw := progress.NewWriter()
	pw.SetOutputWriter(w)
	pw.SetAutoStop(false)
	pw.SetTrackerLength(max(10, min(40, width-60)))
	pw.SetUpdateFrequency(100 * time.Millisecond)
	pw.SetStyle(progress.StyleBlocks)
	pw.Style().Visibility.ETA = true
	pw.Style().Visibility.Value = true
	go pw.Render()
	for !pw.IsRenderInProgress() { // what has not begun could not be stopped, and would begin afterwards
		time.Sleep(time.Millisecond)
	}
	trackers := map[string]*progress.Tracker{}
	return func(p reconcile.Progress) {
			t := trackers[p.Stage]
			if t == nil {
				t = &progress.Tracker{Message: p.Stage, Total: int64(p.Total)}
				trackers[p.Stage] = t
				pw.AppendTracker(t)
			}
			if p.Total > 0 {
				t.UpdateTotal(int64(p.Total))
			}
			t.SetValue(int64(p.Done))
		}, func() {
			for _, t := range trackers {
				t.MarkAsDone()
			}
			pw.Stop()
			for pw.IsRenderInProgress() {
				time.Sleep(10 * time.Millisecond)
			}
		}
}

// With --no-pii, what somebody over one's shoulder must not read is masked in two places. Texts and names are masked where
// the daemon's answers come in, by the name of their field (maskAnswer); telephone numbers and mail addresses in whatever is
// printed (masker), so that no command can forget to.

// masker masks telephone numbers in E.164 form and mail addresses in what is written to w. Where it is off it passes on
// what it gets.
type masker struct {
	w    io.Writer
	on   *bool
	line bool // keep back what is not a whole line yet: a number may come in two pieces

	mu   sync.Mutex
	held []byte
}

var (
	fullNumber  = regexp.MustCompile(`(\+|%2B|&#43;|\\u002[bB])[1-9][0-9]{6,14}`)
	mailAddress = regexp.MustCompile(`[\pL\pN._%+-]+@[\pL\pN.-]+\.\pL{2,}`)
)

func (m *masker) Write(p []byte) (int, error) {
	if !*m.on {
		return m.w.Write(p)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = append(m.held, p...)
	end := len(m.held)
	if m.line {
		end = bytes.LastIndexByte(m.held, '\n') + 1
	}
	err := m.pass(end)
	return len(p), err
}

// flush writes what was kept back.
func (m *masker) flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pass(len(m.held))
}

func (m *masker) pass(end int) error {
	if end == 0 {
		return nil
	}
	_, err := m.w.Write(maskNumbers(m.held[:end]))
	m.held = append(m.held[:0], m.held[end:]...)
	return err
}

func maskNumbers(b []byte) []byte {
	b = fullNumber.ReplaceAllFunc(b, func(n []byte) []byte {
		at := bytes.LastIndexAny(n, "+;Bb") + 1 // behind however the plus sign is written
		return append(bytes.Clone(n[:at]), strings.TrimPrefix(phone.Mask("+"+string(n[at:])), "+")...)
	})
	return mailAddress.ReplaceAllFunc(b, func(a []byte) []byte { return []byte(maskName(string(a))) })
}

// maskText says how long a text is, and nothing else of it.
func maskText(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf("••• (%d characters)", utf8.RuneCountInString(s))
}

// maskName shows the first letter of a person's name or address.
func maskName(s string) string {
	if s == "" {
		return ""
	}
	r, _ := utf8.DecodeRuneInString(s)
	return string(r) + "•••"
}

// maskAnswer masks texts and names in a JSON document of the daemon's. names says which fields hold a person's name beside
// those that always do.
func maskAnswer(doc []byte, names ...string) ([]byte, error) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	fields := map[string]func(string) string{}
	for _, f := range []string{"text", "body", "raw", "to_raw", "why", "media_urls", "url"} {
		fields[f] = maskText
	}
	for _, f := range append(names, "who", "actor", "by") {
		fields[f] = maskName
	}
	return json.Marshal(maskFields(v, "", fields))
}

// lineMasker is maskAnswer for JSON lines.
type lineMasker struct {
	w    io.Writer
	held []byte
}

func (m *lineMasker) Write(p []byte) (int, error) {
	m.held = append(m.held, p...)
	for {
		line, rest, whole := bytes.Cut(m.held, []byte{'\n'})
		if !whole {
			return len(p), nil
		}
		doc, err := maskAnswer(line)
		if err != nil {
			return 0, err
		}
		if _, err := m.w.Write(append(doc, '\n')); err != nil {
			return 0, err
		}
		m.held = append(m.held[:0], rest...)
	}
}

func maskFields(v any, field string, fields map[string]func(string) string) any {
	switch x := v.(type) {
	case string:
		if mask := fields[field]; mask != nil {
			return mask(x)
		}
	case []any:
		for i := range x {
			x[i] = maskFields(x[i], field, fields)
		}
	case map[string]any:
		// The sentence about a correction names who it was.
		by, _ := x["by"].(string)
		if detail, ok := x["detail"].(string); ok && by != "" {
			x["detail"] = strings.ReplaceAll(detail, by, maskName(by))
		}
		for k := range x {
			x[k] = maskFields(x[k], k, fields)
		}
	}
	return v
}

// maskCorrections is maskAnswer for what a report is made of, before it becomes a text.
func maskCorrections(all iter.Seq2[ledger.Correction, error]) iter.Seq2[ledger.Correction, error] {
	return func(yield func(ledger.Correction, error) bool) {
		for c, err := range all {
			if c.By != "" {
				c.Detail = strings.ReplaceAll(c.Detail, c.By, maskName(c.By))
			}
			c.By, c.Text = maskName(c.By), maskText(c.Text)
			if !yield(c, err) {
				return
			}
		}
	}
}

// maskStanding is maskCorrections for what a report leaves alone.
func maskStanding(p ledger.Pass) ledger.Pass {
	p.Standing = slices.Clone(p.Standing)
	for i := range p.Standing {
		listed := slices.Clone(p.Standing[i].Listed)
		for j := range listed {
			listed[j].By, listed[j].Text = maskName(listed[j].By), maskText(listed[j].Text)
		}
		p.Standing[i].Listed = listed
	}
	return p
}

// brief is a pass as it stands in a list: whom it names is in the report itself.
func brief(p ledger.Pass) ledger.Pass {
	p.Standing = slices.Clone(p.Standing)
	for i := range p.Standing {
		p.Standing[i].Listed = nil
	}
	if p.Figures != nil {
		f := *p.Figures
		f.InFlightMore, f.InFlight = f.InFlightMore+len(f.InFlight), nil
		p.Figures = &f
	}
	return p
}
