package reply

// Rule documents one rule of the classifier.
type Rule struct {
	Name    string // as in [Result]
	Does    string // one sentence
	Source  string // what it rests on
	Example string // a reply for which it decides; "" where more than the text is needed
}

const (
	cfr  = "47 CFR 64.1200(a)(10)"
	ctia = "CTIA Messaging Principles and Best Practices (2023) 5.1.3"
)

// Rules are all rules, in the order in which they are tried. README.md and `heed classify` show them.
var Rules = []Rule{
	{"provider_flag", "the provider's own reading: stop is final; start and help count unless the text may be a request to stop, and start does not count on a bare yes",
		"https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out (OptOutType)", ""},
	{"exact_opt_in", "the whole message is an opt-in word; tried before the opt-out words because UNSTOP contains STOP",
		"https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out, " + ctia, "UNSTOP"},
	{"exact_help", "the whole message is a help word, apart from a please or thanks",
		ctia, "HELP"},
	{"exact_opt_out", "the whole message is an opt-out word in any case, accents, width, spacing and punctuation",
		cfr + ", " + ctia + ", the providers' keyword lists", "S.T.O.P."},
	{"reaction", "the phone reports a reaction to a message that it quotes; only what stands behind the quotation counts",
		"https://support.apple.com/guide/iphone (Tapbacks), https://support.google.com/messages (reactions)", "Liked “Reply STOP to opt out”"},
	{"stop_emoji", "nothing but emoji, one of them a stop sign: held", cfr + " (any reasonable means)", "🛑"},
	{"yes", "a bare yes answers a question and lifts nothing, whatever the provider does with it",
		"https://help.twilio.com/articles/223134027 (YES lifts Twilio's block)", "YES"},
	{"mixed_script", "an opt-out word written with look-alike letters or digits opts out; one that is misspelt as well is held",
		"https://www.unicode.org/reports/tr39/ (confusables)", "SТОР"},
	{"typo", "one word that is a slip of the thumb away from an opt-out word, drawn out, repeated, or in pieces; never an ordinary word such as step or shop. One that is a little further away is held",
		cfr + " (any reasonable means), " + ctia + " (small variations)", "STPO"},
	{"phrase", "a request in plain words opts out, and what could be one is held: wrong number, not interested, spam",
		cfr + " (any reasonable means), " + ctia + " (normal language)", "please stop texting me"},
	{"negation", "“don't stop” asks for the opposite; “if you don't stop” does not", ctia + " (normal language)", "please don't stop"},
	{"other_topic", "the person stops, cancels or removes something that is not this conversation", ctia + " (normal language)", "take me off the schedule for friday"},
	{"quoted", "the sender's own instruction, copied: held when it is all there is", ctia + " (normal language)", "Reply STOP to opt out"},
	{"scoped", "a request with a limit (until Monday, not at work, STOP 12345): held, because heed keeps no categories",
		"47 CFR 64.1200(a)(12) (no answer to a clarifying question means all)", "STOP 12345"},
	{"complement", "an opt-out word whose complement gives it another meaning: stop by, cancel my order, end of June", ctia + " (normal language)", "Stop by at 5?"},
	{"resembles", "no other rule knows the text, and its words look more like those of requests than like those of ordinary replies: held; a linear model over the corpora's development halves",
		cfr + " (any reasonable means)", "I have asked nicely three times already"},
	{"empty_media", "a picture, a voice note or another medium without text may say stop: held", cfr + " (any reasonable means)", ""},
	{"too_long", "longer than 4,096 characters and no request in what was read: held", "an SMS has at most 1,600 characters", ""},
	{"blank", "no text at all", "", ""},
	{"none", "nothing that has to do with stopping, starting or help", "", "see you at 5"},
}
