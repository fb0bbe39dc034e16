package connector_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/heed-sms/heed/connector/consent"
)

// The same history with heed killed in the middle of it, several times. What nobody was told of may have happened or
// not; what was acknowledged still counts in the next life.
func TestAnAcknowledgedStopOutlivesAKill(t *testing.T) {
	const clients, each, kills = 200, 36, 5
	w := newWorld(t)
	random := rand.New(rand.NewPCG(w.seed, 1<<32))
	w.kills, w.killer = map[int64]bool{}, make(chan struct{}, kills)
	for i := range int64(kills) { // somewhere in each sixth but the first
		const part = clients * each / (kills + 1)
		w.kills[(i+1)*part+random.Int64N(part)] = true
	}
	p := w.open(t.TempDir())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(clients, each)
	}()
	for range kills {
		<-w.killer
		p = p.kill(leftovers(random.IntN(3)))
	}
	<-done
	w.check()
}

// leftovers is what a kill leaves of the index; the journal it leaves as it is.
type leftovers int

const (
	wholeIndex leftovers = iota // as the file was when the process died
	oldIndex                    // as it was when the process began, far behind the journal
	noIndex                     // lost; it is computed again
)

// kill ends the process as kill -9 does, with clients in the middle of their requests, and lets the next one serve.
// What the dying process still does is not seen by anybody, nor by the next: its files are those of the moment.
func (p *process) kill(left leftovers) *process {
	t := p.t
	t.Helper()
	p.dead.Store(true) // before the copy: whatever was acknowledged until now is in it
	dir := t.TempDir()
	switch left {
	case wholeIndex:
		// The index is copied before the journal, which is always ahead of it.
		if err := os.WriteFile(filepath.Join(dir, "index.db"), snapshot(t, filepath.Join(p.dir, "index.db")), 0o600); err != nil {
			t.Fatal(err)
		}
	case oldIndex:
		if p.birth != nil {
			if err := os.WriteFile(filepath.Join(dir, "index.db"), p.birth, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	copyJournal(t, filepath.Join(p.dir, "journal"), filepath.Join(dir, "journal"))
	p.quit()
	next := p.open(dir)
	closed := 0
	for _, n := range p.numbers {
		call := p.tick()
		d := next.ledger.Decide(n)
		next.saw(opDecide, supervisor, n, call, d.Verdict == consent.Allow)
		if d.Verdict != consent.Allow {
			closed++
		}
	}
	t.Logf("killed at operation %d, leftovers %d: %d numbers closed", p.finished.Load(), left, closed)
	p.current.Store(next)
	close(p.replaced)
	return next
}

// copyJournal copies a journal that is being appended to. Files come in the order of their names, which is that of the
// events in them, so the copy ends somewhere and has no gaps before.
func copyJournal(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(from, f.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // the next segment, which had no name of its own yet when the process died
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// supervisor is the client that looks at every number before the others are let in.
const supervisor = 200

// snapshot returns a file's content as it was at one moment, while it is being written to: if two readings are equal,
// that is what the file was between them, because an index is never what it was before.
func snapshot(t *testing.T, path string) []byte {
	t.Helper()
	before, err := os.ReadFile(path)
	for range 1000 {
		after, again := os.ReadFile(path)
		if err = errors.Join(err, again); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(before, after) {
			return after
		}
		before = after
	}
	t.Fatal("the index never stood still")
	return nil
}
