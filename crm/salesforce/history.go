package salesforce

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/heed-sms/heed/crm"
)

// Salesforce keeps the changes of a field for 18 to 24 months where field history tracking is on for it, in an object of
// its own: ContactHistory, LeadHistory, X__History (Object Reference, "StandardObjectNameHistory"). It can neither be
// filtered by the value nor changed by anybody, which makes it the best witness of who unticked a box.

// maxHistory is how many changes one query asks for: of one field of up to maxIDs records.
const maxHistory = 2000

// BoxChanges implements [crm.Historian]. It takes one query for up to 200 records and one for up to 200 users among
// those who changed them. Where the integration user may not read users, kinds are left open.
func (o *Org) BoxChanges(ctx context.Context, keys []crm.Key) (map[crm.Key]crm.BoxChange, error) {
	ctx = as(ctx, reporting)
	wanted := map[*object][]string{}
	as := map[crm.Key]crm.Key{} // as the driver writes a key → as the caller wrote it
	for _, k := range keys {
		_, obj := o.object(k.Object)
		id, err := id18(k.ID)
		if obj == nil || err != nil {
			continue // of no such record is there a change
		}
		wanted[obj] = append(wanted[obj], id)
		as[crm.Key{Object: obj.name, ID: id}] = k
	}
	changes := map[crm.Key]crm.BoxChange{}
	for _, obj := range o.objects {
		ids := wanted[obj]
		slices.Sort(ids)
		for chunk := range slices.Chunk(slices.Compact(ids), maxIDs) {
			found, err := o.boxChanges(ctx, obj, chunk)
			if err != nil {
				return nil, err
			}
			for id, c := range found {
				changes[as[crm.Key{Object: obj.name, ID: id}]] = c
			}
		}
	}
	if err := o.knowActors(ctx, changes); err != nil {
		return nil, err
	}
	return changes, nil
}

// historyOf returns the object that keeps the changes of another, and the field in it that names the record.
func historyOf(object string) (name, parent string) {
	if base, custom := strings.CutSuffix(object, "__c"); custom {
		return base + "__History", "ParentId"
	}
	return object + "History", object + "Id"
}

// boxChanges returns the newest change of each record's box, by the record's id.
func (o *Org) boxChanges(ctx context.Context, obj *object, ids []string) (map[string]crm.BoxChange, error) {
	name, parent := historyOf(obj.name)
	changes := map[string]crm.BoxChange{}
	for len(ids) > 0 {
		soql := "SELECT " + parent + ", NewValue, CreatedDate, CreatedById, CreatedBy.Name FROM " + name + " WHERE " + parent + " IN (" + quoted(ids) +
			") AND Field = " + quote(obj.mapping.Field) + " ORDER BY CreatedDate DESC, Id DESC LIMIT " + strconv.Itoa(maxHistory)
		got := 0
		for b, err := range o.query(ctx, "/query", soql, maxHistory) {
			if unreadable(err) {
				return changes, nil // nobody tracks this object, or heed's user may not see it
			}
			if err != nil {
				return nil, err
			}
			got += len(b.rows)
			self := ""
			if s := o.current.Load(); s != nil { // by now there is a session
				self = s.userID
			}
			for _, r := range b.rows {
				id, c, err := obj.boxChange(r, parent, self)
				if err != nil {
					return nil, &crm.Error{Class: crm.Park, Code: "UNREADABLE_RECORD", Text: "a row of " + name + " cannot be read: " + err.Error()}
				}
				if _, newer := changes[id]; !newer {
					changes[id] = c
				}
			}
		}
		if got < maxHistory {
			break
		}
		left := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { _, ok := changes[id]; return ok })
		if len(left) == len(ids) {
			break // an answer about other records than were asked for
		}
		ids = left // a record whose box changed very often has crowded these out
	}
	return changes, nil
}

func (obj *object) boxChange(r row, parent, self string) (id string, c crm.BoxChange, err error) {
	if id, err = idOf(r, parent); err != nil {
		return
	}
	if c.At, err = stampOf(r, "CreatedDate"); err != nil {
		return
	}
	value, err := r.get("NewValue")
	if err != nil {
		return
	}
	if value = bytes.TrimSpace(value); !obj.mapping.picklist() { // the field is of any type; some clients see text
		value = bytes.Trim(value, `"`)
	}
	if c.OptedOut, err = obj.mapping.read(row{obj.mapping.Field: value}); err != nil {
		return
	}
	if c.Actor.ID, err = idOf(r, "CreatedById"); err != nil {
		return
	}
	if c.Actor.ID != "" && c.Actor.ID == self {
		c.Actor.Kind = crm.Self
	}
	var by struct{ Name string }
	if v, missing := r.get("CreatedBy"); missing == nil && json.Unmarshal(v, &by) == nil {
		c.Actor.Name = by.Name
	}
	return
}

// knowActors fills in what sort of user each actor is. A user is a program's if its licence is the one for integrations, if
// its profile's name says so, or if its type is not that of somebody who logs in.
func (o *Org) knowActors(ctx context.Context, changes map[crm.Key]crm.BoxChange) error {
	kinds := map[string]crm.ActorKind{}
	for _, c := range changes {
		if c.Actor.ID != "" && c.Actor.Kind == "" {
			kinds[c.Actor.ID] = ""
		}
	}
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(kinds)), maxIDs) {
		soql := "SELECT Id, UserType, Profile.Name, Profile.UserLicense.Name FROM User WHERE Id IN (" + quoted(chunk) + ")"
		for b, err := range o.query(ctx, "/query", soql, maxIDs) {
			if unreadable(err) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, r := range b.rows {
				if id, err := idOf(r, "Id"); err == nil {
					kinds[id] = kindOf(r)
				}
			}
		}
	}
	for k, c := range changes {
		if kind := kinds[c.Actor.ID]; kind != "" {
			c.Actor.Kind = kind
			changes[k] = c
		}
	}
	return nil
}

func kindOf(r row) crm.ActorKind {
	userType, err := r.text("UserType")
	if err != nil || userType == "" {
		return ""
	}
	var profile struct {
		Name        string
		UserLicense struct{ Name string }
	}
	if v, err := r.get("Profile"); err == nil {
		_ = json.Unmarshal(v, &profile) // null for Salesforce's own users, and where heed's may not see it
	}
	switch name := strings.ToLower(profile.Name); {
	case userType == "AutomatedProcess", userType == "CloudIntegrationUser",
		strings.Contains(strings.ToLower(profile.UserLicense.Name), "integration"),
		strings.Contains(name, "api only"), strings.Contains(name, "integration"):
		return crm.Integration
	}
	return crm.Person
}

// unreadable reports whether Salesforce refused a query because of what it asks about: an object or field that is not
// there for this user.
func unreadable(err error) bool {
	switch codeOf(err) {
	case "INVALID_TYPE", "INVALID_FIELD", "INSUFFICIENT_ACCESS", "INSUFFICIENT_ACCESS_OR_READONLY":
		return true
	}
	return false
}

// quoted returns ids as the inside of a SOQL list.
func quoted(ids []string) string {
	q := make([]string, len(ids))
	for i, id := range ids {
		q[i] = quote(id)
	}
	return strings.Join(q, ",")
}
