package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// learned counts what a pass learned from the providers' logs.
type learned struct {
	Recovered int            `json:"recovered,omitempty"` // messages that no webhook had brought …
	Missed    map[string]int `json:"missed,omitempty"`    // … and whose webhook should have come, by account
	Settled   int            `json:"settled,omitempty"`   // sends whose outcome was not known
}

func (t *learned) recover(account string, missed bool) {
	t.Recovered++
	if missed {
		if t.Missed == nil {
			t.Missed = map[string]int{}
		}
		t.Missed[account]++
	}
}

// recount puts into the report what the pass learned from the providers' logs. The ledger knows that better than this run
// if an earlier part of the pass was interrupted: what that recorded is not found a second time.
func (p *pass) recount(ctx context.Context) error {
	if p.recorded {
		p.learned = p.kept.Learned // before its beginning was recorded
		p.learned.Missed = maps.Clone(p.learned.Missed)
		for e, err := range p.Ledger.Events(ctx, p.from) {
			switch {
			case err != nil:
				return err
			case e.Inbound != nil && e.Inbound.Pass == p.pass.ID:
				p.learned.recover(e.Inbound.Account, e.Inbound.Missed)
			case e.Status != nil && e.Status.Pass == p.pass.ID:
				p.learned.Settled++
			}
		}
	}
	p.count("inbound_recovered", p.learned.Recovered)
	p.count("sends_settled", p.learned.Settled)
	for _, account := range slices.Sorted(maps.Keys(p.learned.Missed)) {
		p.pass.Notes = append(p.pass.Notes, fmt.Sprintf("%s: %d of the %d messages read came by no webhook. Was heed down, or is the webhook address at the provider another one?",
			account, p.learned.Missed[account], p.read[account]))
	}
	return nil
}
