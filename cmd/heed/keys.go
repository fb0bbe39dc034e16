package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/connector"
)

// keyRequest is a change of the API keys that a person asks for at the command line.
type keyRequest struct {
	Name string            `json:"name"`
	May  []connector.Right `json:"may,omitempty"`
	Who  string            `json:"who"`
	Why  string            `json:"why,omitempty"`
}

// keyAdded and keyRevoked are what the commands print.
type keyAdded struct {
	Name string            `json:"name"`
	May  []connector.Right `json:"may"`
	Key  string            `json:"key"` // shown this once
}

type keyRevoked struct {
	Name    string `json:"name"`
	Revoked bool   `json:"revoked"`
}

// keyRoutes serves the commands about API keys.
func (h *house) keyRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, func() (any, error) { return h.keys.List(), nil })
	})
	change := func(fn func(context.Context, keyRequest) (string, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			answer(w, func() (any, error) {
				var k keyRequest
				if err := json.NewDecoder(io.LimitReader(r.Body, 1<<14)).Decode(&k); err != nil {
					return nil, err
				}
				return fn(r.Context(), k)
			})
		}
	}
	mux.HandleFunc("POST /keys", change(func(ctx context.Context, k keyRequest) (string, error) {
		return h.keys.Add(ctx, k.Name, k.May, k.Who, k.Why)
	}))
	mux.HandleFunc("POST /keys/revoke", change(func(ctx context.Context, k keyRequest) (string, error) {
		return "", h.keys.Revoke(ctx, k.Name, k.Who, k.Why)
	}))
}

func keysCommand(std stdio, o *options) *cobra.Command {
	c := &cobra.Command{Use: "keys", Short: "The API keys with which programs call heed",
		Long: `The API keys with which programs call heed. Those that are made here are kept in the ledger, as hashes, with who made
them; those of the configuration file are listed too. A running daemon takes a new key, and refuses a revoked one, at once.`,
		Example: "  heed keys add workflow --may send,read\n  heed keys list\n  heed keys revoke workflow --why 'left with an agency'",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() }}
	var may []string
	var why string
	post := func(c *cobra.Command, path string, k keyRequest) (secret string, err error) {
		client, err := o.control(c.Context(), std)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, client.close()) }()
		k.Who, k.Why = whoami(), why
		return secret, client.exchange(c.Context(), http.MethodPost, path, k, &secret)
	}
	add := o.withJSON(&cobra.Command{
		Use:   "add NAME",
		Short: "Make a key and print it, this once",
		Long: `Make a key and print it on standard output, this once: heed keeps only its hash. Rights, of which none includes another:
  send   hand over messages to be sent
  read   ask for decisions, consents and messages
  admin  set consent by hand, decide on held replies`,
		Example: "  heed keys add workflow --may send,read\n  heed keys add crm --may send > /run/secrets/heed-key",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			k := keyRequest{Name: args[0]}
			for _, m := range may {
				k.May = append(k.May, connector.Right(strings.TrimSpace(m)))
			}
			if len(k.May) == 0 {
				return usageError{errors.New("say what the key may do: --may send,read")}
			}
			secret, err := post(c, "/keys", k)
			if err != nil {
				return err
			}
			return o.print(std, keyAdded{args[0], k.May, secret}, func() error {
				fmt.Fprintf(std.Err, "The key %q is below. It is not shown again.\n", args[0])
				_, err = fmt.Fprintln(std.Out, secret)
				return err
			})
		},
	})
	add.Flags().StringSliceVar(&may, "may", nil, "rights, separated by commas: send, read, admin")
	_ = add.RegisterFlagCompletionFunc("may", cobra.FixedCompletions([]string{"send", "read", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	list := o.withJSON(&cobra.Command{
		Use:     "list",
		Short:   "List the keys, without the keys themselves",
		Example: "  heed keys list\n  heed keys list --json | jq -r '.[] | select(.revoked | not).name'",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			client, err := o.control(c.Context(), std)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, client.close()) }()
			var keys []connector.KeyInfo
			if err := client.get(c.Context(), "/keys", &keys); err != nil {
				return err
			}
			return o.print(std, keys, func() error {
				return printRows(std.Out, []string{"NAME", "MAY", "IN", "STATE", "SINCE", "BY"}, each(keys, func(k connector.KeyInfo) []string {
					rights := make([]string, len(k.May))
					for i, m := range k.May {
						rights[i] = string(m)
					}
					state, since := "valid", ""
					if k.Revoked {
						state = "revoked"
					}
					if !k.At.IsZero() {
						since = k.At.Format(time.RFC3339)
					}
					return []string{k.Name, strings.Join(rights, ","), k.In, state, since, k.By}
				}))
			})
		},
	})
	revoke := o.withJSON(&cobra.Command{
		Use:     "revoke NAME",
		Short:   "Make a key worthless from now on",
		Example: "  heed keys revoke workflow --why 'left with an agency'",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: complete(o, "/keys", func(k connector.KeyInfo) string {
			if k.Revoked || k.In != "ledger" {
				return ""
			}
			return k.Name
		}),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := post(c, "/keys/revoke", keyRequest{Name: args[0]}); err != nil {
				return err
			}
			return o.print(std, keyRevoked{args[0], true}, func() error {
				_, err := fmt.Fprintf(std.Out, "%s is revoked\n", args[0])
				return err
			})
		},
	})
	for _, cmd := range []*cobra.Command{add, revoke} {
		cmd.Flags().StringVar(&why, "why", "", "the reason, for the record")
	}
	c.AddCommand(add, list, revoke)
	return c
}
