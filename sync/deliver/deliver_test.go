package deliver

import (
	"bufio"

	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/heed-sms/heed/connector/ledger"
	"github.com/heed-sms/heed/connector/ledger/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// The vector of the specification's reference libraries (standard-webhooks, libraries/*/test).
func TestTheSignatureIsThatOfTheSpecification(t *testing.T) {
	w, err := NewWebhook("https://example.com", secret)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, []byte(`{"test": 2432232314}`)); got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Error(got)
	}
	for _, bad := range []string{"", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_short", "whsec_!!!"} {
		if _, err := NewWebhook("https://example.com", bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("secret %q: %v", bad, err)
		}
	}
	if _, err := NewWebhook("ftp://example.com", secret); err == nil {
		t.Error("an address that is none is taken")
	}
}

type rig struct {
	*testing.T
	ledger *local.Ledger
	d      *Deliverer
}

// newRig has a ledger in which a pass has ended whose report is owed.
func newRig(t *testing.T, with func(d *Deliverer)) *rig {
	l, err := local.Open(t.TempDir(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r := &rig{T: t, ledger: l, d: &Deliverer{Ledger: l, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Render: func(w io.Writer, p ledger.Pass, _ iter.Seq2[ledger.Correction, error], format string) error {
			_, err := fmt.Fprintf(w, "%s as %s\n", p.ID, format)
			return err
		}}}
	with(r.d)
	r.pass("pass_1")
	return r
}

func (r *rig) pass(id string) {
	r.Helper()
	now := time.Now()
	for _, e := range []ledger.Event{
		{Kind: ledger.KindPass, At: now, Pass: &ledger.Pass{ID: id, Kind: "nightly", StartedAt: now}},
		{Kind: ledger.KindPass, At: now, Pass: &ledger.Pass{ID: id, Kind: "nightly", StartedAt: now, FinishedAt: now, Error: "half", Deliver: r.d.Ways()}},
	} {
		if _, err := r.ledger.Append(r.Context(), e); err != nil {
			r.Fatal(err)
		}
	}
}

func (r *rig) flush() {
	r.Helper()
	if err := errors.Join(r.ledger.Hurry(r.Context(), ledger.OweReport), r.d.Flush(r.Context())); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) owed() int {
	r.Helper()
	s, err := r.ledger.Stats(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return s.Owed[ledger.OweReport]
}

func TestAReportIsWrittenAsFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reports")
	r := newRig(t, func(d *Deliverer) { d.Dir = dir })
	if r.owed() != 1 {
		t.Fatalf("%d owed", r.owed())
	}
	r.flush()
	for _, format := range []string{"html", "csv"} {
		if b, err := os.ReadFile(filepath.Join(dir, "pass_1."+format)); err != nil || string(b) != "pass_1 as "+format+"\n" {
			t.Errorf("%s: %q %v", format, b, err)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 || r.owed() != 0 {
		t.Errorf("%d files, %d owed", len(files), r.owed())
	}
	if err := r.d.file(t.Context(), ledger.Pass{ID: "../../etc/x"}); err == nil {
		t.Error("a report writes outside its directory")
	}
}

func TestAWebhookIsSignedAndTriedAgain(t *testing.T) {
	var mu sync.Mutex
	status, got := 503, []*http.Request{}
	var body []byte
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ = io.ReadAll(r.Body)
		got = append(got, r)
		w.WriteHeader(status)
	}))
	t.Cleanup(ts.Close)
	hook, err := NewWebhook(ts.URL+"/secret-path", secret)
	if err != nil {
		t.Fatal(err)
	}
	hook.client.Transport = &http.Transport{DisableKeepAlives: true}
	r := newRig(t, func(d *Deliverer) { d.Webhook = hook })
	r.flush()
	if r.owed() != 1 || len(got) != 1 {
		t.Fatalf("%d owed, %d requests", r.owed(), len(got))
	}
	mu.Lock()
	status = 204
	mu.Unlock()
	r.flush()
	r.flush()
	if r.owed() != 0 || len(got) != 2 {
		t.Fatalf("%d owed, %d requests", r.owed(), len(got))
	}
	last := got[1].Header
	var at int64
	if _, err := fmt.Sscan(last.Get("webhook-timestamp"), &at); err != nil {
		t.Fatal(err)
	}
	if last.Get("webhook-id") != "pass_1" || last.Get("webhook-signature") != hook.sign("pass_1", at, body) || string(body) != "pass_1 as json\n" {
		t.Errorf("%v %q", last, body)
	}
	ts.Close()
	if err := r.d.webhook(t.Context(), ledger.Pass{ID: "x"}); err == nil || strings.Contains(err.Error(), "secret-path") {
		t.Errorf("the address is in the error, or there is none: %v", err)
	}
}

// smtpServer is as much of a mail server as a client without TLS needs (RFC 5321). It takes mail to anybody but nobody@….
type smtpServer struct {
	net.Listener
	mu   sync.Mutex
	mail []string
	busy bool
	wg   sync.WaitGroup
}

func newSMTP(t *testing.T) *smtpServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &smtpServer{Listener: l}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); s.wg.Wait() })
	return s
}

func (s *smtpServer) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	say := func(line string) { fmt.Fprintf(c, "%s\r\n", line) }
	s.mu.Lock()
	busy := s.busy
	s.mu.Unlock()
	if busy {
		say("421 try again later")
		return
	}
	say("220 test ready")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(line[:min(4, len(line))]); verb {
		case "EHLO":
			say("250-test")
			say("250-AUTH PLAIN")
			say("250 8BITMIME")
		case "AUTH":
			if !strings.Contains(line, "AGhlZWQAcGFzcw==") { // \0heed\0pass
				say("535 wrong")
				continue
			}
			say("235 ok")
		case "DATA":
			say("354 go on")
			var b strings.Builder
			for {
				l, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				b.WriteString(l)
			}
			s.mu.Lock()
			s.mail = append(s.mail, b.String())
			s.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func TestAReportIsMailedWithItsAttachments(t *testing.T) {
	s := newSMTP(t)
	port := s.Addr().(*net.TCPAddr).Port
	r := newRig(t, func(d *Deliverer) {
		d.Mail = &Mail{Host: "127.0.0.1", Port: port, TLS: NoTLS, Username: "heed", Password: "pass", From: "heed@example.com", To: []string{"ann@example.com", "Bob <bob@example.com>"}}
	})
	if err := r.d.Mail.Check(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.busy = true
	s.mu.Unlock()
	r.flush()
	if r.owed() != 1 {
		t.Fatal("a busy server counts as delivered")
	}
	s.mu.Lock()
	s.busy = false
	s.mu.Unlock()
	r.flush()
	if r.owed() != 0 || len(s.mail) != 1 {
		t.Fatalf("%d owed, %d mails", r.owed(), len(s.mail))
	}
	for _, want := range []string{"Subject: heed: 0 differences", "PARTIAL", "<ann@example.com>", "<bob@example.com>", "Message-ID: <pass_1@heed>", "pass_1 as text", `filename="pass_1.html"`, `filename="pass_1.csv"`} {
		if !strings.Contains(s.mail[0], want) {
			t.Errorf("no %q in\n%s", want, s.mail[0])
		}
	}
	// A plain connection where TLS is asked for says nothing to the server.
	r.d.Mail.TLS = StartTLS
	r.pass("pass_2")
	r.flush()
	if r.owed() != 1 || len(s.mail) != 1 {
		t.Errorf("without TLS %d mails were sent", len(s.mail))
	}
}

func TestBadMailSettingsAreFoundWithoutAServer(t *testing.T) {
	good := Mail{Host: "mail.example.com", From: "heed@example.com", To: []string{"ann@example.com"}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Mail){
		"no host": func(m *Mail) { m.Host = "" }, "from": func(m *Mail) { m.From = "heed" }, "to": func(m *Mail) { m.To = nil },
		"a header in to": func(m *Mail) { m.To = []string{"ann@example.com\r\nBcc: eve@example.com"} }, "tls": func(m *Mail) { m.TLS = "maybe" },
	} {
		m := good
		change(&m)
		if m.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestWhatNobodyWantsAnyMoreIsNotOwedForEver(t *testing.T) {
	r := newRig(t, func(d *Deliverer) { d.Dir = t.TempDir() })
	r.d.Dir = ""
	r.flush()
	if r.owed() != 0 {
		t.Error("it is still owed")
	}
	if got := r.d.Ways(); got != nil {
		t.Errorf("ways %v", got)
	}
}
