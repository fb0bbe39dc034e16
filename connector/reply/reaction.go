package reply

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A reaction ("tapback") to a message arrives at a phone outside iMessage or RCS as a text that names the reaction and
// quotes the message, which usually ends in "Reply STOP to opt out". Apple's wording follows the language of the
// phone; Google Messages puts the emoji first. See "React to messages with Tapbacks" at
// https://support.apple.com/guide/iphone and "Use reactions in Google Messages" at https://support.google.com/messages.

// reactionVerbs are what stands before the quotation, folded, longest first where one begins another.
var reactionVerbs = []string{
	// English
	"liked", "loved", "disliked", "laughed at", "emphasized", "emphasised", "questioned", "reacted",
	"reacted to", "removed a like from", "removed a heart from", "removed a dislike from", "removed a laugh from",
	"removed an exclamation from", "removed an exclamation mark from", "removed an exclamation point from",
	"removed a question mark from", "removed an emphasis from", "removed a from", "removed from", "removed a reaction from",
	"removed a sticker from", "reacted with a sticker to", "to",
	// French
	"a aime", "a adore", "n a pas aime", "a ri de", "a ri a", "a mis en evidence", "a souligne", "a mis l accent sur",
	"a pose une question sur", "s est interroge sur", "a ajoute la mention j aime a", "a ajoute un coeur a",
	"a ajoute la mention je n aime pas a", "a ajoute un rire a", "a ajoute des points d exclamation a",
	"a ajoute un point d interrogation a", "a retire un j adore de", "a retire un j aime de", "a reagi avec a",
	"a reagi par a", "a reagi a", "a supprime la mention j aime de", "a retire la mention j aime de", "a",
	// Spanish
	"le gusto", "le encanto", "no le gusto", "le dio risa", "se rio de", "se rio con", "enfatizo", "exclamo", "cuestiono",
	"le dio importancia a", "ha dicho que le gusta", "indico que le gusta", "reacciono con a", "ha reaccionado con a",
	"reacciono a", "quito un me gusta de", "le ha gustado", "le ha encantado", "le gusta", "le encanta", "pregunto por",
	"me gusta", "me encanta",
	// Portuguese
	"gostou de", "gostou", "amou", "adorou", "nao gostou de", "riu de", "riu", "enfatizou", "questionou", "curtiu",
	"reagiu com a", "reagiu a", "removeu um gostei de",
	// German
	"gefallt", "liebt", "hat", "gefallt nicht", "lacht uber", "lachte uber", "betont", "betonte", "hinterfragt",
	"reagierte mit auf", "hat mit auf reagiert", "reagierte auf", "hat auf", "gefiel", "liebte",
	// Italian and Dutch
	"ha messo mi piace a", "ha messo", "ha messo un cuore a", "ha riso a", "ha riso di", "ha enfatizzato",
	"ha messo in dubbio", "ha reagito con a", "mi piace", "adora", "non mi piace", "vond leuk", "vindt leuk", "vond",
	"moet lachen om", "benadrukte", "reageerde met op",
}

var reactionVerb = func() map[string]bool {
	m := map[string]bool{}
	for _, v := range reactionVerbs {
		m[v] = true
	}
	return m
}()

// maxVerb bounds the search for the opening quotation mark, in bytes.
const maxVerb = 80

// reaction reports whether a text is a reaction that quotes another message, and returns what was written behind the
// quotation. It works in m.
func reaction(text string, m *message) (rest string, ok bool) {
	text = strings.TrimFunc(text, ignorable)
	open := -1
	for i, r := range text {
		if i > maxVerb {
			break
		}
		if openingQuote(r) {
			open = i
			break
		}
	}
	if open < 0 {
		return "", strings.HasPrefix(text, "Liked an ") || strings.HasPrefix(text, "Loved an ")
	}
	if open == 0 {
		return "", false
	}
	m.fold(text[:open])
	if !reactionVerb[string(m.buf)] {
		return "", false
	}
	if len(m.buf) <= 2 && !symbolFirst(text) {
		return "", false // 👍 to “…” is a reaction, To “…” is not
	}
	_, n := utf8.DecodeRuneInString(text[open:])
	quoted := text[open+n:]
	close := strings.LastIndexFunc(quoted, closingQuote)
	if close < 0 {
		return "", true // cut off by the length limit of a text
	}
	_, n = utf8.DecodeRuneInString(quoted[close:])
	rest = strings.TrimFunc(quoted[close+n:], func(r rune) bool { return ignorable(r) || unicode.IsPunct(r) })
	goesOn := string(m.buf) == "hat" || string(m.buf) == "ha messo" // the verb goes on behind the quotation
	if goesOn || rest == "" {
		return "", true
	}
	m.fold(rest)
	switch string(m.buf) {
	case "", "mit gefallt mir markiert", "reagiert", "geliebt", "leuk", "ein herz gegeben", "mit reagiert", "gelacht",
		"betont", "hinterfragt", "nicht", "mi piace a", "a":
		rest = ""
	}
	return rest, true
}

func ignorable(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }

func openingQuote(r rune) bool {
	switch r {
	case '"', '“', '”', '„', '«', '‹', '‟', '「', '『', '＂':
		return true
	}
	return false
}

func closingQuote(r rune) bool {
	switch r {
	case '"', '“', '”', '„', '»', '›', '‟', '」', '』', '＂':
		return true
	}
	return false
}

// symbolFirst reports whether the text begins with something that is no letter, such as an emoji.
func symbolFirst(text string) bool {
	r, _ := utf8.DecodeRuneInString(text)
	return r >= 0x80 && !unicode.IsLetter(r)
}
