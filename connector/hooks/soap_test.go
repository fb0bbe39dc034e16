package hooks_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// node runs a script with a module from HEED_NODE_MODULES, or skips the test.
func node(t *testing.T, module, script, stdin string, args ...string) string {
	t.Helper()
	dir := os.Getenv("HEED_NODE_MODULES")
	if _, err := os.Stat(filepath.Join(dir, module)); dir == "" || err != nil {
		t.Skipf("set HEED_NODE_MODULES to a node_modules directory with %s to run this test (npm install %s)", module, module)
	}
	bin, err := exec.LookPath("node")
	if err != nil {
		t.Skip("install node to run this test")
	}
	cmd := exec.CommandContext(t.Context(), bin, append([]string{script}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	return string(out)
}

// A SOAP client that somebody else generated from the vendor's description gets its Ack, and its refusals.
func TestASoapClientGeneratedFromTheVendorsWSDLGetsItsAck(t *testing.T) {
	r := newRig(t)
	server := httptest.NewServer(r.mux)
	t.Cleanup(server.Close)
	send := func(org, id string) (ack bool, fault string, status int) {
		t.Helper()
		message, err := json.Marshal(map[string]any{
			"OrganizationId": org, "ActionId": "04k000000000001AAA", "SessionId": nil,
			"EnterpriseUrl": "https://acme.my.salesforce.com/services/Soap/c/62.0", "PartnerUrl": "https://acme.my.salesforce.com/services/Soap/u/62.0",
			"Notification": []any{map[string]any{"Id": id, "sObject": map[string]any{
				"attributes": map[string]any{"xsi_type": map[string]string{"type": "Contact", "xmlns": "urn:sobject.enterprise.soap.sforce.com", "prefix": "sf"}},
				"Id":         "003000000000001AAA", "MobilePhone": "+12065550100", "SMS_Body__c": "héllo <&>", "SMS_Opt_Out__c": false,
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		out := node(t, "soap", "testdata/soap.mjs", string(message), "../../crm/salesforce/outbound/testdata/contact.wsdl", server.URL+path+secret)
		var got struct {
			Ack    bool   `json:"ack"`
			Fault  string `json:"fault"`
			Status int    `json:"status"`
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return got.Ack, got.Fault, got.Status
	}
	if ack, fault, _ := send(orgID, "04l000000000001AAA"); !ack || fault != "" {
		t.Fatalf("ack %v, fault %q", ack, fault)
	}
	if ack, fault, status := send("00D000000000009EAA", "04l000000000002AAA"); ack || fault != "unknown organization" || status != 500 {
		t.Errorf("another organisation: ack %v, fault %q, HTTP %d", ack, fault, status)
	}
	if n := r.head(); n != 1 {
		t.Errorf("%d events, want one", n)
	}
	if err := r.queue.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sent := r.provider.Sent(); len(sent) != 1 || sent[0].To != "+12065550100" || sent[0].Body != "héllo <&>" {
		t.Errorf("sent %+v", sent)
	}
}
