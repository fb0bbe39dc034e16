package connector

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

// Queue sends deferred messages: those whose caller was answered once they were on disk. Each is decided again at the
// moment of sending, so a STOP that comes while it waits blocks it. Messages to one number go one after the other.
//
// That an attempt is made is recorded before it is made. A crash in between leaves a send that may or may not have
// happened, which is called unknown and never repeated.
type Queue struct {
	Ledger   ledger.Ledger
	Gate     *Gate
	Accounts Accounts
	Log      *slog.Logger
	Now      func() time.Time
}

const (
	queueWorkers = 16
	queueTimeout = 15 * time.Minute // for one message, waits for a busy provider included
)

// Run sends what waits as it comes, until ctx ends; what is being sent then is sent to its end.
func (q *Queue) Run(ctx context.Context) {
	every(ctx, time.Second, q.Ledger.OwedSignal(ledger.OweSend), q.Log, "queued messages could not be sent", q.Flush)
}

// Flush sends every message that waits.
func (q *Queue) Flush(ctx context.Context) error {
	for {
		owed, err := q.Ledger.Claim(ctx, ledger.OweSend, 256)
		if err != nil || len(owed) == 0 {
			return err
		}
		byNumber := map[phone.Number][]ledger.Owed{}
		for _, o := range owed {
			byNumber[o.Number] = append(byNumber[o.Number], o)
		}
		var work errgroup.Group
		work.SetLimit(queueWorkers)
		for _, list := range byNumber {
			work.Go(func() error {
				for _, o := range list {
					if err := q.send(ctx, o); err != nil {
						q.Log.Warn("a queued message could not be sent yet", "number", o.Number, "error", err)
						if err := q.Ledger.Return(ctx, o, q.Now().Add(backoff(o.Attempts)), err.Error()); err != nil {
							return err
						}
					}
				}
				return nil
			})
		}
		if err := work.Wait(); err != nil {
			return err
		}
	}
}

func (q *Queue) send(ctx context.Context, o ledger.Owed) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m, err := q.opened(ctx, o)
	if err != nil {
		return err
	}
	a, ok := q.Accounts.Find(m.Account)
	if !ok {
		return errNoAccount // the account left the configuration; the message waits for it
	}
	if ledger.Exempt(m, q.Ledger.Decide(m.To)).Verdict == consent.Allow {
		// Before the attempt is recorded: whoever stops heed now stops a wait, not a send.
		if err := q.Gate.turn(ctx, a.Name, queueTimeout); err != nil {
			return err
		}
	}
	e := ledger.Event{Kind: ledger.KindStarted, ID: "start/" + m.ID, At: q.Now().UTC(), Number: o.Number, Started: &ledger.Started{Message: m.ID, Of: o.Of}}
	// Not with ctx: an attempt that is recorded must be made.
	r, err := q.Ledger.Append(context.WithoutCancel(ctx), e)
	if err != nil {
		return err
	}
	if r[0].Duplicate { // another process has begun
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queueTimeout)
	defer cancel()
	q.Gate.dispatch(ctx, a, m)
	return nil
}

func (q *Queue) opened(ctx context.Context, o ledger.Owed) (ledger.Message, error) {
	for e, err := range q.Ledger.History(ctx, o.Number) {
		if err != nil {
			return ledger.Message{}, err
		}
		if e.Seq == o.Of && e.Opened != nil {
			m := *e.Opened
			m.Status = ledger.InitialStatus(m.Decision)
			return m, nil
		}
	}
	return ledger.Message{}, ledger.ErrNotFound
}
