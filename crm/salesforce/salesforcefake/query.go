package salesforcefake

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// accessor reads a field of a record or, over references, of a parent.
type accessor struct {
	hops []hop
	t    *table // owner of f
	f    *field
}

type hop struct {
	from *table
	ref  *field
	to   *table
}

func (a *accessor) get(o *Org, r *row) value {
	t := a.t
	for _, h := range a.hops {
		if r = o.parent(h, r); r == nil {
			return value{}
		}
		t = h.to
	}
	return o.get(t, r, a.f)
}

func (o *Org) parent(h hop, r *row) *row {
	id := o.get(h.from, r, h.ref)
	if id.kind != kindString {
		return nil
	}
	return h.to.row(h.to.number(id.s))
}

// compiled is a query bound to the schema.
type compiled struct {
	o      *Org
	user   uint32 // whose query it is
	t      *table
	proj   *projection
	count  bool
	keep   func(*row) bool
	hidden func(*row) bool // by sharing; nil hides nothing
	where  bounds
	order  []compiledOrder
	limit  int
	offset int
	all    bool // deleted rows too
}

type compiledOrder struct {
	acc       accessor
	desc      bool
	nullsLast bool
}

// projection is the tree of what to show: fields in the order asked for, parents as objects within.
type projection struct {
	t     *table
	nodes []projected
}

type projected struct {
	name  string
	f     *field      // a field, or
	ref   *field      // a parent
	child *projection // with its own fields
}

func (o *Org) compile(q *soql, user uint32, all bool) (*compiled, *apiError) {
	t := o.table(q.object.text)
	if t == nil || o.objectAccess(user, t) == Hidden {
		return nil, queryError("INVALID_TYPE", q.text, q.object.pos, "sObject type '%s' is not supported. If you are "+
			"attempting to use a custom object, be sure to append the '__c' after the entity name. Please reference "+
			"your WSDL or the describe call for the appropriate names.", q.object.text)
	}
	c := &compiled{o: o, user: user, t: t, count: q.count, limit: q.limit, offset: q.offset, all: all, where: everything(),
		proj: &projection{t: t}}
	for _, p := range q.fields {
		if err := c.project(q, p); err != nil {
			return nil, err
		}
	}
	c.keep = func(*row) bool { return true }
	c.hidden = o.hider(user, t)
	if q.where != nil {
		b := binder{o: o, user: user, t: t, q: q, now: o.now()}
		keep, bd, err := b.bind(q.where)
		if err != nil {
			return nil, err
		}
		c.keep, c.where = keep, bd
	}
	for _, ob := range q.order {
		acc, err := o.resolve(user, t, q.text, ob.path)
		if err != nil {
			return nil, err
		}
		if !acc.f.filterable() {
			return nil, malformed(q.text, ob.path.pos, "field '%s' can not be sorted in a query call", acc.f.Name)
		}
		c.order = append(c.order, compiledOrder{acc: acc, desc: ob.desc, nullsLast: ob.nullsLast})
	}
	return c, nil
}

func noSuchColumn(text string, pos int, column, entity string) *apiError {
	return queryError("INVALID_FIELD", text, pos, "No such column '%s' on entity '%s'. If you are attempting to use a "+
		"custom field, be sure to append the '__c' after the custom field name. Please reference your WSDL or the "+
		"describe call for the appropriate names.", column, entity)
}

// walk follows a path's relations and returns the parents passed and the last name's table.
func (o *Org) walk(user uint32, t *table, text string, p path) (hops []hop, at *table, last string, err *apiError) {
	parts := p.parts
	if len(parts) > 1 && strings.EqualFold(parts[0], t.name) {
		parts = parts[1:]
	}
	at = t
	for len(parts) > 1 {
		ref := at.byRelation[strings.ToLower(parts[0])]
		if ref == nil || o.access(user, at, ref) == Hidden {
			return nil, nil, "", queryError("INVALID_FIELD", text, p.pos, "Didn't understand relationship '%s' in field "+
				"path. If you are attempting to use a custom relationship, be sure to append the '__r' after the custom "+
				"relationship name. Please reference your WSDL or the describe call for the appropriate names.", parts[0])
		}
		if len(hops) == 5 {
			return nil, nil, "", malformed(text, p.pos, "maximum 5 relationships allowed in a path")
		}
		to := o.table(ref.refTo)
		hops = append(hops, hop{at, ref, to})
		at, parts = to, parts[1:]
	}
	return hops, at, parts[0], nil
}

func (o *Org) resolve(user uint32, t *table, text string, p path) (accessor, *apiError) {
	hops, at, last, err := o.walk(user, t, text, p)
	if err != nil {
		return accessor{}, err
	}
	f := o.visible(user, at, last)
	if f == nil {
		return accessor{}, noSuchColumn(text, p.pos, last, at.name)
	}
	return accessor{hops: hops, t: t, f: f}, nil
}

func (c *compiled) project(q *soql, p path) *apiError {
	hops, at, last, err := c.o.walk(c.user, c.t, q.text, p)
	if err != nil {
		return err
	}
	f := c.o.visible(c.user, at, last)
	if f == nil {
		return noSuchColumn(q.text, p.pos, last, at.name)
	}
	pr := c.proj
	for _, h := range hops {
		i := slices.IndexFunc(pr.nodes, func(n projected) bool { return n.ref == h.ref })
		if i < 0 {
			pr.nodes = append(pr.nodes, projected{name: h.ref.relation, ref: h.ref, child: &projection{t: h.to}})
			i = len(pr.nodes) - 1
		}
		pr = pr.nodes[i].child
	}
	if slices.ContainsFunc(pr.nodes, func(n projected) bool { return n.f == f }) {
		return queryError("INVALID_FIELD", q.text, p.pos, "duplicate field selected: %s", f.Name)
	}
	pr.nodes = append(pr.nodes, projected{name: f.Name, f: f})
	return nil
}

// bounds is a superset of the records a condition can keep, for the choice of an index.
type bounds struct {
	stampLo, stampHi int64 // inclusive, ms
	numLo, numHi     int64 // inclusive
	nums             []uint32
	listed           bool // only nums
}

func everything() bounds {
	return bounds{stampLo: math.MinInt64, stampHi: math.MaxInt64, numLo: 1, numHi: math.MaxInt64}
}

func (a bounds) and(b bounds) bounds {
	a.stampLo, a.stampHi = max(a.stampLo, b.stampLo), min(a.stampHi, b.stampHi)
	a.numLo, a.numHi = max(a.numLo, b.numLo), min(a.numHi, b.numHi)
	if b.listed && (!a.listed || len(b.nums) < len(a.nums)) {
		a.nums, a.listed = b.nums, true
	}
	return a
}

func (a bounds) or(b bounds) bounds {
	a.stampLo, a.stampHi = min(a.stampLo, b.stampLo), max(a.stampHi, b.stampHi)
	a.numLo, a.numHi = min(a.numLo, b.numLo), max(a.numHi, b.numHi)
	if a.listed = a.listed && b.listed; a.listed {
		a.nums = append(slices.Clone(a.nums), b.nums...)
	}
	return a
}

type binder struct {
	o    *Org
	user uint32
	t    *table
	q    *soql
	now  time.Time
}

func (b *binder) bind(e expr) (func(*row) bool, bounds, *apiError) {
	switch e := e.(type) {
	case andExpr:
		keeps, bd := make([]func(*row) bool, len(e)), everything()
		for i, sub := range e {
			k, sb, err := b.bind(sub)
			if err != nil {
				return nil, bd, err
			}
			keeps[i], bd = k, bd.and(sb)
		}
		return func(r *row) bool {
			for _, k := range keeps {
				if !k(r) {
					return false
				}
			}
			return true
		}, bd, nil
	case orExpr:
		keeps, bd := make([]func(*row) bool, len(e)), everything()
		for i, sub := range e {
			k, sb, err := b.bind(sub)
			if err != nil {
				return nil, bd, err
			}
			keeps[i] = k
			if i == 0 {
				bd = sb
			} else {
				bd = bd.or(sb)
			}
		}
		return func(r *row) bool {
			for _, k := range keeps {
				if k(r) {
					return true
				}
			}
			return false
		}, bd, nil
	case notExpr:
		k, _, err := b.bind(e.of)
		if err != nil {
			return nil, bounds{}, err
		}
		return func(r *row) bool { return !k(r) }, everything(), nil
	case cond:
		return b.cond(e)
	}
	panic(fmt.Sprintf("salesforcefake: unknown expression %T", e))
}

// operand is a literal as a half-open range: for everything but dates, the range of one value.
type operand struct {
	lo, hi value // hi is exclusive and set only for times and dates
}

func (b *binder) cond(c cond) (func(*row) bool, bounds, *apiError) {
	bd := everything()
	acc, err := b.o.resolve(b.user, b.t, b.q.text, c.path)
	if err != nil {
		return nil, bd, err
	}
	f := acc.f
	if !f.filterable() {
		return nil, bd, queryError("INVALID_FIELD", b.q.text, c.path.pos, "field '%s' can not be filtered in a query call", f.Name)
	}
	badOp := func() *apiError {
		return queryError("INVALID_QUERY_FILTER_OPERATOR", b.q.text, c.path.pos, "operator %s is not valid for field '%s' of type %s",
			c.op, f.Name, f.Type)
	}
	ordered := strings.ContainsAny(c.op, "<>")
	if c.op == "LIKE" && !f.textual() || ordered && f.Type == Checkbox {
		return nil, bd, badOp()
	}
	vals := make([]operand, len(c.vals))
	for i, tok := range c.vals {
		v, err := b.operand(f, tok)
		if err != nil {
			return nil, bd, err
		}
		if v.lo.kind == kindNull && (ordered || c.op == "LIKE") && (f.Type == typeID || f.Type == Reference || tok.kind != tokString) {
			return nil, bd, badOp()
		}
		vals[i] = v
	}
	o := b.o
	root := len(acc.hops) == 0
	get := func(r *row) value { return acc.get(o, r) }
	if root {
		get = func(r *row) value { return o.get(b.t, r, f) }
	}
	if root && f.sys == sysID && c.op != "!=" && c.op != "NOT IN" {
		return b.idCond(c.op, vals, get)
	}
	switch c.op {
	case "LIKE":
		m := likePattern(c.vals[0].text)
		return func(r *row) bool { v := get(r); return v.kind == kindString && m(v.s) }, bd, nil
	case "IN", "NOT IN":
		in := membership(vals)
		want := c.op == "IN"
		return func(r *row) bool { return in(get(r)) == want }, bd, nil
	}
	v := vals[0]
	if root && f.sys == sysStamp && v.lo.kind == kindTime {
		switch c.op {
		case "=":
			bd.stampLo, bd.stampHi = v.lo.n, v.hi.n-1
		case "<":
			bd.stampHi = v.lo.n - 1
		case "<=":
			bd.stampHi = v.hi.n - 1
		case ">":
			bd.stampLo = v.hi.n
		case ">=":
			bd.stampLo = v.lo.n
		}
	}
	if ordered && f.isID() {
		return func(r *row) bool {
			x := get(r)
			return x.kind != kindNull && ordering(c.op, strings.Compare(x.s, v.lo.s))
		}, bd, nil
	}
	return func(r *row) bool { return v.test(c.op, get(r)) }, bd, nil
}

func (v operand) test(op string, x value) bool {
	if op == "=" || op == "!=" {
		eq := v.contains(x)
		return eq == (op == "=")
	}
	if x.kind == kindNull || v.lo.kind == kindNull {
		return false
	}
	switch op {
	case "<":
		return compare(x, v.lo) < 0
	case ">=":
		return compare(x, v.lo) >= 0
	case "<=":
		if v.hi.kind != kindNull {
			return compare(x, v.hi) < 0
		}
		return compare(x, v.lo) <= 0
	}
	if v.hi.kind != kindNull {
		return compare(x, v.hi) >= 0
	}
	return compare(x, v.lo) > 0
}

func (v operand) contains(x value) bool {
	if v.hi.kind != kindNull && x.kind != kindNull {
		return compare(x, v.lo) >= 0 && compare(x, v.hi) < 0
	}
	return compare(x, v.lo) == 0
}

// membership answers IN. Text goes by map, because phone lists are long.
func membership(vals []operand) func(value) bool {
	texts := map[string]bool{}
	var rest []operand
	for _, v := range vals {
		if v.lo.kind == kindString {
			texts[strings.ToLower(v.lo.s)] = true
		} else {
			rest = append(rest, v)
		}
	}
	return func(x value) bool {
		if x.kind == kindString && (texts[x.s] || texts[strings.ToLower(x.s)]) {
			return true
		}
		return slices.ContainsFunc(rest, func(v operand) bool { return v.contains(x) })
	}
}

func (b *binder) idCond(op string, vals []operand, get func(*row) value) (func(*row) bool, bounds, *apiError) {
	bd := everything()
	if op == "=" || op == "IN" {
		want := map[string]bool{}
		bd.listed = true
		for _, v := range vals {
			if v.lo.kind == kindNull {
				continue
			}
			want[v.lo.s] = true
			if n := b.t.number(v.lo.s); n != 0 {
				bd.nums = append(bd.nums, n)
			}
		}
		return func(r *row) bool { return want[get(r).s] }, bd, nil
	}
	if b.t.fixedID != "" {
		id := vals[0].lo.s
		return func(r *row) bool { return ordering(op, strings.Compare(get(r).s, id)) }, bd, nil
	}
	n, exact := numberOf(b.t.prefix, vals[0].lo.s[:15])
	if !exact && op == "<" || op == "<=" {
		n++ // records up to and with n
	}
	switch op {
	case "<", "<=":
		bd.numHi = n - 1
	case ">=":
		if !exact {
			n++
		}
		bd.numLo = n
	case ">":
		bd.numLo = n + 1
	}
	return func(r *row) bool { return int64(r.num) >= bd.numLo && int64(r.num) <= bd.numHi }, bd, nil
}

func ordering(op string, c int) bool {
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}

// operand checks that a literal fits the field and reads it.
func (b *binder) operand(f *field, tok token) (operand, *apiError) {
	wrong := func(quoted string) (operand, *apiError) {
		return operand{}, queryError("INVALID_FIELD", b.q.text, tok.pos,
			"value of filter criterion for field '%s' must be of type %s and should %sbe enclosed in quotes", f.Name, soapName(f.Type), quoted)
	}
	if tok.is("NULL") {
		if f.Type == Checkbox {
			return operand{lo: boolValue(false)}, nil
		}
		return operand{}, nil
	}
	switch f.Type {
	case typeID, Reference:
		if tok.kind != tokString {
			return wrong("")
		}
		if tok.text == "" {
			return operand{}, nil
		}
		id, ok := canonicalID(tok.text)
		if !ok {
			return operand{}, queryError("INVALID_QUERY_FILTER_OPERATOR", b.q.text, tok.pos, "invalid ID field: %s", plainText(tok.text))
		}
		return operand{lo: stringValue(id)}, nil
	case Checkbox:
		switch {
		case tok.is("TRUE"):
			return operand{lo: boolValue(true)}, nil
		case tok.is("FALSE"):
			return operand{lo: boolValue(false)}, nil
		}
		return wrong("not ")
	case Number:
		if tok.kind != tokNumber {
			return wrong("not ")
		}
		n, _ := strconv.ParseFloat(tok.text, 64)
		return operand{lo: value{kind: kindNumber, f: n}}, nil
	case DateTime, Date:
		from, to, ok := b.days(tok)
		switch {
		case ok && f.Type == Date:
			return operand{value{kind: kindDate, s: from.Format(time.DateOnly)}, value{kind: kindDate, s: to.Format(time.DateOnly)}}, nil
		case ok:
			return operand{value{kind: kindTime, n: from.UnixMilli()}, value{kind: kindTime, n: to.UnixMilli()}}, nil
		case tok.kind == tokDate && f.Type == Date:
			d, err := time.Parse(time.DateOnly, tok.text)
			if err != nil {
				return operand{}, malformed(b.q.text, tok.pos, "Invalid date: %s", tok.text)
			}
			return operand{value{kind: kindDate, s: tok.text}, value{kind: kindDate, s: d.AddDate(0, 0, 1).Format(time.DateOnly)}}, nil
		case tok.kind == tokDateTime && f.Type == DateTime:
			at, err := parseTime(tok.text)
			if err != nil {
				return operand{}, malformed(b.q.text, tok.pos, "Invalid datetime: %s", tok.text)
			}
			ms := at.UnixMilli()
			return operand{value{kind: kindTime, n: ms}, value{kind: kindTime, n: ms + 1}}, nil
		}
		return wrong("not ")
	}
	if tok.kind != tokString {
		return wrong("")
	}
	return operand{lo: stringValue(plainText(tok.text))}, nil
}

// days reads a date literal as the days it spans, in UTC: the integration user's time zone here.
func (b *binder) days(tok token) (from, to time.Time, ok bool) {
	if tok.kind != tokWord {
		return
	}
	y, m, d := b.now.Date()
	today := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	switch strings.ToUpper(tok.text) {
	case "TODAY":
		return today, today.AddDate(0, 0, 1), true
	case "YESTERDAY":
		return today.AddDate(0, 0, -1), today, true
	case "TOMORROW":
		return today.AddDate(0, 0, 1), today.AddDate(0, 0, 2), true
	case "LAST_N_DAYS":
		return today.AddDate(0, 0, -int(min(tok.n, 1<<20))), today.AddDate(0, 0, 1), true
	case "NEXT_N_DAYS":
		return today.AddDate(0, 0, 1), today.AddDate(0, 0, 1+int(min(tok.n, 1<<20))), true
	}
	return
}

func soapName(t Type) string {
	switch t {
	case DateTime:
		return "dateTime"
	case typeID, Reference:
		return "ID"
	case Checkbox, Number, Date, anyType:
		return string(t)
	}
	return "string"
}

// likePattern compiles a LIKE pattern, case-insensitive: % any run, _ one character, \% and \_ themselves.
func likePattern(s string) func(string) bool {
	const anyRun, anyOne = -1, -2
	var pat []rune
	esc := false
	for _, r := range strings.ToLower(s) {
		switch {
		case r == 0:
			pat = append(pat, '\\')
		case esc:
			pat, esc = append(pat, r), false
		case r == '\\':
			esc = true
		case r == '%':
			pat = append(pat, anyRun)
		case r == '_':
			pat = append(pat, anyOne)
		default:
			pat = append(pat, r)
		}
	}
	return func(s string) bool {
		text := []rune(strings.ToLower(s))
		i, j, star, mark := 0, 0, -1, 0
		for i < len(text) {
			switch {
			case j < len(pat) && pat[j] == anyRun:
				star, mark = j, i
				j++
			case j < len(pat) && (pat[j] == anyOne || pat[j] == text[i]):
				i, j = i+1, j+1
			case star >= 0:
				mark++
				i, j = mark, star+1
			default:
				return false
			}
		}
		for j < len(pat) && pat[j] == anyRun {
			j++
		}
		return j == len(pat)
	}
}

// run returns the query's rows. Reading by Id or by SystemModstamp in their own order follows an index and stops at
// the limit; nothing is sorted then. The caller holds at least the read lock.
func (c *compiled) run() []*row {
	want := math.MaxInt
	if c.limit >= 0 {
		want = c.limit + c.offset
	}
	var out []*row
	full := func() bool { return len(out) >= want }
	keep := func(r *row) {
		if r != nil && (c.all || !r.deleted) && (c.hidden == nil || !c.hidden(r)) && c.keep(r) {
			out = append(out, r)
		}
	}
	byStamp, byID, desc := c.natural()
	stampBound := c.where.stampLo > math.MinInt64 || c.where.stampHi < math.MaxInt64
	lo, hi := max(c.where.numLo, 1), min(c.where.numHi, int64(len(c.t.rows)))
	sorted := true
	switch {
	case want == 0:
	case c.where.listed:
		nums := slices.Clone(c.where.nums)
		slices.Sort(nums)
		for _, n := range slices.Compact(nums) {
			keep(c.t.row(n))
		}
		sorted = byID && !desc
	case byStamp:
		c.t.stamped(c.where.stampLo, c.where.stampHi, desc, func(r *row) bool {
			keep(r)
			return !full()
		})
	case stampBound && (!byID || hi-lo > int64(len(c.t.rows))/2):
		c.t.stamped(c.where.stampLo, c.where.stampHi, false, func(r *row) bool {
			keep(r)
			return true
		})
		sorted = false
	case byID && desc:
		for n := hi; n >= lo && !full(); n-- {
			keep(c.t.rows[n-1])
		}
	default:
		for n := lo; n <= hi && !(byID && full()); n++ {
			keep(c.t.rows[n-1])
		}
		sorted = byID
	}
	if !sorted {
		c.sort(out)
	}
	if len(c.order) == 0 && c.o.knobs.shuffle() {
		c.o.knobs.shuffleRows(out)
	}
	out = out[min(c.offset, len(out)):]
	if c.limit >= 0 && len(out) > c.limit {
		out = out[:c.limit]
	}
	return out
}

// natural says whether the order asked for is that of an index. No order at all counts as order by Id.
func (c *compiled) natural() (byStamp, byID, desc bool) {
	is := func(i int, k sysKind) bool { return len(c.order[i].acc.hops) == 0 && c.order[i].acc.f.sys == k }
	switch len(c.order) {
	case 0:
		return false, true, false
	case 1:
		return is(0, sysStamp), is(0, sysID), c.order[0].desc
	case 2:
		return is(0, sysStamp) && is(1, sysID) && c.order[0].desc == c.order[1].desc, is(0, sysID), c.order[0].desc
	}
	return false, is(0, sysID), c.order[0].desc
}

func (c *compiled) sort(rows []*row) {
	if len(c.order) == 0 {
		slices.SortFunc(rows, func(a, b *row) int { return int(int64(a.num) - int64(b.num)) })
		return
	}
	type keyed struct {
		r    *row
		keys []value
	}
	list := make([]keyed, len(rows))
	for i, r := range rows {
		keys := make([]value, len(c.order))
		for j := range c.order {
			keys[j] = c.order[j].acc.get(c.o, r)
		}
		list[i] = keyed{r, keys}
	}
	sort.SliceStable(list, func(i, j int) bool {
		for k, ord := range c.order {
			a, b := list[i].keys[k], list[j].keys[k]
			if (a.kind == kindNull) != (b.kind == kindNull) {
				return (a.kind == kindNull) != ord.nullsLast
			}
			d := compare(a, b)
			if ord.acc.f.isID() {
				d = strings.Compare(a.s, b.s)
			}
			if d != 0 {
				return (d < 0) != ord.desc
			}
		}
		return list[i].r.num < list[j].r.num
	})
	for i := range list {
		rows[i] = list[i].r
	}
}
