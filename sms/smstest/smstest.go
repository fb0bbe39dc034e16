// Package smstest holds the conformance suite that every SMS driver passes ([Run]), a badly behaved HTTP service for
// drivers to be tested against ([Serve]), and an in-memory provider for tests of what lies above the drivers ([Memory]).
//
// It is for tests only and is no emulator of any vendor: it knows what package sms promises, not how a vendor's API looks.
package smstest

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heed-sms/heed/sms"
)

// Scenario is how the service behind a provider behaves, for every call.
type Scenario string

const (
	Accepts            Scenario = "accepts the message"
	OptedOut           Scenario = "says that the recipient opted out"
	Throttles          Scenario = "says that there were too many requests"
	RefusesCredentials Scenario = "refuses the credentials"
	Rejects            Scenario = "rejects the message, with a text that quotes the number"

	Hangs          Scenario = "takes the message and does not answer"
	Resets         Scenario = "takes the message and cuts its answer off"
	HangsUp        Scenario = "takes the message and closes the connection"
	ServerError    Scenario = "answers 500"
	Unavailable    Scenario = "answers 503"
	Redirects      Scenario = "answers 307 to another path of its own"
	AnswersHTML    Scenario = "answers 200 with a web page"
	TruncatesJSON  Scenario = "answers success with half a document"
	OmitsID        Scenario = "answers success without a message id"
	ProxyError     Scenario = "is behind a proxy that answers 403 with a web page"
	Unreachable    Scenario = "accepts no connection"
	LogNeverEnds   Scenario = "has a message log whose last page names itself as the next"
	LogAnswersHTML Scenario = "answers 200 with a web page where the log should be"
	RefusesOne     Scenario = "refuses the change of one number in its opt-out list, with a text that quotes it"
	HasNoList      Scenario = "says that its opt-out list is not open to the account"
)

// Number, Sender and Text are what [Run] sends. No error may contain the number or the text.
const (
	Number = "+15125550142"
	Sender = "+15125550100"
	Text   = "a text that must not be in any error"
)

// Service is a provider and the fake service behind it.
type Service struct {
	Provider sms.Provider
	// Sends counts the attempts to send that reached the service, answered or not.
	Sends func() int
	// Reached is closed when the first attempt to send has been read in full. [Run] needs it for the scenario Hangs.
	Reached <-chan struct{}
}

// Harness is what a driver's test gives to [Run].
type Harness struct {
	// Open returns the driver under test before a service that behaves as s says. It registers its own cleanup.
	// A zero Service says that s cannot happen with this driver; the suite then skips it.
	Open func(t *testing.T, s Scenario) Service
	// Inbound returns the webhook that the vendor would send for in, signed for the driver that Open returns.
	Inbound func(in sms.Inbound) sms.Webhook
	// Status returns the webhook that the vendor would send for st. Nil if the vendor reports no delivery.
	Status func(st sms.Status) sms.Webhook
	// Unsigned takes the proof off a webhook. Nil removes all headers but Content-Type.
	Unsigned func(sms.Webhook) sms.Webhook
	// BodyUnsigned says that the vendor's proof does not cover the body, so that a changed one cannot be told.
	BodyUnsigned bool
	// Secrets must not be in any error or finding.
	Secrets []string
}

// Run checks what package sms promises of a Provider and of the capabilities that the driver has.
func Run(t *testing.T, h Harness) {
	t.Run("webhook", func(t *testing.T) { h.webhook(t) })
	t.Run("send", func(t *testing.T) { h.send(t) })
	t.Run("log", func(t *testing.T) { h.log(t) })
	t.Run("opt-out list", func(t *testing.T) { h.optOuts(t) })
	t.Run("probe", func(t *testing.T) { h.probe(t) })
}

func (h Harness) open(t *testing.T, s Scenario) Service {
	t.Helper()
	svc := h.Open(t, s)
	if svc.Provider == nil {
		t.Skipf("does not happen: the service %s", s)
	}
	return svc
}

// clean checks that a text holds nothing private.
func (h Harness) clean(t *testing.T, what, text string) {
	t.Helper()
	for _, private := range append([]string{Number, strings.TrimPrefix(Number, "+"), Text}, h.Secrets...) {
		if strings.Contains(text, private) {
			t.Errorf("%s contains %q: %s", what, private, text)
		}
	}
}

func (h Harness) webhook(t *testing.T) {
	p := h.open(t, Accepts).Provider
	stop := sms.Inbound{ProviderID: messageID(1), From: Number, To: Sender, Body: "Stop"}
	genuine := h.Inbound(stop)

	t.Run("an unsigned request is refused", func(t *testing.T) {
		r := clone(genuine)
		if h.Unsigned != nil {
			r = h.Unsigned(r)
		} else {
			r.Header = http.Header{"Content-Type": r.Header["Content-Type"]}
		}
		h.refused(t, p, r, "without its proof")
		r.Body = nil
		h.refused(t, p, r, "without its proof and its body")
	})
	t.Run("a request with any byte changed is refused", func(t *testing.T) {
		if h.BodyUnsigned {
			t.Skip("the vendor does not sign the body")
		}
		for i := range genuine.Body {
			r := clone(genuine)
			r.Body[i] ^= 1
			h.refused(t, p, r, fmt.Sprintf("with byte %d changed", i))
		}
		r := clone(genuine)
		r.Body = append(r.Body, "&Body=START"...)
		h.refused(t, p, r, "with text appended")
	})
	t.Run("a reply is decoded in full", func(t *testing.T) {
		for i, body := range []string{
			"Stop", "", " stop ", "ARRÊT", "🛑 stop", "a+b&c=d%25;e\r\n\tf", `{"a":"<b>"}`, strings.Repeat("é", 1600),
		} {
			want := stop
			want.ProviderID, want.Body = messageID(100+i), body
			if body == "" {
				want.Media = 1
			}
			events, err := p.Webhook(h.Inbound(want))
			if err != nil || len(events) != 1 {
				t.Errorf("%.20q: got %v, %v; want one event", body, events, err)
				continue
			}
			got, ok := events[0].(sms.Inbound)
			got.At, got.Service = time.Time{}, "" // not every vendor tells
			if !ok || got != want {
				t.Errorf("%.20q: got %+v, want %+v", body, events[0], want)
			}
		}
	})
	t.Run("a repeated request gives the same event, also at once", func(t *testing.T) {
		want, err := p.Webhook(genuine)
		if err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(genuine.Body)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				r := clone(genuine)
				got, err := p.Webhook(r)
				clear(r.Body) // the callee must not keep it
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("got %v, %v; want %v", got, err, want)
				}
			})
		}
		wg.Wait()
		if !bytes.Equal(before, genuine.Body) {
			t.Error("the driver changed the request's body")
		}
	})
	t.Run("a delivery status is decoded", func(t *testing.T) {
		if h.Status == nil {
			t.Skip("the vendor reports no delivery")
		}
		for i, d := range []sms.Delivery{sms.DeliveryQueued, sms.DeliverySent, sms.DeliveryDelivered, sms.DeliveryFailed} {
			for _, optedOut := range []bool{false, true} {
				if optedOut && d != sms.DeliveryFailed {
					continue
				}
				events, err := p.Webhook(h.Status(sms.Status{ProviderID: messageID(200 + i), State: d, To: Number, OptedOut: optedOut}))
				if err != nil || len(events) != 1 {
					t.Fatalf("%s: got %v, %v; want one event", d, events, err)
				}
				got, ok := events[0].(sms.Status)
				if !ok || got.ProviderID != messageID(200+i) || got.State != d || got.OptedOut != optedOut || got.To != Number {
					t.Errorf("%s, opted out %v: got %+v", d, optedOut, events[0])
				}
			}
		}
	})
	t.Run("nonsense is refused", func(t *testing.T) {
		for _, r := range []sms.Webhook{
			{}, {Method: "POST"}, {Method: "POST", URL: "%", Header: http.Header{}, Body: []byte("%")},
			{Method: "GET", URL: genuine.URL + "?a=%zz&=;", Header: genuine.Header.Clone()},
			{Method: "DELETE", URL: genuine.URL, Header: genuine.Header.Clone(), Body: genuine.Body},
			{Method: "POST", URL: genuine.URL, Header: genuine.Header.Clone(), Body: bytes.Repeat([]byte("["), 100_000)},
		} {
			if events, err := p.Webhook(r); err == nil && !h.BodyUnsigned {
				t.Errorf("%s %q with %d bytes: accepted as %v", r.Method, r.URL, len(r.Body), events)
			}
		}
	})
	t.Run("the acknowledgement says nothing to the phone", func(t *testing.T) {
		a := p.Ack()
		if a != p.Ack() {
			t.Error("it changes from call to call")
		}
		if a.Body == "" {
			return
		}
		media, _, err := mime.ParseMediaType(a.ContentType)
		if err != nil {
			t.Fatalf("content type %q: %v", a.ContentType, err)
		}
		switch {
		case strings.HasSuffix(media, "xml"):
			for d := xml.NewDecoder(strings.NewReader(a.Body)); ; {
				token, err := d.Token()
				if errors.Is(err, io.EOF) {
					return
				}
				if err != nil {
					t.Fatalf("%q: %v", a.Body, err)
				}
				if text, ok := token.(xml.CharData); ok && len(bytes.TrimSpace(text)) > 0 {
					t.Errorf("%q has text", a.Body)
				}
			}
		case strings.HasSuffix(media, "json") && !json.Valid([]byte(a.Body)):
			t.Errorf("%q is not JSON", a.Body)
		}
	})
}

func (h Harness) refused(t *testing.T, p sms.Provider, r sms.Webhook, what string) {
	t.Helper()
	events, err := p.Webhook(r)
	if !errors.Is(err, sms.ErrSignature) || len(events) > 0 {
		t.Errorf("a request %s gives %v, %v; want ErrSignature", what, events, err)
		return
	}
	h.clean(t, "the error", err.Error())
}

func (h Harness) send(t *testing.T) {
	message := sms.Message{To: Number, From: Sender, Body: Text}

	t.Run(string(Accepts), func(t *testing.T) {
		svc := h.open(t, Accepts)
		r, err := svc.Provider.Send(t.Context(), message)
		if err != nil || r.ProviderID == "" || r.State == "" {
			t.Errorf("got %+v, %v", r, err)
		}
		if n := svc.Sends(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})

	for _, tt := range []struct {
		s    Scenario
		want sms.Class
	}{
		{OptedOut, sms.OptedOut}, {Throttles, sms.Throttled}, {RefusesCredentials, sms.Auth}, {Rejects, sms.Rejected},
		{Resets, sms.Unknown}, {HangsUp, sms.Unknown}, {ServerError, sms.Unknown}, {Unavailable, sms.Unknown}, {Redirects, sms.Unknown},
		{AnswersHTML, sms.Unknown}, {TruncatesJSON, sms.Unknown}, {OmitsID, sms.Unknown}, {ProxyError, sms.Unknown},
	} {
		t.Run(string(tt.s), func(t *testing.T) {
			svc := h.open(t, tt.s)
			_, err := svc.Provider.Send(t.Context(), message)
			h.failed(t, err, tt.want)
			if n := svc.Sends(); n != 1 {
				t.Errorf("%d requests, want exactly 1", n)
			}
		})
	}

	t.Run(string(Hangs), func(t *testing.T) {
		svc := h.open(t, Hangs)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			select {
			case <-svc.Reached:
			case <-ctx.Done():
			}
			cancel() // what a timeout does, without waiting for one
		}()
		_, err := svc.Provider.Send(ctx, message)
		h.failed(t, err, sms.Unknown)
		if n := svc.Sends(); n != 1 {
			t.Errorf("%d requests, want exactly 1", n)
		}
	})

	t.Run(string(Unreachable), func(t *testing.T) {
		svc := h.open(t, Unreachable)
		_, err := svc.Provider.Send(t.Context(), message)
		if class := sms.ClassOf(err); err == nil || class != sms.Throttled && class != sms.Unknown {
			t.Errorf("got %v (class %s), want Throttled (proven) or Unknown", err, class)
		}
		if err != nil {
			h.clean(t, "the error", err.Error())
		}
	})
}

func (h Harness) failed(t *testing.T, err error, want sms.Class) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want class %s", want)
	}
	if got := sms.ClassOf(err); got != want {
		t.Errorf("class %s, want %s: %v", got, want, err)
	}
	h.clean(t, "the error", err.Error())
	for e := err; e != nil; e = errors.Unwrap(e) {
		if typed, ok := e.(*sms.Error); ok {
			h.clean(t, "the error's text", typed.Text)
		}
	}
}

func (h Harness) log(t *testing.T) {
	until := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	since := until.Add(-time.Hour)
	// each reads a log to its end or to the limit, and reports how it ended.
	check := func(t *testing.T, s Scenario, read func(context.Context, sms.Provider) (int, error)) {
		t.Run("ends with an error when the service "+string(s), func(t *testing.T) {
			n, err := read(t.Context(), h.open(t, s).Provider)
			if err == nil {
				t.Fatalf("it ended after %d messages as if it were complete", n)
			}
			h.clean(t, "the error", err.Error())
		})
	}
	both := func(t *testing.T, read func(context.Context, sms.Provider) (int, error)) {
		check(t, LogNeverEnds, read)
		check(t, LogAnswersHTML, read)
		check(t, RefusesCredentials, read)
		t.Run("ends with an error when the caller gives up", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := read(ctx, h.open(t, LogNeverEnds).Provider); err == nil {
				t.Error("no error")
			}
		})
	}
	p := h.open(t, Accepts).Provider
	if _, ok := p.(sms.InboundLog); ok {
		t.Run("inbound", func(t *testing.T) {
			both(t, func(ctx context.Context, p sms.Provider) (int, error) {
				return drain(p.(sms.InboundLog).Inbound(ctx, since, until))
			})
		})
	}
	if _, ok := p.(sms.OutboundLog); ok {
		t.Run("outbound", func(t *testing.T) {
			both(t, func(ctx context.Context, p sms.Provider) (int, error) {
				return drain(p.(sms.OutboundLog).Outbound(ctx, since, until))
			})
		})
	}
	if _, ok := p.(sms.Finder); ok {
		t.Run("a message that cannot be read is an error", func(t *testing.T) {
			for _, s := range []Scenario{RefusesCredentials, LogAnswersHTML} {
				_, err := h.open(t, s).Provider.(sms.Finder).FindInbound(t.Context(), messageID(1))
				if err == nil {
					t.Errorf("no error when the service %s", s)
				} else {
					h.clean(t, "the error", err.Error())
				}
			}
		})
	}
}

// drain reads a log to its end, its first error or 100,000 entries.
func drain[T any](log iter.Seq2[T, error]) (n int, err error) {
	for _, e := range log {
		if err != nil {
			return n, fmt.Errorf("%w, and the log went on after it", err)
		}
		if err = e; err != nil {
			continue
		}
		if n++; n == 100_000 {
			return n, nil
		}
	}
	return n, err
}

func (h Harness) optOuts(t *testing.T) {
	if _, ok := h.open(t, Accepts).Provider.(sms.OptOutSetter); !ok {
		t.Skip("the driver has no opt-out list to write")
	}
	const one = 30 // where Number is
	var changes []sms.Consent
	for i := range 60 {
		c := sms.Consent{Number: fmt.Sprintf("+1512555%04d", 1000+i), OptedOut: i%3 > 0, ID: fmt.Sprintf("%032x", i)}
		if i%2 == 0 {
			c.Sender, c.At = Sender, time.Date(2026, 3, 2, 12, 0, 0, 5, time.UTC)
		}
		if i == one {
			c.Number = Number
		}
		changes = append(changes, c)
	}
	set := func(ctx context.Context, t *testing.T, s Scenario, changes []sms.Consent) []error {
		t.Helper()
		svc := h.open(t, s)
		results := svc.Provider.(sms.OptOutSetter).SetOptOuts(ctx, changes)
		if len(results) != len(changes) {
			t.Fatalf("%d results for %d changes", len(results), len(changes))
		}
		if n := svc.Sends(); n != 0 {
			t.Errorf("%d messages were sent", n)
		}
		return results
	}
	t.Run("takes any number of changes", func(t *testing.T) {
		for _, n := range []int{0, 1, len(changes)} {
			for i, err := range set(t.Context(), t, Accepts, changes[:n]) {
				if err != nil {
					t.Errorf("change %d of %d: %v", i, n, err)
				}
			}
		}
	})
	t.Run("one refusal is that change's alone", func(t *testing.T) {
		for i, err := range set(t.Context(), t, RefusesOne, changes) {
			if i == one {
				h.failed(t, err, sms.Rejected)
			} else if err != nil {
				t.Errorf("change %d: %v", i, err)
			}
		}
	})
	t.Run("a change that makes no sense is refused alone", func(t *testing.T) {
		for _, bad := range []sms.Consent{{}, {Number: "5125550142", ID: "1"}, {Number: "+1 512 555 0142", ID: "1"}, {Number: Number}} {
			mixed := append(changes[:one:one], bad)
			for i, err := range set(t.Context(), t, Accepts, append(mixed, changes[one+1:]...)) {
				if i == one {
					h.failed(t, err, sms.Rejected)
				} else if err != nil {
					t.Errorf("change %d: %v", i, err)
				}
			}
		}
	})
	for _, tt := range []struct {
		s    Scenario
		want sms.Class
	}{
		{HasNoList, sms.Rejected}, {Throttles, sms.Throttled}, {RefusesCredentials, sms.Auth}, {Rejects, sms.Rejected},
		{Resets, sms.Unknown}, {HangsUp, sms.Unknown}, {ServerError, sms.Unknown}, {Unavailable, sms.Unknown}, {Redirects, sms.Unknown},
		{AnswersHTML, sms.Unknown}, {TruncatesJSON, sms.Unknown}, {ProxyError, sms.Unknown},
	} {
		t.Run(string(tt.s), func(t *testing.T) {
			for _, err := range set(t.Context(), t, tt.s, changes) {
				h.failed(t, err, tt.want)
				if got := errors.Is(err, sms.ErrNoList); got != (tt.s == HasNoList) {
					t.Errorf("is ErrNoList: %v: %v", got, err)
				}
			}
		})
	}
	t.Run("the caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range set(ctx, t, Accepts, changes) {
			if err == nil {
				t.Fatal("a change was reported as taken")
			}
			h.clean(t, "the error", err.Error())
		}
	})
}

func (h Harness) probe(t *testing.T) {
	if _, ok := h.open(t, Accepts).Provider.(sms.Prober); !ok {
		t.Skip("the driver cannot be probed")
	}
	for _, s := range []Scenario{RefusesCredentials, Unreachable, AnswersHTML} {
		t.Run("finds fault when the service "+string(s), func(t *testing.T) {
			findings := h.open(t, s).Provider.(sms.Prober).Probe(t.Context())
			bad := 0
			for _, f := range findings {
				if !f.OK {
					bad++
				}
				if f.What == "" || f.OK != (f.Hint == "") {
					t.Errorf("%+v: a finding says what was found, and a hint exactly when it is not OK", f)
				}
				h.clean(t, "a finding", f.What+f.Hint)
			}
			if bad == 0 {
				t.Errorf("%v: all is well", findings)
			}
		})
	}
}

// messageID is an id in the shape of Twilio's, which no vendor's decoder takes offence at.
func messageID(n int) string { return fmt.Sprintf("SM%032x", n) }

func clone(r sms.Webhook) sms.Webhook {
	r.Header, r.Body = r.Header.Clone(), bytes.Clone(r.Body)
	return r
}
