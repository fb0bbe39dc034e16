package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

	"go.uber.org/goleak"

	"github.com/heed-sms/heed/sync/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

const stamp = "2006-01-02 15:04 MST"

func TestSlotsFollowTheClockOnTheWall(t *testing.T) {
	// America/New_York: 2026-03-08 has 23 hours (02:00 EST → 03:00 EDT), 2026-11-01 has 25 (02:00 EDT → 01:00 EST).
	for _, c := range []struct {
		name, spec, zone, after string
		want                    []string
	}{
		{"an ordinary night", "0 2 * * *", "America/New_York", "2026-01-05T12:00:00Z", []string{"2026-01-06 02:00 EST", "2026-01-07 02:00 EST"}},
		{"a time that is skipped runs when the clock is put forward", "30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z",
			[]string{"2026-03-08 03:00 EDT", "2026-03-09 02:30 EDT"}},
		{"the first moment of the skipped hour", "0 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", []string{"2026-03-08 03:00 EDT", "2026-03-09 02:00 EDT"}},
		{"several skipped times are one", "*/20 2,3 * * *", "America/New_York", "2026-03-08T06:30:00Z", []string{"2026-03-08 03:00 EDT", "2026-03-08 03:20 EDT"}},
		{"a time that is repeated runs the first time only", "30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z",
			[]string{"2026-11-01 01:30 EDT", "2026-11-02 01:30 EST"}},
		{"from within the repeated hour its slots are past", "30 1 * * *", "America/New_York", "2026-11-01T06:10:00Z", []string{"2026-11-02 01:30 EST"}},
		{"two o'clock in the long night comes once", "0 2 * * *", "America/New_York", "2026-10-31T12:00:00Z", []string{"2026-11-01 02:00 EST", "2026-11-02 02:00 EST"}},
		{"every hour goes on through the repeated hour", "0 * * * *", "America/New_York", "2026-11-01T04:30:00Z",
			[]string{"2026-11-01 01:00 EDT", "2026-11-01 01:00 EST", "2026-11-01 02:00 EST"}},
		{"every hour goes on through the skipped hour", "0 * * * *", "America/New_York", "2026-03-08T05:30:00Z",
			[]string{"2026-03-08 01:00 EST", "2026-03-08 03:00 EDT"}},
		{"midnight that is skipped", "0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", []string{"2026-09-06 01:00 -03", "2026-09-07 00:00 -03"}},
		{"a change of half an hour", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", []string{"2026-10-04 02:30 +11", "2026-10-05 02:15 +11"}},
		{"the end of the month that a month does not have", "0 2 31 * *", "UTC", "2026-01-31T02:00:00Z", []string{"2026-03-31 02:00 UTC", "2026-05-31 02:00 UTC"}},
		{"the leap day", "0 2 29 2 *", "UTC", "2026-01-01T00:00:00Z", []string{"2028-02-29 02:00 UTC"}},
		{"the turn of the year", "@daily", "Europe/Berlin", "2026-12-31T12:00:00Z", []string{"2027-01-01 00:00 CET"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			z := zone(t, c.zone)
			times, err := schedule.Parse(c.spec, z)
			if err != nil {
				t.Fatal(err)
			}
			at, err := time.Parse(time.RFC3339, c.after)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				at = times.Next(at)
				if got := at.In(z).Format(stamp); got != want {
					t.Fatalf("slot %s, want %s", got, want)
				}
			}
		})
	}
}

func TestEveryDayOfTwoYearsHasItsSlotOnce(t *testing.T) {
	for _, name := range []string{"America/New_York", "Europe/London", "America/Santiago", "Australia/Lord_Howe", "Asia/Kolkata"} {
		z := zone(t, name)
		for _, spec := range []string{"0 0 * * *", "30 1 * * *", "0 2 * * *", "30 2 * * *", "0 3 * * *"} {
			times, err := schedule.Parse(spec, z)
			if err != nil {
				t.Fatal(err)
			}
			at := time.Date(2026, 1, 1, 12, 0, 0, 0, z)
			for day := range 730 {
				at = times.Next(at)
				if want := time.Date(2026, 1, 2+day, 12, 0, 0, 0, z); at.YearDay() != want.YearDay() || at.Year() != want.Year() {
					t.Fatalf("%s %q: slot %s, want one on %s", name, spec, at, want.Format(time.DateOnly))
				}
			}
		}
	}
}

func TestSpecificationsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, spec := range []string{"", "0 2 * *", "0 2 30 2 *", "61 * * * *", "@every 10ms", "@every -1h", "@every", "@noon", "TZ=UTC", "CRON_TZ=UTC 0 2 * * *"} {
		if _, err := schedule.Parse(spec, time.UTC); err == nil {
			t.Errorf("%q was taken", spec)
		}
	}
	run := func(context.Context) error { return nil }
	for name, jobs := range map[string][]schedule.Job{
		"no name":        {{Spec: "@daily", Run: run}},
		"the same name":  {{Name: "a", Spec: "@daily", Run: run}, {Name: "a", Spec: "@daily", Run: run}},
		"nothing to run": {{Name: "a", Spec: "@daily"}},
		"a broken spec":  {{Name: "a", Spec: "x", Run: run}},
	} {
		if _, err := schedule.New(schedule.Options{Cursors: &store{}}, jobs...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// store keeps checkpoints in memory.
type store struct {
	mu   sync.Mutex
	m    map[string]string
	fail error
}

func (s *store) Cursor(_ context.Context, name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[name], s.fail
}

func (s *store) SetCursor(_ context.Context, name, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]string{}
	}
	s.m[name] = value
	return s.fail
}

// diary notes when a job ran.
type diary struct {
	mu   sync.Mutex
	runs []string
	zone *time.Location
	now  func() time.Time
}

func (d *diary) run(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runs = append(d.runs, d.now().In(d.zone).Format(stamp))
	return nil
}

func (d *diary) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.runs
	d.runs = nil
	return out
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("ran at %v, want %v", got, want)
	}
}

// at lets the bubble's clock reach a moment.
func at(year int, month time.Month, day, hour, minute int, z *time.Location) {
	time.Sleep(time.Until(time.Date(year, month, day, hour, minute, 0, 0, z)))
	synctest.Wait()
}

// world runs schedulers over one store.
type world struct {
	t     *testing.T
	store store
	zone  *time.Location
	now   func() time.Time
	log   *slog.Logger
	s     *schedule.Scheduler
	stop  func()
}

func (w *world) start(jobs ...schedule.Job) {
	w.t.Helper()
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	s, err := schedule.New(schedule.Options{Zone: w.zone, Cursors: &w.store, Log: w.log, Now: w.now}, jobs...)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	w.s = s
	w.stop = func() { cancel(); <-done }
	synctest.Wait()
}

func TestANightlyJobRunsOnceANightThroughBothChangesOfTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := zone(t, "America/New_York")
		w := &world{t: t, zone: z}
		d := &diary{zone: z, now: time.Now}
		at(2026, 3, 6, 12, 0, z)
		w.start(schedule.Job{Name: "nightly", Spec: "30 2 * * *", Run: d.run})
		same(t, d.take()) // the first start waits for the first slot
		if next, ok := w.s.Next("nightly"); !ok || next.In(z).Format(stamp) != "2026-03-07 02:30 EST" {
			t.Fatalf("next %v %v", next, ok)
		}
		at(2026, 3, 9, 12, 0, z)
		same(t, d.take(), "2026-03-07 02:30 EST", "2026-03-08 03:00 EDT", "2026-03-09 02:30 EDT")
		w.stop()
		at(2026, 10, 31, 12, 0, z)
		w.start(schedule.Job{Name: "nightly", Spec: "30 1 * * *", Run: d.run})
		same(t, d.take(), "2026-10-31 12:00 EDT") // seven months down: one run
		at(2026, 11, 2, 12, 0, z)
		same(t, d.take(), "2026-11-01 01:30 EDT", "2026-11-02 01:30 EST")
		w.stop()
	})
}

func TestASlotMissedWhileDownRunsOnceAtTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, zone: time.UTC}
		d := &diary{zone: time.UTC, now: time.Now}
		job := schedule.Job{Name: "nightly", Spec: "0 2 * * *", Run: d.run}
		at(2026, 5, 1, 12, 0, time.UTC)
		w.start(job)
		w.stop() // stopped before its first slot ever
		at(2026, 5, 4, 9, 0, time.UTC)
		w.start(job)
		same(t, d.take(), "2026-05-04 09:00 UTC")
		w.stop()
		w.start(job)
		same(t, d.take()) // and not again
		at(2026, 5, 5, 9, 0, time.UTC)
		same(t, d.take(), "2026-05-05 02:00 UTC")
		w.stop()
	})
}

// A restart in a night in which the clock changes neither loses its slot nor makes it twice.
func TestANightOfARestartAndAChangedClockHasOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := zone(t, "America/New_York")
		w := &world{t: t, zone: z}
		d := &diary{zone: z, now: time.Now}
		early, late := schedule.Job{Name: "nightly", Spec: "30 1 * * *", Run: d.run}, schedule.Job{Name: "late", Spec: "30 2 * * *", Run: d.run}
		// Spring: down from before the skipped hour until after it.
		at(2026, 3, 7, 12, 0, z)
		w.start(late)
		w.stop()
		at(2026, 3, 8, 5, 0, z)
		w.start(late)
		same(t, d.take(), "2026-03-08 05:00 EDT")
		at(2026, 3, 9, 12, 0, z)
		same(t, d.take(), "2026-03-09 02:30 EDT")
		w.stop()
		// Autumn: the job runs at 01:30 of summer time, and heed starts again before it is 01:30 once more.
		at(2026, 10, 31, 12, 0, z)
		w.start(early)
		same(t, d.take())
		first := time.Date(2026, 11, 1, 5, 45, 0, 0, time.UTC) // 01:45 EDT
		at(2026, 11, 1, 5, 45, time.UTC)
		same(t, d.take(), "2026-11-01 01:30 EDT")
		w.stop()
		w.start(early)
		time.Sleep(time.Until(first.Add(3 * time.Hour)))
		synctest.Wait()
		same(t, d.take()) // 01:30 EST went by
		// And if it was down both times, it runs once afterwards.
		w.stop()
		w.store.m["slot/nightly"] = "2026-10-31T05:30:00Z"
		w.start(early)
		same(t, d.take(), "2026-11-01 03:45 EST")
		at(2026, 11, 2, 12, 0, z)
		same(t, d.take(), "2026-11-02 01:30 EST")
		w.stop()
	})
}

// "The 31st" is a day of the months that have one, whatever heed did in between.
func TestMonthEndsOnTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := zone(t, "Europe/Berlin")
		w := &world{t: t, zone: z}
		d := &diary{zone: z, now: time.Now}
		job := schedule.Job{Name: "monthly", Spec: "0 2 31 * *", Run: d.run}
		at(2027, 1, 30, 12, 0, z)
		w.start(job)
		at(2027, 3, 30, 12, 0, z)
		same(t, d.take(), "2027-01-31 02:00 CET")
		w.stop()
		at(2027, 4, 15, 9, 0, z) // down over the 31st of March
		w.start(job)
		same(t, d.take(), "2027-04-15 09:00 CEST")
		at(2027, 6, 1, 0, 0, z)
		same(t, d.take(), "2027-05-31 02:00 CEST")
		w.stop()
	})
}

func TestAnIntervalStartsAtOnceAndMakesNoBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, zone: time.UTC}
		d := &diary{zone: time.UTC, now: time.Now}
		job := schedule.Job{Name: "incremental", Spec: "@every 1m", Run: d.run}
		at(2026, 5, 1, 12, 0, time.UTC)
		w.start(job)
		at(2026, 5, 1, 12, 2, time.UTC)
		same(t, d.take(), "2026-05-01 12:00 UTC", "2026-05-01 12:01 UTC", "2026-05-01 12:02 UTC")
		w.stop()
		at(2026, 5, 1, 18, 0, time.UTC)
		w.start(job)
		at(2026, 5, 1, 18, 1, time.UTC)
		same(t, d.take(), "2026-05-01 18:00 UTC", "2026-05-01 18:01 UTC")
		w.stop()
	})
}

func TestARunThatTakesLongerThanItsIntervalIsNotOverlapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, zone: time.UTC}
		d := &diary{zone: time.UTC, now: time.Now}
		running := 0
		at(2026, 5, 1, 12, 0, time.UTC)
		w.start(schedule.Job{Name: "slow", Spec: "*/5 * * * *", Run: func(ctx context.Context) error {
			if running++; running > 1 {
				t.Error("two runs at once")
			}
			defer func() { running-- }()
			_ = d.run(ctx)
			time.Sleep(12 * time.Minute)
			return nil
		}})
		at(2026, 5, 1, 12, 30, time.UTC)
		// 12:05 to 12:17 covers 12:10 and 12:15, which are then one run.
		same(t, d.take(), "2026-05-01 12:05 UTC", "2026-05-01 12:17 UTC", "2026-05-01 12:29 UTC")
		w.stop()
	})
}

func TestARunThatIsCutShortIsDueAgainAtTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, zone: time.UTC}
		d := &diary{zone: time.UTC, now: time.Now}
		at(2026, 5, 1, 12, 0, time.UTC)
		w.start(schedule.Job{Name: "nightly", Spec: "0 2 * * *", Run: func(ctx context.Context) error {
			<-ctx.Done()
			_ = d.run(ctx)
			return ctx.Err()
		}})
		at(2026, 5, 2, 3, 0, time.UTC)
		w.stop() // returns only when the run has
		same(t, d.take(), "2026-05-02 03:00 UTC")
		w.start(schedule.Job{Name: "nightly", Spec: "0 2 * * *", Run: d.run})
		same(t, d.take(), "2026-05-02 03:00 UTC")
		w.stop()
	})
}

func TestAFailedRunIsTriedAgainWithGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, zone: time.UTC}
		d := &diary{zone: time.UTC, now: time.Now}
		fails := 2
		at(2026, 5, 1, 12, 0, time.UTC)
		w.start(schedule.Job{Name: "nightly", Spec: "0 2 * * *", Run: func(ctx context.Context) error {
			_ = d.run(ctx)
			switch fails--; fails {
			case 1:
				return errors.New("no")
			case 0:
				panic("worse")
			}
			return nil
		}})
		at(2026, 5, 3, 1, 0, time.UTC)
		same(t, d.take(), "2026-05-02 02:00 UTC", "2026-05-02 02:01 UTC", "2026-05-02 02:03 UTC")
		w.stop()
	})
}

func TestAClockThatIsSetDoesNotStopOrRepeatASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var skew time.Duration
		now := func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(skew) }
		set := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); skew = d }
		w := &world{t: t, zone: time.UTC, now: now}
		nightly := &diary{zone: time.UTC, now: now}
		often := &diary{zone: time.UTC, now: now}
		at(2026, 5, 1, 12, 0, time.UTC)
		w.start(schedule.Job{Name: "nightly", Spec: "0 2 * * *", Run: nightly.run}, schedule.Job{Name: "often", Spec: "@every 10m", Run: often.run})

		at(2026, 5, 2, 2, 0, time.UTC)
		set(-2 * time.Second) // a correction right after the slot
		at(2026, 5, 2, 3, 0, time.UTC)
		same(t, nightly.take(), "2026-05-02 02:00 UTC")

		often.take()
		set(14 * time.Hour) // 03:00 becomes 17:00 and soon 02:00 of the next day
		at(2026, 5, 2, 13, 0, time.UTC)
		same(t, nightly.take(), "2026-05-03 02:00 UTC")
		if got := often.take(); len(got) < 59 {
			t.Fatalf("ran %d times in ten hours", len(got))
		}
		set(0) // and back to the truth
		at(2026, 5, 2, 15, 0, time.UTC)
		if got := often.take(); len(got) < 11 {
			t.Fatalf("ran %d times in two hours after the clock was set back", len(got))
		}
		at(2026, 5, 4, 3, 0, time.UTC)
		same(t, nightly.take(), "2026-05-04 02:00 UTC") // the third's slot had run already
		w.stop()
	})
}

func TestCheckpointsThatCannotBeReadOrMakeNoSense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, zone: time.UTC}
		d := &diary{zone: time.UTC, now: time.Now}
		at(2026, 5, 1, 12, 0, time.UTC)
		w.store.m = map[string]string{"slot/a": "yesterday", "slot/b": time.Now().AddDate(9, 0, 0).Format(time.RFC3339Nano)}
		w.store.fail = errors.New("not yet")
		w.start(schedule.Job{Name: "a", Spec: "0 2 * * *", Run: d.run}, schedule.Job{Name: "b", Spec: "0 3 * * *", Run: d.run})
		if _, ok := w.s.Next("a"); ok {
			t.Fatal("Next without a checkpoint")
		}
		w.store.mu.Lock()
		w.store.fail = nil
		w.store.mu.Unlock()
		at(2026, 5, 2, 12, 0, time.UTC)
		same(t, d.take(), "2026-05-02 02:00 UTC", "2026-05-02 03:00 UTC")
		if _, ok := w.s.Next("c"); ok {
			t.Fatal("Next of an unknown job")
		}
		w.stop()
	})
}

func TestADecadeOfDowntimeCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, zone: time.UTC}
		d := &diary{zone: time.UTC, now: time.Now}
		at(2036, 5, 1, 12, 0, time.UTC)
		w.store.m = map[string]string{}
		for i, spec := range []string{"* * * * *", "0 2 * * *", "0 2 29 2 *"} {
			name := fmt.Sprint(i)
			w.store.m["slot/"+name] = "2026-05-01T12:00:00Z"
			w.start(schedule.Job{Name: name, Spec: spec, Run: d.run})
			same(t, d.take(), "2036-05-01 12:00 UTC")
			w.stop()
		}
		if got := []string{w.store.m["slot/0"], w.store.m["slot/1"], w.store.m["slot/2"]}; !slices.Equal(got,
			[]string{"2036-05-01T12:00:00Z", "2036-05-01T02:00:00Z", "2036-02-29T02:00:00Z"}) {
			t.Fatalf("checkpoints %v", got)
		}
	})
}
