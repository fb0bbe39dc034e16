package salesforcefake

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestJsforce runs the client that most JavaScript for Salesforce is written with, unmodified.
func TestJsforce(t *testing.T) {
	dir := os.Getenv("HEED_NODE_MODULES")
	if _, err := os.Stat(filepath.Join(dir, "jsforce")); dir == "" || err != nil {
		t.Skip("set HEED_NODE_MODULES to a node_modules directory with jsforce to run this test (npm install jsforce)")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("install node to run this test")
	}
	c := start(t, Options{Now: time.Now})
	c.org.Seed(6000, 3)
	knob(t, c.org, func(k *Knobs) { k.BulkPolls = 1 })
	contacts := c.org.Count("Contact")
	cmd := exec.CommandContext(t.Context(), node, "testdata/jsforce.mjs", c.srv.URL, "heed-sandbox-client", "heed-sandbox-secret", "admin@sandbox.example", "heed-sandbox-password")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	raw, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	url := c.srv.URL + "/id/" + c.org.OrgID() + "/"
	bulk, _ := got["bulkQuery"].([]any)
	if len(bulk) != 3 || bulk[0].(float64) < 199 || bulk[1] != true || bulk[2] != true {
		t.Errorf("bulkQuery: %v", bulk)
	}
	for what, want := range map[string]any{
		"app":           map[string]any{"id": c.org.UserID(), "organizationId": c.org.OrgID(), "url": url + c.org.UserID()},
		"person":        map[string]any{"id": c.org.AdminID(), "organizationId": c.org.OrgID(), "url": url + c.org.AdminID()},
		"identity":      "admin@sandbox.example",
		"wrongPassword": "invalid_grant",
		"total":         contacts, "queried": contacts, "pages": (contacts + 1999) / 2000,
		"described": "boolean",
		"created":   true, "updated": true, "deleted": true,
		"read":          []any{"Jsforce", true, true},
		"updateDeleted": "ENTITY_IS_DELETED", "badField": "INVALID_FIELD",
		"collection":  []any{200, 199, "ENTITY_IS_DELETED"},
		"bulkIngest":  []any{300, 1, 0, "ENTITY_IS_DELETED:entity is deleted:--"},
		"bulkAll":     contacts,
		"bulkTitle":   `by "bulk", 2`,
		"bulkRefused": "FUNCTIONALITY_NOT_ENABLED",
		"mapping":     "SMS_Opt_Out_Date__c SMS_Opt_Out_Source__c SMS_Opt_Out_Text__c SMS_Opt_Out__c",
		"renewed":     1,
	} {
		if fmt.Sprint(got[what]) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got[what], want)
		}
	}
}
