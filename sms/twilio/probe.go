package twilio

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

const maxClockSkew = 30 * time.Second

// Probe looks at the credentials, the message log, the clock, and at where Twilio sends the replies to our numbers.
// It asks each question once and changes nothing.
func (p *Provider) Probe(ctx context.Context) []sms.Finding {
	pr := &probe{p: p, ctx: ctx, user: p.cfg.AccountSID, password: p.cfg.AuthToken}
	if !pr.account() {
		return pr.findings // the other questions would fail in the same way
	}
	if p.cfg.APIKeySID != "" {
		pr.user, pr.password = p.cfg.APIKeySID, p.cfg.APIKeySecret
	}
	pr.log()
	if p.cfg.ConsentAPI { // its only call writes
		pr.good("consent_api is on; Twilio cannot be asked whether the account has the Consent Management API, so the first opt-out to pass on will tell")
	}
	serviceDecides := p.cfg.MessagingServiceSID != "" && pr.service()
	numbers := append(slices.Clone(p.cfg.InboundNumbers), p.cfg.From)
	for _, n := range slices.Compact(slices.Sorted(slices.Values(numbers))) {
		if n != "" {
			pr.number(n, serviceDecides)
		}
	}
	return pr.findings
}

// probe is one run of Probe.
type probe struct {
	p              *Provider
	ctx            context.Context
	user, password string
	date           time.Time // the Date of the latest answer
	findings       []sms.Finding
}

func (pr *probe) good(what string, args ...any) {
	pr.findings = append(pr.findings, sms.Finding{OK: true, What: fmt.Sprintf(what, args...)})
}

func (pr *probe) bad(hint, what string, args ...any) {
	pr.findings = append(pr.findings, sms.Finding{What: fmt.Sprintf(what, args...), Hint: hint})
}

// ask reads a resource in one attempt: a check should tell what it met and not wait until it has gone.
func (pr *probe) ask(u *url.URL, out any) error {
	req, err := http.NewRequestWithContext(pr.ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return &sms.Error{Class: sms.Rejected, Text: "the request could not be built", Err: quiet(err, scrubber())}
	}
	req.SetBasicAuth(pr.user, pr.password)
	resp, err := pr.p.client.Do(req)
	if resp != nil {
		pr.date, _ = http.ParseTime(resp.Header.Get("Date"))
	}
	return pr.p.understand(resp, err, out)
}

// account checks the auth token. It is asked for even where an API key makes the calls, since it signs the webhooks.
func (pr *probe) account() (goOn bool) {
	var account struct {
		SID    string `json:"sid"`
		Status string `json:"status"`
		Type   string `json:"type"`
	}
	err := pr.ask(pr.p.base.JoinPath("2010-04-01", "Accounts", pr.p.cfg.AccountSID+".json"), &account)
	switch {
	case sms.ClassOf(err) == sms.Auth && err != nil:
		pr.bad("set auth_token to the primary auth token of account_sid; after a rotation keep the old one in auth_token_previous for a day",
			"Twilio refuses the auth token, so it proves no webhook either (%v)", err)
		return false
	case err != nil:
		pr.bad("check that this machine reaches Twilio over HTTPS, and base_url if it is set", "Twilio gives no usable answer (%v)", err)
		return false
	case account.SID != pr.p.cfg.AccountSID:
		pr.bad("remove base_url unless it is that of an emulator", "what answers is not Twilio's account API")
		return false
	case account.Status != "active":
		pr.bad("open the Twilio console: a suspended account neither sends nor receives", "the account is not active")
	case account.Type == "Trial":
		pr.good("Twilio accepts the auth token; the account is on trial and reaches verified numbers only")
	default:
		pr.good("Twilio accepts the auth token and the account is active")
	}
	if !pr.date.IsZero() {
		if skew := pr.p.now().Sub(pr.date).Round(time.Second); skew.Abs() > maxClockSkew {
			pr.bad("set the clock of this machine by NTP; heed orders opt-outs and opt-ins by time", "this machine's clock differs from Twilio's by %v", skew)
		} else {
			pr.good("this machine's clock agrees with Twilio's to %v", maxClockSkew)
		}
	}
	return true
}

func (pr *probe) log() {
	u := pr.p.messagesURL()
	u.RawQuery = "PageSize=1"
	var page struct {
		Messages *[]message `json:"messages"`
	}
	const hint = "allow the API key to list and read messages (README.md, Permissions); without the log, a STOP whose webhook was lost stays lost"
	switch err := pr.ask(u, &page); {
	case err != nil:
		pr.bad(hint, "the message log cannot be read (%v)", err)
	case page.Messages == nil:
		pr.bad(hint, "the message log cannot be read (the answer is no list of messages)")
	default:
		pr.good("the message log can be read, so lost webhooks are made up for")
	}
}

// service reports whether the configured Messaging Service decides where replies go, instead of each number.
// https://www.twilio.com/docs/messaging/api/service-resource
func (pr *probe) service() bool {
	var s struct {
		SID         string `json:"sid"`
		URL         string `json:"inbound_request_url"`
		Method      string `json:"inbound_method"`
		Fallback    string `json:"fallback_url"`
		NumberRules bool   `json:"use_inbound_webhook_on_number"`
	}
	err := pr.ask(pr.p.messaging.JoinPath("v1", "Services", pr.p.cfg.MessagingServiceSID), &s)
	switch {
	case err != nil:
		pr.bad("check messaging_service_sid, and that the API key may read messaging services", "the messaging service cannot be read (%v)", err)
		return false
	case s.SID != pr.p.cfg.MessagingServiceSID:
		pr.bad("check messaging_service_sid", "the messaging service cannot be read (the answer is another thing)")
		return false
	case s.NumberRules:
		pr.good("the messaging service leaves replies to the webhook of each number")
		return false
	}
	pr.webhook("the messaging service", "Messaging > Services > your service > Integration", s.URL, s.Method, s.Fallback)
	return true
}

// number checks that a number is ours and, unless a messaging service decides, where its replies go.
// https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource
func (pr *probe) number(number string, serviceDecides bool) {
	type settings struct {
		Number       string `json:"phone_number"`
		ShortCode    string `json:"short_code"`
		URL          string `json:"sms_url"`
		Method       string `json:"sms_method"`
		Fallback     string `json:"sms_fallback_url"`
		Application  string `json:"sms_application_sid"`
		Capabilities *struct {
			SMS *bool `json:"sms"`
		} `json:"capabilities"`
	}
	var page struct {
		Numbers    []settings `json:"incoming_phone_numbers"`
		ShortCodes []settings `json:"short_codes"`
	}
	name := "the number " + phone.Mask(number)
	u := pr.p.accountURL("IncomingPhoneNumbers.json")
	u.RawQuery = url.Values{"PhoneNumber": {number}}.Encode()
	if !strings.HasPrefix(number, "+") {
		name = "the short code " + phone.Mask(number)
		u = pr.p.accountURL("SMS", "ShortCodes.json")
		u.RawQuery = url.Values{"ShortCode": {number}}.Encode()
	}
	if err := pr.ask(u, &page); err != nil {
		pr.bad("allow the API key to list phone numbers (README.md, Permissions)", "the settings of %s cannot be read (%v)", name, err)
		return
	}
	all := append(page.Numbers, page.ShortCodes...)
	i := slices.IndexFunc(all, func(s settings) bool { return s.Number == number || s.ShortCode == number })
	if i < 0 {
		pr.bad("use a number of this account; a number of a sub-account needs the sub-account's account_sid and auth_token", "%s does not belong to the account", name)
		return
	}
	s := all[i]
	if c := s.Capabilities; c != nil && c.SMS != nil && !*c.SMS {
		pr.bad("use a number with the capability SMS", "%s cannot send or receive SMS", name)
		return
	}
	switch {
	case serviceDecides:
		pr.good("%s belongs to the account", name)
	case s.Application != "":
		pr.bad("in Phone Numbers > Active numbers > the number > Messaging, choose Webhook instead of the TwiML App, or point the app's request URL at heed",
			"%s sends replies to a TwiML app, which heed does not look into", name)
	default:
		pr.webhook(name, "Phone Numbers > Manage > Active numbers > the number > Messaging Configuration", s.URL, s.Method, s.Fallback)
	}
}

// webhook compares where replies go with where heed expects them.
func (pr *probe) webhook(name, where, configured, method, fallback string) {
	want := pr.p.cfg.WebhookURL
	target, overrides, _ := strings.Cut(configured, "#") // the fragment sets Twilio's retries
	switch {
	case configured == "":
		pr.bad("in "+where+" set the incoming message webhook to heed's URL", "%s sends replies nowhere", name)
	case want == "":
		pr.good("%s sends replies to a webhook; heed's own URL is not known here, so it was not compared", name)
	case target != want:
		pr.bad("in "+where+" set the incoming message webhook to "+want, "%s sends replies to another URL than heed's", name)
	case !strings.EqualFold(method, http.MethodPost):
		pr.bad("in "+where+" choose HTTP POST", "%s sends replies with GET, which puts numbers and texts into access logs", name)
	case overrides == "":
		pr.good("%s sends replies to heed; adding #rc=5&rp=all to the URL makes Twilio try five more times instead of once", name)
	default:
		pr.good("%s sends replies to heed, with its own retry settings", name)
	}
	if configured != "" && fallback == "" {
		pr.good("%s has no fallback URL; the message log covers for it", name)
	}
}
