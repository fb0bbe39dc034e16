// Package dropin lets a Twilio client send through heed's gate by changing its base URL and nothing else. [Handler]
// speaks the Messages resource of Twilio's API 2010-04-01 with Twilio's objects and error codes, whatever provider
// carries the messages. A send that heed refuses is answered with error 21610, as Twilio refuses an opted-out
// recipient, so the client's own handling of opt-outs works at once.
//
// # Credentials
//
// The password is an API key of heed's. The user name is an account SID ("AC" and 32 hex digits, such as the one that
// the client has had so far) and must be the one in the path, or an API key SID ("SK…") as Twilio has them. Without a
// password the user name is the API key. Twilio's Go library refuses a password with characters other than letters and
// digits.
//
// [AccountSID] gives each of heed's accounts a SID. Every other SID stands for the first account. Reading needs the
// right "read", everything else the right "send".
//
// # What is refused, and how
//
// A recipient who opted out, in a reply or by a box in the CRM, who waits for review, or whose consent is required and
// missing: 400, code 21610, for all four alike, because it is the one code that makes clients stop. No telephone
// number: 21211. A refusal by the provider: 400 and the provider's own code where it is a number, else 30008. A
// provider that proved to have taken nothing because it was busy: 429, code 20429. A ledger that cannot vouch for its
// state: 503, code 20503. A send whose outcome is not known is 201 and "queued": it must not be repeated. An answer
// with an error leaves no message behind that a list would show. No error repeats a number.
//
// # What it is not
//
// It decides nothing: every message goes through the gate. It is not all of Twilio; what it does not do it refuses
// where ignoring it would change what is sent or what the client is told:
//
//   - ApplicationSid (21609) and ContentSid and ContentVariables (21655): heed has neither.
//   - Redacting (20009) and deleting (20004): the ledger is evidence.
//   - Addresses of other channels, such as "whatsapp:" (21211, 21212).
//
// # Scheduled messages and callbacks
//
// SendAt with ScheduleType=fixed puts a message off, here without a messaging service too: heed itself keeps it, decides
// again when its time comes, and ends it as soon as its number opts out. It can be cancelled until then.
//
// [Relays] posts where a message stands to its StatusCallback, signed as Twilio signs, with the client's heed key in
// place of the auth token. heed does not keep the key for that: what it keeps can sign and cannot log in. Addresses within
// heed's own network and those without TLS are refused unless configured, redirects are not followed, and an address that does not answer is
// tried for a day. A status that was overtaken by the next one before it could be told is left out.
//
// All other parameters are ignored, as Twilio ignores those that it does not know. From may be missing, then the
// account's own sender is used; it goes before MessagingServiceSid, which is passed on as the sender. A list shows
// sent messages and no inbound ones. A page goes on where the one before ended, and a list of one To reads that number's
// history; what else a filter leaves out, and the way back to an earlier page, is walked over. The header Idempotency-Key or
// I-Twilio-Idempotency-Token makes a repeated request harmless. Media are listed as a subresource but not served.
//
// Facts about the protocol come from these pages below https://www.twilio.com/docs: messaging/api/message-resource,
// usage/requests-to-twilio, usage/twilios-response, iam/api-keys, api/errors and api/errors/<code>.
package dropin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

const (
	apiVersion = "2010-04-01"
	root       = "/" + apiVersion + "/"
)

// Handler serves Twilio's Messages API. All fields but Limits are required. It is safe for concurrent use.
type Handler struct {
	// Gate decides and sends; a *connector.Gate.
	Gate interface {
		Send(ctx context.Context, s connector.Send) (_ ledger.Message, existed bool, _ error)
		Cancel(ctx context.Context, id string) (ledger.Message, error)
	}
	// Ledger holds the messages; any ledger.Ledger.
	Ledger interface {
		Message(ctx context.Context, id string) (ledger.Message, error)
		Messages(ctx context.Context, status ledger.Status) iter.Seq2[ledger.Message, error]
		MessagesBefore(ctx context.Context, id string) iter.Seq2[ledger.Message, error]
		History(ctx context.Context, n phone.Number) iter.Seq2[ledger.Event, error]
	}
	// Key returns the API key with a secret, in a time that does not tell how near a wrong one was.
	Key func(secret string) (connector.Key, bool)
	// Accounts are the names of the configured accounts. The first one is the default.
	Accounts []string
	Limits   *connector.Limits  // of each API key; nil for none
	Metrics  *connector.Metrics // may be nil
	Log      *slog.Logger
	Now      func() time.Time // time.Now if nil
	// AllowPrivate lets callbacks name addresses within heed's own network, and be without TLS; see NewClient.
	AllowPrivate bool
}

var _ http.Handler = (*Handler)(nil)

// Register adds the API to mux, as everything below /2010-04-01/.
func (h *Handler) Register(mux *http.ServeMux) { mux.Handle(root, h) }

// AccountSID returns the SID by which a Twilio client names one of heed's accounts: "AC" and 32 hex digits that depend
// on nothing but its name.
func AccountSID(name string) string {
	sum := sha256.Sum256([]byte("heed account " + name))
	return "AC" + hex.EncodeToString(sum[:16])
}

// account returns the name of the account that a SID stands for.
func (h *Handler) account(sid string) string {
	i := slices.IndexFunc(h.Accounts, func(name string) bool { return AccountSID(name) == sid })
	return h.Accounts[max(i, 0)]
}

// call is an authenticated request for messages of an account.
type call struct {
	*http.Request
	key     connector.Key
	secret  string // the key itself
	sid     string // of the account, as the client names it
	account string // of heed's
}

// ServeHTTP answers a request for a path below /2010-04-01/.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, body, err := h.serve(w, r)
	if err != nil {
		e := errorOf(err)
		if e.Status >= 500 {
			h.Log.Error("request failed", "route", "twilio messages", "status", e.Status, "code", e.Code, "error", err)
		}
		switch e.Status {
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", `Basic realm="heed"`)
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			wait := 5
			var many *connector.TooManyError
			if errors.As(err, &many) {
				wait = many.RetryAfterSeconds()
				h.Metrics.Throttled(many)
			}
			w.Header().Set("Retry-After", strconv.Itoa(wait))
		}
		status, body = e.Status, e
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// serve finds and calls what the path and the method name.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request) (status int, body any, _ error) {
	part := strings.Split(strings.TrimPrefix(r.URL.Path, root), "/")
	c := call{Request: r}
	if part[0] == "Accounts" && len(part) > 1 {
		c.sid = strings.TrimSuffix(part[1], ".json")
	}
	if err := h.authenticate(&c); err != nil {
		return 0, nil, err
	}
	last, isJSON := strings.CutSuffix(part[len(part)-1], ".json")
	if !isJSON || !isSID(c.sid, "AC") || len(part) < 3 || len(part) > 4 {
		return 0, nil, errNotFound
	}
	part[len(part)-1] = last
	if part[2] != "Messages" {
		return 0, nil, errNotFound
	}
	c.account = h.account(c.sid)
	right := connector.MaySend
	if r.Method == http.MethodGet {
		right = connector.MayRead
	}
	if !slices.Contains(c.key.May, right) {
		return 0, nil, failure(http.StatusForbidden, 20003, "Permission Denied: the key may not "+string(right))
	}
	if err := h.Limits.Ask(c.key.Name, time.Now()); err != nil {
		return 0, nil, err
	}
	one := len(part) == 4
	switch {
	case r.Method == http.MethodPost && one:
		return h.update(w, c, last)
	case r.Method == http.MethodPost:
		return h.create(w, c)
	case r.Method == http.MethodGet && one:
		m, err := h.message(c, last)
		return http.StatusOK, render(m, c.sid), err
	case r.Method == http.MethodGet:
		page, err := h.list(c)
		return http.StatusOK, page, err
	}
	w.Header().Set("Allow", "GET, POST")
	return 0, nil, failure(http.StatusMethodNotAllowed, 20004, "Method not allowed")
}

// authenticate finds the caller's key.
func (h *Handler) authenticate(c *call) error {
	user, secret, _ := c.BasicAuth()
	switch {
	case secret == "":
		secret = user
	case isSID(user, "SK"):
	case c.sid != "" && c.sid != user:
		return errUnauthorized
	}
	key, ok := h.Key(secret)
	if secret == "" || !ok {
		return errUnauthorized
	}
	c.key, c.secret = key, secret
	return nil
}

// create is POST Messages.json.
func (h *Handler) create(w http.ResponseWriter, c call) (status int, body any, _ error) {
	form, err := readForm(w, c.Request)
	if err != nil {
		return 0, nil, err
	}
	now := h.Now
	if now == nil {
		now = time.Now
	}
	s, err := parseSend(form, now())
	if err != nil {
		return 0, nil, err
	}
	if s.Callback != nil {
		u, _ := url.Parse(s.Callback.URL)
		switch {
		case h.AllowPrivate:
		case u.Scheme != "https": // what is told there names a person's number
			return 0, nil, badRequest(21609, "The 'StatusCallback' URL must begin with https://")
		case private(u.Hostname()):
			return 0, nil, badRequest(21609, "The 'StatusCallback' URL is within heed's own network")
		}
		s.Callback.As, s.Callback.Signer = c.sid, newSigner(c.secret)
	}
	s.Caller, s.Account, s.Key = c.key.Name, c.account, c.Header.Get("Idempotency-Key")
	if s.Key == "" {
		s.Key = c.Header.Get("I-Twilio-Idempotency-Token")
	}
	m, existed, err := h.Gate.Send(c.Context(), s)
	if err != nil {
		return 0, nil, err
	}
	if existed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	if e := refusal(m); e != nil {
		return 0, nil, e
	}
	return http.StatusCreated, render(m, c.sid), nil
}

// update is POST Messages/{sid}.json. A message that waits can be cancelled; the answer to everything else says why not.
func (h *Handler) update(w http.ResponseWriter, c call, sid string) (status int, body any, _ error) {
	form, err := readForm(w, c.Request)
	if err != nil {
		return 0, nil, err
	}
	m, err := h.message(c, sid)
	if err != nil {
		return 0, nil, err
	}
	text, redact := form["Body"]
	switch {
	case form.Get("Status") == "canceled":
		m, err := h.Gate.Cancel(c.Context(), m.ID)
		if errors.Is(err, connector.ErrStarted) {
			err = badRequest(30409, "Message cannot be canceled: its status is "+render(m, c.sid).Status)
		}
		return http.StatusOK, render(m, c.sid), err
	case redact && text[0] == "":
		return 0, nil, badRequest(20009, "Cannot redact: heed keeps what was sent as evidence")
	}
	return 0, nil, badRequest(20001, "A message that was sent cannot be changed")
}

// message returns a message of the caller's account. A message whose send was refused is found too: its SID may have
// been told while it was not yet clear.
func (h *Handler) message(c call, sid string) (ledger.Message, error) {
	id, ok := messageID(sid)
	if !ok {
		return ledger.Message{}, errNotFound
	}
	m, err := h.Ledger.Message(c.Context(), id)
	if err == nil && (m.Account != c.account || messageSID(m) != sid) {
		err = errNotFound
	}
	return m, err
}

var hex32 = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)

// isSID reports whether s is one of Twilio's identifiers of a kind.
func isSID(s, prefix string) bool {
	digits, ok := strings.CutPrefix(s, prefix)
	return ok && hex32.MatchString(digits)
}

// apiError is Twilio's error document.
type apiError struct {
	Code     int    `json:"code"`
	Message  string `json:"message"`
	MoreInfo string `json:"more_info"`
	Status   int    `json:"status"`
}

func (e *apiError) Error() string { return e.Message }

// errorOf is the one table from error to answer.
func errorOf(err error) *apiError {
	var e *apiError
	var input *connector.InputError
	var many *connector.TooManyError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &many):
		return failure(http.StatusTooManyRequests, 20429, "Too Many Requests: nothing was recorded or sent")
	case errors.As(err, &input):
		return badRequest(20001, input.Error())
	case errors.Is(err, ledger.ErrUnavailable):
		return errUnavailable
	case errors.Is(err, ledger.ErrKeyReused):
		return failure(http.StatusConflict, 20409, "The idempotency key was used before, for a different message; nothing was sent")
	case errors.Is(err, ledger.ErrNotFound):
		return errNotFound
	}
	return failure(http.StatusInternalServerError, 20500, "Internal Server Error")
}
