package salesforce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	sf "github.com/k-capehart/go-salesforce/v2"

	"github.com/heed-sms/heed/crm"
)

const (
	libraryVersion = "v62.0" // what go-salesforce v2.5.2 writes into every path
	tokenPath      = "/services/oauth2/token"
	loginPrefix    = "/.heed-login/" // see transport.loginOf

	wholeTimeout   = 5 * time.Minute // a call with all of its attempts, whatever its context says
	attemptTimeout = 2 * time.Minute
	loginTimeout   = 30 * time.Second
	loginPause     = 30 * time.Second // after a refused login: a wrong secret must not be tried in a loop

	maxBody          = 64 << 20 // a page of 2000 records with long fields has a few MB
	maxAttempts      = 4
	maxRetryAfter    = 10 * time.Second // a longer wait is the caller's to plan
	defaultMinWait   = 250 * time.Millisecond
	defaultMaxWait   = 5 * time.Second
	maxTokenErrorLen = 300
)

// transport is what http.DefaultClient sends through once it is installed. For the calls of an Org, known by a holder in
// their context, it
//   - repeats what is idempotent, and only that, on lost connections and 5xx answers;
//   - reads each body to the end, so that no connection depends on whether the library closes it, and half an answer is
//     an error;
//   - keeps status, headers and body for the driver, which the library drops on every failure;
//   - hides the body of a failure from the library, which otherwise would renew its session by itself, without a lock
//     and without a deadline.
//
// Requests of others pass through to base.
type transport struct {
	base    atomic.Pointer[http.RoundTripper]
	once    *http.Client
	retries *retryablehttp.RoundTripper

	logins  sync.Map // sequence number → *login
	lastSeq atomic.Uint64
}

var (
	installed  atomic.Pointer[transport]
	installing sync.Mutex
)

// InstallTransport replaces [http.DefaultClient] by one that this package can work with: it bounds its calls in time,
// follows no redirects, and keeps what go-salesforce would drop. base does the sending; nil means a copy of
// [http.DefaultTransport]. Call it once, before the program's first request; a later call only swaps base, which is
// safe while requests are under way.
//
// It is process-wide because the library is: it has no other place for a transport. Other users of
// http.DefaultClient get redirects as answers, and nothing else.
func InstallTransport(base http.RoundTripper) { install(base, defaultMinWait, defaultMaxWait) }

func install(base http.RoundTripper, minWait, maxWait time.Duration) {
	if base == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.MaxIdleConnsPerHost = 16
		base = own
	}
	installing.Lock()
	defer installing.Unlock()
	if t := installed.Load(); t != nil {
		t.base.Store(&base)
		return
	}
	t := &transport{}
	t.base.Store(&base)
	t.once = &http.Client{Transport: buffered{t}, Timeout: attemptTimeout, CheckRedirect: noRedirect}
	t.retries = &retryablehttp.RoundTripper{Client: &retryablehttp.Client{
		HTTPClient:   t.once,
		RetryMax:     maxAttempts - 1,
		RetryWaitMin: minWait,
		RetryWaitMax: maxWait,
		CheckRetry:   worthRetrying,
		Backoff:      backoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}}
	http.DefaultClient = &http.Client{Transport: t, CheckRedirect: noRedirect}
	installed.Store(t)
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// answer is what came back for one call.
type answer struct {
	status int // 0 until there is one
	header http.Header
	body   []byte
}

type answerKey struct{}

// login is one token request: the context that the library cannot pass on, and the answer that it drops.
type login struct {
	ctx    context.Context
	answer answer
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if l := t.loginOf(req); l != nil {
		ctx, cancel := context.WithTimeout(req.Context(), wholeTimeout)
		defer cancel()
		defer context.AfterFunc(l.ctx, cancel)()
		out := req.Clone(ctx)
		out.URL.Path = tokenPath
		resp, err := t.send(out)
		if err != nil {
			return nil, err
		}
		if l.answer, err = keep(resp); err != nil {
			return nil, err
		}
		return resp, nil
	}
	a, ours := req.Context().Value(answerKey{}).(*answer)
	if !ours {
		return (*t.base.Load()).RoundTrip(req)
	}
	// The bound is set here and not by http.Client.Timeout, whose timer and goroutine live on until a body is closed,
	// and the library closes none of a failed call. Here the body has been read by the end.
	ctx, cancel := context.WithTimeout(req.Context(), wholeTimeout)
	defer cancel()
	resp, err := t.send(req.Clone(ctx))
	if err != nil {
		return nil, err
	}
	if *a, err = keep(resp); err != nil {
		return nil, err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		resp.Body = io.NopCloser(strings.NewReader("{}")) // no array: the library gives up instead of renewing the session
		resp.ContentLength = 2
	}
	resp.Header = resp.Header.Clone()
	resp.Header.Del("Content-Encoding")
	return resp, nil
}

// CloseIdleConnections lets http.Client reach the base's.
func (t *transport) CloseIdleConnections() { t.closeIdle() }

func (t *transport) closeIdle() {
	if c, ok := (*t.base.Load()).(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// keep takes a copy of an answer whose body buffered has in memory.
func keep(resp *http.Response) (answer, error) {
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return answer{status: resp.StatusCode, header: resp.Header, body: body}, err
}

// enter announces a token request and returns what to put behind the domain so that loginOf finds it again.
func (t *transport) enter(l *login) (suffix string, leave func()) {
	seq := t.lastSeq.Add(1)
	t.logins.Store(seq, l)
	return loginPrefix + strconv.FormatUint(seq, 10), func() { t.logins.Delete(seq) }
}

// loginOf recognises a token request of enter. The library's token call takes no context, so the login is named in the
// one thing it does pass on, the URL it concatenates: domain + suffix + tokenPath. The suffix is never sent.
func (t *transport) loginOf(req *http.Request) *login {
	rest, ok := strings.CutPrefix(req.URL.Path, loginPrefix)
	if !ok || req.Method != http.MethodPost {
		return nil
	}
	num, ok := strings.CutSuffix(rest, tokenPath)
	if !ok {
		return nil
	}
	seq, err := strconv.ParseUint(num, 10, 64)
	if err != nil {
		return nil
	}
	l, _ := t.logins.Load(seq)
	found, _ := l.(*login)
	return found
}

func (t *transport) send(req *http.Request) (*http.Response, error) {
	if idempotent(req) {
		return t.retries.RoundTrip(req)
	}
	resp, err := t.once.Do(req)
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the outer client wraps it again
	}
	return resp, err
}

// idempotent reports whether a repeated request leaves the same state: reading, setting fields of records by their id,
// asking for a token, ending and deleting bulk jobs. A bulk job that is created twice is one that nobody fills or reads,
// and Salesforce deletes it.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		return true
	case http.MethodPatch:
		return match(req, "composite/sobjects") || match(req, "jobs/query/*") || match(req, "jobs/ingest/*")
	case http.MethodPost:
		return req.URL.Path == tokenPath || match(req, "jobs/query") || match(req, "jobs/ingest")
	case http.MethodDelete:
		return match(req, "jobs/query/*") || match(req, "jobs/ingest/*")
	}
	return false
}

func match(req *http.Request, resource string) bool {
	ok, _ := path.Match("/services/data/v*/"+resource, req.URL.Path)
	return ok
}

func worthRetrying(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil || errors.Is(err, errTooLong) {
		return false, nil
	}
	if err != nil {
		again, _ := retryablehttp.DefaultRetryPolicy(ctx, nil, err) // not for a bad certificate or scheme
		return again, nil
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		a := answer{header: resp.Header}
		return a.retryAfter() <= maxRetryAfter, nil
	}
	return false, nil
}

// backoff doubles from lowest to highest, half of it random so that clients do not come back together, and waits as long as
// the server asked.
func backoff(lowest, highest time.Duration, attempt int, resp *http.Response) time.Duration {
	if resp != nil {
		a := answer{header: resp.Header}
		if d := a.retryAfter(); d > 0 {
			return d + rand.N(lowest+1)
		}
	}
	d := highest
	if attempt < 16 {
		d = min(highest, lowest<<attempt)
	}
	return d/2 + rand.N(d/2+1)
}

var errTooLong = fmt.Errorf("the answer is longer than %d MB", maxBody>>20)

// buffered reads each body to its end as part of the round trip: half a body is a failed attempt, and nothing is left
// open.
type buffered struct{ t *transport }

func (b buffered) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := (*b.t.base.Load()).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("the answer broke off after %d bytes: %w", len(body), err)
	}
	if len(body) > maxBody {
		return nil, errTooLong
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

func (b buffered) CloseIdleConnections() { b.t.closeIdle() }

// session is one login. It is never changed: a new login makes a new one, so that calls may share it.
type session struct {
	api           *sf.Salesforce
	host          string
	orgID, userID string // 18 characters; "" if the token did not say
}

// session returns a session other than stale (nil: any), logging in if need be. However many calls ask at once, there is
// one token request, and if it fails they all get its error.
func (o *Org) session(ctx context.Context, stale *session) (*session, error) {
	usable := func() *session {
		if s := o.current.Load(); s != stale {
			return s
		}
		return nil
	}
	if s := usable(); s != nil {
		return s, nil
	}
	before := o.logins.Load()
	select {
	case o.signingIn <- struct{}{}:
		defer func() { <-o.signingIn }()
	case <-ctx.Done():
		return nil, unanswered(ctx, ctx.Err())
	}
	if s := usable(); s != nil {
		return s, nil
	}
	if o.lastLogin != nil && (o.logins.Load() != before || o.now().Before(o.refused)) {
		return nil, o.lastLogin
	}
	s, err := o.signIn(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, err // our caller's haste says nothing to the others
	}
	o.lastLogin = err
	o.logins.Add(1)
	if err != nil {
		var e *crm.Error
		if errors.As(err, &e) && e.Status >= 400 && e.Status < 500 {
			o.refused = o.now().Add(loginPause)
		}
		o.log.Warn("salesforce: login failed", "domain", o.config.Domain, "error", err)
		return nil, err
	}
	o.current.Store(s)
	o.log.Info("salesforce: logged in", "host", s.host, "org", s.orgID, "user", s.userID)
	return s, nil
}

func (o *Org) signIn(ctx context.Context) (*session, error) {
	t := installed.Load()
	if t == nil {
		return nil, &crm.Error{Class: crm.Bug, Text: "salesforce.InstallTransport was not called"}
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	l := &login{ctx: ctx}
	suffix, leave := t.enter(l)
	defer leave()
	creds := sf.Creds{Domain: o.config.Domain + suffix, ConsumerKey: o.config.ClientID}
	if o.config.PrivateKeyFile != "" {
		key, err := readKey(o.config.PrivateKeyFile)
		if err != nil {
			return nil, &crm.Error{Class: crm.RetryLater, Text: "private_key_file: " + err.Error()}
		}
		creds.Username, creds.ConsumerRSAPem = o.config.Username, key
	} else {
		creds.ConsumerSecret = string(o.config.ClientSecret)
	}
	api, err := sf.Init(creds)
	a := &l.answer
	if a.status == 0 {
		if err == nil {
			err = errors.New("http.DefaultClient was replaced after salesforce.InstallTransport")
		}
		return nil, unanswered(ctx, err)
	}
	if e := a.refusal(); e != nil {
		e.Class = crm.RetryLater
		e.Text = o.scrub(clip(loginText(e), maxTokenErrorLen))
		if e.RetryAfter == 0 && e.Status < 500 {
			e.RetryAfter = 5 * time.Minute
		}
		return nil, e
	}
	if err != nil { // the library's errors may quote the answer, which holds a token
		return nil, a.malformed("the token endpoint answered " + kind(a) + " instead of a token; check domain")
	}
	var token struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(a.body, &token) // the library has read it already
	s := &session{api: api}
	if s.host, err = o.checkInstance(api.GetInstanceUrl()); err != nil {
		return nil, a.malformed(err.Error())
	}
	// id is https://login.salesforce.com/id/<organisation>/<user> (OAuth endpoints, "Identity URLs").
	if parts := strings.Split(token.ID, "/"); len(parts) >= 3 {
		org, e1 := id18(parts[len(parts)-2])
		user, e2 := id18(parts[len(parts)-1])
		if e1 == nil && e2 == nil {
			s.orgID, s.userID = org, user
		}
	}
	if s.orgID == "" {
		if err := o.askUser(ctx, s); err != nil {
			return nil, err
		}
	}
	return s, o.checkOrg(s)
}

// askUser fills the session's ids from the userinfo service, for a token answer without identity URL.
func (o *Org) askUser(ctx context.Context, s *session) error {
	a, err := o.once(ctx, s, http.MethodGet, "/services/oauth2/userinfo", nil)
	if err != nil {
		return err
	}
	if e := a.refusal(); e != nil {
		e.Class = crm.RetryLater
		return e
	}
	var who struct {
		User string `json:"user_id"`
		Org  string `json:"organization_id"`
	}
	if err := a.decode(&who); err != nil {
		return err
	}
	var e1, e2 error
	s.userID, e1 = id18(who.User)
	s.orgID, e2 = id18(who.Org)
	if e1 != nil || e2 != nil {
		return a.malformed("Salesforce did not say which user and organisation the login is for; add the scope openid or id to the app")
	}
	return nil
}

// checkOrg refuses an organisation other than the configured one, or than the one of the first login: the ids in
// heed's ledger would be other people's there.
func (o *Org) checkOrg(s *session) error {
	want := ""
	if o.config.OrgID != "" {
		want, _ = id18(o.config.OrgID)
	} else if !o.orgID.CompareAndSwap(nil, &s.orgID) {
		want = *o.orgID.Load()
	}
	if want != "" && s.orgID != want {
		return &crm.Error{Class: crm.RetryLater, Code: "OTHER_ORG", RetryAfter: time.Hour,
			Text: fmt.Sprintf("the login leads to organisation %s and not to %s, whose records heed knows; if that is meant (a refreshed sandbox), set org_id to it and start with a new data directory", s.orgID, want)}
	}
	return nil
}

// checkInstance returns the host of instance_url, which says where the organisation's data is served.
func (o *Org) checkInstance(instance string) (host string, err error) {
	u, err := url.Parse(instance)
	switch {
	case instance == "":
		return "", errors.New("the token names no instance_url; set domain to the address in Setup, My Domain")
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return "", errors.New("the token's instance_url is no address; set domain to the address in Setup, My Domain")
	case u.Scheme == "http" && (strings.HasPrefix(o.config.Domain, "https:") || !loopback(u.Hostname())):
		return "", errors.New("the token's instance_url is not https: heed will not send the token in the clear")
	}
	return u.Host, nil
}

func loginText(e *crm.Error) string {
	hint := ""
	switch e.Code {
	case "invalid_client_id":
		hint = "check client_id; a new app takes up to 10 minutes to be known"
	case "invalid_client", "invalid_client_credentials":
		hint = "check client_id and client_secret"
	case "invalid_grant":
		hint = "check that the app's flow is enabled, that it has a run-as user or the user is pre-authorised for it, and that the user is active and allowed to log in from this address"
	case "unsupported_grant_type":
		hint = "enable the client credentials flow (or JWT bearer flow) in the app's settings"
	case "inactive_user", "inactive_org":
		hint = "ask the Salesforce admin"
	}
	if hint == "" {
		return e.Text
	}
	return strings.TrimPrefix(e.Text+": ", ": ") + hint
}

// scrub takes the configured secret out of a text that a server wrote.
func (o *Org) scrub(s string) string {
	if secret := string(o.config.ClientSecret); secret != "" {
		s = strings.ReplaceAll(s, secret, redacted)
		s = strings.ReplaceAll(s, url.QueryEscape(secret), redacted)
	}
	return s
}
