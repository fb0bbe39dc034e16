package reply

import (
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestExactWordsAreFoundInAnySpelling(t *testing.T) {
	for text, want := range map[string]Verdict{
		"STOP": OptOut, " stop. ": OptOut, "Ｓｔｏｐ": OptOut, "S T O P": OptOut, "s.t.o.p": OptOut, "ARRÊT": OptOut,
		"opt-out": OptOut, "“STOP”": OptOut, "ST\u200bOP 🙏": OptOut, "ОСТАНОВИТЬ": OptOut, "stop :p": OptOut,
		"s\xfftop": OptOut, "𝐒𝐓𝐎𝐏": OptOut, "🅂🅃🄾🄿": OptOut, "ЅТОР": OptOut, "СТOP": OptOut, "ϹANCEL": OptOut,
		"UNSTOP": OptIn, "Start!": OptIn, "help": Help, "help please": Help,
		"YES": None, "": None, "hello": None, "👍": None, "🛑": Hold,
	} {
		if got := Default().Classify(text); got.Verdict != want {
			t.Errorf("Classify(%q) = %+v, want %s", text, got, want)
		}
	}
}

// spelling draws a way to write a word that must not change what it means.
func spelling(word string) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var b strings.Builder
		b.WriteString(rapid.StringOfN(rapid.RuneFrom([]rune(" \t\n.!?\"“”*_()[]#~-—…🙏😡❤️\u200b")), 0, 5, -1).Draw(t, "before"))
		full := rapid.Bool().Draw(t, "full width")
		hidden := rapid.RuneFrom([]rune("\u200b\u200c\u200d\u00ad\u2060\ufeff\u0301\ufe0f\x00"))
		for _, r := range word {
			if rapid.Bool().Draw(t, "upper") {
				r = unicode.ToUpper(r)
			}
			if full && r > ' ' && r < 0x7f {
				r += 0xFEE0
			}
			b.WriteRune(r)
			if rapid.IntRange(0, 3).Draw(t, "hide") == 0 {
				b.WriteRune(hidden.Draw(t, "hidden"))
			}
		}
		b.WriteString(rapid.StringOfN(rapid.RuneFrom([]rune(" \t\n.!?\"“”*_()[]#~-—…🙏😡❤️\u200b")), 0, 5, -1).Draw(t, "after"))
		return b.String()
	})
}

func TestNoSpellingChangesWhatAKeywordMeans(t *testing.T) {
	c := Default()
	for _, v := range []Verdict{OptOut, OptIn, Help} {
		words := c.Keywords(v)
		rapid.Check(t, func(t *rapid.T) {
			w := rapid.SampledFrom(words).Draw(t, "word")
			text := spelling(w).Draw(t, "text")
			if got := c.Classify(text); got != (Result{v, exactRule(v), w}) {
				t.Fatalf("Classify(%q) = %+v, want %s for keyword %q", text, got, v, w)
			}
		})
	}
}

func TestNormalisingTwiceChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "text")
		n := normalise(s)
		if again := normalise(n); again != n {
			t.Fatalf("normalise(%q) = %q, and normalised again %q", s, n, again)
		}
	})
}

func TestOptInIsNeverReadIntoAMisspellingOrASentence(t *testing.T) {
	c := Default()
	for _, text := range []string{
		"unstpo", "unstopp", "un stop", "untsop", "strat", "starrt", "please start", "Start please", "STARTING", "start monday",
		"YES", "yes please", "sí", "oui", "continue", "resume", "begin", "join",
	} {
		if got := c.Classify(text); got.Verdict == OptIn || got.Verdict == OptOut {
			t.Errorf("Classify(%q) = %+v, want neither opt-in nor opt-out", text, got)
		}
	}
}

func TestOrdinaryWordsAreNoMisspellings(t *testing.T) {
	for _, w := range strings.Fields(ordinary) {
		if got := Default().Classify(w); got.Rule == "typo" || got.Rule == "mixed_script" {
			t.Errorf("Classify(%q) = %+v", w, got)
		}
	}
	for _, w := range []string{"step", "stoop", "shop", "top", "spot", "send", "and", "ends", "quiet", "quite", "cancer", "unstop", "subscribe", "nonstop", "12345", "5top10", "stops"} {
		if got := Default().Classify(w); got.Verdict == OptOut {
			t.Errorf("Classify(%q) = %+v", w, got)
		}
	}
}

func TestMisspelledKeywordsOptOut(t *testing.T) {
	for _, w := range []string{"stpo", "sotp", "stopp", "stooooop", "dtop", "st0p", "5top", "stop1", "stopstop", "unsubscrbe", "unsusbcribe", "UNSUBSRIBE", "cancle", "qiut", "sto p", "un subscribe", "stahhhp", "srop please"} {
		if got := Default().Classify(w); got.Verdict != OptOut {
			t.Errorf("Classify(%q) = %+v, want opt_out", w, got)
		}
	}
}

func TestReactionsAreNothingButWordsBehindThemCount(t *testing.T) {
	for text, want := range map[string]Result{
		"Liked “Reply STOP to opt out”":                       {None, "reaction", ""},
		"Liked \"Reply STOP to opt out":                       {None, "reaction", ""}, // cut off
		"Emphasised “STOP”":                                   {None, "reaction", ""},
		"👍 to “STOP to end”":                                  {None, "reaction", ""},
		"\u200b😂\u200b to \u201c\u200aSTOP\u200a\u201d":       {None, "reaction", ""},
		"A ajouté la mention J’aime à « Répondez STOP »":      {None, "reaction", ""},
		"Le gustó “Responda ALTO”":                            {None, "reaction", ""},
		"Hat „STOPP zum Abmelden“ mit „Gefällt mir“ markiert": {None, "reaction", ""},
		"Liked “Reply STOP to opt out” STOP":                  {OptOut, "exact_opt_out", "stop"},
		"Disliked “Sale!” please stop texting me":             {OptOut, "phrase", "stop"},
		"“STOP”": {OptOut, "exact_opt_out", "stop"},
	} {
		if got := Default().Classify(text); got != want {
			t.Errorf("Classify(%q) = %+v, want %+v", text, got, want)
		}
	}
}

func TestTheProvidersFlagComesFirstAndDoubtGoesToStop(t *testing.T) {
	for _, tc := range []struct {
		name  string
		text  string
		media int
		flag  string
		want  Result
	}{
		{"a stop flag wins over any text", "Stop by at 5?", 0, "stop", Result{OptOut, "provider_flag", ""}},
		{"a stop flag wins over START", "START", 0, "stop", Result{OptOut, "provider_flag", ""}},
		{"a stop flag wins over a picture", "", 1, "stop", Result{OptOut, "provider_flag", ""}},
		{"a stop flag names the word", "Stop.", 0, "stop", Result{OptOut, "provider_flag", "stop"}},
		{"a start flag opts in", "START", 0, "start", Result{OptIn, "provider_flag", "start"}},
		{"a start flag counts for the account's own words", "WEITER", 0, "start", Result{OptIn, "provider_flag", ""}},
		{"a start flag does not count on YES", "Yes", 0, "start", Result{None, "yes", ""}},
		{"a start flag does not beat STOP", "STOP", 0, "start", Result{OptOut, "exact_opt_out", "stop"}},
		{"a start flag does not beat a request", "start by not texting me. stop texting me", 0, "start", Result{OptOut, "phrase", "stop"}},
		{"a start flag does not beat doubt", "Stop START", 0, "start", Result{Hold, "scoped", "stop"}},
		{"a help flag gives help", "AYUDA", 0, "help", Result{Help, "provider_flag", "ayuda"}},
		{"a help flag does not beat a request", "help, stop texting me", 0, "help", Result{OptOut, "phrase", "stop"}},
		{"a picture without text is held", " \u200b ", 1, "", Result{Hold, "empty_media", ""}},
		{"a picture with an emoji is not", "😂", 1, "", Result{None, "none", ""}},
		{"a picture with STOP opts out", "STOP", 2, "", Result{OptOut, "exact_opt_out", "stop"}},
		{"no text and no picture is nothing", "", 0, "", Result{None, "blank", ""}},
		{"an unknown flag is no flag", "STOP", 0, "paused", Result{OptOut, "exact_opt_out", "stop"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Default().ClassifyInbound(tc.text, tc.media, tc.flag); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestCustomWordsAreCheckedAndObeyed(t *testing.T) {
	c, err := New(Options{OptOut: []string{"Basta Ya!", "GENUG", "afmelden"}, OptIn: []string{"JOINTEAM"}, Help: []string{"SOS"}, Disable: []string{"ALTO", "remove"}})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]Verdict{
		"basta ya": OptOut, "genug": OptOut, "jointeam": OptIn, "sos!": Help, "stop": OptOut, "unstop": OptIn, "Alto": OptOut,
	} {
		if text == "Alto" { // no longer a keyword; still a word that could mean stop
			if got := c.Classify(text); got.Rule == "exact_opt_out" {
				t.Errorf("Classify(%q) = %+v after it was disabled", text, got)
			}
			continue
		}
		if got := c.Classify(text); got.Verdict != want {
			t.Errorf("Classify(%q) = %+v, want %s", text, got, want)
		}
	}
	for name, tc := range map[string]struct {
		o    Options
		want []string
	}{
		"an empty word":                 {Options{OptOut: []string{"!?"}}, []string{`"!?"`, "no letter"}},
		"a word in two lists":           {Options{OptOut: []string{"genug"}, Help: []string{"GENUG!"}}, []string{"means opt_out already"}},
		"an opt-in word as opt-out":     {Options{OptOut: []string{"Un\u00adstop"}}, []string{"means opt_in already"}},
		"an opt-out word as opt-in":     {Options{OptIn: []string{"s t o p"}}, []string{"means opt_out already"}},
		"a misspelt opt-out as opt-in":  {Options{OptIn: []string{"stpo"}}, []string{"reads as a request to stop"}},
		"a request as help":             {Options{Help: []string{"stop texting me"}}, []string{"reads as a request to stop"}},
		"yes as opt-in":                 {Options{OptIn: []string{"YES"}}, []string{"answers other questions"}},
		"a word that the law names":     {Options{Disable: []string{"STOP", "Opt-Out"}}, []string{`disable "STOP"`, `disable "Opt-Out"`}},
		"UNSTOP disabled":               {Options{Disable: []string{"unstop"}}, []string{"must always work"}},
		"a word that is none of ours":   {Options{Disable: []string{"banana"}}, []string{"not a default word"}},
		"a word that nobody could send": {Options{OptOut: []string{strings.Repeat("a", 65)}}, []string{"longer than 64"}},
		"all problems are told at once": {Options{OptIn: []string{"yes", "?"}}, []string{`"yes"`, `"?"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(tc.o)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
}

func TestAWordThatIsCustomWinsOverEveryRuleBehindTheExactOnes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.StringMatching(`[a-z]{3,12}`).Draw(t, "word")
		c, err := New(Options{OptIn: []string{w}})
		if err != nil {
			return
		}
		if got := c.Classify(strings.ToUpper(w) + "!"); got.Verdict != OptIn {
			t.Fatalf("custom opt-in word %q gives %+v", w, got)
		}
	})
}

func TestLongTextsAreHeldUnlessTheBeginningAsksToStop(t *testing.T) {
	long := strings.Repeat("and so on ", 500)
	if got := Default().Classify(long); got != (Result{Hold, "too_long", ""}) {
		t.Errorf("long text: %+v", got)
	}
	if got := Default().Classify("stop texting me. " + long); got.Verdict != OptOut {
		t.Errorf("long text that asks to stop: %+v", got)
	}
	if got := Default().Classify(strings.Repeat("é", maxRunes)); got.Rule == "too_long" {
		t.Errorf("exactly %d characters: %+v", maxRunes, got)
	}
}

func TestTheWorkIsLinearInTheText(t *testing.T) {
	// The patterns share words, so that a text of nothing but those words is the worst there is.
	for _, unit := range []string{
		"stop ", "the ", "stop the ", "take me my number ", "no me de la los mas ", "{", "a", "a ", "don't want to be get ",
		"dont want need my texts ", "\u0301", "Liked “", "“”", "stop.", "stop, ", "s t o p ", "ﷺ", "please ", "remove from of the ",
	} {
		var words, steps [2]int
		for k, n := range []int{maxRunes / 4, maxRunes} {
			text := strings.Repeat(unit, 64<<10/len(unit))
			for i := range text { // the first n characters
				if n == 0 {
					text = text[:i]
					break
				}
				n--
			}
			var m message
			m.fold(text)
			words[k] = len(m.tok)
			x := matcher{g: lang, tok: m.tok, ids: make([]uint16, len(m.tok)), place: make([]uint8, len(m.tok)+1)}
			for i := range m.tok {
				x.ids[i] = lang.id(m.word(i), m.tok[i].flags)
			}
			x.exhaust = true
			x.run()
			steps[k] = x.steps
		}
		if words[1] > 0 && steps[1] > 20_000*words[1] {
			t.Errorf("%q: %d steps for %d words", unit, steps[1], words[1])
		}
		if steps[0] > 1000 && steps[1] > 6*steps[0] {
			t.Errorf("%q: four times the text took %d steps after %d", unit, steps[1], steps[0])
		}
		text := strings.Repeat(unit, 64<<10/len(unit))
		if n := testing.AllocsPerRun(1, func() { Default().Classify(text) }); n > 100 { // buffers that double
			t.Errorf("%q: %v allocations for 64 KB", unit, n)
		}
	}
}

func TestShortRepliesCostNoAllocation(t *testing.T) {
	if underRace {
		t.Skip("the race detector makes sync.Pool forget at random")
	}
	for _, text := range []string{
		"STOP", " stop! ", "Ｓｔｏｐ", "ARRÊT", "s t o p", "START", "HELP", "YES", "ok thanks", "stpo", "STOP please", "👍", "SТОР",
		"please stop texting me 🙏", "Stop by at 5?", "Can we move my appointment to Friday at 3? My kid is sick", "stoptextingme",
		"Liked “Reply STOP to opt out”", "no quiero más mensajes", "unsuscribe me pls", "Bitte keine SMS mehr",
	} {
		if n := testing.AllocsPerRun(20, func() { Default().ClassifyInbound(text, 0, "") }); n != 0 {
			t.Errorf("%q: %v allocations", text, n)
		}
	}
}

func TestOneClassifierServesManyGoroutines(t *testing.T) {
	texts, _ := replies()
	want := make([]Result, len(texts))
	for i, s := range texts {
		want[i] = Default().Classify(s)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i, s := range texts {
				if got := Default().Classify(s); got != want[i] {
					t.Errorf("Classify(%q) = %+v beside others, %+v alone", s, got, want[i])
				}
			}
		})
	}
	wg.Wait()
}

func FuzzClassify(f *testing.F) {
	for _, s := range []string{"STOP", "stop by at 5?", "Liked “STOP”", "ＳＴＯＰ", "S T O P", "\xff\xfe", "SТОР", "👍 to “STOP”", "stoptextingme", "ﷺ", "d'arrêter", ":p"} {
		f.Add(s)
	}
	known := map[string]bool{}
	for _, r := range Rules {
		known[r.Name] = true
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := Default().Classify(s)
		if !known[r.Rule] {
			t.Errorf("rule %q is not documented", r.Rule)
		}
		n := normalise(s)
		if again := normalise(n); again != n {
			t.Errorf("normalise(%q) = %q, and normalised again %q", s, n, again)
		}
		if utf8.RuneCountInString(s) <= maxRunes && strings.TrimSpace(s) != "" {
			if stop := Default().ClassifyInbound(s, 0, "start"); stops(r) && stop.Verdict == OptIn {
				t.Errorf("%q is %s, and a start flag lifts it", s, r.Verdict)
			}
		}
	})
}
