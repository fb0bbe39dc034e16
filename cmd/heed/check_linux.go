package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// checkFileSystem refuses network file systems, whose locks and syncs a ledger cannot rely on, and warns of low space.
func checkFileSystem(part, dir string) []finding {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil
	}
	var out []finding
	switch st.Type {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		out = append(out, finding{Part: part, What: dir + " is on a network file system", Hint: "move data_dir to a local disk: locks and syncs are not reliable there"})
	}
	if st.Blocks > 0 && st.Bavail*10 < st.Blocks {
		out = append(out, finding{Part: part, What: fmt.Sprintf("only %d %% of the disk is free", st.Bavail*100/st.Blocks), Hint: "free some space, or move data_dir"})
	}
	return out
}
