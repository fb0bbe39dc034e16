// Package reply decides what the text of a reply means for the sender's permission to text: a request to stop, a
// request to start again, a call for help, something a person has to look at, or nothing of the kind.
//
// It is pure: no I/O, no clock, no state. It does not know numbers, providers or what was decided before; what a
// verdict does to a number's consent is package consent's business.
//
// # Why it is more than a word list
//
// US law names seven words that always revoke consent and adds "any reasonable means" (47 CFR 64.1200(a)(10)); the
// carriers ask senders to act on normal language, in any case and punctuation (CTIA Messaging Principles and Best
// Practices 5.1.3); providers match whole words only. People write "pls stop texting me 🙏", "Stop by at 5?" and
// Liked “Reply STOP to opt out”. [Rules] lists every rule in the order in which they are tried, with its source.
//
// Doubt goes to the opt-out: what could be a request to stop is [OptOut] or [Hold], never [None]. Only exact words
// give [OptIn], so no misspelling and no phrase can lift an opt-out.
package reply

import (
	"fmt"
	"slices"
	"strings"
)

// Verdict is what a reply means. The strings are stable: they are stored and shown.
type Verdict string

const (
	OptOut Verdict = "opt_out" // a request to stop
	OptIn  Verdict = "opt_in"  // an exact START word
	Help   Verdict = "help"    // an exact HELP word
	Hold   Verdict = "hold"    // could be a request to stop; a person decides, and until then nothing is sent
	None   Verdict = "none"    // an ordinary reply
)

// Result is a verdict and why.
type Result struct {
	Verdict Verdict
	Rule    string // the rule that decided, one of [Rules]
	Keyword string // the keyword it rests on, normalised and from heed's own tables, never the sender's text; "" if none
}

// Options changes the word lists of a [Classifier]. Words are compared after normalising, so case, accents,
// punctuation and full-width forms do not matter. The zero value is the default.
type Options struct {
	OptOut  []string // further words or short phrases that opt out when they are the whole message
	OptIn   []string // further words that opt in
	Help    []string // further words that ask for help
	Disable []string // default words to ignore; the seven words of 47 CFR 64.1200(a)(10), START, UNSTOP and HELP cannot be
}

// Classifier holds the word lists. It is immutable and safe for concurrent use.
type Classifier struct {
	exact map[string]Result
	hard  []target // the opt-out words whose misspellings count
}

var defaultClassifier = func() *Classifier {
	c, err := New(Options{})
	if err != nil {
		panic(err) // the built-in table contradicts itself; every test fails
	}
	return c
}()

// Default returns the classifier with the built-in word lists.
func Default() *Classifier { return defaultClassifier }

// maxKeyword is the longest custom word in bytes after normalising; providers allow 20 to 30 characters.
const maxKeyword = 64

// New returns a classifier with changed word lists. It reports every problem at once: a custom word without a
// letter or digit or longer than 64 bytes, a word in two lists, a word that already means something else, YES as an
// opt-in word, a Disable entry that is no default word or that must stay.
func New(o Options) (*Classifier, error) {
	c := &Classifier{exact: make(map[string]Result, 2*len(keywords))}
	locked := map[string]bool{}
	var problems []string
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for _, k := range keywords {
		w := normalise(k.text)
		if r, dup := c.exact[w]; dup {
			bad("built-in word %q is listed twice (%s)", w, r.Verdict)
		}
		c.exact[w] = Result{k.verdict, exactRule(k.verdict), w}
		locked[w] = k.locked
	}
	for _, d := range o.Disable {
		w := normalise(d)
		must, known := locked[w]
		switch {
		case !known:
			bad("disable %q: not a default word", d)
		case must:
			bad("disable %q: this word must always work (47 CFR 64.1200(a)(10), CTIA 5.1.3)", d)
		default:
			delete(c.exact, w)
		}
	}
	add := func(v Verdict, words []string) {
		for _, s := range words {
			w := normalise(s)
			switch old, known := c.exact[w]; {
			case w == "":
				bad("%s word %q: has no letter or digit", v, s)
			case len(w) > maxKeyword:
				bad("%s word %q: longer than %d bytes", v, s, maxKeyword)
			case known && old.Verdict != v:
				bad("%s word %q: means %s already", v, s, old.Verdict)
			case v == OptIn && slices.Contains(affirmations, w):
				bad("opt_in word %q: answers other questions too; choose a word that nobody sends by chance", s)
			case v != OptOut && !known && stops(c.Classify(s)):
				bad("%s word %q: reads as a request to stop", v, s)
			default:
				c.exact[w] = Result{v, exactRule(v), w}
			}
		}
	}
	add(OptOut, o.OptOut)
	for w, r := range c.exact {
		_, builtin := locked[w]
		if r.Verdict == OptOut && !strings.Contains(w, " ") && (slices.Contains(typoWords, w) || !builtin && len(w) >= 6) {
			c.hard = append(c.hard, newTarget(w))
		}
	}
	slices.SortFunc(c.hard, func(a, b target) int { return strings.Compare(a.word, b.word) })
	add(OptIn, o.OptIn)
	add(Help, o.Help)
	if problems != nil {
		return nil, fmt.Errorf("reply keywords: %s", strings.Join(problems, "; "))
	}
	return c, nil
}

func stops(r Result) bool { return r.Verdict == OptOut || r.Verdict == Hold }

func exactRule(v Verdict) string {
	switch v {
	case OptIn:
		return "exact_opt_in"
	case Help:
		return "exact_help"
	}
	return "exact_opt_out"
}

// Keywords returns the words that give v when they are the whole message, normalised and sorted.
func (c *Classifier) Keywords(v Verdict) []string {
	var ws []string
	for w, r := range c.exact {
		if r.Verdict == v {
			ws = append(ws, w)
		}
	}
	slices.Sort(ws)
	return ws
}

// normalise returns the normal form of a text: what keywords are compared in.
func normalise(text string) string {
	var m message
	m.fold(text)
	return string(m.buf)
}

// ClassifyInbound decides what a received message means. media is the number of pictures or other media that came
// with it; flag is the provider's own reading: "stop", "start", "help", or "" for none.
//
// A stop flag is final, because the provider has blocked the number whatever the text says. A start flag counts only
// when the text does not say stop and is not a bare yes: providers lift their block on YES, which may answer any
// question. A help flag counts only when the text does not say stop.
func (c *Classifier) ClassifyInbound(text string, media int, flag string) Result {
	if flag == "stop" {
		r := c.Classify(text)
		if r.Verdict != OptOut {
			r.Keyword = ""
		}
		return Result{OptOut, "provider_flag", r.Keyword}
	}
	r := c.Classify(text)
	switch {
	case flag == "start" && !stops(r) && r.Rule != "yes":
		if r.Verdict != OptIn {
			r.Keyword = ""
		}
		return Result{OptIn, "provider_flag", r.Keyword}
	case flag == "help" && !stops(r):
		if r.Verdict != Help {
			r.Keyword = ""
		}
		return Result{Help, "provider_flag", r.Keyword}
	case media > 0 && r.Rule == "blank":
		return Result{Hold, "empty_media", ""}
	}
	return r
}
