// Package admin is the page for people: is everything well, who opted out and why, what waits for a decision, what was
// not sent, and what to do about it.
//
// It shows and asks; everything that changes something is done by package connector, and everything that a person does is
// an event in the ledger with their name. Every page works without JavaScript; htmx only spares reloading. No page loads
// anything from elsewhere. Who may come in is package people's.
package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/people"
	"github.com/heed-sms/heed/sms/phone"
)

// Options are what the page shows and works with. All are required but Evidence and RecordURL.
type Options struct {
	Ledger   ledger.Ledger
	Consents *connector.Consents
	Holds    *connector.Holds
	People   *people.Service
	CRMs     []connector.CRM
	Region   string        // for numbers without a country code
	Window   time.Duration // for which an opt-out is attributed to the message before it
	Zone     *time.Location
	Settings []Setting // as in force, secrets masked by the caller
	Version  string
	Log      *slog.Logger
	Now      func() time.Time
	// Report writes a pass in a format: "page" is a page of its own with a way back to the reports, "csv" the corrections.
	Report func(w io.Writer, p ledger.Pass, corrections iter.Seq2[ledger.Correction, error], format string) error
	// Evidence records that who asks for a number's evidence packet, and why, and writes it. Nothing is written if nothing is
	// known of the number (ledger.ErrNotFound). nil if there are no packets.
	Evidence func(ctx context.Context, w io.Writer, n phone.Number, who, why string) error
	// RecordURL returns where people find a record in the CRM, "" if that is not known. May be nil.
	RecordURL func(crmName, object, id string) string
}

// Setting is one line of the configuration.
type Setting struct{ Name, Value string }

// Handler serves the page. It is safe for concurrent use.
type Handler struct {
	Options
	mux   *http.ServeMux
	pages map[string]*template.Template
	files map[string]string // static file → its address with a hash
	heard heard

	missing http.Handler // for an address that nothing is under
}

//go:embed static templates
var content embed.FS

// New returns the page. It panics if its own templates are broken, which its tests would show.
func New(o Options) *Handler {
	h := &Handler{Options: o, mux: http.NewServeMux(), pages: map[string]*template.Template{}, files: map[string]string{}}
	static, _ := fs.Sub(content, "static")
	names, _ := fs.Glob(static, "*")
	for _, name := range names {
		b, err := fs.ReadFile(static, name)
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(b)
		h.files[name] = "/static/" + hex.EncodeToString(sum[:6]) + "/" + name
	}
	base := template.Must(template.New("layout.html").Funcs(h.funcs()).ParseFS(content, "templates/layout.html"))
	pages, _ := fs.Glob(content, "templates/*.html")
	for _, p := range pages {
		if name := strings.TrimSuffix(path.Base(p), ".html"); name != "layout" {
			h.pages[name] = template.Must(template.Must(base.Clone()).ParseFS(content, p))
		}
	}
	h.mux.HandleFunc("GET /static/{hash}/{file}", h.static(static))
	view := func(pattern string, fn func(w http.ResponseWriter, r *http.Request) error) {
		h.handle(people.Viewer, pattern, fn)
	}
	act := func(pattern string, fn func(w http.ResponseWriter, r *http.Request) error) {
		h.handle(people.Operator, pattern, fn)
	}
	view("GET /{$}", h.status)
	view("GET /optouts", h.optOuts)
	act("GET /optouts/export", h.export)
	view("GET /numbers", h.findNumber)
	view("GET /numbers/{number}", h.number)
	act("POST /numbers/{number}", h.setConsent)
	if o.Evidence != nil {
		act("POST /numbers/{number}/evidence", h.evidence)
	}
	view("GET /holds", h.holds)
	act("POST /holds/{number}", h.resolve)
	view("GET /messages", h.messages)
	view("GET /work", h.work)
	act("POST /work/retry", h.retry)
	view("GET /reports", h.reports)
	view("GET /reports/{id}", h.report)
	view("GET /analytics", h.analytics)
	view("GET /audit", h.audit)
	view("GET /settings", h.settings)
	h.handle(people.Admin, "GET /bulk", h.bulk)
	h.handle(people.Admin, "POST /bulk", h.bulkUpload)
	h.handle(people.Admin, "POST /bulk/apply", h.bulkApply)
	h.handle(people.Admin, "POST /bulk/file", h.bulkFile)
	o.People.Register(h.mux)
	h.missing = h.require(people.Viewer, func(http.ResponseWriter, *http.Request) error { return ledger.ErrNotFound })
	return h
}

// ServeHTTP serves a page with the headers that keep foreign content harmless.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Cache-Control", "no-store")
	if _, route := h.mux.Handler(r); route == "" && r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.missing.ServeHTTP(w, r) // anybody but a browser has net/http's own answer, of which the server makes a problem
		return
	}
	h.mux.ServeHTTP(w, r)
}

// handle adds a page for people of a role. An error is shown as a page: 404 for what is not there, the person's own
// mistake as 422, and anything else as 500 with the reason in the log only.
func (h *Handler) handle(role people.Role, pattern string, fn func(w http.ResponseWriter, r *http.Request) error) {
	h.mux.Handle(pattern, h.require(role, fn))
}

func (h *Handler) require(role people.Role, fn func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return h.People.Require(role, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := fn(w, r)
		var mine *mistake
		var input *connector.InputError
		switch {
		case err == nil:
		case errors.As(err, &mine):
			h.problem(w, r, mine.status, mine.title, mine.text)
		case errors.As(err, &input):
			h.problem(w, r, http.StatusUnprocessableEntity, "That cannot be done", input.Error())
		case errors.Is(err, connector.ErrSticky):
			h.problem(w, r, http.StatusConflict, "Only the recipient can lift this", "The recipient opted out. Only START from that number lifts it; ask the person to text START to your number.")
		case errors.Is(err, connector.ErrHeld):
			h.problem(w, r, http.StatusConflict, "Held for review", "An unclear reply from this number waits for a decision. Decide that first.")
		case errors.Is(err, connector.ErrNotHeld), errors.Is(err, connector.ErrNotSeen):
			h.problem(w, r, http.StatusConflict, "Somebody was faster", "The number does not wait for this decision any more: somebody decided, or another reply came. Look again.")
		case errors.Is(err, ledger.ErrNotFound):
			h.problem(w, r, http.StatusNotFound, "Not found", "There is nothing under this address.")
		default:
			h.Log.Error("page failed", "route", r.Pattern, "error", err)
			h.problem(w, r, http.StatusInternalServerError, "heed could not do this", "Nothing was changed, or the change may be recorded all the same: look at the number's history. The operator finds the reason in heed's log.")
		}
	}))
}

// mistake is an error that is shown to the person who made it.
type mistake struct {
	status      int
	title, text string
}

func (m *mistake) Error() string { return m.title + ": " + m.text }

func invalid(text string) error {
	return &mistake{http.StatusUnprocessableEntity, "That cannot be done", text}
}

// page is what every template gets.
type page struct {
	Title   string
	Current string // the entry of the navigation
	Person  people.Person
	Data    any
}

func (h *Handler) show(w http.ResponseWriter, r *http.Request, status int, name, title string, data any) error {
	p := page{Title: title, Current: name, Data: data}
	p.Person, _ = people.From(r.Context())
	var b strings.Builder
	if err := h.pages[name].ExecuteTemplate(&b, "layout.html", p); err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, b.String())
	return nil
}

func (h *Handler) problem(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	if err := h.show(w, r, status, "message", title, people.Form{Title: title, Message: text}); err != nil {
		h.Log.Error("page failed", "error", err)
	}
}

// PeoplePage renders the forms of package people; it is people.Options.Page.
func (h *Handler) PeoplePage(w http.ResponseWriter, r *http.Request, status int, name string, f people.Form) {
	if err := h.show(w, r, status, name, f.Title, f); err != nil {
		h.Log.Error("page failed", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}

func (h *Handler) static(files fs.FS) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("file")
		if h.files[name] != r.URL.Path {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable") // its address holds its hash
		http.ServeFileFS(w, r, files, name)
	}
}

func (h *Handler) funcs() template.FuncMap {
	return template.FuncMap{
		"file": func(name string) string { return h.files[name] },
		"time": h.time,
		"ago": func(t time.Time) string {
			if t.IsZero() {
				return "never"
			}
			return duration(h.Now().Sub(t)) + " ago"
		},
		"short": func(d time.Duration) string { return duration(d) },
		"text": func(s string) template.HTML {
			return template.HTML("<bdi>" + template.HTMLEscapeString(visible(s)) + "</bdi>")
		},
		"body": visible, // in an element of its own, with dir=auto
		"number": func(n phone.Number) template.HTML {
			if !n.IsValid() {
				return ""
			}
			return template.HTML(`<a class="number" href="/numbers/` + n.String() + `">` + template.HTMLEscapeString(n.Spaced()) + `</a>`)
		},
		"spaced": func(n phone.Number) string { return n.Spaced() },
		"count":  grouped,
		"s": func(n any) string { // of a plural; n is an integer of any type
			if fmt.Sprint(n) == "1" {
				return ""
			}
			return "s"
		},
		"state": func(s consent.State) template.HTML {
			return template.HTML(`<span class="pill ` + s.String() + `">` + strings.ReplaceAll(s.String(), "_", " ") + `</span>`)
		},
		"words": func(s any) template.HTML { return words(fmt.Sprint(s)) },
		"reason": func(r consent.Reason) template.HTML {
			if r == consent.CRMOptOut {
				return "the box is ticked in the CRM"
			}
			return words(r)
		},
		"option":  func(s any) string { return plainWords(fmt.Sprint(s)) }, // where no element may be
		"whose":   func(s consent.Source) string { return sourceNames[s] },
		"work":    func(k ledger.OwedKind) string { return cmp.Or(workNames[k], string(k)) },
		"version": func() string { return h.Version },
		"packets": func() bool { return h.Evidence != nil },
		"may":     func(p people.Person, role string) bool { return p.Role.At(people.Role(role)) },
		"nav": func() []link {
			return []link{{"status", "/", "Status"}, {"optouts", "/optouts", "Opt-outs"}, {"holds", "/holds", "Review"}, {"messages", "/messages", "Messages"}, {"work", "/work", "Work"},
				{"reports", "/reports", "Reports"}, {"analytics", "/analytics", "Analytics"}, {"bulk", "/bulk", "Bulk"}, {"audit", "/audit", "Audit"}, {"settings", "/settings", "Settings"}}
		},
		"sum": func(m map[string]int) (n int) {
			for _, v := range m {
				n += v
			}
			return n
		},
		"table": func(name string, rows []rate) map[string]any { return map[string]any{"Name": name, "Rows": rows} },
		"owed": func(rows []ledger.Owed, parked bool) map[string]any {
			return map[string]any{"Rows": rows, "Parked": parked}
		},
		"record": func(crm, object, id string) string {
			if h.RecordURL == nil {
				return ""
			}
			return h.RecordURL(crm, object, id)
		},
	}
}

// link is an entry of the navigation.
type link struct{ Page, Address, Title string }

// time shows a moment in the zone of the configuration, and says which that is.
func (h *Handler) time(t time.Time) template.HTML {
	if t.IsZero() {
		return "–"
	}
	local := t.In(h.Zone)
	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s <span class="zone">%s</span></time>`, t.UTC().Format(time.RFC3339), local.Format("2006-01-02 15:04:05"), local.Format("MST")))
}

// sourceNames say on whose word a number was opted out.
var sourceNames = map[consent.Source]string{consent.Recipient: "recipient", consent.Provider: "provider", consent.CRM: "CRM user", consent.Admin: "by hand", consent.API: "program", consent.Deadline: "nobody decided"}

// workNames say what owed work is.
var workNames = map[ledger.OwedKind]string{ledger.OweBoxes: "set the boxes of the number's records", ledger.OweTime: "ask when the START was sent", ledger.OweAnswer: "answer the reply", ledger.OweHold: "decide what the reply meant",
	ledger.OweTell: "tell the provider's own list", ledger.OweSend: "send the queued message", ledger.OweRelay: "tell the client where its message stands", ledger.OweNote: "leave the outcome on the record", ledger.OweReport: "deliver the report"}

// grouped writes a count as people read it: 12,345.
func grouped(n any) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// visible makes other people's text harmless to look at: what cannot be seen, what would reorder the line, and marks that
// pile up over their neighbours are shown as what they are. html/template does the rest.
func visible(s string) string {
	var b strings.Builder
	marks := 0
	for _, r := range s {
		if unicode.Is(unicode.Mn, r) {
			marks++
		} else {
			marks = 0
		}
		switch {
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case unicode.IsControl(r), unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co) && r != '\u200d', r == unicode.ReplacementChar, marks > 4,
			r == '\u115f', r == '\u1160', r == '\u3164', r == '\uffa0': // Hangul fillers: letters that nobody sees
			fmt.Fprintf(&b, "‹U+%04X›", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func duration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// pathNumber reads the number of an address.
func (h *Handler) pathNumber(r *http.Request) (phone.Number, error) {
	n, err := phone.Parse(r.PathValue("number"), h.Region)
	if err != nil {
		return n, &mistake{http.StatusNotFound, "Not a telephone number", "The address names no telephone number."}
	}
	return n, nil
}

// who is the person of a request, for the record.
func who(ctx context.Context) string {
	p, _ := people.From(ctx)
	return p.Name
}
