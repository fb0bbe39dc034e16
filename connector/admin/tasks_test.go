package admin_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cdp "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/evidence"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/people"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// everyWay plays a task as people do it: with a mouse, with scripts switched off, and with nothing but a keyboard. No page may
// complain meanwhile.
func everyWay(t *testing.T, task func(t *testing.T, h *house, m mode)) {
	for _, m := range []mode{withScript, withoutScript, byKeyboard} {
		t.Run(m.String(), func(t *testing.T) {
			t.Parallel() // most of the time is the browser's
			task(t, newHouse(t), m)
		})
	}
}

func TestTaskFindANumber(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, m mode) {
		h.text(ada, "pls stop texting me")
		h.text(cleo, "STOP")
		h.knows(ada, crm.Key{Object: "Case", ID: "5005g000002AbCdAAK"})
		b := h.tab(t, m).signedIn(h.person("vic", people.Viewer))
		b.open("/")
		b.types("#q", "(415) 555-0142")
		b.press("form[role=search] button")
		b.at("/numbers/" + ada.String())
		b.sees("A message would not be sent: opted out.")
		b.sees("pls stop texting me")
		// By its last digits, through the list.
		b.types("#q", "0144")
		b.press("form[role=search] button")
		b.at("/optouts")
		b.press("#list tbody a")
		b.at("/numbers/" + cleo.String())
		b.press("details summary")
		b.sees("SHA-256")
		// By the id of a record, of whatever object, in the search and in the list's own field.
		b.types("#q", "5005g000002AbCdAAK")
		b.press("form[role=search] button")
		b.at("/numbers/" + ada.String())
		b.open("/optouts")
		b.types("#ends", "5005g000002AbCdAAK")
		b.press(".filters button")
		b.sees("of the record")
		b.until("document.querySelectorAll('#list tbody tr').length == 1 && document.querySelector('#list tbody').innerText.includes('0142')")
		b.quiet()
	})
}

// knows puts a record into the mirror.
func (h *house) knows(n phone.Number, k crm.Key) {
	h.t.Helper()
	if err := h.l.Mirror("salesforce").Put(h.t.Context(), []ledger.MirrorRecord{{Key: k, Numbers: []phone.Number{n}, SeenAt: h.now()}}); err != nil {
		h.t.Fatal(err)
	}
}

// downloads returns the content of the file that what do does makes the browser save.
func (b *tab) downloads(do func()) (name, content string) {
	b.t.Helper()
	dir := b.t.TempDir()
	c := chromedp.FromContext(b.ctx)
	_, err := chromedp.CallBrowser(b.ctx, cdp.SetDownloadBehavior, cdp.SetDownloadBehaviorParams{Behavior: cdp.SetDownloadBehaviorBehaviorAllow, BrowserContextID: c.BrowserContextID, DownloadPath: dir})
	b.check(err)
	do()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		files, err := filepath.Glob(filepath.Join(dir, "heed-*"))
		b.check(err)
		if len(files) == 1 && !strings.HasSuffix(files[0], ".crdownload") {
			return filepath.Base(files[0]), string(must(os.ReadFile(files[0])))
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatal("nothing was saved")
		case <-again.C:
		}
	}
}

func TestTaskFilterAndExport(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, m mode) {
		for i, n := range []phone.Number{ada, bob, cleo} {
			if _, _, err := h.gate.Send(t.Context(), connector.Send{To: n.String(), Body: "hi", Campaign: []string{"spring", "spring", "winback"}[i], Caller: "workflow"}); err != nil {
				t.Fatal(err)
			}
			h.text(n, "STOP")
		}
		b := h.tab(t, m).signedIn(h.person("oda", people.Operator))
		b.open("/optouts")
		b.until("document.querySelectorAll('#list tbody tr').length == 3")
		b.types("input[name=campaign]", "spring")
		b.selects("select[name=source]", "rec", "recipient")
		b.press(".filters button")
		b.until("document.querySelectorAll('#list tbody tr').length == 2 && location.search.includes('campaign=spring')")
		for kind, want := range map[string]string{"CSV": ada.String() + ",opted_out,recipient,stop,", "JSON": `"number":"` + bob.String() + `"`} {
			name, content := b.downloads(func() { b.press(fmt.Sprintf("#list a[href*='format=%s']", strings.ToLower(kind))) })
			if !strings.HasPrefix(name, "heed-numbers-") || !strings.Contains(content, want) || strings.Contains(content, cleo.String()) {
				t.Errorf("%s: %q", name, content)
			}
		}
		if name, content := b.downloads(func() { b.press("#list a[href*='format=xlsx']") }); !strings.HasSuffix(name, ".xlsx") || !strings.HasPrefix(content, "PK") {
			t.Errorf("%s: %.40q", name, content)
		}
		b.quiet()
	})
}

// selects picks an option by typing its beginning, as people do with a mouse as well: headless Chromium draws no list.
func (b *tab) selects(selector, begin, value string) {
	b.t.Helper()
	if b.mode == byKeyboard {
		b.reach(selector)
	} else {
		b.do(chromedp.Focus(chromedp.CSS(selector)))
	}
	b.do(chromedp.KeyEvent(begin))
	b.until("document.querySelector(%s).value == %s", selector, value)
}

func TestTaskBulkOptOutAndUndo(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, m mode) {
		h.text(ada, "STOP")
		h.knows(bob, crm.Key{Object: "Contact", ID: "003000000000001AAA"})
		b := h.tab(t, m).signedIn(h.person("max", people.Admin))
		b.open("/")
		b.press("nav a[href='/bulk']")
		b.at("/bulk")
		b.types("textarea[name=numbers]", ada.String()+" \n(415) 555-0143\n"+cleo.String())
		b.press("main button[type=submit]")
		b.sees("Nothing has been changed.")
		b.sees("boxes of known records to tick")
		if h.l.State(bob) == consent.OptedOut {
			t.Fatal("a preview opted out")
		}
		b.types("input[name=why]", "list of the old shop")
		b.types("input[name=count]", "2")
		b.press("form[action='/bulk/apply'] button")
		b.sees("2 numbers opted out")
		if h.l.State(bob) != consent.OptedOut || h.l.State(cleo) != consent.OptedOut {
			t.Fatal("not opted out")
		}
		name, list := b.downloads(func() { b.press("form[action='/bulk/file'] button") })
		if !strings.HasPrefix(name, "heed-undo-") || list != "number\r\n"+bob.String()+"\r\n"+cleo.String()+"\r\n" {
			t.Errorf("%s: %q", name, list)
		}
		b.press("form[action='/bulk/file'] a[href='/bulk']")
		b.at("/bulk")
		b.types("textarea[name=numbers]", bob.String()+"\n"+cleo.String())
		if m == byKeyboard {
			b.reach("input[name=action]")
			b.do(chromedp.KeyEvent(kb.ArrowDown))
		} else {
			b.press("input[value=undo]")
		}
		b.until("document.querySelector('input[value=undo]').checked")
		b.press("main button[type=submit]")
		b.sees("opt-outs to undo")
		b.types("input[name=why]", "the wrong list")
		b.types("input[name=count]", "2")
		b.press("form[action='/bulk/apply'] button")
		b.sees("2 opt-outs undone")
		if h.l.State(bob) == consent.OptedOut || h.l.State(ada) != consent.OptedOut {
			t.Fatal("undone wrongly")
		}
		b.quiet()
	})
}

func TestTaskTakeTheEvidence(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, m mode) {
		h.text(ada, "pls stop texting me")
		b := h.tab(t, m).signedIn(h.person("oda", people.Operator))
		b.open("/numbers/" + ada.String())
		b.press("details.do summary")
		b.types("#for", "asked by the court")
		name, packet := b.downloads(func() { b.press("details.do button") })
		if rep, err := evidence.Verify(strings.NewReader(packet), int64(len(packet))); err != nil || rep.Packet.Why != "asked by the court" || !strings.HasPrefix(name, "heed-evidence-14155550142-") {
			t.Errorf("%s: %v", name, err)
		}
		b.quiet()
	})
}

func TestTaskResolveAHold(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, m mode) {
		h.text(bob, "wrong number")
		h.text(cleo, "who is this? wrong number")
		b := h.tab(t, m).signedIn(h.person("oda", people.Operator))
		b.open("/")
		b.press("nav a[href='/holds']")
		b.at("/holds")
		b.sees("wrong number")
		b.types("form[action$='0143'] input[name=why]", "does not know us")
		b.press("form[action$='0143'] button[value=opt_out]")
		b.until("document.readyState == 'complete' && !document.querySelector(\"form[action$='0143']\")")
		b.press("form[action$='0144'] button[value=release]")
		b.sees("Nothing waits for a decision.")
		if h.l.State(bob) != consent.OptedOut || h.l.State(cleo) == consent.OptedOut || h.l.State(cleo) == consent.Held {
			t.Errorf("bob %s, cleo %s", h.l.State(bob), h.l.State(cleo))
		}
		b.quiet()
	})
}

func TestTaskReadAReport(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, m mode) {
		now := h.now().UTC()
		p := ledger.Pass{ID: "rec_1", Kind: "nightly", Full: true, StartedAt: now, FinishedAt: now, Counts: map[string]int{"numbers_opted_out": 3, "numbers_settled": 3}}
		if _, err := h.l.Append(t.Context(), ledger.Event{Kind: ledger.KindPass, At: now, Pass: &p}); err != nil {
			t.Fatal(err)
		}
		b := h.tab(t, m).signedIn(h.person("vic", people.Viewer))
		b.open("/")
		b.press("nav a[href='/reports']")
		b.press("tbody th a")
		b.at("/reports/rec_1")
		b.sees("Nothing to report: CRM, provider and ledger agree.")
		b.quiet()
	})
}

func TestTaskRetryParkedWork(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, m mode) {
		h.text(ada, "STOP")
		if _, err := h.l.Append(t.Context(), ledger.Event{Kind: ledger.KindWritten, At: h.now().UTC(), Number: ada, Written: &ledger.Written{UpTo: 1 << 40, Want: true,
			Results: []ledger.WriteResult{{CRM: "salesforce", Key: crm.Key{Object: "Contact", ID: "003000000000001AAA"}, OptedOut: true, Class: string(crm.Park), Text: "the box is read-only"}}}}); err != nil {
			t.Fatal(err)
		}
		for _, o := range must(h.l.Claim(t.Context(), ledger.OweBoxes, 10)) { // to be tried again tomorrow
			if err := h.l.Return(t.Context(), o, h.now().AddDate(0, 0, 1), ""); err != nil {
				t.Fatal(err)
			}
		}
		if due := must(h.l.Claim(t.Context(), ledger.OweBoxes, 10)); len(due) != 0 {
			t.Fatal("parked work is due")
		}
		b := h.tab(t, m).signedIn(h.person("oda", people.Operator))
		b.open("/")
		b.press(".banner a[href='/work']")
		b.sees("the box is read-only")
		b.press("form[action='/work/retry'] button")
		b.sees("Everything is being tried again.")
		if due := must(h.l.Claim(t.Context(), ledger.OweBoxes, 10)); len(due) != 1 {
			t.Errorf("%d pieces of work are due", len(due))
		}
		if !strings.Contains(h.audited(), "oda retry") {
			t.Error(h.audited())
		}
		b.quiet()
	})
}

func TestTaskSignInWithALinkAndOut(t *testing.T) {
	everyWay(t, func(t *testing.T, h *house, m mode) {
		link, _, err := h.ppl.Invite(t.Context(), "ann@example.com", people.Viewer, "root", "test")
		if err != nil {
			t.Fatal(err)
		}
		b := h.tab(t, m)
		u := must(url.Parse(link))
		b.open(u.RequestURI())
		b.types("input[name=password]", "correct horse battery")
		b.types("input[name=again]", "correct horse battery")
		b.press("main button[type=submit]")
		b.at("/")
		b.sees("signed in as ann@example.com (viewer)")
		if at := eval[string](b, "location.href"); strings.Contains(at, "token") {
			t.Errorf("the link's token is still in the address: %s", at)
		}
		b.press(".who form[action='/signout'] button")
		b.at("/signin")
		b.open("/optouts?ends=0142") // and comes back to it
		b.types("input[name=name]", "ann@example.com")
		b.types("input[name=password]", "correct horse battery")
		b.press("main button[type=submit]")
		b.at("/optouts")
		b.sees("signed in as ann@example.com (viewer)")
		other := h.tab(t, withScript).signedIn(h.person("bob@example.com", people.Viewer))
		b.press("footer form[action='/signout'] button")
		b.at("/signin")
		other.open("/")
		other.sees("signed in as bob@example.com")
		b.quiet()
		b.expected = "410"
		b.open(u.RequestURI()) // the link has been used
		b.sees("This link does not work")
		b.quiet()
	})
}

// Somebody else's page, open in the same browser, can neither act nor put heed into a frame.
func TestAnotherSiteCanDoNothingInABrowser(t *testing.T) {
	h := newHouse(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/form", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `<!doctype html><form id=f method=post action="`+h.srv.URL+`/numbers/`+cleo.String()+`"><input name=action value=opt_out><input name=why value=evil><button>go</button></form>`)
	})
	mux.HandleFunc("/frame", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `<!doctype html><iframe src="`+h.srv.URL+`/" onload="document.title='loaded'"></iframe>`)
	})
	evil := httptest.NewServer(mux)
	t.Cleanup(evil.Close)
	site := strings.Replace(evil.URL, "127.0.0.1", "localhost", 1) // another site, in the browser's eyes
	b := h.tab(t, withScript).signedIn(h.person("max", people.Admin))
	b.expected = "" // it complains, as it should
	b.do(chromedp.Navigate(site + "/form"))
	b.press("button")
	b.until("location.origin == %s && document.readyState == 'complete'", h.srv.URL)
	if h.l.State(cleo) == consent.OptedOut {
		t.Error("another site opted a number out")
	}
	b.open("/") // the person is still signed in
	b.sees("signed in as max")
	b.do(chromedp.Navigate(site + "/frame"))
	b.until("document.title == 'loaded'")
	if !slices.ContainsFunc(b.troubles(), func(s string) bool { return strings.Contains(s, "frame-ancestors") }) {
		t.Errorf("heed let itself be framed: %q", b.troubles())
	}
}

// troubles are what quiet would fail for.
func (b *tab) troubles() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.trouble)
}
