package salesforcefake

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// optedOut returns n numbers that Seed does not make.
func optedOut(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("+1%s444%04d", areaCodes[i%len(areaCodes)], i/len(areaCodes)))
	}
	return out
}

func TestPlantedDriftsAreWhatTheySay(t *testing.T) {
	c := start(t, Options{})
	o := c.org
	o.Seed(500, 1)
	plan := Plan{Each: 3, Counts: map[DriftKind]int{UntickedByImport: 25, NumberChanged: 1}, Seed: 9}
	plan.Numbers = optedOut(plan.Needs())
	before := o.Count("Contact") + o.Count("Lead")
	g, err := o.Ground(plan)
	if err != nil {
		t.Fatal(err)
	}
	ticked := len(c.ids("SELECT Id FROM Contact WHERE SMS_Opt_Out__c = true AND LastModifiedById = '"+o.UserID()+"'")) +
		len(c.ids("SELECT Id FROM Lead WHERE SMS_Opt_Out__c = true AND LastModifiedById = '"+o.UserID()+"'"))
	if want := 25 + 9*3 + 2*3; ticked != want { // the import's, nine kinds with one record, a second for merged and shared
		t.Errorf("%d records are ticked on the ground, want %d", ticked, want)
	}
	c.clock.advance(2 * time.Hour)
	drifts, err := g.Drift()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Drift(); err == nil {
		t.Error("it drifts twice")
	}
	counts, used := map[DriftKind]int{}, map[string]bool{}
	perPerson := map[string]int{}
	digits := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, s)
	}
	for _, d := range drifts {
		counts[d.Kind]++
		if used[d.Number] {
			t.Errorf("number %s is used twice", d.Number)
		}
		used[d.Number] = true
		r, ok := o.Get(d.Object, d.ID)
		if !ok || r["IsDeleted"] != false {
			t.Fatalf("%s: no record %s %s", d.Kind, d.Object, d.ID)
		}
		if r["SMS_Opt_Out__c"] != (d.Kind == TickedByPerson || d.Kind == UnparsablePhone) {
			t.Errorf("%s: box is %v", d.Kind, r["SMS_Opt_Out__c"])
		}
		if r["LastModifiedById"] != d.By || r["SystemModstamp"] != formatTime(d.At.UnixMilli()) {
			t.Errorf("%s: last changed by %v at %v, not by %s at %v", d.Kind, r["LastModifiedById"], r["SystemModstamp"], d.By, d.At)
		}
		if d.At.After(o.now()) || d.At.Before(o.now().Add(-time.Hour)) {
			t.Errorf("%s: at %v", d.Kind, d.At)
		}
		phones := digits(fmt.Sprint(r["MobilePhone"])) + " " + digits(fmt.Sprint(r["Phone"]))
		if strings.Contains(phones, d.Number[2:]) == (d.Kind == UnparsablePhone) {
			t.Errorf("%s: number %s, phones %q", d.Kind, d.Number, phones)
		}
		if slices.Contains(plan.Numbers, d.Number) == (d.Kind == TickedByPerson) {
			t.Errorf("%s: number %s", d.Kind, d.Number)
		}
		switch d.Kind {
		case UntickedByImport:
			if d.By != o.ImporterID() || d.At != drifts[slices.IndexFunc(drifts, func(e Drift) bool { return e.Kind == d.Kind })].At {
				t.Errorf("an import is one user's doing in one second: %+v", d)
			}
		case UntickedByIntegration:
			if d.By != o.SyncID() {
				t.Errorf("%+v", d)
			}
		case UntickedByHeed:
			if d.By != o.UserID() {
				t.Errorf("%+v", d)
			}
		default:
			perPerson[d.By+d.At.Format("15:04")]++
		}
		other, _ := o.Get(d.Object, d.Other)
		switch d.Kind {
		case LateRecord:
			if r["CreatedDate"] != formatTime(d.At.UnixMilli()) || r["CreatedById"] != d.By {
				t.Errorf("late: %v", r)
			}
		case MergedLostTick:
			if other["MasterRecordId"] != d.ID || other["SMS_Opt_Out__c"] != true {
				t.Errorf("merged: %v", other)
			}
		case ConvertedUnmapped:
			lead, _ := o.Get("Lead", d.Other)
			if lead["ConvertedContactId"] != d.ID || lead["SMS_Opt_Out__c"] != true {
				t.Errorf("converted: %v", lead)
			}
		case RecordHidden:
			wantError(t, c.do("GET", "sobjects/"+d.Object+"/"+d.ID, nil), 404, "NOT_FOUND", "")
		case WriteRefused:
			wantError(t, c.do("PATCH", "sobjects/"+d.Object+"/"+d.ID, map[string]any{"SMS_Opt_Out__c": true}), 400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", RefusalText)
		case SharedNumber:
			if other["SMS_Opt_Out__c"] != true || other["LastName"] == r["LastName"] {
				t.Errorf("shared: %v and %v", r["Name"], other["Name"])
			}
		case UntickedByPerson:
			h := c.query("SELECT CreatedById, CreatedDate FROM " + d.Object + "History WHERE " + d.Object + "Id = '" + d.ID + "' AND Field = 'SMS_Opt_Out__c' ORDER BY CreatedDate DESC LIMIT 1")
			if !strings.Contains(h.body, `"CreatedById":"`+d.By+`","CreatedDate":"`+formatTime(d.At.UnixMilli())) {
				t.Errorf("history: %s", h.body)
			}
		}
	}
	for _, k := range DriftKinds {
		if counts[k] != plan.count(k) {
			t.Errorf("%d of %s, want %d", counts[k], k, plan.count(k))
		}
	}
	for who, n := range perPerson {
		if n > 5 {
			t.Errorf("%s made %d changes in one minute: that looks like an import", who, n)
		}
	}
	want := before
	for _, k := range DriftKinds {
		want += plan.count(k)
		if k == SharedNumber || k == ConvertedUnmapped { // a second record; the lead stays, the contact is new
			want += plan.count(k)
		}
	}
	if got := o.Count("Contact") + o.Count("Lead"); got != want {
		t.Errorf("%d records, want %d: other records were touched or some are missing", got, want)
	}
}

func TestPlantRefusesAPlanItCannotFollow(t *testing.T) {
	o := New(Options{})
	for name, p := range map[string]Plan{"too few": {Each: 1, Numbers: optedOut(3)}, "not E.164": {Counts: map[DriftKind]int{LateRecord: 1}, Numbers: []string{"(415) 555-0142"}},
		"twice": {Counts: map[DriftKind]int{LateRecord: 2}, Numbers: []string{"+14155550142", "+14155550142"}}, "unknown": {Counts: map[DriftKind]int{"x": 1}}} {
		if _, err := o.Plant(p); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if o.Count("Contact")+o.Count("Lead") != 0 {
		t.Error("a refused plan left records")
	}
}

func TestTheSamePlanGrowsTheSame(t *testing.T) {
	grow := func() string {
		o := New(Options{Now: newClock().now})
		d, err := o.Plant(Plan{Each: 2, Numbers: optedOut(30), Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, x := range d {
			r, _ := o.Get(x.Object, x.ID)
			out += fmt.Sprint(x, r["Name"], r["Phone"], r["MobilePhone"], "\n")
		}
		return out
	}
	if a, b := grow(), grow(); a != b {
		t.Errorf("one plan, two worlds\n%s\n%s", a, b)
	}
}
