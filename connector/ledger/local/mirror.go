package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// mirror keeps a CRM's records as heed last saw them, in a bucket of their own, with a second one that leads from a
// number to its records.
type mirror struct {
	l    *Ledger
	name []byte
}

var (
	bRecords = []byte("records") // object NUL id → encodeRecord
	bPhones  = []byte("phones")  // number(8) object NUL id → nothing
	kCount   = []byte("count")   // number of records(8)
)

// Mirror returns the cache of a CRM's records.
func (l *Ledger) Mirror(crmName string) ledger.Mirror { return &mirror{l, []byte(crmName)} }

func recordKey(k crm.Key) []byte { return []byte(k.Object + "\x00" + k.ID) }

func parseRecordKey(b []byte) crm.Key {
	key := string(b)
	object, id, _ := strings.Cut(key, "\x00")
	return crm.Key{Object: object, ID: id}
}

// A record is read and compared a million times in a night, so it has a form of its own: a byte of flags, and behind it
// what the flags say, integers as varints.
//
//	flags · unparsed · [missing] · [stamp] · [seen] · [wrote] · numbers, 8 bytes each
//
// A time is its seconds since 1970 and its nanoseconds.
const (
	recTicked = 1 << iota
	recMissing
	recStamp
	recSeen
	recWrote
)

var errRecordForm = errors.New("a record of the mirror is not in the form that this version writes")

func encodeRecord(r ledger.MirrorRecord) []byte {
	b := make([]byte, 1, 48+8*len(r.Numbers))
	b = binary.AppendUvarint(b, uint64(r.Unparsed))
	if r.OptedOut {
		b[0] |= recTicked
	}
	if r.Missing != 0 {
		b[0] |= recMissing
		b = binary.AppendUvarint(b, r.Missing)
	}
	for flag, t := range recordTimes(&r) {
		if !t.IsZero() {
			b[0] |= flag
			b = binary.AppendVarint(b, t.Unix())
			b = binary.AppendUvarint(b, uint64(t.Nanosecond()))
		}
	}
	for _, n := range r.Numbers {
		b = binary.BigEndian.AppendUint64(b, n.Uint64())
	}
	return b
}

// recordTimes yields a record's times in their order, with their flags.
func recordTimes(r *ledger.MirrorRecord) iter.Seq2[byte, *time.Time] {
	return func(yield func(byte, *time.Time) bool) {
		_ = yield(recStamp, &r.Stamp) && yield(recSeen, &r.SeenAt) && yield(recWrote, &r.WroteAt)
	}
}

func decodeRecord(key crm.Key, b []byte) (ledger.MirrorRecord, error) {
	r := ledger.MirrorRecord{Key: key}
	if len(b) == 0 {
		return r, errRecordForm
	}
	flags, ok := b[0], true
	b = b[1:]
	uvarint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			ok = false
			return 0
		}
		b = b[n:]
		return v
	}
	r.OptedOut, r.Unparsed = flags&recTicked != 0, int(uvarint())
	if flags&recMissing != 0 {
		r.Missing = uvarint()
	}
	for flag, t := range recordTimes(&r) {
		if flags&flag == 0 {
			continue
		}
		sec, n := binary.Varint(b)
		if n <= 0 {
			return r, errRecordForm
		}
		b = b[n:]
		*t = time.Unix(sec, int64(uvarint())).UTC()
	}
	if !ok || len(b)%8 != 0 {
		return r, errRecordForm
	}
	if len(b) > 0 {
		r.Numbers = make([]phone.Number, 0, len(b)/8)
	}
	for ; len(b) > 0; b = b[8:] {
		r.Numbers = append(r.Numbers, phone.FromUint64(binary.BigEndian.Uint64(b)))
	}
	return r, nil
}

// bucket returns the mirror's own bucket, nil if nothing was ever stored.
func (m *mirror) bucket(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket(bMirrors).Bucket(m.name) }

func (m *mirror) record(b *bbolt.Bucket, key []byte) (r ledger.MirrorRecord, ok bool, err error) {
	v, err := open(m.name, key, b.Bucket(bRecords).Get(key))
	if v == nil || err != nil {
		return r, false, err
	}
	r, err = decodeRecord(parseRecordKey(key), v)
	return r, err == nil, err
}

func (m *mirror) ByNumber(_ context.Context, n phone.Number) (out []ledger.MirrorRecord, err error) {
	err = view(m.l.db, func(tx *bbolt.Tx) error {
		out = nil
		b := m.bucket(tx)
		if b == nil {
			return nil
		}
		prefix := be(n.Uint64())
		c := b.Bucket(bPhones).Cursor()
		for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			r, ok, err := m.record(b, k[8:])
			if err != nil {
				return err
			}
			if ok {
				out = append(out, r)
			}
		}
		return nil
	})
	return out, err
}

func (m *mirror) Get(_ context.Context, keys []crm.Key) (out []ledger.MirrorRecord, err error) {
	err = view(m.l.db, func(tx *bbolt.Tx) error {
		out = nil
		b := m.bucket(tx)
		if b == nil {
			return nil
		}
		for _, k := range keys {
			r, ok, err := m.record(b, recordKey(k))
			if err != nil {
				return err
			}
			if ok {
				out = append(out, r)
			}
		}
		return nil
	})
	return out, err
}

func (m *mirror) Put(_ context.Context, records []ledger.MirrorRecord) error {
	if len(records) == 0 {
		return nil
	}
	return update(m.l.db, func(tx *bbolt.Tx) error {
		b, err := tx.Bucket(bMirrors).CreateBucketIfNotExists(m.name)
		if err != nil {
			return err
		}
		for _, name := range [][]byte{bRecords, bPhones} {
			if _, err := b.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		added := 0
		for _, r := range records {
			key := recordKey(r.Key)
			old, had, err := m.record(b, key)
			if err != nil {
				return err
			}
			if had {
				r = ledger.MergeMirror(old, r)
			} else {
				added++
			}
			if err := movePhones(b.Bucket(bPhones), key, old.Numbers, r.Numbers); err != nil {
				return err
			}
			if err := put(b.Bucket(bRecords), key, encodeRecord(r)); err != nil {
				return err
			}
		}
		return m.addCount(b, added)
	})
}

func (m *mirror) Wrote(_ context.Context, keys []crm.Key, optedOut bool, at time.Time) error {
	return update(m.l.db, func(tx *bbolt.Tx) error {
		b := m.bucket(tx)
		if b == nil {
			return nil
		}
		for _, k := range keys {
			key := recordKey(k)
			r, had, err := m.record(b, key)
			if err != nil {
				return err
			}
			if !had {
				continue
			}
			r.OptedOut, r.WroteAt = optedOut, at
			if err := put(b.Bucket(bRecords), key, encodeRecord(r)); err != nil {
				return err
			}
		}
		return nil
	})
}

// movePhones makes the phone bucket lead from the new numbers to the record and from no others.
func movePhones(b *bbolt.Bucket, key []byte, old, new []phone.Number) error {
	for _, n := range old {
		if !slices.Contains(new, n) {
			if err := b.Delete(append(be(n.Uint64()), key...)); err != nil {
				return err
			}
		}
	}
	for _, n := range new {
		if !slices.Contains(old, n) {
			if err := put(b, append(be(n.Uint64()), key...), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *mirror) addCount(b *bbolt.Bucket, n int) error {
	if n == 0 {
		return nil
	}
	old := uint64(0)
	if v, err := open(m.name, kCount, b.Get(kCount)); err != nil {
		return err
	} else if v != nil {
		old = binary.BigEndian.Uint64(v)
	}
	return put(b, kCount, be(old+uint64(n)))
}

func (m *mirror) Delete(_ context.Context, keys []crm.Key) error {
	return update(m.l.db, func(tx *bbolt.Tx) error {
		b := m.bucket(tx)
		if b == nil {
			return nil
		}
		removed := 0
		for _, k := range keys {
			key := recordKey(k)
			old, had, err := m.record(b, key)
			if err != nil {
				return err
			}
			if !had {
				continue
			}
			removed++
			if err := movePhones(b.Bucket(bPhones), key, old.Numbers, nil); err != nil {
				return err
			}
			if err := b.Bucket(bRecords).Delete(key); err != nil {
				return err
			}
		}
		return m.addCount(b, -removed)
	})
}

func (m *mirror) Between(ctx context.Context, after, upTo crm.Key) iter.Seq2[ledger.MirrorRecord, error] {
	var from, to []byte
	if after != (crm.Key{}) {
		from = append(recordKey(after), 0)
	}
	if upTo != (crm.Key{}) {
		to = recordKey(upTo)
	}
	return func(yield func(ledger.MirrorRecord, error) bool) {
		page := make([]ledger.MirrorRecord, 0, pageSize)
		for {
			err := view(m.l.db, func(tx *bbolt.Tx) error {
				page = page[:0]
				b := m.bucket(tx)
				if b == nil {
					return nil
				}
				c := b.Bucket(bRecords).Cursor()
				for k, v := c.Seek(from); k != nil && len(page) < pageSize && (to == nil || bytes.Compare(k, to) <= 0); k, v = c.Next() {
					v, err := open(m.name, k, v)
					if err != nil {
						return err
					}
					r, err := decodeRecord(parseRecordKey(k), v)
					if err != nil {
						return err
					}
					page = append(page, r)
				}
				return nil
			})
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(ledger.MirrorRecord{}, err)
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
			from = append(recordKey(page[len(page)-1].Key), 0)
		}
	}
}

func (m *mirror) Len(context.Context) (n int, err error) {
	err = view(m.l.db, func(tx *bbolt.Tx) error {
		b := m.bucket(tx)
		if b == nil {
			return nil
		}
		v, err := open(m.name, kCount, b.Get(kCount))
		if v != nil {
			n = int(binary.BigEndian.Uint64(v))
		}
		return err
	})
	return n, err
}
