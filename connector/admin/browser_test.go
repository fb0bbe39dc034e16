package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// The page in Debian's Chromium. One process serves the whole package; each test has a tab with cookies of its own. Where
// there is no Chromium these tests are skipped.

var chromium struct {
	once sync.Once
	ctx  context.Context
	stop func()
	err  error
	dir  string
}

// stopBrowser ends the browser, if there is one. It is called when all tests have ended.
func stopBrowser() {
	if chromium.stop == nil {
		return
	}
	ctx, cancel := context.WithTimeout(chromium.ctx, 10*time.Second)
	defer cancel()
	_ = chromedp.Cancel(ctx)
	chromium.stop()
	_ = os.RemoveAll(chromium.dir)
}

func startBrowser() {
	var path string
	for _, name := range []string{os.Getenv("HEED_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if name == "" {
			continue
		}
		if path, chromium.err = exec.LookPath(name); chromium.err == nil {
			break
		}
	}
	if path == "" {
		return
	}
	if chromium.dir, chromium.err = os.MkdirTemp("", "heed-chromium-"); chromium.err != nil {
		return
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU, chromedp.UserDataDir(chromium.dir),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("lang", "en-US"),
		chromedp.Env("TZ=America/New_York", "LANG=C.UTF-8"))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	all, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(all)
	chromium.ctx, chromium.stop = ctx, func() { cancel(); stop() }
	chromium.err = chromedp.Do(ctx)
}

// mode is how a person uses the page.
type mode int

const (
	withScript mode = iota
	withoutScript
	byKeyboard // and nothing else
)

func (m mode) String() string {
	return [...]string{"with JavaScript", "without JavaScript", "by keyboard alone"}[m]
}

// tab is a person at a browser.
type tab struct {
	t    *testing.T
	h    *house
	ctx  context.Context
	mode mode

	mu       sync.Mutex
	trouble  []string // what no page may cause: dialogs, exceptions, reports of the policy
	expected string   // part of a console message that is no trouble
}

func (h *house) tab(t *testing.T, m mode) *tab {
	t.Helper()
	if underRace {
		t.Skip("the browser's tests are played without the race detector; it has nothing to add to them, and they are slow with it")
	}
	chromium.once.Do(startBrowser)
	if chromium.ctx == nil {
		t.Skip("no Chromium: install it (Debian: apt-get install chromium), or name one in HEED_CHROMIUM, to run this test")
	}
	if chromium.err != nil {
		t.Fatal("Chromium does not start: ", chromium.err)
	}
	b := &tab{t: t, h: h, mode: m}
	ctx, cancel := chromedp.NewContext(chromium.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.listen))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	var stop context.CancelFunc
	b.ctx, stop = context.WithTimeout(ctx, 60*time.Second)
	t.Cleanup(stop)
	_, err := chromedp.Call(b.ctx, log.Enable, cdp.Empty{})
	b.check(err)
	_, err = chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: m == withoutScript})
	b.check(err)
	b.size(1280, 900)
	return b
}

// listen notes what no page may cause.
func (b *tab) listen(ev any) {
	var what string
	switch e := ev.(type) {
	case *page.EventJavascriptDialogOpening:
		what = "dialog: " + e.Message
		go func() { // a listener must not call
			_, _ = chromedp.Call(b.ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: false})
		}()
	case *runtime.EventExceptionThrown:
		what = fmt.Sprintf("exception: %+v", e.ExceptionDetails)
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || strings.Contains(e.Entry.Text, "Content Security Policy") {
			what = string(e.Entry.Level) + ": " + e.Entry.Text + " " + e.Entry.URL
		}
	default:
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if what != "" && (b.expected == "" || !strings.Contains(what, b.expected)) {
		b.trouble = append(b.trouble, what)
	}
}

func (b *tab) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) do(a ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	b.check(chromedp.Do(b.ctx, a...))
}

func (b *tab) size(width, height int64) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, height))
}

// theme makes the browser prefer light or dark pages.
func (b *tab) theme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	b.check(err)
}

// eval returns what an expression is. It is the test's own look at the page and works where the page's scripts do not.
func eval[T any](b *tab, expression string, args ...any) T {
	b.t.Helper()
	for i, a := range args {
		args[i] = string(must(json.Marshal(a)))
	}
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](fmt.Sprintf(expression, args...)))
	if err != nil {
		b.t.Fatalf("%s: %v", fmt.Sprintf(expression, args...), err)
	}
	return v
}

// until waits until an expression is true. The page may be exchanged meanwhile.
func (b *tab) until(expression string, args ...any) {
	b.t.Helper()
	for i, a := range args {
		args[i] = string(must(json.Marshal(a)))
	}
	expression = fmt.Sprintf(expression, args...)
	ctx, cancel := context.WithTimeout(b.ctx, 15*time.Second)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && ok {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("never: %s (%v)\n%s", expression, err, eval[string](b, "location.href + '\\n' + document.body.innerText"))
		case <-again.C:
		}
	}
}

// open goes to an address of the page.
func (b *tab) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.h.srv.URL + path))
}

// at waits until the whole page of an address (its path) is there.
func (b *tab) at(path string) {
	b.t.Helper()
	b.until("document.readyState == 'complete' && decodeURIComponent(location.pathname) == %s", path)
}

// sees waits until people can read a text on the page.
func (b *tab) sees(text string) {
	b.t.Helper()
	b.until("document.readyState == 'complete' && document.body.innerText.includes(%s)", text)
}

// reach moves the keyboard's focus to an element, with Tab, and looks whether a person sees where they are.
func (b *tab) reach(selector string) {
	b.t.Helper()
	for range 150 {
		if eval[bool](b, "document.activeElement === document.querySelector(%s)", selector) {
			if !eval[bool](b, focusVisible, selector) {
				b.t.Errorf("nobody sees that %s has the focus", selector)
			}
			return
		}
		b.do(chromedp.KeyEvent("\t"))
	}
	b.t.Fatalf("the keyboard never comes to %s", selector)
}

const focusVisible = `(() => {
	const e = document.querySelector(%s), s = getComputedStyle(e), r = e.getBoundingClientRect();
	const ring = s.outlineStyle != 'none' && parseFloat(s.outlineWidth) >= 1 || s.boxShadow != 'none';
	return e.matches(':focus-visible') && ring && r.width > 0 && r.bottom > 0 && r.top < innerHeight;
})()`

// press uses a button or a link.
func (b *tab) press(selector string) {
	b.t.Helper()
	b.until("document.readyState == 'complete' && document.querySelector(%s)", selector)
	if b.mode == byKeyboard {
		b.reach(selector)
		b.do(chromedp.KeyEvent("\r"))
		return
	}
	b.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// types fills a field in.
func (b *tab) types(selector, text string) {
	b.t.Helper()
	b.until("document.readyState == 'complete' && document.querySelector(%s)", selector)
	if b.mode == byKeyboard {
		b.reach(selector)
	} else {
		b.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
	}
	b.do(chromedp.KeyEvent(text))
	b.until("document.querySelector(%s).value == %s", selector, text)
}

// signedIn gives the tab the session of somebody who has signed in.
func (b *tab) signedIn(who browser) *tab {
	b.t.Helper()
	u := must(url.Parse(b.h.srv.URL))
	for _, c := range who.c.Jar.Cookies(u) {
		yes := true
		_, err := chromedp.Call(b.ctx, network.SetCookie, network.SetCookieParams{Name: c.Name, Value: c.Value, URL: b.h.srv.URL, HTTPOnly: &yes})
		b.check(err)
	}
	return b
}

// quiet fails the test if a page did what none may do.
func (b *tab) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range b.trouble {
		b.t.Error(x)
	}
	b.trouble = nil
}
