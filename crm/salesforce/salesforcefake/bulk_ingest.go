package salesforcefake

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// bulkIngest is the data and the outcome of an ingest job. Rows are kept as places in the uploaded text.
type bulkIngest struct {
	externalID string
	data       []byte // nil before the upload
	uploaded   bool

	ready   bool
	header  []string
	fields  []*field
	offsets []uint32 // where each row begins; one more for the end
	state   []rowState
	nums    []uint32       // the record of a row that is done
	errs    map[int]string // sf__Error of a row that failed
	order   []int          // batches, in the order of their processing
	done    int            // batches done
}

type rowState uint8

const (
	rowWaiting rowState = iota
	rowUpdated
	rowCreated
	rowFailed
)

func (c *call) newBulkIngest(j *job, in jobRequest) *apiError {
	t := c.o.table(in.Object)
	switch in.Operation {
	case "insert", "update", "upsert", "delete":
	case "hardDelete":
		if !c.o.admin(c.user) {
			return &apiError{status: 403, code: "FEATURENOTENABLED",
				message: "hardDelete operation requires special user profile permission, please contact your system administrator"}
		}
	default:
		return refuse("INVALIDJOB", "Invalid operation: %s", in.Operation)
	}
	if in.Query != "" {
		return refuse("INVALIDJOB", "query must not be specified in an ingest job")
	}
	if t == nil || c.o.objectAccess(c.user, t) == Hidden {
		return refuse("INVALIDENTITY", "Unable to find object: %s", in.Object)
	}
	if t.readOnly {
		return refuse("INVALIDENTITY", "Entity '%s' is not supported by the Bulk API.", t.name)
	}
	b := &bulkIngest{errs: map[int]string{}}
	if in.Operation == "upsert" {
		f := c.o.visible(c.user, t, in.ExternalID)
		if f == nil || f.sys != sysID && !f.ExternalID {
			return refuse("INVALIDJOB", "External ID was not found for %s. Field name: %s", t.name, in.ExternalID)
		}
		b.externalID = f.Name
	} else if in.ExternalID != "" {
		return refuse("INVALIDJOB", "externalIdFieldName is for upsert alone")
	}
	j.table, j.ingest, j.state = t, b, jobOpen
	return nil
}

func (c *call) upload(kind string, j *job) *response {
	b := j.ingest
	switch ct := strings.ToLower(c.header.Get("Content-Type")); {
	case j.state != jobOpen:
		return restError(kind, badJobState("Job is not open: its state is %s", j.state))
	case b.uploaded:
		return restError(kind, refuse("CLIENTINPUTERROR", "Found multiple contents for job: <%s>, please 'Close' / 'Abort' / 'Delete' "+
			"the current Job then create a new Job and make sure you only do 'PUT' once on a given Job.", j.id))
	case !strings.HasPrefix(ct, "text/csv"):
		return restError(kind, &apiError{status: 415, code: "UNSUPPORTED_MEDIA_TYPE", message: "Content type of the request must be text/csv"})
	}
	b.data, b.uploaded = c.body, true
	return &response{kind: kind, status: 201}
}

// prepare reads the header and finds the rows. What it returns fails the whole job.
func (b *bulkIngest) prepare(o *Org, j *job) error {
	data := b.data
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New("InvalidBatch : Unable to find any data to create batch")
	}
	head, _, _ := bytes.Cut(data, []byte("\n"))
	if crlf := bytes.HasSuffix(head, []byte("\r")); crlf != (j.ending == "CRLF") && bytes.IndexByte(data, '\n') >= 0 {
		return fmt.Errorf("ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is %s", j.ending)
	}
	r := csv.NewReader(bytes.NewReader(data))
	r.Comma, r.ReuseRecord = delimiters[j.delimiter], true
	header, err := r.Read()
	if err != nil {
		return fmt.Errorf("InvalidBatch : Failed to parse CSV header: %w", err)
	}
	for _, name := range header {
		f := o.visible(j.user, j.table, strings.TrimSpace(name))
		if f == nil {
			return fmt.Errorf("InvalidBatch : Field name not found : %s", name)
		}
		b.header, b.fields = append(b.header, strings.Clone(name)), append(b.fields, f)
		if strings.HasSuffix(strings.ToLower(j.operation), "delete") && f.sys != sysID {
			return fmt.Errorf("InvalidBatch : Field name not allowed for %s : %s", j.operation, name)
		}
	}
	b.offsets = []uint32{uint32(r.InputOffset())}
	for {
		_, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("InvalidBatch : Failed to parse CSV: %w", err)
		}
		b.offsets = append(b.offsets, uint32(r.InputOffset()))
	}
	n := len(b.offsets) - 1
	b.state, b.nums = make([]rowState, n), make([]uint32, n)
	for i := range (n + bulkBatch - 1) / bulkBatch {
		b.order = append(b.order, i)
	}
	o.knobs.shuffleBatches(b.order)
	b.ready = true
	return nil
}

// runBulkIngest processes the batches that are due.
func (o *Org) runBulkIngest(j *job, progress float64) {
	b := j.ingest
	if !b.ready {
		if err := b.prepare(o, j); err != nil {
			j.end(o, jobFailed, err.Error())
			return
		}
	}
	due := int(progress * float64(len(b.order)))
	if j.fate == "fail" {
		due = min(due, len(b.order)/2)
	}
	for ; b.done < due; b.done++ {
		o.ingestBatch(j, b.order[b.done])
	}
	switch {
	case j.fate == "fail" && progress >= 1:
		j.end(o, jobFailed, "InternalServerError : Ingest batch was retried more than 10 times. Batch will not be retried.")
	case progress >= 1:
		j.end(o, jobComplete, "")
	}
}

// rowsOf returns a batch's first row and the one after its last.
func (b *bulkIngest) rowsOf(batch int) (from, to int) {
	return batch * bulkBatch, min((batch+1)*bulkBatch, len(b.state))
}

func (b *bulkIngest) reader(j *job, from, to int) *csv.Reader {
	r := csv.NewReader(bytes.NewReader(b.data[b.offsets[from]:b.offsets[to]]))
	r.Comma, r.FieldsPerRecord = delimiters[j.delimiter], len(b.header)
	return r
}

// ingestBatch saves one batch, 200 rows at a time, as the platform does.
func (o *Org) ingestBatch(j *job, batch int) {
	b := j.ingest
	from, to := b.rowsOf(batch)
	r := b.reader(j, from, to)
	c := &call{o: o, x: &tx{o: o}, user: j.user, version: j.version, nested: true}
	var by *field
	if b.externalID != "" {
		by = j.table.field(b.externalID)
	}
	for ; from < to; from += maxCollection {
		n := min(maxCollection, to-from)
		cells := make([][]string, n)
		for i := range cells {
			cells[i], _ = r.Read() // prepare has read it before
		}
		seen := map[string]bool{}
		out := make([]saveResult, n)
		failed := c.saveChunk(out, func(i int) (saveResult, *apiError) { return c.ingestRow(j, by, cells[i], seen) })
		for i, res := range out {
			at := from + i
			switch {
			case !res.Success:
				e := res.Errors[0]
				fields := strings.Join(e.Fields, ",")
				if fields != "" {
					fields += " "
				}
				b.state[at], b.errs[at] = rowFailed, e.StatusCode+":"+e.Message+":"+fields+"--"
			case res.Created != nil && *res.Created:
				b.state[at] = rowCreated
			default:
				b.state[at] = rowUpdated
			}
			if res.Success {
				b.nums[at] = j.table.number(res.ID)
			}
		}
		j.processed += n
		j.failed += failed
		c.tally(n-failed, failed)
	}
}

func (c *call) ingestRow(j *job, by *field, cells []string, seen map[string]bool) (saveResult, *apiError) {
	t, rec := j.table, map[string]any{}
	for i, f := range j.ingest.fields {
		v, err := cellValue(f, cells[i])
		if err != nil {
			return saveResult{}, err
		}
		if cells[i] != "" {
			rec[f.Name] = v
		}
	}
	created := j.operation == "insert"
	res, err := func() (saveResult, *apiError) {
		switch j.operation {
		case "insert":
			num, err := c.insert(t, rec)
			return saved(t.id(num)), err
		case "upsert":
			return c.upsertRow(t, by, rec, seen)
		}
		num, err := c.recordID(t, rec, seen)
		if err != nil {
			return saveResult{}, err
		}
		switch j.operation {
		case "delete":
			err = c.delete(t, num)
		case "hardDelete":
			if err = c.delete(t, num); err == nil {
				c.x.erase(t, num)
			}
		default:
			err = c.update(t, num, withoutID(rec))
		}
		return saved(t.id(num)), err
	}()
	if err != nil && err.code == "JSON_PARSER_ERROR" {
		err = wrongType(t.field(err.place), fmt.Sprint(rec[err.place]))
	}
	if created {
		res.Created = &created
	}
	return res, err
}

func wrongType(f *field, text string) *apiError {
	return refuse("INVALID_TYPE_ON_FIELD_IN_RECORD", "%s: value not of required type: %s", f.Label, text).on(f.Name)
}

// cellValue reads a CSV cell as the JSON value that means the same: an empty cell leaves the field alone, #N/A is null.
func cellValue(f *field, s string) (any, *apiError) {
	switch {
	case s == "#N/A":
		return nil, nil
	case f.Type == Checkbox && s != "":
		switch strings.ToLower(s) {
		case "true", "1":
			return true, nil
		case "false", "0":
			return false, nil
		}
		return nil, wrongType(f, s)
	case f.Type == Number && s != "":
		return json.Number(s), nil
	}
	return s, nil
}

func (c *call) ingestResults(kind string, j *job, which string) *response {
	c.o.advance(j)
	if !j.over() {
		return restError(kind, badJobState("Results of job %s in state %s are not available", j.id, j.state))
	}
	return &response{kind: kind, status: 200, ctype: "text/csv;charset=UTF-8",
		stream: func(out io.Writer) error { return j.streamIngest(out, which) }}
}

// streamIngest writes the rows of one outcome, batch by batch in the order in which they were processed. The job is
// over, so nothing changes any more.
func (j *job) streamIngest(out io.Writer, which string) error {
	b, w := j.ingest, csvForm(j)
	var buf bytes.Buffer
	head := b.header
	switch which {
	case "successfulResults":
		head = append([]string{"sf__Id", "sf__Created"}, head...)
	case "failedResults":
		head = append([]string{"sf__Id", "sf__Error"}, head...)
	}
	if len(head) > 0 {
		w.line(&buf, head...)
	}
	if !b.ready && which == "unprocessedrecords" { // it failed or was aborted before anything was read
		_, err := out.Write(b.data)
		return err
	}
	for _, batch := range b.order {
		from, to := b.rowsOf(batch)
		r := b.reader(j, from, to)
		for i := from; i < to; i++ {
			cells, err := r.Read()
			if err != nil {
				return err
			}
			w.first = true
			switch s := b.state[i]; {
			case which == "successfulResults" && (s == rowUpdated || s == rowCreated):
				w.cell(&buf, j.table.id(b.nums[i]))
				w.cell(&buf, strconv.FormatBool(s == rowCreated))
			case which == "failedResults" && s == rowFailed:
				w.cell(&buf, b.givenID(cells))
				w.cell(&buf, b.errs[i])
			case which == "unprocessedrecords" && s == rowWaiting:
			default:
				continue
			}
			for _, s := range cells {
				w.cell(&buf, s)
			}
			buf.WriteString(w.ending)
			if buf.Len() > 1<<16 {
				if _, err := out.Write(buf.Bytes()); err != nil {
					return err
				}
				buf.Reset()
			}
		}
	}
	_, err := out.Write(buf.Bytes())
	return err
}

// givenID is the id that a failed row named, if it is one.
func (b *bulkIngest) givenID(cells []string) string {
	for i, f := range b.fields {
		if id, ok := canonicalID(cells[i]); ok && f.sys == sysID {
			return id
		}
	}
	return ""
}
