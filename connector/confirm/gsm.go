package confirm

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The GSM 7-bit default alphabet and its extension table, 3GPP TS 23.038 sections 6.2.1 and 6.2.1.1, in code order.
// Position 0x1B of the first is the escape to the second and no character. Position 0x09 is the capital Ç; the small
// ç is in neither table.
const (
	gsmBasic = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ" + "ÆæßÉ" +
		" !\"#¤%&'()*+,-./0123456789:;<=>?" +
		"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§" +
		"¿abcdefghijklmnopqrstuvwxyzäöñüà"
	gsmExtension = "\f^{}\\[~]|€"
)

// gsmWidth holds the septets of each character of the alphabet: 1, or 2 behind the escape.
var gsmWidth = func() map[rune]int {
	m := make(map[rune]int, 137)
	for _, r := range gsmBasic {
		m[r] = 1
	}
	for _, r := range gsmExtension {
		m[r] = 2
	}
	return m
}()

// singleSeptets and the others are what fits a message and, with the header that joins them, a part of a longer one
// (3GPP TS 23.040, section 9.2.3.24.1): septets of GSM-7, or 16-bit units of UCS-2.
const (
	singleSeptets, partSeptets = 160, 153
	singleUnits, partUnits     = 70, 67
)

// GSM7 counts the septets that text takes in the GSM 7-bit alphabet. If a character is outside the alphabet, ok is
// false, bad is the first such character (U+FFFD for text that is not UTF-8), and septets is 0: the text would be
// sent as UCS-2.
func GSM7(text string) (septets int, ok bool, bad rune) {
	for _, r := range text {
		w := gsmWidth[r]
		if w == 0 {
			return 0, false, r
		}
		septets += w
	}
	return septets, true, 0
}

// Segments returns how many SMS text is sent as: 160 septets or parts of 153 in GSM-7, else 70 UTF-16 units or parts
// of 67 in UCS-2. Characters of two septets or two units are not torn apart. An empty text is 0.
func Segments(text string) int {
	single, part, width := singleSeptets, partSeptets, func(r rune) int { return gsmWidth[r] }
	total, ok, _ := GSM7(text)
	if !ok {
		single, part, width = singleUnits, partUnits, units
		total = 0
		for _, r := range text {
			total += units(r)
		}
	}
	switch {
	case total == 0:
		return 0
	case total <= single:
		return 1
	}
	n, used := 1, 0
	for _, r := range text {
		w := width(r)
		if used+w > part {
			n, used = n+1, 0
		}
		used += w
	}
	return n
}

func units(r rune) int {
	if r > 0xFFFF {
		return 2
	}
	return 1
}

// replacements are for characters without a compatibility decomposition into the alphabet.
var replacements = map[rune]string{
	'‘': "'", '’': "'", '‚': "'", '‛': "'", '′': "'", '`': "'", '´': "'", 'ʼ': "'", '‹': "<", '›': ">",
	'“': `"`, '”': `"`, '„': `"`, '‟': `"`, '″': `"`, '«': `"`, '»': `"`,
	'‐': "-", '‑': "-", '‒': "-", '–': "-", '—': "-", '―': "-", '−': "-", '•': "-", '·': ".", '⁄': "/", '×': "x", '÷': "/",
	'\t': " ", '®': "(R)", '©': "(C)", '°': "o", '¢': "c", '¦': "|", '±': "+-", '¬': "-",
	'Œ': "OE", 'œ': "oe", 'Ł': "L", 'ł': "l", 'Đ': "D", 'đ': "d", 'Ð': "D", 'ð': "d", 'Þ': "Th", 'þ': "th", 'ı': "i", 'ẞ': "SS",
}

// Transliterate writes text in the GSM 7-bit alphabet: accents that it lacks are dropped, typographic marks become
// plain ones, invisible characters vanish. ok is false if a character has no replacement; it is left out then.
func Transliterate(text string) (gsm string, ok bool) {
	var b strings.Builder
	ok = true
	for _, r := range norm.NFC.String(text) {
		if gsmWidth[r] != 0 {
			b.WriteRune(r)
			continue
		}
		if s, known := replacements[r]; known {
			b.WriteString(s)
			continue
		}
		for _, d := range norm.NFKD.String(string(r)) {
			switch s, known := replacements[d]; {
			case gsmWidth[d] != 0:
				b.WriteRune(d)
			case known:
				b.WriteString(s)
			case d == utf8.RuneError:
				ok = false
			case unicode.In(d, unicode.Mn, unicode.Cf, unicode.Cc):
			case unicode.IsSpace(d):
				b.WriteByte(' ')
			default:
				ok = false
			}
		}
	}
	return b.String(), ok
}
