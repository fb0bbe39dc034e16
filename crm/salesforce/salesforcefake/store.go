package salesforcefake

import (
	"encoding/binary"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// row is one version of a record. It never changes: a write makes a new row, so whoever holds one (a query cursor)
// keeps what it saw. Times are Unix milliseconds, always whole seconds, as Salesforce keeps them.
type row struct {
	created, modified, stamp     int64
	createdBy, modifiedBy, owner uint32 // numbers of users
	num                          uint32
	master                       uint32 // survivor of a merge, 0 if none
	deleted                      bool
	data                         string // the other fields: slot, length, bytes; an absent slot is null or false
}

func rawField(data string, slot uint8) (string, bool) {
	for len(data) > 0 {
		s := data[0]
		n, w := uvarint(data[1:])
		end := 1 + w + n
		if s == slot {
			return data[1+w : end], true
		}
		data = data[end:]
	}
	return "", false
}

func uvarint(s string) (n, width int) {
	for shift := uint(0); ; shift += 7 {
		b := s[width]
		width++
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			return n, width
		}
	}
}

func appendField(b []byte, slot uint8, s string) []byte {
	b = append(b, slot)
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// value is what a field holds, or a literal to compare it with.
type value struct {
	kind kind
	s    string // kindString, kindDate (2006-01-02)
	n    int64  // kindTime in ms, kindBool 0 or 1
	f    float64
}

type kind uint8

const (
	kindNull kind = iota
	kindString
	kindBool
	kindTime
	kindDate
	kindNumber
)

func stringValue(s string) value {
	if s == "" {
		return value{}
	}
	return value{kind: kindString, s: s}
}

func boolValue(b bool) value {
	if b {
		return value{kind: kindBool, n: 1}
	}
	return value{kind: kindBool}
}

// encode returns how a value is kept in row.data; "" is not kept at all.
func (v value) encode() string {
	switch v.kind {
	case kindBool:
		if v.n != 0 {
			return "1"
		}
	case kindTime:
		return string(binary.BigEndian.AppendUint64(nil, uint64(v.n)))
	case kindNumber:
		return strconv.FormatFloat(v.f, 'g', -1, 64)
	case kindString, kindDate:
		return v.s
	}
	return ""
}

// encodeAny is encode for a field of any type: its kind comes first.
func (v value) encodeAny() string {
	switch v.kind {
	case kindBool:
		return "b" + v.encode()
	case kindTime:
		return "t" + v.encode()
	case kindDate:
		return "d" + v.encode()
	case kindNumber:
		return "n" + v.encode()
	case kindString:
		return "s" + v.encode()
	}
	return ""
}

// withField returns row data with one field set anew; raw is what encode gives, "" for none.
func withField(data string, slot uint8, raw string) string {
	out := make([]byte, 0, len(data)+len(raw)+2)
	placed := false
	place := func() {
		if !placed && raw != "" {
			out = appendField(out, slot, raw)
		}
		placed = true
	}
	for rest := data; len(rest) > 0; {
		n, w := uvarint(rest[1:])
		end := 1 + w + n
		if rest[0] >= slot {
			place()
		}
		if rest[0] != slot {
			out = append(out, rest[:end]...)
		}
		rest = rest[end:]
	}
	place()
	return string(out)
}

func decodeRaw(t Type, raw string) value {
	switch t {
	case Checkbox:
		return boolValue(raw == "1")
	case DateTime:
		var n uint64
		for i := range len(raw) {
			n = n<<8 | uint64(raw[i])
		}
		return value{kind: kindTime, n: int64(n)}
	case Number:
		f, _ := strconv.ParseFloat(raw, 64)
		return value{kind: kindNumber, f: f}
	case Date:
		return value{kind: kindDate, s: raw}
	case anyType:
		if raw == "" {
			return value{}
		}
		return decodeRaw(map[byte]Type{'b': Checkbox, 't': DateTime, 'd': Date, 'n': Number, 's': Text}[raw[0]], raw[1:])
	}
	return stringValue(raw)
}

// compare orders two values of one type. Text is compared without regard to case, as SOQL does.
func compare(a, b value) int {
	if a.kind == kindNull || b.kind == kindNull {
		switch {
		case a.kind == b.kind:
			return 0
		case a.kind == kindNull:
			return -1
		}
		return 1
	}
	switch a.kind {
	case kindBool, kindTime:
		switch {
		case a.n < b.n:
			return -1
		case a.n > b.n:
			return 1
		}
		return 0
	case kindNumber:
		switch {
		case a.f < b.f:
			return -1
		case a.f > b.f:
			return 1
		}
		return 0
	}
	return compareFold(a.s, b.s)
}

func compareFold(a, b string) int {
	if isASCII(a) && isASCII(b) {
		for i := 0; i < len(a) && i < len(b); i++ {
			x, y := lower(a[i]), lower(b[i])
			if x != y {
				return int(x) - int(y)
			}
		}
		return len(a) - len(b)
	}
	return strings.Compare(strings.ToLower(a), strings.ToLower(b))
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// table keeps the records of one object in the order of their ids, and an index of them by SystemModstamp.
type table struct {
	*object
	fixedID string // the only record's id, where it is not made from its number (Organization)
	rows    []*row // the record with number n is rows[n-1]; nil: not yet visible, rolled back or purged

	// index is sorted by (stamp, num). A write adds the row's new place and leaves the old one behind; an entry
	// counts only while its stamp is still the row's.
	index []stampEntry
	stale int
}

type stampEntry struct {
	stamp int64
	num   uint32
}

func (e stampEntry) less(f stampEntry) bool {
	return e.stamp < f.stamp || e.stamp == f.stamp && e.num < f.num
}

func (t *table) id(num uint32) string {
	if t.fixedID != "" {
		return t.fixedID
	}
	return ID18(makeID15(t.prefix, num))
}

// number returns the number of an id of this object, 0 if it is none.
func (t *table) number(id18 string) uint32 {
	if t.fixedID != "" {
		if id18 == t.fixedID {
			return 1
		}
		return 0
	}
	n, exact := numberOf(t.prefix, id18[:15])
	if !exact || n > math.MaxUint32 {
		return 0
	}
	return uint32(n)
}

func (t *table) row(num uint32) *row {
	if num == 0 || int64(num) > int64(len(t.rows)) {
		return nil
	}
	return t.rows[num-1]
}

// set makes r the record's visible version.
func (t *table) set(r *row) {
	if old := t.rows[r.num-1]; old != nil {
		t.stale++
	}
	t.rows[r.num-1] = r
	e := stampEntry{r.stamp, r.num}
	if n := len(t.index); n == 0 || t.index[n-1].less(e) {
		t.index = append(t.index, e)
		return
	}
	i := sort.Search(len(t.index), func(i int) bool { return !t.index[i].less(e) })
	if t.index[i] != e {
		t.index = slices.Insert(t.index, i, e)
	}
}

// tidy drops left-behind index entries once they outnumber the others. It must not run inside a transaction that
// may still be rolled back.
func (t *table) tidy() {
	if t.stale < 1024 || t.stale < len(t.index)/2 {
		return
	}
	t.index = slices.DeleteFunc(t.index, func(e stampEntry) bool { return !t.current(e) })
	t.stale = 0
}

func (t *table) current(e stampEntry) bool {
	r := t.rows[e.num-1]
	return r != nil && r.stamp == e.stamp
}

// stamped calls yield with the rows whose stamp lies in [lo, hi], in order of (stamp, id) or the reverse of it.
func (t *table) stamped(lo, hi int64, reverse bool, yield func(*row) bool) {
	from := sort.Search(len(t.index), func(i int) bool { return t.index[i].stamp >= lo })
	to := sort.Search(len(t.index), func(i int) bool { return t.index[i].stamp > hi })
	for i := from; i < to; i++ {
		e := t.index[i]
		if reverse {
			e = t.index[to-1-(i-from)]
		}
		if t.current(e) && !yield(t.rows[e.num-1]) {
			return
		}
	}
}

// get returns a field's value.
func (o *Org) get(t *table, r *row, f *field) value {
	switch f.sys {
	case sysID:
		return stringValue(t.id(r.num))
	case sysDeleted:
		return boolValue(r.deleted)
	case sysMaster:
		if r.master == 0 {
			return value{}
		}
		return stringValue(t.id(r.master))
	case sysOwner:
		return o.userID(r.owner)
	case sysCreatedBy:
		return o.userID(r.createdBy)
	case sysModifiedBy:
		return o.userID(r.modifiedBy)
	case sysCreatedDate:
		return value{kind: kindTime, n: r.created}
	case sysModifiedDate:
		return value{kind: kindTime, n: r.modified}
	case sysStamp:
		return value{kind: kindTime, n: r.stamp}
	case sysName:
		first, _ := rawField(r.data, t.field("FirstName").slot)
		last, _ := rawField(r.data, t.field("LastName").slot)
		return stringValue(strings.TrimSpace(first + " " + last))
	}
	if f.Formula != nil {
		v := f.Formula(func(name string) any {
			g := t.field(name)
			if g == nil || g.Formula != nil {
				return nil
			}
			return plain(o.get(t, r, g))
		})
		out, err := convert(f, v)
		if err != nil {
			return value{}
		}
		return out
	}
	raw, ok := rawField(r.data, f.slot)
	if !ok {
		if f.Type == Checkbox {
			return boolValue(false)
		}
		return value{}
	}
	return decodeRaw(f.Type, raw)
}

func (o *Org) userID(num uint32) value {
	if num == 0 {
		return value{}
	}
	return stringValue(o.users.id(num))
}

// plain returns a value as string, bool, float64 or nil.
func plain(v value) any {
	switch v.kind {
	case kindString, kindDate:
		return v.s
	case kindBool:
		return v.n != 0
	case kindNumber:
		return v.f
	case kindTime:
		return formatTime(v.n)
	}
	return nil
}

// tx is the writes of one call. The caller holds the org's write lock from begin to end.
type tx struct {
	o    *Org
	at   int64 // when it happens, in ms; 0 is now
	undo []undoEntry
}

func (x *tx) now() int64 {
	if x.at != 0 {
		return x.at
	}
	return x.o.stampNow()
}

type undoEntry struct {
	t   *table
	num uint32
	old *row
}

// pendingWrite is a write that readers do not see yet (knobs late_commit_ms and hold_commits).
type pendingWrite struct {
	x   *tx
	t   *table
	r   *row
	due int64 // ms; math.MaxInt64 while held
}

// current returns the newest version of a record, whether or not readers see it, and makes a pending one visible:
// two transactions cannot hold one row.
func (x *tx) current(t *table, num uint32) *row {
	x.o.release(func(p pendingWrite) bool { return p.t == t && p.r.num == num })
	return t.row(num)
}

// allocate returns the next free record number.
func (x *tx) allocate(t *table) uint32 {
	t.rows = append(t.rows, nil)
	return uint32(len(t.rows))
}

func (x *tx) put(t *table, r *row) {
	o := x.o
	if due := o.commitDue(); due != 0 {
		o.pending = append(o.pending, pendingWrite{x: x, t: t, r: r, due: due})
		o.hasPending.Store(true)
		return
	}
	x.undo = append(x.undo, undoEntry{t, r.num, t.rows[r.num-1]})
	t.set(r)
}

type savepoint struct{ undo, pending int }

func (x *tx) savepoint() savepoint {
	n := 0
	for _, p := range x.o.pending {
		if p.x == x {
			n++
		}
	}
	return savepoint{len(x.undo), n}
}

// rollback takes back what was written since the savepoint. Record numbers stay used up, as in Salesforce.
func (x *tx) rollback(s savepoint) {
	for i := len(x.undo) - 1; i >= s.undo; i-- {
		u := x.undo[i]
		u.t.rows[u.num-1] = u.old
	}
	x.undo = x.undo[:s.undo]
	kept := 0
	x.o.pending = slices.DeleteFunc(x.o.pending, func(p pendingWrite) bool {
		if p.x != x {
			return false
		}
		kept++
		return kept > s.pending
	})
}

// release makes pending writes visible. The caller holds the write lock.
func (o *Org) release(which func(pendingWrite) bool) {
	if len(o.pending) == 0 {
		return
	}
	o.pending = slices.DeleteFunc(o.pending, func(p pendingWrite) bool {
		if !which(p) {
			return false
		}
		p.t.set(p.r)
		return true
	})
	o.hasPending.Store(len(o.pending) > 0)
}

// erase removes a record for good.
func (x *tx) erase(t *table, num uint32) {
	x.undo = append(x.undo, undoEntry{t, num, t.rows[num-1]})
	t.rows[num-1] = nil
	t.stale++
}

// live counts the records that are not deleted.
func (t *table) live() (n int) {
	for _, r := range t.rows {
		if r != nil && !r.deleted {
			n++
		}
	}
	return n
}
