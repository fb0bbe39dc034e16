package twiliofake

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// inbound is a text on its way from a phone to one of our numbers.
type inbound struct {
	from, to, body string
	optOutType     string
	media          []string
}

// delivery is an inbound message's webhook, ready to go.
type delivery struct {
	msg     *message
	url     string
	form    url.Values
	token   string // I-Twilio-Idempotency-Token
	copies  int
	outcome Delivery // of the first copy
}

// receive is Twilio getting a text: it logs it, obeys a keyword, and calls the webhook.
func (s *Server) receive(in inbound) (Delivery, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return Delivery{}, errClosed
	}
	if s.full(2) { // the text and a reply to it
		s.mu.Unlock()
		return Delivery{}, errFull
	}
	m := &message{from: in.from, to: in.to, text: in.body, direction: "inbound", status: "received", media: len(in.media),
		service: s.o.MessagingServiceSID}
	verb, flag := keyword(in.to, in.body), ""
	if s.knobs.AdvancedOptOut {
		m.service, flag = s.service, verb
	}
	if in.optOutType != "" {
		m.service, verb, flag = s.service, in.optOutType, in.optOutType
	}
	s.record(m)
	m.sent = m.created
	s.show(in.from, m)
	s.obey(verb, in)
	d := &delivery{msg: m, url: s.webhook, form: s.inboundForm(m, in, flag), token: s.uuid(), copies: 1}
	d.outcome.SID = m.sid
	if s.roll(s.knobs.WebhookDuplicateRate) {
		d.copies = 2
	}
	send := []*delivery{d}
	switch {
	case d.url == "":
		send = nil
	case s.roll(s.knobs.WebhookDropRate):
		d.outcome.Error, send = "not sent: knob webhook_drop_rate", nil
	case s.knobs.WebhookReorder > 1:
		s.held = append(s.held, d)
		send = nil
		if len(s.held) >= int(s.knobs.WebhookReorder) {
			send = s.takeHeld()
		} else {
			d.outcome.Error = "not sent yet: knob webhook_reorder"
			if len(s.held) == 1 {
				s.releaseLater(d)
			}
		}
	}
	outcome := d.outcome
	s.mu.Unlock()
	s.o.Logger.Debug("text received", "sid", m.sid, "from", mask(m.from), "verb", verb)
	s.deliverAll(send)
	if slices.Contains(send, d) {
		outcome = d.outcome
	}
	return outcome, nil
}

// takeHeld empties the buffer of held webhooks, newest first. The caller holds the lock.
func (s *Server) takeHeld() []*delivery {
	out := s.held
	s.held = nil
	slices.Reverse(out)
	return out
}

// releaseLater sends what is held together with first when reorderHold is over. The caller holds the lock.
func (s *Server) releaseLater(first *delivery) {
	s.workers++ // so that Wait and Close wait for it
	go func() {
		timer := time.NewTimer(reorderHold)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ctx.Done():
		}
		s.mu.Lock()
		var out []*delivery
		if slices.Contains(s.held, first) {
			out = s.takeHeld()
		}
		s.mu.Unlock()
		s.deliverAll(out)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.workers--; s.workers == 0 {
			s.idle.Broadcast()
		}
	}()
}

func (s *Server) deliverAll(ds []*delivery) {
	for _, d := range ds {
		d.outcome.Error = ""
		for i := range d.copies {
			attempts, status, answer, err := s.call(s.ctx, d.url, d.form, d.token)
			out := Delivery{SID: d.msg.sid, Attempts: attempts, Status: status}
			if err == nil {
				err = s.answer(d.msg, answer)
			}
			if err != nil {
				out.Error = err.Error()
				s.o.Logger.Info("webhook failed", "sid", d.msg.sid, "attempts", attempts, "status", status)
			}
			if i == 0 {
				d.outcome = out
			} else {
				d.outcome.Attempts += attempts
			}
		}
	}
}

// inboundForm is the content of an inbound webhook: every field that Twilio documents, empty ones included.
func (s *Server) inboundForm(m *message, in inbound, flag string) url.Values {
	f := url.Values{
		"MessageSid": {m.sid}, "SmsSid": {m.sid}, "SmsMessageSid": {m.sid},
		"AccountSid": {s.o.AccountSID}, "ApiVersion": {apiVersion},
		"From": {m.from}, "To": {m.to}, "Body": {m.text}, "SmsStatus": {"received"},
		"NumSegments": {strconv.Itoa(m.segments)}, "NumMedia": {strconv.Itoa(len(in.media))},
		"FromCity": {""}, "FromState": {""}, "FromZip": {""}, "FromCountry": {country(m.from)},
		"ToCity": {"SAN FRANCISCO"}, "ToState": {"CA"}, "ToZip": {""}, "ToCountry": {country(m.to)},
	}
	if m.service != "" {
		f.Set("MessagingServiceSid", m.service)
	}
	if flag != "" {
		f.Set("OptOutType", flag)
	}
	for i, u := range in.media {
		f.Set("MediaUrl"+strconv.Itoa(i), u)
		kind := mime.TypeByExtension(path.Ext(u))
		if kind == "" {
			kind = "image/jpeg"
		}
		f.Set("MediaContentType"+strconv.Itoa(i), kind)
	}
	return f
}

func country(number string) string {
	if strings.HasPrefix(number, "+1") {
		return "US"
	}
	return ""
}

// sign computes X-Twilio-Signature: HMAC-SHA1 over the URL without fragment, followed by every form key and value,
// sorted by key; a repeated key comes once for each different value, in order (usage/security).
func sign(token, target string, form url.Values) string {
	mac := hmac.New(sha1.New, []byte(token))
	_, _ = io.WriteString(mac, target)
	for _, key := range slices.Sorted(maps.Keys(form)) {
		values := slices.Clone(form[key])
		slices.Sort(values)
		for _, v := range slices.Compact(values) {
			_, _ = io.WriteString(mac, key+v)
		}
	}
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// overrides are the connection properties that a webhook URL's fragment may change.
type overrides struct {
	connect, read, total time.Duration
	retries              int
	policy               map[string]bool // which failures are tried again: 4xx, 5xx, ct, rt
}

// parseOverrides reads a fragment such as "rc=3&rp=4xx,rt". Values out of range are brought into it; unknown names and
// the names that make no difference here (sni, e) are left alone.
func parseOverrides(fragment string) (overrides, error) {
	o := overrides{connect: 5 * time.Second, read: 15 * time.Second, total: 15 * time.Second, retries: 1,
		policy: map[string]bool{"ct": true}}
	q, err := url.ParseQuery(fragment)
	if err != nil {
		return o, errors.New("11100: the URL's connection overrides cannot be read")
	}
	number := func(name string, least, most int, set func(int)) {
		if n, e := strconv.Atoi(q.Get(name)); e == nil {
			set(min(max(n, least), most))
		} else if q.Has(name) {
			err = fmt.Errorf("11100: connection override %s is no number", name)
		}
	}
	millis := func(d *time.Duration) func(int) { return func(n int) { *d = time.Duration(n) * time.Millisecond } }
	number("ct", 100, 10_000, millis(&o.connect))
	number("rt", 100, 15_000, millis(&o.read))
	number("tt", 100, 15_000, millis(&o.total))
	number("rc", 0, 5, func(n int) { o.retries = n })
	if q.Has("rp") {
		o.policy = map[string]bool{}
		for p := range strings.SplitSeq(q.Get("rp"), ",") {
			switch p {
			case "4xx", "5xx", "ct", "rt":
				o.policy[p] = true
			case "all":
				o.policy = map[string]bool{"4xx": true, "5xx": true, "ct": true, "rt": true}
				return o, err
			default:
				return o, errors.New("11243: HTTP retry policy is invalid")
			}
		}
	}
	return o, err
}

// answer is what a webhook returned.
type answer struct {
	contentType string
	body        []byte
}

// call posts a signed form as the target's overrides say, and returns the number of requests, the last status and the
// answer if it was good. The error begins with the code that Twilio's debugger would show.
func (s *Server) call(ctx context.Context, target string, form url.Values, token string) (attempts, status int, a answer, err error) {
	bare, fragment, _ := strings.Cut(target, "#")
	if u, e := url.Parse(bare); e != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return 0, 0, a, errors.New("11100: the webhook URL is invalid")
	}
	o, err := parseOverrides(fragment)
	if err != nil {
		return 0, 0, a, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.total)
	defer cancel()
	for attempts < 1+o.retries {
		attempts++
		var failure string
		status, a, failure, err = s.post(ctx, o, bare, form, token)
		if failure == "" || !o.policy[failure] || ctx.Err() != nil {
			break
		}
	}
	return attempts, status, a, err
}

// post makes one request. failure is the retry policy's name for what went wrong.
func (s *Server) post(ctx context.Context, o overrides, target string, form url.Values, token string) (status int, a answer, failure string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// One timer: first it runs out on connecting, from then on it runs out on waiting for the answer.
	timer := time.AfterFunc(o.connect, cancel)
	defer timer.Stop()
	connected := make(chan struct{}, 1)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		timer.Reset(o.read)
		select {
		case connected <- struct{}{}:
		default:
		}
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, a, "", errors.New("11100: the webhook URL is invalid")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	req.Header.Set("User-Agent", "TwilioProxy/1.1")
	req.Header.Set("Accept", "*/*")
	req.Header.Set("X-Twilio-Signature", sign(s.o.AuthToken, target, form))
	req.Header.Set("I-Twilio-Idempotency-Token", token)
	res, err := s.client.Do(req)
	if err != nil {
		var dial *net.OpError
		select {
		case <-connected:
			return 0, a, "rt", errors.New("11200: HTTP connection failure, no answer from the webhook in time or connection lost")
		default:
		}
		if errors.As(err, &dial) && dial.Op == "dial" {
			return 0, a, "ct", errors.New("11205: HTTP connection failure, the webhook refused the connection")
		}
		return 0, a, "ct", errors.New("11205: HTTP connection failure, no connection to the webhook")
	}
	defer res.Body.Close()
	a.contentType = res.Header.Get("Content-Type")
	a.body, err = readAll(res.Body)
	switch {
	case err != nil:
		return res.StatusCode, a, "rt", errors.New("11200: the webhook's answer could not be read")
	case res.StatusCode >= 500:
		failure = "5xx"
	case res.StatusCode >= 400:
		failure = "4xx"
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return res.StatusCode, a, failure, fmt.Errorf("11200: the webhook answered %d", res.StatusCode)
	}
	if a.contentType == "" && res.StatusCode != http.StatusNoContent {
		return res.StatusCode, a, "", errors.New("12300: the webhook's answer has no Content-Type")
	}
	return res.StatusCode, a, "", nil
}

// twiml is the part of TwiML for messaging that says something to a phone.
type twiml struct {
	XMLName  xml.Name
	Messages []struct {
		XMLName xml.Name
		To      string   `xml:"to,attr"`
		From    string   `xml:"from,attr"`
		Action  string   `xml:"statusCallback,attr"`
		Body    []string `xml:"Body"`
		Media   []string `xml:"Media"`
		Text    string   `xml:",chardata"`
	} `xml:",any"`
}

// answer does what the webhook's answer to m says: TwiML <Message>, or plain text, is a reply.
func (s *Server) answer(m *message, a answer) error {
	if len(strings.TrimSpace(string(a.body))) == 0 {
		return nil
	}
	kind, _, err := mime.ParseMediaType(a.contentType)
	if err != nil {
		return errors.New("12300: the webhook's Content-Type is invalid")
	}
	switch kind {
	case "text/plain":
		return s.reply(m, m.to, m.from, string(a.body), "", 0)
	case "text/xml", "application/xml", "text/html":
	default:
		return fmt.Errorf("12300: the webhook's Content-Type %q is neither TwiML nor text", kind)
	}
	var doc twiml
	if err := xml.Unmarshal(a.body, &doc); err != nil {
		return errors.New("12100: the webhook's TwiML cannot be parsed")
	}
	if doc.XMLName.Local != "Response" {
		return errors.New("12200: TwiML must begin with <Response>")
	}
	for _, v := range doc.Messages {
		if v.XMLName.Local != "Message" && v.XMLName.Local != "Sms" {
			return fmt.Errorf("12200: the emulator knows no TwiML verb <%s>", v.XMLName.Local)
		}
		text := v.Text
		if len(v.Body) > 0 {
			text = strings.Join(v.Body, "")
		}
		from, to := v.From, v.To
		if from == "" {
			from = m.to
		}
		if to == "" {
			to = m.from
		}
		if err := s.reply(m, from, to, strings.TrimSpace(text), v.Action, len(v.Media)); err != nil {
			return err
		}
	}
	return nil
}

// reply sends what a webhook answered. To an opted-out phone it fails with 21610, and only the log shows it.
func (s *Server) reply(in *message, from, to, text, callback string, media int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.ours(from) || !e164.MatchString(to):
		return errors.New("14101: <Message> from or to is invalid")
	case text == "" && media == 0:
		return errors.New("14103: <Message> has neither body nor media")
	case len([]rune(text)) > maxText:
		return errors.New("14103: <Message> body is too long")
	case s.full(1):
		return errFull
	}
	m := &message{from: from, to: to, service: in.service, text: text, media: media, direction: "outbound-reply", callback: callback}
	s.record(m)
	s.dispatch(m, s.mayNotWrite("", from, to))
	return nil
}

// dispatch starts a recorded outbound message on its way: onto the phone at once, unless it fails, and through its
// statuses with a callback for each. The caller holds the lock.
func (s *Server) dispatch(m *message, optedOut bool) {
	type step struct {
		status string
		code   int
	}
	m.status = "queued"
	steps := []step{{"queued", 0}, {"sent", 0}, {"delivered", 0}}
	if optedOut {
		steps = []step{{"queued", 0}, {"failed", 21610}}
	} else {
		s.show(m.to, m)
	}
	set := func(st step) { // with the lock held
		m.status, m.errorCode, m.updated = st.status, st.code, s.now()
		if st.status == "sent" {
			m.sent = m.updated
		}
	}
	if m.callback == "" {
		for _, st := range steps {
			set(st)
		}
		return
	}
	type call struct {
		form  url.Values
		token string
		drop  bool
	}
	var calls []call
	for _, st := range steps {
		f := url.Values{
			"MessageSid": {m.sid}, "SmsSid": {m.sid}, "MessageStatus": {st.status}, "SmsStatus": {st.status},
			"To": {m.to}, "From": {m.from}, "AccountSid": {s.o.AccountSID}, "ApiVersion": {apiVersion},
		}
		if m.service != "" {
			f.Set("MessagingServiceSid", m.service)
		}
		if st.code != 0 {
			f.Set("ErrorCode", strconv.Itoa(st.code))
		}
		if st.status == "delivered" {
			f.Set("RawDlrDoneDate", s.now().Format("0601021504"))
		}
		calls = append(calls, call{f, s.uuid(), s.roll(s.knobs.CallbackDropRate)})
	}
	shuffled := slices.Clone(calls)
	if s.knobs.CallbackShuffle {
		// The reverse whenever the dice would leave the order as it is: a knob that is on must show.
		s.dice.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if shuffled[0].token == calls[0].token && shuffled[1].token == calls[1].token {
			slices.Reverse(shuffled)
		}
	}
	target := m.callback
	s.enqueue(func() {
		for i, st := range steps {
			s.mu.Lock()
			set(st)
			s.mu.Unlock()
			if shuffled[i].drop {
				continue
			}
			if _, status, _, err := s.call(s.ctx, target, shuffled[i].form, shuffled[i].token); err != nil {
				s.o.Logger.Info("status callback failed", "sid", m.sid, "status", status)
			}
		}
	})
}
