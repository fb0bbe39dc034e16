package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Dump writes the configuration that is in effect as YAML: every key of heed's own with its value or default, and the drivers'
// keys as the file has them. A comment says where a value comes from if it is not written in the file.
//
// Secrets are "[redacted]". A value that comes from the environment is shown as the ${NAME} that the file has, since any of
// them may be a secret. Within sections a value is secret if a word of its key, or of a key around it, says so.
func (c *Config) Dump(w io.Writer) error {
	var b bytes.Buffer
	dumpValue(reflect.ValueOf(c).Elem(), c.root).write(&b, "", "")
	_, err := w.Write(b.Bytes())
	return err
}

// doc is a piece of YAML to be written.
type doc struct {
	scalar, origin string
	keys           []string // of a mapping, beside values
	values         []doc
	list           bool // values are items
}

func (o *doc) put(key string, v doc) {
	o.keys, o.values = append(o.keys, key), append(o.values, v)
}

// dumpValue describes a value of heed's own; n is what the file has for it, or nil.
func dumpValue(v reflect.Value, n *node) doc {
	o := doc{origin: "default"}
	if n != nil {
		o.origin = ""
		if len(n.refs) > 0 {
			o.origin = "from the environment"
		}
	}
	switch x := v.Interface().(type) {
	case Account:
		o := dumpSection(x.Section, "provider")
		replies := x.node.get("replies")
		o.keys = append(o.keys[:2:2], append([]string{"replies"}, o.keys[2:]...)...)
		o.values = append(o.values[:2:2], append([]doc{dumpValue(reflect.ValueOf(x.Replies), replies)}, o.values[2:]...)...)
		return o
	case Section:
		return dumpSection(x, "type")
	case Secret:
		o.scalar = strconv.Quote(redacted)
		return o
	case time.Duration:
		o.scalar = quote(x.String())
		return o
	case encoding.TextMarshaler:
		text, _ := x.MarshalText()
		o.scalar = quote(string(text))
	default:
		switch v.Kind() {
		case reflect.Struct:
			for _, f := range orderedFields(v.Type()) {
				value := n.get(f.Name)
				v := dumpValue(v.FieldByIndex(f.Index), value)
				if n.get(f.Name+fileSuffix) != nil {
					v.origin = "from a file"
				}
				o.put(f.Name, v)
			}
			return o
		case reflect.Slice:
			o.list = true
			for i := range v.Len() {
				var item *node
				if n != nil && i < len(n.items) {
					item = n.items[i]
				}
				o.values = append(o.values, dumpValue(v.Index(i), item))
			}
			return o
		case reflect.Map:
			keys := v.MapKeys()
			slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
			for _, k := range keys {
				o.put(k.String(), dumpValue(v.MapIndex(k), n.get(k.String())))
			}
			if len(keys) > 0 {
				return o
			}
			o.scalar = "{}"
		case reflect.Int:
			o.scalar = strconv.FormatInt(v.Int(), 10)
		case reflect.Float64:
			o.scalar = strconv.FormatFloat(v.Float(), 'f', -1, 64)
		case reflect.Bool:
			o.scalar = strconv.FormatBool(v.Bool())
		default:
			o.scalar = quote(v.String())
		}
	}
	if n != nil && len(n.refs) > 0 {
		o.scalar = quote(n.written)
	}
	return o
}

func dumpSection(s Section, typeKey string) doc {
	var o doc
	o.put("name", dumpValue(reflect.ValueOf(s.Name), s.node.get("name")))
	o.put(typeKey, dumpValue(reflect.ValueOf(s.Type), s.node.get(typeKey)))
	if s.node == nil {
		return o
	}
next:
	for _, e := range s.node.entries {
		for _, c := range s.common {
			if e.key == c {
				continue next
			}
		}
		o.put(e.key, dumpNode(e.value, hidden(e.key)))
	}
	return o
}

// hidden reports whether a driver's key holds a secret. A KEY_file holds a path.
func hidden(key string) bool { return secretName(key) && !strings.HasSuffix(key, fileSuffix) }

var userInfo = regexp.MustCompile(`://[^/?#\s]*@`)

// dumpNode describes a driver's value as the file has it.
func dumpNode(n *node, secret bool) doc {
	var o doc
	if len(n.refs) > 0 {
		o.origin = "from the environment"
	}
	switch {
	case n.kind == mapping:
		for _, e := range n.entries {
			o.put(e.key, dumpNode(e.value, secret || hidden(e.key)))
		}
		if len(n.entries) == 0 {
			o.scalar = "{}"
		}
	case n.kind == sequence:
		o.list = true
		for _, item := range n.items {
			o.values = append(o.values, dumpNode(item, secret))
		}
	case n.kind == null:
		o.scalar = "null"
	case secret:
		o.scalar = strconv.Quote(redacted)
	case n.kind == str:
		o.scalar = quote(userInfo.ReplaceAllString(n.written, "://"+redacted+"@"))
	default:
		o.scalar = n.text
	}
	return o
}

// write prints o. first is what stands before it on its line, indent what stands before its further lines.
func (o doc) write(b *bytes.Buffer, first, indent string) {
	comment := ""
	if o.origin != "" {
		comment = "  # " + o.origin
	}
	switch {
	case o.keys != nil:
		if strings.HasSuffix(first, ":") {
			b.WriteString(first + "\n")
			first = indent
		}
		for i, key := range o.keys {
			o.values[i].write(b, first+quote(key)+":", indent+"  ")
			first = indent
		}
	case o.list && len(o.values) > 0:
		if first != "" && !strings.HasSuffix(first, "- ") {
			b.WriteString(first + "\n")
			first = indent
		}
		for _, v := range o.values {
			v.write(b, first+"- ", indent+"  ")
			first = indent
		}
	default:
		if o.list {
			o.scalar = "[]"
		}
		if strings.HasSuffix(first, ":") {
			first += " "
		}
		b.WriteString(first + o.scalar + comment + "\n")
	}
}

var plain = regexp.MustCompile(`^[A-Za-z_./][A-Za-z0-9_./-]*$`)

// quote writes a string so that YAML reads the same string. JSON's strings are YAML's.
func quote(s string) string {
	switch strings.ToLower(s) {
	case "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan":
	default:
		if plain.MatchString(s) {
			return s
		}
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}
