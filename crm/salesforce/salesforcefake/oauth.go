package salesforcefake

import (
	"cmp"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sessionLife is the default session timeout; each call renews it. The token answer carries no expires_in: a client
// learns of the end by 401 INVALID_SESSION_ID alone.
const sessionLife = 2 * time.Hour

type session struct {
	user  uint32
	used  time.Time
	calls int
}

type sessions struct {
	mu sync.Mutex
	m  map[string]*session
}

func newSessions() *sessions { return &sessions{m: map[string]*session{}} }

func (s *sessions) open(orgID string, user uint32, now time.Time) string {
	var b [72]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	token := orgID[:15] + "!AQ" + strings.NewReplacer("-", ".", "_", ".").Replace(base64.RawURLEncoding.EncodeToString(b[:]))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[token] = &session{user: user, used: now}
	return token
}

// use finds the session of a token and renews it. With every > 0 the session ends with its every-th data call.
func (s *sessions) use(token string, now time.Time, every int, data bool) (user uint32, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	se := s.m[token]
	if se == nil {
		return 0, false
	}
	if now.Sub(se.used) > sessionLife {
		delete(s.m, token)
		return 0, false
	}
	se.used = now
	if data {
		se.calls++
		if every > 0 && se.calls >= every {
			delete(s.m, token)
		}
	}
	return se.user, true
}

func (s *sessions) end(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, token)
}

func (s *sessions) expireAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.m)
}

// ExpireSessions ends every session, like the knob expire_tokens.
func (o *Org) ExpireSessions() { o.sessions.expireAll() }

func oauthError(status int, code, description string) *response {
	return jsonResponse("token", status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{code, description})
}

// token answers /services/oauth2/token: the client credentials, JWT bearer and username-password flows.
func (o *Org) token(r *http.Request) *response {
	if r.Method != http.MethodPost {
		return oauthError(400, "invalid_request", "must use HTTP POST")
	}
	if ct := r.Header.Get("Content-Type"); ct != "" && !strings.HasPrefix(ct, "application/x-www-form-urlencoded") {
		return oauthError(400, "unsupported_grant_type", "grant type not supported")
	}
	if err := r.ParseForm(); err != nil {
		return oauthError(400, "invalid_request", "malformed form")
	}
	form := r.PostForm
	for k, vs := range form {
		if len(vs) > 1 {
			return oauthError(400, "invalid_request", "duplicate parameter: "+k)
		}
	}
	switch form.Get("grant_type") {
	case "client_credentials":
		id, secret := form.Get("client_id"), form.Get("client_secret")
		if u, p, ok := r.BasicAuth(); ok {
			id, secret = unescape(u), unescape(p)
		}
		switch {
		case id == "":
			return oauthError(400, "invalid_request", "missing required parameter: client_id")
		case id != o.opt.ClientID:
			return oauthError(400, "invalid_client_id", "client identifier invalid")
		case subtle.ConstantTimeCompare([]byte(secret), []byte(o.opt.ClientSecret)) != 1:
			return oauthError(400, "invalid_client", "invalid client credentials")
		}
		return o.grant(r, integrationUser)
	case "urn:ietf:params:oauth:grant-type:jwt-bearer":
		username, res := o.checkAssertion(r, form.Get("assertion"))
		if res != nil {
			return res
		}
		return o.logIn(r, username)
	case "password":
		switch {
		case form.Get("client_id") != o.opt.ClientID:
			return oauthError(400, "invalid_client_id", "client identifier invalid")
		case subtle.ConstantTimeCompare([]byte(form.Get("client_secret")), []byte(o.opt.ClientSecret)) != 1:
			return oauthError(400, "invalid_client", "invalid client credentials")
		case subtle.ConstantTimeCompare([]byte(form.Get("password")), []byte(o.opt.Password)) != 1:
			return oauthError(400, "invalid_grant", "authentication failure")
		}
		return o.logIn(r, form.Get("username"))
	case "":
		return oauthError(400, "invalid_request", "missing required parameter: grant_type")
	}
	return oauthError(400, "unsupported_grant_type", "grant type not supported")
}

func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

// logIn grants a session to an active user that the app lets in: any of the org's.
func (o *Org) logIn(r *http.Request, username string) *response {
	o.mu.RLock()
	user := o.findEqual(o.users, o.users.field("Username"), stringValue(username), 0)
	active := user != 0 && o.get(o.users, o.users.row(user), o.users.field("IsActive")).n != 0
	o.mu.RUnlock()
	switch {
	case user == 0 && r.PostForm.Get("grant_type") == "password":
		return oauthError(400, "invalid_grant", "authentication failure")
	case user == 0:
		return oauthError(400, "invalid_grant", "user hasn't approved this consumer")
	case !active:
		return oauthError(400, "inactive_user", "user is inactive")
	}
	return o.grant(r, user)
}

func (o *Org) grant(r *http.Request, user uint32) *response {
	now := o.now()
	token := o.sessions.open(o.orgID, user, now)
	base := o.base(r)
	id := base + "/id/" + o.orgID + "/" + o.users.id(user)
	issued := strconv.FormatInt(now.UnixMilli(), 10)
	mac := hmac.New(sha256.New, []byte(o.opt.ClientSecret))
	mac.Write([]byte(id + issued))
	res := jsonResponse("token", 200, struct {
		AccessToken string `json:"access_token"`
		Signature   string `json:"signature"`
		Scope       string `json:"scope"`
		InstanceURL string `json:"instance_url"`
		ID          string `json:"id"`
		TokenType   string `json:"token_type"`
		IssuedAt    string `json:"issued_at"`
	}{token, base64.StdEncoding.EncodeToString(mac.Sum(nil)), "api id", base, id, "Bearer", issued})
	res.header = map[string]string{"Cache-Control": "no-cache,must-revalidate,max-age=0,no-store,private"}
	return res
}

// base is the instance URL: what SetURL said, else where the request went.
func (o *Org) base(r *http.Request) string {
	if u := o.url.Load(); u != nil && *u != "" {
		return *u
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// number is a JSON number, or a string that holds one, as some clients send exp.
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	*n = number(f)
	return err
}

// audience is a JSON string or a list of them.
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// checkAssertion verifies a JWT bearer assertion: RS256, iss = client id, sub = username, aud = a login host or this org,
// exp in the future. It returns the username it is for, or the refusal.
func (o *Org) checkAssertion(r *http.Request, assertion string) (string, *response) {
	bad := func(description string) (string, *response) { return "", oauthError(400, "invalid_grant", description) }
	parts := strings.Split(assertion, ".")
	if assertion == "" {
		return "", oauthError(400, "invalid_request", "missing required parameter: assertion")
	}
	if len(parts) != 3 {
		return bad("invalid assertion")
	}
	var raw [3][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.DecodeString(p)
		if err != nil {
			return bad("invalid assertion")
		}
		raw[i] = b
	}
	var head struct {
		Alg string `json:"alg"`
	}
	var claims struct {
		Iss string   `json:"iss"`
		Sub string   `json:"sub"`
		Prn string   `json:"prn"`
		Aud audience `json:"aud"`
		Exp number   `json:"exp"`
	}
	if json.Unmarshal(raw[0], &head) != nil || json.Unmarshal(raw[1], &claims) != nil || head.Alg != "RS256" {
		return bad("invalid assertion")
	}
	if claims.Iss != o.opt.ClientID {
		return "", oauthError(400, "invalid_client_id", "client identifier invalid")
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if o.opt.JWTPublicKey == nil || rsa.VerifyPKCS1v15(o.opt.JWTPublicKey, crypto.SHA256, sum[:], raw[2]) != nil {
		return bad("invalid assertion")
	}
	ok := false
	for _, a := range claims.Aud {
		a = strings.TrimSuffix(strings.TrimSuffix(a, "/services/oauth2/token"), "/")
		ok = ok || a == "https://login.salesforce.com" || a == "https://test.salesforce.com" || a == o.base(r)
	}
	switch {
	case !ok:
		return bad("audience is invalid")
	case float64(claims.Exp) <= float64(o.now().Unix()):
		return bad("expired authorization code")
	}
	return cmp.Or(claims.Sub, claims.Prn), nil
}

func bearer(r *http.Request) (token string, wellFormed bool) {
	h := r.Header.Get("Authorization")
	scheme, token, ok := strings.Cut(h, " ")
	if ok && (strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "OAuth")) {
		return strings.TrimSpace(token), true
	}
	return "", h == ""
}

// userinfo answers /services/oauth2/userinfo and the identity URL. A bad token is 403 with plain text here.
func (o *Org) userinfo(r *http.Request, identity bool) *response {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		return restError("userinfo", methodNotAllowed(r.Method, "GET,POST,HEAD"))
	}
	token, _ := bearer(r)
	if token == "" && r.Method == http.MethodPost && r.ParseForm() == nil {
		token = r.PostForm.Get("access_token")
	}
	if token == "" {
		return &response{kind: "userinfo", status: 403, ctype: "text/html;charset=UTF-8", body: []byte("Missing_OAuth_Token")}
	}
	user, ok := o.sessions.use(token, o.now(), 0, false)
	if !ok {
		return &response{kind: "userinfo", status: 403, ctype: "text/html;charset=UTF-8", body: []byte("Bad_OAuth_Token")}
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	row := o.users.row(user)
	text := func(name string) string { return o.get(o.users, row, o.users.field(name)).s }
	base := o.base(r)
	sub := base + "/id/" + o.orgID + "/" + o.users.id(user)
	out := map[string]any{
		"sub": sub, "user_id": o.users.id(user), "organization_id": o.orgID, "preferred_username": text("Username"),
		"nickname": text("Alias"), "name": text("Name"), "given_name": text("FirstName"), "family_name": text("LastName"),
		"email": text("Email"), "email_verified": true, "zoneinfo": text("TimeZoneSidKey"), "locale": text("LocaleSidKey"),
		"language": text("LanguageLocaleKey"), "active": true, "user_type": "STANDARD", "utcOffset": 0,
		"updated_at": time.UnixMilli(row.modified).UTC().Format(time.RFC3339),
		"urls": map[string]string{
			"rest": base + "/services/data/v{version}/", "sobjects": base + "/services/data/v{version}/sobjects/",
			"query": base + "/services/data/v{version}/query/", "search": base + "/services/data/v{version}/search/",
			"recent": base + "/services/data/v{version}/recent/", "profile": base + "/" + o.users.id(user),
			"enterprise": base + "/services/Soap/c/{version}/" + o.orgID[:15], "partner": base + "/services/Soap/u/{version}/" + o.orgID[:15],
			"metadata": base + "/services/Soap/m/{version}/" + o.orgID[:15],
		},
	}
	if identity {
		out["id"], out["username"], out["display_name"] = sub, text("Username"), text("Name")
		out["first_name"], out["last_name"], out["asserted_user"] = text("FirstName"), text("LastName"), true
	}
	return jsonResponse("userinfo", 200, out)
}
