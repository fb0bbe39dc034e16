// Package twilio is heed's driver for Twilio Programmable Messaging. It proves and decodes Twilio's webhooks, hands
// over one message at a time, and reads the account's message log.
//
// It translates and nothing else: it keeps no state, does not retry a send, does not decide what a reply means, and
// never changes anything in the account but by sending and, where consent_api allows it, in Twilio's opt-out list. What has to be set up in Twilio's console is in README.md.
//
// Protocol facts come from these vendor pages, which the comments name where they matter:
//   - https://www.twilio.com/docs/usage/webhooks/webhooks-security (signature)
//   - https://www.twilio.com/docs/messaging/guides/webhook-request (inbound form)
//   - https://www.twilio.com/docs/messaging/guides/track-outbound-message-status (status form)
//   - https://www.twilio.com/docs/messaging/api/message-resource (send, log)
//   - https://www.twilio.com/docs/messaging/features/consent-api (opt-out list)
//   - https://www.twilio.com/docs/api/errors (codes)
package twilio

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/heed-sms/heed/sms"
)

var (
	_ sms.Provider     = (*Provider)(nil)
	_ sms.InboundLog   = (*Provider)(nil)
	_ sms.OutboundLog  = (*Provider)(nil)
	_ sms.Finder       = (*Provider)(nil)
	_ sms.Prober       = (*Provider)(nil)
	_ sms.OptOutSetter = withList{}
)

const (
	defaultBaseURL     = "https://api.twilio.com"
	messagingHost      = "messaging.twilio.com"
	defaultAccountsURL = "https://accounts.twilio.com"
)

// Config says which account to use and how. Printing a Config in any format shows no secret.
type Config struct {
	// AccountSID is the account or sub-account, "AC" and 32 hex digits. Every webhook must carry it.
	AccountSID string `yaml:"account_sid"`
	// AuthToken is the account's primary auth token. Twilio signs webhooks with it, so an API key cannot replace it.
	AuthToken string `yaml:"auth_token" json:"-"`
	// AuthTokenPrevious is a second token whose signatures are accepted too: the old one after a rotation, or the
	// secondary one before it is promoted. It is never used to call Twilio.
	AuthTokenPrevious string `yaml:"auth_token_previous,omitempty" json:"-"`
	// APIKeySID and APIKeySecret, set together, replace the auth token in calls to Twilio.
	APIKeySID    string `yaml:"api_key_sid,omitempty"`
	APIKeySecret string `yaml:"api_key_secret,omitempty" json:"-"`
	// From is the sender of messages that name none: a number in E.164 or a short code in digits.
	From string `yaml:"from,omitempty"`
	// MessagingServiceSID, "MG" and 32 hex digits, is used instead of From when set: Twilio then picks the sender.
	MessagingServiceSID string `yaml:"messaging_service_sid,omitempty"`
	// InboundNumbers limits the read of the inbound log to messages to these numbers, one query for each. Without it
	// the log of the whole account is read, sent messages included, because Twilio cannot filter by direction.
	InboundNumbers []string `yaml:"inbound_numbers,omitempty"`
	// ConsentAPI says that the account has Twilio's Consent Management API, so that heed can write opt-outs to Twilio's
	// own list. It comes with the Compliance Toolkit, or on request.
	ConsentAPI bool `yaml:"consent_api,omitempty"`
	// BaseURL replaces https://api.twilio.com, for an emulator. http is accepted for loopback addresses only.
	BaseURL string `yaml:"base_url,omitempty"`
	// AccountsURL replaces https://accounts.twilio.com, the host of the Consent Management API, under the same
	// conditions. With BaseURL alone, that is used.
	AccountsURL string `yaml:"accounts_url,omitempty"`
	// WebhookURL is the public URL at which heed expects this account's webhooks. Probe compares it with Twilio's
	// settings; an empty one skips that comparison. It is not part of the file: the caller derives it.
	WebhookURL string `yaml:"-"`
}

// Problem is one thing wrong with a [Config].
type Problem struct {
	Field  string // the yaml key
	Reason string // what is wrong, without the value
	Hint   string // what to do
}

func (p Problem) String() string { return p.Field + ": " + p.Reason + " (" + p.Hint + ")" }

// Format prints the account and nothing else, whatever the verb: %+v and %#v of a Config would show its secrets.
func (c Config) Format(f fmt.State, _ rune) { io.WriteString(f, "twilio.Config{"+c.AccountSID+"}") }

// Validate returns everything wrong with c, without asking Twilio. No problem means that [New] accepts c.
func (c Config) Validate() []Problem {
	var ps []Problem
	check := func(ok bool, field, reason, hint string) {
		if !ok {
			ps = append(ps, Problem{field, reason, hint})
		}
	}
	const accountPage = "copy it from Account Info on the first page of the Twilio console"
	check(isSID(c.AccountSID, "AC"), "account_sid", `is not "AC" and 32 letters or digits`, accountPage)
	// An empty key would make every signature computable by anyone.
	check(c.AuthToken != "", "auth_token", "is empty", accountPage+"; webhooks cannot be proven without it")
	check(isToken(c.AuthToken), "auth_token", "contains blanks, control characters or an unresolved ${…}", accountPage)
	check(isToken(c.AuthTokenPrevious), "auth_token_previous", "contains blanks, control characters or an unresolved ${…}",
		"remove it when no rotation is under way")
	check((c.APIKeySID == "") == (c.APIKeySecret == ""), "api_key_sid", "and api_key_secret are not set together",
		"set both, or neither to call Twilio with the auth token")
	check(c.APIKeySID == "" || isSID(c.APIKeySID, "SK"), "api_key_sid", `is not "SK" and 32 letters or digits`,
		"copy it from Account > API keys & tokens")
	check(isToken(c.APIKeySecret), "api_key_secret", "contains blanks, control characters or an unresolved ${…}",
		"create a new key: Twilio shows a secret only once")
	check(c.From != "" || c.MessagingServiceSID != "", "from", "and messaging_service_sid are both empty",
		"set one of them, or heed has no sender")
	check(c.From == "" || isSender(c.From), "from", "is neither a number in E.164 nor a short code",
		`write it like "+15125550100"; people cannot answer STOP to a sender name`)
	check(c.MessagingServiceSID == "" || isSID(c.MessagingServiceSID, "MG"), "messaging_service_sid",
		`is not "MG" and 32 letters or digits`, "copy it from Messaging > Services")
	for i, n := range c.InboundNumbers {
		check(isSender(n), fmt.Sprintf("inbound_numbers[%d]", i), "is neither a number in E.164 nor a short code",
			`write it like "+15125550100"`)
	}
	for _, base := range []struct{ field, address string }{{"base_url", c.BaseURL}, {"accounts_url", c.AccountsURL}} {
		if base.address == "" {
			continue
		}
		u, err := url.Parse(base.address)
		check(err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil &&
			(u.Path == "" || u.Path == "/") && u.RawQuery == "" && u.Fragment == "",
			base.field, "is not an address of the form https://host", "remove it unless heed talks to an emulator")
		check(err != nil || u.Scheme != "http" || isLoopback(u.Hostname()),
			base.field, "would send the credentials in clear", "use https, or an emulator on a loopback address")
	}
	return ps
}

func isSID(s, prefix string) bool {
	if len(s) != 34 || !strings.HasPrefix(s, prefix) {
		return false
	}
	return isAlphanumeric(s)
}

func isAlphanumeric(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}

func isToken(s string) bool {
	return !strings.Contains(s, "${") && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// isSender accepts E.164 ("+", 7 to 15 digits) and short codes (3 to 8 digits).
func isSender(s string) bool {
	digits, international := strings.CutPrefix(s, "+")
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	if international {
		return len(digits) >= 7 && len(digits) <= 15 && digits[0] != '0'
	}
	return len(digits) >= 3 && len(digits) <= 8
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Provider is one Twilio account. It is safe for concurrent use. Printing one shows no secret.
type Provider struct {
	cfg       Config
	base      *url.URL // the REST API
	messaging *url.URL // the Messaging Service API
	accounts  *url.URL // the Consent Management API
	verifier  *verifier
	client    *http.Client          // one attempt, no redirects
	repeats   *retryablehttp.Client // the same client; only for calls that may be repeated, which a send may not
	maxPages  int                   // of one log query, against a log that never ends
	now       func() time.Time
}

// Format prints the account and nothing else, for the same reason as [Config.Format].
func (p *Provider) Format(f fmt.State, _ rune) {
	io.WriteString(f, "twilio.Provider{"+p.cfg.AccountSID+"}")
}

// New returns a driver that calls Twilio through client, whose Timeout bounds each attempt of each call. The driver
// uses a copy that follows no redirect. A client that repeats requests by itself is refused: Twilio has no
// idempotency key for messages, so every repetition may be a second message.
//
// What it returns is a [*Provider], which with c.ConsentAPI has one capability more: [sms.OptOutSetter].
func New(c Config, client *http.Client) (sms.Provider, error) {
	p, err := newProvider(c, client)
	switch {
	case err != nil:
		return nil, err
	case c.ConsentAPI:
		return withList{p}, nil
	}
	return p, nil
}

func newProvider(c Config, client *http.Client) (*Provider, error) {
	if ps := c.Validate(); len(ps) > 0 {
		errs := make([]error, len(ps))
		for i, p := range ps {
			errs[i] = errors.New("twilio: " + p.String())
		}
		return nil, errors.Join(errs...)
	}
	if client == nil {
		return nil, errors.New("twilio: no HTTP client; pass one with a timeout")
	}
	if _, retries := client.Transport.(*retryablehttp.RoundTripper); retries {
		return nil, errors.New("twilio: the HTTP client repeats requests, and a repeated send is a second message; pass a plain one")
	}
	address := cmp.Or(strings.TrimSuffix(c.BaseURL, "/"), defaultBaseURL)
	base, err := url.Parse(address + "/")
	if err != nil {
		return nil, fmt.Errorf("twilio: base_url: %w", err)
	}
	messaging := base // an emulator serves both APIs
	if address == defaultBaseURL {
		messaging = &url.URL{Scheme: "https", Host: messagingHost, Path: "/"}
	}
	accounts, err := url.Parse(strings.TrimSuffix(cmp.Or(c.AccountsURL, c.BaseURL, defaultAccountsURL), "/") + "/")
	if err != nil {
		return nil, fmt.Errorf("twilio: accounts_url: %w", err)
	}

	once := *client
	once.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Provider{
		cfg: c, base: base, messaging: messaging, accounts: accounts,
		verifier: newVerifier(c.AuthToken, c.AuthTokenPrevious),
		client:   &once,
		repeats:  newRepeater(&once),
		maxPages: 10_000, // ten million messages
		now:      time.Now,
	}, nil
}

// code is a number or text in Twilio's JSON, "" for null: the API is not consistent about which it uses.
type code string

func (c *code) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "null" {
		s = ""
	}
	*c = code(s)
	return nil
}

// Codes that the driver tells apart, from https://www.twilio.com/docs/api/errors.
const (
	codeOptedOut      = "21610" // the recipient has opted out of this sender or service
	codeUnauthorized  = "20003"
	codeInactive      = "20005" // the account is suspended or closed
	codeTooMany       = "20429"
	codeQueueOverflow = "21611" // the sender's queue is full; nothing was queued
)

// outcome reads Twilio's message status and error code ("" or "0" for none). A status that this driver does not know
// counts as failed if it comes with an error code, which may be the proof of an opt-out; else known is false.
func outcome(status, errorCode string) (d sms.Delivery, code string, known bool) {
	if errorCode == "0" {
		errorCode = ""
	}
	switch status {
	case "accepted", "scheduled", "queued", "sending":
		return sms.DeliveryQueued, errorCode, true
	case "sent", "partially_delivered":
		return sms.DeliverySent, errorCode, true
	case "delivered", "read":
		return sms.DeliveryDelivered, errorCode, true
	case "undelivered", "failed", "canceled":
		return sms.DeliveryFailed, errorCode, true
	}
	if errorCode != "" {
		return sms.DeliveryFailed, errorCode, true
	}
	return sms.DeliveryQueued, "", false
}
