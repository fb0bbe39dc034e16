package config

import (
	"fmt"
	"reflect"
)

// Section is the part of the file that configures one SMS account or one CRM. Name and Type are read; the driver's own
// keys wait for [Section.Decode]. It prints as its place in the file, never with its content.
type Section struct {
	Name string // unique among the accounts, or among the CRMs; [a-z0-9-]+, as it stands in URLs
	Type string // which driver: the key "provider" of an account, "type" of a CRM

	path   string // as in sms[0]
	node   *node
	src    *source
	common []string // keys that are not the driver's
}

// String returns the section's place in the file, as in sms[0].
func (s Section) String() string { return s.path }

// Decode fills the driver's Config, a pointer to a struct with yaml tags, and returns what is wrong, in the order of the file.
// What the struct holds already is the default of keys that the file does not have. Unknown keys are problems;
// the keys that heed itself has read (name; provider and replies, or type) are left out.
//
// Field types may be strings, booleans, numbers, [time.Duration], [Secret], encoding.TextUnmarshaler, structs (also
// inline), pointers, slices and maps of these, and whatever has a method UnmarshalYAML(func(any) error) error; that
// method may call its argument several times, for example with a *string and then with a pointer to a struct.
// Which keys are required and what they may hold is for the driver to check and to report with [Section.Problem].
func (s Section) Decode(into any) Problems {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: Section.Decode wants a pointer to a struct, got %T", into))
	}
	if s.node == nil || s.node.kind != mapping {
		return nil // Parse has reported it
	}
	d := &decoder{src: s.src, section: s.node, common: s.common}
	d.decode(s.node, s.path, v.Elem())
	d.problems.Sort()
	return d.problems
}

// Problem makes an error of this section for a driver's own check, with the place in the file. field is a path
// within the section, as in "auth_token" or "objects[1].phones"; "" stands for the section itself. Where the file does
// not have that field, the place is that of whatever encloses it.
func (s Section) Problem(field, reason, hint string) Problem {
	p := Problem{Field: s.path, Severity: Error}
	switch {
	case field == "":
	case field[0] == '[':
		p.Field += field
	default:
		p.Field += "." + field
	}
	if s.src == nil { // a Section made by hand
		p.Reason, p.Hint = reason, hint
		return p
	}
	p.File, p.Reason, p.Hint = s.src.file, s.src.scrub(reason), s.src.scrub(hint)
	p.Line, p.Column = s.node.find(field)
	return p
}

// decodeNode reads a CRM.
func (s *Section) decodeNode(d *decoder, n *node, path string) {
	s.read(d, n, path, "type", "name", "type")
}

// decodeNode reads an SMS account.
func (a *Account) decodeNode(d *decoder, n *node, path string) {
	a.Replies = RepliesProvider
	if a.Section.read(d, n, path, "provider", "name", "provider", "replies"); n.kind != mapping {
		return
	}
	if v := n.get("replies"); v != nil {
		d.decode(v, path+".replies", reflect.ValueOf(&a.Replies).Elem())
	}
}

func (s *Section) read(d *decoder, n *node, path, typeKey string, common ...string) {
	s.path, s.node, s.src, s.common = path, n, d.src, common
	if n.broken || n.kind == null || !d.want(n, path, n.kind == mapping, "a mapping (key: value)") {
		return
	}
	for key, into := range map[string]*string{"name": &s.Name, typeKey: &s.Type} {
		if v := n.get(key); v != nil {
			d.decode(v, path+"."+key, reflect.ValueOf(into).Elem())
		}
	}
}
