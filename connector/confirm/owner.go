package confirm

import "github.com/heed-sms/heed/sms/phone"

// Owner is the side that answers a reply on one sender.
type Owner string

const (
	ByProvider Owner = "provider" // the SMS provider's opt-out handling
	ByNetwork  Owner = "network"  // the toll-free network, which nobody can switch off
	ByHeed     Owner = "heed"
)

// Valid reports whether o is one of the three.
func (o Owner) Valid() bool { return o == ByProvider || o == ByNetwork || o == ByHeed }

// OwnerFor returns who sends an answer of this kind on one of our senders: an E.164 number or a short code in digits.
//
// On US and Canadian toll-free numbers the network itself answers STOP and START, with a fixed text, whatever is
// configured (support.twilio.com 360058144374, help.nexmo.com 233429767, docs.aws.amazon.com sms-voice
// keywords-required); HELP there is answered as configured. The question of a double opt-in is always heed's: no
// provider asks it. Otherwise configured holds, for long codes and short codes alike. A value that is no owner counts
// as ByProvider, because no confirmation is lawful and two are not.
//
// A provider's grouping of senders (a messaging service) is no sender: pass the number that the reply came to.
func OwnerFor(kind Kind, configured Owner, sender string) Owner {
	switch {
	case kind == OptInQuestion:
		return ByHeed
	case (kind == StopConfirmation || kind == StartConfirmation) && TollFree(sender):
		return ByNetwork
	case !configured.Valid():
		return ByProvider
	}
	return configured
}

// TollFree reports whether sender is a toll-free number of the North American Numbering Plan. A number without
// country code is read as a US one.
func TollFree(sender string) bool {
	n, err := phone.Parse(sender, "US")
	if err != nil {
		return false
	}
	d := n.Uint64()
	if d/10_000_000_000 != 1 {
		return false
	}
	switch d / 10_000_000 % 1000 {
	case 800, 833, 844, 855, 866, 877, 888:
		return true
	}
	return false
}
