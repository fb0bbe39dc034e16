package dropin_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/heed-sms/heed/sms/twilio/twiliofake"
)

// Twilio's Node library, unmodified, gets from heed what it gets from Twilio's emulator: the same objects with the same
// keys, and its usual exceptions.
func TestTwiliosNodeLibraryCannotTellHeedFromTwilio(t *testing.T) {
	dir := os.Getenv("HEED_NODE_MODULES")
	if _, err := os.Stat(filepath.Join(dir, "twilio")); dir == "" || err != nil {
		t.Skip("set HEED_NODE_MODULES to a node_modules directory with twilio to run this test (npm install twilio)")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("install node to run this test")
	}
	r, inner := behind(t)
	r.real.Store(true)
	fake := twiliofake.New(twiliofake.Options{Seed: 8, AccountSID: sid, MessagingServiceSID: service})
	t.Cleanup(fake.Close)
	ts := httptest.NewServer(fake.Handler())
	t.Cleanup(ts.Close)
	for _, f := range []*twiliofake.Server{fake, inner} {
		if _, err := f.Text(eve, ours, "STOP"); err != nil {
			t.Fatal(err)
		}
	}
	run := func(base, password string) map[string]any {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), node, "testdata/twilio.mjs", base, sid, password, ours, ada, eve, service)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, stderr.String())
		}
		var got map[string]any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return got
	}
	heed, vendor := run(r.url, "sendandread"), run(ts.URL, fake.AuthToken())
	at := func(m map[string]any, keys ...string) any {
		var v any = m
		for _, k := range keys {
			v, _ = v.(map[string]any)[k]
		}
		return v
	}
	if at(heed, "optedOut", "code") != 21610.0 || at(heed, "optedOut", "status") != 400.0 || at(heed, "optedOut", "exception") != "RestException" {
		t.Errorf("a send to an opted-out number: %v", heed["optedOut"])
	}
	for name := range vendor {
		h, v := heed[name].(map[string]any), vendor[name].(map[string]any)
		// What differs between any two accounts and moments.
		for _, m := range []map[string]any{h, v} {
			if o, ok := m["object"].(map[string]any); ok {
				for _, k := range []string{"sid", "uri", "subresourceUris", "dateCreated", "dateUpdated", "dateSent"} {
					if _, there := o[k]; !there {
						t.Errorf("%s: no %s", name, k)
					}
					delete(o, k)
				}
				if name == "fetched" { // the emulator delivers at once, and heed waits to be told
					delete(o, "status")
				}
			}
		}
		if diff := cmp.Diff(v, h); diff != "" {
			t.Errorf("%s (-Twilio's emulator, +heed):\n%s", name, diff)
		}
	}
}
