package salesforcefake

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// DriftKind is a way in which an org comes to disagree with an opt-out.
type DriftKind string

// The kinds of drift that can be planted. What a record was before is what [Org.Ground] made it: ticked by heed's user
// thirty days ago, with one opted-out number in a phone field, unless said otherwise.
const (
	UntickedByPerson      DriftKind = "unticked_by_person"      // a person unticked the box
	UntickedByImport      DriftKind = "unticked_by_import"      // the import user unticked them all in one second
	UntickedByIntegration DriftKind = "unticked_by_integration" // another program's user unticked the box
	UntickedByHeed        DriftKind = "unticked_by_heed"        // the box was unticked under heed's own user
	TickedByPerson        DriftKind = "ticked_by_person"        // a number that has not opted out; a person ticked the box
	LateRecord            DriftKind = "late_record"             // a new record with an opted-out number, not ticked
	NumberChanged         DriftKind = "number_changed"          // had another number and no tick; now has an opted-out number and no tick
	MergedLostTick        DriftKind = "merged_lost_tick"        // two ticked records of one person were merged, the box kept unticked; Other is the loser
	ConvertedUnmapped     DriftKind = "converted_unmapped"      // a ticked lead became a contact without a tick; Other is the lead
	RecordHidden          DriftKind = "record_hidden"           // a person unticked the box, and sharing hides the record from heed's user
	WriteRefused          DriftKind = "write_refused"           // a person unticked the box, and a validation rule refuses to tick it
	UnparsablePhone       DriftKind = "unparsable_phone"        // still ticked, but a person wrote something into the phone field that is no number
	SharedNumber          DriftKind = "shared_number"           // two people have the number; a person unticked the box of one. Other is the other record
)

// DriftKinds are all kinds, in the order in which they are planted.
var DriftKinds = []DriftKind{UntickedByPerson, UntickedByImport, UntickedByIntegration, UntickedByHeed, TickedByPerson, LateRecord, NumberChanged,
	MergedLostTick, ConvertedUnmapped, RecordHidden, WriteRefused, UnparsablePhone, SharedNumber}

// RefusalText is what the validation rule of [WriteRefused] says.
const RefusalText = "The service desk decides about this customer's opt-out."

// Plan says what to plant.
type Plan struct {
	Numbers []string          // opted-out numbers, in E.164; each is used once, and no record should have it yet
	Each    int               // how many drifts of each kind
	Counts  map[DriftKind]int // how many of a kind, instead of Each
	Seed    uint64            // of names, spellings and fields
	Since   time.Time         // when the first drift happens, before the org's now; zero is an hour ago
}

func (p Plan) count(k DriftKind) int {
	if n, ok := p.Counts[k]; ok {
		return n
	}
	return p.Each
}

// Needs returns how many opted-out numbers the plan uses up: one for each drift but those of TickedByPerson.
func (p Plan) Needs() int {
	n := 0
	for _, k := range DriftKinds {
		if k != TickedByPerson {
			n += p.count(k)
		}
	}
	return n
}

// Drift is one planted drift.
type Drift struct {
	Kind   DriftKind
	Object string // of the record that now disagrees: Contact or Lead
	ID     string // 18 characters
	Other  string // the id of the other record, for the kinds that have one
	Number string // the record's number before the drift or, if it had none that matters, after it; E.164
	By     string // id of the user who did it
	At     time.Time
}

// Ground is what a plan grows on: records that heed may see, and bring in step, before anything drifts.
type Ground struct {
	o       *Org
	plan    Plan
	r       *rand.Rand
	people  []string // ids of the people who edit records, several so that nobody looks like an import
	ready   []grounded
	spare   int // next number that nobody has
	taken   map[string]bool
	drifted bool
}

type grounded struct {
	kind          DriftKind
	object, id    string
	other         string
	field, number string
}

// Ground adds the records that the plan needs. A test that wants heed to have seen them lets heed read the org between
// this and [Ground.Drift]. The records are new ones: nothing that is in the org already changes.
func (o *Org) Ground(p Plan) (*Ground, error) {
	if n := p.Needs(); n > len(p.Numbers) {
		return nil, fmt.Errorf("salesforcefake: the plan needs %d opted-out numbers and has %d", n, len(p.Numbers))
	}
	for k := range p.Counts {
		if !slices.Contains(DriftKinds, k) {
			return nil, fmt.Errorf("salesforcefake: drift %q is unknown", k)
		}
	}
	g := &Ground{o: o, plan: p, r: rand.New(rand.NewPCG(p.Seed, 0x6472696674)), taken: map[string]bool{}}
	for _, n := range p.Numbers {
		if len(n) < 8 || n[0] != '+' || strings.Trim(n[1:], "0123456789") != "" || g.taken[n] {
			return nil, fmt.Errorf("salesforcefake: the plan's numbers must be E.164 and differ from each other")
		}
		g.taken[n] = true
	}
	for i := range 12 {
		name := fmt.Sprintf("agent%d@sandbox.example", i+1)
		o.mu.RLock()
		n := o.userNamed(name)
		o.mu.RUnlock()
		if n == 0 {
			g.people = append(g.people, o.AddUser(name, pick(g.r, firstNames), pick(g.r, lastNames)))
		} else {
			g.people = append(g.people, o.users.id(n))
		}
	}
	numbers := p.Numbers
	for _, k := range DriftKinds {
		for range p.count(k) {
			number := ""
			if k != TickedByPerson {
				number, numbers = numbers[0], numbers[1:]
			}
			if err := g.prepare(k, number); err != nil {
				return nil, err
			}
		}
	}
	return g, nil
}

// Plant is Ground and Drift in one.
func (o *Org) Plant(p Plan) ([]Drift, error) {
	g, err := o.Ground(p)
	if err != nil {
		return nil, err
	}
	return g.Drift()
}

// free returns a number that is neither in the plan nor made by Seed (for fewer than two million people).
func (g *Ground) free() string {
	for {
		n := fmt.Sprintf("+1%s555%04d", areaCodes[g.spare%len(areaCodes)], 9999-g.spare/len(areaCodes))
		if g.spare++; !g.taken[n] {
			return n
		}
	}
}

// spell writes an E.164 number as people do.
func (g *Ground) spell(e164 string) string {
	if !strings.HasPrefix(e164, "+1") || len(e164) != 12 {
		return e164
	}
	a, e, l := e164[2:5], e164[5:8], e164[8:]
	return pick(g.r, []string{e164, e164[1:], e164[2:], "(" + a + ") " + e + "-" + l, a + "-" + e + "-" + l, a + "." + e + "." + l,
		"+1 (" + a + ") " + e + "-" + l, "1-" + a + "-" + e + "-" + l, a + "-" + e + "-" + l + " x22", a + " " + e + " " + l})
}

// at runs one transaction of a user at a given time.
func (g *Ground) at(when time.Time, userID, object string, f func(*tx, *table, author) *apiError) error {
	return g.o.change(object, func(x *tx, t *table) *apiError {
		user, err := g.o.users.find(userID)
		if err != nil {
			return err
		}
		x.at = when.UTC().Truncate(time.Second).UnixMilli()
		return f(x, t, author{user: user, admin: true})
	})
}

func (g *Ground) set(when time.Time, userID, object, id string, fields map[string]any) error {
	return g.at(when, userID, object, func(x *tx, t *table, by author) *apiError {
		n, err := t.find(id)
		if err != nil {
			return err
		}
		as, err := g.o.decode(everyone, t, fields)
		if err != nil {
			return err
		}
		return x.update(t, n, as, by)
	})
}

// record makes one and returns its id and its phone field.
func (g *Ground) record(when time.Time, userID, object, first, last, number string) (id, field string, err error) {
	fields := map[string]any{"FirstName": first, "LastName": last}
	field = pick(g.r, []string{"MobilePhone", "MobilePhone", "Phone"})
	fields[field] = g.spell(number)
	if object == "Lead" {
		fields["Company"] = pick(g.r, firms) + " " + pick(g.r, trades)
	}
	err = g.at(when, userID, object, func(x *tx, t *table, by author) *apiError {
		as, err := g.o.decode(everyone, t, fields)
		if err != nil {
			return err
		}
		n, err := x.insert(t, as, by)
		id = t.id(n)
		return err
	})
	return id, field, err
}

func (g *Ground) prepare(kind DriftKind, number string) (err error) {
	now := g.o.now()
	object := "Contact"
	if kind == ConvertedUnmapped || g.r.IntN(10) < 3 {
		object = "Lead"
	}
	n := grounded{kind: kind, object: object, number: number}
	first, last := pick(g.r, firstNames), pick(g.r, lastNames)
	ticked := func(first, last string) (id, field string, err error) {
		if id, field, err = g.record(now.AddDate(0, 0, -40), g.o.AdminID(), object, first, last, number); err == nil {
			err = g.set(now.AddDate(0, 0, -30), g.o.UserID(), object, id, map[string]any{"SMS_Opt_Out__c": true})
		}
		return id, field, err
	}
	switch kind {
	case LateRecord:
	case TickedByPerson, NumberChanged:
		had := g.free()
		if kind == TickedByPerson {
			n.number = had
		}
		n.id, n.field, err = g.record(now.AddDate(0, 0, -40), g.o.AdminID(), object, first, last, had)
	default:
		n.id, n.field, err = ticked(first, last)
		if err == nil && kind == MergedLostTick {
			n.other, _, err = ticked(first, last)
		}
		if err == nil && kind == SharedNumber {
			n.other, _, err = ticked(pick(g.r, firstNames), last+"-"+pick(g.r, lastNames))
		}
	}
	g.ready = append(g.ready, n)
	return err
}

// Drift lets everything drift and returns what was done, in the order of the kinds. It works once. Times lie between the
// plan's Since and the org's now; an import's are all the same, those of one person are far apart.
func (g *Ground) Drift() ([]Drift, error) {
	o := g.o
	if g.drifted {
		return nil, fmt.Errorf("salesforcefake: this ground has drifted already")
	}
	g.drifted = true
	now, since := o.now(), g.plan.Since
	if since.IsZero() || since.After(now) {
		since = now.Add(-time.Hour)
	}
	out := make([]Drift, 0, len(g.ready))
	refused := map[string][]string{}
	for i, n := range g.ready {
		when := since.Add(now.Sub(since) * time.Duration(i+1) / time.Duration(len(g.ready)+1)).UTC().Truncate(time.Second)
		d := Drift{Kind: n.kind, Object: n.object, ID: n.id, Other: n.other, Number: n.number, By: g.people[i%len(g.people)], At: when}
		untick := map[string]any{"SMS_Opt_Out__c": false}
		var err error
		switch n.kind {
		case UntickedByImport:
			d.By, d.At = o.ImporterID(), since.Add(now.Sub(since)/2).UTC().Truncate(time.Second)
			err = g.set(d.At, d.By, d.Object, d.ID, untick)
		case UntickedByIntegration:
			d.By = o.SyncID()
			err = g.set(d.At, d.By, d.Object, d.ID, untick)
		case UntickedByHeed:
			d.By = o.UserID()
			err = g.set(d.At, d.By, d.Object, d.ID, untick)
		case TickedByPerson:
			err = g.set(d.At, d.By, d.Object, d.ID, map[string]any{"SMS_Opt_Out__c": true})
		case LateRecord:
			d.ID, _, err = g.record(d.At, d.By, d.Object, pick(g.r, firstNames), pick(g.r, lastNames), d.Number)
		case NumberChanged:
			err = g.set(d.At, d.By, d.Object, d.ID, map[string]any{n.field: g.spell(d.Number)})
		case MergedLostTick:
			err = g.at(d.At, d.By, d.Object, func(x *tx, t *table, by author) *apiError {
				return x.merge(t, d.ID, []string{d.Other}, untick, by)
			})
		case ConvertedUnmapped:
			d.Other = d.ID
			err = g.at(d.At, d.By, "Lead", func(x *tx, t *table, by author) (err *apiError) {
				d.ID, err = x.convert(t, d.Other, nil, by)
				return err
			})
			d.Object = "Contact"
		case UnparsablePhone:
			err = g.set(d.At, d.By, d.Object, d.ID, map[string]any{n.field: pick(g.r, garbage)})
		default: // unticked by a person, with something besides
			err = g.set(d.At, d.By, d.Object, d.ID, untick)
			if err == nil && n.kind == RecordHidden {
				err = o.SetRecordAccess(d.Object, d.ID, Hidden)
			}
			if n.kind == WriteRefused {
				refused[d.Object] = append(refused[d.Object], d.ID)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("salesforcefake: planting %s on %s %s: %w", n.kind, d.Object, d.ID, err)
		}
		out = append(out, d)
	}
	err := o.SetKnobs(func(k *Knobs) {
		for _, object := range []string{"Contact", "Lead"} {
			if ids := refused[object]; len(ids) > 0 {
				k.ValidationRules = append(k.ValidationRules, ValidationRule{Object: object, Field: "SMS_Opt_Out__c", IDs: ids, Message: RefusalText})
			}
		}
	})
	return out, err
}
