package confirm

import (
	"regexp"
	"strings"
)

// providerReplies are the default answers of providers and networks, as words in lower case. Each must match a whole
// text.
var providerReplies = []struct {
	kind    Kind
	pattern *regexp.Regexp
}{
	// Twilio (missiveapp.com/faq/opt-out-sms, blog.textit.in/tracking-opt-outs) and Telnyx (support.telnyx.com 1270091)
	// differ in punctuation only; Azure short codes (learn.microsoft.com, SMS FAQ) say "unsubscribed to messages".
	{StopConfirmation, whole(`you have successfully been unsubscribed (you will not receive any more messages from this number|to messages from this number)( reply start to re ?subscribe)?`)},
	{StartConfirmation, whole(`you have successfully been re ?subscribed to (messages from )?this number( reply help for help)? reply stop to unsubscribe( msg data rates may apply)?`)},
	{HelpAnswer, whole(`reply stop to unsubscribe msg data rates may apply`)},
	// Toll-free network, the same at every provider (support.twilio.com 360058144374, support.telnyx.com 6989758,
	// help.nexmo.com 233429767, Azure, Bandwidth). Plivo's older page and RingCentral's sample answers
	// (developers.ringcentral.com, high-volume/opt-out) lack the prefix.
	{StopConfirmation, whole(`(network msg )?you replied with the word (stop|arret) which blocks all texts (sent )?from this number text back (unstop|nonarret) to (receive|start receiving) messages again`)},
	{StartConfirmation, whole(`(network msg )?you have replied (unstop|start|nonarret) and will begin receiving messages again from this number( text back stop to stop receiving messages again)?`)},
	// Plivo (docs.plivo.com dnd-service, and its older page for the second HELP answer)
	{StopConfirmation, whole(`you have been unsubscribed and will not receive any more messages from this number`)},
	{HelpAnswer, whole(`text stop to stop receiving messages from this number message and data rates may apply`)},
	{HelpAnswer, whole(`text stop to stop receiving any messages from this number text start to start receiving messages again from this number`)},
}

func whole(p string) *regexp.Regexp { return regexp.MustCompile("^(?:" + p + ")$") }

// trialPrefix is what Twilio puts before every message of a trial account.
const trialPrefix = "sent from your twilio trial account "

// maxProviderReply is longer than any of them, in bytes.
const maxProviderReply = 320

// LooksLikeProviderReply recognises the default answers to STOP, START and HELP of Twilio, Telnyx, Plivo, Azure,
// RingCentral and the toll-free network in an outbound log, whatever their case, quotes and punctuation, so that heed
// does not answer a second time.
//
// It is conservative: the whole text has to be such an answer, so an ordinary message that quotes one or ends in
// "Reply STOP to unsubscribe" is none. It cannot know texts that an operator wrote at the provider (Twilio Advanced
// Opt-Out, Telnyx autoresponses); where those are in use the sender's owner must be configured as the provider.
// Toll-free answers that the network sends itself are usually in no provider's log; [OwnerFor] knows them by number.
func LooksLikeProviderReply(text string) (kind Kind, ok bool) {
	if len(text) > maxProviderReply {
		return "", false
	}
	normal := strings.TrimPrefix(strings.Join(words(text), " "), trialPrefix)
	for _, p := range providerReplies {
		if p.pattern.MatchString(normal) {
			return p.kind, true
		}
	}
	return "", false
}
