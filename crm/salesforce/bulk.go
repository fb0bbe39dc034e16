package salesforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/heed-sms/heed/crm"
)

// Bulk API 2.0: a job is created, Salesforce works on it in its own time, and its results are CSV (Bulk API 2.0 and Bulk
// API Developer Guide). heed talks to it itself: the library's polling ends after a minute and forgets its jobs.

// Bulk says when full reads and large writes go through Bulk API 2.0.
type Bulk string

const (
	BulkAuto   Bulk = "auto"   // from a size on; where Salesforce refuses, other calls do the work. The default
	BulkNever  Bulk = "never"  // not at all
	BulkAlways Bulk = "always" // every full read, or it fails; large writes as with auto
)

const (
	// bulkReadFrom is how many records of an object make a bulk job worth its while. A job costs about six calls and some
	// seconds whatever its size, and a call of the ordinary kind reads 2,000 records.
	bulkReadFrom = 10_000
	// bulkPage is how many records one call brings: 2 to 4 MB with heed's few fields, of the 64 MB that are admitted.
	bulkPage = 10_000
	// queryPatience is how long a query job may take. Salesforce itself gives up each part of one after 10 minutes and 15
	// attempts, but what takes longer than this is in trouble.
	queryPatience = 30 * time.Minute
	cleanupTime   = 10 * time.Second
	bulkPause     = time.Hour // after a refusal
)

// bulkJob is what heed reads of a job's description.
type bulkJob struct {
	ID        string `json:"id"`
	State     string `json:"state"`
	Created   string `json:"createdDate"`
	Message   string `json:"errorMessage"`
	Processed *int   `json:"numberRecordsProcessed"`
}

func (j bulkJob) over() bool {
	return j.State == "JobComplete" || j.State == "Failed" || j.State == "Aborted"
}

// unusable is the failure of a bulk job while Salesforce as such answers: calls of another kind may do.
type unusable struct{ err *crm.Error }

func (u unusable) Error() string { return u.err.Error() }
func (u unusable) Unwrap() error { return u.err }

func unusablef(format string, args ...any) unusable {
	return unusable{&crm.Error{Class: crm.RetryLater, Code: "BULK_JOB", Text: "Bulk API 2.0: " + fmt.Sprintf(format, args...)}}
}

func isUnusable(err error) bool {
	var u unusable
	return errors.As(err, &u)
}

// bulkError tells a refusal of Bulk API 2.0 from a failure that any other call would share: the organisation has no such
// feature or no job left for today, the user no right, the job is gone.
func bulkError(err error) error {
	var e *crm.Error
	if !errors.As(err, &e) || e.Status < 400 || e.Status >= 500 {
		return err
	}
	switch {
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusTooManyRequests, e.Status == http.StatusRequestTimeout,
		e.Code == "REQUEST_LIMIT_EXCEEDED", e.Code == "INVALID_SESSION_ID":
		return err
	case e.Status == http.StatusNotFound:
		return unusablef("the job is gone; Salesforce keeps them for 7 days")
	}
	return unusable{e}
}

// jobCall makes a call about a job. kind is query or ingest, id "" for a new one.
func (o *Org) jobCall(ctx context.Context, method, kind, id string, in any) (bulkJob, error) {
	target := "/jobs/" + kind
	if id != "" {
		target += "/" + id
	}
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return bulkJob{}, &crm.Error{Class: crm.Bug, Err: err}
		}
	}
	a, err := o.call(ctx, method, o.data(target), body)
	if err != nil {
		return bulkJob{}, bulkError(err)
	}
	var j bulkJob
	if method == http.MethodDelete {
		return j, nil
	}
	if err := a.decode(&j); err != nil {
		return bulkJob{}, err
	}
	if j.ID, err = id18(j.ID); err != nil || j.State == "" {
		return bulkJob{}, a.malformed("the answer is no bulk job")
	}
	return j, nil
}

// awaitJob looks at a job until it is over, seldom if it takes long. A job that is not over by the deadline is unusable.
func (o *Org) awaitJob(ctx context.Context, kind, id string, patience time.Duration) (bulkJob, error) {
	deadline := o.now().Add(patience)
	for looks := 0; ; looks++ {
		j, err := o.jobCall(ctx, http.MethodGet, kind, id, nil)
		switch {
		case err != nil || j.over():
			return j, err
		case !o.now().Before(deadline):
			return j, unusablef("the job is %s after %s", j.State, patience)
		}
		shortest, longest := retryWaits()
		if err := sleep(ctx, min(longest*6, shortest*2<<min(looks, 10))); err != nil {
			return j, err
		}
	}
}

// dropJob ends a job that nobody needs any more and deletes it. Whatever fails here only leaves a job that Salesforce
// deletes by itself after 7 days.
func (o *Org) dropJob(ctx context.Context, kind, id string, over bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	if !over {
		_, _ = o.jobCall(ctx, http.MethodPatch, kind, id, map[string]string{"state": "Aborted"})
	}
	if _, err := o.jobCall(ctx, http.MethodDelete, kind, id, nil); err != nil {
		o.log.Debug("salesforce: a bulk job could not be deleted", "job", id, "error", err)
	}
}

// retryWaits are the shortest and the longest wait between attempts, as the transport was installed with them.
func retryWaits() (shortest, longest time.Duration) {
	if t := installed.Load(); t != nil {
		return t.retries.Client.RetryWaitMin, t.retries.Client.RetryWaitMax
	}
	return defaultMinWait, defaultMaxWait
}

// sleep waits for d, give or take a quarter so that clients do not come back together.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d*3/4 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return unanswered(ctx, ctx.Err())
	case <-t.C:
		return nil
	}
}

// bulkHint is what to do about a refusal of Bulk API 2.0.
const bulkHint = "give the integration user the permission API Enabled and look at Setup, Bulk Data Load Jobs; or write bulk: never"

func (o *Org) bulkMode() Bulk {
	return Bulk(orDefault(strings.ToLower(string(o.config.Bulk)), string(BulkAuto)))
}

// bulkRefused remembers why Bulk API 2.0 could not be used, for Probe and so as not to ask again at once.
func (o *Org) bulkRefused(err error) {
	o.bulkOff.Store(&bulkRefusal{until: o.now().Add(bulkPause), err: err})
}

type bulkRefusal struct {
	until time.Time
	err   error
}

// driverError returns the *crm.Error in err, which every error of a Directory is.
func driverError(err error) error {
	var e *crm.Error
	if errors.As(err, &e) {
		return e
	}
	return err
}
