package salesforce

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/heed-sms/heed/crm"
)

// mark is where a scan through a bulk job goes on, in the form of a key's ID:
//
//	bulk <job> <query> <rows> <skip> <locator>
//
// query is a checksum of what the job asked for, so that a job of another configuration is not taken for this one's. rows
// is how many records came in the pages of results before the one at locator, and skip how many of that one are done. "bulk
// end" stands behind an object's last record.
type mark struct {
	job, query string
	rows, skip int
	locator    string
	end        bool
}

const (
	markWord = "bulk "
	markEnd  = markWord + "end"
)

func (m mark) String() string {
	if m.end {
		return markEnd
	}
	return fmt.Sprintf("%s%s %s %d %d %s", markWord, m.job, m.query, m.rows, m.skip, m.locator)
}

// parseMark reads a mark. ok is false for what is none, such as a record's id.
func parseMark(s string) (m mark, ok bool, err error) {
	rest, ok := strings.CutPrefix(s, markWord)
	if !ok {
		return m, false, nil
	}
	if s == markEnd {
		return mark{end: true}, true, nil
	}
	parts := strings.SplitN(rest, " ", 5)
	if len(parts) != 5 {
		return m, true, errors.New("it is no mark of a bulk job")
	}
	m.query, m.locator = parts[1], parts[4]
	var e1, e2, e3 error
	m.job, e1 = id18(parts[0])
	m.rows, e2 = strconv.Atoi(parts[2])
	m.skip, e3 = strconv.Atoi(parts[3])
	if err = errors.Join(e1, e2, e3); err == nil && (m.rows < 0 || m.skip < 0) {
		err = errors.New("it counts backwards")
	}
	return m, true, err
}

// bulkQuery has no order: one would keep Salesforce from cutting the work into parts (Developer Guide, "Walkthrough for
// Bulk Query", PK chunking).
func (o *object) bulkQuery() string {
	return "SELECT " + o.fields + " FROM " + o.name + where(o.live())
}

func (o *Org) querySum(obj *object) string {
	h := fnv.New64a()
	io.WriteString(h, o.version+" "+obj.bulkQuery())
	return strconv.FormatUint(h.Sum64(), 36)
}

// bulkPages yields the live records of an object from a bulk job, a new one or that of the mark. A page is at most as long
// as one of the query pages. The job is deleted when it was read to its end, or when nobody got a mark to go on with;
// otherwise it stays for that. Its results are of one moment, so a page's AsOf is the creation of the job.
//
// The whole must be there: the count of each page, and of all pages, is compared with what Salesforce says that it has, and
// what does not add up is unusable.
func (o *Org) bulkPages(ctx context.Context, obj *object, at mark) iter.Seq2[crm.Page, error] {
	return func(yield func(crm.Page, error) bool) {
		known, over := at.job != "", false // known: somebody has a mark of the job
		if !known {
			j, err := o.jobCall(ctx, http.MethodPost, "query", "", map[string]string{"operation": "query", "query": obj.bulkQuery()})
			if err != nil {
				yield(crm.Page{}, err)
				return
			}
			at = mark{job: j.ID, query: o.querySum(obj)}
		}
		fail := func(err error) {
			if isUnusable(err) || !known {
				o.dropJob(ctx, "query", at.job, over)
			}
			yield(crm.Page{}, err)
		}
		j, err := o.awaitJob(ctx, "query", at.job, queryPatience)
		if err != nil {
			fail(err)
			return
		}
		over = true
		switch {
		case j.State != "JobComplete":
			fail(unusablef("the job is %s: %s", j.State, clip(j.Message, 300)))
			return
		case j.Processed == nil:
			fail(unusablef("Salesforce does not say how many records the job found"))
			return
		}
		// Without it a copy that is gone on with hours later could not be told from a fresh one.
		asOf, err := parseStamp(j.Created)
		if err != nil {
			fail(unusablef("Salesforce does not say when the job was created"))
			return
		}
		limit := o.pageSize()
		locators, firsts := map[string]bool{}, map[string]bool{}
		for {
			records, next, err := o.bulkResults(ctx, obj, at)
			last := next == ""
			switch {
			case err != nil:
			case at.rows+len(records) > *j.Processed || last && at.rows+len(records) < *j.Processed:
				err = unusablef("the job found %d records and its results have %d", *j.Processed, at.rows+len(records))
			case at.skip > len(records):
				err = unusablef("a page of results has %d records and had more than %d before", len(records), at.skip)
			case !last && (len(records) == 0 || locators[next]):
				err = unusablef("the results lead nowhere")
			case len(records) > 0 && firsts[records[0].ID]:
				err = unusablef("a page of results came twice")
			}
			if err != nil {
				fail(err)
				return
			}
			locators[next] = true
			if len(records) > 0 {
				firsts[records[0].ID] = true
			}
			for done := at.skip; ; {
				part := records[done:min(done+limit, len(records))]
				done += len(part)
				following := mark{job: at.job, query: at.query, rows: at.rows, skip: done, locator: at.locator}
				if done == len(records) {
					following = mark{job: at.job, query: at.query, rows: at.rows + done, locator: next, end: last}
				}
				known = true
				if !yield(crm.Page{Records: part, AsOf: asOf, Next: crm.Key{Object: obj.name, ID: following.String()}}, nil) {
					return
				}
				if done == len(records) {
					at = following
					break
				}
			}
			if last {
				o.dropJob(ctx, "query", j.ID, true)
				return
			}
		}
	}
}

// bulkResults reads the page of results at the mark. next is where the following one begins, "" behind the last.
func (o *Org) bulkResults(ctx context.Context, obj *object, at mark) (records []crm.Record, next string, err error) {
	target := "/jobs/query/" + at.job + "/results?maxRecords=" + strconv.Itoa(bulkPage)
	if at.locator != "" {
		target += "&locator=" + url.QueryEscape(at.locator)
	}
	a, err := o.call(ctx, http.MethodGet, o.data(target), nil, "Accept", "text/csv")
	if err != nil {
		return nil, "", bulkError(err)
	}
	next = a.header.Get("Sforce-Locator")
	n, err := strconv.Atoi(a.header.Get("Sforce-NumberOfRecords"))
	if next == "" || err != nil {
		return nil, "", unusablef("the results come without Sforce-Locator and Sforce-NumberOfRecords; a proxy between heed and Salesforce may drop them")
	}
	if next == "null" {
		next = ""
	}
	records, err = o.bulkRecords(obj, a.body)
	switch {
	case err != nil:
		return nil, "", err
	case len(records) != n:
		return nil, "", unusablef("a page of results has %d records and should have %d", len(records), n)
	}
	return records, next, nil
}

// bulkRecords reads a page of results. Columns are found by their names: their order is Salesforce's.
func (o *Org) bulkRecords(obj *object, body []byte) ([]crm.Record, error) {
	r := csv.NewReader(bytes.NewReader(body))
	r.ReuseRecord = true
	head, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil // of a job without records
	}
	if err != nil {
		return nil, unusablef("the results are no CSV: %v", err)
	}
	line := &csvRow{columns: make(map[string]int, len(head))}
	for _, want := range strings.Split(obj.fields, ", ") {
		at := -1
		for i, name := range head {
			if strings.EqualFold(name, want) {
				at = i
			}
		}
		if at < 0 {
			return nil, unusablef("the results lack the column %s", want)
		}
		line.columns[want] = at
	}
	self := o.selfID()
	records := make([]crm.Record, 0, bytes.Count(body, []byte("\n")))
	for {
		if line.cells, err = r.Read(); errors.Is(err, io.EOF) {
			return records, nil
		} else if err != nil {
			return nil, unusablef("the results are no CSV: %v", err)
		}
		rec, err := obj.record(line, self, false)
		if err != nil {
			return nil, unreadableRecord(obj, err)
		}
		records = append(records, rec)
	}
}

// csvRow is a record of a bulk job's results. An empty cell is null. (#N/A is null in what is sent to Salesforce; what is
// read says it only where somebody wrote it into a field.) The cells are the reader's and change with the next line, so
// what is kept of them is copied.
type csvRow struct {
	columns map[string]int
	cells   []string
}

func (r *csvRow) cell(name string) (string, error) {
	if i, ok := r.columns[name]; ok {
		return r.cells[i], nil
	}
	for k, i := range r.columns {
		if strings.EqualFold(k, name) {
			return r.cells[i], nil
		}
	}
	return "", fmt.Errorf("the results lack the column %s", name)
}

func (r *csvRow) text(name string) (string, error) {
	s, err := r.cell(name)
	return strings.Clone(s), err
}

func (r *csvRow) bool(name string) (bool, error) {
	s, err := r.cell(name)
	switch {
	case err != nil:
		return false, err
	case s == "true":
		return true, nil
	case s == "false":
		return false, nil
	}
	return false, fmt.Errorf("the field %s is neither true nor false: is it a checkbox?", name)
}

func (r *csvRow) modifier() string {
	s, _ := r.cell("LastModifiedBy.Name")
	return strings.Clone(s)
}
