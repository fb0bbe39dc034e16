package connector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/export"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

// Bulk opts many numbers out at once, or undoes that, for a person at the page or the command line. It is done in two
// steps: Plan looks and changes nothing; Apply changes what the person confirmed.
//
// Both can be repeated: what was done is found done. An Apply that was interrupted is gone on with by planning again.
type Bulk struct {
	Ledger ledger.Ledger
	CRMs   []CRM
	Region string // of numbers without a country code
	Now    func() time.Time
}

// BulkPlan is what a list would do.
type BulkPlan struct {
	Undo       bool           `json:"undo"`
	Format     export.Format  `json:"format"`                   // csv or xlsx
	Column     string         `json:"column"`                   // the one with the numbers
	Ignored    []string       `json:"ignored_sheets,omitempty"` // sheets of a workbook without numbers
	Rows       int            `json:"rows"`                     // with something in the column
	Empty      int            `json:"empty"`                    // with nothing in it
	Change     []phone.Number `json:"-"`                        // each once, in the order of the list
	Already    int            `json:"already"`                  // rows with nothing to do
	Refused    int            `json:"refused"`                  // undo: the recipient's own opt-outs, which only START lifts
	Duplicates int            `json:"duplicates"`               // rows whose number stands in an earlier one
	Unreadable int            `json:"unreadable"`               // rows that are no telephone number
	Problems   []string       `json:"problems"`                 // the first MaxProblems of them: the place and the reason, never the cell
	Records    int            `json:"records"`                  // CRM records that carry a number of Change, as far as they were read
}

// MaxProblems bounds BulkPlan.Problems.
const MaxProblems = 20

// ErrTooMany is returned by Plan for a list with more rows than asked for.
var ErrTooMany = errors.New("too many numbers")

// Plan reads a list (see export.Reader; column is its Column) and says what it would do, in at most limit rows; 0 for no
// limit. The list's own flaws are errors that wrap export.ErrList.
func (b *Bulk) Plan(ctx context.Context, list io.Reader, column string, undo bool, limit int) (BulkPlan, error) {
	p := BulkPlan{Undo: undo, Problems: []string{}}
	if err := b.Ledger.Health(); err != nil { // every number would look opted out
		return p, err
	}
	seen := map[phone.Number]bool{}
	layout, err := export.Reader{Column: column, Region: b.Region}.Read(list, func(e export.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.Problem == "" && !e.Number.IsValid() {
			p.Empty++
			return nil
		}
		if p.Rows++; limit > 0 && p.Rows > limit {
			return ErrTooMany
		}
		switch {
		case e.Problem != "":
			if p.Unreadable++; len(p.Problems) < MaxProblems {
				p.Problems = append(p.Problems, e.Where+": "+e.Problem)
			}
		case seen[e.Number]:
			p.Duplicates++
		default:
			seen[e.Number] = true
			return b.plan(ctx, &p, e.Number)
		}
		return nil
	})
	p.Format, p.Column, p.Ignored = layout.Format, layout.Column, layout.Ignored
	return p, err
}

func (b *Bulk) plan(ctx context.Context, p *BulkPlan, n phone.Number) error {
	switch change, err := b.change(ctx, n, p.Undo); {
	case errors.Is(err, ErrSticky), errors.Is(err, ErrHeld):
		p.Refused++
		return nil
	case err != nil:
		return err
	case !change:
		p.Already++
		return nil
	}
	p.Change = append(p.Change, n)
	for _, c := range b.CRMs {
		records, err := b.Ledger.Mirror(c.Name).ByNumber(ctx, n)
		if err != nil {
			return err
		}
		p.Records += len(records)
	}
	return nil
}

// change reports whether there is something to do for a number. ErrSticky and ErrHeld say that it may not be done.
func (b *Bulk) change(ctx context.Context, n phone.Number, undo bool) (bool, error) {
	s := b.Ledger.State(n)
	switch {
	case !undo:
		return s != consent.OptedOut, nil
	case s != consent.OptedOut:
		return false, nil
	}
	known, err := b.Ledger.Number(ctx, n)
	if err != nil {
		return false, err
	}
	return true, undoable(known, consent.Admin)
}

// bulkBatch is how many numbers are recorded with one durable write.
const bulkBatch = 500

// By is who changes something, where and why. All of it is kept.
type By struct {
	Who, Via, Why string
}

// BulkDone is what Apply did.
type BulkDone struct {
	Changed []phone.Number
	Already int // done since the plan was made
	Refused int // undo: the recipient opted out, or texted something unclear
}

// Apply records what a person confirmed, first the deed itself (ledger.Act), then each number. progress is called now and
// then with how many are done. After an error, which may be ctx's, what Changed names is done, and nothing else is.
func (b *Bulk) Apply(ctx context.Context, numbers []phone.Number, undo bool, by By, progress func(done int)) (out BulkDone, _ error) {
	what, action := "bulk_opt_out", consent.OptOut
	if undo {
		what, action = "bulk_undo", consent.Undo
	}
	if by.Why = strings.TrimSpace(by.Why); by.Why == "" || len(by.Why) > maxWhy {
		return out, &InputError{"why", fmt.Sprintf("is needed, in at most %d characters: it is kept with the name of who did it", maxWhy)}
	}
	if err := b.Ledger.Health(); err != nil {
		return out, err
	}
	if _, err := b.Ledger.Append(ctx, ledger.Event{Kind: ledger.KindAct, At: b.Now().UTC(),
		Act: &ledger.Act{Who: by.Who, Via: by.Via, What: what, Detail: fmt.Sprintf("%d numbers", len(numbers)), Why: by.Why}}); err != nil {
		return out, err
	}
	for done := 0; done < len(numbers); {
		batch := numbers[done:min(done+bulkBatch, len(numbers))]
		var events []ledger.Event
		for _, n := range batch {
			switch change, err := b.change(ctx, n, undo); {
			case errors.Is(err, ErrSticky), errors.Is(err, ErrHeld):
				out.Refused++
			case err != nil:
				return out, err
			case !change:
				out.Already++
			default:
				c := consent.Change{Action: action, Source: consent.Admin, At: b.Now().UTC()}
				events = append(events, ledger.Event{Kind: ledger.KindConsent, At: c.At, Number: n, Consent: &ledger.Consent{Change: c, Actor: by.Who, Why: by.Why}})
			}
		}
		if err := ctx.Err(); err != nil {
			return out, err
		}
		// Not tied to ctx: what is being written would be done, and not be named.
		if len(events) > 0 {
			if _, err := b.Ledger.Append(context.WithoutCancel(ctx), events...); err != nil {
				return out, err
			}
		}
		for _, e := range events {
			out.Changed = append(out.Changed, e.Number)
		}
		done += len(batch)
		progress(done)
	}
	return out, nil
}

// maxWhy bounds a reason, in bytes.
const maxWhy = 500
