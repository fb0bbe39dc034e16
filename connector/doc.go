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
// # What it is not
//
// It knows no provider and no CRM (those are drivers, below sms and crm), stores nothing itself (package ledger), and
// decides nothing about consent (package consent). It never answers "allow" when it does not know.
package connector
