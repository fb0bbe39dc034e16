// Package local is the embedded ledger engine: a journal that is the truth, and one bbolt file that is the
// checkpoint of its fold.
//
// An append waits for the journal's sync and for nothing else. The index follows in the background, in batches; the
// few facts that the next decision needs (each number's state, what the index has not caught up with) are in memory.
// The index may lag, be damaged or be deleted: it is replayed or rebuilt from the journal. The opposite, an index that
// knows more than the journal, means that acknowledged events are missing, and the engine refuses to open.
//
// One process at a time owns a data directory. Package ledger has the contract and the rules of the fold.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/journal"
	"github.com/heed-sms/heed/sms/phone"
)

// Options configure an engine. The zero value works.
type Options struct {
	Policy  consent.Policy
	Logger  *slog.Logger
	Now     func() time.Time // the wall clock; time.Now if nil
	Journal journal.Options
}

// Ledger is an open engine. It implements ledger.Ledger.
type Ledger struct {
	opts Options
	log  *slog.Logger
	now  func() time.Time
	dir  string
	j    *journal.Journal
	db   *bbolt.DB

	requests chan *request
	fold     chan []folded // committed events on their way into the index
	done     sync.WaitGroup
	hurry    chan struct{} // a reader waits for the index
	closing  chan struct{}
	stopped  chan struct{} // closed when commitLoop has ended
	closed   sync.Once

	failure  atomic.Pointer[error] // set once: nothing is vouched for any more
	degraded atomic.Pointer[string]
	full     atomic.Bool // the index has no room and waits

	mu      sync.RWMutex
	states  map[phone.Number]state         // every number whose decision is not that of an unknown one
	pending map[phone.Number]ledger.Number // number records that the index does not have yet
	recent  map[string]uint64              // ids of events that the index does not have yet
	watch   map[int]func(phone.Number, consent.Decision)
	watchID int

	progress sync.Mutex
	caughtUp *sync.Cond
	head     uint64 // newest durable sequence
	applied  uint64 // newest sequence in the index

	due   *dueList
	table table
}

// state is what a decision needs of a number, in memory.
type state struct {
	state consent.State
	byCRM bool
}

type request struct {
	events []ledger.Event
	coded  [][]byte          // the events as the journal will have them, made by the caller's goroutine; nil for Open
	floor  *consent.Decision // for Open: decide events[0] at commit time
	out    []ledger.Receipt
	err    error
	done   chan struct{}
}

type folded struct {
	event ledger.Event
	pos   journal.Position
}

const (
	journalDir = "journal"
	indexFile  = "index.db"
	maxBatch   = 4096                  // events a group commit takes at the most
	foldLinger = 10 * time.Millisecond // how long the index waits for more to fold at once
	maxLag     = 1 << 16               // events that the index may lack while the disk is full
)

// Open opens or creates the ledger in a data directory and brings its index up to date. It fails, rather than guess,
// where the journal is damaged or older than the index.
func Open(dir string, o Options) (*Ledger, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Journal.Logger == nil {
		o.Journal.Logger = o.Logger
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	// The index is opened first: it remembers how far the journal once reached, which is the only way to notice that
	// its last batch is gone.
	l := &Ledger{
		opts: o, log: o.Logger, now: o.Now, dir: dir,
		requests: make(chan *request, 1024),
		fold:     make(chan []folded, 64),
		hurry:    make(chan struct{}, 1),
		closing:  make(chan struct{}),
		stopped:  make(chan struct{}),
		states:   map[phone.Number]state{},
		pending:  map[phone.Number]ledger.Number{},
		recent:   map[string]uint64{},
		watch:    map[int]func(phone.Number, consent.Decision){},
		due:      newDueList(),
	}
	l.caughtUp = sync.NewCond(&l.progress)
	if err := l.open(); err != nil {
		return nil, err
	}
	l.done.Go(l.commitLoop)
	l.done.Go(l.foldLoop)
	return l, nil
}

// open opens journal and index, rebuilding an index that is damaged, replays what it lacks and loads the memory.
func (l *Ledger) open() error {
	path := filepath.Join(l.dir, indexFile)
	db, damage := openBolt(path)
	if errors.Is(damage, berrors.ErrTimeout) {
		return fmt.Errorf("index %s is locked by another process: is another heed running?", path)
	}
	if errors.Is(damage, errNewerFormat) {
		return fmt.Errorf("index %s: %w", path, damage)
	}
	var stands indexPosition
	if damage == nil {
		stands, damage = position(db)
	} else if errors.Is(damage, errOlderFormat) { // it still remembers how far the journal reached
		if older, err := openReadOnly(path); err == nil {
			stands, _ = position(older)
			_ = closeBolt(older)
		}
	}
	l.opts.Journal.Acked = stands.seq
	j, err := journal.Open(filepath.Join(l.dir, journalDir), l.opts.Journal)
	if err != nil {
		return errors.Join(l.explain(err, stands), closeBolt(db))
	}
	l.j = j
	if damage == nil {
		damage = l.catchUp(db, stands)
		var behind *JournalBehindError
		var corrupt *journal.CorruptError
		switch {
		case damage == nil:
			l.db = db
			return nil
		case errors.As(damage, &behind), errors.As(damage, &corrupt):
			return errors.Join(damage, closeBolt(db), j.Close())
		}
	}
	_ = closeBolt(db)
	// Whatever is wrong with the index, the journal has everything but the CRM mirror, which a full pass refills.
	aside := fmt.Sprintf("%s.damaged-%s", path, l.now().UTC().Format("20060102T150405.000"))
	if errors.Is(damage, errOlderFormat) {
		aside = fmt.Sprintf("%s.before-%s", path, l.now().UTC().Format("20060102T150405.000"))
		l.log.Warn("index is of an older version; computing it again from the journal", "kept_as", aside)
	} else {
		l.log.Error("index is damaged; rebuilding it from the journal", "error", damage, "kept_as", aside)
		l.degrade("the index was damaged and has been rebuilt from the journal; the next pass reads the CRM in full")
	}
	if err := os.Rename(path, aside); err != nil {
		return errors.Join(fmt.Errorf("set damaged index aside: %w", err), j.Close())
	}
	if db, err = openBolt(path); err == nil {
		l.states, l.due = map[phone.Number]state{}, newDueList()
		err = l.catchUp(db, indexPosition{})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("rebuild index: %w", err), closeBolt(db), j.Close())
	}
	l.db = db
	return nil
}

// explain tells a journal that merely ends too early, which an operator may accept, from a damaged one.
func (l *Ledger) explain(err error, stands indexPosition) error {
	var corrupt *journal.CorruptError
	if !errors.As(err, &corrupt) {
		return err
	}
	j, rerr := journal.Open(filepath.Join(l.dir, journalDir), journal.Options{ReadOnly: true})
	if rerr != nil {
		return err
	}
	head, _ := j.Head()
	if cerr := j.Close(); cerr != nil || head >= stands.seq {
		return err
	}
	return fmt.Errorf("%w (%w)", &JournalBehindError{Index: stands.seq, Journal: head}, err)
}

// JournalBehindError says that the index stands for events that the journal does not have: the journal was
// truncated, or an old copy was restored over it. Acknowledged opt-outs may be missing from it.
type JournalBehindError struct {
	Index, Journal uint64 // newest sequence of each
	Differs        bool   // the journal has that sequence, with other content
}

func (e *JournalBehindError) Error() string {
	what := fmt.Sprintf("the index stands for event %d, the journal ends at %d", e.Index, e.Journal)
	if e.Differs {
		what = fmt.Sprintf("event %d is not the one that the index was computed from", e.Index)
	}
	return what + ": the journal was cut or replaced, and acknowledged events may be missing. " +
		"Restore the newest backup of the journal. To go on without the missing events: `heed verify --rebuild`, then `heed reconcile --full`"
}

// catchUp replays into the index what the journal has beyond the position that the index stands for, and loads the
// memory from it.
func (l *Ledger) catchUp(db *bbolt.DB, pos indexPosition) error {
	head, _ := l.j.Head()
	if pos.seq > head {
		return &JournalBehindError{Index: pos.seq, Journal: head}
	}
	var batch []folded
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := applyToIndex(db, batch)
		batch = batch[:0]
		return err
	}
	from := max(pos.seq, 1) // the record the index stands for is read too, to compare its hash
	replayed := 0
	err := l.j.Replay(from, func(r journal.Record) error {
		if r.Seq == pos.seq {
			if r.Hash != pos.hash {
				return &JournalBehindError{Index: pos.seq, Journal: head, Differs: true}
			}
			return nil
		}
		e, err := decode(r)
		if err != nil {
			return err
		}
		batch = append(batch, folded{e, r.Pos})
		replayed++
		if len(batch) < 8192 {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return err
	}
	if pos.seq > 0 && replayed > 0 {
		l.log.Info("index was behind the journal and has caught up", "events", replayed)
	}
	l.head, l.applied = head, head
	return l.load(db)
}

// load reads the numbers' states and the owed work into memory. A damaged record ends it: guessing at a state
// could allow a send.
func (l *Ledger) load(db *bbolt.DB) error {
	err := eachNumber(db, phone.Number{}, func(n ledger.Number) bool {
		l.setState(n)
		return true
	})
	if err != nil {
		return err
	}
	return eachOwed(db, func(o ledger.Owed) bool {
		l.due.put(o, false)
		return true
	})
}

func (l *Ledger) setState(n ledger.Number) consent.Decision {
	s := state{n.Facts.State(), n.Facts.ByCRM()}
	if s == (state{}) {
		delete(l.states, n.Number)
	} else {
		l.states[n.Number] = s
	}
	return l.opts.Policy.DecideState(s.state, s.byCRM)
}

var errClosed = errors.New("closed")

func (l *Ledger) degrade(why string) { l.degraded.Store(&why) }

// fail makes the engine refuse everything from now on. After a failed sync nobody knows what is on disk, so the only
// honest continuation is a restart, which verifies.
func (l *Ledger) fail(err error) {
	if l.failure.CompareAndSwap(nil, &err) {
		l.log.Error("ledger failed; every send is refused until heed is restarted", "error", err)
		l.wakeReaders()
	}
}

// wakeReaders makes those who wait for the index look again. The lock is needed: without it the call could fall
// between a reader's look and its wait.
func (l *Ledger) wakeReaders() {
	l.progress.Lock()
	l.caughtUp.Broadcast()
	l.progress.Unlock()
}

// Health returns nil, or why the ledger cannot be relied on.
func (l *Ledger) Health() error {
	if p := l.failure.Load(); p != nil {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, *p)
	}
	return nil
}

// Append records events and returns when they are durable. See ledger.Ledger.
func (l *Ledger) Append(ctx context.Context, events ...ledger.Event) ([]ledger.Receipt, error) {
	r := &request{events: events, coded: make([][]byte, len(events)), done: make(chan struct{})}
	for i, e := range events {
		var err error
		if r.coded[i], err = encode(e); err != nil {
			return nil, err
		}
	}
	if err := l.submit(ctx, r); err != nil {
		return nil, err
	}
	return r.out, r.err
}

// Open decides on a message and records it. See ledger.Ledger.
func (l *Ledger) Open(ctx context.Context, m ledger.Message, floor consent.Decision) (ledger.Message, bool, error) {
	e := ledger.Event{Kind: ledger.KindOpened, ID: m.Key, At: m.CreatedAt, Number: m.To, Opened: &m}
	r := &request{events: []ledger.Event{e}, floor: &floor, done: make(chan struct{})}
	if err := l.submit(ctx, r); err != nil {
		return ledger.Message{}, false, err
	}
	if r.err != nil {
		return ledger.Message{}, false, r.err
	}
	if !r.out[0].Duplicate {
		out := m // m itself belongs to the event now, which is still on its way into the index
		out.Status = ledger.InitialStatus(m.Decision)
		return out, false, nil
	}
	first, err := l.messageBySeq(ctx, r.out[0].Seq)
	switch {
	case err != nil:
		return ledger.Message{}, true, err
	case first.Fingerprint != m.Fingerprint:
		return ledger.Message{}, true, ledger.ErrKeyReused
	}
	return first, true, nil
}

func encode(e ledger.Event) ([]byte, error) {
	b, err := e.Encode()
	if len(b) > journal.MaxPayload { // would fail the journal for everybody
		err = fmt.Errorf("%w: %d bytes, at most %d", ledger.ErrInvalid, len(b), journal.MaxPayload)
	}
	return b, err
}

func (l *Ledger) submit(ctx context.Context, r *request) error {
	if err := l.Health(); err != nil {
		return err
	}
	select {
	case l.requests <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.closing:
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, errClosed)
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx) // the commit goes on; the caller must not acknowledge
	case <-l.stopped:
		select {
		case <-r.done:
			return nil
		default:
			return fmt.Errorf("%w: %w", ledger.ErrUnavailable, errClosed)
		}
	}
}

// commitLoop is the only writer. It takes what waits, yields a few times so that requests that are about to arrive
// share the sync, and commits. There is no timer: with one caller a commit starts at once.
func (l *Ledger) commitLoop() {
	defer close(l.stopped)
	defer close(l.fold)
	batch := make([]*request, 0, 256)
	for {
		batch = batch[:0]
		select {
		case r := <-l.requests:
			batch = append(batch, r)
		case <-l.closing:
			select { // what was accepted before closing is still committed
			case r := <-l.requests:
				batch = append(batch, r)
			default:
				return
			}
		}
		n := len(batch[0].events)
		for idle := 0; idle <= 4 && n < maxBatch; {
			select {
			case r := <-l.requests:
				batch, n, idle = append(batch, r), n+len(r.events), 0
				continue
			default:
			}
			idle++
			runtime.Gosched()
		}
		l.commit(batch)
	}
}

// commit makes one batch durable and answers it.
func (l *Ledger) commit(batch []*request) {
	var (
		payloads [][]byte
		events   []ledger.Event
		inBatch  = map[string]int{} // id → index in events
	)
	head, _ := l.j.Head()
	answer := func() {
		for _, r := range batch {
			close(r.done)
		}
	}
	if err := l.Health(); err != nil {
		for _, r := range batch {
			r.err = err
		}
		answer()
		return
	}
	// The decisions and states of this batch, visible to its later events before they are durable.
	staged := map[phone.Number]ledger.Number{}
	for _, r := range batch {
		mark, keep := len(events), map[phone.Number]ledger.Number{}
		for i := range r.events {
			e := r.events[i]
			if seq, dup, err := l.lookup(e.ID, inBatch, head); err != nil {
				r.err = err
			} else if dup {
				r.out = append(r.out, ledger.Receipt{Seq: seq, Duplicate: true})
				continue
			}
			e.Seq = head + uint64(len(events)) + 1
			if r.err == nil && r.floor != nil {
				e.Opened.Decision = ledger.Exempt(*e.Opened, l.decideNow(e.Number, *r.floor, staged))
			}
			var b []byte
			if r.coded != nil {
				b = r.coded[i]
			} else if r.err == nil {
				b, r.err = encode(e) // only now is the decision known
			}
			if r.err == nil {
				r.err = l.stage(e, staged, keep)
			}
			if r.err != nil {
				break
			}
			if e.ID != "" {
				inBatch[e.ID] = len(events)
			}
			events, payloads = append(events, e), append(payloads, b)
			r.out = append(r.out, ledger.Receipt{Seq: e.Seq})
		}
		if r.err != nil { // all of a request or none of it
			for _, e := range events[mark:] {
				delete(inBatch, e.ID)
			}
			for n, old := range keep {
				if old.Seq == 0 && !old.Number.IsValid() {
					delete(staged, n)
				} else {
					staged[n] = old
				}
			}
			events, payloads, r.out = events[:mark], payloads[:mark], nil
		}
	}
	if len(events) == 0 {
		answer()
		return
	}
	positions := make([]journal.Position, len(events))
	if _, err := l.j.Append(payloads, positions); err != nil {
		if !errors.Is(err, journal.ErrFull) {
			l.fail(err)
		}
		for _, r := range batch {
			if r.err == nil && len(r.out) > 0 {
				r.out, r.err = nil, fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
			}
		}
		answer()
		return
	}
	_, events[len(events)-1].Hash = l.j.Head() // what the index will say that it stands for
	if l.j.BallastSpent() {
		l.degrade("the disk is full and the journal's spare space has been released: free space now, sends will be refused next")
	}
	l.publish(events, staged, head+uint64(len(events)))
	answer()
	f := make([]folded, len(events))
	for i := range events {
		f[i] = folded{events[i], positions[i]}
	}
	l.fold <- f // blocks while the index is far behind: the journal may run ahead of it, but not without bound
}

// lookup finds an earlier event with this id, in the batch, among those the index lacks, or in the index.
func (l *Ledger) lookup(id string, inBatch map[string]int, head uint64) (seq uint64, dup bool, err error) {
	if id == "" {
		return 0, false, nil
	}
	if i, ok := inBatch[id]; ok {
		return head + uint64(i) + 1, true, nil
	}
	l.mu.RLock()
	seq, dup = l.recent[id]
	l.mu.RUnlock()
	if dup {
		return seq, true, nil
	}
	if seq, dup, err = seenSeq(l.db, id); err != nil {
		err = fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
	}
	return seq, dup, err
}

// decideNow returns the decision of a message that is being opened: the stricter of the caller's and the number's. Of two
// that are as strict, one with a reason to refuse says more.
func (l *Ledger) decideNow(n phone.Number, floor consent.Decision, staged map[phone.Number]ledger.Number) consent.Decision {
	d := l.Decide(n)
	if rec, ok := staged[n]; ok && l.failure.Load() == nil {
		d = l.opts.Policy.Decide(rec.Facts)
	}
	switch f, own := floor.Verdict.Strictness(), d.Verdict.Strictness(); {
	case f > own, f == own && floor.Reason != consent.OK:
		return floor
	}
	return d
}

// stage folds an event into the number records of the running batch.
func (l *Ledger) stage(e ledger.Event, staged, keep map[phone.Number]ledger.Number) error {
	if _, _, ok := ledger.Change(e); !ok || !e.Number.IsValid() {
		return nil
	}
	cur, ok := staged[e.Number]
	if !ok {
		l.mu.RLock()
		cur, ok = l.pending[e.Number]
		l.mu.RUnlock()
	}
	if !ok {
		var err error
		if cur, err = readNumber(l.db, e.Number); err != nil {
			return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
		}
	}
	if _, had := keep[e.Number]; !had {
		keep[e.Number] = staged[e.Number]
	}
	next, _ := ledger.ApplyNumber(cur, e)
	staged[e.Number] = next
	return nil
}

// publish makes a durable batch visible: decisions first, then the watchers, before anybody is answered.
func (l *Ledger) publish(events []ledger.Event, staged map[phone.Number]ledger.Number, head uint64) {
	type change struct {
		n phone.Number
		d consent.Decision
	}
	var changes []change
	l.mu.Lock()
	for n, rec := range staged {
		if rec.Seq == 0 {
			continue
		}
		old := l.states[n]
		l.pending[n] = rec
		d := l.setState(rec)
		if l.states[n] != old {
			changes = append(changes, change{n, d})
		}
	}
	for _, e := range events {
		if e.ID != "" {
			l.recent[e.ID] = e.Seq
		}
	}
	watchers := make([]func(phone.Number, consent.Decision), 0, len(l.watch))
	for _, fn := range l.watch {
		watchers = append(watchers, fn)
	}
	l.mu.Unlock()
	for _, c := range changes {
		for _, fn := range watchers {
			fn(c.n, c.d)
		}
	}
	l.progress.Lock()
	l.head = head
	l.progress.Unlock()
}

// foldLoop keeps the index behind the journal as closely as it can, several commits a transaction. On a full disk the
// journal has a reserve and the index has none, so the index waits: opt-outs must still be recorded.
func (l *Ledger) foldLoop() {
	var f []folded
	var again <-chan time.Time
	for open := true; open; {
		select {
		case more, ok := <-l.fold:
			f, open = append(f, more...), ok
		case <-again:
		}
		// A transaction of the index syncs the disk twice, under the journal's feet: few and large ones, unless
		// somebody waits for what they bring.
		linger := time.NewTimer(foldLinger)
		for more := true; open && more && len(f) < maxBatch; {
			select {
			case next, ok := <-l.fold:
				f, open = append(f, next...), ok
			case <-l.hurry:
				more = false
			case <-linger.C:
				more = false
			}
		}
		linger.Stop()
		again = nil
		if len(f) == 0 {
			continue
		}
		if l.Health() != nil {
			f = nil // the journal has it; the next start replays it
			continue
		}
		// What the journal's reserve has freed is for opt-outs: an index that grows would take it.
		var err error = syscall.ENOSPC
		if !l.j.BallastSpent() || l.room() {
			err = l.advance(f)
		}
		wait := full(err) && len(f) < maxLag
		if l.full.Swap(wait) != wait && wait {
			l.log.Error("the disk is full: the index waits, opt-outs are still recorded; free space", "error", err)
			l.wakeReaders()
		}
		switch {
		case wait:
			again = time.After(time.Second)
			continue
		case err != nil:
			l.fail(fmt.Errorf("update index: %w", err))
		}
		f = nil
	}
}

// advance brings committed events into the index and releases what was kept in memory for them.
func (l *Ledger) advance(f []folded) error {
	last := f[len(f)-1].event.Seq
	owed, err := l.applyBatch(f)
	if err != nil {
		return err
	}
	l.mu.Lock()
	for _, x := range f {
		if x.event.ID != "" {
			delete(l.recent, x.event.ID)
		}
		if rec, ok := l.pending[x.event.Number]; ok && rec.Seq <= last {
			delete(l.pending, x.event.Number)
		}
	}
	l.mu.Unlock()
	for _, x := range f {
		if _, _, changes := ledger.Change(x.event); changes && x.event.Number.IsValid() {
			l.table.touch(x.event.Number)
		}
	}
	l.due.update(owed)
	l.progress.Lock()
	l.applied = last
	l.caughtUp.Broadcast()
	l.progress.Unlock()
	return nil
}

// room reports whether the file system has more space than the journal's reserve takes. One that does not tell has.
func (l *Ledger) room() bool {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(l.dir, &fs); err != nil {
		return true
	}
	reserve := cmp.Or(l.opts.Journal.BallastBytes, 16<<20)
	return reserve < 0 || fs.Bavail*uint64(fs.Bsize) > uint64(reserve)
}

// full reports whether an error means that the disk or the quota has no room.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// catch waits until the index has every event that was durable when it was called.
func (l *Ledger) catch(ctx context.Context) error {
	l.progress.Lock()
	defer l.progress.Unlock()
	want := l.head
	if l.applied >= want {
		return l.Health()
	}
	stop := context.AfterFunc(ctx, l.wakeReaders)
	defer stop()
	for l.applied < want {
		if err := l.Health(); err != nil {
			return err
		}
		if l.full.Load() {
			return fmt.Errorf("%w: the disk is full and the index is behind", ledger.ErrUnavailable)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		select {
		case l.hurry <- struct{}{}:
		default:
		}
		l.caughtUp.Wait()
	}
	return nil
}

// Decide returns the gate's decision for a number now.
func (l *Ledger) Decide(n phone.Number) consent.Decision {
	if l.failure.Load() != nil {
		return consent.Decision{Verdict: consent.Block, Reason: consent.Unavailable}
	}
	if !n.IsValid() {
		return consent.Decision{Verdict: consent.Block, Reason: consent.InvalidNumber}
	}
	l.mu.RLock()
	s := l.states[n]
	l.mu.RUnlock()
	return l.opts.Policy.DecideState(s.state, s.byCRM)
}

// State returns a number's state now.
func (l *Ledger) State(n phone.Number) consent.State {
	if l.failure.Load() != nil {
		return consent.OptedOut
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.states[n].state
}

// Watch registers fn for changes of decisions. See ledger.Ledger.
func (l *Ledger) Watch(fn func(phone.Number, consent.Decision)) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.watchID
	l.watchID++
	l.watch[id] = fn
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watch, id)
	}
}

// Close commits and indexes what was accepted, and releases the directory.
func (l *Ledger) Close() error {
	var err error
	l.closed.Do(func() {
		close(l.closing)
		l.done.Wait()
		l.failure.CompareAndSwap(nil, &errClosed) // what another process appends from now on is not known here
		l.wakeReaders()
		err = errors.Join(closeBolt(l.db), l.j.Close())
	})
	return err
}
