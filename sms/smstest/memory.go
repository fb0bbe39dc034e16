package smstest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// WebhookURL is the URL that the webhooks of a [Memory] name. They are not bound to it.
const WebhookURL = "https://sms.example.com/webhooks/memory"

// Memory is a provider in memory: it records what is sent and does as it is told. It has every capability of package
// sms; wrap it in struct{ sms.Provider } to take them away. It is safe for concurrent use.
type Memory struct {
	// Now stamps messages; time.Now unless set before first use.
	Now func() time.Time

	mu       sync.Mutex
	attempts int
	sent     []Sent
	inbound  []sms.Inbound
	optedOut map[string]bool
	failures []error
	lose     int
	before   *Hold
	after    *Hold
	logErr   error
	consents []sms.Consent
	listErr  error
	refused  map[string]error // changes to the list, by number
}

var (
	_ sms.Provider     = (*Memory)(nil)
	_ sms.InboundLog   = (*Memory)(nil)
	_ sms.OutboundLog  = (*Memory)(nil)
	_ sms.Finder       = (*Memory)(nil)
	_ sms.Prober       = (*Memory)(nil)
	_ sms.OptOutSetter = (*Memory)(nil)
)

// Sent is a message that a [Memory] took.
type Sent struct {
	sms.Message
	ProviderID string
	At         time.Time
	State      sms.Delivery
	Code       string
	OptedOut   bool
}

// New returns a provider that takes every message.
func New() *Memory {
	return &Memory{Now: time.Now, optedOut: make(map[string]bool), refused: make(map[string]error)}
}

// FailNext makes each of the next len(errs) sends return one of errs, in order, without taking the message.
func (m *Memory) FailNext(errs ...error) { m.set(func() { m.failures = append(m.failures, errs...) }) }

// LoseNextAnswers makes the next n sends take the message and report that its outcome is unknown.
func (m *Memory) LoseNextAnswers(n int) { m.set(func() { m.lose += n }) }

// OptOut makes the provider itself refuse sends to the number with class OptedOut, until [Memory.OptIn].
func (m *Memory) OptOut(number string) { m.set(func() { m.optedOut[number] = true }) }

// OptIn ends OptOut.
func (m *Memory) OptIn(number string) { m.set(func() { delete(m.optedOut, number) }) }

// FailConsents makes SetOptOuts report err for every change, until it is called with nil.
func (m *Memory) FailConsents(err error) { m.set(func() { m.listErr = err }) }

// RefuseConsents makes SetOptOuts report err for the changes of one number, until it is called with nil.
func (m *Memory) RefuseConsents(number string, err error) {
	m.set(func() {
		if m.refused[number] = err; err == nil {
			delete(m.refused, number)
		}
	})
}

// FailReads makes the logs, look-ups and the probe report err, until it is called with nil.
func (m *Memory) FailReads(err error) { m.set(func() { m.logErr = err }) }

func (m *Memory) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// Hold is a gate that sends wait at.
type Hold struct {
	// Waiting yields each message as its send starts to wait. It holds 1,000 of them; unread ones block nobody.
	Waiting <-chan sms.Message
	waiting chan sms.Message
	open    chan struct{}
	once    sync.Once
}

// Release lets the waiting and all later sends pass.
func (h *Hold) Release() { h.once.Do(func() { close(h.open) }) }

func newHold() *Hold {
	c := make(chan sms.Message, 1000)
	return &Hold{Waiting: c, waiting: c, open: make(chan struct{})}
}

func (h *Hold) wait(ctx context.Context, msg sms.Message) error {
	if h == nil {
		return nil
	}
	select {
	case h.waiting <- msg:
	default:
	}
	select {
	case <-h.open:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// HoldRequests makes sends wait before the message is taken. One whose context ends meanwhile was provably not sent.
func (m *Memory) HoldRequests() *Hold {
	h := newHold()
	m.set(func() { m.before = h })
	return h
}

// HoldAnswers makes sends wait after the message was taken. One whose context ends meanwhile has an unknown outcome.
func (m *Memory) HoldAnswers() *Hold {
	h := newHold()
	m.set(func() { m.after = h })
	return h
}

// Send takes msg unless it was told otherwise.
func (m *Memory) Send(ctx context.Context, msg sms.Message) (sms.Receipt, error) {
	m.mu.Lock()
	m.attempts++
	before := m.before
	m.mu.Unlock()
	err := ctx.Err()
	if err == nil {
		err = before.wait(ctx, msg)
	}
	if err != nil {
		return sms.Receipt{}, &sms.Error{Class: sms.Throttled, Text: "not sent", Err: err}
	}

	m.mu.Lock()
	if len(m.failures) > 0 {
		err := m.failures[0]
		m.failures = m.failures[1:]
		m.mu.Unlock()
		return sms.Receipt{}, err
	}
	if m.optedOut[msg.To] {
		m.mu.Unlock()
		return sms.Receipt{}, &sms.Error{Class: sms.OptedOut, Status: http.StatusBadRequest, Code: "opted_out"}
	}
	s := Sent{Message: msg, ProviderID: fmt.Sprintf("OUT%08d", len(m.sent)+1), At: m.Now(), State: sms.DeliveryQueued}
	s.MediaURLs = slices.Clone(msg.MediaURLs)
	m.sent = append(m.sent, s)
	lost := m.lose > 0
	if lost {
		m.lose--
	}
	after := m.after
	m.mu.Unlock()

	err = after.wait(ctx, msg)
	if lost && err == nil {
		err = errors.New("the connection was lost")
	}
	if err != nil {
		return sms.Receipt{}, &sms.Error{Class: sms.Unknown, Err: err}
	}
	return sms.Receipt{ProviderID: s.ProviderID, State: s.State, From: msg.From}, nil
}

// Sent returns the messages that were taken, in order, answered or not.
func (m *Memory) Sent() []Sent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.sent)
}

// Attempts returns how often Send was called.
func (m *Memory) Attempts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.attempts
}

// Report sets how far a sent message got and returns the signed webhook that says so.
func (m *Memory) Report(providerID string, state sms.Delivery, code string, optedOut bool) sms.Webhook {
	st := sms.Status{ProviderID: providerID, State: state, Code: code, OptedOut: optedOut}
	m.set(func() {
		if i := slices.IndexFunc(m.sent, func(s Sent) bool { return s.ProviderID == providerID }); i >= 0 {
			s := &m.sent[i]
			s.State, s.Code, s.OptedOut = state, code, optedOut
			st.To = s.To
		}
		st.At = m.Now()
	})
	return m.Sign(st)
}

// Text is a phone texting one of our numbers: the message is in the log from now on, and the returned webhook tells of
// it once somebody delivers it. The webhook carries no time, as with some vendors; the log does.
func (m *Memory) Text(from, to, body string, flag sms.Flag) sms.Webhook {
	in := sms.Inbound{From: from, To: to, Body: body, Flag: flag}
	m.set(func() {
		in.ProviderID = fmt.Sprintf("IN%08d", len(m.inbound)+1)
		logged := in
		logged.At, logged.Flag = m.Now(), sms.FlagNone
		m.inbound = append(m.inbound, logged)
	})
	return m.Sign(in)
}

const (
	memorySecret    = "the secret of smstest.Memory"
	memorySignature = "Smstest-Signature"
)

type memoryBody struct {
	Inbound *sms.Inbound `json:"inbound,omitempty"`
	Status  *sms.Status  `json:"status,omitempty"`
}

// Sign returns a genuine webhook that tells e, which must be an sms.Inbound or an sms.Status. The log is not touched.
func (m *Memory) Sign(e sms.Event) sms.Webhook {
	var b memoryBody
	switch e := e.(type) {
	case sms.Inbound:
		b.Inbound = &e
	case sms.Status:
		b.Status = &e
	}
	raw, err := json.Marshal(b)
	if err != nil {
		panic(err) // plain data
	}
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set(memorySignature, memorySign(raw))
	return sms.Webhook{Method: http.MethodPost, URL: WebhookURL, Header: h, Body: raw}
}

func memorySign(body []byte) string {
	mac := hmac.New(sha256.New, []byte(memorySecret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// Webhook decodes what [Memory.Sign], Text and Report return.
func (m *Memory) Webhook(r sms.Webhook) ([]sms.Event, error) {
	if r.Method != http.MethodPost || !hmac.Equal([]byte(r.Header.Get(memorySignature)), []byte(memorySign(r.Body))) {
		return nil, sms.ErrSignature
	}
	var b memoryBody
	if err := json.Unmarshal(r.Body, &b); err != nil {
		return nil, fmt.Errorf("%w: not JSON", sms.ErrMalformed)
	}
	switch {
	case b.Inbound != nil:
		return []sms.Event{*b.Inbound}, nil
	case b.Status != nil:
		return []sms.Event{*b.Status}, nil
	}
	return nil, fmt.Errorf("%w: neither a reply nor a status", sms.ErrMalformed)
}

// Ack is an empty JSON document.
func (m *Memory) Ack() sms.Response { return sms.Response{ContentType: "application/json", Body: "{}"} }

// Inbound yields the texts of [Memory.Text] in [since, until).
func (m *Memory) Inbound(ctx context.Context, since, until time.Time) iter.Seq2[sms.Inbound, error] {
	return read(ctx, m, since, until, func() []sms.Inbound { return m.inbound }, func(in sms.Inbound) time.Time { return in.At })
}

// Outbound yields the messages that were taken in [since, until).
func (m *Memory) Outbound(ctx context.Context, since, until time.Time) iter.Seq2[sms.Outbound, error] {
	all := func() []sms.Outbound {
		out := make([]sms.Outbound, len(m.sent))
		for i, s := range m.sent {
			out[i] = sms.Outbound{
				ProviderID: s.ProviderID, From: s.From, To: s.To, Body: s.Body, At: s.At,
				State: s.State, Code: s.Code, OptedOut: s.OptedOut,
			}
		}
		return out
	}
	return read(ctx, m, since, until, all, func(o sms.Outbound) time.Time { return o.At })
}

// read yields a copy of a log, so that the loop may call the provider.
func read[T any](ctx context.Context, m *Memory, since, until time.Time, all func() []T, at func(T) time.Time) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		m.mu.Lock()
		entries, err := slices.Clone(all()), m.logErr
		m.mu.Unlock()
		for _, e := range entries {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				break
			}
			if t := at(e); !t.Before(since) && t.Before(until) && !yield(e, nil) {
				return
			}
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(zero, err)
		}
	}
}

// FindInbound returns a text of [Memory.Text] by its id.
func (m *Memory) FindInbound(ctx context.Context, providerID string) (sms.Inbound, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := errors.Join(m.logErr, ctx.Err()); err != nil {
		return sms.Inbound{}, err
	}
	for _, in := range m.inbound {
		if in.ProviderID == providerID {
			return in, nil
		}
	}
	return sms.Inbound{}, &sms.Error{Class: sms.Rejected, Status: http.StatusNotFound, Text: "no such message"}
}

// SetOptOuts makes Send refuse or accept the numbers, whoever the sender is, unless it was told otherwise.
func (m *Memory) SetOptOuts(ctx context.Context, changes []sms.Consent) []error {
	results := make([]error, len(changes))
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, c := range changes {
		_, notNumber := phone.ParseE164(c.Number)
		switch {
		case ctx.Err() != nil:
			results[i] = &sms.Error{Class: sms.Unknown, Err: context.Cause(ctx)}
		case m.listErr != nil:
			results[i] = m.listErr
		case m.refused[c.Number] != nil:
			results[i] = m.refused[c.Number]
		case notNumber != nil || c.ID == "":
			results[i] = &sms.Error{Class: sms.Rejected, Text: "a change needs a number in E.164 and an ID"}
		default:
			m.consents = append(m.consents, c)
			if c.OptedOut {
				m.optedOut[c.Number] = true
			} else {
				delete(m.optedOut, c.Number)
			}
		}
	}
	return results
}

// Consents returns the changes that SetOptOuts took, in order, repetitions included.
func (m *Memory) Consents() []sms.Consent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.consents)
}

// Probe reports one finding: that reads work, or the error of [Memory.FailReads].
func (m *Memory) Probe(context.Context) []sms.Finding {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.logErr != nil {
		return []sms.Finding{{What: "the provider in memory was told to fail: " + m.logErr.Error(), Hint: "call FailReads(nil)"}}
	}
	return []sms.Finding{{OK: true, What: "the provider in memory answers"}}
}
