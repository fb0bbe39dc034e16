package confirm

import (
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a text is for.
type Kind string

const (
	StopConfirmation  Kind = "stop"            // confirms an opt-out
	StartConfirmation Kind = "start"           // confirms an opt-in
	HelpAnswer        Kind = "help"            // answers HELP
	OptInQuestion     Kind = "opt_in_question" // asks for the YES of a double opt-in
)

// Kinds returns every kind.
func Kinds() []Kind { return []Kind{StopConfirmation, StartConfirmation, HelpAnswer, OptInQuestion} }

// Languages returns the languages that texts can be written in, ISO 639-1, English first.
func Languages() []string { return []string{"en", "es", "fr", "pt", "de"} }

// Template is a finished text in one language.
type Template struct {
	Lang string // one of Languages
	Text string // what is sent, every placeholder filled in
}

// Options is what the operator configures.
type Options struct {
	Brand     string                     // the name that people know the sender by; at most 32 septets of GSM-7
	Help      string                     // where a person gets help: a telephone number, an e-mail or web address; at most 40 septets
	Frequency int                        // how many messages a person gets a month at most, 1 to 999; 0 says that it varies
	Templates map[Kind]map[string]string // texts in place of the built-in ones, by kind and language
}

const (
	maxBrand     = 32
	maxHelp      = 40
	maxFrequency = 999
)

// builtin is written in characters of the GSM alphabet only, which is why Spanish and Portuguese choose words without
// á í ó ú ã ç. Each fits 160 septets with the longest brand, contact and frequency.
var builtin = map[Kind]map[string]string{
	StopConfirmation: {
		"en": "{brand}: You are unsubscribed and will get no more messages from us. Reply START to get them again.",
		"es": "{brand}: Baja confirmada. No le enviaremos nuevos mensajes. Responda START para volver a recibirlos.",
		"fr": "{brand}: Désabonnement confirmé. Vous ne recevrez plus de messages. Répondez START pour les recevoir de nouveau.",
		"pt": "{brand}: Cancelamento confirmado. Deixamos de lhe enviar mensagens. Responda START para voltar a receber.",
		"de": "{brand}: Sie sind abgemeldet und erhalten keine weiteren Nachrichten. Antworten Sie START, um sie wieder zu erhalten.",
	},
	StartConfirmation: {
		"en": "{brand}: You are subscribed. {frequency}. Msg&data rates may apply. Reply HELP for help, STOP to stop.",
		"es": "{brand}: Alta confirmada. {frequency}. Pueden aplicar tarifas. Responda AYUDA para ayuda, STOP para salir.",
		"fr": "{brand}: Abonnement confirmé. {frequency}. Frais possibles. Répondez AIDE pour de l'aide, STOP ou ARRET pour finir.",
		"pt": "{brand}: Cadastro confirmado. {frequency}. Podem ser cobradas tarifas. Responda AJUDA para ajuda, STOP para sair.",
		"de": "{brand}: Anmeldung bestätigt. {frequency}. Ggf. fallen Kosten an. Antworten Sie HILFE für Hilfe, STOP zum Abmelden.",
	},
	HelpAnswer: {
		"en": "{brand} help: {help}. {frequency}. Msg&data rates may apply. Reply STOP to stop.",
		"es": "{brand} ayuda: {help}. {frequency}. Pueden aplicar tarifas. Responda STOP para salir.",
		"fr": "{brand} aide: {help}. {frequency}. Frais possibles. Répondez STOP ou ARRET pour finir.",
		"pt": "{brand} ajuda: {help}. {frequency}. Podem ser cobradas tarifas. Responda STOP para sair.",
		"de": "{brand} Hilfe: {help}. {frequency}. Ggf. fallen Kosten an. Antworten Sie STOP zum Abmelden.",
	},
	OptInQuestion: {
		"en": "{brand}: Reply YES to get our messages. {frequency}. Msg&data rates may apply. Reply HELP for help, STOP to stop.",
		"es": "{brand}: Responda SI para recibir nuestros SMS. {frequency}. Pueden aplicar tarifas. AYUDA para ayuda, STOP para salir.",
		"fr": "{brand}: Répondez OUI pour recevoir nos SMS. {frequency}. Frais possibles. AIDE pour de l'aide, STOP ou ARRET pour finir.",
		"pt": "{brand}: Responda SIM para receber SMS. {frequency}. Podem ser cobradas tarifas. AJUDA para ajuda, STOP para sair.",
		"de": "{brand}: Antworten Sie JA für unsere SMS. {frequency}. Ggf. fallen Kosten an. HILFE für Hilfe, STOP zum Abmelden.",
	},
}

// frequencies are the texts of {frequency}: up to # messages a month, and varying.
var frequencies = map[string][2]string{
	"en": {"Up to # msgs/month", "Msg frequency varies"},
	"es": {"Hasta # SMS al mes", "Frecuencia variable"},
	"fr": {"Jusqu'à # SMS/mois", "Fréquence variable"},
	"pt": {"Até # SMS mensais", "Volume de SMS varia"},
	"de": {"Bis # SMS im Monat", "Häufigkeit variiert"},
}

// Set is one checked text for every kind and language. It is immutable and safe for concurrent use.
type Set struct {
	texts map[Kind]map[string]string
}

// New fills in and checks every text, the built-in ones and those of o.Templates, against the rules in the package
// documentation. It reports all problems at once, ordered by field; the Set is nil if there is any.
func New(o Options) (*Set, []Problem) {
	c := newChecker(o)
	s := &Set{texts: make(map[Kind]map[string]string, len(builtin))}
	for _, k := range Kinds() {
		s.texts[k] = make(map[string]string, len(Languages()))
		for _, lang := range Languages() {
			t, given := o.Templates[k][lang]
			if !given {
				t = builtin[k][lang]
			}
			s.texts[k][lang] = c.template(k, lang, t)
		}
	}
	c.unknown(o.Templates)
	if len(c.problems) > 0 {
		slices.SortStableFunc(c.problems, func(a, b Problem) int { return strings.Compare(a.Field, b.Field) })
		return nil, c.problems
	}
	return s, nil
}

// Text returns the text of a kind in a language, in which a region is ignored ("es-MX"), or in English if there is
// none in that language. It returns "" for a kind that does not exist.
func (s *Set) Text(kind Kind, lang string) string {
	base, _, _ := strings.Cut(strings.ToLower(strings.ReplaceAll(lang, "_", "-")), "-")
	if t, ok := s.texts[kind][base]; ok {
		return t
	}
	return s.texts[kind]["en"]
}

// All yields every text, by kind and language in the order of [Kinds] and [Languages].
func (s *Set) All() iter.Seq2[Kind, Template] {
	return func(yield func(Kind, Template) bool) {
		for _, k := range Kinds() {
			for _, lang := range Languages() {
				if !yield(k, Template{lang, s.texts[k][lang]}) {
					return
				}
			}
		}
	}
}

func frequency(lang string, n int) string {
	f := frequencies[lang]
	if n == 0 {
		return f[1]
	}
	return strings.Replace(f[0], "#", strconv.Itoa(n), 1)
}
