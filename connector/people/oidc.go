package people

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// OIDC is an OpenID provider (OpenID Connect Core 1.0) with which people sign in: authorization code flow with state,
// nonce and PKCE. Who has none of the roles is not let in.
type OIDC struct {
	Issuer       string
	ClientID     string
	ClientSecret string
	Scopes       []string          // beside openid; email and profile if nil
	NameClaim    string            // email if ""; one with email_verified false is refused
	RoleClaim    string            // groups if ""; a string or a list of strings
	Roles        map[Role][]string // values of RoleClaim that give a role; the highest counts
	Label        string            // on the button; "Sign in with OpenID" if ""
	Client       *http.Client      // 10 seconds for each request if nil
}

// provider is an OpenID provider that is asked about itself when it is first needed: heed starts without it.
type provider struct {
	OIDC
	redirect string

	mu    sync.Mutex
	known *oidc.Provider
}

const flowLife = 10 * time.Minute

// flow is what a browser keeps between leaving for the provider and coming back.
type flow struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	Next     string `json:"x"`
}

func (p *provider) label() string {
	if p.Label != "" {
		return p.Label
	}
	return "Sign in with OpenID"
}

func (p *provider) context(ctx context.Context) context.Context {
	c := p.Client
	if c == nil {
		c = &http.Client{Timeout: 10 * time.Second}
	}
	return oidc.ClientContext(ctx, c)
}

// discover returns the provider. Its keys are fetched with the context of the discovery, so that one must not end.
func (p *provider) discover() (*oidc.Provider, oauth2.Config, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		known, err := oidc.NewProvider(p.context(context.Background()), p.Issuer)
		if err != nil {
			return nil, oauth2.Config{}, fmt.Errorf("the OpenID provider's description: %w", err)
		}
		p.known = known
	}
	scopes := p.Scopes
	if scopes == nil {
		scopes = []string{"email", "profile"}
	}
	return p.known, oauth2.Config{ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: p.known.Endpoint(),
		RedirectURL: p.redirect, Scopes: append([]string{oidc.ScopeOpenID}, scopes...)}, nil
}

func (s *Service) startOpenID(w http.ResponseWriter, r *http.Request) {
	next := safeNext(r.URL.Query().Get("next"))
	_, conf, err := s.oidc.discover()
	if err != nil {
		s.o.Log.Error("OpenID provider unavailable", "error", err)
		s.page(w, r, http.StatusBadGateway, "signin", s.signInForm(r.Context(), next, "The OpenID provider does not answer. Try again."))
		return
	}
	f := flow{State: newToken(), Nonce: newToken(), Verifier: oauth2.GenerateVerifier(), Next: next}
	b, _ := json.Marshal(f) // strings always encode
	s.flowCookie(w, base64.RawURLEncoding.EncodeToString(b), int(flowLife.Seconds()))
	http.Redirect(w, r, conf.AuthCodeURL(f.State, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), http.StatusSeeOther)
}

func (s *Service) flowCookie(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{Name: s.cookie("heed_openid"), Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true,
		Secure: s.sessions.Cookie.Secure, SameSite: http.SameSiteLaxMode})
}

func (s *Service) finishOpenID(w http.ResponseWriter, r *http.Request) {
	var f flow
	c, err := r.Cookie(s.cookie("heed_openid"))
	if err == nil {
		var b []byte
		if b, err = base64.RawURLEncoding.DecodeString(c.Value); err == nil {
			err = json.Unmarshal(b, &f)
		}
	}
	s.flowCookie(w, "", -1) // it serves once
	var p Person
	if err == nil {
		p, err = s.oidc.finish(r, f)
	}
	if err == nil {
		if a, known, aerr := s.account(r.Context(), p.Name); aerr != nil {
			err = aerr
		} else if known && a.Removed {
			err = errors.New("the account was removed")
		}
	}
	if err == nil {
		err = s.begin(r.Context(), p, 0)
	}
	if err != nil {
		s.o.Log.Warn("OpenID sign-in refused", "error", err, "source", sourceOf(r))
		s.page(w, r, http.StatusForbidden, "signin", s.signInForm(r.Context(), safeNext(f.Next), "The sign-in was refused, or took too long. The reason is in heed's log."))
		return
	}
	http.Redirect(w, r, safeNext(f.Next), http.StatusSeeOther)
}

// finish proves who came back from the provider.
func (p *provider) finish(r *http.Request, f flow) (Person, error) {
	q := r.URL.Query()
	switch {
	case f.State == "" || subtle.ConstantTimeCompare([]byte(f.State), []byte(q.Get("state"))) != 1:
		return Person{}, errors.New("state differs: the answer belongs to another sign-in")
	case q.Has("iss") && q.Get("iss") != p.Issuer: // RFC 9207: an answer of another provider
		return Person{}, errors.New("the answer names another issuer")
	case q.Get("error") != "":
		return Person{}, fmt.Errorf("the provider refused: %.100q", q.Get("error"))
	}
	known, conf, err := p.discover()
	if err != nil {
		return Person{}, err
	}
	ctx := p.context(r.Context())
	token, err := conf.Exchange(ctx, q.Get("code"), oauth2.VerifierOption(f.Verifier))
	if err != nil {
		var re *oauth2.RetrieveError
		if errors.As(err, &re) { // its text holds the provider's whole answer
			return Person{}, fmt.Errorf("the provider did not take the code: HTTP %d %s", re.Response.StatusCode, re.ErrorCode)
		}
		return Person{}, fmt.Errorf("exchange the code: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return Person{}, errors.New("the answer has no id_token")
	}
	id, err := known.Verifier(&oidc.Config{ClientID: p.ClientID}).Verify(ctx, raw)
	if err != nil {
		return Person{}, fmt.Errorf("id_token: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.Nonce)) != 1 {
		return Person{}, errors.New("id_token: nonce differs")
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return Person{}, fmt.Errorf("id_token: %w", err)
	}
	return p.person(claims)
}

// person reads name and role from the claims.
func (p *provider) person(claims map[string]any) (Person, error) {
	nameClaim, roleClaim := p.NameClaim, p.RoleClaim
	if nameClaim == "" {
		nameClaim = "email"
	}
	if roleClaim == "" {
		roleClaim = "groups"
	}
	name, _ := claims[nameClaim].(string)
	if verified, ok := claims["email_verified"]; nameClaim == "email" && ok && verified != true && verified != "true" {
		return Person{}, errors.New("the e-mail address is not verified")
	}
	if name == "" || len(name) > 4*maxName {
		return Person{}, fmt.Errorf("the claim %q is missing or too long", nameClaim)
	}
	var has []string
	switch v := claims[roleClaim].(type) {
	case string:
		has = []string{v}
	case []any:
		for _, x := range v {
			if s, ok := x.(string); ok {
				has = append(has, s)
			}
		}
	}
	for _, role := range slices.Backward(roles) {
		if slices.ContainsFunc(p.Roles[role], func(want string) bool { return slices.Contains(has, want) }) {
			return Person{Name: name, Role: role, Via: viaOpenID}, nil
		}
	}
	return Person{}, fmt.Errorf("none of the values of the claim %q gives a role", roleClaim)
}
