package confirm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/heed-sms/heed/connector/reply"
)

func acme() Options { return Options{Brand: "Acme", Help: "help@acme.example", Frequency: 4} }

// with returns valid options with one text replaced.
func with(k Kind, lang, text string) Options {
	o := acme()
	o.Templates = map[Kind]map[string]string{k: {lang: text}}
	return o
}

func TestBuiltInTextsSayWhatTheyHaveTo(t *testing.T) {
	s, problems := New(acme())
	if problems != nil {
		t.Fatal(problems)
	}
	n := 0
	for k, tm := range s.All() {
		n++
		septets, ok, bad := GSM7(tm.Text)
		if !ok || septets > 160 || Segments(tm.Text) != 1 {
			t.Errorf("%s.%s: %d septets, bad %q: %s", k, tm.Lang, septets, bad, tm.Text)
		}
		if !strings.HasPrefix(tm.Text, "Acme") || strings.ContainsAny(tm.Text, "{}#") {
			t.Errorf("%s.%s: %s", k, tm.Lang, tm.Text)
		}
		if got := s.Text(k, tm.Lang); got != tm.Text {
			t.Errorf("Text(%s, %s) = %q, All says %q", k, tm.Lang, got, tm.Text)
		}
		if k == HelpAnswer && !strings.Contains(tm.Text, "help@acme.example") {
			t.Errorf("help.%s does not name the contact: %s", tm.Lang, tm.Text)
		}
	}
	if want := len(Kinds()) * len(Languages()); n != want {
		t.Errorf("%d texts, want %d", n, want)
	}
	if got, want := s.Text(StartConfirmation, "en"), "Acme: You are subscribed. Up to 4 msgs/month. Msg&data rates may apply. Reply HELP for help, STOP to stop."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The words that a text tells a person to send must mean to heed what the text says.
func TestTextsNameWordsThatHeedUnderstands(t *testing.T) {
	for code, l := range languages {
		for _, w := range l.stop {
			if r := reply.Default().Classify(w); r.Verdict != reply.OptOut {
				t.Errorf("%s: %s is %s", code, w, r.Verdict)
			}
		}
		for _, w := range l.help {
			if r := reply.Default().Classify(w); r.Verdict != reply.Help {
				t.Errorf("%s: %s is %s", code, w, r.Verdict)
			}
		}
		for _, w := range l.yes {
			if r := reply.Default().Classify(w); r.Rule != "yes" {
				t.Errorf("%s: %s is %+v", code, w, r)
			}
		}
		if !l.noMore.MatchString(strings.Join(words(l.noMoreExample), " ")) {
			t.Errorf("%s: the example %q does not pass its own check", code, l.noMoreExample)
		}
		if !slices.ContainsFunc(l.stop, func(w string) bool { return slices.Contains(capitals(l.example), w) }) {
			t.Errorf("%s: the example %q does not pass its own check", code, l.example)
		}
	}
}

// A capital letter in a folded list would never match.
func TestWordListsAreFolded(t *testing.T) {
	lists := map[string][]string{"everyLanguage": everyLanguage, "persuasion": persuasion, "replyVerbs": replyVerbs}
	for code, l := range languages {
		lists[code+".marketing"], lists[code+".telltale"] = l.marketing, l.telltale
		lists[code+".keywords"], lists[code+".shared"] = l.keywords, l.shared
	}
	for name, list := range lists {
		for _, w := range list {
			if got := strings.Join(words(w), " "); got != w {
				t.Errorf("%s: %q folds to %q", name, w, got)
			}
		}
	}
}

func TestTextIsChosenByLanguageAndFallsBackToEnglish(t *testing.T) {
	s, problems := New(with(StopConfirmation, "es", "{brand}: No le escribiremos mas."))
	if problems != nil {
		t.Fatal(problems)
	}
	english := s.Text(StopConfirmation, "en")
	for lang, want := range map[string]string{
		"es": "Acme: No le escribiremos mas.", "ES": "Acme: No le escribiremos mas.", "es-MX": "Acme: No le escribiremos mas.",
		"es_AR": "Acme: No le escribiremos mas.", "it": english, "": english, "en-US": english,
	} {
		if got := s.Text(StopConfirmation, lang); got != want {
			t.Errorf("Text(stop, %q) = %q, want %q", lang, got, want)
		}
	}
	if got := s.Text("other", "en"); got != "" {
		t.Errorf("Text(other) = %q", got)
	}
}

func TestEveryRuleIsEnforced(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, tt := range []struct {
		name   string
		kind   Kind
		lang   string
		text   string
		reason string // a part of the reason; "" means allowed
	}{
		// stop: says that no more messages come
		{"no more messages", StopConfirmation, "en", "{brand}: no more messages will be sent.", ""},
		{"no further messages, the short code form", StopConfirmation, "en", "{brand} Alerts: You are opted out, no further messages.", ""},
		{"won't receive", StopConfirmation, "en", "{brand}: You won't receive any messages from us.", ""},
		{"no longer", StopConfirmation, "en", "{brand}: We will no longer text you.", ""},
		{"not hear again", StopConfirmation, "en", "{brand}: You won't hear from us again.", ""},
		{"stopped", StopConfirmation, "en", "{brand}: OK, we've stopped all texts to you.", ""},
		{"no messages at all", StopConfirmation, "en", "{brand}: opted out. No messages will be sent.", ""},
		{"no longer receiving", StopConfirmation, "en", "{brand}: You will no longer be receiving messages.", ""},
		{"the last message", StopConfirmation, "en", "{brand}: STOP received. This is the last message you will get.", ""},
		{"French with another verb", StopConfirmation, "fr", "{brand}: Vous n'allez plus recevoir de messages.", ""},
		{"only a farewell", StopConfirmation, "en", "{brand}: Goodbye.", "no more messages"},
		{"fewer messages", StopConfirmation, "en", "{brand}: You will get fewer messages.", "no more messages"},
		{"Spanish", StopConfirmation, "es", "{brand}: Ya no recibirá mensajes.", "outside the GSM-7"},
		{"Spanish in the alphabet", StopConfirmation, "es", "{brand}: Ya no recibira mensajes.", ""},
		{"English words in a Spanish text", StopConfirmation, "es", "{brand}: adios.", "no more messages"},
		{"French", StopConfirmation, "fr", "{brand}: Vous ne recevrez plus de SMS.", ""},
		{"French without the promise", StopConfirmation, "fr", "{brand}: Demande reçue.", "no more messages"},
		{"Portuguese", StopConfirmation, "pt", "{brand}: Nao enviaremos mais mensagens.", ""},
		{"Portuguese without the promise", StopConfirmation, "pt", "{brand}: Pedido recebido.", "no more messages"},
		{"German", StopConfirmation, "de", "{brand}: Wir schreiben Ihnen nicht mehr.", ""},
		{"German without the promise", StopConfirmation, "de", "{brand}: Schön, dass Sie da waren.", "no more messages"},
		// stop: asks nothing
		{"start again may be said", StopConfirmation, "en", "{brand}: no more messages. Reply START or UNSTOP to resume.", ""},
		{"help may be said", StopConfirmation, "en", "{brand}: no more messages. Reply HELP for help, or see {help}.", ""},
		{"text back", StopConfirmation, "en", `{brand}: no more texts. Text back "unstop" to get them.`, ""},
		{"a question", StopConfirmation, "en", "{brand}: no more messages. Was it us?", "question mark"},
		{"a Spanish question", StopConfirmation, "es", "{brand}: No le enviaremos mensajes. ¿Seguro", "question mark"},
		{"reply YES", StopConfirmation, "en", "{brand}: no more messages. Reply YES to stay.", "YES"},
		{"reply yes", StopConfirmation, "en", "{brand}: no more messages. Please reply yes to stay.", "reply yes to stay"},
		{"reply 1", StopConfirmation, "en", "{brand}: no more messages. Reply 1 for news.", "reply 1"},
		{"reply with a reason", StopConfirmation, "en", "{brand}: no more messages. Reply with the reason.", "reply with"},
		{"text a word to return", StopConfirmation, "en", "{brand}: no more messages. Text JOIN to return.", "Text JOIN"},
		{"text START to return", StopConfirmation, "en", "{brand}: no more messages. Text 'START' to return.", ""},
		{"text as a noun is no instruction", StopConfirmation, "en", "{brand}: no more text messages.", ""},
		{"text back a word", StopConfirmation, "en", "{brand}: no more messages. Text back NEWS.", "back news"},
		{"responda SI", StopConfirmation, "es", "{brand}: No le enviaremos mensajes. Responda SI para seguir.", "SI"},
		{"répondez OUI", StopConfirmation, "fr", "{brand}: Vous ne recevrez plus de SMS. Répondez OUI pour rester.", "OUI"},
		{"antworten Sie JA", StopConfirmation, "de", "{brand}: Keine weiteren SMS. Antworten Sie JA.", "JA"},
		{"persuasion", StopConfirmation, "en", "{brand}: no more messages. We are sorry to see you go.", "sorry to see you go"},
		{"a survey", StopConfirmation, "en", "{brand}: no more messages. Tell us why.", "tell us"},
		// help
		{"help with everything", HelpAnswer, "en", "{brand}: {help}. Reply STOP to cancel.", ""},
		{"help with the contact written out", HelpAnswer, "en", "{brand}: write to help@acme.example. Reply STOP to cancel.", ""},
		{"help without contact", HelpAnswer, "en", "{brand}: We help you. Reply STOP to cancel.", "help contact"},
		{"help without STOP", HelpAnswer, "en", "{brand}: {help}", "how to stop"},
		{"stop in lower case is no keyword", HelpAnswer, "en", "{brand}: {help}. We never stop.", "how to stop"},
		{"French help with ARRÊT is ARRET", HelpAnswer, "fr", "{brand}: {help}. ARRET pour finir.", ""},
		{"Spanish help needs STOP", HelpAnswer, "es", "{brand}: {help}. ALTO para salir.", "how to stop"},
		// start
		{"start with both words", StartConfirmation, "en", "{brand}: subscribed. HELP for help, STOP to stop.", ""},
		{"start with the contact for help", StartConfirmation, "en", "{brand}: subscribed. Help: {help}. STOP to stop.", ""},
		{"start without help", StartConfirmation, "en", "{brand}: subscribed. Reply STOP to stop.", "how to get help"},
		{"start without STOP", StartConfirmation, "en", "{brand}: subscribed. Reply HELP for help.", "how to stop"},
		{"start in Spanish", StartConfirmation, "es", "{brand}: AYUDA para ayuda, STOP para salir.", ""},
		// question
		{"question", OptInQuestion, "en", "{brand}: Do you want our texts? Reply YES. STOP to stop.", ""},
		{"question without YES", OptInQuestion, "en", "{brand}: Reply OK. STOP to stop.", "which word answers"},
		{"question without STOP", OptInQuestion, "en", "{brand}: Reply YES.", "how to stop"},
		{"question in Spanish with an accent", OptInQuestion, "es", "{brand}: Responda SÍ. STOP para salir.", "outside the GSM-7"},
		{"question in Spanish", OptInQuestion, "es", "{brand}: Responda SI. STOP para salir.", ""},
		{"question in German", OptInQuestion, "de", "{brand}: Antworten Sie JA. STOP zum Abmelden.", ""},
		// every kind
		{"brand written out", HelpAnswer, "en", "Acme: {help}. Reply STOP to cancel.", ""},
		{"brand as a part of a word", HelpAnswer, "en", "Acmeology: {help}. Reply STOP to cancel.", "brand"},
		{"no brand", HelpAnswer, "en", "{help}. Reply STOP to cancel.", "brand"},
		{"empty", StopConfirmation, "en", " \n", "empty"},
		{"too long", StopConfirmation, "en", "{brand}: no more messages. " + long, "septets"},
		{"160 septets", StopConfirmation, "en", "{brand}: no more messages. " + strings.Repeat("x", 160-24), ""},
		{"161 septets", StopConfirmation, "en", "{brand}: no more messages. " + strings.Repeat("x", 160-24+1), "161 septets"},
		{"the euro sign counts two", StopConfirmation, "en", "{brand}: no more messages. " + strings.Repeat("x", 160-24-1) + "€", "161 septets"},
		{"small c cedilla", StopConfirmation, "pt", "{brand}: Nao enviaremos mensagens. Opção", `"ç" (U+00E7), "ã" (U+00E3)`},
		{"an emoji", StopConfirmation, "en", "{brand}: no more messages \U0001F44B", "U+1F44B"},
		{"a zero width space", StopConfirmation, "en", "{brand}: no more messages\u200b.", "U+200B"},
		{"a curly quote", StopConfirmation, "en", "{brand}: you won’t receive messages", "U+2019"},
		{"decomposed letters are composed first", StopConfirmation, "fr", "{brand}: de\u0301sabonne\u0301. Plus de SMS.", ""},
		{"a tab", StopConfirmation, "en", "{brand}: no more\tmessages", "control character U+0009"},
		{"a line break", StopConfirmation, "en", "{brand}:\nno more messages", "control character U+000A"},
		{"a bell", StopConfirmation, "en", "{brand}: no more messages\a.", "control character U+0007"},
		{"invalid UTF-8", StopConfirmation, "en", "{brand}: no more messages \xff", "U+FFFD"},
		{"unknown placeholder", StopConfirmation, "en", "{brand}: no more messages, {name}", `"{name}"`},
		{"placeholder in capitals", StopConfirmation, "en", "{BRAND}: no more messages", `"{BRAND}"`},
		{"open brace", StopConfirmation, "en", "{brand}: no more messages {help", "brace"},
		{"closing brace", StopConfirmation, "en", "{brand}: no more messages }", "brace"},
		{"shortener", HelpAnswer, "en", "{brand}: {help} https://bit.ly/x. Reply STOP to cancel.", "bit.ly"},
		{"shortener in capitals below www", HelpAnswer, "en", "{brand}: {help} WWW.TinyURL.com/x. Reply STOP to cancel.", "tinyurl.com"},
		{"t.co", HelpAnswer, "en", "{brand}: {help} t.co/x. Reply STOP to cancel.", "t.co"},
		{"a host that ends like t.co", HelpAnswer, "en", "{brand}: {help} att.com. Reply STOP to cancel.", ""},
		{"a sale", StopConfirmation, "en", "{brand}: no more messages. Our sale goes on.", `"sale"`},
		{"sales in a word", StopConfirmation, "en", "{brand}: no more messages. Salespeople know.", ""},
		{"percent", StartConfirmation, "en", "{brand}: 20% for you. HELP for help, STOP to stop.", `"20%"`},
		{"dollars", StartConfirmation, "en", "{brand}: $ 5 for you. HELP for help, STOP to stop.", `"$ 5"`},
		{"euros", StartConfirmation, "en", "{brand}: 5.00 EUR. HELP for help, STOP to stop.", `EUR`},
		{"a currency before the amount", StartConfirmation, "en", "{brand}: USD 10 waiting. HELP, STOP.", "USD 10"},
		{"a prize", StartConfirmation, "en", "{brand}: Win an iPad. HELP, STOP.", "win an"},
		{"a coupon", StartConfirmation, "en", "{brand}: your coupon. HELP for help, STOP to stop.", "coupon"},
		{"buy now in a German text", StartConfirmation, "de", "{brand}: Buy now. HILFE, STOP.", "buy now"},
		{"toll-free is no gift", HelpAnswer, "en", "{brand}: call toll-free {help}. Reply STOP to cancel.", ""},
		{"free", HelpAnswer, "en", "{brand}: free for you {help}. Reply STOP to cancel.", `"free"`},
		{"Spanish marketing with an accent", HelpAnswer, "es", "{brand}: {help}. Gran promocion. STOP para salir.", "promocion"},
		{"sale is a Spanish verb", HelpAnswer, "es", "{brand}: {help}. El SMS sale de aqui. STOP para salir.", ""},
		{"French marketing", HelpAnswer, "fr", "{brand}: {help}. Soldes. STOP pour finir.", "soldes"},
		{"Portuguese marketing", HelpAnswer, "pt", "{brand}: {help}. Desconto. STOP para sair.", "desconto"},
		{"German marketing", HelpAnswer, "de", "{brand}: {help}. Schnäppchen. STOP zum Abmelden.", "schnappchen"},
		{"rates may apply is no price", HelpAnswer, "en", "{brand}: {help}. Msg&data rates may apply. STOP to stop.", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, problems := New(with(tt.kind, tt.lang, tt.text))
			if tt.reason == "" {
				if problems != nil {
					t.Fatalf("refused: %v", problems)
				}
				return
			}
			if s != nil || len(problems) == 0 {
				t.Fatal("allowed")
			}
			if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.Reason, tt.reason) }) {
				t.Errorf("no reason has %q: %v", tt.reason, problems)
			}
			for _, p := range problems {
				if want := fmt.Sprintf("templates.%s.%s", tt.kind, tt.lang); p.Field != want || p.Hint == "" {
					t.Errorf("problem %+v, want field %s and a hint", p, want)
				}
			}
		})
	}
}

func TestBrandAndContactAreChecked(t *testing.T) {
	for _, tt := range []struct {
		name  string
		o     Options
		field string // "" means allowed
		part  string // of the whole problem
	}{
		{"phone", Options{Brand: "Acme", Help: "+1 800 555 0100"}, "", ""},
		{"local spelling", Options{Brand: "Acme", Help: "(206) 555-0100"}, "", ""},
		{"vanity number", Options{Brand: "Acme", Help: "1-800-FLOWERS"}, "", ""},
		{"a number abroad", Options{Brand: "Acme", Help: "+44 20 7946 0000"}, "", ""},
		{"e-mail", Options{Brand: "Acme", Help: "help@acme.example"}, "", ""},
		{"web", Options{Brand: "Acme", Help: "acme.example/sms"}, "", ""},
		{"https", Options{Brand: "Acme", Help: "https://acme.example/sale"}, "", ""},
		{"spaces around", Options{Brand: " Acme ", Help: " acme.example\n"}, "", ""},
		{"a brand in which marketing words count for nothing", Options{Brand: "Best Buy Free Sale", Help: "bb.example"}, "", ""},
		{"a brand with a question mark", Options{Brand: "Who's Next?", Help: "who.example"}, "", ""},
		{"a brand in the alphabet", Options{Brand: "Müller & Söhne Øl", Help: "m.example"}, "", ""},
		{"32 characters", Options{Brand: strings.Repeat("b", 32), Help: "m.example"}, "", ""},
		{"a brand with braces", Options{Brand: "{help}", Help: "m.example"}, "", ""},
		{"no brand", Options{Help: "acme.example"}, "brand", "empty"},
		{"33 characters", Options{Brand: strings.Repeat("b", 33), Help: "m.example"}, "brand", "33 septets"},
		{"17 euro signs", Options{Brand: "a" + strings.Repeat("€", 16), Help: "m.example"}, "brand", "33 septets"},
		{"accents get a spelling", Options{Brand: "São João™", Help: "m.example"}, "brand", `write "Sao JoaoTM"`},
		{"another script gets none", Options{Brand: "Пример", Help: "m.example"}, "brand", "letters of the GSM-7"},
		{"control character", Options{Brand: "Ac\x00me", Help: "m.example"}, "brand", "U+0000"},
		{"only punctuation", Options{Brand: "***", Help: "m.example"}, "brand", "no letter"},
		{"no contact", Options{Brand: "Acme"}, "help", "empty"},
		{"a sentence", Options{Brand: "Acme", Help: "ask us"}, "help", "no telephone number"},
		{"http", Options{Brand: "Acme", Help: "http://acme.example"}, "help", "https"},
		{"e-mail with a name", Options{Brand: "Acme", Help: "Help <help@acme.example>"}, "help", "no telephone number"},
		{"e-mail without a domain", Options{Brand: "Acme", Help: "help@localhost"}, "help", "no telephone number"},
		{"shortener", Options{Brand: "Acme", Help: "https://bit.ly/acme"}, "help", "bit.ly"},
		{"41 characters", Options{Brand: "Acme", Help: strings.Repeat("a", 33) + ".example"}, "help", "41 septets"},
		{"negative", Options{Brand: "Acme", Help: "m.example", Frequency: -1}, "frequency", "-1"},
		{"a thousand", Options{Brand: "Acme", Help: "m.example", Frequency: 1000}, "frequency", "1000"},
		{"kind", Options{Brand: "Acme", Help: "m.example", Templates: map[Kind]map[string]string{"sotp": {"en": "x"}}}, "templates.sotp", "stop, start"},
		{"language", Options{Brand: "Acme", Help: "m.example", Templates: map[Kind]map[string]string{"stop": {"it": "x"}}}, "templates.stop.it", "en, es"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, problems := New(tt.o)
			if tt.field == "" {
				if s == nil || problems != nil {
					t.Fatalf("refused: %v", problems)
				}
				return
			}
			if s != nil || len(problems) != 1 || problems[0].Field != tt.field || !strings.Contains(problems[0].Error(), tt.part) {
				t.Fatalf("got %v, want one problem in %s with %q", problems, tt.field, tt.part)
			}
		})
	}
}

func TestEveryProblemIsReportedAtOnceInOrder(t *testing.T) {
	o := Options{Help: "+1 206 555 01", Templates: map[Kind]map[string]string{
		StopConfirmation: {"es": "Compre YES?", "en": "Acme: no more messages"},
		HelpAnswer:       {"de": ""},
	}}
	s, problems := New(o)
	if s != nil {
		t.Fatal("allowed")
	}
	var fields []string
	for _, p := range problems {
		fields = append(fields, p.Field)
		if strings.Contains(p.Error(), "206") {
			t.Errorf("the problem shows the number: %v", p)
		}
	}
	if !slices.IsSorted(fields) {
		t.Errorf("fields are not in order: %v", fields)
	}
	for _, want := range []string{"brand", "help", "templates.help.de", "templates.stop.en", "templates.stop.es"} {
		if !slices.Contains(fields, want) {
			t.Errorf("%s is not reported: %v", want, fields)
		}
	}
}

// genBrand draws what New accepts as a brand, and genHelp as a contact; both go up to their limits.
func genBrand() *rapid.Generator[string] {
	alphabet := []rune(strings.NewReplacer("\n", "", "\r", "", "\f", "", ".", "").Replace(gsmBasic + gsmExtension))
	return rapid.Map(rapid.StringOfN(rapid.RuneFrom(alphabet), 0, 31, -1), func(s string) string {
		for {
			if n, _, _ := GSM7(s); n < maxBrand {
				return s + "B"
			}
			_, size := utf8.DecodeLastRuneInString(s)
			s = s[:len(s)-size]
		}
	})
}

func genHelp() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[a-z]{1,12}@[a-z]{1,19}\.example`),
		rapid.StringMatching(`https://[a-z]{1,12}\.example/[a-z~]{1,6}`),
		rapid.StringMatching(`[a-z]{32}\.example`),
		rapid.StringMatching(`\+1 [2-9]0[2-9] 555 01[0-9]{2}`),
	)
}

func TestBuiltInTextsFitEveryAcceptedBrandAndContact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Brand: genBrand().Draw(t, "brand"), Help: genHelp().Draw(t, "help"), Frequency: rapid.SampledFrom([]int{0, 1, 30, 999}).Draw(t, "frequency")}
		s, problems := New(o)
		if problems != nil {
			t.Fatalf("%+v refused: %v", o, problems)
		}
		for k, tm := range s.All() {
			if n, ok, bad := GSM7(tm.Text); !ok || n > 160 {
				t.Fatalf("%s.%s: %d septets, bad %q: %s", k, tm.Lang, n, bad, tm.Text)
			}
		}
	})
}

func TestWhateverIsAcceptedIsOneMessage(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		// Pieces that make up good texts, so that many pass, among others.
		piece := rapid.OneOf(
			rapid.SampledFrom([]string{"{brand}", "{help}", "{frequency}", "no more messages", "Reply STOP", "Reply YES", "HELP", "START", "€", "[x]", "á", "\u200b", "sale", "Acme"}),
			rapid.StringN(0, 40, -1),
		)
		k := rapid.SampledFrom(Kinds()).Draw(t, "kind")
		lang := rapid.SampledFrom(Languages()).Draw(t, "lang")
		// The built-in text is a good beginning: with nothing behind it, it passes.
		base := rapid.SampledFrom([]string{"{brand} HELP {help}", builtin[k][lang]}).Draw(t, "base")
		text := strings.Join(append([]string{base}, rapid.SliceOfN(piece, 0, 6).Draw(t, "pieces")...), " ")
		o := with(k, lang, text)
		o.Brand = genBrand().Draw(t, "brand")
		s, problems := New(o)
		if (s == nil) != (len(problems) > 0) {
			t.Fatalf("set %v with problems %v", s, problems)
		}
		if s == nil {
			return
		}
		accepted++
		for k, tm := range s.All() {
			if n, ok, bad := GSM7(tm.Text); !ok || n > 160 || Segments(tm.Text) != 1 {
				t.Fatalf("%s.%s: %d septets, bad %q: %s", k, tm.Lang, n, bad, tm.Text)
			}
		}
	})
	if accepted == 0 {
		t.Error("no drawn text was accepted, so nothing was tested")
	}
}

func FuzzNew(f *testing.F) {
	f.Add("Acme", "help@acme.example", "stop", "en", "{brand}: no more messages")
	f.Add("São \xff", "bit.ly/x", "help", "es", "{{help}} 5€ STOP {x")
	f.Add("", "", "?", "", "")
	f.Fuzz(func(t *testing.T, brand, help, kind, lang, text string) {
		s, problems := New(Options{Brand: brand, Help: help, Templates: map[Kind]map[string]string{Kind(kind): {lang: text}}})
		if (s == nil) != (len(problems) > 0) {
			t.Fatalf("set %v with problems %v", s, problems)
		}
		for _, p := range problems {
			if p.Field == "" || p.Reason == "" || p.Hint == "" {
				t.Fatalf("incomplete problem %+v", p)
			}
		}
		if s != nil {
			for _, tm := range s.All() {
				if Segments(tm.Text) != 1 {
					t.Fatalf("not one message: %q", tm.Text)
				}
			}
		}
	})
}

func BenchmarkNew(b *testing.B) {
	o := acme()
	for b.Loop() {
		New(o)
	}
}
