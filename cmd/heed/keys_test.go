package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAKeyIsMadeShownOnceAndRevokedInARunningDaemon(t *testing.T) {
	w, path := newSandbox(t, 0)
	p := startServe(t, w, path)
	ask := func(key string) int {
		t.Helper()
		code, _ := w.post(t, w.publicURL()+"/v1/decisions", key, map[string]any{"numbers": []string{"+12065550142"}})
		return code
	}
	out, errOut, code := heed(t, "", "keys", "add", "nightly-job", "--may", "read", "--why", "a report", "-c", path)
	key := strings.TrimSpace(out)
	if code != 0 || len(key) != 36 || !strings.Contains(errOut, "not shown again") {
		t.Fatalf("exit %d, %q, %q", code, out, errOut)
	}
	if got := ask(key); got != http.StatusOK {
		t.Errorf("the new key gets HTTP %d", got)
	}
	if code, _ := w.post(t, w.publicURL()+"/v1/messages", key, map[string]any{"to": "+12065550142", "body": "x"}); code != http.StatusForbidden {
		t.Errorf("a send with a key that may only read: HTTP %d", code)
	}
	out, _, code = heed(t, "", "keys", "list", "--json", "-c", path)
	var keys []struct{ Name, In, By, Why string }
	if err := json.Unmarshal([]byte(out), &keys); err != nil || code != 0 || len(keys) != 2 || keys[0].In != "configuration" || keys[1].Name != "nightly-job" || keys[1].Why != "a report" || keys[1].By == "" {
		t.Errorf("exit %d, %v, %s", code, err, out)
	}
	for _, args := range [][]string{{"add", "nightly-job", "--may", "read"}, {"add", "workflow", "--may", "read"}, {"add", "x", "--may", "fly"}, {"add", "a b", "--may", "read"}, {"revoke", "workflow"}, {"revoke", "nobody"}} {
		if _, errOut, code := heed(t, "", append([]string{"keys", "-c", path}, args...)...); code != 1 || errOut == "" {
			t.Errorf("%v: exit %d, %q", args, code, errOut)
		}
	}
	if _, _, code := heed(t, "", "keys", "add", "x", "-c", path); code != 2 {
		t.Errorf("a key without rights: exit %d", code)
	}
	if _, _, code := heed(t, "", "keys", "revoke", "nightly-job", "-c", path); code != 0 {
		t.Errorf("revoke: exit %d", code)
	}
	if got := ask(key); got != http.StatusUnauthorized {
		t.Errorf("the revoked key gets HTTP %d", got)
	}
	second, _, code := heed(t, "", "keys", "add", "nightly-job", "--may", "read", "-c", path) // the name is free again
	if code != 0 {
		t.Fatalf("exit %d", code)
	}
	p.stop(t)
	// Neither key is anywhere on disk, and the new one opens the door after a restart as well.
	err := filepath.WalkDir(filepath.Join(filepath.Dir(path), w.dataDir), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), key) || strings.Contains(string(b), strings.TrimSpace(second)) {
			t.Errorf("%s holds a key", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p = startServe(t, w, path)
	if got := ask(strings.TrimSpace(second)); got != http.StatusOK {
		t.Errorf("after a restart the key gets HTTP %d", got)
	}
	if got := ask(key); got != http.StatusUnauthorized {
		t.Errorf("after a restart the revoked key gets HTTP %d", got)
	}
	p.stop(t)
}
