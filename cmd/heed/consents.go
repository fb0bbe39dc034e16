package main

import (
	"errors"
	"fmt"
	"net/url"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/sms/phone"
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
	list := o.withJSON(&cobra.Command{
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
			return o.print(std, held, func() error {
				return printRows(std.Out, []string{"NUMBER", "SEQ", "SINCE", "DEADLINE", "SUGGESTION", "TEXT"}, each(held, func(h connector.Held) []string {
					return []string{h.Number.String(), fmt.Sprint(h.Seq), h.Since.Format(time.RFC3339), h.Deadline.Format(time.RFC3339), h.Suggestion, fmt.Sprintf("%q", h.Text)}
				}))
			})
		},
	})
	var optOut, release bool
	var why string
	var seq uint64
	resolve := o.withJSON(&cobra.Command{
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
	})
	resolve.Flags().Uint64Var(&seq, "seq", 0, "the SEQ of the list that was decided on: refuse if another unclear reply came since")
	resolve.Flags().BoolVar(&optOut, "opt-out", false, "it was a request to stop")
	resolve.Flags().BoolVar(&release, "release", false, "it was not")
	resolve.Flags().StringVar(&why, "why", "", "the reason, for the record")
	c.AddCommand(list, resolve)
	return c
}

// consentResult is where a number stands after a change.
type consentResult struct {
	Number   phone.Number `json:"number"`
	State    string       `json:"state"`
	Decision string       `json:"decision"`
	Reason   string       `json:"reason"`
}

func changeConsent(c *cobra.Command, std stdio, o *options, path, number string, req consentRequest) (err error) {
	client, err := o.control(c.Context(), std)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.close()) }()
	var h consentResult
	if err := client.post(c.Context(), path+url.PathEscape(number), req, &h); err != nil {
		return err
	}
	return o.print(std, h, func() error {
		_, err := fmt.Fprintf(std.Out, "%s is %s; a send would get: %s (%s)\n", h.Number, h.State, h.Decision, h.Reason)
		return err
	})
}
