package admin_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/admin"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/evidence"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
	"github.com/heed-sms/heed/connector/people"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/crmtest"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sms/smstest"
	"github.com/heed-sms/heed/sync/reconcile"
)

// tests ends the browser, if one was started, before goleak looks.
type tests struct{ *testing.M }

func (m tests) Run() int {
	code := m.M.Run()
	stopBrowser()
	return code
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(tests{m}) }

const sender = "+15550100000"

var (
	ada  = must(phone.Parse("+14155550142", ""))
	bob  = must(phone.Parse("+14155550143", ""))
	cleo = must(phone.Parse("+14155550144", ""))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// house is a daemon's inside with the page in front of it.
type house struct {
	t     testing.TB
	l     *local.Ledger
	in    *connector.Inbox
	gate  *connector.Gate
	phone *smstest.Memory
	crm   *crmtest.CRM
	ppl   *people.Service
	srv   *httptest.Server
	page  http.Handler
	now   func() time.Time
}

func newHouse(t testing.TB) *house {
	t.Helper()
	return newHouseAt(t, time.Now, time.UTC)
}

func newHouseAt(t testing.TB, now func() time.Time, zone *time.Location) *house {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	l, err := local.Open(t.TempDir(), local.Options{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p, org := smstest.New(), crmtest.New(now)
	p.Now = now
	accounts := connector.Accounts{{Name: "main", Provider: p}}
	crms := []connector.CRM{{Name: "salesforce", Directory: org}}
	m := connector.NewMetrics(l, "test")
	h := &house{t: t, l: l, phone: p, crm: org, now: now,
		in:   &connector.Inbox{Ledger: l, Accounts: accounts, Replies: reply.Default(), Metrics: m, Log: log, Now: now},
		gate: &connector.Gate{Ledger: l, Accounts: accounts, CRMs: crms, Region: "US", Metrics: m, Log: log, Now: now}}
	t.Cleanup(h.gate.Start())
	h.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.page.ServeHTTP(w, r) }))
	t.Cleanup(h.srv.Close)
	var a *admin.Handler
	h.ppl, err = people.New(people.Options{Ledger: l, URL: h.srv.URL, Log: log, Now: now,
		Page: func(w http.ResponseWriter, r *http.Request, status int, name string, f people.Form) {
			a.PeoplePage(w, r, status, name, f)
		}})
	if err != nil {
		t.Fatal(err)
	}
	a = admin.New(admin.Options{Ledger: l, Consents: &connector.Consents{Ledger: l, Gate: h.gate, Now: now},
		Holds:  &connector.Holds{Ledger: l, Deadline: func(t time.Time) time.Time { return t.AddDate(0, 0, 7) }, Log: log, Now: now},
		People: h.ppl, CRMs: crms, Region: "US", Window: 72 * time.Hour, Zone: zone, Settings: []admin.Setting{{Value: settings}}, Version: "1.0.0", Log: log, Now: now,
		Report: func(w io.Writer, p ledger.Pass, corrections iter.Seq2[ledger.Correction, error], format string) error {
			if format == "csv" {
				return reconcile.CSV(w, p, corrections)
			}
			return reconcile.HTML(w, p, corrections, reconcile.TextOptions{Zone: zone, Back: map[string]string{"page": "/reports"}[format]})
		},
		Evidence: func(ctx context.Context, w io.Writer, n phone.Number, who, why string) error {
			_, err := evidence.Write(ctx, w, l, evidence.Options{Number: n, At: now(), By: who, Why: why, Heed: "test"})
			return err
		},
		RecordURL: func(_, object, id string) string {
			return "https://acme.lightning.force.com/lightning/r/" + object + "/" + id + "/view"
		}})
	h.page = a
	return h
}

// settings is a configuration as heed shows it.
const settings = `data_dir: /var/lib/heed
public:
  listen: :8080
  url: https://sms.acme.example
admin:
  listen: 127.0.0.1:8081
sms:
  - name: main
    provider: twilio
    account_sid: AC0123456789abcdef0123456789abcdef
    auth_token: (set)
    from: "+15550100000"
crm:
  - name: salesforce
    type: salesforce
    domain: https://acme.my.salesforce.com
    client_secret: (set)
consent:
  default_region: US
  require_opt_in: false
  hold_for: 5d
schedule:
  incremental: '@every 1m'
  nightly: 0 2 * * *
  timezone: America/New_York
`

func (h *house) text(from phone.Number, body string) {
	h.t.Helper()
	if _, err := h.in.Receive(h.t.Context(), "main", h.phone.Text(from.String(), sender, body, sms.FlagNone), ""); err != nil {
		h.t.Fatal(err)
	}
}

// browser is a person's browser; it does not follow redirects.
type browser struct {
	h *house
	c *http.Client
}

func (h *house) visitor() browser {
	jar, _ := cookiejar.New(nil)
	return browser{h, &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (h *house) person(name string, role people.Role) browser {
	h.t.Helper()
	link, _, err := h.ppl.Invite(h.t.Context(), name, role, "root", "test")
	if err != nil {
		h.t.Fatal(err)
	}
	u, err := url.Parse(link)
	if err != nil {
		h.t.Fatal(err)
	}
	b := h.visitor()
	b.post("/setup", url.Values{"token": {u.Query().Get("token")}, "password": {"correct horse battery"}, "again": {"correct horse battery"}}).want(303)
	return b
}

type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   string
}

func (b browser) do(method, path, kind string, body io.Reader) answer {
	b.h.t.Helper()
	req, err := http.NewRequestWithContext(b.h.t.Context(), method, b.h.srv.URL+path, body)
	if err != nil {
		b.h.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := b.c.Do(req)
	if err != nil {
		b.h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.h.t.Fatal(err)
	}
	return answer{b.h.t, resp.StatusCode, resp.Header, string(text)}
}

func (b browser) get(path string) answer { b.h.t.Helper(); return b.do("GET", path, "", nil) }
func (b browser) post(path string, form url.Values) answer {
	b.h.t.Helper()
	return b.do("POST", path, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
}

// want checks the status and that each text is on the page, as a person would read it.
func (a answer) want(status int, texts ...string) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d:\n%s", a.status, status, a.body)
	}
	for _, text := range texts {
		if !strings.Contains(html.UnescapeString(a.body), text) {
			a.t.Fatalf("no %q in:\n%s", text, a.body)
		}
	}
	return a
}

func (a answer) without(texts ...string) answer {
	a.t.Helper()
	for _, text := range texts {
		if strings.Contains(a.body, text) {
			a.t.Fatalf("%q in:\n%s", text, a.body)
		}
	}
	return a
}

// audited returns who did what by the ledger.
func (h *house) audited() string {
	h.t.Helper()
	var out []string
	for e, err := range h.l.Audit(h.t.Context()) {
		if err != nil {
			h.t.Fatal(err)
		}
		if e.Act != nil {
			out = append(out, e.Act.Who+" "+e.Act.What)
		}
	}
	return strings.Join(out, "; ")
}

func TestEveryPageIsForItsRoleAndUp(t *testing.T) {
	h := newHouse(t)
	h.text(ada, "STOP")
	h.text(bob, "wrong number")
	viewer, operator, boss := h.person("vic", people.Viewer), h.person("oda", people.Operator), h.person("max", people.Admin)
	for _, c := range []struct {
		method, path       string
		viewer, op, admin_ int
	}{
		{"GET", "/", 200, 200, 200},
		{"GET", "/optouts", 200, 200, 200},
		{"GET", "/optouts/export?format=csv", 403, 200, 200},
		{"GET", "/numbers?q=0142", 303, 303, 303},
		{"GET", "/numbers/+14155550142", 200, 200, 200},
		{"POST", "/numbers/+14155550199", 403, 422, 422},
		{"POST", "/numbers/+14155550142/evidence", 403, 422, 422},
		{"GET", "/holds", 200, 200, 200},
		{"POST", "/holds/+14155550143", 403, 422, 422},
		{"GET", "/messages", 200, 200, 200},
		{"GET", "/work", 200, 200, 200},
		{"POST", "/work/retry", 403, 303, 303},
		{"GET", "/reports", 200, 200, 200},
		{"GET", "/reports/none", 404, 404, 404},
		{"GET", "/analytics", 200, 200, 200},
		{"GET", "/audit", 200, 200, 200},
		{"GET", "/settings", 200, 200, 200},
		{"GET", "/bulk", 403, 403, 200},
		{"POST", "/bulk", 403, 403, 422},
		{"POST", "/bulk/apply", 403, 403, 422},
		{"GET", "/numbers/nobody", 404, 404, 404},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			out := h.visitor().do(c.method, c.path, "", nil)
			if to := out.header.Get("Location"); out.status == 303 && !strings.HasPrefix(to, "/signin") || out.status != 303 && out.status != 401 {
				t.Errorf("a stranger gets %d %s", out.status, out.body)
			}
			for i, b := range []browser{viewer, operator, boss} {
				want := []int{c.viewer, c.op, c.admin_}[i]
				kind := ""
				if c.method == "POST" {
					kind = "application/x-www-form-urlencoded"
				}
				a := b.do(c.method, c.path, kind, nil)
				a.want(want)
				csp := a.header.Get("Content-Security-Policy")
				for _, rule := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
					if !strings.Contains(csp, rule) {
						t.Errorf("no %s in %q", rule, csp)
					}
				}
				if strings.Contains(csp, "unsafe") || a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Referrer-Policy") != "no-referrer" || a.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%v", a.header)
				}
			}
		})
	}
}

// No page may carry a script or a style of its own, nor point anywhere else: the policy would stop it, and nobody would see why.
func TestPagesKeepToTheirOwnPolicy(t *testing.T) {
	h := newHouse(t)
	h.text(ada, "STOP")
	h.text(bob, "wrong number")
	b := h.person("max", people.Admin)
	foreign := regexp.MustCompile(`(?i)<script(?:[^>]*)>[^<]|<style|\sstyle=|\son[a-z]+=|javascript:|(?:src|href|action)="(?:https?:)?//`)
	for _, path := range []string{"/", "/optouts", "/numbers/+14155550142", "/holds", "/messages", "/work", "/reports", "/analytics", "/audit", "/settings", "/bulk"} {
		if bad := foreign.FindString(b.get(path).want(200).body); bad != "" {
			t.Errorf("%s: %q", path, bad)
		}
	}
}

func TestStaticFilesAreThoseThatWerePublished(t *testing.T) {
	readme, err := os.ReadFile("static/README.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range regexp.MustCompile(`(?m)^([0-9a-f]{64})  (\S+)$`).FindAllSubmatch(readme, -1) {
		n++
		b, err := fs.ReadFile(os.DirFS("static"), string(m[2]))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != string(m[1]) {
			t.Errorf("%s has changed", m[2])
		}
	}
	if n != 2 {
		t.Errorf("%d sums", n)
	}
	h := newHouse(t)
	page := h.visitor().get("/signin").want(200)
	for _, m := range regexp.MustCompile(`(?:href|src)="(/static/[^"]+)"`).FindAllStringSubmatch(page.body, -1) {
		if a := h.visitor().get(m[1]).want(200); !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %v", m[1], a.header)
		}
	}
	h.visitor().get("/static/000000000000/heed.css").want(404)
}

func TestHostileTextIsShownForWhatItIs(t *testing.T) {
	h := newHouse(t)
	b := h.person("max", people.Admin)
	h.text(bob, "wrong number <script>alert(1)</script> \u202egnp.exe\u202c \x07 \"><img src=x>")
	for _, path := range []string{"/holds", "/numbers/" + bob.String()} {
		b.get(path).want(200, "‹U+202E›", "<script>alert(1)</script>").without("<script>alert", "\u202e", "\x07", "<img")
	}
	b.get("/numbers?q=" + url.QueryEscape("<script>alert(1)</script>")).want(422).without("<script>alert")
	b.get("/optouts?campaign=" + url.QueryEscape(`"><script>alert(1)</script>`)).want(200).without("<script>alert")
	b.get("/optouts?ends=" + url.QueryEscape("<b>")).want(422).without("<b>")
	// A spreadsheet must not run what somebody typed as the reason or keyword.
	if _, _, err := h.gate.Send(t.Context(), connector.Send{To: ada.String(), Body: "hi", Campaign: "=cmd|'/c calc'!A1", Caller: "max"}); err != nil {
		t.Fatal(err)
	}
	h.text(ada, "STOP")
	rows := must(csv.NewReader(strings.NewReader(b.get("/optouts/export?format=csv").want(200).body)).ReadAll())
	for _, row := range rows {
		for _, cell := range row {
			if strings.HasPrefix(cell, "=") || strings.HasPrefix(cell, "@") {
				t.Errorf("cell %q", cell)
			}
		}
	}
}

func TestOnlyTheRecipientLiftsTheirOwnStop(t *testing.T) {
	h := newHouse(t)
	b := h.person("oda", people.Operator)
	h.text(ada, "STOP")
	b.get("/numbers/"+ada.String()).want(200, "✗ A message would not be sent", "Only a START from it lifts that").without("Undo the opt-out")
	b.post("/numbers/"+ada.String(), url.Values{"action": {"undo"}, "why": {"they called"}}).want(409, "Only the recipient can lift this")
	if s := h.l.State(ada); s != consent.OptedOut {
		t.Fatal(s)
	}
	// By hand: out, with a reason, and in again.
	b.post("/numbers/"+cleo.String(), url.Values{"action": {"opt_out"}}).want(422, "Say why")
	b.post("/numbers/"+cleo.String(), url.Values{"action": {"opt_out"}, "why": {"asked by mail"}}).want(303)
	b.get("/numbers/"+cleo.String()).want(200, "Undo the opt-out", "asked by mail", "oda")
	b.post("/numbers/"+cleo.String(), url.Values{"action": {"undo"}, "why": {"the wrong Cleo"}}).want(303)
	if s := h.l.State(cleo); s == consent.OptedOut {
		t.Fatal(s)
	}
}

func TestADecisionIsOnWhatThePersonSaw(t *testing.T) {
	h := newHouse(t)
	b := h.person("oda", people.Operator)
	h.text(bob, "wrong number")
	seq := regexp.MustCompile(`name="seq" value="(\d+)"`)
	seen := seq.FindStringSubmatch(b.get("/holds").want(200, bob.String()).body)[1]
	h.text(bob, "who is this, wrong number")
	b.post("/holds/"+bob.String(), url.Values{"seq": {seen}, "as": {"release"}}).want(409, "Somebody was faster")
	if s := h.l.State(bob); s != consent.Held {
		t.Fatal(s)
	}
	seen = seq.FindStringSubmatch(b.get("/holds").body)[1]
	b.post("/holds/"+bob.String(), url.Values{"seq": {seen}, "as": {"opt_out"}, "why": {"does not know us"}}).want(303)
	if s := h.l.State(bob); s != consent.OptedOut {
		t.Fatal(s)
	}
	b.get("/holds").want(200, "Nothing waits for a decision").without(bob.String())
	b.post("/holds/"+bob.String(), url.Values{"seq": {seen}, "as": {"release"}}).want(409)
}

// upload gives a list to the bulk page.
func (b browser) upload(action, list string) answer {
	b.h.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	_ = w.WriteField("action", action)
	f, _ := w.CreateFormFile("file", "list.csv")
	_, _ = io.WriteString(f, list)
	_ = w.Close()
	return b.do("POST", "/bulk", w.FormDataContentType(), &body)
}

// list returns the numbers that a page carries.
func (a answer) list() string {
	a.t.Helper()
	_, rest, ok := strings.Cut(a.body, "<textarea")
	if !ok {
		a.t.Fatal("no list: ", a.body)
	}
	_, rest, _ = strings.Cut(rest, ">")
	rest, _, _ = strings.Cut(rest, "</textarea>")
	return html.UnescapeString(rest)
}

func TestBulkOptOutIsPreviewedConfirmedAndUndone(t *testing.T) {
	h := newHouse(t)
	b := h.person("max", people.Admin)
	h.text(ada, "STOP")
	csv := "\ufeffName;Phone\nAda;+14155550142\nBob;(415) 555-0143\nBob;+1 415 555 0143\nCleo;'+14155550144\nBad;1.41556E+10\nNone;call me\n"
	p := b.upload("opt_out", csv).want(200, "Nothing has been changed", "Opt out 2 numbers", "a spreadsheet has rounded it")
	if got := p.list(); got != bob.String()+"\n"+cleo.String() {
		t.Fatalf("%q", got)
	}
	if h.l.State(bob) == consent.OptedOut {
		t.Fatal("a preview opted out")
	}
	form := url.Values{"action": {"opt_out"}, "numbers": {p.list()}, "why": {"list of the old shop"}, "count": {"3"}}
	b.post("/bulk/apply", form).want(422, "To confirm, type the number of changes: 2.")
	if h.l.State(bob) == consent.OptedOut || strings.Contains(h.audited(), "bulk") {
		t.Fatal("a wrong count changed something")
	}
	form.Set("count", "2")
	done := b.post("/bulk/apply", form).want(200, "2 numbers opted out")
	if h.l.State(bob) != consent.OptedOut || h.l.State(cleo) != consent.OptedOut {
		t.Fatal("not opted out")
	}
	// What was changed, and Ada's own STOP, which is no part of it.
	u := b.upload("undo", done.list()+"\n"+ada.String()).want(200, "Undo 2 opt-outs")
	b.post("/bulk/apply", url.Values{"action": {"undo"}, "numbers": {u.list()}, "why": {"the wrong list"}, "count": {"2"}}).want(200, "2 opt-outs undone")
	if h.l.State(bob) == consent.OptedOut || h.l.State(ada) != consent.OptedOut {
		t.Fatal("undone wrongly")
	}
	// Somebody who sends the form without a preview lifts no STOP either.
	b.post("/bulk/apply", url.Values{"action": {"undo"}, "numbers": {ada.String()}, "why": {"x"}, "count": {"1"}}).want(200, "1 not changed")
	if h.l.State(ada) != consent.OptedOut {
		t.Fatal("a STOP was lifted in bulk")
	}
	if got := h.audited(); !strings.Contains(got, "max bulk_opt_out") || !strings.Contains(got, "max bulk_undo") {
		t.Errorf("audit: %s", got)
	}
	b.upload("opt_out", "").want(422, "There is no number in it")
	b.upload("opt_out", strings.Repeat("+14155550142\n", 200_000)).want(422, "larger than 2 MB")
}

func TestAnExportHoldsEveryNumberAndIsInTheAudit(t *testing.T) {
	h := newHouse(t)
	b := h.person("oda", people.Operator)
	const many = 2345 // more than two of the pages that an export reads
	var events []ledger.Event
	now := time.Now().UTC()
	for i := range many {
		events = append(events, ledger.Event{Kind: ledger.KindConsent, ID: fmt.Sprint("x/", i), At: now, Number: must(phone.Parse(fmt.Sprintf("+1415%07d", 5550000+i), "")),
			Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: consent.Admin, At: now}, Why: "test"}})
	}
	if _, err := h.l.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	a := b.get("/optouts/export?format=csv").want(200)
	if !strings.Contains(a.header.Get("Content-Disposition"), "attachment") {
		t.Errorf("%v", a.header)
	}
	rows, seen := must(csv.NewReader(strings.NewReader(a.body)).ReadAll()), map[string]bool{}
	for _, row := range rows[1:] {
		seen[row[0]] = true
	}
	if len(rows) != many+1 || len(seen) != many {
		t.Errorf("%d rows, %d numbers, want %d", len(rows), len(seen), many)
	}
	n := 0
	for d := json.NewDecoder(strings.NewReader(b.get("/optouts/export?format=json&ends=12").want(200).body)); ; n++ {
		var x struct{ Number, State string }
		if err := d.Decode(&x); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(x.Number, "12") || x.State != "opted_out" {
			t.Errorf("%+v", x)
		}
	}
	if n != 24 { // …0012 to …2312
		t.Errorf("%d filtered rows", n)
	}
	b.get("/optouts/export?format=exe").want(422)
	if got := h.audited(); strings.Count(got, "oda export") != 2 {
		t.Errorf("audit: %s", got)
	}
}

func TestNumbersAreFoundAsPeopleWriteThem(t *testing.T) {
	h := newHouse(t)
	h.text(ada, "STOP")
	b := h.person("vic", people.Viewer)
	for q, to := range map[string]string{"(415) 555-0142": "/numbers/+14155550142", "+1 415 555 0142": "/numbers/+14155550142", "0142": "/optouts?state=all&ends=0142"} {
		a := b.get("/numbers?q=" + url.QueryEscape(q)).want(303)
		if got, _ := url.PathUnescape(a.header.Get("Location")); got != to {
			t.Errorf("%q leads to %s", q, got)
		}
	}
	b.get("/numbers?q=003000000000001AAA").want(404, "No such record")
	b.get("/optouts?ends=0142").want(200, ada.String())
	b.get("/optouts?ends=0143").want(200).without(ada.String())
	b.get("/optouts?source=crm").want(200).without(ada.String())
	b.get("/optouts?from=2999-01-01").want(200).without(ada.String())
	b.get("/optouts?from=yesterday").want(422, "2026-11-30")
	b.get("/optouts?state=gone").want(422)
}

func TestAReportIsAPageOfItsOwn(t *testing.T) {
	h := newHouse(t)
	now := time.Now().UTC()
	if _, err := h.l.Append(t.Context(), ledger.Event{Kind: ledger.KindPass, At: now, Pass: &ledger.Pass{ID: "rec_1", Kind: "full", Full: true, StartedAt: now, FinishedAt: now}}); err != nil {
		t.Fatal(err)
	}
	b := h.person("vic", people.Viewer)
	b.get("/reports").want(200, "/reports/rec_1")
	a := b.get("/reports/rec_1").want(200, "Reconciliation report", "rec_1", `<a href="/reports">← Reports</a>`)
	if csp := a.header.Get("Content-Security-Policy"); strings.Contains(csp, "script") || !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("policy %q", csp)
	}
	if a := b.get("/reports/rec_1?format=csv").want(200, "pass,seq,cause"); !strings.HasPrefix(a.header.Get("Content-Type"), "text/csv") {
		t.Errorf("%v", a.header)
	}
	b.get("/").want(200, "last full reconciliation")
}

// Somebody else's site cannot make the browser of a person who is signed in do anything.
func TestAnotherSiteCannotAct(t *testing.T) {
	h := newHouse(t)
	b := h.person("max", people.Admin)
	req := must(http.NewRequestWithContext(context.WithoutCancel(t.Context()), "POST", h.srv.URL+"/numbers/"+cleo.String(), strings.NewReader("action=opt_out&why=x")))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "https://evil.example")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	resp := must(b.c.Do(req))
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || h.l.State(cleo) == consent.OptedOut {
		t.Errorf("status %d, state %s", resp.StatusCode, h.l.State(cleo))
	}
}

// Older pages and exports keep the filter; each number is on one page.
func TestPagesOfTheListFollowEachOther(t *testing.T) {
	h := newHouse(t)
	b := h.person("oda", people.Operator)
	var events []ledger.Event
	now := time.Now().UTC()
	for i := range 130 {
		source := []consent.Source{consent.Admin, consent.API}[i%2]
		events = append(events, ledger.Event{Kind: ledger.KindConsent, At: now, Number: person(i), Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: source, At: now}, Why: "test"}})
	}
	if _, err := h.l.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`href="([^"]+)">(Older|CSV)<`)
	seen, path, exported := map[string]bool{}, "/optouts?source=api", ""
	for pages := 0; path != "" && pages < 5; pages++ {
		a := b.get(path).want(200, "65")
		for _, m := range regexp.MustCompile(`<th scope="row"><a class="number" href="/numbers/([^"]+)"`).FindAllStringSubmatch(a.body, -1) {
			if seen[m[1]] {
				t.Errorf("%s is there twice", m[1])
			}
			seen[m[1]] = true
		}
		path = ""
		for _, m := range link.FindAllStringSubmatch(a.body, -1) {
			if m[2] == "Older" {
				path = html.UnescapeString(m[1])
			} else {
				exported = html.UnescapeString(m[1])
			}
		}
	}
	if len(seen) != 65 {
		t.Errorf("%d numbers on the pages, want 65", len(seen))
	}
	if n := strings.Count(b.get(exported).want(200).body, ",api,"); n != 65 {
		t.Errorf("%d rows exported, want 65", n)
	}
}

// A day is compared with its own weekday, and a rate is an alarm only among enough messages.
func TestSpikesAndAlarms(t *testing.T) {
	h := newHouseAt(t, func() time.Time { return noon }, newYork)
	var events []ledger.Event
	n := 0
	stop := func(at time.Time, count int) {
		for range count {
			num := phone.FromUint64(12000000000 + uint64(n))
			n++
			events = append(events, ledger.Event{Kind: ledger.KindConsent, At: at, Number: num, Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: consent.Provider, At: at}}})
		}
	}
	for ago := 80; ago >= 0; ago-- { // 40 each Monday, 4 on other days; 40 on a Tuesday too; noon is a Wednesday
		at := noon.AddDate(0, 0, -ago)
		stop(at, map[bool]int{true: 40, false: 4}[at.Weekday() == time.Monday || ago == 8])
	}
	for i, c := range []struct {
		name                  string
		sent, percentOptedOut int
	}{{"calm", 100, 4}, {"high", 100, 5}, {"alarming", 100, 10}, {"small", 40, 50}, {"", 100, 10}} { // without a campaign there is no rate
		at := noon.AddDate(0, 0, -1)
		for k := range c.sent {
			num, id := phone.FromUint64(13000000000+uint64(1000*i+k)), fmt.Sprint(c.name, k)
			events = append(events, ledger.Event{Kind: ledger.KindOpened, At: at, Number: num, Opened: &ledger.Message{ID: id, To: num, Body: "hi", Account: "main", Campaign: c.name, CreatedAt: at, Decision: consent.Decision{Verdict: consent.Allow, Reason: consent.OK}}},
				ledger.Event{Kind: ledger.KindOutcome, At: at, Number: num, Outcome: &ledger.Outcome{Message: id, Status: ledger.StatusSent, ProviderID: id, From: sender}})
			if k < c.sent*c.percentOptedOut/100 {
				events = append(events, ledger.Event{Kind: ledger.KindConsent, At: at.Add(time.Hour), Number: num, Consent: &ledger.Consent{Change: consent.Change{Action: consent.OptOut, Source: consent.Provider, At: at.Add(time.Hour)}}})
			}
		}
	}
	if _, err := h.l.Append(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	page := h.person("vic", people.Viewer).get("/analytics").want(200)
	var got []string
	for _, m := range regexp.MustCompile(`<strong>! ([^<]*(?:<bdi>[^<]*</bdi>[^<]*)?)</strong>([^<]*)`).FindAllStringSubmatch(page.body, -1) {
		got = append(got, strings.NewReplacer("<bdi>", "", "</bdi>", "").Replace(m[1]+m[2]))
	}
	want := []string{"10.0 % of those who got alarming opted out (10 of 100 messages): an alarm from 10 %.", "5.0 % of those who got high opted out (5 of 100 messages): high from 5 %.",
		"Unusually many opt-outs on Tue 2026-03-10: 40, where 4 are usual for that weekday.", "Unusually many opt-outs on Tue 2026-03-17: 53, where 4 are usual for that weekday."}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the page warns:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What an address names is looked up, never opened: no name leads out of heed's own files and reports.
func TestNoAddressLeadsAnywhereElse(t *testing.T) {
	h := newHouse(t)
	b := h.person("max", people.Admin)
	page := b.get("/").want(200).body
	own := regexp.MustCompile(`/static/[0-9a-f]+/heed\.css`).FindString(page)
	dir := strings.TrimSuffix(own, "heed.css")
	for _, path := range []string{"/reports/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/reports/..%2fsettings", "/reports/rec_1%00.html", "/reports/" + strings.Repeat("x", 5000), "/reports/.", "/reports/%5c..%5cheed.yaml",
		dir + "README.md/..", dir + "%2e%2e%2fadmin.go", dir + "..%2ftemplates%2flayout.html", dir + "heed.css%00", "/static/..%2f..%2fadmin.go", "/static//heed.css"} {
		a := b.get(path)
		if a.status != 404 && a.status != 400 && a.status != 301 && a.status != 307 || strings.Contains(a.body, "root:") || strings.Contains(a.body, "package admin") || strings.Contains(a.body, "{{define") {
			t.Errorf("%s: %d\n%.300s", path, a.status, a.body)
		}
	}
	// A GET changes nothing.
	h.text(bob, "wrong number")
	for _, path := range []string{"/bulk/apply?numbers=" + cleo.String() + "&count=1&why=x", "/bulk/file", "/work/retry", "/signout", "/holds/" + bob.String() + "?as=opt_out", "/numbers/" + cleo.String() + "?action=opt_out&why=x"} {
		b.get(path)
	}
	b.get("/").want(200, "signed in as")
	if h.l.State(cleo) == consent.OptedOut || h.l.State(bob) != consent.Held || strings.Contains(h.audited(), "bulk") || strings.Contains(h.audited(), "retry") {
		t.Errorf("a GET changed something: %s", h.audited())
	}
}

// The page of a number says of boxes and lists what came of them, and does not contradict itself.
func TestANumbersPageSaysWhatBecameOfBoxesAndLists(t *testing.T) {
	h := newHouse(t)
	b := h.person("vic", people.Viewer)
	now := time.Now().UTC()
	out := consent.Change{Action: consent.OptOut, Source: consent.CRM, At: now}
	if _, err := h.l.Append(t.Context(), ledger.Event{Kind: ledger.KindConsent, At: now, Number: cleo, Consent: &ledger.Consent{Change: out, Why: "test"}},
		ledger.Event{Kind: ledger.KindWritten, At: now, Number: cleo, Written: &ledger.Written{Want: true}},
		ledger.Event{Kind: ledger.KindTold, At: now, Number: cleo, Told: &ledger.Told{Want: true}}); err != nil {
		t.Fatal(err)
	}
	path := "/numbers/" + cleo.String()
	b.get(path).want(200, "A message would not be sent: the box is ticked in the CRM.", "No record has this number; no box to set", "No list of the provider's was told").
		without("crm opt out", "own list was told", "as it should be")
	h.knows(cleo, crm.Key{Object: "Contact", ID: "003000000000001AAA"})
	refused := ledger.ToldResult{Account: "second", Class: "rejected"}
	for _, c := range []struct {
		results []ledger.ToldResult
		says    string
	}{{[]ledger.ToldResult{{Account: "main"}}, "own list was told"}, {[]ledger.ToldResult{refused}, "own list could not be told"}, {[]ledger.ToldResult{{Account: "main"}, refused}, "Not every list of the provider"}} {
		if _, err := h.l.Append(t.Context(), ledger.Event{Kind: ledger.KindTold, At: now, Number: cleo, Told: &ledger.Told{Want: true, Results: c.results}}); err != nil {
			t.Fatal(err)
		}
		b.get(path).want(200, c.says)
	}
	b.get(path).want(200, "Every box was already as it should be").without("No record has this number")
	h.text(bob, "who is this?")
	b.get("/").want(200, "1 message, 0 of them opt-outs")
}

// A browser is shown a page where nothing is; a program has the server's own answer.
func TestAnUnknownAddressIsAPageForABrowserOnly(t *testing.T) {
	h := newHouse(t)
	b := h.person("vic", people.Viewer)
	if a := b.get("/no/such/address").want(404, "There is nothing under this address", "signed in as"); !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("%v", a.header)
	}
	req := must(http.NewRequestWithContext(t.Context(), "GET", h.srv.URL+"/no/such/address", nil))
	req.Header.Set("Accept", "application/json")
	resp := must(b.c.Do(req))
	_ = resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusNotFound || !strings.HasPrefix(kind, "text/plain") {
		t.Errorf("HTTP %d %s, and the server replaces plain text only", resp.StatusCode, kind)
	}
}
