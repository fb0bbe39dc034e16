package outbound

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sample(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/contact.xml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sampleMessage() Message {
	return Message{
		OrganizationID: "00D000000000001EAA",
		ActionID:       "04k000000000001AAA",
		EnterpriseURL:  "https://example.my.salesforce.com/services/Soap/c/62.0/00D000000000001",
		PartnerURL:     "https://example.my.salesforce.com/services/Soap/u/62.0/00D000000000001",
		Notifications: []Notification{{
			ID:       "04l000000000001AAA",
			Object:   "Contact",
			RecordID: "003000000000001AAA",
			Fields: map[string]string{
				"HasOptedOutOfSms__c": "true",
				"LastName":            "O'Hara & Søn",
				"MobilePhone":         "(500) 555-0006",
			},
		}},
	}
}

func many(n int) Message {
	m := sampleMessage()
	m.Notifications = nil
	for i := range n {
		m.Notifications = append(m.Notifications, Notification{
			ID:       fmt.Sprintf("04l%012dAAA", i),
			Object:   "Lead",
			RecordID: fmt.Sprintf("00Q%012dEAA", i),
			Fields:   map[string]string{"Phone": fmt.Sprintf("+1500555%04d", i)},
		})
	}
	return m
}

func edit(t testing.TB, s string, oldNew ...string) string {
	t.Helper()
	for i := 0; i < len(oldNew); i += 2 {
		if !strings.Contains(s, oldNew[i]) {
			t.Fatalf("the sample has no %q to edit", oldNew[i])
		}
		s = strings.ReplaceAll(s, oldNew[i], oldNew[i+1])
	}
	return s
}

func TestTheSampleIsRead(t *testing.T) {
	got, err := Parse([]byte(sample(t)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if want := sampleMessage(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
}

func TestFormsThatMeanTheSame(t *testing.T) {
	const phone = `<sf:MobilePhone>(500) 555-0006</sf:MobilePhone>`
	tests := []struct {
		name string
		edit []string
	}{
		{"prefixes renamed", []string{"soapenv:", "S:", ":soapenv", ":S", "sf:", "x-1:", ":sf=", ":x-1=", "xsi:", "i:", ":xsi=", ":i="}},
		{"prefixes of one namespace swapped for another's", []string{"soapenv:", "sf_:", ":soapenv", ":sf_", "sf:", "soapenv:", ":sf=", ":soapenv="}},
		{"the envelope under the default namespace", []string{"soapenv:", "", ":soapenv=", "="}},
		{"outbound under a prefix and the record under the default namespace", []string{
			"<notifications xmlns=", "<o:notifications xmlns:o=", "</notifications>", "</o:notifications>",
			"<OrganizationId>", "<o:OrganizationId>", "</OrganizationId>", "</o:OrganizationId>",
			"<ActionId>", "<o:ActionId>", "</ActionId>", "</o:ActionId>", "<SessionId", "<o:SessionId",
			"<EnterpriseUrl>", "<o:EnterpriseUrl>", "</EnterpriseUrl>", "</o:EnterpriseUrl>",
			"<PartnerUrl>", "<o:PartnerUrl>", "</PartnerUrl>", "</o:PartnerUrl>",
			"<Notification>", "<o:Notification>", "</Notification>", "</o:Notification>",
			"<Id>", "<o:Id>", "04l000000000001AAA</Id>", "04l000000000001AAA</o:Id>",
			"<sObject", "<o:sObject", "</sObject>", "</o:sObject>", "sf:", "", ":sf=", "="}},
		{"all namespaces declared at the top", []string{` xmlns:sf="urn:sobject.enterprise.soap.sforce.com"`, "",
			"xmlns:xsd=", `xmlns:sf="urn:sobject.enterprise.soap.sforce.com" xmlns:xsd=`}},
		{"a prefix that is redeclared inside", []string{"xmlns:xsd=", `xmlns:sf="urn:elsewhere" xmlns:xsd=`}},
		{"a prefix that was redeclared inside a sibling", []string{phone, `<sf:Fax xsi:nil="1" xmlns:sf="urn:sobject.enterprise.soap.sforce.com" xmlns:xsd="urn:x"/>` + phone}},
		{"byte order mark", []string{"<?xml", "\ufeff<?xml"}},
		{"no XML declaration", []string{`<?xml version="1.0" encoding="UTF-8"?>` + "\n", ""}},
		{"lower-case encoding, standalone, single quotes", []string{`"1.0" encoding="UTF-8"`, `'1.0' encoding='utf-8' standalone='yes'`}},
		{"CRLF between elements", []string{"\n", "\r\n"}},
		{"no white space between elements", []string{">\n", ">", "  ", "", "> <", "><"}},
		{"CDATA", []string{"O&apos;Hara &amp; S&#xF8;n", "O<![CDATA['Hara & ]]>S&#248;n"}},
		{"comments, also around the envelope", []string{"<soapenv:Envelope", "<!-- a --><soapenv:Envelope", "</soapenv:Envelope>", "</soapenv:Envelope><!-- b -->",
			"(500) 555-0006", "(500)<!-- - --> 555-0006", "<Notification>", "<Notification><!---->"}},
		{"another order", []string{"<OrganizationId>00D000000000001EAA</OrganizationId>", "", "</notifications>",
			"<OrganizationId>00D000000000001EAA</OrganizationId></notifications>", phone, "", "<sf:Id>", phone + "<sf:Id>"}},
		{"ids of 15 characters", []string{"00D000000000001EAA", "00D000000000001", "04l000000000001AAA", "04l000000000001", "003000000000001AAA", "003000000000001"}},
		{"a session id", []string{`<SessionId xsi:nil="true"/>`, "<SessionId>00D!secret</SessionId>"}},
		{"no session id", []string{`<SessionId xsi:nil="true"/>`, ""}},
		{"null fields spelt out", []string{phone, phone + `<sf:Fax xsi:nil="true"/><sf:Email xsi:nil=" 1 "></sf:Email>` +
			`<sf:fieldsToNull xsi:nil="true"/><sf:fieldsToNull>Phone</sf:fieldsToNull><sf:fieldsToNull>HomePhone</sf:fieldsToNull>` +
			`<sf:MailingAddress xsi:nil="true"/><sf:OtherAddress><sf:city xsi:nil="true"/></sf:OtherAddress>`}},
		{"not null spelt out, and types", []string{"<sf:MobilePhone>", `<sf:MobilePhone xsi:nil="false" xsi:type="xsd:string" a="b">`}},
		{"a SOAP header to skip", []string{"<soapenv:Body>", `<soapenv:Header><a:b xmlns:a="urn:a" soapenv:mustUnderstand="0"><a:c>d</a:c></a:b></soapenv:Header><soapenv:Body>`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse([]byte(edit(t, sample(t), test.edit...)), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if want := sampleMessage(); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %#v\nwant %#v", got, want)
			}
		})
	}
}

func TestFieldValues(t *testing.T) {
	const phone = `<sf:MobilePhone>(500) 555-0006</sf:MobilePhone>`
	tests := []struct {
		name, xml string
		want      map[string]string
	}{
		{"empty is not null", `<sf:Phone></sf:Phone><sf:Fax/>`, map[string]string{"Phone": "", "Fax": ""}},
		{"white space stays", "<sf:Phone> 1\t\n&#13;\r\n</sf:Phone>", map[string]string{"Phone": " 1\t\n\r\n"}},
		{"markup is text", `<sf:Phone>&lt;b&gt;<![CDATA[<i>&amp;]]></sf:Phone>`, map[string]string{"Phone": "<b><i>&amp;"}},
		{"other scripts", `<sf:Title>Ж 日本 😀</sf:Title>`, map[string]string{"Title": "Ж 日本 😀"}},
		{"a package's field", `<sf:acme__Opt_Out__c>false</sf:acme__Opt_Out__c>`, map[string]string{"acme__Opt_Out__c": "false"}},
		{"the parts of a compound field", `<sf:MailingAddress xsi:type="sf:address" xmlns:ent="urn:enterprise.soap.sforce.com"> <ent:city>Reno</ent:city>
			<sf:street>1 A St&#10;#2</sf:street> <sf:postalCode xsi:nil="true"/></sf:MailingAddress>`,
			map[string]string{"MailingAddress.city": "Reno", "MailingAddress.street": "1 A St\n#2"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := sampleMessage()
			delete(want.Notifications[0].Fields, "MobilePhone")
			for k, v := range test.want {
				want.Notifications[0].Fields[k] = v
			}
			got, err := Parse([]byte(edit(t, sample(t), phone, test.xml)), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %#v\nwant %#v", got, want)
			}
			if again, err := Parse(Render(got), Limits{}); err != nil || !reflect.DeepEqual(again, want) {
				t.Errorf("rendered and read again: %v\ngot  %#v\nwant %#v", err, again, want)
			}
		})
	}
}

func TestTwoNotificationsOfDifferentObjects(t *testing.T) {
	want := sampleMessage()
	want.Notifications = append(want.Notifications, Notification{ID: "04l000000000002AAA", Object: "Lead",
		RecordID: "00Q000000000001EAA", Fields: map[string]string{}})
	got, err := Parse(Render(want), Limits{})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %#v\nwant %#v", err, got, want)
	}
}

func TestAHundredNotificationsAndNoMore(t *testing.T) {
	got, err := Parse(Render(many(100)), Limits{})
	if err != nil || !reflect.DeepEqual(got, many(100)) {
		t.Errorf("100: %v", err)
	}
	wantError(t, Render(many(101)), Limits{}, TooMany, "Notification")
	wantError(t, Render(many(0)), Limits{}, Missing, "Notification")
	wantError(t, Render(many(3)), Limits{Notifications: 2}, TooMany, "Notification")
	if _, err := Parse(Render(many(2)), Limits{Notifications: 2}); err != nil {
		t.Errorf("2 of 2: %v", err)
	}
}

// secret stands in the sample wherever a value stands, and must not come out of any error.
const secret = "5005550006"

func wantError(t *testing.T, body []byte, limits Limits, reason Reason, element string) {
	t.Helper()
	m, err := Parse(body, limits)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an *Error: %s", err, reason)
	}
	if e.Reason != reason || e.Element != element {
		t.Errorf("got %q in %q at %d, want %q in %q", e.Reason, e.Element, e.Offset, reason, element)
	}
	if e.Offset < 0 || e.Offset > int64(len(body)) {
		t.Errorf("offset %d is not in the body of %d bytes", e.Offset, len(body))
	}
	if !reflect.DeepEqual(m, Message{}) {
		t.Errorf("a refused body gave %v", m)
	}
	if s := e.Error(); strings.Contains(s, secret) || !strings.Contains(s, string(reason)) {
		t.Errorf("the error says %q", s)
	}
}

func TestRefusals(t *testing.T) {
	const (
		org      = "<OrganizationId>00D000000000001EAA</OrganizationId>"
		phone    = "<sf:MobilePhone>" + secret + "</sf:MobilePhone>"
		bodyEnd  = "</soapenv:Body>"
		rootEnd  = "</soapenv:Envelope>"
		noteOpen = "<Notification>"
		object   = "</sObject>"
		decl     = `<?xml version="1.0" encoding="UTF-8"?>`
	)
	tests := []struct {
		name    string
		edit    []string
		reason  Reason
		element string
	}{
		{"external entity", []string{decl, decl + `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>`, secret, "&e;"}, Directive, ""},
		{"entity bomb", []string{decl, decl + `<!DOCTYPE x [<!ENTITY a "` + secret + `"><!ENTITY b "&a;&a;"><!ENTITY c "&b;&b;">]>`, secret, "&c;"}, Directive, ""},
		{"undeclared entity", []string{phone, "<sf:MobilePhone>&e" + secret + ";</sf:MobilePhone>"}, Malformed, ""},
		{"HTML entity", []string{secret, secret + "&nbsp;"}, Malformed, ""},
		{"document type at the end", []string{rootEnd, rootEnd + "<!DOCTYPE x>"}, Directive, ""},
		{"document type in the middle", []string{noteOpen, noteOpen + "<!DOCTYPE x>"}, Directive, ""},
		{"processing instruction before", []string{decl, decl + "<?php 1?>"}, Directive, ""},
		{"processing instruction inside a value", []string{secret, secret + "<?x y?>"}, Directive, ""},
		{"two XML declarations", []string{decl, decl + decl}, Directive, ""},
		{"XML declaration after a blank", []string{decl, " " + decl}, Directive, ""},
		{"XML 1.1", []string{`"1.0"`, `"1.1"`}, Malformed, ""},
		{"XML declaration without a version", []string{`version="1.0" `, ""}, Malformed, ""},
		{"another encoding", []string{"UTF-8", "ISO-8859-1"}, NotUTF8, ""},
		{"UTF-16 declared only", []string{"UTF-8", "utf-16"}, NotUTF8, ""},
		{"latin-1 bytes", []string{secret, secret + "\xe9"}, NotUTF8, ""},
		{"a zero byte", []string{secret, secret + "\x00"}, NotUTF8, ""},
		{"a control character", []string{secret, secret + "\x01"}, Malformed, ""},
		{"an encoded control character", []string{secret, secret + "&#1;"}, Malformed, ""},

		{"two roots", []string{rootEnd, rootEnd + "<a/>"}, Trailing, ""},
		{"the envelope twice", []string{rootEnd, rootEnd + `<soapenv:Envelope xmlns:soapenv="` + nsSOAP + `"/>`}, Trailing, ""},
		{"text after the root", []string{rootEnd, rootEnd + secret}, Trailing, ""},
		{"an encoded blank after the root", []string{rootEnd, rootEnd + "&#32;"}, Trailing, ""},
		{"an empty CDATA section after the root", []string{rootEnd, rootEnd + "<![CDATA[]]>"}, Trailing, ""},
		{"an end tag after the root", []string{rootEnd, rootEnd + rootEnd}, Malformed, ""},
		{"text before the root", []string{decl, secret}, NotSOAP, ""},
		{"overlapping elements", []string{"</sf:MobilePhone>", "</sf:LastName>"}, Malformed, ""},
		{"an end tag under another prefix of the namespace", []string{"</sf:MobilePhone>", "</s:MobilePhone>", "xmlns:sf=", `xmlns:s="` + nsObject + `" xmlns:sf=`}, Malformed, ""},
		{"undeclared prefix", []string{phone, "<q:MobilePhone/>"}, Malformed, ""},
		{"undeclared prefix of an attribute", []string{noteOpen, `<Notification q:a="b">`}, Malformed, ""},
		{"prefix out of its scope", []string{object, object + "<sf:Id/>"}, Malformed, ""},
		{"prefix without a namespace", []string{noteOpen, `<Notification xmlns:q="">`}, Malformed, ""},
		{"prefix xmlns declared", []string{noteOpen, `<Notification xmlns:xmlns="urn:q">`}, Malformed, ""},
		{"prefix declared twice", []string{noteOpen, `<Notification xmlns:q="urn:a" xmlns:q="urn:b">`}, Malformed, ""},
		{"attribute twice", []string{`xsi:type="sf:Contact"`, `xsi:type="sf:Contact" xsi:type="sf:Lead"`}, Malformed, ""},
		{"attribute twice under two prefixes", []string{`xsi:type="sf:Contact"`, `xmlns:i="` + nsInstance + `" xsi:type="sf:Contact" i:type="sf:Lead"`}, Malformed, ""},
		{"name with two colons", []string{phone, "<sf:a:b/>"}, Malformed, ""},
		{"name with an empty prefix", []string{phone, "<:b/>"}, Malformed, ""},
		{"attribute without a value", []string{noteOpen, "<Notification a>"}, Malformed, ""},

		{"SOAP 1.2", []string{nsSOAP, "http://www.w3.org/2003/05/soap-envelope"}, NotSOAP11, "Envelope"},
		{"no SOAP namespace", []string{nsSOAP, "urn:x"}, NotSOAP11, "Envelope"},
		{"SOAP namespace in other letters", []string{nsSOAP, strings.ToUpper(nsSOAP)}, NotSOAP11, "Envelope"},
		{"body of another namespace", []string{"<soapenv:Body>", `<Body xmlns="urn:x">`, bodyEnd, "</Body>"}, WrongNamespace, "Envelope"},
		{"no body", []string{"soapenv:Body", "soapenv:Header"}, Missing, "Body"},
		{"two bodies", []string{bodyEnd, bodyEnd + "<soapenv:Body/>"}, Duplicate, "Envelope"},
		{"header after the body", []string{bodyEnd, bodyEnd + "<soapenv:Header/>"}, Unexpected, "Envelope"},
		{"two headers", []string{"<soapenv:Body>", "<soapenv:Header/><soapenv:Header/><soapenv:Body>"}, Duplicate, "Envelope"},
		{"something after the body", []string{bodyEnd, bodyEnd + "<soapenv:Trailer/>"}, Unexpected, "Envelope"},
		{"a header that must be understood", []string{"<soapenv:Body>", `<soapenv:Header><a:b xmlns:a="urn:a" soapenv:mustUnderstand="1"/></soapenv:Header><soapenv:Body>`}, MustUnderstand, "Header"},
		{"an empty body", []string{"<soapenv:Body>", "<soapenv:Body></soapenv:Body><!--", rootEnd, "-->" + rootEnd}, Missing, "notifications"},
		{"a response instead of a request", []string{"notifications", "notificationsResponse"}, Unexpected, "Body"},
		{"a fault instead of a request", []string{"<soapenv:Body>", "<soapenv:Body><soapenv:Fault/>"}, WrongNamespace, "Body"},
		{"two requests", []string{"</notifications>", `</notifications><notifications xmlns="` + nsOutbound + `"/>`}, Duplicate, "Body"},

		{"outbound of another namespace", []string{nsOutbound, nsOutbound + "/"}, WrongNamespace, "Body"},
		{"organization of another namespace", []string{"<OrganizationId>", `<OrganizationId xmlns="urn:x">`}, WrongNamespace, "notifications"},
		{"no organization", []string{org, ""}, Missing, "OrganizationId"},
		{"no action", []string{"<ActionId>04k000000000001AAA</ActionId>", ""}, Missing, "ActionId"},
		{"two organizations", []string{org, org + org}, Duplicate, "notifications"},
		{"two organizations in different case", []string{org, org + "<organizationId/>"}, Duplicate, "notifications"},
		{"null organization", []string{org, `<OrganizationId xsi:nil="true"/>`}, WrongNil, "OrganizationId"},
		{"null URL", []string{org, org + `<EnterpriseUrl xsi:nil="true"/>`}, WrongNil, "EnterpriseUrl"},
		{"wrong check characters of the organization", []string{"00D000000000001EAA", "00D000000000001AAA"}, WrongID, "OrganizationId"},
		{"lower-case organization", []string{"00D000000000001EAA", "00d000000000001EAA"}, WrongID, "OrganizationId"},
		{"not an organization", []string{"00D000000000001EAA", "005000000000001AAA"}, WrongOrg, "OrganizationId"},
		{"id of 16 characters", []string{"00D000000000001EAA", "00D000000000001E"}, WrongID, "OrganizationId"},
		{"id with blanks", []string{"00D000000000001EAA", " 00D000000000001 "}, WrongID, "OrganizationId"},
		{"id with other characters", []string{"04k000000000001AAA", "04k00000000000é"}, WrongID, "ActionId"},
		{"wrong check characters of a notification", []string{"04l000000000001AAA", "04l000000000001AAB"}, WrongID, "Id"},
		{"wrong check characters of a record", []string{"003000000000001AAA", "003000000000001BAA"}, WrongID, "Id"},
		{"elements in an id", []string{"00D000000000001EAA", "00D000000000001EAA<a/>"}, Nested, "OrganizationId"},
		{"unknown element", []string{org, org + "<Surprise>" + secret + "</Surprise>"}, Unexpected, "notifications"},
		{"text between elements", []string{org, org + secret}, StrayText, "notifications"},
		{"CDATA between elements", []string{org, org + "<![CDATA[" + secret + "]]>"}, StrayText, "notifications"},
		{"a session id that is null and not", []string{`<SessionId xsi:nil="true"/>`, `<SessionId xsi:nil="true">` + secret + `</SessionId>`}, WrongNil, "SessionId"},
		{"null neither true nor false", []string{`xsi:nil="true"`, `xsi:nil="` + secret + `"`}, WrongNil, "SessionId"},

		{"unknown element in a notification", []string{noteOpen, noteOpen + "<Surprise/>"}, Unexpected, "Notification"},
		{"no record", []string{"<sObject", "<!--", "</sObject>", "-->", ` xsi:type="sf:Contact"`, ""}, Missing, "sObject"},
		{"two records", []string{object, object + "<sObject/>"}, Duplicate, "Notification"},
		{"the same notification twice", []string{"</notifications>", `<Notification><Id>04l000000000001AAA</Id><sObject xsi:type="sf:Lead" xmlns:sf="` + nsObject + `"><sf:Id>00Q000000000001EAA</sf:Id></sObject></Notification></notifications>`}, Duplicate, "Notification"},
		{"no type", []string{` xsi:type="sf:Contact"`, ""}, WrongType, "sObject"},
		{"type without the namespace of types", []string{"xsi:type", "type"}, WrongType, "sObject"},
		{"type of no declared prefix", []string{`"sf:Contact"`, `"q:Contact"`}, WrongType, "sObject"},
		{"type of another namespace", []string{`"sf:Contact"`, `"xsd:Contact"`}, WrongType, "sObject"},
		{"type of the default namespace", []string{`"sf:Contact"`, `"Contact"`}, WrongType, "sObject"},
		{"type with an empty prefix", []string{`"sf:Contact"`, `":Contact"`}, WrongType, "sObject"},
		{"type that is no name", []string{`"sf:Contact"`, `"sf:Con tact"`}, WrongType, "sObject"},
		{"null record", []string{` xsi:type="sf:Contact"`, ` xsi:nil="true" xsi:type="sf:Contact"`}, WrongNil, "sObject"},
		{"no record id", []string{"<sf:Id>003000000000001AAA</sf:Id>", ""}, Missing, "Id"},
		{"null record id", []string{"<sf:Id>003000000000001AAA</sf:Id>", `<sf:Id xsi:nil="true"/>`}, WrongNil, "Id"},
		{"two record ids", []string{"<sf:LastName>", "<sf:Id>003000000000001AAA</sf:Id><sf:LastName>"}, Duplicate, "sObject"},
		{"field twice", []string{phone, phone + phone}, Duplicate, "sObject"},
		{"field twice in different case", []string{phone, phone + "<sf:mobilephone/>"}, Duplicate, "sObject"},
		{"field twice, once null", []string{phone, phone + `<sf:MobilePhone xsi:nil="true"/>`}, Duplicate, "sObject"},
		{"field with a value and to be nulled", []string{phone, "<sf:fieldsToNull>MobilePhone</sf:fieldsToNull>" + phone}, Duplicate, "sObject"},
		{"field to be nulled that is no name", []string{phone, "<sf:fieldsToNull>" + secret + "</sf:fieldsToNull>"}, WrongName, "sObject"},
		{"field of another namespace", []string{phone, "<MobilePhone/>"}, WrongNamespace, "sObject"},
		{"field that is no name", []string{phone, "<sf:Mobile-Phone/>"}, WrongName, "sObject"},
		{"field with an endless name", []string{phone, "<sf:" + strings.Repeat("a", maxName+1) + "/>"}, WrongName, "sObject"},
		{"null field with a value", []string{"<sf:MobilePhone>", `<sf:MobilePhone xsi:nil="true">`}, WrongNil, "sObject"},
		{"null field with parts", []string{phone, `<sf:MailingAddress xsi:nil="true"><sf:city/></sf:MailingAddress>`}, WrongNil, "sObject"},
		{"text beside parts", []string{phone, "<sf:MailingAddress>" + secret + "<sf:city/></sf:MailingAddress>"}, StrayText, "sObject"},
		{"a part twice", []string{phone, "<sf:MailingAddress><sf:city/><sf:City/></sf:MailingAddress>"}, Duplicate, "sObject"},
		{"parts of parts", []string{phone, "<sf:MailingAddress><sf:city><sf:a/></sf:city></sf:MailingAddress>"}, Nested, "sObject"},
		{"a part of another namespace", []string{phone, "<sf:MailingAddress><city/></sf:MailingAddress>"}, WrongNamespace, "sObject"},
		{"text in a record", []string{phone, secret}, StrayText, "sObject"},
	}
	base := edit(t, sample(t), "(500) 555-0006", secret)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wantError(t, []byte(edit(t, base, test.edit...)), Limits{}, test.reason, test.element)
		})
	}
}

func TestBodiesThatAreSomethingElse(t *testing.T) {
	utf16Bytes := func(order binary.AppendByteOrder, mark string) []byte {
		var b []byte
		for _, u := range utf16.Encode([]rune(mark + sample(t))) {
			b = order.AppendUint16(b, u)
		}
		return b
	}
	nested := "<e:Envelope xmlns:e='" + nsSOAP + "'><e:Header>" + strings.Repeat("<a>", 100_000)
	tests := []struct {
		name    string
		body    []byte
		reason  Reason
		element string
	}{
		{"nothing", nil, Empty, ""},
		{"white space", []byte(" \r\n\t"), Empty, ""},
		{"a byte order mark alone", []byte("\ufeff"), Empty, ""},
		{"a comment alone", []byte("<!-- -->"), NotSOAP, ""},
		{"an XML declaration alone", []byte(`<?xml version="1.0"?>`), NotSOAP, ""},
		{"HTML 5", []byte("<!DOCTYPE html><html><body><p>Hello<br></body></html>"), Directive, ""},
		{"HTML", []byte("<html><body><p>Hello<br></body></html>"), NotSOAP, ""},
		{"JSON", []byte(`{"phone":"` + secret + `"}`), NotSOAP, ""},
		{"a form", []byte("From=%2B1" + secret + "&Body=STOP"), Malformed, ""},
		{"gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), NotUTF8, ""},
		{"UTF-16, little-endian", utf16Bytes(binary.LittleEndian, "\ufeff"), NotUTF8, ""},
		{"UTF-16, big-endian", utf16Bytes(binary.BigEndian, "\ufeff"), NotUTF8, ""},
		{"UTF-16 without a mark", utf16Bytes(binary.LittleEndian, ""), NotUTF8, ""},
		{"our own acknowledgement", Ack(true), Unexpected, "Body"},
		{"nested elements", []byte(strings.Repeat("<a>", 100_000)), NotSOAP, ""},
		{"nested elements in a header", []byte(nested), TooDeep, ""},
		{"two million nested elements", bytes.Repeat([]byte("<nest>"), 2_400_000), TooLarge, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			wantError(t, test.body, Limits{}, test.reason, test.element)
		})
	}
}

func TestNoPrefixOfTheSampleIsAMessage(t *testing.T) {
	whole := strings.TrimSpace(sample(t))
	for n := range len(whole) {
		if m, err := Parse([]byte(whole[:n]), Limits{}); err == nil {
			t.Fatalf("the first %d of %d bytes were read as %v", n, len(whole), m)
		}
	}
}

func TestLimitsAreExact(t *testing.T) {
	s := []byte(sample(t))
	if _, err := Parse(s, Limits{Bytes: len(s), Depth: 6}); err != nil {
		t.Errorf("as large and as deep as allowed: %v", err)
	}
	wantError(t, s, Limits{Bytes: len(s) - 1}, TooLarge, "")
	wantError(t, s, Limits{Depth: 5}, TooDeep, "")
	pad := func(n int) []byte { return append(bytes.Clone(s), bytes.Repeat([]byte(" "), n-len(s))...) }
	if _, err := Parse(pad(1<<20), Limits{}); err != nil {
		t.Errorf("1 MiB: %v", err)
	}
	wantError(t, pad(1<<20+1), Limits{}, TooLarge, "")
}

// The work of refusing a huge body must not grow with it.
func TestAHugeBodyIsRefusedUnread(t *testing.T) {
	huge := bytes.Repeat([]byte("<nest>"), 2_400_000)
	if n := testing.AllocsPerRun(10, func() { _, _ = Parse(huge, Limits{}) }); n > 10 {
		t.Errorf("%v allocations", n)
	}
}

func TestParseLeavesTheBodyAlone(t *testing.T) {
	body := []byte(sample(t))
	m, err := Parse(body, Limits{})
	if err != nil || string(body) != sample(t) {
		t.Fatalf("error %v, or the body was changed", err)
	}
	clear(body)
	if !reflect.DeepEqual(m, sampleMessage()) {
		t.Error("the message shares memory with the body")
	}
}

func TestAcknowledgement(t *testing.T) {
	const want = `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body><notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack></notificationsResponse></soapenv:Body></soapenv:Envelope>
`
	if got := string(Ack(true)); got != want {
		t.Errorf("got %s", got)
	}
	if got := string(Ack(false)); got != strings.Replace(want, "true", "false", 1) {
		t.Errorf("got %s", got)
	}
}

func TestFaults(t *testing.T) {
	tests := []struct{ code, text, wantCode, wantText string }{
		{"Client", "not an id", "Client", "not an id"},
		{"Server", "", "Server", ""},
		{"VersionMismatch", "x", "VersionMismatch", "x"},
		{"MustUnderstand", "x", "MustUnderstand", "x"},
		{"Client.Authentication", "x", "Client.Authentication", "x"},
		{"Client.", "x", "Server", "x"},
		{"Client.a b", "x", "Server", "x"},
		{"", "x", "Server", "x"},
		{"</faultcode>", "</faultstring><Ack>true</Ack> & \xff \x00", "Server", "</faultstring><Ack>true</Ack> & \ufffd \ufffd"},
	}
	for _, test := range tests {
		var got struct {
			XMLName xml.Name `xml:"http://schemas.xmlsoap.org/soap/envelope/ Envelope"`
			Code    string   `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body>Fault>faultcode"`
			Text    string   `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body>Fault>faultstring"`
		}
		b := Fault(test.code, test.text)
		if bytes.Contains(b, []byte("<Ack>")) {
			t.Errorf("%q: an acknowledgement in a fault", test.text)
		}
		b = bytes.ReplaceAll(b, []byte("<fault"), []byte(`<soapenv:fault`)) // Unmarshal wants one namespace for the whole path
		b = bytes.ReplaceAll(b, []byte("</fault"), []byte(`</soapenv:fault`))
		if err := xml.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: %v in %s", test.code, err, b)
		}
		if got.Code != "soapenv:"+test.wantCode || got.Text != test.wantText {
			t.Errorf("%q, %q: got %q, %q", test.code, test.text, got.Code, got.Text)
		}
	}
}

func TestFaultCodesOfErrors(t *testing.T) {
	for reason, want := range map[Reason]string{NotSOAP11: "VersionMismatch", MustUnderstand: "MustUnderstand", WrongID: "Client"} {
		if got := (&Error{Reason: reason}).FaultCode(); got != want {
			t.Errorf("%s: got %s, want %s", reason, got, want)
		}
	}
}

// The sample is laid out as Render does, so that the two cannot drift apart.
func TestRenderWritesTheSample(t *testing.T) {
	want := edit(t, sample(t), "&apos;", "&#39;", "&#xF8;", "ø")
	if got := string(Render(sampleMessage())); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNeitherLogNorPrintShowsValues(t *testing.T) {
	m := sampleMessage()
	var log bytes.Buffer
	// Without the time, which may have the digits that are looked for.
	o := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, o), slog.NewJSONHandler(&log, o)} {
		slog.New(h).Info("received", "message", m, "notification", m.Notifications[0])
	}
	fmt.Fprintf(&log, "%v %+v %s", m, m, m.Notifications[0])
	if s := log.String(); strings.Contains(s, "555") || strings.Contains(s, "Hara") || !strings.Contains(s, "04l000000000001AAA") {
		t.Errorf("printed: %s", s)
	}
}

func FuzzParse(f *testing.F) {
	s := sample(f)
	f.Add([]byte(s))
	f.Add([]byte(strings.ReplaceAll(s, "(500) 555-0006", "<![CDATA[<]]>&#13;\r\n")))
	f.Add([]byte(strings.ReplaceAll(s, "<sf:LastName>", "<sf:Address><sf:city>a</sf:city></sf:Address><sf:Fax xsi:nil='1'/><sf:fieldsToNull>Phone</sf:fieldsToNull><sf:LastName>")))
	f.Add([]byte(strings.ReplaceAll(s, "<soapenv:Body>", "<soapenv:Header><a b='c'/></soapenv:Header><soapenv:Body>")))
	f.Add(Render(many(3)))
	f.Add(Ack(true))
	f.Add([]byte("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := Parse(body, Limits{})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > int64(len(body)) {
				t.Fatalf("got %#v", err)
			}
			return
		}
		if len(m.OrganizationID) != 18 || len(m.Notifications) == 0 || len(m.Notifications) > 100 {
			t.Fatalf("accepted: %#v", m)
		}
		again, err := Parse(Render(m), Limits{Bytes: 64 << 20})
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%v\nread     %#v\nrendered %s", err, m, Render(m))
		}
	})
}

// The bodies are as large as allowed and shaped to find what is not linear; all should cost about the same.
func BenchmarkParse(b *testing.B) {
	s := sample(b)
	fill := func(where string, f func(i int) string) []byte {
		var x strings.Builder
		for i := 0; x.Len() < 1<<20-len(s)-200; i++ {
			x.WriteString(f(i))
		}
		return []byte(strings.Replace(s, where, x.String()+where, 1))
	}
	for _, bench := range []struct {
		name string
		body []byte
	}{
		{"usual", []byte(s)},
		{"hundred", Render(many(100))},
		{"fields", fill("<sf:LastName>", func(i int) string { return fmt.Sprintf("<sf:a%d/>", i) })},
		{"comments", fill("<sf:LastName>", func(int) string { return "<!---->" })},
		{"texts", fill("O&apos;", func(int) string { return "a<!---->" })},
		{"prefixes", fill(">\n     <sf:Id>", func(i int) string { return fmt.Sprintf(" xmlns:a%d='b'", i) })},
		{"attributes", fill(">\n     <sf:Id>", func(i int) string { return fmt.Sprintf(" a%d=''", i) })},
		{"scopes", fill("<sf:LastName>", func(i int) string { return fmt.Sprintf("<sf:a%d xmlns:b='c'/>", i) })},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.body)))
			for b.Loop() {
				if _, err := Parse(bench.body, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
