package salesforcefake

// track keeps a row of history for each tracked field that a save changed.
func (x *tx) track(t *table, old, now *row, user uint32) {
	for _, f := range x.o.knobs.set().tracked[t] {
		before, after := x.o.get(t, old, f), x.o.get(t, now, f)
		if before.kind != after.kind || compare(before, after) != 0 || before.s != after.s {
			x.note(t, now.num, f.Name, before, after, user)
		}
	}
}

// note keeps one row of history, if the object's history is kept at all. Besides fields Salesforce notes created,
// leadConverted, contactMerged and the like.
func (x *tx) note(t *table, num uint32, what string, before, after value, user uint32) {
	if len(x.o.knobs.set().tracked[t]) == 0 {
		return
	}
	h := x.o.table(t.name + "History")
	now := x.now()
	dataType := "Text"
	if f := t.field(what); f != nil {
		dataType = string(f.Type)
	}
	r := row{created: now, modified: now, stamp: now, createdBy: user, modifiedBy: user, num: x.allocate(h)}
	for _, cell := range []struct{ name, raw string }{{t.name + "Id", t.id(num)}, {"Field", what}, {"DataType", dataType},
		{"OldValue", before.encodeAny()}, {"NewValue", after.encodeAny()}} {
		r.data = withField(r.data, h.field(cell.name).slot, cell.raw)
	}
	x.put(h, &r)
}
