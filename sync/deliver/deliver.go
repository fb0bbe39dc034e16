// Package deliver hands the reports of passes to those who want them: as files in a directory, by e-mail, and to a
// webhook signed as Standard Webhooks asks.
//
// Each report is owed to each of them until it has arrived, across restarts: what cannot be delivered is tried again for
// as long as it takes, at least once. What is in a report, and in which form, is package reconcile's.
package deliver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/ledger"
)

// The names of the ways, as in ledger.Pass.Deliver. They are written to disk for ever: add, never change.
const (
	ToFile    = "file"
	ToMail    = "mail"
	ToWebhook = "webhook"
)

// Deliverer does the owed work of kind ledger.OweReport. It is safe for concurrent use.
type Deliverer struct {
	Ledger interface {
		connector.CrewLedger
		Append(ctx context.Context, events ...ledger.Event) ([]ledger.Receipt, error)
		Report(ctx context.Context, id string) (ledger.Pass, error)
		Corrections(ctx context.Context, pass string) iter.Seq2[ledger.Correction, error]
	}
	// Render writes a report as text, html, csv or json.
	Render  func(w io.Writer, p ledger.Pass, corrections iter.Seq2[ledger.Correction, error], format string) error
	Dir     string   // "" for no files
	Mail    *Mail    // nil for none
	Webhook *Webhook // nil for none
	Log     *slog.Logger
	Now     func() time.Time
}

// Ways are the configured ways, for reconcile.Runner.Deliver.
func (d *Deliverer) Ways() (ways []string) {
	if d.Dir != "" {
		ways = append(ways, ToFile)
	}
	if d.Mail != nil {
		ways = append(ways, ToMail)
	}
	if d.Webhook != nil {
		ways = append(ways, ToWebhook)
	}
	return ways
}

// Run delivers as reports become owed, until ctx ends.
func (d *Deliverer) Run(ctx context.Context) {
	connector.Every(ctx, time.Second, d.Ledger.OwedSignal(ledger.OweReport), d.Log, "reports could not be delivered", d.Flush)
}

// Flush delivers everything that may be delivered now.
func (d *Deliverer) Flush(ctx context.Context) error {
	return connector.Crew{
		Ledger: d.Ledger, Kind: ledger.OweReport, PerAccount: 1, Trouble: "a report could not be delivered", Log: d.Log, Now: d.Now,
		Prepare: func(_ context.Context, o ledger.Owed) (string, func(context.Context) error, error) {
			return o.To, func(ctx context.Context) error { return d.deliver(ctx, o) }, nil
		},
	}.Flush(ctx)
}

const timeout = time.Minute

func (d *Deliverer) deliver(ctx context.Context, o ledger.Owed) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p, err := d.Ledger.Report(ctx, o.Pass)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case o.To == ToFile && d.Dir != "":
		err = d.file(ctx, p)
	case o.To == ToMail && d.Mail != nil:
		err = d.mail(ctx, p)
	case o.To == ToWebhook && d.Webhook != nil:
		err = d.webhook(ctx, p)
	default: // the way left the configuration: nobody wants the report any more
	}
	if err != nil {
		return err
	}
	_, err = d.Ledger.Append(context.WithoutCancel(ctx), ledger.Event{Kind: ledger.KindDelivered, At: d.Now().UTC(), Delivered: &ledger.Delivered{Pass: p.ID, Of: o.Of, To: o.To}})
	return err
}

func (d *Deliverer) render(ctx context.Context, p ledger.Pass, format string) ([]byte, error) {
	var b bytes.Buffer
	err := d.Render(&b, p, d.Ledger.Corrections(ctx, p.ID), format)
	return b.Bytes(), err
}

// passID is what a report's file may be called after.
var passID = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`)

// file writes the page and the table. A file is there whole or not at all.
func (d *Deliverer) file(ctx context.Context, p ledger.Pass) error {
	if !passID.MatchString(p.ID) {
		return fmt.Errorf("%q is no name for a file", p.ID)
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return err
	}
	for _, format := range []string{"html", "csv"} {
		b, err := d.render(ctx, p, format)
		if err != nil {
			return err
		}
		path := filepath.Join(d.Dir, p.ID+"."+format)
		if err := os.WriteFile(path+".new", b, 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

// TLS says how a mail server is spoken to.
type TLS string

const (
	StartTLS TLS = "starttls" // plain at first, and TLS before anything is said; the usual port is 587
	Implicit TLS = "tls"      // TLS from the first byte; the usual port is 465
	NoTLS    TLS = "none"     // only for a server on this machine
)

// Mail is a mail server (SMTP, RFC 5321) and who gets the reports.
type Mail struct {
	Host     string
	Port     int // 0 for the usual one
	TLS      TLS // "" is StartTLS
	Username string
	Password string
	From     string
	To       []string
}

// Check says what is wrong with the settings, without asking the server.
func (m Mail) Check() error {
	_, err := m.message()
	if err == nil {
		_, err = m.client()
	}
	return err
}

func (m Mail) client() (*mail.Client, error) {
	options := []mail.Option{mail.WithTimeout(timeout / 2)}
	port := m.Port
	switch m.TLS {
	case StartTLS, "":
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
		port = orPort(port, 587)
	case Implicit:
		options = append(options, mail.WithSSL())
		port = orPort(port, 465)
	case NoTLS:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
		port = orPort(port, 25)
	default:
		return nil, fmt.Errorf("tls must be starttls, tls or none, not %q", m.TLS)
	}
	options = append(options, mail.WithPort(port))
	if m.Username != "" {
		auth := mail.SMTPAuthAutoDiscover
		if m.TLS == NoTLS {
			auth = mail.SMTPAuthPlainNoEnc
		}
		options = append(options, mail.WithSMTPAuth(auth), mail.WithUsername(m.Username), mail.WithPassword(m.Password))
	}
	return mail.NewClient(m.Host, options...)
}

func orPort(port, usual int) int {
	if port != 0 {
		return port
	}
	return usual
}

func (m Mail) message() (*mail.Msg, error) {
	msg := mail.NewMsg()
	if err := msg.From(m.From); err != nil {
		return nil, fmt.Errorf("from is no address: %w", err)
	}
	if len(m.To) == 0 {
		return nil, errors.New("to names nobody")
	}
	if err := msg.To(m.To...); err != nil {
		return nil, fmt.Errorf("to has something that is no address: %w", err)
	}
	return msg, nil
}

// mail sends the report as text, with the page and the table attached.
func (d *Deliverer) mail(ctx context.Context, p ledger.Pass) error {
	msg, err := d.Mail.message()
	if err != nil {
		return err
	}
	text, err := d.render(ctx, p, "text")
	if err != nil {
		return err
	}
	found := 0
	for _, n := range p.Causes {
		found += n
	}
	subject := fmt.Sprintf("heed: %d differences, %s", found, p.StartedAt.UTC().Format("2006-01-02"))
	if p.Error != "" {
		subject += ", PARTIAL"
	}
	msg.Subject(subject)
	msg.SetMessageIDWithValue(p.ID + "@heed")
	msg.SetDateWithValue(d.Now())
	msg.SetBodyString(mail.TypeTextPlain, string(text))
	for _, format := range []string{"html", "csv"} {
		b, err := d.render(ctx, p, format)
		if err != nil {
			return err
		}
		kind := mail.TypeTextHTML
		if format == "csv" {
			kind = "text/csv"
		}
		if err := msg.AttachReader(p.ID+"."+format, bytes.NewReader(b), mail.WithFileContentType(kind)); err != nil {
			return err
		}
	}
	client, err := d.Mail.client()
	if err != nil {
		return err
	}
	// The library leaves the connection open where a server does not offer the TLS that is asked for.
	var opened net.Conn
	var dialer interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	} = &net.Dialer{Timeout: timeout / 2}
	if d.Mail.TLS == Implicit {
		dialer = &tls.Dialer{Config: &tls.Config{ServerName: d.Mail.Host, MinVersion: tls.VersionTLS12}}
	}
	err = mail.WithDialContextFunc(func(ctx context.Context, network, address string) (c net.Conn, err error) {
		opened, err = dialer.DialContext(ctx, network, address)
		return opened, err
	})(client)
	if err == nil {
		err = client.DialAndSendWithContext(ctx, msg)
	}
	if opened != nil {
		_ = opened.Close()
	}
	return err
}

// Webhook is an address that gets reports as JSON, signed as https://www.standardwebhooks.com says: webhook-id,
// webhook-timestamp and webhook-signature, with HMAC-SHA256 over id.timestamp.body.
type Webhook struct {
	URL    string
	key    []byte
	client *http.Client
}

// NewWebhook returns a webhook. secret is "whsec_" and 24 to 64 bytes in base64.
func NewWebhook(address, secret string) (*Webhook, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("url must be http://… or https://…")
	}
	coded, ok := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(coded)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, errors.New(`secret must be "whsec_" and 24 to 64 bytes in base64: echo whsec_$(openssl rand -base64 32)`)
	}
	return &Webhook{URL: address, key: key, client: &http.Client{Timeout: timeout / 2, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// sign returns the signature of a body under an id and a time in Unix seconds.
func (w *Webhook) sign(id string, at int64, body []byte) string {
	mac := hmac.New(sha256.New, w.key)
	fmt.Fprintf(mac, "%s.%d.", id, at)
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func (d *Deliverer) webhook(ctx context.Context, p ledger.Pass) error {
	body, err := d.render(ctx, p, "json")
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.Webhook.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("the webhook's URL cannot be called")
	}
	at := d.Now().Unix()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "heed")
	req.Header.Set("webhook-id", p.ID) // the same at each try
	req.Header.Set("webhook-timestamp", strconv.FormatInt(at, 10))
	req.Header.Set("webhook-signature", d.Webhook.sign(p.ID, at, body))
	resp, err := d.Webhook.client.Do(req)
	if err != nil {
		var ue *url.Error // its text holds the address, which may carry a secret
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("the webhook does not answer: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("the webhook answered HTTP %d", resp.StatusCode)
	}
	return nil
}
