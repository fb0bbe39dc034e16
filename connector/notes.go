package connector

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
)

// Notes leaves the outcome of a send on the CRM record that it was for, where the way in asked for that. Like the boxes,
// it writes what is true at the moment of writing.
type Notes struct {
	Ledger ledger.Ledger
	CRMs   []CRM
	Log    *slog.Logger
	Now    func() time.Time
}

// Run does the work as it comes, until ctx ends.
func (n *Notes) Run(ctx context.Context) {
	Every(ctx, time.Second, n.Ledger.OwedSignal(ledger.OweNote), n.Log, "outcomes of sends could not be left on records", n.Flush)
}

// Flush does all the work that may be done now.
func (n *Notes) Flush(ctx context.Context) error {
	for {
		owed, err := n.Ledger.Claim(ctx, ledger.OweNote, claimSize)
		if err != nil || len(owed) == 0 {
			return err
		}
		byCRM := map[string][]note{}
		for _, o := range owed {
			m, err := n.message(ctx, o)
			if err == nil {
				byCRM[m.WriteBack.CRM] = append(byCRM[m.WriteBack.CRM], note{o, m})
				continue
			}
			if err := n.Ledger.Return(ctx, o, n.Now().Add(Backoff(o.Attempts)), err.Error()); err != nil {
				return err
			}
		}
		for name, notes := range byCRM {
			if err := n.write(ctx, name, notes); err != nil {
				return err
			}
		}
	}
}

type note struct {
	owed    ledger.Owed
	message ledger.Message
}

func (n *Notes) message(ctx context.Context, o ledger.Owed) (ledger.Message, error) {
	e, err := n.Ledger.Event(ctx, o.Number, o.Of)
	if err != nil {
		return ledger.Message{}, err
	}
	if e.Opened == nil || e.Opened.WriteBack == nil || e.Opened.Record == nil {
		return ledger.Message{}, errors.New("the message names no record and field")
	}
	return n.Ledger.Message(ctx, e.Opened.ID)
}

// write leaves notes in one CRM and records what came of each.
func (n *Notes) write(ctx context.Context, name string, notes []note) error {
	now := n.Now().UTC()
	var annotator crm.Annotator
	for _, c := range n.CRMs {
		if a, ok := c.Directory.(crm.Annotator); ok && c.Name == name {
			annotator = a
		}
	}
	var events []ledger.Event
	waits, why := make([]time.Duration, len(notes)), make([]string, len(notes))
	var results []crm.Result
	if annotator != nil {
		asked := make([]crm.Note, len(notes))
		for i, x := range notes {
			asked[i] = crm.Note{Key: *x.message.Record, Field: x.message.WriteBack.Field, Text: OutcomeNote(x.message)}
		}
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		results = annotator.Annotate(ctx, asked)
		cancel()
	}
	for i, x := range notes {
		noted := &ledger.Noted{Message: x.message.ID, Of: x.owed.Of, UpTo: x.owed.Seq, Note: OutcomeNote(x.message)}
		wait := parkedWait
		switch {
		case annotator == nil:
			noted.Class, noted.Text = string(crm.Park), "no CRM of this name takes notes; outbound_messages: names it"
		case results[i].Err != nil:
			noted.Class = string(crm.ClassOf(results[i].Err))
			var ce *crm.Error
			if errors.As(results[i].Err, &ce) {
				noted.Text = ce.Text
			}
			if c := crm.Class(noted.Class); c == crm.RetryNow || c == crm.RetryLater {
				wait = Backoff(x.owed.Attempts)
				if ce != nil {
					wait = max(wait, ce.RetryAfter)
				}
			}
		}
		if e := (ledger.Event{Kind: ledger.KindNoted, At: now, Number: x.owed.Number, Noted: noted}); wait == parkedWait && !refusedAgain(x.owed, e) {
			events = append(events, e)
		}
		waits[i], why[i] = wait, noted.Text
	}
	var failed error
	if len(events) > 0 {
		_, failed = n.Ledger.Append(context.WithoutCancel(ctx), events...)
	}
	for i, x := range notes { // where it was written, or the record is gone, the event has settled the work
		failed = errors.Join(failed, n.Ledger.Return(ctx, x.owed, now.Add(waits[i]), why[i]))
	}
	return failed
}

// OutcomeNote says in one line what became of a message: a status, why, and when, in UTC. It holds no number and no text.
func OutcomeNote(m ledger.Message) string {
	s := string(m.Status)
	switch {
	case m.Code == CodeCanceled:
		s = CodeCanceled
	case m.Status == ledger.StatusBlocked || m.Status == ledger.StatusHeld:
		s += ": " + string(m.Decision.Reason)
	case m.Status == ledger.StatusFailed && m.Code != "":
		s += ": " + m.Code
	case m.Status == ledger.StatusSent && m.Delivery != "":
		s = m.Delivery
	}
	at := m.UpdatedAt
	if at.IsZero() {
		at = m.CreatedAt
	}
	return s + " " + at.UTC().Format("2006-01-02 15:04 UTC")
}
