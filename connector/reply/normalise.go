package reply

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxRunes is how much of a text is read. The longest SMS is 1,600 characters, so only media messages and files can
// be longer; what was not read cannot be vouched for, see rule too_long.
const maxRunes = 4096

// token is one word of a message: folded letters and digits, in message.buf.
type token struct {
	start, end int32
	flags      tokenFlag
	script     script
}

type tokenFlag uint8

const (
	afterBreak tokenFlag = 1 << iota // a sentence ended before this word
	afterComma                       // a comma, colon, dash or bracket stands before this word
	afterColon                       // a ":" or ";" touches this word, as in the emoticon ":p"
	hasDigit
	hasLetter
)

type script uint8

const (
	latin script = 1 << iota
	cyrillic
	greek
	otherScript
)

// message is a text after folding. buf is the normal form: words joined by single spaces. Two texts with the same
// normal form mean the same to the keyword rules, and the normal form of a normal form is itself.
type message struct {
	buf      []byte
	tok      []token
	stopSign bool // an emoji that says stop: 🛑 ⛔ 🚫 ✋ 🙅 🖕
	blank    bool // nothing at all but white space and invisible characters
	cut      bool // longer than maxRunes
	question bool // ends with a question mark
}

func (m *message) word(i int) []byte { return m.buf[m.tok[i].start:m.tok[i].end] }

const (
	cSeparator = iota
	cWord
	cSkip
	cBreak
	cComma
	cColon
	cApostrophe
)

// asciiClass and asciiFold decide everything about the first 128 code points, which is nearly all of all texts.
var asciiClass, asciiFold = func() (class, fold [utf8.RuneSelf]byte) {
	for c := range class {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			class[c], fold[c] = cWord, byte(c)
		case 'A' <= c && c <= 'Z':
			class[c], fold[c] = cWord, byte(c)+'a'-'A'
		case c == '.', c == '!', c == '?', c == '\n', c == '\r', c == '\v', c == '\f':
			class[c] = cBreak
		case c == ';', c == ':':
			class[c] = cColon
		case c == ',', c == '(', c == ')', c == '"', c == '-', c == '/', c == '[', c == ']':
			class[c] = cComma
		case c == '\'', c == '`':
			class[c] = cApostrophe
		case c < ' ' && c != '\t', c == 0x7f:
			class[c] = cSkip
		}
	}
	return
}()

// folder holds the state of one pass over a text.
type folder struct {
	m       *message
	open    bool      // the last token may still grow
	quote   bool      // an apostrophe was seen inside the open token
	pending tokenFlag // what stands before the next token
}

// fold reads text into m, whose slices are reused. It visits each byte once and allocates only when the slices are
// too short.
func (m *message) fold(text string) {
	m.buf, m.tok = m.buf[:0], m.tok[:0]
	m.stopSign, m.cut, m.question = false, false, false
	m.blank = true
	f := folder{m: m}
	runes := 0
	singles := false
	for i := 0; i < len(text); runes++ {
		if runes == maxRunes {
			m.cut = true
			break
		}
		c := text[i]
		if c < utf8.RuneSelf {
			i++
			switch asciiClass[c] {
			case cWord:
				if f.open && !f.quote {
					m.buf = append(m.buf, asciiFold[c])
					t := &m.tok[len(m.tok)-1]
					t.end++
					if c <= '9' {
						t.flags |= hasDigit
					} else {
						t.flags |= hasLetter
						t.script |= latin
					}
				} else {
					f.letter(rune(asciiFold[c]))
				}
			default:
				f.mark(asciiClass[c], rune(c))
			}
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError {
			i += n
			continue // an invalid byte is dropped: "ST\xffOP" still means STOP
		}
		f.rune(r, text[i:i+n])
		i += n
	}
	f.close()
	if len(m.tok) > 0 {
		m.blank = false
	}
	for k := range m.tok {
		if m.tok[k].end-m.tok[k].start == 1 {
			singles = true
			break
		}
	}
	if singles {
		m.joinLetters()
	}
}

// mark handles a character that is not part of a word.
func (f *folder) mark(class byte, r rune) {
	if r > ' ' {
		f.m.blank = false
	}
	switch class {
	case cSkip:
		return
	case cApostrophe:
		if f.open {
			f.quote = true // decided when the next letter comes
		}
		return
	}
	hyphen := r == '-' && f.open // "opt-out" is one clause, "stop - Bob" two
	f.close()
	if hyphen {
		return
	}
	switch class {
	case cBreak:
		f.pending |= afterBreak
	case cComma:
		f.pending |= afterComma
	case cColon:
		f.pending |= afterComma | afterColon
	}
	if class != cComma && class != cColon {
		f.pending &^= afterColon
	}
	if r == '?' {
		f.m.question = true
	} else if r > ' ' {
		f.m.question = f.m.question && class == cBreak
	}
}

func (f *folder) close() {
	if !f.open {
		return
	}
	f.open, f.quote = false, false
	// ":p", ";d" and the like are faces, not words.
	m := f.m
	t := &m.tok[len(m.tok)-1]
	if t.flags&afterColon != 0 && t.end-t.start == 1 {
		switch m.buf[t.start] {
		case 'd', 'p', 'o', 'x', 's', 'c', 'b':
			f.pending |= t.flags & (afterBreak | afterComma)
			m.buf = m.buf[:max(0, t.start-1)]
			m.tok = m.tok[:len(m.tok)-1]
		}
	}
}

// letter appends one folded letter or digit.
func (f *folder) letter(r rune) {
	m := f.m
	if f.open && f.quote {
		// "don't" is one word; "d'arrêter" and "qu'on" are two.
		w := m.word(len(m.tok) - 1)
		f.quote = false
		if elides(w) {
			f.open = false
		}
	}
	if !f.open {
		if len(m.buf) > 0 {
			m.buf = append(m.buf, ' ')
		}
		n := int32(len(m.buf))
		m.tok = append(m.tok, token{start: n, end: n, flags: f.pending})
		f.pending, f.open = 0, true
		m.question = false
	}
	m.buf = utf8.AppendRune(m.buf, r)
	t := &m.tok[len(m.tok)-1]
	t.end = int32(len(m.buf))
	switch {
	case '0' <= r && r <= '9':
		t.flags |= hasDigit
	case 'a' <= r && r <= 'z':
		t.flags |= hasLetter
		t.script |= latin
	case unicode.Is(unicode.Latin, r):
		t.flags |= hasLetter
		t.script |= latin
	case unicode.Is(unicode.Cyrillic, r):
		t.flags |= hasLetter
		t.script |= cyrillic
	case unicode.Is(unicode.Greek, r):
		t.flags |= hasLetter
		t.script |= greek
	default:
		t.flags |= hasLetter
		t.script |= otherScript
	}
}

// elides reports whether the word before an apostrophe is a French or Italian article or pronoun.
func elides(w []byte) bool {
	switch len(w) {
	case 1:
		switch w[0] {
		case 'd', 'l', 'm', 'n', 's', 't', 'j', 'c':
			return true
		}
	case 2:
		return w[0] == 'q' && w[1] == 'u'
	}
	return false
}

// rune handles one character outside ASCII; enc is its encoding.
func (f *folder) rune(r rune, enc string) {
	if r == 'Ϲ' || r == 'ϲ' {
		f.letter('ϲ') // decomposes to sigma, but looks like C
		return
	}
	if p := norm.NFKD.PropertiesString(enc); p.Decomposition() != nil {
		d := p.Decomposition()
		for len(d) > 0 {
			q, n := utf8.DecodeRune(d)
			f.folded(q)
			d = d[n:]
		}
		return
	}
	f.folded(r)
}

// folded handles one character of a compatibility decomposition.
func (f *folder) folded(r rune) {
	if r < utf8.RuneSelf {
		if asciiClass[r] == cWord {
			f.letter(rune(asciiFold[r]))
		} else {
			f.mark(asciiClass[r], r)
		}
		return
	}
	switch r {
	case '‘', '’', '‛', 'ʼ', 'ʹ', '′', '´', '＇':
		f.mark(cApostrophe, r)
		return
	case '…', '。', '！', '？', '¡', '¿', '\u2028', '\u2029', '\u0085', '؟', '।':
		f.mark(cBreak, r)
		return
	case '–', '—', '―', '«', '»', '“', '”', '„', '‚', '‹', '›', '、', '，':
		f.mark(cComma, r)
		return
	case '🛑', '⛔', '🚫', '✋', '🖐', '🙅', '🖕', '🚷', '📵':
		f.m.stopSign = true
		f.mark(cBreak, r)
		return
	case 'ß', 'ẞ':
		f.letter('s')
		f.letter('s')
		return
	case 'æ', 'Æ':
		f.letter('a')
		f.letter('e')
		return
	case 'œ', 'Œ':
		f.letter('o')
		f.letter('e')
		return
	case 'ø', 'Ø':
		f.letter('o')
		return
	case 'ł', 'Ł':
		f.letter('l')
		return
	case 'đ', 'Đ', 'ð', 'Ð':
		f.letter('d')
		return
	case 'ı':
		f.letter('i')
		return
	}
	// Letters in black circles and squares have no decomposition.
	switch {
	case 0x1F150 <= r && r <= 0x1F169:
		f.letter('a' + r - 0x1F150)
		return
	case 0x1F170 <= r && r <= 0x1F189:
		f.letter('a' + r - 0x1F170)
		return
	}
	switch {
	case unicode.Is(unicode.Mn, r), unicode.Is(unicode.Me, r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Cc, r),
		unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r), unicode.Is(unicode.Variation_Selector, r):
		return
	case unicode.IsLetter(r):
		l := unicode.ToLower(r)
		if l < utf8.RuneSelf && asciiClass[l] != cWord {
			return
		}
		f.letter(l)
	case unicode.IsNumber(r), unicode.Is(unicode.Mc, r):
		f.letter(r)
	case unicode.IsSpace(r):
		f.close()
	default:
		f.mark(cBreak, r) // emoji and symbols end a sentence
	}
}

// joinLetters makes one word of three or more letters that stand alone: "S T O P", "s.t.o.p", "S-T-O-P".
func (m *message) joinLetters() {
	out := m.tok[:0]
	n := 0
	w := m.buf[:0]
	src := m.tok
	for i := 0; i < len(src); i += n {
		n = 1
		for i+n <= len(src) && single(src[i+n-1]) {
			n++
		}
		n-- // length of the run of single letters at i
		if n < 3 {
			n = 1
		}
		t := src[i]
		start := int32(len(w))
		if start > 0 {
			start++
			w = append(w, ' ')
		}
		for k := range n {
			w = append(w, m.buf[src[i+k].start:src[i+k].end]...)
			t.script |= src[i+k].script
		}
		t.start, t.end = start, int32(len(w))
		out = append(out, t)
	}
	m.buf, m.tok = w, out
}

func single(t token) bool {
	return t.flags&hasDigit == 0 && t.end-t.start == 1
}
