package salesforcefake

import (
	"fmt"
	"strings"
)

// Person accounts: an Account row that is a person, and a shadow Contact that SOQL can read and nobody can write. Fields
// of the Contact appear on the Account: the person's own as Person…, names as they are, custom ones as X__pc.

var errPersonOperation = &apiError{status: 400, code: "INVALID_PERSON_ACCOUNT_OPERATION",
	message: "You cannot delete a person account's contact: delete the account"}

// enablePersons adds the fields of person accounts. In Salesforce there is no way back, and none here.
func (o *Org) enablePersons() error {
	if o.persons {
		return nil
	}
	o.persons = true
	contact, account := o.table("Contact"), o.table("Account")
	for _, t := range []*table{contact, account} {
		if _, err := t.add(field{Field: Field{Object: t.name, Name: "IsPersonAccount", Label: "Is Person Account", Type: Checkbox}, system: true}); err != nil {
			return err
		}
	}
	account.reference("PersonContactId", "Contact ID", "PersonContact", "Contact", sysNone, true)
	for _, f := range contact.fields[:len(contact.fields)-1] {
		if err := o.mirrorField(f); err != nil {
			return err
		}
	}
	return nil
}

// mirrorField adds to Account what shows a Contact's field on a person account, if there is such a thing.
func (o *Org) mirrorField(f *field) error {
	name := ""
	switch f.Name {
	case "FirstName", "LastName", "Salutation":
		name = f.Name
	case "OtherPhone", "MobilePhone", "HomePhone", "AssistantPhone", "MailingStreet", "MailingCity", "MailingState", "MailingPostalCode",
		"MailingCountry", "Email", "Title", "Department", "AssistantName", "LeadSource", "Birthdate", "HasOptedOutOfEmail", "HasOptedOutOfFax", "DoNotCall":
		name = "Person" + f.Name
	case "Phone", "Fax": // the account's own
		for _, g := range o.table("Account").fields {
			if g.Name == f.Name {
				g.mirror = f
			}
		}
		return nil
	default:
		if !strings.HasSuffix(f.Name, "__c") || f.Formula != nil {
			return nil
		}
		name = strings.TrimSuffix(f.Name, "__c") + "__pc"
	}
	g := f.Field
	g.Object, g.Name, g.Required, g.Unique, g.ExternalID = "Account", name, false, false, false
	_, err := o.table("Account").add(field{Field: g, mirror: f})
	return err
}

// onBoth says whether a mirrored field belongs to business accounts too.
func (f *field) onBoth() bool { return f.Name == "Phone" || f.Name == "Fax" }

func (o *Org) isPerson(t *table, r *row) bool {
	f := t.field("IsPersonAccount")
	return f != nil && o.get(t, r, f).n != 0
}

func badNames(object string, names []string) *apiError {
	return refuse("INVALID_FIELD_FOR_INSERT_UPDATE", "%s: bad field names on insert/update call: %s", object, strings.Join(names, ", ")).on(names...)
}

// personFields checks a save (old is nil for a new record) against the rules of person accounts, completes it, and says
// whether it is one of a person account. A new Account with a LastName is a person.
func (o *Org) personFields(t *table, old *row, as []assign) ([]assign, bool, *apiError) {
	if !o.persons || t.name != "Account" && t.name != "Contact" {
		return as, false, nil
	}
	var wrong []string
	if t.name == "Contact" {
		if old == nil || !o.isPerson(t, old) {
			return as, false, nil
		}
		for _, a := range as {
			wrong = append(wrong, a.f.Name)
		}
		return nil, false, badNames("Contact", wrong)
	}
	names := map[string]value{}
	for _, name := range []string{"FirstName", "LastName"} {
		if old != nil {
			names[name] = o.get(t, old, t.field(name))
		}
		for _, a := range as {
			if a.f.Name == name {
				names[name] = a.v
			}
		}
	}
	person := old == nil && names["LastName"].kind != kindNull || old != nil && o.isPerson(t, old)
	for _, a := range as {
		empty := a.v.kind == kindNull || a.v.kind == kindBool && a.v.n == 0
		if person && a.f.Name == "Name" || !person && a.f.mirror != nil && !a.f.onBoth() && !empty {
			wrong = append(wrong, a.f.Name)
		}
	}
	switch {
	case len(wrong) > 0:
		return nil, false, badNames("Account", wrong)
	case !person:
		return as, false, nil
	case names["LastName"].kind == kindNull:
		return nil, false, refuse("REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]").on("LastName")
	}
	as = append(as, assign{t.field("Name"), stringValue(strings.TrimSpace(names["FirstName"].s + " " + names["LastName"].s))},
		assign{t.field("IsPersonAccount"), boolValue(true)})
	return as, true, nil
}

// putPerson writes a person account and its shadow Contact.
func (x *tx) putPerson(r, old *row, by author) {
	o := x.o
	accounts, contacts := o.table("Account"), o.table("Contact")
	link := accounts.field("PersonContactId")
	var shadow row
	var before *row
	if old == nil {
		shadow = *r
		shadow.num, shadow.data = x.allocate(contacts), withField("", contacts.field("AccountId").slot, accounts.id(r.num))
		shadow.data = withField(shadow.data, contacts.field("IsPersonAccount").slot, "1")
		r.data = withField(r.data, link.slot, contacts.id(shadow.num))
	} else {
		before = x.current(contacts, contacts.number(o.get(accounts, old, link).s))
		shadow = *before
		shadow.modified, shadow.stamp, shadow.modifiedBy, shadow.owner = r.modified, r.stamp, r.modifiedBy, r.owner
	}
	for _, f := range accounts.fields {
		if f.mirror != nil {
			raw, _ := rawField(r.data, f.slot)
			shadow.data = withField(shadow.data, f.mirror.slot, raw)
		}
	}
	x.put(accounts, r)
	x.put(contacts, &shadow)
	if before == nil {
		x.note(contacts, shadow.num, "created", value{}, value{}, by.user)
	} else {
		x.track(contacts, before, &shadow, by.user)
	}
}

// withShadow lets the shadow Contact of a person account share what happens to the account as a whole.
func (x *tx) withShadow(t *table, account *row, change func(*row), by author) {
	if t.name != "Account" || !x.o.isPerson(t, account) {
		return
	}
	contacts := x.o.table("Contact")
	old := x.current(contacts, contacts.number(x.o.get(t, account, t.field("PersonContactId")).s))
	if old == nil {
		return
	}
	shadow := *old
	change(&shadow)
	x.touch(&shadow, by)
	x.put(contacts, &shadow)
}

func (k *Knobs) checkPersons(o *Org) error {
	if o.persons && !k.PersonAccounts {
		return fmt.Errorf("person_accounts cannot be switched off again, as in Salesforce")
	}
	return nil
}
