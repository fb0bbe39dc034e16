package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The repository's rules that a compiler does not know. Each says why it is one.

const module = "github.com/heed-sms/heed/"

// mayImport says which of heed's own packages each package may import, outside its tests. Arrows point inwards:
// drivers know their contract and nothing of the house; the house knows contracts and no driver.
var mayImport = map[string][]string{
	"sms/phone":         {},
	"sms":               {},
	"crm":               {},
	"connector/consent": {},
	"connector/reply":   {},
	"config":            {},

	"sms/smstest":                   {"sms", "sms/phone"},
	"sms/twilio":                    {"sms", "sms/phone"},
	"sms/twilio/twiliofake":         {},
	"crm/crmtest":                   {"crm", "sms/phone"},
	"crm/salesforce":                {"crm", "sms/phone"},
	"crm/salesforce/salesforcefake": {},
	"connector/ledger":              {"connector/consent", "connector/ledger/chain", "connector/reply", "crm", "sms", "sms/phone"},
	"connector/ledger/chain":        {},
	"connector/ledger/journal":      {"connector/ledger/chain"},
	"connector/ledger/local":        {"connector/ledger", "connector/ledger/chain", "connector/ledger/journal", "connector/consent", "crm", "sms/phone"},
	"connector/ledger/ledgertest":   {"connector/ledger", "connector/ledger/chain", "connector/consent", "connector/reply", "crm", "sms/phone"},
	"connector":                     {"connector/confirm", "connector/consent", "connector/export", "connector/ledger", "connector/openapi", "connector/reply", "crm", "sms", "sms/phone"},
	"sync/reconcile":                {"connector/consent", "connector/export", "connector/ledger", "connector/reply", "crm", "sms", "sms/phone"},
	"sync/schedule":                 {},
	"connector/confirm":             {"connector/reply", "sms/phone"},
	"crm/salesforce/outbound":       {},
	"connector/dropin":              {"connector", "connector/confirm", "connector/consent", "connector/ledger", "sms/phone"},
	"connector/openapi":             {},
	"connector/hooks":               {"connector", "connector/ledger", "crm", "crm/salesforce/outbound"},
	"connector/people":              {"connector/ledger"},
	"connector/export":              {"connector/consent", "connector/ledger", "sms/phone"},
	"connector/evidence":            {"connector/consent", "connector/ledger", "connector/ledger/chain", "sms/phone"},
	"connector/admin":               {"connector", "connector/consent", "connector/export", "connector/ledger", "connector/people", "connector/reply", "crm", "sms/phone"},
	"sync/deliver":                  {"connector", "connector/ledger"},
	"cmd/heed":                      nil, // the wiring: everything
}

// onlyIn says which foreign packages belong to one place, so that exchanging them changes one place.
var onlyIn = map[string][]string{
	"go.etcd.io/bbolt":                       {"connector/ledger/local"},
	"github.com/k-capehart/go-salesforce/v2": {"crm/salesforce", "crm/salesforce/salesforcefake"},
	"github.com/robfig/cron/v3":              {"sync/schedule", "config", "cmd/heed"},
	"github.com/prometheus/client_golang/":   {"connector"},
	"github.com/spf13/cobra":                 {"cmd/heed"},
	"github.com/spf13/pflag":                 {"cmd/heed"},
	"github.com/xuri/excelize/v2":            {"connector/export"},
	"testing":                                {"sms/smstest", "crm/crmtest", "connector/ledger/ledgertest"},
}

type goFile struct {
	dir, path string // from the repository's root
	test      bool
	ast       *ast.File
	text      string
}

func repository(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	fset := token.NewFileSet()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != "../.." && len(d.Name()) > 2 || d.Name() == "testdata" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, path, b, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("../..", path)
		if err != nil {
			return err
		}
		files = append(files, goFile{filepath.ToSlash(filepath.Dir(rel)), rel, strings.HasSuffix(path, "_test.go"), f, string(b)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("found only %d Go files: the walk is wrong", len(files))
	}
	return files
}

func imports(f goFile) []string {
	var out []string
	for _, i := range f.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		out = append(out, p)
	}
	return out
}

func TestPackagesImportOnlyWhatTheArchitectureAllows(t *testing.T) {
	for _, f := range repository(t) {
		if f.test {
			continue
		}
		allowed, listed := mayImport[f.dir]
		if !listed {
			t.Errorf("%s: package %s is not in mayImport; say there what it may know", f.path, f.dir)
			continue
		}
		for _, p := range imports(f) {
			own, isOwn := strings.CutPrefix(p, module)
			if isOwn && allowed != nil && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s: %s may import %v", f.path, own, f.dir, allowed)
			}
			if strings.HasSuffix(f.dir, "fake") && strings.Contains(strings.Split(p, "/")[0], ".") {
				t.Errorf("%s imports %s: an emulator is written from the vendor's documentation on the standard library alone, so that it catches the driver's misreadings", f.path, p)
			}
			for foreign, dirs := range onlyIn {
				if (p == foreign || strings.HasSuffix(foreign, "/") && strings.HasPrefix(p, foreign)) && !slices.Contains(dirs, f.dir) {
					t.Errorf("%s imports %s, which belongs to %v only", f.path, p, dirs)
				}
			}
		}
	}
}

// The container image has no zone database, and without one the nightly pass would follow the wrong clock or not start.
func TestTheZoneDatabaseIsPartOfTheBinary(t *testing.T) {
	for _, f := range repository(t) {
		if f.dir == "config" && !f.test && slices.Contains(imports(f), "time/tzdata") {
			return
		}
	}
	t.Error("config does not import time/tzdata: schedule.timezone must load everywhere")
}

func TestEachPackageIsDocumentedOnce(t *testing.T) {
	docs := map[string]int{}
	for _, f := range repository(t) {
		if f.test {
			continue
		}
		if _, ok := docs[f.dir]; !ok {
			docs[f.dir] = 0
		}
		if f.ast.Doc != nil {
			docs[f.dir]++
			if first := f.ast.Doc.Text(); f.ast.Name.Name != "main" && !strings.HasPrefix(first, "Package "+f.ast.Name.Name+" ") {
				t.Errorf("%s: the package comment must begin with %q", f.path, "Package "+f.ast.Name.Name)
			}
		}
	}
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("package %s has %d package comments, want one", dir, n)
		}
	}
}

func TestEachDriverFolderIsListed(t *testing.T) {
	for parent, table := range map[string][]string{"sms": keys(providers), "crm": keys(crms)} {
		entries, err := os.ReadDir("../../" + parent)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() && e.Name() != "phone" && e.Name() != parent+"test" && !slices.Contains(table, e.Name()) {
				t.Errorf("%s/%s is in no table of cmd/heed/drivers.go", parent, e.Name())
			}
		}
	}
}

func keys[T any](m map[string]T) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

func TestTheTopLevelIsAsDrawn(t *testing.T) {
	for _, f := range repository(t) {
		if top, _, _ := strings.Cut(f.dir, "/"); !slices.Contains([]string{"cmd", "connector", "crm", "sms", "sync", "config"}, top) {
			t.Errorf("%s: Go code stands only below cmd, connector, crm, sms, sync and config", f.path)
		}
		if f.dir == "sync" {
			t.Errorf("%s: sync is a namespace without Go files, so that the standard library's sync is never shadowed", f.path)
		}
	}
}

func TestNoTestSleepsAndNothingIsLeftForLater(t *testing.T) {
	for _, f := range repository(t) {
		if f.test && strings.Contains(f.text, "time."+"Sleep(") && !strings.Contains(f.text, "synctest") {
			t.Errorf("%s sleeps: wait for a signal, or use testing/synctest", f.path)
		}
		for _, mark := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"} {
			for _, g := range f.ast.Comments {
				if strings.Contains(g.Text(), mark) {
					t.Errorf("%s: a comment says %s", f.path, mark)
				}
			}
		}
	}
}
