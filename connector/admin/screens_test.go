package admin_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/heed-sms/heed/connector/people"
)

// screens are all pages that a person can come to in the world of newWorld.
func screens() map[string]string {
	return map[string]string{
		"status": "/", "optouts": "/optouts", "optouts-none": "/optouts?ends=9999", "number": "/numbers/" + person(542).String(), "number-unknown": "/numbers/+14155550177", "number-parked": "/numbers/" + person(733).String(),
		"holds": "/holds", "messages": "/messages", "messages-sent": "/messages?status=sent", "work": "/work", "reports": "/reports", "report": "/reports/rec_20260318T060000", "report-partial": "/reports/rec_20260313T060000",
		"analytics": "/analytics", "bulk": "/bulk", "audit": "/audit", "settings": "/settings", "not-found": "/numbers/nobody",
	}
}

// TestScreens writes a picture of each screen, light, dark and on a telephone, into a directory:
//
//	HEED_SCREENSHOTS=/tmp/screens go test -run TestScreens ./connector/admin
func TestScreens(t *testing.T) {
	dir := os.Getenv("HEED_SCREENSHOTS")
	if dir == "" {
		t.Skip("set HEED_SCREENSHOTS to a directory to have pictures of each screen there (make screenshots)")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := newWorld(t)
	b := h.tab(t, withScript).signedIn(h.person("maya.ortiz@acme.example", people.Admin))
	b.expected = "the server responded with a status of 404"
	shoot := func(name string) {
		t.Helper()
		for _, theme := range []string{"light", "dark"} {
			b.theme(theme)
			for size, width := range map[string]int64{"": 1200, "-phone": 320} {
				b.size(width, 800)
				png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
				b.check(err)
				b.check(os.WriteFile(filepath.Join(dir, name+"-"+theme+size+".png"), png, 0o644))
			}
		}
	}
	for name, path := range screens() {
		b.open(path)
		shoot(name)
		b.quiet()
	}
	b = h.tab(t, withScript) // a stranger
	b.open("/signin")
	shoot("signin")
}
