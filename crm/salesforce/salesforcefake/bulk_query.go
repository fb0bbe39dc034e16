package salesforcefake

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// defaultResultRows is a page of results without maxRecords and without the knob bulk_page_rows; the guide leaves it to
// the service.
const defaultResultRows = 50_000

// bulkQuery holds row versions, not text: eight bytes a row, and CSV is written as it is read.
type bulkQuery struct {
	compiled *compiled
	columns  []column
	rows     []*row
	pages    int // read so far
}

type column struct {
	name string
	acc  accessor
}

// newBulkQuery binds the query of a new job, or refuses what Bulk API 2.0 does not answer.
func (c *call) newBulkQuery(j *job, in jobRequest) *apiError {
	if in.Operation != "query" && in.Operation != "queryAll" {
		return refuse("INVALIDJOB", "Invalid operation: %s", in.Operation)
	}
	if in.Object != "" {
		return refuse("INVALIDJOB", "object must not be specified in a query job: the query names it")
	}
	if len(c.o.jobs.queries) >= maxBulkQuery {
		return refuse("LIMIT_EXCEEDED", "Max bulk v2 query jobs (%d) per 24 hrs has been reached (%[1]d)", maxBulkQuery)
	}
	if err := bulkUnsupported(in.Query); err != nil {
		return err
	}
	q, err := parseSOQL(in.Query)
	if err != nil {
		return err
	}
	cq, err := c.o.compile(q, c.user, in.Operation == "queryAll")
	if err != nil {
		return err
	}
	b := &bulkQuery{compiled: cq}
	for _, p := range q.fields {
		acc, err := c.o.resolve(c.user, cq.t, q.text, p)
		if err != nil {
			return err
		}
		name := ""
		for _, h := range acc.hops {
			name += h.ref.relation + "."
		}
		b.columns = append(b.columns, column{name + acc.f.Name, acc})
	}
	if v, _ := strconv.ParseFloat(strings.TrimPrefix(c.version, "v"), 64); v < 50 { // by the guide's note on column order
		slices.SortFunc(b.columns, func(a, b column) int { return strings.Compare(a.name, b.name) })
	}
	j.table, j.query = cq.t, b
	c.o.jobs.queries = append(c.o.jobs.queries, c.o.now())
	return nil
}

// bulkUnsupported refuses what the guide lists under SOQL considerations: GROUP BY, OFFSET, TYPEOF, aggregates, compound
// fields and child subqueries.
func bulkUnsupported(text string) *apiError {
	no := func(what string) *apiError {
		return refuse("FUNCTIONALITY_NOT_ENABLED", "%s not supported in Bulk Query", what)
	}
	p := &parser{text: text}
	var before token
	from := false
	for p.next(); p.err == nil && p.tok.kind != tokEOF; p.next() {
		t := p.tok
		open := t.kind == tokPunct && t.text == "("
		switch {
		case t.is("FROM"):
			from = true
		case t.is("OFFSET"), t.is("TYPEOF"), t.is("HAVING"):
			return no(strings.ToUpper(t.text) + " clause")
		case t.is("GROUP"):
			return no("GROUP BY clause")
		case open && before.kind == tokWord && slices.Contains([]string{"COUNT", "COUNT_DISTINCT", "SUM", "AVG", "MIN", "MAX"}, strings.ToUpper(before.text)):
			return no("Aggregate function " + strings.ToUpper(before.text))
		case !from && t.is("SELECT") && before.text == "(":
			return no("Aggregate Relationships")
		case !from && (t.is("Address") || t.is("MailingAddress") || t.is("OtherAddress") || t.is("BillingAddress") || t.is("ShippingAddress") || t.is("PersonMailingAddress")):
			return no("Selecting compound data")
		}
		before = t
	}
	return nil
}

func (o *Org) runBulkQuery(j *job) {
	if j.fate == "fail" {
		j.end(o, jobFailed, "InternalServerError : Query batch was retried more than 15 times. Add a filter and try again.")
		return
	}
	j.query.rows = j.query.compiled.run()
	j.processed = len(j.query.rows)
	j.end(o, jobComplete, "")
}

func (c *call) queryResults(kind string, j *job, at int) *response {
	c.o.advance(j)
	switch {
	case j.state != jobComplete:
		return restError(kind, badJobState("Results of job %s in state %s are not available", j.id, j.state))
	case j.version != c.version:
		return restError(kind, &apiError{status: http.StatusConflict, code: "API_VERSION_MISMATCH",
			message: "The results must be read with the API version that created the job: " + j.version})
	}
	b := j.query
	size := c.o.knobs.bulkPage()
	if s := c.query.Get("maxRecords"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return restError(kind, refuse("INVALID_QUERY_LOCATOR", "maxRecords must be a positive number, not %s", s))
		}
		size = n
		if forced := c.o.knobs.bulkPageForced(); forced > 0 {
			size = min(size, forced)
		}
	}
	from := 0
	if s := c.query.Get("locator"); s != "" {
		raw, err := base64.RawStdEncoding.DecodeString(s)
		n, err2 := strconv.Atoi(string(raw))
		if err != nil || err2 != nil || n < 1 || n >= len(b.rows) {
			return restError(kind, refuse("INVALID_QUERY_LOCATOR", "invalid query locator"))
		}
		from = n
	}
	if j.fate == "expire" && b.pages > 0 {
		c.o.jobs.list = slices.Delete(c.o.jobs.list, at, at+1)
		return restError(kind, errNotFound())
	}
	b.pages++
	to := min(from+size, len(b.rows))
	locator := "null"
	if to < len(b.rows) {
		locator = base64.RawStdEncoding.EncodeToString([]byte(strconv.Itoa(to)))
	}
	header := map[string]string{"Sforce-NumberOfRecords": strconv.Itoa(to - from), "Sforce-Locator": locator}
	if c.o.knobs.dropBulkHeaders() {
		header = nil
	}
	rows, columns := b.rows[from:to], b.columns
	w := csvForm(j)
	return &response{kind: kind, status: 200, ctype: "text/csv;charset=UTF-8", header: header,
		stream: func(out io.Writer) error { return c.o.streamRows(out, w, columns, rows) }}
}

// csvWriter writes CSV as Bulk API 2.0 does: every cell quoted.
type csvWriter struct {
	delimiter, ending string
	first             bool
}

func csvForm(j *job) csvWriter {
	w := csvWriter{delimiter: string(delimiters[j.delimiter]), ending: "\n"}
	if j.ending == "CRLF" {
		w.ending = "\r\n"
	}
	return w
}

func (w *csvWriter) cell(b *bytes.Buffer, s string) {
	if !w.first {
		b.WriteString(w.delimiter)
	}
	w.first = false
	b.WriteByte('"')
	for {
		i := strings.IndexByte(s, '"')
		if i < 0 {
			break
		}
		b.WriteString(s[:i+1])
		b.WriteByte('"')
		s = s[i+1:]
	}
	b.WriteString(s)
	b.WriteByte('"')
}

func (w *csvWriter) line(b *bytes.Buffer, cells ...string) {
	w.first = true
	for _, s := range cells {
		w.cell(b, s)
	}
	b.WriteString(w.ending)
}

// streamRows writes rows in portions, and holds the read lock for one portion at a time: a slow reader stops nobody.
func (o *Org) streamRows(out io.Writer, w csvWriter, columns []column, rows []*row) error {
	const portion = 500
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	var b bytes.Buffer
	w.line(&b, names...)
	for {
		n := min(portion, len(rows))
		o.mu.RLock()
		for _, r := range rows[:n] {
			w.first = true
			for i := range columns {
				a := &columns[i].acc
				if len(a.hops) == 0 {
					w.cell(&b, csvText(o.get(a.t, r, a.f)))
				} else {
					w.cell(&b, csvText(a.get(o, r)))
				}
			}
			b.WriteString(w.ending)
		}
		o.mu.RUnlock()
		if _, err := out.Write(b.Bytes()); err != nil {
			return err
		}
		if rows = rows[n:]; len(rows) == 0 {
			return nil
		}
		b.Reset()
	}
}

// csvText is a value in a CSV result: null is empty, times end in Z, unlike those of the JSON answers.
func csvText(v value) string {
	switch v.kind {
	case kindBool:
		return strconv.FormatBool(v.n != 0)
	case kindTime:
		return time.UnixMilli(v.n).UTC().Format("2006-01-02T15:04:05.000Z")
	case kindNumber:
		s := strconv.FormatFloat(v.f, 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	return v.s
}
