package admin_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/heed-sms/heed/connector/consent"
	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/people"
	"github.com/heed-sms/heed/connector/reply"
	"github.com/heed-sms/heed/crm"
	"github.com/heed-sms/heed/sms/phone"
)

// hostile is what people with bad intentions text, and what they call campaigns, records and themselves. The sign in each
// lets the test find it on the pages.
var hostile = []string{
	`☠<script>pwned=1;alert(1)</script>`, `☠"><img src=x onerror="pwned=1;alert(1)">`, `☠'><svg/onload=pwned=1>`, `☠</textarea></pre></title><script>pwned=1</script>`, `☠<iframe srcdoc="<script>parent.pwned=1</script>">`,
	`☠javascript:pwned=1//`, `☠{{printf "%s" "pwned"}}${pwned=1}<%= pwned %>`, `☠<a href="javascript:pwned=1" autofocus onfocus=pwned=1>x</a>`, `☠<meta http-equiv=refresh content="0;url=//evil.example">`, `☠<base href="//evil.example/">`,
	`☠<style>*{display:none}</style>`, `☠<div hx-get="/settings" hx-trigger="load" hx-on:click="pwned=1">x</div>`, `☠&lt;script&gt;pwned=1&lt;/script&gt;`, "☠\x00\x07\x1b[31m\u2028\u2029", "☠\u202egnp.exe\u202c \u2066x", "☠שלום 123 مرحبا", "☠" + strings.Repeat("\u0301", 200),
	`☠=cmd|'/c calc'!A1`, "☠" + strings.Repeat("W", 400), "☠\ufeff\u200b\u3164", "☠ﷺ𒐫꧅",
}

// TestHostileTextDoesNothingInABrowser puts it wherever other people's words come to the page, and looks at every page in
// the real browser: no dialog, no script, no element that is not heed's, no report of the policy, nothing that could reorder
// its neighbours, and no scrolling sideways.
func TestHostileTextDoesNothingInABrowser(t *testing.T) {
	h := newWorld(t)
	var events []ledger.Event
	add := func(n phone.Number, e ledger.Event) {
		e.At, e.Number = noon.Add(-time.Hour), n
		events = append(events, e)
	}
	victim := person(790)
	for i, bad := range hostile {
		n := person(760 + i)
		id := fmt.Sprint("bad_", i)
		name := strings.ReplaceAll(bad, "\x00", "") // the ledger refuses a NUL in what it looks things up by
		inbound := func(v reply.Verdict, k string) *ledger.Inbound {
			return &ledger.Inbound{Account: name, ProviderID: id + k, From: bad, To: bad, Body: bad, Verdict: v, Rule: bad, Keyword: bad, Via: ledger.ViaWebhook, Raw: bad, Signature: bad, Missed: true, Pass: bad}
		}
		for _, n := range []phone.Number{n, victim} {
			k := crm.Key{Object: name, ID: "003000000000001AAA"}
			message := fmt.Sprint(id, n)
			add(n, ledger.Event{Kind: ledger.KindOpened, Opened: &ledger.Message{ID: message, To: n, From: bad, Body: bad, Campaign: bad, Caller: bad, Account: "main", CreatedAt: noon.Add(-time.Hour), Decision: consent.Decision{Verdict: consent.Allow, Reason: consent.OK}}})
			add(n, ledger.Event{Kind: ledger.KindOutcome, Outcome: &ledger.Outcome{Message: message, Status: []ledger.Status{ledger.StatusFailed, ledger.StatusSent}[i%2], Code: bad, Error: bad, From: bad, ProviderID: message}})
			add(n, ledger.Event{Kind: ledger.KindStatus, Status: &ledger.StatusTold{Message: message, Account: "main", ProviderID: message, Delivery: bad, Code: bad}})
			add(n, ledger.Event{Kind: ledger.KindInbound, Inbound: inbound(reply.OptOut, fmt.Sprint(n))})
			add(n, ledger.Event{Kind: ledger.KindWritten, Written: &ledger.Written{UpTo: 1 << 40, Want: true, Results: []ledger.WriteResult{{CRM: "salesforce", Key: k, Class: string(crm.Park), Text: bad}}}})
			add(n, ledger.Event{Kind: ledger.KindCorrection, Correction: &ledger.Correction{Pass: "rec_bad", CRM: "salesforce", Record: &k, Cause: bad, Action: "tick", Detail: bad, By: bad, Text: bad}})
			add(n, ledger.Event{Kind: ledger.KindNoted, Noted: &ledger.Noted{Message: message, Note: bad, Class: string(crm.Park), Text: bad}})
			add(n, ledger.Event{Kind: ledger.KindRelayed, Relayed: &ledger.Relayed{Message: message, Status: bad, Failed: bad}})
			add(n, ledger.Event{Kind: ledger.KindTold, Told: &ledger.Told{Results: []ledger.ToldResult{{Account: bad, Class: bad, Text: bad}}}})
		}
		add(person(735+i), ledger.Event{Kind: ledger.KindInbound, Inbound: inbound(reply.Hold, "hold")})
		add(person(735+i), ledger.Event{Kind: ledger.KindConsent, Consent: &ledger.Consent{Change: consent.Change{Action: consent.Hold, Source: consent.Admin, At: noon}, Actor: bad, Why: bad}})
		add(phone.Number{}, ledger.Event{Kind: ledger.KindAct, Act: &ledger.Act{Who: name, Via: bad, What: name, Detail: bad, Why: bad}})
		add(phone.Number{}, ledger.Event{Kind: ledger.KindAccess, Access: &ledger.Access{Sort: ledger.AccessUser, Name: name, May: []string{bad}, By: bad, Why: bad}})
	}
	pass := ledger.Pass{ID: "rec_bad", Kind: hostile[0], Full: true, StartedAt: noon, FinishedAt: noon, Error: strings.Join(hostile, "\n"), Notes: hostile, Counts: map[string]int{hostile[1]: 1},
		Figures: &ledger.Figures{Prevented: map[string]int{hostile[2]: 3}, Campaigns: []ledger.CampaignCount{{Campaign: hostile[0], Sent: 1}, {Campaign: hostile[14]}, {Campaign: hostile[18]}}}}
	add(phone.Number{}, ledger.Event{Kind: ledger.KindPass, Pass: &pass})
	for _, e := range events {
		if _, err := h.l.Append(t.Context(), e); err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
	}
	who := h.person("☠שלום <b>admin</b>", people.Admin)
	pages := map[string]string{"victim": "/numbers/" + victim.String(), "report": "/reports/rec_bad", "failed": "/messages?status=failed", "sent": "/messages?status=sent", "search": "/numbers?q=" + "%E2%98%A0%3Cscript%3Epwned=1%3C/script%3E",
		"filter": "/optouts?campaign=" + "%E2%98%A0%22%3E%3Cscript%3Epwned=1%3C/script%3E", "status": "/", "optouts": "/optouts", "holds": "/holds", "work": "/work", "reports": "/reports?all=1", "analytics": "/analytics", "audit": "/audit"}
	t.Run("pages", func(t *testing.T) {
		for name, path := range pages {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := h.tab(t, withScript).signedIn(who)
				b.expected = "the server responded with a status of 422"
				b.open(path)
				if name != "report" && !eval[bool](b, "document.body.textContent.includes('☠')") {
					t.Error("the page has nothing hostile: the test looks at the wrong place")
				}
				if bad := eval[string](b, harm, name == "report"); bad != "" {
					t.Error(bad)
				}
				for _, width := range []int64{1280, 320} {
					b.size(width, 800)
					b.fits(fmt.Sprint(path, " ", width))
				}
				b.quiet()
			})
		}
	})
}

// harm says what hostile text has done to a page, "" if nothing. The argument says whether the page is a report, which has a frame of
// its own.
const harm = `(() => {
	if (typeof pwned != "undefined") return "a script was run";
	const scripts = document.querySelectorAll("script").length;
	if (scripts != (%[1]v ? 0 : 1)) return scripts + " scripts";
	const foreign = document.querySelector("img, iframe, object, embed, base, meta[http-equiv=refresh], body style, [onload], [onerror], [onfocus], [onclick], [hx-on\\:click], main a[href^='javascript:' i], main div[hx-get], b.x, main b:not(.equation b)");
	if (foreign) return "a foreign element: " + foreign.outerHTML.slice(0, 200);
	const all = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n = all.nextNode(); n; n = all.nextNode()) {
		if (/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u200b\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]/.test(n.data)) return "what nobody sees is in: " + JSON.stringify(n.data.slice(0, 80));
		if (!n.data.includes("☠") || %[1]v) continue;
		const home = n.parentElement.closest("bdi, pre, textarea, select");
		if (!home || getComputedStyle(home).unicodeBidi == "normal") return "not kept apart from its neighbours: " + n.parentElement.outerHTML.slice(0, 200);
	}
	return "";
})()`
