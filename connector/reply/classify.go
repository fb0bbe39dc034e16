package reply

var yes = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range affirmations {
		m[normalise(w)] = true
	}
	return m
}()

// shortReply is how many words a reply may have without costing an allocation.
const shortReply = 48

// Classify decides what a text means. It reads at most the first 4,096 characters; a longer text in which it finds
// no request to stop is held, because the rest was not read. The time is linear in what is read, and short replies
// cost no allocation.
func (c *Classifier) Classify(text string) Result {
	var buf [256]byte
	var tok [shortReply]token
	m := message{buf: buf[:0], tok: tok[:0]}
	m.fold(text)
	if r, ok := c.exact[string(m.buf)]; ok {
		return r
	}
	r, _ := c.classify(text, &m)
	if m.cut && r.Verdict != OptOut {
		return Result{Hold, "too_long", ""}
	}
	return r
}

// classify tries the rules behind the exact words, in order. It also returns the number of steps of the phrase rules.
func (c *Classifier) classify(text string, m *message) (Result, int) {
	if rest, ok := reaction(text); ok {
		if rest == "" {
			return Result{None, "reaction", ""}, 0
		}
		// Something was written after the quotation: that is what counts.
		m.fold(rest)
		if r, ok := c.exact[string(m.buf)]; ok {
			return r, 0
		}
	}
	if len(m.tok) == 0 {
		switch {
		case m.stopSign:
			return Result{Hold, "stop_emoji", ""}, 0
		case m.blank:
			return Result{None, "blank", ""}, 0
		}
		return Result{None, "none", ""}, 0
	}
	if yes[string(m.buf)] {
		return Result{None, "yes", ""}, 0
	}

	var ids [shortReply]uint16
	var place [shortReply + 1]uint8
	x := matcher{g: lang, tok: m.tok, ids: ids[:0], place: place[:]}
	if len(m.tok) > shortReply {
		x.ids, x.place = make([]uint16, 0, len(m.tok)), make([]uint8, len(m.tok)+1)
	}
	for i := range m.tok {
		x.ids = append(x.ids, c.word(m.word(i), &m.tok[i]))
	}

	// One word, apart from greetings and thanks: misspelt, disguised or written in pieces?
	a, b := 0, len(m.tok)
	for b > a+1 && lang.in(x.ids[b-1], lang.tail) {
		b--
	}
	for a < b-1 && lang.in(x.ids[a], lang.lead) {
		a++
	}
	w := m.buf[m.tok[a].start:m.tok[b-1].end]
	if b-a == 1 {
		if r := c.exact[string(w)]; r.Verdict == Help {
			return r, 0
		}
		if r, ok := c.oneWord(w, &m.tok[a]); ok {
			return r, 0
		}
		if len(m.tok) == 1 && x.ids[0] < idFirst {
			if r, ok := c.glued(w); ok {
				return r, 0
			}
		}
	} else if b-a <= 6 && len(w) <= 32 {
		if r, ok := c.pieces(w); ok {
			return r, 0
		}
	}
	r := x.run()
	return r, x.steps
}

// word returns the vocabulary number of a word, of the word that it disguises, or of the one that it misspells.
func (c *Classifier) word(w []byte, t *token) uint16 {
	id := lang.id(w, t.flags)
	if id != idUnknown && id != idAlnum {
		return id
	}
	if t.script&(cyrillic|greek) != 0 && t.script&latin != 0 {
		if k, ok := c.lookalike(w); ok {
			if id, ok := lang.ids[k]; ok {
				return id
			}
		}
	}
	if id == idUnknown && len(w) >= 4 && len(w) <= 16 && t.script == latin {
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
	if t.script&^latin != 0 || t.flags&hasDigit != 0 {
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
	return Result{}, false
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
