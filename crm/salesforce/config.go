package salesforce

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Config is one organisation in heed's configuration file. README.md says how to obtain each value.
type Config struct {
	// Domain is the My Domain login URL, https://acme.my.salesforce.com. Plain http is accepted for loopback only.
	Domain string `yaml:"domain"`
	// ClientID is the consumer key of the external client app.
	ClientID string `yaml:"client_id"`
	// ClientSecret selects the client credentials flow: heed acts as the app's run-as user.
	ClientSecret Secret `yaml:"client_secret,omitempty"`
	// Username and PrivateKeyFile select the JWT bearer flow instead: the integration user, and a PEM file with the RSA
	// key whose certificate the app holds. The file is read at each login, so a key can be replaced without a restart.
	Username       string `yaml:"username,omitempty"`
	PrivateKeyFile string `yaml:"private_key_file,omitempty"`
	// OrgID, if set, is the only organisation that heed will talk to: a refreshed sandbox has another one.
	OrgID string `yaml:"org_id,omitempty"`
	// APIVersion is a REST API version such as 62.0, which is the default.
	APIVersion string `yaml:"api_version,omitempty"`
	// Objects are the record types to read and write, in this order.
	Objects []Object `yaml:"objects"`
	// Lookback is how far before the checkpoint changes are read again, for transactions that became visible later
	// than their timestamp says. Default 2m, at least 10s.
	Lookback time.Duration `yaml:"lookback,omitempty"`
	// PageSize is the number of records in a query, 1 to 2000. Default 2000.
	PageSize int `yaml:"page_size,omitempty"`
	// Bulk is auto, never or always, see [Bulk]. Default auto.
	Bulk Bulk `yaml:"bulk,omitempty"`
	// APIBudget is the per cent of the organisation's API calls of 24 hours, as all of its integrations use them, from
	// which on heed reads nothing more and leaves the rest for writing boxes. 11 to 100; default 90.
	APIBudget int `yaml:"api_budget,omitempty"`
}

// Object is a record type and its fields, all by API name.
type Object struct {
	Object string   `yaml:"object"`
	Phones []string `yaml:"phones"`
	OptOut OptOut   `yaml:"opt_out"`
	// Optional fields, written together with the opt-out field: a Date/Time, the source word, and what the recipient
	// wrote. Where Salesforce refuses them, the opt-out is written without them.
	DateField   string `yaml:"date_field,omitempty"`
	SourceField string `yaml:"source_field,omitempty"`
	TextField   string `yaml:"text_field,omitempty"`
}

// OptOut is the field that holds the opt-out. In YAML it is either the API name of a checkbox, or a mapping.
type OptOut struct {
	Field string `yaml:"field"`
	// Inverted: the checkbox means "may be texted".
	Inverted bool `yaml:"inverted,omitempty"`
	// Out and In make it a picklist: the API values written for opted out and opted in. Any value but Out, and none,
	// reads as not opted out.
	Out string `yaml:"out,omitempty"`
	In  string `yaml:"in,omitempty"`
}

// UnmarshalYAML accepts a bare field name or the mapping.
func (o *OptOut) UnmarshalYAML(unmarshal func(any) error) error {
	var name string
	if err := unmarshal(&name); err == nil {
		*o = OptOut{Field: name}
		return nil
	}
	type mapping OptOut
	return unmarshal((*mapping)(o))
}

func (o OptOut) picklist() bool { return o.Out != "" || o.In != "" }

// Secret is a string that prints, logs and marshals as [redacted].
type Secret string

const redacted = "[redacted]"

func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Problem is one mistake in a Config.
type Problem struct {
	Field  string // path within the Config: objects[1].opt_out.field
	Reason string
	Hint   string // what to do
}

const (
	defaultLookback = 2 * time.Minute
	minLookback     = 10 * time.Second
	maxPageSize     = 2000 // rows in a query answer, REST API Developer Guide, "Query Options Header"
)

// An API name is made of letters, digits and single underscores, begins with a letter, and may carry a namespace before
// and a suffix after a double underscore (Object Reference, "API Field Names"). Relationship paths with a dot are no
// fields that could be written, and nothing else may reach a query.
var apiName = regexp.MustCompile(`^(?:[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*__)?[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*(?:__[a-z]{1,3})?$`)

var versionForm = regexp.MustCompile(`^v?([0-9]{2,3})\.0$`)

// Validate returns every problem of the configuration, nil if there is none. It reads the key file, if one is named,
// and touches no network.
func (c Config) Validate() []Problem {
	ps := c.problems()
	if c.PrivateKeyFile != "" {
		if _, err := readKey(c.PrivateKeyFile); err != nil {
			ps = append(ps, Problem{"private_key_file", err.Error(), "name a PEM file with the RSA private key whose certificate was uploaded to the app, readable by heed"})
		}
	}
	return ps
}

func (c Config) problems() []Problem {
	var ps []Problem
	add := func(field, reason, hint string) { ps = append(ps, Problem{field, reason, hint}) }

	const domainHint = "use the address in Setup, My Domain, such as https://acme.my.salesforce.com"
	u, err := url.Parse(strings.TrimSpace(c.Domain))
	switch {
	case c.Domain == "":
		add("domain", "is missing", domainHint)
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		add("domain", "is not the address of an organisation", domainHint)
	case u.Scheme == "http" && loopback(u.Hostname()):
	case u.Scheme != "https":
		add("domain", "does not begin with https://", domainHint)
	}
	if c.ClientID == "" {
		add("client_id", "is missing", "copy the Consumer Key of the external client app")
	}
	jwt := c.Username != "" || c.PrivateKeyFile != ""
	switch {
	case c.ClientSecret != "" && jwt:
		add("client_secret", "is given together with username or private_key_file", "keep the client_secret for the client credentials flow, or the other two for the JWT flow")
	case c.ClientSecret == "" && !jwt:
		add("client_secret", "is missing", "copy the Consumer Secret of the external client app, or set username and private_key_file")
	case jwt && c.Username == "":
		add("username", "is missing", "name the integration user, or remove private_key_file")
	case jwt && c.PrivateKeyFile == "":
		add("private_key_file", "is missing", "name the PEM file of the key, or remove username")
	}
	if c.OrgID != "" {
		if id, err := id18(c.OrgID); err != nil || id[:3] != "00D" {
			add("org_id", "is not the id of an organisation", "copy it from Setup, Company Information: 15 or 18 characters beginning with 00D")
		}
	}
	if c.APIVersion != "" {
		m := versionForm.FindStringSubmatch(c.APIVersion)
		if n := 0; m != nil {
			n, _ = strconv.Atoi(m[1])
			if n < 43 {
				m = nil
			}
		}
		if m == nil {
			add("api_version", fmt.Sprintf("%q is not an API version that has all the calls heed makes", c.APIVersion), "leave it out, or write 43.0 or later")
		}
	}
	if c.Lookback != 0 && c.Lookback < minLookback {
		add("lookback", fmt.Sprintf("%s is shorter than %s", c.Lookback, minLookback), "leave it out for 2m; changes can become visible later than their timestamp says")
	}
	if c.PageSize < 0 || c.PageSize > maxPageSize {
		add("page_size", fmt.Sprintf("%d is not between 1 and %d", c.PageSize, maxPageSize), "leave it out for 2000")
	}
	if c.APIBudget != 0 && (c.APIBudget <= reportMargin || c.APIBudget > 100) {
		add("api_budget", fmt.Sprintf("%d is not between %d and 100", c.APIBudget, reportMargin+1), "leave it out for 90: it is the per cent of the API calls of 24 hours that heed may see used before it stops reading")
	}
	switch Bulk(strings.ToLower(string(c.Bulk))) {
	case "", BulkAuto, BulkNever, BulkAlways:
	default:
		add("bulk", fmt.Sprintf("%q is none of auto, never and always", c.Bulk), "leave it out for auto")
	}
	if len(c.Objects) == 0 {
		add("objects", "is empty", "list at least one object, such as { object: Contact, phones: [MobilePhone, Phone], opt_out: SMS_Opt_Out__c }")
	}
	names := map[string]bool{}
	for i, obj := range c.Objects {
		at := fmt.Sprintf("objects[%d]", i)
		checkName := func(field, name string) bool {
			if name == "" {
				add(at+"."+field, "is missing", "write the API name, from Setup, Object Manager")
			} else if len(name) > 80 || !apiName.MatchString(name) {
				add(at+"."+field, fmt.Sprintf("%q is not an API name", name), "write the API name from Setup, Object Manager, such as SMS_Opt_Out__c; fields of related records cannot be used")
			} else {
				return true
			}
			return false
		}
		if checkName("object", obj.Object) {
			if names[strings.ToLower(obj.Object)] {
				add(at+".object", obj.Object+" is listed twice", "list each object once, with all of its phones")
			}
			names[strings.ToLower(obj.Object)] = true
		}
		if len(obj.Phones) == 0 {
			add(at+".phones", "is empty", "list the phone fields, such as [MobilePhone, Phone]")
		}
		used := map[string]string{}
		field := func(key, name string) {
			if !checkName(key, name) {
				return
			}
			if before := used[strings.ToLower(name)]; before != "" {
				add(at+"."+key, name+" is already used as "+before, "use each field once")
			}
			used[strings.ToLower(name)] = key
		}
		for j, p := range obj.Phones {
			field(fmt.Sprintf("phones[%d]", j), p)
		}
		field("opt_out.field", obj.OptOut.Field)
		for _, opt := range []struct{ key, name string }{{"date_field", obj.DateField}, {"source_field", obj.SourceField}, {"text_field", obj.TextField}} {
			if opt.name != "" {
				field(opt.key, opt.name)
			}
		}
		if o := obj.OptOut; o.picklist() {
			switch {
			case o.Inverted:
				add(at+".opt_out.inverted", "is for checkboxes and this is a picklist", "swap out and in instead")
			case o.Out == "" || o.In == "":
				add(at+".opt_out", "has only one of out and in", "give the picklist value for opted out and the one for opted in")
			case strings.EqualFold(o.Out, o.In):
				add(at+".opt_out", "has the same value for out and in", "give two different picklist values")
			}
		}
	}
	return ps
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// readKey returns the PEM text of an RSA private key. Its errors name the file's failing, never its content.
func readKey(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	if block, _ := pem.Decode(b); block == nil {
		return "", fmt.Errorf("%s holds no PEM block", file)
	}
	if _, err := jwt.ParseRSAPrivateKeyFromPEM(b); err != nil {
		return "", fmt.Errorf("%s holds no usable RSA private key", file)
	}
	return string(b), nil
}
