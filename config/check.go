package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nyaruka/phonenumbers"
	"github.com/robfig/cron/v3"
)

// checker looks at what the values mean, once they have their types.
type checker struct {
	*decoder
	cfg *Config
}

// problem reports a field unless something is reported there already, or of what should contain it.
func (c *checker) problem(path, reason, hint string) { c.report(Error, path, reason, hint) }

func (c *checker) report(severity Severity, path, reason, hint string) {
	line, col := c.cfg.root.find(path)
	if slices.ContainsFunc(c.problems, func(p Problem) bool {
		inside := strings.HasPrefix(path, p.Field+".") || strings.HasPrefix(path, p.Field+"[")
		return p.Field == path || p.Field == path+fileSuffix || inside && p.Line == line && p.Column == col
	}) {
		return
	}
	c.add(Problem{Line: line, Column: col, Field: path, Reason: reason, Hint: hint, Severity: severity})
}

// value returns a value for a problem's text: quoted, or the variable that it came from.
func (c *checker) value(path, v string) string {
	if n := c.cfg.root.lookup(path); n != nil && len(n.refs) > 0 {
		return "what " + refNames(n.refs) + " holds"
	}
	if len(v) > 60 {
		return "this text of " + strconv.Itoa(len(v)) + " characters"
	}
	return strconv.Quote(v)
}

func (c *checker) oneOf(path, v string, known ...string) {
	if !slices.Contains(known, v) {
		c.problem(path, c.value(path, v)+" is none of "+strings.Join(known, ", "), "")
	}
}

func (c *checker) required(path, v, hint string) bool {
	if v == "" {
		c.problem(path, "is required", hint)
	}
	return v != ""
}

func (c *checker) check() {
	cfg := c.cfg
	c.oneOf("mode", string(cfg.Mode), string(Live), string(Shadow))
	c.required("data_dir", cfg.DataDir, "name a directory for heed's ledger, or leave the key out")
	c.listeners()
	c.keys()
	c.limit("limits.per_key", cfg.Limits.PerKey)
	c.limit("limits.per_account", cfg.Limits.PerAccount)
	if w := cfg.Campaigns.Window; w < time.Minute || w > 90*24*time.Hour {
		c.problem("campaigns.window", "is not between 1m and 2160h", "72h counts an opt-out for the campaign of the last message of the three days before")
	}
	if len(cfg.SMS) == 0 {
		c.problem("sms", "no SMS account is configured", "without one no STOP can come in; the example shows one")
	}
	if len(cfg.CRM) == 0 {
		c.report(Warning, "crm", "no CRM is configured", "opt-outs will block sends, but no record will be ticked")
	}
	accounts, crms := map[string]string{}, map[string]string{}
	for i, a := range cfg.SMS {
		path := fmt.Sprintf("sms[%d]", i)
		c.section(path, a.Section, "provider", "type", accounts)
		if a.node.kind == mapping {
			c.oneOf(path+".replies", string(a.Replies), string(RepliesProvider), string(RepliesNetwork), string(RepliesHeed))
		}
	}
	for i, s := range cfg.CRM {
		c.section(fmt.Sprintf("crm[%d]", i), s, "type", "provider", crms)
	}
	c.outboundMessages(accounts, crms)
	c.consent()
	c.schedule()
	if m := cfg.Reports.MessageCost; !(m >= 0 && m <= 1000) {
		c.problem("reports.message_cost", "is not a number from 0 to 1000", "0.0079 is what one message costs, in any currency")
	}
}

func (c *checker) listeners() {
	cfg := c.cfg
	_, publicPort, _ := c.listen("public.listen", cfg.Public.Listen)
	host, port, ok := c.listen("admin.listen", cfg.Admin.Listen)
	if ok && port != "0" && port == publicPort {
		c.problem("admin.listen", "has the port of public.listen", "give the two listeners different ports: one is for the internet, one is not")
	}
	if ok && !cfg.Admin.AllowRemote && !isLoopback(host) {
		c.problem("admin.listen", "would let other machines reach the admin page", "listen on 127.0.0.1; or, behind something that asks for a login, set admin.allow_remote: true")
	}
	c.publicURL()
	if u := cfg.Admin.URL; u != "" {
		p, err := url.Parse(u)
		if err != nil || p.Host == "" || p.Scheme != "https" && !(p.Scheme == "http" && isLoopback(p.Hostname())) || strings.HasSuffix(u, "/") || p.RawQuery != "" || p.Fragment != "" {
			c.problem("admin.url", c.value("admin.url", u)+" is not how people could reach the page", "write https://… without a slash at its end; http is for this machine only")
		}
	}
	if o := cfg.Admin.OIDC; o.Issuer != "" {
		if !strings.HasPrefix(o.Issuer, "https://") && !strings.HasPrefix(o.Issuer, "http://127.0.0.1") {
			c.problem("admin.oidc.issuer", "is not an https address", "it is what the provider calls its issuer, as in https://login.example.com")
		}
		c.required("admin.oidc.client_id", o.ClientID, "the provider shows it where heed is registered as a client")
		if len(o.Roles.Viewer)+len(o.Roles.Operator)+len(o.Roles.Admin) == 0 {
			c.problem("admin.oidc.roles", "gives nobody a role", "name values of the role claim, as in admin: [sms-admins]")
		}
	}
}

func (c *checker) listen(path, v string) (host, port string, ok bool) {
	host, port, err := net.SplitHostPort(v)
	if err != nil {
		c.problem(path, c.value(path, v)+" is not host:port", `write "127.0.0.1:8080", or ":8080" for every address of this machine`)
		return "", "", false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		c.problem(path, "the port is not a number from 0 to 65535", "")
		return "", "", false
	} else {
		port = strconv.FormatUint(n, 10)
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			c.problem(path, "the host in brackets is not an IPv6 address", "")
			return "", "", false
		}
	} else if strings.ContainsFunc(host, func(r rune) bool { return !isWord(r) && r != '.' && r != '-' }) {
		c.problem(path, c.value(path, v)+" is not host:port", "write no scheme and no path here")
		return "", "", false
	}
	return host, port, true
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func isWord(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
}

func (c *checker) publicURL() {
	const path = "public.url"
	v := c.cfg.Public.URL
	if !c.required(path, v, "write the address at which SMS providers reach heed, as in https://sms.example.com; their signatures cover it") {
		return
	}
	u, err := url.Parse(v)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http"):
		c.problem(path, "is not an absolute URL", "write it with its scheme, as in https://sms.example.com")
	case u.User != nil:
		c.problem(path, "has a user name in it", "remove it")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(v, "#"):
		c.problem(path, "has a query or a fragment", "end it before the ? or #")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		c.problem(path, "is not https", "phone numbers and texts pass here; plain http is for this machine only (localhost, 127.0.0.1)")
	default:
		c.cfg.Public.URL = strings.TrimRight(v, "/")
	}
}

// emptyHash is the SHA-256 of nothing, which is what a script with an unset variable computes.
var emptyHash = Hash{
	0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
	0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
}

func (c *checker) keys() {
	const howTo = "printf %s THE_KEY | sha256sum"
	names, hashes := map[string]string{}, map[Hash]string{}
	for i, k := range c.cfg.Keys {
		path := fmt.Sprintf("keys[%d]", i)
		if c.required(path+".name", k.Name, "name the program that has the key; the name appears in logs") {
			c.unique(path+".name", k.Name, names)
		}
		switch at := path + ".sha256"; {
		case k.SHA256 == Hash{}:
			c.problem(at, "is required", howTo)
		case k.SHA256 == emptyHash:
			c.problem(at, "is the hash of nothing", howTo)
		case hashes[k.SHA256] != "":
			c.problem(at, "is the same as "+hashes[k.SHA256], "give every program its own key")
		default:
			hashes[k.SHA256] = at
		}
		if len(k.May) == 0 {
			c.problem(path+".may", "is required", "list what the key allows: send, read, admin")
		}
		for j, p := range k.May {
			at := fmt.Sprintf("%s.may[%d]", path, j)
			if n := c.cfg.root.lookup(at); n != nil && n.kind != null {
				c.oneOf(at, string(p), string(MaySend), string(MayRead), string(MayAdmin))
			}
		}
	}
}

func (c *checker) limit(path string, perSecond int) {
	const most = 1_000_000
	if perSecond < 0 || perSecond > most {
		c.problem(path, fmt.Sprintf("is not between 0 and %d", most), "write how many a second, or 0 for no limit")
	}
}

func (c *checker) unique(path, v string, seen map[string]string) {
	if first, ok := seen[v]; ok {
		c.problem(path, "is the same as "+first, "choose another name")
		return
	}
	seen[v] = path
}

func (c *checker) section(path string, s Section, typeKey, otherKey string, names map[string]string) {
	if s.node == nil || s.node.kind != mapping {
		return
	}
	if c.required(path+".name", s.Name, "choose a short name; it becomes part of URLs and reports") {
		if strings.ContainsFunc(s.Name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) || len(s.Name) > 40 {
			c.problem(path+".name", c.value(path+".name", s.Name)+" cannot be part of a URL", `use up to 40 of a-z, 0-9 and "-"`)
		}
		c.unique(path+".name", s.Name, names)
	}
	hint := "say which driver this is for"
	if s.node.get(otherKey) != nil {
		hint = "here the key is called " + typeKey + ", not " + otherKey
	}
	c.required(path+"."+typeKey, s.Type, hint)
}

func (c *checker) outboundMessages(accounts, crms map[string]string) {
	hooks := map[string]string{}
	for i := range c.cfg.OutboundMessages {
		o := &c.cfg.OutboundMessages[i]
		path := fmt.Sprintf("outbound_messages[%d]", i)
		hook := o.Hook.Reveal()
		switch at := path + ".hook"; {
		case hook == "":
			c.problem(at, "is required", "it is the only secret that Salesforce can send along: openssl rand -hex 16")
		case len(hook) < 16:
			c.problem(at, "is too short to be unguessable", "use 16 characters or more: openssl rand -hex 16")
		case strings.ContainsFunc(hook, func(r rune) bool { return !isWord(r) && r != '-' && r != '.' && r != '~' }):
			c.problem(at, "has characters that do not fit into a URL path", "use letters, digits and - _ . ~ only: openssl rand -hex 16")
		default:
			c.unique(at, hook, hooks)
		}
		c.reference(path+".crm", o.CRM, "a CRM", crms)
		if o.Account != "" {
			c.reference(path+".account", o.Account, "an SMS account", accounts)
		}
		c.required(path+".org_id", string(o.OrgID), "Salesforce shows it in Setup, Company Information")
		switch {
		case o.Body != "" && o.Template != "":
			c.problem(path+".template", "stands beside body", "write one of the two: body names a field, template is the text")
		case o.Template != "":
			if problem := templateProblem(o.Template); problem != "" {
				c.problem(path+".template", problem, "a placeholder is a field of the outbound message, as in {{FirstName}}")
			}
		default:
			c.required(path+".body", o.Body, "name the field of the outbound message, or write a template")
		}
		c.required(path+".to", o.To, "name the field of the outbound message")
		for key, v := range map[string]string{"to": o.To, "body": o.Body, "opt_out": o.OptOut, "campaign_field": o.CampaignField, "status": o.Status} {
			if at := path + "." + key; v != "" && (strings.ContainsFunc(v, func(r rune) bool { return !isWord(r) }) || v[0] <= '9') {
				c.problem(at, c.value(at, v)+" is not the API name of a field", "as in MobilePhone or SMS_Body__c")
			}
		}
	}
}

var templatePart = regexp.MustCompile(`\{\{\s*[A-Za-z][A-Za-z0-9_.]*\s*\}\}`)

// templateProblem says what is wrong with the template of a text, "" if nothing is.
func templateProblem(template string) string {
	if rest := templatePart.ReplaceAllString(template, ""); strings.Contains(rest, "{{") || strings.Contains(rest, "}}") {
		return "has braces that are no placeholder"
	}
	return ""
}

func (c *checker) reference(path, name, what string, known map[string]string) {
	if !c.required(path, name, "write the name of "+what+" of this file") || known[name] != "" {
		return
	}
	names := make([]string, 0, len(known))
	for n := range known {
		names = append(names, n)
	}
	hint := ""
	if len(names) > 0 {
		hint = strings.Replace(suggest(name, names), "the keys here are ", "there is ", 1)
	}
	c.problem(path, c.value(path, name)+" is not the name of "+what+" of this file", hint)
}

func (c *checker) consent() {
	consent := c.cfg.Consent
	if r := consent.DefaultRegion; !phonenumbers.GetSupportedRegions()[r] {
		hint := "use an ISO 3166-1 alpha-2 code, as in US"
		if up := strings.ToUpper(strings.TrimSpace(r)); up == "UK" {
			hint = "the United Kingdom is GB"
		} else if phonenumbers.GetSupportedRegions()[up] && up != r {
			hint = "write it in capitals"
		}
		c.problem("consent.default_region", c.value("consent.default_region", r)+" is not a region with telephone numbers", hint)
	}
	if consent.HoldFor.Days > 10 || consent.HoldFor.Duration > 14*24*time.Hour {
		c.report(Warning, "consent.hold_for", "is longer than the ten business days in which an opt-out must be honoured", "47 CFR 64.1200(a)(10); sends stay blocked meanwhile, but shorten it")
	}
	meanings := map[string]string{}
	for _, list := range []struct {
		key   string
		words []string
	}{{"opt_out", consent.Keywords.OptOut}, {"opt_in", consent.Keywords.OptIn}, {"help", consent.Keywords.Help}} {
		for i, w := range list.words {
			path := fmt.Sprintf("consent.keywords.%s[%d]", list.key, i)
			word := strings.ToLower(strings.Join(strings.Fields(w), " "))
			switch first := meanings[word]; {
			case word == "":
				c.problem(path, "is empty", "remove it, or write a word")
			case len([]rune(word)) > 60:
				c.problem(path, "is too long to be a keyword", "a keyword is the whole reply; use at most 60 characters")
			case first != "" && !strings.HasPrefix(first, "consent.keywords."+list.key+"["):
				c.problem(path, "is also "+first, "a word can have one meaning")
			case first != "":
				c.report(Warning, path, "is the same as "+first, "remove it")
			default:
				meanings[word] = path
			}
		}
	}
}

func (c *checker) schedule() {
	s := c.cfg.Schedule
	if s.Timezone == "" {
		c.problem("schedule.timezone", "is empty", "name a time zone, or remove the key for UTC")
	} else if _, err := time.LoadLocation(s.Timezone); err != nil {
		c.problem("schedule.timezone", c.value("schedule.timezone", s.Timezone)+" is not a time zone", "use an IANA name, as in America/New_York")
	}
	c.cron("schedule.incremental", s.Incremental)
	c.cron("schedule.nightly", s.Nightly)
}

func (c *checker) cron(path, spec string) {
	const hint = `write five cron fields, as in "0 2 * * *", or "@every 1m"`
	if spec = strings.TrimSpace(spec); spec == "" {
		c.problem(path, "is empty", hint)
		return
	}
	if strings.Contains(spec, "TZ=") {
		c.problem(path, "names a time zone", "schedule.timezone is the place for it")
		return
	}
	if every, ok := strings.CutPrefix(spec, "@every "); ok {
		if d, err := time.ParseDuration(every); err != nil || d < time.Second {
			c.problem(path, c.value(path, spec)+" is not an interval of a second or more", `as in "@every 1m"`)
		}
		return
	}
	sched, err := cron.ParseStandard(spec)
	if err != nil {
		c.problem(path, c.value(path, spec)+" is not a cron line", hint)
		return
	}
	if sched.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		c.problem(path, c.value(path, spec)+" is a day that never comes", hint)
	}
}
