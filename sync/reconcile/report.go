package reconcile

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
)

// TextOptions say how a report is to be written.
type TextOptions struct {
	Zone  *time.Location // for times; UTC if nil
	Limit int            // corrections listed for each cause; 50 if 0, all if negative
	Back  string         // address of the list of reports, for HTML that is served beside it; "" if it is mailed or saved
}

// countNames are the counts that a report names, in its order. Others are listed after them as they are.
var countNames = []struct{ name, text string }{
	{"records_read", "CRM records read"},
	{"pages", "pages of records"},
	{"records_gone", "records deleted, merged or converted"},
	{"records_hidden", "records that are no longer shown"},
	{"records_without_number", "records without a readable phone number"},
	{"ticked_without_number", "records with a ticked box and no readable phone number"},
	{"phones_unreadable", "phone fields that are no number"},
	{"inbound_read", "received messages compared with the ledger"},
	{"inbound_recovered", "received messages recovered, which no webhook had brought"},
	{"outbound_read", "sent messages looked through"},
	{"sends_settled", "sends whose unknown outcome was found"},
	{"sends_still_unknown", "sends whose outcome is still unknown"},
	{"errors", "sources that could not be read in full"},
}

// sumCounts are states, which the first lines of a report add up.
var sumCounts = []string{numbersOut, numbersSettled, numbersWaiting, numbersParked, optOutsReceived, optOutsApplied, optOutsPending, optOutsParked}

// Text writes a pass for people. Numbers are masked, and nothing of a message's text appears. corrections are the pass's
// (ledger.Ledger.Corrections); the sequence is gone through once for each cause, so that nothing has to be kept.
func Text(w io.Writer, p ledger.Pass, corrections iter.Seq2[ledger.Correction, error], o TextOptions) error {
	zone := o.Zone
	if zone == nil {
		zone = time.UTC
	}
	limit := cmp.Or(o.Limit, 50)
	b := bufio.NewWriter(w)
	say := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	at := func(t time.Time) string {
		return t.In(zone).Format("2006-01-02 15:04:05 MST")
	}

	if _, ok := p.Counts[optOutsReceived]; ok {
		say("%s received = %d applied + %d pending + %d parked",
			counted(p.Counts[optOutsReceived], "opt-out"), p.Counts[optOutsApplied], p.Counts[optOutsPending], p.Counts[optOutsParked])
	}
	if _, ok := p.Counts[numbersOut]; ok {
		say("%s opted out = %d with every known box set + %d with boxes still to be set + %d waiting for a person",
			counted(p.Counts[numbersOut], "number"), p.Counts[numbersSettled], p.Counts[numbersWaiting], p.Counts[numbersParked])
	}
	found := 0
	for _, n := range p.Causes {
		found += n
	}
	switch {
	case found > 0:
		var parts []string
		for _, r := range []struct{ result, text string }{{"done", "done"}, {"pending", "pending"}, {"parked", "waiting for a person"}, {leftAlone, "left alone"}, {"planned", "planned only (dry run)"}} {
			if n := p.Results[r.result]; n > 0 || r.result == "done" && p.Results["planned"] == 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n, r.text))
			}
		}
		say("%s found = %s", counted(found, "difference"), strings.Join(parts, " + "))
	case p.FinishedAt.IsZero():
		say("No differences so far; the pass has not ended.")
	case p.Error != "":
		say("No differences in what could be read. Not everything could: see below.")
	case p.Counts[numbersWaiting]+p.Counts[numbersParked] > 0:
		say("No new differences; the boxes above are still to be set.")
	case standing(p) > 0:
		say("No new differences; %d %s known and left alone, see below.", standing(p), choose(standing(p), "is", "are"))
	default:
		say("Nothing to report: CRM, provider and ledger agree.")
	}
	say("")
	what := p.Kind
	if p.Full {
		what += ", everything read"
	}
	say("Pass      %s (%s)", p.ID, what)
	switch {
	case p.FinishedAt.IsZero():
		say("Ran       %s – not ended: running, or interrupted and to be gone on with", at(p.StartedAt))
	default:
		say("Ran       %s – %s (%s)", at(p.StartedAt), at(p.FinishedAt), p.FinishedAt.Sub(p.StartedAt).Round(time.Millisecond))
	}
	if p.Error != "" {
		say("")
		say("PARTIAL. What could not be checked, and why:")
		for line := range strings.SplitSeq(p.Error, "\n") {
			say("  - %s", plain(line, 500))
		}
	}
	if len(p.Notes) > 0 {
		say("")
		say("Notes")
		for _, n := range p.Notes {
			say("  - %s", plain(n, 500))
		}
	}
	for _, cause := range causesOf(p) {
		say("")
		say("%s: %d", cause.Name, p.Causes[cause.Name])
		if cause.Means != "" {
			say("  %s", cause.Means)
			say("  What heed does: %s", cause.Did)
		}
		n := 0
		for c, err := range corrections {
			if err != nil {
				return err
			}
			if c.Cause != cause.Name {
				continue
			}
			if n++; limit >= 0 && n > limit {
				continue
			}
			say("  - %s [%s]", plain(c.Detail, 300), result(c))
			about := where(c)
			if c.By != "" {
				about = append(about, "last changed by "+plain(c.By, 80))
			}
			if !c.ByAt.IsZero() {
				about = append(about, at(c.ByAt))
			}
			if len(about) > 0 {
				say("    %s", strings.Join(about, ", "))
			}
			if c.Text != "" {
				say("    The CRM says: %s", plain(c.Text, 300))
			}
		}
		if limit >= 0 && n > limit {
			say("  … and %d more", n-limit)
		}
	}
	if len(p.Standing) > 0 {
		say("")
		say("LEFT ALONE: what heed knows and cannot or must not put right")
	}
	for _, s := range p.Standing {
		say("")
		say("%s: %d%s", s.Cause, s.N, since(s))
		if c, ok := causeOf(s.Cause); ok {
			say("  %s", c.Means)
			say("  What heed does: %s", c.Did)
		}
		listed := s.Listed
		if limit >= 0 {
			listed = listed[:min(len(listed), limit)]
		}
		for _, l := range listed {
			say("  - %s", plain(l.Detail, 300))
			if about := aboutLeft(l, at); about != "" {
				say("    %s", about)
			}
			if l.Text != "" {
				say("    Refused: %s", plain(l.Text, 300))
			}
		}
		if n := s.N - len(listed); n > 0 {
			say("  … and %d more", n)
		}
	}
	if p.Figures != nil {
		figuresText(p.Figures, zone, say)
	}
	heading := "\nCounts"
	tell := func(n int, text string) {
		if heading != "" {
			say("%s", heading)
			heading = ""
		}
		say("  %8d  %s", n, text)
	}
	for _, c := range countNames {
		if n, ok := p.Counts[c.name]; ok {
			tell(n, c.text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Counts)) {
		if !slices.Contains(sumCounts, name) && !slices.ContainsFunc(countNames, func(c struct{ name, text string }) bool { return c.name == name }) {
			tell(p.Counts[name], name)
		}
	}
	if p.Head != "" { // the totals are taken when the pass ends
		say("")
		say("Since the beginning")
		say("  %8d  messages received, %d of them opt-outs", p.Inbound, p.OptOuts)
		say("  %8d  sends blocked", p.Blocked)
		say("  %8d  sends with an unknown outcome; never repeated", p.Unknown)
		say("  %8d  pieces of work owed, %d of them waiting for a person", p.Owed, p.Parked)
		say("")
		say("Anchor    event %d, SHA-256 %s", p.HeadSeq, p.Head)
		say("          Keep this line outside heed: it proves that nothing before it was changed (heed verify).")
	}
	return b.Flush()
}

// standing counts the differences that are left alone.
func standing(p ledger.Pass) (n int) {
	for _, s := range p.Standing {
		n += s.N
	}
	return n
}

// since compares what stands with the full report before.
func since(s ledger.Standing) string {
	switch {
	case s.Before == nil:
		return ""
	case *s.Before == s.N:
		return ", as many as in the full report before"
	}
	return fmt.Sprintf(", after %d in the full report before", *s.Before)
}

// aboutLeft says where and since when a difference stands.
func aboutLeft(l ledger.Left, at func(time.Time) string) string {
	var about []string
	if l.Record != nil {
		about = append(about, l.CRM+" "+l.Record.Object+" "+l.Record.ID)
	} else if l.CRM != "" {
		about = append(about, l.CRM)
	}
	if l.By != "" {
		about = append(about, "last changed by "+plain(l.By, 80))
	}
	if !l.At.IsZero() {
		about = append(about, at(l.At))
	}
	return strings.Join(about, ", ")
}

func causeOf(name string) (Cause, bool) {
	i := rankOf(name)
	if i == len(Causes) {
		return Cause{Name: name}, false
	}
	return Causes[i], true
}

// figuresText writes what happened since the report before.
func figuresText(f *ledger.Figures, zone *time.Location, say func(string, ...any)) {
	at := func(t time.Time) string { return t.In(zone).Format("2006-01-02 15:04:05 MST") }
	exact := func(t time.Time) string { return t.In(zone).Format("2006-01-02 15:04:05.000 MST") }
	say("")
	if f.From.IsZero() {
		say("Since the beginning, up to event %d", f.UpTo)
	} else {
		say("Since the report before (%s), events %d to %d", at(f.From), f.After+1, f.UpTo)
	}
	say("  %8d  %s, %d of them recovered from the provider's log", f.OptOuts, choose(f.OptOuts, "opt-out", "opt-outs"), f.Recovered)
	say("  %8d  %s sent", f.Sent, choose(f.Sent, "message", "messages"))
	line := fmt.Sprintf("  %8d  %s not sent", notSent(f), choose(notSent(f), "message", "messages"))
	if f.MessageCost > 0 {
		line += fmt.Sprintf(", which would have cost %.2f", float64(notSent(f))*f.MessageCost)
	}
	say("%s", line)
	for _, reason := range byCount(f.Prevented) {
		say("  %8d    %s", f.Prevented[reason], reason)
	}
	for _, c := range f.Clocks {
		say("  %8d  %s reached the %s: half within %s, 95 %% within %s, the slowest in %s%s", c.N, choose(c.N, "opt-out", "opt-outs"), clockName(c.To), short(c.P50), short(c.P95), short(c.Worst), late(c))
	}
	under := len(f.InFlight) + f.InFlightMore
	if under == 1 {
		say("  %8d  send was under way when its number opted out; its bytes had left before that was recorded, and it may have arrived", under)
	} else {
		say("  %8d  sends were under way when their number opted out%s", under, inFlightNote)
	}
	for _, x := range f.InFlight {
		say("              %s to %s: begun %s, opt-out recorded %s, %s", x.Message, x.Number.Masked(), exact(x.Started), exact(x.Stop), x.Status)
	}
	if f.InFlightMore > 0 {
		say("              … and %d more", f.InFlightMore)
	}
	if len(f.Campaigns) > 0 {
		say("  Opt-outs by campaign: %s.", attribution(f))
		for _, c := range f.Campaigns {
			if c.Campaign == "" { // what was sent without a campaign is not what these opted out of
				say("  %8d  %s", c.OptOuts, campaignName(c))
				continue
			}
			say("  %8d  of %s: %s", c.OptOuts, counted(c.Sent, "message"), campaignName(c))
		}
	}
}

// choose is the form of a word that fits a number.
func choose(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// counted is a number with its noun.
func counted(n int, noun string) string {
	return fmt.Sprintf("%d %s", n, choose(n, noun, noun+"s"))
}

const inFlightNote = "; their bytes had left before it was recorded, and they may have arrived"

// attribution states the method wherever its figures are shown.
func attribution(f *ledger.Figures) string {
	return fmt.Sprintf("an opt-out counts for the campaign of the last message that was sent to the number, if that was at most %s before", short(f.Window))
}

func campaignName(c ledger.CampaignCount) string {
	if c.Campaign == "" {
		return "(no campaign)"
	}
	return plain(c.Campaign, 80)
}

func clockName(to string) string {
	switch to {
	case toBox:
		return "boxes"
	case toProvider:
		return "provider's own list"
	case toConfirmation:
		return "person as a confirmation"
	}
	return to
}

func late(c ledger.Clock) string {
	if c.Limit == "" {
		return ""
	}
	return fmt.Sprintf("; %d later than %s", c.Late, c.Limit)
}

// short writes a duration in its two largest units.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		h, m, sec := int(d.Hours()), int(d.Round(time.Second).Minutes())%60, int(d.Round(time.Second).Seconds())%60
		switch {
		case h > 0 && m > 0:
			return fmt.Sprintf("%dh %dm", h, m)
		case h > 0:
			return fmt.Sprintf("%dh", h)
		case sec > 0:
			return fmt.Sprintf("%dm %ds", m, sec)
		}
		return fmt.Sprintf("%dm", m)
	}
	return fmt.Sprintf("%d days", d.Round(time.Hour)/(24*time.Hour))
}

func result(c ledger.Correction) string {
	switch c.Result {
	case "parked":
		return "waiting for a person"
	case leftAlone:
		return "left alone"
	case "":
		return "pending"
	}
	return c.Result
}

// where names the record or the account that a correction is about.
func where(c ledger.Correction) []string {
	switch {
	case c.Record != nil:
		return []string{c.CRM + " " + c.Record.Object + " " + c.Record.ID}
	case c.Account != "":
		return []string{c.Account}
	}
	return nil
}

// causesOf returns the causes that a pass has, in the order of [Causes]; words that are not there come last.
func causesOf(p ledger.Pass) []Cause {
	var out []Cause
	for _, c := range Causes {
		if p.Causes[c.Name] > 0 {
			out = append(out, c)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Causes)) {
		if !slices.ContainsFunc(Causes, func(c Cause) bool { return c.Name == name }) {
			out = append(out, Cause{Name: name})
		}
	}
	return out
}

// plain makes other people's text fit a line of a terminal.
func plain(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + "…"
	}
	return s
}

// jsonPass and jsonCorrection fix the keys of [JSON].
type jsonPass struct {
	ID         string         `json:"id"`
	Kind       string         `json:"kind"`
	Full       bool           `json:"full"`
	StartedAt  time.Time      `json:"started_at"`
	FinishedAt *time.Time     `json:"finished_at"` // null: running or interrupted
	Error      string         `json:"error"`
	Notes      []string       `json:"notes"`
	Received   jsonReceived   `json:"received"`
	Numbers    jsonNumbers    `json:"numbers"`
	Counts     map[string]int `json:"counts"`
	Causes     map[string]int `json:"causes"`
	Results    map[string]int `json:"results"`
	Totals     jsonTotals     `json:"totals"`
	Anchor     jsonAnchor     `json:"anchor"`
	Figures    *jsonFigures   `json:"figures,omitempty"`
	Standing   []jsonStanding `json:"standing"`
}

type jsonReceived struct {
	OptOuts int `json:"opt_outs"` // the sum of the others
	Applied int `json:"applied"`
	Pending int `json:"pending"`
	Parked  int `json:"parked"`
}

type jsonStanding struct {
	Cause  string     `json:"cause"`
	N      int        `json:"n"`
	Before *int       `json:"before"` // in the full report before; null if that did not count them
	Listed []jsonLeft `json:"listed"` // those that changed last
}

type jsonLeft struct {
	CRM    string     `json:"crm,omitempty"`
	Record *crm.Key   `json:"record,omitempty"`
	Number string     `json:"number,omitempty"` // masked
	Detail string     `json:"detail"`
	By     string     `json:"by,omitempty"`
	At     *time.Time `json:"at,omitempty"`
	Text   string     `json:"text,omitempty"`
}

func standingJSON(list []ledger.Standing) []jsonStanding {
	out := []jsonStanding{}
	for _, s := range list {
		j := jsonStanding{s.Cause, s.N, s.Before, []jsonLeft{}}
		for _, l := range s.Listed {
			number := ""
			if l.Number.IsValid() {
				number = l.Number.Masked()
			}
			j.Listed = append(j.Listed, jsonLeft{l.CRM, l.Record, number, l.Detail, l.By, orNull(l.At), l.Text})
		}
		out = append(out, j)
	}
	return out
}

type jsonFigures struct {
	After       uint64         `json:"after"`
	UpTo        uint64         `json:"up_to"`
	From        *time.Time     `json:"from"` // null: since the beginning
	OptOuts     int            `json:"opt_outs"`
	Recovered   int            `json:"recovered"`
	Sent        int            `json:"sent"`
	NotSent     int            `json:"not_sent"`
	Prevented   map[string]int `json:"prevented"`
	MessageCost float64        `json:"message_cost,omitempty"`
	InFlight    []jsonInFlight `json:"in_flight"`
	InFlightAll int            `json:"in_flight_total"`
	Clocks      []jsonClock    `json:"clocks"`
	Attribution string         `json:"attribution"` // how opt-outs are counted for campaigns
	Campaigns   []jsonCampaign `json:"campaigns"`
}

type jsonInFlight struct {
	Message string    `json:"message"`
	Number  string    `json:"number"` // masked
	Started time.Time `json:"started"`
	Stop    time.Time `json:"stop"`
	Ended   time.Time `json:"ended"`
	Status  string    `json:"status"`
}

type jsonClock struct {
	To    string  `json:"to"`
	N     int     `json:"n"`
	P50   float64 `json:"p50_seconds"`
	P95   float64 `json:"p95_seconds"`
	Worst float64 `json:"worst_seconds"`
	Limit string  `json:"limit,omitempty"`
	Late  int     `json:"late"`
}

type jsonCampaign struct {
	Campaign string `json:"campaign"`
	Sent     int    `json:"sent"`
	OptOuts  int    `json:"opt_outs"`
}

func figuresJSON(f *ledger.Figures) *jsonFigures {
	if f == nil {
		return nil
	}
	out := &jsonFigures{After: f.After, UpTo: f.UpTo, From: orNull(f.From), OptOuts: f.OptOuts, Recovered: f.Recovered, Sent: f.Sent, NotSent: notSent(f),
		Prevented: orEmpty(f.Prevented), MessageCost: f.MessageCost, InFlight: []jsonInFlight{}, InFlightAll: len(f.InFlight) + f.InFlightMore,
		Clocks: []jsonClock{}, Attribution: attribution(f), Campaigns: []jsonCampaign{}}
	for _, x := range f.InFlight {
		out.InFlight = append(out.InFlight, jsonInFlight{x.Message, x.Number.Masked(), x.Started, x.Stop, x.Ended, string(x.Status)})
	}
	for _, c := range f.Clocks {
		out.Clocks = append(out.Clocks, jsonClock{c.To, c.N, c.P50.Seconds(), c.P95.Seconds(), c.Worst.Seconds(), c.Limit, c.Late})
	}
	for _, c := range f.Campaigns {
		out.Campaigns = append(out.Campaigns, jsonCampaign(c))
	}
	return out
}

type jsonNumbers struct {
	OptedOut int `json:"opted_out"` // the sum of the others
	Settled  int `json:"settled"`
	Waiting  int `json:"waiting"`
	Parked   int `json:"parked"`
}

type jsonTotals struct {
	Inbound uint64 `json:"inbound"`
	OptOuts uint64 `json:"opt_outs"`
	Blocked uint64 `json:"blocked"`
	Unknown uint64 `json:"unknown"`
	Owed    int    `json:"owed"`
	Parked  int    `json:"parked"`
}

type jsonAnchor struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"sha256"`
}

type jsonCorrection struct {
	Seq      uint64     `json:"seq,omitempty"`
	Cause    string     `json:"cause"`
	Action   string     `json:"action"`
	Result   string     `json:"result"`
	Number   string     `json:"number"` // masked
	CRM      string     `json:"crm,omitempty"`
	Account  string     `json:"account,omitempty"`
	Record   *crm.Key   `json:"record,omitempty"`
	Detail   string     `json:"detail"`
	By       string     `json:"by,omitempty"`
	ByAt     *time.Time `json:"by_at,omitempty"`
	ResultAt *time.Time `json:"result_at,omitempty"`
	Text     string     `json:"text,omitempty"`
}

// JSON writes a pass as one object: {"pass": {…}, "corrections": […]}. The keys are stable. Numbers are masked.
func JSON(w io.Writer, p ledger.Pass, corrections iter.Seq2[ledger.Correction, error]) error {
	counts := maps.Clone(p.Counts)
	for _, name := range sumCounts {
		delete(counts, name)
	}
	head, err := json.Marshal(jsonPass{
		ID: p.ID, Kind: p.Kind, Full: p.Full, StartedAt: p.StartedAt, FinishedAt: orNull(p.FinishedAt), Error: p.Error,
		Notes:    append([]string{}, p.Notes...),
		Received: jsonReceived{p.Counts[optOutsReceived], p.Counts[optOutsApplied], p.Counts[optOutsPending], p.Counts[optOutsParked]},
		Numbers:  jsonNumbers{p.Counts[numbersOut], p.Counts[numbersSettled], p.Counts[numbersWaiting], p.Counts[numbersParked]},
		Counts:   orEmpty(counts), Causes: orEmpty(p.Causes), Results: orEmpty(p.Results),
		Totals: jsonTotals{p.Inbound, p.OptOuts, p.Blocked, p.Unknown, p.Owed, p.Parked},
		Anchor: jsonAnchor{p.HeadSeq, p.Head}, Figures: figuresJSON(p.Figures), Standing: standingJSON(p.Standing),
	})
	if err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "{\"pass\":%s,\n\"corrections\":[", head)
	separator := "\n"
	for c, err := range corrections {
		if err != nil {
			return err
		}
		line, err := json.Marshal(jsonCorrection{
			Seq: c.Seq, Cause: c.Cause, Action: c.Action, Result: cmp.Or(c.Result, "pending"), Number: c.Number.Masked(),
			CRM: c.CRM, Account: c.Account, Record: c.Record, Detail: c.Detail,
			By: c.By, ByAt: orNull(c.ByAt), ResultAt: orNull(c.ResultAt), Text: c.Text,
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "%s%s", separator, line)
		separator = ",\n"
	}
	b.WriteString("\n]}\n")
	return b.Flush()
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func orEmpty(m map[string]int) map[string]int {
	if m == nil {
		return map[string]int{}
	}
	return m
}

// All makes the corrections of a [Result] what [Text] and [JSON] take.
func (r Result) All() iter.Seq2[ledger.Correction, error] {
	return func(yield func(ledger.Correction, error) bool) {
		for _, c := range r.Corrections {
			if !yield(c, nil) {
				return
			}
		}
	}
}
