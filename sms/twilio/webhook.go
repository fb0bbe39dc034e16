package twilio

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/heed-sms/heed/sms"
)

// Built once: a flood of forged requests should cost no more than it must.
var (
	errNoSignature  = fmt.Errorf("%w: no X-Twilio-Signature header; the request is not from Twilio", sms.ErrSignature)
	errMethod       = fmt.Errorf("%w: Twilio calls with POST or GET only", sms.ErrSignature)
	errNotForm      = fmt.Errorf("%w: the body is no form and the URL has no bodySHA256, so nothing proves it", sms.ErrSignature)
	errBodyHash     = fmt.Errorf("%w: the body differs from the URL's bodySHA256", sms.ErrSignature)
	errNotSigned    = fmt.Errorf("%w: no configured token gives it; compare the URL in Twilio's console with heed's public URL and the token with auth_token", sms.ErrSignature)
	errOtherAccount = fmt.Errorf("%w: it is signed with our token but names another account; set account_sid to the account that owns the token", sms.ErrSignature)
)

// Webhook proves that Twilio sent r with one of the configured tokens and decodes it: an inbound message
// ([sms.Inbound]; At is zero because Twilio's form carries no time) or a delivery status ([sms.Status]). Both may
// arrive at the same URL.
//
// Text that Twilio cannot have produced (a bare ";", a broken percent-escape, two different values of a parameter
// that decides something) is sms.ErrMalformed when the signature holds over it, sms.ErrSignature when not.
func (p *Provider) Webhook(r sms.Webhook) ([]sms.Event, error) {
	signature := r.Header.Get("X-Twilio-Signature")
	if signature == "" {
		return nil, errNoSignature
	}
	s := p.verifier.get()
	defer p.verifier.put(s)

	rawURL, _, _ := strings.Cut(r.URL, "#") // a fragment sets Twilio's retries and is not part of the request
	_, query, _ := strings.Cut(rawURL, "?")
	form := true
	switch r.Method {
	case "GET":
		s.params = s.params[:0] // the parameters are part of the URL
		if !s.proves(rawURL, signature) {
			return nil, errNotSigned
		}
		scan(s, query)
	case "POST":
		if want := bodySHA256(query); want != "" {
			s.params = s.params[:0]
			if !s.proves(rawURL, signature) {
				return nil, errNotSigned
			}
			sum := sha256.Sum256(r.Body)
			if !hmac.Equal([]byte(strings.ToLower(want)), []byte(hex.EncodeToString(sum[:]))) {
				return nil, errBodyHash
			}
			form = isForm(r.Header.Get("Content-Type"))
			scan(s, r.Body)
			break
		}
		if !isForm(r.Header.Get("Content-Type")) {
			return nil, errNotForm
		}
		scan(s, r.Body)
		s.canonical()
		if !s.proves(rawURL, signature) {
			return nil, errNotSigned
		}
	default:
		return nil, errMethod
	}

	if !form {
		return nil, fmt.Errorf("%w: signed, but %d bytes of something other than a form; point only message webhooks here", sms.ErrMalformed, len(r.Body))
	}
	if s.odd {
		return nil, fmt.Errorf(`%w: signed, but the form has a bare ";" or a broken percent-escape`, sms.ErrMalformed)
	}
	event, err := p.decode(s)
	if err != nil {
		return nil, err
	}
	return []sms.Event{event}, nil
}

// Ack is TwiML that does nothing. Twilio itself confirms a STOP, and an answer with text would be a second message.
func (p *Provider) Ack() sms.Response {
	return sms.Response{ContentType: "text/xml", Body: "<Response/>"}
}

func (p *Provider) decode(s *scratch) (sms.Event, error) {
	// One copy of the form serves all fields of the event, which so share one allocation.
	text := string(s.buf)
	var account, sid, oldSID, from, to, service, body, media, optOut, messageStatus, smsStatus, errorCode string
	var hasBody bool
	for i, pr := range s.pairs {
		var field *string
		switch string(s.buf[pr.key:pr.value]) {
		case "AccountSid":
			field = &account
		case "MessageSid":
			field = &sid
		case "SmsMessageSid", "SmsSid":
			field = &oldSID
		case "From":
			field = &from
		case "To":
			field = &to
		case "MessagingServiceSid":
			field = &service
		case "Body":
			field, hasBody = &body, true
		case "NumMedia":
			field = &media
		case "OptOutType":
			field = &optOut
		case "MessageStatus":
			field = &messageStatus
		case "SmsStatus":
			field = &smsStatus
		case "ErrorCode":
			field = &errorCode
		default:
			continue
		}
		value := text[pr.value:pr.end]
		// The signature covers a repeated key as a set, without order, so it does not say which value counts.
		// Guessing could turn a STOP into something else.
		if i > 0 && s.sameKey(s.pairs[i-1], pr) && *field != value {
			return nil, fmt.Errorf("%w: signed, but the parameter %s has more than one value", sms.ErrMalformed, text[pr.key:pr.value])
		}
		*field = value
	}

	sid = cmp.Or(sid, oldSID) // Twilio still sends the old names, too
	switch {
	case account == "":
		return nil, fmt.Errorf("%w: signed, but without AccountSid; this is no message webhook", sms.ErrMalformed)
	case account != p.cfg.AccountSID:
		return nil, errOtherAccount
	case sid == "":
		return nil, fmt.Errorf("%w: signed, but without MessageSid; point only message webhooks here", sms.ErrMalformed)
	}

	received := smsStatus == "received" || smsStatus == "receiving"
	switch state := cmp.Or(messageStatus, smsStatus); {
	case received || hasBody && messageStatus == "":
		if from == "" {
			return nil, fmt.Errorf("%w: message %s has no sender", sms.ErrMalformed, safeID(sid))
		}
		if !utf8.ValidString(body) {
			body = strings.ToValidUTF8(body, "\uFFFD")
		}
		count, _ := strconv.Atoi(media)
		return sms.Inbound{
			ProviderID: sid, From: from, To: to, Service: service, Body: body,
			Media: max(count, 0), Flag: flag(optOut),
		}, nil
	case state != "" && !hasBody:
		d, errorCode, known := outcome(state, errorCode)
		if !known {
			return nil, fmt.Errorf("%w: status of message %s is one that this version does not know", sms.ErrMalformed, safeID(sid))
		}
		return sms.Status{ProviderID: sid, State: d, Code: errorCode, OptedOut: errorCode == codeOptedOut, To: to}, nil
	}
	return nil, fmt.Errorf("%w: message %s is neither a reply nor a delivery status", sms.ErrMalformed, safeID(sid))
}

// flag reads OptOutType, which Twilio adds when the number is in a Messaging Service with Advanced Opt-Out.
func flag(optOutType string) sms.Flag {
	switch {
	case strings.EqualFold(optOutType, "STOP"):
		return sms.FlagStop
	case strings.EqualFold(optOutType, "START"):
		return sms.FlagStart
	case strings.EqualFold(optOutType, "HELP"):
		return sms.FlagHelp
	}
	return sms.FlagNone
}

// safeID returns id if it can stand in an error text, where nothing from outside may carry a number or a text.
func safeID(id string) string {
	if isSID(id, "SM") || isSID(id, "MM") {
		return id
	}
	return "with an unusual id"
}

func isForm(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.TrimSpace(mediaType)
	return mediaType == "" || strings.EqualFold(mediaType, "application/x-www-form-urlencoded")
}

// bodySHA256 finds the parameter that Twilio adds to the URL when the body is not a form.
func bodySHA256(query string) string {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if v, ok := strings.CutPrefix(pair, "bodySHA256="); ok {
			return v
		}
	}
	return ""
}

// verifier holds the keyed hashes. Twilio signs with HMAC-SHA1 under the account's auth token:
// https://www.twilio.com/docs/usage/webhooks/webhooks-security.
type verifier struct{ pool sync.Pool }

// newVerifier accepts signatures of any of the tokens; empty ones are left out, because anybody has those.
func newVerifier(tokens ...string) *verifier {
	v := new(verifier)
	tokens = slices.DeleteFunc(slices.Clone(tokens), func(t string) bool { return t == "" })
	v.pool.New = func() any {
		s := new(scratch)
		for _, t := range tokens {
			// Reset keeps the states after the key blocks, so that later uses hash only the message.
			mac := hmac.New(sha1.New, []byte(t))
			mac.Reset()
			s.macs = append(s.macs, mac)
		}
		return s
	}
	return v
}

func (v *verifier) get() *scratch { return v.pool.Get().(*scratch) }

func (v *verifier) put(s *scratch) {
	if cap(s.buf) > 64<<10 {
		return // a rare giant should not stay in memory
	}
	v.pool.Put(s)
}

// scratch is the working memory of one verification.
type scratch struct {
	macs   []hash.Hash // one per token
	pairs  []pair
	buf    []byte // the unescaped form: each key followed at once by its value, as they are signed
	params []byte // the pairs in signing order
	url    []byte
	given  []byte
	sum    [sha1.Size]byte
	want   [28]byte // sum in Base64
	odd    bool     // the form has spellings that Twilio does not produce
}

// pair is one parameter: buf[key:value] is the key and buf[value:end] the value.
type pair struct {
	prefix          uint64 // the first eight bytes of the key: nearly every comparison ends there
	key, value, end uint32
}

// scan splits and unescapes a form, or the query of a URL, into s.pairs. It never fails: what a strict parser
// refuses it takes literally, so that a signature over it can still be checked, and sets s.odd.
func scan[T string | []byte](s *scratch, form T) {
	s.pairs, s.odd = s.pairs[:0], false
	buf := slices.Grow(s.buf[:0], len(form)+8)[:len(form)+8] // unescaping never grows the text
	n := 0
	for i := 0; i < len(form); {
		if form[i] == '&' {
			i++
			continue
		}
		key, value := n, -1
	parameter:
		for ; i < len(form); i++ {
			c := form[i]
			switch c {
			case '&':
				break parameter
			case '=':
				if value < 0 {
					value = n
					continue
				}
			case '+':
				c = ' '
			case '%':
				if i+2 < len(form) {
					hi, lo := unhex[form[i+1]], unhex[form[i+2]]
					if hi|lo < 16 {
						c = hi<<4 | lo
						i += 2
						break
					}
				}
				s.odd = true
			case ';':
				s.odd = true
			}
			buf[n] = c
			n++
		}
		if value < 0 {
			value = n
		}
		s.pairs = append(s.pairs, pair{key: uint32(key), value: uint32(value), end: uint32(n)})
	}
	s.buf = buf[:n]
	for i := range s.pairs {
		p := &s.pairs[i]
		p.prefix = prefix(buf[p.key : p.key+8 : len(form)+8]) // buf is long enough for that
		if l := p.value - p.key; l < 8 {
			p.prefix &= ^uint64(0) << (64 - 8*l)
		}
	}
	// Sorted also for a GET, whose parameters are signed as they stand in the URL: decode wants equal keys side by side.
	slices.SortFunc(s.pairs, s.compare)
}

func prefix(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// unhex maps a hexadecimal digit to its value and everything else to 16.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 16
	}
	for i := range byte(10) {
		t['0'+i] = i
	}
	for i := range byte(6) {
		t['a'+i], t['A'+i] = 10+i, 10+i
	}
	return t
}()

// compare orders by key and then by value, byte by byte.
func (s *scratch) compare(a, b pair) int {
	if a.prefix != b.prefix {
		if a.prefix < b.prefix {
			return -1
		}
		return 1
	}
	if c := bytes.Compare(s.buf[a.key:a.value], s.buf[b.key:b.value]); c != 0 {
		return c
	}
	return bytes.Compare(s.buf[a.value:a.end], s.buf[b.value:b.end])
}

func (s *scratch) sameKey(a, b pair) bool {
	return bytes.Equal(s.buf[a.key:a.value], s.buf[b.key:b.value])
}

// canonical sets s.params to what Twilio signs after the URL: every key and value without separator, sorted, and of a
// repeated key each distinct value once, which is how the vendor's own validators for Python and Node.js read it.
func (s *scratch) canonical() {
	s.params = s.params[:0]
	for i, p := range s.pairs {
		if i > 0 && s.compare(s.pairs[i-1], p) == 0 {
			continue
		}
		s.params = append(s.params, s.buf[p.key:p.end]...)
	}
}

// proves reports whether signature is that of url followed by s.params under one of the tokens. Twilio is not
// consistent about the port, so url is tried as it is and then with its port removed or its default port added,
// as the vendor's validators do.
func (s *scratch) proves(url, signature string) bool {
	if len(signature) != len(s.want) {
		return false
	}
	s.given = append(s.given[:0], signature...)
	s.url = append(s.url[:0], url...)
	for {
		for _, mac := range s.macs {
			mac.Reset()
			mac.Write(s.url)
			mac.Write(s.params)
			base64.StdEncoding.Encode(s.want[:], mac.Sum(s.sum[:0]))
			if hmac.Equal(s.given, s.want[:]) {
				return true
			}
		}
		other, ok := togglePort(url)
		if !ok || len(other) == len(s.url) {
			return false
		}
		s.url = append(s.url[:0], other...)
	}
}

// togglePort returns url without its port, or with the default port of its scheme if it has none.
func togglePort(url string) (string, bool) {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return "", false
	}
	port := ":443"
	if strings.EqualFold(scheme, "http") {
		port = ":80"
	}
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	end := len(scheme) + len("://") + len(authority)
	host := authority[strings.LastIndexByte(authority, '@')+1:]
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || colon < strings.LastIndexByte(host, ']') { // the colons of an IPv6 address are inside brackets
		return url[:end] + port + url[end:], true
	}
	return url[:end-len(host)+colon] + url[end:], true
}

// ActsOn reports whether Twilio blocks or unblocks the pair by itself: the message is one of its default words and
// nothing else, in any case (support.twilio.com 223134027). On toll-free numbers the network does, on fewer words
// (support.twilio.com 360058144374); the others are told to Twilio's list like any plain request.
func (p *Provider) ActsOn(m sms.Inbound) bool {
	word := strings.ToUpper(strings.TrimSpace(m.Body))
	switch word {
	case "STOP", "START", "UNSTOP":
		return true
	case "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "YES":
		return !tollFree(m.To)
	}
	return false
}

// tollFree reports whether a number of ours is a toll-free one of the North American plan.
func tollFree(number string) bool {
	for _, code := range []string{"800", "833", "844", "855", "866", "877", "888"} {
		if strings.HasPrefix(number, "+1"+code) {
			return true
		}
	}
	return false
}
