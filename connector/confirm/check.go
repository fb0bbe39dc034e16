package confirm

import (
	"fmt"
	"maps"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/sms/phone"
)

// Problem is one thing that is wrong with the configured texts.
type Problem struct {
	Field  string // "brand", "help", "frequency", or "templates." and kind and language, as in "templates.stop.es"
	Reason string // what is wrong
	Hint   string // what to do about it
}

// Error returns field, reason and hint in one line.
func (p Problem) Error() string { return p.Field + ": " + p.Reason + " (" + p.Hint + ")" }

// checker collects problems. fillBrand and fillHelp are what texts are filled in with: brand and help, or stand-ins
// where those are no good, so that one mistake is not reported for every text again.
type checker struct {
	brand, help         string
	fillBrand, fillHelp string
	frequency           int
	problems            []Problem
}

func newChecker(o Options) *checker {
	c := &checker{
		brand:     norm.NFC.String(strings.TrimSpace(o.Brand)),
		help:      norm.NFC.String(strings.TrimSpace(o.Help)),
		frequency: o.Frequency,
	}
	c.fillBrand, c.fillHelp = c.brand, c.help
	if !c.short("brand", c.brand, maxBrand, "the name that recipients know you by") {
		c.fillBrand = "Brand"
	}
	switch {
	case !c.short("help", c.help, maxHelp, "a telephone number, an e-mail or web address"):
		c.fillHelp = "example.com"
	case !contact(c.help):
		c.add("help", "is no telephone number, e-mail address or https address", `write it as in "+1 555 010 0100", "help@example.com" or "example.com/help"`)
		c.fillHelp = "example.com"
	}
	if c.frequency < 0 || c.frequency > maxFrequency {
		c.add("frequency", fmt.Sprintf("%d messages a month is out of range", c.frequency), "1 to 999, or 0 if it varies")
		c.frequency = 0
	}
	return c
}

func (c *checker) add(field, reason, hint string) {
	c.problems = append(c.problems, Problem{field, reason, hint})
}

// short checks a value that goes into every text.
func (c *checker) short(field, v string, limit int, what string) bool {
	before := len(c.problems)
	if v == "" {
		c.add(field, "is empty", "set it to "+what)
		return false
	}
	if !strings.ContainsFunc(v, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
		c.add(field, "has no letter or digit", "set it to "+what)
	}
	c.characters(field, v)
	t, _ := Transliterate(v)
	if n, _, _ := GSM7(t); n > limit {
		c.add(field, fmt.Sprintf("takes %d septets of the GSM-7 alphabet, at most %d are allowed", n, limit), "shorten it; ^ { } \\ [ ~ ] | and the euro sign count two")
	}
	if host := shortener(v); host != "" {
		c.add(field, host+" is a public URL shortener, which carriers filter", "write the address of your own domain")
	}
	return len(c.problems) == before
}

// characters refuses control characters and those outside the GSM alphabet.
func (c *checker) characters(field, text string) {
	if i := strings.IndexFunc(text, unicode.IsControl); i >= 0 {
		r, _ := utf8.DecodeRuneInString(text[i:])
		c.add(field, fmt.Sprintf("has the control character %U", r), "write it in one line, without tabs and line breaks")
	}
	var names []string
	for _, r := range text {
		if gsmWidth[r] == 0 && !unicode.IsControl(r) {
			if name := fmt.Sprintf("%q (%U)", string(r), r); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if names == nil {
		return
	}
	if len(names) > 5 {
		names = append(names[:5], "and others")
	}
	hint := "write it in letters of the GSM-7 alphabet"
	if t, ok := Transliterate(text); ok && t != "" {
		hint = fmt.Sprintf("write %q", t)
	}
	c.add(field, "outside the GSM-7 alphabet, so that only 70 characters fit one message: "+strings.Join(names, ", "), hint)
}

var webAddress = regexp.MustCompile(`^(https://)?([\p{L}\p{N}-]+\.)+\p{L}{2,}(:\d+)?([/?#]\S*)?$`)

// contact reports whether h is something a person can call, write to or open.
func contact(h string) bool {
	if a, err := mail.ParseAddress(h); err == nil {
		_, domain, _ := strings.Cut(a.Address, "@")
		return a.Address == h && strings.Contains(domain, ".")
	}
	if webAddress.MatchString(h) {
		return true
	}
	_, err := phone.Parse(h, "US")
	return err == nil
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// template checks one text and returns it with the placeholders filled in.
func (c *checker) template(kind Kind, lang, text string) string {
	field := "templates." + string(kind) + "." + lang
	bad := func(reason, hint string) { c.add(field, reason, hint) }
	text = norm.NFC.String(strings.TrimSpace(text))
	if text == "" {
		bad("is empty", "write a text, or leave it out to use the built-in one")
		return ""
	}

	for _, p := range placeholder.FindAllString(text, -1) {
		if p != "{brand}" && p != "{help}" && p != "{frequency}" {
			bad(fmt.Sprintf("has the unknown placeholder %q", p), "use {brand}, {help} or {frequency}")
		}
	}
	plain := placeholder.ReplaceAllString(text, "\n")
	if strings.ContainsAny(plain, "{}") {
		bad("has a brace without its partner", "write placeholders as {brand}, {help} or {frequency}")
	}
	c.characters(field, text)
	filled := strings.NewReplacer("{brand}", c.fillBrand, "{help}", c.fillHelp, "{frequency}", frequency(lang, c.frequency)).Replace(text)
	gsm, _ := Transliterate(filled)
	if n, _, _ := GSM7(gsm); n > singleSeptets {
		bad(fmt.Sprintf("takes %d septets with brand and contact filled in, %d fit one message", n, singleSeptets), fmt.Sprintf("shorten it by %d", n-singleSeptets))
	}
	if host := shortener(filled); host != "" {
		bad(host+" is a public URL shortener, which carriers filter", "write the address of your own domain")
	}

	// From here on only the operator's own words count: the names of brand and contact may say anything.
	plain, named := cut(plain, c.brand)
	plain, contacted := cut(plain, c.help)
	if !named && !strings.Contains(text, "{brand}") {
		bad("does not name the brand", "begin it with {brand}")
	}
	if w := marketing(lang, plain); w != "" {
		bad(fmt.Sprintf("reads as marketing: %q", w), "say only what the text is for (47 CFR 64.1200(a)(12))")
	}
	caps := capitals(plain)
	says := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(caps, w) })
	}
	l := languages[lang]
	if kind != StopConfirmation && !says(l.stop...) {
		bad("does not say how to stop", fmt.Sprintf("name the word %s in capitals, as in %q", strings.Join(l.stop, " or "), l.example))
	}
	switch kind {
	case StopConfirmation:
		if !l.noMore.MatchString(strings.Join(words(plain), " ")) {
			bad("does not say that no more messages come", fmt.Sprintf("say it as in %q", l.noMoreExample))
		}
		if w := asks(plain); w != "" {
			bad("asks for something: "+w, "only confirm; telling the person to reply START is allowed (47 CFR 64.1200(a)(12), FCC 12-143)")
		}
	case StartConfirmation:
		if !says(l.help...) && !contacted && !strings.Contains(text, "{help}") {
			bad("does not say how to get help", "name the word "+l.help[0]+" in capitals, or {help}")
		}
	case HelpAnswer:
		if !contacted && !strings.Contains(text, "{help}") {
			bad("does not name the help contact", "write {help}")
		}
	case OptInQuestion:
		if !says(l.yes...) {
			bad("does not say which word answers it", "name the word "+l.yes[0]+" in capitals")
		}
	}
	return filled
}

// unknown reports kinds and languages that do not exist.
func (c *checker) unknown(templates map[Kind]map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(templates)) {
		if !slices.Contains(Kinds(), k) {
			c.add("templates."+string(k), "is no kind of text", "use stop, start, help or opt_in_question")
			continue
		}
		for _, lang := range slices.Sorted(maps.Keys(templates[k])) {
			if !slices.Contains(Languages(), lang) {
				c.add("templates."+string(k)+"."+lang, "heed cannot check texts in this language", "use "+strings.Join(Languages(), ", "))
			}
		}
	}
}

// words returns the words of a text: lower case, without accents, split at everything but letters and digits.
func words(text string) []string {
	folded := strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Mn, unicode.Cf) {
			return -1
		}
		return unicode.ToLower(r)
	}, norm.NFKD.String(text))
	return strings.FieldsFunc(folded, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// capitals returns the words that stand in capitals, without accents.
func capitals(text string) []string {
	var caps []string
	for _, w := range strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if strings.ToUpper(w) == w {
			caps = append(caps, strings.ToUpper(strings.Join(words(w), "")))
		}
	}
	return caps
}

// cut replaces name by a break wherever it stands by itself in text, and reports whether it did.
func cut(text, name string) (string, bool) {
	if name == "" {
		return text, false
	}
	joins := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	var b strings.Builder
	found, from := false, 0
	for {
		i := strings.Index(text[from:], name)
		if i < 0 {
			break
		}
		start, end := from+i, from+i+len(name)
		before, _ := utf8.DecodeLastRuneInString(text[:start])
		after, _ := utf8.DecodeRuneInString(text[end:])
		first, size := utf8.DecodeRuneInString(name)
		last, _ := utf8.DecodeLastRuneInString(name)
		if joins(before) && joins(first) || joins(after) && joins(last) {
			b.WriteString(text[from : start+size])
			from = start + size
			continue
		}
		b.WriteString(text[from:start])
		b.WriteByte('\n')
		from, found = end, true
	}
	b.WriteString(text[from:])
	return b.String(), found
}

var host = regexp.MustCompile(`(?:[a-z0-9-]+\.)+[a-z]{2,}`)

var shorteners = []string{
	"bit.ly", "bitly.com", "j.mp", "tinyurl.com", "tiny.cc", "t.co", "goo.gl", "ow.ly", "is.gd", "v.gd", "buff.ly",
	"rebrand.ly", "cutt.ly", "shorturl.at", "short.io", "rb.gy", "t.ly", "lnkd.in", "soo.gd", "s2r.co", "clicky.me",
	"budurl.com", "bc.vc", "lc.chat", "dlvr.it", "adf.ly", "shorte.st", "trib.al", "qr.ae", "u.to", "bl.ink",
}

// shortener returns the public URL shortener that text leads to, or "".
func shortener(text string) string {
	for _, h := range host.FindAllString(strings.ToLower(text), -1) {
		for _, s := range shorteners {
			if h == s || strings.HasSuffix(h, "."+s) {
				return s
			}
		}
	}
	return ""
}

var price = regexp.MustCompile(`(?i)(?:[$€£¥]|\b(?:usd|eur))\s*\d[\d.,]*|\d[\d.,]*\s*(?:[$€£¥%]|\b(?:usd|eur|dollars?|dolares|euros?|reais|pesos|bucks)\b)`)

// marketing returns the word or price in text that has no place in an answer, or "".
func marketing(lang, text string) string {
	if p := price.FindString(text); p != "" {
		return p
	}
	joined := " " + strings.Join(words(text), " ") + " "
	for _, ok := range []string{" toll free ", " feel free ", " free of charge "} {
		joined = strings.ReplaceAll(joined, ok, " ")
	}
	for _, list := range [][]string{everyLanguage, languages[lang].marketing} {
		for _, w := range list {
			if strings.Contains(joined, " "+w+" ") {
				return w
			}
		}
	}
	return ""
}

// persuasion is what stop confirmations say when they do not accept the stop.
var persuasion = []string{
	"changed your mind", "change your mind", "reconsider", "sorry to see you go", "we miss you", "miss you", "let us know", "tell us",
	"feedback", "survey", "are you sure", "come back", "before you go", "cambio de opinion", "encuesta", "esta seguro", "lo sentimos", "cuentenos",
	"change d avis", "sondage", "enquete", "dites nous", "etes vous sur", "mudou de ideia", "pesquisa", "tem certeza", "conte nos",
	"umfrage", "sind sie sicher", "sagen sie uns", "schade",
}

// replyVerbs begin an instruction to answer.
var replyVerbs = []string{
	"reply", "respond", "answer", "responda", "responde", "conteste", "contesta", "repondez", "reponds", "antworten", "antworte",
}

// sendWord finds an instruction to send a word that stands in capitals, for verbs that have other uses too.
var sendWord = regexp.MustCompile(`\b(?i:text|send|envie|envia|envoyez|senden sie|sende)\s+\W?([A-Z0-9]{2,})\b`)

// answerable reports whether a stop confirmation may tell the person to reply w: a word that starts again or asks for help.
func answerable(w string) bool {
	v := reply.Default().Classify(w).Verdict
	return v == reply.OptIn || v == reply.Help
}

// asks returns what a stop confirmation asks for, or "".
func asks(text string) string {
	if i := strings.IndexAny(text, "?¿"); i >= 0 {
		return "it has a question mark"
	}
	ws := words(text)
	joined := " " + strings.Join(ws, " ") + " "
	for _, p := range persuasion {
		if strings.Contains(joined, " "+p+" ") {
			return fmt.Sprintf("%q", p)
		}
	}
	caps := capitals(text)
	for _, lang := range Languages() {
		for _, y := range languages[lang].yes {
			if slices.Contains(caps, y) {
				return "it wants the answer " + y
			}
		}
	}
	for _, m := range sendWord.FindAllStringSubmatch(text, -1) {
		if !answerable(m[1]) {
			return fmt.Sprintf("%q", m[0])
		}
	}
	for i, w := range ws {
		if !slices.Contains(replyVerbs, w) && !(w == "back" && i > 0 && ws[i-1] == "text") {
			continue
		}
		if next := ws[i+1 : min(i+4, len(ws))]; !slices.ContainsFunc(next, answerable) {
			return fmt.Sprintf("%q", strings.Join(ws[i:min(i+4, len(ws))], " "))
		}
	}
	return ""
}
