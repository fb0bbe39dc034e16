package people

import (
	"sync"
	"time"
)

// throttle makes whoever guesses wait: after five failures for one account or from one address each further one doubles
// the wait. It keeps a bounded number of names; the oldest make way.
type throttle struct {
	now func() time.Time

	mu     sync.Mutex
	failed map[string]*failures
}

type failures struct {
	n     int
	last  time.Time
	until time.Time
}

const (
	freeGuesses  = 5
	maxThrottled = 10_000
	forgetAfter  = time.Hour
	// An account that is not let in at all could be locked by anybody who knows its name, so its wait stays short; an
	// address has only itself to blame.
	maxWaitAccount = time.Minute
	maxWaitSource  = 15 * time.Minute
)

func newThrottle(now func() time.Time) throttle {
	return throttle{now: now, failed: map[string]*failures{}}
}

// wait returns for how long one of the names must wait, 0 if none.
func (t *throttle) wait(names ...string) (d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		if f := t.failed[name]; f != nil {
			d = max(d, f.until.Sub(t.now()))
		}
	}
	return max(d, 0)
}

func (t *throttle) fail(name string, most time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	f := t.failed[name]
	if f == nil || now.Sub(f.last) > forgetAfter {
		if f == nil && len(t.failed) >= maxThrottled {
			t.evict(now)
		}
		f = &failures{}
		t.failed[name] = f
	}
	f.n, f.last = f.n+1, now
	if over := f.n - freeGuesses; over >= 0 {
		f.until = now.Add(min(most, time.Second<<min(over, 20)))
	}
}

// evict makes room: everything that is old, or else the oldest.
func (t *throttle) evict(now time.Time) {
	oldest := ""
	for name, f := range t.failed {
		if now.Sub(f.last) > forgetAfter {
			delete(t.failed, name)
		} else if oldest == "" || f.last.Before(t.failed[oldest].last) {
			oldest = name
		}
	}
	if len(t.failed) >= maxThrottled {
		delete(t.failed, oldest)
	}
}

func (t *throttle) succeed(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.failed, name)
}
