package dropin

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

// Relays tells clients where their messages stand, at the StatusCallback of each. It is owed work: what cannot be told
// is tried again, after a restart too, at least once and for a day. A host that hangs delays no other one.
type Relays struct {
	Ledger interface {
		connector.CrewLedger
		Append(ctx context.Context, events ...ledger.Event) ([]ledger.Receipt, error)
		Event(ctx context.Context, n phone.Number, seq uint64) (ledger.Event, error)
		Message(ctx context.Context, id string) (ledger.Message, error)
	}
	Client *http.Client // NewClient
	Log    *slog.Logger
	Now    func() time.Time
}

const (
	relayTimeout = 10 * time.Second
	relayGiveUp  = 24 * time.Hour
	relayPerHost = 4
	relayMost    = 128 // of all hosts: names cost a client nothing
)

// Run relays as it becomes owed, until ctx ends.
func (r *Relays) Run(ctx context.Context) {
	connector.Every(ctx, time.Second, r.Ledger.OwedSignal(ledger.OweRelay), r.Log, "clients could not be told where their messages stand", r.Flush)
}

// Flush relays everything that may be relayed now.
func (r *Relays) Flush(ctx context.Context) error {
	return connector.Crew{
		Ledger: r.Ledger, Kind: ledger.OweRelay, PerAccount: relayPerHost, Most: relayMost, Trouble: "a client could not be told where its message stands", Log: r.Log, Now: r.Now,
		Prepare: func(ctx context.Context, o ledger.Owed) (string, func(context.Context) error, error) {
			e, err := r.Ledger.Event(ctx, o.Number, o.Of)
			if err != nil {
				return "", nil, err
			}
			if e.Opened == nil || e.Opened.Callback == nil {
				return "", nil, fmt.Errorf("event %d has no callback", o.Of)
			}
			u, err := url.Parse(e.Opened.Callback.URL)
			if err != nil {
				return "", nil, err
			}
			return u.Host, func(ctx context.Context) error { return r.relay(ctx, o, e.Opened.ID, *e.Opened.Callback) }, nil
		},
	}.Flush(ctx)
}

func (r *Relays) relay(ctx context.Context, o ledger.Owed, id string, cb ledger.Callback) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m, err := r.Ledger.Message(ctx, id)
	if err != nil {
		return err
	}
	form := statusForm(m, cb.As)
	told := &ledger.Relayed{Message: id, Of: o.Of, UpTo: o.Seq, Status: form.Get("MessageStatus")}
	if err := r.post(ctx, cb, form); err != nil {
		if r.Now().Sub(o.Since) < relayGiveUp {
			return err
		}
		told.Failed = err.Error()
	}
	// Not with ctx: what was told is recorded.
	_, err = r.Ledger.Append(context.WithoutCancel(ctx), ledger.Event{Kind: ledger.KindRelayed, At: r.Now().UTC(), Number: o.Number, Relayed: told})
	return err
}

// statusForm is what Twilio posts to a StatusCallback
// (https://www.twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks).
func statusForm(m ledger.Message, account string) url.Values {
	j := render(m, account)
	form := url.Values{"MessageSid": {j.SID}, "SmsSid": {j.SID}, "MessageStatus": {j.Status}, "SmsStatus": {j.Status},
		"To": {j.To}, "AccountSid": {account}, "ApiVersion": {apiVersion}}
	if j.From != nil {
		form.Set("From", *j.From)
	}
	if j.ServiceSID != nil {
		form.Set("MessagingServiceSid", *j.ServiceSID)
	}
	if j.ErrorCode != nil {
		form.Set("ErrorCode", strconv.Itoa(*j.ErrorCode))
	}
	return form
}

// post makes one signed request. Its error holds neither the URL, which may carry a secret, nor the answer.
func (r *Relays) post(ctx context.Context, cb ledger.Callback, form url.Values) error {
	signature, err := sign(cb.Signer, cb.URL, form)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cb.URL, strings.NewReader(form.Encode()))
	if err != nil {
		return errors.New("the callback's URL cannot be called")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", "heed")
	req.Header.Set("X-Twilio-Signature", signature)
	resp, err := r.Client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("the callback's host does not answer: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("the callback answered HTTP %d", resp.StatusCode)
	}
	return nil
}

// newSigner returns what can sign in the name of a key without being it: the states of SHA-1 after the inner and the
// outer key block of HMAC (RFC 2104, section 4). The key cannot be computed from them, and they do not log in.
func newSigner(key string) []byte {
	block := make([]byte, sha1.BlockSize)
	if len(key) > len(block) {
		h := sha1.Sum([]byte(key))
		copy(block, h[:])
	} else {
		copy(block, key)
	}
	var out []byte
	for _, pad := range []byte{0x36, 0x5c} {
		h := sha1.New()
		padded := bytes.Clone(block)
		for i := range padded {
			padded[i] ^= pad
		}
		h.Write(padded)
		state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			panic(err) // crypto/sha1 documents that it can be marshalled
		}
		out = append(out, state...)
	}
	return out
}

// sign computes X-Twilio-Signature: HMAC-SHA1 over the URL, followed by every form key and value, sorted by key
// (https://www.twilio.com/docs/usage/security). Each key has one value here.
func sign(signer []byte, target string, form url.Values) (string, error) {
	restore := func(state []byte) (hash.Hash, error) {
		h := sha1.New()
		if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
			return nil, fmt.Errorf("the callback's signer cannot be read: %w", err)
		}
		return h, nil
	}
	inner, err := restore(signer[:len(signer)/2])
	if err != nil {
		return "", err
	}
	outer, err := restore(signer[len(signer)/2:])
	if err != nil {
		return "", err
	}
	_, _ = io.WriteString(inner, target)
	for _, key := range slices.Sorted(maps.Keys(form)) {
		_, _ = io.WriteString(inner, key+form.Get(key))
	}
	outer.Write(inner.Sum(nil))
	return base64.StdEncoding.EncodeToString(outer.Sum(nil)), nil
}

// NewClient returns a client for addresses that clients name. Unless allowPrivate is set it connects to no address within
// this network, whatever a name resolves to: a client must not reach through heed what it cannot reach itself. It follows
// no redirect.
func NewClient(allowPrivate bool) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	if !allowPrivate {
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			if host, _, err := net.SplitHostPort(address); err != nil || private(host) {
				return errPrivate
			}
			return nil
		}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy, t.DialContext, t.MaxIdleConnsPerHost = nil, dialer.DialContext, 4
	return &http.Client{Transport: t, Timeout: relayTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

var errPrivate = errors.New("the address is within heed's own network")

// special are the networks that netip does not tell from public ones and that may lead back into this one: "this
// network", carriers' own, protocol assignments, benchmarks and the reserved rest (RFC 6890); and those of IPv6 that
// carry an IPv4 address to somebody who unpacks it (RFC 6052, 8215, 3056, 4380, 4291).
var special = prefixes("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4",
	"64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "fec0::/10")

func prefixes(of ...string) (all []netip.Prefix) {
	for _, p := range of {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

// private reports whether a host is this machine or within its network, as far as its name tells without asking.
func private(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	return !ip.IsGlobalUnicast() || ip.IsPrivate() || slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(ip) })
}
