// Package people is who may open the admin page and what they may do there: accounts with a password, sign-in through
// an OpenID provider, sessions and roles.
//
// An account is an event in the ledger (ledger.Access), so who made it, changed it or took it away is on record. It
// comes to be through a link that works once, for a quarter of an hour, and that only somebody at heed's own command
// line can ask for; nobody becomes anything by being the first to visit. Sessions, links and delays are in the memory of
// this process: a restart signs everybody out.
//
// What the page shows is package admin's. API keys are for programs, and package connector's.
package people

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/alexedwards/scs/v2"

	"github.com/heed-sms/heed/connector/ledger"
)

// Role is what a person may do. Each includes the ones before it.
type Role string

const (
	Viewer   Role = "viewer"   // look at everything
	Operator Role = "operator" // decide on held replies, retry parked work, opt numbers out one by one, export
	Admin    Role = "admin"    // everything: opt out in bulk as well
)

var roles = []Role{Viewer, Operator, Admin}

// At reports whether r includes the rights of another role. A role that does not exist includes none.
func (r Role) At(least Role) bool {
	have, want := slices.Index(roles, r), slices.Index(roles, least)
	return have >= 0 && want >= 0 && have >= want
}

// ParseRole reads the name of a role.
func ParseRole(s string) (Role, error) {
	if r := Role(s); slices.Contains(roles, r) {
		return r, nil
	}
	return "", fmt.Errorf("%w: %q is no role; want viewer, operator or admin", ErrInvalid, s)
}

// Person is somebody who is signed in.
type Person struct {
	Name string
	Role Role
	Via  string // "password", or "openid"
}

type personKey struct{}

// From returns the person whose request it is; ok is false outside of Service.Require.
func From(ctx context.Context) (p Person, ok bool) {
	p, ok = ctx.Value(personKey{}).(Person)
	return p, ok
}

// Errors.
var (
	ErrInvalid  = errors.New("not possible") // the text behind it says what is wrong, for people
	ErrNotFound = errors.New("no such person")
)

// Ledger is what the package needs of the ledger.
type Ledger interface {
	Append(ctx context.Context, events ...ledger.Event) ([]ledger.Receipt, error)
	Access(ctx context.Context) iter.Seq2[ledger.Access, error]
}

// Options configure a Service.
type Options struct {
	Ledger Ledger
	URL    string // base of the page as people reach it, without a trailing slash; https makes its cookies Secure
	OIDC   *OIDC  // nil for none
	Log    *slog.Logger
	Now    func() time.Time // for links and delays; time.Now if nil
	// Page renders a form. nil renders plain ones. The names are signin, setup and message.
	Page func(w http.ResponseWriter, r *http.Request, status int, name string, data Form)
	// Idle and Absolute end a session: 30 minutes without a request and 12 hours after the sign-in if 0.
	Idle, Absolute time.Duration
}

// Form is what a page of this package shows.
type Form struct {
	Title   string
	Message string // what went wrong, or what happened; "" for nothing
	Next    string // signin: where to go on to
	Token   string // setup
	Name    string // setup: whose account it is
	OpenID  string // signin: what the button of the OpenID provider says, "" for no button
	Local   bool   // signin: there are accounts with a password
}

// Service is safe for concurrent use.
type Service struct {
	o        Options
	sessions *scs.SessionManager
	origin   *http.CrossOriginProtection
	oidc     *provider
	hashing  chan struct{} // bounds how much memory hashing takes
	throttle throttle

	mu       sync.Mutex
	accounts map[string]ledger.Access // by folded name, removed ones included; nil until read
	links    map[[32]byte]invitation  // by hash of the token
	ended    map[string]int           // how often a person's sessions were ended everywhere, by folded name
}

type invitation struct {
	name, by, why string
	role          Role
	until         time.Time
}

const (
	linkLife = 15 * time.Minute
	maxLinks = 100 // more than anybody asks for within that time
	maxName  = 100 // characters
)

// New returns a service. It does no I/O: the accounts are read when they are first needed.
func New(o Options) (*Service, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Idle == 0 {
		o.Idle = 30 * time.Minute
	}
	if o.Absolute == 0 {
		o.Absolute = 12 * time.Hour
	}
	if o.Page == nil {
		o.Page = plainPage
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%w: the page's URL must be http://… or https://…", ErrInvalid)
	}
	s := &Service{o: o, origin: http.NewCrossOriginProtection(),
		hashing: make(chan struct{}, 2), links: map[[32]byte]invitation{}, ended: map[string]int{}, throttle: newThrottle(o.Now)}
	// Behind a proxy that ends TLS the request's own host may not be what the browser sees.
	if err := s.origin.AddTrustedOrigin(u.Scheme + "://" + u.Host); err != nil {
		return nil, fmt.Errorf("%w: the page's URL: %w", ErrInvalid, err)
	}
	// Not scs.New: it starts a goroutine that nothing can end.
	s.sessions = &scs.SessionManager{
		IdleTimeout: o.Idle, Lifetime: o.Absolute, Codec: scs.GobCodec{},
		Store: &memory{sessions: map[string]kept{}}, HashTokenInStore: true,
		Cookie: scs.SessionCookie{Name: s.cookie("heed_session"), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: u.Scheme == "https"},
		ErrorFunc: func(w http.ResponseWriter, _ *http.Request, err error) {
			s.o.Log.Error("session could not be read or kept", "error", err)
			http.Error(w, "internal error", http.StatusInternalServerError)
		},
	}
	if o.OIDC != nil {
		s.oidc = &provider{OIDC: *o.OIDC, redirect: o.URL + "/oidc/callback"}
	}
	return s, nil
}

// cookie names a cookie. The prefix __Host- makes a browser refuse one that another host of the domain has set.
func (s *Service) cookie(name string) string {
	if strings.HasPrefix(s.o.URL, "https:") {
		return "__Host-" + name
	}
	return name
}

// Account is a person's account as others see it.
type Account struct {
	Name    string    `json:"name"`
	Role    Role      `json:"role"`
	Removed bool      `json:"removed,omitempty"`
	By      string    `json:"by,omitempty"` // who made the latest change
	Why     string    `json:"why,omitempty"`
	At      time.Time `json:"at"` // of the latest change
}

// List returns all accounts, removed ones included, by name.
func (s *Service) List(ctx context.Context) ([]Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	out := []Account{}
	for _, a := range s.accounts {
		out = append(out, Account{a.Name, roleOf(a), a.Removed, a.By, a.Why, a.At})
	}
	slices.SortFunc(out, func(a, b Account) int { return strings.Compare(fold(a.Name), fold(b.Name)) })
	return out, nil
}

// Invite returns a link at which a person chooses a password, within 15 minutes and once. For a name that has an account
// already it is how a password is set anew, and role may be "" to keep the one it has. by is who asked for it, and
// why is for the record. The account is made, or changed, only when the link is used.
func (s *Service) Invite(ctx context.Context, name string, role Role, by, why string) (link string, until time.Time, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return "", until, err
	}
	name = strings.TrimSpace(name)
	if name == "" || utf8.RuneCountInString(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", until, fmt.Errorf("%w: a name is 1 to %d printable characters, such as an e-mail address", ErrInvalid, maxName)
	}
	if a, ok := s.accounts[fold(name)]; ok && !a.Removed {
		name = a.Name
		if role == "" {
			role = roleOf(a)
		}
	}
	if _, err := ParseRole(string(role)); err != nil {
		return "", until, err
	}
	now := s.o.Now()
	for h, l := range s.links { // an older link for the same person ends
		if now.After(l.until) || fold(l.name) == fold(name) {
			delete(s.links, h)
		}
	}
	if len(s.links) >= maxLinks {
		return "", until, fmt.Errorf("%w: %d links wait to be used; try again in a quarter of an hour", ErrInvalid, maxLinks)
	}
	token := newToken()
	until = now.Add(linkLife)
	s.links[sha256.Sum256([]byte(token))] = invitation{name, by, why, role, until}
	return s.o.URL + "/setup?token=" + token, until, nil
}

// SetRole changes what a person may do. Sessions of that person end.
func (s *Service) SetRole(ctx context.Context, name string, role Role, by, why string) error {
	if _, err := ParseRole(string(role)); err != nil {
		return err
	}
	return s.change(ctx, name, func(a *ledger.Access) { a.May, a.By, a.Why = []string{string(role)}, by, why })
}

// Remove takes a person's account away. Sessions of that person end. The name of somebody who signs in with an OpenID
// provider may be removed too, and is refused from then on.
func (s *Service) Remove(ctx context.Context, name, by, why string) error {
	return s.change(ctx, name, func(a *ledger.Access) { a.Removed, a.Password, a.By, a.Why = true, "", by, why })
}

func (s *Service) change(ctx context.Context, name string, fn func(*ledger.Access)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return err
	}
	a, ok := s.accounts[fold(name)]
	if !ok || a.Removed {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	fn(&a)
	return s.put(ctx, a)
}

// put records an account. The lock is held.
func (s *Service) put(ctx context.Context, a ledger.Access) error {
	now := s.o.Now().UTC()
	a.Sort = ledger.AccessUser
	event := a // the ledger keeps it
	r, err := s.o.Ledger.Append(context.WithoutCancel(ctx), ledger.Event{Kind: ledger.KindAccess, At: now, Access: &event})
	if err != nil {
		s.accounts = nil // what is on disk now is not known
		return err
	}
	a.At, a.Seq = now, r[0].Seq
	s.accounts[fold(a.Name)] = a
	return nil
}

// load reads the accounts if they are not known. The lock is held.
func (s *Service) load(ctx context.Context) error {
	if s.accounts != nil {
		return nil
	}
	accounts := map[string]ledger.Access{}
	for a, err := range s.o.Ledger.Access(ctx) {
		if err != nil {
			return err
		}
		if a.Sort == ledger.AccessUser {
			accounts[fold(a.Name)] = a
		}
	}
	s.accounts = accounts
	return nil
}

// account returns a person's account as it is now.
func (s *Service) account(ctx context.Context, name string) (a ledger.Access, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return a, false, err
	}
	a, ok = s.accounts[fold(name)]
	return a, ok, nil
}

// Any reports whether anybody can sign in.
func (s *Service) Any(ctx context.Context) (bool, error) {
	local, err := s.local(ctx)
	return local || s.oidc != nil, err
}

func (s *Service) local(ctx context.Context) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return false, err
	}
	for _, a := range s.accounts {
		if !a.Removed && a.Password != "" {
			return true, nil
		}
	}
	return false, nil
}

// SignOutEverywhere ends all sessions of a person.
func (s *Service) SignOutEverywhere(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[fold(name)]++
}

func (s *Service) endings(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended[fold(name)]
}

// Act records what the person of a request did. what is a stable word, detail is for people, with numbers masked.
func (s *Service) Act(ctx context.Context, what, detail, why string) error {
	p, ok := From(ctx)
	if !ok {
		return fmt.Errorf("%w: nobody is signed in", ErrInvalid)
	}
	return s.act(ctx, p.Name, what, detail, why)
}

func (s *Service) act(ctx context.Context, who, what, detail, why string) error {
	_, err := s.o.Ledger.Append(context.WithoutCancel(ctx), ledger.Event{Kind: ledger.KindAct, At: s.o.Now().UTC(),
		Act: &ledger.Act{Who: who, Via: "page", What: what, Detail: detail, Why: why}})
	return err
}

func roleOf(a ledger.Access) Role {
	if len(a.May) == 1 {
		return Role(a.May[0])
	}
	return ""
}

// fold makes names equal that people would take for the same.
func fold(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

// newToken returns 256 random bits.
func newToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

var plain = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}} · heed</title></head>
<body><main><h1>{{.Title}}</h1>{{with .Message}}<p role="alert">{{.}}</p>{{end}}
{{if .Token}}<form method="post" action="/setup"><input type="hidden" name="token" value="{{.Token}}">
<p>{{.Name}}</p><label>Password <input type="password" name="password" autocomplete="new-password" required minlength="12"></label>
<label>Again <input type="password" name="again" autocomplete="new-password" required></label> <button>Set password</button></form>{{end}}
{{if .Local}}<form method="post" action="/signin"><input type="hidden" name="next" value="{{.Next}}">
<label>Name <input name="name" autocomplete="username" required></label>
<label>Password <input type="password" name="password" autocomplete="current-password" required></label> <button>Sign in</button></form>{{end}}
{{with .OpenID}}<p><a href="/oidc/start?next={{$.Next}}">{{.}}</a></p>{{end}}</main></body></html>
`))

func plainPage(w http.ResponseWriter, _ *http.Request, status int, _ string, f Form) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = plain.Execute(w, f)
}
