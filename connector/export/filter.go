package export

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
)

// Filter is what people narrow the list to, as they write it: in the address of a page and behind a command's flags.
// An empty field selects all.
type Filter struct {
	State    string // a state, or "all"; empty for opted_out and held
	Source   string
	Ends     string // the last digits of a number
	From, To string // days, both included, as 2026-11-30
	Campaign string
}

// FilterError says which part of a filter cannot be understood.
type FilterError struct {
	Field string // as in the query of an address
	Text  string // a sentence, for people
}

func (e *FilterError) Error() string { return e.Field + ": " + e.Text }

// ReadFilter reads a filter from the query of an address.
func ReadFilter(q url.Values) Filter {
	f := Filter{State: q.Get("state"), Source: q.Get("source"), From: q.Get("from"), To: q.Get("to"), Campaign: strings.TrimSpace(q.Get("campaign"))}
	f.Ends = strings.Map(func(r rune) rune {
		if strings.ContainsRune(" ()-.+", r) {
			return -1
		}
		return r
	}, q.Get("ends"))
	return f
}

// Values is the inverse of ReadFilter.
func (f Filter) Values() url.Values {
	v := url.Values{}
	for name, x := range map[string]string{"state": f.State, "source": f.Source, "ends": f.Ends, "from": f.From, "to": f.To, "campaign": f.Campaign} {
		if x != "" {
			v.Set(name, x)
		}
	}
	return v
}

var (
	digits = regexp.MustCompile(`^[0-9]{0,15}$`)
	// Sources are the sources that an opt-out can have.
	Sources = []consent.Source{consent.Recipient, consent.Provider, consent.CRM, consent.Admin, consent.API, consent.Deadline}
	// States are the states that the list can be narrowed to.
	States = []consent.State{consent.OptedOut, consent.Held, consent.OptedIn, consent.Pending}
)

// Query returns the filter as the ledger understands it: days are those of zone, and window is how long after a campaign's
// message an opt-out is attributed to it. Errors are of type *FilterError.
func (f Filter) Query(zone *time.Location, window time.Duration) (ledger.Query, error) {
	q := ledger.Query{Ends: f.Ends, Campaign: f.Campaign, Window: window}
	if !digits.MatchString(f.Ends) {
		return q, &FilterError{"ends", "The last digits of a number are digits."}
	}
	switch f.State {
	case "":
		q.States = []consent.State{consent.OptedOut, consent.Held}
	case "all":
	default:
		for _, s := range States {
			if s.String() == f.State {
				q.States = []consent.State{s}
			}
		}
		if q.States == nil {
			return q, &FilterError{"state", "There is no such state: want opted_out, held, opted_in, pending or all."}
		}
	}
	if f.Source != "" {
		for _, s := range Sources {
			if string(s) == f.Source {
				q.Sources = []consent.Source{s}
			}
		}
		if q.Sources == nil {
			return q, &FilterError{"source", "There is no such source: want recipient, provider, crm, admin, api or deadline."}
		}
	}
	for _, d := range []struct {
		field, in string
		at        *time.Time
		days      int
	}{{"from", f.From, &q.Since, 0}, {"to", f.To, &q.Until, 1}} {
		if d.in == "" {
			continue
		}
		t, err := time.ParseInLocation(time.DateOnly, d.in, zone)
		if err != nil {
			return q, &FilterError{d.field, fmt.Sprintf("%.20q is no day: it is written as 2026-11-30.", d.in)}
		}
		*d.at = t.AddDate(0, 0, d.days)
	}
	return q, nil
}
