package journal

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/heed-sms/heed/connector/ledger/chain"
)

var (
	// ErrFailed is wrapped by every Append after a write or sync failed in a way that leaves the state of the disk
	// unknown. The process must stop trusting itself: refuse work, exit, and let the next Open verify.
	ErrFailed = errors.New("journal failed and accepts nothing more until heed is restarted")

	// ErrFull is wrapped by an Append that found no space, even after the reserve was released. Nothing of it is
	// stored and the journal is sound: a later Append may work once space has been freed.
	ErrFull = errors.New("no space left for the journal; free space on its file system")

	// ErrLocked is wrapped by an Open of a directory that another process has open.
	ErrLocked = errors.New("journal is locked")

	// ErrVersion is wrapped when a segment has a format version that this program does not know. Nothing is changed.
	ErrVersion = errors.New("unknown journal format")

	// ErrReadOnly is returned by an Append to a journal opened with Options.ReadOnly.
	ErrReadOnly = errors.New("journal is open for reading only")

	// ErrNoRecord is wrapped by a ReadAt of a position that this journal never handed out.
	ErrNoRecord = errors.New("no such position in the journal")
)

// CorruptError says where a journal is damaged. The journal never repairs damage and never reads on behind it.
type CorruptError struct {
	Segment string // path of the file
	Offset  int64  // byte in the file at which the damaged record, or what is in its place, begins
	Seq     uint64 // sequence expected there, 0 if not known
	Reason  string

	unreadable bool // a write that was cut short may look like this
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("journal damaged: %s, byte %d, record %d: %s; leave the directory as it is and restore a backup into another one",
		e.Segment, e.Offset, e.Seq, e.Reason)
}

// Options for Open. The zero value is ready for use.
type Options struct {
	// SegmentBytes is the size in bytes from which on the next batch begins a new segment. 0 means 64 MiB.
	SegmentBytes int64

	// BallastBytes is the disk space held in reserve so that appends go on for a while when the file system is
	// full. 0 means 16 MiB, a negative value none.
	BallastBytes int64

	// Acked is the highest sequence that the caller has seen acknowledged, as far as it remembers (for example the
	// last one in an index). Open refuses with a CorruptError, and changes nothing, if the journal ends before it:
	// that is the only way to notice a last segment that was deleted or a last batch that was damaged later.
	Acked uint64

	// ReadOnly opens the journal as it is, without the lock and without changing anything; another process may be
	// appending to it. What was appended later is not seen.
	ReadOnly bool

	Logger *slog.Logger // nil means silence

	wrap func(file) file // tests put failures between the journal and its segment
}

// Record is one entry of the journal.
type Record struct {
	Seq     uint64 // 1 for the first record, without gaps
	Batch   uint64 // sequence of the first record of the Append that wrote it
	Pos     Position
	Hash    chain.Hash
	Payload []byte
}

// Position is the place of a record, for ReadAt. It is comparable and stays valid for the life of the journal; the
// zero value is the place of no record.
type Position struct {
	Segment uint64 // first sequence of the segment
	Offset  int64  // in bytes
}

const maxPosition = 1 << 56 // eight bytes as a varint

// AppendBinary appends the position in 2 to 16 bytes, usually 6 to 8: two unsigned varints, segment and offset.
func (p Position) AppendBinary(b []byte) ([]byte, error) {
	if p.Segment >= maxPosition || p.Offset < 0 || p.Offset >= maxPosition {
		return b, fmt.Errorf("journal: position %d:%d cannot be encoded", p.Segment, p.Offset)
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, p.Segment), uint64(p.Offset)), nil
}

// MarshalBinary returns what AppendBinary appends.
func (p Position) MarshalBinary() ([]byte, error) { return p.AppendBinary(nil) }

// UnmarshalBinary reads what MarshalBinary wrote.
func (p *Position) UnmarshalBinary(b []byte) error {
	seg, n := binary.Uvarint(b)
	if n > 0 {
		off, m := binary.Uvarint(b[n:])
		if q := (Position{seg, int64(off)}); m > 0 && n+m == len(b) && seg < maxPosition && off < maxPosition {
			*p = q
			return nil
		}
	}
	return fmt.Errorf("journal: %d bytes are not a position", len(b))
}

// segment is one file of the journal.
type segment struct {
	header
	path string
	r    *os.File // for reading
	size int64    // bytes that are on disk for good
}

// Journal is an open journal. One goroutine at a time may call Append; all other methods are safe for concurrent use,
// also beside Append. It keeps one file open per segment.
type Journal struct {
	dir      string
	opt      Options
	log      *slog.Logger
	lock     *os.File
	noRes    atomic.Bool // the reserve is gone
	appender             // only for Append and Close

	mu     sync.RWMutex
	segs   []segment // ascending, never empty
	head   state
	closed bool
}

// appender is what only the appending goroutine touches.
type appender struct {
	f    file // the last segment
	seed uint32
	tail state // as Journal.head
	size int64 // as the size of the last segment
	buf  []byte
	// nonces of the batch that is being written
	nonces []byte
	err    error // why nothing more may be appended
}

// Open opens the journal in dir, or creates it. It checks the last segment completely and every seam between
// segments; Verify checks every byte.
//
// A batch at the end that was being written when the program or the machine died, and so was never acknowledged, is
// moved to a file "<segment>.torn-<offset>" and logged. Any other damage is a *CorruptError and changes nothing.
func Open(dir string, o Options) (*Journal, error) {
	o.SegmentBytes = cmp.Or(o.SegmentBytes, 64<<20)
	o.BallastBytes = cmp.Or(o.BallastBytes, 16<<20)
	j := &Journal{dir: dir, opt: o, log: o.Logger}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	if err := j.open(); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

func (j *Journal) open() error {
	if !j.opt.ReadOnly {
		if err := j.claim(); err != nil {
			return err
		}
	}
	l, err := list(j.dir)
	if err != nil {
		return err
	}
	if len(l.first) == 0 {
		return j.begin(l)
	}
	for _, first := range l.first {
		if err := j.load(first); err != nil {
			return err
		}
	}
	seg := &j.segs[len(j.segs)-1]
	s := scan(seg.r, seg.path, &seg.header, seg.size)
	batchAt := seg.header.size() // where the last batch begins
	for {
		rec, err := s.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if err := s.finish(seg.r, err); err != nil {
				return err
			}
			if s.seq < j.opt.Acked {
				return s.damage(false, fmt.Sprintf("%v; records up to %d had been acknowledged", err.(*CorruptError).Reason, j.opt.Acked))
			}
			break
		}
		if rec.Seq == rec.Batch {
			batchAt = rec.Pos.Offset
		}
	}
	if s.seq < j.opt.Acked {
		return s.damage(false, fmt.Sprintf("the journal ends here, but records up to %d had been acknowledged: a segment was deleted or cut, or an old copy restored", j.opt.Acked))
	}
	j.head = s.state
	if j.opt.ReadOnly {
		seg.size = s.off
		return nil
	}
	if err := j.takeOver(seg, s, batchAt); err != nil {
		return err
	}
	if seg.version == 1 {
		if err := j.upgrade(); err != nil {
			return err
		}
	}
	for _, name := range l.tmp {
		if err := os.Remove(filepath.Join(j.dir, name)); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	j.reserve()
	return nil
}

// claim creates the directory if need be and locks it.
func (j *Journal) claim() error {
	if _, err := os.Stat(j.dir); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(j.dir, 0o700); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		if err := syncDir(filepath.Dir(j.dir)); err != nil {
			return fmt.Errorf("journal: sync %s: %w", filepath.Dir(j.dir), err)
		}
	}
	var err error
	j.lock, err = lock(filepath.Join(j.dir, lockName))
	return err
}

// begin creates the first segment of a new journal.
func (j *Journal) begin(l listing) error {
	_, err := os.Stat(filepath.Join(j.dir, ballast))
	if err == nil || len(l.torn) > 0 || j.opt.Acked > 0 {
		return &CorruptError{Segment: filepath.Join(j.dir, segmentName(1)), Seq: 1, Reason: "missing segment: there was a journal here and no segment is left"}
	}
	if j.opt.ReadOnly {
		return fmt.Errorf("journal: %s holds no journal: %w", j.dir, os.ErrNotExist)
	}
	if err := j.addSegment(header{version: version, first: 1}); err != nil {
		return err
	}
	j.reserve()
	return nil
}

// load opens a segment and checks its header and its seam to the segment before.
func (j *Journal) load(first uint64) error {
	path := filepath.Join(j.dir, segmentName(first))
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.segs = append(j.segs, segment{path: path, r: f})
	seg := &j.segs[len(j.segs)-1]
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	seg.size = fi.Size()
	if seg.header, err = readHeader(f, path, first); err != nil {
		return err
	}
	if len(j.segs) > 1 {
		return seam(&j.segs[len(j.segs)-2], seg)
	}
	if seg.hash() != (chain.Hash{}) || seg.prevLast != 0 {
		return &CorruptError{Segment: path, Seq: first, Reason: "segment header: the first segment continues another one"}
	}
	return nil
}

// seam checks that before ends with exactly the record that seg says it continues.
func seam(before, seg *segment) error {
	b, err := before.recordAt(before.r, before.path, seg.prevLast, before.size)
	if c := (*CorruptError)(nil); errors.As(err, &c) {
		c.Seq = seg.first - 1
		c.Reason = "last record of the segment: " + c.Reason
		return c
	}
	if err != nil {
		return err
	}
	bad := func(reason string) error {
		return &CorruptError{Segment: before.path, Offset: seg.prevLast, Seq: seg.first - 1, Reason: reason}
	}
	switch {
	case recordSeq(b) != seg.first-1:
		return bad(fmt.Sprintf("segment ends with record %d and the next one begins with %d: a segment is missing or extra", recordSeq(b), seg.first))
	case seg.prevLast+int64(len(b)) != before.size:
		return bad(fmt.Sprintf("%d bytes follow the last record", before.size-seg.prevLast-int64(len(b))))
	case before.recordHash(b) != seg.hash():
		return bad("hash chain is broken: the next segment was written after another record")
	}
	return nil
}

// takeOver makes the last segment ready for appending: what the scan found is on disk, and nothing is behind it.
func (j *Journal) takeOver(seg *segment, s *scanner, batchAt int64) error {
	if s.off < seg.size {
		if err := j.withReserve(func() error { return j.setAside(seg, s.off) }); err != nil {
			return fmt.Errorf("journal: set the torn tail of %s aside: %w", seg.path, err)
		}
		j.log.Warn("journal: cut off a batch that was being written when heed stopped; it was never acknowledged",
			"segment", filepath.Base(seg.path), "offset", s.off, "bytes", seg.size-s.off, "next_seq", s.seq+1)
	}
	f, err := os.OpenFile(seg.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.f = j.wrapped(f)
	if s.off < seg.size {
		if err := j.f.Truncate(s.off); err != nil {
			return fmt.Errorf("journal: cut off the torn tail of %s: %w", seg.path, err)
		}
	}
	// The last batch may be readable only because the kernel still holds it in memory: the process may have died
	// before the sync, or the sync failed and the kernel forgot that the pages were dirty. So write it once more.
	if err := j.withReserve(func() error { return rewrite(j.f, batchAt, s.off) }); err != nil {
		return fmt.Errorf("journal: write the last batch of %s again: %w", seg.path, err)
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("journal: sync %s: %w", seg.path, err)
	}
	if err := syncDir(j.dir); err != nil {
		return fmt.Errorf("journal: sync %s: %w", j.dir, err)
	}
	seg.size = s.off
	j.seed, j.tail, j.size = s.seed, s.state, s.off
	return nil
}

func (j *Journal) wrapped(f *os.File) file {
	if j.opt.wrap != nil {
		return j.opt.wrap(osFile{f})
	}
	return osFile{f}
}

func rewrite(f file, from, to int64) error {
	b := make([]byte, min(1<<20, to-from))
	for ; from < to; from += int64(len(b)) {
		b = b[:min(int64(len(b)), to-from)]
		if _, err := f.ReadAt(b, from); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, from); err != nil {
			return err
		}
	}
	return nil
}

// setAside copies the tail of a segment to a file of its own and makes that durable.
func (j *Journal) setAside(seg *segment, off int64) (err error) {
	name := fmt.Sprintf("%s%s%d", seg.path, tornMark, off)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	for i := 2; errors.Is(err, os.ErrExist); i++ { // an earlier crash at the same place: keep both
		f, err = os.OpenFile(fmt.Sprintf("%s.%d", name, i), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.NewSectionReader(seg.r, off, seg.size-off))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(j.dir)
}

// reserve creates the reserve if it is missing or too small. Without room for it the journal works all the same.
func (j *Journal) reserve() {
	if j.opt.BallastBytes < 0 {
		return
	}
	path := filepath.Join(j.dir, ballast)
	if fi, err := os.Stat(path); err == nil && fi.Size() >= j.opt.BallastBytes {
		return
	}
	err := func() error {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		err = allocate(f, j.opt.BallastBytes)
		if err == nil {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	}()
	if err != nil {
		_ = os.Remove(path) // a part of it must not take the last space
		j.noRes.Store(true)
		j.log.Error("journal: no room for the reserve that keeps it writable on a full disk; free space and restart",
			"path", path, "bytes", j.opt.BallastBytes, "error", err)
	}
}

// release gives the reserve back to the file system and reports whether there was one.
func (j *Journal) release() bool {
	path := filepath.Join(j.dir, ballast)
	if j.opt.BallastBytes < 0 || os.Remove(path) != nil {
		return false
	}
	j.noRes.Store(true)
	j.log.Error("journal: the disk is full, the reserve is now in use; free space and restart", "path", path, "bytes", j.opt.BallastBytes)
	return true
}

// withReserve runs do, and once more after releasing the reserve if there was no space.
func (j *Journal) withReserve(do func() error) error {
	err := do()
	if full(err) && j.release() {
		err = do()
	}
	return err
}

// BallastSpent reports whether the reserve for a full disk is gone. An operator must free space; the next Open makes
// a new reserve.
func (j *Journal) BallastSpent() bool { return j.noRes.Load() }

// Append writes the payloads as one batch and returns the sequence of the first when all of them are on disk. If at
// is not nil it must be at least as long as payloads and receives their positions. Payloads are not retained.
//
// Each payload has 1 byte to MaxPayload; if one has not, nothing is stored. The batch is held in memory once more
// while it is written, so the caller bounds its size.
//
// With ErrFull nothing was stored and the call may be repeated. After ErrFailed nobody knows whether the batch is on
// disk; the next Open decides, and either all or a leading part of it is in the journal then.
func (j *Journal) Append(payloads [][]byte, at []Position) (first uint64, err error) {
	if err := j.ready(payloads, at); err != nil {
		return 0, err
	}
	if j.size >= j.opt.SegmentBytes && j.tail.seq >= j.segs[len(j.segs)-1].first {
		if err := j.rotate(); err != nil {
			return 0, j.fail(err)
		}
	}
	seg, tail, end := j.segs[len(j.segs)-1].first, j.tail.clone(), j.size
	first = tail.seq + 1
	b := j.buf[:0]
	j.nonces = slices.Grow(j.nonces[:0], nonceLen*len(payloads))[:nonceLen*len(payloads)]
	_, _ = rand.Read(j.nonces) // never fails
	for i, p := range payloads {
		start := len(b)
		nonce := chain.Nonce(j.nonces[nonceLen*i:])
		link := tail.tip.Next(chain.Digest(nonce, p))
		hash := link.Hash()
		b = appendRecord(b, j.seed, link.Seq, first, &hash, &nonce, p)
		tail.advance(link.Seq, first, hash, end+int64(start))
		if at != nil {
			at[i] = Position{seg, tail.last}
		}
	}
	if j.buf = b; cap(b) > 8<<20 {
		j.buf = nil // do not keep the memory of a rare large batch
	}
	if err := j.write(b); err != nil {
		return 0, err
	}
	j.tail, j.size = tail, end+int64(len(b))
	j.mu.Lock()
	j.head, j.segs[len(j.segs)-1].size = j.tail, j.size
	j.mu.Unlock()
	return first, nil
}

func (j *Journal) ready(payloads [][]byte, at []Position) error {
	switch {
	case j.opt.ReadOnly:
		return ErrReadOnly
	case j.err != nil:
		return j.err
	case len(payloads) == 0:
		return errors.New("journal: append of no records")
	case at != nil && len(at) < len(payloads):
		return fmt.Errorf("journal: room for %d positions, %d records", len(at), len(payloads))
	}
	for i, p := range payloads {
		if len(p) == 0 || len(p) > MaxPayload {
			return fmt.Errorf("journal: record %d of %d has %d bytes, want 1 to %d", i+1, len(payloads), len(p), MaxPayload)
		}
	}
	return nil
}

// write puts a batch at the end of the last segment and makes it durable.
func (j *Journal) write(b []byte) error {
	err := j.writeAll(b)
	if full(err) && j.rewind() == nil && j.release() {
		err = j.writeAll(b)
		if full(err) {
			_ = j.rewind()
		}
	}
	switch {
	case j.err != nil: // a rewind failed
		return j.err
	case full(err):
		return fmt.Errorf("journal: %w: %w", ErrFull, err)
	case err != nil:
		return j.fail(fmt.Errorf("write: %w", err))
	}
	if err := j.f.Sync(); err != nil {
		return j.fail(fmt.Errorf("sync: %w", err))
	}
	return nil
}

func (j *Journal) writeAll(b []byte) error {
	n, err := j.f.WriteAt(b, j.size)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// rewind takes a partly written batch back. If that cannot be proven the journal is failed.
func (j *Journal) rewind() error {
	err := j.f.Truncate(j.size)
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		return j.fail(fmt.Errorf("take back a batch that did not fit: %w", err))
	}
	return nil
}

// fail remembers the first cause for good. A failed sync is never tried again: the kernel reports it once and may
// drop the data, so a second try can succeed with nothing on disk.
func (j *Journal) fail(cause error) error {
	if j.err == nil {
		j.err = fmt.Errorf("journal %s: %w: %w", j.dir, ErrFailed, cause)
		j.log.Error("journal: failed; nothing more is accepted", "dir", j.dir, "error", cause)
	}
	return j.err
}

// rotate begins a new segment. If there is no room for one the old segment simply goes on.
func (j *Journal) rotate() error {
	old := j.f
	err := j.addSegment(header{version: version, first: j.tail.seq + 1, prevLast: j.tail.last, hashes: slices.Clone(j.tail.tip.Hashes())})
	if errors.Is(err, errNoNewSegment) {
		j.log.Warn("journal: could not begin a new segment, the old one goes on", "dir", j.dir, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	return old.Close()
}

// errNoNewSegment is wrapped when a new segment could not even be prepared, so nothing has changed.
var errNoNewSegment = errors.New("new segment not possible now")

// addSegment creates a segment under another name and renames it when its header is on disk, so that a segment with
// half a header is damage and nothing else.
func (j *Journal) addSegment(h header) error {
	_, _ = rand.Read(h.salt[:]) // never fails
	path := filepath.Join(j.dir, segmentName(h.first))
	tmp := path + tmpSuffix
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w: %w", errNoNewSegment, err)
	}
	w := j.wrapped(f)
	abandon := func(err error) error {
		return errors.Join(fmt.Errorf("journal: create %s: %w", path, err), w.Close(), os.Remove(tmp))
	}
	if _, err := w.WriteAt(h.encode(), 0); full(err) {
		return abandon(fmt.Errorf("%w: %w", errNoNewSegment, err))
	} else if err != nil {
		return abandon(err)
	}
	if err := w.Sync(); err != nil {
		return abandon(err)
	}
	r, err := os.Open(tmp)
	if err != nil {
		return abandon(fmt.Errorf("%w: %w", errNoNewSegment, err))
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(abandon(err), r.Close())
	}
	if err := syncDir(j.dir); err != nil {
		return errors.Join(fmt.Errorf("journal: sync %s: %w", j.dir, err), w.Close(), r.Close())
	}
	j.f, j.seed, j.size = w, h.seed(), h.size()
	j.mu.Lock()
	j.segs = append(j.segs, segment{header: h, path: path, r: r, size: h.size()})
	j.mu.Unlock()
	return nil
}

// Head returns the sequence of the last record on disk, 0 if there is none, and its hash. Kept elsewhere, the pair
// proves later that the journal up to there is still the same.
func (j *Journal) Head() (seq uint64, hash chain.Hash) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.head.seq, j.head.hash
}

// Size returns the bytes on disk, without the reserve and tails set aside, and the number of segments.
func (j *Journal) Size() (bytes int64, segments int) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for i := range j.segs {
		bytes += j.segs[i].size
	}
	return bytes, len(j.segs)
}

// ReadAt reads the record at a position that Append or Replay gave and checks its checksum. The payload is the
// caller's.
func (j *Journal) ReadAt(pos Position) (Record, error) {
	j.mu.RLock()
	i, ok := find(j.segs, pos.Segment)
	if j.closed || !ok || pos.Offset < j.segs[i].header.size() || pos.Offset >= j.segs[i].size {
		closed := j.closed
		j.mu.RUnlock()
		if closed {
			return Record{}, fmt.Errorf("journal: %w", os.ErrClosed)
		}
		return Record{}, fmt.Errorf("journal: %w: segment %d, byte %d", ErrNoRecord, pos.Segment, pos.Offset)
	}
	seg := j.segs[i]
	j.mu.RUnlock()
	b, err := seg.recordAt(seg.r, seg.path, pos.Offset, seg.size)
	if err != nil {
		return Record{}, err
	}
	return Record{Seq: recordSeq(b), Batch: recordBatch(b), Pos: pos, Hash: seg.recordHash(b), Payload: seg.payload(b)}, nil
}

func find(segs []segment, first uint64) (int, bool) {
	return slices.BinarySearchFunc(segs, first, func(s segment, first uint64) int { return cmp.Compare(s.first, first) })
}

// Replay calls fn with every record from sequence from up to the last one on disk at the time of the call, in order.
// The payload is valid until fn returns. An error of fn ends the replay and is returned as it is. Replay checks
// checksums, sequence and chain on its way; damage is a *CorruptError, and fn has then seen every record before it.
func (j *Journal) Replay(from uint64, fn func(Record) error) error {
	segs, head, err := j.view()
	if err != nil {
		return err
	}
	i, ok := find(segs, from)
	if !ok && i > 0 {
		i--
	}
	for ; i < len(segs) && from <= head; i++ {
		s := scan(segs[i].r, segs[i].path, &segs[i].header, segs[i].size)
		for {
			rec, err := s.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if rec.Seq < from {
				continue
			}
			if err := fn(rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// view returns the segments and the last sequence as they are on disk now.
func (j *Journal) view() ([]segment, uint64, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.closed {
		return nil, 0, fmt.Errorf("journal: %w", os.ErrClosed)
	}
	return slices.Clone(j.segs), j.head.seq, nil
}

// Snapshot hands a consistent copy of the journal up to and including sequence upTo (0 means the last one on disk) to
// dst, file by file, while appends go on. dst must read r to its end, which is size bytes. The files, written under
// the names given, are a complete journal that Open and Verify accept.
func (j *Journal) Snapshot(upTo uint64, dst func(name string, r io.Reader, size int64) error) error {
	segs, head, err := j.view()
	if err != nil {
		return err
	}
	if upTo > head {
		return fmt.Errorf("journal: snapshot up to record %d: the last one is %d", upTo, head)
	}
	upTo = cmp.Or(upTo, head)
	for i := range segs {
		seg := &segs[i]
		if i > 0 && seg.first > upTo {
			break
		}
		size := seg.size
		last := head
		if i+1 < len(segs) {
			last = segs[i+1].first - 1
		}
		if upTo < last { // the copy ends inside this segment
			s := scan(seg.r, seg.path, &seg.header, seg.size)
			for s.seq < upTo {
				if _, err := s.next(); err != nil {
					return err
				}
			}
			size = s.off
		}
		if err := dst(filepath.Base(seg.path), io.NewSectionReader(seg.r, 0, size), size); err != nil {
			return fmt.Errorf("journal: snapshot of %s: %w", filepath.Base(seg.path), err)
		}
	}
	return nil
}

// Close releases the files and the lock. Everything that Append acknowledged is on disk already. Close must not
// overlap an Append; reads that overlap it fail with os.ErrClosed.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	var errs []error
	for i := range j.segs {
		errs = append(errs, j.segs[i].r.Close())
	}
	if j.f != nil {
		errs = append(errs, j.f.Close())
	}
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
	}
	if j.err == nil {
		j.err = fmt.Errorf("journal: %w", os.ErrClosed)
	}
	return errors.Join(errs...)
}
