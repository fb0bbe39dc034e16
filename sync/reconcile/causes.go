package reconcile

// Cause is a kind of difference.
type Cause struct {
	Name    string // the stable word in ledger.Correction.Cause
	Means   string
	Example string
	Did     string // what heed does about it
}

// The words of [Causes].
const (
	MissedWebhook  = "missed_webhook"
	BackfillCause  = "backfill"
	ProviderOnly   = "provider_only"
	LateRecord     = "late_record"
	NumberChanged  = "number_changed"
	Unticked       = "unticked"
	UntickedByHeed = "unticked_by_heed"
	ByImport       = "unticked_by_import"
	ByIntegration  = "unticked_by_integration"
	Merged         = "merged"
	Converted      = "converted"
	BoxNotTicked   = "box_not_ticked"
	UndoneInCRM    = "undone_in_crm"
	TickedInCRM    = "ticked_in_crm"
	LiftedByStart  = "lifted_by_start"
	LiftedByHand   = "lifted_by_hand"
	RecordHidden   = "record_hidden"

	// Left alone.
	WriteRejected    = "write_rejected"
	CRMOnly          = "crm_only"
	NumberUnreadable = "number_unreadable"
	SharedNumber     = "shared_number"
)

// Causes are all causes, in the order in which a report lists them: what a person should look at comes first.
var Causes = []Cause{
	{Unticked, "Somebody unticked the box of a number whose owner had opted out.",
		"Ann edits a contact and unticks the box; the number had texted STOP.",
		"Ticks it again. Sends stayed refused throughout. The report names who last changed the record, and when."},
	{UntickedByHeed, "The box was unticked under the CRM user that heed itself uses.",
		"Another integration shares heed's CRM user.",
		"Ticks it again. Give heed a user of its own, so that the report can name who did it."},
	{ByImport, "The box was unticked together with many other changes of one user within a minute, as an import does it.",
		"A list from before the opt-out is imported again, with the box empty.",
		"Ticks it again. At least 20 of the records that were read together were last changed by that user in that minute; heed cannot see the import itself."},
	{ByIntegration, "The box was unticked under a CRM user that only programs use.",
		"A marketing system writes its own idea of consent back to the CRM.",
		"Ticks it again. The report names the user; stop that system from writing the field, or it will do it again."},
	{MissedWebhook, "A reply is in the provider's log, and its webhook never came.",
		"heed was down for two hours, or the provider calls an old address.",
		"Records the reply as if its webhook had come: an opt-out blocks and ticks, a START lifts, an unclear one is held."},
	{ProviderOnly, "The provider refused a message because the recipient had opted out, and heed did not know.",
		"The recipient had texted STOP before heed was installed.",
		"Records the opt-out on the provider's evidence."},
	{Merged, "Records were merged, and the surviving one lost the tick.",
		"Two contacts of one person are merged, and the unticked box is kept.",
		"Ticks the survivor."},
	{Converted, "A lead was converted, and the contact did not get the tick.",
		"The lead's opt-out field is not mapped to the contact's.",
		"Ticks the contact. Map the lead's opt-out field to the contact's (in Salesforce: Object Manager, Lead, Fields & Relationships, Map Lead Fields), so that it comes along by itself."},
	{LateRecord, "A record with an opted-out number was created, imported or shown to heed after the opt-out.",
		"A list is imported that contains somebody who had texted STOP.",
		"Ticks it."},
	{NumberChanged, "A phone field changed, and box and number no longer agree.",
		"An opted-out number is typed into another contact. Or a ticked contact gets a new number.",
		"Ticks the box. Or opts the new number out, because a ticked box speaks for the person."},
	{BoxNotTicked, "The box should be ticked and is not, and nothing tells why.",
		"The CRM was not in heed's configuration when the opt-out came.",
		"Ticks it."},
	{TickedInCRM, "Somebody ticked the box in the CRM.",
		"A caller says \"no more texts\", and the agent ticks the box.",
		"Opts the record's numbers out. The CRM can undo that by unticking the box."},
	{UndoneInCRM, "Somebody unticked a box, and the opt-out had been made by hand, not by the recipient.",
		"An agent ticked the wrong contact and unticks it.",
		"Lifts the opt-out and unticks the number's other records."},
	{LiftedByStart, "The box is still ticked although the recipient has texted START since.",
		"The box was ticked in the CRM before the START, and heed had not read it yet.",
		"Unticks it."},
	{LiftedByHand, "The box is still ticked although the opt-out was undone in heed, or consent was recorded there, since.",
		"An admin removes an opt-out while the CRM is read.",
		"Unticks it."},
	{RecordHidden, "A record with an opted-out number is no longer in the CRM, or heed's user can no longer see it.",
		"A sharing rule changed, or the record was erased for good.",
		"Nothing can be ticked there. The number stays opted out."},
	{BackfillCause, "A reply from before heed was installed was found in the provider's log.",
		"The first pass reads the last seven days.",
		"Records the reply; an opt-out blocks and ticks."},
	{WriteRejected, "The CRM or the provider refuses what is owed, and says why.",
		"A validation rule demands an e-mail address before a contact can be saved.",
		"Tries it again a few times a day and at each full pass. Sends stay refused. Put right what the text names; nothing has to be done in heed."},
	{CRMOnly, "The box is ticked, and the record has no telephone number that can be read.",
		"The number was cleared, or typed with a digit too few.",
		"Nothing: there is no number to refuse sends to. Who sends to that record by another way must look at the box."},
	{NumberUnreadable, "A phone field holds something that is no telephone number.",
		"\"ask reception\", or a number without its area code.",
		"Nothing: an opt-out of its owner cannot reach the record, and heed refuses to send to it. Correct the field in the CRM."},
	{SharedNumber, "Several records of one sort have a number that opted out since the report before.",
		"A couple with one telephone, or one person twice.",
		"Ticked all of them: an opt-out is the number's. Only for information; it is told once."},
}
