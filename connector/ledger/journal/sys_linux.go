package journal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes a file's bytes and length durable, but not its times.
func datasync(f *os.File) error { return control(f, unix.Fdatasync) }

// allocate gives the file n bytes of disk space that nothing else can take.
func allocate(f *os.File, n int64) error {
	err := control(f, func(fd int) error { return unix.Fallocate(fd, 0, 0, n) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fill(f, n)
	}
	return err
}
