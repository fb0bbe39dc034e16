package confirm

import "regexp"

// language is what the checks and the choice of a language know of one.
type language struct {
	stop, help, yes []string // words to name in capitals, without accents
	example         string   // how to say stop
	noMore          *regexp.Regexp
	noMoreExample   string
	marketing       []string // folded words and phrases that sell
	keywords        []string // folded keywords that only this language uses
	shared          []string // keywords that it shares with another of the five
	telltale        []string // folded words that only this language uses, found in requests to stop
}

// everyLanguage are marketing words that all five borrow.
var everyLanguage = []string{
	"promo", "promos", "promo code", "discount", "discounts", "coupon", "coupons", "black friday", "cyber monday", "cashback", "shop now", "buy now", "gratis", "off today", "bogo",
}

var languages = map[string]language{
	"en": {
		stop: []string{"STOP"}, help: []string{"HELP", "INFO"}, yes: []string{"YES"},
		example: "Reply STOP to stop.",
		noMore: regexp.MustCompile(`\b(no (more|further|other|additional) (\w+ ){0,2}(messages?|msgs?|texts?|sms)|no (messages|msgs|texts) will` +
			`|(not|never|no longer|won t) (be )?(\w+ ){0,2}(receiv(e|ing)|get|send|sent|sending|text|texting|texted|message|messaged|messaging|contact|contacted|hear from)` +
			`|stopped (all |our )?(sending|texting|messaging|texts|messages)|(last|final) (message|msg|text))\b`),
		noMoreExample: "You will get no more messages.",
		marketing: []string{
			"sale", "sales", "offer", "offers", "deal", "deals", "free", "buy", "purchase", "save up to", "percent off", "limited time", "clearance", "bargain", "bargains",
			"giveaway", "voucher", "vouchers", "prize", "win a", "win an", "enjoy", "exclusive", "order now", "sign up today", "check out", "visit our", "shop", "bonus", "gift card", "special price",
		},
		telltale: []string{"please", "pls", "the", "text", "texts", "texting", "you", "your", "my", "from", "this", "want", "dont", "and", "these", "off", "out", "take"},
	},
	"es": {
		stop: []string{"STOP"}, help: []string{"AYUDA", "HELP", "INFO"}, yes: []string{"SI", "YES"},
		example:       "Responda STOP para salir.",
		noMore:        regexp.MustCompile(`\b(no|ya no|nunca) (\w+ ){0,3}(recib|envi|mand|contact|escrib)\w*|\b(dejara de recibir|dejaremos de enviar\w*|dejamos de enviar\w*)\b`),
		noMoreExample: "No le enviaremos nuevos mensajes.",
		marketing: []string{
			"oferta", "ofertas", "descuento", "descuentos", "rebaja", "rebajas", "compra", "compre", "comprar", "cupon", "cupones", "gratuito", "gratuita", "promocion", "ganga", "aproveche", "precio", "premio", "ahorre", "tienda",
		},
		keywords: []string{"alto", "baja", "detener", "detenerse", "detengan", "detenga", "paren", "darse", "darme", "desuscribir", "desuscribirse", "desuscribirme", "suscripcion", "anular", "salir", "ayuda"},
		shared:   []string{"parar", "pare", "cancelar"},
		telltale: []string{"mensaje", "mensajes", "gracias", "quiero", "recibir", "recibiendo", "enviarme", "envien", "envienme", "manden", "mandarme", "usted", "ustedes", "dejen", "deje", "suscripcion", "borren", "borrame", "borreme", "quiten", "quitame", "quiteme", "basta"},
	},
	"fr": {
		stop: []string{"STOP", "ARRET"}, help: []string{"AIDE", "HELP", "INFO"}, yes: []string{"OUI", "YES"},
		example:       "Répondez STOP ou ARRET pour finir.",
		noMore:        regexp.MustCompile(`\b(ne|n) (\w+ ){0,2}(recev|receve|enver|envoy|contact|ecri)\w* (\w+ ){0,2}(plus|aucun|aucune)\b|\bplus (\w+ )?(recev|enver|envoy)\w*|\bplus (de|aucun) (messages?|sms|textos?)\b|\baucun (autre )?(message|sms|texto)\b`),
		noMoreExample: "Vous ne recevrez plus de messages.",
		marketing: []string{
			"offre", "offres", "solde", "soldes", "remise", "remises", "reduction", "reductions", "gratuit", "gratuite", "gratuitement", "achetez", "acheter", "achat", "bon plan", "bons plans", "promotion", "profitez", "prix", "cadeau", "boutique",
		},
		keywords: []string{"arret", "arrett", "arrete", "arretez", "arreter", "desabonner", "desabonnez", "desabonnement", "desabonne", "desinscription", "desinscrire", "desinscrivez", "resilier", "nonarret", "aide"},
		telltale: []string{"svp", "plait", "merci", "veuillez", "envoyer", "envoyez", "recevoir", "veux", "voudrais", "je", "vous", "ne", "pas", "votre", "bonjour"},
	},
	"pt": {
		stop: []string{"STOP"}, help: []string{"AJUDA", "HELP", "INFO"}, yes: []string{"SIM", "YES"},
		example:       "Responda STOP para sair.",
		noMore:        regexp.MustCompile(`\b(nao|nunca|nunca mais) (\w+ ){0,3}(receb|envi|mand|contat)\w*|\bnenhuma (\w+ )?mensagem\b|\b(deixamos|deixaremos|deixara|paramos) de (\w+ )?(envi|receb|mand)\w*`),
		noMoreExample: "Deixamos de lhe enviar mensagens.",
		marketing: []string{
			"oferta", "ofertas", "desconto", "descontos", "compre", "comprar", "compra", "cupom", "cupons", "gratuito", "gratuita", "promocao", "promocoes", "liquidacao", "aproveite", "preco", "premio", "loja",
		},
		keywords: []string{"sair", "parem", "descadastrar", "descadastre", "remover", "inscricao", "assinatura", "ajuda"},
		telltale: []string{"mensagem", "mensagens", "obrigado", "obrigada", "quero", "receber", "recebendo", "nao", "voce", "voces", "enviem", "mandem", "meu", "minha", "desta", "tirem"},
	},
	"de": {
		stop: []string{"STOP"}, help: []string{"HILFE", "HELP", "INFO"}, yes: []string{"JA", "YES"},
		example:       "Antworten Sie STOP zum Abmelden.",
		noMore:        regexp.MustCompile(`\b(keine?|keinerlei) (\w+ ){0,2}(nachricht|nachrichten|sms|texte|mitteilungen)\b|\b(nicht mehr|nie mehr|nie wieder)\b`),
		noMoreExample: "Sie erhalten keine weiteren Nachrichten.",
		marketing: []string{
			"angebot", "angebote", "rabatt", "rabatte", "kostenlos", "kaufen", "kauf", "gutschein", "gutscheine", "aktion", "aktionen", "schnappchen", "sale", "sparen", "preis", "preise", "gewinnen", "geschenk",
		},
		keywords: []string{"stopp", "abmelden", "abmeldung", "abbestellen", "austragen", "ende", "hilfe"},
		telltale: []string{"bitte", "keine", "nicht", "mehr", "nachricht", "nachrichten", "danke", "ich", "mich", "mir", "von", "loschen", "entfernen", "schicken", "weitere", "sie", "aufhoren"},
	},
}

// vote is a language that a word speaks for, and how loudly.
type vote struct {
	lang   string
	weight int
}

const (
	weightShared, weightTelltale, weightKeyword = 1, 2, 4
	maxLanguageBytes                            = 2048 // how much of a body is read; an SMS has at most 1,600 characters
)

var keywordVotes, bodyVotes = func() (k, b map[string]vote) {
	k, b = map[string]vote{}, map[string]vote{}
	for code, l := range languages {
		for _, w := range l.keywords {
			k[w] = vote{code, weightKeyword}
		}
		for _, w := range l.shared {
			k[w] = vote{code, weightShared}
		}
		for _, w := range l.telltale {
			b[w] = vote{code, weightTelltale}
		}
	}
	return k, b
}()

// Language returns the language to answer a reply in, one of [Languages]: that of the keyword it was decided by
// ([reply.Result.Keyword], "" if none), or that of the other words of its body where the keyword is used in several
// languages, as STOP is. Without a sign, or with as many for two languages, it is English.
func Language(keyword, body string) string {
	score := map[string]int{}
	tally := func(votes map[string]vote, text string) {
		seen := map[string]bool{}
		for _, w := range words(text[:min(len(text), maxLanguageBytes)]) {
			if v, ok := votes[w]; ok && !seen[w] {
				seen[w] = true
				score[v.lang] += v.weight
			}
		}
	}
	tally(keywordVotes, keyword)
	tally(bodyVotes, body)
	best, top, tied := "en", 0, false
	for _, lang := range Languages() {
		switch n := score[lang]; {
		case n > top:
			best, top, tied = lang, n, false
		case n == top && n > 0:
			tied = true
		}
	}
	if tied {
		return "en"
	}
	return best
}
