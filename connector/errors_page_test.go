package connector

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// section returns the part of docs/errors.md below a heading.
func errorsSection(t *testing.T, heading string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/errors.md has no section %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

// firstCells returns the words in code of the first column of a section's table.
func firstCells(section string) map[string]bool {
	words := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z:_-]+)` \\|").FindAllStringSubmatch(section, -1) {
		words[row[1]] = true
	}
	return words
}

func sameWords(t *testing.T, what string, source, page map[string]bool) {
	t.Helper()
	if len(source) < 5 {
		t.Fatalf("only %d %s were found in the source: %v", len(source), what, source)
	}
	for _, w := range slices.Sorted(maps.Keys(source)) {
		if !page[w] {
			t.Errorf("%q is one of the %s and not in docs/errors.md", w, what)
		}
	}
	for _, w := range slices.Sorted(maps.Keys(page)) {
		if !source[w] {
			t.Errorf("docs/errors.md has %q, which is none of the %s", w, what)
		}
	}
}

func goFiles(t *testing.T, dir string) []*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

func literal(e ast.Expr) string {
	if b, ok := e.(*ast.BasicLit); ok {
		s, _ := strconv.Unquote(b.Value)
		return s
	}
	return ""
}

func TestEveryProblemIsOnThePage(t *testing.T) {
	types := map[string]bool{}
	for _, f := range goFiles(t, ".") {
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			for _, e := range c.Elts { // of Problem{Type: …, Status: …}, in the table without its name
				if kv, ok := e.(*ast.KeyValueExpr); ok {
					if key, ok := kv.Key.(*ast.Ident); ok && key.Name == "Type" && literal(kv.Value) != "" {
						types[literal(kv.Value)] = true
					}
				}
			}
			return true
		})
	}
	for _, row := range problems {
		if !types[row.problem.Type] {
			t.Errorf("this test does not see the type %q in the source", row.problem.Type)
		}
	}
	sameWords(t, "types of problem", types, firstCells(errorsSection(t, "The HTTP API")))
}

// constants returns the words of a string type's constants.
func constants(t *testing.T, dir, typ string) map[string]bool {
	words := map[string]bool{}
	for _, f := range goFiles(t, dir) {
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok {
				if id, ok := v.Type.(*ast.Ident); ok && id.Name == typ {
					for _, x := range v.Values {
						words[literal(x)] = true
					}
				}
			}
			return true
		})
	}
	return words
}

func TestEveryReasonAndStatusIsOnThePage(t *testing.T) {
	sameWords(t, "reasons of the gate", constants(t, "consent", "Reason"), firstCells(errorsSection(t, "Why the gate refused")))
	sameWords(t, "statuses of a message", constants(t, "ledger", "Status"), firstCells(errorsSection(t, "What became of a send")))
	sameWords(t, "classes of a provider's failure", constants(t, "../sms", "Class"), firstCells(errorsSection(t, "What the provider says")))
}
