package reply

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The phrase rules are patterns over words. A pattern is a line of elements:
//
//	word        this word                      a|b|@set   any of these words and sets
//	-a|@set     one word that is none of them  _          any one word
//	#  #7  #a   digits, at least seven of them, digits and letters mixed
//	#u          a word outside the vocabulary
//	...ing      a word that ends so
//	x?          x or nothing                   x*         up to five of x
//	^  $        a clause begins or ends here, apart from greetings, thanks and the like (sets lead and tail)
//	^^ $$       the message begins or ends here, likewise
//	!x          the word that the pattern is about; the first one if none is marked
//	{macro}     each of the macro's readings in turn
//
// Between two elements any number of filler words may stand (set filler). No pattern reaches across the end of a
// sentence, nor over more than maxSpan words.

const maxSpan = 32

type elemKind uint8

const (
	eWord elemKind = iota
	eNot
	eAny
	eBegin
	eEnd
	eMsgBegin
	eMsgEnd
)

type elem struct {
	kind     elemKind
	optional bool
	set      uint16
}

// effect is what a matching pattern does.
type effect uint8

const (
	shield effect = iota // the word it is about, and all others it covers, are no request
	holds                // could be a request
	opts                 // a request
	insist               // a request that no shield takes back
	scope                // a request with a limit: held, and covered like by a shield
)

type pattern struct {
	elems  []elem
	anchor int
	effect effect
	rule   string
	src    string // as written, for diagnosis
}

// Words outside the vocabulary are told apart by their shape only.
const (
	idUnknown = iota
	idNumber  // digits
	idLong    // seven digits or more, as in a phone number
	idAlnum   // digits and letters
	idIng     // ends in -ing
	idFirst   // the first word of the vocabulary
)

// grammar is the compiled table. It is immutable.
type grammar struct {
	ids      map[string]uint16
	words    []string // by id
	rows     [][]uint64
	patterns []pattern
	first    [][]uint16 // id → patterns that can begin with it, in table order
	lead     uint16
	tail     uint16
	filler   uint16
	clause   uint16
	unsub    uint16
}

var lang = compile(sets, macros, phrases)

func (g *grammar) in(id, set uint16) bool { return g.rows[id][set>>6]&(1<<(set&63)) != 0 }

// id returns the vocabulary number of a word.
func (g *grammar) id(w []byte, flags tokenFlag) uint16 {
	if id, ok := g.ids[string(w)]; ok {
		return id
	}
	switch {
	case flags&hasDigit != 0 && flags&hasLetter == 0:
		if len(w) >= 7 {
			return idLong
		}
		return idNumber
	case flags&hasDigit != 0:
		return idAlnum
	case len(w) > 5 && string(w[len(w)-3:]) == "ing":
		return idIng
	}
	return idUnknown
}

type compiler struct {
	sets    map[string]string
	ids     map[string]uint16
	words   []string
	elems   map[string]uint16 // canonical member list → set number
	members [][]uint16        // set number → ids
}

func compile(sets map[string]string, macros map[string][]string, table []phrase) *grammar {
	c := &compiler{sets: sets, ids: map[string]uint16{}, elems: map[string]uint16{},
		words: []string{"", "#", "#7", "#a", "...ing"}}
	g := &grammar{}
	g.lead, g.tail, g.filler = c.set("@lead"), c.set("@tail"), c.set("@filler")
	g.clause, g.unsub = c.set("@clause"), c.set("@unsub")
	for _, p := range table {
		for _, line := range p.lines {
			for _, l := range expand(line, macros) {
				g.patterns = append(g.patterns, c.pattern(l, p.effect, p.rule))
			}
		}
	}
	for _, w := range strings.Fields(ordinary) {
		c.word(w)
	}
	g.ids, g.words = c.ids, c.words
	for id, w := range c.words { // "...ing" and "#" stand for the known words of their shape too
		var shape uint16
		switch {
		case id < idFirst:
			continue
		case len(w) > 5 && strings.HasSuffix(w, "ing"):
			shape = idIng
		case strings.Trim(w, "0123456789") == "":
			shape = idNumber
		default:
			continue
		}
		for s, ids := range c.members {
			if slices.Contains(ids, shape) {
				c.members[s] = append(ids, uint16(id))
			}
		}
	}
	g.rows = make([][]uint64, len(c.words))
	for i := range g.rows {
		g.rows[i] = make([]uint64, len(c.members)/64+1)
	}
	for s, ids := range c.members {
		for _, id := range ids {
			g.rows[id][s>>6] |= 1 << (s & 63)
		}
	}
	g.first = make([][]uint16, len(c.words))
	for n, p := range g.patterns {
		for id := range g.first {
			if g.begins(p, uint16(id)) {
				g.first[id] = append(g.first[id], uint16(n))
			}
		}
	}
	return g
}

// begins reports whether the pattern can begin with the word.
func (g *grammar) begins(p pattern, id uint16) bool {
	for _, e := range p.elems {
		switch e.kind {
		case eBegin, eMsgBegin:
			continue
		case eWord:
			if g.in(id, e.set) {
				return true
			}
		case eNot:
			if !g.in(id, e.set) {
				return true
			}
		default:
			panic("reply: a pattern must begin with a word")
		}
		if !e.optional {
			return false
		}
	}
	return false
}

// expand returns the patterns that a line stands for: one for each reading of its macros, and one with "$" where an
// element ends in "|$".
func expand(line string, macros map[string][]string) []string {
	if i := strings.Index(line, "|$"); i >= 0 {
		j := strings.LastIndexByte(line[:i], ' ') + 1
		return append(expand(line[:i]+line[i+2:], macros), expand(line[:j]+"$"+line[i+2:], macros)...)
	}
	i := strings.IndexByte(line, '{')
	if i < 0 {
		return []string{line}
	}
	j := strings.IndexByte(line, '}')
	readings, ok := macros[line[i+1:j]]
	if !ok {
		panic("reply: unknown macro in " + line)
	}
	var out []string
	for _, r := range readings {
		out = append(out, expand(line[:i]+r+line[j+1:], macros)...)
	}
	return out
}

func (c *compiler) pattern(line string, e effect, rule string) pattern {
	p := pattern{anchor: -1, effect: e, rule: rule, src: line}
	for _, f := range strings.Fields(line) {
		var x elem
		about := strings.HasPrefix(f, "!")
		f = strings.TrimPrefix(f, "!")
		n := 1
		switch {
		case strings.HasSuffix(f, "?"):
			x.optional, f = true, f[:len(f)-1]
		case strings.HasSuffix(f, "*"):
			x.optional, f, n = true, f[:len(f)-1], 5
		}
		switch {
		case f == "^":
			x.kind = eBegin
		case f == "$":
			x.kind = eEnd
		case f == "^^":
			x.kind = eMsgBegin
		case f == "$$":
			x.kind = eMsgEnd
		case f == "_":
			x.kind = eAny
		case f[0] == '-':
			x.kind, x.set = eNot, c.set(f[1:])
		default:
			x.set = c.set(f)
			if p.anchor < 0 || about {
				p.anchor = len(p.elems)
			}
		}
		for range n {
			p.elems = append(p.elems, x)
		}
	}
	if len(p.elems) > 64 {
		panic("reply: pattern too long: " + line)
	}
	return p
}

// set returns the number of the set that an element such as "a|b|@c" names.
func (c *compiler) set(spec string) uint16 {
	members := map[uint16]bool{}
	c.collect(spec, members)
	ids := slices.Sorted(maps.Keys(members))
	key := fmt.Sprint(ids)
	if n, ok := c.elems[key]; ok {
		return n
	}
	n := uint16(len(c.members))
	c.elems[key], c.members = n, append(c.members, ids)
	return n
}

func (c *compiler) collect(spec string, into map[uint16]bool) {
	for _, w := range strings.Split(spec, "|") {
		switch {
		case w == "#u":
			into[idUnknown] = true
		case w == "#":
			into[idNumber], into[idLong] = true, true
		case w == "#7":
			into[idLong] = true
		case w == "#a":
			into[idAlnum] = true
		case w == "...ing":
			into[idIng] = true
		case w[0] == '@':
			list, ok := c.sets[w[1:]]
			if !ok {
				panic("reply: unknown set " + w)
			}
			for _, m := range strings.Fields(list) {
				c.collect(m, into)
			}
		default:
			into[c.word(w)] = true
		}
	}
}

func (c *compiler) word(w string) uint16 {
	n := normalise(w)
	if n == "" || strings.Contains(n, " ") {
		panic(fmt.Sprintf("reply: %q is not one word", w))
	}
	w = n
	id, ok := c.ids[w]
	if !ok {
		id = uint16(len(c.words))
		c.ids[w], c.words = id, append(c.words, w)
	}
	return id
}

const (
	atBegin    = 1 << iota // only lead words before, in the sentence
	atEnd                  // only tail words from here on, in the sentence
	atMsgBegin             // the same, in the message
	atMsgEnd
	shielded
)

// matcher runs the patterns over one message.
type matcher struct {
	g     *grammar
	tok   []token
	ids   []uint16
	place []uint8 // what the position before each word is; one more than words
	steps int     // element tests made, to prove that the time is linear

	exhaust bool // go on after the verdict is certain; for the proof

	tried [64]uint32 // pattern element → offsets from start at which it failed
	start int
	stop  tokenFlag // what the pattern does not reach across
	at    int       // the anchor of the last match
}

// prepare fills place.
func (m *matcher) prepare() {
	n := len(m.ids)
	begin, msgBegin := true, true
	for i := range n {
		if m.tok[i].flags&(afterBreak|afterComma) != 0 || i > 0 && m.g.in(m.ids[i-1], m.g.clause) {
			begin = true
		}
		m.place[i] = 0
		if begin {
			m.place[i] |= atBegin
		}
		if msgBegin {
			m.place[i] |= atMsgBegin
		}
		if !m.g.in(m.ids[i], m.g.lead) {
			begin, msgBegin = false, false
		}
	}
	m.place[n] = atEnd | atMsgEnd
	end, msgEnd := true, true
	for i := n - 1; i >= 0; i-- {
		t := m.g.in(m.ids[i], m.g.tail)
		end, msgEnd = end && t, msgEnd && t
		if end {
			m.place[i] |= atEnd
		}
		if msgEnd {
			m.place[i] |= atMsgEnd
		}
		if m.tok[i].flags&(afterBreak|afterComma) != 0 {
			m.place[i] |= atEnd // the clause before ends here
			end = true
		}
	}
}

// match tries p with its first word at i and returns the position after its last word, or -1.
func (m *matcher) match(p *pattern, i int) int {
	clear(m.tried[:len(p.elems)])
	m.start, m.at, m.stop = i, i, afterBreak
	if p.effect == shield {
		m.stop = afterBreak | afterComma // what takes a request back stands in the same clause
	}
	return m.from(p, 0, i)
}

func (m *matcher) from(p *pattern, e, i int) int {
	if e == len(p.elems) {
		return i
	}
	off := i - m.start
	if off >= maxSpan || m.tried[e]&(1<<off) != 0 {
		return -1
	}
	m.tried[e] |= 1 << off
	m.steps++
	x := &p.elems[e]
	var want uint8
	switch x.kind {
	case eBegin:
		want = atBegin
	case eEnd:
		want = atEnd
	case eMsgBegin:
		want = atMsgBegin
	case eMsgEnd:
		want = atMsgEnd
	}
	if want != 0 {
		if m.place[i]&want == 0 {
			return -1
		}
		return m.from(p, e+1, i)
	}
	if i < len(m.ids) && (i == m.start || m.tok[i].flags&m.stop == 0) {
		var ok bool
		switch x.kind {
		case eWord:
			ok = m.g.in(m.ids[i], x.set)
		case eNot:
			ok = !m.g.in(m.ids[i], x.set)
		default:
			ok = true
		}
		if ok {
			if end := m.from(p, e+1, i+1); end >= 0 {
				if e == p.anchor {
					m.at = i
				}
				return end
			}
		}
		if i > m.start && x.kind != eNot && m.g.in(m.ids[i], m.g.filler) {
			if end := m.from(p, e, i+1); end >= 0 {
				return end
			}
		}
	}
	if x.optional {
		return m.from(p, e+1, i)
	}
	return -1
}

// run tries every pattern at every word and returns the strongest finding.
func (m *matcher) run() Result {
	m.prepare()
	best := Result{None, "none", ""}
	var shieldRule string
	// Shields first: they say which words the other patterns may not be about.
	for pass := range 2 {
		for i, id := range m.ids {
			for _, n := range m.g.first[id] {
				p := &m.g.patterns[n]
				if (p.effect == shield || p.effect == scope) != (pass == 0) {
					continue
				}
				end := m.match(p, i)
				if end < 0 {
					continue
				}
				if p.effect == scope && m.place[m.at]&shielded != 0 {
					continue
				}
				switch p.effect {
				case shield, scope:
					for k := i; k < end; k++ {
						m.place[k] |= shielded
					}
					if p.effect == scope {
						if best.Verdict == None {
							best = Result{Hold, p.rule, m.g.words[m.ids[m.at]]}
						}
					} else if shieldRule == "" {
						shieldRule = p.rule
					}
				case holds:
					if best.Verdict == None && m.place[m.at]&shielded == 0 {
						best = Result{Hold, p.rule, m.g.words[m.ids[m.at]]}
					}
				case opts, insist:
					if (p.effect == insist || m.place[m.at]&shielded == 0) && !m.exhaust {
						return Result{OptOut, p.rule, m.g.words[m.ids[m.at]]}
					}
				}
			}
		}
	}
	if best.Verdict == None && shieldRule != "" {
		best.Rule = shieldRule
	}
	return best
}
