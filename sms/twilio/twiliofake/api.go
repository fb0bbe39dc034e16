package twiliofake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const apiVersion = "2010-04-01"

// apiError is Twilio's error body.
type apiError struct {
	Code     int    `json:"code"`
	Message  string `json:"message"`
	MoreInfo string `json:"more_info"`
	Status   int    `json:"status"`
}

func failure(status, code int, format string, args ...any) *apiError {
	return &apiError{code, fmt.Sprintf(format, args...), "https://www.twilio.com/docs/errors/" + strconv.Itoa(code), status}
}

var (
	errThrottled = failure(http.StatusTooManyRequests, 20429, "Too Many Requests")
	errStoreFull = failure(http.StatusInsufficientStorage, 20500, "The emulator's message store is full; start a new one")
)

func notFound(r *http.Request) *apiError {
	return failure(http.StatusNotFound, 20404, "The requested resource %s was not found", r.URL.Path)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // unreachable: all types here marshal
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// Handler serves the API below /2010-04-01, the one call of the Consent Management API, and the controls below /sandbox. It needs no time limits from its
// http.Server: it reads at most 64 KB and keeps no request longer than about two minutes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/"+apiVersion+"/", s.serveAPI)
	mux.HandleFunc(consentsPath, s.serveAPI)
	s.sandboxRoutes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { e := notFound(r); writeJSON(w, e.Status, e) })
	return mux
}

// serveAPI is what all calls of the API have in common: the knobs, credentials, account, form and answer.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Twilio-Concurrent-Requests", strconv.FormatInt(s.inflight.Add(1), 10))
	defer s.inflight.Add(-1)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	formErr := r.ParseForm() // reads the body first, so that a client which hangs up is noticed

	s.mu.Lock()
	k := s.knobs
	throttle, cut := s.roll(k.ThrottleRate), s.roll(k.BadJSONRate)
	s.releaseDue()
	w.Header().Set("Twilio-Request-Id", "RQ"+s.hex32())
	s.mu.Unlock()
	if k.LatencyMS > 0 && !s.sleep(r, time.Duration(k.LatencyMS)*time.Millisecond) {
		panic(http.ErrAbortHandler)
	}
	user, password, _ := r.BasicAuth()
	known := user == s.o.AccountSID && password == s.o.AuthToken || user == s.o.APIKeySID && password == s.o.APIKeySecret
	if !known || k.ExpireAuth {
		w.Header().Set("WWW-Authenticate", `Basic realm="Twilio API"`)
		e := failure(http.StatusUnauthorized, 20003, "Authenticate")
		writeJSON(w, e.Status, e)
		return
	}
	status, body, e := 0, any(nil), (*apiError)(nil)
	switch {
	case formErr != nil:
		e = failure(http.StatusBadRequest, 20001, "The request body cannot be read as a form of at most %d bytes", maxBody)
	case throttle:
		e = errThrottled
	default:
		status, body, e = s.route(w, r, &cut)
	}
	switch {
	case status < 0: // answered already
	case e != nil:
		writeJSON(w, e.Status, e)
	case status == http.StatusNoContent:
		w.WriteHeader(status)
	case cut:
		b, _ := json.Marshal(body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(b[:len(b)/2])
	default:
		writeJSON(w, status, body)
	}
}

// route finds and calls the resource. A negative status means that the answer has been written.
func (s *Server) route(w http.ResponseWriter, r *http.Request, cut *bool) (status int, body any, e *apiError) {
	if r.URL.Path == consentsPath {
		return s.setConsents(r)
	}
	part := strings.Split(strings.TrimPrefix(r.URL.Path, "/"+apiVersion+"/"), "/")
	last, isJSON := strings.CutSuffix(part[len(part)-1], ".json")
	part[len(part)-1] = last
	if !isJSON || part[0] != "Accounts" || len(part) < 2 || part[1] != s.o.AccountSID {
		return 0, nil, notFound(r)
	}
	m := r.Method
	switch {
	case len(part) == 2 && m == http.MethodGet:
		return http.StatusOK, s.account(), nil
	case len(part) == 3 && part[2] == "IncomingPhoneNumbers" && m == http.MethodGet:
		return s.listNumbers(r.Form)
	case len(part) == 3 && part[2] == "Messages" && m == http.MethodGet:
		return s.listMessages(r.Form)
	case len(part) == 3 && part[2] == "Messages" && m == http.MethodPost:
		return s.send(w, r, cut)
	case len(part) == 4 && part[2] == "Messages" && slices.Contains([]string{"GET", "POST", "DELETE"}, m):
		return s.oneMessage(r, part[3])
	case len(part) == 2, len(part) == 3 && (part[2] == "IncomingPhoneNumbers" || part[2] == "Messages"), len(part) == 4 && part[2] == "Messages":
		return 0, nil, failure(http.StatusMethodNotAllowed, 20004, "Method not allowed")
	}
	return 0, nil, notFound(r)
}

// sleep waits and reports false if the client or the emulator went away first.
func (s *Server) sleep(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-s.ctx.Done():
	}
	return false
}

// send is POST Messages.json.
func (s *Server) send(w http.ResponseWriter, r *http.Request, cut *bool) (int, any, *apiError) {
	html := func() (int, any, *apiError) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte("<html><head><title>500</title></head><body><h1>Internal Server Error</h1></body></html>\n"))
		return -1, nil, nil
	}
	s.mu.Lock()
	outcome := ""
	switch k := &s.knobs; {
	case len(k.NextSend) > 0:
		outcome, k.NextSend = k.NextSend[0], k.NextSend[1:]
		*cut = outcome == OutcomeBadJSON
	case s.roll(k.SendErrorRate):
		outcome = Outcome500
	case s.roll(k.SendTimeoutAfterAcceptRate):
		outcome = OutcomeTimeoutAfterAccept
	}
	s.mu.Unlock()
	switch outcome {
	case Outcome500:
		return html()
	case Outcome429:
		return 0, nil, errThrottled
	case Outcome307:
		w.Header().Set("Location", r.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
		return -1, nil, nil
	case OutcomeReset:
		panic(http.ErrAbortHandler)
	}

	s.mu.Lock()
	m, e := s.accept(r.PostForm)
	var answer messageJSON
	if e == nil {
		answer = s.render(m)
		if m.status != "scheduled" {
			s.start(m)
		}
	}
	s.mu.Unlock()
	if e != nil {
		return 0, nil, e
	}
	s.o.Logger.Debug("message accepted", "sid", answer.SID, "to", mask(answer.To))
	switch outcome {
	case OutcomeTimeoutAfterAccept:
		s.sleep(r, maxHang)
		panic(http.ErrAbortHandler)
	case OutcomeResetAfterAccept:
		panic(http.ErrAbortHandler)
	case Outcome500AfterAccept:
		return html()
	}
	return http.StatusCreated, answer, nil
}

// Magic numbers (iam/test-credentials), which fail whatever the account's state is.
var (
	magicFrom = map[string]*apiError{
		"+15005550001": failure(400, 21212, "The 'From' number +15005550001 is not a valid phone number, shortcode, or alphanumeric sender ID."),
		"+15005550007": failure(400, 21606, "The 'From' phone number provided (+15005550007) is not a valid message-capable Twilio phone number for this destination"),
		"+15005550008": failure(400, 21611, "This 'From' number has exceeded the maximum number of queued messages"),
	}
	magicTo = map[string]*apiError{
		"+15005550001": failure(400, 21211, "Invalid 'To' Phone Number: +1500555XXXX"),
		"+15005550002": failure(400, 21612, "Message cannot be sent with the current combination of 'To' (+1500555XXXX) and/or 'From' parameters"),
		"+15005550003": failure(400, 21408, "Permission to send an SMS or MMS has not been enabled for the region indicated by the 'To' number: +1500555XXXX"),
		"+15005550004": errOptedOut,
		"+15005550009": failure(400, 21614, "To number: +1500555XXXX, is not a mobile number"),
	}
	errOptedOut = failure(400, 21610, "Attempt to send to unsubscribed recipient")
)

const goodMagicFrom = "+15005550006"

// accept checks a send in Twilio's order and records the message with its first status. The caller holds the lock.
func (s *Server) accept(f url.Values) (*message, *apiError) {
	bad := func(code int, format string, args ...any) (*message, *apiError) {
		return nil, failure(http.StatusBadRequest, code, format, args...)
	}
	to, from, service, body := f.Get("To"), f.Get("From"), f.Get("MessagingServiceSid"), f.Get("Body")
	media := f["MediaUrl"]
	switch {
	case to == "":
		return bad(21604, "A 'To' phone number is required.")
	case from == "" && service == "":
		return bad(21603, "A 'From' phone number is required.")
	case body == "" && len(media) == 0 && f.Get("ContentSid") == "":
		return bad(21602, "Message body is required.")
	case f.Get("ContentSid") != "":
		return bad(21655, "The ContentSid is invalid: the emulator has no content templates")
	case !e164.MatchString(to) || strings.HasPrefix(to, "+1") && len(to) != 12:
		return bad(21211, "Invalid 'To' Phone Number: %s", mask(to))
	case !utf8.ValidString(body):
		return bad(20001, "Body is not valid UTF-8")
	case utf8.RuneCountInString(body) > maxText:
		return bad(21617, "The concatenated message body exceeds the 1600 character limit")
	case len(media) > 10:
		return bad(21623, "Number of media files exceeds allowed limit")
	}
	for _, u := range media {
		if !validURL(u) {
			return bad(21620, "Invalid media URL(s)")
		}
	}
	if cb := f.Get("StatusCallback"); cb != "" && !validURL(cb) {
		return bad(21609, "The 'StatusCallback' URL %s is not a valid URL.", cb)
	}
	if service != "" && service != s.service {
		return bad(21705, "The Messaging Service Sid %s is invalid.", service)
	}
	if e := magicFrom[from]; e != nil {
		return nil, e
	}
	switch {
	case from == "" || s.ours(from) || from == goodMagicFrom:
	case e164.MatchString(from):
		return bad(21659, "'From' %s is not a Twilio phone number or Short Code country mismatch", mask(from))
	default:
		return bad(21212, "The 'From' number %s is not a valid phone number, shortcode, or alphanumeric sender ID.", from)
	}
	if to == from {
		return bad(21266, "'To' and 'From' number cannot be the same: %s", mask(to))
	}
	if e := magicTo[to]; e != nil {
		return nil, e
	}
	due, e := s.dueTime(f, service)
	if e != nil {
		return nil, e
	}
	if s.mayNotWrite(service, from, to) && !s.knobs.Async21610 && due.IsZero() {
		return nil, errOptedOut
	}
	switch {
	case s.closed:
		return nil, failure(http.StatusServiceUnavailable, 20503, "The emulator is closed")
	case s.full(1):
		return nil, errStoreFull
	}
	m := &message{from: from, to: to, service: service, text: body, media: len(media), direction: "outbound-api",
		status: "queued", callback: f.Get("StatusCallback"), due: due}
	if service != "" {
		m.status = "accepted"
	}
	if !due.IsZero() {
		m.status = "scheduled"
		s.schedule = append(s.schedule, m)
	}
	s.record(m)
	return m, nil
}

// dueTime reads SendAt: only through a service, and 5 minutes to 35 days ahead.
func (s *Server) dueTime(f url.Values, service string) (time.Time, *apiError) {
	at := f.Get("SendAt")
	if at == "" && f.Get("ScheduleType") == "" {
		return time.Time{}, nil
	}
	due, err := time.Parse(time.RFC3339, at)
	switch ahead := due.Sub(s.now()); {
	case service == "":
		return due, failure(http.StatusBadRequest, 35118, "MessagingServiceSid is required to schedule a message")
	case f.Get("ScheduleType") != "fixed" || err != nil:
		return due, failure(http.StatusBadRequest, 35114, "SendAt and ScheduleType=fixed are required together; SendAt is ISO 8601")
	case ahead < 5*time.Minute || ahead > 35*24*time.Hour:
		return due, failure(http.StatusBadRequest, 35111, "SendAt must be between 300 seconds and 35 days in the future")
	}
	return due, nil
}

// releaseDue sends the scheduled messages whose time has come. The caller holds the lock.
func (s *Server) releaseDue() {
	if len(s.schedule) == 0 {
		return
	}
	now := s.now()
	s.schedule = slices.DeleteFunc(s.schedule, func(m *message) bool {
		if m.status == "scheduled" && m.due.After(now) {
			return false
		}
		if m.status == "scheduled" {
			s.start(m)
		}
		return true
	})
}

// start sends an accepted message; a service chooses its sender now. The caller holds the lock.
func (s *Server) start(m *message) {
	optedOut := s.mayNotWrite(m.service, m.from, m.to)
	if m.from == "" {
		m.from = s.o.Numbers[0]
	}
	s.dispatch(m, optedOut)
}

// validURL is Twilio's idea of a callback URL: absolute, and no underscore in the host.
func validURL(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && !strings.Contains(u.Hostname(), "_")
}

// oneMessage is GET, POST (cancel or redact) and DELETE of Messages/{sid}.json.
func (s *Server) oneMessage(r *http.Request, sid string) (int, any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.bySID[sid]
	if m == nil || m.deleted {
		return 0, nil, notFound(r)
	}
	switch r.Method {
	case http.MethodDelete:
		if !m.final() {
			return 0, nil, failure(http.StatusBadRequest, 20009, "Cannot delete because delivery of message has not been completed.")
		}
		m.deleted, m.body = true, ""
		return http.StatusNoContent, nil, nil
	case http.MethodPost:
		status, cancel := r.PostForm["Status"]
		body, redact := r.PostForm["Body"]
		switch {
		case cancel && status[0] != "canceled", !cancel && !redact, redact && body[0] != "":
			return 0, nil, failure(http.StatusBadRequest, 20001, "Only Status=canceled and an empty Body can be set")
		case cancel && m.status != "scheduled":
			return 0, nil, failure(http.StatusBadRequest, 30409, "Message cannot be canceled: its status is %s", m.status)
		case redact && !cancel && !m.final():
			return 0, nil, failure(http.StatusBadRequest, 20009, "Cannot redact because delivery of message has not been completed.")
		}
		if cancel {
			m.status = "canceled"
		}
		if redact {
			m.body = ""
		}
		m.updated = s.now()
	}
	return http.StatusOK, s.render(m), nil
}

// messageJSON is the Message resource.
type messageJSON struct {
	Body            string            `json:"body"`
	NumSegments     string            `json:"num_segments"`
	Direction       string            `json:"direction"`
	From            *string           `json:"from"`
	DateUpdated     *string           `json:"date_updated"`
	Price           *string           `json:"price"`
	ErrorMessage    *string           `json:"error_message"`
	URI             string            `json:"uri"`
	AccountSID      string            `json:"account_sid"`
	NumMedia        string            `json:"num_media"`
	To              string            `json:"to"`
	DateCreated     *string           `json:"date_created"`
	Status          string            `json:"status"`
	SID             string            `json:"sid"`
	DateSent        *string           `json:"date_sent"`
	ServiceSID      *string           `json:"messaging_service_sid"`
	ErrorCode       *int              `json:"error_code"`
	PriceUnit       string            `json:"price_unit"`
	APIVersion      string            `json:"api_version"`
	SubresourceURIs map[string]string `json:"subresource_uris"`
}

// render is the resource as it is now. The caller holds the lock.
func (s *Server) render(m *message) messageJSON {
	uri := s.uri("/Messages/" + m.sid)
	j := messageJSON{
		Body: m.body, NumSegments: strconv.Itoa(m.segments), Direction: m.direction, From: orNull(m.from),
		DateUpdated: date(m.updated), URI: uri + ".json", AccountSID: s.o.AccountSID, NumMedia: strconv.Itoa(m.media),
		To: m.to, DateCreated: date(m.created), Status: m.status, SID: m.sid, DateSent: date(m.sent),
		ServiceSID: orNull(m.service), PriceUnit: "USD", APIVersion: apiVersion,
		SubresourceURIs: map[string]string{"media": uri + "/Media.json"},
	}
	if m.from == "" {
		j.NumSegments = "0" // not known before the service has chosen a sender
	}
	if m.errorCode != 0 {
		code := m.errorCode // a copy: it is marshalled outside the lock
		j.ErrorCode, j.ErrorMessage = &code, &errOptedOut.Message
	}
	return j
}

// uri is a path of the account, relative to the API's host.
func (s *Server) uri(rest string) string {
	return "/" + apiVersion + "/Accounts/" + s.o.AccountSID + rest
}

// date is RFC 2822 in GMT, or null.
func date(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	d := t.Format("Mon, 02 Jan 2006 15:04:05 +0000")
	return &d
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (s *Server) account() any {
	sub := map[string]string{}
	for name, rest := range map[string]string{"messages": "/Messages", "incoming_phone_numbers": "/IncomingPhoneNumbers"} {
		sub[name] = s.uri(rest + ".json")
	}
	return map[string]any{
		"sid": s.o.AccountSID, "owner_account_sid": s.o.AccountSID, "friendly_name": "Emulated account",
		"auth_token": s.o.AuthToken, "status": "active", "type": "Full", "date_created": date(s.started),
		"date_updated": date(s.started), "uri": s.uri(".json"), "subresource_uris": sub,
	}
}
