package twilio

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/heed-sms/heed/sms"
)

const (
	maxAnswer     = 64 << 20         // bytes of one answer; a log page of 1,000 messages can have 20 MB
	maxRetryAfter = 30 * time.Second // a longer wait is left to the caller, who may have better things to do
)

// Send hands m to Twilio in one POST, which nothing repeats. Without m.From the configured service or number is used;
// an m.From that starts with "MG" names a Messaging Service.
//
// Every error is an *sms.Error. Its class is Unknown unless Twilio said that it did not take the message or the
// request provably never left: no connection could be made (class Throttled, with Err set and no Status).
// When Twilio took the message and reports its failure in the same answer, the receipt comes with the error.
func (p *Provider) Send(ctx context.Context, m sms.Message) (sms.Receipt, error) {
	form := url.Values{"To": {m.To}}
	switch from := cmp.Or(m.From, p.cfg.MessagingServiceSID, p.cfg.From); {
	case isSID(from, "MG"):
		form.Set("MessagingServiceSid", from)
	default:
		form.Set("From", from)
	}
	if m.Body != "" {
		form.Set("Body", m.Body)
	}
	if len(m.MediaURLs) > 0 {
		form["MediaUrl"] = m.MediaURLs
	}
	if m.StatusURL != "" {
		form.Set("StatusCallback", m.StatusURL)
	}
	hide := scrubber(m.To, m.From, m.Body)

	// Whether a connection was ever handed to the request. Only http.Transport reports that, so a transport that
	// does not is never taken for proof.
	var asked, connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	if err := ctx.Err(); err != nil {
		return sms.Receipt{}, &sms.Error{Class: sms.Throttled, Text: "not sent, the caller gave up before", Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.messagesURL().String(), strings.NewReader(form.Encode()))
	if err != nil {
		return sms.Receipt{}, &sms.Error{Class: sms.Rejected, Text: "the request could not be built", Err: quiet(err, hide)}
	}
	req.GetBody = nil // without it no transport can send the body a second time
	wanted := &whileWanted{ctx: ctx, ReadCloser: req.Body}
	req.Body = wanted
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	p.authenticate(req)

	resp, err := p.client.Do(req)
	if err != nil {
		if wanted.refused.Load() {
			return sms.Receipt{}, &sms.Error{Class: sms.Throttled, Text: "not sent, the caller gave up before the message left", Err: quiet(err, hide)}
		}
		if asked.Load() && !connected.Load() {
			return sms.Receipt{}, &sms.Error{Class: sms.Throttled, Text: "not sent, no connection to Twilio", Err: quiet(err, hide)}
		}
		return sms.Receipt{}, &sms.Error{Class: sms.Unknown, Text: "no answer; look the message up before repeating it", Err: quiet(err, hide)}
	}
	body, err := readAll(resp)
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return sms.Receipt{}, p.refusal(resp, body, hide)
	}
	unclear := &sms.Error{Class: sms.Unknown, Status: resp.StatusCode, Text: "the answer is not that of Twilio's message API; look the message up before repeating it"}
	if err != nil {
		unclear.Err = quiet(err, hide)
		return sms.Receipt{}, unclear
	}
	var sent message
	if json.Unmarshal(body, &sent) != nil || sent.SID == "" {
		return sms.Receipt{}, unclear
	}
	state, code, _ := outcome(sent.Status, string(sent.ErrorCode))
	r := sms.Receipt{ProviderID: sent.SID, State: state, From: sent.From}
	if state == sms.DeliveryFailed {
		e := &sms.Error{Class: sms.Rejected, Status: resp.StatusCode, Code: code, Text: "taken and failed at once"}
		if code == codeOptedOut {
			e.Class = sms.OptedOut
		}
		return r, e
	}
	return r, nil
}

// refusal classes an answer that is no success. The body is Twilio's error document,
// https://www.twilio.com/docs/usage/twilios-response#response-formats-exceptions, or whatever a proxy made up.
func (p *Provider) refusal(resp *http.Response, body []byte, hide func(string) string) *sms.Error {
	var doc struct {
		Code    code   `json:"code"`
		Message string `json:"message"`
	}
	fromTwilio := json.Unmarshal(body, &doc) == nil && doc.Code != "" && isAlphanumeric(string(doc.Code))
	e := &sms.Error{Class: sms.Unknown, Status: resp.StatusCode, RetryAfter: p.retryAfter(resp)}
	if fromTwilio {
		e.Code, e.Text = string(doc.Code), hide(doc.Message)
	}
	switch s := resp.StatusCode; {
	case s >= 300 && s < 400:
		e.Text = "redirect not followed; remove whatever stands between heed and Twilio, or correct base_url"
	case s < 400 || s >= 500: // an error inside Twilio may come after the message was taken
		e.Text = cmp.Or(e.Text, "no clear answer")
	case e.Code == codeOptedOut:
		e.Class = sms.OptedOut
	case s == http.StatusTooManyRequests, e.Code == codeTooMany, e.Code == codeQueueOverflow:
		e.Class = sms.Throttled
	case s == http.StatusUnauthorized, e.Code == codeUnauthorized, e.Code == codeInactive:
		e.Class = sms.Auth
	case fromTwilio:
		e.Class = sms.Rejected
	default:
		e.Text = "the error page is not Twilio's; something between heed and Twilio answered"
	}
	return e
}

// retryAfter reads the header of RFC 9110, section 10.2.3: seconds or a date.
func (p *Provider) retryAfter(resp *http.Response) time.Duration {
	h := resp.Header.Get("Retry-After")
	if n, err := strconv.Atoi(h); err == nil {
		return time.Duration(min(max(n, 0), 7*24*3600)) * time.Second
	}
	if t, err := http.ParseTime(h); err == nil {
		return max(t.Sub(p.now()), 0)
	}
	return 0
}

// message is Twilio's Message resource as far as heed reads it.
type message struct {
	SID         string `json:"sid"`
	Direction   string `json:"direction"`
	From        string `json:"from"`
	To          string `json:"to"`
	Body        string `json:"body"`
	Status      string `json:"status"`
	ErrorCode   code   `json:"error_code"`
	NumMedia    code   `json:"num_media"`
	Service     string `json:"messaging_service_sid"`
	DateCreated string `json:"date_created"` // RFC 2822, whole seconds
	DateSent    string `json:"date_sent"`    // for an inbound message: when Twilio called the webhook
}

func (m message) inbound() bool { return m.Direction == "inbound" }

// at is when Twilio took the message, to the second; zero if the log does not say.
func (m message) at() time.Time {
	for _, s := range []string{m.DateCreated, m.DateSent} {
		if t, err := mail.ParseDate(s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

func (m message) asInbound() sms.Inbound {
	media, _ := strconv.Atoi(string(m.NumMedia))
	return sms.Inbound{
		ProviderID: m.SID, From: m.From, To: m.To, Service: m.Service, Body: m.Body, Media: max(media, 0), At: m.at(),
	}
}

// Inbound yields the inbound messages that Twilio received in [since, until), from the account's message log. Entries
// have no Flag, because the log does not keep OptOutType, and no text where the account redacts message bodies.
// An entry without a readable date is yielded with a zero At rather than dropped.
func (p *Provider) Inbound(ctx context.Context, since, until time.Time) iter.Seq2[sms.Inbound, error] {
	return func(yield func(sms.Inbound, error) bool) {
		numbers := slices.Compact(slices.Sorted(slices.Values(p.cfg.InboundNumbers)))
		if len(numbers) == 0 {
			numbers = []string{""}
		}
		for _, to := range numbers {
			for m, err := range p.log(ctx, since, until, to) {
				if err != nil {
					yield(sms.Inbound{}, err)
					return
				}
				if m.inbound() && !yield(m.asInbound(), nil) {
					return
				}
			}
		}
	}
}

// Outbound yields the sent messages that Twilio took in [since, until), from the account's message log. Twilio
// filters the log by the date of sending, so a message that still waits to be sent may be missing.
func (p *Provider) Outbound(ctx context.Context, since, until time.Time) iter.Seq2[sms.Outbound, error] {
	return func(yield func(sms.Outbound, error) bool) {
		for m, err := range p.log(ctx, since, until, "") {
			if err != nil {
				yield(sms.Outbound{}, err)
				return
			}
			if m.inbound() {
				continue
			}
			state, code, _ := outcome(m.Status, string(m.ErrorCode))
			o := sms.Outbound{
				ProviderID: m.SID, From: m.From, To: m.To, Body: m.Body, At: m.at(),
				State: state, Code: code, OptedOut: code == codeOptedOut,
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// log yields the messages taken in [since, until), to one of our numbers if to is set. Twilio's filter knows whole
// UTC days of the date of sending, which is never before the date of taking and at most a few hours after it
// (a message waits in Twilio's queue for up to ten hours). So it is asked for a day more and the rest is done here.
func (p *Provider) log(ctx context.Context, since, until time.Time, to string) iter.Seq2[message, error] {
	return func(yield func(message, error) bool) {
		if !since.Before(until) {
			return
		}
		since := since.Truncate(time.Second) // the log has whole seconds; a fraction would hide the first of them
		page := p.messagesURL()
		query := url.Values{
			"PageSize":  {"1000"},
			"DateSent>": {since.UTC().Format(time.DateOnly)}, // the sign belongs to the name; both ends are inclusive
			"DateSent<": {until.UTC().AddDate(0, 0, 1).Format(time.DateOnly)},
		}
		if to != "" {
			query.Set("To", to)
		}
		page.RawQuery = query.Encode()

		seen := make(map[string]bool)
		for n := 1; ; n++ {
			switch {
			case n > p.maxPages:
				yield(message{}, fmt.Errorf("twilio: the message log has more than %d pages; ask for a shorter time", p.maxPages))
				return
			case seen[page.String()]:
				yield(message{}, fmt.Errorf("twilio: page %d of the message log names an earlier page as the next one; try again later", n-1))
				return
			}
			seen[page.String()] = true
			var doc struct {
				Messages *[]message `json:"messages"`
				Next     string     `json:"next_page_uri"`
			}
			if err := p.get(ctx, page, &doc); err != nil {
				yield(message{}, fmt.Errorf("twilio: message log, page %d: %w", n, err))
				return
			}
			if doc.Messages == nil { // an answer that is no list must not pass for an empty list
				yield(message{}, fmt.Errorf("twilio: page %d of the message log is no list of messages; check base_url", n))
				return
			}
			for i, m := range *doc.Messages {
				if m.SID == "" {
					yield(message{}, fmt.Errorf("twilio: entry %d on page %d of the message log has no sid", i+1, n))
					return
				}
				if at := m.at(); !at.IsZero() && (at.Before(since) || !at.Before(until)) {
					continue
				}
				if !yield(m, nil) {
					return
				}
			}
			if doc.Next == "" {
				return
			}
			next, err := page.Parse(doc.Next)
			if err != nil || next.Scheme != page.Scheme || next.Host != page.Host || next.Path != page.Path || next.User != nil {
				yield(message{}, fmt.Errorf("twilio: page %d of the message log continues outside of the log; not followed, because the request carries credentials", n))
				return
			}
			page = next
		}
	}
}

// FindInbound reads one message by its id, "SM" or "MM" and 32 hex digits.
func (p *Provider) FindInbound(ctx context.Context, providerID string) (sms.Inbound, error) {
	if !isAlphanumeric(providerID) || len(providerID) > 64 {
		return sms.Inbound{}, &sms.Error{Class: sms.Rejected, Text: "not a message id of Twilio"}
	}
	var m message
	if err := p.get(ctx, p.accountURL("Messages", providerID+".json"), &m); err != nil {
		return sms.Inbound{}, err
	}
	if m.SID != providerID {
		return sms.Inbound{}, &sms.Error{Class: sms.Unknown, Status: http.StatusOK, Text: "the answer is not the message asked for"}
	}
	if !m.inbound() {
		return sms.Inbound{}, &sms.Error{Class: sms.Rejected, Status: http.StatusOK, Text: "the message with that id is not an inbound one"}
	}
	return m.asInbound(), nil
}

func (p *Provider) messagesURL() *url.URL { return p.accountURL("Messages.json") }

func (p *Provider) accountURL(elem ...string) *url.URL {
	return p.base.JoinPath(append([]string{"2010-04-01", "Accounts", p.cfg.AccountSID}, elem...)...)
}

func (p *Provider) authenticate(req *http.Request) {
	if p.cfg.APIKeySID != "" {
		req.SetBasicAuth(p.cfg.APIKeySID, p.cfg.APIKeySecret)
		return
	}
	req.SetBasicAuth(p.cfg.AccountSID, p.cfg.AuthToken)
}

// get reads a resource into out, with retries. Its errors are *sms.Error and name no URL: a query may hold a number.
func (p *Provider) get(ctx context.Context, u *url.URL, out any) error {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return &sms.Error{Class: sms.Rejected, Text: "the request could not be built", Err: quiet(err, scrubber())}
	}
	p.authenticate(req.Request)
	resp, err := p.repeats.Do(req)
	return p.understand(resp, err, out)
}

// understand decodes the answer to a call that is no send, or turns its failure into an *sms.Error.
func (p *Provider) understand(resp *http.Response, err error, out any) error {
	hide := scrubber()
	if resp != nil && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		body, _ := readAll(resp)
		return p.refusal(resp, body, hide)
	}
	if err != nil {
		if resp != nil {
			resp.Body.Close()
		}
		return &sms.Error{Class: sms.Unknown, Text: "no answer", Err: quiet(err, hide)}
	}
	body, err := readAll(resp)
	if err == nil {
		err = json.Unmarshal(body, out)
	}
	if err != nil {
		return &sms.Error{Class: sms.Unknown, Status: resp.StatusCode, Text: "the answer is cut off or not JSON", Err: quiet(err, hide)}
	}
	return nil
}

// newRepeater returns a client for calls that may be repeated. It tries up to six times within about a minute, on
// connection errors, 429 and 5xx, and then hands back the last answer.
func newRepeater(client *http.Client) *retryablehttp.Client {
	r := retryablehttp.NewClient()
	r.HTTPClient = client
	r.Logger = nil // it would log URLs, which may hold a number
	r.RetryMax = 5
	r.RetryWaitMin = 500 * time.Millisecond
	r.RetryWaitMax = 16 * time.Second
	r.ErrorHandler = retryablehttp.PassthroughErrorHandler
	r.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if resp != nil && retryablehttp.DefaultBackoff(0, 0, 0, resp) > maxRetryAfter {
			return false, nil
		}
		return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
	}
	return r
}

// readAll reads and closes an answer.
func readAll(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return b, err
}

var numberLike = regexp.MustCompile(`\+?\p{Nd}(?:[ ().\-/]*\p{Nd}){6,}`)

// scrubber returns a function that makes a text fit for an error: without the given values, without anything that
// could be a telephone number, on one line and short. Twilio's error texts quote the number that they are about.
func scrubber(private ...string) func(string) string {
	return func(text string) string {
		for _, v := range private {
			if len(v) > 2 { // a shorter one gives nothing away and would only garble the text
				text = strings.ReplaceAll(text, v, "[hidden]")
				text = strings.ReplaceAll(text, url.QueryEscape(v), "[hidden]")
			}
		}
		text = numberLike.ReplaceAllString(text, "[number]")
		text = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) || r == unicode.ReplacementChar {
				return ' '
			}
			return r
		}, text)
		if r := []rune(text); len(r) > 200 {
			text = string(r[:200]) + "…"
		}
		return text
	}
}

// quiet makes an error of package http fit for a log: without the URL, and with its text scrubbed.
func quiet(err error, hide func(string) string) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return err // only addresses and the system's reason
	}
	return &quietError{err, hide(err.Error())}
}

type quietError struct {
	err  error
	text string
}

func (e *quietError) Error() string { return e.text }
func (e *quietError) Unwrap() error { return e.err }

// whileWanted is a request's body that nobody gets to read once the request is not wanted any more. net/http's transport
// writes a request without looking at its context: a caller that gave up after a connection was found, and before the
// writing began, would have its message sent all the same. Here the body, without which the request is no message, is
// refused at the last moment. Once its first byte has been read, it is too late.
type whileWanted struct {
	ctx context.Context
	io.ReadCloser
	begun   bool
	refused atomic.Bool // nothing of the body was read: what has left is no message
}

func (w *whileWanted) Read(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil && !w.begun {
		w.refused.Store(true)
		return 0, err
	}
	w.begun = true
	return w.ReadCloser.Read(b)
}
