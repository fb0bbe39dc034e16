package salesforcefake

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// This file reads the subset of SOQL that the emulator answers, by the grammar of the vendor's SOQL and SOSL
// reference (conditionExpression, fieldExpression, quoted string escapes, date formats). It is strict where Salesforce
// is: AND and OR cannot be mixed without parentheses, NOT stands alone or in parentheses, a backslash must start a
// legal escape. What the subset leaves out is a MALFORMED_QUERY.

const maxStatement, maxLiteral, maxDepth = 100_000, 4_000, 200

type soql struct {
	text   string
	count  bool // SELECT COUNT()
	fields []path
	object token
	where  expr // nil if none
	order  []orderBy
	limit  int // -1 if none
	offset int
}

type path struct {
	parts []string
	pos   int
}

func (p path) String() string { return strings.Join(p.parts, ".") }

type orderBy struct {
	path      path
	desc      bool
	nullsLast bool
}

type (
	expr    interface{}
	andExpr []expr
	orExpr  []expr
	notExpr struct{ of expr }
	cond    struct {
		path path
		op   string // = != < <= > >= LIKE IN NOT IN
		vals []token
	}
)

type tokenKind uint8

const (
	tokEOF tokenKind = iota
	tokWord
	tokString
	tokNumber
	tokDate
	tokDateTime
	tokPunct
)

type token struct {
	kind tokenKind
	text string // tokString: unescaped, LIKE escapes kept
	pos  int    // byte offset
	end  int
	n    int64 // LAST_N_DAYS:n
}

func (t token) is(word string) bool { return t.kind == tokWord && strings.EqualFold(t.text, word) }

// malformed is a MALFORMED_QUERY in the vendor's form: the part of the query around the place, a caret, the place.
func malformed(text string, pos int, format string, args ...any) *apiError {
	return queryError("MALFORMED_QUERY", text, pos, format, args...)
}

func queryError(code, text string, pos int, format string, args ...any) *apiError {
	return &apiError{status: 400, code: code, message: caret(text, pos) + fmt.Sprintf(format, args...)}
}

func caret(text string, pos int) string {
	pos = min(pos, len(text))
	const around = 40
	from, to := max(0, pos-around), min(len(text), pos+around)
	for from > 0 && !utf8.RuneStart(text[from]) {
		from--
	}
	for to < len(text) && !utf8.RuneStart(text[to]) {
		to++
	}
	row := 1 + strings.Count(text[:pos], "\n")
	column := utf8.RuneCountInString(text[strings.LastIndexByte(text[:pos], '\n')+1:pos]) + 1
	excerpt := strings.NewReplacer("\n", " ", "\r", " ", "\t", " ").Replace(text[from:to])
	return fmt.Sprintf("\n%s\n%s^\nERROR at Row:%d:Column:%d\n", excerpt,
		strings.Repeat(" ", utf8.RuneCountInString(text[from:pos])), row, column)
}

type parser struct {
	text  string
	at    int
	tok   token
	depth int
	err   *apiError
}

func parseSOQL(text string) (*soql, *apiError) {
	if strings.TrimSpace(text) == "" {
		return nil, &apiError{status: 400, code: "MALFORMED_QUERY", message: "A query string has to be specified"}
	}
	if len(text) > maxStatement {
		return nil, &apiError{status: 400, code: "MALFORMED_QUERY",
			message: fmt.Sprintf("SOQL statement is longer than %d characters", maxStatement)}
	}
	if !utf8.ValidString(text) {
		return nil, &apiError{status: 400, code: "MALFORMED_QUERY", message: "SOQL statement is not valid UTF-8"}
	}
	p := &parser{text: text}
	p.next()
	q := p.query()
	if p.err != nil {
		return nil, p.err
	}
	return q, nil
}

func (p *parser) fail(pos int, format string, args ...any) {
	if p.err == nil {
		p.err = malformed(p.text, pos, format, args...)
	}
	p.tok = token{kind: tokEOF, pos: len(p.text)}
	p.at = len(p.text)
}

func (p *parser) unexpected() {
	what := p.tok.text
	if p.tok.kind == tokEOF {
		what = "<EOF>"
	}
	p.fail(p.tok.pos, "unexpected token: '%s'", what)
}

func isWordStart(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
func isDigit(c byte) bool     { return c >= '0' && c <= '9' }

func (p *parser) next() {
	s := p.text
	for p.at < len(s) && strings.IndexByte(" \t\r\n", s[p.at]) >= 0 {
		p.at++
	}
	start := p.at
	p.tok = token{pos: start, end: start}
	if start >= len(s) {
		return
	}
	c := s[start]
	switch {
	case c == '\'':
		p.str()
		return
	case isWordStart(c):
		for p.at < len(s) && (isWordStart(s[p.at]) || isDigit(s[p.at])) {
			p.at++
		}
		p.tok.kind = tokWord
		if p.at+1 < len(s) && s[p.at] == ':' && isDigit(s[p.at+1]) { // LAST_N_DAYS:7
			from := p.at + 1
			for p.at++; p.at < len(s) && isDigit(s[p.at]); {
				p.at++
			}
			n, err := strconv.ParseInt(s[from:p.at], 10, 32)
			if err != nil {
				p.fail(from, "date literal value is out of range: %s", s[from:p.at])
				return
			}
			p.tok.n = n
			p.tok.text, p.tok.end = s[start:from-1], p.at
			return
		}
	case isDigit(c) || (c == '-' || c == '+') && start+1 < len(s) && isDigit(s[start+1]):
		p.at++
		for p.at < len(s) && (isDigit(s[p.at]) || strings.IndexByte("-:.TtZz+", s[p.at]) >= 0) {
			p.at++
		}
		text := s[start:p.at]
		switch {
		case strings.ContainsAny(text, "Tt"):
			p.tok.kind = tokDateTime
		case len(text) == 10 && text[4] == '-' && text[7] == '-':
			p.tok.kind = tokDate
		default:
			p.tok.kind = tokNumber
			if _, err := strconv.ParseFloat(text, 64); err != nil {
				p.fail(start, "unexpected token: '%s'", text)
				return
			}
		}
	default:
		p.tok.kind = tokPunct
		p.at++
		if p.at < len(s) && s[p.at] == '=' && strings.IndexByte("<>!", c) >= 0 || p.at < len(s) && c == '<' && s[p.at] == '>' {
			p.at++
		}
		if c >= utf8.RuneSelf {
			_, w := utf8.DecodeRuneInString(s[start:])
			p.at = start + w
		}
	}
	p.tok.text, p.tok.end = s[start:p.at], p.at
}

// str reads a quoted string. Legal escapes are those of the vendor's "Quoted String Escape Sequences"; \_ and \% keep
// their backslash for LIKE.
func (p *parser) str() {
	start := p.at
	var b strings.Builder
	for i := start + 1; i < len(p.text); i++ {
		c := p.text[i]
		switch c {
		case '\'':
			p.at = i + 1
			p.tok = token{kind: tokString, text: b.String(), pos: start, end: p.at}
			if utf8.RuneCountInString(p.tok.text) > maxLiteral {
				p.fail(start, "string literal is longer than %d characters", maxLiteral)
			}
			return
		case '\\':
			i++
			if i >= len(p.text) {
				break
			}
			switch e := p.text[i]; e {
			case 'n', 'N':
				b.WriteByte('\n')
			case 'r', 'R':
				b.WriteByte('\r')
			case 't', 'T':
				b.WriteByte('\t')
			case 'b', 'B':
				b.WriteByte('\b')
			case 'f', 'F':
				b.WriteByte('\f')
			case '"', '\'':
				b.WriteByte(e)
			case '\\':
				b.WriteString(likeBackslash)
			case '_', '%':
				b.WriteByte('\\')
				b.WriteByte(e)
			case 'u', 'U':
				r, err := strconv.ParseUint(p.text[i+1:min(i+5, len(p.text))], 16, 32)
				if err != nil || i+5 > len(p.text) {
					p.fail(i-1, "Invalid string literal. Illegal character sequence '\\u' in string literal.")
					return
				}
				b.WriteRune(rune(r))
				i += 4
			default:
				_, w := utf8.DecodeRuneInString(p.text[i:])
				p.fail(i-1, "Invalid string literal. Illegal character sequence '\\%s' in string literal.", p.text[i:i+w])
				return
			}
		case '\n', '\r':
			p.fail(i, "line breaks not allowed in string literals")
			return
		default:
			b.WriteByte(c)
		}
	}
	p.fail(len(p.text), "mismatched character '<EOF>' expecting '''")
}

// likeBackslash stands for an escaped backslash inside a token, so that LIKE can tell it from the backslash of \%.
const likeBackslash = "\x00"

// plainText returns a string token's value for any operator but LIKE, where \% and \_ mean nothing special.
func plainText(s string) string {
	if strings.IndexByte(s, '\\') < 0 && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.NewReplacer(`\%`, "%", `\_`, "_", likeBackslash, `\`).Replace(s)
}

func (p *parser) accept(word string) bool {
	if p.tok.is(word) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expect(word string) {
	if p.err == nil && !p.accept(word) {
		p.unexpected()
	}
}

func (p *parser) punct(s string) bool {
	if p.tok.kind == tokPunct && p.tok.text == s {
		p.next()
		return true
	}
	return false
}

var reserved = map[string]bool{"AND": true, "ASC": true, "DESC": true, "EXCLUDES": true, "FIRST": true, "FROM": true,
	"GROUP": true, "HAVING": true, "IN": true, "INCLUDES": true, "LAST": true, "LIKE": true, "LIMIT": true, "NOT": true,
	"NULL": true, "NULLS": true, "OR": true, "SELECT": true, "USING": true, "WHERE": true, "WITH": true,
	"ORDER": true, "BY": true, "OFFSET": true}

func (p *parser) name() token {
	t := p.tok
	if t.kind != tokWord || t.n != 0 || reserved[strings.ToUpper(t.text)] || t.end-t.pos != len(t.text) {
		p.unexpected()
		return token{}
	}
	p.next()
	return t
}

func (p *parser) path() path {
	t := p.name()
	out := path{parts: []string{t.text}, pos: t.pos}
	for p.err == nil && p.punct(".") {
		out.parts = append(out.parts, p.name().text)
	}
	return out
}

func (p *parser) query() *soql {
	q := &soql{text: p.text, limit: -1}
	p.expect("SELECT")
	for p.err == nil {
		f := p.path()
		if p.err == nil && p.tok.kind == tokPunct && p.tok.text == "(" {
			open := p.tok.pos
			p.next()
			if !strings.EqualFold(f.String(), "COUNT") || len(q.fields) > 0 || !p.punct(")") {
				p.fail(open, "unexpected token: '(' (this org answers COUNT() alone; no other functions, no subqueries)")
				return nil
			}
			q.count = true
			break
		}
		q.fields = append(q.fields, f)
		if !p.punct(",") {
			break
		}
	}
	p.expect("FROM")
	if p.err == nil {
		q.object = p.name()
	}
	if p.accept("WHERE") {
		q.where = p.conditions()
	}
	if p.accept("ORDER") {
		p.expect("BY")
		for p.err == nil {
			o := orderBy{path: p.path()}
			if p.accept("DESC") {
				o.desc = true
			} else {
				p.accept("ASC")
			}
			if p.accept("NULLS") {
				if o.nullsLast = p.accept("LAST"); !o.nullsLast {
					p.expect("FIRST")
				}
			}
			q.order = append(q.order, o)
			if !p.punct(",") {
				break
			}
		}
	}
	if p.accept("LIMIT") {
		q.limit = p.integer()
	}
	if p.accept("OFFSET") {
		pos := p.tok.pos
		q.offset = p.integer()
		if q.offset > 2000 && p.err == nil {
			p.err = queryError("NUMBER_OUTSIDE_VALID_RANGE", p.text, pos, "Maximum SOQL offset allowed is 2000")
		}
	}
	if p.err == nil && p.tok.kind != tokEOF {
		p.unexpected()
	}
	return q
}

func (p *parser) integer() int {
	n, err := strconv.Atoi(p.tok.text)
	if p.tok.kind != tokNumber || err != nil || n < 0 {
		p.unexpected()
		return 0
	}
	p.next()
	return n
}

// conditions: simple {AND simple} | simple {OR simple} | NOT simple.
func (p *parser) conditions() expr {
	if p.depth++; p.depth > maxDepth {
		p.fail(p.tok.pos, "query is nested too deeply")
	}
	defer func() { p.depth-- }()
	if p.accept("NOT") {
		return notExpr{p.simple()}
	}
	first := p.simple()
	for _, op := range []string{"AND", "OR"} {
		if !p.tok.is(op) {
			continue
		}
		list := []expr{first}
		for p.err == nil && p.accept(op) {
			list = append(list, p.simple())
		}
		if op == "AND" {
			return andExpr(list)
		}
		return orExpr(list)
	}
	return first
}

func (p *parser) simple() expr {
	if p.punct("(") {
		e := p.conditions()
		if p.err == nil && !p.punct(")") {
			p.unexpected()
		}
		return e
	}
	c := cond{path: p.path()}
	if p.err != nil {
		return c
	}
	switch {
	case p.tok.kind == tokPunct && strings.Contains(" = != <> < <= > >= ", " "+p.tok.text+" "):
		c.op = p.tok.text
		if c.op == "<>" {
			c.op = "!="
		}
		p.next()
		c.vals = []token{p.literal()}
	case p.accept("LIKE"):
		c.op = "LIKE"
		c.vals = []token{p.literal()}
	case p.accept("IN"):
		c.op = "IN"
		c.vals = p.list()
	case p.accept("NOT"):
		p.expect("IN")
		c.op = "NOT IN"
		c.vals = p.list()
	default:
		p.unexpected()
	}
	return c
}

func (p *parser) list() []token {
	if p.err == nil && !p.punct("(") {
		p.unexpected()
	}
	var vals []token
	for p.err == nil {
		vals = append(vals, p.literal())
		if !p.punct(",") {
			break
		}
	}
	if p.err == nil && !p.punct(")") {
		p.unexpected()
	}
	return vals
}

func (p *parser) literal() token {
	t := p.tok
	switch t.kind {
	case tokString, tokNumber, tokDate, tokDateTime:
		p.next()
		return t
	case tokWord:
		switch strings.ToUpper(t.text) {
		case "TRUE", "FALSE", "NULL", "TODAY", "YESTERDAY", "TOMORROW":
			if t.end-t.pos == len(t.text) {
				p.next()
				return t
			}
		case "LAST_N_DAYS", "NEXT_N_DAYS":
			if t.end-t.pos != len(t.text) {
				p.next()
				return t
			}
		case "SELECT":
			p.fail(t.pos, "unexpected token: '%s' (this org does not answer subqueries)", t.text)
			return t
		default:
			if !reserved[strings.ToUpper(t.text)] {
				p.fail(t.pos, "Bind variables only allowed in Apex code")
				return t
			}
		}
	case tokPunct:
		if t.text == ":" {
			p.fail(t.pos, "Bind variables only allowed in Apex code")
			return t
		}
	}
	p.unexpected()
	return t
}
