package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/config"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/salesforce"
	"github.com/heed-sms/heed/sms"
)

// finding is one line of `heed check`.
type finding struct {
	OK   bool   `json:"ok"`
	Part string `json:"part"`
	What string `json:"what"`
	Hint string `json:"hint,omitempty"`
}

func checkCommand(std stdio, o *options) *cobra.Command {
	var offline, dump bool
	c := o.withJSON(&cobra.Command{
		Use:   "check",
		Short: "Check the configuration, then everything it points to, without changing anything",
		Long: `Check the configuration and report every problem with its line; then look, read-only, at everything it points to: can
heed log in, do the fields exist and may it write them, does the provider call the right address, do the clocks agree,
is the data directory sound. One line a finding, with a hint where there is something to do.

Exit code 0: all is well. 1: something is not.`,
		Example: "  heed check -c heed.yaml\n  heed check --offline\n  heed check --json | jq '.[] | select(.ok | not)'",
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := o.logger(std)
			if err != nil {
				return err
			}
			cfg, drv, problems := loadConfig(o.config, log)
			if dump && cfg != nil {
				return errors.Join(cfg.Dump(std.Out), problems.Err())
			}
			var found []finding
			for _, p := range problems {
				where, what := fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column), p.Field+": "+p.Reason
				if p.Line == 0 {
					where = p.File
				}
				if p.Field == "" {
					what = p.Reason
				}
				found = append(found, finding{OK: p.Severity == config.Warning, Part: where, What: what, Hint: p.Hint})
			}
			if problems.Err() == nil {
				found = append(found, finding{OK: true, Part: "configuration", What: fmt.Sprintf("%s is complete and correct", o.config)})
				found = append(found, capabilities(drv)...)
				found = append(found, keywordLint(cfg)...)
				found = append(found, checkDataDir(cfg.DataDir)...)
				if !offline {
					salesforce.InstallTransport(nil)
					ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
					defer cancel()
					found = append(found, probe(ctx, drv)...)
				}
			}
			err = o.print(std, found, func() error { printFindings(std.Out, found); return nil })
			for _, f := range found {
				if !f.OK && err == nil {
					err = errFailed
				}
			}
			return err
		},
	})
	c.Flags().BoolVar(&offline, "offline", false, "only the configuration and this machine: no network")
	c.Flags().BoolVar(&dump, "dump", false, "print the configuration as in force, secrets masked")
	return c
}

func printFindings(w io.Writer, found []finding) {
	_, colour := terminal(w)
	for _, f := range found {
		mark, c := "ok  ", text.FgGreen
		switch {
		case !f.OK:
			mark, c = "FAIL", text.FgRed
		case f.Hint != "":
			mark, c = "note", text.FgYellow
		}
		if colour {
			mark = c.Sprint(mark)
		}
		fmt.Fprintf(w, "%s  %s: %s\n", mark, f.Part, f.What)
		if f.Hint != "" {
			fmt.Fprintf(w, "      hint: %s\n", f.Hint)
		}
	}
}

// capabilities says what each provider cannot do, before traffic finds out.
func capabilities(d drivers) []finding {
	var out []finding
	for _, a := range d.accounts {
		part := "sms " + a.Name
		if _, ok := a.provider.(sms.InboundLog); !ok {
			out = append(out, finding{OK: true, Part: part, What: "this provider's inbound messages cannot be read back",
				Hint: "a STOP whose webhook is lost while heed is down cannot be recovered; keep heed up, and use the provider's fallback URL"})
		}
		if _, ok := a.provider.(sms.OutboundLog); !ok {
			out = append(out, finding{OK: true, Part: part, What: "this provider's sent messages cannot be read back",
				Hint: "sends whose outcome is unknown stay unknown unless a status callback comes"})
		}
	}
	return out
}

// perSe are the words that revoke consent whatever the sender says, 47 CFR 64.1200(a)(10).
var perSe = []string{"STOP", "QUIT", "END", "REVOKE", "OPT OUT", "CANCEL", "UNSUBSCRIBE"}

// keywordLint checks the words in force against the law's.
func keywordLint(cfg *config.Config) []finding {
	w := cfg.Consent.Keywords
	c, err := reply.New(reply.Options{OptOut: w.OptOut, OptIn: w.OptIn, Help: w.Help})
	if err != nil {
		return []finding{{Part: "keywords", What: err.Error(), Hint: "correct consent.keywords"}}
	}
	for _, word := range perSe {
		if v := c.Classify(word).Verdict; v != reply.OptOut {
			return []finding{{Part: "keywords", What: fmt.Sprintf("%s is read as %s", word, v), Hint: "the law counts it as an opt-out"}}
		}
	}
	return []finding{{OK: true, Part: "keywords", What: "the seven words of 47 CFR 64.1200(a)(10) opt out"}}
}

// checkDataDir looks at the directory that the ledger lives in, or will.
func checkDataDir(dir string) []finding {
	part := "data_dir"
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		parent := filepath.Dir(dir)
		for parent != filepath.Dir(parent) {
			if _, err := os.Stat(parent); err == nil {
				break
			}
			parent = filepath.Dir(parent)
		}
		probe, err := os.MkdirTemp(parent, ".heed-check-*")
		if err != nil {
			return []finding{{Part: part, What: dir + " does not exist and cannot be made: " + err.Error(), Hint: "create it for heed's user, or change data_dir"}}
		}
		_ = os.Remove(probe)
		return []finding{{OK: true, Part: part, What: dir + " does not exist yet; heed serve creates it"}}
	}
	if err != nil {
		return []finding{{Part: part, What: err.Error(), Hint: "heed must be able to read and write it"}}
	}
	if !info.IsDir() {
		return []finding{{Part: part, What: dir + " is not a directory", Hint: "name a directory of heed's own"}}
	}
	var out []finding
	if m := info.Mode().Perm(); m&0o077 != 0 {
		out = append(out, finding{Part: part, What: fmt.Sprintf("%s may be read by others (mode %04o)", dir, m), Hint: "it holds telephone numbers and texts: chmod 700 " + dir})
	}
	f, err := os.CreateTemp(dir, ".heed-check-*")
	if err != nil {
		return append(out, finding{Part: part, What: err.Error(), Hint: "heed must be able to write there; check the owner and the space left"})
	}
	defer os.Remove(f.Name())
	began := time.Now()
	_, werr := f.Write(make([]byte, 4096))
	serr := f.Sync()
	took := time.Since(began)
	if err := errors.Join(werr, serr, f.Close()); err != nil {
		return append(out, finding{Part: part, What: "cannot be written durably: " + err.Error(), Hint: "use a local disk with space left"})
	}
	out = append(out, checkFileSystem(part, dir)...)
	if took > 200*time.Millisecond {
		return append(out, finding{OK: true, Part: part, What: fmt.Sprintf("a durable write took %s", took.Round(time.Millisecond)), Hint: "providers wait one to two seconds for an answer; use a faster disk"})
	}
	return append(out, finding{OK: true, Part: part, What: fmt.Sprintf("%s is writable; a durable write took %s", dir, took.Round(10*time.Microsecond))})
}

// probe asks each account and CRM about itself.
func probe(ctx context.Context, d drivers) []finding {
	var out []finding
	for _, a := range d.accounts {
		if p, ok := a.provider.(sms.Prober); ok {
			for _, f := range p.Probe(ctx) {
				out = append(out, finding{f.OK, "sms " + a.Name, f.What, f.Hint})
			}
		}
	}
	for _, c := range d.crms {
		if p, ok := c.directory.(crm.Prober); ok {
			for _, f := range p.Probe(ctx) {
				out = append(out, finding{f.OK, "crm " + c.Name, f.What, f.Hint})
			}
		}
	}
	return out
}
