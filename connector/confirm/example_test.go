package confirm_test

import (
	"fmt"

	"github.com/heed-sms/heed/connector/confirm"
)

func ExampleNew() {
	set, problems := confirm.New(confirm.Options{Brand: "Acme", Help: "acme.example/sms", Frequency: 4})
	fmt.Println(len(problems))
	fmt.Println(set.Text(confirm.StopConfirmation, "en"))
	fmt.Println(set.Text(confirm.HelpAnswer, "fr"))
	// Output:
	// 0
	// Acme: You are unsubscribed and will get no more messages from us. Reply START to get them again.
	// Acme aide: acme.example/sms. Jusqu'à 4 SMS/mois. Frais possibles. Répondez STOP ou ARRET pour finir.
}

func ExampleNew_problems() {
	_, problems := confirm.New(confirm.Options{
		Brand: "Acme", Help: "acme.example",
		Templates: map[confirm.Kind]map[string]string{confirm.StopConfirmation: {
			"en": "{brand}: no more messages. Reply YES to stay!",
			"es": "{brand}: Ya no recibirá mensajes.",
		}},
	})
	for _, p := range problems {
		fmt.Println(p.Field)
		fmt.Println("  " + p.Reason)
		fmt.Println("  " + p.Hint)
	}
	// Output:
	// templates.stop.en
	//   asks for something: it wants the answer YES
	//   only confirm; telling the person to reply START is allowed (47 CFR 64.1200(a)(12), FCC 12-143)
	// templates.stop.es
	//   outside the GSM-7 alphabet, so that only 70 characters fit one message: "á" (U+00E1)
	//   write "{brand}: Ya no recibira mensajes."
}

func ExampleOwnerFor() {
	fmt.Println(confirm.OwnerFor(confirm.StopConfirmation, confirm.ByHeed, "+18005550100"))
	fmt.Println(confirm.OwnerFor(confirm.StopConfirmation, confirm.ByHeed, "+12065550100"))
	fmt.Println(confirm.OwnerFor(confirm.HelpAnswer, confirm.ByProvider, "+18005550100"))
	// Output:
	// network
	// heed
	// provider
}

func ExampleLanguage() {
	fmt.Println(confirm.Language("arret", "ARRÊT"))
	fmt.Println(confirm.Language("stop", "Stop los mensajes, gracias"))
	fmt.Println(confirm.Language("stop", "STOP"))
	// Output:
	// fr
	// es
	// en
}

func ExampleSegments() {
	fmt.Println(confirm.Segments("Your table is booked for 7."))
	fmt.Println(confirm.Segments("Su reservación está confirmada para las siete de la tarde de mañana, hasta entonces."))
	// Output:
	// 1
	// 2
}

func ExampleLooksLikeProviderReply() {
	kind, ok := confirm.LooksLikeProviderReply(`NETWORK MSG: You replied with the word "stop" which blocks all texts sent from this number. Text back "unstop" to receive messages again.`)
	fmt.Println(kind, ok)
	// Output: stop true
}
