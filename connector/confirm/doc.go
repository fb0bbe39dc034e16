// Package confirm decides which one text answers a reply that meant stop, start or help, who sends it, and whether
// the text is allowed at all.
//
// It is pure: no I/O, no clock, no state. What a reply means is package reply; whether a text was sent already, and
// sending it once, is package connector.
//
// # One answer, from one side
//
// An opt-out may be confirmed with one text, which must be the only further message (47 CFR 64.1200(a)(12)). Sent
// within five minutes of the request it is presumed to be covered by the consent that the person had; later the
// sender has to justify the delay. Two sides that both confirm break the rule, so each sender has one [Owner]:
// [OwnerFor]. [LooksLikeProviderReply] finds the provider's own answer in its log, so that heed can stay silent.
//
// # Rules for a text
//
// [New] checks every text when the program starts, after filling in brand and contact, and names each problem:
//
//   - One message: at most 160 septets of the GSM 7-bit alphabet (3GPP TS 23.038, section 6.2.1), in which
//     ^ { } \ [ ~ ] | € count two. A character outside it turns the text into UCS-2, of which 70 units fit, and a
//     second part of a confirmation is a second message after an opt-out, where one is allowed (CTIA Messaging
//     Principles and Best Practices 5.1.3).
//   - The brand is named (CTIA 5.1.2.1 for the opt-in confirmation; CTIA Short Code Monitoring Handbook, A.3, for
//     the answers to HELP and STOP).
//   - The stop confirmation says that no more messages come, and asks nothing: no question, no "reply YES", no
//     attempt to win the person back. 47 CFR 64.1200(a)(12) allows a question only about the scope among several
//     categories of messages; heed's opt-out covers them all, so there is nothing to ask. How to start again may be
//     said: FCC 12-143 (SoundBite), paragraph 12.
//   - The help answer names the contact and how to stop; the start confirmation says how to get help and how to
//     stop (CTIA 5.1.2.1 and 5.1.3: opt-in confirmation with customer care contact and opt-out instructions). The
//     word must be STOP, in French STOP or ARRET: other words reach heed but not every provider's or network's filter.
//   - The double opt-in question says which word answers it (YES or its equivalent) and how to stop.
//   - No marketing and no prices, in any of the texts: 47 CFR 64.1200(a)(12) for the stop confirmation. The list of
//     words is short and errs on the side of refusing; the brand's own name is exempt ("Best Buy").
//   - No public URL shortener: carriers filter them (CTIA 5.3.2; Microsoft's SMS FAQ for US carriers).
//   - Placeholders are {brand}, {help} and {frequency}. No control characters, line breaks included.
//
// Carriers ask opt-in confirmations of recurring programs to say how often messages come and that rates may apply
// (CTIA 5.1.2.1); the built-in texts do, other texts are not forced to, because not every program recurs.
//
// # Limits
//
// The checks are about form. They do not make a text lawful, and they know five languages: [Languages]. In Canada
// consent may not be asked by text (CRTC guidance on CASL), so [OptInQuestion] is for people who asked first.
package confirm
