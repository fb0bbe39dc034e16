package connector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

// Queue sends deferred messages: those whose caller was answered once they were on disk, at once or at their time. Each is
// decided again at the moment of sending, and an opt-out ends what waits for its number when it comes. Messages to one
// number go one after the other, and an account that is throttled does not delay another.
//
// That an attempt is made is recorded before it is made. A crash in between leaves a send that may or may not have
// happened, which is called unknown and never repeated.
type Queue struct {
	Ledger   ledger.Ledger
	Gate     *Gate
	Accounts Accounts
	Log      *slog.Logger
	Now      func() time.Time

	mu      sync.Mutex
	refused map[phone.Number]bool // numbers that were opted out since what waits for them was looked at
}

const (
	queueWorkers = 16               // for each account
	queueTimeout = 15 * time.Minute // for one message, waits for a busy provider included
)

// Run sends what waits as it comes, until ctx ends; what is being sent then is sent to its end.
func (q *Queue) Run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	opted := make(chan struct{}, 1)
	defer q.Ledger.Watch(func(n phone.Number, d consent.Decision) {
		if d.Verdict != consent.Block {
			return
		}
		q.mu.Lock()
		if q.refused == nil {
			q.refused = map[phone.Number]bool{}
		}
		q.refused[n] = true
		q.mu.Unlock()
		select {
		case opted <- struct{}{}:
		default:
		}
	})()
	work.Go(func() {
		Every(ctx, time.Minute, opted, q.Log, "messages that wait for an opted-out number could not be ended", q.endRefused)
	})
	Every(ctx, time.Second, q.Ledger.OwedSignal(ledger.OweSend), q.Log, "queued messages could not be sent", q.Flush)
}

// Flush sends every message that waits and whose time has come.
func (q *Queue) Flush(ctx context.Context) error {
	return Crew{
		Ledger: q.Ledger, Kind: ledger.OweSend, PerAccount: queueWorkers, Trouble: "a queued message could not be sent yet", Log: q.Log, Now: q.Now,
		Prepare: func(ctx context.Context, o ledger.Owed) (string, func(context.Context) error, error) {
			m, err := q.opened(ctx, o)
			if err != nil {
				return "", nil, err
			}
			a, ok := q.Accounts.Find(m.Account)
			if !ok {
				return "", nil, errNoAccount // the account left the configuration; the message waits for it
			}
			return a.Name, func(ctx context.Context) error { return q.send(ctx, o, m, a) }, nil
		},
	}.Flush(ctx)
}

func (q *Queue) send(ctx context.Context, o ledger.Owed, m ledger.Message, a Account) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ledger.Exempt(m, q.Ledger.Decide(m.To)).Verdict == consent.Allow {
		// Before the attempt is recorded: whoever stops heed now stops a wait, not a send.
		if err := q.Gate.turn(ctx, a.Name, queueTimeout); err != nil {
			return err
		}
	}
	e := ledger.Event{Kind: ledger.KindStarted, ID: startID(m.ID), At: q.Now().UTC(), Number: o.Number, Started: &ledger.Started{Message: m.ID, Of: o.Of}}
	// Not with ctx: an attempt that is recorded must be made.
	r, err := q.Ledger.Append(context.WithoutCancel(ctx), e)
	if err != nil {
		return err
	}
	if r[0].Duplicate { // another process has begun, or it was taken back
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queueTimeout)
	defer cancel()
	q.Gate.dispatch(ctx, a, m)
	return nil
}

// endRefused ends what waits for numbers that were opted out. What it cannot end now is refused when its time comes.
func (q *Queue) endRefused(ctx context.Context) error {
	q.mu.Lock()
	numbers := q.refused
	q.refused = nil
	q.mu.Unlock()
	var failed error
	for n := range numbers {
		owed, err := q.Ledger.OwedOf(ctx, n)
		failed = errors.Join(failed, err)
		for _, o := range owed {
			if o.Kind != ledger.OweSend {
				continue
			}
			m, err := q.opened(ctx, o)
			d := ledger.Exempt(m, q.Ledger.Decide(n))
			if err == nil && d.Verdict == consent.Block {
				if _, err = q.Gate.endWaiting(ctx, m, o, ledger.Outcome{Status: ledger.StatusBlocked, Decision: d}); errors.Is(err, ErrStarted) {
					err = nil
				}
			}
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// opened returns the message that a piece of owed work is to send, as it was asked for.
func (q *Queue) opened(ctx context.Context, o ledger.Owed) (ledger.Message, error) {
	e, err := q.Ledger.Event(ctx, o.Number, o.Of)
	if err == nil && e.Opened == nil {
		err = fmt.Errorf("event %d is no message", o.Of)
	}
	if err != nil {
		return ledger.Message{}, err
	}
	m := *e.Opened
	m.Status = ledger.InitialStatus(m.Decision)
	return m, nil
}
