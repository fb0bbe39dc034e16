package connector

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heed-sms/heed/connector/ledger"
)

// KeyRing knows the API keys: those of the configuration, and those that were made while heed ran, which are events in
// the ledger. Keys are kept as hashes only. It is safe for concurrent use.
type KeyRing struct {
	// OnAdd is called with each key that is made or read from the ledger; may be nil. Set it before Load.
	OnAdd func(Key)

	ledger KeyLedger
	now    func() time.Time

	mu    sync.RWMutex
	fixed []Key
	made  map[string]ledger.Access // revoked ones included
	valid []Key                    // all that open a door now
}

// KeyLedger is what a KeyRing needs of the ledger.
type KeyLedger interface {
	Append(ctx context.Context, events ...ledger.Event) ([]ledger.Receipt, error)
	Access(ctx context.Context) iter.Seq2[ledger.Access, error]
}

// Errors of Add and Revoke. The text behind them is for people.
var (
	ErrKeyName    = errors.New("not possible")
	ErrNoSuchKey  = errors.New("no such key")
	errKeyInFile  = errors.New("it stands in the configuration file; take it out there")
	errKeyRevoked = errors.New("it was revoked before")
)

// NewKeyRing returns a ring with the keys of the configuration. Load adds those of the ledger; l may be nil where there
// are none.
func NewKeyRing(l KeyLedger, now func() time.Time, fixed ...Key) *KeyRing {
	return &KeyRing{ledger: l, now: now, fixed: fixed, made: map[string]ledger.Access{}, valid: slices.Clone(fixed)}
}

// Load reads the keys of the ledger.
func (r *KeyRing) Load(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, err := range r.ledger.Access(ctx) {
		if err != nil {
			return err
		}
		if a.Sort == ledger.AccessKey {
			r.made[a.Name] = a
		}
	}
	r.collect()
	return nil
}

// collect makes valid from what is known. A name that the configuration has too is the configuration's.
func (r *KeyRing) collect() {
	r.valid = slices.Clone(r.fixed)
	for name, a := range r.made {
		h, err := hex.DecodeString(a.SHA256)
		if a.Removed || err != nil || len(h) != sha256.Size || r.inFile(name) {
			continue
		}
		k := Key{Name: name, SHA256: [sha256.Size]byte(h)}
		for _, m := range a.May {
			k.May = append(k.May, Right(m))
		}
		r.valid = append(r.valid, k)
		if r.OnAdd != nil {
			r.OnAdd(k)
		}
	}
}

func (r *KeyRing) inFile(name string) bool {
	return slices.ContainsFunc(r.fixed, func(k Key) bool { return k.Name == name })
}

// Find returns the key with a secret. It compares hashes, and all of them, so its time tells nothing.
func (r *KeyRing) Find(secret string) (Key, bool) {
	h := sha256.Sum256([]byte(secret))
	r.mu.RLock()
	defer r.mu.RUnlock()
	found := -1
	for i := range r.valid {
		if subtle.ConstantTimeCompare(h[:], r.valid[i].SHA256[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Key{}, false
	}
	return r.valid[found], true
}

// Names returns the names of all valid keys.
func (r *KeyRing) Names() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	names := make([]string, len(r.valid))
	for i, k := range r.valid {
		names[i] = k.Name
	}
	return names
}

// KeyInfo is a key as people see it.
type KeyInfo struct {
	Name    string    `json:"name"`
	May     []Right   `json:"may"`
	In      string    `json:"in"` // configuration, or ledger
	Revoked bool      `json:"revoked,omitempty"`
	By      string    `json:"by,omitempty"` // who made it, or revoked it
	Why     string    `json:"why,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// List returns all keys, revoked ones included: the configuration's first, each part by name.
func (r *KeyRing) List() []KeyInfo {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := []KeyInfo{}
	for _, k := range r.fixed {
		out = append(out, KeyInfo{Name: k.Name, May: k.May, In: "configuration"})
	}
	for _, a := range r.made {
		i := KeyInfo{Name: a.Name, In: "ledger", Revoked: a.Removed, By: a.By, Why: a.Why, At: a.At}
		for _, m := range a.May {
			i.May = append(i.May, Right(m))
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b KeyInfo) int {
		return strings.Compare(a.In+"\x00"+a.Name, b.In+"\x00"+b.Name)
	})
	return out
}

// Add makes a key and returns it. This is the only time that it can be seen. by is who asked for it.
func (r *KeyRing) Add(ctx context.Context, name string, may []Right, by, why string) (secret string, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch old, known := r.made[name]; {
	case name == "" || len(name) > 64 || strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-", c)
	}):
		return "", fmt.Errorf("%w: a name is 1 to 64 letters, digits and . _ -", ErrKeyName)
	case r.inFile(name), known && !old.Removed:
		return "", fmt.Errorf("%w: there is a key %q already", ErrKeyName, name)
	case len(may) == 0:
		return "", fmt.Errorf("%w: a key without a right opens nothing; name some of send, read, admin", ErrKeyName)
	}
	a := ledger.Access{Sort: ledger.AccessKey, Name: name, By: by, Why: why}
	for _, m := range may {
		if m != MaySend && m != MayRead && m != MayAdmin {
			return "", fmt.Errorf("%w: %q is no right; name some of send, read, admin", ErrKeyName, m)
		}
		a.May = append(a.May, string(m))
	}
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	// Letters and digits only: some HTTP client libraries take no other password (twilio-go is one).
	secret = "heed" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
	a.SHA256 = HashKey(secret)
	if err := r.put(ctx, a); err != nil {
		return "", err
	}
	return secret, nil
}

// Revoke makes a key worthless from now on.
func (r *KeyRing) Revoke(ctx context.Context, name, by, why string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.made[name]
	switch {
	case r.inFile(name):
		return fmt.Errorf("%w: %w", ErrKeyName, errKeyInFile)
	case !ok:
		return fmt.Errorf("%w: %s", ErrNoSuchKey, name)
	case a.Removed:
		return fmt.Errorf("%w: %w", ErrKeyName, errKeyRevoked)
	}
	a.Removed, a.By, a.Why = true, by, why
	return r.put(ctx, a)
}

func (r *KeyRing) put(ctx context.Context, a ledger.Access) error {
	now := r.now().UTC()
	event := a // the ledger keeps it
	receipts, err := r.ledger.Append(context.WithoutCancel(ctx), ledger.Event{Kind: ledger.KindAccess, At: now, Access: &event})
	if err != nil {
		return err
	}
	a.At, a.Seq = now, receipts[0].Seq
	r.made[a.Name] = a
	r.collect()
	return nil
}
