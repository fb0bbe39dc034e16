package salesforcefake

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// This file answers one call of the Metadata API, which is SOAP: readMetadata of LeadConvertSettings, the one place that
// shows which custom Lead fields come along when a lead is converted. No REST or Tooling resource shows it.

const metadataNS = "http://soap.sforce.com/2006/04/metadata"

type metadataRequest struct {
	Session string
	Type    string
	Names   []string
}

// readMetadataRequest reads the SOAP envelope, strictly: the namespace and the one call.
func readMetadataRequest(body io.Reader) (metadataRequest, error) {
	var in struct {
		XMLName xml.Name `xml:"http://schemas.xmlsoap.org/soap/envelope/ Envelope"`
		Header  struct {
			Session struct {
				ID string `xml:"http://soap.sforce.com/2006/04/metadata sessionId"`
			} `xml:"http://soap.sforce.com/2006/04/metadata SessionHeader"`
		} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Header"`
		Body struct {
			Call struct {
				XMLName xml.Name
				Type    string   `xml:"type"`
				Names   []string `xml:"fullNames"`
			} `xml:",any"`
		} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body"`
	}
	if err := xml.NewDecoder(body).Decode(&in); err != nil {
		return metadataRequest{}, errors.New("the request is not a SOAP envelope")
	}
	call := in.Body.Call
	if call.XMLName.Space != metadataNS || call.XMLName.Local != "readMetadata" {
		return metadataRequest{}, errors.New("No operation available for request {" + call.XMLName.Space + "}" + call.XMLName.Local)
	}
	return metadataRequest{strings.TrimSpace(in.Header.Session.ID), strings.TrimSpace(call.Type), call.Names}, nil
}

func (o *Org) metadata(r *http.Request) *response {
	const kind = "metadata"
	if r.Method != http.MethodPost {
		return restError(kind, methodNotAllowed(r.Method, "POST"))
	}
	in, err := readMetadataRequest(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return soapFault("soapenv:Client", err.Error())
	}
	user, ok := o.sessions.use(in.Session, o.now(), 0, true)
	if !ok {
		return soapFault("sf:INVALID_SESSION_ID", "INVALID_SESSION_ID: Invalid Session ID found in SessionHeader: Illegal Session")
	}
	o.counters.update(func(c *Counters) { c.DataCalls++ })
	if !o.knobs.spend() {
		return soapFault("sf:REQUEST_LIMIT_EXCEEDED", "REQUEST_LIMIT_EXCEEDED: TotalRequests Limit exceeded.")
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	switch {
	case o.knobs.set().noMetadata && !o.admin(user):
		return soapFault("sf:INSUFFICIENT_ACCESS", "INSUFFICIENT_ACCESS: use of the Metadata API requires a user with the ModifyAllData or ModifyMetadata permissions")
	case in.Type != "LeadConvertSettings":
		return soapFault("sf:INVALID_TYPE", "INVALID_TYPE: This type of metadata is not available for this organization: "+in.Type)
	case len(in.Names) == 0 || len(in.Names) > 10:
		return soapFault("sf:LIMIT_EXCEEDED", "LIMIT_EXCEEDED: record limit reached. cannot submit more than 10 records in this operation")
	}
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns="` + metadataNS +
		`" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><readMetadataResponse><result>`)
	for _, name := range in.Names {
		if name != "LeadConvertSettings" {
			b.WriteString(`<records xsi:nil="true"/>`)
			continue
		}
		b.WriteString(`<records xsi:type="LeadConvertSettings"><fullName>LeadConvertSettings</fullName><allowOwnerChange>false</allowOwnerChange>`)
		if m := o.knobs.set().mapping; len(m) > 0 {
			b.WriteString(`<objectMapping><inputObject>Lead</inputObject>`)
			for _, from := range slices.Sorted(maps.Keys(m)) {
				b.WriteString(`<mappingFields><inputField>` + from + `</inputField><outputField>` + m[from] + `</outputField></mappingFields>`)
			}
			b.WriteString(`<outputObject>Contact</outputObject></objectMapping>`)
		}
		b.WriteString(`<opportunityCreationOptions>VisibleOptional</opportunityCreationOptions></records>`)
	}
	b.WriteString(`</result></readMetadataResponse></soapenv:Body></soapenv:Envelope>`)
	return &response{kind: kind, status: 200, ctype: "text/xml;charset=UTF-8", body: b.Bytes()}
}

func soapFault(code, message string) *response {
	var text bytes.Buffer
	_ = xml.EscapeText(&text, []byte(message)) // a Buffer takes all
	return &response{kind: "metadata", status: 500, ctype: "text/xml;charset=UTF-8", body: []byte(
		`<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:sf="` + metadataNS +
			`"><soapenv:Body><soapenv:Fault><faultcode>` + code + `</faultcode><faultstring>` + text.String() + `</faultstring></soapenv:Fault></soapenv:Body></soapenv:Envelope>`)}
}
