package salesforce

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/heed-sms/heed/crm"
)

// Whether a lead's opt-out comes along when the lead becomes a contact is a setting of the organisation, and the one
// place that tells it is the Metadata API (Metadata API Developer Guide, "LeadConvertSettings"; readMetadata is SOAP
// only). Reading it may need a right that the integration user does not have; then there is only the hint where to look.

const leadMapHint = "in Setup, Object Manager, Lead, Fields & Relationships, Map Lead Fields: map the lead's opt-out field to the contact's; until then heed ticks the contact with the next pass after a conversion"

// probeLeadMapping says whether the opt-out of a lead survives its conversion, if both objects are configured.
func (o *Org) probeLeadMapping(ctx context.Context, ok func(string, ...any), bad func(string, string, ...any)) {
	_, lead := o.object("Lead")
	_, contact := o.object("Contact")
	if lead == nil || contact == nil {
		return
	}
	mapped, err := o.leadMapping(ctx)
	switch to, found := mapped[strings.ToLower(lead.mapping.Field)]; {
	case err != nil:
		ok("whether Lead.%s is mapped to Contact.%s could not be read (%v); look in Setup, Object Manager, Lead, Fields & Relationships, Map Lead Fields",
			lead.mapping.Field, contact.mapping.Field, err)
	case !found:
		bad(leadMapHint, "Lead.%s is not mapped: a lead's opt-out is lost when it is converted", lead.mapping.Field)
	case !strings.EqualFold(to, contact.mapping.Field):
		bad(leadMapHint, "Lead.%s is mapped to Contact.%s, and heed reads Contact.%s", lead.mapping.Field, to, contact.mapping.Field)
	default:
		ok("Lead.%s is mapped to Contact.%s for conversions", lead.mapping.Field, to)
	}
}

// leadMapping returns the contact fields to which lead fields are mapped, by the lead field's name in small letters.
func (o *Org) leadMapping(ctx context.Context) (map[string]string, error) {
	s, err := o.session(ctx, nil)
	if err != nil {
		return nil, err
	}
	var token bytes.Buffer
	if err := xml.EscapeText(&token, []byte(s.api.GetAccessToken())); err != nil {
		return nil, err
	}
	body := `<?xml version="1.0" encoding="utf-8"?>` +
		`<env:Envelope xmlns:env="http://schemas.xmlsoap.org/soap/envelope/" xmlns:m="http://soap.sforce.com/2006/04/metadata">` +
		`<env:Header><m:SessionHeader><m:sessionId>` + token.String() + `</m:sessionId></m:SessionHeader></env:Header>` +
		`<env:Body><m:readMetadata><m:type>LeadConvertSettings</m:type><m:fullNames>LeadConvertSettings</m:fullNames></m:readMetadata></env:Body></env:Envelope>`
	a, err := o.once(ctx, s, http.MethodPost, "/services/Soap/m/"+strings.TrimPrefix(o.version, "v"), []byte(body), "Content-Type", "text/xml; charset=utf-8", "SOAPAction", `""`, "Accept", "text/xml")
	if err != nil {
		return nil, errors.New("no answer")
	}
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("the Metadata API answered HTTP %d %s", a.status, faultOf(a.body))
	}
	var answer struct {
		Records []struct {
			ObjectMapping []struct {
				InputObject   string `xml:"inputObject"`
				OutputObject  string `xml:"outputObject"`
				MappingFields []struct {
					Input  string `xml:"inputField"`
					Output string `xml:"outputField"`
				} `xml:"mappingFields"`
			} `xml:"objectMapping"`
		} `xml:"Body>readMetadataResponse>result>records"`
	}
	if err := xml.Unmarshal(a.body, &answer); err != nil || len(answer.Records) == 0 {
		return nil, errors.New("the Metadata API's answer has no LeadConvertSettings")
	}
	mapped := map[string]string{}
	for _, r := range answer.Records {
		for _, m := range r.ObjectMapping {
			if !strings.EqualFold(m.InputObject, "Lead") || !strings.EqualFold(m.OutputObject, "Contact") {
				continue
			}
			for _, f := range m.MappingFields {
				mapped[strings.ToLower(f.Input)] = f.Output
			}
		}
	}
	return mapped, nil
}

// faultOf returns the code of a SOAP fault, "" if there is none: INSUFFICIENT_ACCESS, INVALID_SESSION_ID.
func faultOf(body []byte) string {
	var f struct {
		Code string `xml:"Body>Fault>faultcode"`
	}
	if xml.Unmarshal(body, &f) != nil {
		return ""
	}
	_, code, found := strings.Cut(f.Code, ":")
	if !found {
		code = f.Code
	}
	return clip(code, 60)
}

var _ crm.Prober = (*Org)(nil)
