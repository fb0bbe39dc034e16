package salesforcefake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// This file and its neighbours answer Bulk API 2.0 as its developer guide describes it: a job is created, worked on over
// time and polled, and its results are CSV. How long it takes and how it ends are knobs (bulk_polls, bulk_ms, next_bulk).

const (
	jobLife      = 7 * 24 * time.Hour // from the job's end; the guide: jobs in an end state are deleted after seven days
	jobListPage  = 1000
	maxBulkQuery = 10_000 // query jobs in 24 hours
	bulkBatch    = 10_000 // rows of an ingest batch
	maxUpload    = 100 << 20
)

// Job states, by their names in the API.
const (
	jobOpen     = "Open"
	jobUploaded = "UploadComplete"
	jobRunning  = "InProgress"
	jobComplete = "JobComplete"
	jobFailed   = "Failed"
	jobAborted  = "Aborted"
)

// Ends of coming jobs for the knob next_bulk.
var bulkFaults = []string{"ok", "fail", "abort", "expire", "stuck", "limit", "disabled"}

// job is a bulk job of either kind. It is guarded by the org's lock; results of an ended job do not change any more.
type job struct {
	id        string
	num       uint32
	kind      string // query or ingest
	operation string
	table     *table
	user      uint32
	version   string // v62.0
	created   time.Time
	modified  time.Time
	released  time.Time // when work may begin: creation, or UploadComplete of an ingest job
	ended     time.Time
	state     string
	message   string // why it failed
	delimiter string
	ending    string
	fate      string // of next_bulk
	polls     int    // looks at the job that still find it unfinished
	seen      int    // looks so far
	takes     time.Duration
	processed int
	failed    int

	query  *bulkQuery
	ingest *bulkIngest
}

// jobs are the org's bulk jobs.
type jobs struct {
	list    []*job
	next    uint32
	queries []time.Time  // when query jobs were created
	working atomic.Int32 // unfinished ones, that the clock may advance
}

func (j *job) over() bool {
	return j.state == jobComplete || j.state == jobFailed || j.state == jobAborted
}

func (j *job) end(o *Org, state, message string) {
	if j.over() {
		return
	}
	o.jobs.working.Add(-1)
	j.state, j.message, j.ended, j.modified = state, message, o.now(), o.now()
}

// progress is the share of the job that is done by now.
func (j *job) progress(now time.Time) float64 {
	p := 1.0
	if j.polls > 0 {
		p = min(p, float64(j.seen)/float64(j.polls))
	}
	if j.takes > 0 {
		p = min(p, float64(now.Sub(j.released))/float64(j.takes))
	}
	if j.fate == "stuck" {
		p = min(p, 0.5)
	}
	return p
}

// advance does the work that is due. The caller holds the write lock.
func (o *Org) advance(j *job) {
	if j.over() || j.state == jobOpen {
		return
	}
	p := j.progress(o.now())
	if p > 0 && j.fate == "abort" {
		j.end(o, jobAborted, "")
		return
	}
	if p > 0 && p < 1 && j.state == jobUploaded {
		j.state, j.modified = jobRunning, o.now()
	}
	switch {
	case j.query != nil && p >= 1:
		o.runBulkQuery(j)
	case j.ingest != nil && p > 0:
		o.runBulkIngest(j, p)
	}
}

// advanceJobs moves the jobs on that go by the clock, and forgets old ones.
func (o *Org) advanceJobs() {
	now := o.now()
	for _, j := range o.jobs.list {
		if j.takes > 0 && j.polls == 0 {
			o.advance(j)
		}
	}
	o.jobs.list = slices.DeleteFunc(o.jobs.list, func(j *job) bool {
		old := j.over() && now.Sub(j.ended) >= jobLife || j.state == jobOpen && now.Sub(j.created) >= jobLife
		if old && !j.over() {
			o.jobs.working.Add(-1)
		}
		return old
	})
	o.jobs.queries = slices.DeleteFunc(o.jobs.queries, func(t time.Time) bool { return now.Sub(t) >= 24*time.Hour })
}

func (c *call) jobsResource(path []string) *response {
	if len(path) == 0 || path[0] != "query" && path[0] != "ingest" || c.nested {
		return restError("not_found", errNotFound())
	}
	c.o.advanceJobs()
	kind := "bulk_" + path[0]
	switch {
	case len(path) == 1 && c.method == http.MethodPost:
		return c.createJob(kind+"_create", path[0])
	case len(path) == 1:
		if res := c.only(kind+"_list", "GET", "POST"); res != nil {
			return res
		}
		return c.listJobs(kind+"_list", path[0])
	}
	id, ok := canonicalID(path[1])
	i := slices.IndexFunc(c.o.jobs.list, func(j *job) bool { return j.id == id && j.kind == path[0] })
	if !ok || i < 0 {
		return restError(kind+"_get", errNotFound())
	}
	j := c.o.jobs.list[i]
	switch {
	case len(path) == 2 && c.method == http.MethodPatch:
		return c.changeJob(kind+"_patch", j)
	case len(path) == 2 && c.method == http.MethodDelete:
		if !j.over() && j.state != jobUploaded {
			return restError(kind+"_delete", badJobState("Deleting job in state %s is not allowed", j.state))
		}
		if !j.over() {
			c.o.jobs.working.Add(-1)
		}
		c.o.jobs.list = slices.Delete(c.o.jobs.list, i, i+1)
		return &response{kind: kind + "_delete", status: http.StatusNoContent}
	case len(path) == 2:
		if res := c.only(kind+"_get", "GET", "PATCH", "DELETE"); res != nil {
			return res
		}
		c.o.advance(j)
		j.seen++
		return jsonResponse(kind+"_get", 200, j.info(c.o.now(), true))
	case len(path) == 3 && j.kind == "query" && path[2] == "results":
		if res := c.only(kind+"_results", "GET"); res != nil {
			return res
		}
		return c.queryResults(kind+"_results", j, i)
	case len(path) == 3 && j.kind == "ingest" && path[2] == "batches":
		if res := c.only(kind+"_upload", "PUT"); res != nil {
			return res
		}
		return c.upload(kind+"_upload", j)
	case len(path) == 3 && j.kind == "ingest" && slices.Contains([]string{"successfulResults", "failedResults", "unprocessedrecords"}, path[2]):
		if res := c.only(kind+"_results", "GET"); res != nil {
			return res
		}
		return c.ingestResults(kind+"_results", j, path[2])
	}
	return restError("not_found", errNotFound())
}

func badJobState(format string, args ...any) *apiError {
	return refuse("INVALIDJOBSTATE", format, args...)
}

type jobRequest struct {
	Operation       string `json:"operation"`
	Object          string `json:"object"`
	Query           string `json:"query"`
	ContentType     string `json:"contentType"`
	LineEnding      string `json:"lineEnding"`
	ColumnDelimiter string `json:"columnDelimiter"`
	ExternalID      string `json:"externalIdFieldName"`
	ConcurrencyMode string `json:"concurrencyMode"`
}

var delimiters = map[string]rune{"COMMA": ',', "BACKQUOTE": '`', "CARET": '^', "PIPE": '|', "SEMICOLON": ';', "TAB": '\t'}

func (c *call) createJob(kind, what string) *response {
	fate, polls, takes := c.o.knobs.nextJob()
	var in jobRequest
	if err := c.object(&in); err != nil {
		return restError(kind, err)
	}
	if in.LineEnding == "" {
		in.LineEnding = "LF"
	}
	if in.ColumnDelimiter == "" {
		in.ColumnDelimiter = "COMMA"
	}
	now := c.o.now()
	j := &job{kind: what, operation: in.Operation, user: c.user, version: c.version, created: now, modified: now, released: now,
		state: jobUploaded, delimiter: in.ColumnDelimiter, ending: in.LineEnding, fate: fate, polls: polls, takes: takes}
	var err *apiError
	switch {
	case fate == "disabled":
		err = &apiError{status: 403, code: "FEATURENOTENABLED", message: "Async API not enabled"}
	case fate == "limit":
		err = refuse("LIMIT_EXCEEDED", "Max bulk v2 query jobs (%d) per 24 hrs has been reached (%[1]d)", maxBulkQuery)
	case in.ContentType != "" && in.ContentType != "CSV":
		err = refuse("INVALIDJOB", "Unsupported content type: %s", in.ContentType)
	case in.LineEnding != "LF" && in.LineEnding != "CRLF":
		err = refuse("INVALIDJOB", "Invalid lineEnding: %s", in.LineEnding)
	case delimiters[in.ColumnDelimiter] == 0:
		err = refuse("INVALIDJOB", "Invalid columnDelimiter: %s", in.ColumnDelimiter)
	case what == "query":
		err = c.newBulkQuery(j, in)
	default:
		err = c.newBulkIngest(j, in)
	}
	if err != nil {
		return restError(kind, err)
	}
	c.o.jobs.next++
	j.num = c.o.jobs.next
	j.id = ID18(makeID15("750", j.num))
	c.o.jobs.list = append(c.o.jobs.list, j)
	c.o.jobs.working.Add(1)
	return jsonResponse(kind, 200, j.info(now, false))
}

func (c *call) changeJob(kind string, j *job) *response {
	var in struct {
		State string `json:"state"`
	}
	if err := c.object(&in); err != nil {
		return restError(kind, err)
	}
	c.o.advance(j)
	switch {
	case in.State == jobAborted && j.over():
		return restError(kind, badJobState("Aborting already Completed Job not allowed"))
	case in.State == jobAborted:
		j.end(c.o, jobAborted, "")
	case in.State == jobUploaded && j.kind == "ingest" && j.state != jobOpen:
		return restError(kind, badJobState("Closing already Completed Job not allowed"))
	case in.State == jobUploaded && j.kind == "ingest":
		j.state, j.modified, j.released = jobUploaded, c.o.now(), c.o.now()
	default:
		return restError(kind, refuse("INVALIDJOB", "Invalid state: %s", in.State))
	}
	return jsonResponse(kind, 200, j.info(c.o.now(), false))
}

func (c *call) listJobs(kind, what string) *response {
	from, _ := strconv.Atoi(c.query.Get("queryLocator"))
	list, seen, next := []jobInfo{}, 0, any(nil)
	for _, j := range c.o.jobs.list {
		if j.kind != what {
			continue
		}
		if seen++; seen <= from {
			continue
		}
		if len(list) == jobListPage {
			next = fmt.Sprintf("%s/jobs/%s?queryLocator=%d", c.prefix(), what, from+jobListPage)
			break
		}
		list = append(list, j.info(c.o.now(), false))
	}
	return jsonResponse(kind, 200, struct {
		Done    bool      `json:"done"`
		Records []jobInfo `json:"records"`
		Next    any       `json:"nextRecordsUrl"`
	}{next == nil, list, next})
}

// jobInfo is a job as the API shows it. What does not apply is absent.
type jobInfo struct {
	ID                  string      `json:"id"`
	Operation           string      `json:"operation"`
	Object              string      `json:"object"`
	CreatedBy           string      `json:"createdById"`
	CreatedDate         string      `json:"createdDate"`
	SystemModstamp      string      `json:"systemModstamp"`
	State               string      `json:"state"`
	ExternalID          string      `json:"externalIdFieldName,omitempty"`
	ConcurrencyMode     string      `json:"concurrencyMode"`
	ContentType         string      `json:"contentType"`
	APIVersion          json.Number `json:"apiVersion"`
	JobType             string      `json:"jobType,omitempty"`
	ContentURL          string      `json:"contentUrl,omitempty"`
	LineEnding          string      `json:"lineEnding"`
	Delimiter           string      `json:"columnDelimiter"`
	Processed           *int        `json:"numberRecordsProcessed,omitempty"`
	Failed              *int        `json:"numberRecordsFailed,omitempty"`
	Retries             *int        `json:"retries,omitempty"`
	TotalProcessingTime *int64      `json:"totalProcessingTime,omitempty"`
	ActiveTime          *int64      `json:"apiActiveProcessingTime,omitempty"`
	ApexTime            *int        `json:"apexProcessingTime,omitempty"`
	PKChunking          *bool       `json:"isPkChunkingSupported,omitempty"`
	ErrorMessage        string      `json:"errorMessage,omitempty"`
}

func (j *job) info(now time.Time, counters bool) jobInfo {
	out := jobInfo{ID: j.id, Operation: j.operation, Object: j.table.name, CreatedBy: ID18(makeID15("005", j.user)),
		CreatedDate: formatTime(j.created.UnixMilli()), SystemModstamp: formatTime(j.modified.UnixMilli()), State: j.state,
		ConcurrencyMode: "Parallel", ContentType: "CSV", APIVersion: json.Number(strings.TrimPrefix(j.version, "v")),
		LineEnding: j.ending, Delimiter: j.delimiter, ErrorMessage: j.message}
	if j.ingest != nil {
		out.ExternalID = j.ingest.externalID
		if j.state == jobOpen {
			out.ContentURL = "services/data/" + j.version + "/jobs/ingest/" + j.id + "/batches"
		}
	}
	if !counters {
		return out
	}
	zero, took := 0, int64(0)
	if j.over() {
		took = j.ended.Sub(j.released).Milliseconds()
	} else if j.state == jobRunning {
		took = now.Sub(j.released).Milliseconds()
	}
	processed := j.processed
	out.Processed, out.Retries, out.TotalProcessingTime = &processed, &zero, &took
	if j.query != nil {
		yes := true
		out.JobType, out.PKChunking = "V2Query", &yes
		return out
	}
	failed := j.failed
	out.JobType, out.Failed, out.ActiveTime, out.ApexTime = "V2Ingest", &failed, &took, &zero
	return out
}
