package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"iter"
	"slices"
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
	bRecords = []byte("records") // object NUL id → ledger.MirrorRecord
	bPhones  = []byte("phones")  // number(8) object NUL id → nothing
	kCount   = []byte("count")   // number of records(8)
)

// Mirror returns the cache of a CRM's records.
func (l *Ledger) Mirror(crmName string) ledger.Mirror { return &mirror{l, []byte(crmName)} }

func recordKey(k crm.Key) []byte { return []byte(k.Object + "\x00" + k.ID) }

func parseRecordKey(b []byte) crm.Key {
	object, id, _ := bytes.Cut(b, []byte{0})
	return crm.Key{Object: string(object), ID: string(id)}
}

// bucket returns the mirror's own bucket, nil if nothing was ever stored.
func (m *mirror) bucket(tx *bbolt.Tx) *bbolt.Bucket { return tx.Bucket(bMirrors).Bucket(m.name) }

func (m *mirror) record(b *bbolt.Bucket, key []byte) (r ledger.MirrorRecord, ok bool, err error) {
	v, err := open(m.name, key, b.Bucket(bRecords).Get(key))
	if v == nil || err != nil {
		return r, false, err
	}
	if err := json.Unmarshal(v, &r); err != nil {
		return r, false, err
	}
	return r, true, nil
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
			v, err := json.Marshal(r)
			if err != nil {
				return err
			}
			if err := put(b.Bucket(bRecords), key, v); err != nil {
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
			v, err := json.Marshal(r)
			if err != nil {
				return err
			}
			if err := put(b.Bucket(bRecords), key, v); err != nil {
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

func (m *mirror) All(ctx context.Context, after crm.Key) iter.Seq2[ledger.MirrorRecord, error] {
	from := append(recordKey(after), 0)
	if after == (crm.Key{}) {
		from = nil
	}
	return func(yield func(ledger.MirrorRecord, error) bool) {
		for {
			var page []ledger.MirrorRecord
			err := view(m.l.db, func(tx *bbolt.Tx) error {
				page = page[:0]
				b := m.bucket(tx)
				if b == nil {
					return nil
				}
				c := b.Bucket(bRecords).Cursor()
				for k, v := c.Seek(from); k != nil && len(page) < pageSize; k, v = c.Next() {
					v, err := open(m.name, k, v)
					if err != nil {
						return err
					}
					var r ledger.MirrorRecord
					if err := json.Unmarshal(v, &r); err != nil {
						return err
					}
					r.Key = parseRecordKey(k)
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
