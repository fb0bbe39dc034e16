package twiliofake

import "strings"

// Twilio's default keywords for long codes (support article 223134027). A keyword is the whole message, in any case.
var keywords = map[string]string{
	"STOP": "STOP", "STOPALL": "STOP", "UNSUBSCRIBE": "STOP", "CANCEL": "STOP", "END": "STOP", "QUIT": "STOP",
	"REVOKE": "STOP", "OPTOUT": "STOP",
	"START": "START", "YES": "START", "UNSTOP": "START",
	"HELP": "HELP", "INFO": "HELP",
}

// On a toll-free number the network knows fewer words (support article 360058144374). HELP and INFO are Twilio's.
var tollFreeKeywords = map[string]string{
	"STOP": "STOP", "START": "START", "UNSTOP": "START", "HELP": "HELP", "INFO": "HELP",
}

// Twilio's default replies.
const (
	stopReply  = "You have successfully been unsubscribed. You will not receive any more messages from this number. Reply START to resubscribe."
	startReply = "You have successfully been re-subscribed to messages from this number. Reply HELP for help. Reply STOP to unsubscribe. Msg&Data Rates May Apply."
	helpReply  = "Reply STOP to unsubscribe. Msg&Data Rates May Apply."
)

func tollFree(number string) bool {
	for _, code := range []string{"800", "833", "844", "855", "866", "877", "888"} {
		if strings.HasPrefix(number, "+1"+code) {
			return true
		}
	}
	return false
}

// keyword tells what Twilio, or the network, reads in a text: "STOP", "START", "HELP" or "".
func keyword(to, body string) string {
	word := strings.ToUpper(strings.TrimSpace(body))
	if tollFree(to) {
		return tollFreeKeywords[word]
	}
	return keywords[word]
}

// obey blocks or unblocks as a text asks, and lets Twilio or the network reply to the phone. Only a change of state is
// confirmed: a second STOP stays unanswered, and an opted-out phone gets no answer to HELP. The caller holds the lock.
func (s *Server) obey(verb string, in inbound) {
	number, service := pair{in.to, in.from}, pair{s.service, in.from}
	was := s.blocked[number]
	reply, network := "", tollFree(in.to) && verb != "HELP"
	switch {
	case verb == "STOP":
		s.blocked[number], s.blocked[service] = true, true
		s.network[number] = network
		if reply = stopReply; network {
			reply = `NETWORK MSG: You replied with the word "stop" which blocks all texts sent from this number. Text back "unstop" to receive messages again.`
		}
	case verb == "START":
		delete(s.blocked, number)
		delete(s.network, number)
		delete(s.blocked, service)
		if reply = startReply; network {
			word := strings.ToLower(strings.TrimSpace(in.body))
			reply = `NETWORK MSG: You have replied "` + word + `" and will begin receiving messages again from this number.`
		}
	case verb == "HELP" && !was:
		reply = helpReply
	}
	if reply == "" || verb == "STOP" && was || verb == "START" && !was {
		return
	}
	m := &message{from: in.to, to: in.from, text: reply, direction: "outbound-reply", status: "delivered"}
	if network {
		s.stamp(m) // the network answers by itself: Twilio's log does not have it
	} else {
		s.record(m)
	}
	m.sent = m.created
	s.show(in.from, m)
}

// mayNotWrite reports whether a send is stopped by an opt-out: of the service when it goes through the service, else of
// the one number. The caller holds the lock.
func (s *Server) mayNotWrite(service, from, phone string) bool {
	if service != "" {
		return s.blocked[pair{service, phone}]
	}
	return s.blocked[pair{from, phone}]
}
