package salesforce

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

const convertSettings = `<?xml version="1.0"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns="http://soap.sforce.com/2006/04/metadata"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><readMetadataResponse><result><records xsi:type="LeadConvertSettings">
<fullName>LeadConvertSettings</fullName><allowOwnerChange>true</allowOwnerChange>
<objectMapping><inputObject>Lead</inputObject><mappingFields><inputField>SMS_Opt_Out__c</inputField><outputField>Other__c</outputField></mappingFields><outputObject>Account</outputObject></objectMapping>
<objectMapping><inputObject>Lead</inputObject>MAPPING<outputObject>Contact</outputObject></objectMapping>
</records></result></readMetadataResponse></soapenv:Body></soapenv:Envelope>`

func TestProbeTellsWhetherALeadsOptOutSurvivesItsConversion(t *testing.T) {
	mapping := func(in, out string) string {
		return strings.Replace(convertSettings, "MAPPING", "<mappingFields><inputField>Fax__c</inputField><outputField>Fax</outputField></mappingFields><mappingFields><inputField>"+in+"</inputField><outputField>"+out+"</outputField></mappingFields>", 1)
	}
	for name, c := range map[string]struct {
		status int
		answer string
		ok     bool
		what   string
	}{
		"mapped":               {200, mapping("SMS_Opt_Out__c", "SMS_Opt_Out__c"), true, "is mapped to Contact.SMS_Opt_Out__c"},
		"mapped, another case": {200, mapping("sms_opt_out__c", "SMS_OPT_OUT__c"), true, "is mapped to"},
		"mapped elsewhere":     {200, mapping("SMS_Opt_Out__c", "HasOptedOutOfFax"), false, "is mapped to Contact.HasOptedOutOfFax, and heed reads"},
		"not mapped":           {200, strings.Replace(convertSettings, "MAPPING", "", 1), false, "is lost when it is converted"},
		"no right to read it":  {500, `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault><faultcode>sf:INSUFFICIENT_ACCESS</faultcode><faultstring>x</faultstring></e:Fault></e:Body></e:Envelope>`, true, "could not be read (the Metadata API answered HTTP 500 INSUFFICIENT_ACCESS)"},
		"something else":       {200, `{"a":1}`, true, "could not be read"},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/services/Soap/m/") {
					io.WriteString(w, "{}")
					return
				}
				b, _ := io.ReadAll(r.Body)
				if !strings.Contains(string(b), "<m:sessionId>00D000000000001!token1</m:sessionId>") || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/xml") || r.Header.Get("SOAPAction") != `""` {
					t.Errorf("asked with %v: %s", r.Header, b)
				}
				w.Header().Set("Content-Type", "text/xml")
				w.WriteHeader(c.status)
				io.WriteString(w, c.answer)
			})
			o := s.open(t, func(c *Config) {
				c.Objects = append(c.Objects[:1:1], Object{Object: "Lead", Phones: []string{"Phone"}, OptOut: OptOut{Field: "SMS_Opt_Out__c"}})
			})
			found := false
			for _, f := range o.Probe(t.Context()) {
				if !strings.Contains(f.What, "Lead.SMS_Opt_Out__c") {
					continue
				}
				found = true
				if f.OK != c.ok || !strings.Contains(f.What, c.what) || !f.OK && !strings.Contains(f.Hint, "Map Lead Fields") {
					t.Errorf("%+v, want %q", f, c.what)
				}
				if strings.Contains(f.What, "token1") {
					t.Error("the session is in the finding")
				}
			}
			if !found {
				t.Error("no finding about the mapping")
			}
		})
	}
}
