// Package twiliofake is a Twilio emulator that is strict and misbehaves on purpose: it rejects what Twilio rejects,
// with Twilio's error bodies, keeps Twilio's own STOP list, signs and retries webhooks like Twilio, and fails, drops,
// doubles and reorders when a knob says so. `heed sandbox`, `heed demo` and tests run against it, and so can any
// Twilio helper library: only the base URL differs.
//
// It is written from Twilio's documentation alone and must never import the driver that it is used to test, or a
// misreading would be made twice and go unseen. It is not a mock to be scripted call by call, it holds everything in
// memory, and it is no place for real phone numbers: the routes below /sandbox need no credentials.
//
// Sources, all below https://www.twilio.com/docs: messaging/api/message-resource (resource, statuses, list filters),
// usage/requests-to-twilio (credentials, errors), usage/twilios-response (paging), usage/security (signature),
// usage/webhooks/messaging-webhooks (inbound fields), usage/webhooks/webhooks-connection-overrides (time-outs and
// retries), iam/test-credentials (magic numbers), messaging/tutorials/advanced-opt-out,
// messaging/features/consent-api, api/errors/<code>; and
// support.twilio.com articles 223134027 (default keywords and replies) and 360058144374 (toll-free keywords).
package twiliofake

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Options describe the emulated account. The zero value works: whatever is empty is generated from Seed.
type Options struct {
	AccountSID   string // "AC" and 32 hex digits
	AuthToken    string // signs every webhook; 32 hex digits
	APIKeySID    string // "SK" and 32 hex digits; the second way to log in
	APIKeySecret string

	// Numbers are the account's own numbers in E.164; default +15550100000. Numbers beginning +1800, 833, 844, 855,
	// 866, 877 and 888 are toll-free and get the network's STOP handling instead of Twilio's.
	Numbers []string

	// MessagingServiceSID ("MG" and 32 hex digits) is a service with all Numbers as its senders. The service exists
	// even if this is empty (see Server.MessagingServiceSID), but only a given SID is named in inbound webhooks.
	MessagingServiceSID string

	// WebhookURL receives inbound messages, for all numbers. A fragment carries Twilio's connection overrides
	// (#rc=3&rp=all). Empty: inbound messages are logged and nobody is called.
	WebhookURL string

	Now    func() time.Time // default time.Now; the emulator's clock never goes back, whatever this returns
	Client *http.Client     // makes webhook requests; redirects are never followed. Default: one of its own
	Logger *slog.Logger     // default: discards. Never gets a body or a full phone number

	// Seed makes SIDs, generated credentials and the dice of the knobs repeatable. 0 takes a random one, so that two
	// runs do not use the same SIDs.
	Seed uint64

	// MaxMessages bounds what is kept; default 1,000,000. Beyond it sends and texts are refused with status 507.
	MaxMessages int
}

// Server is the emulator. All methods are safe for concurrent use.
type Server struct {
	o       Options
	service string // messaging service SID
	client  *http.Client
	ownConn func() // closes idle connections of our own client
	started time.Time

	ctx      context.Context // ends at Close
	cancel   context.CancelFunc
	inflight atomic.Int64

	mu       sync.Mutex // guards everything below; never held during I/O
	idle     *sync.Cond // signalled when the last worker ends
	closed   bool
	last     time.Time
	ids      *rand.ChaCha8 // SIDs; apart from dice, so that knobs do not change SIDs
	dice     *rand.Rand
	webhook  string
	knobs    Knobs
	log      []*message          // by creation, oldest first: what Messages.json lists
	bySID    map[string]*message // of log
	phones   map[string][]*message
	kept     int // messages in phones or log
	blocked  map[pair]bool
	network  map[pair]bool // of blocked: the network's own blocks, after a STOP to a toll-free number
	schedule []*message    // not yet due
	held     []*delivery
	jobs     []func()
	workers  int
}

// pair is who may not write to whom: one of our numbers or the messaging service, and a phone.
type pair struct{ sender, phone string }

const (
	maxBody     = 64 << 10 // of any request or webhook answer, bytes
	maxText     = 1600     // characters, Twilio error 21617
	maxWorkers  = 32       // concurrent status callback sequences
	maxHang     = time.Minute
	reorderHold = 2 * time.Second // a held webhook is sent after this at the latest
)

var e164 = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// New returns an emulator for one account. It listens nowhere: serve its Handler.
func New(o Options) *Server {
	for o.Seed == 0 {
		var b [8]byte
		_, _ = crand.Read(b[:]) // never fails, see crypto/rand
		o.Seed = binary.LittleEndian.Uint64(b[:])
	}
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], o.Seed)
	s := &Server{
		ids:     rand.NewChaCha8(seed),
		dice:    rand.New(rand.NewPCG(o.Seed, 0x5eed)),
		bySID:   map[string]*message{},
		phones:  map[string][]*message{},
		blocked: map[pair]bool{},
		network: map[pair]bool{},
		webhook: o.WebhookURL,
		ownConn: func() {},
	}
	s.idle = sync.NewCond(&s.mu)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	// Always drawn, so that a given SID does not shift the generated ones after it.
	orElse := func(given *string, prefix string) {
		if v := prefix + s.hex32(); *given == "" {
			*given = v
		}
	}
	orElse(&o.AccountSID, "AC")
	orElse(&o.AuthToken, "")
	orElse(&o.APIKeySID, "SK")
	orElse(&o.APIKeySecret, "")
	s.service = o.MessagingServiceSID
	orElse(&s.service, "MG")
	if len(o.Numbers) == 0 {
		o.Numbers = []string{"+15550100000"}
	}
	o.Numbers = slices.Clone(o.Numbers)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxMessages <= 0 {
		o.MaxMessages = 1_000_000
	}
	c := http.Client{}
	if o.Client != nil {
		c = *o.Client
	} else {
		t := &http.Transport{
			DialContext:         (&net.Dialer{}).DialContext,
			MaxIdleConnsPerHost: maxWorkers,
			IdleConnTimeout:     30 * time.Second,
		}
		c.Transport, s.ownConn = t, t.CloseIdleConnections
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s.client, s.o = &c, o
	s.started = s.now()
	return s
}

// AccountSID returns the account's SID, given or generated.
func (s *Server) AccountSID() string { return s.o.AccountSID }

// AuthToken returns the account's primary auth token, given or generated.
func (s *Server) AuthToken() string { return s.o.AuthToken }

// APIKey returns the SID and the secret of the account's API key, given or generated.
func (s *Server) APIKey() (sid, secret string) { return s.o.APIKeySID, s.o.APIKeySecret }

// MessagingServiceSID returns the SID of the service whose senders are all Numbers, given or generated.
func (s *Server) MessagingServiceSID() string { return s.service }

// Numbers returns the account's own numbers.
func (s *Server) Numbers() []string { return slices.Clone(s.o.Numbers) }

// SetWebhook changes where inbound messages go. Status callbacks go to the StatusCallback given with each send.
func (s *Server) SetWebhook(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.webhook = url
}

// Knobs returns the present misbehaviour.
func (s *Server) Knobs() Knobs {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.knobs.clone()
}

// SetKnobs replaces all knobs, or changes none and says why. Webhooks held back for reordering are sent when
// WebhookReorder goes below 2.
func (s *Server) SetKnobs(k Knobs) error {
	return s.changeKnobs(func(now *Knobs) error { *now = k.clone(); return nil })
}

// changeKnobs applies change to the present knobs in one step: two concurrent changes are both kept.
func (s *Server) changeKnobs(change func(*Knobs) error) error {
	s.mu.Lock()
	k := s.knobs.clone()
	err := change(&k)
	if err == nil {
		err = k.validate()
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.knobs = k
	var release []*delivery
	if k.WebhookReorder < 2 {
		release = s.takeHeld()
	}
	s.mu.Unlock()
	s.deliverAll(release)
	return nil
}

// Text is one line of a phone's conversation.
type Text struct {
	SID  string    `json:"sid"`
	From string    `json:"from"`
	To   string    `json:"to"`
	Body string    `json:"body"`
	At   time.Time `json:"at"`
}

// Inbox returns everything that a phone received and sent, in order: texts from it, messages that arrived, Twilio's
// and the network's own replies. A message is on the phone by the time its send was answered.
func (s *Server) Inbox(phone string) []Text {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Text, 0, len(s.phones[phone]))
	for _, m := range s.phones[phone] {
		out = append(out, Text{m.sid, m.from, m.to, m.text, m.created})
	}
	return out
}

// OptedOut reports whether sender (one of our numbers, or the messaging service's SID) may not write to phone.
func (s *Server) OptedOut(sender, phone string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocked[pair{sender, phone}]
}

// A TextOption adds something to a text.
type TextOption func(*inbound)

// WithOptOutType makes Twilio flag the text as STOP, START or HELP, and act on it, whatever its words are: a keyword
// of the account's own, configured in Advanced Opt-Out.
func WithOptOutType(t string) TextOption { return func(in *inbound) { in.optOutType = t } }

// WithMedia attaches media to the text, at most ten.
func WithMedia(urls ...string) TextOption { return func(in *inbound) { in.media = urls } }

// Delivery is what became of an inbound message's webhook.
type Delivery struct {
	SID      string `json:"-"`
	Attempts int    `json:"attempts"` // HTTP requests made
	Status   int    `json:"status"`   // of the last answer; 0 if there was none
	Error    string `json:"error"`    // what Twilio's debugger would show, beginning with its code; "" if all is well
}

// WebhookError says that a text was received by Twilio but its webhook did not end well.
type WebhookError struct{ Delivery Delivery }

func (e *WebhookError) Error() string {
	return fmt.Sprintf("webhook for %s: %d attempts, last status %d: %s", e.Delivery.SID, e.Delivery.Attempts, e.Delivery.Status, e.Delivery.Error)
}

// Text lets a phone text one of our numbers and returns the message's SID after the webhook attempts have ended. The
// error is a *WebhookError if Twilio has the message but the webhook failed or was held back by a knob; with any other
// error there is no message.
func (s *Server) Text(from, to, body string, opts ...TextOption) (sid string, err error) {
	d, err := s.Deliver(from, to, body, opts...)
	if err == nil && d.Error != "" {
		err = &WebhookError{d}
	}
	return d.SID, err
}

// Deliver is Text with the whole outcome. The error is only about the text itself.
func (s *Server) Deliver(from, to, body string, opts ...TextOption) (Delivery, error) {
	in := inbound{from: from, to: to, body: body}
	for _, o := range opts {
		o(&in)
	}
	if err := s.checkInbound(&in); err != nil {
		return Delivery{}, err
	}
	return s.receive(in)
}

// Wait returns when all status callbacks, and webhooks held for reordering, have been tried.
func (s *Server) Wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.workers > 0 {
		s.idle.Wait()
	}
}

// Close stops deliveries, ends hanging requests and waits for the emulator's goroutines. Later sends are refused.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed, s.jobs, s.held = true, nil, nil
	s.mu.Unlock()
	s.cancel()
	s.Wait()
	s.ownConn()
}

// message is one entry of the message log, or a network reply that only the phone knows.
type message struct {
	sid, from, to, service string
	text                   string // as sent; what the phone shows
	body                   string // as the log shows it: empty once redacted
	direction, status      string
	created, sent, updated time.Time // sent is zero until it is sent; seconds are what the API shows
	errorCode              int
	media                  int
	segments               int
	callback               string
	due                    time.Time // of a scheduled message
	deleted                bool
	index                  int // in the log
}

// final reports whether nothing more will happen to the message.
func (m *message) final() bool {
	switch m.status {
	case "delivered", "undelivered", "failed", "canceled", "received":
		return true
	}
	return false
}

// now is the account's clock, which never goes back.
func (s *Server) now() time.Time {
	if t := s.o.Now().UTC(); t.After(s.last) {
		s.last = t
	}
	return s.last
}

func (s *Server) hex32() string {
	var b [16]byte
	_, _ = s.ids.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (s *Server) uuid() string {
	h := s.hex32()
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
}

// roll is true with the given probability.
func (s *Server) roll(rate float64) bool { return rate > 0 && s.dice.Float64() < rate }

// full reports whether n more messages would go beyond the limit.
func (s *Server) full(n int) bool { return s.kept+n > s.o.MaxMessages }

// record gives a message its SID and times and puts it into the log.
func (s *Server) record(m *message) {
	s.stamp(m)
	m.index = len(s.log)
	s.log = append(s.log, m)
	s.bySID[m.sid] = m
}

func (s *Server) stamp(m *message) {
	prefix := "SM"
	if m.media > 0 {
		prefix = "MM"
	}
	m.sid, m.created = prefix+s.hex32(), s.now()
	m.updated = m.created
	m.body = m.text
	if s.knobs.RedactBodies {
		m.body = ""
	}
	m.segments = segments(m.text)
	s.kept++
}

// show puts a message on a phone's screen.
func (s *Server) show(phone string, m *message) { s.phones[phone] = append(s.phones[phone], m) }

func (s *Server) ours(number string) bool { return slices.Contains(s.o.Numbers, number) }

// enqueue runs job on one of at most maxWorkers goroutines. The caller holds the lock.
func (s *Server) enqueue(job func()) {
	if s.closed {
		return
	}
	s.jobs = append(s.jobs, job)
	if s.workers < maxWorkers {
		s.workers++
		go s.work()
	}
}

func (s *Server) work() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.jobs) > 0 {
		job := s.jobs[0]
		s.jobs = s.jobs[1:]
		s.mu.Unlock()
		job()
		s.mu.Lock()
	}
	if s.workers--; s.workers == 0 {
		s.idle.Broadcast()
	}
}

// Errors of a text that a phone cannot send.
var (
	errPhone     = errors.New("from: want a phone number in E.164, such as +15555550101")
	errNumber    = errors.New("to: is not one of the account's numbers")
	errTooLong   = fmt.Errorf("body: longer than %d characters", maxText)
	errBody      = errors.New("body: is not valid UTF-8")
	errOptOut    = errors.New("opt_out_type: want STOP, START or HELP")
	errManyMedia = errors.New("media: more than ten")
	errFull      = errors.New("the emulator's message store is full; start a new one")
	errClosed    = errors.New("the emulator is closed")
)

func (s *Server) checkInbound(in *inbound) error {
	in.optOutType = strings.ToUpper(in.optOutType)
	switch {
	case !e164.MatchString(in.from) || s.ours(in.from):
		return errPhone
	case !s.ours(in.to):
		return errNumber
	case !utf8.ValidString(in.body):
		return errBody
	case utf8.RuneCountInString(in.body) > maxText:
		return errTooLong
	case in.optOutType != "" && in.optOutType != "STOP" && in.optOutType != "START" && in.optOutType != "HELP":
		return errOptOut
	case len(in.media) > 10:
		return errManyMedia
	}
	return nil
}

// mask shortens a number for the log.
func mask(number string) string {
	if len(number) <= 4 {
		return "…"
	}
	return "…" + number[len(number)-4:]
}

// readAll reads at most maxBody bytes, then says so.
func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err == nil && len(b) > maxBody {
		err = fmt.Errorf("longer than %d bytes", maxBody)
	}
	return b, err
}
