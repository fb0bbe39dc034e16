package reply

// keyword is a word or short phrase that means something when it is the whole message after normalising.
type keyword struct {
	text    string // in any spelling; the table is normalised when it is loaded
	verdict Verdict
	locked  bool // may not be disabled: the law names it, or switching it off would break START
}

// The locked opt-out words are those of 47 CFR 64.1200(a)(10). The others are the union of what providers block by
// default (Twilio, Telnyx, Plivo, Vonage, AWS, Bird, Salesforce), and the words for "stop" in other languages, which
// the rule's "any reasonable means" and the carriers' word-or-language practice ask for.
var keywords = []keyword{
	// English, 47 CFR 64.1200(a)(10)
	{"stop", OptOut, true}, {"quit", OptOut, true}, {"end", OptOut, true}, {"revoke", OptOut, true},
	{"opt out", OptOut, true}, {"cancel", OptOut, true}, {"unsubscribe", OptOut, true},
	// English, provider lists
	{"stopall", OptOut, false}, {"stop all", OptOut, false}, {"unsub", OptOut, false}, {"optout", OptOut, true},
	{"remove", OptOut, false}, {"td", OptOut, false}, {"terminate", OptOut, false}, {"halt", OptOut, false},
	{"opt me out", OptOut, false}, {"cease", OptOut, false}, {"stahp", OptOut, false}, {"discontinue", OptOut, false}, {"desist", OptOut, false}, {"unenroll", OptOut, false},
	// French
	{"arret", OptOut, false}, {"arrett", OptOut, false}, {"arrete", OptOut, false}, {"arretez", OptOut, false},
	{"arreter", OptOut, false}, {"arrêt total", OptOut, false}, {"désabonner", OptOut, false},
	{"désabonnez", OptOut, false}, {"désabonnement", OptOut, false}, {"désabonne", OptOut, false},
	{"désinscription", OptOut, false}, {"désinscrire", OptOut, false}, {"désinscrivez", OptOut, false},
	{"me désabonner", OptOut, false}, {"se désabonner", OptOut, false}, {"résilier", OptOut, false},
	// Spanish
	{"alto", OptOut, false}, {"baja", OptOut, false}, {"detener", OptOut, false}, {"detenerse", OptOut, false},
	{"detengan", OptOut, false}, {"detenga", OptOut, false}, {"parar", OptOut, false}, {"pare", OptOut, false},
	{"paren", OptOut, false}, {"cancelar", OptOut, false}, {"dar de baja", OptOut, false},
	{"darse de baja", OptOut, false}, {"darme de baja", OptOut, false}, {"de baja", OptOut, false},
	{"desuscribir", OptOut, false}, {"desuscribirse", OptOut, false}, {"desuscribirme", OptOut, false},
	{"cancelar suscripción", OptOut, false}, {"anular suscripción", OptOut, false}, {"salir", OptOut, false},
	// Portuguese
	{"sair", OptOut, false}, {"parem", OptOut, false}, {"descadastrar", OptOut, false}, {"remover", OptOut, false},
	{"cancelar inscrição", OptOut, false}, {"cancelar assinatura", OptOut, false}, {"descadastre", OptOut, false},
	// German
	{"stopp", OptOut, false}, {"abmelden", OptOut, false}, {"abmeldung", OptOut, false},
	{"abbestellen", OptOut, false}, {"austragen", OptOut, false}, {"ende", OptOut, false},
	// Italian, Dutch, Polish, Russian and others
	{"ferma", OptOut, false}, {"fermare", OptOut, false}, {"disiscrivi", OptOut, false},
	{"disiscrivimi", OptOut, false}, {"cancellami", OptOut, false}, {"cancellazione", OptOut, false},
	{"afmelden", OptOut, false}, {"uitschrijven", OptOut, false}, {"stoppen", OptOut, false},
	{"zatrzymaj", OptOut, false}, {"wypisz", OptOut, false}, {"rezygnuję", OptOut, false},
	{"остановить", OptOut, false}, {"стоп", OptOut, false}, {"отписаться", OptOut, false},
	{"отпишите", OptOut, false}, {"отписка", OptOut, false}, {"хватит", OptOut, false},
	{"avregistrera", OptOut, false}, {"avsluta", OptOut, false}, {"dur", OptOut, false}, {"iptal", OptOut, false},
	{"itigil", OptOut, false}, {"sispann", OptOut, false}, {"退订", OptOut, false}, {"取消订阅", OptOut, false},
	{"停止", OptOut, false}, {"配信停止", OptOut, false}, {"수신거부", OptOut, false}, {"توقف", OptOut, false},

	// YES, CONTINUE, BEGIN, JOIN and RESUME lift a block at some providers; they answer too many other questions
	// to lift anything here.
	{"start", OptIn, true}, {"unstop", OptIn, true}, {"nonarret", OptIn, false}, {"non arrêt", OptIn, false},
	{"subscribe", OptIn, false}, {"resubscribe", OptIn, false}, {"optin", OptIn, false}, {"opt in", OptIn, false},

	{"help", Help, true}, {"info", Help, false}, {"aide", Help, false}, {"ayuda", Help, false},
	{"ajuda", Help, false}, {"hilfe", Help, false}, {"aiuto", Help, false}, {"hulp", Help, false},
}

// affirmations answer a question; they never lift an opt-out, even when the provider says that they did.
var affirmations = []string{
	"yes", "y", "yeah", "yep", "yup", "yea", "ok", "okay", "sure", "si", "oui", "sim", "ja", "da", "tak", "confirm",
}

// weak are opt-out words that are requests of another kind as soon as anything stands beside them: "cancel please".
var weak = map[string]bool{
	"cancel": true, "end": true, "quit": true, "ende": true, "salir": true, "sair": true, "cancelar": true, "parar": true,
	"dur": true, "td": true, "stoppen": true,
}
