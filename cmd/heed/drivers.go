package main

import (
	"log/slog"
	"net"
	"net/http"
	"sort"
	"strings"
	"time"

	"github.com/heed-sms/heed/config"
	"github.com/heed-sms/heed/connector/confirm"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/salesforce"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/twilio"
	"github.com/heed-sms/heed/sync/deliver"
)

// The two tables below are all that a new driver adds outside its own folder.

// providers are the SMS drivers by their name in the configuration.
var providers = map[string]func(driverEnv, config.Section) (sms.Provider, config.Problems){
	"twilio": newTwilio,
}

// crms are the CRM drivers by their name in the configuration.
var crms = map[string]func(driverEnv, config.Section) (crm.Directory, config.Problems){
	"salesforce": newSalesforce,
}

// driverEnv is what a driver gets beside its own section.
type driverEnv struct {
	client *http.Client
	log    *slog.Logger
	public string // base of the public URL
}

func newDriverEnv(public string, log *slog.Logger) driverEnv {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.ResponseHeaderTimeout = 20 * time.Second
	t.MaxIdleConnsPerHost = 32
	return driverEnv{client: &http.Client{Transport: t, Timeout: 30 * time.Second}, log: log, public: public}
}

func newTwilio(env driverEnv, s config.Section) (sms.Provider, config.Problems) {
	var c twilio.Config
	if ps := s.Decode(&c); len(ps) > 0 {
		return nil, ps
	}
	c.WebhookURL = env.public + "/webhooks/" + s.Name
	var ps config.Problems
	for _, p := range c.Validate() {
		ps = append(ps, s.Problem(p.Field, p.Reason, p.Hint))
	}
	if len(ps) > 0 {
		return nil, ps
	}
	p, err := twilio.New(c, env.client)
	if err != nil {
		return nil, config.Problems{s.Problem("", err.Error(), "")}
	}
	return p, nil
}

func newSalesforce(env driverEnv, s config.Section) (crm.Directory, config.Problems) {
	var c salesforce.Config
	if ps := s.Decode(&c); len(ps) > 0 {
		return nil, ps
	}
	var ps config.Problems
	for _, p := range c.Validate() {
		ps = append(ps, s.Problem(p.Field, p.Reason, p.Hint))
	}
	if len(ps) > 0 {
		return nil, ps
	}
	o, err := salesforce.New(c, env.log)
	if err != nil {
		return nil, config.Problems{s.Problem("", err.Error(), "")}
	}
	return o, nil
}

// drivers are the configured accounts and CRMs, in the order of the configuration.
type drivers struct {
	accounts []namedProvider
	crms     []namedCRM
	texts    *confirm.Set // what heed itself sends; nil if nothing is configured
	mail     *deliver.Mail
	webhook  *deliver.Webhook
}

type namedProvider struct {
	config.Account
	provider sms.Provider
}

type namedCRM struct {
	config.Section
	directory crm.Directory
}

// loadConfig reads the configuration and builds the drivers, which does no network. All problems, the drivers' own
// included, come at once.
func loadConfig(path string, log *slog.Logger) (*config.Config, drivers, config.Problems) {
	var d drivers
	c, ps := config.Load(path)
	if c == nil {
		return nil, d, ps
	}
	env := newDriverEnv(c.Public.URL, log)
	for _, a := range c.SMS {
		build, ok := providers[a.Type]
		if !ok {
			if a.Type != "" {
				ps = append(ps, a.Problem("provider", "is no provider that heed knows", "one of: "+names(providers)))
			}
			continue
		}
		p, problems := build(env, a.Section)
		ps = append(ps, problems...)
		d.accounts = append(d.accounts, namedProvider{a, p})
	}
	for _, s := range c.CRM {
		build, ok := crms[s.Type]
		if !ok {
			if s.Type != "" {
				ps = append(ps, s.Problem("type", "is no CRM that heed knows", "one of: "+names(crms)))
			}
			continue
		}
		dir, problems := build(env, s)
		ps = append(ps, problems...)
		d.crms = append(d.crms, namedCRM{s, dir})
	}
	var problems config.Problems
	d.texts, problems = buildTexts(c)
	ps = append(ps, problems...)
	ps = append(ps, d.buildDelivery(c)...)
	ps.Sort()
	return c, d, ps
}

// buildDelivery checks where reports are to go.
func (d *drivers) buildDelivery(c *config.Config) (ps config.Problems) {
	if m := c.Reports.Mail; len(m.To) > 0 {
		d.mail = &deliver.Mail{Host: m.Host, Port: m.Port, TLS: deliver.TLS(m.TLS), Username: m.Username, Password: m.Password.Reveal(), From: m.From, To: m.To}
		if err := d.mail.Check(); err != nil {
			ps = append(ps, c.Problem("reports.mail", err.Error(), "host, from and to are needed; tls is starttls, tls or none"))
		}
	}
	if w := c.Reports.Webhook; w.URL.Reveal() != "" {
		var err error
		if d.webhook, err = deliver.NewWebhook(w.URL.Reveal(), w.Secret.Reveal()); err != nil {
			ps = append(ps, c.Problem("reports.webhook", err.Error(), ""))
		}
	}
	return ps
}

// buildTexts checks the texts that heed sends itself, and that there are some where an account needs them.
func buildTexts(c *config.Config) (*confirm.Set, config.Problems) {
	if !c.Confirmations.Configured() {
		for _, a := range c.SMS {
			if a.Replies == config.RepliesHeed {
				return nil, config.Problems{a.Problem("replies", "is heed, and heed has no texts to reply with", "add confirmations: with brand and help")}
			}
		}
		return nil, nil
	}
	o := confirm.Options{Brand: c.Confirmations.Brand, Help: c.Confirmations.Help, Frequency: c.Confirmations.Frequency, Templates: map[confirm.Kind]map[string]string{}}
	for kind, texts := range c.Confirmations.Templates {
		o.Templates[confirm.Kind(kind)] = texts
	}
	set, found := confirm.New(o)
	var ps config.Problems
	for _, p := range found {
		ps = append(ps, c.Problem("confirmations."+p.Field, p.Reason, p.Hint))
	}
	return set, ps
}

func names[T any](m map[string]T) string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}
