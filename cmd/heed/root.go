package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes, as Unix tools use them.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errFailed ends a command whose output has already said what is wrong.
var errFailed = errors.New("failed")

// run runs one command line and returns the exit code. It is the whole program but for signals, so that tests can run it.
func run(ctx context.Context, args []string, std stdio) int {
	o := &options{}
	out := &masker{w: std.Out, on: &o.noPII, line: true}
	std.Out, std.Err = out, &masker{w: std.Err, on: &o.noPII}
	root := newRoot(std, o)
	root.SetArgs(args)
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	nameTheShell(root)
	err := errors.Join(root.ExecuteContext(ctx), out.flush())
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(std.Err, "heed: %v\n\nRun with --help for the usage.\n", err)
		return exitUsage
	case errors.Is(err, errFailed):
		return exitFailed
	}
	fmt.Fprintf(std.Err, "heed: %v\n", err)
	return exitFailed
}

// nameTheShell makes an unknown shell wrong usage. The library's command for completions shows its help instead. It writes
// where the root does when it is made.
func nameTheShell(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.RunE = func(c *cobra.Command, args []string) error {
				if len(args) > 0 {
					return usageError{fmt.Errorf("%.20q: want bash, zsh, fish or powershell", args[0])}
				}
				return c.Help()
			}
			c.Args = cobra.ArbitraryArgs
		}
	}
}

// options are the flags that every command has.
type options struct {
	config    string
	logLevel  string
	logFormat string
	noPII     bool
	json      bool // of commands that have it, see withJSON
}

func newRoot(std stdio, o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "heed",
		Short: "Makes an SMS opt-out stick",
		Long: `heed makes an SMS opt-out stick. Somebody texts STOP: heed ticks the opt-out box of every matching CRM
record, refuses every send to that number from then on, and proves each night that the CRM, the SMS provider and its
own ledger agree.

Exit codes: 0 fine, 1 failed, 2 wrong usage. Results go to standard output, everything else to standard error: tables on
a terminal, tab-separated lines in a pipe, JSON with --json. NO_COLOR is honoured.

Completion of commands, flags, reports and keys: heed completion --help. Manual pages: heed man --help.`,
		Example: `  heed demo                     watch it work, without any account
  heed check -c heed.yaml       is everything set up?
  heed serve -c heed.yaml       run it`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVarP(&o.config, "config", "c", "heed.yaml", "configuration `FILE`")
	root.PersistentFlags().BoolVar(&o.noPII, "no-pii", false, "mask numbers, names and texts in the output, for a screen that others see")
	root.PersistentFlags().StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	root.PersistentFlags().StringVar(&o.logFormat, "log-format", "", "text or json (default: text on a terminal, else json)")
	root.AddCommand(demoCommand(std, o), sandboxCommand(std, o), serveCommand(std, o), checkCommand(std, o), classifyCommand(std, o),
		reconcileCommand(std, o), reportsCommand(std, o), historyCommand(std, o), explainCommand(std, o), holdsCommand(std, o), optOutsCommand(std, o), gateCommand(std, o), keysCommand(std, o), usersCommand(std, o), verifyCommand(std, o), healthcheckCommand(o), backupCommand(std, o), manCommand(std), versionCommand(std, o))
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError{withSuggestion(c, err)} })
	for _, c := range allCommands(root) {
		c.SuggestionsMinimumDistance = 2
		if c.Args == nil {
			c.Args = cobra.NoArgs
		}
		check := c.Args
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				err = named(c, args, err)
				if names := c.SuggestionsFor(append(args, "")[0]); len(args) > 0 && len(names) > 0 {
					err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(names, " or "))
				}
				return usageError{err}
			}
			return nil
		}
	}
	fixed := func(c *cobra.Command, flag string, values ...string) {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	fixed(root, "log-level", "debug", "info", "warn", "error")
	fixed(root, "log-format", "text", "json")
	return root
}

// named says which argument is missing, in the words of the usage line, or that there are too many. It repeats none of
// them: they may be telephone numbers.
func named(c *cobra.Command, args []string, err error) error {
	want := strings.Fields(c.Use)[1:]
	var needed []string
	for _, w := range want {
		if !strings.HasPrefix(w, "[") {
			needed = append(needed, strings.TrimSuffix(w, "..."))
		}
	}
	switch {
	case len(args) < len(needed):
		return errors.New("say the " + strings.Join(needed[len(args):], " and the "))
	case len(want) > 0 && len(args) > len(want):
		return fmt.Errorf("%d arguments, and only %s is wanted: put what has blanks in it in quotation marks", len(args), strings.Join(want, " "))
	}
	return err
}

// withSuggestion names the flag that was probably meant.
func withSuggestion(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 3 {
		return err
	}
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	if found := names.SuggestionsFor(unknown.GetSpecifiedName()); len(found) > 0 {
		return fmt.Errorf("%w; did you mean --%s?", err, strings.Join(found, " or --"))
	}
	return err
}

func allCommands(c *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		out = append(out, allCommands(sub)...)
	}
	return out
}

// logger returns the program's logger, on standard error. Numbers are masked where they are logged, by their type.
func (o *options) logger(std stdio) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level %q: want debug, info, warn or error", o.logLevel)}
	}
	format := o.logFormat
	if format == "" {
		format = "json"
		if _, ok := terminal(std.Err); ok {
			format = "text"
		}
	}
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(std.Err, opts)), nil
	case "text":
		return slog.New(slog.NewTextHandler(std.Err, opts)), nil
	}
	return nil, usageError{fmt.Errorf("--log-format %q: want text or json", o.logFormat)}
}

// version is set by the linker in a release (-X main.version=…); otherwise the build's own information serves.
var version string

// build is what a program was built from.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
		if v := info.Main.Version; b.Version == "" && v != "(devel)" {
			b.Version = v
		}
	}
	if b.Version == "" {
		b.Version = strings.TrimSpace("devel " + b.Revision[:min(12, len(b.Revision))])
		if b.Modified {
			b.Version += " (modified)"
		}
	}
	return b
}

func versionString() string { return thisBuild().Version }

func versionCommand(std stdio, o *options) *cobra.Command {
	return o.withJSON(&cobra.Command{
		Use:     "version",
		Short:   "Print the build",
		Example: "  heed version\n  heed version --json | jq -r .version",
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			return o.print(std, b, func() error {
				_, err := fmt.Fprintf(std.Out, "heed %s %s\n", b.Version, b.Go)
				return err
			})
		},
	})
}
