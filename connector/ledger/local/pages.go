package local

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// checkPages reads the tree of pages of a bbolt file without bbolt, which follows a damaged page wherever it leads:
// round in circles for ever, or out of its memory map, and in goroutines whose panics nobody can catch. It checks that
// every page is what it says, that none is reached twice, that everything on it lies within it, and that the keys are
// in order. What the values are worth is not its business.
//
// The format is bbolt's version 2, unchanged since 2013: go.etcd.io/bbolt/internal/common, page.go, meta.go and
// inode.go. txid names the transaction whose tree is to be read, 0 the newest.
func checkPages(r io.ReaderAt, txid uint64) error {
	head := make([]byte, 4096)
	if _, err := r.ReadAt(head, 0); err != nil {
		return fmt.Errorf("index is damaged: read the first page: %w", err)
	}
	p := pages{r: r, seen: map[uint64]bool{}}
	var root uint64
	found := uint64(0)
	// The second of the two meta pages begins where the first one ends; if that one is damaged its size is not known.
	for size := int64(1 << 10); size <= 64<<10; size <<= 1 {
		for _, off := range []int64{0, size} {
			m := make([]byte, metaEnd)
			if _, err := r.ReadAt(m, off); err != nil || !validMeta(m) || int64(le.Uint32(m[24:])) != size {
				continue
			}
			if id := le.Uint64(m[64:]); id >= found && (txid == 0 || id == txid) {
				found, p.size, p.end, root = id, size, le.Uint64(m[56:]), le.Uint64(m[32:])
			}
		}
	}
	if p.size == 0 {
		return fmt.Errorf("index is damaged: no meta page is readable")
	}
	var last []byte
	return p.visit(root, nil, nil, &last)
}

// checkMetas checks both meta pages of an index that nobody writes to. With one of them damaged bbolt goes on from the
// other, and if that is the older one then the last transaction is gone without a word.
func checkMetas(path string, pageSize int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range int64(2) {
		m := make([]byte, metaEnd)
		if _, err := f.ReadAt(m, i*pageSize); err != nil || !validMeta(m) || le.Uint64(m) != uint64(i) || le.Uint16(m[8:]) != metaPage {
			return fmt.Errorf("index is damaged: meta page %d: its checksum does not match; the last transaction may be missing", i)
		}
	}
	return nil
}

var le = binary.LittleEndian

const (
	pageHeader  = 16
	metaEnd     = pageHeader + 64
	branchPage  = 1
	leafPage    = 2
	metaPage    = 4
	bucketValue = 1
)

func validMeta(m []byte) bool {
	h := fnv.New64a()
	_, _ = h.Write(m[pageHeader : pageHeader+56])
	return le.Uint32(m[16:]) == 0xED0CDAED && le.Uint32(m[20:]) == 2 && h.Sum64() == le.Uint64(m[72:])
}

type pages struct {
	r    io.ReaderAt
	size int64
	end  uint64 // first page number that is not in use
	seen map[uint64]bool
}

// visit checks the page with a number and all below it. Its keys must lie in [min, max) and after last.
func (p *pages) visit(id uint64, min, max []byte, last *[]byte) error {
	bad := func(what string) error { return fmt.Errorf("index is damaged: page %d: %s", id, what) }
	if id < 2 || id >= p.end {
		return bad("outside the file")
	}
	b := make([]byte, p.size)
	if _, err := p.r.ReadAt(b, int64(id)*p.size); err != nil {
		return bad(err.Error())
	}
	overflow := uint64(le.Uint32(b[12:]))
	if le.Uint64(b) != id || id+overflow >= p.end {
		return bad("not the page that belongs here")
	}
	for i := range overflow + 1 {
		if p.seen[id+i] {
			return bad("reached twice")
		}
		p.seen[id+i] = true
	}
	if overflow > 0 {
		b = make([]byte, p.size*int64(overflow+1))
		if _, err := p.r.ReadAt(b, int64(id)*p.size); err != nil {
			return bad(err.Error())
		}
	}
	return p.elements(id, b, min, max, last)
}

// elements checks what is on a page; b is all of it.
func (p *pages) elements(id uint64, b, min, max []byte, last *[]byte) error {
	bad := func(what string) error { return fmt.Errorf("index is damaged: page %d: %s", id, what) }
	if len(b) < pageHeader {
		return bad("cut off")
	}
	kind, count := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	if kind != branchPage && kind != leafPage || kind == branchPage && count == 0 {
		return bad("neither branch nor leaf")
	}
	if pageHeader+16*count > len(b) {
		return bad("more elements than fit")
	}
	// part returns n bytes at an offset from an element.
	part := func(at int, off, n uint32) []byte {
		from := uint64(at) + uint64(off)
		if from+uint64(n) > uint64(len(b)) {
			return nil
		}
		return b[from : from+uint64(n)]
	}
	for i := range count {
		at := pageHeader + 16*i
		e := b[at : at+16]
		if kind == branchPage {
			key := part(at, le.Uint32(e), le.Uint32(e[4:]))
			next := max
			if i+1 < count {
				f := b[at+16 : at+32]
				next = part(at+16, le.Uint32(f), le.Uint32(f[4:]))
			}
			if key == nil || i+1 < count && next == nil || min != nil && bytes.Compare(key, min) < 0 {
				return bad("key out of place")
			}
			if err := p.visit(le.Uint64(e[8:]), key, next, last); err != nil {
				return err
			}
			continue
		}
		key, value := part(at, le.Uint32(e[4:]), le.Uint32(e[8:])), part(at, le.Uint32(e[4:])+le.Uint32(e[8:]), le.Uint32(e[12:]))
		if len(key) == 0 || value == nil || *last != nil && bytes.Compare(*last, key) >= 0 ||
			min != nil && bytes.Compare(key, min) < 0 || max != nil && bytes.Compare(key, max) >= 0 {
			return bad("key or value out of place")
		}
		*last = key
		switch le.Uint32(e) {
		case 0:
			continue
		case bucketValue:
		default:
			return bad("neither value nor bucket")
		}
		if len(value) < 16 {
			return bad("bucket cut off")
		}
		var within []byte
		var err error
		if root := le.Uint64(value); root != 0 {
			err = p.visit(root, nil, nil, &within)
		} else if inline := value[16:]; len(inline) < pageHeader || le.Uint16(inline[8:]) != leafPage {
			err = bad("small bucket is not a leaf")
		} else {
			err = p.elements(id, inline, nil, nil, &within)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
