package salesforce

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jarcoal/httpmock"

	"github.com/heed-sms/heed/crm"
)

const sessionOver = `[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]`

// expireFirstToken answers 401 to the first token's calls.
func expireFirstToken(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("Authorization"), "!token1") {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, sessionOver)
			return
		}
		next(w, r)
	}
}

func ping(ctx context.Context, o *Org) error {
	_, err := o.call(ctx, http.MethodGet, o.data("/query?q=x"), nil)
	return err
}

func TestTrap1EveryCallGoesThroughTheInstalledTransport(t *testing.T) {
	if http.DefaultClient.CheckRedirect == nil {
		t.Error("http.DefaultClient follows redirects")
	}
	if http.DefaultClient.Transport != http.RoundTripper(installed.Load()) {
		t.Error("http.DefaultClient does not send through the installed transport")
	}
}

func TestTrap1OtherUsersOfTheDefaultClientAreLeftAlone(t *testing.T) {
	var hits atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "busy")
	}))
	defer s.Close()
	resp, err := http.Get(s.URL + "/services/data/v62.0/query")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if string(body) != "busy" || hits.Load() != 1 {
		t.Errorf("body %q after %d requests", body, hits.Load())
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestTrap2ADeadlineEndsAHungCall(t *testing.T) {
	release := make(chan struct{})
	s := play(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	o := s.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := ping(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want a deadline", err)
	}
}

func TestTrap3ADeadlineHoldsWhileTheTokenEndpointIsSlow(t *testing.T) {
	release := make(chan struct{})
	s := play(t, expireFirstToken(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") }))
	s.token = func(w http.ResponseWriter, r *http.Request) {
		if s.tokens.Load() > 1 {
			<-release
		}
		s.grant(w, s.tokens.Load())
	}
	t.Cleanup(func() { close(release) })
	o := s.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := ping(ctx, o)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want a deadline", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the call took %s", took)
	}
}

func TestTrap4StatusAndHeadersOfARefusalAreKept(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `[{"message":"TotalRequests Limit exceeded.","errorCode":"REQUEST_LIMIT_EXCEEDED"}]`)
	})
	o := s.open(t)
	e := asError(t, ping(t.Context(), o))
	if e.Class != crm.RetryLater || e.Status != 403 || e.Code != "REQUEST_LIMIT_EXCEEDED" || e.RetryAfter != time.Hour {
		t.Errorf("%+v", e)
	}
	if used, max := o.APIUsage(); used != 18 || max != 5000 {
		t.Errorf("usage %d/%d", used, max)
	}
	if s.calls.Load() != 1 {
		t.Errorf("%d calls: a limit is not retried", s.calls.Load())
	}
}

func TestTraps5And7AnswersThatAreNoSuccess(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		header string
		class  crm.Class
		text   string
	}{
		{"503 with a page", 503, "<html>Down for maintenance</html>", "", crm.RetryLater, "maintenance page"},
		{"502 and nothing", 502, "", "", crm.RetryLater, "empty"},
		{"503 as an object", 503, `{"error":"server_error","error_description":"later"}`, "", crm.RetryLater, "later"},
		{"500 as an array", 500, `[{"errorCode":"UNKNOWN_EXCEPTION","message":"An unexpected error occurred."}]`, "", crm.RetryLater, "unexpected"},
		{"403 and no JSON", 403, "Bad_OAuth_Token", "", crm.RetryLater, "no JSON"},
		{"300", 300, `["/services/data/v62.0/sobjects/Contact/1"]`, "", crm.Bug, ""},
		{"301", 301, "", "https://other.example/x", crm.RetryLater, "redirect to other.example"},
		{"302", 302, "", "/login", crm.RetryLater, "redirect"},
		{"307", 307, "", "https://other.example/x", crm.RetryLater, "redirect to other.example"},
		{"400 with a code", 400, `[{"errorCode":"MALFORMED_QUERY","message":"unexpected token: x"}]`, "", crm.Bug, "unexpected token"},
		{"400 with an unknown code", 400, `[{"errorCode":"NEVER_HEARD_OF","message":"x"}]`, "", crm.Bug, "x"},
		{"404 of a path", 404, `[{"errorCode":"NOT_FOUND","message":"The requested resource does not exist"}]`, "", crm.Bug, "does not exist"},
		{"414", 414, "", "", crm.Bug, "empty"},
		{"431", 431, "", "", crm.Bug, "empty"},
		{"200 with a page", 200, "<html>Log in</html>", "", crm.RetryLater, "instead of the JSON"},
		{"200 and nothing", 200, "", "", crm.RetryLater, "empty"},
		{"200 with two values", 200, "[][]", "", crm.RetryLater, "instead of the JSON"},
		{"200 with half a value", 200, `[{"id":"003`, "", crm.RetryLater, "instead of the JSON"},
		{"204", 204, "", "", crm.RetryLater, "no result for each record"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var methods sync.Map
			s := play(t, func(w http.ResponseWriter, r *http.Request) {
				methods.Store(r.Method+" "+r.URL.Path, true)
				if c.header != "" {
					w.Header().Set("Location", c.header)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})
			results := writeContacts(t, s.open(t), 2)
			for _, r := range results {
				e := asError(t, r.Err)
				if e.Class != c.class || e.Status != c.status || !strings.Contains(e.Text, c.text) {
					t.Errorf("%+v, want class %s and a text with %q", e, c.class, c.text)
				}
			}
			methods.Range(func(k, _ any) bool {
				if k != "PATCH /services/data/v62.0/composite/sobjects" {
					t.Errorf("a request %s was sent", k)
				}
				return true
			})
		})
	}
}

func TestTrap6MultipleChoicesIsNoSuccessOfAQuery(t *testing.T) {
	s := play(t, queries(func(w http.ResponseWriter, r *http.Request, _ string) {
		w.WriteHeader(300)
		io.WriteString(w, result(""))
	}))
	if _, _, err := scanAll(t, s.open(t), crm.Key{}); err == nil || asError(t, err).Status != 300 {
		t.Errorf("error %v", err)
	}
}

func TestTraps8And10TwentyParallel401sMakeOneTokenCall(t *testing.T) {
	const workers = 20
	var atOnce sync.WaitGroup
	atOnce.Add(workers)
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("Authorization"), "!token1") {
			atOnce.Done()
			atOnce.Wait() // all have sent their request before the first is refused
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, sessionOver)
			return
		}
		io.WriteString(w, "{}")
	})
	o := s.open(t)
	if _, err := o.session(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	for range workers {
		go func() { errs <- ping(context.WithoutCancel(t.Context()), o) }()
	}
	for range workers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := s.tokens.Load(); n != 2 {
		t.Errorf("%d token calls, want the login and one renewal", n)
	}
}

func TestTrap8TwentyParallelCallsShareOneFailedLogin(t *testing.T) {
	const workers = 20
	s := play(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") })
	s.token = func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"error":"invalid_grant","error_description":"authentication failure"}`)
	}
	o := s.open(t)
	errs := make(chan error)
	for range workers {
		go func() { errs <- ping(context.WithoutCancel(t.Context()), o) }()
	}
	for range workers {
		if e := asError(t, <-errs); e.Code != "invalid_grant" || e.Class != crm.RetryLater || e.RetryAfter == 0 {
			t.Errorf("%+v", e)
		}
	}
	if n := s.tokens.Load(); n != 1 {
		t.Errorf("%d token calls for one wrong secret", n)
	}
	o.now = func() time.Time { return time.Now().Add(loginPause + time.Second) }
	s.token = nil
	if err := ping(t.Context(), o); err != nil {
		t.Errorf("after the pause and the correction: %v", err)
	}
}

func TestTrap9ARenewalAsksTheConfiguredDomainAndTakesTheNewInstance(t *testing.T) {
	moved := play(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"moved":true}`) })
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, sessionOver)
	})
	s.token = func(w http.ResponseWriter, r *http.Request) {
		if s.tokens.Load() == 1 {
			s.grant(w, 1)
			return
		}
		moved.grant(w, 2)
	}
	if err := ping(t.Context(), s.open(t)); err != nil {
		t.Error(err)
	}
	if s.tokens.Load() != 2 || moved.tokens.Load() != 0 || moved.calls.Load() != 1 {
		t.Errorf("%d tokens from the domain, %d from the new host, %d calls there", s.tokens.Load(), moved.tokens.Load(), moved.calls.Load())
	}
}

func TestTrap10A401ThatALoginDoesNotCureIsNotRepeatedForEver(t *testing.T) {
	for _, body := range []string{sessionOver, "", "<html>", `{"error":"unauthorized"}`} {
		s := play(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, body)
		})
		e := asError(t, ping(t.Context(), s.open(t)))
		if e.Class != crm.RetryLater || e.Status != 401 || !strings.Contains(e.Text, "a new login did not help") {
			t.Errorf("%q: %+v", body, e)
		}
		if s.tokens.Load() != 2 || s.calls.Load() != 2 {
			t.Errorf("%q: %d token calls, %d calls, want 2 and 2", body, s.tokens.Load(), s.calls.Load())
		}
	}
}

func TestTrap13ARefusedLoginSaysWhyAndKeepsTheSecret(t *testing.T) {
	for _, c := range []struct {
		name, body, code, text string
		status                 int
	}{
		{"not approved", `{"error":"invalid_grant","error_description":"user hasn't approved this consumer"}`, "invalid_grant", "run-as user", 400},
		{"wrong secret", `{"error":"invalid_client","error_description":"invalid client credentials ` + strings.ReplaceAll(secret, "/", `\/`) + `"}`, "invalid_client", "client_secret", 401},
		{"unknown app", `{"error":"invalid_client_id","error_description":"client identifier invalid"}`, "invalid_client_id", "10 minutes", 400},
		{"flow off", `{"error":"unsupported_grant_type","error_description":"grant type not supported"}`, "unsupported_grant_type", "enable", 400},
		{"a page", `<html>`, "", "no JSON", 404},
		{"a redirect", ``, "", "domain", 302},
		{"a page with status 200", `<html>`, "", "instead of a token", 200},
		{"no token", `{}`, "", "instead of a token", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := play(t, func(http.ResponseWriter, *http.Request) { t.Error("a call without a session") })
			s.token = func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}
			e := asError(t, ping(t.Context(), s.open(t)))
			if e.Class != crm.RetryLater || e.Code != c.code || !strings.Contains(e.Text, c.text) {
				t.Errorf("%+v, want code %q and a text with %q", e, c.code, c.text)
			}
			if all := e.Error() + s.logged(); strings.Contains(all, secret) || strings.Contains(all, "s3cr") {
				t.Errorf("the secret is in %s", all)
			}
		})
	}
}

func TestTrap13ASlowStartOfTheTokenEndpointIsRetried(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") })
	s.token = func(w http.ResponseWriter, r *http.Request) {
		if n := s.tokens.Load(); n < 3 {
			w.WriteHeader(503)
		} else {
			s.grant(w, n)
		}
	}
	if err := ping(t.Context(), s.open(t)); err != nil || s.tokens.Load() != 3 {
		t.Errorf("%v after %d token calls", err, s.tokens.Load())
	}
}

func TestTrap14SlashesBehindTheDomainAreTrimmed(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") })
	o := s.open(t, func(c *Config) { c.Domain += "//" })
	if err := ping(t.Context(), o); err != nil {
		t.Error(err)
	}
}

func TestTrap15ATokenMustSayWhereItsOrganisationIs(t *testing.T) {
	for name, instance := range map[string]string{
		"no instance_url": "", "no host": "https://", "a path": "/services", "in the clear": "http://na1.salesforce.com", "another scheme": "ftp://x.example",
		"with a password": "https://a:b@x.example",
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, func(http.ResponseWriter, *http.Request) {})
			s.token = func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, `{"access_token":"00D!x","instance_url":%q,"id":"x/%s/%s"}`, instance, testOrg, testUser)
			}
			if e := asError(t, ping(t.Context(), s.open(t))); !strings.Contains(e.Text, "instance_url") || strings.Contains(e.Error(), "00D!") {
				t.Errorf("%v", e)
			}
		})
	}
}

func TestAnHTTPSDomainDoesNotHandItsTokenToPlainHTTP(t *testing.T) {
	o := &Org{config: Config{Domain: "https://acme.my.salesforce.com"}}
	for instance, good := range map[string]bool{
		"https://acme.my.salesforce.com": true, "https://na1.salesforce.com/": true, "http://127.0.0.1:1": false, "http://acme.my.salesforce.com": false,
	} {
		if _, err := o.checkInstance(instance); (err == nil) != good {
			t.Errorf("%s: %v", instance, err)
		}
	}
}

func TestTrap16NoConnectionIsLeftOpen(t *testing.T) {
	var mu sync.Mutex
	open := map[string]bool{}
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		open[r.RemoteAddr] = true
		mu.Unlock()
		io.WriteString(w, strings.Repeat(" ", 100_000)+"{}")
	})
	o := s.open(t)
	for range 20 {
		if err := ping(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if len(open) != 1 {
		t.Errorf("20 calls in turn took %d connections, want 1", len(open))
	}
}

func TestARefreshedSandboxIsNotWrittenTo(t *testing.T) {
	s := play(t, expireFirstToken(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") }))
	s.token = func(w http.ResponseWriter, r *http.Request) {
		n := s.tokens.Load()
		fmt.Fprintf(w, `{"access_token":"00D!token%d","instance_url":%q,"id":"x/%s/%s"}`, n, s.URL, id("00D", int(n)), testUser)
	}
	if e := asError(t, ping(t.Context(), s.open(t))); e.Code != "OTHER_ORG" || e.Class != crm.RetryLater {
		t.Errorf("another organisation after a new login: %v", e)
	}
	s.tokens.Store(0)
	o := s.open(t, func(c *Config) { c.OrgID = "00D000000000009" })
	if e := asError(t, ping(t.Context(), o)); e.Code != "OTHER_ORG" {
		t.Errorf("another organisation than configured: %v", e)
	}
}

func TestATokenWithoutIdentityIsAskedWhoItIsFor(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/services/oauth2/userinfo" {
			fmt.Fprintf(w, `{"user_id":%q,"organization_id":%q}`, testUser, testOrg)
			return
		}
		io.WriteString(w, "{}")
	})
	s.token = func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"access_token":"00D!x","instance_url":%q}`, s.URL)
	}
	o := s.open(t)
	sess, err := o.session(t.Context(), nil)
	if err != nil || sess.userID != testUser || sess.orgID != testOrg {
		t.Errorf("%+v, %v", sess, err)
	}
}

func TestLoggingInByJWT(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	s := play(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") })
	s.token = func(w http.ResponseWriter, r *http.Request) {
		if g := r.PostFormValue("grant_type"); g != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
			t.Errorf("grant type %q", g)
		}
		claims := jwt.MapClaims{}
		// the library writes exp as a string, which strict parsers refuse
		_, err := jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithValidMethods([]string{"RS256"})).
			ParseWithClaims(r.PostFormValue("assertion"), claims, func(*jwt.Token) (any, error) { return &key.PublicKey, nil })
		if err != nil || claims["sub"] != "heed@acme.example" || claims["iss"] != "client" || claims["aud"] != "https://login.salesforce.com" {
			t.Errorf("claims %v, %v", claims, err)
		}
		s.grant(w, 1)
	}
	o := s.open(t, func(c *Config) { c.ClientSecret, c.Username, c.PrivateKeyFile = "", "heed@acme.example", file })
	if err := ping(t.Context(), o); err != nil {
		t.Error(err)
	}
	if ps := o.config.Validate(); len(ps) != 0 {
		t.Errorf("problems %v", ps)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	o.current.Store(nil)
	if e := asError(t, ping(t.Context(), o)); !strings.Contains(e.Text, "private_key_file") {
		t.Errorf("%v", e)
	}
}

func TestIdempotentRequestsAreRetriedAndOthersAreNot(t *testing.T) {
	for _, c := range []struct {
		method, path string
		want         bool
	}{
		{"GET", "/services/data/v62.0/query", true},
		{"PATCH", "/services/data/v62.0/composite/sobjects", true},
		{"PATCH", "/services/data/v62.0/composite/sobjects/Contact/Ext__c", false},
		{"POST", "/services/oauth2/token", true},
		{"POST", "/services/data/v62.0/composite/sobjects", false},
		{"POST", "/services/data/v62.0/sobjects/Contact", false},
		{"DELETE", "/services/data/v62.0/composite/sobjects", false},
		{"PUT", "/services/data/v62.0/jobs", false},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			s := play(t, func(w http.ResponseWriter, r *http.Request) {
				if body, _ := io.ReadAll(r.Body); len(body) > 0 && string(body) != "body" {
					t.Errorf("the body is %q", body)
				}
				w.WriteHeader(503)
			})
			if c.path == tokenPath {
				s.token = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }
			}
			a := new(answer)
			req, err := http.NewRequestWithContext(context.WithValue(t.Context(), answerKey{}, a), c.method, s.URL+c.path, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			want := int64(1)
			if c.want {
				want = maxAttempts
			}
			if n := s.calls.Load() + s.tokens.Load(); n != want || a.status != 503 {
				t.Errorf("%d attempts, want %d; status %d", n, want, a.status)
			}
		})
	}
}

func TestALongRetryAfterIsLeftToTheCaller(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(503)
	})
	e := asError(t, ping(t.Context(), s.open(t)))
	if e.RetryAfter != 2*time.Minute || s.calls.Load() != 1 {
		t.Errorf("%+v after %d calls", e, s.calls.Load())
	}
}

func TestBackoffGrowsKeepsItsBoundsAndObeysRetryAfter(t *testing.T) {
	for attempt := range 40 {
		d := backoff(100*time.Millisecond, 3*time.Second, attempt, nil)
		if d > 3*time.Second || d < 50*time.Millisecond {
			t.Errorf("attempt %d waits %s", attempt, d)
		}
	}
	resp := &http.Response{Header: http.Header{"Retry-After": {"7"}}}
	if d := backoff(100*time.Millisecond, 3*time.Second, 0, resp); d < 7*time.Second || d > 7100*time.Millisecond {
		t.Errorf("waits %s instead of the 7 s that were asked for", d)
	}
	date := &answer{header: http.Header{"Retry-After": {"Sun, 01 Mar 2026 12:00:30 GMT"}, "Date": {"Sun, 01 Mar 2026 12:00:00 GMT"}}}
	if d := date.retryAfter(); d != 30*time.Second {
		t.Errorf("a date 30 s ahead gives %s", d)
	}
}

func TestHalfABodyIsAskedForAgain(t *testing.T) {
	var n atomic.Int64
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, `{"half":`)
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "{}")
	})
	if err := ping(t.Context(), s.open(t)); err != nil || n.Load() != 2 {
		t.Errorf("%v after %d calls", err, n.Load())
	}
}

func TestABodyThatAlwaysBreaksOffIsAnErrorOfEachWrite(t *testing.T) {
	s := play(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `[{"id":"`+contactID(1)+`","success":true,"errors":[]}`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	for _, r := range writeContacts(t, s.open(t), 3) {
		if e := asError(t, r.Err); e.Class != crm.RetryNow || e.Status != 0 || !errors.Is(e, io.ErrUnexpectedEOF) {
			t.Errorf("%v", e)
		}
	}
	if s.calls.Load() != maxAttempts {
		t.Errorf("%d attempts, want %d", s.calls.Load(), maxAttempts)
	}
}

func TestAnOrganisationThatIsNotThereIsRetryLater(t *testing.T) {
	s := play(t, func(http.ResponseWriter, *http.Request) {})
	o := s.open(t)
	s.Close()
	e := asError(t, ping(t.Context(), o))
	if e.Class != crm.RetryLater || e.Err == nil || strings.Contains(e.Error(), loginPrefix) {
		t.Errorf("%v", e)
	}
}

func TestSeveralOrganisationsInOneProcessDoNotMixTheirLogins(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 6 {
		s := play(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") })
		s.token = func(w http.ResponseWriter, r *http.Request) {
			if r.PostFormValue("client_id") != fmt.Sprintf("client%d", i) {
				t.Errorf("client %s at organisation %d", r.PostFormValue("client_id"), i)
			}
			if i%2 == 0 {
				w.WriteHeader(400)
				fmt.Fprintf(w, `{"error":"invalid_grant","error_description":"organisation %d"}`, i)
				return
			}
			s.grant(w, 1)
		}
		o := s.open(t, func(c *Config) { c.ClientID = fmt.Sprintf("client%d", i) })
		wg.Go(func() {
			err := ping(context.WithoutCancel(t.Context()), o)
			if i%2 == 1 && err != nil || i%2 == 0 && (err == nil || !strings.Contains(err.Error(), fmt.Sprintf("organisation %d", i))) {
				t.Errorf("organisation %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestTheBaseTransportCanBeSwappedForAMock(t *testing.T) {
	mock := httpmock.NewMockTransport()
	before := *installed.Load().base.Load()
	InstallTransport(mock)
	defer InstallTransport(before)
	mock.RegisterResponder("POST", "https://acme.my.salesforce.com"+tokenPath, httpmock.NewStringResponder(200,
		`{"access_token":"00D!x","instance_url":"https://acme.my.salesforce.com","id":"x/`+testOrg+`/`+testUser+`"}`))
	mock.RegisterResponder("GET", `=~^https://acme\.my\.salesforce\.com/services/data/v62\.0/query`,
		httpmock.NewStringResponder(200, `{"ok":true}`))
	mock.RegisterNoResponder(httpmock.NewNotFoundResponder(t.Fatal))
	o, err := New(config("https://acme.my.salesforce.com/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ping(t.Context(), o); err != nil {
		t.Error(err)
	}
	calls := mock.GetCallCountInfo()
	if calls["POST https://acme.my.salesforce.com"+tokenPath] != 1 || mock.GetTotalCallCount() != 2 {
		t.Errorf("calls %v", calls)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAServerThatNeverAnswersIsGivenUp(t *testing.T) {
	before := *installed.Load().base.Load()
	defer InstallTransport(before)
	synctest.Test(t, func(t *testing.T) {
		InstallTransport(roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}))
		o, err := New(config("https://acme.my.salesforce.com"), nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err = ping(context.Background(), o)
		if took := time.Since(start); err == nil || took > loginTimeout+time.Second {
			t.Errorf("%v after %s", err, took)
		}
	})
}
