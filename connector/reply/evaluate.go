package reply

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"text/tabwriter"
)

// Verdicts lists all verdicts in the order of tables.
var Verdicts = [...]Verdict{OptOut, Hold, OptIn, Help, None}

// labels are the true intents in a corpus; unclear replies are counted and belong to no target.
var labels = [...]string{"opt_out", "opt_in", "help", "none", "unclear"}

// Score counts how the replies of one part of a corpus were judged.
type Score struct {
	Counts map[string]map[Verdict]int // label → verdict → replies
	Missed []Sample                   // every reply whose verdict is not its label, in the corpus's order; unclear ones never
}

// Sample is one labelled reply and what was made of it.
type Sample struct {
	Label, Lang, Text string
	Verdict           Verdict
}

// Report is what [Evaluate] found, for the whole corpus and for its two halves. The rules were tuned on the
// development half only, so the held-out half shows how they do on replies that they were not made for.
type Report struct {
	All, Development, HeldOut Score
}

// HeldOut reports whether a reply belongs to the half that the rules are never tuned on: the FNV-1a hash of its text
// is odd.
func HeldOut(text string) bool {
	h := fnv.New32a()
	io.WriteString(h, text)
	return h.Sum32()%2 == 1
}

// Evaluate judges every labelled reply of r, in the format of [Corpus], and counts the outcomes. It fails on a line
// without two tabs, with an unknown label or with a text that was there before.
func Evaluate(r io.Reader, classify func(string) Verdict) (Report, error) {
	var rep Report
	for _, s := range []*Score{&rep.All, &rep.Development, &rep.HeldOut} {
		s.Counts = map[string]map[Verdict]int{}
		for _, l := range labels {
			s.Counts[l] = map[Verdict]int{}
		}
	}
	seen := map[string]bool{}
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		label, rest, ok1 := strings.Cut(sc.Text(), "\t")
		lang, text, ok2 := strings.Cut(rest, "\t")
		if !ok1 || !ok2 {
			return rep, fmt.Errorf("corpus line %d: want label, language and text separated by tabs", n)
		}
		if rep.All.Counts[label] == nil {
			return rep, fmt.Errorf("corpus line %d: unknown label %q, want one of %s", n, label, strings.Join(labels[:], ", "))
		}
		if seen[text] {
			return rep, fmt.Errorf("corpus line %d: the text was there before", n)
		}
		seen[text] = true
		s := Sample{label, lang, text, classify(text)}
		half := &rep.Development
		if HeldOut(text) {
			half = &rep.HeldOut
		}
		rep.All.add(s)
		half.add(s)
	}
	if err := sc.Err(); err != nil {
		return rep, fmt.Errorf("read corpus: %w", err)
	}
	return rep, nil
}

func (s *Score) add(x Sample) {
	s.Counts[x.Label][x.Verdict]++
	if x.Label != string(x.Verdict) && x.Label != "unclear" {
		s.Missed = append(s.Missed, x)
	}
}

// Total returns how many replies have the label.
func (s Score) Total(label string) int {
	n := 0
	for _, v := range Verdicts {
		n += s.Counts[label][v]
	}
	return n
}

// Rate returns the share, 0 to 1, of the replies with this label that got one of the verdicts; 0 if there are none.
func (s Score) Rate(label string, verdicts ...Verdict) float64 {
	n := 0
	for _, v := range verdicts {
		n += s.Counts[label][v]
	}
	if t := s.Total(label); t > 0 {
		return float64(n) / float64(t)
	}
	return 0
}

// Recall is the share of the opt-outs that were judged to be opt-outs.
func (s Score) Recall() float64 { return s.Rate("opt_out", OptOut) }

// Caught is the share of the opt-outs after which nothing more is sent: judged opt-out or held.
func (s Score) Caught() float64 { return s.Rate("opt_out", OptOut, Hold) }

// Precision is the share of opt-outs among the replies judged to be opt-outs, unclear replies left aside.
func (s Score) Precision() float64 {
	right, all := s.Counts["opt_out"][OptOut], 0
	for l, c := range s.Counts {
		if l != "unclear" {
			all += c[OptOut]
		}
	}
	if all == 0 {
		return 0
	}
	return float64(right) / float64(all)
}

// WriteTo renders the report as aligned text.
func (r Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	for i, part := range []struct {
		name string
		s    Score
	}{{"held-out half", r.HeldOut}, {"development half", r.Development}, {"whole corpus", r.All}} {
		if i > 0 {
			b.WriteByte('\n')
		}
		tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(tw, "%s\t", part.name)
		for _, v := range Verdicts {
			fmt.Fprintf(tw, "%s\t", v)
		}
		fmt.Fprintln(tw, "total\t")
		for _, l := range labels {
			fmt.Fprintf(tw, "%s\t", l)
			for _, v := range Verdicts {
				fmt.Fprintf(tw, "%d\t", part.s.Counts[l][v])
			}
			fmt.Fprintf(tw, "%d\t\n", part.s.Total(l))
		}
		tw.Flush()
		fmt.Fprintf(&b, "opt-outs: %s caught, %s outright, precision %s; ordinary replies: %s taken for opt-outs, %s held\n",
			percent(part.s.Caught()), percent(part.s.Recall()), percent(part.s.Precision()),
			percent(part.s.Rate("none", OptOut)), percent(part.s.Rate("none", Hold)))
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// String returns what WriteTo writes.
func (r Report) String() string {
	var b strings.Builder
	r.WriteTo(&b)
	return b.String()
}

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

// Baseline is a way of matching that is common elsewhere, to compare with.
type Baseline struct {
	Name     string
	What     string
	Classify func(string) Verdict
}

// Baselines are the three families of matching found in the wild, each with the usual words: the whole message is a
// keyword (Twilio, Telnyx, Plivo), the first word is one (Salesforce MobileConnect, AWS), a keyword occurs anywhere
// (home-made handlers).
var Baselines = []Baseline{
	{"whole word", "the message is one keyword, case aside", func(s string) Verdict {
		return baselineWords[strings.ToUpper(strings.TrimSpace(s))].or(None)
	}},
	{"first word", "the message begins with a keyword", func(s string) Verdict {
		f := strings.Fields(s)
		if len(f) == 0 {
			return None
		}
		return baselineWords[strings.ToUpper(f[0])].or(None)
	}},
	{"anywhere", "the message contains a keyword", func(s string) Verdict {
		s = strings.ToUpper(s)
		for _, w := range []string{"STOP", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"} {
			if strings.Contains(s, w) {
				return OptOut
			}
		}
		return baselineWords[strings.TrimSpace(s)].or(None)
	}},
}

// baselineWords are Twilio's default keywords for long codes
// (https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out), without YES.
var baselineWords = map[string]Verdict{
	"STOP": OptOut, "STOPALL": OptOut, "UNSUBSCRIBE": OptOut, "CANCEL": OptOut, "END": OptOut, "QUIT": OptOut,
	"REVOKE": OptOut, "OPTOUT": OptOut, "START": OptIn, "UNSTOP": OptIn, "HELP": Help, "INFO": Help,
}

func (v Verdict) or(w Verdict) Verdict {
	if v == "" {
		return w
	}
	return v
}
