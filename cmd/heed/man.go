package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/heed-sms/heed/config"
)

func manCommand(std stdio) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Write a manual page for each command into DIR, which is made if it is not there. The date in them is that of
SOURCE_DATE_EPOCH if it is set, else today's.`,
		Example: "  heed man /usr/local/share/man/man1\n  heed man man && man man/heed-optouts.1",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := c.Root()
			root.DisableAutoGenTag = true // the date alone would make two builds differ
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "heed " + versionString(), Manual: "heed"}, args[0]); err != nil {
				return err
			}
			pages, err := os.ReadDir(args[0])
			fmt.Fprintf(std.Err, "%d pages in %s\n", len(pages), args[0])
			return err
		},
	}
}

// complete offers what the running daemon lists under path; name returns "" for what is not to be offered, and may add a
// description behind a tab. Where no daemon runs nothing is offered: opening the ledger would take long and lock it.
func complete[T any](o *options, path string, name func(T) string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
		const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		if len(args) > 0 {
			return nil, directive
		}
		cfg, problems := config.Load(o.config)
		if cfg == nil || problems.Err() != nil {
			return nil, directive
		}
		ctx, cancel := context.WithTimeout(c.Context(), time.Second)
		defer cancel()
		t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialControl(ctx, cfg.DataDir) }}
		defer t.CloseIdleConnections()
		resp, err := (&controlClient{http: &http.Client{Transport: t}}).do(ctx, http.MethodGet, path, nil)
		if err != nil {
			return nil, directive
		}
		defer resp.Body.Close()
		var list []T
		if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&list); err != nil {
			return nil, directive
		}
		for _, x := range list {
			if n := name(x); n != "" {
				out = append(out, n)
			}
		}
		return out, directive
	}
}
