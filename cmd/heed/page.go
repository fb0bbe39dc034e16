package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/connector/admin"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/people"
	"github.com/heed-sms/heed/sms/phone"
)

// openPage wires the page for people. adminAddr is where the admin listener really is.
func (h *house) openPage(adminAddr string) (err error) {
	c := h.cfg.Admin
	url := c.URL
	if url == "" {
		url = "http://" + adminAddr
	}
	o := people.Options{Ledger: h.ledger, URL: url, Log: h.log, Now: time.Now,
		Page: func(w http.ResponseWriter, r *http.Request, status int, name string, f people.Form) {
			h.page.PeoplePage(w, r, status, name, f)
		}}
	if c.OIDC.Issuer != "" {
		o.OIDC = &people.OIDC{Issuer: c.OIDC.Issuer, ClientID: c.OIDC.ClientID, ClientSecret: c.OIDC.ClientSecret.Reveal(), NameClaim: c.OIDC.NameClaim, RoleClaim: c.OIDC.RoleClaim,
			Label: c.OIDC.Label, Roles: map[people.Role][]string{people.Viewer: c.OIDC.Roles.Viewer, people.Operator: c.OIDC.Roles.Operator, people.Admin: c.OIDC.Roles.Admin}}
	}
	if h.people, err = people.New(o); err != nil {
		return err
	}
	var settings bytes.Buffer
	if err := h.cfg.Dump(&settings); err != nil {
		return err
	}
	links := map[string]string{} // CRM → base of its records' addresses
	for _, s := range h.cfg.CRM {
		var salesforce struct {
			Domain string `yaml:"domain"`
		}
		if s.Type == "salesforce" {
			_ = s.Decode(&salesforce) // the driver has reported what is wrong with the section
			links[s.Name] = salesforce.Domain
		}
	}
	h.page = admin.New(admin.Options{Ledger: h.ledger, Consents: h.consents, Holds: h.holds, People: h.people, CRMs: h.crms, Region: h.cfg.Consent.DefaultRegion,
		Window: h.cfg.Campaigns.Window, Zone: h.cfg.Schedule.Location(), Settings: []admin.Setting{{Value: settings.String()}}, Version: versionString(), Log: h.log, Now: time.Now,
		Report: func(w io.Writer, p ledger.Pass, corrections iter.Seq2[ledger.Correction, error], format string) error {
			return h.render(w, p, corrections, format)
		},
		Evidence: func(ctx context.Context, w io.Writer, n phone.Number, who, why string) error {
			return h.writeEvidence(ctx, w, n, who, "page", why)
		},
		RecordURL: func(crm, object, id string) string {
			if base := links[crm]; base != "" {
				return base + "/lightning/r/" + object + "/" + id + "/view"
			}
			return ""
		}})
	return nil
}

// userRequest is a change of the accounts that a person asks for at the command line.
type userRequest struct {
	Name string      `json:"name"`
	Role people.Role `json:"role,omitempty"`
	Who  string      `json:"who"`
	Why  string      `json:"why,omitempty"`
}

// invited is the answer to an invitation.
type invited struct {
	Link  string    `json:"link"`
	Until time.Time `json:"until"`
}

// userChanged is what a command about an account did.
type userChanged struct {
	Name    string      `json:"name"`
	Role    people.Role `json:"role,omitempty"`
	Removed bool        `json:"removed,omitempty"`
}

// errNoDaemon is for what only a running daemon can do.
var errNoDaemon = errors.New("no heed runs on this data directory, and a link works only in the one that made it; start heed serve")

// errNoRole is wrong usage: nobody is given a right that was not said.
var errNoRole = errors.New("say --role for a new person: viewer, operator or admin")

// userRoutes serves the commands about people.
func (h *house) userRoutes(mux *http.ServeMux) {
	decode := func(r *http.Request) (u userRequest, err error) {
		return u, json.NewDecoder(io.LimitReader(r.Body, 1<<14)).Decode(&u)
	}
	on := func(pattern string, fn func(ctx context.Context, u userRequest) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer(w, func() (any, error) {
				if h.people == nil {
					return nil, errNoDaemon
				}
				if r.Method == http.MethodGet {
					return fn(r.Context(), userRequest{})
				}
				u, err := decode(r)
				if err != nil {
					return nil, err
				}
				return fn(r.Context(), u)
			})
		})
	}
	on("GET /users", func(ctx context.Context, _ userRequest) (any, error) { return h.people.List(ctx) })
	on("POST /users/invite", func(ctx context.Context, u userRequest) (any, error) {
		if u.Role == "" {
			known, err := h.people.List(ctx)
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(known, func(a people.Account) bool { return !a.Removed && strings.EqualFold(a.Name, strings.TrimSpace(u.Name)) }) {
				return nil, errNoRole
			}
		}
		link, until, err := h.people.Invite(ctx, u.Name, u.Role, u.Who, u.Why)
		return invited{link, until}, err
	})
	on("POST /users/role", func(ctx context.Context, u userRequest) (any, error) {
		return nil, h.people.SetRole(ctx, u.Name, u.Role, u.Who, u.Why)
	})
	on("POST /users/remove", func(ctx context.Context, u userRequest) (any, error) {
		return nil, h.people.Remove(ctx, u.Name, u.Who, u.Why)
	})
}

func usersCommand(std stdio, o *options) *cobra.Command {
	c := &cobra.Command{Use: "users", Short: "The people who may open the admin page",
		Long: `The people who may open the admin page. Nobody can sign in before somebody at this command line has invited them: the link
works once, within 15 minutes, and whoever opens it chooses a password. Roles: viewer looks, operator also decides and
exports, admin also opts out in bulk. The commands need a running daemon.`,
		Example: "  heed users invite ann@example.com --role admin\n  heed users list\n  heed users remove ann@example.com --why left",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() }}
	var role, why string
	call := func(c *cobra.Command, method, path string, u userRequest, into any) (err error) {
		client, err := o.control(c.Context(), std)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, client.close()) }()
		u.Who, u.Why = whoami(), why
		if method == http.MethodGet {
			return client.get(c.Context(), path, into, "name")
		}
		return client.exchange(c.Context(), method, path, u, into)
	}
	invite := o.withJSON(&cobra.Command{
		Use:     "invite NAME",
		Short:   "Print a link at which a person chooses a password; also to set it anew",
		Example: "  heed users invite ann@example.com --role admin\n  heed users invite ann@example.com    # has forgotten the password",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var got invited
			if err := call(c, http.MethodPost, "/users/invite", userRequest{Name: args[0], Role: people.Role(role)}, &got); err != nil {
				return err
			}
			return o.print(std, got, func() error {
				fmt.Fprintf(std.Err, "The link works once, until %s:\n", got.Until.Format("15:04:05 MST"))
				_, err := fmt.Fprintln(std.Out, got.Link)
				return err
			})
		},
	})
	invite.Flags().StringVar(&role, "role", "", "viewer, operator or admin; for somebody who has an account the one that it has")
	roles := cobra.FixedCompletions([]string{string(people.Viewer), string(people.Operator), string(people.Admin)}, cobra.ShellCompDirectiveNoFileComp)
	_ = invite.RegisterFlagCompletionFunc("role", roles)
	names := complete(o, "/users", func(a people.Account) string {
		if a.Removed {
			return ""
		}
		return a.Name
	})
	list := o.withJSON(&cobra.Command{
		Use:     "list",
		Short:   "List the accounts",
		Example: "  heed users list\n  heed users list --json | jq -r '.[].name'",
		RunE: func(c *cobra.Command, _ []string) error {
			var accounts []people.Account
			if err := call(c, http.MethodGet, "/users", userRequest{}, &accounts); err != nil {
				return err
			}
			return o.print(std, accounts, func() error {
				return printRows(std.Out, []string{"NAME", "ROLE", "STATE", "SINCE", "BY"}, each(accounts, func(a people.Account) []string {
					state := "valid"
					if a.Removed {
						state = "removed"
					}
					return []string{a.Name, string(a.Role), state, a.At.Format(time.RFC3339), a.By}
				}))
			})
		},
	})
	change := o.withJSON(&cobra.Command{
		Use:     "role NAME ROLE",
		Short:   "Change what a person may do",
		Example: "  heed users role ann@example.com operator",
		Args:    cobra.ExactArgs(2),
		ValidArgsFunction: func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return roles(c, args, typed)
			}
			return names(c, args, typed)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := call(c, http.MethodPost, "/users/role", userRequest{Name: args[0], Role: people.Role(args[1])}, nil); err != nil {
				return err
			}
			return o.print(std, userChanged{Name: o.name(args[0]), Role: people.Role(strings.TrimSpace(args[1]))}, func() error {
				_, err := fmt.Fprintf(std.Out, "%s is %s now; open sessions have ended\n", o.name(args[0]), strings.TrimSpace(args[1]))
				return err
			})
		},
	})
	remove := o.withJSON(&cobra.Command{
		Use:               "remove NAME",
		Short:             "Take a person's account away",
		Example:           "  heed users remove ann@example.com --why left",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: names,
		RunE: func(c *cobra.Command, args []string) error {
			if err := call(c, http.MethodPost, "/users/remove", userRequest{Name: args[0]}, nil); err != nil {
				return err
			}
			return o.print(std, userChanged{Name: o.name(args[0]), Removed: true}, func() error {
				_, err := fmt.Fprintf(std.Out, "%s cannot sign in any more\n", o.name(args[0]))
				return err
			})
		},
	})
	for _, cmd := range []*cobra.Command{invite, change, remove} {
		cmd.Flags().StringVar(&why, "why", "", "the reason, for the record")
	}
	c.AddCommand(invite, list, change, remove)
	return c
}
