package outbound

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
)

// reader gives the elements and texts of one XML document with resolved namespaces, and refuses what encoding/xml lets
// through: undeclared prefixes, repeated attributes, document types, processing instructions, a second root.
//
// It works on raw tokens and keeps the scope of prefixes itself, since the decoder keeps its own secret and a prefix
// inside an attribute's value (xsi:type="sf:Contact") cannot be resolved without.
type reader struct {
	dec   *xml.Decoder
	body  []byte
	base  int64 // length of the byte order mark
	at    int64 // where the current token starts
	depth int   // allowed

	scope map[string]string // prefix to namespace, as of the innermost open element
	undo  []binding         // what to restore in scope when elements close
	open  []openElement
	root  bool // the root element was seen
}

type binding struct {
	prefix, namespace string
	bound             bool
}

type openElement struct {
	raw  xml.Name // as written
	undo int      // length of reader.undo before it
}

// element is a start tag. Attributes have resolved names, and namespace declarations are left out.
type element struct {
	xml.Name
	attrs []xml.Attr
}

// attr returns the value of an attribute, and whether there is one.
func (e element) attr(space, local string) (string, bool) {
	for _, a := range e.attrs {
		if a.Name.Space == space && a.Name.Local == local {
			return a.Value, true
		}
	}
	return "", false
}

type kind int

const (
	start kind = iota // event.element
	text              // event.text; a text with a comment or CDATA section inside comes in pieces
	end
	eof
)

type event struct {
	kind    kind
	element element
	text    []byte // valid until the next event
}

var errNotUTF8 = errors.New("declared encoding is not UTF-8")

// newReader returns a reader of body, which must not change.
func newReader(body []byte, limits Limits) (*reader, error) {
	r := &reader{body: body, depth: limits.Depth}
	r.scope = map[string]string{"": "", "xml": "http://www.w3.org/XML/1998/namespace"}
	if len(body) > limits.Bytes {
		r.at = int64(limits.Bytes)
		return nil, r.fail(TooLarge, "")
	}
	if bytes.HasPrefix(body, []byte("\xef\xbb\xbf")) {
		r.base = 3
		r.at = 3
	}
	rest := body[r.base:]
	if len(bytes.Trim(rest, space)) == 0 {
		return nil, r.fail(Empty, "")
	}
	if !utf8.Valid(rest) || bytes.IndexByte(rest, 0) >= 0 { // zero bytes: UTF-16 of plain English is valid UTF-8 otherwise
		return nil, r.fail(NotUTF8, "")
	}
	r.dec = xml.NewDecoder(bytes.NewReader(rest))
	r.dec.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, errNotUTF8 }
	return r, nil
}

// fail returns an Error at the current token.
func (r *reader) fail(reason Reason, element string) error {
	return &Error{Reason: reason, Element: element, Offset: r.at}
}

const space = " \t\r\n" // what XML calls white space

// declaration is the XML declaration without its brackets.
var declaration = regexp.MustCompile(`^version\s*=\s*("1\.0"|'1\.0')` +
	`(\s+encoding\s*=\s*("(?i:utf-8)"|'(?i:utf-8)'))?` +
	`(\s+standalone\s*=\s*("(yes|no)"|'(yes|no)'))?\s*$`)

// next returns the next start, text or end, or eof after a complete document. Its errors are *Error.
func (r *reader) next() (event, error) {
	for {
		r.at = r.base + r.dec.InputOffset()
		token, err := r.dec.RawToken()
		switch t := token.(type) {
		case xml.StartElement:
			return r.start(t)
		case xml.EndElement:
			return r.end(t)
		case xml.CharData:
			if len(r.open) > 0 {
				return event{kind: text, text: t}, nil
			}
			// Outside of the root even an encoded blank is content, so look at what was written.
			written := r.body[r.at : r.base+r.dec.InputOffset()]
			switch {
			case len(bytes.Trim(written, space)) == 0:
			case r.root:
				return event{}, r.fail(Trailing, "")
			default:
				return event{}, r.fail(NotSOAP, "")
			}
		case xml.Comment:
		case xml.ProcInst:
			if t.Target != "xml" || r.at != r.base {
				return event{}, r.fail(Directive, "")
			}
			if !declaration.Match(t.Inst) {
				return event{}, r.fail(Malformed, "")
			}
		case xml.Directive:
			return event{}, r.fail(Directive, "")
		default:
			switch {
			case errors.Is(err, errNotUTF8):
				return event{}, r.fail(NotUTF8, "")
			case err != io.EOF || len(r.open) > 0:
				// The decoder's own words quote the body, so they stay here.
				r.at = r.base + r.dec.InputOffset()
				return event{}, r.fail(Malformed, "")
			case !r.root:
				return event{}, r.fail(NotSOAP, "")
			}
			return event{kind: eof}, nil
		}
	}
}

func (r *reader) start(t xml.StartElement) (event, error) {
	if len(r.open) == 0 && r.root {
		return event{}, r.fail(Trailing, "")
	}
	if len(r.open) >= r.depth {
		return event{}, r.fail(TooDeep, "")
	}
	r.root = true
	r.open = append(r.open, openElement{raw: t.Name, undo: len(r.undo)})

	el := element{attrs: t.Attr[:0]}
	var declared map[string]bool
	for _, a := range t.Attr {
		var prefix string
		switch {
		case a.Name.Space == "" && a.Name.Local == "xmlns":
		case a.Name.Space == "xmlns":
			prefix = a.Name.Local
			if prefix == "xmlns" || prefix == "xml" || a.Value == "" {
				return event{}, r.fail(Malformed, "")
			}
		default:
			el.attrs = append(el.attrs, a)
			continue
		}
		if declared[prefix] {
			return event{}, r.fail(Malformed, "")
		}
		if declared == nil {
			declared = make(map[string]bool)
		}
		declared[prefix] = true
		old, bound := r.scope[prefix]
		r.undo = append(r.undo, binding{prefix, old, bound})
		r.scope[prefix] = a.Value
	}

	var ok bool
	if el.Name, ok = r.resolve(t.Name); !ok {
		return event{}, r.fail(Malformed, "")
	}
	var seen map[xml.Name]bool
	if len(el.attrs) > 1 {
		seen = make(map[xml.Name]bool, len(el.attrs))
	}
	for i := range el.attrs {
		name := &el.attrs[i].Name
		if name.Space != "" { // the default namespace is not for attributes
			if *name, ok = r.resolve(*name); !ok {
				return event{}, r.fail(Malformed, "")
			}
		}
		if seen[*name] {
			return event{}, r.fail(Malformed, "")
		}
		if seen != nil {
			seen[*name] = true
		}
	}
	return event{kind: start, element: el}, nil
}

func (r *reader) end(t xml.EndElement) (event, error) {
	last := len(r.open) - 1
	if last < 0 || r.open[last].raw != t.Name {
		return event{}, r.fail(Malformed, "")
	}
	mark := r.open[last].undo
	for i := len(r.undo) - 1; i >= mark; i-- {
		if b := r.undo[i]; b.bound {
			r.scope[b.prefix] = b.namespace
		} else {
			delete(r.scope, b.prefix)
		}
	}
	r.undo = r.undo[:mark]
	r.open = r.open[:last]
	return event{kind: end}, nil
}

// resolve replaces a prefix by its namespace. It fails for an undeclared one, and for a name with a stray colon.
func (r *reader) resolve(name xml.Name) (xml.Name, bool) {
	namespace, ok := r.scope[name.Space]
	if !ok || strings.Contains(name.Local, ":") {
		return xml.Name{}, false
	}
	return xml.Name{Space: namespace, Local: name.Local}, true
}

// qname resolves a name in an attribute's value, as of the element that was just started.
func (r *reader) qname(value string) (xml.Name, bool) {
	prefix, local, found := strings.Cut(strings.Trim(value, space), ":")
	if !found {
		prefix, local = "", prefix
	} else if prefix == "" {
		return xml.Name{}, false
	}
	return r.resolve(xml.Name{Space: prefix, Local: local})
}
