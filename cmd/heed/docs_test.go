package main

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/config"
)

// The documentation is compared with the program: a page that sends its reader to a place or a command that does not
// exist is worse than none.

// page is a Markdown file.
type page struct {
	path string // from the repository's root
	text string
}

// documentation returns README.md, what is below docs, and every other README that they may lead to.
func documentation(t *testing.T) []page {
	t.Helper()
	var pages []page
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "node_modules" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel("../..", path)
			pages = append(pages, page{filepath.ToSlash(rel), string(b)})
		}
		return nil
	})
	if err != nil || len(pages) < 15 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	return pages
}

var fence = regexp.MustCompile("(?ms)^[ \t]*```([a-z]*)\n(.*?)^[ \t]*```")

// prose is the page without its blocks of code.
func (p page) prose() string { return fence.ReplaceAllString(p.text, "") }

// anchors are the names of a page's headings, as GitHub makes them.
func (p page) anchors() map[string]bool {
	names := map[string]bool{}
	for _, h := range regexp.MustCompile(`(?m)^#+ +(.+)$`).FindAllStringSubmatch(p.prose(), -1) {
		title := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(h[1], "$1")
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(title))
		names[name] = true
	}
	return names
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// elsewhere are pages that are being written beside this test; a link to one may come before it.
var elsewhere = []string{"docs/evidence.md", "docs/json-output.md"}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	pages := documentation(t)
	byPath := map[string]page{}
	for _, p := range pages {
		byPath[p.path] = p
	}
	links := 0
	for _, p := range pages {
		for _, m := range link.FindAllStringSubmatch(p.prose(), -1) {
			target := m[1]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			file, anchor, hasAnchor := strings.Cut(target, "#")
			at := p.path
			if file != "" {
				at = filepath.ToSlash(filepath.Join(filepath.Dir(p.path), file))
			}
			if _, err := os.Stat(filepath.Join("../..", at)); err != nil {
				if !slices.Contains(elsewhere, at) {
					t.Errorf("%s links to %s, which is not there", p.path, target)
				}
				continue
			}
			if to, isPage := byPath[at]; hasAnchor && (!isPage || !to.anchors()[anchor]) {
				t.Errorf("%s links to %s, and %s has no heading of that name", p.path, target, at)
			}
		}
	}
	if links < 100 {
		t.Errorf("only %d links were found", links)
	}
}

// shown matches a command of heed's in a block or in code within a line: after the beginning, a pipe, a prompt or sudo.
var shown = regexp.MustCompile(`(?:^|[|;&(] *|\$\( *|then +|sudo -u heed +|docker exec heed +/|(?:[*0-9]+ +){5}heed +|run )\.?/?(?:\./cmd/)?heed( [^ |;&)][^|;&)]*|$)`)

// inner is a command within a command, such as a date in a file's name.
var inner = regexp.MustCompile(`\$\([^)]*\)`)

// commandLines returns the heed commands that a page shows.
func (p page) commandLines() []string {
	var lines []string
	add := func(code string) {
		code = inner.ReplaceAllString(code, "X")
		for _, l := range strings.Split(code, "\n") {
			for _, m := range shown.FindAllStringSubmatch(strings.TrimSpace(l), -1) {
				lines = append(lines, strings.TrimSpace(m[1]))
			}
		}
	}
	for _, m := range fence.FindAllStringSubmatch(p.text, -1) {
		if m[1] == "" || m[1] == "sh" {
			add(strings.ReplaceAll(m[2], "\\\n", " "))
		}
	}
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(p.prose(), -1) {
		add(m[1])
	}
	return lines
}

// words splits a command line as a shell does, as far as the pages need it: quotes, and an end at a comment or redirection.
func words(line string) (out []string) {
	var cur strings.Builder
	var quote rune
	in := false
	flush := func() {
		if in {
			out = append(out, cur.String())
		}
		cur.Reset()
		in = false
	}
	for i, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			cur.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == ' ':
			flush()
		case !in && (r == '#' || r == '<' || r == '>') || !in && strings.HasPrefix(line[i:], "2>"):
			return out
		default:
			cur.WriteRune(r)
			in = true
		}
	}
	flush()
	return out
}

func TestEveryCommandOfThePagesExists(t *testing.T) {
	found := map[string]bool{}
	for _, p := range documentation(t) {
		for _, line := range p.commandLines() {
			root := newRoot(stdio{strings.NewReader(""), io.Discard, io.Discard}, new(options))
			root.InitDefaultHelpCmd()
			root.InitDefaultCompletionCmd()
			args := words(line)
			c, rest, err := root.Find(args)
			if err != nil {
				t.Errorf("%s: heed %s: %v", p.path, line, err)
				continue
			}
			if c == root && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				t.Errorf("%s: heed %s: no such command", p.path, line)
				continue
			}
			c.InitDefaultHelpFlag()
			if err := c.ParseFlags(rest); err != nil {
				t.Errorf("%s: heed %s: %v", p.path, line, err)
				continue
			}
			// In running text a command is often named without its arguments: then only its flags are judged.
			if given := c.Flags().Args(); len(given) > 0 && !c.HasSubCommands() {
				if err := c.Args(c, given); err != nil {
					t.Errorf("%s: heed %s: %v", p.path, line, err)
				}
			}
			found[c.CommandPath()] = true
		}
	}
	if len(found) < 15 {
		t.Errorf("only these commands were found: %v", found)
	}
	// And the other way: each command has a place where a reader meets it.
	for _, c := range allCommands(newRoot(stdio{strings.NewReader(""), io.Discard, io.Discard}, new(options))) {
		if c.Runnable() && !c.HasSubCommands() && !found[c.CommandPath()] && !c.Hidden {
			t.Errorf("no page shows %s", c.CommandPath())
		}
	}
}

// A flag that the pages name in running text, in code of its own, belongs to some command.
func TestEveryFlagOfThePagesExists(t *testing.T) {
	commands := allCommands(newRoot(stdio{strings.NewReader(""), io.Discard, io.Discard}, new(options)))
	known := func(flag string) bool {
		return flag == "help" || slices.ContainsFunc(commands, func(c *cobra.Command) bool {
			return c.Flags().Lookup(flag) != nil || c.PersistentFlags().Lookup(flag) != nil
		})
	}
	for _, p := range documentation(t) {
		if !strings.HasPrefix(p.path, "docs/") && p.path != "README.md" {
			continue // the READMEs of drivers speak of the vendors' own programs too
		}
		for _, m := range regexp.MustCompile("`--([a-z-]+)[^`]*`").FindAllStringSubmatch(p.prose(), -1) {
			if !known(m[1]) {
				t.Errorf("%s names --%s, which no command has", p.path, m[1])
			}
		}
	}
}

// A YAML block that is a whole configuration loads. What stands for a secret or an id of the reader's own is filled in.
func TestEveryConfigurationOfThePagesLoads(t *testing.T) {
	t.Setenv("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef")
	t.Setenv("SF_CLIENT_SECRET", "secret")
	whole := 0
	for _, p := range documentation(t) {
		for _, m := range fence.FindAllStringSubmatch(p.text, -1) {
			if m[1] != "yaml" || !regexp.MustCompile(`(?m)^ *public:`).MatchString(m[2]) || !regexp.MustCompile(`(?m)^ *sms:`).MatchString(m[2]) {
				continue
			}
			whole++
			dir := t.TempDir()
			text := strings.ReplaceAll(dedent(m[2]), `sha256: "…"`, "sha256: "+strings.Repeat("0a", 32))
			text = regexp.MustCompile(`(_file: )(\S+)`).ReplaceAllStringFunc(text, func(s string) string {
				key, path, _ := strings.Cut(s, " ")
				secret := filepath.Join(dir, filepath.Base(path))
				if err := os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return key + " " + secret
			})
			file := filepath.Join(dir, "heed.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, problems := config.Load(file); len(problems) > 0 {
				t.Errorf("a configuration in %s: %v", p.path, problems)
			}
		}
	}
	if whole < 2 {
		t.Errorf("only %d whole configurations were found", whole)
	}
}

// dedent takes away what the first line is indented by: blocks within lists are.
func dedent(s string) string {
	first := strings.TrimLeft(s, "\n")
	indent := first[:len(first)-len(strings.TrimLeft(first, " "))]
	return strings.ReplaceAll("\n"+s, "\n"+indent, "\n")
}
