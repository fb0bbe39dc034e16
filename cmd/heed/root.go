package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// stdio is where a command reads and writes. Data goes to Out, everything else to Err.
type stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// terminal reports whether w is one, and how wide. Only a terminal gets tables, colours and progress bars.
func terminal(w io.Writer) (width int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	return width, true
}

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
	root := newRoot(std)
	root.SetArgs(args)
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	err := root.ExecuteContext(ctx)
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

// options are the flags that every command has.
type options struct {
	config    string
	logLevel  string
	logFormat string
}

func newRoot(std stdio) *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "heed",
		Short: "Makes an SMS opt-out stick",
		Long: `heed makes an SMS opt-out stick. Somebody texts STOP: heed ticks the opt-out box of every matching CRM
record, refuses every send to that number from then on, and proves each night that the CRM, the SMS provider and its
own ledger agree.

Exit codes: 0 fine, 1 failed, 2 wrong usage.`,
		Example: `  heed demo                     watch it work, without any account
  heed check -c heed.yaml       is everything set up?
  heed serve -c heed.yaml       run it`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVarP(&o.config, "config", "c", "heed.yaml", "configuration `FILE`")
	root.PersistentFlags().StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	root.PersistentFlags().StringVar(&o.logFormat, "log-format", "", "text or json (default: text on a terminal, else json)")
	root.AddCommand(demoCommand(std, o), sandboxCommand(std, o), serveCommand(std, o), checkCommand(std, o), classifyCommand(std, o),
		reconcileCommand(std, o), reportsCommand(std, o), historyCommand(std, o), explainCommand(std, o), holdsCommand(std, o), optOutsCommand(std, o), gateCommand(std, o), keysCommand(std, o), usersCommand(std, o), verifyCommand(std, o), healthcheckCommand(o), backupCommand(std, o), versionCommand(std))
	asUsage := func(_ *cobra.Command, err error) error { return usageError{err} }
	root.SetFlagErrorFunc(asUsage)
	for _, c := range allCommands(root) {
		if c.Args == nil {
			c.Args = cobra.NoArgs
		}
		check := c.Args
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	return root
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

func versionString() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, revision, dirty := info.Main.Version, "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			revision = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " (modified)"
		}
	}
	if v == "" || v == "(devel)" {
		return strings.TrimSpace("devel " + revision + dirty)
	}
	return v
}

func versionCommand(std stdio) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the build",
		Example: "  heed version",
		RunE: func(*cobra.Command, []string) error {
			goVersion := "go"
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
			}
			_, err := fmt.Fprintf(std.Out, "heed %s %s\n", versionString(), goVersion)
			return err
		},
	}
}
