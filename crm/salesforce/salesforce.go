// Package salesforce is heed's driver for Salesforce: it reads people with their phones and their opt-out field, finds
// what changed, and sets the field in batches, over the REST API and Bulk API 2.0.
//
// It translates and nothing else. What to write, when to try again and what to tell people is decided by its callers;
// which field means "opted out" is configured in [Config]. It creates no records, deletes none and writes no field that
// the configuration does not name. Contacts of person accounts are written through their accounts. Marketing Cloud and the
// consent data model are out of its scope.
//
// Large reads and writes go through Bulk API 2.0, where Salesforce has it (bulk.go), and as the organisation's API calls of
// the day run out, opt-outs are written after everything else has given up (budget.go).
//
// The session comes from github.com/k-capehart/go-salesforce/v2, and every call goes through its DoRequest. That
// library sends everything through [http.DefaultClient], without context, timeout or access to the status of a failed
// call, and renews sessions without a lock. session.go puts all of that right in one place, [InstallTransport], which a
// program must call once before the first call of any [Org].
package salesforce

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/heed-sms/heed/crm"
)

var (
	_ crm.Directory = (*Org)(nil)
	_ crm.Getter    = (*Org)(nil)
	_ crm.Historian = (*Org)(nil)
	_ crm.Prober    = (*Org)(nil)
)

// Org is one Salesforce organisation. It is safe for concurrent use; several may live in one process.
type Org struct {
	config  Config
	objects []*object
	version string // of the API, as in a path: v62.0
	log     *slog.Logger
	now     func() time.Time

	current   atomic.Pointer[session] // immutable; swapped whole
	signingIn chan struct{}           // held by the one call that logs in
	logins    atomic.Uint64           // finished login attempts
	lastLogin error                   // the outcome of the latest, guarded by signingIn
	refused   time.Time               // no new attempt before this, guarded by signingIn
	orgID     atomic.Pointer[string]  // of the first login; another org behind the same domain is refused

	writing chan struct{} // bounds concurrent writes: parallel writers lock each other out of an account's rows
	limits  limits
	bulkOff atomic.Pointer[bulkRefusal] // the latest refusal of Bulk API 2.0

	persons    atomic.Bool  // there are person accounts
	personless atomic.Int64 // there are none, as far as is known until this time, Unix nanoseconds
}

const maxWriters = 2

// New returns the organisation that c describes. It reads no file and touches no network: the first call logs in.
// The error lists every problem of c.
func New(c Config, logger *slog.Logger) (*Org, error) {
	c.Domain = strings.TrimRight(strings.TrimSpace(c.Domain), "/")
	if problems := c.problems(); len(problems) > 0 {
		var errs []error
		for _, p := range problems {
			errs = append(errs, fmt.Errorf("%s: %s; %s", p.Field, p.Reason, p.Hint))
		}
		return nil, fmt.Errorf("salesforce: %w", errors.Join(errs...))
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	o := &Org{
		config:    c,
		version:   "v" + strings.TrimPrefix(orDefault(c.APIVersion, libraryVersion), "v"),
		log:       logger,
		now:       time.Now,
		signingIn: make(chan struct{}, 1),
		writing:   make(chan struct{}, maxWriters),
	}
	for _, oc := range c.Objects {
		o.objects = append(o.objects, newObject(oc))
	}
	return o, nil
}

func (o *Org) object(name string) (int, *object) {
	for i, obj := range o.objects {
		if strings.EqualFold(obj.name, name) {
			return i, obj
		}
	}
	return -1, nil
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// Canonical completes a 15-character id to 18 characters, checks an 18-character one, and writes the object as it is
// configured: Salesforce takes either length and any case.
func (o *Org) Canonical(k crm.Key) (crm.Key, error) {
	id, err := id18(k.ID)
	if err != nil {
		return k, fmt.Errorf("id is not a Salesforce id: %w", err)
	}
	k.ID = id
	for _, obj := range o.config.Objects {
		if strings.EqualFold(obj.Object, k.Object) {
			k.Object = obj.Object
			return k, nil
		}
	}
	return k, nil // an object that heed does not read: it can have no box
}
