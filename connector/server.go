package connector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/openapi"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms"
)

// Right is what an API key may do.
type Right string

const (
	MaySend  Right = "send"
	MayRead  Right = "read"
	MayAdmin Right = "admin" // set consent by hand, decide on held replies
)

// Key is an API key, known by its hash only.
type Key struct {
	Name   string
	SHA256 [32]byte // of the key as the client sends it
	May    []Right
}

// Server is heed's HTTP side: Public is for the internet (webhooks and gate), Admin for the operator.
type Server struct {
	Inbox    *Inbox
	Gate     *Gate
	Consents *Consents
	Holds    *Holds
	Ledger   ledger.Ledger
	Keys     *KeyRing
	Limits   *Limits       // nil for none
	Window   time.Duration // for which an opt-out is attributed to the message before it
	Public   string        // base of the public URL, without a trailing slash: what providers sign
	Metrics  *Metrics
	Log      *slog.Logger
	Now      func() time.Time
	// Ready returns why heed is not ready, beside the ledger's own health; nil if it is.
	Ready func() error
	// Routes adds further public routes: the ways in that speak another system's language. May be nil.
	Routes func(mux *http.ServeMux)

	refusedAt atomic.Int64 // when a refused webhook was logged last, Unix seconds
}

const (
	maxWebhook   = 256 << 10 // bytes; providers send a few kilobytes
	maxSend      = 64 << 10
	maxDecisions = 256 << 10 // 1,000 numbers as people write them
	// ackDeadline bounds how long a provider waits for its answer. The most impatient one gives two seconds.
	ackDeadline = 1500 * time.Millisecond
)

// PublicHandler serves what the internet may reach.
func (s *Server) PublicHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /webhooks/{account}", s.webhook)
	mux.HandleFunc("GET /webhooks/{account}", s.webhook) // some providers can be set to GET
	mux.HandleFunc("POST /webhooks/{account}/status", s.webhook)
	mux.Handle("POST /v1/messages", s.authorized(MaySend, maxSend, s.send))
	mux.Handle("GET /v1/messages/{id}", s.authorized(MayRead, 0, s.message))
	mux.Handle("POST /v1/decisions", s.authorized(MayRead, maxDecisions, s.decisions))
	mux.Handle("GET /v1/consents/{number}", s.authorized(MayRead, 0, s.consent))
	mux.Handle("PUT /v1/consents/{number}", s.authorized(MayAdmin, maxSend, s.setConsent))
	mux.Handle("GET /v1/optouts", s.authorized(MayRead, 0, s.optOuts))
	mux.Handle("GET /v1/holds", s.authorized(MayAdmin, 0, s.holds))
	mux.Handle("POST /v1/holds/{number}", s.authorized(MayAdmin, maxSend, s.resolve))
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz(false))
	mux.Handle("GET /openapi.yaml", openapi.Handler())
	if s.Routes != nil {
		s.Routes(mux)
	}
	return s.guard(mux)
}

// AdminHandler serves the operator. extra adds routes that are not for the internet.
func (s *Server) AdminHandler(extra func(mux *http.ServeMux)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz(true))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Metrics.registry, promhttp.HandlerOpts{Registry: s.Metrics.registry, EnableOpenMetrics: true}))
	if extra != nil {
		extra(mux)
	}
	return s.guard(mux)
}

// guard adds what every answer has, turns a panic into 500 and the mux's own plain-text errors into problems.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.Log.Error("request handler panicked", "method", r.Method, "route", r.Pattern, "type", fmt.Sprintf("%T", p))
				writeProblem(w, problemOf(errors.New("panic")))
			}
		}()
		next.ServeHTTP(&problemWriter{ResponseWriter: w}, r)
	})
}

// problemWriter replaces the plain-text bodies of net/http's own 404 and 405.
type problemWriter struct {
	http.ResponseWriter
	replaced bool
}

func (w *problemWriter) WriteHeader(status int) {
	if strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") && (status == 404 || status == 405) {
		w.replaced = true
		w.Header().Del("Content-Length")
		writeProblem(w.ResponseWriter, Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Hint: "GET /openapi.yaml or the README lists the addresses."})
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *problemWriter) Write(b []byte) (int, error) {
	if w.replaced {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

func (w *problemWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// webhook serves POST /webhooks/{account} and its status address.
func (s *Server) webhook(w http.ResponseWriter, r *http.Request) {
	began := s.Now()
	account := r.PathValue("account")
	buf := bodies.Get().(*bytes.Buffer)
	defer func() {
		buf.Reset()
		bodies.Put(buf)
	}()
	if _, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, maxWebhook)); err != nil {
		s.Metrics.webhook(accountLabel(s.Inbox.Accounts, account), "rejected", 0)
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			writeProblem(w, problemOf(err))
			return
		}
		// A body cut short is the network's doing: ask for it again.
		writeProblem(w, Problem{Type: "incomplete", Title: "Incomplete request", Status: 503, Detail: "The body ended before its announced length."})
		return
	}
	// What has arrived is recorded even if the caller hangs up now, but the answer does not wait for ever.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), ackDeadline)
	defer cancel()
	resp, err := s.Inbox.Receive(ctx, account, sms.Webhook{
		Method: r.Method, URL: s.Public + r.URL.RequestURI(), Header: r.Header, Body: buf.Bytes(),
	}, r.URL.Query().Get("message"))
	label := accountLabel(s.Inbox.Accounts, account)
	if err != nil {
		p := problemOf(err)
		if p.Status == 500 || errors.Is(err, context.DeadlineExceeded) {
			// Whatever went wrong here is ours, and the provider must try again: never a 4xx.
			p = problems[0].problem
		}
		result := "unavailable"
		if p.Status < 500 {
			result = "forbidden"
		}
		s.Metrics.webhook(label, result, 0)
		s.logRefusal(label, p.Status, err)
		writeProblem(w, p)
		return
	}
	s.Metrics.webhook(label, "stored", s.Now().Sub(began))
	w.Header().Set("Content-Type", resp.ContentType)
	_, _ = io.WriteString(w, resp.Body)
}

// logRefusal logs what the internet can cause at most once a minute; the metric counts them all.
func (s *Server) logRefusal(account string, status int, err error) {
	if status >= 500 {
		s.Log.Error("webhook could not be stored", "account", account, "status", status, "error", err)
		return
	}
	now := s.Now().Unix()
	if last := s.refusedAt.Load(); now-last >= 60 && s.refusedAt.CompareAndSwap(last, now) {
		s.Log.Warn("webhooks are refused; further ones within a minute are only counted", "account", account, "status", status, "error", err)
	}
}

// accountLabel keeps strangers from inventing label values.
func accountLabel(as Accounts, name string) string {
	if a, ok := as.Find(name); ok && name != "" {
		return a.Name
	}
	return "unknown"
}

// authorized lets a request through whose bearer key has a right, with its body limited and read.
func (s *Server) authorized(right Right, limit int64, fn func(w http.ResponseWriter, r *http.Request, k Key, body []byte) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := func() error {
			k, err := s.key(r)
			if err != nil {
				return err
			}
			if !slices.Contains(k.May, right) {
				return Problem{Type: "forbidden", Title: "Forbidden", Status: 403, Detail: fmt.Sprintf("The key %q may not %s.", k.Name, right),
					Hint: "Add the right to the key in the configuration, or use another key."}
			}
			if err := s.Limits.Ask(k.Name, s.Now()); err != nil {
				return err
			}
			var body []byte
			if limit > 0 {
				if ct, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Header.Get("Content-Type") != "" && (err != nil || ct != "application/json") {
					return Problem{Type: "media-type", Title: "Unsupported media type", Status: 415, Detail: "Send application/json."}
				}
				if body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit)); err != nil {
					var tooLarge *http.MaxBytesError
					if errors.As(err, &tooLarge) {
						return err
					}
					return Problem{Type: "incomplete", Title: "Incomplete request", Status: 400, Detail: "The body ended before its announced length."}
				}
			}
			return fn(w, r, k, body)
		}()
		if err != nil {
			p := problemOf(err)
			var many *TooManyError
			if errors.As(err, &many) {
				s.Metrics.Throttled(many)
			}
			if p.Status >= 500 {
				s.Log.Error("request failed", "route", r.Pattern, "error", err)
			}
			writeProblem(w, p)
		}
	})
}

// key returns the API key of a request.
func (s *Server) key(r *http.Request) (Key, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return Key{}, Problem{Type: "unauthorized", Title: "Unauthorized", Status: 401, Detail: "There is no API key.", Hint: "Send the header Authorization: Bearer KEY."}
	}
	k, ok := s.Keys.Find(strings.TrimSpace(token))
	if !ok {
		return Key{}, Problem{Type: "unauthorized", Title: "Unauthorized", Status: 401, Detail: "The API key is not known.", Hint: "heed keys list shows which keys there are."}
	}
	return k, nil
}

// HashKey returns what the configuration holds for an API key: its SHA-256 in hex.
func HashKey(key string) string {
	h := sha256.Sum256([]byte(key))
	return hex.EncodeToString(h[:])
}

// sendRequest is the body of POST /v1/messages.
type sendRequest struct {
	To        string   `json:"to"`
	From      string   `json:"from"`
	Body      string   `json:"body"`
	MediaURLs []string `json:"media_urls"`
	Account   string   `json:"account"`
	Campaign  string   `json:"campaign"`
	Kind      string   `json:"kind"`
	Record    *crm.Key `json:"record"`
}

// messageResource is a message as the API shows it.
type messageResource struct {
	ID                string          `json:"id"`
	Status            ledger.Status   `json:"status"`
	Decision          consent.Verdict `json:"decision"`
	Reason            consent.Reason  `json:"reason"`
	To                string          `json:"to"`
	From              string          `json:"from,omitempty"`
	Account           string          `json:"account"`
	Campaign          string          `json:"campaign,omitempty"`
	Kind              string          `json:"kind,omitempty"`
	Record            *crm.Key        `json:"record,omitempty"`
	ProviderMessageID *string         `json:"provider_message_id"`
	Delivery          string          `json:"delivery,omitempty"`
	Code              string          `json:"code,omitempty"`
	Error             string          `json:"error,omitempty"`
	CreatedAt         time.Time       `json:"created_at"`
}

func resource(m ledger.Message) messageResource {
	r := messageResource{
		ID: m.ID, Status: m.Status, Decision: m.Decision.Verdict, Reason: m.Decision.Reason, To: m.To.String(), From: m.From,
		Account: m.Account, Campaign: m.Campaign, Kind: m.Purpose, Record: m.Record, Delivery: m.Delivery, Code: m.Code,
		Error: m.Error, CreatedAt: m.CreatedAt,
	}
	if !m.To.IsValid() {
		r.To = m.ToRaw
	}
	if m.ProviderID != "" {
		r.ProviderMessageID = &m.ProviderID
	}
	return r
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, k Key, body []byte) error {
	var in sendRequest
	if err := decodeJSON(body, &in); err != nil {
		return err
	}
	m, existed, err := s.Gate.Send(r.Context(), Send{
		Caller: k.Name, Key: r.Header.Get("Idempotency-Key"), To: in.To, From: in.From, Body: in.Body, MediaURLs: in.MediaURLs,
		Account: in.Account, Campaign: in.Campaign, Purpose: in.Kind, Record: in.Record,
	})
	if err != nil {
		return err
	}
	if m.Decision.Reason == consent.Unavailable {
		return ledger.ErrUnavailable
	}
	if existed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.Header().Set("Location", "/v1/messages/"+m.ID)
	writeJSON(w, http.StatusCreated, resource(m))
	return nil
}

func (s *Server) message(w http.ResponseWriter, r *http.Request, _ Key, _ []byte) error {
	m, err := s.Ledger.Message(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, resource(m))
	return nil
}

func (s *Server) decisions(w http.ResponseWriter, _ *http.Request, _ Key, body []byte) error {
	var in struct {
		Numbers []string `json:"numbers"`
	}
	if err := decodeJSON(body, &in); err != nil {
		return err
	}
	switch {
	case len(in.Numbers) == 0:
		return &InputError{"numbers", "is missing or empty"}
	case len(in.Numbers) > 1000:
		return &InputError{"numbers", fmt.Sprintf("has %d entries, at most 1000 are answered at a time", len(in.Numbers))}
	}
	if err := s.Ledger.Health(); err != nil {
		return err
	}
	out := make([]Decision, len(in.Numbers))
	for i, n := range in.Numbers {
		out[i] = s.Gate.Decide(n)
	}
	writeJSON(w, http.StatusOK, map[string]any{"decisions": out})
	return nil
}

// decodeJSON reads exactly one JSON value, without fields that it does not know: a misspelt field must not be dropped.
func decodeJSON(body []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, err := dec.Token(); err != io.EOF {
			return &InputError{"", "there is something behind the JSON value"}
		}
		return nil
	}
	var typ *json.UnmarshalTypeError
	var syn *json.SyntaxError
	switch {
	case errors.As(err, &typ):
		return &InputError{typ.Field, "must be " + kindName(typ) + ", not " + typ.Value}
	case errors.As(err, &syn):
		return Problem{Type: "json", Title: "Invalid JSON", Status: 422, Detail: "The body is not JSON: at byte " + strconv.FormatInt(syn.Offset, 10) + "."}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Problem{Type: "json", Title: "Invalid JSON", Status: 422, Detail: "The body is empty or ends too early."}
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return &InputError{strings.Trim(field, `"`), "is not a field of this request"}
	}
	return &InputError{"", "cannot be read"}
}

func kindName(e *json.UnmarshalTypeError) string {
	switch e.Type.Kind().String() {
	case "string":
		return "a string"
	case "slice":
		return "a list"
	case "struct", "ptr", "map":
		return "an object"
	}
	return "a " + e.Type.Kind().String()
}

// healthz says that the process lives.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// readyz says whether heed can acknowledge opt-outs and decide on sends. A CRM that is away does not make it unready.
// Why not is for the operator, not for the internet.
func (s *Server) readyz(why bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		err := s.Ledger.Health()
		if err == nil && s.Ready != nil {
			err = s.Ready()
		}
		switch {
		case err == nil:
			writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
		case why:
			writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "unready", "reason": err.Error()})
		default:
			writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "unready"})
		}
	}
}

// NewHTTPServer returns a server with the limits that a listener on the internet needs.
func NewHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      90 * time.Second, // a send waits for its provider
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return context.Background() },
	}
}
