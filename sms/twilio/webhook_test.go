package twilio

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twilio/twilio-go/client"

	"github.com/heed-sms/heed/sms"
)

const (
	account = "ACc0000000000000000000000000000001"
	token   = "7b1f0000000000000000000000000a1c"
	hookURL = "https://sms.example.com/webhooks/twilio"
)

// sign is the signature as Twilio's page describes it, written plainly: the other opinion to compare the driver with.
func sign(token, url string, form url.Values) string {
	text := url
	keys := make([]string, 0, len(form))
	for k := range form {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		values := slices.Clone(form[k])
		slices.Sort(values)
		for _, v := range slices.Compact(values) {
			text += k + v
		}
	}
	mac := hmac.New(sha1.New, []byte(token))
	mac.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func post(url, contentType, body, signature string) sms.Webhook {
	h := http.Header{}
	h.Set("Content-Type", contentType)
	h.Set("X-Twilio-Signature", signature)
	return sms.Webhook{Method: "POST", URL: url, Header: h, Body: []byte(body)}
}

const formType = "application/x-www-form-urlencoded"

func signed(form url.Values) sms.Webhook {
	return post(hookURL, formType, form.Encode(), sign(token, hookURL, form))
}

// reply is an inbound message as Twilio's page on the webhook request lists it.
func reply(change ...string) url.Values {
	f := url.Values{
		"ToCountry": {"US"}, "ToState": {"TX"}, "ToCity": {"AUSTIN"}, "ToZip": {""},
		"FromCountry": {"US"}, "FromState": {"TX"}, "FromCity": {"AUSTIN"}, "FromZip": {"78701"},
		"SmsMessageSid": {"SMa0000000000000000000000000000001"}, "SmsSid": {"SMa0000000000000000000000000000001"},
		"MessageSid": {"SMa0000000000000000000000000000001"}, "AccountSid": {account}, "NumMedia": {"0"},
		"NumSegments": {"1"}, "SmsStatus": {"received"}, "Body": {"Stop"}, "ApiVersion": {"2010-04-01"},
		"To": {"+15125550100"}, "From": {"+15125550142"},
	}
	for i := 0; i < len(change); i += 2 {
		if change[i+1] == "-" {
			f.Del(change[i])
		} else {
			f.Set(change[i], change[i+1])
		}
	}
	return f
}

func testProvider(t testing.TB, c Config) *Provider {
	t.Helper()
	if c.AccountSID == "" {
		c.AccountSID = account
	}
	if c.AuthToken == "" {
		c.AuthToken = token
	}
	if c.From == "" {
		c.From = "+15125550100"
	}
	p, err := newProvider(c, &http.Client{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPublishedSignaturesHold(t *testing.T) {
	raw, err := os.ReadFile("testdata/signatures.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Source, Token, URL, Body, Signature string
		ContentType                               string `json:"content_type"`
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			p := testProvider(t, Config{AuthToken: v.Token})
			if v.ContentType == "" {
				v.ContentType = formType
			}
			// None of the vectors is a message, so a proven request ends as not understood.
			for _, tt := range []struct {
				name string
				r    sms.Webhook
				want error
			}{
				{"as published", post(v.URL, v.ContentType, v.Body, v.Signature), sms.ErrMalformed},
				{"with another body", post(v.URL, v.ContentType, v.Body+"x", v.Signature), sms.ErrSignature},
				{"with another URL", post(v.URL+"x", v.ContentType, v.Body, v.Signature), sms.ErrSignature},
			} {
				if _, err := p.Webhook(tt.r); !errors.Is(err, tt.want) {
					t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
				}
			}
			other := testProvider(t, Config{AuthToken: v.Token + "0"})
			if _, err := other.Webhook(post(v.URL, v.ContentType, v.Body, v.Signature)); !errors.Is(err, sms.ErrSignature) {
				t.Errorf("under another token: got %v, want ErrSignature", err)
			}
		})
	}
}

// TestVendorValidatorAgrees compares with Twilio's own Go library on random forms. Forms with repeated keys are left
// out: that library looks at the first value only.
func TestVendorValidatorAgrees(t *testing.T) {
	p := testProvider(t, Config{})
	vendor := client.NewRequestValidator(token)
	rnd := rand.New(rand.NewPCG(1, 2))
	runes := []rune("aAbB01 +&=%;~.-_\x00\nñ漢🙂\u202e")
	text := func(n int) string {
		b := make([]rune, rnd.IntN(n))
		for i := range b {
			b[i] = runes[rnd.IntN(len(runes))]
		}
		return string(b)
	}
	urls := []string{hookURL, "http://h.example/a?b=c", "https://h.example:8443/x", "https://h.example:443/", "http://h.example:80/?q"}
	agreed := map[bool]int{}
	for range 3000 {
		form := url.Values{}
		for range rnd.IntN(25) {
			form.Set(text(12), text(30))
		}
		u := urls[rnd.IntN(len(urls))]
		signature := sign(token, u, form)
		if rnd.IntN(4) == 0 {
			signature = sign(token+"x", u, form)
		}
		body := form.Encode()
		if rnd.IntN(4) == 0 {
			body += "&extra=1"
		}
		_, err := p.Webhook(post(u, formType, body, signature))
		got, want := !errors.Is(err, sms.ErrSignature), vendor.ValidateBody(u, []byte(body), signature)
		if got != want {
			t.Fatalf("heed says %v, Twilio's library %v: %s %q", got, want, u, body)
		}
		agreed[got]++
	}
	if agreed[true] < 500 || agreed[false] < 500 {
		t.Fatalf("the comparison was one-sided: %v", agreed)
	}
}

func TestWebhookDecodesReplies(t *testing.T) {
	base := sms.Inbound{
		ProviderID: "SMa0000000000000000000000000000001", From: "+15125550142", To: "+15125550100", Body: "Stop",
	}
	with := func(f func(*sms.Inbound)) sms.Inbound { in := base; f(&in); return in }
	for _, tt := range []struct {
		name string
		form url.Values
		want sms.Event
	}{
		{"a plain reply", reply(), base},
		{"a STOP that Twilio recognised", reply("OptOutType", "STOP", "MessagingServiceSid", "MGb0000000000000000000000000000001"),
			with(func(in *sms.Inbound) { in.Flag, in.Service = sms.FlagStop, "MGb0000000000000000000000000000001" })},
		{"a START that Twilio recognised", reply("OptOutType", "START"), with(func(in *sms.Inbound) { in.Flag = sms.FlagStart })},
		{"a HELP that Twilio recognised", reply("OptOutType", "HELP"), with(func(in *sms.Inbound) { in.Flag = sms.FlagHelp })},
		{"a type that Twilio may add", reply("OptOutType", "PAUSE"), base},
		{"two pictures and no text", reply("NumMedia", "2", "Body", "", "MediaUrl0", "https://api.twilio.com/x"),
			with(func(in *sms.Inbound) { in.Media, in.Body = 2, "" })},
		{"nonsense as the number of pictures", reply("NumMedia", "-7"), base},
		{"signs that a form has to escape", reply("Body", "a+b&c=d%;é🙂\n"), with(func(in *sms.Inbound) { in.Body = "a+b&c=d%;é🙂\n" })},
		{"text that is not UTF-8", reply("Body", "st\xffop"), with(func(in *sms.Inbound) { in.Body = "st\uFFFDop" })},
		{"only the old name of the id", reply("MessageSid", "-"), base},
		{"no SmsStatus", reply("SmsStatus", "-"), base},
		{"a short code", reply("To", "55555"), with(func(in *sms.Inbound) { in.To = "55555" })},
		{"another channel", reply("From", "whatsapp:+15125550142"), with(func(in *sms.Inbound) { in.From = "whatsapp:+15125550142" })},
		{"a status", reply("Body", "-", "SmsStatus", "delivered", "MessageStatus", "delivered", "To", "+15125550142"),
			sms.Status{ProviderID: base.ProviderID, State: sms.DeliveryDelivered, To: "+15125550142"}},
		{"a status in the old name only", reply("Body", "-", "SmsStatus", "sent"),
			sms.Status{ProviderID: base.ProviderID, State: sms.DeliverySent, To: "+15125550100"}},
		{"a failure because the recipient opted out", reply("Body", "-", "SmsStatus", "failed", "MessageStatus", "failed", "ErrorCode", "21610"),
			sms.Status{ProviderID: base.ProviderID, State: sms.DeliveryFailed, Code: "21610", OptedOut: true, To: "+15125550100"}},
		{"a failure for another reason", reply("Body", "-", "SmsStatus", "undelivered", "MessageStatus", "undelivered", "ErrorCode", "30003"),
			sms.Status{ProviderID: base.ProviderID, State: sms.DeliveryFailed, Code: "30003", To: "+15125550100"}},
		{"an unknown status with the code for opted out", reply("Body", "-", "SmsStatus", "bounced", "MessageStatus", "bounced", "ErrorCode", "21610"),
			sms.Status{ProviderID: base.ProviderID, State: sms.DeliveryFailed, Code: "21610", OptedOut: true, To: "+15125550100"}},
		{"a status with the code 0", reply("Body", "-", "SmsStatus", "queued", "MessageStatus", "queued", "ErrorCode", "0"),
			sms.Status{ProviderID: base.ProviderID, State: sms.DeliveryQueued, To: "+15125550100"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := testProvider(t, Config{})
			got, err := p.Webhook(signed(tt.form))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]sms.Event{tt.want}, got); diff != "" {
				t.Error(diff)
			}
			// The same request with GET, where the parameters are in the URL.
			u := hookURL + "?" + tt.form.Encode()
			r := sms.Webhook{Method: "GET", URL: u, Header: http.Header{"X-Twilio-Signature": {sign(token, u, nil)}}}
			got, err = p.Webhook(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]sms.Event{tt.want}, got); diff != "" {
				t.Error("GET: ", diff)
			}
			// And as a form under bodySHA256.
			body := tt.form.Encode()
			sum := sha256.Sum256([]byte(body))
			u = hookURL + "?bodySHA256=" + hex.EncodeToString(sum[:])
			got, err = p.Webhook(post(u, formType, body, sign(token, u, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]sms.Event{tt.want}, got); diff != "" {
				t.Error("bodySHA256: ", diff)
			}
		})
	}
}

func TestProvenButUnusableRequestsAreMalformed(t *testing.T) {
	twice := func(key string, values ...string) url.Values {
		f := reply("OptOutType", "STOP", "ErrorCode", "1", "MessagingServiceSid", "MG1")
		f[key] = values
		return f
	}
	for _, tt := range []struct {
		name string
		form url.Values
	}{
		{"two texts", twice("Body", "STOP", "START")},
		{"three texts of which two are equal", twice("Body", "STOP", "STOP", "no")},
		{"a text and an empty text", twice("Body", "", "STOP")},
		{"two phones", twice("From", "+15125550142", "+15125550143")},
		{"two ids", twice("MessageSid", "SMa0000000000000000000000000000001", "SMa0000000000000000000000000000002")},
		{"two readings", twice("OptOutType", "STOP", "START")},
		{"two accounts", twice("AccountSid", account, account+"0")},
		{"no account", reply("AccountSid", "-")},
		{"no id", reply("MessageSid", "-", "SmsSid", "-", "SmsMessageSid", "-")},
		{"no phone", reply("From", "-")},
		{"a call", url.Values{"AccountSid": {account}, "CallSid": {"CA1"}, "From": {"+15125550142"}}},
		{"a status that is also a reply", reply("MessageStatus", "delivered", "SmsStatus", "delivered")},
		{"an unknown status", reply("Body", "-", "MessageStatus", "bounced", "SmsStatus", "bounced")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events, err := testProvider(t, Config{}).Webhook(signed(tt.form))
			if !errors.Is(err, sms.ErrMalformed) || events != nil {
				t.Errorf("got %v, %v; want ErrMalformed", events, err)
			}
		})
	}
}

func TestEqualRepeatedValuesAreOneValue(t *testing.T) {
	f := reply()
	f["Body"] = []string{"Stop", "Stop"}
	events, err := testProvider(t, Config{}).Webhook(signed(f))
	if err != nil || events[0].(sms.Inbound).Body != "Stop" {
		t.Errorf("got %v, %v", events, err)
	}
}

func TestOddSpellingIsMalformedOnlyWhenProven(t *testing.T) {
	p := testProvider(t, Config{})
	for _, tt := range []struct{ name, body string }{
		{"a bare semicolon", "AccountSid=" + account + "&Body=a;b=c"},
		{"a percent sign at the end", "Body=100%"},
		{"a percent sign before other text", "Body=100%zz"},
		{"half an escape", "Body=%4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Taken literally, the text is what a lenient parser such as Python's reads.
			form := url.Values{}
			for _, kv := range strings.Split(tt.body, "&") {
				k, v, _ := strings.Cut(kv, "=")
				form.Add(k, v)
			}
			if _, err := p.Webhook(post(hookURL, formType, tt.body, sign(token, hookURL, form))); !errors.Is(err, sms.ErrMalformed) {
				t.Errorf("proven: got %v, want ErrMalformed", err)
			}
			if _, err := p.Webhook(post(hookURL, formType, tt.body, sign("x", hookURL, form))); !errors.Is(err, sms.ErrSignature) {
				t.Errorf("not proven: got %v, want ErrSignature", err)
			}
		})
	}
}

func TestTwentyThousandParametersAreRead(t *testing.T) {
	f := reply()
	for i := range 20_000 {
		f.Set(fmt.Sprint("k", i), "v")
	}
	events, err := testProvider(t, Config{}).Webhook(signed(f))
	if err != nil || events[0].(sms.Inbound).Body != "Stop" {
		t.Errorf("got %v, %v", events, err)
	}
}

func TestUnprovenRequestsAreRefused(t *testing.T) {
	p := testProvider(t, Config{})
	valid := signed(reply())
	change := func(f func(*sms.Webhook)) sms.Webhook {
		r := valid
		r.Header, r.Body = valid.Header.Clone(), bytes.Clone(valid.Body)
		f(&r)
		return r
	}
	jsonBody := `{"Body":"START"}`
	hash := sha256.Sum256([]byte(jsonBody))
	hashed := hookURL + "?bodySHA256=" + hex.EncodeToString(hash[:])
	for _, tt := range []struct {
		name string
		r    sms.Webhook
	}{
		{"no signature", change(func(r *sms.Webhook) { r.Header.Del("X-Twilio-Signature") })},
		{"an empty signature", change(func(r *sms.Webhook) { r.Header.Set("X-Twilio-Signature", "") })},
		{"a signature in hex", change(func(r *sms.Webhook) { r.Header.Set("X-Twilio-Signature", strings.Repeat("a", 40)) })},
		{"the signature of an empty token", change(func(r *sms.Webhook) { r.Header.Set("X-Twilio-Signature", sign("", hookURL, reply())) })},
		{"the signature of another token", change(func(r *sms.Webhook) { r.Header.Set("X-Twilio-Signature", sign(token[1:], hookURL, reply())) })},
		{"another path", change(func(r *sms.Webhook) { r.URL = "https://sms.example.com/webhooks/other" })},
		{"another host", change(func(r *sms.Webhook) { r.URL = "https://evil.example.com/webhooks/twilio" })},
		{"another scheme", change(func(r *sms.Webhook) { r.URL = "http://sms.example.com/webhooks/twilio" })},
		{"another port", change(func(r *sms.Webhook) {
			r.URL = "https://sms.example.com:8443/webhooks/twilio"
			r.Body = append(r.Body, "&a=b"...)
		})},
		{"one parameter more", change(func(r *sms.Webhook) { r.Body = append(r.Body, "&OptOutType=START"...) })},
		{"a header that claims another URL", change(func(r *sms.Webhook) {
			r.URL = "https://sms.example.com/elsewhere"
			r.Header.Set("X-Forwarded-Host", "sms.example.com")
			r.Header.Set("X-Original-Url", "/webhooks/twilio")
		})},
		{"JSON without a hash", change(func(r *sms.Webhook) { r.Header.Set("Content-Type", "application/json") })},
		{"JSON under a hash of other JSON", post(hashed, "application/json", `{"Body":"OTHER"}`, sign(token, hashed, nil))},
		{"JSON under a hash that nobody signed", post(hashed, "application/json", jsonBody, sign(token, hookURL, nil))},
		{"another method", change(func(r *sms.Webhook) { r.Method = "PUT" })},
		{"another account", signed(reply("AccountSid", "ACd0000000000000000000000000000002"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events, err := p.Webhook(tt.r)
			if !errors.Is(err, sms.ErrSignature) || events != nil {
				t.Errorf("got %v, %v; want ErrSignature", events, err)
			}
			for _, secret := range []string{token, "+1512", "Stop", account} {
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows %q: %v", secret, err)
				}
			}
		})
	}
}

func TestURLMayDifferInThePort(t *testing.T) {
	for _, tt := range []struct{ public, signed string }{
		{"https://h.example/w", "https://h.example:443/w"},
		{"https://h.example:443/w", "https://h.example/w"},
		{"http://h.example/w?a=b", "http://h.example:80/w?a=b"},
		{"https://h.example:8443/w", "https://h.example/w"},
		{"https://h.example", "https://h.example:443"},
		{"https://u:p@h.example/w", "https://u:p@h.example:443/w"},
		{"https://[::1]/w", "https://[::1]:443/w"},
		{"https://[::1]:8443/w", "https://[::1]/w"},
		{"https://h.example/a:b@c", "https://h.example:443/a:b@c"},
		{"https://h.example/w#rc=5", "https://h.example/w"},
	} {
		f := reply()
		if _, err := testProvider(t, Config{}).Webhook(post(tt.public, formType, f.Encode(), sign(token, tt.signed, f))); err != nil {
			t.Errorf("%s signed as %s: %v", tt.public, tt.signed, err)
		}
	}
}

func TestBothTokensHoldDuringARotation(t *testing.T) {
	p := testProvider(t, Config{AuthToken: "new-token", AuthTokenPrevious: "old-token"})
	f := reply()
	for _, tok := range []string{"new-token", "old-token"} {
		if _, err := p.Webhook(post(hookURL, formType, f.Encode(), sign(tok, hookURL, f))); err != nil {
			t.Errorf("%s: %v", tok, err)
		}
	}
	if _, err := p.Webhook(post(hookURL, formType, f.Encode(), sign("older-token", hookURL, f))); !errors.Is(err, sms.ErrSignature) {
		t.Errorf("a third token: %v", err)
	}
}

// FuzzScan compares the scanner with package net/url wherever the latter accepts the text.
func FuzzScan(f *testing.F) {
	for _, s := range []string{"", "a=b", "a=b&a=c", "&&=&=&a", "a=b=c&d=%41+%2b", "%=%4&%zz", "a;b=c", "a\x00=1&a=2", reply().Encode()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, form string) {
		s := newVerifier(token).get()
		scan(s, []byte(form))
		got := url.Values{}
		for i, p := range s.pairs {
			if p.key > p.value || p.value > p.end || int(p.end) > len(s.buf) {
				t.Fatalf("pair %+v of %d bytes", p, len(s.buf))
			}
			if i > 0 && s.compare(s.pairs[i-1], p) > 0 {
				t.Fatalf("pairs %d and %d are out of order", i-1, i)
			}
			got.Add(string(s.buf[p.key:p.value]), string(s.buf[p.value:p.end]))
		}
		s.canonical()
		want, err := url.ParseQuery(form)
		if err != nil {
			if !s.odd && strings.Count(form, "&") < 1000 {
				t.Fatalf("net/url refuses %q (%v), the scanner does not", form, err)
			}
			return
		}
		for _, v := range want {
			slices.Sort(v)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if s.proves(hookURL, sign(token, hookURL, want)) != true {
			t.Errorf("the signature of %q does not hold", form)
		}
	})
}

func FuzzWebhookNeverPanics(f *testing.F) {
	f.Add("POST", hookURL, formType, reply().Encode(), "x")
	f.Add("GET", hookURL+"?Body=%", "", "", strings.Repeat("=", 28))
	f.Add("POST", "https://[::1:/?bodySHA256=zz#", "application/json", "{}", "")
	f.Fuzz(func(t *testing.T, method, u, contentType, body, signature string) {
		p := testProvider(t, Config{})
		r := post(u, contentType, body, signature)
		r.Method = method
		if events, err := p.Webhook(r); err == nil {
			t.Fatalf("accepted %v", events)
		}
		// The same content, proven.
		rawURL, _, _ := strings.Cut(u, "#")
		form, _ := url.ParseQuery(body)
		if method == "GET" {
			form = nil
		}
		r.Header.Set("X-Twilio-Signature", sign(token, rawURL, form))
		events, err := p.Webhook(r)
		if (err == nil) == (events == nil) {
			t.Fatalf("%v, %v", events, err)
		}
	})
}

func TestWebhookAllocatesLittle(t *testing.T) {
	p := testProvider(t, Config{})
	r := signed(reply())
	got := testing.AllocsPerRun(200, func() {
		if _, err := p.Webhook(r); err != nil {
			t.Fatal(err)
		}
	})
	if got > 5 && !raceEnabled { // the text, the event, its slice
		t.Errorf("%v allocations", got)
	}
}

// BenchmarkWebhook is the hot path: prove and decode one reply of about 400 bytes.
func BenchmarkWebhook(b *testing.B) {
	p := testProvider(b, Config{})
	r := signed(reply())
	b.SetBytes(int64(len(r.Body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Webhook(r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPlain is the same work with url.ParseQuery and a fresh HMAC, for comparison.
func BenchmarkPlain(b *testing.B) {
	r := signed(reply())
	b.SetBytes(int64(len(r.Body)))
	b.ReportAllocs()
	for b.Loop() {
		form, err := url.ParseQuery(string(r.Body))
		if err != nil || !hmac.Equal([]byte(sign(token, hookURL, form)), []byte(r.Header.Get("X-Twilio-Signature"))) {
			b.Fatal("not proven")
		}
	}
}

func TestTwilioActsOnItsOwnWordsOnly(t *testing.T) {
	p := &Provider{}
	for _, c := range []struct {
		to, body string
		want     bool
	}{
		{"+15550100000", "STOP", true}, {"+15550100000", " stopall\n", true}, {"+15550100000", "Revoke", true}, {"+15550100000", "START", true},
		{"+15550100000", "STOP please", false}, {"+15550100000", "pls stop texting me", false}, {"+15550100000", "BAJA", false}, {"+15550100000", "", false},
		{"+18005550100", "STOP", true}, {"+18005550100", "UNSUBSCRIBE", false},
	} {
		if got := p.ActsOn(sms.Inbound{To: c.to, Body: c.body}); got != c.want {
			t.Errorf("%q to %s: %v, want %v", c.body, c.to, got, c.want)
		}
	}
}
