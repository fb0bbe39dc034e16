package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/journal"
	"github.com/heed-sms/heed/sms/phone"
)

// The index is one bbolt file. Every value carries a CRC32C over its key and itself, because bbolt has no page
// checksums: a flipped bit in a key or a value would otherwise read back as another state. A damaged page can also
// lose records without a trace, so those that decide about sending are tallied. All of that is checked at each start;
// Verify computes the whole index again and compares.
//
// Buckets of the fold, computed from the journal:
var (
	bMeta        = []byte("meta")        // format, position
	bNumbers     = []byte("numbers")     // number(8) → ledger.Number
	bSeen        = []byte("seen")        // sha256(event id)(16) → seq(8)
	bTrail       = []byte("trail")       // number(8) seq(8) → journal position
	bOwed        = []byte("owed")        // owed key → ledger.Owed
	bMessages    = []byte("messages")    // seq(8) → ledger.Message
	bMessageIDs  = []byte("messageids")  // heed's id → seq(8)
	bProviderIDs = []byte("providerids") // account NUL provider id → seq(8)
	bUnsettled   = []byte("unsettled")   // seq(8) of messages without a final outcome → nothing
	bOrphans     = []byte("orphans")     // account NUL provider id → status event that came before its message's outcome
	bPasses      = []byte("passes")      // seq(8) of the pass's beginning → ledger.Pass
	bPassIDs     = []byte("passids")     // pass id → seq(8)
	bCorrections = []byte("corrections") // pass id NUL seq(8) → ledger.Correction
	bOpenCorr    = []byte("opencorr")    // crm NUL object NUL id NUL seq(8) → key in corrections
	bCounts      = []byte("counts")      // name → count(8)
	bByStatus    = []byte("bystatus")    // status NUL seq(8) of messages that are not sent → nothing
	bLastSend    = []byte("lastsend")    // number(8) → ledger.LastSend
	bOptOuts     = []byte("optouts")     // seq(8) of the change → ledger.OptOut
	bTraffic     = []byte("traffic")     // hour(8) account NUL from NUL campaign → ledger.Traffic
	bAccess      = []byte("access")      // sort NUL name → ledger.Access
)

// Buckets that are caches of other systems, not part of the fold:
var (
	bCursors = []byte("cursors") // name → value
	bMirrors = []byte("mirrors") // crm name → {records, phones}
)

var foldBuckets = [][]byte{bNumbers, bSeen, bTrail, bOwed, bMessages, bMessageIDs, bProviderIDs, bUnsettled, bOrphans,
	bPasses, bPassIDs, bCorrections, bOpenCorr, bCounts, bByStatus, bLastSend, bOptOuts, bTraffic, bAccess}

var (
	kFormat   = []byte("format")
	kPosition = []byte("position")
	kTally    = []byte("tally")
)

// formatVersion changes with whatever the fold keeps. An index of an earlier version lacks something, and is computed again.
//
// 2: messages by status, what was sent last, opt-outs, traffic, ways in, and what people did.
// 3: the mirror's records in binary form.
// 4: when an opt-out was undone.
const formatVersion = 4

var (
	errNewerFormat = errors.New("index was written by a newer version of heed")
	errOlderFormat = errors.New("index was written by an older version of heed")
)

// DamageError names a value of the index that does not carry its own checksum.
type DamageError struct {
	Bucket string
	Key    []byte
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("index is damaged: bucket %s, key %x: the value's checksum does not match", e.Bucket, e.Key)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func put(b *bbolt.Bucket, key, value []byte) error {
	v := make([]byte, 4, 4+len(value))
	v = append(v, value...)
	binary.LittleEndian.PutUint32(v, sum(key, value))
	return b.Put(key, v)
}

func sum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// open returns the value without its checksum, nil if v is nil.
func open(bucket, key, v []byte) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	if len(v) < 4 || binary.LittleEndian.Uint32(v) != sum(key, v[4:]) {
		return nil, &DamageError{string(bucket), bytes.Clone(key)}
	}
	return v[4:], nil
}

func get(tx *bbolt.Tx, bucket, key []byte) ([]byte, error) {
	return open(bucket, key, tx.Bucket(bucket).Get(key))
}

func getJSON(tx *bbolt.Tx, bucket, key []byte, into any) (ok bool, err error) {
	v, err := get(tx, bucket, key)
	if v == nil || err != nil {
		return false, err
	}
	return true, json.Unmarshal(v, into)
}

func putJSON(tx *bbolt.Tx, bucket, key []byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return put(tx.Bucket(bucket), key, b)
}

func be(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func seenKey(id string) []byte {
	h := sha256.Sum256([]byte(id))
	return h[:16]
}

// openBolt opens the index file, creating it synced and with all its buckets. A damaged file can make bbolt panic;
// that comes back as an error.
func openBolt(path string) (db *bbolt.DB, err error) {
	defer recoverDamage(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	_, statErr := os.Stat(path)
	if statErr == nil {
		if err := checkFile(path); err != nil {
			return nil, err
		}
	}
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         lockTimeout,
		FreelistType:    bbolt.FreelistMapType,
		NoFreelistSync:  true, // a freelist of a purged index would be rewritten with each commit
		InitialMmapSize: 64 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(bMeta)
		if err != nil {
			return err
		}
		v, err := open(bMeta, kFormat, meta.Get(kFormat))
		if err != nil {
			return err
		}
		if v != nil && (len(v) != 1 || v[0] > formatVersion) {
			return errNewerFormat
		}
		if v != nil && v[0] < formatVersion {
			return errOlderFormat
		}
		if v == nil && !errors.Is(statErr, os.ErrNotExist) && meta.Get(kPosition) != nil {
			return &DamageError{string(bMeta), kFormat}
		}
		for _, b := range append([][]byte{bCursors, bMirrors}, foldBuckets...) {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		if v == nil {
			return put(meta, kFormat, []byte{formatVersion})
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// checkFile reads an existing index through before bbolt opens it for writing. bbolt then walks over all pages as well,
// to find the free ones, but in a goroutine of its own, where its panic on a damaged page would end the process.
// Pages that are merely lost cost space and nothing else.
func checkFile(path string) error {
	db, err := openReadOnly(path)
	if err != nil {
		return fmt.Errorf("open index: %w", err)
	}
	err = view(db, func(tx *bbolt.Tx) error {
		if err := checkTree(tx); err != nil {
			return err
		}
		if meta := tx.Bucket(bMeta); meta != nil {
			v, err := open(bMeta, kFormat, meta.Get(kFormat))
			if err == nil && v != nil && (len(v) != 1 || v[0] > formatVersion) {
				return errNewerFormat
			}
		}
		var damage error
		walk(tx, func(err error) bool {
			damage = err
			return false
		})
		return damage
	})
	return errors.Join(err, closeBolt(db))
}

func openReadOnly(path string) (db *bbolt.DB, err error) {
	defer recoverDamage(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
}

// checkTree checks the pages that a transaction sees, before anything follows them.
func checkTree(tx *bbolt.Tx) error {
	f, err := os.Open(tx.DB().Path())
	if err != nil {
		return err
	}
	defer f.Close()
	return checkPages(f, uint64(tx.ID()))
}

// walk reads every record of the index and tells what is damaged, until bad returns false.
func walk(tx *bbolt.Tx, bad func(error) bool) {
	if tx.Bucket(bMeta) == nil || tx.Bucket(bMeta).Get(kPosition) == nil {
		for _, name := range foldBuckets { // nothing was folded into it yet
			if b := tx.Bucket(name); b != nil {
				if k, _ := b.Cursor().First(); k != nil {
					bad(&DamageError{string(bMeta), kPosition})
					return
				}
			}
		}
		return
	}
	var have tally
	var bucket func(name []byte, b *bbolt.Bucket) bool
	bucket = func(name []byte, b *bbolt.Bucket) bool {
		t := have.of(name)
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			var err error
			if v == nil {
				if !bucket(k, b.Bucket(k)) {
					return false
				}
			} else if _, err = open(name, k, v); err == nil {
				t.add(v)
			}
			if err != nil && !bad(err) {
				return false
			}
		}
		return true
	}
	err := tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if !bucket(name, b) {
			return errStop
		}
		return nil
	})
	if err != nil {
		return
	}
	switch want, err := readTally(tx); {
	case err != nil:
		bad(err)
	case want.numbers != have.numbers, want.seen != have.seen:
		bad(fmt.Errorf("index is damaged: %d numbers and %d event ids are left of %d and %d, or are not the same",
			have.numbers.n, have.seen.n, want.numbers.n, want.seen.n))
	}
}

// tally counts the records of two buckets: without a number's record a send would be allowed, and without an event's
// id it would be done twice.
type tally struct{ numbers, seen, others sum64 }

// sum64 is a count of records and the sum of their checksums, which does not depend on their order.
type sum64 struct{ n, sum uint64 }

func (t *tally) of(bucket []byte) *sum64 {
	switch string(bucket) {
	case string(bNumbers):
		return &t.numbers
	case string(bSeen):
		return &t.seen
	}
	return &t.others
}

// add counts a stored value, with its checksum.
func (s *sum64) add(v []byte) {
	s.n++
	s.sum += uint64(binary.LittleEndian.Uint32(v))
}

// put stores a value and counts it.
func (s *sum64) put(b *bbolt.Bucket, key, value []byte) error {
	if old := b.Get(key); len(old) >= 4 {
		s.n--
		s.sum -= uint64(binary.LittleEndian.Uint32(old))
	}
	s.n++
	s.sum += uint64(sum(key, value))
	return put(b, key, value)
}

func readTally(tx *bbolt.Tx) (t tally, err error) {
	v, err := get(tx, bMeta, kTally)
	if err != nil || v == nil && tx.Bucket(bMeta).Get(kPosition) == nil {
		return t, err
	}
	if len(v) != 32 {
		return t, &DamageError{string(bMeta), kTally}
	}
	for i, p := range []*uint64{&t.numbers.n, &t.numbers.sum, &t.seen.n, &t.seen.sum} {
		*p = binary.BigEndian.Uint64(v[8*i:])
	}
	return t, nil
}

func (t *tally) write(tx *bbolt.Tx) error {
	var v []byte
	for _, n := range []uint64{t.numbers.n, t.numbers.sum, t.seen.n, t.seen.sum} {
		v = binary.BigEndian.AppendUint64(v, n)
	}
	return put(tx.Bucket(bMeta), kTally, v)
}

func closeBolt(db *bbolt.DB) (err error) {
	if db == nil {
		return nil
	}
	defer recoverDamage(&err)
	return db.Close()
}

// recoverDamage turns bbolt's panics on damaged pages, and the fault of reading a truncated map, into an error.
func recoverDamage(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("index is damaged: %v", p)
	}
}

// view and update run a transaction with the same protection.
func view(db *bbolt.DB, fn func(tx *bbolt.Tx) error) (err error) {
	defer recoverDamage(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return whenOpen(db.View(fn))
}

func update(db *bbolt.DB, fn func(tx *bbolt.Tx) error) (err error) {
	defer recoverDamage(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return whenOpen(db.Update(fn))
}

func whenOpen(err error) error {
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("%w: %w", ledger.ErrUnavailable, errClosed)
	}
	return err
}

type indexPosition struct {
	seq  uint64
	hash [32]byte
}

func position(db *bbolt.DB) (p indexPosition, err error) {
	err = view(db, func(tx *bbolt.Tx) error {
		p, err = positionIn(tx)
		return err
	})
	return p, err
}

func positionIn(tx *bbolt.Tx) (p indexPosition, err error) {
	if tx.Bucket(bMeta) == nil {
		return p, &DamageError{string(bMeta), kPosition}
	}
	v, err := get(tx, bMeta, kPosition)
	if v == nil || err != nil {
		return p, err
	}
	if len(v) != 40 {
		return p, &DamageError{string(bMeta), kPosition}
	}
	p.seq = binary.BigEndian.Uint64(v)
	copy(p.hash[:], v[8:])
	return p, nil
}

// lockTimeout bounds the wait for another process's lock; bbolt would wait for ever.
const lockTimeout = time.Second

func decode(r journal.Record) (ledger.Event, error) {
	e, err := ledger.Decode(r.Payload)
	if err != nil {
		return e, fmt.Errorf("journal event %d: %w", r.Seq, err)
	}
	e.Seq, e.Hash = r.Seq, r.Hash
	return e, nil
}

// applyBatch folds committed events into the index and returns the owed work that they touched.
func (l *Ledger) applyBatch(f []folded) ([]owedChange, error) {
	var owed []owedChange
	err := update(l.db, func(tx *bbolt.Tx) error {
		owed = owed[:0]
		var err error
		owed, err = foldInto(tx, f, owed)
		return err
	})
	return owed, err
}

// applyToIndex is applyBatch for replay, where nothing waits for owed work.
func applyToIndex(db *bbolt.DB, f []folded) error {
	return update(db, func(tx *bbolt.Tx) error {
		_, err := foldInto(tx, f, nil)
		return err
	})
}

type owedChange struct {
	key  string
	owed *ledger.Owed // nil: nothing is left
	// answered: an event told what became of the work. If newer work came meanwhile the claim is over.
	answered bool
}

func foldInto(tx *bbolt.Tx, f []folded, owed []owedChange) ([]owedChange, error) {
	t, err := readTally(tx)
	if err != nil {
		return nil, err
	}
	for _, x := range f {
		if owed, err = foldEvent(tx, x.event, x.pos, &t, owed); err != nil {
			return nil, fmt.Errorf("fold event %d (%s): %w", x.event.Seq, x.event.Kind, err)
		}
	}
	if err := t.write(tx); err != nil {
		return nil, err
	}
	last := f[len(f)-1]
	return owed, put(tx.Bucket(bMeta), kPosition, append(be(last.event.Seq), last.event.Hash[:]...))
}

// foldEvent changes the buckets of the fold as one event demands. The rules are package ledger's; here is only where
// things are kept.
func foldEvent(tx *bbolt.Tx, e ledger.Event, pos journal.Position, t *tally, owed []owedChange) ([]owedChange, error) {
	if e.ID != "" {
		k := seenKey(e.ID)
		if v, err := get(tx, bSeen, k); err != nil {
			return nil, err
		} else if v != nil {
			return owed, nil // a repeat that slipped into the journal has no effect
		}
		if err := t.seen.put(tx.Bucket(bSeen), k, be(e.Seq)); err != nil {
			return nil, err
		}
	}
	var before, after ledger.Number
	if e.Number.IsValid() {
		key := be(e.Number.Uint64())
		if err := putTrail(tx, e.Number.Uint64(), e.Seq, pos); err != nil {
			return nil, err
		}
		v, err := get(tx, bNumbers, key)
		if err != nil {
			return nil, err
		}
		if v != nil {
			if before, err = ledger.DecodeNumber(e.Number, v); err != nil {
				return nil, err
			}
		}
		var changed bool
		if after, changed = ledger.ApplyNumber(before, e); changed {
			if err := t.numbers.put(tx.Bucket(bNumbers), key, after.AppendBinary(nil)); err != nil {
				return nil, err
			}
		}
	}
	if ledger.ByPerson(e) { // number 0 is nobody's: the audit
		if err := putTrail(tx, 0, e.Seq, pos); err != nil {
			return nil, err
		}
	}
	if err := foldOptOut(tx, before, after, e); err != nil {
		return nil, err
	}
	owed, err := foldOwed(tx, ledger.Owes(before, after, e), owed)
	if err != nil {
		return nil, err
	}
	for _, key := range ledger.Settles(before, after, e) {
		var o ledger.Owed
		ok, err := getJSON(tx, bOwed, []byte(key), &o)
		if err != nil {
			return nil, err
		}
		if ok {
			next, done := ledger.Settle(o, e)
			if done {
				if err := tx.Bucket(bOwed).Delete([]byte(key)); err != nil {
					return nil, err
				}
				owed = append(owed, owedChange{key: key, answered: true})
			} else {
				if err := putJSON(tx, bOwed, []byte(key), next); err != nil {
					return nil, err
				}
				owed = append(owed, owedChange{key, &next, true})
			}
		}
	}
	switch {
	case e.Inbound != nil:
		if err := count(tx, "inbound"); err != nil {
			return nil, err
		}
		if e.Inbound.Verdict == "opt_out" {
			return owed, count(tx, "opt_outs")
		}
		return owed, nil
	case e.Quarantine != nil:
		return owed, count(tx, "quarantine")
	case e.Opened != nil:
		return foldOpened(tx, e, owed)
	case e.Started != nil, e.Outcome != nil, e.Status != nil:
		return foldProgress(tx, e, owed)
	case e.Access != nil:
		a := storedAccess{*e.Access, e.At, e.Seq}
		return owed, putJSON(tx, bAccess, []byte(string(a.Sort)+"\x00"+a.Name), a)
	case e.Written != nil:
		return owed, foldWritten(tx, e)
	case e.Correction != nil:
		return owed, foldCorrection(tx, e)
	case e.Pass != nil:
		return owed, foldPass(tx, e)
	}
	return owed, nil
}

func putTrail(tx *bbolt.Tx, number, seq uint64, pos journal.Position) error {
	p, err := pos.MarshalBinary()
	if err != nil {
		return err
	}
	return put(tx.Bucket(bTrail), append(be(number), be(seq)...), p)
}

// foldOwed joins newly owed work with what is owed already.
func foldOwed(tx *bbolt.Tx, work []ledger.Owed, owed []owedChange) ([]owedChange, error) {
	for _, o := range work {
		var old ledger.Owed
		ok, err := getJSON(tx, bOwed, []byte(o.Key), &old)
		if err != nil {
			return nil, err
		}
		if ok {
			o = ledger.MergeOwed(&old, o)
		}
		if err := putJSON(tx, bOwed, []byte(o.Key), o); err != nil {
			return nil, err
		}
		owed = append(owed, owedChange{key: o.Key, owed: &o})
	}
	return owed, nil
}

// foldOptOut records a change to opted out, with the message that came before it.
func foldOptOut(tx *bbolt.Tx, before, after ledger.Number, e ledger.Event) error {
	if _, ok := ledger.NewOptOut(before, after, e, nil); !ok {
		return nil
	}
	var last *ledger.LastSend
	var l ledger.LastSend
	if ok, err := getJSON(tx, bLastSend, be(e.Number.Uint64()), &l); err != nil {
		return err
	} else if ok {
		last = &l
	}
	o, _ := ledger.NewOptOut(before, after, e, last)
	return putJSON(tx, bOptOuts, be(e.Seq), o)
}

// storedAccess keeps the fields that an Access's own JSON leaves to the event.
type storedAccess struct {
	ledger.Access
	At  time.Time `json:"at"`
	Seq uint64    `json:"seq"`
}

func count(tx *bbolt.Tx, name string) error { return addCount(tx, name, 1) }

func addCount(tx *bbolt.Tx, name string, n int64) error {
	v, err := get(tx, bCounts, []byte(name))
	if err != nil {
		return err
	}
	old := uint64(0)
	if v != nil {
		old = binary.BigEndian.Uint64(v)
	}
	return put(tx.Bucket(bCounts), []byte(name), be(old+uint64(n)))
}

func foldOpened(tx *bbolt.Tx, e ledger.Event, owed []owedChange) ([]owedChange, error) {
	m := *e.Opened
	m.Status = ledger.InitialStatus(m.Decision)
	m.UpdatedAt = e.At
	if err := put(tx.Bucket(bMessageIDs), []byte(m.ID), be(e.Seq)); err != nil {
		return nil, err
	}
	if m.Decision.Verdict == consent.Allow && m.Decision.Reason != consent.OK {
		if err := count(tx, "would_block"); err != nil {
			return nil, err
		}
	}
	return foldMessage(tx, be(e.Seq), ledger.Message{}, m, e, owed)
}

// foldMessage stores a message as an event left it, with everything that follows from the change.
func foldMessage(tx *bbolt.Tx, key []byte, before, after ledger.Message, e ledger.Event, owed []owedChange) ([]owedChange, error) {
	if before.Status != after.Status {
		if before.Status != "" {
			if err := addCount(tx, "message."+string(before.Status), -1); err != nil {
				return nil, err
			}
			if err := tx.Bucket(bByStatus).Delete(statusKey(before.Status, key)); err != nil {
				return nil, err
			}
		}
		if err := count(tx, "message."+string(after.Status)); err != nil {
			return nil, err
		}
		if after.Status != ledger.StatusSent {
			if err := put(tx.Bucket(bByStatus), statusKey(after.Status, key), nil); err != nil {
				return nil, err
			}
		}
	}
	if before.Status != after.Status || before.From != after.From {
		if err := foldTraffic(tx, before, after); err != nil {
			return nil, err
		}
	}
	if last, ok := ledger.NewLastSend(before, after, e); ok && after.To.IsValid() {
		if err := putJSON(tx, bLastSend, be(after.To.Uint64()), last); err != nil {
			return nil, err
		}
	}
	if err := putMessage(tx, key, after); err != nil {
		return nil, err
	}
	return foldOwed(tx, ledger.OwesMessage(before, after, binary.BigEndian.Uint64(key), e), owed)
}

func statusKey(s ledger.Status, key []byte) []byte { return append([]byte(string(s)+"\x00"), key...) }

// foldTraffic moves a message from one status to another in the counts. The sender may have become known meanwhile.
func foldTraffic(tx *bbolt.Tx, before, after ledger.Message) error {
	move := func(m ledger.Message, n int) error {
		t := ledger.Traffic{Hour: m.CreatedAt.UTC().Truncate(time.Hour), Account: m.Account, From: m.From, Campaign: m.Campaign}
		k := append(be(uint64(max(t.Hour.Unix(), 0))), t.Account+"\x00"+t.From+"\x00"+t.Campaign...)
		if _, err := getJSON(tx, bTraffic, k, &t); err != nil {
			return err
		}
		t.Add(m.Status, n)
		if t.Sent == 0 && t.Blocked == 0 && t.Other == 0 {
			return tx.Bucket(bTraffic).Delete(k)
		}
		return putJSON(tx, bTraffic, k, t)
	}
	if before.Status != "" {
		if err := move(before, -1); err != nil {
			return err
		}
	}
	return move(after, 1)
}

func putMessage(tx *bbolt.Tx, key []byte, m ledger.Message) error {
	if m.Settled() {
		if err := tx.Bucket(bUnsettled).Delete(key); err != nil {
			return err
		}
	} else if err := put(tx.Bucket(bUnsettled), key, nil); err != nil {
		return err
	}
	return putJSON(tx, bMessages, key, m)
}

func providerKey(account, id string) []byte { return []byte(account + "\x00" + id) }

func foldProgress(tx *bbolt.Tx, e ledger.Event, owed []owedChange) ([]owedChange, error) {
	var key []byte
	var err error
	switch {
	case e.Started != nil:
		key, err = get(tx, bMessageIDs, []byte(e.Started.Message))
	case e.Outcome != nil:
		key, err = get(tx, bMessageIDs, []byte(e.Outcome.Message))
	case e.Status.Message != "":
		key, err = get(tx, bMessageIDs, []byte(e.Status.Message))
	}
	if key == nil && err == nil && e.Status != nil {
		key, err = get(tx, bProviderIDs, providerKey(e.Status.Account, e.Status.ProviderID))
	}
	if err != nil {
		return nil, err
	}
	if key == nil {
		if e.Status == nil {
			return owed, nil
		}
		// The callback came before the outcome that names the message. Keep the furthest one.
		k := providerKey(e.Status.Account, e.Status.ProviderID)
		var old ledger.StatusTold
		if ok, err := getJSON(tx, bOrphans, k, &old); err != nil {
			return nil, err
		} else if ok {
			probe := ledger.ApplyMessage(ledger.Message{}, ledger.Event{Kind: ledger.KindStatus, Status: &old})
			if ledger.ApplyMessage(probe, e).Delivery == probe.Delivery {
				return owed, nil
			}
		}
		return owed, putJSON(tx, bOrphans, k, e.Status)
	}
	key = bytes.Clone(key)
	var m ledger.Message
	if ok, err := getJSON(tx, bMessages, key, &m); err != nil || !ok {
		return owed, err
	}
	old := m
	m = ledger.ApplyMessage(m, e)
	if m.ProviderID != "" && m.ProviderID != old.ProviderID {
		k := providerKey(m.Account, m.ProviderID)
		if err := put(tx.Bucket(bProviderIDs), k, key); err != nil {
			return nil, err
		}
		var told ledger.StatusTold
		if ok, err := getJSON(tx, bOrphans, k, &told); err != nil {
			return nil, err
		} else if ok {
			m = ledger.ApplyMessage(m, ledger.Event{Kind: ledger.KindStatus, At: e.At, Status: &told})
			if err := tx.Bucket(bOrphans).Delete(k); err != nil {
				return nil, err
			}
		}
	}
	return foldMessage(tx, key, old, m, e, owed)
}

func correctionKey(pass string, seq uint64) []byte { return append([]byte(pass+"\x00"), be(seq)...) }

func openPrefix(crmName, object, id string) []byte {
	return []byte(crmName + "\x00" + object + "\x00" + id + "\x00")
}

func passKey(tx *bbolt.Tx, id string) ([]byte, error) {
	k, err := get(tx, bPassIDs, []byte(id))
	return bytes.Clone(k), err
}

func foldCorrection(tx *bbolt.Tx, e ledger.Event) error {
	c := *e.Correction
	c.Number, c.Seq = e.Number, e.Seq
	key := correctionKey(c.Pass, e.Seq)
	if err := putCorrection(tx, key, c); err != nil {
		return err
	}
	if c.Record != nil && c.Result == "pending" {
		k := append(openPrefix(c.CRM, c.Record.Object, c.Record.ID), be(e.Seq)...)
		if err := put(tx.Bucket(bOpenCorr), k, key); err != nil {
			return err
		}
	}
	return updatePass(tx, c.Pass, func(p ledger.Pass) ledger.Pass { return ledger.ApplyPass(p, e) })
}

// storedCorrection keeps the fields that a Correction's own JSON leaves to the event.
type storedCorrection struct {
	ledger.Correction
	Number phone.Number `json:"number,omitzero"`
	Seq    uint64       `json:"seq"`
}

func putCorrection(tx *bbolt.Tx, key []byte, c ledger.Correction) error {
	return putJSON(tx, bCorrections, key, storedCorrection{c, c.Number, c.Seq})
}

func getCorrection(v []byte) (ledger.Correction, error) {
	var s storedCorrection
	err := json.Unmarshal(v, &s)
	s.Correction.Number, s.Correction.Seq = s.Number, s.Seq
	return s.Correction, err
}

func updatePass(tx *bbolt.Tx, id string, fn func(ledger.Pass) ledger.Pass) error {
	key, err := passKey(tx, id)
	if key == nil || err != nil {
		return err
	}
	var p ledger.Pass
	if ok, err := getJSON(tx, bPasses, key, &p); err != nil || !ok {
		return err
	}
	return putJSON(tx, bPasses, key, fn(p))
}

func foldPass(tx *bbolt.Tx, e ledger.Event) error {
	key, err := passKey(tx, e.Pass.ID)
	if err != nil {
		return err
	}
	if key == nil {
		key = be(e.Seq)
		if err := put(tx.Bucket(bPassIDs), []byte(e.Pass.ID), key); err != nil {
			return err
		}
	}
	var p ledger.Pass
	if _, err := getJSON(tx, bPasses, key, &p); err != nil {
		return err
	}
	return putJSON(tx, bPasses, key, ledger.ApplyPass(p, e))
}

// foldWritten carries results to the corrections that wait for them.
func foldWritten(tx *bbolt.Tx, e ledger.Event) error {
	for _, r := range e.Written.Results {
		prefix := openPrefix(r.CRM, r.Object, r.ID)
		var pending, keys [][]byte
		c := tx.Bucket(bOpenCorr).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			key, err := open(bOpenCorr, k, v)
			if err != nil {
				return err
			}
			pending, keys = append(pending, bytes.Clone(k)), append(keys, bytes.Clone(key))
		}
		for i, key := range keys {
			v, err := get(tx, bCorrections, key)
			if err != nil {
				return err
			}
			if v == nil {
				return &DamageError{string(bCorrections), key}
			}
			corr, err := getCorrection(v)
			if err != nil {
				return err
			}
			var next ledger.Correction
			err = updatePass(tx, corr.Pass, func(p ledger.Pass) ledger.Pass {
				p, next = ledger.ApplyResult(p, corr, r, e.At)
				return p
			})
			if err != nil {
				return err
			}
			if next.Result == "" { // its pass is unknown
				_, next = ledger.ApplyResult(ledger.Pass{}, corr, r, e.At)
			}
			if err := putCorrection(tx, key, next); err != nil {
				return err
			}
			if next.Result == "done" {
				if err := tx.Bucket(bOpenCorr).Delete(pending[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func readNumber(db *bbolt.DB, n phone.Number) (out ledger.Number, err error) {
	out.Number = n
	err = view(db, func(tx *bbolt.Tx) error {
		v, err := get(tx, bNumbers, be(n.Uint64()))
		if v == nil || err != nil {
			return err
		}
		out, err = ledger.DecodeNumber(n, v)
		return err
	})
	return out, err
}

func seenSeq(db *bbolt.DB, id string) (seq uint64, ok bool, err error) {
	err = view(db, func(tx *bbolt.Tx) error {
		v, err := get(tx, bSeen, seenKey(id))
		if v != nil {
			seq, ok = binary.BigEndian.Uint64(v), true
		}
		return err
	})
	return seq, ok, err
}

// eachNumber calls fn for the numbers after one, in order, until it returns false.
func eachNumber(db *bbolt.DB, after phone.Number, fn func(ledger.Number) bool) error {
	return view(db, func(tx *bbolt.Tx) error {
		c := tx.Bucket(bNumbers).Cursor()
		for k, v := c.Seek(be(after.Uint64() + 1)); k != nil; k, v = c.Next() {
			b, err := open(bNumbers, k, v)
			if err != nil {
				return err
			}
			n := phone.FromUint64(binary.BigEndian.Uint64(k))
			if len(k) != 8 || !n.IsValid() {
				return &DamageError{string(bNumbers), bytes.Clone(k)}
			}
			rec, err := ledger.DecodeNumber(n, b)
			if err != nil {
				return err
			}
			if !fn(rec) {
				return nil
			}
		}
		return nil
	})
}

func eachOwed(db *bbolt.DB, fn func(ledger.Owed) bool) error {
	return view(db, func(tx *bbolt.Tx) error {
		return tx.Bucket(bOwed).ForEach(func(k, v []byte) error {
			b, err := open(bOwed, k, v)
			if err != nil {
				return err
			}
			var o ledger.Owed
			if err := json.Unmarshal(b, &o); err != nil {
				return err
			}
			fn(o)
			return nil
		})
	})
}
