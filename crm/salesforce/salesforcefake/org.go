// Package salesforcefake is a Salesforce org in memory: a strict emulator of the REST API that consent work touches
// (OAuth, sObjects, SOQL, collections, describe, limits), for heed's sandbox, demo and tests and for other people's
// clients.
//
// It is written from the vendor's documentation and knows nothing of heed's driver. It refuses what Salesforce refuses,
// with Salesforce's status, code and words, keeps the audit fields as Salesforce keeps them, and misbehaves on purpose
// when a knob says so (see [Knobs] and the README). It is not a Salesforce replacement: no sharing rules, no person
// accounts, no Bulk, SOAP or streaming API, and a subset of SOQL; whatever is left out is refused, never guessed.
package salesforcefake

import (
	"crypto/rsa"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options configure an org. The zero value works.
type Options struct {
	OrgID        string           // 15 or 18 characters; "" takes a fixed one
	ClientID     string           // of the connected app; "" takes "heed-sandbox-client"
	ClientSecret string           // "" takes "heed-sandbox-secret"
	Username     string           // of the integration user; "" takes "heed@sandbox.example"
	JWTPublicKey *rsa.PublicKey   // of the app's certificate; nil switches the JWT bearer flow off
	Now          func() time.Time // the org's clock; nil takes time.Now
	Seed         uint64           // of every random choice of the knobs
	APILimit     int              // daily calls shown in Sforce-Limit-Info; 0 takes 100,000
	Fields       []Field          // in addition to the standard ones and SMS_Opt_Out__c and its kin
	Password     string           // of every user, for the username-password flow; "" takes "heed-sandbox-password"

	// PersonAccounts switches person accounts on, as in an org that sells to people.
	PersonAccounts bool
	Logger         *slog.Logger // one debug line a call; nil logs nothing
}

// Org is one organisation. All methods are safe for concurrent use. Go methods act as a system administrator: field-level
// security and injected refusals do not apply to them, types, lengths and required fields do.
type Org struct {
	opt      Options
	orgID    string
	url      atomic.Pointer[string]
	knobs    *knobs
	counters *counters
	sessions *sessions
	cursors  *cursors
	jobs     jobs
	closed   chan struct{}
	close    sync.Once

	mu         sync.RWMutex
	tables     map[string]*table // lower case
	users      *table
	fls        map[flsKey]Access
	shares     map[shareKey]Access
	persons    bool // person accounts are switched on
	pending    []pendingWrite
	hasPending atomic.Bool
	people     []Person
}

// New returns an org with its organization record, five users (see the README) and no people.
// It panics if the options contradict themselves (a bad OrgID, a field of an unknown object).
func New(opt Options) *Org {
	def := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	def(&opt.OrgID, makeID15("00D", 1))
	def(&opt.ClientID, "heed-sandbox-client")
	def(&opt.ClientSecret, "heed-sandbox-secret")
	def(&opt.Username, "heed@sandbox.example")
	def(&opt.Password, "heed-sandbox-password")
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.APILimit == 0 {
		opt.APILimit = 100_000
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	orgID, ok := canonicalID(opt.OrgID)
	if !ok || !strings.HasPrefix(orgID, "00D") {
		panic(fmt.Sprintf("salesforcefake: OrgID %q is not an organization id (00D…, 15 or 18 characters)", opt.OrgID))
	}
	o := &Org{opt: opt, orgID: orgID, tables: map[string]*table{}, fls: map[flsKey]Access{}, shares: map[shareKey]Access{}, closed: make(chan struct{}),
		knobs: newKnobs(opt.Seed), counters: newCounters(), sessions: newSessions(), cursors: newCursors()}
	for _, ob := range standardObjects() {
		o.tables[strings.ToLower(ob.name)] = &table{object: ob}
	}
	o.users = o.table("User")
	o.table("Organization").fixedID = orgID
	for _, f := range opt.Fields {
		if err := o.AddField(f); err != nil {
			panic(err)
		}
	}
	o.addUsers()
	if err := o.SetKnobs(func(k *Knobs) {
		k.PersonAccounts = opt.PersonAccounts
		k.TrackedFields = []string{"Contact.SMS_Opt_Out__c", "Lead.SMS_Opt_Out__c"}
		k.LeadMapping = map[string]string{}
		for _, name := range optOutNames {
			k.LeadMapping[name] = name
		}
	}); err != nil {
		panic(err)
	}
	o.Insert("Organization", map[string]any{"Name": "Heed Sandbox", "Country": "US", "OrganizationType": "Developer Edition",
		"InstanceName": "HEED1", "IsSandbox": true, "TimeZoneSidKey": "GMT", "DefaultLocaleSidKey": "en_US", "LanguageLocaleKey": "en_US"})
	return o
}

// Close lets calls go that hang on purpose. The org answers on after it.
func (o *Org) Close() { o.close.Do(func() { close(o.closed) }) }

// SetURL sets the instance URL that tokens and identities name. Without it they name the host a request was sent to.
func (o *Org) SetURL(u string) {
	u = strings.TrimRight(u, "/")
	o.url.Store(&u)
}

// Handler returns the org's HTTP side: the API, and /sandbox/ for its knobs.
func (o *Org) Handler() http.Handler { return http.HandlerFunc(o.serve) }

// OrgID returns the organization's 18-character id.
func (o *Org) OrgID() string { return o.orgID }

// AddField adds a custom field to an object.
func (o *Org) AddField(f Field) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.table(f.Object)
	if t == nil {
		return fmt.Errorf("salesforcefake: field %s: object %q is unknown", f.Name, f.Object)
	}
	f.Object = t.name
	n, err := t.add(field{Field: f})
	if err == nil && o.persons && t.name == "Contact" {
		err = o.mirrorField(n)
	}
	if err != nil {
		return fmt.Errorf("salesforcefake: %w", err)
	}
	return nil
}

// SetAccess sets the integration user's field-level security for one field.
func (o *Org) SetAccess(object, name string, a Access) { o.SetUserAccess(o.UserID(), object, name, a) }

// SetUserAccess sets one user's field-level security for one field. It panics if there is no such user.
func (o *Org) SetUserAccess(userID, object, name string, a Access) {
	o.mu.Lock()
	defer o.mu.Unlock()
	user, err := o.users.find(userID)
	if err != nil {
		panic(fmt.Sprintf("salesforcefake: user %s: %v", userID, err))
	}
	o.fls[flsKey{user, strings.ToLower(object + "." + name)}] = a
}

// flsKey is a field as one user sees it: "contact.sms_opt_out__c".
type flsKey struct {
	user  uint32
	field string
}

func (o *Org) table(name string) *table { return o.tables[strings.ToLower(name)] }

func (o *Org) access(user uint32, t *table, f *field) Access {
	if f.sys == sysID || user == everyone {
		return ReadWrite
	}
	if f.mirror != nil { // Salesforce has one permission for the two
		t, f = o.table("Contact"), f.mirror
	}
	key := flsKey{user, strings.ToLower(t.name + "." + f.Name)}
	return max(o.fls[key], o.knobs.set().fls[key])
}

// visible returns a field that the user may see.
func (o *Org) visible(user uint32, t *table, name string) *field {
	f := t.field(name)
	if f == nil || o.access(user, t, f) == Hidden {
		return nil
	}
	return f
}

func (o *Org) now() time.Time { return o.opt.Now().UTC() }

// stampNow is the time that a save writes: whole seconds.
func (o *Org) stampNow() int64 { return o.now().Truncate(time.Second).UnixMilli() }

// commitDue returns when a write made now becomes visible, 0 for at once.
func (o *Org) commitDue() int64 {
	hold, late := o.knobs.lateCommit()
	switch {
	case hold:
		return math.MaxInt64
	case late > 0:
		return o.now().UnixMilli() + late
	}
	return 0
}

// settle makes late commits visible whose time has come.
func (o *Org) settle() {
	if !o.hasPending.Load() {
		return
	}
	hold, _ := o.knobs.lateCommit()
	now := o.now().UnixMilli()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.release(func(p pendingWrite) bool { return p.due <= now || p.due == math.MaxInt64 && !hold })
}

// change runs f as one transaction of an administrator.
func (o *Org) change(object string, f func(*tx, *table) *apiError) error {
	o.settle()
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.table(object)
	if t == nil {
		return fmt.Errorf("salesforcefake: object %q is unknown", object)
	}
	t.tidy()
	x := &tx{o: o}
	if err := f(x, t); err != nil {
		x.rollback(savepoint{})
		return fmt.Errorf("salesforcefake: %s: %w", t.name, err)
	}
	return nil
}

func (t *table) find(id string) (uint32, *apiError) {
	id18, ok := canonicalID(id)
	if !ok {
		return 0, refuse("MALFORMED_ID", "malformed id %s", id)
	}
	if n := t.number(id18); n != 0 {
		return n, nil
	}
	return 0, errNotFound()
}
