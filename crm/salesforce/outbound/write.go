package outbound

import (
	"bytes"
	"encoding/xml"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ContentType is the media type of every document of this package, in both directions.
const ContentType = "text/xml; charset=utf-8"

// Ack returns the answer to a message, to be sent with status 200. True tells Salesforce that everything in the message
// is safely with the receiver and need not be sent again; false, that it must be.
func Ack(ok bool) []byte {
	return envelope(`<notificationsResponse xmlns="` + nsOutbound + `"><Ack>` + strconv.FormatBool(ok) + `</Ack></notificationsResponse>`)
}

// Fault returns a SOAP 1.1 fault, to be sent with status 500, which is what SOAP's HTTP binding asks for. Salesforce
// takes it as "not delivered", shows text to the admin among the failed outbound messages, and tries again.
//
// code is VersionMismatch, MustUnderstand, Client or Server, or one of these with details after a dot
// (Client.Authentication); anything else becomes Server. text may be any text: it is escaped, but not shortened.
func Fault(code, text string) []byte {
	switch class, detail, dotted := strings.Cut(code, "."); {
	case class != "VersionMismatch" && class != "MustUnderstand" && class != "Client" && class != "Server",
		dotted && !apiName(strings.ReplaceAll(detail, ".", "_")):
		code = "Server"
	}
	return envelope(`<soapenv:Fault><faultcode>soapenv:` + code + `</faultcode><faultstring>` + escape(text) + `</faultstring></soapenv:Fault>`)
}

const xmlDeclaration = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

func envelope(body string) []byte {
	return []byte(xmlDeclaration + `<soapenv:Envelope xmlns:soapenv="` + nsSOAP + `"><soapenv:Body>` + body + `</soapenv:Body></soapenv:Envelope>` + "\n")
}

// Render writes m as Salesforce does: the same elements in the same order under the same prefixes, the empty session
// id, the record's id before its fields, these in alphabetical order, and fields with a dot in their name as parts of a
// compound field. It checks nothing, so that it can write what [Parse] must refuse; values are escaped, names are not.
func Render(m Message) []byte {
	var b bytes.Buffer
	leaf := func(name, value string) { b.WriteString("<" + name + ">" + escape(value) + "</" + name + ">") }

	b.WriteString(xmlDeclaration)
	b.WriteString(`<soapenv:Envelope xmlns:soapenv="` + nsSOAP + `" xmlns:xsd="` + nsSchema + `" xmlns:xsi="` + nsInstance + `">` + "\n")
	b.WriteString(` <soapenv:Body>` + "\n" + `  <notifications xmlns="` + nsOutbound + `">`)
	line := func(indent int, name, value string) {
		b.WriteString("\n" + strings.Repeat(" ", indent))
		leaf(name, value)
	}
	line(3, "OrganizationId", m.OrganizationID)
	line(3, "ActionId", m.ActionID)
	b.WriteString("\n   " + `<SessionId xsi:nil="true"/>`)
	line(3, "EnterpriseUrl", m.EnterpriseURL)
	line(3, "PartnerUrl", m.PartnerURL)
	for _, n := range m.Notifications {
		b.WriteString("\n   <Notification>")
		line(4, "Id", n.ID)
		b.WriteString("\n    " + `<sObject xsi:type="sf:` + n.Object + `" xmlns:sf="` + nsObject + `">`)
		line(5, "sf:Id", n.RecordID)
		names := slices.Sorted(maps.Keys(n.Fields))
		for i := 0; i < len(names); i++ {
			compound, _, ok := strings.Cut(names[i], ".")
			if !ok {
				line(5, "sf:"+names[i], n.Fields[names[i]])
				continue
			}
			b.WriteString("\n     <sf:" + compound + ">")
			for ; i < len(names) && strings.HasPrefix(names[i], compound+"."); i++ {
				leaf("sf:"+names[i][len(compound)+1:], n.Fields[names[i]])
			}
			i--
			b.WriteString("</sf:" + compound + ">")
		}
		b.WriteString("\n    </sObject>\n   </Notification>")
	}
	b.WriteString("\n  </notifications>\n </soapenv:Body>\n</soapenv:Envelope>\n")
	return b.Bytes()
}

func escape(s string) string {
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		panic(err) // a Buffer takes everything
	}
	return b.String()
}
