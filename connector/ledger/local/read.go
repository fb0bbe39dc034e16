package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/chain"
	"github.com/heed-sms/heed/connector/ledger/journal"
	"github.com/heed-sms/heed/sms/phone"
)

// pageSize bounds how much one read transaction collects: long transactions pin pages and make the file grow.
const pageSize = 512

// read waits for the index to catch up and runs fn on it.
func (l *Ledger) read(ctx context.Context, fn func(tx *bbolt.Tx) error) error {
	if err := l.catch(ctx); err != nil {
		return err
	}
	return view(l.db, fn)
}

// paged turns "the next page after a key" into an iterator that holds no transaction while the caller works.
// page returns the items and the key to go on from, nil at the end.
func paged[T any](ctx context.Context, l *Ledger, from []byte, page func(tx *bbolt.Tx, from []byte) (items []T, next []byte, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		key := from
		for {
			var items []T
			var next []byte
			err := l.read(ctx, func(tx *bbolt.Tx) (err error) {
				items, next, err = page(tx, key)
				return err
			})
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(zero, err)
				return
			}
			for _, it := range items {
				if !yield(it, nil) {
					return
				}
			}
			if next == nil {
				return
			}
			key = next
		}
	}
}

// collect gathers a page of a bucket from key on (inclusive), forwards or backwards, while keys have the prefix.
func collect[T any](tx *bbolt.Tx, bucket, from, prefix []byte, back bool, decode func(k, v []byte) (T, error)) (items []T, next []byte, err error) {
	c := tx.Bucket(bucket).Cursor()
	k, v := c.Seek(from)
	step := c.Next
	if back {
		step = c.Prev
		switch {
		case from == nil, k == nil:
			k, v = c.Last()
		case !bytes.Equal(k, from):
			k, v = c.Prev()
		}
	}
	for ; k != nil && bytes.HasPrefix(k, prefix); k, v = step() {
		if len(items) == pageSize {
			return items, bytes.Clone(k), nil
		}
		b, err := open(bucket, k, v)
		if err != nil {
			return nil, nil, err
		}
		it, err := decode(k, b)
		if err != nil {
			return nil, nil, err
		}
		items = append(items, it)
	}
	return items, nil, nil
}

func unmarshal[T any](_, v []byte) (t T, err error) { return t, json.Unmarshal(v, &t) }

// Number returns what is known of a number.
func (l *Ledger) Number(ctx context.Context, n phone.Number) (ledger.Number, error) {
	if err := l.catch(ctx); err != nil {
		return ledger.Number{}, err
	}
	return readNumber(l.db, n)
}

// Numbers yields the known numbers after one.
func (l *Ledger) Numbers(ctx context.Context, after phone.Number) iter.Seq2[ledger.Number, error] {
	return paged(ctx, l, be(after.Uint64()+1), func(tx *bbolt.Tx, from []byte) ([]ledger.Number, []byte, error) {
		return collect(tx, bNumbers, from, nil, false, func(k, v []byte) (ledger.Number, error) {
			return ledger.DecodeNumber(phone.FromUint64(binary.BigEndian.Uint64(k)), v)
		})
	})
}

// History yields every event of a number, oldest first, read back from the journal.
func (l *Ledger) History(ctx context.Context, n phone.Number) iter.Seq2[ledger.Event, error] {
	prefix := be(n.Uint64())
	return l.trail(ctx, prefix, prefix, false)
}

// Audit yields what people did, newest first.
func (l *Ledger) Audit(ctx context.Context) iter.Seq2[ledger.Event, error] {
	return l.trail(ctx, append(be(0), bytes.Repeat([]byte{0xff}, 8)...), be(0), true)
}

func (l *Ledger) trail(ctx context.Context, from, prefix []byte, back bool) iter.Seq2[ledger.Event, error] {
	positions := paged(ctx, l, from, func(tx *bbolt.Tx, from []byte) ([]journal.Position, []byte, error) {
		return collect(tx, bTrail, from, prefix, back, func(_, v []byte) (p journal.Position, err error) {
			return p, p.UnmarshalBinary(v)
		})
	})
	return func(yield func(ledger.Event, error) bool) {
		for pos, err := range positions {
			var e ledger.Event
			if err == nil {
				e, err = l.readAt(pos)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (l *Ledger) readAt(pos journal.Position) (ledger.Event, error) {
	r, err := l.j.ReadAt(pos)
	if err != nil {
		return ledger.Event{}, err
	}
	return decode(r)
}

// Event returns one event of a number.
func (l *Ledger) Event(ctx context.Context, n phone.Number, seq uint64) (ledger.Event, error) {
	var pos journal.Position
	err := l.read(ctx, func(tx *bbolt.Tx) error {
		v, err := get(tx, bTrail, append(be(n.Uint64()), be(seq)...))
		if err != nil {
			return err
		}
		if v == nil {
			return fmt.Errorf("event %d of this number: %w", seq, ledger.ErrNotFound)
		}
		return pos.UnmarshalBinary(v)
	})
	if err != nil {
		return ledger.Event{}, err
	}
	return l.readAt(pos)
}

var errStop = errors.New("stop")

// Prove yields the links that lead from a number's events to the newest event.
func (l *Ledger) Prove(ctx context.Context, n phone.Number, through []uint64) iter.Seq2[ledger.Proven, error] {
	return func(yield func(ledger.Proven, error) bool) {
		if err := l.catch(ctx); err != nil {
			yield(ledger.Proven{}, err)
			return
		}
		head, _ := l.j.Head()
		first, err := l.j.FirstLink()
		if err != nil {
			yield(ledger.Proven{}, err)
			return
		}
		prefix := be(n.Uint64())
		trail := paged(ctx, l, append(bytes.Clone(prefix), be(first)...), func(tx *bbolt.Tx, from []byte) ([]uint64, []byte, error) {
			return collect(tx, bTrail, from, prefix, false, func(k, _ []byte) (uint64, error) {
				return binary.BigEndian.Uint64(k[len(prefix):]), nil
			})
		})
		own := false // whether what walk yielded last is one of the trail; Links takes them one at a time
		walk := func(yield func(uint64, error) bool) {
			at, rest := uint64(0), through
			to := func(seq uint64, isOwn bool) bool {
				way := []uint64{seq}
				if at > 0 {
					way = chain.Path(at, seq)
				}
				at = seq
				for _, s := range way {
					own = isOwn && s == seq
					if !yield(s, nil) {
						return false
					}
				}
				return true
			}
			for seq, err := range trail {
				if err != nil {
					yield(0, err)
					return
				}
				if seq > head {
					break
				}
				for ; len(rest) > 0 && rest[0] < seq; rest = rest[1:] {
					if at > 0 && rest[0] > at && !to(rest[0], false) {
						return
					}
				}
				if !to(seq, true) {
					return
				}
			}
			for _, seq := range rest {
				if at > 0 && seq > at && seq <= head && !to(seq, false) {
					return
				}
			}
			if at > 0 && head > at {
				to(head, false)
			}
		}
		err = l.j.Links(walk, func(k journal.Linked) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := ledger.Proven{Link: k.Link, Own: own}
			if own {
				p.Nonce, p.Payload = k.Nonce, k.Payload
			}
			if !yield(p, nil) {
				return errStop
			}
			return nil
		})
		if errors.Is(err, os.ErrClosed) {
			err = fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(ledger.Proven{}, err)
		}
	}
}

// Events yields the journal from a sequence on.
func (l *Ledger) Events(ctx context.Context, from uint64) iter.Seq2[ledger.Event, error] {
	return func(yield func(ledger.Event, error) bool) {
		err := l.j.Replay(max(from, 1), func(r journal.Record) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			e, err := decode(r)
			if err != nil {
				return err
			}
			if !yield(e, nil) {
				return errStop
			}
			return nil
		})
		if errors.Is(err, os.ErrClosed) {
			err = fmt.Errorf("%w: %w", ledger.ErrUnavailable, err)
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(ledger.Event{}, err)
		}
	}
}

// Seen reports whether an event with this id was recorded.
func (l *Ledger) Seen(ctx context.Context, id string) (bool, error) {
	if err := l.Health(); err != nil {
		return false, err
	}
	l.mu.RLock()
	_, ok := l.recent[id]
	l.mu.RUnlock()
	if ok {
		return true, nil
	}
	_, ok, err := seenSeq(l.db, id)
	return ok, err
}

func (l *Ledger) messageBy(ctx context.Context, find func(tx *bbolt.Tx) ([]byte, error)) (m ledger.Message, err error) {
	err = l.read(ctx, func(tx *bbolt.Tx) error {
		key, err := find(tx)
		if err != nil {
			return err
		}
		if key == nil {
			return fmt.Errorf("message: %w", ledger.ErrNotFound)
		}
		ok, err := getJSON(tx, bMessages, key, &m)
		if err == nil && !ok {
			err = fmt.Errorf("message: %w", ledger.ErrNotFound)
		}
		return err
	})
	return m, err
}

func (l *Ledger) messageBySeq(ctx context.Context, seq uint64) (ledger.Message, error) {
	return l.messageBy(ctx, func(*bbolt.Tx) ([]byte, error) { return be(seq), nil })
}

// Message returns a message by heed's id.
func (l *Ledger) Message(ctx context.Context, id string) (ledger.Message, error) {
	return l.messageBy(ctx, func(tx *bbolt.Tx) ([]byte, error) { return get(tx, bMessageIDs, []byte(id)) })
}

// MessageByProvider returns a message by the provider's id.
func (l *Ledger) MessageByProvider(ctx context.Context, account, providerID string) (ledger.Message, error) {
	return l.messageBy(ctx, func(tx *bbolt.Tx) ([]byte, error) {
		return get(tx, bProviderIDs, providerKey(account, providerID))
	})
}

// Messages yields messages, newest first; with a status only those that have it now.
func (l *Ledger) Messages(ctx context.Context, status ledger.Status) iter.Seq2[ledger.Message, error] {
	if status == "" || status == ledger.StatusSent {
		return func(yield func(ledger.Message, error) bool) {
			all := paged(ctx, l, nil, func(tx *bbolt.Tx, from []byte) ([]ledger.Message, []byte, error) {
				return collect(tx, bMessages, from, nil, true, unmarshal[ledger.Message])
			})
			for m, err := range all {
				if (err != nil || status == "" || m.Status == status) && !yield(m, err) {
					return
				}
			}
		}
	}
	prefix := statusKey(status, nil)
	last := append(statusKey(status, nil), bytes.Repeat([]byte{0xff}, 8)...)
	return paged(ctx, l, last, func(tx *bbolt.Tx, from []byte) ([]ledger.Message, []byte, error) {
		return collect(tx, bByStatus, from, prefix, true, func(k, _ []byte) (m ledger.Message, err error) {
			_, err = getJSON(tx, bMessages, k[len(prefix):], &m)
			return m, err
		})
	})
}

// MessagesBefore yields the messages before one, newest first.
func (l *Ledger) MessagesBefore(ctx context.Context, id string) iter.Seq2[ledger.Message, error] {
	return func(yield func(ledger.Message, error) bool) {
		var key []byte
		if err := l.read(ctx, func(tx *bbolt.Tx) error {
			v, err := get(tx, bMessageIDs, []byte(id))
			if err == nil && v == nil {
				err = ledger.ErrNotFound
			}
			key = bytes.Clone(v)
			return err
		}); err != nil {
			yield(ledger.Message{}, err)
			return
		}
		for m, err := range paged(ctx, l, key, func(tx *bbolt.Tx, from []byte) ([]ledger.Message, []byte, error) {
			return collect(tx, bMessages, from, nil, true, unmarshal[ledger.Message])
		}) {
			if (err != nil || m.ID != id) && !yield(m, err) {
				return
			}
		}
	}
}

// OptOuts yields the changes to opted out at or after since, newest first.
func (l *Ledger) OptOuts(ctx context.Context, since time.Time) iter.Seq2[ledger.OptOut, error] {
	return func(yield func(ledger.OptOut, error) bool) {
		all := paged(ctx, l, nil, func(tx *bbolt.Tx, from []byte) ([]ledger.OptOut, []byte, error) {
			return collect(tx, bOptOuts, from, nil, true, unmarshal[ledger.OptOut])
		})
		for o, err := range all {
			if err == nil && o.At.Before(since) || !yield(o, err) {
				return
			}
		}
	}
}

// LastOptOut returns a number's newest change to opted out.
func (l *Ledger) LastOptOut(ctx context.Context, n phone.Number) (o ledger.OptOut, err error) {
	err = l.read(ctx, func(tx *bbolt.Tx) error {
		prefix := be(n.Uint64())
		c := tx.Bucket(bTrail).Cursor()
		k, _ := c.Seek(be(n.Uint64() + 1))
		if k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		for ; bytes.HasPrefix(k, prefix); k, _ = c.Prev() {
			if ok, err := getJSON(tx, bOptOuts, k[len(prefix):], &o); ok || err != nil {
				return err
			}
		}
		return fmt.Errorf("opt-out of this number: %w", ledger.ErrNotFound)
	})
	return o, err
}

// Traffic yields what was sent and refused, by hour, sender and campaign.
func (l *Ledger) Traffic(ctx context.Context, since time.Time) iter.Seq2[ledger.Traffic, error] {
	first := be(uint64(max(since.Truncate(time.Hour).Unix(), 0)))
	return paged(ctx, l, first, func(tx *bbolt.Tx, from []byte) ([]ledger.Traffic, []byte, error) {
		return collect(tx, bTraffic, from, nil, false, unmarshal[ledger.Traffic])
	})
}

// Access yields the newest Access of each sort and name.
func (l *Ledger) Access(ctx context.Context) iter.Seq2[ledger.Access, error] {
	return paged(ctx, l, nil, func(tx *bbolt.Tx, from []byte) ([]ledger.Access, []byte, error) {
		return collect(tx, bAccess, from, nil, false, func(_, v []byte) (ledger.Access, error) {
			var s storedAccess
			err := json.Unmarshal(v, &s)
			s.Access.At, s.Access.Seq = s.At, s.Seq
			return s.Access, err
		})
	})
}

// Unsettled yields the messages whose outcome is open, oldest first.
func (l *Ledger) Unsettled(ctx context.Context) iter.Seq2[ledger.Message, error] {
	return paged(ctx, l, nil, func(tx *bbolt.Tx, from []byte) ([]ledger.Message, []byte, error) {
		return collect(tx, bUnsettled, from, nil, false, func(k, _ []byte) (m ledger.Message, err error) {
			_, err = getJSON(tx, bMessages, k, &m)
			return m, err
		})
	})
}

// Reports yields passes, newest first.
func (l *Ledger) Reports(ctx context.Context) iter.Seq2[ledger.Pass, error] {
	return paged(ctx, l, nil, func(tx *bbolt.Tx, from []byte) ([]ledger.Pass, []byte, error) {
		return collect(tx, bPasses, from, nil, true, unmarshal[ledger.Pass])
	})
}

// Report returns a pass.
func (l *Ledger) Report(ctx context.Context, id string) (p ledger.Pass, err error) {
	err = l.read(ctx, func(tx *bbolt.Tx) error {
		key, err := passKey(tx, id)
		if err != nil {
			return err
		}
		if key == nil {
			return fmt.Errorf("report: %w", ledger.ErrNotFound)
		}
		_, err = getJSON(tx, bPasses, key, &p)
		return err
	})
	return p, err
}

// Corrections yields a pass's corrections in order.
func (l *Ledger) Corrections(ctx context.Context, pass string) iter.Seq2[ledger.Correction, error] {
	prefix := []byte(pass + "\x00")
	return paged(ctx, l, prefix, func(tx *bbolt.Tx, from []byte) ([]ledger.Correction, []byte, error) {
		return collect(tx, bCorrections, from, prefix, false, func(_, v []byte) (ledger.Correction, error) { return getCorrection(v) })
	})
}

// Cursor returns a named checkpoint.
func (l *Ledger) Cursor(_ context.Context, name string) (value string, err error) {
	err = view(l.db, func(tx *bbolt.Tx) error {
		v, err := get(tx, bCursors, []byte(name))
		value = string(v)
		return err
	})
	return value, err
}

// SetCursor stores a named checkpoint.
func (l *Ledger) SetCursor(_ context.Context, name, value string) error {
	return update(l.db, func(tx *bbolt.Tx) error { return put(tx.Bucket(bCursors), []byte(name), []byte(value)) })
}

// Stats returns counts.
func (l *Ledger) Stats(ctx context.Context) (ledger.Stats, error) {
	s := ledger.Stats{Numbers: map[string]int{}, Owed: map[ledger.OwedKind]int{}, Messages: map[ledger.Status]uint64{}}
	err := l.read(ctx, func(tx *bbolt.Tx) error {
		counts := map[string]*uint64{"inbound": &s.Inbound, "opt_outs": &s.OptOuts, "quarantine": &s.Quarantine, "would_block": &s.WouldBlock}
		return tx.Bucket(bCounts).ForEach(func(k, v []byte) error {
			b, err := open(bCounts, k, v)
			if err != nil {
				return err
			}
			n := binary.BigEndian.Uint64(b)
			if p, ok := counts[string(k)]; ok {
				*p = n
			} else if status, ok := bytes.CutPrefix(k, []byte("message.")); ok {
				s.Messages[ledger.Status(status)] = n
			}
			return nil
		})
	})
	if err != nil {
		return s, err
	}
	l.mu.RLock()
	for _, st := range l.states {
		s.Numbers[st.state.String()]++
	}
	l.mu.RUnlock()
	l.progress.Lock()
	s.Applied = l.applied
	l.progress.Unlock()
	s.Head, s.HeadHash = l.j.Head()
	s.Bytes, _ = l.j.Size()
	l.due.stats(&s, l.now())
	if p := l.degraded.Load(); p != nil {
		s.Degraded = *p
	}
	return s, nil
}

// Owed yields all owed work, parked or not, by key.
func (l *Ledger) Owed(ctx context.Context) iter.Seq2[ledger.Owed, error] {
	return func(yield func(ledger.Owed, error) bool) {
		if err := l.catch(ctx); err != nil {
			yield(ledger.Owed{}, err)
			return
		}
		for _, o := range l.due.all() {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// OwedOf returns all owed work of one number, by key.
func (l *Ledger) OwedOf(ctx context.Context, n phone.Number) ([]ledger.Owed, error) {
	var keys []string
	err := l.read(ctx, func(tx *bbolt.Tx) error {
		c := tx.Bucket(bOwed).Cursor()
		for _, kind := range ledger.OwedKinds {
			prefix := []byte(ledger.OwedKey(kind, n, 0))
			prefix = prefix[:len(string(kind))+1+15] // with or without an event behind it
			for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
				keys = append(keys, string(k))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(keys)
	return l.due.under(keys), nil
}

// Claim takes owed work whose time has come.
func (l *Ledger) Claim(ctx context.Context, kind ledger.OwedKind, limit int) ([]ledger.Owed, error) {
	if err := l.catch(ctx); err != nil {
		return nil, err
	}
	return l.due.claim(kind, limit, l.now()), nil
}

// Return gives claimed work back.
func (l *Ledger) Return(_ context.Context, o ledger.Owed, until time.Time, note string) error {
	if err := l.Health(); err != nil {
		return err
	}
	l.due.giveBack(o, until, note)
	return nil
}

// Hurry makes the delayed and the parked work of a kind due now.
func (l *Ledger) Hurry(ctx context.Context, kind ledger.OwedKind) error {
	if err := l.catch(ctx); err != nil {
		return err
	}
	l.due.hurry(kind)
	return nil
}

// OwedSignal receives a value when work may have become claimable.
func (l *Ledger) OwedSignal(kind ledger.OwedKind) <-chan struct{} { return l.due.signal(kind) }
