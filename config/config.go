// Package config reads heed's one configuration file, heed.yaml, and says everything that is wrong with it at once.
//
// The manual of the file is [Example]: every key, with its default and its meaning. This package knows the keys that
// every installation has. What one SMS provider or CRM needs beyond them is its driver's, which this package never
// imports: a [Section] keeps that part of the file until the driver's Config struct is there to [Section.Decode] it into.
// It does not look at anything but the file, the environment and the files named by *_file keys: whether a login
// works or a directory is writable is for `heed check`.
//
// # Values
//
// Unknown keys are errors, so that a misspelled key cannot silently become a default. A key without a value is as
// good as absent. Strings may hold ${NAME}, taken from the environment, and ${NAME:-default}, where the default also stands in
// for an empty variable; "$${" is a literal "${". They are replaced after the YAML is parsed, so whatever a variable holds cannot
// change the file's structure, and only in values, never in keys. Text that looks like a number keeps its spelling where a string is wanted:
// from: +15550100 is what it seems to be.
//
// # Secrets
//
// Every key KEY that holds a secret has a twin KEY_file, the path of a file with the secret in it; one line end at
// its end is not part of the secret. Relative paths in data_dir and in *_file keys start at the directory of the configuration
// file, so that it means the same from wherever heed is started. Secret keys are those of type [Secret] and, in driver sections, strings
// with token, secret, password, passphrase, key, auth, credential or hook as a word of their name. No [Problem] and no
// [Config.Dump] shows a secret, or anything that came from the environment or from a file.
package config

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"time"
	_ "time/tzdata" // schedule.timezone must load on machines without a zone database
)

// Example is a complete configuration with every key explained: the reference manual of the file. It loads without a problem
// once the environment variables that it names are set.
//
//go:embed example.yaml
var Example []byte

// Config is the content of heed.yaml, defaults filled in. It is not changed after [Parse]; reading it is safe for concurrent use.
type Config struct {
	Mode             Mode              `yaml:"mode"`
	DataDir          string            `yaml:"data_dir"` // absolute, or relative to the working directory
	Public           Public            `yaml:"public"`
	Admin            Admin             `yaml:"admin"`
	Keys             []Key             `yaml:"keys"`
	Limits           Limits            `yaml:"limits"`
	Callbacks        Callbacks         `yaml:"callbacks"`
	Campaigns        Campaigns         `yaml:"campaigns"`
	SMS              []Account         `yaml:"sms"`
	CRM              []Section         `yaml:"crm"`
	OutboundMessages []OutboundMessage `yaml:"outbound_messages"`
	Consent          Consent           `yaml:"consent"`
	Confirmations    Confirmations     `yaml:"confirmations"`
	Schedule         Schedule          `yaml:"schedule"`
	Reports          Reports           `yaml:"reports"`

	root *node
	src  *source
}

// Mode is how much heed does by itself.
type Mode string

const (
	Live   Mode = "live"   // everything
	Shadow Mode = "shadow" // heed listens, decides and reports; it changes no record and texts nobody
)

// Public is the listener that the internet reaches: webhooks and the gate.
type Public struct {
	Listen string `yaml:"listen"` // host:port
	URL    string `yaml:"url"`    // how the providers reach it: absolute, without a slash at its end
}

// Admin is the listener for people: the page, its API and the metrics.
type Admin struct {
	Listen      string `yaml:"listen"`       // host:port; a loopback host unless AllowRemote
	AllowRemote bool   `yaml:"allow_remote"` // heed may listen beyond this machine
	URL         string `yaml:"url"`          // how people reach the page, without a slash at its end; "" is http:// and Listen
	OIDC        OIDC   `yaml:"oidc"`
}

// OIDC is an OpenID provider with which people sign in to the page. It is off while Issuer is "".
type OIDC struct {
	Issuer       string    `yaml:"issuer"`
	ClientID     string    `yaml:"client_id"`
	ClientSecret Secret    `yaml:"client_secret"`
	NameClaim    string    `yaml:"name_claim"`
	RoleClaim    string    `yaml:"role_claim"`
	Roles        OIDCRoles `yaml:"roles"`
	Label        string    `yaml:"label"` // on the button
}

// OIDCRoles are the values of the role claim that give each role.
type OIDCRoles struct {
	Viewer   []string `yaml:"viewer"`
	Operator []string `yaml:"operator"`
	Admin    []string `yaml:"admin"`
}

// Key lets a program call the gate. The key itself is not in the file.
type Key struct {
	Name   string       `yaml:"name"`
	SHA256 Hash         `yaml:"sha256"` // of the key
	May    []Permission `yaml:"may"`
}

// Allows reports whether the key carries a permission. No permission includes another.
func (k Key) Allows(p Permission) bool { return slices.Contains(k.May, p) }

// Permission is something that a key allows.
type Permission string

const (
	MaySend  Permission = "send"  // hand over messages to be sent
	MayRead  Permission = "read"  // ask for decisions, consents and messages
	MayAdmin Permission = "admin" // set consent by hand, and whatever else the admin page can do
)

// Limits bounds how fast callers ask and accounts send. 0 is no limit.
type Limits struct {
	PerKey     int `yaml:"per_key"`     // requests a second with one API key
	PerAccount int `yaml:"per_account"` // messages a second that one SMS account sends
}

// Callbacks are the addresses at which clients of the drop-in API want to be told where their messages stand.
type Callbacks struct {
	AllowPrivate bool `yaml:"allow_private"` // they may be within heed's own network
}

// Campaigns says how opt-outs are attributed to what was sent before them.
type Campaigns struct {
	Window time.Duration `yaml:"window"` // an opt-out counts for the campaign of the last message if that is no older
}

// Hash is a SHA-256 digest, written as 64 hexadecimal digits.
type Hash [sha256.Size]byte

var errHash = errors.New("want 64 hexadecimal digits, as from: printf %s THE_KEY | sha256sum")

// UnmarshalText reads 64 hexadecimal digits. Its error does not show them: people write the key itself here.
func (h *Hash) UnmarshalText(b []byte) error {
	var v Hash
	if len(b) != hex.EncodedLen(len(v)) {
		return errHash
	}
	if _, err := hex.Decode(v[:], b); err != nil {
		return errHash
	}
	*h = v
	return nil
}

// MarshalText returns 64 hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// Account is one account at an SMS provider. Its Section's Type is the provider.
type Account struct {
	Section
	Replies Replies
}

// Replies says who answers STOP, START and HELP, so that a phone gets exactly one answer.
type Replies string

const (
	RepliesProvider Replies = "provider" // the SMS provider
	RepliesNetwork  Replies = "network"  // the carriers, as on US toll-free numbers
	RepliesHeed     Replies = "heed"     // heed
)

// OutboundMessage is an endpoint for Salesforce outbound messages.
type OutboundMessage struct {
	Hook     Secret `yaml:"hook"`     // the last part of the endpoint's path; whoever knows it can call
	CRM      string `yaml:"crm"`      // name of the CRM
	OrgID    OrgID  `yaml:"org_id"`   // the only organisation that may call
	To       string `yaml:"to"`       // field with the recipient's number
	Body     string `yaml:"body"`     // field with the text; "" with a template
	Template string `yaml:"template"` // a text with {{Field}} in place of body
	Account  string `yaml:"account"`  // name of the SMS account; the first one if the file does not say
	From     string `yaml:"from"`     // the sender; the account's own if the file does not say
	OptOut   string `yaml:"opt_out"`  // field with the opt-out box, if the message carries it
	Campaign string `yaml:"campaign"` // kept with each send
	// CampaignField is the field with the campaign's name; Campaign where it is empty.
	CampaignField string `yaml:"campaign_field"`
	Status        string `yaml:"status"` // text field of the record for the outcome of the send
}

// Consent is the policy.
type Consent struct {
	DefaultRegion string   `yaml:"default_region"` // ISO 3166-1 alpha-2: of numbers without a country code
	RequireOptIn  bool     `yaml:"require_opt_in"` // block everybody who has not opted in
	HoldFor       Period   `yaml:"hold_for"`       // until an unclear reply that nobody judged becomes an opt-out
	Keywords      Keywords `yaml:"keywords"`
}

// Keywords are words that the sender uses besides the usual ones, which are always understood.
type Keywords struct {
	OptOut []string `yaml:"opt_out"`
	OptIn  []string `yaml:"opt_in"`
	Help   []string `yaml:"help"`
}

// Confirmations are the texts that heed itself sends, on accounts whose replies are heed's, and for double opt-in. What
// they must and must not say is checked by package confirm.
type Confirmations struct {
	Brand     string                       `yaml:"brand"`     // the name that people know the sender by
	Help      string                       `yaml:"help"`      // where a person gets help
	Frequency int                          `yaml:"frequency"` // messages a month at most; 0 says that it varies
	Templates map[string]map[string]string `yaml:"templates"` // texts in place of the built-in ones, by kind and language
}

// Configured reports whether heed has texts to send.
func (c Confirmations) Configured() bool {
	return c.Brand != "" || c.Help != "" || len(c.Templates) > 0
}

// Problem returns a problem with the value at a path of the file, such as "confirmations.brand", in its place.
func (c *Config) Problem(path, reason, hint string) Problem {
	p := Problem{Field: path, Reason: c.src.scrub(reason), Hint: c.src.scrub(hint), File: c.src.file, Severity: Error}
	p.Line, p.Column = c.root.find(path)
	return p
}

// Schedule is when heed compares the CRM, the providers and its ledger. The specs are standard five-field cron lines or
// descriptors such as "@every 1m" and "@daily", as github.com/robfig/cron/v3 ParseStandard reads them.
type Schedule struct {
	Incremental string `yaml:"incremental"`
	Nightly     string `yaml:"nightly"`
	Timezone    string `yaml:"timezone"` // IANA name, as in America/New_York
}

// Location returns the time zone, UTC if it cannot be loaded (which Parse has reported).
func (s Schedule) Location() *time.Location {
	if l, err := time.LoadLocation(s.Timezone); err == nil {
		return l
	}
	return time.UTC
}

// Reports says what the reports of passes tell beside what they found.
type Reports struct {
	MessageCost float64       `yaml:"message_cost"` // of one message, in any currency; 0 says nothing of cost
	Dir         string        `yaml:"dir"`          // directory for the nightly reports as files, "" for none
	Mail        ReportMail    `yaml:"mail"`
	Webhook     ReportWebhook `yaml:"webhook"`
}

// ReportMail is a mail server and who gets the nightly reports. It is off while To is empty.
type ReportMail struct {
	Host     string   `yaml:"host"`
	Port     int      `yaml:"port"` // 0 for the usual one of TLS
	TLS      string   `yaml:"tls"`  // starttls, tls or none
	Username string   `yaml:"username"`
	Password Secret   `yaml:"password"`
	From     string   `yaml:"from"`
	To       []string `yaml:"to"`
}

// ReportWebhook is an address that gets the nightly reports as JSON. It is off while URL is "".
type ReportWebhook struct {
	URL    Secret `yaml:"url"` // may carry a secret itself
	Secret Secret `yaml:"secret"`
}

func defaults() *Config {
	return &Config{
		Mode:      Live,
		DataDir:   "./heed-data",
		Public:    Public{Listen: ":8080"},
		Admin:     Admin{Listen: "127.0.0.1:8081"},
		Limits:    Limits{PerKey: 200, PerAccount: 100},
		Campaigns: Campaigns{Window: 72 * time.Hour},
		Consent:   Consent{DefaultRegion: "US", HoldFor: Period{Days: 5}},
		Schedule:  Schedule{Incremental: "@every 1m", Nightly: "0 2 * * *", Timezone: "UTC"},
	}
}

// Load is [Parse] for a file, with the process's environment.
func Load(path string) (*Config, Problems) {
	data, err := readLimited(path, maxBytes)
	if err != nil {
		p := Problem{File: path, Severity: Error, Reason: "cannot be read", Hint: "it must be an ordinary file"}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			p.Reason, p.Hint = "does not exist", "name the configuration file with -c"
		case errors.Is(err, fs.ErrPermission):
			p.Reason, p.Hint = "may not be read", "give the user that runs heed the right to read it"
		}
		return nil, Problems{p}
	}
	return Parse(path, data, os.LookupEnv, func(name string) ([]byte, error) { return readLimited(name, maxSecretBytes) })
}

// readLimited reads a file up to one byte more than limit, so that a wrong path cannot fill the memory.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// Parse reads a configuration. name is the file's path: it heads the problems, and its directory is where relative
// paths start. env looks up a variable and readFile reads a file named by a *_file key, now or in a later
// [Section.Decode]; where one is nil, nothing is found.
//
// Whatever is wrong is in the problems, in the order of the file, and heed must not start unless their Err is nil. The Config is nil
// only if there was nothing to decode at all; otherwise it is filled as far as possible, so that the drivers can add
// the problems of their sections to the list.
func Parse(name string, data []byte, env func(string) (string, bool), readFile func(string) ([]byte, error)) (*Config, Problems) {
	if env == nil {
		env = func(string) (string, bool) { return "", false }
	}
	if readFile == nil {
		readFile = func(string) ([]byte, error) { return nil, fs.ErrNotExist }
	}
	d := &decoder{src: &source{file: name, env: env, readFile: readFile}}
	root := d.read(data)
	if root == nil {
		d.problems.Sort()
		return nil, d.problems
	}
	c := defaults()
	c.root, c.src = root, d.src
	d.fields(root, "", reflect.ValueOf(c).Elem())
	(&checker{decoder: d, cfg: c}).check()
	c.DataDir = d.src.resolve(c.DataDir)
	if c.Reports.Dir != "" {
		c.Reports.Dir = d.src.resolve(c.Reports.Dir)
	}
	for i, p := range d.problems { // a value that was read late may be quoted in an early text
		d.problems[i].Reason, d.problems[i].Hint = d.src.scrub(p.Reason), d.src.scrub(p.Hint)
	}
	d.problems.Sort()
	return c, d.problems
}
