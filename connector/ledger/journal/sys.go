//go:build unix

package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// file is what the journal needs of the segment it appends to. Tests put a failing one in its place.
type file interface {
	io.ReaderAt
	io.WriterAt
	Sync() error // makes bytes and length durable
	Truncate(size int64) error
	Close() error
}

type osFile struct{ *os.File }

func (f osFile) Sync() error { return datasync(f.File) }

// control runs a system call on the file's descriptor, again if a signal interrupted it.
func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		for {
			if err = call(int(fd)); err != unix.EINTR {
				return
			}
		}
	})
	return errors.Join(cerr, err)
}

func fill(f *os.File, n int64) error {
	zero := make([]byte, 1<<20)
	for off := int64(0); off < n; off += int64(len(zero)) {
		if _, err := f.WriteAt(zero[:min(int64(len(zero)), n-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// full reports whether an error means that the disk, the quota or the inode table has no room.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lock takes the directory for this process. The lock goes away with the process, however it ends.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	err = control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		b := make([]byte, 32)
		n, _ := f.ReadAt(b, 0) // only for the message
		_ = f.Close()
		pid := strings.TrimSpace(string(b[:n]))
		if _, err := strconv.Atoi(pid); err != nil {
			pid = "unknown"
		}
		return nil, fmt.Errorf("%w: %s is held by process %s; is another heed running?", ErrLocked, path, pid)
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		// A full disk must not keep heed from starting: the lock is held, the number is only for the message.
		if _, werr := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); werr != nil && !full(werr) {
			err = werr
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("journal: lock %s: %w", path, err)
	}
	return f, nil
}
