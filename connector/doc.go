// Package connector is heed's live path: an SMS provider's webhook comes in, a CRM's send goes out, and what follows
// from either is done.
//
// # The four ways through the house
//
// Opt-out in: the provider calls a webhook. [Inbox] has the driver prove and decode it, asks package reply what the
// text means, records it in the ledger and only then answers. What follows is owed work: [Boxes] ticks the box of
// every record of that number in every CRM.
//
// Opt-in in: the same way. A START takes effect at the time at which the phone sent it; where the webhook does not say,
// [Times] asks the provider, so that a START overtaken by a later STOP does not lift it.
//
// Send out: a CRM workflow asks [Gate]. The decision and the request are one record in the ledger; only an allowed
// message is handed to the provider, after a second look in the same instant; what came of it is recorded.
//
// Reconcile: package sync/reconcile reads the CRM and the provider's log, and repairs what drifted.
//
// Around them: [Server] is the HTTP side, with one listener for the internet and one for the operator.
//
// # Sends that were in flight at a STOP
//
// A request whose bytes have left cannot be called back. Which ones those were can be told from the events alone: of a
// number's opt-out, the sends with Outcome.StartedAt ≤ the opt-out's At < the Outcome's own At, and a status of sent or
// unknown. StartedAt is when the attempt began, on every outcome of one: sent, unknown, failed, refused by the provider,
// and prevented. (A prevented send is blocked, or failed where a START followed at once; none of its bytes left.) Where
// heed was killed before the outcome, StartedAt is when the attempt was recorded as about to be made. It is zero on one
// kind of outcome: that of a message that waited and was never attempted (Outcome.Of).
//
// # What it is not
//
// It knows no provider and no CRM (those are drivers, below sms and crm), stores nothing itself (package ledger), and
// decides nothing about consent (package consent). It never answers "allow" when it does not know.
package connector
