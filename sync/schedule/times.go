package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Times are the slots of a specification in a zone.
type Times struct {
	elapsed cron.Schedule      // for jobs that run in every hour: in elapsed time
	wall    *cron.SpecSchedule // for jobs that name their hours: on a clock that knows no changes
	every   bool
	zone    *time.Location
}

// Parse reads the five fields of crontab(5) (minute, hour, day of month, month, day of week), or a descriptor: @hourly,
// @daily, @weekly, @monthly, @yearly, or "@every 90s" with at least a second. The zone is not part of the specification.
func Parse(spec string, zone *time.Location) (Times, error) {
	spec = strings.TrimSpace(spec)
	if strings.HasPrefix(spec, "TZ=") || strings.HasPrefix(spec, "CRON_TZ=") {
		return Times{}, fmt.Errorf("specification %q names a zone: the time zone is a setting of its own", spec)
	}
	parsed, err := cron.ParseStandard(spec)
	if err != nil {
		return Times{}, fmt.Errorf("specification %q: %w", spec, err)
	}
	t := Times{zone: zone}
	switch c := parsed.(type) {
	case *cron.SpecSchedule:
		const everyHour = 1<<24 - 1
		if c.Hour&everyHour == everyHour {
			c.Location = zone
			t.elapsed = c
		} else {
			c.Location = time.UTC
			t.wall = c
		}
	default:
		if d, err := time.ParseDuration(strings.TrimSpace(strings.TrimPrefix(spec, "@every"))); err != nil || d < time.Second {
			return Times{}, fmt.Errorf("specification %q: the interval must be at least one second", spec)
		}
		t.elapsed, t.every = c, true
	}
	if t.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Times{}, fmt.Errorf("specification %q: %w", spec, errNever)
	}
	return t, nil
}

var errNever = errors.New("no date matches it")

// interval reports whether the slots count from the last one and not from the clock ("@every").
func (t Times) interval() bool { return t.every }

// Next returns the first slot after a time.
func (t Times) Next(after time.Time) time.Time {
	if t.wall == nil {
		return t.elapsed.Next(after.In(t.zone))
	}
	// The fields are matched on the wall clock's digits, read as if they were UTC. Two digits can mean the same moment
	// (all of the skipped hour do) and lie behind (the repeated hour's), hence the loop.
	for c := t.wall.Next(digits(after.In(t.zone))); !c.IsZero(); c = t.wall.Next(c) {
		if m := moment(c, t.zone); m.After(after) {
			return m
		}
	}
	return time.Time{}
}

// latest returns the last slot up to now, given that there is one after last.
func (t Times) latest(last, now time.Time) time.Time {
	if t.every {
		return now
	}
	// Look back further and further until there is a slot, so that years of downtime cost nothing.
	slot := now
	for back := time.Minute; ; back *= 2 {
		if from := now.Add(-back); from.Before(last) || back > 1<<40*time.Microsecond {
			slot = t.Next(last)
			break
		} else if slot = t.Next(from); !slot.After(now) {
			break
		}
	}
	for {
		next := t.Next(slot)
		if next.IsZero() || next.After(now) {
			return slot
		}
		slot = next
	}
}

// digits returns what the wall clock shows, as if it were UTC.
func digits(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// moment returns when a zone's clock shows the digits: the first time if it does so twice, and the moment at which the
// clock is put forward if it never does.
func moment(c time.Time, zone *time.Location) time.Time {
	offset := func(around time.Time) time.Duration {
		_, s := around.In(zone).Zone()
		return time.Duration(s) * time.Second
	}
	// Changes of a zone's offset are weeks apart: a day before and a day after, one is in force each.
	byOld := c.Add(-offset(c.Add(-24 * time.Hour))).In(zone)
	byNew := c.Add(-offset(c.Add(24 * time.Hour))).In(zone)
	first, second := byOld, byNew
	if second.Before(first) {
		first, second = second, first
	}
	switch {
	case digits(first).Equal(c):
		return first
	case digits(second).Equal(c):
		return second
	}
	change, _ := second.ZoneBounds()
	return change
}
