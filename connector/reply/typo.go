package reply

import "slices"

// target is a word that others may be misspellings of.
type target struct {
	word    string
	letters uint32 // which letters it has
}

func newTarget(w string) target { return target{w, letterSet(w)} }

func letterSet[T ~string | ~[]byte](w T) uint32 {
	var s uint32
	for i := range len(w) {
		if c := w[i]; 'a' <= c && c <= 'z' {
			s |= 1 << (c - 'a')
		} else {
			s |= 1 << 31
		}
	}
	return s
}

// neighbours are the keys around each letter of a QWERTY keyboard that a thumb hits by mistake.
var neighbours = [26]string{
	"qwsz", "vghn", "xdfv", "serfcx", "wrsd34", "drtgvc", "ftyhbv", "gyujnb", "uojk89", "huiknm", "jiolm", "kop",
	"njk", "bhjm", "ipkl09", "ol0", "wa12", "etdf45", "awedxz", "ryfg56", "yihj78", "cfgb", "qeas23", "zsdc",
	"tugh67", "asx",
}

func near(a, b byte) bool {
	if a == b {
		return true
	}
	if 'a' <= b && b <= 'z' {
		n := neighbours[b-'a']
		for i := range len(n) {
			if n[i] == a {
				return true
			}
		}
	}
	return false
}

// misspells reports whether w is a likely slip of the thumb for t: one swap, doubled letter, missing letter or
// neighbouring key, and in words of eight letters or more any two slips. Words of three letters have no misspellings
// but doubled letters: too many other words are one key away.
func misspells(w []byte, t target) bool {
	n := len(t.word)
	if len(w) < n-2 || len(w) > n+2 || len(w) < 3 || n < 3 {
		return false
	}
	diff := letterSet(w) ^ t.letters
	if diff&(diff-1)&((diff&(diff-1))-1) != 0 && n < 8 { // more than two letters differ
		return false
	}
	p := 0
	for p < len(w) && p < n && w[p] == t.word[p] {
		p++
	}
	q := 0
	for q < len(w)-p && q < n-p && w[len(w)-1-q] == t.word[n-1-q] {
		q++
	}
	dw, dt := len(w)-p-q, n-p-q // what differs between the common ends
	switch {
	case dw == 0 && dt == 0:
		return false
	case dw == 1 && dt == 0: // one letter too many
		c := w[p]
		if p > 0 && c == t.word[p-1] || p < n && c == t.word[p] {
			return true
		}
		if n < 4 {
			return false
		}
		return n >= 7 || p == 0 && near(c, t.word[0]) || p > 0 && near(c, t.word[p-1]) || p < n && p > 0 && near(c, t.word[p])
	case n < 4:
		return false
	case dw == 0 && dt == 1: // a letter is missing, not the first
		return p > 0 || n >= 8
	case dw == 1 && dt == 1:
		return near(w[p], t.word[p]) || n >= 8
	case dw == 2 && dt == 2 && w[p] == t.word[p+1] && w[p+1] == t.word[p]:
		return true
	}
	if n == 4 && len(w) == 4 && w[0] == t.word[0] && diff == 0 { // the same letters in another order: "sopt"
		return true
	}
	return n >= 8 && near(w[0], t.word[0]) && distance(w, t.word) <= 2
}

// distance is the optimal string alignment distance of two short words; long ones count as far apart.
func distance(a []byte, b string) int {
	const most = 40
	if len(a) >= most || len(b) >= most {
		return most
	}
	var rows [3][most]uint8
	for j := range len(b) + 1 {
		rows[0][j] = uint8(j)
	}
	for i := 1; i <= len(a); i++ {
		cur, prev, prev2 := &rows[i%3], &rows[(i+2)%3], &rows[(i+1)%3]
		cur[0] = uint8(i)
		for j := 1; j <= len(b); j++ {
			cost := uint8(1)
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, prev2[j-2]+1)
			}
			cur[j] = d
		}
	}
	return int(rows[len(a)%3][len(b)])
}

// typoWords are the built-in words whose misspellings are looked for. The short ones of other languages are too
// close to other words.
var typoWords = []string{
	"stop", "stopall", "unsubscribe", "unsub", "cancel", "quit", "end", "revoke", "remove", "optout", "terminate",
	"arret", "desabonner", "detener", "cancelar", "abmelden", "descadastrar", "stopp", "stahp",
}

// slips are the words of sentences whose misspellings are looked for.
var slips = func() []target {
	var ts []target
	for _, w := range []string{
		"stop", "unsubscribe", "remove", "cancel", "texting", "messages", "messaging", "message", "sending", "contacting",
		"please", "delete", "texts", "bothering", "harassing", "contact", "number", "spamming", "calling", "text", "alone",
	} {
		ts = append(ts, newTarget(w))
	}
	return ts
}()

// squeeze drops repeated letters: "stooop" becomes "stop". The result shares w's backing array only if it is equal.
func squeeze(w []byte, into []byte) []byte {
	into = into[:0]
	for i, c := range w {
		if i == 0 || c != w[i-1] {
			into = append(into, c)
		}
	}
	return into
}

// drawn reports whether a letter comes three times in a row, as in "stoooop".
func drawn(w []byte) bool {
	for i := 2; i < len(w); i++ {
		if w[i] == w[i-1] && w[i] == w[i-2] {
			return true
		}
	}
	return false
}

// doubled reports whether at least two letters are doubled, as in "sttopp".
func doubled(w []byte) bool {
	n := 0
	for i := 1; i < len(w); i++ {
		if w[i] == w[i-1] {
			n++
		}
	}
	return n > 1
}

// lookalikes are letters of other scripts that pass for Latin ones, in normal form.
var lookalikes = map[rune]byte{
	'а': 'a', 'в': 'b', 'с': 'c', 'е': 'e', 'н': 'h', 'і': 'i', 'ј': 'j', 'к': 'k', 'м': 'm', 'о': 'o', 'р': 'p',
	'ԛ': 'q', 'ѕ': 's', 'т': 't', 'у': 'y', 'х': 'x', 'ԝ': 'w', 'ѵ': 'v', 'ԁ': 'd', 'һ': 'h', 'ӏ': 'l', 'ь': 'b',
	'α': 'a', 'β': 'b', 'ε': 'e', 'η': 'n', 'ι': 'i', 'κ': 'k', 'μ': 'm', 'ν': 'v', 'ο': 'o', 'ρ': 'p', 'τ': 't',
	'υ': 'u', 'χ': 'x', 'ζ': 'z', 'σ': 'o', 'ς': 's', 'ϲ': 'c', 'ϳ': 'j',
	'ᴀ': 'a', 'ʙ': 'b', 'ᴄ': 'c', 'ᴅ': 'd', 'ᴇ': 'e', 'ɪ': 'i', 'ᴋ': 'k', 'ʟ': 'l', 'ᴍ': 'm', 'ɴ': 'n', 'ᴏ': 'o',
	'ᴘ': 'p', 'ǫ': 'q', 'ʀ': 'r', 'ꜱ': 's', 'ᴛ': 't', 'ᴜ': 'u', 'ᴠ': 'v', 'ᴡ': 'w', 'ᴢ': 'z', 'ʏ': 'y',
	'օ': 'o',
}

// leet are digits that pass for letters.
var leet = map[byte]byte{'0': 'o', '1': 'i', '3': 'e', '4': 'a', '5': 's', '7': 't', '8': 'b'}

// skeleton replaces look-alikes by the Latin letters they pass for; it reports whether there were any and nothing
// else foreign. Cyrillic С stands for C by its look and for S by its sound, so es says which.
func skeleton(w []byte, es byte, into []byte) ([]byte, bool) {
	into = into[:0]
	found := false
	for _, r := range string(w) {
		switch l, ok := lookalikes[r]; {
		case r == 'с':
			into, found = append(into, es), true
		case ok:
			into, found = append(into, l), true
		case r < 0x80:
			c := byte(r)
			if l, ok := leet[c]; ok {
				c, found = l, true
			}
			into = append(into, c)
		default:
			return into, false
		}
	}
	return into, found
}

// isHard reports whether w is one of the single opt-out words.
func (c *Classifier) isHard(w []byte) (string, bool) {
	r, ok := c.exact[string(w)]
	return r.Keyword, ok && r.Verdict == OptOut
}

// lookalike finds an opt-out word written with look-alike letters.
func (c *Classifier) lookalike(w []byte) (string, bool) {
	if len(w) > 64 {
		return "", false
	}
	var buf [64]byte
	for _, es := range [2]byte{'c', 's'} {
		if s, found := skeleton(w, es, buf[:0]); found && len(s) > 2 {
			if k, ok := c.isHard(s); ok {
				return k, true
			}
		}
	}
	return "", false
}

// misspelt finds the opt-out word that w is a misspelling of.
func (c *Classifier) misspelt(w []byte) (string, bool) {
	if len(w) > 64 || len(w) < 3 {
		return "", false
	}
	if id, known := lang.ids[string(w)]; known && id >= idFirst {
		return "", false
	}
	if _, known := c.exact[string(w)]; known {
		return "", false
	}
	for i := range c.hard {
		if misspells(w, c.hard[i]) {
			return c.hard[i].word, true
		}
	}
	var buf [64]byte
	if drawn(w) || doubled(w) {
		s := squeeze(w, buf[:0])
		for i := range c.hard {
			var b2 [64]byte
			if len(c.hard[i].word) <= 64 && slices.Equal(s, squeeze([]byte(c.hard[i].word), b2[:0])) {
				return c.hard[i].word, true
			}
		}
	}
	// stop1, 22stop: a key beside the word; stopstop: the word again
	a, b := 0, len(w)
	for a < b && '0' <= w[a] && w[a] <= '9' {
		a++
	}
	for a < b && '0' <= w[b-1] && w[b-1] <= '9' {
		b--
	}
	if n := len(w) - (b - a); n > 0 && n <= 2 && b-a >= 4 {
		if k, ok := c.isHard(w[a:b]); ok {
			return k, true
		}
	}
	for i := range c.hard {
		t := c.hard[i].word
		if len(t) < 3 || len(w) <= len(t) || len(w)%len(t) != 0 {
			continue
		}
		k := 0
		for k < len(w) && string(w[k:k+len(t)]) == t {
			k += len(t)
		}
		if k == len(w) {
			return t, true
		}
	}
	return "", false
}
