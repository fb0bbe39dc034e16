package connector

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/heed-sms/heed/connector/ledger"
)

// Limits bounds how fast each API key may ask and each SMS account sends: so many a second, and twice as many at once
// after a pause. It keeps two numbers for each known name and nothing for strangers, so it cannot be made to grow.
// It is safe for concurrent use; nil means no limits.
type Limits struct {
	perKey   int
	accounts map[string]*bucket
	mu       sync.RWMutex
	keys     map[string]*bucket
}

// bucket is one rate limit. Looking whether the wait is short enough and queueing for it are one step: a reservation that
// is made and taken back costs those that were made behind it.
type bucket struct {
	mu    sync.Mutex
	limit *rate.Limiter
}

// NewLimits returns the limits for the named keys and the accounts, in requests and messages a second; 0 is none.
func NewLimits(perKey, perAccount int, keys []string, accounts Accounts) *Limits {
	l := &Limits{perKey: perKey, keys: map[string]*bucket{}, accounts: map[string]*bucket{}}
	for _, name := range keys {
		l.AddKey(name)
	}
	for _, a := range accounts {
		if perAccount > 0 {
			l.accounts[a.Name] = newBucket(perAccount)
		}
	}
	return l
}

// AddKey limits a key that was made after the start like all others.
func (l *Limits) AddKey(name string) {
	if l == nil || l.perKey <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys[name] == nil {
		l.keys[name] = newBucket(l.perKey)
	}
}

func newBucket(perSecond int) *bucket {
	return &bucket{limit: rate.NewLimiter(rate.Limit(perSecond), 2*perSecond)}
}

// TooManyError says that a limit is used up. Nothing was recorded and nothing was sent.
type TooManyError struct {
	What       string        // whose limit: API key "workflow" or account "twilio"
	PerSecond  int           // how many it allows
	RetryAfter time.Duration // when there is room again, as things stand
}

func (e *TooManyError) Error() string {
	return fmt.Sprintf("the %s is limited to %d a second; try again in %s", e.What, e.PerSecond, e.RetryAfter)
}

// RetryAfterSeconds returns RetryAfter for the HTTP header of that name: in whole seconds, rounded up, at least one
// (RFC 9110, section 10.2.3).
func (e *TooManyError) RetryAfterSeconds() int {
	return max(1, int((e.RetryAfter+time.Second-1)/time.Second))
}

func (e *TooManyError) problem() Problem {
	return Problem{Type: "too-many", Title: "Too many requests", Status: 429, Detail: fmt.Sprintf("The %s is limited to %d a second. Nothing was recorded or sent.", e.What, e.PerSecond),
		Hint: "Wait as long as Retry-After says, and send more slowly; limits: in the configuration sets the rates.", retryAfter: e.RetryAfterSeconds()}
}

// Ask counts a request of an API key, or returns a *TooManyError.
func (l *Limits) Ask(key string, now time.Time) error {
	if l == nil {
		return nil
	}
	l.mu.RLock()
	b := l.keys[key]
	l.mu.RUnlock()
	_, _, err := b.take(now, 0, "API key", key)
	return err
}

// slot takes the account's next turn to send: after wait, which is not longer than longest. giveBack returns a turn that
// is not there yet. The error is a *TooManyError.
func (l *Limits) slot(account string, now time.Time, longest time.Duration) (wait time.Duration, giveBack func(now time.Time), _ error) {
	if l == nil {
		return 0, func(time.Time) {}, nil
	}
	return l.accounts[account].take(now, longest, "account", account)
}

// passing counts a message that does not wait for its turn.
func (l *Limits) passing(account string, now time.Time) {
	_, _, _ = l.slot(account, now, 0)
}

func (b *bucket) take(now time.Time, longest time.Duration, what, name string) (wait time.Duration, giveBack func(now time.Time), _ error) {
	if b == nil {
		return 0, func(time.Time) {}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	perSecond := float64(b.limit.Limit())
	// Rounded up to a nanosecond: a turn is never early.
	wait = time.Duration(math.Ceil(max(0, 1-b.limit.TokensAt(now)) / perSecond * float64(time.Second)))
	if wait > longest {
		return 0, nil, &TooManyError{What: fmt.Sprintf("%s %q", what, name), PerSecond: int(perSecond), RetryAfter: wait}
	}
	r := b.limit.ReserveN(now, 1)
	return wait, func(now time.Time) {
		b.mu.Lock()
		defer b.mu.Unlock()
		r.CancelAt(now)
	}, nil
}

// patience is how long a send whose caller waits may wait for the account's turn.
const patience = time.Second

// firstTurn is turn for a send whose caller waits. A repetition under a key that was answered before sends nothing, so it
// gets its answer without a turn.
func (g *Gate) firstTurn(ctx context.Context, account, key string) error {
	if g.Limits == nil {
		return nil
	}
	if key != "" {
		if seen, err := g.Ledger.Seen(ctx, key); err != nil {
			return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
		} else if seen {
			return nil
		}
	}
	err := g.turn(ctx, account, patience)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, err) // the caller hung up
	}
	return err
}

// turn waits for an account's turn to send, at most for longest. Where the wait would be longer it returns a
// *TooManyError at once; where ctx ends first, its error, and the turn goes to somebody else.
func (g *Gate) turn(ctx context.Context, account string, longest time.Duration) error {
	wait, giveBack, err := g.Limits.slot(account, g.Now(), longest)
	if err != nil || wait == 0 {
		return err
	}
	if !g.wait(ctx, wait) {
		giveBack(g.Now())
		return context.Cause(ctx)
	}
	return nil
}

func (g *Gate) wait(ctx context.Context, d time.Duration) bool {
	if g.Wait != nil {
		return g.Wait(ctx, d)
	}
	return sleep(ctx, d)
}
