package smstest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/heed-sms/heed/sms"
)

// Answer is an HTTP answer in a vendor's words.
type Answer struct {
	Status int // 0 means 200
	Header map[string]string
	Body   string
}

// Answers are a vendor's words for the scenarios that differ from vendor to vendor.
type Answers struct {
	Accepted     Answer
	OptedOut     Answer
	Throttled    Answer
	Unauthorized Answer
	Rejected     Answer // its text should quote [Number], as vendors do
	WithoutID    Answer // Accepted, but for the message id
	// LogPage is a page of the message log that names the request which asked for it as its own next page. Nil if
	// the vendor has no log.
	LogPage func(r *http.Request) Answer
	// Consents answers a write to the vendor's opt-out list, with a refusal of the changes whose number is refused.
	// ok is false for any other request. Nil if the vendor has no such list.
	Consents func(r *http.Request, body []byte, refused func(number string) bool) (a Answer, ok bool)
	// NoList is what the vendor says to Consents when the account may not use the list.
	NoList Answer
}

// Wire is an HTTP service on loopback that behaves as a [Scenario] says and counts what reaches it.
type Wire struct {
	URL    string
	Client *http.Client // for the driver; it shares no connections with other tests

	answers  Answers
	scenario Scenario
	sends    atomic.Int64
	reached  chan struct{}
	first    sync.Once
	released chan struct{}
}

// Serve starts a service that behaves as s says and stops it when the test ends. It takes every POST for a send that
// is no write to the opt-out list.
func Serve(t testing.TB, s Scenario, a Answers) *Wire {
	t.Helper()
	w := &Wire{answers: a, scenario: s, reached: make(chan struct{}), released: make(chan struct{})}
	srv := httptest.NewServer(w)
	w.URL, w.Client = srv.URL, srv.Client()
	t.Cleanup(func() {
		close(w.released)
		srv.Close()
	})
	if s == Unreachable {
		srv.Listener.Close()
	}
	return w
}

// Service joins the service with the driver that calls it, for [Harness.Open].
func (w *Wire) Service(p sms.Provider) Service {
	return Service{Provider: p, Sends: w.Sends, Reached: w.reached}
}

// Sends returns how many requests to send have arrived.
func (w *Wire) Sends() int { return int(w.sends.Load()) }

// ServeHTTP answers as the scenario says.
func (w *Wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // to the end: the message has arrived, whatever the answer is
	answer, consents := Answer{}, false
	if w.answers.Consents != nil {
		answer, consents = w.answers.Consents(r, body, func(number string) bool {
			return w.scenario == RefusesOne && number == Number
		})
	}
	send := r.Method == http.MethodPost && !consents
	if send {
		w.sends.Add(1)
		w.first.Do(func() { close(w.reached) })
	}
	page := Answer{Header: map[string]string{"Content-Type": "text/html"}, Body: "<html><body>Welcome " + Number + "</body></html>"}
	with := func(status int) Answer { p := page; p.Status = status; return p }
	if !consents {
		answer = w.answers.Accepted
	}
	switch w.scenario {
	case OptedOut:
		answer = w.answers.OptedOut
	case Throttles:
		answer = w.answers.Throttled
	case RefusesCredentials:
		answer = w.answers.Unauthorized
	case Rejects:
		answer = w.answers.Rejected
	case HasNoList:
		if consents {
			answer = w.answers.NoList
		}
	case OmitsID:
		answer = w.answers.WithoutID
	case ServerError:
		answer = with(http.StatusInternalServerError)
	case Unavailable:
		answer = with(http.StatusServiceUnavailable)
	case ProxyError:
		answer = with(http.StatusForbidden)
	case AnswersHTML, LogAnswersHTML:
		answer = page
	case Redirects:
		answer = Answer{Status: http.StatusTemporaryRedirect, Header: map[string]string{"Location": "/elsewhere"}}
	case TruncatesJSON:
		answer.Body = answer.Body[:len(answer.Body)/2]
	case LogNeverEnds:
		if !send && w.answers.LogPage != nil {
			answer = w.answers.LogPage(r)
		}
	case Hangs:
		select {
		case <-w.released:
		case <-r.Context().Done():
		}
		return
	case HangsUp:
		panic(http.ErrAbortHandler) // closes the connection without an answer
	case Resets:
		rw.Header().Set("Content-Length", fmt.Sprint(len(answer.Body)))
		rw.WriteHeader(answer.status())
		io.WriteString(rw, answer.Body[:len(answer.Body)/2])
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	for k, v := range answer.Header {
		rw.Header().Set(k, v)
	}
	if answer.Header["Content-Type"] == "" && strings.HasPrefix(answer.Body, "{") {
		rw.Header().Set("Content-Type", "application/json")
	}
	rw.WriteHeader(answer.status())
	io.WriteString(rw, answer.Body)
}

func (a Answer) status() int {
	if a.Status == 0 {
		return http.StatusOK
	}
	return a.Status
}
