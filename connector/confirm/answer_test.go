package confirm

import (
	"strings"
	"testing"

	"github.com/heed-sms/heed/connector/reply"
)

func TestOwnerFor(t *testing.T) {
	for _, tt := range []struct {
		kind       Kind
		configured Owner
		sender     string
		want       Owner
	}{
		{StopConfirmation, ByHeed, "+18005550100", ByNetwork},
		{StopConfirmation, ByProvider, "+18335550100", ByNetwork},
		{StartConfirmation, ByHeed, "+18445550100", ByNetwork},
		{StartConfirmation, ByHeed, "+18555550100", ByNetwork},
		{StopConfirmation, ByHeed, "+18665550100", ByNetwork},
		{StopConfirmation, ByHeed, "+18775550100", ByNetwork},
		{StopConfirmation, ByHeed, "18885550100", ByNetwork},
		{StopConfirmation, ByHeed, "(888) 555-0100", ByNetwork},
		{HelpAnswer, ByHeed, "+18005550100", ByHeed},
		{HelpAnswer, ByProvider, "+18005550100", ByProvider},
		{OptInQuestion, ByProvider, "+18005550100", ByHeed},
		{OptInQuestion, ByProvider, "+12065550100", ByHeed},
		{StopConfirmation, ByHeed, "+12065550100", ByHeed},
		{StopConfirmation, ByProvider, "+12065550100", ByProvider},
		{StopConfirmation, ByNetwork, "+12065550100", ByNetwork},
		{StopConfirmation, ByHeed, "+18225550100", ByHeed}, // 822 is reserved, not in use
		{StopConfirmation, ByHeed, "80055", ByHeed},        // a short code
		{StopConfirmation, ByProvider, "888777", ByProvider},
		{StopConfirmation, ByHeed, "+4480055501000", ByHeed},
		{StopConfirmation, ByHeed, "+8005550100", ByHeed}, // +800 is no North American number
		{StopConfirmation, ByHeed, "MG0123456789abcdef0123456789abcdef", ByHeed},
		{StopConfirmation, ByHeed, "", ByHeed},
		{StopConfirmation, "", "+12065550100", ByProvider},
		{HelpAnswer, "nobody", "12345", ByProvider},
	} {
		if got := OwnerFor(tt.kind, tt.configured, tt.sender); got != tt.want {
			t.Errorf("OwnerFor(%s, %q, %q) = %s, want %s", tt.kind, tt.configured, tt.sender, got, tt.want)
		}
	}
}

func TestLanguage(t *testing.T) {
	for _, tt := range []struct{ keyword, body, want string }{
		{"stop", "STOP", "en"}, {"", "", "en"}, {"", "hello", "en"}, {"unsubscribe", "Unsubscribe", "en"}, {"td", "TD", "en"},
		{"alto", "ALTO", "es"}, {"baja", "baja", "es"}, {"parar", "PARAR", "es"}, {"detener", "Detener", "es"}, {"dar de baja", "dar de baja", "es"},
		{"ayuda", "Ayuda", "es"}, {"cancelar suscripcion", "cancelar suscripción", "es"}, {"salir", "SALIR", "es"}, {"ALTO", "", "es"},
		{"arret", "ARRÊT", "fr"}, {"desabonner", "désabonner", "fr"}, {"non arret", "non arrêt", "fr"}, {"aide", "aide", "fr"}, {"arret total", "", "fr"},
		{"sair", "SAIR", "pt"}, {"cancelar assinatura", "cancelar assinatura", "pt"}, {"ajuda", "ajuda", "pt"}, {"descadastrar", "", "pt"},
		{"abmelden", "Abmelden", "de"}, {"stopp", "STOPP", "de"}, {"hilfe", "Hilfe", "de"}, {"ende", "Ende", "de"},
		{"ferma", "FERMA", "en"}, {"стоп", "СТОП", "en"},
		// STOP is said in every language; the rest of the body tells
		{"stop", "Stop los mensajes, gracias", "es"}, {"stop", "Bitte stop", "de"}, {"stop", "stop svp", "fr"}, {"stop", "stop obrigado", "pt"},
		{"stop", "please stop texting, Palo Alto", "en"}, {"", "no quiero recibir mensajes", "es"}, {"", "Je ne veux pas de SMS", "fr"},
		{"", "não quero receber mensagens", "pt"}, {"", "ich möchte keine Nachrichten mehr", "de"},
		// a shared keyword gives way to the body, a word of one language only does not
		{"pare", "pare", "es"}, {"pare", "pare de me enviar mensagens", "pt"}, {"cancelar", "cancelar por favor", "es"}, {"arret", "arret please", "fr"},
		{"stop", "please bitte stop", "en"}, {"stop", "gracias merci stop", "en"},
		{"stop", strings.Repeat("x ", 2000) + "bitte", "en"}, {"", "\xff\xfe", "en"},
	} {
		if got := Language(tt.keyword, tt.body); got != tt.want {
			t.Errorf("Language(%q, %.60q) = %s, want %s", tt.keyword, tt.body, got, tt.want)
		}
	}
}

func TestLanguageReadsTheKeywordsOfPackageReply(t *testing.T) {
	for body, want := range map[string]string{
		"ALTO": "es", "Baja.": "es", "DETENER!": "es", "ARRÊT": "fr", "Arrêtez": "fr", "Sair": "pt", "ABMELDEN": "de", "stopp": "de", "STOP": "en", "stpo": "en",
	} {
		r := reply.Default().Classify(body)
		if r.Verdict != reply.OptOut {
			t.Fatalf("%q is %s", body, r.Verdict)
		}
		if got := Language(r.Keyword, body); got != want {
			t.Errorf("Language(%q, %q) = %s, want %s", r.Keyword, body, got, want)
		}
	}
}

func TestAWordSpeaksForOneLanguageOnly(t *testing.T) {
	keyword, telltale := map[string]string{}, map[string]string{}
	for code, l := range languages {
		for _, w := range append(append([]string{}, l.keywords...), l.shared...) {
			if other, dup := keyword[w]; dup {
				t.Errorf("keyword %q is in %s and %s", w, other, code)
			}
			keyword[w] = code
		}
		for _, w := range l.telltale {
			if other, dup := telltale[w]; dup {
				t.Errorf("word %q is in %s and %s", w, other, code)
			}
			telltale[w] = code
		}
	}
}

func TestProviderRepliesAreRecognised(t *testing.T) {
	for text, want := range map[string]Kind{
		"You have successfully been unsubscribed. You will not receive any more messages from this number. Reply START to resubscribe.":                    StopConfirmation,
		"You have successfully been unsubscribed, you will not receive any more messages from this number. Reply START to re-subscribe.":                   StopConfirmation,
		"Sent from your Twilio trial account - You have successfully been unsubscribed. You will not receive any more messages from this number.":          StopConfirmation,
		"You have successfully been unsubscribed to messages from this number. Reply START to resubscribe":                                                 StopConfirmation,
		"NETWORK MSG: You replied with the word \"stop\" which blocks all texts sent from this number. Text back \"unstop\" to receive messages again.":    StopConfirmation,
		"NETWORK MSG: You replied with the word “STOP”, which blocks all texts sent from this number. Text back “UNSTOP” to receive\nmessages again.":      StopConfirmation,
		"NETWORK MSG: You replied with the word \"stop\" which blocks all texts from this number. Text back \"unstop\" to receive messages again.":         StopConfirmation,
		"You replied with the word \"stop\" which blocks all texts from this number. Text back \"unstop\" to start receiving messages again.":              StopConfirmation,
		"You have been unsubscribed and will not receive any more messages from this number.":                                                              StopConfirmation,
		"You have successfully been re-subscribed to messages from this number. Reply HELP for help. Reply STOP to unsubscribe. Msg&Data Rates May Apply.": StartConfirmation,
		"You have successfully been resubscribed to messages from this number. Reply HELP for help. Reply STOP to unsubscribe. Msg&Data Rates May Apply.":  StartConfirmation,
		"You have successfully been re-subscribed to this number. Reply STOP to unsubscribe. Msg&Data Rates May Apply.":                                    StartConfirmation,
		"You have successfully been re-subscribed to messages from this number. Reply STOP to unsubscribe.":                                                StartConfirmation,
		"NETWORK MSG: You have replied \"unstop\" and will begin receiving messages again from this number.":                                               StartConfirmation,
		"NETWORK MSG: You have replied \"Start\" and will begin receiving messages again from this number.":                                                StartConfirmation,
		"You have replied \"unstop\" and will begin receiving messages again from this number. Text back \"stop\" to stop receiving messages again.":       StartConfirmation,
		"Reply STOP to unsubscribe. Msg&Data Rates May Apply.":                                                                                             HelpAnswer,
		"Text STOP to stop receiving messages from this number. Message and data rates may apply.":                                                         HelpAnswer,
		"Text \"STOP\" to stop receiving any messages from this number. Text \"START\" to start receiving messages again\nfrom this number.":               HelpAnswer,
		"  NETWORK MSG: you replied with the word \"stop\" which blocks all texts sent from this number. Text back \"unstop\" to receive messages again. ": StopConfirmation,
		"YOU HAVE SUCCESSFULLY BEEN UNSUBSCRIBED. YOU WILL NOT RECEIVE ANY MORE MESSAGES FROM THIS NUMBER. REPLY START TO RESUBSCRIBE.":                    StopConfirmation,
		"You\u00a0have successfully been unsubscribed. You will not receive any more messages from this number. Reply START to resubscribe.\u200b":         StopConfirmation,
		"Sent from your Twilio trial account - Reply STOP to unsubscribe. Msg&Data Rates May Apply.":                                                       HelpAnswer,
	} {
		if got, ok := LooksLikeProviderReply(text); !ok || got != want {
			t.Errorf("%q is %q, %v; want %s", text, got, ok, want)
		}
	}
}

func TestOrdinaryMessagesAreNoProviderReplies(t *testing.T) {
	for _, text := range []string{
		"", " ", "NETWORK MSG:", "STOP", "Hi Ann, your table is booked for 7. Reply STOP to unsubscribe.",
		"Acme: 4 msgs a month. Reply STOP to unsubscribe. Msg&Data Rates May Apply.",
		"You have successfully been unsubscribed from the newsletter.",
		"Welcome! You have successfully been re-subscribed to messages from this number. Reply STOP to unsubscribe.",
		"Acme: You have been unsubscribed and will not receive any more messages from this number.",
		"NETWORK MSG: your router is offline.",
		"You asked why you saw: You have successfully been unsubscribed. You will not receive any more messages from this number. Reply START to resubscribe.",
		"You have successfully been unsubscribed. You will not receive any more messages from this number. Reply START to resubscribe. " + strings.Repeat("x", 400),
		"\xff\xfe",
	} {
		if k, ok := LooksLikeProviderReply(text); ok {
			t.Errorf("%.60q is taken for a provider's %s answer", text, k)
		}
	}
	// heed's own texts are not mistaken for the provider's
	s, problems := New(acme())
	if problems != nil {
		t.Fatal(problems)
	}
	for k, tm := range s.All() {
		if got, ok := LooksLikeProviderReply(tm.Text); ok {
			t.Errorf("%s.%s is taken for a provider's %s answer", k, tm.Lang, got)
		}
	}
}

func BenchmarkLooksLikeProviderReply(b *testing.B) {
	for b.Loop() {
		LooksLikeProviderReply("Hi Ann, your table is booked for 7 tonight. Reply STOP to unsubscribe.")
	}
}
