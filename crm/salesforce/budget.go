package salesforce

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/heed-sms/heed/crm"
)

// An organisation shares one allocation of API calls for rolling 24 hours among all of its integrations, and each answer
// says how much of it is used (REST API Developer Guide, "Limit Info Header"). As it runs out, heed gives up in this order:
// who unticked a box, which only a report tells; reading; and writing boxes last, when Salesforce itself refuses.

// urgency is what a call is for.
type urgency int

const (
	reading   urgency = iota // what is said of no call
	reporting                // the history of boxes, notes on records
	writing                  // boxes
	probing                  // heed check: is let through always
)

type urgencyKey struct{}

func as(ctx context.Context, u urgency) context.Context {
	return context.WithValue(ctx, urgencyKey{}, u)
}

// BudgetCode is the Code of the *crm.Error with which heed itself holds a call back, to leave the organisation's API calls
// for opt-outs. Its class is RetryLater.
const BudgetCode = "API_BUDGET"

const (
	defaultBudget = 90
	reportMargin  = 10               // per cent by which reports give up before reads
	usageLife     = 15 * time.Minute // how long a count is believed: without calls of its own heed would never learn of a better one
	probeEvery    = time.Minute      // between calls by which writes find out whether the allocation has come back
)

// limits is what is known of the allocation.
type limits struct {
	mu     sync.Mutex
	used   int
	max    int // 0 before the first answer
	asOf   time.Time
	until  time.Time // Salesforce refuses everything before this, probably
	probe  time.Time // and a write may look whether it still does
	refuse *crm.Error
}

// APIUsage returns how many API calls the organisation has used of its allocation for 24 hours, all clients together,
// as the latest answer said; 0, 0 before the first answer.
func (o *Org) APIUsage() (used, max int) {
	o.limits.mu.Lock()
	defer o.limits.mu.Unlock()
	return o.limits.used, o.limits.max
}

// budget is the per cent of the allocation from which on nothing is read any more.
func (o *Org) budget() int {
	if o.config.APIBudget == 0 {
		return defaultBudget
	}
	return o.config.APIBudget
}

// allow returns nil, or why the call must wait.
func (o *Org) allow(ctx context.Context) *crm.Error {
	u, _ := ctx.Value(urgencyKey{}).(urgency)
	if u == probing {
		return nil
	}
	l, now := &o.limits, o.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.until) {
		if u == writing && !now.Before(l.probe) {
			l.probe = now.Add(probeEvery)
			return nil
		}
		e := *l.refuse
		if e.RetryAfter = l.until.Sub(now); u == writing {
			e.RetryAfter = l.probe.Sub(now)
		}
		return &e
	}
	from := o.budget()
	if u == reporting {
		from -= reportMargin
	}
	if u == writing || l.max == 0 || now.Sub(l.asOf) >= usageLife || l.used*100 < l.max*from {
		return nil
	}
	// The text does not change with each call: a report says the same once.
	return &crm.Error{Class: crm.RetryLater, Code: BudgetCode, RetryAfter: usageLife, Text: fmt.Sprintf(
		"of the organisation's %d API calls of 24 hours more than %d %% are used; the rest is kept for opt-outs (api_budget), and nothing is read until there are more", l.max, from)}
}

// learn takes in what an answer says of the allocation.
func (o *Org) learn(info string) {
	used, max, ok := parseUsage(info)
	if !ok {
		return
	}
	o.limits.mu.Lock()
	defer o.limits.mu.Unlock()
	before, over := o.limits.max > 0 && o.limits.used*100 >= o.limits.max*o.budget(), used*100 >= max*o.budget()
	o.limits.used, o.limits.max, o.limits.asOf = used, max, o.now()
	if over && !before {
		o.log.Warn("salesforce: the organisation's API calls run out; only boxes are written", "used", used, "of", max, "api_budget", o.budget())
	}
}

// exhausted notes that Salesforce refuses calls for their number, and says to the caller when to try again. told: the time
// is Salesforce's own word.
func (o *Org) exhausted(ctx context.Context, e *crm.Error, told bool) {
	u, _ := ctx.Value(urgencyKey{}).(urgency)
	probe := e.RetryAfter
	if !told {
		probe = min(probe, probeEvery)
	}
	now, kept := o.now(), *e
	o.limits.mu.Lock()
	defer o.limits.mu.Unlock()
	o.limits.refuse, o.limits.until, o.limits.probe = &kept, now.Add(e.RetryAfter), now.Add(probe)
	if u == writing {
		e.RetryAfter = probe
	}
}

// answered notes that Salesforce takes calls.
func (o *Org) answered() {
	o.limits.mu.Lock()
	defer o.limits.mu.Unlock()
	o.limits.until = time.Time{}
}
