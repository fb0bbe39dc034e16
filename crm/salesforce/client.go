package salesforce

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/heed-sms/heed/crm"
)

// callOptions marks heed's writes, so that the change events they cause can be told from others' (Sforce-Call-Options,
// REST API Developer Guide, "Call Options Header").
const callOptions = "client=heed"

// data returns the path of a resource below the API version.
func (o *Org) data(resource string) string { return "/services/data/" + o.version + resource }

// call makes one call and returns its 2xx answer; any other is an *crm.Error. A session that ended is renewed and the
// call made again, once: a second 401 means something that a login does not cure. A call that must wait for others, see
// [BudgetCode], is not made.
func (o *Org) call(ctx context.Context, method, target string, body []byte, header ...string) (*answer, error) {
	if e := o.allow(ctx); e != nil {
		return nil, e
	}
	s, err := o.session(ctx, nil)
	if err != nil {
		return nil, err
	}
	a, err := o.once(ctx, s, method, target, body, header...)
	if err == nil && a.status == http.StatusUnauthorized {
		if s, err = o.session(ctx, s); err != nil {
			return nil, err
		}
		a, err = o.once(ctx, s, method, target, body, header...)
	}
	if err != nil {
		return nil, err
	}
	if e := a.refusal(); e != nil {
		if a.status == http.StatusUnauthorized {
			e.Text = strings.TrimPrefix(e.Text+"; ", "; ") + "a new login did not help: check login IP ranges and session settings of the integration user"
		}
		if e.Code == "REQUEST_LIMIT_EXCEEDED" {
			o.exhausted(ctx, e, a.retryAfter() > 0)
		}
		return nil, e
	}
	o.answered()
	return a, nil
}

// once sends one request in the session through the library's DoRequest and returns whatever was answered. target is a
// path with query, taken as it is; header holds names and values in turn.
func (o *Org) once(ctx context.Context, s *session, method, target string, body []byte, header ...string) (*answer, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, &crm.Error{Class: crm.Bug, Text: "malformed path", Err: err}
	}
	a := new(answer)
	ctx = context.WithValue(ctx, answerKey{}, a)
	resp, err := s.api.DoRequest(method, "", body, func(r *http.Request) {
		r.URL.Path, r.URL.RawPath, r.URL.RawQuery = u.Path, u.RawPath, u.RawQuery
		r.Header.Set("User-Agent", "heed")
		r.Header.Set("Sforce-Call-Options", callOptions)
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		*r = *r.WithContext(ctx)
	})
	if resp != nil && resp.Body != nil {
		resp.Body.Close()
	}
	if a.status == 0 {
		return nil, unanswered(ctx, err)
	}
	o.learn(a.header.Get("Sforce-Limit-Info"))
	return a, nil
}

// parseUsage reads "api-usage=10018/100000; api-bursts=1/750" by its key; other keys come and go.
func parseUsage(info string) (used, max int, ok bool) {
	for part := range strings.FieldsFuncSeq(info, func(r rune) bool { return r == ';' || r == ',' }) {
		v, ok := strings.CutPrefix(strings.TrimSpace(part), "api-usage=")
		if !ok {
			continue
		}
		u, m, _ := strings.Cut(v, "/")
		used, err1 := strconv.Atoi(u)
		max, err2 := strconv.Atoi(m)
		if err1 == nil && err2 == nil && used >= 0 && max > 0 {
			return used, max, true
		}
	}
	return 0, 0, false
}
