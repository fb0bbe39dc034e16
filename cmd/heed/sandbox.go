package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/crm/salesforce/salesforcefake"
	"github.com/heed-sms/heed/sms/phone"
	"github.com/heed-sms/heed/sms/twilio/twiliofake"
)

// world is a Salesforce org and a Twilio account on loopback: the two emulators, on real listeners.
type world struct {
	org    *salesforcefake.Org
	twilio *twiliofake.Server

	orgURL, twilioURL                string
	heedPublic, heedAdmin            string // addresses that heed is to listen on
	apiKey, hook                     string
	dataDir                          string   // relative to the configuration; another one for each world, for each has its own past
	ada                              []record // the records of the person in the examples
	clientID, clientSecret, username string
	from                             string

	servers []*http.Server
	wg      sync.WaitGroup
}

// record is a record of the org.
type record struct{ object, id string }

// The person of the story and of the examples, whom the emulated org knows: three records, one number, three spellings.
// 555-01xx numbers are reserved for fiction.
var ada = phone.MustParse("+14155550142")

// worldOptions say where the emulators listen; ":0" takes a free port.
type worldOptions struct {
	salesforce, twilio, heed string
	records                  int
	seed                     uint64
}

func newWorld(o worldOptions) (_ *world, err error) {
	w := &world{apiKey: secret("heedkey"), hook: secret(""), dataDir: "./" + secret("heed-sandbox-")[:len("heed-sandbox-")+6], clientID: "heed-sandbox-client",
		clientSecret: "heed-sandbox-secret", username: "heed.integration@sandbox.example", from: "+15550100000"}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	w.org = salesforcefake.New(salesforcefake.Options{ClientID: w.clientID, ClientSecret: w.clientSecret, Username: w.username, Seed: o.seed})
	if o.records > 0 {
		w.org.Seed(o.records, o.seed)
	}
	for _, p := range w.org.People() {
		if p.E164 == ada.String() {
			w.ada = append(w.ada, record{p.Object, p.ID})
		}
	}
	w.twilio = twiliofake.New(twiliofake.Options{Numbers: []string{w.from}})
	if w.orgURL, err = w.serve(o.salesforce, w.org.Handler()); err != nil {
		return w, fmt.Errorf("--salesforce: %w", err)
	}
	w.org.SetURL(w.orgURL)
	if w.twilioURL, err = w.serve(o.twilio, w.twilio.Handler()); err != nil {
		return w, fmt.Errorf("--twilio: %w", err)
	}
	if w.heedPublic, w.heedAdmin, err = freeAddresses(o.heed); err != nil {
		return w, fmt.Errorf("--heed: %w", err)
	}
	w.twilio.SetWebhook(w.publicURL() + "/webhooks/twilio")
	return w, nil
}

func (w *world) publicURL() string { return "http://" + w.heedPublic }

func (w *world) serve(addr string, h http.Handler) (url string, err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	w.servers = append(w.servers, s)
	w.wg.Go(func() { _ = s.Serve(l) })
	return "http://" + dialable(l.Addr()), nil
}

// dialable returns an address that a client on this machine can use, where the listener has all addresses.
func dialable(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if ok && t.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", t.Port)
	}
	return a.String()
}

func (w *world) close() {
	for _, s := range w.servers {
		_ = s.Close()
	}
	w.wg.Wait()
	if w.twilio != nil {
		w.twilio.Close()
	}
	if w.org != nil {
		w.org.Close()
	}
}

// freeAddresses returns where heed is to listen, with port 0 resolved to one that is free now. heed binds it later;
// between the two somebody else could.
func freeAddresses(addr string) (public, admin string, err error) {
	p, err := net.Listen("tcp", addr)
	if err != nil {
		return "", "", err
	}
	defer p.Close()
	a, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	return dialable(p.Addr()), dialable(a.Addr()), nil
}

func secret(prefix string) string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return prefix + hex.EncodeToString(b)
}

// sandboxMark is the first line of a configuration that heed sandbox wrote, and may write over.
const sandboxMark = "# Written by heed sandbox: everything in here is emulated, on this machine only."

// writeConfig writes the configuration, but never over one that somebody else wrote.
func (w *world) writeConfig(path string) error {
	old, err := os.ReadFile(path)
	if err == nil && !bytes.HasPrefix(old, []byte(sandboxMark)) {
		return fmt.Errorf("%s exists and was not written by heed sandbox; name another file, or remove it", path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(w.config()), 0o600)
}

// config returns a configuration that leads heed to this world.
func (w *world) config() string {
	quote := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	return fmt.Sprintf(sandboxMark+`
data_dir: %s
public: { listen: %s, url: %s }
admin: { listen: %s }
keys:
  - { name: workflow, sha256: %s, may: [send, read] }
sms:
  - name: twilio
    provider: twilio
    account_sid: %s
    auth_token: %s
    from: %s
    base_url: %s
crm:
  - name: salesforce
    type: salesforce
    domain: %s
    client_id: %s
    client_secret: %s
    objects:
      - { object: Contact, phones: [MobilePhone, Phone, HomePhone, OtherPhone], opt_out: SMS_Opt_Out__c, date_field: SMS_Opt_Out_Date__c, source_field: SMS_Opt_Out_Source__c }
      - { object: Lead, phones: [MobilePhone, Phone], opt_out: SMS_Opt_Out__c, date_field: SMS_Opt_Out_Date__c, source_field: SMS_Opt_Out_Source__c }
outbound_messages:
  - { hook: %s, crm: salesforce, org_id: %s, to: MobilePhone, body: SMS_Body__c }
consent: { default_region: US }
schedule: { incremental: "@every 2s", nightly: "0 2 * * *", timezone: America/New_York }
`, w.dataDir, quote(w.heedPublic), quote(w.publicURL()), quote(w.heedAdmin), quote(connector.HashKey(w.apiKey)), w.twilio.AccountSID(),
		quote(w.twilio.AuthToken()), quote(w.from), quote(w.twilioURL), quote(w.orgURL), quote(w.clientID), quote(w.clientSecret),
		quote(w.hook), w.org.OrgID())
}

// ready is the line that `heed sandbox` prints when it serves.
type ready struct {
	Salesforce struct {
		URL          string `json:"url"`
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
		Username     string `json:"username"`
		OrgID        string `json:"org_id"`
	} `json:"salesforce"`
	Twilio struct {
		URL        string `json:"url"`
		AccountSID string `json:"account_sid"`
		AuthToken  string `json:"auth_token"`
		From       string `json:"from"`
	} `json:"twilio"`
	Heed struct {
		Config             string `json:"config"`
		PublicURL          string `json:"public_url"`
		AdminURL           string `json:"admin_url"`
		APIKey             string `json:"api_key"`
		OutboundMessageURL string `json:"outbound_message_url"`
	} `json:"heed"`
}

func (w *world) ready(configPath string) ready {
	var r ready
	r.Salesforce.URL, r.Salesforce.ClientID, r.Salesforce.ClientSecret = w.orgURL, w.clientID, w.clientSecret
	r.Salesforce.Username, r.Salesforce.OrgID = w.username, w.org.OrgID()
	r.Twilio.URL, r.Twilio.AccountSID, r.Twilio.AuthToken, r.Twilio.From = w.twilioURL, w.twilio.AccountSID(), w.twilio.AuthToken(), w.from
	r.Heed.Config, r.Heed.PublicURL, r.Heed.AdminURL, r.Heed.APIKey = configPath, w.publicURL(), "http://"+w.heedAdmin, w.apiKey
	r.Heed.OutboundMessageURL = w.publicURL() + "/salesforce/outbound-messages/" + w.hook
	return r
}

func sandboxCommand(std stdio, _ *options) *cobra.Command {
	var o worldOptions
	var write string
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Run a Salesforce org and a Twilio account on this machine, for integration work",
		Long: `Run emulators of Salesforce and Twilio, and write a configuration with which heed serve works against them. When
they are ready, one line of JSON with every address and credential is printed on standard output; logs go to standard
error. They keep nothing on disk and end with the command.

Any client of the two services can use them. To play a phone, post to TWILIO/sandbox/texts; what the phone received is
at TWILIO/sandbox/texts?phone=+1…; both misbehave as told at /sandbox/knobs.`,
		Example: `  heed sandbox --write-config heed.yaml --records 500
  heed sandbox --salesforce 127.0.0.1:7001 --twilio 127.0.0.1:7002 --heed 127.0.0.1:8080 --write-config heed.yaml
  curl -d '{"from":"+14155550142","to":"+15550100000","body":"STOP"}' http://127.0.0.1:7002/sandbox/texts`,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.records < 0 {
				return usageError{errors.New("--records must not be negative")}
			}
			w, err := newWorld(o)
			if err != nil {
				return err
			}
			defer w.close()
			if write != "" {
				if err := w.writeConfig(write); err != nil {
					return err
				}
			}
			if err := json.NewEncoder(std.Out).Encode(w.ready(write)); err != nil {
				return err
			}
			fmt.Fprintln(std.Err, "sandbox is ready; end it with Ctrl-C")
			<-c.Context().Done()
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&o.salesforce, "salesforce", "127.0.0.1:0", "listen `ADDRESS` of the Salesforce org")
	f.StringVar(&o.twilio, "twilio", "127.0.0.1:0", "listen `ADDRESS` of the Twilio account")
	f.StringVar(&o.heed, "heed", "127.0.0.1:0", "`ADDRESS` on which heed is going to listen")
	f.IntVar(&o.records, "records", 200, "people to seed the org with")
	f.Uint64Var(&o.seed, "seed", 1, "makes the people repeatable")
	f.StringVar(&write, "write-config", "", "write a configuration for heed serve to `FILE`")
	return c
}
