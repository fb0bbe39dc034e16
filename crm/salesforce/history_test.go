package salesforce_test

import (
	"testing"

	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/crm/salesforce/salesforcefake"
)

func TestTheHistoryNamesWhoUntickedTheBox(t *testing.T) {
	w := newWorld(t)
	byPerson, byProgram, byHeed := w.Create(t, "Contact", nil, true), w.Create(t, "Lead", nil, true), w.Create(t, "Contact", nil, false)
	untouched := w.Create(t, "Contact", nil, true)
	for i, c := range []struct {
		user string
		key  crm.Key
	}{{w.org.ImporterID(), byPerson}, {w.org.SyncID(), byProgram}} {
		if err := w.org.UpdateAs(c.user, c.key.Object, c.key.ID, map[string]any{"SMS_Opt_Out__c": false}); err != nil {
			t.Fatal(i, err)
		}
		// Somebody else touches the record afterwards: LastModifiedBy is theirs, the box is not their doing.
		if err := w.org.UpdateAs(w.org.AdminID(), c.key.Object, c.key.ID, map[string]any{"LastName": "Other"}); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := w.org.UpdateAs(w.org.UserID(), "Contact", byHeed.ID, map[string]any{"SMS_Opt_Out__c": true}); err != nil {
		t.Fatal(err)
	}
	keys := []crm.Key{byPerson, byProgram, byHeed, untouched, w.Ghost("Contact"), {Object: "Contact", ID: "nonsense"}, {Object: "Opportunity", ID: byHeed.ID}}
	keys[0].ID = keys[0].ID[:15] // answers come back under the key that was asked for
	got, err := w.driver.BoxChanges(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[crm.Key]crm.BoxChange{
		keys[0]:   {OptedOut: false, Actor: crm.Actor{ID: w.org.ImporterID(), Name: "Ivo Import", Kind: crm.Person}},
		byProgram: {OptedOut: false, Actor: crm.Actor{ID: w.org.SyncID(), Name: "Marketing Sync", Kind: crm.Integration}},
		byHeed:    {OptedOut: true, Actor: crm.Actor{ID: w.org.UserID(), Name: "Heed Integration", Kind: crm.Self}},
	} {
		c, ok := got[k]
		if at := c.At; !ok || at.IsZero() || c.OptedOut != want.OptedOut || c.Actor != want.Actor {
			t.Errorf("%v: %+v, want %+v", k, c, want)
		}
	}
	if len(got) != 3 {
		t.Errorf("%d changes: %v", len(got), got)
	}
}

func TestOfManyChangesTheNewestOfEachRecordIsFound(t *testing.T) {
	w := newWorld(t)
	quiet := w.Create(t, "Contact", nil, true)
	if err := w.org.UpdateAs(w.org.ImporterID(), "Contact", quiet.ID, map[string]any{"SMS_Opt_Out__c": false}); err != nil {
		t.Fatal(err)
	}
	busy := w.Create(t, "Contact", nil, false)
	for i := range 2101 { // more than one answer holds, all of them newer than the quiet record's
		if err := w.org.Update("Contact", busy.ID, map[string]any{"SMS_Opt_Out__c": i%2 == 0}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := w.driver.BoxChanges(t.Context(), []crm.Key{busy, quiet})
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := got[quiet]; !ok || c.OptedOut || c.Actor.Name != "Ivo Import" {
		t.Errorf("quiet: %+v %v", c, ok)
	}
	if c, ok := got[busy]; !ok || !c.OptedOut {
		t.Errorf("busy: %+v %v", c, ok)
	}
}

func TestAHistoryThatIsNotKeptOrNotShownIsNoError(t *testing.T) {
	w := newWorld(t)
	k := w.Create(t, "Contact", nil, true)
	w.Tick(t, k, false)
	for name, change := range map[string]func(*salesforcefake.Knobs){
		"not tracked":  func(n *salesforcefake.Knobs) { n.TrackedFields = []string{} },
		"field hidden": func(n *salesforcefake.Knobs) { n.HiddenFields = []string{"Contact.SMS_Opt_Out__c"} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if err := w.org.SetKnobs(change); err != nil {
				t.Fatal(err)
			}
			k := w.Create(t, "Contact", nil, true)
			w.Tick(t, k, false)
			if got, err := w.driver.BoxChanges(t.Context(), []crm.Key{k}); err != nil || len(got) != 0 {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	if err := w.org.SetKnobs(func(n *salesforcefake.Knobs) { n.Maintenance = "down" }); err != nil {
		t.Fatal(err)
	}
	if _, err := w.driver.BoxChanges(t.Context(), []crm.Key{k}); err == nil {
		t.Error("an organisation that cannot be asked looks like one that knows nothing")
	}
}
