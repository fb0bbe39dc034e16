package evidence

import (
	"cmp"
	"slices"
	"time"
)

// offset is a stretch of time in which a zone's clocks do not change. A packet carries those that it needs, because the
// summary must come out the same on a machine that knows other rules, or none.
type offset struct {
	From    time.Time `json:"from,omitzero"`
	Until   time.Time `json:"until,omitzero"`
	Seconds int       `json:"seconds"` // east of UTC
	Name    string    `json:"name"`
}

// zoneTimes collects the offsets for the times that are added.
type zoneTimes struct {
	zone *time.Location
	all  []offset
}

func (z *zoneTimes) add(t time.Time) {
	if z.zone == time.UTC {
		return
	}
	if _, ok := localTime(z.all, t); ok {
		return
	}
	t = t.In(z.zone)
	from, until := t.ZoneBounds()
	name, seconds := t.Zone()
	o := offset{Seconds: seconds, Name: name}
	if !from.IsZero() {
		o.From = from.UTC()
	}
	if !until.IsZero() {
		o.Until = until.UTC()
	}
	z.all = append(z.all, o)
}

func (z *zoneTimes) offsets() []offset {
	slices.SortFunc(z.all, func(a, b offset) int { return cmp.Compare(a.From.Unix(), b.From.Unix()) })
	return z.all
}

// localTime returns a time by the clocks of a zone, if its offset then is known.
func localTime(all []offset, t time.Time) (string, bool) {
	for _, o := range all {
		if !t.Before(o.From) && (o.Until.IsZero() || t.Before(o.Until)) {
			return t.In(time.FixedZone(o.Name, o.Seconds)).Format("2006-01-02 15:04:05 MST"), true
		}
	}
	return "", false
}
