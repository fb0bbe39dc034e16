package journal

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		appendUntilKilled(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// small has a new segment for almost every batch and no reserve.
var small = Options{SegmentBytes: 300, BallastBytes: -1}

func open(t *testing.T, dir string, o Options) *Journal {
	t.Helper()
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func shut(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// payload of a record, so that every test knows what belongs where.
func payload(seq uint64) []byte {
	return fmt.Appendf(nil, "record %d %s", seq, strings.Repeat("x", int(seq%7)*5))
}

// fillJournal appends one batch of each size and returns the positions of all records.
func fillJournal(t *testing.T, j *Journal, sizes ...int) (all []Position) {
	t.Helper()
	for _, n := range sizes {
		head, _ := j.Head()
		batch, at := make([][]byte, n), make([]Position, n)
		for i := range batch {
			batch[i] = payload(head + 1 + uint64(i))
		}
		first, err := j.Append(batch, at)
		if err != nil {
			t.Fatal(err)
		}
		if first != head+1 {
			t.Fatalf("batch begins with record %d, want %d", first, head+1)
		}
		all = append(all, at...)
	}
	return all
}

// expect checks that the journal holds exactly the records 1 to last.
func expect(t *testing.T, j *Journal, last uint64) {
	t.Helper()
	next := uint64(1)
	err := j.Replay(1, func(r Record) error {
		if r.Seq != next || !bytes.Equal(r.Payload, payload(next)) {
			return fmt.Errorf("record %d is %d %q", next, r.Seq, r.Payload)
		}
		next++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if next-1 != last {
		t.Fatalf("journal holds %d records, want %d", next-1, last)
	}
	if head, _ := j.Head(); head != last {
		t.Fatalf("head is %d, want %d", head, last)
	}
}

// image is a journal directory in memory, to be damaged and written again.
type image map[string][]byte

func load(t *testing.T, dir string) image {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	im := image{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		im[filepath.Base(f)] = b
	}
	return im
}

// build returns the image of a journal with batches of these sizes.
func build(t *testing.T, o Options, sizes ...int) image {
	t.Helper()
	dir := t.TempDir()
	j := open(t, dir, o)
	fillJournal(t, j, sizes...)
	shut(t, j)
	return load(t, dir)
}

// names are of fixed width, so their order is the order of the records.
func (im image) names() []string { return slices.Sorted(maps.Keys(im)) }

func (im image) last() string { n := im.names(); return n[len(n)-1] }

// with returns a copy in which one file has other bytes.
func (im image) with(name string, b []byte) image {
	c := maps.Clone(im)
	c[name] = b
	return c
}

func (im image) write(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range im {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
