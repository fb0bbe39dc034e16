package outbound

import (
	"bytes"
	"strings"
)

// Parse reads one outbound message: the body of the request, which it neither keeps nor changes. Its errors are *Error.
//
// It is strict where a mistake could make one record look like another, or hide one: namespaces, required elements,
// ids, duplicates and the shape of the document must be exactly as documented, and an element that is not documented
// is refused. Prefixes, the order of elements, comments and foreign attributes are the sender's business. SOAP headers
// that need not be understood are skipped. The cost is linear in the size of the body, and a body above limits.Bytes
// is refused unread.
func Parse(body []byte, limits Limits) (Message, error) {
	limits = limits.orDefault()
	r, err := newReader(body, limits)
	if err != nil {
		return Message{}, err
	}
	p := &parser{reader: r, limits: limits}
	m, err := p.envelope()
	if err != nil {
		return Message{}, err
	}
	if _, err := p.next(); err != nil { // past the root, the reader lets only eof through
		return Message{}, err
	}
	return m, nil
}

type parser struct {
	*reader
	limits Limits
}

func (p *parser) envelope() (m Message, err error) {
	root, err := p.next() // a start: outside of the root, the reader lets nothing else through
	if err != nil {
		return m, err
	}
	switch name := root.element.Name; {
	case name.Local != "Envelope":
		return m, p.fail(NotSOAP, "")
	case name.Space != nsSOAP:
		return m, p.fail(NotSOAP11, "Envelope")
	}
	seen := make(names)
	err = p.children("Envelope", nsSOAP, seen, func(el element) error {
		switch {
		case el.Local == "Header" && !seen["body"]:
			return p.header()
		case el.Local == "Body":
			m, err = p.body()
			return err
		}
		return p.fail(Unexpected, "Envelope")
	})
	if err != nil {
		return Message{}, err
	}
	return m, p.require(seen, "Body")
}

// header skips the entries of a SOAP header. Salesforce sends none; a gateway on the way may.
func (p *parser) header() error {
	return p.each("Header", func(el element) error {
		if must, _ := el.attr(nsSOAP, "mustUnderstand"); must != "" && must != "0" {
			return p.fail(MustUnderstand, "Header")
		}
		return p.skip()
	})
}

func (p *parser) body() (m Message, err error) {
	seen := make(names)
	err = p.children("Body", nsOutbound, seen, func(el element) error {
		if el.Local != "notifications" {
			return p.fail(Unexpected, "Body")
		}
		m, err = p.notifications()
		return err
	})
	if err != nil {
		return Message{}, err
	}
	return m, p.require(seen, "notifications")
}

func (p *parser) notifications() (m Message, err error) {
	ids := make(map[string]bool)
	seen := make(names)
	err = p.children("notifications", nsOutbound, seen, func(el element) (err error) {
		switch el.Local {
		case "OrganizationId":
			m.OrganizationID, err = p.id(el)
			if err == nil && !strings.HasPrefix(m.OrganizationID, "00D") {
				err = p.fail(WrongOrg, "OrganizationId")
			}
		case "ActionId":
			m.ActionID, err = p.id(el)
		case "SessionId":
			_, _, err = p.value(el, el.Local) // may be null, and is nobody's business
		case "EnterpriseUrl":
			m.EnterpriseURL, err = p.required(el)
		case "PartnerUrl":
			m.PartnerURL, err = p.required(el)
		case "Notification":
			if len(m.Notifications) == p.limits.Notifications {
				return p.fail(TooMany, "Notification")
			}
			var n Notification
			if n, err = p.notification(); err != nil {
				return err
			}
			if ids[n.ID] {
				// Receivers drop what they have seen before, so the second one would be lost.
				return p.fail(Duplicate, "Notification")
			}
			ids[n.ID] = true
			m.Notifications = append(m.Notifications, n)
		default:
			err = p.fail(Unexpected, "notifications")
		}
		return err
	})
	if err != nil {
		return Message{}, err
	}
	return m, p.require(seen, "OrganizationId", "ActionId", "EnterpriseUrl", "PartnerUrl", "Notification")
}

func (p *parser) notification() (n Notification, err error) {
	seen := make(names)
	err = p.children("Notification", nsOutbound, seen, func(el element) (err error) {
		switch el.Local {
		case "Id":
			n.ID, err = p.id(el)
		case "sObject":
			err = p.record(el, &n)
		default:
			err = p.fail(Unexpected, "Notification")
		}
		return err
	})
	if err != nil {
		return Notification{}, err
	}
	return n, p.require(seen, "Id", "sObject")
}

// record reads an sObject: its type, its id and the chosen fields.
func (p *parser) record(el element, n *Notification) error {
	typed, _ := el.attr(nsInstance, "type")
	name, ok := p.qname(typed)
	if !ok || name.Space != nsObject || !apiName(name.Local) {
		return p.fail(WrongType, "sObject")
	}
	if isNull, err := p.null(el, "sObject"); err != nil {
		return err
	} else if isNull {
		return p.fail(WrongNil, "sObject")
	}
	n.Object = name.Local
	n.Fields = make(map[string]string)

	seen := make(names) // null fields too, which Fields does not show
	err := p.each("sObject", func(el element) (err error) {
		field := el.Local
		switch {
		case el.Space != nsObject:
			return p.fail(WrongNamespace, "sObject")
		case !apiName(field):
			return p.fail(WrongName, "sObject")
		case field == "fieldsToNull":
			// Part of the type and never sent, they say: the name of one more null field.
			null, isNull, err := p.value(el, "sObject")
			switch {
			case err != nil || isNull:
				return err
			case !apiName(null):
				return p.fail(WrongName, "sObject")
			case !seen.add(null):
				return p.fail(Duplicate, "sObject")
			}
			return nil
		case !seen.add(field):
			return p.fail(Duplicate, "sObject")
		case field == "Id":
			n.RecordID, err = p.id(el)
			return err
		}
		return p.field(el, n.Fields)
	})
	if err != nil {
		return err
	}
	return p.require(seen, "Id")
}

// field reads one field into fields. A compound one (an address, a location) has its parts as elements, and becomes
// one entry for each part; parts of parts do not exist.
func (p *parser) field(el element, fields map[string]string) error {
	isNull, err := p.null(el, "sObject")
	if err != nil {
		return err
	}
	seen := make(names)
	var value []byte
	for {
		e, err := p.next()
		if err != nil {
			return err
		}
		switch e.kind {
		case text:
			value = append(value, e.text...)
		case start:
			part := e.element
			switch {
			case part.Space != nsObject && part.Space != nsEnterprise:
				return p.fail(WrongNamespace, "sObject")
			case !apiName(part.Local):
				return p.fail(WrongName, "sObject")
			case !seen.add(part.Local):
				return p.fail(Duplicate, "sObject")
			}
			v, isNull, err := p.value(part, "sObject")
			if err != nil {
				return err
			}
			if !isNull {
				fields[el.Local+"."+part.Local] = v
			}
		default:
			compound := len(seen) > 0
			switch {
			case compound && !blank(value):
				return p.fail(StrayText, "sObject")
			case isNull && (compound || !blank(value)):
				return p.fail(WrongNil, "sObject")
			case !isNull && !compound:
				fields[el.Local] = string(value)
			}
			return nil
		}
	}
}

// each calls f for each child of the element that was just started, and returns after its end. f must read up to the
// child's end. within is the element's name in errors.
func (p *parser) each(within string, f func(el element) error) error {
	for {
		e, err := p.next()
		if err != nil {
			return err
		}
		switch e.kind {
		case start:
			if err := f(e.element); err != nil {
				return err
			}
		case text:
			if !blank(e.text) {
				return p.fail(StrayText, within)
			}
		default:
			return nil
		}
	}
}

// children is each for children of one namespace, which it notes in seen, and of which only Notification may repeat.
func (p *parser) children(within, namespace string, seen names, f func(el element) error) error {
	return p.each(within, func(el element) error {
		if el.Space != namespace {
			return p.fail(WrongNamespace, within)
		}
		if again := seen[strings.ToLower(el.Local)]; again && el.Local != "Notification" {
			return p.fail(Duplicate, within)
		}
		if err := f(el); err != nil {
			return err
		}
		seen.add(el.Local)
		return nil
	})
}

// require fails for the first name that is not in seen.
func (p *parser) require(seen names, required ...string) error {
	for _, name := range required {
		if !seen[strings.ToLower(name)] {
			return p.fail(Missing, name)
		}
	}
	return nil
}

// value reads the text of the element that was just started, up to its end. within is the element's name in errors.
func (p *parser) value(el element, within string) (value string, isNull bool, err error) {
	if isNull, err = p.null(el, within); err != nil {
		return "", false, err
	}
	var b []byte
	for {
		e, err := p.next()
		if err != nil {
			return "", false, err
		}
		switch e.kind {
		case start:
			return "", false, p.fail(Nested, within)
		case text:
			b = append(b, e.text...)
		default:
			if isNull && !blank(b) {
				return "", false, p.fail(WrongNil, within)
			}
			return string(b), isNull, nil
		}
	}
}

// required is value for a documented element that cannot be null.
func (p *parser) required(el element) (string, error) {
	v, isNull, err := p.value(el, el.Local)
	if err == nil && isNull {
		err = p.fail(WrongNil, el.Local)
	}
	return v, err
}

func (p *parser) id(el element) (string, error) {
	v, err := p.required(el)
	if err != nil {
		return "", err
	}
	id, ok := id18(v)
	if !ok {
		return "", p.fail(WrongID, el.Local)
	}
	return id, nil
}

func (p *parser) null(el element, within string) (bool, error) {
	v, ok := el.attr(nsInstance, "nil")
	switch strings.Trim(v, space) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	if ok {
		return false, p.fail(WrongNil, within)
	}
	return false, nil
}

func (p *parser) skip() error {
	for depth := 1; depth > 0; {
		e, err := p.next()
		if err != nil {
			return err
		}
		switch e.kind {
		case start:
			depth++
		case end:
			depth--
		}
	}
	return nil
}

// names is a set of API names, which ignore case.
type names map[string]bool

// add returns whether name is new.
func (n names) add(name string) bool {
	name = strings.ToLower(name)
	if n[name] {
		return false
	}
	n[name] = true
	return true
}

func blank(b []byte) bool { return len(bytes.Trim(b, space)) == 0 }

// maxName bounds API names. The longest are 40 characters, a package's prefix of 17 and a suffix.
const maxName = 128

// apiName returns whether s can be the API name of an object or a field.
func apiName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// id18 returns the 18-character form of an id of 15 or 18 characters. The last three tell, for five characters each,
// which of them are capitals, so an id that went through something that ignores case fails here.
func id18(id string) (string, bool) {
	if len(id) != 15 && len(id) != 18 {
		return "", false
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
	var check [3]byte
	for part := range check {
		capitals := 0
		for i := range 5 {
			switch c := id[part*5+i]; {
			case c >= 'A' && c <= 'Z':
				capitals |= 1 << i
			case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			default:
				return "", false
			}
		}
		check[part] = alphabet[capitals]
	}
	if len(id) == 18 && !strings.EqualFold(id[15:], string(check[:])) {
		return "", false
	}
	return id[:15] + string(check[:]), true
}
