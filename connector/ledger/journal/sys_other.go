//go:build unix && !linux

package journal

import "os"

func datasync(f *os.File) error { return f.Sync() }

func allocate(f *os.File, n int64) error { return fill(f, n) }
