package reconcile

import (
	"bufio"
	_ "embed"
	"encoding/csv"
	"fmt"
	"html/template"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/export"
	"github.com/heed-sms/heed/connector/ledger"
)

//go:embed report.html
var reportHTML string

var htmlTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"short": short, "clockName": clockName, "campaignName": campaignName, "result": result,
	"since":  since,
	"plain":  func(s string) string { return plain(s, 500) },
	"where":  func(c ledger.Correction) string { return strings.Join(where(c), ", ") },
	"lines":  func(s string) []string { return strings.Split(s, "\n") },
	"choose": choose,
	"rate": func(c ledger.CampaignCount) string {
		if c.Sent == 0 || c.Campaign == "" { // what was sent without a campaign is not what these opted out of
			return "–"
		}
		return fmt.Sprintf("%.1f %%", 100*float64(c.OptOuts)/float64(c.Sent))
	},
	"width": func(n, most int) int { // of a bar, in the chart's units
		if n > 0 && most > 0 {
			return max(2, 400*n/most)
		}
		return 0
	},
	"y":   func(i int) int { return 24 * i },
	"add": func(a, b int) int { return a + b },
}).Parse(reportHTML))

// htmlReport is what the template shows.
type htmlReport struct {
	Pass       ledger.Pass
	Back       string
	Figures    *ledger.Figures
	At         func(time.Time) string
	Exact      func(time.Time) string
	Found      int
	Most       int // the longest bar
	Causes     []htmlCause
	Received   bool
	Numbers    bool
	Standing   []htmlStanding
	StandingN  int
	Out, Set   int
	Waiting    int
	Parked     int
	NotSent    int
	Cost       string
	Reasons    []string
	Method     string
	InFlight   string
	Counts     []htmlCount
	Agree      bool
	FinishedAt bool
	Took       time.Duration
}

type htmlCause struct {
	Cause
	N           int
	Corrections []ledger.Correction
	More        int
}

type htmlStanding struct {
	Cause
	ledger.Standing
	Lines []htmlLeft
	More  int
}

type htmlLeft struct{ Detail, Where, Text string }

type htmlCount struct {
	N    int
	Text string
}

// maxHTML bounds the corrections that a page lists for each cause, so that a browser can show it. The CSV has them all.
const maxHTML = 500

// HTML writes a pass as one self-contained page: no script, no request to anywhere, light and dark, fit to be printed and
// mailed. Numbers are masked.
func HTML(w io.Writer, p ledger.Pass, corrections iter.Seq2[ledger.Correction, error], o TextOptions) error {
	zone := o.Zone
	if zone == nil {
		zone = time.UTC
	}
	r := htmlReport{Pass: p, Back: o.Back, Figures: p.Figures,
		At:    func(t time.Time) string { return t.In(zone).Format("2006-01-02 15:04:05 MST") },
		Exact: func(t time.Time) string { return t.In(zone).Format("2006-01-02 15:04:05.000 MST") },
		Out:   p.Counts[numbersOut], Set: p.Counts[numbersSettled], Waiting: p.Counts[numbersWaiting], Parked: p.Counts[numbersParked],
		FinishedAt: !p.FinishedAt.IsZero(), InFlight: strings.TrimPrefix(inFlightNote, "; "),
	}
	_, r.Received = p.Counts[optOutsReceived]
	_, r.Numbers = p.Counts[numbersOut]
	r.StandingN = standing(p)
	for _, s := range p.Standing {
		cause, _ := causeOf(s.Cause)
		h := htmlStanding{Cause: cause, Standing: s, More: s.N - len(s.Listed)}
		for _, l := range s.Listed {
			h.Lines = append(h.Lines, htmlLeft{l.Detail, aboutLeft(l, r.At), l.Text})
		}
		r.Standing = append(r.Standing, h)
	}
	if r.FinishedAt {
		r.Took = p.FinishedAt.Sub(p.StartedAt).Round(time.Millisecond)
	}
	index := map[string]int{}
	for _, c := range causesOf(p) {
		index[c.Name] = len(r.Causes)
		r.Causes = append(r.Causes, htmlCause{Cause: c, N: p.Causes[c.Name]})
		r.Found += p.Causes[c.Name]
		r.Most = max(r.Most, p.Causes[c.Name])
	}
	r.Agree = r.FinishedAt && r.Found == 0 && p.Error == "" && r.Waiting+r.Parked+r.StandingN == 0
	for c, err := range corrections {
		if err != nil {
			return err
		}
		i, ok := index[c.Cause]
		switch {
		case !ok: // recorded after the pass was read
		case len(r.Causes[i].Corrections) == maxHTML:
			r.Causes[i].More++
		default:
			r.Causes[i].Corrections = append(r.Causes[i].Corrections, c)
		}
	}
	if f := p.Figures; f != nil {
		r.NotSent, r.Reasons, r.Method = notSent(f), byCount(f.Prevented), attribution(f)
		if f.MessageCost > 0 {
			r.Cost = fmt.Sprintf("%.2f", float64(r.NotSent)*f.MessageCost)
		}
	}
	for _, c := range countNames {
		if n, ok := p.Counts[c.name]; ok {
			r.Counts = append(r.Counts, htmlCount{n, c.text})
		}
	}
	b := bufio.NewWriter(w)
	if err := htmlTemplate.Execute(b, r); err != nil {
		return err
	}
	return b.Flush()
}

// CSV writes a pass's corrections, one a line, and then what it lists of the differences that are left alone, for a
// spreadsheet: RFC 4180, UTF-8, with a header. Numbers are masked. A cell that a spreadsheet would read as a formula has an
// apostrophe before it.
func CSV(w io.Writer, p ledger.Pass, corrections iter.Seq2[ledger.Correction, error]) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"pass", "seq", "cause", "action", "result", "number", "crm", "object", "record", "account", "detail", "by", "by_at", "result_at", "text"})
	stamp := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	write := func(row ...string) {
		for i := range row {
			row[i] = export.Cell(plain(row[i], 1000))
		}
		_ = c.Write(row) // what fails is told at the end
	}
	for x, err := range corrections {
		if err != nil {
			return err
		}
		object, id := "", ""
		if x.Record != nil {
			object, id = x.Record.Object, x.Record.ID
		}
		write(p.ID, fmt.Sprint(x.Seq), x.Cause, x.Action, result(x), x.Number.Masked(), x.CRM, object, id, x.Account, x.Detail, x.By, stamp(x.ByAt), stamp(x.ResultAt), x.Text)
	}
	for _, s := range p.Standing {
		for _, l := range s.Listed {
			object, id, number := "", "", ""
			if l.Record != nil {
				object, id = l.Record.Object, l.Record.ID
			}
			if l.Number.IsValid() {
				number = l.Number.Masked()
			}
			write(p.ID, "", s.Cause, none, result(ledger.Correction{Result: leftAlone}), number, l.CRM, object, id, "", l.Detail, l.By, stamp(l.At), "", l.Text)
		}
	}
	c.Flush()
	return c.Error()
}
