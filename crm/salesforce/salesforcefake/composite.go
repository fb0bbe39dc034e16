package salesforcefake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

var reference = regexp.MustCompile(`@\{(\w+)\.([\w.\[\]]+)\}`)

// composite answers /composite: up to 25 calls in one, each of which may use values of the answers before it.
func (c *call) composite() *response {
	const kind = "composite"
	if res := c.only(kind, "POST"); res != nil {
		return res
	}
	if c.nested {
		return restError(kind, errNotFound())
	}
	var in struct {
		AllOrNone bool `json:"allOrNone"`
		Requests  []struct {
			Method      string          `json:"method"`
			URL         string          `json:"url"`
			ReferenceID string          `json:"referenceId"`
			Body        json.RawMessage `json:"body"`
			HTTPHeaders map[string]string
		} `json:"compositeRequest"`
	}
	if err := c.object(&in); err != nil {
		return restError(kind, err)
	}
	if len(in.Requests) == 0 || len(in.Requests) > maxComposite {
		return restError(kind, refuse("INVALID_INPUT", "a composite request takes 1 to %d subrequests", maxComposite))
	}
	type part struct {
		Body    any               `json:"body"`
		Headers map[string]string `json:"httpHeaders"`
		Status  int               `json:"httpStatusCode"`
		Ref     string            `json:"referenceId"`
	}
	out := make([]part, len(in.Requests))
	answers := map[string]any{}
	whole := c.x.savepoint()
	failed := false
	fill := func(s string) string {
		return reference.ReplaceAllStringFunc(s, func(m string) string {
			p := reference.FindStringSubmatch(m)
			at := answers[p[1]]
			for key := range strings.SplitSeq(p[2], ".") {
				m, _ := at.(map[string]any)
				at = m[key]
			}
			return fmt.Sprint(at)
		})
	}
	for i, q := range in.Requests {
		out[i] = part{Headers: map[string]string{}, Ref: q.ReferenceID}
		var res *response
		u, err := url.Parse(fill(q.URL))
		_, again := answers[q.ReferenceID]
		switch {
		case q.ReferenceID == "" || again:
			return restError(kind, refuse("INVALID_INPUT", "subrequest %d: referenceId is missing or used twice", i))
		case failed && in.AllOrNone:
			res = restError(kind, refuse("PROCESSING_HALTED", "The transaction was rolled back since another operation in the same transaction failed."))
		case err != nil || versionPath.FindStringSubmatch(strings.TrimRight(u.Path, "/")) == nil:
			res = restError(kind, errNotFound())
		default:
			m := versionPath.FindStringSubmatch(strings.TrimRight(u.Path, "/"))
			sub := &call{o: c.o, x: c.x, method: strings.ToUpper(q.Method), query: u.Query(), header: http.Header{}, body: []byte(fill(string(q.Body))),
				version: "v" + m[1] + ".0", user: c.user, lockAll: c.lockAll, nested: true, path: strings.Split(strings.Trim(m[2], "/"), "/")}
			for k, v := range q.HTTPHeaders {
				sub.header.Set(k, v)
			}
			res = sub.route()
		}
		out[i].Status = res.status
		if len(res.body) > 0 {
			out[i].Body = json.RawMessage(res.body)
			var v any
			_ = json.Unmarshal(res.body, &v) // our own JSON
			answers[q.ReferenceID] = v
		} else {
			answers[q.ReferenceID] = nil
		}
		if l := res.header["Location"]; l != "" {
			out[i].Headers["Location"] = l
		}
		failed = failed || res.status >= 400
	}
	if failed && in.AllOrNone {
		c.x.rollback(whole)
		for i := range out {
			if out[i].Status < 400 {
				out[i].Status = 400
				out[i].Body = []restErrorBody{{"The transaction was rolled back since another operation in the same transaction failed.", "PROCESSING_HALTED", nil}}
			}
		}
	}
	return jsonResponse(kind, 200, map[string]any{"compositeResponse": out})
}
