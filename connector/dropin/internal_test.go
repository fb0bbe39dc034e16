package dropin

import (
	"context"
	"fmt"
	"iter"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/ledger"
)

// hourly is a ledger with one message an hour, back to the beginning of time.
type hourly struct {
	ledger.Ledger
	newest time.Time
	read   *int
}

func (hourly) Message(context.Context, string) (ledger.Message, error) {
	return ledger.Message{}, ledger.ErrNotFound
}

func (l hourly) Messages(context.Context, ledger.Status) iter.Seq2[ledger.Message, error] {
	return l.from(l.newest)
}

func (l hourly) MessagesBefore(_ context.Context, id string) iter.Seq2[ledger.Message, error] {
	var unix int64
	if _, err := fmt.Sscanf(id, "msg_%x", &unix); err != nil {
		panic(err)
	}
	return l.from(time.Unix(unix, 0).UTC().Add(-time.Hour))
}

func (l hourly) from(newest time.Time) iter.Seq2[ledger.Message, error] {
	return func(yield func(ledger.Message, error) bool) {
		for at := newest; at.Year() > 2000; at = at.Add(-time.Hour) {
			*l.read++
			if !yield(ledger.Message{ID: fmt.Sprintf("msg_%032x", at.Unix()), Account: "main", CreatedAt: at}, nil) {
				return
			}
		}
	}
}

func TestAPageDoesNotReadThePagesBeforeIt(t *testing.T) {
	read := 0
	h := &Handler{Ledger: hourly{newest: time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC), read: &read}, Accounts: []string{"main"}}
	uri, last := "/?PageSize=10", time.Time{}
	for number := range 20 {
		read = 0
		page, err := h.list(call{Request: httptest.NewRequestWithContext(t.Context(), "GET", uri, nil), account: "main"})
		if err != nil || len(page.Messages) != 10 || page.NextPageURI == nil || read != 11 {
			t.Fatalf("page %d: %d messages read, %+v, %v", number, read, page, err)
		}
		at, err := time.Parse(time.RFC1123Z, *page.Messages[0].DateCreated)
		if err != nil || number > 0 && !at.Equal(last.Add(-10*time.Hour)) {
			t.Fatalf("page %d begins at %s after %s: %v", number, at, last, err)
		}
		uri, last = *page.NextPageURI, at
	}
}

func TestAPollForRecentMessagesDoesNotReadTheWholeLedger(t *testing.T) {
	read := 0
	h := &Handler{Ledger: hourly{newest: time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC), read: &read}, Accounts: []string{"main"}}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/?DateSent%3E=2026-03-13", nil)
	page, err := h.list(call{Request: r, account: "main"})
	if err != nil || len(page.Messages) != 34 || read > 34+25 {
		t.Errorf("%d messages of %d read: %v", len(page.Messages), read, err)
	}
}

func TestAddressesThatLeadBackAreKnown(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.100.100.200", "169.254.169.254",
		"198.18.0.1", "192.0.0.192", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:10.0.0.1",
		"::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:1::", "localhost", "LOCALHOST."} {
		if !private(host) {
			t.Errorf("%s is taken for a public address", host)
		}
	}
	for _, host := range []string{"8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "2606:4700::1111", "2001:4860:4860::8888", "example.com"} {
		if private(host) {
			t.Errorf("%s is taken for a private address", host)
		}
	}
}

// FuzzForm checks that whatever a form says, it is refused with a code, or it is one message that asks for nothing that
// heed would leave out.
func FuzzForm(f *testing.F) {
	for _, s := range []string{
		"To=%2B12065550142&From=%2B15550100000&Body=hello", "To=+1&Body=%ff", "To=1&MediaUrl=https://a.example/b&MediaUrl=x",
		"To=1&Body=x&SendAt=&SendAt=2030-01-01", "To=whatsapp:%2B1&Body=x", "To=1&Body=x&SendAt=2030-01-02T00:00:00Z&ScheduleType=fixed&StatusCallback=https://a.example/%23rc=2", "a;b", "%", "To=1&To=2&Body=x", "&&==&",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		form, err := parseForm(body)
		if err == nil {
			var s connector.Send
			if s, err = parseSend(form, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)); err == nil {
				check(t, s, body)
				return
			}
		}
		e := errorOf(err)
		if e.Status < 400 || e.Status >= 500 || e.Code < 20000 {
			t.Errorf("%d %d", e.Status, e.Code)
		}
	})
}

func check(t *testing.T, s connector.Send, body string) {
	t.Helper()
	if s.To == "" || s.Body == "" && len(s.MediaURLs) == 0 || len(s.MediaURLs) > maxMedia || strings.Contains(s.To+s.From, ":") {
		t.Errorf("%+v", s)
	}
	for _, v := range append([]string{s.To, s.From, s.Body}, s.MediaURLs...) {
		if !utf8.ValidString(v) {
			t.Errorf("%q is not UTF-8", v)
		}
	}
	for _, u := range unsupported {
		// A parameter with a value, in its plain spelling.
		for part := range strings.SplitSeq(body, "&") {
			if v, ok := strings.CutPrefix(part, u.name+"="); ok && v != "" {
				t.Errorf("%s was ignored", u.name)
			}
		}
	}
}

// FuzzQuery checks that a list can be asked for anything.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "PageSize=10&Page=1&PageToken=PASM0123456789abcdef0123456789abcdef", "DateSent%3E=2026-01-01", "DateSent%3C=x", "PageToken=P", "Page=99999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err != nil {
			if e := errorOf(err); e.Status != 400 {
				t.Errorf("%d %d", e.Status, e.Code)
			}
			return
		}
		if q.size < 1 || q.size > maxPage || q.number < 0 || (q.token == "") != (q.id == "") {
			t.Errorf("%+v", q)
		}
		_ = q.page(nil, "AC", true, true)
	})
}
