package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/config"
	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/export"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sync/reconcile"
)

func optOutsCommand(std stdio, o *options) *cobra.Command {
	c := &cobra.Command{Use: "optouts", Short: "The list of opted-out numbers",
		Example: "  heed optouts list\n  heed optouts export --format xlsx > optouts.xlsx\n  heed optouts add +14155550142 --why 'asked on the phone'\n  heed optouts import old-list.csv --why 'list of the old provider'",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(listOptOuts(std, o), exportOptOuts(std, o), addOptOuts(std, o), removeOptOuts(std, o), importOptOuts(std, o))
	return c
}

// filterFlags gives a command the flags that narrow the list, and returns what reads them.
func filterFlags(c *cobra.Command) func() (export.Filter, error) {
	var f export.Filter
	var ends string
	c.Flags().StringVar(&f.State, "state", "", "opted_out, held, opted_in, pending or all (default: opted_out and held)")
	c.Flags().StringVar(&f.Source, "source", "", "on whose word: recipient, provider, crm, admin, api or deadline")
	c.Flags().StringVar(&f.From, "since", "", "the state began on this `DAY` or later, as 2026-11-30, in the zone of schedule.timezone")
	c.Flags().StringVar(&f.To, "until", "", "the state began on this `DAY` or earlier")
	c.Flags().StringVar(&f.Campaign, "campaign", "", "the opt-out is attributed to this campaign")
	c.Flags().StringVar(&ends, "ends", "", "the number's last `DIGITS`")
	states, sources := []string{"all"}, []string{}
	for _, s := range export.States {
		states = append(states, s.String())
	}
	for _, s := range export.Sources {
		sources = append(sources, string(s))
	}
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("source", cobra.FixedCompletions(sources, cobra.ShellCompDirectiveNoFileComp))
	return func() (export.Filter, error) {
		f.Ends = ends
		g := export.ReadFilter(f.Values()) // spaces and brackets go
		if _, err := g.Query(time.UTC, 0); err != nil {
			flag := map[string]string{"from": "since", "to": "until"}
			var bad *export.FilterError
			if errors.As(err, &bad) {
				name := bad.Field
				if flag[name] != "" {
					name = flag[name]
				}
				err = fmt.Errorf("--%s: %s", name, strings.TrimSuffix(bad.Text, "."))
			}
			return g, usageError{err}
		}
		return g, nil
	}
}

func listOptOuts(std stdio, o *options) *cobra.Command {
	var filter func() (export.Filter, error)
	c := o.withJSON(&cobra.Command{
		Use:   "list",
		Short: "List opted-out and held numbers",
		Long: `List opted-out and held numbers, or those that the flags select, in the order of the numbers. CAMPAIGN is the one to which
the opt-out is attributed: that of the last message that was sent to the number, if it was sent within campaigns.window
before. With --json, one object a line.`,
		Example: "  heed optouts list\n  heed optouts list --since 2026-11-01 --source recipient\n  heed optouts list --json | jq -r 'select(.state == \"held\").number'",
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := filter()
			if err != nil {
				return err
			}
			rows := optOuts(c.Context(), std, o, f)
			if o.json {
				return export.Write(std.Out, export.JSON, rows)
			}
			return printRows(std.Out, []string{"NUMBER", "STATE", "SINCE", "SOURCE", "KEYWORD", "CAMPAIGN"}, func(yield func([]string, error) bool) {
				for r, err := range rows {
					if !yield([]string{r.Number.String(), r.State.String(), r.Since.Format(time.RFC3339), string(r.Source), r.Keyword, r.Campaign}, err) {
						return
					}
				}
			})
		},
	})
	filter = filterFlags(c)
	return c
}

func exportOptOuts(std stdio, o *options) *cobra.Command {
	var filter func() (export.Filter, error)
	var format, output string
	c := &cobra.Command{
		Use:   "export",
		Short: "Write the list to a file or to standard output, for other programs",
		Long: `Write the list of opted-out and held numbers, or what the flags select, as CSV, as JSON (one object a line) or as an XLSX
workbook in which every cell is a text, so that no spreadsheet makes something else of a number. In CSV and XLSX a cell that
a spreadsheet would take for a formula has an apostrophe before it; telephone numbers stay as they are, and heed optouts
import reads the file back.`,
		Example: "  heed optouts export > optouts.csv\n  heed optouts export --format xlsx --output optouts.xlsx\n  heed optouts export --format json --state all --campaign spring",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			f, err := filter()
			if err != nil {
				return err
			}
			as, err := export.ParseFormat(format)
			if err != nil {
				return usageError{fmt.Errorf("--format: %w", err)}
			}
			w := std.Out
			switch _, busy := terminal(std.Out); {
			case output != "" && o.noPII:
				return usageError{errors.New("--no-pii masks what is printed and not what is written to a file: leave out --output")}
			case output != "":
				file, err := createWhole(output)
				if err != nil {
					return err
				}
				w = file
				defer func() { err = file.end(err) }()
			case as == export.XLSX && o.noPII:
				return usageError{errors.New("a workbook cannot be masked: leave out --no-pii, or take --format csv")}
			case as == export.XLSX && busy:
				return usageError{errors.New("a workbook is nothing for a terminal: say --output FILE, or write it into a file or a pipe")}
			}
			return export.Write(w, as, optOuts(c.Context(), std, o, f))
		},
	}
	filter = filterFlags(c)
	c.Flags().StringVar(&format, "format", "csv", "csv, json or xlsx")
	c.Flags().StringVarP(&output, "output", "o", "", "write to `FILE`, which appears when it is complete (default: standard output)")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"csv", "json", "xlsx"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// optOuts yields the list as the daemon writes it, row by row.
func optOuts(ctx context.Context, std stdio, o *options, f export.Filter) iter.Seq2[export.Row, error] {
	return func(yield func(export.Row, error) bool) {
		client, err := o.control(ctx, std)
		if err != nil {
			yield(export.Row{}, err)
			return
		}
		more := true
		defer func() {
			if err := client.close(); err != nil && more {
				yield(export.Row{}, err)
			}
		}()
		resp, err := client.do(ctx, http.MethodGet, "/optouts?"+f.Values().Encode(), nil)
		if err != nil {
			more = false
			yield(export.Row{}, err)
			return
		}
		defer resp.Body.Close()
		for dec := json.NewDecoder(resp.Body); more; {
			var r export.Row
			err := dec.Decode(&r)
			if err == io.EOF {
				return
			}
			if err != nil {
				err = fmt.Errorf("the list ended early: %w", err)
			}
			more = yield(r, err) && err == nil
		}
	}
}

// bulkFlags are those of the commands that change many numbers.
type bulkFlags struct {
	why, undoFile, column string
	yes, dryRun, undo     bool
}

func (b *bulkFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&b.why, "why", "", "the reason, for the record")
	c.Flags().BoolVarP(&b.yes, "yes", "y", false, "do not ask; needed where nobody can be asked")
	c.Flags().BoolVar(&b.dryRun, "dry-run", false, "say what would change, change nothing")
}

func addOptOuts(std stdio, o *options) *cobra.Command {
	var b bulkFlags
	c := o.withJSON(&cobra.Command{
		Use:   "add NUMBER...",
		Short: "Opt numbers out by hand",
		Long: `Opt numbers out by hand. Who did it and why is kept. With several numbers it shows what would change and asks; for a list in
a file take heed optouts import.`,
		Example: "  heed optouts add '(415) 555-0142' --why 'asked on the phone'\n  heed optouts add +14155550142 +14155550143 --why 'asked by mail' --yes",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if strings.TrimSpace(b.why) == "" && !b.dryRun {
				return errNoWhy
			}
			return changeNumbers(c, std, o, args, b)
		},
	})
	b.add(c)
	return c
}

func removeOptOuts(std stdio, o *options) *cobra.Command {
	b := bulkFlags{undo: true}
	c := o.withJSON(&cobra.Command{
		Use:   "remove NUMBER...",
		Short: "Undo opt-outs that were made by hand or in the CRM",
		Long: `Undo opt-outs that were made by hand or in the CRM. An opt-out of the recipient's own cannot be undone here or anywhere
else: only START from that number lifts it. With several numbers it shows what would change and asks.`,
		Example: "  heed optouts remove +14155550142 --why 'ticked by mistake'",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return changeNumbers(c, std, o, args, b) },
	})
	b.add(c)
	return c
}

func changeNumbers(c *cobra.Command, std stdio, o *options, args []string, b bulkFlags) error {
	if len(args) == 1 && !b.dryRun {
		return changeConsent(c, std, o, "/consents/", args[0], consentRequest{OptOut: !b.undo, Who: whoami(), Why: b.why})
	}
	for i, a := range args {
		if strings.ContainsAny(a, ",;\t\r\n\"") {
			return usageError{fmt.Errorf("argument %d is not one number: write a space between numbers", i+1)}
		}
	}
	return o.bulk(c, std, b, "", strings.NewReader(strings.Join(args, "\n")), 0)
}

func importOptOuts(std stdio, o *options) *cobra.Command {
	var b bulkFlags
	c := o.withJSON(&cobra.Command{
		Use:   "import FILE",
		Short: "Opt out the numbers of a list: CSV, XLSX or one a line",
		Long: `Opt out the numbers of a list: CSV with commas, semicolons or tabs, an XLSX workbook, or one number a line; FILE may be - for
standard input. The numbers are in the column that --column names or counts, else in the first one called phone, mobile,
number, to, tel, cell, msisdn or e164, or whose name contains one of the first three; a list without a header has them in
the only column that looks like it. Numbers may be spelled in any way, as in sends.

First it counts: what is new, what is opted out already, what stands there twice, what is no number (each with its line),
and on how many CRM records the new ones are. Then it asks for the count; --yes does not ask, --dry-run stops there. Who did
it and why is kept with each number.

It can be interrupted and repeated: what was done stays done and is not done twice. What it changes is first written to
FILE.undo-TIME.csv (--undo-file); heed optouts import --undo takes that back, but for whoever has texted STOP since.

Exit code 1 if anything could not be read or changed, also where the rest was.`,
		Example: `  heed optouts import old-list.csv --dry-run
  heed optouts import contacts.xlsx --column 'Mobile Phone' --why 'list of the old provider'
  grep -h '^+' *.txt | heed optouts import - --why 'mailbox of November' --yes
  heed optouts import --undo old-list.undo-20261129-101500.csv --why 'the wrong list'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] == "-" {
				return o.bulk(c, std, b, "", &interruptible{ctx: c.Context(), r: std.In}, 0)
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			if b.undoFile == "" {
				b.undoFile = strings.TrimSuffix(args[0], filepath.Ext(args[0])) + ".undo-" + time.Now().Format("20060102-150405") + ".csv"
			}
			return o.bulk(c, std, b, args[0], f, info.Size())
		},
	})
	b.add(c)
	c.Flags().BoolVar(&b.undo, "undo", false, "undo opt-outs that were made by hand or in the CRM")
	c.Flags().StringVar(&b.column, "column", "", "`NAME` of the column with the numbers, or its place, counted from 1")
	c.Flags().StringVar(&b.undoFile, "undo-file", "", "`FILE` for what is changed (default: beside the list; none for standard input)")
	return c
}

// bulkPlan and bulkApply are the two steps as the daemon speaks of them.
type bulkPlan struct {
	connector.BulkPlan
	Numbers []phone.Number `json:"numbers"`
}

type bulkApply struct {
	Numbers []phone.Number `json:"numbers"`
	Undo    bool           `json:"undo"`
	Who     string         `json:"who"`
	Why     string         `json:"why"`
}

type bulkApplied struct {
	Numbers []phone.Number `json:"numbers"` // changed
	Already int            `json:"already"`
	Refused int            `json:"refused"`
}

// bulkResult is what the commands print. Keys may be added; these stay.
type bulkResult struct {
	connector.BulkPlan
	DryRun   bool   `json:"dry_run"`
	Change   int    `json:"change"`              // numbers that were to be changed
	Changed  int    `json:"changed"`             // and were
	UndoFile string `json:"undo_file,omitempty"` // what takes it back
}

var errNoWhy = usageError{errors.New("say --why: it is kept with your name")}

// bulk plans a change, asks, and applies it. name is the list's, "" if it is no file; size is 0 if it is not known.
func (o *options) bulk(c *cobra.Command, std stdio, b bulkFlags, name string, list io.Reader, size int64) (err error) {
	_, asking := terminal(std.In)
	asking = asking && file(list) != file(std.In)
	if i, ok := list.(*interruptible); ok && file(i.r) == file(std.In) {
		asking = false // it is read for the list
	}
	switch b.why = strings.TrimSpace(b.why); {
	case b.why == "" && !b.dryRun:
		return errNoWhy
	case !b.yes && !b.dryRun && !asking:
		return usageError{errors.New("nobody can be asked here: look with --dry-run, then say --yes")}
	}
	client, err := o.control(c.Context(), std)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.close()) }()
	update, stop := progressBar(std.Err)
	var plan bulkPlan
	err = client.post(c.Context(), "/optouts/plan?"+url.Values{"column": {b.column}, "undo": {strconv.FormatBool(b.undo)}}.Encode(),
		&counted{r: list, progress: func(done int64) {
			update(reconcile.Progress{Stage: "looked up", Done: int(done), Total: int(size)})
		}}, &plan)
	stop()
	if err != nil {
		if name != "" {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return err
	}
	if plan.Rows == 0 {
		err := errors.New("the list is empty")
		if name != "" {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return err
	}
	res := bulkResult{BulkPlan: plan.BulkPlan, DryRun: b.dryRun, Change: len(plan.Numbers)}
	say := std.Err
	if b.dryRun && !o.json {
		say = std.Out
	}
	if !b.dryRun || !o.json {
		res.printPlan(say)
	}
	if res.Change > 0 && !b.dryRun {
		if !b.yes {
			if err := askCount(c.Context(), std, b.undo, res.Change); err != nil {
				return err
			}
		}
		if err := o.bulkApply(c.Context(), client, std, b, plan.Numbers, &res); err != nil {
			return err
		}
	}
	if err := o.print(std, res, func() error {
		if b.dryRun {
			return nil
		}
		_, err := fmt.Fprintln(std.Out, res.said())
		return err
	}); err != nil {
		return err
	}
	if res.Unreadable > 0 || !b.dryRun && res.Changed < res.Change {
		return errFailed
	}
	return nil
}

func (o *options) bulkApply(ctx context.Context, client *controlClient, std stdio, b bulkFlags, numbers []phone.Number, res *bulkResult) error {
	// Written first: what is interrupted can be taken back too, and a number that was not changed is left alone by it.
	if b.undoFile != "" && !b.undo {
		if err := writeNumbers(b.undoFile, numbers); err != nil {
			return fmt.Errorf("nothing was changed: the file that takes it back could not be written: %w", err)
		}
		res.UndoFile = b.undoFile
	}
	update, stop := progressBar(std.Err)
	var done bulkApplied
	err := client.follow(ctx, "/optouts/apply", bulkApply{Numbers: numbers, Undo: b.undo, Who: whoami(), Why: b.why}, update, &done)
	stop()
	res.Changed, res.Already, res.Refused = len(done.Numbers), res.Already+done.Already, res.Refused+done.Refused
	res.Change -= done.Already
	if err != nil {
		return fmt.Errorf("it did not come to its end: %w; what was done is kept, and the same command goes on with the rest", err)
	}
	if res.UndoFile != "" && len(done.Numbers) < len(numbers) {
		return writeNumbers(b.undoFile, done.Numbers)
	}
	return nil
}

// writeNumbers writes a list that optouts import reads.
func writeNumbers(name string, numbers []phone.Number) error {
	f, err := createWhole(name)
	if err != nil {
		return err
	}
	_, _ = f.WriteString("number\n") // errors are kept until the end
	for _, n := range numbers {
		_, _ = f.WriteString(n.String() + "\n")
	}
	return f.end(nil)
}

// errNotConfirmed ends a command that somebody thought better of.
var errNotConfirmed = errors.New("not confirmed: nothing was changed")

// askCount asks for the number of changes.
func askCount(ctx context.Context, std stdio, undo bool, n int) error {
	what := "Opt out"
	if undo {
		what = "Undo the opt-outs of"
	}
	fmt.Fprintf(std.Err, "%s %s? Type %d to go on: ", what, numbers(n), n)
	answer, err := bufio.NewReader(&interruptible{ctx: ctx, r: std.In}).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if strings.TrimSpace(answer) != strconv.Itoa(n) {
		return errNotConfirmed
	}
	return nil
}

func numbers(n int) string {
	if n == 1 {
		return "1 number"
	}
	return fmt.Sprintf("%d numbers", n)
}

func (r bulkResult) printPlan(w io.Writer) {
	for _, p := range r.Problems {
		fmt.Fprintln(w, p)
	}
	if more := r.Unreadable - len(r.Problems); more > 0 {
		fmt.Fprintf(w, "and %d more rows that are no telephone number\n", more)
	}
	for _, s := range r.Ignored {
		fmt.Fprintf(w, "sheet %q: no telephone numbers; left out\n", s)
	}
	rows := []struct {
		n    int
		what string
	}{{r.Rows, fmt.Sprintf("rows with something in %q", r.Column)}, {r.Unreadable, "of them no telephone number"}, {r.Duplicates, "of them again a number of an earlier row"},
		{r.Already, "of them opted out already"}, {r.Change, "numbers to opt out, on " + plural(r.Records, "CRM record")}}
	if r.Undo {
		rows[3].what, rows[4].what = "of them not opted out anyway", "opt-outs to undo, on "+plural(r.Records, "CRM record")
		rows = append(rows, rows[4])
		rows[4].n, rows[4].what = r.Refused, "of them the recipient's own opt-outs, which only START lifts"
	}
	for _, x := range rows {
		fmt.Fprintf(w, "%9d  %s\n", x.n, x.what)
	}
}

// said is the last line of a change.
func (r bulkResult) said() string {
	s := numbers(r.Changed) + " opted out"
	if r.Undo {
		s = numbers(r.Changed) + " not opted out any more"
	}
	if r.UndoFile != "" {
		s += "; to take it back: heed optouts import --undo " + r.UndoFile
	}
	return s
}

// optOutRoutes serves the commands about the list.
func (h *house) optOutRoutes(mux *http.ServeMux, ctx context.Context) {
	mux.HandleFunc("GET /optouts", func(w http.ResponseWriter, r *http.Request) {
		q, err := export.ReadFilter(r.URL.Query()).Query(h.cfg.Schedule.Location(), h.cfg.Campaigns.Window)
		if err != nil {
			answer(w, func() (any, error) { return nil, err })
			return
		}
		w.Header().Set("Content-Type", export.JSON.ContentType())
		if err := export.Write(w, export.JSON, export.Rows(r.Context(), h.ledger, q, phone.Number{})); err != nil {
			h.log.Error("list of opt-outs ended early", "error", err)
			panic(http.ErrAbortHandler)
		}
	})
	bulk := &connector.Bulk{Ledger: h.ledger, CRMs: h.crms, Region: h.cfg.Consent.DefaultRegion, Now: time.Now}
	mux.HandleFunc("POST /optouts/plan", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) {
			p, err := bulk.Plan(r.Context(), r.Body, r.URL.Query().Get("column"), r.URL.Query().Get("undo") == "true", 0)
			return bulkPlan{p, p.Change}, err
		})
	})
	mux.HandleFunc("POST /optouts/apply", func(w http.ResponseWriter, r *http.Request) {
		var ask bulkApply
		if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		stream(ctx, w, r, func(ctx context.Context, progress func(reconcile.Progress)) (any, error) {
			done, err := bulk.Apply(ctx, ask.Numbers, ask.Undo, connector.By{Who: ask.Who, Via: "command line", Why: ask.Why}, func(n int) {
				progress(reconcile.Progress{Stage: "recorded", Done: n, Total: len(ask.Numbers)})
			})
			if err == nil && h.people == nil && h.cfg.Mode != config.Shadow { // where no daemon runs, nobody else would
				progress(reconcile.Progress{Stage: string(ledger.OweBoxes)})
				if err := h.boxes.Flush(ctx); err != nil {
					h.log.Warn("the boxes are not set yet", "error", err)
				}
			}
			return bulkApplied{append([]phone.Number{}, done.Changed...), done.Already, done.Refused}, err
		})
	})
}
