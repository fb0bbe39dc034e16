package salesforcefake

import (
	"fmt"
	"strings"
)

// The users that every org has, by number.
const (
	everyone        = 0 // no user: Go helpers, from whom nothing is hidden
	integrationUser = 1 // heed's
	adminUser       = 2
	importUser      = 3
	syncUser        = 4
)

// Profiles that every org has. API Only and Integration in a name or a licence tell programs from people.
const (
	adminProfile       = "System Administrator"
	standardProfile    = "Standard User"
	integrationProfile = "Minimum Access - API Only Integrations"
)

// addUsers makes the profiles and users that every org has: heed's integration user, an administrator who is a person, a
// person whose login imports lists, a program that keeps another system in step, and Salesforce's own automation.
func (o *Org) addUsers() {
	license := func(name string) string { return o.Insert("UserLicense", map[string]any{"Name": name}) }
	profile := func(name, license string) {
		o.Insert("Profile", map[string]any{"Name": name, "UserType": "Standard", "UserLicenseId": license})
	}
	people := license("Salesforce")
	profile(adminProfile, people)
	profile(standardProfile, people)
	profile(integrationProfile, license("Salesforce Integration"))
	user := func(username, first, last, profile string, more map[string]any) string {
		fields := map[string]any{"Username": username, "FirstName": first, "LastName": last, "Email": username,
			"Alias": strings.ToLower(last[:min(8, len(last))]), "IsActive": true, "UserType": "Standard", "TimeZoneSidKey": "GMT",
			"LocaleSidKey": "en_US", "LanguageLocaleKey": "en_US", "ProfileId": o.ProfileID(profile)}
		for k, v := range more {
			fields[k] = v
		}
		return o.Insert("User", fields)
	}
	user(o.opt.Username, "Heed", "Integration", integrationProfile, map[string]any{"Alias": "heed", "Email": "heed@sandbox.example"})
	user("admin@sandbox.example", "Grace", "Admin", adminProfile, nil)
	user("import@sandbox.example", "Ivo", "Import", standardProfile, nil)
	user("sync@sandbox.example", "Marketing", "Sync", integrationProfile, nil)
	user("autoproc@sandbox.example", "Automated", "Process", standardProfile, map[string]any{"UserType": "AutomatedProcess", "ProfileId": nil})
}

// UserID returns the integration user's id.
func (o *Org) UserID() string { return o.users.id(integrationUser) }

// AdminID returns the id of an administrator, a person.
func (o *Org) AdminID() string { return o.users.id(adminUser) }

// ImporterID returns the id of the person whose login imports lists (import@sandbox.example).
func (o *Org) ImporterID() string { return o.users.id(importUser) }

// SyncID returns the id of the user of another program (sync@sandbox.example).
func (o *Org) SyncID() string { return o.users.id(syncUser) }

// ProfileID returns the id of a profile by its name, "" if there is none.
func (o *Org) ProfileID(name string) string {
	o.mu.RLock()
	defer o.mu.RUnlock()
	t := o.table("Profile")
	if n := o.findEqual(t, t.field("Name"), stringValue(name), 0); n != 0 {
		return t.id(n)
	}
	return ""
}

// AddUser adds an active user, a person with the profile Standard User, and returns the id. The password is
// Options.Password.
func (o *Org) AddUser(username, first, last string) string {
	return o.Insert("User", map[string]any{"Username": username, "FirstName": first, "LastName": last, "Email": username,
		"Alias": strings.ToLower(last[:min(8, len(last))]), "IsActive": true, "UserType": "Standard", "TimeZoneSidKey": "GMT",
		"LocaleSidKey": "en_US", "LanguageLocaleKey": "en_US", "ProfileId": o.ProfileID(standardProfile)})
}

// userNamed returns the number of a user by username or id, 0 if there is none. The caller holds the lock.
func (o *Org) userNamed(name string) uint32 {
	if id, ok := canonicalID(name); ok {
		if n := o.users.number(id); o.users.row(n) != nil {
			return n
		}
	}
	return o.findEqual(o.users, o.users.field("Username"), stringValue(name), 0)
}

// admin says whether the user has the System Administrator's rights: View All Data and Modify All Data.
func (o *Org) admin(user uint32) bool {
	if user == everyone || user == adminUser {
		return true
	}
	r := o.users.row(user)
	if r == nil {
		return false
	}
	t := o.table("Profile")
	p := t.row(t.number(o.get(o.users, r, o.users.field("ProfileId")).s))
	return p != nil && o.get(t, p, t.field("Name")).s == adminProfile
}

// shareKey is a record.
type shareKey struct {
	t   *table
	num uint32
}

// SetRecordAccess says what users without View All Data may do with one record, as sharing rules do: Hidden records are
// in no answer and cannot be written, ReadOnly ones cannot be written.
func (o *Org) SetRecordAccess(object, id string, a Access) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.table(object)
	if t == nil {
		return fmt.Errorf("salesforcefake: object %q is unknown", object)
	}
	n, err := t.find(id)
	if err != nil {
		return fmt.Errorf("salesforcefake: %s: %w", t.name, err)
	}
	o.shares[shareKey{t, n}] = a
	return nil
}

func (o *Org) recordAccess(user uint32, t *table, num uint32) Access {
	key := shareKey{t, num}
	a := max(o.shares[key], o.knobs.set().shares[key])
	if a == ReadWrite || o.admin(user) {
		return ReadWrite
	}
	return a
}

// hider returns what says of a row that sharing, or the field-level security of a history's field, hides it from the
// user; nil hides nothing.
func (o *Org) hider(user uint32, t *table) func(*row) bool {
	knobs := o.knobs.set().shares
	if t.historyOf == "" && len(o.shares)+len(knobs) == 0 || o.admin(user) {
		return nil
	}
	hidden := func(t *table, num uint32) bool {
		key := shareKey{t, num}
		return o.shares[key] == Hidden || knobs[key] == Hidden
	}
	if t.historyOf == "" {
		return func(r *row) bool { return hidden(t, r.num) }
	}
	parent := o.table(t.historyOf)
	ref, name := t.field(parent.name+"Id"), t.field("Field")
	return func(r *row) bool {
		if hidden(parent, parent.number(o.get(t, r, ref).s)) {
			return true
		}
		f := parent.field(o.get(t, r, name).s)
		return f != nil && o.access(user, parent, f) == Hidden
	}
}

// objectAccess is what the user's permissions allow with an object as a whole.
func (o *Org) objectAccess(user uint32, t *table) Access {
	if t.historyOf != "" {
		t = o.table(t.historyOf)
	}
	return o.knobs.set().objects[objectKey{user, t}]
}

type objectKey struct {
	user uint32
	t    *table
}

// mayWrite refuses an update or delete that permissions or sharing forbid.
func (c *call) mayWrite(t *table, num uint32) *apiError {
	switch {
	case t.readOnly || c.o.objectAccess(c.user, t) != ReadWrite:
		return refuse("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id")
	case c.o.recordAccess(c.user, t, num) == Hidden:
		return refuse("INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY", "insufficient access rights on cross-reference id")
	case c.o.recordAccess(c.user, t, num) == ReadOnly:
		return refuse("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id")
	}
	return nil
}
