package admin_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/heed-sms/heed/connector/people"
)

// axe returns the accessibility checker (axe-core, MPL-2.0, https://github.com/dequelabs/axe-core), which no part of heed
// contains.
func axe(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("HEED_NODE_MODULES")
	if dir == "" {
		t.Skip("set HEED_NODE_MODULES to a node_modules directory with axe-core to run this test (npm install axe-core)")
	}
	b, err := os.ReadFile(filepath.Join(dir, "axe-core", "axe.min.js"))
	if err != nil {
		t.Skip("HEED_NODE_MODULES has no axe-core (npm install axe-core): ", err)
	}
	return string(b)
}

// violation is what axe finds.
type violation struct {
	ID, Impact, Help string
	Nodes            []struct {
		HTML           string
		FailureSummary string
	}
}

// checkAxe fails the test for whatever shuts somebody out of the page as it is now.
func (b *tab) checkAxe(script, what string) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](script))
	raw, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations))`, chromedp.EvalAwaitPromise))
	b.check(err)
	var found []violation
	b.check(json.Unmarshal([]byte(raw), &found))
	for _, v := range found {
		if v.Impact != "serious" && v.Impact != "critical" {
			continue
		}
		for _, n := range v.Nodes {
			b.t.Errorf("%s: %s: %s (%s)\n%.300s\n%s", what, v.Impact, v.Help, v.ID, n.HTML, n.FailureSummary)
		}
	}
}

// fits fails the test if people have to scroll the page sideways.
func (b *tab) fits(what string) {
	b.t.Helper()
	if wide := eval[string](b, tooWide); wide != "" {
		b.t.Errorf("%s: the page is wider than the screen: %s", what, wide)
	}
}

// tooWide names what stands out at the right of the screen, without what scrolls within itself.
const tooWide = `(() => {
	const page = document.scrollingElement;
	if (page.scrollWidth <= page.clientWidth) return "";
	const out = [...document.querySelectorAll("main *, header *, footer *")].filter(e => e.getBoundingClientRect().right > page.clientWidth + 1 && !e.parentElement.closest(".scroll, pre, textarea"));
	return page.scrollWidth + " > " + page.clientWidth + ": " + out.slice(0, 3).map(e => e.outerHTML.slice(0, 120)).join("\n");
})()`

// Each page, in light and dark, on a desk and at 320 px: nothing that axe calls serious or critical, and no scrolling
// sideways.
func TestNobodyIsShutOut(t *testing.T) {
	script := axe(t)
	h := newWorld(t)
	who := h.person("maya.ortiz@acme.example", people.Admin)
	t.Run("pages", func(t *testing.T) {
		t.Run("bulk, step by step", func(t *testing.T) {
			t.Parallel()
			b := h.tab(t, withScript).signedIn(who)
			b.open("/bulk")
			b.types("textarea[name=numbers]", "(415) 555-0166\ncall me\n(415) 555-0166\n")
			b.press("main button[type=submit]")
			b.sees("Nothing has been changed.")
			b.shutsNobodyOut(script, "the preview")
			b.types("input[name=why]", "test")
			b.types("input[name=count]", "1")
			b.press("form[action='/bulk/apply'] button")
			b.sees("1 number opted out")
			b.shutsNobodyOut(script, "the end")
			b.quiet()
		})
		for name, path := range h.everyScreen() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := h.tab(t, withScript)
				b.expected = "the server responded with a status of 4" // not found, gone
				if !strings.HasPrefix(path, "/signin") && !strings.HasPrefix(path, "/setup") {
					b.signedIn(who)
				}
				b.open(path)
				eval[int](b, "[...document.querySelectorAll('details')].map(d => d.open = true).length")
				b.shutsNobodyOut(script, path)
				b.quiet()
			})
		}
	})
}

// shutsNobodyOut looks at the page as it is now in both themes and on both sorts of screen.
func (b *tab) shutsNobodyOut(script, name string) {
	b.t.Helper()
	for _, look := range []struct {
		theme string
		width int64
	}{{"light", 1280}, {"dark", 1280}, {"dark", 320}, {"light", 320}} {
		b.theme(look.theme)
		b.size(look.width, 800)
		what := fmt.Sprint(name, " ", look.theme, " ", look.width)
		b.fits(what)
		if look.theme == "light" || look.width == 1280 { // colours do not depend on the width
			b.checkAxe(script, what)
		}
	}
}

// everyScreen returns all pages that people can come to, those before the sign-in among them.
func (h *house) everyScreen() map[string]string {
	h.t.Helper()
	all := maps.Clone(screens())
	all["signin"] = "/signin"
	link, _, err := h.ppl.Invite(h.t.Context(), "new@acme.example", people.Viewer, "root", "test")
	if err != nil {
		h.t.Fatal(err)
	}
	all["setup"] = strings.TrimPrefix(link, h.srv.URL)
	all["setup-used"] = "/setup?token=used"
	return all
}
