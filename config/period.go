package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Period is a length of time, written either in business days ("5d") or as a Go duration ("36h", "90s").
// Business days are Monday to Friday; public holidays count as business days, which ends a period early rather
// than late.
type Period struct {
	Days     int           // business days; 0 if the period is a Duration
	Duration time.Duration // 0 if the period is in business days
}

// maxDays keeps arithmetic on dates far from overflow.
const maxDays = 366

var errPeriod = errors.New(`want business days such as "5d", or hours, minutes and seconds such as "36h"`)

// ParsePeriod reads a period. It must be longer than nothing, and at most 366 days.
func ParsePeriod(s string) (Period, error) {
	var p Period
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return Period{}, errPeriod
		}
		p.Days = int(n)
	} else {
		d, err := time.ParseDuration(s)
		if err != nil {
			return Period{}, errPeriod
		}
		p.Duration = d
	}
	switch {
	case p.Days == 0 && p.Duration <= 0:
		return Period{}, errors.New("must be longer than nothing")
	case p.Days > maxDays, p.Duration > maxDays*24*time.Hour:
		return Period{}, fmt.Errorf("must be at most %d days", maxDays)
	}
	return p, nil
}

// After returns when a period that starts at t is over. Business days are those of t's location: five of them from
// a Wednesday end at the same time of day on the next Wednesday; from a Saturday, on Friday.
func (p Period) After(t time.Time) time.Time {
	t = t.Add(p.Duration)
	for left := p.Days; left > 0; {
		t = t.AddDate(0, 0, 1)
		if d := t.Weekday(); d != time.Saturday && d != time.Sunday {
			left--
		}
	}
	return t
}

// String returns what [ParsePeriod] reads.
func (p Period) String() string {
	if p.Days > 0 {
		return strconv.Itoa(p.Days) + "d"
	}
	return p.Duration.String()
}

// MarshalText returns String.
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParsePeriod.
func (p *Period) UnmarshalText(b []byte) error {
	v, err := ParsePeriod(string(b))
	if err == nil {
		*p = v
	}
	return err
}
