package local_test

import (
	"os"
	"path/filepath"
	"testing"
)

const childDir = "HEED_TEST_LEDGER_DIR"

func child(dir string) { os.Exit(0) }

func copyTree(t testing.TB, from, to, name string) {
	t.Helper()
	src, dst := filepath.Join(from, name), filepath.Join(to, name)
	fi, err := os.Stat(src)
	if err == nil && fi.IsDir() {
		err = os.CopyFS(dst, os.DirFS(src))
	} else if err == nil {
		var b []byte
		if b, err = os.ReadFile(src); err == nil {
			err = os.WriteFile(dst, b, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
