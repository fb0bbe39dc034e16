package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fileSuffix makes the name of the key that names a file with the value of a secret key.
const fileSuffix = "_file"

const maxSecretBytes = 64 << 10

// decoder fills Go values from nodes and collects what is wrong. It is strict: every key must have its field.
type decoder struct {
	src      *source
	problems Problems
	section  *node    // the mapping from which common is left out
	common   []string // keys that the section's owner has read
}

// add records a problem; its texts lose every hidden value on the way.
func (d *decoder) add(p Problem) {
	p.File = d.src.file
	p.Reason, p.Hint = d.src.scrub(p.Reason), d.src.scrub(p.Hint)
	if p.Severity == "" {
		p.Severity = Error
	}
	d.problems = append(d.problems, p)
}

func (d *decoder) at(n *node, path, reason, hint string) {
	d.add(Problem{Line: n.line, Column: n.col, Field: path, Reason: reason, Hint: hint})
}

// nodeDecoder is implemented by this package's types that need the tree itself.
type nodeDecoder interface {
	decodeNode(d *decoder, n *node, path string)
}

// yamlUnmarshaler is implemented by driver types that read more than one form, such as a string or a mapping.
type yamlUnmarshaler interface {
	UnmarshalYAML(decode func(any) error) error
}

// decode sets v, which is addressable and may hold a default, from n. A value that is null or broken leaves v alone.
func (d *decoder) decode(n *node, path string, v reflect.Value) {
	if nd, ok := v.Addr().Interface().(nodeDecoder); ok {
		nd.decodeNode(d, n, path)
		return
	}
	if n.broken {
		return
	}
	if v.Kind() == reflect.Pointer {
		if n.kind == null {
			return
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.decode(n, path, v.Elem())
		return
	}
	if s, ok := v.Addr().Interface().(*Secret); ok {
		if d.secret(n, path) {
			*s = NewSecret(n.text)
		}
		return
	}
	if v.Kind() == reflect.String && secretName(lastKey(path)) && n.kind <= boolean && !d.secret(n, path) {
		return
	}
	if n.kind == null {
		return
	}
	if u, ok := v.Addr().Interface().(yamlUnmarshaler); ok {
		d.foreign(n, path, u.UnmarshalYAML(func(into any) error {
			t := reflect.ValueOf(into)
			if t.Kind() != reflect.Pointer || t.IsNil() {
				return fmt.Errorf("cannot decode into a %T", into)
			}
			sub := &decoder{src: d.src, section: d.section, common: d.common}
			sub.decode(n, path, t.Elem())
			return sub.problems.Err()
		}))
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if d.want(n, path, n.kind <= boolean, "a string") {
			d.foreign(n, path, u.UnmarshalText([]byte(n.text)))
		}
		return
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		t, err := time.ParseDuration(n.text)
		if d.want(n, path, n.kind == str && err == nil, `a duration such as "90s" or "5m"`) {
			v.SetInt(int64(t))
		}
		return
	}
	bare := n.kind != str || len(n.refs) > 0 // the environment has no types
	switch v.Kind() {
	case reflect.String:
		if d.want(n, path, n.kind <= boolean, "a string") {
			v.SetString(n.text)
		}
	case reflect.Bool:
		t := strings.ToLower(n.text)
		if d.want(n, path, bare && n.kind <= boolean && (t == "true" || t == "false"), "true or false") {
			v.SetBool(t == "true")
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(n.text, 10, v.Type().Bits())
		if d.want(n, path, bare && err == nil, "a whole number") {
			v.SetInt(i)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		i, err := strconv.ParseUint(n.text, 10, v.Type().Bits())
		if d.want(n, path, bare && err == nil, "a whole number, 0 or more") {
			v.SetUint(i)
		}
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(n.text, v.Type().Bits())
		if d.want(n, path, bare && err == nil && f-f == 0, "a number") { // f-f is NaN for infinities
			v.SetFloat(f)
		}
	case reflect.Slice:
		if !d.want(n, path, n.kind == sequence, "a list") {
			return
		}
		s := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
		for i, item := range n.items {
			at := fmt.Sprintf("%s[%d]", path, i)
			if item.kind == null && !item.broken {
				d.at(item, at, "is empty", "remove it, or write a value")
			}
			d.decode(item, at, s.Index(i))
		}
		v.Set(s)
	case reflect.Map:
		if !d.want(n, path, n.kind == mapping, "a mapping (key: value)") {
			return
		}
		m := reflect.MakeMapWithSize(v.Type(), len(n.entries))
		for _, e := range n.entries {
			item := reflect.New(v.Type().Elem()).Elem()
			d.decode(e.value, join(path, e.key), item)
			m.SetMapIndex(reflect.ValueOf(e.key).Convert(v.Type().Key()), item)
		}
		v.Set(m)
	case reflect.Struct:
		if d.want(n, path, n.kind == mapping, "a mapping (key: value)") {
			d.fields(n, path, v)
		}
	default:
		d.at(n, path, fmt.Sprintf("heed's own mistake: a configuration field cannot be a %s", v.Type()), "please report it")
	}
}

// want reports a value of the wrong kind. It never shows the value, which may be a secret in the wrong place.
func (d *decoder) want(n *node, path string, ok bool, what string) bool {
	if ok {
		return true
	}
	got := n.kind.String()
	if n.kind == str && len(n.refs) > 0 {
		got = "what " + refNames(n.refs) + " holds"
	} else if n.kind <= boolean && n.kind.String() == what {
		got = "something else"
	} else if n.kind == number && strings.HasPrefix(what, "a whole number") {
		got = "another number"
	}
	d.at(n, path, "want "+what+", got "+got, "")
	return false
}

func refNames(refs []string) string { return "${" + strings.Join(refs, "}, ${") + "}" }

// secret checks a value that is to be kept secret.
func (d *decoder) secret(n *node, path string) bool {
	switch {
	case !d.want(n, path, n.kind <= boolean, "a string"):
		return false
	case strings.TrimSpace(n.text) != "":
		return true
	case len(n.refs) > 0:
		d.at(n, path, "is empty: "+refNames(n.refs)+" holds nothing", "set it to the secret")
	default:
		d.at(n, path, "is empty", "write the secret as ${NAME} to take it from the environment, or name a file with "+lastKey(path)+fileSuffix)
	}
	return false
}

// foreign records the error of a type that decoded itself.
func (d *decoder) foreign(n *node, path string, err error) {
	var ps Problems
	switch {
	case err == nil:
	case errors.As(err, &ps):
		d.problems = append(d.problems, ps...)
	case len(n.refs) > 0 && len(n.text) < minHidden && n.text != "":
		d.at(n, path, "cannot be what "+refNames(n.refs)+" holds", "")
	default:
		d.at(n, path, err.Error(), "")
	}
}

// fields fills a struct.
func (d *decoder) fields(n *node, path string, v reflect.Value) {
	fields := fieldsOf(v.Type())
	for i := range n.entries {
		e := &n.entries[i]
		if n == d.section && slices.Contains(d.common, e.key) {
			continue
		}
		at := join(path, e.key)
		if f, ok := fields[e.key]; ok {
			value := e.value
			if value.kind == null && !value.broken {
				value = &node{line: e.line, col: e.col}
			}
			d.decode(value, at, v.FieldByIndex(f.Index))
			continue
		}
		if base, ok := strings.CutSuffix(e.key, fileSuffix); ok {
			if f, ok := fields[base]; ok && isSecret(base, f.Type) {
				if n.entry(base) != nil {
					d.add(Problem{Line: e.line, Column: e.col, Field: at, Reason: "is written beside " + base, Hint: "keep one of the two"})
				} else if value := d.file(e, at); value != nil {
					d.decode(value, join(path, base), v.FieldByIndex(f.Index))
				}
				continue
			}
		}
		hint := ""
		if base, ok := strings.CutSuffix(e.key, fileSuffix); ok && fields[base].Name != "" {
			hint = "only secrets can be in a file; write " + base
		}
		var known []string
		for name, f := range fields {
			known = append(known, name)
			if isSecret(name, f.Type) {
				known = append(known, name+fileSuffix)
			}
		}
		if n == d.section {
			known = append(known, d.common...)
		}
		d.add(Problem{Line: e.line, Column: e.col, Field: at, Reason: "unknown key", Hint: cmp.Or(hint, suggest(e.key, known))})
	}
}

// file reads the file that a _file key names, and returns its content as a value. One line end at the end is not
// part of it: editors and echo add it.
func (d *decoder) file(e *entry, path string) *node {
	n := e.value
	bad := func(reason, hint string) *node {
		d.add(Problem{Line: e.line, Column: e.col, Field: path, Reason: reason, Hint: hint})
		return nil
	}
	switch {
	case n.broken:
		return nil
	case n.kind == null || n.kind == str && n.text == "":
		return bad("is empty", "write the path of a file that holds the secret, or remove the key")
	case n.kind != str:
		return bad("want the path of a file, got "+n.kind.String(), "")
	}
	data, err := d.src.readFile(d.src.resolve(n.text))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return bad("names a file that does not exist", "relative paths start at the directory of "+d.src.file)
	case errors.Is(err, fs.ErrPermission):
		return bad("names a file that heed may not read", "give the user that runs heed the right to read it")
	case err != nil:
		return bad("names a file that cannot be read", "it must be an ordinary file with nothing but the secret")
	case len(data) > maxSecretBytes:
		return bad(fmt.Sprintf("names a file of more than %d KiB", maxSecretBytes>>10), "is that the right file?")
	}
	d.src.hide(string(data))
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if strings.TrimSpace(text) == "" {
		return bad("names a file that is empty", "write the secret into it")
	}
	return &node{kind: str, text: text, written: redacted, line: e.line, col: e.col}
}

// isSecret reports whether a field can be read from a file.
func isSecret(name string, t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t == reflect.TypeFor[Secret]() || t.Kind() == reflect.String && secretName(name)
}

// fieldsOf returns the fields of a struct by their YAML names, as go-yaml names them.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	fields := map[string]reflect.StructField{}
	for _, f := range orderedFields(t) {
		fields[f.Name] = f
	}
	return fields
}

// orderedFields returns the fields of a struct in order, each with its YAML name and its index from t.
func orderedFields(t reflect.Type) []reflect.StructField {
	var fields []reflect.StructField
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if slices.Contains(strings.Split(options, ","), "inline") && f.Type.Kind() == reflect.Struct {
			for _, inner := range orderedFields(f.Type) {
				inner.Index = append(slices.Clone(f.Index), inner.Index...)
				fields = append(fields, inner)
			}
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		f.Name = name
		fields = append(fields, f)
	}
	return fields
}

func lastKey(path string) string {
	path, _, _ = strings.Cut(path[strings.LastIndexByte(path, '.')+1:], "[")
	return path
}

// suggest names the known key that was probably meant, or else all of them.
func suggest(key string, known []string) string {
	slices.Sort(known)
	known = slices.Compact(known)
	best, least := "", len(key)
	lower := strings.ReplaceAll(strings.ToLower(key), "-", "_")
	for _, k := range known {
		if strings.ReplaceAll(lower, "_", "") == strings.ReplaceAll(k, "_", "") {
			return "did you mean " + k + "?"
		}
		if dist := distance(lower, k); dist < least && dist <= max(1, len(k)/3) {
			best, least = k, dist
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	if shownKey(key) != key {
		return "is a space missing after a colon?"
	}
	known = slices.DeleteFunc(known, func(k string) bool { return strings.HasSuffix(k, fileSuffix) })
	return "the keys here are " + strings.Join(known, ", ")
}

// distance counts the letters to insert, remove, replace or swap with their neighbour to get from a to b.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	var before, last []int
	for j := range len(b) + 1 {
		last = append(last, j)
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
