package dropin

import (
	"context"
	"errors"
	"iter"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/sms/phone"
)

const (
	defaultPage = 50
	maxPage     = 1000
	// clockSlack is how far the order of messages may deviate from their times: a send waits for the ledger, and clocks
	// are set back.
	clockSlack = 24 * time.Hour
)

// pageJSON is Twilio's envelope of a list, https://www.twilio.com/docs/usage/twilios-response#pagination.
type pageJSON struct {
	FirstPageURI    string        `json:"first_page_uri"`
	End             int           `json:"end"`
	PreviousPageURI *string       `json:"previous_page_uri"`
	Messages        []messageJSON `json:"messages"`
	URI             string        `json:"uri"`
	PageSize        int           `json:"page_size"`
	Start           int           `json:"start"`
	NextPageURI     *string       `json:"next_page_uri"`
	Page            int           `json:"page"`
}

// query is what a list was asked for.
type query struct {
	values       url.Values
	to, from     string
	since, until time.Time // of sending: [since, until); zero is open
	size, number int
	token        string // as given: next to which message the page lies …
	id           string // … heed's id of that message
	back         bool   // the page lies before it, among the newer messages
}

// parseQuery reads the parameters of a list.
func parseQuery(raw string) (q query, err error) {
	bad := func(what string) (query, error) { return query{}, badRequest(20001, what) }
	if q.values, err = url.ParseQuery(raw); err != nil {
		return bad("The query is not URL-encoded")
	}
	q.to, q.from, q.token, q.size = q.values.Get("To"), q.values.Get("From"), q.values.Get("PageToken"), defaultPage
	if v := q.values.Get("PageSize"); v != "" {
		if q.size, err = strconv.Atoi(v); err != nil || q.size < 1 {
			return bad("PageSize must be a number from 1 to 1000")
		}
		if q.size > maxPage {
			return query{}, badRequest(20007, "Page size must be less than or equal to 1000")
		}
	}
	if v := q.values.Get("Page"); v != "" {
		if q.number, err = strconv.Atoi(v); err != nil || q.number < 0 || q.number > 1<<31/maxPage {
			return bad("Page must be a number")
		}
	}
	switch {
	case q.token != "":
		var ok bool
		q.back = strings.HasPrefix(q.token, "PB")
		if q.id, ok = messageID(q.token[min(2, len(q.token)):]); !ok || !q.back && !strings.HasPrefix(q.token, "PA") {
			return bad("PageToken is invalid")
		}
	case q.number > 0:
		return bad("Page needs the PageToken of next_page_uri: pages cannot be numbered freely")
	}
	return q, q.parseDates()
}

// parseDates reads the DateSent filters. Twilio makes the comparison sign a part of the parameter's name, so that the
// query reads DateSent<=2026-01-31, on or before; DateSent>=2026-01-01, on or after; DateSent=2026-01-01, on that day in
// GMT. A time of day may be given with the inequalities; a day means the whole of it.
func (q *query) parseDates() error {
	for _, name := range []string{"DateSent", "DateSent<", "DateSent<=", "DateSent>", "DateSent>="} {
		v := q.values.Get(name)
		if v == "" {
			continue
		}
		step := time.Second // what the API shows
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			step = 24 * time.Hour
			t, err = time.Parse(time.DateOnly, v)
		}
		if err != nil {
			return badRequest(20001, name+" must be a date such as 2026-01-31, or a time in ISO 8601")
		}
		t = t.UTC().Truncate(step)
		switch {
		case name == "DateSent":
			q.since = t.Truncate(24 * time.Hour)
			q.until = q.since.AddDate(0, 0, 1)
		case strings.HasPrefix(name, "DateSent<"):
			q.until = t.Add(step)
		default:
			q.since = t
		}
	}
	return nil
}

func (q *query) match(m ledger.Message, account string) bool {
	return m.Account == account && (refusal(m) == nil || accepted(m)) &&
		(q.to == "" || m.To.String() == q.to) && (q.from == "" || m.From == q.from) &&
		(q.since.IsZero() || !m.CreatedAt.Before(q.since)) && (q.until.IsZero() || m.CreatedAt.Before(q.until))
}

// list is GET Messages.json, newest first. Pages are joined by token: "PA" and the last message of this page, or "PB"
// and its first one to go back, so a message that is sent while a client reads shifts nothing.
func (h *Handler) list(c call) (*pageJSON, error) {
	q, err := parseQuery(c.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	// One more than the page holds tells whether there is another page.
	var found []ledger.Message
	messages, at := h.walk(c.Context(), q) // at: the walk is past the token's message
	for m, err := range messages {
		if q.id != "" && at && errors.Is(err, ledger.ErrNotFound) {
			return nil, badRequest(20001, "PageToken is invalid")
		}
		if err != nil {
			return nil, err
		}
		if m.CreatedAt.Before(q.since.Add(-clockSlack)) {
			break
		}
		if m.ID == q.id {
			if at = true; q.back {
				break
			}
			continue
		}
		if (at || q.back) && q.match(m, c.account) {
			found = append(found, m)
		}
		if len(found) > q.size {
			if !q.back {
				break
			}
			found = found[len(found)-q.size-1:]
		}
	}
	if !at {
		return nil, badRequest(20001, "PageToken is invalid")
	}
	more := len(found) > q.size
	next, previous := more, q.token != ""
	if more && q.back {
		found = found[1:]
	} else if more {
		found = found[:q.size]
	}
	if q.back {
		next, previous = true, more
	}
	return q.page(found, c.sid, next, previous), nil
}

// walk yields the messages among which a page is, newest first: those to one number, or those from the token on, or all.
// begun says that the token's message is behind already.
func (h *Handler) walk(ctx context.Context, q query) (_ iter.Seq2[ledger.Message, error], begun bool) {
	switch n, err := phone.ParseE164(q.to); {
	case q.to != "" && err == nil:
		return h.messagesTo(ctx, n), q.token == ""
	case q.id != "" && !q.back:
		return h.Ledger.MessagesBefore(ctx, q.id), true
	}
	return h.Ledger.Messages(ctx, ""), q.token == ""
}

// messagesTo yields the messages to one number, newest first.
func (h *Handler) messagesTo(ctx context.Context, n phone.Number) iter.Seq2[ledger.Message, error] {
	return func(yield func(ledger.Message, error) bool) {
		var ids []string
		for e, err := range h.Ledger.History(ctx, n) {
			if err != nil {
				yield(ledger.Message{}, err)
				return
			}
			if e.Opened != nil {
				ids = append(ids, e.Opened.ID)
			}
		}
		for _, id := range slices.Backward(ids) {
			if m, err := h.Ledger.Message(ctx, id); !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// page puts messages into Twilio's envelope.
func (q *query) page(found []ledger.Message, accountSID string, next, previous bool) *pageJSON {
	uri := func(number int, token string) string {
		v := url.Values{}
		for name, values := range q.values {
			v[name] = values
		}
		v.Set("PageSize", strconv.Itoa(q.size))
		v.Set("Page", strconv.Itoa(number))
		v.Del("PageToken")
		if token != "" {
			v.Set("PageToken", token)
		}
		return messagesURI(accountSID) + ".json?" + v.Encode()
	}
	start, n := q.number*q.size, len(found)
	p := &pageJSON{
		Page: q.number, PageSize: q.size, Start: start, End: max(start, start+n-1), Messages: make([]messageJSON, n),
		URI: uri(q.number, q.token), FirstPageURI: uri(0, ""),
	}
	for i, m := range found {
		p.Messages[i] = render(m, accountSID)
	}
	if n > 0 && next {
		u := uri(q.number+1, "PA"+p.Messages[n-1].SID)
		p.NextPageURI = &u
	}
	if n > 0 && previous && q.number > 0 {
		u := uri(q.number-1, "PB"+p.Messages[0].SID)
		p.PreviousPageURI = &u
	}
	return p
}
