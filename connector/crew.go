package connector

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

// Crew does owed work of one kind side by side: a few pieces at once for each account, so that one that hangs or is
// throttled does not delay another, and one at a time for each number, in the order in which they became owed.
type Crew struct {
	Ledger     CrewLedger
	Kind       ledger.OwedKind
	PerAccount int // pieces at once
	Most       int // pieces at once of all accounts, 0 for no bound beyond theirs
	// Prepare says for which account (or whatever else may hang) a piece is and what is to be done; it must be quick. What
	// is done settles the work with an event; an error gives it back for a while.
	Prepare func(ctx context.Context, o ledger.Owed) (account string, do func(context.Context) error, err error)
	Trouble string // what the log says about a piece that failed
	Log     *slog.Logger
	Now     func() time.Time
}

// CrewLedger is what a Crew needs of the ledger.
type CrewLedger interface {
	Claim(ctx context.Context, kind ledger.OwedKind, limit int) ([]ledger.Owed, error)
	Return(ctx context.Context, o ledger.Owed, until time.Time, note string) error
	OwedSignal(kind ledger.OwedKind) <-chan struct{}
}

// ahead is how many pieces of one account are held while all its places are taken; the others are left for later.
const (
	ahead     = 1024
	aheadWait = 5 * time.Second
	claimOnce = 256
)

type job struct {
	owed    ledger.Owed
	account string
	do      func(context.Context) error
	err     error
}

// Flush does everything that may be done now, and what comes due meanwhile. When ctx ends nothing more is begun, and
// what was begun is waited for.
func (c Crew) Flush(ctx context.Context) error {
	var (
		waiting []job
		places  = map[string]int{}
		numbers = map[phone.Number]bool{}
		done    = make(chan job)
		running int
		look    = true
		failed  error
	)
	giveBack := func(o ledger.Owed, wait time.Duration, why error) {
		if err := c.Ledger.Return(ctx, o, c.Now().Add(wait), why.Error()); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	for {
		ended := ctx.Err() != nil || failed != nil
		if ended {
			for _, j := range waiting {
				giveBack(j.owed, 0, errors.New("heed is stopping"))
			}
			waiting = nil
		}
		if !ended && (look || len(waiting) == 0) {
			var err error
			waiting, err = c.fill(ctx, waiting, giveBack)
			failed = errors.Join(failed, err)
		}
		look = false
		rest := waiting[:0]
		for _, j := range waiting {
			if places[j.account] >= c.PerAccount || numbers[j.owed.Number] || c.Most > 0 && running >= c.Most {
				rest = append(rest, j)
				continue
			}
			places[j.account]++
			numbers[j.owed.Number] = true
			running++
			go func() {
				j.err = j.do(ctx)
				done <- j
			}()
		}
		waiting = rest
		if running == 0 {
			if len(waiting) == 0 {
				return failed
			}
			continue
		}
		t := time.NewTimer(time.Second)
		select {
		case j := <-done:
			running--
			places[j.account]--
			delete(numbers, j.owed.Number)
			if j.err != nil {
				c.Log.Warn(c.Trouble, "number", j.owed.Number, "error", j.err)
				giveBack(j.owed, Backoff(j.owed.Attempts), j.err)
			}
		case <-c.Ledger.OwedSignal(c.Kind):
			look = true
		case <-t.C:
			look = true
		}
		t.Stop()
	}
}

// fill claims everything that is due. What cannot be prepared, and what is too much for its account, is given back.
func (c Crew) fill(ctx context.Context, waiting []job, giveBack func(ledger.Owed, time.Duration, error)) ([]job, error) {
	held := map[string]int{}
	for _, j := range waiting {
		held[j.account]++
	}
	for {
		owed, err := c.Ledger.Claim(ctx, c.Kind, claimOnce)
		if err != nil {
			return waiting, err
		}
		for _, o := range owed {
			account, do, err := c.Prepare(ctx, o)
			if err != nil {
				c.Log.Warn(c.Trouble, "number", o.Number, "error", err)
				giveBack(o, Backoff(o.Attempts), err)
				continue
			}
			if held[account]++; held[account] > ahead {
				giveBack(o, aheadWait, errors.New("its account is busy"))
				continue
			}
			waiting = append(waiting, job{owed: o, account: account, do: do})
		}
		if len(owed) < claimOnce {
			return waiting, nil
		}
	}
}
