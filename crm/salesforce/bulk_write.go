package salesforce

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/heed-sms/heed/crm"
)

const (
	// bulkWriteFrom is how many boxes of an object go into an ingest job: Salesforce advises collections below 2,000
	// (Bulk API 2.0 and Bulk API Developer Guide, "How Requests Are Processed").
	bulkWriteFrom = 2000
	// ingestRows is the most rows of a job: one batch, whose rows Salesforce saves one after the other. Several batches run
	// side by side and lock each other's accounts.
	ingestRows     = 10_000
	ingestPatience = 10 * time.Minute
	// ingestReserve is what is left of the caller's time to end a job that takes too long, and to read what it did.
	ingestReserve  = 15 * time.Second
	ingestAttempts = 2
)

// ingest ticks boxes of one object through ingest jobs and returns the jobs that are still to be written in another way.
// Only ticks come here: should an end of ours not reach Salesforce, the job still writes at some time, and a late tick is an
// error on the safe side.
func (o *Org) ingest(ctx context.Context, obj *object, jobs []*job) (left []*job) {
	for part := range slices.Chunk(jobs, ingestRows) {
		if !o.ingests() {
			left = append(left, part...)
			continue
		}
		left = append(left, o.ingestPart(ctx, obj, part)...)
	}
	return left
}

// ingests reports whether ingest jobs may be used now.
func (o *Org) ingests() bool {
	off := o.bulkOff.Load()
	return o.bulkMode() != BulkNever && (off == nil || !o.now().Before(off.until))
}

func (o *Org) ingestPart(ctx context.Context, obj *object, jobs []*job) (left []*job) {
	id, err := o.upload(ctx, obj, jobs)
	if err != nil {
		if isUnusable(err) {
			o.log.Warn("salesforce: no bulk job for these boxes; writing them 200 at a time", "object", obj.name, "records", len(jobs), "error", err, "hint", bulkHint)
			o.bulkRefused(err)
		}
		return jobs // nothing of them was written
	}
	patience := ingestPatience
	if end, bounded := ctx.Deadline(); bounded {
		patience = min(patience, time.Until(end)-ingestReserve)
	}
	state, err := o.awaitJob(ctx, "ingest", id, patience)
	// From here on some of it may be written, so what it did is read even if the caller's time is up.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), ingestReserve)
	defer cancel()
	if err != nil {
		if isUnusable(err) { // the next try would wait as long
			o.bulkRefused(err)
		}
		_, _ = o.jobCall(after, http.MethodPatch, "ingest", id, map[string]string{"state": "Aborted"})
	}
	for _, j := range jobs {
		j.err = &crm.Error{Class: crm.RetryNow, Text: "the bulk job ended without a result for this record"}
	}
	for _, which := range []string{"successfulResults", "failedResults"} { // the failures last: in doubt they count
		if err := o.ingestResults(after, id, which, jobs); err != nil {
			o.log.Warn("salesforce: the results of a bulk job could not be read; its boxes are written again", "job", id, "error", err)
		}
	}
	o.dropJob(ctx, "ingest", id, true)
	if err == nil && state.State == "Failed" {
		o.log.Warn("salesforce: a bulk job failed; writing what it left 200 at a time", "object", obj.name, "error", clip(state.Message, 300))
	}
	for _, j := range jobs {
		switch {
		case j.err == nil:
		case j.err.Status == 0: // no result
			if err == nil && state.State == "Failed" {
				left = append(left, j)
			}
		case j.locked() || j.extras && j.blamesExtras() || wholesale[j.err.Code] || j.maybePerson():
			left = append(left, j) // which writeChunk knows how to deal with
		}
	}
	return left
}

// upload creates a job, fills it and lets it begin. An error says that nothing was or will be written.
func (o *Org) upload(ctx context.Context, obj *object, jobs []*job) (id string, err error) {
	data, err := ingestCSV(obj, jobs)
	if err != nil {
		return "", &crm.Error{Class: crm.Bug, Err: err}
	}
	for range ingestAttempts {
		var j bulkJob
		j, err = o.jobCall(ctx, http.MethodPost, "ingest", "", map[string]string{"object": obj.name, "operation": "update", "contentType": "CSV", "lineEnding": "LF"})
		if err != nil {
			return "", err
		}
		if _, err = o.call(ctx, http.MethodPut, o.data("/jobs/ingest/"+j.ID+"/batches"), data, "Content-Type", "text/csv", "Accept", "application/json"); err == nil {
			_, err = o.jobCall(ctx, http.MethodPatch, "ingest", j.ID, map[string]string{"state": "UploadComplete"})
			if err == nil {
				return j.ID, nil
			}
			// The answer may have been lost and not the order.
			if now, e := o.jobCall(ctx, http.MethodGet, "ingest", j.ID, nil); e != nil || now.State != "Open" {
				return j.ID, nil
			}
		}
		err = bulkError(err)
		o.dropJob(ctx, "ingest", j.ID, false) // data may be uploaded once only, so a new try needs a new job
		if isUnusable(err) || ctx.Err() != nil {
			break
		}
	}
	return "", err
}

// ingestCSV is the boxes as an ingest job takes them: an empty cell leaves a field alone, #N/A empties it.
func ingestCSV(obj *object, jobs []*job) ([]byte, error) {
	columns := []string{obj.mapping.Field}
	if slices.ContainsFunc(jobs, func(j *job) bool { return j.extras }) {
		columns = append(columns, obj.extras()...)
	}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write(append([]string{"Id"}, columns...)) // Flush's error says it all
	line := make([]string, len(columns)+1)
	for _, j := range jobs {
		values := j.fields()
		line[0] = j.key.ID
		for i, name := range columns {
			switch v, set := values[name]; {
			case !set:
				line[i+1] = ""
			case v == "":
				line[i+1] = "#N/A"
			default:
				line[i+1] = fmt.Sprint(v)
			}
		}
		_ = w.Write(line)
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

// ingestResults reads which of a job's rows were saved, or which were not, and why.
func (o *Org) ingestResults(ctx context.Context, id, which string, jobs []*job) error {
	a, err := o.call(ctx, http.MethodGet, o.data("/jobs/ingest/"+id+"/"+which), nil, "Accept", "text/csv")
	if err != nil {
		return err
	}
	byID := make(map[string]*job, len(jobs))
	for _, j := range jobs {
		byID[j.key.ID] = j
	}
	r := csv.NewReader(bytes.NewReader(a.body))
	r.ReuseRecord = true
	head, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return a.malformed("the results are no CSV: " + err.Error())
	}
	ours, theirs, reason := slices.Index(head, "Id"), slices.Index(head, "sf__Id"), slices.Index(head, "sf__Error")
	if theirs < 0 || (which == "failedResults") != (reason >= 0) {
		return a.malformed("the results lack a column")
	}
	for {
		line, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return a.malformed("the results are no CSV: " + err.Error())
		}
		rec, err := id18(line[theirs])
		if err != nil && ours >= 0 {
			rec, err = id18(line[ours]) // of some failures Salesforce names no record
		}
		j := byID[rec]
		switch {
		case err != nil || j == nil:
		case reason < 0:
			j.err = nil
		default:
			j.err = rowError(a.status, []apiError{ingestError(strings.Clone(line[reason]))})
		}
	}
}

// ingestError reads a row's sf__Error, "CODE:message:Field1__c,Field2__c --". A message may hold colons.
func ingestError(s string) apiError {
	code, rest, _ := strings.Cut(s, ":")
	e := apiError{StatusCode: code, Message: rest}
	rest, marked := strings.CutSuffix(rest, "--")
	if at := strings.LastIndexByte(rest, ':'); marked && at >= 0 {
		e.Message = rest[:at]
		for f := range strings.SplitSeq(rest[at+1:], ",") {
			if f = strings.TrimSpace(f); f != "" {
				e.Fields = append(e.Fields, f)
			}
		}
	}
	return e
}
