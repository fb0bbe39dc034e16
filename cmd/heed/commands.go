package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/config"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/sync/reconcile"
)

func classifyCommand(std stdio, o *options) *cobra.Command {
	var corpus string
	c := &cobra.Command{
		Use:   "classify",
		Short: "Say what replies mean",
		Long: `Read replies from standard input, one a line, and print one JSON object a line: the text, the verdict
(opt_out, opt_in, help, hold or none), the rule that decided and the keyword it rests on. Any bytes are accepted.

With --corpus, measure the rules on a labelled file instead (label, language and text, separated by tabs), beside the
matching strategies of providers.`,
		Example: `  echo 'pls stop texting me' | heed classify
  heed classify < replies.txt | jq -r 'select(.verdict == "hold").text'
  heed classify --corpus labelled.tsv`,
		RunE: func(c *cobra.Command, _ []string) error {
			if corpus == "" {
				var out io.Writer = std.Out
				if o.noPII {
					out = &lineMasker{w: std.Out}
				}
				return reply.ClassifyLines(c.Context(), std.In, out, reply.Default())
			}
			return evaluateCorpus(std, corpus)
		},
	}
	c.Flags().StringVar(&corpus, "corpus", "", "measure on a labelled `FILE`")
	return c
}

// evaluateCorpus prints how heed reads a labelled file, and how the usual ways of matching do on the same lines.
func evaluateCorpus(std stdio, path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	rep, err := reply.Evaluate(bytes.NewReader(raw), func(s string) reply.Verdict { return reply.Default().Classify(s).Verdict })
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := rep.WriteTo(std.Out); err != nil {
		return err
	}
	fmt.Fprintln(std.Out, "\nthe held-out half, beside the usual ways of matching:")
	tw := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\tcaught\toutright\ttaken for opt-outs\theld\t")
	line := func(name string, s reply.Score) {
		fmt.Fprintf(tw, "%s\t%.1f %%\t%.1f %%\t%.1f %%\t%.1f %%\t\n", name, 100*s.Caught(), 100*s.Recall(), 100*s.Rate("none", reply.OptOut), 100*s.Rate("none", reply.Hold))
	}
	line("heed", rep.HeldOut)
	for _, b := range reply.Baselines {
		other, err := reply.Evaluate(bytes.NewReader(raw), b.Classify)
		if err != nil {
			return err
		}
		line(b.Name, other.HeldOut)
	}
	return tw.Flush()
}

func reconcileCommand(std stdio, o *options) *cobra.Command {
	var opts reconcileRequest
	c := o.withJSON(&cobra.Command{
		Use:   "reconcile",
		Short: "Compare CRM, provider and ledger now, and repair",
		Long: `Run a pass now: read the provider's log and the CRM's changes since the last pass (with --full, every record),
record what was missed, set the boxes that are not as they must be, and print the report. With --dry-run, print what it
would do and change nothing.

Running it twice changes nothing the second time. Exit code 1 means that something could not be checked or written; the
report says what.`,
		Example: `  heed reconcile
  heed reconcile --full --dry-run
  heed reconcile --json | jq .corrections`,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			client, err := o.controlOr(c.Context(), std, opts.DryRun)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.close()) }()
			update, stop := progressBar(std.Err)
			opts.NoPII = o.noPII
			if o.json {
				opts.Format = "json"
			}
			var res renderedReport
			err = client.follow(c.Context(), "/reconcile", opts, update, &res)
			stop()
			if err != nil {
				return err
			}
			if _, err := io.WriteString(std.Out, res.Report); err != nil {
				return err
			}
			if res.Error != "" {
				return errFailed
			}
			return nil
		},
	})
	c.Flags().BoolVar(&opts.DryRun, "dry-run", false, "print the plan, change nothing")
	c.Flags().BoolVar(&opts.Full, "full", false, "read every CRM record, not only the changed ones")
	return c
}

func reportsCommand(std stdio, o *options) *cobra.Command {
	c := &cobra.Command{Use: "reports", Short: "List and show the reports of passes", Example: "  heed reports list\n  heed reports show",
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	list := o.withJSON(&cobra.Command{
		Use:     "list",
		Short:   "List reports, newest first",
		Example: "  heed reports list\n  heed reports list --json | jq -r '.[0].id'",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			client, err := o.control(c.Context(), std)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.close()) }()
			passes := []ledger.Pass{}
			if err := client.get(c.Context(), "/reports", &passes); err != nil {
				return err
			}
			return o.print(std, passes, func() error {
				return printRows(std.Out, []string{"REPORT", "KIND", "STARTED", "RESULT", "CORRECTIONS"}, each(passes, passRow))
			})
		},
	})
	var format string
	show := &cobra.Command{
		Use:   "show [REPORT]",
		Short: "Show a report, by default the latest",
		Long: `Show a report, by default the latest. REPORT is its name as heed reports list has it, or the beginning of it.

text is for reading, json for programs, csv has one line a correction, html is a page of its own to mail or print.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: complete(o, "/reports", func(p ledger.Pass) string { return p.ID + "\t" + p.Kind + ", " + p.StartedAt.Format(time.RFC3339) }),
		Example: `  heed reports show
  heed reports show --format json | jq .pass.causes
  heed reports show --format html > report.html`,
		RunE: func(c *cobra.Command, args []string) (err error) {
			switch {
			case o.json && c.Flags().Changed("format") && format != "json":
				return usageError{errors.New("say either --json or --format")}
			case o.json:
				format = "json"
			case !slices.Contains(reportFormats, format):
				return usageError{fmt.Errorf("--format %q: want text, json, csv or html", format)}
			}
			client, err := o.control(c.Context(), std)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.close()) }()
			id := "latest"
			if len(args) == 1 {
				id = args[0]
			}
			var res renderedReport
			if err := client.get(c.Context(), "/reports/"+url.PathEscape(id)+"?format="+format+o.mask("&"), &res); err != nil {
				return err
			}
			_, err = io.WriteString(std.Out, res.Report)
			return err
		},
	}
	o.withJSON(show).Flags().StringVar(&format, "format", "text", "text, json, csv or html")
	_ = show.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(reportFormats, cobra.ShellCompDirectiveNoFileComp))
	c.AddCommand(list, show)
	return c
}

var reportFormats = []string{"text", "json", "csv", "html"}

func passRow(p ledger.Pass) []string {
	result := "complete"
	switch {
	case p.Error != "":
		result = "partial"
	case p.FinishedAt.IsZero():
		result = "interrupted"
	}
	n := 0
	for _, k := range p.Causes {
		n += k
	}
	return []string{p.ID, p.Kind, p.StartedAt.Format(time.RFC3339), result, fmt.Sprint(n)}
}

func historyCommand(std stdio, o *options) *cobra.Command {
	var packet evidenceFlags
	c := o.withJSON(&cobra.Command{
		Use:   "history NUMBER",
		Short: "Show everything known about a number",
		Long: `Show a number's state, what a send to it would get, its CRM records, and everything that happened, each with its
place in the journal.

With --evidence, write all of it into one file instead, with what proves it to somebody who has nothing else: the records
as they were made, links of the journal's hash chain to the anchors of the nightly reports, a summary to read and print, and
how to check it with and without heed. Nothing about other numbers is in it. That it was asked for, by whom and why, is
recorded.`,
		Args:    cobra.ExactArgs(1),
		Example: "  heed history +14155550142\n  heed history '(415) 555-0142' --json\n  heed history '(415) 555-0142' --evidence case-12.zip --why 'case 12'",
		RunE: func(c *cobra.Command, args []string) (err error) {
			if asked, err := packet.asked(c); err != nil {
				return err
			} else if asked {
				return exportEvidence(c.Context(), o, std, args[0], packet)
			}
			client, err := o.control(c.Context(), std)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.close()) }()
			var h numberHistory
			if err := client.get(c.Context(), "/history/"+url.PathEscape(args[0]), &h); err != nil {
				return err
			}
			return o.print(std, h, func() error {
				fmt.Fprintf(std.Out, "%s is %s; a send would get: %s (%s)\n", h.Number, h.State, h.Decision, h.Reason)
				for _, r := range h.Records {
					box := "not ticked"
					if r.OptedOut {
						box = "ticked"
					}
					fmt.Fprintf(std.Out, "  %s %s %s: box %s\n", r.CRM, r.Object, r.ID, box)
				}
				return printRows(std.Out, []string{"EVENT", "WHEN", "WHAT"}, each(h.Events, func(e historyEvent) []string {
					return []string{fmt.Sprint(e.Seq), e.At.Format(time.RFC3339), describe(e.Event)}
				}))
			})
		},
	})
	packet.add(c)
	return c
}

// describe says in one line what an event was.
func describe(e ledger.Event) string {
	switch {
	case e.Inbound != nil:
		return fmt.Sprintf("texted %q: %s (rule %s, by %s)", e.Inbound.Body, e.Inbound.Verdict, e.Inbound.Rule, e.Inbound.Via)
	case e.Timed != nil:
		return fmt.Sprintf("the text of event %d was sent at %s", e.Timed.Of, e.Timed.SentAt.Format(time.RFC3339))
	case e.Consent != nil:
		s := fmt.Sprintf("%s by %s", e.Consent.Action, e.Consent.Source)
		if e.Consent.Actor != "" {
			s += " (" + e.Consent.Actor + ")"
		}
		if r := e.Consent.Record; r != nil {
			s += ", " + r.Object + " " + r.ID
		}
		return s + quoted(": ", e.Consent.Why)
	case e.Opened != nil:
		return fmt.Sprintf("send asked for by %s: %s, %s (%s)", e.Opened.Caller, e.Opened.Decision.Verdict, e.Opened.Decision.Reason, e.Opened.ID) + quoted(": ", e.Opened.Body)
	case e.Outcome != nil:
		return strings.TrimSpace(fmt.Sprintf("send %s: %s %s", e.Outcome.Message, e.Outcome.Status, e.Outcome.Error))
	case e.Status != nil:
		return strings.TrimSpace(fmt.Sprintf("provider told: %s %s", e.Status.Delivery, e.Status.Code))
	case e.Written != nil:
		if len(e.Written.Results) == 0 {
			return "CRM: nothing to change"
		}
		var parts []string
		for _, r := range e.Written.Results {
			verb := "unticked"
			if r.OptedOut {
				verb = "ticked"
			}
			if r.Class != "" {
				verb = "could not be " + verb + " (" + r.Text + ")"
			}
			parts = append(parts, fmt.Sprintf("%s %s %s", r.Object, r.ID, verb))
		}
		return "CRM: " + strings.Join(parts, "; ")
	case e.Correction != nil:
		return "pass: " + e.Correction.Detail
	case e.Started != nil:
		return "queued send " + e.Started.Message + " begins"
	case e.Dropped != nil:
		return "confirmation not sent: " + e.Dropped.Why
	case e.Told != nil && len(e.Told.Results) == 0:
		if !e.Told.Want { // only the recipient's START takes a number off a list
			return "provider's own list: none was told"
		}
		return "provider's own list: no account has one that heed may write"
	case e.Told != nil:
		var parts []string
		for _, r := range e.Told.Results {
			if r.Class == "" {
				parts = append(parts, r.Account+" told")
			} else {
				parts = append(parts, r.Account+" refused: "+r.Text)
			}
		}
		return "provider's own list: " + strings.Join(parts, "; ")
	case e.Act != nil:
		return e.Act.What + " by " + e.Act.Who + quoted(": ", e.Act.Why)
	}
	return string(e.Kind)
}

// quoted is a text in quotation marks behind what leads to it, and nothing for none.
func quoted(lead, text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("%s%q", lead, text)
}

func verifyCommand(std stdio, o *options) *cobra.Command {
	var rebuild bool
	var packet string
	var anchors []string
	c := o.withJSON(&cobra.Command{
		Use:   "verify",
		Short: "Prove that the ledger is whole, or check an evidence packet",
		Long: `Check every byte of the journal (checksums, sequence and the hash chain) and compare the index with what the
journal amounts to. Nothing is changed. A damaged or missing byte is named with its file and place, and the exit code is 1.

With --anchor, prove besides that nothing was changed since a report was made: the anchor line of an old report says which
event was the newest, and its hash.

With --evidence, check a packet that "heed history --evidence" wrote. It needs neither the ledger nor a configuration.

With --rebuild, and no daemon running, set the index aside and compute it again from the journal; the next pass then
reads the CRM in full.`,
		Example: "  heed verify\n  heed verify --anchor 40512:9f86d0…\n  heed verify --evidence case-12.zip --anchor 40512:9f86d0…\n  heed verify --rebuild",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			known, err := parseAnchors(anchors)
			if err != nil {
				return usageError{err}
			}
			if c.Flags().Changed("evidence") {
				if rebuild {
					return usageError{errors.New("--rebuild is about the ledger and --evidence about a packet; use one of them")}
				}
				return verifyEvidence(std, o, packet, known)
			}
			kept, err := asKept(known)
			if err != nil {
				return usageError{err}
			}
			log, err := o.logger(std)
			if err != nil {
				return err
			}
			cfg, problems := config.Load(o.config)
			if cfg == nil || problems.Err() != nil {
				return problems.Err()
			}
			if rebuild {
				if err := local.Rebuild(cfg.DataDir, local.Options{Policy: policy(cfg), Logger: log}); err != nil {
					return err
				}
				fmt.Fprintln(std.Err, "index rebuilt from the journal")
			}
			update, stop := progressBar(std.Err)
			rep := func() verifyReport {
				defer stop()
				r, err := local.Verify(c.Context(), cfg.DataDir, func(done, total int64) {
					update(reconcile.Progress{Stage: "journal", Done: int(done), Total: int(total)})
				}, kept...)
				return newVerifyReport(r, err)
			}()
			if rep.OK && rep.IndexSkipped == local.IndexInUse {
				if client, err := o.control(c.Context(), std); err == nil {
					defer func() { _ = client.close() }()
					var theirs verifyReport
					if err := client.follow(c.Context(), "/verify", nil, update, &theirs); err == nil {
						rep = theirs
					}
				}
			}
			if rep.OK {
				rep.Anchors = anchors
			}
			err = o.print(std, rep, func() error { printVerify(std.Out, rep); return nil })
			if err == nil && !rep.OK {
				err = errFailed
			}
			return err
		},
	})
	c.Flags().BoolVar(&rebuild, "rebuild", false, "compute the index again from the journal first")
	c.Flags().StringVar(&packet, "evidence", "", "check this packet `FILE` and not the ledger")
	c.Flags().StringArrayVar(&anchors, "anchor", nil, "anchor of a report that was kept, as `SEQ:HASH`; may be repeated")
	return c
}

func printVerify(w io.Writer, r verifyReport) {
	for _, p := range r.Problems {
		fmt.Fprintln(w, "DAMAGED  "+p)
	}
	if !r.OK {
		return
	}
	fmt.Fprintf(w, "ok  journal: %d records in %d segments, %d bytes, unbroken\n", r.Records, r.Segments, r.Bytes)
	fmt.Fprintf(w, "    head:    %s\n", r.Head)
	for _, a := range r.Anchors {
		fmt.Fprintf(w, "ok  anchor:  %s: everything up to this event is what it was then\n", a)
	}
	switch {
	case r.IndexSkipped != "":
		fmt.Fprintf(w, "    index:   not checked: %s\n", r.IndexSkipped)
	case r.IndexBehind > 0:
		fmt.Fprintf(w, "ok  index:   what the first %d records amount to; %d more are replayed at the next start\n", r.Index, r.IndexBehind)
	default:
		fmt.Fprintf(w, "ok  index:   what the journal amounts to\n")
	}
	for _, t := range r.Torn {
		fmt.Fprintf(w, "    note:    %s holds a write that a crash cut short; it was never acknowledged\n", t)
	}
}

func backupCommand(std stdio, o *options) *cobra.Command {
	var overwrite bool
	c := o.withJSON(&cobra.Command{
		Use:   "backup FILE",
		Short: "Write a consistent copy of the ledger, while the daemon runs or not",
		Long: `Write a tar archive with the journal, from which everything else is computed. FILE may be - for standard output; it
appears when it is complete, and one that is there already is kept unless --overwrite is said.

To restore, stop heed, unpack the archive into an empty data_dir, and start heed: it computes its index, and the first
pass reads the CRM and the provider's log.`,
		Args:    cobra.ExactArgs(1),
		Example: "  heed backup /backup/heed-$(date +%F).tar\n  heed backup - | age -r … > heed.tar.age",
		RunE: func(c *cobra.Command, args []string) (err error) {
			if args[0] == "-" && (o.noPII || o.json) {
				return usageError{errors.New("FILE is -: the archive itself goes to standard output, and nothing in it is masked")}
			}
			if info, err := os.Stat(args[0]); err == nil && info.Mode().IsRegular() && !overwrite && args[0] != "-" {
				return fmt.Errorf("%s is there already and was left as it is: take another name, or say --overwrite", args[0])
			}
			client, err := o.control(c.Context(), std)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.close()) }()
			resp, err := client.do(c.Context(), "GET", "/backup", nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			update, stop := progressBar(std.Err)
			total, _ := strconv.Atoi(resp.Header.Get(backupSize))
			in := &counted{r: resp.Body, progress: func(done int64) {
				update(reconcile.Progress{Stage: "copied", Done: int(done), Total: total})
			}}
			if args[0] == "-" {
				_, err = io.Copy(std.Out, in)
				stop()
				return err
			}
			// The name appears only when the copy is complete and on disk.
			f, err := createWhole(args[0])
			if err != nil {
				stop()
				return err
			}
			n, err := io.Copy(f, in)
			stop()
			if err := f.end(err); err != nil {
				return fmt.Errorf("backup is incomplete and was removed: %w", err)
			}
			if o.json {
				return printJSON(std.Out, backedUp{args[0], n})
			}
			fmt.Fprintf(std.Err, "%s: %d bytes\n", args[0], n)
			return nil
		},
	})
	c.Flags().BoolVar(&overwrite, "overwrite", false, "replace FILE if it is there")
	return c
}

// backupSize is the header with the number of bytes that a backup will have, about.
const backupSize = "Heed-Backup-Size"

// backedUp is what a backup amounts to.
type backedUp struct {
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
}

// counted tells how far a reader is.
type counted struct {
	r        io.Reader
	n        int64
	progress func(done int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.progress(c.n)
	return n, err
}
