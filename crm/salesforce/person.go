package salesforce

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/heed-sms/heed/crm"
)

// A person account is an Account that is a person, with a shadow Contact. The Contact can be read like any other, and is
// written through its Account alone, where the field X__c is called X__pc (Object Reference, "Person Accounts"). The fields
// that tell such contacts, IsPersonAccount and AccountId, are not there in most organisations, so they are asked for when a
// contact's write is refused in the way in which those of person accounts are. From the first one found on, the driver
// asks beforehand.

const noPersons = time.Hour // an organisation that has no person accounts is not asked about them again for this long

// maybePerson reports whether the refusal may be that of a person account's Contact: all of its fields are refused, the one
// of the box among them. (One that the user may only read is refused so too.)
func (j *job) maybePerson() bool {
	if j.err == nil || j.account != "" || !strings.EqualFold(j.obj.name, "Contact") {
		return false
	}
	switch j.err.Code {
	case "INVALID_PERSON_ACCOUNT_OPERATION":
		return true
	case "INVALID_FIELD_FOR_INSERT_UPDATE":
		return slices.ContainsFunc(j.err.Fields, func(f string) bool {
			_, note := j.notes[f]
			return note || strings.EqualFold(f, j.obj.mapping.Field)
		})
	}
	return false
}

// personField is how an Account names a Contact's field.
func personField(name string) string {
	if base, custom := strings.CutSuffix(name, "__c"); custom {
		return base + "__pc"
	}
	return "Person" + name
}

// target is the record that is written, and how it names a field of the job's.
func (j *job) target() (object, id string, name func(string) string) {
	if j.account != "" {
		return "Account", j.account, personField
	}
	return j.obj.name, j.key.ID, func(s string) string { return s }
}

// findPersons tells those of the jobs apart that are contacts of person accounts, and turns them to their accounts.
// Those of which Salesforce cannot say it for now fail.
func (o *Org) findPersons(ctx context.Context, jobs []*job) (persons []*job) {
	if o.now().Before(time.Unix(0, o.personless.Load())) {
		return nil
	}
	for chunk := range slices.Chunk(jobs, maxIDs) {
		ids := make([]string, len(chunk))
		for i, j := range chunk {
			ids[i] = j.key.ID
		}
		accounts := map[string]string{}
		var failed error
		for b, err := range o.query(ctx, "/query", "SELECT Id, AccountId FROM Contact WHERE IsPersonAccount = true AND Id IN ("+quoted(ids)+")", maxIDs) {
			if failed = err; err != nil {
				break
			}
			for _, r := range b.rows {
				contact, e1 := idOf(r, "Id")
				account, e2 := idOf(r, "AccountId")
				if e1 == nil && e2 == nil {
					accounts[contact] = account
				}
			}
		}
		switch {
		case unreadable(failed):
			o.personless.Store(o.now().Add(noPersons).UnixNano())
			return nil
		case failed != nil:
			e, ok := driverError(failed).(*crm.Error)
			if !ok {
				e = &crm.Error{Class: crm.RetryLater, Err: failed}
			}
			fail(chunk, e)
			continue
		}
		for _, j := range chunk {
			if j.account = accounts[j.key.ID]; j.account != "" {
				persons = append(persons, j)
			}
		}
	}
	if len(persons) > 0 {
		o.persons.Store(true)
	}
	return persons
}
