package reply

import "sync"

var yes = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range affirmations {
		m[normalise(w)] = true
	}
	return m
}()

// scratch is the memory that one classification works in. It is pooled, because the compiler cannot prove that it
// does not outlive the call.
type scratch struct {
	text, verb message
	ids        []uint16
	place      []uint8
}

var pool = sync.Pool{New: func() any {
	return &scratch{
		text:  message{buf: make([]byte, 0, 512), tok: make([]token, 0, 64)},
		verb:  message{buf: make([]byte, 0, 2*maxVerb), tok: make([]token, 0, maxVerb)},
		ids:   make([]uint16, 0, 64),
		place: make([]uint8, 0, 65),
	}
}}

// mostKept is the number of words above which memory is left to the garbage collector instead of the pool.
const mostKept = 512

// Classify decides what a text means. It reads at most the first 4,096 characters; a longer text in which it finds
// no request to stop is held, because the rest was not read. The time is linear in what is read, and short replies
// cost no allocation.
func (c *Classifier) Classify(text string) Result {
	s := pool.Get().(*scratch)
	r := c.classify(text, s)
	if cap(s.text.tok) <= mostKept && cap(s.text.buf) <= 16*mostKept {
		pool.Put(s)
	}
	return r
}

// classify tries the rules in order.
func (c *Classifier) classify(text string, s *scratch) Result {
	m := &s.text
	m.fold(text)
	if r, ok := c.exact[string(m.buf)]; ok {
		return r
	}
	r := c.behindExact(text, s)
	if m.cut && r.Verdict != OptOut {
		return Result{Hold, "too_long", ""}
	}
	return r
}

// behindExact tries the rules behind the exact words.
func (c *Classifier) behindExact(text string, s *scratch) Result {
	m := &s.text
	if rest, ok := reaction(text, &s.verb); ok {
		if rest == "" {
			return Result{None, "reaction", ""}
		}
		// Something was written after the quotation: that is what counts.
		m.fold(rest)
		if r, ok := c.exact[string(m.buf)]; ok {
			return r
		}
	}
	if len(m.tok) == 0 {
		switch {
		case m.stopSign:
			return Result{Hold, "stop_emoji", ""}
		case m.blank:
			return Result{None, "blank", ""}
		}
		return Result{None, "none", ""}
	}
	if yes[string(m.buf)] {
		return Result{None, "yes", ""}
	}

	s.ids = s.ids[:0]
	for i := range m.tok {
		s.ids = append(s.ids, c.word(m.word(i), &m.tok[i]))
	}
	x := newMatcher(m.tok, s)

	// One word, apart from greetings and thanks: misspelt, disguised or written in pieces?
	a, b := 0, len(m.tok)
	for b > a+1 && lang.in(x.ids[b-1], lang.tail) {
		b--
	}
	for a < b-1 && lang.in(x.ids[a], lang.lead) {
		a++
	}
	w := m.buf[m.tok[a].start:m.tok[b-1].end]
	if r := c.exact[string(w)]; r.Verdict == OptOut && !weak[r.Keyword] {
		return Result{OptOut, "phrase", r.Keyword}
	}
	if b-a == 1 {
		if r := c.exact[string(w)]; r.Verdict == Help {
			return r
		}
		if r, ok := c.oneWord(w, &m.tok[a]); ok {
			return r
		}
		if x.ids[a] < idFirst {
			if r, ok := c.glued(w); ok {
				return r
			}
		}
	} else if b-a <= 6 && len(w) <= 32 {
		if r, ok := c.pieces(w); ok {
			return r
		}
	}
	r := x.run()
	if r.Rule == "none" && len(s.ids) > 1 && resemblance.score(m.tok, s.ids) >= resemblance.least {
		return Result{Hold, "resembles", ""}
	}
	return r
}

// newMatcher returns a matcher for the words in s.ids, working in s.
func newMatcher(tok []token, s *scratch) matcher {
	s.place = append(s.place[:0], make([]uint8, len(tok)+1)...)
	return matcher{g: lang, tok: tok, ids: s.ids, place: s.place}
}

// word returns the vocabulary number of a word, of the word that it disguises, or of the one that it misspells.
func (c *Classifier) word(w []byte, t *token) uint16 {
	id := lang.id(w, t.flags)
	if id != idUnknown && id != idAlnum && id != idIng {
		return id
	}
	if t.script&(cyrillic|greek) != 0 && t.script&latin != 0 {
		if k, ok := c.lookalike(w); ok {
			if id, ok := lang.ids[k]; ok {
				return id
			}
		}
	}
	if id == idUnknown && drawn(w) && len(w) <= 64 {
		var buf [64]byte
		if id, ok := lang.ids[string(squeeze(w, buf[:0]))]; ok && id >= idFirst {
			return id
		}
	}
	if (id == idUnknown || id == idIng) && len(w) >= 3 && len(w) <= 16 && t.script == latin {
		for i := range slips {
			if misspells(w, slips[i]) {
				return lang.ids[slips[i].word]
			}
		}
	}
	return id
}

// oneWord judges a message that is one word outside the keyword lists.
func (c *Classifier) oneWord(w []byte, t *token) (Result, bool) {
	if t.script != latin || t.flags&hasDigit != 0 || !ascii(w) {
		if k, ok := c.lookalike(w); ok {
			return Result{OptOut, "mixed_script", k}, true
		}
		if t.script&(cyrillic|greek) != 0 && t.script&latin != 0 && len(w) <= 64 {
			var buf [64]byte
			if s, found := skeleton(w, 's', buf[:0]); found {
				if k, ok := c.misspelt(s); ok {
					return Result{Hold, "mixed_script", k}, true
				}
			}
		}
	}
	if k, ok := c.misspelt(w); ok {
		return Result{OptOut, "typo", k}, true
	}
	if k, ok := like(w, t); ok {
		return Result{Hold, "typo", k}, true
	}
	return Result{}, false
}

// like reports whether a word that is no word of the vocabulary could be a keyword all the same: one letter off a short
// one, up to three off a long one. Too far to opt out, and too near to pass by when it is all that somebody writes.
func like(w []byte, t *token) (keyword string, ok bool) {
	if t.script != latin || t.flags&hasDigit != 0 || !ascii(w) || len(w) < 4 || len(w) > 20 {
		return "", false
	}
	if _, known := lang.ids[string(w)]; known {
		return "", false
	}
	for _, k := range typoWords {
		off := 1
		if len(k) >= 9 {
			off = 3
		} else if len(k) >= 7 {
			off = 2
		}
		if len(k) >= 4 && len(w) >= len(k)-off && len(w) <= len(k)+off && distance(w, k) <= off {
			return k, true
		}
	}
	return "", false
}

// pieces judges a keyword that was written in pieces: "sto p", "un subscribe".
func (c *Classifier) pieces(w []byte) (Result, bool) {
	var buf [32]byte
	s := buf[:0]
	for _, ch := range w {
		if ch != ' ' {
			s = append(s, ch)
		}
	}
	if len(s) < 4 {
		return Result{}, false
	}
	if k, ok := c.isHard(s); ok {
		return Result{OptOut, "typo", k}, true
	}
	if id, ok := lang.ids[string(s)]; ok && lang.in(id, lang.unsub) {
		return Result{OptOut, "typo", "unsubscribe"}, true
	}
	if len(s) >= 9 {
		if k, ok := c.misspelt(s); ok {
			return Result{OptOut, "typo", k}, true
		}
	}
	return Result{}, false
}

// glued judges a message without spaces, such as "stoptextingme", by cutting it into known words.
func (c *Classifier) glued(w []byte) (Result, bool) {
	const most = 40
	if len(w) < 6 || len(w) > most {
		return Result{}, false
	}
	var from [most + 1]int8 // start of the last word of a cut that ends here, -1 if there is none
	var cost [most + 1]int8 // words in that cut
	for j := 1; j <= len(w); j++ {
		from[j] = -1
		for i := max(0, j-12); i < j; i++ {
			if i > 0 && from[i] < 0 || j-i < 2 && w[i] != 'i' && w[i] != 'u' {
				continue
			}
			if id, ok := lang.ids[string(w[i:j])]; ok && id >= idFirst && (from[j] < 0 || cost[i]+1 < cost[j]) {
				from[j], cost[j] = int8(i), cost[i]+1
			}
		}
	}
	if from[len(w)] <= 0 {
		return Result{}, false
	}
	var cuts [most]int8
	n := 0
	for j := len(w); j > 0; j = int(from[j]) {
		cuts[n] = from[j]
		n++
	}
	var tok [most]token
	var ids [most]uint16
	var place [most + 1]uint8
	end := len(w)
	for k := range n {
		i := int(cuts[k])
		tok[n-1-k] = token{start: int32(i), end: int32(end), flags: hasLetter, script: latin}
		ids[n-1-k] = lang.ids[string(w[i:end])]
		end = i
	}
	x := matcher{g: lang, tok: tok[:n], ids: ids[:n], place: place[:]}
	r := x.run()
	return r, stops(r)
}

func ascii(w []byte) bool {
	for _, c := range w {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
