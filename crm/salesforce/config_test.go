package salesforce

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

func TestTheConfigurationIsReadFromYAML(t *testing.T) {
	const text = `
domain: https://acme.my.salesforce.com
client_id: id
client_secret: hush
lookback: 90s
objects:
  - { object: Contact, phones: [MobilePhone], opt_out: SMS_Opt_Out__c, date_field: Out_At__c }
  - { object: Lead, phones: [Phone], opt_out: { field: C__c, out: "Opted Out", in: "Opted In" } }
  - { object: ns__X__c, phones: [ns__P__c], opt_out: { field: OK__c, inverted: true } }
`
	var c Config
	if err := yaml.UnmarshalWithOptions([]byte(text), &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if ps := c.Validate(); len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	if c.ClientSecret != "hush" || c.Lookback != 90*time.Second || c.Objects[0].OptOut != (OptOut{Field: "SMS_Opt_Out__c"}) ||
		c.Objects[1].OptOut != (OptOut{Field: "C__c", Out: "Opted Out", In: "Opted In"}) || !c.Objects[2].OptOut.Inverted {
		t.Errorf("%+v", c)
	}
	if err := yaml.UnmarshalWithOptions([]byte("objects: [{opt_out: {field: X, wrong: 1}}]"), &c, yaml.Strict()); err == nil {
		t.Error("an unknown key passes")
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "secret", c.ClientSecret)
	out, _ := yaml.Marshal(c)
	if all := fmt.Sprintf("%v %+v %#v %s %s", c, c, c, log.String(), out); strings.Contains(all, "hush") {
		t.Errorf("the secret shows in %s", all)
	}
}

func TestEachMistakeIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*Config)
		field string
	}{
		"no domain":             {func(c *Config) { c.Domain = "" }, "domain"},
		"plain http":            {func(c *Config) { c.Domain = "http://acme.my.salesforce.com" }, "domain"},
		"a path":                {func(c *Config) { c.Domain = "https://acme.my.salesforce.com/setup" }, "domain"},
		"no scheme":             {func(c *Config) { c.Domain = "acme.my.salesforce.com" }, "domain"},
		"no client id":          {func(c *Config) { c.ClientID = "" }, "client_id"},
		"no secret":             {func(c *Config) { c.ClientSecret = "" }, "client_secret"},
		"both flows":            {func(c *Config) { c.Username = "x" }, "client_secret"},
		"JWT without key":       {func(c *Config) { c.ClientSecret, c.Username = "", "x" }, "private_key_file"},
		"JWT without user":      {func(c *Config) { c.ClientSecret, c.PrivateKeyFile = "", "/nonexistent" }, "username"},
		"unreadable key":        {func(c *Config) { c.ClientSecret, c.Username, c.PrivateKeyFile = "", "x", "/nonexistent" }, "private_key_file"},
		"an old version":        {func(c *Config) { c.APIVersion = "v30.0" }, "api_version"},
		"no version":            {func(c *Config) { c.APIVersion = "latest" }, "api_version"},
		"another id":            {func(c *Config) { c.OrgID = contactID(1) }, "org_id"},
		"a short lookback":      {func(c *Config) { c.Lookback = time.Second }, "lookback"},
		"a large page":          {func(c *Config) { c.PageSize = 2001 }, "page_size"},
		"no objects":            {func(c *Config) { c.Objects = nil }, "objects"},
		"an object twice":       {func(c *Config) { c.Objects = append(c.Objects, c.Objects[0]) }, "objects[1].object"},
		"no phones":             {func(c *Config) { c.Objects[0].Phones = nil }, "objects[0].phones"},
		"a field of a relation": {func(c *Config) { c.Objects[0].Phones = []string{"Account.Phone"} }, "objects[0].phones[0]"},
		"an injection":          {func(c *Config) { c.Objects[0].OptOut.Field = "Id FROM User--" }, "objects[0].opt_out.field"},
		"a field twice":         {func(c *Config) { c.Objects[0].DateField = "phone" }, "objects[0].date_field"},
		"half a picklist":       {func(c *Config) { c.Objects[0].OptOut.Out = "x" }, "objects[0].opt_out"},
		"one value for both":    {func(c *Config) { c.Objects[0].OptOut.Out, c.Objects[0].OptOut.In = "x", "X" }, "objects[0].opt_out"},
		"an inverted picklist":  {func(c *Config) { c.Objects[0].OptOut = OptOut{Field: "X", Out: "a", In: "b", Inverted: true} }, "objects[0].opt_out.inverted"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config("https://acme.my.salesforce.com")
			c.edit(&cfg)
			ps := cfg.problems()
			if c.field == "private_key_file" {
				ps = cfg.Validate() // which reads the file, too
			}
			if len(ps) != 1 || ps[0].Field != c.field || ps[0].Reason == "" || ps[0].Hint == "" {
				t.Errorf("problems %+v, want one of %s", ps, c.field)
			}
		})
	}
	if _, err := New(Config{}, nil); err == nil || strings.Count(err.Error(), ";") < 4 {
		t.Errorf("an empty configuration: %v", err)
	}
}

func TestNamesOfFieldsAreAPINames(t *testing.T) {
	for name, want := range map[string]bool{
		"Phone": true, "SMS_Opt_Out__c": true, "ns__SMSOptOut__c": true, "tdc_tsw__SMS_Opt_out__c": true, "PersonMobilePhone": true,
		"X__pc": true, "et4ae5__HasOptedOutOfMobile__c": true, "Mogli_SMS__Mogli_Opt_Out__c": true, "smagicinteract__SMSOptOut__c": true,
		"Account.Phone": false, "": false, "1x": false, "_x": false, "x_": false, "a b": false, "a'b": false, "a,b": false, "é": false, "COUNT()": false, "x\n": false,
	} {
		if apiName.MatchString(name) != want {
			t.Errorf("%q: %v, want %v", name, !want, want)
		}
	}
}
