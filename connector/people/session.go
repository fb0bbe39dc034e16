package people

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/heed-sms/heed/connector/ledger"
)

// What a session holds.
const (
	sName  = "name"
	sVia   = "via"
	sRole  = "role"  // of an OpenID provider's person, as the provider said at the sign-in
	sSeq   = "seq"   // the version of the account under which the person signed in
	sEnded = "ended" // Service.ended then
)

const (
	viaPassword = "password"
	viaOpenID   = "openid"
)

const maxForm = 16 << 10 // bytes

// Register adds the addresses at which people sign in and out and set their passwords. They need no sign-in.
func (s *Service) Register(mux *http.ServeMux) {
	handle := func(pattern string, fn http.HandlerFunc) {
		mux.Handle(pattern, s.protect(fn))
	}
	handle("GET /signin", s.showSignIn)
	handle("POST /signin", s.signIn)
	handle("POST /signout", s.signOut)
	handle("GET /setup", s.showSetup)
	handle("POST /setup", s.setup)
	if s.oidc != nil {
		handle("GET /oidc/start", s.startOpenID)
		handle("GET /oidc/callback", s.finishOpenID)
	}
}

// protect refuses what another site makes a browser do, and brings the session.
func (s *Service) protect(next http.Handler) http.Handler {
	return s.origin.Handler(s.sessions.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})))
}

// Require lets those through whose role includes least; From then tells who it is. A browser of somebody who is not
// signed in is sent to the sign-in and back; everything else is answered 401. Too low a role is 403.
func (s *Service) Require(least Role, next http.Handler) http.Handler {
	return s.protect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok, err := s.person(r.Context())
		switch {
		case err != nil:
			s.o.Log.Error("accounts could not be read", "error", err)
			s.page(w, r, http.StatusServiceUnavailable, "message", Form{Title: "Unavailable", Message: "The ledger cannot be read. The operator finds the cause in heed's log."})
		case !ok && r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html"):
			to := "/signin"
			if r.URL.Path != "/" {
				to += "?next=" + url.QueryEscape(r.URL.RequestURI())
			}
			if r.Header.Get("HX-Request") == "true" { // the whole page goes there, not the fragment
				w.Header().Set("HX-Redirect", to)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			http.Redirect(w, r, to, http.StatusSeeOther)
		case !ok:
			s.page(w, r, http.StatusUnauthorized, "message", Form{Title: "Sign in first", Message: "Nobody is signed in, or the session has ended. Nothing was changed."})
		case !p.Role.At(least):
			s.page(w, r, http.StatusForbidden, "message", Form{Title: "Not allowed",
				Message: fmt.Sprintf("You are signed in as %s, and this needs the role %s. An admin can change that with: heed users role", p.Role, least)})
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), personKey{}, p)))
		}
	}))
}

func (s *Service) page(w http.ResponseWriter, r *http.Request, status int, name string, f Form) {
	s.o.Page(w, r, status, name, f)
}

// person returns who the session belongs to. A session whose account changed since is nobody's.
func (s *Service) person(ctx context.Context) (p Person, ok bool, err error) {
	name := s.sessions.GetString(ctx, sName)
	if name == "" || s.sessions.GetInt(ctx, sEnded) != s.endings(name) {
		return p, false, nil
	}
	a, known, err := s.account(ctx, name)
	if err != nil {
		return p, false, err
	}
	p = Person{Name: name, Via: s.sessions.GetString(ctx, sVia)}
	switch p.Via {
	case viaPassword:
		p.Role = roleOf(a)
		ok = known && !a.Removed && a.Password != "" && strconv.FormatUint(a.Seq, 10) == s.sessions.GetString(ctx, sSeq)
	case viaOpenID:
		p.Role = Role(s.sessions.GetString(ctx, sRole))
		ok = !known || !a.Removed
	}
	return p, ok && p.Role.At(Viewer), nil
}

// begin starts a session under a new token, so that one that somebody planted before is worth nothing.
func (s *Service) begin(ctx context.Context, p Person, seq uint64) error {
	if err := s.sessions.Clear(ctx); err != nil {
		return err
	}
	if err := s.sessions.RenewToken(ctx); err != nil {
		return err
	}
	s.sessions.Put(ctx, sName, p.Name)
	s.sessions.Put(ctx, sVia, p.Via)
	s.sessions.Put(ctx, sRole, string(p.Role))
	s.sessions.Put(ctx, sSeq, strconv.FormatUint(seq, 10))
	s.sessions.Put(ctx, sEnded, s.endings(p.Name))
	s.log(ctx, p.Name, "sign_in", "with "+p.Via)
	return nil
}

// log records what somebody did where a failure to record must not lock people out of looking.
func (s *Service) log(ctx context.Context, who, what, detail string) {
	if err := s.act(ctx, who, what, detail, ""); err != nil {
		s.o.Log.Error("what a person did could not be recorded", "what", what, "error", err)
	}
}

func (s *Service) signInForm(ctx context.Context, next, message string) Form {
	local, err := s.local(ctx)
	if err != nil {
		s.o.Log.Error("accounts could not be read", "error", err)
	}
	f := Form{Title: "Sign in", Message: message, Next: next, Local: local}
	if s.oidc != nil {
		f.OpenID = s.oidc.label()
	}
	if !f.Local && f.OpenID == "" && message == "" {
		f.Message = "Nobody has an account yet. On the machine that runs heed: heed users invite YOUR-NAME --role admin"
	}
	return f
}

func (s *Service) showSignIn(w http.ResponseWriter, r *http.Request) {
	next := safeNext(r.URL.Query().Get("next"))
	if _, ok, err := s.person(r.Context()); ok && err == nil {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	s.page(w, r, http.StatusOK, "signin", s.signInForm(r.Context(), next, ""))
}

func (s *Service) signIn(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		s.page(w, r, http.StatusBadRequest, "signin", s.signInForm(ctx, "/", "The form could not be read."))
		return
	}
	name, next := strings.TrimSpace(r.PostForm.Get("name")), safeNext(r.PostForm.Get("next"))
	source := "from " + sourceOf(r)
	// A name of any length would be kept.
	digest := sha256.Sum256([]byte(fold(name)))
	account := "for " + string(digest[:])
	if d := s.throttle.wait(account, source); d > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
		s.page(w, r, http.StatusTooManyRequests, "signin", s.signInForm(ctx, next, "Too many attempts. Wait "+d.Round(time.Second).String()+" and try again."))
		return
	}
	a, known, err := s.account(ctx, name)
	var ok, weak bool
	if err == nil {
		phc := a.Password
		if !known || a.Removed {
			phc = ""
		}
		ok, weak, err = s.verify(ctx, r.PostForm.Get("password"), phc)
	}
	if err != nil {
		s.o.Log.Error("a sign-in could not be decided", "error", err)
		s.page(w, r, http.StatusServiceUnavailable, "signin", s.signInForm(ctx, next, "The accounts cannot be read at the moment."))
		return
	}
	if !ok {
		s.throttle.fail(account, maxWaitAccount)
		s.throttle.fail(source, maxWaitSource)
		s.o.Log.Warn("sign-in refused", "source", sourceOf(r))
		s.page(w, r, http.StatusUnauthorized, "signin", s.signInForm(ctx, next, "Name or password is wrong."))
		return
	}
	s.throttle.succeed(account)
	s.throttle.succeed(source)
	if weak {
		a = s.strengthen(ctx, a, r.PostForm.Get("password"))
	}
	if err := s.begin(ctx, Person{Name: a.Name, Role: roleOf(a), Via: viaPassword}, a.Seq); err != nil {
		s.sessions.ErrorFunc(w, r, err)
		return
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
}

// strengthen stores a password's hash again, with today's costs. Failing to changes nothing.
func (s *Service) strengthen(ctx context.Context, a ledger.Access, password string) ledger.Access {
	phc, err := s.hash(ctx, password)
	if err != nil {
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.load(ctx) != nil || s.accounts[fold(a.Name)].Seq != a.Seq {
		return a
	}
	stronger := a
	stronger.Password, stronger.By, stronger.Why = phc, "heed", "stronger hash"
	if err := s.put(ctx, stronger); err != nil {
		return a
	}
	return s.accounts[fold(a.Name)]
}

func (s *Service) signOut(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if p, ok, err := s.person(ctx); ok && err == nil {
		if r.FormValue("everywhere") != "" {
			s.SignOutEverywhere(p.Name)
		}
		s.log(ctx, p.Name, "sign_out", "")
	}
	if err := s.sessions.Destroy(ctx); err != nil {
		s.sessions.ErrorFunc(w, r, err)
		return
	}
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
}

var errLink = errors.New("it has been used, is older than 15 minutes, or heed was restarted since; ask for a new one: heed users invite")

func (s *Service) invitation(token string) (invitation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.links[sha256.Sum256([]byte(token))]
	if !ok || s.o.Now().After(l.until) {
		return invitation{}, errLink
	}
	return l, nil
}

func setupForm(l invitation, token, message string) Form {
	return Form{Title: "Choose a password", Message: message, Token: token, Name: l.name}
}

// showSetup changes nothing: what previews links must not use one up.
func (s *Service) showSetup(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	l, err := s.invitation(token)
	if err != nil {
		s.page(w, r, http.StatusGone, "message", Form{Title: "This link does not work", Message: "Either " + err.Error() + "."})
		return
	}
	s.page(w, r, http.StatusOK, "setup", setupForm(l, token, ""))
}

func (s *Service) setup(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	token, password := r.PostFormValue("token"), r.PostFormValue("password")
	l, err := s.invitation(token)
	if err != nil {
		s.page(w, r, http.StatusGone, "message", Form{Title: "This link does not work", Message: "Either " + err.Error() + "."})
		return
	}
	problem := checkPassword(password, l.name)
	if problem == "" && password != r.PostFormValue("again") {
		problem = "The two passwords are not the same."
	}
	if problem != "" {
		s.page(w, r, http.StatusUnprocessableEntity, "setup", setupForm(l, token, problem))
		return
	}
	phc, err := s.hash(ctx, password)
	var a ledger.Access
	if err == nil {
		a, err = s.accept(ctx, token, phc)
	}
	if errors.Is(err, errLink) {
		s.page(w, r, http.StatusGone, "message", Form{Title: "This link does not work", Message: "Either " + err.Error() + "."})
		return
	}
	if err == nil {
		err = s.begin(ctx, Person{Name: a.Name, Role: roleOf(a), Via: viaPassword}, a.Seq)
	}
	if err != nil {
		s.o.Log.Error("an account could not be set up", "error", err)
		s.page(w, r, http.StatusServiceUnavailable, "setup", setupForm(l, token, "The account could not be stored. Try again."))
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// accept uses a link up: of two at the same time one wins.
func (s *Service) accept(ctx context.Context, token, phc string) (ledger.Access, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sha256.Sum256([]byte(token))
	l, ok := s.links[key]
	if !ok || s.o.Now().After(l.until) {
		return ledger.Access{}, errLink
	}
	if err := s.load(ctx); err != nil {
		return ledger.Access{}, err
	}
	err := s.put(ctx, ledger.Access{Name: l.name, Password: phc, May: []string{string(l.role)}, By: l.by, Why: l.why})
	if err != nil {
		return ledger.Access{}, err
	}
	delete(s.links, key)
	return s.accounts[fold(l.name)], nil
}

// safeNext returns where to go on to within this site, "/" for anything else.
func safeNext(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsRune(next, '\\') || strings.ContainsFunc(next, unicode.IsControl) {
		return "/"
	}
	return next
}

// sourceOf is the address that a request came from. What a header says about it is not believed.
func sourceOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
