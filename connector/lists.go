package connector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/heed-sms/heed/connector/confirm"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms"
	"github.com/heed-sms/heed/sms/phone"
)

// Lists writes opt-outs that a provider did not see or did not understand to the provider's own list, where it has
// one, so that it also stops what does not go through heed. Like the boxes, it writes what the consent is at the
// moment of writing.
type Lists struct {
	Ledger   ledger.Ledger
	Accounts Accounts
	Log      *slog.Logger
	Now      func() time.Time
}

// Run does the work as it comes, until ctx ends.
func (l *Lists) Run(ctx context.Context) {
	Every(ctx, time.Second, l.Ledger.OwedSignal(ledger.OweTell), l.Log, "the provider's own list could not be written", l.Flush)
}

// Flush does all the work that may be done now.
func (l *Lists) Flush(ctx context.Context) error {
	for {
		owed, err := l.Ledger.Claim(ctx, ledger.OweTell, 100)
		if err != nil || len(owed) == 0 {
			return err
		}
		ready, err := l.afterAnswers(ctx, owed)
		if err == nil {
			err = l.tell(ctx, ready)
		}
		if err != nil {
			for _, o := range owed {
				err = errors.Join(err, l.Ledger.Return(ctx, o, l.Now().Add(Backoff(o.Attempts)), "interrupted"))
			}
			return err
		}
	}
}

// afterAnswers gives back what must wait: once the provider's list has a number, the provider refuses heed's own
// confirmation too.
func (l *Lists) afterAnswers(ctx context.Context, owed []ledger.Owed) (ready []ledger.Owed, err error) {
	if !slices.ContainsFunc(l.Accounts, func(a Account) bool { return a.Replies == confirm.ByHeed }) {
		return owed, nil
	}
	waiting := map[phone.Number]bool{}
	for _, o := range owed {
		of, err := l.Ledger.OwedOf(ctx, o.Number)
		if err != nil {
			return nil, err
		}
		waiting[o.Number] = slices.ContainsFunc(of, func(o ledger.Owed) bool { return o.Kind == ledger.OweAnswer })
	}
	for m, err := range l.Ledger.Messages(ctx, ledger.StatusQueued) { // its attempt is recorded, and may be on its way
		if err != nil {
			return nil, err
		}
		if m.Answers > 0 {
			waiting[m.To] = true
		}
	}
	for _, o := range owed {
		if !waiting[o.Number] {
			ready = append(ready, o)
		} else if err := l.Ledger.Return(ctx, o, l.Now().Add(time.Second), "the confirmation goes first"); err != nil {
			return nil, err
		}
	}
	return ready, nil
}

func (l *Lists) tell(ctx context.Context, owed []ledger.Owed) error {
	events := make([]ledger.Event, len(owed))
	skip := make([]bool, len(owed)) // nothing is told, and nothing is owed any more
	changes := make([]sms.Consent, len(owed))
	now := l.Now().UTC()
	for i, o := range owed {
		n, err := l.Ledger.Number(ctx, o.Number)
		if err != nil {
			return err
		}
		out := n.Facts.State() == consent.OptedOut
		// A list may hold a STOP of the recipient's own that heed never saw. So nothing but the recipient's START, which
		// came after every opt-out, takes a number off it; an undo by hand does not.
		if !out && !(n.Facts.StartAt.After(n.Facts.StopAt) && n.Facts.StartAt.After(n.Facts.OutAt)) {
			skip[i] = true
		}
		changes[i] = sms.Consent{Number: o.Number.String(), OptedOut: out, At: changedAt(n), ID: fmt.Sprintf("heed%d", o.Seq)}
		events[i] = ledger.Event{Kind: ledger.KindTold, At: now, Number: o.Number, Told: &ledger.Told{UpTo: o.Seq, Want: out}}
	}
	retry := make([]time.Duration, len(owed))
	for _, a := range l.Accounts {
		s, ok := a.Provider.(sms.OptOutSetter)
		if !ok {
			continue
		}
		var told []sms.Consent
		var of []int
		for i := range changes {
			if !skip[i] {
				told, of = append(told, changes[i]), append(of, i)
			}
		}
		if len(told) == 0 {
			continue
		}
		for k, err := range s.SetOptOuts(ctx, told) {
			i := of[k]
			res := ledger.ToldResult{Account: a.Name}
			var pe *sms.Error
			switch {
			case err == nil:
			case errors.Is(err, sms.ErrNoList):
				continue // no list after all: nothing is owed to it
			default:
				res.Class, res.Text = string(sms.ClassOf(err)), err.Error()
				if errors.As(err, &pe) {
					res.Code = pe.Code
				}
				if res.Class != string(sms.Rejected) {
					retry[i] = Backoff(owed[i].Attempts)
					if pe != nil {
						retry[i] = max(retry[i], pe.RetryAfter)
					}
				}
			}
			events[i].Told.Results = append(events[i].Told.Results, res)
		}
	}
	var settled []ledger.Event
	for i := range owed {
		// The consent may have changed while the provider was told: then it is told again.
		if now := l.Ledger.State(owed[i].Number) == consent.OptedOut; now != changes[i].OptedOut {
			retry[i] = max(retry[i], time.Millisecond)
		}
		taken := slices.ContainsFunc(events[i].Told.Results, func(r ledger.ToldResult) bool { return r.Class == "" })
		if retry[i] == 0 && (taken || !refusedAgain(owed[i], events[i])) {
			settled = append(settled, events[i])
		}
	}
	if len(settled) > 0 {
		if _, err := l.Ledger.Append(context.WithoutCancel(ctx), settled...); err != nil {
			return err
		}
	}
	for i, o := range owed {
		wait := retry[i]
		if retry[i] == 0 {
			wait = parkedWait // refused for good; where it was taken, the event has settled the work
		}
		if err := l.Ledger.Return(ctx, o, now.Add(wait), "the provider did not take it"); err != nil {
			return err
		}
	}
	return nil
}
