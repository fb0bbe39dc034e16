package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite testdata/bad/*/want.txt")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// canary is a secret; wherever it shows up, something leaks.
const canary = `cAnArY"7f3: #{secret}`

// The configurations of two drivers, written as drivers write them: without this package.
type smsDriver struct {
	AccountSID string        `yaml:"account_sid"`
	AuthToken  string        `yaml:"auth_token"`
	From       string        `yaml:"from"`
	Timeout    time.Duration `yaml:"timeout"`
	Retries    *int          `yaml:"retries"`
	Ratio      float64       `yaml:"ratio"`
	Burst      uint8         `yaml:"burst"`
	Verify     bool          `yaml:"verify"`
	Labels     map[string]string
	PrivateKey Secret `yaml:"private_key"`
	Pool       struct {
		SID string `yaml:"pool_sid"`
	} `yaml:",inline"`
	internal string
	Ignored  string `yaml:"-"`
}

type crmDriver struct {
	ClientSecret string      `yaml:"client_secret"`
	Objects      []crmObject `yaml:"objects"`
}

type crmObject struct {
	Object string   `yaml:"object"`
	Phones []string `yaml:"phones"`
	OptOut crmField `yaml:"opt_out"`
}

type crmField struct {
	Field    string `yaml:"field"`
	Inverted bool   `yaml:"inverted"`
}

func (f *crmField) UnmarshalYAML(decode func(any) error) error {
	if decode(&f.Field) == nil {
		return nil
	}
	type plain crmField
	return decode((*plain)(f))
}

// decodeDrivers does what the command does with the sections.
func decodeDrivers(c *Config) Problems {
	var ps Problems
	for _, a := range c.SMS {
		var d smsDriver
		ps = append(ps, a.Decode(&d)...)
		if d.AccountSID != "" && !strings.HasPrefix(d.AccountSID, "AC") {
			ps = append(ps, a.Problem("account_sid", "does not begin with AC", "copy it from the console"))
		}
	}
	for _, s := range c.CRM {
		var d crmDriver
		ps = append(ps, s.Decode(&d)...)
		if len(d.Objects) == 0 {
			ps = append(ps, s.Problem("objects", "is required", ""))
		}
	}
	return ps
}

func environment(k string) (string, bool) {
	v, ok := map[string]string{
		"TOKEN": canary, "EMPTY": "", "SHORT": "x1", "YES": "true", "PORT": "9090",
		"TOKEN2": "cAnArY-7f3-for-URLs",
	}[k]
	return v, ok
}

func TestEveryMistakeIsReportedWithItsPlaceAndAHint(t *testing.T) {
	dirs, err := filepath.Glob("testdata/bad/*")
	if err != nil || len(dirs) < 25 {
		t.Fatalf("%d cases, %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, "heed.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			c, ps := Parse("heed.yaml", data, environment, func(name string) ([]byte, error) {
				return os.ReadFile(filepath.Join(dir, name))
			})
			if c != nil {
				ps = append(ps, decodeDrivers(c)...)
				ps.Sort()
			}
			got := ps.Error() + "\n"
			if len(ps) == 0 {
				t.Fatal("nothing was found")
			}
			if warning := strings.HasSuffix(dir, "-is-a-warning"); warning != (ps.Err() == nil) {
				t.Errorf("Err() = %v", ps.Err())
			}
			for _, p := range ps {
				if p.File != "heed.yaml" || p.Reason == "" || p.Severity == "" {
					t.Errorf("incomplete: %#v", p)
				}
			}
			if strings.Contains(got, "hunter2") || strings.Contains(got, "cAnArY") {
				t.Errorf("a secret shows:\n%s", got)
			}
			golden := filepath.Join(dir, "want.txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got (rewrite with -update):\n%s", diff)
			}
		})
	}
}

func exampleEnv(k string) (string, bool) {
	return "a-secret-of-" + k, slices.Contains([]string{"TWILIO_AUTH_TOKEN", "SF_CLIENT_SECRET", "HEED_OUTBOUND_HOOK", "HEED_OIDC_SECRET", "HEED_MAIL_PASSWORD", "HEED_REPORT_SECRET"}, k)
}

func TestTheExampleLoadsWithoutAProblem(t *testing.T) {
	c, ps := Parse("/etc/heed/heed.yaml", Example, exampleEnv, nil)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	if got, want := c.DataDir, "/etc/heed/heed-data"; got != want {
		t.Errorf("DataDir = %q, want %q", got, want)
	}
	if got := c.OutboundMessages[0].Hook.Reveal(); got != "a-secret-of-HEED_OUTBOUND_HOOK" {
		t.Errorf("hook = %q", got)
	}
	if got := c.Schedule.Location().String(); got != "America/New_York" {
		t.Errorf("location = %q", got)
	}
	if !c.Keys[0].Allows(MaySend) || c.Keys[0].Allows(MayAdmin) {
		t.Errorf("may = %v", c.Keys[0].May)
	}
	a := c.SMS[0]
	if a.Name != "twilio" || a.Type != "twilio" || a.Replies != RepliesProvider || a.String() != "sms[0]" {
		t.Errorf("account = %v %q %q", a, a.Type, a.Replies)
	}
	var d smsDriver
	if ps := a.Decode(&d); len(ps) > 0 || d.AuthToken != "a-secret-of-TWILIO_AUTH_TOKEN" || d.From != "+15550100000" {
		t.Errorf("driver = %+v, %v", d, ps)
	}
}

func TestEveryKeyIsInTheExample(t *testing.T) {
	var tree any
	if err := yaml.Unmarshal(Example, &tree); err != nil {
		t.Fatal(err)
	}
	var check func(typ reflect.Type, v any, path string)
	check = func(typ reflect.Type, v any, path string) {
		switch {
		case typ == reflect.TypeFor[Account](), typ == reflect.TypeFor[Section]():
			keys := []string{"name", "type"}
			if typ == reflect.TypeFor[Account]() {
				keys = []string{"name", "provider", "replies"}
			}
			for _, k := range keys {
				if _, ok := v.(map[string]any)[k]; !ok {
					t.Errorf("%s.%s is not in the example", path, k)
				}
			}
		case typ.Kind() == reflect.Slice:
			items, _ := v.([]any)
			if len(items) == 0 {
				t.Errorf("%s is not in the example", path)
				return
			}
			check(typ.Elem(), items[0], path+"[0]")
		case typ.Kind() == reflect.Struct && len(orderedFields(typ)) > 0 && typ != reflect.TypeFor[Period]():
			m, _ := v.(map[string]any)
			for _, f := range orderedFields(typ) {
				item, ok := m[f.Name]
				if !ok {
					t.Errorf("%s.%s is not in the example", path, f.Name)
					continue
				}
				check(f.Type, item, path+"."+f.Name)
			}
		}
	}
	check(reflect.TypeFor[Config](), tree, "")
}

// The example says what the defaults are; this keeps it honest.
func TestTheExampleTellsTheDefaults(t *testing.T) {
	c, _ := Parse("heed.yaml", []byte("{}"), nil, nil)
	for _, line := range []string{
		"Default: " + string(c.Mode) + ".",
		`Default: "` + c.Public.Listen + `".`,
		"Default: " + c.Admin.Listen + ".",
		"Default: ./" + c.DataDir + ".",
		fmt.Sprintf("Default: %d.\n  per_key: ", c.Limits.PerKey),
		fmt.Sprintf("Default: %d.\n  per_account: ", c.Limits.PerAccount),
		"Default: 72h.\n  window: ",
		"Default: " + c.Consent.DefaultRegion + ".",
		"Default: " + c.Consent.HoldFor.String() + ".",
		`Default: "` + c.Schedule.Incremental + `".`,
		`Default: "` + c.Schedule.Nightly + `".`,
		"Default: " + c.Schedule.Timezone + ".",
	} {
		if !strings.Contains(string(Example), line) {
			t.Errorf("the example does not say %q", line)
		}
	}
}

const minimal = `
public: { url: "https://sms.example.com/base//" }
sms: [ { name: a, provider: twilio } ]
crm: [ { name: b, type: salesforce } ]
`

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, ps := Parse("dir/heed.yaml", []byte(text), environment, func(name string) ([]byte, error) {
		if name == "dir/secret" || name == "/run/secret" {
			return []byte(canary + "\r\n"), nil
		}
		return nil, fs.ErrNotExist
	})
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	return c
}

func TestDefaultsHoldWhereTheFileIsSilentOrEmpty(t *testing.T) {
	for _, extra := range []string{"", "\ndata_dir:\nmode: ~\nconsent:\n  hold_for:\nschedule:\nkeys: []\nadmin: {}\n"} {
		c := parse(t, minimal+extra)
		want := defaults()
		want.DataDir, want.Public.URL = "dir/heed-data", "https://sms.example.com/base"
		got := *c
		got.SMS, got.CRM, got.root, got.src = nil, nil, nil, nil
		if len(got.Keys) == 0 {
			got.Keys = nil
		}
		if !reflect.DeepEqual(&got, want) {
			t.Errorf("with %q:\n got %+v\nwant %+v", extra, &got, want)
		}
	}
}

func TestVariablesAreReplacedInValuesOnly(t *testing.T) {
	for in, want := range map[string]string{
		`"${TOKEN}"`:               canary,
		`'${TOKEN}'`:               canary,
		`${TOKEN}`:                 canary,
		`a${SHORT}b${SHORT}`:       "ax1bx1",
		`"${NONE:-d: e}"`:          "d: e",
		`${EMPTY:-d}`:              "d",
		`a${EMPTY}b`:               "ab",
		`$${TOKEN}`:                "${TOKEN}",
		`$$${TOKEN}`:               "$${TOKEN}",
		`pa$$word$`:                "pa$$word$",
		"|\n      x${SHORT}\n":     "xx1\n",
		`+15550100000`:             "+15550100000",
		`0123`:                     "0123",
		`1.50`:                     "1.50",
		`true`:                     "true",
		`"a\tb"`:                   "a\tb",
		`${NONE:-}x`:               "x",
		`"${NONE:-${SHORT}}"`:      "${SHORT}", // defaults do not nest; the last brace is text
		`AC00${SHORT:-never used}`: "AC00x1",
	} {
		text := strings.Replace(minimal, "provider: twilio", "provider: twilio, from: "+in, 1)
		if strings.HasPrefix(in, "|") {
			text = "public: { url: https://a.example }\nsms:\n  - name: a\n    provider: x\n    from: " + in + "crm: [{name: b, type: c}]\n"
		}
		if strings.Contains(in, "{") && in[0] != '"' && in[0] != '\'' {
			// Braces end a plain scalar in a flow mapping.
			text = "public: { url: https://a.example }\nsms:\n  - name: a\n    provider: x\n    from: " + in + "\ncrm: [{name: b, type: c}]\n"
		}
		var d smsDriver
		c := parse(t, text)
		if ps := c.SMS[0].Decode(&d); len(ps) > 0 || d.From != want {
			t.Errorf("%s gives %q, want %q; %v", in, d.From, want, ps)
		}
	}
	if _, ps := Parse("f", []byte(`"${TOKEN}": 1`), environment, nil); strings.Contains(ps.Error(), "cAnArY") {
		t.Error("a variable was replaced in a key")
	}
}

func TestADriverSectionDecodesEveryKindOfField(t *testing.T) {
	c := parse(t, `
public: { url: https://sms.example.com }
sms:
  - name: a
    provider: twilio
    replies: heed
    account_sid: AC1
    auth_token_file: secret
    private_key_file: /run/secret
    timeout: 90s
    retries: 3
    ratio: 0.5
    burst: ${PORT:-1}
    verify: ${YES}
    labels: { one: 1, two: x }
    pool_sid: MG1
crm:
  - name: b
    type: salesforce
    client_secret: &s ${TOKEN}
    objects:
      - { object: Contact, phones: &p [MobilePhone, Phone], opt_out: A__c }
      - { object: Lead, phones: *p, opt_out: { field: B__c, inverted: true } }
`)
	got := smsDriver{From: "default", internal: "kept"}
	ps := c.SMS[0].Decode(&got)
	if len(ps) != 1 || ps[0].Field != "sms[0].burst" || strings.Contains(ps.Error(), "9090") {
		t.Fatalf("a burst of 9090 does not fit: %v", ps)
	}
	if got.AuthToken != canary || got.PrivateKey.Reveal() != canary {
		t.Errorf("files: %q, %q", got.AuthToken, got.PrivateKey.Reveal())
	}
	three := 3
	want := smsDriver{
		AccountSID: "AC1", AuthToken: canary, From: "default", Timeout: 90 * time.Second, Retries: &three, Ratio: 0.5,
		Verify: true, Labels: map[string]string{"one": "1", "two": "x"}, internal: "kept", PrivateKey: got.PrivateKey,
	}
	want.Pool.SID = "MG1"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if c.SMS[0].Replies != RepliesHeed {
		t.Errorf("replies = %q", c.SMS[0].Replies)
	}
	var crm crmDriver
	if ps := c.CRM[0].Decode(&crm); len(ps) > 0 {
		t.Fatal(ps)
	}
	if diff := cmp.Diff(crmDriver{canary, []crmObject{
		{"Contact", []string{"MobilePhone", "Phone"}, crmField{"A__c", false}},
		{"Lead", []string{"MobilePhone", "Phone"}, crmField{"B__c", true}},
	}}, crm); diff != "" {
		t.Error(diff)
	}
}

func TestADriversProblemPointsIntoTheFile(t *testing.T) {
	c := parse(t, `public: { url: https://sms.example.com }
sms:
  - name: a
    provider: twilio
    auth_token: ${TOKEN}
    private_key_file: secret
    labels:
      one: 1
crm: [ { name: b, type: c, objects: [ { object: Lead } ] } ]
`)
	for _, tt := range []struct {
		s         Section
		field     string
		want      string
		line, col int
	}{
		{c.SMS[0].Section, "", "sms[0]", 3, 5},
		{c.SMS[0].Section, "auth_token", "sms[0].auth_token", 5, 17},
		{c.SMS[0].Section, "private_key", "sms[0].private_key", 6, 23},
		{c.SMS[0].Section, "account_sid", "sms[0].account_sid", 3, 5},
		{c.SMS[0].Section, "labels.two", "sms[0].labels.two", 7, 5},
		{c.SMS[0].Section, "labels[9]", "sms[0].labels[9]", 7, 5},
		{c.CRM[0], "objects[0].phones", "crm[0].objects[0].phones", 9, 39},
		{c.CRM[0], "objects[0].object", "crm[0].objects[0].object", 9, 49},
	} {
		p := tt.s.Problem(tt.field, "refuses "+canary, fmt.Sprintf("not %q", canary))
		if p.File != "dir/heed.yaml" || p.Field != tt.want || p.Line != tt.line || p.Column != tt.col || p.Severity != Error {
			t.Errorf("%s: %+v", tt.field, p)
		}
		if strings.Contains(p.String(), "cAnArY") {
			t.Errorf("a secret shows: %s", p)
		}
	}
	if p := (Section{}).Problem("x", "r", "h"); p.Reason != "r" || p.String() == "" {
		t.Errorf("a section made by hand: %+v", p)
	}
}

func TestProblemsAreAnErrorOnlyIfOneIsNoWarning(t *testing.T) {
	w := Problem{File: "f", Reason: "odd", Severity: Warning}
	e := Problem{File: "f", Line: 3, Column: 4, Field: "a.b", Reason: "wrong", Hint: "fix it", Severity: Error}
	if err := (Problems{w}).Err(); err != nil {
		t.Error(err)
	}
	var ps Problems
	if err := fmt.Errorf("start: %w", Problems{w, e}.Err()); !errors.As(err, &ps) || len(ps) != 2 {
		t.Error(err)
	}
	if got, want := ps.Error(), "f: warning: odd\nf:3:4 a.b: wrong\n  hint: fix it"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestASecretShowsItselfToNobody(t *testing.T) {
	s := NewSecret(canary)
	type outer struct {
		S     Secret
		inner Secret
		p     *Secret
	}
	o := outer{s, s, &s}
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%10s"} {
		fmt.Fprintf(&b, verb, s)
		fmt.Fprintf(&b, verb, o)
		fmt.Fprintf(&b, verb, &o)
		fmt.Fprintf(&b, verb, []Secret{s})
	}
	fmt.Fprint(&b, s, o)
	j, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	y, err := yaml.Marshal(map[string]any{"s": s, "o": o})
	if err != nil {
		t.Fatal(err)
	}
	b.Write(j)
	b.Write(y)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "s", s, "o", o, "p", &s)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "s", s, "o", o, "p", &s)
	if got := b.String(); strings.Contains(got, "cAnArY") || strings.Contains(got, fmt.Sprintf("%x", "cAnArY")) {
		t.Errorf("it shows: %s", got)
	}
	if s.String() != "[redacted]" || s.Reveal() != canary || s.IsZero() || !(Secret{}).IsZero() {
		t.Error("String, Reveal or IsZero")
	}
}

func TestAConfigPrintedByMistakeShowsNoSecret(t *testing.T) {
	c := parse(t, strings.Replace(minimal, "provider: twilio", `provider: twilio, auth_token: "${TOKEN}"`, 1)+
		"outbound_messages: [ { hook: \"${TOKEN2}\", crm: b, org_id: 00D000000000001, to: A, body: B } ]\n")
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", c, c, *c), fmt.Sprintf("%+v", c.SMS[0]), string(j)} {
		if strings.Contains(text, "cAnArY") {
			t.Errorf("it shows: %s", text)
		}
	}
}

func TestDumpIsAConfigurationAgainWithoutItsSecrets(t *testing.T) {
	c := parse(t, `
mode: shadow
data_dir: ${NONE:-/var/lib/heed}
public: { listen: ":${PORT}", url: https://sms.example.com }
sms:
  - { name: a, provider: twilio, auth_token: literal-secret, webhook: "https://user:literal-secret@h/", n: [1, [2, []], {}], t: true, e: ~ }
  - { name: b-2, provider: "yes", auth: { user: literal-secret, list: [literal-secret] }, api_key_file: /run/secret, o: "${SHORT}" }
crm: [ { name: b, type: c, objects: [ { a: "x: y", b: [c] } ] } ]
keys: [ { name: "k #1", sha256: 9b74c9897bac770ffc029102a200c5de2e2ea9cab2e1e64d28f9f8be2f0f0a11, may: [admin] } ]
consent: { keywords: { opt_out: ["null", "naïve “quote”", "é\u2028"] } }
`)
	var first, second bytes.Buffer
	if err := c.Dump(&first); err != nil {
		t.Fatal(err)
	}
	text := first.String()
	for _, leak := range []string{"literal-secret", "9090", "x1"} {
		if strings.Contains(text, leak) {
			t.Errorf("%s shows", leak)
		}
	}
	for _, line := range []string{
		`data_dir: "${NONE:-/var/lib/heed}"  # from the environment`,
		`  listen: ":${PORT}"  # from the environment`,
		`    api_key_file: /run/secret`,
		`  hold_for: "5d"  # default`,
		`    webhook: "https://[redacted]@h/"`,
		`    replies: provider  # default`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	again := parse(t, text)
	if err := again.Dump(&second); err != nil {
		t.Fatal(err)
	}
	strip := func(s string) string { return strings.ReplaceAll(s, "  # default", "") }
	if diff := cmp.Diff(strip(text), second.String()); diff != "" {
		t.Errorf("a dump's dump differs:\n%s", diff)
	}
	if t.Failed() {
		t.Log("\n" + text)
	}
}

func TestLoadReadsTheFileAndItsNeighbours(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("token", canary)
	write("heed.yaml", `
public: { url: https://sms.example.com }
sms: [ { name: a, provider: twilio, auth_token_file: token, account_sid: "${HEED_TEST_SID}" } ]
crm: [ { name: b, type: c } ]
`)
	t.Setenv("HEED_TEST_SID", "AC1")
	c, ps := Load(filepath.Join(dir, "heed.yaml"))
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	var d smsDriver
	if ps := c.SMS[0].Decode(&d); len(ps) > 0 || d.AuthToken != canary || d.AccountSID != "AC1" {
		t.Errorf("%v %v", d, ps)
	}
	if c.DataDir != filepath.Join(dir, "heed-data") {
		t.Errorf("DataDir = %q", c.DataDir)
	}
	for path, reason := range map[string]string{"none.yaml": "does not exist", "": "cannot be read"} {
		c, ps := Load(filepath.Join(dir, path))
		if c != nil || ps.Err() == nil || ps[0].Reason != reason {
			t.Errorf("%q: %v", path, ps)
		}
	}
	write("big.yaml", strings.Repeat("#", maxBytes+1))
	if _, ps := Load(filepath.Join(dir, "big.yaml")); len(ps) != 1 || !strings.Contains(ps[0].Reason, "larger") {
		t.Error(ps)
	}
}

func TestHostileFilesAreRefusedQuickly(t *testing.T) {
	bomb := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9), ", "))
	}
	for name, text := range map[string]string{
		"alias bomb": bomb, "brackets": strings.Repeat("[", 60_000), "braces": strings.Repeat("{a: ", 30_000),
		"lists": strings.Repeat("- ", 500) + "x", "binary": "a: \x00", "latin-1": "a: \xe9", "alias of itself": "a: &a [*a]",
		"bracket": "]", "question": strings.Repeat("? ", 100),
	} {
		start := time.Now()
		if _, ps := Parse("f", []byte(text), nil, nil); ps.Err() == nil {
			t.Errorf("%s: no problem", name)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: took %v", name, d)
		}
	}
}

func TestPeriodsEndOnBusinessDays(t *testing.T) {
	ny, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	wed := time.Date(2026, 3, 4, 15, 0, 0, 0, ny) // the clocks change on Sunday the 8th
	for _, tt := range []struct {
		period string
		from   time.Time
		want   time.Time
	}{
		{"5d", wed, time.Date(2026, 3, 11, 15, 0, 0, 0, ny)},
		{"1d", time.Date(2026, 3, 6, 23, 0, 0, 0, ny), time.Date(2026, 3, 9, 23, 0, 0, 0, ny)},
		{"5d", time.Date(2026, 3, 7, 9, 0, 0, 0, ny), time.Date(2026, 3, 13, 9, 0, 0, 0, ny)},
		{"36h", wed, wed.Add(36 * time.Hour)},
		{"2s", wed, wed.Add(2 * time.Second)},
	} {
		p, err := ParsePeriod(tt.period)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.After(tt.from); !got.Equal(tt.want) {
			t.Errorf("%s after %v = %v, want %v", tt.period, tt.from, got, tt.want)
		}
		if again, err := ParsePeriod(p.String()); err != nil || again != p {
			t.Errorf("%s: %v, %v", p, again, err)
		}
	}
	for _, bad := range []string{"", "d", "0d", "0s", "-1d", "-5m", "5", "5 d", "5D", "1.5d", "400d", "99999d", "1d2h", "9000h", "+5d"} {
		if p, err := ParsePeriod(bad); err == nil {
			t.Errorf("%q = %v", bad, p)
		}
	}
}

func TestOrgIDsBecomeEighteenCharacters(t *testing.T) {
	for in, want := range map[string]string{
		"00D000000000001": "00D000000000001EAA", "00D000000000001EAA": "00D000000000001EAA", "00D000000000001eaa": "00D000000000001EAA",
		"00Dxx0000001gEq": "00Dxx0000001gEqEAI",
	} {
		var o OrgID
		if err := o.UnmarshalText([]byte(in)); err != nil || string(o) != want {
			t.Errorf("%s = %s, %v; want %s", in, o, err, want)
		}
	}
}

func TestOnlyWordsOfANameMakeItSecret(t *testing.T) {
	for _, k := range []string{"auth_token", "api_key", "client_secret", "password", "token", "auth", "Private-Key", "hook"} {
		if !secretName(k) {
			t.Errorf("%s is secret", k)
		}
	}
	for _, k := range []string{"keywords", "keyboard", "account_sid", "from", "authority", "webhook_url", "tokenizer"} {
		if secretName(k) {
			t.Errorf("%s is not secret", k)
		}
	}
}

func TestSuggestionsNeedACloseName(t *testing.T) {
	known := []string{"account_sid", "auth_token", "from"}
	for in, want := range map[string]string{
		"acount_sid": "did you mean account_sid?", "accountSid": "did you mean account_sid?", "auth-token": "did you mean auth_token?",
		"form": "did you mean from?", "AUTH_TOKEN": "did you mean auth_token?", "zebra": "the keys here are account_sid, auth_token, from",
		"from:+15550100000": "is a space missing after a colon?",
	} {
		if got := suggest(in, slices.Clone(known)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Example)
	f.Add([]byte(minimal))
	dirs, _ := filepath.Glob("testdata/bad/*/heed.yaml")
	for _, name := range dirs {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(bytes.ReplaceAll(data, []byte("twilio"), []byte("${TOKEN}")))
		f.Add(bytes.ReplaceAll(data, []byte("US"), []byte("${TOKEN:-x}")))
	}
	for _, field := range []string{"mode", "data_dir", "public: {url", "admin: {listen", "consent: {hold_for", "schedule: {nightly", "schedule: {timezone", "keys: [{sha256", "outbound_messages: [{org_id"} {
		f.Add([]byte(field + `: "${TOKEN}"` + strings.Repeat("}", strings.Count(field, "{")) + strings.Repeat("]", strings.Count(field, "["))))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("cAnArY")) {
			return // then it is no secret
		}
		env := func(string) (string, bool) { return canary, true }
		c, ps := Parse("heed.yaml", data, env, func(string) ([]byte, error) { return []byte(canary), nil })
		var out strings.Builder
		if c != nil {
			ps = append(ps, decodeDrivers(c)...)
			if err := c.Dump(&out); err != nil {
				t.Fatal(err)
			}
			if _, err := yaml.Marshal(c); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, "%v %+v", c.SMS, c.CRM)
		} else if ps.Err() == nil {
			t.Fatal("no configuration and no problem")
		}
		for _, p := range ps {
			if p.Reason == "" || p.Severity == "" || p.File == "" || strings.Contains(p.Reason, "heed's own mistake") {
				t.Errorf("%#v", p)
			}
		}
		out.WriteString(ps.Error())
		if i := strings.Index(out.String(), "cAnArY"); i >= 0 {
			t.Fatalf("a secret shows: %s", out.String()[max(0, i-100):])
		}
	})
}
