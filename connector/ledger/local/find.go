package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

// table is what Find searches: a row of 32 bytes for each number, newest change first. It is made when it is first asked
// for, and follows the changes from then on. A million rows are gone through in a few milliseconds, with any filter,
// which no order on disk does for all of them.
type table struct {
	mu        sync.Mutex // of Find; the fields below
	built     bool
	rows      []tableRow
	campaigns []string // by tableRow.campaign; 0 is none
	number    map[string]uint32

	dirtyMu sync.Mutex
	dirty   map[phone.Number]bool // changed since rows was made; nil while nobody has asked
}

type tableRow struct {
	ms       int64 // when the state began, Unix milliseconds
	number   uint64
	gap      uint32 // seconds from the last message to the newest opt-out; the highest value for none
	campaign uint32
	state    consent.State
	source   uint8
}

const noGap = math.MaxUint32

// sources give each source a number.
var sources = [...]consent.Source{"", consent.Recipient, consent.Provider, consent.CRM, consent.Admin, consent.API, consent.Deadline}

func sourceNumber(s consent.Source) uint8 { return uint8(max(0, slices.Index(sources[:], s))) }

func (a tableRow) compare(b tableRow) int {
	return cmp.Or(cmp.Compare(b.ms, a.ms), cmp.Compare(a.number, b.number))
}

// touch notes that a number changed.
func (t *table) touch(n phone.Number) {
	t.dirtyMu.Lock()
	defer t.dirtyMu.Unlock()
	if t.dirty != nil {
		t.dirty[n] = true
	}
}

// Find returns a page of the numbers that match a query.
func (l *Ledger) Find(ctx context.Context, q ledger.Query) (ledger.Found, error) {
	limit := q.Limit
	switch {
	case limit == 0:
		limit = 50
	case limit < 0 || limit > 1000:
		return ledger.Found{}, fmt.Errorf("%w: a page of %d numbers, at most 1000", ledger.ErrInvalid, limit)
	}
	m, err := newMatcher(q)
	if err != nil {
		return ledger.Found{}, err
	}
	t := &l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := l.follow(ctx, t); err != nil {
		return ledger.Found{}, err
	}
	if q.Campaign != "" {
		c, known := t.number[q.Campaign]
		if !known {
			return ledger.Found{}, nil
		}
		m.campaign = c
	}
	var out ledger.Found
	var page []tableRow
	for _, r := range t.rows {
		if !m.matches(r) {
			continue
		}
		out.Total++
		if len(page) <= limit && (q.After == "" || m.after.compare(r) < 0) {
			page = append(page, r)
		}
	}
	if len(page) > limit {
		page = page[:limit]
		out.Next = fmt.Sprintf("%d-%d", page[limit-1].ms, page[limit-1].number)
	}
	for _, r := range page {
		n, err := readNumber(l.db, phone.FromUint64(r.number))
		if err != nil {
			return ledger.Found{}, err
		}
		out.Rows = append(out.Rows, n)
	}
	return out, nil
}

// matcher is a query in the table's terms.
type matcher struct {
	states   uint8 // bit set
	sources  uint8
	ends     uint64
	modulo   uint64 // 0: any end
	since    int64
	until    int64
	window   uint32
	campaign uint32
	after    tableRow
}

func newMatcher(q ledger.Query) (matcher, error) {
	m := matcher{since: math.MinInt64, until: math.MaxInt64, window: uint32(min(q.Window/time.Second, noGap-1))}
	for _, s := range q.States {
		m.states |= 1 << s
	}
	if len(q.States) == 0 {
		m.states = ^uint8(1 << consent.Unknown)
	}
	for _, s := range q.Sources {
		m.sources |= 1 << sourceNumber(s)
	}
	if q.Ends != "" {
		v, err := strconv.ParseUint(q.Ends, 10, 64)
		if err != nil || len(q.Ends) > 15 {
			return m, fmt.Errorf("%w: %q are no last digits of a number", ledger.ErrInvalid, q.Ends)
		}
		m.ends, m.modulo = v, uint64(math.Pow10(len(q.Ends)))
	}
	if !q.Since.IsZero() {
		m.since = q.Since.UnixMilli()
	}
	if !q.Until.IsZero() {
		m.until = q.Until.UnixMilli()
	}
	if q.After != "" {
		ms, number, _ := strings.Cut(q.After, "-")
		if strings.HasPrefix(q.After, "-") { // before 1970
			ms, number, _ = strings.Cut(q.After[1:], "-")
			ms = "-" + ms
		}
		var err1, err2 error
		m.after.ms, err1 = strconv.ParseInt(ms, 10, 64)
		m.after.number, err2 = strconv.ParseUint(number, 10, 64)
		if err1 != nil || err2 != nil {
			return m, fmt.Errorf("%w: %q is no place to go on from", ledger.ErrInvalid, q.After)
		}
	}
	return m, nil
}

func (m matcher) matches(r tableRow) bool {
	return m.states&(1<<r.state) != 0 && (m.sources == 0 || m.sources&(1<<r.source) != 0) && (m.modulo == 0 || r.number%m.modulo == m.ends) &&
		r.ms >= m.since && r.ms < m.until && (m.campaign == 0 || r.campaign == m.campaign && r.gap <= m.window)
}

// follow makes the table, or brings it up to date. The lock is held.
func (l *Ledger) follow(ctx context.Context, t *table) error {
	if err := l.catch(ctx); err != nil {
		return err
	}
	t.dirtyMu.Lock()
	changed := t.dirty
	t.dirty = map[phone.Number]bool{}
	t.dirtyMu.Unlock()
	var err error
	switch {
	case !t.built:
		err = l.makeTable(ctx, t)
	case len(changed) > 0:
		err = l.mergeTable(ctx, t, changed)
	}
	if err != nil { // what was changed must be looked at again
		t.dirtyMu.Lock()
		for n := range changed {
			t.dirty[n] = true
		}
		t.dirtyMu.Unlock()
	}
	return err
}

func (l *Ledger) makeTable(ctx context.Context, t *table) error {
	t.campaigns, t.number, t.rows = []string{""}, map[string]uint32{}, nil
	last := map[uint64]tableRow{} // of the numbers that something was sent to before they opted out
	for o, err := range l.OptOuts(ctx, time.Time{}) {
		if err != nil {
			return err
		}
		if _, newer := last[o.Number.Uint64()]; !newer && o.Last != nil {
			last[o.Number.Uint64()] = t.attributed(o)
		}
	}
	for n, err := range l.Numbers(ctx, phone.Number{}) {
		if err != nil {
			return err
		}
		r := rowOf(n)
		if a, ok := last[r.number]; ok {
			r.gap, r.campaign = a.gap, a.campaign
		}
		t.rows = append(t.rows, r)
	}
	slices.SortFunc(t.rows, tableRow.compare)
	t.built = true
	return nil
}

// mergeTable replaces the rows of some numbers.
func (l *Ledger) mergeTable(ctx context.Context, t *table, changed map[phone.Number]bool) error {
	var fresh []tableRow
	gone := make(map[uint64]bool, len(changed))
	for n := range changed {
		gone[n.Uint64()] = true
		known, err := readNumber(l.db, n)
		if err != nil {
			return err
		}
		if !known.Number.IsValid() || known.Seq == 0 {
			continue
		}
		r := rowOf(known)
		switch o, err := l.LastOptOut(ctx, n); {
		case err == nil && o.Last != nil:
			a := t.attributed(o)
			r.gap, r.campaign = a.gap, a.campaign
		case err != nil && !errors.Is(err, ledger.ErrNotFound):
			return err
		}
		fresh = append(fresh, r)
	}
	slices.SortFunc(fresh, tableRow.compare)
	rows := make([]tableRow, 0, len(t.rows)+len(fresh))
	for _, r := range t.rows {
		for len(fresh) > 0 && fresh[0].compare(r) < 0 {
			rows, fresh = append(rows, fresh[0]), fresh[1:]
		}
		if !gone[r.number] {
			rows = append(rows, r)
		}
	}
	t.rows = append(rows, fresh...)
	return nil
}

// attributed returns the part of a row that an opt-out decides.
func (t *table) attributed(o ledger.OptOut) (r tableRow) {
	c, ok := t.number[o.Last.Campaign]
	if !ok && o.Last.Campaign != "" {
		c = uint32(len(t.campaigns))
		t.campaigns, t.number[o.Last.Campaign] = append(t.campaigns, o.Last.Campaign), c
	}
	r.campaign = c
	// Rounded up: what is a moment beyond the window is beyond it.
	r.gap = uint32(min(max(0, (o.At.Sub(o.Last.At)+time.Second-1)/time.Second), noGap-1))
	return r
}

func rowOf(n ledger.Number) tableRow {
	return tableRow{ms: n.At().UnixMilli(), number: n.Number.Uint64(), gap: noGap, state: n.Facts.State(), source: sourceNumber(n.Source)}
}
