package local

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/heed-sms/heed/connector/ledger/journal"
)

// Report is what Verify found.
type Report struct {
	Journal journal.Report
	// Index is how far the index stands for the journal; IndexBehind how many events it still lacks, which the next
	// start replays.
	Index       uint64
	IndexBehind uint64
	// Differences name what in the index is damaged or is not what the journal amounts to, at most maxDifferences.
	Differences []string
	// IndexSkipped says why the index was not looked at, "" if it was.
	IndexSkipped string
}

const maxDifferences = 20

// IndexInUse is the Report.IndexSkipped of a Verify beside a running daemon, which can be asked instead.
const IndexInUse = "the index is in use by a running heed"

// Sound reports whether nothing is wrong.
func (r Report) Sound() bool { return len(r.Differences) == 0 }

// Verify checks every byte of the journal in a data directory, and the index against what the journal amounts to. It
// changes nothing. Beside a running daemon, which has the index locked, only the journal is checked; the daemon
// itself checks both with [Ledger.Verify]. A damaged journal is a *journal.CorruptError, and one that is not what the
// anchors were taken from a *journal.AnchorError.
func Verify(ctx context.Context, dir string, progress func(done, total int64), anchors ...journal.Anchor) (Report, error) {
	var rep Report
	jdir := filepath.Join(dir, journalDir)
	var err error
	if rep.Journal, err = journal.Verify(jdir, progress, anchors...); err != nil {
		return rep, err
	}
	path := filepath.Join(dir, indexFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		rep.IndexSkipped = "there is no index; the next start computes it from the journal"
		return rep, nil
	}
	j, err := journal.Open(jdir, journal.Options{ReadOnly: true})
	if err != nil {
		return rep, err
	}
	defer j.Close()
	db, err := openReadOnly(path)
	if errors.Is(err, berrors.ErrTimeout) {
		rep.IndexSkipped = IndexInUse
		return rep, nil
	}
	if err != nil {
		rep.Differences = append(rep.Differences, err.Error())
		return rep, nil
	}
	defer closeBolt(db)
	if err := checkMetas(path, int64(db.Info().PageSize)); err != nil {
		rep.Differences = append(rep.Differences, err.Error())
	}
	return rep, compareIndex(ctx, db, j, &rep)
}

// Verify is the package's Verify from within the process that has the ledger open.
func (l *Ledger) Verify(ctx context.Context, progress func(done, total int64)) (Report, error) {
	var rep Report
	if err := l.catch(ctx); err != nil {
		return rep, err
	}
	var err error
	if rep.Journal, err = journal.Verify(filepath.Join(l.dir, journalDir), progress); err != nil {
		return rep, err
	}
	return rep, compareIndex(ctx, l.db, l.j, &rep)
}

// compareIndex computes the fold again, into a temporary index, as far as db says that it stands for, and compares.
func compareIndex(ctx context.Context, db *bbolt.DB, j *journal.Journal, rep *Report) error {
	dir, err := os.MkdirTemp("", "heed-verify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fresh, err := openBolt(filepath.Join(dir, indexFile))
	if err != nil {
		return err
	}
	defer closeBolt(fresh)
	fresh.NoSync = true // it is thrown away

	differ := func(format string, args ...any) {
		if len(rep.Differences) < maxDifferences {
			rep.Differences = append(rep.Differences, fmt.Sprintf(format, args...))
		}
	}
	// One read transaction sees one state of the index, however long this takes.
	err = view(db, func(tx *bbolt.Tx) error {
		if err := checkTree(tx); err != nil {
			differ("%v", err)
			return nil
		}
		pos, err := positionIn(tx)
		if err != nil {
			differ("%v", err)
			return nil
		}
		head, _ := j.Head()
		rep.Index = pos.seq
		if pos.seq > head {
			differ("%v", &JournalBehindError{Index: pos.seq, Journal: head})
			return nil
		}
		rep.IndexBehind = head - pos.seq
		if err := refold(ctx, fresh, j, pos, differ); err != nil {
			return err
		}
		if v, err := get(tx, bMeta, kFormat); err == nil && !bytes.Equal(v, []byte{formatVersion}) {
			differ("%v", &DamageError{string(bMeta), kFormat})
		}
		walk(tx, func(err error) bool {
			differ("%v", err)
			return len(rep.Differences) < maxDifferences
		})
		return view(fresh, func(want *bbolt.Tx) error {
			for _, b := range foldBuckets {
				compareBucket(b, tx.Bucket(b), want.Bucket(b), differ)
			}
			return nil
		})
	})
	if err != nil && ctx.Err() == nil {
		differ("%v", err)
		return nil
	}
	return err
}

func refold(ctx context.Context, fresh *bbolt.DB, j *journal.Journal, pos indexPosition, differ func(string, ...any)) error {
	var batch []folded
	flush := func() error {
		if len(batch) == 0 {
			return ctx.Err()
		}
		err := applyToIndex(fresh, batch)
		batch = batch[:0]
		return errors.Join(err, ctx.Err())
	}
	err := j.Replay(1, func(r journal.Record) error {
		if r.Seq > pos.seq {
			return errStop
		}
		if r.Seq == pos.seq && r.Hash != pos.hash {
			differ("%v", &JournalBehindError{Index: pos.seq, Differs: true})
		}
		e, err := decode(r)
		if err != nil {
			return err
		}
		if batch = append(batch, folded{e, r.Pos}); len(batch) < 8192 {
			return nil
		}
		return flush()
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	return flush()
}

func compareBucket(name []byte, have, want *bbolt.Bucket, differ func(string, ...any)) {
	if have == nil {
		differ("index: bucket %s is missing", name)
		return
	}
	h, w := have.Cursor(), want.Cursor()
	hk, hv := h.First()
	wk, wv := w.First()
	for hk != nil || wk != nil {
		c := bytes.Compare(hk, wk)
		if wk == nil {
			c = -1
		} else if hk == nil {
			c = 1
		}
		switch {
		case c < 0:
			differ("index: bucket %s has key %x, which the journal does not account for", name, hk)
			hk, hv = h.Next()
		case c > 0:
			differ("index: bucket %s lacks key %x", name, wk)
			wk, wv = w.Next()
		default:
			if !bytes.Equal(hv, wv) {
				differ("index: bucket %s, key %x: the value is not what the journal amounts to", name, hk)
			}
			hk, hv = h.Next()
			wk, wv = w.Next()
		}
	}
}

// Exists reports whether a data directory has a ledger.
func Exists(dir string) bool {
	segments, err := filepath.Glob(filepath.Join(dir, journalDir, "*.journal"))
	return err == nil && len(segments) > 0
}

// Rebuild sets the index of a data directory aside and computes it again from the journal. No daemon may be
// running. It also clears a JournalBehindError, after which the missing events are missing for good.
func Rebuild(dir string, o Options) error {
	if !Exists(dir) {
		return fmt.Errorf("there is no journal in %s", dir)
	}
	path := filepath.Join(dir, indexFile)
	db, err := openBolt(path)
	if errors.Is(err, berrors.ErrTimeout) {
		return fmt.Errorf("index %s is locked by another process: stop the running heed first", path)
	}
	if err == nil {
		if err := closeBolt(db); err != nil {
			return err
		}
	}
	if err := os.Rename(path, path+".before-rebuild"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("set the old index aside: %w", err)
	}
	l, err := Open(dir, o)
	if err != nil {
		return err
	}
	return l.Close()
}

// Backup writes a tar archive of the journal as it is now, from which everything else is computed. To restore,
// unpack it into an empty data directory.
func (l *Ledger) Backup(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	err := l.j.Snapshot(0, func(name string, r io.Reader, size int64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr := &tar.Header{Name: journalDir + "/" + name, Mode: 0o600, Size: size, ModTime: l.now(), Format: tar.FormatPAX}
		if err := tw.WriteHeader(hdr); err != nil {
			return err
		}
		_, err := io.Copy(tw, r)
		return err
	})
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return tw.Close()
}
