package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/export"
)

// whoami is the name under which a change at the command line is recorded.
func whoami() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "command line"
}

func holdsCommand(std stdio, o *options) *cobra.Command {
	c := &cobra.Command{Use: "holds", Short: "The review queue: replies that could be requests to stop",
		Long: `Replies that could be requests to stop block sends at once and wait here for a person. What nobody decides becomes an
opt-out by itself at its deadline (consent.hold_for).`,
		Example: "  heed holds list\n  heed holds resolve +14155550142 --release --why 'an order number'",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() }}
	var asJSON bool
	list := &cobra.Command{
		Use:     "list",
		Short:   "List what waits for a decision, oldest first",
		Example: "  heed holds list\n  heed holds list --json | jq -r '.[].text'",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			client, err := o.control(c.Context(), std)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.close()) }()
			var held []connector.Held
			if err := client.get(c.Context(), "/holds", &held); err != nil {
				return err
			}
			if asJSON {
				return printJSON(std.Out, held)
			}
			rows := [][]string{{"NUMBER", "SEQ", "SINCE", "DEADLINE", "SUGGESTION", "TEXT"}}
			for _, h := range held {
				rows = append(rows, []string{h.Number.String(), fmt.Sprint(h.Seq), h.Since.Format(time.RFC3339), h.Deadline.Format(time.RFC3339), h.Suggestion, fmt.Sprintf("%q", h.Text)})
			}
			return printRows(std.Out, rows)
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	var optOut, release bool
	var why string
	var seq uint64
	resolve := &cobra.Command{
		Use:   "resolve NUMBER",
		Short: "Decide: it was a request to stop, or it was not",
		Long: `Decide on a held reply. With --opt-out it was a request to stop: the boxes are ticked, and only START from that number
lifts it. With --release it was not: sends go on. Who decided and why is kept.`,
		Example: "  heed holds resolve +14155550142 --opt-out --why 'clearly upset'\n  heed holds resolve +14155550142 --release --why 'an order number'",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if optOut == release {
				return usageError{errors.New("say either --opt-out or --release")}
			}
			return changeConsent(c, std, o, "/holds/", args[0], consentRequest{OptOut: optOut, Seq: seq, Who: whoami(), Why: why})
		},
	}
	resolve.Flags().Uint64Var(&seq, "seq", 0, "the SEQ of the list that was decided on: refuse if another unclear reply came since")
	resolve.Flags().BoolVar(&optOut, "opt-out", false, "it was a request to stop")
	resolve.Flags().BoolVar(&release, "release", false, "it was not")
	resolve.Flags().StringVar(&why, "why", "", "the reason, for the record")
	c.AddCommand(list, resolve)
	return c
}

func changeConsent(c *cobra.Command, std stdio, o *options, path, number string, req consentRequest) (err error) {
	client, err := o.control(c.Context(), std)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.close()) }()
	resp, err := client.do(c.Context(), "POST", path+url.PathEscape(number), req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var h numberHistory
	if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.Out, "%s is %s; a send would get: %s (%s)\n", h.Number, h.State, h.Decision, h.Reason)
	return err
}

func optOutsCommand(std stdio, o *options) *cobra.Command {
	c := &cobra.Command{Use: "optouts", Short: "The list of opted-out numbers",
		Example: "  heed optouts list\n  heed optouts export > optouts.csv\n  heed optouts add +14155550142 --why 'asked on the phone'",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() }}
	var asJSON bool
	list := &cobra.Command{
		Use:   "list",
		Short: "List opted-out and held numbers",
		Long: `List opted-out and held numbers. CAMPAIGN is the one to which the opt-out is attributed: that of the last message that
was sent to the number, if it was sent within campaigns.window before.`,
		Example: "  heed optouts list\n  heed optouts list --json | jq -r 'select(.state == \"held\").number'",
		RunE: func(c *cobra.Command, _ []string) error {
			if asJSON {
				return export.Write(std.Out, export.JSON, optOuts(c, std, o))
			}
			rows := [][]string{{"NUMBER", "STATE", "SINCE", "SOURCE", "KEYWORD", "CAMPAIGN"}}
			for r, err := range optOuts(c, std, o) {
				if err != nil {
					return err
				}
				rows = append(rows, []string{r.Number.String(), r.State.String(), r.Since.Format(time.RFC3339), string(r.Source), r.Keyword, r.Campaign})
			}
			return printRows(std.Out, rows)
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	export := &cobra.Command{
		Use:     "export",
		Short:   "Write the list as CSV to standard output",
		Example: "  heed optouts export > optouts.csv",
		RunE: func(c *cobra.Command, _ []string) error {
			return export.Write(std.Out, export.CSV, optOuts(c, std, o))
		},
	}
	var why string
	add := &cobra.Command{
		Use:     "add NUMBER",
		Short:   "Opt a number out by hand",
		Example: "  heed optouts add '(415) 555-0142' --why 'asked on the phone'",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return changeConsent(c, std, o, "/consents/", args[0], consentRequest{OptOut: true, Who: whoami(), Why: why})
		},
	}
	remove := &cobra.Command{
		Use:   "remove NUMBER",
		Short: "Undo an opt-out that was made by hand or in the CRM",
		Long: `Undo an opt-out that was made by hand or in the CRM. An opt-out of the recipient's own cannot be undone here or anywhere
else: only START from that number lifts it.`,
		Example: "  heed optouts remove +14155550142 --why 'ticked by mistake'",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return changeConsent(c, std, o, "/consents/", args[0], consentRequest{OptOut: false, Who: whoami(), Why: why})
		},
	}
	for _, cmd := range []*cobra.Command{add, remove} {
		cmd.Flags().StringVar(&why, "why", "", "the reason, for the record")
	}
	c.AddCommand(list, export, add, remove)
	return c
}

// optOuts yields the list as the daemon writes it, row by row.
func optOuts(c *cobra.Command, std stdio, o *options) iter.Seq2[export.Row, error] {
	return func(yield func(export.Row, error) bool) {
		client, err := o.control(c.Context(), std)
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
		resp, err := client.do(c.Context(), "GET", "/optouts", nil)
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
