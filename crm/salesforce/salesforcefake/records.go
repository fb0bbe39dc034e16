package salesforcefake

import (
	"strings"
	"time"
)

// Insert makes a record as the administrator and returns its 18-character id. Values are string, bool, float64, int,
// time.Time or nil. It is for fixtures and panics on what the org would refuse.
func (o *Org) Insert(object string, fields map[string]any) string {
	var id string
	err := o.change(object, func(x *tx, t *table) *apiError {
		as, err := o.decode(everyone, t, fields)
		if err != nil {
			return err
		}
		n, err := x.insert(t, as, author{user: adminUser, admin: true})
		id = t.id(n)
		return err
	})
	if err != nil {
		panic(err)
	}
	return id
}

// Update changes a record as the administrator.
func (o *Org) Update(object, id string, fields map[string]any) error {
	return o.UpdateAs(o.AdminID(), object, id, fields)
}

// UpdateAs changes a record as the given user.
func (o *Org) UpdateAs(userID, object, id string, fields map[string]any) error {
	return o.change(object, func(x *tx, t *table) *apiError {
		user, err := o.users.find(userID)
		if err != nil {
			return err
		}
		n, err := t.find(id)
		if err != nil {
			return err
		}
		as, err := o.decode(everyone, t, fields)
		if err != nil {
			return err
		}
		return x.update(t, n, as, author{user: user, admin: true})
	})
}

// Get returns a record's fields, deleted or not, as string, bool, float64 or nil by canonical name, and whether it
// exists. It ignores field-level security.
func (o *Org) Get(object, id string) (map[string]any, bool) {
	o.settle()
	o.mu.RLock()
	defer o.mu.RUnlock()
	t := o.table(object)
	if t == nil {
		return nil, false
	}
	n, err := t.find(id)
	if err != nil {
		return nil, false
	}
	r := t.row(n)
	if r == nil {
		return nil, false
	}
	out := make(map[string]any, len(t.fields))
	for _, f := range t.fields {
		out[f.Name] = plain(o.get(t, r, f))
	}
	return out, true
}

// Count returns how many live records an object has.
func (o *Org) Count(object string) int {
	o.settle()
	o.mu.RLock()
	defer o.mu.RUnlock()
	if t := o.table(object); t != nil {
		return t.live()
	}
	return 0
}

// Delete puts a record into the recycle bin.
func (o *Org) Delete(object, id string) error {
	return o.change(object, func(x *tx, t *table) *apiError {
		n, err := t.find(id)
		if err != nil {
			return err
		}
		return x.remove(t, n, author{user: adminUser, admin: true})
	})
}

// Undelete takes a record, also a merged one, out of the recycle bin.
func (o *Org) Undelete(object, id string) error {
	return o.change(object, func(x *tx, t *table) *apiError {
		n, err := t.find(id)
		if err != nil {
			return err
		}
		old := x.current(t, n)
		if old == nil || !old.deleted {
			return refuse("UNDELETE_FAILED", "entity is not in the recycle bin")
		}
		r := *old
		r.deleted, r.master = false, 0
		by := author{user: adminUser}
		x.touch(&r, by)
		x.put(t, &r)
		x.withShadow(t, &r, func(shadow *row) { shadow.deleted, shadow.master = false, 0 }, by)
		return nil
	})
}

// Purge removes a record for good, as emptying the recycle bin or a hard delete does: no query shows it any more.
func (o *Org) Purge(object, id string) error {
	return o.change(object, func(x *tx, t *table) *apiError {
		n, err := t.find(id)
		if err != nil {
			return err
		}
		old := x.current(t, n)
		if old == nil {
			return errNotFound()
		}
		if t.name == "Account" && o.isPerson(t, old) {
			contacts := o.table("Contact")
			x.erase(contacts, contacts.number(o.get(t, old, t.field("PersonContactId")).s))
		}
		x.erase(t, n)
		return nil
	})
}

// Merge merges up to two losers into the master as the administrator. keep are the values that the person who merged
// picked for the master; the losers' other values are lost. Losers end deleted, with MasterRecordId.
func (o *Org) Merge(object, master string, losers []string, keep map[string]any) error {
	return o.MergeAs(o.AdminID(), object, master, losers, keep)
}

// MergeAs is Merge as the given user.
func (o *Org) MergeAs(userID, object, master string, losers []string, keep map[string]any) error {
	return o.change(object, func(x *tx, t *table) *apiError {
		user, err := o.users.find(userID)
		if err != nil {
			return err
		}
		return x.merge(t, master, losers, keep, author{user: user, admin: true})
	})
}

func (x *tx) merge(t *table, master string, losers []string, keep map[string]any, by author) *apiError {
	if len(losers) == 0 || len(losers) > 2 {
		return refuse("INVALID_NUMBER_FOR_MERGE", "a merge takes one or two records besides the master")
	}
	m, err := t.find(master)
	if err != nil {
		return err
	}
	as, err := x.o.decode(everyone, t, keep)
	if err != nil {
		return err
	}
	if err := x.update(t, m, as, by); err != nil {
		return err
	}
	survivor := x.current(t, m)
	for _, l := range losers {
		n, err := t.find(l)
		if err != nil {
			return err
		}
		old, err := x.writableRow(t, n)
		switch {
		case err != nil:
			return err
		case n == m:
			return refuse("DUPLICATE_VALUE", "the master cannot be merged into itself")
		case x.o.isPerson(t, old) != x.o.isPerson(t, survivor) || t.name == "Contact" && x.o.isPerson(t, old):
			return refuse("INVALID_PERSON_ACCOUNT_OPERATION", "a person account can be merged with another person account alone")
		}
		r := *old
		r.deleted, r.master = true, m
		x.touch(&r, by)
		x.put(t, &r)
		x.withShadow(t, &r, func(shadow *row) {
			contacts := x.o.table("Contact")
			shadow.deleted = true
			shadow.master = contacts.number(x.o.get(t, survivor, t.field("PersonContactId")).s)
		}, by)
	}
	if t.name != "Account" {
		x.note(t, m, strings.ToLower(t.name)+"Merged", value{}, value{}, by.user)
	}
	return nil
}

// Convert converts a lead into a new Account and Contact as the administrator and returns the contact's id. With
// mapOptOut the SMS_Opt_Out fields of the lead are mapped to those of the contact; without it they are lost, as in an org
// whose admin has not mapped them. The knob lead_mapping does not matter here; [Org.ConvertAs] follows it.
func (o *Org) Convert(lead string, mapOptOut bool) (contact string, err error) {
	mapping := map[string]string{}
	if mapOptOut {
		for _, name := range optOutNames {
			mapping[name] = name
		}
	}
	return o.convert(o.AdminID(), lead, mapping)
}

// ConvertAs converts a lead as the given user, by the knob lead_mapping.
func (o *Org) ConvertAs(userID, lead string) (contact string, err error) {
	return o.convert(userID, lead, o.knobs.set().mapping)
}

func (o *Org) convert(userID, lead string, mapping map[string]string) (contact string, err error) {
	err = o.change("Lead", func(x *tx, t *table) *apiError {
		user, err := o.users.find(userID)
		if err == nil {
			contact, err = x.convert(t, lead, mapping, author{user: user, admin: true})
		}
		return err
	})
	return contact, err
}

func (x *tx) convert(t *table, lead string, mapping map[string]string, by author) (contact string, err *apiError) {
	o := x.o
	n, err := t.find(lead)
	if err != nil {
		return "", err
	}
	old, err := x.writableRow(t, n)
	if err != nil {
		return "", err
	}
	contacts, accounts := o.table("Contact"), o.table("Account")
	take := func(to *table, from, name string) assign {
		return assign{to.field(name), o.get(t, old, t.field(from))}
	}
	account, err := x.insert(accounts, []assign{take(accounts, "Company", "Name"), take(accounts, "Phone", "Phone")}, by)
	if err != nil {
		return "", err
	}
	as := []assign{{contacts.field("AccountId"), stringValue(accounts.id(account))}}
	for _, name := range []string{"FirstName", "LastName", "Salutation", "Title", "Phone", "MobilePhone", "Fax", "Email", "LeadSource",
		"HasOptedOutOfEmail", "HasOptedOutOfFax", "DoNotCall"} {
		as = append(as, take(contacts, name, name))
	}
	for from, to := range mapping {
		as = append(as, take(contacts, from, to))
	}
	num, err := x.insert(contacts, as, by)
	if err != nil {
		return "", err
	}
	contact = contacts.id(num)
	r := *old
	if err := x.fill(t, &r, []assign{
		{t.field("IsConverted"), boolValue(true)},
		{t.field("ConvertedDate"), value{kind: kindDate, s: time.UnixMilli(x.now()).UTC().Format(time.DateOnly)}},
		{t.field("ConvertedAccountId"), stringValue(accounts.id(account))},
		{t.field("ConvertedContactId"), stringValue(contact)},
		{t.field("Status"), stringValue("Closed - Converted")},
	}, by); err != nil {
		return "", err
	}
	x.touch(&r, by)
	x.put(t, &r)
	x.note(t, n, "leadConverted", value{}, value{}, by.user)
	x.note(contacts, num, "contactCreatedFromLead", value{}, value{}, by.user)
	return contact, nil
}
