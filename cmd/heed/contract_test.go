package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/export"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/people"
)

// docs/json-output.md is the contract of --json. Two tests hold heed to it: the names of all fields, also of those that are
// seldom there, are in testdata/json-fields.txt; and the examples in the document are what a real run prints.
// HEED_UPDATE=1 writes both anew: fields may then have come, and the diff must show that none has gone.

const contractFile = "../../docs/json-output.md"

// printed is what each command prints with --json, as a type. What has no type of this program's own is checked by its
// example alone.
var printed = map[string]any{
	"heed version":        build{},
	"heed check":          []finding{},
	"heed reports list":   []ledger.Pass{},
	"heed history":        numberHistory{},
	"heed explain":        explanation{},
	"heed holds list":     []connector.Held{},
	"heed holds resolve":  consentResult{},
	"heed optouts list":   export.Row{},
	"heed optouts add":    consentResult{},
	"heed optouts import": bulkResult{},
	"heed gate check":     checkResult{},
	"heed keys list":      []connector.KeyInfo{},
	"heed keys add":       keyAdded{},
	"heed keys revoke":    keyRevoked{},
	"heed users list":     []people.Account{},
	"heed users invite":   invited{},
	"heed users role":     userChanged{},
	"heed verify":         verifyReport{},
	"heed backup":         backedUp{},
}

// fieldsOf returns the path of every field that encoding/json would write for a type.
func fieldsOf(t reflect.Type, path string) (out []string) {
	marshals := func(i reflect.Type) bool { return t.Implements(i) || reflect.PointerTo(t).Implements(i) }
	switch {
	case marshals(reflect.TypeFor[json.Marshaler]()), marshals(reflect.TypeFor[encoding.TextMarshaler]()):
		return []string{path}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return fieldsOf(t.Elem(), path)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return []string{path}
		}
		return fieldsOf(t.Elem(), path+"[]")
	case reflect.Map:
		return fieldsOf(t.Elem(), path+".*")
	case reflect.Struct:
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case name == "-" || !f.IsExported() && !f.Anonymous:
			case f.Anonymous && name == "":
				out = append(out, fieldsOf(f.Type, path)...)
			default:
				if name == "" {
					name = f.Name
				}
				out = append(out, fieldsOf(f.Type, path+"."+name)...)
			}
		}
		return out
	}
	return []string{path}
}

func TestNoFieldOfTheJSONOutputIsRenamedOrRemoved(t *testing.T) {
	var now []string
	for command, v := range printed {
		for _, f := range fieldsOf(reflect.TypeOf(v), "") {
			now = append(now, command+": "+strings.TrimPrefix(f, "."))
		}
	}
	slices.Sort(now)
	now = slices.Compact(now)
	const golden = "testdata/json-fields.txt"
	if os.Getenv("HEED_UPDATE") != "" {
		if err := os.WriteFile(golden, []byte(strings.Join(now, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	promised := strings.Fields(strings.ReplaceAll(string(b), " ", "\x00"))
	if len(promised) < 100 {
		t.Fatalf("%s has only %d fields", golden, len(promised))
	}
	for _, f := range promised {
		if f = strings.ReplaceAll(f, "\x00", " "); !slices.Contains(now, f) {
			t.Errorf("%s is promised in docs/json-output.md and is gone", f)
		}
	}
	for _, f := range now {
		if !slices.Contains(promised, strings.ReplaceAll(f, " ", "\x00")) {
			t.Logf("%s is new; HEED_UPDATE=1 makes it a promise", f)
		}
	}
}

// byName are objects whose keys are data, as paths.
var byName = regexp.MustCompile(`(^|\.)(counts|causes|results|prevented|blocked)$`)

// shapeOf returns the path and the type of everything in a document.
func shapeOf(v any, path string, into map[string]string) {
	switch x := v.(type) {
	case map[string]any:
		into[path] = "object"
		for k, v := range x {
			if byName.MatchString(path) {
				k = "*"
			}
			shapeOf(v, strings.TrimPrefix(path+"."+k, "."), into)
		}
	case []any:
		into[path] = "array"
		for _, v := range x {
			shapeOf(v, path+"[]", into)
		}
	case nil:
		if into[path] == "" {
			into[path] = "null"
		}
	default:
		into[path] = fmt.Sprintf("%T", v)
	}
}

// values reads one JSON document, or one a line.
func values(t *testing.T, text string) (out []any) {
	t.Helper()
	for dec := json.NewDecoder(strings.NewReader(text)); dec.More(); {
		var v any
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("no JSON: %v\n%s", err, text)
		}
		out = append(out, v)
	}
	return out
}

// shorten leaves out of lists what shows nothing new.
func shorten(v any, path string, seen map[string]string) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = shorten(x[k], path+"."+k, seen)
		}
	case []any:
		keep := []any{}
		for _, e := range x {
			before := len(seen)
			shapeOf(e, path+"[]", seen)
			if len(seen) > before || len(keep) == 0 {
				keep = append(keep, shorten(e, path+"[]", seen))
			}
		}
		return keep
	}
	return v
}

// The people of the story. Whatever they are called and have written must not be seen with --no-pii.
const (
	canaryStop   = "+12065550171" // texts STOP
	canaryHeld   = "+12065550172" // texts something unclear
	canaryListed = "+12065550173" // is in a list
	canaryAdded  = "+12065550174" // is opted out by hand
	canaryTicked = "+12065550177" // is ticked in the CRM
	canaryWords  = "please stop texting me, says Zinnia"
	canaryUnsure = "who gave you this number? I never signed up. Zinnia"
	canaryWhy    = "Zinnia asked at the phone"
	canaryPerson = "zinnia"
)

// told is one command of the story and what it printed.
type told struct {
	heading string // of the document; "" if it is not in it
	args    []string
	out     string
	err     string
}

// commandStory plays every command that lists, shows or changes something and returns what each printed. The flags are
// added to each; what changes nothing is run once more with each of the other sets.
func commandStory(t *testing.T, flags []string, others ...[]string) []told {
	t.Helper()
	w, cfg := newSandbox(t, 0)
	dir := t.TempDir()
	contact := w.org.Insert("Contact", map[string]any{"LastName": "Story", "MobilePhone": "206-555-0171"})
	ticked := w.org.Insert("Contact", map[string]any{"LastName": "Tick", "MobilePhone": "206-555-0177"})
	boss := w.org.AddUser("boss@example.com", "Zinnia", "Smith")
	quiet := strings.Replace(w.config(), `incremental: "@every 2s"`, `incremental: "@every 24h"`, 1) // the pass of the story is to find what is wrong
	if err := os.WriteFile(cfg, []byte(quiet), 0o600); err != nil || quiet == w.config() {
		t.Fatal("the configuration of the sandbox has changed; this test must follow", err)
	}
	p := startServe(t, w, cfg)
	w.firstPass(t)
	if code, m := w.post(t, w.publicURL()+"/v1/messages", w.apiKey, map[string]any{"to": canaryStop, "body": "Hello Zinnia", "campaign": "spring"}); code != http.StatusCreated || m["status"] != "sent" {
		t.Fatalf("the first send: %d %v", code, m)
	}
	w.texted(t, canaryStop, canaryWords)
	w.texted(t, canaryHeld, canaryUnsure)
	w.sends(t, canaryStop, "Hello again Zinnia")
	eventually(t, "the box is ticked", 10*time.Second, func() bool { return w.boxTicked("Contact", contact) })
	for id, box := range map[string]bool{contact: false, ticked: true} {
		if err := w.org.UpdateAs(boss, "Contact", id, map[string]any{"SMS_Opt_Out__c": box}); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	list := write("list.csv", "name,phone\nZinnia,"+canaryListed+"\nB,555\n")
	var out []told
	play := func(code int, heading string, args ...string) {
		t.Helper()
		all := append(append(slices.Clone(args), "-c", cfg, "--log-level", "error"), flags...)
		o, e, got := heed(t, "STOP\n"+canaryWords+"\n", all...)
		if got != code {
			t.Fatalf("heed %s: exit %d, want %d\n%s\n%s", strings.Join(all, " "), got, code, o, e)
		}
		out = append(out, told{heading, all, o, e})
	}
	look := func(code int, heading string, args ...string) {
		t.Helper()
		play(code, heading, args...)
		mine := flags
		for _, flags = range others {
			play(code, "", args...)
		}
		flags = mine
	}
	look(0, "heed version", "version")
	look(0, "heed check", "check")
	play(0, "heed reconcile", "reconcile", "--full")
	look(0, "heed reports list", "reports", "list")
	look(0, "heed reports show", "reports", "show")
	if len(others) > 0 { // --no-pii
		for _, format := range []string{"html", "csv"} {
			play(0, "", "reports", "show", "--format", format)
		}
	}
	look(0, "heed holds list", "holds", "list")
	look(0, "heed explain", "explain", canaryStop)
	look(0, "heed history", "history", canaryStop)
	play(0, "heed holds resolve", "holds", "resolve", canaryHeld, "--opt-out", "--why", canaryWhy)
	play(0, "heed optouts add", "optouts", "add", canaryAdded, "--why", canaryWhy)
	play(0, "", "optouts", "add", "+12065550175", "+12065550176", "--yes", "--why", canaryWhy)
	play(1, "heed optouts import", "optouts", "import", list, "--yes", "--why", canaryWhy)
	look(1, "", "optouts", "import", list, "--dry-run")
	look(0, "heed optouts list", "optouts", "list")
	for _, n := range []string{canaryAdded, canaryHeld, canaryTicked} {
		look(0, "", "history", n)
		look(0, "", "explain", n)
	}
	if len(others) > 0 {
		play(0, "", "optouts", "export")
		play(0, "", "optouts", "export", "--format", "json")
		play(0, "", "classify")
	}
	play(0, "", "optouts", "remove", canaryAdded, "--why", canaryWhy)
	play(0, "heed gate check", "gate", "check", list, "--allowed", filepath.Join(dir, "allowed.csv"), "--blocked", filepath.Join(dir, "blocked.csv"))
	play(0, "heed keys add", "keys", "add", "nightly-job", "--may", "read", "--why", canaryWhy)
	look(0, "heed keys list", "keys", "list")
	play(0, "heed keys revoke", "keys", "revoke", "nightly-job", "--why", canaryWhy)
	play(0, "heed users invite", "users", "invite", canaryPerson, "--role", "viewer", "--why", canaryWhy)
	accept(t, regexp.MustCompile(`http://[^"\s]+`).FindString(out[len(out)-1].out))
	play(0, "heed users role", "users", "role", canaryPerson, "operator", "--why", canaryWhy)
	look(0, "heed users list", "users", "list")
	play(0, "", "users", "remove", canaryPerson, "--why", canaryWhy)
	look(0, "heed verify", "verify")
	play(0, "heed backup", "backup", filepath.Join(dir, "heed.tar"))
	p.stop(t)
	return out
}

// accept chooses a password at the link of an invitation.
func accept(t *testing.T, link string) {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil || u.Query().Get("token") == "" {
		t.Fatalf("the link is %q, %v", link, err)
	}
	const password = "a few words in a row"
	form := url.Values{"token": {u.Query().Get("token")}, "password": {password}, "again": {password}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+u.Host+u.Path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		t.Fatalf("the password was not taken: HTTP %d", resp.StatusCode)
	}
}

var sections = regexp.MustCompile("(?s)\n## `(heed [a-z ]+)`\n(.*?)\n```json\n(.*?)```\n")

func TestTheDocumentShowsWhatARealRunPrints(t *testing.T) {
	text, err := os.ReadFile(contractFile)
	if err != nil {
		t.Fatal(err)
	}
	story := commandStory(t, []string{"--json"})
	documented := map[string]string{}
	for _, m := range sections.FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = m[3]
	}
	all := ""
	for _, x := range story {
		all += x.out
		if x.heading == "" {
			continue
		}
		now, seen := map[string]string{}, map[string]string{}
		var examples []any
		for _, v := range values(t, x.out) {
			shapeOf(v, "", now)
			if before := len(seen); len(examples) == 0 || before < len(seen) {
				examples = append(examples, shorten(v, "", seen))
			}
		}
		if os.Getenv("HEED_UPDATE") != "" {
			var b strings.Builder
			for _, v := range examples {
				if err := printJSON(&b, v); err != nil {
					t.Fatal(err)
				}
			}
			at := strings.Index(string(text), "\n## `"+x.heading+"`\n")
			if at < 0 {
				t.Fatalf("%s has no section on %s", contractFile, x.heading)
			}
			from := at + strings.Index(string(text[at:]), "```json\n") + len("```json\n")
			to := from + strings.Index(string(text[from:]), "```")
			text = slices.Concat(text[:from], []byte(scrub.Replace(b.String())), text[to:])
			continue
		}
		example, ok := documented[x.heading]
		if !ok {
			t.Errorf("%s has no section on %s", contractFile, x.heading)
			continue
		}
		promised := map[string]string{}
		for _, v := range values(t, example) {
			shapeOf(v, "", promised)
		}
		for path, kind := range promised {
			if now[path] != kind && kind != "null" && now[path] != "null" {
				t.Errorf("%s: %q is promised as %s and is %q", x.heading, path, kind, now[path])
			}
		}
	}
	if os.Getenv("HEED_UPDATE") != "" {
		if err := os.WriteFile(contractFile, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, canary := range []string{canaryStop, canaryHeld, canaryListed, canaryAdded, "says Zinnia", "up. Zinnia", "Zinnia asked", "Zinnia Smith", `"zinnia"`} {
		if !strings.Contains(all, canary) {
			t.Errorf("%q is in no output: the test of --no-pii shows nothing", canary)
		}
	}
}

// scrub takes out of the examples what looks like a secret.
var scrub = secretScrubber{}

type secretScrubber struct{}

var (
	secretField = regexp.MustCompile(`("(?:key|link|raw|signature|signer)": )"[^"]*"`)
	tempDir     = regexp.MustCompile(`"[^"]*/([^/"]+\.(?:csv|tar|yaml))"`)
)

func (secretScrubber) Replace(s string) string {
	return tempDir.ReplaceAllString(secretField.ReplaceAllString(s, `$1"…"`), `"$1"`)
}

// With --no-pii nobody who looks at the screen learns who is in the list, what they wrote, or who works here.
func TestWithNoPIINothingPersonalIsPrinted(t *testing.T) {
	for _, x := range commandStory(t, []string{"--no-pii"}, []string{"--no-pii", "--json"}) {
		for _, canary := range []string{"innia", canaryStop[1:], canaryHeld[1:], canaryListed[1:], canaryAdded[1:], "2065550171", "206555017"} {
			for _, printed := range []string{x.out, x.err} {
				if at := strings.Index(printed, canary); at >= 0 {
					t.Errorf("heed %s prints %q: …%s…", strings.Join(x.args, " "), canary, printed[max(0, at-60):min(len(printed), at+60)])
				}
			}
		}
		if slices.Contains(x.args, "--json") {
			values(t, x.out) // masked, and JSON still
		}
	}
	for _, args := range [][]string{{"optouts", "export", "--format", "xlsx"}, {"optouts", "export", "--output", "x.csv"}, {"backup", "-"}, {"gate", "check", "x.csv"}} {
		if out, errOut, code := heed(t, "", append(args, "--no-pii")...); code != exitUsage || out != "" || errOut == "" {
			t.Errorf("heed %v, which cannot be masked: exit %d, %q", args, code, errOut)
		}
	}
}

func TestNumbersAreMaskedHoweverTheyAreWrittenAndCutInPieces(t *testing.T) {
	on := true
	var b bytes.Buffer
	m := &masker{w: &b, on: &on, line: true}
	for _, piece := range []string{"to +1415", "5550142 and\n%2B14155550142 \\u002b14155550142 &#43;14155550142 ", "ann@exam", "ple.com\n", "+1415555", "0199"} {
		if _, err := m.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.flush(); err != nil {
		t.Fatal(err)
	}
	want := "to +1••••••0142 and\n%2B1••••••0142 \\u002b1••••••0142 &#43;1••••••0142 a•••\n+1••••••0199"
	if b.String() != want {
		t.Errorf("masked: %q, want %q", b.String(), want)
	}
	on = false
	b.Reset()
	if _, _ = m.Write([]byte("+14155550142")); b.String() != "+14155550142" {
		t.Errorf("not asked to mask: %q", b.String())
	}
}
