package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// source is where a configuration comes from, and everything of it that must not be shown.
type source struct {
	file     string
	env      func(string) (string, bool)
	readFile func(string) ([]byte, error)
	hidden   []string // values from the environment and from files, and values under secret names
}

// minHidden is the length from which a value is cut out of foreign error texts. Shorter ones would blank out
// ordinary words; no secret is that short.
const minHidden = 6

func (s *source) hide(v string) {
	for _, v := range []string{v, strings.TrimSpace(v)} {
		if len(v) >= minHidden && !slices.Contains(s.hidden, v) {
			s.hidden = append(s.hidden, v)
		}
	}
}

// scrub removes hidden values from a text, also in the form that %q gives them.
func (s *source) scrub(text string) string {
	for _, h := range s.hidden {
		text = strings.ReplaceAll(text, h, redacted)
		if q := strconv.Quote(h); q != `"`+h+`"` {
			text = strings.ReplaceAll(text, q[1:len(q)-1], redacted)
		}
	}
	return text
}

// resolve makes a path that the configuration names absolute or relative to the working directory: relative paths
// are relative to the configuration file's directory.
func (s *source) resolve(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(s.file), path)
}

type kind uint8

const (
	null kind = iota
	str
	number
	boolean
	mapping
	sequence
)

func (k kind) String() string {
	return [...]string{"nothing", "a string", "a number", "true or false", "a mapping", "a list"}[k]
}

// node is a value of the file, with aliases followed and ${ENV} replaced.
type node struct {
	kind      kind
	text      string // of a string, number or boolean: as written, without quotes
	written   string // text before ${ENV} was replaced
	refs      []string
	broken    bool // already reported; says nothing about the field
	line, col int
	entries   []entry // of a mapping, in the order of the file
	items     []*node // of a sequence
}

type entry struct {
	key       string
	line, col int
	value     *node
}

func (n *node) get(key string) *node {
	if e := n.entry(key); e != nil {
		return e.value
	}
	return nil
}

func (n *node) entry(key string) *entry {
	if n == nil {
		return nil
	}
	for i := range n.entries {
		if n.entries[i].key == key {
			return &n.entries[i]
		}
	}
	return nil
}

// reader turns parsed YAML into nodes.
type reader struct {
	*decoder
	anchors map[string]*node
	budget  int // nodes left; aliases can repeat a small file into a huge one
	depth   int
}

const (
	maxBytes = 128 << 10
	maxNodes = 20_000
	maxDepth = 40
)

// read parses the file. It returns nil if there is nothing to decode.
func (d *decoder) read(data []byte) *node {
	fail := func(line, col int, reason, hint string) *node {
		d.add(Problem{Line: line, Column: col, Reason: reason, Hint: hint})
		return nil
	}
	if len(data) > maxBytes {
		return fail(0, 0, fmt.Sprintf("is larger than %d KiB", maxBytes>>10), "is this heed's configuration?")
	}
	if !utf8.Valid(data) {
		line := 1
		for i := 0; i < len(data); {
			r, n := utf8.DecodeRune(data[i:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			if r == '\n' {
				line++
			}
			i += n
		}
		return fail(line, 1, "is not UTF-8 text", "save the file as UTF-8")
	}
	if i := slices.IndexFunc(data, func(b byte) bool { return b < ' ' && b != '\n' && b != '\r' && b != '\t' }); i >= 0 {
		return fail(1+strings.Count(string(data[:i]), "\n"), 1, "contains a control character", "save the file as plain text")
	}
	// The parser's time grows with the square of the nesting.
	open := 0
	for _, b := range data {
		switch b {
		case '[', '{':
			open++
		case ']', '}':
			open--
		}
		if open > 1000 {
			return fail(0, 0, "is nested too deeply", "is this heed's configuration?")
		}
	}
	file, err := parseYAML(data)
	if err != nil {
		var se *yaml.SyntaxError
		if errors.As(err, &se) && se.Token != nil && se.Token.Position != nil {
			return fail(max(se.Token.Position.Line, 1), max(se.Token.Position.Column, 1), "not valid YAML: "+syntaxReason(se.Message), "check the indentation, the quotes and the brackets here and on the line above")
		}
		return fail(0, 0, "not valid YAML", "check the indentation, the quotes and the brackets")
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		switch doc.Body.(type) {
		case nil, *ast.DirectiveNode, *ast.CommentGroupNode, *ast.CommentNode:
		default:
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return fail(0, 0, "is empty", "start from the example: heed's manual, every key explained")
	case 1:
	default:
		l, _ := position(bodies[1])
		return fail(l, 1, "a second YAML document begins here", `keep one document; remove the "---" line`)
	}
	r := &reader{decoder: d, anchors: map[string]*node{}, budget: maxNodes}
	n := r.node(bodies[0], "", "")
	if n.broken {
		return nil
	}
	if n.kind != mapping {
		return fail(n.line, n.col, "want a mapping (key: value), got "+n.kind.String(), "")
	}
	return n
}

// parseYAML is the parser without its panics.
func parseYAML(data []byte) (f *ast.File, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the parser gave up")
		}
	}()
	// Duplicate keys are found by the reader, which goes on after them.
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

// syntaxReason passes the parser's fixed sentences, and nothing that could quote the file.
func syntaxReason(msg string) string {
	if strings.Contains(msg, "\t") {
		return "a tab stands where only spaces may"
	}
	if strings.ContainsAny(msg, "\"`\n\\") || len(msg) > 100 {
		return "something is written here that YAML does not have"
	}
	return msg
}

func position(n ast.Node) (line, col int) {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	return 1, 1
}

// node reads one value. key is the name it stands under, through lists.
func (r *reader) node(a ast.Node, path, key string) *node {
	n := &node{}
	if a == nil {
		return n
	}
	n.line, n.col = position(a)
	bad := func(reason, hint string) *node {
		r.add(Problem{Line: n.line, Column: n.col, Field: path, Reason: reason, Hint: hint})
		n.broken = true
		return n
	}
	if r.budget--; r.budget < 0 {
		if r.budget == -1 {
			return bad(fmt.Sprintf("the file has more than %d values, aliases counted each time", maxNodes), "is this heed's configuration?")
		}
		n.broken = true
		return n
	}
	if r.depth++; r.depth > maxDepth {
		r.depth--
		return bad("is nested too deeply", "")
	}
	defer func() { r.depth-- }()

	switch a := a.(type) {
	case *ast.NullNode:
	case *ast.MappingValueNode:
		r.mapping(n, []*ast.MappingValueNode{a}, path)
	case *ast.MappingNode:
		r.mapping(n, a.Values, path)
	case *ast.SequenceNode:
		n.kind = sequence
		for i, v := range a.Values {
			n.items = append(n.items, r.node(v, fmt.Sprintf("%s[%d]", path, i), key))
		}
	case *ast.AnchorNode:
		v := r.node(a.Value, path, key)
		r.anchors[a.Name.GetToken().Value] = v
		return v
	case *ast.AliasNode:
		v := r.anchors[a.Value.GetToken().Value]
		if v == nil {
			return bad("an alias (*) of something that has no anchor (&) above it", `put the text into quotes if it is to begin with "*"`)
		}
		if r.budget -= v.size(); r.budget < 0 {
			r.budget = 0
			return r.node(a, path, key) // reports the budget
		}
		return v
	case *ast.StringNode:
		r.scalar(n, str, a.Value, path, key)
	case *ast.LiteralNode:
		r.scalar(n, str, a.Value.Value, path, key)
	case *ast.BoolNode:
		r.scalar(n, boolean, a.GetToken().Value, path, key)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		r.scalar(n, number, a.GetToken().Value, path, key)
	case *ast.TagNode:
		return bad("a YAML tag (!) has no meaning here", `remove it, or put the text into quotes if it is to begin with "!"`)
	default:
		return bad("this YAML construct has no meaning here", "")
	}
	return n
}

// size counts the values below n.
func (n *node) size() int {
	s := 1
	for _, e := range n.entries {
		s += e.value.size()
	}
	for _, v := range n.items {
		s += v.size()
	}
	return s
}

func (r *reader) mapping(n *node, values []*ast.MappingValueNode, path string) {
	n.kind = mapping
	if len(values) > 0 && values[0].Key != nil && values[0].Start != nil {
		if l, c := position(values[0].Key); l < n.line || (l == n.line && c < n.col) || n.line == 0 {
			n.line, n.col = l, c // a block mapping begins with its first key, not with that key's colon
		}
	}
	for _, v := range values {
		line, col := position(v.Key)
		bad := func(reason, hint string) {
			r.add(Problem{Line: line, Column: col, Field: path, Reason: reason, Hint: hint})
		}
		if v.Key.IsMergeKey() {
			bad("YAML merge keys (<<) are not supported", "write the keys out, or use an alias for a whole value")
			continue
		}
		var key string
		switch k := v.Key.(type) {
		case *ast.StringNode:
			key = k.Value
		case *ast.IntegerNode, *ast.BoolNode, *ast.FloatNode, *ast.NullNode:
			key = k.GetToken().Value
		default:
			bad("a key must be a plain word", "")
			continue
		}
		at := join(path, key)
		if prev := n.entry(key); prev != nil {
			r.add(Problem{Line: line, Column: col, Field: at, Reason: fmt.Sprintf("is written twice; the first is on line %d", prev.line), Hint: "keep one of them"})
			continue
		}
		n.entries = append(n.entries, entry{key, line, col, r.node(v.Value, at, key)})
	}
}

func (r *reader) scalar(n *node, k kind, text, path, key string) {
	n.kind, n.text, n.written = k, text, text
	if k == str {
		n.text, n.refs = r.interpolate(n, text, path)
	}
	if hidden(key) {
		r.src.hide(n.text)
	}
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,99}$`)

// interpolate replaces ${NAME} and ${NAME:-default}. "$${" is a literal "${"; any other "$" stands for itself.
// The default is also taken when the variable is empty, as a shell does.
func (r *reader) interpolate(n *node, text, path string) (string, []string) {
	if !strings.Contains(text, "${") {
		return text, nil
	}
	bad := func(reason, hint string) {
		n.broken = true
		r.add(Problem{Line: n.line, Column: n.col, Field: path, Reason: reason, Hint: hint})
	}
	const literal = `write $${ for a literal "${"`
	var out strings.Builder
	var refs []string
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			out.WriteString(text)
			return out.String(), refs
		}
		if i > 0 && text[i-1] == '$' {
			out.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		out.WriteString(text[:i])
		ref, rest, closed := strings.Cut(text[i+2:], "}")
		if !closed {
			bad(`has a "${" without its "}"`, literal)
			return "", refs
		}
		text = rest
		name, fallback, hasFallback := strings.Cut(ref, ":-")
		if !variable.MatchString(name) {
			bad(`has a "${…}" that is not ${NAME} or ${NAME:-default}`, literal)
			continue
		}
		refs = append(refs, name)
		value, ok := r.src.env(name)
		switch {
		case ok && (value != "" || !hasFallback):
			r.src.hide(value)
			out.WriteString(value)
		case hasFallback:
			out.WriteString(fallback)
		default:
			hint := "set " + name + " where heed is started"
			if key := lastKey(path); hidden(key) {
				hint += ", or name a file with " + key + fileSuffix
			} else {
				hint += ", or write ${" + name + ":-a default}"
			}
			bad("environment variable "+name+" is not set", hint)
		}
	}
}

// join appends a key to a path. What does not look like a key is cut where it stops doing so: "auth_token:s3cret",
// with its space forgotten, is a key to YAML.
func join(path, key string) string {
	key = shownKey(key)
	if path == "" {
		return key
	}
	return path + "." + key
}

func shownKey(key string) string {
	end := strings.IndexFunc(key, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	})
	if end < 0 {
		end = len(key)
	}
	if end = min(end, 40); end < len(key) {
		return key[:end] + "…"
	}
	return key
}

// walk follows a path such as sms[0].auth_token as far as the file goes. It returns the last value that it found,
// its place, and whether that is the field itself. A key stands for its _file twin where only that is written.
func (n *node) walk(path string) (last *node, line, col int, exact bool) {
	last, line, col = n, n.line, n.col
	for path != "" {
		switch {
		case path[0] == '.':
			path = path[1:]
		case path[0] == '[':
			index, rest, _ := strings.Cut(path[1:], "]")
			i, err := strconv.Atoi(index)
			if err != nil || i < 0 || i >= len(last.items) {
				return last, line, col, false
			}
			last, path = last.items[i], rest
			line, col = last.line, last.col
		default:
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			e := last.entry(path[:end])
			if e == nil {
				e = last.entry(path[:end] + fileSuffix)
			}
			if e == nil {
				return last, line, col, false
			}
			last, path = e.value, path[end:]
			line, col = e.line, e.col
			if last.kind > null && last.kind < mapping {
				line, col = last.line, last.col
			}
		}
	}
	return last, line, col, true
}

// find returns the place of a field, or else that of the nearest value around it.
func (n *node) find(path string) (line, col int) {
	_, line, col, _ = n.walk(path)
	return line, col
}

// lookup returns the field's value, nil if the file has none.
func (n *node) lookup(path string) *node {
	if v, _, _, exact := n.walk(path); exact {
		return v
	}
	return nil
}
