package twiliofake

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// page is the envelope that all lists share. The items are added under the resource's own name.
func (s *Server) page(resource string, q url.Values, items any, n, number, size int, next, previous string) map[string]any {
	uri := func(number int, token string) *string {
		p := url.Values{}
		for k, v := range q {
			if k != "Page" && k != "PageToken" && k != "PageSize" {
				p[k] = v
			}
		}
		p.Set("PageSize", strconv.Itoa(size))
		p.Set("Page", strconv.Itoa(number))
		if token != "" {
			p.Set("PageToken", token)
		}
		u := s.uri("/" + resource + ".json?" + p.Encode())
		return &u
	}
	env := map[string]any{
		"page": number, "page_size": size, "start": number * size, "end": max(number*size, number*size+n-1),
		"first_page_uri": uri(0, ""), "uri": uri(number, q.Get("PageToken")), "next_page_uri": nil, "previous_page_uri": nil,
	}
	if next != "" {
		env["next_page_uri"] = uri(number+1, next)
	}
	if previous != "" {
		env["previous_page_uri"] = uri(number-1, previous)
	}
	name := "messages"
	if resource == "IncomingPhoneNumbers" {
		name = "incoming_phone_numbers"
	}
	env[name] = items
	return env
}

// pageOf reads PageSize and Page.
func pageOf(q url.Values) (size, number int, e *apiError) {
	size = 50
	var err error
	if v := q.Get("PageSize"); v != "" {
		if size, err = strconv.Atoi(v); err != nil || size < 1 {
			return 0, 0, failure(http.StatusBadRequest, 20001, "PageSize must be a number from 1 to 1000")
		}
		if size > 1000 {
			return 0, 0, failure(http.StatusBadRequest, 20007, "Page size must be less than or equal to 1000")
		}
	}
	if v := q.Get("Page"); v != "" {
		if number, err = strconv.Atoi(v); err != nil || number < 0 {
			return 0, 0, failure(http.StatusBadRequest, 20001, "Page must be a number")
		}
	}
	return size, number, nil
}

// dates is a half-open interval of DateSent. A zero bound is open.
type dates struct{ from, until time.Time }

// parseDates reads the DateSent filters. The comparison sign is a part of the parameter's name, so that the query reads
// DateSent<=2026-01-31: on or before; DateSent>=2026-01-01: on or after; DateSent=2026-01-01: on that day (GMT). A time
// of day may be given with the inequalities; a day means the whole of it.
func parseDates(q url.Values) (d dates, e *apiError) {
	for _, name := range []string{"DateSent", "DateSent<", "DateSent<=", "DateSent>", "DateSent>="} {
		v := q.Get(name)
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
			return d, failure(http.StatusBadRequest, 20001, "%s must be a date such as 2026-01-31, or a time in ISO 8601", name)
		}
		t = t.UTC().Truncate(step)
		switch {
		case name == "DateSent":
			d.from = t.Truncate(24 * time.Hour)
			d.until = d.from.AddDate(0, 0, 1)
		case strings.HasPrefix(name, "DateSent<"):
			d.until = t.Add(step)
		default:
			d.from = t
		}
	}
	return d, nil
}

func (d dates) has(t time.Time) bool {
	return (d.from.IsZero() || !t.Before(d.from)) && (d.until.IsZero() || t.Before(d.until))
}

// listMessages is GET Messages.json, newest first. Pages are joined by token: "PA" and the last message of this page,
// or "PB" and its first one to go back, so a message that arrives while a client reads shifts nothing.
func (s *Server) listMessages(q url.Values) (int, any, *apiError) {
	size, number, e := pageOf(q)
	if e != nil {
		return 0, nil, e
	}
	d, e := parseDates(q)
	if e != nil {
		return 0, nil, e
	}
	to, from, token := q.Get("To"), q.Get("From"), q.Get("PageToken")
	if number > 0 && token == "" {
		return 0, nil, failure(http.StatusBadRequest, 20001, "Page needs the PageToken of next_page_uri: pages cannot be numbered freely")
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	start, back := len(s.log), false // the index before which, or with back after which, the page lies
	if token != "" {
		m := s.bySID[token[min(2, len(token)):]]
		back = strings.HasPrefix(token, "PB")
		if m == nil || !back && !strings.HasPrefix(token, "PA") {
			return 0, nil, failure(http.StatusBadRequest, 20001, "PageToken is invalid")
		}
		start = m.index
	}
	match := func(m *message) bool {
		at := m.sent
		if at.IsZero() {
			at = m.created // nothing is sent earlier, and a poll for recent messages must see what is on its way
		}
		return !m.deleted && (to == "" || m.to == to) && (from == "" || m.from == from) && d.has(at)
	}
	// One more than the page holds tells whether there is another page.
	var found []*message
	if back {
		for i := start + 1; i < len(s.log) && len(found) <= size; i++ {
			if match(s.log[i]) {
				found = append(found, s.log[i])
			}
		}
	} else {
		for i := start - 1; i >= 0 && len(found) <= size; i-- {
			if match(s.log[i]) {
				found = append(found, s.log[i])
			}
		}
	}
	more := len(found) > size
	found = found[:min(size, len(found))]
	next, previous := more, token != ""
	if back {
		slices.Reverse(found)
		next, previous = true, more
	}
	items := make([]messageJSON, len(found))
	for i, m := range found {
		items[i] = s.render(m)
	}
	var nextToken, previousToken string
	if len(found) > 0 {
		if next {
			nextToken = "PA" + found[len(found)-1].sid
		}
		if previous && number > 0 {
			previousToken = "PB" + found[0].sid
		}
	}
	return http.StatusOK, s.page("Messages", q, items, len(items), number, size, nextToken, previousToken), nil
}

// numberJSON is the IncomingPhoneNumber resource, as far as it concerns messaging.
type numberJSON struct {
	SID               string          `json:"sid"`
	AccountSID        string          `json:"account_sid"`
	FriendlyName      string          `json:"friendly_name"`
	PhoneNumber       string          `json:"phone_number"`
	SmsURL            string          `json:"sms_url"`
	SmsMethod         string          `json:"sms_method"`
	SmsFallbackURL    string          `json:"sms_fallback_url"`
	SmsFallbackMethod string          `json:"sms_fallback_method"`
	SmsApplicationSID string          `json:"sms_application_sid"`
	StatusCallback    string          `json:"status_callback"`
	Capabilities      map[string]bool `json:"capabilities"`
	APIVersion        string          `json:"api_version"`
	Beta              bool            `json:"beta"`
	Origin            string          `json:"origin"`
	Status            string          `json:"status"`
	DateCreated       *string         `json:"date_created"`
	DateUpdated       *string         `json:"date_updated"`
	URI               string          `json:"uri"`
}

// listNumbers is GET IncomingPhoneNumbers.json; PhoneNumber matches a part of the number, as at Twilio.
func (s *Server) listNumbers(q url.Values) (int, any, *apiError) {
	size, number, e := pageOf(q)
	if e != nil {
		return 0, nil, e
	}
	s.mu.Lock()
	webhook := s.webhook
	s.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(s.o.Numbers), func(n string) bool { return !strings.Contains(n, q.Get("PhoneNumber")) })
	start := min(number*size, len(all))
	shown := all[start:min(start+size, len(all))]
	items := make([]numberJSON, len(shown))
	for i, n := range shown {
		hash := sha256.Sum256([]byte(s.o.AccountSID + n))
		sid := "PN" + hex.EncodeToString(hash[:16])
		items[i] = numberJSON{
			SID: sid, AccountSID: s.o.AccountSID, FriendlyName: n, PhoneNumber: n, SmsURL: webhook, SmsMethod: "POST",
			SmsFallbackMethod: "POST", Capabilities: map[string]bool{"sms": true, "mms": true, "voice": false, "fax": false},
			APIVersion: apiVersion, Origin: "twilio", Status: "in-use", DateCreated: date(s.started), DateUpdated: date(s.started),
			URI: s.uri("/IncomingPhoneNumbers/" + sid + ".json"),
		}
	}
	next := ""
	if start+size < len(all) {
		next = "PA" + items[len(items)-1].SID
	}
	return http.StatusOK, s.page("IncomingPhoneNumbers", q, items, len(items), number, size, next, ""), nil
}
