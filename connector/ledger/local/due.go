package local

import (
	"cmp"
	"container/heap"
	"slices"
	"sync"
	"time"

	"github.com/heed-sms/heed/connector/ledger"
)

// dueList orders the owed work by when it may be tried. What is owed is in the index; when to try it again is not
// truth and lives here: after a restart everything is tried at once, in batches.
type dueList struct {
	mu      sync.Mutex
	items   map[string]*dueItem
	heaps   map[ledger.OwedKind]*dueHeap // unclaimed items
	signals map[ledger.OwedKind]chan struct{}
}

type dueItem struct {
	owed  ledger.Owed
	claim uint64 // sequence of the work that was handed out, 0 if none is
	newer bool   // more became owed while claimed: due again as soon as the claim ends
	pos   int    // in its heap, -1 while claimed
}

func newDueList() *dueList {
	return &dueList{items: map[string]*dueItem{}, heaps: map[ledger.OwedKind]*dueHeap{}, signals: map[ledger.OwedKind]chan struct{}{}}
}

// update follows the index.
func (d *dueList) update(changes []owedChange) {
	for _, c := range changes {
		if c.owed == nil {
			d.remove(c.key)
		} else {
			d.put(*c.owed, c.answered)
		}
	}
}

// put notes owed work. answered says that an event told what became of the work that was handed out.
func (d *dueList) put(o ledger.Owed, answered bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	it := d.items[o.Key]
	if it == nil {
		if o.NextAt.IsZero() {
			o.NextAt = o.After
		}
		it = &dueItem{owed: o, pos: -1}
		d.items[o.Key] = it
		d.push(it)
		return
	}
	if o.Seq == it.owed.Seq {
		// The same work, tried and not done: only what is known of it changed. Its time stays.
		o.Attempts, o.NextAt, o.Note = it.owed.Attempts, it.owed.NextAt, it.owed.Note
		it.owed = o
		if answered && it.newer {
			d.release(it)
		}
		return
	}
	it.owed = o
	if it.claim != 0 {
		it.newer = true
		return
	}
	heap.Fix(d.heap(it), it.pos)
	d.wake(o.Kind)
}

func (d *dueList) remove(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	it := d.items[key]
	if it == nil {
		return
	}
	if it.pos >= 0 {
		heap.Remove(d.heap(it), it.pos)
	}
	delete(d.items, key)
}

func (d *dueList) claim(kind ledger.OwedKind, limit int, now time.Time) []ledger.Owed {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.heaps[kind]
	var out []ledger.Owed
	for h != nil && len(out) < limit && len(*h) > 0 && !(*h)[0].owed.NextAt.After(now) {
		it := heap.Pop(h).(*dueItem)
		it.claim = it.owed.Seq
		it.owed.Attempts++
		out = append(out, it.owed)
	}
	return out
}

// giveBack ends the claim under which o was handed out; if that is over already it does nothing.
func (d *dueList) giveBack(o ledger.Owed, until time.Time, note string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	it := d.items[o.Key]
	if it == nil || it.claim == 0 || it.claim != o.Seq {
		return
	}
	it.owed.NextAt, it.owed.Note = until, note
	d.release(it)
}

// release ends a claim. Work that became owed meanwhile has not failed yet, so it does not wait.
func (d *dueList) release(it *dueItem) {
	it.claim = 0
	if it.newer {
		it.newer, it.owed.NextAt, it.owed.Attempts = false, time.Time{}, 0
	}
	d.push(it)
}

// hurry makes everything of a kind that is not claimed due.
func (d *dueList) hurry(kind ledger.OwedKind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.heaps[kind]
	if h == nil {
		return
	}
	for _, it := range *h {
		it.owed.NextAt = it.owed.After // what must not be done earlier is not hurried
	}
	heap.Init(h)
	d.wake(kind)
}

func (d *dueList) push(it *dueItem) {
	heap.Push(d.heap(it), it)
	d.wake(it.owed.Kind)
}

func (d *dueList) heap(it *dueItem) *dueHeap {
	h := d.heaps[it.owed.Kind]
	if h == nil {
		h = &dueHeap{}
		d.heaps[it.owed.Kind] = h
	}
	return h
}

func (d *dueList) wake(kind ledger.OwedKind) {
	select {
	case d.signalFor(kind) <- struct{}{}:
	default:
	}
}

func (d *dueList) signalFor(kind ledger.OwedKind) chan struct{} {
	if d.signals[kind] == nil {
		d.signals[kind] = make(chan struct{}, 1)
	}
	return d.signals[kind]
}

// signal receives a value when work of a kind may have become claimable.
func (d *dueList) signal(kind ledger.OwedKind) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.signalFor(kind)
}

func (d *dueList) all() []ledger.Owed {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]ledger.Owed, 0, len(d.items))
	for _, it := range d.items {
		out = append(out, it.owed)
	}
	slices.SortFunc(out, func(a, b ledger.Owed) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// under returns what stands under keys of a number.
func (d *dueList) under(keys []string) []ledger.Owed {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []ledger.Owed
	for _, key := range keys {
		if it := d.items[key]; it != nil {
			out = append(out, it.owed)
		}
	}
	return out
}

func (d *dueList) stats(s *ledger.Stats, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, it := range d.items {
		s.Owed[it.owed.Kind]++
		if it.owed.Kind == ledger.OweHold {
			continue // waits for a person, with a deadline of its own
		}
		since := it.owed.Since
		if it.owed.After.After(since) {
			since = it.owed.After // what was asked for later has not waited before
		}
		switch {
		case it.owed.Parked != nil:
			s.Parked++
		case !since.After(now) && (s.OldestOwed.IsZero() || since.Before(s.OldestOwed)):
			s.OldestOwed = since
		}
	}
}

type dueHeap []*dueItem

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if !h[i].owed.NextAt.Equal(h[j].owed.NextAt) {
		return h[i].owed.NextAt.Before(h[j].owed.NextAt)
	}
	return h[i].owed.Seq < h[j].owed.Seq
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].pos, h[j].pos = i, j }
func (h *dueHeap) Push(x any)   { it := x.(*dueItem); it.pos = len(*h); *h = append(*h, it) }
func (h *dueHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	it.pos = -1
	return it
}
