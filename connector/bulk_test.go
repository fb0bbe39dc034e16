package connector_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/export"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

func newBulk(r *rig, l ledger.Ledger) *connector.Bulk {
	return &connector.Bulk{Ledger: l, CRMs: []connector.CRM{{Name: "org", Directory: r.crm}}, Region: "US", Now: time.Now}
}

var byMax = connector.By{Who: "max", Via: "command line", Why: "the old shop's list"}

func TestAPlanCountsEachRowOnce(t *testing.T) {
	r := newRig(t)
	b := newBulk(r, r.ledger)
	r.text(ada, "STOP")
	if err := r.ledger.Mirror("org").Put(t.Context(), []ledger.MirrorRecord{
		{Key: crm.Key{Object: "Contact", ID: "1"}, Numbers: []phone.Number{phone.MustParse("+12065550143")}},
		{Key: crm.Key{Object: "Lead", ID: "2"}, Numbers: []phone.Number{phone.MustParse("+12065550143"), ada}},
	}); err != nil {
		t.Fatal(err)
	}
	text := "name,phone\nAda," + ada.String() + "\nBob,(206) 555-0143\nBob,206.555.0143\nCy,\nDi,555\nEd,2065550144\n"
	p, err := b.Plan(t.Context(), strings.NewReader(text), "", false, 0)
	if err != nil || p.Rows != 5 || p.Empty != 1 || len(p.Change)+p.Already+p.Refused+p.Duplicates+p.Unreadable != p.Rows ||
		len(p.Change) != 2 || p.Already != 1 || p.Duplicates != 1 || p.Unreadable != 1 || p.Records != 2 || p.Column != "phone" || p.Format != export.CSV {
		t.Errorf("%+v, %v", p, err)
	}
	if len(p.Problems) != 1 || !strings.HasPrefix(p.Problems[0], "line 6: ") {
		t.Errorf("problems %q", p.Problems)
	}
	if _, err := b.Plan(t.Context(), strings.NewReader(text), "", false, 4); !errors.Is(err, connector.ErrTooMany) {
		t.Errorf("more rows than the limit: %v", err)
	}
	if _, err := b.Plan(t.Context(), strings.NewReader(text), "fax", false, 0); !errors.Is(err, export.ErrList) {
		t.Errorf("no such column: %v", err)
	}
	if s := r.ledger.State(phone.MustParse("+12065550143")); s != consent.Unknown {
		t.Errorf("a plan made Bob %s", s)
	}
}

// stops is a ledger on which only so many appends succeed.
type stops struct {
	ledger.Ledger
	left int
}

func (s *stops) Append(ctx context.Context, events ...ledger.Event) ([]ledger.Receipt, error) {
	if s.left--; s.left < 0 {
		return nil, ledger.ErrUnavailable
	}
	return s.Ledger.Append(ctx, events...)
}

// Whatever stops an import, what it says is done is done, and the next one does the rest and nothing twice.
func TestAnInterruptedImportIsGoneOnWithAndUndoneExactly(t *testing.T) {
	r := newRig(t)
	var list strings.Builder
	for i := range 1200 {
		fmt.Fprintf(&list, "+1206555%04d\n", i)
	}
	r.text(phone.MustParse("+12065550007"), "STOP")
	plan := func(undo bool) connector.BulkPlan {
		t.Helper()
		p, err := newBulk(r, r.ledger).Plan(t.Context(), strings.NewReader(list.String()), "", undo, 0)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := plan(false)
	if len(first.Change) != 1199 || first.Already != 1 {
		t.Fatalf("%d to change, %d already", len(first.Change), first.Already)
	}
	out, err := newBulk(r, &stops{r.ledger, 2}).Apply(t.Context(), first.Change, false, byMax, func(int) {})
	if !errors.Is(err, ledger.ErrUnavailable) || len(out.Changed) != 500 {
		t.Fatalf("%d are said to be done: %v", len(out.Changed), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	second := plan(false)
	if len(second.Change) != 699 || second.Already != 501 {
		t.Fatalf("after the interruption: %d to change, %d already", len(second.Change), second.Already)
	}
	for _, n := range out.Changed {
		if slices.Contains(second.Change, n) {
			t.Fatalf("%v is to be done again", n)
		}
	}
	var steps []int
	more, err := newBulk(r, r.ledger).Apply(ctx, second.Change, false, byMax, func(done int) {
		steps = append(steps, done)
		cancel()
	})
	if !errors.Is(err, context.Canceled) || len(more.Changed) != 500 || !slices.Equal(steps, []int{500}) {
		t.Fatalf("interrupted by the person: %d done, steps %v, %v", len(more.Changed), steps, err)
	}
	// The plan from the beginning is still right: it does only what is left.
	rest, err := newBulk(r, r.ledger).Apply(t.Context(), first.Change, false, byMax, func(int) {})
	if err != nil || len(rest.Changed) != 199 || rest.Already != 1000 {
		t.Fatalf("the rest: %d done, %d already, %v", len(rest.Changed), rest.Already, err)
	}
	if p := plan(false); len(p.Change) != 0 || p.Already != 1200 {
		t.Fatalf("a repetition would change %d", len(p.Change))
	}

	undo := plan(true)
	if len(undo.Change) != 1199 || undo.Refused != 1 {
		t.Fatalf("undo: %d to change, %d refused", len(undo.Change), undo.Refused)
	}
	// Somebody texts STOP between the preview and the confirmation.
	r.text(phone.MustParse("+12065550008"), "STOP")
	undone, err := newBulk(r, r.ledger).Apply(t.Context(), append(undo.Change, phone.MustParse("+12065550007")), true, byMax, func(int) {})
	if err != nil || len(undone.Changed) != 1198 || undone.Refused != 2 {
		t.Fatalf("undo: %d done, %d refused, %v", len(undone.Changed), undone.Refused, err)
	}
	for i := range 1200 {
		n := phone.MustParse(fmt.Sprintf("+1206555%04d", i))
		if out := r.ledger.State(n) == consent.OptedOut; out != (i == 7 || i == 8) {
			t.Errorf("%v: opted out is %v", n, out)
		}
	}
	var acts []string
	for e, err := range r.ledger.Audit(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if a := e.Act; a != nil {
			acts = append(acts, strings.Join([]string{a.Who, a.Via, a.What, a.Detail, a.Why}, "|"))
		}
	}
	if len(acts) != 4 || acts[0] != "max|command line|bulk_undo|1200 numbers|the old shop's list" || acts[3] != "max|command line|bulk_opt_out|1199 numbers|the old shop's list" {
		t.Errorf("acts %q", acts)
	}
}

// unwell is a ledger that cannot vouch for its state: every number looks opted out.
type unwell struct{ ledger.Ledger }

func (unwell) Health() error                    { return ledger.ErrUnavailable }
func (unwell) State(phone.Number) consent.State { return consent.OptedOut }

func TestALedgerThatCannotVouchIsNotTakenForOneInWhichAllIsDone(t *testing.T) {
	r := newRig(t)
	b := newBulk(r, unwell{r.ledger})
	if p, err := b.Plan(t.Context(), strings.NewReader(ada.String()), "", false, 0); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("planned %+v, %v", p, err)
	}
	if out, err := b.Apply(t.Context(), []phone.Number{ada}, false, byMax, func(int) {}); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("applied %+v, %v", out, err)
	}
	for _, why := range []string{"", "  ", strings.Repeat("x", 501)} {
		var input *connector.InputError
		if _, err := newBulk(r, r.ledger).Apply(t.Context(), []phone.Number{ada}, false, connector.By{Who: "max", Why: why}, func(int) {}); !errors.As(err, &input) {
			t.Errorf("why %q: %v", why, err)
		}
	}
	if s := r.ledger.State(ada); s != consent.Unknown {
		t.Errorf("Ada is %s", s)
	}
}
