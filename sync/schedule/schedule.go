// Package schedule starts named jobs at the times of a cron specification, once for each slot: not twice, not never.
//
// # Slots are a ledger
//
// Each job has a checkpoint that holds the last slot whose run has finished. A slot is due when the next one after the
// checkpoint is not in the future. So a slot that passed while the process was down is made up for at the next start,
// several of them by one run; and a slot whose run was cut short is due again. A ticker knows none of this, which is
// why this package uses the parser and the arithmetic of robfig/cron (https://pkg.go.dev/github.com/robfig/cron/v3),
// but not its runner.
//
// # The clock on the wall
//
// A job that names its hours ("0 2 * * *") follows the clock on the wall. In the night in which the clock is put
// forward, a time that does not exist stands for the moment of the change; in the night in which it is put back, a time
// that exists twice stands for its first occurrence. A job that runs in every hour ("*/5 * * * *", "@every 1m")
// follows elapsed time.
//
// # What it is not
//
// It does not know what a job does, keeps no history and offers no way to run a job now: whoever owns the job does that,
// and sees to it that its runs do not overlap. It assumes that one process schedules a name at a time.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Cursors keeps checkpoints; ledger.Ledger does.
type Cursors interface {
	// Cursor returns a checkpoint, "" if there is none.
	Cursor(ctx context.Context, name string) (string, error)
	SetCursor(ctx context.Context, name, value string) error
}

// Job is work to be done at certain times.
type Job struct {
	Name string // unique; the checkpoint is "slot/" and the name
	Spec string // as [Parse] reads it
	// Run does the work. Its slot counts as done when it returns nil; an error or a panic makes it due again, after a
	// pause of one minute that doubles up to one hour (for "@every", after its own interval).
	Run func(ctx context.Context) error
}

// Scheduler runs jobs. Create it with [New].
type Scheduler struct {
	jobs    []*job
	cursors Cursors
	log     *slog.Logger
	now     func() time.Time
}

// Options configure a scheduler.
type Options struct {
	Zone    *time.Location   // whose clock the specifications mean; UTC if nil
	Cursors Cursors          // required
	Log     *slog.Logger     // slog.Default if nil
	Now     func() time.Time // the wall clock; time.Now if nil
}

type job struct {
	Job
	times Times

	mu       sync.Mutex
	last     time.Time // the last slot that is done; zero: none ever was
	loaded   bool
	failures int
	notNow   time.Time // after a failure: not before
}

// New checks the jobs and returns a scheduler that has not started.
func New(o Options, jobs ...Job) (*Scheduler, error) {
	s := &Scheduler{cursors: o.Cursors, log: o.Log, now: o.Now}
	if s.cursors == nil {
		return nil, errors.New("schedule: no place for checkpoints")
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	zone := o.Zone
	if zone == nil {
		zone = time.UTC
	}
	names := map[string]bool{}
	var problems []error
	for _, j := range jobs {
		times, err := Parse(j.Spec, zone)
		switch {
		case j.Name == "" || names[j.Name]:
			err = fmt.Errorf("schedule: job name %q is empty or used twice", j.Name)
		case j.Run == nil:
			err = fmt.Errorf("schedule: job %q does nothing", j.Name)
		case err != nil:
			err = fmt.Errorf("schedule: job %q: %w", j.Name, err)
		}
		problems = append(problems, err)
		names[j.Name] = true
		s.jobs = append(s.jobs, &job{Job: j, times: times})
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return s, nil
}

// maxWait bounds how long a job sleeps before it looks at the wall clock again: timers do not notice that the clock was
// set or that the machine was suspended.
const maxWait = 30 * time.Second

const (
	firstPause = time.Minute // after a failed run
	maxPause   = time.Hour
)

// Run runs the jobs until ctx ends, then waits for those that are running; they are given ctx and should end with it.
// It may be called once.
func (s *Scheduler) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, j := range s.jobs {
		running.Go(func() { s.loop(ctx, j) })
	}
	running.Wait()
}

// Next returns when a job is due; a time in the past means that it is due or running. ok is false for a name that is
// not scheduled, and before Run has read the job's checkpoint.
func (s *Scheduler) Next(name string) (_ time.Time, ok bool) {
	for _, j := range s.jobs {
		if j.Name == name {
			j.mu.Lock()
			defer j.mu.Unlock()
			return j.due(s.now()), j.loaded
		}
	}
	return time.Time{}, false
}

// due returns when the job is to run. The caller holds j.mu.
func (j *job) due(now time.Time) time.Time {
	if j.last.IsZero() {
		return later(now, j.notNow)
	}
	return later(j.times.Next(j.last), j.notNow)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (s *Scheduler) loop(ctx context.Context, j *job) {
	for ctx.Err() == nil {
		now := s.now()
		due, err := s.look(ctx, j, now)
		wait := min(due.Sub(now), maxWait)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				s.log.Error("checkpoint of a scheduled job could not be read; trying again", "job", j.Name, "error", err)
			}
			wait = maxWait
		case wait <= 0:
			s.run(ctx, j, now)
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
	}
}

// look returns when the job is due, reading its checkpoint the first time.
func (s *Scheduler) look(ctx context.Context, j *job, now time.Time) (time.Time, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.loaded {
		if err := s.load(ctx, j, now); err != nil {
			return time.Time{}, err
		}
		j.loaded = true
	}
	// A checkpoint beyond the coming slot comes from a clock that ran ahead and was set back. Waiting for the clock to
	// get there again could take years. A small step back changes nothing: the coming slot is the one that is done.
	if next := j.times.Next(now); j.last.After(next) {
		s.log.Warn("the clock was set back; the schedule starts again from now", "job", j.Name)
		j.last = now
	}
	if j.notNow.Sub(now) > maxPause {
		j.notNow = now // likewise
	}
	return j.due(now), nil
}

func (s *Scheduler) load(ctx context.Context, j *job, now time.Time) error {
	v, err := s.cursors.Cursor(ctx, cursor(j))
	if err != nil {
		return err
	}
	if v != "" {
		if j.last, err = time.Parse(time.RFC3339Nano, v); err == nil {
			return nil
		}
		s.log.Error("checkpoint of a scheduled job is not a time; starting anew", "job", j.Name, "error", err)
	}
	if j.times.interval() {
		j.last = time.Time{} // due at once
		return nil
	}
	// The first start ever: a job with fixed hours waits for its first slot, also over the next restart.
	j.last = now
	return s.cursors.SetCursor(ctx, cursor(j), now.UTC().Format(time.RFC3339Nano))
}

func cursor(j *job) string { return "slot/" + j.Name }

// run does the job once for all slots up to now.
func (s *Scheduler) run(ctx context.Context, j *job, now time.Time) {
	j.mu.Lock()
	slot := j.times.latest(j.last, now)
	j.mu.Unlock()
	err := safely(ctx, j.Run)
	if err == nil {
		// The work is done even if ctx ended meanwhile, so that must not be forgotten.
		err = s.cursors.SetCursor(context.WithoutCancel(ctx), cursor(j), slot.UTC().Format(time.RFC3339Nano))
		if err != nil {
			s.log.Error("checkpoint of a scheduled job could not be stored; after a restart it runs again", "job", j.Name, "error", err)
		}
		j.mu.Lock()
		j.last, j.failures, j.notNow = slot, 0, time.Time{}
		j.mu.Unlock()
		return
	}
	if ctx.Err() != nil {
		return // cut short: its slot is due again at the next start
	}
	j.mu.Lock()
	pause := min(firstPause<<min(j.failures, 6), maxPause)
	if j.times.interval() {
		pause = j.times.Next(now).Sub(now)
	}
	j.failures++
	j.notNow = s.now().Add(pause)
	j.mu.Unlock()
	s.log.Error("scheduled job failed and will be tried again", "job", j.Name, "in", pause, "error", err)
}

func safely(ctx context.Context, run func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %T", p) // the value may carry a number or a text
		}
	}()
	return run(ctx)
}
