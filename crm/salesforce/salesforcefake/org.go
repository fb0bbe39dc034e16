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
	Logger       *slog.Logger     // one debug line a call; nil logs nothing
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
	pending    []pendingWrite
	hasPending atomic.Bool
	people     []Person
}

const (
	integrationUser = 1
	adminUser       = 2
)

// New returns an org with its organization record, the integration user, an administrator and no people.
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
	o := &Org{opt: opt, orgID: orgID, tables: map[string]*table{}, fls: map[flsKey]Access{}, closed: make(chan struct{}),
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
	o.Insert("User", map[string]any{"Username": opt.Username, "FirstName": "Heed", "LastName": "Integration", "Alias": "heed",
		"Email": "heed@sandbox.example", "IsActive": true, "UserType": "Standard", "TimeZoneSidKey": "GMT", "LocaleSidKey": "en_US",
		"LanguageLocaleKey": "en_US"})
	o.AddUser("admin@sandbox.example", "Grace", "Admin")
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

// UserID returns the integration user's id.
func (o *Org) UserID() string { return o.users.id(integrationUser) }

// AdminID returns the id of an administrator, for UpdateAs.
func (o *Org) AdminID() string { return o.users.id(adminUser) }

// AddUser adds an active user and returns the id.
func (o *Org) AddUser(username, first, last string) string {
	return o.Insert("User", map[string]any{"Username": username, "FirstName": first, "LastName": last, "Email": username,
		"Alias": strings.ToLower(last[:min(8, len(last))]), "IsActive": true, "UserType": "Standard", "TimeZoneSidKey": "GMT",
		"LocaleSidKey": "en_US", "LanguageLocaleKey": "en_US"})
}

// AddField adds a custom field to an object.
func (o *Org) AddField(f Field) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.table(f.Object)
	if t == nil {
		return fmt.Errorf("salesforcefake: field %s: object %q is unknown", f.Name, f.Object)
	}
	f.Object = t.name
	if _, err := t.add(field{Field: f}); err != nil {
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

// everyone is the user of Go helpers: nothing is hidden from them.
const everyone = 0

func (o *Org) access(user uint32, t *table, f *field) Access {
	if f.sys == sysID || user == everyone {
		return ReadWrite
	}
	key := flsKey{user, strings.ToLower(t.name + "." + f.Name)}
	return max(o.fls[key], o.knobs.access(key))
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

// Insert makes a record as the administrator and returns its 18-character id. Values are string, bool, float64, int,
// time.Time or nil. It is for fixtures and panics on what the org would refuse.
func (o *Org) Insert(object string, fields map[string]any) string {
	var id string
	err := o.change(object, func(x *tx, t *table) *apiError {
		as, err := o.decode(everyone, t, fields)
		if err != nil {
			return err
		}
		n, err := x.insert(t, as, author{user: adminUser, admin: true})
		id = t.id(n)
		return err
	})
	if err != nil {
		panic(err)
	}
	return id
}

// Update changes a record as the administrator.
func (o *Org) Update(object, id string, fields map[string]any) error {
	return o.UpdateAs(o.AdminID(), object, id, fields)
}

// UpdateAs changes a record as the given user.
func (o *Org) UpdateAs(userID, object, id string, fields map[string]any) error {
	return o.change(object, func(x *tx, t *table) *apiError {
		user, err := o.users.find(userID)
		if err != nil {
			return err
		}
		n, err := t.find(id)
		if err != nil {
			return err
		}
		as, err := o.decode(everyone, t, fields)
		if err != nil {
			return err
		}
		return x.update(t, n, as, author{user: user, admin: true})
	})
}

// Get returns a record's fields, deleted or not, as string, bool, float64 or nil by canonical name, and whether it
// exists. It ignores field-level security.
func (o *Org) Get(object, id string) (map[string]any, bool) {
	o.settle()
	o.mu.RLock()
	defer o.mu.RUnlock()
	t := o.table(object)
	if t == nil {
		return nil, false
	}
	n, err := t.find(id)
	if err != nil {
		return nil, false
	}
	r := t.row(n)
	if r == nil {
		return nil, false
	}
	out := make(map[string]any, len(t.fields))
	for _, f := range t.fields {
		out[f.Name] = plain(o.get(t, r, f))
	}
	return out, true
}

// Count returns how many live records an object has.
func (o *Org) Count(object string) int {
	o.settle()
	o.mu.RLock()
	defer o.mu.RUnlock()
	n := 0
	if t := o.table(object); t != nil {
		for _, r := range t.rows {
			if r != nil && !r.deleted {
				n++
			}
		}
	}
	return n
}

// Delete puts a record into the recycle bin.
func (o *Org) Delete(object, id string) error {
	return o.change(object, func(x *tx, t *table) *apiError {
		n, err := t.find(id)
		if err != nil {
			return err
		}
		return x.remove(t, n, author{user: adminUser, admin: true})
	})
}

// Undelete takes a record, also a merged one, out of the recycle bin.
func (o *Org) Undelete(object, id string) error {
	return o.change(object, func(x *tx, t *table) *apiError {
		n, err := t.find(id)
		if err != nil {
			return err
		}
		old := x.current(t, n)
		if old == nil || !old.deleted {
			return refuse("UNDELETE_FAILED", "entity is not in the recycle bin")
		}
		r := *old
		r.deleted, r.master = false, 0
		x.touch(&r, author{user: adminUser})
		x.put(t, &r)
		return nil
	})
}

// Purge removes a record for good, as emptying the recycle bin or a hard delete does: no query shows it any more.
func (o *Org) Purge(object, id string) error {
	return o.change(object, func(x *tx, t *table) *apiError {
		n, err := t.find(id)
		if err != nil {
			return err
		}
		old := x.current(t, n)
		if old == nil {
			return errNotFound()
		}
		t.rows[n-1] = nil
		t.stale++
		return nil
	})
}

// Merge merges up to two losers into the master. keep are the values that the person who merged picked for the
// master; the losers' other values are lost. Losers end deleted, with MasterRecordId.
func (o *Org) Merge(object, master string, losers []string, keep map[string]any) error {
	return o.change(object, func(x *tx, t *table) *apiError {
		by := author{user: adminUser, admin: true}
		if len(losers) == 0 || len(losers) > 2 {
			return refuse("INVALID_NUMBER_FOR_MERGE", "a merge takes one or two records besides the master")
		}
		m, err := t.find(master)
		if err != nil {
			return err
		}
		as, err := o.decode(everyone, t, keep)
		if err != nil {
			return err
		}
		if err := x.update(t, m, as, by); err != nil {
			return err
		}
		for _, l := range losers {
			n, err := t.find(l)
			if err != nil {
				return err
			}
			old, err := x.writableRow(t, n)
			if err != nil {
				return err
			}
			if n == m {
				return refuse("DUPLICATE_VALUE", "the master cannot be merged into itself")
			}
			r := *old
			r.deleted, r.master = true, m
			x.touch(&r, by)
			x.put(t, &r)
		}
		return nil
	})
}

// Convert converts a lead into a new Account and Contact and returns the contact's id. With mapOptOut the admin has
// mapped the SMS_Opt_Out fields of the lead to those of the contact; without it they are lost, as in a fresh org.
func (o *Org) Convert(lead string, mapOptOut bool) (contact string, err error) {
	err = o.change("Lead", func(x *tx, t *table) *apiError {
		by := author{user: adminUser, admin: true}
		n, err := t.find(lead)
		if err != nil {
			return err
		}
		old, err := x.writableRow(t, n)
		if err != nil {
			return err
		}
		contacts, accounts := o.table("Contact"), o.table("Account")
		take := func(to *table, name string) assign {
			return assign{to.field(name), o.get(t, old, t.field(name))}
		}
		account, err := x.insert(accounts, []assign{{accounts.field("Name"), o.get(t, old, t.field("Company"))}, take(accounts, "Phone")}, by)
		if err != nil {
			return err
		}
		names := []string{"FirstName", "LastName", "Salutation", "Title", "Phone", "MobilePhone", "Fax", "Email", "LeadSource",
			"HasOptedOutOfEmail", "HasOptedOutOfFax", "DoNotCall"}
		if mapOptOut {
			names = append(names, "SMS_Opt_Out__c", "SMS_Opt_Out_Date__c", "SMS_Opt_Out_Source__c", "SMS_Opt_Out_Text__c")
		}
		as := []assign{{contacts.field("AccountId"), stringValue(accounts.id(account))}}
		for _, name := range names {
			as = append(as, take(contacts, name))
		}
		num, err := x.insert(contacts, as, by)
		if err != nil {
			return err
		}
		contact = contacts.id(num)
		r := *old
		if err := x.fill(t, &r, []assign{
			{t.field("IsConverted"), boolValue(true)},
			{t.field("ConvertedDate"), value{kind: kindDate, s: o.now().Format(time.DateOnly)}},
			{t.field("ConvertedAccountId"), stringValue(accounts.id(account))},
			{t.field("ConvertedContactId"), stringValue(contact)},
			{t.field("Status"), stringValue("Closed - Converted")},
		}, by); err != nil {
			return err
		}
		x.touch(&r, by)
		x.put(t, &r)
		return nil
	})
	return contact, err
}

// admin says whether the user is a system administrator.
func (o *Org) admin(user uint32) bool { return user == everyone || user == adminUser }
