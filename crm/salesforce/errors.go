package salesforce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/heed-sms/heed/crm"
)

// classes is the one table from Salesforce's codes to heed's classes. Sources: [S] SOAP API Developer Guide, "Core Data
// Types Used in API Calls", StatusCode and ExceptionCode; [R] REST API Developer Guide, "Status Codes and Error
// Responses"; [O] OAuth endpoints, "OAuth 2.0 Error Codes". A code that is not here is judged by the HTTP status, and
// as the refusal of a row it is Park: a person should look.
var classes = map[string]crm.Class{
	// Transient, and only this record or call is concerned.
	"UNABLE_TO_LOCK_ROW":       crm.RetryNow,   // [S] another transaction holds the row or its account
	"QUERY_TIMEOUT":            crm.RetryLater, // [S] the same query soon again would run as long
	"REQUEST_RUNNING_TOO_LONG": crm.RetryLater, // [S] ended after the transaction's time limit
	"INVALID_QUERY_LOCATOR":    crm.RetryNow,   // [S] the cursor aged out: ask again from the last key

	// The whole organisation is unavailable, for now or until its admin acts. Parking each record would hide that.
	"INVALID_SESSION_ID":     crm.RetryLater, // [R] 401; after a new login it means an IP or client restriction
	"REQUEST_LIMIT_EXCEEDED": crm.RetryLater, // [R] 403; 24-hour allocation or concurrent calls
	"SERVER_UNAVAILABLE":     crm.RetryLater, // [R] 503
	"SERVICE_UNAVAILABLE":    crm.RetryLater, // [R] 503
	"UNKNOWN_EXCEPTION":      crm.RetryLater, // [S] internal error
	"API_CURRENTLY_DISABLED": crm.RetryLater, // [S] 403
	"API_DISABLED_FOR_ORG":   crm.RetryLater, // [S] 403
	"ORG_LOCKED":             crm.RetryLater, // [S]
	"ORG_IN_MAINTENANCE":     crm.RetryLater, // [S] 503
	"INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE": crm.RetryLater, // [S] read-only window
	"EXCEEDED_MAX_SEMIJOIN_SUBSELECTS":                    crm.Bug,        // [S] a query of heed's
	"invalid_grant":                                       crm.RetryLater, // [O]
	"invalid_client":                                      crm.RetryLater, // [O]
	"invalid_client_id":                                   crm.RetryLater, // [O]
	"invalid_client_credentials":                          crm.RetryLater, // [O]
	"invalid_request":                                     crm.RetryLater, // [O]
	"unauthorized_client":                                 crm.RetryLater, // [O]
	"unsupported_grant_type":                              crm.RetryLater, // [O]
	"inactive_user":                                       crm.RetryLater, // [O]
	"inactive_org":                                        crm.RetryLater, // [O]
	"rate_limit_exceeded":                                 crm.RetryLater, // [O]
	"INVALID_LOGIN":                                       crm.RetryLater, // [S]
	"PASSWORD_LOCKOUT":                                    crm.RetryLater, // [S]
	"INACTIVE_OWNER_OR_USER":                              crm.Park,       // [S] the record's owner left
	"STORAGE_LIMIT_EXCEEDED":                              crm.Park,       // [S]
	"LIMIT_EXCEEDED":                                      crm.Park,       // [S] a limit of the customer's automation
	"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY":                crm.Park,       // [S] the customer's trigger failed
	"CANNOT_EXECUTE_FLOW_TRIGGER":                         crm.Park,       // [S] the customer's flow failed
	"APEX_ERROR":                                          crm.Park,       // [S]
	"APEX_FAILED":                                         crm.Park,       // [S]
	"TXN_SECURITY_NO_ACCESS":                              crm.Park,       // [S] 403; a transaction security policy
	"INSUFFICIENT_ACCESS":                                 crm.Park,       // [R] 403
	"INSUFFICIENT_ACCESS_OR_READONLY":                     crm.Park,       // [S] the integration user may only read it
	"INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY":       crm.Park,       // [S] no access to a related record
	"INVALID_FIELD":                                       crm.Park,       // [S] missing, or hidden by field-level security
	"INVALID_FIELD_FOR_INSERT_UPDATE":                     crm.Park,       // [S] read-only for this user, or a formula
	"INVALID_TYPE":                                        crm.Park,       // [S] object missing, or no right to see it
	"INVALID_TYPE_ON_FIELD_IN_RECORD":                     crm.Park,       // [S]
	"FIELD_CUSTOM_VALIDATION_EXCEPTION":                   crm.Park,       // [S] the organisation's own rule and text
	"FIELD_FILTER_VALIDATION_EXCEPTION":                   crm.Park,       // [S] lookup filter
	"FIELD_INTEGRITY_EXCEPTION":                           crm.Park,       // [S]
	"REQUIRED_FIELD_MISSING":                              crm.Park,       // [S] an old record lacks a field that is now required
	"STRING_TOO_LONG":                                     crm.Park,       // [S]
	"INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST":             crm.Park,       // [S]
	"DUPLICATE_VALUE":                                     crm.Park,       // [S]
	"DUPLICATES_DETECTED":                                 crm.Park,       // [S] a duplicate rule that blocks edits
	"INVALID_PERSON_ACCOUNT_OPERATION":                    crm.Park,       // [S] write the Account instead
	"INVALID_EMAIL_ADDRESS":                               crm.Park,       // [S] a stored value that no longer validates
	"ENTITY_IS_LOCKED":                                    crm.Park,       // [S] an approval process holds the record
	"ALL_OR_NONE_OPERATION_ROLLED_BACK":                   crm.RetryNow,   // [S] another row's fault

	// The record is no longer there to be written.
	"ENTITY_IS_DELETED":            crm.Gone, // [S] deleted, or lost in a merge
	"CANNOT_UPDATE_CONVERTED_LEAD": crm.Gone, // [S] write the contact that it became
	"INVALID_CROSS_REFERENCE_KEY":  crm.Gone, // [S] no record has this id any more
	"NOT_FOUND":                    crm.Gone, // [R] 404

	// heed asked for something malformed.
	"MALFORMED_QUERY":               crm.Bug, // [S]
	"MALFORMED_ID":                  crm.Bug, // [S]
	"MALFORMED_SEARCH":              crm.Bug, // [S]
	"QUERY_TOO_COMPLICATED":         crm.Bug, // [S]
	"JSON_PARSER_ERROR":             crm.Bug, // [R] 400
	"INVALID_QUERY_FILTER_OPERATOR": crm.Bug, // [S]
	"INVALID_BATCH_SIZE":            crm.Bug, // [S]
	"METHOD_NOT_ALLOWED":            crm.Bug, // [R] 405
	"UNSUPPORTED_API_VERSION":       crm.Bug, // [S]
}

// classOfStatus judges a whole call that named no code known to the table.
func classOfStatus(status int) crm.Class {
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusConflict:
		return crm.RetryNow
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return crm.RetryLater
	case status == http.StatusMultipleChoices:
		return crm.Bug // several records share an external id, by which heed never asks
	case status >= 300 && status < 400:
		return crm.RetryLater // heed follows no redirect: a PATCH would arrive as a GET and look like a success
	case status < 300:
		return crm.RetryLater // success by the status, but not by its content
	}
	return crm.Bug
}

// apiError is an error as the REST API writes it: errorCode for a call, statusCode for a row of a collection.
type apiError struct {
	ErrorCode  string   `json:"errorCode"`
	StatusCode string   `json:"statusCode"`
	Message    string   `json:"message"`
	Fields     []string `json:"fields"`
}

func (e apiError) code() string { return orDefault(e.StatusCode, e.ErrorCode) }

// rowError turns what a collection says about one row into an *Error. No code at all is a person's business too.
func rowError(status int, errs []apiError) *crm.Error {
	e := &crm.Error{Class: crm.Park, Status: status}
	if len(errs) == 0 {
		e.Text = "Salesforce refused the record and gave no reason"
		return e
	}
	e.Code = clip(errs[0].code(), 100)
	if c, known := classes[e.Code]; known {
		e.Class = c
	}
	// A trigger that met a lock says so in its own refusal.
	if strings.Contains(errs[0].Message, "UNABLE_TO_LOCK_ROW") {
		e.Class = crm.RetryNow
	}
	var texts []string
	for _, x := range errs {
		texts = append(texts, clip(x.Message, 500))
		e.Fields = append(e.Fields, x.Fields...)
	}
	e.Text = strings.Join(texts, "; ")
	return e
}

// refusal returns nil for a 2xx answer and otherwise what went wrong.
func (a *answer) refusal() *crm.Error {
	if a.status >= 200 && a.status < 300 {
		return nil
	}
	e := &crm.Error{Class: classOfStatus(a.status), Status: a.status, RetryAfter: a.retryAfter()}
	var list []apiError
	var single struct {
		apiError
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	switch body := bytes.TrimSpace(a.body); {
	case json.Unmarshal(body, &list) == nil && len(list) > 0 && list[0].code() != "":
		re := rowError(a.status, list)
		e.Code, e.Text, e.Fields = re.Code, re.Text, re.Fields
	case json.Unmarshal(body, &single) == nil && single.code() != "":
		e.Code, e.Text, e.Fields = clip(single.code(), 100), clip(single.Message, 500), single.Fields
	case json.Unmarshal(body, &single) == nil && single.Error != "":
		e.Code, e.Text = clip(single.Error, 100), clip(single.Description, 500)
	case a.status >= 301 && a.status < 400:
		e.Text = "the answer is a redirect"
		if u, err := url.Parse(a.header.Get("Location")); err == nil && u.Host != "" {
			e.Text += " to " + u.Host
		}
		e.Text += "; set domain to the address in Setup, My Domain, or wait for a maintenance page to go"
	case len(body) == 0:
		e.Text = "the answer is empty"
	default:
		e.Text = "the answer is no JSON but " + kind(a) + ": a proxy or a maintenance page may stand between"
	}
	if c, known := classes[e.Code]; known {
		e.Class = c
	}
	if a.status >= 500 && e.Class != crm.RetryNow {
		e.Class = crm.RetryLater
	}
	if e.Code == "NOT_FOUND" {
		e.Class = crm.Bug // of a whole call: a path, not a record
	}
	if e.Code == "REQUEST_LIMIT_EXCEEDED" && e.RetryAfter == 0 {
		e.RetryAfter = 15 * time.Minute // the allocation is for rolling 24 hours: it comes back bit by bit
		if strings.Contains(strings.ToLower(e.Text), "concurrent") {
			e.RetryAfter = 15 * time.Second
		}
	}
	return e
}

// decode reads the body of a 2xx answer into v. What is no complete JSON value of that shape is an error: a proxy's
// page with status 200 is no success.
func (a *answer) decode(v any) error {
	dec := json.NewDecoder(bytes.NewReader(a.body))
	dec.UseNumber()
	err := dec.Decode(v)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
	}
	return a.malformed("the answer is " + kind(a) + " instead of the JSON that was asked for")
}

func (a *answer) malformed(text string) *crm.Error {
	return &crm.Error{Class: crm.RetryLater, Status: a.status, Text: text}
}

func kind(a *answer) string {
	if len(bytes.TrimSpace(a.body)) == 0 {
		return "empty"
	}
	ct, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	return fmt.Sprintf("%d bytes of %s", len(a.body), clip(orDefault(strings.TrimSpace(ct), "unknown type"), 60))
}

func (a *answer) retryAfter() time.Duration {
	v := a.header.Get("Retry-After")
	if n, err := strconv.Atoi(v); err == nil && n >= 0 && n <= 7*24*3600 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		if date := a.date(); !date.IsZero() && at.After(date) {
			return at.Sub(date)
		}
	}
	return 0
}

// date is the server's clock, zero if it did not say.
func (a *answer) date() time.Time {
	t, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return t
}

// unanswered is the error of a call that brought no answer. The URL that net/http puts into its errors is left out.
func unanswered(ctx context.Context, err error) *crm.Error {
	if cause := ctx.Err(); cause != nil {
		return &crm.Error{Class: crm.RetryNow, Err: cause}
	}
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	e := &crm.Error{Class: crm.RetryNow, Err: err}
	var op *net.OpError
	var dns *net.DNSError
	if errors.As(err, &dns) || errors.As(err, &op) && op.Op == "dial" {
		e.Class = crm.RetryLater // nobody is there, rather than a connection that broke
	}
	return e
}

func codeOf(err error) string {
	var e *crm.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
